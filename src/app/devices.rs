use std::sync::Arc;

use super::StartError;
use crate::config::{Hardware, Hw};
#[cfg(feature = "cuda")]
use crate::hardware::Piece;
use crate::hardware::{Stage, Table};
use crate::pipeline::Gpu;
#[cfg(feature = "cuda")]
use crate::pipeline::{Libraries, Unusable};

/// Special hardware, and what of it works.
#[derive(Debug, Clone, Default)]
pub struct Devices {
    /// What was found.
    pub table: Table,
    /// A GPU that is open.
    pub gpu: Option<Arc<Gpu>>,
}

impl Devices {
    /// There are none, for this reason.
    #[must_use]
    pub fn none(reason: &str) -> Self {
        Self { table: Table::nothing(reason), gpu: None }
    }

    /// Opens what the configuration wants of what was found. It may take seconds. What can't be opened after all is put
    /// into the table.
    #[must_use]
    pub fn open(hw: Hw, table: Table) -> Self {
        #[cfg(feature = "cuda")]
        {
            let stages: Vec<_> =
                stages(hw).filter(|(wanted, _)| *wanted != Hardware::Off).map(|(_, stage)| stage).collect();
            if stages.iter().any(|stage| table.offers(*stage).is_ok()) {
                let opened = Libraries::open()
                    .map_err(Unusable::from)
                    .and_then(|libraries| Gpu::open(libraries, &table, &stages));
                return match opened {
                    Ok(gpu) => Self { table, gpu: Some(Arc::new(gpu)) },
                    Err(missing) => {
                        tracing::error!(%missing, "the GPU worked when it was tried, and can't be opened");
                        Self { table: table.without(Piece::Device, &missing.to_string()), gpu: None }
                    }
                };
            }
        }
        #[cfg(not(feature = "cuda"))]
        let _ = hw;
        Self { table, gpu: None }
    }
}

/// Each stage that hardware may do, and whether it is to.
fn stages(hw: Hw) -> impl Iterator<Item = (Hardware, Stage)> {
    [(hw.decode, Stage::Decode), (hw.encode, Stage::Encode), (hw.infer, Stage::Infer)].into_iter()
}

/// # Errors
/// [`StartError::Hardware`] if a stage that has to be done by a device cannot be.
pub(super) fn insist(hw: Hw, hardware: &Table) -> Result<(), StartError> {
    let wanted = stages(hw).filter(|(wanted, _)| *wanted == Hardware::On);
    let missing: Vec<_> = wanted.filter_map(|(_, stage)| Some((stage.key(), hardware.offers(stage).err()?))).collect();
    if missing.is_empty() { Ok(()) } else { Err(StartError::Hardware { missing }) }
}

//! Whether the GPU repeats recorded runs of models, which is found out as the server's own probe does.

use std::fmt;
use std::sync::Arc;

use saccade::infer::manifest::Precision;
use saccade::infer::{Engine, Error, ModelSpec};
use saccade::media::I420;

use super::goldens::On;
use super::gpu::Machine;
use super::making::scene;

/// How runs of models are handed to the GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Graphs {
    /// Each anew, since nothing else was wanted.
    Anew,
    /// As CUDA graphs, as far as a model's runs can be recorded; what the trial found.
    Recorded(String),
    /// Each anew, for this reason.
    Refused(String),
}

impl Graphs {
    /// Where recorded runs are wanted, tries them with the embedded model.
    pub fn find(machine: &Machine, wanted: bool) -> Self {
        if !wanted {
            return Self::Anew;
        }
        let tried = ModelSpec::embedded().map_err(|error| error.to_string()).and_then(|spec| {
            let engine = Engine::new(On::machine(machine, true).options(Precision::Fp32));
            Ok((engine.map_err(|error| error.to_string())?, spec))
        });
        match tried.and_then(|(engine, spec)| try_out(&engine, &spec)) {
            Ok(found) => Self::Recorded(found),
            Err(reason) => Self::Refused(reason),
        }
    }

    /// Whether models' runs are to be recorded.
    pub const fn are_on(&self) -> bool {
        matches!(self, Self::Recorded(_))
    }

    /// How the runs of one model are handed over by such an engine.
    pub fn of_model(&self, engine: &Engine, spec: &ModelSpec) -> String {
        match self {
            Self::Anew | Self::Refused(_) => self.to_string(),
            Self::Recorded(_) => match try_out(engine, spec) {
                Ok(found) => Self::Recorded(found).to_string(),
                Err(reason) => Self::Refused(reason).to_string(),
            },
        }
    }
}

/// Runs handed over anew against recorded ones.
fn try_out(engine: &Engine, spec: &ModelSpec) -> Result<String, String> {
    // One in which there are people, and one that is all the same.
    let pictures: Vec<_> = scene([640, 480]).skip(3).take(1).chain([Arc::new(I420::new(640, 480))]).collect();
    let id = spec.manifest.id();
    match engine.try_recorded(spec, &pictures) {
        Ok(times) => Ok(format!("{id} finds the same in {:.1?} instead of {:.1?}", times.repeated, times.anew)),
        // What is compared was recorded before.
        Err(Error::Recording { reason }) if reason.starts_with("there was nothing to find") => {
            Ok(format!("{id} finds nothing that could be compared"))
        }
        Err(error) => Err(error.to_string()),
    }
}

impl fmt::Display for Graphs {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anew => write!(out, "anew"),
            Self::Recorded(found) => write!(out, "recorded: {found}"),
            Self::Refused(reason) => write!(out, "refused: {reason}"),
        }
    }
}

//! What of an NVIDIA GPU works on this machine: a table, made once at start.
//!
//! What enters: the lines that a [`probe`] writes about one piece after the other. What leaves: for each stage of a session
//! whether the device can do it, or why not. Nothing here calls a library of NVIDIA's: a driver that crashes or hangs must
//! not take the server with it, so that a process of its own looks.

pub mod probe;

use std::fmt;

use serde::{Deserialize, Serialize};

/// A piece of what frames on a device need, in the order in which they build on each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Piece {
    /// The driver's library, and whether it is new enough.
    Driver,
    /// A GPU, its memory and a context on it.
    Device,
    /// Our kernels, which have to give what they give on the CPU.
    Kernels,
    /// NVDEC for H.264.
    DecodeH264,
    /// NVDEC for HEVC.
    DecodeHevc,
    /// NVDEC for VP8.
    DecodeVp8,
    /// NVDEC for VP9, 8 bits.
    DecodeVp9,
    /// NVDEC for AV1, 8 bits.
    DecodeAv1,
    /// NVENC for H.264.
    EncodeH264,
    /// ONNX Runtime's CUDA provider.
    Cuda,
    /// ONNX Runtime's TensorRT provider.
    TensorRt,
    /// Runs of the CUDA provider that are recorded and repeated. No stage needs them.
    CudaGraphs,
}

/// A stage of a session that a device can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// From access units to pictures: `hw.decode`.
    Decode,
    /// From pictures to access units: `hw.encode`.
    Encode,
    /// Models: `hw.infer`.
    Infer,
}

impl Piece {
    /// All of them, in order.
    pub const ALL: [Self; 12] = [
        Self::Driver,
        Self::Device,
        Self::Kernels,
        Self::DecodeH264,
        Self::DecodeHevc,
        Self::DecodeVp8,
        Self::DecodeVp9,
        Self::DecodeAv1,
        Self::EncodeH264,
        Self::Cuda,
        Self::TensorRt,
        Self::CudaGraphs,
    ];

    /// Whether a GPU is whole without it: what is missing makes models slower and nothing else.
    #[must_use]
    pub const fn is_extra(self) -> bool {
        matches!(self, Self::TensorRt | Self::CudaGraphs)
    }

    /// What it is called in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Driver => "NVIDIA driver",
            Self::Device => "GPU",
            Self::Kernels => "kernels",
            Self::DecodeH264 => "NVDEC H.264",
            Self::DecodeHevc => "NVDEC HEVC",
            Self::DecodeVp8 => "NVDEC VP8",
            Self::DecodeVp9 => "NVDEC VP9",
            Self::DecodeAv1 => "NVDEC AV1",
            Self::EncodeH264 => "NVENC H.264",
            Self::Cuda => "CUDA provider",
            Self::CudaGraphs => "CUDA graphs",
            Self::TensorRt => "TensorRT provider",
        }
    }
}

impl Stage {
    /// Its key in the configuration.
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            Self::Decode => "hw.decode",
            Self::Encode => "hw.encode",
            Self::Infer => "hw.infer",
        }
    }

    /// The pieces that it cannot do without, and those of which one is enough.
    const fn needs(self) -> (&'static [Piece], &'static [Piece]) {
        const BASE: &[Piece] = &[Piece::Driver, Piece::Device, Piece::Kernels];
        match self {
            Self::Decode => {
                (BASE, &[Piece::DecodeH264, Piece::DecodeHevc, Piece::DecodeVp8, Piece::DecodeVp9, Piece::DecodeAv1])
            }
            Self::Encode => (BASE, &[Piece::EncodeH264]),
            // TensorRT leaves to it what it cannot do.
            Self::Infer => (BASE, &[Piece::Cuda]),
        }
    }
}

/// What was found of one piece.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What was looked at.
    pub piece: Piece,
    /// Whether it can be used.
    pub works: bool,
    /// What it is, or why it cannot be used; one line.
    pub found: String,
}

/// What was found of all pieces that were looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Table {
    findings: Vec<Finding>,
}

impl Table {
    /// With the findings in this order; of several about one piece, the last counts.
    #[must_use]
    pub fn new(findings: Vec<Finding>) -> Self {
        Self { findings }
    }

    /// Nothing works, for one reason.
    #[must_use]
    pub fn nothing(reason: &str) -> Self {
        Self::new(vec![Finding { piece: Piece::Driver, works: false, found: reason.to_owned() }])
    }

    /// The same, but this piece does not work.
    #[must_use]
    pub fn without(mut self, piece: Piece, reason: &str) -> Self {
        self.findings.push(Finding { piece, works: false, found: reason.to_owned() });
        self
    }

    /// What was found, in the order in which it was looked at.
    #[must_use]
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// # Errors
    /// Why this piece cannot be used.
    pub fn works(&self, piece: Piece) -> Result<&str, String> {
        match self.findings.iter().rfind(|finding| finding.piece == piece) {
            Some(Finding { works: true, found, .. }) => Ok(found),
            Some(Finding { found, .. }) => Err(format!("{}: {found}", piece.name())),
            None => Err(format!("{}: not looked at", piece.name())),
        }
    }

    /// # Errors
    /// Why the device cannot do this stage: the first piece that is missing, or all of those of which one would do.
    pub fn offers(&self, stage: Stage) -> Result<(), String> {
        let (all, any) = stage.needs();
        for piece in all {
            self.works(*piece)?;
        }
        let missing: Result<Vec<_>, ()> = any.iter().map(|piece| self.works(*piece).err().ok_or(())).collect();
        // What was not looked at says nothing beside what was.
        missing.map_or(Ok(()), |reasons| Err(reasons.join("; ")))
    }
}

/// One line a piece.
impl fmt::Display for Table {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Finding { piece, works, found }) in self.findings.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(out, "{separator}{}: {}{found}", piece.name(), if *works { "" } else { "no: " })?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn finding(piece: Piece, works: bool) -> Finding {
        Finding { piece, works, found: if works { "it is there" } else { "it is not there" }.to_owned() }
    }

    #[test]
    fn a_stage_needs_what_it_builds_on_and_one_way_to_do_it() {
        let base = [Piece::Driver, Piece::Device, Piece::Kernels].map(|piece| finding(piece, true));
        let table = Table::new(base.to_vec());
        assert_eq!(table.offers(Stage::Encode).unwrap_err(), "NVENC H.264: not looked at");
        let with = |more: &[Finding]| Table::new([&base, more].concat());
        let decodes = with(&[finding(Piece::DecodeH264, false), finding(Piece::DecodeVp8, true)]);
        assert!(decodes.offers(Stage::Decode).is_ok());
        assert_eq!(decodes.works(Piece::DecodeVp8), Ok("it is there"));
        assert_eq!(decodes.offers(Stage::Infer).unwrap_err(), "CUDA provider: not looked at");
        let broken = with(&[finding(Piece::DecodeVp8, true), finding(Piece::Kernels, false)]);
        assert_eq!(broken.offers(Stage::Decode).unwrap_err(), "kernels: it is not there");
    }

    #[test]
    fn no_stage_needs_runs_that_are_recorded() {
        let base = [Piece::Driver, Piece::Device, Piece::Kernels, Piece::Cuda].map(|piece| finding(piece, true));
        let table = Table::new(base.to_vec()).without(Piece::CudaGraphs, "they find something else");
        assert_eq!(table.offers(Stage::Infer), Ok(()));
        assert_eq!(table.works(Piece::CudaGraphs).unwrap_err(), "CUDA graphs: they find something else");
        let alone = Table::new([&base[..3], &[finding(Piece::CudaGraphs, true)]].concat());
        assert!(alone.offers(Stage::Infer).is_err(), "they are none by themselves");
    }

    #[test]
    fn where_nothing_works_each_stage_says_why() {
        let table = Table::nothing("libcuda.so.1 is not there");
        for stage in [Stage::Decode, Stage::Encode, Stage::Infer] {
            assert_eq!(table.offers(stage).unwrap_err(), "NVIDIA driver: libcuda.so.1 is not there");
        }
        assert_eq!(table.to_string(), "NVIDIA driver: no: libcuda.so.1 is not there");
    }
}

//! What runs a graph: ONNX Runtime with its own CPU provider, with OpenVINO, or with CUDA on a GPU.
//!
//! The library is loaded at run time (see [`Library::find`]); without it nothing else here works. Which provider and
//! precision a model gets, and in which batch sizes it runs, is measured when it is loaded.

mod buckets;
mod cpu;
mod describe;
#[cfg(feature = "cuda")]
mod in_place;
mod library;
mod onnx;
#[cfg(feature = "cuda")]
mod recorded;
mod select;
mod tensorrt;

pub use cpu::CpuFeatures;
pub use describe::{Description, Port, Seen};
pub use library::Library;
#[cfg(feature = "cuda")]
pub use recorded::Recorded;
pub use select::{Provider, Selection};
pub use tensorrt::{Job, TensorRt};

#[cfg(feature = "cuda")]
pub(super) use in_place::InPlace;
pub(super) use onnx::{Graph, builder as onnx_builder, open_plainly};
pub(super) use select::{Opener, Request};

use std::time::Instant;

use super::decoder::View;
use super::error::Error;

/// How much the calling thread steps back behind others, -20..19: so far that a codec that wakes up runs at once, and a
/// model still gets a fair part of a busy core.
const NICE: i32 = 5;
/// The same of threads that take only what others leave.
const NICEST: i32 = 19;

/// Lets decoding and encoding go before inference on the calling thread: they take little, and returned video waits for
/// them, whatever the model takes.
pub(super) fn yield_to_codecs() {
    step_back(NICE);
}

/// Lets everything else go before the calling thread.
pub(super) fn yield_to_all() {
    step_back(NICEST);
}

fn step_back(nice: i32) {
    if let Err(error) = rustix::process::setpriority_process(None, nice) {
        tracing::debug!(%error, "a model's thread keeps its priority");
    }
}

/// What runs a fixed number of pictures at a time.
pub(super) enum Bucket {
    /// From tensors of the host to tensors of the host.
    Host(Box<dyn Backend>),
    /// From pictures to detections, where the pictures are.
    #[cfg(feature = "cuda")]
    InPlace(Box<InPlace>),
}

/// A model's graph, ready to run on a fixed number of pictures at a time. It belongs to one thread at a time.
pub(super) trait Backend: Send {
    /// When the next run is of no use any more, for those whose runs can be given up.
    fn due(&mut self, due: Option<Instant>) {
        let _ = due;
    }

    /// The input tensor, to write the next pictures to, one after the other. It keeps its values between runs.
    fn input(&mut self) -> &mut [f32];

    /// Runs the graph on the input tensor and shows the outputs to `read`, in the order the decoder asked for.
    fn run(&mut self, read: &mut dyn FnMut(&[View<'_>]) -> Result<(), Error>) -> Result<(), Error>;
}

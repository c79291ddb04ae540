//! Inference: frames in, what models find in them out.
//!
//! **Enters**: raw [`Frame`]s of many sessions, each through its own [`Slot`], a mailbox of one
//! in which the newest frame wins. **Leaves**: one [`Outcome`] a frame taken from a slot, through the callback given
//! to [`Model::attach`]. **Runs on**: one owner thread for each instance of a model; the callback is called there, so
//! it has to be quick. **Must not**: know sessions, transport or encoders, or let a session's frames wait in a queue.
//!
//! A model is a folder with an ONNX graph and a [`manifest`]; the [`Repository`] finds them, the [`Engine`] loads them
//! and chooses the [`backend`], and a [`Model`] is the handle that sessions share. A [`Plan`] says which of them a session
//! gets for the name it asks for: a model, or what one of the [`Routes`] makes of it; [`fusion`] joins what several found.
//! Which of the waiting frames run next, and how many together, is up to the [`batcher`]; one that can't be done in time
//! is given back before it costs anything. What it decides on is measured when a model is loaded, and kept from one start
//! to the next ([`crate::calibration`]).

pub mod backend;
pub mod batcher;
pub mod fusion;
pub mod manifest;
pub mod preprocess;

mod decoder;
#[cfg(feature = "cuda")]
pub mod device;
mod engine;
mod error;
mod found;
mod improver;
mod instance;
mod letterbox;
mod model;
mod plan;
mod postprocess;
mod prepared;
mod proposal;
mod repository;
mod routes;
mod runner;
mod shared;

use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "cuda")]
pub use backend::Recorded;
pub use backend::{Job, TensorRt};
pub use batcher::Priority;
#[cfg(feature = "cuda")]
pub use decoder::device::Head;
pub use decoder::{Outlet, View};
pub use engine::{Cuda, Engine, Engines, Options};
pub use error::{Error, Mistake};
pub use letterbox::Letterbox;
pub use manifest::Manifest;
pub use model::{Model, Slot};
pub use plan::{Member, Outline, Plan};
pub use postprocess::Postprocessor;
pub use prepared::{Prepared, Twins};
pub use proposal::{File, Picture, Proposal};
pub use repository::{ModelSpec, Refused, Repository};
pub(crate) use repository::{compare_versions, matches_name};
pub use routes::{MAX_ROUTES, Put, RouteError, Routes};

use crate::frame::Frame;
use crate::media::{Detection, Overall};

/// What a session wants of a model's detections.
#[derive(Debug, Clone, PartialEq)]
pub struct Params {
    /// Lowest score that is reported, 0..1.
    pub score_threshold: f32,
    /// Overlap above which the weaker of two boxes of one class goes, 0..1.
    pub iou_threshold: f32,
    /// Detections reported at most.
    pub max_detections: usize,
    /// Class ids that are reported; none: all.
    pub classes: Option<Vec<u32>>,
}

/// Where the time of one inference went. All but `queue` are the times of the whole batch: so long did each of its
/// members take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timing {
    /// From decoding until the model took the frame.
    pub queue: Duration,
    /// From planes to tensor.
    pub preprocess: Duration,
    /// The run itself.
    pub inference: Duration,
    /// From tensors to what was found.
    pub postprocess: Duration,
}

impl Timing {
    /// Time that an instance spent on the batch.
    #[must_use]
    pub fn service(&self) -> Duration {
        self.preprocess + self.inference + self.postprocess
    }
}

/// A frame and what the model found in it.
#[derive(Debug, Clone)]
pub struct Inferred {
    /// The frame, as submitted.
    pub frame: Frame,
    /// Best score first; boxes in pixels of the frame, inside it.
    pub detections: Vec<Detection>,
    /// What the model says of the whole frame, where it says that.
    pub overall: Option<Arc<Overall>>,
    /// Where the time went.
    pub timing: Timing,
    /// Frames and pictures in the same run.
    pub batch_size: usize,
    /// Whether it was done by the frame's deadline.
    pub met: bool,
}

/// What became of a frame that a model took from a slot.
#[derive(Debug)]
pub enum Outcome {
    /// It went through the model.
    Done(Inferred),
    /// It could not have been done by its deadline, so nothing was spent on it.
    Late(Frame),
    /// The model failed on it.
    Failed(Frame, Error),
}

/// What [`Model::detect`] found in a picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Detected {
    /// Best score first; boxes in pixels of the picture, inside it.
    pub detections: Vec<Detection>,
    /// What the model says of the whole picture, where it says that.
    pub overall: Option<Arc<Overall>>,
    /// Where the time went.
    pub timing: Timing,
}

/// What a model found in one picture.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Findings {
    /// Best score first; boxes in pixels of the picture, inside it.
    pub detections: Vec<Detection>,
    /// What is said of the whole picture.
    pub overall: Option<Arc<Overall>>,
}

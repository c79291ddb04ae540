use std::fmt;
use std::path::PathBuf;

use super::inspect::Unfit;
use super::quantize;

/// One mistake in a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Dotted key, such as `input.size`.
    pub key: String,
    /// What is wrong with it, and what is legal.
    pub problem: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}", self.key, self.problem)
    }
}

/// What can go wrong between a model's folder and a frame's detections.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No ONNX Runtime library was found.
    #[error("ONNX Runtime library not found (looked for {}); run `make setup`, or set ORT_DYLIB_PATH to the library", searched.join(", "))]
    LibraryMissing {
        /// Places that were looked at.
        searched: Vec<String>,
    },
    /// The library is there but can't be used, for instance because it is too old.
    #[error("ONNX Runtime library {} cannot be used: {reason}; run `make setup`, or set ORT_DYLIB_PATH to another", path.display())]
    LibraryUnusable {
        /// Its path.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// A file of a model can't be read.
    #[error("cannot read {}: {reason}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The manifest is no TOML, or has mistakes; all of them are listed.
    #[error("manifest: {}", mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Manifest {
        /// All mistakes found.
        mistakes: Vec<Mistake>,
    },
    /// A file's SHA-256 is not the manifest's.
    #[error("{file}: sha256 is {actual}, the manifest says {expected}")]
    Checksum {
        /// File name.
        file: String,
        /// From the manifest.
        expected: String,
        /// Of the file.
        actual: String,
    },
    /// A graph is not handed to ONNX Runtime at all.
    #[error("{file}: {reason}")]
    Unfit {
        /// File name.
        file: String,
        /// Why not.
        reason: Unfit,
    },
    /// A process of its own that tried the model did not come through, or found that it can't be used.
    #[error("{reason}")]
    Check {
        /// What became of it.
        reason: String,
    },
    /// ONNX Runtime can't read the file: it is truncated, or no ONNX, or needs operators that are not there.
    #[error("{file} is not a usable ONNX model: {reason}")]
    UnreadableModel {
        /// File name.
        file: String,
        /// What ONNX Runtime said.
        reason: String,
    },
    /// The model's input is not what the manifest says.
    #[error("input `{tensor}`: the manifest asks for {expected}, the model has {found}")]
    WrongInput {
        /// Name of the input.
        tensor: String,
        /// By the manifest.
        expected: String,
        /// In the model.
        found: String,
    },
    /// The model's outputs are not those that the manifest's decoder reads.
    #[error("output `{tensor}`: decoder `{decoder}` needs {expected}, the model has {found}")]
    WrongOutput {
        /// Decoder from the manifest.
        decoder: &'static str,
        /// Name of the output.
        tensor: String,
        /// What the decoder reads.
        expected: String,
        /// In the model.
        found: String,
    },
    /// The wanted precision or backend is not available here.
    #[error("{what} is not available here: {reason}")]
    Unavailable {
        /// What was asked for.
        what: String,
        /// Why it is not there.
        reason: String,
    },
    /// A picture could not be done by its deadline, so nothing was spent on it.
    #[error("the picture's deadline was over before the model was free")]
    Late,
    /// A graph can't be made into one in int8.
    #[error("{0}")]
    NotQuantized(#[from] quantize::Error),
    /// A run of the model failed.
    #[error("inference failed: {reason}")]
    Run {
        /// What the backend said.
        reason: String,
    },
    /// The device had no room for the pictures of a run; it may have later.
    #[error("inference failed: {reason}")]
    NoRoom {
        /// What there was no room for.
        reason: String,
    },
    /// Another server that runs the model gave no answer to this; it may to the next.
    #[error("the server that runs the model: {reason}")]
    Remote {
        /// What is known of it.
        reason: String,
    },
    /// A run that is recorded on a device, or repeated there, failed; another instance of the model does without.
    #[error("inference failed: {reason}")]
    Recording {
        /// What the backend said.
        reason: String,
    },
    /// The model's thread panicked on this frame; its instance was restarted.
    #[error("the model instance panicked")]
    Panicked,
    /// The model failed repeatedly and takes no more work.
    #[error("the model is not ready after repeated failures")]
    NotReady,
    /// The model was shut down.
    #[error("the model was shut down")]
    Closed,
    /// Too many pictures wait already.
    #[error("too many pictures wait for the model")]
    Busy,
    /// No loaded model has this name.
    #[error("unknown model `{name}`")]
    UnknownModel {
        /// Name or `name@version` as asked for.
        name: String,
    },
    /// The system gave no thread.
    #[error("cannot start a thread: {reason}")]
    Thread {
        /// What the system said.
        reason: String,
    },
}

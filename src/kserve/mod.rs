//! The Open Inference Protocol, version 2 ("KServe v2"): tensors in, tensors out, over HTTP and gRPC, as its clients speak
//! it to Triton.
//!
//! A leaf, from both sides. As a server: what a request says and how an answer is written, in JSON with binary tensors
//! ([`rest`]) and in messages of gRPC ([`grpc`]), for whatever [`Models`] there are; sockets, tokens and threads are
//! others' business. As a client: [`client`] asks other servers, for models that run there. Bodies are bounded before
//! anything is allocated for what they say.

mod access;
pub mod client;
pub mod compression;
mod error;
pub mod grpc;
mod proto;
pub mod rest;
mod tensor;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::traces::Trail;

pub use access::{Denied, Identify, count, may_infer, may_manage, may_see, may_send, measured};
pub use error::Error;
pub use tensor::{DataType, MAX_RANK, Shape, Tensor, elements, push_string, strings};

/// Extensions of the protocol that are offered, by the names that Triton gave them.
pub const EXTENSIONS: [&str; 5] =
    ["binary_tensor_data", "parameters", "statistics", "model_configuration", "model_repository"];
/// Inputs or outputs that a request names at most.
pub const MAX_TENSORS: usize = 64;
/// Platform of models that ONNX Runtime runs here, in metadata and configuration.
pub const PLATFORM: &str = "onnxruntime_onnx";

/// A model of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Named<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its version; none: the newest.
    pub version: Option<&'a str>,
}

impl<'a> Named<'a> {
    /// A model as messages name it: an empty version is none.
    #[must_use]
    pub fn new(name: &'a str, version: &'a str) -> Self {
        Self { name, version: (!version.is_empty()).then_some(version) }
    }

    /// `name` or `name@version`.
    #[must_use]
    pub fn id(&self) -> String {
        self.version.map_or_else(|| self.name.to_owned(), |version| format!("{}@{version}", self.name))
    }

    /// The error that says that it is not there.
    #[must_use]
    pub fn unknown(&self) -> Error {
        Error::UnknownModel { model: self.id() }
    }
}

/// A tensor that a model takes or gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outlet {
    /// Its name.
    pub name: String,
    /// What its elements are.
    pub datatype: DataType,
    /// Its shape; −1 stands for a side that is free.
    pub shape: Vec<i64>,
}

/// What there is to know of a model before it is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// Its name.
    pub name: String,
    /// This version.
    pub version: String,
    /// All versions of that name that are loaded.
    pub versions: Vec<String>,
    /// What runs it, such as [`PLATFORM`].
    pub platform: String,
    /// What it takes.
    pub inputs: Vec<Outlet>,
    /// What it gives.
    pub outputs: Vec<Outlet>,
    /// Items that may be in one request where the first side of all tensors is free; 0: it takes no batches.
    pub max_batch: u32,
    /// Instances that may work on requests side by side.
    pub instances: u32,
}

/// A request to run a model.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Request {
    /// What the answer repeats.
    pub id: String,
    /// What goes in, in no particular order.
    pub inputs: Vec<Tensor>,
    /// Names of the outputs that are wanted; none: all.
    pub outputs: Vec<String>,
    /// How long the answer may take; none: as long as the server lets it.
    pub timeout: Option<Duration>,
}

/// What a model gave.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Response {
    /// The model's name.
    pub model: String,
    /// Its version.
    pub version: String,
    /// The request's.
    pub id: String,
    /// In the order in which they were asked for, or in the model's.
    pub outputs: Vec<Tensor>,
}

/// How often something was done and how long it took altogether.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Spent {
    /// How often.
    pub count: u64,
    /// Nanoseconds altogether.
    pub ns: u64,
}

impl Spent {
    /// Adds `count` times that took this long each.
    pub fn add(&mut self, count: u64, each: Duration) {
        self.count += count;
        self.ns += count.saturating_mul(u64::try_from(each.as_nanos()).unwrap_or(u64::MAX));
    }
}

/// What a model did for requests of this protocol since it was loaded.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Statistics {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// When it ran last, in milliseconds since 1970; 0: never.
    pub last_inference_ms: u64,
    /// Items that went through it, where it takes batches; requests, where it does not.
    pub inferences: u64,
    /// Runs of the model.
    pub executions: u64,
    /// Requests that were answered, from their coming to their answer.
    pub success: Spent,
    /// Requests that were not.
    pub fail: Spent,
    /// Waiting.
    pub queue: Spent,
    /// Making tensors of what was sent.
    pub compute_input: Spent,
    /// Running.
    pub compute_infer: Spent,
    /// Making an answer of tensors.
    pub compute_output: Spent,
    /// By the number of items in a run.
    pub batches: Vec<BatchStatistics>,
}

/// The same of runs of one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BatchStatistics {
    /// Items in a run.
    pub size: u64,
    /// Making tensors of what was sent.
    pub compute_input: Spent,
    /// Running.
    pub compute_infer: Spent,
    /// Making an answer of tensors.
    pub compute_output: Spent,
}

/// A model of the repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Whether it takes work.
    pub ready: bool,
    /// Why it does not, as far as that is known.
    pub reason: String,
}

/// The models that the protocol gives access to.
#[async_trait]
pub trait Models: Send + Sync {
    /// Whether all is loaded that is to be, and new work is taken.
    fn is_ready(&self) -> bool;

    /// Passes if tensors are taken now, which is asked before there is room made for them.
    ///
    /// # Errors
    /// [`Error::NoMemory`].
    fn spare(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Whether a model takes work.
    ///
    /// # Errors
    /// [`Error::UnknownModel`].
    fn is_model_ready(&self, model: Named<'_>) -> Result<bool, Error>;

    /// All models that are loaded, or could not be.
    fn index(&self) -> Vec<Entry>;

    /// What a model takes and gives. The first time it may take as long as reading the model's file.
    ///
    /// # Errors
    /// [`Error::UnknownModel`], [`Error::NotReady`], [`Error::Failed`].
    async fn metadata(&self, model: Named<'_>) -> Result<Arc<Metadata>, Error>;

    /// Runs a model, and tells `trail` what that takes.
    ///
    /// # Errors
    /// Every kind of [`Error`] but [`Error::Conflict`].
    async fn infer(&self, model: Named<'_>, request: Request, trail: &Trail) -> Result<Response, Error>;

    /// What a model did; none: what all of them did.
    ///
    /// # Errors
    /// [`Error::UnknownModel`].
    fn statistics(&self, model: Option<Named<'_>>) -> Result<Vec<Statistics>, Error>;

    /// Loads all versions of a model that are there, or loads them again.
    ///
    /// # Errors
    /// [`Error::UnknownModel`], [`Error::Failed`], [`Error::Conflict`], [`Error::Unsupported`].
    async fn load(&self, name: &str) -> Result<(), Error>;

    /// Takes all versions of a model away.
    ///
    /// # Errors
    /// [`Error::UnknownModel`], [`Error::Conflict`], [`Error::Unsupported`].
    async fn unload(&self, name: &str) -> Result<(), Error>;
}

impl Metadata {
    /// Compares a request with what the model takes, and says how many items it has where the model takes batches.
    ///
    /// # Errors
    /// [`Error::Inputs`], [`Error::WrongInput`], [`Error::NoOutput`].
    pub fn check(&self, request: &Request) -> Result<Option<i64>, Error> {
        let known = || list(&self.inputs);
        let about = |name: &str, problem| Error::Inputs { name: name.to_owned(), problem, known: known() };
        for (at, tensor) in request.inputs.iter().enumerate() {
            if request.inputs[..at].iter().any(|other| other.name == tensor.name) {
                return Err(about(&tensor.name, "comes twice"));
            }
            let outlet = self.inputs.iter().find(|outlet| outlet.name == tensor.name);
            let outlet = outlet.ok_or_else(|| about(&tensor.name, "is none of the model's"))?;
            let fits = outlet.shape.len() == tensor.shape.len()
                && outlet.shape.iter().zip(&tensor.shape).all(|(wanted, found)| *wanted < 0 || wanted == found);
            if outlet.datatype != tensor.datatype || !fits {
                let text = |datatype: DataType, shape: &[i64]| format!("{datatype} {}", Shape(shape));
                let (expected, found) = (text(outlet.datatype, &outlet.shape), text(tensor.datatype, &tensor.shape));
                return Err(Error::WrongInput { name: tensor.name.clone(), expected, found });
            }
        }
        if let Some(missing) = self.inputs.iter().find(|outlet| request.inputs.iter().all(|it| it.name != outlet.name))
        {
            return Err(about(&missing.name, "is missing"));
        }
        if let Some(name) = request.outputs.iter().find(|name| self.outputs.iter().all(|it| it.name != **name)) {
            return Err(Error::NoOutput { name: name.clone(), known: list(&self.outputs) });
        }
        if self.max_batch == 0 {
            return Ok(None);
        }
        let items = request.inputs.first().and_then(|tensor| tensor.shape.first()).copied().unwrap_or(1);
        let wrong = |tensor: &Tensor, expected: String| {
            let found = Shape(&tensor.shape).to_string();
            Error::WrongInput { name: tensor.name.clone(), expected, found }
        };
        for tensor in &request.inputs {
            if tensor.shape.first() != Some(&items) {
                return Err(wrong(tensor, format!("as many items as the other inputs, {items},")));
            }
            if items < 1 || items > i64::from(self.max_batch) {
                return Err(wrong(tensor, format!("1 to {} items at a time", self.max_batch)));
            }
        }
        Ok(Some(items))
    }
}

/// Whether an answer would mean something else without this parameter, which nothing here knows.
fn changes_meaning(parameter: &str) -> bool {
    parameter.starts_with("shared_memory_") || parameter.starts_with("sequence_") || parameter == "classification"
}

fn list(outlets: &[Outlet]) -> String {
    outlets.iter().map(|outlet| format!("`{}`", outlet.name)).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn metadata(max_batch: u32) -> Metadata {
        let outlet = |name: &str, shape: &[i64]| Outlet {
            name: name.to_owned(),
            datatype: DataType::Fp32,
            shape: shape.to_vec(),
        };
        Metadata {
            name: "a".to_owned(),
            version: "1".to_owned(),
            versions: vec!["1".to_owned()],
            platform: PLATFORM.to_owned(),
            inputs: vec![outlet("x", &[-1, 2]), outlet("y", &[-1, 1])],
            outputs: vec![outlet("z", &[-1, 3])],
            max_batch,
            instances: 1,
        }
    }

    fn tensor(name: &str, shape: &[i64]) -> Tensor {
        let bytes = elements(name, shape).unwrap() * 4;
        Tensor::new(name.to_owned(), DataType::Fp32, shape.to_vec(), Bytes::from(vec![0; bytes])).unwrap()
    }

    fn check(max_batch: u32, inputs: Vec<Tensor>, outputs: &[&str]) -> Result<Option<i64>, String> {
        let outputs = outputs.iter().map(|&name| name.to_owned()).collect();
        let request = Request { inputs, outputs, ..Request::default() };
        metadata(max_batch).check(&request).map_err(|error| error.to_string())
    }

    #[test]
    fn a_request_has_what_the_model_takes() {
        let both = |n, m| vec![tensor("y", &[m, 1]), tensor("x", &[n, 2])];
        assert_eq!(check(4, both(3, 3), &["z"]), Ok(Some(3)));
        assert_eq!(check(0, both(3, 2), &[]), Ok(None));
        for (max_batch, inputs, outputs, says) in [
            (4, both(5, 5), vec![], "1 to 4 items at a time"),
            (4, both(0, 0), vec![], "1 to 4 items at a time"),
            (4, both(3, 2), vec![], "as many items as the other inputs, 2"),
            (4, both(1, 1), vec!["w"], "the model has no output `w`; it has `z`"),
            (4, vec![tensor("x", &[1, 2])], vec![], "input `y` is missing; the model takes `x`, `y`"),
            (4, [both(1, 1), both(1, 1)].concat(), vec![], "comes twice"),
            (4, vec![tensor("q", &[1])], vec![], "input `q` is none of the model's"),
            (4, vec![tensor("x", &[1, 3])], vec![], "the model takes FP32 [-1, 2], and FP32 [1, 3] was sent"),
            (4, vec![tensor("x", &[2])], vec![], "FP32 [2] was sent"),
        ] {
            let error = check(max_batch, inputs, &outputs).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}

//! What is answered besides tensors, and what requests and answers with tensors look like.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::kserve::{self, BatchStatistics, EXTENSIONS, Entry, Metadata, Outlet, Spent, Statistics};

/// The server, as `GET /v2` tells of it.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct InferenceServer {
    /// Its name.
    pub(super) name: String,
    /// Its version.
    pub(super) version: String,
    /// Extensions of the protocol that are offered, by Triton's names for them.
    pub(super) extensions: Vec<String>,
}

impl InferenceServer {
    pub(super) fn new((name, version): (&str, &str)) -> Self {
        let extensions = EXTENSIONS.map(str::to_owned).into();
        Self { name: name.to_owned(), version: version.to_owned(), extensions }
    }
}

/// What a model takes and gives.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct InferenceModel {
    /// Its name.
    name: String,
    /// All versions of it that are loaded.
    versions: Vec<String>,
    /// What runs it.
    platform: String,
    /// What it takes.
    inputs: Vec<InferenceOutlet>,
    /// What it gives.
    outputs: Vec<InferenceOutlet>,
}

/// A tensor that a model takes or gives.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct InferenceOutlet {
    /// Its name.
    name: String,
    /// What its elements are, such as `FP32`.
    datatype: &'static str,
    /// Its shape; −1 stands for a side that is free.
    shape: Vec<i64>,
}

impl From<&Metadata> for InferenceModel {
    fn from(metadata: &Metadata) -> Self {
        let outlet = |outlet: &Outlet| InferenceOutlet {
            name: outlet.name.clone(),
            datatype: outlet.datatype.name(),
            shape: outlet.shape.clone(),
        };
        Self {
            name: metadata.name.clone(),
            versions: metadata.versions.clone(),
            platform: metadata.platform.clone(),
            inputs: metadata.inputs.iter().map(outlet).collect(),
            outputs: metadata.outputs.iter().map(outlet).collect(),
        }
    }
}

/// How a model is run, as Triton writes it: where the model takes batches, shapes are without the side of these.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct InferenceModelConfig {
    /// Its name.
    name: String,
    /// What runs it.
    platform: String,
    /// The library of that.
    backend: &'static str,
    /// Versions that are loaded: all.
    version_policy: Map<String, Value>,
    /// Items of one request at most; 0: the model takes no batches.
    max_batch_size: u32,
    /// What it takes.
    input: Vec<InferenceConfigOutlet>,
    /// What it gives.
    output: Vec<InferenceConfigOutlet>,
    /// What works on requests side by side.
    instance_group: [InferenceInstances; 1],
    /// Its file.
    default_model_filename: &'static str,
}

/// A tensor in a model's configuration.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct InferenceConfigOutlet {
    /// Its name.
    name: String,
    /// What its elements are, such as `TYPE_FP32`.
    data_type: String,
    /// `FORMAT_NONE`, of inputs.
    #[serde(skip_serializing_if = "Option::is_none")]
    format: Option<&'static str>,
    /// Its shape; −1 stands for a side that is free.
    dims: Vec<i64>,
}

/// Instances of a model.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct InferenceInstances {
    /// The model's name.
    name: String,
    /// `KIND_CPU`.
    kind: &'static str,
    /// How many.
    count: u32,
}

impl From<&Metadata> for InferenceModelConfig {
    fn from(metadata: &Metadata) -> Self {
        let outlet = |outlet: &Outlet, format| InferenceConfigOutlet {
            name: outlet.name.clone(),
            data_type: outlet.datatype.config_name(),
            format,
            dims: outlet.shape[usize::from(metadata.max_batch > 0)..].to_vec(),
        };
        let all = Map::from_iter([("all".to_owned(), Value::Object(Map::new()))]);
        let instances = InferenceInstances { name: metadata.name.clone(), kind: "KIND_CPU", count: metadata.instances };
        Self {
            name: metadata.name.clone(),
            platform: metadata.platform.clone(),
            backend: "onnxruntime",
            version_policy: all,
            max_batch_size: metadata.max_batch,
            input: metadata.inputs.iter().map(|it| outlet(it, Some("FORMAT_NONE"))).collect(),
            output: metadata.outputs.iter().map(|it| outlet(it, None)).collect(),
            instance_group: [instances],
            default_model_filename: "model.onnx",
        }
    }
}

/// What models did since they were loaded.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct InferenceStatistics {
    /// One for each version.
    model_stats: Vec<InferenceModelStatistics>,
}

/// What one model did.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct InferenceModelStatistics {
    /// Its name.
    name: String,
    /// Its version.
    version: String,
    /// When it ran last, in milliseconds since 1970; 0: never.
    last_inference: u64,
    /// Items that went through it, where it takes batches; requests, where it does not.
    inference_count: u64,
    /// Runs of the model.
    execution_count: u64,
    /// Where the time of requests went.
    inference_stats: InferenceTimes,
    /// Where the time of runs went, by their size.
    batch_stats: Vec<InferenceBatch>,
    /// Always empty.
    memory_usage: Vec<Value>,
}

/// Where the time of requests went.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct InferenceTimes {
    /// Requests that were answered, from their coming to their answer.
    success: InferenceSpent,
    /// Requests that were not.
    fail: InferenceSpent,
    /// Waiting.
    queue: InferenceSpent,
    /// Making tensors of what was sent.
    compute_input: InferenceSpent,
    /// Running.
    compute_infer: InferenceSpent,
    /// Making an answer of tensors.
    compute_output: InferenceSpent,
    /// Always 0.
    cache_hit: InferenceSpent,
    /// Always 0.
    cache_miss: InferenceSpent,
}

/// Where the time of runs of one size went.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct InferenceBatch {
    /// Items in a run.
    batch_size: u64,
    /// Making tensors of what was sent.
    compute_input: InferenceSpent,
    /// Running.
    compute_infer: InferenceSpent,
    /// Making an answer of tensors.
    compute_output: InferenceSpent,
}

/// How often something was done and how long it took altogether.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct InferenceSpent {
    /// How often.
    count: u64,
    /// Nanoseconds altogether.
    ns: u64,
}

impl From<Spent> for InferenceSpent {
    fn from(Spent { count, ns }: Spent) -> Self {
        Self { count, ns }
    }
}

impl From<&[Statistics]> for InferenceStatistics {
    fn from(all: &[Statistics]) -> Self {
        let batch = |batch: &BatchStatistics| InferenceBatch {
            batch_size: batch.size,
            compute_input: batch.compute_input.into(),
            compute_infer: batch.compute_infer.into(),
            compute_output: batch.compute_output.into(),
        };
        let one = |it: &Statistics| InferenceModelStatistics {
            name: it.name.clone(),
            version: it.version.clone(),
            last_inference: it.last_inference_ms,
            inference_count: it.inferences,
            execution_count: it.executions,
            inference_stats: InferenceTimes {
                success: it.success.into(),
                fail: it.fail.into(),
                queue: it.queue.into(),
                compute_input: it.compute_input.into(),
                compute_infer: it.compute_infer.into(),
                compute_output: it.compute_output.into(),
                cache_hit: Spent::default().into(),
                cache_miss: Spent::default().into(),
            },
            batch_stats: it.batches.iter().map(batch).collect(),
            memory_usage: Vec::new(),
        };
        Self { model_stats: all.iter().map(one).collect() }
    }
}

/// A model of the repository.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct InferenceIndexEntry {
    /// Its name.
    name: String,
    /// Its version.
    version: String,
    /// `READY` or `UNAVAILABLE`.
    state: &'static str,
    /// Why it is not ready, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl From<Entry> for InferenceIndexEntry {
    fn from(Entry { name, version, ready, reason }: Entry) -> Self {
        let state = if ready { "READY" } else { "UNAVAILABLE" };
        Self { name, version, state, reason: (!reason.is_empty()).then_some(reason) }
    }
}

/// Body of `POST /v2/repository/index`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
pub(super) struct InferenceIndexRequest {
    /// Whether models that are not ready are left out.
    #[serde(default)]
    pub(super) ready: bool,
}

/// Body of `POST /v2/repository/models/{model}/load`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
pub(super) struct InferenceLoadRequest {
    /// There are none here.
    #[serde(default)]
    #[schemars(extend("maxProperties" = 0))]
    pub(super) parameters: Map<String, Value>,
}

/// Why there is no answer.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct InferenceError {
    /// What to do about it.
    pub(super) error: String,
    /// Stable code.
    pub(super) code: &'static str,
}

/// Tensors for a model.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "only its schema is used: requests are read without copies of their tensors")]
pub(super) struct InferenceRequest {
    /// What the answer repeats.
    #[serde(default)]
    id: Option<String>,
    /// What goes in, in any order.
    #[schemars(length(max = kserve::MAX_TENSORS))]
    inputs: Vec<InferenceInput>,
    /// The outputs that are wanted; all, where it is missing.
    #[serde(default)]
    #[schemars(length(max = kserve::MAX_TENSORS))]
    outputs: Option<Vec<InferenceWanted>>,
    /// What else is said.
    #[serde(default)]
    parameters: Option<InferenceParameters>,
}

/// What else is said of a request; others are passed over, but those of extensions that are not offered.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "only its schema is used")]
pub(super) struct InferenceParameters {
    /// Whether outputs of which nothing else is said come as bytes.
    #[serde(default)]
    binary_data_output: Option<bool>,
    /// Microseconds that the answer may take; 0: as long as the server lets it.
    #[serde(default)]
    timeout: u64,
}

/// A tensor of a request.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "only its schema is used")]
pub(super) struct InferenceInput {
    /// Its name.
    name: String,
    /// Its shape.
    shape: Vec<u64>,
    /// What its elements are.
    datatype: InferenceDatatype,
    /// `binary_data_size`, where its elements follow the JSON as bytes.
    #[serde(default)]
    parameters: Option<InferenceInputParameters>,
    /// Its elements, row by row or as nested arrays; missing where they follow as bytes.
    #[serde(default)]
    data: Vec<Value>,
}

/// What else is said of a tensor of a request.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "only its schema is used")]
pub(super) struct InferenceInputParameters {
    /// Bytes of its elements, little-endian, after the JSON and the tensors before.
    #[serde(default)]
    binary_data_size: Option<u64>,
}

/// An output that is wanted.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "only its schema is used")]
pub(super) struct InferenceWanted {
    /// Its name.
    name: String,
    /// `binary_data`: whether it comes as bytes.
    #[serde(default)]
    parameters: Option<InferenceWantedParameters>,
}

/// What else is said of an output that is wanted.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "only its schema is used")]
pub(super) struct InferenceWantedParameters {
    /// Whether it comes as bytes.
    #[serde(default)]
    binary_data: Option<bool>,
}

/// What elements of a tensor are.
#[derive(JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[expect(dead_code, reason = "only its schema is used")]
pub(super) enum InferenceDatatype {
    Bool,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    Int8,
    Int16,
    Int32,
    Int64,
    Fp16,
    Fp32,
    Fp64,
    Bf16,
    Bytes,
}

/// What a model gave.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "only its schema is used: answers are written as they are sent")]
pub(super) struct InferenceResponse {
    /// The model's name.
    model_name: String,
    /// Its version.
    model_version: String,
    /// The request's, where it had one.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    /// In the order in which they were asked for, or in the model's.
    outputs: Vec<InferenceOutput>,
}

/// A tensor of an answer.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "only its schema is used")]
pub(super) struct InferenceOutput {
    /// Its name.
    name: String,
    /// What its elements are.
    datatype: InferenceDatatype,
    /// Its shape.
    shape: Vec<u64>,
    /// `binary_data_size`, where its elements follow the JSON as bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<InferenceInputParameters>,
    /// Its elements, row by row; missing where they follow as bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Vec<Value>>,
}

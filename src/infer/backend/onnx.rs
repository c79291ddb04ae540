#![cfg_attr(feature = "cuda", expect(unsafe_code, reason = "hands a stream to ONNX Runtime"))]

use std::path::Path;

use bytes::Bytes;
use ort::ep::{self, ArbitrarilyConfigurableExecutionProvider};
use ort::logging::LogLevel;
use ort::session::Session;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::value::{DynValue, Outlet as OrtOutlet, Shape, Tensor, TensorElementType, ValueType};

use super::select::Provider;
use super::{Backend, Library};
use crate::infer::decoder::{Decoder, MAX_OUTPUTS, Outlet, View, shape_text};
use crate::infer::error::Error;
use crate::infer::manifest::{Manifest, Output, Precision};

/// A model's graph as far as it can be told without running it: its checked input and its outputs.
#[derive(Debug, Clone)]
pub(in crate::infer) struct Graph {
    /// Of floats.
    outputs: Vec<Outlet>,
    /// Those of whole numbers, too.
    all_outputs: Vec<Outlet>,
    /// Names of the input and of outputs that are of 16-bit floats.
    halves: Vec<String>,
    batch: Batch,
    /// Names of other sides that the graph leaves open, with the length that the manifest implies.
    free_sides: Vec<(String, i64)>,
}

/// The first axis of a graph's input.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Batch {
    /// Always one picture.
    One,
    /// As many as one likes; the axis may have a name.
    Free(Option<String>),
}

/// A session for a number of pictures, with its input tensor.
pub(super) struct OnnxBackend {
    session: Session,
    batch: usize,
    tensor: Tensor<f32>,
    outputs: Vec<String>,
}

/// How a session is to be made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings<'a> {
    pub(super) provider: Provider,
    pub(super) precision: Precision,
    pub(super) threads: usize,
    /// Pictures in one run.
    pub(super) batch: usize,
    /// Mebibytes of a GPU's memory at most.
    #[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "there is no GPU without the feature"))]
    pub(super) device_memory_mb: Option<u32>,
    /// For TensorRT, where what it makes of the graph is kept.
    #[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "there is no GPU without the feature"))]
    pub(super) kept: Option<Kept<'a>>,
}

/// Folders of TensorRT.
#[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "there is no GPU without the feature"))]
#[derive(Debug, Clone, Copy)]
pub(super) struct Kept<'a> {
    /// Of one engine, for one graph and one batch size.
    pub(super) engine: &'a Path,
    /// Of what was measured of single layers, for all.
    pub(super) timing: &'a Path,
}

/// Where on a GPU a session does its work.
#[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "there is no GPU without the feature"))]
#[derive(Debug, Clone, Copy)]
pub(super) struct Compute {
    /// The `cudaStream_t` in whose order it is, which lives longer than the session.
    pub(super) stream: *mut (),
    /// Its runs are recorded, which takes that all of the graph can be done there.
    pub(super) recorded: bool,
}

impl Graph {
    /// Reads a graph and compares its input with the manifest's. Only one for `Precision::Fp16` may have tensors of 16-bit
    /// floats.
    ///
    /// # Errors
    /// [`Error::UnreadableModel`], [`Error::WrongInput`].
    pub(in crate::infer) fn read(
        library: &Library,
        manifest: &Manifest,
        file: &str,
        bytes: &Bytes,
        precision: Precision,
    ) -> Result<Self, Error> {
        let unreadable = |error: String| Error::UnreadableModel { file: file.to_owned(), reason: error };
        let builder = builder(library, 1).map_err(|error| unreadable(error.to_string()))?;
        let builder = builder.with_optimization_level(GraphOptimizationLevel::Disable);
        let mut builder = builder.map_err(|error| unreadable(error.to_string()))?;
        let session = builder.commit_from_memory(bytes).map_err(|error| unreadable(error.to_string()))?;
        let has_halves = precision == Precision::Fp16;
        let (batch, free_sides) = check_input(manifest, session.inputs(), has_halves)?;
        let outlet = |outlet: &OrtOutlet, fits: bool| {
            let shape = outlet.dtype().tensor_shape().map(|shape| shape.to_vec()).unwrap_or_default();
            fits.then(|| Outlet { name: outlet.name().to_owned(), shape })
        };
        let outputs = || session.outputs().iter().map(|outlet| (outlet, outlet.dtype().tensor_type()));
        let all_outputs = outputs().filter_map(|(one, ty)| outlet(one, fits(ty, has_halves) || is_whole(ty)));
        let (all_outputs, outputs) =
            (all_outputs.collect(), outputs().filter_map(|(one, ty)| outlet(one, fits(ty, has_halves))).collect());
        let halves = session.inputs().iter().chain(session.outputs());
        let halves = halves.filter(|outlet| outlet.dtype().tensor_type() == Some(TensorElementType::Float16));
        let halves = halves.map(|outlet| outlet.name().to_owned()).collect();
        Ok(Self { outputs, all_outputs, halves, batch, free_sides })
    }

    /// Outputs that the manifest's decoder may read: of floats, and where it takes them, of whole numbers.
    pub(in crate::infer) fn outputs(&self, manifest: &Manifest) -> &[Outlet] {
        match manifest.output {
            Output::Argmax { .. } | Output::Raw { .. } => &self.all_outputs,
            _ => &self.outputs,
        }
    }

    /// The input, or else an output that the decoder reads, if it is of 16-bit floats.
    pub(in crate::infer) fn half_tensor(&self, decoder: &Decoder) -> Option<&str> {
        let is_output = |name: &str| self.outputs.iter().any(|outlet| outlet.name == name);
        let is_read = |name: &str| !is_output(name) || decoder.outputs().any(|read| read == name);
        self.halves.iter().map(String::as_str).find(|name| is_read(name))
    }

    /// Whether it takes more than one picture a run.
    pub(in crate::infer) fn takes_batches(&self) -> bool {
        self.batch != Batch::One
    }
}

/// The batch axis, and the names of the other sides that the graph leaves open, with their lengths.
fn check_input(
    manifest: &Manifest,
    inputs: &[OrtOutlet],
    has_halves: bool,
) -> Result<(Batch, Vec<(String, i64)>), Error> {
    let wanted = manifest.input.shape(1).map(|side| i64::try_from(side).unwrap_or(i64::MAX));
    let floats = if has_halves { "16-bit or 32-bit floats" } else { "32-bit floats" };
    let expected = format!("{floats} {}", shape_text(&wanted));
    let wrong = |tensor: &str, found: String| Error::WrongInput {
        tensor: tensor.to_owned(),
        expected: expected.clone(),
        found,
    };
    let names = || inputs.iter().map(|input| format!("`{}`", input.name())).collect::<Vec<_>>().join(", ");
    let input = match &manifest.input.tensor {
        Some(name) => inputs.iter().find(|input| input.name() == name).ok_or_else(|| wrong(name, names()))?,
        None => match inputs {
            [input] => input,
            _ => return Err(wrong("(the only one)", names())),
        },
    };
    let ValueType::Tensor { ty, shape, dimension_symbols } = input.dtype() else {
        return Err(wrong(input.name(), "no tensor".to_owned()));
    };
    let same =
        shape.len() == wanted.len() && shape.iter().zip(wanted).all(|(found, wanted)| *found < 0 || *found == wanted);
    if !fits(Some(*ty), has_halves) || !same {
        return Err(wrong(input.name(), format!("{ty} {}", shape_text(shape))));
    }
    let name = |symbol: &str| (!symbol.is_empty()).then(|| symbol.to_owned());
    let batch = match shape.first() {
        Some(side) if *side < 0 => Batch::Free(dimension_symbols.iter().next().and_then(|symbol| name(symbol))),
        _ => Batch::One,
    };
    let others = dimension_symbols.iter().zip(shape.iter()).zip(wanted).skip(1);
    let free = others.filter(|((_, side), _)| **side < 0);
    Ok((batch, free.filter_map(|((symbol, _), wanted)| Some((name(symbol)?, wanted))).collect()))
}

/// Whether a tensor is of floats that are read here.
fn fits(ty: Option<TensorElementType>, has_halves: bool) -> bool {
    ty == Some(TensorElementType::Float32) || (has_halves && ty == Some(TensorElementType::Float16))
}

/// Whether a tensor is of whole numbers that are read here.
fn is_whole(ty: Option<TensorElementType>) -> bool {
    matches!(ty, Some(TensorElementType::Int64 | TensorElementType::Int32 | TensorElementType::Uint8))
}

/// Whether a tensor is of floats of any kind that a device leaves.
#[cfg(feature = "cuda")]
pub(super) fn is_of_floats(ty: Option<TensorElementType>) -> bool {
    fits(ty, true)
}

/// A tensor of whole numbers as floats; none for another one.
#[expect(clippy::cast_precision_loss, reason = "numbers of classes; raw tensors say that they are single precision")]
pub(super) fn widened(value: &DynValue) -> Option<Vec<f32>> {
    if let Ok((_, numbers)) = value.try_extract_tensor::<i64>() {
        return Some(numbers.iter().map(|number| *number as f32).collect());
    }
    if let Ok((_, numbers)) = value.try_extract_tensor::<i32>() {
        return Some(numbers.iter().map(|number| *number as f32).collect());
    }
    let (_, numbers) = value.try_extract_tensor::<u8>().ok()?;
    Some(numbers.iter().copied().map(f32::from).collect())
}

impl OnnxBackend {
    /// Makes a session of a graph for `settings.batch` pictures a run. Each number of pictures has a session of its own,
    /// so that its shapes are known when it is optimised.
    pub(super) fn open(
        library: &Library,
        manifest: &Manifest,
        graph: &Graph,
        decoder: &Decoder,
        bytes: &Bytes,
        settings: Settings<'_>,
    ) -> Result<Self, Error> {
        let unavailable = |error: String| Error::Unavailable {
            what: format!("{} in {}", settings.provider.name(), settings.precision),
            reason: error,
        };
        let session = commit(library, graph, bytes, settings, None).map_err(|error| unavailable(error.to_string()))?;
        let batch = settings.batch;
        let values = vec![0.0f32; batch * manifest.input.item_len()];
        let tensor = Tensor::from_array((manifest.input.shape(batch), values));
        let tensor = tensor.map_err(|error| unavailable(error.to_string()))?;
        Ok(Self { session, batch, tensor, outputs: decoder.outputs().map(str::to_owned).collect() })
    }
}

/// A session of a graph as it is, for whatever its input has, in the precision of the file; on a GPU where `cuda` says so and
/// it can be.
///
/// # Errors
/// What ONNX Runtime says.
pub(in crate::infer) fn open_plainly(
    library: &Library,
    bytes: &Bytes,
    threads: usize,
    cuda: bool,
) -> ort::Result<Session> {
    #[cfg(not(feature = "cuda"))]
    let _ = cuda;
    let plain = || -> ort::Result<SessionBuilder> {
        Ok(builder(library, threads)?.with_optimization_level(GraphOptimizationLevel::All)?)
    };
    #[cfg(feature = "cuda")]
    if cuda {
        let cuda = ep::CUDA::default().with_tf32(false).build().error_on_failure();
        let opened = plain().and_then(|builder| builder.with_execution_providers([cuda])?.commit_from_memory(bytes));
        match opened {
            Ok(session) => return Ok(session),
            Err(error) => tracing::warn!(%error, "a model runs on tensors on processors, since a GPU does not do it"),
        }
    }
    plain()?.commit_from_memory(bytes)
}

/// How every session begins.
pub(in crate::infer) fn builder(library: &Library, threads: usize) -> ort::Result<SessionBuilder> {
    let builder = Session::builder(library.environment())?.with_log_level(LogLevel::Error)?;
    // Threads that spin between runs would take the cores that decode and encode need.
    Ok(builder.with_intra_threads(threads)?.with_inter_threads(1)?.with_intra_op_spinning(false)?)
}

/// `compute` is where a GPU is to do the work, if not in a stream of its own.
pub(super) fn commit(
    library: &Library,
    graph: &Graph,
    bytes: &Bytes,
    settings: Settings<'_>,
    compute: Option<Compute>,
) -> ort::Result<Session> {
    let mut builder = builder(library, settings.threads)?;
    if let Batch::Free(Some(symbol)) = &graph.batch {
        builder = builder.with_dimension_override(symbol, i64::try_from(settings.batch).unwrap_or(i64::MAX))?;
    }
    for (symbol, length) in &graph.free_sides {
        builder = builder.with_dimension_override(symbol, *length)?;
    }
    // In ONNX Runtime 1.24 the fused form of x·sigmoid(x) leaves the blocked layout in which convolutions are fast.
    builder =
        builder.with_optimization_level(GraphOptimizationLevel::All)?.with_disabled_optimizers("QuickGeluFusion")?;
    if settings.provider == Provider::OpenVino {
        let hint = if settings.precision == Precision::Bf16 { "bf16" } else { "f32" };
        // Left to itself it pins each instance's thread to a core, and all of them to the same one: two instances side by
        // side took twice as long as one.
        let load_config = serde_json::json!({
            "CPU": {
                "INFERENCE_PRECISION_HINT": hint,
                "INFERENCE_NUM_THREADS": settings.threads.to_string(),
                "ENABLE_CPU_PINNING": "NO",
            }
        });
        let openvino = ep::OpenVINO::default()
            .with_device_type("CPU")
            .with_arbitrary_config("load_config", load_config.to_string());
        builder = builder.with_execution_providers([openvino.build().error_on_failure()])?;
    }
    #[cfg(not(feature = "cuda"))]
    let _ = compute;
    #[cfg(feature = "cuda")]
    if let Some(Kept { engine, timing }) = settings.kept.filter(|_| settings.provider == Provider::TensorRt) {
        let mut tensorrt = ep::TensorRT::default()
            .with_fp16(settings.precision == Precision::Fp16)
            .with_int8(settings.precision == Precision::Int8)
            .with_engine_cache(true)
            .with_engine_cache_path(engine.display())
            .with_timing_cache(true)
            .with_timing_cache_path(timing.display());
        if let Some(limit) = settings.device_memory_mb {
            tensorrt = tensorrt.with_max_workspace_size(bytes_of(limit));
        }
        if let Some(Compute { stream, .. }) = compute {
            // SAFETY: whoever gives the stream keeps it for longer than the session.
            tensorrt = unsafe { tensorrt.with_compute_stream(stream) };
        }
        builder = builder.with_execution_providers([tensorrt.build().error_on_failure()])?;
    }
    // TensorRT leaves to it what it cannot do.
    #[cfg(feature = "cuda")]
    if settings.provider.is_device() {
        // What is fp32 stays so, and memory grows by what is asked for, since each batch size has a session of its own.
        let mut cuda =
            ep::CUDA::default().with_tf32(false).with_arena_extend_strategy(ep::ArenaExtendStrategy::SameAsRequested);
        if let Some(limit) = settings.device_memory_mb {
            cuda = cuda.with_memory_limit(bytes_of(limit));
        }
        if let Some(Compute { stream, recorded }) = compute {
            // SAFETY: whoever gives the stream keeps it for longer than the session.
            cuda = unsafe { cuda.with_compute_stream(stream) }.with_cuda_graph(recorded);
        }
        builder = builder.with_execution_providers([cuda.build().error_on_failure()])?;
    }
    builder.commit_from_memory(bytes)
}

/// Has TensorRT compute what it is to refuse to compute if it does not work: nobody else may do it.
///
/// # Errors
/// [`Error::Unavailable`], [`Error::Run`].
#[cfg(feature = "cuda")]
pub(super) fn try_tensorrt(library: &Library) -> Result<(), Error> {
    let unavailable = |error: ort::Error| Error::Unavailable { what: "TensorRT".to_owned(), reason: error.to_string() };
    let tensorrt = ep::TensorRT::default().with_min_subgraph_size(1).build().error_on_failure();
    let alone = builder(library, 1).and_then(|builder| {
        let mut builder = builder.with_disable_cpu_fallback()?.with_execution_providers([tensorrt])?;
        builder.commit_from_memory(&relu())
    });
    try_relu(&mut alone.map_err(unavailable)?)
}

/// Runs [`relu`].
#[cfg(feature = "cuda")]
fn try_relu(session: &mut Session) -> Result<(), Error> {
    let failed = |error: ort::Error| Error::Run { reason: error.to_string() };
    let input = Tensor::from_array(([4], vec![-1.0f32, 0.0, 2.0, 3.5])).map_err(failed)?;
    let outputs = session.run(ort::inputs![&input]).map_err(failed)?;
    let (_, found) = outputs[0].try_extract_tensor::<f32>().map_err(failed)?;
    if found == [0.0, 0.0, 2.0, 3.5] {
        return Ok(());
    }
    Err(Error::Run { reason: format!("max(x, 0) of four numbers came out as {found:?}") })
}

/// The smallest graph: `y = max(x, 0)` of four numbers, as a `ModelProto` of ONNX.
#[cfg(feature = "cuda")]
fn relu() -> Vec<u8> {
    /// A field of bytes of a protocol buffer, shorter than 128.
    fn field(number: u8, value: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, u8::try_from(value.len()).unwrap_or(0)], value].concat()
    }
    /// A field that is a number, smaller than 128.
    const fn number(field: u8, value: u8) -> [u8; 2] {
        [field << 3, value]
    }
    let shape = field(2, &field(1, &number(1, 4)));
    let floats = field(2, &field(1, &[&number(1, 1)[..], &shape].concat()));
    let value = |name: &[u8]| [field(1, name), floats.clone()].concat();
    let node = [field(1, b"x"), field(2, b"y"), field(4, b"Relu")].concat();
    let graph = [field(1, &node), field(2, b"relu"), field(11, &value(b"x")), field(12, &value(b"y"))].concat();
    [number(1, 8).to_vec(), field(7, &graph), field(8, &number(2, 13))].concat()
}

/// Of mebibytes.
#[cfg(feature = "cuda")]
fn bytes_of(mebibytes: u32) -> usize {
    usize::try_from(mebibytes).unwrap_or(usize::MAX).saturating_mul(1 << 20)
}

impl Backend for OnnxBackend {
    fn input(&mut self) -> &mut [f32] {
        self.tensor.extract_tensor_mut().1
    }

    fn run(&mut self, read: &mut dyn FnMut(&[View<'_>]) -> Result<(), Error>) -> Result<(), Error> {
        let failed = |error: ort::Error| Error::Run { reason: error.to_string() };
        // By position: a graph that runs on a picture alone has no other input.
        let outputs = self.session.run(ort::inputs![&self.tensor]).map_err(failed)?;
        let mut views = [View::default(); MAX_OUTPUTS];
        // No memory but for outputs of whole numbers.
        let mut whole = Vec::new();
        for name in &self.outputs {
            let value = outputs.get(name).ok_or_else(|| Error::Run { reason: format!("no output `{name}`") })?;
            if is_whole(value.dtype().tensor_type()) {
                whole.push((name, widened(value).unwrap_or_default()));
            }
        }
        for (view, name) in views.iter_mut().zip(&self.outputs) {
            let value = outputs.get(name).ok_or_else(|| Error::Run { reason: format!("no output `{name}`") })?;
            let (shape, data): (&Shape, &[f32]) = match whole.iter().find(|(other, _)| *other == name) {
                Some((_, data)) => (value.shape(), data),
                None => value.try_extract_tensor::<f32>().map_err(failed)?,
            };
            if shape.first().map(|side| usize::try_from(*side)) != Some(Ok(self.batch)) {
                let shape = shape_text(shape);
                return Err(Error::Run { reason: format!("`{name}` {shape} for a batch of {}", self.batch) });
            }
            *view = View { shape, data };
        }
        read(&views[..self.outputs.len()])
    }
}

#[cfg(test)]
#[cfg(feature = "cuda")]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_graph_that_providers_are_tried_with_is_one() {
        let library = Library::load().unwrap();
        let session = builder(&library, 1).unwrap().commit_from_memory(&relu());
        try_relu(&mut session.unwrap()).unwrap();
    }

    #[test]
    fn a_provider_that_is_not_there_is_said_to_be_missing() {
        let error = try_tensorrt(&Library::load().unwrap()).unwrap_err();
        assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    }
}

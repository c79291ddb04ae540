//! Models that run where their pictures are: on a GPU, from surfaces to boxes.
//!
//! Where the GPU is said to do it, ONNX Runtime records the work of a run as a CUDA graph and has that repeated, instead of
//! handing a kernel after the other over. What holds of it, in its source of version 1.24 and later:
//!
//! - A graph belongs to the thread that recorded it (`CUDAExecutionProvider::PerThreadContext`), to the addresses of its
//!   tensors, and to the run option `gpu_graph_id`; runs for which that is -1 are neither recorded nor repeated.
//! - Two usual runs go before the one that is recorded (`min_num_runs_before_cuda_graph_capture_`), and one call does all
//!   three (`InferenceSession::RunImpl` calls itself). It is recorded in the stream that the session was given, and repeated at
//!   once, since what is recorded is not done.
//! - A repeated run is waited for (`CUDAGraphManager::Replay`), whatever the run options say.
//! - Where not all of a graph can be done by the CUDA provider, no such session can be made.
//! - It records in the mode in which other threads must not even get memory (`cudaStreamCaptureModeGlobal`), unless they have a
//!   mode of their own, as [`Device::enter`](crate::device::Device::enter) gives it to them.
#![expect(unsafe_code, reason = "launches kernels on tensors of ONNX Runtime, and gives it a stream")]

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::session::{IoBinding, NoSelectedOutputs, RunOptions, Session};
use ort::value::{DynTensor, DynValue, TensorElementType, ValueType};

use super::onnx::{Compute, Settings};
use super::{Graph, Library, Provider, onnx};
use crate::clock;
use crate::device::kernels::{Launch as _, Precision, from_half};
use crate::device::{Buffer, Pinned, PinnedPool, Share, Stream};
use crate::frame::Picture;
use crate::infer::decoder::{Decoder, MAX_OUTPUTS, View, shape_text};
use crate::infer::device::{Boxes, Gpu, Tensors, Turn};
use crate::infer::error::Error;
use crate::infer::letterbox::Letterbox;
use crate::infer::manifest::Manifest;
use crate::infer::postprocess::Postprocessor;
use crate::infer::preprocess::device::Tables;
use crate::infer::runner::Item;
use crate::infer::{Findings, Params, Timing};

/// Sizes of pictures whose tables are kept.
const KEPT_TABLES: usize = 16;
/// Boxes of an item at most: as many as are compared with each other.
const MOST: u32 = 1024;

/// The run option that names the graph, what it is for runs that are not recorded, and the name of a session's only one.
const GRAPH_ID: &str = "gpu_graph_id";
const NO_GRAPH: &str = "-1";
const ONLY_GRAPH: &str = "1";

/// What is wanted of items that are not there.
const NOTHING: Params = Params { score_threshold: 1.0, iou_threshold: 1.0, max_detections: 0, classes: None };

/// A session for a number of pictures with its tensors, which stay where they are. It belongs to one thread at a time.
pub(in crate::infer) struct InPlace {
    // Sessions and tensors go before the stream that they use.
    binding: IoBinding,
    input: Bound,
    outputs: Vec<Bound>,
    session: Session,
    options: RunOptions<NoSelectedOutputs>,
    /// Of those who drop it, who come before and after.
    turn: Option<Turn>,
    runs: Runs,
    reading: Reading,
    tables: Vec<(Tables, Buffer)>,
    /// For pictures that come from the host.
    surfaces: Share,
    stream: Stream,
    gpu: Gpu,
    size: usize,
    item_len: usize,
    manifest: Arc<Manifest>,
}

/// How the session's runs are done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Runs {
    /// Each is handed over anew.
    Plain,
    /// The same, until it is on the thread that it stays on.
    Unsettled,
    /// The next one is recorded.
    ToRecord,
    /// Each repeats what was recorded.
    Recorded,
}

/// A tensor that is bound to the session.
struct Bound {
    tensor: DynTensor,
    address: u64,
    shape: Vec<i64>,
    precision: Precision,
}

/// How boxes are read.
enum Reading {
    /// The GPU decodes the one output.
    There(Box<Boxes>),
    /// The outputs come to the host.
    Here(Vec<Fetched>),
}

/// An output on the host.
struct Fetched {
    values: Pinned,
    /// What numbers of half precision are there, which decoders read.
    widened: Vec<f32>,
}

impl InPlace {
    /// Makes a session of a graph for `settings.batch` pictures a run.
    ///
    /// # Errors
    /// [`Error::Unavailable`], where the provider or the GPU don't do it.
    pub(super) fn open(
        library: &Library,
        manifest: &Arc<Manifest>,
        graph: &Graph,
        decoder: &Decoder,
        bytes: &Bytes,
        settings: Settings<'_>,
        gpu: &Gpu,
    ) -> Result<Self, Error> {
        let what = || format!("{} in {} in place", settings.provider.name(), settings.precision);
        let unavailable = |error: String| Error::Unavailable { what: what(), reason: error };
        let from_ort = |error: ort::Error| unavailable(error.to_string());
        let from_device = |error: crate::device::Error| unavailable(error.to_string());

        let stream = Stream::new(gpu.program.device()).map_err(from_device)?;
        // Also for what is given back where something fails.
        let _turn = gpu.turns.take();
        let session = |recorded| session(library, graph, bytes, settings, gpu, &stream, recorded);
        // TensorRT leaves less to hand over, and to the CUDA provider what cannot be recorded.
        let (mut session, runs) = if gpu.recording.is_on() && settings.provider == Provider::Cuda {
            match session(true) {
                Ok(session) => (session, Runs::Unsettled),
                Err(error) => {
                    gpu.recording.give_up(&manifest.id(), &error.to_string());
                    (session(false).map_err(from_ort)?, Runs::Plain)
                }
            }
        } else {
            (session(false).map_err(from_ort)?, Runs::Plain)
        };
        let options = options(gpu, (runs == Runs::Unsettled).then_some(NO_GRAPH)).map_err(from_ort)?;
        let memory = memory(gpu).map_err(from_ort)?;
        let allocator = Allocator::new(&session, memory.to_owned()).map_err(from_ort)?;
        let shape = manifest.input.shape(settings.batch).map(|side| i64::try_from(side).unwrap_or(i64::MAX));
        // By position: a graph that runs on a picture alone has no other input.
        let first = session.inputs().first();
        let (name, kind) = first.map(|input| (input.name().to_owned(), precision(input.dtype()))).unwrap_or_default();
        let input = Bound::new(&allocator, kind, shape.to_vec()).map_err(from_ort)?;
        let mut binding = session.create_binding().map_err(from_ort)?;
        binding.bind_input(name, &input.tensor).map_err(from_ort)?;
        for name in decoder.outputs() {
            binding.bind_output_to_device(name, &memory).map_err(from_ort)?;
        }
        let is_read = |name: &str| decoder.outputs().any(|read| read == name);
        let read = session.outputs().iter().filter(|output| is_read(output.name()));
        if let Some(output) = read.into_iter().find(|output| !onnx::is_of_floats(output.dtype().tensor_type())) {
            return Err(unavailable(format!("output `{}` is not of floats", output.name())));
        }
        // A first run says which shapes the outputs have.
        let found: Vec<(Precision, Vec<i64>)> = {
            let outputs = session.run_binding_with_options(&binding, &options).map_err(from_ort)?;
            let read = |value: &DynValue| (precision(value.dtype()), value.shape().to_vec());
            decoder.outputs().map(|name| outputs.get(name).map(read).unwrap_or_default()).collect()
        };
        let is_whole = |shape: &[i64]| shape.first().map(|side| usize::try_from(*side)) == Some(Ok(settings.batch));
        if let Some((_, shape)) = found.iter().find(|(_, shape)| !is_whole(shape)) {
            return Err(unavailable(format!("an output {} for a batch of {}", shape_text(shape), settings.batch)));
        }
        binding.clear_outputs();
        let outputs = found.into_iter().map(|(kind, shape)| Bound::new(&allocator, kind, shape));
        let mut outputs = outputs.collect::<Result<Vec<_>, _>>().map_err(from_ort)?;
        for (name, output) in decoder.outputs().zip(&mut outputs) {
            binding.bind_output(name, &mut output.tensor).map_err(from_ort)?;
        }
        let reading = Reading::new(decoder, &outputs, settings.batch, gpu).map_err(from_device)?;
        let (size, item_len) = (settings.batch, manifest.input.item_len());
        let (surfaces, manifest) = (gpu.surfaces.share(2 * size), Arc::clone(manifest));
        let (tables, gpu) = (Vec::new(), gpu.clone());
        Ok(Self {
            binding,
            input,
            outputs,
            session,
            options,
            turn: None,
            runs,
            reading,
            tables,
            surfaces,
            stream,
            gpu,
            size,
            item_len,
            manifest,
        })
    }

    /// Has the next run recorded, and those after it repeat that, all of them on the thread of the next one; where runs of this
    /// session are to be recorded and none was. Says whether the next run is.
    ///
    /// # Errors
    /// [`Error::Run`].
    pub(in crate::infer) fn begin_recording(&mut self) -> Result<bool, Error> {
        if self.runs != Runs::Unsettled || !self.gpu.recording.is_on() {
            return Ok(false);
        }
        let options = options(&self.gpu, Some(ONLY_GRAPH));
        self.options = options.map_err(|error| Error::Run { reason: error.to_string() })?;
        self.runs = Runs::ToRecord;
        Ok(true)
    }

    /// Whether each run repeats what was recorded.
    pub(in crate::infer) fn is_recorded(&self) -> bool {
        self.runs == Runs::Recorded
    }

    /// Takes a batch from pictures to detections, as [`Runner::run`](crate::infer::runner::Runner::run). On a GPU one thing
    /// follows the other without the host: `preprocess` is what it takes to hand the pictures over, and `inference` all of
    /// the rest.
    pub(in crate::infer) fn run<'a>(
        &mut self,
        items: &(impl Iterator<Item = Item<'a>> + Clone),
        postprocessor: &mut Postprocessor,
        letterboxes: &mut Vec<Letterbox>,
        found: &mut Vec<Findings>,
    ) -> Result<Timing, Error> {
        let start = clock::now();
        let ran = self.hand_over(items, letterboxes);
        if matches!(ran, Err(Error::Recording { .. })) {
            // Nothing in the stream would be done before. Where that fails, so does waiting.
            let _ = self.stream.end_recording();
        }
        // Whatever was begun is done before anything that it uses goes away.
        let waited = self.stream.wait().map_err(failed);
        let handed_over = ran.and_then(|at| waited.map(|()| at)).map_err(|error| self.judge(error))?;
        let done = clock::now();
        if let Reading::Here(outputs) = &mut self.reading {
            outputs.iter_mut().for_each(Fetched::widen);
        }
        for (at, (item, letterbox)) in items.clone().zip(&*letterboxes).enumerate() {
            found.push(match &self.reading {
                Reading::There(boxes) => {
                    Findings { detections: postprocessor.decoded(boxes.read(at), letterbox), overall: None }
                }
                Reading::Here(fetched) => {
                    let mut views = [View::default(); MAX_OUTPUTS];
                    for (view, (output, fetched)) in views.iter_mut().zip(self.outputs.iter().zip(fetched)) {
                        *view = View { shape: &output.shape, data: fetched.floats() };
                    }
                    postprocessor.item(&views[..self.outputs.len()], at, letterbox, item.params)?
                }
            });
        }
        Ok(Timing {
            queue: Duration::ZERO,
            preprocess: handed_over - start,
            inference: done - handed_over,
            postprocess: clock::now() - done,
        })
    }

    /// What a failed run means for those to come.
    fn judge(&self, error: Error) -> Error {
        match error {
            // Then nothing runs there any more.
            Error::Recording { reason } if self.gpu.program.device().alive().is_err() => Error::Run { reason },
            Error::Recording { reason } => {
                self.gpu.recording.give_up(&self.manifest.id(), &reason);
                Error::Recording { reason }
            }
            error => error,
        }
    }

    /// Has the stream do all of it, and says when it has the pictures.
    fn hand_over<'a>(
        &mut self,
        items: &(impl Iterator<Item = Item<'a>> + Clone),
        letterboxes: &mut Vec<Letterbox>,
    ) -> Result<Instant, Error> {
        if let Reading::There(boxes) = &mut self.reading {
            let wanted = items.clone().map(|item| item.params).chain(std::iter::repeat(&NOTHING));
            (0..self.size).zip(wanted).for_each(|(at, params)| boxes.want(at, params));
        }
        for (at, item) in items.clone().take(self.size).enumerate() {
            letterboxes.push(self.fill(at, &item)?);
        }
        if self.gpu.tensors == Tensors::Host {
            // Processors do not wait for the stream.
            self.stream.wait().map_err(failed)?;
        }
        let handed_over = clock::now();
        let turn = (self.runs == Runs::ToRecord).then(|| self.gpu.turns.take());
        let ran = self.session.run_binding_with_options(&self.binding, &self.options);
        drop(turn);
        let ran = ran.map(drop).map_err(|error| error.to_string());
        match self.runs {
            Runs::Plain | Runs::Unsettled => ran.map_err(|reason| Error::Run { reason })?,
            Runs::ToRecord | Runs::Recorded => ran.map_err(|reason| Error::Recording { reason })?,
        }
        if self.runs == Runs::ToRecord {
            self.runs = Runs::Recorded;
        }
        let on = self.gpu.program.on(&self.stream);
        match &mut self.reading {
            Reading::There(boxes) => {
                let (output, precision) =
                    self.outputs.first().map_or((0, Precision::Single), |output| (output.address, output.precision));
                // SAFETY: the layout is for this output, which the session writes in the order of the same stream, and the
                // stream is waited for before anything else happens.
                unsafe { boxes.find(output, precision, &on) }.map_err(failed)?;
            }
            Reading::Here(fetched) => {
                for (output, fetched) in self.outputs.iter().zip(fetched) {
                    // SAFETY: as long as the output, and the stream is waited for before anything else happens.
                    unsafe { fetched.values.fetch(output.address, &self.stream) }.map_err(failed)?;
                }
            }
        }
        Ok(handed_over)
    }

    /// Has the stream write a picture into the input's place `at`.
    fn fill(&mut self, at: usize, item: &Item<'_>) -> Result<Letterbox, Error> {
        let uploaded;
        let surface = match item.picture {
            Picture::Device(picture) => &**picture.surface(),
            Picture::Host(picture) => {
                let mut surface = self.surfaces.take(picture.width(), picture.height()).map_err(failed)?;
                surface.upload(picture, &self.gpu.host, &self.stream).map_err(failed)?;
                uploaded = surface;
                &uploaded
            }
        };
        let (tables, words) = {
            let size = (surface.width(), surface.height());
            let known = self.tables.iter().position(|(tables, _)| tables.size() == size);
            let entry = match known {
                Some(known) => self.tables.remove(known),
                None => {
                    if self.tables.len() == KEPT_TABLES {
                        self.tables.remove(0);
                    }
                    let tables = Tables::new(&self.manifest.input, size.0, size.1);
                    let mut words = Buffer::new(self.stream.device(), size_of_val(tables.words())).map_err(failed)?;
                    words.upload_words(tables.words(), &self.stream).map_err(failed)?;
                    (tables, words)
                }
            };
            self.tables.push(entry);
            self.tables.last().map(|(tables, words)| (tables, words.address())).ok_or(Error::NotReady)?
        };
        let precision = self.input.precision;
        let place = self.input.address + (at * self.item_len * precision.bytes()) as u64;
        let kernel = tables.kernel(surface.nv12(), item.color, words, place, precision);
        let letterbox = tables.letterbox();
        self.stream.wait_for(surface.ready()).map_err(failed)?;
        // SAFETY: the place is one item of the input, which the session reads in the order of the same stream; tables and
        // surface stay, since the driver finishes what uses memory before it frees it, and nobody writes a surface before
        // those who read it are done.
        unsafe { self.gpu.program.on(&self.stream).launch(&kernel) }.map_err(failed)?;
        surface.read_by(&self.stream).map_err(failed)?;
        Ok(letterbox)
    }
}

impl Drop for InPlace {
    fn drop(&mut self) {
        // Given back once session and tensors are gone, which lie before it.
        self.turn = Some(self.gpu.turns.take());
    }
}

impl fmt::Debug for InPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InPlace({} pictures)", self.size)
    }
}

impl Bound {
    fn new(allocator: &Allocator, precision: Precision, shape: Vec<i64>) -> ort::Result<Self> {
        let kind = match precision {
            Precision::Single => TensorElementType::Float32,
            Precision::Half => TensorElementType::Float16,
        };
        let mut tensor = DynTensor::new(allocator, kind, shape.clone())?;
        let address = tensor.data_ptr_mut() as u64;
        Ok(Self { tensor, address, shape, precision })
    }

    fn len(&self) -> usize {
        self.shape.iter().map(|side| usize::try_from(*side).unwrap_or(0)).product()
    }
}

/// Kind of a tensor's numbers: a graph's are checked when it is read.
fn precision(kind: &ValueType) -> Precision {
    match kind.tensor_type() {
        Some(TensorElementType::Float16) => Precision::Half,
        _ => Precision::Single,
    }
}

impl Fetched {
    fn new(output: &Bound, host: &Arc<PinnedPool>) -> Result<Self, crate::device::Error> {
        let len = output.len();
        let widened = if output.precision == Precision::Half { vec![0.0; len] } else { Vec::new() };
        Ok(Self { values: host.take(len * output.precision.bytes())?, widened })
    }

    /// Reads numbers of half precision.
    fn widen(&mut self) {
        let (halves, _) = self.values.as_chunks();
        for (wide, half) in self.widened.iter_mut().zip(halves) {
            *wide = from_half(u16::from_ne_bytes(*half));
        }
    }

    fn floats(&self) -> &[f32] {
        if self.widened.is_empty() { self.values.floats() } else { &self.widened }
    }
}

impl Reading {
    fn new(decoder: &Decoder, outputs: &[Bound], items: usize, gpu: &Gpu) -> Result<Self, crate::device::Error> {
        if let ([output], Some(head)) = (outputs, decoder.head())
            && let Some(layout) = head.layout(u32::try_from(items).unwrap_or(u32::MAX), &output.shape, MOST)
        {
            return Ok(Self::There(Box::new(Boxes::new(head, layout, &gpu.host, gpu.program.device())?)));
        }
        Ok(Self::Here(outputs.iter().map(|output| Fetched::new(output, &gpu.host)).collect::<Result<_, _>>()?))
    }
}

/// How a run is to be done; `graph` is for sessions whose runs are recorded.
fn options(gpu: &Gpu, graph: Option<&str>) -> ort::Result<RunOptions<NoSelectedOutputs>> {
    let mut options = RunOptions::new()?;
    if gpu.tensors == Tensors::Device {
        options.disable_device_sync()?;
    }
    if let Some(graph) = graph {
        options.set(GRAPH_ID, graph)?;
    }
    Ok(options)
}

/// A session that works in the order of the stream.
fn session(
    library: &Library,
    graph: &Graph,
    bytes: &Bytes,
    settings: Settings<'_>,
    gpu: &Gpu,
    stream: &Stream,
    recorded: bool,
) -> ort::Result<Session> {
    let compute = Compute { stream: stream.raw().cast(), recorded };
    match gpu.tensors {
        Tensors::Host => onnx::commit(library, graph, bytes, Settings { provider: Provider::Cpu, ..settings }, None),
        Tensors::Device => onnx::commit(library, graph, bytes, settings, Some(compute)),
    }
}

/// Where the session's tensors lie.
fn memory(gpu: &Gpu) -> ort::Result<MemoryInfo<'static>> {
    let (device, index) = match gpu.tensors {
        Tensors::Device => (AllocationDevice::CUDA, i32::try_from(gpu.program.device().index()).unwrap_or(0)),
        Tensors::Host => (AllocationDevice::CPU, 0),
    };
    MemoryInfo::new(device, index, AllocatorType::Device, MemoryType::Default)
}

fn failed(error: crate::device::Error) -> Error {
    let reason = error.to_string();
    match error {
        crate::device::Error::OutOfMemory | crate::device::Error::Exhausted(_) => Error::NoRoom { reason },
        crate::device::Error::Failed(failure) if failure.status.is_of_recording() => Error::Recording { reason },
        _ => Error::Run { reason },
    }
}

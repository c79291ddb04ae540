//! How fast models run: by ONNX Runtime alone, and as sessions have them run, from pictures to boxes.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use ort::environment::Environment;
use ort::ep::{self, ExecutionProviderDispatch};
use ort::logging::LogLevel;
use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::session::{IoBinding, Session};
use ort::value::Tensor;
use saccade::clock;
use saccade::device::{PinnedPool, Stream, SurfacePool};
use saccade::frame::{DevicePicture, Frame, Picture, WayDown};
use saccade::infer::backend::Library;
use saccade::infer::device::Tensors;
use saccade::infer::manifest::{Batching, Precision};
use saccade::infer::{Engine, Model, ModelSpec, Options, Outcome, Priority};
use saccade::media::{ColorInfo, MediaTime};
use tempfile::TempDir;

use super::files::Files;
use super::goldens::On;
use super::gpu::Machine;
use super::graphs::Graphs;
use super::making::scene;
use super::numbers::Numbers;
use super::usage::Watch;
use super::{Report, Stop};

/// What is measured.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Pictures in a run.
    pub batches: Vec<usize>,
    /// Of these sides alone; none: all that there are.
    pub sides: Vec<u32>,
    /// How long each is measured of the model with the largest input; others for a third of that.
    pub seconds: f64,
    /// Instead of the model's own choice.
    pub instances: Option<u32>,
    /// How its runs are handed to the GPU; both ways where they can be recorded, for the largest.
    pub graphs: Graphs,
    /// The program that builds engines of TensorRT.
    pub server: PathBuf,
    /// After this nothing further is begun.
    pub end: Instant,
}

/// Warm-up runs before anything is measured.
const WARM_UP: u32 = 5;
/// Slots for each place in a batch, so that the next batch waits while one is run.
const SLOTS: usize = 3;
/// Name of the graph in half precision.
const HALF: &str = "model.fp16.onnx";

/// Measures all models that are named `yolo-*`.
///
/// # Errors
/// [`Stop`], where there is no such model, or no ONNX Runtime.
pub fn run(report: &Report, machine: Option<&Machine>, files: &Files, plan: &Plan) -> Result<(), Stop> {
    let mut folders = models(files)?;
    let library = Library::load().map_err(Stop::failed)?;
    report.row("ONNX Runtime", library.build_info());
    folders.retain(|(side, _)| plan.sides.is_empty() || plan.sides.contains(side));
    if machine.is_some() {
        report.row("CUDA graphs", plan.graphs.to_string());
    }
    for (place, (side, folder)) in folders.iter().enumerate() {
        let seconds = if place == 0 { plan.seconds } else { plan.seconds / 3.0 };
        let sweep = Sweep { report, machine, library: &library, plan, seconds };
        // What sessions have comes first, should the time end.
        let ways = match (machine, plan.graphs.are_on()) {
            (Some(_), true) if place == 0 => vec![true, false],
            (Some(_), records) => vec![records],
            (None, _) => vec![false],
        };
        for records in ways {
            let on = machine.map_or(On::Processors, |machine| On::machine(machine, records));
            [Precision::Fp16, Precision::Fp32].into_iter().for_each(|precision| {
                sweep.through_model(&on, folder, precision, &plan.batches, if records { ", recorded" } else { "" });
            });
        }
        Way::usual(machine).into_iter().for_each(|way| sweep.alone(folder, *side, way, &plan.batches));
    }
    // What takes long to prepare, or says more of the libraries than of the server, for the largest alone.
    let (Some((side, folder)), Some(machine)) = (folders.first(), machine) else { return Ok(()) };
    let sweep = Sweep { report, machine: Some(machine), library: &library, plan, seconds: plan.seconds };
    let few = plan.batches.first().copied().into_iter().collect::<Vec<_>>();
    Way::unusual(machine).into_iter().for_each(|way| sweep.alone(folder, *side, way, &few));
    match On::tensorrt(machine, &library, &plan.server, &files.0.join("engines")) {
        Ok(on) => [Precision::Fp16, Precision::Fp32].into_iter().for_each(|precision| {
            sweep.through_model(&on, folder, precision, &few, "");
        }),
        Err(reason) => report.unavailable("TensorRT, pictures to boxes", reason),
    }
    Ok(())
}

/// A sweep that is under way.
struct Sweep<'a> {
    report: &'a Report,
    machine: Option<&'a Machine>,
    library: &'a Library,
    plan: &'a Plan,
    /// How long each is measured.
    seconds: f64,
}

impl Sweep<'_> {
    /// ONNX Runtime alone, in these batches; what does not run in one is not tried in others.
    fn alone(&self, folder: &Path, side: u32, way: Way, batches: &[usize]) {
        for batch in batches {
            let what = format!("{}, {side}x{side}, {batch} a run", way.name());
            if self.is_over(&what) {
                return;
            }
            match alone(self.library.environment(), &folder.join(way.file()), way, *batch, side, self.seconds) {
                Ok(found) => self.report.row(what, found),
                Err(reason) => return self.report.unavailable(what, reason),
            }
        }
    }

    /// The same as sessions have it: pictures go in, boxes come out, batches are the batcher's.
    fn through_model(&self, on: &On, folder: &Path, precision: Precision, batches: &[usize], how: &str) {
        let name = folder.parent().and_then(Path::file_name).map(|name| name.to_string_lossy()).unwrap_or_default();
        for batch in batches {
            let what = format!("{name}, {} {precision}, pictures to boxes, {batch} a run{how}", on.name());
            if self.is_over(&what) {
                return;
            }
            match self.run_model(on, folder, precision, *batch) {
                Ok(found) => self.report.row(what, found),
                Err(reason) => self.report.unavailable(what, reason),
            }
        }
    }

    fn run_model(&self, on: &On, folder: &Path, precision: Precision, batch: usize) -> Result<String, String> {
        let (mut spec, _folder) = spec_for(folder, precision)?;
        let size = u32::try_from(batch).unwrap_or(1);
        let max_delay = Duration::from_secs(1);
        spec.manifest.batching =
            Batching { max_batch: size, max_delay, preferred: vec![size], ..spec.manifest.batching };
        let options = Options { instances: self.plan.instances, ..on.options(precision) };
        let engine = Engine::new(options).map_err(|error| error.to_string())?;
        let model = on.load(&engine, &spec, precision)?;
        let selection = model.selection();
        if !selection.buckets.iter().any(|(bucket, _)| *bucket == batch) {
            return Err(selection.others.join("; "));
        }
        let picture = picture(self.machine)?;
        // What instances still do to be ready is done before the warm-up ends.
        let found = drive(&model, &picture, batch * selection.instances.max(1) as usize, self.seconds);
        engine.shutdown();
        found.map(|(found, usage)| format!("{found}, instances {}; {usage}", selection.instances))
    }

    fn is_over(&self, what: &str) -> bool {
        let over = clock::now() >= self.plan.end;
        if over {
            self.report.unavailable(what, "no time was left");
        }
        over
    }
}

/// Folders of models that are named `yolo-SIDE`, the largest first.
fn models(files: &Files) -> Result<Vec<(u32, PathBuf)>, Stop> {
    let folder = files.0.join("models");
    let entries = std::fs::read_dir(&folder).map_err(|error| Stop::Failed(format!("{}: {error}", folder.display())))?;
    let side = |path: PathBuf| {
        let side = path.file_name()?.to_str()?.strip_prefix("yolo-")?.parse().ok()?;
        Some((side, path.join("1")))
    };
    let mut found: Vec<_> = entries.flatten().filter_map(|entry| side(entry.path())).collect();
    found.sort_by_key(|(side, _)| std::cmp::Reverse(*side));
    if found.is_empty() {
        let reason = format!("{}: no model is named yolo-SIDE; tests/gpu/yolo.py makes them", folder.display());
        return Err(Stop::Failed(reason));
    }
    Ok(found)
}

/// What computes, and of which graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Processors,
    Cuda { half: bool, tf32: bool, nhwc: bool },
    TensorRt { half: bool },
}

impl Way {
    fn usual(machine: Option<&Machine>) -> Vec<Self> {
        let cuda = |half| Self::Cuda { half, tf32: false, nhwc: false };
        match machine.map(|machine| machine.libraries.tensors) {
            Some(Tensors::Device) => vec![cuda(true), cuda(false)],
            Some(Tensors::Host) | None => vec![Self::Processors],
        }
    }

    fn unusual(machine: &Machine) -> Vec<Self> {
        let cuda = |half, tf32, nhwc| Self::Cuda { half, tf32, nhwc };
        match machine.libraries.tensors {
            Tensors::Device => vec![
                cuda(true, false, true),
                cuda(false, true, false),
                Self::TensorRt { half: true },
                Self::TensorRt { half: false },
            ],
            Tensors::Host => Vec::new(),
        }
    }

    fn name(self) -> String {
        match self {
            Self::Processors => "processors fp32".to_owned(),
            Self::Cuda { half, tf32, nhwc } => {
                let more = [(tf32, ", TF32"), (nhwc, ", NHWC")].into_iter().filter(|(on, _)| *on);
                let more: String = more.map(|(_, name)| name).collect();
                format!("CUDA {}{more}", kind(half))
            }
            Self::TensorRt { half } => format!("TensorRT {}", kind(half)),
        }
    }

    const fn file(self) -> &'static str {
        match self {
            Self::Cuda { half: true, .. } => HALF,
            // TensorRT takes its own way to half precision.
            Self::Processors | Self::Cuda { .. } | Self::TensorRt { .. } => "model.onnx",
        }
    }

    fn providers(self) -> Vec<ExecutionProviderDispatch> {
        match self {
            Self::Processors => Vec::new(),
            Self::Cuda { tf32, nhwc, .. } => {
                vec![ep::CUDA::default().with_tf32(tf32).with_prefer_nhwc(nhwc).build().error_on_failure()]
            }
            Self::TensorRt { half } => vec![ep::TensorRT::default().with_fp16(half).build().error_on_failure()],
        }
    }

    const fn device(self) -> AllocationDevice<'static> {
        match self {
            Self::Processors => AllocationDevice::CPU,
            Self::Cuda { .. } | Self::TensorRt { .. } => AllocationDevice::CUDA,
        }
    }
}

const fn kind(half: bool) -> &'static str {
    if half { "fp16" } else { "fp32" }
}

/// Runs of ONNX Runtime alone, on a tensor that stays where it is.
fn alone(
    environment: &Environment,
    file: &Path,
    way: Way,
    batch: usize,
    side: u32,
    seconds: f64,
) -> Result<String, String> {
    let (mut session, binding, _input, what) =
        open(environment, file, way, batch, side).map_err(|error| error.to_string())?;
    let run = |session: &mut Session| session.run_binding(&binding).map(drop).map_err(|error| error.to_string());
    for _ in 0..WARM_UP {
        run(&mut session)?;
    }
    let (mut best, mut runs, start) = (Duration::MAX, 0u32, clock::now());
    let watch = Watch::start();
    let took = loop {
        let before = clock::now();
        run(&mut session)?;
        runs += 1;
        let now = clock::now();
        best = best.min(now - before);
        if (now - start).as_secs_f64() >= seconds {
            break now - start;
        }
    };
    let (each, usage) = (took / runs, watch.finish());
    let rate = batch as f64 / each.as_secs_f64();
    Ok(format!("{rate:.0} inferences/s of {what}, {:.2} ms a run, {:.2} at best; {usage}", ms(each), ms(best)))
}

fn open(
    environment: &Environment,
    file: &Path,
    way: Way,
    batch: usize,
    side: u32,
) -> ort::Result<(Session, IoBinding, Tensor<f32>, &'static str)> {
    let mut builder = Session::builder(environment)?.with_log_level(LogLevel::Error)?;
    builder = builder.with_dimension_override("N", i64::try_from(batch).unwrap_or(1))?;
    builder = builder.with_intra_threads(1)?;
    builder = builder.with_execution_providers(way.providers())?;
    let session = builder.commit_from_file(file)?;
    let memory = MemoryInfo::new(way.device(), 0, AllocatorType::Device, MemoryType::Default)?;
    let allocator = Allocator::new(&session, memory.to_owned())?;
    let (batch, side) = (i64::try_from(batch).unwrap_or(1), i64::from(side));
    let mut input = Tensor::<f32>::new(&allocator, [batch, 3, side, side])?;
    // Memory that nobody wrote may hold numbers that take longer than those of pictures.
    let mut noise = Tensor::<f32>::new(&Allocator::default(), [batch, 3, side, side])?;
    let mut numbers = Numbers::new(1);
    noise.extract_tensor_mut().1.fill_with(|| numbers.real(0.0, 1.0));
    let what = noise.copy_into(&mut input).map_or("unset memory", |()| "noise");
    let mut binding = session.create_binding()?;
    let name = |names: &[ort::value::Outlet]| names.first().map(|it| it.name().to_owned()).unwrap_or_default();
    binding.bind_input(name(session.inputs()), &input)?;
    binding.bind_output_to_device(name(session.outputs()), &memory)?;
    Ok((session, binding, input, what))
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// A model's folder as it is; for half precision a copy of it whose manifest names its graph for that.
///
/// # Errors
/// Why it can't be used.
pub fn spec_for(folder: &Path, precision: Precision) -> Result<(ModelSpec, Option<TempDir>), String> {
    let half = folder.join(HALF);
    if precision != Precision::Fp16 || !half.is_file() {
        return ModelSpec::open(folder).map(|spec| (spec, None)).map_err(|error| error.to_string());
    }
    let copy = || {
        let root = tempfile::tempdir()?;
        let name = folder.parent().and_then(Path::file_name).unwrap_or_default();
        let to = root.path().join(name).join(folder.file_name().unwrap_or_default());
        fs::create_dir_all(&to)?;
        fs::copy(folder.join("model.onnx"), to.join("model.onnx"))?;
        fs::copy(&half, to.join(HALF))?;
        let manifest = fs::read_to_string(folder.join("manifest.toml"))?;
        fs::write(to.join("manifest.toml"), format!("{manifest}\n[variants.fp16]\npath = \"{HALF}\"\n"))?;
        Ok::<_, std::io::Error>((root, to))
    };
    let (root, to) = copy().map_err(|error| format!("{}: {error}", folder.display()))?;
    ModelSpec::open(&to).map(|spec| (spec, Some(root))).map_err(|error| error.to_string())
}

/// A camera's picture, on the GPU where there is one.
fn picture(machine: Option<&Machine>) -> Result<Picture, String> {
    let drawn = scene([1280, 720]).nth(60).ok_or("no picture")?;
    let Some(machine) = machine else { return Ok(drawn.into()) };
    let on_gpu = || {
        let stream = Stream::new(&machine.device)?;
        let buffers = PinnedPool::new(&machine.device, 64 << 20);
        let mut surface = SurfacePool::new(&machine.device, 64 << 20).share(1).take(1280, 720)?;
        surface.upload(&drawn, &buffers, &stream)?;
        Ok::<_, saccade::device::Error>(DevicePicture::new(Arc::new(surface), &Arc::new(WayDown { buffers, stream })))
    };
    on_gpu().map(|picture| Picture::Device(Arc::new(picture))).map_err(|error| error.to_string())
}

/// Keeps as many slots full as the model can take. Says what came of it, and how busy the machine was meanwhile.
fn drive(model: &Arc<Model>, picture: &Picture, batch: usize, seconds: f64) -> Result<(String, String), String> {
    let count = SLOTS * batch;
    let (sender, answers) = sync_channel(2 * count);
    let slot = |number: usize| {
        let sender = sender.clone();
        model.attach(Priority::Normal, move |outcome| {
            // There is room for an answer of each slot.
            let _ = sender.try_send((number, outcome));
        })
    };
    let slots: Vec<_> = (0..count).map(slot).collect();
    let params = Arc::new(model.default_params());
    let mut next = 0;
    let mut submit = |slot: usize| {
        next += 1;
        let frame = frame(next, picture.clone());
        slots[slot].submit(frame, Arc::clone(&params)).map_or(Ok(()), |_| Err("a frame was not taken".to_owned()))
    };
    (0..count).try_for_each(&mut submit)?;
    let (mut done, mut sizes, mut boxes, mut service) = (0u32, 0usize, 0usize, Duration::ZERO);
    let warm = clock::now() + Duration::from_secs_f64((seconds / 4.0).min(1.0));
    let (mut start, mut watch) = (None, None);
    let took = loop {
        let (slot, outcome) = answers.recv_timeout(Duration::from_secs(20)).map_err(|_| "no answer for 20 s")?;
        let inferred = match outcome {
            Outcome::Done(inferred) => inferred,
            Outcome::Late(_) => return Err("a frame was late".to_owned()),
            Outcome::Failed(_, error) => return Err(error.to_string()),
        };
        submit(slot)?;
        let now = clock::now();
        if now < warm {
            continue;
        }
        let since = *start.get_or_insert(now);
        watch.get_or_insert_with(Watch::start);
        done += 1;
        sizes += inferred.batch_size;
        boxes += inferred.detections.len();
        service += inferred.timing.service();
        if (now - since).as_secs_f64() >= seconds {
            break now - since;
        }
    };
    let rate = f64::from(done) / took.as_secs_f64();
    let (mean, each) = (sizes as f64 / f64::from(done), service / done);
    let boxes = boxes as f64 / f64::from(done);
    let found = format!("{rate:.0} inferences/s, {:.2} ms a run of {mean:.1}, {boxes:.1} boxes each", ms(each));
    Ok((found, watch.map_or_else(String::new, Watch::finish)))
}

fn frame(id: u64, picture: Picture) -> Frame {
    let now = clock::now();
    Frame {
        id,
        picture,
        color: ColorInfo::default(),
        time: MediaTime(id as u32),
        arrival: now,
        deadline: now + Duration::from_secs(60),
        reorder_wait: Duration::ZERO,
        decode_time: Duration::ZERO,
        worked: Duration::ZERO,
        decoded_at: now,
    }
}

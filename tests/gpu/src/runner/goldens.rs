//! Models on the GPU, in place, against the same models on the processors.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use saccade::infer::backend::Library;
use saccade::infer::device::Gpu;
use saccade::infer::manifest::{BackendChoice, Precision};
use saccade::infer::{Cuda, Engine, Engines, Model, ModelSpec, Options, Params, TensorRt};
use saccade::media::{ColorInfo, Detection};
use saccade::models::BUILD_COMMAND;

use super::files::{Files, Shot};
use super::gpu::Machine;
use super::making::scene;
use super::{Report, Stop};

/// All precisions that a model may be asked for.
pub const PRECISIONS: [Precision; 4] = [Precision::Fp32, Precision::Fp16, Precision::Bf16, Precision::Int8];

/// Where the models run that are compared with fp32 on the processors.
#[derive(Debug, Clone)]
pub enum On {
    /// The GPU, by its CUDA provider or by TensorRT.
    Gpu(Box<Cuda>, BackendChoice),
    /// The processors again.
    Processors,
}

impl On {
    /// The GPU's CUDA provider, with the models' tensors there; `records` has their runs recorded as CUDA graphs.
    pub fn machine(machine: &Machine, records: bool) -> Self {
        let gpu = Gpu::new(Arc::clone(&machine.program), machine.libraries.tensors);
        let gpu = Some(if records { gpu.recording() } else { gpu });
        let tensorrt = Err("not wanted".to_owned());
        let cuda = Cuda { name: machine.device.name().to_owned(), tensorrt, gpu };
        Self::Gpu(Box::new(cuda), BackendChoice::Cuda)
    }

    /// The same GPU, by TensorRT: `server` builds its engines, which stay in `folder`.
    ///
    /// # Errors
    /// Why there is none.
    pub fn tensorrt(machine: &Machine, library: &Library, server: &Path, folder: &Path) -> Result<Self, String> {
        let Self::Gpu(cuda, _) = Self::machine(machine, false) else { return Err("no GPU".to_owned()) };
        let version = TensorRt::try_out(library).map_err(|error| error.to_string())?;
        let command = vec![server.as_os_str().to_owned(), BUILD_COMMAND.into()];
        let tensorrt = TensorRt { name: format!("{}; {version}", cuda.name), command, folder: folder.to_owned() };
        Ok(Self::Gpu(Box::new(Cuda { tensorrt: Ok(tensorrt), ..*cuda }), BackendChoice::TensorRt))
    }

    /// How an engine runs models there, and nowhere else.
    pub fn options(&self, precision: Precision) -> Options {
        let precision = Some(precision);
        match self {
            Self::Gpu(cuda, backend) => {
                let (backend, cuda) = (Some(*backend), Ok((**cuda).clone()));
                Options { precision, backend, cuda, engines: Engines::First, ..Options::default() }
            }
            Self::Processors => Options { precision, backend: Some(BackendChoice::Cpu), ..Options::default() },
        }
    }

    /// What computes there.
    pub const fn name(&self) -> &'static str {
        self.backend().name()
    }

    const fn backend(&self) -> BackendChoice {
        match self {
            Self::Gpu(_, backend) => *backend,
            Self::Processors => BackendChoice::Cpu,
        }
    }

    /// Loads a model, if it runs there in this precision.
    ///
    /// # Errors
    /// Why it does not.
    pub fn load(&self, engine: &Engine, spec: &ModelSpec, precision: Precision) -> Result<Arc<Model>, String> {
        let model = engine.load(spec).map_err(|error| error.to_string())?;
        let selection = model.selection();
        if selection.precision == precision && selection.provider.name() == self.name() {
            return Ok(model);
        }
        let why = selection.others.join("; ");
        Err(format!("it runs on {} in {}: {why}", selection.provider, selection.precision))
    }
}

/// How far a box may be off, and a score.
#[derive(Debug, Clone, Copy)]
struct Tolerance {
    pixels: f32,
    score: f32,
    /// Share of the boxes that may be missing or too many.
    missing: f32,
}

impl Tolerance {
    /// In fp32 the order of additions differs, and nothing else. What int8 costs is for `saccade models check` to judge.
    const fn of(precision: Precision) -> Self {
        match precision {
            Precision::Fp32 => Self { pixels: 0.5, score: 1e-3, missing: 0.0 },
            Precision::Int8 => Self { pixels: 16.0, score: 0.3, missing: 1.0 },
            _ => Self { pixels: 4.0, score: 0.05, missing: 0.05 },
        }
    }
}

/// Compares every model of the files in every precision that runs there.
///
/// # Errors
/// [`Stop`], where there are no models or pictures, or no ONNX Runtime.
pub fn run(report: &Report, on: &On, files: &Files) -> Result<(), Stop> {
    let (models, mut shots) = (files.models()?, files.photos()?);
    report.row("pictures", format!("{} photos and 6 of the drawn scene", shots.len()));
    for size in [[1280, 720], [641, 363]] {
        let pictures = scene(size).enumerate().skip(30).step_by(40).take(3);
        shots.extend(pictures.map(|(number, picture)| {
            let name = format!("scene {}x{} {number}", size[0], size[1]);
            Shot { name, picture, color: ColorInfo::default() }
        }));
    }
    let here = Engine::new(On::Processors.options(Precision::Fp32)).map_err(Stop::failed)?;
    report.row("ONNX Runtime", here.library().path().display().to_string());
    // Those that speed is measured with have weights without a meaning, and find nothing.
    for spec in models.iter().filter(|spec| !spec.manifest.name.starts_with("yolo-")) {
        let id = spec.manifest.id();
        let reference = match On::Processors.load(&here, spec, Precision::Fp32) {
            Ok(model) => model,
            Err(reason) => {
                report.wrong(format!("{id} on processors"), reason);
                continue;
            }
        };
        for precision in PRECISIONS {
            let what = format!("{id}, {precision}");
            let there = Engine::new(on.options(precision)).map_err(Stop::failed)?;
            match on.load(&there, spec, precision) {
                Ok(model) => {
                    let in_place = if model.selection().in_place { "in place: " } else { "" };
                    let found = compare(&reference, &model, &shots, precision);
                    report.judge(what, found.map(|same| format!("{in_place}{same}")));
                }
                Err(reason) if precision == Precision::Fp32 => report.wrong(what, reason),
                Err(reason) => report.unavailable(what, reason),
            }
            there.shutdown();
        }
    }
    here.shutdown();
    Ok(())
}

/// What was alike.
#[derive(Debug, Default)]
struct Alike {
    boxes: usize,
    missing: usize,
    pixels: f32,
    score: f32,
}

impl fmt::Display for Alike {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { boxes, missing, pixels, score } = self;
        write!(
            out,
            "{boxes} boxes alike, off by {pixels:.3} px and {score:.5} of score at most; {missing} only on one side"
        )
    }
}

fn compare(here: &Model, there: &Model, shots: &[Shot], precision: Precision) -> Result<String, String> {
    let (tolerance, mut alike, mut first) = (Tolerance::of(precision), Alike::default(), None);
    let defaults = here.default_params();
    // What is near the threshold may be on one side of it only.
    let sure = defaults.score_threshold + tolerance.score;
    let params = Arc::new(Params { score_threshold: defaults.score_threshold - tolerance.score, ..defaults });
    for Shot { name, picture, color } in shots {
        let detect = |model: &Model| {
            let detected = model.detect(picture, *color, &params).map_err(|error| format!("{name}: {error}"))?;
            Ok::<_, String>(detected.detections)
        };
        let (here, mut there) = (detect(here)?, detect(there)?);
        for expected in &here {
            let off = |found: &Detection| {
                let edges = found.bbox.iter().zip(expected.bbox);
                edges.map(|(found, expected)| (found - expected).abs()).fold(0.0, f32::max)
            };
            let fits = |found: &Detection| {
                found.class == expected.class
                    && off(found) <= tolerance.pixels
                    && (found.score - expected.score).abs() <= tolerance.score
            };
            let near = there.iter().enumerate().filter(|(_, found)| fits(found));
            let near = near.min_by(|(_, a), (_, b)| off(a).total_cmp(&off(b))).map(|(at, _)| at);
            if let Some(near) = near {
                let found = there.remove(near);
                alike.boxes += 1;
                alike.pixels = alike.pixels.max(off(&found));
                alike.score = alike.score.max((found.score - expected.score).abs());
            } else if expected.score >= sure {
                alike.missing += 1;
                first.get_or_insert_with(|| format!("{name}: {expected:?} is not there, but {there:?}"));
            }
        }
        for extra in there.iter().filter(|extra| extra.score >= sure) {
            alike.missing += 1;
            first.get_or_insert_with(|| format!("{name}: {extra:?} is there alone"));
        }
    }
    let most = tolerance.missing * (alike.boxes + alike.missing) as f32;
    if alike.missing as f32 > most {
        return Err(format!("{alike}; {}", first.unwrap_or_default()));
    }
    Ok(alike.to_string())
}

//! `saccade eval`: how accurate a model is on pictures whose objects are known, and how fast.
//!
//! Pictures go one after the other through the server's own preprocessing, model and postprocessing, so that the
//! figures are those that users get. They are COCO's, as pycocotools computes them.
//!
//! Exit codes: 0 measured; 64 for a wrong argument, an unusable data set or an unknown model; 69 without ONNX Runtime;
//! 70 when a picture or the model failed, or after an interruption.

mod report;
pub(super) mod run;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde_json::json;

use self::report::Report;
use self::run::Evaluation;
use super::lines::Lines;
use super::offline::{self, Way};
use super::progress::Progress;
use crate::accuracy::dataset::Dataset;
use crate::cli::{self, Eval, Exit};
use crate::config::{Config, Mistakes};
use crate::infer::manifest::Precision;
use crate::infer::{self, Model, ModelSpec, Params};

/// Detections from this score on count for average precision, which looks at all scores.
const LOWEST_SCORE: f32 = 0.001;

/// What ends the command.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Configuration(#[from] Mistakes),
    #[error("{}", offline::sentence(source))]
    Models { source: infer::Error },
    #[error("model {name} cannot be used: {source}")]
    Model { name: String, source: infer::Error },
    #[error("model {model} does not run in {wanted} here: {}", reasons.join("; "))]
    Precision { model: String, wanted: Precision, reasons: Vec<String> },
    #[error(transparent)]
    Run(#[from] run::Error),
    #[error("{} states no object of any class: there is nothing to measure", path.display())]
    NoObjects { path: PathBuf },
    #[error("--json and --results cannot both go to {}: choose two names", path.display())]
    SamePlace { path: PathBuf },
    #[error("model `{name}` is unknown; there are {}", known.join(", "))]
    UnknownModel { name: String, known: Vec<String> },
    #[error("{} would be overwritten: choose another name to write to", path.display())]
    Overwritten { path: PathBuf },
    #[error("{model} finds no boxes (its task is {task}), and only boxes are measured; name another model")]
    NoBoxes { model: String, task: &'static str },
    #[error("cannot write: {0}")]
    Write(io::Error),
}

impl Error {
    pub(super) const fn exit(&self) -> Exit {
        match self {
            Self::Configuration(_)
            | Self::UnknownModel { .. }
            | Self::NoObjects { .. }
            | Self::NoBoxes { .. }
            | Self::SamePlace { .. }
            | Self::Overwritten { .. } => Exit::Configuration,
            Self::Models { source } | Self::Model { source, .. } => offline::exit_of(source),
            Self::Run(error) => error.exit(),
            Self::Precision { .. } | Self::Write(_) => Exit::Internal,
        }
    }
}

/// Does what was asked for; mistakes and failures go to standard error.
pub(super) fn run(args: Eval) -> Exit {
    offline::interruptible(move |stop| match eval(&args, stop) {
        Ok(()) => Exit::Clean,
        // Whoever read the figures has had enough of them.
        Err(Error::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Clean,
        Err(error) => {
            eprintln!("{error}");
            error.exit()
        }
    })
}

fn eval(args: &Eval, stop: &AtomicBool) -> Result<(), Error> {
    let config = Config::load(&args.sources(std::env::vars_os()))?;
    offline::init_logs(&args.settings, &config);
    if args.json.is_some() && args.json == args.results {
        return Err(Error::SamePlace { path: args.json.clone().unwrap_or_default() });
    }
    for path in [&args.json, &args.results].into_iter().flatten() {
        if args.data.canonicalize().is_ok_and(|data| path.canonicalize().is_ok_and(|path| path == data)) {
            return Err(Error::Overwritten { path: path.clone() });
        }
    }
    let mut json = Lines::open(args.json.as_deref(), false).map_err(Error::Write)?;
    let mut results = Lines::open(args.results.as_deref(), false).map_err(Error::Write)?;
    let models = |source| Error::Models { source };
    let repository = crate::models::repository(&config).map_err(models)?;
    let name = &config.models.default;
    let spec = repository.find(name).map_err(|source| match source {
        infer::Error::UnknownModel { .. } => Error::UnknownModel {
            name: name.clone(),
            known: repository.models().iter().map(|spec| spec.manifest.id()).collect(),
        },
        source => Error::Model { name: name.clone(), source },
    })?;
    let way = Way { precision: args.precision.map(Precision::from), ..Way::default() };
    let model = load(&config, spec, way)?;
    let dataset = run::read(&args.data, &model)?;
    let params = Arc::new(params(&model, args.iou_threshold));
    let mut progress = Progress::new(1, args.quiet);
    progress.begin(&args.data, Some(dataset.pictures.len() as u64));
    let evaluation = Evaluation::run(&model, &params, &dataset, &args.images, &progress, stop);
    progress.finish();
    let evaluation = evaluation?;
    let score = args.score_threshold.unwrap_or(model.default_params().score_threshold);
    let report = Report::new(&model, &dataset, &evaluation, score, args.input_side);
    if args.json.is_none() {
        write!(io::stdout(), "{report}").map_err(Error::Write)?;
    }
    json.write(format!("{:#}", report.to_json())).map_err(Error::Write)?;
    results.write(coco_results(&dataset, &evaluation)).map_err(Error::Write)?;
    json.finish().and_then(|()| results.finish()).map_err(Error::Write)
}

/// The model as the server runs it; in one precision, if one is given, or not at all.
pub(super) fn load(config: &Config, spec: &ModelSpec, way: Way) -> Result<Arc<Model>, Error> {
    let task = spec.manifest.task;
    if !task.has_boxes() {
        return Err(Error::NoBoxes { model: spec.manifest.id(), task: task.name() });
    }
    let engine = offline::engine(config, 1, way).map_err(|source| Error::Models { source })?;
    let model = engine.load(spec).map_err(|source| Error::Model { name: spec.manifest.id(), source })?;
    let selection = model.selection();
    match way.precision {
        Some(wanted) if wanted != selection.precision => {
            Err(Error::Precision { model: model.id(), wanted, reasons: selection.others.clone() })
        }
        _ => Ok(model),
    }
}

/// What average precision needs: everything that the model finds, as far as suppression looks (1,024 candidates).
pub(super) fn params(model: &Model, iou_threshold: Option<f32>) -> Params {
    Params {
        score_threshold: LOWEST_SCORE,
        iou_threshold: iou_threshold.unwrap_or(model.default_params().iou_threshold),
        max_detections: usize::MAX,
        classes: None,
    }
}

/// Detections of classes that the data set knows, as COCO results.
fn coco_results(dataset: &Dataset, evaluation: &Evaluation) -> String {
    let mut results = Vec::new();
    for (entry, picture) in dataset.pictures.iter().zip(&evaluation.pictures) {
        for found in &picture.found {
            let Some(category) = dataset.categories.get(found.class).copied().flatten() else { continue };
            let [x1, y1, x2, y2] = found.bbox;
            results.push(json!({
                "image_id": entry.id,
                "category_id": category,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "score": found.score,
            }));
        }
    }
    serde_json::Value::from(results).to_string()
}

impl run::Error {
    const fn exit(&self) -> Exit {
        match self {
            Self::Data { .. } | Self::Large { .. } | Self::Dataset { .. } | Self::Size { .. } => Exit::Configuration,
            Self::Picture { .. } | Self::NoPicture { .. } | Self::Model { .. } | Self::Interrupted => Exit::Internal,
        }
    }
}

impl From<cli::Precision> for Precision {
    fn from(precision: cli::Precision) -> Self {
        match precision {
            cli::Precision::Fp32 => Self::Fp32,
            cli::Precision::Bf16 => Self::Bf16,
            cli::Precision::Fp16 => Self::Fp16,
            cli::Precision::Int8 => Self::Int8,
        }
    }
}

//! `saccade detect`: pictures and video files through the stages of live video.
//!
//! Files go through one after the other, a picture at a time: decoding, the model, the overlay, encoding. A file that
//! fails is reported, and the others go on. Files that are written appear under their names when they are whole.
//!
//! Exit codes: 0 when everything was done; 64 for a wrong argument, an unknown model or class; 69 without ONNX Runtime;
//! 70 when a file or the model failed, when results could not be written, or after an interruption.

mod annotated;
mod file;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;

use saccade_signaling::{Masks, ResultFormat};

use self::annotated::Kind;
use self::file::Stages;

use super::lines::Lines;
use super::offline;
use super::progress::Progress;
use crate::annotate::Annotator;
use crate::cli::{self, Detect, Exit, Format};
use crate::config::{Config, Mistakes};
use crate::infer::{self, Model, Params};
use crate::session;

/// More threads than these in one run of a model gain nothing.
const MAX_THREADS: usize = 4;

/// What ends the whole command.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Configuration(#[from] Mistakes),
    #[error("--annotate takes one input, not {count}")]
    SeveralInputs { count: usize },
    #[error("--annotate {}: the name must end in {}", path.display(), Kind::ENDINGS)]
    Ending { path: PathBuf },
    #[error("{} would be overwritten: choose another name to write to", path.display())]
    Overwritten { path: PathBuf },
    #[error("{model} has no class \"{name}\"; it has {}", known.join(", "))]
    UnknownClass { model: String, name: String, known: Vec<String> },
    #[error("--format: {model}: {problem}")]
    Format { model: String, problem: &'static str },
    #[error("{}", offline::sentence(source))]
    Models { source: infer::Error },
    #[error("model {name} cannot be used: {source}")]
    Model { name: String, source: infer::Error },
    #[error("cannot write results: {0}")]
    Results(io::Error),
    #[error("interrupted; no unfinished file was left")]
    Interrupted,
}

impl Error {
    const fn exit(&self) -> Exit {
        match self {
            Self::Configuration(_)
            | Self::SeveralInputs { .. }
            | Self::Ending { .. }
            | Self::Overwritten { .. }
            | Self::Format { .. }
            | Self::UnknownClass { .. } => Exit::Configuration,
            Self::Models { source } | Self::Model { source, .. } => offline::exit_of(source),
            Self::Results(_) | Self::Interrupted => Exit::Internal,
        }
    }
}

/// Does what was asked for; mistakes and failures go to standard error.
pub(super) fn run(args: Detect) -> Exit {
    offline::interruptible(move |stop| match detect(&args, stop) {
        Ok(exit) => exit,
        // Whoever read the results has had enough of them.
        Err(Error::Results(error)) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Clean,
        Err(error) => {
            eprintln!("{error}");
            error.exit()
        }
    })
}

fn detect(args: &Detect, stop: &AtomicBool) -> Result<Exit, Error> {
    let annotate = annotate(args)?;
    let config = Config::load(&args.sources(std::env::vars_os()))?;
    offline::init_logs(&args.settings, &config);
    let mut lines = Lines::open(args.json.as_deref(), annotate.is_none()).map_err(Error::Results)?;
    let model = load(&config)?;
    let task = model.manifest().task;
    if let Some(problem) = session::format_problem(task, args.format.into()) {
        return Err(Error::Format { model: model.id(), problem });
    }
    let params = Arc::new(params(args, &model)?);
    let progress = Progress::new(args.inputs.len(), args.quiet || lines.on_terminal());
    let mut stages = Stages {
        id: model.id(),
        model,
        params,
        format: args.format.into(),
        masks: args.masks.into(),
        annotator: Annotator::new(),
        lines: &mut lines,
        progress,
        stop,
    };
    let mut exit = Exit::Clean;
    for input in &args.inputs {
        match stages.process(input, annotate) {
            Ok(()) => {}
            Err(file::Error::Fatal(error)) => return Err(error),
            Err(error) => {
                stages.progress.say(&format!("{}: {}", input.display(), offline::sentence(&error)));
                exit = error.exit();
            }
        }
    }
    stages.progress.finish();
    lines.finish().map_err(Error::Results)?;
    Ok(exit)
}

/// Where the annotated copy goes. Neither it nor the results may replace an input.
fn annotate(args: &Detect) -> Result<Option<(&Path, Kind)>, Error> {
    let written = [args.annotate.as_deref(), args.json.as_deref().filter(|path| *path != Path::new("-"))];
    for path in written.iter().flatten() {
        let Ok(there) = path.canonicalize() else { continue };
        if args.inputs.iter().any(|input| input.canonicalize().is_ok_and(|input| input == there)) {
            return Err(Error::Overwritten { path: (*path).to_owned() });
        }
    }
    let Some(path) = &args.annotate else { return Ok(None) };
    if args.json.as_ref() == Some(path) {
        return Err(Error::Overwritten { path: path.clone() });
    }
    match args.inputs.len() {
        1 => {}
        count => return Err(Error::SeveralInputs { count }),
    }
    let kind = Kind::of(path).ok_or_else(|| Error::Ending { path: path.clone() })?;
    Ok(Some((path, kind)))
}

fn load(config: &Config) -> Result<Arc<Model>, Error> {
    let models = |source| Error::Models { source };
    // On a machine that does nothing else, more threads are faster.
    let threads = thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
    let engine = offline::engine(config, threads, offline::Way::default()).map_err(models)?;
    let repository = crate::models::repository(config).map_err(models)?;
    let name = &config.models.default;
    let named = |source| match source {
        infer::Error::UnknownModel { .. } => Error::Models { source },
        source => Error::Model { name: name.clone(), source },
    };
    repository.find(name).and_then(|spec| engine.load(spec)).map_err(named)
}

fn params(args: &Detect, model: &Model) -> Result<Params, Error> {
    let defaults = model.default_params();
    let class = |name: &String| {
        model.class(name).map(|class| class.id).ok_or_else(|| Error::UnknownClass {
            model: model.id(),
            name: name.clone(),
            known: model.classes().iter().map(|class| class.name.to_string()).collect(),
        })
    };
    let classes = args.classes.as_ref().map(|names| names.iter().map(class).collect::<Result<_, _>>()).transpose()?;
    Ok(Params {
        score_threshold: args.score_threshold.unwrap_or(defaults.score_threshold),
        iou_threshold: args.iou_threshold.unwrap_or(defaults.iou_threshold),
        max_detections: args.max_detections.map_or(defaults.max_detections, |count| count as usize),
        classes,
    })
}

impl From<Format> for ResultFormat {
    fn from(format: Format) -> Self {
        match format {
            Format::Saccade => Self::Saccade,
            Format::Coco => Self::Coco,
            Format::Roboflow => Self::Roboflow,
            Format::Supervision => Self::Supervision,
        }
    }
}

impl From<cli::Masks> for Masks {
    fn from(masks: cli::Masks) -> Self {
        match masks {
            cli::Masks::Outlines => Self::Outlines,
            cli::Masks::Rle => Self::Rle,
            cli::Masks::None => Self::None,
        }
    }
}

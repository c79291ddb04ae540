//! Runs a model over a data set, one picture after the other.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::accuracy::dataset::{self, Dataset, Entry};
use crate::accuracy::{Found, Picture};
use crate::clock;
use crate::commands::offline;
use crate::commands::progress::Progress;
use crate::decode::file::{self, Reader};
use crate::infer::{self, Letterbox, Model, Params};
use crate::media::{Class, Detection};

/// Larger descriptions of data sets than COCO's own 450 MB are a mistake.
const MAX_DATA_BYTES: u64 = 1 << 30;

/// What goes wrong with a data set.
#[derive(Debug, thiserror::Error)]
pub(in crate::commands) enum Error {
    #[error("cannot read {}: {source}", path.display())]
    Data { path: PathBuf, source: io::Error },
    #[error("{} is larger than {} MiB", path.display(), MAX_DATA_BYTES >> 20)]
    Large { path: PathBuf },
    #[error("{}: {source}", path.display())]
    Dataset { path: PathBuf, source: dataset::Error },
    #[error("{}: {source}", path.display())]
    Picture { path: PathBuf, source: file::Error },
    #[error("{} has no picture in it", path.display())]
    NoPicture { path: PathBuf },
    #[error("{} is {}x{} pixels, but the data set says {}x{}; its boxes would not fit", path.display(), found.0, found.1, stated.0, stated.1)]
    Size { path: PathBuf, found: (u32, u32), stated: (u32, u32) },
    #[error("the model failed on {}: {source}", path.display())]
    Model { path: PathBuf, source: infer::Error },
    #[error("interrupted")]
    Interrupted,
}

/// What a model found in all pictures, beside what is in them, and how long it took.
pub(in crate::commands) struct Evaluation {
    /// In the order of the data set.
    pub(in crate::commands) pictures: Vec<Picture>,
    /// One for each picture.
    pub(in crate::commands) times: Vec<Times>,
}

/// Where the time of one picture went.
#[derive(Debug, Clone, Copy)]
pub(in crate::commands) struct Times {
    pub(in crate::commands) preprocess: Duration,
    pub(in crate::commands) inference: Duration,
    pub(in crate::commands) postprocess: Duration,
    /// From the decoded picture to its detections.
    pub(in crate::commands) total: Duration,
}

/// Reads a data set's description for a model with these classes.
pub(in crate::commands) fn read(path: &Path, classes: &[Class]) -> Result<Dataset, Error> {
    let failed = |source| Error::Data { path: path.to_owned(), source };
    let length = fs::metadata(path).map_err(failed)?.len();
    if length > MAX_DATA_BYTES {
        return Err(Error::Large { path: path.to_owned() });
    }
    let text = fs::read_to_string(path).map_err(failed)?;
    let classes: Vec<_> = classes.iter().map(|class| &*class.name).collect();
    Dataset::parse(&text, &classes).map_err(|source| Error::Dataset { path: path.to_owned(), source })
}

impl Evaluation {
    /// Takes every picture of the data set through decoding, preprocessing, the model and postprocessing, as frames of
    /// live video go.
    pub(in crate::commands) fn run(
        model: &Model,
        params: &Arc<Params>,
        dataset: &Dataset,
        folder: &Path,
        progress: &Progress,
        stop: &AtomicBool,
    ) -> Result<Self, Error> {
        let mut evaluation = Self { pictures: Vec::new(), times: Vec::new() };
        for entry in &dataset.pictures {
            evaluation.add(model, params, entry, folder)?;
            progress.advance();
            if stop.load(Ordering::Acquire) {
                return Err(Error::Interrupted);
            }
        }
        Ok(evaluation)
    }

    /// The pictures without what was found of classes that the data set has no category for: nobody knows where their
    /// objects are, so that it is neither right nor wrong.
    pub(in crate::commands) fn of_known_classes(&self, dataset: &Dataset) -> Vec<Picture> {
        let is_known = |class: usize| dataset.categories.get(class).is_some_and(Option::is_some);
        let known = |picture: &Picture| {
            let mut picture = picture.clone();
            picture.found.retain(|found| is_known(found.class));
            picture
        };
        self.pictures.iter().map(known).collect()
    }

    fn add(&mut self, model: &Model, params: &Arc<Params>, entry: &Entry, folder: &Path) -> Result<(), Error> {
        let path = folder.join(&entry.file_name);
        let broken = |source| Error::Picture { path: path.clone(), source };
        // The resolved path begins with a slash, so that FFmpeg never takes it for an address.
        let real = path.canonicalize().map_err(|source| Error::Data { path: path.clone(), source })?;
        let decoded = Reader::open(&real, offline::LIMITS).map_err(broken)?.next();
        let file::Picture { picture, color, .. } =
            decoded.ok_or_else(|| Error::NoPicture { path: path.clone() })?.map_err(broken)?;
        let found = (picture.width(), picture.height());
        if let Some(stated) = entry.size.filter(|stated| *stated != found) {
            return Err(Error::Size { path, found, stated });
        }
        let started = clock::now();
        let detected = model.detect(&picture, color, params);
        let detected = detected.map_err(|source| Error::Model { path: path.clone(), source })?;
        let total = clock::now() - started;
        let infer::Timing { preprocess, inference, postprocess, .. } = detected.timing;
        self.times.push(Times { preprocess, inference, postprocess, total });
        let found_of = |detection: &Detection| Found {
            bbox: detection.bbox.map(f64::from),
            class: detection.class.id as usize,
            score: f64::from(detection.score),
        };
        let all = detected.detections.iter().map(found_of).collect();
        self.pictures.push(Picture { objects: entry.objects.clone(), found: all, scale: scale(model, found) });
        Ok(())
    }
}

/// Pixels of the model's input for one pixel of a picture of this size; the geometric mean where the axes differ.
fn scale(model: &Model, (width, height): (u32, u32)) -> f64 {
    let letterbox = Letterbox::new(&model.manifest().input, width, height);
    let ([x0, y0], [x1, y1]) = (letterbox.to_input([0.0, 0.0]), letterbox.to_input([1.0, 1.0]));
    f64::from((x1 - x0) * (y1 - y0)).sqrt()
}

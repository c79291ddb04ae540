use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use saccade_signaling::{Dropped, Masks, ResultFormat};

use super::annotated::{Annotated, Kind};
use crate::annotate::{Annotator, Overlay};
use crate::cli::Exit;
use crate::clock;
use crate::commands::lines::Lines;
use crate::commands::offline;
use crate::commands::progress::Progress;
use crate::decode::file::{self, Reader};
use crate::egress::results::{Processed, Timings};
use crate::encode;
use crate::infer::{self, Model, Params};
use crate::media::MediaTime;

/// What results name instead of a session.
const SESSION: &str = "offline";
/// Hundredths of the stated pictures that have to come; an edited file may leave some out on purpose.
const ENOUGH: u64 = 90;

/// What goes wrong with one file.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("cannot read it")]
    Find(#[source] io::Error),
    #[error("it is a folder; name its files")]
    Folder,
    #[error(transparent)]
    Read(#[from] file::Error),
    #[error("the file is cut off: {read} of {stated} pictures could be read")]
    Cut { read: u64, stated: u64 },
    #[error("the file is damaged: {packets} of its packets could not be decoded")]
    Damaged { packets: u32 },
    #[error("{}", if *still {
        "it is a picture: --annotate needs a name that ends in .png, .jpg or .jpeg"
    } else {
        "it is a video: --annotate needs a name that ends in .mp4, .mov, .mkv or .webm"
    })]
    Kind { still: bool },
    #[error("the model failed")]
    Model(#[source] infer::Error),
    #[error("cannot write the annotated file")]
    Video(#[from] encode::file::Error),
    #[error("cannot write the annotated file")]
    Picture(#[from] encode::picture::Error),
    #[error("cannot write the annotated file")]
    Write(#[source] io::Error),
    /// Not this file's fault.
    #[error(transparent)]
    Fatal(#[from] super::Error),
}

impl Error {
    pub(super) const fn exit(&self) -> Exit {
        match self {
            Self::Kind { .. } => Exit::Configuration,
            Self::Fatal(error) => error.exit(),
            _ => Exit::Internal,
        }
    }
}

/// The stages that every file goes through, and where its results go.
pub(super) struct Stages<'a> {
    pub(super) model: Arc<Model>,
    pub(super) id: String,
    pub(super) params: Arc<Params>,
    pub(super) format: ResultFormat,
    pub(super) masks: Masks,
    pub(super) annotator: Annotator,
    pub(super) lines: &'a mut Lines,
    pub(super) progress: Progress,
    pub(super) stop: &'a AtomicBool,
}

impl Stages<'_> {
    /// Takes a file through, picture by picture.
    pub(super) fn process(&mut self, input: &Path, annotate: Option<(&Path, Kind)>) -> Result<(), Error> {
        // The resolved path begins with a slash, so that FFmpeg never takes it for an address.
        let path = input.canonicalize().map_err(Error::Find)?;
        if path.is_dir() {
            return Err(Error::Folder);
        }
        let mut started = clock::now();
        let mut reader = Reader::open(&path, offline::LIMITS)?;
        let stated = reader.info().frames.filter(|_| reader.info().counted);
        self.progress.begin(input, reader.info().frames);
        let annotated = annotate.map(|(target, kind)| Annotated::new(target, kind, reader.info()));
        let mut annotated = annotated.transpose()?;
        let name = serde_json::Value::from(input.display().to_string());
        let (mut read, mut encode, mut text) = (0, Duration::ZERO, Vec::new());
        while let Some(decoded) = reader.next() {
            let file::Picture { mut picture, color, time } = decoded?;
            let decode = clock::now() - started;
            let found = self.model.detect(&picture, color, &self.params).map_err(Error::Model)?;
            let inferred = clock::now();
            if annotated.is_some() {
                let overlay =
                    Overlay { detections: &found.detections, overall: found.overall.as_deref(), ..Overlay::default() };
                self.annotator.draw(Arc::make_mut(&mut picture), color, &overlay);
            }
            let drawn = clock::now();
            let processed = Processed {
                session_id: SESSION,
                frame_id: read,
                time_in: MediaTime::default().after(time),
                time_out: None,
                capture_time_ms: None,
                width: picture.width(),
                height: picture.height(),
                model: &self.id,
                detections: &found.detections,
                overall: found.overall.as_deref(),
                masks: self.masks,
                timings: Timings {
                    reorder: Duration::ZERO,
                    decode,
                    queue: found.timing.queue,
                    preprocess: found.timing.preprocess,
                    inference: found.timing.inference,
                    postprocess: found.timing.postprocess,
                    annotate: drawn - inferred,
                    encode,
                    total: drawn - started,
                },
                budget_ms: 0,
                met: true,
                batch_size: 1,
                dropped: Dropped::default(),
                degraded: &[],
            };
            let result = processed.write_json(self.format, &mut text);
            // The result is an object with keys: the file's name goes before them.
            let line = format!("{{\"file\":{name},{}", &result[1..]);
            self.lines.write(line).map_err(super::Error::Results)?;
            if let Some(annotated) = &mut annotated {
                let before = clock::now();
                annotated.write(&picture, color)?;
                encode = clock::now() - before;
            }
            reader.pool().give(picture);
            read += 1;
            self.progress.advance();
            if self.stop.load(Ordering::Acquire) {
                return Err(super::Error::Interrupted.into());
            }
            started = clock::now();
        }
        if let Some(annotated) = annotated {
            annotated.finish()?;
        }
        match (stated, reader.broken_packets()) {
            (Some(stated), _) if read * 100 < stated * ENOUGH => Err(Error::Cut { read, stated }),
            (_, packets @ 1..) => Err(Error::Damaged { packets }),
            _ => Ok(()),
        }
    }
}

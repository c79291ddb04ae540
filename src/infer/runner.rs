use std::sync::Arc;
use std::time::Duration;

use super::backend::Bucket;
use super::decoder::Decoder;
use super::error::Error;
use super::letterbox::Letterbox;
use super::manifest::Manifest;
use super::postprocess::Postprocessor;
use super::prepared::Prepared;
use super::preprocess::Preprocessor;
use super::{Findings, Params, Timing};
use crate::clock;
use crate::frame::Picture;
use crate::media::{ColorInfo, FramePool, I420};

/// Everything that one instance needs for its pictures: preprocessing, a backend with its input tensor for each batch
/// size, postprocessing.
pub(super) struct Runner {
    manifest: Arc<Manifest>,
    preprocessor: Preprocessor,
    /// The buckets: batch sizes, ascending, and what runs them.
    backends: Vec<(usize, Bucket)>,
    postprocessor: Postprocessor,
    /// Of the batch in work; kept, so that none allocates.
    letterboxes: Vec<Letterbox>,
    /// Pictures that come from a device.
    pool: FramePool,
}

/// One member of a batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Item<'a> {
    pub(super) picture: &'a Picture,
    pub(super) color: ColorInfo,
    pub(super) params: &'a Params,
    /// Its tensor, where several models share it.
    pub(super) prepared: Option<&'a Prepared>,
}

impl Runner {
    /// With `backend`, it runs one picture at a time.
    pub(super) fn new(manifest: Arc<Manifest>, backend: Bucket, decoder: Decoder) -> Self {
        let preprocessor = Preprocessor::new(manifest.input.clone());
        let postprocessor = Postprocessor::new(Arc::clone(&manifest), decoder);
        let (letterboxes, pool) = (Vec::new(), FramePool::new(1));
        Self { manifest, preprocessor, backends: vec![(1, backend)], postprocessor, letterboxes, pool }
    }

    /// Adds a bucket, larger than the others.
    pub(super) fn add_bucket(&mut self, size: usize, backend: Bucket) {
        debug_assert!(self.backends.last().is_some_and(|(largest, _)| *largest < size), "buckets rise");
        self.backends.push((size, backend));
    }

    /// Takes a bucket away again, if it is there.
    pub(super) fn drop_bucket(&mut self, size: usize) {
        self.backends.retain(|(other, _)| *other != size);
    }

    /// Makes ready for the thread that it is called on, which is to be the one that runs it: what a device records of runs is
    /// recorded, of empty pictures, so that frames find it there.
    ///
    /// # Errors
    /// Those of a run. [`Error::Recording`]: one that is opened anew does without.
    pub(super) fn settle(&mut self) -> Result<(), Error> {
        #[cfg(feature = "cuda")]
        for at in 0..self.backends.len() {
            let (size, Bucket::InPlace(in_place)) = &mut self.backends[at] else { continue };
            let size = *size;
            if in_place.begin_recording()? {
                // Once to record it, and once to have that repeated.
                self.time(size, 2)?;
            }
        }
        Ok(())
    }

    /// Whether all runs repeat what a device recorded.
    #[cfg(feature = "cuda")]
    pub(super) fn is_recorded(&self) -> bool {
        let recorded = |bucket: &Bucket| matches!(bucket, Bucket::InPlace(in_place) if in_place.is_recorded());
        self.backends.iter().all(|(_, bucket)| recorded(bucket))
    }

    /// Runs the model on an empty picture `times` times and gives the shortest time.
    pub(super) fn warm_up(&mut self, times: u32) -> Result<Duration, Error> {
        self.time(1, times)
    }

    /// Runs a full batch of empty pictures `times` times and gives the shortest time.
    pub(super) fn time(&mut self, bucket: usize, times: u32) -> Result<Duration, Error> {
        let [width, height] = self.manifest.input.size;
        let picture = Arc::new(I420::new(width, height)).into();
        let params = self.manifest.defaults.into();
        let item = Item { picture: &picture, color: ColorInfo::default(), params: &params, prepared: None };
        let mut found = Vec::with_capacity(bucket);
        let mut shortest = Duration::MAX;
        for _ in 0..times.max(1) {
            let timing = self.run(bucket, &std::iter::repeat_n(item, bucket), &mut found)?;
            shortest = shortest.min(timing.service());
        }
        Ok(shortest)
    }

    /// Takes a batch through preprocessing, the model and postprocessing; its bucket may have room for more. `found`
    /// gets what was found in each item, in their order. The times are the whole batch's; `timing.queue` is left at
    /// zero.
    pub(super) fn run<'a>(
        &mut self,
        bucket: usize,
        items: &(impl Iterator<Item = Item<'a>> + Clone),
        found: &mut Vec<Findings>,
    ) -> Result<Timing, Error> {
        let Self { manifest, preprocessor, backends, postprocessor, letterboxes, pool } = self;
        let backend = backends.iter_mut().find(|(size, _)| *size == bucket).map(|(_, backend)| backend);
        let backend = backend.ok_or_else(|| Error::Run { reason: format!("there is no bucket of {bucket}") })?;
        letterboxes.clear();
        found.clear();
        #[cfg_attr(
            not(feature = "cuda"),
            expect(clippy::infallible_destructuring_match, reason = "with the feature there is another kind")
        )]
        let backend = match backend {
            Bucket::Host(backend) => backend,
            #[cfg(feature = "cuda")]
            Bucket::InPlace(in_place) => return in_place.run(items, postprocessor, letterboxes, found),
        };
        let start = clock::now();
        let places = backend.input().chunks_exact_mut(manifest.input.item_len());
        for (item, place) in items.clone().zip(places) {
            let picture = item.picture.host(pool).map_err(|error| Error::Run { reason: error.to_string() })?;
            letterboxes.push(match item.prepared.filter(|prepared| prepared.suits(&manifest.input)) {
                Some(prepared) => prepared.fill(preprocessor, &picture, item.color, place),
                None => preprocessor.fill(&picture, item.color, place),
            });
        }
        let preprocessed = clock::now();
        let mut inferred = preprocessed;
        backend.run(&mut |views| {
            inferred = clock::now();
            for (at, (item, letterbox)) in items.clone().zip(&*letterboxes).enumerate() {
                found.push(postprocessor.item(views, at, letterbox, item.params)?);
            }
            Ok(())
        })?;
        Ok(Timing {
            queue: Duration::ZERO,
            preprocess: preprocessed - start,
            inference: inferred - preprocessed,
            postprocess: clock::now() - inferred,
        })
    }
}

impl From<super::manifest::Defaults> for Params {
    fn from(defaults: super::manifest::Defaults) -> Self {
        Self {
            score_threshold: defaults.score_threshold,
            iou_threshold: defaults.iou_threshold,
            max_detections: defaults.max_detections,
            classes: None,
        }
    }
}

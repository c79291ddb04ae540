use std::sync::Arc;

use metrics::{Counter, counter};

#[cfg(feature = "cuda")]
use super::decoder::device::Head;
use super::decoder::{self, Candidate, Decoder, Filter, Outlet, View, Whole};
use super::error::Error;
use super::letterbox::Letterbox;
use super::manifest::Manifest;
use super::{Findings, Params};
#[cfg(feature = "cuda")]
use crate::device::kernels;
use crate::media::{Class, Detection, Keypoint, Label, Mask, Overall};

/// From the outputs of a model's run to what it found: the manifest's decoder, then non-maximum suppression.
#[derive(Debug)]
pub struct Postprocessor {
    manifest: Arc<Manifest>,
    decoder: Decoder,
    candidates: Vec<Candidate>,
    /// Tensors that were too large to be told.
    left_out: Counter,
}

impl Postprocessor {
    /// For a model with these outputs.
    ///
    /// # Errors
    /// [`Error::WrongOutput`] if they are not what the manifest's decoder reads.
    pub fn bind(manifest: Arc<Manifest>, outlets: &[Outlet]) -> Result<Self, Error> {
        let decoder = Decoder::bind(&manifest, outlets)?;
        Ok(Self::new(manifest, decoder))
    }

    pub(super) fn new(manifest: Arc<Manifest>, decoder: Decoder) -> Self {
        let left_out = counter!("saccade_tensors_left_out_total", "model" => manifest.id());
        Self { manifest, decoder, candidates: Vec::new(), left_out }
    }

    /// What a run on one picture found, best score first, in pixels of the picture that `letterbox` maps. `views` are
    /// the outputs that the decoder reads, in its order.
    ///
    /// # Errors
    /// [`Error::WrongOutput`], [`Error::Run`] if the outputs are not shaped as they were declared.
    pub fn detections(
        &mut self,
        views: &[View<'_>],
        letterbox: &Letterbox,
        params: &Params,
    ) -> Result<Vec<Detection>, Error> {
        self.item(views, 0, letterbox, params).map(|found| found.detections)
    }

    /// All that a run on one picture found, as [`Self::detections`].
    ///
    /// # Errors
    /// Those of [`Self::detections`].
    pub fn findings(&mut self, views: &[View<'_>], letterbox: &Letterbox, params: &Params) -> Result<Findings, Error> {
        self.item(views, 0, letterbox, params)
    }

    /// The same for item `item` of a run on several.
    pub(super) fn item(
        &mut self,
        views: &[View<'_>],
        item: usize,
        letterbox: &Letterbox,
        params: &Params,
    ) -> Result<Findings, Error> {
        let Self { decoder, candidates, .. } = self;
        let filter = Filter { score_threshold: params.score_threshold, classes: params.classes.as_deref() };
        if decoder.is_of_the_whole() {
            let whole = decoder.whole(views, item, &filter, letterbox.content(), params.max_detections)?;
            let overall = whole.map(|whole| Arc::new(self.overall(whole, letterbox, params)));
            return Ok(Findings { detections: Vec::new(), overall });
        }
        candidates.clear();
        decoder.decode(views, item, &filter, candidates)?;
        decoder::suppress(candidates, params.iou_threshold, params.max_detections);
        let keypoints = |candidate: &Candidate| {
            let points = self.decoder.keypoints(views, item, candidate);
            points.into_iter().map(|at| Keypoint { at: letterbox.to_source(at), score: candidate.score }).collect()
        };
        let detections = self.named(self.candidates.iter().copied(), letterbox, keypoints);
        Ok(Findings { detections, overall: None })
    }

    /// With the names of classes, in pixels of the picture.
    fn overall(&self, whole: Whole, letterbox: &Letterbox, params: &Params) -> Overall {
        match whole {
            Whole::Scores(scores) => {
                let label = |(class, score)| Some(Label { class: self.class(class)?, score });
                Overall::Labels(scores.into_iter().filter_map(label).collect())
            }
            Whole::Map(map) => {
                let [left, top, right, bottom] = map.covers;
                let ([x1, y1], [x2, y2]) = (letterbox.to_source([left, top]), letterbox.to_source([right, bottom]));
                let (corners, frame) = ([x1, y1, x2, y2], letterbox.source());
                let mut mask = Mask::new(map.size, map.classes, corners, frame, |index| self.class(index.into()));
                mask.truncate(params.max_detections);
                Overall::Mask(mask)
            }
            Whole::Tensors(tensors) => {
                let left_out = tensors.iter().filter(|tensor| tensor.data.is_none()).count();
                if left_out > 0 {
                    self.left_out.increment(left_out as u64);
                }
                Overall::Tensors(tensors)
            }
        }
    }

    fn class(&self, id: u32) -> Option<Class> {
        self.manifest.classes.get(id as usize).cloned()
    }

    /// The head as a device decodes it; none if only the CPU can.
    #[cfg(feature = "cuda")]
    #[must_use]
    pub fn head(&self) -> Option<Head> {
        self.decoder.head()
    }

    /// What [`Self::detections`] gives, from the boxes that a device has left of the outputs.
    #[cfg(feature = "cuda")]
    #[must_use]
    pub fn decoded(
        &self,
        found: impl ExactSizeIterator<Item = kernels::Candidate>,
        letterbox: &Letterbox,
    ) -> Vec<Detection> {
        self.named(found.map(Candidate::from), letterbox, |_| Vec::new())
    }

    /// With the names of their classes and their `keypoints`, in pixels of the picture.
    fn named(
        &self,
        found: impl ExactSizeIterator<Item = Candidate>,
        letterbox: &Letterbox,
        keypoints: impl Fn(&Candidate) -> Vec<Keypoint>,
    ) -> Vec<Detection> {
        let detection = |candidate: Candidate| {
            let (class, bbox) = (self.class(candidate.class)?, letterbox.box_to_source(candidate.bbox)?);
            let (score, keypoints) = (candidate.score, keypoints(&candidate));
            Some(Detection { bbox, class, score, object_id: None, keypoints })
        };
        let mut detections = Vec::with_capacity(found.len());
        detections.extend(found.filter_map(detection));
        detections
    }
}

use std::sync::Arc;

use super::Params;
use super::decoder::{self, Candidate, Decoder, Filter, Outlet, View};
use super::error::Error;
use super::letterbox::Letterbox;
use super::manifest::Manifest;
use crate::media::Detection;

/// From the outputs of a model's run to detections: the manifest's decoder, then non-maximum suppression.
#[derive(Debug)]
pub struct Postprocessor {
    manifest: Arc<Manifest>,
    decoder: Decoder,
    candidates: Vec<Candidate>,
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

    pub(super) const fn new(manifest: Arc<Manifest>, decoder: Decoder) -> Self {
        Self { manifest, decoder, candidates: Vec::new() }
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
        self.item(views, 0, letterbox, params)
    }

    /// The same for item `item` of a run on several.
    pub(super) fn item(
        &mut self,
        views: &[View<'_>],
        item: usize,
        letterbox: &Letterbox,
        params: &Params,
    ) -> Result<Vec<Detection>, Error> {
        let Self { manifest, decoder, candidates } = self;
        candidates.clear();
        let filter = Filter { score_threshold: params.score_threshold, classes: params.classes.as_deref() };
        decoder.decode(views, item, &filter, candidates)?;
        decoder::suppress(candidates, params.iou_threshold, params.max_detections);
        let detection = |candidate: &Candidate| {
            let class = manifest.classes.get(candidate.class as usize)?.clone();
            let bbox = letterbox.box_to_source(candidate.bbox)?;
            Some(Detection { bbox, class, score: candidate.score, object_id: None })
        };
        let mut detections = Vec::with_capacity(candidates.len());
        detections.extend(candidates.iter().filter_map(detection));
        Ok(detections)
    }
}

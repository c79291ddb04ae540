use std::sync::Arc;

use super::Params;
#[cfg(feature = "cuda")]
use super::decoder::device::Head;
use super::decoder::{self, Candidate, Decoder, Filter, Outlet, View};
use super::error::Error;
use super::letterbox::Letterbox;
use super::manifest::Manifest;
#[cfg(feature = "cuda")]
use crate::device::kernels;
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
        let Self { decoder, candidates, .. } = self;
        candidates.clear();
        let filter = Filter { score_threshold: params.score_threshold, classes: params.classes.as_deref() };
        decoder.decode(views, item, &filter, candidates)?;
        decoder::suppress(candidates, params.iou_threshold, params.max_detections);
        Ok(self.named(self.candidates.iter().copied(), letterbox))
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
        self.named(found.map(Candidate::from), letterbox)
    }

    /// With the names of their classes, in pixels of the picture.
    fn named(&self, found: impl ExactSizeIterator<Item = Candidate>, letterbox: &Letterbox) -> Vec<Detection> {
        let detection = |Candidate { bbox, class, score }| {
            let class = self.manifest.classes.get(class as usize)?.clone();
            Some(Detection { bbox: letterbox.box_to_source(bbox)?, class, score, object_id: None })
        };
        let mut detections = Vec::with_capacity(found.len());
        detections.extend(found.filter_map(detection));
        detections
    }
}

use std::sync::Arc;
use std::time::Duration;

use super::backend::Backend;
use super::decoder::Decoder;
use super::error::Error;
use super::manifest::Manifest;
use super::postprocess::Postprocessor;
use super::preprocess::Preprocessor;
use super::{Detected, Params, Timing};
use crate::clock;
use crate::media::{ColorInfo, I420};

/// Everything that one instance needs for a picture: preprocessing, the backend with its input tensor, postprocessing.
pub(super) struct Runner {
    manifest: Arc<Manifest>,
    preprocessor: Preprocessor,
    backend: Box<dyn Backend>,
    postprocessor: Postprocessor,
}

impl Runner {
    pub(super) fn new(manifest: Arc<Manifest>, backend: Box<dyn Backend>, decoder: Decoder) -> Self {
        let preprocessor = Preprocessor::new(manifest.input.clone());
        let postprocessor = Postprocessor::new(Arc::clone(&manifest), decoder);
        Self { manifest, preprocessor, backend, postprocessor }
    }

    /// Runs the model on an empty input `times` times and gives the shortest time.
    pub(super) fn warm_up(&mut self, times: u32) -> Result<Duration, Error> {
        let picture = I420::new(self.manifest.input.size[0], self.manifest.input.size[1]);
        let params = self.manifest.defaults.into();
        let mut shortest = Duration::MAX;
        for _ in 0..times.max(1) {
            let timing = self.infer(&picture, ColorInfo::default(), &params)?.timing;
            shortest = shortest.min(timing.preprocess + timing.inference + timing.postprocess);
        }
        Ok(shortest)
    }

    /// Takes one picture through preprocessing, the model and postprocessing; `timing.queue` is left at zero.
    pub(super) fn infer(&mut self, picture: &I420, color: ColorInfo, params: &Params) -> Result<Detected, Error> {
        let start = clock::now();
        let letterbox = self.preprocessor.fill(picture, color, self.backend.input());
        let preprocessed = clock::now();
        let mut inferred = preprocessed;
        let mut detections = Vec::new();
        let postprocessor = &mut self.postprocessor;
        self.backend.run(&mut |views| {
            inferred = clock::now();
            detections = postprocessor.detections(views, &letterbox, params)?;
            Ok(())
        })?;
        let timing = Timing {
            queue: Duration::ZERO,
            preprocess: preprocessed - start,
            inference: inferred - preprocessed,
            postprocess: clock::now() - inferred,
        };
        Ok(Detected { detections, timing })
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

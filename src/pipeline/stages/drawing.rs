use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use saccade_signaling as wire;
use saccade_signaling::Options;

use super::Shared;
use crate::annotate::{self, Annotator, LineShape, ZoneShape};
use crate::clock;
#[cfg(feature = "cuda")]
use crate::frame::Picture;
use crate::infer;
use crate::media::{Detection, Overall};
#[cfg(feature = "cuda")]
use crate::pipeline::painting::Painter;

/// Draws what is known of a session's frames on them, where they lie.
pub(super) struct Drawing {
    annotator: Annotator,
    /// Lines of the timing strip.
    strip: [String; 2],
    /// What is drawn on a frame of half the size.
    halved: Vec<Detection>,
    /// There once a picture lies on the GPU.
    #[cfg(feature = "cuda")]
    painter: Option<Painter>,
}

impl Drawing {
    pub(super) fn new() -> Self {
        Self {
            annotator: Annotator::new(),
            strip: Default::default(),
            halved: Vec::new(),
            #[cfg(feature = "cuda")]
            painter: None,
        }
    }

    /// Draws on a frame, after its picture was halved if it is to be. `false`: the picture could not be brought to where that
    /// can be done.
    pub(super) fn draw(
        &mut self,
        shared: &Shared,
        inferred: &mut infer::Inferred,
        half: bool,
        options: &Options,
    ) -> bool {
        let overlay = options.overlay;
        let zones = overlay.zones && !(options.zones.is_empty() && options.lines.is_empty());
        let whole = match inferred.overall.as_deref() {
            Some(Overall::Labels(labels)) => overlay.labels && !labels.is_empty(),
            Some(Overall::Mask(mask)) => (overlay.boxes || overlay.labels) && !mask.segments().is_empty(),
            Some(Overall::Tensors(_)) | None => false,
        };
        let boxes = whole || (!inferred.detections.is_empty() && (overlay.boxes || overlay.labels));
        if !half && !overlay.timing && !zones && !boxes {
            return true;
        }
        let (zones, lines) = if zones { shapes(options) } else { Default::default() };
        self.write_strip(inferred, options);
        let infer::Inferred { frame, detections, overall, .. } = inferred;
        let detections = if half {
            self.halved.clear();
            let halved = |found: &Detection| {
                let mut halved = Detection { bbox: found.bbox.map(|side| side / 2.0), ..found.clone() };
                halved.keypoints.iter_mut().for_each(|point| point.at = point.at.map(|side| side / 2.0));
                halved
            };
            self.halved.extend(detections.iter().map(halved));
            &self.halved
        } else {
            detections
        };
        let strip = self.strip.each_ref().map(String::as_str);
        let overlay = annotate::Overlay {
            detections,
            overall: overall.as_deref(),
            boxes: overlay.boxes,
            labels: overlay.labels,
            timing: if overlay.timing { &strip } else { &[] },
            zones: &zones,
            lines: &lines,
        };
        #[cfg(feature = "cuda")]
        if let (Picture::Device(picture), Some(gpu)) = (&frame.picture, &shared.gpu) {
            let painter = match &mut self.painter {
                Some(painter) => Ok(painter),
                none => gpu.painter().map(|made| none.insert(made)),
            };
            let painted = painter
                .and_then(|painter| painter.paint(picture.surface(), half, frame.color, &overlay, &mut self.annotator));
            match painted {
                Ok(surface) => {
                    frame.picture = Picture::Device(Arc::new(picture.with(surface)));
                    return true;
                }
                Err(error) => {
                    tracing::trace!(session_id = shared.session_id, %error, "a frame is not drawn on by the GPU");
                    shared.metrics.unpainted.increment(1);
                }
            }
        }
        let picture = match frame.picture.bring(&shared.pool) {
            Ok(picture) => picture,
            Err(error) => {
                tracing::trace!(session_id = shared.session_id, %error, "a frame is not returned");
                shared.metrics.not_brought.increment(1);
                return false;
            }
        };
        if half {
            let mut smaller = shared.pool.take(picture.width(), picture.height());
            picture.halve_into(Arc::make_mut(&mut smaller));
            shared.pool.give(std::mem::replace(picture, smaller));
        }
        // A predicted frame's picture is with the model, too.
        shared.pool.make_own(picture);
        self.annotator.draw(Arc::make_mut(picture), frame.color, &overlay);
        true
    }

    fn write_strip(&mut self, inferred: &infer::Inferred, options: &Options) {
        let [latency, stages] = &mut self.strip;
        latency.clear();
        stages.clear();
        if !options.overlay.timing {
            return;
        }
        let elapsed = clock::now().saturating_duration_since(inferred.frame.arrival);
        // Writing to a string cannot fail.
        let _ = write!(latency, "latency {:.0} ms of {} ms", milliseconds(elapsed), options.budget_ms);
        let _ = write!(stages, "decode {:.1}  ", milliseconds(inferred.frame.decode_time));
        if inferred.batch_size > 0 {
            let (queue, model) = (inferred.timing.queue, inferred.timing.inference);
            let _ = write!(stages, "queue {:.1}  model {:.1}", milliseconds(queue), milliseconds(model));
        } else {
            stages.push_str("predicted");
        }
    }
}

/// Zones and lines as they are drawn.
fn shapes(options: &Options) -> (Vec<ZoneShape<'_>>, Vec<LineShape<'_>>) {
    fn zone(zone: &wire::Zone) -> ZoneShape<'_> {
        ZoneShape { name: &zone.name, polygon: &zone.polygon }
    }
    fn line(line: &wire::Line) -> LineShape<'_> {
        LineShape { name: &line.name, from: line.points[0], to: line.points[1] }
    }
    (options.zones.iter().map(zone).collect(), options.lines.iter().map(line).collect())
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

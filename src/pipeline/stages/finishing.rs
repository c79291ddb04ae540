use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use saccade_signaling::{Options, ReturnMode};

use super::{Answered, Output, Shared};
use crate::annotate::{self, Annotator};
use crate::clock;
use crate::egress::results;
use crate::encode::{self, Encoder};
use crate::infer;
use crate::media::{Codec, EncodedFrame, Frame, MediaTime, Rotation};
use crate::pipeline::stats::Stats;
use crate::pipeline::workers::Step;
use crate::session::EndReason;

/// Frames that may fail to be encoded one after the other before the session ends.
const MAX_ENCODE_FAILURES: u32 = 30;

/// The last stage: draws, hands the result out, encodes.
pub(super) struct Finisher {
    shared: Arc<Shared>,
    codec: Codec,
    annotator: Annotator,
    encoder: Option<Box<dyn Encoder>>,
    /// Frames in a row that were not encoded.
    failures: u32,
    /// Lines of the timing strip.
    strip: [String; 2],
    /// Text of the last result.
    text: Vec<u8>,
}

impl Finisher {
    pub(super) fn new(shared: Arc<Shared>, codec: Codec) -> Self {
        let (annotator, strip, text) = (Annotator::new(), Default::default(), Vec::new());
        Self { shared, codec, annotator, encoder: None, failures: 0, strip, text }
    }

    pub(super) fn step(&mut self) -> Step {
        let shared = Arc::clone(&self.shared);
        let Some(mut answered) = shared.answered.take() else { return Step::Idle };
        shared.metrics.annotate_wait.record(clock::now().duration_since(answered.at));
        let applied = shared.applied.load_full();
        if applied.options.return_mode == ReturnMode::Results || !shared.returns_video {
            // The encoder's memory is the largest of a session.
            self.encoder = None;
            shared.emit_result(&answered, None, Duration::ZERO, &mut self.text);
        } else {
            let started = clock::now();
            self.draw(&mut answered.inferred, &applied.options);
            let annotate = clock::now().duration_since(started);
            shared.metrics.annotate.record(annotate);
            shared.annotate_time.learn(annotate);
            // Before the frame is encoded: a result does not wait for its video. The frame may still be lost on its
            // way, here as well as behind the server.
            shared.emit_result(&answered, Some(answered.inferred.frame.time), annotate, &mut self.text);
            self.encode(&answered.inferred.frame);
        }
        shared.pool.give(answered.inferred.frame.picture);
        Step::Again
    }

    fn draw(&mut self, inferred: &mut infer::Inferred, options: &Options) {
        let overlay = options.overlay;
        if !overlay.timing && (inferred.detections.is_empty() || !(overlay.boxes || overlay.labels)) {
            return;
        }
        let [latency, stages] = &mut self.strip;
        if overlay.timing {
            latency.clear();
            stages.clear();
            let elapsed = clock::now().saturating_duration_since(inferred.frame.arrival);
            // Writing to a string cannot fail.
            let _ = write!(latency, "latency {:.0} ms of {} ms", milliseconds(elapsed), options.budget_ms);
            let _ = write!(
                stages,
                "decode {:.1}  queue {:.1}  model {:.1}",
                milliseconds(inferred.frame.decode_time),
                milliseconds(inferred.timing.queue),
                milliseconds(inferred.timing.inference),
            );
        }
        let lines = [latency.as_str(), stages.as_str()];
        self.annotator.draw(
            Arc::make_mut(&mut inferred.frame.picture),
            inferred.frame.color,
            &annotate::Overlay {
                detections: &inferred.detections,
                boxes: overlay.boxes,
                labels: overlay.labels,
                timing: if overlay.timing { &lines } else { &[] },
                ..annotate::Overlay::default()
            },
        );
    }

    fn encode(&mut self, frame: &Frame) {
        let shared = Arc::clone(&self.shared);
        let bitrate = shared.bitrate.load(Ordering::Relaxed);
        let encoder = match &mut self.encoder {
            Some(encoder) => encoder,
            None => match encode::software::Software::new(
                self.codec,
                encode::software::Config { bitrate_bps: bitrate, fps: shared.max_fps },
            ) {
                Ok(encoder) => self.encoder.insert(Box::new(encoder)),
                Err(error) => {
                    tracing::error!(session_id = shared.session_id, %error, "no encoder");
                    return shared.fail(EndReason::Internal);
                }
            },
        };
        encoder.set_bitrate(bitrate);
        let keyframe = shared.keyframe_wanted.swap(false, Ordering::Relaxed);
        let started = clock::now();
        let encoded = encoder.encode(&frame.picture, frame.color, frame.time, keyframe);
        let took = clock::now().duration_since(started);
        shared.metrics.encode.record(took);
        shared.encode_time.learn(took);
        match encoded {
            Ok(Some(encoded)) => {
                self.failures = 0;
                let unit = EncodedFrame {
                    codec: self.codec,
                    data: encoded.data,
                    time: frame.time,
                    keyframe: encoded.keyframe,
                    rotation: Rotation::None,
                    color: encoded.color.into(),
                    arrival: frame.arrival,
                    reorder_wait: Duration::ZERO,
                };
                if shared.outputs.try_send(Output::Encoded(unit)).is_err() {
                    // What follows a lost frame cannot be shown before the next keyframe.
                    shared.metrics.unsent.increment(1);
                    shared.keyframe_wanted.store(true, Ordering::Relaxed);
                }
            }
            Ok(None) => {
                if keyframe {
                    shared.keyframe_wanted.store(true, Ordering::Relaxed);
                }
            }
            Err(error) => {
                self.failures += 1;
                tracing::warn!(
                    session_id = shared.session_id,
                    %error,
                    failures = self.failures,
                    "a frame was not encoded"
                );
                shared.metrics.unencodable.increment(1);
                self.encoder = None;
                if self.failures >= MAX_ENCODE_FAILURES {
                    shared.fail(EndReason::Internal);
                }
            }
        }
    }
}

impl Shared {
    /// Hands the result of a frame out, its text made in `text`.
    pub(super) fn emit_result(
        &self,
        answered: &Answered,
        returned: Option<MediaTime>,
        annotate: Duration,
        text: &mut Vec<u8>,
    ) {
        let Answered { inferred, model_id, .. } = answered;
        let applied = self.applied.load();
        let frame = &inferred.frame;
        let elapsed = clock::now().saturating_duration_since(frame.arrival);
        let encode = returned.map_or(Duration::ZERO, |_| self.encode_time.get());
        let timings = results::Timings {
            reorder: frame.reorder_wait,
            decode: frame.decode_time,
            queue: inferred.timing.queue,
            preprocess: inferred.timing.preprocess,
            inference: inferred.timing.inference,
            postprocess: inferred.timing.postprocess,
            annotate,
            encode,
            total: elapsed + encode,
        };
        let met = elapsed + encode <= Duration::from_millis(applied.options.budget_ms.into());
        if !met {
            self.metrics.budget_missed.increment(1);
        }
        self.metrics.result_latency.record(elapsed);
        self.stats.record(&timings.into());
        Stats::count(&self.stats.results);
        let processed = results::Processed {
            session_id: &self.session_id,
            frame_id: frame.id,
            time_in: frame.time,
            time_out: returned,
            capture_time_ms: None,
            width: frame.picture.width(),
            height: frame.picture.height(),
            model: model_id,
            detections: &inferred.detections,
            timings,
            budget_ms: applied.options.budget_ms,
            met,
            batch_size: u32::try_from(inferred.batch_size).unwrap_or(u32::MAX),
            dropped: self.stats.dropped(),
            degraded: &[],
        };
        let json: Arc<str> = processed.write_json(applied.options.format, text).into();
        // Nobody may be listening.
        let _ = self.listeners.send(Arc::clone(&json));
        if self.outputs.try_send(Output::Result(json)).is_err() {
            self.metrics.results_dropped.increment(1);
        }
    }
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

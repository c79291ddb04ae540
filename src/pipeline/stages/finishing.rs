use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use saccade_signaling::ReturnMode;

use super::drawing::Drawing;
use super::{Answered, Applied, Output, Passing, Shared};
use crate::clock;
use crate::degrade::{STEPS, Sample};
use crate::egress::results;
use crate::encode;
use crate::frame::Frame;
use crate::infer;
use crate::media::{Codec, Detection, EncodedFrame, MediaTime, Rotation};
use crate::pipeline::gpu::Encoder;
use crate::pipeline::stats::Stats;
use crate::pipeline::workers::Step;
use crate::session::EndReason;

/// What `degraded` has where the model was not asked because the scene stood still.
const REUSED: &str = "reused";
/// Frames that may fail to be encoded one after the other before the session ends.
const MAX_ENCODE_FAILURES: u32 = 30;

/// While nothing is returned, a frame that is late is returned after this time, so that something is seen where the
/// budget cannot be kept at all.
const LONGEST_FREEZE: Duration = Duration::from_secs(1);

/// The last stage: draws, hands the result out, encodes.
pub(super) struct Finisher {
    shared: Arc<Shared>,
    codec: Codec,
    drawing: Drawing,
    encoder: Option<Encoder>,
    /// Frames in a row that were not encoded.
    failures: u32,
    /// Number of the last frame that was encoded, and when that was.
    last_returned: Option<(u64, Instant)>,
    /// Text of the last result.
    text: Vec<u8>,
    /// Where the tracker expects objects; kept for its memory.
    expected: Vec<Detection>,
}

impl Finisher {
    pub(super) fn new(shared: Arc<Shared>, codec: Codec) -> Self {
        Self {
            shared,
            codec,
            drawing: Drawing::new(),
            encoder: None,
            failures: 0,
            last_returned: None,
            text: Vec::new(),
            expected: Vec::new(),
        }
    }

    pub(super) fn step(&mut self) -> Step {
        let shared = Arc::clone(&self.shared);
        let applied = shared.applied.load_full();
        let predicted = applied.is_predicted(shared.takers());
        // Before the mailbox of answers is looked at: what is no longer pending then has its answer there.
        let oldest = if predicted { u64::MAX } else { shared.pending.oldest() };
        // The older one goes first. A predicted frame is returned before its result says so.
        let answer = shared.answered.peek(|answered| answered.inferred.frame.id + u64::from(predicted));
        let bound = answer.map_or(oldest, |answer| answer.min(oldest));
        if let Some(passing) = shared.passing.take_if(|passing| passing.frame.id < bound) {
            shared.metrics.annotate_wait.record(clock::now().duration_since(passing.frame.decoded_at));
            self.passing(passing, &applied);
        } else if let Some(answered) = shared.answered.take() {
            shared.metrics.annotate_wait.record(clock::now().duration_since(answered.at));
            self.answered(answered, &applied);
        } else {
            return Step::Idle;
        }
        Step::Again
    }

    /// A frame with a result of its own.
    fn answered(&mut self, mut answered: Answered, applied: &Applied) {
        let shared = Arc::clone(&self.shared);
        let frame = &answered.inferred.frame;
        let video = applied.gives_video(shared.takers());
        if !video {
            // The encoder's memory is the largest of a session.
            self.encoder = None;
        }
        if applied.is_predicted(shared.takers()) {
            // It was returned already, or is about to be.
            let returned = (!shared.unreturned.contains(frame.id)).then_some(frame.time);
            shared.emit_result(&answered, returned, Duration::ZERO, &mut self.text);
        } else if video && self.is_returned(frame, applied) {
            self.give_back(&mut answered, applied, true);
        } else {
            shared.emit_result(&answered, None, Duration::ZERO, &mut self.text);
        }
        answered.inferred.frame.picture.recycle(&shared.pool);
    }

    /// A frame without a result of its own: its objects are where the tracker expects them.
    fn passing(&mut self, Passing { frame, tells }: Passing, applied: &Applied) {
        let shared = Arc::clone(&self.shared);
        let predicted = applied.is_predicted(shared.takers());
        if !predicted && frame.id < shared.told.load(Ordering::Acquire) {
            // Two answers came while the one before was being drawn.
            shared.metrics.overtaken.increment(1);
            shared.traced.dropped(frame.id, "overtaken");
            frame.picture.recycle(&shared.pool);
            return;
        }
        let mut detections = std::mem::take(&mut self.expected);
        detections.clear();
        if let Some(tracker) = shared.tracking().tracker() {
            tracker.predict(frame.time, [frame.picture.width(), frame.picture.height()], &mut detections);
        }
        applied.orders.keep_wanted(&mut detections, applied.options.score_threshold);
        let timing = infer::Timing { queue: clock::now().duration_since(frame.decoded_at), ..infer::Timing::default() };
        let inferred = infer::Inferred { frame, detections, overall: None, timing, batch_size: 0, met: true };
        let mut answered = Answered::new(inferred, Arc::clone(&applied.model_id));
        let video = applied.gives_video(shared.takers());
        // The result of a predicted frame is its model's, later.
        let tells = tells && !predicted;
        if video && self.is_returned(&answered.inferred.frame, applied) {
            self.give_back(&mut answered, applied, tells);
        } else {
            shared.unreturned.add(answered.inferred.frame.id);
            shared.traced.not_returned(answered.inferred.frame.id, "not_returned");
            if tells {
                shared.emit_result(&answered, None, Duration::ZERO, &mut self.text);
            }
        }
        self.expected = answered.inferred.detections;
        answered.inferred.frame.picture.recycle(&shared.pool);
    }

    /// Whether a frame is worth drawing and encoding: it is newer than the last one, not left out by choice, and still
    /// within its budget.
    fn is_returned(&self, frame: &Frame, applied: &Applied) -> bool {
        let shared = &self.shared;
        let Some((last, at)) = self.last_returned else { return true };
        if frame.id <= last {
            shared.metrics.overtaken.increment(1);
            return false;
        }
        if !shared.rung().returns(frame.id) {
            return false;
        }
        let now = clock::now();
        if applied.goes_back(shared.returns_video) && !shared.peer.has_room(now) {
            shared.metrics.congested.increment(1);
            return false;
        }
        let due = frame.arrival + Duration::from_millis(applied.options.budget_ms.into());
        let late = now + shared.encode_time.mean() > due && now < at + LONGEST_FREEZE;
        if late {
            shared.metrics.late_to_return.increment(1);
            shared.tell_late(applied, now, frame.picture.width() * frame.picture.height());
        }
        !late
    }

    /// Draws on a frame, hands its result out if it has one, and encodes it.
    fn give_back(&mut self, answered: &mut Answered, applied: &Applied, tells: bool) {
        let shared = Arc::clone(&self.shared);
        let started = clock::now();
        let half = shared.rung().half_size;
        let is_drawn = self.drawing.draw(&shared, &mut answered.inferred, half, &applied.options);
        let annotate = clock::now().duration_since(started);
        shared.metrics.annotate.record(annotate);
        shared.annotate_time.update(annotate);
        shared.traced.worked(answered.inferred.frame.id, "annotate", started, annotate);
        if tells {
            // Before the frame is encoded: a result does not wait for its video. The frame may still be lost on its way,
            // here as well as behind the server.
            let time = answered.inferred.frame.time;
            shared.emit_result(answered, is_drawn.then_some(time), annotate, &mut self.text);
        }
        if !is_drawn {
            shared.unreturned.add(answered.inferred.frame.id);
            shared.traced.not_returned(answered.inferred.frame.id, "not_drawn");
            return;
        }
        self.last_returned = Some((answered.inferred.frame.id, started));
        let picture = &answered.inferred.frame.picture;
        let pixels = picture.width() * picture.height();
        if let Some(encode) = self.encode(&answered.inferred.frame, applied, annotate) {
            shared.load.encoded(pixels, annotate + encode);
        }
    }

    /// How long it took, where it came to that; drawing on the frame took `annotate`.
    fn encode(&mut self, frame: &Frame, applied: &Applied, annotate: Duration) -> Option<Duration> {
        let shared = Arc::clone(&self.shared);
        let bitrate = shared.bitrate.load(Ordering::Relaxed);
        let encoder = match &mut self.encoder {
            Some(encoder) => encoder,
            None => match Encoder::new(
                shared.gpu.as_deref(),
                self.codec,
                encode::software::Config { bitrate_bps: bitrate, fps: shared.max_fps },
            ) {
                Ok(encoder) => self.encoder.insert(encoder),
                Err(error) => {
                    tracing::error!(session_id = shared.session_id, %error, "no encoder");
                    shared.fail(EndReason::Internal);
                    return None;
                }
            },
        };
        encoder.set_bitrate(bitrate);
        let keyframe = shared.keyframe_wanted.swap(false, Ordering::Relaxed);
        let started = clock::now();
        let encoded = encoder.encode(&frame.picture, frame.color, frame.time, keyframe, &shared.pool);
        let took = clock::now().duration_since(started);
        shared.metrics.encode.record(took);
        shared.encode_time.update(took);
        shared.traced.worked(frame.id, "encode", started, took);
        if !matches!(encoded, Ok(Some(_))) {
            shared.traced.not_returned(frame.id, "not_encoded");
        }
        match encoded {
            Ok(Some(encoded)) => {
                self.failures = 0;
                let copies = shared.takers().viewers + usize::from(applied.goes_back(shared.returns_video));
                shared.demand.returned(encoded.data.len() * copies);
                shared.footing.load().tell(clock::now(), Sample::Returned);
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
                let worked = frame.worked + annotate + took;
                if shared.outputs.try_send(Output::Encoded { unit, worked }).is_err() {
                    // What follows a lost frame cannot be shown before the next keyframe.
                    shared.metrics.unsent.increment(1);
                    shared.traced.not_returned(frame.id, "unsent");
                    shared.keyframe_wanted.store(true, Ordering::Relaxed);
                }
            }
            Ok(None) => {
                if keyframe {
                    shared.keyframe_wanted.store(true, Ordering::Relaxed);
                }
            }
            // It says nothing of the encoder.
            Err(encode::Error::Device) => {
                shared.metrics.not_brought.increment(1);
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
        Some(took)
    }
}

impl Shared {
    /// Tells the ladder of a frame that a model answered, and that was done after so long.
    fn tell_inferred(&self, Answered { inferred, size, .. }: &Answered, applied: &Applied, took: Duration) {
        let timing = &inferred.timing;
        let service = (timing.preprocess + timing.inference + timing.postprocess) / inferred.batch_size as u32;
        let slack = self.slack(applied, size[0] * size[1], took);
        self.footing.load().tell(clock::now(), Sample::Inferred { service, slack });
    }

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
        self.told.fetch_max(frame.id + 1, Ordering::AcqRel);
        let elapsed = clock::now().saturating_duration_since(frame.arrival);
        let video = returned.is_some() && applied.options.return_mode != ReturnMode::Predicted;
        let encode = if video { self.encode_time.mean() } else { Duration::ZERO };
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
        let budget = Duration::from_millis(applied.options.budget_ms.into());
        let met = elapsed + encode <= budget;
        if !met {
            self.metrics.budget_missed.increment(1);
        }
        self.metrics.result_latency.record(elapsed);
        self.traced.told(frame.id, elapsed, met, returned.is_some());
        if inferred.batch_size > 0 {
            self.tell_inferred(answered, &applied, elapsed + encode);
            self.stats.record(&timings.into());
        }
        let mut degraded = [""; STEPS.len() + 1];
        let mut steps = 0;
        for (place, name) in degraded.iter_mut().zip(self.rung().names().chain(answered.reused.then_some(REUSED))) {
            *place = name;
            steps += 1;
        }
        Stats::count(&self.stats.results);
        let processed = results::Processed {
            session_id: &self.session_id,
            frame_id: frame.id,
            time_in: frame.time,
            time_out: returned,
            capture_time_ms: None,
            width: answered.size[0],
            height: answered.size[1],
            model: model_id,
            detections: &inferred.detections,
            overall: inferred.overall.as_deref(),
            masks: applied.options.masks,
            timings,
            budget_ms: applied.options.budget_ms,
            met,
            batch_size: u32::try_from(inferred.batch_size).unwrap_or(u32::MAX),
            dropped: self.stats.dropped(),
            degraded: &degraded[..steps],
        };
        let json: Arc<str> = processed.write_json(applied.options.format, text).into();
        // Nobody may be listening.
        let _ = self.listeners.send(Arc::clone(&json));
        if self.outputs.try_send(Output::Result(json)).is_err() {
            self.metrics.results_dropped.increment(1);
        }
    }
}

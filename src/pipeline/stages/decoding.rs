use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{Applied, Output, Passing, Place, Shared};
use crate::clock;
use crate::decode;
use crate::degrade::Sample;
use crate::frame::Frame;
use crate::media::{EncodedFrame, MediaTime};
use crate::pipeline::gpu::Decoder;
use crate::pipeline::ladders::Footing;
use crate::pipeline::stats::Stats;
use crate::pipeline::workers::{Lane, Step};
use crate::session::EndReason;

/// Frames after which the owner is told again that frames are decoded, since its queue may have been full.
const TOLD_EVERY: u64 = 32;

/// The first stage: decodes, and hands frames to the model, past it, or both.
pub(super) struct DecodeStage {
    shared: Arc<Shared>,
    decoder: Decoder,
    finish: Arc<Lane>,
    next_id: u64,
    /// Width and height of the last frame.
    size: [u32; 2],
    /// RTP timestamp of the last frame that was let through.
    last_time: Option<MediaTime>,
}

impl DecodeStage {
    pub(super) fn new(shared: Arc<Shared>, decoder: Decoder, finish: Arc<Lane>) -> Self {
        Self { shared, decoder, finish, next_id: 0, size: [0; 2], last_time: None }
    }

    pub(super) fn step(&mut self) -> Step {
        if self.shared.is_moving.load(Ordering::Acquire) {
            self.shared.finish_move();
        }
        let Some(unit) = self.shared.units.pop() else { return Step::Idle };
        let started = clock::now();
        let waiting_since = unit.arrival + unit.reorder_wait;
        self.shared.metrics.decode_wait.record(started.saturating_duration_since(waiting_since));
        match self.decoder.decode(&unit) {
            Ok(Some(decoded)) => self.submit(&unit, decoded, started),
            Ok(None) => {}
            Err(decode::Error::TooLarge { width, height }) => {
                tracing::info!(
                    session_id = self.shared.session_id,
                    width,
                    height,
                    "a frame is larger than limits.width × limits.height"
                );
                self.shared.fail(EndReason::DecodeFailed);
            }
            Err(error) => {
                tracing::trace!(session_id = self.shared.session_id, %error, "an access unit was not decoded");
                self.shared.metrics.undecodable.increment(1);
                self.shared.keyframe_needed.store(true, Ordering::Relaxed);
                self.shared.tell(Output::NeedKeyframe);
            }
        }
        Step::Again
    }

    fn submit(&mut self, unit: &EncodedFrame, decoded: decode::Shown, started: Instant) {
        let shared = &self.shared;
        let now = clock::now();
        shared.metrics.decode.record(now.duration_since(started));
        shared.metrics.decoded.increment(1);
        Stats::count(&shared.stats.decoded);
        let (width, height) = (decoded.picture.width(), decoded.picture.height());
        let pixels = width * height;
        let before = std::mem::replace(&mut self.size, [width, height]);
        if before != self.size {
            shared.stats.set_resolution(width, height);
            // Where there was none before, the estimates are none.
            let factor = f64::from(pixels) / f64::from((before[0] * before[1]).max(1));
            shared.annotate_time.scale(factor);
            shared.encode_time.scale(factor);
        }
        if before != self.size || self.next_id.is_multiple_of(TOLD_EVERY) {
            shared.tell(Output::Decoded);
        }
        shared.load.decoded(pixels, now.duration_since(started));
        shared.demand.received(now, pixels, unit.data.len());
        if self.too_soon(unit.time) {
            shared.metrics.over_rate.increment(1);
            decoded.picture.recycle(&shared.pool);
            return;
        }
        self.last_time = Some(unit.time);
        let mut picture = decoded.picture;
        if !shared.applied.load().plan.is_in_place()
            && let Err(error) = picture.bring(&shared.pool)
        {
            tracing::trace!(session_id = shared.session_id, %error, "a frame is dropped");
            if error.is_full() {
                shared.metrics.no_host_buffer.increment(1);
            } else {
                self.decoder.give_up(&error);
                shared.metrics.undecodable.increment(1);
                shared.keyframe_needed.store(true, Ordering::Relaxed);
                shared.tell(Output::NeedKeyframe);
            }
            return;
        }
        let mut place = shared.place();
        let applied = shared.applied.load();
        let frame = Frame {
            id: self.next_id,
            picture,
            color: decoded.color,
            time: unit.time,
            arrival: unit.arrival,
            deadline: unit.arrival + shared.time_for_model(&applied),
            reorder_wait: unit.reorder_wait,
            decode_time: now.saturating_duration_since(unit.arrival + unit.reorder_wait),
            worked: now.duration_since(started),
            decoded_at: now,
        };
        self.next_id += 1;
        shared.traced.decoded(&frame, &applied.model_id, applied.options.budget_ms);
        if let Some(place) = place.as_mut() {
            hand_on(shared, &self.finish, &applied, place, frame);
        }
    }

    /// Whether a frame comes sooner after the last than `limits.fps` allows, jitter of a quarter apart.
    fn too_soon(&self, time: MediaTime) -> bool {
        self.last_time
            .is_some_and(|last| time.is_newer_than(last) && time.since(last).as_secs_f64() * self.shared.max_fps < 0.75)
    }
}

/// Hands a frame to the model, past it to be drawn, or both.
fn hand_on(shared: &Shared, finish: &Arc<Lane>, applied: &Applied, place: &mut Place, frame: Frame) {
    let is_between = place.retiring.is_some() && !shared.look_whether_moved(place);
    let Place { crew, orders, footing, .. } = &mut *place;
    let (rung, now, id) = (shared.rung_at(footing), frame.decoded_at, frame.id);
    let for_model = rung.infers(id) && (is_between || crew.choose(rung.smaller_input, shared.pending.is_empty()));
    let past = Past {
        shared,
        finish,
        footing,
        video: applied.gives_video(shared.takers()),
        predicted: applied.is_predicted(shared.takers()),
    };
    let returned = past.video && rung.returns(id);
    if past.video && !returned {
        shared.metrics.less_returned.increment(1);
    }
    // Where no video is returned, what the tracker says of a skipped frame is a result of its own. Without a tracker there
    // is nothing to say of a frame that a change of models leaves out.
    let tracks = applied.options.track;
    let filled_in = || !for_model && tracks && (returned || !past.video) && past.fills_in(&frame);
    let passes = if past.predicted { returned } else { filled_in() };
    if past.predicted && !passes {
        shared.unreturned.add(id);
    }
    let video = if past.predicted { passes } else { past.video && (for_model || passes) };
    shared.traced.goes(id, for_model || (passes && !past.predicted), video, past.predicted);
    if !for_model {
        Stats::count(&shared.stats.skipped);
        shared.metrics.skipped.increment(1);
        if passes {
            past.put(now, frame);
        } else {
            frame.picture.recycle(&shared.pool);
        }
        return;
    }
    if passes {
        past.put(now, frame.clone());
    }
    let frame = match shared.still.answer(frame, shared.pending.is_empty()) {
        Ok(inferred) => {
            shared.answer_again(inferred, &applied.model_id);
            finish.wake();
            return;
        }
        Err(frame) => frame,
    };
    shared.pending.add(id);
    if is_between {
        shared.hold(place, frame);
        return;
    }
    let Some(replaced) = crew.submit(frame, orders) else { return };
    shared.pending.remove(replaced.id);
    if replaced.id == id {
        // There is no model any more: the session, or the server, is about to end.
        shared.metrics.model_failed.increment(1);
        shared.traced.no_result(id, "model_failed");
        replaced.picture.recycle(&shared.pool);
        return;
    }
    Stats::count(&shared.stats.superseded);
    shared.metrics.superseded.increment(1);
    footing.tell(now, Sample::Superseded);
    if rung.fill_in && past.fills_in(&replaced) && (rung.returns(replaced.id) || !past.video) {
        past.put(now, replaced);
    } else {
        shared.traced.no_result(replaced.id, "superseded");
        replaced.picture.recycle(&shared.pool);
    }
}

/// The way past the model.
struct Past<'a> {
    shared: &'a Shared,
    finish: &'a Arc<Lane>,
    footing: &'a Footing,
    video: bool,
    predicted: bool,
}

impl Past<'_> {
    /// Whether there is time to have the tracker say what is in a frame, and to draw and encode that.
    fn fills_in(&self, frame: &Frame) -> bool {
        if !self.video {
            // Nothing is drawn, and saying it costs next to nothing.
            return true;
        }
        // Frames come in whole intervals: what is due by then is not left out for the next one.
        let least = Duration::from_secs_f32(0.75 / self.shared.load.spare().fps());
        self.shared.since_shown(frame.time).is_none_or(|since| since > least)
    }

    /// Has the tracker say what is in a frame, as soon as those ahead of it are answered.
    fn put(&self, now: Instant, frame: Frame) {
        let Self { shared, footing, video, predicted, .. } = *self;
        shared.pass(now, Passing { frame, tells: true }, footing, video, predicted);
        self.finish.wake();
    }
}

impl Shared {
    /// Has a frame drawn and returned without an answer of its model, as soon as those ahead of it are answered, if no newer
    /// one waits for that.
    pub(super) fn pass(&self, now: Instant, passing: Passing, footing: &Footing, video: bool, predicted: bool) {
        let id = passing.frame.id;
        self.shows(passing.frame.time);
        // A frame that waited for the model in vain may come after a newer one that did not.
        let dropped = match self.passing.peek(|waiting| waiting.frame.id > id) {
            Some(true) => Some(passing),
            _ => self.passing.put(passing),
        };
        if let Some(Passing { frame, .. }) = dropped {
            self.unreturned.add(frame.id);
            self.metrics.dropped_before_encode.increment(1);
            if predicted {
                self.traced.not_returned(frame.id, "superseded");
            } else {
                self.traced.dropped(frame.id, "superseded");
            }
            // One that still waited for the model was not held up by the encoder.
            if video && (predicted || frame.id < self.pending.oldest()) {
                footing.tell(now, Sample::NotReturned);
            }
            frame.picture.recycle(&self.pool);
        }
    }
}

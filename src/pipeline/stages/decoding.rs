use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use saccade_signaling::ReturnMode;

use super::{Applied, Output, Place, Shared};
use crate::clock;
use crate::decode::{self, Decoder};
use crate::degrade::Sample;
use crate::media::{EncodedFrame, Frame, MediaTime};
use crate::pipeline::ladders::Footing;
use crate::pipeline::stats::Stats;
use crate::pipeline::workers::{Lane, Step};
use crate::session::EndReason;

/// The first stage: decodes, and hands frames to the model, past it, or both.
pub(super) struct DecodeStage {
    shared: Arc<Shared>,
    decoder: Box<dyn Decoder>,
    finish: Arc<Lane>,
    next_id: u64,
    /// Pixels of the last frame.
    pixels: u32,
    /// RTP timestamp of the last frame that was let through.
    last_time: Option<MediaTime>,
}

impl DecodeStage {
    pub(super) fn new(shared: Arc<Shared>, decoder: Box<dyn Decoder>, finish: Arc<Lane>) -> Self {
        Self { shared, decoder, finish, next_id: 0, pixels: 0, last_time: None }
    }

    pub(super) fn step(&mut self) -> Step {
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

    fn submit(&mut self, unit: &EncodedFrame, decoded: decode::Decoded, started: Instant) {
        let shared = &self.shared;
        let now = clock::now();
        shared.metrics.decode.record(now.duration_since(started));
        shared.metrics.decoded.increment(1);
        Stats::count(&shared.stats.decoded);
        let (width, height) = (decoded.picture.width(), decoded.picture.height());
        shared.stats.set_resolution(width, height);
        let before = std::mem::replace(&mut self.pixels, width * height);
        if before != 0 && before != self.pixels {
            let factor = f64::from(self.pixels) / f64::from(before);
            shared.annotate_time.scale(factor);
            shared.encode_time.scale(factor);
        }
        shared.load.decoded(self.pixels, now.duration_since(started));
        shared.demand.received(now, self.pixels, unit.data.len());
        shared.tell(Output::Decoded);
        let place = shared.place();
        let applied = shared.applied.load();
        let frame = Frame {
            id: self.next_id,
            picture: decoded.picture,
            color: decoded.color,
            time: unit.time,
            arrival: unit.arrival,
            deadline: unit.arrival + shared.time_for_model(&applied.options),
            reorder_wait: unit.reorder_wait,
            decode_time: now.saturating_duration_since(unit.arrival + unit.reorder_wait),
            decoded_at: now,
        };
        self.next_id += 1;
        if self.too_soon(frame.time) {
            shared.metrics.over_rate.increment(1);
            shared.pool.give(frame.picture);
            return;
        }
        self.last_time = Some(frame.time);
        if let Some(place) = place.as_ref() {
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
fn hand_on(shared: &Shared, finish: &Arc<Lane>, applied: &Applied, place: &Place, frame: Frame) {
    let Place { crew, orders, footing } = place;
    let (rung, now) = (footing.rung(), frame.decoded_at);
    let for_model = frame.id.is_multiple_of(rung.infer_every.into());
    let video = applied.gives_video_back(shared.returns_video);
    let returned = video && frame.id.is_multiple_of(rung.return_every.into());
    let predicted = video && applied.options.return_mode == ReturnMode::Predicted;
    // Where no video is returned, what the tracker says of a skipped frame is a result of its own.
    let passes = if predicted { returned } else { !for_model && (returned || !video) };
    if predicted && !passes {
        shared.unreturned.add(frame.id);
    }
    if !for_model {
        Stats::count(&shared.stats.skipped);
        shared.metrics.skipped.increment(1);
        if passes {
            pass(shared, finish, footing, now, frame, predicted);
        } else {
            shared.pool.give(frame.picture);
        }
        return;
    }
    if passes {
        pass(shared, finish, footing, now, frame.clone(), predicted);
    }
    shared.pending.add(frame.id);
    if let Some(replaced) = crew.submit(frame, orders, rung.smaller_input) {
        shared.pending.remove(replaced.id);
        let superseded = Stats::count(&shared.stats.superseded);
        shared.metrics.superseded.increment(1);
        footing.tell(now, Sample::Superseded);
        let returned = replaced.id.is_multiple_of(rung.return_every.into());
        let filled_in = match rung.fill_one_in {
            0 => false,
            every => superseded.is_multiple_of(every.into()),
        };
        if filled_in && !predicted && (returned || !video) {
            pass(shared, finish, footing, now, replaced, predicted);
        } else {
            shared.pool.give(replaced.picture);
        }
    }
}

/// Has the tracker say what is in a frame, as soon as those ahead of it are answered.
fn pass(shared: &Shared, finish: &Arc<Lane>, footing: &Footing, now: Instant, frame: Frame, predicted: bool) {
    if let Some(replaced) = shared.passing.put(frame) {
        shared.unreturned.add(replaced.id);
        shared.metrics.dropped_before_encode.increment(1);
        // One that still waited for the model was not held up by the encoder.
        if predicted || replaced.id < shared.pending.oldest() {
            footing.tell(now, Sample::NotReturned);
        }
        shared.pool.give(replaced.picture);
    }
    finish.wake();
}

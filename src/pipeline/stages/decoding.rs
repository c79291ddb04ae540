use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::{Output, Place, Shared};
use crate::clock;
use crate::decode::{self, Decoder};
use crate::media::{EncodedFrame, Frame, MediaTime};
use crate::pipeline::stats::Stats;
use crate::pipeline::workers::Step;
use crate::session::EndReason;

/// The first stage: decodes, and hands frames to the model.
pub(super) struct DecodeStage {
    shared: Arc<Shared>,
    decoder: Box<dyn Decoder>,
    next_id: u64,
    /// RTP timestamp of the last frame that was let through.
    last_time: Option<MediaTime>,
}

impl DecodeStage {
    pub(super) fn new(shared: Arc<Shared>, decoder: Box<dyn Decoder>) -> Self {
        Self { shared, decoder, next_id: 0, last_time: None }
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
        shared.stats.set_resolution(decoded.picture.width(), decoded.picture.height());
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
        if let Some(Place { slot, params }) = place.as_ref()
            && let Some(replaced) = slot.submit(frame, Arc::clone(params))
        {
            Stats::count(&shared.stats.superseded);
            shared.metrics.superseded.increment(1);
            shared.pool.give(replaced.picture);
        }
    }

    /// Whether a frame comes sooner after the last than `limits.fps` allows, jitter of a quarter apart.
    fn too_soon(&self, time: MediaTime) -> bool {
        self.last_time
            .is_some_and(|last| time.is_newer_than(last) && time.since(last).as_secs_f64() * self.shared.max_fps < 0.75)
    }
}

use std::num::NonZero;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use metrics::{Gauge, gauge};

use super::estimate::Estimate;
use crate::annotate::{self, Annotator};
use crate::clock;
use crate::decode::{self, Decoder as _};
use crate::degrade::{Can, Rung};
use crate::encode::{self, Encoder as _};
use crate::infer;
use crate::media::{AnnouncedColor, Codec, EncodedFrame, FramePool, MediaTime, Rotation};
use crate::scene::Scene;

/// What sending and receiving one frame takes: packets, encryption, timers (`saccade bench`, 640x480 both ways).
const TRANSPORT: Duration = Duration::from_micros(1_200);
/// What a session is taken to send until it has shown.
const NOMINAL_PIXELS: u32 = 640 * 480;
const NOMINAL_FPS: f32 = 30.0;
/// Share of the processors that sessions may need at the top of the ladder, for one more to be admitted.
const FULL: f64 = 0.85;
/// The same after one was refused, so that admission does not flap.
const ROOM_AGAIN: f64 = 0.75;
/// How far up its ladder a model's sessions may be for one more to be admitted, after one was refused.
const CALM: f32 = 0.7;
/// How often the frame rate of a session is taken.
const PERIOD: Duration = Duration::from_secs(1);
/// Frames that [`Load::calibrate`] encodes and decodes.
const TRIAL_FRAMES: u64 = 10;

/// What sessions cost, and whether there is room for one more.
///
/// Stages tell what a megapixel takes them; the sessions, how many pixels come how often. The time of all of them
/// together is compared with what the processors have. Since each session can give something up, the comparison is
/// with what they would need at the top of their ladders: there is room while that can be kept.
#[derive(Debug)]
pub(super) struct Load {
    /// Time for a megapixel.
    decode: Estimate,
    /// Time for a megapixel, drawing included.
    encode: Estimate,
    cores: f64,
    sessions: Mutex<Sessions>,
    used: Gauge,
}

#[derive(Debug, Default)]
struct Sessions {
    demands: Vec<Weak<Demand>>,
    /// One was refused, and there has not been room since.
    refusing: bool,
}

/// What one session asks for.
#[derive(Debug)]
pub(super) struct Demand {
    pixels: AtomicU32,
    /// Frames in a thousand seconds.
    rate: AtomicU32,
    needs: Mutex<Needs>,
    counted: Mutex<Counted>,
}

/// What a session wants done with its frames.
#[derive(Debug, Clone)]
pub(super) struct Needs {
    /// The models that answer them.
    pub(super) models: Vec<Weak<infer::Model>>,
    /// What it can do without.
    pub(super) can: Can,
}

#[derive(Debug, Clone, Copy)]
struct Counted {
    since: Instant,
    frames: u32,
}

impl Load {
    /// Nothing is known yet; see [`Self::calibrate`].
    pub(super) fn new() -> Self {
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        Self {
            decode: Estimate::default(),
            encode: Estimate::default(),
            cores: cores as f64,
            sessions: Mutex::default(),
            used: gauge!("saccade_load_ratio"),
        }
    }

    /// Encodes and decodes a few frames of the sample scene, in a tenth of a second or so, for a first idea of what
    /// sessions will cost.
    pub(super) fn calibrate(&self) {
        let (width, height) = (640, 480);
        let scene = Scene::new(width, height, 30, 1);
        let config = encode::software::Config { bitrate_bps: 1_500_000, fps: 30.0 };
        let Ok(mut encoder) = encode::software::Software::new(Codec::H264, config) else { return };
        let pool = Arc::new(FramePool::new(1));
        let Ok(mut decoder) = decode::software::Software::new(Codec::H264, decode::Limits::default(), pool) else {
            return;
        };
        let mut annotator = Annotator::new();
        let time = MediaTime::default();
        for number in 0..TRIAL_FRAMES {
            let mut picture = scene.frame(number);
            let start = clock::now();
            annotator.draw(&mut picture, scene.color(), &annotate::Overlay::default());
            let time = time.after(Duration::from_secs(number) / 30);
            let Ok(Some(encoded)) = encoder.encode(&picture, scene.color(), time, false) else { return };
            let encoded_at = clock::now();
            let unit = EncodedFrame {
                codec: Codec::H264,
                data: encoded.data,
                time,
                keyframe: encoded.keyframe,
                rotation: Rotation::None,
                color: AnnouncedColor::default(),
                arrival: encoded_at,
                reorder_wait: Duration::ZERO,
            };
            if decoder.decode(&unit).is_err() {
                return;
            }
            // The first ones are of codecs that still set themselves up.
            if number >= TRIAL_FRAMES / 3 {
                self.encoded(width * height, encoded_at - start);
                self.decoded(width * height, clock::now() - encoded_at);
            }
        }
        let rate = |estimate: &Estimate| 1.0 / estimate.mean().as_secs_f64();
        let (decode, encode) = (rate(&self.decode), rate(&self.encode));
        tracing::info!(
            decode_mpixel_per_s = format!("{decode:.0}"),
            encode_mpixel_per_s = format!("{encode:.0}"),
            "what one processor does"
        );
    }

    /// A frame of so many pixels was decoded.
    pub(super) fn decoded(&self, pixels: u32, took: Duration) {
        self.decode.learn(per_megapixel(pixels, took));
    }

    /// A frame of so many pixels was drawn on and encoded.
    pub(super) fn encoded(&self, pixels: u32, took: Duration) {
        self.encode.learn(per_megapixel(pixels, took));
    }

    /// Admits a session if there is room for what it needs, now that the highest ladder is climbed so far.
    pub(super) fn admit(&self, now: Instant, needs: Needs, height: f32) -> Option<Arc<Demand>> {
        let demand = Arc::new(Demand::new(now, needs));
        let mut sessions = self.lock();
        let used = self.used(&mut sessions) + self.cost(&demand);
        let (room, calm) = if sessions.refusing { (ROOM_AGAIN, CALM) } else { (FULL, 1.0) };
        let first = sessions.demands.is_empty();
        // However little the machine can do, one session gets what there is.
        sessions.refusing = !first && (used > room * self.cores || height >= calm);
        if sessions.refusing {
            return None;
        }
        sessions.demands.push(Arc::downgrade(&demand));
        self.used.set(used / self.cores);
        Some(demand)
    }

    /// The same without a question.
    pub(super) fn enter(&self, now: Instant, needs: Needs) -> Arc<Demand> {
        let demand = Arc::new(Demand::new(now, needs));
        let mut sessions = self.lock();
        let used = self.used(&mut sessions) + self.cost(&demand);
        sessions.demands.push(Arc::downgrade(&demand));
        self.used.set(used / self.cores);
        demand
    }

    /// Processors that all sessions need at the top of their ladders.
    fn used(&self, sessions: &mut Sessions) -> f64 {
        let mut used = 0.0;
        sessions.demands.retain(|demand| {
            let demand = demand.upgrade();
            used += demand.as_ref().map_or(0.0, |demand| self.cost(demand));
            demand.is_some()
        });
        used
    }

    /// Processors that a session needs at the top of its ladder.
    fn cost(&self, demand: &Demand) -> f64 {
        let needs = demand.needs.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let megapixels = f64::from(demand.pixels.load(Ordering::Relaxed)) / 1e6;
        let rate = f64::from(demand.rate.load(Ordering::Relaxed)) / 1e3;
        let Rung { infer_every, return_every, half_size, .. } = Rung::TOP.within(needs.can);
        let models = needs.models.iter().filter_map(Weak::upgrade);
        let model: Duration = models.map(|model| model.estimate()).sum();
        let encode = if needs.can.return_less {
            let returned = if half_size { megapixels / 4.0 } else { megapixels };
            self.encode.mean().as_secs_f64() * returned / f64::from(return_every)
        } else {
            0.0
        };
        let decode = self.decode.mean().as_secs_f64() * megapixels;
        let frame = TRANSPORT.as_secs_f64() + decode + model.as_secs_f64() / f64::from(infer_every) + encode;
        rate * frame
    }

    fn lock(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Demand {
    fn new(now: Instant, needs: Needs) -> Self {
        Self {
            pixels: AtomicU32::new(NOMINAL_PIXELS),
            rate: AtomicU32::new((NOMINAL_FPS * 1e3) as u32),
            needs: Mutex::new(needs),
            counted: Mutex::new(Counted { since: now, frames: 0 }),
        }
    }

    /// Other options are in force.
    pub(super) fn set_needs(&self, needs: Needs) {
        *self.needs.lock().unwrap_or_else(PoisonError::into_inner) = needs;
    }

    /// A frame of so many pixels came.
    pub(super) fn count(&self, now: Instant, pixels: u32) {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        counted.frames += 1;
        let elapsed = now.saturating_duration_since(counted.since);
        if elapsed >= PERIOD {
            self.rate.store((counted.frames as f32 / elapsed.as_secs_f32() * 1e3) as u32, Ordering::Relaxed);
            self.pixels.store(pixels, Ordering::Relaxed);
            *counted = Counted { since: now, frames: 0 };
        }
    }
}

fn per_megapixel(pixels: u32, took: Duration) -> Duration {
    took.mul_f64(1e6 / f64::from(pixels.max(1)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const ALL: Needs = Needs { models: Vec::new(), can: Can { skip_inference: true, return_less: true } };

    /// Two processors; a megapixel takes 10 ms to decode and 40 ms to encode.
    fn load() -> Load {
        let load = Load { cores: 2.0, ..Load::new() };
        for _ in 0..200 {
            load.decoded(500_000, Duration::from_millis(5));
            load.encoded(1_000_000, Duration::from_millis(40));
        }
        load
    }

    fn sends(demand: &Demand, start: Instant, fps: u32, pixels: u32) {
        for frame in 1..=2 * fps {
            demand.count(start + Duration::from_secs(1) * frame / fps, pixels);
        }
    }

    #[test]
    fn sessions_are_admitted_until_even_the_least_of_them_would_not_fit() {
        let (load, now) = (load(), clock::now());
        let admitted: Vec<_> = std::iter::from_fn(|| load.admit(now, ALL, 0.0)).take(100).collect();
        // 1.2 + 3.1 + 1.0 ms for each of 30 frames.
        assert!((9..=12).contains(&admitted.len()), "{}", admitted.len());
        let small: Vec<_> = (0..20).map(|_| load.enter(now, ALL)).collect();
        drop(admitted);
        for demand in &small {
            sends(demand, now, 5, 160 * 120);
        }
        assert!(load.admit(now, ALL, 0.0).is_some(), "sessions cost what they send");
    }

    #[test]
    fn after_a_refusal_there_has_to_be_more_room_than_for_one() {
        let (load, now) = (load(), clock::now());
        let mut admitted: Vec<_> = std::iter::from_fn(|| load.admit(now, ALL, 0.0)).take(100).collect();
        admitted.pop();
        assert!(load.admit(now, ALL, 0.0).is_none());
        admitted.truncate(admitted.len() - 2);
        assert!(load.admit(now, ALL, 0.0).is_some());
    }

    #[test]
    fn nobody_is_admitted_while_the_others_are_at_the_top_of_their_ladder() {
        let (load, now) = (load(), clock::now());
        let first = load.admit(now, ALL, 1.0);
        assert!(first.is_some(), "the first one gets what there is");
        assert!(load.admit(now, ALL, 1.0).is_none());
        assert!(load.admit(now, ALL, 0.9).is_none());
        assert!(load.admit(now, ALL, 0.5).is_some());
    }

    #[test]
    fn a_trial_finds_out_what_codecs_take() {
        let load = Load::new();
        load.calibrate();
        assert!(load.decode.mean() > Duration::ZERO && load.encode.mean() > load.decode.mean() / 10);
    }
}

use std::num::NonZero;
use std::ops::Add;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use metrics::{Gauge, gauge};

use super::spare::Spare;
use super::trial::{Codecs, TRANSPORT, per_megapixel};
use crate::degrade::{Can, Rung};
use crate::estimate::Average;
use crate::infer;

/// What a session is taken to send until it has shown.
const NOMINAL_PIXELS: u32 = 640 * 480;
const NOMINAL_FPS: f32 = 30.0;
/// Likewise, and to be sent, in bits a second.
const NOMINAL_BPS: u64 = 1_500_000;
/// Headers of RTP, SRTP, UDP and IP, retransmissions and reports, beside the video itself.
const OVERHEAD: f64 = 1.1;
/// Share of the processors, or of the network, that sessions may need at the top of the ladder, for one more to be
/// admitted.
const FULL: f64 = 0.85;
/// The same after one was refused, so that admission does not flap.
const ROOM_AGAIN: f64 = 0.75;
/// How far up its ladder a model's sessions may be for one more to be admitted, after one was refused.
const CALM: f32 = 0.7;
/// Frames that were due in a gap, from which on it is a pause and says nothing of the rate.
const PAUSE: f64 = 10.0;
/// How often the rates of a session are taken.
const PERIOD: Duration = Duration::from_secs(1);

/// What sessions cost, and whether there is room for one more.
///
/// Stages tell what a megapixel takes them; the sessions, how many pixels and bytes come how often. The time of all of
/// them together is compared with what the processors have, and their bits with what the network carries. Since each
/// session can give something up, the comparison of time is with what they would need at the top of their ladders: there
/// is room while that can be kept.
#[derive(Debug)]
pub(super) struct Load {
    /// Time for a megapixel.
    decode: Average,
    /// Time for a megapixel, drawing included.
    encode: Average,
    /// What both were on an idle machine.
    codecs: Codecs,
    cores: f64,
    /// Bits a second in each direction, if that is known.
    network: Option<f64>,
    spare: Spare,
    sessions: Mutex<Sessions>,
    gauges: [Gauge; 2],
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
    /// Bits a second.
    received: AtomicU64,
    /// Likewise.
    sent: AtomicU64,
    /// Bytes of returned video since [`Counted::since`].
    returned: AtomicU64,
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

#[derive(Debug, Clone, Copy, Default)]
struct Counted {
    /// Since the first frame, and then since the last count.
    since: Option<Instant>,
    last: Option<Instant>,
    frames: u32,
    bytes: u64,
}

/// What is in use, or would be.
#[derive(Debug, Clone, Copy, Default)]
struct Use {
    processors: f64,
    /// Bits a second.
    received: f64,
    sent: f64,
}

impl Load {
    /// With what the codecs were measured to take, and a network that carries so many bits a second each way.
    pub(super) fn new(codecs: &Codecs, network: Option<u64>) -> Self {
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        gauge!("saccade_processors").set(cores as f64);
        let gauge = |resource| gauge!("saccade_load_ratio", "resource" => resource);
        Self {
            decode: Average::new(codecs.decode()),
            encode: Average::new(codecs.encode()),
            codecs: codecs.clone(),
            cores: cores as f64,
            network: network.map(|bps| bps as f64),
            spare: Spare::new(),
            sessions: Mutex::default(),
            gauges: [gauge("processors"), gauge("network")],
        }
    }

    /// What is left for frames that the tracker fills in.
    pub(super) const fn spare(&self) -> &Spare {
        &self.spare
    }

    /// A frame of so many pixels was decoded.
    pub(super) fn decoded(&self, pixels: u32, took: Duration) {
        self.decode.update(per_megapixel(pixels, took));
    }

    /// A frame of so many pixels was drawn on and encoded.
    pub(super) fn encoded(&self, pixels: u32, took: Duration) {
        self.encode.update(per_megapixel(pixels, took));
    }

    /// What a frame of so many pixels takes outside its model while nothing else is done; `encoded`: drawn on and sent
    /// back, too.
    pub(super) fn least(&self, pixels: u32, encoded: bool) -> Duration {
        let megapixel = self.codecs.decode() + if encoded { self.codecs.encode() } else { Duration::ZERO };
        TRANSPORT + megapixel.mul_f64(f64::from(pixels) / 1e6)
    }

    /// Admits a session if there is room for what it needs, now that the ladder of its model is climbed so far.
    pub(super) fn admit(&self, needs: Needs, height: f32) -> Option<Arc<Demand>> {
        let demand = Arc::new(Demand::new(needs));
        let mut sessions = self.lock();
        let used = self.shares(self.used(&mut sessions) + self.cost(&demand));
        let (room, calm) = if sessions.refusing { (ROOM_AGAIN, CALM) } else { (FULL, 1.0) };
        let first = sessions.demands.is_empty();
        // However little the machine can do, one session gets what there is.
        sessions.refusing = !first && (used.iter().any(|share| *share > room) || height >= calm);
        if sessions.refusing {
            return None;
        }
        sessions.demands.push(Arc::downgrade(&demand));
        Some(demand)
    }

    /// The same without a question.
    pub(super) fn enter(&self, needs: Needs) -> Arc<Demand> {
        let demand = Arc::new(Demand::new(needs));
        self.lock().demands.push(Arc::downgrade(&demand));
        demand
    }

    /// Shows in the metrics what is in use now.
    pub(super) fn show(&self) {
        let used = self.used(&mut self.lock());
        for (gauge, share) in self.gauges.iter().zip(self.shares(used)) {
            gauge.set(share);
        }
    }

    /// Shares of the processors and of the network.
    fn shares(&self, used: Use) -> [f64; 2] {
        let network = self.network.map_or(0.0, |bps| used.received.max(used.sent) / bps);
        [used.processors / self.cores, network]
    }

    /// What all sessions need at the top of their ladders.
    fn used(&self, sessions: &mut Sessions) -> Use {
        let mut used = Use::default();
        sessions.demands.retain(|demand| {
            let demand = demand.upgrade();
            used = used + demand.as_ref().map_or_else(Use::default, |demand| self.cost(demand));
            demand.is_some()
        });
        used
    }

    /// What a session needs at the top of its ladder.
    fn cost(&self, demand: &Demand) -> Use {
        let needs = demand.needs.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let megapixels = f64::from(demand.pixels.load(Ordering::Relaxed)) / 1e6;
        let rate = f64::from(demand.rate.load(Ordering::Relaxed)) / 1e3;
        let Rung { infer_every, return_every, half_size, .. } = Rung::TOP.within(needs.can);
        // What other servers run takes nothing of these processors.
        let models = needs.models.iter().filter_map(Weak::upgrade).filter(|model| model.remote().is_none());
        let model: Duration = models.map(|model| model.estimate()).sum();
        let encode = if needs.can.return_less {
            let returned = if half_size { megapixels / 4.0 } else { megapixels };
            self.encode.get().as_secs_f64() * returned / f64::from(return_every)
        } else {
            0.0
        };
        let decode = self.decode.get().as_secs_f64() * megapixels;
        let frame = TRANSPORT.as_secs_f64() + decode + model.as_secs_f64() / f64::from(infer_every) + encode;
        let bits = |bps: &AtomicU64| OVERHEAD * bps.load(Ordering::Relaxed) as f64;
        Use {
            processors: rate * frame,
            received: bits(&demand.received),
            sent: if needs.can.return_less { bits(&demand.sent) } else { 0.0 },
        }
    }

    fn lock(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Add for Use {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            processors: self.processors + other.processors,
            received: self.received + other.received,
            sent: self.sent + other.sent,
        }
    }
}

impl Demand {
    fn new(needs: Needs) -> Self {
        Self {
            pixels: AtomicU32::new(NOMINAL_PIXELS),
            rate: AtomicU32::new((NOMINAL_FPS * 1e3) as u32),
            received: AtomicU64::new(NOMINAL_BPS),
            sent: AtomicU64::new(NOMINAL_BPS),
            returned: AtomicU64::new(0),
            needs: Mutex::new(needs),
            counted: Mutex::default(),
        }
    }

    /// Other options are in force.
    pub(super) fn set_needs(&self, needs: Needs) {
        *self.needs.lock().unwrap_or_else(PoisonError::into_inner) = needs;
    }

    /// A frame of so many pixels came in so many bytes.
    pub(super) fn received(&self, now: Instant, pixels: u32, bytes: usize) {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let gap = counted.last.replace(now).map_or(Duration::ZERO, |last| now.saturating_duration_since(last));
        let rate = f64::from(self.rate.load(Ordering::Relaxed)) / 1e3;
        if gap.as_secs_f64() * rate > PAUSE {
            // It comes back as fast as before, or else it is halved again and again until it is right.
            self.rate.store((rate * 500.0) as u32, Ordering::Relaxed);
            counted.since = None;
        }
        let Some(since) = counted.since else {
            (counted.since, counted.frames, counted.bytes) = (Some(now), 0, 0);
            self.returned.store(0, Ordering::Relaxed);
            return;
        };
        counted.frames += 1;
        counted.bytes += bytes as u64;
        let elapsed = now.saturating_duration_since(since);
        if elapsed >= PERIOD {
            let per_s = |count: f64| count / elapsed.as_secs_f64();
            self.rate.store(per_s(f64::from(counted.frames) * 1e3) as u32, Ordering::Relaxed);
            self.pixels.store(pixels, Ordering::Relaxed);
            self.received.store(per_s(counted.bytes as f64 * 8.0) as u64, Ordering::Relaxed);
            let returned = self.returned.swap(0, Ordering::Relaxed);
            self.sent.store(per_s(returned as f64 * 8.0) as u64, Ordering::Relaxed);
            (counted.since, counted.frames, counted.bytes) = (Some(now), 0, 0);
        }
    }

    /// A frame went back in so many bytes.
    pub(super) fn returned(&self, bytes: usize) {
        self.returned.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::clock;

    const ALL: Needs =
        Needs { models: Vec::new(), can: Can { skip_inference: true, fill_in: true, return_less: true } };

    /// Two processors; a megapixel takes 10 ms to decode and 40 ms to encode.
    fn load() -> Load {
        let load = Load { cores: 2.0, ..Load::new(&Codecs::unknown(2), None) };
        for _ in 0..1_000 {
            load.decoded(500_000, Duration::from_millis(5));
            load.encoded(1_000_000, Duration::from_millis(40));
        }
        load
    }

    /// For two seconds, 2 kB a frame, and 1 kB comes back.
    fn sends(demand: &Demand, start: Instant, fps: u32, pixels: u32) {
        for frame in 0..=2 * fps {
            demand.returned(1_000);
            demand.received(start + Duration::from_secs(1) * frame / fps, pixels, 2_000);
        }
    }

    #[test]
    fn sessions_are_admitted_until_even_the_least_of_them_would_not_fit() {
        let (load, now) = (load(), clock::now());
        let admitted: Vec<_> = std::iter::from_fn(|| load.admit(ALL, 0.0)).take(100).collect();
        // 1.2 + 3.1 + 1.0 ms for each of 30 frames.
        assert!((9..=12).contains(&admitted.len()), "{}", admitted.len());
        let small: Vec<_> = (0..20).map(|_| load.enter(ALL)).collect();
        drop(admitted);
        for demand in &small {
            sends(demand, now, 5, 160 * 120);
        }
        assert!(load.admit(ALL, 0.0).is_some(), "sessions cost what they send");
    }

    #[test]
    fn after_a_refusal_there_has_to_be_more_room_than_for_one() {
        let load = load();
        let mut admitted: Vec<_> = std::iter::from_fn(|| load.admit(ALL, 0.0)).take(100).collect();
        admitted.pop();
        assert!(load.admit(ALL, 0.0).is_none());
        admitted.truncate(admitted.len() - 2);
        assert!(load.admit(ALL, 0.0).is_some());
    }

    #[test]
    fn nobody_is_admitted_while_the_others_are_at_the_top_of_their_ladder() {
        let load = load();
        let first = load.admit(ALL, 1.0);
        assert!(first.is_some(), "the first one gets what there is");
        assert!(load.admit(ALL, 1.0).is_none());
        assert!(load.admit(ALL, 0.9).is_none());
        assert!(load.admit(ALL, 0.5).is_some());
    }

    #[test]
    fn what_the_network_carries_bounds_sessions_however_fast_the_processors_are() {
        let load = Load { cores: 1_000.0, network: Some(20e6), ..load() };
        let now = clock::now();
        let admitted: Vec<_> = std::iter::from_fn(|| load.admit(ALL, 0.0)).take(100).collect();
        assert_eq!(admitted.len(), 10, "1.65 of 17 Mbit/s each");
        for demand in &admitted {
            sends(demand, now, 30, NOMINAL_PIXELS);
        }
        let again: Vec<_> = std::iter::from_fn(|| load.admit(ALL, 0.0)).take(100).collect();
        assert_eq!(again.len(), 7, "the first ten send 0.53 Mbit/s each");
        let [_, network] = load.shares(load.used(&mut load.lock()));
        assert!((0.84..0.85).contains(&network), "{network}");
    }

    #[test]
    fn neither_the_wait_for_the_first_frame_nor_a_pause_counts_as_a_low_rate() {
        let (load, now) = (load(), clock::now());
        let demand = load.enter(ALL);
        let rate = || demand.rate.load(Ordering::Relaxed);
        let at = |ms| now + Duration::from_millis(ms);
        demand.received(at(5_000), NOMINAL_PIXELS, 2_000);
        assert_eq!(rate(), 30_000);
        sends(&demand, at(5_030), 15, NOMINAL_PIXELS);
        assert!((14_500..15_500).contains(&rate()), "{}", rate());
        demand.received(at(60_000), NOMINAL_PIXELS, 2_000);
        assert!(rate() > 7_000, "{}", rate());
        sends(&demand, at(60_060), 15, NOMINAL_PIXELS);
        assert!((14_500..15_500).contains(&rate()), "{}", rate());
        (0..10).for_each(|frame| demand.received(at(100_000 + 5_000 * frame), NOMINAL_PIXELS, 2_000));
        assert!((190..210).contains(&rate()), "a camera that sends a frame each five seconds: {}", rate());
    }

    #[test]
    fn admission_goes_by_what_frames_cost_on_the_whole() {
        let load = load();
        for frame in 0..1_000 {
            load.encoded(1_000_000, Duration::from_millis(if frame % 4 == 0 { 2 } else { 20 }));
        }
        assert!(load.encode.get() > Duration::from_millis(13), "{:?}", load.encode);
    }
}

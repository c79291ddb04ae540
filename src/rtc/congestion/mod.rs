//! How many bits a second the path to a peer carries, and how many may be under way.
//!
//! What enters: packets as they are sent, and what the receiver reports of them (transport-wide congestion control
//! feedback, draft-holmer-rmcat-transport-wide-cc-extensions). What leaves: a rate to send at, and whether the path has
//! room for another frame. Pure: it is told the time, and it must not know of encoders or of the stack.
//!
//! The sign of congestion is the queue on the path: by how much packets take longer than the fastest ones of late did.
//! That bounds what a viewer sees, latency, where a trend of delays (draft-ietf-rmcat-gcc) bounds only its growth. While
//! there is a queue, the rate is what arrives, less what lets the queue run empty. Without one, the rate grows: at first
//! twofold a second, later slowly near the rate at which there last was a queue, and faster and faster beyond it, as
//! CUBIC does (RFC 9438), so that a path that has become wide again is used within seconds. Loss alone lowers the rate
//! only where it is too much for a lossy radio link, and not below what TCP would get from it.

mod delay;
mod delivery;
mod flight;
#[cfg(test)]
mod simulation;

use std::time::{Duration, Instant};

use self::delay::QueueDelay;
use self::delivery::Delivery;
pub(super) use self::flight::{Flight, Missing};

/// Standing queue from which on there is congestion.
const OVER: Duration = Duration::from_millis(50);
/// Standing queue below which there is room to grow.
const CALM: Duration = Duration::from_millis(25);
/// Queue from which on the rate goes down to half of what arrives.
const DEEP: Duration = Duration::from_millis(500);
/// Share of what arrives that is sent while there is a small queue, and while there is a deep one.
const BACK_OFF: [f64; 2] = [0.85, 0.5];
/// A queue is new for so long.
const NEW: Duration = Duration::from_millis(500);
/// After congestion, the rate is held for so long.
const HOLD: Duration = Duration::from_millis(300);
/// The longest step that growth takes at once.
const LONGEST_STEP: Duration = Duration::from_millis(250);

/// Growth a second, as an exponent of e: before the first congestion; up to near the rate of the last one; near it.
const FIRST_GROWTH: f64 = std::f64::consts::LN_2;
const GROWTH_BELOW: f64 = 0.25;
const GROWTH_NEAR: f64 = 0.06;
/// Beyond it: to begin with, more for each second, at most.
const GROWTH_BEYOND: [f64; 3] = [0.10, 0.10, 0.60];
/// Shares of the rate of the last congestion between which the rate is near it.
const NEAR: [f64; 2] = [0.9, 1.15];

/// Loss from which on the rate grows at half the pace; is held; goes down.
const LOSS: [f64; 3] = [0.02, 0.05, 0.10];
/// The rate goes down for loss at most this often.
const LOSS_INTERVAL: Duration = Duration::from_millis(300);
/// Size of a packet and time for a round trip in the least that a lossy path is given.
const PACKET_BITS: f64 = 9_600.0;

/// Bounds of the rate, in bits a second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Config {
    /// Before anything is known.
    pub(super) start: f64,
    /// Never less.
    pub(super) min: f64,
    /// Never more.
    pub(super) max: f64,
}

/// What the receiver says of one packet.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Report {
    /// When it was sent.
    pub(super) sent: Instant,
    /// When it arrived, by the receiver's clock, if that is told.
    pub(super) arrival: Option<Duration>,
    /// It did not arrive.
    pub(super) is_lost: bool,
    /// Size in bytes, with RTP header.
    pub(super) bytes: usize,
}

/// The controller of one path. See the [module](self).
#[derive(Debug)]
pub(super) struct Controller {
    config: Config,
    rate: f64,
    delay: QueueDelay,
    delivery: Delivery,
    queue: Duration,
    loss: Loss,
    /// What arrived when there last was congestion; nothing before the first.
    ceiling: Option<f64>,
    congested_at: Option<Instant>,
    /// There was a queue when the last report came.
    is_over: bool,
    /// Since when.
    over_since: Option<Instant>,
    /// When the rate left the neighbourhood of the ceiling upwards.
    beyond_since: Option<Instant>,
    updated_at: Option<Instant>,
    loss_answered_at: Option<Instant>,
    /// Shortest time from sending a packet to its report.
    round_trip: Option<Duration>,
}

impl Controller {
    pub(super) fn new(config: Config) -> Self {
        Self {
            config,
            rate: config.start.clamp(config.min, config.max),
            delay: QueueDelay::default(),
            delivery: Delivery::default(),
            queue: Duration::ZERO,
            loss: Loss::default(),
            ceiling: None,
            congested_at: None,
            is_over: false,
            over_since: None,
            beyond_since: None,
            updated_at: None,
            loss_answered_at: None,
            round_trip: None,
        }
    }

    /// Bits a second to send at.
    pub(super) const fn rate(&self) -> f64 {
        self.rate
    }

    /// Shortest time from sending a packet to its report, once there was one.
    pub(super) const fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    /// How long the last packets waited on their way.
    pub(super) const fn queue(&self) -> Duration {
        self.queue
    }

    /// Takes a feedback message's packets, in the order in which they were sent.
    pub(super) fn handle_reports(&mut self, now: Instant, reports: &[Report]) {
        let Some(newest) = reports.last() else { return };
        let trip = now.saturating_duration_since(newest.sent);
        self.round_trip = Some(self.round_trip.map_or(trip, |shortest| shortest.min(trip)));
        for report in reports {
            self.loss.add(report.is_lost);
            if let Some(arrival) = report.arrival {
                self.delivery.add(arrival, report.bytes);
                self.delay.add(report.sent, arrival);
            }
        }
        let queue = self.delay.look(now);
        self.queue = queue.unwrap_or_default();
        match queue {
            Some(queue) if queue > OVER => self.back_off(now, queue),
            Some(_) => self.proceed(now, queue.is_none_or(|queue| queue < CALM)),
            None => {}
        }
        self.answer_loss(now);
        self.rate = self.rate.clamp(self.config.min, self.config.max);
        self.updated_at = Some(now);
    }

    fn back_off(&mut self, now: Instant, queue: Duration) {
        self.congested_at = Some(now);
        self.beyond_since = None;
        let Some(mut arriving) = self.delivery.rate() else { return };
        if !self.is_over {
            self.over_since = Some(now);
        }
        // The longer window still holds what came before the queue did.
        if self.over_since.is_some_and(|since| now < since + NEW)
            && let Some(of_queue) = self.delivery.rate_of_queue()
        {
            arriving = arriving.min(of_queue);
        }
        let depth = ((queue.as_secs_f64() - OVER.as_secs_f64()) / (DEEP - OVER).as_secs_f64()).clamp(0.0, 1.0);
        let share = BACK_OFF[0] + (BACK_OFF[1] - BACK_OFF[0]) * depth;
        self.rate = self.rate.min(arriving * share);
        self.ceiling = Some(match self.ceiling {
            Some(ceiling) if self.is_over => ceiling.min(arriving),
            _ => arriving,
        });
        self.is_over = true;
    }

    fn proceed(&mut self, now: Instant, calm: bool) {
        if std::mem::take(&mut self.is_over)
            && let Some(ceiling) = self.ceiling
        {
            // The queue has run empty; what went lower to empty it comes back.
            self.rate = self.rate.max(ceiling * BACK_OFF[0]);
        }
        let held = self.congested_at.is_some_and(|at| now < at + HOLD);
        let loss = self.loss.share();
        if !calm || held || loss >= LOSS[1] {
            return;
        }
        let step = self.updated_at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at)).min(LONGEST_STEP);
        let pace = if loss >= LOSS[0] { 0.5 } else { 1.0 };
        let grown = self.rate * (self.growth(now) * pace * step.as_secs_f64()).exp();
        // Where little is sent, that it arrives says little.
        let shown = self.delivery.rate().map_or(self.rate, |arriving| arriving.mul_add(2.0, 100_000.0));
        self.rate = grown.min(self.rate.max(shown));
    }

    /// Growth a second, as an exponent of e.
    fn growth(&mut self, now: Instant) -> f64 {
        let Some(ceiling) = self.ceiling else { return FIRST_GROWTH };
        if self.rate < ceiling * NEAR[0] {
            return GROWTH_BELOW;
        }
        if self.rate < ceiling * NEAR[1] {
            return GROWTH_NEAR;
        }
        let since = now.saturating_duration_since(*self.beyond_since.get_or_insert(now));
        let [first, more, most] = GROWTH_BEYOND;
        (more.mul_add(since.as_secs_f64(), first)).min(most)
    }

    fn answer_loss(&mut self, now: Instant) {
        let loss = self.loss.share();
        if loss < LOSS[2] || self.loss_answered_at.is_some_and(|at| now < at + LOSS_INTERVAL) {
            return;
        }
        self.loss_answered_at = Some(now);
        // What TCP gets at this loss (Mathis et al., "The Macroscopic Behavior of the TCP Congestion Avoidance Algorithm",
        // 1997): no less is fair.
        let trip = self.round_trip.unwrap_or(HOLD).as_secs_f64().max(0.01);
        let fair = PACKET_BITS / trip * (1.5 / loss).sqrt();
        self.rate = self.rate.min((self.rate * 0.5f64.mul_add(-loss, 1.0)).max(fair));
    }
}

/// Share of packets that are lost, over about the last hundred.
#[derive(Debug, Default)]
struct Loss(f64);

impl Loss {
    const WEIGHT: f64 = 0.02;

    fn add(&mut self, lost: bool) {
        self.0 += (f64::from(u8::from(lost)) - self.0) * Self::WEIGHT;
    }

    const fn share(&self) -> f64 {
        self.0
    }
}

use std::time::{Duration, Instant};

/// The shortest delay is that of the last one to two of these. It is long enough that a queue of our own runs empty in
/// between, and short enough for clocks that drift apart: 50 parts in a million are half a millisecond.
const WINDOW: Duration = Duration::from_secs(10);
/// Packets sent within so long are one burst: the first of them finds the queue that is there, the others their own.
const BURST: Duration = Duration::from_millis(5);
/// What so many packets in a row find, each waiting no less than the one before, is a queue even within a burst, if it is
/// so long.
const ROW: usize = 3;
const LONG: f64 = 0.06;
/// A delay that has stayed for so long while less was sent is no queue of ours, but the way itself.
const SETTLED: Duration = Duration::from_secs(2);
/// It has stayed when its least is this share of its most.
const STEADY: f64 = 0.7;

/// How long packets wait on their way, in a queue that does not run empty.
///
/// The clocks of the two ends have nothing to do with each other, so that only differences of delays mean anything: the
/// fastest packet of late is taken for one that found no queue.
#[derive(Debug, Default)]
pub(super) struct QueueDelay {
    /// What both clocks are counted from: the first packet.
    origin: Option<(Instant, Duration)>,
    shortest: WindowedMin,
    /// When the last burst began, and the fastest packets of it and of the one before.
    bursts: Option<(Instant, [f64; 2])>,
    /// The last packets, the newest first.
    last: [f64; ROW],
    is_new: bool,
    queue: Option<Duration>,
    persistent: Option<Persistent>,
}

/// A queue that is there at every look.
#[derive(Debug, Clone, Copy)]
struct Persistent {
    since: Instant,
    least: f64,
    most: f64,
}

impl QueueDelay {
    /// A packet's times, each by the clock of its end.
    pub(super) fn add(&mut self, sent: Instant, arrival: Duration) {
        let (first_sent, first_arrival) = *self.origin.get_or_insert((sent, arrival));
        let delay = seconds(arrival, first_arrival) - signed_since(sent, first_sent);
        self.bursts = Some(match self.bursts {
            None => (sent, [delay; 2]),
            Some((began, [fastest, before])) if sent < began + BURST => (began, [fastest.min(delay), before]),
            Some((_, [before, _])) => (sent, [delay, before]),
        });
        if !self.is_new && self.queue.is_none() {
            self.last = [delay; ROW];
        }
        self.last.rotate_right(1);
        self.last[0] = delay;
        self.is_new = true;
    }

    /// The queue that the last packets saw; nothing before the first ones.
    pub(super) fn look(&mut self, now: Instant) -> Option<Duration> {
        let Some((_, bursts)) = self.bursts.filter(|_| std::mem::take(&mut self.is_new)) else { return self.queue };
        let found = bursts[0].min(bursts[1]);
        let shortest = self.shortest.add(now, found);
        let mut queue = found - shortest;
        if self.last.is_sorted_by(|newer, older| newer >= older) && self.last[0] - shortest > LONG {
            queue = self.last[0] - shortest;
        }
        if queue > super::OVER.as_secs_f64() {
            let kept = self.persistent.get_or_insert(Persistent { since: now, least: queue, most: queue });
            (kept.least, kept.most) = (kept.least.min(queue), kept.most.max(queue));
            if now >= kept.since + SETTLED {
                if kept.least > kept.most * STEADY {
                    self.shortest = WindowedMin::default();
                    self.shortest.add(now, found);
                    queue = 0.0;
                }
                self.persistent = None;
            }
        } else {
            self.persistent = None;
        }
        self.queue = Some(Duration::from_secs_f64(queue.max(0.0)));
        self.queue
    }
}

/// The least value of the last one to two [`WINDOW`]s.
#[derive(Debug, Default)]
struct WindowedMin {
    current: Option<(Instant, f64)>,
    previous: Option<f64>,
}

impl WindowedMin {
    /// Takes a value and says which is the least.
    fn add(&mut self, now: Instant, value: f64) -> f64 {
        let (since, least) = match self.current {
            Some((since, least)) if now < since + WINDOW => (since, least.min(value)),
            Some((_, least)) => {
                self.previous = Some(least);
                (now, value)
            }
            None => (now, value),
        };
        self.current = Some((since, least));
        self.previous.map_or(least, |previous| previous.min(least))
    }
}

fn seconds(later: Duration, earlier: Duration) -> f64 {
    later.as_secs_f64() - earlier.as_secs_f64()
}

fn signed_since(later: Instant, earlier: Instant) -> f64 {
    match later.checked_duration_since(earlier) {
        Some(since) => since.as_secs_f64(),
        None => -earlier.duration_since(later).as_secs_f64(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds packets 10 ms apart whose delay is what `delay` says of the time, and looks after each tenth.
    fn queues(seconds: u64, delay: impl Fn(f64) -> f64) -> Vec<f64> {
        let start = crate::clock::now();
        let mut queue = QueueDelay::default();
        let mut seen = Vec::new();
        for index in 0..seconds * 100 {
            let at = Duration::from_millis(index * 10);
            let arrival = Duration::from_secs(1_000) + at + Duration::from_secs_f64(delay(at.as_secs_f64()));
            queue.add(start + at, arrival);
            if index % 10 == 9 {
                seen.extend(queue.look(start + at).map(|queue| queue.as_secs_f64()));
            }
        }
        seen
    }

    #[test]
    fn the_fastest_packet_finds_no_queue() {
        assert!(queues(30, |at| 0.04 + (at * 37.0).sin() * 0.01).iter().all(|queue| *queue < 0.02));
    }

    #[test]
    fn a_growing_queue_is_seen_as_it_grows() {
        let seen = queues(2, |at| 0.02 + at * 0.2);
        assert!((seen.last().copied().unwrap_or_default() - 0.36).abs() < 0.03, "{seen:?}");
    }

    #[test]
    fn a_longer_way_is_no_queue_for_long() {
        let seen = queues(10, |at| if at < 3.0 { 0.02 } else { 0.12 });
        let over = seen.iter().filter(|queue| **queue > 0.05).count();
        assert!((15..30).contains(&over), "{over} looks of 100 saw a queue");
        assert!(seen.last().is_some_and(|queue| *queue < 0.01), "{seen:?}");
    }

    #[test]
    fn clocks_that_drift_apart_make_no_queue() {
        assert!(queues(120, |at| 0.02 + at * 100e-6).iter().all(|queue| *queue < 0.005));
    }
}

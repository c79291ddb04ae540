use std::collections::VecDeque;
use std::time::Duration;

/// What arrives is counted over so long: several frames, and soon over after a change.
const WINDOW: Duration = Duration::from_millis(400);
/// Likewise while there is a queue: a few packets on a slow path.
const QUEUE_WINDOW: Duration = Duration::from_millis(150);
/// Farther back than packets overtake each other: the receiver's clock was set, or has wrapped around, as feedback's 24 bits
/// of 64 ms do every twelve days.
const RESTARTED: Duration = Duration::from_secs(5);
/// Packets that are kept at most; more than so many in a window are counted over the time that they took.
const KEPT: usize = 1_024;

/// Bits a second that arrive, by the receiver's clock.
#[derive(Debug, Default)]
pub(super) struct Delivery {
    packets: VecDeque<(Duration, usize)>,
    bytes: usize,
    /// When the first packet of all came.
    first: Option<Duration>,
}

impl Delivery {
    /// A packet of this size has arrived. Older ones than those that are known already are counted with the newest.
    pub(super) fn add(&mut self, arrival: Duration, bytes: usize) {
        if self.packets.back().is_some_and(|(newest, _)| arrival + RESTARTED < *newest) {
            *self = Self::default();
        }
        self.first.get_or_insert(arrival);
        let arrival = self.packets.back().map_or(arrival, |(newest, _)| arrival.max(*newest));
        self.packets.push_back((arrival, bytes));
        self.bytes += bytes;
        while let Some((oldest, bytes)) = self.packets.front().copied()
            && (self.packets.len() > KEPT || oldest + WINDOW <= arrival)
        {
            self.packets.pop_front();
            self.bytes -= bytes;
        }
    }

    /// Bits a second; nothing before a window is full.
    pub(super) fn rate(&self) -> Option<f64> {
        let ((oldest, _), (newest, _)) = (self.packets.front()?, self.packets.back()?);
        if newest.saturating_sub(self.first?) < WINDOW {
            return None;
        }
        let over = if self.packets.len() == KEPT { *newest - *oldest } else { WINDOW };
        Some(bits_a_second(self.bytes, over))
    }

    /// The same over a shorter time, which means something only while packets come one after the other from a queue.
    pub(super) fn rate_of_queue(&self) -> Option<f64> {
        let (newest, _) = *self.packets.back()?;
        let mut last = self.packets.iter().rev().take_while(|(arrival, _)| *arrival + QUEUE_WINDOW > newest);
        // The first packet's bits came before it.
        let (mut oldest, mut bytes, mut first_bytes) = (newest, 0, 0);
        for (arrival, size) in &mut last {
            (oldest, first_bytes) = (*arrival, *size);
            bytes += size;
        }
        (newest > oldest).then(|| bits_a_second(bytes - first_bytes, newest - oldest))
    }
}

fn bits_a_second(bytes: usize, over: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    let bits = bytes as f64 * 8.0;
    bits / over.as_secs_f64().max(0.001)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_moments() {
        let mut delivery = Delivery::default();
        for index in 0..100u64 {
            delivery.add(Duration::from_millis(index * 10), 1_250);
            assert_eq!(delivery.rate().is_some(), index >= 40, "{index}");
        }
        assert!((delivery.rate().unwrap_or_default() - 1e6).abs() < 1e3);
        for index in 100..140u64 {
            delivery.add(Duration::from_millis(index * 10), 125);
        }
        assert!((delivery.rate().unwrap_or_default() - 1e5).abs() < 1e3);
    }

    #[test]
    fn a_clock_that_wraps_around_begins_anew() {
        let mut delivery = Delivery::default();
        let wraps = Duration::from_millis(64 << 24);
        for index in 0..400u64 {
            let at = wraps - Duration::from_secs(2) + Duration::from_millis(index * 10);
            delivery.add(at.checked_sub(wraps).unwrap_or(at), 1_250);
        }
        assert!((delivery.rate().unwrap_or_default() - 1e6).abs() < 1e3);
    }

    #[test]
    fn many_packets_are_counted_over_the_time_they_took() {
        let mut delivery = Delivery::default();
        for index in 0..20_000u64 {
            delivery.add(Duration::from_micros(index * 100), 125);
        }
        assert!((delivery.rate().unwrap_or_default() - 1e7).abs() < 1e5);
    }
}

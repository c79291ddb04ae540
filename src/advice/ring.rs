use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::{Sample, Window};

/// The samples of the last while, and no more than there is room for.
#[derive(Debug)]
pub struct Ring {
    samples: VecDeque<(Instant, Sample)>,
    keep: Duration,
    room: usize,
}

impl Ring {
    /// Keeps samples for this time, and at most so many: the oldest go first.
    #[must_use]
    pub fn new(keep: Duration, room: usize) -> Self {
        Self { samples: VecDeque::new(), keep, room: room.max(2) }
    }

    /// Adds what is now.
    pub fn push(&mut self, now: Instant, sample: Sample) {
        self.samples.push_back((now, sample));
        while self.samples.len() > self.room
            || self.samples.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) > self.keep)
        {
            self.samples.pop_front();
        }
    }

    /// Samples that are kept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// What happened from the oldest sample to the newest; of fewer than two samples an empty window.
    #[must_use]
    pub fn window(&self) -> Window {
        let seconds = match (self.samples.front(), self.samples.back()) {
            (Some((first, _)), Some((last, _))) => last.saturating_duration_since(*first).as_secs_f64(),
            _ => 0.0,
        };
        let samples: Vec<&Sample> = self.samples.iter().map(|(_, sample)| sample).collect();
        Window::over(seconds, &samples)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::float_cmp, reason = "tests")]
mod tests {
    use super::*;

    fn sample(frames: u32) -> Sample {
        let frames = format!("saccade_frames_total{{stage=\"ingest\",outcome=\"done\"}} {frames}");
        Sample::read(&format!("saccade_build_info 1\n{frames}\n")).unwrap()
    }

    #[test]
    fn a_minute_is_kept_and_no_more_than_there_is_room_for() {
        let (start, second) = (crate::clock::now(), Duration::from_secs(1));
        let mut ring = Ring::new(60 * second, 100);
        assert!(ring.is_empty());
        assert_eq!(ring.window(), Window::default());
        ring.push(start, sample(0));
        assert_eq!(ring.window().seconds, 0.0);
        for n in 1..=90 {
            ring.push(start + n * second, sample(30 * n));
        }
        assert_eq!((ring.len(), ring.window().seconds, ring.window().frames.offered), (61, 60.0, 1800.0));
        let mut ring = Ring::new(60 * second, 10);
        (0..50).for_each(|n| ring.push(start + n * second, sample(n)));
        assert_eq!((ring.len(), ring.window().seconds), (10, 9.0));
    }
}

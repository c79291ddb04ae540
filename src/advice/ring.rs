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

    /// What happened in the last while before the newest sample, as far back as there are samples; of fewer than two an empty
    /// window.
    #[must_use]
    pub fn window(&self, last: Duration) -> Window {
        let Some((end, _)) = self.samples.back() else { return Window::default() };
        let age = |at: &Instant| end.saturating_duration_since(*at);
        let within = self.samples.iter().skip_while(|(at, _)| age(at) > last);
        let seconds = within.clone().next().map_or(0.0, |(at, _)| age(at).as_secs_f64());
        let samples: Vec<&Sample> = within.map(|(_, sample)| sample).collect();
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
        assert_eq!(ring.window(60 * second), Window::default());
        ring.push(start, sample(0));
        assert_eq!(ring.window(60 * second).seconds, 0.0);
        for n in 1..=90 {
            ring.push(start + n * second, sample(30 * n));
        }
        let seen = |last| (ring.window(last).seconds, ring.window(last).frames.offered);
        assert_eq!((ring.len(), seen(60 * second), seen(15 * second)), (61, (60.0, 1800.0), (15.0, 450.0)));
        assert_eq!(ring.window(second / 2).seconds, 0.0, "a single sample is no window");
        let mut ring = Ring::new(60 * second, 10);
        (0..50).for_each(|n| ring.push(start + n * second, sample(n)));
        assert_eq!((ring.len(), ring.window(60 * second).seconds), (10, 9.0));
    }
}

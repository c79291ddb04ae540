use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::error::Error;

/// Frames whose times are looked at: the last ones.
const KEPT: usize = 512;
/// The first frames of a model, whose times tell of cold caches.
const COLD: u64 = 8;

/// How a model has done.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Figures {
    /// Frames and pictures that went through it.
    pub done: u64,
    /// Those that it failed on.
    pub failed: u64,
    /// 95th percentile of the service time of the last ones that went through it, without the very first.
    pub p95: Option<Duration>,
}

impl Figures {
    /// Share of the frames that failed, 0..1; 0 where there was none.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a share")]
    pub fn failure_ratio(&self) -> f64 {
        self.failed as f64 / (self.done + self.failed).max(1) as f64
    }
}

/// Notes how a model does.
#[derive(Debug, Default)]
pub(super) struct Record(Mutex<Notes>);

#[derive(Debug)]
struct Notes {
    done: u64,
    failed: u64,
    times: VecDeque<Duration>,
}

impl Default for Notes {
    /// With its memory, so that no frame has to wait for some.
    fn default() -> Self {
        Self { done: 0, failed: 0, times: VecDeque::with_capacity(KEPT) }
    }
}

impl Record {
    /// A frame went through the model in this time, or it failed on it. What has nothing to do with the model, such as its
    /// end, does not count.
    pub(super) fn note(&self, outcome: Result<Duration, &Error>) {
        let mut notes = self.lock();
        match outcome {
            Ok(service) => {
                notes.done += 1;
                if notes.done > COLD {
                    if notes.times.len() == KEPT {
                        notes.times.pop_front();
                    }
                    notes.times.push_back(service);
                }
            }
            Err(Error::Run { .. } | Error::Panicked) => notes.failed += 1,
            Err(_) => {}
        }
    }

    /// A frame went through the model in a time that says nothing of the model.
    pub(super) fn count(&self) {
        self.lock().done += 1;
    }

    pub(super) fn figures(&self) -> Figures {
        let notes = self.lock();
        let (done, failed) = (notes.done, notes.failed);
        let mut times: Vec<_> = notes.times.iter().copied().collect();
        drop(notes);
        times.sort_unstable();
        let p95 = times.get((times.len() * 95 / 100).min(times.len().saturating_sub(1))).copied();
        Figures { done, failed, p95 }
    }

    fn lock(&self) -> MutexGuard<'_, Notes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_twentieth_and_the_very_first_frames_do_not_count() {
        let record = Record::default();
        assert_eq!(record.figures(), Figures::default());
        let ms = Duration::from_millis;
        for time in [900; COLD as usize].into_iter().chain((0..100).map(|n| if n < 4 { 500 } else { 10 })) {
            record.note(Ok(ms(time)));
        }
        assert_eq!(record.figures(), Figures { done: 100 + COLD, failed: 0, p95: Some(ms(10)) });
        for _ in 0..4 {
            record.note(Ok(ms(500)));
        }
        assert_eq!(record.figures().p95, Some(ms(500)));
        for _ in 0..KEPT {
            record.note(Ok(ms(20)));
        }
        assert_eq!(record.figures().p95, Some(ms(20)), "only the last ones");
    }

    #[test]
    fn failures_of_the_model_count_and_others_do_not() {
        let record = Record::default();
        record.note(Ok(Duration::ZERO));
        record.note(Err(&Error::Panicked));
        record.note(Err(&Error::Run { reason: String::new() }));
        for other in [Error::Closed, Error::NotReady, Error::NoRoom { reason: String::new() }] {
            record.note(Err(&other));
        }
        let figures = record.figures();
        assert_eq!((figures.done, figures.failed), (1, 2));
        assert!((figures.failure_ratio() - 2.0 / 3.0).abs() < 1e-9);
    }
}

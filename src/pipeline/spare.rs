use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::calibration::Watch;

/// Frames a second that a session gets back in any case: fewer do not look like video.
const LEAST: f32 = 10.0;
/// More than any session sends.
const MOST: f32 = 240.0;
/// Share of the processors that are busy, above which nothing is to spare.
const FULL: f64 = 0.9;
/// Likewise, below which there is more to spare.
const ROOM: f64 = 0.8;
/// What it falls to at once when nothing is to spare, and rises to when there is.
const FALL: f32 = 0.6;
const RISE: f32 = 1.25;

/// What processors have left beside decoding and inference for frames that the tracker fills in, as a number of frames a
/// second for each session: those that come sooner after the last one than that are left out.
///
/// What is filled in is drawn and encoded, and where a model runs on the same processors, it would pay for that with
/// results.
#[derive(Debug)]
pub(super) struct Spare {
    /// As bits.
    fps: AtomicU32,
    watch: Mutex<Watch>,
}

impl Spare {
    pub(super) fn new() -> Self {
        Self { fps: AtomicU32::new(MOST.to_bits()), watch: Mutex::new(Watch::start()) }
    }

    /// Frames a second that may come back to a session.
    pub(super) fn fps(&self) -> f32 {
        f32::from_bits(self.fps.load(Ordering::Relaxed))
    }

    /// Looks at how busy the processors have been since the last look; to be called every second or so.
    pub(super) fn look(&self) {
        let watch = std::mem::replace(&mut *self.watch.lock().unwrap_or_else(PoisonError::into_inner), Watch::start());
        let busy = watch.busy();
        metrics::gauge!("saccade_processors_busy_ratio").set(busy);
        self.adjust(busy);
    }

    fn adjust(&self, busy: f64) {
        let fps = self.fps();
        let next = if busy > FULL {
            // From no limit to one that limits.
            (fps.min(30.0) * FALL).max(LEAST)
        } else if busy < ROOM {
            (fps * RISE).min(MOST)
        } else {
            fps
        };
        self.fps.store(next.to_bits(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_filled_in_is_what_processors_have_left() {
        let spare = Spare::new();
        assert!(spare.fps() >= 120.0, "nothing is left out to begin with");
        spare.adjust(0.99);
        assert!(spare.fps() < 30.0);
        (0..5).for_each(|_| spare.adjust(1.0));
        assert!((spare.fps() - LEAST).abs() < 1e-6, "video stays video");
        spare.adjust(0.85);
        assert!((spare.fps() - LEAST).abs() < 1e-6);
        (0..5).for_each(|_| spare.adjust(0.5));
        assert!(spare.fps() > 25.0, "{}", spare.fps());
        (0..50).for_each(|_| spare.adjust(0.5));
        assert!((spare.fps() - MOST).abs() < 1e-6);
    }
}

use std::time::Duration;

use super::timeline::{Ticks, ticks};

/// Who is beyond a border for this long is there, even if by less than the margin …
const SETTLED: Duration = Duration::from_secs(1);
/// … if this many frames say so.
const SETTLED_FRAMES: u32 = 5;

/// On which side of a border an object is, jitter of its box aside.
///
/// It changes when the object is clearly on the other side, or has been there for a while. The latter happens once
/// between two times that it is clear: who sways about the border within the margin changes once and not back.
#[derive(Debug, Clone, Default)]
pub(super) struct Side {
    now: Option<bool>,
    /// Whether it got to where it is without ever being clearly there.
    unclear: bool,
    /// The side on which it has been since, if that is another one.
    other: Option<Run>,
}

#[derive(Debug, Clone, Copy)]
struct Run {
    side: bool,
    since: Ticks,
    frames: u32,
}

impl Side {
    pub(super) fn new(side: bool) -> Self {
        Self { now: Some(side), ..Self::default() }
    }

    /// The side; `None` until it is known.
    pub(super) fn get(&self) -> Option<bool> {
        self.now
    }

    /// Takes in that the object is on `side`, clearly or not. If that changes where it is: since when it has been there.
    pub(super) fn update(&mut self, now: Ticks, side: bool, is_clear: bool) -> Option<Ticks> {
        if self.now == Some(side) {
            self.other = None;
            self.unclear &= !is_clear;
            return None;
        }
        let mut run = self.other.filter(|run| run.side == side).unwrap_or(Run { side, since: now, frames: 0 });
        run.frames = run.frames.saturating_add(1);
        let is_settled = !self.unclear && now - run.since >= ticks(SETTLED) && run.frames >= SETTLED_FRAMES;
        if !is_clear && !is_settled {
            self.other = Some(run);
            return None;
        }
        *self = Self { now: Some(side), unclear: !is_clear, other: None };
        Some(run.since)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_clear_change_counts_at_once() {
        let mut side = Side::new(false);
        assert_eq!(side.update(0, true, false), None);
        assert_eq!(side.update(3_000, true, true), Some(0));
        assert_eq!(side.update(6_000, false, true), Some(6_000));
        assert_eq!(side.get(), Some(false));
    }

    #[test]
    fn an_unclear_change_counts_when_it_lasts_and_once() {
        let mut side = Side::new(false);
        let changes: Vec<_> = (0..40).filter_map(|frame| side.update(frame * 3_000, true, false)).collect();
        assert_eq!((changes, side.get()), (vec![0], Some(true)));
        assert!((40..400).all(|frame| side.update(frame * 3_000, false, false).is_none()));
        assert_eq!(side.update(1_200_000, true, true), None);
        assert!((401..440).any(|frame| side.update(frame * 3_000, false, false).is_some()), "it was clear in between");
    }

    #[test]
    fn few_frames_do_not_settle() {
        let mut side = Side::new(false);
        assert_eq!((side.update(0, true, false), side.update(900_000, true, false)), (None, None));
    }

    #[test]
    fn what_is_unknown_gets_known() {
        let mut side = Side::default();
        assert_eq!((side.update(0, true, false), side.get()), (None, None));
        assert_eq!((side.update(1, false, true), side.get()), (Some(1), Some(false)));
    }

    proptest! {
        #[test]
        fn what_is_never_clear_changes_once_at_most(path in prop::collection::vec((0..200_000u64, any::<bool>()), 0..300)) {
            let (mut side, mut now) = (Side::new(false), 0);
            let changes = path.into_iter().filter(|&(step, on)| {
                now += step;
                side.update(now, on, false).is_some()
            });
            prop_assert!(changes.count() <= 1);
        }
    }
}

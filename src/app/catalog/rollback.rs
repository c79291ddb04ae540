use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::models::Rollback;
use crate::infer::{Figures, Model};

/// What a version may take longer in any case: for small models chance alone makes up a large share.
const NEGLIGIBLE: Duration = Duration::from_millis(1);

/// A version that has taken another one's place, and is compared with it for a while.
pub(super) struct Trial {
    pub(super) new: Arc<Model>,
    pub(super) old: Arc<Model>,
    /// How the old one had done until then.
    pub(super) before: Figures,
    pub(super) ends: Instant,
}

/// Why a version makes way for the one before.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Worse {
    /// It takes no more work.
    Failed,
    /// More of its frames fail; shares of both, new and old.
    Errors(f64, f64),
    /// It takes longer; 95th percentiles of both, new and old.
    Slower(Duration, Duration),
}

impl Worse {
    /// For metrics.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Errors(..) => "errors",
            Self::Slower(..) => "p95",
        }
    }
}

impl fmt::Display for Worse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed => write!(f, "it failed repeatedly"),
            Self::Errors(new, old) => {
                write!(
                    f,
                    "{:.1} % of its frames failed, {:.1} % of those of the version before",
                    new * 100.0,
                    old * 100.0
                )
            }
            Self::Slower(new, old) => {
                write!(f, "95 % of its frames took up to {new:.1?}, those of the version before up to {old:.1?}")
            }
        }
    }
}

/// Whether a version is worse than the one before by more than is allowed.
pub(super) fn compare(allowed: &Rollback, old: Figures, new: Figures, is_ready: bool) -> Option<Worse> {
    if !is_ready {
        return Some(Worse::Failed);
    }
    if new.done + new.failed < allowed.min_frames {
        return None;
    }
    let (failing, failed) = (new.failure_ratio(), old.failure_ratio());
    if failing > failed + f64::from(allowed.error_percent) / 100.0 {
        return Some(Worse::Errors(failing, failed));
    }
    let (after, before) = (new.p95?, old.p95?);
    let enough = old.done >= allowed.min_frames && new.done >= allowed.min_frames;
    let limit = before.mul_f64(f64::from(allowed.p95_percent) / 100.0).max(before + NEGLIGIBLE);
    (enough && after > limit).then_some(Worse::Slower(after, before))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALLOWED: Rollback =
        Rollback { window: Duration::from_secs(60), min_frames: 50, p95_percent: 150, error_percent: 2 };

    fn figures(done: u64, failed: u64, p95_ms: u64) -> Figures {
        Figures { done, failed, p95: (p95_ms > 0).then(|| Duration::from_millis(p95_ms)) }
    }

    #[test]
    fn what_is_slower_by_more_than_is_allowed_makes_way() {
        let old = figures(100, 0, 10);
        assert_eq!(compare(&ALLOWED, old, figures(100, 0, 15), true), None);
        let slower = Worse::Slower(Duration::from_millis(16), Duration::from_millis(10));
        assert_eq!(compare(&ALLOWED, old, figures(100, 0, 16), true), Some(slower));
        assert_eq!(compare(&ALLOWED, figures(100, 0, 1), figures(100, 0, 2), true), None, "nobody notices that");
        assert_eq!(compare(&ALLOWED, old, figures(49, 0, 900), true), None, "too few to tell");
        assert_eq!(compare(&ALLOWED, figures(49, 0, 10), figures(100, 0, 900), true), None, "too few to compare with");
        assert_eq!(compare(&ALLOWED, figures(0, 0, 0), figures(100, 0, 900), true), None);
    }

    #[test]
    fn what_fails_more_often_makes_way() {
        let old = figures(99, 1, 10);
        assert_eq!(compare(&ALLOWED, old, figures(97, 3, 10), true), None);
        assert_eq!(compare(&ALLOWED, old, figures(96, 4, 10), true), Some(Worse::Errors(0.04, 0.01)));
        assert_eq!(compare(&ALLOWED, old, figures(0, 49, 0), true), None);
        assert_eq!(compare(&ALLOWED, figures(0, 0, 0), figures(0, 50, 0), true), Some(Worse::Errors(1.0, 0.0)));
        assert_eq!(compare(&ALLOWED, old, figures(0, 0, 0), false), Some(Worse::Failed), "at once");
    }
}

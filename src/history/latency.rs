//! Latencies counted in buckets whose bounds grow by a quarter octave, so that counts of minutes and sessions add up.

use serde::{Deserialize, Serialize};

/// Upper bound of the first bucket, in milliseconds.
const FIRST_MS: f64 = 0.5;
/// Buckets to an octave: a quantile is off by a tenth at most.
const PER_OCTAVE: f64 = 4.0;
/// The last bucket takes all that is longer than half a minute.
const BUCKETS: u8 = 64;

/// How many latencies fell into each bucket. Two of them add up to what one of all would have counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Latencies {
    /// Buckets that have any, with their counts, in ascending order.
    buckets: Vec<(u8, u64)>,
}

impl Latencies {
    /// Counts one, in milliseconds. What is no time is left out.
    pub fn add(&mut self, millis: f64) {
        if millis.is_finite() && millis >= 0.0 {
            self.add_to(bucket(millis), 1);
        }
    }

    /// Counts all that another has counted.
    pub fn merge(&mut self, other: &Self) {
        for (bucket, count) in &other.buckets {
            self.add_to((*bucket).min(BUCKETS - 1), *count);
        }
    }

    /// How many were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, count)| count).sum()
    }

    /// The latency that this share of them did not exceed, in milliseconds: the middle of its bucket. `None` of none.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let total = self.count();
        if total == 0 {
            return None;
        }
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "counts"
        )]
        let rank = ((total as f64 * share).ceil() as u64).clamp(1, total);
        let mut seen = 0;
        for (bucket, count) in &self.buckets {
            seen += count;
            if seen >= rank {
                return Some(middle(*bucket));
            }
        }
        None
    }

    fn add_to(&mut self, bucket: u8, count: u64) {
        match self.buckets.binary_search_by_key(&bucket, |(bucket, _)| *bucket) {
            Ok(at) => self.buckets[at].1 = self.buckets[at].1.saturating_add(count),
            Err(at) => self.buckets.insert(at, (bucket, count)),
        }
    }
}

fn bucket(millis: f64) -> u8 {
    if millis <= FIRST_MS {
        return 0;
    }
    let above = ((millis / FIRST_MS).log2() * PER_OCTAVE).ceil();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "bounded just before")]
    let bucket = above.clamp(0.0, f64::from(BUCKETS - 1)) as u8;
    bucket
}

/// The geometric middle.
fn middle(bucket: u8) -> f64 {
    if bucket == 0 { FIRST_MS / 2.0 } else { FIRST_MS * ((f64::from(bucket) - 0.5) / PER_OCTAVE).exp2() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quantiles_are_within_a_tenth() {
        let mut all = Latencies::default();
        assert_eq!(all.quantile(0.5), None);
        for millis in 1..=1000 {
            all.add(f64::from(millis));
        }
        for (share, exact) in [(0.5, 500.0), (0.95, 950.0), (0.01, 10.0)] {
            let found = all.quantile(share).unwrap();
            assert!((found / exact - 1.0).abs() < 0.1, "{share}: {found}");
        }
        all.add(f64::NAN);
        all.add(-1.0);
        assert_eq!(all.count(), 1000);
        all.add(1e12);
        assert_eq!(all.count(), 1001);
    }

    proptest! {
        #[test]
        fn parts_add_up_to_the_whole(first in prop::collection::vec(0.0..1e6, 0..50), second in prop::collection::vec(0.0..1e6, 0..50)) {
            let of = |list: &[f64]| { let mut all = Latencies::default(); list.iter().for_each(|one| all.add(*one)); all };
            let mut parts = of(&first);
            parts.merge(&of(&second));
            let whole: Vec<f64> = first.iter().chain(&second).copied().collect();
            prop_assert_eq!(parts, of(&whole));
        }
    }
}

/// How far below a limit use has to fall before the limit counts as left, so that levels do not flap.
const GAP: f64 = 0.05;

/// What use of memory means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// There is enough.
    Enough,
    /// Operators are warned.
    Scarce,
    /// Caches are emptied, and nothing new is begun.
    Short,
}

impl Level {
    /// As the metric has it: 0, 1, 2.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Enough => 0,
            Self::Scarce => 1,
            Self::Short => 2,
        }
    }
}

/// Shares of memory from which on levels begin, above 0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Of [`Level::Scarce`].
    pub warn: f64,
    /// Of [`Level::Short`]; at least `warn`.
    pub shed: f64,
}

/// The level of one kind of memory, which rises at once and falls only once use is 0.05 below the limit.
#[derive(Debug, Clone)]
pub struct Watermark {
    limits: Limits,
    level: Level,
}

impl Watermark {
    /// There is enough to begin with.
    #[must_use]
    pub const fn new(limits: Limits) -> Self {
        Self { limits, level: Level::Enough }
    }

    /// The level of the last update.
    #[must_use]
    pub const fn level(&self) -> Level {
        self.level
    }

    /// The level now that this share is in use; what is no number changes nothing.
    pub fn update(&mut self, ratio: f64) -> Level {
        let Limits { warn, shed } = self.limits;
        let at = |limit: f64, level| {
            let is_left = ratio < limit - GAP;
            ratio >= limit || (self.level >= level && !is_left)
        };
        if !ratio.is_nan() {
            self.level = if at(shed, Level::Short) {
                Level::Short
            } else if at(warn, Level::Scarce) {
                Level::Scarce
            } else {
                Level::Enough
            };
        }
        self.level
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits { warn: 0.8, shed: 0.95 };

    #[test]
    fn levels_rise_at_once_and_fall_behind_a_gap() {
        let mut watermark = Watermark::new(LIMITS);
        let mut at = |ratio| watermark.update(ratio);
        assert_eq!(at(0.79), Level::Enough);
        assert_eq!([0.8, 0.78, 0.76].map(&mut at), [Level::Scarce; 3]);
        assert_eq!(at(0.74), Level::Enough);
        assert_eq!([0.96, 0.93, 0.91, f64::NAN].map(&mut at), [Level::Short; 4]);
        assert_eq!([0.89, 0.94].map(&mut at), [Level::Scarce; 2]);
        assert_eq!(at(1.2), Level::Short);
        assert_eq!(at(0.1), Level::Enough);
    }

    proptest! {
        #[test]
        fn a_wobble_smaller_than_the_gap_crosses_once(middle in 0.1..1.0_f64, wobbles in prop::collection::vec(-0.02..0.02_f64, 1..50)) {
            let mut watermark = Watermark::new(LIMITS);
            let levels: Vec<_> = wobbles.iter().map(|wobble| watermark.update(middle + wobble)).collect();
            prop_assert!(levels.is_sorted(), "{levels:?}");
        }

        #[test]
        fn a_limit_that_is_reached_is_told(ratios in prop::collection::vec(0.0..1.5_f64, 1..50)) {
            let mut watermark = Watermark::new(LIMITS);
            for ratio in ratios {
                let level = watermark.update(ratio);
                prop_assert!(ratio < LIMITS.shed || level == Level::Short);
                prop_assert!(ratio < LIMITS.warn || level >= Level::Scarce);
                prop_assert!(ratio >= LIMITS.warn - GAP || level == Level::Enough);
            }
        }
    }
}

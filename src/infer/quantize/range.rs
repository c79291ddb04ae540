/// The numbers that a tensor was seen to have.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Range {
    least: f32,
    most: f32,
}

/// The 256 numbers that a tensor in int8 can have: `(n - zero) * scale`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Steps {
    pub(super) scale: f32,
    pub(super) zero: u8,
}

/// The mean of what was least and of what was most in each picture: a single odd picture would make all steps coarser.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Observed {
    least: f64,
    most: f64,
    pictures: u32,
}

impl Observed {
    pub(super) fn add(&mut self, least: f32, most: f32) {
        if least.is_finite() && most.is_finite() {
            self.least += f64::from(least);
            self.most += f64::from(most);
            self.pictures += 1;
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "means of numbers of that precision")]
    pub(super) fn range(self) -> Option<Range> {
        let pictures = f64::from(self.pictures);
        (self.pictures > 0)
            .then(|| Range { least: (self.least / pictures) as f32, most: (self.most / pictures) as f32 })
    }
}

impl Range {
    /// Of numbers that are known.
    pub(super) fn of(values: &[f32]) -> Self {
        let finite = || values.iter().copied().filter(|value| value.is_finite());
        Self { least: finite().fold(0.0, f32::min), most: finite().fold(0.0, f32::max) }
    }

    /// Steps over the whole range and zero, which is always one of them: it is what padding adds.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
    pub(super) fn steps(self) -> Steps {
        let (least, most) = (self.least.min(0.0), self.most.max(0.0));
        let scale = (most - least) / 255.0;
        if scale < f32::MIN_POSITIVE || !scale.is_finite() {
            return Steps { scale: 1.0, zero: 0 };
        }
        Steps { scale, zero: (-least / scale).round_ties_even().clamp(0.0, 255.0) as u8 }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::float_cmp, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn zero_is_always_one_of_the_steps() {
        let steps = Range { least: 1.0, most: 2.55 }.steps();
        assert_eq!((steps.scale, steps.zero), (0.01, 0));
        let steps = Range { least: -2.55, most: -1.0 }.steps();
        assert_eq!((steps.scale, steps.zero), (0.01, 255));
        assert_eq!(Range { least: 0.0, most: 0.0 }.steps(), Steps { scale: 1.0, zero: 0 });
        assert_eq!(Range { least: f32::MIN, most: f32::MAX }.steps(), Steps { scale: 1.0, zero: 0 });
    }

    #[test]
    fn a_range_is_the_mean_of_what_pictures_show_and_leaves_out_what_is_no_number() {
        let mut observed = Observed::default();
        assert_eq!(observed.range(), None);
        observed.add(-1.0, 3.0);
        observed.add(f32::NAN, 100.0);
        observed.add(-3.0, 5.0);
        assert_eq!(observed.range(), Some(Range { least: -2.0, most: 4.0 }));
        assert_eq!(Range::of(&[0.5, f32::INFINITY, -0.25]), Range { least: -0.25, most: 0.5 });
    }
}

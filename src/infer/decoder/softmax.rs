use super::{Filter, Side};
use crate::infer::manifest::Scores;

/// Classifiers: a number for each class.
#[derive(Debug, Clone)]
pub(super) struct Softmax {
    pub(super) scores: Scores,
}

impl Softmax {
    /// The sides after the batch axis for `classes` classes of an output that declares `shape`: one of them is the classes,
    /// all others are 1.
    pub(super) fn sides(classes: usize, shape: &[i64]) -> Vec<Side> {
        let sides = shape.get(1..).unwrap_or_default();
        let is = |side: i64| usize::try_from(side) == Ok(classes);
        // A free side stands for the classes only where no other does.
        let axis = sides.iter().position(|side| is(*side)).or_else(|| sides.iter().position(|side| *side < 0));
        let rank = sides.len().max(1);
        (0..rank).map(|at| Side::Exactly(if at == axis.unwrap_or(0) { classes } else { 1 })).collect()
    }

    /// The wanted classes that are sure enough, best first, `most` at most. Of logits scores are made over all classes, the
    /// largest subtracted first, so that none is too large.
    pub(super) fn decode(&self, values: &[f32], filter: &Filter<'_>, most: usize) -> Vec<(u32, f32)> {
        let (largest, sum) = match self.scores {
            Scores::Probabilities => (0.0, 1.0),
            Scores::Logits => {
                let largest = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                // NaN, which is not compared, is left out.
                let sum: f32 = values.iter().filter(|value| !value.is_nan()).map(|value| (value - largest).exp()).sum();
                (largest, sum)
            }
        };
        let score = |value: f32| match self.scores {
            Scores::Probabilities => value,
            Scores::Logits => (value - largest).exp() / sum,
        };
        let scores = (0..).zip(values).map(|(class, value)| (class, score(*value)));
        let sure = |(class, score): &(u32, f32)| *score >= filter.score_threshold && filter.wants(*class);
        let mut found: Vec<_> = scores.filter(|(_, score)| score.is_finite()).filter(sure).collect();
        let surer = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
        if found.len() > most && most > 0 {
            found.select_nth_unstable_by(most - 1, surer);
        }
        found.truncate(most);
        found.sort_unstable_by(surer);
        found.iter_mut().for_each(|(_, score)| *score = score.clamp(0.0, 1.0));
        found
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: Filter<'static> = Filter { score_threshold: 0.0, classes: None };

    fn logits(values: &[f32], most: usize) -> Vec<(u32, f32)> {
        Softmax { scores: Scores::Logits }.decode(values, &ALL, most)
    }

    #[test]
    fn scores_of_logits_are_shares_of_one() {
        let found = logits(&[0.0, 2f32.ln(), 5f32.ln()], 3);
        let expected = [(2, 0.625), (1, 0.25), (0, 0.125)];
        assert!(found.iter().zip(expected).all(|(a, b)| a.0 == b.0 && (a.1 - b.1).abs() < 1e-6), "{found:?}");
        assert_eq!(logits(&[0.0, 2f32.ln(), 5f32.ln()], 1).len(), 1);
        assert_eq!(logits(&[1.0; 3], 0), []);
    }

    #[test]
    fn no_logit_is_too_large() {
        let found = logits(&[1e30, -1e30, 1e30], 3);
        assert_eq!(found, [(0, 0.5), (2, 0.5), (1, 0.0)]);
        assert_eq!(logits(&[f32::NAN, 3.0], 3), [(1, 1.0)]);
        assert_eq!(logits(&[f32::INFINITY, 3.0], 3), [], "no scores can be made of it");
    }

    #[test]
    fn probabilities_stay_as_they_are() {
        let softmax = Softmax { scores: Scores::Probabilities };
        let filter = Filter { score_threshold: 0.2, classes: Some(&[0, 1]) };
        assert_eq!(softmax.decode(&[0.25, 0.125, 0.625], &filter, 5), [(0, 0.25)]);
        assert_eq!(softmax.decode(&[1.0 + 1e-6], &ALL, 5), [(0, 1.0)]);
    }

    #[test]
    fn the_classes_may_lie_on_any_axis() {
        use Side::Exactly;
        assert_eq!(Softmax::sides(10, &[1, 10]), [Exactly(10)]);
        assert_eq!(Softmax::sides(10, &[-1, 10, 1, 1]), [Exactly(10), Exactly(1), Exactly(1)]);
        assert_eq!(Softmax::sides(10, &[1, 1, 1, 10]), [Exactly(1), Exactly(1), Exactly(10)]);
        assert_eq!(Softmax::sides(10, &[-1, -1]), [Exactly(10)]);
        assert_eq!(Softmax::sides(10, &[1, 11]), [Exactly(10)], "which does not fit");
        assert_eq!(Softmax::sides(10, &[]), [Exactly(10)]);
    }

    proptest! {
        #[test]
        fn the_best_come_first_and_add_up_to_no_more_than_one(
            values in prop::collection::vec(-50f32..50.0, 1..200), most in 1usize..20,
        ) {
            let found = logits(&values, most);
            prop_assert_eq!(found.len(), most.min(values.len()));
            prop_assert!(found.windows(2).all(|pair| pair[0].1 >= pair[1].1));
            prop_assert!(found.iter().map(|one| one.1).sum::<f32>() < 1.0 + 1e-4);
            let largest = values.iter().copied().fold(f32::MIN, f32::max);
            prop_assert_eq!(values[found[0].0 as usize], largest);
        }
    }
}

//! What several models found in one frame, as one list; and how far two models agree.
//!
//! Pure: lists in, a list or a number out.

use std::cmp::Ordering;

use super::decoder::overlap;
use crate::media::{Class, Detection};

/// Overlap from which two boxes are taken for the same object, where nothing else is asked for: the value that the
/// paper found best.
pub const IOU_THRESHOLD: f32 = 0.55;
/// Detections of one model that [`fuse`] looks at, the surest ones. It bounds the time on a model's own thread, which
/// grows with the square of all models' together: some milliseconds at the most.
pub const MAX_FUSED: usize = 300;
/// Detections on either side that [`agreement`] looks at, the surest ones. It bounds the time, which grows with their
/// product, and the memory: 240 kB.
pub const MAX_COMPARED: usize = 100;

/// Weighted boxes fusion (Solovyev, Wang, Gabruseva: "Weighted boxes fusion: Ensembling boxes from different object
/// detection models", 2021, arXiv:1910.13302, section 3), with models of equal weight.
///
/// `found` has one list a model, best score first; all name classes by the same ids. Boxes of one class that overlap the
/// same fused box by more than `iou_threshold` become one, whose corners are their average weighted by score, and whose
/// score is their mean, times min(T, N) / N: of T boxes in the cluster and N models that know the class, which
/// `knowing` tells by class id. So a box that only one of several models sees loses by it, unless the others cannot know
/// better.
///
/// The best score comes first. Boxes without area, scores that are not above 0 and what comes after the first
/// [`MAX_FUSED`] of a list are left out.
#[must_use]
pub fn fuse(found: &[&[Detection]], knowing: impl Fn(u32) -> usize, iou_threshold: f32) -> Vec<Detection> {
    let mut all: Vec<&Detection> = sound(found.iter().flat_map(|list| list.iter().take(MAX_FUSED))).collect();
    // By place where the scores are the same, so that the order of the models does not matter.
    all.sort_by(|a, b| a.class.id.cmp(&b.class.id).then_with(|| surer_first(a, b)));
    let mut fused = Vec::new();
    for of_class in all.chunk_by(|a, b| a.class.id == b.class.id) {
        let mut clusters: Vec<Cluster> = Vec::new();
        for detection in of_class {
            match best_match(&mut clusters, &detection.bbox, iou_threshold) {
                Some(cluster) => cluster.add(detection),
                None => clusters.push(Cluster::new(detection)),
            }
        }
        fused.extend(clusters.into_iter().map(|cluster| {
            let models = knowing(cluster.class.id);
            cluster.into_detection(models)
        }));
    }
    fused.sort_by(surer_first);
    fused
}

/// How far two models agree on a frame, 0..1: the mean overlap of the boxes that they have in common, where each that
/// only one of them has counts as 0. Boxes are the same object if their classes have the same name; of those that
/// overlap, the ones that do so most are paired first. Models that both find nothing agree. Both lists have the best score
/// first; of each, the first [`MAX_COMPARED`] are looked at.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "at most twice MAX_COMPARED")]
pub fn agreement(a: &[Detection], b: &[Detection]) -> f32 {
    let a: Vec<&Detection> = sound(a.iter().take(MAX_COMPARED)).collect();
    let b: Vec<&Detection> = sound(b.iter().take(MAX_COMPARED)).collect();
    if a.is_empty() && b.is_empty() {
        return 1.0;
    }
    let mut pairs = Vec::new();
    for (first, left) in a.iter().enumerate() {
        for (second, right) in b.iter().enumerate() {
            let iou = if left.class.name == right.class.name { overlap(&left.bbox, &right.bbox) } else { 0.0 };
            if iou > 0.0 {
                pairs.push((iou, first, second));
            }
        }
    }
    pairs.sort_by(|(a, ..), (b, ..)| b.total_cmp(a));
    let (mut left_taken, mut right_taken) = (vec![false; a.len()], vec![false; b.len()]);
    let (mut sum, mut matches) = (0.0, 0);
    for (iou, first, second) in pairs {
        if !left_taken[first] && !right_taken[second] {
            (left_taken[first], right_taken[second]) = (true, true);
            sum += iou;
            matches += 1;
        }
    }
    sum / (a.len() + b.len() - matches) as f32
}

/// Boxes that are taken for one object, and their average.
struct Cluster {
    class: Class,
    /// Corners times scores.
    weighted: [f64; 4],
    scores: f64,
    boxes: u16,
    bbox: [f32; 4],
}

impl Cluster {
    fn new(first: &Detection) -> Self {
        let mut cluster =
            Self { class: first.class.clone(), weighted: [0.0; 4], scores: 0.0, boxes: 0, bbox: first.bbox };
        cluster.add(first);
        cluster
    }

    #[expect(clippy::cast_possible_truncation, reason = "an average of values that were f32")]
    fn add(&mut self, detection: &Detection) {
        let score = f64::from(detection.score.min(1.0));
        self.scores += score;
        self.boxes += 1;
        for (side, corner) in detection.bbox.into_iter().enumerate() {
            self.weighted[side] += score * f64::from(corner);
            self.bbox[side] = (self.weighted[side] / self.scores) as f32;
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "a score")]
    fn into_detection(self, models: usize) -> Detection {
        let models = u16::try_from(models).unwrap_or(u16::MAX).max(1);
        let seen = f64::from(self.boxes.min(models)) / f64::from(models);
        let score = (self.scores / f64::from(self.boxes) * seen) as f32;
        Detection { bbox: self.bbox, class: self.class, score, object_id: None, keypoints: Vec::new() }
    }
}

/// The cluster that the box overlaps most, if by more than the threshold.
fn best_match<'a>(clusters: &'a mut [Cluster], bbox: &[f32; 4], iou_threshold: f32) -> Option<&'a mut Cluster> {
    let mut best = iou_threshold;
    let mut found = None;
    for cluster in clusters {
        let iou = overlap(&cluster.bbox, bbox);
        if iou > best {
            best = iou;
            found = Some(cluster);
        }
    }
    found
}

/// Those whose score and area are numbers above 0.
fn sound<'a>(detections: impl Iterator<Item = &'a Detection>) -> impl Iterator<Item = &'a Detection> {
    detections.filter(|Detection { bbox: [left, top, right, bottom], score, .. }| {
        let area = (right - left) * (bottom - top);
        right > left && bottom > top && area > 0.0 && area.is_finite() && *score > 0.0
    })
}

fn surer_first(a: &Detection, b: &Detection) -> Ordering {
    let by_place = a.bbox.iter().zip(&b.bbox).map(|(a, b)| a.total_cmp(b));
    b.score.total_cmp(&a.score).then_with(|| by_place.fold(Ordering::Equal, Ordering::then))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;

    const NAMES: [&str; 4] = ["a", "b", "c", "d"];

    fn found(class: u32, score: f32, bbox: [f32; 4]) -> Detection {
        let class = Class { id: class, name: Arc::from(NAMES[class as usize]) };
        Detection { bbox, class, score, object_id: None, keypoints: Vec::new() }
    }

    fn fuse_all(found: &[Vec<Detection>], iou_threshold: f32) -> Vec<Detection> {
        let lists: Vec<&[Detection]> = found.iter().map(Vec::as_slice).collect();
        fuse(&lists, |_| lists.len(), iou_threshold)
    }

    #[track_caller]
    fn assert_near(fused: &[Detection], expected: &[Detection]) {
        let near = |a: &Detection, b: &Detection| {
            let corners = a.bbox.iter().zip(&b.bbox).all(|(a, b)| (a - b).abs() < 1e-5);
            corners && (a.score - b.score).abs() < 1e-5 && a.class == b.class
        };
        let all = fused.len() == expected.len() && fused.iter().zip(expected).all(|(a, b)| near(a, b));
        assert!(all, "{fused:#?} is not {expected:#?}");
    }

    #[test]
    fn two_boxes_become_their_average_weighted_by_score() {
        // Overlap 80 / 120. Corners: (0.9 * 0 + 0.3 * 2) / 1.2 and (0.9 * 10 + 0.3 * 12) / 1.2.
        let lists = [vec![found(0, 0.9, [0.0, 0.0, 10.0, 10.0])], vec![found(0, 0.3, [2.0, 0.0, 12.0, 10.0])]];
        assert_near(&fuse_all(&lists, 0.55), &[found(0, 0.6, [0.5, 0.0, 10.5, 10.0])]);
    }

    #[test]
    fn what_one_of_two_models_sees_counts_half() {
        let lists = [vec![found(0, 0.9, [0.0, 0.0, 10.0, 10.0])], vec![found(0, 0.6, [20.0, 0.0, 30.0, 10.0])]];
        let expected = [found(0, 0.45, [0.0, 0.0, 10.0, 10.0]), found(0, 0.3, [20.0, 0.0, 30.0, 10.0])];
        assert_near(&fuse_all(&lists, 0.55), &expected);
    }

    #[test]
    fn a_class_that_only_one_model_knows_is_not_held_against_it() {
        let lists = [found(0, 0.9, [0.0, 0.0, 10.0, 10.0]), found(1, 0.8, [0.0, 0.0, 10.0, 10.0])];
        let fused = fuse(&[&lists[..1], &lists[1..]], |class| if class == 1 { 1 } else { 2 }, 0.55);
        assert_near(&fused, &[found(1, 0.8, [0.0, 0.0, 10.0, 10.0]), found(0, 0.45, [0.0, 0.0, 10.0, 10.0])]);
        // Nobody is said to know it: whoever found it does.
        assert_near(&fuse(&[&lists[1..]], |_| 0, 0.55), &lists[1..]);
    }

    #[test]
    fn more_boxes_than_models_are_no_more_than_sure() {
        // Three boxes of two models in one cluster: the mean score, times min(3, 2) / 2.
        let bbox = [0.0, 0.0, 10.0, 10.0];
        let lists = [vec![found(0, 0.9, bbox), found(0, 0.3, bbox)], vec![found(0, 0.6, bbox)]];
        assert_near(&fuse_all(&lists, 0.55), &[found(0, 0.6, bbox)]);
    }

    #[test]
    fn a_box_joins_the_cluster_as_it_has_become() {
        // The second moves the cluster to [1, 0, 11, 10], so that the third overlaps it by 80 / 120 instead of 70 / 130.
        let lists = [0.0, 2.0, 3.0].map(|left| vec![found(0, 0.5, [left, 0.0, left + 10.0, 10.0])]);
        assert_near(&fuse_all(&lists, 0.55), &[found(0, 0.5, [5.0 / 3.0, 0.0, 35.0 / 3.0, 10.0])]);
    }

    /// The example of the authors' own `ensemble_boxes` 1.0.9 with equal weights, and what it answers.
    #[test]
    fn the_authors_example_gives_what_their_program_gives() {
        let first = [
            found(0, 0.9, [0.00, 0.51, 0.81, 0.91]),
            found(1, 0.8, [0.10, 0.31, 0.71, 0.61]),
            found(1, 0.7, [0.03, 0.24, 0.12, 0.35]),
            found(1, 0.4, [0.02, 0.53, 0.11, 0.94]),
            found(0, 0.2, [0.01, 0.32, 0.83, 0.93]),
        ];
        let second = [
            found(1, 0.8, [0.12, 0.33, 0.72, 0.64]),
            found(1, 0.7, [0.38, 0.66, 0.79, 0.95]),
            found(1, 0.5, [0.04, 0.56, 0.84, 0.92]),
            found(0, 0.3, [0.08, 0.49, 0.21, 0.89]),
        ];
        let expected = [
            found(1, 0.8, [0.11, 0.32, 0.715, 0.625]),
            found(0, 0.55, [0.001_818, 0.475_455, 0.813_636, 0.913_636]),
            found(1, 0.35, [0.03, 0.24, 0.12, 0.35]),
            found(1, 0.35, [0.38, 0.66, 0.79, 0.95]),
            found(1, 0.25, [0.04, 0.56, 0.84, 0.92]),
            found(1, 0.2, [0.02, 0.53, 0.11, 0.94]),
            found(0, 0.15, [0.08, 0.49, 0.21, 0.89]),
        ];
        assert_near(&fuse_all(&[first.to_vec(), second.to_vec()], IOU_THRESHOLD), &expected);

        let alike = |list: &[Detection]| -> Vec<Detection> {
            list.iter().map(|detection| found(0, detection.score, detection.bbox)).collect()
        };
        let expected = [
            found(0, 0.8, [0.11, 0.32, 0.715, 0.625]),
            found(0, 0.533_333, [0.013_75, 0.501_875, 0.821_875, 0.915_625]),
            found(0, 0.35, [0.03, 0.24, 0.12, 0.35]),
            found(0, 0.35, [0.38, 0.66, 0.79, 0.95]),
            found(0, 0.2, [0.02, 0.53, 0.11, 0.94]),
            found(0, 0.15, [0.08, 0.49, 0.21, 0.89]),
        ];
        assert_near(&fuse_all(&[alike(&first), alike(&second)], 0.4), &expected);
    }

    #[test]
    fn what_is_no_box_is_left_out() {
        let good = found(0, 0.5, [0.0, 0.0, 10.0, 10.0]);
        let bad = [
            found(0, f32::NAN, [0.0, 0.0, 10.0, 10.0]),
            found(0, 0.0, [0.0, 0.0, 10.0, 10.0]),
            found(0, 0.5, [0.0, 0.0, f32::NAN, 10.0]),
            found(0, 0.5, [0.0, 0.0, f32::INFINITY, 10.0]),
            found(0, 0.5, [0.0, 0.0, 0.0, 10.0]),
            found(0, 0.5, [10.0, 10.0, 0.0, 0.0]),
        ];
        let list = [&bad[..], std::slice::from_ref(&good)].concat();
        assert_eq!(fuse(&[&list], |_| 1, 0.55), std::slice::from_ref(&good));
        assert_eq!(agreement(&list, &[good]), 1.0);
        assert_eq!(agreement(&bad, &[]), 1.0);
        assert_eq!(fuse(&[], |_| 0, 0.55), []);
    }

    #[test]
    fn only_the_surest_of_very_many_are_looked_at() {
        let many: Vec<_> =
            (0..3_000u16).map(|n| found(0, 0.5, [0.0, f32::from(n) * 2.0, 1.0, f32::from(n) * 2.0 + 1.0])).collect();
        assert_eq!(fuse(&[&many], |_| 1, 0.55).len(), MAX_FUSED);
        assert_eq!(fuse(&[&many, &many], |_| 2, 0.55).len(), MAX_FUSED, "of each model the same ones");
        // Those that are compared are the same; all that come after them are not.
        let mut others = many.clone();
        others[MAX_COMPARED..].iter_mut().for_each(|other| other.class = found(1, 0.5, [0.0; 4]).class);
        assert_eq!(agreement(&many, &others), 1.0);
        others[MAX_COMPARED / 2..].iter_mut().for_each(|other| other.class = found(1, 0.5, [0.0; 4]).class);
        assert!((agreement(&many, &others) - 1.0 / 3.0).abs() < 1e-6, "50 in common, and 50 on either side");
    }

    #[test]
    fn agreement_is_the_mean_overlap_and_nothing_for_what_only_one_sees() {
        let [left, shifted, far] = [0.0, 5.0, 50.0].map(|left| found(0, 0.5, [left, 0.0, left + 10.0, 10.0]));
        let other = found(1, 0.5, left.bbox);
        assert_eq!(agreement(&[], &[]), 1.0);
        assert_eq!(agreement(std::slice::from_ref(&left), &[]), 0.0);
        assert_eq!(agreement(std::slice::from_ref(&left), &[other]), 0.0);
        assert!((agreement(std::slice::from_ref(&left), std::slice::from_ref(&shifted)) - 1.0 / 3.0).abs() < 1e-6);
        // The first pair overlaps fully, so that the shifted box is left over.
        let pair = [left.clone(), shifted];
        assert_eq!(agreement(&pair, std::slice::from_ref(&left)), 0.5);
        assert_eq!(agreement(&[left.clone(), far], &[left]), 0.5);
        // Ids are each model's own; names are common to them.
        let mut renumbered = pair[0].clone();
        renumbered.class.id = 7;
        assert_eq!(agreement(&pair[..1], &[renumbered]), 1.0);
    }

    fn lists() -> impl Strategy<Value = Vec<Vec<Detection>>> {
        let detection = (0u32..3, 0.01f32..1.0, 0f32..60.0, 0f32..60.0, 1f32..40.0, 1f32..40.0)
            .prop_map(|(class, score, x, y, w, h)| found(class, score, [x, y, x + w, y + h]));
        prop::collection::vec(prop::collection::vec(detection, 0..20), 1..4)
    }

    proptest! {
        #[test]
        fn fused_boxes_lie_in_the_hull_of_their_class_and_scores_in_range(lists in lists(), iou in 0.1f32..0.9) {
            let fused = fuse_all(&lists, iou);
            prop_assert!(fused.windows(2).all(|pair| pair[0].score >= pair[1].score));
            prop_assert!(fused.len() <= lists.iter().map(Vec::len).sum());
            for one in &fused {
                let of_class = || lists.iter().flatten().filter(|detection| detection.class == one.class);
                for side in 0..4 {
                    let low = of_class().map(|detection| detection.bbox[side]).fold(f32::INFINITY, f32::min);
                    let high = of_class().map(|detection| detection.bbox[side]).fold(f32::NEG_INFINITY, f32::max);
                    prop_assert!(low <= one.bbox[side] && one.bbox[side] <= high, "{one:?}");
                }
                let surest = of_class().map(|detection| detection.score).fold(0.0, f32::max);
                prop_assert!(one.score > 0.0 && one.score <= surest);
                let members: Vec<_> = of_class().filter(|detection| overlap(&detection.bbox, &one.bbox) > 0.0).collect();
                prop_assert!(!members.is_empty());
            }
        }

        #[test]
        fn the_order_of_the_models_and_of_their_boxes_does_not_matter(lists in lists(), iou in 0.1f32..0.9) {
            let fused = fuse_all(&lists, iou);
            let mut turned = lists;
            turned.reverse();
            turned.iter_mut().for_each(|list| list.reverse());
            prop_assert_eq!(fuse_all(&turned, iou), fused);
        }

        #[test]
        fn models_that_say_the_same_are_taken_by_their_word(lists in lists(), copies in 1usize..4) {
            // As non-maximum suppression leaves them: boxes of one class lie apart.
            let mut apart: Vec<Detection> = Vec::new();
            for detection in lists.into_iter().flatten() {
                let hidden = |other: &Detection| other.class == detection.class && overlap(&other.bbox, &detection.bbox) > 0.5;
                if !apart.iter().any(hidden) {
                    apart.push(detection);
                }
            }
            apart.sort_by(surer_first);
            let fused = fuse_all(&vec![apart.clone(); copies], IOU_THRESHOLD);
            prop_assert_eq!(&fused, &apart);
            prop_assert_eq!(agreement(&fused, &apart), 1.0);
        }

        #[test]
        fn agreement_is_a_share_and_mutual(lists in lists()) {
            let empty = Vec::new();
            let (a, b) = (&lists[0], lists.get(1).unwrap_or(&empty));
            let agreed = agreement(a, b);
            prop_assert!((0.0..=1.0).contains(&agreed));
            prop_assert!((agreed - agreement(b, a)).abs() < 1e-5);
        }
    }
}

use super::Candidate;

/// Candidates that are compared with each other; the surest ones stay when there are more. It bounds the time of
/// [`suppress`], which grows with its square.
pub(super) const MAX_CANDIDATES: usize = 1024;

/// Class-aware greedy non-maximum suppression: of two boxes of one class that overlap by more than `iou_threshold`,
/// the surer one stays; of equally sure ones the upper, then the left one, the one that ends above, the one that ends left,
/// the one of the lower class. What stays is sorted so, and no longer than `max_detections`.
///
/// The order is open only among candidates that are alike bit for bit, so that a device finds the same one.
pub(in crate::infer) fn suppress(candidates: &mut Vec<Candidate>, iou_threshold: f32, max_detections: usize) {
    let surer_first = |a: &Candidate, b: &Candidate| {
        let by_place = |side: usize| a.bbox[side].total_cmp(&b.bbox[side]);
        let by_corners = || by_place(1).then_with(|| by_place(0)).then_with(|| by_place(3)).then_with(|| by_place(2));
        b.score.total_cmp(&a.score).then_with(by_corners).then_with(|| a.class.cmp(&b.class))
    };
    if candidates.len() > MAX_CANDIDATES {
        candidates.select_nth_unstable_by(MAX_CANDIDATES, surer_first);
        candidates.truncate(MAX_CANDIDATES);
    }
    candidates.sort_unstable_by(surer_first);
    let mut kept = 0;
    for next in 0..candidates.len() {
        if kept == max_detections {
            break;
        }
        let candidate = candidates[next];
        let hidden = candidates[..kept]
            .iter()
            .any(|other| other.class == candidate.class && overlap(&other.bbox, &candidate.bbox) > iou_threshold);
        if !hidden {
            candidates[kept] = candidate;
            kept += 1;
        }
    }
    candidates.truncate(kept);
}

/// Intersection over union; 0 for boxes without area.
pub(in crate::infer) fn overlap(a: &[f32; 4], b: &[f32; 4]) -> f32 {
    let width = (a[2].min(b[2]) - a[0].max(b[0])).max(0.0);
    let height = (a[3].min(b[3]) - a[1].max(b[1])).max(0.0);
    let common = width * height;
    let area = |c: &[f32; 4]| (c[2] - c[0]) * (c[3] - c[1]);
    let union = area(a) + area(b) - common;
    if union > 0.0 { common / union } else { 0.0 }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn candidate(x: f32, class: u32, score: f32) -> Candidate {
        Candidate { bbox: [x, 0.0, x + 10.0, 10.0], class, score, cell: 0 }
    }

    #[test]
    fn of_two_overlapping_boxes_of_a_class_the_surer_stays() {
        let mut found =
            vec![candidate(0.0, 0, 0.5), candidate(1.0, 0, 0.9), candidate(1.0, 1, 0.3), candidate(30.0, 0, 0.4)];
        suppress(&mut found, 0.5, 10);
        assert_eq!(found, [candidate(1.0, 0, 0.9), candidate(30.0, 0, 0.4), candidate(1.0, 1, 0.3)]);
    }

    #[test]
    fn of_equally_sure_ones_the_order_does_not_depend_on_who_came_first() {
        let sure = |bbox: [f32; 4], class: u32| Candidate { bbox, class, score: 0.5, cell: 0 };
        let sorted = [
            sure([9.0, -0.0, 10.0, 5.0], 7),
            sure([9.0, 0.0, 10.0, 4.0], 1),
            sure([9.0, 0.0, 10.0, 5.0], 1),
            sure([9.0, 0.0, 10.0, 5.0], 3),
            sure([9.0, 0.0, 11.0, 5.0], 0),
            sure([10.0, 0.0, 11.0, 1.0], 0),
            sure([0.0, 1.0, 1.0, 2.0], 0),
        ];
        for turn in 0..sorted.len() {
            let mut found = sorted.to_vec();
            found.rotate_left(turn);
            suppress(&mut found, 1.0, 10);
            assert_eq!(found, sorted);
        }
    }

    #[test]
    fn a_suppressed_box_suppresses_nothing() {
        // The first hides the second; the third overlaps only the second.
        let mut found = vec![candidate(0.0, 0, 0.9), candidate(3.0, 0, 0.8), candidate(6.0, 0, 0.7)];
        suppress(&mut found, 0.4, 10);
        assert_eq!(found, [candidate(0.0, 0, 0.9), candidate(6.0, 0, 0.7)]);
    }

    #[test]
    fn no_more_than_asked_for_and_no_more_than_bounded() {
        let many = (0..5000u16).map(|n| candidate(f32::from(n) * 20.0, 0, f32::from(n) / 5000.0));
        let mut found = many.collect::<Vec<_>>();
        suppress(&mut found, 0.5, 3);
        assert_eq!(found.iter().map(|c| c.score).collect::<Vec<_>>(), [0.9998, 0.9996, 0.9994]);
        let mut found = (0..5000u16).map(|n| candidate(f32::from(n) * 20.0, 0, 0.5)).collect::<Vec<_>>();
        suppress(&mut found, 0.5, 100_000);
        assert_eq!(found.len(), MAX_CANDIDATES);
    }

    proptest! {
        #[test]
        fn what_stays_is_sorted_apart_and_covers_what_goes(
            boxes in prop::collection::vec((0f32..50.0, 0f32..50.0, 1f32..30.0, 1f32..30.0, 0u32..3, 0f32..1.0), 0..60),
            threshold in 0.1f32..0.9,
        ) {
            let all = boxes.into_iter().map(|(x, y, w, h, class, score)| Candidate { bbox: [x, y, x + w, y + h], class, score, cell: 0 });
            let all = all.collect::<Vec<_>>();
            let mut kept = all.clone();
            suppress(&mut kept, threshold, 1000);
            prop_assert!(kept.windows(2).all(|pair| pair[0].score >= pair[1].score));
            for (n, a) in kept.iter().enumerate() {
                prop_assert!(kept[..n].iter().all(|b| a.class != b.class || overlap(&a.bbox, &b.bbox) <= threshold));
            }
            for a in &all {
                let covered = |b: &Candidate| a.class == b.class && b.score >= a.score && overlap(&a.bbox, &b.bbox) > threshold;
                prop_assert!(kept.contains(a) || kept.iter().any(covered));
            }
        }
    }
}

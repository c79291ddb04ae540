//! What holds for any input.

use proptest::prelude::*;

use super::*;

/// Boxes from anywhere, most of them sensible.
fn boxes() -> impl Strategy<Value = Vec<Detection>> {
    let corner = || prop_oneof![20 => -50.0f32..700.0, 1 => prop::num::f32::ANY];
    let score = prop_oneof![20 => 0.0f32..1.0, 1 => prop::num::f32::ANY];
    let sensible = (0.0f32..600.0, 0.0f32..440.0, 1.0f32..150.0, 1.0f32..150.0)
        .prop_map(|(x, y, width, height)| [x, y, (x + width).min(640.0), (y + height).min(480.0)]);
    let bbox = prop_oneof![3 => sensible, 1 => [corner(), corner(), corner(), corner()]];
    let one = (bbox, 0u32..2, score).prop_map(|(bbox, id, score)| detection(bbox, id, score));
    prop::collection::vec(one, 0..20)
}

/// A step of time in ticks, and a size.
fn step() -> impl Strategy<Value = (u32, [u32; 2])> {
    let ticks = prop_oneof![10 => 0u32..20_000, 1 => any::<u32>(), 1 => (0u32..200_000).prop_map(u32::wrapping_neg)];
    let size = prop_oneof![20 => Just(SIZE), 1 => [0u32..2_000, 0u32..2_000], 1 => any::<[u32; 2]>()];
    (ticks, size)
}

proptest! {
    #[test]
    fn whatever_comes_ids_are_unique_and_boxes_inside(
        frames in prop::collection::vec((boxes(), step(), any::<i16>()), 1..30), threshold in 0.0f32..1.0,
    ) {
        let mut tracker = Tracker::new(Config { max_objects: 12, ..Config::default() });
        let (mut now, mut shown, mut highest) = (MediaTime(u32::MAX - 40_000), Vec::new(), 0);
        for (mut found, (ticks, size), ahead) in frames {
            now = MediaTime(now.0.wrapping_add(ticks));
            tracker.update(now, size, threshold, &mut found);
            prop_assert!(found.iter().all(|found| found.score >= threshold && clip(found.bbox, size).is_some()));
            let limits = size.map(|side| side.max(1));
            tracker.predict(MediaTime(now.0.wrapping_add_signed(ahead.into())), limits, &mut shown);
            for found in &shown {
                let [x1, y1, x2, y2] = found.bbox;
                let [width, height] = limits.map(|side| side as f32);
                prop_assert!(0.0 <= x1 && x1 < x2 && x2 <= width && 0.0 <= y1 && y1 < y2 && y2 <= height, "{found:?}");
            }
            for list in [&found, &shown] {
                let mut ids: Vec<_> = list.iter().filter_map(|found| found.object_id).collect();
                let count = ids.len();
                ids.sort_unstable();
                ids.dedup();
                prop_assert_eq!(ids.len(), count);
                prop_assert!(ids.first().is_none_or(|id| *id > 0));
                highest = highest.max(ids.last().copied().unwrap_or(0));
            }
            prop_assert!(shown.is_sorted_by(|a, b| a.score >= b.score));
            prop_assert!(tracker.objects.len() <= 12 && tracker.next_id > highest);
        }
    }

    #[test]
    fn objects_that_are_well_apart_have_the_same_ids_at_any_rate(
        people in prop::collection::vec((-60.0f32..60.0, -8.0f32..8.0, 15.0f32..40.0, 0u32..2), 1..5), seed in any::<u64>(),
    ) {
        let mut all = Vec::new();
        for rate in [5, 10, 15, 30] {
            let (mut tracker, mut random) = (Tracker::new(Config::default()), Random(seed));
            let mut ids = Vec::new();
            for step in 0..=2 * rate {
                let t = step as f32 / rate as f32;
                let one = |(row, (speed_x, speed_y, side, class)): (usize, &(f32, f32, f32, u32))| {
                    let (x, y) = (320.0 + speed_x * t, 60.0 + 110.0 * row as f32 + speed_y * t);
                    let corners = [x - side / 2.0, y - side, x + side / 2.0, y + side];
                    detection(corners.map(|corner| corner + random.normal(0.03 * side)), *class, 0.8)
                };
                let mut found: Vec<_> = people.iter().enumerate().map(one).collect();
                tracker.update(seconds(f64::from(t)), SIZE, THRESHOLD, &mut found);
                ids = found.iter().map(|found| found.object_id).collect();
            }
            all.push(ids);
        }
        let expected: Vec<_> = (1..).take(people.len()).map(Some).collect();
        prop_assert!(all.iter().all(|ids| *ids == expected), "{all:?}");
    }

    #[test]
    fn at_the_time_of_a_result_boxes_are_near_those_measured(
        rate in 5u32..30, speed in -80.0f32..80.0, side in 12.0f32..80.0, seed in any::<u64>(),
    ) {
        let (mut tracker, mut random) = (Tracker::new(Config::default()), Random(seed));
        let mut shown = Vec::new();
        for step in 0..rate {
            let t = step as f32 / rate as f32;
            let (x, y) = (300.0 + speed * t, 200.0);
            let corners = [x - side / 2.0, y - side / 2.0, x + side / 2.0, y + side / 2.0];
            let mut found = vec![detection(corners.map(|corner| corner + random.normal(0.03 * side)), 0, 0.8)];
            tracker.update(seconds(f64::from(t)), SIZE, THRESHOLD, &mut found);
            tracker.predict(seconds(f64::from(t)), SIZE, &mut shown);
            prop_assert_eq!(shown.len(), 1);
            prop_assert!(overlap(wide(shown[0].bbox), wide(found[0].bbox)) > 0.6, "{:?} {:?}", shown, found);
        }
    }
}

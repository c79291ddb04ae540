//! The tracker on the drawn scene with a made-up detector.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod any_input;

use std::sync::{Arc, LazyLock};

use super::*;
use crate::accuracy::{Identities, Identity, Sighting};
use crate::scene::{Head, Scene};

const SIZE: [u32; 2] = [640, 480];
const FPS: u32 = 30;
const THRESHOLD: f32 = 0.5;
/// Frames of a video: three rounds of the animation.
const FRAMES: u64 = 36 * 30;

fn time(frame: u64) -> MediaTime {
    // Begins shortly before the clock wraps.
    MediaTime(u32::try_from(frame * 3_000).unwrap().wrapping_sub(1_000_000))
}

fn class(id: u32) -> Class {
    static NAMES: LazyLock<[Arc<str>; 2]> = LazyLock::new(|| Scene::CLASSES.map(Arc::from));
    Class { id, name: Arc::clone(&NAMES[id as usize % 2]) }
}

fn detection(bbox: [f32; 4], id: u32, score: f32) -> Detection {
    Detection { bbox, class: class(id), score, object_id: None, keypoints: Vec::new() }
}

/// Numbers from a seed (SplitMix64).
struct Random(u64);

impl Random {
    /// From 0 to 1.
    fn unit(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) >> 40) as f32 / (1u64 << 24) as f32
    }

    /// Normally distributed, or near enough, around 0 with this deviation.
    fn normal(&mut self, deviation: f32) -> f32 {
        ((0..12).map(|_| self.unit()).sum::<f32>() - 6.0) * deviation
    }

    fn happens(&mut self, share: f32) -> bool {
        self.unit() < share
    }
}

/// A true head, and which person on which way through the picture: who leaves it at one side and comes back at the other
/// is someone else to a tracker, as to the rules of MOTChallenge.
#[derive(Debug, Clone, Copy)]
struct Truth {
    id: u64,
    head: Head,
}

/// The truth of a video, frame by frame.
fn video(seed: u64) -> Vec<Vec<Truth>> {
    let scene = Scene::new(SIZE[0], SIZE[1], FPS, seed);
    let round: Vec<_> = (0..scene.loop_frames()).map(|number| scene.truth(number)).collect();
    let mut last = [(0, 0.0); 16];
    let mut frame = |number: u64| {
        let heads = &round[usize::try_from(number % scene.loop_frames()).unwrap()];
        let truth = |head: &Head| {
            let (way, x) = &mut last[head.person_id as usize];
            let jumps = number > 0 && (head.bbox[0] - *x).abs() > SIZE[0] as f32 / 2.0 && *x > 0.0;
            *way += u64::from(jumps);
            *x = head.bbox[0].max(0.1);
            Truth { id: u64::from(head.person_id) + 100 * *way, head: *head }
        };
        heads.iter().map(truth).collect::<Vec<_>>()
    };
    (0..FRAMES).map(&mut frame).collect()
}

/// What a middling detector might find: edges off by two pixels, heads missed or hardly seen, and false alarms.
fn found(truth: &[Truth], random: &mut Random) -> Vec<Detection> {
    let mut found = Vec::new();
    for Truth { head, .. } in truth {
        // What is half hidden is seen less well.
        let hidden = head.visible < 0.7;
        let missed = random.happens(if hidden { 0.1 } else { 0.02 });
        let unsure = random.happens(if hidden { 0.2 } else { 0.03 });
        let flipped = random.happens(0.01);
        let score = if unsure { 0.2 + 0.28 * random.unit() } else { 0.55 + 0.4 * random.unit() };
        let deviation = 2.0_f32.min(0.1 * (head.bbox[3] - head.bbox[1]));
        let bbox = head.bbox.map(|corner| corner + random.normal(deviation));
        if !missed && let Some(bbox) = clip(bbox, SIZE) {
            found.push(detection(bbox, if flipped { 1 - head.class_id } else { head.class_id }, score));
        }
    }
    if random.happens(0.03) {
        let (x, y, side) = (random.unit() * 600.0, random.unit() * 440.0, 12.0 + 20.0 * random.unit());
        found.push(detection([x, y, x + side, y + side], u32::from(random.happens(0.5)), 0.5 + 0.2 * random.unit()));
    }
    found
}

fn wide([x1, y1, x2, y2]: [f32; 4]) -> [f64; 4] {
    [x1, y1, x2, y2].map(f64::from)
}

fn sightings(detections: &[Detection]) -> Vec<Sighting> {
    let known = detections.iter().filter_map(|found| Some((found.object_id?, found.bbox)));
    known.map(|(id, bbox)| Sighting { id, bbox: wide(bbox) }).collect()
}

fn truths(truth: &[Truth]) -> Vec<Sighting> {
    truth.iter().map(|one| Sighting { id: one.id, bbox: wide(one.head.bbox) }).collect()
}

/// What would be reported of a frame if no identity were ever mistaken.
fn without_mistakes(number: u64, truth: &[Truth], found: &[Detection]) -> Vec<Sighting> {
    let id_of = |bbox: [f64; 4]| truth.iter().find(|one| overlap(wide(one.head.bbox), bbox) >= 0.5).map(|one| one.id);
    let sure = found.iter().filter(|found| found.score >= THRESHOLD).map(|found| wide(found.bbox));
    sure.map(|bbox| Sighting { id: id_of(bbox).unwrap_or(10_000 + number), bbox }).collect()
}

/// How well identities are kept.
#[derive(Debug, Default)]
struct Kept {
    /// What `update` reported, at the frames that were inferred, and what it could have been.
    reported: Identities,
    ceiling: Identities,
    /// What `predict` showed at the frames that were inferred, and at all.
    at_results: Identities,
    at_all: Identities,
}

/// Whether a frame is inferred.
type Chosen = fn(u64) -> bool;

/// Runs the tracker on the frames of a video that are chosen.
fn keep(seed: u64, video: &[Vec<Truth>], is_inferred: Chosen) -> Kept {
    let (mut random, mut tracker) = (Random(seed), Tracker::new(Config::default()));
    let (mut kept, mut shown) = (Kept::default(), Vec::new());
    for (number, truth) in (0..).zip(video) {
        let truths = truths(truth);
        let inferred = is_inferred(number);
        if inferred {
            let mut found = found(truth, &mut random);
            kept.ceiling.add(&truths, &without_mistakes(number, truth, &found));
            tracker.update(time(number), SIZE, THRESHOLD, &mut found);
            kept.reported.add(&truths, &sightings(&found));
        }
        tracker.predict(time(number), SIZE, &mut shown);
        kept.at_all.add(&truths, &sightings(&shown));
        if inferred {
            kept.at_results.add(&truths, &sightings(&shown));
        }
    }
    kept
}

#[test]
fn points_go_with_the_box_of_their_object() {
    let mut tracker = Tracker::new(Config::default());
    // It comes nearer while it moves to the right.
    let at = |frame: u64| {
        let (left, side) = (100.0 + 4.0 * frame as f32, 60.0 + frame as f32);
        [left, 120.0, left + side, 120.0 + side]
    };
    let points = |[x1, y1, x2, y2]: [f32; 4]| {
        // An eye, and a hand beside the box.
        [[0.25, 0.5], [1.5, 0.75]].map(|[x, y]| [x1 + (x2 - x1) * x, y1 + (y2 - y1) * y])
    };
    for frame in 0..=30 {
        let bbox = at(frame);
        let keypoints = points(bbox).map(|at| Keypoint { at, score: 0.75 }).to_vec();
        let mut found =
            vec![Detection { keypoints, ..detection(bbox, 0, 0.9) }, detection([10.0, 300.0, 60.0, 350.0], 1, 0.9)];
        tracker.update(time(frame), SIZE, THRESHOLD, &mut found);
    }
    let mut shown = Vec::new();
    for (frame, size, by) in [(30, SIZE, 1.0), (36, SIZE, 1.0), (36, SIZE.map(|side| side * 2), 2.0)] {
        tracker.predict(time(frame), size, &mut shown);
        let [with, without] = shown.as_slice() else { panic!("{shown:?}") };
        assert!(without.keypoints.is_empty());
        for (point, expected) in with.keypoints.iter().zip(points(with.bbox)) {
            let off = [0, 1].map(|axis| (point.at[axis] - expected[axis]).abs());
            assert!(
                off.iter().all(|off| *off < 0.01) && (point.score - 0.75).abs() < f32::EPSILON,
                "{point:?} {expected:?}"
            );
        }
        assert_eq!(with.keypoints.len(), 2);
        // Where it went, it is.
        let eye = points(at(frame))[0].map(|axis| axis * by);
        let off = [0, 1].map(|axis| (with.keypoints[0].at[axis] - eye[axis]).abs());
        assert!(off.iter().all(|off| *off < 5.0 * by), "{off:?} at {frame}");
    }
}

#[test]
fn identities_are_kept_at_any_rate() {
    let videos: Vec<_> = (0..6).map(video).collect();
    println!("IDF1 (switches) of 6 videos of 36 s: reported, at best, predicted at results, predicted at all frames");
    let rates: [(&str, Chosen, f64); 5] = [
        ("30 a second", |_| true, 0.95),
        ("15 a second", |number| number.is_multiple_of(2), 0.95),
        ("10 a second", |number| number.is_multiple_of(3), 0.95),
        ("10 a second, irregularly", |number| Random(number).happens(1.0 / 3.0), 0.94),
        ("5 a second", |number| number.is_multiple_of(6), 0.94),
    ];
    for (name, is_inferred, at_all) in rates {
        let runs: Vec<_> = (0..).zip(&videos).map(|(seed, video)| keep(seed, video, is_inferred)).collect();
        let all = |of: fn(&Kept) -> &Identities| {
            let identities: Vec<_> = runs.iter().map(|kept| of(kept).identity()).collect();
            let f1 = identities.iter().filter_map(Identity::f1).sum::<f64>() / runs.len() as f64;
            let least = identities.iter().filter_map(Identity::f1).fold(1.0, f64::min);
            (f1, least, identities.iter().map(|identity| identity.switches).sum::<u64>())
        };
        let [reported, ceiling, shown, shown_at_all] = [
            all(|kept| &kept.reported),
            all(|kept| &kept.ceiling),
            all(|kept| &kept.at_results),
            all(|kept| &kept.at_all),
        ];
        let figure = |(f1, least, switches): (f64, f64, u64)| format!("{f1:.3} (least {least:.3}, {switches})");
        println!("{name:>25}: {}, {:.3}, {}, {}", figure(reported), ceiling.0, figure(shown), figure(shown_at_all));
        assert!(reported.0 >= 0.95 && shown.0 >= 0.95 && shown_at_all.0 >= at_all, "{name}");
        assert!(reported.0 >= ceiling.0 - 0.01, "{name}");
        assert!(reported.1 >= 0.93 && shown.1 >= 0.93, "{name}");
        // Eight people, 36 seconds, some forty times hidden in each video.
        assert!(reported.2 <= 4 * videos.len() as u64, "{name}");
    }
}

/// How near boxes are to the true ones; sums over the true boxes that have one.
#[derive(Debug, Clone, Copy, Default)]
struct Nearness {
    objects: f64,
    shown: f64,
    overlap: f64,
    /// Distance of the centres in heights of the true box.
    off: f64,
}

impl Nearness {
    fn add(&mut self, truth: &[Truth], shown: &[Detection]) {
        for one in truth {
            let there = wide(one.head.bbox);
            let centre = |[x1, y1, x2, y2]: [f64; 4]| [f64::midpoint(x1, x2), f64::midpoint(y1, y2)];
            let off = |bbox: [f64; 4]| {
                let ([x, y], [true_x, true_y]) = (centre(bbox), centre(there));
                (x - true_x).hypot(y - true_y) / (there[3] - there[1])
            };
            let nearest = shown.iter().map(|found| wide(found.bbox)).min_by(|a, b| off(*a).total_cmp(&off(*b)));
            self.objects += 1.0;
            if let Some(nearest) = nearest.filter(|nearest| off(*nearest) < 1.0) {
                self.shown += 1.0;
                self.overlap += overlap(nearest, there);
                self.off += off(nearest);
            }
        }
    }

    fn means(&self) -> [f64; 3] {
        [self.overlap / self.shown, self.off / self.shown, self.shown / self.objects]
    }
}

/// Boxes over all frames when one in `every` is inferred and its result is there `delay` frames later: carried by
/// `predict`, those of the last result as they are, and those of the frame itself, were all inferred and waited for.
fn nearness(videos: &[Vec<Vec<Truth>>], every: u64, delay: u64) -> [[f64; 3]; 3] {
    let mut all = [Nearness::default(); 3];
    for (seed, video) in (0..).zip(videos) {
        let (mut random, mut tracker) = (Random(seed), Tracker::new(Config::default()));
        let results: Vec<_> = video.iter().map(|truth| found(truth, &mut random)).collect();
        let (mut held, mut predicted) = (Vec::new(), Vec::new());
        for (number, truth) in (0..).zip(video) {
            if let Some(inferred) = (number as u64).checked_sub(delay).filter(|inferred| inferred.is_multiple_of(every))
            {
                held = results[usize::try_from(inferred).unwrap()].clone();
                tracker.update(time(inferred), SIZE, THRESHOLD, &mut held);
            }
            tracker.predict(time(number as u64), SIZE, &mut predicted);
            let mut exact = results[number].clone();
            exact.retain(|found| found.score >= THRESHOLD);
            [&predicted, &held, &exact].into_iter().zip(&mut all).for_each(|(shown, sums)| sums.add(truth, shown));
        }
    }
    all.map(|sums| sums.means())
}

#[test]
fn predicted_boxes_are_nearer_than_those_of_the_last_result() {
    let videos: Vec<_> = (0..4).map(video).collect();
    println!("mean IoU, mean distance of centres in heights, share of heads that have a box: predicted; held; exact");
    for (rate, every, delay) in [(15, 2, 0), (5, 6, 0), (15, 2, 3), (5, 6, 3)] {
        let [predicted, held, exact] = nearness(&videos, every, delay);
        let figures = |[overlap, off, shown]: [f64; 3]| format!("{overlap:.3} {off:.3} {shown:.3}");
        let [p, h, e] = [predicted, held, exact].map(figures);
        println!("{rate:>2} a second, {delay} frames late: {p}; {h}; {e}");
        assert!(predicted[0] > held[0] && predicted[1] < held[1], "{rate} a second");
        assert!(predicted[2] >= held[2], "{rate} a second");
        if (rate, delay) == (15, 0) {
            assert!(predicted[0] > exact[0], "the filter evens out the detector's noise");
        }
    }
}

/// A box of 40×40 pixels.
fn at(x: f32, y: f32) -> [f32; 4] {
    [x - 20.0, y - 20.0, x + 20.0, y + 20.0]
}

fn seconds(seconds: f64) -> MediaTime {
    MediaTime(4_294_000_000).after(Duration::from_secs_f64(10.0 + seconds))
}

/// Updates with these detections and gives the ids of those that are reported.
fn update(tracker: &mut Tracker, time: f64, found: &[Detection]) -> Vec<Option<u64>> {
    let mut found = found.to_vec();
    tracker.update(seconds(time), SIZE, THRESHOLD, &mut found);
    found.iter().map(|found| found.object_id).collect()
}

fn shown(tracker: &Tracker, time: f64) -> Vec<Detection> {
    let mut shown = vec![detection([0.0; 4], 0, 0.0)];
    tracker.predict(seconds(time), SIZE, &mut shown);
    shown
}

/// A tracker that has followed one object, id 1, from (100, 100) to the right at 100 px/s, for one second.
fn following() -> Tracker {
    let mut tracker = Tracker::new(Config::default());
    for step in 0..=10 {
        let x = 100.0 + 10.0 * step as f32;
        assert_eq!(update(&mut tracker, f64::from(step) * 0.1, &[detection(at(x, 100.0), 0, 0.8)]), [Some(1)]);
    }
    tracker
}

#[test]
fn unsure_detections_keep_objects_and_are_not_reported() {
    let mut tracker = following();
    let unsure = [detection(at(210.0, 100.0), 0, 0.2), detection(at(400.0, 400.0), 0, 0.3)];
    assert_eq!(update(&mut tracker, 1.1, &unsure), []);
    let shown = shown(&tracker, 1.1);
    assert_eq!(shown.len(), 1, "an unsure detection makes no object: {shown:?}");
    assert!((shown[0].score, shown[0].object_id) == (0.8, Some(1)), "{shown:?}");
    assert_eq!(update(&mut tracker, 1.2, &[detection(at(220.0, 100.0), 0, 0.8)]), [Some(1)]);
}

#[test]
fn a_low_threshold_is_below_the_one_that_is_reported_and_above_noise() {
    for (threshold, low) in [(0.5, 0.15), (0.9, 0.27), (0.25, 0.1), (0.05, 0.05)] {
        assert!((Tracker::low_threshold(threshold) - low).abs() < 1e-6, "{threshold}");
    }
}

#[test]
fn objects_outlast_an_interruption_of_the_video_and_not_a_long_one() {
    let boxes = [[100.0, 100.0, 160.0, 160.0], [400.0, 200.0, 460.0, 260.0]];
    let seen = || boxes.map(|bbox| detection(bbox, 0, 0.9)).to_vec();
    let ids_after = |frames: u64, found: &mut Vec<Detection>| {
        let mut tracker = Tracker::new(Config::default());
        for frame in 0..30 {
            tracker.update(time(frame), SIZE, THRESHOLD, &mut seen());
        }
        tracker.update(time(29 + frames), SIZE, THRESHOLD, found);
        found.iter().map(|found| found.object_id.unwrap()).collect::<Vec<_>>()
    };
    for seconds in [2, 4, 8, 15] {
        assert_eq!(ids_after(seconds * 30, &mut seen()), [1, 2], "{seconds} s");
    }
    assert_eq!(ids_after(16 * 30, &mut seen()), [3, 4], "ids go on counting");
    let mut elsewhere = vec![detection([250.0, 400.0, 310.0, 460.0], 0, 0.9)];
    assert_eq!(ids_after(8 * 30, &mut elsewhere), [3], "where nobody was is somebody else");
}

#[test]
fn what_is_not_found_is_shown_where_it_should_be_for_a_while_and_remembered_for_longer() {
    let mut tracker = following();
    for step in 1..=20 {
        let now = 1.0 + 0.1 * f64::from(step);
        assert_eq!(update(&mut tracker, now, &[]), []);
        let shown = shown(&tracker, now);
        // From the fourth on it is longer than 0.3 seconds; the third may be a hair before or after it.
        assert!(step == 3 || shown.len() == usize::from(step < 3), "{now}");
        let x = |found: &Detection| f64::from(f32::midpoint(found.bbox[0], found.bbox[2]));
        assert!(shown.iter().all(|found| (x(found) - (100.0 + 100.0 * now)).abs() < 3.0), "{now}: {shown:?}");
    }
    assert_eq!(update(&mut tracker, 3.1, &[detection(at(420.0, 105.0), 0, 0.7)]), [Some(1)], "2.1 seconds later");
    let mut tracker = following();
    assert_eq!(update(&mut tracker, 2.6, &[]), []);
    assert_eq!(update(&mut tracker, 4.2, &[detection(at(420.0, 100.0), 0, 0.7)]), [Some(2)], "3.2 seconds later");
}

#[test]
fn a_stall_of_the_model_ends_the_boxes() {
    let tracker = following();
    assert_eq!(shown(&tracker, 1.9).len(), 1);
    assert_eq!(shown(&tracker, 2.1), []);
    assert!((shown(&tracker, 0.9)[0].bbox[0] - 170.0).abs() < 2.0, "a little before the last update");
    assert_eq!(shown(&tracker, -0.1), []);
}

#[test]
fn a_false_alarm_is_gone_with_the_next_result() {
    let mut tracker = Tracker::new(Config::default());
    assert_eq!(update(&mut tracker, 0.0, &[detection(at(300.0, 300.0), 0, 0.6)]), [Some(1)]);
    assert_eq!(shown(&tracker, 0.1).len(), 1);
    update(&mut tracker, 0.1, &[]);
    assert_eq!(shown(&tracker, 0.1), []);
    update(&mut tracker, 0.6, &[]);
    assert_eq!(update(&mut tracker, 0.7, &[detection(at(300.0, 300.0), 0, 0.6)]), [Some(2)]);
}

#[test]
fn a_class_mistaken_for_a_frame_is_the_same_object_and_one_that_stays_is_taken_over() {
    let mut tracker = following();
    let class_shown = |tracker: &Tracker, time| shown(tracker, time)[0].class.id;
    assert_eq!(update(&mut tracker, 1.1, &[detection(at(212.0, 101.0), 1, 0.8)]), [Some(1)]);
    assert_eq!(class_shown(&tracker, 1.1), 0);
    assert_eq!(update(&mut tracker, 1.2, &[detection(at(220.0, 100.0), 0, 0.8)]), [Some(1)]);
    for (step, class) in [(3, 0), (4, 0), (5, 1)] {
        let (now, x) = (1.0 + 0.1 * f64::from(step), 200.0 + 10.0 * step as f32);
        assert_eq!(update(&mut tracker, now, &[detection(at(x, 100.0), 1, 0.8)]), [Some(1)]);
        assert_eq!(class_shown(&tracker, now), class, "{now}");
    }
}

#[test]
fn objects_of_two_classes_at_one_place_are_two() {
    let mut tracker = Tracker::new(Config::default());
    for step in 0..5 {
        let both = [detection(at(100.0, 100.0), 1, 0.7), detection(at(103.0, 100.0), 0, 0.9)];
        assert_eq!(update(&mut tracker, 0.1 * f64::from(step), &both), [Some(1), Some(2)]);
    }
    // The object of the other class is there, but it is found itself.
    let three =
        [detection(at(100.0, 100.0), 1, 0.7), detection(at(103.0, 100.0), 0, 0.9), detection(at(98.0, 98.0), 1, 0.6)];
    assert_eq!(update(&mut tracker, 0.5, &three).iter().filter(|id| **id == Some(3)).count(), 1);
}

#[test]
fn objects_that_cross_keep_their_ids() {
    let mut tracker = Tracker::new(Config::default());
    for step in 0..=30 {
        let x = 10.0 * step as f32;
        let both = [detection(at(100.0 + x, 200.0), 0, 0.8), detection(at(400.0 - x, 206.0), 0, 0.8)];
        // In the middle only one of them is seen.
        let hidden = (13..=17).contains(&step);
        let ids = update(&mut tracker, 0.1 * f64::from(step), if hidden { &both[1..] } else { &both });
        assert_eq!(ids, if hidden { vec![Some(2)] } else { vec![Some(1), Some(2)] }, "step {step}");
    }
}

#[test]
fn an_object_that_turns_back_and_forth_is_one_and_predicted_boxes_are_nearer() {
    for every in [2, 6] {
        let (mut tracker, mut random) = (Tracker::new(Config::default()), Random(1));
        let (mut found, mut shown, mut predicted_off, mut held_off) = (Vec::new(), Vec::new(), 0.0, 0.0);
        for frame in 0_u16..600 {
            let t = f32::from(frame) / 30.0;
            // Up to two sizes a second, and as fast to the other side two seconds later.
            let place = at(320.0 + 51.0 * (t * std::f32::consts::TAU / 4.0).sin(), 200.0);
            if frame % every == 0 {
                found = vec![detection(place.map(|corner| corner + random.normal(2.0)), 0, 0.8)];
                tracker.update(seconds(f64::from(t)), SIZE, THRESHOLD, &mut found);
                assert_eq!(found[0].object_id, Some(1));
            }
            tracker.predict(seconds(f64::from(t)), SIZE, &mut shown);
            let off = |found: &Detection| (found.bbox[0] + found.bbox[2] - place[0] - place[2]).abs() / 2.0;
            predicted_off += off(&shown[0]);
            held_off += off(&found[0]);
        }
        println!("one frame in {every}: {:.2} px off, held {:.2} px", predicted_off / 600.0, held_off / 600.0);
        assert!(predicted_off < held_off, "one frame in {every}");
    }
}

#[test]
fn who_leaves_the_picture_is_not_who_comes_in_there() {
    let mut tracker = Tracker::new(Config::default());
    for step in 0..=9 {
        update(&mut tracker, 0.1 * f64::from(step), &[detection(at(540.0 + 10.0 * step as f32, 100.0), 0, 0.8)]);
    }
    update(&mut tracker, 1.3, &[]);
    assert_eq!(update(&mut tracker, 1.4, &[detection(at(625.0, 100.0), 0, 0.8)]), [Some(2)]);
}

#[test]
fn a_late_result_gets_ids_and_changes_nothing() {
    let mut tracker = following();
    let before = shown(&tracker, 1.0);
    let late = [detection(at(195.0, 100.0), 0, 0.8), detection(at(400.0, 400.0), 0, 0.8)];
    assert_eq!(update(&mut tracker, 0.95, &late), [Some(1), None]);
    assert_eq!(shown(&tracker, 1.0), before);
}

#[test]
fn a_clock_that_jumps_back_begins_anew_with_new_ids() {
    let mut tracker = following();
    assert_eq!(update(&mut tracker, -5.0, &[detection(at(200.0, 100.0), 0, 0.8)]), [Some(2)]);
    assert_eq!(shown(&tracker, -5.0).len(), 1);
    tracker.reset();
    assert_eq!(shown(&tracker, -5.0), []);
    assert_eq!(update(&mut tracker, -4.9, &[detection(at(200.0, 100.0), 0, 0.8)]), [Some(3)]);
}

#[test]
fn the_same_time_twice_is_one_object() {
    let mut tracker = following();
    assert_eq!(update(&mut tracker, 1.0, &[detection(at(201.0, 100.0), 0, 0.8)]), [Some(1)]);
    assert_eq!(update(&mut tracker, 1.1, &[detection(at(210.0, 100.0), 0, 0.8)]), [Some(1)]);
}

#[test]
fn a_picture_of_another_size_shows_the_same_objects() {
    let mut tracker = following();
    let mut found = vec![detection(at(210.0, 100.0).map(|corner| corner / 2.0), 0, 0.8)];
    tracker.update(seconds(1.1), [320, 240], THRESHOLD, &mut found);
    assert_eq!(found[0].object_id, Some(1));
    let mut after = Vec::new();
    tracker.predict(seconds(1.2), [320, 240], &mut after);
    assert!((after[0].bbox[0] - 100.0).abs() < 1.0, "at half of 200: {after:?}");
    // The next picture may have the old size again, before anything was found in it.
    let larger = shown(&tracker, 1.2);
    assert!((larger[0].bbox[0] - 200.0).abs() < 2.0 && larger[0].bbox[2] <= 640.0, "{larger:?}");
}

#[test]
fn boxes_that_are_none_are_removed_and_harm_nothing() {
    let mut tracker = following();
    let bad = [
        [f32::NAN, 80.0, 230.0, 120.0],
        [190.0, 80.0, f32::INFINITY, 120.0],
        [230.0, 80.0, 190.0, 120.0],
        [700.0, 80.0, 740.0, 120.0],
    ];
    let mut found = bad.map(|bbox| detection(bbox, 0, 0.9)).to_vec();
    found.push(detection(at(210.0, 100.0), 0, f32::NAN));
    assert_eq!(update(&mut tracker, 1.1, &found), []);
    assert_eq!(update(&mut tracker, 1.2, &[detection(at(220.0, 100.0), 0, 0.8)]), [Some(1)]);
    tracker.update(seconds(1.3), [0, 0], THRESHOLD, &mut found);
    assert_eq!(update(&mut tracker, 1.4, &[detection(at(240.0, 100.0), 0, 0.8)]), [Some(1)]);
}

#[test]
fn a_full_tracker_gives_up_whom_it_has_not_seen_for_longest() {
    let mut tracker = Tracker::new(Config { max_objects: 2, ..Config::default() });
    let [a, b, c] = [100.0, 300.0, 500.0].map(|x| detection(at(x, 100.0), 0, 0.8));
    for step in 0..3 {
        let ids = update(&mut tracker, 0.1 * f64::from(step), &[a.clone(), b.clone(), c.clone()]);
        assert_eq!(ids, [Some(1), Some(2), None], "those in sight stay");
    }
    assert_eq!(update(&mut tracker, 0.3, &[b.clone(), c.clone()]), [Some(2), Some(3)]);
    assert_eq!(update(&mut tracker, 0.4, &[a, b, c]), [None, Some(2), Some(3)]);
}

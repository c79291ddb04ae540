use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::media::{Class, Detection, MediaTime};
use crate::scene::Scene;

/// Side of the square frame, and of the boxes in it: their margin is 4 pixels.
const FRAME: f32 = 1_000.0;
const BOX: f32 = 60.0;
/// Ticks of a frame: 30 frames a second.
const STEP: u32 = 3_000;

const CLASSES: [&str; 3] = ["head", "helmet", "vest"];

/// Plays frames to a watch and writes down what it says.
struct Film {
    watch: Watch,
    time: MediaTime,
    events: Vec<Event>,
}

impl Film {
    fn new(plan: Plan) -> Self {
        // The clock wraps in the middle of most tests.
        Self { watch: Watch::new(plan), time: MediaTime(0_u32.wrapping_sub(10 * STEP)), events: Vec::new() }
    }

    fn show(&mut self, detections: &[Detection]) -> &mut Self {
        self.time = MediaTime(self.time.0.wrapping_add(STEP));
        self.watch.update(self.time, [1_000, 1_000], detections, &mut self.events);
        self
    }

    /// One object, at these places one frame after the other.
    fn walk(&mut self, id: u64, class: &str, path: impl IntoIterator<Item = Point>) -> &mut Self {
        path.into_iter().for_each(|at| {
            self.show(&[found(id, class, at)]);
        });
        self
    }

    fn empty(&mut self, frames: usize) -> &mut Self {
        (0..frames).for_each(|_| {
            self.show(&[]);
        });
        self
    }

    /// What happened since it was last asked.
    fn said(&mut self) -> Vec<String> {
        self.events.drain(..).map(|event| text(&event)).collect()
    }
}

/// An object whose center is at fractions of the frame.
fn found(id: u64, class: &str, [x, y]: Point) -> Detection {
    let class_id = CLASSES.iter().position(|name| *name == class).unwrap();
    let class = Class { id: u32::try_from(class_id).unwrap(), name: class.into() };
    let (x, y, half) = (x * FRAME, y * FRAME, BOX / 2.0);
    Detection {
        bbox: [x - half, y - half, x + half, y + half],
        class,
        score: 0.9,
        object_id: Some(id),
        keypoints: Vec::new(),
    }
}

fn text(event: &Event) -> String {
    let ms = |duration: &Duration| duration.as_millis();
    match event {
        Event::Entered { zone, object, count } => format!("{} #{} into {zone}: {count}", object.class.name, object.id),
        Event::Left { zone, object, dwell, count } => {
            format!("{} #{} out of {zone} after {} ms: {count}", object.class.name, object.id, ms(dwell))
        }
        Event::Dwelled { zone, object, dwell } => format!("#{} in {zone} for {} ms", object.id, ms(dwell)),
        Event::Crossed { line, direction, object, left_to_right, right_to_left } => {
            let way = if *direction == Direction::LeftToRight { "right" } else { "left" };
            format!("#{} over {line} to the {way}: {left_to_right}, {right_to_left}", object.id)
        }
        Event::AlertStarted { rule, zone, object, count } => {
            let id = object.as_ref().map(|object| object.id);
            format!("{rule} in {zone} about {id:?}: {count}")
        }
        Event::AlertEnded { rule, zone, object_id, duration } => {
            format!("{rule} in {zone} about {object_id:?} over after {} ms", ms(duration))
        }
    }
}

fn zone(name: &str, polygon: &[Point]) -> Zone {
    Zone { name: name.into(), polygon: polygon.to_vec(), anchor: Anchor::Center, dwell: None }
}

/// From x 0.4 to 0.6 and y 0.4 to 0.6.
fn middle() -> Zone {
    zone("middle", &[[0.4, 0.4], [0.6, 0.4], [0.6, 0.6], [0.4, 0.6]])
}

/// Goes right, from 0.2 to 0.8, half way down.
fn level() -> Line {
    Line { name: "level".into(), points: [[0.2, 0.5], [0.8, 0.5]], anchor: Anchor::Center }
}

fn rule(name: &str, classes: &[&str], longer_than: f64, more_than: Option<u32>) -> Rule {
    let classes = (!classes.is_empty()).then(|| classes.iter().map(|&name| name.into()).collect());
    let longer_than = Duration::from_secs_f64(longer_than);
    Rule { name: name.into(), zone: "middle".into(), classes, longer_than, more_than }
}

fn zones(zones: impl Into<Vec<Zone>>) -> Plan {
    Plan { zones: zones.into(), ..Plan::default() }
}

fn lines(lines: impl Into<Vec<Line>>) -> Plan {
    Plan { lines: lines.into(), ..Plan::default() }
}

fn rules(rules: impl Into<Vec<Rule>>) -> Plan {
    Plan { zones: vec![middle()], rules: rules.into(), ..Plan::default() }
}

/// `frames` steps from one point to another, both included.
fn way(from: Point, to: Point, frames: u32) -> impl Iterator<Item = Point> {
    (0..=frames).map(move |step| {
        let part = step as f32 / frames as f32;
        [0, 1].map(|axis| from[axis] + part * (to[axis] - from[axis]))
    })
}

fn stay(at: Point, frames: usize) -> impl Iterator<Item = Point> {
    std::iter::repeat_n(at, frames)
}

const IN: Point = [0.5, 0.5];
const OUT: Point = [0.8, 0.5];

#[test]
fn who_walks_through_a_zone_comes_and_goes_once() {
    let mut film = Film::new(zones([middle()]));
    film.walk(7, "head", way([0.1, 0.5], [0.9, 0.5], 80));
    // From 0.4 to 0.6 at 0.01 a frame.
    assert_eq!(film.said(), ["head #7 into middle: 1", "head #7 out of middle after 633 ms: 0"]);
}

#[test]
fn zones_count_who_is_inside() {
    let mut film = Film::new(zones([middle()]));
    let at = |id: u64, inside| found(id, "head", if inside { IN } else { OUT });
    film.show(&[at(1, true), at(2, true)]).show(&[at(1, true), at(2, false), at(3, true)]);
    film.show(&[at(1, false), at(2, true), at(3, false)]);
    let said = film.said();
    let counts: Vec<_> = said.iter().map(|said| said.rsplit(' ').next().unwrap()).collect();
    assert_eq!(counts, ["1", "2", "1", "2", "1", "2", "1"], "{said:?}");
}

#[test]
fn the_anchor_tells_where_an_object_is() {
    let mut film = Film::new(zones([Zone { anchor: Anchor::Bottom, ..middle() }]));
    film.walk(1, "head", stay([0.5, 0.58], 60));
    assert_eq!(film.said(), [""; 0]);
    film.walk(1, "head", stay([0.5, 0.38], 1));
    assert_eq!(film.said(), ["head #1 into middle: 1"]);
}

#[test]
fn a_stay_is_reported_once_when_it_has_lasted() {
    let mut film = Film::new(zones([Zone { dwell: Some(Duration::from_secs(1)), ..middle() }]));
    film.walk(1, "head", stay(IN, 30));
    assert_eq!(film.said(), ["head #1 into middle: 1"]);
    film.walk(1, "head", stay(IN, 60)).walk(1, "head", [OUT]);
    assert_eq!(film.said(), ["#1 in middle for 1000 ms", "head #1 out of middle after 2966 ms: 0"]);
    film.walk(1, "head", stay(IN, 31));
    assert_eq!(film.said(), ["head #1 into middle: 1", "#1 in middle for 1000 ms"]);
}

#[test]
fn who_stops_just_over_the_border_comes_and_goes_too() {
    let mut film = Film::new(zones([middle()]));
    film.walk(1, "head", [OUT]).walk(1, "head", stay([0.598, 0.5], 40));
    assert_eq!(film.said(), ["head #1 into middle: 1"]);
    film.walk(1, "head", [IN]).walk(1, "head", stay([0.602, 0.5], 40));
    // It counts as inside until it was last seen there.
    assert_eq!(film.said(), ["head #1 out of middle after 1333 ms: 0"]);
}

#[test]
fn a_lost_object_leaves_when_it_was_last_seen() {
    let mut film = Film::new(zones([middle()]));
    film.walk(1, "head", stay(IN, 31)).empty(44);
    assert_eq!(film.said(), ["head #1 into middle: 1"]);
    film.empty(1);
    assert_eq!(film.said(), ["head #1 out of middle after 1000 ms: 0"]);
    film.empty(100).walk(1, "head", [IN]);
    assert_eq!(film.said(), ["head #1 into middle: 1"]);
}

#[test]
fn a_missed_object_stays() {
    let mut film = Film::new(zones([middle()]));
    for _ in 0..20 {
        film.walk(1, "head", [IN]).empty(20);
    }
    assert_eq!(film.said(), ["head #1 into middle: 1"]);
    // One frame a second: it is missed in two of them.
    for detections in [&[found(1, "head", IN)][..], &[], &[], &[found(1, "head", IN)]] {
        film.time = film.time.after(Duration::from_secs(1));
        film.show(detections);
    }
    assert_eq!(film.said(), [""; 0]);
}

#[test]
fn a_stream_that_begins_anew_keeps_who_is_there() {
    let mut film = Film::new(zones([middle()]));
    film.walk(1, "head", stay(IN, 31));
    film.time = MediaTime(film.time.0.wrapping_sub(1 << 30));
    film.walk(1, "head", stay(IN, 31)).walk(1, "head", [OUT]);
    // One and one second; the frame between the two takes no time.
    assert_eq!(film.said(), ["head #1 into middle: 1", "head #1 out of middle after 2000 ms: 0"]);
}

#[test]
fn lines_tell_the_way() {
    let mut film = Film::new(lines([level()]));
    // The line goes right, so that its right hand is down.
    film.walk(1, "head", way([0.5, 0.3], [0.5, 0.7], 20)).walk(1, "head", way([0.5, 0.7], [0.4, 0.3], 20));
    film.walk(2, "head", way([0.7, 0.3], [0.6, 0.7], 20));
    let expected =
        ["#1 over level to the right: 1, 0", "#1 over level to the left: 1, 1", "#2 over level to the right: 2, 1"];
    assert_eq!(film.said(), expected);
    let up = Line { points: [[0.5, 0.8], [0.5, 0.2]], name: "up".into(), anchor: Anchor::Center };
    let mut film = Film::new(lines([up]));
    film.walk(1, "head", way([0.3, 0.5], [0.7, 0.5], 20));
    assert_eq!(film.said(), ["#1 over up to the right: 1, 0"]);
}

#[test]
fn an_extension_is_no_line() {
    let mut film = Film::new(lines([level()]));
    film.walk(1, "head", way([0.1, 0.3], [0.1, 0.7], 20)).walk(1, "head", way([0.9, 0.7], [0.9, 0.3], 20));
    assert_eq!(film.said(), [""; 0], "around either end");
    // Over the line by less than the margin, back around the end, and over it again.
    let path = [[0.75, 0.45], [0.75, 0.502], [0.85, 0.502], [0.85, 0.45], [0.75, 0.45], [0.75, 0.55]];
    film.walk(2, "head", path);
    assert_eq!(film.said(), ["#2 over level to the right: 1, 0"]);
    // Over the line by less than the margin, and clear of it beyond the end.
    film.walk(3, "head", [[0.79, 0.45], [0.79, 0.502], [0.9, 0.502], [0.9, 0.6]]);
    assert_eq!(film.said(), ["#3 over level to the right: 2, 0"]);
}

#[test]
fn a_jump_over_a_line_counts_once() {
    let mut film = Film::new(lines([level()]));
    film.walk(1, "head", [[0.5, 0.1]]).empty(10).walk(1, "head", [[0.5, 0.9], [0.5, 0.9]]);
    assert_eq!(film.said(), ["#1 over level to the right: 1, 0"]);
    film.walk(1, "head", [[0.1, 0.1]]).walk(1, "head", [[0.1, 0.9]]);
    assert_eq!(film.said(), ["#1 over level to the left: 1, 1"], "the second jump leads past the end");
}

#[test]
fn wobbling_along_a_line_counts_once() {
    let mut film = Film::new(lines([level()]));
    let wobble = (0..60_u8).map(|step| [0.3 + 0.005 * f32::from(step), if step % 4 < 2 { 0.4975 } else { 0.5025 }]);
    film.walk(1, "head", [[0.3, 0.45]]).walk(1, "head", wobble);
    assert_eq!(film.said(), [""; 0]);
    film.walk(1, "head", [[0.6, 0.51]]);
    assert_eq!(film.said(), ["#1 over level to the right: 1, 0"]);
    film.walk(1, "head", [[0.6, 0.498], [0.6, 0.51], [0.6, 0.498]]).walk(1, "head", stay([0.6, 0.51], 90));
    assert_eq!(film.said(), [""; 0]);
}

#[test]
fn who_stops_just_over_a_line_has_crossed_it_once() {
    let mut film = Film::new(lines([level()]));
    film.walk(1, "head", [[0.5, 0.45]]).walk(1, "head", stay([0.5, 0.502], 40)).walk(1, "head", stay([0.5, 0.498], 90));
    film.walk(1, "head", way([0.5, 0.498], [0.5, 0.6], 20));
    assert_eq!(film.said(), ["#1 over level to the right: 1, 0"]);
}

#[test]
fn who_appears_on_a_line_has_not_crossed_it() {
    let mut film = Film::new(lines([level()]));
    film.walk(1, "head", way([0.5, 0.499], [0.5, 0.6], 30)).walk(2, "head", way([0.5, 0.501], [0.5, 0.4], 30));
    assert_eq!(film.said(), [""; 0]);
}

#[test]
fn a_rule_is_about_each_object_of_its_classes() {
    let mut film = Film::new(rules([rule("bare head", &["head"], 2.0, None)]));
    let frame = |heads: &[u64]| -> Vec<_> {
        let heads = heads.iter().map(|&id| found(id, "head", IN));
        heads.chain([found(9, "helmet", IN)]).collect()
    };
    for _ in 0..60 {
        film.show(&frame(&[1]));
    }
    for _ in 0..60 {
        film.show(&frame(&[1, 2]));
    }
    let expected = [
        "head #1 into middle: 1",
        "helmet #9 into middle: 2",
        "head #2 into middle: 3",
        "bare head in middle about Some(1): 2",
    ];
    assert_eq!(film.said(), expected);
    film.show(&[found(1, "head", OUT), found(2, "head", IN), found(9, "helmet", IN)]);
    let expected = [
        "head #1 out of middle after 3966 ms: 2",
        "bare head in middle about Some(1) over after 1966 ms",
        "bare head in middle about Some(2): 1",
    ];
    assert_eq!(film.said(), expected);
    film.empty(60);
    assert!(film.said().contains(&"bare head in middle about Some(2) over after 0 ms".to_owned()));
}

#[test]
fn a_detector_that_misses_or_mistakes_an_object_ends_no_alert() {
    let mut film = Film::new(rules([rule("bare head", &["head"], 1.0, None)]));
    film.walk(1, "head", stay(IN, 29));
    // A frame that shows it is needed, however long it is thought to be there.
    film.empty(30).walk(1, "helmet", stay(IN, 10));
    assert_eq!(film.said(), ["head #1 into middle: 1"]);
    for _ in 0..5 {
        film.walk(1, "head", [IN]).empty(2).walk(1, "helmet", stay(IN, 2));
    }
    assert_eq!(film.said(), ["bare head in middle about Some(1): 1"]);
    film.walk(1, "helmet", stay(IN, 60));
    // From the first to the last of the five.
    assert_eq!(film.said(), ["bare head in middle about Some(1) over after 666 ms"]);
    film.walk(1, "head", stay(IN, 31));
    assert_eq!(film.said(), ["bare head in middle about Some(1): 1"], "its time begins anew");
}

#[test]
fn a_rule_about_a_number_is_about_the_zone() {
    let mut film = Film::new(rules([rule("crowd", &[], 1.0, Some(2)), rule("anyone", &["vest"], 0.0, Some(0))]));
    let show = |film: &mut Film, count: u64, frames: usize| {
        let detections: Vec<_> = (0..count).map(|id| found(id, "head", IN)).collect();
        (0..frames).for_each(|_| {
            film.show(&detections);
        });
    };
    show(&mut film, 2, 60);
    film.said();
    show(&mut film, 3, 30);
    assert_eq!(film.said(), ["head #2 into middle: 3"]);
    show(&mut film, 2, 2);
    show(&mut film, 3, 1);
    assert_eq!(film.said(), ["crowd in middle about None: 3"]);
    show(&mut film, 2, 2);
    show(&mut film, 4, 30);
    show(&mut film, 2, 60);
    let said = film.said();
    assert_eq!(
        said.iter().filter(|said| said.starts_with("crowd")).collect::<Vec<_>>(),
        ["crowd in middle about None over after 1066 ms"]
    );
    film.walk(20, "vest", [IN]);
    assert_eq!(film.said().last().unwrap(), "anyone in middle about None: 1");
}

#[test]
fn what_stays_the_same_keeps_its_state() {
    let other = zone("other", &[[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]);
    let bare = rule("bare head", &["head"], 1.0, None);
    let plan = Plan { zones: vec![middle()], lines: vec![level()], rules: vec![bare.clone()] };
    let mut film = Film::new(plan.clone());
    film.walk(1, "head", way([0.5, 0.45], [0.5, 0.55], 40));
    let expected =
        ["head #1 into middle: 1", "#1 over level to the right: 1, 0", "bare head in middle about Some(1): 1"];
    assert_eq!(film.said(), expected);

    // In another order, among new ones.
    let steep = Line { name: "steep".into(), points: [[0.5, 0.0], [0.5, 1.0]], anchor: Anchor::Center };
    let fresh = rule("fresh", &[], 0.0, None);
    film.watch.configure(Plan {
        zones: vec![other.clone(), middle()],
        lines: vec![steep, level()],
        rules: vec![fresh, bare.clone()],
    });
    film.walk(1, "head", way([0.45, 0.55], [0.45, 0.45], 10));
    let expected = ["head #1 into other: 1", "fresh in middle about Some(1): 1", "#1 over level to the left: 1, 1"];
    assert_eq!(film.said(), expected);

    // Another zone of the same name: who is inside leaves and comes in anew, and its alerts end.
    let wider = Zone { anchor: Anchor::Bottom, ..middle() };
    film.watch.configure(Plan { zones: vec![wider], lines: vec![level()], rules: vec![bare] });
    film.walk(1, "head", [[0.45, 0.45]]);
    let expected = [
        "fresh in middle about Some(1) over after 333 ms",
        "bare head in middle about Some(1) over after 700 ms",
        "head #1 out of other after 333 ms: 0",
        "head #1 out of middle after 1700 ms: 0",
        "head #1 into middle: 1",
    ];
    assert_eq!(film.said(), expected);

    film.watch.configure(Plan::default());
    assert!(!film.watch.is_empty(), "someone has to be told to have left");
    film.empty(1);
    assert_eq!(film.said().len(), 1);
    assert!(film.watch.is_empty());
}

#[test]
fn what_has_no_identity_or_no_place_is_passed_over() {
    let mut film = Film::new(zones([middle()]));
    let nobody = Detection { object_id: None, ..found(1, "head", IN) };
    let nowhere = Detection { bbox: [f32::NAN, 480.0, 520.0, 520.0], ..found(1, "head", IN) };
    film.show(&[nobody, nowhere]);
    film.watch.update(film.time, [0, 1_000], &[found(1, "head", IN)], &mut film.events);
    assert_eq!(film.said(), [""; 0]);
    film.show(&[found(1, "head", IN), found(1, "head", OUT)]);
    assert_eq!(film.said(), ["head #1 into middle: 1"], "the first of two counts");
}

#[test]
fn another_resolution_changes_nothing() {
    let mut film = Film::new(zones([middle()]));
    for size in [[1_000, 1_000], [640, 360], [320, 180], [360, 640]] {
        let scaled = |value: f32, side: u32| value * side as f32 / FRAME;
        let mut detection = found(1, "head", IN);
        detection.bbox = [0, 1, 2, 3].map(|side| scaled(detection.bbox[side], size[side % 2]));
        film.watch.update(film.time, size, &[detection], &mut film.events);
    }
    assert_eq!(film.said(), ["head #1 into middle: 1"]);
}

#[test]
fn memory_is_bounded() {
    let mut film = Film::new(zones([middle()]));
    let crowd: Vec<_> = (0..3_000).map(|id| found(id, "head", IN)).collect();
    for chunk in crowd.chunks(500) {
        film.show(chunk);
    }
    assert_eq!(film.said().len(), MAX_OBJECTS);
    film.empty(60).show(&crowd[2_000..]);
    assert_eq!(film.said().len(), MAX_OBJECTS + 1_000);
}

#[test]
fn a_polygon_that_makes_no_sense_contains_nothing() {
    let shapes: [&[Point]; 4] =
        [&[], &[[0.0, 0.0], [1.0, 1.0]], &[[0.5, 0.5]; 9], &[[f32::NAN, 0.0], [1.0, 0.0], [1.0, 1.0]]];
    let mut film = Film::new(zones(shapes.map(|shape| zone("odd", shape))));
    film.walk(1, "head", stay(IN, 60));
    assert_eq!(film.said(), [""; 0]);
}

/// A number in 0..1 (SplitMix64).
fn random(state: &mut u64) -> f32 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((mixed ^ (mixed >> 31)) >> 40) as f32 / (1_u64 << 24) as f32
}

/// "A head without a helmet in the work zone for two seconds", on the drawn building site as a detector sees it: boxes
/// tremble, and one in twelve is missed.
#[test]
fn bare_heads_in_the_work_zone_raise_one_alert_each() {
    const SIZE: [u32; 2] = [640, 480];
    let polygon = vec![[0.25, 0.3], [0.7, 0.3], [0.75, 0.95], [0.2, 0.95]];
    let work = Zone { polygon, ..zone("work", &[]) };
    let bare = Rule { zone: "work".into(), ..rule("bare head", &["head"], 2.0, None) };
    for seed in 1..4 {
        let scene = Scene::new(SIZE[0], SIZE[1], 30, seed);
        let mut watch = Watch::new(Plan { zones: vec![work.clone()], lines: Vec::new(), rules: vec![bare.clone()] });
        let (mut state, mut events) = (seed, Vec::new());
        // By object: frames in which its true center is inside.
        let mut inside: BTreeMap<u64, (u32, u32)> = BTreeMap::new();
        let (mut ids, mut next): (BTreeMap<u32, (u64, f32)>, u64) = (BTreeMap::new(), 0);
        for number in 0..2 * scene.loop_frames() {
            let mut detections = Vec::new();
            for head in scene.truth(number) {
                let [x0, y0, x1, y1] = head.bbox;
                let center = [(x0 + x1) / 2.0 / 640.0, (y0 + y1) / 2.0 / 480.0];
                // Who comes back in on the other side is someone else.
                let (id, last) = ids.entry(head.person_id).or_insert((next, center[0]));
                if (center[0] - *last).abs() > 0.4 {
                    *id = next;
                }
                *last = center[0];
                next += 1;
                let (frames, class_id) = inside.entry(*id).or_insert((0, head.class_id));
                assert_eq!(*class_id, head.class_id);
                let shape = geometry::Polygon::new(&work.polygon, 1.0);
                *frames += u32::from(shape.position(center, 0.0).0);
                let mut jitter = || 4.0 * random(&mut state) - 2.0;
                let bbox = [x0 + jitter(), y0 + jitter(), x1 + jitter(), y1 + jitter()];
                if random(&mut state) > 1.0 / 12.0 {
                    let name = Scene::CLASSES[head.class_id as usize].into();
                    let class = Class { id: head.class_id, name };
                    detections.push(Detection { bbox, class, score: 0.8, object_id: Some(*id), keypoints: Vec::new() });
                }
            }
            let time = MediaTime(u32::try_from(number).unwrap() * STEP);
            watch.update(time, SIZE, &detections, &mut events);
        }
        let about = |event: &Event| match event {
            Event::AlertStarted { object, .. } => object.as_ref().map(|object| object.id),
            _ => None,
        };
        let started: Vec<_> = events.iter().filter_map(about).collect();
        let once: BTreeSet<_> = started.iter().copied().collect();
        assert_eq!(started.len(), once.len(), "seed {seed}: an alert came twice");
        // A fifth of a second either way is the margin's and the misses'.
        let long = |frames: u32, class_id: u32| class_id == 0 && frames >= 66;
        let due: BTreeSet<_> = inside.iter().filter(|(_, of)| long(of.0, of.1)).map(|(id, _)| *id).collect();
        assert!(due.len() >= 4, "seed {seed}: {inside:?}");
        assert!(due.is_subset(&once), "seed {seed}: {due:?} {once:?}");
        for id in &once {
            let (frames, class_id) = inside[id];
            assert!(
                class_id == 0 && frames >= 60,
                "seed {seed}: {id} was inside for {frames} frames, class {class_id}"
            );
        }
        for (id, _) in inside {
            let comings =
                events.iter().filter(|event| matches!(event, Event::Entered { object, .. } if object.id == id));
            assert!(comings.count() <= 1, "seed {seed}: {id} came in more than once");
        }
    }
}

/// What a peer may do to a watch.
#[derive(Debug, Clone)]
enum Act {
    /// Time passes, and these objects are there: id, class, box.
    Show(u32, Vec<(u64, usize, [f32; 4])>),
    Configure(Plan),
}

fn coordinate() -> impl Strategy<Value = f32> {
    prop_oneof![20 => 0.0..1_000.0f32, 1 => Just(f32::NAN), 1 => any::<f32>()]
}

fn plan() -> impl Strategy<Value = Plan> {
    let area = |name: &'static str| {
        let corners = prop::collection::vec([-0.1..1.1f32, -0.1..1.1f32], 0..8);
        (corners, 0..3_u64).prop_map(move |(polygon, dwell)| {
            let dwell = (dwell > 0).then(|| Duration::from_millis(200 * dwell));
            // A few shapes come again, so that some are kept.
            let polygon = if polygon.len() < 3 { middle().polygon } else { polygon };
            Zone { dwell, ..zone(name, &polygon) }
        })
    };
    let gate = prop_oneof![Just(level().points), prop::array::uniform2([0.0..1.0f32, 0.0..1.0f32])]
        .prop_map(|points| Line { points, ..level() });
    let guard = |name: &'static str| {
        (0..3_usize, 0..4_u32, prop::option::of(0..3_u32))
            .prop_map(move |(class, tenths, most)| rule(name, &CLASSES[..class], f64::from(tenths) / 10.0, most))
    };
    (area("middle"), area("second"), gate, guard("one"), guard("two")).prop_map(|(first, second, gate, one, two)| {
        Plan { zones: vec![first, second], lines: vec![gate], rules: vec![one, Rule { zone: "second".into(), ..two }] }
    })
}

fn act() -> impl Strategy<Value = Act> {
    let there = prop::collection::vec((0..5_u64, 0..3_usize, prop::array::uniform4(coordinate())), 0..5);
    let step = prop_oneof![10 => Just(STEP), 3 => 0..200_000_u32, 1 => any::<u32>()];
    prop_oneof![30 => (step, there).prop_map(|(step, there)| Act::Show(step, there)), 1 => plan().prop_map(Act::Configure)]
}

proptest! {
    #[test]
    fn jitter_at_a_border_is_one_coming_at_most(
        path in prop::collection::vec((-0.0039..0.0039f32, 0.41..0.59f32), 1..400), missed in any::<u64>(),
    ) {
        let mut film = Film::new(Plan { zones: vec![middle()], lines: vec![level()], rules: Vec::new() });
        for (number, (offset, along)) in path.into_iter().enumerate() {
            // Half a second at most is missed in a row.
            if number % 16 != 0 && missed >> (number % 64) & 1 == 0 {
                film.empty(1);
            } else {
                // Along the left border of the zone, and along the line.
                film.show(&[found(1, "head", [0.4 + offset, along]), found(2, "head", [along + 0.1, 0.5 + offset])]);
            }
        }
        let of_first = |event: &&Event| matches!(event, Event::Entered { object, .. } if object.id == 1);
        prop_assert!(film.events.iter().filter(of_first).count() <= 1);
        let crossed = film.events.iter().any(|event| matches!(event, Event::Crossed { object, .. } if object.id == 2));
        prop_assert!(!crossed, "{:?}", film.events);
        let left = film.events.iter().any(|event| matches!(event, Event::Left { object, .. } if object.id == 1));
        prop_assert!(!left, "{:?}", film.events);
    }

    #[test]
    fn comings_and_goings_add_up(first in plan(), acts in prop::collection::vec(act(), 0..120)) {
        let mut film = Film::new(first);
        for act in acts {
            match act {
                Act::Configure(plan) => film.watch.configure(plan),
                Act::Show(step, there) => {
                    let detections: Vec<_> = there
                        .into_iter()
                        .map(|(id, class, bbox)| Detection { bbox, ..found(id, CLASSES[class], IN) })
                        .collect();
                    film.time = MediaTime(film.time.0.wrapping_add(step));
                    film.watch.update(film.time, [1_000, 1_000], &detections, &mut film.events);
                }
            }
        }
        film.watch.configure(Plan::default());
        film.empty(1);
        prop_assert!(film.watch.is_empty());

        let mut inside: BTreeMap<Arc<str>, BTreeSet<u64>> = BTreeMap::new();
        let (mut totals, mut alerts) = ([0, 0], BTreeSet::new());
        for event in film.events {
            match event {
                Event::Entered { zone, object, count } => {
                    let zone = inside.entry(zone).or_default();
                    prop_assert!(zone.insert(object.id));
                    prop_assert_eq!(zone.len(), count as usize);
                }
                Event::Dwelled { zone, object, .. } => prop_assert!(inside[&zone].contains(&object.id)),
                Event::Left { zone, object, count, .. } => {
                    let zone = inside.entry(zone).or_default();
                    prop_assert!(zone.remove(&object.id));
                    prop_assert_eq!(zone.len(), count as usize);
                }
                Event::Crossed { direction, left_to_right, right_to_left, .. } => {
                    // A line that was set anew counts from nothing.
                    if left_to_right + right_to_left == 1 {
                        totals = [0, 0];
                    }
                    totals[usize::from(direction == Direction::RightToLeft)] += 1;
                    prop_assert_eq!(totals, [left_to_right, right_to_left]);
                }
                Event::AlertStarted { rule, object, count, .. } => {
                    prop_assert!(count > 0);
                    prop_assert!(alerts.insert((rule, object.map(|object| object.id))));
                }
                Event::AlertEnded { rule, object_id, .. } => prop_assert!(alerts.remove(&(rule, object_id))),
            }
        }
        prop_assert!(inside.values().all(BTreeSet::is_empty) && alerts.is_empty());
    }
}

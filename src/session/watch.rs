//! Whether the zones, lines and rules of options make sense, among themselves and with the model.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use saccade_signaling::{
    Line, MAX_LINES, MAX_NAME_CHARS, MAX_POLYGON_POINTS, MAX_RULES, MAX_ZONES, Options, Point, Rule, Zone,
};

use super::options::{ModelFacts, Problems, list, shorten};

/// Legal corners of a zone.
const CORNERS: RangeInclusive<usize> = 3..=MAX_POLYGON_POINTS;
/// Legal coordinates.
const COORDINATE: RangeInclusive<f32> = 0.0..=1.0;
/// Legal seconds.
const SECONDS: RangeInclusive<f64> = 0.0..=86_400.0;
/// Smallest zone, as a part of the frame.
const LEAST_AREA: f64 = 0.0001;
/// Shortest line, as a part of the frame's sides.
const LEAST_LENGTH: f64 = 0.001;

/// Adds every problem of the zones, lines and rules in `options`, which is what is to be in force. Without `facts` the
/// model is unknown, and so are its classes.
pub(super) fn check(options: &Options, facts: Option<&ModelFacts>, problems: &mut Problems) {
    let Options { zones, lines, rules, .. } = options;
    let is_idle = zones.is_empty() && lines.is_empty() && rules.is_empty();
    if !is_idle && !options.track {
        problems
            .add("`zones`, `lines` and `rules` need objects that are followed; set `track` to true or leave them out");
    }
    // Of lists that are too long, the first entries show what else is wrong.
    problems.within("zones", zones.len(), &(0..=MAX_ZONES));
    problems.within("lines", lines.len(), &(0..=MAX_LINES));
    problems.within("rules", rules.len(), &(0..=MAX_RULES));
    check_names("zones", zones.iter().take(MAX_ZONES).map(|zone| &zone.name), problems);
    check_names("lines", lines.iter().take(MAX_LINES).map(|line| &line.name), problems);
    check_names("rules", rules.iter().take(MAX_RULES).map(|rule| &rule.name), problems);
    for (index, zone) in zones.iter().take(MAX_ZONES).enumerate() {
        check_zone(index, zone, problems);
    }
    for (index, line) in lines.iter().take(MAX_LINES).enumerate() {
        check_line(index, line, problems);
    }
    for (index, rule) in rules.iter().take(MAX_RULES).enumerate() {
        check_rule(index, rule, options, facts, problems);
    }
}

fn check_names<'a>(key: &str, names: impl Iterator<Item = &'a String>, problems: &mut Problems) {
    let mut seen = BTreeSet::new();
    for (index, name) in names.enumerate() {
        let length = if name.trim().is_empty() { 0 } else { name.chars().count() };
        if !(1..=MAX_NAME_CHARS).contains(&length) {
            problems.add(format!("`{key}[{index}].name`: {length} characters are not in 1..{MAX_NAME_CHARS}"));
        } else if !seen.insert(name) {
            problems.add(format!("`{key}[{index}].name`: there is another `{name}`; each needs its own"));
        }
    }
}

fn check_zone(index: usize, zone: &Zone, problems: &mut Problems) {
    let key = format!("zones[{index}].polygon");
    if !CORNERS.contains(&zone.polygon.len()) {
        let (least, most) = (CORNERS.start(), CORNERS.end());
        problems.add(format!("`{key}`: {} corners are not in {least}..{most}", zone.polygon.len()));
    } else if are_inside(&key, &zone.polygon, problems) {
        let corners = distinct(&zone.polygon);
        if are_crossing(&corners) {
            problems.add(format!("`{key}`: its sides cross or touch; list the corners in order around the zone"));
        } else if area(&corners) < LEAST_AREA {
            problems.add(format!("`{key}`: it has no area; it needs {LEAST_AREA} of the frame"));
        }
    }
    if let Some(seconds) = zone.dwell_s {
        problems.within(&format!("zones[{index}].dwell_s"), seconds, &SECONDS);
    }
}

fn check_line(index: usize, line: &Line, problems: &mut Problems) {
    let key = format!("lines[{index}].points");
    if are_inside(&key, &line.points, problems) {
        let [x, y] = minus(line.points[1], line.points[0]);
        if x.hypot(y) < LEAST_LENGTH {
            problems.add(format!("`{key}`: the ends are at one place; put them {LEAST_LENGTH} apart or more"));
        }
    }
}

fn check_rule(index: usize, rule: &Rule, options: &Options, facts: Option<&ModelFacts>, problems: &mut Problems) {
    if !options.zones.iter().any(|zone| zone.name == rule.zone) {
        let known = list(options.zones.iter().map(|zone| &zone.name));
        let known = if known.is_empty() { "there are none".to_owned() } else { format!("there are {known}") };
        let named = list([&rule.zone].into_iter());
        problems.add(format!("`rules[{index}].zone`: there is no zone {named}; {known}"));
    }
    problems.within(&format!("rules[{index}].longer_than_s"), rule.longer_than_s, &SECONDS);
    let (Some(classes), Some(facts)) = (&rule.classes, facts) else { return };
    let (known, unknown): (BTreeSet<_>, BTreeSet<_>) = classes.iter().partition(|name| facts.classes.contains(name));
    if !unknown.is_empty() {
        let (unknown, all) = (list(unknown.into_iter()), list(facts.classes.iter()));
        problems.add(format!("`rules[{index}].classes`: `{}` has no {unknown}; it has {all}", facts.name));
    }
    if let Some(reported) = &options.classes {
        let hidden: Vec<_> = known.into_iter().filter(|name| !reported.contains(name)).collect();
        if !hidden.is_empty() {
            let hidden = list(hidden.into_iter());
            problems.add(format!("`rules[{index}].classes`: {hidden} would never be seen; add it to `classes`"));
        }
    }
}

/// Adds the first point that is not inside the frame, if there is one.
fn are_inside(key: &str, points: &[Point], problems: &mut Problems) -> bool {
    let outside = points.iter().find(|point| !point.iter().all(|value| COORDINATE.contains(value)));
    if let Some([x, y]) = outside {
        let (least, most) = (COORDINATE.start(), COORDINATE.end());
        let [x, y] = [x, y].map(|value| shorten(&value.to_string()));
        problems.add(format!("`{key}`: [{x}, {y}] is not in {least}..{most}"));
    }
    outside.is_none()
}

/// The corners without those that are where the one before is, the last and the first included.
fn distinct(polygon: &[Point]) -> Vec<Point> {
    let mut corners = polygon.to_vec();
    corners.dedup();
    while corners.len() > 1 && corners.first() == corners.last() {
        corners.pop();
    }
    corners
}

/// Whether two sides of a polygon have a point in common, other than the corner between neighbours.
fn are_crossing(corners: &[Point]) -> bool {
    let count = corners.len();
    let side = |index: usize| [corners[index], corners[(index + 1) % count]];
    (0..count).any(|first| {
        let [start, corner] = side(first);
        let next = side((first + 1) % count)[1];
        let is_spike = turn(start, corner, next) == 0.0 && dot(minus(corner, start), minus(next, corner)) < 0.0;
        // The last side is a neighbour of the first.
        let others = first + 2..count - usize::from(first == 0);
        is_spike || others.into_iter().any(|second| do_meet(side(first), side(second)))
    })
}

fn do_meet([a, b]: [Point; 2], [c, d]: [Point; 2]) -> bool {
    let sides = [turn(a, b, c), turn(a, b, d), turn(c, d, a), turn(c, d, b)];
    let is_apart = |one: f64, other: f64| one * other > 0.0;
    if is_apart(sides[0], sides[1]) || is_apart(sides[2], sides[3]) {
        return false;
    }
    // On one straight line they meet if their spans do; elsewhere the spans of what meets always do.
    (0..2).all(|axis| a[axis].max(b[axis]) >= c[axis].min(d[axis]) && c[axis].max(d[axis]) >= a[axis].min(b[axis]))
}

/// Which way a path over three points turns: 0 straight on or back.
fn turn(a: Point, b: Point, c: Point) -> f64 {
    let ([ux, uy], [vx, vy]) = (minus(b, a), minus(c, b));
    ux * vy - uy * vx
}

/// Area of a polygon whose sides do not cross (shoelace formula).
fn area(corners: &[Point]) -> f64 {
    let origin = corners.first().copied().unwrap_or_default();
    let twice: f64 = corners.windows(2).map(|pair| turn(origin, pair[0], pair[1])).sum();
    twice.abs() / 2.0
}

fn minus(a: Point, b: Point) -> [f64; 2] {
    [f64::from(a[0]) - f64::from(b[0]), f64::from(a[1]) - f64::from(b[1])]
}

fn dot(a: [f64; 2], b: [f64; 2]) -> f64 {
    a[0] * b[0] + a[1] * b[1]
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use proptest::prelude::*;
    use saccade_signaling::{ErrorCode, OptionsPatch};
    use serde_json::{Value, json};

    use super::super::options::{self, Models};
    use super::*;

    struct Two;

    impl Models for Two {
        fn facts(&self, name: &str) -> Option<ModelFacts> {
            let classes: &[&str] = match name {
                "ppe" => &["head", "helmet"],
                "faces" => &["face"],
                _ => return None,
            };
            Some(ModelFacts {
                task: None,
                name: name.into(),
                classes: classes.iter().map(|&name| name.into()).collect(),
                score_threshold: 0.5,
                iou_threshold: 0.5,
                max_detections: 100,
            })
        }

        fn names(&self) -> Vec<String> {
            vec!["ppe".into(), "faces".into()]
        }
    }

    fn patch(value: Value) -> OptionsPatch {
        options::parse(value).unwrap()
    }

    fn open(value: Value) -> Options {
        options::open(&Two, 200, &patch(value)).unwrap()
    }

    fn refused(value: Value) -> String {
        let refusal = options::open(&Two, 200, &patch(value)).unwrap_err();
        assert_eq!(refusal.code, ErrorCode::BadOptions);
        refusal.message
    }

    fn square() -> Value {
        json!([[0.1, 0.1], [0.9, 0.1], [0.9, 0.9], [0.1, 0.9]])
    }

    /// A building site: heads without helmets in the work zone for two seconds.
    fn site() -> Value {
        json!({
            "zones": [{"name": "work", "polygon": square(), "anchor": "bottom", "dwell_s": 60}],
            "lines": [{"name": "gate", "points": [[0, 1], [1, 0]]}],
            "rules": [{"name": "bare head", "zone": "work", "classes": ["head"], "longer_than_s": 2}],
            "overlay": {"zones": true},
        })
    }

    #[test]
    fn a_site_is_taken_and_can_be_changed_list_by_list() {
        let options = open(site());
        assert!(options.overlay.zones && options.zones.len() == 1 && options.lines.len() == 1);
        assert_eq!(options.rules[0].classes.as_deref(), Some(&["head".to_owned()][..]));
        let fewer = options::apply(&Two, &options, &patch(json!({"lines": [], "overlay": {"zones": false}}))).unwrap();
        assert!(fewer.lines.is_empty() && !fewer.overlay.zones);
        assert_eq!((&fewer.zones, &fewer.rules), (&options.zones, &options.rules));
        let all = json!({"rules": [{"name": "anyone", "zone": "work", "classes": [], "more_than": 0}]});
        let all = options::apply(&Two, &options, &patch(all)).unwrap();
        assert_eq!((all.rules.len(), all.rules[0].name.as_str(), &all.rules[0].classes), (1, "anyone", &None));
    }

    #[test]
    fn the_example_of_the_readme_is_taken() {
        let readme = include_str!("../../README.md");
        let (_, section) = readme.split_once("## Zones, lines and rules").unwrap();
        let (_, example) = section.split_once("```json\n").unwrap();
        let options = open(serde_json::from_str(example.split_once("```").unwrap().0).unwrap());
        assert_eq!((options.zones.len(), options.lines.len(), options.rules.len()), (1, 1, 1));
    }

    #[test]
    fn a_refusal_names_every_problem() {
        let message = refused(json!({
            "track": false,
            "zones": [
                {"name": " ", "polygon": [[0, 0], [1, 1]], "dwell_s": -1},
                {"name": "a", "polygon": [[0.1, 0.1], [1.5, 0.1], [0.9, 0.9]]},
                {"name": "a", "polygon": [[0.1, 0.1], [0.9, 0.9], [0.9, 0.1], [0.1, 0.9]]},
                {"name": "b", "polygon": [[0.1, 0.1], [0.105, 0.1], [0.1, 0.105]]},
                {"name": "c", "polygon": vec![[0.5, 0.5]; 33], "dwell_s": 86_401},
            ],
            "lines": [
                {"name": "x".repeat(65), "points": [[0, 0], [0, 0]]},
                {"name": "l", "points": [[0, 0], [0, -0.1]]},
            ],
            "rules": [
                {"name": "r", "zone": "nowhere", "classes": ["head", "hat"], "longer_than_s": 1e9},
                {"name": "r", "zone": "a"},
            ],
        }));
        for part in [
            "set `track` to true",
            "`zones[0].name`: 0 characters are not in 1..64",
            "`zones[2].name`: there is another `a`",
            "`lines[0].name`: 65 characters are not in 1..64",
            "`rules[1].name`: there is another `r`",
            "`zones[0].polygon`: 2 corners are not in 3..32",
            "`zones[0].dwell_s`: -1 is not in 0..86400",
            "`zones[1].polygon`: [1.5, 0.1] is not in 0..1",
            "`zones[2].polygon`: its sides cross or touch",
            "`zones[3].polygon`: it has no area; it needs 0.0001 of the frame",
            "`zones[4].polygon`: 33 corners are not in 3..32",
            "`zones[4].dwell_s`: 86401 is not in 0..86400",
            "`lines[0].points`: the ends are at one place",
            "`lines[1].points`: [0, -0.1] is not in 0..1",
            "`rules[0].zone`: there is no zone `nowhere`; there are ` `, `a`, `a`, `b`, `c`",
            "`rules[0].longer_than_s`: 1000000000 is not in 0..86400",
            "`rules[0].classes`: `ppe` has no `hat`; it has `head`, `helmet`",
        ] {
            assert!(message.contains(part), "{part} is not in {message}");
        }
    }

    #[test]
    fn lists_are_bounded_and_so_is_the_refusal() {
        let many = |count: usize| -> Vec<_> { (0..count).map(|index| format!("{index}")).collect() };
        let zone = |name: String| json!({"name": name, "polygon": square()});
        let line = |name: String| json!({"name": name, "points": [[0, 0], [1, 1]]});
        let rule = |name: String| json!({"name": name, "zone": "0"});
        let list = |count: usize, one: &dyn Fn(String) -> Value| Value::from_iter(many(count).into_iter().map(one));
        let lists =
            |count| json!({"zones": list(count, &zone), "lines": list(count, &line), "rules": list(count, &rule)});
        open(lists(16));
        let message = refused(lists(17));
        for key in ["zones", "lines", "rules"] {
            assert!(message.contains(&format!("`{key}`: 17 is not in 0..16")), "{message}");
        }
        let long = json!({"name": "x".repeat(900), "zone": "y".repeat(900), "classes": vec!["z".repeat(900); 9]});
        let message = refused(json!({"rules": vec![long; 300]}));
        assert!(message.len() < 8_000, "{}", message.len());
    }

    #[test]
    fn rules_hold_only_with_their_zone_their_classes_and_the_tracker() {
        let options = open(site());
        for (change, part) in [
            (json!({"zones": []}), "`rules[0].zone`: there is no zone `work`; there are none"),
            (json!({"model": "faces"}), "`rules[0].classes`: `faces` has no `head`; it has `face`"),
            (json!({"classes": ["helmet"]}), "`rules[0].classes`: `head` would never be seen; add it to `classes`"),
            (json!({"track": false}), "set `track` to true or leave them out"),
        ] {
            let refusal = options::apply(&Two, &options, &patch(change)).unwrap_err();
            assert!(refusal.code == ErrorCode::BadOptions && refusal.message.contains(part), "{}", refusal.message);
        }
        let faces = json!({"model": "faces", "rules": []});
        assert!(options::apply(&Two, &options, &patch(faces)).is_ok());
        let nothing = json!({"track": false, "zones": [], "lines": [], "rules": []});
        assert!(options::apply(&Two, &options, &patch(nothing)).is_ok());
    }

    #[test]
    fn odd_shapes_are_told_from_wrong_ones() {
        let is_fine = |polygon: &Value| {
            let options = patch(json!({"zones": [{"name": "a", "polygon": polygon}]}));
            options::open(&Two, 200, &options).map_err(|refusal| refusal.message)
        };
        for fine in [
            json!([[0, 0], [1, 0], [1, 1], [0, 1]]),
            // Closed by repeating the first corner, and a corner given twice.
            json!([[0, 0], [1, 0], [1, 0], [1, 1], [0, 0]]),
            // A corner on a straight side, and one that points inwards.
            json!([[0, 0], [0.5, 0], [1, 0], [0.5, 0.2], [0.5, 1]]),
        ] {
            assert!(is_fine(&fine).is_ok(), "{fine}: {:?}", is_fine(&fine));
        }
        for wrong in [
            // A bow tie, a spike, a corner on another side, and a hole joined by one line there and back.
            json!([[0, 0], [1, 1], [1, 0], [0, 1]]),
            json!([[0, 0], [1, 0], [0.5, 0], [0.5, 1]]),
            json!([[0, 0], [1, 0], [1, 1], [0.5, 0], [0, 1]]),
            json!([[0, 0], [1, 0], [1, 1], [0.5, 0.5], [0.8, 0.7], [0.5, 0.5], [0, 1]]),
        ] {
            assert!(is_fine(&wrong).unwrap_err().contains("cross or touch"), "{wrong}");
        }
        for flat in [json!([[0.5, 0.5], [0.5, 0.5], [0.5, 0.5]]), json!([[0, 0], [1, 0], [1, 0]])] {
            assert!(is_fine(&flat).is_err(), "{flat}");
        }
    }

    proptest! {
        #[test]
        fn a_star_is_fine_until_two_corners_are_swapped(radii in prop::collection::vec(0.1..0.5f32, 4..32), at in any::<prop::sample::Index>()) {
            let count = radii.len() as f32;
            let corner = |(index, radius): (usize, &f32)| {
                let (sin, cos) = (index as f32 / count * std::f32::consts::TAU).sin_cos();
                [0.5 + radius * cos, 0.5 + radius * sin]
            };
            let mut corners: Vec<Point> = radii.iter().enumerate().map(corner).collect();
            prop_assert!(!are_crossing(&corners) && area(&corners) > LEAST_AREA);
            let regular: Vec<Point> = radii.iter().map(|_| &0.4).enumerate().map(corner).collect();
            corners.clone_from(&regular);
            let at = at.index(corners.len() - 1);
            corners.swap(at, at + 1);
            prop_assert!(are_crossing(&corners));
        }

        #[test]
        fn any_polygon_is_judged(corners in prop::collection::vec([any::<f32>(), any::<f32>()], 0..40)) {
            let zone = Zone { name: "a".into(), polygon: corners, anchor: saccade_signaling::Anchor::Center, dwell_s: None };
            check_zone(0, &zone, &mut Problems::default());
        }
    }
}

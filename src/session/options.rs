//! From what a client asks for to what is in force: defaults, ranges, and what the model knows.
//!
//! A patch is taken whole or not at all, and a refusal names every problem of it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::ops::RangeInclusive;

use saccade_signaling::{ErrorCode, Options, OptionsPatch, Overlay, ReturnMode};
use serde_json::{Map, Value};

use super::{Refusal, task, watch};
use crate::media::Task;

/// Legal `budget_ms`.
pub const BUDGET_MS: RangeInclusive<u32> = 10..=5000;
/// Legal `max_detections`.
pub const MAX_DETECTIONS: RangeInclusive<u32> = 1..=1000;
/// Legal thresholds.
pub const THRESHOLD: RangeInclusive<f32> = 0.0..=1.0;

/// Longest name that a refusal repeats, in characters.
const NAME_SHOWN: usize = 64;
/// Names that a refusal repeats at most.
const NAMES_SHOWN: usize = 8;
/// Bytes of a refusal after which problems are only counted.
const PROBLEM_BYTES: usize = 4096;

/// What the options need to know of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelFacts {
    /// Name by which options name it.
    pub name: String,
    /// What it does; none where that is not known yet, and then nothing is refused for it.
    pub task: Option<Task>,
    /// Class names, by class id.
    pub classes: Vec<String>,
    /// Score threshold that its manifest advises.
    pub score_threshold: f32,
    /// Overlap threshold that its manifest advises.
    pub iou_threshold: f32,
    /// Detections a frame that its manifest advises.
    pub max_detections: u32,
}

/// Where models are looked up.
pub trait Models: Send + Sync {
    /// Facts of the model or route of this name.
    fn facts(&self, name: &str) -> Option<ModelFacts>;
    /// Names that options may use; the first is the default.
    fn names(&self) -> Vec<String>;
}

/// Options of a new session.
///
/// # Errors
///
/// [`Refusal`] with `unknown_model` or `bad_options`, naming all problems.
pub fn open(models: &dyn Models, default_budget_ms: u32, patch: &OptionsPatch) -> Result<Options, Refusal> {
    let name = patch.model.clone().or_else(|| models.names().into_iter().next());
    let Some(name) = name else {
        return Err(Refusal::new(ErrorCode::UnknownModel, "The server has no model loaded; try again later."));
    };
    let blank = Options {
        model: String::new(),
        return_mode: ReturnMode::default(),
        budget_ms: default_budget_ms,
        score_threshold: 0.0,
        iou_threshold: 0.0,
        max_detections: *MAX_DETECTIONS.start(),
        classes: None,
        track: true,
        overlay: Overlay::default(),
        format: saccade_signaling::ResultFormat::default(),
        masks: saccade_signaling::Masks::default(),
        zones: Vec::new(),
        lines: Vec::new(),
        rules: Vec::new(),
    };
    apply(models, &blank, &OptionsPatch { model: Some(name), ..patch.clone() })
}

/// Reads the options of a session to come, and checks all that can be checked before models are loaded.
///
/// # Errors
///
/// [`Refusal`] with `bad_options`, naming all problems.
pub fn check(value: Value) -> Result<OptionsPatch, Refusal> {
    let patch = parse(value)?;
    let models = AnyModel(&patch);
    open(&models, *BUDGET_MS.start(), &patch)?;
    Ok(patch)
}

/// Stands for whichever model options name: it has every class that they name.
struct AnyModel<'a>(&'a OptionsPatch);

impl Models for AnyModel<'_> {
    fn facts(&self, name: &str) -> Option<ModelFacts> {
        let OptionsPatch { classes, rules, .. } = self.0;
        let of_rules = rules.iter().flatten().filter_map(|rule| rule.classes.as_ref());
        Some(ModelFacts {
            name: name.to_owned(),
            task: None,
            classes: classes.iter().chain(of_rules).flatten().cloned().collect(),
            score_threshold: *THRESHOLD.start(),
            iou_threshold: *THRESHOLD.start(),
            max_detections: *MAX_DETECTIONS.start(),
        })
    }

    fn names(&self) -> Vec<String> {
        vec![String::from("any")]
    }
}

/// `current` with `patch` applied. Another model brings its own thresholds and reports all of its classes, unless the
/// patch says otherwise. A model in force that is not there any more under its name stays in force.
///
/// # Errors
///
/// [`Refusal`] with `unknown_model` or `bad_options`, naming all problems.
pub fn apply(models: &dyn Models, current: &Options, patch: &OptionsPatch) -> Result<Options, Refusal> {
    let mut next = current.clone();
    let mut problems = Problems::default();
    let facts = resolve_model(models, &mut next, patch, &mut problems);

    if let Some(mode) = patch.return_mode {
        next.return_mode = mode;
    }
    if let Some(value) = patch.budget_ms {
        next.budget_ms = problems.within("budget_ms", value, &BUDGET_MS);
    }
    if let Some(value) = patch.score_threshold {
        next.score_threshold = problems.within("score_threshold", value, &THRESHOLD);
    }
    if let Some(value) = patch.iou_threshold {
        next.iou_threshold = problems.within("iou_threshold", value, &THRESHOLD);
    }
    if let Some(value) = patch.max_detections {
        next.max_detections = problems.within("max_detections", value, &MAX_DETECTIONS);
    }
    if let Some(names) = &patch.classes {
        next.classes = unique(names);
    }
    // What is behind a name may have changed since it was named.
    if let (Some(facts), Some(names)) = (&facts, &next.classes) {
        check_classes(facts, names, &mut problems);
    }
    if let Some(track) = patch.track {
        next.track = track;
    }
    if let Some(masks) = patch.masks {
        next.masks = masks;
    }
    if let Some(overlay) = patch.overlay {
        next.overlay.boxes = overlay.boxes.unwrap_or(next.overlay.boxes);
        next.overlay.labels = overlay.labels.unwrap_or(next.overlay.labels);
        next.overlay.timing = overlay.timing.unwrap_or(next.overlay.timing);
        next.overlay.zones = overlay.zones.unwrap_or(next.overlay.zones);
    }
    let has_boxes = facts.as_ref().and_then(|facts| facts.task).is_none_or(Task::has_boxes);
    // Where there are no boxes, it is said below what else does not go.
    if next.return_mode == ReturnMode::Predicted && !next.track && has_boxes {
        problems.add("`return`: `predicted` needs `track`; leave that on, or use `exact` or `results`");
    }
    if let Some(format) = patch.format {
        next.format = format;
    }
    if let Some(zones) = &patch.zones {
        next.zones.clone_from(zones);
    }
    if let Some(lines) = &patch.lines {
        next.lines.clone_from(lines);
    }
    if let Some(rules) = &patch.rules {
        next.rules.clone_from(rules);
        for rule in &mut next.rules {
            rule.classes = rule.classes.as_deref().and_then(unique);
        }
    }
    if let Some(facts) = &facts {
        task::check(facts, &next, patch, &mut problems);
    }
    // Without boxes there is nothing to watch, however the zones are.
    if has_boxes {
        watch::check(&next, facts.as_ref(), &mut problems);
    }
    problems.into_result(next)
}

/// Reads a patch from JSON, key by key, so that all unknown keys and wrong types are named.
///
/// # Errors
///
/// [`Refusal`] with `bad_options`, naming all problems.
pub fn parse(value: Value) -> Result<OptionsPatch, Refusal> {
    if value.is_object()
        && let Ok(patch) = serde_json::from_value(value.clone())
    {
        return Ok(patch);
    }
    let mut problems = Problems::default();
    if let Value::Object(keys) = value {
        for (key, value) in keys {
            let shown = shorten(&key);
            let single = Value::Object(Map::from_iter([(key, value)]));
            if let Err(error) = serde_json::from_value::<OptionsPatch>(single) {
                // serde names an unknown key by itself, in full length.
                if error.to_string().starts_with(&format!("unknown field `{shown}")) {
                    problems.add(format!("`{shown}` is not an option"));
                } else {
                    problems.add(format!("`{shown}`: {}", shorten(&error.to_string())));
                }
            }
        }
    } else {
        problems.add("`options` is not an object");
    }
    problems.into_result(OptionsPatch::default())
}

fn resolve_model(
    models: &dyn Models,
    next: &mut Options,
    patch: &OptionsPatch,
    problems: &mut Problems,
) -> Option<ModelFacts> {
    let name = patch.model.as_ref().unwrap_or(&next.model);
    let Some(facts) = models.facts(name) else {
        if *name == next.model && !next.model.is_empty() {
            return None;
        }
        problems.unknown_model = true;
        let known = list(models.names().iter());
        problems.add(format!("`model`: there is no `{}`; known are {known}", shorten(name)));
        return None;
    };
    if facts.name != next.model {
        let before = models.facts(&next.model).filter(|_| !next.model.is_empty()).and_then(|facts| facts.task);
        let had_boxes = before.is_none_or(Task::has_boxes);
        next.model.clone_from(&facts.name);
        next.score_threshold = facts.score_threshold;
        next.iou_threshold = facts.iou_threshold;
        next.max_detections = facts.max_detections.clamp(*MAX_DETECTIONS.start(), *MAX_DETECTIONS.end());
        next.classes = None;
        next.track = match (had_boxes, facts.task.is_none_or(Task::has_boxes)) {
            (_, false) => false,
            // There was nothing to follow, so that it was off by itself.
            (false, true) => true,
            (true, true) => next.track,
        };
    }
    Some(facts)
}

/// Each name once, in the order given; no names at all are no choice.
fn unique(names: &[String]) -> Option<Vec<String>> {
    let mut seen = BTreeSet::new();
    let names: Vec<_> = names.iter().filter(|name| seen.insert(name.as_str())).cloned().collect();
    Some(names).filter(|names| !names.is_empty())
}

fn check_classes(facts: &ModelFacts, names: &[String], problems: &mut Problems) {
    let unknown: BTreeSet<_> = names.iter().filter(|name| !facts.classes.contains(name)).collect();
    if !unknown.is_empty() {
        let (unknown, known) = (list(unknown.into_iter()), list(facts.classes.iter()));
        problems.add(format!("`classes`: `{}` has no {unknown}; it has {known}", facts.name));
    }
}

/// The problems of one patch.
#[derive(Default)]
pub(super) struct Problems {
    text: String,
    /// Those that the text has no place for.
    more: usize,
    unknown_model: bool,
}

impl Problems {
    pub(super) fn add(&mut self, problem: impl AsRef<str>) {
        if self.text.len() >= PROBLEM_BYTES {
            self.more += 1;
            return;
        }
        if !self.text.is_empty() {
            self.text.push_str("; ");
        }
        self.text.push_str(problem.as_ref());
    }

    /// NaN lies in no range.
    pub(super) fn within<T: PartialOrd + std::fmt::Display>(
        &mut self,
        key: &str,
        value: T,
        range: &RangeInclusive<T>,
    ) -> T {
        if !range.contains(&value) {
            let value = shorten(&value.to_string());
            self.add(format!("`{key}`: {value} is not in {}..{}", range.start(), range.end()));
        }
        value
    }

    fn into_result<T>(self, value: T) -> Result<T, Refusal> {
        if self.text.is_empty() {
            return Ok(value);
        }
        let code = if self.unknown_model { ErrorCode::UnknownModel } else { ErrorCode::BadOptions };
        let more = if self.more == 0 { String::new() } else { format!("; and {} more problems", self.more) };
        Err(Refusal::new(code, self.text + &more + "."))
    }
}

/// The first few names, each in quotes.
pub(super) fn list<'a>(mut names: impl Iterator<Item = &'a String>) -> String {
    let mut text = String::new();
    for name in names.by_ref().take(NAMES_SHOWN) {
        let comma = if text.is_empty() { "" } else { ", " };
        // Writing to a String cannot fail.
        let _ = write!(text, "{comma}`{}`", shorten(name));
    }
    match names.count() {
        0 => text,
        more => format!("{text} and {more} more"),
    }
}

pub(super) fn shorten(text: &str) -> String {
    let mut short: String = text.chars().take(NAME_SHOWN).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use proptest::prelude::*;
    use saccade_signaling::{Anchor, Line, Zone};
    use serde_json::json;

    use super::*;

    struct Two;

    impl Models for Two {
        fn facts(&self, name: &str) -> Option<ModelFacts> {
            let (classes, score_threshold): (&[&str], f32) = match name {
                "ppe" => (&["head", "helmet"], 0.35),
                "faces" => (&["face"], 0.7),
                _ => return None,
            };
            Some(ModelFacts {
                task: None,
                name: name.into(),
                classes: classes.iter().map(|&name| name.into()).collect(),
                score_threshold,
                iou_threshold: 0.45,
                max_detections: 100,
            })
        }

        fn names(&self) -> Vec<String> {
            vec!["ppe".into(), "faces".into()]
        }
    }

    fn patch(value: Value) -> OptionsPatch {
        parse(value).unwrap()
    }

    /// `ppe` as it may become while sessions use it.
    struct Changed(Option<&'static [&'static str]>);

    impl Models for Changed {
        fn facts(&self, name: &str) -> Option<ModelFacts> {
            let classes = self.0.filter(|_| name == "ppe")?.iter().map(|&name| name.into()).collect();
            Some(ModelFacts { classes, ..Two.facts(name)? })
        }

        fn names(&self) -> Vec<String> {
            vec!["ppe".into()]
        }
    }

    #[test]
    fn a_session_may_change_its_options_when_the_name_of_its_model_is_gone() {
        let first = open(&Two, 200, &patch(json!({"model": "ppe", "classes": ["head"]}))).unwrap();
        let second = apply(&Changed(None), &first, &patch(json!({"budget_ms": 100}))).unwrap();
        assert_eq!(second, Options { budget_ms: 100, ..first.clone() });
        let refusal = apply(&Changed(None), &first, &patch(json!({"model": "faces"}))).unwrap_err();
        assert_eq!(refusal.code, ErrorCode::UnknownModel);
        assert_eq!(open(&Changed(None), 200, &OptionsPatch::default()).unwrap_err().code, ErrorCode::UnknownModel);
    }

    #[test]
    fn classes_that_the_model_lost_are_named_whatever_is_changed() {
        let first = open(&Two, 200, &patch(json!({"classes": ["helmet"]}))).unwrap();
        let changed = Changed(Some(&["head"]));
        let refusal = apply(&changed, &first, &patch(json!({"budget_ms": 100}))).unwrap_err();
        assert_eq!(refusal.code, ErrorCode::BadOptions);
        assert!(refusal.message.contains("`ppe` has no `helmet`; it has `head`"), "{refusal}");
        apply(&changed, &first, &patch(json!({"budget_ms": 100, "classes": []}))).unwrap();
    }

    #[test]
    fn classes_of_a_rule_count_once() {
        let classes = vec!["head"; 9_000];
        let zone = json!({"name": "z", "polygon": [[0.1, 0.1], [0.9, 0.1], [0.5, 0.9]]});
        let rule = json!({"name": "r", "zone": "z", "longer_than_s": 1, "classes": classes});
        let options = open(&Two, 200, &patch(json!({"zones": [zone], "rules": [rule]}))).unwrap();
        assert_eq!(options.rules[0].classes, Some(vec!["head".to_owned()]));
    }

    #[test]
    fn long_numbers_are_shortened() {
        let zone = json!({"name": "z", "polygon": [[0.1, 0.1], [0.9, 0.1], [0.5, 0.9]], "dwell_s": 1e300});
        let refusal = open(&Two, 200, &patch(json!({"zones": [zone]}))).unwrap_err();
        assert!(refusal.message.len() < 200 && refusal.message.contains('…'), "{refusal}");
    }

    #[test]
    fn an_empty_patch_gives_the_defaults_of_the_contract() {
        let options = open(&Two, 200, &OptionsPatch::default()).unwrap();
        let expected = json!({
            "model": "ppe", "return": "exact", "budget_ms": 200, "score_threshold": 0.35_f32, "iou_threshold": 0.45_f32,
            "max_detections": 100, "classes": null, "track": true,
            "overlay": {"boxes": true, "labels": true, "timing": false, "zones": false},
            "format": "saccade", "masks": "outlines", "zones": [], "lines": [], "rules": [],
        });
        assert_eq!(serde_json::to_value(options).unwrap(), expected);
    }

    #[test]
    fn a_patch_changes_only_its_keys() {
        let first = open(&Two, 200, &patch(json!({"classes": ["head", "head"], "score_threshold": 0.5}))).unwrap();
        assert_eq!(first.classes, Some(vec!["head".to_owned()]));
        let change = json!({"return": "results", "overlay": {"timing": true}, "track": false, "format": "coco"});
        let second = apply(&Two, &first, &patch(change)).unwrap();
        assert_eq!(second.return_mode, ReturnMode::Results);
        assert_eq!(second.overlay, Overlay { boxes: true, labels: true, timing: true, zones: false });
        assert!(!second.track && second.score_threshold == 0.5 && second.classes == first.classes);
        let all = apply(&Two, &second, &patch(json!({"classes": []}))).unwrap();
        assert_eq!(all.classes, None);
    }

    #[test]
    fn another_model_brings_its_own_thresholds_and_classes() {
        let first = open(&Two, 50, &patch(json!({"classes": ["head"], "score_threshold": 0.5}))).unwrap();
        let faces = apply(&Two, &first, &patch(json!({"model": "faces"}))).unwrap();
        assert_eq!((faces.score_threshold, faces.classes.as_ref(), faces.budget_ms), (0.7, None, 50));
        let stated = apply(&Two, &first, &patch(json!({"model": "faces", "score_threshold": 0.2}))).unwrap();
        assert_eq!(stated.score_threshold, 0.2);
        let same = apply(&Two, &first, &patch(json!({"model": "ppe"}))).unwrap();
        assert_eq!(same, first);
    }

    #[test]
    fn what_needs_no_model_is_checked_without_one() {
        let zone = json!({"name": "z", "polygon": [[0.1, 0.1], [0.9, 0.1], [0.5, 0.9]]});
        let rule = json!({"name": "r", "zone": "z", "longer_than_s": 1, "classes": ["hat"]});
        let good =
            json!({"model": "later", "classes": ["head", "hat"], "zones": [zone], "rules": [rule], "budget_ms": 100});
        assert_eq!(check(good.clone()).unwrap(), patch(good));
        check(json!({})).unwrap();
        for (bad, part) in [
            (
                json!({"budget_ms": 5, "score_threshold": 2}),
                "`budget_ms`: 5 is not in 10..5000; `score_threshold`: 2 is",
            ),
            (json!({"boxes": true}), "`boxes` is not an option"),
            (json!({"rules": [rule]}), "`rules[0]"),
        ] {
            let refusal = check(bad).unwrap_err();
            assert!(refusal.message.contains(part), "{part} is not in {refusal}");
        }
    }

    #[test]
    fn a_refusal_names_every_problem() {
        let bad = OptionsPatch {
            return_mode: Some(ReturnMode::Predicted),
            track: Some(false),
            budget_ms: Some(9),
            score_threshold: Some(f32::NAN),
            iou_threshold: Some(f32::INFINITY),
            max_detections: Some(0),
            classes: Some(vec!["helmet".into(), "hat".into()]),
            zones: Some(vec![Zone {
                name: "a".into(),
                polygon: vec![[0.0, 0.0]; 3],
                anchor: Anchor::Center,
                dwell_s: None,
            }]),
            lines: Some(vec![Line { name: "b".into(), points: [[0.0, 0.0]; 2], anchor: Anchor::Center }]),
            ..OptionsPatch::default()
        };
        let refusal = open(&Two, 200, &bad).unwrap_err();
        assert_eq!(refusal.code, ErrorCode::BadOptions);
        for part in [
            "`predicted` needs `track`",
            "`budget_ms`: 9 is not in 10..5000",
            "`score_threshold`: NaN is not in 0..1",
            "`iou_threshold`: inf is not in 0..1",
            "`max_detections`: 0 is not in 1..1000",
            "`ppe` has no `hat`; it has `head`, `helmet`",
            "`zones[0].polygon`: it has no area",
            "`lines[0].points`: the ends are at one place",
        ] {
            assert!(refusal.message.contains(part), "{part} is not in {}", refusal.message);
        }
    }

    #[test]
    fn an_unknown_model_is_told_from_bad_options() {
        let refusal = open(&Two, 200, &patch(json!({"model": "x".repeat(5_000), "budget_ms": 1}))).unwrap_err();
        assert_eq!(refusal.code, ErrorCode::UnknownModel);
        assert!(refusal.message.contains("known are `ppe`, `faces`; `budget_ms`"), "{}", refusal.message);
        assert!(refusal.message.len() < 300);
    }

    #[test]
    fn unknown_keys_and_wrong_types_are_all_named() {
        let value = json!({"modle": "ppe", "budget_ms": "soon", "overlay": {"boxs": true}, "track": true});
        let refusal = parse(value).unwrap_err();
        assert_eq!(refusal.code, ErrorCode::BadOptions);
        for part in ["`modle` is not an option", "`budget_ms`: invalid type", "`overlay`: unknown field `boxs`"] {
            assert!(refusal.message.contains(part), "{part} is not in {}", refusal.message);
        }
        assert!(!refusal.message.contains("track"));
        assert_eq!(parse(json!([1])).unwrap_err().code, ErrorCode::BadOptions);
    }

    #[test]
    fn however_many_problems_there_are_a_refusal_is_short_and_counts_them() {
        let keys = (0..10_000).map(|number| (format!("k{number}"), Value::Null));
        let refusal = parse(Value::Object(keys.collect())).unwrap_err();
        assert!(refusal.message.len() < 4_400, "{}", refusal.message.len());
        let named = refusal.message.matches("is not an option").count();
        assert!(refusal.message.ends_with(&format!("; and {} more problems.", 10_000 - named)), "{}", refusal.message);
    }

    proptest! {
        #[test]
        fn what_is_accepted_is_in_range(
            budget in 0..6_000u32,
            score in prop_oneof![any::<f32>(), -0.2f32..1.2],
            most in prop_oneof![any::<u32>(), 0..1_200u32],
        ) {
            let bad = OptionsPatch {
                budget_ms: Some(budget), score_threshold: Some(score), max_detections: Some(most),
                ..OptionsPatch::default()
            };
            let legal = BUDGET_MS.contains(&budget) && THRESHOLD.contains(&score) && MAX_DETECTIONS.contains(&most);
            prop_assert_eq!(open(&Two, 200, &bad).is_ok(), legal);
        }
    }
}

//! Whether options make sense for what a model does.

use saccade_signaling::{Masks, Options, OptionsPatch, ResultFormat, ReturnMode};

use super::options::{ModelFacts, Problems, shorten};
use crate::media::Task;

/// Adds what `patch` asks for, or what is to be in force in `next`, that a model of this task cannot give.
pub(super) fn check(facts: &ModelFacts, next: &Options, patch: &OptionsPatch, problems: &mut Problems) {
    let Some(task) = facts.task else { return };
    let name = shorten(&facts.name);
    if !task.has_boxes() {
        if patch.track == Some(true) {
            problems.add(format!("`track`: `{name}` finds no boxes to follow; leave it out or set it to false"));
        }
        if next.return_mode == ReturnMode::Predicted {
            problems
                .add(format!("`return`: `predicted` carries boxes, and `{name}` finds none; use `exact` or `results`"));
        }
        for (key, is_empty) in
            [("zones", next.zones.is_empty()), ("lines", next.lines.is_empty()), ("rules", next.rules.is_empty())]
        {
            if !is_empty {
                problems.add(format!("`{key}`: `{name}` finds no boxes to watch; leave them out or set them to []"));
            }
        }
        if patch.iou_threshold.is_some() {
            problems.add(format!("`iou_threshold`: `{name}` finds no boxes that could overlap; leave it out"));
        }
    }
    if task != Task::Segment && patch.masks.is_some_and(|masks| masks != Masks::default()) {
        problems.add(format!("`masks`: `{name}` finds no segments; leave it out"));
    }
    if let Some(problem) = format_problem(task, next.format) {
        problems.add(format!("`format`: {problem}"));
    }
}

/// Why results of a task cannot be had in a format, if they cannot.
pub(crate) fn format_problem(task: Task, format: ResultFormat) -> Option<&'static str> {
    match (task, format) {
        (_, ResultFormat::Saccade) | (Task::Detect | Task::Pose, _) => None,
        (Task::Classify, ResultFormat::Roboflow | ResultFormat::Supervision)
        | (Task::Segment, ResultFormat::Coco | ResultFormat::Supervision) => None,
        (Task::Classify, ResultFormat::Coco) => {
            Some("COCO has no results for classes of a whole picture; use `saccade`, `roboflow` or `supervision`")
        }
        (Task::Segment, ResultFormat::Roboflow) => Some(
            "Roboflow's answer needs a score for each segment, and there is none; use `saccade`, `coco` or `supervision`",
        ),
        (Task::Raw, _) => Some("raw tensors have no other format; use `saccade`"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use saccade_signaling::ErrorCode;
    use serde_json::{Value, json};

    use super::*;
    use crate::session::Refusal;
    use crate::session::options::{Models, apply, open, parse};

    struct One(Task);

    /// A model named `ppe`, which finds boxes, and one named `other` of some task.
    impl Models for One {
        fn facts(&self, name: &str) -> Option<ModelFacts> {
            let task = match name {
                "ppe" => Task::Detect,
                "other" => self.0,
                _ => return None,
            };
            Some(ModelFacts {
                name: name.to_owned(),
                task: Some(task),
                classes: vec!["a".to_owned()],
                score_threshold: 0.5,
                iou_threshold: 0.5,
                max_detections: 5,
            })
        }

        fn names(&self) -> Vec<String> {
            vec!["ppe".to_owned(), "other".to_owned()]
        }
    }

    fn opened(task: Task, mut patch: Value) -> Result<Options, Refusal> {
        patch["model"] = "other".into();
        open(&One(task), 200, &parse(patch).unwrap())
    }

    #[test]
    fn nothing_is_followed_where_there_are_no_boxes() {
        for task in Task::ALL {
            assert_eq!(opened(task, json!({})).unwrap().track, task.has_boxes(), "{task:?}");
        }
    }

    #[test]
    fn what_makes_no_sense_for_the_task_is_refused_with_all_reasons() {
        let zone = json!({"name": "gate", "polygon": [[0, 0], [1, 0], [1, 1]]});
        let patch = json!({
            "track": true, "return": "predicted", "zones": [zone], "iou_threshold": 0.3, "format": "coco", "masks": "rle",
            "lines": [{"name": "l", "points": [[0, 0], [1, 1]]}],
            "rules": [{"name": "r", "zone": "gate", "longer_than_s": 1}],
        });
        let refusal = opened(Task::Classify, patch.clone()).unwrap_err();
        assert_eq!(refusal.code, ErrorCode::BadOptions);
        for key in ["track", "return", "zones", "lines", "rules", "iou_threshold", "masks", "format"] {
            assert_eq!(refusal.message.matches(&format!("`{key}`: ")).count(), 1, "{key}: {}", refusal.message);
        }
        let refusal = opened(Task::Segment, patch).unwrap_err();
        assert!(!refusal.message.contains("`masks`") && !refusal.message.contains("`format`"), "{}", refusal.message);
    }

    #[test]
    fn formats_are_those_that_have_a_place_for_the_task() {
        for (task, formats) in [
            (Task::Detect, vec!["saccade", "coco", "roboflow", "supervision"]),
            (Task::Pose, vec!["saccade", "coco", "roboflow", "supervision"]),
            (Task::Classify, vec!["saccade", "roboflow", "supervision"]),
            (Task::Segment, vec!["saccade", "coco", "supervision"]),
            (Task::Raw, vec!["saccade"]),
        ] {
            for format in ["saccade", "coco", "roboflow", "supervision"] {
                let taken = opened(task, json!({ "format": format })).is_ok();
                assert_eq!(taken, formats.contains(&format), "{task:?} as {format}");
            }
        }
    }

    #[test]
    fn another_model_brings_what_goes_with_its_task() {
        let models = One(Task::Segment);
        let change = |from: &Options, patch: Value| apply(&models, from, &parse(patch).unwrap());
        let detecting = open(&models, 200, &parse(json!({})).unwrap()).unwrap();
        let segmenting = change(&detecting, json!({"model": "other"})).unwrap();
        assert!(detecting.track && !segmenting.track);
        let rle = change(&segmenting, json!({"masks": "rle"})).unwrap();
        assert_eq!(rle.masks, Masks::Rle);
        let again = change(&rle, json!({"model": "ppe"})).unwrap();
        assert_eq!((again.track, again.masks), (true, Masks::Rle), "for the next model that segments");
        let zone = json!({"name": "gate", "polygon": [[0, 0], [1, 0], [1, 1]]});
        let watching = change(&detecting, json!({ "zones": [zone] })).unwrap();
        let refusal = change(&watching, json!({"model": "other"})).unwrap_err();
        assert!(refusal.message.contains("`zones`"), "{}", refusal.message);
        assert!(change(&watching, json!({"model": "other", "zones": []})).is_ok());
        let untracked = change(&detecting, json!({"track": false})).unwrap();
        assert!(!change(&untracked, json!({"model": "ppe"})).unwrap().track);
    }
}

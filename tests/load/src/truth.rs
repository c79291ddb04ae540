//! Detections against what was to be seen.

use crate::clip::Object;
use crate::measure::Found;

/// Overlap from which on a detection and an object are the same.
const SAME: f32 = 0.5;

/// One detection, with the class by its index in the truth; `None` for a class that the truth does not know.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Detection {
    pub(crate) bbox: [f32; 4],
    pub(crate) class_id: Option<u32>,
    pub(crate) score: f32,
}

/// Gives each detection, the surest first, to the object that it covers best; each object is found once. Optional
/// objects count neither found nor missed.
pub(crate) fn compare(mut detections: Vec<Detection>, truth: &[Object]) -> Found {
    detections.sort_by(|a, b| b.score.total_cmp(&a.score));
    let mut taken = vec![false; truth.len()];
    let mut found = Found::default();
    for detection in detections {
        let overlap = |object: &Object| iou(detection.bbox, object.bbox);
        let candidates = truth.iter().enumerate().filter(|(at, object)| {
            !taken[*at] && detection.class_id == Some(object.class_id) && overlap(object) >= SAME
        });
        match candidates.max_by(|(_, a), (_, b)| overlap(a).total_cmp(&overlap(b))) {
            Some((at, object)) => {
                taken[at] = true;
                found.hits += u64::from(!object.optional);
            }
            None => found.false_alarms += 1,
        }
    }
    found.missed = truth.iter().zip(taken).filter(|(object, taken)| !object.optional && !taken).count() as u64;
    found
}

/// Intersection over union.
fn iou(a: [f32; 4], b: [f32; 4]) -> f32 {
    let across = (a[2].min(b[2]) - a[0].max(b[0])).max(0.0);
    let down = (a[3].min(b[3]) - a[1].max(b[1])).max(0.0);
    let area = |r: [f32; 4]| (r[2] - r[0]) * (r[3] - r[1]);
    let common = across * down;
    let whole = area(a) + area(b) - common;
    if whole > 0.0 { common / whole } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(x: f32, class_id: u32, optional: bool) -> Object {
        Object { bbox: [x, 0.0, x + 10.0, 10.0], class_id, optional }
    }

    fn detection(x: f32, class_id: u32, score: f32) -> Detection {
        Detection { bbox: [x, 0.0, x + 10.0, 10.0], class_id: Some(class_id), score }
    }

    #[test]
    fn each_object_is_found_once_and_by_its_own_class() {
        let truth = [object(0.0, 0, false), object(100.0, 1, false), object(200.0, 0, true)];
        let detections = vec![
            detection(1.0, 0, 0.9),
            // The same object again.
            detection(0.0, 0, 0.5),
            // Another class.
            detection(100.0, 0, 0.8),
            // What may be found or not.
            detection(200.0, 0, 0.7),
        ];
        assert_eq!(compare(detections, &truth), Found { hits: 1, missed: 1, false_alarms: 2 });
        assert_eq!(compare(vec![], &truth), Found { hits: 0, missed: 2, false_alarms: 0 });
        assert_eq!(compare(vec![detection(7.0, 0, 0.9)], &truth[..1]), Found { hits: 0, missed: 1, false_alarms: 1 });
    }
}

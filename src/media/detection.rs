use std::sync::Arc;

/// A class of a model: its index and its name, which all detections of the class share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Class {
    /// Index in the model's output.
    pub id: u32,
    /// Name from the manifest.
    pub name: Arc<str>,
}

/// One object that a model found in a frame.
#[derive(Debug, Clone, PartialEq)]
pub struct Detection {
    /// Corners `[x1, y1, x2, y2]` in pixels of the upright source frame, inside it.
    pub bbox: [f32; 4],
    /// What it is.
    pub class: Class,
    /// How sure the model is, 0..1.
    pub score: f32,
    /// Identity across frames, where something tracks.
    pub object_id: Option<u64>,
    /// Points of it, in the model's order; none where the model finds none. In a frame that the model did not see they are
    /// where the tracker takes them for.
    pub keypoints: Vec<Keypoint>,
}

/// A point of an object, such as an eye of a face.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Keypoint {
    /// In pixels of the upright source frame; it may lie outside, where the object does.
    pub at: [f32; 2],
    /// How sure the model is, 0..1.
    pub score: f32,
}

/// Area of a box given by its corners `[x1, y1, x2, y2]`; 0 for one that is turned inside out.
#[must_use]
pub fn area([x1, y1, x2, y2]: [f64; 4]) -> f64 {
    (x2 - x1).max(0.0) * (y2 - y1).max(0.0)
}

/// Area that two boxes have in common.
#[must_use]
pub fn common_area(a: [f64; 4], b: [f64; 4]) -> f64 {
    area([a[0].max(b[0]), a[1].max(b[1]), a[2].min(b[2]), a[3].min(b[3])])
}

/// Intersection over union of two boxes, 0..1; 0 for boxes without area.
#[must_use]
pub fn overlap(a: [f64; 4], b: [f64; 4]) -> f64 {
    let common = common_area(a, b);
    let whole = area(a) + area(b) - common;
    if whole > 0.0 { common / whole } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlap_is_a_share_of_the_union() {
        let unit = [0.0, 0.0, 2.0, 2.0];
        assert!((overlap(unit, [1.0, 0.0, 3.0, 2.0]) - 1.0 / 3.0).abs() < 1e-12);
        assert!(overlap(unit, [2.0, 0.0, 4.0, 2.0]).abs() < 1e-12 && overlap([0.0; 4], [0.0; 4]).abs() < 1e-12);
        assert!(overlap(unit, [2.0, 2.0, 0.0, 0.0]).abs() < 1e-12, "a box that is none");
    }
}

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
}

/// What a model does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Task {
    /// Boxes, classes and scores.
    Detect,
    /// Classes of the whole frame, with their scores.
    Classify,
    /// The class of each pixel.
    Segment,
    /// Boxes with keypoints.
    Pose,
    /// Tensors as they are.
    Raw,
}

impl Task {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Detect, Self::Classify, Self::Segment, Self::Pose, Self::Raw];

    /// Name in the manifest and in the API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Detect => "detect",
            Self::Classify => "classify",
            Self::Segment => "segment",
            Self::Pose => "pose",
            Self::Raw => "raw",
        }
    }

    /// Whether it finds boxes, so that there is something to follow, to count in zones and to fuse.
    #[must_use]
    pub const fn has_boxes(self) -> bool {
        matches!(self, Self::Detect | Self::Pose)
    }
}

use std::sync::Arc;
use std::time::Duration;

/// A point in fractions of the frame's width and height, y downwards.
pub type Point = [f32; 2];

/// What to watch.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// Watched areas.
    pub zones: Vec<Zone>,
    /// Counting lines.
    pub lines: Vec<Line>,
    /// What raises an alert; one whose zone is not in `zones` never does.
    pub rules: Vec<Rule>,
}

/// A watched area.
#[derive(Debug, Clone, PartialEq)]
pub struct Zone {
    /// Name, unique among the zones.
    pub name: Arc<str>,
    /// Corners in order; a polygon that makes no sense contains nothing.
    pub polygon: Vec<Point>,
    /// Which point of a box has to be inside.
    pub anchor: Anchor,
    /// After this time inside, an object is reported once.
    pub dwell: Option<Duration>,
}

/// A counting line.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// Name, unique among the lines.
    pub name: Arc<str>,
    /// The ends; see [`Direction`].
    pub points: [Point; 2],
    /// Which point of a box has to cross.
    pub anchor: Anchor,
}

/// What raises an alert.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// Name, unique among the rules.
    pub name: Arc<str>,
    /// Name of the zone.
    pub zone: Arc<str>,
    /// Names of the classes that count; `None`: all.
    pub classes: Option<Vec<Arc<str>>>,
    /// How long it has to last before the alert.
    pub longer_than: Duration,
    /// With a number, more objects than that in the zone are what must not last; without, each single object is.
    pub more_than: Option<u32>,
}

/// Which point of a box stands for its object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Anchor {
    /// Its middle.
    #[default]
    Center,
    /// The middle of its lower edge.
    Bottom,
}

use std::sync::Arc;
use std::time::Duration;

use crate::media::Class;

/// Which way a line was crossed, seen in the picture by who looks from its first end to its second: the right hand of
/// a line that goes right is below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the left hand to the right hand.
    LeftToRight,
    /// From the right hand to the left hand.
    RightToLeft,
}

/// Who did something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Identity across frames.
    pub id: u64,
    /// Class as last reported.
    pub class: Class,
}

/// Something that happened, found with the frame that [`Watch::update`] was told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// An object came into a zone.
    Entered {
        /// Name of the zone.
        zone: Arc<str>,
        /// Who.
        object: Object,
        /// Objects in the zone, this one included.
        count: u32,
    },
    /// An object left a zone.
    Left {
        /// Name of the zone.
        zone: Arc<str>,
        /// Who.
        object: Object,
        /// From when it came until it was last seen inside.
        dwell: Duration,
        /// Objects still in the zone.
        count: u32,
    },
    /// An object has been in a zone for the zone's dwelling time.
    Dwelled {
        /// Name of the zone.
        zone: Arc<str>,
        /// Who.
        object: Object,
        /// How long it has been inside.
        dwell: Duration,
    },
    /// An object crossed a line.
    Crossed {
        /// Name of the line.
        line: Arc<str>,
        /// Which way.
        direction: Direction,
        /// Who.
        object: Object,
        /// Crossings from left to right so far.
        left_to_right: u64,
        /// Crossings from right to left so far.
        right_to_left: u64,
    },
    /// What a rule forbids has lasted too long.
    AlertStarted {
        /// Name of the rule.
        rule: Arc<str>,
        /// Name of its zone.
        zone: Arc<str>,
        /// Whom it is about; `None` for a rule about a number of objects.
        object: Option<Object>,
        /// Objects of the rule's classes in the zone.
        count: u32,
    },
    /// It is over.
    AlertEnded {
        /// Name of the rule.
        rule: Arc<str>,
        /// Name of its zone.
        zone: Arc<str>,
        /// Whom it was about.
        object_id: Option<u64>,
        /// From the start of the alert until what raised it was last seen.
        duration: Duration,
    },
}

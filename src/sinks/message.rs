use std::sync::Arc;
use std::time::Instant;

/// Where a message comes from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Source {
    /// A camera's name, or a session's id: letters, digits, `.`, `_` and `-`.
    pub name: Arc<str>,
    /// Whether it is a camera of the configuration, whose name stays, or a session, whose id is gone with it.
    pub is_camera: bool,
}

impl Source {
    /// What topics and subjects call its kind.
    pub(super) const fn kind(&self) -> &'static str {
        if self.is_camera { "cameras" } else { "sessions" }
    }
}

/// What a message tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Something happened.
    Event,
    /// What was found in one frame. There are many, and a newer one is worth more.
    Result,
}

impl Kind {
    /// What topics and subjects call it.
    pub(super) const fn plural(self) -> &'static str {
        match self {
            Self::Event => "events",
            Self::Result => "results",
        }
    }
}

/// One message for whoever listens outside.
#[derive(Debug, Clone)]
pub struct Message {
    /// Unlike that of every other message: whoever gets one twice knows by it.
    pub id: Arc<str>,
    /// When it came into being.
    pub at: Instant,
    /// What it tells.
    pub kind: Kind,
    /// Name of the event, such as `zone_entered`; `result` for results.
    pub name: Arc<str>,
    /// Whom it is about.
    pub source: Arc<Source>,
    /// The whole message as JSON.
    pub body: Arc<str>,
}

/// What sinks that keep state are told of a source, beside messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A session began, or what it watches has changed: names of its zones, lines and rules.
    Watches {
        /// Names of zones.
        zones: Vec<Arc<str>>,
        /// Names of lines.
        lines: Vec<Arc<str>>,
        /// Names of rules.
        rules: Vec<Arc<str>>,
    },
    /// So many objects are in a zone.
    Zone {
        /// Name of the zone.
        zone: Arc<str>,
        /// Objects.
        count: u32,
    },
    /// So often a line was crossed.
    Line {
        /// Name of the line.
        line: Arc<str>,
        /// From left to right.
        left_to_right: u64,
        /// From right to left.
        right_to_left: u64,
    },
    /// An alert began or ended.
    Alert {
        /// Name of the rule.
        rule: Arc<str>,
        /// Name of its zone.
        zone: Arc<str>,
        /// Whom it is about, unless it is about the zone.
        object_id: Option<u64>,
        /// Whether it began.
        started: bool,
        /// When, as in the message that tells of it.
        time: Arc<str>,
    },
    /// A camera is connected, or not any more.
    Camera {
        /// Whether it sends.
        live: bool,
    },
    /// The session is over.
    Ended,
}

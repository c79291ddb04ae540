use std::time::Instant;

use super::Failure;

/// What is known of a camera.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// What it is doing.
    pub state: State,
    /// Connections over which video was promised, since the start.
    pub connects: u64,
    /// Tries and connections that failed, since the start.
    pub failures: u64,
}

/// What a camera is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It is being asked for its video.
    Connecting {
        /// Since when.
        since: Instant,
    },
    /// It sends.
    Live {
        /// Since when.
        since: Instant,
    },
    /// It is left alone for a while.
    Waiting {
        /// Since when.
        since: Instant,
        /// When it is asked again.
        until: Instant,
        /// Why.
        reason: Failure,
    },
}

impl State {
    /// Its name, as the API has it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Connecting { .. } => "connecting",
            Self::Live { .. } => "live",
            Self::Waiting { .. } => "waiting",
        }
    }

    /// When it began.
    #[must_use]
    pub const fn since(&self) -> Instant {
        match self {
            Self::Connecting { since } | Self::Live { since } | Self::Waiting { since, .. } => *since,
        }
    }
}

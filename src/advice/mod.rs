//! What limits a running server, from its own metrics: which of its parts has too much to do, and which setting changes that.
//!
//! What enters: pages of metrics in Prometheus' text format ([`Sample`]), a while apart. What leaves: [`Finding`]s, the most
//! pressing first; none where nothing limits the server. [`Window`] is what happened between the samples, and [`findings`] a
//! pure function of it. [`Ring`] keeps the samples of the last minute; [`Threads`] asks the kernel what threads take, for a metric. Whoever calls decides on which thread. A leaf: it
//! fetches nothing, and is told the time.

mod exposition;
mod judge;
mod ring;
mod sample;
mod threads;
mod window;

use std::fmt;

pub use exposition::{Malformed, Series, parse};
pub use judge::findings;
pub use ring::Ring;
pub use sample::{Sample, Unusable};
pub use threads::Threads;
pub use window::{Batches, Cache, Device, Frames, Memory, Model, Packets, Path, Room, Stills, Window, Work};

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Nobody is kept waiting; there is something to gain, or little left.
    Info,
    /// Some frames or pictures are lost or late.
    Warning,
    /// Many are, or the server is about to refuse work.
    Critical,
}

impl Severity {
    /// Its stable name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// What limits a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Code {
    /// Memory of the host or of a device is about to be used up.
    MemoryNearLimit,
    /// Models take longer than there is time.
    InferenceBound,
    /// Decoding does.
    DecodeBound,
    /// Drawing and encoding do.
    EncodeBound,
    /// The paths to peers lose packets, or carry too little.
    NetworkLoss,
    /// Frames wait for work although a GPU has nothing to do.
    GpuIdle,
    /// Frames take much longer than alone for the sake of those that they are run with.
    BatchWait,
    /// The result cache hardly ever has an answer.
    CacheUseless,
}

impl Code {
    /// Every one.
    pub const ALL: [Self; 8] = [
        Self::MemoryNearLimit,
        Self::InferenceBound,
        Self::DecodeBound,
        Self::EncodeBound,
        Self::NetworkLoss,
        Self::GpuIdle,
        Self::BatchWait,
        Self::CacheUseless,
    ];

    /// Its stable name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MemoryNearLimit => "memory_near_limit",
            Self::InferenceBound => "inference_bound",
            Self::DecodeBound => "decode_bound",
            Self::EncodeBound => "encode_bound",
            Self::NetworkLoss => "network_loss",
            Self::GpuIdle => "gpu_idle",
            Self::BatchWait => "batch_wait",
            Self::CacheUseless => "cache_useless",
        }
    }

    /// Where the repository says more about it.
    #[must_use]
    pub fn runbook(self) -> String {
        format!("deploy/runbooks/{}.md", self.as_str())
    }
}

impl fmt::Display for Code {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(self.as_str())
    }
}

/// Something that limits the server.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// What it is.
    pub code: Code,
    /// How much it matters.
    pub severity: Severity,
    /// What was seen, in a sentence.
    pub message: String,
    /// The numbers that speak for it; names end in their unit.
    pub evidence: Vec<(&'static str, f64)>,
    /// What to change first: a key of the configuration, or, with another place before a colon, of that.
    pub setting: &'static str,
    /// What to do, in a sentence or two.
    pub advice: String,
}

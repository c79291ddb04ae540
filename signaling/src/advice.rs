use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What limits the server, as `GET /v1/advice` and `saccade doctor --live URL --json` tell it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AdviceView {
    /// Seconds that were looked at; 0 while there is too little to look at.
    pub window_s: f64,
    /// The most severe first; empty where nothing limits the server.
    pub findings: Vec<AdviceFinding>,
}

/// Something that limits the server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AdviceFinding {
    /// Stable code: `decode_bound`, `inference_bound`, `encode_bound`, `network_loss`, `batch_wait`, `memory_near_limit`,
    /// `cache_useless` or `gpu_idle`.
    pub code: String,
    /// How much it matters.
    pub severity: AdviceSeverity,
    /// What was seen, in a sentence.
    pub message: String,
    /// The numbers that speak for it; names end in their unit.
    pub evidence: BTreeMap<String, f64>,
    /// What to change first: a key of the configuration, or, with another place before a colon, of that.
    pub setting: String,
    /// What to do.
    pub advice: String,
    /// The page about it, in Saccade's repository.
    pub runbook: String,
}

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AdviceSeverity {
    /// Nobody is kept waiting; there is something to gain, or little left.
    Info,
    /// Some frames or pictures are lost or late.
    Warning,
    /// Many are, or the server is about to refuse work.
    Critical,
}

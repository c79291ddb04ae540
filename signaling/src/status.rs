use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Latency;

/// What runs: a message of the socket `GET /v1/status`, once a second.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename = "status")]
pub struct Status {
    /// When it was looked, in milliseconds since 1970.
    pub time_ms: i64,
    /// Name and version of the server.
    pub server: String,
    /// Processors that the server keeps busy.
    pub cpu: f64,
    /// Items that wait, by queue; empty for a token of one session.
    pub queues: BTreeMap<String, u64>,
    /// Models that are ready.
    pub models: Vec<ModelStatus>,
    /// Sessions that there are.
    pub sessions_total: u64,
    /// The first 256 of them.
    pub sessions: Vec<SessionStatus>,
}

/// What one model does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ModelStatus {
    /// As `NAME@VERSION`.
    pub model: String,
    /// Precision it runs in.
    pub precision: String,
    /// Backend that runs it.
    pub backend: String,
    /// Sessions whose last result is its own.
    pub sessions: u64,
    /// Results a second.
    pub results_per_s: f64,
}

/// What one session does; rates and latency are of the last second.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SessionStatus {
    /// Id of the session; of a camera, its name.
    pub session_id: String,
    /// Name of the configured camera that the video comes from; null where a peer sends it.
    pub camera: Option<String>,
    /// `connecting`, `connected` or `closing`.
    pub state: String,
    /// Seconds since the offer.
    pub age_s: f64,
    /// Codec of the incoming video, once known.
    pub codec: Option<String>,
    /// Width and height of the upright frame, once known.
    pub resolution: Option<[u32; 2]>,
    /// Who watches the session's video by WHEP.
    pub viewers: u32,
    /// The model that answers, as `NAME@VERSION`; null before the first result.
    pub model: Option<String>,
    /// Frames decoded a second.
    pub frames_per_s: f64,
    /// Results a second.
    pub results_per_s: f64,
    /// Frames sent back a second.
    pub returned_per_s: f64,
    /// Frames dropped a second.
    pub dropped_per_s: f64,
    /// Of the results.
    pub latency_ms: Latency,
    /// Share of the results that kept the budget, in percent; null where there was none.
    pub met: Option<f64>,
    /// Steps of the degradation ladder in force.
    pub degraded: Vec<String>,
}

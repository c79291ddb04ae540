use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Dropped, ErrorCode, Options, OptionsPatch, options};

/// Body of `POST /v1/offer`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OfferRequest {
    /// Session description, candidates included.
    pub sdp: String,
    /// `offer`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Options of the session.
    #[serde(default, deserialize_with = "options::optional_object", skip_serializing_if = "Option::is_none")]
    pub options: Option<OptionsPatch>,
}

/// Answer to `POST /v1/offer`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OfferResponse {
    /// Session description, candidates included.
    pub sdp: String,
    /// `answer`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Id of the session.
    pub session_id: String,
}

/// Body of every error of the HTTP API, `application/problem+json` (RFC 9457).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// Stable code.
    pub code: ErrorCode,
    /// What kind of problem it is.
    pub title: String,
    /// What to do about it.
    pub detail: String,
    /// HTTP status, repeated.
    pub status: u16,
}

/// One session as `GET /v1/sessions` and `GET /v1/sessions/{id}` show it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SessionView {
    /// Id of the session.
    pub session_id: String,
    /// `connecting`, `connected` or `closing`.
    pub state: String,
    /// Codec of the incoming video, once known.
    pub codec: Option<String>,
    /// Width and height of the upright frame, once known.
    pub resolution: Option<[u32; 2]>,
    /// Seconds since the offer.
    pub age_s: f64,
    /// Options in force.
    pub options: Options,
    /// What was counted since the session began.
    pub counters: SessionCounters,
    /// Times by stage over the last frames.
    pub stages: Vec<StageTiming>,
}

/// Counters of a session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SessionCounters {
    /// RTP packets received.
    pub packets_in: u64,
    /// Access units assembled.
    pub access_units: u64,
    /// Frames decoded.
    pub decoded: u64,
    /// Frames that went through the model.
    pub inferred: u64,
    /// Frames encoded and sent back.
    pub returned: u64,
    /// Results sent or offered to a listener.
    pub results: u64,
    /// Keyframes asked of the sender.
    pub keyframe_requests_out: u64,
    /// Keyframes that the receiver asked for.
    pub keyframe_requests_in: u64,
    /// Frames dropped, by reason.
    pub dropped: Dropped,
}

/// Service time of one stage in milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StageTiming {
    /// Name of the stage, as in [`crate::Timing`].
    pub stage: String,
    /// Median.
    pub p50_ms: f64,
    /// 95th percentile.
    pub p95_ms: f64,
}

/// One model as `GET /v1/models` shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ModelView {
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// Task, such as `detect`.
    pub task: String,
    /// Licence of the weights.
    pub licence: String,
    /// Input width and height in pixels.
    pub input: [u32; 2],
    /// Class names, by class id.
    pub classes: Vec<String>,
    /// Threshold used when the session states none.
    pub score_threshold: f32,
    /// Backend that runs it, such as `cpu` or `openvino`.
    pub backend: String,
    /// Precision it runs in.
    pub precision: String,
    /// Whether it is the default model.
    pub default: bool,
}

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::{Map, Value};

use crate::{Dropped, ErrorCode, Options, OptionsPatch, options};

/// Body of `POST /v1/offer`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OfferRequest {
    /// Session description, candidates included.
    pub sdp: String,
    /// `offer`.
    #[schemars(extend("const" = "offer"))]
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
    #[schemars(extend("const" = "answer"))]
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
    /// Name of the configured camera that the video comes from; null where a peer sends it.
    #[serde(default)]
    pub camera: Option<String>,
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
    /// Who watches the session's video by WHEP.
    pub viewers: u32,
    /// The network path to the peer; null until it is connected and was looked at once, half a second later at most.
    pub transport: Option<TransportView>,
}

/// One configured camera as `GET /v1/cameras` and `GET /v1/cameras/{name}` show it. It tells no address.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CameraView {
    /// Its name.
    pub name: String,
    /// `connecting`, `live`, or `waiting` until it is tried again.
    pub state: String,
    /// Seconds since that began.
    pub state_age_s: f64,
    /// Why it is waited; null in other states.
    pub reason: Option<CameraReason>,
    /// Milliseconds until it is tried again; null in other states.
    pub retry_after_ms: Option<u64>,
    /// Connections over which it began to send, since the server started.
    pub connects: u64,
    /// Tries and connections that failed, since the server started.
    pub failures: u64,
    /// Id of its session, which is its name and stays over reconnects; null while there is none.
    pub session_id: Option<String>,
}

/// Why a camera gives no video.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CameraReason {
    /// Stable code.
    pub code: String,
    /// What to do about it.
    pub message: String,
}

/// The network path of a session, looked at twice a second. What comes from RTCP reports is as old as the last one,
/// which both sides send about once a second. It tells no address.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TransportView {
    /// Last round trip in milliseconds: of a connectivity check, which repeats every two seconds, or, where none was
    /// answered, of RTCP reports about returned video. Null before the first.
    pub round_trip_ms: Option<f64>,
    /// How the server's address was found: `host`, `srflx`, `prflx` or `relay`.
    pub local_candidate: String,
    /// How the peer's address was found: `host`, `srflx`, `prflx` or `relay`.
    pub remote_candidate: String,
    /// `udp` or `tcp`.
    pub protocol: String,
    /// Bytes received, of every protocol above `protocol`.
    pub bytes_in: u64,
    /// Bytes sent, of every protocol above `protocol`.
    pub bytes_out: u64,
    /// Bits a second that the path to the peer is thought to carry, never more than the server is set to send.
    pub available_out_bps: u32,
    /// Video from the peer.
    pub inbound: InboundVideo,
    /// Video to the peer; null when it takes none.
    pub outbound: Option<OutboundVideo>,
}

/// Video from the peer, as the server receives it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct InboundVideo {
    /// RTP packets received.
    pub packets: u64,
    /// RTP packets that had not come when the report on their interval was made, repetitions included.
    pub packets_lost: u64,
    /// Share of lost packets in the interval of the last report, 0..1; null before the first.
    pub loss_ratio: Option<f64>,
    /// Jitter of arrivals in milliseconds (RFC 3550 section 6.4.1); null before the first report.
    pub jitter_ms: Option<f64>,
    /// NACK messages sent, each for one or more missing packets.
    pub nacks_sent: u64,
}

/// Video to the peer, as its reports tell.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OutboundVideo {
    /// RTP packets sent, repeated ones included.
    pub packets: u64,
    /// RTP packets that the peer says are lost; null before its first report.
    pub packets_lost: Option<u64>,
    /// Share of lost packets in the interval of the peer's last report, 0..1; null before the first.
    pub loss_ratio: Option<f64>,
    /// Jitter of arrivals at the peer in milliseconds (RFC 3550 section 6.4.1); null before its first report.
    pub jitter_ms: Option<f64>,
    /// NACK messages received, each for one or more missing packets.
    pub nacks_received: u64,
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
    /// Name of the stage, as in [`crate::Timing`]; `video`: last packet in to first packet of the returned frame out,
    /// `video_waited`: as much of that as it was neither decoded, drawn on nor encoded.
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
    /// What it is up to.
    #[serde(default)]
    pub state: ModelState,
    /// Why it is not ready, where there is something to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What a model of the repository is up to. What is only known once it was loaded, such as its backend, is empty before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ModelState {
    /// Sessions can have it.
    #[default]
    Ready,
    /// It waits to be loaded, is checked, or warms up.
    Loading,
    /// It is there, and nobody wants it loaded.
    Unloaded,
    /// It can't be used; the `reason` says why.
    Refused,
}

/// A route: body of `PUT /v1/routes/{name}`, and what `GET` answers there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum RoutePut {
    /// Each session gets one of several models.
    Split(SplitRoute),
    /// Each frame goes through several models.
    Ensemble(EnsembleRoute),
}

/// A route that gives each session one of several models, always the same one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SplitRoute {
    /// 1 to 16 models.
    #[schemars(length(min = 1, max = 16))]
    pub split: Vec<RouteShare>,
    /// A model that runs beside the session's own and is only compared with it, as `NAME` or `NAME@VERSION`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<String>,
}

/// One model of a split.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteShare {
    /// `NAME` or `NAME@VERSION`.
    pub model: String,
    /// Its part of the sessions, out of the sum of all weights: 0 to 1000, and not 0 for all.
    #[schemars(range(max = 1000))]
    pub weight: u32,
}

/// A route whose models all answer, as one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EnsembleRoute {
    /// 2 to 4 models as `NAME` or `NAME@VERSION`.
    #[schemars(length(min = 2, max = 4))]
    pub ensemble: Vec<String>,
    /// How what they find becomes one list.
    #[serde(default)]
    pub fusion: RouteFusion,
}

/// How what several models find becomes one list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RouteFusion {
    /// Weighted boxes fusion (arXiv:1910.13302).
    #[default]
    Wbf,
}

/// An entry of `GET /v1/routes`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RouteView {
    /// Name, by which sessions ask for it like for a model.
    pub name: String,
    /// Whether sessions that name no model get it.
    pub default: bool,
    /// Names of the classes of all its models; the index is the class id. Empty while one of them is not loaded.
    pub classes: Vec<String>,
    /// What it is.
    pub route: RoutePut,
}

/// What `DELETE /v1/cache` did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CacheForgotten {
    /// Answers that each tier removed.
    pub removed: BTreeMap<String, u64>,
    /// Tiers that could not remove all of them. This server does not give them out; others that share the tier may.
    pub failed: Vec<String>,
}

impl<'de> Deserialize<'de> for RoutePut {
    /// By its key rather than by trial, so that mistakes are named.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let keys = Map::deserialize(deserializer)?;
        let (split, ensemble) = (keys.contains_key("split"), keys.contains_key("ensemble"));
        let value = Value::Object(keys);
        match (split, ensemble) {
            (true, false) => SplitRoute::deserialize(value).map(Self::Split).map_err(de::Error::custom),
            (false, true) => EnsembleRoute::deserialize(value).map(Self::Ensemble).map_err(de::Error::custom),
            (true, true) => Err(de::Error::custom("a route has `split` or `ensemble`, not both")),
            (false, false) => Err(de::Error::custom("a route has `split` or `ensemble`")),
        }
    }
}

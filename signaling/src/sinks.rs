use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{CameraReason, Event, SessionResult};

/// One message to a sink: the body of a webhook, and the payload of a message over MQTT or NATS.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SinkMessage {
    /// Version of this shape: 1.
    pub version: u32,
    /// Unlike that of every other message: whoever gets one twice knows by it.
    pub id: String,
    /// What it tells: the `type` of `data`.
    #[serde(rename = "type")]
    pub kind: String,
    /// When it came into being, as RFC 3339 has it, in UTC.
    pub timestamp: String,
    /// Id of the session; of a camera, its name.
    pub session_id: String,
    /// Name of the configured camera that it is about; null where a peer sends the video.
    pub camera: Option<String>,
    /// What is told.
    pub data: SinkData,
}

/// What a [`SinkMessage`] tells.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum SinkData {
    /// What was found in a frame, as on the `results` data channel. `detections` is in the `format` of the session.
    Result(Box<SessionResult>),
    /// As on the `events` data channel.
    Event(Event),
    /// What no data channel tells.
    Notice(Notice),
}

/// What becomes of sessions and cameras.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Notice {
    /// A session began.
    SessionStarted {
        /// Codec of the incoming video.
        codec: Option<String>,
        /// Its model or route.
        model: String,
    },
    /// A session ended.
    SessionEnded {
        /// Why, as in the `closed` message.
        reason: String,
        /// Seconds since the offer.
        duration_s: f64,
    },
    /// A configured camera began to send, or does not any more, or for another reason.
    CameraChanged {
        /// `live` or `waiting`.
        state: String,
        /// Why it is waited; null in other states.
        reason: Option<CameraReason>,
    },
}

/// One sink as `GET /v1/sinks` shows it. It tells neither address nor credentials.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SinkView {
    /// Its name.
    pub name: String,
    /// `webhook`, `mqtt` or `nats`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `connecting` until it was heard of, `up`, `waiting` until it is tried again, or `disabled`.
    pub state: String,
    /// Messages that wait.
    pub queued: u64,
    /// Messages that may wait.
    pub capacity: u64,
    /// Messages that it took since the server started.
    pub delivered: u64,
    /// Messages that it did not get and will not, since the server started.
    pub lost: u64,
    /// Why it failed last; null if it never did.
    pub last_failure: Option<SinkFailure>,
}

/// Why a sink failed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SinkFailure {
    /// Stable code.
    pub code: String,
    /// What to do about it.
    pub message: String,
    /// Seconds since then.
    pub age_s: f64,
}

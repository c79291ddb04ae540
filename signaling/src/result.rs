use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Direction;

/// One processed frame, as sent on the `results` data channel in the `saccade` format.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename = "result")]
pub struct SessionResult {
    /// Version of this shape: 1.
    pub version: u32,
    /// Id of the session.
    pub session_id: String,
    /// Number of the frame among the frames decoded in this session, from 0.
    pub frame_id: u64,
    /// RTP timestamp of the frame as received (90 kHz).
    pub rtp_timestamp_in: u32,
    /// RTP timestamp of the returned frame, which `requestVideoFrameCallback` reports as `rtpTimestamp`; `null` when
    /// this frame is not returned.
    pub rtp_timestamp_out: Option<u32>,
    /// Capture time where the sender tells it, in milliseconds since 1970.
    pub capture_time_ms: Option<f64>,
    /// Width of the upright frame, in pixels.
    pub width: u32,
    /// Height of the upright frame, in pixels.
    pub height: u32,
    /// Name and version of the model, such as `ppe-nano@1`.
    pub model: String,
    /// What was found, best score first.
    pub detections: Vec<Detection>,
    /// Where the time went.
    pub timing_ms: Timing,
    /// The session's latency budget in milliseconds.
    pub budget_ms: u32,
    /// Whether this frame kept the budget.
    pub met: bool,
    /// Frames that ran through the model together with this one.
    pub batch_size: u32,
    /// Frames dropped since the session began.
    pub dropped: Dropped,
    /// Steps of the degradation ladder in force.
    pub degraded: Vec<String>,
}

/// One found object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Detection {
    /// Corners `[x1, y1, x2, y2]` in pixels of the upright frame as the client sent it.
    #[serde(rename = "box")]
    pub bbox: [f32; 4],
    /// Index of the class in the model.
    pub class_id: u32,
    /// Name of the class.
    pub class: String,
    /// Score, 0..1.
    pub score: f32,
    /// Identity across frames; `null` while nothing tracks.
    pub object_id: Option<u64>,
}

/// Milliseconds spent in each stage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Timing {
    /// Waiting in the reorder buffer, from the frame's last packet.
    pub reorder: f64,
    /// Decoding, its queue included.
    pub decode: f64,
    /// Waiting for the model.
    pub queue: f64,
    /// Scaling, colour conversion and normalisation.
    pub preprocess: f64,
    /// Running the model.
    pub inference: f64,
    /// Turning tensors into boxes.
    pub postprocess: f64,
    /// Drawing.
    pub annotate: f64,
    /// Encoding; the last known when the result leaves before its frame is encoded.
    pub encode: f64,
    /// From the frame's last packet to this result, `encode` included.
    pub total: f64,
}

/// Frames dropped, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Dropped {
    /// A newer frame came before the model was free.
    pub superseded: u64,
    /// The frame could no longer keep its deadline.
    pub late: u64,
    /// The model was not asked, to have time for others: see [`SessionResult::degraded`].
    #[serde(default)]
    pub skipped: u64,
}

/// A message of the `events` data channel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    /// A track came into being.
    TrackStarted {
        /// Identification tag of the media section.
        mid: String,
        /// Name of the codec.
        codec: String,
    },
    /// The incoming resolution changed.
    ResolutionChanged {
        /// Width of the upright frame, in pixels.
        width: u32,
        /// Height of the upright frame, in pixels.
        height: u32,
    },
    /// An object came into a zone.
    ZoneEntered {
        /// Name of the zone.
        zone: String,
        /// Identity of the object across frames.
        object_id: u64,
        /// Index of its class in the model.
        class_id: u32,
        /// Name of its class.
        class: String,
        /// Objects in the zone now.
        count: u32,
        /// RTP timestamp of the frame as received (90 kHz), as `rtp_timestamp_in` of its result.
        rtp_timestamp: u32,
    },
    /// An object left a zone, or was no longer seen in it.
    ZoneLeft {
        /// Name of the zone.
        zone: String,
        /// Identity of the object across frames.
        object_id: u64,
        /// Index of its class in the model.
        class_id: u32,
        /// Name of its class.
        class: String,
        /// Milliseconds it was in the zone, until it was last seen there.
        dwell_ms: u64,
        /// Objects in the zone now.
        count: u32,
        /// RTP timestamp of the frame as received (90 kHz), as `rtp_timestamp_in` of its result.
        rtp_timestamp: u32,
    },
    /// An object has been in a zone for its `dwell_s`; once a stay.
    ZoneDwelled {
        /// Name of the zone.
        zone: String,
        /// Identity of the object across frames.
        object_id: u64,
        /// Index of its class in the model.
        class_id: u32,
        /// Name of its class.
        class: String,
        /// Milliseconds it has been in the zone.
        dwell_ms: u64,
        /// RTP timestamp of the frame as received (90 kHz), as `rtp_timestamp_in` of its result.
        rtp_timestamp: u32,
    },
    /// An object crossed a line.
    LineCrossed {
        /// Name of the line.
        line: String,
        /// Which way.
        direction: Direction,
        /// Identity of the object across frames.
        object_id: u64,
        /// Index of its class in the model.
        class_id: u32,
        /// Name of its class.
        class: String,
        /// Crossings from left to right since the line was set, this one included.
        left_to_right: u64,
        /// Crossings from right to left since the line was set, this one included.
        right_to_left: u64,
        /// RTP timestamp of the frame as received (90 kHz), as `rtp_timestamp_in` of its result.
        rtp_timestamp: u32,
    },
    /// What a rule forbids has lasted too long. `object_id`, `class_id` and `class` are null where the rule has
    /// `more_than`: then it is about the zone.
    AlertStarted {
        /// Name of the rule.
        rule: String,
        /// Name of its zone.
        zone: String,
        /// The object that it is about.
        object_id: Option<u64>,
        /// Index of the object's class in the model.
        class_id: Option<u32>,
        /// Name of the object's class.
        class: Option<String>,
        /// Objects of the rule's classes in the zone now.
        count: u32,
        /// RTP timestamp of the frame as received (90 kHz), as `rtp_timestamp_in` of its result.
        rtp_timestamp: u32,
    },
    /// It is over.
    AlertEnded {
        /// Name of the rule.
        rule: String,
        /// Name of its zone.
        zone: String,
        /// The object that it was about, as when it started.
        object_id: Option<u64>,
        /// Milliseconds from the start of the alert until what raised it was last seen.
        duration_ms: u64,
        /// RTP timestamp of the frame as received (90 kHz), as `rtp_timestamp_in` of its result.
        rtp_timestamp: u32,
    },
}

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
    /// What was found, best score first; empty where the model's task is not to find boxes.
    pub detections: Vec<Detection>,
    /// Classes of the whole frame, best score first, where the model's task is `classify`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<Vec<Label>>,
    /// Classes of its pixels, the largest first, where the model's task is `segment`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segments: Option<Vec<Segment>>,
    /// Where the corners of the masks in [`Segment::rle`] lie, in pixels of the upright frame: `[x1, y1, x2, y2]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask_box: Option<[f32; 4]>,
    /// The model's outputs as they are, where its task is `raw`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tensors: Option<Vec<Tensor>>,
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
    /// Points `[x, y, score]` in pixels of the upright frame, in the model's order, where the model's task is `pose` and it
    /// saw this frame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keypoints: Option<Vec<[f32; 3]>>,
}

/// A class of the whole frame.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Label {
    /// Index of the class in the model.
    pub class_id: u32,
    /// Name of the class.
    pub class: String,
    /// Score, 0..1.
    pub score: f32,
}

/// All pixels of one class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Segment {
    /// Index of the class in the model.
    pub class_id: u32,
    /// Name of the class.
    pub class: String,
    /// Share of the frame that it covers, 0..1.
    pub area_ratio: f32,
    /// Corners `[x1, y1, x2, y2]` around all of it, in pixels of the upright frame.
    #[serde(rename = "box")]
    pub bbox: [f32; 4],
    /// Its outlines with `masks: "outlines"`, the longest first: closed rings of points `[x, y]` in pixels of the upright
    /// frame. A ring inside another one is a hole (even-odd rule).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub polygons: Option<Vec<Vec<[f32; 2]>>>,
    /// Its pixels with `masks: "rle"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rle: Option<Rle>,
    /// Small outlines that were left out, or 1 for its run lengths, where the message would have become too large.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_out: Option<u32>,
}

/// A mask in the run lengths of COCO, as `pycocotools.mask` takes them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Rle {
    /// Height and width of the mask: the resolution in which the model tells it. [`SessionResult::mask_box`] says where it
    /// lies in the frame.
    pub size: [u32; 2],
    /// Lengths of runs down the columns, outside and inside by turns, in COCO's compressed text.
    pub counts: String,
}

/// An output of a model for one frame.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// Its shape, the batch first: 1.
    pub shape: Vec<i64>,
    /// Its values, row by row, as 32-bit floats; `null` for one that is no number. `null` altogether where they are left
    /// out.
    pub data: Option<Vec<Option<f32>>>,
    /// How many values are left out, since a message would have become too large.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_out: Option<u64>,
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

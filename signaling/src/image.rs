use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Detection, ErrorCode, Timing};

/// What `POST /v1/detect` answers for one picture, in the `saccade` format.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename = "result")]
pub struct ImageResult {
    /// Version of this shape: 1.
    pub version: u32,
    /// Place of the picture in its request, from 0.
    pub image: u32,
    /// File name or, without one, name of the picture's part in a multipart request; `null` where the picture is the body.
    pub name: Option<String>,
    /// Width of the upright picture, in pixels.
    pub width: u32,
    /// Height of the upright picture, in pixels.
    pub height: u32,
    /// Name and version of the model, such as `ppe-nano@1`; of several, that of their route.
    pub model: String,
    /// What was found, best score first; boxes in pixels of the whole upright picture, however it was decoded.
    pub detections: Vec<Detection>,
    /// Where the time went, from the picture's last byte on; `reorder` is always 0.
    pub timing_ms: Timing,
    /// The picture's latency budget in milliseconds.
    pub budget_ms: u32,
    /// Whether it was kept.
    pub met: bool,
    /// Frames and pictures that ran through the model together with this one.
    pub batch_size: u32,
    /// The picture with what was found drawn on it, as a `data:` URL; only where it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotated: Option<String>,
}

/// What takes the place of an [`ImageResult`] among those of several pictures when something is wrong with one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename = "error")]
pub struct ImageError {
    /// Place of the picture in its request, from 0.
    pub image: u32,
    /// See [`ImageResult::name`].
    pub name: Option<String>,
    /// Stable code.
    pub code: ErrorCode,
    /// What to do about it.
    pub message: String,
    /// HTTP status that the picture would have got by itself.
    pub status: u16,
    /// When to try again, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

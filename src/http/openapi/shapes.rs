//! Bodies that have no type of their own, since they are written as they are sent.

#![expect(dead_code, reason = "only their schemas are used")]

use saccade_signaling::{ImageError, ImageResult};
use schemars::JsonSchema;
use serde_json::{Map, Value};

/// Types by whose names descriptions refer to schemas.
pub(in crate::http) mod names {
    use super::super::shapes;

    crate::openapi::schemas! {
        from shapes
        takes { Annotate, Group, NoOptions, Order, PictureForm, TableFormat }
        gives { Found, OtherImageResult }
    }
}

/// Several pictures as a form (RFC 7578); the names of its parts are the client's to choose.
#[derive(JsonSchema)]
pub(in crate::http) struct PictureForm {
    /// JPEGs, PNGs or WebPs, at most 16 (`limits.images`).
    #[schemars(length(min = 1, max = 16))]
    picture: Vec<PictureBytes>,
}

/// A picture as it is.
#[derive(JsonSchema)]
#[schemars(inline, extend("contentMediaType" = "application/octet-stream"))]
pub(in crate::http) struct PictureBytes(String);

/// Formats of annotated pictures.
#[derive(JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::http) enum Annotate {
    /// Small, with losses.
    Jpeg,
    /// Without losses.
    Png,
}

/// Orders of events.
#[derive(JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::http) enum Order {
    /// The latest first.
    Desc,
    /// The earliest first.
    Asc,
}

/// Formats of history.
#[derive(JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::http) enum TableFormat {
    /// Pages of objects.
    Json,
    /// A table with a head, as text.
    Csv,
    /// A table with types.
    Parquet,
}

/// What has points of its own in sums.
#[derive(JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::http) enum Group {
    /// Nothing: everything together.
    None,
    /// Each session.
    Session,
    /// Each camera.
    Camera,
    /// Each model.
    Model,
}

/// There is nothing to say yet.
#[derive(JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct NoOptions {}

/// What was found: of one picture, or of several in the order of the request.
#[derive(JsonSchema)]
#[serde(untagged)]
pub(in crate::http) enum Found {
    /// In the `saccade` format.
    Saccade(Box<ImageResult>),
    /// In another one.
    Other(OtherImageResult),
    /// Of several.
    Several(Vec<FoundInOneOfSeveral>),
}

/// What was found in a picture, or what is wrong with it.
#[derive(JsonSchema)]
#[serde(untagged)]
pub(in crate::http) enum FoundInOneOfSeveral {
    /// In the `saccade` format.
    Saccade(Box<ImageResult>),
    /// In another one.
    Other(OtherImageResult),
    /// It was not answered.
    Error(ImageError),
}

/// What was found in a picture, in the format of another program (`format`): as in the `saccade` format but for
/// `detections` and what a model says of the whole picture.
#[derive(JsonSchema)]
#[serde(tag = "type", rename = "result")]
pub(in crate::http) struct OtherImageResult {
    /// Place of the picture in its request, from 0.
    image: u32,
    /// Name and version of the model.
    model: String,
    /// A list, or columns.
    detections: Value,
    /// The rest.
    #[serde(flatten)]
    rest: Map<String, Value>,
}

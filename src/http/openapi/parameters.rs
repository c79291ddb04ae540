//! Parameters as they are described. Handlers read them by hand, to name everything that is wrong with them.

#![expect(dead_code, reason = "only their descriptions are used")]

use utoipa::IntoParams;

use super::shapes::names::{Annotate, Group, Order, TableFormat};
use super::wire::{Line, Masks, OverlayPatch, ResultFormat, ReturnMode, Rule, Zone};

/// A session in a path.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub(in crate::http) struct OfSession {
    /// Id of a session; of a camera, its name.
    id: String,
}

/// A viewer in a path.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub(in crate::http) struct OfViewer {
    /// Id of a session; of a camera, its name.
    id: String,
    /// Id of one of its viewers.
    viewer_id: String,
}

/// A name in a path.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub(in crate::http) struct OfName {
    /// Its name; of a model, also `NAME@VERSION`.
    name: String,
}

/// Of a patch.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub(in crate::http) struct IfMatch {
    /// The ETag of the last answer, or `*` to restart ICE whatever it is.
    #[param(rename = "If-Match")]
    if_match: String,
}

/// Of what a client may have already.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub(in crate::http) struct IfNoneMatch {
    /// ETags of what the client has already.
    #[param(rename = "If-None-Match")]
    if_none_match: Option<String>,
}

/// Which answers that were given before are good enough.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub(in crate::http) struct CacheControl {
    /// `no-cache`: compute it anew; `max-age=SECONDS`: nothing older; `no-store`: neither look nor keep (RFC 9111 section 5.2.1).
    #[param(rename = "Cache-Control")]
    cache_control: Option<String>,
}

/// `GET /v1/models`.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct Models {
    /// Whether models that are loading, unloaded or refused are listed, too.
    #[param(default = false)]
    all: Option<bool>,
}

/// `DELETE /v1/cache`: one of them.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct Forget {
    /// Forget what this model answered: `NAME` or `NAME@VERSION`.
    #[param(min_length = 1)]
    model: Option<String>,
    /// Forget what was asked for with this `cache_tag`.
    #[param(pattern = "^[A-Za-z0-9._:-]{1,64}$")]
    tag: Option<String>,
}

/// Options of a session.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct SessionOptions {
    /// Model or route; else the server's default.
    model: Option<String>,
    /// Which video comes back.
    r#return: Option<ReturnMode>,
    /// Latency budget in milliseconds, last packet in to first packet out.
    #[param(minimum = 10, maximum = 5000)]
    budget_ms: Option<u32>,
    /// Lowest score that is reported; else the model's own.
    #[param(minimum = 0, maximum = 1)]
    score_threshold: Option<f32>,
    /// Overlap above which the weaker of two boxes of one class goes; else the model's own.
    #[param(minimum = 0, maximum = 1)]
    iou_threshold: Option<f32>,
    /// Detections reported for a frame at most; else the model's own.
    #[param(minimum = 1, maximum = 1000)]
    max_detections: Option<u32>,
    /// Class names that are reported, between commas; else all.
    #[param(style = Form, explode = false)]
    classes: Option<Vec<String>>,
    /// Whether objects are followed from frame to frame.
    track: Option<bool>,
    /// What is drawn on returned video.
    overlay: Option<OverlayPatch>,
    /// Shape of the detections in each result.
    format: Option<ResultFormat>,
    /// What is told of segments; for models that segment.
    masks: Option<Masks>,
    /// Watched areas; they, lines and rules need `track`.
    zones: Option<Vec<Zone>>,
    /// Counting lines.
    lines: Option<Vec<Line>>,
    /// What raises an alert.
    rules: Option<Vec<Rule>>,
}

/// Options of a request with pictures.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct PictureOptions {
    /// Model or route; else the server's default.
    model: Option<String>,
    /// Latency budget of each picture in milliseconds, from its last byte on.
    #[param(minimum = 10, maximum = 5000)]
    budget_ms: Option<u32>,
    /// Lowest score that is reported; else the model's own.
    #[param(minimum = 0, maximum = 1)]
    score_threshold: Option<f32>,
    /// Overlap above which the weaker of two boxes of one class goes; else the model's own.
    #[param(minimum = 0, maximum = 1)]
    iou_threshold: Option<f32>,
    /// Detections reported for a picture at most; else the model's own.
    #[param(minimum = 1, maximum = 1000)]
    max_detections: Option<u32>,
    /// Class names that are reported, between commas; else all.
    #[param(style = Form, explode = false)]
    classes: Option<Vec<String>>,
    /// What is drawn on an annotated picture.
    overlay: Option<OverlayPatch>,
    /// Shape of the detections in each result.
    format: Option<ResultFormat>,
    /// What is told of segments; for models that segment.
    masks: Option<Masks>,
    /// Return the picture with what was found drawn on it: in the result's place, or, of several pictures or as events, in
    /// each result as a `data:` URL.
    annotate: Option<Annotate>,
    /// What decides which of a split route's models is asked; else the picture itself.
    #[param(min_length = 1, max_length = 128)]
    key: Option<String>,
    /// Tags that answers can be forgotten by, at most 8 between commas.
    #[param(pattern = "^[A-Za-z0-9._:-]{1,64}(,[A-Za-z0-9._:-]{1,64}){0,7}$")]
    cache_tag: Option<String>,
}

/// Filters of events.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct EventFilters {
    /// The first moment, as RFC 3339 has it or in milliseconds since 1970.
    from: Option<String>,
    /// The moment before which the range ends.
    to: Option<String>,
    /// Of this session alone.
    #[param(max_length = 512)]
    session: Option<String>,
    /// Of this camera alone.
    #[param(max_length = 512)]
    camera: Option<String>,
    /// Of this `type` alone.
    #[param(max_length = 512)]
    r#type: Option<String>,
    /// Of this zone alone.
    #[param(max_length = 512)]
    zone: Option<String>,
    /// Of this line alone.
    #[param(max_length = 512)]
    line: Option<String>,
    /// Of this rule alone.
    #[param(max_length = 512)]
    rule: Option<String>,
    /// About objects of this class alone.
    #[param(max_length = 512)]
    class: Option<String>,
    /// The latest first, or the earliest.
    #[param(default = "desc")]
    order: Option<Order>,
    /// Events of one answer: 100, or up to 1000; of a table 1,000,000, by default, too.
    #[param(minimum = 1, maximum = 1_000_000)]
    limit: Option<u32>,
    /// `next_cursor` of the page before, asked for with the same `order`.
    cursor: Option<String>,
    /// JSON or a table; else what `Accept` says.
    format: Option<TableFormat>,
}

/// Filters of sums.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(in crate::http) struct StatsFilters {
    /// The first moment, as RFC 3339 has it or in milliseconds since 1970; else a day before the last.
    from: Option<String>,
    /// The moment before which the range ends; else now.
    to: Option<String>,
    /// Length of a step: a multiple of a minute. Else what makes some 300 points.
    #[param(pattern = "^[0-9]+[smhd]$", example = "1h")]
    step: Option<String>,
    /// Of this session alone.
    #[param(max_length = 512)]
    session: Option<String>,
    /// Of this camera alone.
    #[param(max_length = 512)]
    camera: Option<String>,
    /// Of this model alone, as `NAME@VERSION`.
    #[param(max_length = 512)]
    model: Option<String>,
    /// What has points of its own.
    #[param(default = "none")]
    group: Option<Group>,
    /// JSON or a table; else what `Accept` says.
    format: Option<TableFormat>,
}

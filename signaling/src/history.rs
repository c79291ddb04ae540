use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Event;

/// A page of events, as `GET /v1/events` answers in JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EventPage {
    /// In the order that was asked for.
    pub events: Vec<EventRecord>,
    /// Where the list goes on; null at its end.
    pub next_cursor: Option<String>,
}

/// An event of a session, as it is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EventRecord {
    /// Unlike that of every other event.
    pub id: String,
    /// When it happened, as RFC 3339 has it, in UTC.
    pub time: String,
    /// The same in milliseconds since 1970.
    pub time_ms: i64,
    /// Id of the session; of a camera, its name.
    pub session_id: String,
    /// Name of the configured camera that it is of; null where a peer sent the video.
    pub camera: Option<String>,
    /// The message of the `events` data channel, as it was sent.
    #[schemars(with = "Option<Event>")]
    pub event: Option<Value>,
}

/// Sums over steps of time, as `GET /v1/stats` answers in JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StatsView {
    /// Where the range begins, as RFC 3339 has it, in UTC.
    pub from: String,
    /// Where it ends; this moment is not in it.
    pub to: String,
    /// Seconds of one step.
    pub step_s: i64,
    /// By time, then group. Steps in which nothing was counted are left out.
    pub points: Vec<StatsPoint>,
}

/// The sums of one step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StatsPoint {
    /// Where the step begins, as RFC 3339 has it, in UTC.
    pub time: String,
    /// The same in milliseconds since 1970.
    pub time_ms: i64,
    /// The session, camera or model that it is of; null without groups.
    pub group: Option<String>,
    /// Frames decoded.
    pub frames: u64,
    /// Results.
    pub results: u64,
    /// Results that kept their budget.
    pub met: u64,
    /// Frames dropped, by reason.
    pub dropped: BTreeMap<String, u64>,
    /// Detections, by class.
    pub detections: BTreeMap<String, u64>,
    /// Objects that were seen for the first time.
    pub objects: u64,
    /// Comings and goings, by zone.
    pub zones: BTreeMap<String, ZoneStats>,
    /// Crossings, by line.
    pub lines: BTreeMap<String, LineStats>,
    /// Alerts that were raised.
    pub alerts: u64,
    /// Of the results.
    pub latency_ms: Latency,
}

/// Comings and goings of one zone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ZoneStats {
    /// Objects that came in.
    pub entered: u64,
    /// Objects that left.
    pub left: u64,
    /// Most objects in it at a time, among the times that one came or left.
    pub most: u64,
}

/// Crossings of one line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LineStats {
    /// From left to right.
    pub left_to_right: u64,
    /// From right to left.
    pub right_to_left: u64,
}

/// From a frame's last packet to its result, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Latency {
    /// Median; null where there was no result.
    pub p50: Option<f64>,
    /// 95th percentile; null where there was no result.
    pub p95: Option<f64>,
}

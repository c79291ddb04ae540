//! What is kept: events, and what each session did in each minute.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU16, Ordering};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::latency::Latencies;

/// A longer event is not kept, in bytes.
const MAX_EVENT_BYTES: usize = 64 * 1024;
/// Names are cut after so many characters; the configuration and the options of sessions allow fewer.
const MAX_NAME_CHARS: usize = 200;

/// Something to keep.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Record {
    /// Something happened.
    Event(Event),
    /// What a session did in a minute, or in a part of one.
    Minute(Minute),
}

impl Record {
    /// When it happened or began, in milliseconds since 1970.
    #[must_use]
    pub const fn time_ms(&self) -> i64 {
        match self {
            Self::Event(event) => event.time_ms,
            Self::Minute(minute) => minute.time_ms,
        }
    }
}

/// Whose records they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Id of the session.
    pub session: String,
    /// Name of the configured camera that its video comes from, if one does.
    pub camera: Option<String>,
}

/// One message of a session's `events` data channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Its own id: among events of one millisecond, ids are in the order in which they came.
    pub id: String,
    /// When it came, in milliseconds since 1970.
    pub time_ms: i64,
    /// Id of the session.
    pub session: String,
    /// The configured camera, if one gave the video.
    pub camera: Option<String>,
    /// Its `type`.
    pub kind: String,
    /// Its zone, if it has one.
    pub zone: Option<String>,
    /// Its line, if it has one.
    pub line: Option<String>,
    /// Its rule, if it has one.
    pub rule: Option<String>,
    /// Name of its object's class, if it has one.
    pub class: Option<String>,
    /// Its object, if it has one.
    pub object_id: Option<i64>,
    /// The message as it was sent.
    pub json: String,
}

impl Event {
    /// An event from its message; `None` for what is none: no object of JSON with a `type`, or a too long one.
    #[must_use]
    pub fn new(source: &Source, time_ms: i64, json: &str) -> Option<Self> {
        if json.len() > MAX_EVENT_BYTES {
            return None;
        }
        let value: Value = serde_json::from_str(json).ok()?;
        let word = |key: &str| value.get(key).and_then(Value::as_str).map(name);
        Some(Self {
            id: id(time_ms),
            time_ms,
            session: name(&source.session),
            camera: source.camera.as_deref().map(name),
            kind: word("type")?,
            zone: word("zone"),
            line: word("line"),
            rule: word("rule"),
            class: word("class"),
            object_id: value.get("object_id").and_then(Value::as_i64),
            json: json.replace('\0', ""),
        })
    }
}

/// What a session did in a minute with one model, or in a part of one: rows of one minute add up.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Minute {
    /// Its own id.
    pub id: String,
    /// When the minute began, in milliseconds since 1970: a multiple of 60,000.
    pub time_ms: i64,
    /// Id of the session.
    pub session: String,
    /// The configured camera, if one gave the video.
    pub camera: Option<String>,
    /// The model, as `NAME@VERSION`.
    pub model: String,
    /// What was counted.
    pub counts: Counts,
}

/// What was counted. Two of them add up, but for objects: one that was there in two minutes counts in both.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// Frames that were decoded.
    pub frames: u64,
    /// Results.
    pub results: u64,
    /// Results that kept their latency budget.
    pub met: u64,
    /// Frames without a result, by reason.
    pub dropped: BTreeMap<String, u64>,
    /// Detections by class.
    pub detections: BTreeMap<String, u64>,
    /// Different objects.
    pub objects: u64,
    /// What happened in zones, by zone.
    pub zones: BTreeMap<String, ZoneCounts>,
    /// What happened at lines, by line.
    pub lines: BTreeMap<String, LineCounts>,
    /// Alerts that began.
    pub alerts: u64,
    /// Times from last packet in to result.
    pub latencies: Latencies,
}

/// Comings and goings of one zone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZoneCounts {
    /// Objects that came in.
    pub entered: u64,
    /// Objects that left.
    pub left: u64,
    /// Most objects in it at a time, among the times that one came or left.
    pub most: u64,
}

/// Crossings of one line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineCounts {
    /// From left to right.
    pub left_to_right: u64,
    /// From right to left.
    pub right_to_left: u64,
}

impl Counts {
    /// Adds what another counted.
    pub fn add(&mut self, other: &Self) {
        self.frames += other.frames;
        self.results += other.results;
        self.met += other.met;
        self.objects += other.objects;
        self.alerts += other.alerts;
        self.latencies.merge(&other.latencies);
        for (reason, count) in &other.dropped {
            *self.dropped.entry(reason.clone()).or_default() += count;
        }
        for (class, count) in &other.detections {
            *self.detections.entry(class.clone()).or_default() += count;
        }
        for (zone, counts) in &other.zones {
            let of = self.zones.entry(zone.clone()).or_default();
            of.entered += counts.entered;
            of.left += counts.left;
            of.most = of.most.max(counts.most);
        }
        for (line, counts) in &other.lines {
            let of = self.lines.entry(line.clone()).or_default();
            of.left_to_right += counts.left_to_right;
            of.right_to_left += counts.right_to_left;
        }
    }
}

/// A name as it is kept: PostgreSQL takes no NUL.
pub(super) fn name(text: &str) -> String {
    text.chars().filter(|one| *one != '\0').take(MAX_NAME_CHARS).collect()
}

/// An id that no other record has: the millisecond, a counter, and 64 random bits.
pub(super) fn id(time_ms: i64) -> String {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    let (random, _) = uuid::Uuid::new_v4().as_u64_pair();
    let (_, other) = uuid::Uuid::new_v4().as_u64_pair();
    // The version and variant bits of the one are covered by the other's.
    format!("{time_ms:012x}{next:04x}{:016x}", random ^ other.rotate_left(16))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn source() -> Source {
        Source { session: "gate".into(), camera: Some("gate".into()) }
    }

    #[test]
    fn an_event_is_taken_apart_for_its_filters() {
        let json = r#"{"type":"zone_entered","zone":"door\u0000","object_id":7,"class_id":0,"class":"head","count":2}"#;
        let event = Event::new(&source(), 1000, json).unwrap();
        assert_eq!((event.kind.as_str(), event.zone.as_deref()), ("zone_entered", Some("door")));
        assert_eq!((event.class.as_deref(), event.object_id, event.rule), (Some("head"), Some(7), None));
        assert_eq!((event.json.as_str(), event.camera.as_deref()), (json, Some("gate")));
        for nothing in ["", "[]", "{}", "{\"type\":1}", "nonsense"] {
            assert_eq!(Event::new(&source(), 1000, nothing), None, "{nothing}");
        }
        let long = format!(r#"{{"type":"{}"}}"#, "x".repeat(MAX_EVENT_BYTES));
        assert_eq!(Event::new(&source(), 1000, &long), None);
    }

    #[test]
    fn ids_of_one_moment_are_in_their_order_and_differ() {
        let ids: Vec<String> = (0..100).map(|_| id(5)).collect();
        let later = id(6);
        assert!(ids.iter().all(|one| one.len() == 32 && *one < later));
        let distinct: std::collections::BTreeSet<_> = ids.iter().collect();
        assert_eq!(distinct.len(), 100);
    }
}

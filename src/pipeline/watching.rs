//! Between the wire's zones, lines, rules and events and those of [`crate::zones`].

use std::sync::Arc;
use std::time::Duration;

use saccade_signaling as wire;

use crate::media::MediaTime;
use crate::zones::{Anchor, Direction, Event, Line, Object, Plan, Rule, Zone};

/// What a session's options say is to be watched.
pub(super) fn plan(options: &wire::Options) -> Plan {
    let zone = |zone: &wire::Zone| Zone {
        name: zone.name.as_str().into(),
        polygon: zone.polygon.clone(),
        anchor: anchor(zone.anchor),
        dwell: zone.dwell_s.map(seconds),
    };
    let line =
        |line: &wire::Line| Line { name: line.name.as_str().into(), points: line.points, anchor: anchor(line.anchor) };
    let rule = |rule: &wire::Rule| Rule {
        name: rule.name.as_str().into(),
        zone: rule.zone.as_str().into(),
        classes: rule.classes.as_ref().map(|names| names.iter().map(|name| Arc::from(name.as_str())).collect()),
        longer_than: seconds(rule.longer_than_s),
        more_than: rule.more_than,
    };
    Plan {
        zones: options.zones.iter().map(zone).collect(),
        lines: options.lines.iter().map(line).collect(),
        rules: options.rules.iter().map(rule).collect(),
    }
}

/// What happened in the frame of `time`, as it is told.
pub(super) fn told(event: Event, time: MediaTime) -> wire::Event {
    let rtp_timestamp = time.0;
    match event {
        Event::Entered { zone, object, count } => wire::Event::ZoneEntered {
            zone: zone.to_string(),
            object_id: object.id,
            class_id: object.class.id,
            class: object.class.name.to_string(),
            count,
            rtp_timestamp,
        },
        Event::Left { zone, object, dwell, count } => wire::Event::ZoneLeft {
            zone: zone.to_string(),
            object_id: object.id,
            class_id: object.class.id,
            class: object.class.name.to_string(),
            dwell_ms: milliseconds(dwell),
            count,
            rtp_timestamp,
        },
        Event::Dwelled { zone, object, dwell } => wire::Event::ZoneDwelled {
            zone: zone.to_string(),
            object_id: object.id,
            class_id: object.class.id,
            class: object.class.name.to_string(),
            dwell_ms: milliseconds(dwell),
            rtp_timestamp,
        },
        Event::Crossed { line, direction, object, left_to_right, right_to_left } => wire::Event::LineCrossed {
            line: line.to_string(),
            direction: match direction {
                Direction::LeftToRight => wire::Direction::LeftToRight,
                Direction::RightToLeft => wire::Direction::RightToLeft,
            },
            object_id: object.id,
            class_id: object.class.id,
            class: object.class.name.to_string(),
            left_to_right,
            right_to_left,
            rtp_timestamp,
        },
        Event::AlertStarted { rule, zone, object, count } => wire::Event::AlertStarted {
            rule: rule.to_string(),
            zone: zone.to_string(),
            object_id: object.as_ref().map(|object| object.id),
            class_id: object.as_ref().map(|object| object.class.id),
            class: object.map(|Object { class, .. }| class.name.to_string()),
            count,
            rtp_timestamp,
        },
        Event::AlertEnded { rule, zone, object_id, duration } => wire::Event::AlertEnded {
            rule: rule.to_string(),
            zone: zone.to_string(),
            object_id,
            duration_ms: milliseconds(duration),
            rtp_timestamp,
        },
    }
}

const fn anchor(anchor: wire::Anchor) -> Anchor {
    match anchor {
        wire::Anchor::Center => Anchor::Center,
        wire::Anchor::Bottom => Anchor::Bottom,
    }
}

/// Options are validated; what no duration can say counts as none.
fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

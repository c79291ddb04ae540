//! What is asked of the history, and how it is put together.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::record::{Counts, Event, Minute};

/// Points of an answer about a time range, all groups together; more would be too much for anybody.
pub const MAX_POINTS: usize = 20_000;

/// Which way a list goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// Oldest first.
    Ascending,
    /// Newest first.
    #[default]
    Descending,
}

/// Which events are asked for; what is `None` does not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Events {
    /// Those of this moment and later, in milliseconds since 1970.
    pub from_ms: Option<i64>,
    /// Those before this moment.
    pub to_ms: Option<i64>,
    /// Of this session.
    pub session: Option<String>,
    /// Of this camera.
    pub camera: Option<String>,
    /// Of this `type`.
    pub kind: Option<String>,
    /// Of this zone.
    pub zone: Option<String>,
    /// Of this line.
    pub line: Option<String>,
    /// Of this rule.
    pub rule: Option<String>,
    /// Of objects of this class.
    pub class: Option<String>,
    /// Which way.
    pub order: Order,
    /// Those behind this one.
    pub after: Option<Cursor>,
}

/// A place in a list of events: behind this one. It stays where it is when others come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    order: Order,
    /// When the event happened.
    pub time_ms: i64,
    /// Its id.
    pub id: String,
}

impl Cursor {
    /// The place behind an event.
    #[must_use]
    pub fn behind(event: &Event, order: Order) -> Self {
        Self { order, time_ms: event.time_ms, id: event.id.clone() }
    }

    /// Text for clients, who need not understand it.
    #[must_use]
    pub fn encode(&self) -> String {
        let order = if self.order == Order::Ascending { 'a' } else { 'd' };
        URL_SAFE_NO_PAD.encode(format!("1{order}{:x}.{}", self.time_ms, self.id))
    }

    /// Reads such a text, for a list that goes this way.
    #[must_use]
    pub fn decode(text: &str, order: Order) -> Option<Self> {
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
        let rest = text.strip_prefix(if order == Order::Ascending { "1a" } else { "1d" })?;
        let (time, id) = rest.split_once('.')?;
        let is_id = id.len() <= 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_id.then_some(Self { order, time_ms: i64::from_str_radix(time, 16).ok()?, id: id.to_owned() })
    }
}

/// What points of a time range are told apart by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Group {
    /// By time alone.
    #[default]
    None,
    /// Also by session.
    Session,
    /// Also by camera; sessions of peers have none, and are one group.
    Camera,
    /// Also by model.
    Model,
}

/// Which minutes are asked for, and how they are put together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Those that began then or later, in milliseconds since 1970.
    pub from_ms: i64,
    /// Those that began before.
    pub to_ms: i64,
    /// Length of a point, a multiple of a minute, in milliseconds.
    pub step_ms: i64,
    /// Of this session.
    pub session: Option<String>,
    /// Of this camera.
    pub camera: Option<String>,
    /// Of this model, `NAME` or `NAME@VERSION`.
    pub model: Option<String>,
    /// What else points are told apart by.
    pub group: Group,
}

/// What happened in one step of time.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// When it began, in milliseconds since 1970: steps are counted from there.
    pub time_ms: i64,
    /// Which session, camera or model, where points are told apart by such.
    pub group: Option<String>,
    /// What was counted.
    pub counts: Counts,
}

/// Puts minutes together.
#[derive(Debug)]
pub struct Points {
    step_ms: i64,
    group: Group,
    points: BTreeMap<(i64, Option<String>), Counts>,
}

/// There would be more than [`MAX_POINTS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there would be more than {MAX_POINTS} points")]
pub struct TooMany;

impl Points {
    /// For what was asked.
    #[must_use]
    pub const fn new(stats: &Stats) -> Self {
        Self { step_ms: if stats.step_ms > 0 { stats.step_ms } else { 1 }, group: stats.group, points: BTreeMap::new() }
    }

    /// Adds a minute.
    ///
    /// # Errors
    /// [`TooMany`].
    pub fn add(&mut self, minute: Minute) -> Result<(), TooMany> {
        let time_ms = minute.time_ms - minute.time_ms.rem_euclid(self.step_ms);
        let group = match self.group {
            Group::None => None,
            Group::Session => Some(minute.session),
            Group::Camera => Some(minute.camera.unwrap_or_default()),
            Group::Model => Some(minute.model),
        };
        self.points.entry((time_ms, group)).or_default().add(&minute.counts);
        if self.points.len() > MAX_POINTS { Err(TooMany) } else { Ok(()) }
    }

    /// All points in the order of time.
    #[must_use]
    pub fn finish(self) -> Vec<Point> {
        self.points.into_iter().map(|((time_ms, group), counts)| Point { time_ms, group, counts }).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn minute(time_ms: i64, session: &str, results: u64) -> Minute {
        let counts = Counts { results, objects: 1, ..Counts::default() };
        Minute { time_ms, session: session.into(), counts, ..Minute::default() }
    }

    #[test]
    fn minutes_become_points_of_a_step() {
        let stats = Stats { step_ms: 300_000, ..Stats::default() };
        let put = |stats: &Stats| {
            let mut points = Points::new(stats);
            for (time, session, results) in [(0, "a", 1), (60_000, "b", 2), (240_000, "a", 4), (300_000, "b", 8)] {
                points.add(minute(time, session, results)).unwrap();
            }
            let points = points.finish().into_iter();
            points.map(|point| (point.time_ms, point.group, point.counts.results)).collect::<Vec<_>>()
        };
        assert_eq!(put(&stats), [(0, None, 7), (300_000, None, 8)]);
        let by_session =
            [(0, Some("a".to_owned()), 5), (0, Some("b".to_owned()), 2), (300_000, Some("b".to_owned()), 8)];
        assert_eq!(put(&Stats { group: Group::Session, ..stats }), by_session);
    }

    #[test]
    fn there_is_a_bound_on_points() {
        let mut points = Points::new(&Stats { step_ms: 60_000, ..Stats::default() });
        let most = i64::try_from(MAX_POINTS).unwrap();
        assert!((0..most).all(|at| points.add(minute(at * 60_000, "a", 1)).is_ok()));
        assert_eq!(points.add(minute(most * 60_000, "a", 1)), Err(TooMany));
    }

    proptest! {
        #[test]
        fn a_cursor_is_for_its_order_alone(time_ms in 0..i64::MAX, id in "[0-9a-f]{32}") {
            let cursor = Cursor { order: Order::Ascending, time_ms, id };
            let text = cursor.encode();
            prop_assert_eq!(Cursor::decode(&text, Order::Descending), None);
            prop_assert_eq!(Cursor::decode(&text, Order::Ascending), Some(cursor));
        }

        #[test]
        fn what_is_no_cursor_is_refused(text in "\\PC{0,60}") {
            if let Some(cursor) = Cursor::decode(&text, Order::Descending) {
                prop_assert_eq!(cursor.encode(), text);
            }
        }
    }
}

//! Results and events of one session, counted minute by minute. No I/O: it is told the time.

use std::collections::{BTreeMap, HashSet};

use serde_json::Value;

use super::record::{Counts, Minute, Source, id, name};

/// Length of a minute, in milliseconds.
pub const MINUTE_MS: i64 = 60_000;
/// Objects that are told apart within a minute; more are not counted.
const MAX_OBJECTS: usize = 10_000;
/// Models of a session that are counted side by side: under load a smaller one may answer every other frame.
const MAX_MODELS: usize = 8;
/// Names that are told apart within a minute, each of classes, zones and lines; more are not counted.
const MAX_NAMES: usize = 1_000;

/// What a result says, as far as it is counted.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Facts {
    /// Number of the frame among those decoded in the session, from 0.
    pub frame_id: u64,
    /// The model, as `NAME@VERSION`.
    pub model: String,
    /// Class and identity of each detection.
    pub detections: Vec<(String, Option<u64>)>,
    /// Time from last packet in to result, in milliseconds.
    pub total_ms: f64,
    /// Whether the frame kept the budget.
    pub met: bool,
    /// Frames dropped since the session began, by reason.
    pub dropped: Vec<(&'static str, u64)>,
}

/// Counts one session.
#[derive(Debug)]
pub struct Minutes {
    source: Source,
    /// One a model, all of the same minute; that of the last result is the last one.
    open: Vec<Open>,
    /// The model of the last result, for events that come before the first one of a minute.
    model: String,
    /// Frames and drops that were counted, of those that the results count from the session's beginning.
    frames: u64,
    dropped: BTreeMap<&'static str, u64>,
}

#[derive(Debug)]
struct Open {
    begin_ms: i64,
    model: String,
    counts: Counts,
    objects: HashSet<u64>,
}

impl Minutes {
    /// Of a session that has just begun.
    #[must_use]
    pub const fn new(source: Source) -> Self {
        Self { source, open: Vec::new(), model: String::new(), frames: 0, dropped: BTreeMap::new() }
    }

    /// Counts a result. Gives back what is over by that, a row a model: also where the clock was set back.
    pub fn result(&mut self, now_ms: i64, facts: &Facts) -> Vec<Minute> {
        let mut over = self.turn(now_ms);
        if self.model != facts.model {
            facts.model.clone_into(&mut self.model);
        }
        let frames = grown(&mut self.frames, facts.frame_id.saturating_add(1));
        let dropped: Vec<_> = facts
            .dropped
            .iter()
            .map(|(reason, total)| (*reason, grown(self.dropped.entry(reason).or_default(), *total)))
            .filter(|(_, count)| *count > 0)
            .collect();
        let open = self.open(now_ms, &mut over);
        let counts = &mut open.counts;
        counts.frames += frames;
        counts.results += 1;
        counts.met += u64::from(facts.met);
        counts.latencies.add(facts.total_ms);
        for (reason, count) in dropped {
            *counts.dropped.entry(reason.to_owned()).or_default() += count;
        }
        for (class, object) in &facts.detections {
            if let Some(count) = of(&mut counts.detections, class) {
                *count += 1;
            }
            if let Some(object) = object
                && open.objects.len() < MAX_OBJECTS
            {
                open.objects.insert(*object);
            }
        }
        over
    }

    /// Counts an event, by its message. Gives back what is over by that.
    pub fn event(&mut self, now_ms: i64, json: &str) -> Vec<Minute> {
        let Ok(event) = serde_json::from_str::<Value>(json) else { return Vec::new() };
        let word = |key: &str| event.get(key).and_then(Value::as_str);
        let Some(kind) = word("type") else { return Vec::new() };
        if !matches!(kind, "zone_entered" | "zone_left" | "line_crossed" | "alert_started") {
            return self.tick(now_ms);
        }
        let mut over = self.turn(now_ms);
        let counts = &mut self.open(now_ms, &mut over).counts;
        match (kind, word("zone"), word("line")) {
            ("alert_started", ..) => counts.alerts += 1,
            ("line_crossed", _, Some(line)) => {
                if let Some(line) = of(&mut counts.lines, line) {
                    let leftward = word("direction") == Some("right_to_left");
                    *(if leftward { &mut line.right_to_left } else { &mut line.left_to_right }) += 1;
                }
            }
            (_, Some(zone), _) => {
                if let Some(zone) = of(&mut counts.zones, zone) {
                    let entered = kind == "zone_entered";
                    *(if entered { &mut zone.entered } else { &mut zone.left }) += 1;
                    zone.most = zone.most.max(event.get("count").and_then(Value::as_u64).unwrap_or(0));
                }
            }
            _ => {}
        }
        over
    }

    /// Gives back what is over at this time.
    pub fn tick(&mut self, now_ms: i64) -> Vec<Minute> {
        self.turn(now_ms)
    }

    /// Gives back what is there of the last minute.
    pub fn end(&mut self) -> Vec<Minute> {
        std::mem::take(&mut self.open).into_iter().map(|open| open.end(&self.source)).collect()
    }

    /// Ends the open minute unless it is that of now.
    fn turn(&mut self, now_ms: i64) -> Vec<Minute> {
        let begin = begin(now_ms);
        if self.open.iter().all(|open| open.begin_ms == begin) { Vec::new() } else { self.end() }
    }

    /// The open minute of the model of the last result. Where there are too many, the one that waited longest is over.
    fn open(&mut self, now_ms: i64, over: &mut Vec<Minute>) -> &mut Open {
        let model = &self.model;
        // Events that came before the first result were those of its model.
        let at = self.open.iter().position(|open| open.model == *model || open.model.is_empty());
        match at {
            Some(at) => self.open[at..].rotate_left(1),
            None => {
                if self.open.len() >= MAX_MODELS {
                    over.push(self.open.remove(0).end(&self.source));
                }
                let (counts, objects) = (Counts::default(), HashSet::new());
                self.open.push(Open { begin_ms: begin(now_ms), model: model.clone(), counts, objects });
            }
        }
        let last = self.open.len() - 1;
        let open = &mut self.open[last];
        if open.model.is_empty() {
            model.clone_into(&mut open.model);
        }
        open
    }
}

impl Open {
    fn end(self, source: &Source) -> Minute {
        let Self { begin_ms, model, mut counts, objects } = self;
        counts.objects = objects.len() as u64;
        Minute {
            id: id(begin_ms),
            time_ms: begin_ms,
            session: name(&source.session),
            camera: source.camera.as_deref().map(name),
            model: name(&model),
            counts,
        }
    }
}

/// When the minute of this time began.
const fn begin(now_ms: i64) -> i64 {
    now_ms - now_ms.rem_euclid(MINUTE_MS)
}

/// By how much a total has grown; one that is smaller than before began anew.
fn grown(before: &mut u64, total: u64) -> u64 {
    let grown = if total < *before { total } else { total - *before };
    *before = total;
    grown
}

fn of<'a, T: Default>(named: &'a mut BTreeMap<String, T>, key: &str) -> Option<&'a mut T> {
    let key = name(key);
    if named.len() >= MAX_NAMES && !named.contains_key(&key) {
        return None;
    }
    Some(named.entry(key).or_default())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::super::record::{LineCounts, ZoneCounts};
    use super::*;

    /// A minute's beginning.
    const NOON: i64 = 1_795_348_800_000;

    fn minutes() -> Minutes {
        Minutes::new(Source { session: "s".into(), camera: None })
    }

    /// The only row, if there is one.
    fn row(rows: Vec<Minute>) -> Option<Minute> {
        assert!(rows.len() <= 1, "{rows:?}");
        rows.into_iter().next()
    }

    fn facts(frame_id: u64) -> Facts {
        Facts {
            frame_id,
            model: "ppe@1".into(),
            detections: vec![("head".into(), Some(7)), ("head".into(), Some(8)), ("helmet".into(), None)],
            total_ms: 20.0,
            met: true,
            dropped: vec![("superseded", frame_id), ("late", 0)],
        }
    }

    #[test]
    fn results_of_a_minute_are_one_row() {
        let mut minutes = minutes();
        assert_eq!(minutes.result(NOON, &facts(0)), []);
        assert_eq!(minutes.result(NOON + 59_999, &Facts { met: false, ..facts(3) }), []);
        let over = row(minutes.result(NOON + 60_000, &facts(4))).unwrap();
        assert_eq!((over.time_ms, over.session.as_str(), over.model.as_str()), (NOON, "s", "ppe@1"));
        let Counts { frames, results, met, dropped, detections, objects, latencies, .. } = over.counts;
        assert_eq!((frames, results, met, objects, latencies.count()), (4, 2, 1, 2, 2));
        assert_eq!(dropped, BTreeMap::from([("superseded".to_owned(), 3)]));
        assert_eq!(detections, BTreeMap::from([("head".to_owned(), 4), ("helmet".to_owned(), 2)]));
        let rest = row(minutes.end()).unwrap();
        assert_eq!((rest.time_ms, rest.counts.frames, rest.counts.results), (NOON + 60_000, 1, 1));
        assert_eq!(rest.counts.dropped["superseded"], 1);
        assert_eq!(minutes.end(), []);
    }

    #[test]
    fn what_began_anew_is_counted_from_nothing() {
        let mut minutes = minutes();
        minutes.result(NOON, &facts(99));
        minutes.result(NOON, &facts(4));
        let over = row(minutes.end()).unwrap();
        assert_eq!((over.counts.frames, over.counts.dropped["superseded"]), (105, 103));
    }

    #[test]
    fn a_clock_that_is_set_back_loses_and_doubles_nothing() {
        let mut minutes = minutes();
        let times = [NOON + 120_000, NOON + 30_000, NOON - 3_600_000, NOON + 121_000];
        let mut rows = Vec::new();
        for (frame, time) in times.into_iter().enumerate() {
            rows.extend(minutes.result(time, &facts(frame as u64)));
        }
        rows.extend(minutes.end());
        let begins: Vec<_> = rows.iter().map(|row| row.time_ms).collect();
        assert_eq!(begins, [NOON + 120_000, NOON, NOON - 3_600_000, NOON + 120_000]);
        assert_eq!(rows.iter().map(|row| row.counts.results).sum::<u64>(), 4);
        assert_eq!(rows.iter().map(|row| row.counts.frames).sum::<u64>(), 4);
        let ids: std::collections::BTreeSet<_> = rows.iter().map(|row| &row.id).collect();
        assert_eq!(ids.len(), 4);
    }

    #[test]
    fn models_that_take_turns_have_a_row_each() {
        let mut minutes = minutes();
        for frame in 0..100 {
            let model = if frame % 2 == 0 { "ppe@1" } else { "ppe-small@1" };
            assert_eq!(minutes.result(NOON + 1, &Facts { model: model.into(), ..facts(frame) }), []);
        }
        assert_eq!(minutes.event(NOON + 2, r#"{"type":"alert_started","rule":"r","zone":"door"}"#), []);
        let rows = minutes.result(NOON + 60_000, &facts(100));
        let found: Vec<_> = rows.iter().map(|row| (row.model.as_str(), row.counts.results)).collect();
        assert_eq!(found, [("ppe@1", 50), ("ppe-small@1", 50)]);
        assert_eq!(rows.iter().map(|row| row.counts.frames).sum::<u64>(), 100);
        assert_eq!(rows[1].counts.alerts, 1, "of the model of the last result");
        assert_eq!(row(minutes.end()).unwrap().counts.results, 1);
    }

    #[test]
    fn of_many_models_the_one_that_waited_longest_is_over() {
        let mut minutes = minutes();
        let mut result = |model: usize| {
            let facts = Facts { model: format!("m@{model}"), ..facts(0) };
            row(minutes.result(NOON, &facts)).map(|row| row.model)
        };
        for model in (0..MAX_MODELS).chain([0]) {
            assert_eq!(result(model), None);
        }
        assert_eq!(result(MAX_MODELS).as_deref(), Some("m@1"));
        assert_eq!(minutes.end().len(), MAX_MODELS);
    }

    #[test]
    fn events_are_counted_where_they_happened() {
        let mut minutes = minutes();
        for json in [
            r#"{"type":"zone_entered","zone":"door","count":3}"#,
            r#"{"type":"zone_entered","zone":"door","count":4}"#,
            r#"{"type":"zone_left","zone":"door","count":3}"#,
            r#"{"type":"line_crossed","line":"gate","direction":"left_to_right"}"#,
            r#"{"type":"line_crossed","line":"gate","direction":"right_to_left"}"#,
            r#"{"type":"alert_started","rule":"r","zone":"door"}"#,
            r#"{"type":"alert_ended","rule":"r","zone":"door"}"#,
            "nonsense",
        ] {
            assert_eq!(minutes.event(NOON, json), []);
        }
        minutes.result(NOON + 5, &facts(0));
        let over = row(minutes.tick(NOON + 60_000)).unwrap();
        assert_eq!(over.counts.zones["door"], ZoneCounts { entered: 2, left: 1, most: 4 });
        assert_eq!(over.counts.lines["gate"], LineCounts { left_to_right: 1, right_to_left: 1 });
        assert_eq!((over.counts.alerts, over.counts.results, over.model.as_str()), (1, 1, "ppe@1"));
    }

    #[test]
    fn minutes_without_anything_leave_no_rows() {
        let mut minutes = minutes();
        assert_eq!(minutes.tick(NOON), []);
        assert_eq!(minutes.event(NOON, r#"{"type":"resolution_changed","width":1,"height":1}"#), []);
        assert_eq!(minutes.end(), []);
    }
}

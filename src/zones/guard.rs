use std::collections::BTreeMap;
use std::sync::Arc;

use crate::media::Class;

use super::alarm::{Alarm, Change, Found};
use super::timeline::{Ticks, duration, ticks};
use super::watch::Seen;
use super::{Event, LINGER, MISSED, Object, Rule};

/// A rule.
#[derive(Debug)]
pub(super) struct Guard {
    pub(super) rule: Rule,
    /// Index of its zone.
    pub(super) area: usize,
    /// For a rule about a number of objects.
    pub(super) alarm: Alarm,
}

/// What a rule has against an object.
#[derive(Debug, Clone, Default)]
pub(super) struct Breach {
    /// When and in which frame it was last seen with a class that the rule is about.
    pub(super) seen: Option<(Ticks, u64)>,
    pub(super) alarm: Alarm,
}

impl Guard {
    pub(super) fn new(rule: Rule, area: usize) -> Self {
        Self { rule, area, alarm: Alarm::default() }
    }

    /// Whether the rule is about objects of this class.
    pub(super) fn concerns(&self, class: &Class) -> bool {
        self.rule.classes.as_ref().is_none_or(|names| names.contains(&class.name))
    }

    /// Takes in a frame whose objects have been seen. `index` is this guard's own.
    pub(super) fn look(
        &mut self,
        now: Ticks,
        frame: u64,
        index: usize,
        objects: &mut BTreeMap<u64, Seen>,
        events: &mut Vec<Event>,
    ) {
        let area = self.area;
        let found = |seen: &Seen| match seen.breaches[index].seen {
            _ if !seen.stays[area].is_inside() => Found::No,
            Some((_, last)) if last == frame => Found::Shown,
            Some((at, last)) if frame - last < MISSED || now - at < ticks(LINGER) => Found::Remembered,
            _ => Found::No,
        };
        let count = |counts: fn(Found) -> bool| {
            u32::try_from(objects.values().filter(|seen| counts(found(seen))).count()).unwrap_or(u32::MAX)
        };
        let (known, shown) = (count(|found| found != Found::No), count(|found| found == Found::Shown));
        let patience = ticks(self.rule.longer_than);
        if let Some(most) = self.rule.more_than {
            let found = match () {
                () if shown > most => Found::Shown,
                () if known > most => Found::Remembered,
                () => Found::No,
            };
            let change = self.alarm.update(now, now, found, patience);
            events.extend(change.map(|change| self.event(change, None, known)));
            return;
        }
        for (&id, seen) in objects {
            let stay = &seen.stays[area];
            // Who comes in has been there for a while when the border was not clear.
            let begun = if stay.known == now { stay.begun } else { now };
            let found = found(seen);
            let change = seen.breaches[index].alarm.update(now, begun, found, patience);
            events.extend(change.map(|change| {
                let object = Object { id, class: seen.class.clone() };
                self.event(change, Some(object), known)
            }));
        }
    }

    fn event(&self, change: Change, object: Option<Object>, count: u32) -> Event {
        match change {
            Change::Started => {
                let (rule, zone) = (Arc::clone(&self.rule.name), Arc::clone(&self.rule.zone));
                Event::AlertStarted { rule, zone, object, count }
            }
            Change::Ended(lasted) => self.ended(object.map(|object| object.id), lasted),
        }
    }

    /// The end of an alert.
    pub(super) fn ended(&self, object_id: Option<u64>, lasted: Ticks) -> Event {
        let (rule, zone) = (Arc::clone(&self.rule.name), Arc::clone(&self.rule.zone));
        Event::AlertEnded { rule, zone, object_id, duration: duration(lasted) }
    }
}

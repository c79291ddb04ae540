use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::mem;

use crate::media::{Class, Detection, MediaTime};

use super::area::{Area, Stay};
use super::gate::{Gate, Pass};
use super::geometry::Place;
use super::guard::{Breach, Guard};
use super::timeline::{Ticks, Timeline, ticks};
use super::{Event, LINGER, MAX_OBJECTS, MISSED, Object, Plan};

/// The zones, lines and rules of one session, and what is known of its objects.
#[derive(Debug, Default)]
pub struct Watch {
    areas: Vec<Area>,
    gates: Vec<Gate>,
    guards: Vec<Guard>,
    objects: BTreeMap<u64, Seen>,
    timeline: Timeline,
    /// Number of the update.
    frame: u64,
    /// Width of the frame in heights.
    aspect: f32,
    /// Ends that a change of the plan brought about, for the next update.
    farewells: Vec<Event>,
}

impl Watch {
    /// Watches what `plan` says.
    #[must_use]
    pub fn new(plan: Plan) -> Self {
        let mut watch = Self { aspect: 1.0, ..Self::default() };
        watch.configure(plan);
        watch
    }

    /// Whether updates have no effect: there is nothing to watch, and nothing left to report.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.areas.is_empty() && self.gates.is_empty() && self.guards.is_empty() && self.farewells.is_empty()
    }

    /// Watches what `plan` says from now on. Zones, lines and rules that are in it as before keep state and totals (a
    /// rule only together with its zone). From others the objects leave, and their alerts end, with the next update.
    pub fn configure(&mut self, plan: Plan) {
        let mut areas: Vec<_> = mem::take(&mut self.areas).into_iter().map(Some).collect();
        let mut gates: Vec<_> = mem::take(&mut self.gates).into_iter().map(Some).collect();
        let mut guards: Vec<_> = mem::take(&mut self.guards).into_iter().map(Some).collect();

        let (mut stays, mut passes, mut breaches) = (Vec::new(), Vec::new(), Vec::new());
        for zone in plan.zones {
            let (kept, from) = take(&mut areas, |area| area.zone == zone);
            self.areas.push(kept.unwrap_or_else(|| Area::new(zone, self.aspect)));
            stays.push(from);
        }
        for line in plan.lines {
            let (kept, from) = take(&mut gates, |gate| gate.line == line);
            self.gates.push(kept.unwrap_or_else(|| Gate::new(line, self.aspect)));
            passes.push(from);
        }
        for rule in plan.rules {
            let Some(area) = self.areas.iter().position(|area| area.zone.name == rule.zone) else { continue };
            let (kept, from) =
                take(&mut guards, |guard| guard.rule == rule && stays.get(area) == Some(&Some(guard.area)));
            let kept = kept.map(|guard| Guard { area, ..guard });
            self.guards.push(kept.unwrap_or_else(|| Guard::new(rule, area)));
            breaches.push(from);
        }

        for (&id, seen) in &mut self.objects {
            for (guard, breach) in guards.iter_mut().zip(&mut seen.breaches) {
                if let Some(guard) = guard {
                    self.farewells.extend(breach.alarm.end().map(|lasted| guard.ended(Some(id), lasted)));
                }
            }
            for (area, stay) in areas.iter_mut().zip(&mut seen.stays) {
                if let Some(area) = area {
                    self.farewells.extend(area.leave(id, &seen.class, stay));
                }
            }
            seen.stays = rearranged(&seen.stays, &stays);
            seen.passes = rearranged(&seen.passes, &passes);
            seen.breaches = rearranged(&seen.breaches, &breaches);
        }
        for guard in guards.iter_mut().flatten() {
            self.farewells.extend(guard.alarm.end().map(|lasted| guard.ended(None, lasted)));
        }
        if self.areas.is_empty() && self.gates.is_empty() {
            self.objects.clear();
        }
    }

    /// Takes in the frame of `time`, of width and height `size`, and appends what happened. Of detections without an
    /// object id, or whose box is not finite, nothing is known; of several with one id the first counts.
    ///
    /// Frames may be left out. Time that runs backwards, or on by more than half a minute, is that of a stream that
    /// began anew: what is known stays, and none of that time counts.
    pub fn update(&mut self, time: MediaTime, size: [u32; 2], detections: &[Detection], events: &mut Vec<Event>) {
        let now = self.timeline.advance(time);
        self.frame += 1;
        events.append(&mut self.farewells);
        self.fit(size);
        for detection in detections {
            let Some(id) = detection.object_id else { continue };
            let Some(place) = Place::of(detection.bbox, size) else { continue };
            self.see(now, id, &detection.class, place, events);
        }
        for (&id, seen) in &mut self.objects {
            if self.frame - seen.frame >= MISSED && now - seen.at >= ticks(LINGER) {
                seen.is_gone = true;
                for (area, stay) in self.areas.iter_mut().zip(&mut seen.stays) {
                    events.extend(area.leave(id, &seen.class, stay));
                }
            }
        }
        for (index, guard) in self.guards.iter_mut().enumerate() {
            guard.look(now, self.frame, index, &mut self.objects, events);
        }
        self.objects.retain(|_, seen| !seen.is_gone);
    }

    /// Scales the shapes to the proportions of the frame.
    fn fit(&mut self, [width, height]: [u32; 2]) {
        let aspect = width as f32 / height as f32;
        if aspect == self.aspect || !aspect.is_normal() {
            return;
        }
        self.aspect = aspect;
        for area in &mut self.areas {
            area.fit(aspect);
        }
        for gate in &mut self.gates {
            gate.fit(aspect);
        }
    }

    /// Takes in where an object is.
    fn see(&mut self, now: Ticks, id: u64, class: &Class, place: Place, events: &mut Vec<Event>) {
        let is_full = self.objects.len() >= MAX_OBJECTS;
        let seen = match self.objects.entry(id) {
            Entry::Occupied(known) if known.get().frame == self.frame => return,
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(_) if is_full => return,
            Entry::Vacant(new) => new.insert(Seen {
                class: class.clone(),
                place,
                at: now,
                frame: self.frame,
                is_gone: false,
                stays: vec![Stay::default(); self.areas.len()],
                passes: vec![Pass::default(); self.gates.len()],
                breaches: vec![Breach::default(); self.guards.len()],
            }),
        };
        seen.class.clone_from(class);
        (seen.at, seen.frame) = (now, self.frame);
        let before = mem::replace(&mut seen.place, place);
        let object = || Object { id, class: class.clone() };
        for (area, stay) in self.areas.iter_mut().zip(&mut seen.stays) {
            let point = place.anchor(area.zone.anchor, self.aspect);
            area.look(now, object, point, place.margin(), stay, events);
        }
        for (gate, pass) in self.gates.iter_mut().zip(&mut seen.passes) {
            let way = [before, place].map(|place| place.anchor(gate.line.anchor, self.aspect));
            events.extend(gate.look(now, object, way, place.margin(), pass));
        }
        for (guard, breach) in self.guards.iter().zip(&mut seen.breaches) {
            if guard.concerns(class) {
                breach.seen = Some((now, self.frame));
            }
        }
    }
}

/// What is known of an object.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) class: Class,
    place: Place,
    /// When and in which frame it was last seen.
    at: Ticks,
    frame: u64,
    is_gone: bool,
    /// By area, gate and guard.
    pub(super) stays: Vec<Stay>,
    passes: Vec<Pass>,
    pub(super) breaches: Vec<Breach>,
}

/// Takes the first that fits, and says where it was.
fn take<T>(old: &mut [Option<T>], fits: impl Fn(&T) -> bool) -> (Option<T>, Option<usize>) {
    let from = old.iter().position(|one| one.as_ref().is_some_and(&fits));
    (from.and_then(|index| old[index].take()), from)
}

/// The states of what was kept, in the new order, and new ones for the rest.
fn rearranged<T: Clone + Default>(old: &[T], from: &[Option<usize>]) -> Vec<T> {
    from.iter().map(|from| from.and_then(|index| old.get(index).cloned()).unwrap_or_default()).collect()
}

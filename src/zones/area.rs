use std::mem;
use std::sync::Arc;

use crate::media::Class;

use super::geometry::Polygon;
use super::side::Side;
use super::timeline::{Ticks, duration, ticks};
use super::{Event, Object, Point, Zone};

/// A zone.
#[derive(Debug)]
pub(super) struct Area {
    pub(super) zone: Zone,
    shape: Polygon,
    count: u32,
}

/// An object's stay in a zone.
#[derive(Debug, Clone)]
pub(super) struct Stay {
    /// Whether it is inside.
    side: Side,
    /// Since when it has been inside, and when that became known.
    pub(super) begun: Ticks,
    pub(super) known: Ticks,
    /// When it was last seen inside.
    last: Ticks,
    has_dwelled: bool,
}

impl Default for Stay {
    fn default() -> Self {
        Self { side: Side::new(false), begun: 0, known: 0, last: 0, has_dwelled: false }
    }
}

impl Stay {
    pub(super) fn is_inside(&self) -> bool {
        self.side.get() == Some(true)
    }
}

impl Area {
    pub(super) fn new(zone: Zone, aspect: f32) -> Self {
        Self { shape: Polygon::new(&zone.polygon, aspect), zone, count: 0 }
    }

    /// Scales the shape to a frame of these proportions.
    pub(super) fn fit(&mut self, aspect: f32) {
        self.shape = Polygon::new(&self.zone.polygon, aspect);
    }

    /// Takes in that an object is at `point`.
    pub(super) fn look(
        &mut self,
        now: Ticks,
        object: impl Fn() -> Object,
        point: Point,
        margin: f32,
        stay: &mut Stay,
        events: &mut Vec<Event>,
    ) {
        let (is_inside, is_clear) = self.shape.position(point, margin);
        if is_inside {
            stay.last = now;
        }
        let zone = &self.zone.name;
        if let Some(since) = stay.side.update(now, is_inside, is_clear) {
            if is_inside {
                self.count += 1;
                (stay.begun, stay.known, stay.has_dwelled) = (since, now, false);
                events.push(Event::Entered { zone: Arc::clone(zone), object: object(), count: self.count });
            } else {
                self.count -= 1;
                let dwell = duration(stay.last - stay.begun);
                events.push(Event::Left { zone: Arc::clone(zone), object: object(), dwell, count: self.count });
            }
        }
        let stayed = stay.last - stay.begun;
        let has_dwelled = self.zone.dwell.is_some_and(|dwell| stayed >= ticks(dwell));
        if is_inside && stay.is_inside() && has_dwelled && !stay.has_dwelled {
            stay.has_dwelled = true;
            events.push(Event::Dwelled { zone: Arc::clone(zone), object: object(), dwell: duration(stayed) });
        }
    }

    /// Takes out an object that is gone.
    pub(super) fn leave(&mut self, id: u64, class: &Class, stay: &mut Stay) -> Option<Event> {
        let stay = mem::take(stay);
        stay.is_inside().then(|| {
            self.count -= 1;
            let object = Object { id, class: class.clone() };
            let (zone, dwell) = (Arc::clone(&self.zone.name), duration(stay.last - stay.begun));
            Event::Left { zone, object, dwell, count: self.count }
        })
    }
}

use std::mem;
use std::sync::Arc;

use super::geometry::Segment;
use super::side::Side;
use super::timeline::Ticks;
use super::{Direction, Event, Line, Object, Point};

/// A line.
#[derive(Debug)]
pub(super) struct Gate {
    pub(super) line: Line,
    shape: Segment,
    left_to_right: u64,
    right_to_left: u64,
}

/// An object's way about a line.
#[derive(Debug, Clone, Default)]
pub(super) struct Pass {
    /// Whether it is on the right; unknown until it is clear.
    side: Side,
    /// Times that it went through the line to the right less those to the left, since its side changed.
    through: i32,
}

impl Gate {
    pub(super) fn new(line: Line, aspect: f32) -> Self {
        Self { shape: Segment::new(line.points, aspect), line, left_to_right: 0, right_to_left: 0 }
    }

    /// Scales the shape to a frame of these proportions.
    pub(super) fn fit(&mut self, aspect: f32) {
        self.shape = Segment::new(self.line.points, aspect);
    }

    /// Takes in that an object went from `start` to `end`, or stayed where both are the same.
    pub(super) fn look(
        &mut self,
        now: Ticks,
        object: impl Fn() -> Object,
        [start, end]: [Point; 2],
        margin: f32,
        pass: &mut Pass,
    ) -> Option<Event> {
        let offset = self.shape.offset(end);
        let (is_right, is_clear) = (offset > 0.0, offset.abs() >= margin);
        if (self.shape.offset(start) > 0.0) != is_right && self.shape.is_between(start, end) {
            pass.through = pass.through.saturating_add(if is_right { 1 } else { -1 });
        }
        let known = pass.side.get();
        let has_changed = pass.side.update(now, is_right, is_clear).is_some();
        if !has_changed {
            if is_clear {
                pass.through = 0;
            }
            return None;
        }
        let through = mem::take(&mut pass.through);
        if known.is_none() || (through > 0) != is_right || through == 0 {
            return None;
        }
        let (total, direction) = if is_right {
            (&mut self.left_to_right, Direction::LeftToRight)
        } else {
            (&mut self.right_to_left, Direction::RightToLeft)
        };
        *total += 1;
        let (left_to_right, right_to_left) = (self.left_to_right, self.right_to_left);
        let line = Arc::clone(&self.line.name);
        Some(Event::Crossed { line, direction, object: object(), left_to_right, right_to_left })
    }
}

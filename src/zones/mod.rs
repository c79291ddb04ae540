//! Zones, lines and rules: who is where, for how long, who crossed what, and when that is too much.
//!
//! Detections with object ids enter, frame by frame with the frame's media time; [`Event`]s leave. It runs on whatever
//! thread calls it. It must not know the wire types, read a clock, or report jitter: boxes tremble, detectors miss
//! objects for a few frames, and each of that must not look like coming and going. So:
//!
//! - An object is on another side of a border when its anchor is beyond it by a margin: a twentieth of the box's mean
//!   side, within 0.4 % and 2 % of the frame's height. Less than that counts when it lasts for a second and five frames,
//!   but then only once until the object is clearly on one side again.
//! - The part of a zone's outline that lies within 1 % of the frame's edge is no border: nothing comes over it.
//! - An object that is not reported stays where it was until it has been missing for [`LINGER`] and [`MISSED`] frames.
//!   Then it has left, and its times count until it was last seen.
//! - A line is crossed by whoever is on one side and then on the other, if the straight way between the two reported
//!   places nearest to the line goes through the line itself, not its extension. Where an object first appears within
//!   the margin, it has no side yet.

mod alarm;
mod area;
mod event;
mod gate;
mod geometry;
mod guard;
mod plan;
mod side;
mod timeline;
mod watch;

use std::time::Duration;

pub use event::{Direction, Event, Object};
pub use plan::{Anchor, Line, Plan, Point, Rule, Zone};
pub use watch::Watch;

/// Time for which an object that is no longer reported is thought to be where it was.
pub const LINGER: Duration = Duration::from_millis(1_500);
/// Frames in which it has to be missing as well.
pub const MISSED: u64 = 3;
/// Objects that are remembered at a time; further ones are passed over until others have left.
pub const MAX_OBJECTS: usize = 1024;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests;

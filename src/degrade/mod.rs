//! What sessions give up when the machine cannot do everything in time: the ladder, and who climbs it.
//!
//! What became of each frame comes in, with the time; the [`Rung`] in force leaves. Pure: it runs on whatever thread
//! calls it and asks nobody for the time. It must not know what a frame is or how a rung is put into effect.
//!
//! Rungs follow each other in one order: the tracker fills in for frames that the model is not free for; the model is
//! offered fewer frames, so that those it gets wait less; its input gets smaller; fewer frames are returned; what is
//! returned gets smaller. Each rung keeps what those before it gave up. The sessions of a model are on one ladder, since
//! what one of them gives up is what the others get: each on its own would take turns in stepping down and pushing
//! others up. It goes up as soon as a short window shows that frames are lost or hardly in time, and comes down one rung
//! at a time after it has been calm for a while. A step down that has to be taken back makes the next one wait twice as
//! long, so that under a steady load the changes die out.

mod ladder;

pub use ladder::{Can, Config, Ladder, Rung, Sample};

/// The model is offered one frame in so many, by rung.
const INFER_EVERY: [u32; 5] = [2, 3, 4, 5, 6];
/// Likewise for returned frames.
const RETURN_EVERY: [u32; 2] = [2, 3];

/// Names of the steps, as results and metrics have them, in the order of the ladder.
pub const STEPS: [&str; 4] = ["skip_inference", "smaller_input", "lower_fps", "lower_resolution"];

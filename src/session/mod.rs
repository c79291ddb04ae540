//! One peer's life, from the offer to the close, without its media.
//!
//! What enters: offers, candidates and options from the signaling endpoints, and events of the transport. What leaves:
//! answers, messages for the peer, and the order to close with its [`EndReason`]. [`Machine`] decides (it is pure and is
//! told the time), [`Handle`] and [`Command`] carry orders to the task that owns a session, [`Registry`] knows all
//! sessions and admits new ones, [`options`] turns what a client asks for into what is in force, [`Allowance`] bounds
//! how often it may ask, and [`fragment`] reads what changes ICE alone.
//!
//! Everything here runs on whatever thread calls it; nothing is spawned, and nothing here touches a packet or a frame.

mod allowance;
mod end;
pub mod fragment;
mod handle;
pub mod machine;
pub mod options;
mod patch;
pub mod proto;
mod registry;
mod task;
mod viewer;
mod watch;

pub use allowance::{Allowance, Rate};
pub use end::EndReason;
pub use handle::{
    Answer, COMMAND_CAPACITY, Command, EVENTS_CAPACITY, Handle, OpenRequest, Opener, Publisher, RESULTS_CAPACITY,
    Refusal, SIGNAL_CAPACITY, SessionId,
};
pub use machine::Machine;
pub use patch::{IfMatch, Patch, Patched};
pub use registry::{Drain, Permit, Registry, Shares, Witness, Work};
pub(crate) use task::format_problem;
#[cfg(test)]
pub(crate) use viewer::Nobody;
pub use viewer::{Audience, Viewer, ViewerCommand, Viewing, WatchRequest};

pub use crate::claims::{Claims, Priority};

//! Bounded hand-over between threads: a [`Mailbox`] for raw frames and a [`Fifo`] for what must not be reordered.
//!
//! A leaf: it imports no other module of this crate. Each queue says what happens when it is full and counts what it
//! drops. Neither ever blocks; whoever needs to sleep brings its own [`Waker`](std::task::Waker)-like wake-up.

mod fifo;
mod mailbox;

pub use fifo::{Fifo, Full};
pub use mailbox::Mailbox;

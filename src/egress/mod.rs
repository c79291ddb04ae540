//! From access units to packets.
//!
//! What enters: encoded pictures. What leaves: RTP payloads for the transport to number and send. Pure code: it runs
//! where its owner calls it, does no I/O and keeps no picture.

mod packetize;

pub use packetize::{Packetizer, Payload};

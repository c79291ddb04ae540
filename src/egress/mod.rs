//! What leaves for the client: returned video as packets.
//!
//! What enters: encoded frames. What leaves: RTP payloads. Plain functions and values, called by the pipeline on
//! whatever thread it is; nothing here sends, waits or counts.

pub mod packetize;

//! What leaves for the client: returned video as packets, and one result a frame.
//!
//! What enters: encoded frames and what the model found. What leaves: RTP payloads and JSON. Plain functions and
//! values, called by the pipeline on whatever thread it is; nothing here sends, waits or counts.

mod outlines;
pub mod packetize;
pub mod results;
mod rle;
mod whole;

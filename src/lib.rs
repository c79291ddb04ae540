//! Saccade: a real-time WebRTC vision server.
//!
//! Live video comes in over WebRTC, is decoded, run through a model within the session's latency budget, and goes back
//! annotated, together with results that name the exact frame they belong to.

pub mod clock;
pub mod decode;
pub mod egress;
pub mod encode;
pub mod ingest;
pub mod media;
pub mod queue;

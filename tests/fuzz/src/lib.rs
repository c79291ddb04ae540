//! Fuzz targets: each parser of what a stranger sends.
//!
//! What enters a target: any bytes. What leaves: nothing; a target panics where something does not hold that has to hold
//! whatever comes. `scripts/fuzz.sh` (`make fuzz`) looks for such bytes, and `tests/replay.rs` runs what was kept in
//! `corpus/` through every target on each change.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a target says that something is wrong by panicking"
)]

mod input;
mod metrics;
mod model;
mod seeds;
mod session;
mod settings;
mod signaling;
mod stills;
mod tensors;
mod traces;
mod transport;
mod video;

pub use seeds::write_all as write_seeds;

/// Something that reads bytes of a stranger, and what has to hold of it.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, and that of its folder in `corpus/`.
    pub name: &'static str,
    /// Runs it; panics where something does not hold.
    pub run: fn(&[u8]),
    /// Bytes that are worth trying at most.
    pub max_len: usize,
}

/// Every target.
pub const TARGETS: [Target; 20] = [
    Target { name: "signaling_json", run: signaling::json, max_len: 4096 },
    Target { name: "sdp_offer", run: signaling::offer, max_len: 8192 },
    Target { name: "sdp_fragment", run: signaling::fragment, max_len: 4096 },
    Target { name: "ice_candidate", run: signaling::candidate, max_len: 512 },
    Target { name: "trace_context", run: traces::context, max_len: 2304 },
    Target { name: "stun_demux", run: transport::demux, max_len: 4096 },
    Target { name: "tcp_framing", run: transport::framing, max_len: 4096 },
    Target { name: "depacketize_h264", run: video::h264, max_len: 4096 },
    Target { name: "depacketize_vp8", run: video::vp8, max_len: 4096 },
    Target { name: "depacketize_vp9", run: video::vp9, max_len: 4096 },
    Target { name: "picture_header", run: video::header, max_len: 256 },
    Target { name: "stills", run: stills::picture, max_len: 4096 },
    Target { name: "postprocess", run: model::postprocess, max_len: 4096 },
    Target { name: "manifest", run: model::manifest, max_len: 4096 },
    Target { name: "onnx", run: model::onnx, max_len: 4096 },
    Target { name: "config", run: settings::config, max_len: 4096 },
    Target { name: "token", run: settings::token, max_len: 2048 },
    Target { name: "tensor_request", run: tensors::request, max_len: 4096 },
    Target { name: "metrics_page", run: metrics::page, max_len: 4096 },
    Target { name: "session_life", run: session::life, max_len: 512 },
];

/// The target of this name.
#[must_use]
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

//! From RTP packets to access units.
//!
//! What enters: the packets of one video track, as they come in. What leaves: complete access units in decoding order,
//! and requests for keyframes. [`Ingest`] runs wherever its owner calls it, does no I/O and never asks for the time.
//! It never hands on a unit after a loss until a keyframe comes, holds a bounded number of packets and bytes, and
//! survives any input.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::media::{Codec, EncodedFrame, RtpPacket};

mod allowance;
mod assemble;
mod bits;
mod gate;
mod h264;
mod reorder;
mod vp8;
mod vp9;

use allowance::Allowance;
use assemble::{Assembler, Fault};
use gate::Gate;
use reorder::{Event, Reorder};

/// How long [`Ingest`] waits and how much it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Longest wait for a missing packet (120 ms). It has to cover the round trip of a NACK; a longer one recovers
    /// more losses and delays the video more when it doesn't.
    pub max_wait: Duration,
    /// Packets that wait behind a gap at most (512).
    pub max_packets: usize,
    /// Bytes of payload that wait behind a gap at most (8 MiB).
    pub max_buffered_bytes: usize,
    /// Largest access unit (4 MiB).
    pub max_unit_bytes: usize,
    /// Shortest time between two requests for a keyframe (500 ms).
    pub keyframe_interval: Duration,
    /// Bits a second that are taken in the long run (any number), beside what comes in a second, or 1 MiB, at once.
    pub max_bps: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_wait: Duration::from_millis(120),
            max_packets: 512,
            max_buffered_bytes: 8 << 20,
            max_unit_bytes: 4 << 20,
            keyframe_interval: Duration::from_millis(500),
            max_bps: u64::MAX,
        }
    }
}

/// What [`Ingest`] wants done.
#[derive(Debug, Clone)]
pub enum Output {
    /// Decode this; every unit that it refers to was handed out before.
    AccessUnit(EncodedFrame),
    /// Ask the sender for a keyframe (PLI).
    RequestKeyframe,
}

/// What happened since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Packets that came in.
    pub packets: u64,
    /// Packets that were there already.
    pub duplicates: u64,
    /// Packets that came after the wait for them was over.
    pub late: u64,
    /// Packets whose wait was over before they came.
    pub lost: u64,
    /// Packets far outside the numbering that were ignored.
    pub stray: u64,
    /// Times that the sender began to number anew.
    pub restarts: u64,
    /// Packets beyond the bitrate that were not looked at.
    pub over_bitrate: u64,
    /// Access units handed out.
    pub access_units: u64,
    /// Units dropped because packets of them were lost.
    pub dropped_incomplete: u64,
    /// Units dropped because a payload broke the rules of its format.
    pub dropped_malformed: u64,
    /// Units dropped because they were too large.
    pub dropped_too_large: u64,
    /// Complete units dropped because a keyframe was awaited.
    pub dropped_awaiting_keyframe: u64,
    /// Keyframes asked for.
    pub keyframe_requests: u64,
}

/// Reorders, assembles and gates one video track.
///
/// After each `handle_*` call, poll until [`Ingest::poll_output`] is empty, then call [`Ingest::handle_timeout`] no
/// later than [`Ingest::poll_timeout`].
#[derive(Debug)]
pub struct Ingest {
    allowance: Allowance,
    reorder: Reorder,
    assembler: Assembler,
    gate: Gate,
    outputs: VecDeque<Output>,
    stats: Stats,
}

impl Ingest {
    /// A track that nothing came from yet.
    #[must_use]
    pub fn new(codec: Codec, config: Config) -> Self {
        Self {
            allowance: Allowance::new(config.max_bps),
            reorder: Reorder::new(config.max_wait, config.max_packets, config.max_buffered_bytes),
            assembler: Assembler::new(codec, config.max_unit_bytes),
            gate: Gate::new(config.keyframe_interval),
            outputs: VecDeque::new(),
            stats: Stats::default(),
        }
    }

    /// Takes a packet in.
    pub fn handle_packet(&mut self, now: Instant, packet: RtpPacket) {
        self.stats.packets += 1;
        self.gate.start(now);
        if self.allowance.takes(now, packet.payload.len()) {
            self.reorder.handle_packet(packet, &mut self.stats);
        } else {
            self.stats.over_bitrate += 1;
        }
        self.handle_timeout(now);
    }

    /// Gives up gaps and repeats requests whose time has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.reorder.handle_timeout(now, &mut self.stats);
        while let Some(event) = self.reorder.poll() {
            match event {
                Event::Packet(packet) => self.assemble(packet, now),
                Event::Gap => {
                    self.assembler.handle_gap();
                    self.gate.close(now);
                }
            }
        }
        self.poll_gate(now);
    }

    /// The decoder failed on a unit: nothing but a keyframe helps.
    pub fn handle_decode_error(&mut self, now: Instant) {
        self.request_keyframe(now);
    }

    /// Skips to the next keyframe and asks for one; for an owner that had to drop a unit.
    pub fn request_keyframe(&mut self, now: Instant) {
        let before = self.outputs.len();
        self.outputs.retain(|output| matches!(output, Output::RequestKeyframe));
        let dropped = (before - self.outputs.len()) as u64;
        self.stats.access_units -= dropped;
        self.stats.dropped_awaiting_keyframe += dropped;
        self.gate.close(now);
        self.poll_gate(now);
    }

    /// What to do next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to call [`Ingest::handle_timeout`].
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        [self.reorder.deadline(), self.gate.deadline()].into_iter().flatten().min()
    }

    /// Counters.
    #[must_use]
    pub const fn stats(&self) -> Stats {
        self.stats
    }

    fn assemble(&mut self, packet: RtpPacket, now: Instant) {
        let Self { assembler, gate, outputs, stats, .. } = self;
        assembler.handle_packet(packet, now, |unit| match unit {
            Ok(unit) if gate.admit(unit.keyframe) => {
                stats.access_units += 1;
                outputs.push_back(Output::AccessUnit(unit));
            }
            Ok(_) => {
                stats.dropped_awaiting_keyframe += 1;
                gate.close(now);
            }
            Err(fault) => {
                *match fault {
                    Fault::Incomplete => &mut stats.dropped_incomplete,
                    Fault::Malformed => &mut stats.dropped_malformed,
                    Fault::TooLarge => &mut stats.dropped_too_large,
                } += 1;
                gate.close(now);
            }
        });
        if assembler.in_keyframe() {
            gate.postpone(now);
        }
    }

    fn poll_gate(&mut self, now: Instant) {
        if self.gate.poll(now) {
            self.stats.keyframe_requests += 1;
            self.outputs.push_back(Output::RequestKeyframe);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests;

use std::time::Instant;

use bytes::{Bytes, BytesMut};

use crate::media::{AnnouncedColor, Chunks, Codec, EncodedFrame, MediaTime, Rotation, RtpPacket};

use super::{h264, vp8, vp9};

/// Why a unit is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// Packets of it are missing.
    Incomplete,
    /// A payload breaks the rules of its format.
    Malformed,
    /// It is larger than the configured bound.
    TooLarge,
}

/// What a depacketiser says of a complete unit.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Finished {
    pub(super) keyframe: bool,
    /// Bytes to put before the unit's own.
    pub(super) prefix: Bytes,
}

/// Builds access units from packets in sequence order.
#[derive(Debug)]
pub(super) struct Assembler {
    codec: Codec,
    depacketizer: Depacketizer,
    max_bytes: usize,
    unit: Option<Unit>,
    /// What the unit in progress consists of.
    data: Chunks,
    /// Packets are missing right before the next one.
    gap: bool,
    rotation: Rotation,
    /// Announced by the last keyframe or by a unit since: senders repeat it in each keyframe, and otherwise only when it
    /// changes.
    color: Option<AnnouncedColor>,
    /// Size of the last unit, as a guess for the next.
    last_len: usize,
}

#[derive(Debug)]
struct Unit {
    time: MediaTime,
    arrival: Instant,
    from_start: bool,
    color: Option<AnnouncedColor>,
    fault: Option<Fault>,
}

#[derive(Debug)]
enum Depacketizer {
    H264(h264::Depacketizer),
    Vp8(vp8::Depacketizer),
    Vp9(vp9::Depacketizer),
}

impl Assembler {
    pub(super) fn new(codec: Codec, max_bytes: usize) -> Self {
        let depacketizer = match codec {
            Codec::H264 => Depacketizer::H264(h264::Depacketizer::default()),
            Codec::Vp8 => Depacketizer::Vp8(vp8::Depacketizer::default()),
            Codec::Vp9 => Depacketizer::Vp9(vp9::Depacketizer::default()),
        };
        let rotation = Rotation::None;
        let data = Chunks::default();
        Self { codec, depacketizer, max_bytes, unit: None, data, gap: true, rotation, color: None, last_len: 0 }
    }

    /// Whether a keyframe is on its way in and nothing of it is missing so far.
    pub(super) fn in_keyframe(&self) -> bool {
        self.unit.as_ref().is_some_and(|unit| unit.fault.is_none())
            && match &self.depacketizer {
                Depacketizer::H264(h264) => h264.in_keyframe(),
                Depacketizer::Vp8(vp8) => vp8.in_keyframe(),
                Depacketizer::Vp9(vp9) => vp9.in_keyframe(),
            }
    }

    /// Packets are missing before the next one.
    pub(super) fn handle_gap(&mut self) {
        self.gap = true;
        if let Some(unit) = &mut self.unit {
            unit.fault.get_or_insert(Fault::Incomplete);
        }
    }

    /// Hands each unit that this packet ends to `finished`: two when the one before lacked its marker.
    pub(super) fn handle_packet(
        &mut self,
        packet: RtpPacket,
        now: Instant,
        mut finished: impl FnMut(Result<EncodedFrame, Fault>),
    ) {
        if packet.payload.is_empty() {
            return;
        }
        if self.unit.as_ref().is_some_and(|unit| unit.time != packet.time)
            && let Some(result) = self.finish(now)
        {
            finished(result);
        }
        if let Some(rotation) = packet.rotation {
            self.rotation = rotation;
        }
        let from_start = !std::mem::take(&mut self.gap);
        let unit = self.unit.get_or_insert_with(|| {
            self.data.begin(self.last_len.max(packet.payload.len() + 8));
            Unit { time: packet.time, arrival: packet.arrival, from_start, color: None, fault: None }
        });
        unit.arrival = unit.arrival.max(packet.arrival);
        unit.color = packet.color.or(unit.color);
        if unit.fault.is_none() {
            let data = self.data.current();
            // A start code and a superframe index are the most that is added to the payloads.
            if data.len() + packet.payload.len() + 64 > self.max_bytes {
                unit.fault = Some(Fault::TooLarge);
            } else {
                unit.fault = self.depacketizer.push(packet.payload, data).err();
            }
        }
        if packet.marker
            && let Some(result) = self.finish(now)
        {
            finished(result);
        }
    }

    /// Ends the unit in progress; `None` when it holds no picture.
    fn finish(&mut self, now: Instant) -> Option<Result<EncodedFrame, Fault>> {
        let unit = self.unit.take()?;
        let finished = match unit.fault {
            Some(fault) => Err(fault),
            None => self.depacketizer.finish(unit.from_start, self.data.current()),
        };
        self.depacketizer.discard();
        let Finished { keyframe, prefix } = match finished {
            Ok(Some(finished)) => finished,
            Ok(None) => return None,
            Err(fault) => return Some(Err(fault)),
        };
        let data = self.data.finish();
        self.last_len = data.len();
        if keyframe || unit.color.is_some() {
            self.color = unit.color;
        }
        let data = if prefix.is_empty() { data } else { [prefix, data].concat().into() };
        Some(Ok(EncodedFrame {
            codec: self.codec,
            data,
            time: unit.time,
            keyframe,
            rotation: self.rotation,
            color: self.color.unwrap_or_default(),
            arrival: unit.arrival,
            reorder_wait: now.saturating_duration_since(unit.arrival),
        }))
    }
}

impl Depacketizer {
    fn push(&mut self, payload: Bytes, data: &mut BytesMut) -> Result<(), Fault> {
        match self {
            Self::H264(h264) => h264.push(&payload, data),
            Self::Vp8(vp8) => vp8.push(payload, data),
            Self::Vp9(vp9) => vp9.push(payload, data),
        }
    }

    fn finish(&mut self, from_start: bool, data: &mut BytesMut) -> Result<Option<Finished>, Fault> {
        match self {
            Self::H264(h264) => h264.finish(from_start),
            Self::Vp8(vp8) => vp8.finish(data),
            Self::Vp9(vp9) => vp9.finish(data),
        }
    }

    fn discard(&mut self) {
        match self {
            Self::H264(h264) => h264.discard(),
            Self::Vp8(vp8) => *vp8 = vp8::Depacketizer::default(),
            Self::Vp9(vp9) => vp9.discard(),
        }
    }
}

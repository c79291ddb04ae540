use bytes::{Buf, Bytes, BytesMut};

use super::assemble::{Fault, Finished};

/// Rebuilds VP8 frames from RTP payloads (RFC 7741).
#[derive(Debug, Default)]
pub(super) struct Depacketizer {
    /// Whether the unit has its first packet, and whether that began a keyframe.
    keyframe: Option<bool>,
}

impl Depacketizer {
    pub(super) fn push(&mut self, payload: Bytes, data: &mut BytesMut) -> Result<(), Fault> {
        let Payload { starts_frame, data: part } = parse(payload).ok_or(Fault::Malformed)?;
        match (self.keyframe, starts_frame) {
            (None, false) => return Err(Fault::Incomplete),
            (Some(_), true) => return Err(Fault::Malformed),
            (None, true) => self.keyframe = Some(part[0] & 1 == 0),
            (Some(_), false) => {}
        }
        data.extend_from_slice(&part);
        Ok(())
    }

    pub(super) const fn in_keyframe(&self) -> bool {
        matches!(self.keyframe, Some(true))
    }

    pub(super) fn finish(&mut self, data: &[u8]) -> Result<Option<Finished>, Fault> {
        let keyframe = self.keyframe.take().ok_or(Fault::Incomplete)?;
        // A keyframe's start code and size follow its frame tag (RFC 6386, section 9.1).
        if keyframe && (data.len() < 10 || data[3..6] != [0x9d, 0x01, 0x2a]) {
            return Err(Fault::Malformed);
        }
        Ok(Some(Finished { keyframe, prefix: Bytes::new() }))
    }
}

struct Payload {
    starts_frame: bool,
    /// Never empty.
    data: Bytes,
}

/// The payload descriptor (RFC 7741, section 4.2) and what follows it.
fn parse(mut payload: Bytes) -> Option<Payload> {
    let first = payload.try_get_u8().ok()?;
    if first & 0x80 != 0 {
        let extension = payload.try_get_u8().ok()?;
        if extension & 0x80 != 0 && payload.try_get_u8().ok()? & 0x80 != 0 {
            payload.try_get_u8().ok()?;
        }
        if extension & 0x40 != 0 {
            payload.try_get_u8().ok()?;
        }
        if extension & 0x30 != 0 {
            payload.try_get_u8().ok()?;
        }
    }
    let starts_frame = first & 0x10 != 0 && first & 0x07 == 0;
    (!payload.is_empty()).then_some(Payload { starts_frame, data: payload })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn every_descriptor_extension_is_skipped() {
        for (descriptor, length) in [
            (&[0x10][..], 1),
            (&[0x90, 0x80, 0x17], 3),
            (&[0x90, 0x80, 0x92, 0x17], 4),
            (&[0x90, 0xc0, 0x92, 0x17, 0x01], 5),
            (&[0x90, 0xe0, 0x11, 0x01, 0x20], 5),
            (&[0x90, 0x10, 0x05], 3),
            (&[0x90, 0x00], 2),
        ] {
            assert_eq!(descriptor.len(), length);
            let mut bytes = descriptor.to_vec();
            bytes.push(0xab);
            let payload = parse(Bytes::from(bytes.clone())).unwrap();
            assert!(payload.starts_frame && payload.data == [0xab][..], "{descriptor:x?}");
            bytes.pop();
            assert!(parse(Bytes::from(bytes)).is_none(), "{descriptor:x?}");
        }
        assert!(!parse(Bytes::from_static(&[0x11, 0])).unwrap().starts_frame);
        assert!(!parse(Bytes::from_static(&[0x00, 0])).unwrap().starts_frame);
    }
}

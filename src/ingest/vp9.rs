use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::assemble::{Fault, Finished};

/// Most layer frames that a superframe can hold (VP9 bitstream specification, annex B).
const MAX_LAYERS: usize = 8;

/// Rebuilds VP9 pictures from RTP payloads (RFC 9628). The layer frames of a picture become one superframe.
#[derive(Debug, Default)]
pub(super) struct Depacketizer {
    /// Whether the unit has its first packet, and whether that began a keyframe.
    keyframe: Option<bool>,
    /// Where each layer frame ends in the unit's data.
    ends: Vec<usize>,
    /// Whether the last layer frame still lacks its end.
    open: bool,
}

impl Depacketizer {
    pub(super) fn push(&mut self, payload: Bytes, data: &mut BytesMut) -> Result<(), Fault> {
        let payload = parse(payload).ok_or(Fault::Malformed)?;
        if self.keyframe.is_none() {
            if !payload.starts_frame || payload.spatial_layer != 0 {
                return Err(Fault::Incomplete);
            }
            self.keyframe = Some(!payload.inter_predicted && starts_keyframe(&payload.data));
        }
        if payload.starts_frame == self.open || self.ends.len() == MAX_LAYERS {
            return Err(Fault::Malformed);
        }
        data.extend_from_slice(&payload.data);
        self.open = !payload.ends_frame;
        if payload.ends_frame {
            self.ends.push(data.len());
        }
        Ok(())
    }

    pub(super) const fn in_keyframe(&self) -> bool {
        matches!(self.keyframe, Some(true))
    }

    pub(super) fn finish(&mut self, data: &mut BytesMut) -> Result<Option<Finished>, Fault> {
        let keyframe = self.keyframe.filter(|_| !self.open);
        if keyframe.is_some() && self.ends.len() > 1 {
            put_superframe_index(&self.ends, data);
        }
        keyframe.map(|keyframe| Some(Finished { keyframe, prefix: Bytes::new() })).ok_or(Fault::Incomplete)
    }

    pub(super) fn discard(&mut self) {
        self.keyframe = None;
        self.ends.clear();
        self.open = false;
    }
}

struct Payload {
    starts_frame: bool,
    ends_frame: bool,
    inter_predicted: bool,
    spatial_layer: u8,
    /// Never empty.
    data: Bytes,
}

/// The payload descriptor (RFC 9628, section 4.2) and what follows it.
fn parse(mut payload: Bytes) -> Option<Payload> {
    let first = payload.try_get_u8().ok()?;
    let flag = |bit: u8| first & bit != 0;
    let (inter_predicted, flexible) = (flag(0x40), flag(0x10));
    if flag(0x80) && payload.try_get_u8().ok()? & 0x80 != 0 {
        payload.try_get_u8().ok()?;
    }
    let mut spatial_layer = 0;
    if flag(0x20) {
        spatial_layer = payload.try_get_u8().ok()? >> 1 & 7;
        if !flexible {
            payload.try_get_u8().ok()?;
        }
    }
    if flexible && inter_predicted {
        let mut references = 1;
        while payload.try_get_u8().ok()? & 1 != 0 {
            references += 1;
            if references > 3 {
                return None;
            }
        }
    }
    if flag(0x02) {
        skip_scalability_structure(&mut payload)?;
    }
    let (starts_frame, ends_frame) = (flag(0x08), flag(0x04));
    let some = !payload.is_empty();
    some.then_some(Payload { starts_frame, ends_frame, inter_predicted, spatial_layer, data: payload })
}

/// The scalability structure (RFC 9628, section 4.2.1).
fn skip_scalability_structure(payload: &mut Bytes) -> Option<()> {
    let head = payload.try_get_u8().ok()?;
    if head & 0x10 != 0 {
        let sizes = 4 * (usize::from(head >> 5) + 1);
        (payload.len() >= sizes).then(|| payload.advance(sizes))?;
    }
    if head & 0x08 != 0 {
        for _ in 0..payload.try_get_u8().ok()? {
            let references = usize::from(payload.try_get_u8().ok()? >> 2 & 3);
            (payload.len() >= references).then(|| payload.advance(references))?;
        }
    }
    Some(())
}

/// Whether the uncompressed header (VP9 bitstream specification, section 6.2) is that of a keyframe.
fn starts_keyframe(data: &[u8]) -> bool {
    let Some(&first) = data.first() else { return false };
    let profile_3 = first & 0x30 == 0x30;
    let bits = if profile_3 { first << 1 } else { first };
    first >> 6 == 0b10 && bits & 0x0c == 0
}

/// Appends the index (VP9 bitstream specification, annex B) that tells a decoder where each layer frame ends.
#[expect(clippy::cast_possible_truncation, reason = "eight layers at most, and four bytes hold every unit's size")]
fn put_superframe_index(ends: &[usize], data: &mut BytesMut) {
    let header = 0b1101_1000 | (ends.len() - 1) as u8;
    data.put_u8(header);
    let mut start = 0;
    for &end in ends {
        data.put_u32_le((end - start) as u32);
        start = end;
    }
    data.put_u8(header);
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn every_descriptor_extension_is_skipped() {
        for descriptor in [
            &[0x0c][..],
            &[0x8c, 0x11],
            &[0x8c, 0x91, 0x22],
            &[0xac, 0x91, 0x22, 0x00, 0x07],
            &[0xdc, 0x91, 0x22, 0x02],
            &[0xdc, 0x91, 0x22, 0x03, 0x05, 0x06],
            &[0x8e, 0x11, 0x18, 1, 2, 3, 4, 0x02, 0x00, 0x04, 0x01],
            &[0x8e, 0x11, 0x30, 1, 2, 3, 4, 5, 6, 7, 8],
        ] {
            let mut bytes = descriptor.to_vec();
            bytes.push(0xab);
            let payload = parse(Bytes::from(bytes.clone())).unwrap();
            assert!(payload.starts_frame && payload.ends_frame && payload.data == [0xab][..], "{descriptor:x?}");
            bytes.pop();
            assert!(parse(Bytes::from(bytes)).is_none(), "{descriptor:x?}");
        }
    }

    #[test]
    fn layer_frames_of_a_picture_become_a_superframe() {
        let mut depacketizer = Depacketizer::default();
        let mut data = BytesMut::new();
        // Base layer in two packets, then the upper layer in one, which refers only to the base.
        for payload in [
            &[0xa8, 0x01, 0x00, 0x00, 0x82, 0x49][..],
            &[0xa4, 0x01, 0x00, 0x00, 0x55],
            &[0xac, 0x01, 0x03, 0x00, 0x86, 1, 2],
        ] {
            depacketizer.push(Bytes::from_static(payload), &mut data).unwrap();
        }
        assert!(depacketizer.in_keyframe());
        assert!(depacketizer.finish(&mut data).unwrap().unwrap().keyframe);
        assert_eq!(data[..], [0x82, 0x49, 0x55, 0x86, 1, 2, 0xd9, 3, 0, 0, 0, 3, 0, 0, 0, 0xd9]);
    }

    #[test]
    fn a_picture_without_its_base_layer_or_its_end_is_incomplete() {
        let mut depacketizer = Depacketizer::default();
        let mut data = BytesMut::new();
        let upper = Bytes::from_static(&[0xac, 0x01, 0x03, 0x00, 0x86, 1, 2]);
        assert_eq!(depacketizer.push(upper, &mut data), Err(Fault::Incomplete));
        depacketizer.push(Bytes::from_static(&[0x88, 0x01, 0x82]), &mut data).unwrap();
        assert_eq!(depacketizer.finish(&mut data), Err(Fault::Incomplete));
    }
}

//! RTP header extensions that say how a picture is to be shown (RFC 8285).

use std::sync::atomic::{AtomicU32, Ordering};

use crate::media::{AnnouncedColor, ColorMatrix, ColorRange, Rotation};

/// The sender's orientation (3GPP TS 26.114, section 7.4.5).
pub(super) const ORIENTATION_URI: &str = "urn:3gpp:video-orientation";
/// Primaries, transfer function, matrix and range of the picture, which VP8's bitstream has no words for (libwebrtc,
/// docs/native-code/rtp-hdrext/color-space).
pub(super) const COLOR_SPACE_URI: &str = "http://www.webrtc.org/experiments/rtp-hdrext/color-space";

/// The ids that were negotiated; 0 stands for none.
#[derive(Debug, Default)]
pub(super) struct Extensions {
    orientation: AtomicU32,
    color_space: AtomicU32,
}

impl Extensions {
    /// Takes the ids from an answer.
    pub(super) fn negotiate(&self, answer: &str) {
        for (slot, uri) in [(&self.orientation, ORIENTATION_URI), (&self.color_space, COLOR_SPACE_URI)] {
            slot.store(extension_id(answer, uri).unwrap_or(0).into(), Ordering::Relaxed);
        }
    }

    /// The rotation that a packet announces.
    pub(super) fn rotation(&self, header: &rtc::rtp::Header) -> Option<Rotation> {
        find(header, &self.orientation)?.first().copied().map(Rotation::from_cvo)
    }

    /// The meaning of the picture's codes that a packet announces.
    pub(super) fn color(&self, header: &rtc::rtp::Header) -> Option<AnnouncedColor> {
        color_space(&find(header, &self.color_space)?)
    }
}

fn find(header: &rtc::rtp::Header, id: &AtomicU32) -> Option<bytes::Bytes> {
    match u8::try_from(id.load(Ordering::Relaxed)) {
        Ok(0) | Err(_) => None,
        Ok(id) => header.get_extension(id),
    }
}

/// Reads the extension's data: 4 bytes, or 28 where metadata of high dynamic range follow, which are not used.
/// Reserved values say nothing.
fn color_space(data: &[u8]) -> Option<AnnouncedColor> {
    let (4 | 28, &[_primaries, _transfer, matrix, range_and_siting, ..]) = (data.len(), data) else { return None };
    // ITU-T H.273, table 4.
    let matrix = match matrix {
        1 | 7 => Some(ColorMatrix::Bt709),
        4..=6 => Some(ColorMatrix::Bt601),
        9 | 10 => Some(ColorMatrix::Bt2020),
        _ => None,
    };
    // 3 stands for "derived from the transfer function".
    let range = match range_and_siting >> 4 & 3 {
        1 => Some(ColorRange::Limited),
        2 => Some(ColorRange::Full),
        _ => None,
    };
    Some(AnnouncedColor { matrix, range })
}

/// Id that an answer gives to a header extension (RFC 8285 section 5).
fn extension_id(sdp: &str, uri: &str) -> Option<u8> {
    sdp.lines().find_map(|line| {
        let (id, rest) = line.strip_prefix("a=extmap:")?.split_once(' ')?;
        (rest.split(' ').next() == Some(uri)).then(|| id.split('/').next()?.parse().ok())?
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn extension_ids_are_read_from_the_answer() {
        let sdp = "v=0\r\na=extmap:3/recvonly urn:3gpp:video-orientation\r\na=extmap:4 urn:x\r\n";
        assert_eq!(extension_id(sdp, ORIENTATION_URI), Some(3));
        assert_eq!(extension_id(sdp, "urn:y"), None);
    }

    #[test]
    fn a_packet_announces_what_was_negotiated() {
        let mut header = rtc::rtp::Header::default();
        header.set_extension(3, vec![1].into()).unwrap();
        header.set_extension(5, vec![1, 13, 1, 0x20].into()).unwrap();
        let extensions = Extensions::default();
        assert_eq!((extensions.rotation(&header), extensions.color(&header)), (None, None));
        extensions.negotiate(&format!("a=extmap:3 {ORIENTATION_URI}\r\na=extmap:5 {COLOR_SPACE_URI}\r\n"));
        assert_eq!(extensions.rotation(&header), Some(Rotation::Clockwise90));
        let full = AnnouncedColor { matrix: Some(ColorMatrix::Bt709), range: Some(ColorRange::Full) };
        assert_eq!(extensions.color(&header), Some(full));
        extensions.negotiate("v=0\r\n");
        assert_eq!((extensions.rotation(&header), extensions.color(&header)), (None, None));
    }

    #[test]
    fn reserved_values_say_nothing_and_other_lengths_are_no_colour_space() {
        let limited = AnnouncedColor { matrix: Some(ColorMatrix::Bt601), range: Some(ColorRange::Limited) };
        assert_eq!(color_space(&[6, 6, 6, 0x15]), Some(limited));
        let mut long = [0; 28];
        long[..4].copy_from_slice(&[9, 16, 9, 0x20]);
        assert_eq!(color_space(&long).unwrap().matrix, Some(ColorMatrix::Bt2020));
        assert_eq!(color_space(&[2, 2, 2, 0x00]), Some(AnnouncedColor::default()));
        assert_eq!(color_space(&[2, 2, 0, 0x30]), Some(AnnouncedColor::default()));
        for length in [0, 1, 3, 5, 27, 29] {
            assert_eq!(color_space(&vec![1; length]), None);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken(data in prop::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(color_space(&data).is_some(), matches!(data.len(), 4 | 28));
        }
    }
}

use crate::media::{AnnouncedColor, ColorMatrix, ColorRange};

/// The color-space header extension of libwebrtc (its `docs/native-code/rtp-hdrext/color-space`).
pub(super) const URI: &str = "http://www.webrtc.org/experiments/rtp-hdrext/color-space";

/// Bytes of the extension without metadata of a high dynamic range.
const LEN: usize = 4;
/// Bytes with such metadata, which follow the others.
const LEN_WITH_METADATA: usize = 28;
/// "Unspecified" among the codes of primaries, transfer functions and matrices (ITU-T H.273, tables 2 to 4).
const UNSPECIFIED: u8 = 2;

/// Reads the extension: codes of primaries, transfer function and matrix, then two reserved bits, two of the range, and
/// twice two of where chroma samples lie. Metadata is not looked at. Codes that name no matrix or range known here
/// leave it open; `None` when the length is wrong.
pub(super) fn parse(data: &[u8]) -> Option<AnnouncedColor> {
    let &[_primaries, _transfer, matrix, range_and_siting, ..] = data else { return None };
    if data.len() != LEN && data.len() != LEN_WITH_METADATA {
        return None;
    }
    let matrix = match matrix {
        1 | 7 => Some(ColorMatrix::Bt709),
        4..=6 => Some(ColorMatrix::Bt601),
        9 | 10 => Some(ColorMatrix::Bt2020),
        _ => None,
    };
    let range = match range_and_siting >> 4 & 3 {
        1 => Some(ColorRange::Limited),
        2 => Some(ColorRange::Full),
        _ => None,
    };
    Some(AnnouncedColor { matrix, range })
}

/// The extension without metadata. It leaves primaries and transfer function open.
pub(super) const fn write(color: AnnouncedColor) -> [u8; LEN] {
    let matrix = match color.matrix {
        Some(ColorMatrix::Bt709) => 1,
        Some(ColorMatrix::Bt601) => 6,
        Some(ColorMatrix::Bt2020) => 9,
        None => UNSPECIFIED,
    };
    let range = match color.range {
        Some(ColorRange::Limited) => 1,
        Some(ColorRange::Full) => 2,
        None => 0,
    };
    [UNSPECIFIED, UNSPECIFIED, matrix, range << 4]
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn matrix_and_range_are_read_with_and_without_metadata() {
        let read = |bytes: [u8; 4]| {
            let short = parse(&bytes).unwrap();
            let long = [&bytes[..], &[0xff; 24]].concat();
            assert_eq!(parse(&long), Some(short));
            (short.matrix, short.range)
        };
        assert_eq!(read([1, 13, 1, 0x20]), (Some(ColorMatrix::Bt709), Some(ColorRange::Full)));
        assert_eq!(read([6, 6, 6, 0x1a]), (Some(ColorMatrix::Bt601), Some(ColorRange::Limited)));
        assert_eq!(read([9, 16, 9, 0xe5]), (Some(ColorMatrix::Bt2020), Some(ColorRange::Full)));
        for (code, matrix) in [(4, ColorMatrix::Bt601), (5, ColorMatrix::Bt601), (7, ColorMatrix::Bt709)] {
            assert_eq!(read([2, 2, code, 0]).0, Some(matrix));
        }
    }

    #[test]
    fn reserved_and_open_codes_leave_it_to_the_bitstream() {
        for matrix in [0, 2, 3, 8, 11, 63, 255] {
            assert_eq!(parse(&[1, 1, matrix, 0x10]).unwrap().matrix, None);
        }
        // Neither "invalid" nor "derived from the matrix and others" names a range.
        for range in [0x00, 0x30, 0xcf] {
            assert_eq!(parse(&[1, 1, 1, range]).unwrap().range, None);
        }
        assert_eq!(parse(&[200, 200, 1, 0x20]), parse(&[1, 13, 1, 0x20]));
    }

    #[test]
    fn what_is_written_is_read_again() {
        let matrices = [ColorMatrix::Bt601, ColorMatrix::Bt709, ColorMatrix::Bt2020];
        for matrix in matrices.map(Some).into_iter().chain([None]) {
            for range in [Some(ColorRange::Limited), Some(ColorRange::Full), None] {
                let color = AnnouncedColor { matrix, range };
                assert_eq!(parse(&write(color)), Some(color));
            }
        }
        let full = AnnouncedColor { matrix: Some(ColorMatrix::Bt709), range: Some(ColorRange::Full) };
        assert_eq!(write(full), [2, 2, 1, 0x20]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken(data in prop::collection::vec(any::<u8>(), 0..40)) {
            let parsed = parse(&data);
            prop_assert_eq!(parsed.is_some(), data.len() == 4 || data.len() == 28);
            if let Some(color) = parsed {
                prop_assert_eq!(parse(&write(color)), Some(color));
            }
        }
    }
}

use crate::media::Codec;

/// Width and height that a unit announces, where it does: H.264 in its sequence parameter set, VP8 and VP9 in their
/// keyframes. Read before the decoder sees the unit, so that it allocates nothing for a picture that is too large.
pub fn size(codec: Codec, data: &[u8]) -> Option<(u32, u32)> {
    match codec {
        Codec::H264 => h264(data),
        Codec::Vp8 => vp8(data),
        Codec::Vp9 => vp9(data),
    }
}

/// RFC 6386, section 9.1.
fn vp8(data: &[u8]) -> Option<(u32, u32)> {
    let header = data.get(..10)?;
    let keyframe = header[0] & 1 == 0 && header[3..6] == [0x9d, 0x01, 0x2a];
    let side = |at: usize| u32::from(u16::from_le_bytes([header[at], header[at + 1]]) & 0x3fff);
    keyframe.then(|| (side(6), side(8)))
}

/// The uncompressed header (VP9 bitstream specification, section 6.2).
fn vp9(data: &[u8]) -> Option<(u32, u32)> {
    const RGB: u32 = 7;
    let mut bits = Bits::new(data.iter().copied());
    if bits.read(2)? != 0b10 {
        return None;
    }
    let profile = bits.read(1)? | bits.read(1)? << 1;
    if profile == 3 {
        bits.read(1)?;
    }
    let (show_existing, frame_type) = (bits.read(1)?, bits.read(1)?);
    bits.read(2)?;
    if show_existing == 1 || frame_type == 1 || bits.read(24)? != 0x49_83_42 {
        return None;
    }
    if profile >= 2 {
        bits.read(1)?;
    }
    let subsampled = profile & 1 == 1;
    if bits.read(3)? == RGB {
        bits.read(u32::from(subsampled))?;
    } else {
        bits.read(if subsampled { 4 } else { 1 })?;
    }
    Some((bits.read(16)? + 1, bits.read(16)? + 1))
}

/// The sequence parameter set before the first slice of an Annex B stream.
fn h264(data: &[u8]) -> Option<(u32, u32)> {
    let mut rest = data;
    loop {
        let start = rest.windows(3).position(|code| code == [0, 0, 1])?;
        rest = &rest[start + 3..];
        match rest.first()? & 0x1f {
            1..=5 => return None,
            7 => {
                let end = rest.windows(3).position(|code| code[..2] == [0, 0] && code[2] < 2).unwrap_or(rest.len());
                return sps(without_emulation_prevention(&rest[1..end]));
            }
            _ => {}
        }
    }
}

/// H.264, section 7.4.1.1: the third of `00 00 03` only keeps start codes out.
fn without_emulation_prevention(nal: &[u8]) -> impl Iterator<Item = u8> {
    let mut zeros = 0;
    let keep = move |byte: &u8| {
        let drop = zeros >= 2 && *byte == 3;
        zeros = if *byte == 0 { zeros + 1 } else { 0 };
        !drop
    };
    nal.iter().copied().filter(keep)
}

/// H.264, section 7.3.2.1.1, up to the cropping rectangle.
fn sps(data: impl Iterator<Item = u8>) -> Option<(u32, u32)> {
    let mut bits = Bits::new(data);
    let profile = bits.read(8)?;
    bits.read(16)?;
    bits.ue()?;
    let mut chroma_format = 1;
    if matches!(profile, 44 | 83 | 86 | 100 | 110 | 118 | 122 | 128 | 134 | 135 | 138 | 139 | 244) {
        chroma_format = bits.ue()?;
        if chroma_format == 3 {
            bits.read(1)?;
        }
        bits.ue()?;
        bits.ue()?;
        bits.read(1)?;
        if bits.read(1)? == 1 {
            for list in 0..if chroma_format == 3 { 12 } else { 8 } {
                if bits.read(1)? == 1 {
                    skip_scaling_list(&mut bits, if list < 6 { 16 } else { 64 })?;
                }
            }
        }
    }
    bits.ue()?;
    match bits.ue()? {
        0 => {
            bits.ue()?;
        }
        1 => {
            bits.read(1)?;
            bits.ue()?;
            bits.ue()?;
            for _ in 0..bits.ue()?.min(255) {
                bits.ue()?;
            }
        }
        _ => {}
    }
    bits.ue()?;
    bits.read(1)?;
    let (width, height) = (u64::from(bits.ue()?) + 1, u64::from(bits.ue()?) + 1);
    let frames_only = bits.read(1)?;
    if frames_only == 0 {
        bits.read(1)?;
    }
    bits.read(1)?;
    let field_factor = u64::from(2 - frames_only);
    let (mut crop_width, mut crop_height) = (0, 0);
    if bits.read(1)? == 1 {
        let mut side = || Some(u64::from(bits.ue()?) + u64::from(bits.ue()?));
        crop_width = side()? * if matches!(chroma_format, 1 | 2) { 2 } else { 1 };
        crop_height = side()? * if chroma_format == 1 { 2 } else { 1 } * field_factor;
    }
    let width = (width * 16).saturating_sub(crop_width);
    let height = (height * 16 * field_factor).saturating_sub(crop_height);
    Some((u32::try_from(width).unwrap_or(u32::MAX), u32::try_from(height).unwrap_or(u32::MAX)))
}

/// H.264, section 7.3.2.1.1.1.
fn skip_scaling_list(bits: &mut Bits<impl Iterator<Item = u8>>, len: u32) -> Option<()> {
    let (mut last, mut next) = (8_i64, 8_i64);
    for _ in 0..len {
        if next != 0 {
            next = (last + bits.se()?).rem_euclid(256);
        }
        last = if next == 0 { last } else { next };
    }
    Some(())
}

/// Reads big-endian bits; past the end there is `None`.
struct Bits<I> {
    bytes: I,
    byte: u8,
    /// Bits of `byte` that were not read.
    left: u32,
}

impl<I: Iterator<Item = u8>> Bits<I> {
    const fn new(bytes: I) -> Self {
        Self { bytes, byte: 0, left: 0 }
    }

    fn read(&mut self, count: u32) -> Option<u32> {
        let mut value = 0;
        for _ in 0..count {
            if self.left == 0 {
                (self.byte, self.left) = (self.bytes.next()?, 8);
            }
            self.left -= 1;
            value = value << 1 | u32::from(self.byte >> self.left & 1);
        }
        Some(value)
    }

    /// Unsigned Exp-Golomb code (H.264, section 9.1).
    fn ue(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while self.read(1)? == 0 {
            zeros += 1;
            if zeros > 31 {
                return None;
            }
        }
        Some((1_u32 << zeros) - 1 + self.read(zeros)?)
    }

    /// Signed Exp-Golomb code (H.264, section 9.1.1).
    fn se(&mut self) -> Option<i64> {
        let code = i64::from(self.ue()?);
        Some(if code % 2 == 1 { (code + 1) / 2 } else { -code / 2 })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn vp8_keyframes_tell_their_size_without_the_scaling_bits() {
        let header = [0x10, 0, 0, 0x9d, 1, 0x2a, 0x80, 0x42, 0xe0, 0x81];
        assert_eq!(vp8(&header), Some((640, 480)));
        assert_eq!(vp8(&[0x11, 0, 0, 0x9d, 1, 0x2a, 0x80, 2, 0xe0, 1]), None);
    }

    #[test]
    fn vp9_keyframes_tell_their_size() {
        // Profile 0, keyframe, shown, BT.601 limited, 352x288.
        assert_eq!(vp9(&[0x82, 0x49, 0x83, 0x42, 0x20, 0x15, 0xf0, 0x11, 0xf0]), Some((352, 288)));
        assert_eq!(vp9(&[0x86, 0x49, 0x83, 0x42, 0x20, 0x15, 0xf0, 0x11, 0xf0]), None);
    }

    #[test]
    fn sequence_parameter_sets_tell_the_cropped_size() {
        // Constrained baseline, level 4.0, 120x68 macroblocks, 8 lines cropped.
        let baseline = [0, 0, 0, 1, 0x67, 0x42, 0xc0, 0x28, 0xda, 0x01, 0xe0, 0x08, 0x9f, 0x95];
        assert_eq!(h264(&baseline), Some((1_920, 1_080)));
        let after_a_slice = [&[0, 0, 1, 0x65, 0x88][..], &baseline].concat();
        assert_eq!(h264(&after_a_slice), None);
    }

    proptest! {
        #[test]
        fn no_bytes_break_it(mut data in prop::collection::vec(any::<u8>(), 0..80), high in any::<bool>()) {
            for codec in [Codec::H264, Codec::Vp8, Codec::Vp9] {
                size(codec, &data);
            }
            data.splice(0..0, [0, 0, 1, 0x67, if high { 100 } else { 66 }]);
            h264(&data);
        }
    }
}

use moq_nvenc::sys::cuviddec::CUVIDDECODECAPS;

use super::{Codec, Error};

/// What a GPU decodes of one codec, with 8 bits a sample and 4:2:0 chroma, into NV12.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capability {
    /// Smallest width and height as coded.
    pub min: [u32; 2],
    /// Largest width and height as coded.
    pub max: [u32; 2],
    /// Most macroblocks (256 samples each) a picture.
    pub max_macroblocks: u32,
    /// How many of the GPU's decoders do this codec.
    pub engines: u8,
}

impl Capability {
    /// `None` when the GPU does not decode it.
    pub(super) fn read(filled: &CUVIDDECODECAPS) -> Option<Self> {
        // Bit 0 is cudaVideoSurfaceFormat_NV12.
        let decodes = filled.bIsSupported != 0 && filled.nOutputFormatMask & 1 == 1;
        decodes.then(|| Self {
            min: [u32::from(filled.nMinWidth), u32::from(filled.nMinHeight)],
            max: [filled.nMaxWidth, filled.nMaxHeight],
            max_macroblocks: filled.nMaxMBCount,
            engines: filled.nNumNVDECs,
        })
    }

    /// # Errors
    /// [`Error::Size`] when pictures of this coded size are too small or too large.
    pub(super) fn check(&self, codec: Codec, [width, height]: [u32; 2]) -> Result<(), Error> {
        let sides = (self.min[0]..=self.max[0]).contains(&width) && (self.min[1]..=self.max[1]).contains(&height);
        let macroblocks = u64::from(width) * u64::from(height) / 256;
        if sides && macroblocks <= u64::from(self.max_macroblocks) {
            return Ok(());
        }
        Err(Error::Size { codec, width, height })
    }

    /// The largest pictures that a decoder for this size should be made for: so large that it can be used again for those
    /// that sessions usually change to, turned ones among them.
    pub(super) fn room(&self, [width, height]: [u32; 2]) -> [u32; 2] {
        const STEPS: [u32; 3] = [640, 1_280, 1_920];
        let side = width.max(height);
        let room = STEPS.into_iter().find(|step| *step >= side).unwrap_or(side);
        let room = [room.min(self.max[0]).max(width), room.min(self.max[1]).max(height)];
        let fits = u64::from(room[0]) * u64::from(room[1]) / 256 <= u64::from(self.max_macroblocks);
        if fits { room } else { [width, height] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const H264: Capability = Capability { min: [48, 16], max: [4_096, 4_096], max_macroblocks: 65_536, engines: 7 };

    #[test]
    fn sizes_are_bounded_on_each_side_and_in_sum() {
        let check = |size| H264.check(Codec::H264, size);
        assert_eq!((check([48, 16]), check([4_096, 4_096])), (Ok(()), Ok(())));
        for size in [[47, 16], [48, 15], [4_097, 16], [48, 4_097]] {
            assert_eq!(check(size), Err(Error::Size { codec: Codec::H264, width: size[0], height: size[1] }));
        }
        let few = Capability { max_macroblocks: 8_160, ..H264 };
        assert!(few.check(Codec::H264, [1_920, 1_088]).is_ok() && few.check(Codec::H264, [1_920, 1_104]).is_err());
    }

    #[test]
    fn a_decoder_is_made_with_room_for_turned_and_larger_pictures() {
        assert_eq!(H264.room([640, 480]), [640, 640]);
        assert_eq!(H264.room([720, 1_280]), [1_280, 1_280]);
        assert_eq!(H264.room([1_920, 1_088]), [1_920, 1_920]);
        assert_eq!(H264.room([2_560, 1_440]), [2_560, 2_560]);
        let narrow = Capability { max: [4_096, 1_088], ..H264 };
        assert_eq!(narrow.room([1_920, 1_080]), [1_920, 1_088]);
        let few = Capability { max_macroblocks: 8_160, ..H264 };
        assert_eq!(few.room([1_920, 1_088]), [1_920, 1_088]);
    }
}

//! What a parser says of a sequence and of its pictures, read from NVIDIA's structures.
#![expect(unsafe_code, reason = "reads structures that NVIDIA's parser filled")]

use moq_nvenc::sys::cuviddec::CUVIDPICPARAMS;
use moq_nvenc::sys::nvcuvid::CUVIDEOFORMAT;

use crate::media::{ColorInfo, ColorMatrix, ColorRange};

use super::Codec;

/// `cudaVideoChromaFormat_420`.
const CHROMA_420: u32 = 1;

/// A sequence of pictures that a stream announces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Format {
    /// Width and height as coded, in whole blocks or up to them.
    pub(super) coded: [u32; 2],
    /// Left and upper edge of what is shown.
    pub(super) origin: [u32; 2],
    /// Width and height of what is shown.
    pub(super) shown: [u32; 2],
    /// Bits a sample, the more of luma and chroma.
    pub(super) bits: u32,
    /// `cudaVideoChromaFormat`.
    pub(super) chroma: u32,
    /// Pictures that the decoder has to keep at a time, with the one in hand.
    pub(super) pictures: u32,
    /// What the codes mean.
    pub(super) color: ColorInfo,
}

impl Format {
    /// `None` when nothing would be shown, or something beyond what is coded.
    ///
    /// # Safety
    /// `format` is what a parser gave to its callback for sequences, during that callback.
    pub(super) unsafe fn read(codec: Codec, format: *const CUVIDEOFORMAT) -> Option<Self> {
        // SAFETY: the caller's. Fields are read one by one: those of enumerated types as numbers, since a newer library may
        // know more values than the bindings do.
        let (chroma, coded, area, bits, pictures, signal) = unsafe {
            (
                (&raw const (*format).chroma_format).cast::<u32>().read(),
                [(*format).coded_width, (*format).coded_height],
                (&raw const (*format).display_area).read(),
                [(*format).bit_depth_luma_minus8, (*format).bit_depth_chroma_minus8],
                (*format).min_num_decode_surfaces,
                (&raw const (*format).video_signal_description).read(),
            )
        };
        let side = |from: i32, to: i32, coded: u32| {
            let (from, to) = (u32::try_from(from).ok()?, u32::try_from(to).ok()?);
            (from < to && to <= coded).then(|| (from, to - from))
        };
        let (left, width) = side(area.left, area.right, coded[0])?;
        let (top, height) = side(area.top, area.bottom, coded[1])?;
        let color = if codec == Codec::Vp8 {
            // RFC 6386, section 9.2.
            ColorInfo::default()
        } else {
            color(signal.matrix_coefficients, signal.video_full_range_flag() == 1, [width, height])
        };
        let bits = 8 + u32::from(bits[0].max(bits[1]));
        let pictures = u32::from(pictures);
        Some(Self { coded, origin: [left, top], shown: [width, height], bits, chroma, pictures, color })
    }

    pub(super) const fn is_usual(&self) -> bool {
        self.bits == 8 && self.chroma == CHROMA_420
    }
}

/// The meaning of `matrix_coefficients` (ITU-T H.273, table 4), which is taken as software decoding takes it.
fn color(matrix: u8, full: bool, [width, height]: [u32; 2]) -> ColorInfo {
    let matrix = match matrix {
        1 | 7 => ColorMatrix::Bt709,
        4..=6 => ColorMatrix::Bt601,
        9 | 10 => ColorMatrix::Bt2020,
        _ => super::super::picture::usual_matrix(width, height),
    };
    ColorInfo { matrix, range: if full { ColorRange::Full } else { ColorRange::Limited } }
}

/// One picture that a parser has for its decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Coded {
    /// Where the decoder puts it, from 0.
    pub(super) index: i32,
    /// Whether it is whole with this, which a first field is not.
    pub(super) complete: bool,
    /// Whether it is shown as soon as it is decoded. Others may be shown later, or only be referred to.
    pub(super) shown: bool,
    /// Whether it consists of fields.
    pub(super) fields: bool,
    /// Of fields: whether the lower one came last.
    pub(super) bottom: bool,
}

impl Coded {
    /// # Safety
    /// `picture` is what a parser of this codec gave to its callback for pictures, during that callback.
    pub(super) unsafe fn read(codec: Codec, picture: *const CUVIDPICPARAMS) -> Self {
        // SAFETY: the caller's; the variant of the union is that of the codec.
        unsafe {
            let specific = &raw const (*picture).CodecSpecific;
            let shown = match codec {
                Codec::H264 | Codec::Hevc => true,
                Codec::Vp8 => (*specific).vp8.__bindgen_anon_1.vp8_frame_tag.show_frame() == 1,
                Codec::Vp9 => (*specific).vp9.showFrame() == 1,
                Codec::Av1 => (*specific).av1.show_frame() == 1,
            };
            let fields = (*picture).field_pic_flag != 0;
            let (second, bottom) = ((*picture).second_field != 0, (*picture).bottom_field_flag != 0);
            Self { index: (*picture).CurrPicIdx, complete: !fields || second, shown, fields, bottom }
        }
    }
}

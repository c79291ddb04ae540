//! What fake parsers find in units.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use moq_nvenc::sys::nvcuvid::CUVIDEOFORMAT;
use saccade::clock;
use saccade::decode::software::Software;
use saccade::decode::{self, Decoder as _, Limits};
use saccade::media::{
    AnnouncedColor, Codec, ColorInfo, ColorMatrix, ColorRange, EncodedFrame, FramePool, I420, MediaTime, Rotation,
};

/// Finds sequences and pictures in units.
pub trait Source: Send {
    fn parse(&mut self, unit: &[u8]) -> Vec<Found>;
}

impl<F: FnMut(&[u8]) -> Vec<Found> + Send> Source for F {
    fn parse(&mut self, unit: &[u8]) -> Vec<Found> {
        self(unit)
    }
}

pub enum Found {
    Sequence(Sequence),
    Picture(Picture),
    /// The picture that was hidden last is to be shown.
    ShowHidden,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sequence {
    pub coded: [u32; 2],
    /// Left, top, right and bottom of what is shown.
    pub area: [i32; 4],
    pub bits: u8,
    /// 1 for 4:2:0.
    pub chroma: u32,
    pub pictures: u8,
    /// `matrix_coefficients`.
    pub matrix: u8,
    pub full: bool,
}

impl Sequence {
    /// A sequence whose pictures are coded in whole blocks of `block` and shown from their upper left.
    pub fn new(width: u32, height: u32, block: u32) -> Self {
        let coded = [width.next_multiple_of(block), height.next_multiple_of(block)];
        let area = [0, 0, width as i32, height as i32];
        Self { coded, area, bits: 8, chroma: 1, pictures: 4, matrix: 2, full: false }
    }

    pub(super) fn format(&self, codec: u32) -> CUVIDEOFORMAT {
        let mut format: CUVIDEOFORMAT = unsafe { mem::zeroed() };
        unsafe {
            (&raw mut format.codec).cast::<u32>().write(codec);
            (&raw mut format.chroma_format).cast::<u32>().write(self.chroma);
        }
        format.progressive_sequence = 1;
        (format.bit_depth_luma_minus8, format.bit_depth_chroma_minus8) = (self.bits - 8, self.bits - 8);
        format.min_num_decode_surfaces = self.pictures;
        [format.coded_width, format.coded_height] = self.coded;
        let area = &mut format.display_area;
        [area.left, area.top, area.right, area.bottom] = self.area;
        format.video_signal_description.matrix_coefficients = self.matrix;
        format.video_signal_description.set_video_full_range_flag(u8::from(self.full));
        format
    }
}

pub struct Picture {
    /// What is shown of it.
    pub shown: I420,
    pub hidden: bool,
    pub fields: bool,
    /// A `cuvidDecodeStatus`, by default success.
    pub status: Option<u32>,
}

impl Picture {
    pub fn new(shown: I420) -> Self {
        Self { shown, hidden: false, fields: false, status: None }
    }
}

/// Finds what decoding in software does.
pub fn software(codec: u32) -> Box<dyn Source> {
    let (codec, block) = match codec {
        4 => (Codec::H264, 16),
        9 => (Codec::Vp8, 16),
        10 => (Codec::Vp9, 8),
        other => panic!("software decodes no codec {other} here: give the fake a source"),
    };
    let limits = Limits { max_width: 8_192, max_height: 8_192 };
    let mut decoder = Software::new(codec, limits, Arc::new(FramePool::new(2))).expect("FFmpeg has the decoder");
    let (mut last, mut blank) = (None, I420::new(16, 16));
    Box::new(move |unit: &[u8]| {
        let decoded = decoder.decode(&EncodedFrame {
            codec,
            data: Bytes::copy_from_slice(unit),
            time: MediaTime(0),
            keyframe: decode::announced_size(codec, unit).is_some(),
            rotation: Rotation::None,
            color: AnnouncedColor::default(),
            arrival: clock::now(),
            reorder_wait: Duration::ZERO,
        });
        match decoded {
            Ok(Some(decoded)) => {
                let mut sequence = Sequence::new(decoded.picture.width(), decoded.picture.height(), block);
                (sequence.matrix, sequence.full) = description(decoded.color);
                let begins = last.replace(sequence) != Some(sequence);
                blank = (*decoded.picture).clone();
                let sequence = begins.then_some(Found::Sequence(sequence));
                sequence.into_iter().chain([Found::Picture(Picture::new((*decoded.picture).clone()))]).collect()
            }
            Ok(None) => Vec::new(),
            Err(decode::Error::Damaged) => {
                vec![Found::Picture(Picture { status: Some(8), ..Picture::new(blank.clone()) })]
            }
            Err(_) => Vec::new(),
        }
    })
}

/// `matrix_coefficients` and the flag of the full range (ITU-T H.273).
fn description(color: ColorInfo) -> (u8, bool) {
    let matrix = match color.matrix {
        ColorMatrix::Bt601 => 6,
        ColorMatrix::Bt709 => 1,
        ColorMatrix::Bt2020 => 9,
    };
    (matrix, color.range == ColorRange::Full)
}

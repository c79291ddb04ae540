//! Still pictures as PNG or JPEG, for offline use.

use std::fmt;
use std::path::Path;

use ffmpeg_next::format::Pixel;
use ffmpeg_next::{Packet, Rational, codec, color, encoder, frame};

use crate::media::{ColorInfo, ColorMatrix, ColorRange, I420};

use super::init;
use super::recolor::recolor;
use super::software::fill;

/// What JPEG's codes mean (JFIF 1.02): full-range BT.601.
const JFIF: ColorInfo = ColorInfo { matrix: ColorMatrix::Bt601, range: ColorRange::Full };
/// Scale of JPEG's quantisation tables, 1..31: hardly visible losses.
const JPEG_SCALE: i32 = 2;

/// A format for still pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// RGB without loss.
    Png,
    /// YCbCr 4:2:0 at a high quality.
    Jpeg,
}

/// What goes wrong while encoding a still picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// This FFmpeg was built without the encoder.
    #[error("no encoder for {0}")]
    NoEncoder(Format),
    /// The encoder failed, or does not open for this size.
    #[error("the picture can't be encoded")]
    Failed(#[source] ffmpeg_next::Error),
}

impl Format {
    /// The format that a file name's extension stands for.
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        let extension = path.extension()?.to_str()?.to_ascii_lowercase();
        match extension.as_str() {
            "png" => Some(Self::Png),
            "jpg" | "jpeg" => Some(Self::Jpeg),
            _ => None,
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Png => "PNG",
            Self::Jpeg => "JPEG",
        })
    }
}

/// The bytes of a file with this picture in it.
///
/// # Errors
/// [`Error::NoEncoder`], [`Error::Failed`].
pub fn encode(picture: &I420, color: ColorInfo, format: Format) -> Result<Vec<u8>, Error> {
    init();
    let (id, pixel) = match format {
        Format::Png => (codec::Id::PNG, Pixel::RGB24),
        Format::Jpeg => (codec::Id::MJPEG, Pixel::YUVJ420P),
    };
    let found = encoder::find(id).ok_or(Error::NoEncoder(format))?;
    let mut context = codec::Context::new_with_codec(found).encoder().video().map_err(Error::Failed)?;
    let (width, height) = (picture.width(), picture.height());
    context.set_width(width);
    context.set_height(height);
    context.set_format(pixel);
    context.set_time_base(Rational(1, 25));
    let mut frame = frame::Video::new(pixel, width, height);
    if frame.planes() == 0 {
        return Err(Error::Failed(ffmpeg_next::Error::BufferTooSmall));
    }
    match format {
        Format::Png => fill_rgb(&mut frame, picture, color),
        Format::Jpeg => {
            context.set_color_range(color::Range::JPEG);
            frame.set_color_range(color::Range::JPEG);
            context.set_qmin(JPEG_SCALE);
            context.set_qmax(JPEG_SCALE);
            let filled = if color == JFIF {
                fill(&mut frame, picture)
            } else {
                let mut recolored = I420::new(width, height);
                recolor(picture, color, JFIF, &mut recolored);
                fill(&mut frame, &recolored)
            };
            filled.map_err(Error::Failed)?;
        }
    }
    frame.set_pts(Some(0));
    let mut encoder = context.open().map_err(Error::Failed)?;
    encoder.send_frame(&frame).map_err(Error::Failed)?;
    encoder.send_eof().map_err(Error::Failed)?;
    let mut packet = Packet::empty();
    encoder.receive_packet(&mut packet).map_err(Error::Failed)?;
    Ok(packet.data().unwrap_or_default().to_vec())
}

/// Each chroma sample counts for its whole square of four pixels.
fn fill_rgb(frame: &mut frame::Video, picture: &I420, color: ColorInfo) {
    let ([luma_stride, chroma_stride, _], [luma, cb, cr]) = (picture.strides(), picture.planes());
    let stride = frame.stride(0);
    let rows = frame.data_mut(0).chunks_mut(stride).zip(luma.chunks_exact(luma_stride));
    for (y, (to, luma)) in rows.enumerate() {
        let start = y / 2 * chroma_stride;
        for (x, (to, luma)) in to.chunks_exact_mut(3).zip(luma).enumerate() {
            let at = start + x / 2;
            to.copy_from_slice(&color.to_rgb([*luma, cb[at], cr[at]]));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;
    use crate::decode::Limits;
    use crate::decode::file::Reader;

    /// Squares of plain colours, in sizes that no block divides.
    fn squares(color: ColorInfo) -> (I420, [[u8; 3]; 4]) {
        let colors = [[250, 20, 30], [10, 120, 240], [255, 255, 255], [60, 160, 40]];
        let (width, height) = (131_usize, 67_usize);
        let mut picture = I420::new(131, 67);
        let strides = picture.strides();
        for (plane, (codes, stride)) in picture.planes_mut().into_iter().zip(strides).enumerate() {
            let (wide, high) = if plane == 0 { (width, height) } else { (width.div_ceil(2), height.div_ceil(2)) };
            for (at, code) in codes.iter_mut().enumerate() {
                let index = usize::from(at % stride >= wide / 2) + 2 * usize::from(at / stride >= high / 2);
                *code = color.from_rgb(colors[index])[plane];
            }
        }
        (picture, colors)
    }

    #[test]
    fn colours_come_back_from_the_file_whatever_the_picture_was_in() {
        let folder = tempfile::tempdir().unwrap();
        let wide = ColorInfo { matrix: ColorMatrix::Bt709, range: ColorRange::Limited };
        for (name, loss) in [("a.png", 4), ("a.JPG", 8)] {
            for color in [ColorInfo::default(), JFIF, wide] {
                let (picture, colors) = squares(color);
                let path = folder.path().join(name);
                let format = Format::of(&path).unwrap();
                std::fs::write(&path, encode(&picture, color, format).unwrap()).unwrap();
                let mut reader = Reader::open(&path, Limits::default()).unwrap();
                let read = reader.next().unwrap().unwrap();
                assert_eq!((read.picture.width(), read.picture.height()), (131, 67));
                let [luma, cb, cr] = read.picture.planes();
                for (index, rgb) in colors.into_iter().enumerate() {
                    let (x, y) = (if index % 2 == 0 { 20 } else { 110 }, if index < 2 { 12 } else { 52 });
                    let chroma = y / 2 * 66 + x / 2;
                    let back = read.color.to_rgb([luma[y * 131 + x], cb[chroma], cr[chroma]]);
                    let off = rgb.iter().zip(back).map(|(a, b)| a.abs_diff(b)).max().unwrap();
                    assert!(off <= loss, "{name} {color:?}: {rgb:?} became {back:?}");
                }
            }
        }
        assert_eq!(Format::of(Path::new("a.webm")), None);
        assert_eq!(Format::of(Path::new("png")), None);
    }
}

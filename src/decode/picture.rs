//! From FFmpeg's frames to upright pictures of our own, in one copy.
#![allow(unsafe_code, reason = "reads the planes of FFmpeg's frames")]

use std::sync::Arc;

use ffmpeg_next::format::Pixel;
use ffmpeg_next::software::scaling;
use ffmpeg_next::{color, frame};

use crate::media::{AnnouncedColor, ColorInfo, ColorMatrix, ColorRange, FramePool, I420, Rotation};

use super::{Decoded, Error};

/// Side of the square that a quarter turn copies at a time, so that both pictures' rows stay in the cache.
const TILE: usize = 32;

/// Copies frames out of FFmpeg, upright, and through a conversion where they are not planar 4:2:0 with 8 bits.
#[derive(Default)]
pub(super) struct Copier {
    scaler: Option<Scaler>,
}

impl Copier {
    /// `announced` overrides what the frame says of its codes, unless they are RGB.
    pub(super) fn copy(
        &mut self,
        frame: &frame::Video,
        turn: Rotation,
        announced: AnnouncedColor,
        pool: &FramePool,
    ) -> Result<Decoded, Error> {
        if matches!(frame.format(), Pixel::YUV420P | Pixel::YUVJ420P)
            && let Some(planes) = planes(frame)
        {
            let color = announced.over(color_info(frame));
            let picture = upright(frame.width(), frame.height(), planes, turn, pool);
            return Ok(Decoded { picture, color });
        }
        let scaler = match &mut self.scaler {
            Some(scaler) if scaler.fits(frame) => scaler,
            other => other.insert(Scaler::new(frame)?),
        };
        scaler.context.run(frame, &mut scaler.output).map_err(|_| Error::PixelFormat)?;
        let planes = planes(&scaler.output).ok_or(Error::PixelFormat)?;
        let color = if scaler.from_rgb {
            ColorInfo { matrix: ColorMatrix::Bt601, range: ColorRange::Full }
        } else {
            announced.over(color_info(frame))
        };
        Ok(Decoded { picture: upright(frame.width(), frame.height(), planes, turn, pool), color })
    }
}

/// A conversion to planar 4:2:0. YCbCr codes keep their meaning; RGB becomes full-range BT.601.
struct Scaler {
    context: scaling::Context,
    output: frame::Video,
    from_rgb: bool,
}

// SAFETY: the scaling context has no thread affinity and is only reached through `&mut self`.
unsafe impl Send for Scaler {}

impl Scaler {
    fn new(frame: &frame::Video) -> Result<Self, Error> {
        let (format, width, height) = (frame.format(), frame.width(), frame.height());
        let from_rgb = is_rgb(format);
        // In FFmpeg, the "J" formats mean full range; grey counts as full range, too.
        let full = from_rgb || is_full_range(frame);
        let to = if full { Pixel::YUVJ420P } else { Pixel::YUV420P };
        let flags = scaling::Flags::BILINEAR | scaling::Flags::ACCURATE_RND | scaling::Flags::FULL_CHR_H_INP;
        let context = scaling::Context::get(format, width, height, to, width, height, flags);
        let context = context.map_err(|_| Error::PixelFormat)?;
        Ok(Self { context, output: frame::Video::new(to, width, height), from_rgb })
    }

    fn fits(&self, frame: &frame::Video) -> bool {
        let input = self.context.input();
        (input.format, input.width, input.height) == (frame.format(), frame.width(), frame.height())
    }
}

fn is_rgb(format: Pixel) -> bool {
    const FLAGS: u64 = (1 << 1) | (1 << 5); // AV_PIX_FMT_FLAG_PAL and AV_PIX_FMT_FLAG_RGB
    // SAFETY: descriptors live in a static table of libavutil.
    format.descriptor().is_some_and(|descriptor| unsafe { (*descriptor.as_ptr()).flags } & FLAGS != 0)
}

fn is_grey(format: Pixel) -> bool {
    format.descriptor().is_some_and(|descriptor| descriptor.nb_components() < 3) && !is_rgb(format)
}

fn is_full_range(frame: &frame::Video) -> bool {
    match (frame.color_range(), frame.format()) {
        (color::Range::JPEG, _) | (_, Pixel::YUVJ420P | Pixel::YUVJ422P | Pixel::YUVJ444P | Pixel::YUVJ440P) => true,
        (color::Range::Unspecified, format) => is_grey(format),
        (color::Range::MPEG, _) => false,
    }
}

/// The matrix of pictures whose stream does not name one: below 1280x720 they are taken as BT.601 and larger ones as BT.709,
/// as players do.
pub(super) fn usual_matrix(width: u32, height: u32) -> ColorMatrix {
    if width.max(height) < 1_280 && width.min(height) < 720 { ColorMatrix::Bt601 } else { ColorMatrix::Bt709 }
}

/// The meaning of a frame's codes.
fn color_info(frame: &frame::Video) -> ColorInfo {
    let matrix = match frame.color_space() {
        color::Space::BT709 | color::Space::SMPTE240M => ColorMatrix::Bt709,
        color::Space::BT2020NCL | color::Space::BT2020CL => ColorMatrix::Bt2020,
        color::Space::BT470BG | color::Space::SMPTE170M | color::Space::FCC => ColorMatrix::Bt601,
        _ => usual_matrix(frame.width(), frame.height()),
    };
    let range = if is_full_range(frame) { ColorRange::Full } else { ColorRange::Limited };
    ColorInfo { matrix, range }
}

/// One plane: rows of `width` samples, `stride` bytes apart.
struct Plane<'a> {
    data: &'a [u8],
    stride: usize,
    width: usize,
    height: usize,
}

/// The planes of a planar 4:2:0 frame; `None` for a layout that can't be borrowed as slices.
fn planes(frame: &frame::Video) -> Option<[Plane<'_>; 3]> {
    let (width, height) = (frame.width() as usize, frame.height() as usize);
    let sizes = [(width, height), (width.div_ceil(2), height.div_ceil(2)), (width.div_ceil(2), height.div_ceil(2))];
    let mut planes = sizes.map(|(width, height)| Plane { data: &[], stride: 0, width, height });
    for (index, plane) in planes.iter_mut().enumerate() {
        // SAFETY: the frame is borrowed, so its fields stay as they are.
        let (pointer, stride) = unsafe { ((*frame.as_ptr()).data[index], (*frame.as_ptr()).linesize[index]) };
        plane.stride = usize::try_from(stride).ok()?;
        if pointer.is_null() || plane.stride < plane.width || plane.height == 0 {
            return None;
        }
        let len = plane.stride * (plane.height - 1) + plane.width;
        // SAFETY: a frame's plane has `height` rows of `width` bytes at multiples of its positive line size, and lives
        // as long as the frame that is borrowed.
        plane.data = unsafe { std::slice::from_raw_parts(pointer, len) };
    }
    Some(planes)
}

/// A picture that stands upright, from one that does not.
#[cfg(feature = "cuda")]
pub(super) fn turned(picture: &I420, turn: Rotation, pool: &FramePool) -> Arc<I420> {
    let (width, height) = (picture.width(), picture.height());
    let strides = picture.strides();
    let mut index = 0;
    let planes = picture.planes().map(|data| {
        let stride = strides[index];
        index += 1;
        Plane { data, stride, width: stride, height: data.len() / stride }
    });
    upright(width, height, planes, turn, pool)
}

fn upright(width: u32, height: u32, planes: [Plane<'_>; 3], turn: Rotation, pool: &FramePool) -> Arc<I420> {
    let (width, height) = turn.apply(width, height);
    let mut picture = pool.take(width, height);
    for (to, from) in Arc::make_mut(&mut picture).planes_mut().into_iter().zip(planes) {
        from.copy_turned(turn, to);
    }
    picture
}

impl Plane<'_> {
    fn row(&self, y: usize) -> &[u8] {
        &self.data[y * self.stride..][..self.width]
    }

    fn copy_turned(&self, turn: Rotation, to: &mut [u8]) {
        match turn {
            Rotation::None if self.stride == self.width => to.copy_from_slice(self.data),
            Rotation::None => {
                for (y, to) in to.chunks_exact_mut(self.width).enumerate() {
                    to.copy_from_slice(self.row(y));
                }
            }
            Rotation::Half => {
                for (y, to) in to.chunks_exact_mut(self.width).rev().enumerate() {
                    for (to, from) in to.iter_mut().zip(self.row(y).iter().rev()) {
                        *to = *from;
                    }
                }
            }
            Rotation::Clockwise90 => self.copy_transposed(to, |x, y| (self.height - 1 - y, x)),
            Rotation::Clockwise270 => self.copy_transposed(to, |x, y| (y, self.width - 1 - x)),
        }
    }

    /// `place` gives the column and row in the target for a column and row here.
    fn copy_transposed(&self, to: &mut [u8], place: impl Fn(usize, usize) -> (usize, usize)) {
        for top in (0..self.height).step_by(TILE) {
            for left in (0..self.width).step_by(TILE) {
                for y in top..(top + TILE).min(self.height) {
                    let row = self.row(y);
                    for (x, sample) in row.iter().enumerate().take(left + TILE).skip(left) {
                        let (column, line) = place(x, y);
                        to[line * self.height + column] = *sample;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    /// A frame with odd sides and a different code in each place.
    fn sample(format: Pixel) -> frame::Video {
        let mut frame = frame::Video::new(format, 37, 41);
        for plane in 0..3 {
            let stride = frame.stride(plane);
            for (i, code) in frame.data_mut(plane).iter_mut().enumerate() {
                *code = u8::try_from((i / stride * 7 + i % stride * 3 + plane * 50) % 256).unwrap();
            }
        }
        frame
    }

    #[test]
    fn every_turn_moves_each_sample_to_its_place() {
        let frame = sample(Pixel::YUV420P);
        let pool = FramePool::new(1);
        for turn in [Rotation::None, Rotation::Clockwise90, Rotation::Half, Rotation::Clockwise270] {
            let Decoded { picture, .. } =
                Copier::default().copy(&frame, turn, AnnouncedColor::default(), &pool).unwrap();
            assert_eq!((picture.width(), picture.height()), turn.apply(37, 41));
            for plane in 0..3 {
                let (width, height) = if plane == 0 { (37, 41) } else { (19, 21) };
                let turned_width = turn.apply(width, height).0;
                for y in 0..height {
                    for x in 0..width {
                        let (to_x, to_y) = match turn {
                            Rotation::None => (x, y),
                            Rotation::Clockwise90 => (height - 1 - y, x),
                            Rotation::Half => (width - 1 - x, height - 1 - y),
                            Rotation::Clockwise270 => (y, width - 1 - x),
                        };
                        let from = frame.data(plane)[y as usize * frame.stride(plane) + x as usize];
                        let to = picture.planes()[plane][(to_y * turned_width + to_x) as usize];
                        assert_eq!(from, to, "{turn:?} plane {plane} at {x},{y}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_matrix_defaults_by_size_and_the_range_by_format() {
        let mut frame = frame::Video::new(Pixel::YUV420P, 640, 480);
        assert_eq!(color_info(&frame), ColorInfo::default());
        frame.set_color_space(color::Space::BT709);
        frame.set_color_range(color::Range::JPEG);
        assert_eq!(color_info(&frame), ColorInfo { matrix: ColorMatrix::Bt709, range: ColorRange::Full });
        let portrait = frame::Video::new(Pixel::YUVJ420P, 720, 1_280);
        assert_eq!(color_info(&portrait), ColorInfo { matrix: ColorMatrix::Bt709, range: ColorRange::Full });
    }

    #[test]
    fn other_formats_are_converted_and_rgb_becomes_full_range() {
        let pool = FramePool::new(1);
        let mut copier = Copier::default();
        let mut frame = frame::Video::new(Pixel::YUV444P, 64, 48);
        for (plane, code) in [(0, 90), (1, 110), (2, 200)] {
            frame.data_mut(plane).fill(code);
        }
        let Decoded { picture, color } = copier.copy(&frame, Rotation::None, AnnouncedColor::default(), &pool).unwrap();
        assert_eq!(color, ColorInfo::default());
        assert_eq!(picture.planes().map(|plane| plane[plane.len() / 2]), [90, 110, 200]);

        let mut frame = frame::Video::new(Pixel::RGB24, 64, 48);
        let stride = frame.stride(0);
        for row in frame.data_mut(0).chunks_exact_mut(stride) {
            row[..64 * 3].chunks_exact_mut(3).for_each(|pixel| pixel.copy_from_slice(&[220, 40, 90]));
        }
        let announced = ColorInfo { matrix: ColorMatrix::Bt709, range: ColorRange::Limited }.into();
        let Decoded { picture, color } = copier.copy(&frame, Rotation::None, announced, &pool).unwrap();
        assert_eq!(color, ColorInfo { matrix: ColorMatrix::Bt601, range: ColorRange::Full });
        let codes = picture.planes().map(|plane| plane[plane.len() / 2]);
        let expected = color.from_rgb([220, 40, 90]);
        assert!(codes.iter().zip(expected).all(|(a, b)| a.abs_diff(b) <= 2), "{codes:?} {expected:?}");
    }
}

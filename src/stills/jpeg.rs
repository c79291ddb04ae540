//! JPEG by libjpeg-turbo: to YCbCr without a detour over RGB, smaller by its own transform where that is enough.

use std::cell::RefCell;
use std::ffi::{CStr, c_int};
use std::ptr::{self, NonNull};
use std::sync::Arc;

use turbojpeg_sys as raw;

use super::planes::{Pixels, Planar, Rows};
use super::{Decoded, Error, Header, Kind};
use crate::media::I420;

/// What one stored pixel makes of one, largest first; those in between take more time than they save, since only these have
/// transforms in SIMD.
const SHRUNK: [u32; 4] = [8, 4, 2, 1];
/// Scans of a progressive picture at most: programs write about ten.
const MAX_SCANS: c_int = 100;
/// Megabytes that the library may take besides the pixels: 16 bits for each of up to four components of a pixel, and tables.
const BASE_MEGABYTES: u64 = 8;
const BYTES_A_PIXEL: u64 = 8;

thread_local! {
    /// A decoder and its samples for each thread that decodes.
    static DECODER: RefCell<Option<Decoder>> = const { RefCell::new(None) };
}

/// Samples kept between pictures at most, in bytes.
const KEPT: usize = 8 << 20;

const KIND: Kind = Kind::Jpeg;

/// What the library calls its colour spaces, as it answers.
const YCBCR: c_int = raw::TJCS_TJCS_YCbCr as c_int;
const GRAY: c_int = raw::TJCS_TJCS_GRAY as c_int;
const CMYK: c_int = raw::TJCS_TJCS_CMYK as c_int;
const YCCK: c_int = raw::TJCS_TJCS_YCCK as c_int;

/// See [`super::decode`].
pub(super) fn decode(bytes: &[u8], header: &Header, least: Option<[u32; 2]>) -> Result<Decoded, Error> {
    DECODER.with_borrow_mut(|kept| {
        let decoder = match kept {
            Some(decoder) => decoder,
            none => none.insert(Decoder::new()?),
        };
        let decoded = decoder.decode(bytes, header, least);
        if decoder.samples.capacity() > KEPT {
            decoder.samples = Vec::new();
        }
        decoded
    })
}

/// The bytes of a JPEG of this picture in full-range BT.601, at a quality of 1 to 100.
///
/// # Errors
/// [`Error::Memory`], and where a side is longer than JPEG's 65,535 pixels.
pub fn encode(picture: &I420, quality: u8) -> Result<Vec<u8>, Error> {
    let handle = Handle::new(raw::TJINIT_TJINIT_COMPRESS)?;
    handle.set(raw::TJPARAM_TJPARAM_SUBSAMP, raw::TJSAMP_TJSAMP_420);
    handle.set(raw::TJPARAM_TJPARAM_QUALITY, c_int::from(quality.clamp(1, 100)));
    let (Ok(width), Ok(height)) = (c_int::try_from(picture.width()), c_int::try_from(picture.height())) else {
        return Err(Error::Memory { kind: KIND });
    };
    // The library's planes of odd sides are one sample longer.
    let padded = Padded::new(picture);
    let planes = padded.planes();
    let strides = padded.strides.map(|stride| c_int::try_from(stride).unwrap_or(0));
    let (mut buffer, mut size) = (ptr::null_mut(), 0);
    // SAFETY: the planes have the sizes that the library expects for this width, height and 4:2:0, which `Padded` makes sure
    // of; the buffer is the library's own and is freed below.
    let (done, bytes) = unsafe {
        let pointers = planes.map(<[u8]>::as_ptr);
        let done = raw::tj3CompressFromYUVPlanes8(
            handle.0.as_ptr(),
            pointers.as_ptr(),
            width,
            strides.as_ptr(),
            height,
            &raw mut buffer,
            &raw mut size,
        );
        let bytes = if done == 0 && !buffer.is_null() {
            std::slice::from_raw_parts(buffer, usize::try_from(size).unwrap_or(0)).to_vec()
        } else {
            Vec::new()
        };
        raw::tj3Free(buffer.cast());
        (done, bytes)
    };
    if done == 0 { Ok(bytes) } else { Err(handle.error()) }
}

/// A picture with even luma sides, as the library has 4:2:0.
struct Padded<'a> {
    picture: &'a I420,
    luma: Vec<u8>,
    strides: [usize; 3],
}

impl<'a> Padded<'a> {
    fn new(picture: &'a I420) -> Self {
        let (width, height) = (picture.width() as usize, picture.height() as usize);
        let mut strides = picture.strides();
        let mut luma = Vec::new();
        if !width.is_multiple_of(2) || !height.is_multiple_of(2) {
            strides[0] = width.next_multiple_of(2);
            luma.reserve(strides[0] * height.next_multiple_of(2));
            for row in picture.planes()[0].chunks_exact(width) {
                luma.extend_from_slice(row);
                luma.extend(std::iter::repeat_n(row[width - 1], strides[0] - width));
            }
            if !height.is_multiple_of(2) {
                luma.extend_from_within((height - 1) * strides[0]..);
            }
        }
        Self { picture, luma, strides }
    }

    fn planes(&self) -> [&[u8]; 3] {
        let [luma, cb, cr] = self.picture.planes();
        [if self.luma.is_empty() { luma } else { &self.luma }, cb, cr]
    }
}

/// The smallest scale that leaves at least `least`, as how many stored pixels make one along a side.
fn shrunk(header: &Header, least: Option<[u32; 2]>) -> u32 {
    let Some(least) = least else { return 1 };
    let upright = header.upright();
    let fits = |by: &u32| upright.iter().zip(least).all(|(side, least)| side.div_ceil(*by) >= least);
    SHRUNK.into_iter().find(fits).unwrap_or(1)
}

struct Decoder {
    handle: Handle,
    samples: Vec<u8>,
}

impl Decoder {
    fn new() -> Result<Self, Error> {
        let handle = Handle::new(raw::TJINIT_TJINIT_DECOMPRESS)?;
        handle.set(raw::TJPARAM_TJPARAM_SCANLIMIT, MAX_SCANS);
        Ok(Self { handle, samples: Vec::new() })
    }

    fn decode(&mut self, bytes: &[u8], header: &Header, least: Option<[u32; 2]>) -> Result<Decoded, Error> {
        let by = shrunk(header, least);
        let memory = BASE_MEGABYTES + header.pixels() * BYTES_A_PIXEL / 1_000_000;
        self.handle.set(raw::TJPARAM_TJPARAM_MAXMEMORY, c_int::try_from(memory).unwrap_or(c_int::MAX));
        // SAFETY: the bytes live through the call.
        let read = unsafe { raw::tj3DecompressHeader(self.handle.0.as_ptr(), bytes.as_ptr(), size_of(bytes)) };
        if read != 0 && !self.handle.is_warning() {
            return Err(self.handle.error());
        }
        // What memory was granted for is what is decoded.
        let sides = [raw::TJPARAM_TJPARAM_JPEGWIDTH, raw::TJPARAM_TJPARAM_JPEGHEIGHT].map(|side| self.handle.get(side));
        if sides.map(u32::try_from) != [Ok(header.width), Ok(header.height)] {
            return Err(Error::Broken { kind: KIND, what: "its headers differ in its size" });
        }
        let factor = raw::tjscalingfactor { num: 1, denom: c_int::try_from(by).unwrap_or(1) };
        // SAFETY: a value, not a pointer.
        if unsafe { raw::tj3SetScalingFactor(self.handle.0.as_ptr(), factor) } != 0 {
            return Err(self.handle.error());
        }
        let size = [header.width.div_ceil(by), header.height.div_ceil(by)];
        let picture = match self.handle.get(raw::TJPARAM_TJPARAM_COLORSPACE) {
            YCBCR | GRAY => match sampling(self.handle.get(raw::TJPARAM_TJPARAM_SUBSAMP)) {
                Some(sampling) => self.planar(bytes, size, sampling, header),
                None => self.packed(bytes, size, raw::TJPF_TJPF_RGB, Pixels::Rgb, header),
            },
            CMYK | YCCK => {
                self.packed(bytes, size, raw::TJPF_TJPF_CMYK, Pixels::Cmyk { inverted: header.inverted }, header)
            }
            _ => self.packed(bytes, size, raw::TJPF_TJPF_RGB, Pixels::Rgb, header),
        }?;
        Ok(Decoded { picture, shrunk: by })
    }

    /// Decodes to the planes as they are stored.
    fn planar(
        &mut self,
        bytes: &[u8],
        size: [u32; 2],
        sampling: Option<[usize; 2]>,
        header: &Header,
    ) -> Result<Arc<I420>, Error> {
        let [width, height] = size.map(|side| side as usize);
        let [across, down] = sampling.unwrap_or([1, 1]);
        let luma = [width.next_multiple_of(across), height.next_multiple_of(down)];
        let chroma = if sampling.is_some() { [luma[0] / across, luma[1] / down] } else { [0, 0] };
        let lens = [luma[0] * luma[1], chroma[0] * chroma[1]];
        self.take(lens[0] + 2 * lens[1])?;
        let (first, rest) = self.samples.split_at_mut(lens[0]);
        let (second, third) = rest.split_at_mut(lens[1]);
        let strides = [luma[0], chroma[0], chroma[0]];
        let mut given = strides.map(|stride| c_int::try_from(stride).unwrap_or(0));
        let mut pointers = [first, second, third].map(|plane| plane.as_mut_ptr());
        // SAFETY: each plane has as many rows of its stride as the library writes for this size and sampling: sides are
        // rounded up to whole chroma samples, as `tj3YUVPlaneWidth` and `tj3YUVPlaneHeight` do. Size and sampling are those
        // of the header that the library itself read from these bytes, at the scale that was set.
        let done = unsafe {
            raw::tj3DecompressToYUVPlanes8(
                self.handle.0.as_ptr(),
                bytes.as_ptr(),
                size_of(bytes),
                pointers.as_mut_ptr(),
                given.as_mut_ptr(),
            )
        };
        self.handle.judge(done)?;
        let (first, rest) = self.samples.split_at(lens[0]);
        let (second, third) = rest.split_at(lens[1]);
        Ok(Planar { planes: [first, second, &third[..lens[1]]], strides, size, sampling }.upright(header.orientation))
    }

    /// Decodes to pixels, for what is not stored as luma and chroma.
    fn packed(
        &mut self,
        bytes: &[u8],
        size: [u32; 2],
        format: c_int,
        pixels: Pixels,
        header: &Header,
    ) -> Result<Arc<I420>, Error> {
        let [width, height] = size.map(|side| side as usize);
        let stride = width * pixels.bytes();
        self.take(stride * height)?;
        let pitch = c_int::try_from(stride).map_err(|_| Error::Memory { kind: KIND })?;
        // SAFETY: the buffer has `height` rows of `pitch` bytes, which is what the library writes for the size of the header
        // that it read from these bytes, at the scale that was set.
        let done = unsafe {
            raw::tj3Decompress8(
                self.handle.0.as_ptr(),
                bytes.as_ptr(),
                size_of(bytes),
                self.samples.as_mut_ptr(),
                pitch,
                format,
            )
        };
        self.handle.judge(done)?;
        let mut rows = Rows::new(size[0], size[1], pixels);
        self.samples[..stride * height].chunks_exact(stride).for_each(|row| rows.push(row));
        Ok(rows.finish(header.orientation))
    }

    fn take(&mut self, len: usize) -> Result<(), Error> {
        let more = len.saturating_sub(self.samples.len());
        self.samples.try_reserve_exact(more).map_err(|_| Error::Memory { kind: KIND })?;
        if self.samples.len() < len {
            self.samples.resize(len, 0);
        }
        Ok(())
    }
}

/// Luma samples a chroma sample along each side; none within: there is no chroma; none: it is not one of the usual ones.
fn sampling(code: c_int) -> Option<Option<[usize; 2]>> {
    match code {
        raw::TJSAMP_TJSAMP_444 => Some(Some([1, 1])),
        raw::TJSAMP_TJSAMP_422 => Some(Some([2, 1])),
        raw::TJSAMP_TJSAMP_420 => Some(Some([2, 2])),
        raw::TJSAMP_TJSAMP_440 => Some(Some([1, 2])),
        raw::TJSAMP_TJSAMP_411 => Some(Some([4, 1])),
        raw::TJSAMP_TJSAMP_441 => Some(Some([1, 4])),
        raw::TJSAMP_TJSAMP_GRAY => Some(None),
        _ => None,
    }
}

fn size_of(bytes: &[u8]) -> raw::size_t {
    bytes.len() as raw::size_t
}

/// An instance of the library's, for one thread at a time.
struct Handle(NonNull<std::ffi::c_void>);

impl Handle {
    fn new(kind: raw::TJINIT) -> Result<Self, Error> {
        // SAFETY: one of the library's kinds.
        let handle = unsafe { raw::tj3Init(c_int::try_from(kind).unwrap_or(0)) };
        NonNull::new(handle.cast()).map(Self).ok_or(Error::Memory { kind: KIND })
    }

    fn set(&self, parameter: raw::TJPARAM, value: c_int) {
        // SAFETY: values only; one that is not legal changes nothing.
        unsafe { raw::tj3Set(self.0.as_ptr(), parameter as c_int, value) };
    }

    fn get(&self, parameter: raw::TJPARAM) -> c_int {
        // SAFETY: values only.
        unsafe { raw::tj3Get(self.0.as_ptr(), parameter as c_int) }
    }

    fn is_warning(&self) -> bool {
        // SAFETY: the handle is alive.
        let code = unsafe { raw::tj3GetErrorCode(self.0.as_ptr()) };
        u32::try_from(code) == Ok(raw::TJERR_TJERR_WARNING)
    }

    /// Passes if the picture is whole. Bytes between its segments are of no harm; where entropy-coded data is wrong or ends
    /// early, the library goes on with grey blocks, and that is no picture to look for anything in.
    fn judge(&self, done: c_int) -> Result<(), Error> {
        if done == 0
            || (self.is_warning()
                && self.message(|message| {
                    !message.contains("remature end") && !message.starts_with("Corrupt JPEG data: bad")
                }))
        {
            return Ok(());
        }
        Err(self.error())
    }

    fn error(&self) -> Error {
        self.message(|message| {
            tracing::debug!(message, "a JPEG was refused");
            if message.contains("remature end") {
                Error::Truncated { kind: KIND }
            } else if message.contains("emory") {
                Error::Memory { kind: KIND }
            } else if message.contains("scans") {
                Error::Unsupported { kind: KIND, what: "it has too many scans" }
            } else {
                Error::Broken { kind: KIND, what: "its data cannot be decoded" }
            }
        })
    }

    fn message<T>(&self, read: impl FnOnce(&str) -> T) -> T {
        // SAFETY: the library gives a string that ends, which stays until the handle is used again.
        let message = unsafe { CStr::from_ptr(raw::tj3GetErrorStr(self.0.as_ptr())) };
        read(&message.to_string_lossy())
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: it is not used afterwards.
        unsafe { raw::tj3Destroy(self.0.as_ptr()) };
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;
    use crate::stills::{COLOR, Orientation};

    /// Four plain squares.
    fn squares(width: u32, height: u32) -> (I420, [[u8; 3]; 4]) {
        let colors = [[250, 20, 30], [10, 120, 240], [255, 255, 255], [60, 160, 40]];
        let mut rows = Rows::new(width, height, Pixels::Rgb);
        for y in 0..height {
            let right = |x: u32| usize::from(x >= width / 2) + 2 * usize::from(y >= height / 2);
            rows.push(&(0..width).flat_map(|x| colors[right(x)]).collect::<Vec<_>>());
        }
        (Arc::unwrap_or_clone(rows.finish(Orientation::Upright)), colors)
    }

    fn corner(picture: &I420, index: usize) -> [u8; 3] {
        let (width, height) = (picture.width() as usize, picture.height() as usize);
        let (x, y) = ((1 + 2 * (index % 2)) * width / 4, (1 + 2 * (index / 2)) * height / 4);
        let ([luma, cb, cr], [stride, half, _]) = (picture.planes(), picture.strides());
        COLOR.to_rgb([luma[y * stride + x], cb[y / 2 * half + x / 2], cr[y / 2 * half + x / 2]])
    }

    #[test]
    fn pictures_of_odd_sides_come_back() {
        for (width, height) in [(131, 67), (64, 64), (1, 1), (17, 2)] {
            let (picture, colors) = squares(width, height);
            let bytes = encode(&picture, 95).unwrap();
            let header = Header::read(&bytes).unwrap();
            assert_eq!((header.width, header.height), (width, height));
            let decoded = decode(&bytes, &header, None).unwrap();
            assert_eq!((decoded.picture.width(), decoded.picture.height(), decoded.shrunk), (width, height, 1));
            if width > 50 {
                for (index, rgb) in colors.into_iter().enumerate() {
                    let back = corner(&decoded.picture, index);
                    assert!(rgb.iter().zip(back).all(|(a, b)| a.abs_diff(b) <= 8), "{rgb:?} became {back:?}");
                }
            }
        }
    }

    #[test]
    fn a_picture_is_shrunk_as_far_as_its_upright_sides_allow() {
        let (picture, colors) = squares(1_003, 501);
        let bytes = encode(&picture, 95).unwrap();
        let header = Header::read(&bytes).unwrap();
        for (least, shrunk, size) in [
            ([126, 63], 8, (126, 63)),
            ([127, 63], 4, (251, 126)),
            ([300, 200], 2, (502, 251)),
            ([600, 10], 1, (1_003, 501)),
            ([5_000, 5_000], 1, (1_003, 501)),
        ] {
            let decoded = decode(&bytes, &header, Some(least)).unwrap();
            assert_eq!((decoded.shrunk, (decoded.picture.width(), decoded.picture.height())), (shrunk, size));
            for (index, rgb) in colors.into_iter().enumerate() {
                let back = corner(&decoded.picture, index);
                assert!(rgb.iter().zip(back).all(|(a, b)| a.abs_diff(b) <= 10), "{least:?}: {rgb:?} became {back:?}");
            }
        }
        let turned = Header { orientation: Orientation::Clockwise90, ..header };
        let decoded = decode(&bytes, &turned, Some([63, 126])).unwrap();
        assert_eq!((decoded.shrunk, decoded.picture.width(), decoded.picture.height()), (8, 63, 126));
        let back = corner(&decoded.picture, 1);
        assert!(back.iter().zip(colors[0]).all(|(a, b)| a.abs_diff(b) <= 10), "the top left became {back:?}");
    }

    #[test]
    fn what_is_cut_off_or_damaged_is_refused() {
        let (picture, _) = squares(320, 240);
        let bytes = encode(&picture, 90).unwrap();
        let header = Header::read(&bytes).unwrap();
        for len in [bytes.len() / 2, bytes.len() * 3 / 4, bytes.len() - 20] {
            assert_eq!(decode(&bytes[..len], &header, None), Err(Error::Truncated { kind: KIND }), "{len} bytes");
        }
        // Behind its end there may be anything.
        let more = [&bytes[..], &[7; 100]].concat();
        assert!(decode(&more, &header, None).is_ok());
        let other = Header { width: 16, ..header };
        assert!(matches!(decode(&bytes, &other, None), Err(Error::Broken { .. })));
    }
}

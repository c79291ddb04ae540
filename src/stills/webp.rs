//! WebP, by a decoder in Rust alone.

use std::io::Cursor;

use image_webp::{DecodingError, WebPDecoder};

use super::planes::{Pixels, Rows};
use super::{Decoded, Error, Header, Kind};

const KIND: Kind = Kind::Webp;
/// Bytes that the decoder may take besides the pixels.
const BASE_BYTES: u64 = 4 << 20;
/// Bytes of a pixel at most that it takes at a time.
const PIXEL_BYTES: u64 = 16;

/// See [`super::decode`]. Of an animation, the first picture.
pub(super) fn decode(bytes: &[u8], header: &Header) -> Result<Decoded, Error> {
    let mut decoder = WebPDecoder::new(Cursor::new(bytes)).map_err(|error| refused(&error))?;
    let limit = BASE_BYTES + header.pixels() * PIXEL_BYTES;
    decoder.set_memory_limit(usize::try_from(limit).unwrap_or(usize::MAX));
    if decoder.dimensions() != (header.width, header.height) {
        return Err(Error::Broken { kind: KIND, what: "its headers differ in its size" });
    }
    let pixels = if decoder.has_alpha() { Pixels::Rgba } else { Pixels::Rgb };
    let size = decoder.output_buffer_size().ok_or(Error::Memory { kind: KIND })?;
    let mut buffer = Vec::new();
    buffer.try_reserve_exact(size).map_err(|_| Error::Memory { kind: KIND })?;
    buffer.resize(size, 0);
    if decoder.is_animated() {
        decoder.read_frame(&mut buffer).map_err(|error| refused(&error))?;
    } else {
        decoder.read_image(&mut buffer).map_err(|error| refused(&error))?;
    }
    let mut rows = Rows::new(header.width, header.height, pixels);
    buffer.chunks_exact(header.width as usize * pixels.bytes()).for_each(|row| rows.push(row));
    Ok(Decoded { picture: rows.finish(header.orientation), shrunk: 1 })
}

fn refused(error: &DecodingError) -> Error {
    tracing::debug!(%error, "a WebP was refused");
    match error {
        DecodingError::IoError(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
            Error::Truncated { kind: KIND }
        }
        DecodingError::MemoryLimitExceeded => Error::Memory { kind: KIND },
        _ => Error::Broken { kind: KIND, what: "its data cannot be decoded" },
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;
    use crate::stills::COLOR;

    #[test]
    fn lossless_pictures_come_back_and_damaged_ones_are_refused() {
        for (color, pixel, expected) in [
            (image_webp::ColorType::Rgb8, &[200, 40, 60][..], [200, 40, 60]),
            (image_webp::ColorType::Rgba8, &[200, 40, 60, 0], [255, 255, 255]),
        ] {
            let mut bytes = Vec::new();
            image_webp::WebPEncoder::new(&mut bytes).encode(&pixel.repeat(35), 7, 5, color).unwrap();
            let header = Header::read(&bytes).unwrap();
            assert_eq!((header.kind, header.width, header.height), (KIND, 7, 5));
            let picture = decode(&bytes, &header).unwrap().picture;
            let [luma, cb, cr] = picture.planes();
            let back = COLOR.to_rgb([luma[0], cb[0], cr[0]]);
            assert!(back.iter().zip(expected).all(|(a, b)| a.abs_diff(b) <= 3), "{color:?}: {back:?}");
            for len in 12..bytes.len() - 2 {
                let cut = &bytes[..len];
                assert!(Header::read(cut).and_then(|header| decode(cut, &header)).is_err(), "{len} bytes");
            }
        }
    }
}

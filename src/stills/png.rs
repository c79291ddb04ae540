//! PNG: rows go from the decoder straight to planes, unless the picture is interlaced.

use std::io::{Cursor, ErrorKind};

use ::png::{BitDepth, ColorType, Decoder, DecodingError, Limits, Transformations};

use super::planes::{Pixels, Rows};
use super::{Decoded, Error, Header, Kind};

const KIND: Kind = Kind::Png;
/// Bytes that the decoder may take besides the pixels.
const BASE_BYTES: u64 = 4 << 20;
/// Bytes of a pixel at most, as it is stored.
const PIXEL_BYTES: u64 = 8;

/// See [`super::decode`]. Of an animation, the picture that programs without animations show.
pub(super) fn decode(bytes: &[u8], header: &Header) -> Result<Decoded, Error> {
    let limit = BASE_BYTES + header.pixels() * PIXEL_BYTES;
    let limits = Limits { bytes: usize::try_from(limit).unwrap_or(usize::MAX) };
    let mut decoder = Decoder::new_with_limits(Cursor::new(bytes), limits);
    decoder.set_transformations(Transformations::normalize_to_color8());
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    let mut reader = decoder.read_info().map_err(|error| refused(&error))?;
    if (reader.info().width, reader.info().height) != (header.width, header.height) {
        return Err(Error::Broken { kind: KIND, what: "its headers differ in its size" });
    }
    let pixels = match reader.output_color_type() {
        (ColorType::Grayscale, BitDepth::Eight) => Pixels::Gray,
        (ColorType::GrayscaleAlpha, BitDepth::Eight) => Pixels::GrayAlpha,
        (ColorType::Rgb, BitDepth::Eight) => Pixels::Rgb,
        (ColorType::Rgba, BitDepth::Eight) => Pixels::Rgba,
        _ => return Err(Error::Unsupported { kind: KIND, what: "its pixels are of an unknown type" }),
    };
    let mut rows = Rows::new(header.width, header.height, pixels);
    let stride = header.width as usize * pixels.bytes();
    if reader.info().interlaced {
        let size = reader.output_buffer_size().ok_or(Error::Memory { kind: KIND })?;
        let mut buffer = Vec::new();
        buffer.try_reserve_exact(size).map_err(|_| Error::Memory { kind: KIND })?;
        buffer.resize(size, 0);
        reader.next_frame(&mut buffer).map_err(|error| refused(&error))?;
        buffer.chunks_exact(stride).take(header.height as usize).for_each(|row| rows.push(row));
    } else {
        for _ in 0..header.height {
            let row = reader.next_row().map_err(|error| refused(&error))?.ok_or(Error::Truncated { kind: KIND })?;
            let row = row.data().get(..stride).ok_or(Error::Broken { kind: KIND, what: "a row is too short" })?;
            rows.push(row);
        }
    }
    Ok(Decoded { picture: rows.finish(header.orientation), shrunk: 1 })
}

fn refused(error: &DecodingError) -> Error {
    tracing::debug!(%error, "a PNG was refused");
    match error {
        DecodingError::IoError(error) if error.kind() == ErrorKind::UnexpectedEof => Error::Truncated { kind: KIND },
        DecodingError::LimitsExceeded => Error::Memory { kind: KIND },
        _ => Error::Broken { kind: KIND, what: "its data cannot be decoded" },
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;
    use crate::stills::COLOR;

    fn encode(color: ColorType, depth: BitDepth, data: &[u8], palette: Option<&[u8]>) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = ::png::Encoder::new(&mut bytes, 6, 5);
        encoder.set_color(color);
        encoder.set_depth(depth);
        if let Some(palette) = palette {
            encoder.set_palette(palette.to_vec());
        }
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(data).unwrap();
        writer.finish().unwrap();
        bytes
    }

    fn center(bytes: &[u8]) -> Result<[u8; 3], Error> {
        let header = Header::read(bytes)?;
        let picture = super::decode(bytes, &header)?.picture;
        assert_eq!((picture.width(), picture.height()), (6, 5));
        let [luma, cb, cr] = picture.planes();
        Ok(COLOR.to_rgb([luma[2 * 6 + 2], cb[3 + 1], cr[3 + 1]]))
    }

    #[test]
    fn every_type_of_pixel_is_read() {
        for (color, depth, row, palette, expected) in [
            (ColorType::Rgb, BitDepth::Eight, [200, 40, 60].repeat(6), None, [200, 40, 60]),
            (ColorType::Rgb, BitDepth::Sixteen, [200, 1, 40, 2, 60, 3].repeat(6), None, [200, 40, 60]),
            (ColorType::Rgba, BitDepth::Eight, [200, 40, 60, 0].repeat(6), None, [255, 255, 255]),
            (ColorType::Grayscale, BitDepth::One, vec![0xff], None, [255, 255, 255]),
            (ColorType::Grayscale, BitDepth::Sixteen, [99, 7].repeat(6), None, [99, 99, 99]),
            (ColorType::GrayscaleAlpha, BitDepth::Eight, [99, 255].repeat(6), None, [99, 99, 99]),
            (ColorType::Indexed, BitDepth::Two, vec![0x55, 0x50], Some(&[0, 0, 0, 10, 200, 30][..]), [10, 200, 30]),
        ] {
            let back = center(&encode(color, depth, &row.repeat(5), palette)).unwrap();
            assert!(back.iter().zip(expected).all(|(a, b)| a.abs_diff(b) <= 3), "{color:?} {depth:?}: {back:?}");
        }
    }

    #[test]
    fn what_is_cut_off_or_damaged_is_refused() {
        let bytes = encode(ColorType::Rgb, BitDepth::Eight, &(0..90).collect::<Vec<u8>>(), None);
        for len in 34..bytes.len() - 32 {
            assert!(
                matches!(center(&bytes[..len]), Err(Error::Truncated { .. } | Error::Broken { .. })),
                "{len} bytes"
            );
        }
        let mut wrong = bytes.clone();
        let at = bytes.len() - 60;
        wrong[at] ^= 0x55;
        assert!(center(&wrong).is_err());
    }
}

//! Still pictures: their headers, and all that comes out of decoding them.

use saccade::stills::{Error, Header, Kind, decode, encode_jpeg};

/// Pixels that are decoded at most.
const MAX_PIXELS: u64 = 1 << 20;
/// The smallest side that a shrunk picture may have.
const LEAST: [u32; 2] = [16, 12];

/// What a header promises is what comes out, or an error does.
pub(crate) fn picture(data: &[u8]) {
    let header = match Header::read(data) {
        Ok(header) => header,
        Err(error) => return assert_eq!(error == Error::Unknown, Kind::of(data).is_none(), "{error}"),
    };
    assert_eq!(Kind::of(data), Some(header.kind));
    assert!(header.width > 0 && header.height > 0);
    if header.pixels() > MAX_PIXELS {
        return;
    }
    let [width, height] = header.upright();
    for least in [None, Some(LEAST)] {
        let Ok(decoded) = decode(data, &header, least) else { continue };
        assert!(matches!(decoded.shrunk, 1 | 2 | 4 | 8) && (least.is_some() || decoded.shrunk == 1));
        let size = [decoded.picture.width(), decoded.picture.height()];
        assert_eq!(size, [width, height].map(|side| side.div_ceil(decoded.shrunk)));
        assert!(decoded.shrunk == 1 || size.iter().zip(LEAST).all(|(side, least)| *side >= least));
    }
}

/// Small pictures of every kind.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut picture = saccade::media::I420::new(33, 21);
    for (at, sample) in picture.planes_mut()[0].iter_mut().enumerate() {
        *sample = (at * 7 % 251) as u8;
    }
    let jpeg = encode_jpeg(&picture, 80).unwrap();
    // Turned by EXIF, which comes behind the first marker.
    let mut exif = b"\xff\xe1\0\x22Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0".to_vec();
    exif.extend([0; 4]);
    let turned = [&jpeg[..2], &exif, &jpeg[2..]].concat();
    let mut seeds = vec![jpeg, turned];
    let pixels: Vec<u8> = (0..33 * 21 * 4).map(|at| (at * 5 % 253) as u8).collect();
    for (color, depth, bytes) in [
        (png::ColorType::Rgba, png::BitDepth::Eight, 33 * 21 * 4),
        (png::ColorType::Rgb, png::BitDepth::Eight, 33 * 21 * 3),
        (png::ColorType::Grayscale, png::BitDepth::One, 5 * 21),
        (png::ColorType::GrayscaleAlpha, png::BitDepth::Sixteen, 33 * 21 * 4),
    ] {
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, 33, 21);
        encoder.set_color(color);
        encoder.set_depth(depth);
        encoder.write_header().unwrap().write_image_data(&pixels[..bytes]).unwrap();
        seeds.push(file);
    }
    for (color, bytes) in [(image_webp::ColorType::Rgb8, 3), (image_webp::ColorType::Rgba8, 4)] {
        let mut file = Vec::new();
        let encoder = image_webp::WebPEncoder::new(&mut file);
        encoder.encode(&pixels[..33 * 21 * bytes], 33, 21, color).unwrap();
        seeds.push(file);
    }
    seeds
}

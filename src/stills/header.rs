//! What the first bytes of a picture say of it, read before any memory for pixels is taken. Pure.

use super::exif;
use super::orientation::Orientation;
use super::{Error, Kind};

/// What a picture's header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Its format, by its bytes.
    pub kind: Kind,
    /// Width in pixels as it is stored.
    pub width: u32,
    /// Height in pixels as it is stored.
    pub height: u32,
    /// How it is to be turned.
    pub orientation: Orientation,
    /// Of a JPEG: whether all of its coefficients are held in memory while it is decoded.
    pub progressive: bool,
    /// Of a JPEG with four components: whether its inks are stored inverted, as Adobe's programs do.
    pub inverted: bool,
}

impl Header {
    /// Reads the header of a JPEG (ITU-T T.81), PNG (W3C, third edition) or WebP (RFC 9649).
    ///
    /// # Errors
    /// [`Error::Unknown`], [`Error::Truncated`], [`Error::Broken`], [`Error::Unsupported`].
    pub fn read(bytes: &[u8]) -> Result<Self, Error> {
        let kind = Kind::of(bytes).ok_or(Error::Unknown)?;
        let header = match kind {
            Kind::Jpeg => jpeg(bytes),
            Kind::Png => png(bytes),
            Kind::Webp => webp(bytes),
        }?;
        if header.width == 0 || header.height == 0 {
            return Err(Error::Broken { kind, what: "it has no size" });
        }
        Ok(header)
    }

    /// Width and height of the upright picture.
    #[must_use]
    pub const fn upright(&self) -> [u32; 2] {
        self.orientation.apply(self.width, self.height)
    }

    /// Pixels of the picture.
    #[must_use]
    pub const fn pixels(&self) -> u64 {
        self.width as u64 * self.height as u64
    }
}

impl Kind {
    /// The format that these bytes begin as.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Option<Self> {
        if bytes.starts_with(&[0xff, 0xd8, 0xff]) {
            Some(Self::Jpeg)
        } else if bytes.starts_with(PNG_SIGNATURE) {
            Some(Self::Png)
        } else if bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
            Some(Self::Webp)
        } else {
            None
        }
    }
}

const PNG_SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

/// Bytes from a place on; what is beyond the end is missing.
struct Bytes<'a>(&'a [u8], Kind);

impl<'a> Bytes<'a> {
    fn get(&self, at: usize, len: usize) -> Result<&'a [u8], Error> {
        let end = at.checked_add(len).ok_or(Error::Truncated { kind: self.1 })?;
        self.0.get(at..end).ok_or(Error::Truncated { kind: self.1 })
    }

    fn byte(&self, at: usize) -> Result<u8, Error> {
        Ok(self.get(at, 1)?[0])
    }

    fn be16(&self, at: usize) -> Result<u32, Error> {
        let bytes = self.get(at, 2)?;
        Ok(u32::from(u16::from_be_bytes([bytes[0], bytes[1]])))
    }

    fn be32(&self, at: usize) -> Result<u32, Error> {
        let bytes = self.get(at, 4)?;
        Ok(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    fn le16(&self, at: usize) -> Result<u32, Error> {
        let bytes = self.get(at, 2)?;
        Ok(u32::from(u16::from_le_bytes([bytes[0], bytes[1]])))
    }

    fn le24(&self, at: usize) -> Result<u32, Error> {
        let bytes = self.get(at, 3)?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], 0]))
    }

    fn le32(&self, at: usize) -> Result<u32, Error> {
        let bytes = self.get(at, 4)?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }
}

/// Walks the segments up to the frame header.
fn jpeg(bytes: &[u8]) -> Result<Header, Error> {
    let kind = Kind::Jpeg;
    let unsupported = |what| Err(Error::Unsupported { kind, what });
    let bytes = Bytes(bytes, kind);
    let (mut at, mut orientation, mut adobe) = (2, Orientation::default(), false);
    loop {
        // What is between segments is skipped, as decoders do, and so are fill bytes.
        while bytes.byte(at)? != 0xff {
            at += 1;
        }
        while bytes.byte(at)? == 0xff {
            at += 1;
        }
        let marker = bytes.byte(at)?;
        at += 1;
        match marker {
            // No segment follows: a stuffed byte, TEM, RSTn, SOI.
            0x00 | 0x01 | 0xd0..=0xd8 => continue,
            0xd9 | 0xda => return Err(Error::Broken { kind, what: "it has no frame header" }),
            _ => {}
        }
        let len = bytes.be16(at)? as usize;
        if len < 2 {
            return Err(Error::Broken { kind, what: "a segment has no length" });
        }
        match marker {
            0xc0..=0xc2 | 0xc9 | 0xca => {
                if bytes.byte(at + 2)? != 8 {
                    return unsupported("it has more than 8 bits a sample");
                }
                let (height, width) = (bytes.be16(at + 3)?, bytes.be16(at + 5)?);
                if height == 0 {
                    return unsupported("its height comes after its pixels");
                }
                let components = bytes.byte(at + 7)?;
                if !matches!(components, 1 | 3 | 4) {
                    return unsupported("it has neither 1, 3 nor 4 components");
                }
                let progressive = matches!(marker, 0xc2 | 0xca);
                return Ok(Header { kind, width, height, orientation, progressive, inverted: adobe });
            }
            0xc3 | 0xc5..=0xc7 | 0xcb | 0xcd..=0xcf => return unsupported("it is lossless or hierarchical"),
            0xe1 => {
                if let Some(exif) = bytes.get(at + 2, len - 2)?.strip_prefix(b"Exif\0\0") {
                    orientation = exif::orientation(exif);
                }
            }
            0xee => adobe |= bytes.get(at + 2, len - 2)?.starts_with(b"Adobe"),
            _ => {}
        }
        at += len;
    }
}

/// Walks the chunks up to the pixels.
fn png(bytes: &[u8]) -> Result<Header, Error> {
    let kind = Kind::Png;
    let bytes = Bytes(bytes, kind);
    if bytes.be32(8)? != 13 || bytes.get(12, 4)? != b"IHDR" {
        return Err(Error::Broken { kind, what: "it does not begin with its header" });
    }
    let (width, height) = (bytes.be32(16)?, bytes.be32(20)?);
    let (mut at, mut orientation) = (33, Orientation::default());
    // A picture that is cut off here still has a size; decoding says what is missing.
    while let (Ok(len), Ok(name)) = (bytes.be32(at), bytes.get(at + 4, 4)) {
        if name == b"IDAT" {
            break;
        }
        if name == b"eXIf"
            && let Ok(exif) = bytes.get(at + 8, len as usize)
        {
            orientation = exif::orientation(exif);
        }
        at = at.saturating_add(len as usize).saturating_add(12);
    }
    Ok(Header { kind, width, height, orientation, progressive: false, inverted: false })
}

/// Reads the first chunk, and looks for the one with EXIF behind the pixels.
fn webp(bytes: &[u8]) -> Result<Header, Error> {
    let kind = Kind::Webp;
    let bytes = Bytes(bytes, kind);
    let mut orientation = Orientation::default();
    let (width, height) = match bytes.get(12, 4)? {
        b"VP8 " => lossy(&bytes, 20)?,
        b"VP8L" => lossless(&bytes, 20)?,
        b"VP8X" => {
            let (width, height) = (bytes.le24(24)? + 1, bytes.le24(27)? + 1);
            let (is_animated, has_exif) = (bytes.byte(20)? & 0x02 != 0, bytes.byte(20)? & 0x08 != 0);
            let mut at = 30;
            while let (Ok(name), Ok(len)) = (bytes.get(at, 4), bytes.le32(at + 4)) {
                let inner = match name {
                    b"VP8 " => Some(lossy(&bytes, at + 8)?),
                    b"VP8L" => Some(lossless(&bytes, at + 8)?),
                    _ => None,
                };
                if inner.is_some_and(|inner| inner != (width, height)) && !is_animated {
                    return Err(Error::Broken { kind, what: "its headers differ in its size" });
                }
                if name == b"EXIF"
                    && has_exif
                    && let Ok(exif) = bytes.get(at + 8, len as usize)
                {
                    orientation = exif::orientation(exif.strip_prefix(b"Exif\0\0").unwrap_or(exif));
                }
                // Chunks have an even length.
                at = at.saturating_add(len as usize).saturating_add(8 + (len & 1) as usize);
            }
            (width, height)
        }
        _ => return Err(Error::Broken { kind, what: "its first chunk is not known" }),
    };
    Ok(Header { kind, width, height, orientation, progressive: false, inverted: false })
}

/// The frame header of VP8 (RFC 6386 section 9.1).
fn lossy(bytes: &Bytes<'_>, at: usize) -> Result<(u32, u32), Error> {
    if bytes.get(at + 3, 3)? != [0x9d, 0x01, 0x2a] {
        return Err(Error::Broken { kind: Kind::Webp, what: "its pixels do not begin with a keyframe" });
    }
    Ok((bytes.le16(at + 6)? & 0x3fff, bytes.le16(at + 8)? & 0x3fff))
}

/// The header of VP8L (RFC 9649 section 3.4).
fn lossless(bytes: &Bytes<'_>, at: usize) -> Result<(u32, u32), Error> {
    if bytes.byte(at)? != 0x2f {
        return Err(Error::Broken { kind: Kind::Webp, what: "its lossless pixels have no signature" });
    }
    let bits = bytes.le32(at + 1)?;
    Ok(((bits & 0x3fff) + 1, (bits >> 14 & 0x3fff) + 1))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    /// A JPEG up to its frame header, with these segments before it.
    fn jpeg_with(segments: &[(u8, &[u8])], frame: u8, width: u16, height: u16) -> Vec<u8> {
        let mut bytes = vec![0xff, 0xd8];
        for (marker, data) in segments {
            bytes.extend([0xff, *marker]);
            bytes.extend(u16::try_from(data.len() + 2).unwrap().to_be_bytes());
            bytes.extend(*data);
        }
        bytes.extend([0xff, 0xff, frame, 0, 17, 8]);
        bytes.extend(height.to_be_bytes());
        bytes.extend(width.to_be_bytes());
        bytes.extend([3, 1, 0x22, 0, 2, 0x11, 1, 3, 0x11, 1]);
        bytes
    }

    /// EXIF with a single entry.
    fn exif(orientation: u8) -> Vec<u8> {
        let mut bytes = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
        bytes.extend([orientation, 0, 0, 0, 0, 0, 0]);
        bytes
    }

    #[test]
    fn jpegs_tell_their_size_and_how_they_stand() {
        let exif = [b"Exif\0\0".to_vec(), exif(6)].concat();
        let header = Header::read(&jpeg_with(&[(0xe0, b"JFIF\0"), (0xe1, &exif)], 0xc2, 640, 480)).unwrap();
        assert_eq!((header.width, header.height, header.progressive), (640, 480, true));
        assert_eq!(header.upright(), [480, 640]);
        let plain = Header::read(&jpeg_with(&[], 0xc0, 640, 480)).unwrap();
        assert_eq!((plain.upright(), plain.progressive, plain.inverted), ([640, 480], false, false));
        assert!(Header::read(&jpeg_with(&[(0xee, b"Adobe\0\x64\0\0\0\0\x02")], 0xc0, 1, 1)).unwrap().inverted);
    }

    #[test]
    fn jpegs_that_cannot_be_decoded_say_why() {
        let kind = Kind::Jpeg;
        for frame in [0xc3, 0xc5, 0xcb, 0xcf] {
            let error = Header::read(&jpeg_with(&[], frame, 640, 480)).unwrap_err();
            assert_eq!(error, Error::Unsupported { kind, what: "it is lossless or hierarchical" });
        }
        assert!(matches!(Header::read(&jpeg_with(&[], 0xc0, 640, 0)), Err(Error::Unsupported { .. })));
        assert_eq!(Header::read(&jpeg_with(&[], 0xc0, 0, 9)), Err(Error::Broken { kind, what: "it has no size" }));
        let whole = jpeg_with(&[(0xe0, b"JFIF\0")], 0xc0, 640, 480);
        for len in 3..whole.len() - 9 {
            assert_eq!(Header::read(&whole[..len]), Err(Error::Truncated { kind }), "{len} bytes");
        }
        assert_eq!(Header::read(b"GIF89a"), Err(Error::Unknown));
    }

    #[test]
    fn pngs_tell_their_size_and_how_they_stand() {
        let chunk = |name: &[u8], data: &[u8]| {
            [&u32::try_from(data.len()).unwrap().to_be_bytes(), name, data, &[0; 4]].concat()
        };
        let size = [0, 1, 0x86, 0xa0, 0, 0, 0, 2, 8, 2, 0, 0, 0];
        let parts = [PNG_SIGNATURE.to_vec(), chunk(b"IHDR", &size), chunk(b"eXIf", &exif(8)), chunk(b"IDAT", &[])];
        let header = Header::read(&parts.concat()).unwrap();
        assert_eq!((header.width, header.height, header.upright()), (100_000, 2, [2, 100_000]));
        assert_eq!(Header::read(&parts[..2].concat()).unwrap().upright(), [100_000, 2]);
        assert!(matches!(Header::read(&parts.concat()[..20]), Err(Error::Truncated { .. })));
    }

    #[test]
    fn webps_tell_their_size_and_how_they_stand() {
        let chunk = |name: &[u8], data: &[u8]| {
            let pad = vec![0; data.len() % 2];
            [name, &u32::try_from(data.len()).unwrap().to_le_bytes(), data, &pad].concat()
        };
        let file = |chunks: &[Vec<u8>]| [b"RIFF\0\0\0\0WEBP".to_vec(), chunks.concat()].concat();
        let lossy = chunk(b"VP8 ", &[0x30, 1, 0, 0x9d, 1, 0x2a, 0x80, 0x42, 0xe0, 1]);
        let header = Header::read(&file(std::slice::from_ref(&lossy))).unwrap();
        assert_eq!((header.width, header.height), (640, 480));
        let lossless = chunk(b"VP8L", &[0x2f, 0x7f, 0xc2, 0x77, 0]);
        assert_eq!(Header::read(&file(&[lossless])).unwrap().upright(), [640, 480]);
        let canvas = |width: u8| chunk(b"VP8X", &[8, 0, 0, 0, 0x7f, width, 0, 0xdf, 1, 0]);
        let header = Header::read(&file(&[canvas(2), lossy.clone(), chunk(b"EXIF", &exif(5))])).unwrap();
        assert_eq!((header.width, header.height, header.upright()), (640, 480, [480, 640]));
        let error = Header::read(&file(&[canvas(3), lossy])).unwrap_err();
        assert_eq!(error, Error::Broken { kind: Kind::Webp, what: "its headers differ in its size" });
    }
}

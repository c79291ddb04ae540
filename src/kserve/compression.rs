//! Compressed bodies (RFC 9110 section 8.4.1): `gzip` and `deflate`, which is a zlib stream.

use std::io::{self, Read, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::{GzDecoder, ZlibDecoder};
use flate2::write::{GzEncoder, ZlibEncoder};

use super::error::Error;

/// What a body is compressed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// RFC 1952.
    Gzip,
    /// RFC 1950.
    Deflate,
}

impl Encoding {
    /// The encoding that a `Content-Encoding` names; none for one that changes nothing.
    ///
    /// # Errors
    /// [`Error::Unsupported`].
    pub fn named(name: &str) -> Result<Option<Self>, Error> {
        match name.trim().to_ascii_lowercase().as_str() {
            "" | "identity" => Ok(None),
            "gzip" | "x-gzip" => Ok(Some(Self::Gzip)),
            "deflate" => Ok(Some(Self::Deflate)),
            other => Err(Error::Unsupported { what: format!("`Content-Encoding: {other}`") }),
        }
    }

    /// The encoding to answer with, by an `Accept-Encoding` that names no other: whoever lists several takes none, too, and
    /// tensors are hardly worth it.
    #[must_use]
    pub fn asked(accepted: &str) -> Option<Self> {
        Self::named(accepted).ok().flatten()
    }

    /// Its name in headers.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        }
    }

    /// What a body was before it was compressed. No more than `limit` bytes are ever made of it.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::Malformed`].
    pub fn inflate(self, body: &[u8], limit: usize) -> Result<Bytes, Error> {
        let bound = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
        let mut out = Vec::new();
        let read = match self {
            Self::Gzip => GzDecoder::new(body).take(bound).read_to_end(&mut out),
            Self::Deflate => ZlibDecoder::new(body).take(bound).read_to_end(&mut out),
        };
        read.map_err(|error| Error::malformed(format!("the body is no {}: {error}", self.name())))?;
        if out.len() > limit {
            return Err(Error::TooLarge { what: "the body, once it is not compressed,", limit });
        }
        Ok(Bytes::from(out))
    }

    /// A body, compressed fast rather than well.
    ///
    /// # Errors
    /// None, as memory is written to.
    pub fn deflate(self, body: &[u8]) -> io::Result<Bytes> {
        let out = match self {
            Self::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
                encoder.write_all(body)?;
                encoder.finish()?
            }
            Self::Deflate => {
                let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
                encoder.write_all(body)?;
                encoder.finish()?
            }
        };
        Ok(Bytes::from(out))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn bodies_come_back_and_bombs_do_not() {
        let body = vec![0; 1 << 20];
        for encoding in [Encoding::Gzip, Encoding::Deflate] {
            let small = encoding.deflate(&body).unwrap();
            assert!(small.len() < 16 * 1024);
            assert_eq!(encoding.inflate(&small, body.len()).unwrap(), body);
            let error = encoding.inflate(&small, body.len() - 1).unwrap_err();
            assert!(matches!(error, Error::TooLarge { .. }), "{error}");
            assert!(matches!(encoding.inflate(b"not compressed", 100), Err(Error::Malformed { .. })));
            assert!(matches!(encoding.inflate(&small[..small.len() / 2], 1 << 21), Err(Error::Malformed { .. })));
            assert_eq!(Encoding::named(encoding.name()), Ok(Some(encoding)));
        }
        assert!(Encoding::named("br").is_err());
        assert_eq!(Encoding::asked("gzip, deflate, br"), None);
        assert_eq!(Encoding::asked("gzip"), Some(Encoding::Gzip));
    }
}

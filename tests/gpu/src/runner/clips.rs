//! Encoded video in files of one access unit after the other: IVF, which has a length and a time before each.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::{BufMut as _, Bytes, BytesMut};
use saccade::decode::nvdec::Codec;
use saccade::media;

use super::Stop;

/// Video with its units in the order of decoding.
#[derive(Debug, Clone)]
pub struct Clip {
    pub name: String,
    pub codec: Codec,
    pub units: Vec<Unit>,
    /// Width and height that the file states, in pixels.
    pub size: [u32; 2],
}

/// One compressed picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    pub data: Bytes,
    pub keyframe: bool,
    /// Number of the picture in the order of showing, which stands for its time.
    pub time: u64,
}

const SIGNATURE: &[u8; 4] = b"DKIF";
const HEADER: u16 = 32;
const UNIT_HEADER: usize = 12;

impl Clip {
    /// Reads a file.
    ///
    /// # Errors
    /// [`Stop::Failed`] with its name.
    pub fn read(path: &Path) -> Result<Self, Stop> {
        let failed = |reason: &str| Stop::Failed(format!("{}: {reason}", path.display()));
        let bytes = Bytes::from(fs::read(path).map_err(|error| failed(&error.to_string()))?);
        let name = path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        parse(name, &bytes).ok_or_else(|| failed("no IVF file of a codec that is known here"))
    }

    /// All clips of a folder, by name.
    ///
    /// # Errors
    /// As [`Clip::read`], and where there are none.
    pub fn read_all(folder: &Path) -> Result<Vec<Self>, Stop> {
        let failed = |reason: String| Stop::Failed(format!("{}: {reason}", folder.display()));
        let entries = fs::read_dir(folder).map_err(|error| failed(error.to_string()))?;
        let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        files.retain(|path| path.extension().is_some_and(|extension| extension == "ivf"));
        files.sort();
        if files.is_empty() {
            return Err(failed("no clips (*.ivf); `saccade-gpu clips` makes them".to_owned()));
        }
        files.iter().map(|path| Self::read(path)).collect()
    }

    /// Writes it as `NAME.ivf`.
    ///
    /// # Errors
    /// [`Stop::Failed`].
    pub fn write(&self, folder: &Path) -> Result<(), Stop> {
        let path = folder.join(format!("{}.ivf", self.name));
        fs::write(&path, self.to_bytes()).map_err(|error| Stop::Failed(format!("{}: {error}", path.display())))
    }

    fn to_bytes(&self) -> Bytes {
        let mut bytes = BytesMut::new();
        bytes.put_slice(SIGNATURE);
        bytes.put_u16_le(0);
        bytes.put_u16_le(HEADER);
        bytes.put_slice(fourcc(self.codec));
        self.size.iter().for_each(|side| bytes.put_u16_le(u16::try_from(*side).unwrap_or(u16::MAX)));
        // Thirty pictures a second.
        [30, 1, u32::try_from(self.units.len()).unwrap_or(u32::MAX), 0].iter().for_each(|word| bytes.put_u32_le(*word));
        for unit in &self.units {
            bytes.put_u32_le(u32::try_from(unit.data.len()).unwrap_or(u32::MAX));
            bytes.put_u64_le(unit.time);
            bytes.put_slice(&unit.data);
        }
        bytes.freeze()
    }

    /// Whether it shows pictures in the order in which they are decoded.
    pub fn is_in_order(&self) -> bool {
        self.units.windows(2).all(|pair| pair[0].time < pair[1].time)
    }

    /// The codec as sessions negotiate it, if they do.
    pub const fn negotiated(&self) -> Option<media::Codec> {
        match self.codec {
            Codec::H264 => Some(media::Codec::H264),
            Codec::Vp8 => Some(media::Codec::Vp8),
            Codec::Vp9 => Some(media::Codec::Vp9),
            Codec::Hevc | Codec::Av1 => None,
        }
    }

    /// This one and then others, as one stream.
    pub fn then<'a>(&self, others: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut whole = self.clone();
        for other in others {
            let start = whole.units.iter().map(|unit| unit.time + 1).max().unwrap_or(0);
            whole.units.extend(other.units.iter().map(|unit| Unit { time: unit.time + start, ..unit.clone() }));
        }
        whole
    }

    /// Its first units.
    pub fn first(&self, units: usize) -> Self {
        Self { units: self.units.iter().take(units).cloned().collect(), ..self.clone() }
    }
}

fn parse(name: String, bytes: &Bytes) -> Option<Clip> {
    let header = bytes.get(..HEADER.into()).filter(|header| header.starts_with(SIGNATURE))?;
    let codec = Codec::ALL.into_iter().find(|codec| &header[8..12] == fourcc(*codec))?;
    let side = |at: usize| u32::from(u16::from_le_bytes([header[at], header[at + 1]]));
    let (size, mut units, mut at) = ([side(12), side(14)], Vec::new(), usize::from(HEADER));
    while at < bytes.len() {
        let header = bytes.get(at..at + UNIT_HEADER)?;
        let len = u32::from_le_bytes(header[..4].try_into().ok()?) as usize;
        let time = u64::from_le_bytes(header[4..].try_into().ok()?);
        at += UNIT_HEADER;
        let data = bytes.get(at..at + len).map(|data| bytes.slice_ref(data))?;
        at += len;
        units.push(Unit { keyframe: is_keyframe(codec, &data), data, time });
    }
    (!units.is_empty()).then_some(Clip { name, codec, units, size })
}

const fn fourcc(codec: Codec) -> &'static [u8; 4] {
    match codec {
        Codec::H264 => b"H264",
        Codec::Hevc => b"HEVC",
        Codec::Vp8 => b"VP80",
        Codec::Vp9 => b"VP90",
        Codec::Av1 => b"AV01",
    }
}

/// Whether decoding can begin with a unit: an IDR slice (ITU-T H.264, table 7-1), one of HEVC's random access pictures
/// (ITU-T H.265, table 7-1), a key frame of VP8 (RFC 6386, section 9.1) or of VP9 (its specification, section 6.2).
pub fn is_keyframe(codec: Codec, unit: &[u8]) -> bool {
    let nal = |is: fn(u8) -> bool| unit.windows(4).any(|bytes| bytes[..3] == [0, 0, 1] && is(bytes[3]));
    match codec {
        Codec::H264 => nal(|header| header & 0x1f == 5),
        Codec::Hevc => nal(|header| (16..=21).contains(&(header >> 1 & 0x3f))),
        Codec::Vp8 => unit.first().is_some_and(|byte| byte & 1 == 0),
        // A frame marker, a profile below 3, no frame that exists already, a key frame.
        Codec::Vp9 => unit.first().is_some_and(|byte| byte >> 6 == 2 && byte & 0b1100 == 0),
        Codec::Av1 => false,
    }
}

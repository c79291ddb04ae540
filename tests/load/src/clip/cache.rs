//! Encoded clips in files: the IVF container, which takes frames of any codec as they are.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write};
use std::path::Path;

use bytes::{Buf, Bytes};

use super::{Codec, Encoding, Footage, Frame, MAX_FRAMES};

const SIGNATURE: &[u8; 4] = b"DKIF";
const HEADER: usize = 32;
const FRAME_HEADER: usize = 12;
/// Counts up when clips of the same name would be encoded differently.
const VERSION: u32 = 1;
/// A file above this is not read.
const MAX_BYTES: u64 = 512 << 20;

/// Name of the file for this footage in this encoding.
pub(super) fn name(footage: &Footage, encoding: Encoding) -> String {
    let mut hasher = DefaultHasher::new();
    (VERSION, &footage.identity, footage.size, encoding).hash(&mut hasher);
    let (width, height) = encoding.size;
    format!("{width}x{height}@{}-{}-{:016x}.ivf", encoding.fps, encoding.codec, hasher.finish())
}

fn four_cc(codec: Codec) -> &'static [u8; 4] {
    match codec {
        Codec::H264 => b"H264",
        Codec::Vp8 => b"VP80",
    }
}

/// Writes the whole file, or nothing.
pub(super) fn store(path: &Path, frames: &[Frame], encoding: Encoding) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut bytes =
        Vec::with_capacity(HEADER + frames.iter().map(|frame| FRAME_HEADER + frame.data.len()).sum::<usize>());
    bytes.extend_from_slice(SIGNATURE);
    bytes.extend_from_slice(&[0, 0, 32, 0]);
    bytes.extend_from_slice(four_cc(encoding.codec));
    for side in [encoding.size.0, encoding.size.1] {
        bytes.extend_from_slice(&u16::try_from(side).unwrap_or(u16::MAX).to_le_bytes());
    }
    let count = u32::try_from(frames.len()).unwrap_or(u32::MAX);
    for word in [encoding.fps, 1, count, 0] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    for (number, frame) in frames.iter().enumerate() {
        bytes.extend_from_slice(&u32::try_from(frame.data.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend_from_slice(&(number as u64).to_le_bytes());
        bytes.extend_from_slice(&frame.data);
    }
    let unfinished = path.with_extension(format!("{}.part", std::process::id()));
    let written = fs::File::create(&unfinished).and_then(|mut file| file.write_all(&bytes));
    written.and_then(|()| fs::rename(&unfinished, path)).inspect_err(|_| {
        let _ = fs::remove_file(&unfinished);
    })
}

/// The frames of a file that [`store`] wrote; `None` for any other, and where there is none.
pub(super) fn load(path: &Path) -> Option<Vec<Frame>> {
    if fs::metadata(path).ok()?.len() > MAX_BYTES {
        return None;
    }
    let mut bytes = Bytes::from(fs::read(path).ok()?);
    if bytes.len() < HEADER || &bytes[..4] != SIGNATURE {
        return None;
    }
    let codec = if &bytes[8..12] == four_cc(Codec::H264) { Codec::H264 } else { Codec::Vp8 };
    let count = (&bytes[24..28]).get_u32_le() as usize;
    bytes.advance(HEADER);
    let mut frames = Vec::with_capacity(count.min(MAX_FRAMES));
    while bytes.len() >= FRAME_HEADER {
        let length = bytes.get_u32_le() as usize;
        bytes.advance(8);
        if length > bytes.len() {
            return None;
        }
        let data = bytes.split_to(length);
        frames.push(Frame { keyframe: is_keyframe(codec, &data), data });
    }
    (bytes.is_empty() && frames.len() == count && frames.first()?.keyframe).then_some(frames)
}

/// Whether decoding can begin with an access unit.
fn is_keyframe(codec: Codec, data: &[u8]) -> bool {
    match codec {
        // RFC 6386, section 9.1: the lowest bit of the first byte is 0.
        Codec::Vp8 => data.first().is_some_and(|first| first & 1 == 0),
        // A unit of type 5 (IDR) behind a start code.
        Codec::H264 => data.windows(4).any(|bytes| bytes[..3] == [0, 0, 1] && bytes[3] & 0x1f == 5),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames() -> Vec<Frame> {
        let idr = [0, 0, 0, 1, 0x67, 1, 2, 0, 0, 1, 0x65, 9, 9].as_slice();
        let other = [0, 0, 0, 1, 0x41, 7].as_slice();
        [(idr, true), (other, false), (idr, true)]
            .map(|(data, keyframe)| Frame { data: Bytes::copy_from_slice(data), keyframe })
            .to_vec()
    }

    #[test]
    fn what_is_stored_is_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/clip.ivf");
        let encoding = Encoding { codec: Codec::H264, fps: 30, bitrate_bps: 1, size: (640, 480) };
        store(&path, &frames(), encoding).unwrap();
        assert_eq!(load(&path), Some(frames()));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_broken_file_is_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("clip.ivf");
        assert_eq!(load(&path), None);
        let encoding = Encoding { codec: Codec::H264, fps: 30, bitrate_bps: 1, size: (640, 480) };
        store(&path, &frames(), encoding).unwrap();
        let whole = fs::read(&path).unwrap();
        for length in [0, 3, 20, HEADER, HEADER + 5, whole.len() - 1] {
            fs::write(&path, &whole[..length]).unwrap();
            assert_eq!(load(&path), None, "{length} bytes");
        }
        fs::write(&path, [whole.as_slice(), &[0]].concat()).unwrap();
        assert_eq!(load(&path), None);
    }
}

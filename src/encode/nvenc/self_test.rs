use std::sync::Arc;

use crate::media::{ColorInfo, I420, MediaTime};

use super::super::{Encoded, software};
use super::{Error, Hardware, Nvenc};

/// Size of the pictures: above the least that any GPU encodes.
const SIZE: [u32; 2] = [320, 240];
/// Types of H.264's units (table 7-1).
const SLICE: u8 = 1;
const IDR: u8 = 5;
const SPS: u8 = 7;
const PPS: u8 = 8;
/// `profile_idc` of baseline.
const BASELINE: u8 = 66;

/// What a GPU's encoder gives that is not what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Mistake {
    /// It does not encode.
    #[error(transparent)]
    Encode(#[from] Error),
    /// What should be a keyframe is none, or lacks its parameter sets.
    #[error("the first picture is no keyframe with parameter sets: it has units of the types {0:?}")]
    Keyframe(Vec<u8>),
    /// The stream has another profile than receivers are told.
    #[error("the stream has profile {0}, and 66 (baseline) was asked for")]
    Profile(u8),
    /// What should refer to the picture before does not.
    #[error("the second picture does not refer to the first: it has units of the types {0:?}")]
    Delta(Vec<u8>),
}

/// Encodes two pictures and looks whether they are a keyframe and one that refers to it. What the GPU can do, in a line for
/// people.
///
/// # Errors
/// [`Mistake`]
pub fn check(hardware: &Arc<Hardware>) -> Result<String, Mistake> {
    let capability = hardware.capability()?;
    let mut encoder = Nvenc::new(hardware, software::Config { bitrate_bps: 1_000_000, fps: 30.0 })?;
    let first = encoder.encode_picture(&picture(0), ColorInfo::default(), MediaTime(0), false)?;
    let second = encoder.encode_picture(&picture(1), ColorInfo::default(), MediaTime(3_000), false)?;
    judge(&first, &second)?;
    Ok(capability.to_string())
}

fn judge(first: &Encoded, second: &Encoded) -> Result<(), Mistake> {
    let types = types(&first.data);
    let sps = units(&first.data).find(|unit| kind(unit) == SPS);
    let Some(sps) = sps.filter(|_| first.keyframe && types.contains(&PPS) && types.contains(&IDR)) else {
        return Err(Mistake::Keyframe(types));
    };
    match sps.get(1) {
        Some(&BASELINE) => {}
        other => return Err(Mistake::Profile(other.copied().unwrap_or(0))),
    }
    let types = self::types(&second.data);
    if second.keyframe || !types.contains(&SLICE) || types.contains(&IDR) {
        return Err(Mistake::Delta(types));
    }
    Ok(())
}

/// A slope that moves.
fn picture(index: u8) -> I420 {
    let mut picture = I420::new(SIZE[0], SIZE[1]);
    let strides = picture.strides();
    for (plane, stride) in picture.planes_mut().into_iter().zip(strides) {
        for (at, code) in plane.iter_mut().enumerate() {
            *code = u8::try_from((at % stride + at / stride) % 200).unwrap_or(0) + 16 + index * 4;
        }
    }
    picture
}

/// What lies behind each start code (H.264, annex B).
fn units(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let starts = data.windows(3).enumerate().filter(|(_, window)| *window == [0, 0, 1]).map(|(at, _)| at + 3);
    starts.map(|start| &data[start..])
}

/// `nal_unit_type`
fn kind(unit: &[u8]) -> u8 {
    unit.first().map_or(0, |header| header & 0x1f)
}

fn types(data: &[u8]) -> Vec<u8> {
    units(data).map(kind).collect()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    /// A unit with these parts; of each, the type and the byte behind it.
    fn encoded(keyframe: bool, parts: &[[u8; 2]]) -> Encoded {
        let data: Bytes = parts.iter().flat_map(|[kind, byte]| [0, 0, 0, 1, 0x60 | kind, *byte, 0x80]).collect();
        Encoded { data, keyframe, time: MediaTime(0), color: ColorInfo::default() }
    }

    #[test]
    fn what_is_no_stream_for_receivers_is_told() {
        let (key, delta) = (encoded(true, &[[7, 66], [8, 1], [5, 1]]), encoded(false, &[[1, 1]]));
        assert_eq!(judge(&key, &delta), Ok(()));
        for parts in [&[[7, 66], [5, 1]][..], &[[8, 1], [5, 1]], &[[7, 66], [8, 1], [1, 1]], &[]] {
            let types = parts.iter().map(|[kind, _]| *kind).collect();
            assert_eq!(judge(&encoded(true, parts), &delta), Err(Mistake::Keyframe(types)));
        }
        let unmarked = encoded(false, &[[7, 66], [8, 1], [5, 1]]);
        assert_eq!(judge(&unmarked, &delta), Err(Mistake::Keyframe(vec![7, 8, 5])));
        let high = encoded(true, &[[7, 100], [8, 1], [5, 1]]);
        assert_eq!(judge(&high, &delta), Err(Mistake::Profile(100)));
        assert_eq!(judge(&key, &key), Err(Mistake::Delta(vec![7, 8, 5])));
        assert_eq!(judge(&key, &encoded(false, &[])), Err(Mistake::Delta(vec![])));
    }
}

//! What a GPU's encoder can do.
#![expect(unsafe_code, reason = "asks NVIDIA's encoder")]

use std::fmt;

use moq_nvenc::sys::nvEncodeAPI::{
    GUID, NV_ENC_CAPS, NV_ENC_CAPS_PARAM, NV_ENC_CAPS_PARAM_VER, NV_ENC_CODEC_H264_GUID,
};

use super::session::Session;
use super::{Error, Status};

/// Most codecs that are asked for; there are three.
const MAX_CODECS: usize = 16;

/// What a GPU encodes as H.264. What its driver does not tell counts as missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capability {
    /// Smallest width and height as coded.
    pub min: [u32; 2],
    /// Largest width and height as coded.
    pub max: [u32; 2],
    /// Most macroblocks (256 samples each) a picture; 0 if it is not told.
    pub max_macroblocks: u32,
    /// Whether it spreads intra macroblocks over several pictures instead of making keyframes.
    pub intra_refresh: bool,
    /// Whether pictures stay one slice while it does.
    pub single_slice_refresh: bool,
    /// Whether the bitrate changes without a keyframe.
    pub dynamic_bitrate: bool,
    /// Whether it bounds the bits of each picture.
    pub custom_vbv: bool,
    /// The GPU's encoders, which work side by side.
    pub engines: Option<u32>,
}

impl Capability {
    /// `None` when the GPU encodes no H.264.
    pub(super) fn ask(session: &Session) -> Result<Option<Self>, Error> {
        if !codecs(session)?.contains(&NV_ENC_CODEC_H264_GUID) {
            return Ok(None);
        }
        let number = |cap| Ok::<_, Error>(one(session, cap)?.unwrap_or(0));
        let flag = |cap| Ok::<_, Error>(one(session, cap)?.unwrap_or(0) != 0);
        Ok(Some(Self {
            min: [number(NV_ENC_CAPS::NV_ENC_CAPS_WIDTH_MIN)?, number(NV_ENC_CAPS::NV_ENC_CAPS_HEIGHT_MIN)?],
            max: [number(NV_ENC_CAPS::NV_ENC_CAPS_WIDTH_MAX)?, number(NV_ENC_CAPS::NV_ENC_CAPS_HEIGHT_MAX)?],
            max_macroblocks: number(NV_ENC_CAPS::NV_ENC_CAPS_MB_NUM_MAX)?,
            intra_refresh: flag(NV_ENC_CAPS::NV_ENC_CAPS_SUPPORT_INTRA_REFRESH)?,
            single_slice_refresh: flag(NV_ENC_CAPS::NV_ENC_CAPS_SINGLE_SLICE_INTRA_REFRESH)?,
            dynamic_bitrate: flag(NV_ENC_CAPS::NV_ENC_CAPS_SUPPORT_DYN_BITRATE_CHANGE)?,
            custom_vbv: flag(NV_ENC_CAPS::NV_ENC_CAPS_SUPPORT_CUSTOM_VBV_BUF_SIZE)?,
            engines: one(session, NV_ENC_CAPS::NV_ENC_CAPS_NUM_ENCODER_ENGINES)?.filter(|engines| *engines > 0),
        }))
    }

    /// # Errors
    /// [`Error::Size`] when pictures of this coded size are too small or too large.
    pub(super) fn check(&self, [width, height]: [u32; 2]) -> Result<(), Error> {
        let sides = (self.min[0]..=self.max[0]).contains(&width) && (self.min[1]..=self.max[1]).contains(&height);
        let macroblocks = u64::from(width.div_ceil(16)) * u64::from(height.div_ceil(16));
        let fits = self.max_macroblocks == 0 || macroblocks <= u64::from(self.max_macroblocks);
        if sides && fits { Ok(()) } else { Err(Error::Size { width, height }) }
    }
}

/// One line for people.
impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [[least_width, least_height], [width, height]] = [self.min, self.max];
        write!(f, "from {least_width}x{least_height} up to {width}x{height}")?;
        match self.engines {
            None => {}
            Some(1) => write!(f, " on 1 engine")?,
            Some(engines) => write!(f, " on {engines} engines")?,
        }
        for (there, what) in [
            (self.intra_refresh, "intra refresh"),
            (self.dynamic_bitrate, "bitrate changes without a keyframe"),
            (self.custom_vbv, "bound of each picture's bits"),
        ] {
            write!(f, ", {}{what}", if there { "" } else { "no " })?;
        }
        Ok(())
    }
}

fn codecs(session: &Session) -> Result<Vec<GUID>, Error> {
    let mut count = 0;
    // SAFETY: here and below, what is written to outlives the call.
    session.call("NvEncGetEncodeGUIDCount", |api, encoder| unsafe { (api.codec_count)(encoder, &raw mut count) })?;
    let mut found = vec![GUID::default(); (count as usize).min(MAX_CODECS)];
    let (room, mut count) = (u32::try_from(found.len()).unwrap_or(0), 0);
    session.call("NvEncGetEncodeGUIDs", |api, encoder| {
        // SAFETY: as above; it is told how much room there is.
        unsafe { (api.codecs)(encoder, found.as_mut_ptr(), room, &raw mut count) }
    })?;
    found.truncate(count as usize);
    Ok(found)
}

/// `None` where the driver does not know what it is asked.
fn one(session: &Session, cap: NV_ENC_CAPS) -> Result<Option<u32>, Error> {
    let mut asked = NV_ENC_CAPS_PARAM { version: NV_ENC_CAPS_PARAM_VER, capsToQuery: cap, reserved: [0; 62] };
    let mut value = 0;
    let told = session.call("NvEncGetEncodeCaps", |api, encoder| {
        // SAFETY: both outlive the call.
        unsafe { (api.capability)(encoder, NV_ENC_CODEC_H264_GUID, &raw mut asked, &raw mut value) }
    });
    match told {
        Ok(()) => Ok(u32::try_from(value).ok()),
        Err(Error::Failed(failure)) if matches!(failure.status, Status::INVALID_PARAM | Status::UNSUPPORTED_PARAM) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOME: Capability = Capability {
        min: [146, 50],
        max: [4_096, 4_096],
        max_macroblocks: 65_536,
        intra_refresh: true,
        single_slice_refresh: false,
        dynamic_bitrate: true,
        custom_vbv: false,
        engines: Some(2),
    };

    #[test]
    fn sizes_are_bounded_on_each_side_and_in_sum() {
        assert_eq!((SOME.check([146, 50]), SOME.check([4_096, 4_096])), (Ok(()), Ok(())));
        for size in [[144, 50], [146, 48], [4_098, 50], [146, 4_098]] {
            assert_eq!(SOME.check(size), Err(Error::Size { width: size[0], height: size[1] }));
        }
        let few = Capability { max_macroblocks: 8_160, ..SOME };
        assert!(few.check([1_920, 1_080]).is_ok() && few.check([1_920, 1_090]).is_err());
        assert!(Capability { max_macroblocks: 0, ..SOME }.check([4_096, 4_096]).is_ok());
    }

    #[test]
    fn people_read_what_there_is_and_what_there_is_not() {
        assert_eq!(
            SOME.to_string(),
            "from 146x50 up to 4096x4096 on 2 engines, intra refresh, bitrate changes without a keyframe, no bound of each \
             picture's bits"
        );
    }
}

//! What an encoder is told: NVIDIA's preset for speed at the least delay, changed where the server needs something else.
#![expect(unsafe_code, reason = "fills structures in that are not all valid while they are of zeros")]

use std::mem::MaybeUninit;

use moq_nvenc::sys::nvEncodeAPI::{
    GUID, NV_ENC_CODEC_H264_GUID, NV_ENC_CONFIG, NV_ENC_CONFIG_H264_VUI_PARAMETERS, NV_ENC_CONFIG_VER,
    NV_ENC_H264_ADAPTIVE_TRANSFORM_MODE, NV_ENC_H264_BDIRECT_MODE, NV_ENC_H264_ENTROPY_CODING_MODE,
    NV_ENC_H264_FMO_MODE, NV_ENC_H264_PROFILE_BASELINE_GUID, NV_ENC_INITIALIZE_PARAMS, NV_ENC_INITIALIZE_PARAMS_VER,
    NV_ENC_MV_PRECISION, NV_ENC_PARAMS_FRAME_FIELD_MODE, NV_ENC_PARAMS_RC_MODE, NV_ENC_PRESET_CONFIG,
    NV_ENC_PRESET_CONFIG_VER, NV_ENC_PRESET_P3_GUID, NV_ENC_RC_PARAMS_VER, NV_ENC_TUNING_INFO,
    NV_ENC_VUI_COLOR_PRIMARIES, NV_ENC_VUI_MATRIX_COEFFS, NV_ENC_VUI_TRANSFER_CHARACTERISTIC, NV_ENC_VUI_VIDEO_FORMAT,
    NVENC_INFINITE_GOPLENGTH,
};

use crate::media::{ColorInfo, ColorMatrix, ColorRange};

use super::super::software::h264_level;
use super::Capability;

/// Between the fastest and the best, and the fastest that is not visibly worse than x264's `ultrafast`.
pub(super) const PRESET: GUID = NV_ENC_PRESET_P3_GUID;
/// No picture waits for another.
pub(super) const TUNING: NV_ENC_TUNING_INFO = NV_ENC_TUNING_INFO::NV_ENC_TUNING_INFO_ULTRA_LOW_LATENCY;
/// A wave of intra macroblocks takes this many seconds to pass over the picture, so that it adds a thirtieth of a picture's
/// intra bits to each at 30 a second; one begins every [`WAVE_PERIOD_S`] seconds. It heals what a receiver got wrong without
/// noticing; whoever notices asks for a keyframe.
const WAVE_S: f64 = 1.0;
/// Seconds from one wave's beginning to the next one's.
const WAVE_PERIOD_S: f64 = 10.0;
/// How many times the bits of one picture a keyframe may take, where the bits of each are bounded.
const KEYFRAME_SCALE: u8 = 4;

/// What an encoder is opened for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Settings {
    /// Width and height as coded, both even.
    pub(super) coded: [u32; 2],
    pub(super) color: ColorInfo,
    /// Pictures a second that its bitrate is shared out among.
    pub(super) fps: f64,
    pub(super) capability: Capability,
}

/// What NVIDIA's encoder is told, at an address that stays. It is of zeros until the preset is written to it.
pub(super) struct Config(Box<MaybeUninit<NV_ENC_PRESET_CONFIG>>);

impl Config {
    pub(super) fn new() -> Self {
        let mut config = Self(Box::new(MaybeUninit::zeroed()));
        let raw = config.preset();
        // SAFETY: the fields are within the structure.
        unsafe {
            (*raw).version = NV_ENC_PRESET_CONFIG_VER;
            (*raw).presetCfg.version = NV_ENC_CONFIG_VER;
        }
        config
    }

    /// Where the encoder writes a preset to.
    pub(super) const fn preset(&mut self) -> *mut NV_ENC_PRESET_CONFIG {
        self.0.as_mut_ptr()
    }

    fn raw(&mut self) -> *mut NV_ENC_CONFIG {
        // SAFETY: the field is within the structure.
        unsafe { &raw mut (*self.preset()).presetCfg }
    }

    /// Changes what the preset says: constrained baseline at the level that the answer to an offer names, one slice, no
    /// keyframe that nobody asked for, parameter sets in each, a constant bitrate, and what the codes mean.
    pub(super) fn adjust(&mut self, settings: &Settings) {
        let [width, height] = settings.coded;
        let capability = settings.capability;
        let raw = self.raw();
        // SAFETY: the fields are within the structure; those that are referred to as a whole are valid if of zeros, and the
        // preset makes them no less so.
        let (rate, h264) = unsafe {
            (*raw).version = NV_ENC_CONFIG_VER;
            (*raw).profileGUID = NV_ENC_H264_PROFILE_BASELINE_GUID;
            (*raw).gopLength = NVENC_INFINITE_GOPLENGTH;
            (*raw).frameIntervalP = 1;
            (*raw).monoChromeEncoding = 0;
            (*raw).frameFieldMode = NV_ENC_PARAMS_FRAME_FIELD_MODE::NV_ENC_PARAMS_FRAME_FIELD_MODE_FRAME;
            (*raw).mvPrecision = NV_ENC_MV_PRECISION::NV_ENC_MV_PRECISION_QUARTER_PEL;
            (&mut (*raw).rcParams, &mut (*raw).encodeCodecConfig.h264Config)
        };
        rate.version = NV_ENC_RC_PARAMS_VER;
        rate.rateControlMode = NV_ENC_PARAMS_RC_MODE::NV_ENC_PARAMS_RC_CBR;
        rate.set_enableLookahead(0);
        rate.set_zeroReorderDelay(1);
        rate.lookaheadDepth = 0;
        rate.lowDelayKeyFrameScale = KEYFRAME_SCALE;

        h264.level = h264_level(width, height, settings.fps);
        h264.idrPeriod = NVENC_INFINITE_GOPLENGTH;
        h264.chromaFormatIDC = 1;
        (h264.sliceMode, h264.sliceModeData) = (3, 1);
        h264.set_repeatSPSPPS(1);
        h264.set_disableSPSPPS(0);
        h264.set_outputAUD(0);
        h264.set_enableFillerDataInsertion(0);
        h264.set_outputRecoveryPointSEI(0);
        h264.entropyCodingMode = NV_ENC_H264_ENTROPY_CODING_MODE::NV_ENC_H264_ENTROPY_CODING_MODE_CAVLC;
        h264.adaptiveTransformMode = NV_ENC_H264_ADAPTIVE_TRANSFORM_MODE::NV_ENC_H264_ADAPTIVE_TRANSFORM_DISABLE;
        h264.bdirectMode = NV_ENC_H264_BDIRECT_MODE::NV_ENC_H264_BDIRECT_MODE_DISABLE;
        h264.fmoMode = NV_ENC_H264_FMO_MODE::NV_ENC_H264_FMO_DISABLE;
        h264.set_enableIntraRefresh(u32::from(capability.intra_refresh));
        h264.set_singleSliceIntraRefresh(u32::from(capability.intra_refresh && capability.single_slice_refresh));
        (h264.intraRefreshPeriod, h264.intraRefreshCnt) =
            if capability.intra_refresh { waves(settings.fps) } else { (0, 0) };
        describe(&mut h264.h264VUIParameters, settings.color);
    }

    /// Bits a second at [`Settings::fps`] pictures a second. Each picture gets its share and, where that can be bounded, no
    /// more, so that none takes long on the path; only keyframes may take [`KEYFRAME_SCALE`] times as much.
    pub(super) fn set_rate(&mut self, told: f64, settings: &Settings) {
        let [width, height] = settings.coded;
        let told = told.min(most_bits(h264_level(width, height, settings.fps)));
        // SAFETY: the field is within the structure, and valid as above.
        let rate = unsafe { &mut (*self.raw()).rcParams };
        (rate.averageBitRate, rate.maxBitRate) = (bits(told), bits(told));
        let one = if settings.capability.custom_vbv { bits(told / settings.fps) } else { 0 };
        (rate.vbvBufferSize, rate.vbvInitialDelay) = (one, one);
    }

    /// What an encoder is opened with, and what it is told again when its bitrate changes. It points to this.
    pub(super) fn parameters(&mut self, settings: &Settings) -> NV_ENC_INITIALIZE_PARAMS {
        let [width, height] = settings.coded;
        NV_ENC_INITIALIZE_PARAMS {
            version: NV_ENC_INITIALIZE_PARAMS_VER,
            encodeGUID: NV_ENC_CODEC_H264_GUID,
            presetGUID: PRESET,
            tuningInfo: TUNING,
            encodeWidth: width,
            encodeHeight: height,
            darWidth: width,
            darHeight: height,
            frameRateNum: bits(settings.fps * 1_000.0),
            frameRateDen: 1_000,
            enablePTD: 1,
            encodeConfig: self.raw(),
            ..Default::default()
        }
    }
}

/// Bits a second that a level allows (H.264, table A-1): an encoder that is told of more does not open.
const fn most_bits(level: u32) -> f64 {
    match level {
        ..32 => 14_000_000.0,
        32..42 => 20_000_000.0,
        42..50 => 50_000_000.0,
        50 => 135_000_000.0,
        _ => 240_000_000.0,
    }
}

/// Pictures from one wave to the next, and of each.
fn waves(fps: f64) -> (u32, u32) {
    (bits(fps * WAVE_PERIOD_S).max(2), bits(fps * WAVE_S).max(1))
}

/// A rounded number.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float saturates")]
const fn bits(number: f64) -> u32 {
    number.round() as u32
}

/// What the codes mean (ITU-T H.264, annex E), as x264 is told in software: of what frames carry, all; of primaries and
/// transfer, that nobody knows.
const fn describe(vui: &mut NV_ENC_CONFIG_H264_VUI_PARAMETERS, color: ColorInfo) {
    vui.videoSignalTypePresentFlag = 1;
    vui.videoFormat = NV_ENC_VUI_VIDEO_FORMAT::NV_ENC_VUI_VIDEO_FORMAT_UNSPECIFIED;
    vui.videoFullRangeFlag = matches!(color.range, ColorRange::Full) as u32;
    vui.colourDescriptionPresentFlag = 1;
    vui.colourPrimaries = NV_ENC_VUI_COLOR_PRIMARIES::NV_ENC_VUI_COLOR_PRIMARIES_UNSPECIFIED;
    vui.transferCharacteristics = NV_ENC_VUI_TRANSFER_CHARACTERISTIC::NV_ENC_VUI_TRANSFER_CHARACTERISTIC_UNSPECIFIED;
    vui.colourMatrix = match color.matrix {
        ColorMatrix::Bt601 => NV_ENC_VUI_MATRIX_COEFFS::NV_ENC_VUI_MATRIX_COEFFS_SMPTE170M,
        ColorMatrix::Bt709 => NV_ENC_VUI_MATRIX_COEFFS::NV_ENC_VUI_MATRIX_COEFFS_BT709,
        ColorMatrix::Bt2020 => NV_ENC_VUI_MATRIX_COEFFS::NV_ENC_VUI_MATRIX_COEFFS_BT2020_NCL,
    };
    // No picture is shown after one that comes later, so that receivers wait for none.
    vui.bitstreamRestrictionFlag = 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Capability = Capability {
        min: [146, 50],
        max: [4_096, 4_096],
        max_macroblocks: 65_536,
        intra_refresh: true,
        single_slice_refresh: true,
        dynamic_bitrate: true,
        custom_vbv: true,
        engines: Some(1),
    };
    const SETTINGS: Settings = Settings {
        coded: [1_280, 720],
        color: ColorInfo { matrix: ColorMatrix::Bt709, range: ColorRange::Full },
        fps: 30.0,
        capability: ALL,
    };

    fn adjusted(settings: &Settings, told: f64) -> (NV_ENC_INITIALIZE_PARAMS, NV_ENC_CONFIG) {
        let mut config = Config::new();
        config.adjust(settings);
        config.set_rate(told, settings);
        let parameters = config.parameters(settings);
        // SAFETY: all of its enumerations were set; the pointer is into the configuration, which still lives.
        let adjusted = unsafe { parameters.encodeConfig.read() };
        (NV_ENC_INITIALIZE_PARAMS { encodeConfig: std::ptr::null_mut(), ..parameters }, adjusted)
    }

    #[test]
    fn each_picture_gets_its_share_of_the_bitrate() {
        let (_, config) = adjusted(&SETTINGS, 1_500_000.0);
        let rate = config.rcParams;
        assert_eq!((rate.averageBitRate, rate.vbvBufferSize, rate.vbvInitialDelay), (1_500_000, 50_000, 50_000));
        assert_eq!(rate.rateControlMode, NV_ENC_PARAMS_RC_MODE::NV_ENC_PARAMS_RC_CBR);
        // Few pictures a second, which get many bits each.
        let (_, config) = adjusted(&SETTINGS, 60_000_000.0);
        assert_eq!(config.rcParams.averageBitRate, 14_000_000, "as level 3.1 has it");
        let unbounded = Settings { capability: Capability { custom_vbv: false, ..ALL }, ..SETTINGS };
        let (_, config) = adjusted(&unbounded, 1_500_000.0);
        assert_eq!((config.rcParams.vbvBufferSize, config.rcParams.vbvInitialDelay), (0, 0));
    }

    #[test]
    fn keyframes_come_on_demand_and_a_wave_in_between() {
        let (parameters, config) = adjusted(&SETTINGS, 1_500_000.0);
        // SAFETY: it is what was written.
        let h264 = unsafe { config.encodeCodecConfig.h264Config };
        assert_eq!((config.gopLength, config.frameIntervalP, h264.idrPeriod), (u32::MAX, 1, u32::MAX));
        assert_eq!((h264.repeatSPSPPS(), h264.enableIntraRefresh(), h264.singleSliceIntraRefresh()), (1, 1, 1));
        assert_eq!((h264.intraRefreshPeriod, h264.intraRefreshCnt), (300, 30));
        assert_eq!((parameters.frameRateNum, parameters.frameRateDen, parameters.enablePTD), (30_000, 1_000, 1));
        let plain = Settings { capability: Capability { intra_refresh: false, ..ALL }, ..SETTINGS };
        // SAFETY: as above.
        let h264 = unsafe { adjusted(&plain, 1_500_000.0).1.encodeCodecConfig.h264Config };
        assert_eq!((h264.enableIntraRefresh(), h264.singleSliceIntraRefresh(), h264.intraRefreshCnt), (0, 0, 0));
        assert!((1..=240).map(|fps| waves(f64::from(fps))).all(|(period, count)| count < period));
    }

    #[test]
    fn the_level_and_the_colours_are_those_of_software() {
        for (coded, fps, level) in [([1_280, 720], 30.0, 31), ([1_280, 720], 60.0, 32), ([1_920, 1_080], 30.0, 40)] {
            let settings = Settings { coded, fps, ..SETTINGS };
            // SAFETY: as above.
            assert_eq!(unsafe { adjusted(&settings, 1e6).1.encodeCodecConfig.h264Config.level }, level);
        }
        // SAFETY: as above.
        let vui = unsafe { adjusted(&SETTINGS, 1e6).1.encodeCodecConfig.h264Config.h264VUIParameters };
        assert_eq!((vui.videoSignalTypePresentFlag, vui.videoFullRangeFlag, vui.colourMatrix as u32), (1, 1, 1));
        assert_eq!((vui.colourDescriptionPresentFlag, vui.colourPrimaries as u32), (1, 2));
    }
}

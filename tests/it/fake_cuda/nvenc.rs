//! NVENC's functions: encoders that read the GPU's memory in the order of the streams that they are told, and have x264
//! encode what they find there.

use std::ffi::{c_char, c_int, c_void};
use std::mem;

use cudarc::driver::sys::CUstream;
use moq_nvenc::sys::nvEncodeAPI::{
    GUID, NV_ENC_BUFFER_FORMAT, NV_ENC_BUFFER_USAGE, NV_ENC_CAPS, NV_ENC_CAPS_PARAM, NV_ENC_CODEC_H264_GUID,
    NV_ENC_CODEC_HEVC_GUID, NV_ENC_CONFIG, NV_ENC_CREATE_BITSTREAM_BUFFER, NV_ENC_CUSTREAM_PTR, NV_ENC_DEVICE_TYPE,
    NV_ENC_H264_PROFILE_BASELINE_GUID, NV_ENC_INITIALIZE_PARAMS, NV_ENC_INPUT_PTR, NV_ENC_INPUT_RESOURCE_TYPE,
    NV_ENC_LOCK_BITSTREAM, NV_ENC_MAP_INPUT_RESOURCE, NV_ENC_OPEN_ENCODE_SESSION_EX_PARAMS, NV_ENC_OUTPUT_PTR,
    NV_ENC_PARAMS_FRAME_FIELD_MODE, NV_ENC_PARAMS_RC_MODE, NV_ENC_PIC_PARAMS, NV_ENC_PIC_STRUCT, NV_ENC_PIC_TYPE,
    NV_ENC_PRESET_CONFIG, NV_ENC_PRESET_P3_GUID, NV_ENC_RECONFIGURE_PARAMS, NV_ENC_REGISTER_RESOURCE,
    NV_ENC_REGISTERED_PTR, NV_ENC_TUNING_INFO, NV_ENCODE_API_FUNCTION_LIST,
};
use saccade::encode::nvenc::{Entries, Status};
use saccade::encode::software::{Config, Software};
use saccade::encode::{Encoded, Encoder as _};
use saccade::media::{Codec, ColorInfo, ColorMatrix, ColorRange, I420, MediaTime};

use super::memory::{Job, Work};
use super::*;

/// Names of all functions, as calls are counted by them.
pub const NAMES: &[&str] = &[
    "NvEncodeAPIGetMaxSupportedVersion",
    "NvEncodeAPICreateInstance",
    "NvEncOpenEncodeSessionEx",
    "NvEncDestroyEncoder",
    "NvEncGetEncodeGUIDCount",
    "NvEncGetEncodeGUIDs",
    "NvEncGetEncodeCaps",
    "NvEncGetEncodePresetConfigEx",
    "NvEncInitializeEncoder",
    "NvEncReconfigureEncoder",
    "NvEncCreateBitstreamBuffer",
    "NvEncDestroyBitstreamBuffer",
    "NvEncLockBitstream",
    "NvEncUnlockBitstream",
    "NvEncRegisterResource",
    "NvEncUnregisterResource",
    "NvEncMapInputResource",
    "NvEncUnmapInputResource",
    "NvEncEncodePicture",
    "nvEncSetIOCudaStreams",
];

const INFINITE: u32 = u32::MAX;
const FORCE_IDR: u32 = 2;
const END_OF_STREAM: u32 = 8;
/// What is left in a bitstream's buffer when nobody has it locked.
const UNLOCKED: u8 = 0xdd;

/// The version of a structure as the header's formula has it, for version 12.1 of the interface.
const fn version(structure: u32, extended: bool) -> u32 {
    12 | 1 << 24 | structure << 16 | 0x7 << 28 | (extended as u32) << 31
}

/// What the GPU's encoder is.
#[derive(Debug, Clone)]
pub struct Chip {
    /// What opening a session fails with, where the chip has no encoder.
    pub none: Option<Status>,
    pub h264: bool,
    pub min: [i32; 2],
    pub max: [i32; 2],
    pub max_macroblocks: i32,
    pub intra_refresh: bool,
    pub dynamic_bitrate: bool,
    pub custom_vbv: bool,
    /// Sessions that the driver allows at a time, and what it says beyond.
    pub sessions: usize,
    pub full: Status,
    /// Of the interface, as the library tells it.
    pub version: u32,
    /// A function that the library's list lacks.
    pub lacks: Option<&'static str>,
    /// Whether encoders wait for streams.
    pub streams: bool,
    /// Whether it takes no picture now.
    pub busy: bool,
}

impl Default for Chip {
    fn default() -> Self {
        Self {
            none: None,
            h264: true,
            min: [146, 50],
            max: [4_096, 4_096],
            max_macroblocks: 65_536,
            intra_refresh: true,
            dynamic_bitrate: true,
            custom_vbv: true,
            sessions: 8,
            full: Status::INCOMPATIBLE_CLIENT_KEY,
            version: 13 << 4,
            lacks: None,
            streams: true,
            busy: false,
        }
    }
}

/// What the encoder was told that was told last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Told {
    pub size: [u32; 2],
    pub bitrate: u32,
    pub vbv: u32,
    pub level: u32,
    /// Pictures from one wave of intra macroblocks to the next, and of each.
    pub waves: Option<(u32, u32)>,
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy)]
enum Failure {
    Fails(Status),
    /// The GPU is lost.
    Loses(saccade::device::Status),
}

#[derive(Default)]
pub struct Nvenc {
    pub chip: Chip,
    pub encoders: HashMap<u64, Encoder>,
    pub told: Option<Told>,
    /// The next picture has no bytes.
    pub nothing: bool,
    failures: HashMap<&'static str, Vec<(usize, Failure)>>,
}

/// What an encoder gave for a picture.
type Slot = Arc<Mutex<Option<Encoded>>>;

#[derive(Default)]
pub struct Encoder {
    /// Opening it failed, so that it can only be destroyed.
    failed: bool,
    begun: Option<Begun>,
    flushed: bool,
    /// Where the streams' handles are.
    streams: Option<(usize, usize)>,
    registered: HashMap<u64, Registered>,
    /// Which of those each is of.
    mapped: HashMap<u64, u64>,
    bitstreams: HashMap<u64, Bitstream>,
}

/// Memory that an encoder reads pictures from.
#[derive(Clone, Copy)]
struct Registered {
    start: u64,
    pitch: u32,
    size: [u32; 2],
}

struct Begun {
    size: [u32; 2],
    fps: f64,
    color: ColorInfo,
    software: Arc<Mutex<Software>>,
    pictures: u32,
    bitrate: u32,
    /// The next picture is to be a keyframe.
    keyframe: bool,
}

#[derive(Default)]
struct Bitstream {
    given: Option<Slot>,
    data: Vec<u8>,
    locked: bool,
}

impl Fake {
    /// What NVIDIA's library has by name.
    pub fn entries(&self) -> Entries {
        HERE.set(self.id);
        Entries { max_version, create_instance }
    }

    /// Changes what the GPU's encoder is, for what is asked of it from now on.
    pub fn change_chip(&self, change: impl FnOnce(&mut Chip)) {
        change(&mut self.state().nvenc.chip);
    }

    /// The next call of this function of the encoder returns `status` and does nothing.
    pub fn fail_encoder(&self, call: &'static str, status: Status) {
        self.add_failure(0, call, Failure::Fails(status));
    }

    /// [`Fake::fail_encoder`], after `calls` more that succeed.
    pub fn fail_encoder_after(&self, calls: usize, call: &'static str, status: Status) {
        self.add_failure(calls, call, Failure::Fails(status));
    }

    /// The GPU is lost with the next call of this function of the encoder, which tells nothing but that it failed.
    pub fn lose_at(&self, call: &'static str, status: saccade::device::Status) {
        assert!(status.is_sticky());
        self.add_failure(0, call, Failure::Loses(status));
    }

    fn add_failure(&self, calls: usize, call: &'static str, failure: Failure) {
        assert!(NAMES.contains(&call), "no function {call}");
        self.state().nvenc.failures.entry(call).or_default().push((calls, failure));
    }

    /// Sessions of the encoder that are open.
    pub fn encoders(&self) -> usize {
        self.state().nvenc.encoders.len()
    }

    /// What an encoder was told last.
    pub fn told(&self) -> Told {
        self.state().nvenc.told.expect("an encoder was made")
    }

    /// The next picture that is encoded has no bytes.
    pub fn encode_nothing(&self) {
        self.state().nvenc.nothing = true;
    }
}

/// A call of the fake `id`.
fn call_on(id: u64, name: &'static str, act: impl FnOnce(&mut State) -> Status) -> Status {
    let Some(fake) = find(id) else { return Status::INVALID_PTR };
    let mut state = lock(&fake);
    *state.calls.entry(name).or_default() += 1;
    // The encoder tells a lost GPU as a failure of its own.
    if state.lost.is_some() {
        return Status::GENERIC;
    }
    if let Some(failures) = state.nvenc.failures.get_mut(name) {
        let due = failures.iter().position(|(after, _)| *after == 0);
        for (after, _) in failures.iter_mut() {
            *after = after.saturating_sub(1);
        }
        match due.map(|due| failures.remove(due).1) {
            None => {}
            Some(Failure::Fails(status)) => return status,
            Some(Failure::Loses(status)) => {
                state.lost = Some(status);
                return Status::GENERIC;
            }
        }
    }
    act(&mut state)
}

/// A call of an encoder that can be used.
fn call(encoder: *mut c_void, name: &'static str, act: impl FnOnce(&mut State, u64) -> Status) -> Status {
    let handle = encoder as u64;
    call_on(handle >> SHIFT, name, |state| match state.nvenc.encoders.get(&handle) {
        None => state.misused(format!("{name} is called of an encoder that is not there")),
        Some(Encoder { failed: true, .. }) => {
            state.misused(format!("{name} is called of an encoder that did not open"))
        }
        Some(_) => act(state, handle),
    })
}

impl State {
    fn misused(&mut self, what: impl Into<String>) -> Status {
        self.violations.push(what.into());
        Status::INVALID_CALL
    }

    /// Whether a structure has the version that the header says it has.
    fn is_version(&mut self, name: &str, found: u32, structure: u32, extended: bool) -> bool {
        let right = found == version(structure, extended);
        if !right {
            self.violations.push(format!("{name} has version {found:#x} instead of {structure}"));
        }
        right
    }

    fn encoder(&mut self, handle: u64) -> &mut Encoder {
        self.nvenc.encoders.get_mut(&handle).expect("it was found before")
    }
}

unsafe extern "C" fn max_version(version: *mut u32) -> Status {
    call_on(HERE.get(), "NvEncodeAPIGetMaxSupportedVersion", |state| {
        unsafe { *version = state.nvenc.chip.version };
        Status::SUCCESS
    })
}

#[allow(clippy::missing_transmute_annotations, reason = "the fields have the types")]
unsafe extern "C" fn create_instance(list: *mut NV_ENCODE_API_FUNCTION_LIST) -> Status {
    call_on(HERE.get(), "NvEncodeAPICreateInstance", |state| {
        let list = unsafe { &mut *list };
        if !state.is_version("NV_ENCODE_API_FUNCTION_LIST", list.version, 2, false) {
            return Status::INVALID_VERSION;
        }
        let lacks = state.nvenc.chip.lacks;
        macro_rules! fill {
            ($($field:ident = $function:ident;)+) => {$(
                if lacks != Some(stringify!($field)) {
                    // SAFETY: the functions differ from the header's in that they return a number instead of an
                    // enumeration of the same size.
                    list.$field = unsafe { mem::transmute::<*const (), _>($function as *const ()) };
                }
            )+};
        }
        fill! {
            nvEncOpenEncodeSessionEx = open_session;
            nvEncDestroyEncoder = destroy_encoder;
            nvEncGetEncodeGUIDCount = codec_count;
            nvEncGetEncodeGUIDs = codecs;
            nvEncGetEncodeCaps = capability;
            nvEncGetEncodePresetConfigEx = preset;
            nvEncInitializeEncoder = initialize;
            nvEncReconfigureEncoder = reconfigure;
            nvEncCreateBitstreamBuffer = create_bitstream;
            nvEncDestroyBitstreamBuffer = destroy_bitstream;
            nvEncLockBitstream = lock_bitstream;
            nvEncUnlockBitstream = unlock_bitstream;
            nvEncRegisterResource = register;
            nvEncUnregisterResource = unregister;
            nvEncMapInputResource = map;
            nvEncUnmapInputResource = unmap;
            nvEncEncodePicture = encode_picture;
            nvEncGetLastErrorString = last_error;
            nvEncSetIOCudaStreams = set_streams;
        }
        Status::SUCCESS
    })
}

unsafe extern "C" fn open_session(
    parameters: *mut NV_ENC_OPEN_ENCODE_SESSION_EX_PARAMS,
    encoder: *mut *mut c_void,
) -> Status {
    let parameters = unsafe { &*parameters };
    call_on(parameters.device as u64, "NvEncOpenEncodeSessionEx", |state| {
        if !state.is_version("NV_ENC_OPEN_ENCODE_SESSION_EX_PARAMS", parameters.version, 1, false)
            || parameters.apiVersion != 12 | 1 << 24
        {
            return Status::INVALID_VERSION;
        }
        if parameters.deviceType != NV_ENC_DEVICE_TYPE::NV_ENC_DEVICE_TYPE_CUDA || state.retained == 0 {
            return state.misused("an encoder is opened of a context that is not there");
        }
        if let Some(status) = state.nvenc.chip.none {
            return status;
        }
        let failed =
            state.nvenc.encoders.values().filter(|encoder| !encoder.failed).count() >= state.nvenc.chip.sessions;
        let handle = state.handle();
        // What did not open has to be destroyed, too.
        state.nvenc.encoders.insert(handle, Encoder { failed, ..Encoder::default() });
        unsafe { *encoder = handle as *mut c_void };
        if failed { state.nvenc.chip.full } else { Status::SUCCESS }
    })
}

unsafe extern "C" fn destroy_encoder(encoder: *mut c_void) -> Status {
    let handle = encoder as u64;
    call_on(handle >> SHIFT, "NvEncDestroyEncoder", |state| {
        state.run();
        let Some(gone) = state.nvenc.encoders.remove(&handle) else {
            return state.misused("an encoder is destroyed that is not there");
        };
        for (left, what) in [
            (!gone.mapped.is_empty(), "an input mapped"),
            (!gone.registered.is_empty(), "an input registered"),
            (!gone.bitstreams.is_empty(), "a bitstream"),
            (gone.begun.is_some() && !gone.flushed, "pictures that were not flushed"),
        ] {
            if left {
                state.misused(format!("an encoder is destroyed with {what}"));
            }
        }
        Status::SUCCESS
    })
}

unsafe extern "C" fn codec_count(encoder: *mut c_void, count: *mut u32) -> Status {
    call(encoder, "NvEncGetEncodeGUIDCount", |state, _| {
        unsafe { *count = 1 + u32::from(state.nvenc.chip.h264) };
        Status::SUCCESS
    })
}

unsafe extern "C" fn codecs(encoder: *mut c_void, codecs: *mut GUID, room: u32, count: *mut u32) -> Status {
    call(encoder, "NvEncGetEncodeGUIDs", |state, _| {
        let h264 = state.nvenc.chip.h264.then_some(NV_ENC_CODEC_H264_GUID);
        let found: Vec<_> = [NV_ENC_CODEC_HEVC_GUID].into_iter().chain(h264).take(room as usize).collect();
        unsafe {
            std::ptr::copy_nonoverlapping(found.as_ptr(), codecs, found.len());
            *count = found.len() as u32;
        }
        Status::SUCCESS
    })
}

unsafe extern "C" fn capability(
    encoder: *mut c_void,
    codec: GUID,
    asked: *mut NV_ENC_CAPS_PARAM,
    value: *mut c_int,
) -> Status {
    call(encoder, "NvEncGetEncodeCaps", |state, _| {
        let asked = unsafe { &*asked };
        if !state.is_version("NV_ENC_CAPS_PARAM", asked.version, 1, false) {
            return Status::INVALID_VERSION;
        }
        if codec != NV_ENC_CODEC_H264_GUID {
            return state.misused("capabilities are asked for of another codec");
        }
        let chip = &state.nvenc.chip;
        let found = match asked.capsToQuery {
            NV_ENC_CAPS::NV_ENC_CAPS_WIDTH_MIN => chip.min[0],
            NV_ENC_CAPS::NV_ENC_CAPS_HEIGHT_MIN => chip.min[1],
            NV_ENC_CAPS::NV_ENC_CAPS_WIDTH_MAX => chip.max[0],
            NV_ENC_CAPS::NV_ENC_CAPS_HEIGHT_MAX => chip.max[1],
            NV_ENC_CAPS::NV_ENC_CAPS_MB_NUM_MAX => chip.max_macroblocks,
            NV_ENC_CAPS::NV_ENC_CAPS_SUPPORT_INTRA_REFRESH => c_int::from(chip.intra_refresh),
            NV_ENC_CAPS::NV_ENC_CAPS_SUPPORT_DYN_BITRATE_CHANGE => c_int::from(chip.dynamic_bitrate),
            NV_ENC_CAPS::NV_ENC_CAPS_SUPPORT_CUSTOM_VBV_BUF_SIZE => c_int::from(chip.custom_vbv),
            NV_ENC_CAPS::NV_ENC_CAPS_NUM_ENCODER_ENGINES => 2,
            // Older drivers don't know newer questions.
            _ => return Status::INVALID_PARAM,
        };
        unsafe { *value = found };
        Status::SUCCESS
    })
}

unsafe extern "C" fn preset(
    encoder: *mut c_void,
    codec: GUID,
    preset: GUID,
    tuning: NV_ENC_TUNING_INFO,
    config: *mut NV_ENC_PRESET_CONFIG,
) -> Status {
    call(encoder, "NvEncGetEncodePresetConfigEx", |state, _| {
        let versions = unsafe { ((*config).version, (*config).presetCfg.version) };
        if !state.is_version("NV_ENC_PRESET_CONFIG", versions.0, 4, true)
            || !state.is_version("NV_ENC_CONFIG", versions.1, 8, true)
        {
            return Status::INVALID_VERSION;
        }
        let low_latency = tuning == NV_ENC_TUNING_INFO::NV_ENC_TUNING_INFO_ULTRA_LOW_LATENCY;
        if codec != NV_ENC_CODEC_H264_GUID || preset != NV_ENC_PRESET_P3_GUID || !low_latency {
            return state.misused("another preset is asked for");
        }
        // As presets have it: a keyframe now and then, and bits as they come.
        unsafe {
            let config = &raw mut (*config).presetCfg;
            ((*config).gopLength, (*config).frameIntervalP) = (250, 1);
            (*config).frameFieldMode = NV_ENC_PARAMS_FRAME_FIELD_MODE::NV_ENC_PARAMS_FRAME_FIELD_MODE_FRAME;
            (*config).rcParams.rateControlMode = NV_ENC_PARAMS_RC_MODE::NV_ENC_PARAMS_RC_VBR;
            (*config).encodeCodecConfig.h264Config.idrPeriod = 250;
        }
        Status::SUCCESS
    })
}

/// Looks at what an encoder is told, as far as it is the same for all.
fn check(state: &mut State, parameters: &NV_ENC_INITIALIZE_PARAMS, config: &NV_ENC_CONFIG) -> Result<Told, Status> {
    if !state.is_version("NV_ENC_INITIALIZE_PARAMS", parameters.version, 6, true)
        || !state.is_version("NV_ENC_CONFIG", config.version, 8, true)
        || !state.is_version("NV_ENC_RC_PARAMS", config.rcParams.version, 1, false)
    {
        return Err(Status::INVALID_VERSION);
    }
    let h264 = unsafe { config.encodeCodecConfig.h264Config };
    let chip = &state.nvenc.chip;
    let size = [parameters.encodeWidth, parameters.encodeHeight];
    let fits =
        |at: usize| (chip.min[at] as u32..=chip.max[at] as u32).contains(&size[at]) && size[at].is_multiple_of(2);
    let refresh = h264.enableIntraRefresh() == 1;
    let problem = [
        (!fits(0) || !fits(1), "pictures of a size that there is no encoder for"),
        (parameters.encodeGUID != NV_ENC_CODEC_H264_GUID, "another codec"),
        (parameters.presetGUID != NV_ENC_PRESET_P3_GUID, "another preset"),
        (parameters.enablePTD != 1, "types of pictures that are not its own choice"),
        (parameters.frameRateNum == 0 || parameters.frameRateDen == 0, "no rate of pictures"),
        (config.profileGUID != NV_ENC_H264_PROFILE_BASELINE_GUID, "another profile"),
        (config.frameIntervalP != 1 || config.rcParams.enableLookahead() == 1, "pictures that wait for others"),
        (config.gopLength != INFINITE || h264.idrPeriod != INFINITE, "keyframes that nobody asks for"),
        (h264.repeatSPSPPS() != 1 || h264.disableSPSPPS() == 1, "keyframes without parameter sets"),
        (config.rcParams.rateControlMode != NV_ENC_PARAMS_RC_MODE::NV_ENC_PARAMS_RC_CBR, "another rate control"),
        (config.rcParams.averageBitRate == 0, "no bits"),
        (config.rcParams.averageBitRate > 14_000_000 && h264.level == 31, "more bits than its level has"),
        (config.rcParams.vbvBufferSize > 0 && !chip.custom_vbv, "a bound that it does not know"),
        (refresh && !chip.intra_refresh, "a wave that it does not know"),
        (refresh && h264.intraRefreshCnt >= h264.intraRefreshPeriod, "a wave longer than its period"),
    ]
    .into_iter()
    .find_map(|(wrong, problem)| wrong.then_some(problem));
    if let Some(problem) = problem {
        return Err(state.misused(format!("an encoder is told of {problem}")));
    }
    Ok(Told {
        size,
        bitrate: config.rcParams.averageBitRate,
        vbv: config.rcParams.vbvBufferSize,
        level: h264.level,
        waves: refresh.then_some((h264.intraRefreshPeriod, h264.intraRefreshCnt)),
    })
}

unsafe extern "C" fn initialize(encoder: *mut c_void, parameters: *mut NV_ENC_INITIALIZE_PARAMS) -> Status {
    call(encoder, "NvEncInitializeEncoder", |state, handle| {
        let parameters = unsafe { &*parameters };
        let config = unsafe { &*parameters.encodeConfig };
        let told = match check(state, parameters, config) {
            Ok(told) => told,
            Err(status) => return status,
        };
        let fps = f64::from(parameters.frameRateNum) / f64::from(parameters.frameRateDen);
        let software = Software::new(Codec::H264, Config { bitrate_bps: told.bitrate, fps }).expect("x264 is there");
        let vui = unsafe { config.encodeCodecConfig.h264Config.h264VUIParameters };
        let full = vui.videoSignalTypePresentFlag == 1 && vui.videoFullRangeFlag == 1;
        let matrix = match vui.colourMatrix as u32 {
            6 if vui.colourDescriptionPresentFlag == 1 => ColorMatrix::Bt601,
            1 if vui.colourDescriptionPresentFlag == 1 => ColorMatrix::Bt709,
            9 if vui.colourDescriptionPresentFlag == 1 => ColorMatrix::Bt2020,
            _ => return state.misused("an encoder is not told what codes mean"),
        };
        let color = ColorInfo { matrix, range: if full { ColorRange::Full } else { ColorRange::Limited } };
        let begun = Begun {
            size: told.size,
            fps,
            color,
            software: Arc::new(Mutex::new(software)),
            pictures: 0,
            bitrate: told.bitrate,
            keyframe: true,
        };
        state.nvenc.told = Some(told);
        if state.encoder(handle).begun.replace(begun).is_some() {
            return state.misused("an encoder is told twice what to do");
        }
        Status::SUCCESS
    })
}

unsafe extern "C" fn reconfigure(encoder: *mut c_void, change: *mut NV_ENC_RECONFIGURE_PARAMS) -> Status {
    call(encoder, "NvEncReconfigureEncoder", |state, handle| {
        let change = unsafe { &*change };
        if !state.is_version("NV_ENC_RECONFIGURE_PARAMS", change.version, 1, true) {
            return Status::INVALID_VERSION;
        }
        if !state.nvenc.chip.dynamic_bitrate {
            return Status::UNSUPPORTED_PARAM;
        }
        let parameters = &change.reInitEncodeParams;
        let told = match check(state, parameters, unsafe { &*parameters.encodeConfig }) {
            Ok(told) => told,
            Err(status) => return status,
        };
        state.nvenc.told = Some(told);
        let Some(begun) = &mut state.encoder(handle).begun else {
            return state.misused("an encoder is changed before it is told what to do");
        };
        if begun.size != told.size {
            return state.misused("an encoder is changed to another size");
        }
        begun.bitrate = told.bitrate;
        begun.keyframe |= change.forceIDR() == 1 || change.resetEncoder() == 1;
        Status::SUCCESS
    })
}

unsafe extern "C" fn create_bitstream(encoder: *mut c_void, output: *mut NV_ENC_CREATE_BITSTREAM_BUFFER) -> Status {
    call(encoder, "NvEncCreateBitstreamBuffer", |state, handle| {
        let output = unsafe { &mut *output };
        if !state.is_version("NV_ENC_CREATE_BITSTREAM_BUFFER", output.version, 1, false) {
            return Status::INVALID_VERSION;
        }
        if state.encoder(handle).begun.is_none() {
            return state.misused("a bitstream is made before the encoder is told what to do");
        }
        let made = state.handle();
        state.encoder(handle).bitstreams.insert(made, Bitstream::default());
        output.bitstreamBuffer = made as *mut c_void;
        Status::SUCCESS
    })
}

unsafe extern "C" fn destroy_bitstream(encoder: *mut c_void, output: NV_ENC_OUTPUT_PTR) -> Status {
    call(encoder, "NvEncDestroyBitstreamBuffer", |state, handle| {
        match state.encoder(handle).bitstreams.remove(&(output as u64)) {
            Some(Bitstream { locked: false, .. }) => Status::SUCCESS,
            Some(_) => state.misused("a bitstream is destroyed that is locked"),
            None => state.misused("a bitstream is destroyed that is not there"),
        }
    })
}

unsafe extern "C" fn register(encoder: *mut c_void, resource: *mut NV_ENC_REGISTER_RESOURCE) -> Status {
    call(encoder, "NvEncRegisterResource", |state, handle| {
        let resource = unsafe { &mut *resource };
        if !state.is_version("NV_ENC_REGISTER_RESOURCE", resource.version, 4, false) {
            return Status::INVALID_VERSION;
        }
        let usual = resource.resourceType == NV_ENC_INPUT_RESOURCE_TYPE::NV_ENC_INPUT_RESOURCE_TYPE_CUDADEVICEPTR
            && resource.bufferFormat == NV_ENC_BUFFER_FORMAT::NV_ENC_BUFFER_FORMAT_NV12
            && resource.bufferUsage == NV_ENC_BUFFER_USAGE::NV_ENC_INPUT_IMAGE
            && resource.pitch.is_multiple_of(4)
            && resource.pitch >= resource.width;
        let bytes = (resource.pitch * resource.height / 2 * 3) as usize;
        if let Err(problem) = state.memory.slice(resource.resourceToRegister as u64, bytes) {
            return state.misused(format!("an input is registered, and {problem}"));
        }
        if !usual {
            return state.misused("an input of another kind is registered");
        }
        let made = state.handle();
        let registered = Registered {
            start: resource.resourceToRegister as u64,
            pitch: resource.pitch,
            size: [resource.width, resource.height],
        };
        state.encoder(handle).registered.insert(made, registered);
        resource.registeredResource = made as *mut c_void;
        Status::SUCCESS
    })
}

unsafe extern "C" fn unregister(encoder: *mut c_void, resource: NV_ENC_REGISTERED_PTR) -> Status {
    call(encoder, "NvEncUnregisterResource", |state, handle| {
        let (resource, encoder) = (resource as u64, state.encoder(handle));
        let mapped = encoder.mapped.values().any(|of| *of == resource);
        match encoder.registered.remove(&resource) {
            _ if mapped => state.misused("an input is unregistered that is mapped"),
            Some(gone) => match state.memory.slice(gone.start, 1) {
                Ok(_) => Status::SUCCESS,
                Err(_) => state.misused("an input is unregistered after its memory was freed"),
            },
            None => state.misused("an input is unregistered that is not there"),
        }
    })
}

unsafe extern "C" fn map(encoder: *mut c_void, mapping: *mut NV_ENC_MAP_INPUT_RESOURCE) -> Status {
    call(encoder, "NvEncMapInputResource", |state, handle| {
        let mapping = unsafe { &mut *mapping };
        if !state.is_version("NV_ENC_MAP_INPUT_RESOURCE", mapping.version, 4, false) {
            return Status::INVALID_VERSION;
        }
        let resource = mapping.registeredResource as u64;
        if !state.encoder(handle).registered.contains_key(&resource) {
            return state.misused("an input is mapped that is not registered");
        }
        if state.encoder(handle).mapped.values().any(|of| *of == resource) {
            return state.misused("an input is mapped twice");
        }
        let made = state.handle();
        state.encoder(handle).mapped.insert(made, resource);
        mapping.mappedResource = made as *mut c_void;
        mapping.mappedBufferFmt = NV_ENC_BUFFER_FORMAT::NV_ENC_BUFFER_FORMAT_NV12;
        Status::SUCCESS
    })
}

unsafe extern "C" fn unmap(encoder: *mut c_void, input: NV_ENC_INPUT_PTR) -> Status {
    call(encoder, "NvEncUnmapInputResource", |state, handle| {
        match state.encoder(handle).mapped.remove(&(input as u64)) {
            Some(_) => Status::SUCCESS,
            None => state.misused("an input is unmapped that is not mapped"),
        }
    })
}

unsafe extern "C" fn set_streams(
    encoder: *mut c_void,
    input: NV_ENC_CUSTREAM_PTR,
    output: NV_ENC_CUSTREAM_PTR,
) -> Status {
    call(encoder, "nvEncSetIOCudaStreams", |state, handle| {
        if !state.nvenc.chip.streams {
            return Status::UNSUPPORTED_PARAM;
        }
        state.encoder(handle).streams = Some((input as usize, output as usize));
        Status::SUCCESS
    })
}

unsafe extern "C" fn encode_picture(encoder: *mut c_void, picture: *mut NV_ENC_PIC_PARAMS) -> Status {
    call(encoder, "NvEncEncodePicture", |state, handle| {
        let (version, flags) = unsafe { ((*picture).version, (*picture).encodePicFlags) };
        if !state.is_version("NV_ENC_PIC_PARAMS", version, 6, true) {
            return Status::INVALID_VERSION;
        }
        if flags & END_OF_STREAM != 0 {
            state.encoder(handle).flushed = true;
            return Status::SUCCESS;
        }
        if state.nvenc.chip.busy {
            return Status::ENCODER_BUSY;
        }
        let picture = unsafe { &*picture };
        let bitstream = picture.outputBitstream as u64;
        let encoder = state.encoder(handle);
        let resource = encoder.mapped.get(&(picture.inputBuffer as u64)).map(|of| encoder.registered[of]);
        let Some(resource) = resource else { return state.misused("a picture is encoded that is not mapped") };
        let Some(begun) = &mut encoder.begun else {
            return state.misused("a picture is encoded before the encoder is told what to do");
        };
        let fits = [picture.inputWidth, picture.inputHeight] == begun.size
            && resource.size == begun.size
            && picture.inputPitch == resource.pitch
            && picture.bufferFmt == NV_ENC_BUFFER_FORMAT::NV_ENC_BUFFER_FORMAT_NV12
            && picture.pictureStruct == NV_ENC_PIC_STRUCT::NV_ENC_PIC_STRUCT_FRAME;
        if encoder.flushed || !fits {
            return state.misused("a picture is encoded that is none of its encoder's");
        }
        let keyframe = mem::take(&mut begun.keyframe) || flags & FORCE_IDR != 0;
        // The encoder takes pictures to come at the rate that it was told.
        let time = MediaTime((f64::from(begun.pictures) * 90_000.0 / begun.fps) as u32);
        begun.pictures += 1;
        let (software, bitrate, color) = (Arc::clone(&begun.software), begun.bitrate, begun.color);
        let slot = Slot::default();
        match encoder.bitstreams.get_mut(&bitstream) {
            Some(Bitstream { locked: true, .. }) => return state.misused("a picture is encoded to what is locked"),
            Some(Bitstream { given: Some(_), .. }) => {
                return state.misused("two pictures are encoded to one bitstream");
            }
            Some(output) => output.given = Some(Arc::clone(&slot)),
            None => return state.misused("a picture is encoded to nowhere"),
        }
        // The handles are where the encoder was told.
        let stream = encoder.streams.map(|(input, _)| unsafe { *(input as *const CUstream) } as u64);
        let encode: Job = Box::new(move |memory| {
            let picture = read(memory, &resource);
            let mut software = lock(&software);
            software.set_bitrate(bitrate);
            *lock(&slot) = software.encode(&picture, color, time, keyframe).expect("x264 encodes");
        });
        match stream {
            Some(stream) => {
                let _ = state.give(stream, Work::Do(encode));
            }
            None if state.is_busy() => return state.misused("a picture is encoded that may not be written yet"),
            None => encode(&mut state.memory),
        }
        Status::SUCCESS
    })
}

/// The picture in registered memory.
fn read(memory: &mut Memory, resource: &Registered) -> I420 {
    let [width, height] = resource.size.map(|side| side as usize);
    let mut picture = I420::new(resource.size[0], resource.size[1]);
    let address = |at: usize| resource.start + at as u64 * u64::from(resource.pitch);
    let mut row = |at: usize| memory.slice(address(at), width).expect("it is registered").to_vec();
    let [y, cb, cr] = picture.planes_mut();
    for (at, to) in y.chunks_exact_mut(width).enumerate() {
        to.copy_from_slice(&row(at));
    }
    let chroma = cb.chunks_exact_mut(width / 2).zip(cr.chunks_exact_mut(width / 2));
    for (at, (cb, cr)) in chroma.enumerate() {
        for (pair, (cb, cr)) in row(height + at).chunks_exact(2).zip(cb.iter_mut().zip(cr)) {
            (*cb, *cr) = (pair[0], pair[1]);
        }
    }
    picture
}

unsafe extern "C" fn lock_bitstream(encoder: *mut c_void, lock_of: *mut NV_ENC_LOCK_BITSTREAM) -> Status {
    call(encoder, "NvEncLockBitstream", |state, handle| {
        let (version, output) = unsafe { ((*lock_of).version, (*lock_of).outputBitstream as u64) };
        if !state.is_version("NV_ENC_LOCK_BITSTREAM", version, 1, true) {
            return Status::INVALID_VERSION;
        }
        // It blocks until the encoder is done.
        state.run();
        let nothing = mem::take(&mut state.nvenc.nothing);
        let Some(bitstream) = state.encoder(handle).bitstreams.get_mut(&output) else {
            return state.misused("a bitstream is locked that is not there");
        };
        if bitstream.locked {
            return state.misused("a bitstream is locked twice");
        }
        let Some(encoded) = bitstream.given.take().and_then(|slot| lock(&slot).take()) else {
            return state.misused("a bitstream is locked with no picture in it");
        };
        bitstream.data = if nothing { Vec::new() } else { encoded.data.to_vec() };
        bitstream.locked = true;
        unsafe {
            (*lock_of).bitstreamBufferPtr = bitstream.data.as_mut_ptr().cast();
            (*lock_of).bitstreamSizeInBytes = bitstream.data.len() as u32;
            (*lock_of).pictureType = if encoded.keyframe {
                NV_ENC_PIC_TYPE::NV_ENC_PIC_TYPE_IDR
            } else {
                NV_ENC_PIC_TYPE::NV_ENC_PIC_TYPE_P
            };
        }
        Status::SUCCESS
    })
}

unsafe extern "C" fn unlock_bitstream(encoder: *mut c_void, output: NV_ENC_OUTPUT_PTR) -> Status {
    call(encoder, "NvEncUnlockBitstream", |state, handle| {
        match state.encoder(handle).bitstreams.get_mut(&(output as u64)) {
            Some(bitstream) if bitstream.locked => {
                bitstream.locked = false;
                bitstream.data.fill(UNLOCKED);
                Status::SUCCESS
            }
            _ => state.misused("a bitstream is unlocked that is not locked"),
        }
    })
}

unsafe extern "C" fn last_error(_encoder: *mut c_void) -> *const c_char {
    c"nothing is known of it".as_ptr()
}

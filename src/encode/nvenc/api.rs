//! The functions of NVIDIA's encoder, by their addresses.
#![expect(unsafe_code, reason = "looks functions up by the types of their headers, and calls two of them")]

use std::ffi::{c_char, c_int, c_void};
use std::mem;

use moq_nvenc::sys::nvEncodeAPI::{
    GUID, NV_ENC_CAPS_PARAM, NV_ENC_CREATE_BITSTREAM_BUFFER, NV_ENC_CUSTREAM_PTR, NV_ENC_INITIALIZE_PARAMS,
    NV_ENC_INPUT_PTR, NV_ENC_LOCK_BITSTREAM, NV_ENC_MAP_INPUT_RESOURCE, NV_ENC_OPEN_ENCODE_SESSION_EX_PARAMS,
    NV_ENC_OUTPUT_PTR, NV_ENC_PIC_PARAMS, NV_ENC_PRESET_CONFIG, NV_ENC_RECONFIGURE_PARAMS, NV_ENC_REGISTER_RESOURCE,
    NV_ENC_REGISTERED_PTR, NV_ENC_TUNING_INFO, NV_ENCODE_API_FUNCTION_LIST, NV_ENCODE_API_FUNCTION_LIST_VER,
    NVENCAPI_MAJOR_VERSION, NVENCAPI_MINOR_VERSION, NVENCSTATUS,
};

use crate::device::driver::{self, Library, Version};

use super::{Failure, Status};

/// The library's name.
const LIBRARY: &str = "libnvidia-encode.so.1";
/// The version of NVIDIA's encoder (NVENCODE API) whose structures are used. Drivers know older ones, too.
pub const VERSION: Version =
    Version { major: NVENCAPI_MAJOR_VERSION.cast_signed(), minor: NVENCAPI_MINOR_VERSION.cast_signed() };

/// Why there are no functions of NVIDIA's encoder.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// The library, or what is looked for in it, is not there.
    #[error(transparent)]
    Library(#[from] driver::Missing),
    /// The driver is older than what is needed.
    #[error(
        "NVIDIA's driver is made for version {found} of the encoder's interface, and {needed} is needed: update it"
    )]
    TooOld {
        /// What it is made for.
        found: Version,
        /// What is needed.
        needed: Version,
    },
    /// The library does not say what functions it has.
    #[error("NVIDIA's encoder does not start: {0}")]
    Start(Failure),
    /// The library's list lacks a function.
    #[error("libnvidia-encode.so.1 lacks {0}: update NVIDIA's driver")]
    Function(&'static str),
}

/// The two functions that the library has by name. They fill in the others.
#[derive(Debug, Clone, Copy)]
pub struct Entries {
    /// `NvEncodeAPIGetMaxSupportedVersion`
    pub max_version: unsafe extern "C" fn(*mut u32) -> Status,
    /// `NvEncodeAPICreateInstance`
    pub create_instance: unsafe extern "C" fn(*mut NV_ENCODE_API_FUNCTION_LIST) -> Status,
}

impl Entries {
    /// Opens the library, which stays open until the process ends.
    ///
    /// # Errors
    /// [`driver::Missing::Library`] and [`driver::Missing::Symbol`], in that order.
    pub fn open() -> Result<Self, driver::Missing> {
        Self::open_as(LIBRARY)
    }

    /// [`Self::open`] under another name.
    ///
    /// # Errors
    /// As there.
    pub fn open_as(library: &'static str) -> Result<Self, driver::Missing> {
        let library = Library::open(library)?;
        // SAFETY: the types are those of the header for these names; a status is a number of four bytes.
        unsafe {
            Ok(Self {
                max_version: library
                    .function::<unsafe extern "C" fn(*mut u32) -> Status>("NvEncodeAPIGetMaxSupportedVersion")?,
                create_instance: library.function::<unsafe extern "C" fn(*mut NV_ENCODE_API_FUNCTION_LIST) -> Status>(
                    "NvEncodeAPICreateInstance",
                )?,
            })
        }
    }
}

/// `nvEncSetIOCudaStreams`
type SetStreams = unsafe extern "C" fn(*mut c_void, NV_ENC_CUSTREAM_PTR, NV_ENC_CUSTREAM_PTR) -> Status;

/// Fields of the list, each with its function's arguments. Whoever fills a list by hand brings functions that keep to the
/// header's contracts; the modules above rely on them.
macro_rules! functions {
    ($($field:ident = $listed:ident($($argument:ty),*);)+) => {
        /// The functions of NVIDIA's encoder that are used. All need a current context.
        #[derive(Debug, Clone, Copy)]
        pub struct Api {
            $(
                #[doc = concat!("`", stringify!($listed), "`")]
                pub $field: unsafe extern "C" fn($($argument),*) -> Status,
            )+
            /// `nvEncGetLastErrorString`
            pub last_error: unsafe extern "C" fn(*mut c_void) -> *const c_char,
            /// `nvEncSetIOCudaStreams`, which takes pointers to streams. Without it, encoders don't wait for any.
            pub set_streams: Option<SetStreams>,
        }

        impl Api {
            fn read(list: &NV_ENCODE_API_FUNCTION_LIST) -> Result<Self, Missing> {
                Ok(Self {
                    $($field: {
                        let found = list.$listed.ok_or(Missing::Function(stringify!($listed)))?;
                        // SAFETY: the types differ in that a status is a number instead of an enumeration of four bytes,
                        // which does not have all numbers that a library may return.
                        unsafe {
                            mem::transmute::<
                                unsafe extern "C" fn($($argument),*) -> NVENCSTATUS,
                                unsafe extern "C" fn($($argument),*) -> Status,
                            >(found)
                        }
                    },)+
                    last_error: list.nvEncGetLastErrorString.ok_or(Missing::Function("nvEncGetLastErrorString"))?,
                    // SAFETY: as above.
                    set_streams: list.nvEncSetIOCudaStreams.map(|found| unsafe {
                        mem::transmute::<
                            unsafe extern "C" fn(*mut c_void, NV_ENC_CUSTREAM_PTR, NV_ENC_CUSTREAM_PTR) -> NVENCSTATUS,
                            SetStreams,
                        >(found)
                    }),
                })
            }
        }
    };
}

functions! {
    open_session = nvEncOpenEncodeSessionEx(*mut NV_ENC_OPEN_ENCODE_SESSION_EX_PARAMS, *mut *mut c_void);
    destroy_encoder = nvEncDestroyEncoder(*mut c_void);
    codec_count = nvEncGetEncodeGUIDCount(*mut c_void, *mut u32);
    codecs = nvEncGetEncodeGUIDs(*mut c_void, *mut GUID, u32, *mut u32);
    capability = nvEncGetEncodeCaps(*mut c_void, GUID, *mut NV_ENC_CAPS_PARAM, *mut c_int);
    preset = nvEncGetEncodePresetConfigEx(*mut c_void, GUID, GUID, NV_ENC_TUNING_INFO, *mut NV_ENC_PRESET_CONFIG);
    initialize = nvEncInitializeEncoder(*mut c_void, *mut NV_ENC_INITIALIZE_PARAMS);
    reconfigure = nvEncReconfigureEncoder(*mut c_void, *mut NV_ENC_RECONFIGURE_PARAMS);
    create_bitstream = nvEncCreateBitstreamBuffer(*mut c_void, *mut NV_ENC_CREATE_BITSTREAM_BUFFER);
    destroy_bitstream = nvEncDestroyBitstreamBuffer(*mut c_void, NV_ENC_OUTPUT_PTR);
    lock_bitstream = nvEncLockBitstream(*mut c_void, *mut NV_ENC_LOCK_BITSTREAM);
    unlock_bitstream = nvEncUnlockBitstream(*mut c_void, NV_ENC_OUTPUT_PTR);
    register = nvEncRegisterResource(*mut c_void, *mut NV_ENC_REGISTER_RESOURCE);
    unregister = nvEncUnregisterResource(*mut c_void, NV_ENC_REGISTERED_PTR);
    map = nvEncMapInputResource(*mut c_void, *mut NV_ENC_MAP_INPUT_RESOURCE);
    unmap = nvEncUnmapInputResource(*mut c_void, NV_ENC_INPUT_PTR);
    encode_picture = nvEncEncodePicture(*mut c_void, *mut NV_ENC_PIC_PARAMS);
}

impl Api {
    /// Opens the library and has it fill in its functions.
    ///
    /// # Errors
    /// [`Missing`] says what is not there or too old.
    pub fn open() -> Result<Self, Missing> {
        Self::of(&Entries::open()?)
    }

    /// The functions that a library's entries fill in.
    ///
    /// # Errors
    /// [`Missing`], but for the library.
    pub fn of(entries: &Entries) -> Result<Self, Missing> {
        let started = |call, status| match status {
            Status::SUCCESS => Ok(()),
            status => Err(Missing::Start(Failure { call, status })),
        };
        let mut newest = 0;
        // SAFETY: the number outlives the call.
        started("NvEncodeAPIGetMaxSupportedVersion", unsafe { (entries.max_version)(&raw mut newest) })?;
        let found = Version { major: (newest >> 4).cast_signed(), minor: (newest & 0xf).cast_signed() };
        if found < VERSION {
            return Err(Missing::TooOld { found, needed: VERSION });
        }
        let mut list = NV_ENCODE_API_FUNCTION_LIST { version: NV_ENCODE_API_FUNCTION_LIST_VER, ..Default::default() };
        // SAFETY: the list outlives the call, and its version says which one it is.
        started("NvEncodeAPICreateInstance", unsafe { (entries.create_instance)(&raw mut list) })?;
        Self::read(&list)
    }
}

#[cfg(test)]
mod tests {
    use moq_nvenc::sys::nvEncodeAPI as sys;

    /// The header's formula (`NVENCAPI_STRUCT_VERSION`), with the bit that some structures have in addition.
    const fn version(structure: u32, extended: bool) -> u32 {
        let api = 12 | 1 << 24;
        api | structure << 16 | 0x7 << 28 | if extended { 1 << 31 } else { 0 }
    }

    #[test]
    fn versions_of_structures_are_those_of_the_header() {
        for (found, structure, extended) in [
            (sys::NV_ENCODE_API_FUNCTION_LIST_VER, 2, false),
            (sys::NV_ENC_OPEN_ENCODE_SESSION_EX_PARAMS_VER, 1, false),
            (sys::NV_ENC_CAPS_PARAM_VER, 1, false),
            (sys::NV_ENC_PRESET_CONFIG_VER, 4, true),
            (sys::NV_ENC_CONFIG_VER, 8, true),
            (sys::NV_ENC_RC_PARAMS_VER, 1, false),
            (sys::NV_ENC_INITIALIZE_PARAMS_VER, 6, true),
            (sys::NV_ENC_RECONFIGURE_PARAMS_VER, 1, true),
            (sys::NV_ENC_CREATE_BITSTREAM_BUFFER_VER, 1, false),
            (sys::NV_ENC_REGISTER_RESOURCE_VER, 4, false),
            (sys::NV_ENC_MAP_INPUT_RESOURCE_VER, 4, false),
            (sys::NV_ENC_PIC_PARAMS_VER, 6, true),
            (sys::NV_ENC_LOCK_BITSTREAM_VER, 1, true),
        ] {
            assert_eq!(found, version(structure, extended), "{found:#x} is not version {structure}");
        }
        assert_eq!(sys::NVENCAPI_VERSION, 12 | 1 << 24);
    }

    /// Sizes of version 12.1's structures on 64-bit machines, as its header gives them.
    #[test]
    fn structures_have_the_headers_sizes() {
        assert_eq!(size_of::<sys::NV_ENCODE_API_FUNCTION_LIST>(), 8 + 318 * 8);
        assert_eq!(size_of::<sys::NV_ENC_OPEN_ENCODE_SESSION_EX_PARAMS>(), 8 + 2 * 8 + 254 * 4 + 64 * 8);
        assert_eq!(size_of::<sys::NV_ENC_CAPS_PARAM>(), 64 * 4);
        assert_eq!(size_of::<sys::NV_ENC_CREATE_BITSTREAM_BUFFER>(), 4 * 4 + 2 * 8 + 58 * 4 + 64 * 8);
        assert_eq!(size_of::<sys::NV_ENC_MAP_INPUT_RESOURCE>(), 2 * 4 + 3 * 8 + 252 * 4 + 63 * 8);
        assert_eq!(size_of::<sys::NV_ENC_REGISTER_RESOURCE>(), 6 * 4 + 2 * 8 + 2 * 4 + 8 + 247 * 4 + 4 + 61 * 8);
    }
}

//! The functions of the CUDA driver that are used here, by their addresses.
#![expect(unsafe_code, reason = "opens NVIDIA's libraries and calls what was found in them")]

use std::ffi::{CStr, c_char, c_int, c_uchar, c_uint, c_void};
use std::fmt;

use cudarc::driver::sys::{
    CUDA_MEMCPY2D, CUcontext, CUdevice, CUdeviceptr, CUevent, CUfunction, CUgraph, CUmodule, CUstream,
};

use super::{Failure, Status};

/// The oldest driver that is used: that of CUDA 12.0 (R525).
pub const MIN_VERSION: Version = Version { major: 12, minor: 0 };

/// A table of functions of one of NVIDIA's libraries, named and typed as their headers have them. They return a
/// [`Status`], whose numbers are those of `CUresult`.
///
/// Whoever fills a table by hand brings functions that keep to the headers' contracts; the modules above rely on them.
macro_rules! function_table {
    ($(#[$meta:meta])* $table:ident, $default:literal: $($field:ident = $symbol:literal($($argument:ty),*);)+) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy)]
        pub struct $table {
            $(
                #[doc = concat!("`", $symbol, "`")]
                pub $field: unsafe extern "C" fn($($argument),*) -> $crate::device::Status,
            )+
        }

        impl $table {
            /// Name of the library.
            pub const LIBRARY: &'static str = $default;

            /// Opens the library and looks every function up. The library stays open until the process ends.
            ///
            /// # Errors
            /// [`Missing::Library`](super::driver::Missing::Library) and [`Missing::Symbol`](super::driver::Missing::Symbol),
            /// in that order.
            pub fn open() -> Result<Self, $crate::device::driver::Missing> {
                Self::open_as(Self::LIBRARY)
            }

            /// [`Self::open`] under another name.
            ///
            /// # Errors
            /// As there.
            pub fn open_as(library: &'static str) -> Result<Self, $crate::device::driver::Missing> {
                let library = $crate::device::driver::Library::open(library)?;
                Ok(Self {
                    // SAFETY: the type is that of the header for this name.
                    $($field: unsafe { library.function::<unsafe extern "C" fn($($argument),*) -> $crate::device::Status>($symbol)? },)+
                })
            }
        }
    };
}

pub(crate) use function_table;

function_table! {
    /// The functions of the CUDA driver that are used.
    Driver, "libcuda.so.1":
    init = "cuInit"(c_uint);
    version = "cuDriverGetVersion"(*mut c_int);
    error_name = "cuGetErrorName"(Status, *mut *const c_char);
    device_count = "cuDeviceGetCount"(*mut c_int);
    device = "cuDeviceGet"(*mut CUdevice, c_int);
    device_name = "cuDeviceGetName"(*mut c_char, c_int, CUdevice);
    device_attribute = "cuDeviceGetAttribute"(*mut c_int, c_uint, CUdevice);
    device_memory = "cuDeviceTotalMem_v2"(*mut usize, CUdevice);
    retain_context = "cuDevicePrimaryCtxRetain"(*mut CUcontext, CUdevice);
    release_context = "cuDevicePrimaryCtxRelease_v2"(CUdevice);
    set_context = "cuCtxSetCurrent"(CUcontext);
    push_context = "cuCtxPushCurrent_v2"(CUcontext);
    pop_context = "cuCtxPopCurrent_v2"(*mut CUcontext);
    memory_info = "cuMemGetInfo_v2"(*mut usize, *mut usize);
    allocate = "cuMemAlloc_v2"(*mut CUdeviceptr, usize);
    allocate_pitched = "cuMemAllocPitch_v2"(*mut CUdeviceptr, *mut usize, usize, usize, c_uint);
    free = "cuMemFree_v2"(CUdeviceptr);
    allocate_host = "cuMemAllocHost_v2"(*mut *mut c_void, usize);
    free_host = "cuMemFreeHost"(*mut c_void);
    copy_2d = "cuMemcpy2DAsync_v2"(*const CUDA_MEMCPY2D, CUstream);
    copy_to_device = "cuMemcpyHtoDAsync_v2"(CUdeviceptr, *const c_void, usize, CUstream);
    copy_to_host = "cuMemcpyDtoHAsync_v2"(*mut c_void, CUdeviceptr, usize, CUstream);
    fill = "cuMemsetD8Async"(CUdeviceptr, c_uchar, usize, CUstream);
    create_stream = "cuStreamCreate"(*mut CUstream, c_uint);
    create_stream_with_priority = "cuStreamCreateWithPriority"(*mut CUstream, c_uint, c_int);
    destroy_stream = "cuStreamDestroy_v2"(CUstream);
    synchronize_stream = "cuStreamSynchronize"(CUstream);
    stream_wait_event = "cuStreamWaitEvent"(CUstream, CUevent, c_uint);
    exchange_recording_mode = "cuThreadExchangeStreamCaptureMode"(*mut c_uint);
    is_recording = "cuStreamIsCapturing"(CUstream, *mut c_uint);
    end_recording = "cuStreamEndCapture"(CUstream, *mut CUgraph);
    destroy_graph = "cuGraphDestroy"(CUgraph);
    create_event = "cuEventCreate"(*mut CUevent, c_uint);
    record_event = "cuEventRecord"(CUevent, CUstream);
    query_event = "cuEventQuery"(CUevent);
    synchronize_event = "cuEventSynchronize"(CUevent);
    destroy_event = "cuEventDestroy_v2"(CUevent);
    load_module = "cuModuleLoadData"(*mut CUmodule, *const c_void);
    module_function = "cuModuleGetFunction"(*mut CUfunction, CUmodule, *const c_char);
    unload_module = "cuModuleUnload"(CUmodule);
    launch_kernel = "cuLaunchKernel"(
        CUfunction, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, CUstream, *mut *mut c_void, *mut *mut c_void
    );
}

impl Driver {
    /// Starts the driver and says for which version of CUDA it is made.
    ///
    /// # Errors
    /// [`Missing::Start`] when it does not start, [`Missing::TooOld`] below [`MIN_VERSION`].
    pub fn start(&self) -> Result<Version, Missing> {
        // SAFETY: the function takes no pointers and may be called any number of times.
        self.started("cuInit", unsafe { (self.init)(0) })?;
        let mut version = 0;
        // SAFETY: the number outlives the call.
        self.started("cuDriverGetVersion", unsafe { (self.version)(&raw mut version) })?;
        let found = Version { major: version / 1_000, minor: version % 1_000 / 10 };
        if found < MIN_VERSION {
            return Err(Missing::TooOld { found, needed: MIN_VERSION });
        }
        Ok(found)
    }

    fn started(&self, call: &'static str, status: Status) -> Result<(), Missing> {
        match status {
            Status::SUCCESS => Ok(()),
            Status::NO_DEVICE => Err(Missing::Device),
            status => Err(Missing::Start(self.failure(call, status))),
        }
    }

    /// A failure with the driver's own name for it.
    #[must_use]
    pub fn failure(&self, call: &'static str, status: Status) -> Failure {
        let mut name = std::ptr::null();
        // SAFETY: the pointer outlives the call; the driver sets it to null for what it does not know.
        let known = unsafe { (self.error_name)(status, &raw mut name) } == Status::SUCCESS && !name.is_null();
        // SAFETY: the driver's names are constants, and the library stays open.
        let name = if known { unsafe { CStr::from_ptr(name) }.to_str().ok() } else { None };
        Failure { call, status, name: name.unwrap_or("an unknown error") }
    }
}

/// A version of CUDA.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// Before the point.
    pub major: i32,
    /// After the point.
    pub minor: i32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// What is missing for a GPU to be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// A library is not installed.
    #[error("{library} can't be opened: install NVIDIA's driver ({reason})")]
    Library {
        /// Name of its file.
        library: &'static str,
        /// What the system says.
        reason: String,
    },
    /// A library lacks a function.
    #[error("{library} lacks {symbol}: update NVIDIA's driver")]
    Symbol {
        /// Name of its file.
        library: &'static str,
        /// Name of the function.
        symbol: &'static str,
    },
    /// The driver is older than what is needed.
    #[error("NVIDIA's driver is made for CUDA {found}, and {needed} is needed: update it")]
    TooOld {
        /// What it is made for.
        found: Version,
        /// What is needed.
        needed: Version,
    },
    /// The driver does not start.
    #[error("NVIDIA's driver does not start: {0}")]
    Start(Failure),
    /// The driver knows no GPU.
    #[error("NVIDIA's driver finds no GPU")]
    Device,
    /// There are fewer GPUs.
    #[error("there is no GPU {index}: NVIDIA's driver finds {count}, which are numbered from 0")]
    Index {
        /// What was asked for.
        index: u32,
        /// How many there are.
        count: u32,
    },
}

/// A library that was opened, and stays open until the process ends: NVIDIA's keep threads, and what their functions
/// return may point into them.
#[derive(Debug)]
pub struct Library {
    name: &'static str,
    library: &'static libloading::Library,
}

impl Library {
    /// # Errors
    /// [`Missing::Library`].
    pub fn open(name: &'static str) -> Result<Self, Missing> {
        // SAFETY: the libraries that are named here run nothing at their start but their own initialisation.
        match unsafe { libloading::Library::new(name) } {
            Ok(library) => Ok(Self { name, library: Box::leak(Box::new(library)) }),
            Err(error) => Err(Missing::Library { library: name, reason: error.to_string() }),
        }
    }

    /// The address of a function, as a pointer of type `F`.
    ///
    /// # Safety
    /// `F` is the type of a pointer to the function that has this name.
    ///
    /// # Errors
    /// [`Missing::Symbol`].
    pub unsafe fn function<F: Copy>(&self, symbol: &'static str) -> Result<F, Missing> {
        // SAFETY: the caller's.
        let found = unsafe { self.library.get::<F>(symbol) };
        found.map(|found| *found).map_err(|_| Missing::Symbol { library: self.name, symbol })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_is_not_there_is_named() {
        let missing = Driver::open_as("libsaccade-has-no-such.so.1").unwrap_err();
        assert!(
            matches!(&missing, Missing::Library { library: "libsaccade-has-no-such.so.1", reason } if !reason.is_empty())
        );
        assert!(missing.to_string().contains("install NVIDIA's driver"), "{missing}");
    }

    #[test]
    fn a_function_that_is_not_there_is_named() {
        let missing = Driver::open_as("libc.so.6").unwrap_err();
        assert_eq!(missing, Missing::Symbol { library: "libc.so.6", symbol: "cuInit" });
        assert_eq!(missing.to_string(), "libc.so.6 lacks cuInit: update NVIDIA's driver");
    }

    #[test]
    fn versions_are_ordered_and_shown_as_nvidia_writes_them() {
        assert!(Version { major: 11, minor: 8 } < MIN_VERSION && Version { major: 12, minor: 2 } > MIN_VERSION);
        assert_eq!(MIN_VERSION.to_string(), "12.0");
    }
}

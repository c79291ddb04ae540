//! One GPU, whose primary context is shared with every library in the process that uses it, ONNX Runtime's among them.
#![expect(unsafe_code, reason = "calls the CUDA driver")]

use std::cell::Cell;
use std::ffi::{CStr, c_uint};
use std::fmt;
use std::marker::PhantomData;
use std::ptr;
use std::sync::{Arc, OnceLock};

use cudarc::driver::sys::{CUcontext, CUdevice};

use super::driver::{Driver, Missing, Version};
use super::{Error, Loss, Status};

/// `CU_STREAM_CAPTURE_MODE_THREAD_LOCAL`: while another thread records the work of a stream, this one may do all that it may
/// otherwise. In the mode that threads begin with, calls that might disturb a recording, getting memory among them, fail and
/// spoil it (`cuThreadExchangeStreamCaptureMode` in the documentation of CUDA's driver).
const MODE_OF_ITS_OWN: c_uint = 1;

thread_local! {
    /// Whether this thread has that mode, which the driver keeps for a thread whatever the GPU.
    static HAS_MODE: Cell<bool> = const { Cell::new(false) };
}

/// One GPU and its primary context, which it keeps until it is dropped.
///
/// An error that stays, see [`Status::is_sticky`], marks it as lost for good; then every further call says so at once and
/// does not reach the driver.
pub struct Device {
    driver: Driver,
    index: u32,
    device: CUdevice,
    context: CUcontext,
    name: String,
    memory: u64,
    version: Version,
    lost: OnceLock<Loss>,
}

// SAFETY: the driver's functions may be called on any thread, and a context may be current on several at a time.
unsafe impl Send for Device {}
// SAFETY: as above.
unsafe impl Sync for Device {}

impl Device {
    /// Starts the driver and takes hold of the primary context of GPU `index`, counted from 0.
    ///
    /// # Errors
    /// [`Missing`] says what is not there or too old.
    pub fn open(driver: Driver, index: u32) -> Result<Arc<Self>, Missing> {
        let version = driver.start()?;
        let checked = |call, status| match status {
            Status::SUCCESS => Ok(()),
            status => Err(Missing::Start(driver.failure(call, status))),
        };
        let mut count = 0;
        // SAFETY: here and below, what the driver writes to outlives the call.
        checked("cuDeviceGetCount", unsafe { (driver.device_count)(&raw mut count) })?;
        let count = u32::try_from(count).unwrap_or(0);
        let number = i32::try_from(index).ok().filter(|_| index < count);
        let number = match number {
            None if count == 0 => return Err(Missing::Device),
            None => return Err(Missing::Index { index, count }),
            Some(number) => number,
        };
        let mut device = 0;
        // SAFETY: as above.
        checked("cuDeviceGet", unsafe { (driver.device)(&raw mut device, number) })?;
        let mut name = [0_u8; 128];
        // SAFETY: the driver writes a string of at most the length that it is told, its end included.
        checked("cuDeviceGetName", unsafe { (driver.device_name)(name.as_mut_ptr().cast(), 128, device) })?;
        let name = CStr::from_bytes_until_nul(&name).unwrap_or_default().to_string_lossy().into_owned();
        let mut memory = 0;
        // SAFETY: as above.
        checked("cuDeviceTotalMem", unsafe { (driver.device_memory)(&raw mut memory, device) })?;
        let mut context = ptr::null_mut();
        // SAFETY: as above; the context is released when the GPU is dropped.
        checked("cuDevicePrimaryCtxRetain", unsafe { (driver.retain_context)(&raw mut context, device) })?;
        let (memory, lost) = (memory as u64, OnceLock::new());
        Ok(Arc::new(Self { driver, index, device, context, name, memory, version, lost }))
    }

    /// The driver's functions.
    #[must_use]
    pub const fn driver(&self) -> &Driver {
        &self.driver
    }

    /// The GPU's number, from 0.
    #[must_use]
    pub const fn index(&self) -> u32 {
        self.index
    }

    /// The GPU's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its memory, in bytes.
    #[must_use]
    pub const fn memory(&self) -> u64 {
        self.memory
    }

    /// The version of CUDA that the driver is made for.
    #[must_use]
    pub const fn version(&self) -> Version {
        self.version
    }

    /// The primary context, for libraries that take one. It lives as long as this.
    #[must_use]
    pub const fn context(&self) -> CUcontext {
        self.context
    }

    /// One of the driver's `CU_DEVICE_ATTRIBUTE_…` values.
    ///
    /// # Errors
    /// Any [`Error`] of the driver, among them that it does not know the attribute.
    pub fn attribute(&self, attribute: u32) -> Result<i32, Error> {
        self.alive()?;
        let mut value = 0;
        // SAFETY: the value outlives the call.
        let status = unsafe { (self.driver.device_attribute)(&raw mut value, attribute as c_uint, self.device) };
        self.check("cuDeviceGetAttribute", status)?;
        Ok(value)
    }

    /// Memory that is free now, of all that is there, in bytes.
    ///
    /// # Errors
    /// Any [`Error`] of the driver.
    pub fn free_memory(&self) -> Result<u64, Error> {
        let _current = self.enter()?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: both numbers outlive the call, and the context is current.
        self.check("cuMemGetInfo", unsafe { (self.driver.memory_info)(&raw mut free, &raw mut total) })?;
        Ok(free as u64)
    }

    /// Makes the context current on this thread until the guard is dropped. From then on, the thread is not hindered by others
    /// that record the work of a stream, nor does it spoil what they record, but that none may wait for the whole GPU
    /// meanwhile.
    ///
    /// # Errors
    /// [`Error::Lost`] once the GPU is.
    pub fn enter(&self) -> Result<Current<'_>, Error> {
        self.alive()?;
        // SAFETY: the context is retained.
        self.check("cuCtxPushCurrent", unsafe { (self.driver.push_context)(self.context) })?;
        let current = Current { gpu: self, thread: PhantomData };
        if !HAS_MODE.get() {
            let mut mode = MODE_OF_ITS_OWN;
            // SAFETY: the number, to which the driver writes the mode before, outlives the call.
            let status = unsafe { (self.driver.exchange_recording_mode)(&raw mut mode) };
            self.check("cuThreadExchangeStreamCaptureMode", status)?;
            HAS_MODE.set(true);
        }
        Ok(current)
    }

    /// What a call's status means for this GPU. An error that stays marks it as lost.
    ///
    /// # Errors
    /// Anything but success.
    pub fn check(&self, call: &'static str, status: Status) -> Result<(), Error> {
        match status {
            Status::SUCCESS => Ok(()),
            Status::OUT_OF_MEMORY => Err(Error::OutOfMemory),
            status if status.is_sticky() => Err(self.lose(Loss::Failed(self.driver.failure(call, status)))),
            status => Err(Error::Failed(self.driver.failure(call, status))),
        }
    }

    /// Whether the GPU can still be used.
    ///
    /// # Errors
    /// [`Error::Lost`] once it can't.
    pub fn alive(&self) -> Result<(), Error> {
        self.lost.get().map_or(Ok(()), |loss| Err(Error::Lost(*loss)))
    }

    /// Why the GPU is lost, if it is.
    #[must_use]
    pub fn loss(&self) -> Option<Loss> {
        self.lost.get().copied()
    }

    /// Marks the GPU as lost; the first reason stays.
    pub(super) fn lose(&self, loss: Loss) -> Error {
        if self.lost.set(loss).is_ok() {
            tracing::error!(gpu = self.index, %loss, "a GPU is lost; what ran on it goes on without, until the server is restarted");
        }
        Error::Lost(*self.lost.get_or_init(|| loss))
    }

    /// Calls the driver to give something back. Nothing is given back of a lost GPU: its calls fail, or wait for ever.
    pub fn give_back(&self, call: &'static str, give: impl FnOnce(&Driver) -> Status) {
        let Ok(_current) = self.enter() else { return };
        if let Err(error) = self.check(call, give(&self.driver)) {
            tracing::warn!(gpu = self.index, %error, "something of a GPU could not be given back");
        }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: it was retained once, and nothing that needs it is left: all of that holds the GPU.
        let status = unsafe { (self.driver.release_context)(self.device) };
        if status != Status::SUCCESS && self.lost.get().is_none() {
            tracing::warn!(gpu = self.index, status = status.0, "a GPU's context could not be released");
        }
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device")
            .field("index", &self.index)
            .field("name", &self.name)
            .field("lost", &self.lost.get())
            .finish()
    }
}

/// A GPU's context is current on this thread while this lives.
#[derive(Debug)]
pub struct Current<'a> {
    gpu: &'a Device,
    /// It belongs to its thread.
    thread: PhantomData<*const ()>,
}

impl Drop for Current<'_> {
    fn drop(&mut self) {
        let mut popped = ptr::null_mut();
        // SAFETY: the pointer outlives the call.
        let status = unsafe { (self.gpu.driver.pop_context)(&raw mut popped) };
        debug_assert!(
            status != Status::SUCCESS || popped == self.gpu.context,
            "guards are dropped in the reverse order of their making"
        );
    }
}

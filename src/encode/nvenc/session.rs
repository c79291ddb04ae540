//! A session with NVIDIA's encoder.
#![expect(unsafe_code, reason = "calls NVIDIA's encoder")]

use std::ffi::{CStr, c_void};
use std::fmt;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use moq_nvenc::sys::nvEncodeAPI::{
    NV_ENC_DEVICE_TYPE, NV_ENC_OPEN_ENCODE_SESSION_EX_PARAMS, NV_ENC_OPEN_ENCODE_SESSION_EX_PARAMS_VER,
    NV_ENC_PIC_FLAGS, NV_ENC_PIC_PARAMS, NV_ENC_PIC_PARAMS_VER, NV_ENC_PIC_STRUCT, NVENCAPI_VERSION,
};

use crate::clock;
use crate::device::{self, Device};

use super::api::Api;
use super::hardware::Place;
use super::{Error, Failure, Status};

/// How long an encoder that is busy with other sessions' pictures is asked again.
const BUSY: Duration = Duration::from_millis(250);
/// How long the thread sleeps between two questions.
const NAP: Duration = Duration::from_millis(1);

/// A session of the encoder, which counts among those that the driver allows.
pub(super) struct Session {
    gpu: Arc<Device>,
    api: Api,
    encoder: *mut c_void,
    /// Whether it was told what to encode.
    begun: bool,
    /// Given up after the session is.
    _place: Place,
}

// SAFETY: a session belongs to no thread, and is used on one at a time, since whoever has it is not shared.
unsafe impl Send for Session {}

impl Session {
    /// # Errors
    /// [`Error::NoEncoder`], [`Error::Full`]; any other of the encoder or the GPU.
    pub(super) fn open(gpu: &Arc<Device>, api: Api, place: Place) -> Result<Self, Error> {
        let _current = gpu.enter()?;
        let mut parameters = NV_ENC_OPEN_ENCODE_SESSION_EX_PARAMS {
            version: NV_ENC_OPEN_ENCODE_SESSION_EX_PARAMS_VER,
            deviceType: NV_ENC_DEVICE_TYPE::NV_ENC_DEVICE_TYPE_CUDA,
            device: gpu.context().cast(),
            apiVersion: NVENCAPI_VERSION,
            ..Default::default()
        };
        let mut encoder = ptr::null_mut();
        // SAFETY: both outlive the call; the context is current, and outlives the session.
        let status = unsafe { (api.open_session)(&raw mut parameters, &raw mut encoder) };
        // Also what was not opened has to be given back.
        let session =
            (!encoder.is_null()).then(|| Self { gpu: Arc::clone(gpu), api, encoder, begun: false, _place: place });
        match status {
            Status::SUCCESS => session.ok_or(Error::Failed(Failure { call: "NvEncOpenEncodeSessionEx", status })),
            status if status.is_no_encoder() => Err(Error::NoEncoder),
            status if status.is_full() => Err(Error::Full),
            status => Err(failed(gpu, "NvEncOpenEncodeSessionEx", status)),
        }
    }

    /// Calls a function of the encoder with the context current.
    ///
    /// # Errors
    /// [`Error::Full`] where there is no memory; [`Error::Failed`], and [`Error::Device`] where it is the GPU that failed or
    /// did before.
    pub(super) fn call(&self, call: &'static str, act: impl FnOnce(&Api, *mut c_void) -> Status) -> Result<(), Error> {
        let _current = self.gpu.enter()?;
        match act(&self.api, self.encoder) {
            Status::SUCCESS => Ok(()),
            // It is no failure, but nothing that is to be told of it.
            status @ Status::ENCODER_BUSY => Err(Error::Failed(Failure { call, status })),
            status => {
                // SAFETY: the session lives; the string is valid until the next call, and it is read before.
                let detail = unsafe { (self.api.last_error)(self.encoder) };
                // SAFETY: as above.
                let detail = (!detail.is_null()).then(|| unsafe { CStr::from_ptr(detail) }.to_string_lossy());
                tracing::debug!(call, status = status.0, detail = detail.as_deref(), "the GPU's encoder failed");
                Err(failed(&self.gpu, call, status))
            }
        }
    }

    pub(super) const fn api(&self) -> &Api {
        &self.api
    }

    /// From now on it may have pictures in it.
    pub(super) const fn begin(&mut self) {
        self.begun = true;
    }

    /// Gives it a picture, or the end of the stream. It may have to finish others' first.
    ///
    /// # Safety
    /// The structure is as the encoder wants it, and what it points to stays until the picture is encoded.
    pub(super) unsafe fn give(&self, picture: *mut NV_ENC_PIC_PARAMS) -> Result<(), Error> {
        let end = clock::now() + BUSY;
        loop {
            // SAFETY: the caller's.
            let given =
                self.call("NvEncEncodePicture", |api, encoder| unsafe { (api.encode_picture)(encoder, picture) });
            match given {
                Err(Error::Failed(Failure { status: Status::ENCODER_BUSY, .. })) if clock::now() < end => {
                    thread::park_timeout(NAP);
                }
                given => return given,
            }
        }
    }

    /// Has it finish what it was given.
    fn flush(&self) -> Result<(), Error> {
        let mut end = MaybeUninit::<NV_ENC_PIC_PARAMS>::zeroed();
        let raw = end.as_mut_ptr();
        // SAFETY: the fields are within the structure, which is of zeros otherwise.
        unsafe {
            (*raw).version = NV_ENC_PIC_PARAMS_VER;
            (*raw).encodePicFlags = NV_ENC_PIC_FLAGS::NV_ENC_PIC_FLAG_EOS as u32;
            (*raw).pictureStruct = NV_ENC_PIC_STRUCT::NV_ENC_PIC_STRUCT_FRAME;
        }
        // SAFETY: the structure outlives the call, and points to nothing.
        unsafe { self.give(raw) }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Nothing is given back of a lost GPU: its calls fail, or wait for ever.
        if self.gpu.alive().is_err() {
            return;
        }
        if self.begun
            && let Err(error) = self.flush()
        {
            tracing::debug!(gpu = self.gpu.index(), %error, "an encoder was not flushed");
        }
        // SAFETY: nobody else has the handle, and all that was made with it is given back.
        let destroyed = self.call("NvEncDestroyEncoder", |api, encoder| unsafe { (api.destroy_encoder)(encoder) });
        if let Err(error) = destroyed {
            tracing::warn!(gpu = self.gpu.index(), %error, "an encoder of a GPU could not be given back");
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session({:?})", self.encoder)
    }
}

/// What a failed call means. The encoder tells failures of the GPU as its own: the driver is asked whether it is one.
fn failed(gpu: &Device, call: &'static str, status: Status) -> Error {
    match gpu.free_memory() {
        Err(error @ device::Error::Lost(_)) => Error::Device(error),
        _ if status == Status::OUT_OF_MEMORY => Error::Full,
        _ => Error::Failed(Failure { call, status }),
    }
}

//! NVIDIA's parser of bitstreams, which runs on the processor and calls back for what it finds.
#![expect(unsafe_code, reason = "calls NVIDIA's parser, and is called by it")]

use std::ffi::{c_int, c_ulong, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::{fmt, mem};

use moq_nvenc::sys::cuviddec::CUVIDPICPARAMS;
use moq_nvenc::sys::nvcuvid::{
    CUVIDEOFORMAT, CUVIDPARSERDISPINFO, CUVIDPARSERPARAMS, CUVIDSOURCEDATAPACKET, CUvideopacketflags, CUvideoparser,
};

use crate::device::Status;

use super::Codec;
use super::format::{Coded, Format};
use super::hardware::Hardware;

/// What a parser tells. It is called on the thread that parses, and only while it does.
pub(super) trait Events {
    /// A sequence begins, or changes. How many pictures the decoder keeps, or `None` to give up.
    fn sequence(&mut self, format: Option<Format>) -> Option<u32>;

    /// A picture, or one field of it, is to be decoded with these parameters, which are valid during the call. Whether to
    /// go on.
    fn decode(&mut self, coded: Coded, parameters: NonNull<CUVIDPICPARAMS>) -> bool;

    /// A picture that was decoded is to be shown. Whether to go on.
    fn show(&mut self, index: i32) -> bool;
}

/// A parser of one stream. What it found before goes when it is reset.
pub(super) struct Parser<E: Events> {
    hardware: Arc<Hardware>,
    codec: Codec,
    parser: Option<CUvideoparser>,
    /// From a box. NVIDIA's parser has this pointer, too, and uses it while it parses.
    events: NonNull<Told<E>>,
}

struct Told<E> {
    codec: Codec,
    events: E,
    panicked: bool,
}

// SAFETY: a parser belongs to no thread, and is reached through `&mut self`.
unsafe impl<E: Events + Send> Send for Parser<E> {}

impl<E: Events> Parser<E> {
    pub(super) fn new(hardware: &Arc<Hardware>, codec: Codec, events: E) -> Self {
        let events = Box::new(Told { codec, events, panicked: false });
        let events = NonNull::from(Box::leak(events));
        Self { hardware: Arc::clone(hardware), codec, parser: None, events }
    }

    pub(super) fn events(&mut self) -> &mut E {
        // SAFETY: it is there until this is dropped, and NVIDIA's parser uses it only while it parses.
        unsafe { &mut self.events.as_mut().events }
    }

    /// Parses one unit, which holds one whole picture. The calls to [`Events`] come before this returns.
    ///
    /// # Errors
    /// The status of NVIDIA's parser, or [`Status::UNKNOWN`] when something panicked.
    pub(super) fn parse(&mut self, unit: &[u8]) -> Result<(), Status> {
        let parser = match self.parser {
            Some(parser) => parser,
            None => *self.parser.insert(self.open()?),
        };
        let mut packet = CUVIDSOURCEDATAPACKET {
            flags: CUvideopacketflags::CUVID_PKT_ENDOFPICTURE as c_ulong,
            payload_size: unit.len() as c_ulong,
            payload: unit.as_ptr(),
            timestamp: 0,
        };
        // SAFETY: the parser lives; the packet and the unit outlive the call. It calls back with the pointer to the events,
        // which nothing else uses meanwhile.
        let status = unsafe { (self.hardware.api().parse)(parser, &raw mut packet) };
        // SAFETY: as in `events`.
        let panicked = mem::take(unsafe { &mut self.events.as_mut().panicked });
        match status {
            _ if panicked => Err(Status::UNKNOWN),
            Status::SUCCESS => Ok(()),
            status => Err(status),
        }
    }

    fn open(&self) -> Result<CUvideoparser, Status> {
        // SAFETY: all of it may be zero; functions are none then, and the enumeration has a variant of that number.
        let mut parameters: CUVIDPARSERPARAMS = unsafe { mem::zeroed() };
        parameters.CodecType = self.codec.cuvid();
        // The callback for sequences says how many there are.
        parameters.ulMaxNumDecodeSurfaces = 1;
        parameters.ulMaxDisplayDelay = 0;
        parameters.pUserData = self.events.as_ptr().cast();
        parameters.pfnSequenceCallback = Some(on_sequence::<E>);
        parameters.pfnDecodePicture = Some(on_decode::<E>);
        // H.264 and HEVC order pictures for showing, and wait for others to do so. Here they are shown as they are decoded,
        // and not kept for later.
        if !matches!(self.codec, Codec::H264 | Codec::Hevc) {
            parameters.pfnDisplayPicture = Some(on_show::<E>);
        }
        let mut parser = ptr::null_mut();
        // SAFETY: both outlive the call; the events outlive the parser.
        match unsafe { (self.hardware.api().create_parser)(&raw mut parser, &raw mut parameters) } {
            Status::SUCCESS => Ok(parser),
            status => Err(status),
        }
    }

    /// Forgets what was parsed. The next unit has to be a keyframe.
    pub(super) fn reset(&mut self) {
        if let Some(parser) = self.parser.take() {
            // SAFETY: it lives, and nobody uses it afterwards.
            let status = unsafe { (self.hardware.api().destroy_parser)(parser) };
            if status != Status::SUCCESS {
                tracing::warn!(status = status.0, "a parser of the GPU's decoder could not be closed");
            }
        }
    }
}

impl<E: Events> Drop for Parser<E> {
    fn drop(&mut self) {
        self.reset();
        // SAFETY: it came from a box, and the parser that had it, too, is gone.
        drop(unsafe { Box::from_raw(self.events.as_ptr()) });
    }
}

impl<E: Events> fmt::Debug for Parser<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Parser({})", self.codec)
    }
}

/// Calls what a callback is for, and keeps panics from NVIDIA's code.
///
/// # Safety
/// `user` is the pointer that the parser was opened with, while it parses.
unsafe fn tell<E: Events>(user: *mut c_void, what: impl FnOnce(Codec, &mut E) -> c_int) -> c_int {
    // SAFETY: the caller's; `parse` holds the only other way to it and does not use it meanwhile.
    let told = unsafe { &mut *user.cast::<Told<E>>() };
    let (codec, events) = (told.codec, &mut told.events);
    catch_unwind(AssertUnwindSafe(|| what(codec, events))).unwrap_or_else(|_| {
        told.panicked = true;
        0
    })
}

unsafe extern "C" fn on_sequence<E: Events>(user: *mut c_void, format: *mut CUVIDEOFORMAT) -> c_int {
    let sequence = |codec, events: &mut E| {
        // SAFETY: this is the callback for sequences.
        let format = unsafe { Format::read(codec, format) };
        events.sequence(format).and_then(|pictures| c_int::try_from(pictures).ok()).unwrap_or(0)
    };
    // SAFETY: the parser gives back what it was opened with.
    unsafe { tell(user, sequence) }
}

unsafe extern "C" fn on_decode<E: Events>(user: *mut c_void, parameters: *mut CUVIDPICPARAMS) -> c_int {
    let decode = |codec, events: &mut E| {
        let Some(pointer) = NonNull::new(parameters) else { return 0 };
        // SAFETY: this is the callback for pictures.
        let coded = unsafe { Coded::read(codec, parameters) };
        c_int::from(events.decode(coded, pointer))
    };
    // SAFETY: the parser gives back what it was opened with.
    unsafe { tell(user, decode) }
}

unsafe extern "C" fn on_show<E: Events>(user: *mut c_void, shown: *mut CUVIDPARSERDISPINFO) -> c_int {
    let show = |_, events: &mut E| {
        // SAFETY: this is the callback for showing; a null pointer stands for the stream's end.
        let Some(shown) = (unsafe { shown.as_ref() }) else { return 1 };
        c_int::from(events.show(shown.picture_index))
    };
    // SAFETY: the parser gives back what it was opened with.
    unsafe { tell(user, show) }
}

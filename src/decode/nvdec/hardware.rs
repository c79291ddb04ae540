//! What all streams that one GPU decodes have in common.
#![expect(unsafe_code, reason = "calls NVIDIA's decoder")]

use std::ffi::c_ulong;
use std::fmt;
use std::mem;
use std::ptr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use moq_nvenc::sys::cuviddec::{
    CUVIDDECODECAPS, CUVIDDECODECREATEINFO, CUVIDRECONFIGUREDECODERINFO, CUvideodecoder, cudaVideoChromaFormat,
    cudaVideoCreateFlags, cudaVideoDeinterlaceMode, cudaVideoSurfaceFormat,
};

use crate::device::kernels::Program;
use crate::device::{self, Device, PinnedPool, Stream, SurfacePool};
use crate::frame::WayDown;

use super::api::Api;
use super::{Capability, Codec, Error};

/// Pictures that a decoder maps at a time. One is copied; the second lets the driver prepare the next meanwhile.
const OUTPUTS: c_ulong = 2;

/// How much of a GPU decoding may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Decoders at a time, those that wait for a session included (512). Each takes memory for the pictures it keeps.
    pub decoders: usize,
    /// Decoders that wait for a session (16): making one takes a fraction of a second, changing one to another size does
    /// not.
    pub idle_decoders: usize,
    /// Bytes of the GPU's memory for decoded pictures, of all sessions together (2 GiB).
    pub surface_bytes: usize,
    /// Decoded pictures of one session at a time (8): those in its queues, in the model and with the encoder.
    pub session_surfaces: usize,
    /// Bytes of host memory through which pictures come back from the GPU (256 MiB).
    pub host_bytes: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { decoders: 512, idle_decoders: 16, surface_bytes: 2 << 30, session_surfaces: 8, host_bytes: 256 << 20 }
    }
}

/// A GPU's decoders, which all sessions share.
pub struct Hardware {
    gpu: Arc<Device>,
    api: Api,
    bounds: Bounds,
    /// What was found out, by codec.
    capabilities: Mutex<[Option<Option<Capability>>; Codec::ALL.len()]>,
    /// Decoders that wait for a stream; the one that came last is at the end.
    idle: Mutex<Vec<Opened>>,
    open: Arc<AtomicUsize>,
    made: AtomicU64,
    reused: AtomicU64,
    surfaces: Arc<SurfacePool>,
    host: Arc<PinnedPool>,
    /// By which pictures come to the host; those that nobody else holds are spare. They stay, so that whoever drops a
    /// session's last picture need not wait for the driver.
    ways: Mutex<Vec<Arc<WayDown>>>,
    /// What turns pictures there.
    program: Option<Arc<Program>>,
}

impl Hardware {
    /// The decoders of a GPU.
    #[must_use]
    pub fn new(gpu: &Arc<Device>, api: Api, bounds: Bounds) -> Arc<Self> {
        Arc::new(Self::plain(gpu, api, bounds))
    }

    /// The same, with kernels that turn pictures there; without them, those that do not stand upright come to the host.
    #[must_use]
    pub fn with_kernels(program: &Arc<Program>, api: Api, bounds: Bounds) -> Arc<Self> {
        Arc::new(Self { program: Some(Arc::clone(program)), ..Self::plain(program.device(), api, bounds) })
    }

    fn plain(gpu: &Arc<Device>, api: Api, bounds: Bounds) -> Self {
        Self {
            gpu: Arc::clone(gpu),
            api,
            bounds,
            capabilities: Mutex::default(),
            idle: Mutex::default(),
            open: Arc::default(),
            made: AtomicU64::new(0),
            reused: AtomicU64::new(0),
            surfaces: SurfacePool::new(gpu, bounds.surface_bytes),
            host: PinnedPool::new(gpu, bounds.host_bytes),
            ways: Mutex::default(),
            program: None,
        }
    }

    /// A way for a session's pictures to the host, which is its own until it drops it.
    pub(super) fn way(&self) -> Result<Arc<WayDown>, device::Error> {
        let mut ways = self.ways.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(spare) = ways.iter().find(|way| Arc::strong_count(way) == 1) {
            return Ok(Arc::clone(spare));
        }
        let way = Arc::new(WayDown { buffers: Arc::clone(&self.host), stream: Stream::new(&self.gpu)? });
        ways.push(Arc::clone(&way));
        Ok(way)
    }

    /// Kernels, if there are.
    pub(super) const fn program(&self) -> Option<&Arc<Program>> {
        self.program.as_ref()
    }

    /// The GPU.
    #[must_use]
    pub const fn device(&self) -> &Arc<Device> {
        &self.gpu
    }

    /// Where decoded pictures lie.
    #[must_use]
    pub const fn surfaces(&self) -> &Arc<SurfacePool> {
        &self.surfaces
    }

    /// Host memory through which pictures come back.
    #[must_use]
    pub const fn host(&self) -> &Arc<PinnedPool> {
        &self.host
    }

    /// Decoders that were made, and how often one was used again instead.
    #[must_use]
    pub fn made_and_reused(&self) -> (u64, u64) {
        (self.made.load(Ordering::Relaxed), self.reused.load(Ordering::Relaxed))
    }

    /// Decoders that there are now, those that wait for a session included.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    /// What the GPU decodes of a codec. It is asked once.
    ///
    /// # Errors
    /// [`Error::NoDecoder`] when it decodes none of it; [`Error::Device`] when it does not answer.
    pub fn capability(&self, codec: Codec) -> Result<Capability, Error> {
        let mut known = self.capabilities.lock().unwrap_or_else(PoisonError::into_inner);
        let known = &mut known[codec as usize];
        let capability = match *known {
            Some(capability) => capability,
            None => *known.insert(self.ask(codec)?),
        };
        capability.ok_or(Error::NoDecoder(codec))
    }

    fn ask(&self, codec: Codec) -> Result<Option<Capability>, Error> {
        let _current = self.gpu.enter()?;
        // SAFETY: all of it may be zero; the enumerations have a variant of that number.
        let mut asked: CUVIDDECODECAPS = unsafe { mem::zeroed() };
        asked.eCodecType = codec.cuvid();
        asked.eChromaFormat = cudaVideoChromaFormat::cudaVideoChromaFormat_420;
        // SAFETY: the structure outlives the call, and the context is current.
        self.gpu.check("cuvidGetDecoderCaps", unsafe { (self.api.capabilities)(&raw mut asked) })?;
        Ok(Capability::read(&asked))
    }

    pub(super) const fn api(&self) -> &Api {
        &self.api
    }

    pub(super) const fn bounds(&self) -> &Bounds {
        &self.bounds
    }

    /// A decoder that takes pictures of this coded size and keeps this many at a time: one that waits, which
    /// [`Opened::reconfigure`] has to be called on, or a new one. Called while a parser is in its callback for sequences.
    pub(super) fn take(&self, codec: Codec, coded: [u32; 2], pictures: u32) -> Result<Opened, Error> {
        let waiting = {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            let at = idle.iter().rposition(|opened| opened.fits(codec, coded, pictures));
            at.map(|at| idle.remove(at))
        };
        if let Some(mut opened) = waiting {
            match opened.reconfigure(coded) {
                Ok(()) => {
                    self.reused.fetch_add(1, Ordering::Relaxed);
                    return Ok(opened);
                }
                Err(error) => tracing::debug!(gpu = self.gpu.index(), %error, "a decoder could not be used again"),
            }
        }
        self.gpu.alive()?;
        let place = self.place().or_else(|| self.make_room().then(|| self.place()).flatten()).ok_or(Error::Full)?;
        let room = self.capability(codec)?.room(coded);
        let opened = match Opened::new(self, place, codec, coded, room, pictures) {
            Err((Error::Device(device::Error::OutOfMemory), place)) => {
                // What is kept for later is worth less than a stream that comes now.
                while self.make_room() {}
                self.surfaces.shrink();
                Opened::new(self, place, codec, coded, coded, pictures)
            }
            other => other,
        };
        let opened = opened.map_err(|(error, _)| match error {
            Error::Device(device::Error::OutOfMemory) => Error::Full,
            error => error,
        })?;
        self.made.fetch_add(1, Ordering::Relaxed);
        Ok(opened)
    }

    /// Keeps a decoder that nothing is done with any more for another stream.
    pub(super) fn give(&self, opened: Opened) {
        if self.gpu.alive().is_err() {
            return;
        }
        let surplus = {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.push(opened);
            (idle.len() > self.bounds.idle_decoders).then(|| idle.remove(0))
        };
        drop(surplus);
    }

    fn place(&self) -> Option<Place> {
        let taken = |open: usize| (open < self.bounds.decoders).then_some(open + 1);
        self.open.fetch_update(Ordering::AcqRel, Ordering::Acquire, taken).ok()?;
        Some(Place(Arc::clone(&self.open)))
    }

    /// Gives up the decoder that waits for the longest time. Whether there was one.
    fn make_room(&self) -> bool {
        let oldest = {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            if idle.is_empty() { None } else { Some(idle.remove(0)) }
        };
        oldest.is_some()
    }
}

impl fmt::Debug for Hardware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hardware").field("gpu", &self.gpu).field("open", &self.open()).finish_non_exhaustive()
    }
}

/// One decoder's place among those that there may be.
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A decoder of the GPU.
pub(super) struct Opened {
    gpu: Arc<Device>,
    api: Api,
    decoder: CUvideodecoder,
    codec: Codec,
    /// The largest pictures it takes.
    room: [u32; 2],
    /// Pictures that it keeps at a time.
    pictures: u32,
    coded: [u32; 2],
    /// Given up after the decoder is.
    _place: Place,
}

// SAFETY: a decoder may be used on any thread, and is used on one at a time, since it is reached through `&mut self`.
unsafe impl Send for Opened {}

impl Opened {
    fn new(
        hardware: &Hardware,
        place: Place,
        codec: Codec,
        coded: [u32; 2],
        room: [u32; 2],
        pictures: u32,
    ) -> Result<Self, (Error, Place)> {
        let create = || {
            let _current = hardware.gpu.enter()?;
            // SAFETY: all of it may be zero; the enumerations have a variant of that number.
            let mut info: CUVIDDECODECREATEINFO = unsafe { mem::zeroed() };
            [info.ulWidth, info.ulHeight] = coded.map(c_ulong::from);
            // What is decoded comes out as it is: all of what is coded, and neither scaled nor cropped.
            [info.ulTargetWidth, info.ulTargetHeight] = coded.map(c_ulong::from);
            [info.ulMaxWidth, info.ulMaxHeight] = room.map(c_ulong::from);
            info.ulNumDecodeSurfaces = c_ulong::from(pictures);
            info.ulNumOutputSurfaces = OUTPUTS;
            info.CodecType = codec.cuvid();
            info.ChromaFormat = cudaVideoChromaFormat::cudaVideoChromaFormat_420;
            info.OutputFormat = cudaVideoSurfaceFormat::cudaVideoSurfaceFormat_NV12;
            info.DeinterlaceMode = cudaVideoDeinterlaceMode::cudaVideoDeinterlaceMode_Weave;
            info.ulCreationFlags = cudaVideoCreateFlags::cudaVideoCreate_PreferCUVID as c_ulong;
            let mut decoder = ptr::null_mut();
            // SAFETY: both outlive the call, and the context is current.
            let status = unsafe { (hardware.api.create_decoder)(&raw mut decoder, &raw mut info) };
            hardware.gpu.check("cuvidCreateDecoder", status)?;
            Ok(decoder)
        };
        let (gpu, api) = (Arc::clone(&hardware.gpu), hardware.api);
        match create() {
            Ok(decoder) => Ok(Self { gpu, api, decoder, codec, room, pictures, coded, _place: place }),
            Err(error) => Err((Error::Device(error), place)),
        }
    }

    pub(super) fn fits(&self, codec: Codec, coded: [u32; 2], pictures: u32) -> bool {
        let room = coded[0] <= self.room[0] && coded[1] <= self.room[1];
        self.codec == codec && room && pictures <= self.pictures
    }

    /// Gets it ready for pictures of another coded size, which fit, while a parser is in its callback for sequences. Nothing
    /// of it may be in use.
    pub(super) fn reconfigure(&mut self, coded: [u32; 2]) -> Result<(), Error> {
        let _current = self.gpu.enter()?;
        let mut info = CUVIDRECONFIGUREDECODERINFO::default();
        [info.ulWidth, info.ulHeight] = coded;
        [info.ulTargetWidth, info.ulTargetHeight] = coded;
        info.ulNumDecodeSurfaces = self.pictures;
        // SAFETY: the structure outlives the call, the decoder lives, and the context is current.
        let status = unsafe { (self.api.reconfigure_decoder)(self.decoder, &raw mut info) };
        self.gpu.check("cuvidReconfigureDecoder", status)?;
        self.coded = coded;
        Ok(())
    }

    pub(super) const fn coded(&self) -> [u32; 2] {
        self.coded
    }

    pub(super) const fn pictures(&self) -> u32 {
        self.pictures
    }

    pub(super) const fn raw(&self) -> CUvideodecoder {
        self.decoder
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        // SAFETY: nobody else has the handle, and nothing of it is mapped.
        self.gpu.give_back("cuvidDestroyDecoder", |_| unsafe { (self.api.destroy_decoder)(self.decoder) });
    }
}

//! The encoder of one session on a GPU.
#![expect(unsafe_code, reason = "calls NVIDIA's encoder")]

use std::ffi::c_void;
use std::fmt;
use std::mem::{self, MaybeUninit};
use std::slice;
use std::sync::Arc;

use bytes::{BufMut as _, Bytes};
use cudarc::driver::sys::CUstream;
use moq_nvenc::sys::nvEncodeAPI::{
    NV_ENC_BUFFER_FORMAT, NV_ENC_CODEC_H264_GUID, NV_ENC_CREATE_BITSTREAM_BUFFER, NV_ENC_CREATE_BITSTREAM_BUFFER_VER,
    NV_ENC_INPUT_PTR, NV_ENC_INPUT_RESOURCE_TYPE, NV_ENC_LOCK_BITSTREAM, NV_ENC_LOCK_BITSTREAM_VER,
    NV_ENC_MAP_INPUT_RESOURCE, NV_ENC_MAP_INPUT_RESOURCE_VER, NV_ENC_OUTPUT_PTR, NV_ENC_PIC_FLAGS, NV_ENC_PIC_PARAMS,
    NV_ENC_PIC_PARAMS_VER, NV_ENC_PIC_STRUCT, NV_ENC_PIC_TYPE, NV_ENC_RECONFIGURE_PARAMS,
    NV_ENC_RECONFIGURE_PARAMS_VER, NV_ENC_REGISTER_RESOURCE, NV_ENC_REGISTER_RESOURCE_VER, NV_ENC_REGISTERED_PTR,
};

use crate::device::stream::PATIENCE;
use crate::device::{self, Event, PitchedNv12, Stream};
use crate::media::{Chunks, ColorInfo, I420, MediaTime};

use super::super::Encoded;
use super::super::pace::Pace;
use super::super::software::{self, MIN_BITRATE, NOTICEABLE};
use super::Error;
use super::config::{self, Config, Settings};
use super::hardware::Hardware;
use super::session::Session;

/// NVIDIA's name of the format of pictures.
const NV12: NV_ENC_BUFFER_FORMAT = NV_ENC_BUFFER_FORMAT::NV_ENC_BUFFER_FORMAT_NV12;

/// Encodes one session's pictures on a GPU as H.264, without delay: the unit of a picture comes out of the call that took
/// the picture. It is opened with the first one.
///
/// - The stream is constrained baseline, at the level that software chooses, and says what its codes mean, so that none are
///   converted. Of a side with an odd number of samples the last is repeated.
/// - Keyframes come on demand, when the size or the colours change, and after an error, and have parameter sets. Where the
///   GPU can, a wave of intra macroblocks passes over the picture every ten seconds.
/// - The bitrate is constant, and a new one holds from the next picture on. Where the GPU can't change it in place, only a
///   change by a quarter or more does, and costs a keyframe.
/// - The rate of pictures is measured, so that the bitrate holds at any.
///
/// A picture is copied within the GPU to memory that is the encoder's own, which the encoder is told of once: so nothing
/// of a picture is used once the copy is done, which [`PitchedNv12::read_by`] is told, and surfaces may come and go.
pub struct Nvenc {
    hardware: Arc<Hardware>,
    pace: Pace,
    bitrate: f64,
    opened: Option<Opened>,
    stream: Arc<Stream>,
    data: Chunks,
}

impl Nvenc {
    /// An encoder that is opened with its first picture.
    ///
    /// # Errors
    /// [`Error::NoEncoder`], [`Error::Full`]; [`Error::Device`] when the GPU fails.
    pub fn new(hardware: &Arc<Hardware>, config: software::Config) -> Result<Self, Error> {
        hardware.device().alive()?;
        hardware.capability()?;
        Ok(Self {
            hardware: Arc::clone(hardware),
            pace: Pace::new(config.fps),
            bitrate: f64::from(config.bitrate_bps.max(MIN_BITRATE)),
            opened: None,
            stream: Arc::new(Stream::new(hardware.device())?),
            data: Chunks::default(),
        })
    }

    /// The stream on which pictures are copied.
    #[must_use]
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Sets the bitrate to keep to from the next picture on, in bits a second.
    pub fn set_bitrate(&mut self, bps: u32) {
        self.bitrate = f64::from(bps.max(MIN_BITRATE));
    }

    /// Encodes an upright picture in the GPU's memory, as a keyframe if `keyframe` says so. It waits for what writes the
    /// picture, and then for the encoder.
    ///
    /// All waits have an end but that for the encoder itself, `nvEncLockBitstream`: that is up to the driver, which resets an
    /// encoder that does not answer.
    ///
    /// # Errors
    /// Any [`Error`]; the encoder stays usable, unless the GPU is lost.
    pub fn encode(
        &mut self,
        surface: &PitchedNv12,
        color: ColorInfo,
        time: MediaTime,
        keyframe: bool,
    ) -> Result<Encoded, Error> {
        let size = (surface.width(), surface.height());
        self.encode_as(size, color, time, keyframe, |input, stream| input.copy_from(surface, stream))
    }

    /// [`Self::encode`] of a picture in the host's memory.
    ///
    /// # Errors
    /// As there; [`Error::Device`], too, when there is no host memory left to bring the picture through.
    pub fn encode_picture(
        &mut self,
        picture: &I420,
        color: ColorInfo,
        time: MediaTime,
        keyframe: bool,
    ) -> Result<Encoded, Error> {
        let (size, host) = ((picture.width(), picture.height()), Arc::clone(self.hardware.host()));
        self.encode_as(size, color, time, keyframe, |input, stream| input.upload(picture, &host, stream))
    }

    fn encode_as(
        &mut self,
        size: (u32, u32),
        color: ColorInfo,
        time: MediaTime,
        keyframe: bool,
        fill: impl FnOnce(&mut PitchedNv12, &Stream) -> Result<(), device::Error>,
    ) -> Result<Encoded, Error> {
        self.pace.advance(time);
        let result = self.try_encode(size, color, keyframe, fill);
        if result.is_err() {
            self.opened = None;
        }
        let (data, keyframe) = result?;
        Ok(Encoded { data, keyframe, time, color })
    }

    fn try_encode(
        &mut self,
        (width, height): (u32, u32),
        color: ColorInfo,
        keyframe: bool,
        fill: impl FnOnce(&mut PitchedNv12, &Stream) -> Result<(), device::Error>,
    ) -> Result<(Bytes, bool), Error> {
        let same = |opened: &Opened| {
            let input = (opened.input.width(), opened.input.height());
            input == (width, height) && opened.settings.color == color
        };
        if !self.opened.as_ref().is_some_and(same) || !self.follow_bitrate()? {
            // One at a time: the driver may allow no other.
            self.opened = None;
        }
        let opened = match &mut self.opened {
            Some(opened) => opened,
            none => {
                let capability = self.hardware.capability()?;
                let coded = [width.next_multiple_of(2), height.next_multiple_of(2)];
                let settings = Settings { coded, color, fps: self.pace.fps(), capability };
                let rate = (self.bitrate, self.pace.told(self.bitrate));
                none.insert(Opened::new(&self.hardware, &self.stream, [width, height], settings, rate)?)
            }
        };
        fill(&mut opened.input, &self.stream)?;
        opened.input.fill_to_even(&self.stream)?;
        let first = !mem::replace(&mut opened.begun, true);
        let mut flags = 0;
        if keyframe || first {
            flags = NV_ENC_PIC_FLAGS::NV_ENC_PIC_FLAG_FORCEIDR as u32
                | NV_ENC_PIC_FLAGS::NV_ENC_PIC_FLAG_OUTPUT_SPSPPS as u32;
        }
        opened.encode(flags, self.pace.ticks().cast_unsigned(), &mut self.data)
    }

    /// Tells the encoder another bitrate if there is one. Whether it can be used on.
    fn follow_bitrate(&mut self) -> Result<bool, Error> {
        let (bitrate, told) = (self.bitrate, self.pace.told(self.bitrate));
        let Some(opened) = &mut self.opened else { return Ok(false) };
        let asked = opened.bitrate.to_bits() != bitrate.to_bits();
        if !asked && (told - opened.told).abs() <= opened.told * NOTICEABLE {
            return Ok(true);
        }
        if !opened.settings.capability.dynamic_bitrate {
            return Ok((0.75..1.25).contains(&(told / opened.told)));
        }
        match opened.set_rate(bitrate, told) {
            Ok(()) => Ok(true),
            Err(Error::Failed(failure)) => {
                tracing::debug!(%failure, "a GPU's encoder is opened anew for another bitrate");
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

impl fmt::Debug for Nvenc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = self.opened.as_ref().map(|opened| opened.settings.coded);
        f.debug_struct("Nvenc").field("coded", &size).field("bitrate", &self.bitrate).finish_non_exhaustive()
    }
}

/// An encoder for one size and colour, with the memory that it encodes from and to.
struct Opened {
    // Fields are dropped in this order.
    bitstream: NV_ENC_OUTPUT_PTR,
    registered: NV_ENC_REGISTERED_PTR,
    session: Session,
    input: PitchedNv12,
    /// Whether the encoder waits for the stream by itself.
    in_order: bool,
    /// The encoder is told where the stream's handle is, not what it is.
    handle: Box<CUstream>,
    stream: Arc<Stream>,
    /// Reached when the encoder may read the input.
    written: Event,
    config: Config,
    settings: Settings,
    /// Bits a second that were asked for.
    bitrate: f64,
    /// Bits a second that the encoder was told.
    told: f64,
    /// Whether it was given a picture.
    begun: bool,
}

// SAFETY: what its pointers lead to belongs to no thread, and is reached through `&mut self`.
unsafe impl Send for Opened {}

impl Opened {
    fn new(
        hardware: &Hardware,
        stream: &Arc<Stream>,
        [width, height]: [u32; 2],
        settings: Settings,
        (bitrate, told): (f64, f64),
    ) -> Result<Self, Error> {
        settings.capability.check(settings.coded)?;
        let gpu = hardware.device();
        let input = PitchedNv12::new(gpu, width, height)?;
        let mut session = hardware.session()?;
        let mut config = Config::new();
        session.call("NvEncGetEncodePresetConfigEx", |api, encoder| {
            // SAFETY: here and below, all that is pointed to outlives the call.
            unsafe { (api.preset)(encoder, NV_ENC_CODEC_H264_GUID, config::PRESET, config::TUNING, config.preset()) }
        })?;
        config.adjust(&settings);
        config.set_rate(told, &settings);
        let mut parameters = config.parameters(&settings);
        session.call("NvEncInitializeEncoder", |api, encoder| unsafe {
            // SAFETY: as above; the configuration that it points to lives, too.
            (api.initialize)(encoder, &raw mut parameters)
        })?;
        session.begin();
        let mut opened = Self {
            bitstream: std::ptr::null_mut(),
            registered: std::ptr::null_mut(),
            session,
            input,
            in_order: false,
            handle: Box::new(stream.raw()),
            stream: Arc::clone(stream),
            written: Event::new(gpu)?,
            config,
            settings,
            bitrate,
            told,
            begun: false,
        };
        // What was made so far is given back from here on.
        opened.prepare()?;
        Ok(opened)
    }

    /// Gets the encoder's output, tells it of its input, and whom to wait for.
    fn prepare(&mut self) -> Result<(), Error> {
        let mut output =
            NV_ENC_CREATE_BITSTREAM_BUFFER { version: NV_ENC_CREATE_BITSTREAM_BUFFER_VER, ..Default::default() };
        self.session.call("NvEncCreateBitstreamBuffer", |api, encoder| unsafe {
            // SAFETY: the structure outlives the call.
            (api.create_bitstream)(encoder, &raw mut output)
        })?;
        self.bitstream = output.bitstreamBuffer;
        let [width, height] = self.settings.coded;
        let mut resource = NV_ENC_REGISTER_RESOURCE {
            version: NV_ENC_REGISTER_RESOURCE_VER,
            resourceType: NV_ENC_INPUT_RESOURCE_TYPE::NV_ENC_INPUT_RESOURCE_TYPE_CUDADEVICEPTR,
            width,
            height,
            pitch: u32::try_from(self.input.pitch()).map_err(|_| device::Error::Bounds)?,
            resourceToRegister: self.input.luma() as *mut c_void,
            bufferFormat: NV12,
            ..Default::default()
        };
        self.session.call("NvEncRegisterResource", |api, encoder| unsafe {
            // SAFETY: as above; the memory has room for a picture of even sides with this pitch, and stays until it is
            // not registered any more.
            (api.register)(encoder, &raw mut resource)
        })?;
        self.registered = resource.registeredResource;
        if let Some(set_streams) = self.session.api().set_streams {
            let at = (&raw mut *self.handle).cast::<c_void>();
            let set = self.session.call("nvEncSetIOCudaStreams", |_, encoder| unsafe {
                // SAFETY: the handle stays where it is as long as the encoder.
                set_streams(encoder, at, at)
            });
            match set {
                Ok(()) => self.in_order = true,
                Err(Error::Failed(failure)) => {
                    tracing::debug!(%failure, "a GPU's encoder waits for no stream: pictures are waited for on the host");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn set_rate(&mut self, bitrate: f64, told: f64) -> Result<(), Error> {
        self.config.set_rate(told, &self.settings);
        let mut change = NV_ENC_RECONFIGURE_PARAMS {
            version: NV_ENC_RECONFIGURE_PARAMS_VER,
            reInitEncodeParams: self.config.parameters(&self.settings),
            ..Default::default()
        };
        // What it knows of its past stays, and the next picture is no keyframe.
        change.set_resetEncoder(0);
        change.set_forceIDR(0);
        self.session.call("NvEncReconfigureEncoder", |api, encoder| unsafe {
            // SAFETY: the structure outlives the call, and so does the configuration that it points to.
            (api.reconfigure)(encoder, &raw mut change)
        })?;
        (self.bitrate, self.told) = (bitrate, told);
        Ok(())
    }

    /// Encodes what is in the input, or will be once the stream is done with what it was given.
    fn encode(&mut self, flags: u32, ticks: u64, data: &mut Chunks) -> Result<(Bytes, bool), Error> {
        if !self.in_order {
            self.stream.wait()?;
        }
        let mut mapping = NV_ENC_MAP_INPUT_RESOURCE {
            version: NV_ENC_MAP_INPUT_RESOURCE_VER,
            registeredResource: self.registered,
            ..Default::default()
        };
        self.session.call("NvEncMapInputResource", |api, encoder| unsafe {
            // SAFETY: the structure outlives the call.
            (api.map)(encoder, &raw mut mapping)
        })?;
        let encoded = self.encode_mapped(mapping.mappedResource, flags, ticks, data);
        let unmapped = self.session.call("NvEncUnmapInputResource", |api, encoder| unsafe {
            // SAFETY: it was mapped above.
            (api.unmap)(encoder, mapping.mappedResource)
        });
        let encoded = encoded?;
        unmapped.map(|()| encoded)
    }

    fn encode_mapped(
        &mut self,
        input: NV_ENC_INPUT_PTR,
        flags: u32,
        ticks: u64,
        data: &mut Chunks,
    ) -> Result<(Bytes, bool), Error> {
        self.submit(input, flags, ticks)?;
        // What is ahead of it in the stream is waited for here, where that has an end.
        self.written.record(&self.stream)?;
        self.written.wait(PATIENCE)?;
        let mut lock = MaybeUninit::<NV_ENC_LOCK_BITSTREAM>::zeroed();
        let raw = lock.as_mut_ptr();
        // SAFETY: the fields are within the structure.
        unsafe {
            (*raw).version = NV_ENC_LOCK_BITSTREAM_VER;
            (*raw).outputBitstream = self.bitstream;
        }
        self.session.call("NvEncLockBitstream", |api, encoder| unsafe {
            // SAFETY: the structure outlives the call; a picture was given to the encoder for this buffer.
            (api.lock_bitstream)(encoder, raw)
        })?;
        // SAFETY: the fields are within the structure, and were filled in; a newer library may know more types of pictures
        // than the bindings do.
        let (start, len, kind) = unsafe {
            let kind = (&raw const (*raw).pictureType).cast::<u32>().read();
            ((*raw).bitstreamBufferPtr.cast::<u8>().cast_const(), (*raw).bitstreamSizeInBytes as usize, kind)
        };
        let found = !start.is_null() && len > 0;
        if found {
            // SAFETY: the buffer is locked, and has this many bytes.
            data.begin(len).put_slice(unsafe { slice::from_raw_parts(start, len) });
        }
        self.session.call("NvEncUnlockBitstream", |api, encoder| unsafe {
            // SAFETY: it was locked above.
            (api.unlock_bitstream)(encoder, self.bitstream)
        })?;
        if !found {
            return Err(Error::Nothing);
        }
        Ok((data.finish(), kind == NV_ENC_PIC_TYPE::NV_ENC_PIC_TYPE_IDR as u32))
    }

    /// Gives a picture to the encoder, which may have to finish others' first.
    fn submit(&mut self, input: NV_ENC_INPUT_PTR, flags: u32, ticks: u64) -> Result<(), Error> {
        let mut picture = MaybeUninit::<NV_ENC_PIC_PARAMS>::zeroed();
        let raw = picture.as_mut_ptr();
        let [width, height] = self.settings.coded;
        // SAFETY: the fields are within the structure.
        unsafe {
            (*raw).version = NV_ENC_PIC_PARAMS_VER;
            ((*raw).inputWidth, (*raw).inputHeight) = (width, height);
            (*raw).inputPitch = u32::try_from(self.input.pitch()).unwrap_or(0);
            (*raw).encodePicFlags = flags;
            (*raw).inputTimeStamp = ticks;
            (*raw).inputBuffer = input;
            (*raw).outputBitstream = self.bitstream;
            (*raw).bufferFmt = NV12;
            (*raw).pictureStruct = NV_ENC_PIC_STRUCT::NV_ENC_PIC_STRUCT_FRAME;
        }
        // SAFETY: the structure outlives the call; the input is mapped and the output not locked.
        unsafe { self.session.give(raw) }
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        // All of it fails at once when the GPU is lost.
        let mut given = Ok(());
        if !self.registered.is_null() {
            given = self.session.call("NvEncUnregisterResource", |api, encoder| unsafe {
                // SAFETY: it is registered, and not mapped.
                (api.unregister)(encoder, self.registered)
            });
        }
        if !self.bitstream.is_null() {
            given = given.and(self.session.call("NvEncDestroyBitstreamBuffer", |api, encoder| unsafe {
                // SAFETY: it was made with this encoder, and is not locked.
                (api.destroy_bitstream)(encoder, self.bitstream)
            }));
        }
        if let Err(error @ (Error::Failed(_) | Error::Full)) = given {
            tracing::warn!(%error, "something of a GPU's encoder could not be given back");
        }
    }
}

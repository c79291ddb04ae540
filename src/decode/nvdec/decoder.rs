//! The decoder of one stream on a GPU.
#![expect(unsafe_code, reason = "calls NVIDIA's decoder")]

use std::ffi::c_int;
use std::mem;
use std::ptr::NonNull;
use std::sync::Arc;

use metrics::{Counter, counter};
use moq_nvenc::sys::cuviddec::{CUVIDGETDECODESTATUS, CUVIDPICPARAMS, CUVIDPROCPARAMS};

use crate::device::{self, Share, Status, Stream, Surface};
use crate::media::{AnnouncedColor, Rotation};

use super::super::Limits;
use super::format::{Coded, Format};
use super::hardware::{Hardware, Opened};
use super::parser::{Events, Parser};
use super::{Codec, DeviceFrame, Error};

/// Most pictures that a stream may refer to: the 16 of the largest levels of H.264 and HEVC, with those in hand.
const MAX_PICTURES: u32 = 20;
/// Bounds what a parser may call a picture by.
const MAX_INDEX: usize = 32;
/// `cuvidDecodeStatus_Error` and `cuvidDecodeStatus_Error_Concealed`.
const DAMAGED: [u32; 2] = [8, 9];

/// Decodes one stream on a GPU. Units go in in decoding order, the first a keyframe, and what a unit shows comes out of the
/// same call. Streams that show pictures in another order than they are decoded in come out in the latter.
pub struct Nvdec {
    parser: Parser<Engine>,
    codec: Codec,
    awaiting_keyframe: bool,
}

impl Nvdec {
    /// A decoder of streams whose pictures keep to `limits`.
    ///
    /// # Errors
    /// [`Error::NoDecoder`] when the GPU does not decode the codec; [`Error::Device`] when it fails.
    pub fn new(hardware: &Arc<Hardware>, codec: Codec, limits: Limits) -> Result<Self, Error> {
        hardware.device().alive()?;
        hardware.capability(codec)?;
        let engine = Engine {
            hardware: Arc::clone(hardware),
            codec,
            limits,
            stream: Stream::new(hardware.device())?,
            surfaces: hardware.surfaces().share(hardware.bounds().session_surfaces),
            opened: None,
            format: None,
            unit: Unit::default(),
            given: [false; MAX_INDEX],
            refused: 0,
            no_surface: counter!("saccade_frames_dropped_total", "stage" => "decode", "reason" => "no_surface"),
        };
        Ok(Self { parser: Parser::new(hardware, codec, engine), codec, awaiting_keyframe: true })
    }

    /// Codec of the stream.
    #[must_use]
    pub const fn codec(&self) -> Codec {
        self.codec
    }

    /// The stream on which pictures are written, and on which [`DeviceFrame::download`] costs no wait for another.
    pub fn stream(&mut self) -> &Stream {
        &self.parser.events().stream
    }

    /// Pictures that were decoded and not given out, because all surfaces were in use.
    pub fn refused(&mut self) -> u64 {
        self.parser.events().refused
    }

    /// Decodes one unit. `None` when it shows no picture, when there was no surface left for it, or when it was skipped
    /// because an error made a keyframe necessary that has not come yet.
    ///
    /// # Errors
    /// Any [`Error`]; the decoder stays usable, and goes on with the next keyframe unless the GPU is lost.
    pub fn decode(
        &mut self,
        unit: &[u8],
        keyframe: bool,
        color: AnnouncedColor,
        rotation: Rotation,
    ) -> Result<Option<DeviceFrame>, Error> {
        if self.awaiting_keyframe && !keyframe {
            return Ok(None);
        }
        let result = self.try_decode(unit, keyframe);
        self.awaiting_keyframe = result.is_err();
        if result.is_err() {
            // What it knows may be wrong; a keyframe tells everything anew.
            self.parser.reset();
        }
        if matches!(result, Err(Error::Device(_))) {
            self.parser.events().discard();
        }
        let Some(surface) = result? else { return Ok(None) };
        let stream = self.parser.events().format.map(|format| format.color).unwrap_or_default();
        Ok(Some(DeviceFrame { surface: Arc::new(surface), color: color.over(stream), rotation }))
    }

    /// The same picture standing upright, turned on the GPU. Where it has no kernels for that, the frame as it is.
    ///
    /// # Errors
    /// [`Error::Device`], among them that all surfaces of the session are in use.
    pub fn upright(&mut self, frame: DeviceFrame) -> Result<DeviceFrame, Error> {
        let events = self.parser.events();
        let Some(program) = events.hardware.program().filter(|_| frame.rotation != Rotation::None) else {
            return Ok(frame);
        };
        let (width, height) = frame.rotation.apply(frame.surface.width(), frame.surface.height());
        let mut upright = events.surfaces.take(width, height)?;
        program.on(&events.stream).turn(&frame.surface, &mut upright, frame.rotation)?;
        Ok(DeviceFrame { surface: Arc::new(upright), color: frame.color, rotation: Rotation::None })
    }

    fn try_decode(&mut self, unit: &[u8], keyframe: bool) -> Result<Option<Surface>, Error> {
        // An empty packet would end the stream.
        if unit.is_empty() {
            return Err(Error::Invalid);
        }
        let gpu = Arc::clone(self.parser.events().hardware.device());
        let _current = gpu.enter()?;
        self.parser.events().unit = Unit { keyframe, ..Unit::default() };
        let parsed = self.parser.parse(unit);
        let unit = mem::take(&mut self.parser.events().unit);
        if let Some(failure) = unit.failure {
            return Err(failure);
        }
        match parsed {
            Ok(()) if unit.pictures == 0 => Err(Error::Invalid),
            Ok(()) => Ok(unit.output),
            Err(status) if status.is_sticky() => {
                gpu.check("cuvidParseVideoData", status).map(|()| None).map_err(Error::Device)
            }
            Err(_) => Err(Error::Invalid),
        }
    }
}

/// What becomes of one unit.
#[derive(Default)]
struct Unit {
    keyframe: bool,
    /// Pictures that were decoded or shown.
    pictures: u32,
    /// Of several pictures, such as spatial layers, the last is the whole picture.
    output: Option<Surface>,
    /// The first thing that went wrong.
    failure: Option<Error>,
}

/// What a parser drives: the GPU's decoder and what comes out of it.
struct Engine {
    hardware: Arc<Hardware>,
    codec: Codec,
    limits: Limits,
    stream: Stream,
    surfaces: Share,
    opened: Option<Opened>,
    format: Option<Format>,
    unit: Unit,
    /// Pictures that were given out when they were decoded, by index: the parser is yet to ask for them to be shown.
    given: [bool; MAX_INDEX],
    refused: u64,
    no_surface: Counter,
}

impl Engine {
    /// Gets a decoder ready for a sequence and says how many pictures it keeps.
    fn begin(&mut self, format: Format) -> Result<u32, Error> {
        let [width, height] = format.shown;
        self.limits.check(width, height).map_err(|_| Error::TooLarge { width, height })?;
        let [width, height] = format.coded;
        if i64::from(width) * i64::from(height) > self.limits.max_pixels() {
            return Err(Error::TooLarge { width, height });
        }
        if !format.is_usual() {
            return Err(Error::PixelFormat { bits: format.bits, chroma: format.chroma });
        }
        if format.pictures > MAX_PICTURES {
            return Err(Error::References(format.pictures));
        }
        self.hardware.capability(self.codec)?.check(self.codec, format.coded)?;
        // One alone would be taken for an answer without a number.
        let pictures = format.pictures.max(2);
        self.given = [false; MAX_INDEX];
        let opened = self.open(format.coded, pictures)?;
        let pictures = opened.pictures();
        (self.opened, self.format) = (Some(opened), Some(format));
        Ok(pictures)
    }

    /// The decoder that there is, if it can do it, or another one.
    fn open(&mut self, coded: [u32; 2], pictures: u32) -> Result<Opened, Error> {
        let Some(mut opened) = self.opened.take() else { return self.hardware.take(self.codec, coded, pictures) };
        let fits = opened.fits(self.codec, coded, pictures);
        if fits && opened.coded() == coded {
            return Ok(opened);
        }
        if !fits && !self.unit.keyframe {
            // What a picture between keyframes refers to is in the decoder that it does not fit any more.
            self.opened = Some(opened);
            return Err(Error::NewSize);
        }
        self.stream.wait()?;
        if !fits {
            self.hardware.give(opened);
            return self.hardware.take(self.codec, coded, pictures);
        }
        match opened.reconfigure(coded) {
            Ok(()) => Ok(opened),
            Err(error) if !self.unit.keyframe => Err(error),
            Err(error) => {
                tracing::debug!(%error, "a decoder could not be changed to another size");
                drop(opened);
                self.hardware.take(self.codec, coded, pictures)
            }
        }
    }

    fn decode_picture(&mut self, coded: Coded, mut parameters: NonNull<CUVIDPICPARAMS>) -> Result<(), Error> {
        let index = usize::try_from(coded.index).ok().filter(|index| *index < MAX_INDEX).ok_or(Error::Invalid)?;
        let opened = self.opened.as_ref().ok_or(Error::Invalid)?;
        // SAFETY: the parameters are those of this codec's parser and valid during its callback; the decoder lives and its
        // context is current.
        let status = unsafe { (self.hardware.api().decode_picture)(opened.raw(), parameters.as_mut()) };
        self.hardware.device().check("cuvidDecodePicture", status)?;
        self.unit.pictures += 1;
        if coded.complete {
            self.given[index] = coded.shown;
            if coded.shown {
                self.put_out(coded.index, Some(coded))?;
            }
        }
        Ok(())
    }

    /// Copies a decoded picture out of the decoder, whose own memory is needed for the next ones.
    fn put_out(&mut self, index: c_int, coded: Option<Coded>) -> Result<(), Error> {
        let (Some(opened), Some(format)) = (&self.opened, self.format) else { return Err(Error::Invalid) };
        let mut surface = match self.surfaces.take(format.shown[0], format.shown[1]) {
            Ok(surface) => Some(surface),
            Err(device::Error::Exhausted(_) | device::Error::OutOfMemory) => None,
            Err(error) => return Err(error.into()),
        };
        let (gpu, api) = (self.hardware.device(), self.hardware.api());
        // SAFETY: all of it may be zero.
        let mut parameters: CUVIDPROCPARAMS = unsafe { mem::zeroed() };
        parameters.progressive_frame = c_int::from(coded.is_none_or(|coded| !coded.fields));
        parameters.top_field_first = c_int::from(coded.is_none_or(|coded| coded.bottom));
        // What is shown is the whole frame.
        parameters.second_field = 1;
        parameters.output_stream = self.stream.raw();
        let (mut address, mut pitch) = (0, 0);
        // SAFETY: all that is written to outlives the call; the decoder lives and its context is current.
        let status =
            unsafe { (api.map_frame)(opened.raw(), index, &raw mut address, &raw mut pitch, &raw mut parameters) };
        gpu.check("cuvidMapVideoFrame", status)?;
        let damaged = self.is_damaged(opened, index);
        let copied = match &mut surface {
            Some(surface) if !damaged => {
                let [_, height] = format.coded;
                // The rows of luma are even in number; neither the shown height nor the surface's says where they end.
                let chroma = address + u64::from(pitch) * u64::from(height.next_multiple_of(2));
                // SAFETY: the planes are mapped; the stream is the one that they were mapped for, so that what the decoder
                // writes there next comes after the copy.
                unsafe { surface.copy_from_device([address, chroma], pitch as usize, format.origin, &self.stream) }
            }
            _ => Ok(()),
        };
        // SAFETY: it was mapped above.
        let status = unsafe { (api.unmap_frame)(opened.raw(), address) };
        copied?;
        gpu.check("cuvidUnmapVideoFrame", status)?;
        if damaged {
            return Err(Error::Damaged);
        }
        if surface.is_none() {
            self.refused += 1;
            self.no_surface.increment(1);
        }
        self.unit.output = surface;
        Ok(())
    }

    /// Whether the decoder found errors in a picture. It knows of H.264 and HEVC, on GPUs since 2014; of others it says
    /// that it does not know, which is no error.
    fn is_damaged(&self, opened: &Opened, index: c_int) -> bool {
        // SAFETY: all of it may be zero; the enumeration has a variant of that number.
        let mut filled: CUVIDGETDECODESTATUS = unsafe { mem::zeroed() };
        // SAFETY: the structure outlives the call; the decoder lives and its context is current.
        let status = unsafe { (self.hardware.api().decode_status)(opened.raw(), index, &raw mut filled) };
        // SAFETY: it is a number of four bytes; a newer library may know more of them than the bindings do.
        let found = unsafe { (&raw const filled.decodeStatus).cast::<u32>().read() };
        status == Status::SUCCESS && DAMAGED.contains(&found)
    }

    /// Gives a decoder up that failed: it is not used again.
    fn discard(&mut self) {
        if let Err(error) = self.stream.wait() {
            tracing::debug!(%error, "copies of decoded pictures did not end");
        }
        self.opened = None;
    }

    /// Keeps the first failure, and says whether to go on.
    fn note(&mut self, result: Result<(), Error>) -> bool {
        if let Err(error) = result {
            self.unit.failure.get_or_insert(error);
        }
        self.unit.failure.is_none()
    }
}

impl Events for Engine {
    fn sequence(&mut self, format: Option<Format>) -> Option<u32> {
        let pictures = format.ok_or(Error::Invalid).and_then(|format| self.begin(format));
        pictures.map_err(|error| self.unit.failure.get_or_insert(error)).ok()
    }

    fn decode(&mut self, coded: Coded, parameters: NonNull<CUVIDPICPARAMS>) -> bool {
        if self.unit.failure.is_some() {
            return false;
        }
        let decoded = self.decode_picture(coded, parameters);
        self.note(decoded)
    }

    fn show(&mut self, index: c_int) -> bool {
        let given = usize::try_from(index).ok().and_then(|index| self.given.get_mut(index)).map(mem::take);
        if self.unit.failure.is_some() || given != Some(false) {
            return self.unit.failure.is_none();
        }
        // It was decoded before and is shown only now.
        self.unit.pictures += 1;
        let shown = self.put_out(index, None);
        self.note(shown)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let Some(opened) = self.opened.take() else { return };
        // Of a decoder whose copies are not done in time, nothing is used again.
        if self.stream.wait().is_ok() {
            self.hardware.give(opened);
        }
    }
}

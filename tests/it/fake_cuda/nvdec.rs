//! NVDEC's functions: parsers that find what a [`Source`] does, and decoders that keep the pictures it has.

use std::ffi::{c_int, c_uint, c_ulong, c_ulonglong, c_void};
use std::mem;

use moq_nvenc::sys::cuviddec::{
    CUVIDDECODECAPS, CUVIDDECODECREATEINFO, CUVIDGETDECODESTATUS, CUVIDPICPARAMS, CUVIDPROCPARAMS,
    CUVIDRECONFIGUREDECODERINFO, CUvideodecoder,
};
use moq_nvenc::sys::nvcuvid::{
    CUVIDEOFORMAT, CUVIDPARSERDISPINFO, CUVIDPARSERPARAMS, CUVIDSOURCEDATAPACKET, CUvideoparser,
};
use saccade::media::I420;

use super::memory::Work;
use super::source::{self, Found, Picture, Sequence, Source};
use super::*;

/// Names of all functions, as calls are counted by them.
pub const NAMES: &[&str] = &[
    "cuvidGetDecoderCaps",
    "cuvidCreateDecoder",
    "cuvidDestroyDecoder",
    "cuvidReconfigureDecoder",
    "cuvidDecodePicture",
    "cuvidGetDecodeStatus",
    "cuvidMapVideoFrame",
    "cuvidUnmapVideoFrame",
    "cuvidCreateVideoParser",
    "cuvidParseVideoData",
    "cuvidDestroyVideoParser",
];

/// What is in a decoded picture where nothing is shown.
const MARGIN: u8 = 0xee;
/// `cuvidDecodeStatus_Success`.
const SUCCEEDED: u32 = 2;
/// `CUVID_PKT_ENDOFPICTURE`.
const END_OF_PICTURE: c_ulong = 8;

thread_local! {
    /// Whether this thread is in a parser's callback for sequences.
    static IN_SEQUENCE: Cell<bool> = const { Cell::new(false) };
}

/// What the GPU says of a codec with 8 bits and 4:2:0.
#[derive(Debug, Clone, Copy)]
pub struct Caps {
    pub supported: bool,
    pub min: [u16; 2],
    pub max: [u32; 2],
    pub max_macroblocks: u32,
}

impl Default for Caps {
    fn default() -> Self {
        Self { supported: true, min: [48, 16], max: [4_096, 4_096], max_macroblocks: 65_536 }
    }
}

/// Makes a source for a codec.
type Sources = Arc<dyn Fn(u32) -> Box<dyn Source> + Send + Sync>;

pub struct Nvdec {
    pub caps: HashMap<u32, Caps>,
    pub max_decoders: usize,
    pub decoders: HashMap<u64, Decoder>,
    pub parsers: HashMap<u64, Parser>,
    pub source: Option<Sources>,
    pub next_status: Option<u32>,
}

impl Default for Nvdec {
    fn default() -> Self {
        Self {
            caps: HashMap::new(),
            max_decoders: 64,
            decoders: HashMap::new(),
            parsers: HashMap::new(),
            source: None,
            next_status: None,
        }
    }
}

pub struct Decoder {
    codec: u32,
    room: [u32; 2],
    coded: [u32; 2],
    frames: Vec<Option<(Nv12, u32)>>,
    /// Memory that pictures are mapped to, and whether one is.
    outputs: Vec<(u64, bool)>,
}

/// A picture as a decoder keeps it: rows of luma, an even number, and of chroma by turns, without padding.
struct Nv12 {
    width: usize,
    rows: Vec<Vec<u8>>,
}

impl Nv12 {
    /// `shown` at `origin` of a picture of `coded` size, and a margin around it.
    fn new(shown: &I420, [left, top]: [usize; 2], [width, height]: [u32; 2]) -> Self {
        let width = (width as usize).next_multiple_of(2);
        let (luma_rows, chroma_rows) = ((height as usize).next_multiple_of(2), (height as usize).div_ceil(2));
        let mut rows = vec![vec![MARGIN; width]; luma_rows + chroma_rows];
        let [y, cb, cr] = shown.planes();
        let [y_stride, c_stride, _] = shown.strides();
        for (row, from) in y.chunks_exact(y_stride).enumerate() {
            rows[top + row][left..left + y_stride].copy_from_slice(from);
        }
        for (row, (cb, cr)) in cb.chunks_exact(c_stride).zip(cr.chunks_exact(c_stride)).enumerate() {
            let to = &mut rows[luma_rows + top / 2 + row][left & !1..];
            for (pair, (cb, cr)) in to.chunks_exact_mut(2).zip(cb.iter().zip(cr)) {
                pair.copy_from_slice(&[*cb, *cr]);
            }
        }
        Self { width, rows }
    }
}

pub struct Parser {
    codec: u32,
    user: usize,
    on_sequence: unsafe extern "C" fn(*mut c_void, *mut CUVIDEOFORMAT) -> c_int,
    on_decode: unsafe extern "C" fn(*mut c_void, *mut CUVIDPICPARAMS) -> c_int,
    on_show: Option<unsafe extern "C" fn(*mut c_void, *mut CUVIDPARSERDISPINFO) -> c_int>,
    source: Box<dyn Source>,
    sequence: Option<Sequence>,
    pictures: u32,
    next: u32,
    hidden: Option<c_int>,
}

/// What a parser hands to a decoder where the real one has the bitstream.
struct Payload {
    shown: I420,
    origin: [usize; 2],
    coded: [u32; 2],
    status: u32,
}

pub fn table() -> Api {
    Api {
        capabilities,
        create_decoder,
        destroy_decoder,
        reconfigure_decoder,
        decode_picture,
        decode_status,
        map_frame,
        unmap_frame,
        create_parser,
        parse,
        destroy_parser,
    }
}

const fn pitch(width: u32) -> usize {
    (width as usize).next_multiple_of(256)
}

const fn mapped_bytes([width, height]: [u32; 2]) -> usize {
    pitch(width) * ((height as usize).next_multiple_of(2) + (height as usize).div_ceil(2))
}

unsafe extern "C" fn capabilities(caps: *mut CUVIDDECODECAPS) -> Status {
    call("cuvidGetDecoderCaps", |state| {
        let caps = unsafe { &mut *caps };
        let known = state.nvdec.caps.get(&(caps.eCodecType as u32)).copied().unwrap_or_default();
        if known.supported && caps.nBitDepthMinus8 == 0 && caps.eChromaFormat as u32 == 1 {
            (caps.bIsSupported, caps.nNumNVDECs, caps.nOutputFormatMask) = (1, 7, 1);
            ([caps.nMaxWidth, caps.nMaxHeight], [caps.nMinWidth, caps.nMinHeight]) = (known.max, known.min);
            caps.nMaxMBCount = known.max_macroblocks;
        }
        Status::SUCCESS
    })
}

unsafe extern "C" fn create_decoder(decoder: *mut CUvideodecoder, info: *mut CUVIDDECODECREATEINFO) -> Status {
    call("cuvidCreateDecoder", |state| {
        let info = unsafe { &*info };
        let coded = [info.ulWidth as u32, info.ulHeight as u32];
        let room = [info.ulMaxWidth as u32, info.ulMaxHeight as u32];
        let target = [info.ulTargetWidth as u32, info.ulTargetHeight as u32];
        let caps = state.nvdec.caps.get(&(info.CodecType as u32)).copied().unwrap_or_default();
        let fits = coded[0] <= room[0] && coded[1] <= room[1] && room[0] <= caps.max[0] && room[1] <= caps.max[1];
        if !fits || target != coded || !(2..=32).contains(&info.ulNumDecodeSurfaces) || info.ulNumOutputSurfaces == 0 {
            return state.wrong(format!("a decoder of {coded:?} in {room:?} is made, which there is none of"));
        }
        if state.nvdec.decoders.len() >= state.nvdec.max_decoders {
            return Status::OUT_OF_MEMORY;
        }
        let outputs: Option<Vec<_>> =
            (0..info.ulNumOutputSurfaces).map(|_| Some((state.memory.allocate(mapped_bytes(room))?, false))).collect();
        let Some(outputs) = outputs else { return Status::OUT_OF_MEMORY };
        let frames = (0..info.ulNumDecodeSurfaces).map(|_| None).collect();
        let handle = state.handle();
        let made = Decoder { codec: info.CodecType as u32, room, coded, frames, outputs };
        state.nvdec.decoders.insert(handle, made);
        unsafe { *decoder = handle as CUvideodecoder };
        Status::SUCCESS
    })
}

unsafe extern "C" fn destroy_decoder(decoder: CUvideodecoder) -> Status {
    call("cuvidDestroyDecoder", |state| {
        let Some(gone) = state.nvdec.decoders.remove(&(decoder as u64)) else {
            return state.wrong("a decoder is destroyed that is not there");
        };
        for (address, mapped) in gone.outputs {
            if mapped {
                state.wrong("a decoder is destroyed with a picture mapped");
            }
            if let Err(problem) = state.memory.free(address) {
                state.wrong(problem);
            }
        }
        Status::SUCCESS
    })
}

unsafe extern "C" fn reconfigure_decoder(decoder: CUvideodecoder, info: *mut CUVIDRECONFIGUREDECODERINFO) -> Status {
    call("cuvidReconfigureDecoder", |state| {
        let info = unsafe { &*info };
        let coded = [info.ulWidth, info.ulHeight];
        if !IN_SEQUENCE.get() {
            return state.wrong("a decoder is reconfigured outside of the callback for sequences");
        }
        let Some(found) = state.nvdec.decoders.get_mut(&(decoder as u64)) else {
            return state.wrong("a decoder is reconfigured that is not there");
        };
        let room = coded[0] <= found.room[0] && coded[1] <= found.room[1];
        let same = [info.ulTargetWidth, info.ulTargetHeight] == coded;
        if !room || !same || info.ulNumDecodeSurfaces as usize > found.frames.len() {
            return state.wrong(format!("a decoder is reconfigured to {coded:?}, for which it has no room"));
        }
        found.coded = coded;
        found.frames.iter_mut().for_each(|frame| *frame = None);
        Status::SUCCESS
    })
}

unsafe extern "C" fn decode_picture(decoder: CUvideodecoder, picture: *mut CUVIDPICPARAMS) -> Status {
    call("cuvidDecodePicture", |state| {
        let picture = unsafe { &*picture };
        let payload = unsafe { &*picture.pBitstreamData.cast::<Payload>() };
        let status = state.nvdec.next_status.take().unwrap_or(payload.status);
        let Some(found) = state.nvdec.decoders.get_mut(&(decoder as u64)) else {
            return state.wrong("a picture is decoded by a decoder that is not there");
        };
        if found.coded != payload.coded {
            let problem = format!("a picture of {:?} goes to a decoder for {:?}", payload.coded, found.coded);
            return state.wrong(problem);
        }
        let Some(frame) = found.frames.get_mut(picture.CurrPicIdx as usize) else {
            return state.wrong("a picture goes where the decoder has none");
        };
        *frame = Some((Nv12::new(&payload.shown, payload.origin, payload.coded), status));
        Status::SUCCESS
    })
}

unsafe extern "C" fn decode_status(decoder: CUvideodecoder, index: c_int, filled: *mut CUVIDGETDECODESTATUS) -> Status {
    call("cuvidGetDecodeStatus", |state| {
        let Some(found) = state.nvdec.decoders.get(&(decoder as u64)) else {
            return state.wrong("a decoder is asked that is not there");
        };
        // It is known for H.264 and HEVC.
        if !matches!(found.codec, 4 | 8) {
            return Status::NOT_SUPPORTED;
        }
        let status = found.frames.get(index as usize).and_then(Option::as_ref).map_or(0, |(_, status)| *status);
        unsafe { (&raw mut (*filled).decodeStatus).cast::<u32>().write(status) };
        Status::SUCCESS
    })
}

unsafe extern "C" fn map_frame(
    decoder: CUvideodecoder,
    index: c_int,
    address: *mut c_ulonglong,
    pitch_of: *mut c_uint,
    parameters: *mut CUVIDPROCPARAMS,
) -> Status {
    call("cuvidMapVideoFrame", |state| {
        let Some(found) = state.nvdec.decoders.get_mut(&(decoder as u64)) else {
            return state.wrong("a picture is mapped of a decoder that is not there");
        };
        let wide = pitch(found.coded[0]);
        let Some(Some((frame, _))) = found.frames.get(index as usize) else {
            return state.wrong("a picture is mapped that was not decoded");
        };
        let mut bytes = vec![MARGIN; mapped_bytes(found.coded)];
        for (row, from) in bytes.chunks_exact_mut(wide).zip(&frame.rows) {
            row[..frame.width].copy_from_slice(from);
        }
        let Some((to, mapped)) = found.outputs.iter_mut().find(|(_, mapped)| !mapped) else {
            return state.wrong("more pictures are mapped than the decoder has room for");
        };
        *mapped = true;
        let to = *to;
        unsafe { (*address, *pitch_of) = (to, wide as c_uint) };
        let stream = unsafe { (*parameters).output_stream };
        // The picture is written in the order of the stream that it was mapped for.
        state.give(stream as u64, Work::Write { to, bytes })
    })
}

unsafe extern "C" fn unmap_frame(decoder: CUvideodecoder, address: c_ulonglong) -> Status {
    call("cuvidUnmapVideoFrame", |state| {
        let outputs = state.nvdec.decoders.get_mut(&(decoder as u64)).map(|found| &mut found.outputs);
        match outputs.into_iter().flatten().find(|(output, mapped)| *output == address && *mapped) {
            Some((_, mapped)) => {
                *mapped = false;
                Status::SUCCESS
            }
            None => state.wrong("a picture is unmapped that is not mapped"),
        }
    })
}

unsafe extern "C" fn create_parser(parser: *mut CUvideoparser, parameters: *mut CUVIDPARSERPARAMS) -> Status {
    // Parsers are made with a context here, which tells whose they are.
    call("cuvidCreateVideoParser", |state| {
        let given = unsafe { &*parameters };
        let (Some(on_sequence), Some(on_decode)) = (given.pfnSequenceCallback, given.pfnDecodePicture) else {
            return state.wrong("a parser needs callbacks");
        };
        if given.ulMaxDisplayDelay != 0 || given.ulMaxNumDecodeSurfaces == 0 {
            return state.wrong("a parser delays pictures, or has none");
        }
        let codec = given.CodecType as u32;
        let source = match &state.nvdec.source {
            Some(source) => source(codec),
            None => source::software(codec),
        };
        let made = Parser {
            codec,
            user: given.pUserData as usize,
            on_sequence,
            on_decode,
            on_show: given.pfnDisplayPicture,
            source,
            sequence: None,
            pictures: given.ulMaxNumDecodeSurfaces,
            next: 0,
            hidden: None,
        };
        let handle = state.handle();
        state.nvdec.parsers.insert(handle, made);
        unsafe { *parser = handle as CUvideoparser };
        Status::SUCCESS
    })
}

unsafe extern "C" fn parse(parser: CUvideoparser, packet: *mut CUVIDSOURCEDATAPACKET) -> Status {
    let (handle, packet) = (parser as u64, unsafe { &*packet });
    let Some(fake) = find(handle >> SHIFT) else { return Status::INVALID_HANDLE };
    let mut taken = {
        let mut state = lock(&fake);
        // Parsing happens on the processor: it goes on when the GPU is lost.
        if state.lost.is_none()
            && let Some(status) = begin(&mut state, "cuvidParseVideoData")
        {
            return status;
        }
        if packet.flags & END_OF_PICTURE == 0 || packet.payload_size == 0 {
            return state.wrong("a unit is parsed that does not end its picture, or ends the stream");
        }
        match state.nvdec.parsers.remove(&handle) {
            Some(parser) => parser,
            None => return state.wrong("a parser is used that is not there"),
        }
    };
    let unit = unsafe { std::slice::from_raw_parts(packet.payload, packet.payload_size as usize) };
    let told = taken.source.parse(unit).into_iter().all(|found| unsafe { taken.tell(found) });
    lock(&fake).nvdec.parsers.insert(handle, taken);
    if told { Status::SUCCESS } else { Status::UNKNOWN }
}

unsafe extern "C" fn destroy_parser(parser: CUvideoparser) -> Status {
    let handle = parser as u64;
    let Some(fake) = find(handle >> SHIFT) else { return Status::INVALID_HANDLE };
    let mut state = lock(&fake);
    *state.calls.entry("cuvidDestroyVideoParser").or_default() += 1;
    match state.nvdec.parsers.remove(&handle) {
        Some(_) => Status::SUCCESS,
        None => state.wrong("a parser is destroyed that is not there"),
    }
}

impl Parser {
    /// Calls back for what was found. Whether to go on.
    unsafe fn tell(&mut self, found: Found) -> bool {
        let user = self.user as *mut c_void;
        match found {
            Found::Sequence(sequence) => {
                let mut format = sequence.format(self.codec);
                self.sequence = Some(sequence);
                IN_SEQUENCE.set(true);
                let answer = unsafe { (self.on_sequence)(user, &raw mut format) };
                IN_SEQUENCE.set(false);
                if answer > 1 {
                    self.pictures = answer as u32;
                }
                (self.next, self.hidden) = (0, None);
                answer > 0
            }
            Found::Picture(picture) => unsafe { self.picture(user, picture) },
            Found::ShowHidden => match (self.hidden, self.on_show) {
                (Some(index), Some(on_show)) => unsafe { show(on_show, user, index) },
                _ => true,
            },
        }
    }

    unsafe fn picture(&mut self, user: *mut c_void, picture: Picture) -> bool {
        let Some(sequence) = &self.sequence else { return true };
        let index = self.next as c_int;
        self.next = (self.next + 1) % self.pictures;
        let payload = Payload {
            shown: picture.shown,
            origin: [sequence.area[0] as usize, sequence.area[1] as usize],
            coded: sequence.coded,
            status: picture.status.unwrap_or(SUCCEEDED),
        };
        let mut parameters: CUVIDPICPARAMS = unsafe { mem::zeroed() };
        parameters.CurrPicIdx = index;
        parameters.pBitstreamData = (&raw const payload).cast();
        parameters.nBitstreamDataLen = size_of::<Payload>() as c_uint;
        unsafe {
            match self.codec {
                9 => parameters
                    .CodecSpecific
                    .vp8
                    .__bindgen_anon_1
                    .vp8_frame_tag
                    .set_show_frame(u8::from(!picture.hidden)),
                10 => parameters.CodecSpecific.vp9.set_showFrame(u16::from(!picture.hidden)),
                11 => parameters.CodecSpecific.av1.set_show_frame(u32::from(!picture.hidden)),
                _ => {}
            }
        }
        if picture.hidden {
            self.hidden = Some(index);
        }
        if picture.fields {
            parameters.field_pic_flag = 1;
            if unsafe { (self.on_decode)(user, &raw mut parameters) } == 0 {
                return false;
            }
            (parameters.second_field, parameters.bottom_field_flag) = (1, 1);
        }
        if unsafe { (self.on_decode)(user, &raw mut parameters) } == 0 {
            return false;
        }
        match self.on_show {
            Some(on_show) if !picture.hidden => unsafe { show(on_show, user, index) },
            _ => true,
        }
    }
}

unsafe fn show(
    on_show: unsafe extern "C" fn(*mut c_void, *mut CUVIDPARSERDISPINFO) -> c_int,
    user: *mut c_void,
    picture_index: c_int,
) -> bool {
    let mut info = CUVIDPARSERDISPINFO { picture_index, progressive_frame: 1, ..CUVIDPARSERDISPINFO::default() };
    unsafe { on_show(user, &raw mut info) != 0 }
}

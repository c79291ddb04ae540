//! The GPU that sessions share, as far as it works.

#[cfg(feature = "cuda")]
pub use self::some::{Gpu, Libraries, Unusable};

use std::sync::Arc;

use crate::decode::{self, Decoder as _, Shown, software::Software};
use crate::encode::{self, Encoded, Encoder as _};
use crate::frame::{NotBrought, Picture};
use crate::media::{Codec, ColorInfo, EncodedFrame, FramePool, MediaTime};

/// A session's decoder: on the GPU where that decodes the codec, otherwise in software.
pub(super) enum Decoder {
    Software(Box<Software>),
    /// Made on the thread that decodes, since that waits for the GPU.
    #[cfg(feature = "cuda")]
    Gpu {
        made: Option<Box<decode::nvdec::Takeover>>,
        decoders: Arc<decode::nvdec::Hardware>,
        codec: Codec,
        limits: decode::Limits,
        pool: Arc<FramePool>,
    },
}

impl Decoder {
    /// # Errors
    /// As [`Software::new`], where software is to decode.
    pub(super) fn new(
        gpu: Option<&Gpu>,
        codec: Codec,
        limits: decode::Limits,
        pool: Arc<FramePool>,
    ) -> Result<Self, decode::Error> {
        #[cfg(feature = "cuda")]
        if let Some(decoders) = gpu.and_then(|gpu| gpu.decoders(codec)) {
            return Ok(Self::Gpu { made: None, decoders: Arc::clone(decoders), codec, limits, pool });
        }
        #[cfg(not(feature = "cuda"))]
        let _ = gpu;
        Ok(Self::Software(Box::new(Software::new(codec, limits, pool)?)))
    }

    /// As [`decode::Decoder::decode`], wherever the picture lies then.
    ///
    /// # Errors
    /// As there.
    pub(super) fn decode(&mut self, unit: &EncodedFrame) -> Result<Option<Shown>, decode::Error> {
        match self {
            Self::Software(software) => Ok(software.decode(unit)?.map(Shown::from)),
            #[cfg(feature = "cuda")]
            Self::Gpu { made: Some(gpu), .. } => gpu.decode_in_place(unit),
            #[cfg(feature = "cuda")]
            Self::Gpu { made, decoders, codec, limits, pool } => {
                let gpu = decode::nvdec::Takeover::new(decoders, *codec, *limits, Arc::clone(pool))?;
                made.insert(Box::new(gpu)).decode_in_place(unit)
            }
        }
    }

    /// Has software go on with the next keyframe: what the GPU decodes does not come to the host.
    pub(super) fn give_up(&mut self, error: &NotBrought) {
        #[cfg(feature = "cuda")]
        if let Self::Gpu { made: Some(gpu), .. } = self {
            gpu.leave(error.reason());
        }
        #[cfg(not(feature = "cuda"))]
        let _ = error;
    }
}

/// A session's encoder: on the GPU where that encodes the codec, otherwise in software.
pub(super) enum Encoder {
    Software(Box<encode::software::Software>),
    #[cfg(feature = "cuda")]
    Gpu(Box<encode::nvenc::Takeover>),
}

impl Encoder {
    /// # Errors
    /// [`encode::Error::NoEncoder`].
    pub(super) fn new(
        gpu: Option<&Gpu>,
        codec: Codec,
        config: encode::software::Config,
    ) -> Result<Self, encode::Error> {
        #[cfg(feature = "cuda")]
        if let Some(encoders) = gpu.and_then(|gpu| gpu.encoders(codec)) {
            return encode::nvenc::Takeover::new(encoders, config).map(|gpu| Self::Gpu(Box::new(gpu)));
        }
        #[cfg(not(feature = "cuda"))]
        let _ = gpu;
        Ok(Self::Software(Box::new(encode::software::Software::new(codec, config)?)))
    }

    /// As [`encode::Encoder::encode`], wherever the picture lies.
    ///
    /// # Errors
    /// As there, and [`encode::Error::Device`] when the picture can be brought to no encoder.
    pub(super) fn encode(
        &mut self,
        picture: &Picture,
        color: ColorInfo,
        time: MediaTime,
        keyframe: bool,
        pool: &FramePool,
    ) -> Result<Option<Encoded>, encode::Error> {
        let host = || picture.host(pool).map_err(|_| encode::Error::Device);
        match (self, picture) {
            #[cfg(feature = "cuda")]
            (Self::Gpu(gpu), Picture::Device(picture)) => gpu.encode_surface(picture.surface(), color, time, keyframe),
            #[cfg(feature = "cuda")]
            (Self::Gpu(gpu), Picture::Host(_)) => gpu.encode(&*host()?, color, time, keyframe),
            (Self::Software(software), _) => software.encode(&*host()?, color, time, keyframe),
        }
    }

    pub(super) fn set_bitrate(&mut self, bps: u32) {
        match self {
            Self::Software(software) => software.set_bitrate(bps),
            #[cfg(feature = "cuda")]
            Self::Gpu(gpu) => gpu.set_bitrate(bps),
        }
    }
}

/// There is none in a program that was built without the feature `cuda`.
#[cfg(not(feature = "cuda"))]
#[derive(Debug)]
pub enum Gpu {}

#[cfg(feature = "cuda")]
mod some {
    use super::*;
    use crate::decode::nvdec;
    use crate::device::driver::{Driver, Missing};
    use crate::device::kernels::Program;
    use crate::device::{Device, Error, PinnedPool, SurfacePool};
    use crate::encode::nvenc;
    use crate::hardware::{Piece, Stage, Table};
    use crate::infer::{self, device::Tensors};
    use crate::pipeline::painting::Painter;

    /// Functions of NVIDIA's libraries.
    #[derive(Debug, Clone, Copy)]
    pub struct Libraries {
        /// Of the driver.
        pub driver: Driver,
        /// Of the decoder, where there is one.
        pub decoder: Option<nvdec::Api>,
        /// Of the encoder, where there is one.
        pub encoder: Option<nvenc::Api>,
        /// Where models have their tensors.
        pub tensors: Tensors,
    }

    impl Libraries {
        /// Opens them.
        ///
        /// # Errors
        /// [`Missing`], where the driver's is missing.
        pub fn open() -> Result<Self, Missing> {
            let (decoder, encoder) = (nvdec::Api::open().ok(), nvenc::Api::open().ok());
            Ok(Self { driver: Driver::open()?, decoder, encoder, tensors: Tensors::Device })
        }
    }

    /// Why a GPU can't be opened.
    #[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
    pub enum Unusable {
        /// Something is missing.
        #[error(transparent)]
        Missing(#[from] Missing),
        /// It fails.
        #[error(transparent)]
        Device(#[from] Error),
    }

    /// An open GPU.
    #[derive(Debug)]
    pub struct Gpu {
        decoders: Option<Arc<nvdec::Hardware>>,
        /// What it decodes.
        codecs: Vec<Codec>,
        encoders: Option<Arc<nvenc::Hardware>>,
        models: Option<infer::device::Gpu>,
        program: Arc<Program>,
        /// Pictures that are drawn on.
        surfaces: Arc<SurfacePool>,
        /// What is drawn, on its way there.
        host: Arc<PinnedPool>,
    }

    /// Bytes of the GPU's memory for pictures that are drawn on.
    const SURFACES: usize = 1 << 30;
    /// Bytes of the host's memory for what is drawn.
    const HOST: usize = 64 << 20;

    impl Gpu {
        /// Opens the first GPU for those of `stages` that the table says it can do. It may take seconds.
        ///
        /// # Errors
        /// [`Unusable`], where it can't be opened.
        pub fn open(libraries: Libraries, table: &Table, stages: &[Stage]) -> Result<Self, Unusable> {
            let device = Device::open(libraries.driver, 0)?;
            let does = |stage| stages.contains(&stage) && table.offers(stage).is_ok();
            let api = libraries.decoder.filter(|_| does(Stage::Decode));
            let program = Arc::new(Program::load(&device)?);
            let decoders = api.map(|api| nvdec::Hardware::with_kernels(&program, api, nvdec::Bounds::default()));
            let codecs =
                [(Codec::H264, Piece::DecodeH264), (Codec::Vp8, Piece::DecodeVp8), (Codec::Vp9, Piece::DecodeVp9)];
            let codecs = codecs.into_iter().filter(|(_, piece)| table.works(*piece).is_ok());
            let codecs = codecs.map(|(codec, _)| codec).collect();
            let models = does(Stage::Infer).then(|| infer::device::Gpu::new(Arc::clone(&program), libraries.tensors));
            let records = table.works(Piece::CudaGraphs).is_ok();
            let models = models.map(|models| if records { models.recording() } else { models });
            let api = libraries.encoder.filter(|_| does(Stage::Encode));
            let encoders = api.map(|api| nvenc::Hardware::new(&device, api, nvenc::Bounds::default()));
            let (surfaces, host) = (SurfacePool::new(&device, SURFACES), PinnedPool::new(&device, HOST));
            Ok(Self { decoders, codecs, encoders, models, program, surfaces, host })
        }

        /// What models need of it, if they run there.
        #[must_use]
        pub fn models(&self) -> Option<infer::device::Gpu> {
            self.models.clone()
        }

        /// What encodes a codec, if the GPU does.
        pub(in crate::pipeline) fn encoders(&self, codec: Codec) -> Option<&Arc<nvenc::Hardware>> {
            self.encoders.as_ref().filter(|_| codec == Codec::H264)
        }

        /// What paints a session's pictures.
        ///
        /// # Errors
        /// Any [`Error`] of the driver.
        pub(in crate::pipeline) fn painter(&self) -> Result<Painter, Error> {
            Painter::new(&self.program, &self.surfaces, &self.host)
        }

        /// What decodes a codec, if the GPU does.
        pub(in crate::pipeline) fn decoders(&self, codec: Codec) -> Option<&Arc<nvdec::Hardware>> {
            self.decoders.as_ref().filter(|_| self.codecs.contains(&codec))
        }
    }
}

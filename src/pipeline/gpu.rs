//! The GPU that sessions share, as far as it works.

#[cfg(feature = "cuda")]
pub use self::some::{Gpu, Libraries, Unusable};

use std::sync::Arc;

use crate::decode::{self, Decoder as _, Shown, software::Software};
use crate::media::{Codec, EncodedFrame, FramePool};

/// A session's decoder: on the GPU where that decodes the codec, otherwise in software.
pub(super) enum Decoder {
    Software(Box<Software>),
    #[cfg(feature = "cuda")]
    Gpu(Box<decode::nvdec::Takeover>),
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
            return decode::nvdec::Takeover::new(decoders, codec, limits, pool).map(|gpu| Self::Gpu(Box::new(gpu)));
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
            Self::Gpu(gpu) => gpu.decode_in_place(unit),
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
    use crate::device::{Device, Error};
    use crate::hardware::{Piece, Stage, Table};
    use crate::infer::{self, device::Tensors};

    /// Functions of NVIDIA's libraries.
    #[derive(Debug, Clone, Copy)]
    pub struct Libraries {
        /// Of the driver.
        pub driver: Driver,
        /// Of the decoder, where there is one.
        pub decoder: Option<nvdec::Api>,
        /// Where models have their tensors.
        pub tensors: Tensors,
    }

    impl Libraries {
        /// Opens them.
        ///
        /// # Errors
        /// [`Missing`], where the driver's is missing.
        pub fn open() -> Result<Self, Missing> {
            Ok(Self { driver: Driver::open()?, decoder: nvdec::Api::open().ok(), tensors: Tensors::Device })
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
        device: Arc<Device>,
        decoders: Option<Arc<nvdec::Hardware>>,
        /// What it decodes.
        codecs: Vec<Codec>,
        models: Option<infer::device::Gpu>,
    }

    impl Gpu {
        /// Opens the first GPU for those of `stages` that the table says it can do. It may take seconds.
        ///
        /// # Errors
        /// [`Unusable`], where it can't be opened.
        pub fn open(libraries: Libraries, table: &Table, stages: &[Stage]) -> Result<Self, Unusable> {
            let device = Device::open(libraries.driver, 0)?;
            let does = |stage| stages.contains(&stage) && table.offers(stage).is_ok();
            let api = libraries.decoder.filter(|_| does(Stage::Decode));
            let decoders = api.map(|api| nvdec::Hardware::new(&device, api, nvdec::Bounds::default()));
            let codecs =
                [(Codec::H264, Piece::DecodeH264), (Codec::Vp8, Piece::DecodeVp8), (Codec::Vp9, Piece::DecodeVp9)];
            let codecs = codecs.into_iter().filter(|(_, piece)| table.works(*piece).is_ok());
            let codecs = codecs.map(|(codec, _)| codec).collect();
            let models = if does(Stage::Infer) {
                Some(infer::device::Gpu::new(Arc::new(Program::load(&device)?), libraries.tensors))
            } else {
                None
            };
            Ok(Self { device, decoders, codecs, models })
        }

        /// Why it is of no use any more, if it is not.
        ///
        /// # Errors
        /// [`Error::Lost`].
        pub fn alive(&self) -> Result<(), Error> {
            self.device.alive()
        }

        /// What models need of it, if they run there.
        #[must_use]
        pub fn models(&self) -> Option<infer::device::Gpu> {
            self.models.clone()
        }

        /// What decodes a codec, if the GPU does.
        pub(super) fn decoders(&self, codec: Codec) -> Option<&Arc<nvdec::Hardware>> {
            self.decoders.as_ref().filter(|_| self.codecs.contains(&codec))
        }
    }
}

//! The GPU that sessions share, as far as it works.

#[cfg(not(feature = "cuda"))]
pub use self::none::Gpu;
#[cfg(feature = "cuda")]
pub use self::some::{Gpu, Libraries};

use std::sync::Arc;

use crate::decode::{self, Decoder, software::Software};
use crate::media::{Codec, FramePool};

/// A session's decoder: on the GPU where that decodes the codec, otherwise in software.
///
/// # Errors
/// As [`Software::new`], where software is to decode.
pub(super) fn decoder(
    gpu: Option<&Gpu>,
    codec: Codec,
    limits: decode::Limits,
    pool: Arc<FramePool>,
) -> Result<Box<dyn Decoder>, decode::Error> {
    match gpu.and_then(|gpu| gpu.decoder(codec, limits, &pool)) {
        Some(decoder) => decoder,
        None => Ok(Box::new(Software::new(codec, limits, pool)?)),
    }
}

#[cfg(not(feature = "cuda"))]
mod none {
    use super::*;

    /// There is none in a program that was built without the feature `cuda`.
    #[derive(Debug)]
    pub enum Gpu {}

    impl Gpu {
        pub(super) fn decoder(
            &self,
            _codec: Codec,
            _limits: decode::Limits,
            _pool: &Arc<FramePool>,
        ) -> Option<Result<Box<dyn Decoder>, decode::Error>> {
            match *self {}
        }
    }
}

#[cfg(feature = "cuda")]
mod some {
    use super::*;
    use crate::decode::nvdec::{self, Takeover};
    use crate::device::driver::{Driver, Missing};
    use crate::device::{Device, Error};
    use crate::hardware::{Piece, Stage, Table};

    /// Functions of NVIDIA's libraries.
    #[derive(Debug, Clone, Copy)]
    pub struct Libraries {
        /// Of the driver.
        pub driver: Driver,
        /// Of the decoder, where there is one.
        pub decoder: Option<nvdec::Api>,
    }

    impl Libraries {
        /// Opens them.
        ///
        /// # Errors
        /// [`Missing`], where the driver's is missing.
        pub fn open() -> Result<Self, Missing> {
            Ok(Self { driver: Driver::open()?, decoder: nvdec::Api::open().ok() })
        }
    }

    /// An open GPU.
    #[derive(Debug)]
    pub struct Gpu {
        device: Arc<Device>,
        decoders: Option<Arc<nvdec::Hardware>>,
        /// What it decodes.
        codecs: Vec<Codec>,
    }

    impl Gpu {
        /// Opens the first GPU for those of `stages` that the table says it can do. It may take seconds.
        ///
        /// # Errors
        /// [`Missing`], where it can't be opened.
        pub fn open(libraries: Libraries, table: &Table, stages: &[Stage]) -> Result<Self, Missing> {
            let device = Device::open(libraries.driver, 0)?;
            let decodes = stages.contains(&Stage::Decode) && table.offers(Stage::Decode).is_ok();
            let api = libraries.decoder.filter(|_| decodes);
            let decoders = api.map(|api| nvdec::Hardware::new(&device, api, nvdec::Bounds::default()));
            let codecs =
                [(Codec::H264, Piece::DecodeH264), (Codec::Vp8, Piece::DecodeVp8), (Codec::Vp9, Piece::DecodeVp9)];
            let codecs = codecs.into_iter().filter(|(_, piece)| table.works(*piece).is_ok());
            Ok(Self { device, decoders, codecs: codecs.map(|(codec, _)| codec).collect() })
        }

        /// Why it is of no use any more, if it is not.
        ///
        /// # Errors
        /// [`Error::Lost`].
        pub fn alive(&self) -> Result<(), Error> {
            self.device.alive()
        }

        pub(super) fn decoder(
            &self,
            codec: Codec,
            limits: decode::Limits,
            pool: &Arc<FramePool>,
        ) -> Option<Result<Box<dyn Decoder>, decode::Error>> {
            let decoders = self.decoders.as_ref().filter(|_| self.codecs.contains(&codec))?;
            Some(Takeover::new(decoders, codec, limits, Arc::clone(pool)).map(|decoder| Box::new(decoder) as _))
        }
    }
}

//! Which frames come back: decodes returned video and reads the numbers in it.

use ffmpeg_next::error::EAGAIN;
use ffmpeg_next::{Packet, codec, decoder, frame};

use super::{ClipError, Codec, mark};

/// Decodes access units, and reads the number of each picture.
pub(crate) struct Reader {
    decoder: decoder::Video,
    frame: frame::Video,
}

impl Reader {
    /// # Errors
    /// [`ClipError::Encode`] when this FFmpeg can't decode the codec.
    pub(crate) fn new(codec: Codec) -> Result<Self, ClipError> {
        let failed = |error: ffmpeg_next::Error| ClipError::Encode { codec, reason: error.to_string() };
        ffmpeg_next::init().map_err(failed)?;
        let id = match codec {
            Codec::H264 => codec::Id::H264,
            Codec::Vp8 => codec::Id::VP8,
        };
        let found = decoder::find(id).ok_or(ffmpeg_next::Error::DecoderNotFound).map_err(failed)?;
        let mut context = codec::Context::new_with_codec(found);
        context.set_flags(codec::Flags::LOW_DELAY);
        let decoder = context.decoder().video().map_err(failed)?;
        Ok(Self { decoder, frame: frame::Video::empty() })
    }

    /// Takes an access unit, and gives the number in each picture that it completes: `None` where it can't be read.
    /// What can't be decoded gives nothing.
    pub(crate) fn take(&mut self, unit: &[u8]) -> Vec<Option<u32>> {
        let mut numbers = Vec::new();
        match self.decoder.send_packet(&Packet::copy(unit)) {
            Ok(()) | Err(ffmpeg_next::Error::Other { errno: EAGAIN }) => {}
            Err(_) => return numbers,
        }
        while self.decoder.receive_frame(&mut self.frame).is_ok() {
            let (width, height) = (self.frame.width(), self.frame.height());
            numbers.push(mark::read(self.frame.data(0), self.frame.stride(0), width, height));
        }
        numbers
    }
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").finish_non_exhaustive()
    }
}

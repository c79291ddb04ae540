//! The decoder that works everywhere: FFmpeg on the CPU.
#![allow(unsafe_code, reason = "sets the fields of FFmpeg's codec context that have no safe setter")]

use std::sync::Arc;

use ffmpeg_next::error::EAGAIN;
use ffmpeg_next::{Packet, codec, decoder, ffi, frame};

use crate::media::{Codec, EncodedFrame, FramePool};

use super::picture::Copier;
use super::{Decoded, Decoder, Error, Limits, header, init};

/// Decodes H.264, VP8 and VP9 with FFmpeg, on the calling thread, without delay.
pub struct Software {
    codec: Codec,
    limits: Limits,
    pool: Arc<FramePool>,
    decoder: decoder::Video,
    /// The picture last shown.
    frame: frame::Video,
    incoming: frame::Video,
    copier: Copier,
    awaiting_keyframe: bool,
}

impl Software {
    /// A decoder that takes its pictures from `pool`.
    ///
    /// # Errors
    /// [`Error::NoDecoder`] when this FFmpeg lacks the codec, [`Error::Invalid`] when it can't be opened.
    pub fn new(codec: Codec, limits: Limits, pool: Arc<FramePool>) -> Result<Self, Error> {
        init();
        let name = match codec {
            Codec::H264 => "h264",
            Codec::Vp8 => "vp8",
            Codec::Vp9 => "vp9",
        };
        let found = decoder::find_by_name(name).ok_or(Error::NoDecoder(codec))?;
        let mut context = codec::Context::new_with_codec(found);
        // SAFETY: the context is ours alone and not open yet.
        unsafe {
            let context = &mut *context.as_mut_ptr();
            context.thread_count = 1;
            context.flags |= ffi::AV_CODEC_FLAG_LOW_DELAY.cast_signed();
            context.max_pixels = limits.max_pixels();
        }
        let decoder = context.decoder().open().and_then(decoder::Opened::video).map_err(Error::Invalid)?;
        let (frame, incoming, copier) = (frame::Video::empty(), frame::Video::empty(), Copier::default());
        Ok(Self { codec, limits, pool, decoder, frame, incoming, copier, awaiting_keyframe: true })
    }

    fn try_decode(&mut self, unit: &EncodedFrame) -> Result<Option<Decoded>, Error> {
        if let Some((width, height)) = header::size(self.codec, &unit.data) {
            self.limits.check(width, height)?;
        }
        // FFmpeg would take an empty packet as the stream's end.
        if unit.data.is_empty() {
            return Err(Error::Invalid(ffmpeg_next::Error::InvalidData));
        }
        self.decoder.send_packet(&Packet::copy(&unit.data)).map_err(Error::Invalid)?;
        let mut shown = false;
        loop {
            match self.decoder.receive_frame(&mut self.incoming) {
                // Of a picture's spatial layers, the last is the whole picture.
                Ok(()) => (std::mem::swap(&mut self.incoming, &mut self.frame), shown = true),
                Err(ffmpeg_next::Error::Other { errno: EAGAIN }) => break,
                Err(error) => return Err(Error::Invalid(error)),
            };
            // There is nothing better than a keyframe; what follows it must be whole.
            if !unit.keyframe && (self.frame.has_decode_errors() || self.frame.is_corrupt()) {
                return Err(Error::Damaged);
            }
        }
        if !shown {
            return Ok(None);
        }
        self.limits.check(self.frame.width(), self.frame.height())?;
        self.copier.copy(&self.frame, unit.rotation, unit.color, &self.pool).map(Some)
    }
}

impl Decoder for Software {
    fn decode(&mut self, unit: &EncodedFrame) -> Result<Option<Decoded>, Error> {
        if self.awaiting_keyframe {
            if !unit.keyframe {
                return Ok(None);
            }
            self.decoder.flush();
        }
        let result = self.try_decode(unit);
        self.awaiting_keyframe = result.as_ref().is_err_and(|error| error.needs_keyframe());
        result
    }
}

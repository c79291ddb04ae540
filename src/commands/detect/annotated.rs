use std::fs;
use std::path::Path;

use super::file::Error;
use crate::commands::pending::Pending;
use crate::decode::file::Info;
use crate::encode::file::{Effort, Settings, Writer};
use crate::encode::picture::{self, Format};
use crate::media::{Codec, ColorInfo, I420};

/// Constant quality of annotated video: good for H.264 and VP8 alike.
const QUALITY: u8 = 20;
/// Pictures a second where the input does not say.
const DEFAULT_FPS: f64 = 25.0;

/// What an annotated copy is, by the ending of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Video(Codec),
    Picture(Format),
}

impl Kind {
    /// The endings that are known.
    pub(super) const ENDINGS: &str = ".mp4, .mov, .mkv or .webm for a video, .png, .jpg or .jpeg for a picture";

    pub(super) fn of(path: &Path) -> Option<Self> {
        if let Some(format) = Format::of(path) {
            return Some(Self::Picture(format));
        }
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "mp4" | "mov" | "mkv" => Some(Self::Video(Codec::H264)),
            "webm" => Some(Self::Video(Codec::Vp8)),
            _ => None,
        }
    }
}

/// The copy of an input with boxes drawn, in the making.
pub(super) struct Annotated {
    kind: Kind,
    fps: f64,
    /// Opened with the first picture, whose size it has.
    writer: Option<Writer>,
    pending: Pending,
}

impl Annotated {
    /// # Errors
    /// [`Error::Kind`] when a picture is to become a video or a video a picture; [`Error::Write`].
    pub(super) fn new(target: &Path, kind: Kind, input: &Info) -> Result<Self, Error> {
        let still = is_still(input);
        if still != matches!(kind, Kind::Picture(_)) {
            return Err(Error::Kind { still });
        }
        let pending = Pending::new(target).map_err(Error::Write)?;
        Ok(Self { kind, fps: input.fps.unwrap_or(DEFAULT_FPS), writer: None, pending })
    }

    pub(super) fn write(&mut self, picture: &I420, color: ColorInfo) -> Result<(), Error> {
        let codec = match self.kind {
            Kind::Video(codec) => codec,
            Kind::Picture(format) => {
                let bytes = picture::encode(picture, color, format)?;
                return fs::write(self.pending.path(), bytes).map_err(Error::Write);
            }
        };
        let writer = match &mut self.writer {
            Some(writer) => writer,
            none => {
                let (width, height) = (picture.width(), picture.height());
                let settings = Settings { codec, width, height, fps: self.fps, quality: QUALITY, effort: Effort::Fast };
                none.insert(Writer::create(self.pending.path(), settings)?)
            }
        };
        Ok(writer.write(picture, color)?)
    }

    /// Closes the file and puts it in place.
    pub(super) fn finish(self) -> Result<(), Error> {
        if let Some(writer) = self.writer {
            writer.finish()?;
        }
        self.pending.put_in_place().map_err(Error::Write)
    }
}

/// Whether the file holds a single picture without a time.
fn is_still(info: &Info) -> bool {
    info.fps.is_none() && info.frames == Some(1)
}

//! Drawing on pictures that lie on a GPU.
#![expect(unsafe_code, reason = "launches kernels")]

use std::sync::Arc;

use metrics::{Counter, counter};

use crate::annotate::{Annotator, Overlay};
use crate::device::kernels::overlay::{Parts, Places};
use crate::device::kernels::{Launch as _, Program};
use crate::device::{Buffer, Error, Pinned, PinnedPool, PitchedNv12, Share, Stream, Surface, SurfacePool};
use crate::draw::{Atlas, Point, Recording, Revision};
use crate::media::{ColorInfo, I420};

/// Bytes of the first copy of an atlas on the GPU; a later one is as long as it has to be.
const ATLAS: usize = 256 << 10;
/// Bytes of what stays on the GPU of zones and lines at most. Where they take more, they are sent with each picture.
const FIXED: usize = 4 << 20;
/// Painted pictures of a session at a time: one that is painted, one that is encoded, and one of the size before.
const SURFACES: usize = 3;

/// Paints a session's pictures on the GPU where they lie, each on a copy, since others read them, too.
pub(super) struct Painter {
    program: Arc<Program>,
    stream: Stream,
    surfaces: Share,
    host: Arc<PinnedPool>,
    fixed: Fixed,
    /// What is painted on this picture alone.
    moving: Recording,
    parts: Parts,
    /// A copy of the atlas, and how far that has come.
    atlas: Option<(Buffer, Revision)>,
    words: Option<Buffer>,
    refused: Counter,
}

/// Zones and lines, which are the same from picture to picture.
#[derive(Default)]
struct Fixed {
    of: Option<Kind>,
    recording: Recording,
    sent: Sent,
}

/// How much of a recording is on the GPU.
#[derive(Default)]
enum Sent {
    #[default]
    Nothing,
    All(Vec<(Places, Buffer)>),
    /// It is too large to stay there, or there was no room for it.
    Never,
}

/// What a recording of zones and lines hangs on.
struct Kind {
    size: [u32; 2],
    color: ColorInfo,
    /// Of the atlas.
    generation: u64,
    zones: Vec<(String, Vec<Point>)>,
    lines: Vec<(String, [Point; 2])>,
}

impl Kind {
    fn new(size: [u32; 2], color: ColorInfo, generation: u64, overlay: &Overlay<'_>) -> Self {
        let zones = overlay.zones.iter().map(|zone| (zone.name.to_owned(), zone.polygon.to_vec()));
        let lines = overlay.lines.iter().map(|line| (line.name.to_owned(), [line.from, line.to]));
        Self { size, color, generation, zones: zones.collect(), lines: lines.collect() }
    }

    fn is(&self, size: [u32; 2], color: ColorInfo, generation: u64, overlay: &Overlay<'_>) -> bool {
        let zones = overlay.zones.iter().map(|zone| (zone.name, zone.polygon));
        let lines = overlay.lines.iter().map(|line| (line.name, [line.from, line.to]));
        (self.size, self.color, self.generation) == (size, color, generation)
            && self.zones.iter().map(|(name, polygon)| (name.as_str(), polygon.as_slice())).eq(zones)
            && self.lines.iter().map(|(name, ends)| (name.as_str(), *ends)).eq(lines)
    }
}

impl Painter {
    /// # Errors
    /// Any [`Error`] of the driver.
    pub(super) fn new(
        program: &Arc<Program>,
        surfaces: &Arc<SurfacePool>,
        host: &Arc<PinnedPool>,
    ) -> Result<Self, Error> {
        Ok(Self {
            program: Arc::clone(program),
            stream: Stream::new(program.device())?,
            surfaces: surfaces.share(SURFACES),
            host: Arc::clone(host),
            fixed: Fixed::default(),
            moving: Recording::default(),
            parts: Parts::default(),
            atlas: None,
            words: None,
            refused: counter!("saccade_draw_refused_total"),
        })
    }

    /// A copy of a picture, at half its size if it is to be, with an overlay painted on it.
    ///
    /// # Errors
    /// Any [`Error`] of the driver, or [`Error::Exhausted`].
    pub(super) fn paint(
        &mut self,
        from: &PitchedNv12,
        half: bool,
        color: ColorInfo,
        overlay: &Overlay<'_>,
        annotator: &mut Annotator,
    ) -> Result<Surface, Error> {
        let [width, height] =
            if half { I420::half_size(from.width(), from.height()) } else { [from.width(), from.height()] };
        let mut to = self.surfaces.take(width, height)?;
        annotator.begin();
        self.record_fixed([width, height], color, overlay, annotator);
        self.moving.begin(width, height);
        let before = self.moving.refused();
        annotator.draw_moving(&mut self.moving, color, overlay);
        self.refused.increment(self.moving.refused() - before);
        // What is on its way to the GPU stays until the stream is done with it.
        let mut sent = Vec::new();
        let painted =
            self.copy(from, &mut to, half).and_then(|()| self.paint_on(&mut to, annotator.atlas(), &mut sent));
        self.stream.wait()?;
        painted.map(|()| to)
    }

    /// Records zones and lines, unless those that were recorded last are the same.
    fn record_fixed(&mut self, size: [u32; 2], color: ColorInfo, overlay: &Overlay<'_>, annotator: &mut Annotator) {
        let (fixed, generation) = (&mut self.fixed, annotator.atlas().generation());
        if fixed.of.as_ref().is_some_and(|kind| kind.is(size, color, generation, overlay)) {
            return;
        }
        fixed.of = Some(Kind::new(size, color, generation, overlay));
        fixed.sent = Sent::Nothing;
        fixed.recording.begin(size[0], size[1]);
        let before = fixed.recording.refused();
        annotator.draw_fixed(&mut fixed.recording, color, overlay);
        self.refused.increment(fixed.recording.refused() - before);
    }

    fn copy(&self, from: &PitchedNv12, to: &mut PitchedNv12, half: bool) -> Result<(), Error> {
        if half { self.program.on(&self.stream).halve(from, to) } else { to.copy_from(from, &self.stream) }
    }

    fn paint_on(&mut self, to: &mut PitchedNv12, atlas: &Atlas, sent: &mut Vec<Pinned>) -> Result<(), Error> {
        let (fixed, moving) = (&self.fixed.recording, &self.moving);
        if fixed.operations().is_empty() && moving.operations().is_empty() {
            return Ok(());
        }
        let atlas = self.bring_up(atlas, sent)?;
        if matches!(self.fixed.sent, Sent::Nothing) {
            self.fixed.sent = match self.send_fixed(sent) {
                // With each picture it takes no memory of its own.
                Err(Error::OutOfMemory | Error::Exhausted(_)) => Sent::Never,
                sent => sent?,
            };
        }
        if let Sent::All(parts) = &self.fixed.sent {
            for (places, words) in parts {
                let kernel = places.kernel(to.nv12(), atlas, words.address());
                // SAFETY: atlas and words are there, and the picture has the size of the recording.
                unsafe { self.program.on(&self.stream).launch(&kernel) }?;
            }
        } else {
            self.send_and_paint(true, to, atlas, sent)?;
        }
        self.send_and_paint(false, to, atlas, sent)?;
        to.end_writing(&self.stream)
    }

    /// Has zones and lines copied to where they stay, if they are not too large for that. Asking for memory stops the GPU, so that
    /// whoever gets none is not to ask for each picture.
    fn send_fixed(&mut self, sent: &mut Vec<Pinned>) -> Result<Sent, Error> {
        let (mut parts, mut bytes) = (Vec::new(), 0);
        self.parts.begin();
        while let Some(part) = self.parts.next(&self.fixed.recording) {
            let len = size_of_val(part.words());
            bytes += len;
            if bytes > FIXED {
                return Ok(Sent::Never);
            }
            let words = Buffer::new(self.stream.device(), len)?;
            let mut pinned = self.host.take(len)?;
            pinned.words_mut().copy_from_slice(part.words());
            // SAFETY: the buffer has the length and is nobody else's, and what is sent stays until the stream was waited for.
            unsafe { pinned.send(words.address(), &self.stream) }?;
            sent.push(pinned);
            parts.push((part.places(), words));
        }
        Ok(Sent::All(parts))
    }

    /// Has one of the recordings copied to the GPU and painted, part by part.
    fn send_and_paint(
        &mut self,
        is_fixed: bool,
        to: &PitchedNv12,
        atlas: u64,
        sent: &mut Vec<Pinned>,
    ) -> Result<(), Error> {
        let recording = if is_fixed { &self.fixed.recording } else { &self.moving };
        self.parts.begin();
        while let Some(part) = self.parts.next(recording) {
            let len = size_of_val(part.words());
            if self.words.as_ref().is_none_or(|words| words.len() < len) {
                self.words = None;
                self.words = Some(Buffer::new(self.stream.device(), len.next_power_of_two())?);
            }
            let address = self.words.as_ref().map_or(0, Buffer::address);
            let mut pinned = self.host.take(len)?;
            pinned.words_mut().copy_from_slice(part.words());
            // SAFETY: the buffer has the length, the part before is read in the order of the same stream, and what is sent
            // stays until the stream was waited for.
            unsafe { pinned.send(address, &self.stream) }?;
            sent.push(pinned);
            let kernel = part.kernel(to.nv12(), atlas, address);
            // SAFETY: atlas and words are there, and the picture has the size of the recording.
            unsafe { self.program.on(&self.stream).launch(&kernel) }?;
        }
        Ok(())
    }

    /// Sends what the GPU's copy of the atlas lacks. Its address.
    fn bring_up(&mut self, atlas: &Atlas, sent: &mut Vec<Pinned>) -> Result<u64, Error> {
        let needed = atlas.coverage().len();
        let (copy, seen) = match self.atlas.take() {
            Some((copy, seen)) if copy.len() >= needed => (copy, seen),
            _ => (Buffer::new(self.stream.device(), needed.next_power_of_two().max(ATLAS))?, Revision::default()),
        };
        let (start, lacking) = atlas.since(seen);
        let address = copy.address();
        if !lacking.is_empty() {
            let mut pinned = self.host.take(lacking.len())?;
            pinned.copy_from_slice(lacking);
            // SAFETY: the copy has room for all of it, and what is sent stays until the stream was waited for.
            unsafe { pinned.send(address + start as u64, &self.stream) }?;
            sent.push(pinned);
        }
        self.atlas = Some((copy, atlas.revision()));
        Ok(address)
    }
}

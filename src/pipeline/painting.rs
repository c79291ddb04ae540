//! Drawing on pictures that lie on a GPU.
#![expect(unsafe_code, reason = "launches kernels")]

use std::sync::Arc;

use metrics::{Counter, counter};

use crate::device::kernels::overlay::Parts;
use crate::device::kernels::{Launch as _, Program};
use crate::device::{Buffer, Error, Pinned, PinnedPool, PitchedNv12, Share, Stream, Surface, SurfacePool};
use crate::draw::{Atlas, Recording, Revision};
use crate::media::I420;

/// Bytes of the first copy of an atlas on the GPU; a later one is as long as it has to be.
const ATLAS: usize = 256 << 10;
/// Painted pictures of a session at a time: one that is painted, one that is encoded, and one of the size before.
const SURFACES: usize = 3;

/// Paints a session's pictures on the GPU where they lie, each on a copy, since others read them, too.
pub(super) struct Painter {
    program: Arc<Program>,
    stream: Stream,
    surfaces: Share,
    host: Arc<PinnedPool>,
    recording: Recording,
    parts: Parts,
    /// A copy of the atlas, and how far that has come.
    atlas: Option<(Buffer, Revision)>,
    words: Option<Buffer>,
    refused: Counter,
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
            recording: Recording::default(),
            parts: Parts::default(),
            atlas: None,
            words: None,
            refused: counter!("saccade_draw_refused_total"),
        })
    }

    /// A copy of a picture, at half its size if it is to be, with what `record` records painted on it. `record` returns the
    /// atlas that its recording refers to.
    ///
    /// # Errors
    /// Any [`Error`] of the driver, or [`Error::Exhausted`].
    pub(super) fn paint<'a>(
        &mut self,
        from: &PitchedNv12,
        half: bool,
        record: impl FnOnce(&mut Recording) -> &'a Atlas,
    ) -> Result<Surface, Error> {
        let [width, height] =
            if half { I420::half_size(from.width(), from.height()) } else { [from.width(), from.height()] };
        let mut to = self.surfaces.take(width, height)?;
        self.recording.begin(width, height);
        let before = self.recording.refused();
        let atlas = record(&mut self.recording);
        self.refused.increment(self.recording.refused() - before);
        // What is on its way to the GPU stays until the stream is done with it.
        let mut sent = Vec::new();
        let painted = self.copy(from, &mut to, half).and_then(|()| self.paint_on(&mut to, atlas, &mut sent));
        self.stream.wait()?;
        painted.map(|()| to)
    }

    fn copy(&self, from: &PitchedNv12, to: &mut PitchedNv12, half: bool) -> Result<(), Error> {
        if half { self.program.on(&self.stream).halve(from, to) } else { to.copy_from(from, &self.stream) }
    }

    fn paint_on(&mut self, to: &mut PitchedNv12, atlas: &Atlas, sent: &mut Vec<Pinned>) -> Result<(), Error> {
        if self.recording.operations().is_empty() {
            return Ok(());
        }
        let atlas = self.bring_up(atlas, sent)?;
        self.parts.begin();
        while let Some(part) = self.parts.next(&self.recording) {
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
        to.end_writing(&self.stream)
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

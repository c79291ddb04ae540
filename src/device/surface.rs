//! Pictures in a GPU's memory.
#![expect(unsafe_code, reason = "calls the CUDA driver")]

use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cudarc::driver::sys::{CUDA_MEMCPY2D, CUdeviceptr, CUmemorytype};

use crate::media::I420;

use super::kernels::Nv12;
use super::memory::settle;
use super::quota::Quota;
use super::{Device, Error, Event, PinnedPool, Stream};

/// Bytes that the driver aligns a row for: the widest that kernels read at a time.
const ELEMENT: u32 = 16;
/// Longest side of a picture.
const MAX_SIDE: u32 = 1 << 14;

/// A YCbCr 4:2:0 picture with 8 bits a sample on a GPU: a plane of luma, then one of Cb and Cr by turns, in rows of
/// [`PitchedNv12::pitch`] bytes.
///
/// The chroma plane lies behind the luma plane's rows, of which there is one more than the picture has if its height is
/// odd: [`PitchedNv12::chroma`] says where. It is plain memory of `cuMemAllocPitch`; NVENC takes no other.
pub struct PitchedNv12 {
    gpu: Arc<Device>,
    address: CUdeviceptr,
    pitch: usize,
    width: u32,
    height: u32,
    ready: Event,
    /// What still reads it, or did.
    readers: Mutex<Readers>,
}

/// Events of streams that read a surface; those from `waiting` on are spare.
#[derive(Debug, Default)]
struct Readers {
    events: Vec<Event>,
    waiting: usize,
}

impl PitchedNv12 {
    /// A picture of this size with unspecified samples.
    ///
    /// # Errors
    /// [`Error::Size`] for a side of 0 or more than 16,384; [`Error::OutOfMemory`] and any other of the driver.
    pub fn new(gpu: &Arc<Device>, width: u32, height: u32) -> Result<Self, Error> {
        if width == 0 || height == 0 || width > MAX_SIDE || height > MAX_SIDE {
            return Err(Error::Size(width as usize * height as usize));
        }
        let ready = Event::new(gpu)?;
        let _current = gpu.enter()?;
        let (mut address, mut pitch) = (0, 0);
        let (row, rows) = (row_bytes(width), luma_rows(height) + height.div_ceil(2) as usize);
        // SAFETY: both numbers outlive the call, and the context is current.
        let status = unsafe { (gpu.driver().allocate_pitched)(&raw mut address, &raw mut pitch, row, rows, ELEMENT) };
        gpu.check("cuMemAllocPitch", status)?;
        Ok(Self { gpu: Arc::clone(gpu), address, pitch, width, height, ready, readers: Mutex::default() })
    }

    /// Width in luma samples.
    #[must_use]
    pub const fn width(&self) -> u32 {
        self.width
    }

    /// Height in luma samples.
    #[must_use]
    pub const fn height(&self) -> u32 {
        self.height
    }

    /// Bytes from one row to the next, in both planes.
    #[must_use]
    pub const fn pitch(&self) -> usize {
        self.pitch
    }

    /// Address of the luma plane, `width` bytes a row.
    #[must_use]
    pub const fn luma(&self) -> CUdeviceptr {
        self.address
    }

    /// Address of the chroma plane, `2 * width.div_ceil(2)` bytes a row.
    #[must_use]
    pub const fn chroma(&self) -> CUdeviceptr {
        self.address + (self.pitch * luma_rows(self.height)) as u64
    }

    /// Bytes of the GPU's memory that it takes.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.pitch * (luma_rows(self.height) + self.height.div_ceil(2) as usize)
    }

    /// As kernels find it.
    #[must_use]
    pub fn nv12(&self) -> Nv12 {
        let pitch = u32::try_from(self.pitch).unwrap_or(u32::MAX);
        let (luma, chroma, width, height) = (self.luma(), self.chroma(), self.width, self.height);
        Nv12 { luma, chroma, luma_pitch: pitch, chroma_pitch: pitch, width, height }
    }

    /// The GPU it is on.
    #[must_use]
    pub const fn device(&self) -> &Arc<Device> {
        &self.gpu
    }

    /// Stands for what wrote the picture. Whoever reads it has its stream wait for this first.
    #[must_use]
    pub const fn ready(&self) -> &Event {
        &self.ready
    }

    /// Says that `stream` has been given all of its work that reads the picture: nobody writes to it before that is done.
    ///
    /// # Errors
    /// Any [`Error`] of the driver.
    pub fn read_by(&self, stream: &Stream) -> Result<(), Error> {
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        let at = readers.waiting;
        if at == readers.events.len() {
            readers.events.push(Event::new(&self.gpu)?);
        }
        readers.events[at].record(stream)?;
        readers.waiting += 1;
        Ok(())
    }

    /// Has `stream`, which is to write the picture, wait for those who read what was in it before, or wrote that.
    ///
    /// # Errors
    /// Any [`Error`] of the driver.
    pub fn begin_writing(&mut self, stream: &Stream) -> Result<(), Error> {
        let readers = self.readers.get_mut().unwrap_or_else(PoisonError::into_inner);
        stream.wait_for(&self.ready)?;
        for event in &readers.events[..readers.waiting] {
            stream.wait_for(event)?;
        }
        readers.waiting = 0;
        Ok(())
    }

    /// Says that `stream` has been given all of its work that writes the picture: [`PitchedNv12::ready`] stands for it.
    ///
    /// # Errors
    /// Any [`Error`] of the driver.
    pub fn end_writing(&mut self, stream: &Stream) -> Result<(), Error> {
        self.ready.record(stream)
    }

    /// Copies a picture of at least this one's size from elsewhere on the GPU, in the order of `stream`: the planes begin
    /// `left` samples from the left, and `top` rows from the top, of two planes at `luma` and `chroma` with rows of `pitch`
    /// bytes. Then [`PitchedNv12::ready`] stands for it.
    ///
    /// # Safety
    /// Both planes are device memory as far as it is read, and stay so until the stream is done with it.
    ///
    /// # Errors
    /// [`Error::Bounds`] when a row does not fit into `pitch`; any of the driver.
    pub unsafe fn copy_from_device(
        &mut self,
        [luma, chroma]: [CUdeviceptr; 2],
        pitch: usize,
        [left, top]: [u32; 2],
        stream: &Stream,
    ) -> Result<(), Error> {
        let (left, top) = (left as usize, top as usize);
        if left + self.width as usize > pitch || (left & !1) + row_bytes(self.width) > pitch {
            return Err(Error::Bounds);
        }
        let gpu = Arc::clone(&self.gpu);
        let _current = gpu.enter()?;
        self.begin_writing(stream)?;
        let [to_luma, to_chroma] = self.planes();
        // Samples of chroma lie at even columns and rows.
        let starts = [(luma, left, top), (chroma, left & !1, top / 2)];
        let mut copied = Ok(());
        for ((from, left, top), to) in starts.into_iter().zip([to_luma, to_chroma]) {
            let copy = CUDA_MEMCPY2D {
                srcXInBytes: left,
                srcY: top,
                srcMemoryType: CUmemorytype::CU_MEMORYTYPE_DEVICE,
                srcDevice: from,
                srcPitch: pitch,
                dstMemoryType: CUmemorytype::CU_MEMORYTYPE_DEVICE,
                dstDevice: to.address,
                dstPitch: self.pitch,
                WidthInBytes: to.row,
                Height: to.rows,
                ..NO_COPY
            };
            // SAFETY: the source is the caller's; the target is ours and has these rows.
            let status = unsafe { (self.gpu.driver().copy_2d)(&raw const copy, stream.raw()) };
            copied = copied.and(self.gpu.check("cuMemcpy2DAsync", status));
        }
        // Also where one copy failed: the other may be on its way.
        self.end_writing(stream)?;
        copied
    }

    /// Copies a picture of this one's size on the same GPU, in the order of `stream`, which waits for what writes it. The
    /// picture is read once what the stream was given is done, and nobody writes to it before.
    ///
    /// # Errors
    /// [`Error::Bounds`] for another size or GPU; any of the driver.
    pub fn copy_from(&mut self, other: &Self, stream: &Stream) -> Result<(), Error> {
        if (other.width, other.height) != (self.width, self.height) || !Arc::ptr_eq(&other.gpu, &self.gpu) {
            return Err(Error::Bounds);
        }
        stream.wait_for(&other.ready)?;
        // SAFETY: both planes are the other picture's, whose memory stays until the driver is done with it: `read_by` keeps
        // others from writing to it, and freeing it waits.
        let copied = unsafe { self.copy_from_device([other.luma(), other.chroma()], other.pitch, [0, 0], stream) };
        other.read_by(stream)?;
        copied
    }

    /// Repeats the last column and row, in the order of `stream`, where the picture has an odd number of them: there is
    /// memory for one more of each, so that it can be used as a picture of even sides.
    ///
    /// # Errors
    /// Any [`Error`] of the driver.
    pub fn fill_to_even(&mut self, stream: &Stream) -> Result<(), Error> {
        let (width, height, pitch) = (self.width as usize, self.height as usize, self.pitch);
        let (column, row) = (width % 2 == 1, height % 2 == 1);
        if !column && !row {
            return Ok(());
        }
        let gpu = Arc::clone(&self.gpu);
        let _current = gpu.enter()?;
        self.begin_writing(stream)?;
        let address = self.address;
        let within = |[x, y]: [usize; 2], [to_x, to_y]: [usize; 2], [bytes, rows]: [usize; 2]| CUDA_MEMCPY2D {
            srcXInBytes: x,
            srcY: y,
            srcDevice: address,
            srcPitch: pitch,
            dstXInBytes: to_x,
            dstY: to_y,
            dstDevice: address,
            dstPitch: pitch,
            WidthInBytes: bytes,
            Height: rows,
            ..NO_COPY
        };
        // The column first: the row has it, too.
        let column = column.then(|| within([width - 1, 0], [width, 0], [1, height]));
        let row = row.then(|| within([0, height - 1], [0, height], [row_bytes(self.width), 1]));
        let mut copied = Ok(());
        for copy in column.into_iter().chain(row) {
            // SAFETY: the memory is ours and has room for even sides; source and target do not overlap.
            let status = unsafe { (self.gpu.driver().copy_2d)(&raw const copy, stream.raw()) };
            copied = copied.and(self.gpu.check("cuMemcpy2DAsync", status));
        }
        self.end_writing(stream)?;
        copied
    }

    /// Copies a picture of this one's size here through `host`, and waits for it.
    ///
    /// # Errors
    /// [`Error::Bounds`] for another size; as [`Event::wait`].
    pub fn upload(&mut self, picture: &I420, host: &Arc<PinnedPool>, stream: &Stream) -> Result<(), Error> {
        if (picture.width(), picture.height()) != (self.width, self.height) {
            return Err(Error::Bounds);
        }
        let [luma, chroma] = self.planes();
        let mut pinned = host.take(luma.bytes() + chroma.bytes())?;
        let (first, second) = pinned.split_at_mut(luma.bytes());
        let [y, cb, cr] = picture.planes();
        first.copy_from_slice(y);
        for (pair, (cb, cr)) in second.chunks_exact_mut(2).zip(cb.iter().zip(cr)) {
            pair.copy_from_slice(&[*cb, *cr]);
        }
        let gpu = Arc::clone(&self.gpu);
        let (_current, event) = (gpu.enter()?, Event::new(&gpu)?);
        self.begin_writing(stream)?;
        let copied = self.copy_planes(stream, |plane, offset| CUDA_MEMCPY2D {
            srcMemoryType: CUmemorytype::CU_MEMORYTYPE_HOST,
            srcHost: pinned.as_ptr().wrapping_add(offset).cast(),
            srcPitch: plane.row,
            dstMemoryType: CUmemorytype::CU_MEMORYTYPE_DEVICE,
            dstDevice: plane.address,
            dstPitch: self.pitch,
            WidthInBytes: plane.row,
            Height: plane.rows,
            ..NO_COPY
        });
        let written = self.end_writing(stream);
        settle(stream, &event, pinned)?;
        copied.and(written)
    }

    /// Copies the picture to the host, through `host` and in the order of `stream`, and waits for it.
    ///
    /// # Errors
    /// [`Error::Bounds`] when `to` has another size; [`Error::Exhausted`] when `host` has no buffer left; as
    /// [`Event::wait`].
    pub fn download(&self, to: &mut I420, host: &Arc<PinnedPool>, stream: &Stream) -> Result<(), Error> {
        if (to.width(), to.height()) != (self.width, self.height) {
            return Err(Error::Bounds);
        }
        let [luma, chroma] = self.planes();
        let mut pinned = host.take(luma.bytes() + chroma.bytes())?;
        let (_current, event) = (self.gpu.enter()?, Event::new(&self.gpu)?);
        stream.wait_for(&self.ready)?;
        let start = pinned.as_mut_ptr();
        let copied = self.copy_planes(stream, |plane, offset| CUDA_MEMCPY2D {
            srcMemoryType: CUmemorytype::CU_MEMORYTYPE_DEVICE,
            srcDevice: plane.address,
            srcPitch: self.pitch,
            dstMemoryType: CUmemorytype::CU_MEMORYTYPE_HOST,
            dstHost: start.wrapping_add(offset).cast(),
            dstPitch: plane.row,
            WidthInBytes: plane.row,
            Height: plane.rows,
            ..NO_COPY
        });
        let pinned = settle(stream, &event, pinned)?;
        copied?;
        let (first, second) = pinned.split_at(luma.bytes());
        let [y, cb, cr] = to.planes_mut();
        y.copy_from_slice(first);
        for (pair, (cb, cr)) in second.chunks_exact(2).zip(cb.iter_mut().zip(cr)) {
            (*cb, *cr) = (pair[0], pair[1]);
        }
        Ok(())
    }

    /// Copies both planes from or to packed ones; `copy` is told each plane and where it begins among those.
    fn copy_planes(&self, stream: &Stream, copy: impl Fn(&Plane, usize) -> CUDA_MEMCPY2D) -> Result<(), Error> {
        let [luma, chroma] = self.planes();
        for (plane, offset) in [(&luma, 0), (&chroma, luma.bytes())] {
            let copy = copy(plane, offset);
            // SAFETY: one end is a plane of ours, the other lies in a buffer that has room for both planes packed; whoever
            // calls this waits for the stream before either goes away.
            self.gpu.check("cuMemcpy2DAsync", unsafe { (self.gpu.driver().copy_2d)(&raw const copy, stream.raw()) })?;
        }
        Ok(())
    }

    const fn planes(&self) -> [Plane; 2] {
        let luma = Plane { address: self.luma(), row: self.width as usize, rows: self.height as usize };
        let (row, rows) = (row_bytes(self.width), self.height.div_ceil(2) as usize);
        [luma, Plane { address: self.chroma(), row, rows }]
    }
}

impl Drop for PitchedNv12 {
    fn drop(&mut self) {
        // SAFETY: nobody else has the address; the driver waits for work that uses it.
        self.gpu.give_back("cuMemFree", |driver| unsafe { (driver.free)(self.address) });
    }
}

impl fmt::Debug for PitchedNv12 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PitchedNv12({}x{}, pitch {})", self.width, self.height, self.pitch)
    }
}

/// One plane: `rows` of `row` bytes.
struct Plane {
    address: CUdeviceptr,
    row: usize,
    rows: usize,
}

impl Plane {
    const fn bytes(&self) -> usize {
        self.row * self.rows
    }
}

/// A copy of nothing.
const NO_COPY: CUDA_MEMCPY2D = CUDA_MEMCPY2D {
    srcXInBytes: 0,
    srcY: 0,
    srcMemoryType: CUmemorytype::CU_MEMORYTYPE_DEVICE,
    srcHost: std::ptr::null(),
    srcDevice: 0,
    srcArray: std::ptr::null_mut(),
    srcPitch: 0,
    dstXInBytes: 0,
    dstY: 0,
    dstMemoryType: CUmemorytype::CU_MEMORYTYPE_DEVICE,
    dstHost: std::ptr::null_mut(),
    dstDevice: 0,
    dstArray: std::ptr::null_mut(),
    dstPitch: 0,
    WidthInBytes: 0,
    Height: 0,
};

/// Bytes of a row of chroma, which is no shorter than one of luma.
const fn row_bytes(width: u32) -> usize {
    width.next_multiple_of(2) as usize
}

/// Rows before the chroma plane.
const fn luma_rows(height: u32) -> usize {
    height.next_multiple_of(2) as usize
}

/// Surfaces for reuse, since getting memory of a GPU stops the whole device. All who decode on it share one.
pub struct SurfacePool {
    gpu: Arc<Device>,
    /// Surfaces that nobody uses; the one that was given back last is at the end.
    spare: Mutex<Vec<PitchedNv12>>,
    quota: Quota,
}

impl SurfacePool {
    /// A pool of at most `max_bytes` of the GPU's memory.
    #[must_use]
    pub fn new(gpu: &Arc<Device>, max_bytes: usize) -> Arc<Self> {
        Arc::new(Self { gpu: Arc::clone(gpu), spare: Mutex::default(), quota: Quota::new(max_bytes) })
    }

    /// Room for one user of the pool, who gets `surfaces` at a time at most, so that none takes them all.
    #[must_use]
    pub fn share(self: &Arc<Self>, surfaces: usize) -> Share {
        Share { pool: Arc::clone(self), used: Arc::default(), surfaces }
    }

    /// How often there was none left, for one share or for all.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.quota.refused()
    }

    /// Bytes held now, those in use included.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.quota.held()
    }

    /// Gives the memory of surfaces that nobody uses back to the GPU.
    pub fn shrink(&self) {
        let spare = std::mem::take(&mut *self.spare());
        self.quota.give(spare.iter().map(PitchedNv12::bytes).sum());
        drop(spare);
    }

    /// The driver, for which others wait, is called without the lock.
    fn take(&self, width: u32, height: u32) -> Result<PitchedNv12, Error> {
        let right = |surface: &PitchedNv12| (surface.width, surface.height) == (width, height);
        // The pitch is not known before; what the rows take without it is the least.
        let least = row_bytes(width) * (luma_rows(height) + height.div_ceil(2) as usize);
        loop {
            let mut spare = self.spare();
            if let Some(at) = spare.iter().rposition(right) {
                return Ok(spare.remove(at));
            }
            if self.quota.take(least) {
                drop(spare);
                let made = PitchedNv12::new(&self.gpu, width, height);
                self.quota.give(least);
                match made {
                    Ok(surface) if self.quota.take(surface.bytes()) => return Ok(surface),
                    Ok(surface) => drop(surface),
                    Err(Error::OutOfMemory) if !self.spare().is_empty() => {}
                    Err(error) => return Err(error),
                }
                spare = self.spare();
            }
            if spare.is_empty() {
                return Err(Error::Exhausted("surfaces of a GPU"));
            }
            let oldest = spare.remove(0);
            drop(spare);
            self.quota.give(oldest.bytes());
            drop(oldest);
        }
    }

    fn spare(&self) -> MutexGuard<'_, Vec<PitchedNv12>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for SurfacePool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SurfacePool({} of {} bytes)", self.bytes(), self.quota.max())
    }
}

/// One user's part of a [`SurfacePool`].
#[derive(Debug)]
pub struct Share {
    pool: Arc<SurfacePool>,
    used: Arc<AtomicUsize>,
    surfaces: usize,
}

impl Share {
    /// A surface of this size with unspecified samples.
    ///
    /// # Errors
    /// [`Error::Exhausted`] when there is none left, which is counted; any other of the driver.
    pub fn take(&self, width: u32, height: u32) -> Result<Surface, Error> {
        self.pool.gpu.alive()?;
        if self.used.fetch_add(1, Ordering::AcqRel) >= self.surfaces {
            self.used.fetch_sub(1, Ordering::AcqRel);
            self.pool.quota.refuse();
            return Err(Error::Exhausted("surfaces of a session"));
        }
        match self.pool.take(width, height) {
            Ok(surface) => {
                let surface = ManuallyDrop::new(surface);
                Ok(Surface { surface, pool: Arc::clone(&self.pool), used: Arc::clone(&self.used) })
            }
            Err(error) => {
                self.used.fetch_sub(1, Ordering::AcqRel);
                if matches!(error, Error::Exhausted(_)) {
                    self.pool.quota.refuse();
                }
                Err(error)
            }
        }
    }

    /// Surfaces of this share that are in use.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Acquire)
    }
}

/// A surface of a [`SurfacePool`], which it goes back to when it is dropped.
#[derive(Debug)]
pub struct Surface {
    /// There until this is dropped.
    surface: ManuallyDrop<PitchedNv12>,
    pool: Arc<SurfacePool>,
    used: Arc<AtomicUsize>,
}

impl Deref for Surface {
    type Target = PitchedNv12;

    fn deref(&self) -> &PitchedNv12 {
        &self.surface
    }
}

impl DerefMut for Surface {
    fn deref_mut(&mut self) -> &mut PitchedNv12 {
        &mut self.surface
    }
}

impl Drop for Surface {
    fn drop(&mut self) {
        // SAFETY: it is taken here alone, and this is not used afterwards.
        let surface = unsafe { ManuallyDrop::take(&mut self.surface) };
        self.pool.spare().push(surface);
        self.used.fetch_sub(1, Ordering::AcqRel);
    }
}

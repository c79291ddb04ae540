//! Memory of a GPU, and memory of the host that it copies to and from without help of the processor.
#![expect(unsafe_code, reason = "calls the CUDA driver and gives its host memory as slices")]

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};
use std::{fmt, ptr, slice};

use cudarc::driver::sys::CUdeviceptr;

use super::quota::Quota;
use super::stream::PATIENCE;
use super::{Device, Error, Stream};

/// A piece of a GPU's memory, of which the bytes are unspecified until something writes them.
pub struct Buffer {
    gpu: Arc<Device>,
    address: CUdeviceptr,
    len: usize,
}

impl Buffer {
    /// `len` bytes, at least one, aligned to 256.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], and any other of the driver.
    pub fn new(gpu: &Arc<Device>, len: usize) -> Result<Self, Error> {
        let _current = gpu.enter()?;
        let mut address = 0;
        // SAFETY: the address outlives the call, and the context is current.
        gpu.check("cuMemAlloc", unsafe { (gpu.driver().allocate)(&raw mut address, len.max(1)) })?;
        Ok(Self { gpu: Arc::clone(gpu), address, len })
    }

    /// Address on the GPU.
    #[must_use]
    pub const fn address(&self) -> CUdeviceptr {
        self.address
    }

    /// Bytes.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no bytes.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Copies `from` to the start, and waits for it.
    ///
    /// # Errors
    /// [`Error::Bounds`] when it is longer; as [`Stream::wait`].
    pub fn upload(&mut self, from: &[u8], stream: &Stream) -> Result<(), Error> {
        if from.len() > self.len {
            return Err(Error::Bounds);
        }
        let _current = self.gpu.enter()?;
        // SAFETY: both ends have the length, and outlive the copy, for which this waits.
        let status =
            unsafe { (self.gpu.driver().copy_to_device)(self.address, from.as_ptr().cast(), from.len(), stream.raw()) };
        self.gpu.check("cuMemcpyHtoDAsync", status)?;
        stream.wait()
    }

    /// Copies from the start to `to`, and waits for it.
    ///
    /// # Errors
    /// [`Error::Bounds`] when it is longer; as [`Stream::wait`].
    pub fn download(&self, to: &mut [u8], stream: &Stream) -> Result<(), Error> {
        if to.len() > self.len {
            return Err(Error::Bounds);
        }
        let _current = self.gpu.enter()?;
        // SAFETY: both ends have the length, and outlive the copy, for which this waits.
        let status =
            unsafe { (self.gpu.driver().copy_to_host)(to.as_mut_ptr().cast(), self.address, to.len(), stream.raw()) };
        self.gpu.check("cuMemcpyDtoHAsync", status)?;
        stream.wait()
    }

    /// [`Buffer::upload`] of words in the order of bytes that host and device share.
    ///
    /// # Errors
    /// As there.
    pub fn upload_words(&mut self, from: &[u32], stream: &Stream) -> Result<(), Error> {
        // SAFETY: words are plain bytes.
        self.upload(unsafe { slice::from_raw_parts(from.as_ptr().cast(), size_of_val(from)) }, stream)
    }

    /// [`Buffer::download`] of words.
    ///
    /// # Errors
    /// As there.
    pub fn download_words(&self, to: &mut [u32], stream: &Stream) -> Result<(), Error> {
        // SAFETY: words are plain bytes, and any bytes are words.
        self.download(unsafe { slice::from_raw_parts_mut(to.as_mut_ptr().cast(), size_of_val(to)) }, stream)
    }

    /// Sets every byte, in the order of the stream.
    ///
    /// # Errors
    /// Any [`Error`] of the driver.
    pub fn fill(&mut self, byte: u8, stream: &Stream) -> Result<(), Error> {
        let _current = self.gpu.enter()?;
        // SAFETY: the memory has the length; the driver waits for the stream before it frees it.
        let status = unsafe { (self.gpu.driver().fill)(self.address, byte, self.len, stream.raw()) };
        self.gpu.check("cuMemsetD8Async", status)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: nobody else has the address; the driver waits for work that uses it.
        self.gpu.give_back("cuMemFree", |driver| unsafe { (driver.free)(self.address) });
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({:#x}, {} bytes)", self.address, self.len)
    }
}

/// Host memory that a GPU reaches by itself (page-locked), kept for reuse, since getting it stops the whole device.
#[derive(Debug)]
pub struct PinnedPool {
    gpu: Arc<Device>,
    /// Buffers that nobody uses.
    spare: Mutex<Vec<Locked>>,
    quota: Quota,
}

impl PinnedPool {
    /// Lengths are rounded up to multiples of this, so that pictures of similar sizes share buffers.
    const STEP: usize = 1 << 16;

    /// A pool of at most `max_bytes`.
    #[must_use]
    pub fn new(gpu: &Arc<Device>, max_bytes: usize) -> Arc<Self> {
        Arc::new(Self { gpu: Arc::clone(gpu), spare: Mutex::default(), quota: Quota::new(max_bytes) })
    }

    /// A buffer of `len` bytes with unspecified content.
    ///
    /// # Errors
    /// [`Error::Exhausted`] when it would take more than the pool may hold, which is counted; any other of the driver.
    pub fn take(self: &Arc<Self>, len: usize) -> Result<Pinned, Error> {
        self.gpu.alive()?;
        let capacity = len.max(1).checked_next_multiple_of(Self::STEP).ok_or(Error::Size(len))?;
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |spare: &&Locked| spare.capacity >= capacity;
        let best = spare.iter().filter(fits).map(|spare| spare.capacity).min();
        if let Some(at) = best.and_then(|best| spare.iter().position(|spare| spare.capacity == best)) {
            let locked = spare.swap_remove(at);
            return Ok(Pinned { locked: Some(locked), len, pool: Arc::clone(self) });
        }
        while !self.quota.take(capacity) {
            let Some(spare) = spare.pop() else {
                self.quota.refuse();
                return Err(Error::Exhausted("buffers of host memory for a GPU"));
            };
            self.quota.give(spare.capacity);
        }
        let locked = Locked::new(&self.gpu, capacity).inspect_err(|_| self.quota.give(capacity))?;
        Ok(Pinned { locked: Some(locked), len, pool: Arc::clone(self) })
    }

    /// How often there was none left.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.quota.refused()
    }

    /// Bytes held now, those in use included.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.quota.held()
    }
}

/// A buffer of a [`PinnedPool`], which it goes back to when it is dropped. Whoever has a GPU write to it or read from it
/// waits for that before it is dropped.
#[derive(Debug)]
pub struct Pinned {
    /// Always there until it is dropped.
    locked: Option<Locked>,
    len: usize,
    pool: Arc<PinnedPool>,
}

impl Deref for Pinned {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the driver gave at least this many bytes, which were set to zero at first and are this buffer's alone.
        self.locked.as_ref().map_or(&[], |locked| unsafe { slice::from_raw_parts(locked.start, self.len) })
    }
}

impl DerefMut for Pinned {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above.
        self.locked.as_mut().map_or(&mut [], |locked| unsafe { slice::from_raw_parts_mut(locked.start, self.len) })
    }
}

impl Pinned {
    /// As words, in the order of bytes that host and device share; what does not fill a word at the end is left out.
    #[must_use]
    pub fn words(&self) -> &[u32] {
        // SAFETY: page-locked memory begins at a page, and any bytes are words.
        unsafe { slice::from_raw_parts(self.as_ptr().cast(), self.len / 4) }
    }

    /// The same, to write to.
    pub fn words_mut(&mut self) -> &mut [u32] {
        // SAFETY: as above.
        unsafe { slice::from_raw_parts_mut(self.as_mut_ptr().cast(), self.len / 4) }
    }

    /// The same as numbers.
    #[must_use]
    pub fn floats(&self) -> &[f32] {
        // SAFETY: as above.
        unsafe { slice::from_raw_parts(self.as_ptr().cast(), self.len / 4) }
    }

    /// Has `stream` copy all of it to the GPU's memory at `address`, and does not wait for that.
    ///
    /// # Safety
    /// There are as many bytes at that address. Until the stream is done with it, they stay, nobody else uses them, and this
    /// is neither written nor dropped, unless the GPU is lost.
    ///
    /// # Errors
    /// Any [`Error`] of the driver.
    pub unsafe fn send(&self, address: CUdeviceptr, stream: &Stream) -> Result<(), Error> {
        let gpu = &self.pool.gpu;
        let _current = gpu.enter()?;
        // SAFETY: the caller's.
        let status = unsafe { (gpu.driver().copy_to_device)(address, self.as_ptr().cast(), self.len, stream.raw()) };
        gpu.check("cuMemcpyHtoDAsync", status)
    }

    /// Has `stream` fill all of it from the GPU's memory at `address`, and does not wait for that.
    ///
    /// # Safety
    /// As [`Pinned::send`]; nor is this read before.
    ///
    /// # Errors
    /// Any [`Error`] of the driver.
    pub unsafe fn fetch(&mut self, address: CUdeviceptr, stream: &Stream) -> Result<(), Error> {
        let start = self.as_mut_ptr();
        let gpu = &self.pool.gpu;
        let _current = gpu.enter()?;
        // SAFETY: the caller's.
        let status = unsafe { (gpu.driver().copy_to_host)(start.cast(), address, self.len, stream.raw()) };
        gpu.check("cuMemcpyDtoHAsync", status)
    }

    /// Neither frees the memory nor lets it be used again.
    fn abandon(mut self) {
        if let Some(mut locked) = self.locked.take() {
            locked.gpu = None;
        }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if let Some(locked) = self.locked.take() {
            self.pool.spare.lock().unwrap_or_else(PoisonError::into_inner).push(locked);
        }
    }
}

/// Page-locked memory.
struct Locked {
    /// None for memory that is not to be freed.
    gpu: Option<Arc<Device>>,
    start: *mut u8,
    capacity: usize,
}

// SAFETY: plain memory, which belongs to no thread.
unsafe impl Send for Locked {}
// SAFETY: it is written through unique references only.
unsafe impl Sync for Locked {}

impl Locked {
    fn new(gpu: &Arc<Device>, capacity: usize) -> Result<Self, Error> {
        let _current = gpu.enter()?;
        let mut start = ptr::null_mut();
        // SAFETY: the pointer outlives the call, and the context is current.
        gpu.check("cuMemAllocHost", unsafe { (gpu.driver().allocate_host)(&raw mut start, capacity) })?;
        let start = start.cast::<u8>();
        if start.is_null() {
            return Err(Error::OutOfMemory);
        }
        // SAFETY: the driver gave this many bytes.
        unsafe { start.write_bytes(0, capacity) };
        Ok(Self { gpu: Some(Arc::clone(gpu)), start, capacity })
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        let Some(gpu) = &self.gpu else { return };
        // SAFETY: nobody else has the memory.
        gpu.give_back("cuMemFreeHost", |driver| unsafe { (driver.free_host)(self.start.cast()) });
    }
}

impl fmt::Debug for Locked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Locked({} bytes)", self.capacity)
    }
}

/// Waits for a copy that `stream` was just given and that touches memory of this process: only then may that memory be used
/// or go away. Without an answer `pinned` is given up, since the GPU may still write there.
pub(super) fn settle(stream: &Stream, event: &super::Event, pinned: Pinned) -> Result<Pinned, Error> {
    match event.record(stream).and_then(|()| event.wait(PATIENCE)) {
        Ok(()) => Ok(pinned),
        Err(error) => {
            pinned.abandon();
            Err(error)
        }
    }
}

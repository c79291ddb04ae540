//! Order of work on a GPU: streams, and events in them.
#![expect(unsafe_code, reason = "calls the CUDA driver")]

use std::sync::Arc;
use std::thread;
use std::time::Duration;
use std::{fmt, ptr};

use cudarc::driver::sys::{CUevent, CUstream};

use crate::clock;

use super::{Device, Error, Loss, Status};

/// Longest time that anything is waited for. Work of one frame takes milliseconds; a GPU that is not done after this has
/// stopped working, and counts as lost.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// `CU_STREAM_NON_BLOCKING`: the stream does not wait for the default stream, which other libraries may use.
const NON_BLOCKING: u32 = 1;
/// `CU_EVENT_DISABLE_TIMING`, which makes events cheaper.
const DISABLE_TIMING: u32 = 2;
/// `CU_STREAM_CAPTURE_STATUS_NONE`.
const NOT_RECORDING: u32 = 0;
/// How often an event is asked before the thread sleeps in between.
const SPINS: u32 = 64;
/// How long the thread sleeps between two questions.
const NAP: Duration = Duration::from_micros(100);

/// Work in the order in which it was given.
pub struct Stream {
    gpu: Arc<Device>,
    stream: CUstream,
    /// For [`Stream::wait`], which must not fail for want of one.
    done: Event,
}

// SAFETY: the driver's functions take a stream on any thread, and order what comes at the same time.
unsafe impl Send for Stream {}
// SAFETY: as above.
unsafe impl Sync for Stream {}

impl Stream {
    /// A stream with the usual priority.
    ///
    /// # Errors
    /// Any [`Error`] of the driver.
    pub fn new(gpu: &Arc<Device>) -> Result<Self, Error> {
        Self::with_priority(gpu, 0)
    }

    /// A stream whose work goes before that of streams with a greater number. Numbers that the GPU does not have are taken
    /// as the nearest it has.
    ///
    /// # Errors
    /// Any [`Error`] of the driver.
    pub fn with_priority(gpu: &Arc<Device>, priority: i32) -> Result<Self, Error> {
        let done = Event::new(gpu)?;
        let _current = gpu.enter()?;
        let mut stream = ptr::null_mut();
        // SAFETY: the pointer outlives the call, and the context is current.
        let status = unsafe { (gpu.driver().create_stream_with_priority)(&raw mut stream, NON_BLOCKING, priority) };
        gpu.check("cuStreamCreateWithPriority", status)?;
        Ok(Self { gpu: Arc::clone(gpu), stream, done })
    }

    /// The GPU it is on.
    #[must_use]
    pub const fn device(&self) -> &Arc<Device> {
        &self.gpu
    }

    /// The driver's handle, for libraries that take one. It lives as long as this.
    #[must_use]
    pub const fn raw(&self) -> CUstream {
        self.stream
    }

    /// Has the work that is given from now on wait for an event.
    ///
    /// # Errors
    /// Any [`Error`] of the driver.
    pub fn wait_for(&self, event: &Event) -> Result<(), Error> {
        let _current = self.gpu.enter()?;
        // SAFETY: both live, and the context is current.
        let status = unsafe { (self.gpu.driver().stream_wait_event)(self.stream, event.event, 0) };
        self.gpu.check("cuStreamWaitEvent", status)
    }

    /// Ends a recording that whoever recorded the stream's work on this thread has left open when it failed, and forgets what
    /// was recorded: nothing that the stream is given would be done otherwise. Says whether there was one.
    ///
    /// # Errors
    /// Any [`Error`] of the driver; the stream is of no use then.
    pub fn end_recording(&self) -> Result<bool, Error> {
        let _current = self.gpu.enter()?;
        let mut state = NOT_RECORDING;
        // SAFETY: the number outlives the call, and the context is current.
        let status = unsafe { (self.gpu.driver().is_recording)(self.stream, &raw mut state) };
        self.gpu.check("cuStreamIsCapturing", status)?;
        if state == NOT_RECORDING {
            return Ok(false);
        }
        let mut graph = ptr::null_mut();
        // SAFETY: as above.
        let status = unsafe { (self.gpu.driver().end_recording)(self.stream, &raw mut graph) };
        if !graph.is_null() {
            // SAFETY: nobody else has the handle.
            self.gpu.give_back("cuGraphDestroy", |driver| unsafe { (driver.destroy_graph)(graph) });
        }
        // One that was spoilt ends, too, and leaves nothing.
        match self.gpu.check("cuStreamEndCapture", status) {
            Err(Error::Failed(failure)) if failure.status == Status::RECORDING_SPOILT => Ok(true),
            ended => ended.map(|()| true),
        }
    }

    /// Waits until all work that was given so far is done. After any error the GPU is lost: of memory that the work uses
    /// nobody could tell when it may be used again.
    ///
    /// # Errors
    /// [`Error::Lost`].
    pub fn wait(&self) -> Result<(), Error> {
        // What others record at the same time is later than what was given so far.
        let waited = self.done.record(self).and_then(|()| self.done.wait(PATIENCE));
        waited.map_err(|error| match error {
            Error::Lost(_) => error,
            Error::Failed(failure) => self.gpu.lose(Loss::Failed(failure)),
            _ => self.gpu.lose(Loss::Failed(self.gpu.driver().failure("cuEventQuery", Status::OUT_OF_MEMORY))),
        })
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: nobody else has the handle; the driver finishes what is still in the stream.
        self.gpu.give_back("cuStreamDestroy", |driver| unsafe { (driver.destroy_stream)(self.stream) });
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stream({:?})", self.stream)
    }
}

/// A point in a stream.
pub struct Event {
    gpu: Arc<Device>,
    event: CUevent,
}

// SAFETY: the driver's functions take an event on any thread.
unsafe impl Send for Event {}
// SAFETY: as above.
unsafe impl Sync for Event {}

impl Event {
    /// An event that counts as done until it is recorded.
    ///
    /// # Errors
    /// Any [`Error`] of the driver.
    pub fn new(gpu: &Arc<Device>) -> Result<Self, Error> {
        let _current = gpu.enter()?;
        let mut event = ptr::null_mut();
        // SAFETY: the pointer outlives the call, and the context is current.
        gpu.check("cuEventCreate", unsafe { (gpu.driver().create_event)(&raw mut event, DISABLE_TIMING) })?;
        Ok(Self { gpu: Arc::clone(gpu), event })
    }

    /// The driver's handle, for libraries that take one. It lives as long as this.
    #[must_use]
    pub const fn raw(&self) -> CUevent {
        self.event
    }

    /// From now on the event stands for what the stream was given so far.
    ///
    /// # Errors
    /// Any [`Error`] of the driver.
    pub fn record(&self, stream: &Stream) -> Result<(), Error> {
        let _current = self.gpu.enter()?;
        // SAFETY: both live, and the context is current.
        let status = unsafe { (self.gpu.driver().record_event)(self.event, stream.stream) };
        self.gpu.check("cuEventRecord", status)
    }

    /// Whether the work that it stands for is done.
    ///
    /// # Errors
    /// Any [`Error`] of the driver, among them what went wrong in that work.
    pub fn is_done(&self) -> Result<bool, Error> {
        let _current = self.gpu.enter()?;
        // SAFETY: it lives, and the context is current.
        match unsafe { (self.gpu.driver().query_event)(self.event) } {
            Status::NOT_READY => Ok(false),
            status => self.gpu.check("cuEventQuery", status).map(|()| true),
        }
    }

    /// Waits until the work that it stands for is done, at most for `patience`, and never on a Tokio worker.
    ///
    /// # Errors
    /// Any [`Error`] of the driver, among them what went wrong in that work; [`Error::Lost`] when it is not done in time.
    pub fn wait(&self, patience: Duration) -> Result<(), Error> {
        let end = clock::now() + patience;
        let mut asked = 0_u32;
        while !self.is_done()? {
            if clock::now() >= end {
                return Err(self.gpu.lose(Loss::Hung(patience)));
            }
            if asked < SPINS {
                thread::yield_now();
            } else {
                thread::park_timeout(NAP);
            }
            asked = asked.saturating_add(1);
        }
        Ok(())
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: nobody else has the handle; the driver keeps it as long as streams wait for it.
        self.gpu.give_back("cuEventDestroy", |driver| unsafe { (driver.destroy_event)(self.event) });
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Event({:?})", self.event)
    }
}

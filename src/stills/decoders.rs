use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use metrics::{Histogram, histogram};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::timeout_at;

use super::{Decoded, Error, Header};
use crate::clock;
use crate::queue::{Fifo, Full};

/// How much the threads step back behind those of live codecs, as those of models do.
const NICE: i32 = 5;
/// Pixels that one permit stands for.
const GRAIN: u64 = 1024;

/// How much is decoded at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// OS threads; more than cores gain nothing.
    pub threads: usize,
    /// Pictures that may wait for a thread; beyond, they are refused. More wait longer.
    pub queue: usize,
    /// Pixels that may be in memory at a time, of all pictures together; one takes up to eight bytes.
    pub pixels: u64,
}

/// Why something was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// As many wait as may wait.
    #[error("as many pictures wait as may wait")]
    Full,
    /// Its time was over before it was its turn.
    #[error("the picture's time was over before it was its turn")]
    Late,
    /// The threads have ended.
    #[error("no pictures are taken any more")]
    Closed,
    /// A fault of ours.
    #[error("work on a picture panicked")]
    Panicked,
}

/// Memory for a picture's pixels, until it is dropped.
#[derive(Debug)]
pub struct Room(#[expect(dead_code, reason = "it gives the room back when it is dropped")] OwnedSemaphorePermit);

/// A bounded set of OS threads that decode pictures, and encode them again. Dropping it ends them.
pub struct Decoders {
    shared: Arc<Shared>,
    room: Arc<Semaphore>,
    /// All permits of `room`.
    permits: u32,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// To be called with whether it came in time.
type Work = Box<dyn FnOnce(bool) + Send>;

struct Job {
    work: Work,
    queued: Instant,
    deadline: Instant,
}

struct Shared {
    jobs: Fifo<Job>,
    is_closed: Mutex<bool>,
    wake: Condvar,
    wait: Histogram,
}

impl Decoders {
    /// Starts the threads.
    ///
    /// # Errors
    /// The operating system's, when a thread cannot be started.
    pub fn start(config: Config) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            jobs: Fifo::new("stills", config.queue.max(1)),
            is_closed: Mutex::new(false),
            wake: Condvar::new(),
            wait: histogram!("saccade_queue_wait_seconds", "queue" => "stills"),
        });
        let permits = u32::try_from(config.pixels.div_ceil(GRAIN)).unwrap_or(u32::MAX >> 3);
        let room = Arc::new(Semaphore::new(permits as usize));
        let decoders = Self { shared, room, permits, threads: Mutex::default() };
        for index in 0..config.threads.max(1) {
            let shared = Arc::clone(&decoders.shared);
            let thread = thread::Builder::new().name(format!("stills-{index}")).spawn(move || shared.serve())?;
            decoders.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        }
        Ok(decoders)
    }

    /// Waits for memory for the pixels of this picture.
    ///
    /// # Errors
    /// [`Refused::Late`], [`Refused::Closed`].
    pub async fn room(&self, header: &Header, deadline: Instant) -> Result<Room, Refused> {
        // A picture that is larger than all the room is alone in it.
        let permits = u32::try_from(header.pixels().div_ceil(GRAIN)).unwrap_or(u32::MAX).min(self.permits);
        let acquired = timeout_at(deadline.into(), Arc::clone(&self.room).acquire_many_owned(permits)).await;
        Ok(Room(acquired.map_err(|_| Refused::Late)?.map_err(|_| Refused::Closed)?))
    }

    /// Decodes a picture on one of the threads, as [`super::decode`] does.
    ///
    /// # Errors
    /// [`Refused`] outside, [`Error`] inside.
    pub async fn decode(
        &self,
        bytes: impl AsRef<[u8]> + Send + 'static,
        header: Header,
        least: Option<[u32; 2]>,
        deadline: Instant,
    ) -> Result<Result<Decoded, Error>, Refused> {
        self.run(deadline, move || {
            let start = clock::now();
            let decoded = super::decode(bytes.as_ref(), &header, least);
            histogram!("saccade_stills_decode_seconds", "format" => header.kind.label())
                .record(clock::now().saturating_duration_since(start));
            decoded
        })
        .await
    }

    /// Has `work` done on one of the threads. It is not begun after the deadline, nor when nobody waits for it any more.
    ///
    /// # Errors
    /// [`Refused`].
    pub async fn run<T: Send + 'static>(
        &self,
        deadline: Instant,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Refused> {
        let (reply, answer) = oneshot::channel();
        let work: Work = Box::new(move |in_time| {
            if reply.is_closed() {
                return;
            }
            let done = if in_time {
                catch_unwind(AssertUnwindSafe(work)).map_err(|_| Refused::Panicked)
            } else {
                Err(Refused::Late)
            };
            // Whoever asked may have gone.
            let _ = reply.send(done);
        });
        self.shared.push(Job { work, queued: clock::now(), deadline })?;
        // What has begun is finished, and takes a bounded time.
        answer.await.unwrap_or(Err(Refused::Closed))
    }

    /// Ends the threads after what they do now, and waits for them. What waits is refused.
    pub fn stop(&self) {
        *self.shared.lock() = true;
        self.room.close();
        self.shared.wake.notify_all();
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread for pictures ended by a panic");
            }
        }
        self.shared.jobs.clear();
    }
}

impl Drop for Decoders {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn push(&self, job: Job) -> Result<(), Refused> {
        let is_closed = self.lock();
        if *is_closed {
            return Err(Refused::Closed);
        }
        let pushed = self.jobs.push(job).map_err(|Full(_)| Refused::Full);
        drop(is_closed);
        self.wake.notify_one();
        pushed
    }

    fn serve(&self) {
        if let Err(error) = rustix::process::setpriority_process(None, NICE) {
            tracing::debug!(%error, "a thread for pictures keeps its priority");
        }
        while let Some(Job { work, queued, deadline }) = self.next() {
            let now = clock::now();
            self.wait.record(now.saturating_duration_since(queued));
            work(now < deadline);
        }
    }

    fn next(&self) -> Option<Job> {
        let mut is_closed = self.lock();
        loop {
            if *is_closed {
                return None;
            }
            if let Some(job) = self.jobs.pop() {
                return Some(job);
            }
            is_closed = self.wake.wait(is_closed).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, bool> {
        self.is_closed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;
    use crate::stills::{Kind, Orientation};

    const LIMIT: Duration = Duration::from_secs(10);

    fn soon() -> Instant {
        clock::now() + LIMIT
    }

    fn header(width: u32, height: u32) -> Header {
        let orientation = Orientation::Upright;
        Header { kind: Kind::Png, width, height, orientation, progressive: false, inverted: false }
    }

    /// Keeps the only thread busy until what is returned is dropped.
    async fn hold(decoders: &Arc<Decoders>) -> mpsc::SyncSender<()> {
        let (release, held) = mpsc::sync_channel::<()>(0);
        let (began, begun) = oneshot::channel();
        let busy = Arc::clone(decoders);
        tokio::spawn(async move {
            let wait = move || {
                began.send(()).unwrap();
                let _ = held.recv();
            };
            busy.run(soon(), wait).await
        });
        begun.await.unwrap();
        release
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_does_not_fit_or_comes_too_late_is_refused_and_the_rest_done() {
        let decoders = Arc::new(Decoders::start(Config { threads: 1, queue: 2, pixels: 1 << 20 }).unwrap());
        let release = hold(&decoders).await;
        let late = decoders.run(clock::now(), || 1);
        let waits = decoders.run(soon(), || 2);
        let (late, waits) = (Box::pin(late), Box::pin(waits));
        let both = futures_util::future::join(late, waits);
        let mut both = Box::pin(both);
        assert!(futures_util::poll!(&mut both).is_pending());
        assert_eq!(decoders.run(soon(), || 3).await, Err(Refused::Full));
        drop(release);
        assert_eq!(both.await, (Err(Refused::Late), Ok(2)));
        assert_eq!(decoders.run(soon(), || panic!("broken")).await, Err::<(), _>(Refused::Panicked));
        assert_eq!(decoders.run(soon(), || 4).await, Ok(4));
        decoders.stop();
        assert_eq!(decoders.run(soon(), || 5).await, Err(Refused::Closed));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_nobody_waits_for_is_not_begun() {
        let decoders = Arc::new(Decoders::start(Config { threads: 1, queue: 2, pixels: 1 << 20 }).unwrap());
        let release = hold(&decoders).await;
        let (ran, runs) = mpsc::sync_channel(1);
        let mut gone = Box::pin(decoders.run(soon(), move || ran.send(()).unwrap()));
        assert!(futures_util::poll!(&mut gone).is_pending());
        drop(gone);
        drop(release);
        assert_eq!(decoders.run(soon(), || 1).await, Ok(1));
        assert!(runs.recv().is_err(), "it was dropped unrun");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn pixels_in_memory_are_bounded_and_a_larger_picture_is_alone() {
        let decoders = Decoders::start(Config { threads: 1, queue: 2, pixels: 1_000_000 }).unwrap();
        let first = decoders.room(&header(1_000, 600), soon()).await.unwrap();
        let soon_over = clock::now() + Duration::from_millis(20);
        assert_eq!(decoders.room(&header(1_000, 600), soon_over).await.unwrap_err(), Refused::Late);
        let small = decoders.room(&header(600, 600), soon()).await.unwrap();
        drop((first, small));
        let all = decoders.room(&header(9_000, 9_000), soon()).await.unwrap();
        let soon_over = clock::now() + Duration::from_millis(20);
        assert_eq!(decoders.room(&header(32, 32), soon_over).await.unwrap_err(), Refused::Late);
        drop(all);
        assert!(decoders.room(&header(32, 32), soon()).await.is_ok());
    }
}

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

/// A fixed set of OS threads for decoding, drawing and encoding.
///
/// Work is done by [`Lane`]s. A lane belongs to one thread for life, so its steps never run at the same time and its
/// codec state stays in that core's cache. Each thread takes the lanes that are awake in turn, one step each, so that
/// no session holds up another for longer than a step.
pub struct Workers {
    queues: Vec<Arc<Queue>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// What a lane's step says about the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing is left to do; sleep until woken.
    Idle,
    /// There may be more; run again after the others.
    Again,
}

/// One stage of one session on its thread.
pub struct Lane {
    queue: Arc<Queue>,
    awake: AtomicBool,
    closed: AtomicBool,
    work: Mutex<Option<Work>>,
    on_panic: Box<dyn Fn() + Send + Sync>,
}

type Work = Box<dyn FnMut() -> Step + Send>;

struct Queue {
    ready: Mutex<Ready>,
    wake: Condvar,
    lanes: AtomicUsize,
}

#[derive(Default)]
struct Ready {
    /// At most one entry a lane: a lane that is awake is not queued again.
    lanes: VecDeque<Arc<Lane>>,
    stop: bool,
}

impl Workers {
    /// Starts `count` threads, at least one.
    ///
    /// # Errors
    /// The operating system's, when a thread cannot be started.
    pub fn start(count: usize) -> std::io::Result<Self> {
        let queues: Vec<Arc<Queue>> = (0..count.max(1)).map(|_| Arc::new(Queue::new())).collect();
        let threads = queues
            .iter()
            .enumerate()
            .map(|(index, queue)| {
                let queue = Arc::clone(queue);
                std::thread::Builder::new().name(format!("codec-{index}")).spawn(move || queue.serve())
            })
            .collect::<Result<_, _>>()?;
        #[expect(clippy::cast_precision_loss, reason = "a number of threads")]
        metrics::gauge!("saccade_codec_threads").set(queues.len() as f64);
        Ok(Self { queues, threads: Mutex::new(threads) })
    }

    /// Puts a lane on the thread with the fewest lanes. `on_panic` is called once if a step panics, after which the
    /// lane is closed.
    pub fn lane(
        &self,
        work: impl FnMut() -> Step + Send + 'static,
        on_panic: impl Fn() + Send + Sync + 'static,
    ) -> Arc<Lane> {
        let queue = self.queues.iter().min_by_key(|queue| queue.lanes.load(Ordering::Relaxed));
        let queue = Arc::clone(queue.unwrap_or(&self.queues[0]));
        queue.lanes.fetch_add(1, Ordering::Relaxed);
        Arc::new(Lane {
            queue,
            awake: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            work: Mutex::new(Some(Box::new(work))),
            on_panic: Box::new(on_panic),
        })
    }

    /// Lanes that have not been closed yet.
    pub fn lanes(&self) -> usize {
        self.queues.iter().map(|queue| queue.lanes.load(Ordering::Relaxed)).sum()
    }

    /// Ends the threads after the steps that run now, and waits for them.
    pub fn stop(&self) {
        for queue in &self.queues {
            queue.ready().stop = true;
            queue.wake.notify_all();
        }
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a codec thread ended by a panic");
            }
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Lane {
    /// Has a step run soon. Cheap when the lane is awake already.
    pub fn wake(self: &Arc<Self>) {
        if !self.awake.swap(true, Ordering::AcqRel) {
            self.queue.ready().lanes.push_back(Arc::clone(self));
            self.queue.wake.notify_one();
        }
    }

    /// Ends the lane: its state is dropped on its own thread, and no further step runs.
    pub fn close(self: &Arc<Self>) {
        self.closed.store(true, Ordering::Release);
        self.wake();
    }

    fn step(self: &Arc<Self>) {
        // Before the step, so that work which arrives during it wakes the lane again.
        self.awake.swap(false, Ordering::AcqRel);
        let mut work = self.work.lock().unwrap_or_else(PoisonError::into_inner);
        if self.closed.load(Ordering::Acquire) {
            if work.take().is_some() {
                self.queue.lanes.fetch_sub(1, Ordering::Relaxed);
            }
            return;
        }
        let Some(run) = work.as_mut() else { return };
        match catch_unwind(AssertUnwindSafe(run)) {
            Ok(Step::Idle) => {}
            Ok(Step::Again) => self.wake(),
            Err(_) => {
                *work = None;
                self.queue.lanes.fetch_sub(1, Ordering::Relaxed);
                (self.on_panic)();
            }
        }
    }
}

impl Queue {
    fn new() -> Self {
        Self { ready: Mutex::default(), wake: Condvar::new(), lanes: AtomicUsize::new(0) }
    }

    fn ready(&self) -> std::sync::MutexGuard<'_, Ready> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self) {
        loop {
            let lane = {
                let mut ready = self.ready();
                loop {
                    if ready.stop {
                        ready.lanes.clear();
                        return;
                    }
                    if let Some(lane) = ready.lanes.pop_front() {
                        break lane;
                    }
                    ready = self.wake.wait(ready).unwrap_or_else(PoisonError::into_inner);
                }
            };
            lane.step();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests {
    use std::sync::mpsc::sync_channel;
    use std::time::Duration;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    #[test]
    fn every_wake_is_followed_by_a_step_and_close_drops_the_state() {
        let workers = Workers::start(2).unwrap();
        let (steps_tx, steps) = sync_channel(16);
        let (dropped_tx, dropped) = sync_channel(1);
        struct OnDrop(std::sync::mpsc::SyncSender<()>);
        impl Drop for OnDrop {
            fn drop(&mut self) {
                self.0.send(()).unwrap();
            }
        }
        let state = OnDrop(dropped_tx);
        let lane = workers.lane(
            move || {
                let _ = &state;
                steps_tx.send(()).unwrap();
                Step::Idle
            },
            || {},
        );
        for _ in 0..3 {
            lane.wake();
            steps.recv_timeout(LIMIT).unwrap();
        }
        assert_eq!(workers.lanes(), 1);
        lane.close();
        dropped.recv_timeout(LIMIT).unwrap();
        lane.wake();
        assert!(steps.try_recv().is_err());
        workers.stop();
        assert_eq!(workers.lanes(), 0);
    }

    #[test]
    fn a_panic_closes_its_own_lane_only() {
        let workers = Workers::start(1).unwrap();
        let (panicked_tx, panicked) = sync_channel(1);
        let (ran_tx, ran) = sync_channel(1);
        let bad = workers.lane(|| panic!("this lane is broken"), move || panicked_tx.send(()).unwrap());
        let good = workers.lane(
            move || {
                ran_tx.send(()).unwrap();
                Step::Idle
            },
            || {},
        );
        bad.wake();
        panicked.recv_timeout(LIMIT).unwrap();
        good.wake();
        ran.recv_timeout(LIMIT).unwrap();
        assert_eq!(workers.lanes(), 1);
    }

    #[test]
    fn lanes_spread_over_the_threads() {
        let workers = Workers::start(2).unwrap();
        let lanes: Vec<_> = (0..4).map(|_| workers.lane(|| Step::Idle, || {})).collect();
        assert!(workers.queues.iter().all(|queue| queue.lanes.load(Ordering::Relaxed) == 2));
        drop(lanes);
    }
}

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use super::batcher::{self, Choice, Estimate, Waiting};
use super::error::Error;
use super::runner::Runner;
use super::{Detected, Inferred, Outcome, Params, Timing};
use crate::clock;
use crate::media::{ColorInfo, Frame, I420};
use crate::queue::Mailbox;

/// Faults within [`FAULT_WINDOW`] after which a model takes no more work.
const MAX_FAULTS: usize = 3;
const FAULT_WINDOW: Duration = Duration::from_secs(60);
/// Pictures of [`Model::detect`](super::Model::detect) that may wait; more are refused.
const MAX_CALLS: usize = 32;
/// Among live frames, a waiting picture counts as due after this time.
const CALL_PATIENCE: Duration = Duration::from_secs(1);
const CALL: usize = usize::MAX;

/// Called on the owner thread with what became of each frame of a slot.
pub(super) type Deliver = Box<dyn FnMut(Outcome) + Send>;
/// Makes an instance's runner, warmed up.
pub(super) type Open = dyn Fn() -> Result<Runner, Error> + Send + Sync;

/// What a model's owner threads and its slots share.
pub(super) struct Shared {
    id: String,
    state: Mutex<State>,
    wake: Condvar,
    ready: AtomicBool,
    metrics: Metrics,
}

struct State {
    entries: Vec<Entry>,
    next_key: usize,
    calls: VecDeque<Call>,
    /// Kept between choices, so that none allocates.
    waiting: Vec<Waiting>,
    estimate: Estimate,
    faults: Vec<Instant>,
    closed: bool,
}

/// A slot as the owner threads see it.
struct Entry {
    key: usize,
    inbox: Arc<Inbox>,
    /// One of its frames is being run; the next one waits, so that results keep their order.
    busy: bool,
    last_result: Instant,
}

/// A slot's mailbox and where its outcomes go.
pub(super) struct Inbox {
    mailbox: Mailbox<Job>,
    deliver: Mutex<Deliver>,
    detached: AtomicBool,
}

pub(super) struct Job {
    pub(super) frame: Frame,
    pub(super) params: Arc<Params>,
}

/// A single picture whose sender waits for the answer.
pub(super) struct Call {
    pub(super) picture: Arc<I420>,
    pub(super) color: ColorInfo,
    pub(super) params: Arc<Params>,
    pub(super) reply: SyncSender<Result<Detected, Error>>,
    since: Instant,
}

struct Metrics {
    inference: Histogram,
    queue_wait: Histogram,
    batch_size: Histogram,
    in_flight: Gauge,
    restarts: Counter,
}

enum Task {
    Run { key: usize, inbox: Arc<Inbox>, job: Job, queue: Duration },
    Late { inbox: Arc<Inbox>, job: Job },
    Call(Call),
    Refuse(Option<(Arc<Inbox>, Job)>, Option<Call>, Error),
}

impl Call {
    pub(super) fn new(
        picture: Arc<I420>,
        color: ColorInfo,
        params: Arc<Params>,
        reply: SyncSender<Result<Detected, Error>>,
    ) -> Self {
        Self { picture, color, params, reply, since: clock::now() }
    }
}

impl Shared {
    pub(super) fn new(id: String, first_estimate: Duration) -> Self {
        let metrics = Metrics {
            inference: histogram!("saccade_inference_seconds", "model" => id.clone()),
            queue_wait: histogram!("saccade_queue_wait_seconds", "queue" => "infer"),
            batch_size: histogram!("saccade_batch_size"),
            in_flight: gauge!("saccade_inference_in_flight"),
            restarts: counter!("saccade_model_restarts_total", "model" => id.clone()),
        };
        let state = State {
            entries: Vec::new(),
            next_key: 0,
            calls: VecDeque::with_capacity(MAX_CALLS),
            waiting: Vec::new(),
            estimate: Estimate::new(first_estimate),
            faults: Vec::new(),
            closed: false,
        };
        Self { id, state: Mutex::new(state), wake: Condvar::new(), ready: AtomicBool::new(true), metrics }
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire) && !self.lock().closed
    }

    pub(super) fn estimate(&self) -> Duration {
        self.lock().estimate.get()
    }

    pub(super) fn attach(&self, deliver: Deliver) -> (usize, Arc<Inbox>) {
        let inbox =
            Inbox { mailbox: Mailbox::new("infer"), deliver: Mutex::new(deliver), detached: AtomicBool::new(false) };
        let inbox = Arc::new(inbox);
        let mut state = self.lock();
        let key = state.next_key;
        state.next_key += 1;
        state.entries.push(Entry { key, inbox: Arc::clone(&inbox), busy: false, last_result: clock::now() });
        (key, inbox)
    }

    pub(super) fn detach(&self, key: usize) {
        let mut state = self.lock();
        if let Some(at) = state.entries.iter().position(|entry| entry.key == key) {
            let entry = state.entries.swap_remove(at);
            entry.inbox.detached.store(true, Ordering::Release);
        }
    }

    /// Puts a frame into a slot. What comes back is not going to be inferred: the frame it replaced, or itself once
    /// the model is closed.
    pub(super) fn submit(&self, inbox: &Inbox, job: Job) -> Option<Frame> {
        let state = self.lock();
        if state.closed || inbox.detached.load(Ordering::Acquire) {
            return Some(job.frame);
        }
        // Under the lock, so that an owner thread about to sleep can't miss it.
        let replaced = inbox.mailbox.put(job);
        drop(state);
        self.wake.notify_one();
        replaced.map(|job| job.frame)
    }

    pub(super) fn call(&self, call: Call) -> Result<(), Error> {
        let mut state = self.lock();
        if state.closed {
            return Err(Error::Closed);
        }
        if state.calls.len() >= MAX_CALLS {
            return Err(Error::Busy);
        }
        state.calls.push_back(call);
        drop(state);
        self.wake.notify_one();
        Ok(())
    }

    /// Lets the owner threads finish what they do, refuse what waits, and end.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for something to do; none: the model is closed and nothing waits.
    fn next(&self) -> Option<Task> {
        let mut state = self.lock();
        loop {
            let refusal = if state.closed {
                Some(Error::Closed)
            } else if self.ready.load(Ordering::Acquire) {
                None
            } else {
                Some(Error::NotReady)
            };
            let task = match refusal {
                Some(error) => state.refuse_next(error),
                None => state.choose_next(),
            };
            if task.is_some() || state.closed {
                return task;
            }
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// After a frame of a slot: the slot may have its next one run.
    fn release(&self, key: usize, took: Option<Duration>) {
        let mut state = self.lock();
        if let Some(took) = took {
            state.estimate.update(took);
        }
        if let Some(entry) = state.entries.iter_mut().find(|entry| entry.key == key) {
            entry.busy = false;
            if took.is_some() {
                entry.last_result = clock::now();
            }
        }
    }

    /// Counts a fault of an instance; too many of them make the model unready.
    fn note_fault(&self, error: &Error) {
        self.metrics.restarts.increment(1);
        let now = clock::now();
        let mut state = self.lock();
        state.faults.retain(|fault| now.saturating_duration_since(*fault) < FAULT_WINDOW);
        state.faults.push(now);
        let (id, faults) = (&self.id, state.faults.len());
        if faults >= MAX_FAULTS {
            self.ready.store(false, Ordering::Release);
            tracing::error!(model = id, faults, %error, "model failed repeatedly and takes no more work");
        } else {
            tracing::warn!(model = id, faults, %error, "model instance failed and is restarted");
        }
    }
}

impl State {
    fn choose_next(&mut self) -> Option<Task> {
        let now = clock::now();
        self.waiting.clear();
        for (at, entry) in self.entries.iter().enumerate().filter(|(_, entry)| !entry.busy) {
            let deadline = entry.inbox.mailbox.peek(|job| job.frame.deadline);
            let waiting = deadline.map(|deadline| Waiting { key: at, deadline, last_result: Some(entry.last_result) });
            self.waiting.extend(waiting);
        }
        if let Some(call) = self.calls.front() {
            self.waiting.push(Waiting { key: CALL, deadline: call.since + CALL_PATIENCE, last_result: None });
        }
        let (Choice::Run(at) | Choice::Late(at)) = batcher::choose(now, self.estimate.get(), &self.waiting)?;
        if at == CALL {
            return self.calls.pop_front().map(Task::Call);
        }
        let entry = self.entries.get_mut(at)?;
        // A newer frame may have replaced the one looked at, so its own deadline decides.
        let job = entry.inbox.mailbox.take()?;
        let waiting = Waiting { key: at, deadline: job.frame.deadline, last_result: Some(entry.last_result) };
        let inbox = Arc::clone(&entry.inbox);
        entry.busy = true;
        if batcher::is_late(now, self.estimate.get(), &waiting) {
            entry.busy = false;
            return Some(Task::Late { inbox, job });
        }
        let queue = now.saturating_duration_since(job.frame.decoded_at);
        Some(Task::Run { key: entry.key, inbox, job, queue })
    }

    fn refuse_next(&mut self, error: Error) -> Option<Task> {
        if let Some(call) = self.calls.pop_front() {
            return Some(Task::Refuse(None, Some(call), error));
        }
        let idle = self.entries.iter().filter(|entry| !entry.busy);
        let refused = idle.filter_map(|entry| Some((Arc::clone(&entry.inbox), entry.inbox.mailbox.take()?))).next()?;
        Some(Task::Refuse(Some(refused), None, error))
    }
}

impl Inbox {
    /// Calls the session back; a panic there is the session's end, not the model's.
    fn deliver(&self, model: &str, outcome: Outcome) {
        if self.detached.load(Ordering::Acquire) {
            return;
        }
        let mut deliver = self.deliver.lock().unwrap_or_else(PoisonError::into_inner);
        if catch_unwind(AssertUnwindSafe(|| deliver(outcome))).is_err() {
            self.detached.store(true, Ordering::Release);
            tracing::error!(model, "a session's result callback panicked; it gets no more results");
        }
    }
}

/// The life of an owner thread: it owns one instance until the model is closed.
pub(super) fn own(shared: &Shared, open: &Open, runner: Runner) {
    let mut instance = Instance { shared, open, runner: Some(runner) };
    while let Some(task) = shared.next() {
        match task {
            Task::Run { key, inbox, job, queue } => instance.run(key, &inbox, job, queue),
            Task::Late { inbox, job } => inbox.deliver(&shared.id, Outcome::Late(job.frame)),
            Task::Call(call) => {
                let found = instance.infer(&call.picture, call.color, &call.params);
                // Whoever asked may have gone.
                let _ = call.reply.send(found);
            }
            Task::Refuse(job, call, error) => {
                if let Some((inbox, job)) = job {
                    inbox.deliver(&shared.id, Outcome::Failed(job.frame, error.clone()));
                }
                if let Some(call) = call {
                    let _ = call.reply.send(Err(error));
                }
            }
        }
    }
}

struct Instance<'a> {
    shared: &'a Shared,
    open: &'a Open,
    /// None after a fault that a new one could not be opened after.
    runner: Option<Runner>,
}

impl Instance<'_> {
    fn run(&mut self, key: usize, inbox: &Inbox, Job { frame, params }: Job, queue: Duration) {
        let metrics = &self.shared.metrics;
        metrics.queue_wait.record(queue.as_secs_f64());
        metrics.batch_size.record(1.0);
        let found = self.infer(&frame.picture, frame.color, &params);
        let (outcome, took) = match found {
            Ok(Detected { detections, timing }) => {
                let took = timing.preprocess + timing.inference + timing.postprocess;
                let timing = Timing { queue, ..timing };
                let met = clock::now() <= frame.deadline;
                (Outcome::Done(Inferred { frame, detections, timing, batch_size: 1, met }), Some(took))
            }
            Err(error) => (Outcome::Failed(frame, error), None),
        };
        inbox.deliver(&self.shared.id, outcome);
        self.shared.release(key, took);
    }

    fn infer(&mut self, picture: &I420, color: ColorInfo, params: &Params) -> Result<Detected, Error> {
        let runner = self.runner.as_mut().ok_or(Error::NotReady)?;
        let metrics = &self.shared.metrics;
        metrics.in_flight.increment(1.0);
        let found = catch_unwind(AssertUnwindSafe(|| runner.infer(picture, color, params)));
        metrics.in_flight.decrement(1.0);
        let error = match found {
            Ok(Ok(found)) => {
                metrics.inference.record(found.timing.inference.as_secs_f64());
                return Ok(found);
            }
            Ok(Err(error)) => error,
            Err(_) => Error::Panicked,
        };
        self.restart(&error);
        Err(error)
    }

    fn restart(&mut self, error: &Error) {
        self.runner = None;
        self.shared.note_fault(error);
        while self.runner.is_none() && self.shared.is_ready() {
            match catch_unwind(AssertUnwindSafe(self.open)).unwrap_or(Err(Error::Panicked)) {
                Ok(runner) => self.runner = Some(runner),
                Err(error) => self.shared.note_fault(&error),
            }
        }
    }
}

#[cfg(test)]
#[path = "instance_tests.rs"]
mod tests;

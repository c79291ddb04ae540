use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use tokio::sync::oneshot;

use super::batcher::{Batcher, Choice, Costs, Key, Member, Priority};
use super::error::Error;
use super::figures::Record;
use super::instance::Open;
use super::manifest::Batching;
use super::prepared::Prepared;
use super::runner::{Item, Runner};
use super::{Detected, Outcome, Params, Whole};
use crate::clock;
use crate::frame::{Frame, Picture};
use crate::media::ColorInfo;
use crate::queue::Mailbox;

/// Faults within [`FAULT_WINDOW`] after which a model takes no more work.
const MAX_FAULTS: usize = 3;
const FAULT_WINDOW: Duration = Duration::from_secs(60);

/// Called on the owner thread with what became of each frame of a slot.
pub(super) type Deliver = Box<dyn FnMut(Outcome) + Send>;

/// What a model's owner threads and its slots share.
pub(super) struct Shared {
    id: String,
    /// Pictures that may wait; more are refused.
    max_queue: usize,
    state: Mutex<State>,
    wake: Condvar,
    /// Told of pictures that no instance is idle for.
    overflow: Condvar,
    ready: AtomicBool,
    pub(super) record: Record,
    pub(super) metrics: Metrics,
}

struct State {
    /// By key.
    entries: Vec<Entry>,
    next_key: Key,
    calls: VecDeque<Call>,
    batcher: Batcher,
    faults: Vec<Instant>,
    way: Way,
    /// Of the way that is new, for the instances that come for them.
    ready: Vec<Runner>,
    closed: bool,
}

/// A way to run the model.
#[derive(Clone)]
pub(super) struct Way {
    /// Raised by each change.
    pub(super) number: u64,
    /// Opens an instance that runs so.
    pub(super) open: Arc<Open>,
}

/// A slot as the owner threads see it.
struct Entry {
    key: Key,
    inbox: Arc<Inbox>,
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
    pub(super) prepared: Option<Arc<Prepared>>,
}

/// A single picture whose sender waits for the answer.
pub(super) struct Call {
    pub(super) picture: Picture,
    pub(super) color: ColorInfo,
    pub(super) whole: Option<Whole>,
    pub(super) params: Arc<Params>,
    /// When the answer is of no use any more; none: never.
    pub(super) deadline: Option<Instant>,
    pub(super) queued: Instant,
    pub(super) reply: Reply,
}

/// Where the answer to a call goes.
pub(super) enum Reply {
    /// To a thread that waits.
    Thread(SyncSender<Result<Detected, Error>>),
    /// To a task that waits, unless it has gone.
    Task(oneshot::Sender<Result<Detected, Error>>),
}

impl Reply {
    /// Whoever asked may have gone.
    pub(super) fn send(self, found: Result<Detected, Error>) {
        match self {
            Self::Thread(reply) => drop(reply.send(found)),
            Self::Task(reply) => drop(reply.send(found)),
        }
    }
}

impl Call {
    /// Whether it is not to be run any more: nobody waits for it, or it cannot be done in time.
    fn is_idle(&self, now: Instant, takes: Duration) -> bool {
        let is_gone = matches!(&self.reply, Reply::Task(reply) if reply.is_closed());
        is_gone || self.deadline.is_some_and(|deadline| now + takes > deadline)
    }
}

pub(super) struct Metrics {
    pub(super) inference: Histogram,
    pub(super) queue_wait: Histogram,
    pub(super) batch_size: Histogram,
    pub(super) in_flight: Gauge,
    pub(super) restarts: Counter,
    changes: Counter,
}

/// What an owner thread is to do.
pub(super) enum Task {
    /// Run what it was given in this bucket.
    Run { bucket: usize },
    /// Give this frame back.
    Late(Arc<Inbox>, Frame),
    /// Give what it was given back with this error.
    Refuse(Error),
    /// Tell its sender that this picture is too late.
    Expired(Call),
    /// Run everything this way from now on, with this runner.
    Change(Way, Runner),
    /// End: fewer instances run the model by now.
    Leave,
}

/// A member of a batch, taken out of its queue.
pub(super) enum Taken {
    Frame { key: Key, inbox: Arc<Inbox>, job: Job, queue: Duration },
    Call(Call, Duration),
}

impl Taken {
    pub(super) fn item(&self) -> Item<'_> {
        match self {
            Self::Frame { job: Job { frame, params, prepared }, .. } => {
                let (color, prepared, deadline) = (frame.color, prepared.as_deref(), Some(frame.deadline));
                Item { picture: &frame.picture, color, whole: None, params, prepared, deadline }
            }
            Self::Call(call, _) => {
                let Call { picture, color, whole, params, .. } = call;
                Item { picture, color: *color, whole: *whole, params, prepared: None, deadline: call.deadline }
            }
        }
    }
}

impl Shared {
    pub(super) fn new(id: String, costs: Costs, batching: &Batching, open: Arc<Open>) -> Self {
        let metrics = Metrics {
            inference: histogram!("saccade_inference_seconds", "model" => id.clone()),
            queue_wait: histogram!("saccade_queue_wait_seconds", "queue" => "infer"),
            batch_size: histogram!("saccade_batch_size"),
            in_flight: gauge!("saccade_inference_in_flight"),
            restarts: counter!("saccade_model_restarts_total", "model" => id.clone()),
            changes: counter!("saccade_model_changes_total", "model" => id.clone()),
        };
        let max_queue = batching.max_queue as usize;
        let state = State {
            entries: Vec::new(),
            next_key: 0,
            calls: VecDeque::with_capacity(max_queue),
            batcher: Batcher::new(costs, batching.max_delay),
            faults: Vec::new(),
            way: Way { number: 0, open },
            ready: Vec::new(),
            closed: false,
        };
        let (state, ready) = (Mutex::new(state), AtomicBool::new(true));
        let (wake, overflow) = (Condvar::new(), Condvar::new());
        Self { id, max_queue, state, wake, overflow, ready, record: Record::default(), metrics }
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire) && !self.lock().closed
    }

    pub(super) fn estimate(&self) -> Duration {
        self.lock().batcher.costs().single()
    }

    pub(super) fn attach(&self, priority: Priority, deliver: Deliver) -> (Key, Arc<Inbox>) {
        let inbox =
            Inbox { mailbox: Mailbox::new("infer"), deliver: Mutex::new(deliver), detached: AtomicBool::new(false) };
        let inbox = Arc::new(inbox);
        let mut state = self.lock();
        let key = state.next_key;
        state.next_key += 1;
        state.batcher.join(key, priority);
        state.entries.push(Entry { key, inbox: Arc::clone(&inbox) });
        (key, inbox)
    }

    pub(super) fn detach(&self, key: Key) {
        let mut state = self.lock();
        state.batcher.leave(key);
        if let Some(at) = state.position(key) {
            let entry = state.entries.remove(at);
            entry.inbox.detached.store(true, Ordering::Release);
        }
    }

    /// Whether any slot is attached.
    pub(super) fn has_slots(&self) -> bool {
        !self.lock().entries.is_empty()
    }

    /// Puts a frame into a slot. What comes back is not going to be inferred: the frame it replaced, or itself once
    /// the model is closed.
    pub(super) fn submit(&self, key: Key, inbox: &Inbox, job: Job) -> Option<Frame> {
        let now = clock::now();
        let mut state = self.lock();
        if state.closed || inbox.detached.load(Ordering::Acquire) {
            return Some(job.frame);
        }
        // Under the lock, so that the batcher knows of each frame that is there and of no other, and so that an owner
        // thread about to sleep can't miss it.
        state.batcher.submit(now, key, job.frame.deadline);
        let replaced = inbox.mailbox.put(job);
        drop(state);
        self.wake.notify_one();
        replaced.map(|job| job.frame)
    }

    pub(super) fn call(&self, call: Call) -> Result<(), Error> {
        let now = clock::now();
        let mut state = self.lock();
        if let Some(error) = self.refusal(&state) {
            return Err(error);
        }
        // Those that are of no use to anybody take no place.
        while state.calls.len() >= self.max_queue {
            state.take_idle(now).ok_or(Error::Busy)?.reply.send(Err(Error::Late));
        }
        state.batcher.call(now);
        state.calls.push_back(call);
        let overflows = state.batcher.has_overflow();
        drop(state);
        self.wake.notify_one();
        if overflows {
            self.overflow.notify_one();
        }
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn waiting_pictures(&self) -> usize {
        self.lock().calls.len()
    }

    /// Whether the batcher knows of something that waits.
    #[cfg(test)]
    pub(super) fn has_waiting(&self) -> bool {
        self.lock().batcher.has_more()
    }

    /// Lets the owner threads finish what they do, refuse what waits, and end.
    pub(super) fn close(&self) {
        let unused = {
            let mut state = self.lock();
            state.closed = true;
            std::mem::take(&mut state.ready)
        };
        drop(unused);
        self.wake.notify_all();
        self.overflow.notify_all();
    }

    /// How the model is run now.
    pub(super) fn way(&self) -> Way {
        self.lock().way.clone()
    }

    /// Has as many instances as are `ready` run the model in another way, each from its next batch on; the others end then.
    /// What waits goes on waiting. False: the model takes no more work.
    pub(super) fn change(&self, costs: Costs, open: Arc<Open>, ready: Vec<Runner>) -> bool {
        let mut state = self.lock();
        if state.closed || !self.ready.load(Ordering::Acquire) {
            return false;
        }
        state.batcher.renew(costs);
        state.way = Way { number: state.way.number + 1, open };
        let unused = std::mem::replace(&mut state.ready, ready);
        // What failed was the other way.
        state.faults.clear();
        drop(state);
        drop(unused);
        self.metrics.changes.increment(1);
        self.wake.notify_all();
        true
    }

    /// An owner thread is there and has its runner.
    pub(super) fn add_instance(&self) {
        self.lock().batcher.add_instance();
    }

    /// Waits for something to do; none: the model is closed and nothing waits. What is to be run or refused comes into
    /// `batch`, which is empty. `way` is the number of the one that the instance runs.
    pub(super) fn next(&self, instance: usize, way: u64, batch: &mut Vec<Taken>) -> Option<Task> {
        let mut state = self.lock();
        loop {
            let task = match self.refusal(&state) {
                Some(error) => state.refuse_next(batch).then_some(Task::Refuse(error)),
                None if state.way.number != way => Some(state.change()),
                None => state.choose_next(instance, batch),
            };
            if task.is_some() && state.batcher.has_more() {
                self.wake.notify_one();
                if state.batcher.has_overflow() {
                    self.overflow.notify_one();
                }
            }
            if task.is_some() || state.closed {
                return task;
            }
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits until pictures wait that no instance is idle for. False: the model takes no more work.
    pub(super) fn await_overflow(&self) -> bool {
        let mut state = self.lock();
        loop {
            if self.refusal(&state).is_some() {
                return false;
            }
            if state.batcher.has_overflow() {
                return true;
            }
            state = self.overflow.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// As [`Self::next`], with pictures alone that no instance is idle for. None: there were none for `patience`, or what
    /// runs them is not the way any more.
    pub(super) fn next_overflow(&self, way: u64, patience: Duration, batch: &mut Vec<Taken>) -> Option<Task> {
        let mut state = self.lock();
        loop {
            if self.refusal(&state).is_some() || state.way.number != way {
                return None;
            }
            let task = state.choose_overflow(batch);
            if task.is_some() {
                if state.batcher.has_overflow() {
                    self.overflow.notify_one();
                }
                return task;
            }
            let waited = self.overflow.wait_timeout(state, patience).unwrap_or_else(PoisonError::into_inner);
            if waited.1.timed_out() {
                return None;
            }
            state = waited.0;
        }
    }

    /// After a batch: the instance is idle, and the slots may have their next frames run. `ran` is its bucket and time,
    /// if it ran as one, in this way; `done` are its slots, and whether each got a result.
    pub(super) fn release(&self, instance: usize, way: u64, ran: Option<(usize, Duration)>, done: &[(Key, bool)]) {
        let now = clock::now();
        let mut state = self.lock();
        let ran = ran.filter(|_| state.way.number == way);
        state.batcher.finish_run(instance, ran);
        done.iter().for_each(|(key, result)| state.batcher.finish_frame(now, *key, *result));
    }

    /// Runs in this bucket fail in this way, while their members do not: it is not used any more.
    pub(super) fn give_up(&self, way: u64, bucket: usize) {
        let mut state = self.lock();
        if state.way.number == way {
            state.batcher.give_up(bucket);
        }
    }

    /// Counts a fault; too many of them make the model unready.
    pub(super) fn note_fault(&self, error: &Error) {
        let now = clock::now();
        let mut state = self.lock();
        state.faults.retain(|fault| now.saturating_duration_since(*fault) < FAULT_WINDOW);
        state.faults.push(now);
        let (id, faults) = (&self.id, state.faults.len());
        if faults >= MAX_FAULTS {
            self.ready.store(false, Ordering::Release);
            tracing::error!(model = id, faults, %error, "model failed repeatedly and takes no more work");
        } else {
            tracing::warn!(model = id, faults, %error, "model instance failed");
        }
    }

    /// Why nothing is run any more.
    fn refusal(&self, state: &State) -> Option<Error> {
        let ready = self.ready.load(Ordering::Acquire);
        if state.closed { Some(Error::Closed) } else { (!ready).then_some(Error::NotReady) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// What an instance is to do that runs another way than is to be run.
    fn change(&mut self) -> Task {
        if let Some(runner) = self.ready.pop() {
            return Task::Change(self.way.clone(), runner);
        }
        self.batcher.remove_instance();
        Task::Leave
    }

    fn position(&self, key: Key) -> Option<usize> {
        self.entries.binary_search_by_key(&key, |entry| entry.key).ok()
    }

    /// Takes a picture out that is not to be run any more.
    fn take_idle(&mut self, now: Instant) -> Option<Call> {
        let takes = self.batcher.costs().single();
        let at = self.calls.iter().position(|call| call.is_idle(now, takes))?;
        self.batcher.withdraw_call(at);
        self.calls.remove(at)
    }

    fn choose_next(&mut self, instance: usize, batch: &mut Vec<Taken>) -> Option<Task> {
        let now = clock::now();
        if let Some(call) = self.take_idle(now) {
            return Some(Task::Expired(call));
        }
        let choice = self.batcher.next(now, instance)?;
        self.gather(choice, now, batch)
    }

    fn choose_overflow(&mut self, batch: &mut Vec<Taken>) -> Option<Task> {
        let now = clock::now();
        if let Some(call) = self.take_idle(now) {
            return Some(Task::Expired(call));
        }
        let choice = self.batcher.next_overflow(now)?;
        self.gather(choice, now, batch)
    }

    /// Takes what was chosen out of its queues.
    fn gather(&mut self, choice: Choice, now: Instant, batch: &mut Vec<Taken>) -> Option<Task> {
        let inbox = |entries: &[Entry], key| {
            let at = entries.binary_search_by_key(&key, |entry: &Entry| entry.key).ok()?;
            Some(Arc::clone(&entries[at].inbox))
        };
        let bucket = match choice {
            Choice::Late(key) => {
                let inbox = inbox(&self.entries, key)?;
                let frame = inbox.mailbox.take()?.frame;
                return Some(Task::Late(inbox, frame));
            }
            Choice::Run { bucket } => bucket,
        };
        for member in self.batcher.members() {
            let taken = match *member {
                Member::Call => self.calls.pop_front().map(|call| {
                    let queue = now.saturating_duration_since(call.queued);
                    Taken::Call(call, queue)
                }),
                Member::Slot(key) => inbox(&self.entries, key).and_then(|inbox| {
                    let job = inbox.mailbox.take()?;
                    let queue = now.saturating_duration_since(job.frame.decoded_at);
                    Some(Taken::Frame { key, inbox, job, queue })
                }),
            };
            // All of them are there: queues and batcher change together, under one lock.
            batch.extend(taken);
        }
        Some(Task::Run { bucket })
    }

    /// Takes a frame or a picture that waits, of a slot that has none in work, so that outcomes keep their order.
    fn refuse_next(&mut self, batch: &mut Vec<Taken>) -> bool {
        if let Some(call) = self.calls.pop_front() {
            self.batcher.withdraw(Member::Call);
            batch.push(Taken::Call(call, Duration::ZERO));
            return true;
        }
        let idle = self.entries.iter().filter(|entry| !self.batcher.is_in_flight(entry.key));
        let refused = idle.filter_map(|Entry { key, inbox }| {
            let job = inbox.mailbox.take()?;
            Some(Taken::Frame { key: *key, inbox: Arc::clone(inbox), job, queue: Duration::ZERO })
        });
        batch.extend(refused.take(1));
        if let Some(Taken::Frame { key, .. }) = batch.last() {
            self.batcher.withdraw(Member::Slot(*key));
        }
        !batch.is_empty()
    }
}

impl Inbox {
    /// Calls the session back; a panic there is the session's end, not the model's.
    pub(super) fn deliver(&self, model: &str, outcome: Outcome) {
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

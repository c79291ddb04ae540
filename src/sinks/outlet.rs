use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use tokio::sync::{Notify, watch};

use super::backlog::{Backlog, Numbered};
use super::filter::Pace;
use super::{Failure, Kind, Message, Source, Target, rfc3339};
use crate::clock;
use crate::telemetry::EverySecond;

/// What happened to a message, as metrics call it. All but the first were not delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Delivered,
    /// The queue had no room.
    Full,
    /// It waited for longer than it may.
    Expired,
    /// The sink said that it never takes it.
    Refused,
    /// It was tried as often as it may be.
    Exhausted,
    /// The sink takes nothing any more.
    Disabled,
    /// The server stopped first.
    Shutdown,
}

impl Outcome {
    const ALL: [Self; 7] =
        [Self::Delivered, Self::Full, Self::Expired, Self::Refused, Self::Exhausted, Self::Disabled, Self::Shutdown];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Full => "full",
            Self::Expired => "expired",
            Self::Refused => "refused",
            Self::Exhausted => "exhausted",
            Self::Disabled => "disabled",
            Self::Shutdown => "shutdown",
        }
    }
}

/// What a sink is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It was not heard of yet.
    Connecting,
    /// It takes messages.
    Up,
    /// It failed, and is left alone for a while.
    Waiting,
    /// It said that it wants nothing any more, and is left alone for good.
    Disabled,
}

impl State {
    /// Its name, as the API has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Up => "up",
            Self::Waiting => "waiting",
            Self::Disabled => "disabled",
        }
    }
}

/// A sink as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Its name.
    pub name: Arc<str>,
    /// `webhook`, `mqtt` or `nats`.
    pub kind: &'static str,
    /// What it is doing.
    pub state: State,
    /// Messages that wait.
    pub queued: usize,
    /// Messages that may wait.
    pub capacity: usize,
    /// Messages that it took.
    pub delivered: u64,
    /// Messages that it did not get and will not.
    pub lost: u64,
    /// Why it failed last, and when.
    pub failure: Option<(Failure, Instant)>,
}

/// One sink as seen from both sides: messages are put in without waiting, and its task takes them out.
pub(super) struct Outlet {
    pub(super) target: Target,
    pace: Pace,
    backlog: Backlog,
    ready: Notify,
    closing: watch::Receiver<bool>,
    known: Mutex<Known>,
    delivered: AtomicU64,
    lost: AtomicU64,
    metrics: Metrics,
    drops: EverySecond,
    failures: EverySecond,
}

struct Known {
    state: State,
    failure: Option<(Failure, Instant)>,
}

impl Outlet {
    pub(super) fn new(target: Target, closing: watch::Receiver<bool>) -> Self {
        Self {
            pace: Pace::default(),
            backlog: Backlog::new(target.queue),
            ready: Notify::new(),
            closing,
            known: Mutex::new(Known { state: State::Connecting, failure: None }),
            delivered: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            metrics: Metrics::new(&target.name),
            drops: EverySecond::new(),
            failures: EverySecond::new(),
            target,
        }
    }

    pub(super) fn status(&self, kind: &'static str) -> Status {
        let known = self.known();
        Status {
            name: Arc::clone(&self.target.name),
            kind,
            state: known.state,
            queued: self.backlog.len(),
            capacity: self.backlog.capacity(),
            delivered: self.delivered.load(Ordering::Relaxed),
            lost: self.lost.load(Ordering::Relaxed),
            failure: known.failure,
        }
    }

    /// Whether a message of this kind and name would be taken now.
    pub(super) fn wants(&self, source: &Source, kind: Kind, name: &str, now: Instant) -> bool {
        let filter = &self.target.filter;
        filter.takes(source, kind, name)
            && (kind == Kind::Event || self.pace.is_due(source, filter.min_interval, now))
            && self.known().state != State::Disabled
    }

    /// Whether messages of this kind are ever taken of this source.
    pub(super) fn ever_wants(&self, source: &Source, kind: Kind) -> bool {
        let filter = &self.target.filter;
        (if kind == Kind::Event { filter.events } else { filter.results }) && filter.takes_source(source)
    }

    /// Takes a message if it is wanted. Never waits.
    pub(super) fn push(&self, message: &Message) {
        let filter = &self.target.filter;
        if !self.wants(&message.source, message.kind, &message.name, message.at)
            || (message.kind == Kind::Result && !self.pace.take(&message.source, filter.min_interval, message.at))
        {
            return;
        }
        let dropped = self.backlog.push(message.clone());
        if dropped > 0 {
            self.count(Outcome::Full, dropped);
        }
        self.metrics.depth(self.backlog.len());
        self.ready.notify_one();
    }

    pub(super) fn forget(&self, source: &Source) {
        self.pace.forget(source);
    }

    /// Resolves when something may be there to be taken; it may be that there is nothing.
    pub(super) async fn ready(&self) {
        if self.backlog.len() == 0 {
            self.ready.notified().await;
        }
    }

    /// The oldest message that is not too old; those that are go to the dead letters.
    pub(super) async fn pop(&self) -> Option<Numbered> {
        let mut expired = Vec::new();
        let now = clock::now();
        let next = loop {
            match self.backlog.pop() {
                Some(next) if now.saturating_duration_since(next.message.at) > self.target.max_age => {
                    expired.push(next.message);
                }
                next => break next,
            }
        };
        self.metrics.depth(self.backlog.len());
        self.give_up(expired, Outcome::Expired, 0).await;
        next
    }

    pub(super) fn is_empty(&self) -> bool {
        self.backlog.len() == 0
    }

    /// Puts back what was taken and not delivered.
    pub(super) fn put_back(&self, taken: impl DoubleEndedIterator<Item = Numbered>) {
        self.backlog.put_back(taken);
        self.metrics.depth(self.backlog.len());
    }

    /// The sink took so many messages; `took` is from the try to its answer.
    pub(super) fn delivered(&self, messages: usize, took: Duration) {
        self.count(Outcome::Delivered, messages as u64);
        self.metrics.delivery.record(took);
        self.enter(State::Up);
    }

    /// The sink answers.
    pub(super) fn enter(&self, state: State) {
        let before = std::mem::replace(&mut self.known().state, state);
        if before != state && state == State::Up {
            tracing::info!(sink = %self.target.name, "the sink takes messages");
        }
    }

    /// The sink failed. Says so in the log, once a second at most.
    pub(super) fn failed(&self, failure: Failure, state: State) {
        let now = clock::now();
        {
            let mut known = self.known();
            known.state = state;
            known.failure = Some((failure, now));
        }
        self.metrics.failed(&self.target.name, failure);
        if let Some(suppressed) = self.failures.pass(now) {
            let (sink, reason) = (&self.target.name, failure.code());
            tracing::warn!(%sink, reason, suppressed, queued = self.backlog.len(), "a sink failed: {failure}");
        }
    }

    /// These messages are not delivered any more: counts them, and keeps them as dead letters where that is wanted.
    pub(super) async fn give_up(&self, messages: Vec<Message>, outcome: Outcome, attempts: u32) {
        if messages.is_empty() {
            return;
        }
        self.count(outcome, messages.len() as u64);
        let Some(letters) = self.target.dead_letters.clone() else { return };
        let lines = lines(&messages, outcome, attempts);
        let written = tokio::task::spawn_blocking(move || letters.append(&lines)).await;
        let written = written.map_err(std::io::Error::other).and_then(|written| written);
        self.metrics.letters(&self.target.name, written.is_ok(), messages.len() as u64);
        if let Err(error) = written
            && let Some(suppressed) = self.drops.pass(clock::now())
        {
            tracing::error!(sink = %self.target.name, %error, suppressed, "dead letters were not written");
        }
    }

    /// Gives up everything that waits.
    pub(super) async fn give_up_all(&self, outcome: Outcome) {
        // In parts, so that no more than that is in memory twice.
        loop {
            let part: Vec<_> = std::iter::from_fn(|| self.backlog.pop()).map(|taken| taken.message).take(256).collect();
            if part.is_empty() {
                break;
            }
            self.give_up(part, outcome, 0).await;
        }
        self.metrics.depth(0);
    }

    /// Waits for so long, or until the server stops.
    pub(super) async fn pause(&self, wait: Duration) {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = self.closing() => {}
        }
    }

    /// Resolves when the server stops.
    pub(super) async fn closing(&self) {
        let mut closing = self.closing.clone();
        // A sender that is gone has stopped, too.
        let _ = closing.wait_for(|closing| *closing).await;
    }

    pub(super) fn is_closing(&self) -> bool {
        *self.closing.borrow() || self.closing.has_changed().is_err()
    }

    fn count(&self, outcome: Outcome, messages: u64) {
        self.metrics.outcomes[outcome as usize].increment(messages);
        if outcome == Outcome::Delivered {
            self.delivered.fetch_add(messages, Ordering::Relaxed);
            return;
        }
        self.lost.fetch_add(messages, Ordering::Relaxed);
        if let Some(suppressed) = self.drops.pass(clock::now()) {
            let (sink, reason) = (&self.target.name, outcome.as_str());
            tracing::warn!(%sink, reason, messages, suppressed, "a sink did not get messages");
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A line of JSON for each message. What is put between is a plain word, a time, numbers and JSON.
fn lines(messages: &[Message], outcome: Outcome, attempts: u32) -> String {
    let (time, reason) = (rfc3339(clock::wall()), outcome.as_str());
    let mut lines = String::new();
    for message in messages {
        let body = &message.body;
        // Writing to a text does not fail.
        let _ = writeln!(lines, r#"{{"time":"{time}","reason":"{reason}","attempts":{attempts},"message":{body}}}"#);
    }
    lines
}

/// Metric handles of one sink. Names of sinks are configuration, so there are as many labels as sinks.
struct Metrics {
    outcomes: [Counter; Outcome::ALL.len()],
    depth: Gauge,
    delivery: Histogram,
}

impl Metrics {
    fn new(name: &str) -> Self {
        let of = |outcome: Outcome| counter!("saccade_sink_messages_total", "sink" => name.to_owned(), "outcome" => outcome.as_str());
        Self {
            outcomes: Outcome::ALL.map(of),
            depth: gauge!("saccade_sink_queue_depth", "sink" => name.to_owned()),
            delivery: histogram!("saccade_sink_delivery_seconds", "sink" => name.to_owned()),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a bounded number of messages")]
    fn depth(&self, messages: usize) {
        self.depth.set(messages as f64);
    }

    fn failed(&self, name: &str, failure: Failure) {
        counter!("saccade_sink_failures_total", "sink" => name.to_owned(), "reason" => failure.code()).increment(1);
    }

    fn letters(&self, name: &str, written: bool, messages: u64) {
        let outcome = if written { "written" } else { "failed" };
        counter!("saccade_sink_dead_letters_total", "sink" => name.to_owned(), "outcome" => outcome)
            .increment(messages);
    }
}

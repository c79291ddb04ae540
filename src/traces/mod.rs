//! Traces: where the time of a session's set-up, of a request and of a frame went, sent to a collector over OTLP.
//!
//! What enters: spans that are over, by [`Tracer::send`], which never waits. What leaves: requests of OTLP/HTTP with
//! protobuf, made by one task with a bounded queue; what finds no room or no collector is dropped and counted. Where no
//! collector is configured, [`Tracer::off`] costs a look at an `Option`. Spans hold ids, sizes, names of models and
//! codecs; no address, session description or token.

mod context;
mod export;
mod proto;
mod sampling;
mod span;
mod trail;

pub use context::{Context, SpanId, TraceId};
pub use export::{Collector, Running};
pub use sampling::Sampling;
pub use span::{Attribute, Kind, Span, Value};
pub use trail::Trail;

use std::sync::Arc;
use std::time::Instant;

use metrics::{Counter, counter};
use tokio::sync::mpsc;

use crate::clock;
use sampling::{Allowance, Pace};

/// Traces that wait for the collector at most; one more is dropped, since whoever made it must not wait.
const QUEUE: usize = 512;

/// Decides what is traced, and takes the spans of it. Clones share one queue.
#[derive(Clone, Default)]
pub struct Tracer(Option<Arc<Inner>>);

struct Inner {
    queue: mpsc::Sender<Vec<Span>>,
    ratio: f64,
    /// Of set-ups; of requests that others trace; and of pictures and tensors: none of them keeps the others out.
    setups: Allowance,
    requests: Allowance,
    work: Allowance,
    frames: Option<Pace>,
    full: Counter,
    closed: Counter,
}

impl std::fmt::Debug for Tracer {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_tuple("Tracer").field(&self.is_on()).finish()
    }
}

impl Tracer {
    /// Traces nothing.
    #[must_use]
    pub const fn off() -> Self {
        Self(None)
    }

    /// Sends what is sampled to a collector, by a task on the current Tokio runtime.
    ///
    /// # Errors
    /// A sentence, when there can be no client for it: no certificates can be read, say.
    pub fn start(collector: Collector, sampling: Sampling) -> Result<(Self, Running), String> {
        let (queue, spans) = mpsc::channel(QUEUE);
        let running = export::start(collector, spans)?;
        Ok((Self(Some(Arc::new(Inner::new(queue, sampling, clock::now())))), running))
    }

    /// Whether anything is traced.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// The context of a set-up's span, if it is to be made: a caller that was sampled decides for it, one that was not against
    /// it, and without a caller chance does. More than 20 a second in the long run are not made.
    #[must_use]
    pub fn begin(&self, caller: Option<&Context>, now: Instant) -> Option<Context> {
        let inner = self.0.as_deref()?;
        inner.begin(caller, &inner.setups, now)
    }

    /// The same for a request whose sender traces, with an allowance of its own: who may send them is not known yet.
    #[must_use]
    pub fn request(&self, caller: &Context, now: Instant) -> Option<Context> {
        let inner = self.0.as_deref()?;
        inner.begin(Some(caller), &inner.requests, now)
    }

    /// The trail of a picture or of tensors, a part of the request that `caller` is of, likewise with an allowance of its own.
    #[must_use]
    pub fn work(&self, name: &'static str, caller: Option<&Context>, start: Instant) -> Trail {
        let Some(inner) = self.0.as_deref() else { return Trail::off() };
        let Some(context) = inner.begin(caller, &inner.work, clock::now()) else { return Trail::off() };
        let mut span = Span::new(context, caller.map(Context::span_id), name, start, start);
        if caller.is_none() {
            span.kind = Kind::Server;
        }
        Trail::new(self, span)
    }

    /// The context of a frame's span, if this frame is to be traced.
    #[must_use]
    pub fn frame(&self, now: Instant) -> Option<Context> {
        let pace = self.0.as_deref()?.frames.as_ref()?;
        pace.is_due(now).then(Context::root)
    }

    /// Hands on spans of one trace that are over. Where the queue is full they are dropped and counted.
    pub fn send(&self, spans: Vec<Span>) {
        let Some(inner) = self.0.as_deref() else { return };
        match inner.queue.try_send(spans) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(spans)) => inner.full.increment(spans.len() as u64),
            Err(mpsc::error::TrySendError::Closed(spans)) => inner.closed.increment(spans.len() as u64),
        }
    }
}

impl Inner {
    fn begin(&self, caller: Option<&Context>, allowance: &Allowance, now: Instant) -> Option<Context> {
        let is_wanted = match caller {
            Some(caller) => caller.is_sampled(),
            None => sampling::happens(self.ratio),
        };
        let is_made = is_wanted && allowance.take(now);
        is_made.then(|| caller.map_or_else(Context::root, Context::child))
    }

    fn new(queue: mpsc::Sender<Vec<Span>>, sampling: Sampling, now: Instant) -> Self {
        Self {
            queue,
            ratio: sampling.ratio,
            setups: Allowance::new(now),
            requests: Allowance::new(now),
            work: Allowance::new(now),
            frames: Pace::new(sampling.frames_per_s),
            full: counter!("saccade_trace_spans_total", "outcome" => "queue_full"),
            closed: counter!("saccade_trace_spans_total", "outcome" => "closed"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::time::Duration;

    use super::*;

    fn tracer(ratio: f64, frames_per_s: u32) -> (Tracer, mpsc::Receiver<Vec<Span>>, Instant) {
        let (queue, spans) = mpsc::channel(2);
        let now = clock::now();
        let inner = Inner::new(queue, Sampling { ratio, frames_per_s }, now);
        (Tracer(Some(Arc::new(inner))), spans, now)
    }

    #[test]
    fn a_caller_decides_where_there_is_one_and_within_bounds() {
        let caller = |flags: &str| {
            let text = format!("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-{flags}");
            Context::parse(&text, None).unwrap()
        };
        let (never, _queue, now) = tracer(0.0, 1);
        let begun = never.begin(Some(&caller("01")), now).unwrap();
        assert_eq!(begun.trace_id(), caller("01").trace_id());
        assert_ne!(begun.span_id(), caller("01").span_id());
        assert!(never.begin(None, now).is_none());
        let (always, _queue, now) = tracer(1.0, 1);
        assert!(always.begin(Some(&caller("00")), now).is_none());
        // Whoever sends requests keeps nobody else out.
        assert_eq!((0..1000).filter(|_| always.request(&caller("01"), now).is_some()).count(), 40);
        let made = |now| (0..1000).filter(|_| always.begin(Some(&caller("01")), now).is_some()).count();
        assert_eq!(made(now), 40);
        assert_eq!(made(now + Duration::from_secs(1)), 20);
    }

    #[test]
    fn a_trail_is_handed_on_once_and_whoever_lets_go_of_it_has_it_ended() {
        let (tracer, mut queue, now) = tracer(1.0, 0);
        let trail = tracer.work("picture", None, now);
        trail.part("decode", now, now + Duration::from_millis(3));
        trail.clone().part_with("inference", now, now, || vec![("saccade.model", "a".into())]);
        trail.note(|| vec![("saccade.bytes", 7_u32.into())]);
        trail.end(None);
        trail.part("late", now, now);
        drop(trail);
        let spans = queue.try_recv().unwrap();
        let names: Vec<_> = spans.iter().map(|span| &*span.name).collect();
        assert_eq!(names, ["picture", "decode", "inference"]);
        assert_eq!((spans[0].kind, spans[0].parent, &spans[0].error), (Kind::Server, None, &None));
        assert!(spans[1..].iter().all(|part| part.parent == Some(spans[0].context.span_id())));
        assert!(queue.try_recv().is_err(), "it is handed on once");

        let caller = Context::root();
        drop(tracer.work("tensors", Some(&caller), now));
        let [span]: [Span; 1] = queue.try_recv().unwrap().try_into().unwrap();
        assert_eq!((span.kind, span.parent), (Kind::Internal, Some(caller.span_id())));
        assert_eq!(span.error.as_deref(), Some("given up"));
        drop(tracer.work("tensors", Some(&caller.unsampled()), now));
        drop(Tracer::off().work("tensors", None, now));
        assert!(queue.try_recv().is_err());
    }

    #[test]
    fn a_full_queue_makes_nobody_wait() {
        let (tracer, mut queue, now) = tracer(1.0, 1);
        let span = || vec![Span::new(Context::root(), None, "one", now, now)];
        for _ in 0..5 {
            tracer.send(span());
        }
        let mut taken = 0;
        while queue.try_recv().is_ok() {
            taken += 1;
        }
        assert_eq!(taken, 2);
        Tracer::off().send(span());
        assert!(Tracer::off().begin(None, now).is_none() && Tracer::off().frame(now).is_none());
    }
}

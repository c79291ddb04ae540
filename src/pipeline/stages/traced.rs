use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::clock;
use crate::frame::Frame;
use crate::infer;
use crate::media::MediaTime;
use crate::telemetry::exemplars::{self, Series};
use crate::traces::{Context, Span, Tracer};

/// Number of no frame.
const NONE: u64 = u64::MAX;

/// The frame of a session that is traced, one at a time and now and then. To all others it costs the look at a number, and
/// where nothing is traced the look at an option.
pub(in crate::pipeline) struct Traced {
    tracer: Tracer,
    session_id: String,
    codec: &'static str,
    /// Of the session's set-up, where that was traced.
    setup: Option<Context>,
    /// Number of the frame that is traced now.
    id: AtomicU64,
    frame: Mutex<Option<Followed>>,
}

/// A frame on its way, and how long it was where.
struct Followed {
    span: Span,
    parts: Vec<Span>,
    id: u64,
    time: MediaTime,
    /// What is still to leave.
    awaits: Awaits,
    samples: Vec<(Series, Duration)>,
}

#[derive(Clone, Copy)]
struct Awaits {
    /// Its result.
    result: bool,
    /// It itself.
    video: bool,
    /// It does not wait for its result.
    apart: bool,
}

impl Traced {
    pub(in crate::pipeline) fn new(
        tracer: Tracer,
        session_id: String,
        codec: &'static str,
        setup: Option<Context>,
    ) -> Self {
        Self { tracer, session_id, codec, setup, id: AtomicU64::new(NONE), frame: Mutex::default() }
    }

    /// A frame was decoded, and may be the one.
    pub(super) fn decoded(&self, frame: &Frame, model: &str, budget_ms: u32) {
        // One that is under way is not given up for it.
        if !self.tracer.is_on() || self.id.load(Ordering::Relaxed) != NONE {
            return;
        }
        let Some(context) = self.tracer.frame(frame.decoded_at) else { return };
        let mut span = Span::new(context, None, "frame", frame.arrival, frame.decoded_at);
        span.link = self.setup.clone();
        span.attributes = vec![
            ("saccade.session.id", self.session_id.clone().into()),
            ("saccade.frame.id", frame.id.into()),
            ("saccade.codec", self.codec.into()),
            ("saccade.model", model.to_owned().into()),
            ("saccade.frame.width", frame.picture.width().into()),
            ("saccade.frame.height", frame.picture.height().into()),
            ("saccade.budget_ms", budget_ms.into()),
        ];
        let ordered = frame.arrival + frame.reorder_wait;
        let mut parts = Vec::with_capacity(10);
        if !frame.reorder_wait.is_zero() {
            parts.push(span.part("reorder", frame.arrival, ordered));
        }
        parts.push(span.part("decode", ordered, frame.decoded_at));
        let awaits = Awaits { result: false, video: false, apart: false };
        let samples = vec![(stage("decode"), frame.worked)];
        *self.lock() = Some(Followed { span, parts, id: frame.id, time: frame.time, awaits, samples });
        self.id.store(frame.id, Ordering::Release);
    }

    /// It is known where a frame goes: whether a result of its own is made, whether it is returned, and whether that waits for
    /// no result (`apart`).
    pub(super) fn goes(&self, id: u64, result: bool, video: bool, apart: bool) {
        self.with(id, |followed| {
            followed.awaits = Awaits { result, video, apart };
            (!result && !video).then_some("skipped")
        });
    }

    /// The model is done with a frame.
    pub(super) fn inferred(&self, inferred: &infer::Inferred) {
        self.with(inferred.frame.id, |followed| {
            let timing = &inferred.timing;
            let mut at = inferred.frame.decoded_at;
            for (name, took) in [
                ("queue", timing.queue),
                ("preprocess", timing.preprocess),
                ("inference", timing.inference),
                ("postprocess", timing.postprocess),
            ] {
                followed.part(name, at, at + took);
                if name != "queue" {
                    followed.samples.push((stage(name), took));
                }
                at += took;
            }
            followed.span.attributes.push(("saccade.batch_size", inferred.batch_size.into()));
            None
        });
    }

    /// Nothing becomes of a frame any more, and why.
    pub(super) fn dropped(&self, id: u64, reason: &'static str) {
        self.with(id, |_| Some(reason));
    }

    /// There will be no result; a frame that does not wait for one may be returned.
    pub(super) fn no_result(&self, id: u64, reason: &'static str) {
        self.with(id, |followed| {
            followed.awaits.result = false;
            (!followed.awaits.apart || !followed.awaits.video).then_some(reason)
        });
    }

    /// A frame is not returned; its result may come.
    pub(super) fn not_returned(&self, id: u64, reason: &'static str) {
        self.with(id, |followed| {
            followed.awaits.video = false;
            (!followed.awaits.result).then_some(reason)
        });
    }

    /// A result is on its way, after so long, which says whether the frame is returned. Those of older frames are not to be
    /// awaited any more.
    pub(super) fn told(&self, id: u64, latency: Duration, met: bool, returned: bool) {
        let followed = self.id.load(Ordering::Acquire);
        if followed == NONE || followed > id {
            return;
        }
        if followed < id {
            return self.passed(followed, id);
        }
        self.with(id, |followed| {
            followed.awaits.result = false;
            followed.awaits.video &= returned;
            followed.span.end = followed.span.end.max(followed.span.start + latency);
            followed.span.attributes.push(("saccade.met", met.into()));
            followed.samples.push((path("result"), latency));
            (!followed.awaits.video).then_some("told")
        });
    }

    /// A frame was drawn on, or encoded, from then on for so long.
    pub(super) fn worked(&self, id: u64, name: &'static str, start: Instant, took: Duration) {
        self.with(id, |followed| {
            followed.part(name, start, start + took);
            followed.samples.push((stage(name), took));
            None
        });
    }

    /// The frame of this time is being sent since `start`; its first packet left after `latency`, where it got so far.
    pub(in crate::pipeline) fn sent(&self, time: MediaTime, start: Instant, latency: Option<Duration>) {
        let id = self.id.load(Ordering::Acquire);
        if id == NONE {
            return;
        }
        self.with(id, |followed| {
            if followed.time != time {
                return None;
            }
            followed.part("send", start, clock::now());
            followed.awaits.video = false;
            if let Some(latency) = latency {
                followed.samples.push((path("video"), latency));
            }
            let outcome = if latency.is_some() { "returned" } else { "unsent" };
            (!followed.awaits.result).then_some(outcome)
        });
    }

    /// A newer frame has its result: what was to become of this one has.
    fn passed(&self, id: u64, by: u64) {
        self.with(id, |followed| {
            followed.awaits.result = false;
            // A frame may be encoded or sent while the next one's result is told, but not longer.
            let is_lost = !followed.awaits.video || by > id + 30;
            is_lost.then_some("lost")
        });
    }

    /// Works on the frame of this number, if it is the one; it is handed on once it is said to be over.
    fn with(&self, id: u64, work: impl FnOnce(&mut Followed) -> Option<&'static str>) {
        if id == NONE || self.id.load(Ordering::Acquire) != id {
            return;
        }
        let mut frame = self.lock();
        let Some(followed) = frame.as_mut().filter(|followed| followed.id == id) else { return };
        let Some(outcome) = work(followed) else { return };
        let done = frame.take();
        self.id.store(NONE, Ordering::Release);
        drop(frame);
        if let Some(followed) = done {
            self.hand_on(followed, outcome);
        }
    }

    fn hand_on(&self, followed: Followed, outcome: &'static str) {
        let Followed { mut span, parts, samples, .. } = followed;
        span.attributes.push(("saccade.outcome", outcome.into()));
        span.end = parts.iter().map(|part| part.end).max().map_or(span.end, |end| end.max(span.end));
        let (trace_id, now) = (span.context.trace_id().to_string(), clock::wall());
        for (series, took) in samples {
            exemplars::record(series, took.as_secs_f64(), trace_id.clone(), now);
        }
        let mut spans = parts;
        spans.insert(0, span);
        self.tracer.send(spans);
    }

    fn lock(&self) -> MutexGuard<'_, Option<Followed>> {
        self.frame.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        if let Some(followed) = self.lock().take() {
            self.hand_on(followed, "session_ended");
        }
    }
}

impl Followed {
    fn part(&mut self, name: &'static str, start: Instant, end: Instant) {
        self.parts.push(self.span.part(name, start, end));
    }
}

fn stage(value: &'static str) -> Series {
    Series { metric: "saccade_stage_duration_seconds", label: "stage", value }
}

fn path(value: &'static str) -> Series {
    Series { metric: "saccade_frame_latency_seconds", label: "path", value }
}

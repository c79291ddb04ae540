use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use super::{Attribute, Span, Tracer};
use crate::clock;

/// Parts of a trail at most; further ones are left out.
const MAX_PARTS: usize = 64;

/// Something that is done for a request, whose parts are told as they are done, by whoever does them. Where it is not traced
/// that costs the look at an option. Clones are of the same trail. It is handed on when it ends, at the latest when the last who
/// knows of it lets go.
#[derive(Clone, Default)]
pub struct Trail(Option<Arc<Followed>>);

struct Followed {
    tracer: Tracer,
    state: Mutex<Option<State>>,
}

struct State {
    span: Span,
    parts: Vec<Span>,
}

impl fmt::Debug for Trail {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("Trail").field(&self.0.is_some()).finish()
    }
}

impl Trail {
    /// One that nobody follows.
    #[must_use]
    pub const fn off() -> Self {
        Self(None)
    }

    /// One with this span, whose end is not known yet.
    #[must_use]
    pub fn new(tracer: &Tracer, span: Span) -> Self {
        let state = Mutex::new(Some(State { span, parts: Vec::with_capacity(8) }));
        Self(Some(Arc::new(Followed { tracer: tracer.clone(), state })))
    }

    /// A part of it is done.
    pub fn part(&self, name: &'static str, start: Instant, end: Instant) {
        self.part_with(name, start, end, Vec::new);
    }

    /// The same, with more of it.
    pub fn part_with(
        &self,
        name: &'static str,
        start: Instant,
        end: Instant,
        attributes: impl FnOnce() -> Vec<Attribute>,
    ) {
        self.with(|state| {
            if state.parts.len() < MAX_PARTS {
                let mut part = state.span.part(name, start, end);
                part.attributes = attributes();
                state.parts.push(part);
            }
        });
    }

    /// Says more of it.
    pub fn note(&self, attributes: impl FnOnce() -> Vec<Attribute>) {
        self.with(|state| state.span.attributes.extend(attributes()));
    }

    /// It is over, and failed where there is an `error`. What is told of it afterwards is left out.
    pub fn end(&self, error: Option<Cow<'static, str>>) {
        if let Some(followed) = &self.0 {
            followed.end(error);
        }
    }

    fn with(&self, work: impl FnOnce(&mut State)) {
        let Some(followed) = &self.0 else { return };
        if let Some(state) = followed.state.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            work(state);
        }
    }
}

impl Followed {
    fn end(&self, error: Option<Cow<'static, str>>) {
        let taken = self.state.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(State { mut span, parts }) = taken else { return };
        span.end = clock::now().max(span.start);
        span.error = error;
        let mut spans = Vec::with_capacity(1 + parts.len());
        spans.push(span);
        spans.extend(parts);
        self.tracer.send(spans);
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.end(Some("given up".into()));
    }
}

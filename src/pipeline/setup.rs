use std::time::Instant;

use crate::clock;
use crate::session::{Refusal, SessionId};
use crate::traces::{Context, Kind, Span, Tracer};

/// What a session's set-up passes through, in this order. A session without video ends among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Passed {
    /// Whether there is room for it, and whether its options make sense.
    Admitted,
    /// The offer is parsed, a peer made, the answer written.
    Answered,
    /// Its decoder, its place at the model and its owner are there.
    Started,
    /// The answer has all of the server's candidates.
    Gathered,
    /// ICE found a way.
    IceConnected,
    /// DTLS is through.
    Connected,
    /// The first packet of video came.
    Packet,
    /// The first frame is decoded.
    Frame,
    /// The first result is on its way.
    Result,
}

impl Passed {
    const fn name(self) -> &'static str {
        match self {
            Self::Admitted => "session.admit",
            Self::Answered => "session.answer",
            Self::Started => "session.start",
            Self::Gathered => "session.gather",
            Self::IceConnected => "session.ice",
            Self::Connected => "session.dtls",
            Self::Packet => "session.first_packet",
            Self::Frame => "session.first_frame",
            Self::Result => "session.first_result",
        }
    }
}

/// The trace of one session's set-up, from its offer to its first result. It is handed on when it is dropped, so that none
/// is lost, however the session ends.
pub(super) struct Setup {
    tracer: Tracer,
    root: Span,
    parts: Vec<Span>,
    last: Option<Passed>,
    /// When that was.
    at: Instant,
}

impl Setup {
    /// One that begins now, if it is to be traced.
    pub(super) fn begin(tracer: &Tracer, caller: Option<&Context>) -> Option<Box<Self>> {
        let at = clock::now();
        let context = tracer.begin(caller, at)?;
        let parent = caller.map(Context::span_id);
        let root = Span { kind: Kind::Server, ..Span::new(context, parent, "session.setup", at, at) };
        Some(Box::new(Self { tracer: tracer.clone(), root, parts: Vec::with_capacity(9), last: None, at }))
    }

    /// For traces that come from this one.
    pub(super) fn context(&self) -> Context {
        self.root.context.clone()
    }

    /// Says which session it is.
    pub(super) fn of(&mut self, id: &SessionId) {
        self.root.attributes.push(("saccade.session.id", id.as_str().to_owned().into()));
    }

    /// Says what is known once the offer is read.
    pub(super) fn with(&mut self, codec: &'static str, model: &str) {
        self.root.attributes.push(("saccade.codec", codec.into()));
        self.root.attributes.push(("saccade.model", model.to_owned().into()));
    }

    /// A step is done, that began when the one before was. Those that were done already, and those before, count no more.
    fn done(&mut self, passed: Passed) {
        if self.last.is_some_and(|last| last >= passed) {
            return;
        }
        let now = clock::now();
        self.parts.push(self.root.part(passed.name(), self.at, now));
        (self.last, self.at) = (Some(passed), now);
    }

    /// Whether there is nothing more to come.
    fn is_over(&self) -> bool {
        self.last == Some(Passed::Result)
    }
}

/// Tells a set-up that is traced how far it came; with its first result it is over.
pub(super) fn passed(setup: &mut Option<Box<Setup>>, passed: Passed) {
    if let Some(traced) = setup {
        traced.done(passed);
        if traced.is_over() {
            *setup = None;
        }
    }
}

/// Tells it why there is to be no session.
pub(super) fn refused(setup: &mut Option<Box<Setup>>, refusal: &Refusal) {
    if let Some(setup) = setup {
        setup.root.error = Some(refusal.code.as_str().into());
    }
}

impl Drop for Setup {
    fn drop(&mut self) {
        if !self.is_over() && self.root.error.is_none() {
            self.root.error = Some("the session ended before its first result".into());
        }
        self.root.end = if self.is_over() { self.at } else { clock::now() };
        let mut spans = std::mem::take(&mut self.parts);
        spans.insert(0, self.root.clone());
        self.tracer.send(spans);
    }
}

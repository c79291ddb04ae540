use std::time::Instant;

use crate::clock;
use crate::session::{Refusal, SessionId};
use crate::traces::{Context, Kind, Span, Tracer};

/// Whose set-up it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// A session's, from its offer to its first result.
    Session,
    /// A viewer's, from its offer to the first frame that is sent to it.
    Viewer,
}

impl Whose {
    const fn name(self) -> &'static str {
        match self {
            Self::Session => "session.setup",
            Self::Viewer => "viewer.setup",
        }
    }

    /// What is last.
    const fn last(self) -> Passed {
        match self {
            Self::Session => Passed::Result,
            Self::Viewer => Passed::Frame,
        }
    }

    /// What is said of one that did not come so far.
    const fn cut_short(self) -> &'static str {
        match self {
            Self::Session => "the session ended before its first result",
            Self::Viewer => "the viewer left before its first frame",
        }
    }
}

/// What a set-up passes through, in this order; a viewer's skips what it has not. A session without video ends among them.
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
    /// The first frame is decoded; of a viewer: sent.
    Frame,
    /// The first result is on its way.
    Result,
}

impl Passed {
    const fn name(self, of: Whose) -> &'static str {
        let [session, viewer] = match self {
            Self::Admitted => ["session.admit", "viewer.admit"],
            Self::Answered => ["session.answer", "viewer.answer"],
            Self::Started => ["session.start", "viewer.start"],
            Self::Gathered => ["session.gather", "viewer.gather"],
            Self::IceConnected => ["session.ice", "viewer.ice"],
            Self::Connected => ["session.dtls", "viewer.dtls"],
            Self::Packet => ["session.first_packet", "viewer.first_packet"],
            Self::Frame => ["session.first_frame", "viewer.first_frame"],
            Self::Result => ["session.first_result", "viewer.first_result"],
        };
        match of {
            Whose::Session => session,
            Whose::Viewer => viewer,
        }
    }
}

/// The trace of one set-up. It is handed on when it is dropped, so that none
/// is lost, however the session ends.
pub(super) struct Setup {
    tracer: Tracer,
    of: Whose,
    root: Span,
    parts: Vec<Span>,
    last: Option<Passed>,
    /// When that was.
    at: Instant,
}

impl Setup {
    /// One that begins now, if it is to be traced.
    pub(super) fn begin(tracer: &Tracer, of: Whose, caller: Option<&Context>) -> Option<Box<Self>> {
        let at = clock::now();
        let context = tracer.begin(caller, at)?;
        let parent = caller.map(Context::span_id);
        let root = Span { kind: Kind::Server, ..Span::new(context, parent, of.name(), at, at) };
        Some(Box::new(Self { tracer: tracer.clone(), of, root, parts: Vec::with_capacity(9), last: None, at }))
    }

    /// For traces that come from this one.
    pub(super) fn context(&self) -> Context {
        self.root.context.clone()
    }

    /// Says which session it is, or is of.
    pub(super) fn of(&mut self, id: &SessionId) {
        self.root.attributes.push(("saccade.session.id", id.as_str().to_owned().into()));
    }

    /// Says which viewer it is.
    pub(super) fn of_viewer(&mut self, id: &SessionId) {
        self.root.attributes.push(("saccade.viewer.id", id.as_str().to_owned().into()));
    }

    /// Says which trace this one comes from.
    pub(super) fn link(&mut self, context: Option<Context>) {
        self.root.link = context;
    }

    /// Says what is known once the offer is read.
    pub(super) fn with(&mut self, codec: &'static str, model: &str) {
        self.with_codec(codec);
        self.root.attributes.push(("saccade.model", model.to_owned().into()));
    }

    /// Says in which codec the video is.
    pub(super) fn with_codec(&mut self, codec: &'static str) {
        self.root.attributes.push(("saccade.codec", codec.into()));
    }

    /// A step is done, that began when the one before was. Those that were done already, and those before, count no more.
    fn done(&mut self, passed: Passed) {
        if self.last.is_some_and(|last| last >= passed) {
            return;
        }
        let now = clock::now();
        self.parts.push(self.root.part(passed.name(self.of), self.at, now));
        (self.last, self.at) = (Some(passed), now);
    }

    /// Whether there is nothing more to come.
    fn is_over(&self) -> bool {
        self.last == Some(self.of.last())
    }
}

/// Tells a set-up that is traced how far it came; with what is last it is over.
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
            self.root.error = Some(self.of.cut_short().into());
        }
        self.root.end = if self.is_over() { self.at } else { clock::now() };
        let mut spans = std::mem::take(&mut self.parts);
        spans.insert(0, self.root.clone());
        self.tracer.send(spans);
    }
}

use std::borrow::Cow;
use std::time::Instant;

use super::{Context, SpanId};

/// What a span says of itself beside its name.
pub type Attribute = (&'static str, Value);

/// Value of an [`Attribute`].
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A text.
    Text(Cow<'static, str>),
    /// A whole number.
    Int(i64),
    /// Another number.
    Float(f64),
    /// Yes or no.
    Flag(bool),
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Int(number.into())
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<usize> for Value {
    fn from(number: usize) -> Self {
        Self::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

/// What a span is to whoever asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Something of the server's own.
    Internal,
    /// The answer to a request of somebody else.
    Server,
}

/// Something that took from one time to another, and is over.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// Which one it is, and of which trace.
    pub context: Context,
    /// The span that it is a part of.
    pub parent: Option<SpanId>,
    /// What was done: few names, without ids.
    pub name: Cow<'static, str>,
    /// What it is to whoever asked.
    pub kind: Kind,
    /// When it began.
    pub start: Instant,
    /// When it was over; not before `start`.
    pub end: Instant,
    /// More of it.
    pub attributes: Vec<Attribute>,
    /// Another trace that this one comes from.
    pub link: Option<Context>,
    /// Why it failed, if it did.
    pub error: Option<Cow<'static, str>>,
}

impl Span {
    /// One without attributes, which did not fail.
    #[must_use]
    pub fn new(
        context: Context,
        parent: Option<SpanId>,
        name: impl Into<Cow<'static, str>>,
        start: Instant,
        end: Instant,
    ) -> Self {
        let (name, end) = (name.into(), end.max(start));
        let (attributes, link, error) = (Vec::new(), None, None);
        Self { context, parent, name, kind: Kind::Internal, start, end, attributes, link, error }
    }

    /// A part of this one.
    #[must_use]
    pub fn part(&self, name: &'static str, start: Instant, end: Instant) -> Self {
        Self::new(self.context.child(), Some(self.context.span_id()), name, start, end)
    }
}

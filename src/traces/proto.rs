//! The parts of OTLP's protobuf messages that are written and read here; numbers and names are those of
//! `opentelemetry/proto/trace/v1/trace.proto` and its neighbours (OTLP 1.x, which keeps them).

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use prost::{Message, Oneof};

use super::{Kind, Span as Made, Value};

#[derive(Clone, PartialEq, Message)]
pub(super) struct ExportTraceServiceRequest {
    #[prost(message, repeated, tag = "1")]
    pub(super) resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ExportTraceServiceResponse {
    #[prost(message, optional, tag = "1")]
    pub(super) partial_success: Option<PartialSuccess>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PartialSuccess {
    #[prost(int64, tag = "1")]
    pub(super) rejected_spans: i64,
    #[prost(string, tag = "2")]
    pub(super) error_message: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    pub(super) resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    pub(super) scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Resource {
    #[prost(message, repeated, tag = "1")]
    pub(super) attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ScopeSpans {
    #[prost(message, optional, tag = "1")]
    pub(super) scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    pub(super) spans: Vec<Span>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Scope {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) version: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Span {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span_id: Vec<u8>,
    #[prost(string, tag = "3")]
    trace_state: String,
    #[prost(bytes = "vec", tag = "4")]
    parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(int32, tag = "6")]
    kind: i32,
    #[prost(fixed64, tag = "7")]
    start_time_unix_nano: u64,
    #[prost(fixed64, tag = "8")]
    end_time_unix_nano: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
    #[prost(message, repeated, tag = "13")]
    links: Vec<Link>,
    #[prost(message, optional, tag = "15")]
    status: Option<Status>,
    #[prost(fixed32, tag = "16")]
    flags: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Link {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span_id: Vec<u8>,
    #[prost(string, tag = "3")]
    trace_state: String,
    #[prost(fixed32, tag = "6")]
    flags: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Status {
    #[prost(string, tag = "2")]
    message: String,
    #[prost(int32, tag = "3")]
    code: i32,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct AnyValue {
    #[prost(oneof = "Any", tags = "1, 2, 3, 4")]
    value: Option<Any>,
}

#[derive(Clone, PartialEq, Oneof)]
pub(super) enum Any {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(bool, tag = "2")]
    Flag(bool),
    #[prost(int64, tag = "3")]
    Int(i64),
    #[prost(double, tag = "4")]
    Float(f64),
}

/// `SPAN_KIND_INTERNAL` and `SPAN_KIND_SERVER`.
const KINDS: [i32; 2] = [1, 2];
/// `STATUS_CODE_ERROR`.
const ERROR: i32 = 2;
/// Sampled (W3C Trace Context section 3.2.2.5.1).
const SAMPLED: u32 = 1;

/// Two clocks at one moment, by which times of one are those of the other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clocks {
    pub(super) monotonic: Instant,
    pub(super) wall: SystemTime,
}

impl Clocks {
    /// Nanoseconds since 1970.
    fn nanos(&self, at: Instant) -> u64 {
        let wall = match self.monotonic.checked_duration_since(at) {
            Some(ago) => self.wall.checked_sub(ago),
            None => self.wall.checked_add(at.saturating_duration_since(self.monotonic)),
        };
        let since = wall.and_then(|wall| wall.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }
}

impl KeyValue {
    pub(super) fn new(key: &str, value: Value) -> Self {
        let value = match value {
            Value::Text(text) => Any::Text(text.into_owned()),
            Value::Int(number) => Any::Int(number),
            Value::Float(number) => Any::Float(number),
            Value::Flag(flag) => Any::Flag(flag),
        };
        Self { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }) }
    }
}

impl Span {
    pub(super) fn new(made: Made, clocks: &Clocks) -> Self {
        let Made { context, parent, name, kind, start, end, attributes, link, error } = made;
        Self {
            trace_id: context.trace_id().bytes().to_vec(),
            span_id: context.span_id().bytes().to_vec(),
            trace_state: context.state().to_owned(),
            parent_span_id: parent.map(|id| id.bytes().to_vec()).unwrap_or_default(),
            name: name.into_owned(),
            kind: KINDS[usize::from(kind == Kind::Server)],
            start_time_unix_nano: clocks.nanos(start),
            end_time_unix_nano: clocks.nanos(end),
            attributes: attributes.into_iter().map(|(key, value)| KeyValue::new(key, value)).collect(),
            links: link
                .map(|link| Link {
                    trace_id: link.trace_id().bytes().to_vec(),
                    span_id: link.span_id().bytes().to_vec(),
                    trace_state: link.state().to_owned(),
                    flags: SAMPLED,
                })
                .into_iter()
                .collect(),
            status: error.map(|message| Status { message: message.into_owned(), code: ERROR }),
            flags: SAMPLED,
        }
    }
}

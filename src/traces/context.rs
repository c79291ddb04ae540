use std::fmt;
use std::fmt::Write as _;
use std::sync::Arc;

/// Bytes of a `tracestate` that is passed on; the standard asks for 512 at least.
const MAX_STATE: usize = 2048;
/// Its members (W3C Trace Context section 3.3.1.1).
const MAX_MEMBERS: usize = 32;

/// Id of a trace: 16 bytes, not all zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TraceId([u8; 16]);

/// Id of a span: 8 bytes, not all zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpanId([u8; 8]);

impl TraceId {
    /// A random one.
    #[must_use]
    pub fn random() -> Self {
        Self(random())
    }

    /// Its bytes.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl SpanId {
    /// A random one.
    #[must_use]
    pub fn random() -> Self {
        Self(random())
    }

    /// Its bytes.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; 8] {
        &self.0
    }
}

/// Where the system has no randomness, which is not to be, all ids are the same one; they are no secret.
fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    let _ = getrandom::fill(&mut bytes);
    if bytes.iter().all(|byte| *byte == 0) {
        bytes[N - 1] = 1;
    }
    bytes
}

impl fmt::Display for TraceId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, out)
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, out)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, out)
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, out)
    }
}

fn hex(bytes: &[u8], out: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
}

/// A span as others are told of it (W3C Trace Context).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    trace_id: TraceId,
    span_id: SpanId,
    is_sampled: bool,
    state: Option<Arc<str>>,
}

impl Context {
    /// The first span of a new trace, which is sampled.
    #[must_use]
    pub fn root() -> Self {
        Self { trace_id: TraceId::random(), span_id: SpanId::random(), is_sampled: true, state: None }
    }

    /// A span of the same trace, to be told of as sampled, too.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { span_id: SpanId::random(), is_sampled: true, ..self.clone() }
    }

    /// The same, for those who are not to make spans of their own.
    #[must_use]
    pub fn unsampled(self) -> Self {
        Self { is_sampled: false, ..self }
    }

    /// What a caller says in `traceparent` and `tracestate` (W3C Trace Context sections 3.2 and 3.3), the lines of the latter
    /// put together with commas. `None` where the first cannot be read; where the second cannot, it is left out.
    #[must_use]
    pub fn parse(traceparent: &str, tracestate: Option<&str>) -> Option<Self> {
        let text = traceparent.trim_matches([' ', '\t']);
        let (known, rest) = (text.get(..55)?, text.get(55..)?);
        let mut parts = known.split('-');
        let [version]: [u8; 1] = bytes(parts.next()?)?;
        let trace_id: [u8; 16] = bytes(parts.next()?)?;
        let span_id: [u8; 8] = bytes(parts.next()?)?;
        let [flags]: [u8; 1] = bytes(parts.next()?)?;
        // Later versions may have more behind.
        let is_whole = rest.is_empty() || (version != 0 && rest.starts_with('-'));
        let is_there = trace_id.iter().any(|byte| *byte != 0) && span_id.iter().any(|byte| *byte != 0);
        (version != 0xff && parts.next().is_none() && is_whole && is_there).then(|| Self {
            trace_id: TraceId(trace_id),
            span_id: SpanId(span_id),
            is_sampled: flags & 1 == 1,
            state: tracestate.and_then(state),
        })
    }

    /// As `traceparent` says it to others.
    #[must_use]
    pub fn parent(&self) -> String {
        format!("00-{}-{}-0{}", self.trace_id, self.span_id, u8::from(self.is_sampled))
    }

    /// Id of the trace.
    #[must_use]
    pub const fn trace_id(&self) -> TraceId {
        self.trace_id
    }

    /// Id of the span.
    #[must_use]
    pub const fn span_id(&self) -> SpanId {
        self.span_id
    }

    /// Whether its spans are kept.
    #[must_use]
    pub const fn is_sampled(&self) -> bool {
        self.is_sampled
    }

    /// What vendors of tracing add, passed on as it came.
    #[must_use]
    pub fn state(&self) -> &str {
        self.state.as_deref().unwrap_or_default()
    }
}

/// Lower-case hexadecimal digits, two a byte.
fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |one: u8| match one {
        b'0'..=b'9' => Some(one - b'0'),
        b'a'..=b'f' => Some(one - b'a' + 10),
        _ => None,
    };
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

/// The members of a `tracestate`, if they all are what the standard allows.
fn state(text: &str) -> Option<Arc<str>> {
    if text.len() > MAX_STATE {
        return None;
    }
    let mut keys: Vec<&str> = Vec::new();
    let mut kept = String::new();
    for member in text.split(',').map(|member| member.trim_matches([' ', '\t'])).filter(|member| !member.is_empty()) {
        let (key, value) = member.split_once('=')?;
        if keys.len() == MAX_MEMBERS || keys.contains(&key) || !is_key(key) || !is_value(value) {
            return None;
        }
        let comma = if kept.is_empty() { "" } else { "," };
        let _ = write!(kept, "{comma}{key}={value}");
        keys.push(key);
    }
    (!kept.is_empty()).then(|| kept.into())
}

fn is_key(key: &str) -> bool {
    let word = |word: &str, most: usize, digit_first: bool| {
        let first = |one: u8| one.is_ascii_lowercase() || (digit_first && one.is_ascii_digit());
        let later = |one: u8| one.is_ascii_lowercase() || one.is_ascii_digit() || b"_-*/".contains(&one);
        word.len() <= most && word.bytes().next().is_some_and(first) && word.bytes().all(later)
    };
    match key.split_once('@') {
        None => word(key, 256, false),
        Some((tenant, system)) => word(tenant, 241, true) && word(system, 14, false),
    }
}

fn is_value(value: &str) -> bool {
    let allowed = |one: u8| (0x20..=0x7e).contains(&one) && one != b'=';
    !value.is_empty() && value.len() <= 256 && value.bytes().all(allowed)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_caller_is_read_as_the_standard_says() {
        let context = Context::parse(GOOD, Some("rojo=00f067aa0ba902b7, congo=t61rcWkgMzE")).unwrap();
        assert_eq!(context.trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(context.span_id().to_string(), "b7ad6b7169203331");
        assert!(context.is_sampled());
        assert_eq!(context.state(), "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE");
        let sampled = |text: &str| Context::parse(text, None).map(|context| context.is_sampled());
        assert_eq!(sampled(&GOOD.replace("-01", "-00")), Some(false));
        assert_eq!(sampled(&GOOD.replace("-01", "-03")), Some(true));
        // A later version may have more, after another dash.
        assert_eq!(sampled(&GOOD.replacen("00", "cc", 1)), Some(true));
        assert_eq!(sampled(&format!("{}-what-else", GOOD.replacen("00", "cc", 1))), Some(true));
    }

    #[test]
    fn it_is_passed_on_as_it_came() {
        for text in [GOOD.to_owned(), GOOD.replace("-01", "-00")] {
            assert_eq!(Context::parse(&text, None).unwrap().parent(), text);
        }
    }

    #[test]
    fn what_is_no_context_is_ignored() {
        let zero = |digits: usize| "0".repeat(digits);
        for bad in [
            String::new(),
            "00".into(),
            GOOD.to_uppercase(),
            format!("{GOOD}-"),
            format!("{GOOD}x"),
            GOOD.replacen("00", "ff", 1),
            GOOD.replacen("00", "cc", 1) + "x",
            GOOD.replace("0af7651916cd43dd8448eb211c80319c", &zero(32)),
            GOOD.replace("b7ad6b7169203331", &zero(16)),
            GOOD.replace('-', "_"),
            GOOD.replace("b7ad6b7169203331", "b7ad6b716920333é"),
            GOOD.replacen("0af7", "0afg", 1),
        ] {
            assert_eq!(Context::parse(&bad, None), None, "{bad:?}");
        }
    }

    #[test]
    fn a_state_that_is_wrong_is_left_out_and_the_caller_is_not() {
        let state = |text: &str| Context::parse(GOOD, Some(text)).unwrap().state().to_owned();
        for (text, kept) in [
            ("a=1,,b=2", "a=1,b=2"),
            ("1tenant@system=x", "1tenant@system=x"),
            ("a=with space", "a=with space"),
            ("", ""),
        ] {
            assert_eq!(state(text), kept);
        }
        let many = (0..33).map(|number| format!("k{number}=v")).collect::<Vec<_>>().join(",");
        let long = format!("a={}", "v".repeat(257));
        for bad in ["a", "A=1", "1=1", "a=1,a=2", "a=b=c", "a=", "a@B=1", "a=é", &many, &long] {
            assert_eq!(state(bad), "", "{bad:?}");
        }
    }

    #[test]
    fn ids_are_never_nothing() {
        let context = Context::root();
        let child = context.child();
        assert_eq!(child.trace_id(), context.trace_id());
        assert_ne!(child.span_id(), context.span_id());
        assert_ne!(context.trace_id(), Context::root().trace_id());
        assert!(!child.unsampled().is_sampled());
    }
}

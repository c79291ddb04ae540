//! What callers say of their traces.

use saccade::traces::Context;

/// Headers of W3C Trace Context, and others that are nearly such.
pub(crate) const SEEDS: [&str; 6] = [
    "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\nrojo=00f067aa0ba902b7,congo=t61rcWkgMzE",
    "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
    "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what-else\n1tenant@system=a b , ,b/c*d_e-f=~",
    "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\na=1",
    "00-00000000000000000000000000000000-b7ad6b7169203331-01\na=1,a=2",
    "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
];

/// A `traceparent`, and on further lines a `tracestate`: it is read or ignored; what is read is never nothing, is within its
/// bounds, and written again is read the same.
pub(crate) fn context(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (parent, state) = text.split_once('\n').map_or((text, None), |(parent, state)| (parent, Some(state)));
    let Some(context) = Context::parse(parent, state) else { return };
    assert!(context.trace_id().bytes().iter().any(|byte| *byte != 0));
    assert!(context.span_id().bytes().iter().any(|byte| *byte != 0));
    assert!(context.state().len() <= 2048 && context.state().split(',').count() <= 32);
    assert!(context.state().bytes().all(|byte| (0x20..0x7f).contains(&byte)));
    let flags = u8::from(context.is_sampled());
    let again = format!("00-{}-{}-{flags:02x}", context.trace_id(), context.span_id());
    assert_eq!(Context::parse(&again, Some(context.state())), Some(context));
}

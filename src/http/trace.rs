use axum::extract::{MatchedPath, Request, State};
use axum::http::HeaderMap;
use axum::middleware::Next;
use axum::response::Response;

use crate::clock;
use crate::traces::{Context as TraceContext, Kind, Span, Tracer, Trail};

/// What a client says of the span that it asks in (W3C Trace Context section 3.2), where it can be read.
pub(super) fn caller(headers: &HeaderMap) -> Option<TraceContext> {
    let mut parents = headers.get_all("traceparent").iter();
    let (parent, None) = (parents.next()?.to_str().ok()?, parents.next()) else { return None };
    let states: Option<Vec<&str>> = headers.get_all("tracestate").iter().map(|line| line.to_str().ok()).collect();
    TraceContext::parse(parent, states.map(|lines| lines.join(",")).as_deref())
}

/// What a client says of it in a message, likewise.
pub(super) fn caller_in(traceparent: Option<&str>, tracestate: Option<&str>) -> Option<TraceContext> {
    TraceContext::parse(traceparent?, tracestate)
}

/// Makes a span of a request whose sender traces it, and has what it leads to be parts of that. To be laid around routes where
/// traces go somewhere.
pub(super) async fn trace(State(tracer): State<Tracer>, mut request: Request, next: Next) -> Response {
    let Some(caller) = caller(request.headers()) else { return next.run(request).await };
    let start = clock::now();
    let Some(span) = tracer.request(&caller, start) else {
        request.extensions_mut().insert(caller.unsampled());
        return next.run(request).await;
    };
    let route = request.extensions().get::<MatchedPath>().map_or("static", |path| path.as_str()).to_owned();
    let method = super::measure::method_label(request.method());
    request.extensions_mut().insert(span.clone());
    let mut span = Span::new(span, Some(caller.span_id()), format!("{method} {route}"), start, start);
    span.kind = Kind::Server;
    span.attributes = vec![("http.request.method", method.into()), ("http.route", route.into())];
    // Handed on as well where the client goes away, or the handler panics.
    let trail = Trail::new(&tracer, span);
    let response = next.run(request).await;
    let status = response.status();
    trail.note(|| vec![("http.response.status_code", u32::from(status.as_u16()).into())]);
    trail.end(status.is_server_error().then(|| status.canonical_reason().unwrap_or("error").into()));
    response
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn one_parent_is_taken_and_lines_of_state_are_put_together() {
        const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let read = |lines: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                headers.append(*name, HeaderValue::from_static(value));
            }
            caller(&headers)
        };
        let found = read(&[("traceparent", PARENT), ("tracestate", "a=1"), ("tracestate", "b=2")]).unwrap();
        assert_eq!(found.state(), "a=1,b=2");
        assert!(read(&[("traceparent", PARENT), ("traceparent", PARENT)]).is_none());
        assert!(read(&[("tracestate", "a=1")]).is_none());
    }
}

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use saccade_signaling::ErrorCode;

use super::{Context, Problem};

/// What every request has to pass: the server's own name, a page that may use it, and the deadline of its answer.
pub(super) async fn guard(State(context): State<Arc<Context>>, request: Request, next: Next) -> Response {
    let (headers, method) = (request.headers(), request.method());
    let authority = request.uri().authority().and_then(|name| name.as_str().parse().ok());
    let host = headers.get(header::HOST).cloned().or(authority);
    if !context.origins.allows_host(host.as_ref()) {
        let detail = "This server answers to loopback names only; set `http.public_url` to the name in use.";
        return Problem::new(ErrorCode::Forbidden, detail).with_status(StatusCode::MISDIRECTED_REQUEST).into_response();
    }
    // A foreign page can read nothing without CORS, but it can send: sockets and requests that change something.
    let acts =
        headers.contains_key(header::UPGRADE) || !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    if acts && headers.get(header::ORIGIN).is_some_and(|origin| !context.origins.allows(origin, host.as_ref())) {
        let detail = "Pages of this origin may not use the server; add it to `http.allowed_origins`.";
        return Problem::new(ErrorCode::Forbidden, detail).into_response();
    }
    match tokio::time::timeout(context.settings.request_timeout, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::new(ErrorCode::Internal, "The answer took too long; try again.")
            .with_status(StatusCode::SERVICE_UNAVAILABLE)
            .into_response(),
    }
}

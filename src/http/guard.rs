use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use saccade_signaling::ErrorCode;

use super::address::{ClientAddress, counted};
use super::listen::Arrival;
use super::{Context, Gate, Problem};
use crate::clock;
use crate::session::Refusal;

/// What every request has to pass: the rate of its address, the server's own name, a page that may use it, and the
/// deadline of its answer.
pub(super) async fn guard(State(context): State<Arc<Context>>, mut request: Request, next: Next) -> Response {
    if let Some(refusal) = refused(&context, &mut request) {
        return refusal;
    }
    let Ok(host) = called(&request) else {
        let detail = "The request names its host twice, in different words, or with a user; name it once.";
        return Problem::new(ErrorCode::BadRequest, detail).into_response();
    };
    // Whoever asks for it further on finds it in one place.
    if let Some(host) = &host {
        request.headers_mut().insert(header::HOST, host.clone());
    }
    let (headers, method) = (request.headers(), request.method());
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

/// A request says in several ways how it calls the server.
struct Ambiguous;

/// How a request calls the server: as its target does (`:authority`, RFC 9113 section 8.3.1; the absolute form, RFC 9112
/// section 3.2.2), else by its `Host`.
fn called(request: &Request) -> Result<Option<HeaderValue>, Ambiguous> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let (host, another) = (hosts.next(), hosts.next());
    let target = request.uri().authority().map(|authority| HeaderValue::from_str(authority.as_str()));
    let target = target.transpose().map_err(|_| Ambiguous)?;
    let differ = host.zip(target.as_ref()).is_some_and(|(host, target)| {
        request.version() == Version::HTTP_2 && !host.as_bytes().eq_ignore_ascii_case(target.as_bytes())
    });
    let name = target.or_else(|| host.cloned());
    if another.is_some() || differ || name.as_ref().is_some_and(|name| name.as_bytes().contains(&b'@')) {
        return Err(Ambiguous);
    }
    Ok(name)
}

/// Holds preflights to the rate of their address; to be laid around the layer that answers them.
pub(super) async fn preflight(State(context): State<Arc<Context>>, mut request: Request, next: Next) -> Response {
    let is_preflight = *request.method() == Method::OPTIONS;
    match is_preflight.then(|| refused(&context, &mut request)).flatten() {
        Some(refusal) => refusal,
        None => next.run(request).await,
    }
}

/// What a request is answered whose address asks too often; else the address is known from then on.
fn refused(context: &Context, request: &mut Request) -> Option<Response> {
    let arrival = request.extensions().get::<Arrival>().copied()?;
    if let Some(wait) = arrival.refused {
        let mut response = too_often("connections", wait).into_response();
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        return Some(response);
    }
    let gate = &context.settings.gate;
    let client = gate.proxies().client(arrival.peer, request.headers());
    if let Err(wait) = gate.request(clock::now(), client) {
        return Some(too_often("requests", wait).into_response());
    }
    request.extensions_mut().insert(ClientAddress(counted(client)));
    None
}

/// How long a request has to wait whose address asks or connects too often.
pub(super) fn wait_before_next(gate: &Gate, request: &Request) -> Option<Duration> {
    let arrival = request.extensions().get::<Arrival>()?;
    let client = gate.proxies().client(arrival.peer, request.headers());
    arrival.refused.or_else(|| gate.request(clock::now(), client).err())
}

fn too_often(what: &str, wait: Duration) -> Problem {
    let detail = format!("Too many {what} come from this address; wait as long as `retry-after` says.");
    Refusal::new(ErrorCode::RateLimited, detail).retry_after(wait).into()
}

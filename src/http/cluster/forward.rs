use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use saccade_signaling::ErrorCode;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{CONNECT_LIMIT, Forwarding, count, covered, session_of};
use crate::cluster::{self, Found, Owner};
use crate::http::address::ClientAddress;
use crate::http::{Context, Problem, body};
use crate::session::Refusal;
use crate::traces::Context as TraceContext;

/// How long an owner may say nothing in the middle of an answer; streams of events are never silent for as long.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);
/// When to ask again after a failure that passes.
const RETRY_AFTER: Duration = Duration::from_secs(1);
const KIND: &str = "http";

/// Has the owner of a session answer, where that is another server. What is asked of this server's own sessions, of none,
/// and by whoever may not know of the session is answered here.
pub(in crate::http) async fn forward(State(context): State<Arc<Context>>, request: Request, next: Next) -> Response {
    let Some(forwarding) = &context.forwarding else { return next.run(request).await };
    let Some(id) = elsewhere(&context, &request) else { return next.run(request).await };
    match forwarding.cluster.directory().find(&id).await {
        Ok(Found::Nowhere) => {
            count(KIND, "nowhere");
            next.run(request).await
        }
        Ok(Found::Elsewhere(owner)) => {
            // A client that goes away takes what it asked for with it.
            let answered = Box::pin(hand_over(&context, forwarding, &owner, request)).await;
            answered.unwrap_or_else(IntoResponse::into_response)
        }
        Err(_) => {
            count(KIND, "unknown");
            let detail = "Which server has this session is not known just now; try again.";
            busy(detail).into_response()
        }
    }
}

/// The session that a request is about, if it is none of this server and may be asked for.
fn elsewhere(context: &Context, request: &Request) -> Option<String> {
    let takes = [Method::GET, Method::HEAD, Method::POST, Method::PATCH, Method::DELETE];
    let id = session_of(request.uri().path()).filter(|_| takes.contains(request.method()))?;
    if context.registry.get(id).is_some() {
        return None;
    }
    // The owner checks the token as for any request. Who has none costs neither it nor the registry anything.
    let claims = context.stream_claims(request.headers(), request.uri()).ok()?;
    claims.may_know(id).then(|| id.to_owned())
}

async fn hand_over(
    context: &Context,
    forwarding: &Forwarding,
    owner: &Owner,
    request: Request,
) -> Result<Response, Problem> {
    let place = Arc::clone(&forwarding.places).try_acquire_owned().map_err(|_| {
        count(KIND, "full");
        busy("Too many requests are forwarded to other servers; try again.")
    })?;
    let (parts, body) = request.into_parts();
    // All that is asked of sessions is descriptions of them and fragments of such.
    let most = context.settings.limits.sdp_bytes;
    let body = body::read(body, most).await?.ok_or_else(|| {
        count(KIND, "too_large");
        Problem::new(ErrorCode::TooLarge, format!("The session description may have {most} bytes."))
    })?;
    let request = addressed(forwarding, owner, &parts, body)?;
    let (response, driver) = match ask(owner, request).await {
        Ok(answered) => answered,
        Err(Failed::Gone) => {
            count(KIND, "gone");
            tracing::warn!(owner = owner.name, "the owner of a session cannot be reached");
            return Err(Problem::no_such_session());
        }
        Err(Failed::Broken) => {
            count(KIND, "broken");
            return Err(busy("The server that has this session broke off; try again."));
        }
    };
    if let Some(reason) = response.headers().get(cluster::REFUSED) {
        count(KIND, "refused");
        tracing::error!(owner = owner.name, ?reason, "another server does not believe this one");
        return Err(busy("The servers do not know each other; tell their operator."));
    }
    count(KIND, "answered");
    let (head, body) = response.into_parts();
    let mut answer = Body::from_stream(streamed(body, (driver, place))).into_response();
    *answer.status_mut() = head.status;
    *answer.headers_mut() = passed_on(&head.headers);
    Ok(answer)
}

/// The request as it goes to the owner, with its proof.
fn addressed(
    forwarding: &Forwarding,
    owner: &Owner,
    parts: &Parts,
    body: Vec<u8>,
) -> Result<hyper::Request<Full<Bytes>>, Problem> {
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    let mut headers = passed_on(&parts.headers);
    // It is said anew; with none, there is no body.
    headers.remove(header::CONTENT_LENGTH);
    headers.remove(header::EXPECT);
    // What the owner does is a part of this server's span.
    if let Some(span) = parts.extensions.get::<TraceContext>()
        && let Ok(parent) = HeaderValue::try_from(span.parent())
    {
        headers.insert(HeaderName::from_static("traceparent"), parent);
    }
    let signed = cluster::Request {
        method: parts.method.as_str(),
        target,
        host: &covered(&headers, &header::HOST),
        authorization: &covered(&headers, &header::AUTHORIZATION),
        body: &body,
    };
    let failed = |error: String| {
        count(KIND, "failed");
        tracing::error!(error, "a request cannot be forwarded");
        busy("The request could not be forwarded; try again.")
    };
    let client = ClientAddress::of(&parts.extensions);
    let proof = forwarding.cluster.sign(owner, &signed, client).map_err(|error| failed(error.to_string()))?;
    let proof = HeaderValue::try_from(proof).map_err(|error| failed(error.to_string()))?;
    headers.insert(HeaderName::from_static(cluster::HEADER), proof);
    let mut request = hyper::Request::new(Full::new(Bytes::from(body)));
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = target.parse().map_err(|_| failed("its path".to_owned()))?;
    *request.headers_mut() = headers;
    Ok(request)
}

/// Why an owner gave no answer.
enum Failed {
    /// Nobody is there.
    Gone,
    /// It went away, or does not speak HTTP.
    Broken,
}

/// The head of the owner's answer; the caller bounds how long that may take. What drives the connection is to be kept
/// until the body was read.
async fn ask(
    owner: &Owner,
    request: hyper::Request<Full<Bytes>>,
) -> Result<(hyper::Response<Incoming>, JoinSet<()>), Failed> {
    let connected = timeout(CONNECT_LIMIT, TcpStream::connect(owner.authority())).await;
    let stream = connected.ok().and_then(Result::ok).ok_or(Failed::Gone)?;
    stream.set_nodelay(true).ok();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|_| Failed::Broken)?;
    let mut driver = JoinSet::new();
    driver.spawn(async move {
        // How it ended shows in the answer.
        let _ = connection.await;
    });
    let response = sender.send_request(request).await.map_err(|_| Failed::Broken)?;
    Ok((response, driver))
}

/// The owner's body, piece by piece as the client takes it. `held` is given back at its end.
fn streamed(
    body: Incoming,
    held: (JoinSet<()>, OwnedSemaphorePermit),
) -> impl stream::Stream<Item = io::Result<Bytes>> + Send + 'static {
    stream::unfold(Some((body, held)), async |state| {
        let (mut body, held) = state?;
        loop {
            return match timeout(SILENCE_LIMIT, body.frame()).await {
                Ok(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => Some((Ok(data), Some((body, held)))),
                    Err(_) => continue,
                },
                Ok(None) => None,
                Ok(Some(Err(error))) => Some((Err(io::Error::other(error)), None)),
                Err(_) => Some((Err(io::ErrorKind::TimedOut.into()), None)),
            };
        }
    })
}

/// Headers without those of one connection (RFC 9110 section 7.6.1) and those that only servers and proxies may write.
fn passed_on(headers: &HeaderMap) -> HeaderMap {
    let listed = headers.get_all(header::CONNECTION).into_iter().filter_map(|value| value.to_str().ok());
    let listed: Vec<_> =
        listed.flat_map(|value| value.split(',')).map(|name| name.trim().to_ascii_lowercase()).collect();
    let is_of_hop = |name: &str| {
        let known = ["connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"];
        known.contains(&name) || name.starts_with("proxy-auth") || listed.iter().any(|other| other == name)
    };
    let is_told_anew = |name: &str| {
        name == "forwarded" || name.starts_with("x-forwarded-") || name == cluster::HEADER || name == cluster::REFUSED
    };
    let kept = headers.iter().filter(|(name, _)| !is_of_hop(name.as_str()) && !is_told_anew(name.as_str()));
    let mut passed = HeaderMap::with_capacity(headers.len());
    for (name, value) in kept {
        passed.append(name, value.clone());
    }
    passed
}

fn busy(detail: &'static str) -> Problem {
    let problem: Problem = Refusal::new(ErrorCode::Internal, detail).retry_after(RETRY_AFTER).into();
    problem.with_status(StatusCode::SERVICE_UNAVAILABLE)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn headers_of_one_connection_and_of_proxies_stay_behind() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("host", "vision.example"),
            ("authorization", "Bearer t"),
            ("if-match", "\"a\""),
            ("link", "<a>"),
            ("link", "<b>"),
            ("connection", "close, X-Mine"),
            ("x-mine", "1"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("te", "trailers"),
            ("proxy-authorization", "Basic x"),
            ("x-forwarded-for", "192.0.2.9"),
            ("forwarded", "for=192.0.2.9"),
            ("saccade-forwarded", "from=a"),
        ] {
            headers.append(name, value.parse().unwrap());
        }
        let passed = passed_on(&headers);
        let mut names: Vec<_> =
            passed.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        names.sort_unstable();
        let expected = ["authorization: Bearer t", "host: vision.example", "if-match: \"a\"", "link: <a>", "link: <b>"];
        assert_eq!(names, expected);
    }
}

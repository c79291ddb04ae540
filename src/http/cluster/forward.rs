use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

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
use tokio::time::{timeout, timeout_at};

use super::{CONNECT_LIMIT, Forwarding, count, covered, is_stream, session_of};
use crate::clock;
use crate::cluster::{self, Found, Owner, Refused};
use crate::http::address::ClientAddress;
use crate::http::{Context, Problem, body};
use crate::session::Refusal;
use crate::telemetry::EverySecond;
use crate::traces::Context as TraceContext;

/// How long an owner may say nothing in the middle of an answer; streams of events are never silent for as long.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);
/// When to ask again after a failure that passes.
const RETRY_AFTER: Duration = Duration::from_secs(1);
const KIND: &str = "http";
/// Owners that are gone or silent.
static AWAY: EverySecond = EverySecond::new();
/// Owners that do not believe this server.
static REFUSED: EverySecond = EverySecond::new();

/// Has the owner of a session answer, where that is another server. What is asked of this server's own sessions, of none,
/// and by whoever may not know of the session is answered here.
pub(in crate::http) async fn forward(State(context): State<Arc<Context>>, request: Request, next: Next) -> Response {
    let Some(forwarding) = &context.forwarding else { return next.run(request).await };
    let Some(id) = elsewhere(&context, &request) else { return next.run(request).await };
    // Before whoever waits for all of it says that it took too long, so that it is known what did.
    let deadline = clock::now() + context.settings.request_timeout * 9 / 10;
    match forwarding.cluster.directory().find(&id).await {
        Ok(Found::Nowhere) => {
            count(KIND, "nowhere");
            next.run(request).await
        }
        Ok(Found::Elsewhere(owner)) => {
            // A client that goes away takes what it asked for with it.
            let answered = Box::pin(hand_over(&context, forwarding, &owner, request, deadline)).await;
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
    deadline: Instant,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    // All that is asked of sessions is descriptions of them and fragments of such.
    let most = context.settings.limits.sdp_bytes;
    let body = body::read(body, most).await?.ok_or_else(|| {
        count(KIND, "too_large");
        Problem::new(ErrorCode::TooLarge, format!("The session description may have {most} bytes."))
    })?;
    // Taken when all is here: whoever sends slowly takes no other's place.
    let place = forwarding.place(is_stream(&parts.method, parts.uri.path())).ok_or_else(|| {
        count(KIND, "full");
        busy("Too many requests are forwarded to other servers; try again.")
    })?;
    let request = addressed(forwarding, owner, &parts, body)?;
    let (response, driver) = match ask(owner, request, deadline).await {
        Ok(answered) => answered,
        Err(Failed::Gone) => {
            count(KIND, "gone");
            away(owner, "is gone");
            return Err(Problem::no_such_session());
        }
        Err(Failed::Silent) => {
            count(KIND, "silent");
            away(owner, "does not answer");
            return Err(busy("The server that has this session does not answer; try again."));
        }
        Err(Failed::Broken) => {
            count(KIND, "broken");
            return Err(busy("The server that has this session broke off; try again."));
        }
    };
    if let Some(reason) = response.headers().get(cluster::REFUSED) {
        count(KIND, "refused");
        if let Some(suppressed) = REFUSED.pass(clock::now()) {
            tracing::error!(owner = owner.name, ?reason, suppressed, "another server does not believe this one");
        }
        if reason == Refused::Full.as_str() {
            return Err(busy("Too many requests are forwarded to the server that has this session; try again."));
        }
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failed {
    /// Nobody is there.
    Gone,
    /// Nobody says anything, though the owner may well be there.
    Silent,
    /// It went away, or does not speak HTTP.
    Broken,
}

/// The head of the owner's answer. What drives the connection is to be kept until the body was read.
async fn ask(
    owner: &Owner,
    request: hyper::Request<Full<Bytes>>,
    deadline: Instant,
) -> Result<(hyper::Response<Incoming>, JoinSet<()>), Failed> {
    let connected = timeout(CONNECT_LIMIT, TcpStream::connect(owner.authority())).await;
    let stream = connected.map_err(|_| Failed::Silent)?.map_err(|_| Failed::Gone)?;
    stream.set_nodelay(true).ok();
    timeout_at(deadline.into(), exchange(stream, request)).await.unwrap_or(Err(Failed::Silent))
}

async fn exchange(
    stream: TcpStream,
    request: hyper::Request<Full<Bytes>>,
) -> Result<(hyper::Response<Incoming>, JoinSet<()>), Failed> {
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

/// Says in the log that an owner is not there, once a second at most.
fn away(owner: &Owner, what: &'static str) {
    if let Some(suppressed) = AWAY.pass(clock::now()) {
        tracing::warn!(owner = owner.name, suppressed, "the owner of a session {what}");
    }
}

fn busy(detail: &'static str) -> Problem {
    let problem: Problem = Refusal::new(ErrorCode::Internal, detail).retry_after(RETRY_AFTER).into();
    problem.with_status(StatusCode::SERVICE_UNAVAILABLE)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    async fn asked(owner: String, limit: Duration) -> Failed {
        let owner = Owner { name: "a".into(), url: format!("http://{owner}") };
        let request = hyper::Request::new(Full::new(Bytes::new()));
        ask(&owner, request, clock::now() + limit).await.map(|_| ()).unwrap_err()
    }

    #[tokio::test]
    async fn an_owner_that_is_gone_is_told_from_one_that_says_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        // The system takes connections of a process that hangs.
        assert_eq!(asked(address.clone(), Duration::from_millis(100)).await, Failed::Silent);
        let (asking, taking) = tokio::join!(asked(address.clone(), LONG), async {
            for _ in 0..2 {
                drop(listener.accept().await.unwrap());
            }
            drop(listener);
        });
        assert_eq!((asking, taking), (Failed::Broken, ()));
        assert_eq!(asked(address, LONG).await, Failed::Gone);
    }

    #[tokio::test]
    async fn a_host_that_takes_no_connection_may_have_the_session_still() {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let mut waiting = Vec::new();
        // Until the queue of connections is full.
        while let Ok(connected) = timeout(Duration::from_millis(200), TcpStream::connect(address)).await {
            waiting.push(connected.unwrap());
        }
        assert_eq!(asked(address.to_string(), LONG).await, Failed::Silent);
    }

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

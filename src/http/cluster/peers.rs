use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use metrics::counter;
use saccade_signaling::ErrorCode;
use tokio::time::timeout;

use super::{SIGNAL, covered, session_of};
use crate::clock;
use crate::cluster::{self, Refused};
use crate::http::address::ClientAddress;
use crate::http::{Context, Problem, body};
use crate::telemetry::EverySecond;

/// Requests that are not believed.
static DISBELIEVED: EverySecond = EverySecond::new();

/// Beside a request as an extension: another server forwarded it, so that this one answers it and nobody else.
#[derive(Debug, Clone, Copy)]
pub(in crate::http) struct Forwarded;

/// Lets in what one of the servers has proven to forward, and knows the client's address from it. That client's rate was
/// looked at where it came from, as were the host and the origin; its token is looked at here.
pub(in crate::http) async fn admit(State(context): State<Arc<Context>>, request: Request, next: Next) -> Response {
    let Some(forwarding) = &context.forwarding else { return nothing().into_response() };
    let (mut parts, body) = request.into_parts();
    let path = parts.uri.path();
    if session_of(path).is_none() && path != SIGNAL {
        received("unknown");
        return nothing().into_response();
    }
    let body = match body::read(body, context.settings.limits.sdp_bytes).await {
        Ok(Some(body)) => body,
        Ok(None) => {
            received("too_large");
            let detail = "The session description is larger than this server takes; limits have to be the same on all.";
            return Problem::new(ErrorCode::TooLarge, detail).into_response();
        }
        Err(problem) => return problem.into_response(),
    };
    let proof = parts.headers.remove(cluster::HEADER);
    let signed = cluster::Request {
        method: parts.method.as_str(),
        target: parts.uri.path_and_query().map_or("/", |target| target.as_str()),
        host: &covered(&parts.headers, &header::HOST),
        authorization: &covered(&parts.headers, &header::AUTHORIZATION),
        body: &body,
    };
    let proof = proof.as_ref().and_then(|proof| proof.to_str().ok()).unwrap_or_default();
    let proven = match forwarding.cluster.admit(proof, &signed) {
        Ok(proven) => proven,
        Err(refused) => return disbelieved(refused),
    };
    received("accepted");
    tracing::debug!(from = proven.from, "another server forwards a request");
    parts.extensions.insert(Forwarded);
    if let Some(client) = proven.client {
        parts.extensions.insert(ClientAddress(client));
    }
    let request = Request::from_parts(parts, Body::from(body));
    match timeout(context.settings.request_timeout, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::new(ErrorCode::Internal, "The answer took too long; try again.")
            .with_status(StatusCode::SERVICE_UNAVAILABLE)
            .into_response(),
    }
}

fn disbelieved(refused: Refused) -> Response {
    received(refused.as_str());
    if let Some(suppressed) = DISBELIEVED.pass(clock::now()) {
        let reason = refused.as_str();
        tracing::warn!(
            reason,
            suppressed,
            "a request that another server should have forwarded was refused: {refused}"
        );
    }
    let detail = "This listener takes what the servers of its cluster forward, and this request does not prove that: \
         use the public one.";
    let mut response = Problem::new(ErrorCode::Forbidden, detail).into_response();
    let reason = HeaderValue::from_static(refused.as_str());
    response.headers_mut().insert(HeaderName::from_static(cluster::REFUSED), reason);
    response
}

fn nothing() -> Problem {
    Problem::new(ErrorCode::NotFound, "There is nothing at this path.")
}

fn received(outcome: &'static str) {
    counter!("saccade_cluster_received_total", "outcome" => outcome).increment(1);
}

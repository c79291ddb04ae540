use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

use axum::Json;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, future};
use metrics::counter;
use saccade_signaling::SessionView;
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;

use super::auth::{Claims, expiry};
use super::openapi::parameters::OfSession;
use super::openapi::{NotFound, wire};
use super::{Context, Problem};
use crate::session::{EndReason, Handle};

/// What may not be kept by anybody on the way: it is old at once.
pub(super) const NO_STORE: (HeaderName, HeaderValue) = (header::CACHE_CONTROL, HeaderValue::from_static("no-store"));

/// List the sessions
///
/// Those of the server that answers, as far as the token may know of them; a camera's has the camera's name as its id.
#[utoipa::path(
    get, path = "/v1/sessions", operation_id = "list_sessions", tag = "sessions", security(("token" = ["can_view"])),
    responses((status = 200, description = "The sessions.", body = Vec<wire::SessionView>))
)]
pub(super) async fn list_sessions(
    State(context): State<Arc<Context>>,
    headers: HeaderMap,
) -> Result<([(HeaderName, HeaderValue); 1], Json<Vec<SessionView>>), Problem> {
    let claims = may_view(context.claims(&headers)?)?;
    let sessions = context.registry.list();
    let shown = sessions.iter().filter(|handle| claims.may_know(handle.id().as_str())).map(Handle::view).collect();
    Ok(([NO_STORE], Json(shown)))
}

/// Show a session
///
/// Its state, options, counters, times by stage and network path.
#[utoipa::path(
    get, path = "/v1/sessions/{id}", operation_id = "get_session", tag = "sessions", params(OfSession),
    security(("token" = ["can_view"])),
    responses((status = 200, description = "The session.", body = wire::SessionView), NotFound)
)]
pub(super) async fn session(
    State(context): State<Arc<Context>>,
    Id(id): Id,
    headers: HeaderMap,
) -> Result<([(HeaderName, HeaderValue); 1], Json<SessionView>), Problem> {
    let claims = may_view(context.claims(&headers)?)?;
    Ok(([NO_STORE], Json(context.session(&claims, &id)?.view())))
}

/// End a session
///
/// Answers when the session is over, so that the next request does not find it. A camera's session begins anew: what runs
/// of a camera is for the configuration to say. Whoever opened the session may end it without the claim.
#[utoipa::path(
    delete, path = "/v1/sessions/{id}", operation_id = "end_session", tag = "sessions", params(OfSession),
    security(("token" = ["can_configure"])), responses((status = 200, description = "It is over."), NotFound)
)]
pub(super) async fn delete_session(
    State(context): State<Arc<Context>>,
    Id(id): Id,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let claims = context.claims(&headers)?;
    let handle = context.session(&claims, &id)?;
    Claims::require(handle.may_be_ended_by(&claims), "can_configure")?;
    handle.close(EndReason::Deleted).await;
    handle.closed().await;
    Ok(StatusCode::OK)
}

/// Read a session's results
///
/// Server-Sent Events of the same JSON as the data channel, with `detections` in the session's format. A reader that does
/// not keep up loses the oldest results; the stream ends with the session, or with the token of whoever reads it.
#[utoipa::path(
    get, path = "/v1/sessions/{id}/results", operation_id = "read_results", tag = "sessions", params(OfSession),
    security(("token" = ["can_view"]), ("query_token" = ["can_view"])),
    responses(
        (
            status = 200, description = "Each `data:` is a result.",
            content((String = "text/event-stream", extensions(("x-item-schema" = json!({ "$ref": "#/components/schemas/SessionResult" })))))
        ),
        NotFound,
    )
)]
pub(super) async fn results(
    State(context): State<Arc<Context>>,
    Id(id): Id,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let claims = may_view(context.stream_claims(&headers, &uri)?)?;
    let handle = context.session(&claims, &id)?;
    Ok(stream(handle.results(), "results", handle, claims.expires))
}

/// Read a session's events
///
/// Server-Sent Events of what the `events` data channel tells. A reader that does not keep up loses the oldest events; the
/// stream ends with the session, or with the token of whoever reads it.
#[utoipa::path(
    get, path = "/v1/sessions/{id}/events", operation_id = "read_events", tag = "sessions", params(OfSession),
    security(("token" = ["can_view"]), ("query_token" = ["can_view"])),
    responses(
        (
            status = 200, description = "Each `data:` is an event.",
            content((String = "text/event-stream", extensions(("x-item-schema" = json!({ "$ref": "#/components/schemas/Event" })))))
        ),
        NotFound,
    )
)]
pub(super) async fn events(
    State(context): State<Arc<Context>>,
    Id(id): Id,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let claims = may_view(context.stream_claims(&headers, &uri)?)?;
    let handle = context.session(&claims, &id)?;
    Ok(stream(handle.events(), "events", handle, claims.expires))
}

fn stream(
    texts: broadcast::Receiver<Arc<str>>,
    stage: &'static str,
    handle: Handle,
    expires: Option<Instant>,
) -> Response {
    let lost = counter!("saccade_frames_dropped_total", "stage" => stage, "reason" => "slow_reader");
    let events = BroadcastStream::new(texts).filter_map(move |item| {
        future::ready(match item {
            Ok(json) => Some(Ok::<_, Infallible>(Event::default().data(&*json))),
            Err(tokio_stream::wrappers::errors::BroadcastStreamRecvError::Lagged(texts)) => {
                lost.increment(texts);
                None
            }
        })
    });
    let until_end = events.take_until(async move {
        tokio::select! {
            () = handle.closed() => {}
            () = expiry(expires) => {}
        }
    });
    let buffering = (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    ([NO_STORE, buffering], Sse::new(until_end).keep_alive(KeepAlive::default())).into_response()
}

/// Session id of the path. What cannot be one names no session.
pub(super) struct Id(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Path::<String>::from_request_parts(parts, state).await {
            Ok(Path(id)) => Ok(Self(id)),
            Err(_) => Err(Problem::no_such_session()),
        }
    }
}

pub(super) fn may_view(claims: Claims) -> Result<Claims, Problem> {
    Claims::require(claims.can_view, "can_view")?;
    Ok(claims)
}

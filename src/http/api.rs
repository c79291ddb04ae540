use std::convert::Infallible;
use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, future};
use metrics::counter;
use saccade_signaling::{ModelView, SessionView};
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;

use super::auth::Claims;
use super::{Context, Problem};
use crate::session::{EndReason, Handle};

/// What may not be kept by anybody on the way: it is old at once.
const NO_STORE: (HeaderName, HeaderValue) = (header::CACHE_CONTROL, HeaderValue::from_static("no-store"));

/// `GET /v1/sessions`.
pub(super) async fn list_sessions(
    State(context): State<Arc<Context>>,
    headers: HeaderMap,
) -> Result<([(HeaderName, HeaderValue); 1], Json<Vec<SessionView>>), Problem> {
    may_view(&context, &headers)?;
    Ok(([NO_STORE], Json(context.registry.list().iter().map(Handle::view).collect())))
}

/// `GET /v1/sessions/{id}`.
pub(super) async fn session(
    State(context): State<Arc<Context>>,
    Id(id): Id,
    headers: HeaderMap,
) -> Result<([(HeaderName, HeaderValue); 1], Json<SessionView>), Problem> {
    may_view(&context, &headers)?;
    let handle = context.registry.get(&id).ok_or_else(Problem::no_such_session)?;
    Ok(([NO_STORE], Json(handle.view())))
}

/// `DELETE /v1/sessions/{id}`: answers when the session is over, so that the next request does not find it.
pub(super) async fn delete_session(
    State(context): State<Arc<Context>>,
    Id(id): Id,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let claims = context.claims(&headers)?;
    let handle = context.registry.get(&id).ok_or_else(Problem::no_such_session)?;
    Claims::require(claims.may_end(handle.publisher()), "can_configure")?;
    handle.close(EndReason::Deleted).await;
    handle.closed().await;
    Ok(StatusCode::OK)
}

/// `GET /v1/sessions/{id}/results`: Server-Sent Events of the same JSON as the data channel. A reader that does not
/// keep up loses the oldest results; the stream ends with the session.
pub(super) async fn results(
    State(context): State<Arc<Context>>,
    Id(id): Id,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let handle = to_view(&context, &headers, &id)?;
    Ok(stream(handle.results(), "results", handle))
}

/// `GET /v1/sessions/{id}/events`: the same with what the `events` data channel tells.
pub(super) async fn events(
    State(context): State<Arc<Context>>,
    Id(id): Id,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let handle = to_view(&context, &headers, &id)?;
    Ok(stream(handle.events(), "events", handle))
}

fn to_view(context: &Context, headers: &HeaderMap, id: &str) -> Result<Handle, Problem> {
    may_view(context, headers)?;
    context.registry.get(id).ok_or_else(Problem::no_such_session)
}

fn stream(texts: broadcast::Receiver<Arc<str>>, stage: &'static str, handle: Handle) -> Response {
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
    let until_end = events.take_until(async move { handle.closed().await });
    let buffering = (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    ([NO_STORE, buffering], Sse::new(until_end).keep_alive(KeepAlive::default())).into_response()
}

/// `GET /v1/models`.
pub(super) async fn models(
    State(context): State<Arc<Context>>,
    headers: HeaderMap,
) -> Result<Json<Vec<ModelView>>, Problem> {
    context.claims(&headers)?;
    Ok(Json((context.models)()))
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

fn may_view(context: &Context, headers: &HeaderMap) -> Result<(), Problem> {
    let claims = context.claims(headers)?;
    Claims::require(claims.can_view, "can_view")
}

//! WebRTC-HTTP egress (WHEP, draft-ietf-wish-whep): a viewer's `POST` lets it watch a session's video; its resource takes
//! `PATCH` and `DELETE`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use saccade_signaling::ErrorCode;

use super::api::Id;
use super::auth::{Caller, Claims};
use super::{Context, Problem, whip};
use crate::session::{Refusal, Viewer, WatchRequest};

/// `POST /v1/whep/{session_id}`.
pub(super) async fn watch(
    State(context): State<Arc<Context>>,
    Caller { claims, address }: Caller,
    Id(id): Id,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    Claims::require(claims.can_view, "can_view")?;
    let session = context.session(&claims, &id)?;
    let sdp = whip::offered(&context, &headers, body).await?;
    let links = whip::links(&context, &claims);
    let request = WatchRequest { sdp, claims, address };
    let joined = tokio::time::timeout(context.settings.open_timeout, session.audience().join(request)).await;
    let joined = joined
        .unwrap_or_else(|_| Err(Refusal::new(ErrorCode::Internal, "The viewer took too long to open; try again.")));
    let (viewer, answer) = joined.map_err(|refusal| match refusal.code {
        // The session's codec is what it is: the offer is not acceptable, however it is put.
        ErrorCode::NoCommonCodec => Problem::from(refusal).with_status(StatusCode::NOT_ACCEPTABLE),
        _ => refusal.into(),
    })?;
    let path = format!("/v1/sessions/{}/viewers/{}", session.id(), viewer.id());
    Ok(whip::created(&context.absolute(&uri, &headers, &path), links, answer))
}

/// `PATCH /v1/sessions/{id}/viewers/{viewer_id}`: as that of a session.
pub(super) async fn patch_viewer(
    State(context): State<Arc<Context>>,
    ids: Result<Path<(String, String)>, axum::extract::rejection::PathRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let viewer = found(&context, &headers, ids)?;
    let patch = whip::patch_of(&context, &headers, body).await?;
    whip::patched(viewer.patch(patch).await)
}

/// `DELETE /v1/sessions/{id}/viewers/{viewer_id}`: answers when the viewer is gone, so that the next request does not
/// find it.
pub(super) async fn delete_viewer(
    State(context): State<Arc<Context>>,
    ids: Result<Path<(String, String)>, axum::extract::rejection::PathRejection>,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let viewer = found(&context, &headers, ids)?;
    viewer.close().await;
    viewer.closed().await;
    Ok(StatusCode::OK)
}

/// The viewer that is the caller's to change.
fn found(
    context: &Context,
    headers: &HeaderMap,
    ids: Result<Path<(String, String)>, axum::extract::rejection::PathRejection>,
) -> Result<Viewer, Problem> {
    let claims = context.claims(headers)?;
    let viewer = ids
        .ok()
        .and_then(|Path((session, viewer))| context.session(&claims, &session).ok()?.audience().viewer(&viewer));
    let viewer =
        viewer.ok_or_else(|| Problem::new(ErrorCode::NotFound, "There is no such viewer; it may have left."))?;
    Claims::require(claims.may_end_viewer(viewer.subject()), "can_configure")?;
    Ok(viewer)
}

//! WebRTC-HTTP egress (WHEP, draft-ietf-wish-whep): a viewer's `POST` lets it watch a session's video; its resource takes
//! `PATCH` and `DELETE`.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use saccade_signaling::ErrorCode;

use super::api::Id;
use super::auth::{Caller, Claims};
use super::openapi::parameters::{IfMatch, OfSession, OfViewer};
use super::openapi::{
    BadRequest, Conflict, NotAcceptable, NotFound, PreconditionFailed, PreconditionRequired, Slow, TooLarge,
    Unprocessable, UnsupportedType,
};
use super::{Context, Problem, whip};
use crate::session::{Refusal, Viewer, WatchRequest};
use crate::traces::Context as TraceContext;

/// Watch a session by WHEP
///
/// A viewer's offer to take the session's annotated video, which is encoded once for all. Its resource takes `PATCH` and
/// `DELETE`.
#[utoipa::path(
    post, path = "/v1/whep/{id}", operation_id = "watch", tag = "signaling", params(OfSession),
    security(("token" = ["can_view"])),
    request_body(content = String, content_type = "application/sdp", description = "The offer."),
    responses(
        (
            status = 201, description = "The answer.", content((String = "application/sdp")),
            headers(
                ("Location" = String, description = "Where it is changed and ended."),
                ("ETag" = String, description = "Of its ICE session."),
                ("Link" = String, description = "An ICE server (`rel=\"ice-server\"`), as many times as there are such."),
            )
        ),
        BadRequest, NotFound, NotAcceptable, Slow, Conflict, TooLarge, UnsupportedType, Unprocessable
    )
)]
pub(super) async fn watch(
    State(context): State<Arc<Context>>,
    Caller { claims, address }: Caller,
    span: Option<Extension<TraceContext>>,
    Id(id): Id,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    Claims::require(claims.can_view, "can_view")?;
    let session = context.session(&claims, &id)?;
    let sdp = whip::offered(&context, &headers, body).await?;
    let links = whip::links(&context, &claims);
    let request = WatchRequest { sdp, claims, address, caller: span.map(|Extension(span)| span) };
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

/// Trickle candidates to a viewer, or restart its ICE
///
/// Whoever opened the viewer may do so with `can_view` alone.
#[utoipa::path(
    patch, path = "/v1/sessions/{id}/viewers/{viewer_id}", operation_id = "patch_viewer", tag = "signaling",
    params(OfViewer, IfMatch), security(("token" = ["can_configure"])),
    request_body(content = String, content_type = "application/trickle-ice-sdpfrag", description = "A fragment of SDP."),
    responses(
        (
            status = 200, description = "ICE restarts: the server's side of it.",
            content((String = "application/trickle-ice-sdpfrag")), headers(("ETag" = String, description = "Of the new ICE session."))
        ),
        (status = 204, description = "The candidates are taken."),
        BadRequest, NotFound, Slow, Conflict, PreconditionFailed, TooLarge, UnsupportedType, Unprocessable,
        PreconditionRequired
    )
)]
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

/// End a viewer
///
/// Answers when the viewer is gone, so that the next request does not find it. Whoever opened the viewer may end it with
/// `can_view` alone.
#[utoipa::path(
    delete, path = "/v1/sessions/{id}/viewers/{viewer_id}", operation_id = "end_viewer", tag = "signaling",
    params(OfViewer), security(("token" = ["can_configure"])),
    responses((status = 200, description = "It is gone."), NotFound)
)]
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

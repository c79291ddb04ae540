//! `/v1/cameras`: the cameras of the configuration. What they see is under `/v1/sessions`, where a camera's name is the id
//! of its session.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use saccade_signaling::{CameraView, ErrorCode};

use super::api::{NO_STORE, may_view};
use super::openapi::parameters::OfName;
use super::openapi::{NotFound, wire};
use super::{Context, Problem};

/// The cameras of the configuration, for clients.
pub trait Cameras: Send + Sync {
    /// All of them, in the order of the configuration.
    fn list(&self) -> Vec<CameraView>;
    /// The camera of this name.
    fn get(&self, name: &str) -> Option<CameraView>;
}

/// List the cameras
///
/// Those of the configuration, in its order. What they see is under `/v1/sessions`, where a camera's name is the id of its
/// session.
#[utoipa::path(
    get, path = "/v1/cameras", operation_id = "list_cameras", tag = "cameras", security(("token" = ["can_view"])),
    responses((status = 200, description = "The cameras.", body = Vec<wire::CameraView>))
)]
pub(super) async fn list(
    State(context): State<Arc<Context>>,
    headers: HeaderMap,
) -> Result<([(HeaderName, HeaderValue); 1], Json<Vec<CameraView>>), Problem> {
    let claims = may_view(context.claims(&headers)?)?;
    let shown = context.cameras.list().into_iter().filter(|camera| claims.may_know(&camera.name));
    Ok(([NO_STORE], Json(shown.collect())))
}

/// Show a camera
#[utoipa::path(
    get, path = "/v1/cameras/{name}", operation_id = "get_camera", tag = "cameras", params(OfName),
    security(("token" = ["can_view"])),
    responses((status = 200, description = "The camera.", body = wire::CameraView), NotFound)
)]
pub(super) async fn get(
    State(context): State<Arc<Context>>,
    name: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<([(HeaderName, HeaderValue); 1], Json<CameraView>), Problem> {
    let claims = may_view(context.claims(&headers)?)?;
    let found = name.ok().filter(|Path(name)| claims.may_know(name)).and_then(|Path(name)| context.cameras.get(&name));
    let missing = || Problem::new(ErrorCode::NotFound, "There is no such camera; see GET /v1/cameras.");
    Ok(([NO_STORE], Json(found.ok_or_else(missing)?)))
}

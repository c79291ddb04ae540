//! `/v1/routes`: names that stand for several models.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use saccade_signaling::{ErrorCode, RoutePut, RouteView};

use super::auth::Claims;
use super::openapi::parameters::OfName;
use super::openapi::{BadRequest, Conflict, NotFound, Slow, TooLarge, Unprocessable, UnsupportedType, wire};
use super::{Context, Problem, body};
use crate::session::Refusal;

/// Bytes of a route at most; the longest legal one has a third of it.
const MAX_BYTES: usize = 8 * 1024;

/// The routes over the models, for clients. What was put is there after a restart, unless the configuration has a route of
/// the same name; what was removed of the configuration's is back.
pub trait Routes: Send + Sync {
    /// All of them by name.
    fn list(&self) -> Vec<RouteView>;
    /// The route of this name.
    fn get(&self, name: &str) -> Option<RoutePut>;
    /// Adds a route, or replaces the one of this name; gives it as it is now, and whether it is new. Blocks on a disk.
    ///
    /// # Errors
    /// [`Refusal`] with `bad_request`, `unknown_model` or `conflict`.
    fn put(&self, name: &str, route: RoutePut) -> Result<(RoutePut, bool), Refusal>;
    /// Removes a route. Blocks on a disk.
    ///
    /// # Errors
    /// [`Refusal`] with `not_found`, or `conflict` if sessions that name no model get it.
    fn remove(&self, name: &str) -> Result<(), Refusal>;
}

type Name = Result<Path<String>, PathRejection>;

/// List the routes
///
/// Those that the token allows.
#[utoipa::path(
    get, path = "/v1/routes", operation_id = "list_routes", tag = "routes", security(("token" = [])),
    responses((status = 200, description = "The routes.", body = Vec<wire::RouteView>))
)]
pub(super) async fn list(
    State(context): State<Arc<Context>>,
    headers: HeaderMap,
) -> Result<Json<Vec<RouteView>>, Problem> {
    let claims = context.claims(&headers)?;
    Ok(Json(context.routes.list().into_iter().filter(|route| claims.may_use(&route.name)).collect()))
}

/// Show a route
#[utoipa::path(
    get, path = "/v1/routes/{name}", operation_id = "get_route", tag = "routes", params(OfName),
    security(("token" = [])), responses((status = 200, description = "The route.", body = wire::RoutePut), NotFound)
)]
pub(super) async fn get(
    State(context): State<Arc<Context>>,
    name: Name,
    headers: HeaderMap,
) -> Result<Json<RoutePut>, Problem> {
    let claims = context.claims(&headers)?;
    let Path(name) = name.map_err(|_| no_such_route())?;
    context.routes.get(&name).filter(|_| claims.may_use(&name)).map(Json).ok_or_else(no_such_route)
}

/// Add or replace a route
///
/// Sessions that begin or change their options from now on get it. It is there after a restart, unless the configuration
/// has a route of the same name.
#[utoipa::path(
    put, path = "/v1/routes/{name}", operation_id = "put_route", tag = "routes", params(OfName),
    security(("token" = ["can_manage_models"])), request_body = wire::RoutePut,
    responses(
        (status = 200, description = "It took the place of another one.", body = wire::RoutePut),
        (status = 201, description = "It is new.", body = wire::RoutePut),
        BadRequest, Slow, Conflict, TooLarge, UnsupportedType, Unprocessable
    )
)]
pub(super) async fn put(
    State(context): State<Arc<Context>>,
    name: Name,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<RoutePut>), Problem> {
    let claims = may_manage(&context, &headers)?;
    let Path(name) = name.map_err(|_| Problem::new(ErrorCode::BadRequest, "The name of the route is not UTF-8."))?;
    body::require_json(&headers)?;
    let too_large = || Problem::new(ErrorCode::TooLarge, format!("A route may have {MAX_BYTES} bytes."));
    let body = body::read(body, MAX_BYTES).await?.ok_or_else(too_large)?;
    let route: RoutePut = serde_json::from_slice(&body)
        .map_err(|error| Problem::new(ErrorCode::BadRequest, format!("The body is no route: {error}.")))?;
    for used in models_of(&route).chain([name.as_str()]) {
        may_use(&claims, used)?;
    }
    let (route, is_new) = blocking(&context, move |routes| routes.put(&name, route)).await?;
    Ok((if is_new { StatusCode::CREATED } else { StatusCode::OK }, Json(route)))
}

/// Remove a route
///
/// Sessions that it gave a model keep it until they name another. What was removed of the configuration's is back after a
/// restart.
#[utoipa::path(
    delete, path = "/v1/routes/{name}", operation_id = "remove_route", tag = "routes", params(OfName),
    security(("token" = ["can_manage_models"])),
    responses((status = 200, description = "It is gone."), NotFound, Conflict)
)]
pub(super) async fn delete(
    State(context): State<Arc<Context>>,
    name: Name,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let claims = may_manage(&context, &headers)?;
    let Path(name) = name.map_err(|_| no_such_route())?;
    may_use(&claims, &name)?;
    blocking(&context, move |routes| routes.remove(&name)).await?;
    Ok(StatusCode::OK)
}

/// Changes routes on a thread that may wait for a disk; whoever goes away in the meantime stops nothing.
async fn blocking<T: Send + 'static>(
    context: &Context,
    change: impl FnOnce(&dyn Routes) -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Problem> {
    let routes = Arc::clone(&context.routes);
    let changed = tokio::task::spawn_blocking(move || change(&*routes)).await;
    let failed =
        |_| Problem::new(ErrorCode::Internal, "The route could not be changed; report it with the server's log.");
    changed.map_err(failed)?.map_err(Problem::from)
}

fn may_manage(context: &Context, headers: &HeaderMap) -> Result<Claims, Problem> {
    let claims = context.claims(headers)?;
    Claims::require(claims.can_manage_models, "can_manage_models")?;
    Ok(claims)
}

fn may_use(claims: &Claims, model: &str) -> Result<(), Problem> {
    if claims.may_use(model) { Ok(()) } else { Err(Refusal::may_not_use(model).into()) }
}

/// Every model that a route leads to.
fn models_of(route: &RoutePut) -> Box<dyn Iterator<Item = &str> + '_> {
    match route {
        RoutePut::Split(route) => {
            Box::new(route.split.iter().map(|share| share.model.as_str()).chain(route.shadow.as_deref()))
        }
        RoutePut::Ensemble(route) => Box::new(route.ensemble.iter().map(String::as_str)),
    }
}

fn no_such_route() -> Problem {
    Problem::new(ErrorCode::NotFound, "There is no such route; see GET /v1/routes.")
}

//! `/v1/models`: the models of the repository, and which of them are loaded.

use std::sync::Arc;

use async_trait::async_trait;
use axum::Json;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use saccade_signaling::{ErrorCode, ModelState, ModelView};
use serde_json::{Map, Value};

use super::auth::Claims;
use super::openapi::parameters::{self, OfName};
use super::openapi::shapes::names::NoOptions;
use super::openapi::{BadRequest, Conflict, NotFound, Slow, TooLarge, Unprocessable, UnsupportedType, wire};
use super::{Context, Problem, body};
use crate::session::Refusal;

/// Bytes of a request's body at most: there is nothing to say in it yet.
const MAX_BYTES: usize = 8 * 1024;

/// The models, for clients and for operators.
#[async_trait]
pub trait Models: Send + Sync {
    /// All models of the repository in every state, by name, then version. Sessions can have those that are
    /// [`ModelState::Ready`].
    fn list(&self) -> Vec<ModelView>;

    /// Loads the newest version of a model, or the one that `NAME@VERSION` names, as its files are now, and has sessions
    /// that did not ask for a certain version move to it. One that is loaded already, from files that have not changed,
    /// stays as it is. Gives the model once it is ready; where that takes longer than a request may, as it is then:
    /// [`ModelState::Loading`], and [`Self::list`] tells what becomes of it. A caller that goes away stops nothing.
    ///
    /// # Errors
    /// [`Refusal`] with `not_found` if the repository has no such model, `model_failed` with the reason if it can't be
    /// used, `capacity` if too many wait to be loaded.
    async fn load(&self, name: &str) -> Result<ModelView, Refusal>;

    /// Takes out the version that `NAME@VERSION` names, or all versions of a model. Sessions that did not ask for a certain
    /// version move to the newest that is left; those that asked for this one keep it until they end. Gives what was taken
    /// out, of several the newest.
    ///
    /// # Errors
    /// [`Refusal`] with `not_found` if no such model is loaded, `conflict` if sessions that name no model, a route or a
    /// camera need it.
    async fn unload(&self, name: &str) -> Result<ModelView, Refusal>;
}

type Name = Result<Path<String>, PathRejection>;

/// List the models
///
/// Those that sessions can have, as far as the token allows them; with `all=true` those in other states, too.
#[utoipa::path(
    get, path = "/v1/models", operation_id = "list_models", tag = "models", params(parameters::Models),
    security(("token" = [])),
    responses((status = 200, description = "The models.", body = Vec<wire::ModelView>), BadRequest)
)]
pub(super) async fn list(
    State(context): State<Arc<Context>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Json<Vec<ModelView>>, Problem> {
    let claims = context.claims(&headers)?;
    let all = match query.as_deref() {
        None | Some("" | "all=false") => false,
        Some("all=true") => true,
        Some(_) => return Err(Problem::new(ErrorCode::BadRequest, "The query may be `all=true`, and nothing else.")),
    };
    let mut models = context.models.list();
    models.retain(|model| (all || model.state == ModelState::Ready) && claims.may_use(&id(model)));
    Ok(Json(models))
}

/// Load a model
///
/// The newest version of it, or the one that `NAME@VERSION` names, as its files are now. Sessions that did not ask for a
/// certain version move to it. One that is loaded already, from files that have not changed, stays as it is.
#[utoipa::path(
    post, path = "/v1/models/{name}/load", operation_id = "load_model", tag = "models", params(OfName),
    security(("token" = ["can_manage_models"])),
    request_body(content = Option<NoOptions>, description = "Nothing, or an empty object."),
    responses(
        (status = 200, description = "It is ready.", body = wire::ModelView),
        (status = 202, description = "That takes longer; the list of models tells what becomes of it.", body = wire::ModelView),
        BadRequest, NotFound, Slow, Conflict, TooLarge, UnsupportedType, Unprocessable
    )
)]
pub(super) async fn load(
    State(context): State<Arc<Context>>,
    name: Name,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<ModelView>), Problem> {
    let name = asked(&context, name, &headers, body).await?;
    let model = context.models.load(&name).await.map_err(|refusal| match refusal.code {
        // The server is well; it is the files that are not.
        ErrorCode::ModelFailed => Problem::from(refusal).with_status(StatusCode::UNPROCESSABLE_ENTITY),
        _ => refusal.into(),
    })?;
    let status = if model.state == ModelState::Ready { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok((status, Json(model)))
}

/// Unload a model
///
/// The version that `NAME@VERSION` names, or all versions. Sessions that did not ask for a certain version move to the
/// newest that is left; those that asked for this one keep it until they end.
#[utoipa::path(
    post, path = "/v1/models/{name}/unload", operation_id = "unload_model", tag = "models", params(OfName),
    security(("token" = ["can_manage_models"])),
    request_body(content = Option<NoOptions>, description = "Nothing, or an empty object."),
    responses(
        (status = 200, description = "What was taken out; of several versions the newest.", body = wire::ModelView),
        BadRequest, NotFound, Slow, Conflict, TooLarge, UnsupportedType
    )
)]
pub(super) async fn unload(
    State(context): State<Arc<Context>>,
    name: Name,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<ModelView>, Problem> {
    let name = asked(&context, name, &headers, body).await?;
    Ok(Json(context.models.unload(&name).await?))
}

/// The model that somebody who may manage models names.
async fn asked(context: &Context, name: Name, headers: &HeaderMap, body: Body) -> Result<String, Problem> {
    let claims = context.claims(headers)?;
    Claims::require(claims.can_manage_models, "can_manage_models")?;
    let Path(name) = name.map_err(|_| Problem::new(ErrorCode::BadRequest, "The name of the model is not UTF-8."))?;
    if !claims.may_use(&name) {
        return Err(Refusal::may_not_use(&name).into());
    }
    let too_large = || Problem::new(ErrorCode::TooLarge, format!("The body may have {MAX_BYTES} bytes."));
    let body = body::read(body, MAX_BYTES).await?.ok_or_else(too_large)?;
    if !body.is_empty() {
        body::require_json(headers)?;
        let options: Map<String, Value> = serde_json::from_slice(&body)
            .map_err(|error| Problem::new(ErrorCode::BadRequest, format!("The body is no JSON object: {error}.")))?;
        if let Some(key) = options.keys().next() {
            let key: String = key.chars().take(64).collect();
            let detail = format!("`{key}` is not known here; send no body, or an empty object.");
            return Err(Problem::new(ErrorCode::BadRequest, detail));
        }
    }
    Ok(name)
}

fn id(model: &ModelView) -> String {
    format!("{}@{}", model.name, model.version)
}

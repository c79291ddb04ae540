use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response as Answer};
use axum::routing::{any, get};
use axum::{Extension, Json, Router, response};
use bytes::Bytes;
use serde::Deserialize;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use utoipa::IntoParams;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};
use utoipa_axum::routes;

use super::body::{Held, discard, kibibytes, read};
use super::failure::{Failure, no_store};
use super::views::{
    InferenceIndexEntry, InferenceIndexRequest, InferenceLoadRequest, InferenceModel, InferenceModelConfig,
    InferenceServer, InferenceStatistics,
};
use super::{HEADER_LENGTH, Wanted};
use crate::claims::Claims;
use crate::clock;
use crate::kserve::access::{Denied, Identify, count, may_infer, may_manage, may_see, measured};
use crate::kserve::compression::Encoding;
use crate::kserve::error::Error;
use crate::kserve::tensor::Tensor;
use crate::kserve::{Entry, Metadata, Models, Named, Request, Response};
use crate::openapi::Schemas;
use crate::traces::{Context as TraceContext, Tracer, Trail};

/// What a body may have beyond its tensors.
const BODY_ROOM: usize = 64 * 1024;
/// Bytes of a request's body that has no tensors.
const MAX_SMALL_BODY: usize = 8 * 1024;
/// Bodies of the largest size that are in memory at a time; of smaller ones there may be more.
const BODIES: usize = 4;
/// Bytes that are read or written on the spot; what takes longer is done where nothing waits for it.
const SHORT: usize = 64 * 1024;

/// The protocol over HTTP, over these models.
pub struct Service {
    models: Arc<dyn Models>,
    identify: Identify,
    limit: usize,
    server: (&'static str, &'static str),
    tracer: Tracer,
    /// Kibibytes of bodies that may still come to be in memory.
    room: Arc<Semaphore>,
}

type Shared = State<Arc<Service>>;

impl Service {
    /// `limit` are the bytes of a request's tensors at most; `server` is its name and version.
    #[must_use]
    pub fn new(
        models: Arc<dyn Models>,
        identify: Identify,
        limit: usize,
        server: (&'static str, &'static str),
        tracer: Tracer,
    ) -> Self {
        let room = Arc::new(Semaphore::new(kibibytes(limit.saturating_add(BODY_ROOM)) as usize * BODIES));
        Self { models, identify, limit, server, tracer, room }
    }

    /// The routes below `/v2`.
    pub fn router(self) -> Router {
        let (router, _) = table().split_for_parts();
        let router = router.route("/v2/", get(server)).route("/v2/{*rest}", any(nothing));
        router.method_not_allowed_fallback(wrong_method).with_state(Arc::new(self))
    }

    fn claims(&self, headers: &HeaderMap) -> Result<Claims, Failure> {
        (self.identify)(headers).ok_or(Failure::Denied(Denied::Unauthenticated))
    }

    fn seen<'a>(&self, headers: &HeaderMap, path: &'a InPath) -> Result<Named<'a>, Failure> {
        may_see(&self.claims(headers)?, path.named())?;
        Ok(path.named())
    }
}

/// The routes and what describes them.
pub(crate) fn table() -> OpenApiRouter<Arc<Service>> {
    OpenApiRouter::default()
        .routes(routes!(server))
        .routes(routes!(live))
        .routes(routes!(ready))
        .routes(routes!(all_statistics))
        .routes(routes!(index))
        .routes(routes!(load))
        .routes(routes!(unload))
        .routes(of_each_version(routes!(metadata)))
        .routes(of_each_version(routes!(model_ready)))
        .routes(of_each_version(routes!(config)))
        .routes(of_each_version(routes!(statistics)))
        .routes(of_each_version(routes!(infer)))
}

/// Adds the schemas of what is sent.
pub(crate) fn describe(schemas: &mut Schemas) {
    wire::describe(schemas);
}

/// A route of a model, at the path of each of its versions, too.
fn of_each_version((schemas, mut paths, router): UtoipaMethodRouter<Arc<Service>>) -> UtoipaMethodRouter<Arc<Service>> {
    for (path, mut item) in paths.paths.clone() {
        for operation in [&mut item.get, &mut item.post].into_iter().flatten() {
            operation.operation_id = operation.operation_id.as_ref().map(|id| format!("{id}_of_version"));
            operation
                .parameters
                .get_or_insert_default()
                .extend(OfVersion::into_params(|| None).into_iter().map(Into::into));
        }
        paths.paths.insert(path.replace("{model}", "{model}/versions/{version}"), item);
    }
    (schemas, paths, router)
}

/// A model in a path.
#[derive(Deserialize)]
struct InPath {
    model: String,
    version: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for InPath {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let path = Path::from_request_parts(parts, state).await;
        path.map(|Path(path)| path).map_err(|_| Error::malformed("the path is not UTF-8").into())
    }
}

/// Types by whose names descriptions refer to schemas.
mod wire {
    use super::super::views;

    crate::openapi::schemas! {
        from views
        takes { InferenceIndexRequest, InferenceLoadRequest, InferenceRequest }
        gives {
            InferenceError, InferenceIndexEntry, InferenceModel, InferenceModelConfig, InferenceResponse,
            InferenceServer, InferenceStatistics,
        }
    }
}

const OWN: &[(&str, &str)] = &[("application/json", "InferenceError")];
/// What stands before the protocol has errors of its own.
const ANY: &[(&str, &str)] = &[("application/json", "InferenceError"), ("application/problem+json", "Problem")];

crate::openapi::failures! {
    InferenceBadRequest = 400, OWN, "The request is not understood; `error` says what is wrong with it.";
    InferenceUnauthorized = 401, OWN, "A valid token is needed.";
    InferenceForbidden = 403, ANY, "The token does not allow it, or the page's origin is not allowed.";
    InferenceNotFound = 404, OWN, "There is no such model.";
    InferenceSlow = 408, OWN, "The body took too long.";
    InferenceConflict = 409, OWN, "At odds with the present state.";
    InferenceTooLarge = 413, OWN, "The body or its tensors are too large.";
    InferenceInternal = 500, ANY, "The model failed, or the server.";
    InferenceUnavailable = 503, ANY, "The model is not ready, or the server is full.";
    InferenceLate = 504, OWN, "The request could not be answered within its timeout.";
}

/// A model in a path, as it is described.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "only its description is used")]
struct OfModel {
    /// Name of a model.
    model: String,
}

/// A version in a path, as it is described.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "only its description is used")]
struct OfVersion {
    /// One version of the model.
    version: String,
}

impl InPath {
    fn named(&self) -> Named<'_> {
        Named { name: &self.model, version: self.version.as_deref() }
    }
}

async fn nothing() -> Failure {
    Failure::Nothing
}

async fn wrong_method() -> Failure {
    Failure::WrongMethod
}

/// Tell of the server
///
/// Its name, version, and the extensions of the protocol that it offers.
#[utoipa::path(
    get, path = "/v2", operation_id = "inference_server", tag = "inference protocol", security(()),
    responses((status = 200, description = "The server.", body = wire::InferenceServer))
)]
async fn server(State(service): Shared) -> Json<InferenceServer> {
    Json(InferenceServer::new(service.server))
}

/// Ask whether the server lives
#[utoipa::path(
    get, path = "/v2/health/live", operation_id = "inference_live", tag = "inference protocol", security(()),
    responses((status = 200, description = "It does."))
)]
async fn live() -> StatusCode {
    StatusCode::OK
}

/// Ask whether the server is ready
///
/// It is once all models are loaded that are to be, and until it drains.
#[utoipa::path(
    get, path = "/v2/health/ready", operation_id = "inference_ready", tag = "inference protocol", security(()),
    responses((status = 200, description = "It is."), (status = 503, description = "It is not."))
)]
async fn ready(State(service): Shared) -> StatusCode {
    if service.models.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

/// Ask whether a model is ready
#[utoipa::path(
    get, path = "/v2/models/{model}/ready", operation_id = "inference_model_ready", tag = "inference protocol",
    params(OfModel), security(("token" = [])),
    responses((status = 200, description = "It is."), InferenceBadRequest, InferenceNotFound)
)]
async fn model_ready(State(service): Shared, path: InPath, headers: HeaderMap) -> Result<Answer, Failure> {
    let model = service.seen(&headers, &path)?;
    if service.models.is_model_ready(model)? {
        return Ok(StatusCode::OK.into_response());
    }
    let reason = service
        .models
        .index()
        .into_iter()
        .find(|entry| entry.name == model.name && model.version.is_none_or(|version| entry.version == version));
    let reason = reason.map(|entry: Entry| entry.reason).unwrap_or_default();
    Err(Error::NotReady { model: model.id(), reason }.into())
}

type Told<T> = Result<([(header::HeaderName, &'static str); 1], Json<T>), Failure>;

/// Show what a model takes and gives
#[utoipa::path(
    get, path = "/v2/models/{model}", operation_id = "inference_model", tag = "inference protocol", params(OfModel),
    security(("token" = [])),
    responses(
        (status = 200, description = "Its tensors.", body = wire::InferenceModel),
        InferenceBadRequest, InferenceNotFound
    )
)]
async fn metadata(State(service): Shared, path: InPath, headers: HeaderMap) -> Told<InferenceModel> {
    let metadata = service.models.metadata(service.seen(&headers, &path)?).await?;
    Ok((no_store(), Json((&*metadata).into())))
}

/// Show how a model is run
///
/// As Triton writes it: where the model takes batches, shapes are without the side of these.
#[utoipa::path(
    get, path = "/v2/models/{model}/config", operation_id = "inference_model_config", tag = "inference protocol",
    params(OfModel), security(("token" = [])),
    responses(
        (status = 200, description = "Its configuration.", body = wire::InferenceModelConfig),
        InferenceBadRequest, InferenceNotFound
    )
)]
async fn config(State(service): Shared, path: InPath, headers: HeaderMap) -> Told<InferenceModelConfig> {
    let metadata = service.models.metadata(service.seen(&headers, &path)?).await?;
    Ok((no_store(), Json((&*metadata).into())))
}

/// Show what a model did
///
/// Since it was loaded, for requests of this protocol alone.
#[utoipa::path(
    get, path = "/v2/models/{model}/stats", operation_id = "inference_model_stats", tag = "inference protocol",
    params(OfModel), security(("token" = [])),
    responses(
        (status = 200, description = "One entry for each version.", body = wire::InferenceStatistics),
        InferenceBadRequest, InferenceNotFound
    )
)]
async fn statistics(State(service): Shared, path: InPath, headers: HeaderMap) -> Told<InferenceStatistics> {
    let model = service.seen(&headers, &path)?;
    Ok((no_store(), Json(service.models.statistics(Some(model))?.as_slice().into())))
}

/// Show what all models did
///
/// Since they were loaded, for requests of this protocol alone.
#[utoipa::path(
    get, path = "/v2/models/stats", operation_id = "inference_stats", tag = "inference protocol",
    security(("token" = [])),
    responses((status = 200, description = "One entry for each version.", body = wire::InferenceStatistics))
)]
async fn all_statistics(State(service): Shared, headers: HeaderMap) -> Told<InferenceStatistics> {
    let claims = service.claims(&headers)?;
    let mut all = service.models.statistics(None)?;
    all.retain(|it| may_see(&claims, Named::new(&it.name, &it.version)).is_ok());
    Ok((no_store(), Json(all.as_slice().into())))
}

/// List the models of the repository
///
/// Those that are loaded, or could not be, as far as the token allows them. Without a body, all of them.
#[utoipa::path(
    post, path = "/v2/repository/index", operation_id = "inference_index", tag = "inference protocol",
    security(("token" = [])), request_body = Option<wire::InferenceIndexRequest>,
    responses(
        (status = 200, description = "The models.", body = Vec<wire::InferenceIndexEntry>),
        InferenceBadRequest, InferenceSlow, InferenceTooLarge
    )
)]
async fn index(State(service): Shared, headers: HeaderMap, body: Body) -> Told<Vec<InferenceIndexEntry>> {
    let claims = service.claims(&headers)?;
    let request: InferenceIndexRequest = small(body).await?;
    let mut entries = service.models.index();
    entries.retain(|it| it.ready || !request.ready);
    entries.retain(|it| may_see(&claims, Named::new(&it.name, &it.version)).is_ok());
    Ok((no_store(), Json(entries.into_iter().map(Into::into).collect())))
}

/// Load a model
///
/// All versions of it that are there; those that are loaded already, from files that have changed since, again.
#[utoipa::path(
    post, path = "/v2/repository/models/{model}/load", operation_id = "inference_load", tag = "inference protocol",
    params(OfModel), security(("token" = ["can_manage_models"])),
    request_body = Option<wire::InferenceLoadRequest>,
    responses(
        (status = 200, description = "It is loaded."),
        InferenceBadRequest, InferenceNotFound, InferenceSlow, InferenceConflict, InferenceTooLarge
    )
)]
async fn load(State(service): Shared, path: InPath, headers: HeaderMap, body: Body) -> Result<StatusCode, Failure> {
    may_manage(&service.claims(&headers)?, path.named())?;
    let request: InferenceLoadRequest = small(body).await?;
    if !request.parameters.is_empty() {
        return Err(Error::Unsupported { what: "loading a model with parameters".to_owned() }.into());
    }
    service.models.load(&path.model).await?;
    Ok(StatusCode::OK)
}

/// Unload a model
///
/// All versions of it.
#[utoipa::path(
    post, path = "/v2/repository/models/{model}/unload", operation_id = "inference_unload",
    tag = "inference protocol", params(OfModel), security(("token" = ["can_manage_models"])),
    responses(
        (status = 200, description = "It is unloaded."), InferenceBadRequest, InferenceNotFound, InferenceConflict
    )
)]
async fn unload(State(service): Shared, path: InPath, headers: HeaderMap) -> Result<StatusCode, Failure> {
    may_manage(&service.claims(&headers)?, path.named())?;
    service.models.unload(&path.model).await?;
    Ok(StatusCode::OK)
}

/// A body without tensors; an empty one says nothing.
async fn small<T: for<'de> Deserialize<'de> + Default>(mut body: Body) -> Result<T, Failure> {
    let limit = MAX_SMALL_BODY;
    let body = read(&mut body, limit, None).await?.ok_or(Error::TooLarge { what: "the body", limit })?;
    if body.is_empty() {
        return Ok(T::default());
    }
    super::require_object(&body)?;
    serde_json::from_slice(&body).map_err(|error| Error::malformed(format!("the JSON: {error}")).into())
}

/// Run a model on tensors
///
/// In the precision of its file. Tensors are in the JSON, or follow it as bytes (the binary tensor data extension): then
/// the header `Inference-Header-Content-Length` says how many bytes are JSON, in requests and answers alike. A body without
/// JSON, of length 0, is the only input of a model. Bodies may be compressed (`gzip`, `deflate`), and so is the answer where
/// `Accept-Encoding` names one of these alone. Tensors may have 64 MiB together (`limits.tensor_bytes`).
#[utoipa::path(
    post, path = "/v2/models/{model}/infer", operation_id = "inference_infer", tag = "inference protocol",
    params(
        OfModel,
        ("Inference-Header-Content-Length" = Option<u64>, Header, description = "Bytes of the body that are JSON, where tensors follow."),
    ),
    security(("token" = ["can_publish"])),
    request_body(content((wire::InferenceRequest = "application/json"), ("application/octet-stream"))),
    responses(
        (
            status = 200, description = "What the model gave.",
            headers(("Inference-Header-Content-Length" = u64, description = "Bytes of the body that are JSON, where tensors follow.")),
            content((wire::InferenceResponse = "application/json"), ("application/octet-stream"))
        ),
        InferenceBadRequest, InferenceNotFound, InferenceSlow, InferenceTooLarge, InferenceLate
    )
)]
async fn infer(
    State(service): Shared,
    span: Option<Extension<TraceContext>>,
    path: InPath,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let (model, mut body) = (path.named(), body);
    let trail = service.tracer.work("tensors", span.as_deref(), clock::now());
    trail.note(|| vec![("saccade.protocol", "http".into())]);
    let allowed = service.claims(&headers).and_then(|claims| Ok(may_infer(&claims, model)?));
    let allowed = allowed.map_err(|denied| (denied, true));
    let allowed = allowed.and_then(|()| service.models.spare().map_err(|error| (error.into(), false)));
    let answered = match allowed {
        Ok(()) => service.infer(model, &headers, &mut body, &trail).await,
        Err(failed) => Err(failed),
    };
    let (failure, is_counted) = match answered {
        Ok(answer) => {
            trail.end(None);
            return answer;
        }
        Err(failed) => failed,
    };
    trail.end(Some(failure.kind().into()));
    if let (Failure::Error(error), false) = (&failure, is_counted) {
        count("http", Some(error));
    }
    let is_over = match &failure {
        // It had its time.
        Failure::Slow | Failure::BrokeOff => false,
        _ => discard(body).await,
    };
    let mut answer = failure.into_response();
    if !is_over {
        answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    answer
}

impl Service {
    /// With an error, whether it was counted.
    async fn infer(
        &self,
        model: Named<'_>,
        headers: &HeaderMap,
        body: &mut Body,
        trail: &Trail,
    ) -> Result<Answer, (Failure, bool)> {
        let begin = clock::now();
        let taken = self.take(model, headers, body).await;
        trail.part("read", begin, clock::now());
        let (request, wanted, _room) = taken.map_err(|failure| (failure, false))?;
        let answer = measured("http", request, async |request| self.models.infer(model, request, trail).await).await;
        if let Ok(Response { model, version, .. }) = &answer {
            trail.note(|| vec![("saccade.model", format!("{model}@{version}").into())]);
        }
        let begin = clock::now();
        let response = answer.map_err(|error| (error.into(), true))?;
        let encoding = headers.get(header::ACCEPT_ENCODING).and_then(|value| Encoding::asked(value.to_str().ok()?));
        let size: usize = response.outputs.iter().map(|tensor| tensor.data.len()).sum();
        let write = move || {
            let (body, head) = super::write(&response, &wanted)?;
            // In memory nothing goes wrong; and if, it is sent as it is.
            let packed = encoding.and_then(|encoding| Some((encoding.deflate(&body).ok()?, encoding)));
            Ok::<_, Error>((packed.as_ref().map_or(body, |(body, _)| body.clone()), head, packed.map(|it| it.1)))
        };
        let (body, head, encoding) = off(size > SHORT || encoding.is_some(), write).await.map_err(|it| (it, true))?;
        trail.part("encode", begin, clock::now());
        let kind = if head.is_some() { "application/octet-stream" } else { "application/json" };
        let mut answer = response::Response::new(Body::from(body));
        let headers = answer.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(head) = head {
            headers.insert(HEADER_LENGTH, HeaderValue::from(head));
        }
        if let Some(encoding) = encoding {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding.name()));
        }
        Ok(answer)
    }

    /// The request in a body, and the room that it takes. What is not read of the body is left.
    async fn take(
        &self,
        model: Named<'_>,
        headers: &HeaderMap,
        body: &mut Body,
    ) -> Result<(Request, Wanted, Held), Failure> {
        let most = self.limit.saturating_add(BODY_ROOM);
        let too_large = || Error::TooLarge { what: "the body", limit: self.limit };
        let encoding = headers.get(header::CONTENT_ENCODING).map(|value| value.to_str().unwrap_or("?"));
        let encoding = encoding.map(Encoding::named).transpose()?.flatten();
        let header = headers.get(HEADER_LENGTH).map(|value| value.to_str().ok().and_then(|text| text.parse().ok()));
        let header =
            header.map(|length| length.ok_or_else(|| Error::malformed(format!("`{HEADER_LENGTH}` is no number"))));
        let header: Option<usize> = header.transpose()?;
        let said = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
        if said.is_some_and(|said| said > most) {
            return Err(too_large().into());
        }
        let mut room = Held::new(&self.room);
        let body = read(body, most, Some(&mut room)).await?.ok_or_else(too_large)?;
        // Nobody knows what becomes of a compressed body.
        let size = if encoding.is_some() { most } else { body.len() };
        room.grow(size).await?;
        let limit = self.limit;
        let parse = move || {
            let body = match encoding {
                Some(encoding) => encoding.inflate(&body, most)?,
                None => body,
            };
            Ok((super::read(&body, header, limit)?, body.len()))
        };
        let (request, size) = off(size > SHORT, parse).await?;
        room.shrink(size);
        match request {
            super::Body::Request(request, wanted) => Ok((request, wanted, room)),
            super::Body::Raw(data) => {
                let request = raw(&*self.models.metadata(model).await?, data)?;
                Ok((request, Wanted { binary: true, except: Vec::new() }, room))
            }
        }
    }
}

/// The only input's bytes, whose first side may be free.
fn raw(metadata: &Metadata, data: Bytes) -> Result<Request, Error> {
    let unfit = |problem: &str| Error::malformed(format!("a body without JSON {problem}; send JSON"));
    let [input] = &*metadata.inputs else { return Err(unfit("is for models of one input")) };
    let size = input.datatype.size().ok_or_else(|| unfit("is for inputs whose elements have one size"))?;
    let mut shape = input.shape.clone();
    if let Some(first) = shape.first_mut().filter(|side| **side < 0) {
        let item =
            input.shape[1..].iter().try_fold(size, |bytes, side| bytes.checked_mul(usize::try_from(*side).ok()?));
        let item = item.filter(|item| *item > 0).ok_or_else(|| unfit("is for inputs with one free side"))?;
        *first = i64::try_from(data.len() / item).unwrap_or(i64::MAX);
    }
    let tensor = Tensor::new(input.name.clone(), input.datatype, shape, data)?;
    Ok(Request { inputs: vec![tensor], ..Request::default() })
}

/// Does what takes long where nothing waits for it.
async fn off<T: Send + 'static>(
    long: bool,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Failure> {
    if !long {
        return Ok(work()?);
    }
    Ok(spawn_blocking(work).await.map_err(|_| Error::malformed("it cannot be read"))??)
}

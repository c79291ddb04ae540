//! The description of the API (OpenAPI 3.1), made of what stands at the handlers.

pub(super) mod parameters;
pub(super) mod shapes;

use std::sync::LazyLock;

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::assets;
use crate::kserve::rest;
use crate::openapi::{Schemas, failures, schemas};

/// Types by whose names descriptions refer to schemas.
pub(super) mod wire {
    use saccade_signaling as types;

    super::schemas! {
        from types
        takes { ClientMessage, Line, Masks, OfferRequest, OverlayPatch, ResultFormat, ReturnMode, RoutePut, Rule, Zone }
        gives {
            AdviceView, CacheForgotten, CameraView, Event, EventPage, ImageError, ImageResult, ModelView, OfferResponse, Problem, RouteView, ServerMessage,
            SessionResult, SessionView, SinkView, StatsView, Status,
        }
    }
}

/// Every error of the API but those of the inference protocol.
const PROBLEM: &[(&str, &str)] = &[("application/problem+json", "Problem")];

failures! {
    BadRequest = 400, PROBLEM, "The request is not understood; `detail` says what is wrong with it.";
    Unauthorized = 401, PROBLEM, "A valid token is needed.";
    Forbidden = 403, PROBLEM, "The token does not allow it, or the page's origin is not allowed.";
    NotFound = 404, PROBLEM, "There is no such thing, or the caller may not know of it.";
    NotAcceptable = 406, PROBLEM, "There is nothing of a type that `Accept` allows.";
    Slow = 408, PROBLEM, "The body took too long.";
    Conflict = 409, PROBLEM, "At odds with the present state.";
    PreconditionFailed = 412, PROBLEM, "`If-Match` names another state than the present one.";
    TooLarge = 413, PROBLEM, "The body is too large.";
    UnsupportedType = 415, PROBLEM, "The body's type is not taken here.";
    Misdirected = 421, PROBLEM, "The server is not called by this name; set `http.public_url` to the name in use.";
    Unprocessable = 422, PROBLEM, "The request is understood, and cannot be done as it is.";
    UpgradeRequired = 426, PROBLEM, "This is a WebSocket endpoint.";
    PreconditionRequired = 428, PROBLEM, "`If-Match` is missing.";
    RateLimited = 429, PROBLEM, "Too much comes from this address or token.";
    Internal = 500, PROBLEM, "A fault of the server.";
    Unavailable = 503, PROBLEM, "The server is full, shuts down, or took too long.";
}

/// What any operation may answer, and, where a token is asked for, what else: names of [`failures`].
const USUAL: Usual = Usual {
    always: [("421", "Misdirected"), ("429", "RateLimited"), ("500", "Internal"), ("503", "Unavailable")],
    guarded: [("401", "Unauthorized"), ("403", "Forbidden")],
};
/// The same of the inference protocol.
const USUAL_OF_INFERENCE: Usual = Usual {
    always: [
        ("421", "Misdirected"),
        ("429", "RateLimited"),
        ("500", "InferenceInternal"),
        ("503", "InferenceUnavailable"),
    ],
    guarded: [("401", "InferenceUnauthorized"), ("403", "InferenceForbidden")],
};

struct Usual {
    always: [(&'static str, &'static str); 4],
    guarded: [(&'static str, &'static str); 2],
}

const ABOUT: &str = "Video goes in by WebRTC, WHIP or RTSP cameras, still pictures and tensors by HTTP; what models find comes \
     back over data channels, Server-Sent Events and HTTP.\n\nErrors are `application/problem+json` (RFC 9457) with a stable \
     `code`, those of the inference protocol `{\"error\", \"code\"}`. A server without authentication, which listens on loopback \
     alone, asks nobody for a token.";

/// Groups of operations, in the order in which they are to be read.
const TAGS: [(&str, &str); 11] = [
    ("signaling", "Opening sessions and watching them: WebSocket, one request, WHIP (RFC 9725) and WHEP."),
    ("sessions", "What runs, what it finds, and its end."),
    ("cameras", "The cameras of the configuration."),
    ("stills", "Finding things in still pictures."),
    ("cache", "Answers that are given again."),
    ("models", "The models of the repository."),
    ("routes", "Names that stand for several models."),
    ("inference protocol", "Tensors in, tensors out: the Open Inference Protocol, version 2 (KServe, Triton)."),
    ("history", "What happened, as lists and sums."),
    ("sinks", "Where events and results go: webhooks, MQTT, NATS."),
    ("server", "The server itself."),
];

/// The description, as it is served.
static SERVED: LazyLock<(Bytes, String)> = LazyLock::new(|| {
    let text = document().to_string();
    let tag = format!("\"{}\"", &blake3::hash(text.as_bytes()).to_hex()[..24]);
    (text.into(), tag)
});

/// Makes the description, so that no request waits for it.
pub(super) fn prepare() {
    LazyLock::force(&SERVED);
}

/// Describe this API
///
/// In OpenAPI 3.1.
#[utoipa::path(
    get, path = "/v1/openapi.json", operation_id = "describe", tag = "server", security(()), params(parameters::IfNoneMatch),
    responses(
        (status = 200, description = "This document.", body = Object, headers(("ETag" = String))),
        (status = 304, description = "The client has it."),
    )
)]
pub(super) async fn serve(headers: HeaderMap) -> Response {
    let (text, tag) = &*SERVED;
    let is_known = headers.get_all(header::IF_NONE_MATCH).iter().any(|value| assets::names(value, tag));
    let mut response = if is_known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(header::CONTENT_TYPE, "application/json")], text.clone()).into_response()
    };
    let headers = response.headers_mut();
    headers.extend(HeaderValue::try_from(tag).map(|tag| (header::ETAG, tag)));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// The whole description.
pub(super) fn document() -> Value {
    let mut schemas = Schemas::default();
    wire::describe(&mut schemas);
    shapes::names::describe(&mut schemas);
    rest::describe(&mut schemas);
    let schemas = schemas.into_definitions();
    let mut api = super::table().into_openapi();
    api.merge(rest::table().into_openapi());
    let mut paths = serde_json::to_value(&api.paths).unwrap_or_default();
    complete(&mut paths, &schemas);
    let responses: Map<_, _> = failures().chain(rest::failures()).collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Saccade",
            "summary": "Real-time vision over WebRTC and HTTP",
            "description": ABOUT,
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "MIT OR Apache-2.0", "identifier": env!("CARGO_PKG_LICENSE") },
        },
        "servers": [{ "url": "/" }],
        "tags": TAGS.map(|(name, text)| json!({ "name": name, "description": text })),
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": responses,
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "A token (RFC 7519) with `exp` and the claims that an operation names, or an API key (`sk_…`).",
                },
                "query_token": {
                    "type": "apiKey",
                    "in": "query",
                    "name": "access_token",
                    "description": "A token, and no API key, where a browser's `EventSource` sends no headers.",
                },
            },
        },
    })
}

/// Adds what all operations have in common.
fn complete(paths: &mut Value, schemas: &Map<String, Value>) {
    for (path, item) in paths.as_object_mut().into_iter().flatten() {
        let usual = if path.starts_with("/v2") { USUAL_OF_INFERENCE } else { USUAL };
        for operation in item.as_object_mut().into_iter().flat_map(Map::values_mut) {
            let claims = claims(operation);
            let guarded = usual.guarded.iter().filter(|_| claims.is_some());
            for (status, name) in usual.always.iter().chain(guarded) {
                if operation["responses"][status].is_null() {
                    operation["responses"][status] = json!({ "$ref": format!("#/components/responses/{name}") });
                }
            }
            let needed = match claims.as_deref() {
                None => "No token is needed.".to_owned(),
                Some([]) => "Any valid token is enough.".to_owned(),
                Some(claims) => format!("The token needs `{}`.", claims.join("`, `")),
            };
            let about = operation["description"].as_str().unwrap_or_default();
            operation["description"] = format!("{about}\n\n{needed}").trim_start().into();
            let parameters = operation.get_mut("parameters").and_then(Value::as_array_mut);
            parameters.into_iter().flatten().for_each(|it| parameter(it, schemas));
            let bodies = operation.pointer_mut("/requestBody/content").and_then(Value::as_object_mut);
            bodies.into_iter().flat_map(Map::values_mut).filter_map(|body| body.get_mut("schema")).for_each(present);
        }
    }
}

/// Claims that an operation's token needs; `None`: it needs no token.
fn claims(operation: &Value) -> Option<Vec<String>> {
    let ways = operation["security"].as_array()?;
    let claims = ways.iter().find_map(|way| way.get("token"))?.as_array()?;
    Some(claims.iter().filter_map(Value::as_str).map(str::to_owned).collect())
}

/// What may be left out is never null.
fn present(schema: &mut Value) {
    if let Some(kinds) = schema.get_mut("type").and_then(Value::as_array_mut) {
        kinds.retain(|kind| kind != "null");
        if let [kind] = kinds.as_slice() {
            schema["type"] = kind.clone();
        }
    }
    let choices = schema.get("oneOf").and_then(Value::as_array).map(Vec::as_slice);
    if let Some([choice, null]) = choices
        && null["type"] == "null"
    {
        *schema = choice.clone();
    }
}

/// What has fields is sent as JSON.
fn parameter(parameter: &mut Value, schemas: &Map<String, Value>) {
    let Some(schema) = parameter.get_mut("schema") else { return };
    present(schema);
    let item = if schema["items"].is_object() { &schema["items"] } else { &*schema };
    let name = item["$ref"].as_str().and_then(|reference| reference.rsplit('/').next());
    if name.and_then(|name| schemas.get(name)).is_some_and(|schema| schema["type"] == "object") {
        let schema = schema.take();
        parameter["content"] = json!({ "application/json": { "schema": schema } });
        parameter.as_object_mut().and_then(|fields| fields.remove("schema"));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests;

//! WebRTC-HTTP ingestion (WHIP, RFC 9725): an encoder's `POST` opens a session, whose resource takes `PATCH` and `DELETE`.
//! What viewers' resources have in common with it is here, too.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Extension, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use saccade_signaling::{ErrorCode, IceServer, OptionsPatch};
use serde_json::{Map, Value};

use super::api::Id;
use super::auth::{Caller, Claims};
use super::openapi::parameters::{IfMatch as Precondition, OfSession, SessionOptions};
use super::openapi::{
    BadRequest, Conflict, NotAcceptable, NotFound, PreconditionFailed, PreconditionRequired, Slow, TooLarge,
    Unprocessable, UnsupportedType,
};
use super::{Context, Problem, body, open};
use crate::session::fragment::Credentials;
use crate::session::{IfMatch, OpenRequest, Patch, Patched, Refusal, options};
use crate::traces::Context as TraceContext;

/// What offers and answers are.
pub(super) const SDP: &str = "application/sdp";
/// What `PATCH` takes (RFC 8840 section 9).
const FRAGMENT: &str = "application/trickle-ice-sdpfrag";
/// `Accept-Post`, which the `http` crate does not name (W3C Linked Data Platform 1.0, section 7.1).
const ACCEPT_POST: &str = "accept-post";
/// `Accept-Patch` (RFC 5789 section 3.1).
const ACCEPT_PATCH: &str = "accept-patch";

/// Options as query parameters.
pub(super) type Pairs = Query<Vec<(String, String)>>;

/// Publish by WHIP
///
/// RFC 9725: an encoder's offer opens a session, whose resource takes `PATCH` and `DELETE`. Objects and lists among the
/// options are written as JSON.
#[utoipa::path(
    post, path = "/v1/whip", operation_id = "publish", tag = "signaling", params(SessionOptions),
    security(("token" = ["can_publish"])),
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
        BadRequest, NotAcceptable, Slow, TooLarge, UnsupportedType, Unprocessable
    )
)]
pub(super) async fn publish(
    State(context): State<Arc<Context>>,
    Caller { claims, address }: Caller,
    span: Option<Extension<TraceContext>>,
    uri: Uri,
    headers: HeaderMap,
    query: Result<Pairs, axum::extract::rejection::QueryRejection>,
    body: Body,
) -> Result<Response, Problem> {
    Claims::require(claims.can_publish, "can_publish")?;
    let sdp = offered(&context, &headers, body).await?;
    let Query(pairs) = query.map_err(|_| Problem::new(ErrorCode::BadOptions, "The query cannot be read."))?;
    let links = links(&context, &claims);
    let (options, caller) = (from_query(pairs)?, span.map(|Extension(span)| span));
    let request = OpenRequest { sdp, options, trickle: false, signals: None, claims, address, caller };
    let (handle, answer) = open(&context, request).await?;
    let place = context.absolute(&uri, &headers, &format!("/v1/sessions/{}", handle.id()));
    Ok(created(&place, links, answer.sdp))
}

/// Trickle candidates to a session, or restart its ICE
///
/// RFC 8840, as WHIP has it. Whoever opened the session may do so without the claim.
#[utoipa::path(
    patch, path = "/v1/sessions/{id}", operation_id = "patch_session", tag = "signaling",
    params(OfSession, Precondition), security(("token" = ["can_configure"])),
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
pub(super) async fn patch_session(
    State(context): State<Arc<Context>>,
    Id(id): Id,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let claims = context.claims(&headers)?;
    let handle = context.session(&claims, &id)?;
    Claims::require(handle.may_be_ended_by(&claims), "can_configure")?;
    if handle.is_of_camera() {
        let message = "A camera's session negotiates nothing; watch it with POST /v1/whep and its name.";
        return Err(Problem::new(ErrorCode::Conflict, message));
    }
    let patch = patch_of(&context, &headers, body).await?;
    patched(handle.patch(patch).await)
}

/// Says what these endpoints take: where `OPTIONS` asks, which the layer that answers to preflights does not know, and where
/// something else came (RFC 5789 section 2.2). To be laid around that layer.
pub(super) async fn announce(request: Request, next: Next) -> Response {
    let (method, path) = (request.method().clone(), request.uri().path());
    let is_endpoint = path == "/v1/whip" || path.starts_with("/v1/whep/");
    let taken = match method {
        Method::OPTIONS | Method::POST if is_endpoint => Some((ACCEPT_POST, SDP)),
        Method::PATCH => Some((ACCEPT_PATCH, FRAGMENT)),
        _ => None,
    };
    let mut response = next.run(request).await;
    if let Some((name, kind)) = taken
        && (method == Method::OPTIONS || response.status() == StatusCode::UNSUPPORTED_MEDIA_TYPE)
    {
        response.headers_mut().insert(name, HeaderValue::from_static(kind));
    }
    response
}

/// The offer in a request, if the request is one that can be answered.
pub(super) async fn offered(context: &Context, headers: &HeaderMap, body: Body) -> Result<String, Problem> {
    body::require_type(headers, SDP)?;
    if !accepts(headers, SDP) {
        let detail = "The answer is `application/sdp`; leave `Accept` out or let it include that.";
        return Err(Problem::new(ErrorCode::UnsupportedType, detail).with_status(StatusCode::NOT_ACCEPTABLE));
    }
    let most = context.settings.limits.sdp_bytes;
    let body = body::read(body, most).await?;
    let body = body
        .ok_or_else(|| Problem::new(ErrorCode::TooLarge, format!("The session description may have {most} bytes.")))?;
    String::from_utf8(body).map_err(|_| Problem::new(ErrorCode::BadSdp, "The session description is no UTF-8 text."))
}

/// The answer to an offer, the URL at which what it made is found, and ICE servers.
pub(super) fn created(place: &str, links: Vec<HeaderValue>, answer: String) -> Response {
    let tag = Credentials::of(&answer).and_then(|credentials| entity_tag(credentials.ufrag));
    let mut response = (StatusCode::CREATED, answer).into_response();
    let out = response.headers_mut();
    out.insert(header::CONTENT_TYPE, HeaderValue::from_static(SDP));
    out.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // What a host or a user fragment holds goes into a header.
    out.extend(HeaderValue::try_from(place).map(|value| (header::LOCATION, value)));
    out.extend(tag.map(|value| (header::ETAG, value)));
    for value in links {
        out.append(header::LINK, value);
    }
    response
}

/// The patch in a request.
pub(super) async fn patch_of(context: &Context, headers: &HeaderMap, body: Body) -> Result<Patch, Problem> {
    body::require_type(headers, FRAGMENT)?;
    let if_match = headers.get(header::IF_MATCH).ok_or_else(|| {
        Problem::new(ErrorCode::PreconditionRequired, "Send `If-Match` with the ETag of the last answer.")
    })?;
    let if_match = IfMatch::parse(if_match.to_str().unwrap_or_default());
    let most = context.settings.limits.sdp_bytes;
    let body = body::read(body, most).await?;
    let body = body.ok_or_else(|| Problem::new(ErrorCode::TooLarge, format!("The fragment may have {most} bytes.")))?;
    // What is no text is no fragment either, which is looked at when the ICE session is known to be the right one.
    Ok(Patch { if_match, fragment: String::from_utf8_lossy(&body).into_owned() })
}

/// What is answered to a patch.
pub(super) fn patched(outcome: Result<Patched, Refusal>) -> Result<Response, Problem> {
    match outcome {
        Ok(Patched::Trickled) => Ok(StatusCode::NO_CONTENT.into_response()),
        Ok(Patched::Restarted { fragment, tag }) => {
            let mut response = fragment.into_response();
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(FRAGMENT));
            response.headers_mut().extend(entity_tag(&tag).map(|value| (header::ETAG, value)));
            Ok(response)
        }
        // It was read, and cannot be done (RFC 9725 section 4.3.1).
        Err(refusal) if refusal.code == ErrorCode::BadSdp => {
            Err(Problem::from(refusal).with_status(StatusCode::UNPROCESSABLE_ENTITY))
        }
        Err(refusal) => Err(refusal.into()),
    }
}

impl Context {
    /// The URL of a path, as the client reaches the server.
    pub(super) fn absolute(&self, uri: &Uri, headers: &HeaderMap, path: &str) -> String {
        if let Some(public) = &self.settings.public_url {
            return format!("{}{path}", public.trim_end_matches('/'));
        }
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let host = host.or_else(|| uri.authority().map(axum::http::uri::Authority::as_str));
        // What is in front of the listener, and may speak TLS for it, is told of by `http.public_url`.
        let scheme = if self.settings.is_secure { "https" } else { "http" };
        host.map_or_else(|| path.to_owned(), |host| format!("{scheme}://{host}{path}"))
    }
}

fn entity_tag(tag: &str) -> Option<HeaderValue> {
    HeaderValue::try_from(format!("\"{tag}\"")).ok()
}

/// The ICE servers that a client with these claims is told of.
pub(super) fn links(context: &Context, claims: &Claims) -> Vec<HeaderValue> {
    context.ice_servers(claims).iter().flat_map(links_of).collect()
}

/// A server as links tell of it, one each URL (RFC 9725 section 4.6).
fn links_of(server: &IceServer) -> impl Iterator<Item = HeaderValue> {
    let mut parameters = String::from("; rel=\"ice-server\"");
    if let (Some(username), Some(credential)) = (&server.username, &server.credential) {
        let (username, credential) = (quoted(username), quoted(credential));
        parameters += &format!("; username={username}; credential={credential}; credential-type=\"password\"");
    }
    server.urls.iter().filter_map(move |url| {
        let mut value = HeaderValue::try_from(format!("<{url}>{parameters}")).ok()?;
        value.set_sensitive(true);
        Some(value)
    })
}

/// RFC 9110 section 5.6.4.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Whether the client takes this type (RFC 9110 section 12.5.1).
fn accepts(headers: &HeaderMap, kind: &str) -> bool {
    let mut values = headers.get_all(header::ACCEPT).iter().peekable();
    if values.peek().is_none() {
        return true;
    }
    let family = kind.split('/').next().unwrap_or_default();
    let ranges = values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    // The most exact range decides.
    let weighed = ranges.filter_map(|range| {
        let mut parts = range.split(';').map(str::trim);
        let exactness = match parts.next()?.to_ascii_lowercase() {
            name if name == kind => 2,
            name if name.strip_suffix("/*") == Some(family) => 1,
            name if name == "*/*" => 0,
            _ => return None,
        };
        let weight = parts.find_map(|part| part.strip_prefix("q=")).map_or(1.0, |q| q.parse().unwrap_or(0.0_f32));
        Some((exactness, weight > 0.0))
    });
    weighed.max().is_some_and(|(_, wanted)| wanted)
}

/// Options as a query has them: `classes` as names between commas or as JSON, texts as they are, anything else as JSON.
pub(super) fn from_query(pairs: Vec<(String, String)>) -> Result<OptionsPatch, Problem> {
    const TEXTS: [&str; 3] = ["model", "return", "format"];
    let mut object = Map::new();
    for (key, text) in pairs {
        let value = match serde_json::from_str(&text) {
            _ if TEXTS.contains(&key.as_str()) => Value::String(text),
            Ok(value @ Value::Array(_)) => value,
            _ if key == "classes" => text.split(',').map(str::to_owned).collect(),
            // What is given is not passed over: who wants none leaves it out.
            Ok(Value::Null) | Err(_) => Value::String(text),
            Ok(value) => value,
        };
        if object.insert(key, value).is_some() {
            return Err(Problem::new(ErrorCode::BadOptions, "An option is there twice; give each once."));
        }
    }
    Ok(options::parse(Value::Object(object))?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use saccade_signaling::ReturnMode;

    use super::*;

    #[test]
    fn options_are_read_from_a_query() {
        let read = |pairs: &[(&str, &str)]| {
            from_query(pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
        };
        let patch = read(&[
            ("model", "1"),
            ("return", "results"),
            ("budget_ms", "80"),
            ("track", "false"),
            ("classes", "head,hard hat"),
            ("overlay", r#"{"timing":true}"#),
        ])
        .unwrap();
        assert_eq!((patch.model.as_deref(), patch.return_mode), (Some("1"), Some(ReturnMode::Results)));
        assert_eq!((patch.budget_ms, patch.track), (Some(80), Some(false)));
        assert_eq!(patch.classes.unwrap(), ["head", "hard hat"]);
        assert_eq!(patch.overlay.unwrap().timing, Some(true));
        assert_eq!(read(&[("classes", r#"["a,b"]"#)]).unwrap().classes.unwrap(), ["a,b"]);
        assert_eq!(read(&[]).unwrap(), OptionsPatch::default());
        let twice = &[("track", "true"), ("track", "false")];
        for bad in [&[("colour", "red")][..], &[("budget_ms", "soon")], &[("budget_ms", "null")], twice] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_most_exact_range_decides_what_is_accepted() {
        let accepts = |values: &[&'static str]| {
            let values = values.iter().map(|value| (header::ACCEPT, HeaderValue::from_static(value)));
            accepts(&values.collect(), SDP)
        };
        for good in [&[][..], &["*/*"], &["text/html, application/*;q=0.1"], &["text/html", "Application/SDP"]] {
            assert!(accepts(good), "{good:?}");
        }
        for bad in [&["text/html"][..], &["application/json"], &["*/*, application/sdp;q=0"], &[""]] {
            assert!(!accepts(bad), "{bad:?}");
        }
    }

    #[test]
    fn ice_servers_are_links() {
        let server = IceServer {
            urls: vec!["turn:turn.example?transport=udp".into(), "turns:turn.example".into()],
            username: Some("me\"".into()),
            credential: Some("a\\b".into()),
        };
        let shown: Vec<_> = links_of(&server).collect();
        assert_eq!(
            shown[0],
            r#"<turn:turn.example?transport=udp>; rel="ice-server"; username="me\""; credential="a\\b"; credential-type="password""#
        );
        assert_eq!(shown.len(), 2);
        let open = IceServer { urls: vec!["stun:stun.example".into()], username: None, credential: None };
        assert_eq!(links_of(&open).next().unwrap(), r#"<stun:stun.example>; rel="ice-server""#);
    }
}

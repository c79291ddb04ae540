//! `POST /v1/detect`: what models find in still pictures, one as the body or several as a form.

mod bodies;
mod many;
mod query;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Uri, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use saccade_signaling::{ErrorCode, Options, OptionsPatch};

use super::auth::{Caller, Claims};
use super::openapi::parameters::{CacheControl, IfNoneMatch, PictureOptions};
use super::openapi::{BadRequest, Slow, TooLarge, Unprocessable, UnsupportedType, shapes::names as shape};
use super::results::{self, Origin};
use super::{Context, Problem};
use crate::cache::{Forgotten, Reuse, Tag};
use crate::clock;
use crate::session::{Refusal, Work};
use crate::traces::{Context as TraceContext, Trail};

pub(super) use bodies::Uploads;

/// Types of bodies and parts that are taken; what a picture really is, its bytes say.
const TYPES: &str = "image/jpeg, image/png or image/webp, or several of these as multipart/form-data";
/// When to try again after there was no room.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Bounds of requests with pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Bytes of one picture (`limits.image_bytes`).
    pub picture_bytes: usize,
    /// Pictures of one request (`limits.images`).
    pub pictures: u32,
    /// Bytes of pictures that may be received at a time, of all requests together.
    pub received_bytes: usize,
    /// From a request's head to the end of its body; default 20 s.
    pub timeout: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { picture_bytes: 16 << 20, pictures: 16, received_bytes: 256 << 20, timeout: Duration::from_secs(20) }
    }
}

/// A format that an annotated picture is returned in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Annotate {
    /// Small, with losses.
    Jpeg,
    /// Without losses.
    Png,
}

impl Annotate {
    /// Its media type.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Jpeg => "image/jpeg",
            Self::Png => "image/png",
        }
    }
}

impl fmt::Display for Annotate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.content_type())
    }
}

/// A picture of a request, as it came.
#[derive(Debug, Clone)]
pub struct Picture {
    /// A JPEG, PNG or WebP, or anything else.
    pub bytes: Bytes,
    /// Its place in the request, from 0.
    pub place: u32,
    /// What the request calls it.
    pub name: Option<String>,
    /// When its last byte came: its budget counts from then.
    pub arrived: Instant,
    /// What is done for it, where that is traced.
    pub trail: Trail,
}

impl Picture {
    /// The same, traced if it is to be, as a part of the request that `caller` is of.
    fn traced(self, context: &Context, caller: Option<&TraceContext>) -> Self {
        let trail = context.settings.tracer.work("picture", caller, self.arrived);
        trail.note(|| {
            vec![("saccade.picture.place", self.place.into()), ("saccade.picture.bytes", self.bytes.len().into())]
        });
        Self { trail, ..self }
    }
}

/// What is wanted of all pictures of a request.
#[derive(Debug, Clone, PartialEq)]
pub struct Order {
    /// In force.
    pub options: Options,
    /// Whether the picture with what was found drawn on it is wanted, too.
    pub annotate: Option<Annotate>,
    /// Whether that goes into the result; else it takes the result's place.
    pub inline: bool,
    /// What decides which of a split route's models is asked; none: the picture itself.
    pub key: Option<String>,
    /// Which answers that were given before are good enough.
    pub reuse: Reuse,
    /// What the answers are to be forgotten by, beside their models.
    pub tags: Vec<Tag>,
}

/// The answer to one picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tell {
    /// JSON, or a picture.
    pub body: Bytes,
    /// Which of them.
    pub content_type: &'static str,
    /// Where it came from, where answers are given again.
    pub origin: Option<Origin>,
}

/// Finds things in still pictures.
#[async_trait]
pub trait Stills: Send + Sync {
    /// What is in force for somebody who asks for this.
    ///
    /// # Errors
    /// [`Refusal`] with `forbidden`, `unknown_model` or `bad_options`.
    fn options(&self, patch: &OptionsPatch, claims: &Claims) -> Result<Options, Refusal>;

    /// Takes one picture through. Dropping the future withdraws it.
    ///
    /// # Errors
    /// [`Refusal`] with `unsupported_type`, `too_large`, `decode_failed`, `unknown_model`, `capacity`, `model_failed`,
    /// `draining` or `internal`.
    async fn detect(&self, picture: Picture, order: Arc<Order>) -> Result<Tell, Refusal>;

    /// Forgets all answers with a tag; `None` where none are given again.
    async fn forget(&self, _tag: &Tag) -> Option<Forgotten> {
        None
    }
}

/// What a request's body is, by its header.
enum Shape {
    One,
    Many { boundary: String },
}

/// Find things in still pictures
///
/// One as the body, or several as a form; what a picture is, its bytes say. With `Accept: text/event-stream` each result is an
/// event of its own, as soon as it is there. A picture may have 16 MiB (`limits.image_bytes`) and 16 megapixels.
#[utoipa::path(
    post, path = "/v1/detect", operation_id = "detect", tag = "stills",
    params(PictureOptions, IfNoneMatch, CacheControl), security(("token" = ["can_publish"])),
    request_body(content(
        ("image/jpeg"), ("image/png"), ("image/webp"), ("application/octet-stream"),
        (shape::PictureForm = "multipart/form-data")
    )),
    responses(
        (
            status = 200, description = "What was found: of one picture, of several, or, with `annotate`, a picture.",
            content(
                (shape::Found = "application/json"), ("image/jpeg"), ("image/png"),
                (String = "text/event-stream", extensions(("x-item-schema" = json!({ "$ref": "#/components/schemas/Found" }))))
            ),
            headers(
                ("ETag" = String, description = "Of the answer."),
                ("X-Cache" = String, description = "`HIT` where the answer was given before, else `MISS`."),
                ("Cache-Status" = String, description = "The same with the reason (RFC 9211)."),
                ("Age" = u64, description = "Seconds since the answer was computed."),
            )
        ),
        (status = 304, description = "The client has it."),
        BadRequest, Slow, TooLarge, UnsupportedType, Unprocessable
    )
)]
pub(super) async fn detect(
    State(context): State<Arc<Context>>,
    Caller { claims, .. }: Caller,
    span: Option<Extension<TraceContext>>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let caller = span.map(|Extension(span)| span);
    let begun = begin(&context, &claims, &uri, &headers);
    let (order, shape) = match begun {
        Ok(begun) => begun,
        Err(problem) => {
            bodies::discard(body, &context.settings.stills).await;
            return Err(problem);
        }
    };
    let streams = wants_events(&headers);
    match shape {
        Shape::One if streams => {
            let (picture, held) = bodies::whole(&context, &headers, body).await?;
            let picture = picture.traced(&context, caller.as_ref());
            Ok(many::events(many::single(context, (picture, held), Arc::new(Order { inline: true, ..order }))))
        }
        Shape::One => {
            let (picture, room) = bodies::whole(&context, &headers, body).await?;
            let picture = picture.traced(&context, caller.as_ref());
            let Tell { body, content_type, origin } = context.stills.detect(picture, Arc::new(order)).await?;
            let body = room.keep(&context.uploads, body)?;
            let response = ([(header::CONTENT_TYPE, content_type)], body).into_response();
            Ok(results::finish(response, &[origin], &headers))
        }
        Shape::Many { boundary } => {
            let order = Arc::new(Order { inline: true, ..order });
            let entries = many::parts(context, body, boundary, order, caller);
            if streams { Ok(many::events(entries)) } else { many::list(entries, &headers).await }
        }
    }
}

/// Everything that is checked before the body is read.
fn begin(context: &Context, claims: &Claims, uri: &Uri, headers: &HeaderMap) -> Result<(Order, Shape), Problem> {
    Claims::require(claims.can_publish, "can_publish")?;
    if claims.session.is_some() {
        let message = "The token is for one session; ask for one without `session` to send pictures.";
        return Err(Problem::new(ErrorCode::Forbidden, message));
    }
    if context.registry.is_draining() {
        return Err(context.registry.refuse_draining().into());
    }
    context.registry.spare(Work::Picture)?;
    let shape = shape(headers)?;
    let query::Query { patch, annotate, key, tags } = query::Query::read(uri.query().unwrap_or_default())?;
    let options = context.stills.options(&patch, claims)?;
    Ok((Order { options, annotate, inline: false, key, reuse: results::reuse(headers), tags }, shape))
}

fn shape(headers: &HeaderMap) -> Result<Shape, Problem> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else { return Ok(Shape::One) };
    let value = value.to_str().unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("multipart/form-data") {
        let boundary = multer::parse_boundary(value);
        let boundary = boundary.map_err(|_| Problem::new(ErrorCode::BadRequest, "The form's type has no boundary."))?;
        return Ok(Shape::Many { boundary });
    }
    if is_taken(essence) { Ok(Shape::One) } else { Err(unsupported()) }
}

/// Whether something of this media type may be a picture that is read.
fn is_taken(essence: &str) -> bool {
    let taken = ["image/jpeg", "image/jpg", "image/png", "image/webp", "image/*", "application/octet-stream"];
    taken.iter().any(|taken| essence.eq_ignore_ascii_case(taken))
}

fn unsupported() -> Problem {
    Problem::new(ErrorCode::UnsupportedType, format!("Send {TYPES}."))
}

fn wants_events(headers: &HeaderMap) -> bool {
    let mut accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.any(|value| {
        let mut kinds = value.split(',').filter_map(|kind| kind.split(';').next());
        kinds.any(|kind| kind.trim().eq_ignore_ascii_case("text/event-stream"))
    })
}

/// A picture that came now.
fn picture(bytes: Bytes, place: u32, name: Option<String>) -> Picture {
    Picture { bytes, place, name, arrived: clock::now(), trail: Trail::off() }
}

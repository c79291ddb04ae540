use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Extension, State};
use axum::http::HeaderMap;
use saccade_signaling::{ErrorCode, OfferRequest, OfferResponse, OptionsPatch};
use serde_json::Value;

use super::auth::{Caller, Claims};
use super::openapi::{BadRequest, Slow, TooLarge, Unprocessable, UnsupportedType, wire};
use super::{Context, Problem, body, open};
use crate::session::{OpenRequest, options};
use crate::traces::Context as TraceContext;

/// Bytes of a body beyond twice its SDP (whose line ends JSON escapes): the options.
const OPTIONS_BYTES: usize = 64 * 1024;

/// Open a session by one request
///
/// The offer and its answer hold all candidates. The session is ended by `DELETE /v1/sessions/{id}`, or when its media ends.
#[utoipa::path(
    post, path = "/v1/offer", operation_id = "offer", tag = "signaling", security(("token" = ["can_publish"])),
    request_body = wire::OfferRequest,
    responses(
        (status = 200, description = "The answer.", body = wire::OfferResponse),
        BadRequest, Slow, TooLarge, UnsupportedType, Unprocessable
    )
)]
pub(super) async fn offer(
    State(context): State<Arc<Context>>,
    Caller { claims, address }: Caller,
    span: Option<Extension<TraceContext>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<OfferResponse>, Problem> {
    Claims::require(claims.can_publish, "can_publish")?;
    body::require_json(&headers)?;
    let sdp_bytes = context.settings.limits.sdp_bytes;
    let body = body::read(body, 2 * sdp_bytes + OPTIONS_BYTES).await?.ok_or_else(|| too_large(sdp_bytes))?;
    let (sdp, options) = parse(&body)?;
    if sdp.len() > sdp_bytes {
        return Err(too_large(sdp_bytes));
    }
    let caller = span.map(|Extension(span)| span);
    let request = OpenRequest { sdp, options, trickle: false, signals: None, claims, address, caller };
    let (handle, answer) = open(&context, request).await?;
    Ok(Json(OfferResponse { sdp: answer.sdp, kind: "answer".into(), session_id: handle.id().to_string() }))
}

fn parse(body: &[u8]) -> Result<(String, OptionsPatch), Problem> {
    let bad = |detail: String| Problem::new(ErrorCode::BadRequest, detail);
    let mut value: Value =
        serde_json::from_slice(body).map_err(|error| bad(format!("The body is not JSON: {error}.")))?;
    let options = value.as_object_mut().and_then(|object| object.remove("options"));
    let offer: OfferRequest =
        serde_json::from_value(value).map_err(|error| bad(format!("The body is no offer: {error}.")))?;
    if offer.kind != "offer" {
        return Err(bad("`type` has to be `offer`.".into()));
    }
    let options = options.filter(|options| !options.is_null()).map(options::parse).transpose()?;
    Ok((offer.sdp, options.unwrap_or_default()))
}

fn too_large(sdp_bytes: usize) -> Problem {
    Problem::new(ErrorCode::TooLarge, format!("The session description may have {sdp_bytes} bytes."))
}

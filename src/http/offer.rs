use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use saccade_signaling::{ErrorCode, OfferRequest, OfferResponse, OptionsPatch};
use serde_json::Value;

use super::auth::Claims;
use super::{Context, Problem, open};
use crate::session::{OpenRequest, options};

/// Bytes of a body beyond twice its SDP (whose line ends JSON escapes): the options.
const OPTIONS_BYTES: usize = 64 * 1024;

/// `POST /v1/offer`: one request opens a session; its answer holds all candidates.
pub(super) async fn offer(
    State(context): State<Arc<Context>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<OfferResponse>, Problem> {
    let claims = context.claims(&headers)?;
    Claims::require(claims.can_publish, "can_publish")?;
    if !is_json(&headers) {
        return Err(Problem::new(ErrorCode::UnsupportedType, "Send `Content-Type: application/json`."));
    }
    let sdp_bytes = context.settings.limits.sdp_bytes;
    let body = axum::body::to_bytes(body, 2 * sdp_bytes + OPTIONS_BYTES).await.map_err(|error| {
        // The limit's error is the source of axum's.
        if std::error::Error::source(&error).is_some_and(|source| source.to_string().contains("limit")) {
            too_large(sdp_bytes)
        } else {
            Problem::new(ErrorCode::BadRequest, "The body broke off; send it again.")
        }
    })?;
    let (sdp, options) = parse(&body)?;
    if sdp.len() > sdp_bytes {
        return Err(too_large(sdp_bytes));
    }
    let publisher = claims.sub.map(Into::into);
    let request = OpenRequest { sdp, options, trickle: false, signals: None, publisher };
    let (handle, answer) = open(&context.opener, request).await?;
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

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}

fn too_large(sdp_bytes: usize) -> Problem {
    Problem::new(ErrorCode::TooLarge, format!("The session description may have {sdp_bytes} bytes."))
}

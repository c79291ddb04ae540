use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use futures_util::StreamExt;
use saccade_signaling::{ErrorCode, OfferRequest, OfferResponse, OptionsPatch};
use serde_json::Value;

use super::auth::Claims;
use super::{Context, Problem, open};
use crate::session::{OpenRequest, options};

/// Bytes of a body beyond twice its SDP (whose line ends JSON escapes): the options.
const OPTIONS_BYTES: usize = 64 * 1024;
/// Bytes of a body that are read before it is given up.
const DISCARDED_BYTES: usize = 8 * 1024 * 1024;

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
    let body = read(body, 2 * sdp_bytes + OPTIONS_BYTES).await?.ok_or_else(|| too_large(sdp_bytes))?;
    let (sdp, options) = parse(&body)?;
    if sdp.len() > sdp_bytes {
        return Err(too_large(sdp_bytes));
    }
    let request = OpenRequest {
        sdp,
        options,
        trickle: false,
        signals: None,
        publisher: claims.sub.map(Into::into),
        may_configure: claims.can_configure,
        priority: claims.priority,
    };
    let (handle, answer) = open(&context, request).await?;
    Ok(Json(OfferResponse { sdp: answer.sdp, kind: "answer".into(), session_id: handle.id().to_string() }))
}

/// The body, or `None` if it has more than `most` bytes. The rest is read too, to a point: there are clients that do not
/// read an answer before they have sent everything.
async fn read(body: Body, most: usize) -> Result<Option<Vec<u8>>, Problem> {
    let (mut chunks, mut bytes, mut total) = (body.into_data_stream(), Vec::new(), 0);
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| Problem::new(ErrorCode::BadRequest, "The body broke off; send it again."))?;
        total += chunk.len();
        if total > DISCARDED_BYTES {
            break;
        }
        if total <= most {
            bytes.extend_from_slice(&chunk);
        }
    }
    Ok((total <= most).then_some(bytes))
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

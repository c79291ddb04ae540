//! Bodies of requests, of bounded size.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use futures_util::StreamExt;
use saccade_signaling::ErrorCode;

use super::Problem;

/// Bytes of a body that are read before it is given up.
const DISCARDED_BYTES: usize = 8 * 1024 * 1024;

/// From a request's head to the end of its body; whoever sends it slower is told so.
const TIMEOUT: Duration = Duration::from_secs(15);

/// The body, or `None` if it has more than `most` bytes. The rest is read too, to a point: there are clients that do not
/// read an answer before they have sent everything.
pub(super) async fn read(body: Body, most: usize) -> Result<Option<Vec<u8>>, Problem> {
    let late = |_| {
        let problem = Problem::new(ErrorCode::BadRequest, "The body took too long; send it again, and faster.");
        problem.with_status(StatusCode::REQUEST_TIMEOUT)
    };
    tokio::time::timeout(TIMEOUT, read_all(body, most)).await.map_err(late)?
}

async fn read_all(body: Body, most: usize) -> Result<Option<Vec<u8>>, Problem> {
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

/// Passes if the body is said to be JSON.
pub(super) fn require_json(headers: &HeaderMap) -> Result<(), Problem> {
    require_type(headers, "application/json")
}

/// Passes if the body is said to be of this type.
pub(super) fn require_type(headers: &HeaderMap, kind: &str) -> Result<(), Problem> {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case(kind) {
        return Ok(());
    }
    Err(Problem::new(ErrorCode::UnsupportedType, format!("Send `Content-Type: {kind}`.")))
}

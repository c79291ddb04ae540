use std::any::Any;
use std::borrow::Cow;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use saccade_signaling::ErrorCode;

use crate::session::Refusal;

/// An error as HTTP says it: `application/problem+json` (RFC 9457) with a stable code.
#[derive(Debug, Clone)]
pub struct Problem {
    pub(super) status: StatusCode,
    pub(super) code: ErrorCode,
    pub(super) detail: Cow<'static, str>,
    pub(super) retry_after: Option<Duration>,
}

impl Problem {
    /// A problem with the status that belongs to its code. `detail` says what to do.
    #[must_use]
    pub fn new(code: ErrorCode, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { status: status_of(code), code, detail: detail.into(), retry_after: None }
    }

    /// The same with another status.
    #[must_use]
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// No session has this id, or it is not the caller's to know.
    pub(super) fn no_such_session() -> Self {
        Self::new(ErrorCode::NotFound, "There is no such session; it may have ended.")
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let Refusal { code, message, retry_after, is_own_fault } = refusal;
        let problem = Self { retry_after, ..Self::new(code, message) };
        if is_own_fault { problem.with_status(StatusCode::TOO_MANY_REQUESTS) } else { problem }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> axum::response::Response {
        let body = saccade_signaling::Problem {
            code: self.code,
            title: title_of(self.code).to_owned(),
            detail: self.detail.into_owned(),
            status: self.status.as_u16(),
        };
        let mut response = (self.status, axum::Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(wait) = self.retry_after {
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        // Statuses that have to name what is missing (RFC 9110 sections 15.5.2 and 15.5.22).
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        } else if self.status == StatusCode::UPGRADE_REQUIRED {
            headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        }
        response
    }
}

pub(super) async fn not_found() -> Problem {
    Problem::new(ErrorCode::NotFound, "There is nothing at this path.")
}

pub(super) async fn method_not_allowed() -> Problem {
    Problem::new(ErrorCode::BadRequest, "This path does not take this method; the `allow` header lists those it takes.")
        .with_status(StatusCode::METHOD_NOT_ALLOWED)
}

/// A handler panicked: the client learns that the fault is ours, the log what it was.
#[expect(clippy::needless_pass_by_value, reason = "tower-http's signature")]
pub(super) fn panicked(panic: Box<dyn Any + Send>) -> Response<Body> {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
    tracing::error!(panic = text, "a request handler panicked");
    Problem::new(ErrorCode::Internal, "The server failed on this request; report it with the server's log.")
        .into_response()
}

const fn status_of(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::BadRequest | ErrorCode::BadSdp => StatusCode::BAD_REQUEST,
        ErrorCode::NoCommonCodec
        | ErrorCode::NoVideo
        | ErrorCode::UnknownModel
        | ErrorCode::BadOptions
        | ErrorCode::DecodeFailed => StatusCode::UNPROCESSABLE_ENTITY,
        ErrorCode::Unauthorized => StatusCode::UNAUTHORIZED,
        ErrorCode::Forbidden => StatusCode::FORBIDDEN,
        ErrorCode::NotFound => StatusCode::NOT_FOUND,
        ErrorCode::Conflict => StatusCode::CONFLICT,
        ErrorCode::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
        ErrorCode::PreconditionRequired => StatusCode::PRECONDITION_REQUIRED,
        ErrorCode::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorCode::UnsupportedType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        ErrorCode::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        ErrorCode::Capacity | ErrorCode::Draining | ErrorCode::ModelFailed => StatusCode::SERVICE_UNAVAILABLE,
        ErrorCode::IceTimeout | ErrorCode::DtlsFailed => StatusCode::GATEWAY_TIMEOUT,
        ErrorCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

const fn title_of(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::BadRequest => "The request is not understood",
        ErrorCode::BadSdp => "The session description cannot be used",
        ErrorCode::NoCommonCodec => "No common video codec",
        ErrorCode::NoVideo => "The offer sends no video",
        ErrorCode::UnknownModel => "Unknown model",
        ErrorCode::BadOptions => "Bad options",
        ErrorCode::Unauthorized => "A valid token is needed",
        ErrorCode::Forbidden => "Not allowed",
        ErrorCode::Capacity => "The server is full",
        ErrorCode::RateLimited => "Too many requests",
        ErrorCode::IceTimeout => "No network path",
        ErrorCode::DtlsFailed => "The secure handshake failed",
        ErrorCode::DecodeFailed => "The video or picture cannot be decoded",
        ErrorCode::ModelFailed => "The model cannot run",
        ErrorCode::NotFound => "Not found",
        ErrorCode::Conflict => "At odds with the present state",
        ErrorCode::PreconditionFailed => "A precondition does not hold",
        ErrorCode::PreconditionRequired => "A precondition is missing",
        ErrorCode::TooLarge => "Too large",
        ErrorCode::UnsupportedType => "Unsupported media type",
        ErrorCode::Draining => "The server is shutting down",
        ErrorCode::Internal => "A fault of the server",
    }
}

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response as Answer};

use super::views::InferenceError;
use crate::kserve::access::Denied;
use crate::kserve::error::Error;

/// Why there is no answer, as clients of the protocol read it: `{"error": …}`, and our code beside it.
#[derive(Debug)]
pub(super) enum Failure {
    Error(Error),
    Denied(Denied),
    Nothing,
    WrongMethod,
    Slow,
    BrokeOff,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<Denied> for Failure {
    fn from(denied: Denied) -> Self {
        Self::Denied(denied)
    }
}

impl Failure {
    /// Its status, and the stable code beside it.
    const fn coded(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Error(error) => of(error),
            Self::Denied(Denied::Unauthenticated) => (StatusCode::UNAUTHORIZED, "unauthorized"),
            Self::Denied(_) => (StatusCode::FORBIDDEN, "forbidden"),
            Self::Nothing => (StatusCode::NOT_FOUND, "not_found"),
            Self::WrongMethod => (StatusCode::METHOD_NOT_ALLOWED, "bad_request"),
            Self::Slow => (StatusCode::REQUEST_TIMEOUT, "bad_request"),
            Self::BrokeOff => (StatusCode::BAD_REQUEST, "bad_request"),
        }
    }

    /// As traces have it.
    pub(super) const fn kind(&self) -> &'static str {
        self.coded().1
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Answer {
        let (status, code) = self.coded();
        // Memory does not come back in a moment.
        let retry_after = if matches!(self, Self::Error(Error::NoMemory)) { "5" } else { "1" };
        let text = match self {
            Self::Error(error) => sentence(&error.to_string()),
            Self::Denied(denied) => denied.to_string(),
            Self::Nothing => "There is nothing at this path.".to_owned(),
            Self::WrongMethod => {
                "This path does not take this method; the `allow` header lists those it takes.".to_owned()
            }
            Self::Slow => "The body took too long; send it again, and faster.".to_owned(),
            Self::BrokeOff => "The body broke off; send it again.".to_owned(),
        };
        let mut answer = (status, no_store(), Json(InferenceError { error: text, code })).into_response();
        if status == StatusCode::UNAUTHORIZED {
            answer.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        } else if status == StatusCode::SERVICE_UNAVAILABLE {
            answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(retry_after));
        } else if status == StatusCode::PAYLOAD_TOO_LARGE {
            // The rest of it is not read.
            answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        answer
    }
}

const fn of(error: &Error) -> (StatusCode, &'static str) {
    match error {
        Error::Malformed { .. }
        | Error::BadTensor { .. }
        | Error::WrongInput { .. }
        | Error::Inputs { .. }
        | Error::NoOutput { .. }
        | Error::Unsupported { .. } => (StatusCode::BAD_REQUEST, "bad_request"),
        Error::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
        Error::UnknownModel { .. } => (StatusCode::NOT_FOUND, "unknown_model"),
        Error::NotReady { .. } => (StatusCode::SERVICE_UNAVAILABLE, "model_failed"),
        Error::Busy | Error::NoMemory => (StatusCode::SERVICE_UNAVAILABLE, "capacity"),
        Error::Late => (StatusCode::GATEWAY_TIMEOUT, "capacity"),
        Error::Failed { .. } => (StatusCode::INTERNAL_SERVER_ERROR, "model_failed"),
        Error::Conflict { .. } => (StatusCode::CONFLICT, "conflict"),
    }
}

fn sentence(text: &str) -> String {
    let mut text = format!("{text}.");
    if let Some(first) = text.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    text
}

/// Nobody in between keeps it.
pub(super) const fn no_store() -> [(header::HeaderName, &'static str); 1] {
    [(header::CACHE_CONTROL, "no-store")]
}

use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderMap;
use metrics::{counter, histogram};

use super::error::Error;
use super::{Named, Request, Response};
use crate::claims::Claims;
use crate::clock;

/// What the `authorization` among headers or metadata allows; `None`: it is missing or not valid.
pub type Identify = Arc<dyn Fn(&HeaderMap) -> Option<Claims> + Send + Sync>;

/// The caller may not do this.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// Nobody says who asks.
    #[error("Send `authorization: Bearer` with a valid token.")]
    Unauthenticated,
    /// The token does not allow it.
    #[error("The token lacks `{claim}`; ask for one that has it.")]
    Lacks {
        /// Name of the claim.
        claim: &'static str,
    },
    /// The token is for a session, which this is no part of.
    #[error("The token is for one session; ask for one without `session` to {act}.")]
    Session {
        /// What was asked for.
        act: &'static str,
    },
    /// The token is for other models.
    #[error("The token does not allow model `{model}`; ask for one that names it.")]
    Model {
        /// As asked for.
        model: String,
    },
}

/// Whether the bearer may know of a model.
///
/// # Errors
/// [`Denied::Model`].
pub fn may_see(claims: &Claims, model: Named<'_>) -> Result<(), Denied> {
    if claims.may_use(&model.id()) { Ok(()) } else { Err(Denied::Model { model: model.id() }) }
}

/// Whether the bearer may send tensors at all, which is to be known before room is made for them.
///
/// # Errors
/// [`Denied::Lacks`], [`Denied::Session`].
pub fn may_send(claims: &Claims) -> Result<(), Denied> {
    if !claims.can_publish {
        return Err(Denied::Lacks { claim: "can_publish" });
    }
    if claims.session.is_some() { Err(Denied::Session { act: "send tensors" }) } else { Ok(()) }
}

/// Whether the bearer may have a model run.
///
/// # Errors
/// Those of [`may_send`], [`Denied::Model`].
pub fn may_infer(claims: &Claims, model: Named<'_>) -> Result<(), Denied> {
    may_send(claims)?;
    may_see(claims, model)
}

/// Whether the bearer may load and unload models of this name.
///
/// # Errors
/// [`Denied::Lacks`], [`Denied::Session`], [`Denied::Model`].
pub fn may_manage(claims: &Claims, model: Named<'_>) -> Result<(), Denied> {
    if !claims.can_manage_models {
        return Err(Denied::Lacks { claim: "can_manage_models" });
    }
    if claims.session.is_some() {
        return Err(Denied::Session { act: "load and unload models" });
    }
    may_see(claims, model)
}

/// Counts and times a request for the metrics.
///
/// # Errors
/// Those of the request.
pub async fn measured(
    protocol: &'static str,
    request: Request,
    infer: impl AsyncFnOnce(Request) -> Result<Response, Error>,
) -> Result<Response, Error> {
    let begin = clock::now();
    let received: usize = request.inputs.iter().map(|tensor| tensor.data.len()).sum();
    let result = infer(request).await;
    let took: Duration = clock::now().saturating_duration_since(begin);
    histogram!("saccade_tensor_request_seconds", "protocol" => protocol).record(took);
    count(protocol, result.as_ref().err());
    let sent = result.as_ref().map_or(0, |response| response.outputs.iter().map(|tensor| tensor.data.len()).sum());
    for (direction, bytes) in [("in", received), ("out", sent)] {
        counter!("saccade_tensor_bytes_total", "protocol" => protocol, "direction" => direction)
            .increment(u64::try_from(bytes).unwrap_or(u64::MAX));
    }
    result
}

/// Counts a request that was refused before it came to a model, or one that came to it.
pub fn count(protocol: &'static str, error: Option<&Error>) {
    let outcome = error.map_or("done", Error::outcome);
    counter!("saccade_tensor_requests_total", "protocol" => protocol, "outcome" => outcome).increment(1);
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn each_act_takes_its_claim_and_its_model() {
        let model = Named { name: "a", version: Some("2") };
        let nothing = Claims::default();
        assert_eq!(may_see(&nothing, model), Ok(()));
        assert_eq!(may_infer(&nothing, model), Err(Denied::Lacks { claim: "can_publish" }));
        assert_eq!(may_manage(&nothing, model), Err(Denied::Lacks { claim: "can_manage_models" }));
        let bound = Claims { models: vec!["a@1".to_owned()], ..Claims::everything() };
        for may in [may_see, may_infer, may_manage] {
            assert_eq!(may(&Claims::everything(), model), Ok(()));
            assert_eq!(may(&bound, model), Err(Denied::Model { model: "a@2".to_owned() }));
            assert_eq!(may(&bound, Named { name: "a", version: Some("1") }), Ok(()));
        }
        let of_session = Claims { session: Some("s".to_owned()), ..Claims::everything() };
        assert_eq!(may_see(&of_session, model), Ok(()));
        for may in [may_infer, may_manage] {
            let denied = may(&of_session, model).unwrap_err();
            assert!(matches!(denied, Denied::Session { .. }), "{denied}");
            assert!(denied.to_string().contains("without `session`"), "{denied}");
        }
    }
}

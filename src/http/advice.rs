//! `GET /v1/advice`: what limits the server, and what to change.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use saccade_signaling::{AdviceView, ErrorCode};

use super::api::{NO_STORE, may_view};
use super::openapi::wire;
use super::{Context, Problem};

/// What limits the server, as the last minute of its own metrics, or its last seconds, show it. Must be quick.
pub type Advice = Arc<dyn Fn() -> AdviceView + Send + Sync>;

/// Ask what limits the server
///
/// Whether decoding, models, encoding, the network, batches, memory, the result cache or an idle GPU do, as the last minute
/// shows it, or its last 15 seconds where those are worse, each with the numbers that speak for it and a setting to change. It
/// is about all sessions together, so that a token for one session does not see it.
#[utoipa::path(
    get, path = "/v1/advice", operation_id = "get_advice", tag = "server", security(("token" = ["can_view"])),
    responses((status = 200, description = "What limits the server; no findings where nothing does.", body = wire::AdviceView))
)]
pub(super) async fn advise(
    State(context): State<Arc<Context>>,
    headers: HeaderMap,
) -> Result<([(HeaderName, HeaderValue); 1], Json<AdviceView>), Problem> {
    let claims = may_view(context.claims(&headers)?)?;
    if claims.session.is_some() {
        let message = "The token is for one session; ask for one without `session` to see what limits the server.";
        return Err(Problem::new(ErrorCode::Forbidden, message));
    }
    Ok(([NO_STORE], Json((context.settings.advice)())))
}

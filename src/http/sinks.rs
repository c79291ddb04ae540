//! `GET /v1/sinks`: what becomes of the messages to webhooks, MQTT brokers and NATS servers.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use saccade_signaling::{ErrorCode, SinkView};

use super::api::{NO_STORE, may_view};
use super::openapi::wire;
use super::{Context, Problem};

/// The sinks of the configuration, for clients.
pub trait Sinks: Send + Sync {
    /// All of them, in the order of the configuration.
    fn list(&self) -> Vec<SinkView>;
}

/// List the sinks
///
/// What becomes of the messages to webhooks, MQTT brokers and NATS servers. They tell of all sessions together, so that a
/// token for one session does not see them.
#[utoipa::path(
    get, path = "/v1/sinks", operation_id = "list_sinks", tag = "sinks", security(("token" = ["can_view"])),
    responses((status = 200, description = "The sinks, in the order of the configuration.", body = Vec<wire::SinkView>))
)]
pub(super) async fn list(
    State(context): State<Arc<Context>>,
    headers: HeaderMap,
) -> Result<([(HeaderName, HeaderValue); 1], Json<Vec<SinkView>>), Problem> {
    let claims = may_view(context.claims(&headers)?)?;
    if claims.session.is_some() {
        let message = "The token is for one session; ask for one without `session` to see sinks.";
        return Err(Problem::new(ErrorCode::Forbidden, message));
    }
    Ok(([NO_STORE], Json(context.sinks.list())))
}

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use tonic::Status;
use tower::util::option_layer;
use tower_http::catch_panic::CatchPanicLayer;

use super::auth::{self, Verifier, bearer};
use super::guard::wait_before_next;
use super::{Context, Gate, Settings, trace};
use crate::claims::Claims;
use crate::kserve::{Identify, Models, grpc, rest};

/// Name and version of the server.
const SERVER: (&str, &str) = ("saccade", env!("CARGO_PKG_VERSION"));
/// Messages with tensors that are in memory at a time.
const MESSAGES: usize = 16;

/// The inference protocol, below `/v2`.
pub(super) fn routes(context: &Arc<Context>, models: Arc<dyn Models>) -> Router {
    let known = Arc::clone(context);
    let identify: Identify = Arc::new(move |headers| known.claims(headers).ok());
    let tracer = context.settings.tracer.clone();
    rest::Service::new(models, identify, context.settings.tensor_bytes, SERVER, tracer).router()
}

/// The inference protocol over gRPC, to be served by HTTP/2.
///
/// # Errors
/// [`auth::Error`] when the authentication settings cannot be used.
pub fn grpc_router(settings: &Settings, models: Arc<dyn Models>) -> Result<Router, auth::Error> {
    let verifier = settings.auth.as_ref().map(Verifier::new).transpose()?;
    let identify = move |headers: &HeaderMap| match &verifier {
        None => Some(Claims::everything()),
        Some(verifier) => verifier.verify(bearer(headers)?),
    };
    let tracer = settings.tracer.clone();
    let service =
        grpc::Service::new(models, Arc::new(identify), settings.tensor_bytes, SERVER, MESSAGES, tracer.clone());
    let router = service.router().layer(from_fn_with_state(Arc::clone(&settings.gate), hold));
    let router = router.layer(option_layer(tracer.is_on().then(|| from_fn_with_state(tracer, trace::trace))));
    Ok(router.layer(CatchPanicLayer::custom(|_| {
        tracing::error!("a call of gRPC panicked");
        grpc::status(&Status::internal("the server failed on this call; report it with the server's log"))
    })))
}

/// Holds calls to the rate of their address, as requests are.
async fn hold(State(gate): State<Arc<Gate>>, request: Request, next: Next) -> Response {
    match wait_before_next(&gate, &request) {
        None => next.run(request).await,
        Some(wait) => {
            let text = format!("too many calls come from this address; wait {} s", wait.as_secs_f32().ceil());
            grpc::status(&Status::resource_exhausted(text)).into_response()
        }
    }
}

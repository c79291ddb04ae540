//! The outside of the server over HTTP: signaling endpoints, the APIs of sessions, cameras, models, routes, pictures, tensors, sinks
//! and history, the pages, and the operators' listener.
//!
//! What enters: requests. What leaves: answers, and calls of [`Opener`], [`Registry`] and [`Handle`]. Everything runs
//! on Tokio's workers, so nothing here blocks, decodes or infers. Every error is `application/problem+json` with a
//! stable code.

mod address;
mod advice;
mod api;
mod assets;
pub mod auth;
mod body;
mod cameras;
mod cluster;
mod connection;
mod gate;
mod guard;
mod history;
mod http2;
mod kserve;
mod listen;
mod measure;
mod models;
mod offer;
mod openapi;
mod ops;
mod origin;
mod problem;
mod profiles;
mod results;
mod routes;
mod signal;
mod sinks;
mod status;
mod stills;
pub mod tls;
mod trace;
mod whep;
mod whip;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{any, post};
use saccade_signaling::{AdviceView, ErrorCode, IceServer, Limits, MAX_MESSAGE_BYTES, MAX_SDP_BYTES};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;
use tower::util::option_layer;
use tower_http::CompressionLevel;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::cors::{AllowOrigin, CorsLayer};
use tower_http::set_header::SetResponseHeaderLayer;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouterExt};
use utoipa_axum::routes;

use crate::claims::Claims;
use crate::cluster::Cluster;
use crate::session::{Answer, EndReason, Handle, OpenRequest, Opener, Rate, Refusal, Registry};
use crate::traces::Tracer;
use crate::{clock, history as store, ice};

pub use advice::Advice;
pub use cameras::Cameras;
pub use gate::{Gate, Quota};
pub use kserve::grpc_router;
pub use listen::{Door, Protocol, listen};
pub use models::Models;
pub use ops::{Check, Ops, router as ops_router};
pub use problem::Problem;
pub use results::Origin;
pub use routes::Routes;
pub use sinks::Sinks;
pub use status::Queues;
pub use stills::{Annotate, Bounds, Order, Picture, Stills, Tell};

/// What the page may load: its own files, and nothing of anybody else. `blob:` is the camera, recordings and pictures
/// that the page makes itself.
const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; connect-src 'self'; media-src 'self' blob:; \
     img-src 'self' data: blob:; style-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'self'";
/// What the page may ask its user for; frames in it may ask for nothing.
const PERMISSIONS_POLICY: &str =
    "camera=(self), display-capture=(self), microphone=(), geolocation=(), payment=(), usb=(), serial=()";
/// How long browsers keep to HTTPS after they have seen the page over it: a year.
const STRICT_TRANSPORT_SECURITY: &str = "max-age=31536000";

/// What the endpoints need to know of the configuration.
#[derive(Clone)]
pub struct Settings {
    /// How clients reach the server from outside (`http.public_url`).
    pub public_url: Option<String>,
    /// Origins of foreign pages that may use the server (`http.allowed_origins`); `*` allows all. The server's own
    /// origin is always allowed, and so is a client that names none, since only browsers have to.
    pub allowed_origins: Vec<String>,
    /// Whether only this machine should reach the server. Then requests whose `Host` is no loopback name, `public_url`
    /// or allowed origin are refused, which keeps foreign pages from getting in by DNS rebinding.
    pub loopback_only: bool,
    /// Announced to clients (`ice_servers`), each with credentials of its own where a TURN server takes such.
    pub ice_servers: Vec<ice::Server>,
    /// Announced to clients; the sizes of messages and SDP are enforced here.
    pub limits: Limits,
    /// Who may do what; `None`: everybody may do everything.
    pub auth: Option<auth::Settings>,
    /// What one address may ask for, and which proxies tell whose it is; by default anything, and none.
    pub gate: Arc<Gate>,
    /// Whether the listener speaks TLS itself. Then browsers are told to come by HTTPS only.
    pub is_secure: bool,
    /// From a request's head to its answer's head; default 30 s.
    pub request_timeout: Duration,
    /// From an offer to its answer, whatever the [`Opener`] does; default 20 s.
    pub open_timeout: Duration,
    /// From the opening of a socket to its token; default 5 s.
    pub auth_timeout: Duration,
    /// From the `welcome` to the first offer; default 60 s.
    pub offer_timeout: Duration,
    /// Between two pings of a socket; one that stays silent for twice as long is lost. Default 15 s.
    pub ping_interval: Duration,
    /// How long a socket may take to accept one message; default 10 s.
    pub send_timeout: Duration,
    /// Messages that a socket may send.
    pub rate: Rate,
    /// Bytes of the tensors of one request of the inference protocol (`limits.tensor_bytes`); default 64 MiB.
    pub tensor_bytes: usize,
    /// Signaling sockets at a time; default 4096. Each holds a file descriptor.
    pub max_sockets: usize,
    /// Bounds of requests with still pictures.
    pub stills: Bounds,
    /// What happened, where that is kept.
    pub history: Option<store::Reader>,
    /// How full the queues are, for whoever watches.
    pub queues: Queues,
    /// Traces requests whose senders do.
    pub tracer: Tracer,
    /// What limits the server.
    pub advice: Advice,
    /// The other servers, where this is one of several.
    pub cluster: Option<Arc<Cluster>>,
}

impl fmt::Debug for Settings {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Settings")
            .field("public_url", &self.public_url)
            .field("auth", &self.auth)
            .finish_non_exhaustive()
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            public_url: None,
            allowed_origins: Vec::new(),
            loopback_only: false,
            ice_servers: Vec::new(),
            limits: Limits {
                width: 1920,
                height: 1920,
                fps: 60,
                message_bytes: MAX_MESSAGE_BYTES,
                sdp_bytes: MAX_SDP_BYTES,
            },
            auth: None,
            gate: Arc::new(Gate::new(Quota::default(), Vec::new())),
            is_secure: false,
            request_timeout: Duration::from_secs(30),
            open_timeout: Duration::from_secs(20),
            auth_timeout: Duration::from_secs(5),
            offer_timeout: Duration::from_secs(60),
            ping_interval: Duration::from_secs(15),
            send_timeout: Duration::from_secs(10),
            rate: Rate::default(),
            tensor_bytes: 64 * 1024 * 1024,
            max_sockets: 4096,
            stills: Bounds::default(),
            history: None,
            queues: Arc::new(BTreeMap::new),
            tracer: Tracer::off(),
            advice: Arc::new(AdviceView::default),
            cluster: None,
        }
    }
}

/// What requests are handed on to.
pub struct Services {
    /// The sessions that run.
    pub registry: Arc<Registry>,
    /// Opens sessions.
    pub opener: Arc<dyn Opener>,
    /// The models.
    pub models: Arc<dyn Models>,
    /// The routes over them.
    pub routes: Arc<dyn Routes>,
    /// The cameras.
    pub cameras: Arc<dyn Cameras>,
    /// Finds things in still pictures.
    pub stills: Arc<dyn Stills>,
    /// Runs models on tensors, by the inference protocol.
    pub tensors: Arc<dyn crate::kserve::Models>,
    /// Where events and results go.
    pub sinks: Arc<dyn Sinks>,
}

/// What every handler shares.
struct Context {
    settings: Settings,
    origins: origin::Policy,
    verifier: Option<auth::Verifier>,
    services: Services,
    sockets: Arc<Semaphore>,
    uploads: stills::Uploads,
    /// Places of sockets that tell the status.
    watchers: Arc<Semaphore>,
    /// Places of exports.
    exports: Arc<Semaphore>,
    forwarding: Option<cluster::Forwarding>,
}

impl Deref for Context {
    type Target = Services;

    fn deref(&self) -> &Services {
        &self.services
    }
}

impl Context {
    /// STUN and TURN servers as this client is told of them, with credentials that count from now.
    fn ice_servers(&self, claims: &Claims) -> Vec<IceServer> {
        let now = clock::wall();
        let told = |server: &ice::Server| {
            let credentials = server.credentials(now, claims.sub.as_deref());
            let (username, credential) = credentials.map(|it| (it.username, it.credential.expose().to_owned())).unzip();
            IceServer { urls: server.urls.iter().map(ToString::to_string).collect(), username, credential }
        };
        self.settings.ice_servers.iter().map(told).collect()
    }
}

/// The routes, each with its description; those of the inference protocol are in [`kserve::routes`].
fn table() -> OpenApiRouter<Arc<Context>> {
    OpenApiRouter::default()
        .routes(routes!(signal::upgrade))
        .routes(routes!(offer::offer))
        .routes(routes!(whip::publish))
        .routes(routes!(api::list_sessions))
        .routes(routes!(api::session, whip::patch_session, api::delete_session))
        .routes(routes!(whep::watch))
        .routes(routes!(whep::patch_viewer, whep::delete_viewer))
        .routes(routes!(api::results))
        .routes(routes!(api::events))
        .routes(routes!(cameras::list))
        .routes(routes!(cameras::get))
        .routes(routes!(results::forget))
        .routes(routes!(stills::detect).layer(compressed()))
        .routes(routes!(sinks::list))
        .routes(routes!(models::list))
        .routes(routes!(models::load))
        .routes(routes!(models::unload))
        .routes(routes!(history::events))
        .routes(routes!(history::stats))
        .routes(routes!(status::upgrade))
        .routes(routes!(advice::advise))
        .routes(routes!(self::routes::list))
        .routes(routes!(self::routes::get, self::routes::put, self::routes::delete))
        .routes(routes!(openapi::serve).layer(compressed()))
}

/// What listeners serve.
#[derive(Debug, Clone)]
pub struct Routers {
    /// For clients: the API and the pages.
    pub public: Router,
    /// For the other servers of a cluster: what is asked of one session, with a proof of theirs.
    pub peers: Router,
}

/// The routes of the public listener and of that for other servers.
///
/// # Errors
///
/// [`auth::Error`] when the authentication settings cannot be used.
pub fn routers(settings: Settings, services: Services) -> Result<Routers, auth::Error> {
    let context = Arc::new(Context {
        origins: origin::Policy::new(&settings),
        verifier: settings.auth.as_ref().map(auth::Verifier::new).transpose()?,
        sockets: Arc::new(Semaphore::new(settings.max_sockets)),
        uploads: stills::Uploads::new(settings.stills.received_bytes),
        watchers: Arc::new(Semaphore::new(status::MAX_SOCKETS)),
        exports: Arc::new(Semaphore::new(history::MAX_EXPORTS)),
        forwarding: settings.cluster.clone().map(cluster::Forwarding::new),
        settings,
        services,
    });
    openapi::prepare();
    Ok(Routers { public: public(&context), peers: peers(&context) })
}

fn public(context: &Arc<Context>) -> Router {
    let (router, _) = table().split_for_parts();
    router
        .route("/offer", post(offer::offer))
        .route("/v1/{*rest}", any(problem::not_found))
        .method_not_allowed_fallback(problem::method_not_allowed)
        .fallback_service(assets::service())
        .with_state(Arc::clone(context))
        .layer(from_fn_with_state(Arc::clone(context), cluster::forward))
        .merge(kserve::routes(context, Arc::clone(&context.tensors)))
        .layer(from_fn_with_state(Arc::clone(context), guard::guard))
        .layer(option_layer(
            context.settings.tracer.is_on().then(|| from_fn_with_state(context.settings.tracer.clone(), trace::trace)),
        ))
        .layer(cors(context))
        .layer(from_fn_with_state(Arc::clone(context), guard::preflight))
        .layer(from_fn(whip::announce))
        .layer(security_header(header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY))
        .layer(security_header(header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .layer(security_header(header::REFERRER_POLICY, "no-referrer"))
        .layer(security_header(HeaderName::from_static("permissions-policy"), PERMISSIONS_POLICY))
        .layer(security_header(HeaderName::from_static("cross-origin-opener-policy"), "same-origin"))
        .layer(option_layer(
            context
                .settings
                .is_secure
                .then(|| security_header(header::STRICT_TRANSPORT_SECURITY, STRICT_TRANSPORT_SECURITY)),
        ))
        .layer(CatchPanicLayer::custom(problem::panicked))
        .layer(from_fn(measure::measure))
}

/// What [`cluster::admit`] lets in. Requests are measured, and their answers get what pages need, where they came from.
fn peers(context: &Arc<Context>) -> Router {
    let (router, _) = table().split_for_parts();
    router
        .route("/v1/{*rest}", any(problem::not_found))
        .method_not_allowed_fallback(problem::method_not_allowed)
        .fallback(problem::not_found)
        .with_state(Arc::clone(context))
        .layer(option_layer(
            context.settings.tracer.is_on().then(|| from_fn_with_state(context.settings.tracer.clone(), trace::trace)),
        ))
        .layer(from_fn_with_state(Arc::clone(context), cluster::admit))
        .layer(CatchPanicLayer::custom(problem::panicked))
}

/// Opens a session in a task of its own, so that a client that goes away while its session is being opened neither
/// stops that halfway nor leaves a session that nobody knows. One that is opened too late is closed, too.
async fn open(context: &Context, request: OpenRequest) -> Result<(Handle, Answer), Refusal> {
    let opener = Arc::clone(&context.opener);
    let (done, outcome) = oneshot::channel();
    tokio::spawn(async move {
        let opened = opener.open(request).await;
        if let Err(Ok((handle, _))) = done.send(opened) {
            handle.close(EndReason::SocketLost).await;
        }
    });
    let failed = |message: &str| Err(Refusal::new(ErrorCode::Internal, message));
    match timeout(context.settings.open_timeout, outcome).await {
        Ok(Ok(opened)) => opened,
        Ok(Err(_)) => failed("The session could not be opened; try again."),
        Err(_) => failed("The session took too long to open; try again."),
    }
}

fn cors(context: &Arc<Context>) -> CorsLayer {
    let policy = Arc::clone(context);
    CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(move |origin, _| policy.origins.is_listed(origin)))
        .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            header::IF_MATCH,
            header::IF_NONE_MATCH,
            header::CACHE_CONTROL,
            HeaderName::from_static("traceparent"),
            HeaderName::from_static("tracestate"),
        ])
        .expose_headers([
            header::LOCATION,
            header::ETAG,
            header::LINK,
            header::RETRY_AFTER,
            HeaderName::from_static("x-cache"),
        ])
        .max_age(Duration::from_secs(600))
}

/// Answers by gzip, brotli or zstd, as the client takes them; neither pictures nor events, which are to leave at once.
fn compressed() -> CompressionLayer {
    CompressionLayer::new().quality(CompressionLevel::Fastest)
}

fn security_header(name: HeaderName, value: &'static str) -> SetResponseHeaderLayer<HeaderValue> {
    SetResponseHeaderLayer::overriding(name, HeaderValue::from_static(value))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests;

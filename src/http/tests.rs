//! The whole router: over real sockets where a protocol is at stake, by direct calls elsewhere, with sessions that
//! have no media.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Mutex;

use async_trait::async_trait;
use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use axum::response::Response;
use futures_util::{SinkExt, StreamExt};
use jsonwebtoken::Algorithm;
use saccade_signaling::{
    CameraReason, CameraView, ErrorCode, ModelState, ModelView, Options, RoutePut, RouteView, ServerMessage,
    SessionCounters, SessionView, SinkView,
};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use tower::ServiceExt;

use super::auth::tests::{in_seconds, token};
use super::*;
use crate::session::options::{self, ModelFacts, Models};
use crate::session::{
    Audience, Command, Drain, Patched, Permit, Priority, Publisher, RESULTS_CAPACITY, SessionId, Viewer, ViewerCommand,
    WatchRequest,
};

const PATIENCE: Duration = Duration::from_secs(20);

fn ice_server(urls: &[&str], access: ice::Access) -> ice::Server {
    ice::Server { urls: urls.iter().map(|url| url.parse().unwrap()).collect(), access }
}

struct OneModel;

impl Models for OneModel {
    fn facts(&self, name: &str) -> Option<ModelFacts> {
        (name == "ppe").then(|| ModelFacts {
            task: None,
            name: name.into(),
            classes: vec!["head".into(), "helmet".into()],
            score_threshold: 0.25,
            iou_threshold: 0.5,
            max_detections: 100,
        })
    }

    fn names(&self) -> Vec<String> {
        vec!["ppe".into()]
    }
}

/// Opens sessions without media. What their owners see is told to `seen`; the SDP says how an opening goes.
struct Fake {
    registry: Arc<Registry>,
    seen: mpsc::Sender<String>,
    results: Mutex<Option<broadcast::Sender<Arc<str>>>>,
    hold: Semaphore,
}

#[async_trait]
impl Opener for Fake {
    async fn open(&self, request: OpenRequest) -> Result<(Handle, Answer), Refusal> {
        match request.sdp.as_str() {
            "bad" => return Err(Refusal::new(ErrorCode::BadSdp, "The offer has no media.")),
            "panic" => panic!("the opener broke"),
            "hold" => self.hold.acquire().await.unwrap().forget(),
            _ => {}
        }
        let permit = self.registry.admit(&request.claims, request.address)?;
        let options = options::open(&OneModel, 200, &request.options)?;
        let (results, id) = (broadcast::Sender::new(RESULTS_CAPACITY), SessionId::random());
        *self.results.lock().unwrap() = Some(results.clone());
        let (view_id, view_options) = (id.to_string(), options.clone());
        let view = move || SessionView {
            session_id: view_id.clone(),
            state: "connected".into(),
            codec: Some("H264".into()),
            resolution: Some([640, 480]),
            age_s: 1.0,
            options: view_options.clone(),
            counters: SessionCounters::default(),
            stages: Vec::new(),
            viewers: 0,
            transport: None,
            camera: None,
        };
        let audience = Arc::new(FakeAudience::default());
        let publisher = if request.sdp == "camera" { Publisher::Camera } else { Publisher::of(&request.claims) };
        let (handle, commands) = Handle::new(id, results, broadcast::Sender::new(1), view, publisher, audience);
        let bound = if request.claims.can_configure { "" } else { " bound" };
        let trickle = if request.trickle { "trickle" } else { "complete" };
        let bound = match request.claims.priority {
            Priority::Low => format!("{bound} low"),
            Priority::Normal => bound.to_owned(),
            Priority::High => format!("{bound} high"),
        };
        self.seen.send(format!("open {} {trickle}{bound}", request.sdp)).await.ok();
        let owner = Owner {
            handle: handle.clone(),
            commands,
            signals: request.signals,
            options: options.clone(),
            registry: Arc::clone(&self.registry),
            seen: self.seen.clone(),
        };
        tokio::spawn(owner.run(permit));
        Ok((handle, Answer { sdp: format!("answer to {}", request.sdp), options }))
    }
}

/// The ICE session of sessions without media.
const TAG: &str = "abcd";

/// What becomes of a patch; the fragment says how it goes.
fn patched(holds: bool, fragment: &str) -> Result<Patched, Refusal> {
    match fragment {
        _ if !holds => Err(Refusal::new(ErrorCode::PreconditionFailed, "The ICE session is another one.")),
        "restart" => Ok(Patched::Restarted { fragment: "a=ice-ufrag:efgh\r\n".into(), tag: "efgh".into() }),
        "impossible" => Err(Refusal::new(ErrorCode::BadSdp, "That cannot be done.")),
        "nonsense" => Err(Refusal::new(ErrorCode::BadRequest, "That cannot be read.")),
        _ => Ok(Patched::Trickled),
    }
}

/// Viewers without media; the SDP says how joining goes.
#[derive(Default)]
struct FakeAudience(Arc<Mutex<Vec<Viewer>>>);

#[async_trait]
impl Audience for FakeAudience {
    async fn join(&self, request: WatchRequest) -> Result<(Viewer, String), Refusal> {
        let refused = |code| Err(Refusal::new(code, "No.").retry_after(Duration::from_secs(2)));
        match request.sdp.as_str() {
            "early" => return refused(ErrorCode::Conflict),
            "full" => return refused(ErrorCode::Capacity),
            "codec" => return refused(ErrorCode::NoCommonCodec),
            "bad" => return refused(ErrorCode::BadSdp),
            _ => {}
        }
        let (viewer, mut commands) = Viewer::new(request.claims.sub.as_deref().map(Into::into));
        self.0.lock().unwrap().push(viewer.clone());
        let (id, seats) = (viewer.id().clone(), Arc::clone(&self.0));
        tokio::spawn(async move {
            while let Some(ViewerCommand::Patch { patch, reply }) = commands.recv().await {
                reply.send(patched(patch.if_match.holds(TAG), &patch.fragment)).ok();
            }
            seats.lock().unwrap().retain(|viewer| *viewer.id() != id);
        });
        Ok((viewer, format!("answer to {}", request.sdp)))
    }

    fn viewer(&self, id: &str) -> Option<Viewer> {
        self.0.lock().unwrap().iter().find(|viewer| viewer.id().as_str() == id).cloned()
    }
}

struct Owner {
    handle: Handle,
    commands: mpsc::Receiver<Command>,
    signals: Option<mpsc::Sender<ServerMessage>>,
    options: Options,
    registry: Arc<Registry>,
    seen: mpsc::Sender<String>,
}

impl Owner {
    async fn run(mut self, permit: Permit) {
        permit.register(self.handle.clone());
        let mut drain = self.registry.draining();
        let reason = loop {
            let command = tokio::select! {
                command = self.commands.recv() => command,
                Ok(()) = drain.changed() => {
                    self.tell("drain").await;
                    continue;
                },
            };
            match command {
                None => break EndReason::Internal,
                Some(Command::Offer { sdp, options, reply }) => {
                    self.tell(&format!("offer {sdp}")).await;
                    if sdp == "die" {
                        break EndReason::Internal;
                    }
                    let next = options::apply(&OneModel, &self.options, &options.unwrap_or_default());
                    let answer = next.map(|options| Answer { sdp: format!("answer to {sdp}"), options });
                    reply.send(answer).ok();
                }
                Some(Command::Candidate(candidate)) => {
                    let text = candidate.as_ref().map_or("end", |candidate| candidate.candidate.as_str());
                    self.tell(&format!("candidate {text}")).await;
                    self.signal(ServerMessage::Candidate { candidate });
                }
                Some(Command::Patch { patch, reply }) => {
                    let holds = patch.if_match.holds(TAG);
                    self.tell(&format!("patch {holds} {}", patch.fragment)).await;
                    reply.send(patched(holds, &patch.fragment)).ok();
                }
                Some(Command::Configure { patch, reply }) => {
                    let next = options::apply(&OneModel, &self.options, &patch);
                    if let Ok(options) = &next {
                        self.options = options.clone();
                    }
                    reply.send(next).ok();
                }
                Some(Command::Attach { signals }) => {
                    self.signals = Some(signals);
                    self.tell("attach").await;
                }
                Some(Command::Detach) => {
                    let stale = self.signals.as_ref().is_some_and(|signals| !signals.is_closed());
                    self.tell(if stale { "detach ignored" } else { "detach" }).await;
                }
                Some(Command::Authorize { claims }) => {
                    let ends = if claims.expires.is_some() { "ends" } else { "lasts" };
                    self.tell(&format!("authorize {} {ends}", claims.sub.unwrap_or_default())).await;
                }
                Some(Command::Close { reason }) => {
                    self.tell(&format!("close {reason}")).await;
                    self.signal(ServerMessage::Closed { reason: reason.as_str().into() });
                    break reason;
                }
            }
        };
        self.registry.remove(self.handle.id(), reason);
    }

    async fn tell(&self, text: &str) {
        self.seen.send(text.to_owned()).await.ok();
    }

    fn signal(&self, message: ServerMessage) {
        if let Some(signals) = &self.signals {
            signals.try_send(message).ok();
        }
    }
}

/// One camera that cannot be reached.
struct OneCamera;

impl Cameras for OneCamera {
    fn list(&self) -> Vec<CameraView> {
        let message = "The camera cannot be reached.".to_owned();
        vec![CameraView {
            name: "entrance".into(),
            state: "waiting".into(),
            state_age_s: 2.0,
            reason: Some(CameraReason { code: "unreachable".into(), message }),
            retry_after_ms: Some(500),
            connects: 0,
            failures: 1,
            session_id: None,
        }]
    }

    fn get(&self, name: &str) -> Option<CameraView> {
        self.list().into_iter().find(|camera| camera.name == name)
    }
}

/// Two models that are loaded, and `bad`, which can't be. What is asked of them is noted.
#[derive(Default)]
struct FakeModels {
    asked: Mutex<Vec<String>>,
    broken: bool,
}

#[async_trait]
impl super::Models for FakeModels {
    fn list(&self) -> Vec<ModelView> {
        assert!(!self.broken, "no list");
        let refused =
            ModelView { state: ModelState::Refused, reason: Some("It is bad.".into()), ..model("bad", false) };
        vec![refused, model("other", false), model("ppe", true)]
    }

    async fn load(&self, name: &str) -> Result<ModelView, Refusal> {
        self.asked.lock().unwrap().push(format!("load {name}"));
        match name {
            "bad" => Err(Refusal::new(ErrorCode::ModelFailed, "It is bad.")),
            "slow@3" => Ok(ModelView { state: ModelState::Loading, ..model(name, false) }),
            "other" | "ppe" => Ok(model(name, false)),
            _ => Err(Refusal::new(ErrorCode::NotFound, "There is no such model.")),
        }
    }

    async fn unload(&self, name: &str) -> Result<ModelView, Refusal> {
        self.asked.lock().unwrap().push(format!("unload {name}"));
        match name {
            "ppe" => Err(Refusal::new(ErrorCode::Conflict, "It is the default.")),
            "other" => Ok(ModelView { state: ModelState::Unloaded, ..model(name, false) }),
            _ => Err(Refusal::new(ErrorCode::NotFound, "There is no such model.")),
        }
    }
}

/// One sink that takes everything.
struct OneSink;

impl Sinks for OneSink {
    fn list(&self) -> Vec<SinkView> {
        let (name, kind, state) = ("hooks".into(), "webhook".into(), "up".into());
        vec![SinkView { name, kind, state, queued: 1, capacity: 8, delivered: 2, lost: 0, last_failure: None }]
    }
}

/// Routes that check nothing but one name.
#[derive(Default)]
struct FakeRoutes(Mutex<BTreeMap<String, RoutePut>>);

impl Routes for FakeRoutes {
    fn list(&self) -> Vec<RouteView> {
        let view = |(name, route): (&String, &RoutePut)| RouteView {
            name: name.clone(),
            default: false,
            classes: Vec::new(),
            route: route.clone(),
        };
        self.0.lock().unwrap().iter().map(view).collect()
    }

    fn get(&self, name: &str) -> Option<RoutePut> {
        self.0.lock().unwrap().get(name).cloned()
    }

    fn put(&self, name: &str, route: RoutePut) -> Result<(RoutePut, bool), Refusal> {
        if name == "ppe" {
            return Err(Refusal::new(ErrorCode::Conflict, "A model has this name."));
        }
        let before = self.0.lock().unwrap().insert(name.into(), route.clone());
        Ok((route, before.is_none()))
    }

    fn remove(&self, name: &str) -> Result<(), Refusal> {
        let removed = self.0.lock().unwrap().remove(name);
        removed.map(drop).ok_or_else(|| Refusal::new(ErrorCode::NotFound, "There is no such route."))
    }
}

/// A server, and what the owners of its sessions saw.
struct Site {
    router: Router,
    registry: Arc<Registry>,
    fake: Arc<Fake>,
    models: Arc<FakeModels>,
    seen: mpsc::Receiver<String>,
    stop: watch::Sender<bool>,
}

fn site(settings: Settings, max_sessions: Option<usize>) -> Site {
    let registry = Arc::new(Registry::new(max_sessions));
    let (sender, seen) = mpsc::channel(256);
    let fake = Arc::new(Fake {
        registry: Arc::clone(&registry),
        seen: sender,
        results: Mutex::default(),
        hold: Semaphore::new(0),
    });
    let models = Arc::new(FakeModels::default());
    let opener: Arc<dyn Opener> = Arc::clone(&fake) as _;
    let services = services(&registry, opener, &models);
    let router = routers(settings, services).unwrap().public;
    Site { router, registry, fake, models, seen, stop: watch::Sender::new(false) }
}

/// A client that nobody here wrote.
fn client() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::new()
}

/// What requests are handed on to.
fn services(registry: &Arc<Registry>, opener: Arc<dyn Opener>, models: &Arc<FakeModels>) -> Services {
    Services {
        registry: Arc::clone(registry),
        opener,
        models: Arc::clone(models) as _,
        routes: Arc::new(FakeRoutes::default()),
        cameras: Arc::new(OneCamera),
        stills: Arc::new(stills::Sizes),
        tensors: Arc::new(tensors::Doubler),
        sinks: Arc::new(OneSink),
    }
}

fn plain() -> Site {
    site(Settings::default(), None)
}

fn with_auth() -> Settings {
    Settings { auth: Some(auth::tests::settings()), ..Settings::default() }
}

fn bearer(claims: &Value) -> String {
    bearer_for(60, claims)
}

fn bearer_for(seconds: i64, claims: &Value) -> String {
    let mut claims = claims.clone();
    claims["exp"] = in_seconds(seconds).into();
    token(Algorithm::HS256, auth::tests::SECRET, &claims)
}

fn model(name: &str, default: bool) -> ModelView {
    ModelView {
        name: name.into(),
        version: "1".into(),
        task: "detect".into(),
        licence: "MIT".into(),
        input: [320, 320],
        classes: vec!["head".into()],
        score_threshold: 0.25,
        backend: "cpu".into(),
        precision: "fp32".into(),
        default,
        state: ModelState::Ready,
        reason: None,
    }
}

impl Site {
    async fn listen(&self) -> SocketAddr {
        self.listen_behind(Door::default()).await
    }

    async fn listen_behind(&self, door: Door) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = self.router.clone();
        tokio::spawn(super::listen(listener, router, door, self.stop.subscribe()));
        address
    }

    async fn saw(&mut self, expected: &str) {
        let seen = timeout(PATIENCE, self.seen.recv()).await.expect(expected);
        assert_eq!(seen.as_deref(), Some(expected));
    }

    async fn request(&self, request: Request<Body>) -> Response {
        self.router.clone().oneshot(request).await.unwrap()
    }

    async fn get(&self, path: &str) -> Response {
        self.request(Request::get(path).body(Body::empty()).unwrap()).await
    }

    /// A request with a token.
    async fn ask(&self, method: &str, path: &str, token: &str) -> Response {
        let request = Request::builder().method(method).uri(path).header("content-type", "application/json");
        let request = request.header("authorization", format!("Bearer {token}"));
        let body = json!({"sdp": "v=0", "type": "offer"}).to_string();
        self.request(request.body(body.into()).unwrap()).await
    }

    async fn post_offer(&self, body: impl Into<Body>) -> Response {
        let request = Request::post("/v1/offer").header("content-type", "application/json; charset=utf-8");
        self.request(request.body(body.into()).unwrap()).await
    }

    /// Opens a session by `POST` and gives its id.
    async fn open(&self) -> String {
        let response = self.post_offer(json!({"sdp": "v=0", "type": "offer"}).to_string()).await;
        assert_eq!(response.status(), StatusCode::OK);
        body(response).await["session_id"].as_str().unwrap().to_owned()
    }
}

async fn body(response: Response) -> Value {
    let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

/// Checks that a response is a problem with this status and code, and gives its detail.
#[track_caller]
fn is_problem(status: u16, code: ErrorCode, head: &(StatusCode, HeaderMap), body: &Value) -> String {
    assert_eq!(head.0.as_u16(), status, "{body}");
    assert_eq!(head.1["content-type"], "application/problem+json");
    assert_eq!((&body["code"], &body["status"]), (&json!(code), &json!(status)));
    assert!(!body["title"].as_str().unwrap().is_empty());
    body["detail"].as_str().unwrap().to_owned()
}

async fn problem(response: Response, status: u16, code: ErrorCode) -> String {
    let head = (response.status(), response.headers().clone());
    is_problem(status, code, &head, &body(response).await)
}

/// A signaling client.
struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Socket {
    async fn try_connect(address: SocketAddr, headers: &[(&'static str, &str)]) -> Result<Self, tungstenite::Error> {
        let mut request = format!("ws://{address}/v1/signal").into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        tokio_tungstenite::connect_async(request).await.map(|(socket, _)| Self(socket))
    }

    async fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address, &[("sec-websocket-protocol", "saccade.v1")]).await.unwrap()
    }

    /// A client that was welcomed.
    async fn welcomed(address: SocketAddr) -> Self {
        let mut socket = Self::connect(address).await;
        assert_eq!(socket.read().await["type"], "welcome");
        socket
    }

    async fn send(&mut self, message: Value) {
        self.0.send(Message::text(message.to_string())).await.unwrap();
    }

    async fn next(&mut self) -> Message {
        loop {
            match timeout(PATIENCE, self.0.next()).await.expect("a message").expect("an open socket").unwrap() {
                Message::Ping(_) | Message::Pong(_) => {}
                message => return message,
            }
        }
    }

    async fn read(&mut self) -> Value {
        let message = self.next().await;
        serde_json::from_str(message.to_text().unwrap()).unwrap_or_else(|_| panic!("{message:?}"))
    }

    async fn ask(&mut self, message: Value) -> Value {
        self.send(message).await;
        self.read().await
    }

    async fn is_error(&mut self, code: ErrorCode, fatal: bool) -> Value {
        let error = self.read().await;
        let expected = (&json!("error"), &json!(code), &json!(fatal));
        assert_eq!((&error["type"], &error["code"], &error["fatal"]), expected, "{error}");
        assert!(error["message"].as_str().unwrap().ends_with('.'));
        error
    }

    async fn is_closed(&mut self, code: u16) {
        match self.next().await {
            Message::Close(Some(frame)) => assert_eq!(u16::from(frame.code), code, "{}", frame.reason),
            message => panic!("expected a close, got {message:?}"),
        }
    }

    /// Makes an offer; gives the session's id.
    async fn offer(&mut self, sdp: &str) -> String {
        let answer = self.ask(json!({"type": "offer", "sdp": sdp})).await;
        assert_eq!(
            (&answer["type"], &answer["sdp"]),
            (&json!("answer"), &json!(format!("answer to {sdp}"))),
            "{answer}"
        );
        answer["session_id"].as_str().unwrap().to_owned()
    }
}

fn candidate(number: usize) -> Value {
    json!({"type": "candidate", "candidate": {"candidate": format!("candidate:{number}"), "sdpMid": "0", "sdpMLineIndex": 0}})
}

mod access;
mod api;
mod http2;
mod limits;
mod openapi;
mod routes;
mod signaling;
mod stills;
mod tensors;
mod whep;
mod whip;

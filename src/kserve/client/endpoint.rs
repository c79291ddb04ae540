use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::uri::PathAndQuery;
use prost::Message;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint as Address};
use tonic::{Code, Request as Asked, Status};
use tonic_prost::ProstCodec;

use super::breaker::{Breaker, Failure};
use super::{Error, PROBE_TIMEOUT, Settings};
use crate::clock;
use crate::kserve::grpc::{MESSAGE_ROOM, SERVICE, outlets, read_response, write_request};
use crate::kserve::proto as p;
use crate::kserve::{Metadata, Request, Response};

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How often a connection is asked whether it is still there, and how long it may take to say so.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(5));
/// Connections to an endpoint, since one reads and writes its messages one after the other.
const CONNECTIONS: usize = 2;
/// Bytes that may be on their way to us unread: a batch of pictures' outputs.
const WINDOW: u32 = 8 * 1024 * 1024;

/// Why an endpoint gave no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Nobody is there, or nobody who can.
    Gone(String),
    /// Not in time.
    Late,
    /// It does not want to.
    Refused(String),
}

/// A server that may run the model.
#[derive(Debug)]
pub(super) struct Endpoint {
    channels: Vec<Channel>,
    turn: AtomicUsize,
    authorization: Option<MetadataValue<Ascii>>,
    model: String,
    version: String,
    limit: usize,
    /// Requests under way.
    load: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    breaker: Breaker,
    /// What it said last when it failed.
    reason: String,
}

/// Counts a request as under way.
pub(super) struct UnderWay<'a>(&'a AtomicUsize);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Endpoint {
    /// To be called inside the runtime that its connections belong to.
    pub(super) fn new(url: &str, settings: &Settings) -> Result<Self, Error> {
        let wrong = |problem: String| Error::Settings { problem };
        let address = Address::from_shared(url.to_owned()).map_err(|error| wrong(format!("{url:?}: {error}")))?;
        let mut address = address
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE.0)
            .keep_alive_timeout(KEEP_ALIVE.1)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW);
        if url.starts_with("https://") {
            let mut tls = ClientTlsConfig::new();
            tls = match &settings.certificates {
                None => tls.with_native_roots(),
                Some(pem) => tls.ca_certificate(Certificate::from_pem(pem)),
            };
            address = address.tls_config(tls).map_err(|error| wrong(format!("TLS to {url:?}: {error}")))?;
        }
        let authorization = settings.token.as_ref().map(|token| format!("Bearer {}", token.expose()).parse());
        let authorization =
            authorization.transpose().map_err(|_| wrong("the token is no text for a header".to_owned()))?;
        let state = State { breaker: Breaker::unknown(clock::now()), reason: "it was not asked yet".to_owned() };
        Ok(Self {
            channels: (0..CONNECTIONS).map(|_| address.connect_lazy()).collect(),
            turn: AtomicUsize::new(0),
            authorization,
            model: settings.model.clone(),
            version: settings.version.clone().unwrap_or_default(),
            limit: settings.limit,
            load: AtomicUsize::new(0),
            state: Mutex::new(state),
        })
    }

    pub(super) async fn infer(&self, request: Request) -> Result<Response, Trouble> {
        let timeout = request.timeout.unwrap_or(PROBE_TIMEOUT);
        let message = write_request(&self.model, &self.version, request);
        let answer: p::ModelInferResponse = self.ask("ModelInfer", message, timeout).await?;
        read_response(answer, self.limit).map_err(|error| Trouble::Refused(format!("its answer: {error}")))
    }

    pub(super) async fn describe(&self) -> Result<Metadata, Trouble> {
        let found: p::ModelMetadataResponse = self.ask("ModelMetadata", self.named(), PROBE_TIMEOUT).await?;
        Ok(Metadata {
            name: found.name,
            version: self.version.clone(),
            versions: found.versions,
            platform: found.platform,
            inputs: outlets(found.inputs),
            outputs: outlets(found.outputs),
            max_batch: 0,
            instances: 1,
        })
    }

    /// Whether the server and the model are ready.
    pub(super) async fn probe(&self) -> Result<(), Trouble> {
        let server: p::Yes = self.ask("ServerReady", p::Empty {}, PROBE_TIMEOUT).await?;
        if !server.yes {
            return Err(Trouble::Gone("the server is not ready".to_owned()));
        }
        let model: p::Yes = self.ask("ModelReady", self.named(), PROBE_TIMEOUT).await?;
        if model.yes { Ok(()) } else { Err(Trouble::Gone("the model is not ready there".to_owned())) }
    }

    fn named(&self) -> p::ModelRequest {
        p::ModelRequest { name: self.model.clone(), version: self.version.clone() }
    }

    async fn ask<Q, A>(&self, method: &str, message: Q, timeout: Duration) -> Result<A, Trouble>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        let at = self.turn.fetch_add(1, Ordering::Relaxed) % self.channels.len();
        let mut grpc = tonic::client::Grpc::new(self.channels[at].clone())
            .max_decoding_message_size(self.limit.saturating_add(MESSAGE_ROOM))
            .max_encoding_message_size(usize::MAX);
        grpc.ready().await.map_err(|error| Trouble::Gone(chain(&error)))?;
        let mut request = Asked::new(message);
        request.set_timeout(timeout);
        if let Some(authorization) = &self.authorization {
            request.metadata_mut().insert("authorization", authorization.clone());
        }
        let path = PathAndQuery::try_from(format!("/{SERVICE}/{method}"));
        let path = path.map_err(|error| Trouble::Refused(error.to_string()))?;
        let answer = grpc.unary(request, path, ProstCodec::<Q, A>::default()).await;
        answer.map(tonic::Response::into_inner).map_err(|status| trouble(&status))
    }

    /// Counts a request for as long as what this gives is there.
    pub(super) fn under_way(&self) -> UnderWay<'_> {
        self.load.fetch_add(1, Ordering::Relaxed);
        UnderWay(&self.load)
    }

    /// Requests under way.
    pub(super) fn load(&self) -> usize {
        self.load.load(Ordering::Relaxed)
    }

    /// Why it is not asked; none: it is.
    pub(super) fn trouble(&self) -> Option<String> {
        let state = self.lock();
        (!state.breaker.is_closed()).then(|| state.reason.clone())
    }

    pub(super) fn is_due(&self) -> bool {
        self.lock().breaker.is_due(clock::now())
    }

    pub(super) fn succeed(&self) {
        if self.lock().breaker.succeed() {
            tracing::info!(model = self.model, "an endpoint of a model answers");
        }
    }

    pub(super) fn fail(&self, failure: Failure, reason: &str) {
        let mut state = self.lock();
        let opened = state.breaker.fail(clock::now(), failure);
        self.note(state, opened, reason);
    }

    pub(super) fn fail_probe(&self, reason: &str) {
        let mut state = self.lock();
        let opened = state.breaker.fail_probe(clock::now());
        self.note(state, opened, reason);
    }

    fn note(&self, mut state: MutexGuard<'_, State>, opened: bool, reason: &str) {
        reason.clone_into(&mut state.reason);
        drop(state);
        if opened {
            tracing::warn!(model = self.model, reason, "an endpoint of a model does not answer");
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn trouble(status: &Status) -> Trouble {
    let text =
        || if status.message().is_empty() { format!("{:?}", status.code()) } else { status.message().to_owned() };
    match status.code() {
        // A model that is not there, and one that nobody may use, are as good as no server.
        Code::Unavailable | Code::NotFound | Code::Unauthenticated | Code::PermissionDenied | Code::Unimplemented => {
            Trouble::Gone(text())
        }
        Code::DeadlineExceeded | Code::Cancelled => Trouble::Late,
        _ => Trouble::Refused(text()),
    }
}

/// An error with its causes, which say more than it does.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use saccade_signaling::{ErrorCode, IceCandidate, Options, OptionsPatch, ServerMessage, SessionView};
use tokio::sync::{broadcast, mpsc, oneshot};

use super::{Audience, EndReason, Patch, Patched};
use crate::claims::Claims;
use crate::traces;

/// Commands that wait for a session's owner; whoever sends more waits.
pub const COMMAND_CAPACITY: usize = 32;
/// Messages that wait for a session's socket; when full, the session closes with [`EndReason::SocketFull`].
pub const SIGNAL_CAPACITY: usize = 32;
/// Results kept for each listener of the results stream; a slower one loses the oldest.
pub const RESULTS_CAPACITY: usize = 64;

/// Events kept for each listener of the events stream; a slower one loses the oldest.
pub const EVENTS_CAPACITY: usize = 256;

/// How long the owner of a session may take to answer a command.
const REPLY_TIMEOUT: Duration = Duration::from_secs(15);

/// Id of a session: random enough that nobody guesses it, safe in a URL.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(Arc<str>);

impl SessionId {
    /// A new one: 122 random bits (RFC 9562 section 5.4).
    #[must_use]
    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4().simple().to_string().into())
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for SessionId {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl std::borrow::Borrow<str> for SessionId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An order to the task that owns a session. Whoever waits for a reply finds its sender dropped when the session ends.
#[derive(Debug)]
pub enum Command {
    /// A further offer: renegotiates, or restarts ICE.
    Offer {
        /// Session description.
        sdp: String,
        /// Options to change with it.
        options: Option<OptionsPatch>,
        /// Gets the answer.
        reply: oneshot::Sender<Result<Answer, Refusal>>,
    },
    /// A trickled candidate; `None` ends them.
    Candidate(Option<IceCandidate>),
    /// A fragment of an offer: trickles candidates, or restarts ICE.
    Patch {
        /// What to change.
        patch: Patch,
        /// Gets what was done.
        reply: oneshot::Sender<Result<Patched, Refusal>>,
    },
    /// Changes options.
    Configure {
        /// Only the keys to change.
        patch: OptionsPatch,
        /// Gets all options then in force.
        reply: oneshot::Sender<Result<Options, Refusal>>,
    },
    /// A socket takes the session over: candidates, errors and the end go there from now on. The sender before it is
    /// dropped, which tells the socket before.
    Attach {
        /// Messages for the peer, [`SIGNAL_CAPACITY`] of them.
        signals: mpsc::Sender<ServerMessage>,
    },
    /// The socket was lost; media goes on for the resume time. The socket drops its receiver first, so where the
    /// session's present sender is not closed, another socket has taken over already and the command means nothing.
    Detach,
    /// The publisher has shown another token, which counts from now on.
    Authorize {
        /// What it allows.
        claims: Claims,
    },
    /// Ends the session.
    Close {
        /// Why.
        reason: EndReason,
    },
}

/// Answer to an offer.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// Session description.
    pub sdp: String,
    /// All options now in force.
    pub options: Options,
}

/// A request that is not met; says what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Refusal {
    /// Stable code.
    pub code: ErrorCode,
    /// A sentence that says what to do.
    pub message: String,
    /// When to try again.
    pub retry_after: Option<Duration>,
    /// Whether others may well be served: it is this client that has had its share.
    pub is_own_fault: bool,
}

impl Refusal {
    /// A refusal that trying again does not change.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after: None, is_own_fault: false }
    }

    /// The same, worth another try after `duration`.
    #[must_use]
    pub fn retry_after(mut self, duration: Duration) -> Self {
        self.retry_after = Some(duration);
        self
    }

    /// The refusal of what goes beyond this client's share; worth another try after `duration`.
    #[must_use]
    pub fn beyond_share(message: impl Into<String>, duration: Duration) -> Self {
        Self { is_own_fault: true, ..Self::new(ErrorCode::Capacity, message).retry_after(duration) }
    }

    /// The refusal of a model or route that the token does not allow.
    #[must_use]
    pub fn may_not_use(model: &str) -> Self {
        let name: String = model.chars().take(64).collect();
        Self::new(ErrorCode::Forbidden, format!("The token does not allow {name}; choose one that its `models` name."))
    }

    /// The refusal of changes that the token does not allow.
    #[must_use]
    pub fn may_not_configure() -> Self {
        Self::new(ErrorCode::Forbidden, "The token lacks `can_configure`; ask for one that has it.")
    }

    /// The `error` message for the peer; `fatal` when the session (or, before one, the socket) ends with it.
    #[must_use]
    pub fn to_message(&self, fatal: bool) -> ServerMessage {
        ServerMessage::Error {
            code: self.code,
            message: self.message.clone(),
            fatal,
            retry_after_ms: self.retry_after.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)),
        }
    }

    fn gone() -> Self {
        Self::new(ErrorCode::NotFound, "The session has ended; send a new offer.")
    }
}

/// What a new session starts from.
#[derive(Debug)]
pub struct OpenRequest {
    /// Session description of type `offer`.
    pub sdp: String,
    /// Options; what is absent keeps its default.
    pub options: OptionsPatch,
    /// Whether candidates follow one by one. If not, the answer waits until it holds all of the server's.
    pub trickle: bool,
    /// Where candidates, errors and the end go; `None` where the client has no socket.
    pub signals: Option<mpsc::Sender<ServerMessage>>,
    /// What the publisher's token allows. That it may publish at all is for the caller to look at.
    pub claims: Claims,
    /// Where the offer came from, if that is known.
    pub address: Option<IpAddr>,
    /// The span that it was made in, if its sender traces.
    pub caller: Option<traces::Context>,
}

/// Where a session's video comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Publisher {
    /// A peer, whose token has this subject, if it has one.
    Peer(Option<Arc<str>>),
    /// A camera of the configuration.
    Camera,
}

impl Publisher {
    /// Of whoever has these claims.
    #[must_use]
    pub fn of(claims: &Claims) -> Self {
        Self::Peer(claims.sub.as_deref().map(Into::into))
    }
}

/// What opens sessions.
#[async_trait]
pub trait Opener: Send + Sync {
    /// Admits, opens and registers a session. It ends in bounded time, and may be called from many tasks.
    ///
    /// # Errors
    ///
    /// [`Refusal`] when the server is full or draining, or the offer or its options cannot be used.
    async fn open(&self, request: OpenRequest) -> Result<(Handle, Answer), Refusal>;
}

/// How the rest of the process talks to a running session. Cheap to clone; holding one does not keep the session alive.
#[derive(Clone)]
pub struct Handle {
    id: SessionId,
    orders: Orders<Command>,
    results: broadcast::Sender<Arc<str>>,
    events: broadcast::Sender<Arc<str>>,
    view: Arc<dyn Fn() -> SessionView + Send + Sync>,
    publisher: Publisher,
    audience: Arc<dyn Audience>,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Handle {
    /// A handle and the owner's end of it; the owner drops its end last, and so tells everyone that the session is over.
    /// `results` and `events` are where it publishes each result's and each event's JSON, made with [`RESULTS_CAPACITY`]
    /// and [`EVENTS_CAPACITY`].
    #[must_use]
    pub fn new(
        id: SessionId,
        results: broadcast::Sender<Arc<str>>,
        events: broadcast::Sender<Arc<str>>,
        view: impl Fn() -> SessionView + Send + Sync + 'static,
        publisher: Publisher,
        audience: Arc<dyn Audience>,
    ) -> (Self, mpsc::Receiver<Command>) {
        let (commands, owner) = mpsc::channel(COMMAND_CAPACITY);
        (Self { id, orders: Orders::new(commands), results, events, view: Arc::new(view), publisher, audience }, owner)
    }

    /// Id of the session.
    #[must_use]
    pub const fn id(&self) -> &SessionId {
        &self.id
    }

    /// Whether the video comes from a camera of the configuration.
    #[must_use]
    pub fn is_of_camera(&self) -> bool {
        self.publisher == Publisher::Camera
    }

    /// Whether a bearer of these claims may end the session.
    #[must_use]
    pub fn may_be_ended_by(&self, claims: &Claims) -> bool {
        match &self.publisher {
            Publisher::Peer(subject) => claims.may_end(subject.as_deref()),
            Publisher::Camera => claims.can_configure,
        }
    }

    /// Whether the session is of the bearer of these claims, who may take it over with another socket.
    #[must_use]
    pub fn is_of(&self, claims: &Claims) -> bool {
        matches!(&self.publisher, Publisher::Peer(subject) if subject.as_deref() == claims.sub.as_deref())
    }

    /// What the HTTP API shows of the session now.
    #[must_use]
    pub fn view(&self) -> SessionView {
        (self.view)()
    }

    /// The results from now on, one JSON text each.
    #[must_use]
    pub fn results(&self) -> broadcast::Receiver<Arc<str>> {
        self.results.subscribe()
    }

    /// The events from now on, one JSON text each.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<Arc<str>> {
        self.events.subscribe()
    }

    /// Who watches the session's video.
    #[must_use]
    pub fn audience(&self) -> &dyn Audience {
        self.audience.as_ref()
    }

    /// Renegotiates or restarts ICE.
    ///
    /// # Errors
    ///
    /// [`Refusal`] when the offer cannot be used or the session has ended.
    pub async fn offer(&self, sdp: String, options: Option<OptionsPatch>) -> Result<Answer, Refusal> {
        self.orders.ask(|reply| Command::Offer { sdp, options, reply }).await
    }

    /// Trickles candidates or restarts ICE.
    ///
    /// # Errors
    ///
    /// [`Refusal`] with `precondition_failed` when the patch is meant for another ICE session, `bad_request` when it
    /// cannot be read, `bad_sdp` when it cannot be done, `not_found` when the session has ended.
    pub async fn patch(&self, patch: Patch) -> Result<Patched, Refusal> {
        self.orders.ask(|reply| Command::Patch { patch, reply }).await
    }

    /// Changes options; gives all that are then in force.
    ///
    /// # Errors
    ///
    /// [`Refusal`] when an option cannot be used or the session has ended.
    pub async fn configure(&self, patch: OptionsPatch) -> Result<Options, Refusal> {
        self.orders.ask(|reply| Command::Configure { patch, reply }).await
    }

    /// Hands on a candidate; `None` ends them.
    ///
    /// # Errors
    ///
    /// [`Refusal`] when the session has ended.
    pub async fn candidate(&self, candidate: Option<IceCandidate>) -> Result<(), Refusal> {
        self.orders.order(Command::Candidate(candidate)).await
    }

    /// Makes `signals` the session's socket.
    ///
    /// # Errors
    ///
    /// [`Refusal`] when the session has ended.
    pub async fn attach(&self, signals: mpsc::Sender<ServerMessage>) -> Result<(), Refusal> {
        self.orders.order(Command::Attach { signals }).await
    }

    /// Says that the socket was lost; its receiver must have been dropped. An ended session needs no telling.
    pub async fn detach(&self) {
        self.orders.order(Command::Detach).await.ok();
    }

    /// Makes other claims those of the publisher. An ended session needs no telling.
    pub async fn authorize(&self, claims: Claims) {
        self.orders.order(Command::Authorize { claims }).await.ok();
    }

    /// Ends the session. An ended one needs no telling.
    pub async fn close(&self, reason: EndReason) {
        self.orders.order(Command::Close { reason }).await.ok();
    }

    /// Resolves when the session's owner has let go of its end.
    pub async fn closed(&self) {
        self.orders.closed().await;
    }
}

/// The way to a task that owns something.
pub(super) struct Orders<C>(mpsc::Sender<C>);

impl<C> Clone for Orders<C> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<C: Send> Orders<C> {
    pub(super) const fn new(commands: mpsc::Sender<C>) -> Self {
        Self(commands)
    }

    /// Resolves when the owner has let go of its end.
    pub(super) async fn closed(&self) {
        self.0.closed().await;
    }

    pub(super) async fn order(&self, command: C) -> Result<(), Refusal> {
        match self.0.send_timeout(command, REPLY_TIMEOUT).await {
            Ok(()) => Ok(()),
            Err(mpsc::error::SendTimeoutError::Closed(_)) => Err(Refusal::gone()),
            Err(mpsc::error::SendTimeoutError::Timeout(_)) => Err(busy()),
        }
    }

    pub(super) async fn ask<T: Send>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, Refusal>>) -> C + Send,
    ) -> Result<T, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.order(command(reply)).await?;
        match tokio::time::timeout(REPLY_TIMEOUT, answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(Refusal::gone()),
            Err(_) => Err(busy()),
        }
    }
}

fn busy() -> Refusal {
    Refusal::new(ErrorCode::Internal, "The session did not answer in time; connect again.")
}

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::future::pending;
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::http::{Extensions, HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use metrics::counter;
use saccade_signaling::{
    ClientMessage, ErrorCode, IceCandidate, MAX_PENDING_CANDIDATES, ModelState, OptionsPatch, PROTOCOL_VERSION,
    SUBPROTOCOL, ServerMessage, close_code,
};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::time::{Duration, Interval, MissedTickBehavior, interval, sleep_until, timeout};

use super::address::ClientAddress;
use super::auth::{Claims, bearer, expiry};
use super::cluster::{Forwarded, Heard, Remote};
use super::openapi::{BadRequest, UpgradeRequired};
use super::{Context, Problem, open, trace};
use crate::clock;
use crate::secret::Secret;
use crate::session::{Allowance, Drain, EndReason, Handle, OpenRequest, Refusal, SIGNAL_CAPACITY, proto};
use crate::traces::Context as TraceContext;

mod elsewhere;

/// How long a session may take to say `closed` after `bye`.
const BYE_TIMEOUT: Duration = Duration::from_secs(6);
/// How long a client may take to answer a close frame.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Open a signaling socket
///
/// A WebSocket with the subprotocol `saccade.v1`: sessions, their candidates and options, in messages of JSON. The token is
/// in the header, or in an `auth` message within 5 s; publishing needs `can_publish`.
#[utoipa::path(
    get, path = "/v1/signal", operation_id = "signal", tag = "signaling", security((), ("token" = [])),
    responses((status = 101, description = "The socket is open."), BadRequest, UpgradeRequired),
    extensions(("x-websocket" = json!({
        "subprotocol": "saccade.v1",
        "from_client": { "$ref": "#/components/schemas/ClientMessage" },
        "from_server": { "$ref": "#/components/schemas/ServerMessage" },
    })))
)]
pub(super) async fn upgrade(
    State(context): State<Arc<Context>>,
    extensions: Extensions,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let caller = Caller {
        address: ClientAddress::of(&extensions),
        host: headers.get(header::HOST).cloned().unwrap_or_else(|| HeaderValue::from_static("")),
        token: bearer(&headers).map(|token| Secret::new(token.to_owned())),
        is_forwarded: extensions.get::<Forwarded>().is_some(),
        trace: extensions.get::<TraceContext>().cloned(),
    };
    match prepare(&context, &headers, upgrade) {
        Ok((upgrade, claims, place)) => {
            upgrade.on_upgrade(async move |socket| serve(context, socket, claims, caller, place).await)
        }
        Err(problem) => problem.into_response(),
    }
}

/// Whose socket it is.
struct Caller {
    address: Option<IpAddr>,
    /// How the client calls the server.
    host: HeaderValue,
    /// The last token that was good, for the server that has the session.
    token: Option<Secret>,
    /// Whether another server is between: then the session is here or nowhere.
    is_forwarded: bool,
    /// The span in which the socket was asked for, if its client traces.
    trace: Option<TraceContext>,
}

type Prepared = (WebSocketUpgrade, Option<Claims>, OwnedSemaphorePermit);

fn prepare(
    context: &Context,
    headers: &HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Prepared, Problem> {
    let claims = context.header_claims(headers)?;
    let upgrade = upgrade.map_err(|rejection| {
        let detail = format!("This is a WebSocket endpoint: {}.", rejection.body_text());
        Problem::new(ErrorCode::BadRequest, detail).with_status(StatusCode::UPGRADE_REQUIRED)
    })?;
    let upgrade = upgrade.protocols([SUBPROTOCOL]);
    if upgrade.selected_protocol().is_none() {
        let detail = "Open the socket with the subprotocol `saccade.v1`.";
        return Err(Problem::new(ErrorCode::BadRequest, detail));
    }
    if context.registry.is_draining() {
        return Err(context.registry.refuse_draining().into());
    }
    let place = Arc::clone(&context.sockets).try_acquire_owned().map_err(|_| {
        let refusal = Refusal::new(ErrorCode::Capacity, "Too many sockets are open; try again later.");
        Problem::from(refusal.retry_after(Duration::from_secs(5)))
    })?;
    let most = context.settings.limits.message_bytes;
    Ok((upgrade.max_message_size(most).max_frame_size(most), claims, place))
}

async fn serve(
    context: Arc<Context>,
    socket: WebSocket,
    claims: Option<Claims>,
    caller: Caller,
    place: OwnedSemaphorePermit,
) {
    let mut pings = interval(context.settings.ping_interval);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let now = clock::now();
    let mut drain = context.registry.draining();
    if drain.borrow().is_some() {
        drain.mark_changed();
    }
    let mut client = Client {
        drain,
        allowance: Allowance::new(now, context.settings.rate),
        heard: now,
        offer_due: now,
        context,
        socket,
        claims: Claims::default(),
        caller,
        session: None,
        remote: None,
        early: Vec::new(),
        pings,
    };
    let end = match client.greet(claims).await {
        ControlFlow::Continue(()) => loop {
            if let ControlFlow::Break(end) = client.step().await {
                break end;
            }
        },
        ControlFlow::Break(end) => end,
    };
    client.finish(end).await;
    drop(place);
}

/// Why the conversation ends.
enum End {
    /// Say this code and reason.
    Close(u16, Cow<'static, str>),
    /// The client is gone, or does not listen.
    Lost,
}

impl End {
    fn draining() -> Self {
        Self::Close(close_code::DRAINING, "draining".into())
    }
}

type Flow<T = ()> = ControlFlow<End, T>;

/// What woke the conversation.
enum Woken {
    Message(Option<Result<Message, axum::Error>>),
    Signal(Option<ServerMessage>),
    Ping,
    Drain,
    NoOffer,
    Expired,
    /// Of the server that has the session.
    Remote(Heard),
}

/// The session that a socket serves.
struct Session {
    handle: Handle,
    signals: mpsc::Receiver<ServerMessage>,
}

/// One signaling socket.
struct Client {
    context: Arc<Context>,
    socket: WebSocket,
    /// What the client's token allows, the last one if there were several.
    claims: Claims,
    caller: Caller,
    session: Option<Session>,
    /// The socket at the server that has the session, if that is another one. Then there is none here.
    remote: Option<Remote>,
    /// Candidates that came before their offer.
    early: Vec<Option<IceCandidate>>,
    allowance: Allowance,
    pings: Interval,
    /// When the client was last heard.
    heard: Instant,
    /// When a client without a session must have made an offer.
    offer_due: Instant,
    drain: watch::Receiver<Option<Drain>>,
}

impl Client {
    /// Waits for a token where one is needed, then says `welcome`.
    async fn greet(&mut self, claims: Option<Claims>) -> Flow {
        self.claims = match claims {
            Some(claims) => claims,
            None => {
                let (limit, mut drain) = (self.context.settings.auth_timeout, self.drain.clone());
                let token = tokio::select! {
                    token = timeout(limit, self.token()) => token.unwrap_or(ControlFlow::Continue(None))?,
                    Ok(()) = drain.changed() => {
                        self.say_draining().await?;
                        return ControlFlow::Break(End::draining());
                    }
                };
                let verifier = self.context.verifier.as_ref();
                let Some(claims) = token.as_ref().and_then(|token| verifier?.verify(token)) else {
                    let refusal = Refusal::new(ErrorCode::Unauthorized, "Send `auth` with a valid token first.");
                    return self.fail(&refusal, close_code::UNAUTHENTICATED).await;
                };
                self.caller.token = token.map(Secret::new);
                claims
            }
        };
        let claims = &self.claims;
        let models = self.context.models.list().into_iter().filter(|model| model.state == ModelState::Ready);
        let models = models.filter(|model| claims.may_use(&format!("{}@{}", model.name, model.version)));
        let models = models.map(|model| (!model.default, model.name));
        let routes = self.context.routes.list().into_iter().filter(|route| claims.may_use(&route.name));
        let routes = routes.map(|route| (!route.default, route.name));
        let mut names: Vec<(bool, String)> = models.chain(routes).collect();
        names.sort_by_key(|(is_other, _)| *is_other);
        // Versions of a model share its name.
        let mut seen = BTreeSet::new();
        names.retain(|(_, name)| seen.insert(name.clone()));
        let welcome = ServerMessage::Welcome {
            protocol: PROTOCOL_VERSION,
            server: concat!("saccade/", env!("CARGO_PKG_VERSION")).to_owned(),
            ice_servers: self.context.ice_servers(&self.claims),
            models: names.into_iter().map(|(_, name)| name).collect(),
            limits: self.context.settings.limits.clone(),
        };
        self.send(&welcome).await?;
        self.heard = clock::now();
        self.offer_due = self.heard + self.context.settings.offer_timeout;
        ControlFlow::Continue(())
    }

    /// The token of an `auth` message, if that is what comes first.
    async fn token(&mut self) -> Flow<Option<String>> {
        loop {
            match self.socket.recv().await {
                Some(Ok(Message::Text(text))) => {
                    let Ok(ClientMessage::Auth { token }) = proto::parse(&text) else {
                        return ControlFlow::Continue(None);
                    };
                    return ControlFlow::Continue(Some(token));
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Binary(_))) => return ControlFlow::Continue(None),
                Some(Err(error)) => return self.broken(&error).await,
                Some(Ok(Message::Close(_))) | None => return ControlFlow::Break(End::Lost),
            }
        }
    }

    /// Waits for one thing and deals with it.
    async fn step(&mut self) -> Flow {
        let has_none = self.session.is_none() && self.remote.is_none();
        let offer_due = has_none.then_some(self.offer_due);
        // A session ends with its token by itself.
        let expires = self.claims.expires.filter(|_| has_none);
        let signal = async {
            match &mut self.session {
                Some(session) => session.signals.recv().await,
                None => pending().await,
            }
        };
        let remote = async {
            match &mut self.remote {
                Some(remote) => remote.next().await,
                None => pending().await,
            }
        };
        let no_offer = async {
            match offer_due {
                Some(due) => sleep_until(due.into()).await,
                None => pending().await,
            }
        };
        let woken = tokio::select! {
            // What the client has sent counts before its silence does.
            biased;
            message = self.socket.recv() => Woken::Message(message),
            signal = signal => Woken::Signal(signal),
            heard = remote => Woken::Remote(heard),
            _ = self.pings.tick() => Woken::Ping,
            Ok(()) = self.drain.changed() => Woken::Drain,
            () = no_offer => Woken::NoOffer,
            () = expiry(expires) => Woken::Expired,
        };
        match woken {
            Woken::Message(message) => self.receive(message).await,
            Woken::Signal(Some(message)) => self.forward(message).await,
            Woken::Signal(None) => self.abandoned().await,
            Woken::Remote(heard) => self.hear(heard).await,
            // The session is of a server that goes on: another way to it is better than none.
            Woken::Drain if self.remote.is_some() => ControlFlow::Break(End::Lost),
            Woken::Ping => self.ping().await,
            Woken::Drain => {
                self.say_draining().await?;
                // A client with a session may use it up to the end of the drain; one without has nothing to wait for.
                if self.session.is_some() { ControlFlow::Continue(()) } else { ControlFlow::Break(End::draining()) }
            }
            Woken::NoOffer => {
                let refusal = Refusal::new(ErrorCode::BadRequest, "No offer came; connect when you have one.");
                self.fail(&refusal, close_code::POLICY).await
            }
            Woken::Expired => self.fail(&expired(), close_code::UNAUTHENTICATED).await,
        }
    }

    async fn receive(&mut self, message: Option<Result<Message, axum::Error>>) -> Flow {
        let message = match message {
            Some(Ok(message)) => message,
            Some(Err(error)) => return self.broken(&error).await,
            None => return ControlFlow::Break(End::Lost),
        };
        self.heard = clock::now();
        if !self.allowance.take(self.heard) {
            counter!("saccade_messages_refused_total", "channel" => "socket", "reason" => "rate_limited").increment(1);
            let refusal = Refusal::new(ErrorCode::RateLimited, "Too many messages; connect again and send fewer.");
            return self.fail(&refusal, close_code::RATE_LIMITED).await;
        }
        match message {
            Message::Text(text) if self.remote.is_some() => self.pass_on(&text).await,
            Message::Text(text) => match proto::parse(&text) {
                Ok(message) => self.act(message).await,
                Err(bad) if bad.fatal => self.fail(&bad.refusal, close_code::BAD_JSON).await,
                Err(bad) => self.send(&bad.refusal.to_message(false)).await,
            },
            Message::Binary(_) => {
                let refusal = Refusal::new(ErrorCode::BadRequest, "Messages are text; send JSON, not bytes.");
                self.fail(&refusal, close_code::BINARY).await
            }
            Message::Ping(_) | Message::Pong(_) => ControlFlow::Continue(()),
            Message::Close(_) => ControlFlow::Break(End::Lost),
        }
    }

    async fn act(&mut self, message: ClientMessage) -> Flow {
        let has_token = matches!(message, ClientMessage::Auth { .. } | ClientMessage::Bye);
        if !has_token && self.claims.have_expired(self.heard) {
            return self.fail(&expired(), close_code::UNAUTHENTICATED).await;
        }
        match message {
            ClientMessage::Offer { .. } if !self.claims.can_publish => {
                let refusal =
                    Refusal::new(ErrorCode::Forbidden, "The token lacks `can_publish`; ask for one that has it.");
                self.fail(&refusal, close_code::FORBIDDEN).await
            }
            ClientMessage::Offer { sdp, .. } if sdp.len() > self.context.settings.limits.sdp_bytes => {
                let most = self.context.settings.limits.sdp_bytes;
                let message = format!("The session description may have {most} bytes.");
                self.send(&Refusal::new(ErrorCode::TooLarge, message).to_message(false)).await
            }
            ClientMessage::Offer { sdp, options, session_id, traceparent, tracestate } => {
                let caller = trace::caller_in(traceparent.as_deref(), tracestate.as_deref());
                self.offer(sdp, options, session_id, caller).await
            }
            ClientMessage::Candidate { candidate } => self.candidate(candidate).await,
            ClientMessage::Configure { options } => self.configure(options).await,
            ClientMessage::Bye => self.bye().await,
            ClientMessage::Auth { token } => self.renew(&token).await,
        }
    }

    /// A further token takes the place of the one before, if it is of the same subject and good for what is going on.
    async fn renew(&mut self, token: &str) -> Flow {
        // Where none is needed, one changes nothing.
        let Some(verifier) = &self.context.verifier else { return ControlFlow::Continue(()) };
        let Some(claims) = verifier.verify(token) else {
            counter!("saccade_messages_refused_total", "channel" => "socket", "reason" => "unauthorized").increment(1);
            let refusal =
                Refusal::new(ErrorCode::Unauthorized, "This token is not valid; the one before still counts.");
            return self.send(&refusal.to_message(false)).await;
        };
        let session = self.session.as_ref().map(|session| session.handle.clone());
        let may_go_on = session.as_ref().is_none_or(|it| claims.can_publish && claims.may_know(it.id().as_str()));
        if claims.sub != self.claims.sub || !may_go_on {
            let message = "This token is for somebody or something else; the one before still counts.";
            return self.send(&Refusal::new(ErrorCode::Forbidden, message).to_message(false)).await;
        }
        if let Some(handle) = session {
            handle.authorize(claims.clone()).await;
        }
        self.claims = claims;
        self.caller.token = Some(Secret::new(token.to_owned()));
        ControlFlow::Continue(())
    }

    /// What an offer says of its span counts for it alone, and before what was said when the socket was opened.
    async fn offer(
        &mut self,
        sdp: String,
        options: Option<OptionsPatch>,
        session_id: Option<String>,
        caller: Option<TraceContext>,
    ) -> Flow {
        // Options of a session's first offer are the publisher's own; later ones change them mid-session.
        let changes = options.as_ref().is_some_and(|patch| *patch != OptionsPatch::default());
        let further = self.session.is_some() || session_id.is_some();
        if further && changes && !self.claims.can_configure {
            return self.send(&Refusal::may_not_configure().to_message(false)).await;
        }
        if let Some(session) = &self.session {
            if session_id.is_some_and(|id| id != session.handle.id().as_str()) {
                let message = "This socket serves another session; open a new socket for this one.";
                return self.send(&Refusal::new(ErrorCode::Conflict, message).to_message(false)).await;
            }
            let handle = session.handle.clone();
            return self.renegotiate(&handle, sdp, options).await;
        }
        let (signals, receiver) = mpsc::channel(SIGNAL_CAPACITY);
        if let Some(id) = session_id {
            // Another publisher's session is not theirs to know of.
            let found = self.context.session(&self.claims, &id).ok();
            let found = found.filter(|handle| handle.is_of(&self.claims));
            let attached = match found {
                Some(handle) => handle.attach(signals).await.ok().map(|()| handle),
                None => None,
            };
            let Some(handle) = attached else {
                let offer = ClientMessage::Offer {
                    sdp,
                    options,
                    session_id: Some(id.clone()),
                    traceparent: None,
                    tracestate: None,
                };
                if let Some(flow) = Box::pin(self.resume_elsewhere(&id, &offer)).await {
                    return flow;
                }
                let message = "There is no such session any more; send an offer without `session_id`.";
                return self.send(&Refusal::new(ErrorCode::NotFound, message).to_message(false)).await;
            };
            handle.authorize(self.claims.clone()).await;
            self.session = Some(Session { handle: handle.clone(), signals: receiver });
            return self.renegotiate(&handle, sdp, options).await;
        }
        let request = OpenRequest {
            sdp,
            options: options.unwrap_or_default(),
            trickle: true,
            signals: Some(signals),
            claims: self.claims.clone(),
            address: self.caller.address,
            caller: caller.or_else(|| self.caller.trace.clone()),
        };
        match open(&self.context, request).await {
            Ok((handle, answer)) => {
                let session_id = handle.id().to_string();
                self.session = Some(Session { handle: handle.clone(), signals: receiver });
                self.send(&ServerMessage::Answer { sdp: answer.sdp, session_id, options: answer.options }).await?;
                self.hand_on_early(&handle).await
            }
            Err(refusal) => match refusal.code {
                ErrorCode::Draining => self.fail(&refusal, close_code::DRAINING).await,
                ErrorCode::Capacity | ErrorCode::RateLimited => self.fail(&refusal, close_code::TRY_LATER).await,
                ErrorCode::Internal => self.fail(&refusal, close_code::INTERNAL).await,
                _ => self.send(&refusal.to_message(false)).await,
            },
        }
    }

    async fn renegotiate(&mut self, handle: &Handle, sdp: String, options: Option<OptionsPatch>) -> Flow {
        match handle.offer(sdp, options).await {
            Ok(answer) => {
                let session_id = handle.id().to_string();
                self.send(&ServerMessage::Answer { sdp: answer.sdp, session_id, options: answer.options }).await?;
                self.hand_on_early(handle).await
            }
            Err(refusal) => self.send(&refusal.to_message(false)).await,
        }
    }

    async fn hand_on_early(&mut self, handle: &Handle) -> Flow {
        for candidate in std::mem::take(&mut self.early) {
            // A session that has ended says so itself.
            handle.candidate(candidate).await.ok();
        }
        ControlFlow::Continue(())
    }

    async fn candidate(&mut self, candidate: Option<IceCandidate>) -> Flow {
        let candidate = candidate.filter(|candidate| !candidate.candidate.is_empty());
        if let Some(session) = &self.session {
            session.handle.candidate(candidate).await.ok();
            return ControlFlow::Continue(());
        }
        if self.early.len() < MAX_PENDING_CANDIDATES {
            self.early.push(candidate);
            return ControlFlow::Continue(());
        }
        let message = "Too many candidates came before their offer; send the offer first.";
        self.send(&Refusal::new(ErrorCode::BadRequest, message).to_message(false)).await
    }

    async fn configure(&mut self, options: OptionsPatch) -> Flow {
        let Some(session) = &self.session else {
            let message = "There is no session to configure; send an offer first.";
            return self.send(&Refusal::new(ErrorCode::Conflict, message).to_message(false)).await;
        };
        if !self.claims.can_configure {
            return self.send(&Refusal::may_not_configure().to_message(false)).await;
        }
        match session.handle.configure(options).await {
            Ok(options) => self.send(&ServerMessage::Configured { options }).await,
            Err(refusal) => self.send(&refusal.to_message(false)).await,
        }
    }

    async fn bye(&mut self) -> Flow {
        if let Some(mut session) = self.session.take() {
            session.handle.close(EndReason::Bye).await;
            let last_words = async {
                while let Some(message) = session.signals.recv().await {
                    let last = matches!(message, ServerMessage::Closed { .. });
                    self.send(&message).await?;
                    if last {
                        return ControlFlow::Break(End::Close(close_code::BYE, "bye".into()));
                    }
                }
                ControlFlow::Continue(())
            };
            timeout(BYE_TIMEOUT, last_words).await.unwrap_or(ControlFlow::Continue(()))?;
        }
        self.send(&ServerMessage::Closed { reason: EndReason::Bye.as_str().into() }).await?;
        ControlFlow::Break(End::Close(close_code::BYE, "bye".into()))
    }

    /// Hands the session's message to the client; after `closed` the socket has served.
    async fn forward(&mut self, message: ServerMessage) -> Flow {
        self.send(&message).await?;
        let ServerMessage::Closed { reason } = message else { return ControlFlow::Continue(()) };
        self.session = None;
        let known = EndReason::ALL.iter().find(|known| known.as_str() == reason);
        let code = known.map_or(close_code::BYE, |reason| reason.close_code());
        ControlFlow::Break(End::Close(code, reason.into()))
    }

    /// The session let go of this socket without a word: another one took over, or its owner failed.
    async fn abandoned(&mut self) -> Flow {
        let Some(session) = self.session.take() else { return ControlFlow::Continue(()) };
        if self.context.registry.get(session.handle.id().as_str()).is_some() {
            return ControlFlow::Break(End::Close(close_code::POLICY, "another socket took the session over".into()));
        }
        let refusal = Refusal::new(ErrorCode::Internal, "The session failed; connect again.");
        self.fail(&refusal, close_code::INTERNAL).await
    }

    async fn ping(&mut self) -> Flow {
        if clock::now().saturating_duration_since(self.heard) > 2 * self.context.settings.ping_interval {
            return ControlFlow::Break(End::Lost);
        }
        self.transmit(Message::Ping(axum::body::Bytes::new())).await
    }

    async fn say_draining(&mut self) -> Flow {
        let Some(drain) = *self.drain.borrow_and_update() else { return ControlFlow::Continue(()) };
        let reconnect_after_ms = u64::try_from(drain.reconnect_after.as_millis()).unwrap_or(u64::MAX);
        self.send(&ServerMessage::Draining { reconnect_after_ms }).await
    }

    /// The WebSocket library gave up on what came. Its error type is not ours to name, so its text has to do.
    async fn broken<T>(&mut self, error: &axum::Error) -> Flow<T> {
        let text = error.to_string();
        if text.starts_with("Space limit exceeded") {
            let most = self.context.settings.limits.message_bytes;
            let refusal = Refusal::new(ErrorCode::TooLarge, format!("A message may have {most} bytes."));
            self.fail(&refusal, close_code::TOO_LARGE).await
        } else if text.starts_with("UTF-8") {
            ControlFlow::Break(End::Close(close_code::BAD_JSON, "text has to be UTF-8".into()))
        } else {
            ControlFlow::Break(End::Lost)
        }
    }

    /// Says the error and closes the socket with `code`.
    async fn fail<T>(&mut self, refusal: &Refusal, code: u16) -> Flow<T> {
        self.send(&refusal.to_message(true)).await?;
        ControlFlow::Break(End::Close(code, refusal.code.as_str().into()))
    }

    async fn send(&mut self, message: &ServerMessage) -> Flow {
        match serde_json::to_string(message) {
            Ok(text) => self.transmit(Message::text(text)).await,
            Err(error) => {
                tracing::error!(%error, "a signaling message could not be written");
                ControlFlow::Break(End::Close(close_code::INTERNAL, "internal".into()))
            }
        }
    }

    async fn transmit(&mut self, message: Message) -> Flow {
        match timeout(self.context.settings.send_timeout, self.socket.send(message)).await {
            Ok(Ok(())) => ControlFlow::Continue(()),
            Ok(Err(_)) | Err(_) => ControlFlow::Break(End::Lost),
        }
    }

    /// Lets go of the session, and closes the socket so that the client can read why.
    async fn finish(mut self, end: End) {
        if let Some(remote) = self.remote.take() {
            remote.close().await;
        }
        if let Some(Session { handle, signals }) = self.session.take() {
            drop(signals);
            handle.detach().await;
        }
        let End::Close(code, reason) = end else { return };
        let frame = CloseFrame { code, reason: reason.as_ref().into() };
        if self.transmit(Message::Close(Some(frame))).await.is_continue() {
            let answer = async { while let Some(Ok(_)) = self.socket.recv().await {} };
            timeout(CLOSE_TIMEOUT, answer).await.ok();
        }
    }
}

fn expired() -> Refusal {
    Refusal::new(ErrorCode::Unauthorized, "The token has ended; connect again with a new one.")
}

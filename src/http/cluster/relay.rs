use std::borrow::Cow;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use axum::http::{HeaderName, HeaderValue, header};
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{sleep_until, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Bytes, Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::{CONNECT_LIMIT, SIGNAL, count};
use crate::clock;
use crate::cluster::{self, Found, Owner};
use crate::http::Context;
use crate::secret::Secret;
use crate::telemetry::EverySecond;

/// How long an owner may take to take a socket.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(3);
/// How long an owner may say nothing before it is asked whether it is there. A host that is lost closes nothing; with this, the
/// time to answer, and the handshake that a client tries then, that client knows within ten seconds.
const PING_AFTER: Duration = Duration::from_secs(2);
/// How long it may take to answer that.
const PONG_LIMIT: Duration = Duration::from_secs(4);
/// How long an owner may take to hear that a socket is over.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);
/// Bytes of a message of another server: its answers are descriptions, which are not bound as offers are.
const MAX_MESSAGE: usize = 1024 * 1024;
const KIND: &str = "socket";
/// Owners that take no socket.
static AWAY: EverySecond = EverySecond::new();

/// A client's signaling socket, on its way to the server that has the client's session. There is no queue: the next message
/// is read when the one before was taken.
pub(in crate::http) struct Remote {
    socket: WebSocketStream<TcpStream>,
    /// Until when the owner may say nothing.
    due: Instant,
    /// Whether it was asked whether it is there since it was last heard.
    is_pinged: bool,
    _place: OwnedSemaphorePermit,
}

/// What comes from the owner.
pub(in crate::http) enum Heard {
    /// A message.
    Text(String),
    /// It closes the socket, with a code and a reason or without.
    Closed(Option<(u16, Cow<'static, str>)>),
    /// It is gone, or says nothing any more.
    Lost,
}

impl Remote {
    /// Opens a socket at the server that has this session, with the client's token and address; `None`, counted, where no
    /// server has it that can be reached.
    pub(in crate::http) async fn open(
        context: &Context,
        id: &str,
        token: Option<&Secret>,
        host: &HeaderValue,
        client: Option<IpAddr>,
    ) -> Option<Self> {
        let forwarding = context.forwarding.as_ref()?;
        let owner = match forwarding.cluster.directory().find(id).await {
            Ok(Found::Elsewhere(owner)) => owner,
            Ok(Found::Nowhere) => return none("nowhere"),
            Err(_) => return none("unknown"),
        };
        let Some(place) = forwarding.place(true) else { return none("full") };
        let bearer = token.map(|token| format!("Bearer {}", token.expose()));
        let signed = cluster::Request {
            method: "GET",
            target: SIGNAL,
            host: host.as_bytes(),
            authorization: bearer.as_deref().unwrap_or_default().as_bytes(),
            body: &[],
        };
        let Ok(proof) = forwarding.cluster.sign(&owner, &signed, client) else { return none("failed") };
        let Some(request) = request(&owner, host, bearer.as_deref(), &proof) else { return none("failed") };
        let connected = timeout(CONNECT_LIMIT, TcpStream::connect(owner.authority())).await;
        let stream = match connected {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return away("gone", &owner, &error),
            Err(late) => return away("silent", &owner, &late),
        };
        stream.set_nodelay(true).ok();
        let config = WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE)).max_frame_size(Some(MAX_MESSAGE));
        match timeout(HANDSHAKE_LIMIT, client_async_with_config(request, stream, Some(config))).await {
            Ok(Ok((socket, _))) => {
                count(KIND, "answered");
                Some(Self { socket, due: clock::now() + PING_AFTER, is_pinged: false, _place: place })
            }
            // It shuts down, is full, or does not believe this server, which it says in its own log.
            Ok(Err(error @ Error::Http(_))) => away("refused", &owner, &error),
            Ok(Err(error)) => away("broken", &owner, &error),
            Err(late) => away("silent", &owner, &late),
        }
    }

    /// Waits for what the owner says. May be given up and asked again.
    pub(in crate::http) async fn next(&mut self) -> Heard {
        loop {
            let Some(message) = self.listen().await else {
                count(KIND, "lost");
                return Heard::Lost;
            };
            (self.due, self.is_pinged) = (clock::now() + PING_AFTER, false);
            match message {
                Message::Text(text) => return Heard::Text(text.as_str().to_owned()),
                Message::Close(frame) => {
                    let said = frame.map(|frame| (frame.code.into(), frame.reason.as_str().to_owned().into()));
                    return Heard::Closed(said);
                }
                // Pings are answered by the library.
                _ => {}
            }
        }
    }

    /// The owner's next message, if it is there. What has come counts before how long it took to be read.
    async fn listen(&mut self) -> Option<Message> {
        loop {
            tokio::select! {
                biased;
                message = self.socket.next() => return message?.ok(),
                () = sleep_until(self.due.into()) => {
                    if self.is_pinged {
                        return None;
                    }
                    let ping = self.socket.send(Message::Ping(Bytes::new()));
                    timeout(PONG_LIMIT, ping).await.ok()?.ok()?;
                    (self.due, self.is_pinged) = (clock::now() + PONG_LIMIT, true);
                }
            }
        }
    }

    /// Hands a message on within `limit`; says whether the owner took it.
    pub(in crate::http) async fn send(&mut self, text: &str, limit: Duration) -> bool {
        matches!(timeout(limit, self.socket.send(Message::text(text))).await, Ok(Ok(())))
    }

    /// Lets go of the session, which may be resumed.
    pub(in crate::http) async fn close(mut self) {
        timeout(CLOSE_LIMIT, self.socket.close(None)).await.ok();
    }
}

fn request(owner: &Owner, host: &HeaderValue, bearer: Option<&str>, proof: &str) -> Option<hyper::Request<()>> {
    let mut request = format!("ws://{}{SIGNAL}", owner.authority()).into_client_request().ok()?;
    let headers = request.headers_mut();
    headers.insert(header::HOST, host.clone());
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(saccade_signaling::SUBPROTOCOL));
    headers.insert(HeaderName::from_static(cluster::HEADER), HeaderValue::try_from(proof).ok()?);
    if let Some(bearer) = bearer {
        headers.insert(header::AUTHORIZATION, HeaderValue::try_from(bearer).ok()?);
    }
    Some(request)
}

/// Says in the log why an owner takes no socket, once a second at most.
fn away<T>(outcome: &'static str, owner: &Owner, error: &dyn std::error::Error) -> Option<T> {
    if let Some(suppressed) = AWAY.pass(clock::now()) {
        tracing::warn!(owner = owner.name, %error, outcome, suppressed, "the owner of a session takes no socket");
    }
    none(outcome)
}

fn none<T>(outcome: &'static str) -> Option<T> {
    count(KIND, outcome);
    None
}

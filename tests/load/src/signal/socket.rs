//! Saccade's WebSocket protocol.

use futures_util::{SinkExt, StreamExt};
use saccade_signaling::{ClientMessage, OptionsPatch, ServerMessage};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

use super::{Answer, Link, MAX_ANSWER, News, SignalError, Target};

const SUBPROTOCOL: &str = "saccade.v1";

/// An open socket with a session.
#[derive(Debug)]
pub(crate) struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

pub(super) async fn negotiate(target: &Target, sdp: String, options: &OptionsPatch) -> Result<Answer, SignalError> {
    let mut request = target.url.as_str().into_client_request().map_err(|error| target.bad(&error.to_string()))?;
    let headers = request.headers_mut();
    headers.insert("sec-websocket-protocol", HeaderValue::from_static(SUBPROTOCOL));
    if let Some(token) = &target.token {
        let value =
            HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| target.bad("the token is no header"))?;
        headers.insert("authorization", value);
    }
    let config = WebSocketConfig::default().max_message_size(Some(MAX_ANSWER)).max_frame_size(Some(MAX_ANSWER));
    let (stream, _) =
        connect_async_with_config(request, Some(config), true).await.map_err(|error| failed(target, &error))?;
    let mut socket = Socket(stream);
    let offer = ClientMessage::Offer {
        sdp,
        options: Some(options.clone()),
        session_id: None,
        traceparent: None,
        tracestate: None,
    };
    socket.send(&offer).await.map_err(|error| failed(target, &error))?;
    let mut candidates = Vec::new();
    loop {
        match socket.message().await {
            Ok(ServerMessage::Answer { sdp, .. }) => {
                let sdp = with_candidates(sdp, &candidates);
                return Ok(Answer { sdp, link: Link::Socket(Box::new(socket)) });
            }
            Ok(ServerMessage::Error { code, message, .. }) => {
                return Err(SignalError::Refused { code: code.to_string(), message });
            }
            Ok(ServerMessage::Draining { .. }) => {
                return Err(SignalError::Refused { code: "draining".to_owned(), message: "it shuts down".to_owned() });
            }
            Ok(ServerMessage::Candidate { candidate: Some(candidate) }) => candidates.push(candidate.candidate),
            Ok(_) => {}
            Err(reason) => {
                return Err(SignalError::Protocol { url: target.url.clone(), dialect: target.dialect, reason });
            }
        }
    }
}

/// An answer with candidates that came before it.
fn with_candidates(mut sdp: String, candidates: &[String]) -> String {
    for candidate in candidates.iter().filter(|candidate| !candidate.is_empty()) {
        sdp.push_str("a=");
        sdp.push_str(candidate);
        sdp.push_str("\r\n");
    }
    sdp
}

fn failed(target: &Target, error: &Error) -> SignalError {
    match error {
        // The server is there, and says no before there is a socket.
        Error::Http(response) if response.status().is_client_error() || response.status().as_u16() == 503 => {
            SignalError::Refused { code: response.status().as_u16().to_string(), message: "no WebSocket".to_owned() }
        }
        error => SignalError::Unreachable { url: target.url.clone(), reason: error.to_string() },
    }
}

impl Socket {
    async fn send(&mut self, message: &ClientMessage) -> Result<(), Error> {
        let text = serde_json::to_string(message).map_err(|error| Error::Io(error.into()))?;
        self.0.send(Message::text(text)).await
    }

    /// The next message of the protocol, or why there is none.
    async fn message(&mut self) -> Result<ServerMessage, String> {
        loop {
            match self.0.next().await {
                Some(Ok(Message::Text(text))) => return serde_json::from_str(&text).map_err(|error| error.to_string()),
                Some(Ok(Message::Close(Some(frame)))) => {
                    return Err(format!("closed with {}: {}", frame.code, frame.reason));
                }
                Some(Ok(Message::Close(None))) | None => return Err("closed".to_owned()),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.to_string()),
            }
        }
    }

    pub(super) async fn next(&mut self) -> News {
        loop {
            match self.message().await {
                Ok(ServerMessage::Candidate { candidate: Some(candidate) }) => {
                    return News::Candidate(candidate.candidate);
                }
                Ok(ServerMessage::Closed { reason }) => return News::Closed(reason),
                Ok(ServerMessage::Error { code, message, fatal: true, .. }) => {
                    return News::Closed(format!("{code}: {message}"));
                }
                Ok(_) => {}
                Err(reason) => return News::Closed(reason),
            }
        }
    }

    pub(super) async fn bye(mut self) {
        // The server may be gone already.
        if self.send(&ClientMessage::Bye).await.is_ok() {
            let _ = self.0.close(None).await;
        }
    }
}

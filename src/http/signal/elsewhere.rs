//! A socket whose client resumes a session of another server: from the owner's answer on, messages go to and fro as they are.

use std::ops::ControlFlow;

use axum::extract::ws::Message;
use saccade_signaling::{ClientMessage, ServerMessage};
use tokio::time::{Duration, timeout};

use super::{Client, End, Flow, Heard, Remote};

/// How long an owner may take to close a socket after an error that ends it.
const LAST_LIMIT: Duration = Duration::from_secs(1);

impl Client {
    /// Resumes the session at the server that has it. `None` where no other server does, which the client is told as of any
    /// session that is gone, so that it opens a new one here.
    pub(super) async fn resume_elsewhere(&mut self, id: &str, offer: &ClientMessage) -> Option<Flow> {
        let caller = &self.caller;
        // Who may not know of the session learns nothing of it, and nothing goes around in circles.
        if caller.is_forwarded || !self.claims.may_know(id) || self.context.registry.get(id).is_some() {
            return None;
        }
        let offer = serde_json::to_string(offer).ok()?;
        let token = caller.token.as_ref();
        let mut remote = Remote::open(&self.context, id, token, &caller.host, caller.address).await?;
        if !remote.send(&offer, self.context.settings.send_timeout).await {
            return None;
        }
        let answer = timeout(self.context.settings.open_timeout, first(&mut remote)).await.ok().flatten();
        let Some((text, said)) = answer else {
            remote.close().await;
            return None;
        };
        match said {
            Said::Answer => {}
            // The owner has let the offer go, and the client is here as before.
            Said::No => {
                remote.close().await;
                return Some(self.transmit(Message::text(text)).await);
            }
            // The client was told that the socket ends.
            Said::End => {
                let flow = self.transmit(Message::text(text)).await;
                let last = timeout(LAST_LIMIT, remote.next()).await.unwrap_or(Heard::Lost);
                return Some(if flow.is_continue() { self.hear(last).await } else { flow });
            }
        }
        for candidate in std::mem::take(&mut self.early) {
            let candidate = serde_json::to_string(&ClientMessage::Candidate { candidate }).ok()?;
            if !remote.send(&candidate, self.context.settings.send_timeout).await {
                return None;
            }
        }
        self.remote = Some(remote);
        Some(self.transmit(Message::text(text)).await)
    }

    /// Hands a message of the client on.
    pub(super) async fn pass_on(&mut self, text: &str) -> Flow {
        let limit = self.context.settings.send_timeout;
        let Some(remote) = &mut self.remote else { return ControlFlow::Continue(()) };
        if remote.send(text, limit).await { ControlFlow::Continue(()) } else { ControlFlow::Break(End::Lost) }
    }

    /// Hands on what the owner says. When it is gone, so is the socket: the client resumes, and learns what became of it.
    pub(super) async fn hear(&mut self, heard: Heard) -> Flow {
        match heard {
            Heard::Text(text) => self.transmit(Message::text(text)).await,
            Heard::Closed(Some((code, reason))) => ControlFlow::Break(End::Close(code, reason)),
            Heard::Closed(None) => {
                self.transmit(Message::Close(None)).await?;
                ControlFlow::Break(End::Lost)
            }
            Heard::Lost => ControlFlow::Break(End::Lost),
        }
    }
}

/// What an owner says to an offer.
enum Said {
    Answer,
    /// An error that ends nothing.
    No,
    /// An error that ends the socket.
    End,
}

/// The owner's answer to an offer, or its error; `None` if it says nothing more.
async fn first(remote: &mut Remote) -> Option<(String, Said)> {
    loop {
        let Heard::Text(text) = remote.next().await else { return None };
        match serde_json::from_str(&text) {
            Ok(ServerMessage::Answer { .. }) => return Some((text, Said::Answer)),
            Ok(ServerMessage::Error { fatal: false, .. }) => return Some((text, Said::No)),
            Ok(ServerMessage::Error { fatal: true, .. }) => return Some((text, Said::End)),
            // The client had its `welcome` here.
            _ => {}
        }
    }
}

//! A socket whose client resumes a session of another server: from the owner's answer on, messages go to and fro as they are.

use std::ops::ControlFlow;

use axum::extract::ws::Message;
use saccade_signaling::{ClientMessage, ServerMessage};
use tokio::time::timeout;

use super::{Client, End, Flow, Heard, Remote};

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
        let Some((text, is_answer)) = answer else {
            remote.close().await;
            return None;
        };
        if !is_answer {
            // Whatever it is, the owner has let the offer go, and the client is here as before.
            remote.close().await;
            return Some(self.transmit(Message::text(text)).await);
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
            Heard::Closed(code, reason) => ControlFlow::Break(End::Close(code, reason)),
            Heard::Lost => ControlFlow::Break(End::Lost),
        }
    }
}

/// The owner's answer to an offer, or its error, and which of them it is; `None` if it says nothing more.
async fn first(remote: &mut Remote) -> Option<(String, bool)> {
    loop {
        let Heard::Text(text) = remote.next().await else { return None };
        match serde_json::from_str(&text) {
            Ok(ServerMessage::Answer { .. }) => return Some((text, true)),
            Ok(ServerMessage::Error { .. }) => return Some((text, false)),
            // The client had its `welcome` here.
            _ => {}
        }
    }
}

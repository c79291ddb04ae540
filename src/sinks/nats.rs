use std::time::Duration;

use async_nats::{Client, ConnectErrorKind, ConnectOptions, HeaderMap, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::sync::mpsc;

use super::address::level;
use super::backlog::Numbered;
use super::backoff::{Backoff, chance};
use super::failure::is_of_tls;
use super::outlet::{Outcome, Outlet, State};
use super::{Failure, Message, Retry};
use crate::clock;
use crate::secret::Secret;

/// Messages that are on their way together.
const BURST: usize = 64;
/// Bytes of a message's headers, at most.
const HEADERS: usize = 128;
/// Between two looks whether the server is there, while there is nothing to send.
const LOOK: Duration = Duration::from_secs(15);

/// A NATS server.
#[derive(Debug, Clone, PartialEq)]
pub struct Nats {
    /// Where it is, `nats` or `tls`.
    pub url: Secret,
    /// Who asks.
    pub login: NatsLogin,
    /// What subjects begin with.
    pub prefix: String,
    /// Whether a stream has to say that it keeps a message.
    pub jetstream: bool,
    /// How long it may take to answer.
    pub timeout: Duration,
    /// When it is tried again.
    pub retry: Retry,
}

/// Credentials of a NATS server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NatsLogin {
    /// None.
    None,
    /// User name and password.
    User(String, Secret),
    /// A token.
    Token(Secret),
    /// The seed of an nkey.
    Nkey(Secret),
    /// The text of a `.creds` file: a JWT and the seed of its nkey.
    Credentials(Secret),
}

/// A connection. It is made anew by [`Nats::run`], not by the library, so that what was not confirmed is known.
struct Connection {
    client: Client,
    /// What the server sends back once it has read all that was sent before.
    echoes: Subscriber,
    inbox: String,
    lost: mpsc::Receiver<Failure>,
}

impl Nats {
    /// Publishes what the outlet has until the server stops. What is not confirmed when a connection is lost is published
    /// again over the next one. After the stop it goes on until nothing is left or a connection fails that was made after
    /// it.
    pub(super) async fn run(&self, tls: &rustls::ClientConfig, outlet: &Outlet) {
        let mut backoff = Backoff::new(self.retry.shortest..=self.retry.longest);
        loop {
            let is_last = outlet.is_closing();
            let failure = match self.connect(tls).await {
                Ok(mut connection) => {
                    outlet.enter(State::Up);
                    backoff.reset();
                    let ended = self.serve(&mut connection, outlet).await;
                    match ended {
                        Ok(()) => return,
                        Err(failure) => failure,
                    }
                }
                Err(failure) => failure,
            };
            outlet.failed(failure, State::Waiting);
            if is_last {
                return;
            }
            outlet.pause(backoff.wait(chance())).await;
        }
    }

    async fn connect(&self, tls: &rustls::ClientConfig) -> Result<Connection, Failure> {
        let (told, lost) = mpsc::channel(1);
        let options = match &self.login {
            NatsLogin::None => ConnectOptions::new(),
            NatsLogin::User(name, password) => {
                ConnectOptions::with_user_and_password(name.clone(), password.expose().to_owned())
            }
            NatsLogin::Token(token) => ConnectOptions::with_token(token.expose().to_owned()),
            NatsLogin::Nkey(seed) => ConnectOptions::with_nkey(seed.expose().to_owned()),
            NatsLogin::Credentials(text) => {
                ConnectOptions::with_credentials(text.expose()).map_err(|_| Failure::Unauthorized)?
            }
        };
        let options = options
            .name("saccade")
            .tls_client_config(tls.clone())
            .require_tls(self.url.expose().starts_with("tls://"))
            .connection_timeout(self.timeout)
            .request_timeout(Some(self.timeout))
            .max_reconnects(1)
            .client_capacity(BURST * 2)
            .event_callback(move |event| {
                let failure = match event {
                    async_nats::Event::Disconnected | async_nats::Event::Closed => Some(Failure::Closed),
                    async_nats::Event::ServerError(async_nats::ServerError::AuthorizationViolation) => {
                        Some(Failure::Unauthorized)
                    }
                    async_nats::Event::ServerError(async_nats::ServerError::Other(text)) => {
                        text.to_lowercase().contains("permissions").then_some(Failure::Unauthorized)
                    }
                    _ => None,
                };
                if let Some(failure) = failure {
                    // The first says it.
                    let _ = told.try_send(failure);
                }
                std::future::ready(())
            });
        let connecting = async {
            let client = options.connect(self.url.expose()).await.map_err(|error| match error.kind() {
                _ if is_of_tls(&error) => Failure::Tls,
                ConnectErrorKind::TimedOut => Failure::Timeout,
                ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => Failure::Unauthorized,
                ConnectErrorKind::Tls => Failure::Tls,
                ConnectErrorKind::ServerParse => Failure::Protocol,
                _ => Failure::Unreachable,
            })?;
            let inbox = client.new_inbox();
            let echoes = client.subscribe(inbox.clone()).await.map_err(|_| Failure::Closed)?;
            Ok(Connection { client, echoes, inbox, lost })
        };
        tokio::time::timeout(self.timeout * 2, connecting).await.unwrap_or(Err(Failure::Timeout))
    }

    /// `Ok` at the stop, once nothing is left.
    async fn serve(&self, connection: &mut Connection, outlet: &Outlet) -> Result<(), Failure> {
        loop {
            let mut taken = Vec::new();
            while taken.len() < BURST
                && let Some(next) = outlet.pop().await
            {
                taken.push(next);
            }
            let most = connection.client.max_payload().saturating_sub(HEADERS);
            let too_large = taken.extract_if(.., |one| one.message.body.len() > most).map(|one| one.message).collect();
            outlet.give_up(too_large, Outcome::Refused, 0).await;
            if taken.is_empty() {
                if outlet.is_closing() {
                    return Ok(());
                }
                tokio::select! {
                    () = outlet.ready() => {}
                    () = outlet.closing() => {}
                    failure = connection.lost.recv() => return Err(failure.unwrap_or(Failure::Closed)),
                    () = tokio::time::sleep(LOOK) => connection.confirm(self.timeout).await?,
                }
                continue;
            }
            let started = clock::now();
            let sent = if self.jetstream {
                self.keep(connection, outlet, &mut taken).await
            } else {
                self.publish(connection, &taken).await
            };
            if let Err(failure) = sent {
                outlet.put_back(taken.into_iter());
                return Err(failure);
            }
            if !taken.is_empty() {
                outlet.delivered(taken.len(), clock::now().duration_since(started));
            }
        }
    }

    /// Publishes these, and waits until the server has read them.
    async fn publish(&self, connection: &mut Connection, messages: &[Numbered]) -> Result<(), Failure> {
        let publishing = async {
            for Numbered { message, .. } in messages {
                let (subject, headers, payload) = self.parts(message);
                let sent = connection.client.publish_with_headers(subject, headers, payload).await;
                sent.map_err(|_| Failure::Closed)?;
            }
            Ok(())
        };
        tokio::time::timeout(self.timeout, publishing).await.unwrap_or(Err(Failure::Timeout))?;
        connection.confirm(self.timeout).await
    }

    /// Publishes these one after the other, each kept by a stream, and takes those out that are.
    async fn keep(
        &self,
        connection: &mut Connection,
        outlet: &Outlet,
        messages: &mut Vec<Numbered>,
    ) -> Result<(), Failure> {
        for at in 0..messages.len() {
            let (subject, headers, payload) = self.parts(&messages[at].message);
            let started = clock::now();
            let asked = connection.client.request_with_headers(subject, headers, payload).await;
            let answer = match asked {
                Ok(answer) => is_kept(&answer.payload),
                Err(error) if error.kind() == async_nats::RequestErrorKind::NoResponders => Err(Failure::NotKept),
                Err(error) if error.kind() == async_nats::RequestErrorKind::TimedOut => Err(Failure::Timeout),
                Err(_) => Err(Failure::Closed),
            };
            if let Err(failure) = answer {
                messages.drain(..at);
                return Err(failure);
            }
            outlet.delivered(1, clock::now().duration_since(started));
        }
        messages.clear();
        Ok(())
    }

    fn parts(&self, message: &Message) -> (String, HeaderMap, Bytes) {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", &*message.id);
        (subject(&self.prefix, message), headers, Bytes::copy_from_slice(message.body.as_bytes()))
    }
}

impl Connection {
    /// Waits until the server has read everything that was sent so far: it sends back what it is sent last.
    async fn confirm(&mut self, limit: Duration) -> Result<(), Failure> {
        let echo = async {
            self.client.publish(self.inbox.clone(), Bytes::new()).await.map_err(|_| Failure::Closed)?;
            self.client.flush().await.map_err(|_| Failure::Closed)?;
            tokio::select! {
                echo = self.echoes.next() => echo.map(drop).ok_or(Failure::Closed),
                failure = self.lost.recv() => Err(failure.unwrap_or(Failure::Closed)),
            }
        };
        tokio::time::timeout(limit, echo).await.unwrap_or(Err(Failure::Timeout))?;
        // What the server said of it before is told through another queue.
        self.lost.try_recv().map_or(Ok(()), Err)
    }
}

/// `PREFIX.cameras.NAME.events` and the like.
fn subject(prefix: &str, message: &Message) -> String {
    let source = &message.source;
    format!("{prefix}.{}.{}.{}", source.kind(), level(&source.name), message.kind.plural())
}

/// Reads a stream's answer to a publication (NATS architecture decision record 1): an error, or where it is kept.
fn is_kept(answer: &[u8]) -> Result<(), Failure> {
    let answer: serde_json::Value = serde_json::from_slice(answer).map_err(|_| Failure::Protocol)?;
    match (answer.get("error"), answer.get("seq")) {
        (None, Some(_)) => Ok(()),
        (Some(_), _) => Err(Failure::NotKept),
        _ => Err(Failure::Protocol),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::sync::Arc;

    use super::super::{Kind, Source};
    use super::*;

    #[test]
    fn subjects_have_one_token_for_each_part() {
        for (name, is_camera, kind, expected) in [
            ("entrance", true, Kind::Event, "site.saccade.cameras.entrance.events"),
            ("a.b", true, Kind::Result, "site.saccade.cameras.a_b_2e7336dc.results"),
            ("0a1b", false, Kind::Event, "site.saccade.sessions.0a1b.events"),
        ] {
            let message = Message {
                id: "msg_1".into(),
                at: clock::now(),
                kind,
                name: "any".into(),
                source: Arc::new(Source { name: name.into(), is_camera }),
                body: "{}".into(),
            };
            let subject = subject("site.saccade", &message);
            assert_eq!(subject, expected);
        }
    }

    #[test]
    fn only_a_stream_that_keeps_a_message_has_it() {
        assert_eq!(is_kept(br#"{"stream":"S","seq":7}"#), Ok(()));
        assert_eq!(is_kept(br#"{"error":{"code":503,"description":"no"}}"#), Err(Failure::NotKept));
        assert_eq!(is_kept(b"{}"), Err(Failure::Protocol));
        assert_eq!(is_kept(b""), Err(Failure::Protocol));
    }
}

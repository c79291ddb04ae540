//! MQTT 3.1.1: events and results as they come, and what is true now as retained messages, which Home Assistant can be
//! told of. Packets are made and read by `rumqttc`; the connection is this module's own, so that it is known what the
//! broker has acknowledged, and TLS is that of the rest of the server.

mod board;
mod layout;
mod link;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use url::Url;

use self::board::Board;
use self::layout::{Layout, is_sure};
use self::link::{Flying, Heard, Link};
use super::backoff::{Backoff, chance};
use super::outlet::{Outlet, State};
use super::{Change, Failure, Retry, Source};
use crate::clock;
use crate::secret::Secret;

/// Messages that wait to be acknowledged at a time.
const WINDOW: usize = 64;
/// How often the connection is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How long the broker may take to tell what it has kept from other times.
const LEFT_OVERS: Duration = Duration::from_secs(5);

/// An MQTT broker.
#[derive(Debug, Clone, PartialEq)]
pub struct Mqtt {
    /// Where it is, `mqtt` or `mqtts`.
    pub url: Url,
    /// User name and password, if it asks for them.
    pub login: Option<(String, Secret)>,
    /// Unlike that of every other client of the broker, which lets go of the one that has it.
    pub client_id: String,
    /// What topics begin with.
    pub prefix: String,
    /// 0: events may be lost; 1: they arrive, sometimes twice.
    pub qos: u8,
    /// What topics of Home Assistant's discovery begin with, where it is to be told.
    pub home_assistant: Option<String>,
    /// How long it may take to answer.
    pub timeout: Duration,
    /// When it is tried again.
    pub retry: Retry,
}

/// What the broker is to keep, as told from outside.
pub(super) struct Kept {
    board: Mutex<Board>,
    changed: Notify,
}

impl Kept {
    pub(super) fn new(of: &Mqtt) -> Self {
        let layout = Layout { prefix: of.prefix.clone(), home_assistant: of.home_assistant.clone() };
        Self { board: Mutex::new(Board::new(layout)), changed: Notify::new() }
    }

    /// Takes in what has changed. Never waits for the broker.
    pub(super) fn apply(&self, source: &Source, change: &Change) {
        self.board().apply(source, change);
        self.changed.notify_one();
    }

    /// Resolves when there may be something to send.
    async fn changed(&self) {
        if self.board().is_settled() {
            self.changed.notified().await;
        }
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Mqtt {
    /// Publishes what the outlet has and what is to be kept, until the server stops. What was not acknowledged when a
    /// connection is lost is published again over the next one. After the stop it goes on until nothing is left or a
    /// connection fails that was made after it.
    pub(super) async fn run(&self, tls: &Arc<rustls::ClientConfig>, outlet: &Outlet, kept: &Kept) {
        let mut backoff = Backoff::new(self.retry.shortest..=self.retry.longest);
        loop {
            let is_last = outlet.is_closing();
            let status = kept.board().layout().status();
            let failure = match Link::open(self, tls, status).await {
                Ok(mut link) => {
                    outlet.enter(State::Up);
                    backoff.reset();
                    let served = self.serve(&mut link, outlet, kept).await;
                    let unsure = std::mem::take(&mut link.flying).into_values().filter_map(|flying| match flying {
                        Flying::Message(message, _) => Some(message),
                        _ => None,
                    });
                    let mut unsure: Vec<_> = unsure.collect();
                    unsure.sort_unstable_by_key(|message| message.number());
                    outlet.put_back(unsure.into_iter());
                    match served {
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

    /// `Ok` at the stop, once nothing is left.
    async fn serve(&self, link: &mut Link, outlet: &Outlet, kept: &Kept) -> Result<(), Failure> {
        let (status, birth, retained) = {
            let mut board = kept.board();
            board.all_again();
            (board.layout().status(), board.layout().birth(), board.layout().retained())
        };
        let sure = |topic: &str| Some(Flying::Topic(topic.to_owned(), clock::now()));
        link.publish(status.clone(), "online", true, sure(&status)).await?;
        link.subscribe(retained.iter().chain(&birth).cloned()).await?;
        let mut left_overs = Some(clock::now() + LEFT_OVERS);
        let mut look = tokio::time::interval(LOOK);
        loop {
            let has_room = link.flying.len() < WINDOW;
            if outlet.is_closing() && outlet.is_empty() && kept.board().is_settled() && link.flying.is_empty() {
                return self.leave(link, status).await;
            }
            tokio::select! {
                heard = link.hear() => self.heard(heard?, outlet, kept, birth.as_deref()),
                () = kept.changed(), if has_room => {
                    let next = kept.board().next();
                    if let Some((topic, payload)) = next {
                        link.publish(topic.clone(), &payload, true, sure(&topic)).await?;
                    }
                }
                () = outlet.ready(), if has_room => self.publish(link, outlet, kept).await?,
                () = outlet.closing(), if !outlet.is_closing() => {}
                _ = look.tick() => {
                    link.look().await?;
                    if left_overs.is_some_and(|until| clock::now() >= until) {
                        left_overs = None;
                        // From now on it would be told of what it has sent itself.
                        link.unsubscribe(retained.clone()).await?;
                    }
                }
            }
        }
    }

    /// Publishes the next message, if there is one.
    async fn publish(&self, link: &mut Link, outlet: &Outlet, kept: &Kept) -> Result<(), Failure> {
        let Some(next) = outlet.pop().await else { return Ok(()) };
        let (topic, body) = (kept.board().layout().message(&next.message), Arc::clone(&next.message.body));
        let started = clock::now();
        if is_sure(next.message.kind, self.qos) {
            return link.publish(topic, &body, false, Some(Flying::Message(next, started))).await;
        }
        let sent = link.publish(topic, &body, false, None).await;
        match sent {
            Ok(()) => outlet.delivered(1, clock::now().duration_since(started)),
            Err(_) => outlet.put_back(std::iter::once(next)),
        }
        sent
    }

    fn heard(&self, heard: Heard, outlet: &Outlet, kept: &Kept, birth: Option<&str>) {
        match heard {
            Heard::Acknowledged(Flying::Message(_, since)) => {
                outlet.delivered(1, clock::now().duration_since(since));
            }
            Heard::Acknowledged(Flying::Topic(topic, _)) => kept.board().taken(&topic),
            Heard::Message { topic, payload, .. } if Some(&*topic) == birth => {
                if &payload[..] == b"online" {
                    kept.board().entities_again();
                    kept.changed.notify_one();
                }
            }
            Heard::Message { topic, payload, retained: true } => {
                kept.board().found(&topic, &payload);
                kept.changed.notify_one();
            }
            Heard::Acknowledged(Flying::Subscription(_)) | Heard::Message { .. } | Heard::Nothing => {}
        }
    }

    /// Says that the server is gone: after a proper end the broker does not.
    async fn leave(&self, link: &mut Link, status: String) -> Result<(), Failure> {
        let waiting = Flying::Topic(status.clone(), clock::now());
        link.publish(status, "offline", true, Some(waiting)).await?;
        let acknowledged = async {
            while !link.flying.is_empty() {
                link.hear().await?;
            }
            Ok(())
        };
        tokio::time::timeout(self.timeout, acknowledged).await.unwrap_or(Err(Failure::Timeout))?;
        link.disconnect().await
    }
}

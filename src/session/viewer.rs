use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};

use super::handle::{COMMAND_CAPACITY, Orders};
use super::machine::{Timeouts, TransportEvent};
use super::{Claims, EndReason, Patch, Patched, Refusal, SessionId};
use crate::traces;

/// How long the path to a viewer may be interrupted before it ends. The transport notices an interruption after five
/// seconds.
const LOST: Duration = Duration::from_secs(20);

/// Who watches a session's video.
#[async_trait]
pub trait Audience: Send + Sync {
    /// Lets one more viewer watch. It ends in bounded time, and whoever is cancelled while waiting for it leaves nothing
    /// behind.
    ///
    /// # Errors
    ///
    /// [`Refusal`] when there is no video yet, the server is full or draining, or the offer cannot be used.
    async fn join(&self, request: WatchRequest) -> Result<(Viewer, String), Refusal>;

    /// The viewer of this id.
    fn viewer(&self, id: &str) -> Option<Viewer>;
}

/// What a new viewer starts from.
#[derive(Debug)]
pub struct WatchRequest {
    /// Session description of type `offer`, which takes video.
    pub sdp: String,
    /// What the viewer's token allows. That it may watch at all is for the caller to look at.
    pub claims: Claims,
    /// Where the offer came from, if that is known.
    pub address: Option<IpAddr>,
    /// The span that it was made in, if its sender traces.
    pub caller: Option<traces::Context>,
}

/// An order to the task that owns a viewer.
#[derive(Debug)]
pub enum ViewerCommand {
    /// As [`Command::Patch`](super::Command::Patch).
    Patch {
        /// What to change.
        patch: Patch,
        /// Gets what was done.
        reply: oneshot::Sender<Result<Patched, Refusal>>,
    },
    /// Ends the viewer.
    Close,
}

/// How the rest of the process talks to a viewer. Cheap to clone; holding one does not keep the viewer alive.
#[derive(Clone)]
pub struct Viewer {
    id: SessionId,
    subject: Option<Arc<str>>,
    orders: Orders<ViewerCommand>,
}

impl fmt::Debug for Viewer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Viewer").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Viewer {
    /// One with a new id, and the owner's end of it; the owner drops its end last.
    #[must_use]
    pub fn new(subject: Option<Arc<str>>) -> (Self, mpsc::Receiver<ViewerCommand>) {
        let (commands, owner) = mpsc::channel(COMMAND_CAPACITY);
        (Self { id: SessionId::random(), subject, orders: Orders::new(commands) }, owner)
    }

    /// Id of the viewer, made like a session's.
    #[must_use]
    pub const fn id(&self) -> &SessionId {
        &self.id
    }

    /// Subject of the token that watches.
    #[must_use]
    pub fn subject(&self) -> Option<&str> {
        self.subject.as_deref()
    }

    /// As [`Handle::patch`](super::Handle::patch).
    ///
    /// # Errors
    ///
    /// The same.
    pub async fn patch(&self, patch: Patch) -> Result<Patched, Refusal> {
        self.orders.ask(|reply| ViewerCommand::Patch { patch, reply }).await
    }

    /// Ends the viewer. An ended one needs no telling.
    pub async fn close(&self) {
        self.orders.order(ViewerCommand::Close).await.ok();
    }

    /// Resolves when the viewer's owner has let go of its end.
    pub async fn closed(&self) {
        self.orders.closed().await;
    }
}

/// The state machine of a viewer's life: it is told the time and what the transport reports, and says when the viewer
/// has to end. It has a deadline until it is connected, and whenever its path is interrupted.
#[derive(Debug)]
pub struct Viewing {
    timeouts: Timeouts,
    phase: Phase,
    /// When an interrupted path must be back.
    lost: Option<Instant>,
    /// When the viewer's token ends.
    expiry: Option<Instant>,
    ended: Option<EndReason>,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    Ice(Instant),
    Dtls(Instant),
    Live,
}

impl Viewing {
    /// A viewer whose offer was answered at `now`, and whose token ends at `expiry`, if it does.
    #[must_use]
    pub fn new(now: Instant, timeouts: Timeouts, expiry: Option<Instant>) -> Self {
        Self { timeouts, phase: Phase::Ice(now + timeouts.ice), lost: None, expiry, ended: None }
    }

    /// Whether media may flow.
    #[must_use]
    pub const fn is_live(&self) -> bool {
        matches!(self.phase, Phase::Live)
    }

    /// Takes what the transport reports.
    pub fn handle_transport(&mut self, now: Instant, event: TransportEvent) {
        match (event, self.phase) {
            (TransportEvent::IceConnected, Phase::Ice(_)) => self.phase = Phase::Dtls(now + self.timeouts.dtls),
            (TransportEvent::Connected, _) => {
                self.phase = Phase::Live;
                self.lost = None;
            }
            (TransportEvent::IceConnected, _) => self.lost = None,
            (TransportEvent::Failed, Phase::Ice(_)) => self.end(EndReason::IceTimeout),
            (TransportEvent::Failed, Phase::Dtls(_)) => self.end(EndReason::DtlsFailed),
            (TransportEvent::Disconnected | TransportEvent::Failed, Phase::Live) => {
                self.lost.get_or_insert(now + LOST);
            }
            (TransportEvent::Closed, _) => self.end(EndReason::PeerClosed),
            _ => {}
        }
    }

    /// ICE is restarted: a path that is interrupted gets the time that a new one needs.
    pub fn handle_restart(&mut self, now: Instant) {
        if self.lost.is_some() {
            self.lost = Some(now + self.timeouts.ice);
        }
    }

    /// When to call [`Viewing::handle_timeout`] next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines().map(|(deadline, _)| deadline).min()
    }

    /// Acts on a deadline that has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        let due = self.deadlines().filter(|&(deadline, _)| now >= deadline).min_by_key(|&(at, _)| at);
        if let Some((_, reason)) = due {
            self.end(reason);
        }
    }

    /// Deadlines, each with the reason for which the viewer then ends.
    fn deadlines(&self) -> impl Iterator<Item = (Instant, EndReason)> {
        let phase = match self.phase {
            Phase::Ice(deadline) => Some((deadline, EndReason::IceTimeout)),
            Phase::Dtls(deadline) => Some((deadline, EndReason::DtlsFailed)),
            Phase::Live => self.lost.map(|deadline| (deadline, EndReason::ConnectionLost)),
        };
        phase.into_iter().chain(self.expiry.map(|expiry| (expiry, EndReason::TokenExpired)))
    }

    /// Why the viewer has to end, once it has to.
    #[must_use]
    pub const fn ended(&self) -> Option<EndReason> {
        self.ended
    }

    fn end(&mut self, reason: EndReason) {
        self.ended.get_or_insert(reason);
    }
}

/// The audience of sessions that have no video.
#[cfg(test)]
pub(crate) struct Nobody;

#[cfg(test)]
#[async_trait]
impl Audience for Nobody {
    async fn join(&self, _: WatchRequest) -> Result<(Viewer, String), Refusal> {
        Err(Refusal::new(saccade_signaling::ErrorCode::Conflict, "There is no video."))
    }

    fn viewer(&self, _: &str) -> Option<Viewer> {
        None
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::TransportEvent::{Closed, Connected, Disconnected, Failed, IceConnected};
    use super::*;

    fn through(events: &[TransportEvent]) -> (Viewing, Instant) {
        let now = crate::clock::now();
        let mut viewing = Viewing::new(now, Timeouts::default(), None);
        events.iter().for_each(|event| viewing.handle_transport(now, *event));
        (viewing, now)
    }

    #[track_caller]
    fn ends_after(events: &[TransportEvent], seconds: u64, reason: EndReason) {
        let (mut viewing, now) = through(events);
        let deadline = viewing.poll_timeout().unwrap();
        assert_eq!(deadline - now, Duration::from_secs(seconds));
        viewing.handle_timeout(deadline - Duration::from_millis(1));
        assert_eq!(viewing.ended(), None);
        viewing.handle_timeout(deadline);
        assert_eq!(viewing.ended(), Some(reason));
    }

    #[test]
    fn every_wait_has_a_deadline() {
        ends_after(&[], 10, EndReason::IceTimeout);
        ends_after(&[IceConnected], 10, EndReason::DtlsFailed);
        ends_after(&[IceConnected, Connected, Disconnected], 20, EndReason::ConnectionLost);
        ends_after(&[IceConnected, Connected, Failed, Disconnected], 20, EndReason::ConnectionLost);
        let (live, _) = through(&[IceConnected, Connected]);
        assert_eq!((live.poll_timeout(), live.is_live()), (None, true));
    }

    #[test]
    fn a_viewer_ends_with_its_token() {
        let now = crate::clock::now();
        let expiry = now + Duration::from_secs(60);
        let mut viewing = Viewing::new(now, Timeouts::default(), Some(expiry));
        [IceConnected, Connected].iter().for_each(|event| viewing.handle_transport(now, *event));
        assert_eq!(viewing.poll_timeout(), Some(expiry));
        viewing.handle_timeout(expiry);
        assert_eq!(viewing.ended(), Some(EndReason::TokenExpired));
    }

    #[test]
    fn a_path_may_come_back_by_itself_or_by_a_restart() {
        let (mut viewing, now) = through(&[IceConnected, Connected, Disconnected]);
        viewing.handle_restart(now + Duration::from_secs(19));
        viewing.handle_timeout(now + LOST);
        assert_eq!(viewing.ended(), None);
        viewing.handle_transport(now + LOST, IceConnected);
        assert_eq!(viewing.poll_timeout(), None);
    }

    #[test]
    fn failures_end_it_with_their_reason() {
        assert_eq!(through(&[Failed]).0.ended(), Some(EndReason::IceTimeout));
        assert_eq!(through(&[IceConnected, Failed]).0.ended(), Some(EndReason::DtlsFailed));
        assert_eq!(through(&[IceConnected, Connected, Closed, Failed]).0.ended(), Some(EndReason::PeerClosed));
    }

    proptest! {
        /// Whatever the transport reports: a viewer that is not live, or has lost its path, ends within 35 s.
        #[test]
        fn none_lingers(events in prop::collection::vec(0..5_usize, 0..20)) {
            let (mut viewing, now) = through(&[]);
            for event in events {
                viewing.handle_transport(now, [IceConnected, Connected, Disconnected, Failed, Closed][event]);
            }
            let waits = viewing.poll_timeout().is_some();
            prop_assert!(waits || viewing.is_live());
            viewing.handle_timeout(now + Duration::from_secs(30));
            prop_assert!(!waits || viewing.ended().is_some());
        }
    }
}

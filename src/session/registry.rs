use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use metrics::{counter, gauge};
use saccade_signaling::ErrorCode;
use tokio::sync::watch;

use super::{EndReason, Handle, Refusal, SessionId};

/// When a refused client should come back.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// The shutdown under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drain {
    /// When the last session has to end.
    pub deadline: Instant,
    /// When clients should connect again, to whatever answers then.
    pub reconnect_after: Duration,
}

/// All sessions of the process. Share it in an `Arc`.
#[derive(Debug)]
pub struct Registry {
    max_sessions: Option<usize>,
    state: Mutex<State>,
    /// Sessions and permits.
    count: watch::Sender<usize>,
    drain: watch::Sender<Option<Drain>>,
}

#[derive(Debug, Default)]
struct State {
    sessions: HashMap<SessionId, Handle>,
    permits: usize,
}

impl Registry {
    /// An empty registry that admits `max_sessions` at a time (`None`: any number).
    #[must_use]
    pub fn new(max_sessions: Option<usize>) -> Self {
        gauge!("saccade_sessions_active").set(0.0);
        Self { max_sessions, state: Mutex::default(), count: watch::Sender::new(0), drain: watch::Sender::new(None) }
    }

    /// Admits one session, or says why not. The permit takes the session's place until it is registered.
    ///
    /// # Errors
    ///
    /// [`Refusal`] with `capacity` or `draining`, both worth another try later.
    pub fn admit(self: &Arc<Self>) -> Result<Permit, Refusal> {
        if self.is_draining() {
            return Err(self.refuse_draining());
        }
        let mut state = self.lock();
        if self.max_sessions.is_some_and(|most| state.len() >= most) {
            counter!("saccade_admission_rejected_total", "reason" => "capacity").increment(1);
            return Err(
                Refusal::new(ErrorCode::Capacity, "The server is full; try again later.").retry_after(RETRY_AFTER)
            );
        }
        state.permits += 1;
        self.count.send_replace(state.len());
        Ok(Permit { registry: Some(Arc::clone(self)) })
    }

    /// The session of this id.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<Handle> {
        self.lock().sessions.get(id).cloned()
    }

    /// Forgets a session that has ended, and counts its end. Forgetting twice counts once.
    pub fn remove(&self, id: &SessionId, reason: EndReason) {
        let mut state = self.lock();
        if state.sessions.remove(id).is_some() {
            counter!("saccade_sessions_total", "end_reason" => reason.as_str()).increment(1);
            self.publish(&state);
        }
    }

    /// All sessions, in the order of their ids.
    #[must_use]
    pub fn list(&self) -> Vec<Handle> {
        let mut sessions: Vec<_> = self.lock().sessions.values().cloned().collect();
        sessions.sort_unstable_by(|a, b| a.id().cmp(b.id()));
        sessions
    }

    /// Number of sessions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().sessions.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Starts the shutdown: nothing more is admitted, sockets tell their clients, sessions end by the deadline.
    pub fn drain(&self, drain: Drain) {
        self.drain.send_replace(Some(drain));
    }

    /// Whether the shutdown has begun.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.drain.borrow().is_some()
    }

    /// Tells of the shutdown when it begins.
    #[must_use]
    pub fn draining(&self) -> watch::Receiver<Option<Drain>> {
        self.drain.subscribe()
    }

    /// Waits until no session is left, none being opened included, or until `deadline`; says whether none is left.
    pub async fn wait_empty(&self, deadline: Instant) -> bool {
        let mut count = self.count.subscribe();
        let empty = count.wait_for(|count| *count == 0);
        tokio::time::timeout_at(deadline.into(), empty).await.is_ok_and(|empty| empty.is_ok())
    }

    /// Counts a rejection and says when to come back.
    pub(crate) fn refuse_draining(&self) -> Refusal {
        counter!("saccade_admission_rejected_total", "reason" => "draining").increment(1);
        let wait = self.drain.borrow().map_or(RETRY_AFTER, |drain| drain.reconnect_after);
        Refusal::new(ErrorCode::Draining, "The server is shutting down; connect again later.").retry_after(wait)
    }

    /// Counts a rejection for want of processors, and says when to come back.
    pub(crate) fn refuse_overload(&self) -> Refusal {
        counter!("saccade_admission_rejected_total", "reason" => "overload").increment(1);
        Refusal::new(ErrorCode::Capacity, "The server has no processor time for one more; try again later.")
            .retry_after(RETRY_AFTER)
    }

    fn publish(&self, state: &State) {
        #[expect(clippy::cast_precision_loss, reason = "a number of sessions")]
        gauge!("saccade_sessions_active").set(state.sessions.len() as f64);
        self.count.send_replace(state.len());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn len(&self) -> usize {
        self.sessions.len() + self.permits
    }
}

/// A place for one session. Dropped, it is free again.
#[derive(Debug)]
pub struct Permit {
    registry: Option<Arc<Registry>>,
}

impl Permit {
    /// Puts the opened session in its place; [`Registry::remove`] takes it out again.
    pub fn register(mut self, handle: Handle) {
        if let Some(registry) = self.registry.take() {
            let mut state = registry.lock();
            state.permits -= 1;
            state.sessions.insert(handle.id().clone(), handle);
            registry.publish(&state);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(registry) = self.registry.take() {
            let mut state = registry.lock();
            state.permits -= 1;
            registry.count.send_replace(state.len());
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use tokio::sync::broadcast;

    use super::*;

    fn handle(id: &str) -> Handle {
        Handle::new(
            id.into(),
            broadcast::Sender::new(1),
            broadcast::Sender::new(1),
            || unreachable!(),
            None,
            Arc::new(super::super::viewer::Nobody),
        )
        .0
    }

    #[test]
    fn a_place_is_taken_from_the_permit_to_the_removal() {
        let registry = Arc::new(Registry::new(Some(2)));
        let first = registry.admit().unwrap();
        registry.admit().unwrap().register(handle("b"));
        assert_eq!(registry.admit().unwrap_err().code, ErrorCode::Capacity);
        drop(first);
        registry.admit().unwrap().register(handle("a"));
        assert_eq!(registry.list().iter().map(|handle| handle.id().as_str()).collect::<Vec<_>>(), ["a", "b"]);
        registry.remove(&"b".into(), EndReason::Bye);
        registry.remove(&"b".into(), EndReason::Bye);
        assert!(registry.get("b").is_none() && registry.get("a").is_some());
        assert!(registry.admit().is_ok());
    }

    #[tokio::test]
    async fn a_drain_admits_nothing_and_waits_for_the_last_session() {
        let registry = Arc::new(Registry::new(None));
        let permit = registry.admit().unwrap();
        let drain = Drain { deadline: crate::clock::now(), reconnect_after: Duration::from_secs(7) };
        registry.drain(drain);
        assert_eq!(*registry.draining().borrow(), Some(drain));
        let refusal = registry.admit().unwrap_err();
        assert_eq!((refusal.code, refusal.retry_after), (ErrorCode::Draining, Some(Duration::from_secs(7))));
        assert!(!registry.wait_empty(drain.deadline).await);

        let waiting = Arc::clone(&registry);
        let empty = tokio::spawn(async move { waiting.wait_empty(drain.deadline + Duration::from_secs(60)).await });
        permit.register(handle("a"));
        registry.remove(&"a".into(), EndReason::Draining);
        assert!(empty.await.unwrap());
    }
}

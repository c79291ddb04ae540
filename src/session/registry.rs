use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use metrics::{counter, gauge};
use saccade_signaling::ErrorCode;
use tokio::sync::watch;

use super::{Claims, EndReason, Handle, Refusal, SessionId};

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

/// Sessions that there may be at a time; what is missing does not bind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Shares {
    /// In all.
    pub all: Option<usize>,
    /// Of the publishers with one subject; a token's claim `max_sessions` may bind it closer.
    pub subject: Option<usize>,
    /// From one address.
    pub address: Option<usize>,
}

/// New work, which is refused while there is hardly any memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// A publisher's session.
    Session,
    /// A viewer of one.
    Viewer,
    /// The session of a camera of the configuration.
    Camera,
    /// A still picture, or a request with several.
    Picture,
    /// A request with tensors.
    Tensors,
}

impl Work {
    /// The value of the label `work`.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Viewer => "viewer",
            Self::Camera => "camera",
            Self::Picture => "picture",
            Self::Tensors => "tensors",
        }
    }
}

/// Who hears of every session. It must not wait: sessions do for it.
pub trait Witness: Send + Sync {
    /// A session has begun, and nothing has come of it yet.
    fn began(&self, handle: &Handle);
    /// It is over: nothing more comes of it.
    fn ended(&self, id: &SessionId, reason: EndReason);
}

/// All sessions of the process. Share it in an `Arc`.
pub struct Registry {
    shares: Shares,
    witnesses: RwLock<Vec<Arc<dyn Witness>>>,
    state: Mutex<State>,
    /// Sessions and permits.
    count: watch::Sender<usize>,
    drain: watch::Sender<Option<Drain>>,
    is_short_of_memory: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    sessions: HashMap<SessionId, (Handle, Holder)>,
    permits: usize,
    /// Sessions and permits of each holder.
    held: HashMap<Held, usize>,
}

/// Who has taken a place.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Held {
    /// By a token's subject; all tokens without one together.
    Subject(String),
    /// From an address.
    Address(IpAddr),
}

/// Whose share a session is of.
#[derive(Debug, Default)]
struct Holder {
    subject: Option<Held>,
    address: Option<Held>,
}

impl Holder {
    fn held(&self) -> impl Iterator<Item = &Held> {
        self.subject.iter().chain(&self.address)
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("state", &self.state).finish_non_exhaustive()
    }
}

impl Registry {
    /// An empty registry that admits `max_sessions` at a time (`None`: any number).
    #[must_use]
    pub fn new(max_sessions: Option<usize>) -> Self {
        Self::shared(Shares { all: max_sessions, ..Shares::default() })
    }

    /// An empty registry that admits so many at a time.
    #[must_use]
    pub fn shared(shares: Shares) -> Self {
        gauge!("saccade_sessions_active").set(0.0);
        Self {
            shares,
            witnesses: RwLock::default(),
            state: Mutex::default(),
            count: watch::Sender::new(0),
            drain: watch::Sender::new(None),
            is_short_of_memory: AtomicBool::new(false),
        }
    }

    /// Has this one, too, hear of every session from now on.
    pub fn tell(&self, witness: Arc<dyn Witness>) {
        self.witnesses.write().unwrap_or_else(PoisonError::into_inner).push(witness);
    }

    fn witnesses(&self) -> RwLockReadGuard<'_, Vec<Arc<dyn Witness>>> {
        self.witnesses.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Admits one session of the bearer of `claims`, asked for from `address`, or says why not. The permit takes the
    /// session's place until it is registered.
    ///
    /// # Errors
    ///
    /// [`Refusal`] with `forbidden` where the claims are for a session that there is already, else with `capacity` or
    /// `draining`, both worth another try later.
    pub fn admit(self: &Arc<Self>, claims: &Claims, address: Option<IpAddr>) -> Result<Permit, Refusal> {
        if claims.session.is_some() {
            let message = "The token is for one session that exists; ask for one without `session` to begin another.";
            return Err(Refusal::new(ErrorCode::Forbidden, message));
        }
        self.place(claims, address, Work::Session)
    }

    /// The same for a viewer of a session, which takes a place like a session's.
    ///
    /// # Errors
    ///
    /// [`Refusal`] with `capacity` or `draining`, both worth another try later.
    pub fn admit_viewer(self: &Arc<Self>, claims: &Claims, address: Option<IpAddr>) -> Result<Permit, Refusal> {
        self.place(claims, address, Work::Viewer)
    }

    fn place(self: &Arc<Self>, claims: &Claims, address: Option<IpAddr>, work: Work) -> Result<Permit, Refusal> {
        if self.is_draining() {
            return Err(self.refuse_draining());
        }
        self.spare(work).inspect_err(|_| reject("memory"))?;
        let state = self.lock();
        if self.shares.all.is_some_and(|most| state.len() >= most) {
            reject("capacity");
            return Err(
                Refusal::new(ErrorCode::Capacity, "The server is full; try again later.").retry_after(RETRY_AFTER)
            );
        }
        let subject = Held::Subject(claims.sub.clone().unwrap_or_default());
        let claimed = claims.max_sessions.map(|most| usize::try_from(most).unwrap_or(usize::MAX));
        let of_subject = claims.sub.as_ref().and(self.shares.subject).into_iter().chain(claimed).min();
        state.has_room(&subject, of_subject, "subject")?;
        // Where it does not matter, nobody is asked to remember addresses.
        let address = self.shares.address.and(address).map(Held::Address);
        if let Some(address) = &address {
            state.has_room(address, self.shares.address, "address")?;
        }
        Ok(self.permit(state, Holder { subject: Some(subject), address }))
    }

    /// A place for a camera of the configuration, full or not: visitors do not shut it out, and find one place less. It takes
    /// memory like any other session, though.
    ///
    /// # Errors
    ///
    /// [`Refusal`] with `draining`, or with `capacity` where there is hardly any memory.
    pub fn admit_camera(self: &Arc<Self>) -> Result<Permit, Refusal> {
        if self.is_draining() {
            return Err(self.refuse_draining());
        }
        self.spare(Work::Camera)?;
        Ok(self.permit(self.lock(), Holder::default()))
    }

    fn permit(self: &Arc<Self>, mut state: MutexGuard<'_, State>, holder: Holder) -> Permit {
        state.take(&holder);
        state.permits += 1;
        self.count.send_replace(state.len());
        Permit { registry: Some(Arc::clone(self)), holder }
    }

    /// The session of this id.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<Handle> {
        self.lock().sessions.get(id).map(|(handle, _)| handle.clone())
    }

    /// Forgets a session that has ended, and counts its end. Forgetting twice counts once.
    pub fn remove(&self, id: &SessionId, reason: EndReason) {
        let mut state = self.lock();
        let Some((_, holder)) = state.sessions.remove(id) else { return };
        // Before the place is free: whoever waits for the last session to end finds that this was told.
        self.witnesses().iter().for_each(|witness| witness.ended(id, reason));
        state.give_back(&holder);
        counter!("saccade_sessions_total", "end_reason" => reason.as_str()).increment(1);
        self.publish(&state);
    }

    /// All sessions, in the order of their ids.
    #[must_use]
    pub fn list(&self) -> Vec<Handle> {
        let mut sessions: Vec<_> = self.lock().sessions.values().map(|(handle, _)| handle.clone()).collect();
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

    /// Passes unless there is so little memory that nothing new is begun, which is counted. To be asked before memory is taken
    /// for the work.
    ///
    /// # Errors
    ///
    /// [`Refusal`] with `capacity`, worth another try later.
    pub fn spare(&self, work: Work) -> Result<(), Refusal> {
        if !self.is_short_of_memory.load(Ordering::Relaxed) {
            return Ok(());
        }
        counter!("saccade_memory_refused_total", "work" => work.as_str()).increment(1);
        let message = "The server has no memory for more; try again later.";
        Err(Refusal::new(ErrorCode::Capacity, message).retry_after(RETRY_AFTER))
    }

    /// Says whether there is so little memory that nothing new is begun.
    pub fn set_short_of_memory(&self, is_short: bool) {
        self.is_short_of_memory.store(is_short, Ordering::Relaxed);
    }

    /// Changes whenever a session comes or goes, or is about to; its value is the number of places taken.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<usize> {
        self.count.subscribe()
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
        reject("draining");
        let wait = self.drain.borrow().map_or(RETRY_AFTER, |drain| drain.reconnect_after);
        Refusal::new(ErrorCode::Draining, "The server is shutting down; connect again later.").retry_after(wait)
    }

    /// Counts a rejection for want of processors, and says when to come back.
    pub(crate) fn refuse_overload(&self) -> Refusal {
        reject("overload");
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

    fn has_room(&self, held: &Held, most: Option<usize>, what: &'static str) -> Result<(), Refusal> {
        let taken = self.held.get(held).copied().unwrap_or_default();
        if most.is_none_or(|most| taken < most) {
            return Ok(());
        }
        reject(what);
        let message = format!("This {what} has as many sessions as it may have; end one, or try again later.");
        Err(Refusal::beyond_share(message, RETRY_AFTER))
    }

    fn take(&mut self, holder: &Holder) {
        for held in holder.held() {
            *self.held.entry(held.clone()).or_default() += 1;
        }
    }

    fn give_back(&mut self, holder: &Holder) {
        for held in holder.held() {
            if let Some(taken) = self.held.get_mut(held) {
                *taken -= 1;
                if *taken == 0 {
                    self.held.remove(held);
                }
            }
        }
    }
}

fn reject(reason: &'static str) {
    counter!("saccade_admission_rejected_total", "reason" => reason).increment(1);
}

/// A place for one session. Dropped, it is free again.
#[derive(Debug)]
pub struct Permit {
    registry: Option<Arc<Registry>>,
    holder: Holder,
}

impl Permit {
    /// Puts the opened session in its place; [`Registry::remove`] takes it out again.
    pub fn register(mut self, handle: Handle) {
        if let Some(registry) = self.registry.take() {
            registry.witnesses().iter().for_each(|witness| witness.began(&handle));
            let mut state = registry.lock();
            state.permits -= 1;
            state.sessions.insert(handle.id().clone(), (handle, std::mem::take(&mut self.holder)));
            registry.publish(&state);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(registry) = self.registry.take() {
            let mut state = registry.lock();
            state.permits -= 1;
            state.give_back(&self.holder);
            registry.count.send_replace(state.len());
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use tokio::sync::broadcast;

    use super::*;
    use crate::session::Publisher;

    fn handle(id: &str) -> Handle {
        Handle::new(
            id.into(),
            broadcast::Sender::new(1),
            broadcast::Sender::new(1),
            || unreachable!(),
            Publisher::Peer(None),
            Arc::new(super::super::viewer::Nobody),
        )
        .0
    }

    #[test]
    fn a_place_is_taken_from_the_permit_to_the_removal() {
        let registry = Arc::new(Registry::new(Some(2)));
        let first = registry.admit(&Claims::default(), None).unwrap();
        registry.admit(&Claims::default(), None).unwrap().register(handle("b"));
        assert_eq!(registry.admit(&Claims::default(), None).unwrap_err().code, ErrorCode::Capacity);
        drop(first);
        registry.admit(&Claims::default(), None).unwrap().register(handle("a"));
        assert_eq!(registry.list().iter().map(|handle| handle.id().as_str()).collect::<Vec<_>>(), ["a", "b"]);
        registry.remove(&"b".into(), EndReason::Bye);
        registry.remove(&"b".into(), EndReason::Bye);
        assert!(registry.get("b").is_none() && registry.get("a").is_some());
        assert!(registry.admit(&Claims::default(), None).is_ok());
    }

    #[test]
    fn a_subject_and_an_address_have_their_shares() {
        let registry = Arc::new(Registry::shared(Shares { subject: Some(3), address: Some(2), ..Shares::default() }));
        let of =
            |sub: Option<&str>, max_sessions| Claims { sub: sub.map(Into::into), max_sessions, ..Claims::default() };
        let [here, there] = ["192.0.2.1", "192.0.2.2"].map(|address| Some(address.parse::<IpAddr>().unwrap()));
        let refused = |claims: &Claims, address| {
            let refusal = registry.admit(claims, address).unwrap_err();
            assert_eq!((refusal.code, refusal.is_own_fault), (ErrorCode::Capacity, true));
            assert!(refusal.retry_after.is_some());
            refusal.message
        };
        let camera = of(Some("camera"), Some(1));
        registry.admit(&camera, here).unwrap().register(handle("a"));
        assert!(refused(&camera, there).contains("subject"));
        let second = registry.admit(&of(Some("other"), None), here).unwrap();
        assert!(refused(&of(Some("third"), None), here).contains("address"));
        drop(second);
        registry.remove(&"a".into(), EndReason::Bye);
        let taken: Vec<_> = (0..3).map(|_| registry.admit(&of(Some("camera"), None), None).unwrap()).collect();
        refused(&of(Some("camera"), Some(9)), None);
        drop(taken);
        // Tokens without a subject are one.
        let _nameless = registry.admit(&of(None, Some(1)), None).unwrap();
        refused(&of(None, Some(1)), None);
        registry.admit(&of(None, None), None).unwrap();
        assert_eq!(registry.lock().held.len(), 1, "what is given back leaves nothing");
    }

    #[test]
    fn cameras_are_let_in_beyond_the_bound_and_count_for_everybody_else() {
        let registry = Arc::new(Registry::new(Some(2)));
        registry.admit_camera().unwrap().register(handle("a"));
        let visitor = registry.admit(&Claims::default(), None).unwrap();
        assert_eq!(registry.admit(&Claims::default(), None).unwrap_err().code, ErrorCode::Capacity);
        registry.admit_camera().unwrap().register(handle("b"));
        drop(visitor);
        assert_eq!(registry.admit(&Claims::default(), None).unwrap_err().code, ErrorCode::Capacity);
        registry.remove(&"b".into(), EndReason::Deleted);
        assert!(registry.admit(&Claims::default(), None).is_ok());
        registry.drain(Drain { deadline: crate::clock::now(), reconnect_after: Duration::ZERO });
        assert_eq!(registry.admit_camera().unwrap_err().code, ErrorCode::Draining);
    }

    #[test]
    fn every_witness_hears_of_every_session_once() {
        #[derive(Default)]
        struct Ear(Mutex<Vec<String>>);
        impl Witness for Ear {
            fn began(&self, handle: &Handle) {
                self.0.lock().unwrap().push(format!("{} began", handle.id()));
            }
            fn ended(&self, id: &SessionId, reason: EndReason) {
                self.0.lock().unwrap().push(format!("{id} {reason}"));
            }
        }
        let (registry, ears) = (Arc::new(Registry::new(None)), [Arc::<Ear>::default(), Arc::default()]);
        ears.iter().for_each(|ear| registry.tell(Arc::clone(ear) as _));
        drop(registry.admit(&Claims::default(), None).unwrap());
        registry.admit(&Claims::default(), None).unwrap().register(handle("a"));
        registry.admit_camera().unwrap().register(handle("b"));
        for id in ["a", "a", "none"] {
            registry.remove(&id.into(), EndReason::Bye);
        }
        for ear in ears {
            assert_eq!(*ear.0.lock().unwrap(), ["a began", "b began", "a bye"]);
        }
    }

    #[test]
    fn nothing_begins_while_memory_is_short() {
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, || {
            let registry = Arc::new(Registry::new(None));
            registry.set_short_of_memory(true);
            let refusal = registry.admit(&Claims::default(), None).unwrap_err();
            assert_eq!((refusal.code, refusal.retry_after), (ErrorCode::Capacity, Some(RETRY_AFTER)));
            assert!(registry.admit_viewer(&Claims::default(), None).is_err());
            for refusal in [
                registry.admit_camera().unwrap_err(),
                registry.spare(Work::Picture).unwrap_err(),
                registry.spare(Work::Tensors).unwrap_err(),
            ] {
                assert_eq!((refusal.code, refusal.retry_after), (ErrorCode::Capacity, Some(RETRY_AFTER)));
            }
            registry.set_short_of_memory(false);
            assert!(registry.admit(&Claims::default(), None).is_ok());
            assert!(registry.admit_camera().is_ok() && registry.spare(Work::Picture).is_ok());
        });
        let text = recorder.handle().render();
        assert!(text.contains("saccade_admission_rejected_total{reason=\"memory\"} 2"), "{text}");
        for work in ["session", "viewer", "camera", "picture", "tensors"] {
            let line = format!("saccade_memory_refused_total{{work=\"{work}\"}} 1");
            assert!(text.contains(&line), "{line} is not in:\n{text}");
        }
    }

    #[test]
    fn a_token_for_a_session_begins_no_other() {
        let registry = Arc::new(Registry::new(None));
        let bound = Claims { session: Some("a".into()), ..Claims::everything() };
        assert_eq!(registry.admit(&bound, None).unwrap_err().code, ErrorCode::Forbidden);
    }

    #[tokio::test]
    async fn a_drain_admits_nothing_and_waits_for_the_last_session() {
        let registry = Arc::new(Registry::new(None));
        let permit = registry.admit(&Claims::default(), None).unwrap();
        let drain = Drain { deadline: crate::clock::now(), reconnect_after: Duration::from_secs(7) };
        registry.drain(drain);
        assert_eq!(*registry.draining().borrow(), Some(drain));
        let refusal = registry.admit(&Claims::default(), None).unwrap_err();
        assert_eq!((refusal.code, refusal.retry_after), (ErrorCode::Draining, Some(Duration::from_secs(7))));
        assert!(!registry.wait_empty(drain.deadline).await);

        let waiting = Arc::clone(&registry);
        let empty = tokio::spawn(async move { waiting.wait_empty(drain.deadline + Duration::from_secs(60)).await });
        permit.register(handle("a"));
        registry.remove(&"a".into(), EndReason::Draining);
        assert!(empty.await.unwrap());
    }
}

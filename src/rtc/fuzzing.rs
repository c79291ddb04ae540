//! The insides that read what strangers send, without their sockets: for the fuzz targets in `tests/fuzz`, and nobody else.

use std::net::SocketAddr;

use super::mux;
use super::offer::{Inspected, Rejected, Sections};
use super::remote::{self, RemoteCandidates};
use super::{Role, declined, offer};

pub use super::mux::{Limits, Taken};

/// Reads an offer, as for a new session or, with its `mid`, for one that goes on.
///
/// # Errors
/// [`Rejected`] says what is wrong.
pub fn inspect(sdp: &str, role: Role, session: Option<&str>) -> Result<Inspected, Rejected> {
    offer::inspect(sdp, role, session)
}

/// What the stack is offered of an offer.
#[must_use]
pub fn reduce(offer: &str, sections: &Sections) -> String {
    declined::reduce(offer, sections)
}

/// What the offerer is answered, when the stack has answered what it was offered.
#[must_use]
pub fn restore(answer: &str, offer: &str, sections: &Sections, candidates: &[String]) -> String {
    declined::restore(&mux::insert_candidates(answer, candidates), offer, sections)
}

/// An offer without the candidates that are of no use, or too many.
#[must_use]
pub fn filter(offer: &str) -> String {
    RemoteCandidates::default().filter(offer)
}

/// Whether the stack hears of a candidate.
#[must_use]
pub fn is_of_use(candidate: &str) -> bool {
    remote::is_of_use(candidate)
}

/// What decides whose a datagram is, with some sessions that have no stack.
#[derive(Debug)]
pub struct Sorter(mux::Demux);

impl Sorter {
    /// With so many sessions, none of which is reachable yet.
    #[must_use]
    pub fn new(sessions: usize) -> Self {
        Self(mux::Demux::new(sessions))
    }

    /// Gives a session credentials: those before the last ones are no longer valid.
    pub fn register(&self, session: usize, ufrag: &str, password: &str, remote_password: &str) {
        self.0.register(session, ufrag, password, remote_password);
    }

    /// A session checks an address.
    pub fn ask(&self, session: usize, transaction: [u8; 12], to: SocketAddr) {
        self.0.ask(session, transaction, to);
    }

    /// Takes a datagram that came over UDP; says whether it is somebody's.
    pub fn datagram(&self, datagram: &[u8], from: SocketAddr) -> bool {
        self.0.datagram(datagram, from)
    }

    /// Reads what came over a connection, to its end or to its first fault.
    pub async fn stream(&self, stream: impl tokio::io::AsyncRead + Unpin, from: SocketAddr) {
        self.0.stream(stream, from).await;
    }

    /// What waits for a session.
    #[must_use]
    pub fn take(&self, session: usize) -> Vec<Taken> {
        self.0.take(session)
    }

    /// Addresses that a session believes.
    #[must_use]
    pub fn believed(&self, session: usize) -> Vec<SocketAddr> {
        self.0.believed(session)
    }

    /// Forgets a session.
    pub fn remove(&self, session: usize) {
        self.0.remove(session);
    }

    /// Known user fragments, addresses and transactions.
    #[must_use]
    pub fn sizes(&self) -> [usize; 3] {
        self.0.sizes()
    }
}

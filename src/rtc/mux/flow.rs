use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use ring::hmac;
use tokio::sync::mpsc;

use super::stun::{self, Message, TransactionId};

/// Datagrams that wait for a session at most; further ones are dropped.
pub(super) const INBOX: usize = 256;
/// Addresses that a session hears from at most; the one that has been silent for longest makes place. A session needs a
/// handful.
pub(super) const MAX_SOURCES: usize = 64;
/// Transactions of connectivity checks that are remembered, each way. Checks keep coming for as long as a session lives,
/// one in 2 to 6 s on each path (RFC 7675 section 5.1): what was recorded longer ago than this many is believed again.
pub(super) const MAX_TRANSACTIONS: usize = 512;
/// Credentials that are valid at a time: those in use, and during an ICE restart (RFC 8445 section 9) those before.
const GENERATIONS: usize = 2;

/// By which way datagrams come from an address, and go there.
#[derive(Debug, Clone)]
pub(super) enum Link {
    /// Over one of the shared sockets.
    Udp {
        /// Index of the socket.
        socket: usize,
        /// The address of this machine that it came to.
        local: Option<IpAddr>,
    },
    /// Over a connection.
    Tcp(mpsc::Sender<Bytes>),
}

/// What belongs to one session: its credentials, whom it hears from, and what waits for it.
pub(crate) struct Flow {
    /// Datagrams over IPv4 and over IPv6, each for a virtual socket of its own.
    inboxes: [Mutex<Inbox>; 2],
    credentials: RwLock<Credentials>,
    peers: Mutex<Peers>,
    /// Whether what was sent last, checks aside, went over a connection.
    pub(super) over_tcp: AtomicBool,
    /// Nothing is to be remembered for it any more; changes under the table's lock.
    pub(super) is_gone: AtomicBool,
}

#[derive(Default)]
struct Inbox {
    datagrams: VecDeque<(SocketAddr, Bytes)>,
    waker: Option<Waker>,
}

#[derive(Default)]
struct Credentials {
    /// User fragments of this side with their keys, oldest first.
    local: VecDeque<(Arc<str>, hmac::Key)>,
    /// Passwords of the other side, oldest first.
    remote: VecDeque<(String, hmac::Key)>,
}

#[derive(Default)]
struct Peers {
    links: HashMap<SocketAddr, (Link, u64)>,
    /// Authentic checks so far: what tells which link was used last.
    checks: u64,
    /// Transactions of the other side's checks, where they came from, and over which socket and to which address.
    seen: HashMap<TransactionId, (SocketAddr, Option<Link>)>,
    seen_order: VecDeque<TransactionId>,
    /// Transactions of this side's checks.
    asked: VecDeque<TransactionId>,
}

/// What linking an address has displaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Linked {
    /// It was known.
    Before,
    /// It is new; another had to make place for it, if one is named.
    Now(Option<SocketAddr>),
    /// It is linked in another way: over TCP instead of UDP, or the other way round.
    Refused,
}

impl std::fmt::Debug for Flow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Flow").finish_non_exhaustive()
    }
}

impl Flow {
    pub(super) fn new() -> Self {
        Self {
            inboxes: Default::default(),
            credentials: RwLock::default(),
            peers: Mutex::default(),
            over_tcp: AtomicBool::new(false),
            is_gone: AtomicBool::new(false),
        }
    }

    /// Takes credentials of this side. Gives the user fragment that is no longer valid, if there is one.
    pub(super) fn add_local(&self, ufrag: Arc<str>, password: &str) -> Option<Arc<str>> {
        let mut credentials = self.credentials.write().unwrap_or_else(PoisonError::into_inner);
        if credentials.local.iter().any(|(known, _)| *known == ufrag) {
            return None;
        }
        credentials.local.push_back((ufrag, stun::key(password)));
        (credentials.local.len() > GENERATIONS).then(|| credentials.local.pop_front().map(|(ufrag, _)| ufrag))?
    }

    /// Takes a password of the other side.
    pub(super) fn add_remote(&self, password: &str) {
        let mut credentials = self.credentials.write().unwrap_or_else(PoisonError::into_inner);
        if credentials.remote.iter().all(|(known, _)| known != password) {
            credentials.remote.push_back((password.to_owned(), stun::key(password)));
            if credentials.remote.len() > GENERATIONS {
                credentials.remote.pop_front();
            }
        }
    }

    /// User fragments of this side.
    pub(super) fn ufrags(&self) -> Vec<Arc<str>> {
        let credentials = self.credentials.read().unwrap_or_else(PoisonError::into_inner);
        credentials.local.iter().map(|(ufrag, _)| Arc::clone(ufrag)).collect()
    }

    /// Whether a check was made by somebody who knows the password of this user fragment.
    pub(super) fn trusts_check(&self, check: &Message<'_>, ufrag: &str) -> bool {
        let credentials = self.credentials.read().unwrap_or_else(PoisonError::into_inner);
        credentials.local.iter().any(|(known, key)| **known == *ufrag && check.is_authentic(key))
    }

    /// Whether the answer to a check was made by the other side.
    pub(super) fn trusts_answer(&self, answer: &Message<'_>) -> bool {
        let credentials = self.credentials.read().unwrap_or_else(PoisonError::into_inner);
        credentials.remote.iter().any(|(_, key)| answer.is_authentic(key))
    }

    /// Remembers an authentic check. Says whether it is to be believed: a transaction belongs to one address, and from
    /// any other it is a recording.
    pub(super) fn first_or_again(&self, transaction: TransactionId, from: SocketAddr, link: &Link) -> bool {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, _)) = peers.seen.get(&transaction) {
            return *known == from;
        }
        if peers.seen_order.len() == MAX_TRANSACTIONS
            && let Some(oldest) = peers.seen_order.pop_front()
        {
            peers.seen.remove(&oldest);
        }
        // A connection is not kept open by what came over it.
        let link = matches!(link, Link::Udp { .. }).then(|| link.clone());
        peers.seen.insert(transaction, (from, link));
        peers.seen_order.push_back(transaction);
        true
    }

    /// Remembers a check that this side makes. Gives the one that is forgotten for it, if there is one.
    pub(super) fn ask(&self, transaction: TransactionId) -> Option<TransactionId> {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        peers.asked.push_back(transaction);
        (peers.asked.len() > MAX_TRANSACTIONS).then(|| peers.asked.pop_front())?
    }

    /// Transactions of this side that are not forgotten.
    pub(super) fn asked(&self) -> Vec<TransactionId> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner).asked.iter().copied().collect()
    }

    /// The way by which a check of the other side came over UDP, by which its answer has to go (RFC 8445 section 7.2.5.2.1).
    pub(super) fn link_of_check(&self, transaction: TransactionId) -> Option<Link> {
        let peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        peers.seen.get(&transaction).and_then(|(_, link)| link.clone())
    }

    /// Believes an address from now on. `link` is the way to it if there was none, or if it is `chosen`: a machine may
    /// be checked at several addresses.
    pub(super) fn link(&self, address: SocketAddr, link: Link, chosen: bool) -> Linked {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        peers.checks += 1;
        let now = peers.checks;
        if let Some((known, used)) = peers.links.get_mut(&address) {
            let same = match (&*known, &link) {
                (Link::Udp { .. }, Link::Udp { .. }) => true,
                (Link::Tcp(known), Link::Tcp(link)) => known.same_channel(link),
                _ => false,
            };
            if !same {
                return Linked::Refused;
            }
            *used = now;
            if chosen {
                *known = link;
            }
            return Linked::Before;
        }
        let oldest = || peers.links.iter().min_by_key(|(_, (_, used))| *used).map(|(address, _)| *address);
        let displaced = if peers.links.len() < MAX_SOURCES { None } else { oldest() };
        if let Some(displaced) = displaced {
            peers.links.remove(&displaced);
        }
        peers.links.insert(address, (link, now));
        Linked::Now(displaced)
    }

    /// The way to an address that is believed.
    pub(super) fn link_to(&self, address: SocketAddr) -> Option<Link> {
        let peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        peers.links.get(&address).map(|(link, _)| link.clone())
    }

    /// Addresses that are believed.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner).links.keys().copied().collect()
    }

    /// Believes an address no longer, if this connection is the way to it.
    pub(super) fn hang_up(&self, address: SocketAddr, connection: &mpsc::Sender<Bytes>) {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((Link::Tcp(known), _)) = peers.links.get(&address)
            && known.same_channel(connection)
        {
            peers.links.remove(&address);
        }
    }

    /// Believes an address no longer.
    pub(super) fn unlink(&self, address: SocketAddr) {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner).links.remove(&address);
    }

    /// Gives up every link, and with it the connections.
    pub(super) fn clear(&self) {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        peers.links.clear();
    }

    /// Hands a datagram over. Says whether there was place for it.
    pub(super) fn push(&self, from: SocketAddr, datagram: Bytes) -> bool {
        let mut inbox = self.inbox(from.is_ipv4()).lock().unwrap_or_else(PoisonError::into_inner);
        let fits = inbox.datagrams.len() < INBOX;
        if fits {
            inbox.datagrams.push_back((from, datagram));
            if let Some(waker) = inbox.waker.take() {
                drop(inbox);
                waker.wake();
            }
        }
        fits
    }

    /// The next datagram of a family.
    pub(super) fn poll_pop(&self, cx: &mut Context<'_>, ipv4: bool) -> Poll<(SocketAddr, Bytes)> {
        let mut inbox = self.inbox(ipv4).lock().unwrap_or_else(PoisonError::into_inner);
        match inbox.datagrams.pop_front() {
            Some(next) => Poll::Ready(next),
            None => {
                match &mut inbox.waker {
                    Some(waker) => waker.clone_from(cx.waker()),
                    waker => *waker = Some(cx.waker().clone()),
                }
                Poll::Pending
            }
        }
    }

    fn inbox(&self, ipv4: bool) -> &Mutex<Inbox> {
        &self.inboxes[usize::from(!ipv4)]
    }
}

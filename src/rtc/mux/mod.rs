//! One port for all sessions: UDP and ICE-TCP on the same number.
//!
//! Datagrams come in over sockets that all sessions share, and the [`table`] says whose they are. Each session's stack
//! sees a virtual socket: it believes in one local address a family, on which everything arrives that is its own, no
//! matter by which interface or over which transport; a TCP connection (RFC 6544) looks like one more address. What the
//! other side is told of is the addresses of this machine, or those that `media.advertise` names: see [`candidates`].
//!
//! Only authentic checks, and what comes from addresses that have made one, get to a session, so that the stack never
//! acts on what strangers send: it takes any datagram that is not STUN once it has selected a candidate pair, whatever
//! its source, and acts on a check's role before it has looked at its integrity. Nothing is ever answered to whoever does
//! not know a session's password, and replies to checks are smaller than checks. An address stays believed over an ICE
//! restart, which the same peer makes, until others take its place or the session ends.
//!
//! One task a socket reads; whoever sends does so at once, and what the system has no room for is lost, as it would be
//! on any link.

mod candidates;
mod demux;
mod flow;
mod stun;
mod table;
mod tcp;
mod udp;
mod virtual_socket;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ::webrtc::runtime::{Runtime, Transmit};
use bytes::Bytes;
use metrics::{Counter, counter};
use tokio::task::JoinSet;

use self::flow::{Flow, Link};
use self::stun::Class;
use self::table::{Dropped, Table};
use self::udp::Socket;
use self::virtual_socket::SessionRuntime;

pub(super) use self::candidates::insert as insert_candidates;
pub(super) use self::demux::Demux;
pub use self::demux::{Limits, Taken};

/// Ports that are tried where any free one will do, until one is free for UDP and for TCP.
const TRIES: usize = 16;

/// Where media is taken.
#[derive(Debug, Clone)]
pub struct Listen {
    /// Local addresses; `0.0.0.0` means all of IPv4, `::` all of IPv4 and IPv6.
    pub addresses: Vec<IpAddr>,
    /// The port, for UDP and for TCP; 0 means any free one.
    pub port: u16,
    /// Addresses that candidates name in place of the local ones of the same family (1:1 NAT).
    pub advertise: Vec<IpAddr>,
}

/// The sockets that all sessions share.
pub(super) struct Mux {
    shared: Arc<Shared>,
    listen: Listen,
    port: u16,
    _tasks: JoinSet<()>,
}

struct Shared {
    table: Table,
    sockets: Vec<Socket>,
    losses: Losses,
}

/// Counts what is dropped.
struct Losses {
    unknown_source: Counter,
    unauthentic: Counter,
    replayed: Counter,
    malformed: Counter,
    full: Counter,
    shared: Counter,
    unsent: Counter,
    no_way: Counter,
    connections: Counter,
}

impl Losses {
    fn new() -> Self {
        let dropped = |reason| counter!("saccade_rtc_datagrams_dropped_total", "reason" => reason);
        Self {
            unknown_source: dropped("unknown_source"),
            unauthentic: dropped("unauthentic"),
            replayed: dropped("replayed"),
            malformed: dropped("malformed"),
            full: dropped("session_queue"),
            shared: dropped("shared_source"),
            unsent: dropped("send_buffer"),
            no_way: dropped("unknown_destination"),
            connections: dropped("tcp_connections"),
        }
    }

    fn count(&self, dropped: Dropped) {
        let counter = match dropped {
            Dropped::UnknownSource => &self.unknown_source,
            Dropped::Unauthentic => &self.unauthentic,
            Dropped::Replayed => &self.replayed,
            Dropped::Malformed => &self.malformed,
            Dropped::Full => &self.full,
            Dropped::Shared => &self.shared,
        };
        counter.increment(1);
    }
}

impl Mux {
    /// Binds the sockets and begins to read them, on the present Tokio runtime.
    ///
    /// # Errors
    /// Whatever keeps an address from being bound, with that address.
    pub(super) fn bind(listen: Listen) -> Result<Self, (SocketAddr, io::Error)> {
        let mut last = None;
        for _ in 0..if listen.port == 0 { TRIES } else { 1 } {
            match bind_all(&listen) {
                Ok((sockets, listeners, port)) => return Ok(Self::start(listen, sockets, listeners, port)),
                Err(error) => last = Some(error),
            }
        }
        let nothing = || (SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), listen.port), io::ErrorKind::NotFound.into());
        Err(last.unwrap_or_else(nothing))
    }

    fn start(listen: Listen, sockets: Vec<Socket>, listeners: Vec<tokio::net::TcpListener>, port: u16) -> Self {
        let shared = Arc::new(Shared { table: Table::default(), sockets, losses: Losses::new() });
        let mut tasks = JoinSet::new();
        for index in 0..shared.sockets.len() {
            tasks.spawn(udp::read(Arc::clone(&shared), index));
        }
        let places = Arc::new(tcp::Places::new());
        for listener in listeners {
            tasks.spawn(tcp::accept(Arc::clone(&shared), listener, Arc::clone(&places)));
        }
        Self { shared, listen, port, _tasks: tasks }
    }

    /// The port that media is taken on.
    pub(super) const fn port(&self) -> u16 {
        self.port
    }

    /// Whether any session is reachable.
    pub(super) fn has_members(&self) -> bool {
        !self.shared.table.is_empty()
    }

    /// A place for a session. It is reachable once it has credentials.
    pub(super) fn join(&self) -> Membership {
        Membership { shared: Arc::clone(&self.shared), flow: Arc::new(Flow::new()) }
    }

    /// What the other side is told of: candidate attributes without `a=`, the best first.
    pub(super) fn candidates(&self) -> Vec<String> {
        candidates::lines(&candidates::addresses(&self.listen), self.port)
    }

    /// Addresses that the stack of a session is to bind, one a family that there is a socket for. Only the family
    /// matters: nothing is ever sent or received there.
    pub(super) fn virtual_addresses(&self) -> Vec<SocketAddr> {
        let families =
            [true, false].into_iter().filter(|ipv4| self.shared.sockets.iter().any(|s| s.is_ipv4() == *ipv4));
        let loopback = |ipv4| -> IpAddr { if ipv4 { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() } };
        families.map(|ipv4| SocketAddr::new(loopback(ipv4), 0)).collect()
    }
}

/// A session's place; when it is dropped, nothing reaches the session any more.
pub(super) struct Membership {
    shared: Arc<Shared>,
    flow: Arc<Flow>,
}

impl Membership {
    /// What the session's stack runs on.
    pub(super) fn runtime(&self) -> Arc<dyn Runtime> {
        Arc::new(SessionRuntime::new(Arc::clone(&self.shared), Arc::clone(&self.flow)))
    }

    /// Lets in whoever knows these credentials of the answer, and believes in those of the offer: the descriptions as the
    /// stack has them. Those before still open the way here until the next ones, since checks of theirs may be under way.
    pub(super) fn admit(&self, answer: &str, offer: &str) {
        let Some((ufrag, password)) = attribute(answer, "ice-ufrag").zip(attribute(answer, "ice-pwd")) else { return };
        self.shared.table.register(&self.flow, ufrag, password, attribute(offer, "ice-pwd").unwrap_or_default());
    }

    /// Whether media goes over a connection. To the stack everything is UDP.
    pub(super) fn sends_over_tcp(&self) -> bool {
        self.flow.over_tcp.load(Ordering::Relaxed)
    }

    /// Lets nobody in any more.
    pub(super) fn leave(&self) {
        self.shared.table.remove(&self.flow);
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Shared {
    /// Sends for a session. What cannot be sent is lost and counted.
    fn send(&self, flow: &Arc<Flow>, transmit: &Transmit<'_>) {
        let (to, datagram) = (transmit.destination, transmit.contents);
        let checks = stun::is_stun(datagram);
        let mut link = flow.link_to(to);
        if checks {
            match stun::parse(datagram) {
                Some(message) if message.class == Class::Request => self.table.ask(flow, message.transaction, to),
                Some(answer) => link = flow.link_of_check(answer.transaction).or(link),
                None => {}
            }
        } else {
            flow.over_tcp.store(matches!(link, Some(Link::Tcp(_))), Ordering::Relaxed);
        }
        let (socket, local) = match link {
            Some(Link::Tcp(connection)) => {
                if connection.try_send(Bytes::copy_from_slice(datagram)).is_err() {
                    self.losses.unsent.increment(1);
                }
                return;
            }
            Some(Link::Udp { socket, local }) => (self.sockets.get(socket), local),
            // A check of a candidate that the other side has named.
            None if checks => (self.sockets.iter().find(|socket| socket.is_ipv4() == to.is_ipv4()), None),
            None => (None, None),
        };
        match socket {
            Some(socket) => {
                if socket.try_send(transmit, local).is_err() {
                    self.losses.unsent.increment(1);
                }
            }
            None => self.losses.no_way.increment(1),
        }
    }
}

/// The value of the first attribute of this name in a session description.
fn attribute<'a>(sdp: &'a str, name: &str) -> Option<&'a str> {
    sdp.lines().find_map(|line| line.strip_prefix("a=")?.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

type Bound = (Vec<Socket>, Vec<tokio::net::TcpListener>, u16);

/// Binds every address for UDP and for TCP, all on one port.
fn bind_all(listen: &Listen) -> Result<Bound, (SocketAddr, io::Error)> {
    let mut addresses = Vec::new();
    for address in &listen.addresses {
        let both = (*address == IpAddr::from(Ipv6Addr::UNSPECIFIED)).then_some(Ipv4Addr::UNSPECIFIED.into());
        for address in [*address].into_iter().chain(both) {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
    }
    let (mut sockets, mut listeners, mut port) = (Vec::new(), Vec::new(), listen.port);
    for ip in addresses {
        let at = |port| SocketAddr::new(ip, port);
        let (socket, bound) = Socket::bind(at(port)).map_err(|error| (at(port), error))?;
        port = bound.port();
        listeners.push(tcp::bind(bound).map_err(|error| (bound, error))?);
        sockets.push(socket);
    }
    Ok((sockets, listeners, port))
}

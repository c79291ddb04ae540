//! The table with sessions that have no stack, for the fuzz targets.

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tokio::io::AsyncRead;
use tokio::sync::mpsc;

use super::flow::{Flow, INBOX, Link, MAX_SOURCES, MAX_TRANSACTIONS};
use super::table::{MAX_DATAGRAM, Table};
use super::tcp::{self, Places};
use super::{Losses, Shared};

/// A datagram that was let through, and where it came from.
pub type Taken = (SocketAddr, Bytes);

/// What one session may hold.
#[derive(Debug)]
pub struct Limits;

impl Limits {
    /// Datagrams that wait, of each family.
    pub const INBOX: usize = INBOX;
    /// Addresses that it believes.
    pub const SOURCES: usize = MAX_SOURCES;
    /// Transactions of its checks.
    pub const TRANSACTIONS: usize = MAX_TRANSACTIONS;
    /// Bytes of a datagram.
    pub const DATAGRAM: usize = MAX_DATAGRAM;
}

/// See the [module](self).
pub(in super::super) struct Demux {
    shared: Arc<Shared>,
    flows: Vec<Arc<Flow>>,
    places: Places,
}

impl std::fmt::Debug for Demux {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Demux").field("flows", &self.flows.len()).finish_non_exhaustive()
    }
}

impl Demux {
    pub(in super::super) fn new(sessions: usize) -> Self {
        Self {
            shared: Arc::new(Shared { table: Table::default(), sockets: Vec::new(), losses: Losses::new() }),
            flows: (0..sessions).map(|_| Arc::new(Flow::new())).collect(),
            places: Places::new(),
        }
    }

    pub(in super::super) fn register(&self, session: usize, ufrag: &str, password: &str, remote_password: &str) {
        if let Some(flow) = self.flows.get(session) {
            self.shared.table.register(flow, ufrag, password, remote_password);
        }
    }

    pub(in super::super) fn ask(&self, session: usize, transaction: [u8; 12], to: SocketAddr) {
        if let Some(flow) = self.flows.get(session) {
            self.shared.table.ask(flow, transaction, to);
        }
    }

    pub(in super::super) fn datagram(&self, datagram: &[u8], from: SocketAddr) -> bool {
        self.shared.table.handle_udp(datagram, from, Link::Udp { socket: 0, local: None }).is_ok()
    }

    pub(in super::super) async fn stream(&self, stream: impl AsyncRead + Unpin, from: SocketAddr) {
        let Some(seat) = self.places.sit() else { return };
        let (queue, _queued) = mpsc::channel(1);
        let (mut session, weak) = (None, queue.downgrade());
        tcp::read(&self.shared, stream, from, queue, seat, &mut session).await;
        if let (Some(flow), Some(queue)) = (session, weak.upgrade()) {
            flow.hang_up(from, &queue);
        }
    }

    pub(in super::super) fn take(&self, session: usize) -> Vec<Taken> {
        let (mut cx, mut all) = (Context::from_waker(Waker::noop()), Vec::new());
        if let Some(flow) = self.flows.get(session) {
            for ipv4 in [true, false] {
                while let Poll::Ready(next) = flow.poll_pop(&mut cx, ipv4) {
                    all.push(next);
                }
            }
        }
        all
    }

    pub(in super::super) fn believed(&self, session: usize) -> Vec<SocketAddr> {
        self.flows.get(session).map(|flow| flow.addresses()).unwrap_or_default()
    }

    pub(in super::super) fn remove(&self, session: usize) {
        if let Some(flow) = self.flows.get(session) {
            self.shared.table.remove(flow);
        }
    }

    pub(in super::super) fn sizes(&self) -> [usize; 3] {
        self.shared.table.sizes()
    }
}

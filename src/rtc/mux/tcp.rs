//! ICE-TCP (RFC 6544), the passive side: connections that carry datagrams, each behind its length (RFC 4571).

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use socket2::{Domain, Protocol, SockRef, Type};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader, BufWriter};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::Shared;
use super::flow::{Flow, Link};
use super::table::MAX_DATAGRAM;

/// Connections of sessions at a time.
const MAX_CONNECTIONS: usize = 1024;
/// Connections at a time that are yet to name their session: whoever fills these up keeps nobody else's from going on.
const MAX_UNPROVEN: usize = 128;
/// What is asked of the system to hold of what is sent: more would only wait there, and a frame that waits is late.
const SEND_BUFFER: usize = 128 << 10;
/// Connections that wait to be taken.
const BACKLOG: i32 = 128;
/// How long a connection may take to name a session, and prove that it may.
const FIRST_CHECK: Duration = Duration::from_secs(5);
/// How long it may be silent after that; checks come every few seconds (RFC 7675 section 5.1).
const IDLE: Duration = Duration::from_secs(60);
/// How long the other side may take to accept what is sent.
const WRITE: Duration = Duration::from_secs(10);
/// Datagrams that wait for a connection to take them; further ones are lost, as they would be on any link.
const QUEUE: usize = 256;
/// Bytes read at a time.
const READ_AHEAD: usize = 16 << 10;

/// Places for connections.
pub(super) struct Places {
    unproven: Arc<Semaphore>,
    proven: Arc<Semaphore>,
}

impl Places {
    pub(super) fn new() -> Self {
        Self { unproven: Arc::new(Semaphore::new(MAX_UNPROVEN)), proven: Arc::new(Semaphore::new(MAX_CONNECTIONS)) }
    }

    /// A place for a connection that is yet to name its session, if there is one.
    pub(super) fn sit(&self) -> Option<Seat> {
        let place = Arc::clone(&self.unproven).try_acquire_owned().ok()?;
        Some(Seat { place, proven: Arc::clone(&self.proven) })
    }
}

pub(super) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // A server that starts again does not wait for connections of the one before.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Takes connections for as long as it lives.
pub(super) async fn accept(shared: Arc<Shared>, listener: TcpListener, places: Arc<Places>) {
    let mut connections = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((stream, from)) => match places.sit() {
                Some(seat) => {
                    connections.spawn(serve(Arc::clone(&shared), stream, from, seat));
                }
                None => shared.losses.connections.increment(1),
            },
            // Such as too many open files: others may be closed meanwhile.
            Err(error) => {
                tracing::debug!(%error, "taking a media connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

/// A connection's place, among those that have named their session or among the others.
pub(super) struct Seat {
    place: OwnedSemaphorePermit,
    proven: Arc<Semaphore>,
}

impl Seat {
    /// Changes over to those that have. Says whether there was room.
    fn prove(&mut self) -> bool {
        let Ok(place) = Arc::clone(&self.proven).try_acquire_owned() else { return false };
        self.place = place;
        true
    }
}

async fn serve(shared: Arc<Shared>, stream: TcpStream, from: SocketAddr, seat: Seat) {
    let _ = stream.set_nodelay(true);
    let _ = SockRef::from(&stream).set_send_buffer_size(SEND_BUFFER);
    let (reader, writer) = stream.into_split();
    let (queue, queued) = mpsc::channel(QUEUE);
    let mut session = None;
    // A session that ends gives up its links, which ends the queue and so the connection.
    let weak = queue.downgrade();
    let reading = read(&shared, reader, from, queue, seat, &mut session);
    tokio::select! {
        () = reading => {}
        () = write(writer, queued) => {}
    }
    if let (Some(flow), Some(queue)) = (session, weak.upgrade()) {
        flow.hang_up(from, &queue);
    }
}

/// Reads datagrams until the connection ends, or says something wrong, or nothing.
pub(super) async fn read(
    shared: &Shared,
    reader: impl AsyncRead + Unpin,
    from: SocketAddr,
    queue: mpsc::Sender<Bytes>,
    mut seat: Seat,
    session: &mut Option<Arc<Flow>>,
) {
    let mut reader = BufReader::with_capacity(READ_AHEAD, reader);
    let mut datagram = [0; MAX_DATAGRAM];
    // Once the session has it, it is the session's alone.
    let (mut own, weak) = (Some(queue.clone()), queue.downgrade());
    drop(queue);
    loop {
        let limit = if session.is_some() { IDLE } else { FIRST_CHECK };
        let next = async {
            let length = usize::from(reader.read_u16().await?);
            let datagram = datagram.get_mut(..length).ok_or(io::ErrorKind::InvalidData)?;
            reader.read_exact(datagram).await?;
            io::Result::Ok(length)
        };
        let Ok(Ok(length)) = timeout(limit, next).await else { return };
        let Some(link) = own.clone().or_else(|| weak.upgrade()) else { return };
        if let Err(dropped) = shared.table.handle_tcp(&datagram[..length], from, Link::Tcp(link), session) {
            shared.losses.count(dropped);
            if session.is_none() {
                return;
            }
        }
        if session.is_some() && own.take().is_some() && !seat.prove() {
            shared.losses.connections.increment(1);
            return;
        }
    }
}

async fn write(writer: OwnedWriteHalf, mut queued: mpsc::Receiver<Bytes>) {
    let mut writer = BufWriter::new(writer);
    while let Some(datagram) = queued.recv().await {
        let written = async {
            writer.write_u16(u16::try_from(datagram.len()).map_err(|_| io::ErrorKind::InvalidData)?).await?;
            writer.write_all(&datagram).await?;
            if queued.is_empty() { writer.flush().await } else { Ok(()) }
        };
        if !matches!(timeout(WRITE, written).await, Ok(Ok(()))) {
            return;
        }
    }
}

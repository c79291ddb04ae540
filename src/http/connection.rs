use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Sleep, sleep_until, timeout_at};

use super::gate;
use crate::clock;

/// How long a client may take to accept any part of what it is sent.
pub(super) const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a connection that we close stays open for what its client still sends.
const LINGER: Duration = Duration::from_secs(10);
/// How long it stays open for a client that sends nothing.
const LINGER_SILENT: Duration = Duration::from_secs(2);
/// Bytes that are read, and thrown away, from a client that does not stop.
const LINGER_BYTES: usize = 64 * 1024 * 1024;

/// A client's connection. One that does not take what it is sent is given up.
///
/// Dropped, it closes so that the client can read what it was told last: a socket that closes with unread bytes resets,
/// which takes away what was sent before (RFC 1122 section 4.2.2.13). So it stops sending and goes on reading, for a
/// while and to a point, in a task of its own.
#[derive(Debug)]
pub(super) struct Connection {
    stream: Option<TcpStream>,
    /// Held until the connection is really closed.
    place: Option<OwnedSemaphorePermit>,
    /// The same of its address.
    address_place: Option<gate::Place>,
    /// Whether nothing more comes from the client.
    ended: bool,
    /// Ends while a write waits.
    write_due: Option<Pin<Box<Sleep>>>,
}

impl Connection {
    pub(super) const fn new(stream: TcpStream, place: OwnedSemaphorePermit) -> Self {
        Self { stream: Some(stream), place: Some(place), address_place: None, ended: false, write_due: None }
    }

    /// The same with its place among those of its address.
    pub(super) fn counted(mut self, place: Option<gate::Place>) -> Self {
        self.address_place = place;
        self
    }

    /// Closes at once, without a word.
    pub(super) fn abandon(mut self) {
        self.ended = true;
    }

    fn poll<T>(&mut self, poll: impl FnOnce(Pin<&mut TcpStream>) -> Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let Some(stream) = &mut self.stream else { return Poll::Ready(Err(io::ErrorKind::NotConnected.into())) };
        let polled = poll(Pin::new(stream));
        self.ended |= matches!(polled, Poll::Ready(Err(_)));
        polled
    }

    fn poll_sending(
        &mut self,
        cx: &mut Context<'_>,
        poll: impl FnOnce(Pin<&mut TcpStream>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let polled = self.poll(|stream| poll(stream, cx));
        if polled.is_ready() {
            self.write_due = None;
            return polled;
        }
        let due = self.write_due.get_or_insert_with(|| Box::pin(sleep_until((clock::now() + WRITE_TIMEOUT).into())));
        if due.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        self.ended = true;
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (before, room) = (buf.filled().len(), buf.remaining() > 0);
        let polled = self.poll(|stream| stream.poll_read(cx, buf));
        self.ended |= room && polled.is_ready() && buf.filled().len() == before;
        polled
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_sending(cx, |stream, cx| stream.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_sending(cx, |stream, cx| stream.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(|stream| stream.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(|stream| stream.poll_shutdown(cx))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let (stream, places) = (self.stream.take(), (self.place.take(), self.address_place.take()));
        if let (Some(stream), false, Ok(runtime)) = (stream, self.ended, Handle::try_current()) {
            runtime.spawn(async move {
                linger(stream).await;
                drop(places);
            });
        }
    }
}

async fn linger(mut stream: TcpStream) {
    if stream.shutdown().await.is_err() {
        return;
    }
    let deadline = clock::now() + LINGER;
    let (mut thrown_away, mut scratch) = (0, vec![0; 16 * 1024]);
    while thrown_away < LINGER_BYTES {
        let now = clock::now();
        let limit = (now + LINGER_SILENT).min(deadline);
        match timeout_at(limit.into(), stream.read(&mut scratch)).await {
            Ok(Ok(bytes @ 1..)) if now < deadline => thrown_away += bytes,
            _ => return,
        }
    }
    // Unread, the rest has to wait at the client, who can still read what it was told.
    sleep_until(deadline.into()).await;
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use std::sync::Arc;

    use tokio::net::TcpListener;
    use tokio::sync::Semaphore;

    use super::*;

    async fn pair(places: &Arc<Semaphore>) -> (TcpStream, Connection) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let place = Arc::clone(places).acquire_owned().await.unwrap();
        (client, Connection::new(listener.accept().await.unwrap().0, place))
    }

    #[tokio::test]
    async fn who_sends_much_still_reads_the_farewell() {
        let places = Arc::new(Semaphore::new(1));
        let (mut client, mut server) = pair(&places).await;
        client.write_all(&[0; 1000]).await.unwrap();
        server.write_all(b"farewell").await.unwrap();
        drop(server);
        client.write_all(&vec![0; 16 * 1024 * 1024]).await.unwrap();
        let mut text = String::new();
        client.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "farewell");
        assert_eq!(places.available_permits(), 0, "its place is taken until it is closed");
        drop(client);
        drop(places.acquire().await.unwrap());
    }

    #[tokio::test]
    async fn a_connection_that_the_client_closed_is_gone_at_once() {
        let places = Arc::new(Semaphore::new(1));
        let (client, mut server) = pair(&places).await;
        drop(client);
        assert_eq!(server.read(&mut [0]).await.unwrap(), 0);
        drop(server);
        assert_eq!(places.available_permits(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_client_does_not_keep_its_place() {
        let places = Arc::new(Semaphore::new(1));
        let (client, server) = pair(&places).await;
        drop(server);
        // Time stands still until everybody waits, and then jumps to the next deadline.
        drop(places.acquire().await.unwrap());
        drop(client);
    }
}

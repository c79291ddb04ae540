use std::io;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use metrics::counter;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use super::connection::Connection;
use super::gate::{Entry, Gate};
use super::http2::{self, PREFACE};
use super::tls::Tls;
use crate::clock;

/// From a connection's first byte to the end of a request's head; whoever sends it slower is cut off.
pub(super) const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// From a connection's begin to the end of its TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections of one listener at a time, WebSockets included; further ones wait in the system's own queue.
const MAX_CONNECTIONS: u32 = 8192;
/// Pause after the system refused a connection, which happens when no file descriptor is left.
const REFUSED_PAUSE: Duration = Duration::from_millis(100);

/// What stands before a router: who may connect, and how that is secured. By default everybody, and not at all.
#[derive(Debug, Clone, Default)]
pub struct Door {
    /// What connections are secured with, if they are.
    pub tls: Option<Arc<Tls>>,
    /// What one address may ask for.
    pub gate: Option<Arc<Gate>>,
    /// What is spoken behind it.
    pub protocol: Protocol,
}

/// What a listener speaks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1, with WebSockets, or HTTP/2, as the client likes: over TLS by ALPN, without by what it sends first
    /// (RFC 9113 section 3.3). Extended CONNECT (RFC 8441) is not announced, so that browsers open a connection of
    /// HTTP/1.1 for a WebSocket.
    #[default]
    Any,
    /// HTTP/2 from the first byte on, as gRPC has it; over TLS by `h2` of ALPN.
    Http2,
}

/// How a request came here; beside it as an extension.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival {
    /// The other end of the connection.
    pub(super) peer: IpAddr,
    /// When its address may connect again, if it did so too often.
    pub(super) refused: Option<Duration>,
}

/// Serves a router until `stop` turns true, and then until the last answer is out and the last connection closed,
/// WebSockets included; whoever serves those has to end them. Dropped, it ends every connection that is no WebSocket.
///
/// It does what `axum::serve` does, with bounds more, on the time of a request's head and on connections, and with TLS;
/// and it gives each connection the bounds of [`Connection`].
pub async fn listen(listener: TcpListener, router: Router, door: Door, mut stop: watch::Receiver<bool>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS as usize));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &places) => accepted,
            Some(_) = connections.join_next() => continue,
            () = stopped(&mut stop) => break,
        };
        let (connection, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(REFUSED_PAUSE).await;
                continue;
            }
        };
        let let_in = door.gate.as_ref().map_or_else(|| Ok(Entry::default()), |gate| gate.connect(clock::now(), peer));
        let (connection, refused) = match let_in {
            // To say so over TLS would cost the handshake that the rate is to save.
            Ok(Entry { wait: Some(_), .. }) if door.tls.is_some() => {
                refuse("too_fast");
                connection.abandon();
                continue;
            }
            Ok(Entry { place, wait }) => (connection.counted(place), wait),
            Err(_) => {
                refuse("too_many");
                connection.abandon();
                continue;
            }
        };
        let (arrival, router, stop) = (Arrival { peer, refused }, router.clone(), stop.clone());
        let protocol = door.protocol;
        match door.tls.as_ref().map(|tls| protocol.secured(tls.get())) {
            None => connections.spawn(serve_plain(connection, protocol, router, arrival, stop)),
            Some(tls) => connections.spawn(async move {
                let handshake = TlsAcceptor::from(tls).accept(connection);
                match timeout(HANDSHAKE_TIMEOUT, handshake).await {
                    Ok(Ok(stream)) => {
                        let chosen = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                        if chosen || protocol == Protocol::Http2 {
                            http2::serve(stream, router, arrival, stop).await;
                        } else {
                            serve_http1(stream, router, arrival, stop).await;
                        }
                    }
                    Ok(Err(error)) => {
                        tracing::debug!(%error, "a TLS handshake failed");
                        refuse("tls_failed");
                    }
                    Err(_) => refuse("tls_timeout"),
                }
            }),
        };
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
    // A WebSocket outlives the task of its request; the connection itself holds its place.
    places.acquire_many(MAX_CONNECTIONS).await.ok();
}

impl Protocol {
    /// The certificate with what a client may choose to speak.
    fn secured(self, tls: Arc<ServerConfig>) -> Arc<ServerConfig> {
        match self {
            Self::Any => tls,
            Self::Http2 => {
                let mut tls = (*tls).clone();
                tls.alpn_protocols = vec![b"h2".to_vec()];
                Arc::new(tls)
            }
        }
    }
}

/// Serves a connection without TLS.
async fn serve_plain(
    mut stream: Connection,
    protocol: Protocol,
    router: Router,
    arrival: Arrival,
    mut stop: watch::Receiver<bool>,
) {
    if protocol == Protocol::Http2 {
        return http2::serve(stream, router, arrival, stop).await;
    }
    let looked = tokio::select! {
        looked = timeout(HEAD_TIMEOUT, look(&mut stream)) => looked,
        () = stopped(&mut stop) => return,
    };
    match looked {
        Ok(Ok((ahead, true))) => http2::serve(Ahead { ahead, stream }, router, arrival, stop).await,
        Ok(Ok((ahead, false))) => serve_http1(Ahead { ahead, stream }, router, arrival, stop).await,
        Ok(Err(error)) => tracing::debug!(%error, "a connection broke"),
        Err(_) => {}
    }
}

/// Reads until it is sure whether the client speaks HTTP/2; what was read comes with that.
async fn look(stream: &mut Connection) -> io::Result<(Bytes, bool)> {
    let (mut first, mut filled) = ([0; PREFACE.len()], 0);
    loop {
        let read = stream.read(&mut first[filled..]).await?;
        filled += read;
        let is_same = first[..filled] == PREFACE[..filled];
        if read == 0 || !is_same || filled == first.len() {
            return Ok((Bytes::copy_from_slice(&first[..filled]), is_same && filled == first.len()));
        }
    }
}

async fn serve_http1<S>(stream: S, router: Router, arrival: Arrival, mut stop: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = router.map_request(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(arrival);
        request
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    let connection = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service)).with_upgrades();
    let mut connection = pin!(connection);
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = stopped(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "a connection broke");
    }
}

/// A connection of which something was read already.
struct Ahead {
    ahead: Bytes,
    stream: Connection,
}

impl AsyncRead for Ahead {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let most = self.ahead.len().min(buf.remaining());
        buf.put_slice(&self.ahead.split_to(most));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Ahead {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Whoever could still say stop is gone with the sender.
pub(super) async fn stopped(stop: &mut watch::Receiver<bool>) {
    stop.wait_for(|stop| *stop).await.ok();
}

async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> io::Result<(Connection, IpAddr)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((Connection::new(stream, place), peer.ip()))
}

fn refuse(reason: &'static str) {
    counter!("saccade_connections_refused_total", "reason" => reason).increment(1);
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn a_request_is_answered_and_a_stop_ends_the_listener() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let serving =
            tokio::spawn(listen(listener, Router::new().route("/", get(async || "hello")), Door::default(), stopped));
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"), "{answer}");
        drop(client);
        stop.send_replace(true);
        serving.await.unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn less_than_a_head_is_cut_off() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (_stop, stopped) = watch::channel(false);
        tokio::spawn(listen(listener, Router::new(), Door::default(), stopped));
        for head in ["", "GET / HTTP/1.1\r\nHost: lo"] {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(head.as_bytes()).await.unwrap();
            let mut rest = Vec::new();
            // Time stands still until everybody waits, and then jumps to the next deadline.
            let read = timeout(Duration::from_secs(3600), client.read_to_end(&mut rest));
            read.await.expect("an end").ok();
            assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 408"), "{}", String::from_utf8_lossy(&rest));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_asks_no_more_is_closed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (_stop, stopped) = watch::channel(false);
        tokio::spawn(listen(listener, Router::new().route("/", get(async || "hello")), Door::default(), stopped));
        client.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        timeout(Duration::from_secs(3600), client.read_to_end(&mut answer)).await.expect("an end").ok();
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_nobody_reads_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let router = Router::new().route("/", get(async || vec![0; 64 * 1024 * 1024]));
        let serving = tokio::spawn(listen(listener, router, Door::default(), stopped));
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        client.readable().await.unwrap();
        stop.send_replace(true);
        timeout(Duration::from_secs(3600), serving).await.expect("an end").unwrap();
        drop(client);
    }
}

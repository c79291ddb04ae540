use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use metrics::counter;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use super::connection::Connection;
use super::gate::{Entry, Gate};
use super::tls::Tls;
use crate::clock;

/// From a connection's first byte to the end of a request's head; whoever sends it slower is cut off.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// From a connection's begin to the end of its TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections of one listener at a time, WebSockets included; further ones wait in the system's own queue.
const MAX_CONNECTIONS: u32 = 8192;
/// HTTP/2: requests of one connection at a time, bytes of bodies that are on their way unread, and how often a silent
/// client is asked whether it is still there.
const MAX_STREAMS: u32 = 128;
const WINDOW: u32 = 4 * 1024 * 1024;
const KEEP_ALIVE: Duration = Duration::from_secs(20);
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
    /// HTTP/1.1, with WebSockets.
    #[default]
    Http1,
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
            None => connections.spawn(serve(connection, protocol, router, arrival, stop)),
            Some(tls) => connections.spawn(async move {
                let handshake = TlsAcceptor::from(tls).accept(connection);
                match timeout(HANDSHAKE_TIMEOUT, handshake).await {
                    Ok(Ok(stream)) => serve(stream, protocol, router, arrival, stop).await,
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
            Self::Http1 => tls,
            Self::Http2 => {
                let mut tls = (*tls).clone();
                tls.alpn_protocols = vec![b"h2".to_vec()];
                Arc::new(tls)
            }
        }
    }
}

async fn serve<S>(stream: S, protocol: Protocol, router: Router, arrival: Arrival, mut stop: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = router.map_request(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(arrival);
        request
    });
    if protocol == Protocol::Http2 {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(HEAD_TIMEOUT);
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service)));
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
        return;
    }
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

/// Whoever could still say stop is gone with the sender.
async fn stopped(stop: &mut watch::Receiver<bool>) {
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

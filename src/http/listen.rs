use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1::Builder;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::connection::Connection;

/// From a connection's first byte to the end of a request's head; whoever sends it slower is cut off.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections of one listener at a time, WebSockets included; further ones wait in the system's own queue.
const MAX_CONNECTIONS: u32 = 8192;
/// Pause after the system refused a connection, which happens when no file descriptor is left.
const REFUSED_PAUSE: Duration = Duration::from_millis(100);

/// Serves a router until `stop` turns true, and then until the last answer is out and the last connection closed,
/// WebSockets included; whoever serves those has to end them. Dropped, it ends every connection that is no WebSocket.
///
/// It does what `axum::serve` does, with two bounds more, on the time of a request's head and on connections, and
/// gives each the bounds of [`Connection`].
pub async fn listen(listener: TcpListener, router: Router, mut stop: watch::Receiver<bool>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS as usize));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &places) => accepted,
            Some(_) = connections.join_next() => continue,
            () = stopped(&mut stop) => break,
        };
        let stream = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(REFUSED_PAUSE).await;
                continue;
            }
        };
        let mut builder = Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
        let service = TowerToHyperService::new(router.clone());
        let connection = builder.serve_connection(TokioIo::new(stream), service).with_upgrades();
        let mut stop = stop.clone();
        connections.spawn(async move {
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
        });
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
    // A WebSocket outlives the task of its request; the connection itself holds its place.
    places.acquire_many(MAX_CONNECTIONS).await.ok();
}

/// Whoever could still say stop is gone with the sender.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    stop.wait_for(|stop| *stop).await.ok();
}

async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> io::Result<Connection> {
    let place = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok(Connection::new(stream, place))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_request_is_answered_and_a_stop_ends_the_listener() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let serving = tokio::spawn(listen(listener, Router::new().route("/", get(async || "hello")), stopped));
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
        tokio::spawn(listen(listener, Router::new(), stopped));
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
    async fn an_answer_that_nobody_reads_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let router = Router::new().route("/", get(async || vec![0; 64 * 1024 * 1024]));
        let serving = tokio::spawn(listen(listener, router, stopped));
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        client.readable().await.unwrap();
        stop.send_replace(true);
        timeout(Duration::from_secs(3600), serving).await.expect("an end").unwrap();
        drop(client);
    }
}

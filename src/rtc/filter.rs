//! Source validation: the stack takes any datagram that is not STUN once a candidate pair is selected, whatever its
//! source, which lets anyone who knows the port disturb the DTLS handshake. The socket here passes STUN from anyone,
//! and everything else only from addresses to which the stack itself has sent a Binding success response
//! (RFC 8489 section 6.3.1), which it does only after it checked the message's integrity.

use std::collections::HashSet;
use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use ::webrtc::runtime::{
    AsyncInterval, AsyncTcpListener, AsyncTcpStream, AsyncUdpSocket, JoinHandle, RecvMeta, Runtime, TokioRuntime,
    Transmit,
};
use metrics::{Counter, counter};

/// Sources that a socket remembers at most; a session needs a handful.
const MAX_SOURCES: usize = 64;
/// Shortest STUN message: its header (RFC 8489 section 5).
const STUN_HEADER: usize = 20;
/// Message type of a Binding success response.
const BINDING_SUCCESS: [u8; 2] = [0x01, 0x01];

/// Tokio, with sockets that validate their sources.
#[derive(Debug)]
pub(super) struct ValidatingRuntime(pub(super) TokioRuntime);

impl Runtime for ValidatingRuntime {
    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) -> Box<dyn JoinHandle> {
        self.0.spawn(future)
    }

    fn wrap_udp_socket(&self, socket: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        Ok(Arc::new(ValidatingSocket {
            inner: self.0.wrap_udp_socket(socket)?,
            sources: Mutex::default(),
            dropped: counter!("saccade_frames_dropped_total", "stage" => "rtc", "reason" => "unknown_source"),
        }))
    }

    fn wrap_tcp_listener(&self, listener: std::net::TcpListener) -> io::Result<Arc<dyn AsyncTcpListener>> {
        self.0.wrap_tcp_listener(listener)
    }

    fn connect_tcp<'a>(
        &'a self,
        address: SocketAddr,
    ) -> Pin<Box<dyn Future<Output = io::Result<Arc<dyn AsyncTcpStream>>> + Send + 'a>> {
        self.0.connect_tcp(address)
    }

    fn resolve_host<'a>(
        &'a self,
        host: &'a str,
    ) -> Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'a>> {
        self.0.resolve_host(host)
    }

    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + 'static>> {
        self.0.sleep(duration)
    }

    fn interval(&self, period: Duration) -> Box<dyn AsyncInterval> {
        self.0.interval(period)
    }

    fn block_on(&self, future: Pin<Box<dyn Future<Output = ()> + '_>>) {
        self.0.block_on(future);
    }
}

struct ValidatingSocket {
    inner: Arc<dyn AsyncUdpSocket>,
    sources: Mutex<HashSet<SocketAddr>>,
    dropped: Counter,
}

impl std::fmt::Debug for ValidatingSocket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ValidatingSocket").finish_non_exhaustive()
    }
}

impl AsyncUdpSocket for ValidatingSocket {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn poll_send(&self, cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<usize>> {
        if transmit.contents.len() >= STUN_HEADER && transmit.contents[..2] == BINDING_SUCCESS {
            let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
            if sources.len() < MAX_SOURCES {
                sources.insert(transmit.destination);
            }
        }
        self.inner.poll_send(cx, transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let received = self.inner.poll_recv(cx, buffers, meta);
        if let Poll::Ready(Ok(count)) = received {
            let sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
            for (buffer, meta) in buffers.iter().zip(meta.iter_mut()).take(count) {
                // One buffer may hold several datagrams of one source, `stride` bytes each.
                let datagrams = &buffer[..meta.len.min(buffer.len())];
                let mut each = datagrams.chunks(meta.stride.max(1));
                if !(sources.contains(&meta.addr) || each.all(is_stun)) {
                    self.dropped.increment(1);
                    meta.len = 0;
                    meta.stride = 1;
                }
            }
        }
        received
    }

    fn max_gso_segments(&self) -> usize {
        self.inner.max_gso_segments()
    }
}

/// RFC 7983 section 7: STUN messages begin with a byte of 0 to 3.
fn is_stun(datagram: &[u8]) -> bool {
    datagram.len() >= STUN_HEADER && datagram[0] <= 3
}

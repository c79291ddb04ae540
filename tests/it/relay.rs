//! A relay of datagrams between a client and the server's media port.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// One way, each.
const DELAY: Duration = Duration::from_millis(20);
/// Bytes that wait at most; what comes then is lost.
const QUEUE: u64 = 60_000;

/// A relay of datagrams between a client and the server's media port, with a bottleneck on the way to the client.
pub struct Relay {
    address: SocketAddr,
    /// Bits a second that the way to the client carries.
    pub carries: Arc<AtomicU64>,
    /// Datagrams from the client that were kept back.
    pub kept_back: watch::Receiver<u64>,
    _tasks: JoinSet<()>,
}

impl Relay {
    /// With a way to the client that carries so many bits a second, and a way to the server for what `passes`.
    pub async fn start(server: SocketAddr, carries: u64, passes: fn(&[u8]) -> bool) -> Self {
        let near = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let far = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        far.connect(server).await.unwrap();
        let address = near.local_addr().unwrap();
        let carries = Arc::new(AtomicU64::new(carries));
        let client = Arc::new(OnceLock::new());
        let mut tasks = JoinSet::new();
        let (inside, outside, known) = (Arc::clone(&near), Arc::clone(&far), Arc::clone(&client));
        let (keep_back, kept_back) = watch::channel(0);
        let onward = move |datagram: &[u8]| {
            if passes(datagram) {
                // Nobody may listen yet, or any more.
                let _ = outside.try_send(datagram);
            } else {
                keep_back.send_modify(|count| *count += 1);
            }
        };
        tasks.spawn(pass(inside, move |from| _ = known.set(from), |_, now| Some(now + DELAY), onward));
        let (mut free_at, rate) = (Instant::now(), Arc::clone(&carries));
        let bottleneck = move |bytes: usize, now: Instant| {
            let carries = rate.load(Ordering::Relaxed) as f64 / 8.0;
            let from = free_at.max(now);
            if (from - now).as_secs_f64() * carries > QUEUE as f64 {
                return None;
            }
            free_at = from + Duration::from_secs_f64(bytes as f64 / carries);
            Some(free_at + DELAY)
        };
        tasks.spawn(pass(
            far,
            |_| (),
            bottleneck,
            move |datagram| {
                if let Some(client) = client.get() {
                    let _ = near.try_send_to(datagram, *client);
                }
            },
        ));
        Self { address, carries, kept_back, _tasks: tasks }
    }

    /// The server's answer with the relay as its only candidate.
    pub fn lead(&self, answer: &str) -> String {
        let mut lines: Vec<String> = Vec::new();
        for line in answer.lines().filter(|line| !line.starts_with("a=candidate:")) {
            lines.push(line.to_owned());
            if line.starts_with("a=ice-ufrag:") {
                let (ip, port) = (self.address.ip(), self.address.port());
                lines.push(format!("a=candidate:1 1 udp 2130706431 {ip} {port} typ host"));
            }
        }
        lines.join("\r\n") + "\r\n"
    }
}

/// Takes datagrams from a socket and hands each on at the time that `due` gives it, unless that drops it.
async fn pass(
    socket: Arc<UdpSocket>,
    mut from: impl FnMut(SocketAddr),
    mut due: impl FnMut(usize, Instant) -> Option<Instant>,
    hand_on: impl Fn(&[u8]),
) {
    let mut waiting: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
    let mut buffer = [0; 2_048];
    loop {
        let next = waiting.front().map(|(at, _)| *at);
        tokio::select! {
            received = socket.recv_from(&mut buffer) => {
                // A port where nobody listens yet is no reason to stop.
                let Ok((length, source)) = received else { continue };
                from(source);
                if let Some(at) = due(length, Instant::now()) {
                    waiting.push_back((at, buffer[..length].to_vec()));
                }
            }
            () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                if let Some((_, datagram)) = waiting.pop_front() {
                    hand_on(&datagram);
                }
            }
        }
    }
}

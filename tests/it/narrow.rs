//! A path back that narrows and gets wide again: the server sends what it carries, and says what it gives up.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use saccade::media::Codec;
use saccade_signaling::{ClientMessage, OptionsPatch, close_code};
use tokio::net::UdpSocket;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep_until, timeout};

use crate::client::{LIMIT, Socket, join_by};
use crate::publisher::{FPS, Publisher};
use crate::server::Server;

/// Bits a second.
const WIDE: u64 = 4_000_000;
const NARROW: u64 = 300_000;
/// One way, each.
const DELAY: Duration = Duration::from_millis(20);
/// Bytes that wait at most; what comes then is lost.
const QUEUE: u64 = 60_000;
/// Longest wait for the server to notice.
const NOTICED: Duration = Duration::from_secs(60);

/// A relay of datagrams between a client and the server's media port, with a bottleneck on the way to the client.
struct Relay {
    address: SocketAddr,
    /// Bits a second that the way to the client carries.
    carries: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

impl Relay {
    async fn start(server: SocketAddr) -> Self {
        let near = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        let far = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
        far.connect(server).await.unwrap();
        let address = near.local_addr().unwrap();
        let carries = Arc::new(AtomicU64::new(WIDE));
        let client = Arc::new(std::sync::OnceLock::new());
        let mut tasks = JoinSet::new();
        let (inside, outside, known) = (Arc::clone(&near), Arc::clone(&far), Arc::clone(&client));
        tasks.spawn(pass(
            inside,
            move |from| _ = known.set(from),
            |_, now| Some(now + DELAY),
            move |datagram| {
                // Nobody may listen yet, or any more.
                let _ = outside.try_send(datagram);
            },
        ));
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
        Self { address, carries, _tasks: tasks }
    }

    /// The server's answer with the relay as its only candidate.
    fn lead(&self, answer: &str) -> String {
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

#[tokio::test(flavor = "multi_thread")]
async fn what_a_narrow_path_cannot_carry_is_given_up_and_comes_back() {
    let server = Server::start(&[]).await;
    let relay = Relay::start(([127, 0, 0, 1], server.app.media_port()).into()).await;
    let options = OptionsPatch { budget_ms: Some(1_000), ..OptionsPatch::default() };
    let socket = Socket::connect(server.http).await;
    let (mut socket, mut peer, id, _) = join_by(socket, Codec::H264, options, |answer| relay.lead(&answer)).await;
    let mut publisher = Publisher::new(Codec::H264);
    let mut pace = interval(Duration::from_secs(1) / FPS);
    let (mut arrived, mut since) = (0, Instant::now());
    // Wide until something comes back in full, narrow until that is given up, wide until all of it is back.
    let mut stages = vec![("in full", WIDE, false), ("less", NARROW, true), ("in full again", WIDE, false)].into_iter();
    let mut stage = stages.next();
    let mut last_rate = 0;
    while let Some((name, carries, lower)) = stage {
        relay.carries.store(carries, Ordering::Relaxed);
        let reached = async {
            loop {
                tokio::select! {
                    _ = pace.tick() => {
                        let (time, payloads) = publisher.next();
                        peer.send(time, payloads).await;
                    }
                    Some(packet) = peer.packets.recv() => arrived += packet.payload.len() as u64 * 8,
                    Some(result) = peer.results.recv() => {
                        let took = since.elapsed();
                        if took < Duration::from_secs(1) {
                            continue;
                        }
                        last_rate = (arrived as f64 / took.as_secs_f64()) as u64;
                        (arrived, since) = (0, Instant::now());
                        let gives_up = result.degraded.iter().any(|step| step == "lower_fps");
                        // What comes is what the path carries, or more than that where the path is wide.
                        if gives_up == lower && (last_rate > NARROW) != lower {
                            return;
                        }
                    }
                }
            }
        };
        timeout(NOTICED, reached).await.unwrap_or_else(|_| panic!("{name}: {last_rate} bits a second"));
        stage = stages.next();
    }
    let view = server.app.registry().get(&id).unwrap().view();
    assert!(view.counters.returned > 0 && view.counters.returned < view.counters.results, "{:?}", view.counters);
    socket.send(&ClientMessage::Bye).await;
    assert_eq!(socket.close_code().await, close_code::BYE);
    timeout(LIMIT, peer.close()).await.expect("an end in time");
}

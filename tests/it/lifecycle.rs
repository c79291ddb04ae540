//! Sessions that come and go in every way leave nothing behind.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use saccade::media::Codec;
use saccade_signaling::{
    ClientMessage, ErrorCode, OfferResponse, OptionsPatch, Problem, ServerMessage, SessionResult, SessionView,
    close_code,
};

use crate::client::{LIMIT, Peer, Socket, connect, join_by};
use crate::publisher::Publisher;
use crate::relay::Relay;
use crate::server::{self, Server};

/// What a process holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    files: usize,
    tasks: usize,
    threads: usize,
    lanes: usize,
    sessions: usize,
}

impl Held {
    fn now(server: &Server) -> Self {
        let entries = |path: &str| std::fs::read_dir(path).unwrap().count();
        Self {
            files: entries("/proc/self/fd"),
            tasks: tokio::runtime::Handle::current().metrics().num_alive_tasks(),
            threads: entries("/proc/self/task"),
            lanes: server.app.lanes(),
            sessions: server.app.registry().len(),
        }
    }

    const fn is_back_to(self, before: Self) -> bool {
        self.files <= before.files
            && self.tasks <= before.tasks
            && self.threads <= before.threads
            && self.lanes == 0
            && self.sessions == 0
    }
}

/// Sessions after which memory is looked at.
const WARM: usize = 100;

/// Bytes that a session may leave behind: what the allocator keeps.
const MOST_KEPT: usize = 5_000;

/// Memory of this process, in bytes.
fn resident_bytes() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4_096
}

/// Waits until the process holds no more than before; the time is looked at, never guessed.
pub async fn back_to(before: Held, server: &Server, limit: Duration) {
    let deadline: Instant = saccade::clock::now() + limit;
    let mut look = tokio::time::interval(Duration::from_millis(50));
    loop {
        look.tick().await;
        let held = Held::now(server);
        if held.is_back_to(before) {
            return;
        }
        assert!(saccade::clock::now() < deadline, "before {before:?}, now {held:?}");
    }
}

/// The ways in which sessions end.
#[derive(Debug, Clone, Copy)]
enum Way {
    Bye,
    Deleted,
    SocketCut,
    PeerClosed,
    /// Not another datagram comes.
    Silence,
    AbortBeforeFirstFrame,
    /// Checks get through, and nothing else.
    AbortBeforeDtls,
    AbortBeforeIce,
    AbortWithoutSocket,
    Refused,
}

const WAYS: [Way; 10] = [
    Way::Bye,
    Way::Deleted,
    Way::SocketCut,
    Way::PeerClosed,
    Way::Silence,
    Way::AbortBeforeFirstFrame,
    Way::AbortBeforeDtls,
    Way::AbortBeforeIce,
    Way::AbortWithoutSocket,
    Way::Refused,
];

/// Bits a second of a path that is wide enough.
const WIDE: u64 = 10_000_000;

async fn come_and_go(server: &Server, way: Way) {
    let (media, server) = (server.media(), server.http);
    match way {
        Way::Silence => {
            let relay = Relay::start(media, WIDE, |_| true).await;
            let (socket, options) = (Socket::connect(server).await, OptionsPatch::default());
            let (mut socket, mut peer, ..) = join_by(socket, Codec::Vp8, options, |answer| relay.lead(&answer)).await;
            // Until the channel of results has opened, they are for nobody.
            let mut publisher = Publisher::new(Codec::Vp8);
            let mut pace = tokio::time::interval(Duration::from_millis(33));
            let result = async {
                loop {
                    tokio::select! {
                        _ = pace.tick() => {
                            let (time, payloads) = publisher.next();
                            peer.send(time, payloads).await;
                        }
                        Some(_) = peer.results.recv() => return,
                    }
                }
            };
            tokio::time::timeout(LIMIT, result).await.expect("a result in time");
            drop(relay);
            let closed = |message| match message {
                ServerMessage::Closed { reason } => Some(reason),
                _ => None,
            };
            assert_eq!(socket.find(closed).await, "idle");
            peer.close().await;
        }
        Way::AbortBeforeFirstFrame => {
            let (socket, peer, ..) = connect(server, Codec::H264, OptionsPatch::default()).await;
            drop(socket);
            peer.close().await;
        }
        Way::AbortBeforeDtls => {
            // STUN begins with 0 to 3 (RFC 7983 section 7).
            let mut relay = Relay::start(media, WIDE, |datagram| datagram[0] < 4).await;
            let mut socket = Socket::connect(server).await;
            let mut peer = Peer::new(Codec::H264).await;
            let sdp = peer.offer().await;
            socket.offer(sdp, None, None).await;
            let answer = |message| match message {
                ServerMessage::Answer { sdp, .. } => Some(sdp),
                _ => None,
            };
            peer.answer(relay.lead(&socket.find(answer).await)).await;
            // The client's part of the handshake, which it begins once a check has succeeded.
            tokio::time::timeout(LIMIT, relay.kept_back.wait_for(|count| *count > 0)).await.unwrap().unwrap();
            peer.close().await;
        }
        Way::Bye | Way::Deleted | Way::SocketCut | Way::PeerClosed => {
            let (mut socket, mut peer, id, _) = connect(server, Codec::Vp8, OptionsPatch::default()).await;
            let mut publisher = Publisher::new(Codec::Vp8);
            let (time, payloads) = publisher.next();
            peer.send(time, payloads).await;
            match way {
                Way::Bye => {
                    socket.send(&ClientMessage::Bye).await;
                    assert_eq!(socket.close_code().await, close_code::BYE);
                }
                Way::Deleted => {
                    let url = format!("http://{server}/v1/sessions/{id}");
                    assert!(reqwest::Client::new().delete(url).send().await.unwrap().status().is_success());
                }
                Way::SocketCut => drop(socket),
                _ => {}
            }
            peer.close().await;
        }
        Way::AbortBeforeIce | Way::Refused => {
            let mut socket = Socket::connect(server).await;
            let mut peer = Peer::new(Codec::H264).await;
            let sdp = peer.offer().await;
            let sdp = if matches!(way, Way::Refused) { sdp.replace("H264/90000", "AV1/90000") } else { sdp };
            socket.offer(sdp, None, None).await;
            socket
                .find(|message| match message {
                    ServerMessage::Answer { .. } => Some(()),
                    ServerMessage::Error { code, .. } => {
                        assert_eq!(code, ErrorCode::NoCommonCodec);
                        Some(())
                    }
                    _ => None,
                })
                .await;
            peer.close().await;
        }
        Way::AbortWithoutSocket => {
            let mut peer = Peer::new(Codec::H264).await;
            let body = serde_json::json!({"type": "offer", "sdp": peer.offer().await});
            let url = format!("http://{server}/v1/offer");
            assert!(reqwest::Client::new().post(url).json(&body).send().await.unwrap().status().is_success());
            peer.close().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_end_in_every_way_leave_nothing_behind() {
    let server = Server::start(&[
        ("admission.mode", "off"),
        ("session.resume_ms", "500"),
        ("session.ice_timeout_ms", "1000"),
        ("session.idle_timeout_ms", "2000"),
    ])
    .await;
    // One of each first, so that what is made once has been made.
    for way in WAYS {
        come_and_go(&server, way).await;
    }
    let warm = Held { files: usize::MAX, tasks: usize::MAX, threads: usize::MAX, lanes: 0, sessions: 0 };
    back_to(warm, &server, LIMIT).await;
    let before = settled(&server).await;
    let sessions = std::env::var("SACCADE_TEST_CHURN").map_or(200, |sessions| sessions.parse().unwrap());
    let (cycles, begun) = (AtomicUsize::new(0), OnceLock::new());
    futures_util::stream::iter((0..sessions).map(|round| come_and_go(&server, WAYS[round % WAYS.len()])))
        .buffer_unordered(6)
        .for_each(async |()| {
            if cycles.fetch_add(1, Ordering::Relaxed) + 1 == WARM {
                begun.get_or_init(resident_bytes);
            }
        })
        .await;
    back_to(before, &server, LIMIT * 2).await;
    // Clients are in this process, too.
    if sessions > WARM {
        let begun = *begun.get().unwrap();
        let grown = resident_bytes().saturating_sub(begun) / (sessions - WARM);
        assert!(sessions < 1_000 || grown <= MOST_KEPT, "{grown} bytes of each session are kept");
        println!("{sessions} sessions: {begun} bytes after {WARM}, and {grown} more for each of the others");
    }
    server.app.shut_down().await;
}

/// What is held once nothing changes any more for half a second.
pub async fn settled(server: &Server) -> Held {
    let mut look = tokio::time::interval(Duration::from_millis(500));
    look.tick().await;
    let mut last = Held::now(server);
    loop {
        look.tick().await;
        let now = Held::now(server);
        if now == last {
            return now;
        }
        last = now;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offer_over_http_runs_a_session_that_the_api_shows() {
    let server = Server::start(&[]).await;
    let client = reqwest::Client::new();
    let mut peer = Peer::new(Codec::H264).await;
    let body = serde_json::json!({"type": "offer", "sdp": peer.offer().await, "options": {"return": "results"}});
    let answer: OfferResponse =
        client.post(server.url("/offer")).json(&body).send().await.unwrap().json().await.unwrap();
    assert!(answer.sdp.contains("a=candidate:"), "the answer holds its candidates");
    peer.answer(answer.sdp).await;
    peer.connected().await;

    let path = format!("/v1/sessions/{}", answer.session_id);
    let stream = client.get(server.url(&format!("{path}/results"))).send().await.unwrap();
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    let mut events = stream.bytes_stream();
    let mut publisher = Publisher::new(Codec::H264);
    let mut pace = tokio::time::interval(Duration::from_millis(33));
    let seen = async {
        let (mut text, mut direct) = (String::new(), Vec::new());
        while text.matches("\n\n").count() < 5 || direct.len() < 5 {
            tokio::select! {
                _ = pace.tick() => {
                    let (time, payloads) = publisher.next();
                    peer.send(time, payloads).await;
                }
                Some(chunk) = events.next() => text.push_str(std::str::from_utf8(&chunk.unwrap()).unwrap()),
                Some(result) = peer.results.recv() => direct.push(result),
            }
        }
        (text, direct)
    };
    let (text, direct) = tokio::time::timeout(LIMIT, seen).await.expect("results in time");
    let streamed = text.lines().find_map(|line| line.strip_prefix("data: ").or(line.strip_prefix("data:"))).unwrap();
    let streamed: SessionResult = serde_json::from_str(streamed).unwrap();
    assert_eq!(streamed.session_id, answer.session_id);
    assert!(direct.iter().all(|result| result.rtp_timestamp_out.is_none()));

    let view: SessionView = client.get(server.url(&path)).send().await.unwrap().json().await.unwrap();
    assert_eq!(
        (view.state.as_str(), view.codec.as_deref(), view.resolution),
        ("connected", Some("H264"), Some([640, 480]))
    );
    assert!(view.counters.inferred >= 5 && view.counters.returned == 0 && !view.stages.is_empty());
    let list: Vec<SessionView> = client.get(server.url("/v1/sessions")).send().await.unwrap().json().await.unwrap();
    assert_eq!(list.len(), 1);
    assert!(client.delete(server.url(&path)).send().await.unwrap().status().is_success());
    let gone = client.get(server.url(&path)).send().await.unwrap();
    assert_eq!(gone.status(), 404);
    assert_eq!(gone.json::<Problem>().await.unwrap().code, ErrorCode::NotFound);
    peer.close().await;
    server.app.shut_down().await;
}

/// Names of this process' threads, but for those that Tokio starts and ends as it likes: they have the name of the thread that
/// starts them until they give themselves one.
fn threads() -> Vec<String> {
    let own = std::fs::read_to_string("/proc/thread-self/comm").unwrap();
    let names = std::fs::read_dir("/proc/self/task").unwrap().filter_map(|task| {
        // It may end meanwhile.
        std::fs::read_to_string(task.unwrap().path().join("comm")).ok()
    });
    let mut names: Vec<_> = names.filter(|name| !name.starts_with("tokio") && *name != own).collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_fails_late_can_be_tried_again_at_once() {
    let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let [http, ops, media] = [free(), free(), free()].map(|address| address.to_string());
    let (_, media) = media.rsplit_once(':').unwrap();
    let folder = tempfile::tempdir().unwrap();
    let sinks = serde_json::json!([
        {"name": "first", "type": "webhook", "url": "http://127.0.0.1:9/", "dead_letter": folder.path().join("letters")},
        {"name": "second", "type": "nats", "url": "nats://127.0.0.1:9"},
    ]);
    let store = format!("sqlite://{}", folder.path().join("history.db").display());
    let mut config = server::config(&[
        ("http.listen", &http),
        ("ops.listen", &ops),
        ("media.port", media),
        ("sinks", &sinks.to_string()),
        ("store.url", &store),
    ]);
    let before = threads();
    // Models and codecs have threads by then, the operators' listener answers, and one sink works.
    config.sinks[1].ca_file = Some(folder.path().join("none.pem"));
    for _ in 0..2 {
        let error = server::start(&config).await.map(drop).unwrap_err();
        assert!(matches!(error, saccade::app::StartError::Sinks(_)), "{error}");
        assert_eq!(threads(), before);
    }
    config.sinks[1].ca_file = None;
    let app = server::start(&config).await.unwrap();
    assert_eq!(app.http_address().to_string(), http);
    assert!(threads().len() > before.len());
    app.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_socket_is_resumed_and_the_session_goes_on() {
    let server = Server::start(&[]).await;
    let (socket, mut peer, id, _) = connect(server.http, Codec::H264, OptionsPatch::default()).await;
    let mut publisher = Publisher::new(Codec::H264);
    let before = next_result(&mut peer, &mut publisher).await;
    drop(socket);

    let mut socket = Socket::connect(server.http).await;
    let sdp = peer.offer().await;
    socket.offer(sdp, None, Some(id.clone())).await;
    let (sdp, resumed) = socket
        .find(|message| match message {
            ServerMessage::Answer { sdp, session_id, .. } => Some((sdp, session_id)),
            ServerMessage::Error { code, message, .. } => panic!("{code}: {message}"),
            _ => None,
        })
        .await;
    assert_eq!(resumed, id);
    peer.answer(sdp).await;
    while peer.results.try_recv().is_ok() {}
    let after = next_result(&mut peer, &mut publisher).await;
    assert!(after.frame_id > before.frame_id, "the same session goes on");
    socket.send(&ClientMessage::Bye).await;
    assert_eq!(socket.close_code().await, close_code::BYE);
    peer.close().await;
    server.app.shut_down().await;
}

/// Sends frames until a result comes; the first may be lost before the server's side of the connection is up.
async fn next_result(peer: &mut Peer, publisher: &mut Publisher) -> SessionResult {
    let mut pace = tokio::time::interval(Duration::from_millis(33));
    let result = async {
        loop {
            tokio::select! {
                _ = pace.tick() => {
                    let (time, payloads) = publisher.next();
                    peer.send(time, payloads).await;
                }
                Some(result) = peer.results.recv() => return result,
            }
        }
    };
    tokio::time::timeout(LIMIT, result).await.expect("a result in time")
}

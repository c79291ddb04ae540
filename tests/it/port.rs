//! The one port of media: who gets in, by which way, and who does not.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ring::hmac;
use saccade::media::Codec;
use saccade_signaling::{OfferResponse, OptionsPatch, ServerMessage, SessionView};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::client::{LIMIT, Peer, Socket, connect};
use crate::publisher::Publisher;
use crate::server::Server;

/// How long nothing has to come for it to count as silence; a reply on this machine takes microseconds.
const SILENCE: Duration = Duration::from_millis(300);

async fn offer(server: &Server, sdp: &str) -> OfferResponse {
    let body = serde_json::json!({"type": "offer", "sdp": sdp});
    let response = reqwest::Client::new().post(server.url("/v1/offer")).json(&body).send().await.unwrap();
    assert!(response.status().is_success(), "{}", response.status());
    response.json().await.unwrap()
}

async fn view(server: &Server, id: &str) -> SessionView {
    let url = server.url(&format!("/v1/sessions/{id}"));
    reqwest::get(url).await.unwrap().json().await.unwrap()
}

/// Publishes until results have come.
async fn gets_results(peer: &mut Peer) {
    let mut publisher = Publisher::new(Codec::Vp8);
    let mut pace = tokio::time::interval(Duration::from_millis(33));
    let mut results = 0;
    let publishing = async {
        while results < 3 {
            tokio::select! {
                _ = pace.tick() => {
                    let (time, payloads) = publisher.next();
                    peer.send(time, payloads).await;
                }
                Some(_) = peer.results.recv() => results += 1,
            }
        }
    };
    timeout(LIMIT, publishing).await.expect("results in time");
}

fn candidates(sdp: &str) -> Vec<Vec<&str>> {
    let lines = sdp.lines().filter_map(|line| line.strip_prefix("a=candidate:"));
    lines.map(|line| line.split(' ').collect()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn all_sessions_share_one_port_that_answers_name_for_udp_and_tcp() {
    let server = Server::start(&[]).await;
    let port = server.app.media_port().to_string();
    let (mut first, mut second) = (Peer::new(Codec::Vp8).await, Peer::new(Codec::Vp8).await);
    for peer in [&mut first, &mut second] {
        let answer = offer(&server, &peer.offer().await).await;
        let named = candidates(&answer.sdp);
        let kinds: Vec<_> = named.iter().map(|fields| (fields[2], fields[4], fields[5])).collect();
        assert_eq!(kinds, [("udp", "127.0.0.1", port.as_str()), ("tcp", "127.0.0.1", port.as_str())]);
        assert!(answer.sdp.contains("\r\na=end-of-candidates\r\n"));
        peer.answer(answer.sdp).await;
        peer.connected().await;
    }
    let own = format!(":{:04X} ", server.app.media_port());
    let bound = |table: &str| std::fs::read_to_string(table).unwrap().lines().filter(|l| l.contains(&own)).count();
    assert_eq!(bound("/proc/self/net/udp"), 1, "one socket, whatever the number of sessions");
    gets_results(&mut first).await;
    gets_results(&mut second).await;
    first.close().await;
    second.close().await;
    server.app.shut_down().await;
}

/// Carries datagrams over a connection to the media port, as a client behind a firewall that lets no UDP through would
/// send them. Gives the address to send to.
async fn over_tcp(port: u16, tasks: &mut JoinSet<()>) -> SocketAddr {
    let udp = Arc::new(UdpSocket::bind("127.0.0.1:0").await.unwrap());
    let address = udp.local_addr().unwrap();
    let (mut reader, mut writer) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap().into_split();
    let peer = Arc::new(std::sync::OnceLock::new());
    let (out, from) = (Arc::clone(&udp), Arc::clone(&peer));
    tasks.spawn(async move {
        let mut datagram = [0; 2000];
        while let Ok((length, address)) = out.recv_from(&mut datagram).await {
            let _ = from.set(address);
            writer.write_u16(length.try_into().unwrap()).await.unwrap();
            writer.write_all(&datagram[..length]).await.unwrap();
        }
    });
    tasks.spawn(async move {
        while let Ok(length) = reader.read_u16().await {
            let mut datagram = vec![0; length.into()];
            reader.read_exact(&mut datagram).await.unwrap();
            udp.send_to(&datagram, *peer.get().unwrap()).await.unwrap();
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_runs_over_tcp_where_there_is_no_udp() {
    let server = Server::start(&[]).await;
    let mut bridge = JoinSet::new();
    let through = over_tcp(server.app.media_port(), &mut bridge).await;
    let mut peer = Peer::new(Codec::Vp8).await;
    let answer = offer(&server, &peer.offer().await).await;
    let udp = format!("127.0.0.1 {} typ host", server.app.media_port());
    let instead = format!("127.0.0.1 {} typ host", through.port());
    let only_bridge = answer.sdp.split_inclusive("\r\n").filter(|line| !line.contains("tcptype"));
    let sdp = only_bridge.collect::<String>().replace(&udp, &instead);
    peer.answer(sdp).await;
    peer.connected().await;
    gets_results(&mut peer).await;
    // The path is looked at twice a second.
    let looked_at = async {
        loop {
            match view(&server, &answer.session_id).await.transport {
                Some(transport) => return transport,
                None => tokio::task::yield_now().await,
            }
        }
    };
    assert_eq!(timeout(LIMIT, looked_at).await.expect("a path").protocol, "tcp");
    reqwest::Client::new().delete(server.url(&format!("/v1/sessions/{}", answer.session_id))).send().await.unwrap();
    timeout(LIMIT, bridge.join_next()).await.expect("the session's end closes its connection").unwrap().unwrap();
    peer.close().await;
    bridge.shutdown().await;
    server.app.shut_down().await;
}

/// A message of STUN: type, transaction, attributes, and its integrity.
fn stun(kind: u16, transaction: [u8; 12], attributes: &[(u16, &[u8])], password: &str) -> Vec<u8> {
    let mut bytes = [&kind.to_be_bytes()[..], &[0, 0], &0x2112_A442_u32.to_be_bytes(), &transaction].concat();
    for (kind, value) in attributes {
        bytes.extend(kind.to_be_bytes());
        bytes.extend((value.len() as u16).to_be_bytes());
        bytes.extend(*value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    let length = bytes.len() as u16 + 24 - 20;
    bytes[2..4].copy_from_slice(&length.to_be_bytes());
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes());
    let sum = hmac::sign(&key, &bytes);
    bytes.extend([0x00, 0x08, 0x00, 0x14]);
    bytes.extend(sum.as_ref());
    bytes
}

fn attribute<'a>(sdp: &'a str, name: &str) -> &'a str {
    sdp.lines().find_map(|line| line.strip_prefix(&format!("a={name}:"))).unwrap()
}

/// A check of connectivity as whoever made the offer would send it.
fn check(offer: &str, answer: &str, transaction: u8, password: &str) -> Vec<u8> {
    let name = format!("{}:{}", attribute(answer, "ice-ufrag"), attribute(offer, "ice-ufrag"));
    let attributes: [(u16, &[u8]); 3] = [(0x0006, name.as_bytes()), (0x0024, &[0x6e, 0, 1, 0xff]), (0x802A, &[7; 8])];
    stun(0x0001, [transaction; 12], &attributes, password)
}

/// Where a stranger sits.
struct Stranger(UdpSocket);

impl Stranger {
    async fn new(server: &Server) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.connect((Ipv4Addr::LOCALHOST, server.app.media_port())).await.unwrap();
        Self(socket)
    }

    async fn send(&self, datagram: &[u8]) {
        self.0.send(datagram).await.unwrap();
    }

    async fn reply(&self) -> Option<Vec<u8>> {
        let mut datagram = [0; 2000];
        let length = timeout(SILENCE, self.0.recv(&mut datagram)).await.ok()?.unwrap();
        Some(datagram[..length].to_vec())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_checks_made_with_the_password_are_answered_and_with_less_than_they_are() {
    let server = Server::start(&[("session.ice_timeout_ms", "20000")]).await;
    let mut peer = Peer::new(Codec::Vp8).await;
    let ours = peer.offer().await;
    let answer = offer(&server, &ours).await;
    let password = attribute(&answer.sdp, "ice-pwd").to_owned();
    let good = check(&ours, &answer.sdp, 1, &password);

    let stranger = Stranger::new(&server).await;
    let mut wrong = vec![check(&ours, &answer.sdp, 2, "another password altogether"), b"\x16\xfe\xff".to_vec(), vec![]];
    // All but the integrity, a bare request, and one that is cut off.
    wrong.push(good[..good.len() - 24].to_vec());
    wrong.push(stun(0x0001, [3; 12], &[], &password));
    wrong.push(good[..good.len() - 1].to_vec());
    for datagram in &wrong {
        stranger.send(datagram).await;
    }
    assert_eq!(stranger.reply().await, None, "a stranger gets no answer");

    let friend = Stranger::new(&server).await;
    friend.send(&good).await;
    let reply = friend.reply().await.expect("a check with the password is answered");
    assert_eq!(reply[..2], [0x01, 0x01]);
    assert!(reply.len() <= good.len(), "{} for {}", reply.len(), good.len());
    // The same check once more from where it was not made.
    stranger.send(&good).await;
    stranger.send(b"\x16\xfe\xff").await;
    assert_eq!(stranger.reply().await, None, "a recorded check gets no answer");
    peer.close().await;
    server.app.shut_down().await;
}

/// What whoever wants to disturb a DTLS handshake sends: records of DTLS 1.2 that are not encrypted.
fn dtls_noise() -> [Vec<u8>; 5] {
    let record = |kind: u8, body: &[u8]| {
        let mut bytes = vec![kind, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0];
        bytes.extend((body.len() as u16).to_be_bytes());
        bytes.extend(body);
        bytes
    };
    let handshake = |kind: u8, body: &[u8]| {
        let length = (body.len() as u32).to_be_bytes();
        let mut bytes = vec![kind, length[1], length[2], length[3], 0, 0, 0, 0, 0];
        bytes.extend(&length[1..]);
        bytes.extend(body);
        record(22, &bytes)
    };
    let mut hello = vec![0xfe, 0xfd];
    hello.extend([0x5a; 32]);
    hello.extend([0, 0, 0, 2, 0xc0, 0x2b, 1, 0]);
    let hello_verify = [&[0xfe, 0xff, 20][..], &[0x11; 20]].concat();
    [
        handshake(1, &hello),
        handshake(3, &hello_verify),
        handshake(2, &[0xfe, 0xfd, 1, 2, 3]),
        record(21, &[2, 40]),
        record(21, &[1, 0]),
    ]
}

/// Sends all that noise from sockets of its own, again and again, until it is dropped.
fn flood(port: u16, every: Duration, sent: &Arc<AtomicU64>) -> JoinSet<()> {
    let mut floods = JoinSet::new();
    for noise in dtls_noise() {
        let sent = Arc::clone(sent);
        floods.spawn(async move {
            let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let mut pace = tokio::time::interval(every);
            pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
            loop {
                pace.tick().await;
                let _ = socket.send_to(&noise, (Ipv4Addr::LOCALHOST, port)).await;
                sent.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    floods
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_succeed_whatever_strangers_send_meanwhile() {
    let server = Server::start(&[("admission.mode", "off")]).await;
    let port = server.app.media_port();
    for role in ["active", "passive"] {
        for every in [Duration::from_micros(300), Duration::from_millis(5), Duration::from_millis(50)] {
            let sent = Arc::new(AtomicU64::new(0));
            let floods = flood(port, every, &sent);
            for _ in 0..20 {
                let mut peer = Peer::new(Codec::Vp8).await;
                let sdp = peer.offer().await.replace("a=setup:actpass", &format!("a=setup:{role}"));
                let answer = offer(&server, &sdp).await;
                let taken = if role == "active" { "a=setup:passive" } else { "a=setup:active" };
                assert!(
                    answer.sdp.contains(taken),
                    "the server takes the other role: {}",
                    attribute(&answer.sdp, "setup")
                );
                peer.answer(answer.sdp).await;
                peer.connected().await;
                peer.close().await;
            }
            assert!(sent.load(Ordering::Relaxed) >= 5, "there was something to withstand");
            drop(floods);
        }
    }
    server.app.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declined_section_with_a_transport_of_its_own_does_not_disturb() {
    let server = Server::start(&[]).await;
    let mut peer = Peer::new(Codec::Vp8).await;
    let sdp = peer.offer().await;
    let (head, sections) = sdp.split_at(sdp.find("m=").unwrap());
    let other = "m=audio 0 UDP/TLS/RTP/SAVPF 0\r\nc=IN IP4 0.0.0.0\r\na=mid:other\r\na=ice-ufrag:else\r\n\
                 a=ice-pwd:0123456789012345678901\r\na=inactive\r\n";
    let answer = offer(&server, &format!("{head}{other}{sections}")).await;
    // The client knows nothing of the section that was put in.
    let (head, rest) = answer.sdp.split_at(answer.sdp.find("m=audio 0").expect("it is declined in place"));
    let sections = &rest[rest[1..].find("m=").unwrap() + 1..];
    peer.answer(format!("{head}{sections}")).await;
    peer.connected().await;
    gets_results(&mut peer).await;
    peer.close().await;
    server.app.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_another_certificate_than_the_offer_says_gets_no_frame_decoded() {
    let server = Server::start(&[]).await;
    let mut socket = Socket::connect(server.http).await;
    assert!(matches!(socket.next().await, ServerMessage::Welcome { .. }));
    let mut peer = Peer::new(Codec::Vp8).await;
    let sdp = peer.offer().await;
    let fingerprint = attribute(&sdp, "fingerprint");
    let (algorithm, digits) = fingerprint.split_once(' ').unwrap();
    let other: String = digits
        .chars()
        .map(|digit| {
            if digit == ':' {
                ':'
            } else if digit == '0' {
                '1'
            } else {
                '0'
            }
        })
        .collect();
    let sdp = sdp.replace(fingerprint, &format!("{algorithm} {other}"));
    socket.offer(sdp, None, None).await;
    let sdp =
        socket.find(|message| if let ServerMessage::Answer { sdp, .. } = message { Some(sdp) } else { None }).await;
    peer.answer(sdp).await;
    let mut publisher = Publisher::new(Codec::Vp8);
    let mut pace = tokio::time::interval(Duration::from_millis(33));
    let reason = {
        let mut closed = std::pin::pin!(socket.find(|message| match message {
            ServerMessage::Closed { reason } => Some(reason),
            _ => None,
        }));
        loop {
            tokio::select! {
                _ = pace.tick() => {
                    let (time, payloads) = publisher.next();
                    // The connection may end first.
                    peer.try_send(time, payloads).await;
                }
                reason = &mut closed => break reason,
            }
        }
    };
    assert_eq!(reason, "dtls_failed");
    assert!(peer.results.try_recv().is_err(), "nothing was decoded");
    peer.close().await;
    server.app.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stray_connection_is_closed_and_a_taken_port_is_told() {
    let server = Server::start(&[]).await;
    let port = server.app.media_port();
    // What is no datagram of any session ends the connection at once.
    let mut stray = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
    stray.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut rest = Vec::new();
    let ended = timeout(LIMIT, stray.read_to_end(&mut rest)).await.expect("an end in time");
    assert!(rest.is_empty(), "nothing is answered: {ended:?}");
    let config = crate::server::config(&[("media.port", &port.to_string())]);
    let error = crate::server::start(&config).await.err().expect("the port is taken").to_string();
    assert!(error.contains("media.port") && error.contains(&port.to_string()), "{error}");
    let (socket, peer, ..) = connect(server.http, Codec::Vp8, OptionsPatch::default()).await;
    drop(socket);
    peer.close().await;
    server.app.shut_down().await;
}

//! What one client may take of what there is for all, and TLS.

use std::net::IpAddr;
use std::path::Path;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::super::listen::Arrival;
use super::*;

/// A request as it comes from `peer`.
fn from(peer: &str, forwarded_for: Option<&str>) -> Request<Body> {
    let mut request = Request::get("/v1/models");
    if let Some(forwarded_for) = forwarded_for {
        request = request.header("x-forwarded-for", forwarded_for);
    }
    let arrival = Arrival { peer: peer.parse().unwrap(), refused: None };
    request.extension(arrival).body(Body::empty()).unwrap()
}

fn gate(quota: Quota) -> Arc<Gate> {
    Arc::new(Gate::new(quota, vec!["10.0.0.0/8".parse().unwrap()]))
}

const TWO: Option<Rate> = Some(Rate { per_second: 1, burst: 2 });

#[tokio::test]
async fn requests_of_an_address_have_a_rate() {
    let gate = gate(Quota { requests: TWO, ..Quota::default() });
    let allowed_origins = vec!["https://shop.example".to_owned()];
    let site = site(Settings { gate, allowed_origins, ..Settings::default() }, None);
    for _ in 0..2 {
        assert_eq!(site.request(from("192.0.2.1", None)).await.status(), StatusCode::OK);
    }
    let mut refused = from("192.0.2.1", None);
    refused.headers_mut().insert("origin", "https://shop.example".parse().unwrap());
    let refused = site.request(refused).await;
    assert_eq!(refused.headers()["retry-after"], "1");
    assert_eq!(refused.headers()["access-control-allow-origin"], "https://shop.example", "a page can read why");
    problem(refused, 429, ErrorCode::RateLimited).await;
    assert_eq!(site.request(from("192.0.2.2", None)).await.status(), StatusCode::OK);
    for _ in 0..9 {
        assert_eq!(site.request(from("127.0.0.1", None)).await.status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn a_stranger_gains_nothing_by_another_name_and_a_proxy_speaks_for_many() {
    let site = site(Settings { gate: gate(Quota { requests: TWO, ..Quota::default() }), ..Settings::default() }, None);
    let ask = async |peer: &str, forwarded_for: &str| site.request(from(peer, Some(forwarded_for))).await.status();
    for name in ["198.51.100.1", "198.51.100.2"] {
        assert_eq!(ask("192.0.2.1", name).await, StatusCode::OK);
    }
    assert_eq!(ask("192.0.2.1", "198.51.100.3").await, StatusCode::TOO_MANY_REQUESTS);
    // What it said of others has not been held against them.
    for _ in 0..2 {
        assert_eq!(ask("10.0.0.1", "198.51.100.1").await, StatusCode::OK);
        assert_eq!(ask("10.0.0.1", "8.8.8.8, 198.51.100.2").await, StatusCode::OK);
    }
    assert_eq!(ask("10.0.0.2", "198.51.100.1").await, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(ask("10.0.0.1", "9.9.9.9, 198.51.100.2").await, StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test]
async fn a_subject_and_an_address_have_as_many_sessions_as_they_may() {
    let mut site = site(with_auth(), None);
    let camera = bearer(&json!({"sub": "cam", "can_publish": true, "max_sessions": 1}));
    assert_eq!(site.ask("POST", "/v1/offer", &camera).await.status(), StatusCode::OK);
    let refused = site.ask("POST", "/v1/offer", &camera).await;
    assert_eq!(refused.headers()["retry-after"], "5");
    problem(refused, 429, ErrorCode::Capacity).await;
    let mut socket = Socket::connect(site.listen().await).await;
    assert_eq!(socket.ask(json!({"type": "auth", "token": camera})).await["type"], "welcome");
    socket.send(json!({"type": "offer", "sdp": "v=0"})).await;
    assert_eq!(socket.is_error(ErrorCode::Capacity, true).await["retry_after_ms"], 5000);
    socket.is_closed(1013).await;
    site.saw("open v=0 complete bound").await;
}

#[tokio::test]
async fn connections_that_come_too_fast_are_told_and_those_too_many_are_closed() {
    let site = plain();
    let ask = async |address: SocketAddr| {
        let mut client = TcpStream::connect(address).await.unwrap();
        // One that is closed at once may be so before it is written to.
        client.write_all(b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n").await.ok();
        let mut head = vec![0; 12];
        timeout(PATIENCE, client.read_exact(&mut head)).await.expect("an answer or an end").ok()?;
        Some((String::from_utf8(head).unwrap(), client))
    };
    let door = |quota| Door { gate: Some(gate(quota)), ..Door::default() };
    let fast = site.listen_behind(door(Quota { connections: TWO, loopback: true, ..Quota::default() })).await;
    let heads = [ask(fast).await, ask(fast).await, ask(fast).await].map(|answer| answer.unwrap().0);
    assert_eq!(heads, ["HTTP/1.1 200", "HTTP/1.1 200", "HTTP/1.1 429"]);

    let few = site.listen_behind(door(Quota { open: Some(2), loopback: true, ..Quota::default() })).await;
    let held = [ask(few).await.unwrap(), ask(few).await.unwrap()];
    assert!(ask(few).await.is_none());
    drop(held);
    let free = site.listen_behind(door(Quota { open: Some(1), ..Quota::default() })).await;
    let _held = [ask(free).await.unwrap(), ask(free).await.unwrap()];
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_is_given_up() {
    let site = plain();
    let body = Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>());
    problem(site.post_offer(body).await, 408, ErrorCode::BadRequest).await;
}

#[tokio::test]
async fn messages_are_not_compressed_whoever_asks() {
    let site = plain();
    let mut client = TcpStream::connect(site.listen().await).await.unwrap();
    let request = "GET /v1/signal HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                   Sec-WebSocket-Protocol: saccade.v1\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n";
    client.write_all(request.as_bytes()).await.unwrap();
    let head = head(&mut client).await;
    assert!(head.starts_with("http/1.1 101") && head.contains("saccade.v1"), "{head}");
    assert!(!head.contains("sec-websocket-extensions"), "{head}");
}

/// An answer up to the end of its head, in lower case.
async fn head(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(timeout(PATIENCE, stream.read_u8()).await.expect("an answer").unwrap());
    }
    String::from_utf8(head).unwrap().to_ascii_lowercase()
}

/// A certificate for localhost, put into two files, and a client that trusts it alone.
pub(super) fn certify(folder: &Path) -> TlsConnector {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    for (name, text) in [("key", made.signing_key.serialize_pem()), ("cert", made.cert.pem())] {
        std::fs::write(folder.join("next"), text).unwrap();
        std::fs::rename(folder.join("next"), folder.join(name)).unwrap();
    }
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    TlsConnector::from(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}

pub(super) async fn secured(client: &TlsConnector, address: SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await.unwrap();
    timeout(PATIENCE, client.connect(ServerName::try_from("localhost").unwrap(), stream)).await.expect("a handshake")
}

async fn ask_over(stream: &mut TlsStream<TcpStream>) {
    stream.write_all(b"HEAD /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let head = head(stream).await;
    assert!(head.starts_with("http/1.1 200") && head.contains("strict-transport-security"), "{head}");
}

#[tokio::test]
async fn a_certificate_is_exchanged_under_open_connections() {
    let folder = tempfile::tempdir().unwrap();
    let old = certify(folder.path());
    let tls = Arc::new(tls::watch(folder.path().join("cert"), folder.path().join("key")).unwrap());
    let site = site(Settings { is_secure: true, ..Settings::default() }, None);
    let address = site.listen_behind(Door { tls: Some(Arc::clone(&tls)), ..Door::default() }).await;
    let mut held = secured(&old, address).await.unwrap();
    ask_over(&mut held).await;

    let new = certify(folder.path());
    assert!(secured(&new, address).await.is_err(), "nobody has looked yet");
    tls.look();
    ask_over(&mut secured(&new, address).await.unwrap()).await;
    assert!(secured(&old, address).await.is_err());
    ask_over(&mut held).await;

    std::fs::write(folder.path().join("cert"), "half a certif").unwrap();
    tls.look();
    ask_over(&mut secured(&new, address).await.unwrap()).await;
}

#[tokio::test]
async fn sockets_open_over_tls_and_plain_text_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let client = certify(folder.path());
    let tls = tls::watch(folder.path().join("cert"), folder.path().join("key")).unwrap();
    let site = plain();
    let address = site.listen_behind(Door { tls: Some(Arc::new(tls)), ..Door::default() }).await;
    let mut request = format!("wss://{address}/v1/signal").into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", "saccade.v1".parse().unwrap());
    let stream = secured(&client, address).await.unwrap();
    let (mut socket, _) = tokio_tungstenite::client_async(request, stream).await.unwrap();
    let welcome = timeout(PATIENCE, socket.next()).await.expect("a message").unwrap().unwrap();
    assert!(welcome.to_text().unwrap().contains("welcome"));

    let mut plain = TcpStream::connect(address).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    timeout(PATIENCE, plain.read_to_end(&mut answer)).await.expect("an end").ok();
    assert!(!answer.starts_with(b"HTTP"));
}

#[tokio::test]
async fn an_address_has_as_many_sessions_as_it_may() {
    let shares = crate::session::Shares { address: Some(1), ..Default::default() };
    let registry = Arc::new(Registry::shared(shares));
    let address = Some("2001:db8::".parse::<IpAddr>().unwrap());
    let claims = crate::session::Claims::everything();
    let _first = registry.admit(&claims, address).unwrap();
    let problem = Problem::from(registry.admit(&claims, address).unwrap_err());
    assert_eq!(axum::response::IntoResponse::into_response(problem).status(), StatusCode::TOO_MANY_REQUESTS);
}

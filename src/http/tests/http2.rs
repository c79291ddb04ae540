//! HTTP/2 on the public listener: the same answers as over HTTP/1.1, and what a connection may take.

use axum::routing::get;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use super::super::http2::PREFACE;
use super::limits::{certify, secured};
use super::*;

/// A client that nobody here wrote, and the end of its connection.
async fn open(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> (SendRequest<Body>, JoinHandle<()>) {
    let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    builder.timer(TokioTimer::new()).initial_stream_window_size(65_535).initial_connection_window_size(1 << 20);
    let (client, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
    (client, tokio::spawn(async move { drop(connection.await) }))
}

/// The same to an address.
async fn connect(address: SocketAddr) -> (SendRequest<Body>, JoinHandle<()>) {
    open(TcpStream::connect(address).await.unwrap()).await
}

async fn send(client: &mut SendRequest<Body>, request: Request<Body>) -> Response {
    timeout(PATIENCE, client.send_request(request)).await.expect("an answer").unwrap().map(Body::new)
}

fn asking(path: &str) -> Request<Body> {
    Request::get(format!("http://localhost{path}")).body(Body::empty()).unwrap()
}

fn posting(path: &str, kind: &str, body: impl Into<Body>) -> Request<Body> {
    let request = Request::post(format!("http://localhost{path}")).header("content-type", kind);
    request.body(body.into()).unwrap()
}

/// A frame (RFC 9113 section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;

/// A request for `/` without a body, with what its headers say beside method, scheme and path.
fn request(stream: u32, others: &[(&str, &str)]) -> Vec<u8> {
    let mut block = vec![0x82, 0x86, 0x84];
    for (name, value) in others {
        // Literals without indexing (RFC 7541 section 6.2.2).
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).unwrap());
            block.extend(text.bytes());
        }
    }
    frame(1, 0x5, stream, &block)
}

fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())
}

/// A connection whose frames are made here, begun.
async fn raw(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&[&PREFACE[..], &frame(SETTINGS, 0, 0, &[])].concat()).await.unwrap();
    stream
}

/// The next frame: kind, flags, stream and payload; none at the end.
async fn next(stream: &mut TcpStream) -> Option<(u8, u8, u32, Vec<u8>)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.ok()?;
    let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
    stream.read_exact(&mut payload).await.ok()?;
    Some((head[3], head[4], u32::from_be_bytes(head[5..].try_into().unwrap()), payload))
}

/// A listener for other routes than the server's.
async fn serve(router: Router) -> (SocketAddr, watch::Sender<bool>, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = watch::channel(false);
    (address, stop, tokio::spawn(super::super::listen(listener, router, Door::default(), stopped)))
}

#[tokio::test]
async fn requests_are_answered_as_over_http1() {
    let stills = Bounds { picture_bytes: 1_000, ..Bounds::default() };
    let site = site(Settings { stills, ..Settings::default() }, None);
    let (mut client, _) = connect(site.listen().await).await;
    let found = send(&mut client, posting("/v1/detect", "image/png", "12345")).await;
    assert_eq!((found.status(), found.version()), (StatusCode::OK, axum::http::Version::HTTP_2));
    assert_eq!(body(found).await["bytes"], 5);
    // Larger than what may be on its way unread, so that it takes part in flow control to its end.
    let large = vec![0; 3 << 20];
    problem(send(&mut client, posting("/v1/detect", "image/png", large)).await, 413, ErrorCode::TooLarge).await;
    problem(send(&mut client, asking("/v1/nothing")).await, 404, ErrorCode::NotFound).await;
    problem(send(&mut client, asking("/v1/signal")).await, 426, ErrorCode::BadRequest).await;
    let connect = Request::connect("localhost:80").body(Body::empty()).unwrap();
    assert_eq!(send(&mut client, connect).await.status(), StatusCode::METHOD_NOT_ALLOWED);

    let request = posting("/v1/offer", "application/json", json!({"sdp": "v=0", "type": "offer"}).to_string());
    let id = body(send(&mut client, request).await).await["session_id"].as_str().unwrap().to_owned();
    let mut events =
        send(&mut client, asking(&format!("/v1/sessions/{id}/results"))).await.into_body().into_data_stream();
    let results = site.fake.results.lock().unwrap().clone().unwrap();
    results.send("{}".into()).unwrap();
    assert_eq!(timeout(PATIENCE, events.next()).await.unwrap().unwrap().unwrap(), "data: {}\n\n");
    // Beside it, on the same connection.
    assert_eq!(send(&mut client, asking("/v1/models")).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn bodies_larger_than_windows_come_whole_side_by_side() {
    let stills = Bounds { received_bytes: 64 << 20, ..Bounds::default() };
    let site = site(Settings { stills, ..Settings::default() }, None);
    let (client, _) = connect(site.listen().await).await;
    let sent = (0..6).map(|n| {
        let mut client = client.clone();
        async move {
            let size = (3 << 20) + n;
            let found = send(&mut client, posting("/v1/detect?annotate=png", "image/png", vec![7; size])).await;
            let back = axum::body::to_bytes(found.into_body(), usize::MAX).await.unwrap();
            assert_eq!(back, vec![7; size]);
        }
    });
    timeout(PATIENCE, futures_util::future::join_all(sent)).await.expect("all answers");
}

#[tokio::test]
async fn a_server_for_this_machine_goes_by_the_authority() {
    let site = site(Settings { loopback_only: true, ..Settings::default() }, None);
    let address = site.listen().await;
    let (mut client, _) = connect(address).await;
    assert_eq!(send(&mut client, asking("/v1/models")).await.status(), StatusCode::OK);
    let foreign = |host: Option<&'static str>| {
        let mut request = Request::get("http://evil.example/v1/models");
        if let Some(host) = host {
            request = request.header("host", host);
        }
        request.body(Body::empty()).unwrap()
    };
    problem(send(&mut client, foreign(None)).await, 421, ErrorCode::Forbidden).await;
    problem(send(&mut client, foreign(Some("localhost"))).await, 400, ErrorCode::BadRequest).await;
    let page = |origin: &'static str| {
        let mut request = posting("/v1/offer", "application/json", json!({"sdp": "v=0", "type": "offer"}).to_string());
        request.headers_mut().insert("origin", origin.parse().unwrap());
        request
    };
    assert_eq!(send(&mut client, page("http://localhost")).await.status(), StatusCode::OK);
    problem(send(&mut client, page("http://evil.example")).await, 403, ErrorCode::Forbidden).await;

    // HTTP/1.1 has two ways, too, of which the target counts.
    for (head, status) in [
        ("GET http://evil.example/v1/models HTTP/1.1\r\nHost: localhost", "421"),
        ("GET http://localhost/v1/models HTTP/1.1\r\nHost: localhost", "200"),
        ("GET /v1/models HTTP/1.1\r\nHost: localhost\r\nHost: evil.example", "400"),
        ("GET /v1/models HTTP/1.1\r\nHost: localhost@evil.example", "400"),
    ] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(format!("{head}\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("an end").unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{head}: {answer}");
    }
}

#[tokio::test]
async fn the_place_of_what_was_made_is_told_by_the_authority() {
    let site = plain();
    let (mut client, _) = connect(site.listen().await).await;
    let request =
        posting("/v1/whip", "application/sdp", "v=0\r\na=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuv\r\n");
    let made = send(&mut client, request).await;
    assert_eq!(made.status(), StatusCode::CREATED);
    assert!(made.headers()["location"].to_str().unwrap().starts_with("http://localhost/v1/sessions/"));
}

#[tokio::test]
async fn over_tls_a_client_chooses_and_sockets_still_open() {
    let folder = tempfile::tempdir().unwrap();
    let client = certify(folder.path());
    let tls = Arc::new(tls::watch(folder.path().join("cert"), folder.path().join("key")).unwrap());
    let site = site(Settings { is_secure: true, ..Settings::default() }, None);
    let address = site.listen_behind(Door { tls: Some(tls), ..Door::default() }).await;
    let offering = |protocols: &[&[u8]]| {
        let mut config = (**client.config()).clone();
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        TlsConnector::from(Arc::new(config))
    };
    let stream = secured(&offering(&[b"http/1.1", b"h2"]), address).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut held, _) = open(stream).await;
    let found = send(&mut held, Request::get("https://localhost/v1/models").body(Body::empty()).unwrap()).await;
    assert_eq!((found.status(), found.version()), (StatusCode::OK, axum::http::Version::HTTP_2));
    assert!(found.headers().contains_key("strict-transport-security"));
    // What browsers do for a socket, and what other clients do.
    for (offered, chosen) in [(&[&b"http/1.1"[..]][..], Some(&b"http/1.1"[..])), (&[], None)] {
        let stream = secured(&offering(offered), address).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), chosen);
        let mut request = format!("wss://{address}/v1/signal").into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", "saccade.v1".parse().unwrap());
        let (mut socket, _) = tokio_tungstenite::client_async(request, stream).await.unwrap();
        let welcome = timeout(PATIENCE, socket.next()).await.expect("a message").unwrap().unwrap();
        assert!(welcome.to_text().unwrap().contains("welcome"));
    }
}

#[tokio::test]
async fn sockets_over_http2_are_not_announced() {
    let site = plain();
    let mut client = raw(site.listen().await).await;
    let (kind, flags, _, settings) = timeout(PATIENCE, next(&mut client)).await.expect("a frame").unwrap();
    assert_eq!((kind, flags), (SETTINGS, 0));
    let named = |id: u16| settings.as_chunks::<6>().0.iter().find(|it| it[..2] == id.to_be_bytes()).map(|it| it[5]);
    assert_eq!(named(8), None, "SETTINGS_ENABLE_CONNECT_PROTOCOL (RFC 8441 section 3)");
    assert_eq!(named(3), Some(128), "SETTINGS_MAX_CONCURRENT_STREAMS");
}

#[tokio::test]
async fn requests_of_a_connection_count_for_its_address_and_one_too_many_is_told_and_closed() {
    let two = Some(Rate { per_second: 1, burst: 2 });
    let gate = |quota| Arc::new(Gate::new(Quota { loopback: true, ..quota }, Vec::new()));
    let requests = gate(Quota { requests: two, ..Quota::default() });
    let site = site(Settings { gate: requests, ..Settings::default() }, None);
    let (mut client, _) = connect(site.listen().await).await;
    for status in [200, 200, 429] {
        assert_eq!(send(&mut client, asking("/v1/models")).await.status(), status);
    }
    let site = plain();
    let door = Door { gate: Some(gate(Quota { connections: two, ..Quota::default() })), ..Door::default() };
    let address = site.listen_behind(door).await;
    let _held = [connect(address).await, connect(address).await];
    let (mut third, ended) = connect(address).await;
    problem(send(&mut third, asking("/v1/models")).await, 429, ErrorCode::RateLimited).await;
    timeout(PATIENCE, ended).await.expect("an end").unwrap();
}

/// Routes of which one never answers, and tells each request that came to it.
fn waiting() -> (Router, mpsc::Receiver<()>) {
    let (begun, seen) = mpsc::channel(1024);
    let wait = async move || {
        begun.send(()).await.unwrap();
        std::future::pending::<()>().await;
    };
    (Router::new().route("/", get(wait)).route("/now", get(async || "now")), seen)
}

#[tokio::test]
async fn requests_that_are_taken_back_at_once_end_their_connection_and_no_other() {
    let (router, _seen) = waiting();
    let (address, _stop, _) = serve(router).await;
    let (mut other, _) = connect(address).await;
    let mut flood = raw(address).await;
    let pairs = (0..5000).flat_map(|n| [request(2 * n + 1, &[(":authority", "localhost")]), reset(2 * n + 1)]);
    // It may be closed before all is sent.
    flood.write_all(&pairs.flatten().collect::<Vec<u8>>()).await.ok();
    let mut ended = false;
    while let Some((kind, ..)) = timeout(PATIENCE, next(&mut flood)).await.expect("an end") {
        ended |= kind == GOAWAY;
    }
    assert!(ended, "it is told");
    assert_eq!(send(&mut other, asking("/now")).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn requests_that_are_taken_back_one_by_one_end_their_connection_too() {
    let (router, mut seen) = waiting();
    let (address, _stop, _) = serve(router).await;
    let (mut other, _) = connect(address).await;
    let mut flood = raw(address).await;
    let mut taken_back = 0;
    'flood: loop {
        flood.write_all(&request(2 * taken_back + 1, &[(":authority", "localhost")])).await.unwrap();
        loop {
            tokio::select! {
                _ = seen.recv() => break,
                frame = timeout(PATIENCE, next(&mut flood)) => match frame.expect("a frame") {
                    Some((GOAWAY, ..)) | None => break 'flood,
                    Some(_) => {}
                },
            }
        }
        flood.write_all(&reset(2 * taken_back + 1)).await.unwrap();
        taken_back += 1;
        assert!(taken_back < 5000, "it goes on for ever");
    }
    assert!(taken_back >= 200, "{taken_back} are nobody's attack");
    assert_eq!(send(&mut other, asking("/now")).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn who_announces_headers_without_end_is_cut_off() {
    let (router, _seen) = waiting();
    let (address, _stop, _) = serve(router).await;
    let mut flood = raw(address).await;
    // HEADERS without END_HEADERS, and CONTINUATION after CONTINUATION (RFC 9113 section 6.10).
    flood.write_all(&frame(1, 0x1, 1, &[0x82, 0x86, 0x84])).await.unwrap();
    let more = frame(9, 0, 1, &[&[0, 1, b'x', 127, 0x81, 0x7e][..], &[b'y'; 16_000]].concat());
    let mut told = false;
    for _ in 0..100 {
        if flood.write_all(&more).await.is_err() {
            break;
        }
    }
    while let Some((kind, ..)) = timeout(PATIENCE, next(&mut flood)).await.expect("an end") {
        told |= kind == GOAWAY;
    }
    assert!(told);
}

#[tokio::test]
async fn a_stop_is_told_and_what_was_asked_is_answered() {
    let go = Arc::new(Notify::new());
    let (begun, mut seen) = mpsc::channel(1);
    let waits = Arc::clone(&go);
    let slow = async move || {
        begun.send(()).await.unwrap();
        waits.notified().await;
        "done"
    };
    let (address, stop, serving) = serve(Router::new().route("/", get(slow))).await;
    let mut client = raw(address).await;
    client.write_all(&request(1, &[(":authority", "localhost")])).await.unwrap();
    timeout(PATIENCE, seen.recv()).await.expect("a request").unwrap();
    stop.send_replace(true);
    let (mut answer, mut ended, mut released) = (Vec::new(), false, false);
    while let Some((kind, flags, stream, payload)) = timeout(PATIENCE, next(&mut client)).await.expect("an end") {
        match kind {
            0 if stream == 1 => answer.extend(payload),
            GOAWAY => ended = true,
            PING if flags == 0 => client.write_all(&frame(PING, 1, 0, &payload)).await.unwrap(),
            _ => {}
        }
        if ended && !released {
            assert!(answer.is_empty(), "told before the answer is out");
            go.notify_one();
            released = true;
        }
    }
    assert_eq!(answer, b"done");
    drop(client);
    timeout(PATIENCE, serving).await.expect("an end").unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_sends_a_preface_and_no_more_or_a_part_of_one_is_cut_off() {
    let (router, _seen) = waiting();
    let (address, _stop, _) = serve(router).await;
    for first in [&PREFACE[..7], &PREFACE[..], &[&PREFACE[..], &frame(SETTINGS, 0, 0, &[])].concat()] {
        let begin = clock::timers();
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(first).await.unwrap();
        let mut rest = Vec::new();
        // Time stands still until everybody waits, and then jumps to the next deadline.
        timeout(Duration::from_secs(3600), client.read_to_end(&mut rest)).await.expect("an end").ok();
        assert!(clock::timers() - begin < Duration::from_secs(20), "{first:?}");
    }
}

#[tokio::test]
async fn a_connection_that_asks_no_more_is_closed() {
    let (router, _seen) = waiting();
    let (address, _stop, _) = serve(router).await;
    let (mut client, ended) = connect(address).await;
    assert_eq!(send(&mut client, asking("/now")).await.status(), StatusCode::OK);
    // From here on, time stands still until everybody waits, and then jumps to the next deadline.
    tokio::time::pause();
    let begin = clock::timers();
    timeout(Duration::from_secs(3600), ended).await.expect("an end").unwrap();
    let lasted = clock::timers() - begin;
    assert!(lasted > Duration::from_secs(50) && lasted < Duration::from_secs(80), "{lasted:?}");
}

#[tokio::test]
async fn an_answer_that_nobody_takes_is_given_up_and_others_on_its_connection_are_not() {
    let (router, _seen) = waiting();
    let large = async || vec![0_u8; 8 << 20];
    let (address, _stop, _) = serve(router.route("/large", get(large))).await;
    let (mut client, _) = connect(address).await;
    let mut held = send(&mut client, asking("/large")).await.into_body().into_data_stream();
    // From here on, time stands still until everybody waits, and then jumps to the next deadline.
    tokio::time::pause();
    tokio::time::sleep(Duration::from_secs(59)).await;
    assert_eq!(send(&mut client, asking("/now")).await.status(), StatusCode::OK);
    let mut taken = 0;
    let broken = loop {
        match timeout(Duration::from_secs(3600), held.next()).await.expect("an end") {
            Some(Ok(part)) => taken += part.len(),
            Some(Err(_)) => break true,
            None => break false,
        }
    };
    assert!(broken && taken < 8 << 20, "{taken}");
}

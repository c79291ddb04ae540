//! Cameras of the configuration, pulled from a real RTSP server.

pub mod source;

use std::time::Duration;

use futures_util::StreamExt;
use reqwest::{Client, StatusCode};
use saccade::app::StartError;
use saccade::cli::Exit;
use saccade::media::Codec;
use saccade_signaling::{CameraView, ErrorCode, Problem, SessionResult, SessionView};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use self::source::{Source, free_port};
use crate::client::LIMIT;
use crate::program;
use crate::server::{self, Server};
use crate::whep::{sees, watch};

/// Bound by nothing but cameras' own times.
const SHORT: [(&str, &str); 1] = [("shutdown.grace_ms", "60000")];

/// A server with one camera, `entrance`, and what more is said of it.
async fn pulling(port: u16, more: Value) -> Server {
    let mut camera = json!({"name": "entrance", "url": format!("rtsp://127.0.0.1:{port}/stream"), "retry_min_ms": 100});
    camera.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Server::start(&[SHORT[0], ("cameras", &json!([camera]).to_string())]).await
}

/// What the server tells of its camera, once it is so.
async fn until(server: &Server, wanted: impl Fn(&CameraView) -> bool) -> CameraView {
    let mut look = tokio::time::interval(Duration::from_millis(20));
    let mut last = None;
    let looking = async {
        loop {
            look.tick().await;
            let view: CameraView = get(server, "/v1/cameras/entrance").await;
            if wanted(&view) {
                return view;
            }
            last = Some(view);
        }
    };
    timeout(LIMIT, looking).await.unwrap_or_else(|_| panic!("the camera is {last:?}"))
}

fn waits_for(code: &str) -> impl Fn(&CameraView) -> bool {
    move |view| view.reason.as_ref().is_some_and(|reason| reason.code == code)
}

async fn get<T: serde::de::DeserializeOwned>(server: &Server, path: &str) -> T {
    reqwest::get(server.url(path)).await.unwrap().json().await.unwrap()
}

/// The results of the camera's session, as its stream of events has them.
struct Results {
    results: mpsc::Receiver<SessionResult>,
    reading: JoinHandle<()>,
}

impl Results {
    async fn of(server: &Server) -> Self {
        let stream = reqwest::get(server.url("/v1/sessions/entrance/results")).await.unwrap();
        assert_eq!(stream.status(), StatusCode::OK);
        let mut chunks = stream.bytes_stream();
        let (found, results) = mpsc::channel(1024);
        let reading = tokio::spawn(async move {
            let mut text = String::new();
            while let Some(Ok(chunk)) = chunks.next().await {
                text.push_str(std::str::from_utf8(&chunk).unwrap());
                while let Some((event, rest)) = text.split_once("\n\n") {
                    if let Some(data) = event.strip_prefix("data:") {
                        // Who asked for them may have had enough.
                        if found.send(serde_json::from_str(data).unwrap()).await.is_err() {
                            return;
                        }
                    }
                    text = rest.to_owned();
                }
            }
        });
        Self { results, reading }
    }

    /// So many more.
    async fn next(&mut self, count: usize) -> Vec<SessionResult> {
        let mut results = Vec::new();
        let reading = async {
            while results.len() < count {
                results.push(self.results.recv().await.expect("an open stream"));
            }
        };
        timeout(LIMIT, reading).await.expect("results in time");
        results
    }

    /// Returns when the stream ends.
    async fn end(mut self) {
        while timeout(LIMIT, self.results.recv()).await.expect("an end in time").is_some() {}
        self.reading.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_is_a_session_with_results_viewers_and_a_stable_address() {
    let Some(source) = Source::start(json!({"transport": "tcp", "stream": "sdp"})).await else { return };
    let server = pulling(source.port, json!({"model": "scene-blobs", "options": {"score_threshold": 0.5}})).await;
    let live = until(&server, |view| view.state == "live").await;
    assert_eq!((live.name.as_str(), live.session_id.as_deref(), live.connects), ("entrance", Some("entrance"), 1));
    let mut results = Results::of(&server).await;
    let found = results.next(10).await;
    assert!(found.iter().all(|result| result.session_id == "entrance" && result.rtp_timestamp_out.is_none()));
    assert!(found.iter().all(|result| (result.width, result.height) == (640, 480) && !result.detections.is_empty()));
    assert!(found.iter().all(|result| result.detections.iter().all(|detection| detection.score >= 0.5)));

    let sessions: Vec<SessionView> = get(&server, "/v1/sessions").await;
    let [session] = sessions.as_slice() else { panic!("{sessions:?}") };
    assert_eq!((session.session_id.as_str(), session.camera.as_deref()), ("entrance", Some("entrance")));
    assert_eq!((session.state.as_str(), session.codec.as_deref()), ("connected", Some("H264")));
    assert_eq!((session.options.score_threshold, session.counters.keyframe_requests_out), (0.5, 0));

    // Nobody is sent video until somebody watches, who then sees it.
    let (mut peer, resource, _) = watch(&server, "entrance", Codec::H264).await;
    sees(&mut peer, Codec::H264, 5).await;
    assert_eq!(resource.delete().await, StatusCode::OK);
    peer.close().await;

    // A deleted session begins anew, and so does its stream; who was listening hears of the end.
    let path = server.url("/v1/sessions/entrance");
    let patched = Client::new().patch(&path).header("content-type", "application/trickle-ice-sdpfrag").body("a=x");
    let patched = patched.send().await.unwrap();
    assert_eq!(patched.status(), StatusCode::CONFLICT);
    assert_eq!(patched.json::<Problem>().await.unwrap().code, ErrorCode::Conflict);
    assert_eq!(Client::new().delete(&path).send().await.unwrap().status(), StatusCode::OK);
    results.end().await;
    until(&server, |view| view.state == "live" && view.connects == 2).await;
    Results::of(&server).await.next(3).await;

    let metrics = server::metrics().render();
    assert!(metrics.contains(r#"saccade_camera_connects_total{camera="entrance"}"#), "{metrics}");
    let missing = reqwest::get(server.url("/v1/cameras/exit")).await.unwrap();
    assert_eq!(missing.status(), StatusCode::NOT_FOUND);
    // A camera holds up no shutdown: the grace is a minute.
    timeout(LIMIT, server.app.shut_down()).await.expect("a shutdown in time");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_sends_over_udp_to_who_knows_its_password() {
    let Some(source) = Source::start(json!({"transport": "udp", "auth": "digest", "stream": "band"})).await else {
        return;
    };
    let password = source.file("password", b"s3cret\n");
    let credentials = json!({"transport": "udp", "username": "viewer", "password_file": password});
    let server = pulling(source.port, credentials).await;
    until(&server, |view| view.state == "live").await;
    let found = Results::of(&server).await.next(10).await;
    assert!(found.iter().all(|result| !result.detections.is_empty()));
    server.app.shut_down().await;

    // It does not send over TCP.
    let server = pulling(source.port, json!({"username": "viewer", "password_file": password})).await;
    let refused = until(&server, waits_for("transport_refused")).await;
    assert!(refused.reason.unwrap().message.contains("`transport`"));
    server.app.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_told_and_not_tried_again_and_again() {
    let Some(source) = Source::start(json!({"auth": "basic"})).await else { return };
    let wrong = source.file("wrong", b"hunter2");
    let server = pulling(source.port, json!({"username": "viewer", "password_file": wrong})).await;
    let refused = until(&server, waits_for("unauthorized")).await;
    assert_eq!((refused.state.as_str(), refused.failures, refused.connects), ("waiting", 1, 0));
    assert!(refused.retry_after_ms.unwrap() > 250_000, "{refused:?}");
    let session: SessionView = get(&server, "/v1/sessions/entrance").await;
    assert_eq!(session.state, "connecting");
    let watching = Client::new().post(server.url("/v1/whep/entrance")).header("content-type", "application/sdp");
    let watching = watching.body("v=0").send().await.unwrap();
    assert_eq!(watching.status(), StatusCode::CONFLICT);
    for path in ["/v1/cameras", "/v1/sessions"] {
        let text = reqwest::get(server.url(path)).await.unwrap().text().await.unwrap();
        assert!(!text.contains("hunter2") && !text.contains("127.0.0.1") && !text.contains("viewer\""), "{text}");
    }
    // Who has corrected it at the camera has it tried again at once.
    let path = server.url("/v1/sessions/entrance");
    assert_eq!(Client::new().delete(path).send().await.unwrap().status(), StatusCode::OK);
    until(&server, |view| waits_for("unauthorized")(view) && view.failures == 2).await;
    server.app.shut_down().await;

    let right = source.file("right", b"s3cret");
    let server = pulling(source.port, json!({"username": "viewer", "password_file": right})).await;
    until(&server, |view| view.state == "live").await;
    Results::of(&server).await.next(3).await;
    server.app.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_that_comes_late_and_restarts_keeps_its_session() {
    let Some(port) = free_port("cameras") else { return };
    let server = pulling(port, json!({"retry_max_ms": 400, "timeout_ms": 2000})).await;
    let away = until(&server, waits_for("unreachable")).await;
    assert!(away.retry_after_ms.unwrap() <= 400, "{away:?}");
    let source = Source::start(json!({"port": port})).await.unwrap();
    until(&server, |view| view.state == "live").await;
    let mut results = Results::of(&server).await;
    let before = results.next(5).await.pop().unwrap();

    drop(source);
    until(&server, |view| view.state == "waiting").await;
    let session: SessionView = get(&server, "/v1/sessions/entrance").await;
    assert_eq!(session.state, "connecting");
    // Once more, so that it was in vain at least once.
    until(&server, waits_for("unreachable")).await;
    let _source = Source::start(json!({"port": port})).await.unwrap();
    let back = until(&server, |view| view.state == "live").await;
    assert_eq!(back.connects, 2);
    // The same stream goes on, and time goes on in it by what has passed, whatever the camera's clock says.
    let resumed = async {
        loop {
            let after = results.next(1).await.remove(0);
            if after.rtp_timestamp_in.wrapping_sub(before.rtp_timestamp_in) >= 9_000 {
                return after;
            }
        }
    };
    let after = timeout(LIMIT, resumed).await.expect("a result of the camera that is back");
    assert!(after.frame_id > before.frame_id && !after.detections.is_empty());
    let passed = after.rtp_timestamp_in.wrapping_sub(before.rtp_timestamp_in);
    assert!(passed < 90_000 * 60, "{passed}");
    server.app.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_that_falls_silent_is_noticed_and_asked_again() {
    let Some(mut source) = Source::start(json!({})).await else { return };
    let server = pulling(source.port, json!({"timeout_ms": 1500, "retry_max_ms": 200})).await;
    until(&server, |view| view.state == "live").await;
    let mut results = Results::of(&server).await;
    results.next(3).await;
    source.order("pause");
    until(&server, waits_for("stalled")).await;
    source.order("resume");
    let back = until(&server, |view| view.state == "live" && view.failures > 0).await;
    assert!(back.connects > 1);
    while results.results.try_recv().is_ok() {}
    results.next(5).await;
    server.app.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_taken_says_what_to_do() {
    let Some(source) = Source::start(json!({"stream": "jpeg"})).await else { return };
    let server = pulling(source.port, json!({})).await;
    let refused = until(&server, waits_for("no_common_codec")).await;
    let message = refused.reason.unwrap().message;
    assert!(message.contains("Motion JPEG") && message.contains("set it to H.264"), "{message}");
    server.app.shut_down().await;

    let server = pulling(source.port, json!({"url": format!("rtsp://127.0.0.1:{}/none", source.port)})).await;
    assert!(until(&server, waits_for("not_found")).await.reason.unwrap().message.contains("path"));
    server.app.shut_down().await;
}

/// What something else than a camera does with a connection.
#[derive(Clone, Copy)]
enum Stranger {
    Hangs,
    Closes,
    Talks,
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_camera_is_told_by_what_it_does() {
    for (stranger, code) in
        [(Stranger::Hangs, "timed_out"), (Stranger::Closes, "ended"), (Stranger::Talks, "malformed")]
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let accepting = tokio::spawn(async move {
            let mut held = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                match stranger {
                    Stranger::Hangs => held.push(stream),
                    Stranger::Closes => drop(stream),
                    Stranger::Talks => {
                        stream.write_all(b"220 mail.example ESMTP\r\n\r\n").await.unwrap();
                        held.push(stream);
                    }
                }
            }
        });
        let server = pulling(port, json!({"timeout_ms": 1000})).await;
        let told = until(&server, waits_for(code)).await;
        assert_eq!((told.state.as_str(), told.connects), ("waiting", 0));
        server.app.shut_down().await;
        accepting.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_come_and_go_leave_nothing_behind() {
    let Some(source) = Source::start(json!({})).await else { return };
    let server = pulling(source.port, json!({})).await;
    let held = || {
        let files = std::fs::read_dir("/proc/self/fd").unwrap().count();
        (files, tokio::runtime::Handle::current().metrics().num_alive_tasks(), server.app.lanes())
    };
    let client = Client::builder().pool_max_idle_per_host(0).build().unwrap();
    let mut before = None;
    until(&server, |view| view.state == "live").await;
    for round in 1..=10 {
        let path = server.url("/v1/sessions/entrance");
        assert_eq!(client.delete(path).send().await.unwrap().status(), StatusCode::OK);
        until(&server, |view| view.state == "live" && view.connects > round).await;
        if round == 2 {
            before = Some(held());
        }
    }
    let (files, tasks, lanes) = before.unwrap();
    let mut look = tokio::time::interval(Duration::from_millis(50));
    let settling = async {
        loop {
            look.tick().await;
            let now = held();
            if now.0 <= files && now.1 <= tasks && now.2 <= lanes {
                return;
            }
        }
    };
    timeout(LIMIT, settling).await.unwrap_or_else(|_| panic!("before {before:?}, now {:?}", held()));
    server.app.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_places_of_cameras_are_taken_and_never_refused() {
    // Nothing listens there, and that changes nothing.
    let cameras = json!([{"name": "a", "url": "rtsp://127.0.0.1:1/"}, {"name": "b", "url": "rtsp://127.0.0.1:1/"}]);
    let server = Server::start(&[("admission.max_sessions", "1"), ("cameras", &cameras.to_string())]).await;
    let mut look = tokio::time::interval(Duration::from_millis(20));
    let registered = async {
        while server.app.registry().len() < 2 {
            look.tick().await;
        }
    };
    timeout(LIMIT, registered).await.expect("both have their place in time");
    let offer = Client::new().post(server.url("/v1/whip")).header("content-type", "application/sdp").body("v=0");
    let refused = offer.send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.json::<Problem>().await.unwrap().code, ErrorCode::Capacity);
    server.app.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_model_does_not_know_ends_the_start() {
    let cameras = json!([
        {"name": "a", "url": "rtsp://127.0.0.1:1/", "model": "nothing"},
        {"name": "b", "url": "rtsp://127.0.0.1:1/", "options": {"classes": ["unicorn"]}},
    ]);
    let error = server::start(&server::config(&[("cameras", &cameras.to_string())])).await.err().unwrap();
    assert!(matches!(error, StartError::Cameras { .. }) && error.exit() == Exit::Configuration);
    let shown = error.to_string();
    assert!(shown.contains("cameras: a: `model`: there is no `nothing`"), "{shown}");
    assert!(shown.contains("cameras: b: `classes`: `scene-blobs` has no `unicorn`"), "{shown}");
}

#[test]
fn the_check_lists_every_mistake_and_no_secret() {
    let cameras = r#"[{"name": "a", "url": "rtsp://u:hunter2@c/", "options": {"budget_ms": 1}}, {"name": "a"}]"#;
    let mut program = program::saccade("serve");
    let (code, _, shown) = program::run(program.arg("--check").env("SACCADE_CAMERAS", cameras));
    assert_eq!(code, 64);
    for part in [
        "cameras = (hidden) (from SACCADE_CAMERAS): number 1: url must hold no user name and no password",
        "number 1: options: `budget_ms`: 1 is not in 10..5000",
        "number 2: name must be unlike that of every other camera",
        "number 2: url must be such as",
    ] {
        assert!(shown.contains(part), "{part:?} is not in:\n{shown}");
    }
    assert!(!shown.contains("hunter2"), "{shown}");
}

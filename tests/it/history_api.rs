//! History of live sessions over HTTP, the status that people watch, and a store that fails meanwhile.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use reqwest::StatusCode;
use saccade::session::Rate;
use saccade_signaling::{
    Anchor, ClientMessage, Event, OptionsPatch, ReturnMode, Rule, SessionResult, Zone, close_code,
};
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};
use tempfile::TempDir;
use tokio::time::{Instant, interval, timeout};
use tokio_tungstenite::tungstenite::Message;

use saccade::media::Codec;

use crate::client::{LIMIT, connect};
use crate::live::{exchange, finish};
use crate::publisher::{Publisher, Viewer};
use crate::server::Server;

const SECRET: &str = "a secret of more than thirty-two bytes";

async fn server(folder: &TempDir, settings: &[(&str, &str)]) -> Server {
    let url = format!("sqlite://{}", folder.path().join("history.db").display());
    let mut all = vec![("store.url", url.as_str())];
    all.extend(settings);
    Server::start(&all).await
}

/// Watches the whole picture, and is alarmed by heads.
fn watching() -> OptionsPatch {
    let whole = vec![[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]];
    let zone = Zone { name: "=work".to_owned(), polygon: whole, anchor: Anchor::Center, dwell_s: None };
    let rule = Rule {
        name: "bare head".to_owned(),
        zone: "=work".to_owned(),
        classes: Some(vec!["head".to_owned()]),
        longer_than_s: 0.2,
        more_than: None,
    };
    OptionsPatch {
        zones: Some(vec![zone]),
        rules: Some(vec![rule]),
        return_mode: Some(ReturnMode::Results),
        ..OptionsPatch::default()
    }
}

async fn get(server: &Server, path: &str) -> Value {
    let answer = reqwest::get(server.url(path)).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK, "{path}");
    answer.json().await.unwrap()
}

/// Asks until the answer is the right one.
async fn eventually(server: &Server, path: &str, right: impl Fn(&Value) -> bool) -> Value {
    let until = Instant::now() + LIMIT * 2;
    let mut timer = interval(Duration::from_millis(100));
    loop {
        timer.tick().await;
        let answer = reqwest::get(server.url(path)).await.unwrap();
        let json = answer.json().await.unwrap();
        if right(&json) {
            return json;
        }
        assert!(Instant::now() < until, "{path} did not become right: {json}");
    }
}

fn events_of(page: &Value) -> Vec<Value> {
    page["events"]
        .as_array()
        .map(|events| events.iter().map(|event| event["event"].clone()).collect())
        .unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_session_told_is_kept_while_its_store_fails() {
    let folder = tempfile::tempdir().unwrap();
    let server = server(&folder, &[]).await;
    let (mut socket, mut peer, id, _) = connect(server.http, Codec::Vp8, watching()).await;
    let (mut publisher, mut viewer) = (Publisher::new(Codec::Vp8), Viewer::new(Codec::Vp8));
    let alerts = |count| {
        move |events: &[Event]| events.iter().filter(|it| matches!(it, Event::AlertStarted { .. })).count() >= count
    };
    let is_first = alerts(1);
    let mut told = exchange(&mut peer, &mut publisher, &mut viewer, |returned| is_first(&returned.events)).await;
    eventually(&server, "/v1/events?type=alert_started", |page| !events_of(page).is_empty()).await;

    // Another program keeps the file to itself: results and events go on as before.
    let file = folder.path().join("history.db");
    let mut other = SqliteConnectOptions::new().filename(&file).connect().await.unwrap();
    sqlx::query("BEGIN EXCLUSIVE").execute(&mut other).await.unwrap();
    peer.order(r#"{"type":"configure","options":{"zones":[],"rules":[]}}"#).await;
    let meanwhile = exchange(&mut peer, &mut publisher, &mut viewer, |returned| {
        returned.results.len() >= 90 && returned.events.iter().any(|event| matches!(event, Event::AlertEnded { .. }))
    })
    .await;
    let met = meanwhile.results.iter().filter(|result| result.met).count();
    assert!(met * 10 >= meanwhile.results.len() * 9, "{met} of {} met their budget", meanwhile.results.len());
    sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
    other.close().await.unwrap();
    told.events.extend(meanwhile.events);

    let path = format!("/v1/events?session={id}&order=asc&limit=1000");
    let expected: Vec<Value> = told.events.iter().map(|event| serde_json::to_value(event).unwrap()).collect();
    let page = eventually(&server, &path, |page| events_of(page).len() >= expected.len()).await;
    assert_eq!(events_of(&page)[..expected.len()], expected, "every event once, in its order");
    assert_eq!(page["next_cursor"], Value::Null);

    // A page at a time gives the same.
    let (mut paged, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = get(&server, &format!("/v1/events?session={id}&order=asc&limit=2{cursor}")).await;
        paged.extend(events_of(&page));
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(paged, events_of(&page));

    let csv = reqwest::get(server.url(&format!("{path}&format=csv"))).await.unwrap();
    assert_eq!(csv.headers()["content-type"], "text/csv; charset=utf-8; header=present");
    let csv = csv.text().await.unwrap();
    assert_eq!(csv.lines().count(), paged.len() + 1);
    assert!(csv.contains(",\"'=work\","), "{csv}");
    let parquet = reqwest::Client::new().get(server.url(&path)).header("accept", "application/vnd.apache.parquet");
    let parquet = parquet.send().await.unwrap().bytes().await.unwrap();
    assert!(parquet.starts_with(b"PAR1") && parquet.ends_with(b"PAR1"));

    // What is left of the minute comes with the end of the session.
    socket.send(&ClientMessage::Bye).await;
    assert_eq!(socket.close_code().await, close_code::BYE);
    peer.close().await;
    let results = told.results.len() + meanwhile.results.len();
    let stats = eventually(&server, &format!("/v1/stats?session={id}&step=1h"), |stats| {
        let sum: u64 = stats["points"].as_array().unwrap().iter().map(|point| point["results"].as_u64().unwrap()).sum();
        usize::try_from(sum).unwrap() >= results
    })
    .await;
    let point = &stats["points"][0];
    assert!(point["detections"]["head"].as_u64().unwrap() > 0 && point["alerts"].as_u64().unwrap() > 0, "{point}");
    assert!(point["zones"]["=work"]["entered"].as_u64().unwrap() > 0, "{point}");
    assert!(point["latency_ms"]["p95"].as_f64().unwrap() >= point["latency_ms"]["p50"].as_f64().unwrap());
    server.app.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_model_of_a_session_has_minutes_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let server = server(&folder, &[]).await;
    let options = OptionsPatch { return_mode: Some(ReturnMode::Results), ..OptionsPatch::default() };
    let (mut socket, mut peer, id, _) = connect(server.http, Codec::Vp8, options).await;
    let (mut publisher, mut viewer) = (Publisher::new(Codec::Vp8), Viewer::new(Codec::Vp8));
    let mut told = exchange(&mut peer, &mut publisher, &mut viewer, |returned| returned.results.len() >= 10).await;
    peer.order(r#"{"type":"configure","options":{"model":"ppe-nano"}}"#).await;
    let of_other = |result: &SessionResult| result.model.starts_with("ppe-nano@");
    let other = exchange(&mut peer, &mut publisher, &mut viewer, |returned| {
        returned.results.iter().filter(|result| of_other(result)).count() >= 5
    });
    told.results.extend(other.await.results);
    socket.send(&ClientMessage::Bye).await;
    assert_eq!(socket.close_code().await, close_code::BYE);
    peer.close().await;
    let mut expected = std::collections::BTreeMap::<_, u64>::new();
    for result in &told.results {
        *expected.entry(result.model.clone()).or_default() += 1;
    }
    assert_eq!(expected.len(), 2, "{expected:?}");
    let path = format!("/v1/stats?session={id}&step=1h&group=model");
    // The minutes of an hour's end may be two points.
    let results_of = |stats: &Value, model: &str| -> u64 {
        let points = stats["points"].as_array().unwrap().iter();
        points.filter(|point| point["group"] == model).map(|point| point["results"].as_u64().unwrap()).sum()
    };
    let stats = eventually(&server, &path, |stats| {
        stats["points"].is_array() && expected.iter().all(|(model, results)| results_of(stats, model) >= *results)
    })
    .await;
    let groups: std::collections::BTreeSet<_> =
        stats["points"].as_array().unwrap().iter().map(|point| point["group"].as_str().unwrap()).collect();
    assert_eq!(groups, expected.keys().map(String::as_str).collect());
    for model in expected.keys() {
        let of_one = get(&server, &format!("{path}&model={model}")).await;
        assert_eq!(results_of(&of_one, model), results_of(&stats, model));
        assert!(of_one["points"].as_array().unwrap().iter().all(|point| point["group"] == model.as_str()));
    }
    server.app.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_is_told_what_would_be_right() {
    let folder = tempfile::tempdir().unwrap();
    let server = server(&folder, &[]).await;
    eventually(&server, "/v1/events", |page| page["events"].is_array()).await;
    for (path, words) in [
        ("/v1/events?from=yesterday", "`from` is a moment such as"),
        ("/v1/events?from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z", "`from` is to be before `to`"),
        ("/v1/events?limit=0", "`limit` is a whole number from 1 to 1000"),
        ("/v1/events?limit=1001", "`limit` is a whole number from 1 to 1000"),
        ("/v1/events?order=up", "`order` is asc or desc"),
        ("/v1/events?cursor=nonsense", "`cursor` is not one of this list"),
        ("/v1/events?colour=red", "There is no parameter `colour` here"),
        ("/v1/events?zone=a&zone=b", "`zone` is given twice"),
        ("/v1/events?format=xml", "`format` is json, csv or parquet"),
        ("/v1/stats?step=90s", "`step` is a multiple of a minute"),
        ("/v1/stats?step=0m", "`step` is a multiple of a minute"),
        ("/v1/stats?group=zone", "`group` is none, session, camera or model"),
        ("/v1/stats?from=0&step=1m", "choose a longer step"),
    ] {
        let answer = reqwest::get(server.url(path)).await.unwrap();
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{path}");
        let problem: Value = answer.json().await.unwrap();
        assert_eq!(problem["code"], "bad_request");
        assert!(problem["detail"].as_str().unwrap().contains(words), "{path}: {problem}");
    }
    let picture =
        reqwest::Client::new().get(server.url("/v1/events")).header("accept", "image/png").send().await.unwrap();
    assert_eq!(picture.status(), StatusCode::NOT_ACCEPTABLE);
    server.app.shut_down().await;

    let without = Server::start(&[]).await;
    for path in ["/v1/events", "/v1/stats"] {
        let answer = reqwest::get(without.url(path)).await.unwrap();
        assert_eq!(answer.status(), StatusCode::NOT_FOUND);
        assert!(answer.text().await.unwrap().contains("set store.url"));
    }
    without.app.shut_down().await;
}

/// A token with these claims that ends in so many seconds.
fn token(claims: &Value, seconds: u64) -> String {
    let now = saccade::clock::wall().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let mut claims = claims.clone();
    claims["exp"] = json!(now + seconds);
    let key = jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes());
    jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn history_and_status_are_for_those_who_may_view() {
    let folder = tempfile::tempdir().unwrap();
    let server = server(&folder, &[("auth.secret", SECRET), ("auth.leeway_s", "0")]).await;
    let client = reqwest::Client::new();
    let asks = async |path: &str, token: &str| {
        client.get(server.url(path)).bearer_auth(token).send().await.unwrap().status().as_u16()
    };
    let (viewer, other) = (token(&json!({"can_view": true}), 60), token(&json!({"can_publish": true}), 60));
    let bound = token(&json!({"can_view": true, "session": "gate"}), 60);
    let until = Instant::now() + LIMIT;
    while asks("/v1/events", &viewer).await == 503 {
        assert!(Instant::now() < until, "the store opens");
    }
    for path in ["/v1/events", "/v1/stats"] {
        assert_eq!(reqwest::get(server.url(path)).await.unwrap().status().as_u16(), 401);
        assert_eq!(asks(path, &other).await, 403);
        assert_eq!(asks(path, &viewer).await, 200);
        assert_eq!(asks(path, &bound).await, 200);
        assert_eq!(asks(&format!("{path}?session=gate"), &bound).await, 200);
        assert_eq!(asks(&format!("{path}?session=yard"), &bound).await, 404);
    }

    let url = format!("ws://{}/v1/status", server.http);
    for (token, code) in [(&other, 4403), (&"nonsense".to_owned(), 4401)] {
        let (mut socket, _) = tokio_tungstenite::connect_async(&url).await.unwrap();
        let auth = json!({"type": "auth", "token": token}).to_string();
        socket.send(Message::text(auth)).await.unwrap();
        let Some(Ok(Message::Close(Some(close)))) = socket.next().await else { panic!("no close") };
        assert_eq!(u16::from(close.code), code);
    }
    // It tells each second, and ends with its token.
    let (mut socket, _) = tokio_tungstenite::connect_async(&url).await.unwrap();
    let brief = token(&json!({"can_view": true}), 3);
    socket.send(Message::text(json!({"type": "auth", "token": brief}).to_string())).await.unwrap();
    let mut told = 0;
    let close = timeout(LIMIT, async {
        loop {
            match socket.next().await {
                Some(Ok(Message::Text(text))) => {
                    let status: Value = serde_json::from_str(&text).unwrap();
                    assert_eq!((&status["type"], &status["sessions"]), (&json!("status"), &json!([])));
                    told += 1;
                }
                Some(Ok(Message::Close(Some(close)))) => return u16::from(close.code),
                other => panic!("{other:?}"),
            }
        }
    });
    assert_eq!(close.await.unwrap(), 4401);
    assert!((1..=4).contains(&told), "{told}");
    server.app.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_shows_what_runs() {
    let server = Server::start(&[]).await;
    let (mut socket, _) = tokio_tungstenite::connect_async(format!("ws://{}/v1/status", server.http)).await.unwrap();
    let (signaling, mut peer, id, _) = connect(server.http, Codec::Vp8, watching()).await;
    let (mut publisher, mut viewer) = (Publisher::new(Codec::Vp8), Viewer::new(Codec::Vp8));
    let watching = async {
        loop {
            let Some(Ok(Message::Text(text))) = socket.next().await else { panic!("the socket ended") };
            let status: Value = serde_json::from_str(&text).unwrap();
            let session = &status["sessions"][0];
            if session["results_per_s"].as_f64().is_some_and(|rate| rate > 5.0) && session["latency_ms"]["p95"].is_f64()
            {
                return status;
            }
        }
    };
    let (done, mut is_done) = tokio::sync::oneshot::channel();
    let (status, _) = tokio::join!(
        async {
            let status = timeout(LIMIT * 2, watching).await.unwrap();
            done.send(()).unwrap();
            status
        },
        exchange(&mut peer, &mut publisher, &mut viewer, |_| is_done.try_recv().is_ok()),
    );
    let session = &status["sessions"][0];
    assert_eq!((&session["session_id"], &session["state"]), (&json!(id), &json!("connected")));
    assert_eq!((&session["model"], &session["resolution"]), (&json!("scene-blobs@1"), &json!([640, 480])));
    let model = status["models"].as_array().unwrap().iter().find(|model| model["model"] == "scene-blobs@1").unwrap();
    assert!(model["sessions"] == 1 && model["results_per_s"].as_f64().unwrap() > 5.0, "{model}");
    assert!(status["cpu"].as_f64().unwrap() > 0.0 && status["queues"].is_object());
    // Whoever says too much is sent away.
    let many = Rate::default().burst + 50;
    for _ in 0..many {
        if socket.send(Message::text(r#"{"type":"auth","token":"x"}"#)).await.is_err() {
            break;
        }
    }
    let code = timeout(LIMIT, async {
        loop {
            match socket.next().await {
                Some(Ok(Message::Close(Some(close)))) => return u16::from(close.code),
                Some(Ok(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    });
    assert_eq!(code.await.unwrap(), 4429);
    finish(signaling, peer, server).await;
}

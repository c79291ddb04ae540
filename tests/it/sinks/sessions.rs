//! What sessions and cameras tell reaches sinks, and nothing of them waits for one.

use std::time::Duration;

use saccade::media::Codec;
use saccade_signaling::{
    Anchor, CameraView, ClientMessage, Event, OptionsPatch, ReturnMode, SessionView, SinkMessage, SinkView, Zone,
    close_code,
};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::broker::{self, Broker, Subscriber};
use super::receiver::Receiver;
use crate::cameras::source::Source;
use crate::client::{LIMIT, connect};
use crate::live::exchange;
use crate::publisher::{Publisher, Viewer};
use crate::server::{self, Server};

async fn get<T: serde::de::DeserializeOwned>(server: &Server, path: &str) -> T {
    reqwest::get(server.url(path)).await.unwrap().json().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_told_from_its_beginning_to_its_end_and_dead_sinks_slow_nothing() {
    let mut receiver = Receiver::start([(503, Some("0"))]).await;
    // It takes connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dead = format!("http://{}/secret-path", silent.local_addr().unwrap());
    let nowhere = { TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap() };
    let sinks = json!([
        {"name": "hooks", "type": "webhook", "url": receiver.url, "retry_min_ms": 10},
        {"name": "rates", "type": "webhook", "url": receiver.url, "send": ["results"], "min_interval_ms": 300},
        {"name": "dead", "type": "webhook", "url": dead, "send": ["events", "results"], "min_interval_ms": 0, "queue": 5},
        {"name": "gone", "type": "mqtt", "url": format!("mqtt://{nowhere}"), "send": ["results"], "min_interval_ms": 0, "queue": 5},
    ]);
    let server = Server::start(&[("sinks", &sinks.to_string())]).await;
    let polygon = vec![[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]];
    let zone = Zone { name: "everywhere".into(), polygon, anchor: Anchor::Center, dwell_s: None };
    let mode = Some(ReturnMode::Results);
    let options = OptionsPatch { return_mode: mode, zones: Some(vec![zone]), ..OptionsPatch::default() };
    let (mut socket, mut peer, id, _) = connect(server.http, Codec::H264, options).await;
    let (mut publisher, mut viewer) = (Publisher::new(Codec::H264), Viewer::new(Codec::H264));
    let entered = |event: &Event| matches!(event, Event::ZoneEntered { .. });
    let mut returned = exchange(&mut peer, &mut publisher, &mut viewer, |returned| {
        returned.results.len() >= 60 && returned.events.iter().any(entered)
    })
    .await;

    // Nothing that was found is missing at the peer from when it had its channel on.
    let first = returned.results[0].frame_id;
    let session: SessionView = get(&server, &format!("/v1/sessions/{id}")).await;
    let all = async {
        while returned.results.len() as u64 + first < session.counters.results {
            returned.results.push(peer.results.recv().await.unwrap());
        }
    };
    timeout(LIMIT, all).await.expect("all results in time");

    let views: Vec<SinkView> = get(&server, "/v1/sinks").await;
    let [_, _, dead, gone] = views.as_slice() else { panic!("{views:?}") };
    for view in [dead, gone] {
        assert!(view.queued <= 5 && view.lost >= 40 && view.delivered == 0, "{view:?}");
    }
    assert_eq!(gone.last_failure.as_ref().unwrap().code, "unreachable");
    let shown = reqwest::get(server.url("/v1/sinks")).await.unwrap().text().await.unwrap();
    assert!(!shown.contains("127.0.0.1") && !shown.contains("secret-path"), "{shown}");

    socket.send(&ClientMessage::Bye).await;
    assert_eq!(socket.close_code().await, close_code::BYE);
    peer.close().await;
    let (mut events, mut results) = (Vec::new(), Vec::new());
    while events.last().is_none_or(|last: &Value| last["type"] != "session_ended") {
        let message = receiver.next().await.json();
        if message["type"] == "result" { results.push(message) } else { events.push(message) }
    }
    // The first was tried twice.
    events.dedup();
    let kinds: Vec<_> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    assert_eq!((kinds[0], kinds.iter().filter(|kind| **kind == "session_ended").count()), ("session_started", 1));
    for message in events.iter().chain(&results) {
        let read: SinkMessage = serde_json::from_value(message.clone()).unwrap();
        assert_eq!((read.session_id.as_str(), read.camera, read.version), (id.as_str(), None, 1));
        assert_eq!(message["type"], message["data"]["type"]);
    }
    let told: Vec<_> =
        events.iter().filter(|event| event["type"] == "zone_entered").map(|event| &event["data"]).collect();
    let seen = returned.events.iter().filter(|event| entered(event)).map(|event| serde_json::to_value(event).unwrap());
    let seen: Vec<_> = seen.collect();
    assert_eq!(told[..seen.len()].to_vec(), seen.iter().collect::<Vec<_>>(), "the same as on the data channel");
    assert_eq!(events.last().unwrap()["data"]["reason"], "bye");
    // Two seconds of thirty results each.
    assert!((2..=20).contains(&results.len()), "{} results", results.len());
    for result in results.iter().filter(|result| result["data"]["frame_id"].as_u64().unwrap() >= first) {
        let mut same = returned.results.iter().filter(|one| json!(one.frame_id) == result["data"]["frame_id"]);
        assert_eq!(
            serde_json::to_value(same.next().unwrap()).unwrap()["rtp_timestamp_in"],
            result["data"]["rtp_timestamp_in"]
        );
    }
    timeout(LIMIT, server.app.shut_down()).await.expect("a shutdown in time");
    let metrics = server::metrics().render();
    for line in [
        r#"saccade_sink_messages_total{sink="dead",outcome="full"}"#,
        r#"saccade_sink_messages_total{sink="hooks",outcome="delivered"}"#,
        r#"saccade_sink_failures_total{sink="gone",reason="unreachable"}"#,
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_is_in_home_assistant_with_what_it_counts() {
    let Some(broker) = Broker::start(broker::Kind::Mosquitto, "").await else { return };
    let Some(source) = Source::start(json!({"transport": "tcp", "stream": "sdp"})).await else { return };
    let zone = json!({"name": "All of it", "polygon": [[0, 0], [1, 0], [1, 1], [0, 1]]});
    let rule = json!({"name": "anybody", "zone": "All of it", "longer_than_s": 0.1, "more_than": 0});
    let cameras = json!([{
        "name": "entrance", "url": format!("rtsp://127.0.0.1:{}/stream", source.port), "retry_min_ms": 100,
        "options": {"zones": [zone], "rules": [rule]},
    }]);
    let mut receiver = Receiver::start([]).await;
    let sinks = json!([
        {"name": "house", "type": "mqtt", "url": format!("mqtt://127.0.0.1:{}", broker.port), "home_assistant": true},
        {"name": "hooks", "type": "webhook", "url": receiver.url, "events": ["camera_changed", "alert_started"]},
    ]);
    let Some(mut live) = Subscriber::new(&broker, &["#"]) else { return };
    let settings = [("cameras", &*cameras.to_string()), ("sinks", &*sinks.to_string())];
    let server = Server::start(&settings).await;
    let mut kept = std::collections::BTreeMap::new();
    let base = "saccade/cameras/entrance";
    let discovered = |kept: &std::collections::BTreeMap<String, String>| -> Option<String> {
        let (_, config) = kept.iter().find(|(topic, _)| topic.starts_with("homeassistant/sensor/"))?;
        let entity: Value = serde_json::from_str(config).unwrap();
        assert_eq!(entity["name"], "All of it occupancy");
        kept.get(entity["state_topic"].as_str().unwrap()).cloned()
    };
    // Somebody is seen, and that is what the rule is against.
    while discovered(&kept).is_none_or(|count| count == "0")
        || kept.get(&format!("{base}/alert")).is_none_or(|alert| alert != "ON")
        || kept.get(&format!("{base}/connectivity")).is_none_or(|state| state != "ON")
    {
        let (_, topic, payload) = live.next().await;
        kept.insert(topic, payload);
    }
    let state: Value = serde_json::from_str(&live.until(&format!("{base}/state"), |_| true).await).unwrap();
    assert_eq!(state["last_alert"]["rule"], "anybody");
    let changed = receiver.until("camera_changed").await;
    assert_eq!((&changed["camera"], &changed["data"]["state"]), (&json!("entrance"), &json!("live")));
    let alert = receiver.until("alert_started").await;
    assert_eq!((&alert["session_id"], &alert["data"]["rule"]), (&json!("entrance"), &json!("anybody")));

    drop(source);
    live.until(&format!("{base}/connectivity"), |payload| payload == "OFF").await;
    let changed = receiver.until("camera_changed").await;
    assert_eq!(changed["data"]["state"], "waiting");
    let view: CameraView = get(&server, "/v1/cameras/entrance").await;
    assert!(view.reason.is_some() || view.state == "connecting", "{view:?}");
    timeout(LIMIT + Duration::from_secs(5), server.app.shut_down()).await.expect("a shutdown in time");
    live.until("saccade/status", |payload| payload == "offline").await;
}

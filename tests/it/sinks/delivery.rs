//! What sinks do with messages: real receivers and brokers, and no video.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use saccade::clock;
use saccade::secret::Secret;
use saccade::sinks::{
    Change, Config, DeadLetters, Filter, Key, Kind, Message, Mqtt, Nats, NatsLogin, Retry, Running, Sinks, Source,
    State, Status, Target, Way, Webhook,
};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::broker::{self, Broker, Subscriber};
use super::receiver::{Answer, Receiver};
use crate::client::LIMIT;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn retry() -> Retry {
    Retry { shortest: Duration::from_millis(10), longest: Duration::from_millis(50), max_attempts: 20 }
}

pub fn target() -> Target {
    let filter = Filter { results: true, min_interval: Duration::ZERO, ..Filter::default() };
    Target { name: "sink".into(), filter, queue: 100, max_age: Duration::from_secs(600), dead_letters: None }
}

pub fn webhook(url: &str) -> Webhook {
    Webhook {
        url: Secret::new(url.to_owned()),
        key: Key::parse(SECRET),
        token: None,
        login: None,
        batch: 1,
        timeout: Duration::from_secs(10),
        retry: retry(),
    }
}

pub fn mqtt(broker: &Broker) -> Mqtt {
    Mqtt {
        url: format!("mqtt://{}", broker.address()).parse().unwrap(),
        login: None,
        client_id: "saccade-test".to_owned(),
        prefix: "site/saccade".to_owned(),
        qos: 1,
        home_assistant: Some("homeassistant".to_owned()),
        timeout: Duration::from_secs(5),
        retry: retry(),
    }
}

pub fn nats(broker: &Broker) -> Nats {
    Nats {
        url: Secret::new(format!("nats://{}", broker.address())),
        login: NatsLogin::None,
        prefix: "site".to_owned(),
        jetstream: false,
        timeout: Duration::from_secs(5),
        retry: retry(),
    }
}

fn start(target: Target, way: Way) -> (Arc<Sinks>, Running) {
    Sinks::start(vec![Config { target, ca_file: None, way }]).unwrap()
}

fn camera() -> Arc<Source> {
    Arc::new(Source { name: "yard".into(), is_camera: true })
}

fn message(number: usize, kind: Kind) -> Message {
    let name = if kind == Kind::Event { "zone_entered" } else { "result" };
    let body = json!({"id": format!("msg_{number}"), "type": name, "data": {"number": number}}).to_string();
    Message {
        id: format!("msg_{number}").into(),
        at: clock::now(),
        kind,
        name: name.into(),
        source: camera(),
        body: body.into(),
    }
}

pub fn event(number: usize) -> Message {
    message(number, Kind::Event)
}

pub fn soon() -> Instant {
    clock::now() + LIMIT
}

pub async fn until(sinks: &Sinks, wanted: impl Fn(&Status) -> bool) -> Status {
    let mut look = tokio::time::interval(Duration::from_millis(10));
    let looking = async {
        loop {
            look.tick().await;
            let status = sinks.list().remove(0);
            if wanted(&status) {
                return status;
            }
        }
    };
    let found = timeout(LIMIT, looking).await;
    found.unwrap_or_else(|_| panic!("the sink is {:?}", sinks.list()))
}

fn letters(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn with_letters(folder: &Path) -> Target {
    let path = folder.join("letters.jsonl");
    Target { dead_letters: Some(DeadLetters { path, max_bytes: 1 << 20 }), ..target() }
}

/// `openssl` makes the signature that this request ought to have.
fn signature(id: &str, timestamp: &str, body: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("signed");
    std::fs::write(&path, [format!("{id}.{timestamp}.").as_bytes(), body].concat()).unwrap();
    let key = format!(
        "hexkey:$(printf %s '{}' | openssl base64 -d -A | od -An -v -tx1 | tr -d ' \\n')",
        SECRET.strip_prefix("whsec_").unwrap()
    );
    let script =
        format!("openssl dgst -sha256 -mac HMAC -macopt \"{key}\" -binary {} | openssl base64 -A", path.display());
    let made = Command::new("sh").args(["-c", &script]).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    format!("v1,{}", String::from_utf8(made.stdout).unwrap())
}

#[tokio::test]
async fn webhooks_keep_order_and_ids_while_the_receiver_fails() {
    const ANSWERS: [Answer; 4] = [(500, None), (503, Some("0")), (429, Some("0")), (204, None)];
    let mut receiver = Receiver::start(ANSWERS).await;
    let (sinks, running) = start(target(), Way::Webhook(webhook(&receiver.url)));
    for number in 0..5 {
        sinks.publish(&event(number));
    }
    let mut ids = Vec::new();
    for _ in 0..8 {
        let got = receiver.next().await;
        assert_eq!(got.header("content-type"), "application/json");
        let [id, timestamp, signed] =
            ["webhook-id", "webhook-timestamp", "webhook-signature"].map(|name| got.header(name));
        assert_eq!(signed, signature(id, timestamp, &got.body));
        let seconds: u64 = timestamp.parse().unwrap();
        let now = clock::wall().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        assert!(now.abs_diff(seconds) < 60);
        assert_eq!(got.json()["id"], id);
        ids.push(id.to_owned());
    }
    assert_eq!(ids, ["msg_0", "msg_0", "msg_0", "msg_0", "msg_1", "msg_2", "msg_3", "msg_4"]);
    let status = until(&sinks, |status| status.delivered == 5).await;
    assert_eq!((status.state, status.lost, status.queued), (State::Up, 0, 0));
    assert_eq!(status.failure.unwrap().0.code(), "status");
    running.close(soon()).await;
}

#[tokio::test]
async fn what_a_receiver_refuses_is_a_dead_letter_and_the_next_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    // A redirect is not followed: it would take the message to whom the receiver names.
    let mut receiver = Receiver::start([(400, None), (302, None), (204, None), (410, None)]).await;
    let (sinks, running) = start(with_letters(folder.path()), Way::Webhook(webhook(&receiver.url)));
    for number in 0..4 {
        sinks.publish(&event(number));
        assert_eq!(receiver.next().await.header("webhook-id"), format!("msg_{number}"));
    }
    // After 410 nothing is sent any more.
    until(&sinks, |status| status.state == State::Disabled && status.lost == 3).await;
    sinks.publish(&event(4));
    running.close(soon()).await;
    assert!(receiver.is_quiet());
    let path = folder.path().join("letters.jsonl");
    let found = letters(&path);
    let told: Vec<_> = found.iter().map(|letter| (&letter["reason"], &letter["message"]["id"])).collect();
    let expected = [("refused", "msg_0"), ("refused", "msg_1"), ("disabled", "msg_3")];
    assert_eq!(
        told,
        expected.map(|(reason, id)| (json!(reason), json!(id))).iter().map(|(a, b)| (a, b)).collect::<Vec<_>>()
    );
    assert!(found.iter().all(|letter| letter["attempts"] == 1 && letter["time"].is_string()));
    assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn a_receiver_that_never_answers_holds_what_its_queue_holds_and_no_more() {
    let folder = tempfile::tempdir().unwrap();
    // It takes connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    let holding = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = silent.accept().await {
            held.push(stream);
        }
    });
    let way =
        Webhook { timeout: Duration::from_millis(100), retry: Retry { max_attempts: 2, ..retry() }, ..webhook(&url) };
    let target = Target { queue: 10, ..with_letters(folder.path()) };
    let (sinks, running) = start(target, Way::Webhook(way));
    sinks.publish(&event(0));
    until(&sinks, |status| status.queued == 0).await;
    for number in 1..=10_000 {
        sinks.publish(&message(number, Kind::Result));
    }
    for number in 10_001..=10_010 {
        sinks.publish(&event(number));
    }
    let status = sinks.list().remove(0);
    assert!(status.queued <= 10 && status.lost >= 9_990, "{status:?}");
    // Each is tried twice, and then the next has its turn.
    let path = folder.path().join("letters.jsonl");
    until(&sinks, |_| letters(&path).len() >= 2).await;
    let found = letters(&path);
    assert_eq!((&found[0]["message"]["id"], &found[1]["message"]["id"]), (&json!("msg_0"), &json!("msg_10001")));
    assert!(found.iter().all(|letter| letter["reason"] == "exhausted" && letter["attempts"] == 2));
    let stopping = clock::now();
    running.close(soon()).await;
    assert!(clock::now() - stopping < Duration::from_secs(5), "a dead receiver holds up no shutdown");
    let found = letters(&path);
    assert_eq!(found.len(), 11, "every event is accounted for");
    assert!(found.iter().skip(2).all(|letter| ["exhausted", "shutdown"].contains(&letter["reason"].as_str().unwrap())));
    holding.abort();
}

#[tokio::test]
async fn what_waited_for_too_long_is_not_sent() {
    let folder = tempfile::tempdir().unwrap();
    let mut receiver = Receiver::start([]).await;
    let target = Target { max_age: Duration::from_secs(5), ..with_letters(folder.path()) };
    let (sinks, running) = start(target, Way::Webhook(webhook(&receiver.url)));
    let old = Message { at: clock::now().checked_sub(Duration::from_secs(6)).unwrap(), ..event(0) };
    sinks.publish(&old);
    sinks.publish(&event(1));
    assert_eq!(receiver.next().await.header("webhook-id"), "msg_1");
    running.close(soon()).await;
    let found = letters(&folder.path().join("letters.jsonl"));
    assert_eq!((found.len(), &found[0]["reason"]), (1, &json!("expired")));
}

#[tokio::test]
async fn the_stop_sends_what_is_left_and_batches_are_lists() {
    let mut receiver = Receiver::start([(500, None)]).await;
    let batched =
        Webhook { batch: 4, key: None, token: Some(Secret::new("t0ken".to_owned())), ..webhook(&receiver.url) };
    let (sinks, running) = start(target(), Way::Webhook(batched));
    for number in 0..6 {
        sinks.publish(&event(number));
    }
    let first = receiver.next().await;
    assert_eq!(first.header("authorization"), "Bearer t0ken");
    assert!(!first.headers.contains_key("webhook-signature"));
    running.close(soon()).await;
    let (second, third) = (receiver.next().await, receiver.next().await);
    assert_eq!((second.header("webhook-id"), &second.body), (first.header("webhook-id"), &first.body));
    let numbers = |list: Value| -> Vec<_> {
        list.as_array().unwrap().iter().map(|message| message["data"]["number"].as_u64().unwrap()).collect()
    };
    assert_eq!((numbers(second.json()), numbers(third.json())), (vec![0, 1, 2, 3], vec![4, 5]));
    assert_eq!((second.header("webhook-id"), third.header("webhook-id")), ("msg_0", "msg_4"));
    let status = sinks.list().remove(0);
    assert_eq!((status.delivered, status.lost), (6, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn mosquitto_keeps_the_state_and_hears_of_the_end() {
    let Some(mut broker) = Broker::start(broker::Kind::Mosquitto, "").await else { return };
    // What a former life has left behind.
    let left = r#"{"availability":[{"topic":"site/saccade/status"}]}"#;
    for (topic, payload) in [
        ("site/saccade/cameras/old/state", "{}"),
        ("homeassistant/sensor/x/y/config", left),
        ("homeassistant/sensor/other/z/config", r#"{"availability":[{"topic":"other/status"}]}"#),
    ] {
        keep(&broker, topic, payload);
    }
    let (sinks, running) = start(target(), Way::Mqtt(mqtt(&broker)));
    let names = |names: &[&str]| names.iter().map(|name| Arc::from(*name)).collect();
    let watches = Change::Watches { zones: names(&["gate"]), lines: names(&[]), rules: names(&["crowd"]) };
    let camera = camera();
    sinks.tell(&camera, &Change::Camera { live: true });
    sinks.tell(&camera, &watches);
    sinks.tell(&camera, &Change::Zone { zone: "gate".into(), count: 2 });
    let Some(mut live) = Subscriber::new(&broker, &["site/saccade/#"]) else { return };
    let base = "site/saccade/cameras/yard";
    let [events, results, count] = ["events", "results", "zones/gate/count"].map(|end| format!("{base}/{end}"));
    live.until(&count, |payload| payload == "2").await;
    for number in 0..3 {
        sinks.publish(&event(number));
    }
    sinks.publish(&message(3, Kind::Result));
    let mut numbers = Vec::new();
    for topic in [&events, &events, &events, &results] {
        let payload = live.until(topic, |_| true).await;
        numbers.push(serde_json::from_str::<Value>(&payload).unwrap()["data"]["number"].as_u64().unwrap());
    }
    assert_eq!(numbers, [0, 1, 2, 3]);
    until(&sinks, |status| status.delivered == 4).await;

    // Who comes later finds what is true, and nothing of what was.
    let kept = kept_when(&broker, |kept| !kept.contains_key("site/saccade/cameras/old/state")).await;
    assert_eq!((kept["site/saccade/status"].as_str(), kept[&count].as_str()), ("online", "2"));
    assert_eq!(kept[&format!("{base}/connectivity")], "ON");
    let entity: Value =
        serde_json::from_str(&kept["homeassistant/sensor/site_saccade_62ffe50b_yard/zone_gate/config"]).unwrap();
    assert_eq!(entity["state_topic"], count.as_str());
    assert!(
        !kept.contains_key("homeassistant/sensor/x/y/config")
            && kept.contains_key("homeassistant/sensor/other/z/config")
    );
    assert!(!kept.contains_key(&events), "events are not kept");

    // Home Assistant has started, and is told again.
    let Some(mut discovery) = Subscriber::new(&broker, &["homeassistant/binary_sensor/#"]) else { return };
    assert!(discovery.next().await.0, "who subscribes is told what is kept");
    keep(&broker, "homeassistant/status", "online");
    while discovery.next().await.0 {}

    // The broker restarts and has forgotten everything.
    broker.down();
    until(&sinks, |status| status.state == State::Waiting).await;
    sinks.publish(&event(4));
    sinks.tell(&camera, &Change::Zone { zone: "gate".into(), count: 5 });
    broker.up().await;
    let mut live = Subscriber::new(&broker, &["site/saccade/#"]).unwrap();
    live.until(&count, |payload| payload == "5").await;
    until(&sinks, |status| status.delivered == 5 && status.state == State::Up).await;

    // A zone is gone, and so is what told of it.
    sinks.tell(&camera, &Change::Watches { zones: names(&[]), lines: names(&[]), rules: names(&[]) });
    live.until(&count, str::is_empty).await;
    kept_when(&broker, |kept| !kept.keys().any(|topic| topic.contains("gate"))).await;
    running.close(soon()).await;
    live.until("site/saccade/status", |payload| payload == "offline").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mosquitto_tells_that_a_server_was_killed() {
    let passwords = "allow_anonymous true";
    let Some(broker) = Broker::start(broker::Kind::Mosquitto, passwords).await else { return };
    let Some(mut live) = Subscriber::new(&broker, &["site/saccade/status"]) else { return };
    let (sinks, running) = start(target(), Way::Mqtt(mqtt(&broker)));
    live.until("site/saccade/status", |payload| payload == "online").await;
    // The connection ends without a farewell.
    drop(running);
    live.until("site/saccade/status", |payload| payload == "offline").await;
    let kept = kept_when(&broker, |_| true).await;
    assert_eq!(kept["site/saccade/status"], "offline");
    drop(sinks);
}

#[tokio::test(flavor = "multi_thread")]
async fn nats_gets_everything_in_order_over_a_restart() {
    let Some(mut broker) = Broker::start(broker::Kind::Nats, "").await else { return };
    let subject = "site.cameras.yard.events";
    let listen = async |broker: &Broker| {
        let client = async_nats::connect(broker.address().to_string()).await.unwrap();
        let messages = client.subscribe(subject).await.unwrap();
        client.flush().await.unwrap();
        // The server has the subscription when it has answered.
        let echo = client.subscribe("echo").await.unwrap();
        client.publish("echo", "".into()).await.unwrap();
        timeout(LIMIT, echo.into_future()).await.expect("an echo in time");
        (client, messages)
    };
    let (_client, mut messages) = listen(&broker).await;
    let (sinks, running) = start(target(), Way::Nats(nats(&broker)));
    for number in 0..100 {
        sinks.publish(&event(number));
    }
    for number in 0..100 {
        let got = timeout(LIMIT, messages.next()).await.expect("a message in time").unwrap();
        let body: Value = serde_json::from_slice(&got.payload).unwrap();
        assert_eq!(body["data"]["number"], number);
        assert_eq!(got.headers.unwrap().get("Nats-Msg-Id").unwrap().as_str(), format!("msg_{number}"));
    }
    until(&sinks, |status| status.delivered == 100).await;
    // One that the server never takes keeps none of the others back.
    sinks.publish(&Message { body: format!("\"{}\"", "x".repeat(1 << 20)).into(), ..event(1000) });
    until(&sinks, |status| status.lost == 1).await;
    broker.down();
    until(&sinks, |status| status.state == State::Waiting).await;
    for number in 100..105 {
        sinks.publish(&event(number));
    }
    broker.up().await;
    let (_client, mut messages) = listen(&broker).await;
    sinks.publish(&event(105));
    timeout(LIMIT, messages.next()).await.expect("a message in time").unwrap();
    let status = until(&sinks, |status| status.delivered == 106).await;
    assert_eq!((status.lost, status.state), (1, State::Up));
    running.close(soon()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_keeps_a_message_has_it_and_another_does_not() {
    let Some(broker) = Broker::start(broker::Kind::JetStream, "").await else { return };
    let (sinks, running) = start(target(), Way::Nats(Nats { jetstream: true, ..nats(&broker) }));
    sinks.publish(&event(0));
    let status = until(&sinks, |status| status.failure.is_some()).await;
    assert_eq!((status.failure.unwrap().0.code(), status.delivered), ("not_kept", 0));
    let client = async_nats::connect(broker.address().to_string()).await.unwrap();
    let wanted =
        json!({"name": "SITE", "subjects": ["site.>"], "storage": "memory", "retention": "limits", "num_replicas": 1});
    let made = client.request("$JS.API.STREAM.CREATE.SITE", wanted.to_string().into()).await.unwrap();
    let made: Value = serde_json::from_slice(&made.payload).unwrap();
    assert!(made.get("error").is_none(), "{made}");
    sinks.publish(&event(1));
    until(&sinks, |status| status.delivered == 2).await;
    let info = client.request("$JS.API.STREAM.INFO.SITE", "".into()).await.unwrap();
    let info: Value = serde_json::from_slice(&info.payload).unwrap();
    assert_eq!(info["state"]["messages"], 2);
    running.close(soon()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_that_refuse_the_credentials_say_so() {
    let token = "authorization { token: \"right\" }";
    let Some(broker) = Broker::start(broker::Kind::Nats, token).await else { return };
    let with = |token: &str| Nats { login: NatsLogin::Token(Secret::new(token.to_owned())), ..nats(&broker) };
    let (sinks, running) = start(target(), Way::Nats(with("wrong")));
    let status = until(&sinks, |status| status.failure.is_some()).await;
    assert_eq!((status.failure.unwrap().0.code(), status.state), ("unauthorized", State::Waiting));
    running.close(soon()).await;
    let (sinks, running) = start(target(), Way::Nats(with("right")));
    sinks.publish(&event(0));
    until(&sinks, |status| status.delivered == 1).await;
    running.close(soon()).await;

    let Some(broker) = Broker::start(broker::Kind::Mosquitto, "allow_anonymous false").await else { return };
    let (sinks, running) = start(target(), Way::Mqtt(mqtt(&broker)));
    let status = until(&sinks, |status| status.failure.is_some()).await;
    assert_eq!(status.failure.unwrap().0.code(), "unauthorized");
    running.close(soon()).await;
}

/// Has the broker keep a message, as `mosquitto_pub` sends it.
fn keep(broker: &Broker, topic: &str, payload: &str) {
    let port = broker.port.to_string();
    let sent = Command::new("mosquitto_pub")
        .args(["-h", "127.0.0.1", "-p", &port, "-q", "1", "-r", "-t", topic, "-m", payload])
        .status();
    assert!(sent.unwrap().success());
}

/// What the broker keeps, once it is so.
async fn kept_when(broker: &Broker, wanted: impl Fn(&BTreeMap<String, String>) -> bool) -> BTreeMap<String, String> {
    keep(broker, "end", "of it");
    let mut last = BTreeMap::new();
    let looking = async {
        loop {
            // Of the second topic it is told again after all of the first.
            let mut subscriber = Subscriber::new(broker, &["#", "end"]).unwrap();
            let mut ends = 0;
            last.clear();
            while ends < 2 {
                let (retained, topic, payload) = subscriber.next().await;
                ends += u32::from(topic == "end");
                if retained {
                    last.insert(topic, payload);
                }
            }
            if wanted(&last) {
                return;
            }
        }
    };
    let found = timeout(LIMIT, looking).await;
    assert!(found.is_ok(), "the broker keeps {last:?}");
    last
}

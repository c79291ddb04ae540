//! The golden JSON of every message: what is read and written again is the same, what is wrong is refused, and the JSON
//! Schema in `schema/` is the one of the types. The browser client's tests read the same files.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use saccade_signaling::{
    AdviceView, CacheForgotten, CameraView, ClientMessage, Event, EventPage, ImageError, ImageResult, ModelView,
    OfferRequest, OfferResponse, Problem, RoutePut, RouteView, ServerMessage, SessionResult, SessionView, SinkData,
    SinkMessage, SinkView, StatsView, Status,
};
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Every type of the wire, so that one schema holds them all.
#[derive(JsonSchema)]
#[schemars(title = "saccade.v1")]
#[expect(dead_code, reason = "only its schema is used")]
struct Wire {
    /// Client to server, on the signaling WebSocket.
    client_message: ClientMessage,
    /// Server to client, on the signaling WebSocket.
    server_message: ServerMessage,
    /// On the `results` data channel and as Server-Sent Event.
    result: SessionResult,
    /// Answer to `POST /v1/detect` for one picture.
    image_result: ImageResult,
    /// The same for one that something is wrong with, among several.
    image_error: ImageError,
    /// On the `events` data channel.
    event: Event,
    /// Body of `POST /v1/offer`.
    offer_request: OfferRequest,
    /// Answer to `POST /v1/offer`.
    offer_response: OfferResponse,
    /// Body of every HTTP error.
    problem: Problem,
    /// `GET /v1/sessions/{id}`.
    session: SessionView,
    /// An entry of `GET /v1/cameras`.
    camera: CameraView,
    /// An entry of `GET /v1/models`.
    model: ModelView,
    /// Body of `PUT /v1/routes/{name}`, and what `GET` answers there.
    route: RoutePut,
    /// An entry of `GET /v1/routes`.
    route_view: RouteView,
    /// To webhooks, and over MQTT and NATS.
    sink_message: SinkMessage,
    /// An entry of `GET /v1/sinks`.
    sink_view: SinkView,
    /// `GET /v1/events`.
    history_events: EventPage,
    /// `GET /v1/stats`.
    history_stats: StatsView,
    /// On the socket `GET /v1/status`.
    status: Status,
    /// `GET /v1/advice`.
    advice_view: AdviceView,
    /// Answer to `DELETE /v1/cache`.
    cache_forgotten: CacheForgotten,
}

#[test]
fn every_golden_file_is_read_and_written_the_same() {
    for (name, value) in golden_files().filter(|(name, _)| !name.starts_with("bad_")) {
        let written = rewrite(&name, &value).unwrap_or_else(|error| panic!("{name} is refused: {error}"));
        assert_eq!(written, value, "{name}");
    }
}

#[test]
fn every_bad_file_is_refused() {
    let bad: Vec<_> = golden_files().filter(|(name, _)| name.starts_with("bad_")).collect();
    assert!(bad.len() >= 10);
    for (name, value) in bad {
        let kind = name.strip_prefix("bad_").unwrap();
        assert!(rewrite(kind, &value).is_err(), "{name} is taken");
    }
}

#[test]
fn every_variant_has_a_golden_file() {
    let tags = |prefix: &str| -> BTreeSet<String> {
        golden_files()
            .filter(|(name, _)| name.starts_with(prefix))
            .map(|(_, value)| value["type"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(tags("client_"), variants(&schemars::schema_for!(ClientMessage).to_value()));
    assert_eq!(tags("server_"), variants(&schemars::schema_for!(ServerMessage).to_value()));
    assert_eq!(tags("event_"), variants(&schemars::schema_for!(Event).to_value()));
}

#[test]
fn messages_to_sinks_are_read_as_what_their_type_says() {
    for (name, value) in golden_files().filter(|(name, _)| name.starts_with("sink_message")) {
        assert_eq!(value["type"], value["data"]["type"], "{name}");
        let message: SinkMessage = serde_json::from_value(value).unwrap();
        let expected = match message.kind.as_str() {
            "result" => matches!(message.data, SinkData::Result(_)),
            "session_started" | "session_ended" | "camera_changed" => matches!(message.data, SinkData::Notice(_)),
            _ => matches!(message.data, SinkData::Event(_)),
        };
        assert!(expected, "{name}");
    }
}

#[test]
fn unknown_fields_of_a_server_are_tolerated() {
    let mut welcome = golden("server_welcome");
    welcome["motto"] = json!("festina lente");
    welcome["limits"]["depth"] = json!(8);
    assert!(serde_json::from_value::<ServerMessage>(welcome).is_ok());
}

#[test]
fn the_schema_is_current() {
    let path = root().join("schema/saccade.v1.json");
    let schema = serde_json::to_string_pretty(&schemars::schema_for!(Wire)).unwrap() + "\n";
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &schema).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == schema,
        "schema/saccade.v1.json is stale: UPDATE_SCHEMA=1 cargo test -p saccade-signaling --test golden"
    );
}

/// Reads `value` as the type that the file's name stands for and writes it again.
fn rewrite(name: &str, value: &Value) -> serde_json::Result<Value> {
    match name {
        _ if name.starts_with("client_") => round::<ClientMessage>(value),
        _ if name.starts_with("server_") => round::<ServerMessage>(value),
        _ if name.starts_with("event_") => round::<Event>(value),
        _ if name.starts_with("result") => round::<SessionResult>(value),
        _ if name.starts_with("image_result") => round::<ImageResult>(value),
        _ if name.starts_with("image_error") => round::<ImageError>(value),
        "offer_request" => round::<OfferRequest>(value),
        "offer_response" => round::<OfferResponse>(value),
        "problem" => round::<Problem>(value),
        _ if name.starts_with("history_events") => round::<EventPage>(value),
        _ if name.starts_with("history_stats") => round::<StatsView>(value),
        _ if name.starts_with("status") => round::<Status>(value),
        _ if name.starts_with("advice_view") => round::<AdviceView>(value),
        "cache_forgotten" => round::<CacheForgotten>(value),
        _ if name.starts_with("session_view") => round::<SessionView>(value),
        _ if name.starts_with("camera_view") => round::<CameraView>(value),
        _ if name.starts_with("model_view") => round::<ModelView>(value),
        "route_view" => round::<RouteView>(value),
        _ if name.starts_with("sink_message") => round::<SinkMessage>(value),
        _ if name.starts_with("sink_view") => round::<SinkView>(value),
        _ if name.starts_with("route_") => round::<RoutePut>(value),
        _ => panic!("{name}: no type belongs to this name"),
    }
}

/// Through text, as on the wire: `0.35` stays `0.35` although it is held as `f32`.
fn round<T: Serialize + DeserializeOwned>(value: &Value) -> serde_json::Result<Value> {
    let read: T = serde_json::from_str(&value.to_string())?;
    serde_json::from_str(&serde_json::to_string(&read)?)
}

/// The `type` tags of a tagged enum.
fn variants(schema: &Value) -> BTreeSet<String> {
    let branches = schema["oneOf"].as_array().expect("a tagged enum");
    branches.iter().map(|branch| branch["properties"]["type"]["const"].as_str().unwrap().to_owned()).collect()
}

fn golden_files() -> impl Iterator<Item = (String, Value)> {
    let paths: BTreeSet<PathBuf> =
        fs::read_dir(root().join("golden")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(paths.len() > 20);
    paths.into_iter().map(|path| {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let value = golden(&name);
        (name, value)
    })
}

fn golden(name: &str) -> Value {
    let path = root().join("golden").join(format!("{name}.json"));
    let text = fs::read_to_string(&path).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

//! Routes: names that stand for several models, in the engine and over HTTP.

use std::path::Path;
use std::sync::Arc;

use reqwest::{Method, StatusCode};
use saccade::app::StartError;
use saccade::cli::Exit;
use saccade::infer::manifest::{BackendChoice, Precision};
use saccade::infer::{Engine, Error, Model, Options, Outline, Params, Plan, Put, RouteError};
use saccade::media::Codec;
use saccade::media::{Class, Detection};
use saccade::models::WrongNames;
use saccade::route::{Fusion, Route, Share};
use saccade_signaling::{ClientMessage, OptionsPatch, ReturnMode, ServerMessage, close_code};
use serde_json::{Value, json};

use crate::client::{Peer, Socket, connect};
use crate::live::exchange;
use crate::models::{copy, small};
use crate::publisher::{Publisher, Viewer, iou};
use crate::server::{self, Server};

const SPLIT: &str = r#"{"split":[{"model":"scene-blobs","weight":1},{"model":"ppe-nano@2","weight":1}]}"#;

/// Models `a`, `b` and `c`, of which `b` knows other classes, in another order.
fn engine(root: &Path) -> Engine {
    let engine = Engine::new(Options {
        precision: Some(Precision::Fp32),
        backend: Some(BackendChoice::Cpu),
        instances: Some(1),
        ..Options::default()
    });
    let engine = engine.unwrap();
    for (name, classes) in
        [("a", "[\"head\", \"helmet\"]"), ("b", "[\"face\", \"head\"]"), ("c", "[\"head\", \"helmet\"]")]
    {
        let spec = copy(root, name, |text| text.replace("[\"head\", \"helmet\"]", classes));
        engine.load(&spec).unwrap();
    }
    engine
}

fn split(weights: &[(&str, u32)], shadow: Option<&str>) -> Route {
    let share = |(model, weight): &(&str, u32)| Share { model: (*model).into(), weight: *weight };
    Route::Split { shares: weights.iter().map(share).collect(), shadow: shadow.map(Into::into) }
}

fn ensemble(models: &[&str]) -> Route {
    Route::Ensemble { models: models.iter().map(|&model| model.into()).collect(), fusion: Fusion::Wbf }
}

fn ids(classes: &[Class]) -> Vec<(u32, &str)> {
    classes.iter().map(|class| (class.id, &*class.name)).collect()
}

fn models(plan: &Plan) -> Vec<String> {
    plan.members.iter().map(|member| member.model.id()).collect()
}

#[test]
fn a_plan_holds_what_a_session_gets_for_a_name() {
    let root = tempfile::tempdir().unwrap();
    let engine = engine(root.path());
    let model = |name: &str| engine.get(name).unwrap();
    assert_eq!(engine.put_route("half", split(&[("a", 1), ("b@1", 1)], Some("c"))), Ok(Put::New));
    assert_eq!(engine.put_route("all", ensemble(&["a", "b"])), Ok(Put::New));
    let taken = RouteError::NameTaken { name: "a".into() };
    assert_eq!(engine.put_route("a", ensemble(&["b", "c"])), Err(taken));

    let plain = engine.resolve("b@1", "session").unwrap();
    assert!(Arc::ptr_eq(&plain.first().model, &model("b")) && plain.shadow.is_none() && plain.fusion.is_none());
    assert_eq!(ids(&plain.classes), [(0, "face"), (1, "head")]);

    let mut counts = [0; 2];
    for number in 0..200 {
        let key = format!("session-{number}");
        let plan = engine.resolve("half", &key).unwrap();
        assert_eq!(models(&plan), models(&engine.resolve("half", &key).unwrap()));
        assert_eq!((plan.members.len(), plan.fusion), (1, None));
        assert!(Arc::ptr_eq(plan.shadow.as_ref().unwrap(), &model("c")));
        assert_eq!(ids(&plan.classes), [(0, "head"), (1, "helmet"), (2, "face")], "whichever member it is");
        counts[usize::from(Arc::ptr_eq(&plan.first().model, &model("b")))] += 1;
    }
    assert!(counts.iter().all(|count| *count > 60), "{counts:?}");

    let all = engine.resolve("all", "session").unwrap();
    assert_eq!((models(&all), all.fusion), (vec!["a@1".to_owned(), "b@1".to_owned()], Some(Fusion::Wbf)));
    assert_eq!(ids(&all.members[1].classes), [(2, "face"), (0, "head")]);
    let Outline { task, classes, defaults } = engine.outline("all").unwrap();
    assert_eq!(task, saccade::media::Task::Detect);
    assert_eq!((ids(&classes), defaults), (ids(&all.classes), model("a").default_params()));

    // A shadow that is gone is missed by nobody. Where sessions are split, the others answer for a model that is gone; of an
    // ensemble all are needed.
    engine.unload("c");
    assert!(engine.resolve("half", "session").unwrap().shadow.is_none());
    engine.unload("b");
    for number in 0..20 {
        let key = format!("session-{number}");
        assert_eq!(models(&engine.resolve("half", &key).unwrap()), ["a@1"]);
    }
    assert_eq!(ids(&engine.outline("half").unwrap().classes), [(0, "head"), (1, "helmet")]);
    assert!(matches!(engine.resolve("all", "session"), Err(Error::UnknownModel { name }) if name.starts_with('b')));
    assert!(engine.outline("all").is_err());
    engine.unload("a");
    assert!(matches!(engine.resolve("half", "session"), Err(Error::UnknownModel { .. })));
    assert!(engine.outline("half").is_err());
    engine.shutdown();
}

#[test]
fn a_model_is_no_shadow_of_itself() {
    let root = tempfile::tempdir().unwrap();
    let engine = engine(root.path());
    engine.put_route("ramp", split(&[("a", 1), ("b", 1)], Some("b@1"))).unwrap();
    for number in 0..40 {
        let plan = engine.resolve("ramp", &number.to_string()).unwrap();
        assert_eq!(plan.shadow.is_some(), plan.first().model.id() == "a@1");
    }
    engine.shutdown();
}

#[test]
fn members_of_an_ensemble_become_one_list() {
    let root = tempfile::tempdir().unwrap();
    let engine = engine(root.path());
    engine.put_route("all", ensemble(&["a", "b"])).unwrap();
    let plan = engine.resolve("all", "session").unwrap();
    let found = |model: &Arc<Model>, class: &str, score| Detection {
        bbox: [0.0, 0.0, 10.0, 10.0],
        class: model.class(class).unwrap().clone(),
        score,
        object_id: None,
        keypoints: Vec::new(),
    };
    let [a, b] = &plan.members[..] else { panic!() };
    let mut of_a = vec![found(&a.model, "head", 0.9), found(&a.model, "helmet", 0.8)];
    let mut of_b = vec![found(&b.model, "head", 0.5), found(&b.model, "face", 0.6)];
    a.rename(&mut of_a);
    b.rename(&mut of_b);
    let params = Params { score_threshold: 0.3, iou_threshold: 0.5, max_detections: 100, classes: None };
    let shown = |found: &[Option<&[Detection]>], params: &Params| {
        let fused = plan.fuse(found, params);
        fused.iter().map(|one| (one.class.id, one.class.name.to_string(), one.score)).collect::<Vec<_>>()
    };
    let (head, helmet, face) =
        ((0, "head".to_owned(), 0.7), (1, "helmet".to_owned(), 0.8), (2, "face".to_owned(), 0.6));
    let both = [Some(&of_a[..]), Some(&of_b[..])];
    assert_eq!(shown(&both, &params), [helmet.clone(), head.clone(), face.clone()]);
    assert_eq!(shown(&[None, Some(&of_b[..])], &params), [face.clone(), (0, "head".to_owned(), 0.5)], "nothing of `a`");
    assert_eq!(shown(&[Some(&[]), Some(&of_b[..])], &params), std::slice::from_ref(&face), "`a` saw no head: 0.25");
    let some = Params { classes: Some(vec![2, 1]), max_detections: 1, ..params };
    assert_eq!(shown(&both, &some), [helmet]);
    assert_eq!((a.params(&some).classes, b.params(&some).classes), (Some(vec![1]), Some(vec![0])));
    engine.shutdown();
}

async fn ask(server: &Server, method: Method, path: &str, body: Option<&str>) -> (StatusCode, Value) {
    let mut request = reqwest::Client::new().request(method, server.url(path));
    if let Some(body) = body {
        request = request.header("content-type", "application/json").body(body.to_owned());
    }
    let response = request.send().await.unwrap();
    let status = response.status();
    (status, response.json().await.unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_takes_routes_and_gives_sessions_their_models() {
    let server = Server::start(&[("routes.canary", SPLIT), ("models.default", "canary")]).await;
    let (_, listed) = ask(&server, Method::GET, "/v1/routes", None).await;
    let route: Value = serde_json::from_str(SPLIT).unwrap();
    let classes = ["head", "helmet"];
    assert_eq!(listed, json!([{"name": "canary", "default": true, "classes": classes, "route": route}]));

    let both = r#"{"ensemble":["scene-blobs","ppe-nano"],"fusion":"wbf"}"#;
    for (name, body, status, code) in [
        ("ppe-nano", both, 409, "conflict"),
        ("x", r#"{"ensemble":["scene-blobs","nobody"]}"#, 422, "unknown_model"),
        ("x", r#"{"ensemble":["scene-blobs"]}"#, 400, "bad_request"),
        ("X", both, 400, "bad_request"),
    ] {
        let (answered, problem) = ask(&server, Method::PUT, &format!("/v1/routes/{name}"), Some(body)).await;
        assert_eq!((answered.as_u16(), problem["code"].as_str()), (status, Some(code)), "{problem}");
    }
    assert_eq!(ask(&server, Method::PUT, "/v1/routes/both", Some(both)).await.0, StatusCode::CREATED);
    let (status, shown) = ask(&server, Method::GET, "/v1/routes/both", None).await;
    assert_eq!((status, shown), (StatusCode::OK, serde_json::from_str(both).unwrap()));
    assert_eq!(ask(&server, Method::DELETE, "/v1/routes/canary", None).await.0, StatusCode::CONFLICT);

    let mut welcomed = Socket::connect(server.http).await;
    let ServerMessage::Welcome { models, .. } = welcomed.next().await else { panic!() };
    assert_eq!(models, ["canary", "ppe-nano", "ppe-nano-small", "scene-blobs", "both"]);
    for (patch, model) in [(None, "canary"), (Some("both"), "both"), (Some("ppe-nano"), "ppe-nano")] {
        let patch = OptionsPatch { model: patch.map(Into::into), ..OptionsPatch::default() };
        let (mut socket, peer, _, options) = connect(server.http, saccade::media::Codec::Vp8, patch).await;
        assert_eq!(options.model, model);
        socket.send(&saccade_signaling::ClientMessage::Bye).await;
        peer.close().await;
    }
    assert_eq!(ask(&server, Method::DELETE, "/v1/routes/both", None).await.0, StatusCode::OK);
    assert_eq!(ask(&server, Method::GET, "/v1/routes/both", None).await.0, StatusCode::NOT_FOUND);
    server.app.shut_down().await;
}

async fn bye(mut socket: Socket, peer: Peer) {
    socket.send(&ClientMessage::Bye).await;
    assert_eq!(socket.close_code().await, close_code::BYE);
    peer.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ensemble_answers_together_and_a_shadow_is_only_compared() {
    let split = r#"{"split":[{"model":"scene-blobs","weight":1}],"shadow":"ppe-nano"}"#;
    let together = r#"{"ensemble":["scene-blobs","ppe-nano"],"fusion":"wbf"}"#;
    let server = Server::start(&[("routes.watched", split), ("routes.both", together)]).await;
    for (route, named) in [("watched", "scene-blobs@1"), ("both", "both")] {
        let patch = OptionsPatch {
            model: Some(route.into()),
            return_mode: Some(ReturnMode::Results),
            score_threshold: Some(0.3),
            ..OptionsPatch::default()
        };
        let (socket, mut peer, ..) = connect(server.http, Codec::Vp8, patch).await;
        let (mut publisher, mut viewer) = (Publisher::new(Codec::Vp8), Viewer::new(Codec::Vp8));
        let returned = exchange(&mut peer, &mut publisher, &mut viewer, |returned| returned.results.len() >= 30).await;
        let (mut heads, mut found) = (0, 0);
        for result in &returned.results {
            assert_eq!(result.model, named);
            for head in publisher.scene.truth(publisher.number(result.rtp_timestamp_in)) {
                let same = |one: &&saccade_signaling::Detection| iou(one.bbox, head.bbox) > 0.5;
                let matching: Vec<_> = result.detections.iter().filter(same).collect();
                heads += 1;
                // Two models that see one head make one detection of it.
                found += usize::from(matching.len() == 1 && matching[0].class_id == head.class_id);
            }
        }
        assert!(heads > 50 && found * 10 >= heads * 9, "{route}: {found} of {heads}");
        bye(socket, peer).await;
    }
    let metrics = reqwest::get(format!("http://{}/metrics", server.app.ops_address())).await.unwrap();
    let metrics = metrics.text().await.unwrap();
    let value = |name: &str| {
        let line = metrics.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name}"));
        line.trim().parse::<f64>().unwrap()
    };
    let compared = value("saccade_shadow_frames_total{model=\"ppe-nano@2\"}");
    let agreement = value("saccade_shadow_agreement_ratio_sum{model=\"ppe-nano@2\"}");
    assert!(compared > 10.0 && agreement > compared / 2.0, "{agreement} in {compared} frames");
    server.app.shut_down().await;
}

#[test]
fn a_model_may_name_a_smaller_one_of_the_same_classes() {
    let root = tempfile::tempdir().unwrap();
    let engine = Engine::new(Options { instances: Some(1), ..Options::default() }).unwrap();
    for (name, smaller) in [("a", "small"), ("b", "nobody"), ("c", "other"), ("d", "a")] {
        engine.load(&copy(root.path(), name, |text| text.replace("ppe-nano-small", smaller))).unwrap();
    }
    engine.load(&small(root.path(), "small", |text| text)).unwrap();
    let classes = |text: String| text.replace("[\"head\", \"helmet\"]", "[\"face\", \"hat\"]");
    engine.load(&small(root.path(), "other", classes)).unwrap();
    let smaller = |name: &str| engine.resolve(name, "").unwrap().first().smaller.as_ref().map(|model| model.id());
    assert_eq!(smaller("a"), Some("small@1".to_owned()));
    assert_eq!((smaller("b"), smaller("c"), smaller("d")), (None, None, None), "not there, other classes, no smaller");
    // Where several answer together, none of them does better alone.
    engine.put_route("both", ensemble(&["a", "b"])).unwrap();
    assert!(engine.resolve("both", "").unwrap().members.iter().all(|member| member.smaller.is_none()));
    engine.put_route("one", split(&[("a", 1)], None)).unwrap();
    assert_eq!(smaller("one"), Some("small@1".to_owned()));
    engine.shutdown();
}

#[test]
fn plans_are_the_same_if_models_and_the_meaning_of_what_they_find_are() {
    let root = tempfile::tempdir().unwrap();
    let engine = engine(root.path());
    let plan = |route| {
        engine.put_route("route", route).unwrap();
        engine.resolve("route", "session").unwrap()
    };
    let one = plan(split(&[("a", 1)], None));
    assert!(one.is_same(&plan(split(&[("a@1", 3), ("c", 0)], None))), "no class is new");
    // The session's model stays; but a class list that grew makes other results of what it finds.
    let grown = plan(split(&[("a", 1), ("b", 0)], None));
    assert!(!one.is_same(&grown) && !grown.is_same(&one));
    let other_ids = plan(split(&[("b", 0), ("a", 1)], None));
    assert!(!grown.is_same(&other_ids));
    assert!(!one.is_same(&plan(split(&[("a", 1)], Some("c")))));
    let all = plan(ensemble(&["a", "b"]));
    assert!(
        !one.is_same(&all)
            && all.is_same(&plan(ensemble(&["a@1", "b@1"])))
            && !all.is_same(&plan(ensemble(&["b", "a"])))
    );
    engine.shutdown();
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_over_models_that_are_not_there_end_the_start() {
    let config = server::config(&[
        ("routes.one", r#"{"ensemble":["scene-blobs","nobody@1"]}"#),
        ("routes.scene-blobs", SPLIT),
        ("routes.good", SPLIT),
    ]);
    let Err(error) = server::start(&config).await else { panic!("it started") };
    assert!(matches!(&error, StartError::Names(WrongNames::Routes { wrong }) if wrong.len() == 2), "{error}");
    assert_eq!(error.exit(), Exit::Configuration);
    let text = error.to_string();
    for part in ["routes.one: no loaded model is called `nobody@1`", "routes.scene-blobs: a loaded model has the name"]
    {
        assert!(text.contains(part), "{part} is not in {text}");
    }
}

//! Results of still pictures that are given again: over HTTP, on a whole server.

use std::time::Duration;

use futures_util::future::join_all;
use reqwest::header::{AGE, CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use saccade::clock;
use saccade::encode::picture::{self, Format};
use saccade::scene::Scene;
use serde_json::{Value, json};

use crate::graphs::{self, Float};
use crate::model_ops::{SIDE, Site, put_graph};
use crate::server::{Server, metrics};
use crate::tiers::redis;

fn drawn(number: u64) -> Vec<u8> {
    let scene = Scene::new(320, 240, 30, 1);
    picture::encode(&scene.frame(number), scene.color(), Format::Png).unwrap()
}

fn post(server: &Server, query: &str, bytes: &[u8]) -> RequestBuilder {
    let request = Client::new().post(server.url(&format!("/v1/detect{query}")));
    request.header(CONTENT_TYPE, "image/png").body(bytes.to_vec())
}

/// What an answer says of itself.
#[derive(Debug, Clone, PartialEq)]
struct Told {
    cache: String,
    status: String,
    etag: String,
    body: Vec<u8>,
}

async fn told(request: RequestBuilder) -> Told {
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK, "{response:?}");
    let text = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    let [cache, status, etag] = ["x-cache", "cache-status", "etag"].map(|name| text(name).unwrap_or_default());
    Told { cache, status, etag, body: response.bytes().await.unwrap().to_vec() }
}

async fn json_of(response: Response) -> Value {
    serde_json::from_slice(&response.bytes().await.unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_picture_gets_the_same_answer_without_being_inferred_again() {
    let server = Server::start(&[]).await;
    let picture = drawn(60);
    let first = told(post(&server, "", &picture)).await;
    assert_eq!((first.cache.as_str(), first.status.as_str()), ("MISS", "saccade; fwd=miss; stored"));
    let response = post(&server, "", &picture).send().await.unwrap();
    let age: u64 = response.headers()[AGE].to_str().unwrap().parse().unwrap();
    assert!(age < 300);
    // To the byte, its times included.
    let again = told(post(&server, "", &picture)).await;
    assert_eq!((again.cache.as_str(), again.status.as_str()), ("HIT", "saccade; hit; detail=memory"));
    assert_eq!((&again.body, &again.etag), (&first.body, &first.etag));
    assert!(first.etag.starts_with('"') && first.etag.len() == 34, "{}", first.etag);
    // Another picture, other options, another kind of answer: other answers.
    for (query, number) in [("", 61), ("?score_threshold=0.9", 60), ("?annotate=jpeg", 60), ("?budget_ms=4000", 60)] {
        let other = told(post(&server, query, &drawn(number))).await;
        assert_eq!(other.cache, "MISS", "{query} {number}");
        assert_ne!(other.etag, first.etag);
        assert_eq!(
            told(post(&server, query, &drawn(number))).await,
            Told { cache: "HIT".to_owned(), status: "saccade; hit; detail=memory".to_owned(), ..other }
        );
    }
    server.app.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_picture_at_the_same_time_is_inferred_once() {
    let server = Server::start(&[]).await;
    let picture = drawn(60);
    let all = join_all((0..20).map(|_| told(post(&server, "", &picture)))).await;
    // Two runs of the model would not take the same time to the microsecond.
    assert!(all.iter().all(|one| one.body == all[0].body), "not all answers are of one run");
    let computed = all.iter().filter(|one| one.status == "saccade; fwd=miss; stored").count();
    assert_eq!(computed, 1);
    server.app.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_has_is_not_sent_again() {
    let server = Server::start(&[]).await;
    let picture = drawn(60);
    let Told { etag, .. } = told(post(&server, "", &picture)).await;
    for (field, status) in [(&*etag, 304), ("\"other\"", 200), (&*format!("\"other\", W/{etag}"), 304), ("*", 304)] {
        let response = post(&server, "", &picture).header(IF_NONE_MATCH, field).send().await.unwrap();
        assert_eq!(response.status(), status, "{field}");
        assert_eq!(response.headers()["x-cache"], "HIT");
        assert_eq!(response.headers()[ETAG], etag);
        assert_eq!(response.bytes().await.unwrap().is_empty(), status == 304);
    }
    server.app.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_decides_what_is_reused_and_kept() {
    let server = Server::start(&[]).await;
    let picture = drawn(60);
    let with = |control: &'static str| told(post(&server, "", &picture).header(CACHE_CONTROL, control));
    for _ in 0..2 {
        assert_eq!(with("no-store").await.status, "saccade; fwd=request");
    }
    let kept = told(post(&server, "", &picture)).await;
    assert_eq!(kept.cache, "MISS", "nothing was kept");
    assert_eq!(with("max-age=100").await.cache, "HIT");
    let renewed = with("no-cache").await;
    assert_eq!(renewed.cache, "MISS");
    assert_eq!(told(post(&server, "", &picture)).await.body, renewed.body);
    server.app.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_picture_is_refused_each_time() {
    let server = Server::start(&[]).await;
    for _ in 0..2 {
        let response = post(&server, "", b"no picture").send().await.unwrap();
        assert_eq!(response.status(), 415);
        assert!(response.headers().get("x-cache").is_none());
    }
    server.app.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_picture_of_a_form_is_an_answer_of_its_own() {
    let server = Server::start(&[]).await;
    let send = |numbers: [u64; 2]| {
        let mut body = Vec::new();
        for number in numbers {
            body.extend(b"--edge\r\nContent-Disposition: form-data; name=\"a\"; filename=\"a.png\"\r\n\r\n");
            body.extend(drawn(number));
            body.extend(b"\r\n");
        }
        body.extend(b"--edge--\r\n");
        let request = Client::new().post(server.url("/v1/detect"));
        told(request.header(CONTENT_TYPE, "multipart/form-data; boundary=edge").body(body))
    };
    let first = send([60, 61]).await;
    assert_eq!(first.cache, "MISS");
    let half = send([60, 62]).await;
    let [of_first, of_half]: [Vec<Value>; 2] = [&first, &half].map(|told| serde_json::from_slice(&told.body).unwrap());
    assert_eq!((half.cache.as_str(), &of_half[0]), ("MISS", &of_first[0]), "one of two was there");
    let again = send([60, 61]).await;
    assert_eq!((again.cache.as_str(), &again.body, &again.etag), ("HIT", &first.body, &first.etag));
    server.app.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn results_are_forgotten_by_tag_and_by_model() {
    let server = Server::start(&[]).await;
    let client = Client::new();
    let forget = |what: &str| client.delete(server.url(&format!("/v1/cache?{what}"))).send();
    let picture = drawn(60);
    let is_hit = async |query: &str| told(post(&server, query, &picture)).await.cache == "HIT";
    for (what, is_forgotten) in [
        ("tag=door", true),
        ("tag=window", false),
        ("model=scene-blobs", true),
        ("model=scene-blobs@1", true),
        ("model=scene-blobs@2", false),
        ("model=scene", false),
    ] {
        is_hit("?cache_tag=door,day").await;
        assert!(is_hit("").await, "a tag is no part of what is asked");
        let response = forget(what).await.unwrap();
        assert_eq!(response.status(), 200);
        let removed = json_of(response).await;
        assert_eq!(removed, json!({"removed": {"memory": u8::from(is_forgotten)}, "failed": []}), "{what}");
        assert_eq!(is_hit("").await, !is_forgotten, "{what}");
        forget("model=scene-blobs").await.unwrap();
    }
    for wrong in ["", "tag=", "tag=a%20b", "model=", "model=a&tag=b", "all=1"] {
        let response = forget(wrong).await.unwrap();
        assert_eq!(response.status(), 400, "{wrong}");
        assert_eq!(json_of(response).await["code"], "bad_request");
    }
    let response = post(&server, "?cache_tag=a%20b", &picture).send().await.unwrap();
    assert_eq!((response.status().as_u16(), json_of(response).await["code"].clone()), (422, json!("bad_options")));
    server.app.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_model_of_a_route_is_another_answer() {
    let server = Server::start(&[]).await;
    let put = |model: &str| {
        let route = json!({"split": [{"model": model, "weight": 1}]});
        Client::new().put(server.url("/v1/routes/door")).json(&route).send()
    };
    let picture = drawn(60);
    assert!(put("scene-blobs").await.unwrap().status().is_success());
    let first = told(post(&server, "?model=door", &picture)).await;
    assert_eq!(told(post(&server, "?model=door", &picture)).await.body, first.body);
    assert!(put("ppe-nano").await.unwrap().status().is_success());
    let second = told(post(&server, "?model=door", &picture)).await;
    assert_eq!(second.cache, "MISS");
    let model =
        |told: &Told| serde_json::from_slice::<Value>(&told.body).unwrap()["model"].as_str().unwrap().to_owned();
    assert!(model(&first).starts_with("scene-blobs@") && model(&second).starts_with("ppe-nano@"));
    server.app.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_graphs_of_a_member_are_another_answer() {
    let site = Site::new();
    for name in ["a", "b"] {
        put_graph(&site.models, name, "1", &graphs::means(SIDE, Float::Single));
    }
    let route = r#"{"ensemble":["a","b"],"fusion":"wbf"}"#;
    let server = site.start("a", &[("routes.both", route)]).await;
    let picture = drawn(60);
    let ask = async |model: &str| told(post(&server, &format!("?model={model}"), &picture)).await.cache;
    for expected in ["MISS", "HIT"] {
        for model in ["a", "b", "both"] {
            assert_eq!(ask(model).await, expected, "{model}");
        }
    }
    // The same name and version, and the same manifest.
    put_graph(&site.models, "b", "1", &graphs::slow_means(SIDE, 2));
    let load = Client::new().post(server.url("/v1/models/b/load")).send().await.unwrap();
    assert_eq!(load.status(), StatusCode::OK);
    for expected in ["MISS", "HIT"] {
        assert_eq!([ask("b").await, ask("both").await], [expected, expected]);
    }
    assert_eq!(ask("a").await, "HIT", "it is the same model");
    server.app.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_cache_every_picture_is_inferred() {
    let server = Server::start(&[("cache.enabled", "false")]).await;
    let picture = drawn(60);
    let both = [told(post(&server, "", &picture)).await, told(post(&server, "", &picture)).await];
    assert!(both.iter().all(|one| one.cache.is_empty() && one.etag.is_empty()));
    let response = Client::new().delete(server.url("/v1/cache?tag=a")).send().await.unwrap();
    assert_eq!(response.status(), 404);
    server.app.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn results_on_disk_outlast_the_server_and_pictures_can_be_warmed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("warm.png");
    std::fs::write(&path, drawn(60)).unwrap();
    let (path, folder) = (path.display().to_string(), folder.path().join("results").display().to_string());
    let server = Server::start(&[("cache.warm", &*path), ("cache.disk_dir", &*folder)]).await;
    let warmed = "saccade_cache_warmed_total{source=\"files\",outcome=\"loaded\"} 1";
    let deadline = clock::now() + Duration::from_secs(20);
    while !metrics().render().lines().any(|line| line == warmed) {
        assert!(clock::now() < deadline, "the picture is not warmed");
        tokio::task::yield_now().await;
    }
    let warmed = told(post(&server, "", &drawn(60))).await;
    assert_eq!(warmed.status, "saccade; hit; detail=memory");
    server.app.shut_down().await;

    let server = Server::start(&[("cache.disk_dir", &*folder)]).await;
    let found = told(post(&server, "", &drawn(60))).await;
    assert_eq!((found.cache.as_str(), &found.body), ("HIT", &warmed.body));
    server.app.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_share_results_through_redis_and_do_without_it_when_it_dies() {
    let Some(mut shared) = redis::Server::start("servers_share_results").await else { return };
    let url = shared.url();
    let settings =
        [("cache.redis_url", &*url), ("cache.redis_password", redis::PASSWORD), ("cache.redis_timeout_ms", "1000")];
    let (one, other) = (Server::start(&settings).await, Server::start(&settings).await);
    let first = told(post(&one, "", &drawn(60))).await;
    assert_eq!(first.cache, "MISS");
    // It is written behind the request's back; each look at another one's memory would bring it there.
    shared.until_holds(1).await;
    let found = told(post(&other, "", &drawn(60))).await;
    assert_eq!((found.status.as_str(), &found.body), ("saccade; hit; detail=redis", &first.body));
    shared.kill();
    for number in 61..70 {
        assert_eq!(told(post(&one, "", &drawn(number))).await.cache, "MISS");
        assert_eq!(told(post(&one, "", &drawn(number))).await.cache, "HIT");
    }
    one.app.shut_down().await;
    other.app.shut_down().await;
}

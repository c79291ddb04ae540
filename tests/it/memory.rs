//! Memory that becomes scarce: the log and `/readyz` say so, and a server that has hardly any left empties its cache and begins
//! nothing new, until there is enough again.

use std::fs;
use std::path::Path;
use std::time::Duration;

use reqwest::{Client, StatusCode, header};
use saccade::encode::picture::{self, Format};
use saccade::memory::Host;
use saccade::scene::Scene;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{interval, timeout};

use crate::client::LIMIT;
use crate::server;

const MIB: u64 = 1 << 20;

/// What the kernel says of a control group with a limit of 1 GiB.
fn uses(folder: &Path, mib: u64) {
    let group = folder.join("cgroup/site");
    fs::create_dir_all(&group).unwrap();
    fs::write(folder.join("self-cgroup"), "0::/site\n").unwrap();
    fs::write(group.join("memory.max"), format!("{}\n", 1024 * MIB)).unwrap();
    // The kernel gives the rest back when it is asked.
    fs::write(group.join("memory.stat"), format!("anon 0\ninactive_file {}\n", 512 * MIB)).unwrap();
    fs::write(group.join("memory.current"), format!("{}\n", (mib + 512) * MIB)).unwrap();
}

/// Asks again and again until the answer is as it should be.
async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let asked = async {
        let mut pace = interval(Duration::from_millis(50));
        loop {
            pace.tick().await;
            if let Some(answer) = ask().await {
                return answer;
            }
        }
    };
    timeout(LIMIT, asked).await.unwrap_or_else(|_| panic!("{what} within {LIMIT:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_short_of_memory_empties_its_cache_and_admits_nobody_until_there_is_some() {
    let folder = TempDir::new().unwrap();
    uses(folder.path(), 100);
    let config = server::config(&[("memory.warn_ratio", "0.7"), ("memory.shed_ratio", "0.9")]);
    let app = server::start_watching(&config, Box::new(Host::under(folder.path()))).await.unwrap();
    let (http, ops) = (format!("http://{}", app.http_address()), format!("http://{}", app.ops_address()));
    let client = Client::new();
    let metric = async |line: &str| {
        let page = client.get(format!("{ops}/metrics")).send().await.unwrap().text().await.unwrap();
        let value = page.lines().find_map(|found| found.strip_prefix(line)?.trim().parse::<f64>().ok());
        value.unwrap_or_default()
    };
    let ready = async || {
        let answer = client.get(format!("{ops}/readyz")).send().await.unwrap();
        let status = answer.status();
        (status, answer.json::<Value>().await.unwrap())
    };
    let level = async |wanted: f64| {
        let is_there = async || (metric("saccade_memory_level{kind=\"host\"}").await == wanted).then_some(());
        until(&format!("level {wanted}"), is_there).await;
    };
    // An answer of no session: the offer is bad, whoever is admitted is told so.
    let offer = async || {
        let offer = json!({"type": "offer", "sdp": "v=0\r\n"});
        client.post(format!("{http}/v1/offer")).json(&offer).send().await.unwrap()
    };
    let scene = Scene::new(640, 480, 30, 1);
    let picture = picture::encode(&scene.frame(60), scene.color(), Format::Jpeg).unwrap();
    let detect_anew = async || {
        let request = client.post(format!("{http}/v1/detect")).header(header::CONTENT_TYPE, "image/jpeg");
        request.body(picture.clone()).send().await.unwrap()
    };
    // Tensors of no model: where they are taken, they are told so.
    let tensors = async || {
        let request = json!({"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1.0]}]});
        client.post(format!("{http}/v2/models/none/infer")).json(&request).send().await.unwrap()
    };
    let detect = async || {
        let answer = detect_anew().await;
        let cached = answer.headers().get("x-cache").map(|value| value.to_str().unwrap().to_owned());
        (answer.status(), cached.unwrap_or_default())
    };

    let advice = async |severity: &str| {
        let told = client.get(format!("{http}/v1/advice")).send().await.unwrap().json::<Value>().await.unwrap();
        let first = &told["findings"][0];
        (first["code"] == "memory_near_limit" && first["severity"] == severity).then_some(told)
    };

    until("the first look", async || (metric("saccade_memory_used_ratio{kind=\"host\"}").await > 0.09).then_some(()))
        .await;
    assert_eq!(ready().await.1["warnings"], json!([]));
    assert_eq!(detect().await, (StatusCode::OK, "MISS".to_owned()));
    assert_eq!(detect().await, (StatusCode::OK, "HIT".to_owned()));

    uses(folder.path(), 800);
    level(1.0).await;
    let (status, told) = ready().await;
    assert_eq!(
        (status, &told["ready"], &told["warnings"][0]["check"]),
        (StatusCode::OK, &json!(true), &json!("memory"))
    );
    assert_ne!(offer().await.status(), StatusCode::SERVICE_UNAVAILABLE, "scarce is not short");
    assert_eq!(detect().await.1, "HIT");
    // By the bounds of the configuration, not by those that it has by default.
    let told = until("advice", async || advice("warning").await).await;
    assert!(told["findings"][0]["evidence"]["host_memory_used_ratio"].as_f64().unwrap() < 0.8, "{told}");
    assert_eq!(tensors().await.status(), StatusCode::NOT_FOUND);

    uses(folder.path(), 1000);
    level(2.0).await;
    until("a refusal", async || (offer().await.status() == StatusCode::SERVICE_UNAVAILABLE).then_some(())).await;
    let refused = offer().await;
    assert!(refused.headers().contains_key(header::RETRY_AFTER));
    assert_eq!(refused.json::<Value>().await.unwrap()["code"], "capacity");
    assert!(metric("saccade_admission_rejected_total{reason=\"memory\"}").await >= 1.0);
    until("an empty cache", async || (metric("saccade_cache_forgotten_total").await >= 1.0).then_some(())).await;
    let refused = detect_anew().await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE, "nothing new is begun");
    assert_eq!(refused.headers()[header::RETRY_AFTER], "5");
    assert_eq!(refused.json::<Value>().await.unwrap()["code"], "capacity");
    let refused = tensors().await;
    assert_eq!(
        (refused.status(), &refused.headers()[header::RETRY_AFTER]),
        (StatusCode::SERVICE_UNAVAILABLE, &"5".parse().unwrap())
    );
    assert_eq!(refused.json::<Value>().await.unwrap()["code"], "capacity");
    for work in ["session", "picture", "tensors"] {
        assert!(metric(&format!("saccade_memory_refused_total{{work=\"{work}\"}}")).await >= 1.0, "{work}");
    }
    assert_eq!(metric("saccade_tensor_requests_total{protocol=\"http\",outcome=\"no_memory\"}").await, 1.0);
    assert_eq!(metric("saccade_memory_sheds_total{kind=\"host\"}").await, 1.0, "one crossing");
    let (status, told) = ready().await;
    assert_eq!((status, &told["ready"]), (StatusCode::OK, &json!(true)));
    assert!(told["warnings"][0]["reason"].as_str().unwrap().contains("nothing new is begun"), "{told}");
    let told = until("advice", async || advice("critical").await).await;
    assert!(told["findings"][0]["message"].as_str().unwrap().contains("tensors are refused"), "{told}");

    // Just below the limit it is still short, and well below it is not.
    uses(folder.path(), 900);
    until("the next look", async || (metric("saccade_memory_used_ratio{kind=\"host\"}").await < 0.9).then_some(()))
        .await;
    assert_eq!(metric("saccade_memory_level{kind=\"host\"}").await, 2.0);
    uses(folder.path(), 100);
    level(0.0).await;
    until("admission", async || (offer().await.status() != StatusCode::SERVICE_UNAVAILABLE).then_some(())).await;
    assert_eq!(ready().await.1["warnings"], json!([]));
    assert_eq!(detect().await, (StatusCode::OK, "MISS".to_owned()), "the cache was emptied");
    assert_eq!(tensors().await.status(), StatusCode::NOT_FOUND);
    app.shut_down().await;
}

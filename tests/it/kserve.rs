//! Models that other servers run: a front that sessions come to, and backs in processes of their own.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use saccade::media::Codec;
use saccade_signaling::{OptionsPatch, ReturnMode, SessionResult};
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::client::{LIMIT, Peer, connect};
use crate::program::{MODELS, saccade};
use crate::publisher::{FPS, Publisher, iou};
use crate::server::Server;

/// A server of its own process that offers the inference protocol.
struct Back {
    process: Child,
    http: SocketAddr,
    grpc: SocketAddr,
    _log: TempDir,
}

impl Back {
    /// On this address, or a free one.
    fn start(grpc: Option<SocketAddr>) -> Self {
        let log = tempfile::tempdir().unwrap();
        let path = log.path().join("log");
        let mut program = saccade("serve");
        let grpc = grpc.map_or_else(|| "127.0.0.1:0".to_owned(), |address| address.to_string());
        for (key, value) in [
            ("http.listen", "127.0.0.1:0"),
            ("ops.listen", "127.0.0.1:0"),
            ("grpc.listen", &grpc),
            ("media.listen", "127.0.0.1"),
            ("media.port", "0"),
            ("models.dir", MODELS),
            ("models.default", "scene-blobs"),
            ("threads.codec", "2"),
            ("hw.infer", "off"),
        ] {
            program.args(["--set", &format!("{key}={value}")]);
        }
        program.stdout(Stdio::piped()).stderr(File::create(&path).unwrap());
        let mut process = program.spawn().unwrap();
        let mut ready = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        let said = fs::read_to_string(&path).unwrap();
        let after = |text: &str, mark: &str| -> SocketAddr {
            let rest = text.split_once(mark).unwrap_or_else(|| panic!("no {mark} in {ready}{said}")).1;
            rest.split(['/', ' ', '\n', ')']).next().unwrap().parse().unwrap()
        };
        let (http, grpc) = (after(&ready, "ready: http://"), after(&said, "key=\"grpc.listen\" address="));
        Self { process, http, grpc, _log: log }
    }

    /// Requests that its model has answered.
    async fn answered(&self) -> u64 {
        let url = format!("http://{}/v2/models/scene-blobs/stats", self.http);
        let stats: Value = reqwest::get(url).await.unwrap().json().await.unwrap();
        stats["model_stats"][0]["inference_stats"]["success"]["count"].as_u64().unwrap()
    }

    /// As if its machine had gone.
    fn kill(mut self) -> SocketAddr {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        self.grpc
    }
}

impl Drop for Back {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A folder with the scene's model as one that these run, and nothing but its manifest.
fn folder(backs: &[&Back]) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    let manifest = fs::read_to_string(Path::new(MODELS).join("scene-blobs/1/manifest.toml")).unwrap();
    let urls: Vec<_> = backs.iter().map(|back| format!("\"http://{}\"", back.grpc)).collect();
    let manifest = manifest
        .replace("name = \"scene-blobs\"", "name = \"scene-remote\"")
        .replace("[run]\nprecision = \"fp32\"", "[run]\nbackend = \"kserve\"\ninstances = 4");
    let remote = format!("\n[remote]\nurls = [{}]\nmodel = \"scene-blobs\"\ntimeout_ms = 2000\n", urls.join(", "));
    let folder = root.path().join("scene-remote/1");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("manifest.toml"), manifest + &remote).unwrap();
    root
}

async fn front(folder: &TempDir) -> Server {
    let folder = folder.path().to_str().unwrap();
    Server::start(&[("models.dir", folder), ("models.default", "scene-remote"), ("session.budget_ms", "2000")]).await
}

async fn results_session(server: &Server) -> Peer {
    let patch = OptionsPatch { return_mode: Some(ReturnMode::Results), ..OptionsPatch::default() };
    connect(server.http, Codec::Vp8, patch).await.1
}

/// Publishes in real time until the condition holds, which is asked ten times a second, and gives the results that came.
async fn publish_until(
    peer: &mut Peer,
    publisher: &mut Publisher,
    mut enough: impl AsyncFnMut(&[SessionResult]) -> bool,
) -> Vec<SessionResult> {
    let mut results = Vec::new();
    let mut pace = interval(Duration::from_secs(1) / FPS);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let publish = async {
        let mut ticks = 0;
        loop {
            tokio::select! {
                _ = pace.tick() => {
                    let (time, payloads) = publisher.next();
                    peer.send(time, payloads).await;
                    ticks += 1;
                    if ticks % 3 == 0 && enough(&results).await {
                        return;
                    }
                }
                Some(result) = peer.results.recv() => results.push(result),
            }
        }
    };
    timeout(LIMIT * 2, publish).await.expect("enough in time");
    results
}

/// Status of `/readyz`, and what it says.
async fn readiness(server: &Server) -> (u16, String) {
    let answer = reqwest::get(format!("http://{}/readyz", server.app.ops_address())).await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

/// Heads of the scene, and how many of them were found.
fn found(publisher: &Publisher, results: &[SessionResult]) -> (usize, usize) {
    let (mut heads, mut found) = (0, 0);
    for result in results {
        for head in publisher.scene.truth(publisher.number(result.rtp_timestamp_in)) {
            let is_it =
                |it: &saccade_signaling::Detection| it.class_id == head.class_id && iou(it.bbox, head.bbox) > 0.5;
            heads += 1;
            found += usize::from(result.detections.iter().any(is_it));
        }
    }
    (heads, found)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_answered_by_another_server_and_outlives_its_absence() {
    let back = Back::start(None);
    let folder = folder(&[&back]);
    let server = front(&folder).await;
    let mut peer = results_session(&server).await;
    let mut publisher = Publisher::new(Codec::Vp8);
    let results = publish_until(&mut peer, &mut publisher, async |results| results.len() >= 30).await;
    assert!(results.iter().all(|result| result.model == "scene-remote@1"));
    let (heads, seen) = found(&publisher, &results);
    assert!(heads > 30 && seen * 10 >= heads * 9, "{seen} of {heads}");
    assert!(back.answered().await >= 30, "by the other server");

    let address = back.kill();
    publish_until(&mut peer, &mut publisher, async |_| readiness(&server).await.0 == 503).await;
    let (_, said) = readiness(&server).await;
    assert!(said.contains("scene-remote@1: none of its endpoints answers"), "{said}");
    assert!(!said.contains(&address.to_string()), "{said}");

    let back = Back::start(Some(address));
    publish_until(&mut peer, &mut publisher, async |_| readiness(&server).await.0 == 200).await;
    let results = publish_until(&mut peer, &mut publisher, async |results| results.len() >= 20).await;
    let (heads, seen) = found(&publisher, &results);
    assert!(heads > 15 && seen * 10 >= heads * 9, "{seen} of {heads}");
    assert!(back.answered().await >= 15);
    peer.close().await;
    server.app.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_go_to_all_backs_and_to_those_that_are_left() {
    let (one, other) = (Back::start(None), Back::start(None));
    let folder = folder(&[&one, &other]);
    let server = front(&folder).await;
    let mut peers = Vec::new();
    for _ in 0..2 {
        peers.push((results_session(&server).await, Publisher::new(Codec::Vp8)));
    }
    let (before_one, before_other) = (one.answered().await, other.answered().await);
    for (peer, publisher) in &mut peers {
        publish_until(peer, publisher, async |results| results.len() >= 30).await;
    }
    let (by_one, by_other) = (one.answered().await - before_one, other.answered().await - before_other);
    assert!(by_one + by_other >= 40, "{by_one} and {by_other}");
    assert!(by_one.min(by_other) * 3 >= by_one.max(by_other), "{by_one} and {by_other}");

    one.kill();
    let [(peer, publisher), ..] = &mut peers[..] else { panic!("two sessions") };
    let results = publish_until(peer, publisher, async |results| results.len() >= 30).await;
    let (heads, seen) = found(publisher, &results);
    assert!(heads > 30 && seen * 10 >= heads * 9, "{seen} of {heads}");
    assert_eq!(readiness(&server).await.0, 200, "the other one is enough");
    // The front offers the model on, too.
    let url = server.url("/v2/models/scene-remote");
    let metadata: Value = reqwest::get(url).await.unwrap().json().await.unwrap();
    assert_eq!(metadata["inputs"][0]["datatype"], "FP32", "{metadata}");
    for (peer, _) in peers {
        peer.close().await;
    }
    server.app.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_whose_servers_are_away_at_the_start_comes_once_they_are_there() {
    let back = Back::start(None);
    let folder = folder(&[&back]);
    let address = back.kill();
    let root = folder.path().to_str().unwrap();
    // Nobody looks at the folder: it is the servers that change.
    let server = Server::start(&[("models.dir", root), ("models.default", "ppe-nano"), ("models.watch", "off")]).await;
    let state = async || {
        let found: Value = reqwest::get(server.url("/v1/models?all=true")).await.unwrap().json().await.unwrap();
        let model = found.as_array().unwrap().iter().find(|model| model["name"] == "scene-remote").cloned();
        model.unwrap_or_else(|| panic!("{found}"))["state"].as_str().unwrap().to_owned()
    };
    assert_eq!(state().await, "refused");
    let back = Back::start(Some(address));
    let mut pace = interval(Duration::from_millis(100));
    let comes = async {
        while state().await != "ready" {
            pace.tick().await;
        }
    };
    timeout(LIMIT * 2, comes).await.expect("the model");
    server.app.shut_down().await;
    drop(back);
}

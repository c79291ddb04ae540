//! Models come, change and go while sessions run.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::{Method, StatusCode};
use saccade::app::{App, Devices};
use saccade::calibration::Calibration;
use saccade::config::Config;
use saccade::media::Codec;
use saccade::tuning::Tuning;
use saccade_signaling::{
    ClientMessage, ErrorCode, OptionsPatch, ReturnMode, ServerMessage, SessionResult, SessionView, close_code,
};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{interval, timeout};

use crate::client::{LIMIT, Peer, Socket, connect};
use crate::graphs::{self, Float};
use crate::live::{Returned, exchange};
use crate::publisher::{Publisher, Viewer};
use crate::server::{self, Server};

/// Swaps of a session's model.
const SWAPS: usize = 100;
/// Side of the input of models that find nothing of any use.
pub const SIDE: u64 = 64;

/// The model that finds the drawn scene's heads, as a version of `blobs`, put there at once.
fn put_blobs(root: &Path, version: &str, change: impl FnOnce(String) -> String) {
    const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/scene-blobs/1");
    let manifest = fs::read_to_string(format!("{SOURCE}/manifest.toml")).unwrap();
    let manifest = manifest.replace("name = \"scene-blobs\"", "name = \"blobs\"");
    let manifest = manifest.replace("version = \"1\"", &format!("version = \"{version}\""));
    let manifest = manifest.replace("max_batch = 8\npreferred = [1, 2, 4, 8]", "max_batch = 1");
    let manifest = change(manifest + "backend = \"cpu\"\ninstances = 1\n");
    put(root, "blobs", version, &manifest, &fs::read(format!("{SOURCE}/model.onnx")).unwrap());
}

/// A model of 64 × 64 pixels that finds nothing of any use.
pub fn put_graph(root: &Path, name: &str, version: &str, graph: &[u8]) {
    put(root, name, version, &manifest(name, version, ""), graph);
}

fn manifest(name: &str, version: &str, sha256: &str) -> String {
    format!(
        "name = '{name}'\nversion = '{version}'\nlicence = 'MIT'\n[file]\n{sha256}\n[input]\nsize = [{SIDE}, {SIDE}]\n\
         scale = [0.0039, 0.0039, 0.0039]\n[output]\ndecoder = 'yolov8'\n[classes]\nnames = ['head', 'helmet']\n\
         [batching]\nmax_batch = 1\n[run]\nprecision = 'fp32'\nbackend = 'cpu'\ninstances = 1\n"
    )
}

/// Puts a version into the folder at once.
fn put(root: &Path, name: &str, version: &str, manifest: &str, graph: &[u8]) {
    let staging = tempfile::tempdir_in(root.parent().unwrap()).unwrap();
    fs::write(staging.path().join("manifest.toml"), manifest).unwrap();
    fs::write(staging.path().join("model.onnx"), graph).unwrap();
    let folder = root.join(name).join(version);
    fs::create_dir_all(folder.parent().unwrap()).unwrap();
    if folder.exists() {
        fs::remove_dir_all(&folder).unwrap();
    }
    fs::rename(staging.keep(), folder).unwrap();
}

/// A folder for models, in one for what is put together.
pub struct Site {
    _root: tempfile::TempDir,
    pub models: std::path::PathBuf,
}

impl Site {
    pub fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let models = root.path().join("models");
        fs::create_dir(&models).unwrap();
        Self { models, _root: root }
    }

    fn config(&self, default: &str, settings: &[(&str, &str)]) -> Config {
        let dir = self.models.to_str().unwrap();
        server::config(&[&[("models.dir", dir), ("models.default", default)], settings].concat())
    }

    pub async fn start(&self, default: &str, settings: &[(&str, &str)]) -> Server {
        start(self.config(default, settings)).await
    }
}

async fn start(mut config: Config) -> Server {
    if let Some(check) = &mut config.models.check {
        check.program = Some(env!("CARGO_BIN_EXE_saccade").into());
    }
    let tuning = Tuning::find(&config, &Calibration::Off);
    let app = App::start(&config, &tuning, Devices::none("tests have none"), server::metrics()).await.unwrap();
    Server { http: app.http_address(), app }
}

async fn ask(server: &Server, method: Method, path: &str) -> (StatusCode, Value) {
    let response = reqwest::Client::new().request(method, server.url(path)).send().await.unwrap();
    let status = response.status();
    (status, response.json().await.unwrap_or_default())
}

async fn post(server: &Server, path: &str) -> (StatusCode, Value) {
    ask(server, Method::POST, path).await
}

/// State and reason of every model, as `NAME@VERSION STATE`.
async fn states(server: &Server) -> Vec<(String, Option<String>)> {
    let (_, listed) = ask(server, Method::GET, "/v1/models?all=true").await;
    let one = |model: &Value| {
        let text = |key: &str| model[key].as_str().unwrap().to_owned();
        let id = format!("{}@{} {}", text("name"), text("version"), text("state"));
        (id, model["reason"].as_str().map(str::to_owned))
    };
    listed.as_array().unwrap().iter().map(one).collect()
}

/// Asks until a model is in this state, and gives the reason.
async fn becomes(server: &Server, wanted: &str) -> String {
    let mut pace = interval(Duration::from_millis(20));
    let mut last = Vec::new();
    let found = async {
        loop {
            pace.tick().await;
            last = states(server).await;
            if let Some((_, reason)) = last.iter().find(|(id, _)| id == wanted) {
                return reason.clone().unwrap_or_default();
            }
        }
    };
    let found = timeout(LIMIT * 3, found).await;
    found.unwrap_or_else(|_| panic!("nothing became {wanted}: {last:?}"))
}

async fn view(server: &Server, id: &str) -> SessionView {
    let (_, view) = ask(server, Method::GET, &format!("/v1/sessions/{id}")).await;
    serde_json::from_value(view).unwrap()
}

fn options(model: Option<&str>) -> OptionsPatch {
    OptionsPatch { model: model.map(Into::into), return_mode: Some(ReturnMode::Results), ..OptionsPatch::default() }
}

/// A session that publishes the scene.
struct Session {
    socket: Socket,
    peer: Peer,
    id: String,
    publisher: Publisher,
    viewer: Viewer,
}

impl Session {
    async fn open(server: &Server, model: Option<&str>) -> Self {
        let (socket, peer, id, _) = connect(server.http, Codec::Vp8, options(model)).await;
        Self { socket, peer, id, publisher: Publisher::new(Codec::Vp8), viewer: Viewer::new(Codec::Vp8) }
    }

    async fn exchange(&mut self, enough: impl FnMut(&Returned) -> bool) -> Vec<SessionResult> {
        let Self { peer, publisher, viewer, .. } = self;
        exchange(peer, publisher, viewer, enough).await.results
    }

    /// Goes on until it is done, and tells of which model the results are.
    async fn go_on(&mut self, done: &AtomicBool, model: &watch::Sender<String>) -> Vec<SessionResult> {
        let mut results = Vec::new();
        let is_done = || done.load(Ordering::Acquire);
        while !is_done() {
            // Piece by piece, since each may take so long only.
            let piece = self.exchange(|returned| {
                if let Some(last) = returned.results.last() {
                    model.send_if_modified(|known| {
                        let is_other = *known != last.model;
                        known.clone_from(&last.model);
                        is_other
                    });
                }
                is_done() || returned.results.len() >= 60
            });
            results.extend(piece.await);
        }
        results
    }

    /// Goes on until a result comes of this model.
    async fn until_model(&mut self, model: &str) -> Vec<SessionResult> {
        self.exchange(|returned| returned.results.last().is_some_and(|result| result.model == model)).await
    }

    async fn close(mut self) {
        self.socket.send(&ClientMessage::Bye).await;
        assert_eq!(self.socket.close_code().await, close_code::BYE);
        self.peer.close().await;
    }
}

fn models_of(results: &[SessionResult]) -> BTreeSet<&str> {
    results.iter().map(|result| result.model.as_str()).collect()
}

/// The highest number of an object.
fn highest(results: &[SessionResult]) -> u64 {
    let ids = results.iter().flat_map(|result| &result.detections).filter_map(|one| one.object_id);
    ids.max().unwrap()
}

/// Results come in the order of their frames, each once.
fn assert_ordered(results: &[SessionResult]) {
    assert!(results.windows(2).all(|two| two[0].frame_id < two[1].frame_id));
}

/// Every frame that was decoded was answered, or made way for a newer one, as it may on a busy machine; none failed.
async fn assert_none_failed(server: &Server, session: &Session) {
    let counters = view(server, &session.id).await.counters;
    let accounted = counters.inferred + counters.dropped.superseded + counters.dropped.late + counters.dropped.skipped;
    // Those in the model now.
    let open = counters.decoded.abs_diff(accounted);
    assert!(open <= 2, "{counters:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_hot_swaps_fail_no_frame_and_keep_what_is_tracked() {
    let site = Site::new();
    put_blobs(&site.models, "1", |manifest| manifest);
    put_blobs(&site.models, "2", |manifest| manifest);
    let server = site.start("blobs", &[("models.rollback_window_s", "0")]).await;
    assert_eq!(post(&server, "/v1/models/blobs@2/unload").await.0, StatusCode::OK);
    let (mut first, mut second) = (Session::open(&server, None).await, Session::open(&server, Some("blobs")).await);
    let mut pinned = Session::open(&server, Some("blobs@1")).await;
    let done = AtomicBool::new(false);
    let [of_first, of_second, of_pinned] = [(); 3].map(|()| watch::Sender::new(String::new()));
    let swaps = async {
        let (mut one, mut other) = (of_first.subscribe(), of_second.subscribe());
        let mut both_have = async |model: &str| {
            for seen in [&mut one, &mut other] {
                let moved = timeout(LIMIT, seen.wait_for(|seen| seen == model)).await;
                moved.unwrap_or_else(|_| panic!("a session did not move to {model}")).unwrap();
            }
        };
        // The first swap is one only of what has begun.
        both_have("blobs@1").await;
        for number in 0..SWAPS {
            let (what, state, model) =
                if number % 2 == 0 { ("load", "ready", "blobs@2") } else { ("unload", "unloaded", "blobs@1") };
            let (status, view) = post(&server, &format!("/v1/models/blobs@2/{what}")).await;
            assert_eq!((status, &view["state"]), (StatusCode::OK, &json!(state)), "{view}");
            both_have(model).await;
        }
        done.store(true, Ordering::Release);
    };
    let ((), of_first, of_second, of_pinned) = tokio::join!(
        swaps,
        first.go_on(&done, &of_first),
        second.go_on(&done, &of_second),
        pinned.go_on(&done, &of_pinned)
    );

    for results in [&of_first, &of_second] {
        assert_ordered(results);
        assert_eq!(models_of(results), BTreeSet::from(["blobs@1", "blobs@2"]));
        let moves = results.windows(2).filter(|two| two[0].model != two[1].model).count();
        assert!(moves >= SWAPS, "{moves}");
        // People come and go; a tracker that began anew with each swap would have counted hundreds more.
        assert!(highest(results) < highest(&of_pinned) + 30, "{} {}", highest(results), highest(&of_pinned));
        let kept = results.windows(2).filter(|two| two[0].model != two[1].model).filter(|two| {
            let ids = |result: &SessionResult| {
                result.detections.iter().filter_map(|one| one.object_id).collect::<BTreeSet<_>>()
            };
            let (before, after) = (ids(&two[0]), ids(&two[1]));
            before.is_empty() || !before.is_disjoint(&after)
        });
        assert!(kept.count() * 10 >= moves * 9, "objects keep their ids over a swap");
    }
    assert_ordered(&of_pinned);
    assert_eq!(models_of(&of_pinned), BTreeSet::from(["blobs@1"]));
    for session in [&first, &second, &pinned] {
        assert_none_failed(&server, session).await;
    }
    for session in [first, second, pinned] {
        session.close().await;
    }
    server.app.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_whose_options_do_not_fit_the_new_version_stays_and_is_told() {
    let site = Site::new();
    put_blobs(&site.models, "1", |manifest| manifest);
    let server = site.start("blobs", &[]).await;
    let patch = OptionsPatch { classes: Some(vec!["helmet".into()]), ..options(None) };
    let (socket, peer, id, _) = connect(server.http, Codec::Vp8, patch).await;
    let mut bound =
        Session { socket, peer, id, publisher: Publisher::new(Codec::Vp8), viewer: Viewer::new(Codec::Vp8) };
    let mut free = Session::open(&server, None).await;
    put_blobs(&site.models, "2", |manifest| manifest.replace("\"helmet\"", "\"hat\""));
    assert_eq!(post(&server, "/v1/models/blobs/load").await.0, StatusCode::OK);
    free.until_model("blobs@2").await;
    let told = bound.socket.find(|message| match message {
        ServerMessage::Error { code, message, fatal, .. } => Some((code, message, fatal)),
        _ => None,
    });
    let (code, message, fatal) = told.await;
    assert_eq!((code, fatal), (ErrorCode::BadOptions, false));
    assert!(message.contains("stays with blobs@1") && message.contains("`helmet`"), "{message}");
    let results = bound.exchange(|returned| returned.results.len() >= 10).await;
    assert_eq!(models_of(&results), BTreeSet::from(["blobs@1"]));
    bound.close().await;
    free.close().await;
    server.app.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_is_slower_makes_way_for_the_one_before() {
    let site = Site::new();
    put_graph(&site.models, "means", "1", &graphs::means(SIDE, Float::Single));
    let server = site
        .start("means", &[("models.rollback_min_frames", "20"), ("models.watch", "auto"), ("models.settle_ms", "100")])
        .await;
    let mut session = Session::open(&server, None).await;
    session.exchange(|returned| returned.results.len() >= 40).await;
    put_graph(&site.models, "means", "2", &graphs::slow_means(SIDE, 2000));
    session.until_model("means@2").await;
    let results = session.until_model("means@1").await;
    assert_ordered(&results);
    let reason = becomes(&server, "means@2 refused").await;
    assert!(reason.starts_with("means@1 took over again: 95 % of its frames took up to"), "{reason}");
    assert_none_failed(&server, &session).await;
    // Its files are the same: it stays away, until somebody asks for it, or they change.
    put_graph(&site.models, "means", "2", &graphs::means(SIDE, Float::Single));
    session.until_model("means@2").await;
    session.close().await;
    server.app.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_fails_makes_way_at_once() {
    let site = Site::new();
    put_graph(&site.models, "means", "1", &graphs::means(SIDE, Float::Single));
    let server = site.start("means", &[]).await;
    let mut session = Session::open(&server, None).await;
    session.exchange(|returned| returned.results.len() >= 10).await;
    // It runs on an empty picture, and on no other.
    put_graph(&site.models, "means", "2", &graphs::failing_means(SIDE));
    let (status, model) = post(&server, "/v1/models/means/load").await;
    assert_eq!((status, &model["version"]), (StatusCode::OK, &json!("2")), "{model}");
    let results = session.exchange(|returned| returned.results.len() >= 30).await;
    assert_ordered(&results);
    assert_eq!(models_of(&results), BTreeSet::from(["means@1"]));
    assert_eq!(becomes(&server, "means@2 refused").await, "means@1 took over again: it failed repeatedly");
    let metrics =
        reqwest::get(format!("http://{}/metrics", server.app.ops_address())).await.unwrap().text().await.unwrap();
    assert!(metrics.contains("saccade_model_rollbacks_total{reason=\"failed\"}"), "it is counted");
    session.close().await;
    server.app.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_made_way_stays_away_after_a_restart() {
    let site = Site::new();
    put_graph(&site.models, "means", "1", &graphs::means(SIDE, Float::Single));
    let file = site.models.with_file_name("state").join("routes.json");
    let settings = [("models.routes_file", file.to_str().unwrap())];
    let server = site.start("means", &settings).await;
    let mut session = Session::open(&server, None).await;
    session.exchange(|returned| returned.results.len() >= 10).await;
    put_graph(&site.models, "means", "2", &graphs::failing_means(SIDE));
    assert_eq!(post(&server, "/v1/models/means/load").await.0, StatusCode::OK);
    session.exchange(|returned| returned.results.len() >= 30).await;
    let refused = "means@1 took over again: it failed repeatedly";
    assert_eq!(becomes(&server, "means@2 refused").await, refused);
    session.close().await;
    server.app.shut_down().await;

    let all = async |server: &Server| {
        let mut means = states(server).await;
        means.retain(|(id, _)| id.starts_with("means@"));
        means
    };
    let ready = |version: &str| (format!("means@{version} ready"), None);
    let server = site.start("means", &settings).await;
    let expected = vec![ready("1"), ("means@2 refused".to_owned(), Some(refused.to_owned()))];
    assert_eq!(all(&server).await, expected);
    server.app.shut_down().await;

    // Where there is no other, or where the configuration means this one, it is loaded all the same.
    let aside = site.models.with_file_name("aside");
    fs::rename(site.models.join("means/1"), &aside).unwrap();
    let server = site.start("means", &settings).await;
    assert_eq!(all(&server).await, [ready("2")]);
    server.app.shut_down().await;
    fs::rename(&aside, site.models.join("means/1")).unwrap();
    let server = site.start("means@2", &settings).await;
    assert_eq!(all(&server).await, [ready("1"), ready("2")]);
    server.app.shut_down().await;

    // Somebody asks for it: that counts from then on.
    let server = site.start("means", &settings).await;
    assert_eq!(all(&server).await, expected);
    assert_eq!(post(&server, "/v1/models/means@2/load").await.0, StatusCode::OK);
    server.app.shut_down().await;
    let server = site.start("means", &settings).await;
    assert_eq!(all(&server).await, [ready("1"), ready("2")]);
    server.app.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_and_broken_models_hurt_nobody() {
    let site = Site::new();
    put_graph(&site.models, "means", "1", &graphs::means(SIDE, Float::Single));
    let settings =
        [("models.check", "auto"), ("models.check_limit_s", "5"), ("models.watch", "auto"), ("models.settle_ms", "50")];
    let server = site.start("means", &settings).await;
    let mut session = Session::open(&server, None).await;
    let good = graphs::means(SIDE, Float::Single);
    put_graph(&site.models, "external", "1", &graphs::external(SIDE, "/etc/passwd"));
    put_graph(&site.models, "garbage", "1", &[0xff; 4096]);
    put_graph(&site.models, "truncated", "1", &good[..good.len() / 2]);
    put_graph(&site.models, "enormous", "1", &graphs::enormous(SIDE));
    put_graph(&site.models, "endless", "1", &graphs::endless(SIDE));
    let wrong = manifest("checksum", "1", &format!("sha256 = '{}'", "0".repeat(64)));
    put(&site.models, "checksum", "1", &wrong, &good);
    put(&site.models, "outside", "1", &manifest("outside", "1", "path = '../../means/1/model.onnx'"), &good);
    put_graph(&site.models, "linked", "1", &good);
    fs::remove_file(site.models.join("linked/1/model.onnx")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", site.models.join("linked/1/model.onnx")).unwrap();
    // A newer version of what the session has.
    put_graph(&site.models, "means", "2", &graphs::endless(SIDE));

    let refused = async {
        let mut reasons = Vec::new();
        for name in [
            "external@1",
            "garbage@1",
            "truncated@1",
            "enormous@1",
            "endless@1",
            "checksum@1",
            "outside@1",
            "linked@1",
            "means@2",
        ] {
            reasons.push((name, becomes(&server, &format!("{name} refused")).await));
        }
        reasons
    };
    let done = AtomicBool::new(false);
    let refused = async {
        let reasons = refused.await;
        done.store(true, Ordering::Release);
        reasons
    };
    let model = watch::Sender::new(String::new());
    let (reasons, results) = tokio::join!(refused, session.go_on(&done, &model));
    assert_eq!(models_of(&results), BTreeSet::from(["means@1"]));
    assert_none_failed(&server, &session).await;
    for (name, part) in [
        ("external@1", "the values of tensor `weights` are in another file"),
        ("garbage@1", "no ONNX"),
        ("truncated@1", "cut short"),
        ("endless@1", "took longer than 5 s"),
        ("means@2", "took longer than 5 s"),
        ("checksum@1", "sha256"),
        ("outside@1", "beside the manifest"),
        ("linked@1", "outside the model's folder"),
    ] {
        let (_, reason) = reasons.iter().find(|(known, _)| *known == name).unwrap();
        assert!(reason.contains(part), "{name}: {reason}");
    }
    let (status, problem) = post(&server, "/v1/models/external/load").await;
    assert_eq!((status.as_u16(), problem["code"].as_str()), (422, Some("model_failed")), "{problem}");
    // What is good still comes in.
    put_graph(&site.models, "means", "3", &good);
    session.until_model("means@3").await;
    session.close().await;
    server.app.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_are_noticed_when_they_are_whole_and_when_they_go() {
    for watch in ["auto", "poll"] {
        let site = Site::new();
        put_graph(&site.models, "means", "1", &graphs::means(SIDE, Float::Single));
        let settings = [("models.watch", watch), ("models.poll_s", "1"), ("models.settle_ms", "50")];
        let server = site.start("means", &settings).await;
        let mut session = Session::open(&server, None).await;
        // Copied piece by piece, the graph in halves and the manifest before it is whole.
        let (folder, graph) = (site.models.join("means/2"), graphs::means(SIDE, Float::Single));
        let sha256 = sha256(&graph);
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("model.onnx"), &graph[..graph.len() / 2]).unwrap();
        fs::write(folder.join("manifest.toml"), manifest("means", "2", &format!("sha256 = '{sha256}'"))).unwrap();
        let reason = becomes(&server, "means@2 loading").await;
        assert!(reason.is_empty() || reason.contains("sha256"), "{reason}");
        let results = session.exchange(|returned| returned.results.len() >= 10).await;
        assert_eq!(models_of(&results), BTreeSet::from(["means@1"]));
        fs::write(folder.join("model.onnx"), &graph).unwrap();
        session.until_model("means@2").await;

        // Other files of the same version.
        put_graph(&site.models, "means", "2", &graphs::slow_means(SIDE, 1));
        session.exchange(|returned| returned.results.len() >= 10).await;
        becomes(&server, "means@2 ready").await;

        fs::remove_dir_all(&folder).unwrap();
        session.until_model("means@1").await;
        let known = states(&server).await;
        assert!(!known.iter().any(|(id, _)| id.starts_with("means@2")), "{known:?}");
        // What nothing else does for stays.
        fs::remove_dir_all(site.models.join("means")).unwrap();
        put_graph(&site.models, "later", "1", &graph);
        becomes(&server, "later@1 ready").await;
        let results = session.exchange(|returned| returned.results.len() >= 10).await;
        assert_eq!(models_of(&results), BTreeSet::from(["means@1"]));
        session.close().await;
        server.app.shut_down().await;
    }
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn old_versions_are_unloaded_when_nobody_needs_them() {
    let site = Site::new();
    for version in ["1", "2"] {
        put_graph(&site.models, "means", version, &graphs::means(SIDE, Float::Single));
    }
    let server = site.start("means", &[("models.load", "newest"), ("models.rollback_window_s", "1")]).await;
    becomes(&server, "means@1 unloaded").await;
    let mut session = Session::open(&server, Some("means@2")).await;
    session.exchange(|returned| returned.results.len() >= 5).await;
    put_graph(&site.models, "means", "3", &graphs::means(SIDE, Float::Single));
    assert_eq!(post(&server, "/v1/models/means/load").await.0, StatusCode::OK);
    let mut other = Session::open(&server, None).await;
    other.until_model("means@3").await;
    let results = session.exchange(|returned| returned.results.len() >= 60).await;
    assert_eq!(models_of(&results), BTreeSet::from(["means@2"]), "it asked for this version");
    assert!(states(&server).await.iter().any(|(id, _)| id == "means@2 ready"));
    session.close().await;
    becomes(&server, "means@2 unloaded").await;
    other.close().await;
    server.app.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_load_and_unload_what_nobody_needs() {
    let site = Site::new();
    put_graph(&site.models, "means", "1", &graphs::means(SIDE, Float::Single));
    put_graph(&site.models, "other", "1", &graphs::means(SIDE, Float::Single));
    let route = r#"{"split":[{"model":"other","weight":1}]}"#;
    let server = site.start("means", &[("routes.canary", route)]).await;
    for (path, status, code) in [
        ("/v1/models/nobody/load", 404, "not_found"),
        ("/v1/models/means@7/load", 404, "not_found"),
        ("/v1/models/..%2F..%2Fetc/load", 404, "not_found"),
        ("/v1/models/nobody/unload", 404, "not_found"),
        ("/v1/models/means/unload", 409, "conflict"),
        ("/v1/models/means@1/unload", 409, "conflict"),
        ("/v1/models/other/unload", 409, "conflict"),
    ] {
        let (answered, problem) = post(&server, path).await;
        assert_eq!((answered.as_u16(), problem["code"].as_str()), (status, Some(code)), "{path}: {problem}");
    }
    // The embedded model.
    let (status, gone) = post(&server, "/v1/models/ppe-nano/unload").await;
    assert_eq!((status, &gone["state"]), (StatusCode::OK, &json!("unloaded")), "{gone}");
    let (_, listed) = ask(&server, Method::GET, "/v1/models").await;
    let names: Vec<_> = listed.as_array().unwrap().iter().map(|model| model["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["means", "other"]);
    let (status, back) = post(&server, "/v1/models/ppe-nano/load").await;
    assert_eq!((status, &back["state"]), (StatusCode::OK, &json!("ready")), "{back}");
    // Again: it is there.
    assert_eq!(post(&server, "/v1/models/ppe-nano@2/load").await.0, StatusCode::OK);
    server.app.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_outlive_the_process_and_wait_for_their_models() {
    let site = Site::new();
    for name in ["a", "b"] {
        put_graph(&site.models, name, "1", &graphs::means(SIDE, Float::Single));
    }
    let file = site.models.with_file_name("state").join("routes.json");
    let settings = [("models.routes_file", file.to_str().unwrap())];
    let server = site.start("a", &settings).await;
    let client = reqwest::Client::new();
    for (name, route) in [
        ("both", json!({"ensemble": ["a", "b"], "fusion": "wbf"})),
        ("configured", json!({"split": [{"model": "a", "weight": 1}]})),
        ("removed", json!({"split": [{"model": "a", "weight": 1}]})),
    ] {
        let put = client.put(server.url(&format!("/v1/routes/{name}"))).json(&route).send().await.unwrap();
        assert_eq!(put.status(), StatusCode::CREATED);
    }
    assert_eq!(ask(&server, Method::DELETE, "/v1/routes/removed").await.0, StatusCode::OK);
    server.app.shut_down().await;

    fs::rename(site.models.join("b"), site.models.with_file_name("b")).unwrap();
    let of_the_file = r#"{"split":[{"model":"a@1","weight":5}]}"#;
    let server = site.start("a", &[&settings[..], &[("routes.configured", of_the_file)]].concat()).await;
    let (_, routes) = ask(&server, Method::GET, "/v1/routes").await;
    let names: Vec<_> = routes.as_array().unwrap().iter().map(|route| route["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["both", "configured"]);
    let configured = ask(&server, Method::GET, "/v1/routes/configured").await.1;
    assert_eq!(configured, serde_json::from_str::<Value>(of_the_file).unwrap(), "the configuration wins");
    let offered = |server: &Server| {
        let url = server.url("/v1/offer");
        let body = json!({"sdp": "v=0", "type": "offer", "options": {"model": "both"}});
        let client = client.clone();
        async move { client.post(url).json(&body).send().await.unwrap().json::<Value>().await.unwrap()["code"].clone() }
    };
    assert_eq!(offered(&server).await, "unknown_model");
    fs::rename(site.models.with_file_name("b"), site.models.join("b")).unwrap();
    assert_eq!(post(&server, "/v1/models/b/load").await.0, StatusCode::OK);
    assert_eq!(offered(&server).await, "bad_sdp", "the model is no hindrance any more");
    server.app.shut_down().await;

    // Its models are needed, and it may be the default.
    let server = site.start("both", &[&settings[..], &[("models.load", "named")]].concat()).await;
    assert_eq!(offered(&server).await, "bad_sdp");
    server.app.shut_down().await;
}

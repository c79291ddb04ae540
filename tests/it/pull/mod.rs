//! `saccade models pull`: the built program against publishers on this machine.

mod publisher;

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::assets::asset;
use crate::program::{run, saccade};
use publisher::{Publisher, Reply, Request};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/scene-blobs/1/model.onnx");
const SHA256: &str = "ff500c33898dcb7d444398221b52a4b1568694d416e1c53e9bbb8b5f74f2c64d";
const TAG: &str = "\"first\"";
/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(60);

/// A folder for models, and a registry beside it with one entry: the test model.
struct Place {
    folder: TempDir,
}

impl Place {
    fn new(url: &str) -> Self {
        Self::with(url, |text| text)
    }

    fn with(url: &str, change: impl FnOnce(String) -> String) -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap() };
        let text = format!(
            r#"
[classes]
heads = ["head", "helmet"]
[[models]]
name = "scene-blobs"
version = "1"
licence = "MIT OR Apache-2.0"
publisher = "Saccade"
homepage = "https://example.com/saccade"
url = "{url}"
bytes = {}
sha256 = "{SHA256}"
classes = "heads"
[models.manifest.input]
tensor = "images"
size = [320, 320]
scale = [0.00392156862745098, 0.00392156862745098, 0.00392156862745098]
[models.manifest.output]
decoder = "yolov8"
"#,
            file().len()
        );
        fs::write(place.path("registry.toml"), change(text)).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn models(&self) -> PathBuf {
        self.path("models")
    }

    /// The graph where it is when all is done.
    fn graph(&self) -> PathBuf {
        self.models().join("scene-blobs/1/model.onnx")
    }

    /// All names in the folder of models.
    fn names(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.models()) else { return Vec::new() };
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn partial(&self) -> Option<u64> {
        let file = self.models().join(".scene-blobs@1.partial/model.onnx");
        file.metadata().ok().map(|file| file.len())
    }

    fn pull(&self) -> Command {
        let mut program = pull();
        program.arg("scene-blobs").arg("--registry").arg(self.path("registry.toml"));
        program.arg("--models-dir").arg(self.models());
        program
    }

    /// The models as `saccade models list` knows them.
    fn list(&self) -> Vec<Value> {
        let (code, stdout, stderr) = run(saccade("models").args(["list", "--json", "--models-dir"]).arg(self.models()));
        assert_eq!(code, 0, "{stderr}");
        serde_json::from_str(&stdout).unwrap()
    }

    fn assert_whole(&self) {
        assert_eq!(fs::read(self.graph()).unwrap(), file());
        assert_eq!(self.names(), ["scene-blobs"], "nothing else is left");
    }
}

fn file() -> Vec<u8> {
    fs::read(MODEL).unwrap()
}

/// The program without the machine's own proxies.
fn pull() -> Command {
    let mut program = saccade("models");
    program.arg("pull");
    for (name, _) in std::env::vars().filter(|(name, _)| name.to_ascii_lowercase().ends_with("_proxy")) {
        program.env_remove(name);
    }
    program
}

/// A place where half of the file came before the connection was cut.
fn half(publisher: &Publisher) -> Place {
    let place = Place::new(&publisher.url());
    let (code, stdout, stderr) = run(&mut place.pull());
    assert_eq!((code, stdout.as_str()), (69, ""), "{stderr}");
    let size = file().len();
    assert_eq!(place.partial(), Some(size as u64 / 2));
    let kept = format!("; {} of {size} bytes are kept: run it again to go on", size / 2);
    assert!(stderr.contains("the connection to 127.0.0.1 ended early") && stderr.contains(&kept), "{stderr}");
    place
}

fn cut_reply() -> Reply {
    Reply::whole(&file(), TAG).cut(file().len() / 2)
}

#[test]
fn a_pulled_model_is_ready_and_is_not_fetched_twice() {
    let publisher = Publisher::start(|_, request| Reply::fitting(request, &file(), TAG));
    let place = Place::new(&publisher.url());
    let (code, stdout, stderr) = run(&mut place.pull());
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains("saccade serve") && stdout.contains("--model scene-blobs"), "{stdout}");
    assert!(stderr.starts_with("scene-blobs@1: fetching 12.60 kB from 127.0.0.1"), "{stderr}");
    place.assert_whole();
    assert_eq!(fs::read_to_string(place.models().join("scene-blobs/1/classes.txt")).unwrap(), "head\nhelmet\n");
    let mut files: Vec<_> =
        fs::read_dir(place.models().join("scene-blobs/1")).unwrap().map(|file| file.unwrap().file_name()).collect();
    files.sort();
    assert_eq!(files, ["classes.txt", "manifest.toml", "model.onnx"]);

    let listed = place.list();
    let model = listed.iter().find(|one| one["name"] == "scene-blobs").unwrap();
    assert_eq!(
        (&model["status"], &model["source"], &model["version"]),
        (&"ready".into(), &"folder".into(), &"1".into())
    );
    assert_eq!(model["classes"], serde_json::json!(["head", "helmet"]));
    let (code, stdout, stderr) =
        run(saccade("models").args(["check", "scene-blobs", "--models-dir"]).arg(place.models()));
    assert_eq!((code, stdout.starts_with("scene-blobs@1: ready; ")), (0, true), "{stdout}{stderr}");

    let (code, stdout, stderr) = run(&mut place.pull());
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert!(stdout.starts_with("scene-blobs@1: already there"), "{stdout}");
    let requests = publisher.requests();
    assert_eq!(requests.len(), 1, "{requests:?}");
    assert_eq!((requests[0].line.as_str(), requests[0].start()), ("GET /a/model.onnx HTTP/1.1", None));
    let (code, stdout, stderr) = run(place.pull().args(["--force", "--quiet"]));
    assert_eq!((code, stderr.as_str(), publisher.requests().len()), (0, "", 2), "{stdout}");
    place.assert_whole();
}

#[test]
fn a_cut_connection_is_gone_on_with_where_it_ended() {
    let publisher = Publisher::start(|number, request| match number {
        0 => cut_reply(),
        _ => Reply::fitting(request, &file(), TAG),
    });
    let place = half(&publisher);
    let listed = place.list();
    assert_eq!(listed.len(), 1, "what is not whole is no model: {listed:?}");
    let (code, _, stderr) = run(&mut place.pull());
    assert_eq!(code, 0, "{stderr}");
    place.assert_whole();
    let requests = publisher.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!((requests[1].start(), requests[1].header("if-range")), (Some(file().len() / 2), Some(TAG)));
}

#[test]
fn a_server_without_ranges_sends_it_all_again() {
    let publisher = Publisher::start(|number, _| match number {
        0 => cut_reply(),
        _ => Reply::whole(&file(), TAG),
    });
    let place = half(&publisher);
    let (code, _, stderr) = run(&mut place.pull());
    assert_eq!((code, publisher.requests().len()), (0, 2), "{stderr}");
    place.assert_whole();
}

#[test]
fn parts_of_different_files_are_not_put_together() {
    // What came first is of another file. One server says so by sending all; the other disregards the condition.
    for honest in [true, false] {
        let other: Vec<u8> = file().iter().map(|byte| !byte).collect();
        let publisher = Publisher::start(move |number, request| match (number, request.start()) {
            (0, _) => Reply::whole(&other, TAG).cut(other.len() / 2),
            (_, Some(start)) if !honest => Reply::rest(&file(), start, "\"second\""),
            _ => Reply::fitting(request, &file(), "\"second\""),
        });
        let place = half(&publisher);
        let (code, _, stderr) = run(&mut place.pull());
        assert_eq!(code, 0, "{stderr}");
        place.assert_whole();
        let starts: Vec<_> = publisher.requests().iter().map(Request::start).collect();
        let middle = Some(file().len() / 2);
        assert_eq!(starts, if honest { vec![None, middle] } else { vec![None, middle, None] });
    }
}

#[test]
fn a_weak_tag_is_no_condition_and_416_begins_again() {
    let publisher = Publisher::start(|number, request| match number {
        0 => Reply::whole(&file(), "W/\"a\"").cut(file().len() / 2),
        1 => Reply::status("416 Range Not Satisfiable"),
        _ => Reply::fitting(request, &file(), "W/\"a\""),
    });
    let place = half(&publisher);
    let (code, _, stderr) = run(&mut place.pull());
    assert_eq!(code, 0, "{stderr}");
    place.assert_whole();
    let requests = publisher.requests();
    assert_eq!((requests[1].start(), requests[1].header("if-range")), (Some(file().len() / 2), None));
    assert_eq!((requests.len(), requests[2].start()), (3, None));
}

#[test]
fn another_file_is_refused_and_nothing_of_it_stays() {
    let mut other = file();
    other[5000] ^= 1;
    let publisher = Publisher::start(move |_, request| Reply::fitting(request, &other, TAG));
    let place = Place::new(&publisher.url());
    let (code, stdout, stderr) = run(&mut place.pull());
    assert_eq!((code, stdout.as_str()), (70, ""), "{stderr}");
    assert!(stderr.contains(&format!("expected {SHA256}")) && stderr.contains("sha256 is "), "{stderr}");
    assert_eq!(place.names(), [""; 0]);
}

#[test]
fn a_wrong_length_is_refused() {
    let long = [file(), vec![0; 100]].concat();
    let stated = |file: &[u8]| Reply::whole(file, TAG);
    let unstated = |file: &[u8]| Reply::new("200 OK", &[], file);
    for (reply, part) in [
        // A body that is never sent shows that nobody waits for it.
        (stated(&long).cut(0).stalling(), "offers 12703 bytes, but the file has 12603"),
        (stated(&file()[..1000]), "offers 1000 bytes, but the file has 12603"),
        (unstated(&long), "sent more than the 12603 bytes"),
    ] {
        let reply = Mutex::new(Some(reply));
        let publisher = Publisher::start(move |_, _| reply.lock().unwrap().take().unwrap());
        let place = Place::new(&publisher.url());
        let (code, stdout, stderr) = run(&mut place.pull());
        assert_eq!((code, stdout.as_str()), (70, ""), "{stderr}");
        assert!(stderr.contains(part), "{part}: {stderr}");
        assert_eq!(place.names(), [""; 0], "{part}");
    }
}

#[test]
fn a_login_page_does_not_cost_what_was_there() {
    let publisher = Publisher::start(|number, request| match number {
        0 => cut_reply(),
        1 => Reply::whole(b"<html>Log in</html>", "\"page\""),
        _ => Reply::fitting(request, &file(), TAG),
    });
    let place = half(&publisher);
    let (code, _, stderr) = run(&mut place.pull());
    assert_eq!((code, place.partial()), (70, Some(file().len() as u64 / 2)), "{stderr}");
    assert!(stderr.contains("login page"), "{stderr}");
    let (code, _, stderr) = run(&mut place.pull());
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(publisher.requests()[2].start(), Some(file().len() / 2));
}

#[test]
fn a_publisher_that_does_not_have_it_is_named() {
    for status in ["404 Not Found", "503 Service Unavailable", "204 No Content"] {
        let publisher = Publisher::start(move |_, _| Reply::status(status));
        let place = Place::new(&publisher.url());
        let (code, stdout, stderr) = run(&mut place.pull());
        assert_eq!((code, stdout.as_str()), (69, ""), "{stderr}");
        let line = stderr.lines().last().unwrap();
        assert!(line.starts_with(&format!("scene-blobs@1: 127.0.0.1 answers {status}; ")), "{stderr}");
        assert!(line.contains(&publisher.url()) && line.contains("models pull scene-blobs@1 --from FILE"), "{stderr}");
        assert_eq!(place.names(), [""; 0]);
    }
}

#[test]
fn without_a_network_it_says_what_to_do() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (url, host) in [
        (format!("http://{free}/a/model.onnx"), "127.0.0.1"),
        // By RFC 6761 no such name exists.
        ("https://models.invalid/model.onnx".to_owned(), "models.invalid"),
    ] {
        let place = Place::new(&url);
        let (code, stdout, stderr) = run(place.pull().arg("--quiet"));
        assert_eq!((code, stdout.as_str(), stderr.lines().count()), (69, "", 1), "{stderr}");
        assert!(stderr.starts_with(&format!("scene-blobs@1: {host} cannot be reached: ")), "{stderr}");
        assert!(stderr.contains("connect this machine to a network") && stderr.contains("--from FILE"), "{stderr}");
        assert_eq!(place.names(), [""; 0]);
    }
}

#[test]
fn an_unknown_model_is_answered_with_the_known_ones() {
    let publisher = Publisher::start(|_, request| Reply::fitting(request, &file(), TAG));
    let place = Place::new(&publisher.url());
    for name in ["nobody", "scene-blobs@2"] {
        let (code, stdout, stderr) = run(place.pull().arg(name));
        assert_eq!((code, stdout.as_str()), (64, ""));
        assert_eq!(stderr, format!("unknown model `{name}`; there are scene-blobs@1\n"));
    }
    assert_eq!((publisher.requests().len(), place.names().len()), (0, 0), "nothing is begun");
    let (code, _, stderr) = run(pull().arg("nobody"));
    assert!(code == 64 && stderr.contains("yolox-nano@0.1.1") && stderr.contains("yunet@1"), "{stderr}");
}

#[test]
fn the_list_says_what_there_is() {
    let (code, stdout, stderr) = run(pull().arg("--list"));
    assert_eq!((code, stderr.as_str()), (0, ""));
    for [id, size, input, licence] in [
        ["yolox-nano@0.1.1", "3.66 MB", "416x416", "Apache-2.0"],
        ["yolox-s@0.1.1", "35.86 MB", "640x640", "Apache-2.0"],
        ["yunet@1", "317.43 kB", "320x320", "Apache-2.0"],
        ["ultraface@1", "1.27 MB", "320x240", "MIT"],
    ] {
        let row = stdout.lines().find(|line| line.starts_with(id)).unwrap_or_else(|| panic!("{stdout}"));
        assert!([size, input, licence].iter().all(|cell| row.contains(cell)), "{row}");
    }
}

#[test]
fn redirects_are_followed_up_to_five() {
    let publisher = Publisher::start(|_, request| {
        let to = |path: &str| Reply::new("302 Found", &[("Location", path.to_owned())], &[]);
        let path = request.line.split(' ').nth(1).unwrap();
        match path.trim_start_matches("/a/").split_once(".onnx").unwrap().0 {
            "model" => to("/a/1.onnx"),
            "5" => Reply::fitting(request, &file(), TAG),
            number => to(&format!("/a/{}.onnx", number.parse::<u32>().unwrap() + 1)),
        }
    });
    let place = Place::new(&publisher.url());
    let (code, _, stderr) = run(&mut place.pull());
    assert_eq!((code, publisher.requests().len()), (0, 6), "{stderr}");
    place.assert_whole();

    let place = Place::new(&publisher.url().replace("model.onnx", "0.onnx"));
    fs::create_dir(place.models()).unwrap();
    let (code, ..) = run(&mut place.pull());
    assert_eq!(code, 0, "from 0 to 5 it is five");
    let circle = Publisher::start(|_, _| Reply::new("302 Found", &[("Location", "/a/model.onnx".to_owned())], &[]));
    let place = Place::new(&circle.url());
    let (code, _, stderr) = run(&mut place.pull());
    assert_eq!((code, circle.requests().len()), (69, 6), "{stderr}");
    assert!(stderr.contains("redirects more than 5 times"), "{stderr}");
}

#[test]
fn the_rest_is_asked_for_behind_a_redirect_too() {
    let publisher = Publisher::start(|number, request| match number {
        0 => cut_reply(),
        1 => Reply::new("307 Temporary Redirect", &[("Location", "/b".to_owned())], &[]),
        _ => Reply::fitting(request, &file(), TAG),
    });
    let place = half(&publisher);
    let (code, _, stderr) = run(&mut place.pull());
    assert_eq!(code, 0, "{stderr}");
    place.assert_whole();
    assert_eq!(publisher.requests()[2].start(), Some(file().len() / 2));
}

#[test]
fn a_silent_publisher_is_given_up() {
    let publisher = Publisher::start(|number, request| match number {
        0 => cut_reply().stalling(),
        _ => Reply::fitting(request, &file(), TAG),
    });
    let place = Place::new(&publisher.url());
    let (code, stdout, stderr) = run(place.pull().args(["--stall-timeout", "1"]));
    assert_eq!((code, stdout.as_str()), (69, ""), "{stderr}");
    assert!(stderr.contains("127.0.0.1 sent nothing for 1 s; 6301 of 12603 bytes are kept"), "{stderr}");
    let (code, _, stderr) = run(&mut place.pull());
    assert_eq!((code, publisher.requests()[1].start()), (0, Some(6301)), "{stderr}");
    place.assert_whole();
}

#[test]
fn an_interruption_keeps_what_came() {
    let publisher = Publisher::start(|number, request| match number {
        0 => cut_reply(),
        _ => Reply::fitting(request, &file(), TAG).cut(0).stalling(),
    });
    let place = half(&publisher);
    publisher.replied.recv_timeout(LONG).unwrap();
    let child = place.pull().stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    publisher.replied.recv_timeout(LONG).unwrap();
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(70), "{stderr}");
    assert!(stderr.contains("scene-blobs@1: interrupted; 6301 of 12603 bytes are kept: run it again"), "{stderr}");
    assert_eq!(place.partial(), Some(6301));
}

#[test]
fn two_do_not_fetch_one_model_at_once() {
    let publisher = Publisher::start(|_, _| cut_reply().stalling());
    let place = Place::new(&publisher.url());
    let mut first = place.pull().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    publisher.replied.recv_timeout(LONG).unwrap();
    let (code, stdout, stderr) = run(&mut place.pull());
    first.kill().unwrap();
    first.wait().unwrap();
    assert_eq!((code, stdout.as_str()), (69, ""), "{stderr}");
    assert!(stderr.contains("scene-blobs@1: another process is fetching it"), "{stderr}");
    assert_eq!(publisher.requests().len(), 1);
}

#[test]
fn what_lies_in_the_place_is_replaced_only_by_force() {
    let publisher = Publisher::start(|_, request| Reply::fitting(request, &file(), TAG));
    let place = Place::new(&publisher.url());
    let folder = place.models().join("scene-blobs/1");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("notes.txt"), "mine").unwrap();
    let (code, stdout, stderr) = run(&mut place.pull());
    assert_eq!((code, stdout.as_str(), publisher.requests().len()), (70, "", 0), "{stderr}");
    assert!(stderr.contains("manifest.toml") && stderr.contains("--force replaces it"), "{stderr}");
    assert!(folder.join("notes.txt").exists());
    let (code, _, stderr) = run(place.pull().arg("--force"));
    assert_eq!((code, folder.join("notes.txt").exists()), (0, false), "{stderr}");
    place.assert_whole();

    // A manifest of one's own thresholds is no reason to refuse, another graph is.
    let manifest = fs::read_to_string(folder.join("manifest.toml")).unwrap();
    fs::write(folder.join("manifest.toml"), format!("{manifest}\n[defaults]\nscore_threshold = 0.9\n")).unwrap();
    let (code, stdout, _) = run(&mut place.pull());
    assert!(code == 0 && stdout.contains("already there"), "{stdout}");
    fs::write(folder.join("model.onnx"), "other").unwrap();
    let (code, _, stderr) = run(&mut place.pull());
    assert!(code == 70 && stderr.contains("sha256"), "{stderr}");
}

#[test]
fn names_that_leave_the_folder_are_refused() {
    for (from, to, part) in [
        ("name = \"scene-blobs\"", "name = \"../x\"", "`models[0].name`"),
        ("version = \"1\"", "version = \"..\"", "`models[0].version`"),
        ("name = \"scene-blobs\"", "name = \"/tmp/x\"", "`models[0].name`"),
        ("url = \"http", "url = \"file", "`models[0].url`"),
    ] {
        let place = Place::with("http://127.0.0.1:9/x", |text| text.replacen(from, to, 1));
        let (code, stdout, stderr) = run(&mut place.pull());
        assert_eq!((code, stdout.as_str()), (64, ""), "{stderr}");
        assert!(stderr.starts_with("the registry is wrong:\n") && stderr.contains(part), "{stderr}");
        let left = fs::read_dir(place.folder.path()).unwrap().count();
        assert_eq!(left, 1, "only the registry is there");
    }
    let (code, _, stderr) = run(pull().args(["yunet", "--registry", "/no/such/file"]));
    assert!(code == 64 && stderr.contains("/no/such/file"), "{stderr}");
}

#[test]
fn a_file_fetched_otherwise_is_put_in_place() {
    let place = Place::new("http://127.0.0.1:9/x");
    let (text, other) = (place.path("text"), place.path("other"));
    fs::write(&text, "no model").unwrap();
    fs::write(&other, vec![7; file().len()]).unwrap();
    for (path, part) in [(&text, "its size is 8 bytes"), (&other, SHA256), (&place.path("gone"), "No such file")] {
        let (code, stdout, stderr) = run(place.pull().arg("--from").arg(path));
        assert_eq!((code, stdout.as_str()), (70, ""), "{stderr}");
        assert!(stderr.contains(part) && stderr.contains(path.to_str().unwrap()), "{stderr}");
        assert_eq!(place.names(), [""; 0]);
    }
    let (code, _, stderr) = run(place.pull().args(["--from", MODEL]));
    assert_eq!((code, stderr.as_str()), (0, ""));
    place.assert_whole();
    assert!(Path::new(MODEL).exists());
    let (code, _, stderr) = run(place.pull().args(["scene-blobs", "--from", MODEL]));
    assert!(code == 64 && stderr.contains("--from takes one model, not 2"), "{stderr}");
}

#[test]
fn a_published_model_works_with_the_manifest_of_the_registry() {
    let name = "a_published_model_works_with_the_manifest_of_the_registry";
    let Some(yunet) = asset(name, "models/yunet_n_320_320.onnx") else { return };
    let place = Place::new("http://127.0.0.1:9/x");
    let (code, _, stderr) = run(pull().args(["yunet", "--models-dir"]).arg(place.models()).arg("--from").arg(yunet));
    assert_eq!(code, 0, "{stderr}");
    let (code, stdout, stderr) = run(saccade("models").args(["check", "yunet", "--models-dir"]).arg(place.models()));
    assert_eq!((code, stdout.starts_with("yunet@1: ready; ")), (0, true), "{stdout}{stderr}");
}

#[test]
fn the_proxy_of_the_environment_is_asked() {
    let proxy = Publisher::start(|_, _| Reply::status("502 Bad Gateway"));
    let publisher = Publisher::start(|_, request| Reply::fitting(request, &file(), TAG));
    let place = Place::new(&publisher.url());
    let through = |no_proxy: &str| {
        let mut program = place.pull();
        run(program.env("HTTPS_PROXY", format!("http://{}", proxy.address)).env("NO_PROXY", no_proxy))
    };
    let (code, _, stderr) = through("example.com");
    assert_eq!((code, publisher.requests().len()), (69, 0), "{stderr}");
    assert_eq!(proxy.requests()[0].line, format!("CONNECT {} HTTP/1.1", publisher.address));
    let (code, _, stderr) = through("127.0.0.1");
    assert_eq!((code, proxy.requests().len(), publisher.requests().len()), (0, 1, 1), "{stderr}");
}

#[test]
fn only_certificates_that_the_machine_trusts_are_taken() {
    let folder = tempfile::tempdir().unwrap();
    let (own, foreign) = (folder.path().join("own.pem"), folder.path().join("foreign.pem"));
    let publisher = Publisher::secure(&own, |_, request| Reply::fitting(request, &file(), TAG));
    let _other = Publisher::secure(&foreign, |_, _| Reply::status("404 Not Found"));
    let place = Place::new(&publisher.url());
    let trusting = |certificate: &Path| run(place.pull().env("SSL_CERT_FILE", certificate).env_remove("SSL_CERT_DIR"));
    let (code, _, stderr) = trusting(&foreign);
    assert_eq!((code, publisher.requests().len()), (69, 0), "{stderr}");
    assert!(stderr.contains("certificate"), "{stderr}");
    let (code, _, stderr) = trusting(&own);
    assert_eq!(code, 0, "{stderr}");
    place.assert_whole();
}

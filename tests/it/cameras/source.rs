use std::env;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};

use saccade::scene::Scene;
use serde_json::{Value, json};
use tempfile::TempDir;

/// The interpreter that has the system's GStreamer.
const PYTHON: &str = "/usr/bin/python3";
const CAMERA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/cameras/camera.py");
/// Frames of the drawn scene that a camera shows again and again.
const FRAMES: u64 = 30;

/// A camera that shows the drawn scene, in a process of its own. Dropped, it is killed.
pub struct Source {
    pub port: u16,
    child: Child,
    orders: ChildStdin,
    folder: TempDir,
}

impl Source {
    /// Starts with these settings; nothing where there is no GStreamer.
    pub async fn start(settings: Value) -> Option<Self> {
        if !is_there("cameras") {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let pictures = folder.path().join("scene.i420");
        let mut all = json!({"port": 0, "pictures": pictures});
        all.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
        let starting = tokio::task::spawn_blocking(move || {
            let scene = Scene::new(640, 480, 15, 1);
            let frames = (0..FRAMES).flat_map(|number| scene.frame(number).planes().concat());
            std::fs::write(&pictures, frames.collect::<Vec<u8>>()).unwrap();
            let mut child = Command::new(PYTHON)
                .args([CAMERA, &all.to_string()])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let (orders, mut told) = (child.stdin.take().unwrap(), String::new());
            BufReader::new(child.stdout.take().unwrap()).read_line(&mut told).unwrap();
            let port = told.trim().parse().unwrap_or_else(|_| panic!("the camera says {told:?}"));
            Self { port, child, orders, folder }
        });
        Some(starting.await.unwrap())
    }

    /// Tells it to `pause` or to `resume`.
    pub fn order(&mut self, order: &str) {
        writeln!(self.orders, "{order}").unwrap();
    }

    /// A file that lives as long as the camera.
    pub fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port that nothing listens on, for a camera that comes later; nothing where none can come. It is none of those that the
/// system gives to whoever asks for any, so that nobody else gets it meanwhile.
pub fn free_port(test: &str) -> Option<u16> {
    const FIRST: u16 = 1024;
    if !is_there(test) {
        return None;
    }
    let given = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
    let end: u16 = given.split_whitespace().next().unwrap().parse().unwrap();
    let count = usize::from(end.saturating_sub(FIRST));
    // Tests in other processes begin elsewhere.
    let begin = usize::try_from(std::process::id()).unwrap() % count.max(1);
    let mut ports = (FIRST..end).cycle().skip(begin).take(count);
    let found = ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    Some(found.expect("a free port below those that the system gives"))
}

/// Whether there is GStreamer's RTSP server. Without it a test is skipped, except where `CI` is set: there it fails.
fn is_there(test: &str) -> bool {
    let look = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer";
    let found = Command::new(PYTHON).args(["-c", look]).stderr(Stdio::null()).status();
    if found.is_ok_and(|status| status.success()) {
        return true;
    }
    assert!(env::var("CI").as_deref() != Ok("true"), "{test}: GStreamer's RTSP server is not there");
    println!("skipped {test}: GStreamer's RTSP server is not there");
    false
}

//! `saccade bench` against a server in this process, as a user would call it.

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::program::{MODELS, run, saccade};
use crate::server::Server;

/// The command; encoded clips are kept in `cache`.
fn bench(cache: &Path, url: &str) -> Command {
    let mut program = saccade("bench");
    program.env("XDG_CACHE_HOME", cache).args(["-q", "--url", url]);
    program
}

/// Runs the command without standing in the way of the server.
async fn finish(mut program: Command) -> (i32, String, String) {
    tokio::task::spawn_blocking(move || run(&mut program)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_measured_in_each_of_its_dialects() {
    let server = Server::start(&[]).await;
    let folder = TempDir::new().unwrap();
    for (path, codec) in [("/v1/signal", "h264"), ("/v1/offer", "vp8"), ("/v1/whip", "h264")] {
        let url = server.url(path);
        let url = if path == "/v1/signal" { url.replace("http:", "ws:") } else { url };
        let (json, html) = (folder.path().join("report.json"), folder.path().join("report.html"));
        let mut program = bench(folder.path(), &url);
        program.args(["--sessions", "2", "--duration", "4s", "--codec", codec, "--size", "320x240", "--fps", "15"]);
        program.args(["--return", "exact", "--server-pid", &std::process::id().to_string()]);
        program.arg("--json").arg(&json).arg("--html").arg(&html);
        let (code, table, errors) = finish(program).await;
        assert_eq!(code, 0, "{table}{errors}");
        assert!(table.contains("2 connected") && table.contains("result latency"), "{table}");
        let report: Value = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
        let count = |key: &str| report[key].as_u64().unwrap();
        assert_eq!((count("sessions"), count("connected"), count("rejected"), count("lost")), (2, 2, 0, 0), "{report}");
        // Each frame is processed, or the server says why not; the last may still be on its way.
        let dropped = &report["dropped"];
        let dropped: u64 =
            ["superseded", "late", "skipped"].iter().map(|reason| dropped[*reason].as_u64().unwrap()).sum();
        let known = count("results") + dropped;
        assert!(count("results") > 20 && known + 4 >= count("frames_sent"), "{report}");
        assert!(count("joined") + 4 >= count("results"), "{report}");
        // The model finds what the scene draws.
        assert!(report["recall"].as_f64().unwrap() > 0.9 && report["precision"].as_f64().unwrap() > 0.9, "{report}");
        let latency = |key: &str| report[key]["p50"].as_f64().unwrap();
        assert!(latency("video_latency_ms") > 0.0 && latency("connect_ms") > 0.0);
        assert!(latency("result_latency_ms") > 0.0 && latency("server_latency_ms") > 0.0, "{report}");
        assert!(report["server_cpu_ms_per_result"].as_f64().unwrap() > 0.0 && count("server_rss_bytes") > 0);
        assert!(std::fs::read_to_string(html).unwrap().contains("<polyline"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_sessions_are_counted_and_sessions_of_several_kinds_run_together() {
    let server = Server::start(&[("admission.mode", "fixed"), ("admission.max_sessions", "2")]).await;
    let folder = TempDir::new().unwrap();
    let scenario = folder.path().join("two.toml");
    let measure = async |server: &Server, text: &str| {
        std::fs::write(&scenario, text).unwrap();
        let mut program = bench(folder.path(), &server.url("/v1/signal").replace("http:", "ws:"));
        program.args(["--json", "-", "--scenario"]).arg(&scenario);
        let (code, report, errors) = finish(program).await;
        assert_eq!(code, 0, "{errors}");
        serde_json::from_str::<Value>(&report).unwrap()
    };
    let kinds = r#"
        about = "two kinds"
        sessions = 2
        duration_s = 3
        ramp_per_s = 20
        kinds = [
            { weight = 1, codec = "vp8", size = [320, 240], fps = 10, return = "results" },
            { weight = 1, codec = "h264", size = [160, 120], fps = 10 },
        ]"#;
    let report = measure(&Server::start(&[]).await, kinds).await;
    let sessions = report["per_session"].as_array().unwrap();
    let results = sessions.iter().filter(|session| session["results"].as_u64().unwrap() > 5).count();
    let returned = sessions.iter().filter(|session| session["frames_returned"].as_u64().unwrap() > 5).count();
    assert_eq!((results, returned), (2, 1), "{report}");

    let one_too_many = "about = 'x'\nsessions = 3\nduration_s = 3\nkinds = [{ size = [160, 120], fps = 10 }]";
    let report = measure(&server, one_too_many).await;
    assert_eq!((report["connected"].as_u64(), report["rejected"].as_u64()), (Some(2), Some(1)), "{report}");
    let sessions = report["per_session"].as_array().unwrap();
    assert!(sessions.iter().any(|session| session["reason"] == "capacity"), "{report}");
}

#[test]
fn what_cannot_be_done_is_said() {
    let folder = TempDir::new().unwrap();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{nobody}/offer");
    let small = ["--size", "64x64", "--fps", "5", "--duration", "5s"];
    let (code, table, _) = run(bench(folder.path(), &url).args(small));
    assert_eq!(code, 69, "{table}");
    assert!(table.contains(&url) && table.contains("0 connected"), "{table}");

    let text = folder.path().join("clip.mp4");
    std::fs::write(&text, "no video").unwrap();
    for (arguments, wanted) in [
        (["--clip", text.to_str().unwrap()], "clip.mp4"),
        (["--clip", "nowhere.mp4"], "nowhere.mp4"),
        (["--scenario", "nowhere"], "neither one of steady, ramp"),
        (["--signaling", "ws"], "a URL for --signaling ws is wanted"),
    ] {
        let (code, _, errors) = run(bench(folder.path(), &url).args(arguments));
        assert_eq!(code, 64, "{arguments:?}: {errors}");
        assert!(errors.contains(wanted), "{arguments:?}: {errors}");
    }
}

#[test]
fn bare_stages_are_timed() {
    // ONNX Runtime is found in the cache.
    let mut program = saccade("bench");
    program.args(["stages", "--json", "--frames", "5", "--size", "320x240"]);
    program.args(["--model", "scene-blobs", "--models-dir", MODELS]);
    let (code, report, errors) = run(&mut program);
    assert_eq!(code, 0, "{errors}");
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["frames"], 5);
    let stages = report["stages_ms"].as_object().unwrap();
    let sum: f64 = stages.values().map(|stage| stage["p50"].as_f64().unwrap()).sum();
    assert_eq!(stages.len(), 6);
    assert!(sum > 0.0 && sum < report["total_ms"]["max"].as_f64().unwrap() * 2.0, "{report}");
}

#[test]
fn a_plan_tells_machines_and_money_from_measured_stages() {
    let folder = TempDir::new().unwrap();
    let prices = folder.path().join("prices.toml");
    let text =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/prices.example.toml")).unwrap();
    std::fs::write(&prices, &text).unwrap();
    let plan = |sessions: &str, returned: &str| {
        let mut program = saccade("plan");
        program.args(["--sessions", sessions, "--resolution", "320x240", "--fps", "10"]);
        program.args(["--return", returned, "--model", "scene-blobs", "--models-dir", MODELS]);
        program.arg("--price-file").arg(&prices);
        program
    };
    let (code, report, errors) = run(plan("500", "exact").arg("--json"));
    assert_eq!(code, 0, "{errors}");
    let report: Value = serde_json::from_str(&report).unwrap();
    let costs = report["costs_ms"].as_object().unwrap();
    assert!(costs.values().filter_map(Value::as_f64).all(|cost| cost > 0.0), "{report}");
    let needs = |key: &str| report["needs"][key].as_f64().unwrap();
    // The utilisation law, and what video of this size takes on the network.
    assert!((needs("cores") - 500.0 * 10.0 * needs("frame_ms") / 1e3).abs() < 1e-6, "{report}");
    assert!(needs("in_bps") > 500.0 * 100_000.0 && needs("out_bps") > needs("in_bps"), "{report}");
    let fleets = report["fleets"].as_array().unwrap();
    for fleet in fleets {
        let count = |key: &str| fleet[key].as_u64().unwrap();
        assert!(
            count("machines") * count("sessions_each") >= 500 && fleet["per_hour"].as_f64().unwrap() > 0.0,
            "{fleet}"
        );
    }
    assert!(fleets.len() == 2 && report["currency"] == "EUR", "{report}");

    // This machine has no GPU that models ran on: what one would bring is not made up.
    std::fs::write(&prices, format!("{text}gpus = 4\n")).unwrap();
    let (code, told, errors) = run(&mut plan("500", "exact"));
    assert_eq!(code, 0, "{errors}");
    assert!(told.contains("note        large: its GPUs count for nothing here"), "{told}");
    let (_, report, _) = run(plan("500", "exact").arg("--json"));
    let with_gpus: Value = serde_json::from_str(&report).unwrap();
    assert_eq!(with_gpus["notes"].as_array().unwrap().len(), 1, "{with_gpus}");
    assert_eq!(report_of(&mut plan_here())["fleets"][0]["machine"]["gpus"], 0);

    let long = "#".repeat(1 << 20);
    for (wrong, part) in [
        ("cores_of_it = 3", "cores_of_it"),
        ("gpus = -1", "gpus"),
        ("[[machine]]\nname = \"x\"\ncores = nan", "cores"),
        ("[[machine]]\nname = \"x\"\ncores = 2\nper_hour = -1", "per_hour"),
        (long.as_str(), "bytes"),
    ] {
        std::fs::write(&prices, format!("{text}{wrong}\n")).unwrap();
        let (code, _, errors) = run(&mut plan("5", "results"));
        assert_eq!(code, 64, "{errors}");
        assert!(errors.contains("prices.toml") && errors.contains(part), "{errors}");
    }
}

/// A plan for this machine alone.
fn plan_here() -> Command {
    let mut program = saccade("plan");
    program.args([
        "--sessions",
        "1",
        "--resolution",
        "320x240",
        "--json",
        "--model",
        "scene-blobs",
        "--models-dir",
        MODELS,
    ]);
    program
}

fn report_of(program: &mut Command) -> Value {
    let (code, report, errors) = run(program);
    assert_eq!(code, 0, "{errors}");
    serde_json::from_str(&report).unwrap()
}

#[test]
fn what_cannot_be_planned_is_told_before_anything_is_measured() {
    for (wrong, part) in [
        (&["--sessions", "0"][..], "1..=1000000"),
        (&["--sessions", "x"], "--sessions"),
        (&["--sessions", "1", "--resolution", "640"], "WIDTHxHEIGHT"),
        (&["--sessions", "1", "--resolution", "641x480"], "even numbers"),
        (&["--sessions", "1", "--resolution", "0x0"], "WIDTHxHEIGHT"),
        (&["--sessions", "1", "--resolution", "99999999999x480"], "WIDTHxHEIGHT"),
        (&["--sessions", "1", "--fps", "0"], "1..=120"),
        (&["--sessions", "1", "--utilization", "nan"], "0.05 to 1"),
        (&["--sessions", "1", "--inferred=-1"], "0.05 to 1"),
        (&["--sessions", "1", "--cores", "0"], "1..=1024"),
        (&["--sessions", "1", "--price-file", "nowhere.toml"], "nowhere.toml"),
        (&["--sessions", "1", "--price-file", "/dev/zero"], "/dev/zero"),
        (&["--sessions", "1", "--model", "nothing-like-it"], "nothing-like-it"),
    ] {
        let mut program = saccade("plan");
        let (code, told, errors) = run(program.args(["--models-dir", MODELS]).args(wrong));
        assert_eq!((code, told.as_str()), (64, ""), "{wrong:?}: {errors}");
        assert!(errors.contains(part), "{wrong:?}: {errors}");
    }
}

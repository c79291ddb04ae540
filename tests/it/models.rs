//! Loading models through ONNX Runtime: good ones, bad ones, and one after the other.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use saccade::calibration::{Calibration, Origin};
use saccade::frame::Frame;
use saccade::infer::manifest::{BackendChoice, Precision};
use saccade::infer::{Engine, Error, ModelSpec, Options, Outcome, Priority, Repository};
use saccade::media::{ColorInfo, I420, MediaTime};
use saccade::scene::Scene;

use crate::graphs::{self, Float};

const EMBEDDED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models/ppe-nano/2");

/// A folder `models/NAME/1` with the default model, its manifest and graph changed.
fn model(root: &Path, name: &str, change: impl FnOnce(String) -> String, graph: impl FnOnce(Vec<u8>) -> Vec<u8>) {
    let folder = root.join(name).join("1");
    fs::create_dir_all(&folder).unwrap();
    let manifest = fs::read_to_string(format!("{EMBEDDED}/manifest.toml")).unwrap();
    let lines = manifest.lines().filter(|line| !line.starts_with("sha256")).map(|line| format!("{line}\n"));
    let manifest = change(lines.collect::<String>()).replacen("name = \"ppe-nano\"", &format!("name = \"{name}\""), 1);
    let manifest = manifest.replacen("version = \"2\"", "version = \"1\"", 1);
    fs::write(folder.join("manifest.toml"), manifest).unwrap();
    fs::write(folder.join("model.onnx"), graph(fs::read(format!("{EMBEDDED}/model.onnx")).unwrap())).unwrap();
    for variant in ["model.int8.onnx", "model.fp16.onnx"] {
        fs::copy(format!("{EMBEDDED}/{variant}"), folder.join(variant)).unwrap();
    }
}

/// The default model under another name, with its manifest changed.
pub fn copy(root: &Path, name: &str, change: impl FnOnce(String) -> String) -> ModelSpec {
    model(root, name, change, |graph| graph);
    ModelSpec::open(&root.join(name).join("1")).unwrap()
}

/// The default model's manifest without its int8 and fp16 graphs.
pub fn without_variants(text: &str) -> String {
    let int8 = text.replace("[variants.int8]\npath = \"model.int8.onnx\"\n", "");
    int8.replace("[variants.fp16]\npath = \"model.fp16.onnx\"\n", "")
}

/// A model of the default one's classes with a smaller input, 64 × 64, that finds nothing of any use.
pub fn small(root: &Path, name: &str, change: impl FnOnce(String) -> String) -> ModelSpec {
    let change = |text: String| change(without_variants(&text).replace("[320, 320]", "[64, 64]"));
    model(root, name, change, |_| graphs::means(64, Float::Single));
    ModelSpec::open(&root.join(name).join("1")).unwrap()
}

fn cpu() -> Options {
    Options { precision: Some(Precision::Fp32), backend: Some(BackendChoice::Cpu), ..Options::default() }
}

#[test]
fn a_bad_model_is_refused_with_a_stable_error_and_the_others_load() {
    let root = tempfile::tempdir().unwrap();
    let same = |text: String| text;
    let whole = |graph: Vec<u8>| graph;
    model(root.path(), "good", same, whole);
    model(root.path(), "truncated", same, |graph| graph[..graph.len() / 2].to_vec());
    model(root.path(), "empty", same, |_| Vec::new());
    model(root.path(), "text", same, |_| b"this is no graph".to_vec());
    model(root.path(), "classes", |text| text.replace("[\"head\", \"helmet\"]", "[\"head\"]"), whole);
    model(root.path(), "decoder", |text| text.replace("\"yolov8\"", "\"yunet\""), whole);
    model(root.path(), "size", |text| text.replace("[320, 320]", "[416, 416]"), whole);
    model(root.path(), "layout", |text| text.replace("\"nchw\"", "\"nhwc\""), whole);
    model(root.path(), "tensor", |text| text.replace("\"images\"", "\"pictures\""), whole);
    let repository = Repository::scan(Some(root.path())).unwrap();
    assert_eq!(repository.refused(), []);
    let engine = Engine::new(cpu()).unwrap();
    let error = |name: &str| engine.load(repository.find(name).unwrap()).unwrap_err();
    for name in ["truncated", "empty", "text"] {
        assert!(matches!(error(name), Error::UnreadableModel { file, .. } if file == "model.onnx"), "{name}");
    }
    let Error::WrongOutput { decoder, tensor, expected, found } = error("classes") else { panic!() };
    assert_eq!((decoder, tensor.as_str()), ("yolov8", "output0"));
    assert_eq!((expected.as_str(), found.as_str()), ("[batch, 5, n]", "[?, 6, 2100]"));
    let Error::WrongOutput { decoder: "yunet", tensor, found, .. } = error("decoder") else { panic!() };
    assert!(tensor == "cls_8" && found.contains("`output0`"), "{tensor} {found}");
    let Error::WrongInput { tensor, expected, found } = error("size") else { panic!() };
    assert_eq!(tensor, "images");
    assert!(expected.contains("[1, 3, 416, 416]") && found.contains("[?, 3, 320, 320]"), "{expected} {found}");
    assert!(matches!(error("layout"), Error::WrongInput { .. }));
    assert!(
        matches!(error("tensor"), Error::WrongInput { tensor, found, .. } if tensor == "pictures" && found == "`images`")
    );
    assert!(engine.models().is_empty());
    let good = engine.load(repository.find("good").unwrap()).unwrap();
    assert!(good.is_ready());
    assert_eq!(engine.get("good").unwrap().id(), "good@1");
    engine.shutdown();
    assert!(!good.is_ready());
}

#[test]
fn a_model_is_found_by_name_and_replaced_by_its_like() {
    let engine = Engine::new(cpu()).unwrap();
    let spec = ModelSpec::embedded().unwrap();
    let first = engine.load(&spec).unwrap();
    let second = engine.load(&spec).unwrap();
    assert_eq!(engine.models().len(), 1);
    assert!(Arc::ptr_eq(&engine.get("ppe-nano@2").unwrap(), &second));
    assert!(first.is_ready(), "whoever has the old one keeps it");
    assert!(engine.get("ppe-nano@999").is_none());
    assert!(engine.unload("ppe-nano").is_some() && engine.get("ppe-nano").is_none());
}

#[test]
fn a_model_is_told_from_one_with_another_graph_under_the_same_manifest() {
    let engine = Engine::new(cpu()).unwrap();
    let root = tempfile::tempdir().unwrap();
    let content = |graph: fn(Vec<u8>) -> Vec<u8>| {
        model(root.path(), "told", |text| text, graph);
        let loaded = engine.load(&ModelSpec::open(&root.path().join("told").join("1")).unwrap()).unwrap();
        loaded.content().unwrap().to_owned()
    };
    let first = content(|graph| graph);
    assert_eq!(content(|graph| graph), first);
    // A field of a graph's file that says something about it.
    let other = content(|graph| [&graph[..], b"\x32\x05other"].concat());
    assert_ne!(other, first);
    engine.shutdown();
}

#[test]
fn the_embedded_model_takes_the_fastest_of_what_its_manifest_allows() {
    let engine = Engine::new(Options::default()).unwrap();
    let model = engine.load(&ModelSpec::embedded().unwrap()).unwrap();
    let selection = model.selection();
    println!("{selection:?}");
    assert!(matches!(selection.precision, Precision::Fp32 | Precision::Int8), "{selection:?}");
    assert!(!selection.others.is_empty(), "the ways not taken are told: {selection:?}");
    let int8 = Engine::new(Options { precision: Some(Precision::Int8), ..cpu() }).unwrap();
    let int8 = int8.load(&ModelSpec::embedded().unwrap()).unwrap();
    assert_eq!(int8.selection().precision, Precision::Int8);
    let gray = I420::new(64, 48);
    let params = Arc::new(int8.default_params());
    assert_eq!(int8.detect(&Arc::new(gray), ColorInfo::default(), &params).unwrap().detections, []);
}

#[test]
fn two_instances_serve_many_sessions_each_in_order() {
    const SESSIONS: u64 = 4;
    const FRAMES: u64 = 6;
    let root = tempfile::tempdir().unwrap();
    model(root.path(), "twice", |text| text.replace("instances = 1", "instances = 2"), |graph| graph);
    let engine = Engine::new(cpu()).unwrap();
    let model = engine.load(&ModelSpec::open(&root.path().join("twice/1")).unwrap()).unwrap();
    let params = Arc::new(model.default_params());
    let (report, outcomes) = sync_channel(64);
    let slots = (0..SESSIONS).map(|session| {
        let report = report.clone();
        model.attach(Priority::Normal, move |outcome| report.send((session, outcome)).unwrap())
    });
    let slots = slots.collect::<Vec<_>>();
    let picture = Arc::new(I420::new(320, 240));
    let submit = |session: u64, id: u64| {
        let now = saccade::clock::now();
        assert!(
            slots[usize::try_from(session).unwrap()].submit(frame(id, &picture, now), Arc::clone(&params)).is_none()
        );
    };
    (0..SESSIONS).for_each(|session| submit(session, 0));
    let mut next = [0; SESSIONS as usize];
    for _ in 0..SESSIONS * FRAMES {
        let (session, outcome) = outcomes.recv_timeout(Duration::from_secs(60)).unwrap();
        let Outcome::Done(inferred) = outcome else { panic!("{session}: not done") };
        let next = &mut next[usize::try_from(session).unwrap()];
        assert_eq!(inferred.frame.id, *next);
        *next += 1;
        if *next < FRAMES {
            submit(session, *next);
        }
    }
    assert_eq!(next, [FRAMES; SESSIONS as usize]);
    engine.shutdown();
}

#[test]
fn a_batch_finds_exactly_what_its_pictures_alone_have() {
    let root = tempfile::tempdir().unwrap();
    let blobs = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/scene-blobs/1");
    let folder = root.path().join("scene-blobs/1");
    fs::create_dir_all(&folder).unwrap();
    let manifest = fs::read_to_string(blobs.join("manifest.toml")).unwrap();
    fs::write(folder.join("manifest.toml"), manifest.replace("[1, 2, 4, 8]", "[1, 4]")).unwrap();
    fs::copy(blobs.join("model.onnx"), folder.join("model.onnx")).unwrap();
    let spec = ModelSpec::open(&folder).unwrap();
    for backend in [BackendChoice::Cpu, BackendChoice::OpenVino] {
        compare_batches(&spec, Options { backend: Some(backend), ..cpu() });
    }
}

/// Compares what a model finds in four pictures together with what it finds in each alone.
pub fn compare_batches(spec: &ModelSpec, options: Options) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kept.json");
    let options = Options { calibration: Calibration::Keep(file.clone()), instances: Some(1), ..options };
    drop(Engine::new(options.clone()).unwrap().load(spec).unwrap());
    // As if batches of four cost hardly more than one picture, so that they are made.
    let mut kept: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    kept["entries"][0]["found"]["buckets"] = serde_json::json!([[1, 900_000], [4, 900_001]]);
    kept["entries"][0]["found"]["disturbance"] = serde_json::json!(0);
    fs::write(&file, kept.to_string()).unwrap();
    let engine = Engine::new(options).unwrap();
    let model = engine.load(spec).unwrap();
    assert_eq!(model.selection().origin, Origin::Kept);
    assert_eq!(model.selection().buckets.len(), 2);

    let scene = Scene::new(640, 480, 30, 7);
    let other = Scene::new(320, 400, 30, 8);
    let pictures: Vec<_> = [scene.frame(0), other.frame(40), scene.frame(100), scene.frame(200)].map(Arc::new).into();
    let params = Arc::new(model.default_params());
    let color = scene.color();
    let alone: Vec<_> =
        pictures.iter().map(|picture| model.detect(picture, color, &params).unwrap().detections).collect();
    assert!(alone.iter().all(|found| found.len() > 1) && alone[0] != alone[2], "{alone:?}");

    let (report, outcomes) = sync_channel(64);
    let mut together = false;
    // The first frames may find the instance idle; it takes the ones after them together.
    for round in 0.. {
        assert!(round < 50, "never ran as a batch");
        let slots: Vec<_> = (0..5)
            .map(|nth| {
                let report = report.clone();
                model.attach(Priority::Normal, move |outcome| report.send((nth, outcome)).unwrap())
            })
            .collect();
        let busy = Arc::new(Scene::new(1280, 960, 30, 7).frame(0));
        let submit = |slot: usize, picture: &Arc<I420>| {
            let frame = Frame { color, ..frame(0, picture, saccade::clock::now()) };
            assert!(slots[slot].submit(frame, Arc::clone(&params)).is_none());
        };
        submit(4, &busy);
        pictures.iter().enumerate().for_each(|(slot, picture)| submit(slot, picture));
        for _ in 0..5 {
            let (nth, outcome) = outcomes.recv_timeout(Duration::from_secs(60)).unwrap();
            let Outcome::Done(inferred) = outcome else { panic!("{outcome:?}") };
            if nth < 4 {
                assert_eq!(inferred.detections, alone[nth], "{:?}, picture {nth}", model.selection());
                together |= inferred.batch_size == 4;
            }
        }
        if together {
            break;
        }
    }
    engine.shutdown();
}

#[test]
fn a_kept_calibration_saves_the_comparison_and_another_machine_s_is_ignored() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("calibration.json");
    let options = Options { calibration: Calibration::Keep(file.clone()), ..Options::default() };
    let spec = ModelSpec::embedded().unwrap();
    let look = |options: &Options| Engine::new(options.clone()).unwrap().look(&spec).unwrap();
    let first = look(&options);
    assert_eq!(first.origin, Origin::Measured);
    let change = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut kept: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        change(&mut kept["entries"].as_array_mut().unwrap().last_mut().unwrap()["found"]);
        fs::write(&file, kept.to_string()).unwrap();
    };
    change(&|found| found["disturbance"] = serde_json::json!(0));
    let second = look(&options);
    assert_eq!(second.origin, Origin::Kept);
    assert_eq!((second.provider, second.precision), (first.provider, first.precision));
    assert_eq!((second.instances, &second.others), (first.instances, &first.others));
    let fp32 = look(&Options { precision: Some(Precision::Fp32), ..options.clone() });
    assert_eq!((fp32.origin, fp32.precision), (Origin::Measured, Precision::Fp32), "asked for something else");
    assert_eq!(
        look(&Options { calibration: Calibration::Renew(file.clone()), ..options.clone() }).origin,
        Origin::Measured
    );
    // Measured anew, another provider may have won.
    change(&|found| found["disturbance"] = serde_json::json!(0));
    let kept = look(&options);
    assert_eq!(kept.origin, Origin::Kept);
    // What was measured while others kept the processors busy holds until the model is seen to be much faster.
    let slow = |disturbance: u32| {
        change(&|found| {
            found["buckets"] = serde_json::json!([[1, 30_000_000]]);
            found["disturbance"] = serde_json::json!(disturbance);
        });
        look(&options)
    };
    let undisturbed = slow(0);
    assert_eq!((undisturbed.origin, undisturbed.measured), (Origin::Kept, Duration::from_secs(30)));
    let disturbed = slow(200);
    assert_eq!(disturbed.origin, Origin::Measured);
    assert!(disturbed.measured < Duration::from_secs(15));
    // A provider that does not exist, and a machine that is not this one.
    let kept = disturbed;
    let text = fs::read_to_string(&file).unwrap();
    for (from, to) in [(format!("\"{}\"", kept.provider), "\"abacus\""), (" cores".to_owned(), " noses")] {
        fs::write(&file, text.replace(&from, to)).unwrap();
        assert_eq!(look(&options).origin, Origin::Measured, "{to}");
    }
    assert_eq!(look(&Options { calibration: Calibration::Off, ..options }).origin, Origin::Measured);
}

#[test]
fn a_graph_for_one_picture_has_no_batches() {
    let root = tempfile::tempdir().unwrap();
    // In the file, a side is a name (field 2) or a length (field 1): here 1, in as many bytes as `batch` takes.
    let (name, one) = (b"\x12\x05batch", b"\x08\x81\x80\x80\x80\x80\x00");
    model(
        root.path(),
        "single",
        |text| text,
        |mut graph| {
            while let Some(at) = graph.windows(name.len()).position(|bytes| bytes == name) {
                graph[at..at + name.len()].copy_from_slice(one);
            }
            graph
        },
    );
    let engine = Engine::new(cpu()).unwrap();
    let selection = engine.look(&ModelSpec::open(&root.path().join("single/1")).unwrap()).unwrap();
    assert_eq!(selection.buckets.len(), 1);
    assert!(selection.others.iter().any(|other| other.contains("one picture a run")), "{:?}", selection.others);
}

fn frame(id: u64, picture: &Arc<I420>, now: Instant) -> Frame {
    Frame {
        id,
        picture: Arc::clone(picture).into(),
        color: ColorInfo::default(),
        time: MediaTime(0),
        arrival: now,
        deadline: now + Duration::from_secs(60),
        reorder_wait: Duration::ZERO,
        decode_time: Duration::ZERO,
        worked: Duration::ZERO,
        decoded_at: now,
    }
}

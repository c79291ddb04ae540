//! `saccade detect` and `saccade models`: the built program on pictures and videos of the drawn scene.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use saccade::decode::Limits;
use saccade::decode::file::{Picture, Reader};
use saccade::encode::file::{Effort, Settings, Writer};
use saccade::encode::picture::{self, Format};
use saccade::media::{Codec, I420};
use saccade::scene::Scene;
use saccade_signaling::SessionResult;
use serde_json::Value;
use tempfile::TempDir;

use crate::program::{MODELS, run, saccade};
use crate::publisher::iou;

const FRAMES: u64 = 24;
/// The videos' first frame: many people are in it.
const FIRST: u64 = 60;

/// A folder with pictures and a video of the scene.
struct Files {
    folder: TempDir,
    scene: Scene,
}

impl Files {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), scene: Scene::new(640, 480, 30, 1) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn picture(&self, name: &str, number: u64) -> PathBuf {
        let path = self.path(name);
        let format = Format::of(&path).unwrap();
        fs::write(&path, picture::encode(&self.scene.frame(number), self.scene.color(), format).unwrap()).unwrap();
        path
    }

    fn video(&self, name: &str) -> PathBuf {
        self.video_of(name, (FIRST..FIRST + FRAMES).map(|number| self.scene.frame(number)))
    }

    fn video_of(&self, name: &str, pictures: impl Iterator<Item = I420>) -> PathBuf {
        let path = self.path(name);
        let settings =
            Settings { codec: Codec::H264, width: 640, height: 480, fps: 30.0, quality: 12, effort: Effort::Fast };
        let mut writer = Writer::create(&path, settings).unwrap();
        pictures.for_each(|picture| writer.write(&picture, self.scene.color()).unwrap());
        writer.finish().unwrap();
        path
    }

    /// All names in the folder.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn detect() -> Command {
    let mut program = saccade("detect");
    program.args(["--model", "scene-blobs", "--models-dir", MODELS]);
    program
}

/// Every line as the file it names and the result.
fn results(lines: &str) -> Vec<(String, SessionResult)> {
    let line = |line: &str| {
        let value: Value = serde_json::from_str(line).unwrap();
        (value["file"].as_str().unwrap().to_owned(), serde_json::from_value(value).unwrap())
    };
    lines.lines().map(line).collect()
}

/// Heads of which less shows may be missed.
const PLAIN: f32 = 0.6;

/// Every head that shows well is found, where it is and as what it is, and nothing is found where no head is.
fn assert_true(scene: &Scene, number: u64, result: &SessionResult) {
    let truth = scene.truth(number);
    assert!(truth.iter().filter(|head| head.visible > PLAIN).count() > 2, "frame {number} has heads");
    for head in truth.iter().filter(|head| head.visible > PLAIN) {
        let same = result.detections.iter().filter(|detection| detection.class_id == head.class_id);
        let best = same.map(|detection| iou(detection.bbox, head.bbox)).fold(0.0, f32::max);
        assert!(best > 0.7, "frame {number}: {head:?} was found with {best}: {:?}", result.detections);
    }
    // Heads of which little shows are not in the truth, but may be found.
    assert!(result.detections.len() <= truth.len() + 2, "{truth:?} {:?}", result.detections);
}

fn pictures(path: &Path) -> Vec<Arc<I420>> {
    let pictures = Reader::open(path, Limits::default()).unwrap();
    pictures.map(|picture| picture.unwrap()).map(|Picture { picture, .. }| picture).collect()
}

/// Largest luma difference within two pixels of a point.
fn difference(a: &I420, b: &I420, [x, y]: [f32; 2]) -> u8 {
    let (x, y, width) = (x as usize, y as usize, a.width() as usize);
    let at = |row: usize| row * width + x;
    let rows = y.saturating_sub(2)..(y + 3).min(a.height() as usize);
    rows.map(|row| a.planes()[0][at(row)].abs_diff(b.planes()[0][at(row)])).max().unwrap()
}

/// Pictures differ on the upper edges of the boxes and nowhere else.
fn assert_drawn(before: &I420, after: &I420, result: &SessionResult) {
    let mut drawn = 0;
    for detection in &result.detections {
        let [x1, y1, x2, _] = detection.bbox;
        drawn += usize::from(difference(before, after, [f32::midpoint(x1, x2), y1.max(1.0)]) > 12);
    }
    assert!(drawn > 0 && drawn * 10 >= result.detections.len() * 9, "{drawn} of {}", result.detections.len());
    let clear = |at: [f32; 2]| {
        result.detections.iter().all(|detection| {
            let [x1, y1, x2, y2] = detection.bbox;
            at[0] < x1 - 130.0 || at[0] > x2 + 130.0 || at[1] < y1 - 50.0 || at[1] > y2 + 50.0
        })
    };
    let places = (0..16 * 12).map(|index| [(index % 16 * 40 + 20) as f32, (index / 16 * 40 + 20) as f32]);
    let places: Vec<_> = places.filter(|at| clear(*at)).collect();
    assert!(!places.is_empty());
    for at in places {
        assert!(difference(before, after, at) < 48, "something was drawn at {at:?}");
    }
}

#[test]
fn heads_in_pictures_are_found_and_outlined() {
    let files = Files::new();
    for (name, number) in [("a.png", FIRST), ("b.jpg", FIRST + 100)] {
        let (input, annotated, json) =
            (files.picture(name, number), files.path(&format!("out-{name}")), files.path("r.jsonl"));
        let (code, stdout, stderr) =
            run(detect().arg(&input).arg("--annotate").arg(&annotated).arg("--json").arg(&json));
        assert_eq!((code, stdout.as_str(), stderr.as_str()), (0, "", ""));
        let results = results(&fs::read_to_string(&json).unwrap());
        let [(file, result)] = &results[..] else { panic!("{results:?}") };
        assert_eq!(Path::new(file), input);
        assert_eq!((result.width, result.height, result.model.as_str()), (640, 480, "scene-blobs@1"));
        assert_eq!((result.session_id.as_str(), result.frame_id, result.rtp_timestamp_in), ("offline", 0, 0));
        assert!(result.rtp_timestamp_out.is_none() && result.timing_ms.total >= result.timing_ms.inference);
        assert_true(&files.scene, number, result);
        assert_drawn(&pictures(&input)[0], &pictures(&annotated)[0], result);
    }
    assert_eq!(files.names(), ["a.png", "b.jpg", "out-a.png", "out-b.jpg", "r.jsonl"]);
}

#[test]
fn a_video_goes_through_frame_by_frame() {
    let files = Files::new();
    let (input, annotated) = (files.video("scene.mp4"), files.path("out.webm"));
    let (code, stdout, stderr) = run(detect().arg(&input).args(["--json", "-", "--annotate"]).arg(&annotated));
    assert_eq!((code, stderr.as_str()), (0, ""));
    let results = results(&stdout);
    assert_eq!(results.len() as u64, FRAMES);
    let (before, after) = (pictures(&input), pictures(&annotated));
    assert_eq!((before.len() as u64, after.len() as u64), (FRAMES, FRAMES));
    for (number, (file, result)) in (0..).zip(&results) {
        assert_eq!((Path::new(file), result.frame_id), (input.as_path(), number));
        assert_eq!(u64::from(result.rtp_timestamp_in), number * 3_000);
        assert_true(&files.scene, FIRST + number, result);
        let number = number as usize;
        assert_drawn(&before[number], &after[number], result);
    }
    assert_eq!(files.names(), ["out.webm", "scene.mp4"]);
}

#[test]
fn classes_thresholds_and_formats_act() {
    let files = Files::new();
    let input = files.picture("a.png", FIRST);
    let (code, stdout, _) = run(detect().arg(&input).args(["--classes", "helmet", "--max-detections", "1"]));
    let found = &results(&stdout)[0].1.detections;
    assert_eq!((code, found.len(), found[0].class.as_str()), (0, 1, "helmet"));
    let (_, stdout, _) = run(detect().arg(&input).args(["--score-threshold", "1"]));
    assert!(results(&stdout)[0].1.detections.iter().all(|detection| detection.score >= 1.0));
    let (_, stdout, _) = run(detect().arg(&input).args(["--format", "coco"]));
    let line: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((&line["type"], line["detections"][0]["bbox"].as_array().unwrap().len()), (&"result".into(), 4));
    let (code, stdout, stderr) = run(detect().arg(&input).args(["--classes", "dragon"]));
    assert_eq!((code, stdout.as_str()), (64, ""));
    assert_eq!(stderr, "scene-blobs@1 has no class \"dragon\"; it has head, helmet\n");
}

#[test]
fn files_that_fail_are_named_and_the_others_go_on() {
    let files = Files::new();
    let good = files.picture("good.png", FIRST);
    let (text, empty, missing) = (files.path("notes.txt"), files.path("empty.mp4"), files.path("gone.jpg"));
    fs::write(&text, "#EXTM3U\nThis is no video, whatever its lines say.\n".repeat(100)).unwrap();
    fs::write(&empty, "").unwrap();
    let whole = fs::read(files.video("whole.mp4")).unwrap();
    let (half, head) = (files.path("half.mp4"), files.path("head.mp4"));
    fs::write(&half, &whole[..whole.len() / 2]).unwrap();
    fs::write(&head, &whole[..200]).unwrap();
    let script = files.path("script.mp4");
    fs::write(&script, "ffconcat version 1.0\nfile good.png\n").unwrap();

    let inputs = [&text, &empty, &missing, &half, &head, &script, &files.folder.path().to_owned(), &good];
    let (code, stdout, stderr) = run(detect().args(inputs));
    assert_eq!(code, 70, "{stderr}");
    let results = results(&stdout);
    assert!(results.iter().any(|(file, _)| Path::new(file) == good), "the good one goes on");
    let read = results.iter().filter(|(file, _)| Path::new(file) == half).count();
    assert!(read > 0 && (read as u64) < FRAMES, "{read}");
    let sentences: Vec<_> = stderr.lines().collect();
    let sentence = |path: &Path| {
        let start = format!("{}: ", path.display());
        let found = sentences.iter().find_map(|line| line.strip_prefix(&start));
        found.unwrap_or_else(|| panic!("{} is not in {stderr}", path.display()))
    };
    assert_eq!(sentences.len(), 7, "{stderr}");
    for path in [&text, &empty, &script] {
        assert_eq!(sentence(path), "the file is no picture or video of a known format", "{stderr}");
    }
    assert_eq!(sentence(&head), "the file has no video", "{stderr}");
    assert!(sentence(&missing).starts_with("cannot read it: No such file"), "{stderr}");
    assert_eq!(sentence(&half), format!("the file is cut off: {read} of {FRAMES} pictures could be read"));
    assert_eq!(sentence(files.folder.path()), "it is a folder; name its files");
}

#[test]
fn a_failure_leaves_no_unfinished_file() {
    let files = Files::new();
    let text = files.path("notes.txt");
    fs::write(&text, "no video").unwrap();
    let out = files.path("out.mp4");
    fs::write(&out, "what was there before").unwrap();
    let (code, ..) = run(detect().arg(&text).arg("--annotate").arg(&out));
    assert_eq!(code, 70);
    assert_eq!(fs::read_to_string(&out).unwrap(), "what was there before");
    assert_eq!(files.names(), ["notes.txt", "out.mp4"]);
}

#[test]
fn an_interruption_leaves_no_unfinished_file() {
    let files = Files::new();
    let picture = files.scene.frame(FIRST);
    let input = files.video_of("long.mp4", (0..400).map(|_| picture.clone()));
    let mut program = detect();
    program.arg(&input).args(["--json", "-", "--annotate"]).arg(files.path("out.mp4"));
    let mut child = program.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    // After the first line, the others fill the pipe, and the program waits until they are read.
    lines.next().unwrap().unwrap();
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let rest = lines.count();
    assert_eq!(child.wait().unwrap().code(), Some(70));
    assert!(rest < 399, "it did not go on to the end");
    assert_eq!(files.names(), ["long.mp4"]);
}

#[test]
fn wrong_arguments_exit_with_64_and_say_what_to_do() {
    let files = Files::new();
    let (one, two) = (files.picture("one.png", FIRST), files.picture("two.png", FIRST));
    for (arguments, part) in [
        (vec!["--annotate", "out.gif"], "must end in .mp4"),
        (vec!["--annotate", "out.mp4"], "it is a picture: --annotate needs a name that ends in .png"),
        (vec!["--annotate", "out.png", two.to_str().unwrap()], "--annotate takes one input, not 2"),
        (vec!["--annotate", one.to_str().unwrap()], "would be overwritten"),
        (vec!["--json", one.to_str().unwrap()], "would be overwritten"),
        (vec!["--score-threshold", "2"], "from 0 to 1"),
        (vec!["--model", "nobody"], "unknown model `nobody`"),
        (vec!["--models-dir", "/no/such/folder"], "models.dir"),
    ] {
        let mut program = saccade("detect");
        program.current_dir(files.folder.path()).arg(&one);
        if !arguments.contains(&"--models-dir") {
            program.args(["--models-dir", MODELS]);
        }
        let (code, stdout, stderr) = run(program.args(&arguments));
        assert_eq!((code, stdout.as_str()), (64, ""), "{arguments:?}: {stderr}");
        assert!(stderr.contains(part), "{arguments:?}: {stderr}");
    }
    assert_eq!(files.names(), ["one.png", "two.png"]);
}

#[test]
fn without_the_library_the_exit_code_is_69() {
    let files = Files::new();
    let input = files.picture("a.png", FIRST);
    let nowhere = files.path("libonnxruntime.so");
    for program in [&mut detect().arg(&input), saccade("models").arg("check")] {
        let (code, _, stderr) = run(program.env("ORT_DYLIB_PATH", &nowhere));
        assert_eq!(code, 69);
        assert!(stderr.contains("library not found") && stderr.contains("make setup"), "{stderr}");
    }
}

/// A folder with scene-blobs and what is wrong with its like.
fn bad_models(folder: &Path) {
    let good = Path::new(MODELS).join("scene-blobs/1");
    let manifest = fs::read_to_string(good.join("manifest.toml")).unwrap();
    let manifest: String =
        manifest.lines().filter(|line| !line.starts_with("sha256")).flat_map(|line| [line, "\n"]).collect();
    let model = fs::read(good.join("model.onnx")).unwrap();
    let renamed = |name: &str| manifest.replace("scene-blobs", name);
    for (name, manifest, model) in [
        ("scene-blobs", renamed("scene-blobs"), &model[..]),
        ("truncated", renamed("truncated"), &model[..model.len() / 2]),
        ("outputs", renamed("outputs").replace("\"head\", \"helmet\"", "\"a\", \"b\", \"c\", \"d\""), &model[..]),
        ("mistaken", renamed("mistaken").replace("pad = 114", "pad = 999\nfoo = 1"), &model[..]),
    ] {
        let folder = folder.join(name).join("1");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("manifest.toml"), manifest).unwrap();
        fs::write(folder.join("model.onnx"), model).unwrap();
    }
}

#[test]
fn bad_models_are_refused_with_their_reasons() {
    let files = Files::new();
    let input = files.picture("a.png", FIRST);
    let models = tempfile::tempdir().unwrap();
    bad_models(models.path());
    let bad = [
        ("truncated", "model.onnx is not a usable ONNX model"),
        ("outputs", "decoder `yolov8` needs"),
        ("mistaken", "`input.pad`: 999 is not legal"),
    ];
    for (model, part) in bad {
        let (code, stdout, stderr) =
            run(saccade("detect").arg(&input).args(["--model", model, "--models-dir"]).arg(models.path()));
        assert_eq!((code, stdout.as_str()), (70, ""), "{stderr}");
        assert!(stderr.starts_with(&format!("model {model} cannot be used: ")) && stderr.contains(part), "{stderr}");
    }

    let (code, stdout, stderr) = run(saccade("models").args(["check", "--json", "--models-dir"]).arg(models.path()));
    assert_eq!(code, 70, "{stderr}");
    let checked: Vec<Value> = serde_json::from_str(&stdout).unwrap();
    let of = |id: &str| checked.iter().find(|one| one["model"] == id).unwrap_or_else(|| panic!("{id}: {stdout}"));
    for (model, part) in bad {
        let one = of(&format!("{model}@1"));
        assert_eq!(one["status"], "refused");
        assert!(one["reasons"][0].as_str().unwrap().contains(part), "{one}");
    }
    assert_eq!(of("mistaken@1")["reasons"].as_array().unwrap().len(), 2);
    let good = of("scene-blobs@1");
    assert_eq!((&good["status"], &good["precision"]), (&"ready".into(), &"fp32".into()));
    assert!(good["measured_ms"].as_f64().unwrap() > 0.0);
    assert_eq!(of("ppe-nano@2")["status"], "ready");

    let check = |name: &str| run(saccade("models").args(["check", name, "--models-dir"]).arg(models.path()));
    let (code, stdout, _) = check("scene-blobs");
    assert_eq!((code, stdout.starts_with("scene-blobs@1: ready; ")), (0, true), "{stdout}");
    let (code, _, stderr) = check("nobody");
    assert_eq!((code, stderr.contains("unknown model `nobody`; there are")), (64, true), "{stderr}");
}

#[test]
fn models_are_listed_without_the_library() {
    let models = tempfile::tempdir().unwrap();
    bad_models(models.path());
    let list = |more: &[&str]| {
        let mut program = saccade("models");
        program.args(["list", "--models-dir"]).arg(models.path()).args(more).env("ORT_DYLIB_PATH", "/nowhere");
        run(&mut program)
    };
    let (code, stdout, stderr) = list(&[]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    let row = |id: &str| stdout.lines().find(|line| line.starts_with(id)).unwrap_or_else(|| panic!("{stdout}"));
    for (id, cells) in [
        ("ppe-nano@2", ["detect", "320x320", "MIT OR Apache-2.0", "embedded", "ready (default)"]),
        ("scene-blobs@1", ["detect", "320x320", "MIT OR Apache-2.0", "folder", "ready"]),
    ] {
        assert!(cells.iter().all(|cell| row(id).contains(cell)), "{stdout}");
    }
    assert_eq!(row("mistaken@1"), "mistaken@1: refused");

    let listed: Vec<Value> = serde_json::from_str(&list(&["--json"]).1).unwrap();
    let blobs = listed.iter().find(|one| one["name"] == "scene-blobs").unwrap();
    assert_eq!((&blobs["classes"], &blobs["default"]), (&serde_json::json!(["head", "helmet"]), &false.into()));
    let refused = listed.iter().find(|one| one["model"] == "mistaken@1").unwrap();
    assert_eq!(refused["reasons"].as_array().unwrap().len(), 2);
}

//! `saccade eval`: its figures against pycocotools' and against pictures whose truth is drawn.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use saccade::accuracy::dataset::Dataset;
use saccade::accuracy::{Found, Measures, Picture, Sizes};
use saccade::encode::picture::{self, Format};
use saccade::media::{ColorInfo, I420};
use saccade::scene::Scene;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::program::{MODELS, run, saccade};

const WIDTH: u32 = 640;
const HEIGHT: u32 = 480;
const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/golden/coco.json");

/// Frames of the scene that the data set has.
const FRAMES: [u64; 4] = [30, 60, 90, 150];

/// A data set of drawn pictures: some of the scene, and a grey one in which nothing is.
struct Data {
    folder: TempDir,
    /// Objects in it.
    objects: usize,
}

impl Data {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let scene = Scene::new(WIDTH, HEIGHT, 30, 1);
        let (mut images, mut annotations) = (Vec::new(), Vec::new());
        let mut add = |name: &str, picture: &I420, color: ColorInfo| {
            fs::write(folder.path().join(name), picture::encode(picture, color, Format::Png).unwrap()).unwrap();
            images.push(json!({"id": images.len(), "file_name": name, "width": WIDTH, "height": HEIGHT}));
            images.len() - 1
        };
        let mut objects = 0;
        for number in FRAMES {
            let image = add(&format!("{number}.png"), &scene.frame(number), scene.color());
            for head in scene.truth(number) {
                let [x1, y1, x2, y2] = head.bbox;
                // Ids of categories need not be indices of classes.
                let category = 10 + head.class_id;
                let bbox = [x1, y1, x2 - x1, y2 - y1];
                annotations.push(json!({"image_id": image, "category_id": category, "bbox": bbox}));
                objects += 1;
            }
        }
        let mut grey = I420::new(WIDTH, HEIGHT);
        grey.planes_mut().into_iter().for_each(|plane| plane.fill(128));
        let image = add("grey.png", &grey, scene.color());
        annotations.push(json!({"image_id": image, "category_id": 5, "bbox": [0, 0, 9, 9]}));
        let data = Self { folder, objects };
        data.write("coco.json", &json!({"images": images, "annotations": annotations, "categories": categories()}));
        data
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, document: &Value) {
        fs::write(self.path(name), document.to_string()).unwrap();
    }

    /// The command on one of its descriptions.
    fn eval(&self, description: &str) -> Command {
        let mut program = saccade("eval");
        program.args(["--model", "scene-blobs", "--models-dir", MODELS, "--images"]).arg(self.folder.path());
        program.arg("--data").arg(self.path(description));
        program
    }
}

fn categories() -> Value {
    json!([{"id": 10, "name": "head"}, {"id": 11, "name": "helmet"}, {"id": 5, "name": "crane"}])
}

fn parsed(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn figures_are_those_of_pycocotools() {
    let golden = parsed(Path::new(GOLDEN));
    let names: Vec<_> = golden["categories"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
    let dataset = Dataset::parse(&golden.to_string(), &names).unwrap();
    let detections = golden["found"].as_array().unwrap();
    let found_in = |id: i64| {
        let detections = detections.iter().filter(move |detection| detection["image_id"] == id);
        let found = |detection: &Value| {
            let [x, y, width, height] = serde_json::from_value::<[f64; 4]>(detection["bbox"].clone()).unwrap();
            let class = detection["category_id"].as_u64().unwrap() as usize - 1;
            Found { bbox: [x, y, x + width, y + height], class, score: detection["score"].as_f64().unwrap() }
        };
        detections.map(found).collect()
    };
    let picture = |entry: &saccade::accuracy::dataset::Entry| Picture {
        objects: entry.objects.clone(),
        found: found_in(entry.id),
        scale: 1.0,
    };
    let pictures: Vec<_> = dataset.pictures.iter().map(picture).collect();
    let measures = Measures::new(&pictures, names.len(), &Sizes::COCO);
    let mut compared = 0;
    for (row, sizes) in golden["expected"].as_object().unwrap() {
        let class = names.iter().position(|name| name == row);
        for (index, range) in Sizes::COCO.iter().enumerate() {
            let expected = &sizes[range.name];
            for (name, figure) in [
                ("map50", measures.ap50(class, index)),
                ("map75", measures.ap75(class, index)),
                ("map50_95", measures.ap(class, index)),
                ("recall100", measures.recall(class, index)),
            ] {
                match (figure, expected[name].as_f64()) {
                    (Some(figure), Some(expected)) => {
                        assert!(
                            (figure - expected).abs() < 1e-9,
                            "{row}, {}, {name}: {figure}, {expected}",
                            range.name
                        );
                        compared += 1;
                    }
                    (figure, expected) => assert_eq!(figure, expected, "{row}, {}, {name}", range.name),
                }
            }
        }
    }
    assert!(compared > 50, "{compared} figures were compared");
}

#[test]
fn a_model_that_finds_the_drawn_heads_is_told_so() {
    let data = Data::new();
    let (json, results) = (data.path("figures.json"), data.path("results.json"));
    let mut program = data.eval("coco.json");
    let (exit, out, error) = run(program.arg("--json").arg(&json).arg("--results").arg(&results));
    assert_eq!((exit, out.as_str()), (0, ""), "{error}");
    let figures = parsed(&json);
    assert_eq!((&figures["model"], &figures["pictures"]), (&json!("scene-blobs@1"), &json!(FRAMES.len() + 1)));
    assert_eq!(figures["all"]["objects"], data.objects);
    let of = |figures: &Value, name: &str| figures[name].as_f64().unwrap_or_else(|| panic!("{name}: {figures}"));
    assert!(of(&figures["all"], "map50") > 0.9, "{figures}");
    assert!(of(&figures["all"], "map50_95") < of(&figures["all"], "map50"), "{figures}");
    let classes: Vec<_> = figures["classes"].as_array().unwrap().iter().map(|row| row["class"].clone()).collect();
    assert_eq!(classes, ["head", "helmet"]);
    let count = |figures: &Value, name: &str| figures[name].as_u64().unwrap();
    let sizes = &figures["all"]["by_size"];
    let by_size: u64 = ["small", "medium", "large"].iter().map(|size| count(&sizes[size], "objects")).sum();
    assert_eq!(by_size, data.objects as u64);
    let at = &figures["all"]["at_threshold"];
    assert!(count(at, "hits") as f64 >= 0.8 * data.objects as f64 && of(at, "precision") > 0.8, "{figures}");
    assert_eq!(figures["without_objects"], json!({"pictures": 1, "false_alarms": 0, "per_picture": 0.0}));
    assert_eq!(figures["categories_left_out"], json!([{"category": "crane", "objects": 1}]));
    for stage in ["preprocess", "inference", "postprocess", "total"] {
        let latency = &figures["latency_ms"][stage];
        assert!(of(latency, "p50") <= of(latency, "p95") && of(latency, "p95") <= of(latency, "max"), "{figures}");
    }

    let results = parsed(&results);
    let results = results.as_array().unwrap();
    assert!(results.len() as u64 >= count(at, "hits"), "{results:?}");
    let legal = |result: &Value| {
        matches!(result["category_id"].as_u64(), Some(10 | 11))
            && result["image_id"].as_u64() < Some(FRAMES.len() as u64)
    };
    assert!(results.iter().all(legal), "{results:?}");
}

#[test]
fn the_table_has_a_line_for_each_class_and_says_what_is_left_out() {
    let data = Data::new();
    let document = parsed(&data.path("coco.json"));
    let known = json!([{"id": 10, "name": "head"}, {"id": 11, "name": "cap"}, {"id": 5, "name": "crane"}]);
    data.write(
        "heads.json",
        &json!({"images": document["images"], "annotations": document["annotations"], "categories": known}),
    );
    let (exit, out, error) = run(&mut data.eval("heads.json"));
    assert_eq!(exit, 0, "{error}");
    let rows: Vec<_> = out.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(rows.iter().filter(|row| **row == "head").count(), 2, "{out}");
    assert!(!rows.contains(&"helmet"), "{out}");
    assert!(out.contains("the data has no category \"helmet\"") && out.contains("of category \"cap\""), "{out}");
    assert!(out.contains("false alarms a picture"), "{out}");
}

#[test]
fn mistakes_in_the_data_are_told_with_what_to_mend() {
    let data = Data::new();
    let document = parsed(&data.path("coco.json"));
    let change = |name: &str, pointer: &str, value: Value| {
        let mut changed = document.clone();
        *changed.pointer_mut(pointer).unwrap() = value;
        data.write(name, &changed);
    };
    change("size.json", "/images/0/width", json!(320));
    change("missing.json", "/images/1/file_name", json!("nowhere.png"));
    change("outside.json", "/images/1/file_name", json!("../secret.png"));
    change(
        "classes.json",
        "/categories",
        json!([{"id": 10, "name": "a"}, {"id": 11, "name": "b"}, {"id": 5, "name": "c"}]),
    );
    fs::write(data.path("text.json"), "no JSON").unwrap();
    for (file, expected, part) in [
        ("size.json", 64, "is 640x480 pixels, but the data set says 320x480"),
        ("missing.json", 64, "nowhere.png"),
        ("outside.json", 64, "no path inside the folder"),
        ("classes.json", 64, "it has a, b, c, the model head, helmet"),
        ("text.json", 64, "no COCO JSON"),
        ("none.json", 64, "cannot read"),
    ] {
        let json = data.path("figures.json");
        let (exit, out, error) = run(data.eval(file).arg("--json").arg(&json));
        assert_eq!((exit, out.as_str()), (expected, ""), "{file}: {error}");
        assert!(error.contains(part), "{file}: {error}");
        assert!(!json.exists(), "{file}: no unfinished file is left");
    }
    let (exit, _, error) = run(data.eval("coco.json").args(["--precision", "int8"]));
    assert_eq!(exit, 70, "{error}");
    assert!(error.contains("has no int8 variant"), "{error}");
    let (exit, _, error) = run(data.eval("coco.json").args(["--precision", "fp16"]));
    assert_eq!(exit, 70, "{error}");
    assert!(error.contains("does not run in fp16 here: ") && error.contains("fp16: "), "{error}");
    let (exit, _, error) = run(data.eval("coco.json").arg("--json").arg(data.path("coco.json")));
    assert_eq!(exit, 64, "{error}");
    assert!(error.contains("would be overwritten"), "{error}");
    let (exit, _, error) = run(data.eval("coco.json").args(["--json", "same.json", "--results", "same.json"]));
    assert_eq!(exit, 64, "{error}");
    assert!(error.contains("choose two names"), "{error}");
    let mut program = saccade("eval");
    program.args(["--model", "nosuch", "--models-dir", MODELS, "--images", ".", "--data"]).arg(data.path("coco.json"));
    let (exit, _, error) = run(&mut program);
    assert_eq!(exit, 64, "{error}");
    assert!(error.contains("`nosuch` is unknown; there are ppe-nano@") && error.contains("scene-blobs@1"), "{error}");
}

#[test]
fn models_check_measures_what_lower_precisions_cost() {
    let data = Data::new();
    let check = |model: &str| {
        let mut program = saccade("models");
        program.args(["check", model, "--models-dir", MODELS, "--images"]).arg(data.folder.path());
        program.arg("--data").arg(data.path("coco.json"));
        program
    };
    let (exit, out, error) = run(check("ppe-nano").arg("--json"));
    assert_eq!(exit, 0, "{error}");
    let reports: Vec<Value> = serde_json::from_str(&out).unwrap();
    assert!(!reports.is_empty());
    for report in reports {
        let accuracy = &report["accuracy"];
        assert_eq!(accuracy["pictures"], FRAMES.len() + 1, "{report}");
        let measured = accuracy["measured"].as_array().unwrap();
        let figure = |row: &Value, name: &str| row[name].as_f64().unwrap_or_else(|| panic!("{name}: {report}"));
        let fp32 = &measured[0];
        assert_eq!((&fp32["precision"], figure(fp32, "loss")), (&json!("fp32"), 0.0));
        let int8: Vec<_> = measured.iter().filter(|row| row["precision"] == "int8").collect();
        assert!(!int8.is_empty(), "{report}");
        let lost = int8.iter().flat_map(|row| ["map50", "map50_95"].map(|name| figure(fp32, name) - figure(row, name)));
        let lost = lost.fold(0.0, f64::max);
        // Figures are rounded to four digits, the loss is rounded up; it is that of the provider that loses most.
        let losses = accuracy["losses"].as_array().unwrap();
        let loss = losses.iter().find(|loss| loss["precision"] == "int8").unwrap();
        assert!((figure(loss, "loss") - lost).abs() < 3e-4, "{report}");
        let manifest = fs::read_to_string(format!("{MODELS}/ppe-nano/2/manifest.toml")).unwrap();
        let stated = manifest.lines().find_map(|line| line.strip_prefix("int8 = ")).unwrap();
        assert_eq!(loss["loss_in_manifest"].to_string(), stated, "digit by digit");
        // A GPU measures it.
        let missing = accuracy["missing"].as_array().unwrap();
        let is_missing = missing.contains(&json!("fp16: processors do not compute in it"));
        assert_ne!(is_missing, measured.iter().any(|row| row["precision"] == "fp16"), "{report}");
    }

    let (exit, out, error) = run(&mut check("scene-blobs"));
    assert_eq!(exit, 0, "{error}");
    assert!(out.contains("fp32") && out.contains("the model has no int8 variant"), "{out}");
    // Only a processor that multiplies bfloat16 has a loss to put there.
    assert_eq!(out.contains("[accuracy]"), out.contains("bf16   openvino"), "{out}");
    assert_ne!(out.contains("bf16   openvino"), out.contains("not measured: bf16"), "{out}");
    let mut program = saccade("models");
    program.args(["check", "scene-blobs", "--models-dir", MODELS, "--data", "nowhere.json", "--images", "."]);
    let (exit, out, _) = run(&mut program);
    assert_eq!(exit, 64, "{out}");
    assert!(out.contains("accuracy not measured: cannot read nowhere.json"), "{out}");
    let mut program = saccade("models");
    let (exit, _, error) = run(program.args(["check", "--data", "coco.json", "--images", "."]));
    assert_eq!(exit, 64);
    assert!(error.contains("MODEL"), "{error}");
}

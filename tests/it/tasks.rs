//! Models that do something else than finding boxes, or more: real ones, through all that serves them.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use saccade::draw::{Canvas as _, Ink, Raster, path};
use saccade::infer::manifest::{BackendChoice, Precision};
use saccade::infer::{Engine, Model, Options, Params};
use saccade::media::{Codec, ColorInfo, ColorMatrix, ColorRange, I420, Mask, Overall};
use saccade::route::{Fusion, Route};
use saccade_signaling::{Masks, OptionsPatch, ReturnMode};
use serde::Deserialize;
use serde_json::Value;

use crate::accuracy::{model_folder, read_jpeg};
use crate::assets::asset;
use crate::client::{Socket, connect};
use crate::live::{exchange, finish};
use crate::program::{run, saccade};
use crate::publisher::{Publisher, Viewer};
use crate::server::Server;

/// Photos are as JFIF says.
const PHOTO: ColorInfo = ColorInfo { matrix: ColorMatrix::Bt601, range: ColorRange::Full };
/// Most of it is a person.
const PERSON: &str = "datasets/coco_permissive/images/000000000459.jpg";

fn options() -> Options {
    Options { precision: Some(Precision::Fp32), backend: Some(BackendChoice::Cpu), ..Options::default() }
}

/// A model of the shared assets with its committed manifest; the engine has to live as long.
fn load(name: &str, graph: &str, folder: &Path) -> Option<(Engine, Arc<Model>)> {
    let graph = asset(name, graph)?;
    let engine = Engine::new(options()).unwrap();
    let model = engine.load(&model_folder(folder, name, &graph)).unwrap();
    Some((engine, model))
}

/// A digit as people write it, white on black, 28 pixels a side.
fn digit(number: usize) -> I420 {
    let arc =
        |[x, y]: [f32; 2], radii, from: f32, to: f32| path::arc([x, y], radii, from.to_radians(), to.to_radians());
    let strokes: Vec<Vec<[f32; 2]>> = match number {
        0 => vec![arc([14.0, 14.0], [5.5, 8.0], 0.0, 360.0)],
        1 => vec![vec![[11.0, 9.0], [14.5, 5.5], [14.5, 22.5]]],
        2 => vec![[arc([14.0, 10.0], [5.0, 4.5], 190.0, 400.0), vec![[9.0, 22.0], [19.5, 22.0]]].concat()],
        3 => vec![arc([13.5, 9.8], [4.8, 4.2], 200.0, 450.0), arc([13.5, 18.0], [5.3, 4.3], 270.0, 520.0)],
        4 => vec![vec![[16.5, 22.5], [16.5, 5.5], [8.5, 17.0], [20.5, 17.0]]],
        5 => {
            vec![[vec![[19.0, 6.0], [10.5, 6.0], [10.0, 13.0]], arc([13.5, 17.0], [5.3, 5.0], 230.0, 500.0)].concat()]
        }
        6 => vec![[vec![[16.5, 5.5], [11.5, 11.0], [9.4, 16.0]], arc([14.0, 17.5], [4.8, 4.6], 180.0, 540.0)].concat()],
        7 => vec![vec![[8.5, 6.5], [19.5, 6.5], [13.0, 22.5]]],
        8 => vec![arc([14.0, 9.8], [4.3, 4.0], 90.0, 450.0), arc([14.0, 18.0], [5.0, 4.3], -90.0, 270.0)],
        _ => vec![[arc([13.8, 10.3], [4.6, 4.5], 0.0, 360.0), vec![[18.4, 10.5], [17.5, 17.0], [15.0, 22.5]]].concat()],
    };
    let mut picture = I420::new(28, 28);
    let [luma, chroma @ ..] = picture.planes_mut();
    luma.fill(0);
    chroma.into_iter().for_each(|plane| plane.fill(128));
    let (mut raster, white) = (Raster::default(), Ink::new(PHOTO, [255; 3]));
    for stroke in strokes {
        for ends in stroke.windows(2) {
            picture.fill(&path::limb(ends[0], ends[1], [1.2; 2]), &mut raster, white);
        }
    }
    picture
}

#[test]
fn mnist_reads_digits() {
    let folder = tempfile::tempdir().unwrap();
    let Some((engine, model)) = load("mnist", "models/mnist.onnx", folder.path()) else { return };
    let params = Arc::new(model.default_params());
    let mut right = 0;
    for number in 0..10 {
        let found = model.detect(&Arc::new(digit(number)), PHOTO, &params).unwrap();
        let Some(Overall::Labels(labels)) = found.overall.as_deref() else { panic!("{found:?}") };
        assert!(found.detections.is_empty() && labels.len() == 3, "{labels:?}");
        assert!(labels.windows(2).all(|pair| pair[0].score >= pair[1].score));
        assert!(labels.iter().map(|label| label.score).sum::<f32>() <= 1.0 + 1e-5);
        println!("{number}: {} {}", labels[0].class.name, labels[0].score);
        right += usize::from(labels[0].class.id as usize == number);
    }
    assert!(right >= 8, "{right} of 10 digits");
    // Only what is asked for.
    let params = Params { classes: Some(vec![3, 8]), score_threshold: 0.5, ..model.default_params() };
    let found = model.detect(&Arc::new(digit(3)), PHOTO, &Arc::new(params)).unwrap();
    let Some(Overall::Labels(labels)) = found.overall.as_deref() else { panic!("{found:?}") };
    assert_eq!(labels.iter().map(|label| &*label.class.name).collect::<Vec<_>>(), ["three"]);
    engine.shutdown();
}

#[derive(Deserialize)]
struct Golden {
    photos: Vec<Photo>,
}

#[derive(Deserialize)]
struct Photo {
    photo: String,
    segments: Vec<Expected>,
}

#[derive(Deserialize)]
struct Expected {
    class: String,
    area_ratio: f32,
    #[serde(rename = "box")]
    bbox: [f32; 4],
}

/// What the reference does is at the head of `tests/data/reference/reference.py`.
#[test]
fn deeplab_finds_the_segments_that_the_reference_finds() {
    let folder = tempfile::tempdir().unwrap();
    let Some((engine, model)) = load("deeplab", "models/deeplab_v3_mnv2_257.onnx", folder.path()) else { return };
    let golden = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/golden/deeplab.json")).unwrap();
    let golden: Golden = serde_json::from_str(&golden).unwrap();
    let params = Arc::new(model.default_params());
    let (mut compared, mut worst) = (0, 0.0f32);
    for Photo { photo, segments } in &golden.photos {
        let Some(file) = asset("deeplab", photo) else { return };
        let found = model.detect(&Arc::new(read_jpeg(&file)), PHOTO, &params).unwrap();
        let Some(Overall::Mask(mask)) = found.overall.as_deref() else { panic!("{photo}: {found:?}") };
        assert_eq!(mask.size(), [257, 257]);
        assert!(mask.segments().windows(2).all(|pair| pair[0].area_ratio >= pair[1].area_ratio));
        let mut left: HashMap<&str, _> = mask.segments().iter().map(|one| (&*one.class.name, one)).collect();
        for expected in segments {
            let share = left.remove(expected.class.as_str()).map_or(0.0, |one| {
                if expected.area_ratio > 0.05 {
                    // A single pixel may stretch a box.
                    let off = one.bbox.iter().zip(expected.bbox).filter(|(a, b)| (*a - b).abs() > 16.0).count();
                    assert!(off <= 1, "{photo}: {} {:?} {:?}", expected.class, one.bbox, expected.bbox);
                }
                one.area_ratio
            });
            let off = (share - expected.area_ratio).abs();
            assert!(off < 0.01, "{photo}: {} covers {share} instead of {}", expected.class, expected.area_ratio);
            worst = worst.max(off);
            compared += 1;
        }
        for (name, extra) in left {
            assert!(extra.area_ratio < 0.012, "{photo}: {name} covers {}", extra.area_ratio);
        }
    }
    println!("{compared} segments, at most {worst} of a picture off");
    assert!(compared >= 40, "only {compared} segments were compared");
    // What is not asked for is neither told nor in the map.
    let params = Params { classes: Some(vec![6]), ..model.default_params() };
    let found =
        model.detect(&Arc::new(read_jpeg(&asset("deeplab", PERSON).unwrap())), PHOTO, &Arc::new(params)).unwrap();
    let Some(Overall::Mask(mask)) = found.overall.as_deref() else { panic!("{found:?}") };
    assert!(mask.segments().iter().all(|one| &*one.class.name == "car"));
    assert!((0..257).flat_map(|y| mask.row(y)).all(|index| [6, Mask::NONE].contains(index)));
    engine.shutdown();
}

#[test]
fn routes_over_several_tasks_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let Some((engine, _)) = load("mnist", "models/mnist.onnx", folder.path()) else { return };
    engine.load(&saccade::infer::ModelSpec::embedded().unwrap()).unwrap();
    let models = vec!["mnist".to_owned(), "ppe-nano".to_owned()];
    let error = engine.put_route("both", Route::Ensemble { models, fusion: Fusion::Wbf }).unwrap_err();
    assert_eq!(error.to_string(), "the models `mnist`: only models of the task detect can be fused; leave these out");
    engine.shutdown();
}

/// A server with a shared model as its only and default one.
async fn server(name: &str, graph: &str, folder: &Path, change: impl FnOnce(String) -> String) -> Option<Server> {
    let graph = asset(name, graph)?;
    model_folder(folder, name, &graph);
    let manifest = folder.join(name).join("1/manifest.toml");
    fs::write(&manifest, change(fs::read_to_string(&manifest).unwrap())).unwrap();
    let settings = [("models.dir", folder.to_str().unwrap()), ("models.default", name), ("session.budget_ms", "5000")];
    Some(Server::start(&settings).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn deeplab_tints_live_video_and_tells_segments() {
    let folder = tempfile::tempdir().unwrap();
    let Some(photo) = asset("deeplab", PERSON) else { return };
    let graph = "models/deeplab_v3_mnv2_257.onnx";
    let Some(server) = server("deeplab", graph, folder.path(), |manifest| manifest).await else { return };
    let (socket, mut peer, _, options) = connect(server.http, Codec::H264, OptionsPatch::default()).await;
    assert_eq!((options.return_mode, options.track, options.masks), (ReturnMode::Exact, false, Masks::Outlines));
    let (mut publisher, mut viewer) = (Publisher::new(Codec::H264), Viewer::new(Codec::H264));
    let picture = read_jpeg(&photo);
    let (width, height) = (picture.width(), picture.height());
    publisher.still = Some((picture.clone(), PHOTO));
    let returned = exchange(&mut peer, &mut publisher, &mut viewer, |returned| {
        let joined = returned
            .results
            .iter()
            .filter(|result| result.rtp_timestamp_out.is_some_and(|time| returned.pictures.contains_key(&time)));
        joined.count() >= 3
    })
    .await;
    let mut checked = 0;
    for result in &returned.results {
        assert_eq!((result.width, result.height, result.model.as_str()), (width, height, "deeplab@1"));
        assert!(result.detections.is_empty() && result.classes.is_none() && result.tensors.is_none());
        let segments = result.segments.as_ref().unwrap();
        let person = segments.iter().find(|one| one.class == "person").unwrap();
        assert!(person.area_ratio > 0.1 && person.rle.is_none());
        let rings = person.polygons.as_ref().unwrap();
        let points = rings.iter().flatten();
        assert!(points.clone().count() > 8);
        let [x1, y1, x2, y2] = person.bbox;
        for [x, y] in points {
            assert!(
                (x1 - 0.1..=x2 + 0.1).contains(x) && (y1 - 0.1..=y2 + 0.1).contains(y),
                "{x}, {y}: {:?}",
                person.bbox
            );
        }
        let Some(back) = result.rtp_timestamp_out.and_then(|time| returned.pictures.get(&time)) else { continue };
        // Inside the outlines colour was added, outside of all it was not.
        let (mut inside, mut outside) = (Vec::new(), Vec::new());
        for y in (8..height - 8).step_by(16) {
            for x in (8..width - 8).step_by(16) {
                let at = [x as f32, y as f32];
                let is_in = |segment: &saccade_signaling::Segment| contains(segment.polygons.as_ref().unwrap(), at);
                if contains(rings, at) {
                    inside.push(chroma_difference(&picture, back, x, y));
                } else if !segments.iter().any(is_in) && x > 220 {
                    outside.push(chroma_difference(&picture, back, x, y));
                }
            }
        }
        assert!(inside.len() > 20 && outside.len() > 20, "{} {}", inside.len(), outside.len());
        let (tinted, plain) = (median(&mut inside), median(&mut outside));
        assert!(tinted >= 8 && plain <= 4, "tint {tinted} inside, {plain} outside");
        checked += 1;
    }
    assert!(checked >= 3);
    // Run lengths instead, from the next frames on.
    peer.order(r#"{"type":"configure","options":{"masks":"rle"}}"#).await;
    let returned = exchange(&mut peer, &mut publisher, &mut viewer, |returned| {
        returned.results.iter().any(|result| result.mask_box.is_some())
    })
    .await;
    let result = returned.results.iter().find(|result| result.mask_box.is_some()).unwrap();
    assert_eq!(result.mask_box, Some([0.0, 0.0, width as f32, height as f32]));
    let person = result.segments.as_ref().unwrap().iter().find(|one| one.class == "person").unwrap();
    assert!(person.polygons.is_none() && person.rle.as_ref().unwrap().size == [257, 257]);
    finish(socket, peer, server).await;
}

/// Whether a point lies inside by the even-odd rule.
fn contains(rings: &[Vec<[f32; 2]>], [x, y]: [f32; 2]) -> bool {
    let edges = rings.iter().flat_map(|ring| ring.iter().zip(ring.iter().cycle().skip(1)));
    let crossed =
        edges.filter(|(a, b)| (a[1] > y) != (b[1] > y) && x < (b[0] - a[0]) * (y - a[1]) / (b[1] - a[1]) + a[0]);
    crossed.count() % 2 == 1
}

fn chroma_difference(a: &I420, b: &I420, x: u32, y: u32) -> u8 {
    let [_, stride, _] = a.strides();
    let at = (y / 2) as usize * stride + (x / 2) as usize;
    a.planes()[1][at].abs_diff(b.planes()[1][at]).max(a.planes()[2][at].abs_diff(b.planes()[2][at]))
}

fn median(values: &mut [u8]) -> u8 {
    values.sort_unstable();
    values[values.len() / 2]
}

#[tokio::test(flavor = "multi_thread")]
async fn raw_tensors_come_through_a_session() {
    let folder = tempfile::tempdir().unwrap();
    let raw = |manifest: String| {
        let manifest = manifest.replace("\"classify\"", "\"raw\"").replace("\"softmax\"", "\"raw\"");
        let manifest = manifest.replace("scores = \"logits\"\ntop_k = 3\n", "");
        manifest.split("[classes]").next().unwrap().to_owned()
    };
    let Some(server) = server("mnist", "models/mnist.onnx", folder.path(), raw).await else { return };
    let patch = OptionsPatch { return_mode: Some(ReturnMode::Results), ..OptionsPatch::default() };
    let (socket, mut peer, _, options) = connect(server.http, Codec::Vp8, patch).await;
    assert!(!options.track);
    let (mut publisher, mut viewer) = (Publisher::new(Codec::Vp8), Viewer::new(Codec::Vp8));
    let returned = exchange(&mut peer, &mut publisher, &mut viewer, |returned| returned.results.len() >= 5).await;
    for result in &returned.results {
        let [tensor] = &result.tensors.as_ref().unwrap()[..] else { panic!("{result:?}") };
        assert_eq!(
            (tensor.name.as_str(), &tensor.shape[..], tensor.left_out),
            ("Plus214_Output_0", &[1, 10][..], None)
        );
        let values: Vec<f32> = tensor.data.as_ref().unwrap().iter().map(|value| value.unwrap()).collect();
        assert!(values.len() == 10 && values.iter().any(|value| *value != values[0]), "{values:?}");
        assert!(result.detections.is_empty() && result.classes.is_none());
    }
    finish(socket, peer, server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn options_that_make_no_sense_for_a_classifier_are_refused_with_all_reasons() {
    let folder = tempfile::tempdir().unwrap();
    let Some(server) = server("mnist", "models/mnist.onnx", folder.path(), |manifest| manifest).await else { return };
    let mut socket = Socket::connect(server.http).await;
    let mut peer = crate::client::Peer::new(Codec::Vp8).await;
    let offer = serde_json::json!({"type": "offer", "sdp": peer.offer().await, "options": {
        "track": true, "format": "coco", "zones": [{"name": "gate", "polygon": [[0, 0], [1, 0], [1, 1]]}],
    }});
    socket.send_raw(tokio_tungstenite::tungstenite::Message::text(offer.to_string())).await;
    let (code, message) = socket
        .find(|message| match message {
            saccade_signaling::ServerMessage::Error { code, message, .. } => Some((code, message)),
            _ => None,
        })
        .await;
    assert_eq!(code.to_string(), "bad_options");
    for key in ["`track`", "`format`", "`zones`"] {
        assert!(message.contains(key), "{message}");
    }
    peer.close().await;
    drop(socket);
    server.app.shut_down().await;
}

/// For each shared model: its decoder, its classes, and something that its explanation says.
const SHARED: [(&str, &str, usize, &str); 7] = [
    ("deeplab_v3_mnv2_257.onnx", "argmax", 20, "[1, 257, 257, 21]"),
    ("fastestdet_352.onnx", "fastestdet", 80, "[1, 85, 22, 22]"),
    ("mnist.onnx", "softmax", 10, "[1, 10]"),
    ("ultraface_RFB_320.onnx", "ssd-boxes", 1, "[1, 4420, 2]"),
    ("yolox_nano_416.onnx", "yolox", 80, "[1, 3549, 85]"),
    ("yunet_n_320_320.onnx", "yunet", 1, "[1, 1600, 10]"),
    ("yunet_n_dynamic.onnx", "yunet", 1, "[?, ?, 10]"),
];

#[test]
fn check_proposes_a_manifest_that_works_for_every_shared_model() {
    let models = tempfile::tempdir().unwrap();
    for (file, decoder, classes, shape) in SHARED {
        let Some(graph) = asset("check", &format!("models/{file}")) else { return };
        let name = file.trim_end_matches(".onnx").to_lowercase();
        let folder = models.path().join(&name).join("3");
        fs::create_dir_all(&folder).unwrap();
        fs::copy(&graph, folder.join("model.onnx")).unwrap();
        let check = |more: &[&str]| run(saccade("models").arg("check").arg(&folder).args(more));
        let (code, stdout, stderr) = check(&[]);
        assert_eq!((code, stderr.as_str()), (0, ""), "{file}");
        assert!(stdout.contains(shape) && stdout.contains(&format!("decoder = \"{decoder}\"")), "{stdout}");
        assert!(
            stdout.contains("# Not known from the tensors: ") && stdout.contains("proposed manifest.toml"),
            "{stdout}"
        );
        assert!(!folder.join("manifest.toml").exists(), "nothing is written unless it is asked for");
        let (code, stdout, stderr) = check(&["--write", "--json"]);
        assert_eq!(code, 0, "{stderr}");
        let reports: Vec<Value> = serde_json::from_str(&stdout).unwrap();
        assert_eq!(reports[0]["status"], "no manifest");
        let written = fs::read_to_string(folder.join("manifest.toml")).unwrap();
        assert_eq!(reports[0]["proposal"]["manifest"], written.as_str());
        let spec = saccade::infer::ModelSpec::open(&folder).unwrap();
        assert_eq!((spec.manifest.output.name(), spec.manifest.classes.len()), (decoder, classes), "{written}");
        assert_eq!((spec.manifest.name.as_str(), spec.manifest.version.as_str()), (name.as_str(), "3"));
        let engine = Engine::new(options()).unwrap();
        engine.load(&spec).unwrap_or_else(|error| panic!("{file}: {error}\n{written}"));
        engine.shutdown();
    }
    let (first, ..) = SHARED[2];
    let folder = models.path().join(first.trim_end_matches(".onnx")).join("3");
    let check = |more: &[&str]| run(saccade("models").arg("check").arg(&folder).args(more));
    let (code, stdout, _) = check(&[]);
    assert_eq!((code, stdout.trim_end().ends_with("its manifest works")), (0, true), "{stdout}");
    let (code, _, stderr) = check(&["--write"]);
    assert_eq!((code, stderr.contains("is there already")), (64, true), "{stderr}");
    // A wrong one is explained, and the proposal is there beside it.
    let manifest = folder.join("manifest.toml");
    let wrong = fs::read_to_string(&manifest).unwrap().replace("\"softmax\"", "\"yolov8\"");
    fs::write(&manifest, wrong).unwrap();
    let (code, stdout, _) = check(&[]);
    assert_eq!(code, 70, "{stdout}");
    assert!(stdout.contains("its manifest does not work") && stdout.contains("does not go with the decoder yolov8"));
    assert!(stdout.contains("decoder = \"softmax\""), "{stdout}");
}

#[test]
fn check_says_why_nothing_can_be_told() {
    let folder = tempfile::tempdir().unwrap();
    let check = |path: &Path| run(saccade("models").arg("check").arg(path));
    let (code, _, stderr) = check(folder.path());
    assert_eq!((code, stderr.contains("0 ONNX files")), (64, true), "{stderr}");
    let (code, _, stderr) = check(&folder.path().join("gone.onnx"));
    assert_eq!((code, stderr.contains("cannot read")), (64, true), "{stderr}");
    fs::write(folder.path().join("model.onnx"), b"this is no graph").unwrap();
    let (code, _, stderr) = check(folder.path());
    assert_eq!((code, stderr.contains("is not a usable ONNX model")), (70, true), "{stderr}");
}

#[test]
fn eval_and_formats_say_what_a_task_has_no_place_for() {
    let folder = tempfile::tempdir().unwrap();
    let Some(graph) = asset("mnist", "models/mnist.onnx") else { return };
    model_folder(folder.path(), "mnist", &graph);
    let data = folder.path().join("data.json");
    fs::write(&data, r#"{"images": [], "annotations": [], "categories": []}"#).unwrap();
    let mut eval = saccade("eval");
    eval.args(["--model", "mnist", "--models-dir"])
        .arg(folder.path())
        .arg("--data")
        .arg(&data)
        .arg("--images")
        .arg(folder.path());
    let (code, _, stderr) = run(&mut eval);
    assert_eq!((code, stderr.contains("finds no boxes (its task is classify)")), (64, true), "{stderr}");
    let mut detect = saccade("detect");
    detect.arg(&data).args(["--format", "coco", "--model", "mnist", "--models-dir"]).arg(folder.path());
    let (code, _, stderr) = run(&mut detect);
    assert_eq!((code, stderr.contains("COCO has no results for classes")), (64, true), "{stderr}");
}

//! Models in half precision on a GPU that is none: kernels read and write 16-bit floats, and the processors run the graphs.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use saccade::infer::manifest::{BackendChoice, Precision};
use saccade::infer::{Cuda, Engine, Error, ModelSpec, Options, Params};
use saccade::media::{ColorInfo, ColorMatrix, ColorRange, Detection, I420};
use saccade::scene::Scene;

use crate::accuracy::compare;
use crate::fake_cuda::Fake;
use crate::graphs::{self, Float};
use crate::in_place::{on, on_host, sorted};
use crate::models::{compare_batches, copy};

/// What boxes of the default model may move by, in pixels of its input, and its scores change by: three times what was the most.
const MAX_MOVED: f32 = 0.05;
const MAX_CHANGED: f32 = 0.0015;

fn in_half(fake: &Fake) -> Options {
    Options { precision: Some(Precision::Fp16), ..on(fake) }
}

/// A model `NAME@1` of an input of 64 × 64 with a graph and one in half precision.
fn model(root: &Path, name: &str, output: &str, fp32: &[u8], fp16: &[u8]) -> Result<ModelSpec, Error> {
    let folder = root.join(name).join("1");
    fs::create_dir_all(&folder).unwrap();
    let manifest = format!(
        "name = '{name}'\nversion = '1'\nlicence = 'MIT'\n[variants.fp16]\n[input]\nsize = [64, 64]\n{output}\n\
         [batching]\nmax_batch = 1\n"
    );
    fs::write(folder.join("manifest.toml"), manifest).unwrap();
    fs::write(folder.join("model.onnx"), fp32).unwrap();
    fs::write(folder.join("model.fp16.onnx"), fp16).unwrap();
    ModelSpec::open(&folder)
}

const MEANS: &str = "[output]\ndecoder = 'yolov8'\n[classes]\nnames = ['a', 'b']";
const SPANS: &str = "scale = [0.00390625, 0.00390625, 0.00390625]\n[output]\ndecoder = 'ssd-boxes'\n\
                     background = 'none'\n[classes]\nnames = ['a']";

/// A picture of this colour, limited range, with a brighter part.
fn picture(y: u8, cb: u8, cr: u8) -> Arc<I420> {
    let mut picture = I420::new(64, 64);
    let [luma, blue, red] = picture.planes_mut();
    luma.fill(y);
    luma[64 * 20..64 * 30].fill(y + 60);
    blue.fill(cb);
    red.fill(cr);
    Arc::new(picture)
}

fn assert_near(here: Vec<Detection>, there: Vec<Detection>, moved: f32, changed: f32, what: &str) -> (f32, f32) {
    let (here, there) = (sorted(here), sorted(there));
    assert_eq!(here.len(), there.len(), "{what}: {here:?} and {there:?}");
    let mut worst = (0f32, 0f32);
    for (here, there) in here.iter().zip(&there) {
        let off = here.bbox.iter().zip(there.bbox).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        worst = (worst.0.max(off), worst.1.max((here.score - there.score).abs()));
        let same = here.class == there.class && off <= moved && (here.score - there.score).abs() <= changed;
        assert!(same, "{what}: {here:?} and {there:?}");
    }
    worst
}

#[test]
fn the_default_model_finds_in_half_precision_what_the_reference_finds() {
    let fake = Fake::new();
    compare("ppe-nano", &ModelSpec::embedded().unwrap(), in_half(&fake));
}

#[test]
fn the_default_models_lose_next_to_nothing_in_half_precision() {
    let fake = Fake::new();
    let (host, gpu) = (Engine::new(on_host()).unwrap(), Engine::new(in_half(&fake)).unwrap());
    let (mut seen, mut worst) = (0, (0f32, 0f32));
    for name in ["ppe-nano", "ppe-nano-small"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("models").join(name).join("2");
        let spec = ModelSpec::open(&folder).unwrap();
        let (here, there) = (host.load(&spec).unwrap(), gpu.load(&spec).unwrap());
        let selection = there.selection();
        assert_eq!((selection.precision, selection.in_place), (Precision::Fp16, true), "{selection:?}");
        assert_eq!(here.selection().precision, Precision::Fp32);
        // Below the threshold that is asked for, so that all of the model's boxes are compared and not the best alone.
        let params = Arc::new(Params { score_threshold: 0.3, ..here.default_params() });
        for (width, height, number) in [(640, 480, 3), (641, 363, 40), (322, 577, 77), (96, 96, 9)] {
            let picture = Arc::new(Scene::new(width, height, 30, 1).frame(number));
            let color = ColorInfo { matrix: ColorMatrix::Bt709, range: ColorRange::Full };
            let [a, b] = [&here, &there].map(|model| model.detect(&picture, color, &params).unwrap().detections);
            seen += a.len();
            let pixel = width.max(height) as f32 / spec.manifest.input.size[0] as f32;
            let what = format!("{name} {width}x{height}");
            let (moved, changed) = assert_near(a, b, MAX_MOVED * pixel, MAX_CHANGED, &what);
            worst = (worst.0.max(moved / pixel), worst.1.max(changed));
        }
    }
    println!("{seen} boxes, at most {} px of the input and {} of score off", worst.0, worst.1);
    assert!(seen > 10, "there was something to find: {seen}");
    host.shutdown();
    gpu.shutdown();
}

#[test]
fn tensors_of_16_bit_floats_are_read_where_they_are() {
    let (fake, root) = (Fake::new(), tempfile::tempdir().unwrap());
    let (host, gpu) = (Engine::new(on_host()).unwrap(), Engine::new(in_half(&fake)).unwrap());
    let half = graphs::means(64, Float::Half);
    let spec = model(root.path(), "means", MEANS, &graphs::means(64, Float::Single), &half).unwrap();
    let (here, there) = (host.load(&spec).unwrap(), gpu.load(&spec).unwrap());
    let params = Arc::new(here.default_params());
    fake.take_launches();
    for (y, cb, cr) in [(40, 115, 128), (45, 120, 132), (40, 140, 118)] {
        let picture = picture(y, cb, cr);
        let [a, b] = [&here, &there].map(|model| model.detect(&picture, ColorInfo::default(), &params).unwrap());
        assert_eq!(a.detections.len(), 1, "{a:?}");
        // The box is of the channels' means, below 64: half precision has them by thirty-seconds.
        assert_near(a.detections, b.detections, 0.06, 0.0, &format!("{y} {cb} {cr}"));
    }
    assert!(fake.take_launches().iter().any(|name| name == "detections_yolov8"));
    host.shutdown();
    gpu.shutdown();
}

#[test]
fn each_picture_of_a_batch_has_its_place_among_16_bit_floats() {
    let (fake, root) = (Fake::new(), tempfile::tempdir().unwrap());
    let spec = copy(root.path(), "four", |text| text + "[batching]\npreferred = [1, 4]\n");
    compare_batches(&spec, in_half(&fake));
}

#[test]
fn heads_that_the_gpu_does_not_decode_are_widened_on_the_host() {
    let (fake, root) = (Fake::new(), tempfile::tempdir().unwrap());
    let (host, gpu) = (Engine::new(on_host()).unwrap(), Engine::new(in_half(&fake)).unwrap());
    let half = graphs::spans(64, Float::Half);
    let spec = model(root.path(), "spans", SPANS, &graphs::spans(64, Float::Single), &half).unwrap();
    let (here, there) = (host.load(&spec).unwrap(), gpu.load(&spec).unwrap());
    let params = Arc::new(Params { score_threshold: 0.1, iou_threshold: 1.0, ..here.default_params() });
    fake.take_launches();
    let picture = picture(80, 100, 150);
    let [a, b] = [&here, &there].map(|model| model.detect(&picture, ColorInfo::default(), &params).unwrap());
    assert_eq!(a.detections.len(), 3, "{a:?}");
    // Sides of 0..1 are known by 4096ths, of 64 pixels.
    assert_near(a.detections, b.detections, 0.032, 0.0005, "spans");
    assert!(!fake.take_launches().iter().any(|name| name.starts_with("detections")));
    host.shutdown();
    gpu.shutdown();
}

#[test]
fn a_graph_of_16_bit_floats_is_none_but_the_fp16_variant() {
    let (fake, root) = (Fake::new(), tempfile::tempdir().unwrap());
    let gpu = Engine::new(in_half(&fake)).unwrap();
    let [single, half] = [Float::Single, Float::Half].map(|float| graphs::means(64, float));
    let refused = |name, fp32: &[u8], fp16: &[u8]| {
        gpu.load(&model(root.path(), name, MEANS, fp32, fp16).unwrap()).unwrap_err().to_string()
    };
    let error = refused("first", &half, &half);
    assert!(error.contains("`images`: the manifest asks for 32-bit floats [1, 3, 64, 64]"), "{error}");
    let error = refused("second", &single, &graphs::means(32, Float::Half));
    assert!(error.contains("asks for 16-bit or 32-bit floats [1, 3, 64, 64], the model has"), "{error}");
    let error = refused("third", &single, &graphs::spans(64, Float::Half));
    assert!(error.contains("decoder `yolov8` needs"), "{error}");
    let error = refused("fourth", &single, b"no graph");
    assert!(error.contains("model.fp16.onnx"), "{error}");
    gpu.shutdown();
}

#[test]
fn without_a_gpu_for_pictures_tensors_of_16_bit_floats_are_refused() {
    let root = tempfile::tempdir().unwrap();
    let [single, half] = [Float::Single, Float::Half].map(|float| graphs::means(64, float));
    let cuda = Ok(Cuda { name: "a fake".to_owned(), tensorrt: Err("none".to_owned()), gpu: None });
    let options = Options { precision: Some(Precision::Fp16), backend: Some(BackendChoice::Auto), cuda, ..on_host() };
    let engine = Engine::new(options).unwrap();
    let spec = model(root.path(), "halves", MEANS, &single, &half).unwrap();
    let selection = engine.load(&spec).unwrap().selection().clone();
    assert_eq!((selection.provider.name(), selection.precision), ("cpu", Precision::Fp32));
    let reason = "fp16: `images` of the fp16 variant is of 16-bit floats";
    assert!(selection.others.iter().any(|other| other.starts_with(reason)), "{:?}", selection.others);
    // One with 32-bit floats at both ends goes to the CUDA provider, which this library does not have.
    let spec = model(root.path(), "singles", MEANS, &single, &single).unwrap();
    let error = engine.load(&spec).unwrap_err().to_string();
    assert!(error.contains("cuda in fp16"), "{error}");
    engine.shutdown();
}

#[test]
fn auto_takes_half_precision_only_where_its_loss_was_measured() {
    let (fake, root) = (Fake::new(), tempfile::tempdir().unwrap());
    let [single, half] = [Float::Single, Float::Half].map(|float| graphs::means(64, float));
    let engine = Engine::new(Options { precision: Some(Precision::Auto), ..on(&fake) }).unwrap();
    for (name, accuracy, tried) in [("good", "fp16 = 0.001", true), ("bad", "fp16 = 0.2", false), ("none", "", false)] {
        let output = format!("{MEANS}\n[accuracy]\n{accuracy}");
        let spec = model(root.path(), name, &output, &single, &half).unwrap();
        let model = engine.load(&spec).unwrap();
        let ways = format!("{} {:?}", model.selection().precision, model.selection().others);
        assert_eq!(ways.contains("cuda in fp16") || ways.starts_with("fp16"), tried, "{name}: {ways}");
    }
    engine.shutdown();
}

//! Models on a GPU that is none: its kernels run on the host, and the processors run the graphs.

use std::sync::Arc;
use std::time::Duration;

use saccade::calibration::Calibration;
use saccade::device::Status;
use saccade::device::kernels::Program;
use saccade::infer::device::{Gpu, Tensors};
use saccade::infer::manifest::{BackendChoice, Precision};
use saccade::infer::{Cuda, Detected, Engine, Error, ModelSpec, Options};
use saccade::media::{ColorInfo, ColorMatrix, ColorRange, Detection, I420};
use saccade::scene::Scene;

use crate::accuracy::{compare, compare_shared_by};
use crate::fake_cuda::Fake;

pub fn on_host() -> Options {
    Options { precision: Some(Precision::Fp32), backend: Some(BackendChoice::Cpu), ..Options::default() }
}

fn gpu(fake: &Fake) -> Gpu {
    fake.share_host();
    Gpu::new(Arc::new(Program::load(&fake.gpu()).unwrap()), Tensors::Host)
}

fn on_gpu(gpu: Gpu) -> Options {
    let cuda = Cuda { name: "a fake".to_owned(), tensorrt: Err("none".to_owned()), gpu: Some(gpu) };
    Options { backend: Some(BackendChoice::Cuda), cuda: Ok(cuda), ..on_host() }
}

pub fn on(fake: &Fake) -> Options {
    on_gpu(gpu(fake))
}

fn spec(path: &str) -> ModelSpec {
    ModelSpec::open(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// Detections in an order that does not hang on the last bit of a score.
pub fn sorted(mut found: Vec<Detection>) -> Vec<Detection> {
    found.sort_by(|a, b| a.bbox[0].total_cmp(&b.bbox[0]).then(a.bbox[1].total_cmp(&b.bbox[1])));
    found
}

/// The host prepares pictures with instructions whose last bits differ from those of the twin of the kernel.
fn assert_alike(here: Detected, there: Detected, what: &str) {
    let (here, there) = (sorted(here.detections), sorted(there.detections));
    assert_eq!(here.len(), there.len(), "{what}: {here:?} and {there:?}");
    for (here, there) in here.iter().zip(&there) {
        let moved = here.bbox.iter().zip(there.bbox).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        let same = here.class == there.class && moved < 0.5 && (here.score - there.score).abs() < 1e-3;
        assert!(same, "{what}: {here:?} and {there:?}");
    }
}

#[test]
fn models_find_the_same_there() {
    let fake = Fake::new();
    let (host, gpu) = (Engine::new(on_host()).unwrap(), Engine::new(on(&fake)).unwrap());
    let mut seen = 0;
    for path in ["models/ppe-nano/2", "models/scene-blobs/1"] {
        let spec = spec(path);
        let (here, there) = (host.load(&spec).unwrap(), gpu.load(&spec).unwrap());
        assert!(there.selection().in_place && !here.selection().in_place);
        let params = Arc::new(here.default_params());
        for (width, height, number) in [(640, 480, 3), (641, 363, 40), (322, 577, 77), (96, 96, 9)] {
            let picture = Scene::new(width, height, 30, 1).frame(number);
            let color = ColorInfo { matrix: ColorMatrix::Bt709, range: ColorRange::Full };
            let picture = Arc::new(picture);
            let (a, b) =
                (here.detect(&picture, color, &params).unwrap(), there.detect(&picture, color, &params).unwrap());
            seen += a.detections.len();
            assert_alike(a, b, &format!("{path} {width}x{height}"));
        }
    }
    assert!(seen > 5, "there was something to find: {seen}");
    assert!(fake.take_launches().iter().any(|name| name == "detections_keep"));
    host.shutdown();
    gpu.shutdown();
}

#[test]
fn yolox_nano_finds_what_the_reference_finds_there() {
    let fake = Fake::new();
    compare_shared_by("yolox-nano", "models/yolox_nano_416.onnx", on(&fake));
}

#[test]
fn the_embedded_model_finds_what_the_reference_finds_there() {
    let fake = Fake::new();
    compare("ppe-nano", &ModelSpec::embedded().unwrap(), on(&fake));
}

#[test]
fn heads_that_the_gpu_does_not_decode_are_decoded_on_the_host() {
    let fake = Fake::new();
    compare_shared_by("yunet", "models/yunet_n_320_320.onnx", on(&fake));
    compare_shared_by("ultraface", "models/ultraface_RFB_320.onnx", on(&fake));
    assert!(!fake.take_launches().iter().any(|name| name.starts_with("detections")));
}

#[test]
fn a_gpu_that_is_lost_fails_its_models() {
    let fake = Fake::new();
    let gpu = Engine::new(on(&fake)).unwrap();
    let model = gpu.load(&spec("models/scene-blobs/1")).unwrap();
    let (picture, params) = (Arc::new(I420::new(64, 48)), Arc::new(model.default_params()));
    model.detect(&picture, ColorInfo::default(), &params).unwrap();
    fake.fail("cuLaunchKernel", Status::ILLEGAL_ADDRESS);
    let Err(Error::Run { reason }) = model.detect(&picture, ColorInfo::default(), &params) else { panic!("it fails") };
    assert!(reason.contains("the GPU is lost: cuLaunchKernel returned CUDA_ERROR_ILLEGAL_ADDRESS"), "{reason}");
    // Opening it again fails each time, and then the model takes no more work.
    assert_eq!(model.detect(&picture, ColorInfo::default(), &params), Err(Error::NotReady));
    assert!(!model.is_ready());
    gpu.shutdown();
}

#[test]
fn without_room_for_pictures_runs_fail_and_the_model_does_not() {
    let fake = Fake::new();
    let gpu = Engine::new(on(&fake)).unwrap();
    let model = gpu.load(&spec("models/scene-blobs/1")).unwrap();
    let params = Arc::new(model.default_params());
    let picture = Arc::new(I420::new(1920, 1080));
    fake.set_memory(fake.memory_in_use());
    let full = Error::NoRoom { reason: "the GPU is out of memory".to_owned() };
    // However often: the model is not to blame.
    for _ in 0..5 {
        assert_eq!(model.detect(&picture, ColorInfo::default(), &params), Err(full.clone()));
    }
    assert!(model.is_ready());
    fake.set_memory(1 << 30);
    assert!(model.detect(&picture, ColorInfo::default(), &params).is_ok());
    gpu.shutdown();
}

/// A calibration by which scene-blobs runs in batches of one, two and four, whatever takes how long here.
fn in_batches(folder: &tempfile::TempDir) -> Calibration {
    let path = folder.path().join("calibration.json");
    let calibration = Calibration::Keep(path.clone());
    let fake = Fake::new();
    let engine = Engine::new(Options { calibration: calibration.clone(), ..on(&fake) }).unwrap();
    engine.load(&spec("models/scene-blobs/1")).unwrap();
    engine.shutdown();
    let mut kept: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let buckets = serde_json::json!([[1, 1_000], [2, 1_100], [4, 1_200]]);
    assert_eq!(set(&mut kept, "buckets", &buckets), 1, "{kept}");
    // Else it might be doubted.
    assert_eq!(set(&mut kept, "disturbance", &serde_json::json!(0)), 1, "{kept}");
    std::fs::write(&path, kept.to_string()).unwrap();
    calibration
}

/// Sets all fields of this name, and says how many there are.
fn set(value: &mut serde_json::Value, name: &str, to: &serde_json::Value) -> usize {
    match value {
        serde_json::Value::Object(fields) => {
            let mut found = 0;
            for (key, field) in fields {
                if key == name {
                    *field = to.clone();
                    found += 1;
                } else {
                    found += set(field, name, to);
                }
            }
            found
        }
        serde_json::Value::Array(items) => items.iter_mut().map(|item| set(item, name, to)).sum(),
        _ => 0,
    }
}

/// How many pictures went into each run, by the kernels that were launched.
fn runs(launches: &[String]) -> Vec<usize> {
    let runs = launches.split_inclusive(|name| name == "detections_keep");
    runs.map(|run| run.iter().filter(|name| *name == "nv12_to_tensor").count()).collect()
}

const LOADED: [usize; 3] = [1, 2, 4];

#[test]
fn each_bucket_is_recorded_on_the_thread_of_its_instance_before_that_takes_work() {
    let (folder, fake) = (tempfile::tempdir().unwrap(), Fake::new());
    let calibration = in_batches(&folder);
    let spec = spec("models/scene-blobs/1");
    for recording in [true, false] {
        let gpu = if recording { gpu(&fake).recording() } else { gpu(&fake) };
        let engine = Engine::new(Options { calibration: calibration.clone(), ..on_gpu(gpu) }).unwrap();
        let model = engine.load(&spec).unwrap();
        assert_eq!(model.selection().buckets.iter().map(|(size, _)| *size).collect::<Vec<_>>(), LOADED);
        let (picture, params) = (Arc::new(I420::new(64, 48)), Arc::new(model.default_params()));
        for _ in 0..2 {
            model.detect(&picture, ColorInfo::default(), &params).unwrap();
        }
        let of_frames = [1, 1];
        // Each twice: once to record it, and once to have that repeated.
        let settled = [1, 1, 2, 2, 4, 4];
        let expected = if recording { [&settled[..], &of_frames].concat() } else { of_frames.to_vec() };
        assert_eq!(runs(&fake.take_launches_of("infer-0-")), expected);
        engine.shutdown();
    }
}

#[test]
fn a_model_whose_runs_cannot_be_recorded_runs_without() {
    let (folder, fake) = (tempfile::tempdir().unwrap(), Fake::new());
    let calibration = in_batches(&folder);
    let spec = spec("models/scene-blobs/1");
    let load = |gpu: Gpu| {
        let engine = Engine::new(Options { calibration: calibration.clone(), ..on_gpu(gpu) }).unwrap();
        let model = engine.load(&spec).unwrap();
        (engine, model)
    };
    let (engine, model) = load(gpu(&fake));
    // What opening it takes, before it is on the thread of its instance.
    let opening = fake.calls("cuLaunchKernel");
    engine.shutdown();
    drop(model);
    let launches = fake.take_launches();
    let opened = runs(&launches);
    // Kernels of a run beside one a picture.
    let others = launches.iter().skip(1).position(|name| name == "nv12_to_tensor").expect("there are several runs");
    let launched = |runs: &[usize]| runs.iter().map(|size| size + others).sum::<usize>();

    // Of the first bucket, of the last, and once the model is at work.
    for (failing, lost) in [(0, 0), (launched(&[1, 1, 2, 2]), 0), (launched(&[1, 1, 2, 2, 4, 4, 1, 1, 1]), 1)] {
        let gpu = gpu(&fake).recording();
        fake.fail_after(opening + failing, "cuLaunchKernel", Status::RECORDING_SPOILT);
        let (engine, model) = load(gpu);
        let (picture, params) = (Arc::new(I420::new(64, 48)), Arc::new(model.default_params()));
        let mut failed = 0;
        for _ in 0..5 {
            match model.detect(&picture, ColorInfo::default(), &params) {
                Ok(_) => {}
                Err(Error::Recording { reason }) => {
                    assert!(reason.contains("CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"), "{reason}");
                    failed += 1;
                }
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!(failed, lost, "a frame is lost where the model was at work only");
        assert!(model.is_ready());
        let launches = runs(&fake.take_launches_of("infer-0-"));
        // It was opened there once more, and its runs were not recorded again.
        let again = launches.windows(opened.len()).position(|runs| runs == opened).expect("it is opened anew");
        assert!(launches[again + opened.len()..].iter().all(|size| *size == 1), "{launches:?}");
        engine.shutdown();
    }
}

#[test]
fn recorded_runs_are_tried_on_what_there_is_to_find() {
    let fake = Fake::new();
    let spec = ModelSpec::embedded().unwrap();
    let pictures = [Arc::new(Scene::new(640, 480, 30, 1).frame(3)), Arc::new(I420::new(640, 480))];
    let tried = |gpu: Gpu, pictures: &[Arc<I420>]| {
        let engine = Engine::new(on_gpu(gpu)).unwrap();
        engine.try_recorded(&spec, pictures).map_err(|error| error.to_string())
    };
    let recorded = tried(gpu(&fake).recording(), &pictures).unwrap();
    assert!(recorded.anew > Duration::ZERO && recorded.repeated > Duration::ZERO, "{recorded:?}");
    let nothing = tried(gpu(&fake).recording(), &pictures[1..]).unwrap_err();
    assert!(nothing.contains("nothing to find"), "{nothing}");
    let unasked = tried(gpu(&fake), &pictures).unwrap_err();
    assert!(unasked.contains("not asked for"), "{unasked}");
}

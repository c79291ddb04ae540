//! Models on a GPU that is none: its kernels run on the host, and the processors run the graphs.

use std::sync::Arc;

use saccade::device::Status;
use saccade::device::kernels::Program;
use saccade::infer::device::{Gpu, Tensors};
use saccade::infer::manifest::{BackendChoice, Precision};
use saccade::infer::{Cuda, Detected, Engine, Error, ModelSpec, Options};
use saccade::media::{ColorInfo, ColorMatrix, ColorRange, Detection, I420};
use saccade::scene::Scene;

use crate::accuracy::{compare, compare_shared_by};
use crate::fake_cuda::Fake;

fn on_host() -> Options {
    Options { precision: Some(Precision::Fp32), backend: Some(BackendChoice::Cpu), ..Options::default() }
}

fn on(fake: &Fake) -> Options {
    fake.share_host();
    let program = Arc::new(Program::load(&fake.gpu()).unwrap());
    let gpu = Some(Gpu::new(program, Tensors::Host));
    let cuda = Cuda { name: "a fake".to_owned(), tensorrt: Err("none".to_owned()), gpu };
    Options { backend: Some(BackendChoice::Cuda), cuda: Ok(cuda), ..on_host() }
}

fn spec(path: &str) -> ModelSpec {
    ModelSpec::open(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// Detections in an order that does not hang on the last bit of a score.
fn sorted(mut found: Vec<Detection>) -> Vec<Detection> {
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

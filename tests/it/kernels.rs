//! The device's way from a picture to detections, its kernels being compiled for the host.
#![allow(unsafe_code, reason = "kernels get addresses")]

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::ffi::c_void;
use std::ptr;
use std::sync::Arc;

use saccade::device::kernels::{ENTRIES, Geometry, Kernel, Launch, Nv12, Picture, Precision, Program, SelfTest, Unfit};
use saccade::device::{Device, Error, Status, Stream};
use saccade::infer::preprocess::Preprocessor;
use saccade::infer::preprocess::device::Tables;
use saccade::infer::{Letterbox, Manifest, Outlet, Params, Postprocessor, View};
use saccade::media::{ColorInfo, ColorMatrix, ColorRange, I420};

use self::emulator::{Emulator, Memory};
use crate::fake_cuda::Fake;

/// Any kernel by its name, for whoever stands in for a driver.
#[path = "../../src/device/kernels/emulator.rs"]
pub mod emulator;

/// Runs kernels on the host.
struct OnHost;

impl Launch for OnHost {
    type Error = Infallible;

    unsafe fn launch<K: Kernel>(&self, kernel: &K) -> Result<(), Infallible> {
        let Geometry { grid, block } = kernel.geometry();
        // SAFETY: the structure is the kernel's, and its addresses are those of guarded memory.
        let ran = unsafe { Emulator::get().launch(K::ENTRY.name, grid, block, ptr::from_ref(kernel).cast::<c_void>()) };
        assert!(ran, "{} is there", K::ENTRY.name);
        Ok(())
    }
}

fn run<K: Kernel>(kernel: &K) {
    // SAFETY: as above.
    let Ok(()) = unsafe { OnHost.launch(kernel) };
}

fn manifest() -> Arc<Manifest> {
    let text = "name = 'a'\nversion = '1'\nlicence = 'MIT'\n[input]\nsize = [96, 64]\nmean = [3.0, 2.0, 1.0]\n\
                scale = [0.02, 0.01, 0.5]\n[output]\ndecoder = 'yolov8'\n[classes]\nnames = ['cat', 'dog']\n";
    Arc::new(Manifest::parse(text, |_| unreachable!()).unwrap())
}

#[test]
fn a_batch_of_pictures_becomes_the_tensor_that_the_cpu_makes() {
    let manifest = manifest();
    let len = manifest.input.item_len();
    let tensor = Memory::new(&vec![0; 3 * 4 * len]);
    let mut expected = Vec::new();
    for (item, (width, height)) in [(131, 77), (64, 96), (96, 64)].into_iter().enumerate() {
        let mut picture = I420::new(width, height);
        for (plane, factor) in picture.planes_mut().into_iter().zip([31, 87, 7]) {
            plane.iter_mut().enumerate().for_each(|(at, code)| *code = (at * factor % 253) as u8);
        }
        let color = ColorInfo { matrix: ColorMatrix::Bt709, range: ColorRange::Full };
        let source = Picture::interleave(&picture, 160, 0x80);
        let (tables, memory) = (Tables::new(&manifest.input, width, height), Memory::new(source.data()));
        let words = Memory::of_words(tables.words());
        let values = tensor.address() + (4 * item * len) as u64;
        run(&tables.kernel(source.at(memory.address()), color, words.address(), values, Precision::Single));
        let mut made = vec![0.0; len];
        assert_eq!(Preprocessor::new(manifest.input.clone()).fill(&picture, color, &mut made), tables.letterbox());
        expected.extend(made.iter().map(|value| value.to_bits()));
    }
    assert!(tensor.words() == expected);
}

#[test]
fn a_batch_of_outputs_becomes_the_detections_that_the_cpu_finds() {
    let manifest = manifest();
    let (items, anchors) = (2, 126usize);
    let shape = [items as i64, 6, anchors as i64];
    let mut postprocessor =
        Postprocessor::bind(Arc::clone(&manifest), &[Outlet { name: "out".to_owned(), shape: shape.to_vec() }])
            .unwrap();
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / 16_777_216.0
    };
    let mut output = Vec::new();
    for _ in 0..items {
        for (least, most) in [(0.0, 96.0), (0.0, 64.0), (8.0, 40.0), (8.0, 40.0), (0.0, 1.0), (0.0, 1.0)] {
            output.extend((0..anchors).map(|_| least + (most - least) * next()));
        }
    }
    let params = |score_threshold, classes| Params { score_threshold, iou_threshold: 0.4, max_detections: 20, classes };
    let all = [params(0.3, None), params(0.6, Some(vec![1]))];

    let head = postprocessor.head().unwrap();
    let layout = head.layout(items, &shape, 20).unwrap();
    let mut wishes = vec![0; layout.wishes_len()];
    for (item, params) in all.iter().enumerate() {
        params.write(&layout, item, &mut wishes);
    }
    let (wishes, work) = (Memory::of_words(&wishes), Memory::new(&vec![0xff; layout.work_len()]));
    let results = Memory::of_words(&vec![!0; layout.results_len()]);
    let values = Memory::of_words(&output.iter().map(|value| value.to_bits()).collect::<Vec<_>>());
    let batch = layout.batch(wishes.address(), work.address(), results.address());
    // Twice, since memory is used again: nothing of the first run is left.
    for _ in 0..2 {
        // SAFETY: guarded memory of the lengths that the layout says.
        let Ok(()) = unsafe { head.launch(batch, values.address(), Precision::Single, &OnHost) };
    }

    let words = results.words();
    for (item, params) in all.iter().enumerate() {
        let letterbox = Letterbox::new(&manifest.input, 640, 480);
        let own = &output[item * 6 * anchors..][..6 * anchors];
        let view = View { shape: &[1, 6, anchors as i64], data: own };
        let expected = postprocessor.detections(&[view], &letterbox, params).unwrap();
        assert!((2..=20).contains(&expected.len()), "{}", expected.len());
        assert_eq!(postprocessor.decoded(layout.read(item, &words), &letterbox), expected);
    }
}

#[test]
fn the_self_test_of_a_device_passes() {
    let test = SelfTest::new();
    let [half_len, planes_len] = test.space();
    let source = Memory::new(test.source());
    let (half, planes) = (Memory::new(&vec![0; half_len]), Memory::new(&vec![0; planes_len]));
    let (halve, split) = test.kernels(source.address(), half.address(), planes.address());
    run(&halve);
    assert_ne!(planes.bytes(), test.expected());
    run(&split);
    assert_eq!(planes.bytes(), test.expected());
}

/// What the probe has a GPU compute.
fn tests_of(gpu: &Arc<Device>) -> Result<(), Unfit> {
    let (program, stream) = (Program::load(gpu)?, Stream::new(gpu)?);
    let on = program.on(&stream);
    SelfTest::new().run(&on)?;
    saccade::infer::device::self_test(&on)
}

#[test]
fn a_gpu_whose_kernels_compute_as_the_cpu_is_fit() {
    let fake = Fake::new();
    assert_eq!(tests_of(&fake.gpu()), Ok(()));
    let launched = fake.take_launches().into_iter().collect::<BTreeSet<_>>();
    assert_eq!(launched, ENTRIES.map(|entry| entry.name.to_owned()).into(), "each kernel is tested");
}

#[test]
fn a_gpu_that_computes_something_else_is_not_fit() {
    let fake = Fake::new();
    let gpu = fake.gpu();
    // One launch after the other comes to nothing, and says that it went well.
    for (launch, wrong) in [
        (0, "halving a picture"),
        (1, "halving a picture"),
        (2, "filling a tensor"),
        (3, "decoding YOLOv8"),
        (7, "decoding YOLOv8"),
        (12, "decoding YOLOX"),
    ] {
        fake.fail_after(launch, "cuLaunchKernel", Status::SUCCESS);
        assert_eq!(tests_of(&gpu), Err(Unfit::Wrong(wrong)), "launch {launch}");
    }
    let wrong = Unfit::Wrong("filling a tensor").to_string();
    assert_eq!(wrong, "filling a tensor gives something else than on the CPU");
}

#[test]
fn a_gpu_that_cannot_run_kernels_says_why() {
    let fake = Fake::new();
    let gpu = fake.gpu();
    // CUDA_ERROR_UNSUPPORTED_PTX_VERSION: the driver is older than the compiler that made them.
    fake.fail("cuModuleLoadData", Status(222));
    let error = tests_of(&gpu).unwrap_err().to_string();
    assert_eq!(error, "cuModuleLoadData returned CUDA_ERROR_UNSUPPORTED_PTX_VERSION (222)");
    fake.fail("cuModuleGetFunction", Status(500));
    assert!(matches!(tests_of(&gpu), Err(Unfit::Device(Error::Failed(_)))));
    fake.fail_after(2, "cuLaunchKernel", Status::LAUNCH_FAILED);
    assert!(matches!(tests_of(&gpu), Err(Unfit::Device(Error::Lost(_)))));
    assert!(tests_of(&gpu).is_err(), "it stays lost");
}

#[test]
fn kernels_that_are_not_there_do_not_run() {
    let nowhere = Nv12::default();
    // SAFETY: nothing reads the argument.
    let ran = unsafe { Emulator::get().launch("nothing", [1; 3], [1; 3], ptr::from_ref(&nowhere).cast()) };
    assert!(!ran);
}

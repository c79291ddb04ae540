//! The device's way from a picture to detections and to what is drawn on it, its kernels being compiled for the host.
#![allow(unsafe_code, reason = "kernels get addresses")]

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::ffi::c_void;
use std::ptr;
use std::sync::Arc;

use proptest::prelude::*;
use saccade::annotate::{Annotator, LineShape, Overlay, ZoneShape};
use saccade::device::kernels::{
    Batch, ENTRIES, Geometry, Kernel, Launch, Nv12, Picture, Precision, Program, SelfTest, Unfit, overlay,
};
use saccade::device::{Device, Error, Status, Stream};
use saccade::draw::Atlas;
use saccade::infer::preprocess::Preprocessor;
use saccade::infer::preprocess::device::Tables;
use saccade::infer::{Head, Letterbox, Manifest, Outlet, Params, Postprocessor, View};
use saccade::media::{Class, ColorInfo, ColorMatrix, ColorRange, I420, Keypoint, Mask, Overall};

use self::emulator::{Emulator, Memory};
use crate::fake_cuda::Fake;
use crate::gpu_runner::runner::comparisons::{Painter, Place, drawn, found};

/// Any kernel by its name, for whoever stands in for a driver.
#[path = "../../src/device/kernels/emulator.rs"]
pub mod emulator;

/// Runs kernels on the host.
pub struct OnHost;

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

impl Place for OnHost {
    type Memory = Memory;

    fn put(&self, bytes: &[u8]) -> Result<Memory, String> {
        Ok(Memory::new(bytes))
    }

    fn address(memory: &Memory) -> u64 {
        memory.address()
    }

    fn bytes(&self, memory: &Memory) -> Result<Vec<u8>, String> {
        Ok(memory.bytes())
    }

    fn launch<K: Kernel>(&self, kernel: &K) -> Result<(), String> {
        run(kernel);
        Ok(())
    }

    fn find(&self, head: &Head, batch: Batch, output: u64, precision: Precision) -> Result<(), String> {
        // SAFETY: guarded memory of the lengths that the head's layout says.
        let Ok(()) = unsafe { head.launch(batch, output, precision, self) };
        Ok(())
    }
}

fn run<K: Kernel>(kernel: &K) {
    // SAFETY: as above.
    let Ok(()) = unsafe { Launch::launch(&OnHost, kernel) };
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
    let source = Memory::new(test.source());
    let space = test.space().map(|len| Memory::new(&vec![0; len]));
    let (turn, halve, split) = test.kernels(source.address(), space.each_ref().map(Memory::address));
    run(&turn);
    run(&halve);
    assert_ne!(space[2].bytes(), test.expected());
    run(&split);
    assert_eq!(space[2].bytes(), test.expected());
}

fn noise(width: u32, height: u32) -> I420 {
    let mut picture = I420::new(width, height);
    for (plane, factor) in picture.planes_mut().into_iter().zip([31, 87, 7]) {
        plane.iter_mut().enumerate().for_each(|(at, code)| *code = (at * factor % 253) as u8);
    }
    picture
}

/// A mask of two classes in streaks, which a part of a picture of this size lies beside.
fn streaks(width: f32, height: f32) -> Overall {
    let map = (0..19 * 13).map(|at: u32| [0, 1, Mask::NONE][(at / 3 % 3) as usize]).collect();
    let class = |index: u8| Some(Class { id: index.into(), name: "streak".into() });
    Overall::Mask(Mask::new([19, 13], map, [0.1 * width, -2.0, width + 3.0, height], [width, height], class))
}

#[test]
fn overlays_drawn_on_the_device_are_those_of_the_cpu() {
    let (mut annotator, mut painter) = (Annotator::new(), Painter::default());
    let polygons: [&[[f32; 2]]; 2] =
        [&[[0.1, 0.15], [0.8, 0.2], [0.95, 0.9], [0.4, 0.55], [0.05, 1.1]], &[[0.5, 0.5], [1.5, -0.5], [0.7, 0.9]]];
    let zones = [ZoneShape { name: "gate", polygon: polygons[0] }, ZoneShape { name: "", polygon: polygons[1] }];
    let lines = [
        LineShape { name: "door", from: [0.1, 0.9], to: [0.85, 0.3] },
        LineShape { name: "", from: [0.5, -0.2], to: [0.5, 0.4] },
    ];
    let timing = ["latency 12 ms of 200 ms", "decode 1.2  queue 3.4  model 5.6"];
    let sizes = [(1, 1), (2, 3), (33, 17), (160, 121), (321, 240), (1279, 721), (1920, 1080)];
    for ((width, height), options) in sizes.into_iter().flat_map(|size| (0..32).map(move |options| (size, options))) {
        // Large pictures with everything, and with nothing.
        if width > 400 && ![0, 31].contains(&options) {
            continue;
        }
        let on = |option: u32| options >> option & 1 == 1;
        let (w, h) = (width as f32, height as f32);
        let boxes = (0..9u32).map(|number| {
            let (x, y) = (w * (0.13 * number as f32 - 0.1), h * (0.21 * (number % 5) as f32 - 0.06));
            found([x, y, x + w / 5.5, y + h / 4.3], number, ["head", "Schutzhelm", "žluť € 漢"][number as usize % 3])
        });
        let mut detections: Vec<_> = boxes.collect();
        let points = [[0.3, 0.4], [0.5, 0.99], [-0.2, 0.5]].map(|[x, y]| Keypoint { at: [x * w, y * h], score: 0.5 });
        detections[1].keypoints = points.to_vec();
        let overall = streaks(w, h);
        let overlay = Overlay {
            detections: &detections,
            overall: Some(&overall).filter(|_| on(4)),
            boxes: on(0),
            labels: on(1),
            timing: if on(2) { &timing } else { &[] },
            zones: if on(3) { &zones } else { &[] },
            lines: if on(4) { &lines } else { &[] },
        };
        let matrix = [ColorMatrix::Bt601, ColorMatrix::Bt709, ColorMatrix::Bt2020][options as usize % 3];
        let color = ColorInfo { matrix, range: if on(0) { ColorRange::Limited } else { ColorRange::Full } };
        let picture = noise(width, height);
        let source = (&picture, width.next_multiple_of(2) + 2 * (options % 5));
        let expected = drawn(source, color, &overlay);
        // Where a label has room, each option shows.
        assert!(expected != Picture::interleave(&picture, source.1, 0x5a).data() || options == 0 || width < 160);
        let (made, _) = painter.draw(&OnHost, &mut annotator, source, color, &overlay).unwrap();
        assert!(made == expected, "{width}x{height}, options {options:b}");
        // The masks are there now.
        let (again, copied) = painter.draw(&OnHost, &mut annotator, source, color, &overlay).unwrap();
        assert!(again == expected && copied == 0, "{width}x{height}, options {options:b}: {copied} bytes");
    }
    assert_eq!(painter.refused(), 0);
}

#[test]
fn masks_of_many_letters_are_copied_anew_when_they_are_too_many_to_keep() {
    let (mut annotator, mut painter) = (Annotator::new(), Painter::default());
    // All letters of the font and others, a part of them in each label, which begins at one of four places.
    let letters: Vec<_> = (0x20..0x2200).filter_map(char::from_u32).collect();
    let names: Vec<String> = letters.chunks(40).map(String::from_iter).collect();
    let labels = (0..4).flat_map(|start| names.iter().map(move |name| format!("{}{name}", &"il|"[..start])));
    let labels: Vec<_> = labels.map(|name| found([100.0, 900.0, 150.0, 960.0], 1, &name)).collect();
    let overlay = Overlay { detections: &labels, ..Overlay::default() };
    let mut afresh = 0;
    for side in [1900, 1840, 1780] {
        let (picture, before) = (noise(side, side), painter.kept());
        let (made, copied) =
            painter.draw(&OnHost, &mut annotator, (&picture, side), ColorInfo::default(), &overlay).unwrap();
        assert!(made == drawn((&picture, side), ColorInfo::default(), &overlay), "{side}");
        assert!(painter.kept() < 2 * Atlas::KEPT, "{} bytes", painter.kept());
        afresh += usize::from(before > 0 && copied == painter.kept());
        assert!(copied > Atlas::KEPT / 8, "{copied} bytes of letters");
    }
    assert_eq!(afresh, 1);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) })]

    #[test]
    fn any_overlay_is_drawn_on_the_device_as_on_the_cpu(
        (width, height) in (1..400u32, 1..300u32), more in 0..40u32,
        boxes in proptest::collection::vec((proptest::array::uniform4(-200.0..600.0f32), 0..30u32, ".{0,24}"), 0..16),
        polygon in proptest::collection::vec(proptest::array::uniform2(-0.5..1.5f32), 0..9),
        name in ".{0,12}", timing in ".{0,40}",
    ) {
        let detections: Vec<_> = boxes.iter().map(|(bbox, id, name)| found(*bbox, *id, name)).collect();
        let ends = [polygon.first(), polygon.last()].map(|end| end.copied().unwrap_or_default());
        let overlay = Overlay {
            detections: &detections,
            timing: &[&timing],
            zones: &[ZoneShape { name: &name, polygon: &polygon }],
            lines: &[LineShape { name: &name, from: ends[0], to: ends[1] }],
            ..Overlay::default()
        };
        let picture = noise(width, height);
        let source = (&picture, width.next_multiple_of(2) + more);
        let (made, _) = Painter::default().draw(&OnHost, &mut Annotator::new(), source, ColorInfo::default(), &overlay).unwrap();
        prop_assert!(made == drawn(source, ColorInfo::default(), &overlay));
    }
}

#[test]
fn the_self_test_of_a_device_that_paints_passes() {
    let mut test = overlay::SelfTest::new();
    let [picture, atlas] = [test.picture(), test.atlas()].map(Memory::new);
    let words = Memory::of_words(test.kernel(0, 0, 0).1);
    run(&test.kernel(picture.address(), atlas.address(), words.address()).0);
    assert_eq!(picture.bytes(), test.expected());
}

/// What the probe has a GPU compute.
fn tests_of(gpu: &Arc<Device>) -> Result<(), Unfit> {
    let (program, stream) = (Program::load(gpu)?, Stream::new(gpu)?);
    let on = program.on(&stream);
    SelfTest::new().run(&on)?;
    overlay::SelfTest::new().run(&on)?;
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
        (0, "turning and halving a picture"),
        (2, "turning and halving a picture"),
        (3, "painting"),
        (4, "filling a tensor"),
        (5, "decoding YOLOv8"),
        (9, "decoding YOLOv8"),
        (14, "decoding YOLOX"),
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

//! What `tests/gpu` does on a GPU, on one that is none: that it finds everything well there, and notices what is not.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use saccade::calibration::Calibration;
use saccade::clock;
use saccade::decode::nvdec::Codec;
use saccade::device::Status;
use saccade::infer::device::Tensors;
use saccade::infer::manifest::{BackendChoice, Precision};
use saccade::infer::{Engine, ModelSpec};
use saccade::pipeline::Libraries;
use saccade::tuning::Tuning;

use self::runner::clips::{Clip, is_keyframe};
use self::runner::comparisons::What;
use self::runner::files::Files;
use self::runner::goldens::On;
use self::runner::gpu::Machine;
use self::runner::graphs::Graphs;
use self::runner::making::{Style, encode, scene};
use self::runner::numbers::Numbers;
use self::runner::{Report, Stop, decode, goldens, kernels, probe, sessions, sweep};
use crate::fake_cuda::Fake;
use crate::kernels::OnHost;
use crate::server::{config, metrics};

#[path = "../gpu/src/runner/mod.rs"]
pub mod runner;

fn libraries(fake: &Fake) -> Libraries {
    fake.share_host();
    Libraries { driver: fake.driver(), decoder: Some(fake.api()), encoder: None, tensors: Tensors::Host }
}

/// The fake, opened as the runner opens a GPU.
fn machine(fake: &Fake) -> Machine {
    drop(fake.gpu());
    Machine::of(libraries(fake)).unwrap()
}

fn clip(codec: Codec, size: [u32; 2], frames: usize) -> Clip {
    let name = format!("{}x{} {codec}", size[0], size[1]);
    encode(name, codec, size, scene(size).take(frames), Style::Live).unwrap()
}

/// What a part said of something.
fn found(report: &Report, what: &str) -> String {
    let rows = report.rows();
    let row = rows.iter().find(|(name, _)| name == what);
    row.unwrap_or_else(|| panic!("{what} is not in\n{report}")).1.clone()
}

fn deadline() -> std::time::Instant {
    clock::now() + Duration::from_secs(60)
}

#[test]
fn kernels_compiled_for_the_host_compute_what_the_processors_do() {
    let report = Report::new("kernels");
    kernels::compare(&report, &OnHost, 1, 24);
    assert_eq!((report.mistakes(), report.rows().len()), (0, What::ALL.len()), "{report}");
}

#[test]
fn kernels_are_compared_on_the_gpu_with_guards_around_their_memory() {
    let fake = Fake::new();
    let report = Report::new("kernels");
    kernels::run(&report, &machine(&fake), 5, 2).unwrap();
    assert_eq!(report.mistakes(), 0, "{report}");
    assert_eq!(found(&report, "self-test"), "as on the CPU");
}

#[test]
fn a_kernel_that_does_nothing_is_noticed() {
    let fake = Fake::new();
    let machine = machine(&fake);
    for what in What::ALL {
        let stream = saccade::device::Stream::new(&machine.device).unwrap();
        let place = runner::gpu::OnGpu(machine.program.on(&stream));
        // The last launch of a comparison at the latest: some paint nothing, so those with boxes on them are looked for.
        let noticed = (0..20).any(|seed| {
            fake.fail("cuLaunchKernel", Status::SUCCESS);
            let compared = what.compare(&place, &mut Numbers::new(seed));
            compared.is_err_and(|problem| problem.contains("differ") || problem.contains("other boxes"))
        });
        assert!(noticed, "{}", what.name());
    }
}

#[test]
fn a_machine_without_a_gpu_says_so() {
    let fake = Fake::new();
    drop(fake.gpu());
    fake.set_devices(0);
    let Err(Stop::NoGpu(reason)) = Machine::of(libraries(&fake)) else { panic!("there is none") };
    assert!(reason.contains("GPU"), "{reason}");
    fake.set_devices(1);
    fake.fail("cuModuleLoadData", Status(222));
    let Err(Stop::Failed(reason)) = Machine::of(libraries(&fake)) else { panic!("its driver is too old") };
    assert!(reason.contains("CUDA_ERROR_UNSUPPORTED_PTX_VERSION"), "{reason}");
    let stopped = probe::run(&Report::new("probe"), Path::new("/nowhere/saccade"));
    assert!(matches!(stopped, Err(Stop::Failed(reason)) if reason.contains("--server")));
}

#[test]
fn clips_are_read_as_they_were_written() {
    let folder = tempfile::tempdir().unwrap();
    let stored = encode("b".to_owned(), Codec::H264, [64, 48], scene([64, 48]).take(12), Style::Stored).unwrap();
    let clips = [Codec::H264, Codec::Hevc, Codec::Vp8, Codec::Vp9].map(|codec| clip(codec, [96, 64], 32));
    for clip in clips.iter().chain([&stored]) {
        clip.write(folder.path()).unwrap();
        let read = Clip::read(&folder.path().join(format!("{}.ivf", clip.name))).unwrap();
        assert_eq!((&read.units, read.codec, read.size), (&clip.units, clip.codec, clip.size));
        assert_eq!(read.is_in_order(), clip.name != "b");
        let keyframes: Vec<_> = clip.units.iter().map(|unit| is_keyframe(clip.codec, &unit.data)).collect();
        let expected: Vec<_> = (0..clip.units.len()).map(|unit| unit % 30 == 0).collect();
        assert_eq!(keyframes, expected, "{}", clip.codec);
        assert_eq!(decode::reference(clip).unwrap().len(), clip.units.len(), "{}", clip.codec);
    }
    std::fs::write(folder.path().join("none.ivf"), "DKIF").unwrap();
    let Err(Stop::Failed(reason)) = Clip::read_all(folder.path()) else { panic!("it is none") };
    assert!(reason.contains("none.ivf: no IVF file"), "{reason}");
}

#[test]
fn what_the_gpu_decodes_is_compared_and_counted() {
    let fake = Fake::new();
    let by = decode::By::machine(&machine(&fake)).unwrap();
    let clips =
        [clip(Codec::H264, [1280, 720], 32), clip(Codec::H264, [320, 240], 32), clip(Codec::Vp8, [161, 121], 40)];
    let report = Report::new("decode");
    decode::run(&report, &by, &clips, 0.2, 1).unwrap();
    assert_eq!(found(&report, "1280x720 H264"), "32 pictures bit by bit, each at once");
    assert_eq!(found(&report, "161x121 VP8"), "40 pictures bit by bit, each at once");
    assert_eq!(found(&report, "H264, from 1280x720 to 320x240 and back"), "60 pictures bit by bit, each at once");
    assert!(found(&report, "VP8, a unit noise").contains("right ones from then on"), "{report}");
    let (streams, busy) = (found(&report, "H264 720p30 streams at best"), "; how busy the decoders are is not told");
    assert!(streams.strip_suffix(busy).unwrap().parse::<u32>().unwrap() >= 1, "{report}");
    assert!(fake.calls("cuvidDecodePicture") > 200);

    // A picture that the decoder says is damaged, and software that would have to take over.
    fake.set_next_status(8);
    let report = Report::new("decode");
    decode::run(&report, &by, &clips[1..2], 0.1, 0).unwrap();
    assert!(found(&report, "320x240 H264").starts_with("WRONG: "), "{report}");
    assert!(report.mistakes() >= 1);
}

#[test]
fn software_decodes_the_clips_that_sessions_may_send() {
    let clips = [clip(Codec::Vp9, [160, 120], 40), clip(Codec::Hevc, [160, 120], 10)];
    let report = Report::new("decode");
    decode::run(&report, &decode::By::Software, &clips, 0.1, 1).unwrap();
    assert_eq!(found(&report, "160x120 VP9"), "40 pictures bit by bit, each at once");
    assert_eq!(found(&report, "HEVC"), "unavailable: sessions have none");
}

/// A folder with a model under this name that finds the heads of the drawn scene.
fn files(name: &str) -> (tempfile::TempDir, Files) {
    let folder = tempfile::tempdir().unwrap();
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/scene-blobs/1");
    let to = folder.path().join("models").join(name).join("1");
    std::fs::create_dir_all(&to).unwrap();
    std::fs::copy(from.join("model.onnx"), to.join("model.onnx")).unwrap();
    let manifest = std::fs::read_to_string(from.join("manifest.toml")).unwrap();
    std::fs::write(to.join("manifest.toml"), manifest.replace("\"scene-blobs\"", &format!("\"{name}\""))).unwrap();
    let files = Files(folder.path().to_owned());
    (folder, files)
}

#[test]
fn models_in_place_are_compared_with_those_on_processors() {
    let fake = Fake::new();
    let (_folder, files) = files("scene-blobs");
    let report = Report::new("goldens");
    goldens::run(&report, &On::machine(&machine(&fake), true), &files).unwrap();
    assert_eq!(report.mistakes(), 0, "{report}");
    for model in ["ppe-nano@2, fp32", "scene-blobs@1, fp32"] {
        let found = found(&report, model);
        let boxes: u32 = found.strip_prefix("in place: ").unwrap().split(' ').next().unwrap().parse().unwrap();
        assert!(boxes >= 10, "{model}: {found}");
    }
    assert!(found(&report, "scene-blobs@1, int8").starts_with("unavailable: "), "{report}");
}

#[test]
fn the_speed_of_models_is_measured_from_pictures_on_the_gpu() {
    let fake = Fake::new();
    let (_folder, files) = files("yolo-320");
    let server = Path::new("/nowhere/saccade").to_owned();
    let machine = machine(&fake);
    let plan = sweep::Plan {
        batches: vec![1, 2],
        sides: Vec::new(),
        seconds: 0.2,
        instances: Some(2),
        graphs: Graphs::find(&machine, true),
        server,
        end: deadline(),
    };
    let report = Report::new("sweep");
    sweep::run(&report, Some(&machine), &files, &plan).unwrap();
    assert_eq!(report.mistakes(), 0, "{report}");
    for how in ["", ", recorded"] {
        let through = found(&report, &format!("yolo-320, cuda fp32, pictures to boxes, 1 a run{how}"));
        assert!(through.contains("inferences/s") && through.contains("a run of 1.0"), "{through}");
        assert!(through.contains("instances 2"), "{through}");
        assert!(!through.contains(", 0.0 boxes"), "the scene's people are found: {through}");
    }
    assert!(found(&report, "processors fp32, 320x320, 1 a run").contains("inferences/s of noise"));
    assert_eq!(fake.pictures_brought(), 0);
    assert!(found(&report, "TensorRT, pictures to boxes").starts_with("unavailable: "), "{report}");
    let late = sweep::Plan { end: clock::now(), ..plan };
    let report = Report::new("sweep");
    sweep::run(&report, None, &files, &late).unwrap();
    assert_eq!(found(&report, "processors fp32, 320x320, 1 a run"), "unavailable: no time was left");
}

#[test]
fn runs_are_recorded_where_a_trial_finds_that_it_works_and_it_is_wanted() {
    let fake = Fake::new();
    let machine = machine(&fake);
    let (_folder, files) = files("scene-blobs");
    let spec = sessions::find(&files, "scene-blobs", Precision::Fp32).unwrap().unwrap().0;
    let how = |graphs: &Graphs| {
        let engine = Engine::new(On::machine(&machine, graphs.are_on()).options(Precision::Fp32)).unwrap();
        graphs.of_model(&engine, &spec)
    };
    let graphs = Graphs::find(&machine, true);
    assert!(
        matches!(&graphs, Graphs::Recorded(found) if found.starts_with("ppe-nano@2 finds the same in")),
        "{graphs}"
    );
    let recorded = how(&graphs);
    assert!(recorded.starts_with("recorded: scene-blobs@1 finds the same in"), "{recorded}");
    assert_eq!(how(&Graphs::find(&machine, false)), "anew");

    // What the GPU refuses is not asked of it again.
    fake.set_memory(fake.memory_in_use());
    let refused = Graphs::find(&machine, true);
    assert!(matches!(&refused, Graphs::Refused(reason) if !reason.is_empty()) && !refused.are_on(), "{refused}");
    assert_eq!(how(&refused), refused.to_string());
}

/// Sessions on the fake, on a model that finds heads: what the report says of two of them and of how they run.
async fn run_sessions(fake: &Fake, plan: &sessions::Plan, graphs: bool, clip: &Clip) -> Report {
    let machine = machine(fake);
    let graphs = Graphs::find(&machine, graphs);
    let (gpu, decodes) = sessions::open(&machine, &graphs).unwrap();
    let gpu = Arc::new(gpu);
    let on = On::Gpu(Box::new(sessions::cuda(&machine, &gpu)), BackendChoice::Cuda);
    let engine = Arc::new(Engine::new(on.options(Precision::Fp32)).unwrap());
    let spec = ModelSpec::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("models/scene-blobs/1")).unwrap();
    let model = on.load(&engine, &spec, Precision::Fp32).unwrap();
    let machinery = sessions::Machinery {
        engine: Arc::clone(&engine),
        gpu: Some(gpu),
        decodes,
        runs: graphs.of_model(&engine, &spec),
        tuning: Tuning::find(&config(&[]), &Calibration::Off),
        metrics: metrics(),
    };
    let report = Report::new("sessions");
    sessions::run(&report, &machinery, &model, clip, plan).await.unwrap();
    drop(model);
    tokio::task::block_in_place(|| engine.shutdown());
    report
}

fn two_sessions() -> sessions::Plan {
    sessions::Plan {
        counts: vec![2],
        settled: 5,
        settle: Duration::from_secs(20),
        warm: Duration::ZERO,
        time: Duration::from_millis(500),
        least: 10,
        budget_ms: 1_000,
        codec_threads: None,
        degradation: false,
        end: deadline(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_from_files_are_decoded_and_inferred_on_the_gpu() {
    let fake = Fake::new();
    let clip = clip(Codec::H264, [320, 240], 60);
    let report = run_sessions(&fake, &two_sessions(), true, &clip).await;
    assert_eq!(report.mistakes(), 0, "{report}");
    let how = found(&report, "scene-blobs@1, how it runs");
    assert!(how.contains("in place, instances 1, ") && how.contains("CUDA graphs: recorded: "), "{how}");
    assert_eq!(found(&report, "decoded on the GPU"), "H264, VP8, VP9");
    let ran = found(&report, "scene-blobs@1, 2 sessions of 320x240 H264");
    let is_part = |letter: char| letter.is_ascii_digit() || letter == '.';
    let number = |text: &str| text.split(|letter| !is_part(letter)).next().unwrap().parse::<f64>().unwrap();
    let rates = ran.trim_start_matches("NOT ALL ANSWERED: ");
    let (results, sent) = (number(rates), number(rates.split(" of ").nth(1).unwrap()));
    assert!(results > 0.0 && results <= sent && sent <= 64.0, "{ran}");
    assert!(number(ran.split("boxes ").nth(1).unwrap().trim_end_matches(';')) > 0.0, "{ran}");
    assert!(ran.contains("all with 5 results"), "{ran}");
    let launches = fake.take_launches();
    assert!(launches.iter().any(|name| name == "nv12_to_tensor"), "{launches:?}");
    assert_eq!(fake.pictures_brought(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_software_decodes_are_wrong_however_early_that_began() {
    // A decoder that the GPU has no room for.
    let fake = Fake::new();
    fake.set_max_decoders(1);
    let plan = sessions::Plan { counts: vec![2, 1], ..two_sessions() };
    let report = run_sessions(&fake, &plan, false, &clip(Codec::H264, [320, 240], 60)).await;
    assert_eq!(report.mistakes(), 1, "{report}");
    let ran = found(&report, "scene-blobs@1, 2 sessions of 320x240 H264");
    assert!(
        ran.starts_with("WRONG: not all sessions stayed on the GPU: saccade_decode_takeovers_total{reason="),
        "{ran}"
    );
    assert!(ran.contains("frames/s with results"), "{ran}");
    // The next number of them is not held up, and is all right.
    let ran = found(&report, "scene-blobs@1, 1 sessions of 320x240 H264");
    assert!(ran.contains("all with 5 results"), "{ran}");
    assert!(found(&report, "scene-blobs@1, how it runs").contains("CUDA graphs: anew"), "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_without_results_are_wrong_and_hold_up_no_others() {
    let fake = Fake::new();
    let mut noise = clip(Codec::H264, [320, 240], 30);
    noise.units.iter_mut().for_each(|unit| unit.data = vec![7; 100].into());
    let plan = sessions::Plan { counts: vec![2, 1], settle: Duration::from_millis(300), ..two_sessions() };
    let report = run_sessions(&fake, &plan, false, &noise).await;
    assert_eq!(report.mistakes(), 2, "{report}");
    for count in [2, 1] {
        let ran = found(&report, &format!("scene-blobs@1, {count} sessions of 320x240 H264"));
        assert!(ran.contains(&format!("0 of {count} sessions had 5 results within 300ms")), "{ran}");
    }
}

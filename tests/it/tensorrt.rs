//! Engines of TensorRT, with a builder that is none, on a GPU that is none: who builds what and when, and what is kept.

use std::fs::{self, File, Permissions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use saccade::calibration::Calibration;
use saccade::clock;
use saccade::device::kernels::Program;
use saccade::infer::backend::Provider;
use saccade::infer::device::{Gpu, Tensors};
use saccade::infer::manifest::{BackendChoice, Precision};
use saccade::infer::{Cuda, Engine, Engines, Error, Model, ModelSpec, Options, TensorRt};
use saccade::media::ColorInfo;
use saccade::scene::Scene;

use crate::fake_cuda::Fake;

const PATIENCE: Duration = Duration::from_secs(60);

/// A GPU with a builder that is a shell script, whose `$engine` is the folder for the engine.
struct Bench {
    folder: tempfile::TempDir,
    options: Options,
    _fake: Fake,
}

impl Bench {
    fn new(script: &str, engines: Engines) -> Self {
        let (fake, folder) = (Fake::new(), tempfile::tempdir().unwrap());
        fake.share_host();
        let gpu = Gpu::new(Arc::new(Program::load(&fake.gpu()).unwrap()), Tensors::Host);
        let engine = r#"job=$(cat); engine=$(printf %s "$job" | sed 's/.*"engine":"\([^"]*\)".*/\1/')"#;
        let count = folder.path().join("count");
        let script = format!("{engine}\nprintf '%s\\n' \"$job\" >>'{}'\n{script}", count.display());
        let tensorrt = TensorRt {
            name: "a fake 10.0".to_owned(),
            command: ["/bin/sh", "-c", &script].map(Into::into).into(),
            folder: folder.path().join("engines"),
        };
        let cuda = Cuda { name: "a fake".to_owned(), tensorrt: Ok(tensorrt), gpu: Some(gpu) };
        let options = Options {
            precision: Some(Precision::Fp32),
            backend: Some(BackendChoice::TensorRt),
            calibration: Calibration::Keep(folder.path().join("calibration.json")),
            cuda: Ok(cuda),
            engines,
            ..Options::default()
        };
        Self { folder, options, _fake: fake }
    }

    fn engine(&self) -> Engine {
        Engine::new(self.options.clone()).unwrap()
    }

    /// What was asked of the builder.
    fn jobs(&self) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(self.folder.path().join("count")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// What lies in the folder of engines.
    fn kept(&self) -> Vec<PathBuf> {
        let timing = self.folder.path().join("engines/timing");
        let entries = fs::read_dir(self.folder.path().join("engines")).unwrap();
        entries.map(|entry| entry.unwrap().path()).filter(|path| *path != timing).collect()
    }
}

/// A model that runs one picture at a time.
fn spec() -> ModelSpec {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/scene-blobs/1");
    let mut spec = ModelSpec::open(&folder).unwrap();
    spec.manifest.batching.max_batch = 1;
    spec.manifest.batching.preferred = vec![];
    spec
}

fn find(model: &Model) -> usize {
    let picture = Arc::new(Scene::new(640, 480, 30, 1).frame(3));
    let found = model.detect(&picture, ColorInfo::default(), &Arc::new(model.default_params()));
    found.unwrap().detections.len()
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = clock::now();
    while !is_so() {
        assert!(clock::now() - start < PATIENCE, "{what}");
        std::thread::yield_now();
    }
}

fn pipe(folder: &Path, name: &str) -> PathBuf {
    let path = folder.join(name);
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    path
}

const BUILD: &str = r#"echo an engine >"$engine/graph.engine""#;

#[test]
fn a_model_works_while_its_engine_is_built_and_is_run_by_it_then() {
    let pipes = tempfile::tempdir().unwrap();
    let (begun, go) = (pipe(pipes.path(), "begun"), pipe(pipes.path(), "go"));
    let script = format!("echo >'{}'; read -r line <'{}'; {BUILD}", begun.display(), go.display());
    let bench = Bench::new(&script, Engines::Meanwhile);
    let engine = bench.engine();
    let model = engine.load(&spec()).unwrap();
    engine.all_loaded();
    File::open(&begun).unwrap().read_exact(&mut [0]).unwrap();
    assert_eq!(model.selection().provider, Provider::Cuda);
    let before = find(&model);
    assert!(before > 0, "there is something to be found");
    File::create(&go).unwrap().write_all(b"\n").unwrap();
    wait_until("the model changes", || model.selection().provider == Provider::TensorRt);
    assert_eq!(find(&model), before);
    assert!(model.selection().in_place);
    let jobs = bench.jobs();
    assert_eq!(jobs.len(), 1, "{jobs:?}");
    assert_eq!((&jobs[0]["precision"], &jobs[0]["batch"]), (&"fp32".into(), &1.into()));
    engine.shutdown();

    // The next start has it from the beginning.
    let engine = bench.engine();
    let model = engine.load(&spec()).unwrap();
    assert_eq!(model.selection().provider, Provider::TensorRt);
    assert_eq!(find(&model), before);
    engine.shutdown();
    assert_eq!(bench.jobs().len(), 1, "it was kept");
}

#[test]
fn an_engine_is_built_once_whether_it_is_used_or_not() {
    let mut bench = Bench::new(BUILD, Engines::Meanwhile);
    bench.options.backend = Some(BackendChoice::Gpu);
    let kept = bench.folder.path().join("calibration.json");
    let is_compared = || {
        let text = fs::read_to_string(&kept).unwrap_or_default();
        let kept: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        kept["entries"][0]["found"]["is_final"] == true
    };
    for _ in 0..2 {
        let engine = bench.engine();
        let model = engine.load(&spec()).unwrap();
        engine.all_loaded();
        // The same processors run both, so that either may win by chance; both were tried then.
        wait_until("it is compared", is_compared);
        assert!(find(&model) > 0);
        engine.shutdown();
    }
    assert_eq!(bench.jobs().len(), 1);
}

#[test]
fn whoever_waits_for_engines_is_told_why_there_is_none() {
    let load = |script| {
        let bench = Bench::new(script, Engines::First);
        let error = bench.engine().load(&spec()).unwrap_err();
        let again = bench.engine().load(&spec()).unwrap_err();
        assert!(again.to_string().ends_with(", when that was tried last"), "{again}");
        assert_eq!(bench.jobs().len(), 1, "it is not tried again");
        assert!(
            bench.kept().iter().all(|path| path.extension().is_some_and(|name| name == "failed")),
            "nothing is left"
        );
        let Error::Unavailable { what, reason } = error else { panic!("{error}") };
        assert_eq!(what, "tensorrt in fp32");
        reason
    };
    assert_eq!(
        load("echo; echo 'no room for it' >&2; exit 3"),
        "the process that builds it ended with 3: no room for it"
    );
    assert_eq!(load("kill -SEGV $$"), "signal 11 ended the process that builds it");
    assert_eq!(load("exit 0"), "it can do nothing of the graph");
}

#[test]
fn engines_end_with_the_server() {
    let pipes = tempfile::tempdir().unwrap();
    let begun = pipe(pipes.path(), "begun");
    let bench = Bench::new(&format!("echo >'{}'; exec sleep 600", begun.display()), Engines::Meanwhile);
    let engine = bench.engine();
    let model = engine.load(&spec()).unwrap();
    engine.all_loaded();
    File::open(&begun).unwrap().read_exact(&mut [0]).unwrap();
    let start = clock::now();
    engine.shutdown();
    assert!(clock::now() - start < PATIENCE, "nobody waits for the builder");
    assert_eq!(model.selection().provider, Provider::Cuda);
    assert_eq!(bench.kept(), Vec::<PathBuf>::new());
}

#[test]
fn engines_that_others_could_have_written_are_not_used() {
    let bench = Bench::new(BUILD, Engines::First);
    bench.engine().load(&spec()).unwrap();
    let folder = bench.folder.path().join("engines");
    assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
    fs::set_permissions(&folder, Permissions::from_mode(0o777)).unwrap();
    let error = bench.engine().load(&spec()).unwrap_err();
    assert!(error.to_string().contains("others can write to it"), "{error}");
}

#[test]
fn the_program_s_builder_says_what_is_missing_here() {
    let build = |job: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_saccade"));
        command.arg("build-engine").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(job.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(69));
        String::from_utf8_lossy(&output.stderr).trim().lines().last().unwrap_or_default().to_owned()
    };
    assert!(build("{}").starts_with("standard input describes no engine: missing field"), "{}", build("{}"));
    let folder = tempfile::tempdir().unwrap();
    let job = |graphs: &[&str]| {
        serde_json::json!({
            "model": null, "graphs": graphs, "precision": "fp32", "variant": "fp32", "batch": 1, "threads": 1, "device_memory_mb": null,
            "engine": folder.path(), "timing": folder.path(),
        })
        .to_string()
    };
    let other = build(&job(&["0"]));
    let sums = other.strip_prefix("model.onnx: sha256 is ").and_then(|rest| rest.split_once(", the manifest says 0"));
    let sums: Vec<_> = sums.expect(&other).0.split(", ").collect();
    let missing = build(&job(&sums));
    assert!(missing.starts_with("tensorrt in fp32 is not available here: "), "{missing}");
}

//! Engines of TensorRT: what it makes of a graph for one GPU, which takes minutes, and is kept on disk.
//!
//! A process of its own builds them: a builder that crashes, hangs or eats memory must not take sessions with it. What is
//! kept is opened within seconds.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::onnx::{self, Kept, OnnxBackend, Settings};
use super::{Backend as _, Graph, Library, Provider};
use crate::calibration::cache_folder;
use crate::child::{self, End, Stop};
use crate::clock;
use crate::infer::decoder::Decoder;
use crate::infer::error::Error;
use crate::infer::manifest::{Manifest, Precision};
use crate::infer::repository::ModelSpec;

/// Raised whenever engines are built in another way.
const FORMAT: u32 = 1;
/// What building one engine may take.
const LIMIT: Duration = Duration::from_secs(20 * 60);
/// Engines that are kept, those that were built last. Each is as large as its model.
const KEPT: usize = 128;
/// Ends of names of folders that are not complete.
const UNFINISHED: &str = ".building";
/// End of names of files that say why an engine cannot be built, and how long that is believed.
const FAILED: &str = "failed";
const FAILURE: Duration = Duration::from_secs(24 * 3600);
/// Where a process' words are.
const LOG: &str = "build.log";
/// Bytes of these words that are looked at, from the end.
const WORDS: usize = 4096;

/// TensorRT on this machine, and where its engines are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorRt {
    /// What engines depend on: the GPU, and the versions of what builds and runs them.
    pub name: String,
    /// The program that builds an engine, with its arguments. It gets a [`Job`] as JSON on its standard input, leaves the
    /// engine in the job's folder, and ends with 0; or says why not in the last line of its standard error.
    pub command: Vec<OsString>,
    /// A folder for engines, which is nobody else's.
    pub folder: PathBuf,
}

/// An engine that is to be built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// The model's folder; none: the embedded one.
    model: Option<PathBuf>,
    /// SHA-256 of its graphs, which are read again.
    graphs: Vec<String>,
    precision: String,
    /// Precision of the graph.
    variant: String,
    batch: usize,
    threads: usize,
    device_memory_mb: Option<u32>,
    /// Where the engine goes.
    engine: PathBuf,
    /// Where what was measured of single layers is kept for other engines.
    timing: PathBuf,
}

/// Why there is no engine.
enum Failure {
    /// It would fail again.
    Lasting(String),
    /// It may be another matter next time.
    Passing(String),
}

/// Which engine is meant.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    /// ONNX Runtime's library, which is to build it, too.
    pub(super) library: &'a Path,
    /// Where the model is, if it is not part of the program.
    pub(super) folder: Option<&'a Path>,
    pub(super) manifest: &'a Manifest,
    pub(super) graphs: &'a [String],
    pub(super) precision: Precision,
    /// The precision of the graph that it is made of.
    pub(super) variant: Precision,
    pub(super) batch: usize,
    pub(super) threads: usize,
}

impl TensorRt {
    /// The folder in which engines are kept: `${XDG_CACHE_HOME:-~/.cache}/saccade/tensorrt`; none where there is no home.
    #[must_use]
    pub fn standard_folder() -> Option<PathBuf> {
        cache_folder().map(|folder| folder.join("tensorrt"))
    }

    /// Has TensorRT build an engine for a graph of one node, and run it. Gives the name of its library, which has its
    /// version. For a process that may crash.
    ///
    /// # Errors
    /// [`Error::Unavailable`] with what is missing, [`Error::Run`].
    #[cfg(feature = "cuda")]
    pub fn try_out(library: &Library) -> Result<String, Error> {
        onnx::try_tensorrt(library)?;
        // The name under which it is opened has the number of its interface only; the file behind that has all of it.
        let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
        let name =
            maps.lines().find_map(|line| line.rsplit('/').next().filter(|name| name.starts_with("libnvinfer.so")));
        Ok(name.unwrap_or("libnvinfer.so").to_owned())
    }

    /// Where measurements of layers are kept.
    pub(super) fn timing(&self) -> PathBuf {
        self.folder.join("timing")
    }

    /// The engine's folder, if it was built.
    pub(super) fn find(&self, wanted: &Wanted<'_>) -> Option<PathBuf> {
        let folder = self.place(wanted);
        is_own(&self.folder).ok()?;
        has_engine(&folder).then_some(folder)
    }

    /// Forgets an engine that is of no use.
    pub(super) fn forget(&self, wanted: &Wanted<'_>) {
        let folder = self.place(wanted);
        if let Err(error) = fs::remove_dir_all(&folder) {
            tracing::debug!(folder = %folder.display(), %error, "an engine cannot be removed");
        }
    }

    /// Builds an engine, and says where it is. It may take minutes.
    ///
    /// # Errors
    /// [`Error::Unavailable`] with what the process that builds it says.
    pub(super) fn build(&self, wanted: &Wanted<'_>, stop: &Stop) -> Result<PathBuf, Error> {
        let unavailable =
            |reason| Error::Unavailable { what: format!("{} in {}", Provider::TensorRt, wanted.precision), reason };
        let folder = self.place(wanted);
        let note = folder.with_extension(FAILED);
        make(&self.folder).and_then(|()| make(&self.timing())).map_err(|error| unavailable(self.cannot(&error)))?;
        self.tidy();
        // It would only fail again, after minutes.
        if let Ok(reason) = fs::read_to_string(&note) {
            return Err(unavailable(format!("{reason}, when that was tried last")));
        }
        self.build_into(&folder, wanted, stop).map(|()| folder).map_err(|failure| match failure {
            Failure::Lasting(reason) => {
                let _ = fs::write(&note, &reason);
                unavailable(reason)
            }
            Failure::Passing(reason) => unavailable(reason),
        })
    }

    fn build_into(&self, folder: &Path, wanted: &Wanted<'_>, stop: &Stop) -> Result<(), Failure> {
        let from_io = |error: io::Error| Failure::Passing(self.cannot(&error));
        let unfinished = tempfile::Builder::new().suffix(UNFINISHED).tempdir_in(&self.folder).map_err(from_io)?;
        let Wanted { library, folder: model, manifest, graphs, precision, variant, batch, threads } = *wanted;
        let job = Job {
            model: model.map(Path::to_owned),
            graphs: graphs.to_vec(),
            precision: precision.name().to_owned(),
            variant: variant.name().to_owned(),
            batch,
            threads,
            device_memory_mb: manifest.run.device_memory_mb,
            engine: unfinished.path().to_owned(),
            timing: self.timing(),
        };
        self.run(&job, library, stop)?;
        if !has_engine(unfinished.path()) {
            return Err(Failure::Lasting("it can do nothing of the graph".to_owned()));
        }
        let _ = fs::remove_file(unfinished.path().join(LOG));
        match fs::rename(unfinished.path(), folder) {
            // Somebody else has built it in the meantime.
            Err(_) if has_engine(folder) => Ok(()),
            renamed => renamed.map_err(from_io),
        }
    }

    fn run(&self, job: &Job, library: &Path, stop: &Stop) -> Result<(), Failure> {
        let not_started =
            |error: io::Error| Failure::Passing(format!("the process that builds it does not start: {error}"));
        let (program, arguments) =
            self.command.split_first().ok_or_else(|| not_started(io::ErrorKind::NotFound.into()))?;
        let log = job.engine.join(LOG);
        let words = fs::File::create(&log).map_err(not_started)?;
        let mut command = Command::new(program);
        // What is fp32 stays so: without this, NVIDIA's libraries multiply with ten bits of mantissa instead of 23.
        command.args(arguments).env("NVIDIA_TF32_OVERRIDE", "0").env("ORT_DYLIB_PATH", library);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(words);
        let deadline = clock::now() + LIMIT;
        let mut child = command.spawn().map_err(not_started)?;
        if let Some(mut input) = child.stdin.take() {
            // Shorter than what a pipe holds. Whoever reads nothing ends with an error.
            let _ = serde_json::to_vec(job).map_err(io::Error::from).and_then(|text| input.write_all(&text));
        }
        let end = child::wait(child, deadline, stop);
        if end.is_success() {
            return Ok(());
        }
        let reason = match last_line(&log) {
            Some(line) => format!("{}: {line}", end.describe("builds it")),
            None => end.describe("builds it"),
        };
        Err(if end == End::Stopped { Failure::Passing(reason) } else { Failure::Lasting(reason) })
    }

    fn cannot(&self, error: &io::Error) -> String {
        format!("{}: {error}", self.folder.display())
    }

    /// A name that tells apart whatever makes engines different.
    fn place(&self, wanted: &Wanted<'_>) -> PathBuf {
        let Wanted { manifest, graphs, precision, variant, batch, .. } = wanted;
        let graph = (graphs, variant.name(), batch, manifest.input.size);
        let all = (FORMAT, &self.name, graph, precision.name(), manifest.run.device_memory_mb);
        let digest = Sha256::digest(serde_json::to_vec(&all).unwrap_or_default());
        let digest: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        self.folder.join(digest)
    }

    /// Removes what is too much, the oldest first, and what a process that ended early left.
    fn tidy(&self) {
        let Ok(entries) = fs::read_dir(&self.folder) else { return };
        let mut built: Vec<(SystemTime, PathBuf)> = Vec::new();
        for path in entries.flatten().map(|entry| entry.path()).filter(|path| *path != self.timing()) {
            let Ok(time) = fs::metadata(&path).and_then(|data| data.modified()) else { continue };
            let is_older = |limit: Duration| time.elapsed().is_ok_and(|age| age > limit);
            if path.extension().is_some_and(|extension| extension == FAILED) {
                if is_older(FAILURE) {
                    let _ = fs::remove_file(&path);
                }
            } else if path.to_string_lossy().ends_with(UNFINISHED) {
                if is_older(2 * LIMIT) {
                    let _ = fs::remove_dir_all(&path);
                }
            } else {
                built.push((time, path));
            }
        }
        built.sort();
        for (_, path) in &built[..built.len().saturating_sub(KEPT)] {
            let _ = fs::remove_dir_all(path);
        }
    }
}

impl Job {
    /// Builds the engine; for the process that is there for this alone.
    ///
    /// # Errors
    /// Those of reading the model, [`Error::Checksum`] if it is not the same any more, [`Error::Unavailable`],
    /// [`Error::Run`].
    pub fn build(&self) -> Result<(), Error> {
        let library = Library::load()?;
        let spec = match &self.model {
            Some(folder) => ModelSpec::open(folder)?,
            None => ModelSpec::embedded()?,
        };
        let (manifest, graphs) = (&spec.manifest, spec.read()?);
        if graphs.sha256 != self.graphs {
            let (expected, actual) = (self.graphs.join(", "), graphs.sha256.join(", "));
            return Err(Error::Checksum { file: manifest.file.path.clone(), expected, actual });
        }
        let precision = Precision::named(&self.precision).unwrap_or(Precision::Fp32);
        let variant = Precision::named(&self.variant).unwrap_or(Precision::Fp32);
        let bytes = graphs.of(variant);
        let graph = Graph::read(&library, manifest, &manifest.file.path, bytes, variant)?;
        let settings = Settings {
            provider: Provider::TensorRt,
            precision,
            threads: self.threads,
            batch: self.batch,
            device_memory_mb: self.device_memory_mb,
            kept: Some(Kept { engine: &self.engine, timing: &self.timing }),
        };
        let decoder = Decoder::bind(manifest, graph.outputs(manifest))?;
        if graph.half_tensor(&decoder).is_some() {
            // Run with tensors on the GPU only. Its sizes are known.
            let built = onnx::commit(&library, &graph, bytes, settings, None);
            let unavailable = |error: ort::Error| Error::Unavailable {
                what: format!("{} in {precision}", Provider::TensorRt),
                reason: error.to_string(),
            };
            return built.map(drop).map_err(unavailable);
        }
        let mut backend = OnnxBackend::open(&library, manifest, &graph, &decoder, bytes, settings)?;
        // Where a graph leaves sizes open without naming them, they are known when it is run.
        backend.run(&mut |_| Ok(()))
    }
}

/// A folder that only this user can use: what is in an engine is run.
fn make(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    is_own(folder)
}

fn is_own(folder: &Path) -> io::Result<()> {
    let data = fs::symlink_metadata(folder)?;
    let own = data.is_dir() && data.uid() == rustix::process::geteuid().as_raw() && data.mode() & 0o022 == 0;
    own.then_some(()).ok_or_else(|| io::Error::other("others can write to it, so that it is not used"))
}

fn has_engine(folder: &Path) -> bool {
    let named = |entry: fs::DirEntry| entry.path().extension().is_some_and(|extension| extension == "engine");
    fs::read_dir(folder).is_ok_and(|entries| entries.flatten().any(named))
}

/// The last line of a file that has anything on it.
fn last_line(path: &Path) -> Option<String> {
    let bytes = fs::read(path).ok()?;
    let end = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(WORDS)..]).into_owned();
    end.lines().map(str::trim).rfind(|line| !line.is_empty()).map(str::to_owned)
}

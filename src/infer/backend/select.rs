use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

#[cfg(feature = "cuda")]
use super::InPlace;
use super::buckets::Grown;
use super::onnx::{Kept, OnnxBackend, Settings};
use super::tensorrt::{TensorRt, Wanted};
use super::{Bucket, CpuFeatures, Graph, Library};
use crate::calibration::{Disturbance, Origin, Watch};
use crate::child::Stop;
use crate::infer::decoder::Decoder;
use crate::infer::engine::Cuda;
use crate::infer::error::Error;
use crate::infer::found::Found;
use crate::infer::manifest::{Accuracy, BackendChoice, FileRef, MAX_ACCURACY_LOSS, Manifest, Precision};
use crate::infer::repository::{Graphs, ModelSpec};
use crate::infer::runner::Runner;

/// Timed runs of each candidate in a comparison of two, after the warm-up.
const TIMED_RUNS: u32 = 5;
/// A candidate has to beat the ones before it by this share to be taken: the simpler comes first.
const WORTHWHILE: f64 = 0.95;

/// What computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    /// ONNX Runtime's own CPU provider.
    Cpu,
    /// OpenVINO on the CPU.
    OpenVino,
    /// ONNX Runtime's CUDA provider, on an NVIDIA GPU.
    Cuda,
    /// TensorRT on an NVIDIA GPU, with engines that are built for it.
    TensorRt,
    /// Other servers.
    Remote,
}

impl Provider {
    /// Whether it computes on a device of its own, not on the processors that everything else needs, too.
    #[must_use]
    pub const fn is_device(self) -> bool {
        matches!(self, Self::Cuda | Self::TensorRt)
    }

    /// Whether it takes minutes to make a graph ready.
    const fn is_slow_to_open(self) -> bool {
        matches!(self, Self::TensorRt)
    }

    /// Name in the API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::OpenVino => "openvino",
            Self::Cuda => "cuda",
            Self::TensorRt => "tensorrt",
            Self::Remote => "kserve",
        }
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How a model is run here, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// What computes.
    pub provider: Provider,
    /// In which precision: never [`Precision::Auto`].
    pub precision: Precision,
    /// Shortest time for one picture, preprocessing to detections, when it was measured.
    pub measured: Duration,
    /// Batch sizes that it is run in, ascending from 1, and the shortest time of a run when they were measured.
    pub buckets: Vec<(usize, Duration)>,
    /// Instances, each with its own thread and memory.
    pub instances: u32,
    /// Whether it finds pictures on a device.
    pub in_place: bool,
    /// Where the times are from.
    pub origin: Origin,
    /// How busy others kept the machine in the meantime.
    pub disturbance: Disturbance,
    /// What else was considered, with its time or with the reason against it.
    pub others: Vec<String>,
}

/// What the operator lets a model have.
#[derive(Debug, Clone, Copy)]
pub(in crate::infer) struct Request {
    pub(in crate::infer) precision: Precision,
    pub(in crate::infer) backend: BackendChoice,
}

/// Opens instances of one model, all in the way that was selected first.
pub(in crate::infer) struct Opener {
    library: Library,
    pub(super) manifest: Arc<Manifest>,
    graphs: Graphs,
    graph: Graph,
    int8: Option<Graph>,
    fp16: Option<Graph>,
    decoder: Decoder,
    threads: usize,
    pub(super) cuda: Result<Cuda, String>,
    /// Where the model is, if it is not part of the program.
    folder: Option<PathBuf>,
}

/// What is allowed here.
struct Means<'a> {
    accuracy: &'a Accuracy,
    has_int8: bool,
    /// A graph in half precision that ONNX Runtime's CUDA provider can run; an error says why there is none.
    fp16: Result<(), String>,
    cpu: CpuFeatures,
    openvino: Result<(), Error>,
    cuda: Result<(), &'a str>,
    tensorrt: Result<(), &'a str>,
}

/// What came out of a comparison.
struct Fastest {
    runner: Runner,
    candidate: Candidate,
    /// For one picture.
    time: Duration,
    /// Candidates that do not work.
    failed: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) provider: Provider,
    pub(super) precision: Precision,
}

impl Opener {
    /// Checks the graphs against the manifest. `cuda` is the GPU that may be used, or why there is none.
    ///
    /// # Errors
    /// [`Error::Unfit`], [`Error::UnreadableModel`], [`Error::WrongInput`], [`Error::WrongOutput`].
    pub(in crate::infer) fn new(
        library: Library,
        spec: &ModelSpec,
        manifest: Arc<Manifest>,
        graphs: Graphs,
        threads: usize,
        cuda: Result<Cuda, String>,
    ) -> Result<Self, Error> {
        graphs.inspect(&manifest)?;
        let folder = spec.folder().map(Path::to_owned);
        let read = |file: &FileRef, bytes: &Bytes, precision| {
            let graph = Graph::read(&library, &manifest, &file.path, bytes, precision)?;
            let decoder = Decoder::bind(&manifest, graph.outputs(&manifest))?;
            Ok::<_, Error>((graph, decoder))
        };
        let variant = |file: &Option<FileRef>, bytes: &Option<Bytes>, precision| {
            let read = file.as_ref().zip(bytes.as_ref()).map(|(file, bytes)| read(file, bytes, precision));
            read.transpose().map(|read| read.map(|(graph, _)| graph))
        };
        let (graph, decoder) = read(&manifest.file, &graphs.fp32, Precision::Fp32)?;
        let int8 = variant(&manifest.int8, &graphs.int8, Precision::Int8)?;
        // Processors have no use for it.
        let fp16 = match cuda {
            Ok(_) => variant(&manifest.fp16, &graphs.fp16, Precision::Fp16)?,
            Err(_) => None,
        };
        let cuda = cuda.map(|cuda| cuda.for_a_model());
        Ok(Self { library, manifest, graphs, graph, int8, fp16, decoder, threads, cuda, folder })
    }

    /// The bytes of the model's own file.
    pub(in crate::infer) fn file(&self) -> Bytes {
        self.graphs.fp32.clone()
    }

    /// Tries what the request and the manifest allow, keeps the fastest, and measures it in batches. The selection's
    /// instances are left at 1. The flag says whether all was measured that was to be. With `build`, what takes minutes to
    /// make ready is made ready, until that is stopped; otherwise it is left out where it is not ready.
    ///
    /// # Errors
    /// The first candidate's error if none works; [`Error::Unavailable`] if nothing is allowed.
    pub(in crate::infer) fn select(
        &self,
        request: Request,
        build: Option<&Stop>,
    ) -> Result<(Runner, Selection, bool), Error> {
        let watch = Watch::start();
        let (mut candidates, mut others) = self.candidates(request);
        if build.is_none() {
            candidates.retain(|candidate| !candidate.provider.is_slow_to_open() || self.is_kept(*candidate));
            if candidates.is_empty() {
                // Until what was asked for is ready.
                candidates.push(Candidate { provider: Provider::Cuda, precision: Precision::Fp32 });
            }
        }
        let fastest = self.fastest(None, &candidates, build, &mut others)?;
        Ok(self.measured(fastest, build, others, watch))
    }

    /// Whether there is something that takes minutes to make ready.
    pub(in crate::infer) fn can_improve(&self, request: Request) -> bool {
        self.candidates(request).0.iter().any(|candidate| candidate.provider.is_slow_to_open())
    }

    /// Makes ready what takes minutes, and compares it with the way in which the model is run in the meantime. Without a
    /// runner, it stays with that. The flag says whether all was tried that was to be.
    ///
    /// # Errors
    /// As [`Self::select`]; also where there is no room to compare.
    pub(in crate::infer) fn improve(
        &self,
        request: Request,
        current: &Selection,
        stop: &Stop,
    ) -> Result<(Option<Runner>, Selection, bool), Error> {
        let watch = Watch::start();
        let (mut candidates, mut others) = self.candidates(request);
        let stays = Candidate { provider: current.provider, precision: current.precision };
        let may_stay = candidates.contains(&stays);
        candidates.retain(|candidate| candidate.provider.is_slow_to_open() && *candidate != stays);
        let champion = if may_stay {
            let (mut runner, _) = self.warmed_up(stays, Some(stop))?;
            // As it is run.
            runner.settle()?;
            let time = runner.warm_up(self.manifest.warmup)?;
            Some(Fastest { runner, candidate: stays, time, failed: 0 })
        } else {
            None
        };
        let fastest = self.fastest(champion, &candidates, Some(stop), &mut others)?;
        let all_worked = fastest.failed == 0;
        if fastest.candidate == stays {
            let others = [current.others.clone(), others].concat();
            return Ok((None, Selection { others, ..current.clone() }, all_worked));
        }
        let (runner, selection, complete) = self.measured(fastest, Some(stop), others, watch);
        Ok((Some(runner), selection, complete && all_worked))
    }

    /// The fastest of these, and what is to be said of the others.
    fn fastest(
        &self,
        champion: Option<Fastest>,
        candidates: &[Candidate],
        build: Option<&Stop>,
        others: &mut Vec<String>,
    ) -> Result<Fastest, Error> {
        let mut best = champion;
        let (mut failure, mut failed) = (None, 0);
        for candidate in candidates {
            let (mut runner, warm) = match self.warmed_up(*candidate, build) {
                Ok(ready) => ready,
                Err(error) => {
                    others.push(error.to_string());
                    failure.get_or_insert(error);
                    failed += 1;
                    continue;
                }
            };
            let Some(Fastest { runner: champion, time, .. }) = &mut best else {
                best = Some(Fastest { runner, candidate: *candidate, time: warm, failed: 0 });
                continue;
            };
            // In turn, so that whatever else the machine does in the meantime slows both.
            let mut measured = warm;
            let mut compare = || {
                for _ in 0..TIMED_RUNS {
                    *time = champion.warm_up(1)?.min(*time);
                    measured = runner.warm_up(1)?.min(measured);
                }
                Ok::<_, Error>(())
            };
            if let Err(error) = compare() {
                others.push(error.to_string());
                failed += 1;
                continue;
            }
            let (slower, time) = if measured < time.mul_f64(WORTHWHILE) {
                let faster = Fastest { runner, candidate: *candidate, time: measured, failed: 0 };
                let Some(Fastest { candidate, time, .. }) = best.replace(faster) else { continue };
                (candidate, time)
            } else {
                (*candidate, measured)
            };
            others.push(format!("{} in {}: {time:.1?}", slower.provider, slower.precision));
        }
        let nothing = || Error::Unavailable { what: "the model".to_owned(), reason: others.join("; ") };
        best.map(|best| Fastest { failed, ..best }).ok_or_else(|| failure.unwrap_or_else(nothing))
    }

    /// What is to be known of a way to run the model, and the runner with the batch sizes that pay.
    fn measured(
        &self,
        Fastest { mut runner, candidate, time: measured, .. }: Fastest,
        build: Option<&Stop>,
        mut others: Vec<String>,
        watch: Watch,
    ) -> (Runner, Selection, bool) {
        let Candidate { provider, precision } = candidate;
        let Grown { buckets, reasons, complete } = self.grow(&mut runner, candidate, measured, build);
        others.extend(reasons);
        let measured = buckets.first().map_or(measured, |(_, time)| *time);
        let (origin, disturbance, in_place) = (Origin::Measured, watch.stop(), self.is_in_place(provider));
        let selection =
            Selection { provider, precision, measured, buckets, instances: 1, in_place, origin, disturbance, others };
        (runner, selection, complete)
    }

    /// Runs one empty picture in the first way that is allowed, and says how long the shortest of a few runs took.
    ///
    /// # Errors
    /// Those of opening and running it.
    pub(in crate::infer) fn try_first(&self, request: Request) -> Result<Duration, Error> {
        let (candidates, reasons) = self.candidates(request);
        let Some(candidate) = candidates.first() else {
            return Err(Error::Unavailable { what: request.precision.to_string(), reason: reasons.join("; ") });
        };
        self.warmed_up(*candidate, None).map(|(_, time)| time)
    }

    /// Opens all that may be selected here without a GPU, and runs each on an empty picture. What only some ways cannot do is
    /// no mistake: it is not selected then.
    ///
    /// # Errors
    /// The first error if nothing works.
    pub(in crate::infer) fn try_all(&self, request: Request) -> Result<(), Error> {
        let (candidates, reasons) = self.candidates(request);
        let mut tried: Vec<_> = candidates.iter().map(|candidate| self.warmed_up(*candidate, None).map(drop)).collect();
        if tried.iter().any(Result::is_ok) {
            return Ok(());
        }
        let nothing = || Error::Unavailable { what: request.precision.to_string(), reason: reasons.join("; ") };
        if tried.is_empty() { Err(nothing()) } else { tried.swap_remove(0) }
    }

    /// Opens what was selected at an earlier start, without measuring.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the request, the manifest or this machine allow something else by now; those of opening
    /// and running it.
    pub(in crate::infer) fn resume(&self, request: Request, found: &Found) -> Result<(Runner, Selection), Error> {
        let (candidates, _) = self.candidates(request);
        let same = |candidate: &&Candidate| {
            candidate.provider.name() == found.provider && Some(candidate.precision) == found.precision()
        };
        let allowed = self.manifest.batching.buckets();
        let buckets = found.buckets();
        let known = buckets.iter().all(|(size, _)| u32::try_from(*size).is_ok_and(|size| allowed.contains(&size)));
        let candidate = candidates.iter().find(same).filter(|_| known);
        let Some(Candidate { provider, precision }) = candidate.copied() else {
            let what = format!("{} in {}", found.provider, found.precision);
            return Err(Error::Unavailable { what, reason: "it was measured under other conditions".to_owned() });
        };
        let measured = buckets.first().map_or(Duration::ZERO, |(_, time)| *time);
        let (others, origin, disturbance) = (found.others.clone(), Origin::Kept, found.disturbance);
        let in_place = self.is_in_place(provider);
        let selection =
            Selection { provider, precision, measured, buckets, instances: 1, in_place, origin, disturbance, others };
        Ok((self.open(&selection)?, selection))
    }

    pub(super) fn candidates(&self, request: Request) -> (Vec<Candidate>, Vec<String>) {
        let cuda = self.cuda.as_ref().map_err(String::as_str);
        candidates(
            request,
            &Means {
                accuracy: &self.manifest.accuracy,
                has_int8: self.graphs.int8.is_some(),
                fp16: self.half(),
                cpu: CpuFeatures::detect(),
                openvino: self.library.openvino(),
                cuda: cuda.map(drop),
                tensorrt: self.tensorrt().map(drop),
            },
        )
    }

    /// Whether ONNX Runtime's CUDA provider can compute in half precision, which it does where the graph says so.
    fn half(&self) -> Result<(), String> {
        let Some(graph) = &self.fp16 else { return Err("the model has no fp16 variant".to_owned()) };
        match graph.half_tensor(&self.decoder) {
            Some(tensor) if !self.is_in_place(Provider::Cuda) => Err(format!(
                "`{tensor}` of the fp16 variant is of 16-bit floats, which take a GPU that the model finds pictures on; \
                 32-bit ones do without"
            )),
            _ => Ok(()),
        }
    }

    fn is_in_place(&self, provider: Provider) -> bool {
        provider.is_device() && self.cuda.as_ref().is_ok_and(Cuda::is_in_place)
    }

    pub(super) fn warmed_up(&self, candidate: Candidate, build: Option<&Stop>) -> Result<(Runner, Duration), Error> {
        let mut runner = self.open_candidate(candidate, build)?;
        let warm = runner.warm_up(self.manifest.warmup)?;
        Ok((runner, warm))
    }

    /// Another instance, warmed up.
    pub(in crate::infer) fn open(&self, selection: &Selection) -> Result<Runner, Error> {
        let Selection { provider, precision, .. } = *selection;
        let candidate = Candidate { provider, precision };
        let (mut runner, _) = self.warmed_up(candidate, None)?;
        for (size, _) in selection.buckets.iter().skip(1) {
            runner.add_bucket(*size, self.open_bucket(candidate, *size, None)?);
            runner.time(*size, 1)?;
        }
        Ok(runner)
    }

    fn open_candidate(&self, candidate: Candidate, build: Option<&Stop>) -> Result<Runner, Error> {
        let backend = self.open_bucket(candidate, 1, build)?;
        Ok(Runner::new(Arc::clone(&self.manifest), backend, self.decoder.clone()))
    }

    /// What is not ready and takes minutes for that is made ready with `build` alone, until that is stopped.
    pub(super) fn open_bucket(
        &self,
        candidate: Candidate,
        batch: usize,
        build: Option<&Stop>,
    ) -> Result<Bucket, Error> {
        if !candidate.provider.is_slow_to_open() {
            return self.open_ready(candidate, batch, None);
        }
        let what = || format!("{} in {}", candidate.provider, candidate.precision);
        let tensorrt =
            self.tensorrt().map_err(|reason| Error::Unavailable { what: what(), reason: reason.to_owned() })?;
        let wanted = self.wanted(candidate, batch);
        let open = |engine: PathBuf| self.open_ready(candidate, batch, Some((tensorrt, &engine)));
        match (tensorrt.find(&wanted).map(open), build) {
            (Some(Ok(bucket)), _) => Ok(bucket),
            (Some(Err(error)), Some(stop)) => {
                // Another version of something made it, or it is damaged.
                tracing::warn!(model = self.manifest.id(), batch, %error, "an engine that was kept is of no use");
                tensorrt.forget(&wanted);
                open(tensorrt.build(&wanted, stop)?)
            }
            (Some(Err(error)), None) => Err(error),
            (None, Some(stop)) => open(tensorrt.build(&wanted, stop)?),
            (None, None) => Err(Error::Unavailable { what: what(), reason: "its engine is not built yet".to_owned() }),
        }
    }

    /// Whether nothing that takes minutes is needed to run single pictures.
    fn is_kept(&self, candidate: Candidate) -> bool {
        self.tensorrt().is_ok_and(|tensorrt| tensorrt.find(&self.wanted(candidate, 1)).is_some())
    }

    fn tensorrt(&self) -> Result<&TensorRt, &str> {
        self.cuda.as_ref().map_err(String::as_str)?.tensorrt.as_ref().map_err(String::as_str)
    }

    fn wanted(&self, candidate: Candidate, batch: usize) -> Wanted<'_> {
        Wanted {
            library: self.library.path(),
            folder: self.folder.as_deref(),
            manifest: &self.manifest,
            graphs: &self.graphs.sha256,
            precision: candidate.precision,
            variant: self.variant(candidate),
            batch,
            threads: self.threads,
        }
    }

    /// The precision of the graph that is run: TensorRT makes half precision of one of fp32 by itself, where there is none
    /// that says what is to be so.
    fn variant(&self, Candidate { provider, precision }: Candidate) -> Precision {
        match (provider, precision) {
            (Provider::TensorRt, Precision::Fp16) if self.half().is_err() => Precision::Fp32,
            _ => precision,
        }
    }

    fn open_ready(
        &self,
        candidate: Candidate,
        batch: usize,
        engine: Option<(&TensorRt, &Path)>,
    ) -> Result<Bucket, Error> {
        let Candidate { provider, precision } = candidate;
        let bytes = self.graphs.of(self.variant(candidate));
        let device_memory_mb = self.manifest.run.device_memory_mb;
        let timing = engine.map(|(tensorrt, _)| tensorrt.timing());
        let kept = engine.zip(timing.as_ref()).map(|((_, engine), timing)| Kept { engine, timing });
        let settings = Settings { provider, precision, threads: self.threads, batch, device_memory_mb, kept };
        let graph = self.graph(candidate);
        #[cfg(feature = "cuda")]
        if provider.is_device()
            && let Ok(Cuda { gpu: Some(gpu), .. }) = &self.cuda
        {
            let opened = InPlace::open(&self.library, &self.manifest, graph, &self.decoder, bytes, settings, gpu)?;
            return Ok(Bucket::InPlace(Box::new(opened)));
        }
        let backend = OnnxBackend::open(&self.library, &self.manifest, graph, &self.decoder, bytes, settings)?;
        Ok(Bucket::Host(Box::new(backend)))
    }

    pub(super) fn graph(&self, candidate: Candidate) -> &Graph {
        let variant = match self.variant(candidate) {
            Precision::Int8 => self.int8.as_ref(),
            Precision::Fp16 => self.fp16.as_ref(),
            _ => None,
        };
        variant.unwrap_or(&self.graph)
    }
}

/// The ways to run that are allowed here, the simplest first, and the reasons against the rest.
fn candidates(request: Request, means: &Means<'_>) -> (Vec<Candidate>, Vec<String>) {
    let Means { openvino, cuda, tensorrt, .. } = means;
    let mut notes = Vec::new();
    let mut providers = Vec::new();
    let wants = |backend| match request.backend {
        BackendChoice::Auto => true,
        BackendChoice::Gpu => matches!(backend, BackendChoice::Cuda | BackendChoice::TensorRt),
        pinned => pinned == backend,
    };
    if wants(BackendChoice::Cpu) {
        providers.push(Provider::Cpu);
    }
    if wants(BackendChoice::OpenVino) {
        match openvino {
            Ok(()) => providers.push(Provider::OpenVino),
            Err(reason) => notes.push(reason.to_string()),
        }
    }
    if wants(BackendChoice::Cuda) {
        match cuda {
            Ok(()) => providers.push(Provider::Cuda),
            Err(reason) => notes.push(format!("cuda: {reason}")),
        }
    }
    if wants(BackendChoice::TensorRt) {
        match tensorrt {
            Ok(()) => providers.push(Provider::TensorRt),
            Err(reason) => {
                notes.push(format!("tensorrt: {reason}"));
                if request.backend == BackendChoice::TensorRt && cuda.is_ok() {
                    providers.push(Provider::Cuda);
                }
            }
        }
    }
    if providers.is_empty() {
        providers.push(Provider::Cpu);
    }
    let mut allow = |precision: Precision| match allowed(precision, request.precision, means, &providers) {
        Ok(allowed) => allowed,
        Err(reason) => {
            notes.push(format!("{precision}: {reason}"));
            false
        }
    };
    let (bf16, int8, fp16) = (allow(Precision::Bf16), allow(Precision::Int8), allow(Precision::Fp16));
    let wants_fp32 = matches!(request.precision, Precision::Fp32 | Precision::Auto);
    let mut candidates = Vec::new();
    for provider in &providers {
        let runs = |precision| match precision {
            Precision::Fp32 => wants_fp32,
            Precision::Bf16 => bf16 && *provider == Provider::OpenVino,
            // CUDA's provider computes in fp32 between conversions, and in fp16 what is so in the graph.
            Precision::Int8 => int8 && *provider != Provider::Cuda,
            Precision::Fp16 => fp16 && has_half(*provider, means, request.precision),
            Precision::Auto => false,
        };
        let precisions = [Precision::Fp32, Precision::Int8, Precision::Bf16, Precision::Fp16];
        let precisions = precisions.into_iter().filter(|precision| runs(*precision));
        candidates.extend(precisions.map(|precision| Candidate { provider: *provider, precision }));
    }
    if candidates.is_empty() {
        // What was asked for is not to be had here: fp32 is what every model and provider can do.
        notes.push(format!("{} is not to be had here: fp32 instead", request.precision));
        let fp32 = |provider: &Provider| Candidate { provider: *provider, precision: Precision::Fp32 };
        candidates.extend(providers.iter().map(fp32));
    }
    (candidates, notes)
}

/// Whether a provider computes in half precision. TensorRT also makes that of a graph of fp32, but then nobody knows what
/// that loses, so that it has to be asked for.
fn has_half(provider: Provider, means: &Means<'_>, wanted: Precision) -> bool {
    match provider {
        Provider::Cpu | Provider::OpenVino | Provider::Remote => false,
        Provider::Cuda => means.fp16.is_ok(),
        Provider::TensorRt => means.fp16.is_ok() || wanted == Precision::Fp16,
    }
}

/// Whether a precision below fp32 may be used; an error says why one that was wanted may not.
fn allowed(precision: Precision, wanted: Precision, means: &Means<'_>, providers: &[Provider]) -> Result<bool, String> {
    let Means { accuracy, has_int8, fp16, cpu, .. } = means;
    if wanted != precision && wanted != Precision::Auto {
        return Ok(false);
    }
    let loss = match precision {
        Precision::Bf16 => accuracy.bf16,
        Precision::Int8 => accuracy.int8,
        Precision::Fp16 => accuracy.fp16,
        Precision::Fp32 | Precision::Auto => return Ok(true),
    };
    if precision == Precision::Bf16 && !cpu.bf16 {
        return Err("this CPU does not multiply bfloat16".to_owned());
    }
    let has_half = providers.iter().any(|provider| has_half(*provider, means, wanted));
    let has_gpu = providers.iter().any(|provider| provider.is_device());
    let missing = match precision {
        Precision::Int8 if !has_int8 => Some("the model has no int8 variant"),
        Precision::Fp16 if !has_gpu => Some("processors do not compute in it"),
        Precision::Fp16 if !has_half => fp16.as_ref().err().map(String::as_str),
        _ => None,
    };
    if let Some(missing) = missing {
        return if wanted == precision { Err(missing.to_owned()) } else { Ok(false) };
    }
    match loss {
        _ if wanted == precision => Ok(true),
        None => Err("its loss is not measured".to_owned()),
        Some(loss) if loss > MAX_ACCURACY_LOSS => Err(format!("it loses {loss} AP, more than {MAX_ACCURACY_LOSS}")),
        Some(_) => Ok(true),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    const BF16: CpuFeatures = CpuFeatures { avx2: true, avx512: true, vnni: true, bf16: true };

    fn names(
        precision: Precision,
        backend: BackendChoice,
        accuracy: Accuracy,
        has_int8: bool,
        cpu: CpuFeatures,
        openvino: bool,
    ) -> Vec<String> {
        with_cuda(precision, backend, accuracy, has_int8, cpu, openvino, Err("no GPU"))
    }

    fn with_cuda(
        precision: Precision,
        backend: BackendChoice,
        accuracy: Accuracy,
        has_int8: bool,
        cpu: CpuFeatures,
        openvino: bool,
        cuda: Result<(), &str>,
    ) -> Vec<String> {
        let missing = Error::Unavailable { what: "OpenVINO".to_owned(), reason: "not there".to_owned() };
        let openvino = if openvino { Ok(()) } else { Err(missing) };
        let (accuracy, tensorrt) = (&accuracy, Err("not there"));
        let means = Means { accuracy, has_int8, fp16: Ok(()), cpu, openvino, cuda, tensorrt };
        named(&candidates(Request { precision, backend }, &means).0)
    }

    fn named(candidates: &[Candidate]) -> Vec<String> {
        candidates.iter().map(|c| format!("{} {}", c.provider, c.precision)).collect()
    }

    #[test]
    fn auto_takes_only_what_was_measured_to_lose_little() {
        let good = Accuracy { bf16: Some(0.002), fp16: None, int8: Some(0.008) };
        let all = names(Precision::Auto, BackendChoice::Auto, good, true, BF16, true);
        assert_eq!(all, ["cpu fp32", "cpu int8", "openvino fp32", "openvino int8", "openvino bf16"]);
        let bad = Accuracy { bf16: Some(0.2), int8: Some(0.011), fp16: None };
        let fp32 = ["cpu fp32", "openvino fp32"];
        assert_eq!(names(Precision::Auto, BackendChoice::Auto, bad, true, BF16, true), fp32);
        assert_eq!(names(Precision::Auto, BackendChoice::Auto, Accuracy::default(), true, BF16, true), fp32);
        assert_eq!(names(Precision::Auto, BackendChoice::Auto, good, false, CpuFeatures::default(), true), fp32);
        assert_eq!(names(Precision::Auto, BackendChoice::Auto, good, true, BF16, false), ["cpu fp32", "cpu int8"]);
    }

    #[test]
    fn a_gpu_is_one_more_way_and_the_only_one_where_it_is_pinned() {
        let good = Accuracy { bf16: None, fp16: None, int8: Some(0.001) };
        let ways = |backend, cuda| with_cuda(Precision::Auto, backend, good, true, BF16, false, cuda);
        assert_eq!(ways(BackendChoice::Auto, Ok(())), ["cpu fp32", "cpu int8", "cuda fp32"]);
        assert_eq!(ways(BackendChoice::Cuda, Ok(())), ["cuda fp32"]);
        assert_eq!(ways(BackendChoice::Cpu, Ok(())), ["cpu fp32", "cpu int8"]);
        assert_eq!(ways(BackendChoice::Cuda, Err("no GPU")), ["cpu fp32", "cpu int8"]);
    }

    #[test]
    fn tensorrt_is_one_more_way_with_precisions_of_its_own() {
        let with = |precision, backend, accuracy: Accuracy, fp16: Result<(), &str>, tensorrt| {
            let means = Means {
                accuracy: &accuracy,
                has_int8: true,
                fp16: fp16.map_err(str::to_owned),
                cpu: CpuFeatures::default(),
                openvino: Err(Error::Closed),
                cuda: Ok(()),
                tensorrt,
            };
            named(&candidates(Request { precision, backend }, &means).0)
        };
        let ways = |precision, backend, accuracy| with(precision, backend, accuracy, Err("no graph"), Ok(()));
        let good = Accuracy { bf16: None, fp16: Some(0.001), int8: Some(0.001) };
        let all = ["tensorrt fp32", "tensorrt int8", "tensorrt fp16"];
        assert_eq!(with(Precision::Auto, BackendChoice::TensorRt, good, Ok(()), Ok(())), all);
        assert_eq!(ways(Precision::Auto, BackendChoice::TensorRt, good), all[..2], "what it loses is of another graph");
        let gpu = ["cuda fp32", "tensorrt fp32", "tensorrt int8"];
        assert_eq!(ways(Precision::Auto, BackendChoice::Gpu, good), gpu);
        let none = Err("not there");
        assert_eq!(with(Precision::Auto, BackendChoice::TensorRt, good, Err("no graph"), none), ["cuda fp32"]);
        assert_eq!(ways(Precision::Auto, BackendChoice::TensorRt, Accuracy::default()), ["tensorrt fp32"]);
        assert_eq!(ways(Precision::Fp16, BackendChoice::Gpu, Accuracy::default()), ["tensorrt fp16"]);
        assert_eq!(ways(Precision::Fp32, BackendChoice::Auto, good), ["cpu fp32", "cuda fp32", "tensorrt fp32"]);
        assert_eq!(ways(Precision::Auto, BackendChoice::Cuda, good), ["cuda fp32"]);
    }

    #[test]
    fn a_gpu_computes_in_half_precision_where_a_graph_of_it_loses_little() {
        let ways = |precision, backend, loss, fp16: Result<(), &str>, cuda| {
            let means = Means {
                accuracy: &Accuracy { fp16: loss, ..Accuracy::default() },
                has_int8: true,
                fp16: fp16.map_err(str::to_owned),
                cpu: BF16,
                openvino: Err(Error::NotReady),
                cuda,
                tensorrt: Err("not there"),
            };
            let (candidates, notes) = candidates(Request { precision, backend }, &means);
            (named(&candidates).join(", "), notes.join("; "))
        };
        let (gpu, none) = (Ok(()), Err("no GPU"));
        let auto = |loss, fp16, cuda| ways(Precision::Auto, BackendChoice::Auto, loss, fp16, cuda);
        assert_eq!(auto(Some(0.001), Ok(()), gpu).0, "cpu fp32, cuda fp32, cuda fp16");
        let (ways_without, notes) = auto(None, Ok(()), gpu);
        assert_eq!(ways_without, "cpu fp32, cuda fp32");
        assert!(notes.contains("fp16: its loss is not measured"), "{notes}");
        let (ways_without, notes) = auto(Some(0.02), Ok(()), gpu);
        assert_eq!(ways_without, "cpu fp32, cuda fp32");
        assert!(notes.contains("fp16: it loses 0.02 AP"), "{notes}");
        assert_eq!(auto(Some(0.001), Err("no graph"), gpu).0, "cpu fp32, cuda fp32");
        assert_eq!(auto(Some(0.001), Ok(()), none).0, "cpu fp32");

        let pinned = |backend, fp16, cuda| ways(Precision::Fp16, backend, None, fp16, cuda);
        assert_eq!(pinned(BackendChoice::Auto, Ok(()), gpu).0, "cuda fp16");
        assert_eq!(pinned(BackendChoice::Cuda, Ok(()), gpu).0, "cuda fp16");
        let (instead, notes) = pinned(BackendChoice::Cuda, Err("no graph"), gpu);
        assert_eq!(instead, "cuda fp32");
        assert!(notes.contains("fp16: no graph; fp16 is not to be had here"), "{notes}");
        for (backend, cuda) in [(BackendChoice::Auto, none), (BackendChoice::Cpu, gpu)] {
            let (instead, notes) = pinned(backend, Ok(()), cuda);
            assert_eq!(instead, "cpu fp32");
            assert!(notes.contains("fp16: processors do not compute in it"), "{notes}");
        }
    }

    #[test]
    fn fp32_stays_fp32_whatever_is_faster() {
        let good = Accuracy { bf16: Some(0.0), fp16: Some(0.0), int8: Some(0.0) };
        let fp32 = names(Precision::Fp32, BackendChoice::Auto, good, true, BF16, true);
        assert_eq!(fp32, ["cpu fp32", "openvino fp32"]);
        assert_eq!(names(Precision::Fp32, BackendChoice::Cpu, good, true, BF16, true), ["cpu fp32"]);
        assert_eq!(names(Precision::Fp32, BackendChoice::OpenVino, good, true, BF16, true), ["openvino fp32"]);
    }

    #[test]
    fn a_precision_that_is_not_to_be_had_falls_back_to_fp32() {
        let accuracy = Accuracy::default();
        let cpu = CpuFeatures::default();
        let both = ["cpu fp32", "openvino fp32"];
        assert_eq!(names(Precision::Bf16, BackendChoice::Auto, accuracy, false, cpu, true), both);
        assert_eq!(names(Precision::Fp16, BackendChoice::Auto, accuracy, false, BF16, true), both);
        assert_eq!(names(Precision::Int8, BackendChoice::OpenVino, accuracy, true, cpu, false), ["cpu int8"]);
        assert_eq!(names(Precision::Bf16, BackendChoice::Auto, accuracy, false, BF16, true), ["openvino bf16"]);
    }
}

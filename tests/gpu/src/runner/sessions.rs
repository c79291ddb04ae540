//! Sessions of a server without a network: files in the place of peers, paced as cameras are.
//!
//! A file's access units go as RTP packets into the sessions' own way: reorder buffer, assembly, decoding, mailbox, model,
//! tracker, result on the data channel. What is left out is what lies before and behind: ICE, DTLS, SRTP, sockets, and the
//! HTTP of the offer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use saccade::clock;
use saccade::decode;
use saccade::decode::nvdec;
use saccade::hardware::{Finding, Piece, Stage, Table};
use saccade::infer::manifest::Precision;
use saccade::infer::{Cuda, Engine, Model, ModelSpec};
use saccade::media::Codec;
use saccade::pipeline::{Gpu, Sessions, Settings, Workers};
use saccade::session::machine::Timeouts;
use saccade::session::{Claims, EndReason, OpenRequest, Opener as _, Rate, Registry};
use saccade::telemetry::metrics::Handle as Metrics;
use saccade::tuning::Tuning;
use saccade_signaling::{OptionsPatch, ReturnMode};
use tempfile::TempDir;
use tokio::task::JoinHandle;

use super::clips::Clip;
use super::files::Files as OnDisk;
use super::gpu::Machine;
use super::graphs::Graphs;
use super::peers::Files;
use super::sweep::spec_for;
use super::usage::Watch;
use super::{Report, Stop};

/// How long sessions may take to open, and to end.
const LIMIT: Duration = Duration::from_secs(20);
/// How long after its budget a result is still waited for.
const GRACE: Duration = Duration::from_millis(250);
/// How often the server looks at its load.
const LOOK: Duration = Duration::from_secs(1);

/// What is simulated.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Sessions at a time, one number after the other.
    pub counts: Vec<usize>,
    /// Results that each session has to have had before anything is counted, how long that may take, and how long they
    /// run then.
    pub settled: u64,
    pub settle: Duration,
    pub warm: Duration,
    /// How long it is counted; longer, if it takes that to have so many results of all sessions.
    pub time: Duration,
    pub least: u64,
    pub budget_ms: u32,
    /// Instead of the server's own choice.
    pub codec_threads: Option<usize>,
    /// Give frames up under load, as servers do.
    pub degradation: bool,
    /// After this no further number is begun.
    pub end: Instant,
}

/// The GPU as sessions have it, for all that it decodes and for models; and the codecs that it decodes.
///
/// # Errors
/// [`Stop::Failed`].
pub fn open(machine: &Machine, graphs: &Graphs) -> Result<(Gpu, Vec<Codec>), Stop> {
    let decoders = machine.decoders();
    let decodes = |codec| decoders.as_ref().is_ok_and(|decoders| decoders.capability(codec).is_ok());
    let codecs = [(Codec::H264, nvdec::Codec::H264), (Codec::Vp8, nvdec::Codec::Vp8), (Codec::Vp9, nvdec::Codec::Vp9)];
    let codecs = codecs.into_iter().filter(|(_, codec)| decodes(*codec)).map(|(codec, _)| codec).collect();
    let finding = |piece, works| Finding { piece, works, found: machine.device.name().to_owned() };
    let table = Table::new(vec![
        finding(Piece::Driver, true),
        finding(Piece::Device, true),
        finding(Piece::Kernels, true),
        finding(Piece::DecodeH264, decodes(nvdec::Codec::H264)),
        finding(Piece::DecodeVp8, decodes(nvdec::Codec::Vp8)),
        finding(Piece::DecodeVp9, decodes(nvdec::Codec::Vp9)),
        finding(Piece::Cuda, true),
        finding(Piece::CudaGraphs, graphs.are_on()),
    ]);
    let gpu = Gpu::open(machine.libraries, &table, &[Stage::Decode, Stage::Infer]).map_err(Stop::failed)?;
    Ok((gpu, codecs))
}

/// The same GPU for the models' engine.
pub fn cuda(machine: &Machine, gpu: &Gpu) -> Cuda {
    let tensorrt = Err("not wanted".to_owned());
    Cuda { name: machine.device.name().to_owned(), tensorrt, gpu: gpu.models() }
}

/// A model of the files by its name; the folder that comes with it has to last until it is loaded.
///
/// # Errors
/// [`Stop::Failed`] where there is none; inside, why it can't be used in this precision.
pub fn find(files: &OnDisk, name: &str, precision: Precision) -> Result<Found, Stop> {
    let folder = files.0.join("models").join(name).join("1");
    if folder.is_dir() {
        return Ok(spec_for(&folder, precision));
    }
    let models = files.models()?;
    let found = models.into_iter().find(|spec| spec.manifest.name == name);
    found.map(|spec| Ok((spec, None))).ok_or_else(|| Stop::Failed(format!("there is no model {name}")))
}

type Found = Result<(ModelSpec, Option<TempDir>), String>;

/// What sessions run on.
pub struct Machinery {
    pub engine: Arc<Engine>,
    pub gpu: Option<Arc<Gpu>>,
    /// What the GPU decodes.
    pub decodes: Vec<Codec>,
    /// How the model's runs are handed to the GPU, for people.
    pub runs: String,
    pub tuning: Tuning,
    pub metrics: Metrics,
}

/// Runs sessions on a model of the engine's, one number of them after the other.
///
/// # Errors
/// [`Stop`], where sessions can't have the clip's codec.
pub async fn run(report: &Report, on: &Machinery, model: &Model, clip: &Clip, plan: &Plan) -> Result<(), Stop> {
    let codec = clip.negotiated().ok_or_else(|| Stop::Failed(format!("{}: sessions have no such codec", clip.name)))?;
    let selection = model.selection();
    let in_place = if selection.in_place { ", in place" } else { "" };
    let buckets: Vec<_> = selection.buckets.iter().map(|(size, time)| format!("{size}: {time:.1?}")).collect();
    let how = format!(
        "{} in {}{in_place}, instances {}, runs of {}; CUDA graphs: {}",
        selection.provider,
        selection.precision,
        selection.instances,
        buckets.join(", "),
        on.runs
    );
    report.row(format!("{}, how it runs", model.id()), how);
    let mut elsewhere = Vec::new();
    if on.gpu.is_some() {
        let codecs: Vec<_> = on.decodes.iter().map(|codec| codec.name()).collect();
        let codecs = if codecs.is_empty() { "none".to_owned() } else { codecs.join(", ") };
        report.row("decoded on the GPU", codecs);
        if !on.decodes.contains(&codec) {
            elsewhere.push(format!("no session's {} is decoded on the GPU", codec.name()));
        }
        if !selection.in_place {
            elsewhere.push("the model takes pictures from the host".to_owned());
        }
    }
    for count in &plan.counts {
        let what = format!("{}, {count} sessions of {}", model.id(), clip.name);
        if clock::now() >= plan.end {
            report.unavailable(what, "no time was left");
            continue;
        }
        // One number of them that fails says nothing of others.
        let found = simulate(on, &model.id(), (clip, codec), *count, plan).await;
        report.judge(
            what,
            found
                .and_then(|found| if elsewhere.is_empty() { Ok(found) } else { Err(found) })
                .map_err(|found| elsewhere.iter().map(String::as_str).chain([&*found]).collect::<Vec<_>>().join("; ")),
        );
    }
    Ok(())
}

/// What came of it.
///
/// # Errors
/// What ought to be otherwise, with what came of it as far as anything did.
async fn simulate(
    on: &Machinery,
    model: &str,
    clip: (&Clip, Codec),
    count: usize,
    plan: &Plan,
) -> Result<String, String> {
    let registry = Arc::new(Registry::new(None));
    let threads = plan.codec_threads.unwrap_or(on.tuning.codec_threads);
    let workers = Arc::new(Workers::start(threads).map_err(|error| error.to_string())?);
    let files = Arc::new(Files::new(clip, count));
    let sessions = Arc::new(Sessions::new(
        Arc::clone(&files) as _,
        Arc::clone(&workers),
        Arc::clone(&on.engine),
        Arc::clone(&registry),
        settings(on, model, plan),
        on.gpu.clone(),
    ));
    let looking = tokio::spawn({
        let sessions = Arc::clone(&sessions);
        async move {
            let mut timer = tokio::time::interval(LOOK);
            loop {
                timer.tick().await;
                sessions.look_at_load();
            }
        }
    });
    let running = Running { registry, workers, looking };
    let before = counted(&on.metrics, &TAKEOVERS);
    let measured = measure(on, &running, &sessions, &files, count, plan).await;
    let ended = running.end().await;
    // Of all their lives, since a session that software took over stays with it.
    let taken_over = difference(&before, &counted(&on.metrics, &TAKEOVERS));
    let found = measured?;
    ended?;
    if on.gpu.is_some() && !taken_over.is_empty() {
        return Err(format!("not all sessions stayed on the GPU: {taken_over}; {found}"));
    }
    Ok(found)
}

async fn measure(
    on: &Machinery,
    running: &Running,
    sessions: &Sessions,
    files: &Files,
    count: usize,
    plan: &Plan,
) -> Result<String, String> {
    let begun = clock::now();
    for number in 0..count {
        let opened = tokio::time::timeout(LIMIT, sessions.open(request(plan))).await;
        let opened = opened.map_err(|_| format!("session {number} did not open in time"))?;
        opened.map_err(|refusal| format!("session {number}: {refusal}"))?;
    }
    let opened = clock::now();
    if !files.wait_until_settled(plan.settle, plan.settled).await {
        let settled = files.settled(plan.settled);
        return Err(format!("{settled} of {count} sessions had {} results within {:?}", plan.settled, plan.settle));
    }
    let settled = clock::now();
    tokio::time::sleep(plan.warm).await;
    let (before, watch, start) = (counted(&on.metrics, &LOSSES), Watch::start(), clock::now());
    files.measuring.store(true, Ordering::Relaxed);
    tokio::time::sleep(plan.time).await;
    let enough = files.wait_for_results(LIMIT, plan.least).await;
    files.measuring.store(false, Ordering::Relaxed);
    let (took, alive) = (clock::now().duration_since(start), running.registry.len());
    let usage = tokio::task::block_in_place(|| watch.finish());
    let lost = difference(&before, &counted(&on.metrics, &LOSSES));
    // What was sent last may still be answered.
    tokio::time::sleep(Duration::from_millis(plan.budget_ms.into()) + GRACE).await;
    let lost = if lost.is_empty() { "nothing".to_owned() } else { lost };
    let found = format!(
        "{}; dropped: {lost}; opened in {:.1} s, all with {} results {:.1} s later",
        files.summary(took, &usage),
        (opened - begun).as_secs_f64(),
        plan.settled,
        (settled - opened).as_secs_f64(),
    );
    match (alive == count, enough) {
        (true, true) => Ok(found),
        (false, _) => Err(format!("{} ended by themselves; {found}", count - alive)),
        (true, false) => Err(format!("fewer than {} results; {found}", plan.least)),
    }
}

/// What has to end, whatever came of it.
struct Running {
    registry: Arc<Registry>,
    workers: Arc<Workers>,
    looking: JoinHandle<()>,
}

impl Running {
    async fn end(self) -> Result<(), String> {
        let Self { registry, workers, looking } = self;
        let close = async {
            for handle in registry.list() {
                handle.close(EndReason::Bye).await;
            }
        };
        let closed = tokio::time::timeout(LIMIT, close).await.is_ok();
        let empty = registry.wait_empty(clock::now() + LIMIT).await;
        looking.abort();
        let stopped = tokio::time::timeout(LIMIT, tokio::task::spawn_blocking(move || workers.stop())).await;
        match (closed && empty, stopped) {
            (true, Ok(Ok(()))) => Ok(()),
            (false, _) => Err("sessions did not end in time".to_owned()),
            (true, _) => Err("threads for decoding did not end in time".to_owned()),
        }
    }
}

fn settings(on: &Machinery, model: &str, plan: &Plan) -> Settings {
    Settings {
        timeouts: Timeouts::default(),
        default_model: model.to_owned(),
        budget_ms: plan.budget_ms,
        limits: decode::Limits::default(),
        max_fps: 60.0,
        max_received_bps: 50_000_000,
        ice_lite: false,
        channel_buffer: 1 << 20,
        max_bitrate: 6_000_000,
        control_rate: Rate { per_second: 10, burst: 10 },
        degradation: plan.degradation,
        measured_admission: false,
        still: None,
        codecs: on.tuning.codecs.clone(),
        network_bps: None,
        tracer: saccade::traces::Tracer::off(),
    }
}

fn request(plan: &Plan) -> OpenRequest {
    OpenRequest {
        sdp: String::new(),
        options: OptionsPatch {
            return_mode: Some(ReturnMode::Results),
            budget_ms: Some(plan.budget_ms),
            ..OptionsPatch::default()
        },
        trickle: true,
        signals: None,
        claims: Claims::everything(),
        address: None,
        caller: None,
    }
}

/// Counters of what is lost while a session goes on as it was, and of what software took over for good.
const LOSSES: [&str; 2] = ["saccade_frames_dropped_total", "saccade_model_failures_total"];
const TAKEOVERS: [&str; 1] = ["saccade_decode_takeovers_total"];

/// What was counted so far, by metric and labels.
fn counted(metrics: &Metrics, of_interest: &[&str]) -> BTreeMap<String, f64> {
    metrics.upkeep();
    let page = metrics.render();
    let lines = page.lines().filter(|line| of_interest.iter().any(|name| line.starts_with(name)));
    lines
        .filter_map(|line| line.rsplit_once(' '))
        .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
        .collect()
}

fn difference(before: &BTreeMap<String, f64>, after: &BTreeMap<String, f64>) -> String {
    let more = after.iter().map(|(name, count)| (name, count - before.get(name).unwrap_or(&0.0)));
    let more = more.filter(|(_, more)| *more > 0.0).map(|(name, more)| format!("{name} {more:.0}"));
    more.collect::<Vec<_>>().join("; ")
}

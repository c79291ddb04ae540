//! Sessions of a server without a network: files in the place of peers, paced as cameras are.
//!
//! A file's access units go as RTP packets into the sessions' own way: reorder buffer, assembly, decoding, mailbox, model,
//! tracker, result on the data channel. What is left out is what lies before and behind: ICE, DTLS, SRTP, sockets, and the
//! HTTP of the offer.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use saccade::clock;
use saccade::decode;
use saccade::decode::nvdec;
use saccade::egress::packetize::Packetizer;
use saccade::hardware::{Finding, Piece, Stage, Table};
use saccade::infer::manifest::Precision;
use saccade::infer::{Cuda, Engine, Model, ModelSpec};
use saccade::media::{Codec, MediaTime, RtpPacket};
use saccade::pipeline::{Gpu, Sessions, Settings, Workers};
use saccade::rtc::{
    Accepted, Answer, Candidate, Channel, EVENT_QUEUE, Error, Event, OutgoingPacket, PACKET_QUEUE, Peer, PeerConfig,
    Stats, Transport,
};
use saccade::session::machine::Timeouts;
use saccade::session::{Claims, EndReason, OpenRequest, Opener as _, Rate, Registry};
use saccade::telemetry::metrics::Handle as Metrics;
use saccade::tuning::Tuning;
use saccade_load::Latencies;
use saccade_signaling::{OptionsPatch, ReturnMode, SessionResult};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::clips::Clip;
use super::files::Files as OnDisk;
use super::gpu::Machine;
use super::sweep::spec_for;
use super::usage::Watch;
use super::{Report, Stop};

/// Pictures a second of each session.
const FPS: u32 = 30;
/// How long sessions may take to open, and to end.
const LIMIT: Duration = Duration::from_secs(20);
/// How often the server looks at its load.
const LOOK: Duration = Duration::from_secs(1);

/// What is simulated.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Sessions at a time, one number after the other.
    pub counts: Vec<usize>,
    /// How long they run before anything is counted, and how long it is then.
    pub warm: Duration,
    pub time: Duration,
    pub budget_ms: u32,
    /// Instead of the server's own choice.
    pub codec_threads: Option<usize>,
    /// Give frames up under load, as servers do.
    pub degradation: bool,
    /// After this no further number is begun.
    pub end: Instant,
}

/// The GPU as sessions have it, for all that it decodes and for models.
///
/// # Errors
/// [`Stop::Failed`].
pub fn open(machine: &Machine) -> Result<Gpu, Stop> {
    let decoders = machine.decoders();
    let decodes = |codec| decoders.as_ref().is_ok_and(|decoders| decoders.capability(codec).is_ok());
    let finding = |piece, works| Finding { piece, works, found: machine.device.name().to_owned() };
    let table = Table::new(vec![
        finding(Piece::Driver, true),
        finding(Piece::Device, true),
        finding(Piece::Kernels, true),
        finding(Piece::DecodeH264, decodes(nvdec::Codec::H264)),
        finding(Piece::DecodeVp8, decodes(nvdec::Codec::Vp8)),
        finding(Piece::DecodeVp9, decodes(nvdec::Codec::Vp9)),
        finding(Piece::Cuda, true),
    ]);
    Gpu::open(machine.libraries, &table, &[Stage::Decode, Stage::Infer]).map_err(Stop::failed)
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
    pub tuning: Tuning,
    pub metrics: Metrics,
}

/// Runs sessions on a model of the engine's, one number of them after the other.
///
/// # Errors
/// [`Stop`], where sessions don't open, or don't end.
pub async fn run(report: &Report, on: &Machinery, model: &Model, clip: &Clip, plan: &Plan) -> Result<(), Stop> {
    let codec = clip.negotiated().ok_or_else(|| Stop::Failed(format!("{}: sessions have no such codec", clip.name)))?;
    let selection = model.selection();
    let in_place = if selection.in_place { ", in place" } else { "" };
    let buckets: Vec<_> = selection.buckets.iter().map(|(size, time)| format!("{size}: {time:.1?}")).collect();
    let how = format!("{} in {}{in_place}, runs of {}", selection.provider, selection.precision, buckets.join(", "));
    report.row(format!("{}, how it runs", model.id()), how);
    for count in &plan.counts {
        let what = format!("{}, {count} sessions of {}", model.id(), clip.name);
        if clock::now() >= plan.end {
            report.unavailable(what, "no time was left");
            continue;
        }
        let found = simulate(on, &model.id(), (clip, codec), *count, plan).await?;
        report.judge(what, found);
    }
    Ok(())
}

/// What came of it; inside, what ought to be otherwise.
async fn simulate(
    on: &Machinery,
    model: &str,
    clip: (&Clip, Codec),
    count: usize,
    plan: &Plan,
) -> Result<Result<String, String>, Stop> {
    let files = Arc::new(Files::new(clip, count));
    let registry = Arc::new(Registry::new(None));
    let threads = plan.codec_threads.unwrap_or(on.tuning.codec_threads);
    let workers = Arc::new(Workers::start(threads).map_err(Stop::failed)?);
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
    for number in 0..count {
        let opened = tokio::time::timeout(LIMIT, sessions.open(request(plan))).await;
        let opened = opened.map_err(|_| Stop::Failed(format!("session {number} did not open in time")))?;
        opened.map_err(|refusal| Stop::Failed(format!("session {number}: {refusal}")))?;
    }
    tokio::time::sleep(plan.warm).await;
    let (before, watch, start) = (drops(&on.metrics), Watch::start(), clock::now());
    files.measuring.store(true, Ordering::Relaxed);
    tokio::time::sleep(plan.time).await;
    files.measuring.store(false, Ordering::Relaxed);
    let (took, alive) = (clock::now().duration_since(start), registry.len());
    let usage = tokio::task::block_in_place(|| watch.finish());
    let lost = difference(&before, &drops(&on.metrics));
    for handle in registry.list() {
        handle.close(EndReason::Bye).await;
    }
    let empty = registry.wait_empty(clock::now() + LIMIT).await;
    looking.abort();
    tokio::task::block_in_place(|| workers.stop());
    if !empty {
        return Err(Stop::Failed("sessions did not end in time".to_owned()));
    }
    let lost = if lost.is_empty() { "nothing".to_owned() } else { lost };
    let found = format!("{}; dropped: {lost}", files.summary(took, &usage));
    Ok(if alive == count { Ok(found) } else { Err(format!("{} ended by themselves; {found}", count - alive)) })
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
        codecs: on.tuning.codecs.clone(),
        network_bps: None,
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
    }
}

/// What was dropped so far, by metric and labels.
fn drops(metrics: &Metrics) -> BTreeMap<String, f64> {
    metrics.upkeep();
    let page = metrics.render();
    let of_interest =
        ["saccade_frames_dropped_total", "saccade_decode_takeovers_total", "saccade_model_failures_total"];
    let lines = page.lines().filter(|line| of_interest.iter().any(|name| line.starts_with(name)));
    lines
        .filter_map(|line| line.rsplit_once(' '))
        .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
        .collect()
}

fn difference(before: &BTreeMap<String, f64>, after: &BTreeMap<String, f64>) -> String {
    let more = after.iter().map(|(name, count)| (name, count - before.get(name).unwrap_or(&0.0)));
    let more = more.filter(|(_, more)| *more > 0.0).map(|(name, more)| {
        let labels = name.split_once('{').map_or(&**name, |(_, labels)| labels.trim_end_matches('}'));
        format!("{labels} {more:.0}")
    });
    more.collect::<Vec<_>>().join("; ")
}

/// Peers that are files.
struct Files {
    clip: Arc<Clip>,
    codec: Codec,
    count: usize,
    next: AtomicUsize,
    start: Instant,
    measuring: Arc<AtomicBool>,
    tallies: Mutex<Vec<Arc<Tally>>>,
}

/// What came of one session.
#[derive(Default)]
struct Tally {
    sent: AtomicU64,
    keyframes_asked: AtomicU64,
    heard: Mutex<Heard>,
}

#[derive(Default)]
struct Heard {
    results: u64,
    met: u64,
    boxes: u64,
    batches: u64,
    /// From decoding, its queue included, to the result.
    worked: Latencies,
    /// From the last packet to the data channel.
    whole: Latencies,
    /// When the last packet of a picture was handed over, by its RTP timestamp.
    handed: HashMap<u32, Instant>,
    /// Where the time went, in milliseconds: decode, queue, preprocess, inference, postprocess.
    stages: [f64; 5],
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Files {
    fn new((clip, codec): (&Clip, Codec), count: usize) -> Self {
        Self {
            clip: Arc::new(clip.clone()),
            codec,
            count,
            next: AtomicUsize::new(0),
            start: clock::now(),
            measuring: Arc::default(),
            tallies: Mutex::default(),
        }
    }

    fn summary(&self, took: Duration, usage: &str) -> String {
        let (mut all, mut sent, mut asked) = (Heard::default(), 0, 0);
        for tally in &*lock(&self.tallies) {
            sent += tally.sent.load(Ordering::Relaxed);
            asked += tally.keyframes_asked.load(Ordering::Relaxed);
            let heard = lock(&tally.heard);
            all.results += heard.results;
            all.met += heard.met;
            all.boxes += heard.boxes;
            all.batches += heard.batches;
            all.worked.merge(&heard.worked);
            all.whole.merge(&heard.whole);
            all.stages.iter_mut().zip(heard.stages).for_each(|(sum, stage)| *sum += stage);
        }
        let each = |sum: f64| sum / (all.results.max(1)) as f64;
        let times = |times: &Latencies| {
            let three = times.percentiles().map(|it| format!("{:.1} / {:.1} / {:.1} ms", it.p50, it.p95, it.p99));
            three.unwrap_or_else(|| "none".to_owned())
        };
        let [decode, queue, preprocess, inference, postprocess] = all.stages.map(each);
        format!(
            "{:.1} of {:.1} frames/s with results, {:.1} % of them in time; decode to result p50 / p95 / p99 {}, last packet \
             to channel {}; means: decode {decode:.1}, queue {queue:.1}, preprocess {preprocess:.1}, inference {inference:.1}, \
             postprocess {postprocess:.1} ms, batch {:.1}, boxes {:.1}; keyframes asked for {asked}; {usage}",
            all.results as f64 / took.as_secs_f64(),
            sent as f64 / took.as_secs_f64(),
            100.0 * each(all.met as f64),
            times(&all.worked),
            times(&all.whole),
            each(all.batches as f64),
            each(all.boxes as f64),
        )
    }
}

#[async_trait]
impl Transport for Files {
    async fn accept(&self, _: &str, _: PeerConfig) -> Result<Accepted, Error> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (event_queue, events) = mpsc::channel(EVENT_QUEUE);
        let (packet_queue, packets) = mpsc::channel(PACKET_QUEUE);
        for event in [Event::IceConnected, Event::Connected, Event::ChannelOpen(Channel::Results)] {
            let _ = event_queue.try_send(event);
        }
        let tally = Arc::new(Tally::default());
        lock(&self.tallies).push(Arc::clone(&tally));
        let wanted = Arc::new(AtomicBool::new(false));
        // Cameras are not in step: each begins at another place of the file, and of an interval.
        let interval = Duration::from_secs(1) / FPS;
        let start = self.start + interval.mul_f64(number as f64 / self.count as f64);
        let feed = Feed {
            clip: Arc::clone(&self.clip),
            codec: self.codec,
            first: number * self.clip.units.len() / self.count,
            start,
            packets: packet_queue,
            wanted: Arc::clone(&wanted),
            measuring: Arc::clone(&self.measuring),
            tally: Arc::clone(&tally),
        };
        let feeding = tokio::spawn(feed.run()).abort_handle();
        let measuring = Arc::clone(&self.measuring);
        let peer = File { feeding, wanted, measuring, tally, _events: event_queue };
        let (codec, mid) = (self.codec, "0".to_owned());
        let answer = Answer { sdp: String::new(), codec, returns_video: false, data_channels: true, mid };
        Ok(Accepted { peer: Arc::new(peer), answer, events, packets })
    }
}

/// Sends a file as a camera would, again and again.
struct Feed {
    clip: Arc<Clip>,
    codec: Codec,
    first: usize,
    start: Instant,
    packets: mpsc::Sender<RtpPacket>,
    wanted: Arc<AtomicBool>,
    measuring: Arc<AtomicBool>,
    tally: Arc<Tally>,
}

impl Feed {
    async fn run(self) {
        let mut packetizer = Packetizer::new(self.codec, Packetizer::MAX_PAYLOAD);
        let mut at = self.keyframe_from(self.first);
        let mut sequence = 0u16;
        // What would have been due before the session was there is not sent in a heap.
        let passed = clock::now().saturating_duration_since(self.start);
        let skipped = (passed.as_secs_f64() * f64::from(FPS)).ceil() as u32;
        for number in skipped.. {
            tokio::time::sleep_until((self.start + Duration::from_secs(1) * number / FPS).into()).await;
            if self.wanted.swap(false, Ordering::Relaxed) {
                at = self.keyframe_from(at);
            }
            let unit = &self.clip.units[at];
            at = if at + 1 == self.clip.units.len() { self.keyframe_from(0) } else { at + 1 };
            let time = MediaTime(number.wrapping_mul(MediaTime::CLOCK_RATE / FPS));
            let payloads: Vec<_> = packetizer.packetize(&unit.data, unit.keyframe).collect();
            let arrival = clock::now();
            lock(&self.tally.heard).hand(time, arrival);
            for payload in payloads {
                let packet = RtpPacket {
                    sequence,
                    time,
                    marker: payload.marker,
                    rotation: None,
                    color: None,
                    payload: payload.data,
                    arrival,
                };
                sequence = sequence.wrapping_add(1);
                if self.packets.send(packet).await.is_err() {
                    return;
                }
            }
            if self.measuring.load(Ordering::Relaxed) {
                self.tally.sent.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn keyframe_from(&self, at: usize) -> usize {
        (at..self.clip.units.len()).find(|at| self.clip.units[*at].keyframe).unwrap_or(0)
    }
}

impl Heard {
    fn hand(&mut self, time: MediaTime, at: Instant) {
        // Those without a result are forgotten together.
        if self.handed.len() > 1_000 {
            self.handed.clear();
        }
        self.handed.insert(time.0, at);
    }

    fn take(&mut self, result: &SessionResult, now: Instant, counts: bool) {
        let Some(handed) = self.handed.remove(&result.rtp_timestamp_in).filter(|_| counts) else { return };
        let timing = result.timing_ms;
        let worked = Duration::from_secs_f64((timing.total - timing.reorder).max(0.0) / 1e3);
        self.results += 1;
        self.met += u64::from(result.met);
        self.boxes += result.detections.len() as u64;
        self.batches += u64::from(result.batch_size);
        self.worked.record(worked);
        self.whole.record(now.saturating_duration_since(handed));
        let stages = [timing.decode, timing.queue, timing.preprocess, timing.inference, timing.postprocess];
        self.stages.iter_mut().zip(stages).for_each(|(sum, stage)| *sum += stage);
    }
}

/// A file in a peer's place: it takes results and nothing else.
struct File {
    feeding: AbortHandle,
    wanted: Arc<AtomicBool>,
    measuring: Arc<AtomicBool>,
    tally: Arc<Tally>,
    /// Without it the session would take its peer for gone.
    _events: mpsc::Sender<Event>,
}

#[async_trait]
impl Peer for File {
    async fn renegotiate(&self, _: &str) -> Result<Answer, Error> {
        Err(Error::NotNegotiated)
    }

    async fn complete_answer(&self) -> Result<String, Error> {
        Err(Error::NotNegotiated)
    }

    async fn add_candidate(&self, _: Option<Candidate>) -> Result<(), Error> {
        Err(Error::NotNegotiated)
    }

    async fn send_packet(&self, _: OutgoingPacket) -> Result<(), Error> {
        Err(Error::NotNegotiated)
    }

    async fn request_keyframe(&self) -> Result<(), Error> {
        self.wanted.store(true, Ordering::Relaxed);
        self.tally.keyframes_asked.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    async fn send_text(&self, channel: Channel, text: &str) -> Result<(), Error> {
        let now = clock::now();
        if channel == Channel::Results
            && let Ok(result) = serde_json::from_str(text)
        {
            lock(&self.tally.heard).take(&result, now, self.measuring.load(Ordering::Relaxed));
        }
        Ok(())
    }

    async fn open_channel(&self, _: Channel) -> Result<(), Error> {
        Ok(())
    }

    async fn remote_closed(&self) -> bool {
        false
    }

    fn bandwidth(&self) -> Option<u32> {
        None
    }

    fn has_room(&self, _: Instant) -> bool {
        true
    }

    async fn stats(&self, _: Instant) -> Option<Stats> {
        None
    }

    fn packets_dropped(&self) -> u64 {
        0
    }

    async fn close(&self) {
        self.feeding.abort();
    }
}

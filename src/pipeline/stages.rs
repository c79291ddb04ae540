use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use metrics::{Counter, Histogram, counter, histogram};
use saccade_signaling::{Options, ReturnMode};
use tokio::sync::{broadcast, mpsc};

use super::stats::Stats;
use super::workers::{Lane, Step, Workers};
use crate::annotate::{self, Annotator};
use crate::clock;
use crate::decode::{self, Decoder};
use crate::egress::results;
use crate::encode::{self, Encoder};
use crate::infer;
use crate::media::{Codec, EncodedFrame, Frame, FramePool, MediaTime};
use crate::queue::{Fifo, Full, Mailbox};
use crate::session::EndReason;

/// Access units that wait for the decoder; one more skips to the next keyframe.
const DECODE_QUEUE: usize = 4;
/// Spare pictures kept for reuse: one in the decoder, one waiting, one in the model, one being drawn.
const SPARE_PICTURES: usize = 4;
/// Runs of the model that may fail one after the other before the session ends.
const MAX_MODEL_FAILURES: u32 = 30;

/// What the stages tell the session's owner.
#[derive(Debug)]
pub(super) enum Output {
    /// A frame was decoded.
    Decoded {
        /// Width and height of the upright frame, where they changed.
        resized: Option<[u32; 2]>,
    },
    /// The decoder cannot go on without a keyframe.
    NeedKeyframe,
    /// A result, ready to be sent.
    Result(Arc<str>),
    /// A frame to send back.
    Encoded(EncodedFrame),
    /// The session cannot go on.
    Failed(EndReason),
}

/// Options as the stages use them.
#[derive(Debug)]
pub(super) struct Applied {
    /// All options, as told to the client.
    pub(super) options: Options,
    /// What the model's stage needs of them.
    pub(super) params: Arc<infer::Params>,
    /// The model.
    pub(super) model: Arc<infer::Model>,
    /// Its name and version.
    pub(super) model_id: String,
}

/// What the stages of one session share with each other.
struct Shared {
    session_id: String,
    stats: Arc<Stats>,
    applied: ArcSwap<Applied>,
    returns_video: bool,
    /// Frames a second that are processed at most.
    max_fps: f64,
    pool: Arc<FramePool>,
    units: Fifo<EncodedFrame>,
    inferred: Mailbox<infer::Inferred>,
    outputs: mpsc::Sender<Output>,
    listeners: broadcast::Sender<Arc<str>>,
    failed: OnceLock<EndReason>,
    keyframe_wanted: AtomicBool,
    bitrate: AtomicU32,
    /// What encoding a frame takes, in microseconds.
    last_encode_us: AtomicU32,
    metrics: Metrics,
}

/// Decoding, inference, drawing and encoding of one session.
///
/// Access units go in by [`Stages::push`]; results and encoded frames come out as [`Output`]s. Decoding and drawing
/// run on a codec thread each, the model on its own; between them newer frames replace older ones.
pub(super) struct Stages {
    shared: Arc<Shared>,
    decode: Arc<Lane>,
    finish: Arc<Lane>,
    slot: Arc<Mutex<Option<infer::Slot>>>,
}

/// What [`Stages::start`] needs to know of its session.
pub(super) struct Config {
    /// Id of the session, for results.
    pub(super) session_id: String,
    /// Codec, both ways.
    pub(super) codec: Codec,
    /// Whether the peer takes video back.
    pub(super) returns_video: bool,
    /// Largest frame taken.
    pub(super) limits: decode::Limits,
    /// Frames a second that are processed at most.
    pub(super) max_fps: f64,
    /// Bits a second of the returned video, to begin with.
    pub(super) bitrate: u32,
    /// Where the stages report to.
    pub(super) outputs: mpsc::Sender<Output>,
    /// Where results are published for other listeners.
    pub(super) listeners: broadcast::Sender<Arc<str>>,
    /// What is counted.
    pub(super) stats: Arc<Stats>,
}

impl Stages {
    /// Opens the decoder and takes places on the codec threads and with the model.
    ///
    /// # Errors
    /// [`decode::Error`] when there is no decoder for the codec.
    pub(super) fn start(workers: &Workers, config: Config, applied: Applied) -> Result<Self, decode::Error> {
        let pool = Arc::new(FramePool::new(SPARE_PICTURES));
        let decoder = Box::new(decode::software::Software::new(config.codec, config.limits, Arc::clone(&pool))?);
        let shared = Arc::new(Shared {
            session_id: config.session_id,
            stats: config.stats,
            applied: ArcSwap::from_pointee(applied),
            returns_video: config.returns_video,
            max_fps: config.max_fps,
            pool,
            units: Fifo::new(DECODE_QUEUE),
            inferred: Mailbox::default(),
            outputs: config.outputs,
            listeners: config.listeners,
            failed: OnceLock::new(),
            keyframe_wanted: AtomicBool::new(false),
            bitrate: AtomicU32::new(config.bitrate),
            last_encode_us: AtomicU32::new(0),
            metrics: Metrics::new(),
        });
        let finish = {
            let (finisher, failed) = (Finisher::new(Arc::clone(&shared), config.codec), Arc::clone(&shared));
            let mut finisher = finisher;
            workers.lane(move || finisher.step(), move || failed.fail(EndReason::Internal))
        };
        let slot = Arc::new(Mutex::new(None));
        let decode = {
            let failed = Arc::clone(&shared);
            let mut stage = DecodeStage {
                shared: Arc::clone(&shared),
                slot: Arc::clone(&slot),
                decoder,
                next_id: 0,
                last_time: None,
            };
            workers.lane(move || stage.step(), move || failed.fail(EndReason::Internal))
        };
        let stages = Self { shared, decode, finish, slot };
        stages.attach();
        Ok(stages)
    }

    /// Hands an access unit to the decoder.
    ///
    /// # Errors
    /// [`Full`] when the decoder has fallen behind; the caller must skip to the next keyframe.
    pub(super) fn push(&self, unit: EncodedFrame) -> Result<(), Full<EncodedFrame>> {
        self.shared.units.push(unit)?;
        self.decode.wake();
        Ok(())
    }

    /// Drops the access units that wait, since a keyframe will come. Says how many that were.
    pub(super) fn skip_waiting(&self) -> usize {
        self.shared.units.clear()
    }

    /// The options in force.
    pub(super) fn applied(&self) -> Arc<Applied> {
        self.shared.applied.load_full()
    }

    /// Puts other options in force, from the next frame on.
    pub(super) fn apply(&self, applied: Applied) {
        let before = self.applied();
        let other_model = !Arc::ptr_eq(&before.model, &applied.model);
        let starts_video = before.options.return_mode != applied.options.return_mode;
        self.shared.applied.store(Arc::new(applied));
        if starts_video {
            self.force_keyframe();
        }
        if other_model {
            self.attach();
        }
    }

    /// Why the session cannot go on, if it cannot.
    pub(super) fn failed(&self) -> Option<EndReason> {
        self.shared.failed.get().copied()
    }

    /// Has the next returned frame encoded as a keyframe.
    pub(super) fn force_keyframe(&self) {
        self.shared.keyframe_wanted.store(true, Ordering::Relaxed);
    }

    /// Sets the bits a second of the returned video.
    pub(super) fn set_bitrate(&self, bits_per_second: u32) {
        self.shared.bitrate.store(bits_per_second, Ordering::Relaxed);
    }

    /// Gives every place back; the codecs are dropped on their own threads.
    pub(super) fn close(&self) {
        *self.slot.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.decode.close();
        self.finish.close();
    }

    fn attach(&self) {
        let (shared, finish) = (Arc::clone(&self.shared), Arc::clone(&self.finish));
        let mut failures = 0;
        let slot = self.applied().model.attach(move |outcome| {
            match outcome {
                infer::Outcome::Done(inferred) => {
                    failures = 0;
                    Stats::count(&shared.stats.inferred);
                    shared.metrics.preprocess.record(inferred.timing.preprocess);
                    shared.metrics.inference.record(inferred.timing.inference);
                    shared.metrics.postprocess.record(inferred.timing.postprocess);
                    if let Some(replaced) = shared.inferred.put(inferred) {
                        // Its picture is too old to return, its result is not.
                        shared.metrics.dropped_before_encode.increment(1);
                        shared.emit_result(&replaced, None, Duration::ZERO);
                        shared.pool.give(replaced.frame.picture);
                    }
                    finish.wake();
                }
                infer::Outcome::Late(frame) => {
                    Stats::count(&shared.stats.late);
                    shared.metrics.late.increment(1);
                    shared.pool.give(frame.picture);
                }
                infer::Outcome::Failed(frame, error) => {
                    failures += 1;
                    shared.metrics.model_failed.increment(1);
                    tracing::warn!(session_id = shared.session_id, %error, failures, "the model failed on a frame");
                    shared.pool.give(frame.picture);
                    if failures >= MAX_MODEL_FAILURES {
                        shared.fail(EndReason::ModelFailed);
                    }
                }
            }
        });
        *self.slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(slot);
    }
}

struct DecodeStage {
    shared: Arc<Shared>,
    slot: Arc<Mutex<Option<infer::Slot>>>,
    decoder: Box<dyn Decoder>,
    next_id: u64,
    /// RTP timestamp of the last frame that was let through.
    last_time: Option<MediaTime>,
}

impl DecodeStage {
    fn step(&mut self) -> Step {
        let Some(unit) = self.shared.units.pop() else { return Step::Idle };
        let started = clock::now();
        match self.decoder.decode(&unit) {
            Ok(Some(decoded)) => self.submit(&unit, decoded, started),
            Ok(None) => {}
            Err(decode::Error::TooLarge { width, height }) => {
                tracing::info!(
                    session_id = self.shared.session_id,
                    width,
                    height,
                    "a frame is larger than limits.width × limits.height"
                );
                self.shared.fail(EndReason::DecodeFailed);
            }
            Err(error) => {
                tracing::trace!(session_id = self.shared.session_id, %error, "an access unit was not decoded");
                self.shared.metrics.undecodable.increment(1);
                self.shared.tell(Output::NeedKeyframe);
            }
        }
        Step::Again
    }

    fn submit(&mut self, unit: &EncodedFrame, decoded: decode::Decoded, started: Instant) {
        let shared = &self.shared;
        let now = clock::now();
        shared.metrics.decode.record(now.duration_since(started));
        shared.metrics.decoded.increment(1);
        Stats::count(&shared.stats.decoded);
        let (width, height) = (decoded.picture.width(), decoded.picture.height());
        let resized = shared.stats.resolution_changed(width, height).then_some([width, height]);
        shared.tell(Output::Decoded { resized });
        let applied = shared.applied.load();
        let frame = Frame {
            id: self.next_id,
            picture: Arc::new(decoded.picture),
            color: decoded.color,
            time: unit.time,
            arrival: unit.arrival,
            deadline: unit.arrival + shared.time_for_model(&applied.options),
            reorder_wait: unit.reorder_wait,
            decode_time: now.saturating_duration_since(unit.arrival + unit.reorder_wait),
            decoded_at: now,
        };
        self.next_id += 1;
        if self.too_soon(frame.time) {
            shared.metrics.over_rate.increment(1);
            shared.pool.give(frame.picture);
            return;
        }
        self.last_time = Some(frame.time);
        let slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slot.as_ref()
            && let Some(replaced) = slot.submit(frame, Arc::clone(&applied.params))
        {
            Stats::count(&shared.stats.superseded);
            shared.metrics.superseded.increment(1);
            shared.pool.give(replaced.picture);
        }
    }
}

impl DecodeStage {
    /// Whether a frame comes sooner after the last than `limits.fps` allows, jitter of a quarter apart.
    fn too_soon(&self, time: MediaTime) -> bool {
        self.last_time
            .is_some_and(|last| time.is_newer_than(last) && time.since(last).as_secs_f64() * self.shared.max_fps < 0.75)
    }
}

/// The last stage: draws, hands the result out, encodes.
struct Finisher {
    shared: Arc<Shared>,
    codec: Codec,
    annotator: Annotator,
    encoder: Option<Box<dyn Encoder>>,
}

impl Finisher {
    fn new(shared: Arc<Shared>, codec: Codec) -> Self {
        Self { shared, codec, annotator: Annotator::new(), encoder: None }
    }

    fn step(&mut self) -> Step {
        let shared = Arc::clone(&self.shared);
        let Some(mut inferred) = shared.inferred.take() else { return Step::Idle };
        let applied = shared.applied.load_full();
        if applied.options.return_mode == ReturnMode::Results || !shared.returns_video {
            // The encoder's memory is the largest of a session.
            self.encoder = None;
            shared.emit_result(&inferred, None, Duration::ZERO);
        } else {
            let started = clock::now();
            self.draw(&mut inferred, &applied.options);
            let annotate = clock::now().duration_since(started);
            shared.metrics.annotate.record(annotate);
            shared.emit_result(&inferred, Some(inferred.frame.time), annotate);
            self.encode(&inferred.frame);
        }
        shared.pool.give(inferred.frame.picture);
        Step::Again
    }

    fn draw(&mut self, inferred: &mut infer::Inferred, options: &Options) {
        let overlay = options.overlay;
        let timing = overlay.timing.then(|| {
            let elapsed = clock::now().saturating_duration_since(inferred.frame.arrival);
            [
                format!("latency {:.0} ms of {} ms", milliseconds(elapsed), options.budget_ms),
                format!(
                    "decode {:.1}  queue {:.1}  model {:.1}",
                    milliseconds(inferred.frame.decode_time),
                    milliseconds(inferred.timing.queue),
                    milliseconds(inferred.timing.inference),
                ),
            ]
        });
        let timing: Vec<&str> = timing.iter().flatten().map(String::as_str).collect();
        if timing.is_empty() && (inferred.detections.is_empty() || !(overlay.boxes || overlay.labels)) {
            return;
        }
        self.annotator.draw(
            Arc::make_mut(&mut inferred.frame.picture),
            inferred.frame.color,
            &annotate::Overlay {
                detections: &inferred.detections,
                boxes: overlay.boxes,
                labels: overlay.labels,
                timing: &timing,
                ..annotate::Overlay::default()
            },
        );
    }

    fn encode(&mut self, frame: &Frame) {
        let shared = Arc::clone(&self.shared);
        let bitrate = shared.bitrate.load(Ordering::Relaxed);
        let encoder = match &mut self.encoder {
            Some(encoder) => encoder,
            None => match encode::software::Software::new(
                self.codec,
                encode::software::Config { bitrate_bps: bitrate, fps: shared.max_fps },
            ) {
                Ok(encoder) => self.encoder.insert(Box::new(encoder)),
                Err(error) => {
                    tracing::error!(session_id = shared.session_id, %error, "no encoder");
                    return shared.fail(EndReason::Internal);
                }
            },
        };
        encoder.set_bitrate(bitrate);
        let keyframe = shared.keyframe_wanted.swap(false, Ordering::Relaxed);
        let started = clock::now();
        let encoded = encoder.encode(&frame.picture, frame.color, frame.time, keyframe);
        let took = clock::now().duration_since(started);
        shared.metrics.encode.record(took);
        shared.learn_encode_time(took);
        match encoded {
            Ok(Some(encoded)) => {
                let unit = EncodedFrame {
                    codec: self.codec,
                    data: encoded.data,
                    time: frame.time,
                    keyframe: encoded.keyframe,
                    rotation: crate::media::Rotation::None,
                    arrival: frame.arrival,
                    reorder_wait: Duration::ZERO,
                };
                if shared.outputs.try_send(Output::Encoded(unit)).is_err() {
                    // What follows a lost frame cannot be shown before the next keyframe.
                    shared.metrics.unsent.increment(1);
                    shared.keyframe_wanted.store(true, Ordering::Relaxed);
                }
            }
            Ok(None) => {
                if keyframe {
                    shared.keyframe_wanted.store(true, Ordering::Relaxed);
                }
            }
            Err(error) => {
                tracing::warn!(session_id = shared.session_id, %error, "a frame was not encoded");
                shared.metrics.unencodable.increment(1);
                self.encoder = None;
            }
        }
    }
}

impl Shared {
    fn emit_result(&self, inferred: &infer::Inferred, returned: Option<MediaTime>, annotate: Duration) {
        let applied = self.applied.load();
        let frame = &inferred.frame;
        let elapsed = clock::now().saturating_duration_since(frame.arrival);
        let encode = match returned {
            Some(_) => Duration::from_micros(self.last_encode_us.load(Ordering::Relaxed).into()),
            None => Duration::ZERO,
        };
        let timings = results::Timings {
            reorder: frame.reorder_wait,
            decode: frame.decode_time,
            queue: inferred.timing.queue,
            preprocess: inferred.timing.preprocess,
            inference: inferred.timing.inference,
            postprocess: inferred.timing.postprocess,
            annotate,
            encode,
            total: elapsed + encode,
        };
        let met = elapsed + encode <= Duration::from_millis(applied.options.budget_ms.into());
        if !met {
            self.metrics.budget_missed.increment(1);
        }
        self.metrics.result_latency.record(elapsed);
        self.stats.record(&timings.into());
        Stats::count(&self.stats.results);
        let processed = results::Processed {
            session_id: &self.session_id,
            frame_id: frame.id,
            time_in: frame.time,
            time_out: returned,
            capture_time_ms: None,
            width: frame.picture.width(),
            height: frame.picture.height(),
            model: &applied.model_id,
            detections: &inferred.detections,
            timings,
            budget_ms: applied.options.budget_ms,
            met,
            batch_size: u32::try_from(inferred.batch_size).unwrap_or(u32::MAX),
            dropped: self.stats.dropped(),
            degraded: &[],
        };
        let json = processed.to_json(applied.options.format);
        let json: Arc<str> = json.into();
        // Nobody may be listening.
        let _ = self.listeners.send(Arc::clone(&json));
        if self.outputs.try_send(Output::Result(json)).is_err() {
            self.metrics.results_dropped.increment(1);
        }
    }

    /// Follows a faster encoder at once and a slower one gradually: one slow frame, such as the first, must not make
    /// every later one count as late, since a late frame is never encoded and would never correct it.
    fn learn_encode_time(&self, took: Duration) {
        let took = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        let known = self.last_encode_us.load(Ordering::Relaxed);
        let learned = if took < known { took } else { known + (took - known) / 8 };
        self.last_encode_us.store(learned, Ordering::Relaxed);
    }

    /// What the budget leaves from a frame's arrival to its result: all but the last known time of encoding, where the
    /// frame is returned.
    fn time_for_model(&self, options: &Options) -> Duration {
        let budget = Duration::from_millis(options.budget_ms.into());
        if options.return_mode == ReturnMode::Results || !self.returns_video {
            return budget;
        }
        budget.saturating_sub(Duration::from_micros(self.last_encode_us.load(Ordering::Relaxed).into()))
    }

    fn tell(&self, output: Output) {
        if self.outputs.try_send(output).is_err() {
            self.metrics.untold.increment(1);
        }
    }

    /// Ends the session: told at once, and kept for the owner to find if its queue is full.
    fn fail(&self, reason: EndReason) {
        let _ = self.failed.set(reason);
        self.tell(Output::Failed(reason));
    }
}

struct Metrics {
    decode: Histogram,
    preprocess: Histogram,
    inference: Histogram,
    postprocess: Histogram,
    annotate: Histogram,
    encode: Histogram,
    result_latency: Histogram,
    decoded: Counter,
    budget_missed: Counter,
    superseded: Counter,
    late: Counter,
    undecodable: Counter,
    over_rate: Counter,
    model_failed: Counter,
    dropped_before_encode: Counter,
    unencodable: Counter,
    unsent: Counter,
    results_dropped: Counter,
    untold: Counter,
}

impl Metrics {
    fn new() -> Self {
        let stage = |stage: &'static str| histogram!("saccade_stage_duration_seconds", "stage" => stage);
        let dropped = |stage: &'static str, reason: &'static str| counter!("saccade_frames_dropped_total", "stage" => stage, "reason" => reason);
        Self {
            decode: stage("decode"),
            preprocess: stage("preprocess"),
            inference: stage("inference"),
            postprocess: stage("postprocess"),
            annotate: stage("annotate"),
            encode: stage("encode"),
            result_latency: histogram!("saccade_frame_latency_seconds", "path" => "result"),
            decoded: counter!("saccade_frames_total", "stage" => "decode", "outcome" => "done"),
            budget_missed: counter!("saccade_budget_missed_total"),
            superseded: dropped("infer", "superseded"),
            late: dropped("infer", "late"),
            undecodable: dropped("decode", "error"),
            over_rate: dropped("decode", "fps_limit"),
            model_failed: dropped("infer", "error"),
            dropped_before_encode: dropped("encode", "superseded"),
            unencodable: dropped("encode", "error"),
            unsent: dropped("egress", "queue_full"),
            results_dropped: dropped("results", "queue_full"),
            untold: dropped("pipeline", "queue_full"),
        }
    }
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

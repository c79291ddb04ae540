mod decoding;
mod finishing;

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use metrics::{Counter, Histogram, counter, histogram};
use saccade_signaling::{Options, ReturnMode};
use tokio::sync::{broadcast, mpsc};

use self::decoding::DecodeStage;
use self::finishing::Finisher;
use super::stats::Stats;
use super::workers::{Lane, Workers};
use crate::infer;
use crate::media::{Codec, EncodedFrame, FramePool};
use crate::queue::{Fifo, Full, Mailbox};
use crate::session::EndReason;
use crate::{clock, decode};

/// Access units that wait for the decoder; one more skips to the next keyframe.
const DECODE_QUEUE: usize = 4;
/// Spare pictures kept for reuse: one in the decoder, one waiting, one in the model, one being drawn.
const SPARE_PICTURES: usize = 4;
/// Runs of the model that may fail one after the other before the session ends.
const MAX_MODEL_FAILURES: u32 = 30;

/// What the stages tell the session's owner. Whatever must not be lost with a full queue is also kept where the owner
/// finds it: [`Stages::failed`], [`Stages::take_keyframe_need`], [`Stats::resolution`].
#[derive(Debug)]
pub(super) enum Output {
    /// A frame was decoded.
    Decoded,
    /// The decoder cannot go on without a keyframe: see [`Stages::take_keyframe_need`].
    NeedKeyframe,
    /// A result, ready to be sent.
    Result(Arc<str>),
    /// A frame to send back.
    Encoded(EncodedFrame),
    /// The session cannot go on: see [`Stages::failed`].
    Failed,
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
    pub(super) model_id: Arc<str>,
}

/// The session's place at the model in force.
struct Place {
    slot: infer::Slot,
    params: Arc<infer::Params>,
}

/// What a model found in a frame, and which model that was.
struct Answered {
    inferred: infer::Inferred,
    model_id: Arc<str>,
    /// When.
    at: Instant,
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
    answered: Mailbox<Answered>,
    /// Where decoded frames go. Changed together with `applied` while it is locked, so that no frame meets one model
    /// with the options of another.
    place: Mutex<Option<Place>>,
    outputs: mpsc::Sender<Output>,
    listeners: broadcast::Sender<Arc<str>>,
    failed: OnceLock<EndReason>,
    /// The decoder waits for a keyframe, and nobody was told yet.
    keyframe_needed: AtomicBool,
    /// The next returned frame shall be a keyframe.
    keyframe_wanted: AtomicBool,
    bitrate: AtomicU32,
    annotate_time: Learned,
    encode_time: Learned,
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
            units: Fifo::new("decode", DECODE_QUEUE),
            answered: Mailbox::new("annotate"),
            place: Mutex::default(),
            outputs: config.outputs,
            listeners: config.listeners,
            failed: OnceLock::new(),
            keyframe_needed: AtomicBool::new(false),
            keyframe_wanted: AtomicBool::new(false),
            bitrate: AtomicU32::new(config.bitrate),
            annotate_time: Learned::default(),
            encode_time: Learned::default(),
            metrics: Metrics::new(),
        });
        let finish = {
            let (mut finisher, failed) = (Finisher::new(Arc::clone(&shared), config.codec), Arc::clone(&shared));
            workers.lane(move || finisher.step(), move || failed.fail(EndReason::Internal))
        };
        let decode = {
            let (mut stage, failed) = (DecodeStage::new(Arc::clone(&shared), decoder), Arc::clone(&shared));
            workers.lane(move || stage.step(), move || failed.fail(EndReason::Internal))
        };
        let stages = Self { shared, decode, finish };
        let applied = stages.shared.applied.load_full();
        *stages.shared.place() = Some(stages.take_place(&applied));
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

    /// Puts other options in force, from the next frame on.
    pub(super) fn apply(&self, applied: Applied) {
        let mut place = self.shared.place();
        let before = self.shared.applied.load_full();
        match place.as_mut() {
            Some(place) if Arc::ptr_eq(&before.model, &applied.model) => place.params = Arc::clone(&applied.params),
            // The old place goes first: no frame of it is answered once there is a new one.
            Some(_) => {
                *place = None;
                *place = Some(self.take_place(&applied));
            }
            None => {}
        }
        let starts_video = before.options.return_mode != applied.options.return_mode;
        self.shared.applied.store(Arc::new(applied));
        drop(place);
        if starts_video {
            self.force_keyframe();
        }
    }

    /// Whether the decoder has come to need a keyframe since this was last asked.
    pub(super) fn take_keyframe_need(&self) -> bool {
        self.shared.keyframe_needed.swap(false, Ordering::Relaxed)
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
        *self.shared.place() = None;
        self.decode.close();
        self.finish.close();
    }

    fn take_place(&self, applied: &Applied) -> Place {
        let (shared, finish) = (Arc::clone(&self.shared), Arc::clone(&self.finish));
        let model_id = Arc::clone(&applied.model_id);
        let (mut failures, mut text) = (0, Vec::new());
        let slot = applied.model.attach(infer::Priority::Normal, move |outcome| {
            match outcome {
                infer::Outcome::Done(inferred) => {
                    failures = 0;
                    Stats::count(&shared.stats.inferred);
                    shared.metrics.preprocess.record(inferred.timing.preprocess);
                    shared.metrics.inference.record(inferred.timing.inference);
                    shared.metrics.postprocess.record(inferred.timing.postprocess);
                    if let Some(replaced) =
                        shared.answered.put(Answered { inferred, model_id: Arc::clone(&model_id), at: clock::now() })
                    {
                        // Its picture is too old to return, its result is not.
                        shared.metrics.dropped_before_encode.increment(1);
                        shared.emit_result(&replaced, None, Duration::ZERO, &mut text);
                        shared.pool.give(replaced.inferred.frame.picture);
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
        Place { slot, params: Arc::clone(&applied.params) }
    }
}

impl Shared {
    fn place(&self) -> MutexGuard<'_, Option<Place>> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the budget leaves from a frame's arrival to its result: all but what drawing and encoding take, where the
    /// frame is returned.
    fn time_for_model(&self, options: &Options) -> Duration {
        let budget = Duration::from_millis(options.budget_ms.into());
        if options.return_mode == ReturnMode::Results || !self.returns_video {
            return budget;
        }
        budget.saturating_sub(self.annotate_time.get() + self.encode_time.get())
    }

    fn tell(&self, output: Output) {
        if self.outputs.try_send(output).is_err() {
            self.metrics.untold.increment(1);
        }
    }

    /// Ends the session: told at once, and kept for the owner to find if its queue is full.
    fn fail(&self, reason: EndReason) {
        let _ = self.failed.set(reason);
        self.tell(Output::Failed);
    }
}

/// A running estimate of how long a stage takes.
///
/// It follows a faster run at once and a slower one gradually: one slow frame, such as the first, must not make every
/// later one count as late, since a late frame never gets that far and would never correct it.
#[derive(Debug, Default)]
struct Learned {
    micros: AtomicU32,
}

impl Learned {
    fn learn(&self, took: Duration) {
        let took = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        let known = self.micros.load(Ordering::Relaxed);
        let learned = if took < known { took } else { known + (took - known) / 8 };
        self.micros.store(learned, Ordering::Relaxed);
    }

    fn get(&self) -> Duration {
        Duration::from_micros(self.micros.load(Ordering::Relaxed).into())
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
    decode_wait: Histogram,
    annotate_wait: Histogram,
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
            decode_wait: histogram!("saccade_queue_wait_seconds", "queue" => "decode"),
            annotate_wait: histogram!("saccade_queue_wait_seconds", "queue" => "annotate"),
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

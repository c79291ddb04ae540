mod answering;
mod applied;
mod crew;
mod decoding;
mod drawing;
mod finishing;
mod metrics;
mod moving;
mod still;
mod traced;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use saccade_signaling as wire;
use tokio::sync::{broadcast, mpsc};

use self::answering::Answers;
pub(super) use self::applied::{Applied, Takers};
use self::crew::Crew;
pub(super) use self::crew::Orders;
use self::decoding::DecodeStage;
use self::finishing::Finisher;
use self::metrics::Metrics;
use self::moving::Retiring;
use self::still::Still;
pub(super) use self::traced::Traced;
use super::gpu::{Decoder, Gpu};
use super::ladders::{Footing, Ladders};
use super::load::{Demand, Load};
use super::stats::Stats;
use super::watching;
use super::workers::{Lane, Workers};
use crate::degrade::Rung;
use crate::encode::rate::Economy;
use crate::estimate::SharedEstimate;
use crate::frame::Frame;
use crate::media::{Codec, EncodedFrame, FramePool, MediaTime};
use crate::queue::{Fifo, Full, Mailbox};
use crate::rtc::Peer;
use crate::session::EndReason;
use crate::tracker::{self, Tracker};
use crate::zones::Watch;
use crate::{clock, decode, degrade, infer, stillness};

/// Access units that wait for the decoder; one more skips to the next keyframe.
const DECODE_QUEUE: usize = 4;
/// Events that wait for the session's owner.
const EVENT_QUEUE: usize = 256;
/// Spare pictures kept for reuse: one in the decoder, one waiting, one in the model, one being drawn, one halved.
const SPARE_PICTURES: usize = 5;

/// Share of the budget beyond which an idle machine's own time says more of how long a frame took than load does.
const TIGHT: f32 = 0.65;

/// Keyframes that receivers ask for within this time are one.
const KEYFRAME_INTERVAL: Duration = Duration::from_millis(300);

/// A frame that lies farther back than this is of a stream that began anew.
const LONGEST_BACK: Duration = Duration::from_secs(10);

/// What the stages tell the session's owner. Whatever must not be lost with a full queue is also kept where the owner
/// finds it: [`Stages::failed`], [`Stages::take_keyframe_need`], [`Stats::resolution`].
#[derive(Debug)]
pub(super) enum Output {
    /// The first frame was decoded, or the first of another size; told again now and then.
    Decoded,
    /// The decoder cannot go on without a keyframe: see [`Stages::take_keyframe_need`].
    NeedKeyframe,
    /// A result, ready to be sent.
    Result(Arc<str>),
    /// A frame to send back.
    Encoded {
        /// The frame.
        unit: EncodedFrame,
        /// How long it was decoded, drawn on and encoded, without waiting.
        worked: Duration,
    },
    /// Something happened in a zone or on a line: see [`Stages::next_event`].
    Events,
    /// The session cannot go on: see [`Stages::failed`].
    Failed,
}

/// The session's place at the model in force.
struct Place {
    crew: Crew,
    orders: Arc<Orders>,
    footing: Arc<Footing>,
    /// Models that the session moves away from, until they have answered.
    retiring: Option<Retiring>,
    /// The newest frame that waits for that.
    held: Option<Frame>,
}

/// Numbers of the frames that were handed to the model and of which it is not known yet what becomes of them: one
/// waits and one is being run, at most.
#[derive(Debug, Default)]
struct Pending(Mutex<Vec<u64>>);

impl Pending {
    fn add(&self, frame_id: u64) {
        self.lock().push(frame_id);
    }

    fn remove(&self, frame_id: u64) {
        self.lock().retain(|id| *id != frame_id);
    }

    fn clear(&self) {
        self.lock().clear();
    }

    fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Whether there is none but this one.
    fn is_all(&self, only: Option<u64>) -> bool {
        self.lock().iter().all(|id| Some(*id) == only)
    }

    /// The oldest; the largest number if there is none.
    fn oldest(&self) -> u64 {
        self.lock().iter().copied().min().unwrap_or(u64::MAX)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is in a frame, and which model says so.
struct Answered {
    inferred: infer::Inferred,
    /// Width and height of the frame as it came.
    size: [u32; 2],
    model_id: Arc<str>,
    /// When.
    at: Instant,
    /// It is the answer to an earlier frame, given again.
    reused: bool,
}

impl Answered {
    fn new(inferred: infer::Inferred, model_id: Arc<str>) -> Self {
        let size = [inferred.frame.picture.width(), inferred.frame.picture.height()];
        Self { inferred, size, model_id, at: clock::now(), reused: false }
    }
}

/// A frame that goes back without a result of its model.
struct Passing {
    frame: Frame,
    /// What the tracker expects in it is a result of its own.
    tells: bool,
}

/// Numbers of the last frames of a `predicted` session that were not returned: their results say so.
#[derive(Debug, Default)]
struct Unreturned(Mutex<VecDeque<u64>>);

impl Unreturned {
    /// As many frames as can pass while one is in the model.
    const KEPT: usize = 64;

    fn add(&self, frame_id: u64) {
        let mut ids = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if ids.len() == Self::KEPT {
            ids.pop_front();
        }
        ids.push_back(frame_id);
    }

    fn contains(&self, frame_id: u64) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&frame_id)
    }
}

/// A session's tracker. It is kept while it is switched off, so that no id is given twice.
struct Tracking {
    tracker: Tracker,
    on: bool,
}

impl Tracking {
    fn new(on: bool) -> Self {
        Self { tracker: Tracker::new(tracker::Config::default()), on }
    }

    /// The tracker, if the session wants one.
    fn tracker(&mut self) -> Option<&mut Tracker> {
        self.on.then_some(&mut self.tracker)
    }

    /// Forgets what is in sight; ids go on from there.
    fn restart(&mut self, on: bool) {
        self.tracker.reset();
        self.on = on;
    }
}

/// What the stages of one session share with each other.
struct Shared {
    session_id: String,
    stats: Arc<Stats>,
    applied: ArcSwap<Applied>,
    /// Whether the publisher takes video back.
    returns_video: bool,
    /// Frames a second that are processed at most.
    max_fps: f64,
    pool: Arc<FramePool>,
    gpu: Option<Arc<Gpu>>,
    units: Fifo<EncodedFrame>,
    answered: Mailbox<Answered>,
    /// Frames that wait for no result of their own: the tracker says what is in them.
    passing: Mailbox<Passing>,
    /// What those that are not returned at once wait for.
    pending: Pending,
    unreturned: Unreturned,
    /// RTP timestamp of the last frame that was answered or goes back without an answer.
    shown: AtomicU32,
    /// Frames with this number and higher ones have no result yet.
    told: AtomicU64,
    /// Follows objects from frame to frame.
    tracking: Mutex<Tracking>,
    /// Watches where they go.
    watch: Mutex<Watch>,
    events: Fifo<wire::Event>,
    /// Gives answers again while the scene stands still.
    still: Still,
    /// Where the session stands on the ladder of its model.
    footing: ArcSwap<Footing>,
    ladders: Arc<Ladders>,
    /// What all sessions cost, and what this one asks for.
    load: Arc<Load>,
    demand: Arc<Demand>,
    /// Where decoded frames go. Changed together with `applied` while it is locked, so that no frame meets one model
    /// with the options of another.
    place: Mutex<Option<Place>>,
    /// The session moves to other models, and those before have frames yet.
    is_moving: AtomicBool,
    /// The last frame that a model did not take since it takes no more work.
    stranded: Mutex<Option<Frame>>,
    /// The lane of the decoder.
    decode: OnceLock<Weak<Lane>>,
    outputs: mpsc::Sender<Output>,
    listeners: broadcast::Sender<Arc<str>>,
    failed: OnceLock<EndReason>,
    /// The decoder waits for a keyframe, and nobody was told yet.
    keyframe_needed: AtomicBool,
    /// The next returned frame shall be a keyframe.
    keyframe_wanted: AtomicBool,
    /// When a receiver last asked for one.
    keyframe_asked: Mutex<Option<Instant>>,
    bitrate: AtomicU32,
    /// What the path to the publisher, or to viewers, has the video do without.
    economy: AtomicU32,
    /// The publisher.
    peer: Arc<dyn Peer>,
    annotate_time: SharedEstimate,
    encode_time: SharedEstimate,
    metrics: Metrics,
    traced: Traced,
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
    /// What decodes, draws and encodes, where it can.
    pub(super) gpu: Option<Arc<Gpu>>,
    /// Frames a second that are processed at most.
    pub(super) max_fps: f64,
    /// When the scene counts as still, if answers are given again then.
    pub(super) still: Option<stillness::Settings>,
    /// Bits a second of the returned video, to begin with.
    pub(super) bitrate: u32,
    /// The publisher: what goes back to it waits until its path has room.
    pub(super) peer: Arc<dyn Peer>,
    /// Where the stages report to.
    pub(super) outputs: mpsc::Sender<Output>,
    /// Where results are published for other listeners.
    pub(super) listeners: broadcast::Sender<Arc<str>>,
    /// What is counted.
    pub(super) stats: Arc<Stats>,
    /// The ladders of all models.
    pub(super) ladders: Arc<Ladders>,
    /// What all sessions cost.
    pub(super) load: Arc<Load>,
    /// What this one asks for.
    pub(super) demand: Arc<Demand>,
    /// Traces some of the frames.
    pub(super) traced: Traced,
}

impl Stages {
    /// Opens the decoder and takes places on the codec threads and with the model.
    ///
    /// # Errors
    /// [`decode::Error`] when there is no decoder for the codec.
    pub(super) fn start(workers: &Workers, config: Config, applied: Applied) -> Result<Self, decode::Error> {
        let pool = Arc::new(FramePool::new(SPARE_PICTURES));
        let decoder = Decoder::new(config.gpu.as_deref(), config.codec, config.limits, Arc::clone(&pool))?;
        let takers = Takers { publisher: config.returns_video, viewers: 0 };
        let footing = join(&config.ladders, &applied, takers);
        let shared = Arc::new(Shared {
            session_id: config.session_id,
            stats: config.stats,
            watch: Mutex::new(Watch::new(watching::plan(&applied.options))),
            events: Fifo::new("events", EVENT_QUEUE),
            tracking: Mutex::new(Tracking::new(applied.options.track)),
            still: Still::new(config.still),
            footing: ArcSwap::new(footing),
            ladders: config.ladders,
            load: config.load,
            demand: config.demand,
            applied: ArcSwap::from_pointee(applied),
            returns_video: config.returns_video,
            max_fps: config.max_fps,
            pool,
            gpu: config.gpu,
            units: Fifo::new("decode", DECODE_QUEUE),
            answered: Mailbox::new("annotate"),
            passing: Mailbox::new("annotate"),
            pending: Pending::default(),
            unreturned: Unreturned::default(),
            shown: AtomicU32::new(0),
            told: AtomicU64::new(0),
            place: Mutex::default(),
            is_moving: AtomicBool::new(false),
            stranded: Mutex::default(),
            decode: OnceLock::new(),
            outputs: config.outputs,
            listeners: config.listeners,
            failed: OnceLock::new(),
            keyframe_needed: AtomicBool::new(false),
            keyframe_wanted: AtomicBool::new(false),
            keyframe_asked: Mutex::default(),
            bitrate: AtomicU32::new(config.bitrate),
            economy: AtomicU32::new(pack(Economy::NONE)),
            peer: config.peer,
            annotate_time: SharedEstimate::default(),
            encode_time: SharedEstimate::default(),
            metrics: Metrics::new(),
            traced: config.traced,
        });
        let finish = {
            let (mut finisher, failed) = (Finisher::new(Arc::clone(&shared), config.codec), Arc::clone(&shared));
            workers.lane(move || finisher.step(), move || failed.fail(EndReason::Internal))
        };
        let decode = {
            let stage = DecodeStage::new(Arc::clone(&shared), decoder, Arc::clone(&finish));
            let (mut stage, failed) = (stage, Arc::clone(&shared));
            workers.lane(move || stage.step(), move || failed.fail(EndReason::Internal))
        };
        let _ = shared.decode.set(Arc::downgrade(&decode));
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
        let shared = &self.shared;
        let mut place = shared.place();
        let before = shared.applied.load_full();
        if before.options.track != applied.options.track {
            shared.tracking().restart(applied.options.track);
        }
        let plan = watching::plan(&applied.options);
        if watching::plan(&before.options) != plan {
            shared.watch().configure(plan);
        }
        let same_model = before.model_id == applied.model_id && before.plan.is_same(&applied.plan);
        let takers = shared.takers();
        if !same_model || before.can(takers) != applied.can(takers) {
            shared.footing.store(join(&shared.ladders, &applied, takers));
            shared.demand.set_needs(applied.needs(takers));
        }
        match place.as_mut() {
            Some(place) if same_model => {
                place.orders = Arc::clone(&applied.orders);
                place.footing = shared.footing.load_full();
            }
            // The old place goes first; an answer that is under way there may still come.
            Some(_) => {
                *place = None;
                shared.pending.clear();
                *place = Some(self.take_place(&applied));
            }
            None => {}
        }
        if !same_model {
            shared.tracking().restart(applied.options.track);
        }
        shared.still.forget();
        let starts_video = before.options.return_mode != applied.options.return_mode;
        shared.applied.store(Arc::new(applied));
        drop(place);
        if starts_video {
            self.force_keyframe();
        }
    }

    /// Says how many watch beside the publisher: the first has frames encoded, where none were, and after the last they
    /// no longer are.
    pub(super) fn set_viewers(&self, viewers: usize) {
        let shared = &self.shared;
        let mut place = shared.place();
        let (applied, before) = (shared.applied.load_full(), shared.takers());
        shared.stats.viewers.store(viewers, Ordering::Relaxed);
        let takers = shared.takers();
        if applied.can(before) == applied.can(takers) {
            return;
        }
        shared.footing.store(join(&shared.ladders, &applied, takers));
        shared.demand.set_needs(applied.needs(takers));
        if let Some(place) = place.as_mut() {
            place.footing = shared.footing.load_full();
        }
    }

    /// Whether frames come out of the decoder.
    pub(super) fn has_frames(&self) -> bool {
        self.shared.stats.resolution().is_some()
    }

    /// Whether the publisher gets what is encoded.
    pub(super) fn gives_back(&self) -> bool {
        self.shared.applied.load().goes_back(self.shared.returns_video)
    }

    /// The models in force.
    pub(super) fn plan(&self) -> infer::Plan {
        self.shared.applied.load().plan.clone()
    }

    /// Whether the decoder has come to need a keyframe since this was last asked.
    pub(super) fn take_keyframe_need(&self) -> bool {
        self.shared.keyframe_needed.swap(false, Ordering::Relaxed)
    }

    /// The oldest event that was not asked for yet.
    pub(super) fn next_event(&self) -> Option<wire::Event> {
        self.shared.events.pop()
    }

    /// The frame that is traced.
    pub(super) fn traced(&self) -> &Traced {
        &self.shared.traced
    }

    /// Why the session cannot go on, if it cannot.
    pub(super) fn failed(&self) -> Option<EndReason> {
        self.shared.failed.get().copied()
    }

    /// Has a frame encoded as a keyframe for a receiver that asks for it. Within [`KEYFRAME_INTERVAL`] after one was asked
    /// for nothing happens, whoever asks.
    pub(super) fn request_keyframe(&self, now: Instant) {
        let mut last = self.shared.keyframe_asked.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| now >= last + KEYFRAME_INTERVAL) {
            *last = Some(now);
            self.force_keyframe();
        }
    }

    /// Has the next returned frame encoded as a keyframe.
    pub(super) fn force_keyframe(&self) {
        self.shared.keyframe_wanted.store(true, Ordering::Relaxed);
    }

    /// Bits a second of the returned video.
    pub(super) fn bitrate(&self) -> u32 {
        self.shared.bitrate.load(Ordering::Relaxed)
    }

    /// Sets the bits a second of the returned video.
    pub(super) fn set_bitrate(&self, bits_per_second: u32) {
        self.shared.bitrate.store(bits_per_second, Ordering::Relaxed);
    }

    /// Has fewer or smaller frames encoded from the next one on.
    pub(super) fn set_economy(&self, economy: Economy) {
        self.shared.economy.store(pack(economy), Ordering::Relaxed);
    }

    /// Gives every place back; the codecs are dropped on their own threads.
    pub(super) fn close(&self) {
        *self.shared.place() = None;
        self.decode.close();
        self.finish.close();
    }

    fn take_place(&self, applied: &Applied) -> Place {
        let answers = Answers::new(Arc::clone(&self.shared), Arc::clone(&self.finish));
        let crew = Crew::join(applied, answers);
        let (orders, footing) = (Arc::clone(&applied.orders), self.shared.footing.load_full());
        Place { crew, orders, footing, retiring: None, held: None }
    }
}

/// The session's place on the ladder of its model.
fn join(ladders: &Ladders, applied: &Applied, takers: Takers) -> Arc<Footing> {
    let smaller_input = matches!(applied.plan.members.as_slice(), [only] if only.smaller.is_some());
    let config = degrade::Config { instances: applied.plan.instances(), smaller_input };
    Arc::new(ladders.join(&applied.model_id, config, applied.can(takers)))
}

/// An economy as one number.
fn pack(Economy { encode_every, half_size }: Economy) -> u32 {
    encode_every << 1 | u32::from(half_size)
}

impl Shared {
    /// What is given up, for want of time or for want of bits.
    fn rung(&self) -> Rung {
        self.rung_at(&self.footing.load())
    }

    /// The same for a frame that met this footing.
    fn rung_at(&self, footing: &Footing) -> Rung {
        if !self.applied.load().gives_video(self.takers()) {
            return footing.rung();
        }
        let economy = self.economy.load(Ordering::Relaxed);
        footing.rung().and_less_video(economy >> 1, economy & 1 == 1)
    }

    fn place(&self) -> MutexGuard<'_, Option<Place>> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stranded(&self) -> MutexGuard<'_, Option<Frame>> {
        self.stranded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake_decoder(&self) {
        if let Some(decode) = self.decode.get().and_then(Weak::upgrade) {
            decode.wake();
        }
    }

    fn tracking(&self) -> MutexGuard<'_, Tracking> {
        self.tracking.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch(&self) -> MutexGuard<'_, Watch> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who takes video now.
    fn takers(&self) -> Takers {
        Takers { publisher: self.returns_video, viewers: self.stats.viewers.load(Ordering::Relaxed) }
    }

    /// What the budget leaves from a frame's arrival to its result: all but what drawing and encoding take, where the
    /// returned frame waits for its result.
    fn time_for_model(&self, applied: &Applied) -> Duration {
        let budget = Duration::from_millis(applied.options.budget_ms.into());
        if !applied.waits_for_results(self.takers()) {
            return budget;
        }
        budget.saturating_sub(self.annotate_time.upper() + self.encode_time.upper())
    }

    /// The frame of this time was answered, or goes back without an answer.
    fn shows(&self, time: MediaTime) {
        if self.since_shown(time).is_none_or(|since| !since.is_zero()) {
            self.shown.store(time.0, Ordering::Relaxed);
        }
    }

    /// How long after the last frame that is shown this one is; zero for one before it, nothing where a stream began anew.
    fn since_shown(&self, time: MediaTime) -> Option<Duration> {
        let shown = MediaTime(self.shown.load(Ordering::Relaxed));
        if time.is_newer_than(shown) {
            return Some(time.since(shown));
        }
        (shown.since(time) < LONGEST_BACK).then_some(Duration::ZERO)
    }

    fn tell(&self, output: Output) {
        if self.outputs.try_send(output).is_err() {
            self.metrics.untold.increment(1);
        }
    }

    /// Share of the budget that was left when the result of a frame was out after so long, as a sign of load: where an idle
    /// machine would take most of the budget, all of it counts as left.
    fn slack(&self, applied: &Applied, pixels: u32, took: Duration) -> f32 {
        let budget = Duration::from_millis(applied.options.budget_ms.into());
        let least = applied.least() + self.load.least(pixels, applied.waits_for_results(self.takers()));
        if least > budget.mul_f32(TIGHT) { 1.0 } else { 1.0 - took.div_duration_f32(budget) }
    }

    /// Tells the ladder of a frame that comes too late to be returned, unless an idle machine would hardly do better.
    fn tell_late(&self, applied: &Applied, now: Instant, pixels: u32) {
        let waits_for = if applied.is_predicted(self.takers()) { Duration::ZERO } else { applied.least() };
        let budget = Duration::from_millis(applied.options.budget_ms.into());
        if waits_for + self.load.least(pixels, true) <= budget.mul_f32(TIGHT) {
            self.footing.load().tell(now, degrade::Sample::NotReturned);
        }
    }

    /// Ends the session: told at once, and kept for the owner to find if its queue is full.
    fn fail(&self, reason: EndReason) {
        let _ = self.failed.set(reason);
        self.tell(Output::Failed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::{Class, Detection};

    #[test]
    fn no_id_is_given_twice_where_tracking_was_off_for_a_while() {
        let mut tracking = Tracking::new(true);
        let mut look = |on: bool, seconds: u32| {
            if on != tracking.on {
                tracking.restart(on);
            }
            let class = Class { id: 0, name: "a".into() };
            let mut found = vec![Detection {
                bbox: [10.0, 10.0, 60.0, 60.0],
                class,
                score: 0.9,
                object_id: None,
                keypoints: Vec::new(),
            }];
            if let Some(tracker) = tracking.tracker() {
                tracker.update(MediaTime(90_000 * seconds), [640, 480], 0.5, &mut found);
            }
            found[0].object_id
        };
        assert_eq!([look(true, 1), look(false, 2), look(true, 3)], [Some(1), None, Some(2)]);
    }
}

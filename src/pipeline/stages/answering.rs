use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use super::crew::Comparison;
use super::{Answered, Output, Passing, Shared};
use crate::clock;
use crate::degrade::Sample;
use crate::frame::Frame;
use crate::infer::{self, Outcome};
use crate::media::FramePool;
use crate::pipeline::stats::Stats;
use crate::pipeline::watching;
use crate::pipeline::workers::Lane;
use crate::session::EndReason;
use crate::zones;

/// Runs of the model that may fail one after the other before the session ends.
const MAX_MODEL_FAILURES: u32 = 30;
/// How often the log is told of them.
const WARNING_PERIOD: Duration = Duration::from_secs(1);

/// What happens on the model's thread to each frame that it took: objects get their ids, in the order of the frames,
/// and the frame goes on to be drawn.
pub(super) struct Answers {
    shared: Arc<Shared>,
    finish: Arc<Lane>,
    /// What a shadow finds in the same frames is compared with these answers.
    comparison: Option<Arc<Comparison>>,
    failures: u32,
    /// When the log was last told of a failure.
    warned: Option<Instant>,
    /// Text of the last result that was made here.
    text: Vec<u8>,
    /// What happened in the last frame; kept for its memory.
    happened: Vec<zones::Event>,
}

impl Answers {
    pub(super) fn new(shared: Arc<Shared>, finish: Arc<Lane>) -> Self {
        Self { shared, finish, comparison: None, failures: 0, warned: None, text: Vec::new(), happened: Vec::new() }
    }

    /// Has these answers compared with a shadow's.
    pub(super) fn compare_with(&mut self, comparison: Option<Arc<Comparison>>) {
        self.comparison = comparison;
    }

    /// Spare pictures of the session.
    pub(super) fn pool(&self) -> Arc<FramePool> {
        Arc::clone(&self.shared.pool)
    }

    /// What became of a frame, and which model says so.
    pub(super) fn handle(&mut self, outcome: Outcome, model_id: &Arc<str>) {
        let shared = Arc::clone(&self.shared);
        let _guard = FailOnPanic(&shared);
        let frame_id = match outcome {
            Outcome::Done(inferred) => {
                let id = inferred.frame.id;
                self.done(inferred, model_id);
                id
            }
            Outcome::Late(frame) => {
                Stats::count(&shared.stats.late);
                shared.metrics.late.increment(1);
                shared.traced.no_result(frame.id, "late");
                // Where even an idle machine would be too late, giving something up helps nobody.
                let time = frame.deadline.saturating_duration_since(frame.decoded_at);
                if time >= shared.applied.load().least() {
                    shared.footing.load().tell(clock::now(), Sample::Late);
                }
                frame.picture.recycle(&shared.pool);
                frame.id
            }
            Outcome::Failed(frame, error) => {
                let id = frame.id;
                shared.traced.no_result(id, "model_failed");
                match error {
                    infer::Error::NoRoom { .. } | infer::Error::Remote { .. } => self.no_room(frame, &error),
                    infer::Error::NotReady => self.stranded(frame),
                    error => self.failed(Some(frame), &error),
                }
                id
            }
        };
        // After the answer is in its mailbox: frames behind it must not overtake it.
        shared.pending.remove(frame_id);
        self.finish.wake();
        if shared.is_moving.load(Ordering::Acquire) {
            shared.wake_decoder();
        }
    }

    fn done(&mut self, mut inferred: infer::Inferred, model_id: &Arc<str>) {
        self.failures = 0;
        let shared = &self.shared;
        shared.shows(inferred.frame.time);
        Stats::count(&shared.stats.inferred);
        shared.metrics.preprocess.record(inferred.timing.preprocess);
        shared.metrics.inference.record(inferred.timing.inference);
        shared.metrics.postprocess.record(inferred.timing.postprocess);
        shared.traced.inferred(&inferred);
        shared.still.answered(&mut inferred);
        shared.follow(&mut inferred, &mut self.happened);
        if let Some(comparison) = &self.comparison {
            let threshold = shared.applied.load().options.score_threshold;
            comparison.ours(inferred.frame.id, &inferred.detections, threshold);
        }
        shared.show(Answered::new(inferred, Arc::clone(model_id)), &mut self.text);
    }

    /// The model takes no more work: the frame waits for the session to move to another version. The one that waited before
    /// it has failed.
    fn stranded(&mut self, frame: Frame) {
        let before = self.shared.stranded().replace(frame);
        self.failed(before, &infer::Error::NotReady);
    }

    fn failed(&mut self, frame: Option<Frame>, error: &infer::Error) {
        self.failures += 1;
        let shared = Arc::clone(&self.shared);
        if let Some(frame) = frame {
            self.note_failure(error);
            frame.picture.recycle(&shared.pool);
        }
        if self.failures >= MAX_MODEL_FAILURES {
            shared.fail(EndReason::ModelFailed);
        }
    }

    /// The device had no room for a frame, and may have later: the frame goes back without a result, and the session goes on.
    fn no_room(&mut self, frame: Frame, error: &infer::Error) {
        self.note_failure(error);
        let shared = &self.shared;
        let (applied, takers) = (shared.applied.load(), shared.takers());
        // A predicted frame went back already.
        if applied.gives_video(takers) && !applied.is_predicted(takers) {
            // Of objects that nobody has looked for in a while nobody can say where they are, so that nothing is told.
            let passing = Passing { frame, tells: false };
            shared.pass(clock::now(), passing, &shared.footing.load(), true, false);
        } else {
            frame.picture.recycle(&shared.pool);
        }
    }

    /// A model failed on a frame, which others may have answered.
    pub(super) fn note_failure(&mut self, error: &infer::Error) {
        let shared = &self.shared;
        match error {
            infer::Error::NoRoom { .. } => shared.metrics.no_room.increment(1),
            _ => shared.metrics.model_failed.increment(1),
        }
        let now = clock::now();
        if self.warned.is_none_or(|at| now.saturating_duration_since(at) >= WARNING_PERIOD) {
            self.warned = Some(now);
            let (session_id, failures) = (&shared.session_id, self.failures);
            if let infer::Error::NoRoom { .. } = error {
                tracing::warn!(session_id, %error, "the GPU has no room for a frame");
            } else {
                tracing::warn!(session_id, %error, failures, "the model failed on a frame");
            }
        }
    }
}

/// Ends the session when what happens on the model's thread panics: the model catches that, and goes on without the
/// session.
struct FailOnPanic<'a>(&'a Shared);

impl Drop for FailOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.fail(EndReason::Internal);
        }
    }
}

impl Shared {
    /// Has an answer of an earlier frame told and drawn for one that looks the same. There is none under way.
    pub(super) fn answer_again(&self, mut inferred: infer::Inferred, model_id: &Arc<str>) {
        self.shows(inferred.frame.time);
        self.follow(&mut inferred, &mut Vec::new());
        let answered = Answered { reused: true, ..Answered::new(inferred, Arc::clone(model_id)) };
        self.show(answered, &mut Vec::new());
    }

    /// Has an answer drawn; the text of the one that it replaces, if there is one, is made in `text`.
    fn show(&self, answered: Answered, text: &mut Vec<u8>) {
        // Told before the newer one can be: results come in the order of their frames.
        if let Some(replaced) = self.answered.take() {
            // If its picture was to wait for it, that is too old to return; the result is not.
            let (applied, frame) = (self.applied.load(), &replaced.inferred.frame);
            let predicted = applied.is_predicted(self.takers());
            let footing = self.footing.load();
            if !predicted && applied.gives_video(self.takers()) && self.rung_at(&footing).returns(frame.id) {
                self.metrics.dropped_before_encode.increment(1);
                footing.tell(clock::now(), Sample::NotReturned);
            }
            let returned = (predicted && !self.unreturned.contains(frame.id)).then_some(frame.time);
            self.emit_result(&replaced, returned, Duration::ZERO, text);
            replaced.inferred.frame.picture.recycle(&self.pool);
        }
        // Nobody else puts one there.
        drop(self.answered.put(answered));
    }

    /// Gives the objects of a frame their ids, leaves out what was too unsure to be reported, and watches where they go.
    fn follow(&self, inferred: &mut infer::Inferred, happened: &mut Vec<zones::Event>) {
        let threshold = self.applied.load().options.score_threshold;
        let (time, picture) = (inferred.frame.time, &inferred.frame.picture);
        let size = [picture.width(), picture.height()];
        if let Some(tracker) = self.tracking().tracker() {
            tracker.update(time, size, threshold, &mut inferred.detections);
        } else {
            // The tracker may have been switched off while the frame was in the model.
            inferred.detections.retain(|detection| detection.score >= threshold);
        }
        let mut watch = self.watch();
        if watch.is_empty() {
            return;
        }
        watch.update(time, size, &inferred.detections, happened);
        drop(watch);
        if happened.is_empty() {
            return;
        }
        for event in happened.drain(..) {
            if self.events.push(watching::told(event, time)).is_err() {
                self.metrics.events_dropped.increment(1);
            }
        }
        // Where its queue is full, the owner looks at its next tick.
        self.tell(Output::Events);
    }
}

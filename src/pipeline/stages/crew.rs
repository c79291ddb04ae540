use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use metrics::{Counter, Histogram, counter, histogram};

use super::Applied;
use super::answering::Answers;
use crate::frame::Frame;
use crate::infer::fusion::agreement;
use crate::infer::{self, Inferred, Member, Model, Outcome, Params, Plan, Prepared, Priority, Slot, Twins};
use crate::media::{Detection, FramePool};

/// Frames of which a shadow's answer and the session's own wait for each other.
const COMPARED: usize = 8;

/// The session's place at the models that its frames go through.
pub(super) struct Crew {
    front: Front,
    shadow: Option<Shadow>,
    /// Where two of them take the same input.
    twins: Option<Twins>,
}

enum Front {
    One {
        slot: Slot,
        smaller: Option<Slot>,
        /// Which of them frames go to.
        takes_smaller: bool,
    },
    Several(Arc<Joint>),
}

/// What a session wants of each of its models.
#[derive(Debug)]
pub(in crate::pipeline) struct Orders {
    /// Of the answer, in the plan's class ids.
    whole: Params,
    /// Of each member, in its own.
    members: Vec<Arc<Params>>,
    shadow: Option<Arc<Params>>,
}

/// The answers of a session, which several models may give.
type SharedAnswers = Arc<Mutex<Answers>>;

impl Orders {
    /// What `params`, in the plan's class ids, mean for the plan's models.
    pub(in crate::pipeline) fn new(plan: &Plan, params: Params) -> Self {
        let members = plan.members.iter().map(|member| Arc::new(member.params(&params))).collect();
        let shadow = plan.shadow_params(&params).map(Arc::new);
        Self { whole: params, members, shadow }
    }

    /// Leaves what the session wants to hear of, of these objects, best score first.
    pub(super) fn keep_wanted(&self, detections: &mut Vec<Detection>, threshold: f32) {
        let Params { classes, max_detections, .. } = &self.whole;
        detections.retain(|found| {
            found.score >= threshold && classes.as_ref().is_none_or(|classes| classes.contains(&found.class.id))
        });
        detections.truncate(*max_detections);
    }
}

impl Crew {
    /// Takes a place at each model of the plan; `answers` hears what became of each frame.
    pub(super) fn join(applied: &Applied, mut answers: Answers) -> Self {
        let Applied { plan, orders, model_id: name, priority, .. } = applied;
        let models: Vec<&Model> = plan.models().collect();
        let twins = Twins::among(&models);
        let threshold = applied.options.score_threshold;
        let shadow = plan.shadow.as_ref().map(|model| Shadow::new(model, threshold, answers.pool()));
        answers.compare_with(shadow.as_ref().map(|shadow| Arc::clone(&shadow.comparison)));
        let answers = Arc::new(Mutex::new(answers));
        let front = match plan.members.as_slice() {
            [only] => Front::One {
                slot: place(&only.model, only, *priority, &answers),
                smaller: only.smaller.as_ref().map(|model| place(model, only, *priority, &answers)),
                takes_smaller: false,
            },
            _ => Front::Several(Joint::new(plan.clone(), Arc::clone(name), *priority, answers)),
        };
        debug_assert_eq!(orders.members.len(), plan.members.len(), "orders are of this plan");
        Self { front, shadow, twins }
    }

    /// Has the model with the smaller input take the next frames, or the other one again, where there is one. Says whether
    /// it may have the next frame: not while the one before it still has some (`idle` is false), whose answers would be
    /// overtaken.
    pub(super) fn choose(&mut self, smaller_input: bool, idle: bool) -> bool {
        let Front::One { smaller: Some(_), takes_smaller, .. } = &mut self.front else { return true };
        if *takes_smaller != smaller_input && !idle {
            return false;
        }
        *takes_smaller = smaller_input;
        true
    }

    /// Hands a frame to the models. What comes back is not going to be answered: the frame that this one superseded, or
    /// this one itself once there is no model.
    #[must_use = "the returned frame is dropped and has to be counted"]
    pub(super) fn submit(&self, frame: Frame, orders: &Arc<Orders>) -> Option<Frame> {
        let prepared = self.twins.as_ref().map(Twins::prepare);
        if let Some((shadow, params)) = self.shadow.as_ref().zip(orders.shadow.as_ref()) {
            shadow.submit(frame.clone(), Arc::clone(params), prepared.clone());
        }
        match &self.front {
            Front::One { slot, smaller, takes_smaller } => {
                let slot = smaller.as_ref().filter(|_| *takes_smaller).unwrap_or(slot);
                slot.submit_prepared(frame, Arc::clone(orders.members.first()?), prepared)
            }
            Front::Several(joint) => joint.submit(Waiting { frame, orders: Arc::clone(orders), prepared }),
        }
    }
}

/// A place at one model that answers by itself.
fn place(model: &Arc<Model>, member: &Member, priority: Priority, answers: &SharedAnswers) -> Slot {
    let (member, answers, id) = (member.clone(), Arc::clone(answers), Arc::from(model.id()));
    model.attach(priority, move |mut outcome| {
        if let Outcome::Done(inferred) = &mut outcome {
            member.rename(&mut inferred.detections);
            member.rename_overall(inferred.overall.as_mut());
        }
        answers.lock().unwrap_or_else(PoisonError::into_inner).handle(outcome, &id);
    })
}

/// Several models that answer each frame together: all of them are asked about one frame, the next one waits, and is
/// replaced by a newer one, until the last has answered.
struct Joint {
    plan: Plan,
    slots: OnceLock<Vec<Slot>>,
    state: Mutex<State>,
    answers: SharedAnswers,
    /// What results name as their model.
    name: Arc<str>,
}

#[derive(Default)]
struct State {
    asked: Option<Asked>,
    waiting: Option<Waiting>,
}

/// A frame that is to be answered together.
struct Waiting {
    frame: Frame,
    orders: Arc<Orders>,
    prepared: Option<Arc<Prepared>>,
}

/// A frame that the members are asked about.
struct Asked {
    frame_id: u64,
    orders: Arc<Orders>,
    outcomes: Vec<Option<Outcome>>,
}

impl Asked {
    fn new(waiting: &Waiting) -> Self {
        let orders = Arc::clone(&waiting.orders);
        Self { frame_id: waiting.frame.id, outcomes: orders.members.iter().map(|_| None).collect(), orders }
    }

    fn is_answered(&self) -> bool {
        self.outcomes.iter().all(Option::is_some)
    }

    /// Why members have no answer where others do.
    fn failures(&self) -> Vec<infer::Error> {
        let outcomes = || self.outcomes.iter().flatten();
        if !outcomes().any(|outcome| matches!(outcome, Outcome::Done(_))) {
            return Vec::new();
        }
        let failed =
            |outcome: &Outcome| if let Outcome::Failed(_, error) = outcome { Some(error.clone()) } else { None };
        outcomes().filter_map(failed).collect()
    }

    /// One outcome of all: the fused detections of those that answered, if any did.
    fn combine(self, plan: &Plan) -> Option<Outcome> {
        let mut answer: Option<Inferred> = None;
        let mut found: Vec<Option<Vec<Detection>>> = Vec::with_capacity(self.outcomes.len());
        let mut without = None;
        for (member, outcome) in plan.members.iter().zip(self.outcomes.into_iter().flatten()) {
            found.push(None);
            match outcome {
                Outcome::Done(mut inferred) => {
                    let mut detections = std::mem::take(&mut inferred.detections);
                    member.rename(&mut detections);
                    *found.last_mut()? = Some(detections);
                    answer = Some(match answer {
                        Some(other) => slower(other, inferred),
                        None => inferred,
                    });
                }
                other => without = Some(other),
            }
        }
        let Some(mut answer) = answer else { return without };
        let lists: Vec<_> = found.iter().map(Option::as_deref).collect();
        answer.detections = plan.fuse(&lists, &self.orders.whole);
        Some(Outcome::Done(answer))
    }
}

/// Members work side by side, so that the slower one says where the time went.
fn slower(a: Inferred, b: Inferred) -> Inferred {
    let met = a.met && b.met;
    let spent =
        |one: &Inferred| one.timing.queue + one.timing.preprocess + one.timing.inference + one.timing.postprocess;
    let slower = if spent(&b) > spent(&a) { b } else { a };
    Inferred { met, ..slower }
}

impl Joint {
    fn new(plan: Plan, name: Arc<str>, priority: Priority, answers: SharedAnswers) -> Arc<Self> {
        let joint = Arc::new(Self { plan, slots: OnceLock::new(), state: Mutex::default(), answers, name });
        let slot = |(index, member): (usize, &Member)| {
            let joint = Arc::downgrade(&joint);
            member.model.attach(priority, move |outcome| {
                if let Some(joint) = Weak::upgrade(&joint) {
                    joint.take(index, outcome);
                }
            })
        };
        let _ = joint.slots.set(joint.plan.members.iter().enumerate().map(slot).collect());
        joint
    }

    fn submit(&self, waiting: Waiting) -> Option<Frame> {
        let mut state = self.state();
        if state.asked.is_some() {
            return state.waiting.replace(waiting).map(|replaced| replaced.frame);
        }
        state.asked = Some(Asked::new(&waiting));
        drop(state);
        self.ask(&waiting);
        None
    }

    fn ask(&self, Waiting { frame, orders, prepared }: &Waiting) {
        let slots = self.slots.get().map(Vec::as_slice).unwrap_or_default();
        for (index, (slot, params)) in slots.iter().zip(&orders.members).enumerate() {
            if let Some(refused) = slot.submit_prepared(frame.clone(), Arc::clone(params), prepared.clone()) {
                self.take(index, Outcome::Failed(refused, infer::Error::Closed));
            }
        }
    }

    fn take(&self, index: usize, outcome: Outcome) {
        let id = match &outcome {
            Outcome::Done(inferred) => inferred.frame.id,
            Outcome::Late(frame) | Outcome::Failed(frame, _) => frame.id,
        };
        let mut state = self.state();
        let Some(asked) = state.asked.as_mut().filter(|asked| asked.frame_id == id) else { return };
        if let Some(place) = asked.outcomes.get_mut(index) {
            *place = Some(outcome);
        }
        if !asked.is_answered() {
            return;
        }
        let answered = state.asked.take();
        let next = state.waiting.take();
        state.asked = next.as_ref().map(Asked::new);
        drop(state);
        let failures = answered.as_ref().map(Asked::failures).unwrap_or_default();
        if let Some(outcome) = answered.and_then(|answered| answered.combine(&self.plan)) {
            let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
            failures.iter().for_each(|error| answers.note_failure(error));
            answers.handle(outcome, &self.name);
        }
        if let Some(next) = next {
            self.ask(&next);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Compares what a session's models find with what a shadow finds in the same frames.
pub(super) struct Comparison {
    unmatched: Mutex<Unmatched>,
    /// Lowest score that the session reports, as bits.
    threshold: AtomicU32,
    agreement: Histogram,
    compared: Counter,
}

#[derive(Default)]
struct Unmatched {
    ours: Findings,
    shadows: Findings,
}

/// By frame number, oldest first, [`COMPARED`] at most.
type Findings = VecDeque<(u64, Vec<Detection>)>;

impl Comparison {
    fn new(model: &str, threshold: f32) -> Self {
        Self {
            unmatched: Mutex::default(),
            threshold: AtomicU32::new(threshold.to_bits()),
            agreement: histogram!("saccade_shadow_agreement_ratio", "model" => model.to_owned()),
            compared: counter!("saccade_shadow_frames_total", "model" => model.to_owned()),
        }
    }

    /// What the session reports of a frame: detections of `threshold` and above.
    pub(super) fn ours(&self, frame_id: u64, found: &[Detection], threshold: f32) {
        self.threshold.store(threshold.to_bits(), Ordering::Relaxed);
        let mut unmatched = self.lock();
        let Unmatched { ours, shadows } = &mut *unmatched;
        let partner = meet(frame_id, found, ours, shadows);
        drop(unmatched);
        self.compare(found, partner);
    }

    fn shadows(&self, frame_id: u64, mut found: Vec<Detection>) {
        let threshold = f32::from_bits(self.threshold.load(Ordering::Relaxed));
        found.retain(|detection| detection.score >= threshold);
        let mut unmatched = self.lock();
        let Unmatched { ours, shadows } = &mut *unmatched;
        let partner = meet(frame_id, &found, shadows, ours);
        drop(unmatched);
        self.compare(&found, partner);
    }

    fn compare(&self, found: &[Detection], partner: Option<Vec<Detection>>) {
        if let Some(partner) = partner {
            self.agreement.record(f64::from(agreement(found, &partner)));
            self.compared.increment(1);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Unmatched> {
        self.unmatched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the other side found in this frame, if it is there already; else this side's finding waits for it.
fn meet(frame_id: u64, found: &[Detection], own: &mut Findings, others: &mut Findings) -> Option<Vec<Detection>> {
    if let Some(at) = others.iter().position(|(id, _)| *id == frame_id) {
        return others.remove(at).map(|(_, other)| other);
    }
    if own.len() == COMPARED {
        own.pop_front();
    }
    own.push_back((frame_id, found.to_vec()));
    None
}

/// A model that runs beside the session's own and is only compared with it.
struct Shadow {
    slot: Slot,
    comparison: Arc<Comparison>,
    pool: Arc<FramePool>,
}

impl Shadow {
    fn new(model: &Arc<Model>, threshold: f32, pool: Arc<FramePool>) -> Self {
        let comparison = Arc::new(Comparison::new(&model.id(), threshold));
        let (theirs, spare) = (Arc::clone(&comparison), Arc::clone(&pool));
        let slot = model.attach(Priority::Low, move |outcome| match outcome {
            Outcome::Done(inferred) => {
                inferred.frame.picture.recycle(&spare);
                theirs.shadows(inferred.frame.id, inferred.detections);
            }
            Outcome::Late(frame) | Outcome::Failed(frame, _) => frame.picture.recycle(&spare),
        });
        Self { slot, comparison, pool }
    }

    /// A shadow's losses are nobody's.
    fn submit(&self, frame: Frame, params: Arc<Params>, prepared: Option<Arc<Prepared>>) {
        if let Some(lost) = self.slot.submit_prepared(frame, params, prepared) {
            lost.picture.recycle(&self.pool);
        }
    }
}

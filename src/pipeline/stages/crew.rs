use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use metrics::{Counter, Histogram, counter, histogram};

use super::answering::Answers;
use crate::infer::fusion::agreement;
use crate::infer::{self, Inferred, Member, Model, Outcome, Params, Plan, Prepared, Priority, Slot, Twins};
use crate::media::{Detection, Frame};

/// Frames of which a shadow's answer and the session's own wait for each other.
const COMPARED: usize = 8;

/// The session's place at the models that its frames go through.
pub(super) struct Crew {
    front: Front,
    shadow: Option<Slot>,
    /// Where two of them take the same input.
    twins: Option<Twins>,
}

enum Front {
    One { slot: Slot, smaller: Option<Slot> },
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
        let shadow = plan.shadow.as_ref().map(|model| {
            let wanted = params.classes.as_ref().map(|wanted| {
                let names: Vec<_> = plan.classes.iter().filter(|class| wanted.contains(&class.id)).collect();
                let known = model.classes().iter().filter(|class| names.iter().any(|name| name.name == class.name));
                known.map(|class| class.id).collect()
            });
            Arc::new(Params { classes: wanted, ..params.clone() })
        });
        Self { whole: params, members, shadow }
    }
}

impl Crew {
    /// Takes a place at each model of the plan, which is called `name` where several answer together; `answers` hears what
    /// became of each frame.
    pub(super) fn join(plan: &Plan, name: &Arc<str>, priority: Priority, mut answers: Answers) -> Self {
        let models: Vec<&Model> = plan.models().collect();
        let twins = Twins::among(&models);
        let (shadow, comparison) = plan.shadow.as_ref().map(shadow).unzip();
        answers.compare_with(comparison);
        let answers = Arc::new(Mutex::new(answers));
        let front = match plan.members.as_slice() {
            [only] => Front::One {
                slot: place(&only.model, only, priority, &answers),
                smaller: only.smaller.as_ref().map(|model| place(model, only, priority, &answers)),
            },
            _ => Front::Several(Joint::new(plan.clone(), Arc::clone(name), priority, answers)),
        };
        Self { front, shadow, twins }
    }

    /// Hands a frame to the models; `smaller`: to the one with the smaller input, if there is one. What comes back is
    /// not going to be answered: the frame that this one superseded, or this one itself once there is no model.
    #[must_use = "the returned frame is dropped and has to be counted"]
    pub(super) fn submit(&self, frame: Frame, orders: &Arc<Orders>, smaller: bool) -> Option<Frame> {
        let prepared = self.twins.as_ref().map(Twins::prepare);
        if let Some((slot, params)) = self.shadow.as_ref().zip(orders.shadow.as_ref()) {
            // A shadow's losses are nobody's.
            drop(slot.submit_prepared(frame.clone(), Arc::clone(params), prepared.clone()));
        }
        match &self.front {
            Front::One { slot, smaller: other } => {
                let slot = other.as_ref().filter(|_| smaller).unwrap_or(slot);
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
        if let Some(outcome) = answered.and_then(|answered| answered.combine(&self.plan)) {
            self.answers.lock().unwrap_or_else(PoisonError::into_inner).handle(outcome, &self.name);
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
    ours: VecDeque<(u64, Vec<Detection>)>,
    shadows: VecDeque<(u64, Vec<Detection>)>,
}

impl Comparison {
    fn new(model: &str) -> Self {
        Self {
            unmatched: Mutex::default(),
            threshold: AtomicU32::default(),
            agreement: histogram!("saccade_shadow_agreement_ratio", "model" => model.to_owned()),
            compared: counter!("saccade_shadow_frames_total", "model" => model.to_owned()),
        }
    }

    /// What the session reports of a frame: detections of `threshold` and above.
    pub(super) fn ours(&self, frame_id: u64, found: &[Detection], threshold: f32) {
        self.threshold.store(threshold.to_bits(), Ordering::Relaxed);
        let mut unmatched = self.lock();
        let Unmatched { ours, shadows } = &mut *unmatched;
        self.meet(frame_id, found.to_vec(), ours, shadows);
    }

    fn shadows(&self, frame_id: u64, mut found: Vec<Detection>) {
        let threshold = f32::from_bits(self.threshold.load(Ordering::Relaxed));
        found.retain(|detection| detection.score >= threshold);
        let mut unmatched = self.lock();
        let Unmatched { ours, shadows } = &mut *unmatched;
        self.meet(frame_id, found, shadows, ours);
    }

    fn meet(
        &self,
        frame_id: u64,
        found: Vec<Detection>,
        own: &mut VecDeque<(u64, Vec<Detection>)>,
        others: &mut VecDeque<(u64, Vec<Detection>)>,
    ) {
        if let Some(at) = others.iter().position(|(id, _)| *id == frame_id)
            && let Some((_, other)) = others.remove(at)
        {
            self.agreement.record(f64::from(agreement(&found, &other)));
            self.compared.increment(1);
            return;
        }
        if own.len() == COMPARED {
            own.pop_front();
        }
        own.push_back((frame_id, found));
    }

    fn lock(&self) -> MutexGuard<'_, Unmatched> {
        self.unmatched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn shadow(model: &Arc<Model>) -> (Slot, Arc<Comparison>) {
    let comparison = Arc::new(Comparison::new(&model.id()));
    let theirs = Arc::clone(&comparison);
    let slot = model.attach(Priority::Low, move |outcome| {
        if let Outcome::Done(inferred) = outcome {
            theirs.shadows(inferred.frame.id, inferred.detections);
        }
    });
    (slot, comparison)
}

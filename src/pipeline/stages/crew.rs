use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use metrics::{Counter, Histogram, counter, histogram};

use super::answering::Answers;
use crate::infer::{self, Inferred, Outcome, Params, Plan, Priority, Slot, agreement};
use crate::media::{Detection, Frame};

/// Frames of which a shadow's answer and the session's own wait for each other.
const COMPARED: usize = 8;

/// The session's place at the models that its frames go through.
pub(super) struct Crew {
    front: Front,
    shadow: Option<Slot>,
}

enum Front {
    One(Slot),
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
    /// Takes a place at each model of the plan; `answers` hears what became of each frame.
    pub(super) fn join(plan: &Plan, priority: Priority, mut answers: Answers) -> Self {
        let (shadow, comparison) = plan.shadow.as_ref().map(|model| shadow(model)).unzip();
        answers.compare_with(comparison);
        let front = match plan.members.as_slice() {
            [only] => {
                let member = only.clone();
                Front::One(only.model.attach(priority, move |mut outcome| {
                    if let Outcome::Done(inferred) = &mut outcome {
                        member.rename(&mut inferred.detections);
                    }
                    answers.handle(outcome);
                }))
            }
            _ => Front::Several(Joint::new(plan.clone(), priority, answers)),
        };
        Self { front, shadow }
    }

    /// Hands a frame to the models. What comes back is not going to be answered: the frame that this one superseded, or
    /// this one itself once there is no model.
    #[must_use = "the returned frame is dropped and has to be counted"]
    pub(super) fn submit(&self, frame: Frame, orders: &Arc<Orders>) -> Option<Frame> {
        if let Some((slot, params)) = self.shadow.as_ref().zip(orders.shadow.as_ref()) {
            // A shadow's losses are nobody's.
            drop(slot.submit(frame.clone(), Arc::clone(params)));
        }
        match &self.front {
            Front::One(slot) => slot.submit(frame, Arc::clone(orders.members.first()?)),
            Front::Several(joint) => joint.submit(frame, orders),
        }
    }
}

/// Several models that answer each frame together: all of them are asked about one frame, the next one waits, and is
/// replaced by a newer one, until the last has answered.
struct Joint {
    plan: Plan,
    slots: OnceLock<Vec<Slot>>,
    state: Mutex<State>,
    answers: Mutex<Answers>,
}

#[derive(Default)]
struct State {
    asked: Option<Asked>,
    waiting: Option<(Frame, Arc<Orders>)>,
}

/// A frame that the members are asked about.
struct Asked {
    frame_id: u64,
    orders: Arc<Orders>,
    outcomes: Vec<Option<Outcome>>,
}

impl Asked {
    fn new(frame_id: u64, orders: Arc<Orders>) -> Self {
        let outcomes = orders.members.iter().map(|_| None).collect();
        Self { frame_id, orders, outcomes }
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
    let spent = |one: &Inferred| one.timing.queue + one.timing.preprocess + one.timing.inference + one.timing.postprocess;
    let slower = if spent(&b) > spent(&a) { b } else { a };
    Inferred { met, ..slower }
}

impl Joint {
    fn new(plan: Plan, priority: Priority, answers: Answers) -> Arc<Self> {
        let joint = Arc::new(Self {
            plan,
            slots: OnceLock::new(),
            state: Mutex::default(),
            answers: Mutex::new(answers),
        });
        let slot = |(index, member): (usize, &infer::Member)| {
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

    fn submit(&self, frame: Frame, orders: &Arc<Orders>) -> Option<Frame> {
        let mut state = self.state();
        if state.asked.is_some() {
            return state.waiting.replace((frame, Arc::clone(orders))).map(|(replaced, _)| replaced);
        }
        state.asked = Some(Asked::new(frame.id, Arc::clone(orders)));
        drop(state);
        self.ask(&frame, orders);
        None
    }

    fn ask(&self, frame: &Frame, orders: &Orders) {
        let slots = self.slots.get().map(Vec::as_slice).unwrap_or_default();
        for (index, (slot, params)) in slots.iter().zip(&orders.members).enumerate() {
            if let Some(refused) = slot.submit(frame.clone(), Arc::clone(params)) {
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
        state.asked = next.as_ref().map(|(frame, orders)| Asked::new(frame.id, Arc::clone(orders)));
        drop(state);
        if let Some(outcome) = answered.and_then(|answered| answered.combine(&self.plan)) {
            self.answers.lock().unwrap_or_else(PoisonError::into_inner).handle(outcome);
        }
        if let Some((frame, orders)) = next {
            self.ask(&frame, &orders);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Compares what a session's models find with what a shadow finds in the same frames.
pub(super) struct Comparison {
    waiting: Mutex<Waiting>,
    agreement: Histogram,
    compared: Counter,
}

#[derive(Default)]
struct Waiting {
    ours: VecDeque<(u64, Vec<Detection>)>,
    shadows: VecDeque<(u64, Vec<Detection>)>,
}

impl Comparison {
    fn new(model: &str) -> Self {
        Self {
            waiting: Mutex::default(),
            agreement: histogram!("saccade_shadow_agreement_ratio", "model" => model.to_owned()),
            compared: counter!("saccade_shadow_frames_total", "model" => model.to_owned()),
        }
    }

    /// What the session's models found in a frame.
    pub(super) fn ours(&self, frame_id: u64, found: &[Detection]) {
        let mut waiting = self.lock();
        let Waiting { ours, shadows } = &mut *waiting;
        self.meet(frame_id, found, ours, shadows);
    }

    fn shadows(&self, frame_id: u64, found: &[Detection]) {
        let mut waiting = self.lock();
        let Waiting { ours, shadows } = &mut *waiting;
        self.meet(frame_id, found, shadows, ours);
    }

    fn meet(
        &self,
        frame_id: u64,
        found: &[Detection],
        own: &mut VecDeque<(u64, Vec<Detection>)>,
        others: &mut VecDeque<(u64, Vec<Detection>)>,
    ) {
        if let Some(at) = others.iter().position(|(id, _)| *id == frame_id)
            && let Some((_, other)) = others.remove(at)
        {
            self.agreement.record(f64::from(agreement(found, &other)));
            self.compared.increment(1);
            return;
        }
        if own.len() == COMPARED {
            own.pop_front();
        }
        own.push_back((frame_id, found.to_vec()));
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn shadow(model: &Arc<infer::Model>) -> (Slot, Arc<Comparison>) {
    let comparison = Arc::new(Comparison::new(&model.id()));
    let theirs = Arc::clone(&comparison);
    let slot = model.attach(Priority::Low, move |outcome| {
        if let Outcome::Done(inferred) = outcome {
            theirs.shadows(inferred.frame.id, &inferred.detections);
        }
    });
    (slot, comparison)
}

//! Which waiting frames an idle instance runs next, and how many together. Pure: it is told the time, does no I/O and
//! spawns nothing.
//!
//! **Enters**: that a slot's frame waits and until when ([`Batcher::submit`]; one frame a slot, the newest replaces),
//! that a single picture waits ([`Batcher::call`]), that an instance is idle ([`Batcher::next`]), that its run is over
//! ([`Batcher::finish_run`]), that a frame is out of work ([`Batcher::finish_frame`]). **Leaves**: a [`Choice`]: run
//! these as one batch, or give this one back, since it is late.
//!
//! - While all that wait can be done in time, the earliest deadline goes first.
//! - While they cannot, or frames are replaced unrun, the model is shared out by weight: the slot that got the least
//!   for its weight goes first (start-time fair queueing: Goyal, Vin, Cheng, SIGCOMM 1996; a frame is the unit of
//!   service). A slot that was idle or is new begins where the others are now, and what a slot gets while there is
//!   enough for all is not held against it later.
//! - An idle instance never waits for company: what waits is shared between the idle instances, and a batch is made of
//!   what is there. A larger one is made only if it costs less for each frame, as measured, makes none of its members
//!   late, and takes no more than `max_delay` longer than a frame alone.
//! - A frame that can no longer be done in time is given back, unless its slot had lost frames and got nothing for
//!   [`STARVATION`] when it came. It is then overdue: it is run when nothing else waits, and otherwise every fourth run at
//!   most takes one, so that what can be in time is.

mod cost;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

pub use cost::Costs;

/// A slot that got no result for this long, counted from the first frame that it lost, is starving: its next frame gets a
/// result even if it will be late, so that its session sees something while the model is slower than its budget.
pub const STARVATION: Duration = Duration::from_secs(1);
/// How long after its last sign an overload is taken to last.
const OVERLOAD: Duration = Duration::from_millis(500);
/// Frames that a slot loses in a row, each replaced while it might have been run, before that is a sign of overload: a
/// single one may have come together with its successor.
const LOST_IN_A_ROW: u32 = 2;
/// At most every fourth run goes to a starving slot before its turn, so that weights keep their meaning and frames that
/// can be in time are.
const RESCUE_EVERY: u32 = 4;
/// A larger bucket has to cost less for each frame by this share.
const WORTHWHILE: f64 = 0.95;
/// Among live frames, a waiting picture counts as due after this time.
const CALL_PATIENCE: Duration = Duration::from_secs(1);
/// What a frame costs a slot of weight 1, in virtual time.
const SERVICE: u64 = 16;
/// What a picture costs those who wait for pictures, all together: half of a slot of low priority's share.
const CALL_SERVICE: u64 = 2 * SERVICE;

/// A slot's name, for as long as it is there.
pub type Key = usize;

/// How much of a model a slot gets when there is not enough for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Priority {
    /// Weight 1.
    Low,
    /// Weight 4.
    #[default]
    Normal,
    /// Weight 16.
    High,
}

impl Priority {
    /// Frames that a slot gets under overload, relative to those of others.
    #[must_use]
    pub const fn weight(self) -> u64 {
        match self {
            Self::Low => 1,
            Self::Normal => 4,
            Self::High => 16,
        }
    }
}

/// What an idle instance is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// Run [`Batcher::members`] together in this bucket.
    Run {
        /// Items of the run; there may be fewer members.
        bucket: usize,
    },
    /// Give this slot's frame back: it can't be done in time.
    Late(Key),
}

/// One of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Member {
    /// The waiting frame of this slot.
    Slot(Key),
    /// The picture that has waited longest.
    Call,
}

/// What waits for a model, and what its instances do.
#[derive(Debug)]
pub struct Batcher {
    costs: Costs,
    max_delay: Duration,
    /// By key.
    slots: Vec<Slot>,
    calls: Calls,
    /// Runs that are under way.
    running: Vec<Running>,
    instances: usize,
    /// Where the sharing stands: the latest turn of a frame that was run in its turn.
    virtual_time: u64,
    overload_until: Option<Instant>,
    runs_since_rescue: u32,
    /// Kept between choices, so that none allocates.
    candidates: Vec<Candidate>,
    free: Vec<Instant>,
    members: Vec<Member>,
}

#[derive(Debug)]
struct Slot {
    key: Key,
    /// What a frame costs it, in virtual time.
    service: u64,
    /// Where in virtual time its last frame ended.
    finish: u64,
    waiting: Option<Waiting>,
    in_flight: bool,
    /// When it first lost a frame since its last result: one was replaced while none was in work, or given back, or
    /// failed. A slot whose frames come seldom has lost nothing in between.
    unserved_since: Option<Instant>,
    lost_in_a_row: u32,
}

#[derive(Debug)]
struct Waiting {
    deadline: Instant,
    /// Its turn, in virtual time; the frame that replaces it has the same.
    start: u64,
    /// Whether it could have been run in time when it came.
    had_a_chance: bool,
    /// Whether its slot was starving when it came.
    hungry: bool,
}

/// Pictures that wait, all of one turn.
#[derive(Debug)]
struct Calls {
    waiting: VecDeque<Instant>,
    start: u64,
    /// When one of them was last run.
    last_run: Option<Instant>,
}

#[derive(Debug)]
struct Running {
    instance: usize,
    until: Instant,
}

#[derive(Debug, Clone, Copy)]
struct Candidate {
    member: Member,
    deadline: Instant,
    start: u64,
    /// It is run however late it is.
    patient: bool,
    /// Since when it got nothing, if for too long.
    starving: Option<Instant>,
    /// It can't be done in time.
    overdue: bool,
}

impl Slot {
    /// Since when it got nothing, if for too long.
    fn starving(&self, now: Instant) -> Option<Instant> {
        self.unserved_since.filter(|since| now.saturating_duration_since(*since) >= STARVATION)
    }
}

impl Candidate {
    fn fits(&self, at: Instant, time: Duration) -> bool {
        self.patient || at + time <= self.deadline
    }
}

impl Batcher {
    /// For a model that has no instance yet. `max_delay` is how much longer than alone a frame may take for the sake of
    /// others.
    #[must_use]
    pub const fn new(costs: Costs, max_delay: Duration) -> Self {
        Self {
            costs,
            max_delay,
            slots: Vec::new(),
            calls: Calls { waiting: VecDeque::new(), start: 0, last_run: None },
            running: Vec::new(),
            instances: 0,
            virtual_time: 0,
            overload_until: None,
            runs_since_rescue: 0,
            candidates: Vec::new(),
            free: Vec::new(),
            members: Vec::new(),
        }
    }

    /// What runs cost.
    #[must_use]
    pub const fn costs(&self) -> &Costs {
        &self.costs
    }

    /// Runs cost this from now on, since the model is run in another way. Those under way end as they would have.
    pub fn renew(&mut self, costs: Costs) {
        self.costs = costs;
    }

    /// One more instance may ask for work.
    pub const fn add_instance(&mut self) {
        self.instances += 1;
    }

    /// One instance will not ask for work again.
    pub const fn remove_instance(&mut self) {
        self.instances = self.instances.saturating_sub(1);
    }

    /// A slot joins under a key that no other has.
    pub fn join(&mut self, key: Key, priority: Priority) {
        let slot = Slot {
            key,
            service: SERVICE / priority.weight(),
            finish: 0,
            waiting: None,
            in_flight: false,
            unserved_since: None,
            lost_in_a_row: 0,
        };
        if let Err(at) = self.position(key) {
            self.slots.insert(at, slot);
        }
    }

    /// A slot leaves; its waiting frame is forgotten.
    pub fn leave(&mut self, key: Key) {
        if let Ok(at) = self.position(key) {
            self.slots.remove(at);
        }
    }

    /// A slot's frame waits. It takes the place of the one that waited before.
    pub fn submit(&mut self, now: Instant, key: Key, deadline: Instant) {
        let had_a_chance = now + self.costs.single() <= deadline;
        let virtual_time = self.virtual_time;
        let Ok(at) = self.position(key) else { return };
        let slot = &mut self.slots[at];
        let hungry = slot.starving(now).is_some();
        let Some(waiting) = &mut slot.waiting else {
            let start = virtual_time.max(slot.finish);
            slot.waiting = Some(Waiting { deadline, start, had_a_chance, hungry });
            return;
        };
        *waiting = Waiting { deadline, start: waiting.start, had_a_chance, hungry };
        if !slot.in_flight {
            slot.unserved_since.get_or_insert(now);
            slot.lost_in_a_row += 1;
            if slot.lost_in_a_row >= LOST_IN_A_ROW {
                self.overload_until = Some(now + OVERLOAD);
            }
        }
    }

    /// A picture waits behind those that wait already.
    pub fn call(&mut self, now: Instant) {
        if self.calls.waiting.is_empty() {
            self.calls.start = self.calls.start.max(self.virtual_time);
        }
        self.calls.waiting.push_back(now);
    }

    /// A frame or the longest waiting picture was taken away without having been run.
    pub fn withdraw(&mut self, member: Member) {
        match member {
            Member::Call => drop(self.calls.waiting.pop_front()),
            Member::Slot(key) => {
                if let Ok(at) = self.position(key) {
                    self.slots[at].waiting = None;
                }
            }
        }
    }

    /// The picture with this many that have waited longer was taken away without having been run.
    pub fn withdraw_call(&mut self, at: usize) {
        self.calls.waiting.remove(at);
    }

    /// Whether a frame of this slot is in work.
    #[must_use]
    pub fn is_in_flight(&self, key: Key) -> bool {
        self.position(key).is_ok_and(|at| self.slots[at].in_flight)
    }

    /// What an idle instance is to do now; none: nothing waits that may be run.
    pub fn next(&mut self, now: Instant, instance: usize) -> Option<Choice> {
        self.collect(now);
        if let Some(late) = self.late(now) {
            return Some(Choice::Late(late));
        }
        let overdue = self.set_overdue_aside();
        let first_turn = self.candidates.iter().map(|one| one.start).min()?;
        self.candidates.sort_unstable_by_key(|one| (one.deadline, one.member));
        let idle = self.instances.saturating_sub(self.running.len()).max(1);
        let overloaded = self.overload_until.is_some_and(|until| now < until) || !self.can_all_make_it(now, idle);
        if overloaded {
            self.candidates.sort_unstable_by_key(|one| (one.start, one.deadline, one.member));
        }
        let rescued = (overloaded || overdue.is_some()) && self.rescue(overdue);
        let (bucket, time, len) = self.size(now, 0, idle);
        self.members.clear();
        let fitting = self.candidates.iter().enumerate().filter(|(at, one)| *at == 0 || one.fits(now, time));
        let mut reached = first_turn.max(self.virtual_time);
        for (at, one) in fitting.take(len) {
            self.members.push(one.member);
            // Not a rescued one's, whose turn is still to come.
            if at > 0 || !rescued {
                reached = reached.max(one.start);
            }
        }
        // As far as the last member and not only the first: what is run together with the first, or is run earlier since
        // its deadline is, would otherwise use up turns that nobody disputes, and pay for them under the next overload.
        self.virtual_time = reached;
        for at in 0..self.members.len() {
            self.take(self.members[at], now);
        }
        self.running.push(Running { instance, until: now + self.costs.of(bucket) });
        Some(Choice::Run { bucket })
    }

    /// What runs pictures where no instance is idle is to do now: one picture. Its runs are no part of what instances are
    /// expected to do, and count for the share of those who wait for pictures.
    pub fn next_overflow(&mut self, now: Instant) -> Option<Choice> {
        if !self.has_overflow() {
            return None;
        }
        self.members.clear();
        self.members.push(Member::Call);
        self.take(Member::Call, now);
        Some(Choice::Run { bucket: 1 })
    }

    /// Whether pictures wait while all instances are at work.
    #[must_use]
    pub fn has_overflow(&self) -> bool {
        !self.calls.waiting.is_empty() && self.instances > 0 && self.running.len() >= self.instances
    }

    /// The members of the batch that was last chosen.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Whether another idle instance would find something to do.
    #[must_use]
    pub fn has_more(&self) -> bool {
        !self.calls.waiting.is_empty() || self.slots.iter().any(|slot| !slot.in_flight && slot.waiting.is_some())
    }

    /// An instance is idle again; `ran` is the bucket that it ran and the time that took, if all went well. Of what ran
    /// where no instance was idle nothing is learnt.
    pub fn finish_run(&mut self, instance: usize, ran: Option<(usize, Duration)>) {
        let before = self.running.len();
        self.running.retain(|running| running.instance != instance);
        if let Some((bucket, took)) = ran.filter(|_| self.running.len() < before) {
            self.costs.update(bucket, took);
        }
    }

    /// A slot's frame is out of work, with a result or without one: its next one may be run.
    pub fn finish_frame(&mut self, now: Instant, key: Key, result: bool) {
        if let Ok(at) = self.position(key) {
            let slot = &mut self.slots[at];
            slot.in_flight = false;
            if result {
                slot.unserved_since = None;
                slot.waiting.iter_mut().for_each(|waiting| waiting.hungry = false);
            } else {
                slot.unserved_since.get_or_insert(now);
            }
        }
    }

    /// Runs in this bucket fail: it and larger ones are not used any more.
    pub fn give_up(&mut self, bucket: usize) {
        self.costs.cut(bucket);
    }

    fn position(&self, key: Key) -> Result<usize, usize> {
        self.slots.binary_search_by_key(&key, |slot| slot.key)
    }

    /// Lists what may be run.
    fn collect(&mut self, now: Instant) {
        self.candidates.clear();
        for slot in self.slots.iter().filter(|slot| !slot.in_flight) {
            let Some(Waiting { deadline, start, hungry, .. }) = slot.waiting else { continue };
            let starving = slot.starving(now);
            let overdue = hungry && now + self.costs.single() > deadline;
            let member = Member::Slot(slot.key);
            self.candidates.push(Candidate { member, deadline, start, patient: overdue, starving, overdue });
        }
        let largest = self.costs.sizes().last().unwrap_or(1);
        let mut start = self.calls.start;
        for since in self.calls.waiting.iter().take(largest) {
            let got_nothing = self.calls.last_run.map_or(*since, |last| last.max(*since));
            let starving = (now.saturating_duration_since(got_nothing) >= STARVATION).then_some(got_nothing);
            let deadline = *since + CALL_PATIENCE;
            let (member, patient) = (Member::Call, true);
            self.candidates.push(Candidate { member, deadline, start, patient, starving, overdue: false });
            start += CALL_SERVICE;
        }
    }

    /// Takes a frame that can't make it out of what waits.
    fn late(&mut self, now: Instant) -> Option<Key> {
        let single = self.costs.single();
        let late = self.candidates.iter().find(|one| !one.fits(now, single))?;
        let Member::Slot(key) = late.member else { return None };
        let at = self.position(key).ok()?;
        let slot = &mut self.slots[at];
        slot.unserved_since.get_or_insert(now);
        if slot.waiting.take().is_some_and(|waiting| waiting.had_a_chance) {
            self.overload_until = Some(now + OVERLOAD);
        }
        Some(key)
    }

    /// Whether all candidates, the earliest deadline first, will be done in time if nothing else comes.
    fn can_all_make_it(&mut self, now: Instant, mut idle: usize) -> bool {
        self.free.clear();
        self.free.extend(self.running.iter().map(|running| running.until.max(now)));
        self.free.resize(self.instances.max(self.running.len() + 1), now);
        let mut from = 0;
        while from < self.candidates.len() {
            let Some(at) = (0..self.free.len()).min_by_key(|at| self.free[*at]) else { return true };
            let start = self.free[at];
            if start > now {
                idle = self.free.iter().filter(|free| **free <= start).count();
            }
            let (bucket, time, len) = self.size(start, from, idle.max(1));
            if self.candidates[from..from + len].iter().any(|one| !one.fits(start, time)) {
                return false;
            }
            self.free[at] = start + self.costs.of(bucket);
            idle = idle.saturating_sub(1);
            from += len;
        }
        true
    }

    /// Bucket, its time and the number of members of a batch made of the candidates from `from` on, of which the first
    /// is a member in any case.
    fn size(&self, at: Instant, from: usize, idle: usize) -> (usize, Duration, usize) {
        let candidates = &self.candidates[from..];
        let single = self.costs.single();
        let mut best = (1, single, 1);
        let mut cheapest = single.as_secs_f64();
        let share = candidates.len().div_ceil(idle);
        for (size, estimate) in self.costs.all().skip(1) {
            let (time, cautious) = (estimate.get(), estimate.cautious());
            if share < 2 || time.saturating_sub(single) > self.max_delay || !candidates[0].fits(at, cautious) {
                break;
            }
            let len = candidates.iter().filter(|one| one.fits(at, cautious)).take(size.min(share)).count();
            #[expect(clippy::cast_precision_loss, reason = "a batch")]
            let each = time.as_secs_f64() / len as f64;
            if each < cheapest * WORTHWHILE {
                (best, cheapest) = ((size, cautious, len), each);
            }
        }
        best
    }

    /// Where anything else waits, overdue frames do not compete with it. The one whose slot got nothing for longest.
    fn set_overdue_aside(&mut self) -> Option<Candidate> {
        if self.candidates.iter().all(|one| one.overdue) {
            return None;
        }
        let longest = self.candidates.iter().filter(|one| one.overdue).min_by_key(|one| one.starving).copied();
        self.candidates.retain(|one| !one.overdue);
        longest
    }

    /// Puts the slot that got nothing for longest first, if it is time for that; `overdue` is one that was set aside.
    /// Whether it did.
    fn rescue(&mut self, overdue: Option<Candidate>) -> bool {
        self.runs_since_rescue = self.runs_since_rescue.saturating_add(1);
        if self.runs_since_rescue < RESCUE_EVERY {
            return false;
        }
        self.candidates.extend(overdue);
        let starving = self.candidates.iter().enumerate().filter_map(|(at, one)| Some((at, one.starving?)));
        let longest = starving.min_by_key(|(_, since)| *since).map(|(at, _)| at);
        if overdue.is_some() && longest != self.candidates.len().checked_sub(1) {
            self.candidates.pop();
        }
        let Some(at) = longest else { return false };
        self.candidates[..=at].rotate_right(1);
        self.runs_since_rescue = 0;
        true
    }

    /// A rescued one is served as if its turn were now, so that no slot is ever behind by more than one frame.
    fn take(&mut self, member: Member, now: Instant) {
        match member {
            Member::Call => {
                self.calls.waiting.pop_front();
                self.calls.start = self.calls.start.min(self.virtual_time) + CALL_SERVICE;
                self.calls.last_run = Some(now);
            }
            Member::Slot(key) => {
                let Ok(at) = self.position(key) else { return };
                let slot = &mut self.slots[at];
                if let Some(waiting) = slot.waiting.take() {
                    slot.finish = waiting.start.min(self.virtual_time) + slot.service;
                }
                (slot.in_flight, slot.lost_in_a_row) = (true, 0);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod simulation;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests;

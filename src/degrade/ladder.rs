use std::time::{Duration, Instant};

use super::{INFER_EVERY, RETURN_EVERY, STEPS};

/// How long samples are gathered before they are judged.
const WINDOW: Duration = Duration::from_millis(500);
/// Frames that a judgement needs; with fewer, the window stays open, but not beyond [`LONGEST_WINDOW`].
const ENOUGH: u32 = 8;
/// At a low frame rate a window is judged by what it has.
const LONGEST_WINDOW: Duration = Duration::from_secs(2);
/// After a change, how long frames under way may still show the load before it.
const SETTLE: Duration = Duration::from_millis(500);
/// How long it has to be calm before the first step down.
const PATIENCE: Duration = Duration::from_secs(3);
/// The longest that failed steps down make the next one wait.
const LONGEST_PATIENCE: Duration = Duration::from_secs(96);
/// A step down has held when nothing forced it back for this many times the patience before it.
const HELD: u32 = 2;

/// Share of frames that may be lost before the session is overloaded.
const LOST: f32 = 0.15;
/// From this share on, one window is enough to go up; else two in a row are, since a moment's hiccup is no load.
const MANY_LOST: f32 = 0.4;
/// Share of frames that may be lost while it is calm.
const CALM_LOST: f32 = 0.03;
/// Mean share of the budget that is left when a result is out, below which the session is overloaded.
const SLACK: f32 = 0.15;
/// Likewise, above which it is calm.
const CALM_SLACK: f32 = 0.35;
/// A step down is tried when it would leave the model busy for at most this share of the time, by how long frames take
/// it now.
const ROOM: f32 = 0.9;

/// What became of one frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Sample {
    /// The model answered it.
    Inferred {
        /// How long an instance of the model was busy with it.
        service: Duration,
        /// Share of the budget that was left when its result went out; negative when it was late.
        slack: f32,
    },
    /// It was meant for the model, but a newer one replaced it before the model was free.
    Superseded,
    /// It was meant for the model, but could not be in time.
    Late,
    /// It was meant to be returned, and was encoded.
    Returned,
    /// It was meant to be returned, but a newer one replaced it, or it could not be in time.
    NotReturned,
}

/// What a session can do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Can {
    /// A tracker fills in where the model is skipped by choice.
    pub skip_inference: bool,
    /// It also does for frames that the model is not free for. A session whose frames are all returned at once loses
    /// nothing with those.
    pub fill_in: bool,
    /// Video is returned.
    pub return_less: bool,
}

/// What a ladder needs to know of its model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Instances that work side by side.
    pub instances: u32,
    /// There is a model of the same classes with a smaller input.
    pub smaller_input: bool,
}

/// What is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rung {
    /// Frames that the model is not free for are carried on by the tracker instead of being dropped, where there is time
    /// for that.
    pub fill_in: bool,
    /// The model is offered one in so many frames.
    pub infer_every: u32,
    /// The model with the smaller input runs.
    pub smaller_input: bool,
    /// One in so many frames is returned.
    pub return_every: u32,
    /// Returned frames have half the width and height.
    pub half_size: bool,
}

impl Rung {
    /// The foot of the ladder: nothing is given up.
    pub const NONE: Self =
        Self { fill_in: false, infer_every: 1, smaller_input: false, return_every: 1, half_size: false };

    /// The top of the ladder, where there is no model with a smaller input.
    pub const TOP: Self = Self {
        fill_in: true,
        infer_every: INFER_EVERY[INFER_EVERY.len() - 1],
        smaller_input: false,
        return_every: RETURN_EVERY[RETURN_EVERY.len() - 1],
        half_size: true,
    };

    /// What of it concerns a session that can do without no more than this.
    #[must_use]
    pub const fn within(self, can: Can) -> Self {
        Self {
            fill_in: self.fill_in && can.fill_in,
            infer_every: if can.skip_inference { self.infer_every } else { 1 },
            smaller_input: self.smaller_input,
            return_every: if can.return_less { self.return_every } else { 1 },
            half_size: self.half_size && can.return_less,
        }
    }

    /// The same with no more than one in so many frames returned, and those of half the size if `half_size` says so.
    #[must_use]
    pub fn and_less_video(self, return_every: u32, half_size: bool) -> Self {
        Self { return_every: self.return_every.max(return_every), half_size: self.half_size || half_size, ..self }
    }

    /// Whether a frame with this number goes to the model.
    #[must_use]
    pub fn infers(self, frame_id: u64) -> bool {
        frame_id.is_multiple_of(self.infer_every.into())
    }

    /// Whether a frame with this number is returned.
    #[must_use]
    pub fn returns(self, frame_id: u64) -> bool {
        frame_id.is_multiple_of(self.return_every.into())
    }

    /// Which of [`STEPS`] are in force.
    #[must_use]
    pub const fn steps(self) -> [bool; STEPS.len()] {
        [self.fill_in || self.infer_every > 1, self.smaller_input, self.return_every > 1, self.half_size]
    }

    /// Names of the steps in force, in the order of the ladder.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        STEPS.into_iter().zip(self.steps()).filter_map(|(name, in_force)| in_force.then_some(name))
    }
}

/// The place on the ladder of all sessions that share a model: what one of them gives up, the others get.
#[derive(Debug, Clone)]
pub struct Ladder {
    rungs: Vec<Rung>,
    instances: u32,
    at: usize,
    window: Window,
    /// Samples before this are of the load before the last change.
    settled: Instant,
    /// The window before showed overload, but not enough for a step up.
    suspicious: bool,
    calm_since: Option<Instant>,
    patience: Duration,
    /// When the last step down was taken, until it has held.
    down_at: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Window {
    since: Instant,
    inferred: u32,
    superseded: u32,
    late: u32,
    returned: u32,
    not_returned: u32,
    slack: f32,
    service: Duration,
}

impl Window {
    const fn new(since: Instant) -> Self {
        Self {
            since,
            inferred: 0,
            superseded: 0,
            late: 0,
            returned: 0,
            not_returned: 0,
            slack: 0.0,
            service: Duration::ZERO,
        }
    }

    /// Share of frames that were lost. Where the tracker fills in, those that a newer one replaced are not.
    fn lost(&self, rung: Rung) -> f32 {
        let superseded = if rung.fill_in { 0 } else { self.superseded };
        share(self.late + superseded, self.inferred).max(share(self.not_returned, self.returned))
    }

    /// Mean share of the budget left; all of it when nothing was answered.
    fn slack(&self) -> f32 {
        if self.inferred == 0 { 1.0 } else { self.slack / self.inferred as f32 }
    }
}

/// `part` of `part + rest`.
fn share(part: u32, rest: u32) -> f32 {
    if part == 0 { 0.0 } else { part as f32 / (part + rest) as f32 }
}

impl Ladder {
    /// The foot of the ladder.
    #[must_use]
    pub fn new(now: Instant, config: Config) -> Self {
        Self {
            rungs: rungs(config.smaller_input),
            instances: config.instances.max(1),
            at: 0,
            window: Window::new(now),
            settled: now,
            suspicious: false,
            calm_since: None,
            patience: PATIENCE,
            down_at: None,
        }
    }

    /// What is in force.
    #[must_use]
    pub fn rung(&self) -> Rung {
        self.rungs[self.at]
    }

    /// How far up it is, 0..1.
    #[must_use]
    pub fn height(&self) -> f32 {
        if self.rungs.len() < 2 { 0.0 } else { self.at as f32 / (self.rungs.len() - 1) as f32 }
    }

    /// Takes a frame's fate into account. Says whether what is in force has changed.
    pub fn handle(&mut self, now: Instant, sample: Sample) -> bool {
        if now < self.settled {
            return false;
        }
        let window = &mut self.window;
        match sample {
            Sample::Inferred { service, slack } => {
                window.inferred += 1;
                window.service += service;
                window.slack += if slack.is_finite() { slack.clamp(-1.0, 1.0) } else { 0.0 };
            }
            Sample::Superseded => window.superseded += 1,
            Sample::Late => window.late += 1,
            Sample::Returned => window.returned += 1,
            Sample::NotReturned => window.not_returned += 1,
        }
        let (age, frames) =
            (now.saturating_duration_since(window.since), window.inferred + window.superseded + window.late);
        let frames = frames.max(window.returned + window.not_returned);
        if age < WINDOW || (frames < ENOUGH && age < LONGEST_WINDOW) {
            return false;
        }
        let seen = std::mem::replace(window, Window::new(now));
        self.judge(now, age, &seen)
    }

    fn judge(&mut self, now: Instant, age: Duration, seen: &Window) -> bool {
        if seen.lost(self.rung()) > LOST || seen.slack() < SLACK {
            self.calm_since = None;
            let certain = seen.lost(self.rung()) > MANY_LOST || seen.slack() < 0.0;
            if certain || std::mem::replace(&mut self.suspicious, true) {
                return self.climb(now, seen);
            }
            return false;
        }
        self.suspicious = false;
        if self.down_at.is_some_and(|at| now.saturating_duration_since(at) >= self.patience * HELD) {
            self.down_at = None;
            self.patience = PATIENCE;
        }
        let below = self.rungs[self.at.saturating_sub(1)];
        if seen.lost(below) > CALM_LOST || seen.slack() < CALM_SLACK || !self.has_room(below, age, seen) {
            self.calm_since = None;
            return false;
        }
        let since = *self.calm_since.get_or_insert(now);
        if self.at == 0 || now.saturating_duration_since(since) < self.patience {
            return false;
        }
        self.at -= 1;
        self.down_at = Some(now);
        self.restart(now);
        true
    }

    fn climb(&mut self, now: Instant, seen: &Window) -> bool {
        if self.down_at.take().is_some() {
            self.patience = (self.patience * 2).min(LONGEST_PATIENCE);
        }
        if self.at + 1 == self.rungs.len() {
            return false;
        }
        let before = self.rung();
        self.at += 1;
        // Where one in three is in time, the rung is the one on which the model is asked about one in three.
        let served = 1.0 - share(seen.late, seen.inferred);
        while self.at + 1 < self.rungs.len()
            && self.rungs[self.at + 1].infer_every > self.rung().infer_every
            && (self.rung().infer_every as f32) * served < 0.95 * before.infer_every as f32
        {
            self.at += 1;
        }
        self.restart(now);
        true
    }

    /// Whether the model would still keep up on the next lower rung, if that one asks it more often, but not about all.
    fn has_room(&self, below: Rung, age: Duration, seen: &Window) -> bool {
        if below.infer_every == 1 {
            return true;
        }
        let oftener = self.rung().infer_every as f32 / below.infer_every as f32;
        let busy = seen.service.as_secs_f32() / (age.as_secs_f32() * self.instances as f32);
        oftener <= 1.0 || busy * oftener <= ROOM
    }

    fn restart(&mut self, now: Instant) {
        self.settled = now + SETTLE;
        self.window = Window::new(self.settled);
        self.suspicious = false;
        self.calm_since = None;
    }
}

/// All rungs.
fn rungs(smaller_input: bool) -> Vec<Rung> {
    let mut rung = Rung::NONE;
    let mut rungs = vec![rung];
    rung.fill_in = true;
    rungs.push(rung);
    for infer_every in INFER_EVERY {
        rung.infer_every = infer_every;
        rungs.push(rung);
    }
    if smaller_input {
        rung.smaller_input = true;
        rungs.push(rung);
    }
    for return_every in RETURN_EVERY {
        rung.return_every = return_every;
        rungs.push(rung);
    }
    rung.half_size = true;
    rungs.push(rung);
    rungs
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;

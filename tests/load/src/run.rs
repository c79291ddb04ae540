//! Keeps as many sessions as a load wants, for as long as it wants them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use saccade_signaling::OptionsPatch;
use tokio::sync::watch;
use tokio::task::{Id, JoinSet};
use tokio::time::{MissedTickBehavior, interval};

use crate::clip::Clip;
use crate::measure::{Latencies, Outcome, Percentiles, Second, Session, Steady, Timeline};
use crate::process::Usage;
use crate::session::{self, Assignment};
use crate::signal::{SignalError, Target};

/// How often arrivals and ends are looked at.
const TICK: Duration = Duration::from_millis(20);
/// So long after its time the last sample may be taken.
const SAMPLE_LATE: Duration = Duration::from_millis(500);
/// Where sessions come and go, and none has been there for this time, the server is gone.
const DESERTED: Duration = Duration::from_secs(5);
/// Longest wait for sessions to end once they were told to: longer than a server may take to answer an offer, so that
/// what it makes is ended, too.
const ENDING: Duration = Duration::from_secs(20);

/// One kind of session.
#[derive(Debug, Clone)]
pub struct Kind {
    /// Of so many sessions this many are of this kind, in relation to the other kinds.
    pub weight: u32,
    /// What is sent.
    pub clip: Arc<Clip>,
    /// The session's options, where the server takes any.
    pub options: OptionsPatch,
    /// Whether video is wanted back.
    pub returned: bool,
}

/// A number of sessions for a time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// How long.
    pub time: Duration,
    /// How many sessions are to be there.
    pub sessions: u32,
}

/// What is to be done to a server.
#[derive(Debug, Clone)]
pub struct Load {
    /// The server.
    pub target: Target,
    /// Kinds of sessions, one at least.
    pub kinds: Vec<Kind>,
    /// Names of the classes in the clips' truth, by index.
    pub classes: Vec<String>,
    /// One after the other.
    pub steps: Vec<Step>,
    /// Sessions that begin in a second at most.
    pub ramp_per_s: f64,
    /// Sessions end after a time between these, and others come for them.
    pub lifetime: Option<(Duration, Duration)>,
    /// So many sessions decode what comes back.
    pub probes: u32,
    /// Process of the server, to be watched.
    pub server_pid: Option<u32>,
}

/// How things stand.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Status {
    /// Since the beginning.
    pub elapsed: Duration,
    /// Sessions that are connected.
    pub live: u32,
    /// Sessions that were refused so far.
    pub refused: u32,
    /// Results in the last whole second.
    pub results: u32,
    /// Their 95th percentile in milliseconds.
    pub latency_p95: Option<f64>,
}

/// One session in a few words.
#[derive(Debug, Clone)]
pub struct Summary {
    /// How it went.
    pub outcome: Outcome,
    /// Frames sent.
    pub sent: u64,
    /// Results of frames that the model saw.
    pub results: u64,
    /// Results of frames that it did not see.
    pub carried: u64,
    /// Results, of either kind, that say that something is given up.
    pub degraded: u64,
    /// Frames that came back.
    pub returned: u64,
    /// Results whose returned frame came, too.
    pub joined: u64,
    /// Frames that the server says it dropped for a newer one.
    pub superseded: u64,
    /// Frames that the server says it dropped because they came too late for their budget.
    pub late: u64,
    /// Frames that the server says its model was not asked about.
    pub skipped: u64,
    /// Pauses between results.
    pub stalls: u64,
    /// Requests for keyframes.
    pub keyframe_requests: u64,
    /// From the offer to the first result.
    pub connect: Option<Duration>,
    /// In milliseconds.
    pub result_latency: Option<Percentiles>,
    /// In milliseconds; probed sessions only.
    pub video_latency: Option<Percentiles>,
}

/// A sample of the server's process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Since the beginning.
    pub at: Duration,
    /// What it had used by then.
    pub usage: Usage,
    /// Results that it had given by then.
    pub results: u64,
}

/// What came of a load.
#[derive(Debug, Clone)]
pub struct Run {
    /// From the first offer to the end of the last session.
    pub duration: Duration,
    /// All sessions taken together; its outcome says nothing.
    pub total: Session,
    /// From the offer to the first result.
    pub connect: Latencies,
    /// Every session, in the order in which they ended.
    pub sessions: Vec<Summary>,
    /// Second by second.
    pub timeline: Vec<Second>,
    /// The server's process, second by second.
    pub samples: Vec<Sample>,
    /// While all sessions of the largest step were there.
    pub steady: Steady,
    /// When that was, since the beginning.
    pub steady_at: Range<Duration>,
    /// Why it ended before its time.
    pub broken_off: Option<String>,
}

impl Run {
    fn count(&self, which: impl Fn(&Outcome) -> bool) -> usize {
        self.sessions.iter().filter(|session| which(&session.outcome)).count()
    }

    /// Sessions that connected.
    #[must_use]
    pub fn connected(&self) -> usize {
        self.count(|outcome| matches!(outcome, Outcome::Completed | Outcome::Lost { .. }))
    }

    /// Sessions that the server did not want.
    #[must_use]
    pub fn rejected(&self) -> usize {
        self.count(|outcome| matches!(outcome, Outcome::Refused { .. }))
    }

    /// Sessions that never connected.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.count(|outcome| matches!(outcome, Outcome::Failed { .. }))
    }

    /// Sessions that ended before their time.
    #[must_use]
    pub fn lost(&self) -> usize {
        self.count(|outcome| matches!(outcome, Outcome::Lost { .. }))
    }

    /// Results a second, while all sessions were there.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    pub fn results_per_s(&self) -> Option<f64> {
        let Steady { time, results, .. } = self.steady;
        (!time.is_zero()).then(|| results as f64 / time.as_secs_f64())
    }

    /// The first and the last sample while all sessions were there, and the results between them.
    fn span(&self) -> Option<(&Usage, &Usage, u64)> {
        let mut samples = self.samples.iter().filter(|sample| {
            // The last one is taken when the time is over.
            sample.at >= self.steady_at.start && sample.at <= self.steady_at.end + SAMPLE_LATE
        });
        let (first, last) = (samples.next()?, samples.next_back()?);
        let results = last.results.checked_sub(first.results).filter(|results| *results > 0)?;
        Some((&first.usage, &last.usage, results))
    }

    /// The server's time on processors for each result, in milliseconds, while all sessions were there.
    #[must_use]
    pub fn server_cpu_ms_per_result(&self) -> Option<f64> {
        let (first, last, results) = self.span()?;
        Some(share(last.cpu.checked_sub(first.cpu)?, results))
    }

    /// The same by the kind of thread.
    #[must_use]
    pub fn server_threads_cpu_ms_per_result(&self) -> BTreeMap<String, f64> {
        let Some((first, last, results)) = self.span() else { return BTreeMap::new() };
        let mut spent = BTreeMap::<String, Duration>::new();
        for (id, thread) in &last.threads {
            let before = first.threads.get(id).map_or(Duration::ZERO, |thread| thread.cpu);
            *spent.entry(thread.name.clone()).or_default() += thread.cpu.saturating_sub(before);
        }
        spent.into_iter().map(|(name, cpu)| (name, share(cpu, results))).collect()
    }

    /// The server's resident memory at its largest, in bytes.
    #[must_use]
    pub fn server_rss_bytes(&self) -> Option<u64> {
        self.samples.iter().map(|sample| sample.usage.resident).max()
    }

    /// How evenly results are spread over the sessions that ran to their end and sent as many frames as any, or almost:
    /// Jain's index, from 1 over their number to 1 (Jain, Chiu and Hawe 1984, "A Quantitative Measure of Fairness").
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    pub fn fairness(&self) -> Option<f64> {
        let most = self.sessions.iter().map(|session| session.sent).max()?;
        let whole = |session: &&Summary| session.outcome == Outcome::Completed && session.sent * 10 >= most * 9;
        let results: Vec<f64> = self.sessions.iter().filter(whole).map(|session| session.results as f64).collect();
        let (sum, squares) = (results.iter().sum::<f64>(), results.iter().map(|count| count * count).sum::<f64>());
        (squares > 0.0).then(|| (sum * sum / (results.len() as f64 * squares) * 1e4).round() / 1e4)
    }

    /// Results in relation to the frames sent, 0..1, while all sessions were there.
    #[must_use]
    pub fn share_processed(&self) -> Option<f64> {
        let Steady { sent, results, .. } = self.steady;
        #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
        (sent > 0).then(|| results as f64 / sent as f64)
    }
}

/// Milliseconds for each, with two decimals.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn share(time: Duration, count: u64) -> f64 {
    (time.as_secs_f64() * 1e5 / count as f64).round() / 100.0
}

/// A place for one session after the other.
struct Slot {
    stop: watch::Sender<bool>,
    until: Option<Instant>,
    task: Id,
}

struct Runner<'a> {
    load: &'a Load,
    target: Arc<Target>,
    classes: Arc<[String]>,
    timeline: Arc<Timeline>,
    live: Arc<AtomicU32>,
    tasks: JoinSet<(Session, Option<SignalError>)>,
    slots: Vec<Option<Slot>>,
    /// Slots that have had their session, unless they were to be empty since.
    used: Vec<bool>,
    /// Sessions begun so far.
    begun: u32,
    next_arrival: Instant,
    /// When a session was there last.
    last_live: Instant,
    run: Run,
    first_error: Option<SignalError>,
    /// Why the first session that came to a bad end did so.
    first_reason: Option<String>,
    /// Why the last session to end could not connect, if it could not.
    failing: Option<String>,
}

/// Runs a load to its end, until nothing is left to be done, or until `interrupted`; `watch` hears how things stand
/// once a second.
pub async fn run(load: &Load, interrupted: &AtomicBool, watch: &mut (dyn FnMut(&Status) + Send)) -> Run {
    let start = Instant::now();
    let most = load.steps.iter().map(|step| step.sessions).max().unwrap_or(0);
    let steady_at = steady(load, most);
    let mut runner = Runner {
        load,
        target: Arc::new(load.target.clone()),
        classes: load.classes.clone().into(),
        timeline: Arc::new(Timeline::new(start, steady_at.clone())),
        live: Arc::default(),
        tasks: JoinSet::new(),
        slots: (0..most).map(|_| None).collect(),
        used: vec![false; most as usize],
        begun: 0,
        next_arrival: start,
        last_live: start,
        run: Run {
            duration: Duration::ZERO,
            total: Session::new(Outcome::Completed),
            connect: Latencies::default(),
            sessions: Vec::new(),
            timeline: Vec::new(),
            samples: Vec::new(),
            steady: Steady::default(),
            steady_at,
            broken_off: None,
        },
        first_error: None,
        first_reason: None,
        failing: None,
    };
    let end = load.steps.iter().map(|step| step.time).sum::<Duration>();
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut second = 0;
    while runner.timeline.elapsed() < end {
        tokio::select! {
            _ = tick.tick() => runner.tick(),
            Some(ended) = runner.tasks.join_next_with_id() => runner.ended(ended),
        }
        if runner.timeline.elapsed().as_secs() > second {
            second = runner.timeline.elapsed().as_secs();
            runner.sample();
            watch(&runner.status());
        }
        if interrupted.load(Ordering::Relaxed) {
            runner.run.broken_off = Some("interrupted".to_owned());
            break;
        }
        if let Some(reason) = runner.nothing_left() {
            runner.run.broken_off = Some(reason);
            break;
        }
    }
    runner.sample();
    runner.finish().await
}

impl Runner<'_> {
    fn wanted(&self) -> usize {
        let mut left = self.timeline.elapsed();
        for step in &self.load.steps {
            if left < step.time {
                return step.sessions as usize;
            }
            left -= step.time;
        }
        0
    }

    fn tick(&mut self) {
        let (now, wanted) = (Instant::now(), self.wanted());
        for (index, slot) in self.slots.iter().enumerate() {
            let Some(slot) = slot else { continue };
            if index >= wanted || slot.until.is_some_and(|until| until <= now) {
                slot.stop.send_replace(true);
            }
        }
        self.used[wanted..].fill(false);
        if self.live.load(Ordering::Relaxed) > 0 {
            self.last_live = now;
        }
        while self.next_arrival <= now {
            // A slot whose session has ended stays empty, unless sessions come and go.
            let again = self.load.lifetime.is_some();
            let free = |&index: &usize| self.slots[index].is_none() && (again || !self.used[index]);
            let Some(index) = (0..wanted).find(free) else { break };
            self.used[index] = true;
            self.begin(index);
            let pause = Duration::try_from_secs_f64(1.0 / self.load.ramp_per_s).unwrap_or_default();
            self.next_arrival = (self.next_arrival + pause).max(now - TICK);
        }
        self.next_arrival = self.next_arrival.max(now - TICK);
    }

    fn begin(&mut self, index: usize) {
        let number = self.begun;
        self.begun += 1;
        let kind = pick(&self.load.kinds, number);
        let assignment = Assignment {
            target: Arc::clone(&self.target),
            clip: Arc::clone(&kind.clip),
            classes: Arc::clone(&self.classes),
            options: kind.options.clone(),
            returned: kind.returned,
            probe: kind.returned && number < self.load.probes,
            phase: scatter(number, 0),
            first_time: hash(number, 1),
        };
        let until = self.load.lifetime.map(|(shortest, longest)| {
            Instant::now() + shortest + longest.saturating_sub(shortest).mul_f64(scatter(number, 2))
        });
        let (stop, stopped) = watch::channel(false);
        let (timeline, live) = (Arc::clone(&self.timeline), Arc::clone(&self.live));
        let task = self.tasks.spawn(async move {
            let connected = Arc::clone(&live);
            let session = session::run(assignment, timeline, stopped, move || {
                connected.fetch_add(1, Ordering::Relaxed);
            });
            let result = Box::pin(session).await;
            if result.0.connected() {
                live.fetch_sub(1, Ordering::Relaxed);
            }
            result
        });
        self.slots[index] = Some(Slot { stop, until, task: task.id() });
    }

    fn ended(&mut self, ended: Result<(Id, (Session, Option<SignalError>)), tokio::task::JoinError>) {
        let (id, (session, error)) = match ended {
            Ok(ended) => ended,
            Err(error) => (error.id(), (Session::new(Outcome::Failed { reason: error.to_string() }), None)),
        };
        if let Some(slot) = self.slots.iter_mut().find(|slot| slot.as_ref().is_some_and(|slot| slot.task == id)) {
            *slot = None;
        }
        if self.first_error.is_none() {
            self.first_error = error;
        }
        self.failing = match &session.outcome {
            Outcome::Failed { reason } => Some(reason.clone()),
            _ => None,
        };
        if let Outcome::Failed { reason } | Outcome::Lost { reason } = &session.outcome {
            self.first_reason.get_or_insert_with(|| reason.clone());
        }
        if let Some(connect) = session.connect {
            self.run.connect.record(connect);
        }
        self.run.sessions.push(Summary {
            outcome: session.outcome.clone(),
            sent: session.sent,
            results: session.results,
            carried: session.carried,
            degraded: session.degraded,
            returned: session.returned,
            joined: session.joined,
            superseded: session.superseded,
            late: session.late,
            skipped: session.skipped,
            stalls: session.stalls,
            keyframe_requests: session.keyframe_requests,
            connect: session.connect,
            result_latency: session.result_latency.percentiles(),
            video_latency: session.video_latency.percentiles(),
        });
        self.run.total.merge(&session);
    }

    fn sample(&mut self) {
        let Some(usage) = self.load.server_pid.and_then(Usage::of) else { return };
        self.run.samples.push(Sample { at: self.timeline.elapsed(), usage, results: self.timeline.results() });
    }

    fn status(&self) -> Status {
        let last = self.timeline.last_whole();
        Status {
            elapsed: self.timeline.elapsed(),
            live: self.live.load(Ordering::Relaxed),
            refused: u32::try_from(self.run.rejected()).unwrap_or(u32::MAX),
            results: last.map_or(0, |second| second.results),
            latency_p95: last.and_then(|second| second.latency_p95),
        }
    }

    /// Why there is no use in going on: no session runs, none will come, or none can.
    fn nothing_left(&self) -> Option<String> {
        let deserted = self.last_live.elapsed() > DESERTED && self.run.connected() > 0 && self.wanted() > 0;
        if let Some(reason) = self.failing.as_ref().filter(|_| deserted) {
            return Some(format!("no session connects any more: {reason}"));
        }
        if !self.tasks.is_empty() {
            return None;
        }
        let hopeless = self.run.connected() == 0 && self.first_error.as_ref().is_some_and(|error| !error.is_refusal());
        let more = self.load.lifetime.is_some() || self.used.contains(&false);
        if self.begun == 0 || (more && !hopeless) {
            return None;
        }
        let reason = match &self.first_error {
            Some(error) if self.run.connected() == 0 => error.to_string(),
            _ => {
                let what = if self.run.lost() > 0 { "all sessions ended" } else { "no session connected" };
                format!("{what}: {}", self.first_reason.as_deref().unwrap_or("the server did not say why"))
            }
        };
        Some(reason)
    }

    async fn finish(mut self) -> Run {
        for slot in self.slots.iter().flatten() {
            slot.stop.send_replace(true);
        }
        let deadline = Instant::now() + ENDING;
        while let Ok(Some(ended)) = tokio::time::timeout_at(deadline.into(), self.tasks.join_next_with_id()).await {
            self.ended(ended);
        }
        self.tasks.abort_all();
        while let Some(aborted) = self.tasks.join_next_with_id().await {
            self.ended(aborted);
        }
        self.run.duration = self.timeline.elapsed();
        (self.run.timeline, self.run.steady) = self.timeline.finish();
        if self.run.connected() == 0 && self.run.broken_off.is_none() {
            self.run.broken_off = self.first_reason.or(self.first_error.map(|error| error.to_string()));
        }
        self.run
    }
}

impl Session {
    fn merge(&mut self, other: &Self) {
        self.sent += other.sent;
        self.results += other.results;
        self.returned += other.returned;
        self.joined += other.joined;
        self.superseded += other.superseded;
        self.late += other.late;
        self.skipped += other.skipped;
        self.carried += other.carried;
        self.degraded += other.degraded;
        self.carried_found.add(other.carried_found);
        self.budget_missed += other.budget_missed;
        self.stalls += other.stalls;
        self.strange += other.strange;
        self.keyframe_requests += other.keyframe_requests;
        self.nacked += other.nacked;
        self.unreadable += other.unreadable;
        self.unsent += other.unsent;
        self.result_latency.merge(&other.result_latency);
        self.video_latency.merge(&other.video_latency);
        self.server_latency.merge(&other.server_latency);
        self.pacing.merge(&other.pacing);
        self.found.add(other.found);
    }
}

/// When all sessions of the largest step are there, and have had a second's time to get going.
fn steady(load: &Load, most: u32) -> Range<Duration> {
    let mut begin = Duration::ZERO;
    for step in &load.steps {
        let end = begin + step.time;
        if step.sessions == most {
            let coming = Duration::try_from_secs_f64(f64::from(most) / load.ramp_per_s + 1.0).unwrap_or(Duration::MAX);
            return begin.saturating_add(coming).min(end)..end;
        }
        begin = end;
    }
    Duration::ZERO..Duration::ZERO
}

/// The kind of session number `number`: kinds take turns according to their weights.
fn pick(kinds: &[Kind], number: u32) -> &Kind {
    let whole = kinds.iter().map(|kind| kind.weight.max(1)).sum::<u32>().max(1);
    let mut left = number % whole;
    for kind in kinds {
        match left.checked_sub(kind.weight.max(1)) {
            Some(rest) => left = rest,
            None => return kind,
        }
    }
    &kinds[0]
}

/// A number that is the same in each run (the finaliser of MurmurHash3).
const fn hash(number: u32, purpose: u32) -> u32 {
    let mut value = number.wrapping_mul(0x9e37_79b9) ^ purpose.wrapping_mul(0x85eb_ca6b) ^ 0x5bd1_e995;
    value = (value ^ (value >> 16)).wrapping_mul(0x85eb_ca6b);
    value = (value ^ (value >> 13)).wrapping_mul(0xc2b2_ae35);
    value ^ (value >> 16)
}

/// The same in 0..1.
fn scatter(number: u32, purpose: u32) -> f64 {
    f64::from(hash(number, purpose)) / (f64::from(u32::MAX) + 1.0)
}

//! The largest number of sessions that a server serves as wanted.

use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use crate::run::{Load, Run, Status, Step, run};

/// A session that gets less than this share of what sessions must get on average is left out.
const LEFT_OUT: f64 = 0.9;

/// One number of sessions that was tried.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Trial {
    /// Sessions.
    pub sessions: u32,
    /// Whether it was as wanted.
    pub good: bool,
    /// Share of the frames that were processed, 0..1.
    pub processed: f64,
    /// 95th percentile of the result latency in milliseconds.
    pub latency_p95: Option<f64>,
    /// Results a second, all sessions together.
    pub results_per_s: f64,
}

/// What a search found.
#[derive(Debug, Clone)]
pub struct Found {
    /// The largest number that was good; 0 if not even one session was.
    pub sessions: u32,
    /// All trials, in the order of the search.
    pub trials: Vec<Trial>,
    /// The run with the largest good number, or the last one if none was good.
    pub best: Run,
}

/// What a trial must keep to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Wanted {
    /// Longest 95th percentile of the result latency in milliseconds.
    pub latency_p95: f64,
    /// Share of the frames that must be processed, 0..1.
    pub processed: f64,
}

/// How long, and how far, is searched.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounds {
    /// Largest number of sessions.
    pub most: u32,
    /// Time of each trial.
    pub trial: Duration,
    /// Time of the whole search; a trial that would not end within it is not begun, but for the first.
    pub whole: Duration,
}

/// Tries numbers of sessions: doubles from one until a number is too large, then halves what lies between. `load.steps`
/// are replaced.
pub async fn search(
    load: &Load,
    Bounds { most, trial, whole }: Bounds,
    wanted: Wanted,
    interrupted: &AtomicBool,
    watch: &mut (dyn FnMut(u32, &Status) + Send),
) -> Found {
    let start = Instant::now();
    let (mut good, mut bad) = (0, most.saturating_add(1));
    let (mut next, mut trials, mut best) = (1, Vec::new(), None::<Run>);
    loop {
        let mut load = load.clone();
        let coming = Duration::try_from_secs_f64(f64::from(next) / load.ramp_per_s + 1.0).unwrap_or_default();
        load.steps = vec![Step { time: coming + trial, sessions: next }];
        let result = run(&load, interrupted, &mut |status| watch(next, status)).await;
        // A server that refuses all of so many is there; one that is gone, or a user who has enough, says nothing about
        // this number.
        let refused = result.rejected() > 0 && result.rejected() == result.sessions.len();
        if let Some(reason) = result.broken_off.clone().filter(|_| !refused || good == 0) {
            let best = Run { broken_off: Some(reason), ..best.unwrap_or(result) };
            return Found { sessions: good, trials, best };
        }
        let outcome = judge(next, &result, wanted);
        trials.push(outcome);
        if outcome.good {
            good = next;
        } else {
            bad = next;
        }
        let best = if outcome.good { best.insert(result) } else { best.get_or_insert(result) };
        next = if bad > most { (good * 2).min(most) } else { good + (bad - good) / 2 };
        if start.elapsed() + coming + trial > whole || next == good || next == bad {
            return Found { sessions: good, trials, best: best.clone() };
        }
    }
}

fn judge(sessions: u32, run: &Run, wanted: Wanted) -> Trial {
    let latency_p95 = run.steady.latencies.percentiles().map(|percentiles| percentiles.p95);
    let processed = run.share_processed().unwrap_or(0.0);
    let all = run.connected() == sessions as usize && run.lost() == 0;
    // The average must not hide a session that is left out.
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    let fair = run.sessions.iter().all(|one| one.results as f64 >= one.sent as f64 * wanted.processed * LEFT_OUT);
    let in_time = latency_p95.is_some_and(|p95| p95 <= wanted.latency_p95);
    let good = all && fair && in_time && processed >= wanted.processed;
    let results_per_s = run.results_per_s().unwrap_or_default();
    Trial { sessions, good, processed, latency_p95, results_per_s }
}

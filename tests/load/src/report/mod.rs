//! What a run is told as: keys that scripts read, a table, and a page.

mod page;
mod table;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::measure::{Outcome, Percentiles, Steady};
use crate::run::Run;
use crate::search::Trial;

pub use page::html;
pub use table::table;

/// A result within this time is on time, where no budget is given.
pub const ON_TIME: Duration = Duration::from_millis(200);

/// What was run, in words, for whoever reads the report later.
#[derive(Debug, Clone, Serialize)]
#[expect(missing_docs, reason = "named as the flags of `saccade bench`")]
pub struct Setting {
    pub url: String,
    pub signaling: String,
    pub scenario: String,
    pub clip: String,
    /// Of each kind of session one line, such as `h264 640x480 at 30/s, return exact`.
    pub kinds: Vec<String>,
    pub budget_ms: Option<u32>,
    pub generator: String,
}

/// A run in figures. Keys are stable.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// What was run.
    pub setting: Setting,
    /// Sessions that were begun.
    pub sessions: usize,
    /// Those that connected.
    pub connected: usize,
    /// Those that the server refused.
    pub rejected: usize,
    /// Those that never connected.
    pub failed: usize,
    /// Those that connected and ended before their time.
    pub lost: usize,
    /// Why the run ended before its time.
    pub broken_off: Option<String>,
    /// Seconds.
    pub duration_s: f64,
    /// Seconds of them in which all sessions were there, which the rates are of.
    pub steady_s: f64,
    /// Results in each of these seconds.
    pub results_per_s: Option<f64>,
    /// Those of them that were on time.
    pub results_on_time_per_s: Option<f64>,
    /// Frames sent.
    pub frames_sent: u64,
    /// Results of frames that the model saw.
    pub results: u64,
    /// Results of frames that it did not see: a tracker carried its objects on.
    pub carried: u64,
    /// Results, of either kind, that say that something is given up.
    pub degraded: u64,
    /// Jain's index of results over the sessions that ran from beginning to end.
    pub fairness: Option<f64>,
    /// Results within the budget, or within [`ON_TIME`] where none is given.
    pub results_on_time: u64,
    /// Frames that came back.
    pub frames_returned: u64,
    /// Results whose returned frame came, too.
    pub joined: u64,
    /// Offer → first result.
    pub connect_ms: Option<Percentiles>,
    /// Last packet of a frame out → its result in.
    pub result_latency_ms: Option<Percentiles>,
    /// Last packet of a frame out → last packet of the same frame's picture in; probed sessions only.
    pub video_latency_ms: Option<Percentiles>,
    /// The server's own measure: last packet of a frame in → first packet out.
    pub server_latency_ms: Option<Percentiles>,
    /// How late frames left the generator.
    pub pacing_ms: Option<Percentiles>,
    /// Frames that the server says it dropped.
    pub dropped: Dropped,
    /// Results that the server says missed the budget.
    pub budget_missed: u64,
    /// Pauses between results of more than half a second and more than three frames.
    pub stalls: u64,
    /// Messages on the results channel that are no results, or name no frame that was sent.
    pub strange: u64,
    /// Requests for keyframes.
    pub keyframe_requests: u64,
    /// Packets that the server asked for again.
    pub nacked: u64,
    /// Returned frames of probed sessions whose number could not be read.
    pub unreadable: u64,
    /// Datagrams that this machine could not send.
    pub unsent: u64,
    /// The server's time on processors for each result, all sessions there.
    pub server_cpu_ms_per_result: Option<f64>,
    /// The same by the kind of thread.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub server_threads_cpu_ms_per_result: BTreeMap<String, f64>,
    /// The server's resident memory at its largest.
    pub server_rss_bytes: Option<u64>,
    /// Share of the objects that were found; where the truth is known.
    pub recall: Option<f64>,
    /// Share of the detections that are objects.
    pub precision: Option<f64>,
    /// Share of the objects that were found in frames that the model did not see.
    pub carried_recall: Option<f64>,
    /// Share of the detections in them that are objects.
    pub carried_precision: Option<f64>,
    /// Largest number of sessions that was good, where one was looked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capacity: Option<u32>,
    /// Numbers of sessions that were tried.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub trials: Vec<Tried>,
    /// Each session.
    pub per_session: Vec<PerSession>,
    /// Each second.
    pub timeline: Vec<PerSecond>,
    /// Share of results within these milliseconds, for the plot.
    #[serde(skip)]
    pub distribution: Vec<(f64, f64)>,
}

/// Frames dropped, by reason.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Dropped {
    pub superseded: u64,
    pub late: u64,
    pub skipped: u64,
}

/// One trial of a search.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Tried {
    pub sessions: u32,
    pub good: bool,
    pub processed: f64,
    pub result_latency_p95_ms: Option<f64>,
    pub results_per_s: f64,
}

/// One session.
#[derive(Debug, Clone, Serialize)]
pub struct PerSession {
    pub outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    pub frames_sent: u64,
    pub results: u64,
    pub carried: u64,
    pub degraded: u64,
    pub frames_returned: u64,
    pub joined: u64,
    pub dropped: Dropped,
    pub stalls: u64,
    pub keyframe_requests: u64,
    pub connect_ms: Option<f64>,
    pub result_latency_ms: Option<Percentiles>,
    pub video_latency_ms: Option<Percentiles>,
}

/// One second.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct PerSecond {
    pub second: usize,
    pub frames_sent: u32,
    pub results: u32,
    pub carried: u32,
    pub degraded: u32,
    pub frames_returned: u32,
    /// Bits of what came back, in thousands.
    pub returned_kbps: u64,
    pub result_latency_p95_ms: Option<f64>,
    /// Of probed sessions only.
    pub video_latency_max_ms: Option<f64>,
}

impl Report {
    /// The figures of a run.
    #[must_use]
    pub fn new(setting: Setting, run: &Run) -> Self {
        let total = &run.total;
        let on_time = setting.budget_ms.map_or(ON_TIME, |budget| Duration::from_millis(budget.into()));
        Self {
            setting,
            sessions: run.sessions.len(),
            connected: run.connected(),
            rejected: run.rejected(),
            failed: run.failed(),
            lost: run.lost(),
            broken_off: run.broken_off.clone(),
            duration_s: hundredths(run.duration.as_secs_f64()),
            steady_s: hundredths(run.steady.time.as_secs_f64()),
            results_per_s: run.results_per_s().map(hundredths),
            results_on_time_per_s: per_s(&run.steady, run.steady.latencies.count_within(on_time)).map(hundredths),
            frames_sent: total.sent,
            results: total.results,
            carried: total.carried,
            degraded: total.degraded,
            fairness: run.fairness(),
            results_on_time: total.result_latency.count_within(on_time),
            frames_returned: total.returned,
            joined: total.joined,
            connect_ms: run.connect.percentiles(),
            result_latency_ms: total.result_latency.percentiles(),
            video_latency_ms: total.video_latency.percentiles(),
            server_latency_ms: total.server_latency.percentiles(),
            pacing_ms: total.pacing.percentiles(),
            dropped: Dropped { superseded: total.superseded, late: total.late, skipped: total.skipped },
            budget_missed: total.budget_missed,
            stalls: total.stalls,
            strange: total.strange,
            keyframe_requests: total.keyframe_requests,
            nacked: total.nacked,
            unreadable: total.unreadable,
            unsent: total.unsent,
            server_cpu_ms_per_result: run.server_cpu_ms_per_result(),
            server_threads_cpu_ms_per_result: run.server_threads_cpu_ms_per_result(),
            server_rss_bytes: run.server_rss_bytes(),
            recall: total.found.recall(),
            precision: total.found.precision(),
            carried_recall: total.carried_found.recall(),
            carried_precision: total.carried_found.precision(),
            capacity: None,
            trials: Vec::new(),
            per_session: run.sessions.iter().map(PerSession::new).collect(),
            timeline: run
                .timeline
                .iter()
                .enumerate()
                .map(|(second, found)| PerSecond {
                    second,
                    frames_sent: found.sent,
                    results: found.results,
                    carried: found.carried,
                    degraded: found.degraded,
                    frames_returned: found.returned,
                    returned_kbps: found.returned_bytes * 8 / 1_000,
                    result_latency_p95_ms: found.latency_p95,
                    video_latency_max_ms: found.video_latency_max,
                })
                .collect(),
            distribution: distribution(run),
        }
    }

    /// The same with what a search found.
    #[must_use]
    pub fn with_search(mut self, capacity: u32, trials: &[Trial]) -> Self {
        self.capacity = Some(capacity);
        self.trials = trials
            .iter()
            .map(|trial| Tried {
                sessions: trial.sessions,
                good: trial.good,
                processed: trial.processed,
                result_latency_p95_ms: trial.latency_p95,
                results_per_s: trial.results_per_s,
            })
            .collect();
        self
    }
}

fn hundredths(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn per_s(steady: &Steady, count: u64) -> Option<f64> {
    (!steady.time.is_zero()).then(|| count as f64 / steady.time.as_secs_f64())
}

impl PerSession {
    fn new(session: &crate::run::Summary) -> Self {
        let (outcome, reason) = match &session.outcome {
            Outcome::Completed => ("completed", None),
            Outcome::Refused { code } => ("rejected", Some(code.clone())),
            Outcome::Failed { reason } => ("failed", Some(reason.clone())),
            Outcome::Lost { reason } => ("lost", Some(reason.clone())),
        };
        Self {
            outcome,
            reason,
            frames_sent: session.sent,
            results: session.results,
            carried: session.carried,
            degraded: session.degraded,
            frames_returned: session.returned,
            joined: session.joined,
            dropped: Dropped { superseded: session.superseded, late: session.late, skipped: session.skipped },
            stalls: session.stalls,
            keyframe_requests: session.keyframe_requests,
            connect_ms: session.connect.map(|connect| hundredths(connect.as_secs_f64() * 1e3)),
            result_latency_ms: session.result_latency,
            video_latency_ms: session.video_latency,
        }
    }
}

/// Share of results within times that are close where there are many.
fn distribution(run: &Run) -> Vec<(f64, f64)> {
    let latencies = &run.total.result_latency;
    let Some(percentiles) = latencies.percentiles() else { return Vec::new() };
    let last = percentiles.max.clamp(1.0, percentiles.p99 * 3.0 + 1.0);
    (0..=200).map(|step| last * f64::from(step) / 200.0).map(|at| (at, latencies.share_below(at))).collect()
}

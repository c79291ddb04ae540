use std::fmt::Write as _;

use super::{Dropped, Report};
use crate::measure::Percentiles;

/// The report for a terminal.
#[must_use]
pub fn table(report: &Report) -> String {
    let mut text = String::new();
    let mut line = |label: &str, value: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{label:<22}{value}");
    };
    let setting = &report.setting;
    line("load", format!("{} of {}", setting.scenario, setting.clip));
    setting.kinds.iter().for_each(|kind| line("", kind.clone()));
    let mut sessions = format!("{} connected", report.connected);
    for (count, what) in [(report.rejected, "rejected"), (report.failed, "failed"), (report.lost, "lost")] {
        if count > 0 {
            let _ = write!(sessions, ", {count} {what}");
        }
    }
    line("sessions", sessions);
    line("frames sent", format!("{} in {:.1} s", report.frames_sent, report.duration_s));
    let rate = |rate: Option<f64>| rate.map_or_else(String::new, |rate| format!(" ({rate:.1}/s)"));
    line(
        "results",
        format!(
            "{}{}, {}{} on time",
            report.results,
            rate(report.results_per_s),
            report.results_on_time,
            rate(report.results_on_time_per_s)
        ),
    );
    if report.carried > 0 || report.degraded > 0 {
        line("", format!("{} carried on by the tracker, {} of all say degraded", report.carried, report.degraded));
    }
    if let Some(fairness) = report.fairness.filter(|_| report.connected > 1) {
        line("fairness", format!("{fairness:.3} (Jain's index of results over sessions)"));
    }
    if report.strange > 0 {
        line("", format!("{} messages that are no results, or of no frame that was sent", report.strange));
    }
    line("frames back", format!("{}, {} joined to results", report.frames_returned, report.joined));
    let Dropped { superseded, late, skipped } = report.dropped;
    line("dropped by server", format!("{superseded} superseded, {late} late, {skipped} skipped"));
    line("stalls", report.stalls.to_string());
    line("asked again for", format!("{} packets, {} keyframes", report.nacked, report.keyframe_requests));
    let _ = writeln!(text, "\n{:<22}{:>9}{:>9}{:>9}{:>9}{:>9}", "milliseconds", "p50", "p90", "p95", "p99", "max");
    for (label, percentiles) in [
        ("connect", report.connect_ms),
        ("result latency", report.result_latency_ms),
        ("video latency", report.video_latency_ms),
        ("server latency", report.server_latency_ms),
        ("generator's lateness", report.pacing_ms),
    ] {
        if let Some(Percentiles { p50, p90, p95, p99, max }) = percentiles {
            let _ = writeln!(text, "{label:<22}{p50:>9.1}{p90:>9.1}{p95:>9.1}{p99:>9.1}{max:>9.1}");
        }
    }
    let mut lines = Vec::new();
    if let Some(cpu) = report.server_cpu_ms_per_result {
        let threads = &report.server_threads_cpu_ms_per_result;
        let mut threads: Vec<_> = threads.iter().filter(|(_, spent)| **spent >= 0.05).collect();
        threads.sort_by(|a, b| b.1.total_cmp(a.1));
        let threads: Vec<_> = threads.iter().map(|(name, spent)| format!("{name} {spent:.2}")).collect();
        lines.push(format!("server                {cpu:.2} ms of processor a result ({})", threads.join(", ")));
    }
    if let Some(bytes) = report.server_rss_bytes {
        lines.push(format!("server's memory       {:.0} MiB", mebibytes(bytes)));
    }
    if let Some(recall) = report.recall {
        let precision = report.precision.map_or_else(|| "-".to_owned(), |precision| format!("{precision:.3}"));
        lines.push(format!("found                 recall {recall:.3}, precision {precision}"));
    }
    if let Some(recall) = report.carried_recall {
        let precision = report.carried_precision.map_or_else(|| "-".to_owned(), |precision| format!("{precision:.3}"));
        lines.push(format!("found while carried   recall {recall:.3}, precision {precision}"));
    }
    for trial in &report.trials {
        let p95 = trial.result_latency_p95_ms.map_or_else(|| "-".to_owned(), |p95| format!("{p95:.0} ms"));
        lines.push(format!(
            "{:<22}{}  {:.0} % processed, p95 {p95}, {:.1} results/s",
            count(trial.sessions),
            if trial.good { "good" } else { "too many" },
            trial.processed * 100.0,
            trial.results_per_s
        ));
    }
    if let Some(capacity) = report.capacity {
        lines.push(format!("{:<22}{}", "capacity", count(capacity)));
    }
    if !lines.is_empty() {
        let _ = writeln!(text, "\n{}", lines.join("\n"));
    }
    if let Some(reason) = &report.broken_off {
        let _ = writeln!(text, "\nended early           {reason}");
    }
    text
}

fn count(sessions: u32) -> String {
    if sessions == 1 { "1 session".to_owned() } else { format!("{sessions} sessions") }
}

#[expect(clippy::cast_precision_loss, reason = "sizes are far below 2^52")]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

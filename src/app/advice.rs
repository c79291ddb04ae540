//! What limits the server: samples of its own metrics, once a second for a minute, and what they say as clients are told it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use metrics::gauge;
use saccade_signaling::{AdviceFinding, AdviceSeverity, AdviceView};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::advice::{Finding, Ring, Sample, Severity, Threads, Window, findings};
use crate::infer::Engine;
use crate::{clock, telemetry};

/// How often a sample is taken: rendering all metrics takes a millisecond or so.
const EVERY: Duration = Duration::from_secs(1);
/// What is looked at.
const KEEP: Duration = Duration::from_secs(60);
/// What is looked at alone, too: a minute's means tell of what begins only when most of it has passed.
const LATELY: Duration = Duration::from_secs(15);
/// Samples at most.
const ROOM: usize = 64;

/// The samples of the last minute.
pub(super) struct Adviser {
    ring: Mutex<Ring>,
}

impl Adviser {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { ring: Mutex::new(Ring::new(KEEP, ROOM)) })
    }

    /// What limits the server, as the last minute shows it, or the last seconds where those are worse.
    pub(super) fn view(&self) -> AdviceView {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let [all, lately] = [KEEP, LATELY].map(|last| ring.window(last));
        drop(ring);
        let worst = |window: &Window| findings(window).first().map(|finding| finding.severity);
        view(if worst(&lately) > worst(&all) { &lately } else { &all })
    }

    /// Takes samples until the server stops, on a thread that may take its time.
    pub(super) async fn watch(
        self: Arc<Self>,
        metrics: telemetry::metrics::Handle,
        engine: Arc<Engine>,
        mut stopped: watch::Receiver<bool>,
    ) {
        let mut timer = interval(EVERY);
        timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut models, mut threads) = (BTreeSet::new(), Threads::default());
        loop {
            tokio::select! {
                _ = timer.tick() => {}
                _ = stopped.wait_for(|stop| *stop) => return,
            }
            show_models(&engine, &mut models);
            let (adviser, metrics) = (Arc::clone(&self), metrics.clone());
            let taken = tokio::task::spawn_blocking(move || {
                for (kind, busy) in threads.look(clock::now()) {
                    gauge!("saccade_busy_processors", "threads" => kind).set(busy);
                }
                let sample = Sample::read(&metrics.render());
                (threads, sample.map(|sample| adviser.push(clock::now(), sample)))
            });
            match taken.await {
                Ok((back, Ok(()))) => threads = back,
                Ok((back, Err(error))) => {
                    threads = back;
                    tracing::debug!(%error, "the metrics are no sample for advice");
                }
                Err(panic) => {
                    threads = Threads::default();
                    tracing::error!(%panic, "taking samples for advice panicked");
                }
            }
        }
    }

    fn push(&self, now: Instant, sample: Sample) {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner).push(now, sample);
    }
}

/// Shows how many instances each model has, and what a frame alone takes it; one that is gone has none.
fn show_models(engine: &Engine, known: &mut BTreeSet<String>) {
    let models = engine.models();
    known.extend(models.iter().map(|model| model.id()));
    for id in &*known {
        let model = models.iter().find(|model| model.id() == *id);
        gauge!("saccade_model_instances", "model" => id.clone()).set(model.map_or(0, |model| model.instances()));
        let alone = model.map_or(Duration::ZERO, |model| model.estimate());
        gauge!("saccade_model_frame_seconds", "model" => id.clone()).set(alone.as_secs_f64());
    }
}

/// What limits a server in which this happened, as it is told to clients and operators.
pub(crate) fn view(window: &Window) -> AdviceView {
    let findings = findings(window).into_iter().map(shown).collect();
    AdviceView { window_s: (window.seconds * 10.0).round() / 10.0, findings }
}

fn shown(finding: Finding) -> AdviceFinding {
    let Finding { code, severity, message, evidence, setting, advice } = finding;
    let thousandth = |value: f64| (value * 1e3).round() / 1e3;
    AdviceFinding {
        code: code.to_string(),
        severity: match severity {
            Severity::Info => AdviceSeverity::Info,
            Severity::Warning => AdviceSeverity::Warning,
            Severity::Critical => AdviceSeverity::Critical,
        },
        message,
        evidence: evidence.into_iter().map(|(name, value)| (name.to_owned(), thousandth(value))).collect(),
        setting: setting.to_owned(),
        advice,
        runbook: code.runbook(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::advice::Memory;

    #[test]
    fn what_is_found_is_told_with_the_names_of_the_wire() {
        let memory = vec![Memory { kind: "host".to_owned(), used: 0.976_543, level: Some(2.0) }];
        let view = view(&Window { seconds: 59.96, memory, ..Window::default() });
        assert_eq!((view.window_s.to_string().as_str(), view.findings.len()), ("60", 1));
        let finding = &view.findings[0];
        assert_eq!((finding.code.as_str(), finding.severity), ("memory_near_limit", AdviceSeverity::Critical));
        assert_eq!(finding.evidence["host_memory_used_ratio"].to_string(), "0.977");
        assert_eq!(finding.runbook, "deploy/runbooks/memory_near_limit.md");
        assert!(Adviser::new().view() == AdviceView::default(), "nothing was seen yet");
    }

    #[test]
    fn what_began_lately_is_told_while_most_of_the_minute_was_calm() {
        let (adviser, start) = (Adviser::new(), clock::now());
        let mut told = Vec::new();
        for second in 0..=75_u32 {
            // From the 45th second on, an instance is at work all the time, and half of the frames are given up.
            let bad = second.saturating_sub(45);
            let page = format!(
                "saccade_build_info 1\nsaccade_sessions_active 4\nsaccade_processors 8\nsaccade_processors_busy_ratio 0.3\n\
                 saccade_model_instances{{model=\"m@1\"}} 1\nsaccade_inference_seconds_count{{model=\"m@1\"}} {}\n\
                 saccade_inference_seconds_sum{{model=\"m@1\"}} {}\n\
                 saccade_frames_total{{stage=\"ingest\",outcome=\"done\"}} {}\n\
                 saccade_frames_dropped_total{{stage=\"infer\",reason=\"superseded\"}} {}\n",
                100 * second,
                0.2 * f64::from(second - bad) + f64::from(bad),
                120 * second,
                60 * bad,
            );
            adviser.push(start + Duration::from_secs(second.into()), Sample::read(&page).unwrap());
            let AdviceView { window_s, findings } = adviser.view();
            told.push(findings.first().map(|finding| (finding.code.clone(), finding.severity, window_s.to_string())));
        }
        assert!(told[..=45].iter().all(Option::is_none), "{told:?}");
        let bad = |window: &str| Some(("inference_bound".to_owned(), AdviceSeverity::Critical, window.to_owned()));
        assert_eq!(told[60], bad("15"), "{told:?}");
    }
}

//! What limits the server: samples of its own metrics, once a second for a minute, and what they say as clients are told it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

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

    /// What limits the server, as the samples show it.
    pub(super) fn view(&self) -> AdviceView {
        let window = self.ring.lock().unwrap_or_else(PoisonError::into_inner).window();
        view(&window)
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
            show_instances(&engine, &mut models);
            let (adviser, metrics) = (Arc::clone(&self), metrics.clone());
            let taken = tokio::task::spawn_blocking(move || {
                for (kind, busy) in threads.look(clock::now()) {
                    gauge!("saccade_busy_processors", "threads" => kind).set(busy);
                }
                let sample = Sample::read(&metrics.render());
                (threads, sample.map(|sample| adviser.push(sample)))
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

    fn push(&self, sample: Sample) {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner).push(clock::now(), sample);
    }
}

/// Shows how many instances each model has; one that is gone has none.
fn show_instances(engine: &Engine, known: &mut BTreeSet<String>) {
    let models = engine.models();
    known.extend(models.iter().map(|model| model.id()));
    for id in &*known {
        let instances = models.iter().find(|model| model.id() == *id).map_or(0, |model| model.instances());
        gauge!("saccade_model_instances", "model" => id.clone()).set(instances);
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
mod tests {
    use super::*;
    use crate::advice::Memory;

    #[test]
    fn what_is_found_is_told_with_the_names_of_the_wire() {
        let memory = vec![Memory { kind: "host".to_owned(), used: 0.976_543, level: 2.0 }];
        let view = view(&Window { seconds: 59.96, memory, ..Window::default() });
        assert_eq!((view.window_s.to_string().as_str(), view.findings.len()), ("60", 1));
        let finding = &view.findings[0];
        assert_eq!((finding.code.as_str(), finding.severity), ("memory_near_limit", AdviceSeverity::Critical));
        assert_eq!(finding.evidence["host_memory_used_ratio"].to_string(), "0.977");
        assert_eq!(finding.runbook, "deploy/runbooks/memory_near_limit.md");
        assert!(Adviser::new().view() == AdviceView::default(), "nothing was seen yet");
    }
}

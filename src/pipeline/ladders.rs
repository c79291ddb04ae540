use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use metrics::{Counter, Gauge, counter, gauge};

use crate::clock;
use crate::degrade::{Can, Config, Ladder, Rung, STEPS, Sample};

/// The ladders of all models, each shared by the sessions of one model.
#[derive(Debug, Default)]
pub(super) struct Ladders {
    by_model: Mutex<HashMap<Arc<str>, Arc<Shared>>>,
    /// No session gives anything up.
    off: bool,
}

/// A ladder, and the rung in force where each frame can read it without waiting.
#[derive(Debug)]
struct Shared {
    ladder: Mutex<Ladder>,
    rung: AtomicU64,
    sessions: AtomicU64,
    changes: Counter,
}

/// One session's place on the ladder of its model.
pub(super) struct Footing {
    shared: Option<Arc<Shared>>,
    can: Can,
    /// What the gauge of each step counts for this session.
    counted: Mutex<[bool; STEPS.len()]>,
    gauges: [Gauge; STEPS.len()],
}

impl Ladders {
    /// Ladders that nobody climbs.
    pub(super) fn off() -> Self {
        Self { off: true, ..Self::default() }
    }

    /// A place on the ladder of a model. A ladder that its sessions have left is forgotten: what they gave up says nothing
    /// about the next one.
    pub(super) fn join(&self, model: &Arc<str>, config: Config, can: Can) -> Footing {
        let shared = (!self.off).then(|| {
            let mut ladders = self.by_model.lock().unwrap_or_else(PoisonError::into_inner);
            ladders.retain(|_, shared| shared.sessions.load(Ordering::Relaxed) > 0);
            let shared =
                ladders.entry(Arc::clone(model)).or_insert_with(|| Arc::new(Shared::new(clock::now(), config)));
            shared.sessions.fetch_add(1, Ordering::Relaxed);
            Arc::clone(shared)
        });
        let gauges = STEPS.map(|step| gauge!("saccade_degraded_sessions", "step" => step));
        Footing { shared, can, counted: Mutex::default(), gauges }
    }

    /// How far up its ladder a model is, 0..1, if it has sessions.
    pub(super) fn height(&self, model: &str) -> f32 {
        let ladders = self.by_model.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = ladders.get(model).filter(|shared| shared.sessions.load(Ordering::Relaxed) > 0);
        taken.map_or(0.0, |shared| shared.lock().height())
    }
}

impl Shared {
    fn new(now: Instant, config: Config) -> Self {
        Self {
            ladder: Mutex::new(Ladder::new(now, config)),
            rung: AtomicU64::new(pack(Rung::NONE)),
            sessions: AtomicU64::new(0),
            changes: counter!("saccade_degradation_changes_total"),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Ladder> {
        self.ladder.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Footing {
    /// What the session does without now. From then on the metrics say so.
    pub(super) fn rung(&self) -> Rung {
        let Some(shared) = &self.shared else { return Rung::NONE };
        let rung = unpack(shared.rung.load(Ordering::Relaxed)).within(self.can);
        self.count(rung.steps());
        rung
    }

    /// Tells the ladder what became of a frame.
    pub(super) fn tell(&self, now: Instant, sample: Sample) {
        let Some(shared) = &self.shared else { return };
        let mut ladder = shared.lock();
        let height = ladder.height();
        if ladder.handle(now, sample) {
            let rung = ladder.rung();
            shared.rung.store(pack(rung), Ordering::Relaxed);
            if ladder.height().total_cmp(&height).is_ne() {
                shared.changes.increment(1);
                tracing::debug!(?rung, "degradation changed");
            }
        }
    }

    fn count(&self, steps: [bool; STEPS.len()]) {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        if *counted == steps {
            return;
        }
        for (gauge, (before, now)) in self.gauges.iter().zip(counted.iter().zip(steps)) {
            gauge.increment(f64::from(i8::from(now) - i8::from(*before)));
        }
        *counted = steps;
    }
}

impl Drop for Footing {
    fn drop(&mut self) {
        self.count([false; STEPS.len()]);
        if let Some(shared) = &self.shared {
            shared.sessions.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn pack(rung: Rung) -> u64 {
    u64::from(rung.infer_every & 0xffff)
        | u64::from(rung.return_every & 0xffff) << 16
        | u64::from(rung.smaller_input) << 32
        | u64::from(rung.half_size) << 33
        | u64::from(rung.fill_in) << 34
}

const fn unpack(packed: u64) -> Rung {
    Rung {
        infer_every: (packed & 0xffff) as u32,
        return_every: (packed >> 16 & 0xffff) as u32,
        smaller_input: packed >> 32 & 1 == 1,
        half_size: packed >> 33 & 1 == 1,
        fill_in: packed >> 34 & 1 == 1,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::time::Duration;

    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    const CONFIG: Config = Config { instances: 1, smaller_input: false };
    const ALL: Can = Can { skip_inference: true, fill_in: true, return_less: true };

    fn overload(footing: &Footing) {
        let mut now = clock::now();
        for _ in 0..100 {
            now += Duration::from_millis(30);
            footing.tell(now, Sample::Superseded);
        }
    }

    #[test]
    fn sessions_of_a_model_share_a_ladder_and_each_takes_from_it_what_it_can() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        let shows = |line: &str| assert!(handle.render().contains(line), "{line} is not in {}", handle.render());
        metrics::with_local_recorder(&recorder, || {
            let (ladders, model, other): (_, Arc<str>, Arc<str>) = (Ladders::default(), "a@1".into(), "b@1".into());
            let first = ladders.join(&model, CONFIG, ALL);
            let untracked = ladders.join(&model, CONFIG, Can { skip_inference: false, fill_in: false, ..ALL });
            let elsewhere = ladders.join(&other, CONFIG, ALL);
            assert_eq!(ladders.height(&model), 0.0);
            overload(&first);
            assert!(first.rung().fill_in && ladders.height(&model) > 0.0 && ladders.height(&other) == 0.0);
            assert_eq!((untracked.rung().steps()[0], elsewhere.rung()), (false, Rung::NONE));
            shows(r#"saccade_degraded_sessions{step="skip_inference"} 1"#);
            drop((first, untracked));
            assert_eq!(ladders.join(&model, CONFIG, ALL).rung(), Rung::NONE, "a new session begins at the foot");
            shows(r#"saccade_degraded_sessions{step="skip_inference"} 0"#);
            assert_eq!(ladders.height(&model), 0.0);
            assert_eq!(
                unpack(pack(Rung {
                    fill_in: true,
                    infer_every: 6,
                    smaller_input: true,
                    return_every: 3,
                    half_size: true
                }))
                .names()
                .count(),
                4
            );
        });
    }

    #[test]
    fn nobody_climbs_a_ladder_that_is_off() {
        let footing = Ladders::off().join(&"a@1".into(), CONFIG, ALL);
        overload(&footing);
        assert_eq!(footing.rung(), Rung::NONE);
    }
}

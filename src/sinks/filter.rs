use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{Kind, Source};

/// Which messages a sink takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// Whether it takes events.
    pub events: bool,
    /// Whether it takes results.
    pub results: bool,
    /// Names of the cameras; `None`: all.
    pub cameras: Option<BTreeSet<String>>,
    /// Whether it takes what sessions tell that are no camera's.
    pub sessions: bool,
    /// Names of the events; `None`: all.
    pub names: Option<BTreeSet<String>>,
    /// Least time between two results of one source.
    pub min_interval: Duration,
}

impl Default for Filter {
    fn default() -> Self {
        Self {
            events: true,
            results: false,
            cameras: None,
            sessions: true,
            names: None,
            min_interval: Duration::from_secs(1),
        }
    }
}

impl Filter {
    /// Whether anything of this source is taken.
    pub(super) fn takes_source(&self, source: &Source) -> bool {
        if source.is_camera {
            self.cameras.as_ref().is_none_or(|names| names.contains(&*source.name))
        } else {
            self.sessions
        }
    }

    /// Whether messages of this kind and name are taken of this source.
    pub(super) fn takes(&self, source: &Source, kind: Kind, name: &str) -> bool {
        let wanted = match kind {
            Kind::Event => self.events && self.names.as_ref().is_none_or(|names| names.contains(name)),
            Kind::Result => self.results,
        };
        wanted && self.takes_source(source)
    }
}

/// When each source's last result was taken.
#[derive(Debug, Default)]
pub(super) struct Pace(Mutex<HashMap<Arc<str>, Instant>>);

impl Pace {
    /// Whether another result may be taken now.
    pub(super) fn is_due(&self, source: &Source, least: Duration, now: Instant) -> bool {
        let last = self.lock().get(&source.name).copied();
        last.is_none_or(|last| now.saturating_duration_since(last) >= least)
    }

    /// Says the same, and takes it.
    pub(super) fn take(&self, source: &Source, least: Duration, now: Instant) -> bool {
        let due = self.is_due(source, least, now);
        if due {
            self.lock().insert(Arc::clone(&source.name), now);
        }
        due
    }

    /// Forgets a source that is gone.
    pub(super) fn forget(&self, source: &Source) {
        self.lock().remove(&source.name);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Arc<str>, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(name: &str, is_camera: bool) -> Source {
        Source { name: name.into(), is_camera }
    }

    #[test]
    fn sources_kinds_and_names_are_chosen() {
        let (door, yard, peer) = (source("door", true), source("yard", true), source("0a1b", false));
        let all = Filter::default();
        for source in [&door, &yard, &peer] {
            assert!(all.takes(source, Kind::Event, "zone_left") && !all.takes(source, Kind::Result, "result"));
        }
        let some = Filter {
            results: true,
            cameras: Some(BTreeSet::from(["door".to_owned()])),
            sessions: false,
            names: Some(BTreeSet::from(["alert_started".to_owned()])),
            ..Filter::default()
        };
        assert!(some.takes(&door, Kind::Event, "alert_started") && some.takes(&door, Kind::Result, "result"));
        assert!(!some.takes(&door, Kind::Event, "alert_ended"));
        assert!(!some.takes(&yard, Kind::Event, "alert_started") && !some.takes(&peer, Kind::Result, "result"));
    }

    #[test]
    fn results_of_each_source_keep_their_distance() {
        let (pace, second) = (Pace::default(), Duration::from_secs(1));
        let (a, b, start) = (source("a", true), source("b", true), crate::clock::now());
        assert!(pace.take(&a, second, start) && pace.take(&b, second, start + second / 2));
        assert!(!pace.take(&a, second, start + second / 2) && !pace.is_due(&a, second, start + second / 2));
        assert!(pace.is_due(&a, second, start + second) && pace.take(&a, second, start + second));
        assert!(!pace.take(&a, second, start + second));
        pace.forget(&a);
        assert!(pace.take(&a, second, start + second) && pace.take(&b, Duration::ZERO, start + second / 2));
    }
}

//! How much memory is in use, of the host and of devices, and what that means.
//!
//! What enters: figures of a [`Source`], every second or so. What leaves: a [`Level`] of each [`Kind`], with hysteresis, as a
//! [`Look`]; metrics and, once a crossing, a line in the log. What is done about it is for whoever looks to decide. Reading
//! may wait for the kernel: it is for a thread that may. A leaf.

mod allocator;
mod host;
mod level;

use metrics::{counter, gauge};

pub use allocator::give_back;
pub use host::Host;
pub use level::{Level, Limits, Watermark};

/// Whose memory it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The machine's, or what a control group lets the process have of it.
    Host,
    /// A GPU's; of several the fullest counts.
    Device,
}

impl Kind {
    /// The value of the label `kind`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Device => "device",
        }
    }
}

/// What is in use of something that has an end, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// In use, without what the kernel gives back at once when it is asked.
    pub used: u64,
    /// There at the most; not 0.
    pub limit: u64,
}

impl Usage {
    /// Share that is in use; above 1 where more is used than there should be.
    #[must_use]
    pub fn ratio(self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "bytes of memory")]
        let ratio = self.used as f64 / self.limit.max(1) as f64;
        ratio
    }
}

/// Whoever knows how much memory is in use.
pub trait Source: Send {
    /// Looks; `None` where it cannot be told. Takes a moment.
    fn read(&mut self) -> Option<Usage>;
}

impl<F: FnMut() -> Option<Usage> + Send> Source for F {
    fn read(&mut self) -> Option<Usage> {
        self()
    }
}

/// The watch over all kinds of memory.
pub struct Watch(Vec<Watched>);

struct Watched {
    kind: Kind,
    source: Box<dyn Source>,
    watermark: Watermark,
}

/// What one look found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// The worst of all kinds.
    pub level: Level,
    /// Its kind; of several the first.
    pub kind: Kind,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_list().entries(self.0.iter().map(|watched| (watched.kind, watched.watermark.level()))).finish()
    }
}

impl Watch {
    /// Watches these with these limits.
    #[must_use]
    pub fn new(limits: Limits, sources: Vec<(Kind, Box<dyn Source>)>) -> Self {
        let watched = |(kind, source)| Watched { kind, source, watermark: Watermark::new(limits) };
        Self(sources.into_iter().map(watched).collect())
    }

    /// Looks at all of them. What cannot be told keeps its level.
    pub fn look(&mut self) -> Look {
        let mut worst = Look { level: Level::Enough, kind: Kind::Host };
        for watched in &mut self.0 {
            let level = watched.look();
            if level > worst.level {
                worst = Look { level, kind: watched.kind };
            }
        }
        worst
    }
}

impl Watched {
    fn look(&mut self) -> Level {
        let Some(usage) = self.source.read() else { return self.watermark.level() };
        let (ratio, before) = (usage.ratio(), self.watermark.level());
        let level = self.watermark.update(ratio);
        let kind = self.kind.as_str();
        gauge!("saccade_memory_used_ratio", "kind" => kind).set(ratio);
        gauge!("saccade_memory_level", "kind" => kind).set(f64::from(level.number()));
        let (used_mib, limit_mib) = (usage.used >> 20, usage.limit >> 20);
        match level {
            _ if level == before => {}
            Level::Short => {
                counter!("saccade_memory_sheds_total", "kind" => kind).increment(1);
                tracing::warn!(
                    kind,
                    used_mib,
                    limit_mib,
                    "memory is short: caches are emptied, and nothing new is begun"
                );
            }
            Level::Scarce if before < level => tracing::warn!(kind, used_mib, limit_mib, "memory becomes scarce"),
            Level::Scarce => {
                tracing::warn!(kind, used_mib, limit_mib, "new work is taken again; memory stays scarce")
            }
            Level::Enough => tracing::info!(kind, used_mib, limit_mib, "there is memory enough again"),
        }
        level
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    type Figures = Arc<Mutex<Option<u64>>>;

    fn source(percent: &Figures) -> Box<dyn Source> {
        let percent = Arc::clone(percent);
        Box::new(move || Some(Usage { used: (*percent.lock().unwrap())?, limit: 100 }))
    }

    #[test]
    fn the_worst_kind_counts_and_what_cannot_be_told_stays() {
        let [host, device] = [Figures::default(), Figures::default()];
        let limits = Limits { warn: 0.8, shed: 0.95 };
        let mut watch = Watch::new(limits, vec![(Kind::Host, source(&host)), (Kind::Device, source(&device))]);
        let mut look = |host_used, device_used| {
            (*host.lock().unwrap(), *device.lock().unwrap()) = (host_used, device_used);
            let Look { level, kind } = watch.look();
            (level, kind)
        };
        assert_eq!(look(None, None).0, Level::Enough);
        assert_eq!(look(Some(50), Some(85)), (Level::Scarce, Kind::Device));
        assert_eq!(look(Some(96), Some(85)), (Level::Short, Kind::Host));
        assert_eq!(look(None, Some(10)), (Level::Short, Kind::Host));
        assert_eq!(look(Some(10), None).0, Level::Enough);
    }

    #[test]
    fn more_than_there_is_is_a_ratio_above_one() {
        assert!(Usage { used: 3, limit: 2 }.ratio() > 1.4);
        assert!(Usage { used: 3, limit: 0 }.ratio().is_finite());
    }
}

//! What was measured when the server started, kept from one start to the next.
//!
//! One JSON file for all models, codecs and machines: keys that tell what a measurement depends on, and what was found.
//! It is a cache: one that can't be read, or that another version wrote, is ignored and written anew, and one that can't
//! be written is done without.

use std::env;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::clock;

/// Raised whenever the meaning of the file or the way to measure changes.
const FORMAT: u32 = 4;
/// Entries that are kept, the newest ones.
const MAX_ENTRIES: usize = 256;
/// A longer file is none of ours.
const MAX_BYTES: u64 = 1 << 20;
/// A tick of the kernel's counters (`USER_HZ`, 100 on all of Linux).
const TICK_MS: u64 = 10;
const TICK: Duration = Duration::from_millis(TICK_MS);
/// What others may use of one processor, in percent, without a measurement suffering from it.
const QUIET_PERCENT: u32 = 25;

/// Whether measurements are kept, and where.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Calibration {
    /// Nowhere: each start measures.
    #[default]
    Off,
    /// In this file; what it has is not measured again.
    Keep(PathBuf),
    /// In this file, but everything is measured and replaces what it has.
    Renew(PathBuf),
}

/// Where numbers are from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// They were measured when the program started.
    Measured,
    /// They were measured at an earlier start.
    Kept,
}

/// How busy other programs kept the machine while something was measured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Disturbance {
    /// Processor time of others, in percent of one processor: 200 are two busy ones.
    percent: u32,
}

/// Watches the machine for a [`Disturbance`].
#[derive(Debug)]
pub struct Watch {
    since: Instant,
    /// Processor time of all programs until then, where the kernel tells.
    all: Option<Duration>,
    own: Duration,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    format: u32,
    /// Oldest first.
    entries: Vec<Entry>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    key: Value,
    found: Value,
}

impl Calibration {
    /// If they are to be kept: in `${XDG_CACHE_HOME:-~/.cache}/saccade/calibration.json`; off where there is no home.
    #[must_use]
    pub fn standard(keep: bool) -> Self {
        let folder = cache_folder().filter(|_| keep);
        folder.map_or(Self::Off, |folder| Self::Keep(folder.join("calibration.json")))
    }

    /// The same file, but everything is measured and replaces what it has.
    #[must_use]
    pub fn renewed(self) -> Self {
        match self {
            Self::Keep(path) | Self::Renew(path) => Self::Renew(path),
            Self::Off => Self::Off,
        }
    }

    /// Whether what is measured is there at the next start.
    #[must_use]
    pub const fn keeps(&self) -> bool {
        !matches!(self, Self::Off)
    }

    /// What the file has for this key.
    pub fn get<F: DeserializeOwned>(&self, key: &impl Serialize) -> Option<F> {
        let Self::Keep(path) = self else { return None };
        let key = serde_json::to_value(key).ok()?;
        let kept = read(path).inspect_err(|reason| tracing::debug!(path = %path.display(), reason, "no calibration"));
        let entry = kept.ok()?.entries.into_iter().rfind(|entry| entry.key == key)?;
        serde_json::from_value(entry.found).ok()
    }

    /// Writes a measurement into the file, beside what others wrote.
    pub fn put(&self, key: &impl Serialize, found: &impl Serialize) {
        let (Self::Keep(path) | Self::Renew(path)) = self else { return };
        let (Ok(key), Ok(found)) = (serde_json::to_value(key), serde_json::to_value(found)) else { return };
        let mut kept = read(path).unwrap_or(Kept { format: FORMAT, entries: Vec::new() });
        kept.entries.retain(|entry| entry.key != key);
        kept.entries.push(Entry { key, found });
        kept.entries.drain(..kept.entries.len().saturating_sub(MAX_ENTRIES));
        if let Err(error) = write(path, &kept) {
            tracing::debug!(path = %path.display(), %error, "the calibration cannot be kept");
        }
    }
}

impl Origin {
    /// For people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Measured => "measured now",
            Self::Kept => "measured at an earlier start",
        }
    }
}

impl Disturbance {
    /// This much of one processor's time, in percent.
    #[must_use]
    pub const fn of(percent: u32) -> Self {
        Self { percent }
    }

    /// How many processors others kept busy, if that was enough to make what was measured too slow.
    #[must_use]
    pub fn processors(self) -> Option<f64> {
        (self.percent > QUIET_PERCENT).then(|| f64::from(self.percent) / 100.0)
    }
}

impl Watch {
    /// From now on.
    #[must_use]
    pub fn start() -> Self {
        Self { since: clock::now(), all: machine_time(), own: clock::processor_time() }
    }

    /// Share of the processors that were busy until now, 0..1: of all there are, whoever used them, or of those that this
    /// process may use, with its own work, whichever is more.
    #[must_use]
    pub fn busy(&self) -> f64 {
        let wall = clock::now().duration_since(self.since).max(TICK);
        let allowed = thread::available_parallelism().map_or(1, NonZero::get);
        let own = clock::processor_time().saturating_sub(self.own).div_duration_f64(wall) / allowed as f64;
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        let (now, there) = (parse_stat(&stat), count_processors(&stat));
        let all = now.zip(self.all).map_or(0.0, |(now, then)| now.saturating_sub(then).div_duration_f64(wall));
        own.max(all / there.max(1) as f64).min(1.0)
    }

    /// Until now.
    #[must_use]
    pub fn stop(self) -> Disturbance {
        let wall = clock::now().duration_since(self.since).max(TICK);
        let own = clock::processor_time().saturating_sub(self.own);
        let all = machine_time().zip(self.all).map_or(own, |(now, then)| now.saturating_sub(then));
        // Either counter may be a tick off.
        let others = all.saturating_sub(own + 2 * TICK);
        Disturbance { percent: (100 * others.as_micros() / wall.as_micros()).try_into().unwrap_or(u32::MAX) }
    }
}

/// Where what can be made again is kept: `${XDG_CACHE_HOME:-~/.cache}/saccade`.
#[must_use]
pub fn cache_folder() -> Option<PathBuf> {
    let folder = |variable| env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = folder("XDG_CACHE_HOME").or_else(|| folder("HOME").map(|home| home.join(".cache")));
    cache.map(|cache| cache.join("saccade"))
}

/// The time that all processors together have worked since the machine started.
fn machine_time() -> Option<Duration> {
    parse_stat(&fs::read_to_string("/proc/stat").ok()?)
}

/// User, nice, system, interrupts and stolen time in the first line of `/proc/stat`; neither idle nor waiting.
fn parse_stat(text: &str) -> Option<Duration> {
    let line = text.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = line.split_whitespace().map_while(|field| field.parse().ok()).take(8).collect();
    let [user, nice, system, _idle, _iowait, irq, softirq, steal] = ticks.try_into().ok()?;
    Some(Duration::from_millis(TICK_MS.checked_mul(user + nice + system + irq + softirq + steal)?))
}

/// Lines of `/proc/stat` that are about one processor.
fn count_processors(text: &str) -> usize {
    let is_one =
        |line: &&str| line.strip_prefix("cpu").is_some_and(|rest| rest.starts_with(|next: char| next.is_ascii_digit()));
    text.lines().filter(is_one).count()
}

fn read(path: &Path) -> Result<Kept, String> {
    let mut text = String::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    file.take(MAX_BYTES).read_to_string(&mut text).map_err(|error| error.to_string())?;
    let kept: Kept = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    if kept.format == FORMAT { Ok(kept) } else { Err(format!("it has format {}", kept.format)) }
}

/// In one step, so that another process sees the old file or the new one.
fn write(path: &Path, kept: &Kept) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut file = tempfile::Builder::new().prefix(".calibration").tempfile_in(folder)?;
    serde_json::to_writer_pretty(&mut file, kept)?;
    file.flush()?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Found {
        micros: u64,
    }

    const FIVE: Found = Found { micros: 5_000 };

    #[test]
    fn what_is_put_is_there_for_its_key_only() {
        let folder = tempfile::tempdir().unwrap();
        let calibration = Calibration::Keep(folder.path().join("deep/calibration.json"));
        assert_eq!(calibration.get::<Found>(&"a"), None);
        calibration.put(&"a", &FIVE);
        calibration.put(&("b", 2), &Found { micros: 6 });
        calibration.put(&"a", &Found { micros: 7 });
        assert_eq!(calibration.get(&"a"), Some(Found { micros: 7 }));
        assert_eq!(calibration.get(&("b", 2)), Some(Found { micros: 6 }));
        assert_eq!(calibration.get::<Found>(&("b", 3)), None);
        assert_eq!(calibration.clone().renewed().get::<Found>(&"a"), None, "measured again");
        assert_eq!(fs::read_dir(folder.path().join("deep")).unwrap().count(), 1, "no temporary file is left");
        Calibration::Off.put(&"a", &FIVE);
        assert_eq!(Calibration::Off.get::<Found>(&"a"), None);
    }

    #[test]
    fn a_broken_or_foreign_file_is_ignored_and_written_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("calibration.json");
        let calibration = Calibration::Keep(path.clone());
        calibration.put(&"a", &FIVE);
        let good = fs::read_to_string(&path).unwrap();
        for bad in [
            String::new(),
            good[..good.len() / 2].to_owned(),
            good.replace(&format!("\"format\": {FORMAT}"), "\"format\": 1"),
            good.replace("\"format\"", "\"shape\""),
            good.replace("\"micros\"", "\"hours\""),
            good.replace("5000", "-5000"),
            "\u{0}".repeat(100),
        ] {
            assert_ne!(bad, good);
            fs::write(&path, &bad).unwrap();
            assert_eq!(calibration.get::<Found>(&"a"), None, "{bad}");
            calibration.put(&"a", &FIVE);
            assert_eq!(fs::read_to_string(&path).unwrap(), good);
        }
    }

    #[test]
    fn a_file_that_cannot_be_written_is_done_without() {
        let folder = tempfile::tempdir().unwrap();
        let blocked = folder.path().join("file");
        fs::write(&blocked, "in the way").unwrap();
        let calibration = Calibration::Keep(blocked.join("calibration.json"));
        calibration.put(&"a", &FIVE);
        assert_eq!(calibration.get::<Found>(&"a"), None);
    }

    #[test]
    fn the_file_does_not_grow_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let calibration = Calibration::Keep(folder.path().join("calibration.json"));
        (0..MAX_ENTRIES + 5).for_each(|nth| calibration.put(&nth, &FIVE));
        assert_eq!(calibration.get::<Found>(&4), None);
        assert!(calibration.get::<Found>(&5).is_some());
    }

    #[test]
    fn idle_and_waiting_time_is_no_work() {
        let stat = "cpu  100 20 3 99999 888 7 6 5 1 1\ncpu0 1 2 3 4 5 6 7 8 0 0\n";
        assert_eq!(parse_stat(stat), Some(TICK * (100 + 20 + 3 + 7 + 6 + 5)));
        assert_eq!((parse_stat(""), parse_stat("cpu 1 2"), parse_stat("cpu a b c d e f g h")), (None, None, None));
        assert_eq!((count_processors(stat), count_processors("")), (1, 0));
    }

    #[test]
    fn a_little_company_does_not_disturb() {
        assert_eq!(Disturbance::default().processors(), None);
        assert_eq!(Disturbance::of(QUIET_PERCENT).processors(), None);
        assert_eq!(Disturbance::of(150).processors(), Some(1.5));
    }

    #[test]
    fn work_makes_busy() {
        let watch = Watch::start();
        let until = clock::now() + 10 * TICK;
        while clock::now() < until {
            std::hint::spin_loop();
        }
        let busy = watch.busy();
        assert!(busy > 0.0 && busy <= 1.0, "{busy}");
    }

    #[test]
    fn own_work_is_no_disturbance() {
        let watch = Watch { since: clock::now(), all: Some(Duration::ZERO), own: Duration::ZERO };
        let all = machine_time().unwrap();
        // All that this machine ever did, less what this process did.
        assert!(watch.stop().percent > 0 && all > clock::processor_time());
        let own = Watch { since: clock::now(), all: None, own: Duration::ZERO };
        assert_eq!(own.stop(), Disturbance::default());
    }
}

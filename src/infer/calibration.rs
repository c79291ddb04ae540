//! What was measured when models were loaded, kept from one start of the program to the next.
//!
//! One JSON file for all models and machines. It is a cache: one that can't be read, or that another version wrote, is
//! ignored and written anew, and one that can't be written is done without.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::backend::{Selection, cache_folder};
use super::manifest::Precision;

/// Raised whenever the meaning of the file or the way to measure changes.
const FORMAT: u32 = 1;
/// Entries that are kept, the newest ones.
const MAX_ENTRIES: usize = 256;
/// A longer file is none of ours.
const MAX_BYTES: u64 = 1 << 20;
/// A longer time is no measurement.
const MAX_TIME: Duration = Duration::from_secs(60);

/// Whether measurements are kept, and where.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Calibration {
    /// Nowhere: each load measures.
    #[default]
    Off,
    /// In this file; what it has is not measured again.
    Keep(PathBuf),
    /// In this file, but each load measures and replaces what it has.
    Renew(PathBuf),
}

/// What a measurement depends on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Key {
    /// `name@version`, for whoever reads the file.
    pub(super) model: String,
    /// SHA-256 of the graphs.
    pub(super) files: Vec<String>,
    /// Processor, its features and cores.
    pub(super) machine: String,
    /// Build of ONNX Runtime, and what lies beside it.
    pub(super) library: String,
    /// What manifest and operator ask for.
    pub(super) settings: String,
}

/// What was measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Found {
    pub(super) provider: String,
    pub(super) precision: String,
    /// Batch sizes and the time of a run, in microseconds.
    buckets: Vec<(usize, u64)>,
    pub(super) others: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    format: u32,
    /// Oldest first.
    models: Vec<Entry>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    key: Key,
    found: Found,
}

impl Calibration {
    /// If they are to be kept: in `${XDG_CACHE_HOME:-~/.cache}/saccade/calibration.json`; off where there is no home.
    #[must_use]
    pub fn standard(keep: bool) -> Self {
        let folder = cache_folder().filter(|_| keep);
        folder.map_or(Self::Off, |folder| Self::Keep(folder.join("calibration.json")))
    }

    /// The same file, but each load measures and replaces what it has.
    #[must_use]
    pub fn renewed(self) -> Self {
        match self {
            Self::Keep(path) | Self::Renew(path) => Self::Renew(path),
            Self::Off => Self::Off,
        }
    }

    /// What the file has for this key, if it makes sense.
    pub(super) fn get(&self, key: &Key) -> Option<Found> {
        let Self::Keep(path) = self else { return None };
        let kept = read(path).inspect_err(|reason| tracing::debug!(path = %path.display(), reason, "no calibration"));
        let entry = kept.ok()?.models.into_iter().rfind(|entry| entry.key == *key)?;
        Some(entry.found).filter(Found::makes_sense)
    }

    /// Writes a measurement into the file, beside what others wrote.
    pub(super) fn put(&self, key: Key, found: Found) {
        let (Self::Keep(path) | Self::Renew(path)) = self else { return };
        let mut kept = read(path).unwrap_or(Kept { format: FORMAT, models: Vec::new() });
        kept.models.retain(|entry| entry.key != key);
        kept.models.push(Entry { key, found });
        kept.models.drain(..kept.models.len().saturating_sub(MAX_ENTRIES));
        if let Err(error) = write(path, &kept) {
            tracing::debug!(path = %path.display(), %error, "the calibration cannot be kept");
        }
    }
}

impl Found {
    pub(super) fn new(selection: &Selection) -> Self {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1);
        Self {
            provider: selection.provider.name().to_owned(),
            precision: selection.precision.name().to_owned(),
            buckets: selection.buckets.iter().map(|(size, time)| (*size, micros(*time))).collect(),
            others: selection.others.clone(),
        }
    }

    /// Batch sizes and the time of a run.
    pub(super) fn buckets(&self) -> Vec<(usize, Duration)> {
        self.buckets.iter().map(|(size, time)| (*size, Duration::from_micros(*time))).collect()
    }

    pub(super) fn precision(&self) -> Option<Precision> {
        let all = [Precision::Fp32, Precision::Bf16, Precision::Fp16, Precision::Int8];
        all.into_iter().find(|precision| precision.name() == self.precision)
    }

    fn makes_sense(&self) -> bool {
        let buckets = self.buckets();
        let times = buckets.iter().all(|(_, time)| !time.is_zero() && *time <= MAX_TIME);
        times && buckets.first().is_some_and(|(size, _)| *size == 1) && buckets.is_sorted_by(|a, b| a.0 < b.0)
    }
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

    fn key(model: &str) -> Key {
        let text = |text: &str| text.to_owned();
        Key { model: text(model), files: vec![], machine: text("m"), library: text("l"), settings: text("s") }
    }

    fn found(micros: u64) -> Found {
        let name = |name: &str| name.to_owned();
        let buckets = vec![(1, micros), (2, 2 * micros)];
        Found { provider: name("cpu"), precision: name("int8"), buckets, others: vec![name("slower")] }
    }

    #[test]
    fn what_is_put_is_there_for_its_key_only() {
        let folder = tempfile::tempdir().unwrap();
        let calibration = Calibration::Keep(folder.path().join("deep/calibration.json"));
        assert_eq!(calibration.get(&key("a")), None);
        calibration.put(key("a"), found(5_000));
        calibration.put(key("b"), found(6_000));
        calibration.put(key("a"), found(7_000));
        let a = calibration.get(&key("a")).unwrap();
        assert_eq!(a.buckets(), [(1, Duration::from_millis(7)), (2, Duration::from_millis(14))]);
        assert_eq!(a.precision(), Some(Precision::Int8));
        assert_eq!(calibration.get(&key("b")), Some(found(6_000)));
        let changes: [fn(&mut Key); 3] =
            [|key| key.machine.push('x'), |key| key.library.push('x'), |key| key.settings.push('x')];
        for change in changes {
            let mut other = key("a");
            change(&mut other);
            assert_eq!(calibration.get(&other), None);
        }
        assert_eq!(calibration.clone().renewed().get(&key("a")), None, "measured again");
        assert_eq!(fs::read_dir(folder.path().join("deep")).unwrap().count(), 1, "no temporary file is left");
        Calibration::Off.put(key("a"), found(1));
        assert_eq!(Calibration::Off.get(&key("a")), None);
    }

    #[test]
    fn a_broken_or_foreign_file_is_ignored_and_written_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("calibration.json");
        let calibration = Calibration::Keep(path.clone());
        calibration.put(key("a"), found(5_000));
        let good = fs::read_to_string(&path).unwrap();
        for bad in [
            String::new(),
            good[..good.len() / 2].to_owned(),
            good.replace("\"format\": 1", "\"format\": 2"),
            good.replace("\"format\"", "\"shape\""),
            good.replace("\"cpu\"", "7"),
            good.replace("5000", "0"),
            good.replace("5000", "99999999999"),
            "\u{0}".repeat(100),
        ] {
            assert_ne!(bad, good);
            fs::write(&path, &bad).unwrap();
            assert_eq!(calibration.get(&key("a")), None, "{bad}");
            calibration.put(key("a"), found(5_000));
            assert_eq!(fs::read_to_string(&path).unwrap(), good);
        }
    }

    #[test]
    fn a_file_that_cannot_be_written_is_done_without() {
        let folder = tempfile::tempdir().unwrap();
        let blocked = folder.path().join("file");
        fs::write(&blocked, "in the way").unwrap();
        let calibration = Calibration::Keep(blocked.join("calibration.json"));
        calibration.put(key("a"), found(5_000));
        assert_eq!(calibration.get(&key("a")), None);
    }

    #[test]
    fn the_file_does_not_grow_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let calibration = Calibration::Keep(folder.path().join("calibration.json"));
        (0..MAX_ENTRIES + 5).for_each(|nth| calibration.put(key(&nth.to_string()), found(1)));
        assert_eq!(calibration.get(&key("4")), None);
        assert!(calibration.get(&key("5")).is_some());
    }
}

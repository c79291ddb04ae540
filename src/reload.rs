//! Values that are read from files, and read again when the files change.
//!
//! A leaf. What cannot be read leaves the value as it was: a file that is being replaced must not take down what works.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwap;

/// A value and the files that it came from. Whoever holds it calls [`Reloaded::look`] every second or so, on a thread
/// that may block.
pub struct Reloaded<T> {
    paths: Vec<PathBuf>,
    read: Box<dyn Fn() -> Result<T, String> + Send + Sync>,
    value: ArcSwap<T>,
    seen: Mutex<Vec<Stamp>>,
}

impl<T> Reloaded<T> {
    /// Reads the value for the first time. `read` reads the files of `paths`.
    ///
    /// # Errors
    /// What `read` gives.
    pub fn new<E: fmt::Display>(
        paths: Vec<PathBuf>,
        read: impl Fn() -> Result<T, E> + Send + Sync + 'static,
    ) -> Result<Self, E> {
        // Looked at first: what changes while it is read is read again.
        let seen = stamps(&paths);
        let value = ArcSwap::from_pointee(read()?);
        let read = Box::new(move || read().map_err(|error| error.to_string()));
        Ok(Self { paths, read, value, seen: Mutex::new(seen) })
    }

    /// The value as it was read last.
    #[must_use]
    pub fn get(&self) -> Arc<T> {
        self.value.load_full()
    }

    /// Reads the value again if a file has changed, and keeps the old one if that fails. Blocks on the file system.
    pub fn look(&self) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let now = stamps(&self.paths);
        if *seen == now {
            return;
        }
        let files = self.paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
        match (self.read)() {
            Ok(value) => {
                self.value.store(Arc::new(value));
                tracing::info!(files, "read again");
            }
            Err(error) => {
                tracing::warn!(files, error, "changed, but cannot be used; what was read before still counts")
            }
        }
        *seen = now;
    }
}

impl<T> fmt::Debug for Reloaded<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reloaded").field("paths", &self.paths).finish_non_exhaustive()
    }
}

/// What tells one state of a file from another; `None` while it is not there.
type Stamp = Option<(u64, u64, Option<SystemTime>, (i64, i64))>;

fn stamps(paths: &[PathBuf]) -> Vec<Stamp> {
    // Who may read a file changes its status only.
    let state = |file: fs::Metadata| (file.ino(), file.len(), file.modified().ok(), (file.ctime(), file.ctime_nsec()));
    paths.iter().map(|path| fs::metadata(path).ok().map(state)).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn what_changed_is_read_again_and_what_is_broken_is_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("number");
        // Another file in the same place, as people replace what is in use.
        let put = |text: &str| {
            let next = folder.path().join("next");
            fs::write(&next, text).unwrap();
            fs::rename(next, &path).unwrap();
        };
        let read = |path: PathBuf| move || fs::read_to_string(&path).unwrap_or_default().parse::<u32>();
        assert!(Reloaded::new(vec![path.clone()], read(path.clone())).is_err());
        put("1");
        let number = Reloaded::new(vec![path.clone()], read(path.clone())).unwrap();
        number.look();
        assert_eq!(*number.get(), 1);
        let held = number.get();
        for (text, expected) in [("2", 2), ("three", 2), ("4", 4)] {
            put(text);
            number.look();
            assert_eq!(*number.get(), expected, "{text}");
        }
        fs::remove_file(&path).unwrap();
        number.look();
        assert_eq!((*number.get(), *held), (4, 1));
    }
}

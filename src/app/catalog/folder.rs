//! What lies in the folder of models, without reading it, and how it is noticed that this has changed.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

/// Files of a version that are looked at.
const MAX_FILES: usize = 256;

/// Name and version by the folders' names.
pub(super) type Id = (String, String);

/// Size and time of each file of a version.
pub(super) type Stamp = Vec<(String, u64, i64, i64, u64)>;

/// The versions that are there: those with a manifest. What is being copied may have none yet.
pub(super) fn versions(root: &Path) -> io::Result<BTreeMap<Id, Stamp>> {
    let mut found = BTreeMap::new();
    for (name, folder) in folders(root)? {
        // It may be gone again.
        for (version, folder) in folders(&folder).unwrap_or_default() {
            if let Some(stamp) = stamp(&folder) {
                found.insert((name.clone(), version), stamp);
            }
        }
    }
    Ok(found)
}

/// The stamp of one version; none where there is no manifest.
pub(super) fn stamp(folder: &Path) -> Option<Stamp> {
    let mut stamp = Stamp::new();
    for entry in fs::read_dir(folder).ok()?.flatten().take(MAX_FILES) {
        // Of a link, what it leads to.
        let Ok(about) = fs::metadata(entry.path()) else { continue };
        if about.is_file() {
            let name = entry.file_name().to_string_lossy().into_owned();
            stamp.push((name, about.len(), about.mtime(), about.mtime_nsec(), about.ino()));
        }
    }
    stamp.sort();
    stamp.iter().any(|(name, ..)| name == "manifest.toml").then_some(stamp)
}

/// Whether a version that is not among [`versions`] is gone; one that only can't be looked at is not.
pub(super) fn is_gone(folder: &Path) -> bool {
    match fs::metadata(folder.join("manifest.toml")) {
        Ok(about) => !about.is_file(),
        Err(error) => matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory),
    }
}

/// Folders in a folder that are not hidden.
fn folders(parent: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(parent)?.flatten() {
        let (name, path) = (entry.file_name().to_string_lossy().into_owned(), entry.path());
        if !name.starts_with('.') && path.is_dir() {
            found.push((name, path));
        }
    }
    Ok(found)
}

/// Which versions changed, and have stayed as they are for a while.
#[derive(Debug, Default)]
pub(super) struct Settling {
    seen: BTreeMap<Id, (Option<Stamp>, Instant)>,
}

impl Settling {
    /// Takes the stamp of a version, none if it is not there, and says whether it has been the same for `settle`.
    pub(super) fn look(&mut self, now: Instant, id: &Id, stamp: Option<&Stamp>, settle: Duration) -> bool {
        match self.seen.get(id) {
            Some((before, since)) if before.as_ref() == stamp => now.saturating_duration_since(*since) >= settle,
            _ => {
                self.seen.insert(id.clone(), (stamp.cloned(), now));
                settle.is_zero()
            }
        }
    }

    /// Forgets a version.
    pub(super) fn forget(&mut self, id: &Id) {
        self.seen.remove(id);
    }
}

/// The kernel's messages about the folder.
pub(super) struct Messages {
    inotify: OwnedFd,
}

impl Messages {
    /// # Errors
    /// The system's: there are only so many of these.
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self { inotify: inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)? })
    }

    /// Hears of the folder, and of the folders in it that are there now; to be called again when these may be others.
    ///
    /// # Errors
    /// The system's: there are only so many folders to be heard of.
    pub(super) fn listen(&self, root: &Path) -> io::Result<()> {
        let of = WatchFlags::CREATE
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::MODIFY
            | WatchFlags::DELETE
            | WatchFlags::MOVED_TO
            | WatchFlags::MOVED_FROM
            | WatchFlags::ATTRIB
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR;
        let add = |path: &Path| inotify::add_watch(&self.inotify, path, of).map(drop);
        add(root)?;
        for (_, name) in folders(root)? {
            // What is gone by now is no failure.
            match add(&name) {
                Ok(()) | Err(Errno::NOENT | Errno::NOTDIR) => {}
                Err(error) => return Err(error.into()),
            }
            for (_, version) in folders(&name).unwrap_or_default() {
                match add(&version) {
                    Ok(()) | Err(Errno::NOENT | Errno::NOTDIR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    /// Whether there was a message since this was last asked.
    pub(super) fn heard(&self) -> bool {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
        let mut heard = false;
        // That a folder is no longer listened to is heard last of it, and is nothing new.
        while let Ok(event) = reader.next() {
            heard |= !event.events().contains(ReadFlags::IGNORED);
        }
        heard
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::clock;

    fn put(root: &Path, path: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "x").unwrap();
    }

    #[test]
    fn a_version_is_there_once_it_has_a_manifest() {
        let root = tempfile::tempdir().unwrap();
        put(root.path(), "a/1/model.onnx");
        put(root.path(), "a/.2/manifest.toml");
        put(root.path(), "README.md");
        assert_eq!(versions(root.path()).unwrap(), BTreeMap::new());
        put(root.path(), "a/1/manifest.toml");
        let before = versions(root.path()).unwrap();
        assert_eq!(before.keys().cloned().collect::<Vec<_>>(), [("a".to_owned(), "1".to_owned())]);
        fs::write(root.path().join("a/1/model.onnx"), "xy").unwrap();
        assert_ne!(versions(root.path()).unwrap(), before);
        assert!(versions(&root.path().join("none")).is_err());
    }

    #[test]
    fn what_cannot_be_looked_at_is_not_gone() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("a/1");
        put(root.path(), "a/1/manifest.toml");
        assert!(!is_gone(&folder));
        // A link to itself fails for everybody; a folder without permissions does not for root.
        fs::rename(root.path().join("a"), root.path().join("b")).unwrap();
        std::os::unix::fs::symlink("a", root.path().join("a")).unwrap();
        assert_eq!(versions(root.path()).unwrap().keys().filter(|id| id.0 == "a").count(), 0);
        assert!(!is_gone(&folder));
        fs::remove_file(root.path().join("a")).unwrap();
        assert!(is_gone(&folder));
        fs::write(root.path().join("a"), "x").unwrap();
        assert!(is_gone(&folder), "a file has its name");
        assert!(is_gone(&root.path().join("b/2")));
    }

    #[test]
    fn what_changes_is_waited_for() {
        let (mut settling, id) = (Settling::default(), ("a".to_owned(), "1".to_owned()));
        let (start, settle) = (clock::now(), Duration::from_secs(1));
        let stamp = |size| vec![("manifest.toml".to_owned(), size, 0, 0, 0)];
        let mut look =
            |millis, stamp: Option<&Stamp>| settling.look(start + Duration::from_millis(millis), &id, stamp, settle);
        assert!(!look(0, Some(&stamp(1))));
        assert!(!look(900, Some(&stamp(2))));
        assert!(!look(1800, Some(&stamp(2))));
        assert!(look(1900, Some(&stamp(2))));
        assert!(!look(2000, None));
        assert!(look(3000, None));
    }

    #[test]
    fn messages_come_of_new_files_and_of_folders_that_were_there() {
        let root = tempfile::tempdir().unwrap();
        put(root.path(), "a/1/manifest.toml");
        let messages = Messages::open().unwrap();
        messages.listen(root.path()).unwrap();
        assert!(!messages.heard());
        put(root.path(), "a/1/model.onnx");
        assert!(messages.heard());
        put(root.path(), "b/1/manifest.toml");
        assert!(messages.heard());
    }
}

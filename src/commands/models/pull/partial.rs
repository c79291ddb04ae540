use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::registry::{CLASSES_FILE, Entry};

/// Entity tag of what was fetched so far.
const TAG_FILE: &str = "etag";
/// Tries to open a folder that others put in place or remove at the same moment.
const TRIES: usize = 5;

/// A model in the making: the folder `.NAME@VERSION.partial` beside the models, which are never looked for under such a
/// name. It is this process's own while it lives: the graph's file is locked. When it is dropped, it stays, and the
/// next try goes on from there.
#[derive(Debug)]
pub(super) struct Partial {
    folder: PathBuf,
    file: File,
}

/// Why a model can't be put together.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("another process is fetching it")]
    Busy,
    #[error("cannot write {}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

impl Partial {
    /// Opens what an earlier try left, or begins anew.
    pub(super) fn open(models: &Path, entry: &Entry) -> Result<Self, Error> {
        let folder = models.join(format!(".{}.partial", entry.manifest.id()));
        let path = folder.join(&entry.manifest.file.path);
        for _ in 0..TRIES {
            fs::create_dir_all(&folder).map_err(|source| Error::Write { path: folder.clone(), source })?;
            let file = match File::options().read(true).append(true).create(true).open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(source) => return Err(Error::Write { path, source }),
            };
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(Error::Busy),
                Err(TryLockError::Error(source)) => return Err(Error::Write { path, source }),
            }
            // Whoever had the lock may have put the file in place, or removed it, before it came free.
            let same = |here: fs::Metadata, mine: fs::Metadata| (here.dev(), here.ino()) == (mine.dev(), mine.ino());
            if path.metadata().is_ok_and(|here| file.metadata().is_ok_and(|mine| same(here, mine))) {
                return Ok(Self { folder, file });
            }
        }
        Err(Error::Busy)
    }

    /// Bytes of the graph that are there.
    pub(super) fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Entity tag of what is there, as the server said it.
    pub(super) fn tag(&self) -> Option<String> {
        fs::read_to_string(self.folder.join(TAG_FILE)).ok()
    }

    /// Throws away what is there; what comes now has this tag.
    pub(super) fn restart(&mut self, tag: Option<&str>) -> io::Result<()> {
        self.file.set_len(0)?;
        match tag {
            Some(tag) => fs::write(self.folder.join(TAG_FILE), tag),
            None => remove(&self.folder.join(TAG_FILE)),
        }
    }

    /// Adds to the end.
    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }

    /// SHA-256 of the whole graph, read back, in lower-case hexadecimal.
    pub(super) fn sha256(&mut self) -> io::Result<String> {
        self.file.seek(SeekFrom::Start(0))?;
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 1 << 16];
        loop {
            match self.file.read(&mut buffer)? {
                0 => return Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
                read => hash.update(&buffer[..read]),
            }
        }
    }

    /// Adds the manifest and puts the whole folder at `target` in one step. With `replace`, what lies there is moved
    /// away first, and removed after.
    pub(super) fn put_in_place(self, entry: &Entry, target: &Path, replace: bool) -> Result<(), Error> {
        self.file
            .sync_all()
            .map_err(|source| Error::Write { path: self.folder.join(&entry.manifest.file.path), source })?;
        let write = |name: &str, text: &str| {
            let path = self.folder.join(name);
            write_through(&path, text).map_err(|source| Error::Write { path, source })
        };
        write("manifest.toml", &entry.text)?;
        if let Some(classes) = &entry.classes {
            write(CLASSES_FILE, classes)?;
        }
        self.move_to(entry, target, replace).map_err(|source| Error::Write { path: target.to_owned(), source })
    }

    fn move_to(&self, entry: &Entry, target: &Path, replace: bool) -> io::Result<()> {
        remove(&self.folder.join(TAG_FILE))?;
        File::open(&self.folder)?.sync_all()?;
        let parent = target.parent().ok_or(io::ErrorKind::InvalidInput)?;
        fs::create_dir_all(parent)?;
        let replaced = self.folder.with_file_name(format!(".{}.replaced", entry.manifest.id()));
        if replace {
            remove(&replaced)?;
            match fs::rename(target, &replaced) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        // Where something lies in the place after all, this fails and leaves it there.
        if let Err(error) = fs::rename(&self.folder, target) {
            if replace {
                // What was there comes back; where nothing was, nothing does.
                let _ = fs::rename(&replaced, target);
            }
            return Err(error);
        }
        File::open(parent)?.sync_all()?;
        remove(&replaced)
    }

    /// Removes everything.
    pub(super) fn discard(self) -> io::Result<()> {
        remove(&self.folder)
    }
}

/// Removes a file or a folder, if it is there.
fn remove(path: &Path) -> io::Result<()> {
    let removed = match path.symlink_metadata() {
        Ok(there) if there.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn write_through(path: &Path, text: &str) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

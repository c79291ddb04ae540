use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::{Builder, NamedTempFile};

/// A file in the making. It lies beside its place under another name with the same ending, and goes away unless it is
/// put in place.
pub(super) struct Pending {
    file: NamedTempFile,
    target: PathBuf,
}

impl Pending {
    /// # Errors
    /// When the folder is not there or can't be written to, or a folder has the name.
    pub(super) fn new(target: &Path) -> io::Result<Self> {
        // A link stays, and what it points to is replaced.
        let target = target.canonicalize().unwrap_or_else(|_| target.to_owned());
        if target.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let folder = target.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let ending = target.extension().map(|ending| format!(".{}", ending.display())).unwrap_or_default();
        let file = Builder::new()
            .prefix(".saccade-")
            .suffix(&ending)
            // The process's umask decides, as for any file.
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(folder)?;
        Ok(Self { file, target })
    }

    /// Where it lies for now.
    pub(super) fn path(&self) -> &Path {
        self.file.path()
    }

    /// Puts it in place, instead of whatever was there.
    pub(super) fn put_in_place(self) -> io::Result<()> {
        self.file.persist(&self.target).map_err(|error| error.error)?;
        Ok(())
    }
}

impl io::Write for Pending {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

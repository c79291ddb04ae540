use std::fs::{self, File};
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;

use super::error::Error;

/// A model's folder. What is read from it lies in it, whatever links and names say.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    folder: OwnedFd,
}

impl Folder {
    /// Opens it.
    ///
    /// # Errors
    /// [`Error::Read`].
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::open(path, flags, Mode::empty());
        let folder = folder.map_err(|error| Error::Read { path: path.to_owned(), reason: error.to_string() })?;
        Ok(Self { path: path.to_owned(), folder })
    }

    /// The bytes of a file, `most` at most.
    ///
    /// # Errors
    /// [`Error::Read`], also for what is no file, lies outside the folder, or is larger.
    pub(super) fn read(&self, name: &str, most: u64) -> Result<Vec<u8>, Error> {
        let failed = |reason: String| Error::Read { path: self.path.join(name), reason };
        let file = self.file(name).map_err(&failed)?;
        let about = file.metadata().map_err(|error| failed(error.to_string()))?;
        if !about.is_file() {
            return Err(failed("it is no file".to_owned()));
        }
        let too_large = || failed(format!("it is larger than {} MiB", most >> 20));
        if about.len() > most {
            return Err(too_large());
        }
        let mut bytes = Vec::with_capacity(usize::try_from(about.len()).unwrap_or(0));
        // It may grow in the meantime.
        file.take(most + 1).read_to_end(&mut bytes).map_err(|error| failed(error.to_string()))?;
        if bytes.len() as u64 > most { Err(too_large()) } else { Ok(bytes) }
    }

    /// The text of a file, `most` bytes at most.
    ///
    /// # Errors
    /// Those of [`Self::read`]; also for what is not UTF-8.
    pub(super) fn read_text(&self, name: &str, most: u64) -> Result<String, Error> {
        String::from_utf8(self.read(name, most)?)
            .map_err(|_| Error::Read { path: self.path.join(name), reason: "it is not UTF-8".to_owned() })
    }

    /// Opens a file without waiting for what is no file.
    fn file(&self, name: &str) -> Result<File, String> {
        const OUTSIDE: &str = "it lies outside the model's folder, or a link to it does";
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let within = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        match openat2(&self.folder, name, flags, Mode::empty(), within) {
            Ok(file) => Ok(File::from(file)),
            Err(Errno::XDEV | Errno::LOOP) => Err(OUTSIDE.to_owned()),
            // Kernels before 5.6, and sandboxes that know no such call.
            Err(Errno::NOSYS | Errno::PERM) => {
                let whole = |path: &Path| fs::canonicalize(path).map_err(|error| error.to_string());
                let (folder, file) = (whole(&self.path)?, whole(&self.path.join(name))?);
                let inside = file.strip_prefix(&folder).map_err(|_| OUTSIDE.to_owned())?;
                let file = openat(&self.folder, inside, flags | OFlags::NOFOLLOW, Mode::empty());
                file.map(File::from).map_err(|error| error.to_string())
            }
            Err(error) => Err(error.to_string()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn files_are_read_as_far_as_they_lie_inside() {
        let root = tempfile::tempdir().unwrap();
        let inside = root.path().join("model");
        fs::create_dir_all(inside.join("..data")).unwrap();
        fs::write(root.path().join("secret"), b"secret").unwrap();
        fs::write(inside.join("..data/graph"), b"graph").unwrap();
        symlink("..data/graph", inside.join("linked")).unwrap();
        symlink("../secret", inside.join("out")).unwrap();
        symlink("/etc/passwd", inside.join("absolute")).unwrap();
        symlink("/proc/self/fd/0", inside.join("magic")).unwrap();
        let folder = Folder::open(&inside).unwrap();
        assert_eq!(folder.read("linked", 5).unwrap(), b"graph", "as volumes of Kubernetes have them");
        for name in ["out", "absolute", "magic", "../secret", "/etc/passwd"] {
            let error = folder.read(name, 1 << 20).unwrap_err().to_string();
            assert!(error.contains("outside"), "{name}: {error}");
        }
        let error = |name, most| folder.read(name, most).unwrap_err().to_string();
        assert!(error("linked", 4).contains("larger"));
        assert!(error("..data", 1 << 20).contains("no file"));
        assert!(error("none", 1 << 20).contains("No such file"));
    }

    #[test]
    fn a_pipe_is_not_waited_for() {
        let root = tempfile::tempdir().unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            root.path().join("pipe"),
            rustix::fs::FileType::Fifo,
            Mode::RUSR | Mode::WUSR,
            0,
        )
        .unwrap();
        let folder = Folder::open(root.path()).unwrap();
        assert!(folder.read("pipe", 1 << 20).unwrap_err().to_string().contains("no file"));
    }
}

//! What the server keeps from one run to the next: the user's folder for that, and small files of JSON in it.

use std::env;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bits of a folder's mode, where there was none.
const FOLDER_MODE: u32 = 0o700;

/// `saccade` in the user's folder for what programs keep from one run to the next: `${XDG_STATE_HOME:-~/.local/state}`. None
/// where neither that variable nor `HOME` is set.
#[must_use]
pub fn folder() -> Option<PathBuf> {
    folder_by(|variable| env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from))
}

fn folder_by(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    let state = variable("XDG_STATE_HOME").or_else(|| variable("HOME").map(|home| home.join(".local/state")));
    state.map(|state| state.join("saccade"))
}

/// What a file of at most `max_bytes` holds; none if there is no file.
///
/// # Errors
/// The system's, and where the file is larger, or holds something else.
pub fn read<T: DeserializeOwned>(path: &Path, max_bytes: u64) -> io::Result<Option<T>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let mut bytes = Vec::new();
    file.take(max_bytes + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > max_bytes {
        return Err(io::Error::other("the file is too large"));
    }
    Ok(Some(serde_json::from_slice(&bytes)?))
}

/// Puts a file that can't be read aside, under the same name with the ending `bad`, and says where; none where that does not
/// go.
#[must_use]
pub fn put_aside(path: &Path) -> Option<PathBuf> {
    let aside = path.with_extension("bad");
    fs::rename(path, &aside).is_ok().then_some(aside)
}

/// All or nothing: another file, which nobody else may read, takes the place of the one before once it is on the disk.
///
/// # Errors
/// The system's.
pub fn write<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    serde_json::to_writer_pretty(&mut file, value)?;
    file.flush()?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_folder_is_the_users_own() {
        let with = |set: &[(&str, &str)]| {
            folder_by(|variable| set.iter().find(|(name, _)| *name == variable).map(|(_, value)| PathBuf::from(value)))
        };
        assert_eq!(with(&[("HOME", "/home/a")]), Some("/home/a/.local/state/saccade".into()));
        assert_eq!(with(&[("HOME", "/home/a"), ("XDG_STATE_HOME", "/state")]), Some("/state/saccade".into()));
        assert_eq!(with(&[]), None);
    }

    #[test]
    fn what_is_written_is_read_again_and_nobody_elses() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a/b/file.json");
        assert_eq!(read::<u32>(&path, 100).unwrap(), None);
        for value in [1_u32, 2] {
            write(&path, &value).unwrap();
            assert_eq!(read::<u32>(&path, 100).unwrap(), Some(value));
        }
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, FOLDER_MODE);
        write(&path, &"long".repeat(100)).unwrap();
        assert!(read::<String>(&path, 100).unwrap_err().to_string().contains("too large"));
        assert!(read::<u32>(&path, 1_000).is_err());
        let aside = put_aside(&path).unwrap();
        assert!(aside.ends_with("file.bad") && aside.exists() && !path.exists());
        assert_eq!(put_aside(&path), None);
    }
}

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// A file of messages that a sink did not take, one JSON object a line, which only the server's user can read. When it is
/// half as large as both may be, it is renamed to the same with `.1`, and replaces the one of that name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetters {
    /// The file.
    pub path: PathBuf,
    /// Bytes that it and its predecessor have together at most.
    pub max_bytes: u64,
}

impl DeadLetters {
    /// Adds whole lines. Blocks on the file system; one thread at a time may call it.
    pub(super) fn append(&self, lines: &str) -> io::Result<()> {
        let (half, more) = (self.max_bytes / 2, lines.len() as u64);
        if more > half {
            return Err(io::Error::other("larger than the file may be"));
        }
        let mut file = open(&self.path)?;
        if file.metadata()?.len() + more > half {
            let mut before = self.path.clone().into_os_string();
            before.push(".1");
            fs::rename(&self.path, before)?;
            file = open(&self.path)?;
        }
        file.write_all(lines.as_bytes())
    }
}

fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    // One that was there before may be readable for others.
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
    }
    Ok(file)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_private_and_both_stay_within_the_bound() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("letters");
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let letters = DeadLetters { path: path.clone(), max_bytes: 40 };
        for line in ["one\n", "two\n", "three\n", "four\n", "five\n", "six\n", "seven\n", "eight\n", "nine\n"] {
            letters.append(line).unwrap();
        }
        let before = fs::read_to_string(folder.path().join("letters.1")).unwrap();
        let now = fs::read_to_string(&path).unwrap();
        assert!(before.len() + now.len() <= 40, "{before}{now}");
        assert!((before + &now).ends_with("five\nsix\nseven\neight\nnine\n"));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(letters.append(&"x".repeat(21)).is_err());
        let nowhere = DeadLetters { path: folder.path().join("none/letters"), max_bytes: 40 };
        assert!(nowhere.append("x\n").is_err());
    }
}

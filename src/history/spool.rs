//! What the store did not take, kept on disk until it does: files of JSON lines in a folder, oldest first.
//!
//! All of it blocks. One process at a time uses a folder.

use std::collections::VecDeque;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::record::Record;

/// A file is closed when it has as many bytes; a spool of few bytes has smaller files.
const FILE_BYTES: u64 = 1 << 20;
/// Files that the bound is made of at least: what is dropped is an eighth of it at most.
const FILES: u64 = 8;
const SUFFIX: &str = ".jsonl";

/// A bounded spool.
#[derive(Debug)]
pub(super) struct Spool {
    folder: PathBuf,
    max_bytes: u64,
    /// Oldest first.
    files: VecDeque<Piece>,
    /// The newest, where it may grow.
    open: Option<File>,
    /// Held for as long as the spool is there.
    _lock: File,
}

#[derive(Debug, Clone, Copy)]
struct Piece {
    number: u64,
    bytes: u64,
}

/// The oldest file of a spool.
#[derive(Debug)]
pub(super) struct Oldest {
    number: u64,
    /// What it holds, in its order.
    pub(super) records: Vec<Record>,
    /// Lines that could not be read: of a process that ended while it wrote.
    pub(super) damaged: u64,
}

impl Spool {
    /// The spool of this folder, which is made where it is missing, with what is there already.
    ///
    /// # Errors
    /// Of the system; [`io::ErrorKind::WouldBlock`] where another process uses it.
    pub(super) fn open(folder: &Path, max_bytes: u64) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let lock = private().create(true).truncate(false).open(folder.join("lock"))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => io::ErrorKind::WouldBlock.into(),
            TryLockError::Error(error) => error,
        })?;
        let mut files = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(SUFFIX)).and_then(|name| name.parse().ok());
            if let Some(number) = number {
                files.push(Piece { number, bytes: entry.metadata()?.len() });
            }
        }
        files.sort_unstable_by_key(|file| file.number);
        Ok(Self { folder: folder.to_owned(), max_bytes, files: files.into(), open: None, _lock: lock })
    }

    /// Whether nothing is in it.
    #[must_use]
    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Bytes on disk.
    #[must_use]
    pub(super) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// Adds records at the end. Says how many of the oldest had to go for that.
    ///
    /// # Errors
    /// Of the system; then nobody knows how many of them are kept.
    pub(super) fn append(&mut self, records: &[Record]) -> io::Result<u64> {
        let mut dropped = 0;
        for record in records {
            let mut line = serde_json::to_vec(record)?;
            line.push(b'\n');
            let bytes = line.len() as u64;
            dropped += self.make_room(bytes)?;
            let written = self.file(bytes)?.write_all(&line);
            if let Err(error) = written {
                // Half a line is there, perhaps: what follows goes into another file.
                self.open = None;
                return Err(error);
            }
            if let Some(file) = self.files.back_mut() {
                file.bytes += bytes;
            }
        }
        Ok(dropped)
    }

    /// The oldest file with all that it holds, which is not added to any more. `None` where there is none.
    ///
    /// # Errors
    /// Of the system.
    pub(super) fn oldest(&mut self) -> io::Result<Option<Oldest>> {
        let Some(file) = self.files.front().copied() else { return Ok(None) };
        if self.files.len() == 1 {
            self.open = None;
        }
        let text = fs::read(self.path(file.number))?;
        let (mut records, mut damaged) = (Vec::new(), 0);
        for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            match serde_json::from_slice(line) {
                Ok(record) => records.push(record),
                Err(_) => damaged += 1,
            }
        }
        Ok(Some(Oldest { number: file.number, records, damaged }))
    }

    /// Forgets a file.
    ///
    /// # Errors
    /// Of the system.
    pub(super) fn remove(&mut self, oldest: &Oldest) -> io::Result<()> {
        if self.files.front().is_some_and(|file| file.number == oldest.number) {
            fs::remove_file(self.path(oldest.number))?;
            self.files.pop_front();
        }
        Ok(())
    }

    /// Removes files until so many bytes fit. Says how many records that were.
    fn make_room(&mut self, bytes: u64) -> io::Result<u64> {
        let mut dropped = 0;
        while self.bytes() + bytes > self.max_bytes {
            let Some(oldest) = self.oldest()? else { break };
            self.remove(&oldest)?;
            dropped += oldest.records.len() as u64;
        }
        Ok(dropped)
    }

    fn file(&mut self, bytes: u64) -> io::Result<&mut File> {
        let limit = FILE_BYTES.min(self.max_bytes / FILES);
        let is_full = self.files.back().is_none_or(|file| file.bytes > 0 && file.bytes + bytes > limit);
        let file = match self.open.take().filter(|_| !is_full) {
            Some(file) => file,
            None => {
                let number = self.files.back().map_or(0, |file| file.number + 1);
                let file = private().append(true).create_new(true).open(self.path(number))?;
                self.files.push_back(Piece { number, bytes: 0 });
                file
            }
        };
        Ok(self.open.insert(file))
    }

    fn path(&self, number: u64) -> PathBuf {
        self.folder.join(format!("{number:016}{SUFFIX}"))
    }
}

/// Options of files that are for this user alone.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    options
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::super::record::{Event, Source};
    use super::*;

    fn event(number: i64) -> Record {
        let source = Source { session: "s".into(), camera: None };
        let json = format!(r#"{{"type":"t","object_id":{number}}}"#);
        Record::Event(Event::new(&source, number, &json).unwrap())
    }

    fn numbers(records: &[Record]) -> Vec<i64> {
        records.iter().map(Record::time_ms).collect()
    }

    /// Takes everything out.
    fn drained(spool: &mut Spool) -> Vec<i64> {
        let mut all = Vec::new();
        while let Some(oldest) = spool.oldest().unwrap() {
            all.extend(numbers(&oldest.records));
            spool.remove(&oldest).unwrap();
        }
        all
    }

    #[test]
    fn what_goes_in_comes_out_in_order_across_restarts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spool");
        let mut spool = Spool::open(&path, 1 << 20).unwrap();
        assert!(spool.is_empty() && spool.oldest().unwrap().is_none());
        assert_eq!(spool.append(&[event(1), event(2)]).unwrap(), 0);
        assert_eq!(Spool::open(&path, 1 << 20).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(spool);
        let mut spool = Spool::open(&path, 1 << 20).unwrap();
        spool.append(&[event(3)]).unwrap();
        let oldest = spool.oldest().unwrap().unwrap();
        assert_eq!(numbers(&oldest.records), [1, 2]);
        spool.append(&[event(4)]).unwrap();
        assert_eq!(drained(&mut spool), [1, 2, 3, 4]);
        assert_eq!((spool.bytes(), spool.is_empty()), (0, true));
    }

    #[test]
    fn it_is_for_this_user_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("spool");
        Spool::open(&path, 1 << 20).unwrap().append(&[event(1)]).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o700);
        assert_eq!(mode(&path.join("0000000000000000.jsonl")), 0o600);
    }

    #[test]
    fn a_full_spool_drops_the_oldest_and_counts_them() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(folder.path(), 8 * 1024).unwrap();
        let dropped: u64 = (0..200).map(|number| spool.append(&[event(number)]).unwrap()).sum();
        assert!(spool.bytes() <= 8 * 1024, "{}", spool.bytes());
        let kept = drained(&mut spool);
        assert!(kept.len() > 20, "{}", kept.len());
        assert_eq!(dropped, 200 - kept.len() as u64);
        assert_eq!(kept, (200 - i64::try_from(kept.len()).unwrap()..200).collect::<Vec<_>>());
    }

    #[test]
    fn half_a_line_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(folder.path(), 1 << 20).unwrap();
        spool.append(&[event(1), event(2)]).unwrap();
        drop(spool);
        let file = folder.path().join("0000000000000000.jsonl");
        let text = fs::read(&file).unwrap();
        fs::write(&file, &text[..text.len() - 9]).unwrap();
        let mut spool = Spool::open(folder.path(), 1 << 20).unwrap();
        spool.append(&[event(3)]).unwrap();
        let oldest = spool.oldest().unwrap().unwrap();
        assert_eq!((numbers(&oldest.records), oldest.damaged), (vec![1], 1));
        assert_eq!(drained(&mut spool), [1, 3]);
    }
}

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Semaphore;

use super::tier::{Error, Size, Tier};
use super::{Entry, Key, Tag, Wrong};

/// Bytes that a file takes at least.
const BLOCK: u64 = 4096;
/// Files that are read or written at a time. Where the disk hangs, no more threads than these hang with it.
const AT_ONCE: usize = 8;
/// End of the names of files that are being written.
const UNFINISHED: &str = ".tmp";

/// The tier in a folder of this machine, which outlasts the process: a file for each entry, bounded by bytes; what was
/// used least recently goes first. After a restart, when files were written counts as their use.
pub struct Disk {
    shared: Arc<Shared>,
    work: Arc<Semaphore>,
}

struct Shared {
    folder: PathBuf,
    max_bytes: u64,
    max_file: usize,
    index: Mutex<Index>,
    /// Held as long as the folder is ours.
    _lock: File,
}

/// What is in the folder.
#[derive(Default)]
struct Index {
    files: HashMap<Key, Meta>,
    /// Keys by their last use.
    order: BTreeMap<u64, Key>,
    bytes: u64,
    clock: u64,
}

struct Meta {
    bytes: u64,
    used: u64,
    expires: SystemTime,
    /// Digests of its tags.
    tags: Box<[u64]>,
}

impl Disk {
    /// Takes a folder, which is made if it is not there, for `max_bytes` of files, and looks through it; entries in it count
    /// for `keep` from when they were written. What is no entry of this version, expired or unfinished is removed. Blocks.
    ///
    /// # Errors
    /// When the folder cannot be made or read, or another process has it.
    pub fn open(
        folder: &Path,
        max_bytes: u64,
        max_entry_bytes: usize,
        keep: Duration,
        now: SystemTime,
    ) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let lock = File::create(folder.join("lock"))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::Error(error) => error,
            TryLockError::WouldBlock => io::Error::other("another process uses it"),
        })?;
        let max_file = Entry::max_encoded(max_entry_bytes);
        let mut index = scan(folder, max_file, keep, now)?;
        for key in index.excess(max_bytes) {
            remove_file(folder, &key)?;
        }
        let shared = Shared { folder: folder.to_owned(), max_bytes, max_file, index: Mutex::new(index), _lock: lock };
        Ok(Self { shared: Arc::new(shared), work: Arc::new(Semaphore::new(AT_ONCE)) })
    }

    /// Does something on a thread that may block.
    async fn block<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Shared) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let permit = Arc::clone(&self.work).acquire_owned().await;
        let permit = permit.map_err(|_| Error::Unavailable("it is closed".to_owned()))?;
        let shared = Arc::clone(&self.shared);
        let done = tokio::task::spawn_blocking(move || {
            let done = work(&shared);
            drop(permit);
            done
        });
        done.await.unwrap_or_else(|_| Err(Error::Unavailable("a thread of it panicked".to_owned())))
    }
}

#[async_trait]
impl Tier for Disk {
    fn name(&self) -> &'static str {
        "disk"
    }

    async fn get(&self, key: &Key, now: SystemTime) -> Result<Option<Arc<Entry>>, Error> {
        let key = *key;
        // Most keys are not there: that needs no thread.
        if !self.shared.index().used(&key, now) {
            return Ok(None);
        }
        self.block(move |shared| {
            let Some(bytes) = read_file(&path(&shared.folder, &key), shared.max_file)? else {
                // Somebody else removed it.
                shared.index().forget(&key);
                return Ok(None);
            };
            Ok(Some(Arc::new(Entry::decode(&key, &bytes, now)?)))
        })
        .await
    }

    async fn put(&self, key: &Key, entry: &Arc<Entry>, keep: Duration, now: SystemTime) -> Result<(), Error> {
        let (key, entry) = (*key, Arc::clone(entry));
        self.block(move |shared| {
            let bytes = entry.encode(&key);
            if bytes.len() as u64 > shared.max_bytes || bytes.len() > shared.max_file {
                return Ok(());
            }
            write_file(&path(&shared.folder, &key), &bytes).map_err(|error| unavailable(&error))?;
            let excess = {
                let mut index = shared.index();
                index.add(key, bytes.len() as u64, now + keep, entry.tags());
                index.excess(shared.max_bytes)
            };
            for key in excess {
                remove_file(&shared.folder, &key).map_err(|error| unavailable(&error))?;
            }
            Ok(())
        })
        .await
    }

    async fn remove(&self, key: &Key) -> Result<(), Error> {
        let key = *key;
        self.block(move |shared| {
            shared.index().forget(&key);
            remove_file(&shared.folder, &key).map_err(|error| unavailable(&error))
        })
        .await
    }

    async fn remove_tagged(&self, tag: &Tag) -> Result<u64, Error> {
        let tag = digest(tag);
        self.block(move |shared| {
            let keys = shared.index().tagged(tag);
            for key in &keys {
                shared.index().forget(key);
                remove_file(&shared.folder, key).map_err(|error| unavailable(&error))?;
            }
            Ok(keys.len() as u64)
        })
        .await
    }

    fn size(&self) -> Option<Size> {
        let index = self.shared.index();
        Some(Size { bytes: index.bytes, entries: index.files.len() as u64 })
    }
}

impl Shared {
    fn index(&self) -> std::sync::MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Index {
    fn add(&mut self, key: Key, bytes: u64, expires: SystemTime, tags: &[Tag]) {
        self.forget(&key);
        let bytes = bytes.max(BLOCK);
        self.clock += 1;
        self.bytes += bytes;
        self.order.insert(self.clock, key);
        let tags = tags.iter().map(digest).collect();
        self.files.insert(key, Meta { bytes, used: self.clock, expires, tags });
    }

    fn forget(&mut self, key: &Key) {
        if let Some(meta) = self.files.remove(key) {
            self.order.remove(&meta.used);
            self.bytes -= meta.bytes;
        }
    }

    /// Whether there is an entry that counts; now it was used.
    fn used(&mut self, key: &Key, now: SystemTime) -> bool {
        let Some(meta) = self.files.get_mut(key).filter(|meta| now < meta.expires) else { return false };
        self.clock += 1;
        self.order.remove(&meta.used);
        meta.used = self.clock;
        self.order.insert(self.clock, *key);
        true
    }

    /// Forgets what is beyond the bound and says what that was.
    fn excess(&mut self, max_bytes: u64) -> Vec<Key> {
        let mut excess = Vec::new();
        while self.bytes > max_bytes
            && let Some((_, key)) = self.order.first_key_value()
        {
            let key = *key;
            self.forget(&key);
            excess.push(key);
        }
        excess
    }

    fn tagged(&self, tag: u64) -> Vec<Key> {
        self.files.iter().filter(|(_, meta)| meta.tags.contains(&tag)).map(|(key, _)| *key).collect()
    }
}

/// Looks through the folders of entries, oldest files first.
fn scan(folder: &Path, max_file: usize, keep: Duration, now: SystemTime) -> io::Result<Index> {
    let mut found = Vec::new();
    for shelf in fs::read_dir(folder)? {
        let shelf = shelf?.path();
        if !is_shelf(&shelf) {
            continue;
        }
        for file in fs::read_dir(&shelf)? {
            let path = file?.path();
            match sound(&path, max_file, keep, now) {
                Some((key, entry, bytes)) => {
                    let written = fs::metadata(&path).and_then(|file| file.modified()).unwrap_or(entry.created());
                    found.push((written, key, bytes, entry.created() + keep, entry.tags().to_vec()));
                }
                None => fs::remove_file(&path)?,
            }
        }
    }
    found.sort_by_key(|(written, ..)| *written);
    let mut index = Index::default();
    for (_, key, bytes, expires, tags) in found {
        index.add(key, bytes, expires, &tags);
    }
    Ok(index)
}

/// What a file holds, if it is an entry that counts.
fn sound(path: &Path, max_file: usize, keep: Duration, now: SystemTime) -> Option<(Key, Entry, u64)> {
    let key = Key::parse(path.file_name()?.to_str()?)?;
    let bytes = read_file(path, max_file).ok()??;
    let entry = Entry::decode(&key, &bytes, now).ok()?;
    (entry.elapsed(now) < keep.max(entry.ttl())).then_some((key, entry, bytes.len() as u64))
}

/// One of the 256 folders that entries are spread over, and nothing else that may lie there.
fn is_shelf(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.len() == 2 && name.bytes().all(|one| one.is_ascii_digit() || (b'a'..=b'f').contains(&one)) && path.is_dir()
}

fn path(folder: &Path, key: &Key) -> PathBuf {
    let name = key.to_string();
    folder.join(&name[..2]).join(name)
}

/// A whole file, if it is there.
fn read_file(path: &Path, max: usize) -> Result<Option<Bytes>, Error> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unavailable(&error)),
    };
    let mut bytes = Vec::new();
    file.take(max as u64 + 1).read_to_end(&mut bytes).map_err(|error| unavailable(&error))?;
    if bytes.len() > max {
        return Err(Wrong::Length.into());
    }
    Ok(Some(bytes.into()))
}

/// The file is there whole or not at all. It is not forced to the disk: what a crash of the machine garbles is noticed.
fn write_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(path);
    let mut file = match tempfile::Builder::new().suffix(UNFINISHED).tempfile_in(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(folder)?;
            tempfile::Builder::new().suffix(UNFINISHED).tempfile_in(folder)?
        }
        other => other?,
    };
    file.write_all(bytes)?;
    file.persist(path)?;
    Ok(())
}

fn remove_file(folder: &Path, key: &Key) -> io::Result<()> {
    match fs::remove_file(path(folder, key)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn digest(tag: &Tag) -> u64 {
    let digest = tag.digest();
    digest.as_bytes().first_chunk().map_or(0, |first| u64::from_le_bytes(*first))
}

fn unavailable(error: &io::Error) -> Error {
    Error::Unavailable(error.kind().to_string())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests {
    use std::time::UNIX_EPOCH;

    use proptest::prelude::*;

    use super::*;

    const KEEP: Duration = Duration::from_secs(360);
    const MAX_VALUE: usize = 100_000;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds)
    }

    fn key(number: u32) -> Key {
        Key::of(&[&number.to_le_bytes()])
    }

    fn entry(size: usize, tags: &[&str], created: SystemTime) -> Arc<Entry> {
        let tags: Vec<Tag> = tags.iter().map(|word| Tag::chosen(word).unwrap()).collect();
        Arc::new(Entry::new(vec![7; size].into(), "text/plain", &tags, created, Duration::from_secs(300)))
    }

    fn open(folder: &Path, max_bytes: u64, now: SystemTime) -> Disk {
        Disk::open(folder, max_bytes, MAX_VALUE, KEEP, now).unwrap()
    }

    fn files(folder: &Path) -> usize {
        let shelves = fs::read_dir(folder).unwrap().map(|shelf| shelf.unwrap().path()).filter(|path| path.is_dir());
        shelves.map(|shelf| fs::read_dir(shelf).unwrap().count()).sum()
    }

    #[tokio::test]
    async fn entries_outlast_the_process_and_the_least_recently_used_go_first() {
        let folder = tempfile::tempdir().unwrap();
        let disk = open(folder.path(), 4 * BLOCK, at(0));
        for number in 0..4 {
            disk.put(&key(number), &entry(10, &[], at(0)), KEEP, at(0)).await.unwrap();
        }
        assert_eq!(disk.get(&key(0), at(1)).await.unwrap(), Some(entry(10, &[], at(0))));
        disk.put(&key(4), &entry(10, &[], at(1)), KEEP, at(1)).await.unwrap();
        assert_eq!(disk.size(), Some(Size { bytes: 4 * BLOCK, entries: 4 }));
        for (number, is_there) in [(0, true), (1, false), (2, true), (4, true)] {
            assert_eq!(disk.get(&key(number), at(1)).await.unwrap().is_some(), is_there, "{number}");
        }
        assert!(Disk::open(folder.path(), BLOCK, MAX_VALUE, KEEP, at(1)).is_err(), "it is in use");
        drop(disk);

        let disk = open(folder.path(), 4 * BLOCK, at(2));
        assert_eq!(disk.get(&key(4), at(2)).await.unwrap(), Some(entry(10, &[], at(1))));
        assert_eq!(disk.get(&key(4), at(361)).await.unwrap(), None, "its time is over");
        drop(disk);
        // Less room, and a time at which only the last one counts.
        let disk = open(folder.path(), 4 * BLOCK, at(360));
        assert_eq!(disk.size(), Some(Size { bytes: BLOCK, entries: 1 }));
        assert_eq!(files(folder.path()), 1);
    }

    #[tokio::test]
    async fn what_is_no_entry_is_removed_and_what_others_put_there_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let disk = open(folder.path(), 1 << 20, at(0));
        for number in 0..4 {
            disk.put(&key(number), &entry(5000, &[], at(0)), KEEP, at(0)).await.unwrap();
        }
        // While it runs.
        fs::write(path(folder.path(), &key(0)), b"nonsense").unwrap();
        assert!(matches!(disk.get(&key(0), at(0)).await, Err(Error::Wrong(_))));
        fs::write(path(folder.path(), &key(0)), vec![0; 2 * MAX_VALUE]).unwrap();
        assert!(matches!(disk.get(&key(0), at(0)).await, Err(Error::Wrong(Wrong::Length))));
        fs::remove_file(path(folder.path(), &key(1))).unwrap();
        assert_eq!(disk.get(&key(1), at(0)).await.unwrap(), None);
        drop(disk);
        // While it does not: cut off, unfinished, in another one's place.
        let [cut, moved] = [path(folder.path(), &key(2)), path(folder.path(), &key(9))];
        let whole = fs::read(path(folder.path(), &key(3))).unwrap();
        fs::write(&cut, &whole[..100]).unwrap();
        fs::create_dir_all(moved.parent().unwrap()).unwrap();
        fs::write(&moved, &whole).unwrap();
        fs::write(cut.with_extension("tmp"), b"half").unwrap();
        fs::write(folder.path().join("README"), b"not ours").unwrap();
        fs::create_dir(folder.path().join("notes")).unwrap();
        fs::write(folder.path().join("notes/one"), b"not ours").unwrap();

        let disk = open(folder.path(), 1 << 20, at(1));
        assert_eq!(disk.size().unwrap().entries, 1);
        assert!(disk.get(&key(3), at(1)).await.unwrap().is_some());
        assert!(folder.path().join("README").exists() && folder.path().join("notes/one").exists());
        assert_eq!(files(folder.path()), 2, "the entry and the note");
    }

    #[tokio::test]
    async fn tags_are_known_after_a_restart_too() {
        let folder = tempfile::tempdir().unwrap();
        let disk = open(folder.path(), 1 << 20, at(0));
        for (number, tags) in [(0, &["a"][..]), (1, &["a", "b"]), (2, &["b"]), (3, &[])] {
            disk.put(&key(number), &entry(10, tags, at(0)), KEEP, at(0)).await.unwrap();
        }
        assert_eq!(disk.remove_tagged(&Tag::chosen("none").unwrap()).await.unwrap(), 0);
        drop(disk);
        let disk = open(folder.path(), 1 << 20, at(0));
        assert_eq!(disk.remove_tagged(&Tag::chosen("a").unwrap()).await.unwrap(), 2);
        for (number, is_there) in [(0, false), (1, false), (2, true), (3, true)] {
            assert_eq!(disk.get(&key(number), at(0)).await.unwrap().is_some(), is_there, "{number}");
        }
        disk.remove(&key(3)).await.unwrap();
        disk.remove(&key(3)).await.unwrap();
        assert_eq!((disk.size().unwrap().entries, files(folder.path())), (1, 1));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Put(u32, usize),
        Get(u32),
        Remove(u32),
        Reopen,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (0_u32..8, 0_usize..20_000).prop_map(|(key, size)| Step::Put(key, size)),
            4 => (0_u32..8).prop_map(Step::Get),
            1 => (0_u32..8).prop_map(Step::Remove),
            1 => Just(Step::Reopen),
        ];
        proptest::collection::vec(step, 1..40)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// It never holds more than its bound, its index is what is in the folder, and what it gives is what was put last.
        #[test]
        fn it_gives_what_was_put_and_stays_within_its_bound(steps in steps()) {
            const MAX: u64 = 40_000;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let folder = tempfile::tempdir().unwrap();
            let mut put = HashMap::new();
            runtime.block_on(async {
                let mut disk = open(folder.path(), MAX, at(0));
                for step in steps {
                    match step {
                        Step::Put(number, size) => {
                            disk.put(&key(number), &entry(size, &[], at(0)), KEEP, at(0)).await.unwrap();
                            put.insert(number, size);
                            assert!(disk.get(&key(number), at(0)).await.unwrap().is_some());
                        }
                        Step::Get(number) => {
                            if let Some(found) = disk.get(&key(number), at(0)).await.unwrap() {
                                assert_eq!(Some(&found.value().len()), put.get(&number));
                            }
                        }
                        Step::Remove(number) => {
                            disk.remove(&key(number)).await.unwrap();
                            put.remove(&number);
                        }
                        Step::Reopen => {
                            drop(disk);
                            disk = open(folder.path(), MAX, at(0));
                        }
                    }
                    let size = disk.size().unwrap();
                    assert!(size.bytes <= MAX);
                    assert_eq!(size.entries, files(folder.path()) as u64);
                }
            });
        }
    }
}

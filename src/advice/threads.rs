use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// Kinds of threads, by how their names begin; `other` is what is none of them.
const KINDS: [(&str, &str); 3] = [("codec", "codec-"), ("models", "infer-"), ("stills", "stills-")];
const OTHER: &str = "other";
/// Threads that are looked at, at most.
const MOST: usize = 4096;

/// How much processor time threads take, by their kind, as the kernel tells it of each (`/proc/self/task/*/schedstat`).
///
/// How long a stage takes says little of that where processors are full: threads of low priority wait for one most.
#[derive(Debug, Default)]
pub struct Threads {
    looked: Option<Instant>,
    known: HashMap<String, Duration>,
}

impl Threads {
    /// Processors that each kind of threads has kept busy since the last look; nothing at the first one, and where the kernel
    /// does not tell. Waits for the kernel for a moment.
    pub fn look(&mut self, now: Instant) -> Vec<(&'static str, f64)> {
        self.look_at(now, Path::new("/proc/self/task"))
    }

    fn look_at(&mut self, now: Instant, tasks: &Path) -> Vec<(&'static str, f64)> {
        let before = std::mem::take(&mut self.known);
        let mut sums =
            [OTHER].into_iter().chain(KINDS.map(|(kind, _)| kind)).map(|kind| (kind, 0.0)).collect::<Vec<_>>();
        for task in fs::read_dir(tasks).into_iter().flatten().flatten().take(MOST) {
            let read = |name: &str| fs::read_to_string(task.path().join(name));
            // One that ends meanwhile tells nothing more.
            let (Ok(name), Ok(stat)) = (read("comm"), read("schedstat")) else { continue };
            let Some(ran) = stat.split_ascii_whitespace().next().and_then(|time| time.parse().ok()) else { continue };
            let ran = Duration::from_nanos(ran);
            let id = task.file_name().to_string_lossy().into_owned();
            let grown = ran.saturating_sub(before.get(&id).copied().unwrap_or_default());
            self.known.insert(id, ran);
            let kind = KINDS.iter().find(|(_, begin)| name.starts_with(begin)).map_or(OTHER, |(kind, _)| kind);
            if let Some((_, sum)) = sums.iter_mut().find(|(one, _)| *one == kind) {
                *sum += grown.as_secs_f64();
            }
        }
        let passed = self.looked.replace(now).map(|looked| now.saturating_duration_since(looked).as_secs_f64());
        match passed.filter(|passed| *passed > 0.0 && !self.known.is_empty()) {
            Some(passed) => sums.into_iter().map(|(kind, seconds)| (kind, seconds / passed)).collect(),
            None => Vec::new(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn time_is_told_by_the_kinds_of_threads_and_from_look_to_look() {
        let folder = tempfile::tempdir().unwrap();
        let ran = |id: &str, name: &str, millis: u64| {
            let task = folder.path().join(id);
            fs::create_dir_all(&task).unwrap();
            fs::write(task.join("comm"), format!("{name}\n")).unwrap();
            fs::write(task.join("schedstat"), format!("{} 5 7\n", millis * 1_000_000)).unwrap();
        };
        let (mut threads, start) = (Threads::default(), clock::now());
        ran("1", "saccade", 100);
        ran("2", "codec-0", 1000);
        ran("3", "infer-0-yolo@1", 0);
        assert_eq!(threads.look_at(start, folder.path()), []);
        ran("2", "codec-0", 2500);
        ran("3", "infer-0-yolo@1", 500);
        ran("4", "infer-1-yolo@1", 250);
        let told = threads.look_at(start + Duration::from_secs(1), folder.path());
        assert_eq!(told, [("other", 0.0), ("codec", 1.5), ("models", 0.75), ("stills", 0.0)]);
        assert_eq!(threads.look_at(start + Duration::from_secs(2), Path::new("/nowhere")), []);
    }

    #[test]
    fn this_process_has_threads_that_work() {
        let (mut threads, start) = (Threads::default(), clock::now());
        threads.look(start);
        let begin = clock::processor_time();
        while clock::processor_time().saturating_sub(begin) < Duration::from_millis(20) {}
        let told = threads.look(start + Duration::from_secs(1));
        assert!(told.iter().map(|(_, busy)| busy).sum::<f64>() > 0.01, "{told:?}");
    }
}

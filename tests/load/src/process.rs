//! What the server's process costs, from `/proc`.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

/// Time on processors and memory of a process at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// In user and kernel mode, all threads.
    pub cpu: Duration,
    /// Resident memory in bytes.
    pub resident: u64,
    /// The threads that are there, by their id.
    pub threads: BTreeMap<u32, Thread>,
}

/// One thread of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thread {
    /// Its name without its number: that of `codec-7` is `codec`.
    pub name: String,
    /// Time on processors, in user and kernel mode.
    pub cpu: Duration,
}

impl Usage {
    /// `None` when there is no such process, or it has ended.
    #[must_use]
    pub fn of(pid: u32) -> Option<Self> {
        let ticks = rustix::param::clock_ticks_per_second();
        let (_, cpu) = spent(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?, ticks)?;
        let resident = resident(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?)?;
        // A thread may end meanwhile.
        let thread = |folder: fs::DirEntry| {
            let stat = fs::read_to_string(folder.path().join("stat")).ok()?;
            let (name, cpu) = spent(&stat, ticks)?;
            Some((folder.file_name().to_str()?.parse().ok()?, Thread { name: kind(name).to_owned(), cpu }))
        };
        let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten().filter_map(thread).collect();
        Some(Self { cpu, resident, threads })
    }
}

/// Name and time on processors in the text of a `stat` file.
fn spent(stat: &str, ticks: u64) -> Option<(&str, Duration)> {
    // The name may hold anything, blanks and brackets too: what counts begins behind its last bracket (proc(5)).
    let (head, tail) = stat.rsplit_once(')')?;
    let mut fields = tail.split_ascii_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u64>().ok();
    let spent = next()? + next()?;
    Some((head.split_once('(')?.1, Duration::from_millis(spent * 1_000 / ticks.max(1))))
}

fn resident(status: &str) -> Option<u64> {
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = resident.trim().trim_end_matches("kB").trim_end().parse().ok()?;
    Some(kibibytes * 1_024)
}

fn kind(name: &str) -> &str {
    name.trim_end_matches(|c: char| c.is_ascii_digit()).trim_end_matches(['-', '_'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_blanks_is_no_obstacle() {
        let stat = "42 (a b) c)) S 1 42 42 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 9 0 100 1000 500 0";
        assert_eq!(spent(stat, 100), Some(("a b) c)", Duration::from_secs(3))));
        assert_eq!(spent("42", 100), None);
        assert_eq!(resident("Name:\tx\nVmRSS:\t   2048 kB\n"), Some(2 << 20));
        assert_eq!((kind("codec-12"), kind("asyncio_0"), kind("main")), ("codec", "asyncio", "main"));
    }

    #[test]
    fn this_process_uses_memory() {
        let usage = Usage::of(std::process::id()).unwrap();
        assert!(usage.resident > 0 && !usage.threads.is_empty());
        assert_eq!(Usage::of(u32::MAX), None);
    }
}

//! What the memory of this process is, as the kernel tells (`proc(5)`). The allocator is the C library's, which is not asked.

use std::collections::BTreeMap;
use std::fs;
use std::io;

use serde::Serialize;

/// Kinds of mappings that are told of.
const KINDS: usize = 24;

/// Memory of the process, in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// Where this is from.
    pub source: &'static str,
    /// In memory now (`Rss`).
    pub resident_bytes: u64,
    /// The same, with pages that processes share counted in parts (`Pss`).
    pub proportional_bytes: u64,
    /// The most that was ever in memory (`VmHWM`).
    pub peak_resident_bytes: u64,
    /// Written by the process itself: heap and stacks (`Anonymous`).
    pub anonymous_bytes: u64,
    /// Of files: program, libraries, models that are mapped.
    pub file_bytes: u64,
    /// Moved to a disk (`Swap`).
    pub swapped_bytes: u64,
    /// Threads, each with a stack.
    pub threads: u64,
    /// Mappings, by what they are of, the largest first.
    pub mappings: Vec<Mapping>,
}

/// Mappings of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mapping {
    /// Name of a file without its folder, `heap`, `stack`, or `anonymous`: what is allocated beside the heap, models above all.
    pub of: String,
    /// How many there are.
    pub count: u64,
    /// In memory now.
    pub resident_bytes: u64,
    /// Written to by the process.
    pub anonymous_bytes: u64,
}

/// Asks the kernel. It goes through all pages meanwhile, so that this is no call for a Tokio worker.
///
/// # Errors
/// Where there is no `/proc`.
pub fn look() -> io::Result<Memory> {
    let [smaps, status] = ["/proc/self/smaps", "/proc/self/status"].map(fs::read_to_string);
    Ok(read(&smaps?, &status?))
}

fn read(smaps: &str, status: &str) -> Memory {
    let mut kinds: BTreeMap<String, Mapping> = BTreeMap::new();
    let mut at = String::new();
    let (mut resident, mut proportional, mut anonymous, mut swapped) = (0, 0, 0, 0);
    for line in smaps.lines() {
        let Some((name, value)) = line.split_once(':').filter(|(name, _)| !name.contains(' ')) else {
            // Address, permissions, offset, device, inode, path.
            at = kind(line.splitn(6, ' ').nth(5).unwrap_or_default().trim());
            let mapping = Mapping { of: at.clone(), count: 0, resident_bytes: 0, anonymous_bytes: 0 };
            kinds.entry(at.clone()).or_insert(mapping).count += 1;
            continue;
        };
        let bytes = kibibytes(value);
        let Some(mapping) = kinds.get_mut(&at) else { continue };
        match name {
            "Rss" => {
                resident += bytes;
                mapping.resident_bytes += bytes;
            }
            "Pss" => proportional += bytes,
            "Anonymous" => {
                anonymous += bytes;
                mapping.anonymous_bytes += bytes;
            }
            "Swap" => swapped += bytes,
            _ => {}
        }
    }
    let of = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    let mut mappings: Vec<_> = kinds.into_values().collect();
    mappings.sort_by_key(|mapping| std::cmp::Reverse(mapping.resident_bytes));
    mappings.truncate(KINDS);
    Memory {
        source: "/proc/self/smaps",
        resident_bytes: resident,
        proportional_bytes: proportional,
        peak_resident_bytes: of("VmHWM").map_or(0, kibibytes),
        anonymous_bytes: anonymous,
        file_bytes: resident.saturating_sub(anonymous),
        swapped_bytes: swapped,
        threads: of("Threads").and_then(|threads| threads.trim().parse().ok()).unwrap_or(0),
        mappings,
    }
}

fn kibibytes(value: &str) -> u64 {
    value.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap_or(0) * 1024
}

fn kind(path: &str) -> String {
    match path {
        "" => "anonymous".to_owned(),
        path if path.starts_with("[anon") => "anonymous".to_owned(),
        path if path.starts_with('[') => path.trim_matches(['[', ']']).split(':').next().unwrap_or_default().to_owned(),
        path => path.trim_end_matches(" (deleted)").rsplit('/').next().unwrap_or_default().to_owned(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn mappings_are_summed_up_by_what_they_are_of() {
        let smaps = "55d0-55d9 r-xp 00000000 08:01 42    /usr/bin/saccade\nSize:  36 kB\nRss:  20 kB\nPss:  10 kB\nAnonymous:  0 kB\n\
                     7f00-7f10 rw-p 00000000 00:00 0\nRss:  64 kB\nPss:  64 kB\nAnonymous:  64 kB\nSwap:  4 kB\n\
                     7f20-7f30 rw-p 00000000 00:00 0\nRss:  8 kB\nPss:  8 kB\nAnonymous:  8 kB\n\
                     7f40-7f50 rw-p 00000000 00:00 0    [stack]\nRss:  4 kB\nAnonymous:  4 kB\n";
        let memory = read(smaps, "Name:\tsaccade\nVmHWM:\t  200 kB\nThreads:\t7\n");
        let shown: Vec<_> =
            memory.mappings.iter().map(|it| (it.of.as_str(), it.count, it.resident_bytes / 1024)).collect();
        assert_eq!(shown, [("anonymous", 2, 72), ("saccade", 1, 20), ("stack", 1, 4)]);
        assert_eq!((memory.resident_bytes, memory.anonymous_bytes), (96 * 1024, 76 * 1024));
        assert_eq!((memory.file_bytes, memory.swapped_bytes), (20 * 1024, 4 * 1024));
        assert_eq!((memory.peak_resident_bytes, memory.threads), (200 * 1024, 7));
    }

    #[test]
    fn this_process_has_a_heap_or_the_like() {
        let memory = look().unwrap();
        assert!(memory.resident_bytes > 1 << 20 && memory.threads >= 1);
        assert!(memory.anonymous_bytes > 0 && memory.peak_resident_bytes >= memory.resident_bytes / 2);
    }
}

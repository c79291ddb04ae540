use std::fs;
use std::path::{Path, PathBuf};

use super::{Source, Usage};

/// Bytes of one of the kernel's files at most.
const MAX_BYTES: u64 = 64 * 1024;

/// The host's memory, as its kernel tells: of the control groups (cgroup v2) that the process is in and that have a limit the
/// fullest; without any, the whole machine's.
///
/// In use is what a group holds without the file cache that was not touched lately (`inactive_file`), which the kernel
/// gives back when memory is asked for.
#[derive(Debug, Clone)]
pub struct Host {
    /// Where control groups are mounted.
    groups: PathBuf,
    /// What says in which group the process is, and how much memory there is.
    own: PathBuf,
    machine: PathBuf,
}

impl Default for Host {
    fn default() -> Self {
        Self { groups: "/sys/fs/cgroup".into(), own: "/proc/self/cgroup".into(), machine: "/proc/meminfo".into() }
    }
}

impl Host {
    /// The kernel's files as they are in a folder: `cgroup/` for the mounted groups, the files `self-cgroup` and `meminfo` for
    /// those of `/proc`.
    #[must_use]
    pub fn under(folder: &Path) -> Self {
        let [groups, own, machine] = ["cgroup", "self-cgroup", "meminfo"].map(|name| folder.join(name));
        Self { groups, own, machine }
    }

    fn group(&self) -> Option<Usage> {
        let own = read(&self.own)?;
        // `0::/path` is the group of version 2 (cgroups(7)).
        let path = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
        let is_inside = !path.split('/').any(|part| part == "..");
        let folder = self.groups.join(if is_inside { path } else { "" });
        let of_all = folder.ancestors().take_while(|folder| folder.starts_with(&self.groups)).filter_map(usage);
        of_all.max_by(|a, b| a.ratio().total_cmp(&b.ratio()))
    }

    fn machine(&self) -> Option<Usage> {
        let text = read(&self.machine)?;
        let bytes = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
        };
        let (limit, available) = (bytes("MemTotal:")?, bytes("MemAvailable:")?);
        (limit > 0).then(|| Usage { used: limit.saturating_sub(available), limit })
    }
}

impl Source for Host {
    fn read(&mut self) -> Option<Usage> {
        self.group().or_else(|| self.machine())
    }
}

/// What a group uses, if it has a limit.
fn usage(folder: &Path) -> Option<Usage> {
    let number = |name| read(&folder.join(name))?.trim().parse::<u64>().ok();
    let limit = number("memory.max").filter(|limit| *limit > 0)?;
    let held = number("memory.current")?;
    let stat = read(&folder.join("memory.stat")).unwrap_or_default();
    let idle = stat.lines().find_map(|line| line.strip_prefix("inactive_file ")?.trim().parse::<u64>().ok());
    Some(Usage { used: held.saturating_sub(idle.unwrap_or_default()), limit })
}

fn read(path: &Path) -> Option<String> {
    use std::io::Read;
    let mut text = String::new();
    fs::File::open(path).ok()?.take(MAX_BYTES).read_to_string(&mut text).ok()?;
    Some(text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    const MEMINFO: &str = "MemTotal:       1000 kB\nMemFree:         10 kB\nMemAvailable:    250 kB\n";

    fn write(folder: &Path, files: &[(&str, &str)]) {
        for (name, text) in files {
            let path = folder.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }

    #[test]
    fn a_groups_limit_comes_before_the_machines_memory() {
        let folder = tempfile::tempdir().unwrap();
        let mut host = Host::under(folder.path());
        assert_eq!(host.read(), None);
        write(folder.path(), &[("meminfo", MEMINFO)]);
        assert_eq!(host.read(), Some(Usage { used: 750 * 1024, limit: 1000 * 1024 }));
        // A group without a limit leaves it at that.
        write(
            folder.path(),
            &[
                ("self-cgroup", "4:memory:/old\n0::/site/saccade.service\n"),
                ("cgroup/site/saccade.service/memory.max", "max\n"),
                ("cgroup/site/saccade.service/memory.current", "5000\n"),
            ],
        );
        assert_eq!(host.read(), Some(Usage { used: 750 * 1024, limit: 1000 * 1024 }));
        write(
            folder.path(),
            &[
                ("cgroup/site/saccade.service/memory.max", "10000\n"),
                ("cgroup/site/saccade.service/memory.stat", "anon 1\ninactive_file 1500\nactive_file 7\n"),
            ],
        );
        assert_eq!(host.read(), Some(Usage { used: 3500, limit: 10_000 }));
        // What is around it may be fuller.
        write(folder.path(), &[("cgroup/site/memory.max", "20000\n"), ("cgroup/site/memory.current", "19000\n")]);
        assert_eq!(host.read(), Some(Usage { used: 19_000, limit: 20_000 }));
    }

    #[test]
    fn a_container_that_sees_its_own_group_as_the_root_is_understood() {
        let folder = tempfile::tempdir().unwrap();
        for own in ["0::/\n", "0::/../../elsewhere\n"] {
            write(
                folder.path(),
                &[
                    ("self-cgroup", own),
                    ("cgroup/memory.max", "1000"),
                    ("cgroup/memory.current", "900"),
                    ("meminfo", MEMINFO),
                ],
            );
            assert_eq!(Host::under(folder.path()).read(), Some(Usage { used: 900, limit: 1000 }), "{own}");
        }
    }

    #[test]
    fn this_machine_tells_how_much_it_has() {
        let usage = Host::default().read().unwrap();
        assert!(usage.limit > 1 << 20 && usage.used > 0, "{usage:?}");
    }
}

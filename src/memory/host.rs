use std::fs;
use std::path::{Path, PathBuf};

use super::{Source, Usage};

/// Bytes of one of the kernel's files at most.
const MAX_BYTES: u64 = 64 * 1024;

/// The host's memory, as its kernel tells: of the control groups (cgroup v2, or v1 where that has the memory) that the process
/// is in and that have a limit below the machine's memory the fullest; without any, the whole machine's.
///
/// In use is what a group holds without the file cache that the kernel gives back when memory is asked for: what was not
/// touched lately, and what no process has mapped.
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

    /// The fullest group. A limit of `most` or more binds nobody.
    fn group(&self, most: u64) -> Option<Usage> {
        let own = read(&self.own)?;
        // `0::/path` is the group of version 2, and `7:memory:/path` that of the memory in version 1 (cgroups(7)).
        let second = own.lines().find_map(|line| line.strip_prefix("0::/"));
        let first = own.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(":/")?;
            controllers.split(',').any(|controller| controller == "memory").then_some(path)
        });
        let roots = [(second, self.groups.clone(), &SECOND), (first, self.groups.join("memory"), &FIRST)];
        let of_all = roots.into_iter().filter_map(|(path, root, version)| Some((path?, root, version)));
        let of_all = of_all.flat_map(|(path, root, version)| {
            let is_inside = !path.split('/').any(|part| part == "..");
            let folder = root.join(if is_inside { path } else { "" });
            let around = folder.ancestors().take_while(|folder| folder.starts_with(&root));
            around.filter_map(|folder| version.usage(folder)).collect::<Vec<_>>()
        });
        of_all.filter(|usage| usage.limit < most).max_by(|a, b| a.ratio().total_cmp(&b.ratio()))
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
        let machine = self.machine();
        self.group(machine.map_or(u64::MAX, |usage| usage.limit)).or(machine)
    }
}

/// Names of a version's files, and of figures in its `memory.stat`.
struct Version {
    limit: &'static str,
    held: &'static str,
    inactive: &'static str,
    active: &'static str,
    mapped: &'static str,
}

const SECOND: Version = Version {
    limit: "memory.max",
    held: "memory.current",
    inactive: "inactive_file ",
    active: "active_file ",
    mapped: "file_mapped ",
};

/// Its figures with `total_` are those of the groups within, too.
const FIRST: Version = Version {
    limit: "memory.limit_in_bytes",
    held: "memory.usage_in_bytes",
    inactive: "total_inactive_file ",
    active: "total_active_file ",
    mapped: "total_mapped_file ",
};

impl Version {
    /// What a group uses, if it has a limit.
    fn usage(&self, folder: &Path) -> Option<Usage> {
        let number = |name| read(&folder.join(name))?.trim().parse::<u64>().ok();
        let limit = number(self.limit).filter(|limit| *limit > 0)?;
        let held = number(self.held)?;
        let stat = read(&folder.join("memory.stat")).unwrap_or_default();
        let figure = |name: &str| {
            let value = stat.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
            value.unwrap_or_default()
        };
        let inactive = figure(self.inactive);
        let unmapped = inactive.saturating_add(figure(self.active)).saturating_sub(figure(self.mapped));
        Some(Usage { used: held.saturating_sub(inactive.max(unmapped)), limit })
    }
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
    const MACHINE: Usage = Usage { used: 750 * 1024, limit: 1000 * 1024 };

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
                (
                    "cgroup/site/saccade.service/memory.stat",
                    "anon 1\nfile_mapped 7\ninactive_file 1500\nactive_file 7\n",
                ),
            ],
        );
        assert_eq!(host.read(), Some(Usage { used: 3500, limit: 10_000 }));
        // What is around it may be fuller.
        write(folder.path(), &[("cgroup/site/memory.max", "20000\n"), ("cgroup/site/memory.current", "19000\n")]);
        assert_eq!(host.read(), Some(Usage { used: 19_000, limit: 20_000 }));
    }

    #[test]
    fn files_that_nobody_has_mapped_are_given_back_and_so_are_not_in_use() {
        let folder = tempfile::tempdir().unwrap();
        let stat = |mapped: u64| format!("file 6000\ninactive_file 1000\nactive_file 4000\nfile_mapped {mapped}\n");
        for (mapped, used) in [(0, 4000), (500, 4500), (5000, 8000)] {
            write(
                folder.path(),
                &[
                    ("self-cgroup", "0::/\n"),
                    ("cgroup/memory.max", "10000"),
                    ("cgroup/memory.current", "9000"),
                    ("cgroup/memory.stat", &stat(mapped)),
                ],
            );
            let found = Host::under(folder.path()).read();
            assert_eq!(found, Some(Usage { used, limit: 10_000 }), "{mapped} bytes mapped");
        }
    }

    #[test]
    fn a_limit_beyond_the_machine_binds_nobody() {
        let folder = tempfile::tempdir().unwrap();
        for limit in ["1024000", "9223372036854771712", "18446744073709551615"] {
            write(
                folder.path(),
                &[
                    ("self-cgroup", "0::/\n"),
                    ("cgroup/memory.max", limit),
                    ("cgroup/memory.current", "1000"),
                    ("meminfo", MEMINFO),
                ],
            );
            assert_eq!(Host::under(folder.path()).read(), Some(MACHINE), "{limit}");
        }
    }

    #[test]
    fn groups_of_the_first_version_count_where_they_have_the_memory() {
        let folder = tempfile::tempdir().unwrap();
        write(
            folder.path(),
            &[
                ("self-cgroup", "7:cpu,cpuacct:/other\n4:memory:/docker/abc\n0::/docker/abc\n"),
                ("cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
                ("cgroup/memory/memory.usage_in_bytes", "900000\n"),
                ("cgroup/memory/docker/abc/memory.limit_in_bytes", "10000\n"),
                ("cgroup/memory/docker/abc/memory.usage_in_bytes", "9000\n"),
                (
                    "cgroup/memory/docker/abc/memory.stat",
                    "inactive_file 1\ntotal_inactive_file 2000\ntotal_active_file 10\ntotal_mapped_file 10\n",
                ),
                ("meminfo", MEMINFO),
            ],
        );
        assert_eq!(Host::under(folder.path()).read(), Some(Usage { used: 7000, limit: 10_000 }));
        // In a container the group is at the root of what is mounted.
        fs::remove_dir_all(folder.path().join("cgroup/memory/docker")).unwrap();
        write(folder.path(), &[("cgroup/memory/memory.limit_in_bytes", "1000000\n")]);
        assert_eq!(Host::under(folder.path()).read(), Some(Usage { used: 900_000, limit: 1_000_000 }));
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

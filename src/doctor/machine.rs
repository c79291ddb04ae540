use std::fs;
use std::thread;

use socket2::{Domain, Socket, Type};

use super::Check;
use crate::queue::SOCKET_BYTES;

/// Instruction sets that make inference and conversions faster, as Linux names them.
const WANTED: [&str; 6] = ["avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16"];
/// Without these, inference takes several times as long.
const NEEDED: [&str; 2] = ["avx2", "fma"];
const MIB: u64 = 1 << 20;
const SOCKET_BUFFERS: &str = "socket buffers";
const BUFFERS_ADVICE: &str = "what many sessions send at once is lost: sysctl -w net.core.rmem_max=4194304 net.core.wmem_max=4194304 (deploy/sysctl)";
/// Below this, a model and a few sessions do not fit.
const ENOUGH_BYTES: u64 = 1024 * MIB;

pub(super) fn processor() -> Check {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let (model, flags) = parse_cpuinfo(&fs::read_to_string("/proc/cpuinfo").unwrap_or_default());
    let has = |feature: &&&str| flags.iter().any(|flag| flag == *feature);
    let features: Vec<_> = WANTED.iter().filter(has).copied().collect();
    let list = if features.is_empty() { "no vector extensions".to_owned() } else { features.join(" ") };
    let found = format!("{model}, {cores} {}, {list}", if cores == 1 { "core" } else { "cores" });
    if cfg!(target_arch = "x86_64") && !NEEDED.iter().all(|feature| has(&feature)) {
        return Check::warn(
            "processor",
            found,
            "inference is slow without AVX2 and FMA: use a processor that has them",
        );
    }
    if cores < 2 {
        return Check::warn("processor", found, "give the server two cores at least, or latency jumps with each frame");
    }
    Check::ok("processor", found)
}

pub(super) fn memory() -> Check {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let available = parse_meminfo(&read("/proc/meminfo"));
    let group = read("/sys/fs/cgroup/memory.max").trim().parse::<u64>().ok();
    let Some(available) = available else {
        return Check::warn("memory", "unknown", "it cannot be read here; 1 GiB is enough for a few sessions");
    };
    let free = group.map_or(available, |limit| limit.min(available));
    let limit = group.map(|limit| format!(", limited to {} MiB", limit / MIB)).unwrap_or_default();
    let found = format!("{} MiB available{limit}", available / MIB);
    if free < ENOUGH_BYTES {
        Check::warn("memory", found, "give it 1 GiB, or lower admission.max_sessions")
    } else {
        Check::ok("memory", found)
    }
}

/// Whether the system holds as much for a socket of media as it is asked to. What comes beyond that is lost, and looks like
/// loss in the network.
pub(super) fn socket_buffers() -> Check {
    let tried = Socket::new(Domain::IPV4, Type::DGRAM, None).and_then(|socket| {
        socket.set_recv_buffer_size(SOCKET_BYTES)?;
        socket.set_send_buffer_size(SOCKET_BYTES)?;
        // Linux tells twice what was asked for, since it counts its own records, too (socket(7)).
        Ok((socket.recv_buffer_size()? / 2, socket.send_buffer_size()? / 2))
    });
    match tried {
        Ok((received, sent)) => buffers(received, sent),
        Err(error) => Check::warn(SOCKET_BUFFERS, format!("no socket can be tried: {error}"), BUFFERS_ADVICE),
    }
}

fn buffers(received: usize, sent: usize) -> Check {
    let kib = |bytes: usize| bytes / 1024;
    let found = format!("{} KiB to receive, {} KiB to send, of {}", kib(received), kib(sent), kib(SOCKET_BYTES));
    if received.min(sent) < SOCKET_BYTES {
        Check::warn(SOCKET_BUFFERS, found, BUFFERS_ADVICE)
    } else {
        Check::ok(SOCKET_BUFFERS, found)
    }
}

/// The first processor's name and flags.
fn parse_cpuinfo(text: &str) -> (String, Vec<String>) {
    let value = |name: &str| {
        text.lines().filter_map(|line| line.split_once(':')).find(|(key, _)| key.trim() == name).map(|(_, value)| value)
    };
    let model = value("model name").map_or_else(|| std::env::consts::ARCH.to_owned(), |name| name.trim().to_owned());
    let flags = value("flags").unwrap_or_default().split_whitespace().map(str::to_owned).collect();
    (model, flags)
}

/// `MemAvailable` in bytes.
fn parse_meminfo(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::doctor::Status;

    #[test]
    fn buffers_below_what_media_asks_for_are_a_warning_that_names_the_settings() {
        // What Linux gives where nobody set anything.
        let check = buffers(212_992, SOCKET_BYTES);
        assert_eq!(
            (check.status, check.found.as_str()),
            (Status::Warn, "208 KiB to receive, 4096 KiB to send, of 4096")
        );
        let advice = check.advice.unwrap();
        for key in ["rmem_max", "wmem_max"] {
            assert!(advice.contains(&format!("net.core.{key}={SOCKET_BYTES}")), "{advice}");
        }
        assert_eq!(buffers(SOCKET_BYTES, 212_992).status, Status::Warn);
        assert_eq!(buffers(SOCKET_BYTES, SOCKET_BYTES).status, Status::Ok);
    }

    #[test]
    fn buffers_are_those_that_the_system_gives() {
        let read = |key| fs::read_to_string(format!("/proc/sys/net/core/{key}")).ok()?.trim().parse::<usize>().ok();
        // Network namespaces of older systems do not show them.
        let Some((received, sent)) = read("rmem_max").zip(read("wmem_max")) else { return };
        assert_eq!(socket_buffers(), buffers(received.min(SOCKET_BYTES), sent.min(SOCKET_BYTES)));
    }

    #[test]
    fn names_flags_and_bytes_are_read() {
        let text = "processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nflags\t\t: fpu avx2 fma\n\nprocessor\t: 1\n";
        let (model, flags) = parse_cpuinfo(text);
        assert_eq!((model.as_str(), flags), ("Some CPU @ 2 GHz", vec!["fpu".into(), "avx2".into(), "fma".into()]));
        assert_eq!(parse_cpuinfo("").1, Vec::<String>::new());
        assert_eq!(parse_meminfo("MemTotal: 9 kB\nMemAvailable:      2048 kB\n"), Some(2048 * 1024));
        assert_eq!(parse_meminfo("MemTotal: 9 kB\n"), None);
    }
}

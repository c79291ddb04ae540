//! What the server adapts to its machine before anything runs: how fast codecs are, how many threads there are, what the
//! network carries.
//!
//! The configuration and what was kept of an earlier start enter, a [`Tuning`] leaves; where nothing is kept, codecs are
//! tried out on the calling thread and a few more, for half a second or so. What models take is measured when they are
//! loaded. It must not change anything but the file of the calibration.

use std::fs;
use std::num::NonZero;
use std::path::Path;
use std::thread;
use std::time::Duration;

use serde::Serialize;

use crate::calibration::{Calibration, Origin};
use crate::config::Config;
use crate::infer::backend::CpuFeatures;
use crate::pipeline::Codecs;

const MEGABIT: u64 = 1_000_000;
/// Kept numbers beyond this are none.
const SLOWEST: Duration = Duration::from_secs(10);
const MOST_THREADS: usize = 1024;

/// The numbers to start the server with.
#[derive(Debug, Clone, PartialEq)]
pub struct Tuning {
    /// What codecs take.
    pub codecs: Codecs,
    /// Where [`Self::codecs`] is from, or why codecs could not be tried.
    pub origin: Result<Origin, String>,
    /// Threads for decoding, drawing and encoding.
    pub codec_threads: usize,
    /// Threads for sockets, HTTP and timers.
    pub network_threads: usize,
    /// Bits a second that the network carries each way, if that is known.
    pub network_bps: Option<u64>,
}

/// What the speed of codecs depends on.
#[derive(Debug, Serialize)]
struct Key {
    codecs: &'static str,
    machine: String,
    version: &'static str,
    /// Number of threads that the operator chose.
    threads: Option<usize>,
}

impl Tuning {
    /// What the operator chose, what was measured at an earlier start, and what is measured now for want of that.
    #[must_use]
    pub fn find(config: &Config, calibration: &Calibration) -> Self {
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        let threads = config.threads.codec;
        let key = Key {
            codecs: "H.264, software",
            machine: CpuFeatures::machine(),
            version: env!("CARGO_PKG_VERSION"),
            threads,
        };
        let kept = calibration.get::<Codecs>(&key).filter(makes_sense);
        let (codecs, origin) =
            kept.map(|kept| (kept, Ok(Origin::Kept))).unwrap_or_else(|| match Codecs::measure(cores, threads) {
                Ok(codecs) => {
                    calibration.put(&key, &codecs);
                    (codecs, Ok(Origin::Measured))
                }
                Err(reason) => (Codecs::unknown(cores), Err(reason)),
            });
        Self {
            codec_threads: threads.unwrap_or(codecs.threads()),
            network_threads: config.threads.network.unwrap_or_else(|| codecs.network_threads(cores)),
            network_bps: network(config),
            codecs,
            origin,
        }
    }
}

/// Whether it can have been measured.
fn makes_sense(codecs: &Codecs) -> bool {
    let times = [codecs.decode(), codecs.encode()];
    times.iter().all(|time| !time.is_zero() && *time <= SLOWEST) && (1..=MOST_THREADS).contains(&codecs.threads())
}

/// What the operator says the network carries, or else the fastest interface; unknown where media stays on this machine.
fn network(config: &Config) -> Option<u64> {
    if let Some(mbps) = config.admission.bandwidth_mbps {
        return Some(u64::from(mbps) * MEGABIT);
    }
    if config.media.listen.is_loopback() { None } else { fastest(Path::new("/sys/class/net")) }
}

/// The speed of the fastest interface that is up, in bits a second, where the kernel knows it.
fn fastest(interfaces: &Path) -> Option<u64> {
    let speed = |folder: &Path| {
        let read = |name| fs::read_to_string(folder.join(name)).ok();
        let up = read("operstate")?.trim() == "up";
        // -1 where it is up, but nobody knows.
        read("speed")?.trim().parse::<u64>().ok().filter(|_| up).map(|mbps| mbps * MEGABIT)
    };
    fs::read_dir(interfaces).ok()?.filter_map(|entry| speed(&entry.ok()?.path())).max()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::config::Sources;

    fn config(settings: &[(&str, &str)]) -> Config {
        let mut sources = Sources::default();
        settings.iter().for_each(|(key, value)| sources.flag(key, "--set", *value));
        Config::load(&sources).unwrap()
    }

    #[test]
    fn what_was_measured_is_kept_and_what_is_pinned_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let calibration = Calibration::Keep(folder.path().join("calibration.json"));
        let first = Tuning::find(&config(&[]), &calibration);
        assert_eq!(first.origin, Ok(Origin::Measured));
        let second = Tuning::find(&config(&[]), &calibration);
        assert_eq!(second, Tuning { origin: Ok(Origin::Kept), ..first });
        let pinned = config(&[("threads.codec", "5"), ("threads.network", "3"), ("admission.bandwidth_mbps", "20")]);
        let pinned = Tuning::find(&pinned, &calibration);
        assert_eq!((pinned.codec_threads, pinned.network_threads), (5, 3));
        assert_eq!((pinned.network_bps, pinned.origin), (Some(20_000_000), Ok(Origin::Measured)));
        assert_eq!(Tuning::find(&config(&[]), &calibration.renewed()).origin, Ok(Origin::Measured));
    }

    #[test]
    fn the_fastest_interface_that_is_up_counts() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(fastest(folder.path()), None);
        for (name, state, speed) in [("lo", "unknown", ""), ("eth0", "up", "-1\n"), ("eth1", "down", "10000\n")] {
            let interface = folder.path().join(name);
            fs::create_dir(&interface).unwrap();
            fs::write(interface.join("operstate"), state).unwrap();
            fs::write(interface.join("speed"), speed).unwrap();
        }
        assert_eq!(fastest(folder.path()), None);
        fs::write(folder.path().join("eth0/speed"), "1000\n").unwrap();
        assert_eq!(fastest(folder.path()), Some(1_000_000_000));
        let local = [("media.listen", "127.0.0.1")];
        assert_eq!(network(&config(&local)), None);
    }
}

//! How busy the GPU and the processors are while something runs.

use std::collections::BTreeMap;
use std::sync::Once;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use saccade::clock;
use saccade::device::watch::{Gauges as _, Library};
use saccade_load::Usage;

/// How often the GPU is asked.
const PERIOD: Duration = Duration::from_millis(250);

/// Looks until it is asked what it saw.
#[derive(Debug)]
pub struct Watch {
    stop: SyncSender<()>,
    seen: Option<JoinHandle<Result<Seen, String>>>,
    cpu: Option<Usage>,
    since: Instant,
}

#[derive(Debug, Default)]
struct Seen {
    looks: u32,
    busy: BTreeMap<&'static str, f64>,
    memory: u64,
    watts: f64,
}

impl Watch {
    /// Begins. Without NVML, processors alone are told of.
    pub fn start() -> Self {
        let (stop, stopped) = sync_channel(1);
        let seen = std::thread::Builder::new().name("usage".to_owned()).spawn(move || {
            let (mut library, mut seen) = (Library::open()?, Seen::default());
            loop {
                if let Some(reading) = library.read()?.into_iter().next() {
                    seen.looks += 1;
                    reading.busy.iter().for_each(|(name, share)| *seen.busy.entry(name).or_default() += share);
                    seen.memory = seen.memory.max(reading.memory.map_or(0, |(used, _)| used));
                    seen.watts += reading.watts.unwrap_or_default();
                }
                if stopped.recv_timeout(PERIOD) != Err(RecvTimeoutError::Timeout) {
                    return Ok(seen);
                }
            }
        });
        Self { stop, seen: seen.ok(), cpu: Usage::of(std::process::id()), since: clock::now() }
    }

    /// What was seen, in one line: means over the time, the memory at its highest. Why nothing is told of the GPU goes to
    /// standard error, once.
    pub fn finish(self) -> String {
        let took = clock::now().duration_since(self.since);
        drop(self.stop);
        let panicked = || Err("the thread that looks at it panicked".to_owned());
        let seen = self.seen.map(|thread| thread.join().unwrap_or_else(|_| panicked())).unwrap_or_else(panicked);
        let gpu = match seen {
            Ok(seen) => {
                let looks = f64::from(seen.looks.max(1));
                let busy = seen.busy.iter().map(|(name, sum)| format!("{name} {:.0} %", 100.0 * sum / looks));
                let busy = busy.collect::<Vec<_>>().join(", ");
                format!("GPU: {busy}, {} MiB, {:.0} W; ", seen.memory >> 20, seen.watts / looks)
            }
            Err(error) => {
                static TOLD: Once = Once::new();
                TOLD.call_once(|| eprintln!("nothing is told of how busy the GPU is: {error}"));
                String::new()
            }
        };
        let cpu = self.cpu.zip(Usage::of(std::process::id())).map(|(before, after)| {
            let cores = after.cpu.saturating_sub(before.cpu).div_duration_f64(took.max(Duration::from_millis(1)));
            format!("{cores:.1} processors, {} MiB", after.resident >> 20)
        });
        format!("{gpu}{}", cpu.unwrap_or_default())
    }
}

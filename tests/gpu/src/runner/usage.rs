//! How busy the GPU and the processors are while something runs.

use std::collections::BTreeMap;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Mutex, Once, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use saccade::clock;
use saccade::device::watch::{Gauges as _, Library};
use saccade_load::Usage;

/// How often the GPU is asked.
const PERIOD: Duration = Duration::from_millis(250);
/// What the GPU tells is a mean of up to this time: what was seen earlier is of what ran before.
const OLD: Duration = Duration::from_secs(1);
/// Time in which something ran on the GPU, however small: it says nothing of how much of the GPU that took.
const KERNEL: &str = "sm";
const DECODER: &str = "decoder";

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
            let (mut seen, mut is_early, start) = (Seen::default(), true, clock::now());
            loop {
                if is_early && clock::now().duration_since(start) >= OLD {
                    (seen, is_early) = (Seen::default(), false);
                }
                // Opened once, since that takes longer than much of what is measured.
                let read = |library: &mut Library| library.read().map(|all| all.into_iter().next());
                let reading = match &mut *library().lock().unwrap_or_else(PoisonError::into_inner) {
                    Ok(library) => read(library)?,
                    Err(missing) => return Err(missing.clone()),
                };
                if let Some(reading) = reading {
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
        self.finish_with_decoder().0
    }

    /// The same, and the share of the time in which the decoders were busy, 0..1, where that is told.
    pub fn finish_with_decoder(self) -> (String, Option<f64>) {
        let took = clock::now().duration_since(self.since);
        drop(self.stop);
        let panicked = || Err("the thread that looks at it panicked".to_owned());
        let seen = self.seen.map(|thread| thread.join().unwrap_or_else(|_| panicked())).unwrap_or_else(panicked);
        let mut decoder = None;
        let gpu = match seen {
            Ok(seen) => {
                let looks = f64::from(seen.looks.max(1));
                decoder = seen.busy.get(DECODER).map(|sum| sum / looks);
                let name = |name: &'static str| if name == KERNEL { "time with a kernel running" } else { name };
                let busy = seen.busy.iter().map(|(key, sum)| format!("{} {:.0} %", name(key), 100.0 * sum / looks));
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
        (format!("{gpu}{}", cpu.unwrap_or_default()), decoder)
    }
}

/// NVML, or why there is none.
fn library() -> &'static Mutex<Result<Library, String>> {
    static LIBRARY: OnceLock<Mutex<Result<Library, String>>> = OnceLock::new();
    LIBRARY.get_or_init(|| Mutex::new(Library::open()))
}

//! What commands without a server share: configuration, models, interruption.

use std::error::Error as StdError;
use std::fmt;
use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::probe;
use super::serve::Signals;
use crate::app::Devices;
use crate::calibration::Calibration;
use crate::cli::{Exit, Settings};
use crate::config::Config;
use crate::decode::Limits;
use crate::hardware::Table;
use crate::infer::{Engine, Engines, Error, Options, manifest::BackendChoice, manifest::Precision};
use crate::models;
use crate::telemetry;

/// Files on the own disk may hold larger pictures than strangers may send.
pub(super) const LIMITS: Limits = Limits { max_width: 16_384, max_height: 16_384 };

/// Log lines from warnings on, unless `--log` asks for others. Standard output stays free for results.
pub(super) fn init_logs(settings: &Settings, config: &Config) {
    let level = if settings.log.is_some() { config.telemetry.log.as_str() } else { "warn" };
    // Only a test has a subscriber already.
    let _ = telemetry::init_logs(level, config.telemetry.log_format);
}

/// Writes a line to standard output, as `say!` does.
pub(super) fn say(line: fmt::Arguments<'_>) {
    // A closed pipe is no failure: what was asked for is done.
    let _ = writeln!(io::stdout(), "{line}");
}

/// How models are to run, where it is not left to their manifests and to measurement.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Way {
    pub(super) precision: Option<Precision>,
    pub(super) backend: Option<BackendChoice>,
    /// Measure what was measured at an earlier start, too.
    pub(super) measure: bool,
}

/// An engine without models, each of which will run with this many threads.
pub(super) fn engine(config: &Config, intra_threads: usize, way: Way) -> Result<Engine, Error> {
    let Way { precision, backend, measure } = way;
    let calibration = Calibration::standard(config.models.calibration);
    let calibration = if measure { calibration.renewed() } else { calibration };
    let hardware = if backend == Some(BackendChoice::Cpu) { Table::default() } else { probe::find(config) };
    let Devices { table, gpu } = Devices::open(config.hw, hardware);
    let common = models::options(config, calibration, models::cuda(&table, gpu.as_deref()));
    let backend = common.backend.or(backend);
    // Whoever asks for it waits for it.
    let engines = if backend == Some(BackendChoice::TensorRt) { Engines::First } else { Engines::Kept };
    Engine::new(Options { intra_threads, precision, backend, instances: Some(1), engines, ..common })
}

/// The exit code that an error of models stands for.
pub(super) const fn exit_of(error: &Error) -> Exit {
    match error {
        Error::LibraryMissing { .. } | Error::LibraryUnusable { .. } => Exit::Unavailable,
        Error::UnknownModel { .. } => Exit::Configuration,
        _ => Exit::Internal,
    }
}

/// The error and what caused it, in one line.
pub(super) fn sentence(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let reason = error.to_string();
        if !text.ends_with(&reason) {
            text = format!("{text}: {reason}");
        }
        cause = error.source();
    }
    text
}

/// Runs `work` on a thread of its own. The first SIGINT or SIGTERM sets the flag that `work` looks at, and waits for
/// it; a second one does not wait.
pub(super) fn interruptible(work: impl FnOnce(&AtomicBool) -> Exit + Send + 'static) -> Exit {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("the runtime does not start: {error}");
            return Exit::Internal;
        }
    };
    let stop = Arc::new(AtomicBool::new(false));
    let exit = runtime.block_on(async {
        let mut signals = match Signals::new() {
            Ok(signals) => signals,
            Err(error) => {
                eprintln!("signals cannot be received: {error}");
                return Exit::Internal;
            }
        };
        let flag = Arc::clone(&stop);
        let mut work = tokio::task::spawn_blocking(move || work(&flag));
        for _ in 0..2 {
            tokio::select! {
                // A panic has written its own message.
                done = &mut work => return done.unwrap_or(Exit::Internal),
                () = signals.next() => stop.store(true, Ordering::Release),
            }
        }
        Exit::Internal
    });
    runtime.shutdown_background();
    exit
}

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::app::{self, App, Devices};
use crate::calibration::Calibration;
use crate::cli::{Exit, Serve};
use crate::commands::probe;
use crate::config::Config;
use crate::hardware::{Finding, Table};
use crate::telemetry;
use crate::tuning::Tuning;

/// Runs the server until a signal ends it: the first drains, a second ends at once.
pub(super) fn run(args: &Serve) -> Exit {
    let config = match Config::load(&args.sources(std::env::vars_os())) {
        Ok(config) => config,
        Err(mistakes) => {
            eprintln!("{mistakes}");
            return Exit::Configuration;
        }
    };
    if args.check {
        if let Err(error) = app::check(&config) {
            eprintln!("{error}");
            return error.exit();
        }
        println!("The configuration is good.");
        return Exit::Clean;
    }
    if let Err(error) = telemetry::init_logs(&config.telemetry.log, config.telemetry.log_format) {
        eprintln!("{error}");
        return Exit::Internal;
    }
    let metrics = match telemetry::metrics::install() {
        Ok(metrics) => metrics,
        Err(error) => {
            eprintln!("metrics cannot be collected: {error}");
            return Exit::Internal;
        }
    };
    raise_file_limit();
    let devices = Devices::open(config.hw, probe::find(&config));
    log_hardware(&devices.table);
    let tuning = Tuning::find(&config, &Calibration::standard(config.models.calibration));
    log(&tuning);
    // Sockets and timers alone run here; codecs and models have threads of their own.
    let threads = tuning.network_threads;
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("the runtime does not start: {error}");
            return Exit::Internal;
        }
    };
    let exit = runtime.block_on(serve(&config, &tuning, devices, metrics));
    // Whatever still blocks a thread must not hold up the exit.
    runtime.shutdown_background();
    exit
}

/// Every socket and connection is an open file, and the soft limit is made for programs that have few.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!(%error, limit = limit.current, "the limit of open files cannot be raised");
    }
}

fn log(tuning: &Tuning) {
    let Tuning { codecs, origin, codec_threads, network_threads, network_bps } = tuning;
    let origin = match origin {
        Ok(origin) => origin.name(),
        Err(reason) => {
            tracing::warn!(reason, "codecs could not be tried");
            "guessed"
        }
    };
    tracing::info!(
        decode_mpixel_per_s = codecs.decode_rate().round(),
        encode_mpixel_per_s = codecs.encode_rate().round(),
        codec_threads,
        network_threads,
        network_bps,
        origin,
        "what this machine does"
    );
}

fn log_hardware(hardware: &Table) {
    for Finding { piece, works, found } in hardware.findings() {
        tracing::info!(piece = piece.name(), works, found, "special hardware");
    }
}

async fn serve(config: &Config, tuning: &Tuning, devices: Devices, metrics: telemetry::metrics::Handle) -> Exit {
    let mut signals = match Signals::new() {
        Ok(signals) => signals,
        Err(error) => {
            eprintln!("signals cannot be received: {error}");
            return Exit::Internal;
        }
    };
    let app = tokio::select! {
        started = App::start(config, tuning, devices, metrics) => match started {
            Ok(app) => app,
            Err(error) => {
                eprintln!("{error}");
                return error.exit();
            }
        },
        () = signals.next() => return Exit::Clean,
    };
    println!(
        "Saccade {} is ready: {}://{}/ (health and metrics: http://{}/)",
        env!("CARGO_PKG_VERSION"),
        if app.is_secure() { "https" } else { "http" },
        app::reachable(app.http_address()),
        app::reachable(app.ops_address()),
    );
    signals.next().await;
    tracing::info!("shutting down; a second signal ends at once");
    tokio::select! {
        () = app.shut_down() => tracing::info!("shut down"),
        () = signals.next() => tracing::warn!("ended by a second signal"),
    }
    Exit::Clean
}

/// SIGTERM and SIGINT.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

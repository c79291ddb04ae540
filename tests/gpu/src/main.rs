//! Tries Saccade's GPU path on the machine that it runs on: `tests/gpu/README.md` says what each part tells.
#![allow(clippy::disallowed_methods, reason = "it measures in real time")]

mod runner;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use saccade::calibration::Calibration;
use saccade::config::{Config, File, Sources};
use saccade::infer::manifest::{BackendChoice, Precision};
use saccade::infer::{Engine, Options};
use saccade::tuning::Tuning;
use saccade::{clock, telemetry};

use runner::clips::Clip;
use runner::files::Files;
use runner::goldens::On;
use runner::gpu::Machine;
use runner::graphs::Graphs;
use runner::{Report, Stop, decode, goldens, kernels, making, probe, sessions, sweep};

/// Something was found that ought to be otherwise.
const WRONG: u8 = 1;
/// What was typed can't be done.
const USAGE: u8 = 64;
/// There is no GPU.
const NO_GPU: u8 = 69;
/// Something that the part needs is missing or fails.
const FAILED: u8 = 70;
/// The part took too long.
const LATE: u8 = 124;
/// Results that each session has before anything is counted, how long that may take, and how long they go on then.
const SETTLED: u64 = 10;
const SETTLE: Duration = Duration::from_secs(30);
const WARM: Duration = Duration::from_secs(2);

/// Everything that was typed.
#[derive(Debug, Parser)]
#[command(name = "saccade-gpu", version, about = "Tries Saccade's GPU path on this machine, and measures it")]
#[command(
    after_help = "Exit codes: 0 well, 1 something is wrong, 64 bad arguments, 69 no GPU, 70 something is missing, \
                        124 out of time."
)]
struct Args {
    /// Folder with clips, photos and models
    #[arg(long, global = true, default_value = ".")]
    files: PathBuf,
    /// Seconds until the part is ended, with what it has found by then
    #[arg(long, global = true, default_value_t = 540)]
    limit: u64,
    /// Do the same in software, without a GPU
    #[arg(long, global = true)]
    software: bool,
    /// Have the GPU record models' runs as CUDA graphs and repeat them, where a trial finds that it does
    #[arg(long, global = true, value_enum, default_value_t = Switch::On)]
    graphs: Switch,
    #[command(subcommand)]
    part: Part,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// Have the server look for a GPU, and show what it finds
    Probe {
        /// The server; default: beside this program
        #[arg(long)]
        server: Option<PathBuf>,
    },
    /// Compare each kernel with what the processors compute
    Kernels {
        /// Where the numbers begin; default: the time
        #[arg(long)]
        seed: Option<u64>,
        /// Inputs for each kernel
        #[arg(long, default_value_t = 200)]
        rounds: usize,
    },
    /// Compare decoding with FFmpeg's, and count the streams that it takes
    Decode {
        /// How long each number of streams is measured
        #[arg(long, default_value_t = 3.0)]
        seconds: f64,
        /// Streams at a time at most
        #[arg(long, default_value_t = 150)]
        streams: usize,
    },
    /// Compare what models find with what they find on processors
    Goldens,
    /// Measure how fast models run
    Sweep {
        /// Pictures in a run
        #[arg(long, value_delimiter = ',', default_values_t = [8, 1, 32, 16, 4, 2])]
        batches: Vec<usize>,
        /// Sides of the models' input; default: all that there are
        #[arg(long, value_delimiter = ',')]
        sides: Vec<u32>,
        /// How long each is measured of the largest model; others for a third of that
        #[arg(long, default_value_t = 3.0)]
        seconds: f64,
        /// Instances of the model; default: as many as the server would have
        #[arg(long)]
        instances: Option<u32>,
    },
    /// Run sessions whose video comes from a file
    Sessions {
        /// Sessions at a time, one number after the other
        #[arg(long, value_delimiter = ',', default_values_t = [100, 10, 50, 150, 200])]
        counts: Vec<usize>,
        /// How long each number of them is measured
        #[arg(long, default_value_t = 15.0)]
        seconds: f64,
        /// Models, one after the other
        #[arg(long, value_delimiter = ',', default_values_t = ["yolo-640".to_owned(), "ppe-nano".to_owned()])]
        models: Vec<String>,
        /// The clip that they send
        #[arg(long, default_value = making::SESSIONS)]
        clip: String,
        /// Latency budget in milliseconds
        #[arg(long, default_value_t = 50)]
        budget_ms: u32,
        /// Threads for decoding; default: as many as the server would have
        #[arg(long)]
        codec_threads: Option<usize>,
        /// Instances of the model; default: as many as the server would have
        #[arg(long)]
        instances: Option<u32>,
        /// Precision of the models
        #[arg(long, value_enum, default_value_t = Wanted::Auto)]
        precision: Wanted,
        /// Give frames up under load, as the server does
        #[arg(long)]
        degradation: bool,
    },
    /// Make the clips, of video files and of the drawn scene
    Clips {
        /// Where they go
        #[arg(long)]
        to: PathBuf,
        /// Pictures of each at most
        #[arg(long, default_value_t = 90)]
        frames: usize,
        /// Video files
        from: Vec<PathBuf>,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Wanted {
    /// fp16 where it is to be had, else fp32
    Auto,
    Fp32,
    Fp16,
}

impl Wanted {
    const fn precisions(self) -> &'static [Precision] {
        match self {
            Self::Auto => &[Precision::Fp16, Precision::Fp32],
            Self::Fp32 => &[Precision::Fp32],
            Self::Fp16 => &[Precision::Fp16],
        }
    }
}

impl Part {
    const fn name(&self) -> &'static str {
        match self {
            Self::Probe { .. } => "probe",
            Self::Kernels { .. } => "kernels",
            Self::Decode { .. } => "decode",
            Self::Goldens => "goldens",
            Self::Sweep { .. } => "sweep",
            Self::Sessions { .. } => "sessions",
            Self::Clips { .. } => "clips",
        }
    }
}

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { USAGE } else { 0 });
        }
    };
    let _ = telemetry::init_logs("warn", telemetry::LogFormat::Text);
    let (report, limit) = (Arc::new(Report::new(args.part.name())), Duration::from_secs(args.limit));
    let (_done, over) = sync_channel::<()>(1);
    // A driver that hangs holds up the part, and not its end.
    let late = Arc::clone(&report);
    std::thread::spawn(move || {
        if over.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
            late.wrong("time", format_args!("not done after {} s", limit.as_secs()));
            println!("\n{late}");
            std::process::exit(LATE.into());
        }
    });
    let ended = run(&report, &args);
    let exit = match &ended {
        Ok(()) if report.mistakes() == 0 => 0,
        Ok(()) => WRONG,
        Err(Stop::NoGpu(_)) => NO_GPU,
        Err(Stop::Failed(_)) => FAILED,
    };
    if let Err(stop) = ended {
        report.row("end", stop.to_string());
    }
    println!("\n{report}");
    ExitCode::from(exit)
}

fn run(report: &Report, args: &Args) -> Result<(), Stop> {
    let files = Files(args.files.clone());
    let end = clock::now() + Duration::from_secs(args.limit.saturating_sub(20).max(args.limit / 2));
    let graphs = |machine: &Machine| Graphs::find(machine, args.graphs == Switch::On);
    let open = || if args.software { Ok(None) } else { Machine::open().map(Some) };
    match &args.part {
        Part::Probe { server } => probe::run(report, &server.clone().map_or_else(beside, Ok)?),
        Part::Kernels { seed, rounds } => {
            let machine = open()?.ok_or_else(|| Stop::Failed("kernels run on a GPU alone".to_owned()))?;
            kernels::run(report, &machine, seed.unwrap_or_else(by_time), *rounds)
        }
        Part::Decode { seconds, streams } => {
            let by = open()?.map_or(Ok(decode::By::Software), |machine| decode::By::machine(&machine))?;
            decode::run(report, &by, &Clip::read_all(&files.clips())?, *seconds, *streams)
        }
        Part::Goldens => {
            let on = open()?.map_or(On::Processors, |machine| {
                let graphs = graphs(&machine);
                report.row("CUDA graphs", graphs.to_string());
                On::machine(&machine, graphs.are_on())
            });
            goldens::run(report, &on, &files)
        }
        Part::Sweep { batches, sides, seconds, instances } => {
            let machine = open()?;
            let (batches, sides, server) = (batches.clone(), sides.clone(), beside()?);
            let graphs = machine.as_ref().map_or(Graphs::Anew, graphs);
            let (seconds, instances) = (*seconds, *instances);
            let plan = sweep::Plan { batches, sides, seconds, instances, graphs, server, end };
            sweep::run(report, machine.as_ref(), &files, &plan)
        }
        Part::Sessions {
            counts,
            seconds,
            models,
            clip,
            budget_ms,
            codec_threads,
            instances,
            precision,
            degradation,
        } => {
            let plan = sessions::Plan {
                counts: counts.clone(),
                settled: SETTLED,
                settle: SETTLE,
                warm: WARM,
                least: 1,
                time: Duration::from_secs_f64(*seconds),
                budget_ms: *budget_ms,
                codec_threads: *codec_threads,
                degradation: *degradation,
                end,
            };
            let clip = Clip::read(&files.clips().join(format!("{clip}.ivf")))?;
            let machine = open()?;
            let on = machine.as_ref().map(|machine| (machine, graphs(machine)));
            let models = Models { names: models, precisions: precision.precisions(), instances: *instances };
            simulate(report, on.as_ref().map(|(machine, graphs)| (*machine, graphs)), &files, &models, &clip, &plan)
        }
        Part::Clips { to, frames, from } => {
            let from: Vec<_> = from.iter().map(PathBuf::as_path).collect();
            making::run(report, &from, to, *frames)
        }
    }
}

/// The server, beside this program.
fn beside() -> Result<PathBuf, Stop> {
    std::env::current_exe().map(|program| program.with_file_name("saccade")).map_err(Stop::failed)
}

fn by_time() -> u64 {
    clock::wall().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64 & 0xffff_ffff)
}

/// What sessions run.
struct Models<'a> {
    names: &'a [String],
    /// The first that there is.
    precisions: &'a [Precision],
    /// Instead of the server's own choice.
    instances: Option<u32>,
}

/// Sessions of each model, in the first precision that it runs in.
fn simulate(
    report: &Report,
    machine: Option<(&Machine, &Graphs)>,
    files: &Files,
    models: &Models<'_>,
    clip: &Clip,
    plan: &sessions::Plan,
) -> Result<(), Stop> {
    let sources = Sources { file: File::None, ..Sources::default() };
    let config = Config::load(&sources).map_err(|mistakes| Stop::Failed(mistakes.to_string()))?;
    let tuning = Tuning::find(&config, &Calibration::Off);
    let metrics = telemetry::metrics::install().map_err(Stop::failed)?;
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.enable_all().worker_threads(tuning.network_threads).build().map_err(Stop::failed)?;
    let (gpu, decodes, on) = match machine {
        Some((machine, graphs)) => {
            report.row("CUDA graphs", graphs.to_string());
            let (gpu, decodes) = sessions::open(machine, graphs)?;
            let on = On::Gpu(Box::new(sessions::cuda(machine, &gpu)), BackendChoice::Cuda);
            (Some(Arc::new(gpu)), decodes, on)
        }
        None => (None, Vec::new(), On::Processors),
    };
    let threads = plan.codec_threads.unwrap_or(tuning.codec_threads);
    report.row("threads", format!("{threads} for decoding, {} for the network's side", tuning.network_threads));
    let included =
        "packets to the data channel: reorder, assembly, decoding, model, tracker, result; no ICE, DTLS, SRTP, sockets";
    report.row("what it includes", included);
    for name in models.names {
        let mut reasons = Vec::new();
        for precision in models.precisions {
            let options = Options { instances: models.instances, ..on.options(*precision) };
            let engine = Arc::new(Engine::new(options).map_err(Stop::failed)?);
            let spec = sessions::find(files, name, *precision)?;
            let loaded = spec.as_ref().map_err(Clone::clone).and_then(|(spec, _)| on.load(&engine, spec, *precision));
            match loaded {
                Ok(model) => {
                    let (gpu, tuning, metrics) = (gpu.clone(), tuning.clone(), metrics.clone());
                    let spec = spec.as_ref().map(|(spec, _)| spec).ok();
                    let runs = spec.zip(machine).map(|(spec, (_, graphs))| graphs.of_model(&engine, spec));
                    let machinery = sessions::Machinery {
                        engine: Arc::clone(&engine),
                        gpu,
                        decodes: decodes.clone(),
                        runs: runs.unwrap_or_else(|| "none on processors".to_owned()),
                        tuning,
                        metrics,
                    };
                    let ran = runtime.block_on(sessions::run(report, &machinery, &model, clip, plan));
                    engine.shutdown();
                    ran?;
                    reasons.clear();
                    break;
                }
                Err(reason) => reasons.push(format!("{precision}: {reason}")),
            }
            engine.shutdown();
        }
        if !reasons.is_empty() {
            report.unavailable(name.clone(), reasons.join("; "));
        }
    }
    Ok(())
}

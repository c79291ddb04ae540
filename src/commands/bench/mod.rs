//! `saccade bench`: puts load on a server of this kind, and reports how late, how many and how right its results are.
//!
//! Exit codes: 0 when a session connected and the run was completed; 64 for a wrong argument, scenario or clip; 69 when
//! no session connected; 70 when the run ended before its time.

mod footage;
pub(super) mod plan;
pub(super) mod stages;
mod stills;

use std::num::NonZero;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use saccade_load::{Encoding, Kind, Load, Report, Run, Setting, SignalError, Status, Target, html, search, table};

use self::plan::{Plan, Shape};
use super::offline;
use crate::cli::{Bench, BenchWhat, Exit};

pub(super) fn run(args: Bench) -> Exit {
    offline::interruptible(move |interrupted| {
        let done = match &args.what {
            Some(BenchWhat::Stages(stages)) => stages::run(stages, interrupted),
            None if args.is_of_stills() => stills::run(&args, interrupted),
            None => bench(&args, interrupted),
        };
        done.unwrap_or_else(|(exit, message)| {
            eprintln!("{message}");
            exit
        })
    })
}

fn bench(args: &Bench, interrupted: &AtomicBool) -> Result<Exit, (Exit, String)> {
    let wrong = |message: String| (Exit::Configuration, message);
    let target = Target::new(args.url().to_owned(), args.dialect(), args.token.clone()).map_err(|error| {
        let exit = if matches!(error, SignalError::Url { .. }) { Exit::Configuration } else { Exit::Unavailable };
        (exit, error.to_string())
    })?;
    let plan = Plan::new(args, target).map_err(wrong)?;
    // As little as can be of what the server may need.
    let workers = std::thread::available_parallelism().map_or(1, NonZero::get).div_ceil(2);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build();
    let runtime = runtime.map_err(|error| (Exit::Internal, format!("the runtime does not start: {error}")))?;
    let progress = Progress::new(args.quiet);
    let (report, run) = runtime.block_on(Box::pin(measure(args, &plan, interrupted, &progress)));
    progress.finish();
    runtime.shutdown_timeout(Duration::from_secs(1));
    write(args, &report).map_err(|message| (Exit::Internal, message))?;
    if let Some(reason) = &run.broken_off {
        eprintln!("ended early: {reason}");
    }
    Ok(exit(&run))
}

async fn measure(args: &Bench, plan: &Plan, interrupted: &AtomicBool, progress: &Progress) -> (Report, Run) {
    let setting = setting(args, plan);
    match plan.shape {
        Shape::Steps => {
            let whole = plan.load.steps.iter().map(|step| step.time).sum();
            let run = saccade_load::run(&plan.load, interrupted, &mut |status| progress.show(whole, "", status)).await;
            (Report::new(setting, &run), run)
        }
        Shape::Search(bounds, wanted) => {
            let mut watch =
                |sessions: u32, status: &Status| progress.show(bounds.trial, &format!("trying {sessions}  "), status);
            let found = search(&plan.load, bounds, wanted, interrupted, &mut watch).await;
            let run = found.best;
            (Report::new(setting, &run).with_search(found.sessions, &found.trials), run)
        }
    }
}

fn exit(run: &Run) -> Exit {
    match (run.connected(), &run.broken_off) {
        (0, _) => Exit::Unavailable,
        (_, None) => Exit::Clean,
        (_, Some(_)) => Exit::Internal,
    }
}

fn setting(args: &Bench, plan: &Plan) -> Setting {
    let Load { target, kinds, .. } = &plan.load;
    Setting {
        url: target.url.clone(),
        signaling: target.dialect.to_string(),
        scenario: args.scenario.clone(),
        clip: Path::new(&args.clip).file_name().unwrap_or_default().to_string_lossy().into_owned(),
        kinds: kinds.iter().map(|kind| describe(kind, kinds.len() > 1)).collect(),
        budget_ms: args.budget_ms,
        generator: concat!("saccade ", env!("CARGO_PKG_VERSION")).to_owned(),
    }
}

fn describe(kind: &Kind, weighted: bool) -> String {
    let Encoding { codec, fps, size: (width, height), .. } = kind.clip.encoding;
    let returned = kind.options.return_mode.and_then(name).unwrap_or_else(|| "default".to_owned());
    let weight = if weighted { format!("{} × ", kind.weight) } else { String::new() };
    format!("{weight}{codec} {width}x{height} at {fps}/s, return {returned}")
}

/// Name of a value in JSON.
fn name(value: impl serde::Serialize) -> Option<String> {
    serde_json::to_value(value).ok()?.as_str().map(str::to_owned)
}

fn write(args: &Bench, report: &Report) -> Result<(), String> {
    let json = || serde_json::to_string_pretty(report).map_err(|error| error.to_string());
    let to_stdout = args.json.as_deref() == Some(Path::new("-"));
    if to_stdout {
        say!("{}", json()?);
    } else {
        say!("{}", table(report).trim_end());
    }
    let file = |path: &Path, text: String| {
        std::fs::write(path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))
    };
    if let Some(path) = args.json.as_deref().filter(|_| !to_stdout) {
        file(path, json()? + "\n")?;
    }
    args.html.as_deref().map_or(Ok(()), |path| file(path, html(report)))
}

/// A line on standard error, where that is a terminal.
struct Progress(ProgressBar);

impl Progress {
    fn new(hidden: bool) -> Self {
        let bar = if hidden { ProgressBar::hidden() } else { ProgressBar::new(0) };
        let style = ProgressStyle::with_template("{bar:30} {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self(bar)
    }

    fn tell(&self, whole: Duration, elapsed: Duration, message: String) {
        self.0.set_length(whole.as_secs());
        self.0.set_position(elapsed.as_secs());
        self.0.set_message(message);
    }

    fn show(&self, whole: Duration, what: &str, status: &Status) {
        let p95 = status.latency_p95.map_or_else(|| "-".to_owned(), |p95| format!("{p95:.0} ms"));
        let refused = if status.refused > 0 { format!(", {} refused", status.refused) } else { String::new() };
        let sessions = if status.live == 1 { "session" } else { "sessions" };
        let message = format!("{what}{} {sessions}{refused}, {} results/s, p95 {p95}", status.live, status.results);
        self.tell(whole, status.elapsed, message);
    }

    fn finish(&self) {
        self.0.finish_and_clear();
    }
}

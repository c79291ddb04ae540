//! `saccade plan`: what machines so many sessions need, from what a frame costs in each stage on this one.
//!
//! Exit codes: 0 planned; 64 for a wrong argument, price file or unknown model; 69 without ONNX Runtime; 70 when a stage
//! failed, or no machine serves a single session.

mod packets;

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read as _};
use std::num::NonZero;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::json;

use super::bench::{plan::bitrate, stages};
use super::offline;
use crate::capacity::{Costs, Demand, Fleet, Machine, Needs, Prices};
use crate::cli::{BenchStages, Exit, Plan, Returned};

/// Frames that are measured.
const FRAMES: u32 = 150;
/// Bytes of a price file at most.
const PRICE_BYTES: u64 = 1 << 20;

pub(super) fn run(args: Plan) -> Exit {
    offline::interruptible(move |interrupted| {
        plan(args, interrupted).unwrap_or_else(|(exit, message)| {
            eprintln!("{message}");
            exit
        })
    })
}

fn plan(args: Plan, stop: &AtomicBool) -> Result<Exit, (Exit, String)> {
    let mut prices = prices(&args).map_err(|message| (Exit::Configuration, message))?;
    let is_here = args.price_file.is_none();
    let bits = args.bitrate.map_or_else(|| bitrate(args.resolution, args.fps), |kilobits| kilobits * 1_000);
    let demand = Demand {
        sessions: args.sessions,
        fps: args.fps.into(),
        size: args.resolution,
        bitrate_bps: bits.into(),
        returned: args.return_mode != Returned::Results,
        inferred: args.inferred,
    };
    let (utilization, json) = (args.utilization, args.json);
    let packet = packets::cost().map_err(|error| (Exit::Internal, format!("packets on the loopback: {error}")))?;
    let found = stages::find(&stages_of(args), stop)?;
    let interrupted = || (Exit::Internal, "interrupted before all was measured".to_owned());
    let costs = found.costs(packet).filter(|_| !stop.load(Ordering::Acquire)).ok_or_else(interrupted)?;
    if is_here {
        // Whether this machine has a GPU that models run on is known only now.
        prices.machines.iter_mut().for_each(|machine| machine.gpus = u32::from(costs.on_gpu));
    }
    let answer = Answer {
        model: found.model,
        demand,
        costs,
        utilization,
        needs: Needs::of(&demand, &costs),
        fleets: Fleet::all(&demand, &costs, &prices, utilization),
        prices,
    };
    if json {
        say!("{:#}", answer.to_json());
    } else {
        say!("{}", answer.text());
    }
    Ok(if answer.fleets.is_empty() { Exit::Internal } else { Exit::Clean })
}

/// Those of the file, or this machine without a price.
fn prices(args: &Plan) -> Result<Prices, String> {
    let Some(path) = &args.price_file else {
        let here = thread::available_parallelism().map_or(1, NonZero::get);
        let (name, cores) = match args.cores {
            Some(cores) => (format!("{cores} processors like these"), f64::from(cores)),
            None => ("this machine".to_owned(), here as f64),
        };
        let machine = Machine { name, cores, gpus: 0, memory_gb: None, network_mbps: None, per_hour: None };
        return Ok(Prices { machines: vec![machine], ..Prices::default() });
    };
    let wrong = |what: String| format!("--price-file {}: {what}", path.display());
    let text = bounded(path).map_err(|error| wrong(error.to_string()))?;
    Prices::parse(&text).map_err(wrong)
}

/// The text of a file that is no longer than a price file may be.
fn bounded(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let bytes = File::open(path)?.take(PRICE_BYTES + 1).read_to_string(&mut text)?;
    if bytes as u64 > PRICE_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it has more than {PRICE_BYTES} bytes")));
    }
    Ok(text)
}

/// What is to be measured for it.
fn stages_of(args: Plan) -> BenchStages {
    BenchStages {
        settings: args.settings,
        models: args.models,
        clip: "scene".to_owned(),
        size: Some(args.resolution),
        fps: args.fps,
        bitrate: args.bitrate,
        codec: args.codec,
        frames: FRAMES,
        precision: args.precision,
        json: args.json,
    }
}

/// What is told.
struct Answer {
    model: String,
    demand: Demand,
    costs: Costs,
    utilization: f64,
    needs: Needs,
    fleets: Vec<Fleet>,
    prices: Prices,
}

impl Answer {
    fn to_json(&self) -> serde_json::Value {
        json!({
            "model": self.model,
            "demand": self.demand,
            "costs_ms": self.costs,
            "utilization": self.utilization,
            "needs": self.needs,
            "currency": self.prices.currency,
            "fleets": self.fleets,
            "notes": self.notes(),
        })
    }

    /// What the numbers leave out.
    fn notes(&self) -> Vec<String> {
        let idle = self.prices.machines.iter().filter(|machine| machine.gpus > 0 && !self.costs.on_gpu);
        idle.map(|Machine { name, .. }| {
            format!("{name}: its GPUs count for nothing here, since inference was measured on processors")
        })
        .collect()
    }

    fn text(&self) -> String {
        let Self { demand, costs, needs, .. } = self;
        let (width, height) = demand.size;
        let back = if demand.returned { "annotated video back" } else { "results back" };
        let mut text = format!("{}; {width}x{height} at {}/s, {back}\n", self.model, demand.fps);
        let mut parts = vec![("transport", needs.transport_ms), ("decode", costs.decode)];
        let inference = if costs.on_gpu { "inference (on the GPU)" } else { "inference" };
        parts.extend([
            ("preprocess", costs.preprocess),
            (inference, costs.inference),
            ("postprocess", costs.postprocess),
        ]);
        if demand.returned {
            parts.extend([("annotate", costs.annotate), ("encode", costs.encode)]);
        }
        let parts: Vec<_> = parts.iter().map(|(stage, ms)| format!("{stage} {ms:.2}")).collect();
        let mut line = |name: &str, what: String| {
            // Writing to a text cannot fail.
            let _ = writeln!(text, "{name:<12}{what}");
        };
        line("a frame", format!("{:.2} ms of a processor: {}", needs.frame_ms, parts.join(", ")));
        let spare = 100.0 * self.utilization;
        let sessions = demand.sessions;
        line("processors", format!("{:.1} busy, {:.1} at {spare:.0} %", needs.cores, needs.cores / self.utilization));
        if costs.on_gpu {
            line("GPUs", format!("{:.2} busy, {:.2} at {spare:.0} %", needs.gpus, needs.gpus / self.utilization));
        }
        line("network", format!("{:.1} Mbit/s in, {:.1} Mbit/s out", needs.in_bps / 1e6, needs.out_bps / 1e6));
        line("memory", format!("{:.1} GB on one machine", needs.memory_bytes / 1e9));
        for fleet in &self.fleets {
            let mut told = format!(
                "{} for {sessions} sessions, {} each ({} at the limit), bound by {}",
                fleet.machines,
                fleet.sessions_each,
                fleet.sessions_at_limit,
                fleet.bound_by.name(),
            );
            if let (Some(hour), Some(month), Some(session)) = (fleet.per_hour, fleet.per_month, fleet.per_session_hour)
            {
                let currency = &self.prices.currency;
                let _ = write!(told, "; {hour:.2} {currency}/h, {month:.0} a month, {session:.4} a session and hour");
            }
            line(&fleet.machine.name, format!("  {told}"));
        }
        let unfit = self.prices.machines.iter().filter(|it| self.fleets.iter().all(|fleet| fleet.machine != **it));
        for machine in unfit {
            let told = if costs.on_gpu && machine.gpus == 0 {
                "has no GPU, on which inference was measured".to_owned()
            } else if needs.longest_ms > 1e3 / demand.fps {
                let (longest, between) = (needs.longest_ms, 1e3 / demand.fps);
                format!(
                    "serves no session: a stage takes {longest:.0} ms and a frame comes each {between:.0} ms; fewer frames, or --inferred"
                )
            } else {
                "does not serve a single session: a larger one, a smaller picture or model".to_owned()
            };
            line(&machine.name, format!("  {told}"));
        }
        for note in self.notes() {
            line("note", note);
        }
        text.truncate(text.trim_end().len());
        text
    }
}

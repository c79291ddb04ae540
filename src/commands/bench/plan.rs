//! From flags and a scenario to a load.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use saccade_load::{
    Bounds, Clip, Encoding, Kind, Load, MAX_SESSIONS, Scenario, ScenarioKind, Step, Target, Usage, Wanted,
};
use saccade_signaling::{OptionsPatch, ReturnMode};

use super::footage;
use crate::cli::{Bench, Returned};

/// Budget that a search keeps to where none is given, in milliseconds.
const BUDGET_MS: u32 = 200;
/// Bits for each pixel: what Chromium spends on 640×480 at 30 pictures a second is about 1.7 Mbit/s.
const BITS_PER_PIXEL: f64 = 0.18;

/// What is to be done.
pub(super) struct Plan {
    pub(super) load: Load,
    pub(super) shape: Shape,
}

pub(super) enum Shape {
    /// The load's own steps.
    Steps,
    /// A search for the largest number of sessions.
    Search(Bounds, Wanted),
}

impl Plan {
    /// Encodes what is to be sent, which takes a while where it was not sent before.
    pub(super) fn new(args: &Bench, target: Target) -> Result<Self, String> {
        let scenario = Scenario::named(&args.scenario).map_err(|error| error.to_string())?;
        if let Some(pid) = args.server_pid.filter(|pid| Usage::of(*pid).is_none()) {
            return Err(format!("--server-pid {pid}: there is no such process"));
        }
        let sessions = args.sessions.unwrap_or(scenario.sessions);
        let duration = args.duration.unwrap_or(Duration::from_secs_f64(scenario.duration_s));
        let kinds = kinds(args, &scenario.kinds)?;
        let shape = match scenario.search {
            None => Shape::Steps,
            Some(search) => Shape::Search(
                Bounds { most: sessions, trial: Duration::from_secs_f64(search.trial_s), whole: duration },
                Wanted { latency_p95: args.budget_ms.unwrap_or(BUDGET_MS).into(), processed: search.processed },
            ),
        };
        let load = Load {
            target,
            kinds,
            classes: footage::classes(&args.clip),
            steps: steps(&scenario, sessions, duration),
            ramp_per_s: args.ramp.unwrap_or(scenario.ramp_per_s),
            lifetime: scenario
                .lifetime_s
                .map(|[low, high]| (Duration::from_secs_f64(low), Duration::from_secs_f64(high))),
            probes: args.probe,
            server_pid: args.server_pid,
        };
        Ok(Self { load, shape })
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "bounded by the largest number of sessions"
)]
fn steps(scenario: &Scenario, sessions: u32, duration: Duration) -> Vec<Step> {
    if scenario.steps.is_empty() {
        return vec![Step { time: duration, sessions }];
    }
    let scaled = |factor: f64| (f64::from(sessions) * factor).round().min(f64::from(MAX_SESSIONS)) as u32;
    let step =
        |step: &saccade_load::ScenarioStep| Step { time: duration.mul_f64(step.time), sessions: scaled(step.sessions) };
    scenario.steps.iter().map(step).collect()
}

fn kinds(args: &Bench, kinds: &[ScenarioKind]) -> Result<Vec<Kind>, String> {
    let plain = [ScenarioKind::default()];
    let kinds = if kinds.is_empty() { &plain } else { kinds };
    let mut clips: HashMap<Encoding, Arc<Clip>> = HashMap::new();
    let mut made = Vec::new();
    for kind in kinds {
        let fps = kind.fps.unwrap_or(args.fps);
        let footage = footage::open(&args.clip, kind.size.map(Into::into).or(args.size), fps)?;
        let (width, height) =
            kind.size.map(Into::into).or(args.size).unwrap_or((footage.size.0 & !1, footage.size.1 & !1));
        let encoding = Encoding {
            codec: kind.codec.unwrap_or(args.codec),
            fps,
            bitrate_bps: args.bitrate.map_or_else(|| bitrate((width, height), fps), |kilobits| kilobits * 1_000),
            size: (width, height),
        };
        let clip = match clips.get(&encoding) {
            Some(clip) => Arc::clone(clip),
            None => Arc::new(Clip::make(footage, encoding, cache().as_deref()).map_err(|error| error.to_string())?),
        };
        clips.insert(encoding, Arc::clone(&clip));
        let return_mode = kind.return_mode.or_else(|| args.return_mode.map(return_mode));
        let options = OptionsPatch {
            model: kind.model.clone().or_else(|| args.model.clone()),
            return_mode,
            budget_ms: kind.budget_ms.or(args.budget_ms),
            ..OptionsPatch::default()
        };
        let returned = return_mode != Some(ReturnMode::Results);
        made.push(Kind { weight: kind.weight.unwrap_or(1), clip, options, returned });
    }
    Ok(made)
}

pub(super) const fn return_mode(returned: Returned) -> ReturnMode {
    match returned {
        Returned::Exact => ReturnMode::Exact,
        Returned::Predicted => ReturnMode::Predicted,
        Returned::Results => ReturnMode::Results,
    }
}

/// Bits a second for a size, as a browser would choose them.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
pub(in crate::commands) fn bitrate((width, height): (u32, u32), fps: u32) -> u32 {
    let pixels = f64::from(width) * f64::from(height);
    (pixels * f64::from(fps) * BITS_PER_PIXEL).clamp(200_000.0, 8_000_000.0) as u32
}

/// Where encoded clips are kept.
pub(super) fn cache() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")))?;
    Some(cache.join("saccade/clips"))
}

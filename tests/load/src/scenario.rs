//! Scenarios: the shape of a load, in a small file.

use std::path::Path;

use saccade_signaling::ReturnMode;
use serde::Deserialize;

use crate::clip::{Codec, MAX_SIDE};

/// Sessions at most.
pub const MAX_SESSIONS: u32 = 2_000;
/// Frames a second at most.
const MAX_FPS: u32 = 120;
/// Longest run in seconds.
pub const MAX_DURATION_S: f64 = 6.0 * 3600.0;

/// The shape of a load. Numbers of sessions and times are relative, so that the same shape fits any server.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What it is for, in one line.
    pub about: String,
    /// Sessions, where nothing else is said.
    #[serde(default = "one")]
    pub sessions: u32,
    /// Seconds, where nothing else is said.
    pub duration_s: f64,
    /// Sessions that begin in a second.
    #[serde(default = "five")]
    pub ramp_per_s: f64,
    /// One after the other; none: all sessions all the time.
    #[serde(default)]
    pub steps: Vec<Step>,
    /// Sessions end after a time between these, in seconds, and others come for them.
    pub lifetime_s: Option<[f64; 2]>,
    /// Kinds of sessions; none: all as the flags say.
    #[serde(default)]
    pub kinds: Vec<Kind>,
    /// Looks for the largest number of sessions instead.
    pub search: Option<Search>,
}

/// Part of a run.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Share of the duration; those of all steps add up to 1.
    pub time: f64,
    /// Multiple of the number of sessions.
    pub sessions: f64,
}

/// One kind of session; what is not given is as the flags say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kind {
    /// How many there are of it in relation to the others.
    pub weight: Option<u32>,
    /// Width and height in pixels.
    pub size: Option<[u32; 2]>,
    /// Frames a second.
    pub fps: Option<u32>,
    /// Codec to send in.
    pub codec: Option<Codec>,
    /// Video that is wanted back.
    #[serde(rename = "return")]
    pub return_mode: Option<ReturnMode>,
    /// Model.
    pub model: Option<String>,
    /// Latency budget in milliseconds.
    pub budget_ms: Option<u32>,
}

/// How the largest number of sessions is looked for: doubled until it is too large, then halved between.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Search {
    /// Seconds of each trial.
    pub trial_s: f64,
    /// Share of the frames that must be processed, 0..1.
    pub processed: f64,
}

const fn one() -> u32 {
    1
}

const fn five() -> f64 {
    5.0
}

/// Scenarios that come with the program, by name.
pub const BUILT_IN: [(&str, &str); 8] = [
    ("steady", include_str!("../scenarios/steady.toml")),
    ("ramp", include_str!("../scenarios/ramp.toml")),
    ("burst", include_str!("../scenarios/burst.toml")),
    ("churn", include_str!("../scenarios/churn.toml")),
    ("overload", include_str!("../scenarios/overload.toml")),
    ("step", include_str!("../scenarios/step.toml")),
    ("mixed", include_str!("../scenarios/mixed.toml")),
    ("endurance", include_str!("../scenarios/endurance.toml")),
];

/// A scenario that can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("scenario {name}: {reason}")]
pub struct ScenarioError {
    /// Its name or file.
    pub name: String,
    /// What is wrong, and what would be right.
    pub reason: String,
}

impl Scenario {
    /// One of those that come with the program, or a file.
    ///
    /// # Errors
    /// [`ScenarioError`] with what is wrong in it.
    pub fn named(name: &str) -> Result<Self, ScenarioError> {
        if let Some((_, text)) = BUILT_IN.iter().find(|(known, _)| *known == name) {
            return Self::parse(name, text);
        }
        let names = BUILT_IN.map(|(name, _)| name).join(", ");
        let text = std::fs::read_to_string(Path::new(name)).map_err(|error| ScenarioError {
            name: name.to_owned(),
            reason: format!("neither one of {names}, nor a file that can be read: {error}"),
        })?;
        Self::parse(name, &text)
    }

    /// Reads the text of a scenario.
    ///
    /// # Errors
    /// [`ScenarioError`] with what is wrong in it.
    pub fn parse(name: &str, text: &str) -> Result<Self, ScenarioError> {
        let bad = |reason: String| ScenarioError { name: name.to_owned(), reason };
        let scenario: Self = toml::from_str(text).map_err(|error| bad(error.to_string()))?;
        scenario.check().map_err(bad)?;
        Ok(scenario)
    }

    fn check(&self) -> Result<(), String> {
        let range = |what: &str, value: f64, low: f64, high: f64| {
            (low..=high).contains(&value).then_some(()).ok_or_else(|| format!("{what} is {value}, not {low} to {high}"))
        };
        range("duration_s", self.duration_s, 1.0, MAX_DURATION_S)?;
        range("sessions", f64::from(self.sessions), 1.0, f64::from(MAX_SESSIONS))?;
        range("ramp_per_s", self.ramp_per_s, 0.01, 10_000.0)?;
        for step in &self.steps {
            range("steps.time", step.time, 0.001, 1.0)?;
            range("steps.sessions", step.sessions, 0.0, 100.0)?;
        }
        if !self.steps.is_empty() {
            range("the sum of steps.time", self.steps.iter().map(|step| step.time).sum(), 0.99, 1.01)?;
        }
        if let Some([shortest, longest]) = self.lifetime_s {
            range("lifetime_s", longest, 0.1, MAX_DURATION_S)?;
            range("lifetime_s", shortest, 0.1, longest)?;
        }
        for kind in &self.kinds {
            range("kinds.weight", kind.weight.unwrap_or(1).into(), 1.0, 1_000.0)?;
            range("kinds.fps", kind.fps.unwrap_or(30).into(), 1.0, f64::from(MAX_FPS))?;
            for side in kind.size.into_iter().flatten() {
                range("kinds.size", side.into(), 64.0, MAX_SIDE.into())?;
                if side % 2 == 1 {
                    return Err(format!("kinds.size has {side}, and sides are even"));
                }
            }
        }
        if let Some(search) = &self.search {
            range("search.trial_s", search.trial_s, 4.0, 600.0)?;
            range("search.processed", search.processed, 0.01, 1.0)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_come_with_the_program_are_sound() {
        for (name, _) in BUILT_IN {
            let scenario = Scenario::named(name).unwrap();
            assert!(!scenario.about.is_empty(), "{name}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (text, wanted) in [
            ("about = ''\nduration_s = 0", "duration_s is 0"),
            ("about = ''\nduration_s = 9\nsesions = 3", "unknown field `sesions`"),
            ("about = ''\nduration_s = 9\nsteps = [{ time = 0.5, sessions = 1 }]", "the sum of steps.time is 0.5"),
            ("about = ''\nduration_s = 9\nlifetime_s = [5, 2]", "lifetime_s is 5"),
            ("about = ''\nduration_s = 9\nlifetime_s = [1, inf]", "lifetime_s is inf"),
            ("about = ''\nduration_s = 9\nkinds = [{ fps = 0 }]", "kinds.fps is 0"),
            ("about = ''\nduration_s = 9\nkinds = [{ size = [100000, 64] }]", "kinds.size is 100000"),
            ("about = ''\nduration_s = 9\nkinds = [{ size = [65, 64] }]", "kinds.size has 65"),
            ("about = ''\nduration_s = 9\nkinds = [{ weight = 0 }]", "kinds.weight is 0"),
        ] {
            let error = Scenario::parse("x", text).unwrap_err().to_string();
            assert!(error.contains(wanted), "{error}");
        }
        let error = Scenario::named("nowhere").unwrap_err().to_string();
        assert!(error.contains("steady, ramp") && error.contains("nowhere"), "{error}");
    }
}

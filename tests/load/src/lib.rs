//! A load generator for real-time vision servers: publishes numbered video over WebRTC, takes results and returned video,
//! and reports how late they are, how many, and whether they are right.
//!
//! What enters: a [`Load`] (a server's address, clips, numbers of sessions over time). What leaves: a [`Run`], and a
//! [`Report`] of it. It is a black box's other side: it knows a server by its URL and shares nothing with Saccade's but
//! the wire types.
//!
//! Sessions are tasks on the caller's Tokio runtime. Nothing is encoded while a load runs; only probed sessions decode.
#![allow(clippy::disallowed_methods, reason = "a generator lives in real time, and is measured by it")]

mod clip;
mod measure;
mod peer;
mod process;
mod report;
mod run;
mod scenario;
mod search;
mod session;
mod signal;
mod stills;
mod truth;

pub use clip::{Clip, ClipError, Codec, Encoding, Footage, MAX_FRAMES, MAX_SIDE, Object, Picture};
pub use measure::{Found, Latencies, Outcome, Percentiles, STALL, Second, Session, Steady};
pub use process::Usage;
pub use report::{ON_TIME, Report, Setting, html, table};
pub use run::{Kind, Load, Run, Sample, Status, Step, Summary, run};
pub use scenario::{
    BUILT_IN, Kind as ScenarioKind, MAX_DURATION_S, MAX_SESSIONS, Scenario, ScenarioError, Search, Step as ScenarioStep,
};
pub use search::{Bounds, Found as Capacity, Trial, Wanted, search};
pub use signal::{Dialect, SignalError, Target};
pub use stills::{MAX_CONCURRENCY, Still, StillLoad, StillReport, StillSecond, StillStatus, still_table, stills};

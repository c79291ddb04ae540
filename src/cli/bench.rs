use std::path::PathBuf;
use std::time::Duration;

use clap::Subcommand;
use saccade_load::{Codec, Dialect, MAX_CONCURRENCY, MAX_DURATION_S, MAX_SESSIONS, MAX_SIDE};

use super::{ModelFlags, Precision, Settings};

/// `saccade bench`.
#[derive(Debug, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Scenarios: steady, ramp (the largest number of sessions within the budget), burst, churn, overload, mixed, endurance, or a TOML file.\n\nExit codes: 0 a session connected and the run was completed, 64 wrong argument, scenario or clip, 69 no session connected, 70 the run ended before its time."
)]
pub struct Bench {
    /// What is measured, if not a server.
    #[command(subcommand)]
    pub what: Option<BenchWhat>,
    /// Where offers go: ws://…/v1/signal, http://…/v1/offer or http://…/v1/whip; or pictures: http://…/v1/detect
    #[arg(long, required = true)]
    pub url: Option<String>,
    /// How offers are made: ws, offer or whip [default: by the URL]
    #[arg(long, value_name = "DIALECT")]
    pub signaling: Option<Dialect>,
    /// Shape of the load: a name or a file
    #[arg(long, value_name = "NAME|FILE", default_value = "steady")]
    pub scenario: String,
    /// Sessions; for ramp at most [default: the scenario's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_SESSIONS)))]
    pub sessions: Option<u32>,
    /// Time such as 60s or 5m [default: the scenario's]
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub duration: Option<Duration>,
    /// Sessions that begin in a second, such as 5/s [default: the scenario's]
    #[arg(long, value_name = "N/s", value_parser = rate)]
    pub ramp: Option<f64>,
    /// Video file to send, or `scene`: the drawn sample scene, whose truth is known; of pictures a file or a folder
    #[arg(long, value_name = "FILE|FOLDER|scene", default_value = "scene")]
    pub clip: String,
    /// Pictures a second, such as 50/s [default: as many as are answered]
    #[arg(long, value_name = "N/s", value_parser = rate)]
    pub rate: Option<f64>,
    /// Requests with pictures at a time
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_CONCURRENCY)))]
    pub concurrency: u32,
    /// Make no two pictures the same for a cache: each JPEG gets a comment of its own
    #[arg(long)]
    pub distinct: bool,
    /// Width and height to send in pixels [default: the file's, 640x480 for the scene]
    #[arg(long, value_name = "WIDTHxHEIGHT", value_parser = size)]
    pub size: Option<(u32, u32)>,
    /// Frames a second to send
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=120))]
    pub fps: u32,
    /// Codec to send in: h264 or vp8
    #[arg(long, default_value_t = Codec::H264)]
    pub codec: Codec,
    /// Kilobits a second to send [default: as a browser would for the size]
    #[arg(long, value_name = "KBIT", value_parser = clap::value_parser!(u32).range(50..=50_000))]
    pub bitrate: Option<u32>,
    /// Video that is wanted back [default: the server's]
    #[arg(long = "return", value_name = "MODE", value_enum)]
    pub return_mode: Option<Returned>,
    /// Model [default: the server's]
    #[arg(long)]
    pub model: Option<String>,
    /// Latency budget in milliseconds [default: the server's; ramp looks for 200]
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32).range(10..=5000))]
    pub budget_ms: Option<u32>,
    /// So many sessions decode what comes back and read the frames' numbers in it
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub probe: u32,
    /// Process of a server on this machine, whose time and memory are reported
    #[arg(long, value_name = "PID")]
    pub server_pid: Option<u32>,
    /// Token for a server that wants one
    #[arg(long, env = "SACCADE_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// Write the figures as JSON; `-` is stdout, and the table is left out
    #[arg(long, value_name = "FILE|-")]
    pub json: Option<PathBuf>,
    /// Write a page with the figures and plots
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Show no progress
    #[arg(long, short)]
    pub quiet: bool,
}

/// Video that a session wants back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[expect(missing_docs, reason = "the wire's names, told there")]
pub enum Returned {
    Exact,
    Predicted,
    Results,
}

/// What `saccade bench` measures beside servers.
#[derive(Debug, Subcommand)]
pub enum BenchWhat {
    /// Measure the bare stages on this machine, one after the other, without network, sessions or waiting
    Stages(BenchStages),
}

/// `saccade bench stages`.
#[derive(Debug, clap::Args)]
pub struct BenchStages {
    /// Configuration.
    #[command(flatten)]
    pub settings: Settings,
    /// Models.
    #[command(flatten)]
    pub models: ModelFlags,
    /// Video file to take, or `scene`: the drawn sample scene
    #[arg(long, value_name = "FILE|scene", default_value = "scene")]
    pub clip: String,
    /// Width and height in pixels [default: the file's, 640x480 for the scene]
    #[arg(long, value_name = "WIDTHxHEIGHT", value_parser = size)]
    pub size: Option<(u32, u32)>,
    /// Frames a second, for the encoders
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=120))]
    pub fps: u32,
    /// Kilobits a second, of the clip and of what is encoded [default: as a browser would send for the size]
    #[arg(long, value_name = "KBIT", value_parser = clap::value_parser!(u32).range(50..=50_000))]
    pub bitrate: Option<u32>,
    /// Codec to decode and encode: h264 or vp8
    #[arg(long, default_value_t = Codec::H264)]
    pub codec: Codec,
    /// Frames to take
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub frames: u32,
    /// Precision to run the model in [default: what the server would take]
    #[arg(long, value_enum)]
    pub precision: Option<Precision>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

impl Bench {
    /// The server's URL; empty where none is wanted.
    #[must_use]
    pub fn url(&self) -> &str {
        self.url.as_deref().unwrap_or_default()
    }

    /// Whether still pictures are to be sent, by the URL's path.
    #[must_use]
    pub fn is_of_stills(&self) -> bool {
        self.path().ends_with("/detect")
    }

    fn path(&self) -> &str {
        self.url().split(['?', '#']).next().unwrap_or_default()
    }

    /// As given, or what the URL looks like.
    #[must_use]
    pub fn dialect(&self) -> Dialect {
        self.signaling.unwrap_or_else(|| match self.url().starts_with("ws") {
            true => Dialect::Ws,
            false if self.path().ends_with("/whip") => Dialect::Whip,
            false => Dialect::Offer,
        })
    }
}

fn time(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len()));
    let factor = match unit {
        "" | "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err("a number with s, m or h".to_owned()),
    };
    let seconds = number.parse::<f64>().map_err(|_| "a number with s, m or h".to_owned())? * factor;
    let legal = (1.0..=MAX_DURATION_S).contains(&seconds);
    if legal { Ok(Duration::from_secs_f64(seconds)) } else { Err(format!("1s to {:.0}h", MAX_DURATION_S / 3600.0)) }
}

fn rate(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix("/s").unwrap_or(text).parse::<f64>();
    number.ok().filter(|rate| (0.01..=10_000.0).contains(rate)).ok_or_else(|| "0.01/s to 10000/s".to_owned())
}

pub(super) fn size(text: &str) -> Result<(u32, u32), String> {
    let wanted = || format!("WIDTHxHEIGHT, even numbers from 64 to {MAX_SIDE}");
    let (width, height) = text.split_once('x').ok_or_else(wanted)?;
    let side = |text: &str| text.parse().ok().filter(|side| (64..=MAX_SIDE).contains(side) && side % 2 == 0);
    side(width).zip(side(height)).ok_or_else(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_rates_and_sizes_are_read() {
        assert_eq!(time("60s"), Ok(Duration::from_secs(60)));
        assert_eq!(time("1.5m"), Ok(Duration::from_secs(90)));
        assert_eq!(time("45"), Ok(Duration::from_secs(45)));
        assert!(time("0s").is_err() && time("9 s").is_err() && time("7h").is_err() && time("s").is_err());
        assert_eq!(rate("5/s"), Ok(5.0));
        assert_eq!(rate("0.5"), Ok(0.5));
        assert!(rate("0").is_err() && rate("x/s").is_err());
        assert_eq!(size("1280x720"), Ok((1280, 720)));
        assert!(size("1281x720").is_err() && size("20x20").is_err() && size("640").is_err());
    }
}

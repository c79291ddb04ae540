use std::path::PathBuf;

use saccade_load::Codec;

use super::bench::size;
use super::{ModelFlags, Precision, Returned, Settings};

/// `saccade plan`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Stages are measured on this machine, best while nothing else runs; processors of other machines count as this one's. A price file has `currency`, `out_per_gb` (of a gigabyte that leaves) and any number of [[machine]] with `name`, `cores` and, if wanted, `gpus`, `memory_gb`, `network_mbps` and `per_hour`.\n\nExit codes: 0 planned, 64 wrong argument, price file or unknown model, 69 ONNX Runtime is missing, 70 a stage failed, or no machine serves a single session."
)]
pub struct Plan {
    /// Sessions at a time
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub sessions: u32,
    /// Configuration.
    #[command(flatten)]
    pub settings: Settings,
    /// Models.
    #[command(flatten)]
    pub models: ModelFlags,
    /// Width and height of their video in pixels, even numbers
    #[arg(long, value_name = "WIDTHxHEIGHT", default_value = "640x480", value_parser = size)]
    pub resolution: (u32, u32),
    /// Frames a second of each
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=120))]
    pub fps: u32,
    /// Codec: h264 or vp8
    #[arg(long, default_value_t = Codec::H264)]
    pub codec: Codec,
    /// Kilobits a second of each [default: as a browser would send for the size]
    #[arg(long, value_name = "KBIT", value_parser = clap::value_parser!(u32).range(50..=50_000))]
    pub bitrate: Option<u32>,
    /// Video that is wanted back
    #[arg(long = "return", value_name = "MODE", value_enum, default_value = "exact")]
    pub return_mode: Returned,
    /// Share of the frames that have to go through the model, 0.05..1
    #[arg(long, value_name = "SHARE", default_value_t = 1.0, value_parser = share)]
    pub inferred: f64,
    /// Share of each machine that may be busy, 0.05..1: admission takes no session beyond 0.85
    #[arg(long, value_name = "SHARE", default_value_t = crate::capacity::UTILIZATION, value_parser = share)]
    pub utilization: f64,
    /// Processors of a machine [default: this one's]
    #[arg(long, value_name = "N", conflicts_with = "price_file", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub cores: Option<u32>,
    /// Machines to choose from and what they cost, as TOML
    #[arg(long, value_name = "FILE")]
    pub price_file: Option<PathBuf>,
    /// Precision to run the model in [default: what the server would take]
    #[arg(long, value_enum)]
    pub precision: Option<Precision>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

fn share(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|share| (0.05..=1.0).contains(share)).ok_or_else(|| "0.05 to 1".to_owned())
}

//! The `saccade` program: arguments, configuration, runtime, exit code.

use clap::Parser;
use saccade::cli::{Args, Exit};

fn main() -> Exit {
    saccade::commands::run(Args::parse())
}

//! The `saccade` program: arguments, configuration, runtime, exit code.

use saccade::cli::{Args, Exit};

fn main() -> Exit {
    match Args::parse_from_process() {
        Ok(args) => saccade::commands::run(args),
        Err(exit) => exit,
    }
}

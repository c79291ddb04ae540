//! What each command of the program does. Nothing here is known to the stages.

/// Prints a line to standard output; whoever closed it has had enough, which is no failure.
macro_rules! say {
    ($($what:tt)*) => {
        $crate::commands::offline::say(format_args!($($what)*))
    };
}

mod bench;
mod check_model;
mod detect;
mod engine;
mod eval;
mod health;
mod lines;
mod live;
mod models;
mod offline;
mod outward;
mod pending;
mod plan;
mod probe;
mod progress;
mod serve;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::app::Devices;
use crate::cli::{self, Args, Command, Exit};
use crate::clock;
use crate::config::Config;
use crate::doctor;

/// Does what was asked for and says how it went. What goes wrong is written to standard error.
#[must_use]
pub fn run(args: Args) -> Exit {
    match args.command {
        Command::Serve(serve) => serve::run(&serve),
        Command::Health(health) => health::run(&health),
        Command::Doctor(cli::Doctor { live: Some(url), window, json, .. }) => {
            live::run(&url, Duration::from_secs(window), json)
        }
        Command::Doctor(doctor) => {
            let config = Config::load(&doctor.sources(std::env::vars_os()));
            let report = if doctor.network_ways {
                doctor::Report::of_network(&config)
            } else {
                let open = |config: &Config| Devices::open(config.hw, probe::find(config));
                let Devices { table, gpu } = config.as_ref().map_or_else(|_| Devices::default(), open);
                let cuda = crate::models::cuda(&table, gpu.as_deref());
                let routes = config.as_ref().map_or_else(|_| Ok(BTreeMap::new()), crate::app::kept_routes);
                doctor::Report::new(&config, &table, cuda, &routes, doctor.measure)
            };
            if doctor.json {
                say!("{:#}", report.to_json());
            } else {
                say!("{report}");
            }
            report.exit()
        }
        Command::Detect(args) => detect::run(args),
        Command::Eval(args) => eval::run(args),
        Command::Models(args) => models::run(args),
        Command::Token(token) => match token.make(&token.sources(std::env::vars_os()), clock::wall()) {
            Ok(token) => {
                say!("{token}");
                Exit::Clean
            }
            Err(error) => {
                eprintln!("{error}");
                Exit::Configuration
            }
        },
        Command::Plan(args) => plan::run(args),
        Command::Bench(args) => bench::run(args),
        Command::ProbeHardware => {
            probe::look();
            Exit::Clean
        }
        Command::BuildEngine => engine::build(),
        Command::CheckModel => check_model::check(),
    }
}

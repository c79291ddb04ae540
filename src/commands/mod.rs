//! What each command of the program does. Nothing here is known to the stages.

mod serve;

use crate::cli::{Args, Command, Exit};
use crate::config::Config;
use crate::doctor;

/// Does what was asked for and says how it went. What goes wrong is written to standard error.
#[must_use]
pub fn run(args: Args) -> Exit {
    match args.command {
        Command::Serve(serve) => serve::run(&serve),
        Command::Doctor(doctor) => {
            let config = Config::load(&doctor.sources(std::env::vars_os()));
            let report = doctor::Report::new(&config);
            if doctor.json {
                println!("{:#}", report.to_json());
            } else {
                println!("{report}");
            }
            report.exit()
        }
        Command::Token(token) => token.run(),
        Command::Eval(unbuilt) | Command::Bench(unbuilt) => unbuilt.run(),
        _ => Exit::Internal,
    }
}

use std::process::Command;
use std::sync::OnceLock;

use crate::config::Config;
use crate::hardware::Table;
use crate::hardware::probe::{self, LIMIT};

/// The name of the command that looks, as clap has it.
const COMMAND: &str = "probe-hardware";

/// Has another process of this program look for a GPU, once; what it finds holds for as long as this one runs.
pub(super) fn find(config: &Config) -> Table {
    static FOUND: OnceLock<Table> = OnceLock::new();
    if !config.hw.is_wanted() {
        return Table::nothing("switched off by the configuration");
    }
    FOUND.get_or_init(ask).clone()
}

fn ask() -> Table {
    match std::env::current_exe() {
        Ok(program) => {
            let mut command = Command::new(program);
            command.arg(COMMAND);
            probe::run(command, LIMIT)
        }
        Err(error) => Table::nothing(&format!("the program that looks for it is not found: {error}")),
    }
}

/// Looks, and writes what it finds to standard output.
pub(super) fn look() {
    let teller = probe::Teller::new(std::io::stdout());
    teller.done();
}

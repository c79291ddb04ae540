//! The built program, run as a user would.

use std::process::{Command, Output};

/// The models of the repository.
pub const MODELS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/models");

/// The program with a command, without the machine's own configuration.
pub fn saccade(command: &str) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_saccade"));
    program.current_dir(std::env::temp_dir()).arg(command);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("SACCADE_")) {
        program.env_remove(name);
    }
    // Measurements of a busy machine are not to be kept.
    program.env("SACCADE_MODELS__CALIBRATION", "off");
    program.env("SACCADE_STORE__URL", "off");
    program
}

/// Exit code, standard output and standard error.
pub fn run(program: &mut Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = program.output().unwrap();
    (status.code().expect("no signal"), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

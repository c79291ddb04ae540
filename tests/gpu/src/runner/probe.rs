//! The server's own probe.

use std::path::Path;
use std::process::Command;

use saccade::hardware::Piece;
use saccade::hardware::probe::{self, LIMIT};

use super::{Report, Stop};

/// Has the server look, in a process of its own as always, and shows what it found.
///
/// # Errors
/// [`Stop::NoGpu`] where it found none, [`Stop::Failed`] where the program is not there.
pub fn run(report: &Report, server: &Path) -> Result<(), Stop> {
    if !server.is_file() {
        return Err(Stop::Failed(format!("{} is not there: name the server with --server", server.display())));
    }
    let mut command = Command::new(server);
    command.arg("probe-hardware");
    let table = probe::run(command, LIMIT);
    for finding in table.findings() {
        let no = if finding.works { "" } else { "no: " };
        report.row(finding.piece.name(), format!("{no}{}", finding.found));
    }
    match [Piece::Driver, Piece::Device].into_iter().find_map(|piece| table.works(piece).err()) {
        Some(reason) => Err(Stop::NoGpu(reason)),
        None => Ok(()),
    }
}

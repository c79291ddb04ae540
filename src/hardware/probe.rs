//! How the table is made: a process looks at one piece after the other and writes a line before and after each; another
//! reads them until the first has ended, crashed, or taken too long.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::process::{ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Finding, Piece, Table};
use crate::child::{self, Stop};
use crate::clock;

/// What looking takes at most: providers load libraries of a gigabyte from cold disks.
pub const LIMIT: Duration = Duration::from_secs(60);
/// Bytes of a process' output that are read; libraries may write to it, too.
const OUTPUT: u64 = 1 << 20;
/// Lines that wait to be read.
const LINES: usize = 64;

/// A line of the process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    /// It begins to look at a piece.
    Begins(Piece),
    /// What it found.
    Found(Finding),
    /// It has looked at all that it wanted to.
    Done,
}

/// The side that looks.
#[derive(Debug)]
pub struct Teller<W> {
    out: W,
}

impl<W: Write> Teller<W> {
    /// Writes to `out`, which the other side reads.
    pub const fn new(out: W) -> Self {
        Self { out }
    }

    /// Looks at a piece. Whatever it does, the other side knows that it was begun with.
    pub fn look<T>(&mut self, piece: Piece, look: impl FnOnce() -> Result<(T, String), String>) -> Option<T> {
        self.tell(&Line::Begins(piece));
        let (value, works, found) = match look() {
            Ok((value, found)) => (Some(value), true, found),
            Err(reason) => (None, false, reason),
        };
        self.tell(&Line::Found(Finding { piece, works, found: found.replace('\n', " ") }));
        value
    }

    /// Nothing else is to come.
    pub fn done(mut self) {
        self.tell(&Line::Done);
    }

    /// Whoever stopped reading has given up on it.
    fn tell(&mut self, line: &Line) {
        if let Ok(text) = serde_json::to_string(line) {
            // A library may have left a line of its own unfinished.
            let _ = write!(self.out, "\n{text}\n").and_then(|()| self.out.flush());
        }
    }
}

/// Starts a process that tells by a [`Teller`] on its standard output, and waits for it, `limit` at most. What it did not
/// come to tell of a piece that it began with is told by how it ended.
#[must_use]
pub fn run(mut command: Command, limit: Duration) -> Table {
    let deadline = clock::now() + limit;
    let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => return Table::nothing(&format!("the process that looks for it does not start: {error}")),
    };
    let Some(lines) = child.stdout.take().and_then(|output| read(output).ok()) else {
        child::wait(child, deadline, &Stop::default());
        return Table::nothing("the process that looks for it cannot be read");
    };
    let (mut findings, mut begun, mut done) = (Vec::new(), None, false);
    let late = loop {
        match lines.recv_timeout(deadline.saturating_duration_since(clock::now())) {
            Ok(Line::Begins(piece)) => begun = Some(piece),
            Ok(Line::Found(finding)) => {
                begun = begun.filter(|piece| *piece != finding.piece);
                findings.push(finding);
            }
            Ok(Line::Done) => done = true,
            Err(RecvTimeoutError::Disconnected) => break false,
            Err(RecvTimeoutError::Timeout) => break true,
        }
    };
    let end = child::wait(child, if late { clock::now() } else { deadline }, &Stop::default());
    if !done || begun.is_some() {
        let found = if late {
            format!("looking at it took more than {} s", limit.as_secs())
        } else {
            end.describe("looked at it")
        };
        findings.push(Finding { piece: begun.unwrap_or(Piece::Driver), works: false, found });
    }
    Table::new(findings)
}

/// Reads lines in a thread, which ends with the output or with whoever takes them.
fn read(output: ChildStdout) -> std::io::Result<Receiver<Line>> {
    let (sender, receiver) = sync_channel(LINES);
    std::thread::Builder::new().name("probe".to_owned()).spawn(move || {
        let lines = BufReader::new(output.take(OUTPUT)).lines().map_while(Result::ok);
        for line in lines.filter_map(|line| serde_json::from_str(&line).ok()) {
            if sender.send(line).is_err() {
                return;
            }
        }
    })?;
    Ok(receiver)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::hardware::Stage;

    /// A process that does what a shell script says.
    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    fn told(tell: impl FnOnce(&mut Teller<&mut Vec<u8>>)) -> String {
        let mut out = Vec::new();
        tell(&mut Teller::new(&mut out));
        String::from_utf8(out).unwrap()
    }

    /// What a process that wrote this and then did `then` is said to have found.
    fn found(told: &str, then: &str, limit: Duration) -> Vec<(Piece, bool, String)> {
        let table = run(shell(&format!("cat <<'END'\n{told}\nEND\n{then}")), limit);
        table.findings().iter().map(|it| (it.piece, it.works, it.found.clone())).collect()
    }

    const SECONDS: Duration = Duration::from_secs(20);

    #[test]
    fn what_is_found_is_told_piece_by_piece() {
        let told = told(|teller| {
            assert_eq!(teller.look(Piece::Driver, || Ok((7, "13.0".to_owned()))), Some(7));
            assert_eq!(teller.look(Piece::Device, || Err::<((), _), _>("none\nat all".to_owned())), None);
            teller.tell(&Line::Done);
        });
        let noisy = told.replace("\n\n", "\nwhat a library says\n");
        let wanted = [(Piece::Driver, true, "13.0".to_owned()), (Piece::Device, false, "none at all".to_owned())];
        assert_eq!(found(&noisy, "exit 0", SECONDS), wanted);
    }

    #[test]
    fn a_crash_is_told_of_the_piece_that_was_looked_at() {
        let told = told(|teller| {
            teller.look(Piece::Driver, || Ok(((), "13.0".to_owned())));
            teller.tell(&Line::Begins(Piece::Kernels));
        });
        let found = found(&told, "kill -SEGV $$", SECONDS);
        assert_eq!(found[0], (Piece::Driver, true, "13.0".to_owned()));
        assert_eq!(found[1], (Piece::Kernels, false, "signal 11 ended the process that looked at it".to_owned()));
    }

    #[test]
    fn a_process_that_hangs_is_ended() {
        let told = told(|teller| teller.tell(&Line::Begins(Piece::Device)));
        let found = found(&told, "exec sleep 600", Duration::from_secs(1));
        assert_eq!(found, [(Piece::Device, false, "looking at it took more than 1 s".to_owned())]);
    }

    #[test]
    fn a_process_that_tells_nothing_has_found_nothing() {
        let table = run(shell("echo '{\"found\":1}'; exit 3"), SECONDS);
        let reason = "NVIDIA driver: the process that looked at it ended with 3";
        assert_eq!(table.offers(Stage::Decode), Err(reason.to_owned()));
        let none = run(Command::new("/no/such/program"), SECONDS);
        assert!(none.offers(Stage::Decode).unwrap_err().contains("does not start"), "{none}");
    }

    #[test]
    fn what_ends_before_it_is_done_is_told_though_all_pieces_were() {
        let told = told(|teller| {
            teller.look(Piece::Driver, || Ok(((), "13.0".to_owned())));
        });
        let found = found(&told, "exit 1", SECONDS);
        assert_eq!(found.last().map(|it| it.1), Some(false), "{found:?}");
    }
}

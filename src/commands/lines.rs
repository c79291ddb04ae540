use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::Path;

use super::pending::Pending;

/// Where results go, one JSON object a line.
pub(super) enum Lines {
    Nowhere,
    Output(io::Stdout),
    /// A device or a pipe, which can't be replaced.
    Special(File),
    File(BufWriter<Pending>),
}

impl Lines {
    /// `-` is standard output, which is also taken when no path is given and `default` says so.
    pub(super) fn open(path: Option<&Path>, default: bool) -> io::Result<Self> {
        let Some(path) = path else {
            return Ok(if default { Self::Output(io::stdout()) } else { Self::Nowhere });
        };
        if path == Path::new("-") {
            return Ok(Self::Output(io::stdout()));
        }
        if path.metadata().is_ok_and(|there| !there.is_file() && !there.is_dir()) {
            return Ok(Self::Special(File::options().write(true).open(path)?));
        }
        Ok(Self::File(BufWriter::new(Pending::new(path)?)))
    }

    /// Whether results are printed where a progress bar would be drawn.
    pub(super) fn on_terminal(&self) -> bool {
        matches!(self, Self::Output(output) if output.is_terminal())
    }

    /// Writes one line; a reader at the other end of a pipe gets it at once.
    pub(super) fn write(&mut self, mut line: String) -> io::Result<()> {
        line.push('\n');
        match self {
            Self::Nowhere => Ok(()),
            Self::Output(output) => output.write_all(line.as_bytes()).and_then(|()| output.flush()),
            Self::Special(file) => file.write_all(line.as_bytes()),
            Self::File(file) => file.write_all(line.as_bytes()),
        }
    }

    /// Puts a file in place.
    pub(super) fn finish(self) -> io::Result<()> {
        match self {
            Self::File(file) => file.into_inner().map_err(io::IntoInnerError::into_error)?.put_in_place(),
            _ => Ok(()),
        }
    }
}

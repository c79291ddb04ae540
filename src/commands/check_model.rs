use std::io;

use crate::cli::Exit;
use crate::infer::check;

/// Tries the model that standard input describes, and says on standard output what became of it.
pub(super) fn check() -> Exit {
    match check::run(io::stdin().lock(), io::stdout().lock()) {
        Ok(()) => Exit::Clean,
        Err(error) => {
            eprintln!("{error}");
            Exit::Unavailable
        }
    }
}

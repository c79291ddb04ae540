use std::cell::Cell;
use std::io::{self, IsTerminal};

use indicatif::{DecimalBytes, ProgressBar, ProgressStyle};

use super::registry::Entry;

/// How far a model has come: a bar on standard error where that is a terminal, else one line.
pub(super) struct Progress {
    bar: ProgressBar,
    /// Whether the bar was set to where an earlier try ended.
    begun: Cell<bool>,
}

impl Progress {
    pub(super) fn new(entry: &Entry, quiet: bool) -> Self {
        let terminal = io::stderr().is_terminal();
        if !terminal && !quiet {
            eprintln!("{}: fetching {} from {}", entry.manifest.id(), DecimalBytes(entry.bytes), entry.host());
        }
        let bar = if terminal && !quiet { ProgressBar::new(entry.bytes) } else { ProgressBar::hidden() };
        let shape = "{msg} {bar:30} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta} left";
        // The shape is legal; the default would do as well.
        let style = ProgressStyle::with_template(shape).unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style);
        bar.set_message(entry.manifest.id());
        Self { bar, begun: Cell::new(false) }
    }

    /// So many bytes are there.
    pub(super) fn at(&self, bytes: u64) {
        self.bar.set_position(bytes);
        if !self.begun.replace(true) {
            // What was there before says nothing about how fast it goes.
            self.bar.reset_eta();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

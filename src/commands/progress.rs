use std::fmt;
use std::path::Path;

use indicatif::{ProgressBar, ProgressState, ProgressStyle};

/// A bar on standard error, where that is a terminal; one file at a time.
pub(super) struct Progress {
    bar: ProgressBar,
    files: usize,
    begun: usize,
}

impl Progress {
    pub(super) fn new(files: usize, hidden: bool) -> Self {
        let bar = if hidden { ProgressBar::hidden() } else { ProgressBar::no_length() };
        Self { bar, files, begun: 0 }
    }

    /// Begins with a file of this many pictures, where that is known.
    pub(super) fn begin(&mut self, input: &Path, pictures: Option<u64>) {
        self.begun += 1;
        let shape =
            if pictures.is_some() { "{bar:30} {pos}/{len} {rate} {eta} left" } else { "{spinner} {pos} {rate}" };
        // Both shapes are legal; the default would do as well.
        let style = ProgressStyle::with_template(&format!("{{msg}} {shape}"));
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        let rate = |state: &ProgressState, out: &mut dyn fmt::Write| {
            // Writing to the bar's line cannot fail.
            let _ = write!(out, "{:.0}/s", state.per_sec());
        };
        self.bar.set_style(style.with_key("rate", rate));
        let name = input.file_name().unwrap_or_default().display();
        let count = if self.files > 1 { format!("{}/{} ", self.begun, self.files) } else { String::new() };
        self.bar.set_message(format!("{count}{name}"));
        match pictures {
            Some(pictures) => self.bar.set_length(pictures),
            None => self.bar.unset_length(),
        }
        self.bar.reset();
    }

    pub(super) fn advance(&self) {
        self.bar.inc(1);
    }

    /// Writes a line without spoiling the bar.
    pub(super) fn say(&self, line: &str) {
        self.bar.suspend(|| eprintln!("{line}"));
    }

    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Why a part ended before its work was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// There is no GPU that could be used, for this reason.
    NoGpu(String),
    /// Something else that the part can't do without is missing or fails.
    Failed(String),
}

impl Stop {
    /// With the error's text.
    pub fn failed(error: impl fmt::Display) -> Self {
        Self::Failed(error.to_string())
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoGpu(reason) => write!(out, "no GPU: {reason}"),
            Self::Failed(reason) => write!(out, "stopped: {reason}"),
        }
    }
}

/// What a part found: lines that are printed at once, and a table at the end. It can be written to from any thread.
#[derive(Debug, Default)]
pub struct Report {
    part: &'static str,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    rows: Vec<(String, String)>,
    wrong: usize,
}

impl Report {
    /// An empty one of this part.
    pub fn new(part: &'static str) -> Self {
        Self { part, state: Mutex::default() }
    }

    /// Prints a line that is not in the table.
    pub fn say(&self, line: impl fmt::Display) {
        println!("{}: {line}", self.part);
    }

    /// A row of the table.
    pub fn row(&self, what: impl Into<String>, found: impl Into<String>) {
        let (what, found) = (what.into(), found.into());
        self.say(format_args!("{what}: {found}"));
        self.lock().rows.push((what, found));
    }

    /// A row about something that ought to be otherwise.
    pub fn wrong(&self, what: impl Into<String>, found: impl fmt::Display) {
        self.lock().wrong += 1;
        self.row(what, format!("WRONG: {found}"));
    }

    /// A row about something that this machine does not do, which is no mistake.
    pub fn unavailable(&self, what: impl Into<String>, reason: impl fmt::Display) {
        self.row(what, format!("unavailable: {reason}"));
    }

    /// [`Report::row`], or [`Report::wrong`] for an error.
    pub fn judge(&self, what: impl Into<String>, found: Result<String, String>) {
        match found {
            Ok(found) => self.row(what, found),
            Err(found) => self.wrong(what, found),
        }
    }

    /// Rows that ought to be otherwise.
    pub fn mistakes(&self) -> usize {
        self.lock().wrong
    }

    /// The rows so far: what was looked at, and what was found.
    pub fn rows(&self) -> Vec<(String, String)> {
        self.lock().rows.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The table, in Markdown.
impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cell = |text: &str| text.replace('|', "/").replace('\n', " ");
        writeln!(out, "| {} | found |\n|---|---|", self.part)?;
        self.rows().iter().try_for_each(|(what, found)| writeln!(out, "| {} | {} |", cell(what), cell(found)))
    }
}

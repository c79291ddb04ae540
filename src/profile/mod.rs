//! Profiles of this process: where its processors' time goes, and its memory. A leaf.
//!
//! [`Recording`] has the kernel interrupt whichever thread works a hundred times for each second of processors' time and notes
//! its stack; [`flame`] draws what was seen, [`proto`] writes it for other programs, [`memory`] asks the kernel what the memory
//! is. One recording runs at a time. Symbols are looked up when it ends, which takes seconds of one thread.

pub mod flame;
pub mod memory;
pub mod proto;

use std::time::{Duration, SystemTime};

use pprof::{Frames, ProfilerGuard, ProfilerGuardBuilder};

use crate::clock;

/// Samples for each second that a processor works: a number that is in step with nothing.
pub const HERTZ: u32 = 99;

/// Libraries in whose code no stack is looked at: those that look at stacks themselves, and those whose tables of it are wrong.
const LEFT_OUT: [&str; 3] = ["libgcc", "ld-linux", "vdso"];

/// No profile can be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Another one is being made.
    #[error("another profile is being recorded")]
    Busy,
    /// The system does not do what that takes.
    #[error("profiling failed: {0}")]
    Failed(String),
}

impl From<pprof::Error> for Error {
    fn from(error: pprof::Error) -> Self {
        if matches!(error, pprof::Error::Running) { Self::Busy } else { Self::Failed(error.to_string()) }
    }
}

/// A profile that is being recorded, until it is finished or dropped.
pub struct Recording {
    guard: ProfilerGuard<'static>,
    began: SystemTime,
}

impl Recording {
    /// Begins. The first one of a process takes up to a second, which is why this is no call for a Tokio worker.
    ///
    /// # Errors
    /// [`Error::Busy`] while there is another one.
    pub fn start() -> Result<Self, Error> {
        let hertz = i32::try_from(HERTZ).unwrap_or(i32::MAX);
        let guard = ProfilerGuardBuilder::default().frequency(hertz).blocklist(&LEFT_OUT).build()?;
        Ok(Self { guard, began: clock::wall() })
    }

    /// Ends, and looks symbols up, which takes seconds.
    ///
    /// # Errors
    /// [`Error::Failed`].
    pub fn finish(self) -> Result<Profile, Error> {
        let report = self.guard.report().build()?;
        drop(self.guard);
        let stacks = report.data.iter().map(|(frames, count)| Stack::new(frames, *count)).collect();
        Ok(Profile { began: self.began, took: report.timing.duration, stacks })
    }
}

/// Where processors' time went.
#[derive(Debug, Clone)]
pub struct Profile {
    /// When it began.
    pub began: SystemTime,
    /// How long was looked.
    pub took: Duration,
    /// What was seen.
    pub stacks: Vec<Stack>,
}

/// A thread at one place of the program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stack {
    /// Name of the thread.
    pub thread: String,
    /// Functions, the outermost first; those that the compiler put into others among them.
    pub functions: Vec<Function>,
    /// How often it was seen there.
    pub samples: u64,
}

/// A function that something was called in.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// File of its source, where that is known.
    pub file: String,
    /// Line in it, or 0.
    pub line: u32,
}

impl Stack {
    fn new(frames: &Frames, count: isize) -> Self {
        let symbols = frames.frames.iter().rev().flat_map(|inlined| inlined.iter().rev());
        let functions = symbols.map(|symbol| Function {
            name: symbol.name(),
            file: symbol.filename.as_ref().map(|_| symbol.filename().into_owned()).unwrap_or_default(),
            line: symbol.lineno(),
        });
        let samples = u64::try_from(count).unwrap_or(0);
        Self { thread: frames.thread_name_or_id(), functions: functions.collect(), samples }
    }
}

impl Profile {
    /// Samples of all stacks.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.stacks.iter().map(|stack| stack.samples).sum()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[inline(never)]
    fn spin_until(end: std::time::Instant) -> u64 {
        let mut sum = 1_u64;
        while clock::now() < end {
            for step in 0..20_000_u64 {
                sum = std::hint::black_box(sum.wrapping_mul(31).wrapping_add(step));
            }
        }
        sum
    }

    #[test]
    fn the_function_that_works_is_seen_and_one_profile_is_made_at_a_time() {
        let recording = Recording::start().unwrap();
        assert_eq!(Recording::start().err(), Some(Error::Busy));
        spin_until(clock::now() + Duration::from_millis(500));
        let profile = recording.finish().unwrap();
        let of_it = |stack: &&Stack| stack.functions.iter().any(|function| function.name.contains("spin_until"));
        let seen: u64 = profile.stacks.iter().filter(of_it).map(|stack| stack.samples).sum();
        assert!(seen >= 10 && 2 * seen >= profile.samples(), "{seen} of {}", profile.samples());
        drop(Recording::start().unwrap());
    }
}

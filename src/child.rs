//! Processes that may crash, hang, or be no longer wanted, such as those that try what a driver might not survive.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, ExitStatus};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

use crate::clock;

/// What a process that was killed may take to end.
const END_LIMIT: Duration = Duration::from_secs(5);

/// Ends processes that nobody waits for any more. Clones are one.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<Mutex<Stopping>>);

#[derive(Debug, Default)]
struct Stopping {
    is_stopped: bool,
    waiting: Option<SyncSender<Event>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    Ended,
    Stopped,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By itself, or by a signal of somebody else.
    Itself(ExitStatus),
    /// Its time was up.
    Late,
    /// It was stopped.
    Stopped,
    /// It cannot be waited for.
    Unknown,
}

impl Stop {
    /// Ends the process that is waited for, and each that will be.
    pub fn stop(&self) {
        let mut state = self.lock();
        state.is_stopped = true;
        if let Some(waiting) = state.waiting.take() {
            // Full: it has ended, and is told of that.
            let _ = waiting.try_send(Event::Stopped);
        }
    }

    /// Whether it was.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.lock().is_stopped
    }

    fn lock(&self) -> MutexGuard<'_, Stopping> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl End {
    /// Whether it did what it was to do.
    #[must_use]
    pub fn is_success(self) -> bool {
        matches!(self, Self::Itself(status) if status.success())
    }

    /// For people: what the process did, whose work `whose` names.
    #[must_use]
    pub fn describe(self, whose: &str) -> String {
        match self {
            Self::Itself(status) => match (status.signal(), status.code()) {
                (Some(signal), _) => format!("signal {signal} ended the process that {whose}"),
                (None, code) => format!("the process that {whose} ended with {}", code.unwrap_or(-1)),
            },
            Self::Late => format!("the process that {whose} took too long"),
            Self::Stopped => format!("the process that {whose} was stopped"),
            Self::Unknown => format!("the process that {whose} cannot be waited for"),
        }
    }
}

/// Waits for a process until the deadline, or until it is stopped, and kills it then. A `stop` is for one process at a time.
pub fn wait(mut child: Child, deadline: Instant, stop: &Stop) -> End {
    let pid = Pid::from_child(&child);
    let (sender, events) = sync_channel(2);
    {
        let mut state = stop.lock();
        if state.is_stopped {
            let _ = sender.try_send(Event::Stopped);
        } else {
            state.waiting = Some(sender.clone());
        }
    }
    // It stays there to be waited for, so that its number is nobody else's in the meantime.
    let watching = std::thread::Builder::new().name("child".to_owned()).spawn(move || {
        let ends = || waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
        while matches!(ends(), Err(Errno::INTR)) {}
        let _ = sender.try_send(Event::Ended);
    });
    let event = events.recv_timeout(deadline.saturating_duration_since(clock::now()));
    stop.lock().waiting = None;
    let ended_itself = watching.is_ok() && event == Ok(Event::Ended);
    if !ended_itself {
        let _ = kill_process(pid, Signal::KILL);
        // A process in the driver's hands may not even end then.
        let limit = clock::now() + END_LIMIT;
        let mut left = std::iter::from_fn(|| events.recv_timeout(limit.saturating_duration_since(clock::now())).ok());
        if watching.is_err() || !left.any(|event| event == Event::Ended) {
            return End::Unknown;
        }
    }
    match (child.wait(), event) {
        (Ok(status), Ok(Event::Ended)) => End::Itself(status),
        (_, Ok(Event::Stopped)) => End::Stopped,
        (_, Err(_)) => End::Late,
        (Err(_), Ok(Event::Ended)) => End::Unknown,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::io::Read as _;
    use std::process::{Command, Stdio};

    use super::*;

    fn shell(script: &str) -> Child {
        Command::new("/bin/sh").args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap()
    }

    fn soon() -> Instant {
        clock::now() + Duration::from_secs(20)
    }

    #[test]
    fn a_process_that_ends_says_how() {
        let end = |script| wait(shell(script), soon(), &Stop::default());
        assert!(end("exit 0").is_success());
        assert_eq!(end("exit 3").describe("looked"), "the process that looked ended with 3");
        assert_eq!(end("kill -SEGV $$").describe("looked"), "signal 11 ended the process that looked");
    }

    #[test]
    fn a_process_that_takes_too_long_is_ended() {
        assert_eq!(wait(shell("exec sleep 600"), clock::now(), &Stop::default()), End::Late);
    }

    #[test]
    fn what_is_stopped_ends_now_and_later() {
        let stop = Stop::default();
        let mut child = shell("echo; exec sleep 600");
        let mut output = child.stdout.take().unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| wait(child, soon(), &stop));
            // It runs, and is perhaps not waited for yet.
            output.read_exact(&mut [0]).unwrap();
            stop.stop();
            assert_eq!(waiting.join().unwrap(), End::Stopped);
        });
        assert!(stop.is_stopped());
        assert_eq!(wait(shell("exec sleep 600"), soon(), &stop), End::Stopped);
    }
}

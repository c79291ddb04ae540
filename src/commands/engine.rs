use std::io::{self, Read as _};

use crate::cli::Exit;
use crate::infer::Job;

/// Bytes of a job at most.
const JOB: u64 = 64 << 10;
/// How far it steps back behind everything else: a server that waits for it works already.
const NICE: i32 = 10;

/// Builds what standard input describes. The last line of standard error says what went wrong.
pub(super) fn build() -> Exit {
    // Whoever may not do one of these builds all the same.
    let _ = rustix::process::setpriority_process(None, NICE);
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    // Where memory runs out, the server is not to go first.
    let _ = std::fs::write("/proc/self/oom_score_adj", "900");
    let mut text = Vec::new();
    let read = io::stdin().take(JOB).read_to_end(&mut text);
    let job = read.map_err(|error| error.to_string()).and_then(|_| {
        serde_json::from_slice::<Job>(&text).map_err(|error| format!("standard input describes no engine: {error}"))
    });
    match job.and_then(|job| job.build().map_err(|error| error.to_string())) {
        Ok(()) => Exit::Clean,
        Err(reason) => {
            eprintln!("{}", reason.replace('\n', " "));
            Exit::Unavailable
        }
    }
}

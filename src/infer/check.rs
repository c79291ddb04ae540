//! Models are tried by a process of its own before they are opened: what a broken or hostile graph does to ONNX Runtime, it
//! does there.
//!
//! That process gets the very bytes that are run afterwards, on its standard input, and no name of a file. It may not write
//! files, gain rights, or have more memory and time than it is given, and it knows nothing of the server's environment.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use rustix::process::{Resource, Rlimit, Signal};
use serde::{Deserialize, Serialize};

use super::backend::Library;
use super::engine::{Engine, Options};
use super::error::Error;
use super::manifest::{BackendChoice, Precision};
use super::repository::{Graphs, ModelSpec, Texts};
use crate::child::{self, End, Stop};
use crate::clock;

/// Bytes of what is said of the graphs.
const MAX_HEADER: u64 = 8 << 20;
/// Bytes of the answer.
const MAX_ANSWER: u64 = 64 << 10;
/// Characters of a reason.
const MAX_REASON: usize = 1000;
/// Open files: libraries are opened one after the other.
const FILES: u64 = 256;
/// How far it steps back behind everything else.
const NICE: i32 = 10;
/// The only variables of the environment that it gets beside the place of ONNX Runtime's library.
const VARIABLES: [&str; 1] = ["LD_LIBRARY_PATH"];

/// Starts the process that tries a model.
#[derive(Debug, Clone)]
pub struct Checker {
    /// The program, with its arguments, that calls [`run`].
    pub command: Vec<OsString>,
    /// Time that it may take.
    pub limit: Duration,
    /// Bytes of address space that it may have beside the model itself: libraries take a part of them without using it.
    pub memory: u64,
    /// Ends it early.
    pub stop: Stop,
}

/// What standard input begins with, after its length in eight bytes, the lowest first. The graphs follow.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    texts: Texts,
    /// Bytes of each graph: fp32, int8, fp16.
    graphs: [Option<u64>; 3],
    sha256: Vec<String>,
    memory: u64,
    /// Seconds of processor time.
    processor_s: u64,
}

/// The last line of standard output.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Passed,
    Refused(String),
}

impl Checker {
    /// Has a model tried.
    ///
    /// # Errors
    /// [`Error::Check`] with what became of it.
    pub(super) fn check(&self, spec: &ModelSpec, graphs: &Graphs) -> Result<(), Error> {
        let failed = |reason: String| Error::Check { reason };
        let deadline = clock::now() + self.limit;
        let library = Library::find()?;
        let parts = [Some(&graphs.fp32), graphs.int8.as_ref(), graphs.fp16.as_ref()];
        let sizes = parts.map(|graph| graph.map(|graph| graph.len() as u64));
        let header = Header {
            texts: spec.texts().clone(),
            graphs: sizes,
            sha256: graphs.sha256.clone(),
            // A graph is held as bytes, as messages, and as what is made of them.
            memory: self.memory + 8 * sizes.iter().flatten().sum::<u64>(),
            processor_s: self.limit.as_secs().max(1) * 2,
        };
        let header = serde_json::to_vec(&header).map_err(|error| failed(error.to_string()))?;
        let Some((program, arguments)) = self.command.split_first() else {
            return Err(failed("there is no program that checks models".to_owned()));
        };
        let mut command = Command::new(program);
        command.args(arguments).env_clear().env("ORT_DYLIB_PATH", library).current_dir("/");
        command.envs(VARIABLES.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command
            .spawn()
            .map_err(|error| failed(format!("the process that checks models does not start: {error}")))?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        // Both end with the process: nobody else has the other ends.
        let (end, answer) = thread::scope(|scope| {
            scope.spawn(|| {
                let Some(mut stdin) = stdin else { return };
                let length = (header.len() as u64).to_le_bytes();
                let parts =
                    [&length[..], &header].into_iter().chain(parts.into_iter().flatten().map(|graph| &graph[..]));
                for part in parts {
                    // It may have ended.
                    if stdin.write_all(part).is_err() {
                        return;
                    }
                }
            });
            let reading = scope.spawn(|| {
                let mut text = String::new();
                let read = stdout.map(|stdout| stdout.take(MAX_ANSWER).read_to_string(&mut text));
                read.and_then(Result::ok).map(|_| text)
            });
            let end = child::wait(child, deadline, &self.stop);
            (end, reading.join().ok().flatten())
        });
        let last = answer.as_deref().and_then(|text| text.lines().rfind(|line| !line.is_empty()));
        match (end, last.and_then(|line| serde_json::from_str(line).ok())) {
            (end, Some(Answer::Passed)) if end.is_success() => Ok(()),
            (end, Some(Answer::Refused(reason))) if end.is_success() => Err(failed(reason)),
            (End::Late, _) => Err(failed(format!(
                "checking the model took longer than {} s (models.check_limit_s)",
                self.limit.as_secs()
            ))),
            (end, _) if end.is_success() => Err(failed("the process that checked the model said nothing".to_owned())),
            (end, _) => Err(failed(end.describe("checked the model"))),
        }
    }
}

/// The life of the process: gives up what it does not need, reads a model from `input`, tries it, and says to `output` what
/// became of it.
///
/// # Errors
/// What keeps it from saying anything.
pub fn run(mut input: impl Read, mut output: impl Write) -> io::Result<()> {
    let _ = rustix::process::setpriority_process(None, NICE);
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    rustix::thread::set_no_new_privs(true)?;
    // Where memory runs out, it goes first.
    let _ = std::fs::write("/proc/self/oom_score_adj", "1000");
    let mut length = [0; 8];
    input.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length);
    if length > MAX_HEADER {
        return Err(io::Error::other("the header is too long"));
    }
    let header: Header = serde_json::from_slice(&read(&mut input, length)?)?;
    limit(&header)?;
    let mut graphs = header.graphs.iter().map(|size| size.map(|size| read(&mut input, size)).transpose());
    let mut next = || graphs.next().transpose().map(Option::flatten);
    let (fp32, int8, fp16) = (next()?, next()?, next()?);
    let fp32 = fp32.ok_or_else(|| io::Error::other("there is no graph"))?;
    let graphs = Graphs { fp32, int8, fp16, sha256: header.sha256 };
    let answer = match try_out(header.texts, graphs) {
        Ok(()) => Answer::Passed,
        Err(error) => Answer::Refused(error.to_string().chars().take(MAX_REASON).collect()),
    };
    // A library may have left a line of its own unfinished.
    writeln!(output, "\n{}", serde_json::to_string(&answer)?)?;
    output.flush()
}

/// Exactly as many bytes.
fn read(input: &mut impl Read, length: u64) -> io::Result<Bytes> {
    let mut bytes = Vec::new();
    input.take(length).read_to_end(&mut bytes)?;
    if bytes.len() as u64 == length { Ok(bytes.into()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Gives up what it may not have more of.
fn limit(header: &Header) -> io::Result<()> {
    for (resource, most) in [
        (Resource::Core, 0),
        (Resource::Fsize, 0),
        (Resource::Nofile, FILES),
        (Resource::Cpu, header.processor_s),
        (Resource::As, header.memory),
    ] {
        let most = rustix::process::getrlimit(resource).maximum.map_or(most, |bound| bound.min(most));
        rustix::process::setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })?;
    }
    Ok(())
}

fn try_out(texts: Texts, graphs: Graphs) -> Result<(), Error> {
    let has_int8 = graphs.int8.is_some();
    let spec = ModelSpec::held(texts, graphs)?;
    // In the precision that every model has, by whatever may run it; then what differs from that.
    for (backend, precision) in [(BackendChoice::Auto, Precision::Fp32)]
        .into_iter()
        .chain(has_int8.then_some((BackendChoice::Cpu, Precision::Int8)))
    {
        let options = Options { backend: Some(backend), precision: Some(precision), ..Options::default() };
        Engine::new(options)?.try_all(&spec)?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn checker(script: &str, limit: Duration) -> Checker {
        let command = ["/bin/sh", "-c", script].map(OsString::from).to_vec();
        Checker { command, limit, memory: 1 << 30, stop: Stop::default() }
    }

    fn check(script: &str, limit: Duration) -> Result<(), String> {
        let spec = ModelSpec::embedded().unwrap();
        let graphs = spec.read().unwrap();
        checker(script, limit).check(&spec, &graphs).map_err(|error| error.to_string())
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn only_who_says_so_and_ends_well_has_passed() {
        assert_eq!(check("cat > /dev/null; echo noise; echo '\"passed\"'", LONG), Ok(()));
        let refused = check("cat > /dev/null; echo '{\"refused\":\"no such operator\"}'", LONG);
        assert_eq!(refused, Err("no such operator".to_owned()));
        let says_nothing = check("exit 0", LONG);
        assert_eq!(says_nothing, Err("the process that checked the model said nothing".to_owned()));
        let crashed = check("echo '\"passed\"'; kill -SEGV $$", LONG);
        assert_eq!(crashed, Err("signal 11 ended the process that checked the model".to_owned()));
    }

    #[test]
    fn who_takes_too_long_or_never_reads_is_ended() {
        let late = check("exec sleep 600", Duration::from_secs(1)).unwrap_err();
        assert!(late.starts_with("checking the model took longer than 1 s"), "{late}");
    }

    #[test]
    fn it_learns_nothing_of_the_environment() {
        let told =
            check("[ -z \"$HOME$PATH_INFO$CARGO_MANIFEST_DIR\" ] && [ \"$PWD\" = / ] && echo '\"passed\"'", LONG);
        assert_eq!(told, Ok(()));
    }
}

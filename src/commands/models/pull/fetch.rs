use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use ureq::http::{Response, StatusCode, header};

use ureq::{Agent, Body, Timeout};

use super::partial::Partial;
use super::progress::Progress;
use super::registry::Entry;
use crate::commands::outward;

/// Longest that looking up a name and opening a connection may take, each.
const CONNECT: Duration = Duration::from_secs(10);
/// Addresses that one leads to at most.
const REDIRECTS: u32 = 5;
/// How often an interruption is looked for while a connection is silent.
const TICK: Duration = Duration::from_millis(100);

/// Why a file did not come. What came so far is kept.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("{host} cannot be reached: {reason}")]
    Unreachable { host: String, reason: String },
    #[error("no secure connection to {host}: {reason}")]
    Insecure { host: String, reason: String },
    #[error("{host} answers {status}")]
    Status { host: String, status: StatusCode },
    #[error("{host} sent nothing for {seconds} s")]
    Stalled { host: String, seconds: u64 },
    #[error("the connection to {host} ended early ({reason})")]
    Cut { host: String, reason: String },
    #[error("{host} offers {offered} bytes, but the file has {expected}")]
    Length { host: String, offered: u64, expected: u64 },
    #[error("{host} sent more than the {expected} bytes that the file has")]
    TooLong { host: String, expected: u64 },
    #[error("interrupted")]
    Interrupted,
    #[error("the file cannot be written")]
    Write(#[source] io::Error),
}

/// Fetches what `partial` lacks of the entry's file. It is as long as the entry says afterwards; its checksum is not
/// looked at here.
///
/// # Errors
/// See [`Error`]; `stop` ends it within a moment, or within [`CONNECT`] while a name is looked up or a connection opens.
pub(super) fn fetch(
    entry: &Entry,
    partial: &mut Partial,
    stall: Duration,
    progress: &Progress,
    stop: &AtomicBool,
) -> Result<(), Error> {
    let agent = agent(entry, stall);
    let transfer = Transfer { entry, agent: agent.clone(), stall, progress, stop };
    let (done, finished) = sync_channel(0);
    let result = thread::scope(|scope| {
        scope.spawn(move || watch(agent, &finished, stop));
        let result = transfer.run(partial);
        drop(done);
        result
    });
    // A connection that was shut down fails in one way or another.
    if result.is_err() && stop.load(Ordering::Acquire) { Err(Error::Interrupted) } else { result }
}

/// Shuts the agent's connections down when the user has had enough.
fn watch(agent: Agent, finished: &Receiver<()>, stop: &AtomicBool) {
    while finished.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
        if stop.load(Ordering::Acquire) {
            agent.shutdown();
            return;
        }
    }
}

fn agent(entry: &Entry, stall: Duration) -> Agent {
    outward::agent()
        .https_only(entry.url.scheme_str() == Some("https"))
        .max_redirects(REDIRECTS)
        .accept_encoding("identity")
        .timeout_resolve(Some(CONNECT))
        .timeout_connect(Some(CONNECT))
        .timeout_recv_response(Some(stall))
        .timeout_per_read(Some(stall))
        .timeout_per_write(Some(stall))
        .build()
        .new_agent()
}

struct Transfer<'a> {
    entry: &'a Entry,
    agent: Agent,
    stall: Duration,
    progress: &'a Progress,
    stop: &'a AtomicBool,
}

/// What a server answers to who has the beginning already.
enum Answer {
    /// The file from its beginning.
    Whole,
    /// What is lacking.
    Rest,
    /// Something that does not fit to what is there.
    Useless,
}

impl Transfer<'_> {
    fn run(&self, partial: &mut Partial) -> Result<(), Error> {
        let mut have = partial.len().map_err(Error::Write)?;
        if have > self.entry.bytes {
            partial.restart(None).map_err(Error::Write)?;
            have = 0;
        }
        if have == self.entry.bytes {
            return Ok(());
        }
        let mut response = self.ask(have, partial.tag().as_deref())?;
        let mut answer = self.judge(&response, have, partial.tag().as_deref())?;
        if matches!(answer, Answer::Useless) {
            response = self.ask(0, None)?;
            answer = self.judge(&response, 0, None)?;
        }
        if !matches!(answer, Answer::Rest) {
            partial.restart(header(&response, header::ETAG)).map_err(Error::Write)?;
            have = 0;
        }
        self.receive(response, partial, have)
    }

    /// Asks for the file from `have` on, if it is still the one with this tag.
    fn ask(&self, have: u64, tag: Option<&str>) -> Result<Response<Body>, Error> {
        let mut request = self.agent.get(&self.entry.url);
        if have > 0 {
            request = request.header(header::RANGE, format!("bytes={have}-"));
            // Weak tags never match there (RFC 9110, 13.1.5); then the checksum alone tells whether parts fit.
            if let Some(tag) = tag.filter(|tag| !tag.starts_with("W/")) {
                request = request.header(header::IF_RANGE, tag);
            }
        }
        request.call().map_err(|error| self.no_answer(error))
    }

    fn judge(&self, response: &Response<Body>, have: u64, tag: Option<&str>) -> Result<Answer, Error> {
        let length = header(response, header::CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
        match response.status() {
            StatusCode::OK => match length {
                Some(offered) if offered != self.entry.bytes => {
                    Err(Error::Length { host: self.host(), offered, expected: self.entry.bytes })
                }
                _ => Ok(Answer::Whole),
            },
            StatusCode::PARTIAL_CONTENT if have > 0 => {
                let range = header(response, header::CONTENT_RANGE).and_then(start_and_total);
                let fits = range.is_some_and(|(start, total)| start == have && total == self.entry.bytes);
                let length = length.is_none_or(|length| length == self.entry.bytes - have);
                let same = match (tag, header(response, header::ETAG)) {
                    (Some(before), Some(now)) => before == now,
                    _ => true,
                };
                Ok(if fits && length && same { Answer::Rest } else { Answer::Useless })
            }
            StatusCode::RANGE_NOT_SATISFIABLE if have > 0 => Ok(Answer::Useless),
            status => Err(Error::Status { host: self.host(), status }),
        }
    }

    fn receive(&self, response: Response<Body>, partial: &mut Partial, mut have: u64) -> Result<(), Error> {
        let expected = self.entry.bytes;
        let mut body = response.into_body().into_reader();
        let mut buffer = vec![0; 1 << 16];
        self.progress.at(have);
        while !self.stop.load(Ordering::Acquire) {
            let read = match body.read(&mut buffer) {
                Ok(0) if have < expected => return Err(self.cut("it sent no more".to_owned())),
                Ok(0) => return Ok(()),
                Ok(read) => read,
                Err(error) => return Err(self.no_more(error.into())),
            };
            have += read as u64;
            if have > expected {
                return Err(Error::TooLong { host: self.host(), expected });
            }
            partial.append(&buffer[..read]).map_err(Error::Write)?;
            self.progress.at(have);
        }
        Err(Error::Interrupted)
    }

    fn host(&self) -> String {
        self.entry.host().to_owned()
    }

    fn cut(&self, reason: String) -> Error {
        Error::Cut { host: self.host(), reason }
    }

    fn stalled(&self) -> Error {
        Error::Stalled { host: self.host(), seconds: self.stall.as_secs() }
    }

    fn insecure(&self, error: &rustls::Error) -> Error {
        Error::Insecure { host: self.host(), reason: error.to_string() }
    }

    fn no_answer(&self, error: ureq::Error) -> Error {
        let reason = match error {
            ureq::Error::Timeout(Timeout::Resolve) => format!("its name was not found in {} s", CONNECT.as_secs()),
            ureq::Error::Timeout(Timeout::Connect) => format!("no connection in {} s", CONNECT.as_secs()),
            ureq::Error::Timeout(_) => return self.stalled(),
            ureq::Error::TooManyRedirects => format!("it redirects more than {REDIRECTS} times"),
            ureq::Error::RequireHttpsOnly(_) => "it redirects to an address without encryption".to_owned(),
            ureq::Error::Rustls(error) => return self.insecure(&error),
            ureq::Error::Io(error) => match error.get_ref().and_then(|cause| cause.downcast_ref()) {
                Some(cause) => return self.insecure(cause),
                None => error.to_string(),
            },
            error => error.to_string(),
        };
        Error::Unreachable { host: self.host(), reason }
    }

    fn no_more(&self, error: ureq::Error) -> Error {
        match error {
            ureq::Error::Timeout(_) => self.stalled(),
            ureq::Error::Io(error) => self.cut(error.to_string()),
            error => self.cut(error.to_string()),
        }
    }
}

fn header(response: &Response<Body>, name: header::HeaderName) -> Option<&str> {
    response.headers().get(name)?.to_str().ok()
}

/// `bytes 5-9/10` → 5 and 10.
fn start_and_total(range: &str) -> Option<(u64, u64)> {
    let (range, total) = range.strip_prefix("bytes ")?.split_once('/')?;
    let (start, _) = range.split_once('-')?;
    Some((start.parse().ok()?, total.parse().ok()?))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn content_ranges_are_read() {
        for (text, expected) in [
            ("bytes 5-9/10", Some((5, 10))),
            ("bytes 0-0/1", Some((0, 1))),
            ("bytes */10", None),
            ("bytes 5-9/*", None),
            ("pages 5-9/10", None),
            ("", None),
        ] {
            assert_eq!(start_and_total(text), expected, "{text}");
        }
    }
}

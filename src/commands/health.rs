//! `saccade health`: asks a server on its operators' listener whether it is ready, for whoever keeps it running and has no
//! other program at hand to ask with.

use std::time::Duration;

use serde::Deserialize;
use ureq::http::{StatusCode, Uri};
use ureq::{Agent, Error, Timeout};

use crate::cli::{Exit, Health};

/// Bytes of an answer that are read at most.
const ANSWER_BYTES: u64 = 256 << 10;
/// Characters that are told of an answer's reasons at most.
const TOLD: usize = 400;

/// What `/readyz` answers, as far as it is told.
#[derive(Deserialize)]
struct Readiness {
    reasons: Vec<Reason>,
}

#[derive(Deserialize)]
struct Reason {
    check: String,
    reason: String,
}

/// Asks once, and says in one line what came of it: clean if the server is ready, unavailable otherwise.
pub(super) fn run(args: &Health) -> Exit {
    let url = match address(&args.url) {
        Ok(url) => url,
        Err(mistake) => {
            eprintln!("{mistake}");
            return Exit::Configuration;
        }
    };
    match ask(&url, Duration::from_secs(args.timeout)) {
        Ok(()) => {
            say!("ready");
            Exit::Clean
        }
        Err(reason) => {
            eprintln!("not ready: {reason}");
            Exit::Unavailable
        }
    }
}

/// The address that is to be asked, if it is one.
fn address(text: &str) -> Result<Uri, String> {
    let parsed = text.parse::<Uri>().ok();
    parsed.filter(|url| url.scheme_str() == Some("http") && url.host().is_some()).ok_or_else(|| {
        format!("--url \"{text}\" is no http:// address; give that of ops.listen, such as http://127.0.0.1:9180/readyz")
    })
}

fn ask(url: &Uri, limit: Duration) -> Result<(), String> {
    // Nobody in between, whatever the environment says, and nowhere else.
    let agent: Agent = Agent::config_builder()
        .proxy(None)
        .max_redirects(0)
        .http_status_as_error(false)
        .user_agent(concat!("saccade/", env!("CARGO_PKG_VERSION")))
        .timeout_global(Some(limit))
        .build()
        .new_agent();
    let mut answer = agent.get(url).call().map_err(|error| no_answer(url, limit, error))?;
    let status = answer.status();
    if status == StatusCode::OK {
        return Ok(());
    }
    let body = answer.body_mut().with_config().limit(ANSWER_BYTES).read_to_string().unwrap_or_default();
    Err(reasons(&body).unwrap_or_else(|| format!("{url} answers {}; is it that of ops.listen?", status.as_u16())))
}

/// The reasons that a server gives, in one line.
fn reasons(body: &str) -> Option<String> {
    let Readiness { reasons } = serde_json::from_str(body).ok()?;
    let told: Vec<_> = reasons.iter().map(|Reason { check, reason }| format!("{check}: {reason}")).collect();
    let told: String = told.join("; ").chars().map(|one| if one.is_control() { ' ' } else { one }).take(TOLD).collect();
    (!told.is_empty()).then_some(told)
}

fn no_answer(url: &Uri, limit: Duration, error: Error) -> String {
    match error {
        Error::Timeout(Timeout::Connect | Timeout::Global | Timeout::PerCall) => {
            format!("{url} does not answer within {} s", limit.as_secs())
        }
        error => format!("{url}: {error}"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::thread::{self, JoinHandle};

    use super::*;

    /// A server that answers one request with these bytes and keeps what it was asked.
    fn answering(bytes: &'static str) -> (Uri, JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/readyz", listener.local_addr().unwrap()).parse().unwrap();
        let server = thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                socket.read_exact(&mut byte).unwrap();
                asked.push(byte[0]);
            }
            socket.write_all(bytes.as_bytes()).unwrap();
            String::from_utf8(asked).unwrap()
        });
        (url, server)
    }

    const SOON: Duration = Duration::from_secs(20);

    #[test]
    fn a_ready_server_is_asked_once_by_its_path() {
        let (url, server) = answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}");
        assert_eq!(ask(&url, SOON), Ok(()));
        assert!(server.join().unwrap().starts_with("GET /readyz HTTP/1.1\r\n"));
    }

    #[test]
    fn one_that_is_not_ready_says_why_in_one_line() {
        let body = r#"{"ready":false,"reasons":[{"check":"models","reason":"ppe-nano:\nwarming up"},{"check":"drain","reason":"x"}],"hardware":[]}"#;
        assert_eq!(reasons(body).unwrap(), "models: ppe-nano: warming up; drain: x");
        let long = format!(r#"{{"reasons":[{{"check":"a","reason":"{}"}}]}}"#, "é".repeat(2 * TOLD));
        assert_eq!(reasons(&long).unwrap().chars().count(), TOLD);
        let (url, server) = answering(
            "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 69\r\n\r\n{\"ready\":false,\"reasons\":[{\"check\":\"models\",\"reason\":\"warming up\"}]} ",
        );
        assert_eq!(ask(&url, SOON), Err("models: warming up".to_owned()));
        server.join().unwrap();
    }

    #[test]
    fn other_answers_are_no_readiness_and_lead_nowhere() {
        for (answer, status) in [
            ("HTTP/1.1 302 Found\r\nLocation: /healthz\r\nContent-Length: 0\r\n\r\n", "302"),
            ("HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nnope\n", "404"),
            ("HTTP/1.1 204 No Content\r\n\r\n", "204"),
        ] {
            let (url, server) = answering(answer);
            let said = ask(&url, SOON).unwrap_err();
            assert!(said.contains(status) && said.contains("ops.listen"), "{said}");
            server.join().unwrap();
        }
    }

    #[test]
    fn silence_ends_with_the_time_and_a_closed_port_at_once() {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let url: Uri = format!("http://{}/readyz", silent.local_addr().unwrap()).parse().unwrap();
        let said = ask(&url, Duration::from_secs(1)).unwrap_err();
        assert!(said.ends_with("does not answer within 1 s"), "{said}");
        drop(silent);
        let said = ask(&url, SOON).unwrap_err();
        assert!(said.to_lowercase().contains("refused"), "{said}");
    }

    #[test]
    fn what_is_no_address_of_a_listener_without_tls_is_refused() {
        assert!(address("http://[::1]:9180/readyz").is_ok());
        for wrong in ["https://127.0.0.1:9180/readyz", "127.0.0.1:9180", "/readyz", "http://", "unix:/run/x", "not one"]
        {
            let said = address(wrong).unwrap_err();
            assert!(said.contains(wrong) && said.contains("ops.listen"), "{said}");
        }
    }
}

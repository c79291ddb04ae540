//! `saccade doctor --live URL`: what limits a server that runs, by its metrics.
//!
//! Exit codes: 0 it was told, whatever was found; 64 for a wrong URL; 69 where there are no metrics of one server.

use std::fmt::Write as _;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use saccade_signaling::{AdviceSeverity, AdviceView};
use ureq::{Agent, http::StatusCode};
use url::Url;

use crate::advice::{Sample, Unusable, Window};
use crate::app::advice;
use crate::cli::Exit;
use crate::clock;
use crate::commands::outward;

/// Longest that a page of metrics may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Its bytes at most.
const MAX_BYTES: u64 = 16 << 20;

/// Why there is nothing to say.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("--live wants a URL such as http://127.0.0.1:9180, the server's `ops.listen`: {0}")]
    Url(String),
    #[error("{url} does not answer ({source}); is this the server's `ops.listen`, and does the server run?")]
    Unreachable { url: Url, source: Box<ureq::Error> },
    #[error("{url} answers more than {MAX_BYTES} bytes, which are no metrics of ours")]
    TooLong { url: Url },
    #[error(
        "{url} was answered by two processes: the server began anew meanwhile, or several share this URL; ask again, each of \
         them at its own `ops.listen`"
    )]
    Mixed { url: Url },
    #[error("{url} answers {status}; the metrics are at `ops.listen` of the server")]
    Status { url: Url, status: StatusCode },
    #[error("{url}: {source}; the metrics are at `ops.listen` of the server")]
    Unusable { url: Url, source: Unusable },
}

impl Error {
    const fn exit(&self) -> Exit {
        match self {
            Self::Url(_) => Exit::Configuration,
            _ => Exit::Unavailable,
        }
    }
}

/// Looks at the server's metrics twice, `window` apart, and says what limits it.
pub(super) fn run(url: &str, window: Duration, json: bool) -> Exit {
    match look(url, window) {
        Ok(view) if json => say!("{:#}", serde_json::json!(view)),
        Ok(view) => say!("{}", text(&view)),
        Err(error) => {
            eprintln!("{error}");
            return error.exit();
        }
    }
    Exit::Clean
}

fn look(url: &str, window: Duration) -> Result<AdviceView, Error> {
    let url = page(url).map_err(Error::Url)?;
    let agent = agent();
    let fetch = || {
        let failed = |source| Error::Unreachable { url: url.clone(), source: Box::new(source) };
        let mut answer = agent.get(url.as_str()).call().map_err(failed)?;
        let at = clock::now();
        if answer.status() != StatusCode::OK {
            return Err(Error::Status { url: url.clone(), status: answer.status() });
        }
        let text = answer.body_mut().with_config().limit(MAX_BYTES).read_to_string().map_err(|error| match error {
            ureq::Error::BodyExceedsLimit(_) => Error::TooLong { url: url.clone() },
            error => failed(error),
        })?;
        let sample = Sample::read(&text).map_err(|source| Error::Unusable { url: url.clone(), source })?;
        Ok((at, sample))
    };
    let (begin, first) = fetch()?;
    // Nobody sends.
    let (_open, silence) = sync_channel::<()>(1);
    let _ = silence.recv_timeout(window);
    let (end, last) = fetch()?;
    let seconds = end.saturating_duration_since(begin).as_secs_f64();
    let window = Window::over(seconds, &[&first, &last]);
    if window.is_mixed { Err(Error::Mixed { url }) } else { Ok(advice::view(&window)) }
}

/// Where the metrics are.
fn page(url: &str) -> Result<Url, String> {
    let mut url = Url::parse(url).map_err(|error| error.to_string())?;
    if !["http", "https"].contains(&url.scheme()) || url.host().is_none() {
        return Err("its scheme is neither http nor https".to_owned());
    }
    // They would be sent nowhere, and told with each error.
    if !url.username().is_empty() || url.password().is_some() {
        return Err("nobody is asked for a user name or a password there".to_owned());
    }
    if !url.path().ends_with("/metrics") {
        let path = format!("{}/metrics", url.path().trim_end_matches('/'));
        url.set_path(&path);
    }
    Ok(url)
}

fn agent() -> Agent {
    // Nobody in between, whatever the environment says, and nowhere else.
    outward::agent()
        .proxy(None)
        .max_redirects(0)
        .http_status_as_error(false)
        .timeout_global(Some(PATIENCE))
        .build()
        .new_agent()
}

/// The same for people.
fn text(view: &AdviceView) -> String {
    let mut text = String::new();
    for finding in &view.findings {
        let severity = match finding.severity {
            AdviceSeverity::Info => "info",
            AdviceSeverity::Warning => "warning",
            AdviceSeverity::Critical => "CRITICAL",
        };
        let evidence: Vec<_> = finding.evidence.iter().map(|(name, value)| format!("{name} {value}")).collect();
        // Names of models are the server's: a terminal would do what is in them.
        let message: String = finding
            .message
            .chars()
            .map(|one| if one.is_control() { char::REPLACEMENT_CHARACTER } else { one })
            .collect();
        let _ = writeln!(text, "{severity:8}  {}: {message}", finding.code);
        let _ = writeln!(text, "{:8}  {}", "", evidence.join(", "));
        let _ = writeln!(text, "{:8}  → {}: {}", "", finding.setting, finding.advice);
        let _ = writeln!(text, "{:8}  {}", "", finding.runbook);
    }
    let verdict = match view.findings.first() {
        None => "Nothing limits the server",
        Some(first) if first.severity == AdviceSeverity::Info => "Nobody is kept waiting",
        Some(_) => "The first of these limits the server most",
    };
    let _ = write!(text, "{verdict}, as {} s of its metrics show.", view.window_s);
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_metrics_are_found_from_the_listener() {
        for (url, expected) in [
            ("http://127.0.0.1:9180", "http://127.0.0.1:9180/metrics"),
            ("http://127.0.0.1:9180/", "http://127.0.0.1:9180/metrics"),
            ("https://box.example/saccade/metrics", "https://box.example/saccade/metrics"),
            ("https://box.example/saccade/", "https://box.example/saccade/metrics"),
        ] {
            assert_eq!(page(url).unwrap().as_str(), expected);
        }
        for wrong in [
            "127.0.0.1:9180",
            "localhost:9180",
            "ws://127.0.0.1/",
            "",
            "file:///metrics",
            "http://me:secret@127.0.0.1/",
        ] {
            let told = page(wrong).unwrap_err();
            assert!(!told.contains("secret"), "{told}");
        }
    }

    #[test]
    fn what_is_found_is_told_in_words() {
        let golden = include_str!("../../signaling/golden/advice_view.json");
        let mut view: AdviceView = serde_json::from_str(golden).unwrap();
        let shown = text(&view);
        view.findings[0].message = "\u{1b}[2Jyolo\nx".to_owned();
        assert!(text(&view).contains(": \u{fffd}[2Jyolo\u{fffd}x\n"), "nothing that a terminal obeys");
        assert!(shown.starts_with("CRITICAL  inference_bound: yolox-nano@1 has more"), "{shown}");
        assert!(shown.contains("frames_lost_ratio 0.62") && shown.contains("→ models.default: Take"), "{shown}");
        assert!(shown.contains("\ninfo      cache_useless: "), "{shown}");
        assert!(text(&AdviceView::default()).starts_with("Nothing limits the server"));
    }
}

use std::io;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// Shape of log lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// The process has a subscriber already.
#[derive(Debug, thiserror::Error)]
#[error("logging was set up before")]
pub struct AlreadySet;

/// Sends log lines to stderr from now on, those of the `log` crate included.
///
/// `filter` is a level or a list of directives, see [`is_filter`]; what cannot be parsed falls back to `info`.
///
/// # Errors
/// [`AlreadySet`] when called twice.
pub fn init(filter: &str, format: LogFormat) -> Result<(), AlreadySet> {
    let filter = parse(filter).unwrap_or_else(|| for_level(LevelFilter::INFO));
    let builder = tracing_subscriber::fmt().with_writer(io::stderr).with_env_filter(filter);
    let set = match format {
        LogFormat::Text => builder.with_ansi(io::IsTerminal::is_terminal(&io::stderr())).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    set.map_err(|_| AlreadySet)
}

/// Whether this is a level (`error`, `warn`, `info`, `debug`, `trace`, `off`) or a list of directives
/// (`info,saccade::rtc=debug`).
#[must_use]
pub fn is_filter(text: &str) -> bool {
    parse(text).is_some()
}

fn parse(text: &str) -> Option<EnvFilter> {
    if text.trim().is_empty() {
        return None;
    }
    if let Ok(level) = text.parse::<LevelFilter>() {
        return Some(for_level(level));
    }
    // A bare word that is no level would be taken for a module's name, and silence everything else.
    let mut directives = text.split(',').map(str::trim);
    let known = directives.all(|one| one.contains('=') || one.contains("::") || one.parse::<LevelFilter>().is_ok());
    if known { EnvFilter::builder().parse(text).ok() } else { None }
}

/// Libraries of the WebRTC stack, which warn several times in the life of every healthy session, and that of RTSP, whose
/// warnings hold addresses.
const STACK: [&str; 8] = ["retina", "rtc", "rtc_dtls", "rtc_ice", "rtc_interceptor", "rtc_mdns", "rtc_srtp", "webrtc"];

/// A bare level is meant for Saccade: libraries stay at `warn`, for they log addresses and session descriptions at
/// `info`.
fn for_level(level: LevelFilter) -> EnvFilter {
    let others = level.min(LevelFilter::WARN);
    let stack = level.min(LevelFilter::ERROR);
    let quiet: Vec<String> = STACK.iter().map(|library| format!("{library}={stack}")).collect();
    EnvFilter::new(format!("{others},saccade={level},rtc_sctp=off,{}", quiet.join(",")))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_for_saccade_and_directives_are_as_given() {
        let quiet = |level: &str| {
            let shown = |text: &str| text.replace("LEVEL", level);
            EnvFilter::new(shown(
                "warn,saccade=LEVEL,rtc_sctp=off,retina=error,rtc=error,rtc_dtls=error,rtc_ice=error,rtc_interceptor=error,\
                 rtc_mdns=error,rtc_srtp=error,webrtc=error",
            ))
            .to_string()
        };
        for (text, filter) in [
            ("info", Some(quiet("info"))),
            ("DEBUG", Some(quiet("debug"))),
            ("info,saccade::rtc=trace", Some("saccade::rtc=trace,info".to_owned())),
            ("loud", None),
            ("info,loud", None),
            ("saccade=shout", None),
            ("", None),
        ] {
            assert_eq!(parse(text).map(|filter| filter.to_string()), filter, "{text:?}");
        }
        assert!(parse("off").unwrap().to_string().split(',').all(|directive| directive.ends_with("off")));
    }
}

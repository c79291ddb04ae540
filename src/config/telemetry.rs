use std::path::PathBuf;

use url::Url;

use super::Secret;
use super::reader::{Raw, Reader};
use crate::telemetry::{self, LogFormat};
use crate::traces::Sampling;

/// Headers of requests to the collector at most.
const MAX_HEADERS: usize = 16;

/// `[telemetry]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Telemetry {
    /// A level (`error`, `warn`, `info`, `debug`, `trace`) or directives such as `info,saccade::rtc=debug`; default
    /// `info`. Debug and trace cost CPU and may show addresses.
    pub log: String,
    /// `text` for people, `json` for machines; default `text`.
    pub log_format: LogFormat,
    /// Where traces go, nowhere by default. Each trace costs a few kilobytes of memory and of network.
    pub traces: Option<Traces>,
}

/// `telemetry.otlp_*` and what is sampled.
#[derive(Debug, Clone, PartialEq)]
pub struct Traces {
    /// URL that takes spans over OTLP/HTTP: `telemetry.otlp_endpoint` and, unless that ends with it, `/v1/traces`.
    pub url: String,
    /// Headers of each request, of `telemetry.otlp_headers_file`; none by default.
    pub headers: Vec<(String, Secret)>,
    /// `telemetry.trace_sample_ratio`, by default all set-ups, and `telemetry.frame_traces_per_s`, by default one frame a
    /// second of all sessions together. More costs the collector.
    pub sampling: Sampling,
}

impl Telemetry {
    pub(super) fn read(from: &mut Reader) -> Self {
        Self {
            log: from.read(
                "telemetry.log",
                "info".to_owned(),
                "error, warn, info, debug, trace, or directives such as \"info,saccade::rtc=debug\"",
                |raw| raw.filled().filter(|log| telemetry::is_log_filter(log)),
            ),
            log_format: from.choice(
                "telemetry.log_format",
                LogFormat::Text,
                &[("text", LogFormat::Text), ("json", LogFormat::Json)],
            ),
            traces: Traces::read(from),
        }
    }
}

impl Traces {
    fn read(from: &mut Reader) -> Option<Self> {
        let legal = "a URL of OTLP over HTTP such as \"http://127.0.0.1:4318\", without a user, a query or a fragment \
                     (what proves who sends goes into telemetry.otlp_headers_file)";
        // A URL may hold what nobody is to see.
        let given = from.traced("telemetry.otlp_endpoint", legal, true, Raw::string);
        let (mut url, mut is_there) = (None, false);
        if let Some((text, given)) = given.filter(|(text, _)| !text.trim().is_empty()) {
            (url, is_there) = (endpoint(&text), true);
            if url.is_none() {
                from.mistake(&given, format!("must be {legal}"));
            }
        }
        let file =
            from.traced("telemetry.otlp_headers_file", "a file's name", false, |raw| raw.filled().map(PathBuf::from));
        let sampling = Sampling {
            ratio: from.read("telemetry.trace_sample_ratio", 1.0, "a number from 0 to 1", |raw| {
                raw.real().filter(|ratio| (0.0..=1.0).contains(ratio))
            }),
            frames_per_s: from.number("telemetry.frame_traces_per_s", 1, 0..=100, " (a second; 0: none)"),
        };
        let mut headers = Vec::new();
        if let Some((path, given)) = file {
            match std::fs::read_to_string(&path) {
                Ok(text) => match parse_headers(&text) {
                    Ok(parsed) => headers = parsed,
                    Err(line) => from.mistake(
                        &given,
                        format!("must name a file of at most {MAX_HEADERS} lines `name: value`; line {line} is none"),
                    ),
                },
                Err(error) => from.mistake(&given, format!("must name a file that can be read: {error}")),
            }
            if !is_there {
                from.mistake(&given, "needs telemetry.otlp_endpoint beside it");
            }
        }
        url.map(|url| Self { url, headers, sampling })
    }
}

/// As the OpenTelemetry specification makes the URL of traces out of a base URL.
fn endpoint(text: &str) -> Option<String> {
    let url = Url::parse(text.trim()).ok()?;
    let is_plain =
        url.username().is_empty() && url.password().is_none() && url.query().is_none() && url.fragment().is_none();
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() || !is_plain {
        return None;
    }
    let base = url.as_str().trim_end_matches('/');
    Some(if base.ends_with("/v1/traces") { base.to_owned() } else { format!("{base}/v1/traces") })
}

/// Lines `name: value`; empty ones and those that begin with `#` say nothing. Otherwise the number of the first wrong line.
fn parse_headers(text: &str) -> Result<Vec<(String, Secret)>, usize> {
    let mut headers = Vec::new();
    for (number, line) in text.lines().enumerate().map(|(number, line)| (number + 1, line.trim())) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = line.split_once(':').ok_or(number)?;
        let value = value.trim();
        let is_name = !name.is_empty() && name.bytes().all(|one| one.is_ascii_alphanumeric() || b"-_.".contains(&one));
        let is_value = !value.is_empty() && value.bytes().all(|one| (0x20..=0x7e).contains(&one));
        if !is_name || !is_value || headers.len() == MAX_HEADERS {
            return Err(number);
        }
        headers.push((name.to_ascii_lowercase(), Secret::new(value.to_owned())));
    }
    Ok(headers)
}

impl Raw {
    /// A number, whole or not.
    fn real(&self) -> Option<f64> {
        self.float().filter(|number| number.is_finite())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_base_or_the_place_itself() {
        for (text, url) in [
            ("http://127.0.0.1:4318", Some("http://127.0.0.1:4318/v1/traces")),
            ("https://otel.example/", Some("https://otel.example/v1/traces")),
            ("https://otel.example/tenant/v1/traces", Some("https://otel.example/tenant/v1/traces")),
            ("https://otel.example/tenant", Some("https://otel.example/tenant/v1/traces")),
            ("https://user:word@otel.example", None),
            ("https://otel.example?key=1", None),
            ("grpc://otel.example", None),
            ("otel.example:4318", None),
            ("http://", None),
        ] {
            assert_eq!(endpoint(text).as_deref(), url, "{text}");
        }
    }

    #[test]
    fn headers_are_lines() {
        let headers = parse_headers("# of the collector\nAuthorization: Bearer a:b\n\nx-tenant: 7\n").unwrap();
        let shown: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.expose())).collect();
        assert_eq!(shown, [("authorization", "Bearer a:b"), ("x-tenant", "7")]);
        for (text, line) in
            [("authorization", 1), ("\na b: c", 2), ("a:", 1), ("a: \u{e9}", 1), (&"a: b\n".repeat(17), 17)]
        {
            assert_eq!(parse_headers(text).map(|headers| headers.len()), Err(line), "{text:?}");
        }
        assert!(!format!("{headers:?}").contains("Bearer"));
    }
}

//! The metrics in `OpenMetrics`' text format 1.0, made of Prometheus' own, with exemplars.

use std::fmt::Write as _;

use super::exemplars;

/// `Content-Type` of [`render`]'s text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Metrics in `OpenMetrics`' format, from the same in Prometheus' text format: counters are families without `_total`, bounds of
/// buckets are written as floating-point numbers (`le="1.0"`), and the end is told.
#[must_use]
pub fn render(prometheus: &str) -> String {
    render_with(prometheus, exemplars::of_bucket)
}

/// Whether whoever sends this `Accept` would rather have `OpenMetrics` than Prometheus' format (RFC 9110 section 12.5.1).
#[must_use]
pub fn is_wanted(accept: &str) -> bool {
    let (mut open, mut plain) = (0.0_f32, 0.0_f32);
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default();
        let mut weight = 1.0;
        let mut is_known = true;
        for part in parts {
            match part.split_once('=').map(|(name, value)| (name.trim(), value.trim().trim_matches('"'))) {
                Some(("q", value)) => weight = value.parse().unwrap_or(0.0),
                Some(("version", value)) if kind.eq_ignore_ascii_case("application/openmetrics-text") => {
                    is_known = matches!(value, "1.0.0" | "0.0.1");
                }
                _ => {}
            }
        }
        if kind.eq_ignore_ascii_case("application/openmetrics-text") && is_known {
            open = open.max(weight);
        } else if ["text/plain", "text/*"].iter().any(|other| kind.eq_ignore_ascii_case(other)) {
            plain = plain.max(weight);
        }
    }
    open > 0.0 && open >= plain
}

fn render_with(prometheus: &str, exemplar: impl Fn(&str) -> Option<String>) -> String {
    let mut text = String::with_capacity(prometheus.len() + 4096);
    let mut kind = "";
    let mut help = None;
    for line in prometheus.lines().filter(|line| !line.is_empty()) {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            // What its family is called is known from its type, which comes next.
            help = rest.split_once(' ');
        } else if let Some((name, told)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            let family = name.strip_suffix("_total").filter(|_| told == "counter");
            // A counter's samples end in `_total`, or it is none.
            kind = if told == "counter" && family.is_none() { "unknown" } else { told };
            let family = family.unwrap_or(name);
            let _ = writeln!(text, "# TYPE {family} {kind}");
            if let Some((_, help)) = help.take().filter(|(of, _)| *of == name) {
                let _ = writeln!(text, "# HELP {family} {}", help.replace('"', "\\\""));
            }
        } else if kind == "histogram"
            && let Some((series, value)) = line.rsplit_once(' ')
            && let Some((before, bound)) = series.strip_suffix("\"}").and_then(|series| series.rsplit_once("le=\""))
        {
            let point = if bound.bytes().all(|one| one.is_ascii_digit()) { ".0" } else { "" };
            let exemplar = exemplar(series).unwrap_or_default();
            let _ = writeln!(text, "{before}le=\"{bound}{point}\"}} {value}{exemplar}");
        } else if !line.starts_with('#') {
            text.push_str(line);
            text.push('\n');
        }
    }
    text.push_str("# EOF\n");
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn families_bounds_and_exemplars_are_as_open_metrics_has_them() {
        let prometheus = "# HELP saccade_results_total Results \"made\".\n# TYPE saccade_results_total counter\n\
             saccade_results_total{stage=\"a\"} 3\n\n# TYPE odd counter\nodd 1\n\n\
             # HELP saccade_wait_seconds A wait.\n# TYPE saccade_wait_seconds histogram\n\
             saccade_wait_seconds_bucket{le=\"0.5\"} 1\nsaccade_wait_seconds_bucket{le=\"1\"} 2\n\
             saccade_wait_seconds_bucket{le=\"+Inf\"} 2\nsaccade_wait_seconds_sum 1.2\nsaccade_wait_seconds_count 2\n\n";
        let exemplar = |series: &str| {
            (series == "saccade_wait_seconds_bucket{le=\"1\"}").then(|| " # {trace_id=\"t\"} 0.7 12.000".to_owned())
        };
        let wanted = "# TYPE saccade_results counter\n# HELP saccade_results Results \\\"made\\\".\n\
             saccade_results_total{stage=\"a\"} 3\n# TYPE odd unknown\nodd 1\n\
             # TYPE saccade_wait_seconds histogram\n# HELP saccade_wait_seconds A wait.\n\
             saccade_wait_seconds_bucket{le=\"0.5\"} 1\n\
             saccade_wait_seconds_bucket{le=\"1.0\"} 2 # {trace_id=\"t\"} 0.7 12.000\n\
             saccade_wait_seconds_bucket{le=\"+Inf\"} 2\nsaccade_wait_seconds_sum 1.2\nsaccade_wait_seconds_count 2\n# EOF\n";
        assert_eq!(render_with(prometheus, exemplar), wanted);
    }

    #[test]
    fn whoever_asks_for_it_gets_it() {
        for wants in [
            "application/openmetrics-text",
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=0.0.4;q=0.3",
            "text/plain;q=0.2, Application/OpenMetrics-Text; q=0.3",
        ] {
            assert!(is_wanted(wants), "{wants}");
        }
        for not in [
            "",
            "*/*",
            "text/plain",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;version=9.9",
            "text/html",
            "application/openmetrics-text;q=0.1,text/plain;q=0.9",
        ] {
            assert!(!is_wanted(not), "{not}");
        }
    }
}

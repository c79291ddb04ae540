//! Exemplars: for a bucket of a histogram, the last sample of it that was traced, and by which trace.
//!
//! There is one for each bucket of each histogram that has any, so that their number is that of the buckets.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use super::metrics::LATENCY_BUCKETS;

/// A histogram with [`LATENCY_BUCKETS`] and one label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Series {
    /// Name of the metric.
    pub metric: &'static str,
    /// Name of its label.
    pub label: &'static str,
    /// Value of the label, which needs no escaping.
    pub value: &'static str,
}

#[derive(Debug, Clone)]
struct Exemplar {
    trace_id: String,
    seconds: f64,
    at: SystemTime,
}

/// Those of the process, as its metrics are.
static ALL: Exemplars = Exemplars::new();

/// Remembers a sample of `seconds` that was traced.
pub fn record(series: Series, seconds: f64, trace_id: String, at: SystemTime) {
    ALL.record(series, seconds, trace_id, at);
}

/// What follows the value of a histogram's bucket in `OpenMetrics`, for the bucket whose line begins like this; nothing where
/// there is no exemplar.
pub(super) fn of_bucket(series: &str) -> Option<String> {
    ALL.of_bucket(series)
}

/// By the beginning of the line of the bucket, up to and without its value.
#[derive(Debug)]
struct Exemplars(Mutex<BTreeMap<String, Exemplar>>);

impl Exemplars {
    const fn new() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }

    fn record(&self, Series { metric, label, value }: Series, seconds: f64, trace_id: String, at: SystemTime) {
        let bound = LATENCY_BUCKETS.iter().find(|bound| seconds <= **bound);
        let bound = bound.map_or_else(|| "+Inf".to_owned(), ToString::to_string);
        let line = format!("{metric}_bucket{{{label}=\"{value}\",le=\"{bound}\"}}");
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(line, Exemplar { trace_id, seconds, at });
    }

    fn of_bucket(&self, series: &str) -> Option<String> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Exemplar { trace_id, seconds, at } = all.get(series)?;
        let at = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        Some(format!(" # {{trace_id=\"{trace_id}\"}} {seconds} {}.{:03}", at.as_secs(), at.subsec_millis()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_bucket_has_the_last_sample_in_it() {
        let all = Exemplars::new();
        let series = Series { metric: "saccade_frame_latency_seconds", label: "path", value: "result" };
        let at = |millis| UNIX_EPOCH + Duration::from_millis(millis);
        all.record(series, 0.021, "a".into(), at(1_500));
        all.record(series, 0.025, "b".into(), at(2_750));
        all.record(series, 7.0, "c".into(), at(3_000));
        let of =
            |le: &str| all.of_bucket(&format!("saccade_frame_latency_seconds_bucket{{path=\"result\",le=\"{le}\"}}"));
        assert_eq!(of("0.025").unwrap(), " # {trace_id=\"b\"} 0.025 2.750");
        assert_eq!(of("+Inf").unwrap(), " # {trace_id=\"c\"} 7 3.000");
        assert_eq!(of("0.02"), None);
    }
}

//! What the process has measured of itself, for the status that people watch.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::clock;
use crate::{http, telemetry};

/// Rendering all metrics takes a millisecond or so: no more often than that, whoever watches.
const EVERY: Duration = Duration::from_millis(500);
/// How a line about a queue begins.
const QUEUE: &str = "saccade_queue_depth{queue=\"";

/// Depths of the queues, as the metrics have them.
pub(super) fn queues(metrics: telemetry::metrics::Handle) -> http::Queues {
    let kept: Mutex<Option<(Instant, BTreeMap<String, u64>)>> = Mutex::new(None);
    Arc::new(move || {
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        let now = clock::now();
        match &*kept {
            Some((since, depths)) if now.saturating_duration_since(*since) < EVERY => depths.clone(),
            _ => {
                let depths = depths(&metrics.render());
                *kept = Some((now, depths.clone()));
                depths
            }
        }
    })
}

fn depths(text: &str) -> BTreeMap<String, u64> {
    let line = |line: &str| {
        let (name, depth) = line.strip_prefix(QUEUE)?.split_once("\"} ")?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number of items")]
        let depth = depth.parse::<f64>().ok()?.max(0.0) as u64;
        Some((name.to_owned(), depth))
    };
    text.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depths_are_read_from_the_metrics() {
        let text = "# TYPE saccade_queue_depth gauge\nsaccade_queue_depth{queue=\"decode\"} 3\n\
                    saccade_queue_depth{queue=\"history\"} 0\nsaccade_sessions_active 1\n";
        let expected = BTreeMap::from([("decode".to_owned(), 3), ("history".to_owned(), 0)]);
        assert_eq!(depths(text), expected);
    }
}

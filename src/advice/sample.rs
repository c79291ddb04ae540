use std::collections::BTreeMap;

use super::exposition::{self, Malformed};

/// Counters and gauges that are kept of a page.
const VALUES: [&str; 25] = [
    "process_start_time_seconds",
    "saccade_admission_rejected_total",
    "saccade_budget_missed_total",
    "saccade_build_info",
    "saccade_busy_processors",
    "saccade_cache_requests_total",
    "saccade_codec_threads",
    "saccade_device_memory_bytes",
    "saccade_device_memory_total_bytes",
    "saccade_device_utilization_ratio",
    "saccade_frames_dropped_total",
    "saccade_frames_total",
    "saccade_memory_level",
    "saccade_memory_refused_total",
    "saccade_memory_used_ratio",
    "saccade_model_frame_seconds",
    "saccade_model_instances",
    "saccade_processors",
    "saccade_processors_busy_ratio",
    "saccade_rtc_datagrams_dropped_total",
    "saccade_rtc_packets_lost_total",
    "saccade_rtc_packets_total",
    "saccade_sessions_active",
    "saccade_stills_received_total",
    "saccade_stills_refused_total",
];
/// Histograms whose sums and counts are kept.
const HISTOGRAMS: [&str; 6] = [
    "saccade_batch_size",
    "saccade_inference_seconds",
    "saccade_queue_wait_seconds",
    "saccade_rtc_round_trip_seconds",
    "saccade_stage_duration_seconds",
    "saccade_stills_decode_seconds",
];
/// What every page of ours has.
const OURS: &str = "saccade_build_info";
/// Series of one page that are kept at most; a server with a hundred models has a thousand.
const MAX_SERIES: usize = 10_000;

/// What is kept of one page of metrics.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sample {
    series: BTreeMap<(&'static str, Part), Vec<Kept>>,
}

/// What of a metric a series is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// Of a counter or a gauge, all of it.
    Value,
    /// Of a histogram, the sum of its samples.
    Sum,
    /// Of a histogram, how many samples it has.
    Count,
}

#[derive(Debug, Clone, PartialEq)]
struct Kept {
    labels: Vec<(String, String)>,
    value: f64,
}

/// Why a page cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// It is something else.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// It is of another program.
    #[error("these are not the metrics of a Saccade server: there is no {OURS}")]
    Foreign,
    /// It is longer than any of ours.
    #[error("it has more than {MAX_SERIES} series")]
    TooMany,
}

/// The series of one metric, by their labels.
#[derive(Debug, Clone, Copy)]
pub(super) struct One<'a>(&'a Kept);

impl<'a> One<'a> {
    /// The value of a label; empty where it has none of this name.
    pub(super) fn label(self, name: &str) -> &'a str {
        self.0.labels.iter().find(|(label, _)| label == name).map_or("", |(_, value)| value)
    }

    pub(super) fn value(self) -> f64 {
        self.0.value
    }

    pub(super) fn is_like(self, other: One<'_>) -> bool {
        self.0.labels == other.0.labels
    }
}

impl Sample {
    /// Reads a page of metrics.
    ///
    /// # Errors
    /// [`Unusable`] where it is no such page, or not one of a Saccade server.
    pub fn read(page: &str) -> Result<Self, Unusable> {
        let (mut sample, mut count) = (Self::default(), 0);
        for series in exposition::parse(page) {
            let series = series?;
            let Some(kept) = kept(series.name) else { continue };
            count += 1;
            if count > MAX_SERIES {
                return Err(Unusable::TooMany);
            }
            let mut labels: Vec<_> =
                series.labels.into_iter().map(|(name, value)| (name.to_owned(), value.into_owned())).collect();
            labels.sort_unstable();
            sample.series.entry(kept).or_default().push(Kept { labels, value: series.value });
        }
        if sample.series.contains_key(&(OURS, Part::Value)) { Ok(sample) } else { Err(Unusable::Foreign) }
    }

    /// All series of a metric that is kept.
    pub(super) fn of(&self, name: &'static str, part: Part) -> impl Iterator<Item = One<'_>> {
        debug_assert!(kept(name).is_some() || HISTOGRAMS.contains(&name), "{name} is not kept");
        self.series.get(&(name, part)).into_iter().flatten().map(One)
    }
}

/// What a series is of, if it is kept.
fn kept(name: &str) -> Option<(&'static str, Part)> {
    let among = |names: &'static [&'static str], name: &str| names.iter().copied().find(|kept| *kept == name);
    let histogram = |end, part| Some((among(&HISTOGRAMS, name.strip_suffix(end)?)?, part));
    let value = among(&VALUES, name).map(|name| (name, Part::Value));
    value.or_else(|| histogram("_sum", Part::Sum)).or_else(|| histogram("_count", Part::Count))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_ours_is_told_from_others() {
        let page = "saccade_build_info{version=\"1\"} 1\nsaccade_sessions_active 3\nsomething_else 4\n";
        let sample = Sample::read(page).unwrap();
        assert_eq!(sample.of("saccade_sessions_active", Part::Value).map(One::value).collect::<Vec<_>>(), [3.0]);
        assert_eq!(Sample::read("go_goroutines 4\n"), Err(Unusable::Foreign));
        assert_eq!(Sample::read(""), Err(Unusable::Foreign));
        assert_eq!(Sample::read("<html>"), Err(Unusable::Malformed(Malformed { line: 1 })));
        let long = "saccade_sessions_active 1\n".repeat(MAX_SERIES + 1);
        assert_eq!(Sample::read(&long), Err(Unusable::TooMany));
    }

    #[test]
    fn labels_are_found_in_any_order() {
        let page = "saccade_build_info 1\nsaccade_frames_total{outcome=\"done\",stage=\"decode\"} 3\n";
        let other = "saccade_build_info 1\nsaccade_frames_total{stage=\"decode\",outcome=\"done\"} 4\n";
        let [one, two] = [page, other].map(|page| Sample::read(page).unwrap());
        let [one, two] = [&one, &two].map(|sample| sample.of("saccade_frames_total", Part::Value).next().unwrap());
        assert!(one.is_like(two));
        assert_eq!((one.label("stage"), one.label("none")), ("decode", ""));
    }
}

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::backend::Selection;
use super::manifest::Precision;
use crate::calibration::Disturbance;

/// A longer time is no measurement.
const MAX_TIME: Duration = Duration::from_secs(60);

/// What the measurement of a model depends on.
#[derive(Debug, Serialize)]
pub(super) struct Key {
    /// `name@version`.
    pub(super) model: String,
    /// SHA-256 of the graphs.
    pub(super) files: Vec<String>,
    /// Processor, its features and cores.
    pub(super) machine: String,
    /// Build of ONNX Runtime, and what lies beside it.
    pub(super) library: String,
    /// What manifest and operator ask for.
    pub(super) settings: String,
}

/// What was measured of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Found {
    pub(super) provider: String,
    pub(super) precision: String,
    /// Batch sizes and the time of a run, in microseconds.
    buckets: Vec<(usize, u64)>,
    pub(super) others: Vec<String>,
    /// Ways that take minutes to make ready were looked at, too.
    pub(super) is_final: bool,
    pub(super) disturbance: Disturbance,
}

impl Found {
    pub(super) fn new(selection: &Selection, is_final: bool) -> Self {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1);
        Self {
            provider: selection.provider.name().to_owned(),
            precision: selection.precision.name().to_owned(),
            buckets: selection.buckets.iter().map(|(size, time)| (*size, micros(*time))).collect(),
            others: selection.others.clone(),
            is_final,
            disturbance: selection.disturbance,
        }
    }

    /// Batch sizes and the time of a run.
    pub(super) fn buckets(&self) -> Vec<(usize, Duration)> {
        self.buckets.iter().map(|(size, time)| (*size, Duration::from_micros(*time))).collect()
    }

    pub(super) fn precision(&self) -> Option<Precision> {
        Precision::named(&self.precision)
    }

    /// Whether it can have been measured.
    pub(super) fn makes_sense(&self) -> bool {
        let buckets = self.buckets();
        let times = buckets.iter().all(|(_, time)| !time.is_zero() && *time <= MAX_TIME);
        times && buckets.first().is_some_and(|(size, _)| *size == 1) && buckets.is_sorted_by(|a, b| a.0 < b.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_that_no_run_can_have_are_refused() {
        let found = |buckets: &[(usize, u64)]| Found {
            provider: "cpu".to_owned(),
            precision: "int8".to_owned(),
            buckets: buckets.to_vec(),
            others: Vec::new(),
            is_final: true,
            disturbance: Disturbance::default(),
        };
        let good = found(&[(1, 5_000), (4, 9_000)]);
        assert!(good.makes_sense());
        assert_eq!(good.precision(), Some(Precision::Int8));
        for bad in
            [&[][..], &[(2, 5_000)], &[(1, 0)], &[(1, 99_999_999_999)], &[(1, 5), (4, 6), (2, 7)], &[(1, 5), (1, 6)]]
        {
            assert!(!found(bad).makes_sense(), "{bad:?}");
        }
    }
}

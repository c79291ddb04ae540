use std::time::Duration;

use super::table::Table;

/// Pictures that may wait where the manifest names no number.
const MAX_QUEUE: u32 = 32;

/// How frames may be run together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batching {
    /// Frames in one run at most; default: the preset's.
    pub max_batch: u32,
    /// How much longer than alone a frame may take for the sake of the others in its run; default: the preset's. It
    /// never waits for others while an instance is idle.
    pub max_delay: Duration,
    /// Batch sizes to measure, ascending; none: 1, 2, 4 and so on.
    pub preferred: Vec<u32>,
    /// Pictures that may wait, apart from live video; default 32, more are refused.
    pub max_queue: u32,
}

/// What a model is tuned for (`batching.preset`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Preset {
    /// 4 frames, 50 ms.
    Latency,
    /// 16 frames, 100 ms; the default.
    Balanced,
    /// 32 frames, 200 ms.
    Throughput,
}

impl Batching {
    pub(super) fn read(mut table: Table<'_>) -> Self {
        let presets =
            [("latency", Preset::Latency), ("balanced", Preset::Balanced), ("throughput", Preset::Throughput)];
        let (batch, delay) = match table.choice("preset", &presets).unwrap_or(Preset::Balanced) {
            Preset::Latency => (4, 50),
            Preset::Balanced => (16, 100),
            Preset::Throughput => (32, 200),
        };
        let max_batch = table.integer("max_batch", 1..=64).unwrap_or(batch);
        let max_delay = table.integer("max_delay_ms", 0..=1000).unwrap_or(delay);
        let mut preferred = table.integers("preferred", 1..=16, 1..=max_batch).unwrap_or_default();
        preferred.sort_unstable();
        preferred.dedup();
        let max_queue = table.integer("max_queue", 1..=1000).unwrap_or(MAX_QUEUE);
        table.finish();
        Self { max_batch, max_delay: Duration::from_millis(max_delay.into()), preferred, max_queue }
    }

    /// The sizes of batches to try, ascending; the first is always 1.
    #[must_use]
    pub fn buckets(&self) -> Vec<u32> {
        let mut buckets = if self.preferred.is_empty() {
            (0..).map(|power| 1 << power).take_while(|size| *size < self.max_batch).chain([self.max_batch]).collect()
        } else {
            self.preferred.clone()
        };
        if buckets.first() != Some(&1) {
            buckets.insert(0, 1);
        }
        buckets
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;
    use crate::infer::error::Mistake;
    use crate::infer::manifest::table::Mistakes;

    fn read(text: &str) -> Result<Batching, Vec<Mistake>> {
        let mistakes = Mistakes::default();
        let batching = Batching::read(Table::parse(text, &mistakes).unwrap());
        let mistakes = mistakes.into_inner();
        if mistakes.is_empty() { Ok(batching) } else { Err(mistakes) }
    }

    #[test]
    fn a_preset_is_overridden_key_by_key() {
        let bounds = |text: &str| {
            let Batching { max_batch, max_delay, max_queue, .. } = read(text).unwrap();
            (max_batch, max_delay.as_millis(), max_queue)
        };
        assert_eq!(bounds(""), (16, 100, 32));
        assert_eq!(bounds("preset = 'latency'"), (4, 50, 32));
        assert_eq!(bounds("preset = 'balanced'"), (16, 100, 32));
        assert_eq!(bounds("preset = 'throughput'\nmax_queue = 8"), (32, 200, 8));
        assert_eq!(bounds("preset = 'latency'\nmax_batch = 64"), (64, 50, 32));
        assert_eq!(bounds("preset = 'throughput'\nmax_delay_ms = 0"), (32, 0, 32));
        for (text, says) in [
            ("preset = 'fast'", "one of latency, balanced, throughput"),
            ("max_batch = 65", "from 1 to 64"),
            ("max_delay_ms = 1001", "from 0 to 1000"),
            ("max_queue = 0", "from 1 to 1000"),
            ("preset = 'latency'\npreferred = [8]", "from 1 to 4"),
        ] {
            let mistakes = read(text).unwrap_err();
            assert!(mistakes[0].to_string().contains(says), "{mistakes:?}");
        }
    }

    #[test]
    fn buckets_begin_with_one_and_end_with_the_largest_batch() {
        let buckets = |text: &str| read(text).unwrap().buckets();
        assert_eq!(buckets("preset = 'latency'"), [1, 2, 4]);
        assert_eq!(buckets("max_batch = 1"), [1]);
        assert_eq!(buckets("max_batch = 12"), [1, 2, 4, 8, 12]);
        assert_eq!(buckets("preferred = [8, 4, 4]"), [1, 4, 8]);
        assert_eq!(buckets("preferred = [1, 16]"), [1, 16]);
    }
}

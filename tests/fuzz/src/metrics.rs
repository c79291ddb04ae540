//! Pages of metrics, as `saccade doctor --live` reads them of whatever answers at a URL.

use saccade::advice::{Sample, Window, findings, parse};

/// Two pages with a zero byte between them, a second apart: what is found is in order, and its numbers are numbers.
pub(crate) fn page(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for series in parse(text).flatten() {
        assert!(!series.name.is_empty() && text.contains(series.name));
    }
    let (first, last) = text.split_once('\0').unwrap_or(("saccade_build_info 1", text));
    let (Ok(first), Ok(last)) = (Sample::read(first), Sample::read(last)) else { return };
    let found = findings(&Window::over(1.0, &[&first, &last]));
    assert!(found.is_sorted_by(|a, b| a.severity >= b.severity));
    for finding in found {
        assert!(finding.evidence.iter().all(|(_, value)| value.is_finite() && *value >= 0.0), "{finding:?}");
    }
}

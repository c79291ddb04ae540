use std::fmt::Write as _;

use super::Report;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 220.0;
const LEFT: f64 = 56.0;
const TOP: f64 = 28.0;

/// The report as a page that needs nothing else: the table, and plots of latency over time, its distribution, and the
/// capacity curve of a search.
#[must_use]
pub fn html(report: &Report) -> String {
    let setting = &report.setting;
    let mut plots = String::new();
    let latency: Vec<_> = report
        .timeline
        .iter()
        .filter_map(|second| Some((number(second.second), second.result_latency_p95_ms?)))
        .collect();
    plots.push_str(&plot("Result latency, 95th percentile of each second", "seconds", "ms", &[("#1971c2", &latency)]));
    let sent: Vec<_> = report.timeline.iter().map(|s| (number(s.second), f64::from(s.frames_sent))).collect();
    let results: Vec<_> = report.timeline.iter().map(|s| (number(s.second), f64::from(s.results))).collect();
    plots.push_str(&plot(
        "Frames sent (grey) and results each second",
        "seconds",
        "1/s",
        &[("#adb5bd", &sent), ("#2b8a3e", &results)],
    ));
    let shares: Vec<_> = report.distribution.iter().map(|&(at, share)| (at, share * 100.0)).collect();
    plots.push_str(&plot("Share of results within a latency", "ms", "%", &[("#1971c2", &shares)]));
    if !report.trials.is_empty() {
        let mut trials = report.trials.clone();
        trials.sort_by_key(|trial| trial.sessions);
        let curve: Vec<_> = trials.iter().map(|trial| (f64::from(trial.sessions), trial.results_per_s)).collect();
        plots.push_str(&plot("Capacity: results by number of sessions", "sessions", "1/s", &[("#d9480f", &curve)]));
        let curve: Vec<_> =
            trials.iter().filter_map(|trial| Some((f64::from(trial.sessions), trial.result_latency_p95_ms?))).collect();
        plots.push_str(&plot(
            "Capacity: result latency, 95th percentile, by number of sessions",
            "sessions",
            "ms",
            &[("#1971c2", &curve)],
        ));
    }
    format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>Load on {url}</title>\n<style>body{{font:15px/1.5 system-ui,sans-serif;max-width:780px;margin:2em auto;\
         padding:0 1em;color:#212529;background:#fff}}pre{{background:#f1f3f5;padding:1em;overflow-x:auto}}\
         svg{{max-width:100%;height:auto}}h1{{font-size:1.4em}}</style>\n<h1>Load on {url}</h1>\n\
         <p>{scenario}, {signaling}; made by {generator}.</p>\n<pre>{table}</pre>\n{plots}</html>\n",
        url = escape(&setting.url),
        scenario = escape(&setting.scenario),
        signaling = escape(&setting.signaling),
        generator = escape(&setting.generator),
        table = escape(&super::table(report)),
    )
}

#[expect(clippy::cast_precision_loss, reason = "seconds of a run")]
fn number(second: usize) -> f64 {
    second as f64
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Lines over two axes that begin at zero.
fn plot(title: &str, across: &str, up: &str, lines: &[(&str, &[(f64, f64)])]) -> String {
    let points = || lines.iter().flat_map(|(_, points)| points.iter());
    let far = points().map(|point| point.0).fold(1.0, f64::max);
    let high = round_up(points().map(|point| point.1).fold(0.0, f64::max));
    let at = |x: f64, y: f64| (LEFT + x / far * (WIDTH - LEFT - 16.0), TOP + (1.0 - y / high) * (HEIGHT - TOP - 40.0));
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\"><text x=\"{LEFT}\" y=\"16\" \
         font-weight=\"bold\">{}</text>",
        escape(title)
    );
    for step in 0..=4 {
        let value = high * f64::from(step) / 4.0;
        let (x, y) = at(0.0, value);
        let _ = write!(
            svg,
            "<line x1=\"{x:.1}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#dee2e6\"/><text x=\"{:.1}\" y=\"{:.1}\" \
             text-anchor=\"end\">{value}</text>",
            WIDTH - 16.0,
            x - 6.0,
            y + 4.0
        );
        let (x, y) = at(far * f64::from(step) / 4.0, 0.0);
        let _ = write!(
            svg,
            "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{:.0}</text>",
            y + 16.0,
            far * f64::from(step) / 4.0
        );
    }
    let _ = write!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text><text x=\"4\" y=\"16\">{}</text>",
        WIDTH - 16.0,
        HEIGHT - 6.0,
        escape(across),
        escape(up)
    );
    for (colour, points) in lines {
        let path: Vec<_> = points.iter().map(|&(x, y)| at(x, y)).map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = write!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            path.join(" ")
        );
    }
    svg + "</svg>\n"
}

/// The next of 1, 2, 4, 6 or 10 times a power of ten.
fn round_up(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(value.log10().floor());
    [1.0, 2.0, 4.0, 6.0, 10.0].map(|step| step * power).into_iter().find(|&step| step >= value).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_round_numbers() {
        for (value, wanted) in
            [(0.0, 1.0), (0.7, 1.0), (1.0, 1.0), (3.0, 4.0), (41.0, 60.0), (61.0, 100.0), (180.0, 200.0)]
        {
            assert!((round_up(value) - wanted).abs() < 1e-9, "{value}");
        }
    }

    #[test]
    fn what_comes_from_outside_is_no_markup() {
        assert_eq!(escape("<b a=\"1\">&"), "&lt;b a=&quot;1&quot;&gt;&amp;");
    }
}

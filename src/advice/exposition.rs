use std::borrow::Cow;
use std::fmt;

/// Labels of one series at most; ours have three.
const MAX_LABELS: usize = 64;

/// One line with a value.
#[derive(Debug, Clone, PartialEq)]
pub struct Series<'a> {
    /// Name of the metric; of a histogram with `_sum`, `_count` or `_bucket`.
    pub name: &'a str,
    /// Its labels, in their order.
    pub labels: Vec<(&'a str, Cow<'a, str>)>,
    /// Its value, which may be infinite or not a number.
    pub value: f64,
}

/// A line that is neither a series nor a comment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed {
    /// Its number, from 1 on.
    pub line: usize,
}

impl fmt::Display for Malformed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "line {} is no metric in Prometheus' text format", self.line)
    }
}

impl std::error::Error for Malformed {}

/// The series of a page in Prometheus' text format 0.0.4, as far as it is understood: a timestamp and an exemplar
/// (`OpenMetrics` 1.0, section 4) behind a value are passed over, and so are comments.
pub fn parse(page: &str) -> impl Iterator<Item = Result<Series<'_>, Malformed>> {
    page.lines().enumerate().filter_map(|(at, line)| {
        let line = line.trim();
        let is_said = !line.is_empty() && !line.starts_with('#');
        is_said.then(|| series(line).ok_or(Malformed { line: at + 1 }))
    })
}

fn series(line: &str) -> Option<Series<'_>> {
    let end = line.find(|one: char| !is_of_name(one)).unwrap_or(line.len());
    let (name, rest) = line.split_at(end);
    if name.is_empty() || name.starts_with(|one: char| one.is_ascii_digit()) {
        return None;
    }
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(inside) => labels(inside)?,
        None => (Vec::new(), rest),
    };
    if !rest.starts_with([' ', '\t']) {
        return None;
    }
    let sample = rest.split_once(" # ").map_or(rest, |(sample, _)| sample);
    let mut words = sample.split_ascii_whitespace();
    let value = words.next()?.parse().ok()?;
    if words.next().is_some_and(|time| time.parse::<f64>().is_err()) || words.next().is_some() {
        return None;
    }
    Some(Series { name, labels, value })
}

/// Name and value of a label.
type Label<'a> = (&'a str, Cow<'a, str>);

/// What is behind `{`, up to `}`, and the rest.
fn labels(mut rest: &str) -> Option<(Vec<Label<'_>>, &str)> {
    let mut labels = Vec::new();
    loop {
        rest = rest.trim_start();
        if let Some(rest) = rest.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, quoted) = rest.split_once('=')?;
        let name = name.trim();
        if name.is_empty() || !name.chars().all(is_of_name) || labels.len() == MAX_LABELS {
            return None;
        }
        let (value, behind) = quoted_text(quoted.trim_start().strip_prefix('"')?)?;
        labels.push((name, value));
        let behind = behind.trim_start();
        rest = match behind.strip_prefix(',') {
            Some(more) => more,
            None if behind.starts_with('}') => behind,
            None => return None,
        };
    }
}

/// A text up to its quotation mark, and what is behind that.
fn quoted_text(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let end = text.find(['"', '\\'])?;
    let (plain, rest) = text.split_at(end);
    if let Some(rest) = rest.strip_prefix('"') {
        return Some((plain.into(), rest));
    }
    let mut value = plain.to_owned();
    let mut ones = rest.char_indices();
    while let Some((at, one)) = ones.next() {
        match one {
            '"' => return Some((value.into(), &rest[at + 1..])),
            '\\' => value.push(match ones.next()?.1 {
                'n' => '\n',
                other @ ('\\' | '"') => other,
                _ => return None,
            }),
            one => value.push(one),
        }
    }
    None
}

const fn is_of_name(one: char) -> bool {
    one.is_ascii_alphanumeric() || one == '_' || one == ':'
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::float_cmp, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn series_are_read_with_labels_timestamps_and_exemplars() {
        let page = "# HELP a what it is\n# TYPE a counter\na 1\n\na_total{x=\"1\",y=\"\"} +Inf 1395066363000\n\
                    b_bucket{le=\"0.5\", } 3 # {trace_id=\"abc # d\"} 0.4 1520879607.789\nc{q=\"a\\\\b\\\"c\\nd, }e\"} NaN\nd{}\t-1.5e-3\n";
        let found: Vec<_> = parse(page).map(Result::unwrap).collect();
        let names: Vec<_> = found.iter().map(|series| series.name).collect();
        assert_eq!(names, ["a", "a_total", "b_bucket", "c", "d"]);
        assert_eq!(found[1].labels, [("x", "1".into()), ("y", "".into())]);
        assert_eq!((found[1].value, found[2].value, found[4].value), (f64::INFINITY, 3.0, -0.0015));
        assert_eq!(found[3].labels, [("q", "a\\b\"c\nd, }e".into())]);
        assert!(found[3].value.is_nan());
    }

    #[test]
    fn what_is_no_metric_is_told_by_its_line() {
        for line in [
            "<html>",
            "a",
            "a ",
            "a x",
            "1a 1",
            "a{x=1} 1",
            "a{x=\"1} 1",
            "a{x=\"1\"}1",
            "a{x=\"\\q\"} 1",
            "a 1 x",
            "a 1 2 3",
        ] {
            let page = format!("b 1\n{line}\n");
            let found: Vec<_> = parse(&page).collect();
            assert_eq!(found[1], Err(Malformed { line: 2 }), "{line}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(name in "[a-z_:][a-z0-9_:]{0,12}", text in any::<String>(), value in any::<f64>()) {
            let text: String = text.chars().filter(|one| !one.is_control()).collect();
            let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
            let page = format!("{name}{{label=\"{quoted}\"}} {value}\n");
            let found: Vec<_> = parse(&page).map(Result::unwrap).collect();
            prop_assert_eq!(found.len(), 1);
            prop_assert_eq!(&found[0].labels, &vec![("label", Cow::from(text))]);
            prop_assert!(found[0].value == value || value.is_nan());
        }

        #[test]
        fn no_text_is_too_strange(page in any::<String>()) {
            parse(&page).for_each(drop);
        }
    }
}

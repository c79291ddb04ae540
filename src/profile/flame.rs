//! Flame graphs: stacks as a picture, where what is wide is what takes time.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::Profile;

/// Pixels across.
const WIDTH: f64 = 1400.0;
/// Of one function.
const ROW: usize = 16;
/// Above and below the rows.
const MARGIN: usize = 28;
/// What is narrower is left out.
const LEAST: f64 = 0.4;
/// Of a letter.
const LETTER: f64 = 6.6;

/// A place in the tree of calls.
#[derive(Default)]
struct Node<'a> {
    samples: u64,
    called: BTreeMap<&'a str, Node<'a>>,
}

impl<'a> Node<'a> {
    fn add(&mut self, path: impl Iterator<Item = &'a str>, samples: u64) {
        self.samples += samples;
        let mut at = self;
        for name in path {
            at = at.called.entry(name).or_default();
            at.samples += samples;
        }
    }

    fn depth(&self) -> usize {
        1 + self.called.values().map(Node::depth).max().unwrap_or(0)
    }
}

/// An SVG of a profile: all threads side by side at the bottom, what they call above. Each rectangle tells its name and share
/// where a pointer rests on it.
#[must_use]
pub fn svg(profile: &Profile) -> String {
    let mut root = Node::default();
    for stack in &profile.stacks {
        let path =
            std::iter::once(stack.thread.as_str()).chain(stack.functions.iter().map(|function| function.name.as_str()));
        root.add(path, stack.samples);
    }
    let height = root.depth() * ROW + 2 * MARGIN;
    let mut out = String::new();
    let _ = write!(
        out,
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\" font-family=\"monospace\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fffdf6\"/>\n\
         <text x=\"8\" y=\"18\" font-size=\"13\">Saccade: {} samples of processors' time in {:.1} s</text>\n",
        root.samples,
        profile.took.as_secs_f64()
    );
    if root.samples > 0 {
        draw(&mut out, &root, "all", &Place { left: 0.0, bottom: height - MARGIN, all: root.samples });
    }
    out.push_str("</svg>\n");
    out
}

struct Place {
    left: f64,
    bottom: usize,
    all: u64,
}

#[expect(clippy::cast_precision_loss, reason = "numbers of samples and pixels")]
fn draw(out: &mut String, node: &Node<'_>, name: &str, place: &Place) {
    let Place { left, bottom, all } = *place;
    let share = node.samples as f64 / all as f64;
    let width = share * WIDTH;
    if width < LEAST {
        return;
    }
    let (top, shown) = (bottom - ROW, escaped(name));
    let _ = write!(
        out,
        "<g><title>{shown}: {} samples, {:.2} %</title><rect x=\"{left:.1}\" y=\"{top}\" width=\"{width:.1}\" height=\"{}\" \
         fill=\"{}\" rx=\"1\"/>",
        node.samples,
        share * 100.0,
        ROW - 1,
        colour(name)
    );
    let letters = (width / LETTER) as usize;
    if letters >= 3 {
        let short: String = name.chars().take(letters).collect();
        let _ = write!(out, "<text x=\"{:.1}\" y=\"{}\">{}</text>", left + 2.0, bottom - 5, escaped(&short));
    }
    out.push_str("</g>\n");
    let mut left = left;
    for (name, called) in &node.called {
        draw(out, called, name, &Place { left, bottom: top, all });
        left += called.samples as f64 / all as f64 * WIDTH;
    }
}

/// A warm one, always the same for a name.
fn colour(name: &str) -> String {
    let hash = name.bytes().fold(2_166_136_261_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(16_777_619));
    format!("hsl({} {}% {}%)", 12 + hash % 44, 78 + (hash >> 8) % 16, 62 + (hash >> 16) % 12)
}

/// As text of XML; what XML cannot hold at all is left out.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for one in text.chars() {
        match one {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            one if one.is_control() || matches!(one, '\u{fffe}' | '\u{ffff}') => {}
            one => out.push(one),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::super::{Function, Stack};
    use super::*;

    fn stack(thread: &str, names: &[&str], samples: u64) -> Stack {
        let function = |name: &&str| Function { name: (*name).to_owned(), file: String::new(), line: 0 };
        Stack { thread: thread.to_owned(), functions: names.iter().map(function).collect(), samples }
    }

    #[test]
    fn widths_are_shares_and_names_are_escaped() {
        let stacks = vec![
            stack("codec", &["main", "encode<A & B>"], 30),
            stack("codec", &["main", "draw"], 10),
            stack("model", &["run"], 60),
        ];
        let drawn = svg(&Profile { began: UNIX_EPOCH, took: Duration::from_secs(2), stacks });
        for part in [
            "100 samples of processors' time in 2.0 s",
            "<title>codec: 40 samples, 40.00 %</title><rect x=\"0.0\" y=\"60\" width=\"560.0\"",
            "<title>encode&lt;A &amp; B&gt;: 30 samples, 30.00 %</title><rect x=\"140.0\"",
            "<title>run: 60 samples, 60.00 %</title><rect x=\"560.0\"",
        ] {
            assert!(drawn.contains(part), "{part} is not in:\n{drawn}");
        }
        assert!(svg(&Profile { began: UNIX_EPOCH, took: Duration::ZERO, stacks: Vec::new() }).ends_with("</svg>\n"));
    }
}

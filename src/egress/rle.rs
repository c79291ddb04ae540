//! Masks as COCO writes them: lengths of runs down the columns, outside and inside by turns, outside first; as text, six bits
//! a character, each length from the third on as its difference to the one two before (`rleToString` of `pycocotools`).

use crate::media::Mask;

/// Characters of all run lengths of a message at most.
pub(super) const MAX_TEXT: usize = 48 << 10;

/// The run lengths of each segment of a mask in a picture of `size` (width, height), whose pixel (x, y) has what the mask has
/// in column `columns[x]` and row `rows[y]`.
pub(super) fn encode(mask: &Mask, columns: &[u32], rows: &[u32]) -> Vec<String> {
    let mut runs = vec![Runs::default(); mask.segments().len()];
    let mut segment_of = [None; Mask::NONE as usize + 1];
    for (place, segment) in mask.segments().iter().enumerate() {
        segment_of[usize::from(segment.index)] = Some(place);
    }
    let lines: Vec<&[u8]> = rows.iter().map(|row| mask.row(*row as usize)).collect();
    let (mut place, mut start, mut last) = (0, 0, Mask::NONE);
    let mut end = |index: u8, from: u64, to: u64| {
        if let Some(segment) = segment_of[usize::from(index)].filter(|_| to > from) {
            runs[segment].add(from, to);
        }
    };
    for column in columns {
        for line in &lines {
            let index = line.get(*column as usize).copied().unwrap_or(Mask::NONE);
            if index != last {
                end(last, start, place);
                (start, last) = (place, index);
            }
            place += 1;
        }
    }
    end(last, start, place);
    runs.into_iter().map(|runs| runs.text(place)).collect()
}

/// The run lengths of one segment, as they are found.
#[derive(Debug, Clone, Default)]
struct Runs {
    lengths: Vec<i64>,
    /// Where the last one ends.
    end: u64,
}

impl Runs {
    #[expect(clippy::cast_possible_wrap, reason = "pixels of a picture")]
    fn add(&mut self, from: u64, to: u64) {
        self.lengths.extend([(from - self.end) as i64, (to - from) as i64]);
        self.end = to;
    }

    /// As text, for a picture of so many pixels.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "six bits")]
    #[expect(clippy::cast_possible_wrap, reason = "pixels of a picture")]
    fn text(mut self, pixels: u64) -> String {
        if self.end < pixels {
            self.lengths.push((pixels - self.end) as i64);
        }
        let mut text = String::new();
        for (at, length) in self.lengths.iter().enumerate() {
            let mut rest = if at > 2 { length - self.lengths[at - 2] } else { *length };
            loop {
                let bits = rest & 0x1f;
                rest >>= 5;
                // The fifth bit is the sign of what is left.
                let more = if bits & 0x10 == 0 { rest != 0 } else { rest != -1 };
                text.push(char::from((bits | i64::from(more) << 5) as u8 + 48));
                if !more {
                    break;
                }
            }
        }
        text
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;
    use crate::media::Class;

    fn text(lengths: &[i64]) -> String {
        Runs { lengths: lengths.to_vec(), end: 1 }.text(0)
    }

    /// What `pycocotools.mask.frPyObjects({"size": [h, w], "counts": lengths}, h, w)["counts"]` gives.
    #[test]
    fn the_text_is_that_of_pycocotools() {
        assert_eq!(text(&[0, 4]), "04");
        assert_eq!(text(&[6, 1, 40, 4, 5, 4, 5, 4, 21]), "61X13mN000`0");
        assert_eq!(text(&[100, 20, 3, 5]), "T3d03A");
    }

    #[test]
    fn runs_go_down_the_columns_of_each_segment() {
        let class = |index: u8| Some(Class { id: index.into(), name: "x".into() });
        // Two rows of three: 0 0 1 / 1 0 1.
        let mask = Mask::new([3, 2], vec![0, 0, 1, 1, 0, 1], [0.0, 0.0, 3.0, 2.0], [3.0, 2.0], class);
        assert_eq!(mask.segments().iter().map(|one| one.index).collect::<Vec<_>>(), [0, 1]);
        let all = encode(&mask, &[0, 1, 2], &[0, 1]);
        assert_eq!(all, [text(&[0, 1, 1, 2, 2]), text(&[1, 1, 2, 2])]);
        // Each pixel twice across.
        let wide = encode(&mask, &[0, 0, 1, 1, 2, 2], &[0, 1]);
        assert_eq!(wide[0], text(&[0, 1, 1, 1, 1, 4, 4]));
    }
}

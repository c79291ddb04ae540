use super::{Candidate, Filter};

/// Ultralytics' head as exported: `[4 + classes, anchors]`, the rows being centre x, centre y, width and height in
/// input pixels, then one score row a class.
#[derive(Debug, Clone)]
pub(super) struct Yolov8 {
    pub(super) classes: usize,
}

/// Anchors that are looked at together: row by row, since a column's values lie far apart.
const BLOCK: usize = 64;

impl Yolov8 {
    pub(super) fn decode(&self, values: &[f32], filter: &Filter<'_>, found: &mut Vec<Candidate>) {
        let anchors = values.len() / (4 + self.classes);
        let (geometry, scores) = values.split_at(4 * anchors);
        for start in (0..anchors).step_by(BLOCK) {
            let count = BLOCK.min(anchors - start);
            let mut best = [(0, f32::MIN); BLOCK];
            for (class, row) in (0..).zip(scores.chunks_exact(anchors)) {
                for (best, score) in best.iter_mut().zip(&row[start..start + count]) {
                    if *score > best.1 {
                        *best = (class, *score);
                    }
                }
            }
            for (anchor, (class, score)) in (start..start + count).zip(best) {
                if score >= filter.score_threshold {
                    let [x, y, width, height] = [0, 1, 2, 3].map(|row| geometry[row * anchors + anchor]);
                    let (half_width, half_height) = (width / 2.0, height / 2.0);
                    let bbox = [x - half_width, y - half_height, x + half_width, y + half_height];
                    filter.offer(found, bbox, class, score);
                }
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_as_centre_size_and_scores() {
        // Three anchors, two classes.
        let values = [
            [10.0, 50.0, f32::NAN],
            [20.0, 60.0, 1.0],
            [4.0, 8.0, 2.0],
            [6.0, 2.0, 2.0],
            [0.1, 0.2, 0.9],
            [0.8, 0.3, 0.1],
        ];
        let mut found = Vec::new();
        let filter = Filter { score_threshold: 0.3, classes: None };
        Yolov8 { classes: 2 }.decode(values.as_flattened(), &filter, &mut found);
        let first = Candidate { bbox: [8.0, 17.0, 12.0, 23.0], class: 1, score: 0.8, cell: 0 };
        assert_eq!(found, [first, Candidate { bbox: [46.0, 59.0, 54.0, 61.0], class: 1, score: 0.3, cell: 0 }]);
        found.clear();
        Yolov8 { classes: 2 }.decode(values.as_flattened(), &Filter { classes: Some(&[0]), ..filter }, &mut found);
        assert!(found.is_empty());
    }
}

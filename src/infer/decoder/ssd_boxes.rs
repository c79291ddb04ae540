use super::{Candidate, Filter, best};

/// SSD heads with the box decoding in the graph, such as UltraFace: scores `[priors, columns]` and corners
/// `[priors, 4]` as fractions of the input.
#[derive(Debug, Clone)]
pub(super) struct SsdBoxes {
    pub(super) classes: usize,
    pub(super) background: bool,
    pub(super) size: [u32; 2],
}

impl SsdBoxes {
    /// Columns of the scores.
    pub(super) const fn columns(&self) -> usize {
        self.classes + self.background as usize
    }

    #[expect(clippy::cast_precision_loss, reason = "input sides are small")]
    pub(super) fn decode(&self, scores: &[f32], boxes: &[f32], filter: &Filter<'_>, found: &mut Vec<Candidate>) {
        let [width, height] = self.size.map(|side| side as f32);
        let first = usize::from(self.background);
        for (columns, corners) in scores.chunks_exact(self.columns()).zip(boxes.chunks_exact(4)) {
            let (class, score) = best(columns[first..].iter().copied());
            if score >= filter.score_threshold {
                let bbox = [corners[0] * width, corners[1] * height, corners[2] * width, corners[3] * height];
                filter.offer(found, bbox, class, score);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn background_is_no_class_and_corners_are_fractions() {
        let ssd = SsdBoxes { classes: 1, background: true, size: [320, 240] };
        let scores = [0.9, 0.1, 0.2, 0.8, 0.0, f32::NAN];
        let boxes = [0.0, 0.0, 1.0, 1.0, 0.25, 0.5, 0.5, 1.0, 0.0, 0.0, 1.0, 1.0];
        let mut found = Vec::new();
        ssd.decode(&scores, &boxes, &Filter { score_threshold: 0.5, classes: None }, &mut found);
        assert_eq!(found, [Candidate { bbox: [80.0, 120.0, 160.0, 240.0], class: 0, score: 0.8, cell: 0 }]);
    }
}

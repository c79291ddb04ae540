use super::exp::exp;
use super::{Candidate, Filter, best, grid};

/// YOLOX without decoding in the graph (Ge et al., 2021, section 2.1): `[anchors, 5 + classes]` with offsets from the
/// grid cell and log sizes, both in strides, then objectness and class scores, already through the sigmoid.
#[derive(Debug, Clone)]
pub(super) struct Yolox {
    pub(super) classes: usize,
    pub(super) levels: Vec<Level>,
}

/// The grid of one stride.
#[derive(Debug, Clone, Copy)]
pub(super) struct Level {
    pub(super) stride: f32,
    pub(super) columns: usize,
    pub(super) rows: usize,
}

impl Yolox {
    #[expect(clippy::cast_precision_loss, reason = "strides are small")]
    pub(super) fn new(classes: usize, size: [u32; 2], strides: &[u32]) -> Self {
        let level = |stride: &u32| {
            let (columns, rows) = grid(size, *stride);
            Level { stride: *stride as f32, columns, rows }
        };
        Self { classes, levels: strides.iter().map(level).collect() }
    }

    /// Anchors of all levels.
    pub(super) fn anchors(&self) -> usize {
        self.levels.iter().map(|level| level.columns * level.rows).sum()
    }

    #[expect(clippy::cast_precision_loss, reason = "grids are small")]
    pub(super) fn decode(&self, values: &[f32], filter: &Filter<'_>, found: &mut Vec<Candidate>) {
        let mut anchors = values.chunks_exact(5 + self.classes);
        for Level { stride, columns, rows } in &self.levels {
            for (cell, anchor) in (0..columns * rows).zip(&mut anchors) {
                // Class scores are 1 at most, so that most anchors need no look at their classes.
                if anchor[4].is_nan() || anchor[4] < filter.score_threshold {
                    continue;
                }
                let (class, score) = best(anchor[5..].iter().copied());
                let (column, row) = ((cell % columns) as f32, (cell / columns) as f32);
                let (x, y) = ((anchor[0] + column) * stride, (anchor[1] + row) * stride);
                let (half_width, half_height) = (exp(anchor[2]) * stride / 2.0, exp(anchor[3]) * stride / 2.0);
                let bbox = [x - half_width, y - half_height, x + half_width, y + half_height];
                filter.offer(found, bbox, class, score * anchor[4]);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn offsets_count_from_the_cell_of_their_level() {
        let yolox = Yolox::new(2, [32, 16], &[8, 16]);
        assert_eq!(yolox.anchors(), 4 * 2 + 2);
        let mut values = vec![[0.0f32; 7]; 10];
        values[5] = [0.5, 0.25, 0.0, 2f32.ln(), 0.8, 0.1, 0.5]; // column 1, row 1 of stride 8
        values[9] = [0.0, 0.0, 0.0, 0.0, 1.0, 0.9, 0.5]; // column 1, row 0 of stride 16
        values[2] = [f32::INFINITY, 0.0, 1e30, 0.0, 1.0, f32::NAN, 1.0];
        let mut found = Vec::new();
        yolox.decode(values.as_flattened(), &Filter { score_threshold: 0.4, classes: None }, &mut found);
        let small = Candidate { bbox: [8.0, 2.0, 16.0, 18.0], class: 1, score: 0.4, cell: 0 };
        let large = Candidate { bbox: [8.0, -8.0, 24.0, 8.0], class: 0, score: 0.9, cell: 0 };
        assert_eq!(found, [small, large]);
    }
}

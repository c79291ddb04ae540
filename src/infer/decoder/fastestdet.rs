use super::{Candidate, Filter, best};

/// FastestDet (Ma, 2022): `[5 + classes, rows, columns]`, for each cell of one grid objectness, the centre's offsets before
/// tanh, width and height before the logistic function, and class scores. The score is
/// `objectness^0.6 · class score^0.4`.
#[derive(Debug, Clone)]
pub(super) struct FastestDet {
    pub(super) classes: usize,
    pub(super) size: [u32; 2],
}

impl FastestDet {
    /// `grid` is columns and rows.
    #[expect(clippy::cast_precision_loss, reason = "grids and inputs are small")]
    pub(super) fn decode(&self, values: &[f32], grid: [usize; 2], filter: &Filter<'_>, found: &mut Vec<Candidate>) {
        let [columns, rows] = grid;
        let cells = columns * rows;
        if cells == 0 {
            return;
        }
        let (steps, size) = ([columns as f32, rows as f32], self.size.map(|side| side as f32));
        let at = |channel: usize, cell: usize| values.get(channel * cells + cell).copied().unwrap_or(f32::NAN);
        for cell in 0..cells {
            let object = at(0, cell).clamp(0.0, 1.0).powf(0.6);
            // No class score is above 1.
            if object.is_nan() || object < filter.score_threshold {
                continue;
            }
            let (class, score) = best((0..self.classes).map(|class| at(5 + class, cell)));
            let score = object * score.clamp(0.0, 1.0).powf(0.4);
            if score < filter.score_threshold {
                continue;
            }
            let place = [(cell % columns) as f32, (cell / columns) as f32];
            let centre: [f32; 2] =
                std::array::from_fn(|axis| (at(1 + axis, cell).tanh() + place[axis]) / steps[axis] * size[axis]);
            let half: [f32; 2] = std::array::from_fn(|axis| size[axis] / (1.0 + (-at(3 + axis, cell)).exp()) / 2.0);
            let bbox = [centre[0] - half[0], centre[1] - half[1], centre[0] + half[0], centre[1] + half[1]];
            filter.offer(found, bbox, class, score);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn offsets_count_from_the_cell_and_sizes_are_shares_of_the_input() {
        let fastestdet = FastestDet { classes: 2, size: [64, 32] };
        // Two rows of four cells, seven channels.
        let mut values = [[0.0f32; 8]; 7];
        // Column 2, row 1: the centre lies half a cell right of its left and on its upper edge.
        (values[0][6], values[1][6], values[2][6]) = (0.5, 0.5f32.atanh(), 0.0);
        (values[3][6], values[4][6], values[5][6], values[6][6]) = (0.0, -f32::INFINITY, 0.1, 0.9);
        // A quarter of the height.
        values[4][6] = -(3f32.ln());
        (values[0][0], values[5][0]) = (f32::NAN, 1.0);
        (values[0][1], values[5][1], values[1][1]) = (1.0, 1.0, f32::NAN);
        let mut found = Vec::new();
        let filter = Filter { score_threshold: 0.3, classes: None };
        fastestdet.decode(values.as_flattened(), [4, 2], &filter, &mut found);
        assert_eq!((found.len(), found[0].class), (1, 1));
        let expected = [40.0 - 16.0, 16.0 - 4.0, 40.0 + 16.0, 16.0 + 4.0];
        assert!(found[0].bbox.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-4), "{:?}", found[0]);
        assert!((found[0].score - 0.5f32.powf(0.6) * 0.9f32.powf(0.4)).abs() < 1e-6);
        fastestdet.decode(&[], [4, 2], &filter, &mut found);
        assert_eq!(found.len(), 1, "too few values are no boxes");
    }
}

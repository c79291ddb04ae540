use super::exp::exp;
use super::{Candidate, Expected, Filter, Side, grid};

/// YuNet (Wu et al., 2023): for each stride S the outputs `cls_S` and `obj_S` `[cells, 1]` and `bbox_S` `[cells, 4]`,
/// the boxes as offsets and log sizes in strides. The score is the geometric mean of class score and objectness.
/// The landmarks `kps_S` are not read.
#[derive(Debug, Clone)]
pub(super) struct Yunet {
    pub(super) strides: Vec<u32>,
    pub(super) size: [u32; 2],
}

impl Yunet {
    /// `cls`, `obj` and `bbox` of the first stride, then of the next.
    pub(super) fn outputs(&self) -> Vec<Expected> {
        let of_stride = |stride: &u32| {
            let (columns, rows) = grid(self.size, *stride);
            [("cls", 1), ("obj", 1), ("bbox", 4)].map(|(name, values)| Expected {
                name: format!("{name}_{stride}"),
                sides: vec![Side::Exactly(columns * rows), Side::Exactly(values)],
            })
        };
        self.strides.iter().flat_map(of_stride).collect()
    }

    #[expect(clippy::cast_precision_loss, reason = "grids are small")]
    pub(super) fn decode(&self, items: &[&[f32]], filter: &Filter<'_>, found: &mut Vec<Candidate>) {
        for (stride, level) in self.strides.iter().zip(items.chunks_exact(3)) {
            let (columns, _) = grid(self.size, *stride);
            let stride = *stride as f32;
            for (cell, ((class, object), bbox)) in
                level[0].iter().zip(level[1]).zip(level[2].chunks_exact(4)).enumerate()
            {
                let score = (class.clamp(0.0, 1.0) * object.clamp(0.0, 1.0)).sqrt();
                if score.is_nan() || score < filter.score_threshold {
                    continue;
                }
                let (column, row) = ((cell % columns) as f32, (cell / columns) as f32);
                let (x, y) = ((column + bbox[0]) * stride, (row + bbox[1]) * stride);
                let (half_width, half_height) = (exp(bbox[2]) * stride / 2.0, exp(bbox[3]) * stride / 2.0);
                let corners = [x - half_width, y - half_height, x + half_width, y + half_height];
                filter.offer(found, corners, 0, score);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_score_is_the_geometric_mean_and_boxes_count_from_their_cell() {
        let yunet = Yunet { strides: vec![8, 16], size: [32, 16] };
        let names = yunet.outputs().into_iter().map(|output| output.name).collect::<Vec<_>>();
        assert_eq!(names, ["cls_8", "obj_8", "bbox_8", "cls_16", "obj_16", "bbox_16"]);
        let (mut cls, mut obj, mut bbox) = ([0.0; 8], [0.0; 8], [[0.0f32; 4]; 8]);
        (cls[6], obj[6], bbox[6]) = (0.9, 0.4, [0.5, 0.5, 0.0, 2f32.ln()]); // column 2, row 1
        (cls[0], obj[0]) = (f32::NAN, 1.0);
        (cls[1], obj[1], bbox[1]) = (1.0, 1.0, [0.0, 0.0, 1e9, 0.0]);
        let (none, no_box) = ([0.0; 2], [0.0; 8]);
        let items: [&[f32]; 6] = [&cls, &obj, bbox.as_flattened(), &none, &none, &no_box];
        let mut found = Vec::new();
        yunet.decode(&items, &Filter { score_threshold: 0.5, classes: None }, &mut found);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].bbox, [16.0, 4.0, 24.0, 20.0]);
        assert!((found[0].score - 0.6).abs() < 1e-6);
    }
}

use super::exp::exp;
use super::{Candidate, Expected, Filter, Side, grid};

/// YuNet (Wu et al., 2023): for each stride S the outputs `cls_S` and `obj_S` `[cells, 1]` and `bbox_S` `[cells, 4]`,
/// the boxes as offsets and log sizes in strides. The score is the geometric mean of class score and objectness.
/// The landmarks `kps_S` `[cells, 10]`, points as offsets in strides, are read if they are wanted.
#[derive(Debug, Clone)]
pub(super) struct Yunet {
    pub(super) strides: Vec<u32>,
    pub(super) size: [u32; 2],
    pub(super) keypoints: bool,
}

/// Points of a face: both eyes, the nose, both corners of the mouth.
const POINTS: usize = 5;

impl Yunet {
    /// `cls`, `obj`, `bbox` and, if they are wanted, `kps` of the first stride, then of the next.
    pub(super) fn outputs(&self) -> Vec<Expected> {
        let of_stride = |stride: &u32| {
            let (columns, rows) = grid(self.size, *stride);
            let outputs = [("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 2 * POINTS)].map(|(name, values)| Expected {
                name: format!("{name}_{stride}"),
                sides: vec![Side::Exactly(columns * rows), Side::Exactly(values)],
            });
            outputs.into_iter().take(self.of_a_stride())
        };
        self.strides.iter().flat_map(of_stride).collect()
    }

    /// Outputs of each stride.
    fn of_a_stride(&self) -> usize {
        3 + usize::from(self.keypoints)
    }

    #[expect(clippy::cast_precision_loss, reason = "grids are small")]
    pub(super) fn decode(&self, items: &[&[f32]], filter: &Filter<'_>, found: &mut Vec<Candidate>) {
        let mut first = 0;
        for (stride, level) in self.strides.iter().zip(items.chunks_exact(self.of_a_stride())) {
            let (columns, rows) = grid(self.size, *stride);
            let before = first;
            first += columns * rows;
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
                filter.offer_cell(found, corners, 0, score, u32::try_from(before + cell).unwrap_or(u32::MAX));
            }
        }
    }

    /// The points of the face that was read from cell `cell` of all, in input pixels; none if they are not wanted, or not
    /// all are places.
    #[expect(clippy::cast_precision_loss, reason = "grids are small")]
    pub(super) fn keypoints(&self, items: &[&[f32]], cell: u32) -> Vec<[f32; 2]> {
        let mut cell = cell as usize;
        for (stride, level) in self.strides.iter().zip(items.chunks_exact(self.of_a_stride())) {
            let (columns, rows) = grid(self.size, *stride);
            if cell >= columns * rows {
                cell -= columns * rows;
                continue;
            }
            let points = level.get(3).and_then(|points| points.get(2 * POINTS * cell..)?.get(..2 * POINTS));
            let (points, _) = points.unwrap_or_default().as_chunks::<2>();
            let (column, row, stride) = ((cell % columns) as f32, (cell / columns) as f32, *stride as f32);
            let place = |[x, y]: &[f32; 2]| [(x + column) * stride, (y + row) * stride];
            let points: Vec<_> = points.iter().map(place).collect();
            let sound = points.iter().flatten().all(|side| side.is_finite());
            return if sound { points } else { Vec::new() };
        }
        Vec::new()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_score_is_the_geometric_mean_and_boxes_count_from_their_cell() {
        let yunet = Yunet { strides: vec![8, 16], size: [32, 16], keypoints: false };
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

    #[test]
    fn points_count_from_the_cell_of_their_face() {
        let yunet = Yunet { strides: vec![8, 16], size: [32, 16], keypoints: true };
        assert_eq!(yunet.outputs().len(), 8);
        let (cls, obj, mut bbox) = ([0.0; 8], [0.0; 8], [[0.0f32; 4]; 8]);
        bbox[0] = [0.5, 0.5, 0.0, 0.0];
        let (none, face) = ([[0.0f32; 10]; 8], [1.0, 0.9]);
        let mut points = [[0.0f32; 10]; 2];
        points[0] = [0.0, 0.0, 0.5, 0.0, 0.25, 0.25, 0.0, 0.5, 0.5, 0.5];
        points[1] = [f32::NAN; 10];
        let boxes = [[0.5f32, 0.5, 0.0, 0.0]; 2];
        let items: [&[f32]; 8] = [
            &cls,
            &obj,
            bbox.as_flattened(),
            none.as_flattened(),
            &face,
            &face,
            boxes.as_flattened(),
            points.as_flattened(),
        ];
        let mut found = Vec::new();
        yunet.decode(&items, &Filter { score_threshold: 0.5, classes: None }, &mut found);
        assert_eq!(found.iter().map(|one| one.cell).collect::<Vec<_>>(), [8, 9]);
        let expected = [[0.0, 0.0], [8.0, 0.0], [4.0, 4.0], [0.0, 8.0], [8.0, 8.0]];
        assert_eq!(yunet.keypoints(&items, 8), expected);
        assert_eq!(yunet.keypoints(&items, 9), [[0.0; 2]; 0], "no places");
        assert_eq!(yunet.keypoints(&items, 99), [[0.0; 2]; 0]);
    }
}

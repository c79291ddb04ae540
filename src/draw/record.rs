//! Painting later, or elsewhere.

use std::ops::Range;

use super::{Atlas, Canvas, Ink, Mask, Point, Raster, clip};

/// What is to be painted on a picture, in that order. Painting it gives the samples that the same shapes give on an
/// [`I420`](crate::media::I420).
///
/// It keeps its memory from picture to picture. What a picture has more than it holds is left out and counted: boxes,
/// labels and names are far fewer, whatever a session asks for, and only hundreds of lines across a large picture are more.
#[derive(Debug, Default)]
pub struct Recording {
    width: u16,
    height: u16,
    operations: Vec<Operation>,
    rows: Vec<u32>,
    runs: Vec<Run>,
    refused: u64,
}

/// Something to paint with one colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operation {
    /// The colour, and the opacity where everything is covered.
    pub ink: Ink,
    /// What is not free of it, inside the picture: left, top, right and bottom, the latter two beyond it.
    pub bounds: [u16; 4],
    /// How much of that it covers.
    pub shape: Shape,
}

/// What an [`Operation`] covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// All of its bounds, which are luma samples. A chroma sample has the opacity `ink · covered / all`, rounded down,
    /// `all` being the luma samples beside it.
    Rect,
    /// Its bounds, which are luma samples, as far as a mask says. A luma sample has the opacity `ink · mask / 255`, a
    /// chroma sample `ink · sum / (255 · all)`, both rounded down, with the sum of the masks of `all` luma samples beside it.
    Mask {
        /// The byte of the atlas for the first sample.
        start: u32,
        /// Bytes from a row of the mask to the next.
        stride: u16,
    },
    /// Luma samples as runs say, and no chroma.
    Luma {
        /// For [`Recording::row`].
        rows: u32,
    },
    /// Chroma samples as runs say, and no luma. The bounds are chroma samples, too.
    Chroma {
        /// For [`Recording::row`].
        rows: u32,
    },
}

/// Samples of a row that have one opacity. They begin where the run before ends, or on the left edge of the picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Beyond the last sample.
    pub end: u16,
    /// 0 (unseen) to 256 (hides everything).
    pub opacity: u16,
}

impl Recording {
    /// Operations of a picture at most.
    pub const MAX_OPERATIONS: usize = 1 << 19;
    /// Runs of a picture at most, and rows of them.
    pub const MAX_RUNS: usize = 1 << 21;

    /// Forgets everything and begins a picture of this size.
    ///
    /// # Panics
    /// If a side is longer than 65,535.
    pub fn begin(&mut self, width: u32, height: u32) {
        assert!(width.max(height) <= u16::MAX.into(), "{width}x{height} samples are more than a recording takes");
        (self.width, self.height) = (narrow(width as usize), narrow(height as usize));
        self.operations.clear();
        self.rows.clear();
        self.runs.clear();
    }

    /// What is to be painted.
    #[must_use]
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// The runs of a row of luma or chroma: `rows` is the operation's, `row` counts from its upper bound.
    ///
    /// # Panics
    /// If the operation has no such row.
    #[must_use]
    pub fn row(&self, rows: u32, row: u16) -> &[Run] {
        let at = rows as usize + usize::from(row);
        &self.runs[self.rows[at] as usize..self.rows[at + 1] as usize]
    }

    /// Shapes left out since it was made, because their picture had more than it holds.
    #[must_use]
    pub const fn refused(&self) -> u64 {
        self.refused
    }

    fn record(&mut self, operation: Operation) -> bool {
        let room = self.operations.len() < Self::MAX_OPERATIONS;
        if room {
            self.operations.push(operation);
        } else {
            self.refused += 1;
        }
        room
    }

    /// Records what a polygon covers of luma (`scale` 1) or chroma (`scale` 0.5). `false`: there is no room for it.
    fn cover(&mut self, polygon: &[Point], scale: f32, raster: &mut Raster, ink: Ink) -> bool {
        let is_luma = scale == 1.0;
        let size = [self.width, self.height].map(|side| if is_luma { side } else { side.div_ceil(2) });
        let first = self.rows.len();
        let (mut lines, mut left, mut right): (Option<Range<usize>>, _, _) = (None, u16::MAX, 0);
        let mut full = false;
        raster.cover(polygon, scale, (size[0].into(), size[1].into()), |x, y, coverage| {
            let start = self.runs.len();
            full |= start + coverage.len() > Self::MAX_RUNS || self.rows.len() > Self::MAX_RUNS;
            if full {
                return;
            }
            push_runs(&mut self.runs, x, coverage, ink);
            let Some(last) = self.runs.get(start..).and_then(<[Run]>::last) else { return };
            let lead = self.runs[start];
            (left, right) = (left.min(if lead.opacity == 0 { lead.end } else { 0 }), right.max(last.end));
            // Rows between the one before and this one are free.
            let lines = lines.get_or_insert(y..y);
            self.rows.resize(first + y - lines.start + 1, index(start));
            lines.end = y + 1;
        });
        let Some(lines) = lines.filter(|_| !full) else {
            self.rows.truncate(first);
            return !full;
        };
        self.rows.push(index(self.runs.len()));
        let [top, bottom] = [lines.start, lines.end].map(narrow);
        let rows = index(first);
        let shape = if is_luma { Shape::Luma { rows } } else { Shape::Chroma { rows } };
        self.operations.push(Operation { ink, bounds: [left, top, right, bottom], shape });
        self.operations.len() <= Self::MAX_OPERATIONS
    }
}

impl Canvas for Recording {
    fn size(&self) -> [u32; 2] {
        [self.width.into(), self.height.into()]
    }

    fn rect(&mut self, [x0, y0, x1, y1]: [i32; 4], ink: Ink) {
        let ((x0, x1), (y0, y1)) = (clip(x0, x1, self.width.into()), clip(y0, y1, self.height.into()));
        if x0 < x1 && y0 < y1 && ink.opacity > 0 {
            self.record(Operation { ink, bounds: [x0, y0, x1, y1].map(narrow), shape: Shape::Rect });
        }
    }

    fn stamp(&mut self, (x, y): (i32, i32), mask: Mask, _: &Atlas, ink: Ink) {
        let [stride, rows] = mask.size();
        let ends = (x.saturating_add(stride.into()), y.saturating_add(rows.into()));
        let ((x0, x1), (y0, y1)) = (clip(x, ends.0, self.width.into()), clip(y, ends.1, self.height.into()));
        if x0 < x1 && y0 < y1 && ink.opacity > 0 {
            // Less than the mask has, or nothing of it would be inside.
            let (left, top) = (x.min(0).unsigned_abs(), y.min(0).unsigned_abs());
            let shape = Shape::Mask { start: mask.start() + top * u32::from(stride) + left, stride };
            self.record(Operation { ink, bounds: [x0, y0, x1, y1].map(narrow), shape });
        }
    }

    fn fill(&mut self, polygon: &[Point], raster: &mut Raster, ink: Ink) {
        let before = (self.operations.len(), self.rows.len(), self.runs.len());
        if !(self.cover(polygon, 1.0, raster, ink) && self.cover(polygon, 0.5, raster, ink)) {
            self.operations.truncate(before.0);
            self.rows.truncate(before.1);
            self.runs.truncate(before.2);
            self.refused += 1;
        }
    }
}

/// Runs of a row of coverage that begins at sample `x`; none if nothing of it shows.
fn push_runs(runs: &mut Vec<Run>, x: usize, coverage: &[f32], ink: Ink) {
    let (mut last, mut opacity) = (0.0, 0);
    for (column, &share) in (x..).zip(coverage) {
        // Most samples are like the one before, without a rounding.
        if share == last {
            continue;
        }
        let next = ink.covering(share);
        if next != opacity && column > 0 {
            runs.push(Run { end: narrow(column), opacity });
        }
        (last, opacity) = (share, next);
    }
    if opacity > 0 {
        runs.push(Run { end: narrow(x + coverage.len()), opacity });
    }
}

/// A place inside a picture whose sides are 16 bits.
fn narrow(place: usize) -> u16 {
    u16::try_from(place).unwrap_or(u16::MAX)
}

/// A place among runs or rows, of which there are at most [`Recording::MAX_RUNS`].
fn index(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;
    use crate::draw::Brush;
    use crate::media::ColorInfo;

    fn ink() -> Ink {
        Ink::new(ColorInfo::default(), [255; 3])
    }

    fn begun(width: u32, height: u32) -> Recording {
        let mut recording = Recording::default();
        recording.begin(width, height);
        recording
    }

    #[test]
    fn operations_lie_in_the_picture() {
        let (mut recording, mut atlas) = (begun(9, 7), Atlas::default());
        atlas.add([3, 1], |_| ());
        let mask = atlas.add([6, 5], |_| ());
        recording.rect([-3, 2, 4, 20], ink());
        recording.stamp((-2, -1), mask, &atlas, ink());
        recording.stamp((5, 4), mask, &atlas, ink());
        let found: Vec<_> =
            recording.operations().iter().map(|operation| (operation.bounds, operation.shape)).collect();
        let part = |start: u32| Shape::Mask { start, stride: 6 };
        assert_eq!(found, [([0, 2, 4, 7], Shape::Rect), ([0, 0, 4, 4], part(3 + 6 + 2)), ([5, 4, 9, 7], part(3))]);
    }

    #[test]
    fn polygons_become_runs_of_luma_and_of_chroma() {
        let (mut recording, mut brush) = (begun(12, 8), Brush::default());
        recording.fill(&[[2.5, 1.0], [8.0, 1.0], [8.0, 3.0], [2.5, 3.0]], &mut brush.raster, ink());
        let [luma, chroma] = recording.operations() else { panic!("{:?}", recording.operations()) };
        assert_eq!((luma.bounds, chroma.bounds), ([2, 1, 8, 3], [1, 0, 4, 2]));
        let run = |end, opacity| Run { end, opacity };
        let Shape::Luma { rows } = luma.shape else { panic!("{luma:?}") };
        for row in 0..2 {
            assert_eq!(recording.row(rows, row), [run(2, 0), run(3, 128), run(8, 256)]);
        }
        let Shape::Chroma { rows } = chroma.shape else { panic!("{chroma:?}") };
        for row in 0..2 {
            assert_eq!(recording.row(rows, row), [run(1, 0), run(2, 96), run(4, 128)]);
        }
        recording.begin(12, 8);
        assert_eq!(recording.operations(), []);
    }

    #[test]
    fn rows_between_two_parts_of_a_polygon_are_free() {
        let (mut recording, mut brush) = (begun(8, 40), Brush::default());
        // A bow whose waist is so thin that nothing of it shows.
        let bow = [[0.0, 0.0], [8.0, 0.0], [4.0, 4.0], [4.0, 30.0], [8.0, 40.0], [0.0, 40.0], [4.0, 30.0], [4.0, 4.0]];
        recording.fill(&bow, &mut brush.raster, ink());
        let luma = recording.operations()[0];
        let Shape::Luma { rows } = luma.shape else { panic!("{luma:?}") };
        assert_eq!(luma.bounds, [0, 0, 8, 40]);
        assert!((5..29).all(|row| recording.row(rows, row).is_empty()));
        assert_eq!(recording.row(rows, 39).last().map(|run| run.end), Some(8));
    }

    #[test]
    fn what_a_picture_has_beyond_the_bounds_is_counted() {
        let (mut recording, mut brush) = (begun(1000, 1000), Brush::default());
        let zigzag = (0..400).map(|corner| [2.5 * corner as f32, if corner % 2 == 0 { 0.0 } else { 1000.0 }]);
        let zigzag: Vec<_> = zigzag.collect();
        let mut fits = 0;
        while recording.refused() == 0 {
            fits = recording.operations().len();
            recording.fill(&zigzag, &mut brush.raster, ink());
        }
        // The one that was refused left nothing, and smaller things have room.
        assert!(fits > 0 && fits.is_multiple_of(2) && recording.operations().len() == fits, "{fits}");
        assert!(recording.runs.len() <= Recording::MAX_RUNS && recording.rows.len() <= Recording::MAX_RUNS);
        recording.rect([0, 0, 1, 1], ink());
        assert_eq!((recording.operations().len(), recording.refused()), (fits + 1, 1));

        recording.begin(1000, 1000);
        (0..Recording::MAX_OPERATIONS + 10).for_each(|_| recording.rect([0, 0, 1, 1], ink()));
        recording.fill(&[[0.0, 0.0], [9.0, 0.0], [0.0, 9.0]], &mut brush.raster, ink());
        assert_eq!((recording.operations().len(), recording.refused()), (Recording::MAX_OPERATIONS, 12));
        assert_eq!((recording.runs.len(), recording.rows.len()), (0, 0));
    }
}

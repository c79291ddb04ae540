use super::Point;

/// Coordinates beyond this lie far outside of every picture.
const FAR: f32 = 65_536.0;

/// Finds how much of each sample a polygon covers. It keeps its scratch memory between polygons.
///
/// Each edge adds to its row's cells the area to its right, signed by direction; their running sum is the coverage
/// (the accumulation buffer of font rasterisers).
#[derive(Debug, Default)]
pub struct Raster {
    /// Always zero between calls.
    cells: Vec<f32>,
    /// First and last cell touched in each row.
    touched: Vec<(usize, usize)>,
    stride: usize,
    width: f32,
    origin: Point,
}

impl Raster {
    /// Calls `row(x, y, coverage)` for each row that the polygon, its coordinates multiplied by `scale`, covers within
    /// a plane of `(width, height)` samples: `coverage` (0..1) begins at sample `x` of row `y`.
    pub fn cover(
        &mut self,
        polygon: &[Point],
        scale: f32,
        (width, height): (usize, usize),
        mut row: impl FnMut(usize, usize, &[f32]),
    ) {
        let Some((x, y)) = self.begin(polygon, scale, (width, height)) else { return };
        let at = |[x, y]: Point| [(x * scale).clamp(-FAR, FAR), (y * scale).clamp(-FAR, FAR)];
        let mut last = polygon[polygon.len() - 1];
        for &point in polygon {
            self.edge(at(last), at(point));
            last = point;
        }
        let columns = self.stride - 2;
        for (line, &(first, end)) in self.touched.iter().enumerate() {
            if first > end {
                continue;
            }
            let cells = &mut self.cells[line * self.stride..][..self.stride];
            let mut sum = 0.0;
            for cell in &mut cells[first..=end] {
                sum += *cell;
                *cell = sum.abs().min(1.0);
            }
            if first < columns {
                row(x + first, y + line, &cells[first..columns.min(end + 1)]);
            }
            cells[first..=end].fill(0.0);
        }
    }

    /// Sizes the scratch memory for the part of the polygon's bounds inside the plane; its top left sample.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clipped to the plane first")]
    fn begin(&mut self, polygon: &[Point], scale: f32, (width, height): (usize, usize)) -> Option<(usize, usize)> {
        if polygon.len() < 3 || polygon.iter().flatten().any(|value| !value.is_finite()) {
            return None;
        }
        let bounds = |axis: usize, size: usize| {
            let low = polygon.iter().map(|p| p[axis] * scale).fold(f32::INFINITY, f32::min).floor();
            let high = polygon.iter().map(|p| p[axis] * scale).fold(f32::NEG_INFINITY, f32::max).ceil();
            let clip = |value: f32| value.clamp(0.0, size as f32) as usize;
            (clip(low), clip(high))
        };
        let ((x0, x1), (y0, y1)) = (bounds(0, width), bounds(1, height));
        if x0 >= x1 || y0 >= y1 {
            return None;
        }
        self.stride = x1 - x0 + 2;
        self.width = (x1 - x0) as f32;
        self.origin = [x0 as f32, y0 as f32];
        if self.cells.len() < self.stride * (y1 - y0) {
            self.cells.resize(self.stride * (y1 - y0), 0.0);
        }
        self.touched.clear();
        self.touched.resize(y1 - y0, (usize::MAX, 0));
        Some((x0, y0))
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clipped to the rows first")]
    fn edge(&mut self, from: Point, to: Point) {
        let [ox, oy] = self.origin;
        let (from, to) = ([from[0] - ox, from[1] - oy], [to[0] - ox, to[1] - oy]);
        let (sign, [x0, y0], [x1, y1]) = if from[1] < to[1] { (1.0, from, to) } else { (-1.0, to, from) };
        let rows = self.touched.len();
        let (top, bottom) = (y0.max(0.0), y1.min(rows as f32));
        if top >= bottom {
            return;
        }
        let slope = (x1 - x0) / (y1 - y0);
        let mut x = x0 + (top - y0) * slope;
        for row in top as usize..(bottom.ceil() as usize).min(rows) {
            let tall = bottom.min((row + 1) as f32) - top.max(row as f32);
            let next = x + slope * tall;
            self.slice(row, x.min(next), x.max(next), sign * tall);
            x = next;
        }
    }

    /// Adds one edge's part in one row: between columns `low` and `high`, with the signed height `tall`.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clipped to the columns first")]
    fn slice(&mut self, row: usize, mut low: f32, mut high: f32, mut tall: f32) {
        let cells = &mut self.cells[row * self.stride..][..self.stride];
        let (first, last) = &mut self.touched[row];
        // Right of the plane nothing is covered, left of it everything to the right is.
        if high > self.width {
            *last = self.stride - 2;
            if low >= self.width {
                return;
            }
            tall *= (self.width - low) / (high - low);
            high = self.width;
        }
        if low < 0.0 {
            let inside = if high <= 0.0 { 0.0 } else { high / (high - low) };
            cells[0] += tall * (1.0 - inside);
            *first = 0;
            tall *= inside;
            (low, high) = (0.0, high.max(0.0));
        }
        if tall == 0.0 {
            return;
        }
        let (begin, end) = (low as usize, (high.ceil() as usize).max(low as usize + 1));
        (*first, *last) = ((*first).min(begin), (*last).max(end));
        if end == begin + 1 {
            let right = (low + high) / 2.0 - begin as f32;
            cells[begin] += tall * (1.0 - right);
            cells[end] += tall * right;
            return;
        }
        // The edge crosses several columns: the area right of it within each of them, as a difference to the one before.
        let slope = tall / (high - low);
        let mut before = 0.0;
        for (column, cell) in cells.iter_mut().enumerate().take(end).skip(begin) {
            let (enter, leave) = (low.max(column as f32), high.min((column + 1) as f32));
            let share = slope * (leave - enter);
            let within = share * ((column + 1) as f32 - (enter + leave) / 2.0);
            *cell += within + before;
            before = share - within;
        }
        cells[end] += before;
    }
}

use super::Class;

/// The class of each pixel of a frame, in the resolution in which a model tells them.
#[derive(Debug, Clone, PartialEq)]
pub struct Mask {
    size: [u32; 2],
    /// Row by row, an index each, or [`Mask::NONE`].
    map: Vec<u8>,
    corners: [f32; 4],
    /// Width and height of the source frame.
    frame: [f32; 2],
    segments: Vec<Segment>,
}

/// All pixels of one class.
#[derive(Debug, Clone, PartialEq)]
pub struct Segment {
    /// What its pixels have in the mask.
    pub index: u8,
    /// What it is.
    pub class: Class,
    /// Share of the mask's pixels that are of it, 0..1.
    pub area_ratio: f32,
    /// Corners `[x1, y1, x2, y2]` around all of it, in pixels of the upright source frame, inside it.
    pub bbox: [f32; 4],
}

impl Mask {
    /// What pixels have that are of no class. Classes have smaller numbers.
    pub const NONE: u8 = u8::MAX;

    /// A mask of `size` (width, height), its map row by row, that covers `corners` `[x1, y1, x2, y2]` of a source frame of
    /// `frame` (width, height). Its segments are the classes in it, the largest first, each named by `class`; what that
    /// names nothing for is of no class.
    ///
    /// # Panics
    /// If the map has not as many pixels as its size.
    #[must_use]
    pub fn new(
        size: [u32; 2],
        mut map: Vec<u8>,
        corners: [f32; 4],
        frame: [f32; 2],
        class: impl Fn(u8) -> Option<Class>,
    ) -> Self {
        let [width, height] = size.map(|side| side as usize);
        assert_eq!(map.len(), width * height, "a map has the size of its mask");
        let mut bounds = [Bounds::NONE; Self::NONE as usize + 1];
        for (y, row) in map.chunks_exact(width.max(1)).enumerate() {
            let mut x = 0;
            for run in row.chunk_by(|a, b| a == b) {
                bounds[usize::from(run[0])].add(x, y, run.len());
                x += run.len();
            }
        }
        let whole = (width * height).max(1) as f32;
        let mut segments = Vec::new();
        let mut is_free = [false; Self::NONE as usize + 1];
        for (index, bounds) in (0..Self::NONE).zip(&bounds).filter(|(_, bounds)| bounds.count > 0) {
            let Some(class) = class(index) else {
                is_free[usize::from(index)] = true;
                continue;
            };
            let mask = Self { size, map: Vec::new(), corners, frame, segments: Vec::new() };
            let ([left, top], [right, bottom]) = (mask.to_source(bounds.from), mask.to_source(bounds.to));
            let bbox = [
                left.clamp(0.0, frame[0]),
                top.clamp(0.0, frame[1]),
                right.clamp(0.0, frame[0]),
                bottom.clamp(0.0, frame[1]),
            ];
            segments.push(Segment { index, class, area_ratio: bounds.count as f32 / whole, bbox });
        }
        if is_free.contains(&true) {
            map.iter_mut().filter(|index| is_free[usize::from(**index)]).for_each(|index| *index = Self::NONE);
        }
        segments.sort_by(|a, b| b.area_ratio.total_cmp(&a.area_ratio).then(a.index.cmp(&b.index)));
        Self { size, map, corners, frame, segments }
    }

    /// Leaves the `most` largest segments.
    pub fn truncate(&mut self, most: usize) {
        self.segments.truncate(most);
    }

    /// Width and height.
    #[must_use]
    pub const fn size(&self) -> [u32; 2] {
        self.size
    }

    /// Where its corners lie in the source frame, in pixels: `[x1, y1, x2, y2]`. They may lie outside by less than a pixel of
    /// the mask.
    #[must_use]
    pub const fn corners(&self) -> [f32; 4] {
        self.corners
    }

    /// What is in it, the largest first.
    #[must_use]
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The same, to rename their classes.
    pub fn segments_mut(&mut self) -> &mut [Segment] {
        &mut self.segments
    }

    /// Row `y`: for each pixel the index of its segment, or of none.
    #[must_use]
    pub fn row(&self, y: usize) -> &[u8] {
        let width = self.size[0] as usize;
        self.map.get(y * width..).and_then(|rest| rest.get(..width)).unwrap_or_default()
    }

    /// A point of the mask, in pixels of the source frame. Its pixel `(i, j)` covers `i..i+1`, `j..j+1`.
    #[must_use]
    pub fn to_source(&self, [x, y]: [u32; 2]) -> [f32; 2] {
        let [x1, y1, x2, y2] = self.corners;
        let [width, height] = self.size.map(|side| side.max(1) as f32);
        [x1 + (x2 - x1) * x as f32 / width, y1 + (y2 - y1) * y as f32 / height]
    }

    /// For each of `count` equal parts of the frame's width (`axis` 0) or height (1) the column or row of the mask in which
    /// its middle lies.
    pub fn places(&self, axis: usize, count: u32) -> impl Iterator<Item = u32> + use<> {
        let (from, to, side) = (self.corners[axis], self.corners[axis + 2], self.size[axis]);
        let scale = side as f32 / (to - from).max(f32::MIN_POSITIVE);
        let step = self.frame[axis] / count.max(1) as f32;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped first")]
        (0..count).map(move |n| {
            let at = ((n as f32 + 0.5) * step - from) * scale;
            at.clamp(0.0, side.saturating_sub(1) as f32) as u32
        })
    }
}

/// The pixels of a class, as they are found.
#[derive(Clone, Copy)]
struct Bounds {
    from: [u32; 2],
    to: [u32; 2],
    count: u32,
}

impl Bounds {
    const NONE: Self = Self { from: [u32::MAX; 2], to: [0; 2], count: 0 };

    #[expect(clippy::cast_possible_truncation, reason = "sides of a mask are 32 bits")]
    fn add(&mut self, x: usize, y: usize, run: usize) {
        let (x, y, run) = (x as u32, y as u32, run as u32);
        self.from = [self.from[0].min(x), self.from[1].min(y)];
        self.to = [self.to[0].max(x + run), self.to[1].max(y + 1)];
        self.count += run;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    fn class(index: u8) -> Option<Class> {
        (index < 3).then(|| Class { id: index.into(), name: format!("c{index}").into() })
    }

    /// Two by four pixels that cover 100 by 40 pixels of a frame.
    fn mask() -> Mask {
        let map = vec![0, 0, 7, 1, 0, 9, 255, 1];
        Mask::new([4, 2], map, [0.0, 0.0, 100.0, 40.0], [100.0, 40.0], class)
    }

    #[test]
    fn segments_are_the_classes_in_it_the_largest_first() {
        let mask = mask();
        let found: Vec<_> = mask.segments().iter().map(|one| (one.index, one.area_ratio, one.bbox)).collect();
        assert_eq!(found, [(0, 0.375, [0.0, 0.0, 50.0, 40.0]), (1, 0.25, [75.0, 0.0, 100.0, 40.0])]);
        assert_eq!(
            (mask.row(0), mask.row(1)),
            (&[0, 0, 255, 1][..], &[0, 255, 255, 1][..]),
            "what has no name is free"
        );
        assert_eq!(mask.row(2), &[0u8; 0]);
    }

    #[test]
    fn boxes_end_with_the_frame_where_the_mask_goes_on() {
        let mask = Mask::new([2, 1], vec![0, 0], [-3.0, 0.0, 105.0, 41.0], [100.0, 40.0], class);
        assert_eq!(mask.segments()[0].bbox, [0.0, 0.0, 100.0, 40.0]);
    }

    #[test]
    fn places_are_those_of_the_middles() {
        let mask = mask();
        assert_eq!(mask.places(0, 10).collect::<Vec<_>>(), [0, 0, 1, 1, 1, 2, 2, 3, 3, 3]);
        assert_eq!(mask.places(1, 3).collect::<Vec<_>>(), [0, 1, 1]);
        let part = Mask::new([2, 1], vec![0, 1], [10.0, 0.0, 20.0, 9.0], [40.0, 9.0], class);
        assert_eq!(part.places(0, 8).collect::<Vec<_>>(), [0, 0, 0, 1, 1, 1, 1, 1], "what lies beside it");
    }

    #[test]
    fn the_smallest_segments_go_first() {
        let mut mask = mask();
        mask.truncate(1);
        assert_eq!(mask.segments().iter().map(|one| one.index).collect::<Vec<_>>(), [0]);
    }
}

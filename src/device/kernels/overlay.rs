//! Painting on pictures that are on the device.
#![expect(unsafe_code, reason = "launches kernels")]

use std::ops::Range;

use crate::draw::{Brush, Canvas, Ink, Operation, Recording, Run, Shape, ring, rounded_rect};
use crate::media::ColorInfo;

use super::private::Sealed;
use super::self_test::noise;
use super::{Entry, Geometry, Kernel, Launch as _, Launcher, Nv12, OVERLAY, Picture, Unfit};
use crate::device::Buffer;

/// Luma samples along a tile's side.
const SIDE: u16 = 32;
/// Words of a tile.
const TILE: usize = 3;
/// Words of an operation.
const OPERATION: usize = 5;

// Shapes, as the kernel calls them.
const RECT: u32 = 0;
const MASK: u32 = 1;
const LUMA: u32 = 2;
const CHROMA: u32 = 3;

/// Kernel: paints a part of a [`Recording`] on a picture. All parts, one after the other, give the samples that the
/// recorded shapes give on an [`I420`](crate::media::I420), bit for bit. It touches no tile that nothing is painted on.
///
/// [`Part::kernel`] makes it.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paint {
    /// What is painted on.
    pub picture: Nv12,
    /// Address of a copy of the [`Atlas`](crate::draw::Atlas) that the recording refers to.
    pub atlas: u64,
    /// Address of three words for each tile that is painted on: its column and, in the upper half, its row; the first of
    /// its operations in the list; the one after its last.
    pub tiles: u64,
    /// Address of the list: for one tile after the other the numbers of its operations, in their order.
    pub lists: u64,
    /// Address of five words an operation: codes of Y, Cb and Cr from the lowest byte on, and its shape; the opacity and, in
    /// the upper half, the bytes of a mask's row; left and right; top and bottom; the mask's first byte, or the word of
    /// `runs` where the rows of a polygon begin.
    pub operations: u64,
    /// Address of a word for each row of a polygon, where its runs begin, of one more, where those of the last row end, and
    /// of the runs: the sample after the last and, in the upper half, the opacity; and so on for each polygon.
    pub runs: u64,
    /// Tiles.
    pub count: u32,
}

impl Sealed for Paint {}
impl Kernel for Paint {
    const ENTRY: Entry = Entry { name: "overlay_paint", module: OVERLAY, argument: size_of::<Self>() };

    /// A block paints a tile, a thread a sample of Cb and of Cr and those of luma beside them.
    fn geometry(&self) -> Geometry {
        let side = u32::from(SIDE) / 2;
        Geometry { grid: [self.count, 1, 1], block: [side, side, 1] }
    }
}

/// Divides what a [`Recording`] has into parts of a bounded size, which have a list for each tile of the picture. It keeps
/// its memory from picture to picture.
#[derive(Debug)]
pub struct Parts {
    most: usize,
    at: Cursor,
    /// Tiles of a row of them.
    columns: usize,
    operations: Vec<u32>,
    runs: Vec<u32>,
    /// A tile and the number of an operation that it needs, in the order of the latter.
    entries: Vec<[u32; 2]>,
    /// Entries of each tile.
    counts: Vec<u32>,
    /// Tiles that have entries.
    touched: usize,
    words: Vec<u32>,
}

/// What comes next: an operation and, if some of it is in the part before, the first of its rows that is not.
#[derive(Debug, Clone, Copy, Default)]
struct Cursor {
    operation: usize,
    row: Option<u16>,
}

/// What is painted at once.
#[derive(Debug, Clone, Copy)]
pub struct Part<'a> {
    words: &'a [u32],
    places: Places,
}

/// Where in the words of a [`Part`] is what, for those whose copy stays on the device.
#[derive(Debug, Clone, Copy)]
pub struct Places {
    /// Where the tiles, the lists and the runs begin. The operations are first.
    starts: [usize; 3],
    count: u32,
}

impl Part<'_> {
    /// What the host copies to the device, to an address that is a multiple of 4.
    #[must_use]
    pub const fn words(&self) -> &[u32] {
        self.words
    }

    /// What paints it on `picture`, which has the size of the recording; `atlas` and `words` are the addresses of copies of
    /// the atlas and of [`Part::words`].
    #[must_use]
    pub const fn kernel(&self, picture: Nv12, atlas: u64, words: u64) -> Paint {
        self.places.kernel(picture, atlas, words)
    }

    /// What is needed of it once its words are on the device.
    #[must_use]
    pub const fn places(&self) -> Places {
        self.places
    }
}

impl Places {
    /// As [`Part::kernel`].
    #[must_use]
    pub const fn kernel(&self, picture: Nv12, atlas: u64, words: u64) -> Paint {
        let [tiles, lists, runs] = self.starts;
        Paint {
            picture,
            atlas,
            tiles: words + 4 * tiles as u64,
            lists: words + 4 * lists as u64,
            operations: words,
            runs: words + 4 * runs as u64,
            count: self.count,
        }
    }
}

impl Default for Parts {
    fn default() -> Self {
        Self::new(Self::WORDS)
    }
}

impl Parts {
    /// Words that are enough for a part, whatever the picture's size: half a mebibyte.
    pub const WORDS: usize = 1 << 17;

    /// Parts of at most `most` words, or of as many as a row of the picture may take, which are fewer than
    /// [`Parts::WORDS`].
    #[must_use]
    pub const fn new(most: usize) -> Self {
        Self {
            most,
            at: Cursor { operation: 0, row: None },
            columns: 0,
            operations: Vec::new(),
            runs: Vec::new(),
            entries: Vec::new(),
            counts: Vec::new(),
            touched: 0,
            words: Vec::new(),
        }
    }

    /// Has [`Parts::next`] begin with the first part of a recording.
    pub const fn begin(&mut self) {
        self.at = Cursor { operation: 0, row: None };
    }

    /// The next part of the recording, which is the same one since [`Parts::begin`]. `None`: that was all.
    pub fn next(&mut self, recording: &Recording) -> Option<Part<'_>> {
        let [width, height] = recording.size();
        let [columns, lines] = [width, height].map(|side| side.div_ceil(SIDE.into()) as usize);
        self.columns = columns;
        self.operations.clear();
        self.runs.clear();
        self.entries.clear();
        self.counts.clear();
        self.counts.resize(columns * lines, 0);
        self.touched = 0;
        // An operation in one row of tiles, with one row of runs that are a sample wide.
        let most = self.most.max(OPERATION + (1 + TILE) * columns + 2 + width as usize);
        while let Some(operation) = recording.operations().get(self.at.operation) {
            let done = match operation.shape {
                Shape::Rect => self.add(operation, [RECT, 0, 0], most),
                Shape::Mask { start, stride } => self.add(operation, [MASK, start, stride.into()], most),
                Shape::Luma { rows } => self.add_runs(operation, (LUMA, SIDE), (recording, rows), most),
                Shape::Chroma { rows } => self.add_runs(operation, (CHROMA, SIDE / 2), (recording, rows), most),
            };
            if !done {
                break;
            }
            self.at = Cursor { operation: self.at.operation + 1, row: None };
        }
        (!self.entries.is_empty()).then(|| self.lay_out())
    }

    /// Adds a rectangle or a mask: its shape, where the mask starts, and bytes of the mask's row. `false`: not all of it.
    fn add(&mut self, operation: &Operation, [shape, start, stride]: [u32; 3], most: usize) -> bool {
        let [left, top, right, bottom] = operation.bounds;
        let columns = left / SIDE..right.div_ceil(SIDE);
        let mut own = OPERATION;
        for line in self.at.row.unwrap_or(top) / SIDE..bottom.div_ceil(SIDE) {
            if !self.has_room(own, columns.len(), most) {
                self.at.row = Some(line * SIDE);
                return false;
            }
            if own > 0 {
                own = 0;
                self.push(operation.ink, operation.bounds, [shape, start, stride]);
            }
            self.list(line, columns.clone());
        }
        true
    }

    /// Adds what a polygon covers of one plane, with an operation of its own in each row of tiles, so that a tile has those
    /// that it needs; `side` is a tile's in this plane. `false`: not all of it.
    fn add_runs(
        &mut self,
        Operation { ink, bounds: [_, top, _, bottom], .. }: &Operation,
        (shape, side): (u32, u16),
        (recording, rows): (&Recording, u32),
        most: usize,
    ) -> bool {
        let runs = |row: u16| recording.row(rows, row - top);
        let mut row = self.at.row.unwrap_or(*top);
        while row < *bottom {
            let line = row / side;
            let mut needed = OPERATION + 1;
            let mut bounds = [u16::MAX, row, 0, row];
            for next in row..(line + 1).saturating_mul(side).min(*bottom) {
                needed += 1 + runs(next).len();
                if !self.has_room(needed, self.columns, most) {
                    break;
                }
                if let [first, .., last] | [first @ last] = runs(next) {
                    let free = if first.opacity == 0 { first.end } else { 0 };
                    bounds = [bounds[0].min(free), row, bounds[2].max(last.end), row];
                }
                bounds[3] = next + 1;
            }
            let [left, _, right, end] = bounds;
            if end == row {
                self.at.row = Some(row);
                return false;
            }
            if left < right {
                let start = self.runs.len();
                let mut first = start + usize::from(end - row) + 1;
                for row in row..end {
                    self.runs.push(word(first));
                    first += runs(row).len();
                }
                self.runs.push(word(first));
                let packed = |run: &Run| u32::from(run.end) | u32::from(run.opacity) << 16;
                (row..end).for_each(|row| self.runs.extend(runs(row).iter().map(packed)));
                self.push(*ink, bounds, [shape, word(start), 0]);
                self.list(line, left / side..right.div_ceil(side));
            }
            row = end;
        }
        true
    }

    /// Whether so many words more, and an entry in each of so many tiles, keep the part as small as it has to be.
    const fn has_room(&self, words: usize, tiles: usize, most: usize) -> bool {
        let lists = self.entries.len() + TILE * self.touched;
        self.operations.len() + self.runs.len() + lists + words + (1 + TILE) * tiles <= most
    }

    fn push(&mut self, ink: Ink, [left, top, right, bottom]: [u16; 4], [shape, start, stride]: [u32; 3]) {
        let [y, cb, cr] = ink.codes().map(u32::from);
        let halves = |low: u16, high: u16| u32::from(low) | u32::from(high) << 16;
        let share = u32::from(ink.opacity()) | stride << 16;
        let codes = y | cb << 8 | cr << 16 | shape << 24;
        self.operations.extend([codes, share, halves(left, right), halves(top, bottom), start]);
    }

    /// Has these tiles of a row of them need the last operation.
    fn list(&mut self, line: u16, columns: Range<u16>) {
        let number = word(self.operations.len() / OPERATION - 1);
        for column in columns {
            let tile = usize::from(line) * self.columns + usize::from(column);
            self.touched += usize::from(self.counts[tile] == 0);
            self.counts[tile] += 1;
            self.entries.push([word(tile), number]);
        }
    }

    fn lay_out(&mut self) -> Part<'_> {
        let tiles = self.operations.len();
        let lists = tiles + TILE * self.touched;
        let runs = lists + self.entries.len();
        self.words.clear();
        self.words.extend(&self.operations);
        let mut first = 0;
        for (line, counts) in (0..).zip(self.counts.chunks_exact_mut(self.columns)) {
            for (column, count) in (0_u32..).zip(counts).filter(|(_, count)| **count > 0) {
                let end = first + *count;
                self.words.extend([column | line << 16, first, end]);
                // From here on the place of the tile's next entry.
                *count = first;
                first = end;
            }
        }
        self.words.resize(runs, 0);
        for &[tile, number] in &self.entries {
            let place = &mut self.counts[tile as usize];
            self.words[lists + *place as usize] = number;
            *place += 1;
        }
        self.words.extend(&self.runs);
        let places = Places { starts: [tiles, lists, runs], count: word(self.touched) };
        Part { words: &self.words, places }
    }
}

/// A number of words, of which a part has few.
fn word(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// A small overlay whose result is known, which shows that a device paints: every shape, opaque and translucent, inside and
/// across the edges of a picture of odd sides.
#[derive(Debug)]
pub struct SelfTest {
    picture: Picture,
    brush: Brush,
    recording: Recording,
    parts: Parts,
}

impl SelfTest {
    /// Always the same one.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it is no state but work")]
    pub fn new() -> Self {
        let mut test = Self {
            picture: Picture::interleave(&noise(75, 51), 96, 0xaa),
            brush: Brush::default(),
            recording: Recording::default(),
            parts: Parts::default(),
        };
        test.recording.begin(75, 51);
        paint(&mut test.recording, &mut test.brush);
        test
    }

    /// What has to lie in the device's memory at the address that [`SelfTest::kernel`] gets first, and is painted on.
    #[must_use]
    pub fn picture(&self) -> &[u8] {
        self.picture.data()
    }

    /// What has to lie at the second address.
    #[must_use]
    pub fn atlas(&self) -> &[u8] {
        self.brush.atlas.coverage()
    }

    /// What has to run, and the words that have to lie at the third address, which is a multiple of 4.
    ///
    /// # Panics
    /// Never: the recording is no empty one.
    #[must_use]
    #[expect(clippy::expect_used, reason = "the recording is always the same")]
    pub fn kernel(&mut self, picture: u64, atlas: u64, words: u64) -> (Paint, &[u32]) {
        self.parts.begin();
        let part = self.parts.next(&self.recording).expect("it has something to paint");
        (part.kernel(self.picture.at(picture), atlas, words), part.words)
    }

    /// Has a GPU do it.
    ///
    /// # Errors
    /// Any [`Unfit`].
    pub fn run(&mut self, on: &Launcher<'_>) -> Result<(), Unfit> {
        let (gpu, stream) = (on.stream().device(), on.stream());
        let (mut picture, mut atlas) = (Buffer::new(gpu, self.picture().len())?, Buffer::new(gpu, self.atlas().len())?);
        picture.upload(self.picture(), stream)?;
        atlas.upload(self.atlas(), stream)?;
        let mut words = Buffer::new(gpu, size_of_val(self.kernel(0, 0, 0).1))?;
        let (kernel, part) = self.kernel(picture.address(), atlas.address(), words.address());
        words.upload_words(part, stream)?;
        // SAFETY: all three have what the kernel needs, and nobody else has them.
        unsafe { on.launch(&kernel) }?;
        let mut found = vec![0; picture.len()];
        picture.download(&mut found, stream)?;
        if found == self.expected() { Ok(()) } else { Err(Unfit::Wrong("painting")) }
    }

    /// What is then at the first address.
    #[must_use]
    pub fn expected(&self) -> Vec<u8> {
        let mut painted = noise(75, 51);
        paint(&mut painted, &mut Brush::default());
        Picture::interleave(&painted, 96, 0xaa).data().to_vec()
    }
}

fn paint(canvas: &mut impl Canvas, brush: &mut Brush) {
    let ink = |rgb| Ink::new(ColorInfo::default(), rgb);
    let slope =
        brush.atlas.add([11, 9], |mask| (0..).zip(mask).for_each(|(at, share)| *share = 37_u8.wrapping_mul(at)));
    let star = [[37.0, 2.0], [60.3, 48.5], [3.2, 17.6], [71.0, 15.1], [16.4, 47.7]];
    canvas.rect([-4, 30, 90, 33], ink([20, 190, 60]));
    canvas.fill(&star, &mut brush.raster, ink([250, 40, 90]).with_opacity(0.4));
    ring(canvas, brush, [9, 5, 58, 44], 3, 9, ink([30, 80, 250]).with_opacity(0.9));
    rounded_rect(canvas, brush, [41, 29, 80, 60], 7, ink([240, 200, 10]).with_opacity(0.7));
    for (column, opacity) in (0..).zip([1.0, 0.55, 0.1]) {
        canvas.stamp((33 * column - 2, 21 * column), slope, &brush.atlas, ink([255; 3]).with_opacity(opacity));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::device::kernels::emulator::Memory;
    use crate::device::kernels::tests::{self, Uploaded, run};
    use crate::draw::Point;
    use crate::media::I420;

    /// Something to paint, with its colour and opacity.
    #[derive(Debug, Clone)]
    enum Stroke {
        Rect([i32; 4]),
        /// A mask of this size, at a place.
        Stamp([u16; 2], (i32, i32)),
        Fill(Vec<Point>),
        Rounded([i32; 4], i32),
        Ring([i32; 4], i32, i32),
    }

    type Painted = (Stroke, [u8; 3], f32);

    fn strokes(most: usize) -> impl Strategy<Value = Vec<Painted>> {
        let bounds = || proptest::array::uniform4(-30..130);
        let stroke = prop_oneof![
            bounds().prop_map(Stroke::Rect),
            ([0u16..40, 0u16..30], (-30..100, -30..100)).prop_map(|(size, at)| Stroke::Stamp(size, at)),
            proptest::collection::vec(proptest::array::uniform2(-40.0..140.0f32), 3..9).prop_map(Stroke::Fill),
            (bounds(), 0..12).prop_map(|(bounds, radius)| Stroke::Rounded(bounds, radius)),
            (bounds(), 1..5, 0..12).prop_map(|(bounds, thickness, radius)| Stroke::Ring(bounds, thickness, radius)),
        ];
        let opacity = prop_oneof![Just(1.0f32), 0.0..1.0f32];
        proptest::collection::vec((stroke, proptest::array::uniform3(any::<u8>()), opacity), 0..most)
    }

    fn paint_all(strokes: &[Painted], canvas: &mut impl Canvas, brush: &mut Brush) {
        for (number, (stroke, rgb, opacity)) in strokes.iter().enumerate() {
            let ink = Ink::new(ColorInfo::default(), *rgb).with_opacity(*opacity);
            match stroke {
                Stroke::Rect(bounds) => canvas.rect(*bounds, ink),
                Stroke::Stamp(size, at) => {
                    let mask = brush.atlas.add(*size, |mask| {
                        (0..mask.len()).zip(mask).for_each(|(at, share)| *share = (at * (number + 97) / 8) as u8);
                    });
                    canvas.stamp(*at, mask, &brush.atlas, ink);
                }
                Stroke::Fill(polygon) => canvas.fill(polygon, &mut brush.raster, ink),
                Stroke::Rounded(bounds, radius) => rounded_rect(canvas, brush, *bounds, *radius, ink),
                Stroke::Ring(bounds, thickness, radius) => ring(canvas, brush, *bounds, *thickness, *radius, ink),
            }
        }
    }

    /// Paints all parts on a picture that was uploaded; words and tiles of each.
    fn launch(recording: &Recording, brush: &Brush, parts: &mut Parts, picture: Nv12) -> Vec<[usize; 2]> {
        let atlas = Memory::new(brush.atlas.coverage());
        let mut sizes = Vec::new();
        parts.begin();
        while let Some(part) = parts.next(recording) {
            let words = Memory::of_words(part.words());
            let kernel = part.kernel(picture, atlas.address(), words.address());
            run(&kernel);
            sizes.push([part.words().len(), kernel.count as usize]);
        }
        sizes
    }

    fn recorded(width: u32, height: u32, strokes: &[Painted]) -> (Recording, Brush) {
        let (mut recording, mut brush) = (Recording::default(), Brush::default());
        recording.begin(width, height);
        paint_all(strokes, &mut recording, &mut brush);
        (recording, brush)
    }

    fn bytes(picture: Uploaded) -> [Vec<u8>; 2] {
        picture.planes.map(|plane| plane.bytes())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(160))]

        #[test]
        fn a_device_paints_what_the_cpu_paints(
            width in 1u32..110, height in 1u32..90, more in (0u32..9, 0u32..9), seed in any::<u32>(),
            strokes in strokes(24), most in 0usize..3_000,
        ) {
            let mut painted = tests::noise(width, height, seed);
            let uploaded = Uploaded::new(&painted, more.into(), 0x77);
            let (recording, brush) = recorded(width, height, &strokes);
            let mut parts = Parts::new(most);
            // Twice, since memory is used again: the second time on a copy.
            launch(&recording, &brush, &mut parts, Uploaded::new(&painted, [0; 2], 0).nv12);
            let sizes = launch(&recording, &brush, &mut parts, uploaded.nv12);
            let tiles = width.div_ceil(32) as usize;
            for [words, count] in sizes {
                prop_assert!(words <= most.max(7 + width as usize + 4 * tiles), "{words} words");
                prop_assert!(count <= tiles * height.div_ceil(32) as usize);
            }
            paint_all(&strokes, &mut painted, &mut Brush::default());
            // What is between the rows stays as it was.
            prop_assert_eq!(bytes(uploaded), bytes(Uploaded::new(&painted, more.into(), 0x77)));
        }
    }

    #[test]
    fn nothing_is_painted_with_nothing() {
        let square = |from: f32, to: f32| vec![[from, from], [to, from], [to, to], [from, to]];
        let unseen = [
            (Stroke::Rect([10, 10, 30, 30]), 0.0),
            (Stroke::Rect([64, 0, 90, 20]), 1.0),
            (Stroke::Rect([-9, -9, 0, 20]), 1.0),
            (Stroke::Stamp([8, 8], (-8, 4)), 1.0),
            (Stroke::Stamp([0, 8], (4, 4)), 1.0),
            (Stroke::Fill(square(70.0, 90.0)), 1.0),
            (Stroke::Fill(square(10.0, 30.0)), 0.0),
            (Stroke::Fill(vec![[1.0, 1.0], [f32::NAN, 9.0], [9.0, 9.0]]), 1.0),
        ];
        for (stroke, opacity) in unseen {
            let (recording, _) = recorded(64, 48, &[(stroke.clone(), [255; 3], opacity)]);
            assert!(recording.operations().is_empty(), "{stroke:?}");
            assert!(Parts::default().next(&recording).is_none(), "{stroke:?}");
        }
        assert!(Parts::default().next(&Recording::default()).is_none());
    }

    #[test]
    fn tiles_without_anything_are_left_alone() {
        let count = |strokes: &[Painted]| {
            let (recording, brush) = recorded(1920, 1080, strokes);
            let picture = Uploaded::new(&I420::new(1920, 1080), [0; 2], 0);
            let sizes = launch(&recording, &brush, &mut Parts::default(), picture.nv12);
            assert_eq!(sizes.len(), 1);
            sizes[0][1]
        };
        let white = |stroke: Stroke| (stroke, [255; 3], 1.0);
        assert_eq!(count(&[white(Stroke::Rect([32, 64, 64, 96]))]), 1);
        assert_eq!(count(&[white(Stroke::Rect([31, 63, 65, 97])), white(Stroke::Rect([31, 63, 65, 97]))]), 9);
        // A line from corner to corner, in 60 columns and 34 rows of tiles.
        let line = vec![[0.0, 0.0], [2.0, 0.0], [1920.0, 1080.0], [1918.0, 1080.0]];
        let tiles = count(&[white(Stroke::Fill(line))]);
        assert!((60..=60 + 2 * 34).contains(&tiles), "{tiles}");
    }

    #[test]
    fn more_than_a_part_holds_is_painted_in_several() {
        let mut strokes = Vec::new();
        for number in 0..300 {
            let rgb = [number as u8, (number * 7) as u8, (number * 31) as u8];
            // All of them in all tiles, the order being seen everywhere.
            strokes.push((Stroke::Rect([-1, -1, 41 + number % 3, 39 - number % 2]), rgb, 0.3));
            let wave = (0..20).map(|point| [2.0 * point as f32, if point % 2 == 0 { 3.0 } else { 37.0 }]);
            strokes.push((Stroke::Fill(wave.collect()), rgb, 0.2));
        }
        let mut painted = tests::noise(41, 39, 5);
        let uploaded = Uploaded::new(&painted, [3, 5], 0x11);
        let (recording, brush) = recorded(41, 39, &strokes);
        paint_all(&strokes, &mut painted, &mut Brush::default());
        let sizes = launch(&recording, &brush, &mut Parts::new(0), Uploaded::new(&painted, [0; 2], 0).nv12);
        assert!(sizes.len() > 1_000 && sizes.iter().all(|[words, _]| *words <= 7 + 41 + 8), "{}", sizes.len());
        let sizes = launch(&recording, &brush, &mut Parts::default(), uploaded.nv12);
        assert!(sizes.len() > 1 && sizes.iter().all(|[words, _]| *words <= Parts::WORDS), "{sizes:?}");
        assert_eq!(bytes(uploaded), bytes(Uploaded::new(&painted, [3, 5], 0x11)));
    }

    #[test]
    fn the_widest_pictures_fit() {
        for width in [16_384, 65_535] {
            let (mut recording, mut brush) = (Recording::default(), Brush::default());
            recording.begin(width, 3);
            // A row whose samples all differ from their neighbours.
            let teeth = (0..2 * width).map(|tooth| [tooth as f32 / 2.0, if tooth % 2 == 0 { 0.0 } else { 3.0 }]);
            let ink = Ink::new(ColorInfo::default(), [255; 3]);
            recording.fill(&teeth.collect::<Vec<_>>(), &mut brush.raster, ink);
            recording.rect([0, 0, width as i32, 3], ink);
            let (mut parts, mut operations) = (Parts::default(), 0);
            while let Some(part) = parts.next(&recording) {
                assert!(part.words().len() <= Parts::WORDS);
                operations += part.places.starts[0] / OPERATION;
            }
            assert!(operations >= 3, "{operations}");
        }
    }

    #[test]
    fn the_self_test_passes_and_notices_a_wrong_byte() {
        let result = |spoil: fn(&mut [u8], &mut [u8])| {
            let mut test = SelfTest::new();
            let (mut picture, mut atlas) = (test.picture().to_vec(), test.atlas().to_vec());
            spoil(&mut picture, &mut atlas);
            let words = Memory::of_words(test.kernel(0, 0, 0).1);
            let [picture, atlas] = [picture, atlas].map(|bytes| Memory::new(&bytes));
            run(&test.kernel(picture.address(), atlas.address(), words.address()).0);
            picture.bytes()
        };
        let expected = SelfTest::new().expected();
        assert_eq!(result(|_, _| ()), expected);
        assert_ne!(result(|picture, _| picture[3 * 96 + 70] ^= 0x80), expected);
        assert_ne!(result(|_, atlas| atlas[40] ^= 0x80), expected);
        assert_ne!(SelfTest::new().picture(), expected);
    }
}

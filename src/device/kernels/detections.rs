use super::private::Sealed;
use super::{DETECTIONS, Entry, Geometry, Kernel, Precision};

/// Candidates of an item that are compared with each other; the surest ones where there are more.
pub const MAX_CANDIDATES: usize = 1024;
/// Levels of a [`Yolox`] at most.
pub const MAX_LEVELS: usize = 8;
/// Words of one candidate's bits, each of which stands for a later candidate.
const HIDES_WORDS: usize = MAX_CANDIDATES / 32;

/// A box that a model found.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// Corners in input pixels: left, top, right, bottom.
    pub bbox: [f32; 4],
    /// Index of its class.
    pub class: u32,
    /// 0..1.
    pub score: f32,
}

/// What is wanted of an item.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Wish {
    /// Lowest score that counts, 0..1.
    pub score_threshold: f32,
    /// Overlap above which the weaker of two boxes of one class goes, 0..1.
    pub iou_threshold: f32,
    /// Boxes at most.
    pub max_detections: u32,
}

/// What all stages from a model's output to detections share. They run in this order: [`Begin`], a decoder ([`Yolov8`] or
/// [`Yolox`]), [`Rank`], [`Overlap`], [`Keep`]. The boxes that stay are those of the decoders and of the suppression on
/// the CPU, bit for bit, in the same order.
///
/// [`Layout`] makes it.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batch {
    /// Address of a [`Wish`] an item.
    pub wishes: u64,
    /// Address of `class_words` words an item, whose bits say which classes count; the first class is the lowest bit.
    pub classes: u64,
    /// Address of a word an item: how many candidates were found.
    pub counts: u64,
    /// Address of `anchors` [`Candidate`]s an item, as they were found.
    pub found: u64,
    /// Address of [`MAX_CANDIDATES`] [`Candidate`]s an item, in their order.
    pub surest: u64,
    /// Address of a bit for each pair of those.
    pub hides: u64,
    /// Address of a word an item, how many boxes stay, and after all of these `most` [`Candidate`]s an item.
    pub results: u64,
    /// Pictures that went through the model together; at most 65,535.
    pub items: u32,
    /// Anchors of an item.
    pub anchors: u32,
    /// Words of an item in `classes`.
    pub class_words: u32,
    /// Boxes of an item at most, whatever is wished.
    pub most: u32,
}

/// Sizes of the memory that [`Batch`] needs, and what is where in it. All parts begin at multiples of 8 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// See [`Batch::items`].
    pub items: u32,
    /// See [`Batch::anchors`].
    pub anchors: u32,
    /// Classes of the model.
    pub classes: u32,
    /// See [`Batch::most`].
    pub most: u32,
}

impl Layout {
    /// Words of 4 bytes that the host writes before each run: see [`Layout::wish`].
    #[must_use]
    pub const fn wishes_len(&self) -> usize {
        self.classes_start() + self.items as usize * self.class_words()
    }

    /// Bytes that kernels alone read and write.
    #[must_use]
    pub const fn work_len(&self) -> usize {
        let [.., end] = self.work_parts();
        end as usize
    }

    /// Words of 4 bytes that the host reads after each run: see [`Layout::read`].
    #[must_use]
    pub const fn results_len(&self) -> usize {
        self.items as usize * (1 + self.most as usize * CANDIDATE_WORDS)
    }

    /// What all stages share, where the three pieces of memory begin at these addresses, each a multiple of 8.
    #[must_use]
    pub const fn batch(&self, wishes: u64, work: u64, results: u64) -> Batch {
        let [found, surest, hides, _] = self.work_parts();
        Batch {
            wishes,
            classes: wishes + 4 * self.classes_start() as u64,
            counts: work,
            found: work + found,
            surest: work + surest,
            hides: work + hides,
            results,
            items: self.items,
            anchors: self.anchors,
            class_words: self.classes.div_ceil(32),
            most: self.most,
        }
    }

    /// Writes what is wanted of `item` into the words that the host copies to the device. Without `classes` all count;
    /// those that the model does not have are passed over.
    ///
    /// # Panics
    /// If `words` is not [`Layout::wishes_len`] long, or `item` not below `items`.
    pub fn wish(&self, item: usize, wish: &Wish, classes: Option<&[u32]>, words: &mut [u32]) {
        assert!(words.len() == self.wishes_len() && item < self.items as usize, "an item of these wishes");
        let (wishes, all) = words.split_at_mut(self.classes_start());
        let own = [wish.score_threshold.to_bits(), wish.iou_threshold.to_bits(), wish.max_detections];
        wishes[item * WISH_WORDS..][..WISH_WORDS].copy_from_slice(&own);
        let mask = &mut all[item * self.class_words()..][..self.class_words()];
        mask.fill(if classes.is_none() { u32::MAX } else { 0 });
        for class in classes.unwrap_or_default() {
            if let Some(word) = mask.get_mut(*class as usize / 32) {
                *word |= 1 << (class % 32);
            }
        }
    }

    /// The boxes of `item` in what the host copied from the device: surest first. A count that is too large for the
    /// memory is cut.
    ///
    /// # Panics
    /// If `words` is not [`Layout::results_len`] long, or `item` not below `items`.
    pub fn read<'a>(&self, item: usize, words: &'a [u32]) -> impl ExactSizeIterator<Item = Candidate> + use<'a> {
        assert!(words.len() == self.results_len() && item < self.items as usize, "an item of these results");
        let count = words[item].min(self.most) as usize;
        let start = self.items as usize + item * self.most as usize * CANDIDATE_WORDS;
        words[start..][..count * CANDIDATE_WORDS].chunks_exact(CANDIDATE_WORDS).map(|words| Candidate {
            bbox: [0, 1, 2, 3].map(|side| f32::from_bits(words[side])),
            class: words[4],
            score: f32::from_bits(words[5]),
        })
    }

    const fn class_words(&self) -> usize {
        self.classes.div_ceil(32) as usize
    }

    /// The first word of the classes: after the wishes, at a multiple of 8 bytes.
    const fn classes_start(&self) -> usize {
        (self.items as usize * WISH_WORDS).next_multiple_of(2)
    }

    /// Where the candidates, the surest ones and the pairs begin, in bytes, and the end. The counts come first.
    const fn work_parts(&self) -> [u64; 4] {
        let (items, candidate) = (self.items as u64, size_of::<Candidate>() as u64);
        let found = (4 * items).next_multiple_of(8);
        let surest = found + items * self.anchors as u64 * candidate;
        let hides = surest + items * MAX_CANDIDATES as u64 * candidate;
        [found, surest, hides, hides + items * (MAX_CANDIDATES * HIDES_WORDS) as u64 * 4]
    }
}

const WISH_WORDS: usize = size_of::<Wish>() / 4;
const CANDIDATE_WORDS: usize = size_of::<Candidate>() / 4;

/// Kernel: forgets the candidates of the run before.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Begin(pub Batch);

impl Sealed for Begin {}
impl Kernel for Begin {
    const ENTRY: Entry = Entry { name: "detections_begin", module: DETECTIONS, argument: size_of::<Self>() };

    fn geometry(&self) -> Geometry {
        Geometry::over([self.0.items, 1, 1], [32, 1, 1])
    }
}

/// Kernel: candidates from the output of Ultralytics' head, `[items, 4 + classes, anchors]`: centre x, centre y, width and
/// height in input pixels, then a score a class.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Yolov8 {
    /// What all stages share.
    pub batch: Batch,
    /// Address of the output.
    pub output: u64,
    /// Classes of the model.
    pub classes: u32,
    /// Kind of the output's numbers.
    pub precision: Precision,
}

impl Sealed for Yolov8 {}
impl Kernel for Yolov8 {
    const ENTRY: Entry = Entry { name: "detections_yolov8", module: DETECTIONS, argument: size_of::<Self>() };

    fn geometry(&self) -> Geometry {
        Geometry::over([self.batch.anchors, self.batch.items, 1], CANDIDATES)
    }
}

/// One level of a [`Yolox`]: a grid over the input.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Level {
    /// Side of a cell in input pixels.
    pub stride: f32,
    /// Cells of a row.
    pub columns: u32,
    /// Cells of the grid; 0: there is no such level.
    pub cells: u32,
}

/// Kernel: candidates from the output of YOLOX without decoding in the graph (Ge et al., 2021, section 2.1), `[items,
/// anchors, 5 + classes]`: offsets from the cell and logarithms of width and height, in strides, then objectness and a
/// score a class.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Yolox {
    /// What all stages share.
    pub batch: Batch,
    /// Address of the output.
    pub output: u64,
    /// Classes of the model.
    pub classes: u32,
    /// Kind of the output's numbers.
    pub precision: Precision,
    /// The levels in the order of their anchors, then such without cells.
    pub levels: [Level; MAX_LEVELS],
}

impl Sealed for Yolox {}
impl Kernel for Yolox {
    const ENTRY: Entry = Entry { name: "detections_yolox", module: DETECTIONS, argument: size_of::<Self>() };

    fn geometry(&self) -> Geometry {
        Geometry::over([self.batch.anchors, self.batch.items, 1], CANDIDATES)
    }
}

/// Kernel: the order of the candidates.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rank(pub Batch);

impl Sealed for Rank {}
impl Kernel for Rank {
    const ENTRY: Entry = Entry { name: "detections_rank", module: DETECTIONS, argument: size_of::<Self>() };

    fn geometry(&self) -> Geometry {
        Geometry::over([self.0.anchors, self.0.items, 1], CANDIDATES)
    }
}

/// Kernel: which candidates hide which.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overlap(pub Batch);

impl Sealed for Overlap {}
impl Kernel for Overlap {
    const ENTRY: Entry = Entry { name: "detections_overlap", module: DETECTIONS, argument: size_of::<Self>() };

    fn geometry(&self) -> Geometry {
        let candidates = self.0.anchors.min(MAX_CANDIDATES as u32);
        Geometry::over([HIDES_WORDS as u32, candidates, self.0.items], [32, 4, 1])
    }
}

/// Kernel: what stays.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep(pub Batch);

impl Sealed for Keep {}
impl Kernel for Keep {
    const ENTRY: Entry = Entry { name: "detections_keep", module: DETECTIONS, argument: size_of::<Self>() };

    /// Blocks of one thread, so that items are spread over the device.
    fn geometry(&self) -> Geometry {
        Geometry::over([self.0.items, 1, 1], [1, 1, 1])
    }
}

/// Threads of a block over candidates.
const CANDIDATES: [u32; 3] = [128, 1, 1];

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn parts_of_the_memory_are_aligned_and_apart() {
        for (items, anchors, classes, most) in [(1, 1, 1, 1), (3, 2100, 33, 100), (32, 8400, 80, 1000)] {
            let layout = Layout { items, anchors, classes, most };
            let batch = layout.batch(1 << 20, 1 << 40, 1 << 50);
            let (items, anchors) = (u64::from(items), u64::from(anchors));
            let parts = [
                (batch.wishes, 12 * items),
                (batch.classes, 4 * items * u64::from(batch.class_words)),
                (batch.counts, 4 * items),
                (batch.found, 24 * items * anchors),
                (batch.surest, 24 * items * 1024),
                (batch.hides, 4 * items * 1024 * 32),
            ];
            assert!(parts.iter().all(|(start, _)| start.is_multiple_of(8)), "{batch:x?}");
            assert!(parts.windows(2).all(|pair| pair[0].0 + pair[0].1 <= pair[1].0), "{batch:x?}");
            let end = |part: (u64, u64)| part.0 + part.1;
            assert_eq!(end(parts[1]), (1 << 20) + 4 * layout.wishes_len() as u64);
            assert_eq!(end(parts[5]), (1 << 40) + layout.work_len() as u64);
        }
    }

    #[test]
    fn a_count_that_is_too_large_is_cut() {
        let layout = Layout { items: 2, anchors: 8, classes: 1, most: 2 };
        let mut words = vec![0; layout.results_len()];
        words[1] = u32::MAX;
        words[2 + 2 * 6 + 4] = 7;
        assert_eq!(layout.read(0, &words).len(), 0);
        assert_eq!(layout.read(1, &words).map(|found| found.class).collect::<Vec<_>>(), [7, 0]);
    }
}

//! The same on a device: what the host computes for the kernels that decode and suppress there.
#![expect(unsafe_code, reason = "launches kernels")]

use super::{Candidate, Decoder, Filter, Kind, suppress, yolov8, yolox};
use crate::device::kernels::{
    self, Batch, Begin, Keep, Launch, Layout, Level, MAX_LEVELS, Overlap, Precision, Rank, Wish, Yolov8, Yolox,
    from_half, to_half,
};
use crate::infer::Params;

const _: () = assert!(kernels::MAX_CANDIDATES == super::nms::MAX_CANDIDATES, "as many candidates as on the CPU");

/// A model's head whose output can be decoded on a device.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Head {
    kind: HeadKind,
    classes: u32,
    anchors: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum HeadKind {
    Yolov8,
    Yolox([Level; MAX_LEVELS]),
}

impl Decoder {
    /// The decoder as the device has it; none if it has not.
    pub(in crate::infer) fn head(&self) -> Option<Head> {
        self.kind.head()
    }
}

impl Kind {
    fn head(&self) -> Option<Head> {
        let count = |count: usize| u32::try_from(count).ok();
        match self {
            Self::Yolov8(yolov8) => {
                Some(Head { kind: HeadKind::Yolov8, classes: count(yolov8.classes)?, anchors: None })
            }
            Self::Yolox(yolox) => {
                let mut levels = [Level::default(); MAX_LEVELS];
                for (n, level) in yolox.levels.iter().enumerate() {
                    let cells = count(level.columns * level.rows)?;
                    *levels.get_mut(n)? = Level { stride: level.stride, columns: count(level.columns)?, cells };
                }
                let (kind, anchors) = (HeadKind::Yolox(levels), Some(count(yolox.anchors())?));
                Some(Head { kind, classes: count(yolox.classes)?, anchors })
            }
            Self::SsdBoxes(_)
            | Self::Yunet(_)
            | Self::FastestDet(_)
            | Self::Softmax(_)
            | Self::Argmax(_)
            | Self::Raw(_) => None,
        }
    }
}

impl Head {
    /// Sizes of the memory for runs of `items` on the shape `shape` of the output, the batch first, each with `most` boxes
    /// at most. None: that is not the shape of an output that the head has.
    #[must_use]
    pub fn layout(&self, items: u32, shape: &[i64], most: u32) -> Option<Layout> {
        let [_, rows, columns] = *shape else { return None };
        let (anchors, values, head) = match self.kind {
            HeadKind::Yolov8 => (columns, rows, 4),
            HeadKind::Yolox(_) => (rows, columns, 5),
        };
        let anchors = u32::try_from(anchors).ok()?;
        let fits = values == i64::from(self.classes) + head && self.anchors.is_none_or(|own| own == anchors);
        fits.then_some(Layout { items, anchors, classes: self.classes, most })
    }

    /// Runs all kernels from the output at the address `output` to the results that [`Layout::read`] reads.
    ///
    /// # Safety
    /// As [`Launch::launch`]: `batch` is that of a [`Layout`] which [`Head::layout`] gave for this output's shape, and its
    /// memory has the lengths that the layout says.
    ///
    /// # Errors
    /// Those of launching.
    pub unsafe fn launch<L: Launch>(
        &self,
        batch: Batch,
        output: u64,
        precision: Precision,
        on: &L,
    ) -> Result<(), L::Error> {
        let classes = self.classes;
        // SAFETY: the caller's.
        unsafe {
            on.launch(&Begin(batch))?;
            match self.kind {
                HeadKind::Yolov8 => on.launch(&Yolov8 { batch, output, classes, precision })?,
                HeadKind::Yolox(levels) => on.launch(&Yolox { batch, output, classes, precision, levels })?,
            }
            on.launch(&Rank(batch))?;
            on.launch(&Overlap(batch))?;
            on.launch(&Keep(batch))
        }
    }
}

impl Params {
    /// Writes what they say into the words that are copied to the device for `item`: see [`Layout::wish`].
    ///
    /// # Panics
    /// As [`Layout::wish`].
    pub fn write(&self, layout: &Layout, item: usize, words: &mut [u32]) {
        let wish = Wish {
            score_threshold: self.score_threshold,
            iou_threshold: self.iou_threshold,
            max_detections: u32::try_from(self.max_detections).unwrap_or(u32::MAX),
        };
        layout.wish(item, &wish, self.classes.as_deref(), words);
    }
}

/// A small computation whose result is known, which shows that a device decodes as the CPU does: two outputs of one model
/// become boxes.
#[derive(Debug)]
pub(in crate::infer) struct SelfTest {
    name: &'static str,
    kind: Kind,
    head: Head,
    layout: Layout,
    precision: Precision,
    /// As the CPU reads it.
    values: Vec<f32>,
    params: [Params; 2],
}

impl SelfTest {
    /// One for each head: of Ultralytics', more boxes than are compared; of YOLOX, half precision.
    ///
    /// They are always the same.
    pub(in crate::infer) fn all() -> Vec<Self> {
        let (classes, size) = (33, [320, 320]);
        let yolov8 = [[0.0, 320.0], [0.0, 320.0], [8.0, 48.0], [8.0, 48.0], [0.0, 1.0]];
        let yolox = [[0.0, 1.0], [0.0, 1.0], [-1.0, 2.0], [-1.0, 2.0], [0.0, 1.0]];
        let numbers = |anchors: usize| Numbers(7).take(2 * anchors * (5 + classes as usize));
        let ranged = |[least, most]: [f32; 2], share: f32| least + (most - least) * share;
        let first = numbers(1300).enumerate().take(2 * 1300 * 37);
        let first = first.map(|(at, share)| ranged(yolov8[(at / 1300 % 37).min(4)], share)).collect();
        let second = numbers(2100).enumerate();
        let second =
            second.map(|(at, share)| ranged(yolox[(at % 38).min(4)], share)).map(|value| from_half(to_half(value)));
        let (second, yolox) = (second.collect(), yolox::Yolox::new(classes as usize, size, &[8, 16, 32]));
        let (yolox_shape, yolov8_shape) = ([2, 2100, 38], [2, 37, 1300]);
        [
            Self::new(
                "decoding YOLOv8",
                Kind::Yolov8(yolov8::Yolov8 { classes: 33 }),
                &yolov8_shape,
                Precision::Single,
                first,
            ),
            Self::new("decoding YOLOX", Kind::Yolox(yolox), &yolox_shape, Precision::Half, second),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn new(name: &'static str, kind: Kind, shape: &[i64], precision: Precision, values: Vec<f32>) -> Option<Self> {
        let head = kind.head()?;
        let layout = head.layout(2, shape, 200)?;
        let params = |score_threshold, max_detections, classes| Params {
            score_threshold,
            iou_threshold: 0.4,
            max_detections,
            classes,
        };
        let params = [params(0.1, 100, None), params(0.9, 200, Some(vec![0, 31, 32]))];
        Some(Self { name, kind, head, layout, precision, values, params })
    }

    /// What is tested.
    pub(in crate::infer) const fn name(&self) -> &'static str {
        self.name
    }

    /// The head.
    pub(in crate::infer) const fn head(&self) -> &Head {
        &self.head
    }

    /// The memory that it needs.
    pub(in crate::infer) const fn layout(&self) -> Layout {
        self.layout
    }

    /// Kind of the output's numbers.
    pub(in crate::infer) const fn precision(&self) -> Precision {
        self.precision
    }

    /// The output, in the order of bytes that host and device share.
    pub(in crate::infer) fn output(&self) -> Vec<u8> {
        match self.precision {
            Precision::Single => self.values.iter().flat_map(|value| value.to_ne_bytes()).collect(),
            Precision::Half => self.values.iter().flat_map(|value| to_half(*value).to_ne_bytes()).collect(),
        }
    }

    /// What is wanted of each item.
    pub(in crate::infer) const fn params(&self) -> &[Params; 2] {
        &self.params
    }

    /// Whether these results, of which [`Layout::read`] makes boxes, are those of the CPU.
    pub(in crate::infer) fn is_expected(&self, words: &[u32]) -> bool {
        let len = self.values.len() / 2;
        self.params.iter().zip(self.values.chunks_exact(len)).enumerate().all(|(item, (params, values))| {
            let filter = Filter { score_threshold: params.score_threshold, classes: params.classes.as_deref() };
            let mut expected = Vec::new();
            match &self.kind {
                Kind::Yolov8(yolov8) => yolov8.decode(values, &filter, &mut expected),
                Kind::Yolox(yolox) => yolox.decode(values, &filter, &mut expected),
                _ => return false,
            }
            suppress(&mut expected, params.iou_threshold, params.max_detections);
            self.layout.read(item, words).map(Candidate::from).eq(expected)
        })
    }
}

/// Numbers of 0..1 without a pattern: a linear congruential generator's (Press et al., Numerical Recipes, section 7.1).
struct Numbers(u32);

impl Iterator for Numbers {
    type Item = f32;

    #[expect(clippy::cast_precision_loss, reason = "24 bits fit")]
    fn next(&mut self) -> Option<f32> {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        Some((self.0 >> 8) as f32 / 16_777_216.0)
    }
}

impl From<kernels::Candidate> for Candidate {
    fn from(kernels::Candidate { bbox, class, score }: kernels::Candidate) -> Self {
        Self { bbox, class, score, cell: 0 }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::device::kernels::emulator::Memory;
    use crate::device::kernels::tests::OnHost;
    use crate::infer::Manifest;
    use crate::infer::decoder::{Outlet, View};

    /// A decoder of a model with `classes` classes and the shape of its output for `items` pictures.
    fn model(kind: &str, classes: u32, items: usize) -> (Decoder, [i64; 3]) {
        let names = (0..classes).map(|n| format!("'c{n}'")).collect::<Vec<_>>().join(", ");
        let text = format!(
            "name = 'a'\nversion = '1'\nlicence = 'MIT'\n[input]\nsize = [70, 40]\n[output]\ndecoder = '{kind}'\n\
             [classes]\nnames = [{names}]\n"
        );
        let manifest = Manifest::parse(&text, |_| unreachable!()).unwrap();
        // 9 × 5 cells of stride 8, 5 × 3 of 16, 3 × 2 of 32.
        let shape = match kind {
            "yolov8" => [items as i64, i64::from(4 + classes), 66],
            _ => [items as i64, 66, i64::from(5 + classes)],
        };
        let outlet = Outlet { name: "out".to_owned(), shape: shape.to_vec() };
        (Decoder::bind(&manifest, &[outlet]).unwrap(), shape)
    }

    /// Bits of the boxes, so that NaN and signs of zero count.
    type Bits = ([u32; 4], u32, u32);

    fn bits(found: &[Candidate]) -> Vec<Bits> {
        found.iter().map(|one| (one.bbox.map(f32::to_bits), one.class, one.score.to_bits())).collect()
    }

    fn on_cpu(decoder: &Decoder, shape: &[i64], data: &[f32], item: usize, params: &Params) -> Vec<Bits> {
        let filter = Filter { score_threshold: params.score_threshold, classes: params.classes.as_deref() };
        let mut found = Vec::new();
        decoder.decode(&[View { shape, data }], item, &filter, &mut found).unwrap();
        suppress(&mut found, params.iou_threshold, params.max_detections);
        bits(&found)
    }

    /// What the kernels leave for each item, after memory that is full of something else.
    fn on_device(
        decoder: &Decoder,
        shape: [i64; 3],
        output: &Memory,
        precision: Precision,
        all: &[Params],
    ) -> Vec<Vec<Bits>> {
        let head = decoder.head().unwrap();
        let most = all.iter().map(|params| params.max_detections).max().unwrap();
        let layout = head.layout(all.len() as u32, &shape, most as u32).unwrap();
        let mut wishes = vec![0x5a5a_5a5a; layout.wishes_len()];
        for (item, params) in all.iter().enumerate() {
            params.write(&layout, item, &mut wishes);
        }
        let wishes = Memory::of_words(&wishes);
        let work = Memory::new(&vec![0xb7; layout.work_len()]);
        let results = Memory::of_words(&vec![0xb7b7_b7b7; layout.results_len()]);
        let batch = layout.batch(wishes.address(), work.address(), results.address());
        // SAFETY: guarded memory of the lengths that the layout says.
        let Ok(()) = unsafe { head.launch(batch, output.address(), precision, &OnHost) };
        let words = results.words();
        let found = |item| layout.read(item, &words).map(Into::into).collect::<Vec<_>>();
        (0..all.len()).map(|item| bits(&found(item))).collect()
    }

    /// Compares all items, in both precisions.
    fn compare(decoder: &Decoder, shape: [i64; 3], data: &[f32], all: &[Params]) -> Vec<Vec<Bits>> {
        let output = Memory::of_words(&data.iter().map(|value| value.to_bits()).collect::<Vec<_>>());
        let single = on_device(decoder, shape, &output, Precision::Single, all);
        let halves = data.iter().map(|value| to_half(*value)).collect::<Vec<_>>();
        let output = Memory::new(&halves.iter().flat_map(|half| half.to_ne_bytes()).collect::<Vec<_>>());
        let half = on_device(decoder, shape, &output, Precision::Half, all);
        let widened = halves.into_iter().map(from_half).collect::<Vec<_>>();
        for (item, params) in all.iter().enumerate() {
            assert_eq!(single[item], on_cpu(decoder, &shape, data, item, params), "item {item} of {all:?}");
            assert_eq!(half[item], on_cpu(decoder, &shape, &widened, item, params), "item {item} of {all:?}, half");
        }
        single
    }

    fn params(score_threshold: f32, iou_threshold: f32, max_detections: usize) -> Params {
        Params { score_threshold, iou_threshold, max_detections, classes: None }
    }

    /// Numbers as a model gives them, and as a broken one may.
    fn number() -> impl Strategy<Value = f32> {
        prop_oneof![
            12 => -2f32..3.0,
            4 => 0f32..80.0,
            3 => (0u8..8).prop_map(|n| f32::from(n) / 8.0),
            1 => any::<u32>().prop_map(f32::from_bits),
            1 => prop::sample::select(vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, 1.0, -0.0]),
        ]
    }

    fn some_params() -> impl Strategy<Value = Params> {
        let thresholds = prop_oneof![2 => 0f32..=1.0, 1 => Just(0.0), 1 => Just(0.5)];
        let classes = prop::option::weighted(0.4, prop::collection::vec(0u32..80, 0..6));
        (thresholds, 0f32..=1.0, prop_oneof![3 => 1usize..80, 1 => Just(0)], classes).prop_map(
            |(score_threshold, iou_threshold, max_detections, classes)| Params {
                score_threshold,
                iou_threshold,
                max_detections,
                classes,
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]

        #[test]
        fn the_device_finds_what_the_cpu_finds(
            kind in prop::sample::select(vec!["yolov8", "yolox"]),
            classes in prop::sample::select(vec![1u32, 2, 31, 32, 33, 70]),
            all in prop::collection::vec(some_params(), 1..4), pool in prop::collection::vec(number(), 1009),
        ) {
            let (decoder, shape) = model(kind, classes, all.len());
            let len = shape.iter().product::<i64>() as usize;
            compare(&decoder, shape, &pool.iter().copied().cycle().take(len).collect::<Vec<_>>(), &all);
        }
    }

    /// An output of Ultralytics' head for one picture and one class: boxes as centre, size and score.
    fn yolov8(boxes: &[[f32; 5]]) -> (Decoder, [i64; 3], Vec<f32>) {
        let (decoder, _) = model("yolov8", 1, 1);
        let data = (0..5).flat_map(|row| boxes.iter().map(move |values| values[row])).collect();
        (decoder, [1, 5, boxes.len() as i64], data)
    }

    #[test]
    fn a_crowd_is_cut_to_the_surest_as_on_the_cpu() {
        // Three times as many boxes as are compared; of each score there are several, of some boxes two.
        let mut state = 7u32;
        let mut next = |most: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((state >> 8) % most) as f32
        };
        let crowd = (0..3000).map(|_| [next(400), next(40), 8.0 + next(3), 8.0, next(64) / 64.0]).collect::<Vec<_>>();
        let (decoder, shape, data) = yolov8(&crowd);
        for (iou, most, least) in [(1.0, 1000, 1000), (0.3, 1000, 100), (0.3, 10, 10), (0.0, 1000, 20)] {
            let found = compare(&decoder, shape, &data, &[params(0.0, iou, most)]);
            assert!(found[0].len() >= least, "{} of {most} at {iou}", found[0].len());
        }
    }

    #[test]
    fn nothing_is_found_where_nothing_is() {
        let (decoder, shape, data) = yolov8(&[[0.0; 5]; 130]);
        assert_eq!(compare(&decoder, shape, &data, &[params(0.1, 0.5, 100)]), [vec![]]);
        let (decoder, shape, data) = yolov8(&[[f32::NAN; 5]; 3]);
        assert_eq!(compare(&decoder, shape, &data, &[params(0.0, 0.5, 100)]), [vec![]]);
    }

    #[test]
    fn equally_sure_boxes_come_in_the_same_order() {
        let around = |x: f32, width: f32| [x, 10.0, width, 4.0, 0.5];
        let boxes = [around(5.0, 2.0), around(6.0, 4.0), around(4.0, 0.5), around(6.0, 4.0), around(5.5, 3.0)];
        let (decoder, shape, data) = yolov8(&boxes);
        let found = compare(&decoder, shape, &data, &[params(0.5, 1.0, 100)]);
        let lefts = found[0].iter().map(|found| f32::from_bits(found.0[0])).collect::<Vec<_>>();
        assert_eq!(lefts, [3.75, 4.0, 4.0, 4.0, 4.0]);
    }

    #[test]
    fn equal_boxes_of_several_classes_come_by_class() {
        let (decoder, _) = model("yolov8", 40, 1);
        let classes = [39u32, 7, 8, 0, 33, 7, 32];
        let mut data = [[5.0; 7], [5.0; 7], [2.0; 7], [2.0; 7]].concat();
        data.extend((0..40).flat_map(|row| classes.map(|class| if class == row { 0.5 } else { 0.25 })));
        let found = compare(&decoder, [1, 44, 7], &data, &[params(0.5, 0.5, 100)]);
        assert_eq!(found[0].iter().map(|found| found.1).collect::<Vec<_>>(), [0, 7, 8, 32, 33, 39]);
    }

    #[test]
    fn boxes_too_large_for_their_area_do_no_harm() {
        let huge = [0.0, 0.0, f32::MAX, f32::MAX, 0.9];
        let (decoder, shape, data) =
            yolov8(&[huge, huge, [0.0, 0.0, 1e-30, 1e-30, 0.8], [0.0, 0.0, 1e-30, 1e-30, 0.7]]);
        assert_eq!(compare(&decoder, shape, &data, &[params(0.1, 0.5, 100)])[0].len(), 4);
    }

    #[test]
    fn self_tests_pass_and_notice_a_wrong_byte() {
        for test in SelfTest::all() {
            let layout = test.layout();
            let mut wishes = vec![0; layout.wishes_len()];
            for (item, params) in test.params().iter().enumerate() {
                params.write(&layout, item, &mut wishes);
            }
            let result = |output: &[u8]| {
                let (wishes, output) = (Memory::of_words(&wishes), Memory::new(output));
                let work = Memory::new(&vec![0xb7; layout.work_len()]);
                let results = Memory::of_words(&vec![0xb7b7_b7b7; layout.results_len()]);
                let batch = layout.batch(wishes.address(), work.address(), results.address());
                // SAFETY: guarded memory of the lengths that the layout says.
                let Ok(()) = unsafe { test.head().launch(batch, output.address(), test.precision(), &OnHost) };
                results.words()
            };
            let words = result(&test.output());
            assert!(test.is_expected(&words), "{}", test.name());
            let found = [0, 1].map(|item| layout.read(item, &words).len());
            assert!(found[0] == 100 && (3..200).contains(&found[1]), "{}: {found:?}", test.name());
            let mut wrong = test.output();
            wrong.iter_mut().for_each(|byte| *byte ^= 1);
            assert!(!test.is_expected(&result(&wrong)), "{}", test.name());
        }
    }

    #[test]
    fn other_heads_and_other_shapes_are_refused() {
        let head = |kind| model(kind, 2, 1).0.head().unwrap();
        assert_eq!(head("yolov8").layout(1, &[1, 6, 66], 10).map(|layout| layout.anchors), Some(66));
        assert_eq!(head("yolox").layout(1, &[1, 66, 7], 10).map(|layout| layout.anchors), Some(66));
        for shape in [&[1, 7, 66][..], &[1, 6, -1], &[6, 66], &[]] {
            assert_eq!(head("yolov8").layout(1, shape, 10), None, "{shape:?}");
        }
        assert_eq!(head("yolox").layout(1, &[1, 65, 7], 10), None);
    }
}

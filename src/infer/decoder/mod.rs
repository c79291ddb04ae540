//! Output tensors in, candidates in input pixels out, then non-maximum suppression; or what is said of the whole picture.
//! Pure: no thread, no I/O.
//!
//! A decoder is bound to a model's outputs once, when the model is loaded: names and shapes are checked then. It reads
//! whatever numbers come, NaN and infinities included, without a panic: what is not a box with a score is left out.

mod argmax;
#[cfg(feature = "cuda")]
pub(super) mod device;
mod exp;
mod fastestdet;
mod nms;
mod raw;
mod softmax;
mod ssd_boxes;
mod yolov8;
mod yolox;
mod yunet;

use super::error::Error;
use super::manifest::{Manifest, Output};
#[cfg(doc)]
use crate::media::Mask;
use crate::media::Tensor;

pub(super) use nms::{overlap, suppress};

/// Outputs that a decoder reads at most: four for each of the eight strides that a manifest may name.
pub(super) const MAX_OUTPUTS: usize = 32;

/// An output of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outlet {
    /// Its name.
    pub name: String,
    /// Its shape; −1 stands for a side that is free.
    pub shape: Vec<i64>,
}

/// One output of one run.
#[derive(Debug, Clone, Copy, Default)]
pub struct View<'a> {
    /// Its shape, the batch first.
    pub shape: &'a [i64],
    /// Its values.
    pub data: &'a [f32],
}

/// A box that a decoder read, not yet compared with others.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Candidate {
    /// Corners in input pixels.
    pub(super) bbox: [f32; 4],
    pub(super) class: u32,
    pub(super) score: f32,
    /// The cell that it was read from, where that has more to tell: see [`Decoder::keypoints`].
    pub(super) cell: u32,
}

/// What an output says of a whole picture.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Whole {
    /// Classes and their scores, best first.
    Scores(Vec<(u32, f32)>),
    /// The class of each pixel of a part of the picture.
    Map(Map),
    /// Outputs as they are.
    Tensors(Vec<Tensor>),
}

/// The class of each pixel of a part of the input.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Map {
    /// Width and height.
    pub(super) size: [u32; 2],
    /// Row by row; [`Mask::NONE`] is none.
    pub(super) classes: Vec<u8>,
    /// Left, top, right and bottom of what it covers, in input pixels.
    pub(super) covers: [f32; 4],
}

/// What a decoder need not report.
#[derive(Debug, Clone, Copy)]
pub(super) struct Filter<'a> {
    pub(super) score_threshold: f32,
    pub(super) classes: Option<&'a [u32]>,
}

impl Filter<'_> {
    fn wants(&self, class: u32) -> bool {
        self.classes.is_none_or(|classes| classes.contains(&class))
    }

    /// Adds a candidate if it is a box, wanted, and sure enough.
    fn offer(&self, found: &mut Vec<Candidate>, bbox: [f32; 4], class: u32, score: f32) {
        self.offer_cell(found, bbox, class, score, 0);
    }

    /// The same for one that was read from a cell that has more to tell.
    fn offer_cell(&self, found: &mut Vec<Candidate>, bbox: [f32; 4], class: u32, score: f32, cell: u32) {
        let sound = bbox.iter().all(|side| side.is_finite()) && bbox[2] > bbox[0] && bbox[3] > bbox[1];
        if score >= self.score_threshold && score.is_finite() && sound && self.wants(class) {
            found.push(Candidate { bbox, class, score: score.clamp(0.0, 1.0), cell });
        }
    }
}

/// A decoder bound to a model's outputs.
#[derive(Debug, Clone)]
pub(super) struct Decoder {
    kind: Kind,
    /// Names of the outputs that it reads, in the order in which it expects them.
    outputs: Vec<Expected>,
}

#[derive(Debug, Clone)]
enum Kind {
    Yolov8(yolov8::Yolov8),
    Yolox(yolox::Yolox),
    SsdBoxes(ssd_boxes::SsdBoxes),
    Yunet(yunet::Yunet),
    FastestDet(fastestdet::FastestDet),
    Softmax(softmax::Softmax),
    Argmax(argmax::Argmax),
    Raw(raw::Raw),
}

/// An output that a decoder reads: its name and shape after the batch axis.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Expected {
    name: String,
    sides: Vec<Side>,
}

/// Legal lengths of one axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Exactly(usize),
    Any,
}

impl Decoder {
    /// Binds the manifest's decoder to the model's outputs.
    ///
    /// # Errors
    /// [`Error::WrongOutput`] if an output is missing or has another shape.
    pub(super) fn bind(manifest: &Manifest, outlets: &[Outlet]) -> Result<Self, Error> {
        let decoder = manifest.output.name();
        let (classes, size) = (manifest.classes.len(), manifest.input.size);
        let only = |tensor: &Option<String>| match (tensor, outlets) {
            (Some(name), _) => Ok(name.clone()),
            (None, [outlet]) => Ok(outlet.name.clone()),
            (None, _) => Err(Error::WrongOutput {
                decoder,
                tensor: "(the only one)".to_owned(),
                expected: "a single output, or `output.tensor` in the manifest".to_owned(),
                found: names(outlets),
            }),
        };
        let (kind, outputs) = match &manifest.output {
            Output::Yolov8 { tensor } => {
                let sides = vec![Side::Exactly(4 + classes), Side::Any];
                (Kind::Yolov8(yolov8::Yolov8 { classes }), vec![Expected { name: only(tensor)?, sides }])
            }
            Output::Yolox { tensor, strides } => {
                let yolox = yolox::Yolox::new(classes, size, strides);
                let sides = vec![Side::Exactly(yolox.anchors()), Side::Exactly(5 + classes)];
                (Kind::Yolox(yolox), vec![Expected { name: only(tensor)?, sides }])
            }
            Output::SsdBoxes { scores, boxes, background } => {
                let ssd = ssd_boxes::SsdBoxes { classes, background: *background, size };
                let scores = Expected { name: scores.clone(), sides: vec![Side::Any, Side::Exactly(ssd.columns())] };
                let boxes = Expected { name: boxes.clone(), sides: vec![Side::Any, Side::Exactly(4)] };
                (Kind::SsdBoxes(ssd), vec![scores, boxes])
            }
            Output::Yunet { strides, keypoints } => {
                let yunet = yunet::Yunet { strides: strides.clone(), size, keypoints: *keypoints };
                let outputs = yunet.outputs();
                (Kind::Yunet(yunet), outputs)
            }
            Output::FastestDet { tensor } => {
                let fastestdet = fastestdet::FastestDet { classes, size };
                let sides = vec![Side::Exactly(5 + classes), Side::Any, Side::Any];
                (Kind::FastestDet(fastestdet), vec![Expected { name: only(tensor)?, sides }])
            }
            Output::Softmax { tensor, scores, .. } => {
                let softmax = softmax::Softmax { scores: *scores };
                let name = only(tensor)?;
                let sides = softmax::Softmax::sides(classes, shape_of(outlets, &name));
                (Kind::Softmax(softmax), vec![Expected { name, sides }])
            }
            Output::Argmax { tensor, layout, background } => {
                let name = only(tensor)?;
                let argmax = argmax::Argmax::new(classes, *background, *layout, size, shape_of(outlets, &name));
                let sides = argmax.sides();
                (Kind::Argmax(argmax), vec![Expected { name, sides }])
            }
            Output::Raw { tensors } => {
                let outputs = raw::outputs(tensors.as_deref(), outlets)?;
                (Kind::Raw(raw::Raw::new(&outputs)), outputs)
            }
        };
        for expected in &outputs {
            let Some(outlet) = outlets.iter().find(|outlet| outlet.name == expected.name) else {
                return Err(expected.mismatch(decoder, format!("only {}", names(outlets))));
            };
            if !expected.fits(&outlet.shape) {
                return Err(expected.mismatch(decoder, shape_text(&outlet.shape)));
            }
        }
        Ok(Self { kind, outputs })
    }

    /// Names of the outputs to hand to [`Self::decode`], in this order.
    pub(super) fn outputs(&self) -> impl ExactSizeIterator<Item = &str> {
        self.outputs.iter().map(|output| output.name.as_str())
    }

    /// Reads item `item` of a batch and adds what passes `filter` to `found`. Decoders of what is said of whole pictures find
    /// nothing: see [`Self::whole`].
    ///
    /// # Errors
    /// [`Error::WrongOutput`] if the tensors are not shaped as the model declared.
    pub(super) fn decode(
        &self,
        views: &[View<'_>],
        item: usize,
        filter: &Filter<'_>,
        found: &mut Vec<Candidate>,
    ) -> Result<(), Error> {
        let items = self.items(views, item)?;
        match &self.kind {
            Kind::Yolov8(yolov8) => yolov8.decode(items[0], filter, found),
            Kind::Yolox(yolox) => yolox.decode(items[0], filter, found),
            Kind::SsdBoxes(ssd) => ssd.decode(items[0], items[1], filter, found),
            Kind::Yunet(yunet) => yunet.decode(&items, filter, found),
            Kind::FastestDet(fastestdet) => {
                let [_, _, rows, columns] = sides(views[0].shape);
                fastestdet.decode(items[0], [columns, rows], filter, found);
            }
            Kind::Softmax(_) | Kind::Argmax(_) | Kind::Raw(_) => {}
        }
        Ok(())
    }

    /// Whether it reads what is said of whole pictures, instead of boxes.
    pub(super) const fn is_of_the_whole(&self) -> bool {
        matches!(self.kind, Kind::Softmax(_) | Kind::Argmax(_) | Kind::Raw(_))
    }

    /// What item `item` of a batch says of its whole picture, which covers `content` (left, top, width, height) of the
    /// input: `most` scores at most. None: the decoder reads boxes.
    ///
    /// # Errors
    /// Those of [`Self::decode`].
    pub(super) fn whole(
        &self,
        views: &[View<'_>],
        item: usize,
        filter: &Filter<'_>,
        content: [u32; 4],
        most: usize,
    ) -> Result<Option<Whole>, Error> {
        let items = self.items(views, item)?;
        Ok(match &self.kind {
            Kind::Softmax(softmax) => Some(Whole::Scores(softmax.decode(items[0], filter, most))),
            Kind::Argmax(argmax) => argmax.decode(items[0], sides(views[0].shape), filter, content).map(Whole::Map),
            Kind::Raw(raw) => Some(Whole::Tensors(raw.decode(views, &items))),
            _ => None,
        })
    }

    /// The keypoints of a candidate that [`Self::decode`] found in this item, in input pixels.
    pub(super) fn keypoints(&self, views: &[View<'_>], item: usize, candidate: &Candidate) -> Vec<[f32; 2]> {
        match (&self.kind, self.items(views, item)) {
            (Kind::Yunet(yunet), Ok(items)) => yunet.keypoints(&items, candidate.cell),
            _ => Vec::new(),
        }
    }

    /// The values of item `item` in each of the outputs that are read.
    fn items<'a>(&self, views: &[View<'a>], item: usize) -> Result<[&'a [f32]; MAX_OUTPUTS], Error> {
        if views.len() != self.outputs.len() {
            return Err(Error::Run { reason: format!("{} outputs instead of {}", views.len(), self.outputs.len()) });
        }
        let mut items = [&[][..]; MAX_OUTPUTS];
        for (values, (view, expected)) in items.iter_mut().zip(views.iter().zip(&self.outputs)) {
            let found = expected.item(view, item);
            *values = found.ok_or_else(|| expected.mismatch(self.name(), shape_text(view.shape)))?;
        }
        Ok(items)
    }

    const fn name(&self) -> &'static str {
        match self.kind {
            Kind::Yolov8(_) => "yolov8",
            Kind::Yolox(_) => "yolox",
            Kind::SsdBoxes(_) => "ssd-boxes",
            Kind::Yunet(_) => "yunet",
            Kind::FastestDet(_) => "fastestdet",
            Kind::Softmax(_) => "softmax",
            Kind::Argmax(_) => "argmax",
            Kind::Raw(_) => "raw",
        }
    }
}

impl Expected {
    fn fits(&self, shape: &[i64]) -> bool {
        let sides = shape.get(1..).unwrap_or_default();
        sides.len() == self.sides.len() && sides.iter().zip(&self.sides).all(|(found, side)| side.allows(*found))
    }

    /// The values of one item, if the tensor has the right shape and holds them.
    fn item<'a>(&self, view: &View<'a>, item: usize) -> Option<&'a [f32]> {
        let sides = view.shape.get(1..).filter(|_| self.fits(view.shape))?;
        let len = sides.iter().try_fold(1usize, |len, side| len.checked_mul(usize::try_from(*side).ok()?))?;
        view.data.get(item.checked_mul(len)?..(item + 1).checked_mul(len)?)
    }

    fn mismatch(&self, decoder: &'static str, found: String) -> Error {
        let sides = self.sides.iter().map(|side| match side {
            Side::Exactly(length) => length.to_string(),
            Side::Any => "n".to_owned(),
        });
        let expected = format!("[batch, {}]", sides.collect::<Vec<_>>().join(", "));
        Error::WrongOutput { decoder, tensor: self.name.clone(), expected, found }
    }
}

impl Side {
    fn allows(self, found: i64) -> bool {
        match self {
            Self::Any => true,
            Self::Exactly(length) => found < 0 || usize::try_from(found) == Ok(length),
        }
    }
}

/// A shape as people read it; free sides are `?`.
pub(super) fn shape_text(shape: &[i64]) -> String {
    let sides = shape.iter().map(|side| if *side < 0 { "?".to_owned() } else { side.to_string() });
    format!("[{}]", sides.collect::<Vec<_>>().join(", "))
}

fn names(outlets: &[Outlet]) -> String {
    let names = outlets.iter().map(|outlet| format!("`{}` {}", outlet.name, shape_text(&outlet.shape)));
    names.collect::<Vec<_>>().join(", ")
}

/// The declared shape of an output; none if it is not there.
fn shape_of<'a>(outlets: &'a [Outlet], name: &str) -> &'a [i64] {
    outlets.iter().find(|outlet| outlet.name == name).map(|outlet| &*outlet.shape).unwrap_or_default()
}

/// The first four sides of a shape that a run gave; 0 for those that it has not.
fn sides(shape: &[i64]) -> [usize; 4] {
    std::array::from_fn(|at| shape.get(at).map_or(0, |side| usize::try_from(*side).unwrap_or(0)))
}

/// Columns and rows of the grid that a stride lays over the input.
const fn grid([width, height]: [u32; 2], stride: u32) -> (usize, usize) {
    (width.div_ceil(stride) as usize, height.div_ceil(stride) as usize)
}

/// Index and value of the largest number; NaN never wins.
fn best(scores: impl Iterator<Item = f32>) -> (u32, f32) {
    (0..).zip(scores).fold((0, f32::MIN), |best, next| if next.1 > best.1 { next } else { best })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::infer::letterbox::Letterbox;

    fn manifest(decoder: &str, classes: &str) -> Manifest {
        let text = format!(
            "name = 'a'\nversion = '1'\nlicence = 'MIT'\n[input]\nsize = [64, 32]\n[output]\ndecoder = '{decoder}'\n\
             [classes]\nnames = [{classes}]\n"
        );
        Manifest::parse(&text, |_| unreachable!()).unwrap()
    }

    fn outlet(name: &str, shape: &[i64]) -> Outlet {
        Outlet { name: name.to_owned(), shape: shape.to_vec() }
    }

    /// Each decoder with outputs that fit it: 8 × 4 cells of stride 8, 4 × 2 of 16, 2 × 1 of 32.
    fn fitting() -> Vec<(Manifest, Vec<Outlet>)> {
        let yunet = [(8, 32), (16, 8), (32, 2)].into_iter().flat_map(|(stride, cells)| {
            [("kps", 10), ("bbox", 4), ("obj", 1), ("cls", 1)]
                .map(|(name, values)| outlet(&format!("{name}_{stride}"), &[1, cells, values]))
        });
        vec![
            (manifest("yolov8", "'a', 'b'"), vec![outlet("out", &[-1, 6, 42])]),
            (manifest("yolox", "'a', 'b'"), vec![outlet("out", &[1, 42, 7])]),
            (manifest("ssd-boxes", "'a'"), vec![outlet("scores", &[1, 40, 2]), outlet("boxes", &[1, 40, 4])]),
            (manifest("yunet", "'a'"), yunet.collect()),
            (manifest("fastestdet", "'a', 'b'"), vec![outlet("out", &[1, 7, 4, 8])]),
        ]
    }

    #[test]
    fn outputs_are_found_by_name_and_compared_by_shape() {
        for (manifest, outlets) in fitting() {
            let decoder = Decoder::bind(&manifest, &outlets).unwrap();
            let read = decoder.outputs().map(str::to_owned).collect::<Vec<_>>();
            for name in &read {
                let at = outlets.iter().position(|outlet| outlet.name == *name).unwrap();
                let mut longer = outlets.clone();
                longer[at].shape[1] += 1;
                longer[at].shape[2] += 1;
                let error = Decoder::bind(&manifest, &longer).unwrap_err();
                assert!(matches!(&error, Error::WrongOutput { tensor, .. } if tensor == name), "{error}");
                let mut flat = outlets.clone();
                flat[at].shape.truncate(2);
                assert!(Decoder::bind(&manifest, &flat).is_err());
                let mut free = outlets.clone();
                free[at].shape.fill(-1);
                assert!(Decoder::bind(&manifest, &free).is_ok(), "free sides are checked when it runs");
            }
        }
        let two = [outlet("x", &[1, 6, 42]), outlet("y", &[1, 6, 42])];
        let error = Decoder::bind(&manifest("yolov8", "'a', 'b'"), &two).unwrap_err();
        assert!(error.to_string().contains("`output.tensor`"), "{error}");
    }

    #[test]
    fn a_run_with_other_shapes_than_declared_is_an_error() {
        let (manifest, outlets) = fitting().swap_remove(0);
        let decoder = Decoder::bind(&manifest, &outlets).unwrap();
        let filter = Filter { score_threshold: 0.5, classes: None };
        let data = [0.0; 6 * 42];
        let decode = |shape: &[i64], data: &[f32]| decoder.decode(&[View { shape, data }], 0, &filter, &mut Vec::new());
        assert_eq!(decode(&[1, 6, 42], &data), Ok(()));
        assert!(decode(&[1, 7, 36], &data).is_err());
        assert!(decode(&[1, 6, 42], &data[1..]).is_err());
        assert!(decode(&[0, 6, 42], &[]).is_err());
        assert!(decode(&[], &[]).is_err());
    }

    /// Numbers as a broken model may give them.
    fn number() -> impl Strategy<Value = f32> {
        prop_oneof![
            4 => -2f32..2.0,
            1 => any::<u32>().prop_map(f32::from_bits),
            1 => prop::sample::select(vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, 1.0]),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn whatever_the_numbers_boxes_are_sound_and_inside_the_frame(
            pool in prop::collection::vec(number(), 997), threshold in 0f32..=1.0, iou in 0f32..=1.0,
        ) {
            for (manifest, outlets) in fitting() {
                let decoder = Decoder::bind(&manifest, &outlets).unwrap();
                let tensors = decoder.outputs().enumerate().map(|(n, name)| {
                    let outlet = outlets.iter().find(|outlet| outlet.name == name).unwrap();
                    let shape = outlet.shape.iter().map(|side| (*side).max(1)).collect::<Vec<_>>();
                    let len = shape.iter().product::<i64>().unsigned_abs() as usize;
                    (shape, pool.iter().cycle().skip(n * 31).take(len).copied().collect::<Vec<_>>())
                }).collect::<Vec<_>>();
                let views = tensors.iter().map(|(shape, data)| View { shape, data }).collect::<Vec<_>>();
                let mut found = Vec::new();
                let filter = Filter { score_threshold: threshold, classes: None };
                decoder.decode(&views, 0, &filter, &mut found).unwrap();
                suppress(&mut found, iou, 50);
                prop_assert!(found.len() <= 50);
                let letterbox = Letterbox::new(&manifest.input, 640, 480);
                for candidate in found {
                    prop_assert!((threshold..=1.0).contains(&candidate.score));
                    prop_assert!((candidate.class as usize) < manifest.classes.len());
                    if let Some([x1, y1, x2, y2]) = letterbox.box_to_source(candidate.bbox) {
                        prop_assert!(0.0 <= x1 && x1 < x2 && x2 <= 640.0 && 0.0 <= y1 && y1 < y2 && y2 <= 480.0);
                    }
                }
            }
        }
    }
}

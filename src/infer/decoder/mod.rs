//! Output tensors in, candidates in input pixels out; then non-maximum suppression. Pure: no thread, no I/O.
//!
//! A decoder is bound to a model's outputs once, when the model is loaded: names and shapes are checked then. It reads
//! whatever numbers come, NaN and infinities included, without a panic: what is not a box with a score is left out.

mod nms;
mod ssd_boxes;
mod yolov8;
mod yolox;
mod yunet;

use super::error::Error;
use super::manifest::{Manifest, Output};

pub(super) use nms::suppress;

/// An output of a model: its name and shape; −1 stands for a side that is free.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outlet {
    pub(super) name: String,
    pub(super) shape: Vec<i64>,
}

/// One output of one run.
#[derive(Debug, Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) shape: &'a [i64],
    pub(super) data: &'a [f32],
}

/// A box that a decoder read, not yet compared with others.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Candidate {
    /// Corners in input pixels.
    pub(super) bbox: [f32; 4],
    pub(super) class: u32,
    pub(super) score: f32,
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
        let sound = bbox.iter().all(|side| side.is_finite()) && bbox[2] > bbox[0] && bbox[3] > bbox[1];
        if score >= self.score_threshold && score.is_finite() && sound && self.wants(class) {
            found.push(Candidate { bbox, class, score: score.clamp(0.0, 1.0) });
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
            Output::Yunet { strides } => {
                let yunet = yunet::Yunet { strides: strides.clone(), size };
                let outputs = yunet.outputs();
                (Kind::Yunet(yunet), outputs)
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

    /// Reads item `item` of a batch and adds what passes `filter` to `found`.
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
        if views.len() != self.outputs.len() {
            return Err(Error::Run { reason: format!("{} outputs instead of {}", views.len(), self.outputs.len()) });
        }
        let mut items = Vec::with_capacity(views.len());
        for (view, expected) in views.iter().zip(&self.outputs) {
            let values = expected.item(view, item);
            items.push(values.ok_or_else(|| expected.mismatch(self.name(), shape_text(view.shape)))?);
        }
        match &self.kind {
            Kind::Yolov8(yolov8) => yolov8.decode(items[0], filter, found),
            Kind::Yolox(yolox) => yolox.decode(items[0], filter, found),
            Kind::SsdBoxes(ssd) => ssd.decode(items[0], items[1], filter, found),
            Kind::Yunet(yunet) => yunet.decode(&items, filter, found),
        }
        Ok(())
    }

    const fn name(&self) -> &'static str {
        match self.kind {
            Kind::Yolov8(_) => "yolov8",
            Kind::Yolox(_) => "yolox",
            Kind::SsdBoxes(_) => "ssd-boxes",
            Kind::Yunet(_) => "yunet",
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

/// Columns and rows of the grid that a stride lays over the input.
const fn grid([width, height]: [u32; 2], stride: u32) -> (usize, usize) {
    (width.div_ceil(stride) as usize, height.div_ceil(stride) as usize)
}

/// Index and value of the largest number; NaN never wins.
fn best(scores: impl Iterator<Item = f32>) -> (u32, f32) {
    (0..).zip(scores).fold((0, f32::MIN), |best, next| if next.1 > best.1 { next } else { best })
}

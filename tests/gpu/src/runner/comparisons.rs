//! Each kernel against what the processors compute, on inputs without a pattern, wherever kernels run.

use std::sync::Arc;

use saccade::annotate::{Annotator, LineShape, Overlay, ZoneShape};
use saccade::device::kernels::{
    Batch, Halve, Kernel, Nv12, Picture, Planes, Precision, Turn, from_half, overlay, to_half,
};
use saccade::draw::{Recording, Revision};
use saccade::infer::manifest::{Channels, Input, Layout, Resize};
use saccade::infer::preprocess::Preprocessor;
use saccade::infer::preprocess::device::Tables;
use saccade::infer::{Head, Letterbox, Manifest, Outlet, Params, Postprocessor, View};
use saccade::media::{Class, ColorInfo, ColorMatrix, ColorRange, Detection, I420, Rotation};

use super::numbers::Numbers;

/// Where kernels run.
pub trait Place {
    /// A piece of memory that kernels reach.
    type Memory;

    /// Memory with these bytes.
    ///
    /// # Errors
    /// Why there is none.
    fn put(&self, bytes: &[u8]) -> Result<Self::Memory, String>;

    /// Where it begins, as kernels have it.
    fn address(memory: &Self::Memory) -> u64;

    /// What is in it when all kernels are done.
    ///
    /// # Errors
    /// What went wrong in kernels, or that they wrote beside it.
    fn bytes(&self, memory: &Self::Memory) -> Result<Vec<u8>, String>;

    /// Has a kernel run after those before.
    ///
    /// # Errors
    /// Why it can't be.
    fn launch<K: Kernel>(&self, kernel: &K) -> Result<(), String>;

    /// Has all kernels run that decode an output and suppress.
    ///
    /// # Errors
    /// As [`Place::launch`].
    fn find(&self, head: &Head, batch: Batch, output: u64, precision: Precision) -> Result<(), String>;

    /// [`Place::put`] of words.
    ///
    /// # Errors
    /// As there.
    fn put_words(&self, words: &[u32]) -> Result<Self::Memory, String> {
        self.put(&words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<_>>())
    }

    /// [`Place::bytes`] as words.
    ///
    /// # Errors
    /// As there.
    fn words(&self, memory: &Self::Memory) -> Result<Vec<u32>, String> {
        let word = |bytes: &[u8]| bytes.try_into().map(u32::from_ne_bytes).unwrap_or_default();
        Ok(self.bytes(memory)?.chunks_exact(4).map(word).collect())
    }
}

/// A kernel, or a row of them, and what it is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    Planes,
    Halve,
    Turn,
    Tensor(Precision),
    Yolov8(Precision),
    Yolox(Precision),
    Overlay,
}

impl What {
    pub const ALL: [Self; 10] = [
        Self::Planes,
        Self::Halve,
        Self::Turn,
        Self::Tensor(Precision::Single),
        Self::Tensor(Precision::Half),
        Self::Yolov8(Precision::Single),
        Self::Yolov8(Precision::Half),
        Self::Yolox(Precision::Single),
        Self::Yolox(Precision::Half),
        Self::Overlay,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Planes => "planes",
            Self::Halve => "halve",
            Self::Turn => "turn",
            Self::Tensor(Precision::Single) => "tensor, fp32",
            Self::Tensor(Precision::Half) => "tensor, fp16",
            Self::Yolov8(Precision::Single) => "boxes of YOLOv8, fp32",
            Self::Yolov8(Precision::Half) => "boxes of YOLOv8, fp16",
            Self::Yolox(Precision::Single) => "boxes of YOLOX, fp32",
            Self::Yolox(Precision::Half) => "boxes of YOLOX, fp16",
            Self::Overlay => "overlay",
        }
    }

    /// Compares once, on a picture of a camera's size now and then. Says how many bytes were the same.
    ///
    /// # Errors
    /// What differs, with the input's sizes.
    pub fn compare(self, place: &impl Place, numbers: &mut Numbers) -> Result<usize, String> {
        let camera = [(1280, 720), (1920, 1080), (641, 361)];
        let (width, height) = match numbers.between(0, 7) {
            0 => numbers.one_of(&camera),
            _ => (numbers.between(1, 200), numbers.between(1, 150)),
        };
        let picture = numbers.noise(width, height);
        let compared = match self {
            Self::Planes => planes(place, numbers, &picture),
            Self::Halve => halve(place, numbers, &picture),
            Self::Turn => turn(place, numbers, &picture),
            Self::Tensor(precision) => tensor(place, numbers, &picture, precision),
            Self::Yolov8(precision) => boxes(place, numbers, "yolov8", precision),
            Self::Yolox(precision) => boxes(place, numbers, "yolox", precision),
            Self::Overlay => painted(place, numbers, &picture),
        };
        compared.map_err(|problem| format!("{width}x{height}: {problem}"))
    }
}

/// The bytes are the same, or where the first differs.
fn same(found: &[u8], expected: &[u8]) -> Result<usize, String> {
    if found.len() != expected.len() {
        return Err(format!("{} bytes instead of {}", found.len(), expected.len()));
    }
    let differing = found.iter().zip(expected).filter(|(found, expected)| found != expected).count();
    let Some(at) = found.iter().zip(expected).position(|(found, expected)| found != expected) else {
        return Ok(found.len());
    };
    let (a, b) = (found[at], expected[at]);
    Err(format!("{differing} of {} bytes differ, the first is {at}: {a} instead of {b}", found.len()))
}

/// A picture in NV12, luma and chroma in memory of their own, with `filler` between the rows.
struct Put<M> {
    nv12: Nv12,
    planes: [M; 2],
}

impl<M> Put<M> {
    fn new<P: Place<Memory = M>>(place: &P, picture: &I420, more: [u32; 2], filler: u8) -> Result<Self, String> {
        let [luma, chroma] = rows(picture, more, filler);
        let planes = [place.put(&luma)?, place.put(&chroma)?];
        let (width, height) = (picture.width(), picture.height());
        let nv12 = Nv12 {
            luma: P::address(&planes[0]),
            chroma: P::address(&planes[1]),
            luma_pitch: width + more[0],
            chroma_pitch: 2 * width.div_ceil(2) + more[1],
            width,
            height,
        };
        Ok(Self { nv12, planes })
    }

    fn compare<P: Place<Memory = M>>(
        &self,
        place: &P,
        expected: &I420,
        more: [u32; 2],
        filler: u8,
    ) -> Result<usize, String> {
        let [luma, chroma] = rows(expected, more, filler);
        let luma = same(&place.bytes(&self.planes[0])?, &luma).map_err(|problem| format!("luma: {problem}"))?;
        let chroma = same(&place.bytes(&self.planes[1])?, &chroma).map_err(|problem| format!("chroma: {problem}"))?;
        Ok(luma + chroma)
    }
}

/// Both planes; none of the filler is behind the last row.
fn rows(picture: &I420, more: [u32; 2], filler: u8) -> [Vec<u8>; 2] {
    let ([luma, cb, cr], [width, chroma_width, _]) = (picture.planes(), picture.strides());
    let chroma = cb.iter().zip(cr).flat_map(|(cb, cr)| [*cb, *cr]).collect::<Vec<_>>();
    let rows = |samples: &[u8], width: usize, more: u32| {
        samples.chunks_exact(width).collect::<Vec<_>>().join(&vec![filler; more as usize][..])
    };
    [rows(luma, width, more[0]), rows(&chroma, 2 * chroma_width, more[1])]
}

fn more(numbers: &mut Numbers) -> [u32; 2] {
    [numbers.between(0, 40), numbers.between(0, 40)]
}

/// A picture all of whose samples are one.
fn blank(width: u32, height: u32) -> I420 {
    let mut picture = I420::new(width, height);
    picture.planes_mut().into_iter().for_each(|plane| plane.fill(0x33));
    picture
}

fn planes<P: Place>(place: &P, numbers: &mut Numbers, picture: &I420) -> Result<usize, String> {
    let from = Put::new(place, picture, more(numbers), !0)?;
    let to = place.put(&vec![0x33; I420::byte_len(picture.width(), picture.height())])?;
    place.launch(&Planes { from: from.nv12, to: P::address(&to) })?;
    same(&place.bytes(&to)?, &picture.planes().concat())
}

fn halve<P: Place>(place: &P, numbers: &mut Numbers, picture: &I420) -> Result<usize, String> {
    let (from, gap) = (Put::new(place, picture, more(numbers), !0)?, more(numbers));
    let mut half = I420::new(1, 1);
    picture.halve_into(&mut half);
    let to = Put::new(place, &blank(half.width(), half.height()), gap, 0x77)?;
    place.launch(&Halve { from: from.nv12, to: to.nv12 })?;
    to.compare(place, &half, gap, 0x77)
}

fn turn<P: Place>(place: &P, numbers: &mut Numbers, picture: &I420) -> Result<usize, String> {
    let from = Put::new(place, picture, more(numbers), !0)?;
    let (mut turned, mut compared) = (picture.clone(), 0);
    for rotation in [Rotation::Clockwise90, Rotation::Half, Rotation::Clockwise270] {
        turned = quarter_turn(&turned);
        let gap = more(numbers);
        let to = Put::new(place, &blank(turned.width(), turned.height()), gap, 0x77)?;
        let kernel = Turn::new(from.nv12, to.nv12, rotation).ok_or("no kernel for the turn")?;
        place.launch(&kernel)?;
        let same = to.compare(place, &turned, gap, 0x77);
        compared += same.map_err(|problem| format!("{rotation:?}: {problem}"))?;
    }
    Ok(compared)
}

/// A picture turned clockwise by a quarter, sample by sample.
fn quarter_turn(picture: &I420) -> I420 {
    let mut turned = I420::new(picture.height(), picture.width());
    let (from_strides, to_strides) = (picture.strides(), turned.strides());
    for (n, to) in turned.planes_mut().into_iter().enumerate() {
        let from = picture.planes()[n];
        for (at, sample) in to.iter_mut().enumerate() {
            let (column, row) = (at % to_strides[n], at / to_strides[n]);
            *sample = from[(to_strides[n] - 1 - column) * from_strides[n] + row];
        }
    }
    turned
}

fn any_color(numbers: &mut Numbers) -> ColorInfo {
    let matrix = numbers.one_of(&[ColorMatrix::Bt601, ColorMatrix::Bt709, ColorMatrix::Bt2020]);
    ColorInfo { matrix, range: numbers.one_of(&[ColorRange::Limited, ColorRange::Full]) }
}

fn tensor<P: Place>(place: &P, numbers: &mut Numbers, picture: &I420, precision: Precision) -> Result<usize, String> {
    let large = picture.width() > 400;
    let mut side = || if large { numbers.between(200, 640) } else { numbers.between(8, 96) };
    let size = [side(), side()];
    let mut triple = |from, to| [numbers.real(from, to), numbers.real(from, to), numbers.real(from, to)];
    let (mean, scale) = (triple(0.0, 200.0), triple(0.001, 2.0));
    let input = Input {
        tensor: None,
        layout: numbers.one_of(&[Layout::Nchw, Layout::Nhwc]),
        color: numbers.one_of(&[Channels::Rgb, Channels::Bgr, Channels::Gray]),
        size,
        resize: numbers.one_of(&[Resize::LetterboxCenter, Resize::LetterboxTopLeft, Resize::Stretch]),
        pad: numbers.real(0.0, 255.0),
        mean,
        scale,
    };
    let color = any_color(numbers);
    let tables = Tables::new(&input, picture.width(), picture.height());
    let (from, words) = (Put::new(place, picture, more(numbers), 0xd7)?, place.put_words(tables.words())?);
    let values = place.put(&vec![0xee; input.item_len() * precision.bytes()])?;
    place.launch(&tables.kernel(from.nv12, color, P::address(&words), P::address(&values), precision))?;
    let mut expected = vec![f32::NAN; input.item_len()];
    Preprocessor::scalar(input.clone()).fill(picture, color, &mut expected);
    let expected: Vec<u8> = match precision {
        Precision::Single => expected.iter().flat_map(|value| value.to_bits().to_ne_bytes()).collect(),
        Precision::Half => expected.iter().flat_map(|value| to_half(*value).to_ne_bytes()).collect(),
    };
    same(&place.bytes(&values)?, &expected).map_err(|problem| format!("{input:?}, {color:?}: {problem}"))
}

/// A model with this decoder, whose sides are multiples of 32.
fn model(decoder: &str, [width, height]: [u32; 2], classes: u32) -> Result<Arc<Manifest>, String> {
    let names = (0..classes).map(|class| format!("'c{class}'")).collect::<Vec<_>>().join(", ");
    let text = format!(
        "name = 'a'\nversion = '1'\nlicence = 'MIT'\n[input]\nsize = [{width}, {height}]\n[output]\n\
         decoder = '{decoder}'\n[classes]\nnames = [{names}]\n"
    );
    let manifest = Manifest::parse(&text, |_| Ok(String::new()));
    manifest.map(Arc::new).map_err(|error| error.to_string())
}

fn boxes<P: Place>(place: &P, numbers: &mut Numbers, decoder: &str, precision: Precision) -> Result<usize, String> {
    let size = [32 * numbers.between(1, 12), 32 * numbers.between(1, 12)];
    let (items, classes) = (numbers.between(1, 4) as usize, numbers.between(1, 80));
    let manifest = model(decoder, size, classes)?;
    let anchors: usize = [8, 16, 32].map(|stride| (size[0] / stride * (size[1] / stride)) as usize).iter().sum();
    let (shape, ranges) = match decoder {
        "yolov8" => ([items as i64, i64::from(4 + classes), anchors as i64], [[0.0, 300.0], [0.0, 300.0], [8.0, 90.0]]),
        _ => ([items as i64, anchors as i64, i64::from(5 + classes)], [[0.0, 1.0], [0.0, 1.0], [-1.0, 2.5]]),
    };
    let len: usize = anchors * (shape[1] as usize + shape[2] as usize - anchors);
    // Scores are mostly low, as a model's are, or a box in two would be compared with all others.
    let share = numbers.one_of(&[0.02, 0.2, 0.9]);
    let mut value = |field: usize| match field {
        0..2 => numbers.real(ranges[field][0], ranges[field][1]),
        2..4 => numbers.real(ranges[2][0], ranges[2][1]),
        _ if numbers.real(0.0, 1.0) < share => numbers.real(0.0, 1.0),
        _ => numbers.real(0.0, 0.2),
    };
    let field = |at: usize| if decoder == "yolov8" { at / anchors } else { at % (5 + classes as usize) };
    let mut output: Vec<f32> = (0..items * len).map(|at| value(field(at % len))).collect();
    if precision == Precision::Half {
        output.iter_mut().for_each(|value| *value = from_half(to_half(*value)));
    }
    let outlet = Outlet { name: "out".to_owned(), shape: shape.to_vec() };
    let mut postprocessor = Postprocessor::bind(Arc::clone(&manifest), &[outlet]).map_err(|error| error.to_string())?;
    let head = postprocessor.head().ok_or("no head for the GPU")?;
    let most = 300;
    let layout = head.layout(items as u32, &shape, most).ok_or("no layout for the shape")?;
    let params: Vec<_> = (0..items)
        .map(|_| Params {
            score_threshold: numbers.real(0.05, 0.6),
            iou_threshold: numbers.real(0.1, 0.9),
            max_detections: numbers.between(0, most) as usize,
            classes: (numbers.between(0, 3) == 0).then(|| (0..classes).step_by(3).collect()),
        })
        .collect();
    let mut wishes = vec![0; layout.wishes_len()];
    for (item, params) in params.iter().enumerate() {
        params.write(&layout, item, &mut wishes);
    }
    let (wishes, work) = (place.put_words(&wishes)?, place.put(&vec![0xff; layout.work_len()])?);
    let results = place.put_words(&vec![!0; layout.results_len()])?;
    let values = match precision {
        Precision::Single => place.put_words(&output.iter().map(|value| value.to_bits()).collect::<Vec<_>>())?,
        Precision::Half => {
            place.put(&output.iter().flat_map(|value| to_half(*value).to_ne_bytes()).collect::<Vec<_>>())?
        }
    };
    let batch = layout.batch(P::address(&wishes), P::address(&work), P::address(&results));
    let mut compared = 0;
    // Twice, since memory is used again: nothing of the first run may be left.
    for _ in 0..2 {
        place.find(&head, batch, P::address(&values), precision)?;
        let words = place.words(&results)?;
        for (item, params) in params.iter().enumerate() {
            let letterbox = Letterbox::new(&manifest.input, 640, 480);
            let own = &output[item * len..][..len];
            let view = View { shape: &[1, shape[1], shape[2]], data: own };
            let expected = postprocessor.detections(&[view], &letterbox, params).map_err(|error| error.to_string())?;
            let found = postprocessor.decoded(layout.read(item, &words), &letterbox);
            if found != expected {
                let (found, expected) = (found.len(), expected.len());
                return Err(format!(
                    "{size:?}, {classes} classes, item {item} of {items}: other boxes, {found} and {expected}"
                ));
            }
            compared += expected.len() * 24;
        }
    }
    Ok(compared)
}

/// Overlays painted wherever kernels run: a copy of an annotator's masks, and what the host keeps for it.
#[derive(Default)]
pub struct Painter {
    atlas: Vec<u8>,
    seen: Revision,
    recording: Recording,
    parts: overlay::Parts,
}

impl Painter {
    /// What is in the memory of a picture when `overlay` was drawn on it there, and how many bytes of masks were copied.
    ///
    /// # Errors
    /// Those of the place.
    pub fn draw<P: Place>(
        &mut self,
        place: &P,
        annotator: &mut Annotator,
        (picture, pitch): (&I420, u32),
        color: ColorInfo,
        overlay: &Overlay<'_>,
    ) -> Result<(Vec<u8>, usize), String> {
        self.recording.begin(picture.width(), picture.height());
        annotator.draw(&mut self.recording, color, overlay);
        let (start, news) = annotator.atlas().since(self.seen);
        self.atlas.truncate(start);
        self.atlas.extend(news);
        self.seen = annotator.atlas().revision();
        let copied = news.len();
        let picture = Picture::interleave(picture, pitch, 0x5a);
        let (memory, atlas) = (place.put(picture.data())?, place.put(&self.atlas)?);
        self.parts.begin();
        while let Some(part) = self.parts.next(&self.recording) {
            let words = place.put_words(part.words())?;
            place.launch(&part.kernel(picture.at(P::address(&memory)), P::address(&atlas), P::address(&words)))?;
        }
        Ok((place.bytes(&memory)?, copied))
    }

    /// Bytes of masks that it keeps.
    pub const fn kept(&self) -> usize {
        self.atlas.len()
    }

    /// Shapes that found no room.
    pub const fn refused(&self) -> u64 {
        self.recording.refused()
    }
}

/// The same, drawn on the CPU.
pub fn drawn((picture, pitch): (&I420, u32), color: ColorInfo, overlay: &Overlay<'_>) -> Vec<u8> {
    let mut picture = picture.clone();
    Annotator::new().draw(&mut picture, color, overlay);
    Picture::interleave(&picture, pitch, 0x5a).data().to_vec()
}

/// A detection; one in three is of no object.
pub fn found(bbox: [f32; 4], id: u32, name: &str) -> Detection {
    let object_id = (!id.is_multiple_of(3)).then_some(u64::from(id) * 37);
    Detection { bbox, class: Class { id, name: name.into() }, score: 0.87, object_id, keypoints: Vec::new() }
}

fn painted<P: Place>(place: &P, numbers: &mut Numbers, picture: &I420) -> Result<usize, String> {
    let (width, height) = (picture.width() as f32, picture.height() as f32);
    let names = ["head", "Schutzhelm", "žluť € 漢", ""];
    let detections: Vec<_> = (0..numbers.between(0, 12))
        .map(|id| {
            let (x, y) = (numbers.real(-0.2 * width, width), numbers.real(-0.2 * height, height));
            let (right, bottom) = (x + numbers.real(0.0, width / 2.0), y + numbers.real(0.0, height / 2.0));
            found([x, y, right, bottom], id, numbers.one_of(&names))
        })
        .collect();
    let polygon: Vec<_> =
        (0..numbers.between(0, 8)).map(|_| [numbers.real(-0.3, 1.3), numbers.real(-0.3, 1.3)]).collect();
    let ends = [polygon.first(), polygon.last()].map(|end| end.copied().unwrap_or_default());
    let overlay = Overlay {
        detections: &detections,
        overall: None,
        boxes: numbers.between(0, 3) > 0,
        labels: numbers.between(0, 3) > 0,
        timing: &["latency 12 ms of 200 ms", "decode 1.2  queue 3.4  model 5.6"],
        zones: &[ZoneShape { name: numbers.one_of(&names), polygon: &polygon }],
        lines: &[LineShape { name: numbers.one_of(&names), from: ends[0], to: ends[1] }],
    };
    let color = any_color(numbers);
    let source = (picture, picture.width().next_multiple_of(2) + numbers.between(0, 40));
    let (made, _) = Painter::default().draw(place, &mut Annotator::new(), source, color, &overlay)?;
    same(&made, &drawn(source, color, &overlay))
}

//! A manifest for a graph that has none, as far as its tensors tell: what a decoder of [`super::decoder`] could read.

use std::fmt::Write as _;

use super::backend::{Description, Port, Seen};
use super::error::Error;
use super::manifest::{Layout, Manifest, Scores};
use crate::media::Task;

/// Side of the input where the graph leaves it open.
const OPEN_SIDE: u32 = 320;
/// Strides of the levels of anchors that detectors have.
const STRIDES: [u32; 3] = [8, 16, 32];

/// A guess at what a graph is.
#[derive(Debug, Clone, PartialEq)]
pub struct Proposal {
    /// What it seems to do.
    pub task: Task,
    /// What it seems to be, in a sentence.
    pub reason: String,
    /// The manifest's text, comments included.
    pub manifest: String,
    /// What the tensors do not tell.
    pub unknown: Vec<String>,
}

/// What the manifest is to say of the file.
#[derive(Debug, Clone, Copy)]
pub struct File<'a> {
    /// Name and version of the model.
    pub model: [&'a str; 2],
    /// Name of the graph's file.
    pub path: &'a str,
    /// Its SHA-256.
    pub sha256: &'a str,
}

/// The picture that a graph takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Picture {
    layout: Layout,
    channels: u32,
    /// Width and height.
    size: [u32; 2],
    /// Whether the graph leaves the size open.
    is_open: bool,
}

/// How the outputs may be read, and what is known of the rest of a model that has them.
struct Guess {
    task: Task,
    reason: String,
    /// Lines of `[output]`.
    output: String,
    classes: usize,
    names: &'static [&'static str],
    resize: &'static str,
    color: &'static str,
    pad: u32,
    /// Mean and scale of all channels.
    range: (f32, &'static str),
    thresholds: Option<[f32; 2]>,
}

impl Picture {
    /// The picture that a graph takes, or why it takes none.
    ///
    /// # Errors
    /// A sentence.
    pub fn of(inputs: &[Port]) -> Result<Self, String> {
        let [input] = inputs else {
            return Err(format!("it has {} inputs, and a picture is one", inputs.len()));
        };
        let [_, a, b, c] = input.shape[..] else {
            return Err(format!("`{}` has {} sides, and pictures have four", input.name, input.shape.len()));
        };
        if input.kind != "f32" {
            return Err(format!("`{}` is of {}, and pictures are made of f32", input.name, input.kind));
        }
        let is_color = |side: i64| side == 1 || side == 3;
        let (layout, channels, [height, width]) = match (is_color(a), is_color(c)) {
            (false, true) => (Layout::Nhwc, c, [a, b]),
            (true, _) => (Layout::Nchw, a, [b, c]),
            (false, false) if a < 0 || c < 0 => (Layout::Nchw, 3, [b, c]),
            (false, false) => return Err(format!("`{}` has neither 1 nor 3 colours", input.name)),
        };
        let is_open = width < 0 || height < 0;
        let side = |side: i64| if side < 0 { Some(OPEN_SIDE) } else { u32::try_from(side).ok() };
        match (side(width), side(height)) {
            (Some(width @ 8..=4096), Some(height @ 8..=4096)) => {
                Ok(Self { layout, channels: u32::try_from(channels).unwrap_or(3), size: [width, height], is_open })
            }
            _ => Err(format!("`{}` is no picture of 8 to 4096 pixels a side", input.name)),
        }
    }

    /// Shape of a tensor with one of it.
    #[must_use]
    pub const fn shape(&self) -> [usize; 4] {
        let ([width, height], channels) = (self.size, self.channels as usize);
        match self.layout {
            Layout::Nchw => [1, channels, height as usize, width as usize],
            Layout::Nhwc => [1, height as usize, width as usize, channels],
        }
    }

    /// Anchors of a detector with one for each cell of all levels.
    fn anchors(&self) -> usize {
        let cells = |stride: u32| self.size.map(|side| side.div_ceil(stride) as usize).iter().product::<usize>();
        STRIDES.into_iter().map(cells).sum()
    }

    /// Whether a map of rows and columns is of the picture's shape.
    fn is_like(&self, rows: usize, columns: usize) -> bool {
        let [width, height] = self.size.map(f64::from);
        let (across, down) = (width / columns.max(1) as f64, height / rows.max(1) as f64);
        rows > 1 && columns > 1 && (across / down - 1.0).abs() < 0.1 && across > 0.24
    }
}

impl Proposal {
    /// For a graph whose outputs were seen for a picture.
    #[must_use]
    pub fn new(description: &Description, picture: &Picture, file: &File<'_>) -> Self {
        let outputs: Vec<(&Port, &Seen)> =
            description.outputs.iter().filter_map(|port| Some((port, port.seen.as_ref()?))).collect();
        let guess = guess(&outputs, picture).unwrap_or_else(|| Guess {
            task: Task::Raw,
            reason: "no decoder reads such outputs, so that they are given as they are".to_owned(),
            output: "decoder = \"raw\"\n".to_owned(),
            ..Guess::of(Task::Raw, 0)
        });
        let mut unknown = Vec::new();
        let input = description.inputs.first().map(|input| input.name.as_str()).unwrap_or_default();
        let manifest = guess.write(input, picture, file, &mut unknown);
        Self { task: guess.task, reason: guess.reason, manifest, unknown }
    }

    /// The manifest, read.
    ///
    /// # Errors
    /// [`Error::Manifest`], where the name or version that it was made with is not legal.
    pub fn parse(&self) -> Result<Manifest, Error> {
        Manifest::parse(&self.manifest, |file| {
            Err(Error::Read { path: file.into(), reason: "a proposal has no other file".to_owned() })
        })
    }
}

impl Guess {
    fn of(task: Task, classes: usize) -> Self {
        Self {
            task,
            reason: String::new(),
            output: String::new(),
            classes,
            names: &[],
            resize: "stretch",
            color: "rgb",
            pad: 114,
            range: (0.0, "0.003921569"),
            thresholds: None,
        }
    }

    fn write(&self, input: &str, picture: &Picture, file: &File<'_>, unknown: &mut Vec<String>) -> String {
        let ([name, version], [width, height]) = (file.model, picture.size);
        let mut note = |text: String| {
            let comment = format!("# Not known from the tensors: {text}\n");
            unknown.push(text);
            comment
        };
        let is_gray = picture.channels == 1;
        let layout = if picture.layout == Layout::Nchw { "nchw" } else { "nhwc" };
        let color = if is_gray { "gray" } else { self.color };
        let (mean, scale) = self.range;
        let each = |value: &str| vec![value; picture.channels as usize].join(", ");
        let mut text = format!("name = \"{name}\"\nversion = \"{version}\"\ntask = \"{}\"\n", self.task.name());
        text += &note("the licence of the weights, as an SPDX expression".to_owned());
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "licence = \"LicenseRef-unknown\"\n\n[file]\npath = \"{}\"\nsha256 = \"{}\"\n\n[input]\ntensor = \"{input}\"\n\
             layout = \"{layout}\"\n",
            file.path, file.sha256
        );
        if !is_gray {
            text += &note(format!("the order of the colours, rgb or bgr; {color} is usual for such outputs"));
        }
        let _ = writeln!(text, "color = \"{color}\"");
        if picture.is_open {
            text += &note(format!("the size, which the graph leaves open; {width} by {height} was tried"));
        }
        let _ = writeln!(text, "size = [{width}, {height}]");
        text += &note(
            "how pictures were fitted in: stretch, letterbox-center or letterbox-top-left, and with which pad"
                .to_owned(),
        );
        let _ = writeln!(text, "resize = \"{}\"\npad = {}", self.resize, self.pad);
        text += &note(
            "the range of values that it was trained on: value = (pixel - mean) * scale, pixels 0..255".to_owned(),
        );
        let _ = write!(
            text,
            "mean = [{}]\nscale = [{}]\n\n[output]\n{}",
            each(&format!("{mean:.1}")),
            each(scale),
            self.output
        );
        if self.task == Task::Raw {
            return text;
        }
        text += "\n[classes]\n";
        let mut names: Vec<String> = self.names.iter().map(|&name| name.to_owned()).collect();
        if names.len() != self.classes {
            let usual = match self.classes {
                80 => "; 80 are often those of COCO",
                20 => "; 20 beside the background are often those of Pascal VOC",
                1000 => "; 1000 are often those of ImageNet",
                _ => "",
            };
            text += &note(format!("the names of its {} classes{usual}", self.classes));
            names = (0..self.classes).map(|class| format!("class_{class}")).collect();
        }
        let names: Vec<_> = names.iter().map(|name| format!("\"{name}\"")).collect();
        let _ = writeln!(text, "names = [{}]", names.join(", "));
        if let Some([score, iou]) = self.thresholds {
            let _ =
                write!(text, "\n[defaults]\nscore_threshold = {score}\niou_threshold = {iou}\nmax_detections = 100\n");
        }
        text
    }
}

fn guess(outputs: &[(&Port, &Seen)], picture: &Picture) -> Option<Guess> {
    let singles = || outputs.iter().filter_map(|(port, seen)| single(port, seen, picture));
    yunet(outputs).or_else(|| ssd_boxes(outputs)).or_else(|| singles().next())
}

/// YuNet's outputs, by their names.
fn yunet(outputs: &[(&Port, &Seen)]) -> Option<Guess> {
    let has = |name: &str, stride: u32| outputs.iter().any(|(port, _)| port.name == format!("{name}_{stride}"));
    let strides: Vec<_> = [4, 8, 16, 32, 64]
        .into_iter()
        .filter(|stride| ["cls", "obj", "bbox"].iter().all(|name| has(name, *stride)))
        .collect();
    if strides.is_empty() {
        return None;
    }
    let with_points = strides.iter().all(|stride| has("kps", *stride));
    let task = if with_points { Task::Pose } else { Task::Detect };
    Some(Guess {
        reason: format!(
            "outputs `cls_S`, `obj_S` and `bbox_S` for strides {strides:?} are those of YuNet, which finds faces"
        ),
        output: format!("decoder = \"yunet\"\nstrides = {strides:?}\n"),
        names: &["face"],
        resize: "letterbox-top-left",
        color: "bgr",
        pad: 0,
        range: (0.0, "1.0"),
        thresholds: Some([0.5, 0.45]),
        ..Guess::of(task, 1)
    })
}

/// Boxes `[N, P, 4]` and scores `[N, P, K]` of as many.
fn ssd_boxes(outputs: &[(&Port, &Seen)]) -> Option<Guess> {
    let boxes = outputs.iter().find(|(_, seen)| matches!(seen.shape[..], [_, _, 4]))?;
    let priors = boxes.1.shape[1];
    let scores = outputs.iter().find(|(port, seen)| {
        port.name != boxes.0.name && matches!(seen.shape[..], [_, found, columns] if found == priors && columns > 0)
    })?;
    let columns = scores.1.shape[2];
    // With background they add up to one.
    let background = columns > 1 && scores.1.data.chunks_exact(columns).all(adds_up_to_one);
    let classes = columns - usize::from(background);
    Some(Guess {
        reason: format!(
            "`{}` has scores and `{}` corners for {priors} boxes, as heads of SSD do",
            scores.0.name, boxes.0.name
        ),
        output: format!(
            "decoder = \"ssd-boxes\"\nscores = \"{}\"\nboxes = \"{}\"\nbackground = \"{}\"\n",
            scores.0.name,
            boxes.0.name,
            if background { "first" } else { "none" }
        ),
        range: (127.0, "0.0078125"),
        thresholds: Some([0.5, 0.45]),
        ..Guess::of(Task::Detect, classes)
    })
}

/// What a single output may be.
fn single(port: &Port, seen: &Seen, picture: &Picture) -> Option<Guess> {
    let tensor = |decoder: &str, more: &str| format!("decoder = \"{decoder}\"\ntensor = \"{}\"\n{more}", port.name);
    let anchors = picture.anchors();
    match seen.shape[..] {
        [1, rows, columns] if rows == anchors && columns > 5 => Some(Guess {
            reason: format!("{anchors} rows of 5 and {} numbers are those of YOLOX, not decoded", columns - 5),
            output: tensor("yolox", "strides = [8, 16, 32]\n"),
            resize: "letterbox-top-left",
            color: "bgr",
            range: (0.0, "1.0"),
            thresholds: Some([0.35, 0.45]),
            ..Guess::of(Task::Detect, columns - 5)
        }),
        [1, rows, columns] if columns == anchors && rows > 4 => Some(Guess {
            reason: format!("4 and {} rows of {anchors} numbers are those of YOLOv8", rows - 4),
            output: tensor("yolov8", ""),
            resize: "letterbox-center",
            thresholds: Some([0.35, 0.45]),
            ..Guess::of(Task::Detect, rows - 4)
        }),
        [1, channels, rows, columns] if is_fastestdet(seen, channels, rows * columns) => Some(Guess {
            reason: format!("5 and {} planes of {columns} by {rows} cells are those of FastestDet", channels - 5),
            output: tensor("fastestdet", ""),
            color: "bgr",
            thresholds: Some([0.5, 0.45]),
            ..Guess::of(Task::Detect, channels - 5)
        }),
        [1, ref sides @ ..] if sides.iter().filter(|side| **side > 1).count() == 1 => {
            let classes: usize = sides.iter().product();
            let scores = if adds_up_to_one(&seen.data) { Scores::Probabilities } else { Scores::Logits };
            let told = if scores == Scores::Logits { "logits" } else { "probabilities" };
            Some(Guess {
                reason: format!("`{}` has a number for each of {classes} classes, {told}", port.name),
                output: tensor("softmax", &format!("scores = \"{told}\"\ntop_k = {}\n", classes.min(5))),
                ..Guess::of(Task::Classify, classes)
            })
        }
        [1, rows, columns] if picture.is_like(rows, columns) && port.kind != "f32" => {
            let most = seen.data.iter().copied().fold(1.0, f32::max);
            Some(numbers(port, tensor("argmax", "background = \"first\"\n"), most))
        }
        [1, 1, rows, columns] | [1, rows, columns, 1] if picture.is_like(rows, columns) && port.kind != "f32" => {
            let most = seen.data.iter().copied().fold(1.0, f32::max);
            let layout = if seen.shape[1] == 1 { "nchw" } else { "nhwc" };
            Some(numbers(port, tensor("argmax", &format!("layout = \"{layout}\"\nbackground = \"first\"\n")), most))
        }
        [1, rows, columns, channels] if picture.is_like(rows, columns) && (2..=255).contains(&channels) => Some(
            logits(port, [columns, rows, channels], tensor("argmax", "layout = \"nhwc\"\nbackground = \"first\"\n")),
        ),
        [1, channels, rows, columns] if picture.is_like(rows, columns) && (2..=255).contains(&channels) => Some(
            logits(port, [columns, rows, channels], tensor("argmax", "layout = \"nchw\"\nbackground = \"first\"\n")),
        ),
        _ => None,
    }
}

/// Whether there is objectness of 0..1 and, for each cell, class scores that add up to one.
fn is_fastestdet(seen: &Seen, channels: usize, cells: usize) -> bool {
    if channels < 7 || cells == 0 {
        return false;
    }
    let planes: Vec<_> = seen.data.chunks_exact(cells).collect();
    let is_score = planes[0].iter().all(|object| (0.0..=1.0).contains(object));
    is_score && (0..cells).all(|cell| is_one(planes[5..].iter().map(|plane| plane[cell]).sum()))
}

fn logits(port: &Port, [columns, rows, channels]: [usize; 3], output: String) -> Guess {
    Guess {
        reason: format!(
            "`{}` has {channels} numbers for each of {columns} by {rows} pixels, the first for the background",
            port.name
        ),
        output,
        ..Guess::of(Task::Segment, channels - 1)
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped first")]
fn numbers(port: &Port, output: String, most: f32) -> Guess {
    Guess {
        reason: format!("`{}` has the number of a class for each pixel, {most} at most for noise", port.name),
        output,
        ..Guess::of(Task::Segment, most.clamp(1.0, 254.0) as usize)
    }
}

fn adds_up_to_one(scores: &[f32]) -> bool {
    scores.iter().all(|score| (-1e-6..=1.0 + 1e-6).contains(score)) && is_one(scores.iter().sum())
}

fn is_one(sum: f32) -> bool {
    (sum - 1.0).abs() < 1e-3
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    fn port(name: &str, kind: &str, shape: &[i64], data: impl Fn(usize) -> f32) -> Port {
        let sides: Vec<usize> = shape.iter().map(|side| usize::try_from(*side).unwrap_or(1)).collect();
        let data = (0..sides.iter().product()).map(data).collect();
        let seen = Some(Seen { shape: sides, data });
        Port { name: name.to_owned(), kind: kind.to_owned(), shape: shape.to_vec(), seen }
    }

    fn proposed(input: &[i64], outputs: Vec<Port>) -> (Proposal, Manifest) {
        let inputs = vec![port("in", "f32", input, |_| 0.0)];
        let picture = Picture::of(&inputs).unwrap();
        let file = File { model: ["x", "1"], path: "model.onnx", sha256: &"0".repeat(64) };
        let proposal = Proposal::new(&Description { inputs, outputs }, &picture, &file);
        let manifest = proposal.parse().unwrap_or_else(|error| panic!("{error}\n{}", proposal.manifest));
        assert_eq!(manifest.task, proposal.task);
        (proposal, manifest)
    }

    #[test]
    fn decoders_are_told_by_their_shapes() {
        let wild = |at: usize| (at % 17) as f32 - 5.0;
        for (input, outputs, decoder, classes) in [
            (&[1, 3, 320, 320][..], vec![port("o", "f32", &[1, 84, 2100], wild)], "yolov8", 80),
            (&[-1, 3, 416, 416], vec![port("o", "f32", &[-1, 3549, 85], wild)], "yolox", 80),
            (&[1, 3, 640, 640], vec![port("o", "f32", &[1, 25200, 85], wild)], "raw", 0),
            (&[1, 3, 224, 224], vec![port("o", "f32", &[1, 1000], wild)], "softmax", 1000),
            (&[1, 3, 224, 224], vec![port("o", "f32", &[1, 10, 1, 1], wild)], "softmax", 10),
            (&[1, 224, 224, 3], vec![port("o", "f32", &[1, 224, 224, 7], wild)], "argmax", 6),
            (&[1, 3, 512, 256], vec![port("o", "f32", &[1, 19, 128, 64], wild)], "argmax", 18),
            (&[1, 3, 64, 128], vec![port("o", "i64", &[1, 64, 128], |at| (at % 5) as f32)], "argmax", 4),
            (&[1, 3, 64, 128], vec![port("o", "i64", &[1, 1, 64, 128], |at| (at % 5) as f32)], "argmax", 4),
            (&[1, 3, 64, 64], vec![port("o", "f32", &[1, 3, 9, 2], wild)], "raw", 0),
            (
                &[1, 3, 240, 320],
                vec![port("s", "f32", &[1, 50, 3], |_| 1.0 / 3.0), port("b", "f32", &[1, 50, 4], wild)],
                "ssd-boxes",
                2,
            ),
            (
                &[1, 3, 240, 320],
                vec![port("b", "f32", &[1, 50, 4], wild), port("s", "f32", &[1, 50, 3], |_| 0.9)],
                "ssd-boxes",
                3,
            ),
            (
                &[1, 3, 352, 352],
                vec![port("o", "f32", &[1, 9, 22, 22], |at| if at < 5 * 484 { 0.5 } else { 0.25 })],
                "fastestdet",
                4,
            ),
        ] {
            let (proposal, manifest) = proposed(input, outputs);
            assert_eq!((manifest.output.name(), manifest.classes.len()), (decoder, classes), "{proposal:#?}");
        }
    }

    #[test]
    fn scores_that_add_up_to_one_are_probabilities() {
        let told = |value: f32| proposed(&[1, 1, 28, 28], vec![port("o", "f32", &[1, 4], |_| value)]).1.output;
        assert!(matches!(told(0.25), super::super::manifest::Output::Softmax { scores: Scores::Probabilities, .. }));
        assert!(matches!(told(0.5), super::super::manifest::Output::Softmax { scores: Scores::Logits, .. }));
    }

    #[test]
    fn what_is_not_known_is_said_in_the_text_and_beside_it() {
        let (proposal, manifest) = proposed(&[-1, 3, -1, -1], vec![port("o", "f32", &[-1, 10], |_| 3.0)]);
        assert_eq!(manifest.input.size, [320, 320]);
        for part in ["licence", "rgb or bgr", "leaves open", "stretch", "(pixel - mean)", "10 classes"] {
            assert!(proposal.unknown.iter().any(|one| one.contains(part)), "{part}: {:?}", proposal.unknown);
            assert!(proposal.manifest.lines().any(|line| line.starts_with("# Not known") && line.contains(part)));
        }
        let (gray, _) = proposed(&[1, 1, 28, 28], vec![port("o", "f32", &[1, 10], |_| 3.0)]);
        assert!(!gray.manifest.contains("bgr") && gray.manifest.contains("color = \"gray\""));
    }

    #[test]
    fn a_graph_that_takes_no_picture_says_why() {
        let why = |inputs: &[Port]| Picture::of(inputs).unwrap_err();
        let picture = port("a", "f32", &[1, 3, 64, 64], |_| 0.0);
        assert!(why(&[picture.clone(), picture.clone()]).contains("2 inputs"));
        assert!(why(&[port("a", "f32", &[1, 128], |_| 0.0)]).contains("2 sides"));
        assert!(why(&[port("a", "u8", &[1, 3, 64, 64], |_| 0.0)]).contains("of u8"));
        assert!(why(&[port("a", "f32", &[1, 4, 64, 64], |_| 0.0)]).contains("neither 1 nor 3"));
        assert!(why(&[port("a", "f32", &[1, 3, 4, 4], |_| 0.0)]).contains("8 to 4096"));
    }
}

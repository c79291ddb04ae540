//! `manifest.toml`: what a model is, what it takes, and how its outputs are to be read.

mod table;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use self::table::{Mistakes, Table};
use super::error::{Error, Mistake};
use crate::media::Class;

/// Largest loss of AP (0..1) against fp32 at which `auto` may take a lower precision.
pub const MAX_ACCURACY_LOSS: f32 = 0.01;

/// Everything that a model's manifest says, validated.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// Name: lower-case letters, digits, `-`, `_` and `.`.
    pub name: String,
    /// Version, of the same characters.
    pub version: String,
    /// What the model does.
    pub task: Task,
    /// SPDX expression of the weights' licence.
    pub licence: String,
    /// The fp32 graph.
    pub file: FileRef,
    /// An int8 twin of the graph (`[variants.int8]`), with the same input and outputs.
    pub int8: Option<FileRef>,
    /// The tensor that goes in.
    pub input: Input,
    /// How the outputs are read.
    pub output: Output,
    /// Class names by id.
    pub classes: Vec<Class>,
    /// What a session gets that states nothing else.
    pub defaults: Defaults,
    /// How frames may be run together.
    pub batching: Batching,
    /// How the model is run.
    pub run: Run,
    /// Measured losses of lower precisions.
    pub accuracy: Accuracy,
    /// Runs before the model counts as ready (`accuracy.warmup`).
    pub warmup: u32,
}

/// What a model does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Boxes, classes and scores.
    Detect,
}

impl Task {
    /// Name in the manifest and in the API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Detect => "detect",
        }
    }
}

/// A file beside the manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileRef {
    /// File name; never a path that leaves the model's folder.
    pub path: String,
    /// SHA-256 in lower-case hexadecimal; checked when given.
    pub sha256: Option<String>,
}

/// Order of the input tensor's axes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// `[N, C, H, W]`.
    Nchw,
    /// `[N, H, W, C]`.
    Nhwc,
}

/// What the input's channels are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channels {
    /// Red, green, blue.
    Rgb,
    /// Blue, green, red.
    Bgr,
    /// One channel: luma.
    Gray,
}

impl Channels {
    /// Number of channels.
    #[must_use]
    pub const fn count(self) -> usize {
        match self {
            Self::Rgb | Self::Bgr => 3,
            Self::Gray => 1,
        }
    }
}

/// How a picture is fitted into the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resize {
    /// Keep the shape; the picture is in the middle.
    LetterboxCenter,
    /// Keep the shape; the picture is at the top left.
    LetterboxTopLeft,
    /// Fill the input, whatever the shape.
    Stretch,
}

/// The tensor that a model takes: f32, one picture an item. Its values are `(pixel - mean) * scale`, pixels 0..255.
#[derive(Debug, Clone, PartialEq)]
pub struct Input {
    /// Name; none: the only input.
    pub tensor: Option<String>,
    /// Order of its axes.
    pub layout: Layout,
    /// What its channels are.
    pub color: Channels,
    /// Width and height.
    pub size: [u32; 2],
    /// How a picture is fitted in.
    pub resize: Resize,
    /// Pixel value around a letterboxed picture, 0..255.
    pub pad: f32,
    /// Subtracted from the pixels, by channel in the input's order; gray reads the first only.
    pub mean: [f32; 3],
    /// Factor after that.
    pub scale: [f32; 3],
}

impl Input {
    /// Shape of the tensor for `batch` pictures.
    #[must_use]
    pub const fn shape(&self, batch: usize) -> [usize; 4] {
        let ([width, height], channels) = (self.size, self.color.count());
        match self.layout {
            Layout::Nchw => [batch, channels, height as usize, width as usize],
            Layout::Nhwc => [batch, height as usize, width as usize, channels],
        }
    }

    /// Values of one picture.
    #[must_use]
    pub const fn item_len(&self) -> usize {
        let [_, a, b, c] = self.shape(1);
        a * b * c
    }
}

/// Which decoder reads the outputs, and what it needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// `[N, 4 + classes, anchors]`: centre x, centre y, width, height in input pixels, then class scores.
    Yolov8 {
        /// Output name; none: the only output.
        tensor: Option<String>,
    },
    /// `[N, anchors, 5 + classes]`, undecoded: offsets, log sizes, objectness, class scores.
    Yolox {
        /// Output name; none: the only output.
        tensor: Option<String>,
        /// Strides of the levels, in the order of the anchors.
        strides: Vec<u32>,
    },
    /// Scores `[N, priors, columns]` and corners `[N, priors, 4]` in 0..1 of the input.
    SsdBoxes {
        /// Name of the scores.
        scores: String,
        /// Name of the boxes.
        boxes: String,
        /// Whether column 0 of the scores is background; class 0 is then column 1.
        background: bool,
    },
    /// `cls_S`, `obj_S` and `bbox_S` for each stride S.
    Yunet {
        /// Strides of the levels.
        strides: Vec<u32>,
    },
}

impl Output {
    /// Name of the decoder.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Yolov8 { .. } => "yolov8",
            Self::Yolox { .. } => "yolox",
            Self::SsdBoxes { .. } => "ssd-boxes",
            Self::Yunet { .. } => "yunet",
        }
    }
}

/// What a session gets that states nothing else.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Defaults {
    /// Lowest score that is reported; default 0.35.
    pub score_threshold: f32,
    /// Overlap above which the weaker of two boxes of one class goes; default 0.45.
    pub iou_threshold: f32,
    /// Detections reported at most; default 100.
    pub max_detections: usize,
}

/// How frames may be run together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batching {
    /// Frames in one run at most; default 1.
    pub max_batch: u32,
    /// Longest that a frame waits for others; default 0.
    pub max_delay: Duration,
    /// Batch sizes that the model is best at, ascending.
    pub preferred: Vec<u32>,
}

/// How the model is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Instances, each with its own thread and memory; default 1.
    pub instances: u32,
    /// Precision; default fp32.
    pub precision: Precision,
    /// Backend; default auto.
    pub backend: BackendChoice,
}

/// Precision that a manifest or an operator asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// 32-bit floats.
    Fp32,
    /// bfloat16, where the CPU multiplies it.
    Bf16,
    /// 16-bit floats.
    Fp16,
    /// The int8 variant.
    Int8,
    /// The fastest that loses no more than [`MAX_ACCURACY_LOSS`].
    Auto,
}

impl Precision {
    /// Name in manifests and in the API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fp32 => "fp32",
            Self::Bf16 => "bf16",
            Self::Fp16 => "fp16",
            Self::Int8 => "int8",
            Self::Auto => "auto",
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Backend that a manifest or an operator asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackendChoice {
    /// The faster one, measured when the model is loaded.
    Auto,
    /// ONNX Runtime's own CPU provider.
    Cpu,
    /// OpenVINO on the CPU.
    OpenVino,
}

/// AP (0..1) that a lower precision loses against fp32, as `saccade models check` measured it; none: not measured, so
/// `auto` leaves it out.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Accuracy {
    /// Loss in bfloat16.
    pub bf16: Option<f32>,
    /// Loss in 16-bit floats.
    pub fp16: Option<f32>,
    /// Loss of the int8 variant.
    pub int8: Option<f32>,
}

impl Manifest {
    /// Reads a manifest. `read_file` gives the text of a file beside it, for `classes.file`.
    ///
    /// # Errors
    /// [`Error::Manifest`] with all mistakes at once, each with its key.
    pub fn parse(text: &str, read_file: impl FnOnce(&str) -> Result<String, Error>) -> Result<Self, Error> {
        let root = text.parse::<toml::Table>().map_err(|error| Error::Manifest {
            mistakes: vec![Mistake { key: "(toml)".to_owned(), problem: one_line(error.message(), &error, text) }],
        })?;
        let mistakes = Mistakes::default();
        let manifest = parse_root(Table::root(root, &mistakes), read_file);
        let mistakes = mistakes.into_inner();
        match manifest {
            Some(manifest) if mistakes.is_empty() => Ok(manifest),
            _ => Err(Error::Manifest { mistakes }),
        }
    }

    /// `name@version`.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{}@{}", self.name, self.version)
    }
}

fn one_line(message: &str, error: &toml::de::Error, text: &str) -> String {
    let line = error.span().map_or(0, |span| text.get(..span.start).unwrap_or(text).matches('\n').count() + 1);
    format!("line {line}: {}", message.replace('\n', " "))
}

fn parse_root(mut root: Table<'_>, read_file: impl FnOnce(&str) -> Result<String, Error>) -> Option<Manifest> {
    let name = identifier(&mut root, "name");
    let version = identifier(&mut root, "version");
    let task = root.choice("task", &[("detect", Task::Detect)]).unwrap_or(Task::Detect);
    let licence = root.required_string("licence");
    let file = file_ref(root.table("file"), "model.onnx");
    let mut variants = root.table("variants");
    let int8 = variants.optional_table("int8").map(|table| file_ref(table, "model.int8.onnx"));
    variants.finish();
    let input = input(root.table("input"));
    let output = output(root.table("output"));
    let classes = classes(root.table("classes"), read_file);
    let defaults = defaults(root.table("defaults"));
    let batching = batching(root.table("batching"));
    let run = run(root.table("run"));
    let (accuracy, warmup) = accuracy(root.table("accuracy"));
    if run.precision == Precision::Int8 && int8.is_none() {
        root.mistake("run.precision", "int8 needs a [variants.int8] file");
    }
    root.finish();
    Some(Manifest {
        name: name?,
        version: version?,
        task,
        licence: licence?,
        file,
        int8,
        input: input?,
        output: output?,
        classes: classes?,
        defaults,
        batching,
        run,
        accuracy,
        warmup,
    })
}

fn identifier(root: &mut Table<'_>, key: &'static str) -> Option<String> {
    let text = root.required_string(key)?;
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
    if text.len() <= 64 && text.chars().all(legal) && !text.starts_with('.') {
        return Some(text);
    }
    root.mistake(key, format!("\"{text}\" is not legal: up to 64 of a-z, 0-9, `-`, `_`, `.`, no dot first"));
    None
}

fn file_ref(mut table: Table<'_>, default: &str) -> FileRef {
    let path = table.string("path").unwrap_or_else(|| default.to_owned());
    if path.contains(['/', '\\']) || path == ".." || path == "." {
        table.mistake("path", format!("\"{path}\" is not legal: the name of a file beside the manifest is needed"));
    }
    let sha256 = table.string("sha256").map(|text| text.to_ascii_lowercase());
    if let Some(text) = sha256.as_ref().filter(|text| text.len() != 64 || !text.chars().all(|c| c.is_ascii_hexdigit()))
    {
        table.mistake("sha256", format!("\"{text}\" is not legal: 64 hexadecimal digits are needed"));
    }
    table.finish();
    FileRef { path, sha256 }
}

fn input(mut table: Table<'_>) -> Option<Input> {
    let tensor = table.string("tensor");
    let layout = table.choice("layout", &[("nchw", Layout::Nchw), ("nhwc", Layout::Nhwc)]).unwrap_or(Layout::Nchw);
    let colors = [("rgb", Channels::Rgb), ("bgr", Channels::Bgr), ("gray", Channels::Gray)];
    let color = table.choice("color", &colors).unwrap_or(Channels::Rgb);
    let resizes = [
        ("letterbox-center", Resize::LetterboxCenter),
        ("letterbox-top-left", Resize::LetterboxTopLeft),
        ("stretch", Resize::Stretch),
    ];
    let resize = table.choice("resize", &resizes).unwrap_or(Resize::LetterboxCenter);
    if !table.has("size") {
        table.mistake("size", "is missing: [width, height], each from 8 to 4096");
    }
    let size = table.integers("size", 2..=2, 8..=4096);
    let pad = table.float("pad", 0.0..=255.0).unwrap_or(114.0);
    let mean = by_channel(table.floats("mean", color.count(), -1e6..=1e6), 0.0);
    let scale = by_channel(table.floats("scale", color.count(), -1e6..=1e6), 1.0);
    table.finish();
    let size = size?;
    Some(Input { tensor, layout, color, size: [size[0], size[1]], resize, pad, mean, scale })
}

fn by_channel(values: Option<Vec<f32>>, default: f32) -> [f32; 3] {
    let values = values.unwrap_or_default();
    std::array::from_fn(|channel| values.get(channel).copied().unwrap_or(default))
}

fn output(mut table: Table<'_>) -> Option<Output> {
    #[derive(Clone, Copy)]
    enum Kind {
        Yolov8,
        Yolox,
        SsdBoxes,
        Yunet,
    }
    let kinds =
        [("yolov8", Kind::Yolov8), ("yolox", Kind::Yolox), ("ssd-boxes", Kind::SsdBoxes), ("yunet", Kind::Yunet)];
    if !table.has("decoder") {
        table.mistake("decoder", format!("is missing: one of {}", table::names(&kinds)));
    }
    // The other keys depend on the decoder: without it, they are not looked at.
    let kind = table.choice("decoder", &kinds)?;
    let output = match kind {
        Kind::Yolov8 => Output::Yolov8 { tensor: table.string("tensor") },
        Kind::Yolox => Output::Yolox { tensor: table.string("tensor"), strides: strides(&mut table) },
        Kind::SsdBoxes => Output::SsdBoxes {
            scores: table.string("scores").unwrap_or_else(|| "scores".to_owned()),
            boxes: table.string("boxes").unwrap_or_else(|| "boxes".to_owned()),
            background: table.choice("background", &[("first", true), ("none", false)]).unwrap_or(true),
        },
        Kind::Yunet => Output::Yunet { strides: strides(&mut table) },
    };
    table.finish();
    Some(output)
}

fn strides(table: &mut Table<'_>) -> Vec<u32> {
    table.integers("strides", 1..=8, 1..=256).unwrap_or_else(|| vec![8, 16, 32])
}

fn classes(mut table: Table<'_>, read_file: impl FnOnce(&str) -> Result<String, Error>) -> Option<Vec<Class>> {
    match (table.has("names"), table.has("file")) {
        (true, true) => table.mistake("file", "is not legal together with `names`"),
        (false, false) => table.mistake("names", "is missing: a list of class names, or `file`"),
        _ => {}
    }
    let names = table.strings("names");
    let file = table.string("file");
    let names = names.or_else(|| from_file(&table, &file?, read_file));
    if let Some(names) = &names {
        let mut seen = HashSet::new();
        if let Some(twice) = names.iter().find(|name| name.is_empty() || !seen.insert(name.as_str())) {
            table.mistake("names", format!("\"{twice}\" is empty or there twice"));
        }
    }
    table.finish();
    let classes = (0..).zip(names?).map(|(id, name)| Class { id, name: Arc::from(name) });
    Some(classes.collect())
}

fn from_file(table: &Table<'_>, file: &str, read: impl FnOnce(&str) -> Result<String, Error>) -> Option<Vec<String>> {
    if file.contains(['/', '\\']) || file.starts_with('.') {
        table.mistake("file", format!("\"{file}\" is not legal: the name of a file beside the manifest is needed"));
        return None;
    }
    match read(file) {
        Ok(text) => Some(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect()),
        Err(error) => {
            table.mistake("file", error.to_string());
            None
        }
    }
}

fn defaults(mut table: Table<'_>) -> Defaults {
    let defaults = Defaults {
        score_threshold: table.float("score_threshold", 0.0..=1.0).unwrap_or(0.35),
        iou_threshold: table.float("iou_threshold", 0.0..=1.0).unwrap_or(0.45),
        max_detections: table.integer("max_detections", 1..=1000).unwrap_or(100) as usize,
    };
    table.finish();
    defaults
}

fn batching(mut table: Table<'_>) -> Batching {
    let max_batch = table.integer("max_batch", 1..=64).unwrap_or(1);
    let max_delay = Duration::from_millis(u64::from(table.integer("max_delay_ms", 0..=1000).unwrap_or(0)));
    let mut preferred = table.integers("preferred", 1..=16, 1..=max_batch).unwrap_or_default();
    preferred.sort_unstable();
    table.finish();
    Batching { max_batch, max_delay, preferred }
}

fn run(mut table: Table<'_>) -> Run {
    let precisions = [Precision::Fp32, Precision::Bf16, Precision::Fp16, Precision::Int8, Precision::Auto]
        .map(|precision| (precision.name(), precision));
    let backends = [("auto", BackendChoice::Auto), ("cpu", BackendChoice::Cpu), ("openvino", BackendChoice::OpenVino)];
    let run = Run {
        instances: table.integer("instances", 1..=64).unwrap_or(1),
        precision: table.choice("precision", &precisions).unwrap_or(Precision::Fp32),
        backend: table.choice("backend", &backends).unwrap_or(BackendChoice::Auto),
    };
    table.finish();
    run
}

fn accuracy(mut table: Table<'_>) -> (Accuracy, u32) {
    let accuracy = Accuracy {
        bf16: table.float("bf16", -1.0..=1.0),
        fp16: table.float("fp16", -1.0..=1.0),
        int8: table.float("int8", -1.0..=1.0),
    };
    let warmup = table.integer("warmup", 0..=100).unwrap_or(3);
    table.finish();
    (accuracy, warmup)
}

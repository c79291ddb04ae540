//! `manifest.toml`: what a model is, what it takes, and how its outputs are to be read.

mod batching;
mod output;
pub(crate) mod table;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

pub use self::batching::Batching;
pub use self::output::{Output, Scores};
use self::table::{Mistakes, Table};
use super::error::Error;
use crate::media::Class;
pub use crate::media::Task;
use crate::route;

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
    /// A twin of the graph in half precision (`[variants.fp16]`), with the same input and outputs, each in 16-bit or 32-bit
    /// floats. A GPU computes in what its graph says.
    pub fp16: Option<FileRef>,
    /// The tensor that goes in.
    pub input: Input,
    /// How the outputs are read.
    pub output: Output,
    /// Class names by id; none where the model gives raw tensors.
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

    /// Whether a picture gives the same values for another input, whatever their names.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        let Self { tensor: _, layout, color, size, resize, pad, mean, scale } = self;
        (layout, color, size, resize, pad, mean, scale)
            == (&other.layout, &other.color, &other.size, &other.resize, &other.pad, &other.mean, &other.scale)
    }

    /// Values of one picture.
    #[must_use]
    pub const fn item_len(&self) -> usize {
        let [_, a, b, c] = self.shape(1);
        a * b * c
    }
}

/// What a session gets that states nothing else.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Defaults {
    /// Lowest score that is reported; default 0.35, and 0 where a model names classes of the whole frame.
    pub score_threshold: f32,
    /// Overlap above which the weaker of two boxes of one class goes; default 0.45.
    pub iou_threshold: f32,
    /// Detections reported at most; default 100. Of classes of the whole frame `output.top_k`.
    pub max_detections: usize,
}

impl Defaults {
    fn read(mut table: Table<'_>, output: Option<&Output>) -> Self {
        let top_k = if let Some(Output::Softmax { top_k, .. }) = output { Some(*top_k) } else { None };
        if top_k.is_some() && table.has("max_detections") {
            table.mistake("max_detections", "is not legal for classification: `output.top_k` says how many classes");
        }
        let max_detections = table.integer("max_detections", 1..=1000);
        let defaults = Self {
            score_threshold: table.float("score_threshold", 0.0..=1.0).unwrap_or(if top_k.is_some() {
                0.0
            } else {
                0.35
            }),
            iou_threshold: table.float("iou_threshold", 0.0..=1.0).unwrap_or(0.45),
            max_detections: top_k.or(max_detections).unwrap_or(100) as usize,
        };
        table.finish();
        defaults
    }
}

/// How the model is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// Instances, each with its own thread and memory; default: as many as the machine's cores can feed.
    pub instances: Option<u32>,
    /// Precision; default fp32.
    pub precision: Option<Precision>,
    /// Backend; default auto.
    pub backend: BackendChoice,
    /// Mebibytes of a GPU's memory at most, for each batch size that it is run in; default: no limit.
    pub device_memory_mb: Option<u32>,
    /// Another model with the same classes and a smaller input, as `NAME` or `NAME@VERSION`, which takes over under load.
    pub smaller: Option<String>,
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
    /// What a graph can be run in.
    pub(in crate::infer) const ALL: [Self; 4] = [Self::Fp32, Self::Bf16, Self::Fp16, Self::Int8];

    /// What is run in has this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|precision| precision.name() == name)
    }

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
    /// The fastest one, measured when the model is loaded.
    Auto,
    /// ONNX Runtime's own CPU provider.
    Cpu,
    /// OpenVINO on the CPU.
    OpenVino,
    /// ONNX Runtime's CUDA provider, on an NVIDIA GPU.
    Cuda,
    /// TensorRT on an NVIDIA GPU; until its engines are built, CUDA.
    TensorRt,
    /// Whichever is faster on an NVIDIA GPU.
    Gpu,
}

impl BackendChoice {
    const ALL: [Self; 6] = [Self::Auto, Self::Cpu, Self::OpenVino, Self::Cuda, Self::TensorRt, Self::Gpu];

    /// Name in manifests.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Cpu => "cpu",
            Self::OpenVino => "openvino",
            Self::Cuda => "cuda",
            Self::TensorRt => "tensorrt",
            Self::Gpu => "gpu",
        }
    }
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
        let mistakes = Mistakes::default();
        let manifest = Table::parse(text, &mistakes).and_then(|root| parse_root(root, read_file));
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

fn parse_root(mut root: Table<'_>, read_file: impl FnOnce(&str) -> Result<String, Error>) -> Option<Manifest> {
    let name = identifier(&mut root, "name");
    let version = identifier(&mut root, "version");
    let stated = root.choice("task", &Task::ALL.map(|task| (task.name(), task)));
    let licence = root.required_string("licence");
    let file = file_ref(root.table("file"), "model.onnx");
    let mut variants = root.table("variants");
    let int8 = variants.optional_table("int8").map(|table| file_ref(table, "model.int8.onnx"));
    let fp16 = variants.optional_table("fp16").map(|table| file_ref(table, "model.fp16.onnx"));
    variants.finish();
    let input = input(root.table("input"));
    let output = Output::read(root.table("output"), input.as_ref(), stated);
    let task = output.as_ref().and_then(|output| output.task(stated, &root));
    let classes = classes(root.table("classes"), task == Some(Task::Raw), read_file);
    if let Some((output, classes)) = output.as_ref().zip(classes.as_ref()) {
        output.check_classes(classes.len(), &root);
    }
    let defaults = Defaults::read(root.table("defaults"), output.as_ref());
    let batching = Batching::read(root.table("batching"));
    let run = run(root.table("run"));
    let (accuracy, warmup) = accuracy(root.table("accuracy"));
    if run.precision == Some(Precision::Int8) && int8.is_none() {
        root.mistake("run.precision", "int8 needs a [variants.int8] file");
    }
    if let Some(smaller) = &run.smaller {
        let own = name.as_ref().zip(version.as_ref()).map(|(name, version)| format!("{name}@{version}"));
        if !route::is_model(smaller) {
            root.mistake("run.smaller", format!("\"{smaller}\" is not legal: {}", route::LEGAL_MODEL));
        } else if name.as_ref() == Some(smaller) || own.as_ref() == Some(smaller) {
            root.mistake("run.smaller", format!("\"{smaller}\" is not legal: another model than this one is needed"));
        }
    }
    root.finish();
    Some(Manifest {
        name: name?,
        version: version?,
        task: task?,
        licence: licence?,
        file,
        int8,
        fp16,
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
    if route::is_name(&text) {
        return Some(text);
    }
    root.mistake(key, format!("\"{text}\" is not legal: {}", route::LEGAL_NAME));
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

fn classes(
    mut table: Table<'_>,
    is_raw: bool,
    read_file: impl FnOnce(&str) -> Result<String, Error>,
) -> Option<Vec<Class>> {
    match (table.has("names"), table.has("file")) {
        // Tensors have none.
        (false, false) if is_raw => {
            table.finish();
            return Some(Vec::new());
        }
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

fn run(mut table: Table<'_>) -> Run {
    let precisions = [Precision::Fp32, Precision::Bf16, Precision::Fp16, Precision::Int8, Precision::Auto]
        .map(|precision| (precision.name(), precision));
    let backends = BackendChoice::ALL.map(|backend| (backend.name(), backend));
    let run = Run {
        instances: table.integer("instances", 1..=64),
        precision: table.choice("precision", &precisions),
        backend: table.choice("backend", &backends).unwrap_or(BackendChoice::Auto),
        device_memory_mb: table.integer("device_memory_mb", 16..=1_048_576),
        smaller: table.string("smaller"),
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

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use std::time::Duration;

    use super::*;

    const CONTRACT: &str = r#"
name = "yolox-nano"
version = "1"
task = "detect"
licence = "Apache-2.0"
[file]
path = "model.onnx"
sha256 = "695e750a5d5754bb5a8d5325643b59282191a7e7a564e435a415fd3c578eab14"
[input]
tensor = "images"            # default: the only input
layout = "nchw"              # nchw | nhwc
color = "bgr"                # rgb | bgr | gray
size = [416, 416]            # width, height
resize = "letterbox-top-left"  # letterbox-center | letterbox-top-left | stretch
pad = 114
mean = [0.0, 0.0, 0.0]       # value = (pixel - mean) * scale
scale = [1.0, 1.0, 1.0]
[output]
decoder = "yolox"
strides = [8, 16, 32]
[classes]
names = ["person", "bicycle"]  # or file = "classes.txt"
[defaults]
score_threshold = 0.35
iou_threshold = 0.45
max_detections = 100
[batching]                   # optional
max_batch = 8
max_delay_ms = 4
preferred = [1, 2, 4, 8]
[run]                        # optional
instances = 1
precision = "fp32"
[accuracy]                   # optional
bf16 = 0.002
int8 = 0.008
warmup = 5
"#;

    fn parse(text: &str) -> Result<Manifest, Error> {
        Manifest::parse(text, |file| Err(Error::Read { path: file.into(), reason: "no file".to_owned() }))
    }

    /// The mistakes of the contract's manifest after a change.
    fn mistakes(from: &str, to: &str) -> Vec<String> {
        assert!(CONTRACT.contains(from), "{from}");
        match parse(&CONTRACT.replacen(from, to, 1)) {
            Err(Error::Manifest { mistakes }) => mistakes.iter().map(ToString::to_string).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_contract_s_example_is_read_to_the_letter() {
        let manifest = parse(CONTRACT).unwrap();
        assert_eq!(manifest.id(), "yolox-nano@1");
        assert_eq!(manifest.input.tensor.as_deref(), Some("images"));
        assert_eq!((manifest.input.layout, manifest.input.color), (Layout::Nchw, Channels::Bgr));
        assert_eq!((manifest.input.size, manifest.input.resize), ([416, 416], Resize::LetterboxTopLeft));
        assert_eq!(manifest.input.shape(2), [2, 3, 416, 416]);
        assert_eq!(manifest.output, Output::Yolox { tensor: None, strides: vec![8, 16, 32] });
        assert_eq!(manifest.classes[1], Class { id: 1, name: Arc::from("bicycle") });
        assert_eq!(manifest.batching.preferred, [1, 2, 4, 8]);
        assert_eq!(manifest.batching.max_delay, Duration::from_millis(4));
        assert_eq!(manifest.accuracy, Accuracy { bf16: Some(0.002), fp16: None, int8: Some(0.008) });
        assert_eq!((manifest.run.precision, manifest.run.backend), (Some(Precision::Fp32), BackendChoice::Auto));
        assert_eq!(manifest.warmup, 5);
    }

    #[test]
    fn a_short_manifest_gets_the_defaults() {
        let manifest = parse(
            "name = 'a'\nversion = '1'\nlicence = 'MIT'\n[input]\nsize = [64, 32]\n[output]\ndecoder = 'yunet'\n\
             [classes]\nnames = ['face']\n",
        );
        let manifest = manifest.unwrap();
        assert_eq!(manifest.file, FileRef { path: "model.onnx".to_owned(), sha256: None });
        assert_eq!((manifest.input.pad, manifest.input.scale), (114.0, [1.0; 3]));
        assert_eq!(manifest.output, Output::Yunet { strides: vec![8, 16, 32], keypoints: false });
        assert_eq!((manifest.batching.max_batch, manifest.run.precision, manifest.warmup), (16, None, 3));
    }

    #[test]
    fn each_mistake_names_its_key_and_what_is_legal() {
        for (from, to, key, says) in [
            ("name = \"yolox-nano\"", "name = \"../x\"", "`name`", "a-z"),
            ("version = \"1\"", "version = 1", "`version`", "string"),
            ("licence = \"Apache-2.0\"", "", "`licence`", "missing"),
            ("task = \"detect\"", "task = \"cook\"", "`task`", "one of detect"),
            ("path = \"model.onnx\"", "path = \"../model.onnx\"", "`file.path`", "beside the manifest"),
            ("sha256 = \"695e", "sha256 = \"xyz", "`file.sha256`", "64 hexadecimal"),
            ("layout = \"nchw\"", "layout = \"chwn\"", "`input.layout`", "nchw, nhwc"),
            ("color = \"bgr\"", "colour = \"bgr\"", "`input.colour`", "unknown key; known here: tensor, layout, color"),
            ("size = [416, 416]", "size = [416]", "`input.size`", "from 8 to 4096"),
            ("size = [416, 416]", "size = [416, 1000000]", "`input.size`", "from 8 to 4096"),
            ("size = [416, 416]", "", "`input.size`", "missing"),
            ("pad = 114", "pad = 300", "`input.pad`", "from 0 to 255"),
            ("mean = [0.0, 0.0, 0.0]", "mean = [0.0]", "`input.mean`", "a list of 3"),
            ("scale = [1.0, 1.0, 1.0]", "scale = [1.0, nan, 1.0]", "`input.scale`", "each a number"),
            ("decoder = \"yolox\"", "decoder = \"yolo99\"", "`output.decoder`", "yolov8, yolox, ssd-boxes, yunet"),
            ("strides = [8, 16, 32]", "strides = [0]", "`output.strides`", "from 1 to 256"),
            (
                "[output]",
                "[output]\nscores = \"x\"",
                "`output.scores`",
                "unknown key; known here: decoder, tensor, strides",
            ),
            ("[\"person\", \"bicycle\"]", "[\"person\", \"person\"]", "`classes.names`", "there twice"),
            (
                "names = [\"person\", \"bicycle\"]",
                "file = \"classes.txt\"",
                "`classes.file`",
                "cannot read classes.txt",
            ),
            ("names = [\"person\", \"bicycle\"]", "file = \"/etc/passwd\"", "`classes.file`", "beside the manifest"),
            ("names = [\"person\", \"bicycle\"]", "", "`classes.names`", "or `file`"),
            ("score_threshold = 0.35", "score_threshold = 1.5", "`defaults.score_threshold`", "from 0 to 1"),
            ("max_detections = 100", "max_detections = 0", "`defaults.max_detections`", "from 1 to 1000"),
            ("preferred = [1, 2, 4, 8]", "preferred = [16]", "`batching.preferred`", "from 1 to 8"),
            ("precision = \"fp32\"", "precision = \"int8\"", "`run.precision`", "[variants.int8]"),
            ("[input]", "[variants.fp16]\npath = \"../x\"\n[input]", "`variants.fp16.path`", "beside the manifest"),
            ("instances = 1", "device_memory_mb = 8", "`run.device_memory_mb`", "16"),
            ("instances = 1", "instances = 1\nwarmup = 3", "`run.warmup`", "unknown key"),
            ("instances = 1", "smaller = \"../x\"", "`run.smaller`", "NAME@VERSION"),
            ("instances = 1", "smaller = \"yolox-nano\"", "`run.smaller`", "another model"),
            ("instances = 1", "smaller = \"yolox-nano@1\"", "`run.smaller`", "another model"),
            ("bf16 = 0.002", "bf16 = \"little\"", "`accuracy.bf16`", "number"),
            ("[batching]", "[bathing]", "`bathing`", "unknown key"),
        ] {
            let found = mistakes(from, to);
            let named = found.iter().any(|mistake| mistake.starts_with(key) && mistake.contains(says));
            assert!(named, "{to}: {found:?}");
        }
    }

    #[test]
    fn all_mistakes_come_at_once() {
        let found = mistakes("pad = 114", "pad = -1\nlayout2 = 1\ntensor2 = 2");
        assert_eq!(found.len(), 3, "{found:?}");
    }

    #[test]
    fn broken_toml_names_its_line() {
        let found = mistakes("version = \"1\"", "version = ");
        assert!(found.len() == 1 && found[0].contains("line 3"), "{found:?}");
    }

    #[test]
    fn classes_may_come_from_a_file() {
        let text = CONTRACT.replacen("names = [\"person\", \"bicycle\"]", "file = \"classes.txt\"", 1);
        let manifest = Manifest::parse(&text, |file| {
            assert_eq!(file, "classes.txt");
            Ok("cat\n\n dog \n".to_owned())
        });
        let names = manifest.unwrap().classes.iter().map(|class| class.name.to_string()).collect::<Vec<_>>();
        assert_eq!(names, ["cat", "dog"]);
    }

    #[test]
    fn variants_are_further_files() {
        let text = CONTRACT.replacen("[input]", "[variants.int8]\npath = \"small.onnx\"\n[variants.fp16]\n[input]", 1);
        let manifest = parse(&text).unwrap();
        let paths = [manifest.int8, manifest.fp16].map(|variant| variant.unwrap().path);
        assert_eq!(paths, ["small.onnx", "model.fp16.onnx"]);
        let Manifest { int8, fp16, .. } = parse(CONTRACT).unwrap();
        assert_eq!((int8, fp16), (None, None));
        let found = match parse(&text.replacen("[variants.int8]", "[variants.int4]", 1)) {
            Err(Error::Manifest { mistakes }) => mistakes[0].to_string(),
            other => panic!("{other:?}"),
        };
        assert!(found.starts_with("`variants.int4`: unknown key"), "{found}");
    }
}

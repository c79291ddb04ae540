use super::table::{self, Table};
use super::{Input, Layout, Task};
use crate::media::Mask;

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
    /// `cls_S`, `obj_S` and `bbox_S` for each stride S, and for poses `kps_S`.
    Yunet {
        /// Strides of the levels.
        strides: Vec<u32>,
        /// Whether keypoints are read.
        keypoints: bool,
    },
    /// `[N, 5 + classes, rows, columns]`: objectness, offsets, sizes, class scores, for each cell of a grid.
    FastestDet {
        /// Output name; none: the only output.
        tensor: Option<String>,
    },
    /// `[N, classes]`, with any further sides of 1: a score for each class of the whole frame.
    Softmax {
        /// Output name; none: the only output.
        tensor: Option<String>,
        /// What its numbers are.
        scores: Scores,
        /// Classes reported at most; default 5.
        top_k: u32,
    },
    /// Logits `[N, classes, H, W]` or `[N, H, W, classes]`, or the numbers of classes `[N, H, W]`, with a further side of 1
    /// or without.
    Argmax {
        /// Output name; none: the only output.
        tensor: Option<String>,
        /// Order of the axes of logits; default that of the input.
        layout: Layout,
        /// Whether class 0 of the output is background; class 0 of the manifest is then its class 1.
        background: bool,
    },
    /// Outputs as they are.
    Raw {
        /// Names of the outputs; none: all.
        tensors: Option<Vec<String>>,
    },
}

/// What the numbers of a classifier are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scores {
    /// Any numbers, of which softmax makes scores.
    Logits,
    /// Scores of 0..1, as they are.
    Probabilities,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Yolov8,
    Yolox,
    SsdBoxes,
    Yunet,
    FastestDet,
    Softmax,
    Argmax,
    Raw,
}

const KINDS: [(&str, Kind); 8] = [
    ("yolov8", Kind::Yolov8),
    ("yolox", Kind::Yolox),
    ("ssd-boxes", Kind::SsdBoxes),
    ("yunet", Kind::Yunet),
    ("fastestdet", Kind::FastestDet),
    ("softmax", Kind::Softmax),
    ("argmax", Kind::Argmax),
    ("raw", Kind::Raw),
];

impl Output {
    /// Reads `[output]` of a manifest whose task is stated as `task`, if it is.
    pub(super) fn read(mut table: Table<'_>, input: Option<&Input>, task: Option<Task>) -> Option<Self> {
        if !table.has("decoder") {
            table.mistake("decoder", format!("is missing: one of {}", table::names(&KINDS)));
        }
        // The other keys depend on the decoder: without it, they are not looked at.
        let kind = table.choice("decoder", &KINDS)?;
        let output = match kind {
            Kind::Yolov8 => Self::Yolov8 { tensor: table.string("tensor") },
            Kind::Yolox => Self::Yolox { tensor: table.string("tensor"), strides: strides(&mut table) },
            Kind::SsdBoxes => Self::SsdBoxes {
                scores: table.string("scores").unwrap_or_else(|| "scores".to_owned()),
                boxes: table.string("boxes").unwrap_or_else(|| "boxes".to_owned()),
                background: background(&mut table),
            },
            Kind::Yunet => Self::Yunet { strides: strides(&mut table), keypoints: task == Some(Task::Pose) },
            Kind::FastestDet => Self::FastestDet { tensor: table.string("tensor") },
            Kind::Softmax => Self::Softmax {
                tensor: table.string("tensor"),
                scores: {
                    let scores = [("logits", Scores::Logits), ("probabilities", Scores::Probabilities)];
                    table.choice("scores", &scores).unwrap_or(Scores::Logits)
                },
                top_k: table.integer("top_k", 1..=1000).unwrap_or(5),
            },
            Kind::Argmax => Self::Argmax {
                tensor: table.string("tensor"),
                layout: {
                    let layout = table.choice("layout", &[("nchw", Layout::Nchw), ("nhwc", Layout::Nhwc)]);
                    layout.or(input.map(|input| input.layout)).unwrap_or(Layout::Nchw)
                },
                background: background(&mut table),
            },
            Kind::Raw => Self::Raw { tensors: table.strings("tensors") },
        };
        table.finish();
        Some(output)
    }

    /// Name of the decoder.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Yolov8 { .. } => "yolov8",
            Self::Yolox { .. } => "yolox",
            Self::SsdBoxes { .. } => "ssd-boxes",
            Self::Yunet { .. } => "yunet",
            Self::FastestDet { .. } => "fastestdet",
            Self::Softmax { .. } => "softmax",
            Self::Argmax { .. } => "argmax",
            Self::Raw { .. } => "raw",
        }
    }

    /// What a model with this decoder can do, what it does unless it is said first.
    const fn tasks(&self) -> &'static [Task] {
        match self {
            Self::Yolov8 { .. } | Self::Yolox { .. } | Self::SsdBoxes { .. } | Self::FastestDet { .. } => {
                &[Task::Detect]
            }
            Self::Yunet { .. } => &[Task::Detect, Task::Pose],
            Self::Softmax { .. } => &[Task::Classify],
            Self::Argmax { .. } => &[Task::Segment],
            Self::Raw { .. } => &[Task::Raw],
        }
    }

    /// The task, which is the stated one if that goes together with the decoder.
    pub(super) fn task(&self, stated: Option<Task>, root: &Table<'_>) -> Option<Task> {
        let tasks = self.tasks();
        let Some(stated) = stated else { return tasks.first().copied() };
        if tasks.contains(&stated) {
            return Some(stated);
        }
        let names = tasks.iter().map(|task| task.name()).collect::<Vec<_>>().join(" or ");
        let decoder = self.name();
        root.mistake(
            "task",
            format!("\"{}\" does not go with the decoder {decoder}, which is for {names}", stated.name()),
        );
        None
    }

    /// Notes classes that the decoder cannot tell apart.
    pub(super) fn check_classes(&self, count: usize, root: &Table<'_>) {
        match self {
            Self::Argmax { background, .. } if count > usize::from(Mask::NONE) - usize::from(*background) => {
                let most = usize::from(Mask::NONE) - usize::from(*background);
                root.mistake("classes.names", format!("are {count}: the decoder argmax takes {most} at most here"));
            }
            Self::Raw { .. } if count > 0 => {
                root.mistake("classes", "is not legal for raw tensors: they have no classes")
            }
            _ => {}
        }
    }
}

fn strides(table: &mut Table<'_>) -> Vec<u32> {
    table.integers("strides", 1..=8, 1..=256).unwrap_or_else(|| vec![8, 16, 32])
}

fn background(table: &mut Table<'_>) -> bool {
    table.choice("background", &[("first", true), ("none", false)]).unwrap_or(true)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;
    use crate::infer::{Error, Manifest};

    fn parse(task: &str, output: &str, rest: &str) -> Result<Manifest, Vec<String>> {
        let text = format!(
            "name = 'a'\nversion = '1'\nlicence = 'MIT'\n{task}\n[input]\nsize = [64, 32]\nlayout = 'nhwc'\n\
             [output]\n{output}\n{rest}"
        );
        Manifest::parse(&text, |_| unreachable!()).map_err(|error| match error {
            Error::Manifest { mistakes } => mistakes.iter().map(ToString::to_string).collect(),
            other => panic!("{other}"),
        })
    }

    const CLASSES: &str = "[classes]\nnames = ['x']\n";

    #[test]
    fn the_task_follows_from_the_decoder_where_it_is_not_said() {
        for (decoder, task) in [
            ("yolov8", Task::Detect),
            ("yunet", Task::Detect),
            ("fastestdet", Task::Detect),
            ("softmax", Task::Classify),
            ("argmax", Task::Segment),
        ] {
            assert_eq!(parse("", &format!("decoder = '{decoder}'"), CLASSES).unwrap().task, task, "{decoder}");
        }
        let raw = parse("", "decoder = 'raw'\ntensors = ['a', 'b']", "").unwrap();
        assert_eq!((raw.task, raw.classes.len()), (Task::Raw, 0));
        assert_eq!(raw.output, Output::Raw { tensors: Some(vec!["a".to_owned(), "b".to_owned()]) });
    }

    #[test]
    fn a_task_that_does_not_go_with_its_decoder_is_a_mistake_among_others() {
        let found = parse("task = 'classify'", "decoder = 'yolov8'\nfoo = 1", CLASSES).unwrap_err();
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].starts_with("`output.foo`"), "{found:?}");
        assert_eq!(found[1], "`task`: \"classify\" does not go with the decoder yolov8, which is for detect");
        let found = parse("task = 'raw'", "decoder = 'yunet'", CLASSES).unwrap_err();
        assert!(found[0].ends_with("which is for detect or pose"), "{found:?}");
    }

    #[test]
    fn yunet_reads_keypoints_where_the_task_is_to_find_them() {
        let keypoints = |task: &str| match parse(task, "decoder = 'yunet'", CLASSES).unwrap().output {
            Output::Yunet { keypoints, .. } => keypoints,
            other => panic!("{other:?}"),
        };
        assert!(keypoints("task = 'pose'") && !keypoints("task = 'detect'") && !keypoints(""));
    }

    #[test]
    fn defaults_are_those_of_the_task() {
        let manifest = parse("", "decoder = 'softmax'", CLASSES).unwrap();
        assert_eq!(manifest.output, Output::Softmax { tensor: None, scores: Scores::Logits, top_k: 5 });
        assert_eq!((manifest.defaults.max_detections, manifest.defaults.score_threshold), (5, 0.0));
        let found =
            parse("", "decoder = 'softmax'\ntop_k = 3", "[defaults]\nmax_detections = 9\n[classes]\nnames = ['x']");
        assert!(found.unwrap_err()[0].contains("`output.top_k` says"));
        let argmax = |more: &str| parse("", &format!("decoder = 'argmax'\n{more}"), CLASSES).unwrap().output;
        assert_eq!(argmax(""), Output::Argmax { tensor: None, layout: Layout::Nhwc, background: true });
        let other = argmax("layout = 'nchw'\nbackground = 'none'\ntensor = 'out'");
        let tensor = Some("out".to_owned());
        assert_eq!(other, Output::Argmax { tensor, layout: Layout::Nchw, background: false });
    }

    #[test]
    fn classes_are_as_many_as_the_decoder_takes() {
        let many = (0..256).map(|n| format!("'c{n}'")).collect::<Vec<_>>().join(", ");
        let many = format!("[classes]\nnames = [{many}]\n");
        assert!(parse("", "decoder = 'argmax'", &many).unwrap_err()[0].contains("are 256"));
        assert!(parse("", "decoder = 'softmax'", &many).is_ok());
        assert!(parse("", "decoder = 'raw'", CLASSES).unwrap_err()[0].starts_with("`classes`"));
        assert!(parse("", "decoder = 'softmax'", "").unwrap_err()[0].starts_with("`classes.names`"));
    }
}

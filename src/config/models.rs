//! `[models]`: where models are, how they are looked after while the server runs, and when a new one makes way again.

use std::path::PathBuf;
use std::time::Duration;

use super::is_model;
use super::reader::Reader;
use crate::state;

/// `[models]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Models {
    /// Folder of models, `NAME/VERSION/`; default `models`, where a folder that does not exist means only the
    /// embedded model.
    pub dir: PathBuf,
    /// Model of sessions that name none, `NAME` or `NAME@VERSION`, or a route; default `ppe-nano`, the embedded model.
    pub default: String,
    /// Whether what was measured of models and codecs is kept for the next start (`auto`, the default) or measured at
    /// each one (`off`), which makes it slower by a second or so a model. What is kept is too slow when other work slowed
    /// the machine while it was measured; `saccade doctor` tells, and measures anew.
    pub calibration: bool,
    /// Which models of the folder are loaded by themselves; default `all`.
    pub load: Load,
    /// How it is noticed that the folder has changed; default `auto`.
    pub watch: Watch,
    /// How often the folder is looked at, default 10 s; the kernel's messages make that sooner. Less costs a look at each
    /// file's size and time.
    pub poll: Duration,
    /// How long files have to stay as they are before they are read, default 1 s. Less may read what is half copied, which
    /// is then read again.
    pub settle: Duration,
    /// How models are tried before they are opened; none (`check = "off"`): a graph that crashes ONNX Runtime takes the
    /// server with it.
    pub check: Option<Check>,
    /// When a new version makes way for the one before; none (`rollback_window_s = 0`): never by itself.
    pub rollback: Option<Rollback>,
    /// Where routes that were put over HTTP are kept, and beside that, which versions made way for the ones before.
    pub routes_file: RoutesFile,
}

/// Which models are loaded without being asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// Every version of each, which keep their memory.
    All,
    /// The newest version of each, and what the configuration names. A version that another one has replaced is unloaded
    /// when no session needs it.
    Newest,
    /// What the configuration names, and newer versions of that.
    Named,
}

/// How changes of the folder are noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watch {
    /// By messages of the kernel, and by looking now and then, since network file systems send none.
    Auto,
    /// By looking now and then.
    Poll,
    /// Not at all: only requests load models.
    Off,
}

/// How models are tried, in a process of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// The program that tries them; none: this one. No source sets it.
    pub program: Option<PathBuf>,
    /// How long that may take; default 60 s. More lets a hostile graph keep a core busy for longer.
    pub limit: Duration,
    /// Mebibytes of address space that it may take beside the model itself; default 4096. Large models may need more; more
    /// lets a hostile graph take more.
    pub memory_mb: u64,
}

/// When a new version makes way for the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rollback {
    /// How long it is compared; default 60 s. The version before keeps its memory for as long.
    pub window: Duration,
    /// Frames of each that are needed for a comparison; default 50.
    pub min_frames: u64,
    /// 95th percentile of its service time, as a percentage of that of the version before, that is still good; default 150.
    pub p95_percent: u32,
    /// Points of percentage by which more of its frames may fail; default 2.
    pub error_percent: u32,
}

/// Where routes that were put over HTTP are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoutesFile {
    /// `${XDG_STATE_HOME:-~/.local/state}/saccade/routes.json`.
    Standard,
    /// Nowhere: they live as long as the process.
    Off,
    /// In this file.
    At(PathBuf),
}

impl RoutesFile {
    /// The file; none where there is none, or where no folder for it is known.
    #[must_use]
    pub fn path(&self) -> Option<PathBuf> {
        match self {
            Self::Standard => state::folder().map(|folder| folder.join("routes.json")),
            Self::Off => None,
            Self::At(path) => Some(path.clone()),
        }
    }
}

impl Models {
    pub(super) fn read(from: &mut Reader) -> Self {
        let dir = from.traced("models.dir", "a folder", false, |raw| raw.filled().map(PathBuf::from));
        let dir = dir.map_or_else(
            || PathBuf::from("models"),
            |(dir, given)| {
                // The default's own name may be written out without the folder being there.
                if !dir.is_dir() && dir.as_os_str() != "models" {
                    from.mistake(&given, "must be a folder that exists");
                }
                dir
            },
        );
        let seconds = " (seconds)";
        let check = Check {
            program: None,
            limit: Duration::from_secs(from.number("models.check_limit_s", 60, 1..=3600, seconds)),
            memory_mb: from.number("models.check_memory_mb", 4096, 512..=1_048_576, " (MiB)"),
        };
        let window = from.number("models.rollback_window_s", 60, 0..=86_400, " (seconds; 0: off)");
        let rollback = Rollback {
            window: Duration::from_secs(window),
            min_frames: from.number("models.rollback_min_frames", 50, 10..=500, ""),
            p95_percent: from.number("models.rollback_p95_percent", 150, 100..=10_000, ""),
            error_percent: from.number("models.rollback_error_percent", 2, 0..=100, ""),
        };
        let loads = [("all", Load::All), ("newest", Load::Newest), ("named", Load::Named)];
        let watches = [("auto", Watch::Auto), ("poll", Watch::Poll), ("off", Watch::Off)];
        Self {
            dir,
            default: from.read(
                "models.default",
                "ppe-nano".to_owned(),
                "a model as NAME or NAME@VERSION, or a route: letters, digits, '.', '_' and '-'",
                |raw| raw.string().filter(|name| is_model(name)),
            ),
            calibration: from.choice("models.calibration", true, &[("auto", true), ("off", false)]),
            load: from.choice("models.load", Load::All, &loads),
            watch: from.choice("models.watch", Watch::Auto, &watches),
            poll: Duration::from_secs(from.number("models.poll_s", 10, 1..=86_400, seconds)),
            settle: from.millis("models.settle_ms", 1000, 10..=60_000),
            check: from.choice("models.check", true, &[("auto", true), ("off", false)]).then_some(check),
            rollback: (window > 0).then_some(rollback),
            routes_file: from.read(
                "models.routes_file",
                RoutesFile::Standard,
                "\"auto\", \"off\" or a file's name",
                |raw| {
                    Some(match raw.filled()?.as_str() {
                        "auto" => RoutesFile::Standard,
                        "off" => RoutesFile::Off,
                        file => RoutesFile::At(PathBuf::from(file)),
                    })
                },
            ),
        }
    }
}

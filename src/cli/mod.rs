//! The command line: what may be typed, and the exit codes. It runs nothing itself but `saccade token`.

mod bench;
mod exit;
mod plan;
mod settings;
mod token;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

pub use bench::{Bench, BenchStages, BenchWhat, Returned};
pub use exit::Exit;
pub use plan::Plan;
pub use settings::{HardwareChoice, ModelFlags, NetworkFlags, Settings};
pub use token::Token;

/// Everything that was typed.
#[derive(Debug, Parser)]
#[command(
    name = "saccade",
    version,
    about = "Real-time WebRTC vision server: live video in, annotated video and frame-exact results back"
)]
#[command(
    after_help = "Exit codes: 0 clean, 64 bad configuration or arguments, 69 a needed device or library is missing, 70 internal."
)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// A command of `saccade`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server
    Serve(Serve),
    /// Ask a running server whether it is ready, and exit with 0 or 69
    Health(Health),
    /// Say what works on this machine and what to do about the rest
    Doctor(Doctor),
    /// Run a model on pictures and video files
    Detect(Detect),
    /// List, check and fetch models
    #[command(subcommand)]
    Models(Models),
    /// Make a token (JWT) for clients, signed with auth.secret
    Token(Token),
    /// Measure a model's accuracy and speed on pictures whose objects are known
    Eval(Eval),
    /// Put load on a server and report how late, how many and how right its results are
    Bench(Bench),
    /// Reckon what machines so many sessions need, and what they cost
    Plan(Plan),
    /// Look for a GPU and write what is found, for the process that started this one
    #[command(hide = true)]
    ProbeHardware,
    /// Build the engine of TensorRT that standard input describes, for the process that started this one
    #[command(hide = true)]
    BuildEngine,
    /// Try the model that standard input describes, for the process that started this one
    #[command(hide = true)]
    CheckModel,
}

/// `saccade serve`.
#[derive(Debug, clap::Args)]
pub struct Serve {
    /// Configuration.
    #[command(flatten)]
    pub settings: Settings,
    /// Listeners.
    #[command(flatten)]
    pub network: NetworkFlags,
    /// Models.
    #[command(flatten)]
    pub models: ModelFlags,
    /// Check the configuration, list every mistake, and exit with 0 or 64
    #[arg(long)]
    pub check: bool,
}

/// `saccade health`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes: 0 ready, 64 wrong argument, 69 not ready or not there.")]
pub struct Health {
    /// What to ask: /readyz, or /healthz, of the operators' listener
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9180/readyz")]
    pub url: String,
    /// Seconds that the answer may take
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=300))]
    pub timeout: u64,
}

/// `saccade doctor`.
#[derive(Debug, clap::Args)]
pub struct Doctor {
    /// Configuration.
    #[command(flatten)]
    pub settings: Settings,
    /// Listeners.
    #[command(flatten)]
    pub network: NetworkFlags,
    /// Models.
    #[command(flatten)]
    pub models: ModelFlags,
    /// Measure models and codecs again, and keep that for the next start of the server: best while nothing else runs
    #[arg(long)]
    pub measure: bool,
    /// Try by which ways peers can reach the server (its media port, STUN, TURN), and look at nothing else
    #[arg(long = "network", conflicts_with = "measure")]
    pub network_ways: bool,
    /// Say what limits a server that runs, by its metrics at this URL (its `ops.listen`), and look at nothing else
    #[arg(long, value_name = "URL", conflicts_with_all = ["measure", "network_ways"])]
    pub live: Option<String>,
    /// Seconds between two looks at the metrics of --live, 2 to 3600
    #[arg(long, value_name = "SECONDS", requires = "live", default_value_t = 10, value_parser = clap::value_parser!(u64).range(2..=3600))]
    pub window: u64,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `saccade detect`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 everything was done, 64 wrong argument or unknown model, 69 ONNX Runtime is missing, 70 a file or the model failed; other files go on."
)]
pub struct Detect {
    /// Pictures and video files
    #[arg(required = true, value_name = "IMAGE|VIDEO")]
    pub inputs: Vec<PathBuf>,
    /// Configuration.
    #[command(flatten)]
    pub settings: Settings,
    /// Models.
    #[command(flatten)]
    pub models: ModelFlags,
    /// Write the one input again with boxes drawn, as picture or video by the name's ending
    #[arg(long, value_name = "FILE")]
    pub annotate: Option<PathBuf>,
    /// Write results as JSON lines, one a picture or frame; `-` is stdout, the default without --annotate
    #[arg(long, value_name = "FILE|-")]
    pub json: Option<PathBuf>,
    /// Shape of the results
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// What is told of the segments that a model finds
    #[arg(long, value_enum, default_value_t)]
    pub masks: Masks,
    /// Lowest score that is reported, 0..1 [default: the model's]
    #[arg(long, value_name = "SCORE", value_parser = fraction)]
    pub score_threshold: Option<f32>,
    /// Overlap above which the weaker of two boxes goes, 0..1 [default: the model's]
    #[arg(long, value_name = "IOU", value_parser = fraction)]
    pub iou_threshold: Option<f32>,
    /// Detections reported for a picture at most [default: the model's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub max_detections: Option<u32>,
    /// Only these classes, with commas between them [default: all]
    #[arg(long, value_name = "CLASS,…", value_delimiter = ',')]
    pub classes: Option<Vec<String>>,
    /// Show no progress bar
    #[arg(long, short)]
    pub quiet: bool,
}

/// `saccade eval`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 measured, 64 wrong argument, data set or unknown model, 69 ONNX Runtime is missing, 70 a picture or the model failed."
)]
pub struct Eval {
    /// The pictures and their objects, as COCO JSON; categories belong to the model's classes of the same name
    #[arg(long, value_name = "FILE")]
    pub data: PathBuf,
    /// Folder of the pictures
    #[arg(long, value_name = "DIR")]
    pub images: PathBuf,
    /// Configuration.
    #[command(flatten)]
    pub settings: Settings,
    /// Models.
    #[command(flatten)]
    pub models: ModelFlags,
    /// Precision to measure [default: what the server would take]
    #[arg(long, value_enum)]
    pub precision: Option<Precision>,
    /// Score from which on precision, recall and false alarms are counted, 0..1 [default: the model's threshold]
    #[arg(long, value_name = "SCORE", value_parser = fraction)]
    pub score_threshold: Option<f32>,
    /// Overlap above which the weaker of two boxes goes, 0..1 [default: the model's]
    #[arg(long, value_name = "IOU", value_parser = fraction)]
    pub iou_threshold: Option<f32>,
    /// Side in pixels of the model's input at which small objects are told from large ones
    #[arg(long, value_name = "PIXELS", default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub input_side: u32,
    /// Write the figures as JSON instead of a table; `-` is stdout
    #[arg(long, value_name = "FILE|-")]
    pub json: Option<PathBuf>,
    /// Write all detections as COCO results into a file, to compare with other tools
    #[arg(long, value_name = "FILE")]
    pub results: Option<PathBuf>,
    /// Show no progress bar
    #[arg(long, short)]
    pub quiet: bool,
}

/// What numbers a model computes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Precision {
    /// 32-bit floats
    Fp32,
    /// bfloat16
    Bf16,
    /// 16-bit floats, which GPUs compute in
    Fp16,
    /// The model's int8 variant
    Int8,
}

/// Shape of the results, as the session option `format`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Saccade's own: corners, class, score
    #[default]
    Saccade,
    /// COCO result objects
    Coco,
    /// Roboflow's inference response
    Roboflow,
    /// Columns that supervision.Detections takes
    Supervision,
}

/// What is told of segments, as the session option `masks`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Masks {
    /// Their outlines
    #[default]
    Outlines,
    /// Run lengths of COCO, at the model's resolution
    Rle,
    /// Neither
    None,
}

/// `saccade models`.
#[derive(Debug, Subcommand)]
pub enum Models {
    /// List the models of the folder and the embedded one
    List(ModelsList),
    /// Load models, run them once, and say what is wrong with them
    Check(ModelsCheck),
    /// Fetch well-known models from their publishers, checksums compared
    Pull(ModelsPull),
    /// Make the int8 variant of a model, and compare it with fp32
    Quantize(ModelsQuantize),
}

/// `saccade models list`.
#[derive(Debug, clap::Args)]
pub struct ModelsList {
    /// Configuration.
    #[command(flatten)]
    pub settings: Settings,
    /// Folder of models
    #[arg(long, value_name = "DIR")]
    pub models_dir: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `saccade models check`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 all work, 64 wrong argument or unknown model, 69 ONNX Runtime is missing, 70 a model does not work."
)]
pub struct ModelsCheck {
    /// Models as NAME or NAME@VERSION [default: all]; or folders or ONNX files, whose tensors are explained and for which a
    /// manifest is proposed
    #[arg(value_name = "MODEL|DIR|FILE")]
    pub names: Vec<String>,
    /// Configuration.
    #[command(flatten)]
    pub settings: Settings,
    /// Folder of models
    #[arg(long, value_name = "DIR")]
    pub models_dir: Option<PathBuf>,
    /// Write the proposed manifest beside the ONNX file, if there is none
    #[arg(long, requires = "names")]
    pub write: bool,
    /// Measure on these pictures and objects (COCO JSON) what lower precisions cost, for the manifest's `[accuracy]`
    #[arg(long, value_name = "FILE", requires = "images", requires = "names")]
    pub data: Option<PathBuf>,
    /// Folder of the pictures of --data
    #[arg(long, value_name = "DIR", requires = "data")]
    pub images: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `saccade models quantize`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 the variant is kept, 64 wrong argument, unknown model or too few pictures, 69 ONNX Runtime is missing, 70 it loses too much, is not faster, or cannot be made."
)]
pub struct ModelsQuantize {
    /// Model as NAME or NAME@VERSION
    #[arg(value_name = "MODEL")]
    pub name: String,
    /// Configuration.
    #[command(flatten)]
    pub settings: Settings,
    /// Folder of models
    #[arg(long, value_name = "DIR")]
    pub models_dir: Option<PathBuf>,
    /// Folder of pictures like those that the model is for; every other one is for the comparison
    #[arg(long, value_name = "DIR")]
    pub images: PathBuf,
    /// What is in the pictures (COCO JSON) [default: what the model finds in fp32]
    #[arg(long, value_name = "FILE")]
    pub data: Option<PathBuf>,
    /// Pictures of the folder that are taken, spread over all of it
    #[arg(long, value_name = "N", default_value_t = 400)]
    pub pictures: u32,
    /// AP that may be lost, 0..1 [default: 0.01, from which on precision = "auto" would not take it]
    #[arg(long, value_name = "LOSS")]
    pub max_loss: Option<f32>,
    /// File for the variant; the manifest stays as it is [default: model.int8.onnx in the model's folder]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Show no progress
    #[arg(long)]
    pub quiet: bool,
}

/// `saccade models pull`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit codes: 0 all are there, 64 wrong argument, registry or unknown model, 69 the publisher is not reached, 70 a file is not what the registry says or cannot be written. HTTPS_PROXY and NO_PROXY are honoured."
)]
pub struct ModelsPull {
    /// Models as NAME (its newest version) or NAME@VERSION
    #[arg(value_name = "NAME", required_unless_present = "list")]
    pub names: Vec<String>,
    /// Configuration.
    #[command(flatten)]
    pub settings: Settings,
    /// Folder that the models go to; it is made where it is not there [default: models]
    #[arg(long, value_name = "DIR")]
    pub models_dir: Option<PathBuf>,
    /// List what can be pulled, and pull nothing
    #[arg(long, conflicts_with = "names")]
    pub list: bool,
    /// Registry to look in [default: the built-in one]
    #[arg(long, value_name = "FILE")]
    pub registry: Option<PathBuf>,
    /// The model's file, fetched by other means; it is checked and put in place without a network
    #[arg(long, value_name = "FILE", conflicts_with = "list")]
    pub from: Option<PathBuf>,
    /// Replace what lies in the model's place
    #[arg(long)]
    pub force: bool,
    /// Seconds without a byte after which fetching ends
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub stall_timeout: u64,
    /// Show no progress
    #[arg(long, short)]
    pub quiet: bool,
}

impl Args {
    /// Parses the command line. Help, the version and mistakes are printed here.
    ///
    /// # Errors
    /// The code to exit with when there is nothing to run.
    pub fn parse_from_process() -> Result<Self, Exit> {
        let args = Self::parse_or_exit(std::env::args_os()).map_err(|(exit, message)| {
            match exit {
                Exit::Clean => print!("{message}"),
                _ => eprint!("{message}"),
            }
            exit
        })?;
        Ok(args)
    }

    fn parse_or_exit(words: impl IntoIterator<Item = OsString>) -> Result<Self, (Exit, String)> {
        Self::try_parse_from(words).map_err(|error| {
            let exit = if error.use_stderr() { Exit::Configuration } else { Exit::Clean };
            (exit, error.render().to_string())
        })
    }
}

fn fraction(text: &str) -> Result<f32, String> {
    text.parse().ok().filter(|value| (0.0..=1.0).contains(value)).ok_or_else(|| "must be from 0 to 1".to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;
    use crate::config::{Config, File};

    fn parse(line: &str) -> Result<Args, (Exit, String)> {
        Args::parse_or_exit(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn the_grammar_is_sound() {
        <Args as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn flags_of_serve_set_their_keys() {
        let line = "saccade serve --config none.toml --listen 127.0.0.1:1 --ops-listen 127.0.0.1:2 --media-port 3 \
                    --advertise 192.0.2.1,192.0.2.2 --models-dir /tmp --model yolo@2 --hw off --log debug \
                    --log-format json --set session.budget_ms=77 --set limits.fps=30";
        let Command::Serve(serve) = parse(line).unwrap().command else { panic!("not serve") };
        let mut sources = serve.sources(std::iter::empty());
        assert_eq!(sources.file, File::Named("none.toml".into()));
        sources.file = File::None;
        let config = Config::load(&sources).unwrap();
        assert_eq!((config.http.listen.port(), config.ops.listen.port(), config.media.port), (1, 2, 3));
        assert_eq!(config.media.advertise.len(), 2);
        assert_eq!((config.models.dir.to_str(), config.models.default.as_str()), (Some("/tmp"), "yolo@2"));
        use crate::config::Hardware::Off;
        assert_eq!((config.hw.decode, config.hw.encode, config.hw.infer), (Off, Off, Off));
        assert_eq!((config.telemetry.log.as_str(), config.limits.fps), ("debug", 30));
        assert_eq!(config.session.budget.as_millis(), 77);
    }

    #[test]
    fn wrong_values_of_flags_are_mistakes_of_the_configuration_that_name_the_flag() {
        let line = "saccade serve --listen 0.0.0.0:80 --media-port 65536 --set hw.infer=gpu --set no.such=1";
        let Command::Serve(serve) = parse(line).unwrap().command else { panic!("not serve") };
        let mut sources = serve.sources(std::iter::empty());
        sources.file = File::None;
        let shown = Config::load(&sources).unwrap_err().to_string();
        for part in ["(from --listen)", "(from --media-port)", "(from --set hw.infer)", "(from --set no.such)"] {
            assert!(shown.contains(part), "{part} is not in {shown}");
        }
        assert!(!sources.insecure);
    }

    #[test]
    fn insecure_serves_anyone() {
        let Command::Serve(serve) = parse("saccade serve --insecure --listen 0.0.0.0:80").unwrap().command else {
            panic!("not serve")
        };
        let mut sources = serve.sources(std::iter::empty());
        sources.file = File::None;
        assert!(Config::load(&sources).is_ok());
    }

    #[test]
    fn mistakes_exit_with_64_help_with_0_and_unbuilt_commands_say_so() {
        for (line, exit, part) in [
            ("saccade", Exit::Configuration, "Usage:"),
            ("saccade fly", Exit::Configuration, "unrecognized subcommand"),
            ("saccade serve --set width", Exit::Configuration, "KEY=VALUE"),
            ("saccade detect", Exit::Configuration, "IMAGE|VIDEO"),
            ("saccade detect a.jpg --score-threshold 1.5", Exit::Configuration, "from 0 to 1"),
            ("saccade --help", Exit::Clean, "doctor"),
            ("saccade --version", Exit::Clean, env!("CARGO_PKG_VERSION")),
            ("saccade health --timeout 0", Exit::Configuration, "1..=300"),
            ("saccade bench --sessions 4", Exit::Configuration, "--url <URL>"),
            ("saccade eval --data coco.json", Exit::Configuration, "--images <DIR>"),
            ("saccade models pull", Exit::Configuration, "<NAME>"),
            ("saccade models pull yolox --list", Exit::Configuration, "cannot be used with"),
            ("saccade models --help", Exit::Clean, "Fetch well-known models"),
        ] {
            let (code, message) = parse(line).expect_err(line);
            assert_eq!(code, exit, "{line}");
            assert!(message.contains(part), "{line}: {message}");
        }
    }

    #[test]
    fn detect_takes_thresholds_classes_and_formats() {
        let line = "saccade detect a.jpg b.mp4 --score-threshold 0.5 --classes head,helmet --format coco --json -";
        let Command::Detect(detect) = parse(line).unwrap().command else { panic!("not detect") };
        assert_eq!((detect.inputs.len(), detect.format, detect.score_threshold), (2, Format::Coco, Some(0.5)));
        assert_eq!(detect.classes.unwrap(), ["head", "helmet"]);
        assert_eq!(detect.json.unwrap().to_str(), Some("-"));
    }
}

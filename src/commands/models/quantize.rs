//! `saccade models quantize`: makes a model's int8 variant and says what it loses.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sha2::{Digest, Sha256};
use toml_edit::{DocumentMut, Item, Table, value};

use super::{offline, open};
use crate::accuracy::dataset::{Dataset, Entry};
use crate::accuracy::{Measures, Object, Picture, Sizes};
use crate::cli::{Exit, ModelsQuantize};
use crate::commands::eval::{self, run::Evaluation};
use crate::commands::offline::Way;
use crate::commands::pending::Pending;
use crate::commands::progress::Progress;
use crate::config::Config;
use crate::decode::file::Reader;
use crate::infer::backend::Provider;
use crate::infer::manifest::{BackendChoice, MAX_ACCURACY_LOSS, Precision};
use crate::infer::quantize::Breadth;
use crate::infer::{self, Model, ModelSpec, Quantizer};

/// Files that are taken for pictures, by their endings.
const ENDINGS: [&str; 5] = ["jpg", "jpeg", "png", "webp", "bmp"];
/// Name of the variant's file.
const FILE: &str = "model.int8.onnx";
/// Pictures to compare on, at least: of fewer nobody can say what is lost.
const FEWEST: usize = 4;

/// What ends the command.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{}", offline::sentence(source))]
    Models { source: infer::Error },
    #[error("model {name} cannot be quantized: {source}")]
    Model { name: String, source: infer::Error },
    #[error(transparent)]
    Eval(#[from] eval::Error),
    #[error("cannot read {}: {source}", path.display())]
    Folder { path: PathBuf, source: io::Error },
    #[error("{} has {found} pictures; {} are needed at least, of which half are looked at and half compared", path.display(), 2 * FEWEST)]
    TooFew { path: PathBuf, found: usize },
    #[error("{model} is part of the program: say with --out where the variant is to go")]
    Embedded { model: String },
    #[error(
        "{model} finds nothing from a score of {score} on in these pictures, so that nothing can be compared: take pictures of what it is for"
    )]
    NothingFound { model: String, score: f32 },
    #[error("{}: {source}", path.display())]
    Picture { path: PathBuf, source: crate::decode::file::Error },
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{}: {reason}", path.display())]
    Manifest { path: PathBuf, reason: String },
    #[error("nothing was kept: {reason}")]
    NotKept { reason: String },
    #[error("interrupted; nothing was kept")]
    Interrupted,
}

impl Error {
    const fn exit(&self) -> Exit {
        match self {
            Self::Models { source } | Self::Model { source, .. } => offline::exit_of(source),
            Self::Eval(error) => error.exit(),
            Self::Folder { .. } | Self::TooFew { .. } | Self::Embedded { .. } | Self::NothingFound { .. } => {
                Exit::Configuration
            }
            _ => Exit::Internal,
        }
    }
}

/// Makes the variant, compares it with fp32, and keeps it if it loses little and is faster. Exit codes: 0 kept, 70 not kept or
/// failed, 64 for a wrong argument or too few pictures, 69 without ONNX Runtime.
pub(super) fn run(args: ModelsQuantize) -> Exit {
    offline::interruptible(move |stop| {
        let config = Config::load(&args.sources(std::env::vars_os()));
        if let Ok(config) = &config {
            offline::init_logs(&args.settings, config);
        }
        let (config, repository) = match open(config) {
            Ok(found) => found,
            Err(exit) => return exit,
        };
        let spec = match repository.find(&args.name) {
            Ok(spec) => spec,
            Err(error) => {
                eprintln!("{error}");
                return offline::exit_of(&error);
            }
        };
        match (Work { args: &args, config: &config, spec, stop }).run() {
            Ok(()) => Exit::Clean,
            Err(error) => {
                eprintln!("{}", offline::sentence(&error));
                error.exit()
            }
        }
    })
}

struct Work<'a> {
    args: &'a ModelsQuantize,
    config: &'a Config,
    spec: &'a ModelSpec,
    stop: &'a AtomicBool,
}

/// What a variant is worth.
struct Row {
    breadth: Breadth,
    nodes: usize,
    graph: Vec<u8>,
    /// What is lost against fp32, the most of all providers.
    loss: f64,
    /// Time of a run, of the fastest provider, as a share of fp32's.
    time: f64,
}

/// Runs of fp32 and what the others are compared with.
struct Baseline {
    /// Of the pictures that are compared.
    dataset: Dataset,
    ap: [f64; 2],
    time: Duration,
}

impl Work<'_> {
    fn run(&self) -> Result<(), Error> {
        let id = self.spec.manifest.id();
        if self.args.out.is_none() && self.spec.is_embedded() {
            return Err(Error::Embedded { model: id });
        }
        let (looked_at, mut compared) = self.pictures()?;
        let quantizer = self.look(&looked_at)?;
        let baseline = self.baseline(&mut compared)?;
        say!(
            "{id}: {} pictures looked at, {} compared; {} ms a run in fp32",
            looked_at.len(),
            compared.pictures.len(),
            milliseconds(baseline.time)
        );
        let mut rows = Vec::new();
        for (breadth, nodes) in quantizer.breadths().collect::<Vec<_>>() {
            let graph = quantizer.graph(breadth).map_err(|source| Error::Model { name: id.clone(), source })?;
            let row = self.measure(breadth, nodes, graph, &baseline)?;
            say!(
                "    {}: {} nodes in int8, loses {:.4}, takes {:.2} of the time",
                name(row.breadth),
                row.nodes,
                row.loss,
                row.time
            );
            let is_enough = row.is_kept(self.most_lost());
            rows.push(row);
            if is_enough {
                break;
            }
        }
        let Some(row) = rows.iter().find(|row| row.is_kept(self.most_lost())) else {
            return Err(Error::NotKept { reason: self.reason(&rows) });
        };
        self.keep(row)?;
        if self.spec.manifest.run.precision != Some(Precision::Auto) {
            say!("it is run where [run] says precision = \"auto\" or \"int8\"");
        }
        Ok(())
    }

    fn most_lost(&self) -> f64 {
        four_digits(f64::from(self.args.max_loss.unwrap_or(MAX_ACCURACY_LOSS)), f64::round)
    }

    fn reason(&self, rows: &[Row]) -> String {
        let most = self.most_lost();
        match rows.iter().map(|row| row.loss).reduce(f64::min) {
            Some(least) if least > most => format!("int8 loses {least:.4} at least, and --max-loss is {most}"),
            _ => "int8 is not faster than fp32 here".to_owned(),
        }
    }

    /// Pictures to look at and pictures to compare on, by turns. Without a description of what is in them nothing is.
    fn pictures(&self) -> Result<(Vec<Entry>, Dataset), Error> {
        let mut dataset = match &self.args.data {
            Some(data) => eval::run::read(data, &self.spec.manifest.classes).map_err(eval::Error::from)?,
            None => Dataset {
                pictures: files(&self.args.images)?,
                // Whatever is found is known: it is what fp32 finds.
                categories: (0..self.spec.manifest.classes.len()).map(|class| i64::try_from(class).ok()).collect(),
                foreign: Vec::new(),
            },
        };
        let found = dataset.pictures.len();
        if found < 2 * FEWEST {
            return Err(Error::TooFew { path: self.args.images.clone(), found });
        }
        let most = self.args.pictures.max(2 * FEWEST as u32) as usize;
        // Spread over the whole folder, whose pictures may be sorted by what is in them.
        let step = found.div_ceil(most).max(1);
        let mut looked_at = Vec::new();
        let mut compared = Vec::new();
        for (number, entry) in dataset.pictures.drain(..).step_by(step).enumerate() {
            if number % 2 == 0 { looked_at.push(entry) } else { compared.push(entry) }
        }
        Ok((looked_at, Dataset { pictures: compared, ..dataset }))
    }

    fn look(&self, pictures: &[Entry]) -> Result<Quantizer, Error> {
        let failed = |source| Error::Model { name: self.spec.manifest.id(), source };
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(4);
        let engine = offline::engine(self.config, threads, self.way(Precision::Fp32, BackendChoice::Cpu));
        let mut quantizer = engine.map_err(|source| Error::Models { source })?.quantizer(self.spec).map_err(failed)?;
        let mut progress = Progress::new(1, self.args.quiet);
        progress.begin(&self.args.images, Some(pictures.len() as u64));
        for entry in pictures {
            let path = self.args.images.join(&entry.file_name);
            let broken = |source| Error::Picture { path: path.clone(), source };
            // The resolved path begins with a slash, so that FFmpeg never takes it for an address.
            let real = path.canonicalize().map_err(|source| Error::Folder { path: path.clone(), source })?;
            if let Some(decoded) = Reader::open(&real, offline::LIMITS).map_err(broken)?.next() {
                let decoded = decoded.map_err(broken)?;
                quantizer.observe(&decoded.picture, decoded.color).map_err(failed)?;
            }
            progress.advance();
            if self.stop.load(Ordering::Acquire) {
                return Err(Error::Interrupted);
            }
        }
        progress.finish();
        Ok(quantizer)
    }

    const fn way(&self, precision: Precision, backend: BackendChoice) -> Way {
        Way { precision: Some(precision), backend: Some(backend), measure: true }
    }

    /// Runs fp32. Where nobody has said what is in the pictures, what it finds is the truth from then on.
    fn baseline(&self, compared: &mut Dataset) -> Result<Baseline, Error> {
        let model = eval::load(self.config, self.spec, self.way(Precision::Fp32, BackendChoice::Cpu))?;
        let evaluation = self.evaluate(&model, compared)?;
        let time = median(&evaluation);
        if self.args.data.is_some() {
            let ap = self.ap(&model, &evaluation.of_known_classes(compared))?;
            return Ok(Baseline { dataset: compared.clone(), ap, time });
        }
        let score = self.spec.manifest.defaults.score_threshold;
        for (entry, picture) in compared.pictures.iter_mut().zip(&evaluation.pictures) {
            let found = picture.found.iter().filter(|found| found.score >= f64::from(score));
            let truth = found.map(|found| Object {
                bbox: found.bbox,
                class: found.class,
                area: crate::media::area(found.bbox),
                crowd: false,
            });
            entry.objects = truth.collect();
        }
        if compared.pictures.iter().all(|entry| entry.objects.is_empty()) {
            return Err(Error::NothingFound { model: model.id(), score });
        }
        // Against itself it loses nothing.
        let pictures = evaluation.pictures.iter().zip(&compared.pictures);
        let pictures: Vec<_> =
            pictures.map(|(picture, entry)| Picture { objects: entry.objects.clone(), ..picture.clone() }).collect();
        let ap = self.ap(&model, &pictures)?;
        Ok(Baseline { dataset: compared.clone(), ap, time })
    }

    /// Runs the variant on all processors' providers.
    fn measure(&self, breadth: Breadth, nodes: usize, graph: Vec<u8>, baseline: &Baseline) -> Result<Row, Error> {
        let spec = self.spec.with_int8(FILE, graph.clone());
        let spec = spec.map_err(|source| Error::Model { name: self.spec.manifest.id(), source })?;
        let (mut loss, mut time) = (0f64, f64::INFINITY);
        for (backend, provider) in [(BackendChoice::Cpu, Provider::Cpu), (BackendChoice::OpenVino, Provider::OpenVino)]
        {
            let model = match eval::load(self.config, &spec, self.way(Precision::Int8, backend)) {
                Ok(model) if model.selection().provider == provider => model,
                Ok(_) => continue,
                Err(eval::Error::Precision { .. }) if provider != Provider::Cpu => continue,
                Err(error) => return Err(error.into()),
            };
            let evaluation = self.evaluate(&model, &baseline.dataset)?;
            let ap = self.ap(&model, &evaluation.of_known_classes(&baseline.dataset))?;
            let lost = (baseline.ap[0] - ap[0]).max(baseline.ap[1] - ap[1]);
            loss = loss.max(lost);
            time = time.min(median(&evaluation).div_duration_f64(baseline.time.max(Duration::from_nanos(1))));
        }
        Ok(Row { breadth, nodes, graph, loss: four_digits(loss, f64::ceil), time })
    }

    fn evaluate(&self, model: &Model, dataset: &Dataset) -> Result<Evaluation, Error> {
        let params = Arc::new(eval::params(model, None));
        let mut progress = Progress::new(1, self.args.quiet);
        progress.begin(&self.args.images, Some(dataset.pictures.len() as u64));
        let evaluation = Evaluation::run(model, &params, dataset, &self.args.images, &progress, self.stop);
        progress.finish();
        evaluation.map_err(|error| match error {
            eval::run::Error::Interrupted => Error::Interrupted,
            error => Error::Eval(error.into()),
        })
    }

    /// AP50 and AP50-95.
    fn ap(&self, model: &Model, pictures: &[Picture]) -> Result<[f64; 2], Error> {
        let measures = Measures::new(pictures, model.classes().len(), &Sizes::COCO);
        let ap = measures.ap50(None, 0).zip(measures.ap(None, 0));
        let (ap50, ap) = ap.ok_or_else(|| eval::Error::NoObjects { path: self.args.images.clone() })?;
        Ok([ap50, ap])
    }

    /// Puts the variant beside its manifest, which then names it; or where it was asked for, and says what a manifest would have
    /// to say.
    fn keep(&self, row: &Row) -> Result<(), Error> {
        let folder = self.spec.folder().unwrap_or(Path::new("."));
        let path = self.args.out.clone().unwrap_or_else(|| folder.join(FILE));
        write(&path, &row.graph).map_err(|source| Error::Write { path: path.clone(), source })?;
        say!("kept as {}", path.display());
        let checksum = sha256(&row.graph);
        if self.args.out.is_some() {
            let file = path.file_name().unwrap_or_default().display();
            say!(
                "for the manifest:\n    [variants.int8]\n    path = \"{file}\"\n    sha256 = \"{checksum}\"\n    [accuracy]\n    int8 = {}",
                row.loss
            );
            return Ok(());
        }
        let manifest = folder.join("manifest.toml");
        let text = fs::read_to_string(&manifest).map_err(|source| Error::Folder { path: manifest.clone(), source })?;
        let changed = with_variant(&text, &checksum, row.loss);
        let changed = changed.map_err(|reason| Error::Manifest { path: manifest.clone(), reason })?;
        write(&manifest, changed.as_bytes()).map_err(|source| Error::Write { path: manifest, source })?;
        say!("the manifest names it, with its checksum and its loss");
        Ok(())
    }
}

impl Row {
    fn is_kept(&self, most_lost: f64) -> bool {
        self.loss <= most_lost && self.time < 1.0
    }
}

/// All pictures of a folder, by name.
fn files(folder: &Path) -> Result<Vec<Entry>, Error> {
    let failed = |source| Error::Folder { path: folder.to_owned(), source };
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let ending = Path::new(&name).extension().map(|ending| ending.to_string_lossy().to_ascii_lowercase());
        if ending.is_some_and(|ending| ENDINGS.contains(&ending.as_str())) && entry.path().is_file() {
            names.push(name);
        }
    }
    names.sort_unstable();
    let entry = |(id, file_name)| Entry { id, file_name, size: None, objects: Vec::new() };
    Ok((0..).zip(names).map(entry).collect())
}

/// The manifest with the variant and its loss, everything else as it was.
fn with_variant(text: &str, sha256: &str, loss: f64) -> Result<String, String> {
    let mut document: DocumentMut = text.parse().map_err(|error: toml_edit::TomlError| error.to_string())?;
    let mut table = |name: &str| -> Result<(), String> {
        let item = document.entry(name).or_insert_with(|| Item::Table(Table::new()));
        item.as_table_like().map(|_| ()).ok_or_else(|| format!("`{name}` is no table"))
    };
    table("variants")?;
    table("accuracy")?;
    if let Some(variants) = document["variants"].as_table_mut() {
        variants.set_implicit(true);
    }
    document["variants"]["int8"]["path"] = value(FILE);
    document["variants"]["int8"]["sha256"] = value(sha256);
    if let Some(int8) = document["variants"]["int8"].as_inline_table().cloned() {
        document["variants"]["int8"] = Item::Table(int8.into_table());
    }
    document["accuracy"]["int8"] = value(loss);
    Ok(document.to_string())
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = Pending::new(path)?;
    file.write_all(bytes)?;
    file.flush()?;
    file.put_in_place()
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The median of the runs' times.
fn median(evaluation: &Evaluation) -> Duration {
    let mut times: Vec<_> = evaluation.times.iter().map(|times| times.inference).collect();
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// Four digits behind the point are what is measured here.
fn four_digits(value: f64, round: impl Fn(f64) -> f64) -> f64 {
    round(value * 10_000.0) / 10_000.0
}

fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 100_000.0).round() / 100.0
}

const fn name(breadth: Breadth) -> &'static str {
    match breadth {
        Breadth::Everything => "everything",
        Breadth::Linear => "without curves",
        Breadth::Dense => "without curves and convolutions of single channels",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_keeps_its_comments_and_gets_the_variant() {
        let text = "# mine\nname = 'a' # short\n[run]\nprecision = 'auto'\n";
        let changed = with_variant(text, "abc", 0.0019).unwrap();
        assert!(changed.starts_with("# mine\nname = 'a' # short\n[run]\nprecision = 'auto'\n"), "{changed}");
        assert!(changed.contains("[variants.int8]\npath = \"model.int8.onnx\"\nsha256 = \"abc\"\n"), "{changed}");
        assert!(changed.contains("[accuracy]\nint8 = 0.0019\n"), "{changed}");
        let again = with_variant(&changed, "def", 0.002).unwrap();
        assert!(!again.contains("abc") && again.contains("int8 = 0.002\n"), "{again}");
        assert_eq!(again.matches("[variants.int8]").count(), 1);
        assert!(with_variant("variants = 3", "abc", 0.0).is_err());
    }
}

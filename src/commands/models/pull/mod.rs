//! `saccade models pull`: well-known models from their publishers' own addresses.
//!
//! A registry says where each is, how long it is, its SHA-256, and what its manifest says. A file comes into a folder of
//! its own beside the models, from where an interrupted one goes on; with its manifest it goes to its place in one step,
//! and only if it is what the registry says.
//!
//! Exit codes: 0 when all models are there; 64 for a wrong argument, a registry with mistakes or an unknown model; 69
//! when a publisher is not reached or another process fetches the model; 70 when a file is not what the registry says or
//! can't be written, when something else lies in its place, or after an interruption. The other models go on.

mod fetch;
mod partial;
mod progress;
mod registry;

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use indicatif::DecimalBytes;

use self::partial::Partial;
use self::progress::Progress;
use self::registry::{Entry, Registry};
use super::{offline, print_table};
use crate::cli::{Exit, ModelsPull};
use crate::config::{Config, Mistakes};
use crate::infer::{self, Mistake, ModelSpec};

/// What ends the whole command.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Configuration(#[from] Mistakes),
    #[error("cannot read the registry {}: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("the registry is wrong:\n{}", mistakes.iter().map(|one| format!("  {one}")).collect::<Vec<_>>().join("\n"))]
    Registry { mistakes: Vec<Mistake> },
    #[error("unknown model `{name}`; there are {}", known.join(", "))]
    UnknownModel { name: String, known: Vec<String> },
    #[error("--from takes one model, not {count}")]
    SeveralModels { count: usize },
}

/// Why one model is not there.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Fetch(#[from] fetch::Error),
    #[error(transparent)]
    Partial(#[from] partial::Error),
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is not the file: its size is {found} bytes, that of the registry {expected}", path.display())]
    OtherFile { path: PathBuf, found: u64, expected: u64 },
    #[error(
        "{origin} has another file than the registry names: sha256 is {actual}, expected {expected}; nothing of it was \
         kept. If it stays so, the publisher changed the file: do not trust it unseen"
    )]
    Mismatch { origin: String, expected: String, actual: String },
    #[error("{} is there but is not this model ({reason}); --force replaces it", path.display())]
    Occupied { path: PathBuf, reason: String },
}

impl Failure {
    const fn exit(&self) -> Exit {
        match self {
            Self::Partial(partial::Error::Busy)
            | Self::Fetch(
                fetch::Error::Unreachable { .. }
                | fetch::Error::Insecure { .. }
                | fetch::Error::Status { .. }
                | fetch::Error::Stalled { .. }
                | fetch::Error::Cut { .. },
            ) => Exit::Unavailable,
            _ => Exit::Internal,
        }
    }
}

/// Does what was asked for; mistakes and failures go to standard error.
pub(super) fn run(args: ModelsPull) -> Exit {
    offline::interruptible(move |stop| {
        pull(&args, stop).unwrap_or_else(|error| {
            eprintln!("{error}");
            Exit::Configuration
        })
    })
}

fn pull(args: &ModelsPull, stop: &AtomicBool) -> Result<Exit, Error> {
    let config = Config::load(&args.sources(std::env::vars_os()))?;
    offline::init_logs(&args.settings, &config);
    let registry = registry(args.registry.as_deref())?;
    if args.list {
        list(&registry);
        return Ok(Exit::Clean);
    }
    if args.from.is_some() && args.names.len() > 1 {
        return Err(Error::SeveralModels { count: args.names.len() });
    }
    let entry = |name: &String| {
        registry.find(name).ok_or_else(|| Error::UnknownModel {
            name: name.clone(),
            known: registry.entries().iter().map(|entry| entry.manifest.id()).collect(),
        })
    };
    let entries = args.names.iter().map(entry).collect::<Result<Vec<_>, _>>()?;
    let models = args.models_dir.as_deref().unwrap_or(&config.models.dir);
    let mut exit = Exit::Clean;
    for entry in entries {
        match one(entry, models, args, stop) {
            Ok(fresh) => say(entry, models, fresh, args),
            Err(failure) => {
                eprintln!(
                    "{}: {}{}",
                    entry.manifest.id(),
                    offline::sentence(&failure),
                    advice(entry, models, &failure)
                );
                // A wrong file is graver than one that did not come.
                exit = if exit == Exit::Internal { exit } else { failure.exit() };
            }
        }
        if stop.load(Ordering::Acquire) {
            return Ok(Exit::Internal);
        }
    }
    Ok(exit)
}

fn registry(path: Option<&Path>) -> Result<Registry, Error> {
    let registry = match path {
        None => Registry::embedded(),
        Some(path) => {
            let text = fs::read_to_string(path);
            Registry::parse(&text.map_err(|source| Error::Unreadable { path: path.to_owned(), source })?)
        }
    };
    registry.map_err(|mistakes| Error::Registry { mistakes })
}

fn list(registry: &Registry) {
    let mut rows = vec![["MODEL", "SIZE", "INPUT", "CLASSES", "LICENCE", "PUBLISHER"].map(str::to_owned)];
    for entry in registry.entries() {
        let (manifest, [width, height]) = (&entry.manifest, entry.manifest.input.size);
        rows.push([
            manifest.id(),
            DecimalBytes(entry.bytes).to_string(),
            format!("{width}x{height}"),
            manifest.classes.len().to_string(),
            manifest.licence.clone(),
            entry.publisher.clone(),
        ]);
    }
    print_table(&rows);
}

/// Fetches a model and puts it in place; whether it was not there before.
fn one(entry: &Entry, models: &Path, args: &ModelsPull, stop: &AtomicBool) -> Result<bool, Failure> {
    let target = place(entry, models);
    if is_there(entry, &target, args.force)? {
        return Ok(false);
    }
    let mut partial = Partial::open(models, entry)?;
    // Another process may have been quicker.
    if is_there(entry, &target, args.force)? {
        let _ = partial.discard();
        return Ok(false);
    }
    let filled = match &args.from {
        Some(path) => copy(entry, &mut partial, path),
        None => {
            let progress = Progress::new(entry, args.quiet);
            let stall = Duration::from_secs(args.stall_timeout);
            fetch::fetch(entry, &mut partial, stall, &progress, stop).map_err(Failure::from)
        }
    };
    if let Err(failure) = filled {
        let useless = matches!(failure, Failure::Fetch(fetch::Error::TooLong { .. }) | Failure::OtherFile { .. });
        if useless || partial.len().is_ok_and(|have| have == 0) {
            let _ = partial.discard();
        }
        return Err(failure);
    }
    let actual = partial.sha256().map_err(fetch::Error::Write)?;
    if actual != entry.sha256 {
        let _ = partial.discard();
        let origin = args.from.as_ref().map_or_else(|| entry.host().to_owned(), |path| path.display().to_string());
        return Err(Failure::Mismatch { origin, expected: entry.sha256.clone(), actual });
    }
    partial.put_in_place(entry, &target, args.force)?;
    Ok(true)
}

fn place(entry: &Entry, models: &Path) -> PathBuf {
    models.join(&entry.manifest.name).join(&entry.manifest.version)
}

/// Whether this very model is in its place already. Its manifest may have been changed, as far as it is legal.
fn is_there(entry: &Entry, target: &Path, force: bool) -> Result<bool, Failure> {
    if force || target.symlink_metadata().is_err() {
        return Ok(false);
    }
    let occupied = |reason: String| Failure::Occupied { path: target.to_owned(), reason };
    let spec = ModelSpec::open(target).map_err(|error: infer::Error| occupied(error.to_string()))?;
    match spec.manifest.file.sha256 {
        Some(sha256) if sha256 == entry.sha256 => Ok(true),
        _ => Err(occupied("its manifest names another file".to_owned())),
    }
}

/// Takes the file from the disk instead of the network.
fn copy(entry: &Entry, partial: &mut Partial, path: &Path) -> Result<(), Failure> {
    let read = |source| Failure::Read { path: path.to_owned(), source };
    let write = |source| Failure::Fetch(fetch::Error::Write(source));
    let file = File::open(path).map_err(read)?;
    let found = file.metadata().map_err(read)?.len();
    if found != entry.bytes {
        return Err(Failure::OtherFile { path: path.to_owned(), found, expected: entry.bytes });
    }
    // All of it before the kept part is thrown away: the file may be that very part, completed by hand.
    let mut bytes = Vec::new();
    file.take(entry.bytes).read_to_end(&mut bytes).map_err(read)?;
    partial.restart(None).map_err(write)?;
    partial.append(&bytes).map_err(write)
}

fn say(entry: &Entry, models: &Path, fresh: bool, args: &ModelsPull) {
    let (id, target) = (entry.manifest.id(), place(entry, models));
    if !fresh {
        say!("{id}: already there, {}", target.display());
        return;
    }
    let folder = args.models_dir.as_ref().map(|folder| format!(" --models-dir {}", folder.display()));
    say!("{id}: {}, {} under {}", target.display(), DecimalBytes(entry.bytes), entry.manifest.licence);
    say!("    saccade serve{} --model {}", folder.unwrap_or_default(), entry.manifest.name);
}

/// What can be done about a failure.
fn advice(entry: &Entry, models: &Path, failure: &Failure) -> String {
    let id = entry.manifest.id();
    let kept = || {
        let path = models.join(format!(".{id}.partial")).join(&entry.manifest.file.path);
        let have = path.metadata().map_or(0, |file| file.len());
        if have == 0 {
            return "; try again".to_owned();
        }
        format!("; {} of {} bytes are kept: run it again to go on", have, entry.bytes)
    };
    let elsewhere = format!("fetch {} elsewhere and say saccade models pull {id} --from FILE", entry.url);
    match failure {
        Failure::Fetch(fetch::Error::Unreachable { .. }) => {
            format!("; connect this machine to a network, or {elsewhere}")
        }
        Failure::Fetch(fetch::Error::Insecure { .. }) => format!(
            "; install the certificates of the system (ca-certificates), name those to trust in SSL_CERT_FILE, or \
             {elsewhere}"
        ),
        Failure::Fetch(fetch::Error::Status { .. }) => format!("; try again later, or {elsewhere}"),
        Failure::Fetch(fetch::Error::Stalled { .. } | fetch::Error::Cut { .. } | fetch::Error::Interrupted) => kept(),
        Failure::Fetch(fetch::Error::Length { .. }) => {
            "; nothing of it was taken: a login page of the network may have answered, or the file was changed"
                .to_owned()
        }
        Failure::Fetch(fetch::Error::TooLong { .. }) => "; it was thrown away".to_owned(),
        Failure::Fetch(fetch::Error::Write(_)) | Failure::Partial(partial::Error::Write { .. }) => format!(
            "; {} has to be writable and to have room for {}, or name another folder with --models-dir",
            models.display(),
            DecimalBytes(entry.bytes)
        ),
        Failure::Partial(partial::Error::Busy) => "; wait for it, and run this again".to_owned(),
        Failure::Read { .. } | Failure::OtherFile { .. } => format!("; {elsewhere}"),
        Failure::Mismatch { .. } | Failure::Occupied { .. } => String::new(),
    }
}

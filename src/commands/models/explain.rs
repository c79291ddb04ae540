//! What the tensors of an ONNX file look like, and a manifest that may go with them.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::offline;
use super::reasons;
use crate::cli::Exit;
use crate::infer::backend::{Description, Port};
use crate::infer::{self, Engine, File, ModelSpec, Picture, Proposal};
use crate::route;

/// Larger files than ONNX can have in one piece are a mistake.
const MAX_BYTES: u64 = 2 << 30;

/// Why nothing can be told of a file.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is larger than {} MiB", path.display(), MAX_BYTES >> 20)]
    Large { path: PathBuf },
    #[error("it has {count} ONNX files and none is called model.onnx; name one")]
    NoFile { count: usize },
    #[error("--write: {} is there already; move it away first", path.display())]
    Overwritten { path: PathBuf },
    #[error("--write: there is no manifest to write: {reason}")]
    NoProposal { reason: String },
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("{}", offline::sentence(source))]
    Model { source: infer::Error },
}

impl Error {
    pub(super) const fn exit(&self) -> Exit {
        match self {
            Self::Read { .. } | Self::Large { .. } | Self::NoFile { .. } | Self::Overwritten { .. } => {
                Exit::Configuration
            }
            Self::Model { source } => offline::exit_of(source),
            Self::NoProposal { .. } | Self::Write { .. } => Exit::Internal,
        }
    }
}

/// What was found in a file.
pub(super) struct Explained {
    file: PathBuf,
    bytes: usize,
    description: Description,
    /// Whether the manifest beside it works, and why not; none if there is none.
    manifest: Option<Result<(), infer::Error>>,
    proposal: Result<Proposal, String>,
    written: Option<PathBuf>,
}

/// Whether an argument is a path, rather than the name of a model.
pub(super) fn is_path(argument: &str, is_model: bool) -> bool {
    let path = Path::new(argument);
    argument.contains(['/', '\\']) || argument.starts_with('.') || (!is_model && path.exists())
}

/// Looks at an ONNX file, or at that of a folder, and writes the manifest that it proposes beside it, if that is wanted.
pub(super) fn explain(engine: &Engine, path: &Path, write: bool) -> Result<Explained, Error> {
    let file = find(path)?;
    let bytes = read(&file)?;
    let (name, folder) = (file_name(&file), file.parent().unwrap_or(Path::new(".")).to_owned());
    let model = |source| Error::Model { source };
    let mut description = Description::read(engine.library(), &name, &bytes).map_err(model)?;
    let proposal = Picture::of(&description.inputs).and_then(|picture| {
        let tried = description.try_out(engine.library(), &name, &bytes, picture.shape());
        tried.map_err(|error| format!("it does not run on a picture of the proposed size: {error}"))?;
        let sha256 = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let [model, version] = names(&folder);
        let file = File { model: [&model, &version], path: &name, sha256: &sha256 };
        Ok(Proposal::new(&description, &picture, &file))
    });
    let place = folder.join("manifest.toml");
    let manifest = place.exists().then(|| {
        let spec = ModelSpec::open(&folder.canonicalize().unwrap_or_else(|_| folder.clone()))?;
        let loaded = engine.load(&spec)?;
        engine.unload(&loaded.id());
        Ok(())
    });
    let mut written = None;
    if write {
        let proposal = proposal.as_ref().map_err(|reason| Error::NoProposal { reason: reason.clone() })?;
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::AlreadyExists => Error::Overwritten { path: place.clone() },
            _ => Error::Write { path: place.clone(), source },
        };
        let mut target = fs::File::create_new(&place).map_err(failed)?;
        io::Write::write_all(&mut target, proposal.manifest.as_bytes()).map_err(failed)?;
        written = Some(place.clone());
    }
    Ok(Explained { file, bytes: bytes.len(), description, manifest, proposal, written })
}

/// The file itself, or the one that a folder has: `model.onnx`, or else the only one.
fn find(path: &Path) -> Result<PathBuf, Error> {
    if !path.is_dir() {
        return Ok(path.to_owned());
    }
    let usual = path.join("model.onnx");
    if usual.exists() {
        return Ok(usual);
    }
    let entries = fs::read_dir(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    let files = entries.flatten().map(|entry| entry.path());
    let mut files: Vec<_> = files.filter(|file| file.extension().is_some_and(|end| end == "onnx")).collect();
    match (files.pop(), files.len()) {
        (Some(only), 0) => Ok(only),
        (last, others) => Err(Error::NoFile { count: others + usize::from(last.is_some()) }),
    }
}

fn read(path: &Path) -> Result<Bytes, Error> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    if fs::metadata(path).map_err(failed)?.len() > MAX_BYTES {
        return Err(Error::Large { path: path.to_owned() });
    }
    fs::read(path).map(Bytes::from).map_err(failed)
}

/// Name and version of a model in this folder, which is `…/NAME/VERSION`; others where that is not legal.
fn names(folder: &Path) -> [String; 2] {
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let of = |path: Option<&Path>, otherwise: &str| {
        let name = path.map(file_name).filter(|name| route::is_name(name));
        name.unwrap_or_else(|| otherwise.to_owned())
    };
    [of(folder.parent(), "my-model"), of(Some(&folder), "1")]
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

impl Explained {
    /// None where nothing is the matter.
    pub(super) fn exit(&self) -> Option<Exit> {
        self.manifest.as_ref().and_then(|manifest| manifest.as_ref().err()).map(offline::exit_of)
    }

    pub(super) fn to_json(&self) -> Value {
        let ports = |ports: &[Port]| {
            let port = |port: &Port| json!({"name": port.name, "type": port.kind, "shape": port.shape});
            ports.iter().map(port).collect::<Vec<_>>()
        };
        let mut report = json!({
            "path": self.file.display().to_string(),
            "bytes": self.bytes,
            "inputs": ports(&self.description.inputs),
            "outputs": ports(&self.description.outputs),
        });
        match &self.manifest {
            None => report["status"] = "no manifest".into(),
            Some(Ok(())) => report["status"] = "ready".into(),
            Some(Err(error)) => {
                report["status"] = "refused".into();
                report["reasons"] = reasons(error).into();
            }
        }
        match &self.proposal {
            Ok(Proposal { task, reason, manifest, unknown }) => {
                report["proposal"] =
                    json!({"task": task.name(), "reason": reason, "manifest": manifest, "unknown": unknown});
            }
            Err(reason) => report["no_proposal"] = reason.as_str().into(),
        }
        report
    }
}

impl fmt::Display for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {} bytes", self.file.display(), self.bytes)?;
        for (what, ports) in [("input", &self.description.inputs), ("output", &self.description.outputs)] {
            for Port { name, kind, shape, seen } in ports {
                let sides = |side: &i64| if *side < 0 { "?".to_owned() } else { side.to_string() };
                let shape: Vec<_> = shape.iter().map(sides).collect();
                write!(f, "    {what:6} `{name}` {kind} [{}]", shape.join(", "))?;
                match seen {
                    Some(seen) if shape.contains(&"?".to_owned()) => {
                        writeln!(f, ", {:?} when it was tried", seen.shape)?
                    }
                    _ => writeln!(f)?,
                }
            }
        }
        match &self.manifest {
            None => {}
            Some(Ok(())) => return write!(f, "its manifest works"),
            Some(Err(error)) => {
                writeln!(f, "its manifest does not work:")?;
                for reason in reasons(error) {
                    writeln!(f, "    {reason}")?;
                }
            }
        }
        match (&self.proposal, &self.written) {
            (Err(reason), _) => write!(f, "no manifest can be proposed: {reason}"),
            (Ok(proposal), Some(place)) => {
                write!(f, "{}: {}\nwritten to {}", proposal.task.name(), proposal.reason, place.display())
            }
            (Ok(proposal), None) => {
                let (task, reason) = (proposal.task.name(), &proposal.reason);
                write!(f, "{task}: {reason}\nproposed manifest.toml:\n\n{}", proposal.manifest.trim_end())
            }
        }
    }
}

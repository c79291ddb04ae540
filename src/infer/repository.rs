use std::cmp::Ordering;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::error::{Error, Mistake};
use super::folder::Folder;
use super::inspect::{Unfit, inspect};
use super::manifest::{FileRef, Manifest, Precision};

const EMBEDDED_MANIFEST: &str = include_str!("../../models/ppe-nano/2/manifest.toml");
const EMBEDDED_MODEL: &[u8] = include_bytes!("../../models/ppe-nano/2/model.onnx");
const EMBEDDED_INT8: &[u8] = include_bytes!("../../models/ppe-nano/2/model.int8.onnx");
/// For GPUs alone.
#[cfg(feature = "cuda")]
const EMBEDDED_FP16: Option<&[u8]> = Some(include_bytes!("../../models/ppe-nano/2/model.fp16.onnx"));
#[cfg(not(feature = "cuda"))]
const EMBEDDED_FP16: Option<&[u8]> = None;

/// Name of the file beside a model's graphs.
const MANIFEST: &str = "manifest.toml";
/// Bytes of a manifest, or of a list of classes, at most.
const MAX_TEXT: u64 = 1 << 20;
/// Bytes of a graph at most: what one message of Protocol Buffers can hold.
const MAX_GRAPH: u64 = 2 << 30;

/// The models that can be loaded: those of a folder laid out as `NAME/VERSION/{manifest.toml, model.onnx}`, and the
/// embedded default model. A model in the folder hides an embedded one of the same name and version.
#[derive(Debug, Default)]
pub struct Repository {
    models: Vec<ModelSpec>,
    refused: Vec<Refused>,
}

/// A model that is there but can't be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// `name@version` by its folders.
    pub id: String,
    /// Why not.
    pub error: Error,
}

/// A model's manifest and where its files are.
#[derive(Debug, Clone)]
pub struct ModelSpec {
    /// Its manifest.
    pub manifest: Manifest,
    texts: Arc<Texts>,
    source: Source,
}

#[derive(Debug, Clone)]
enum Source {
    Embedded,
    Folder(PathBuf),
    /// Read before.
    Held(Graphs),
}

/// What a manifest was read from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Texts {
    manifest: String,
    /// Name and text of the file that has its classes, where that is another one.
    classes: Option<(String, String)>,
}

impl Texts {
    fn read(
        manifest: String,
        read: impl FnOnce(&str) -> Result<String, Error>,
    ) -> Result<(Arc<Self>, Manifest), Error> {
        let mut classes = None;
        let parsed = Manifest::parse(&manifest, |file| {
            let text = read(file)?;
            Ok(classes.insert((file.to_owned(), text)).1.clone())
        })?;
        Ok((Arc::new(Self { manifest, classes }), parsed))
    }
}

/// The bytes of a model's graphs.
#[derive(Debug, Clone)]
pub(super) struct Graphs {
    pub(super) fp32: Bytes,
    pub(super) int8: Option<Bytes>,
    pub(super) fp16: Option<Bytes>,
    /// SHA-256 of these, in this order.
    pub(super) sha256: Vec<String>,
}

impl Graphs {
    /// Looks for what none of them may have. What passes is what is run: files are not read again.
    ///
    /// # Errors
    /// [`Error::Unfit`], [`Error::UnreadableModel`].
    pub(super) fn inspect(&self, manifest: &Manifest) -> Result<(), Error> {
        let variants = [(manifest.int8.as_ref(), self.int8.as_ref()), (manifest.fp16.as_ref(), self.fp16.as_ref())];
        let variants = variants.into_iter().filter_map(|(file, graph)| file.zip(graph));
        for (file, graph) in std::iter::once((&manifest.file, &self.fp32)).chain(variants) {
            let file = || file.path.clone();
            inspect(graph).map_err(|reason| match reason {
                Unfit::Malformed | Unfit::TooDeep => {
                    Error::UnreadableModel { file: file(), reason: reason.to_string() }
                }
                reason => Error::Unfit { file: file(), reason },
            })?;
        }
        Ok(())
    }

    /// The one that is run in a precision.
    pub(super) fn of(&self, precision: Precision) -> &Bytes {
        let variant = match precision {
            Precision::Int8 => self.int8.as_ref(),
            Precision::Fp16 => self.fp16.as_ref(),
            _ => None,
        };
        variant.unwrap_or(&self.fp32)
    }
}

impl Repository {
    /// Looks through `folder` (none: only the embedded model). A bad model is noted in [`Self::refused`] with its
    /// reason, and the others are taken.
    ///
    /// # Errors
    /// [`Error::Read`] if the folder itself can't be listed.
    pub fn scan(folder: Option<&Path>) -> Result<Self, Error> {
        let mut repository = Self::default();
        for name in folder.map(folders).transpose()?.unwrap_or_default() {
            match folders(&name) {
                Ok(versions) => versions.into_iter().for_each(|version| repository.add(&version)),
                Err(error) => repository.refused.push(Refused { id: file_name(&name), error }),
            }
        }
        match ModelSpec::embedded() {
            Ok(spec) if !repository.models.iter().any(|model| model.manifest.id() == spec.manifest.id()) => {
                repository.models.push(spec);
            }
            Ok(_) => {}
            Err(error) => repository.refused.push(Refused { id: "embedded".to_owned(), error }),
        }
        repository.models.sort_by(|a, b| {
            let by_name = a.manifest.name.cmp(&b.manifest.name);
            by_name.then_with(|| compare_versions(&a.manifest.version, &b.manifest.version))
        });
        Ok(repository)
    }

    fn add(&mut self, folder: &Path) {
        if !looks_like_a_model(folder) {
            return;
        }
        match ModelSpec::open(folder) {
            Ok(spec) => self.models.push(spec),
            Err(error) => {
                let name = folder.parent().map(file_name).unwrap_or_default();
                self.refused.push(Refused { id: format!("{name}@{}", file_name(folder)), error });
            }
        }
    }

    /// The usable models by name, then version.
    #[must_use]
    pub fn models(&self) -> &[ModelSpec] {
        &self.models
    }

    /// The models that can't be used.
    #[must_use]
    pub fn refused(&self) -> &[Refused] {
        &self.refused
    }

    /// The model `name@version`, or the newest version of `name`.
    ///
    /// # Errors
    /// [`Error::UnknownModel`]; or, if that model was refused, the reason.
    pub fn find(&self, name: &str) -> Result<&ModelSpec, Error> {
        let found = self.models.iter().rfind(|model| matches_name(&model.manifest, name));
        found.ok_or_else(|| {
            let refused = self.refused.iter().find(|refused| {
                refused.id == name
                    || refused.id.split_once('@').is_some_and(|(without_version, _)| without_version == name)
            });
            refused.map_or_else(|| Error::UnknownModel { name: name.to_owned() }, |refused| refused.error.clone())
        })
    }
}

impl ModelSpec {
    /// The default model that is part of the program: `ppe-nano`, heads with and without a helmet.
    ///
    /// # Errors
    /// None in a good build.
    pub fn embedded() -> Result<Self, Error> {
        let (texts, manifest) = Texts::read(EMBEDDED_MANIFEST.to_owned(), |file| {
            Err(Error::Read { path: file.into(), reason: "not embedded".to_owned() })
        })?;
        Ok(Self { manifest, texts, source: Source::Embedded })
    }

    /// A model whose files were read before.
    ///
    /// # Errors
    /// [`Error::Manifest`].
    pub(super) fn held(texts: Texts, graphs: Graphs) -> Result<Self, Error> {
        let Texts { manifest, classes } = texts;
        let (texts, manifest) = Texts::read(manifest, |file| {
            let missing = || Error::Read { path: file.into(), reason: "it was not read".to_owned() };
            classes.filter(|(name, _)| name == file).map(|(_, text)| text).ok_or_else(missing)
        })?;
        Ok(Self { manifest, texts, source: Source::Held(graphs) })
    }

    /// What the manifest was read from.
    pub(super) fn texts(&self) -> &Texts {
        &self.texts
    }

    /// A model's folder `…/NAME/VERSION`. Its files are read and their checksums compared.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::Manifest`] (also when its name and version are not the folders'),
    /// [`Error::Checksum`].
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let inside = Folder::open(folder)?;
        let text = inside.read_text(MANIFEST, MAX_TEXT)?;
        let (texts, manifest) = Texts::read(text, |file| inside.read_text(file, MAX_TEXT))?;
        let (name, version) = (folder.parent().map(file_name).unwrap_or_default(), file_name(folder));
        let mut mistakes = Vec::new();
        for (key, value, expected) in [("name", &manifest.name, name), ("version", &manifest.version, version)] {
            if *value != expected {
                let problem = format!("is \"{value}\", but its folder is called \"{expected}\"");
                mistakes.push(Mistake { key: key.to_owned(), problem });
            }
        }
        if !mistakes.is_empty() {
            return Err(Error::Manifest { mistakes });
        }
        let spec = Self { manifest, texts, source: Source::Folder(folder.to_owned()) };
        if spec.manifest.remote.is_none() {
            spec.read()?;
        }
        Ok(spec)
    }

    /// What tells its graphs from others, as [`super::Model::content`] of what is opened of them. Reads them.
    ///
    /// # Errors
    /// [`Error::Read`], [`Error::Checksum`].
    pub fn content(&self) -> Result<Option<String>, Error> {
        self.manifest.remote.is_none().then(|| self.read().map(|graphs| graphs.sha256.join(" "))).transpose()
    }

    /// Whether these graphs are part of the program.
    pub(super) fn is_ours(graphs: &Graphs) -> bool {
        let Ok(Manifest { file, int8, fp16, .. }) = Self::embedded().map(|spec| spec.manifest) else { return false };
        let ours: Vec<_> = [Some(file), int8, fp16].into_iter().flatten().filter_map(|file| file.sha256).collect();
        graphs.sha256.iter().all(|sha256| ours.contains(sha256))
    }

    /// Whether it is part of the program.
    #[must_use]
    pub const fn is_embedded(&self) -> bool {
        matches!(self.source, Source::Embedded)
    }

    /// The same with another int8 graph, which has a file's name, and is in none.
    ///
    /// # Errors
    /// Those of reading the other graphs.
    pub fn with_int8(&self, file: &str, graph: Vec<u8>) -> Result<Self, Error> {
        let int8 = FileRef { path: file.to_owned(), sha256: None };
        let (graph, sha256) = checked(Bytes::from(graph), &int8)?;
        let mut graphs = self.read()?;
        if graphs.int8.replace(graph).is_some() {
            graphs.sha256[1] = sha256;
        } else {
            graphs.sha256.insert(1, sha256);
        }
        let manifest = Manifest { int8: Some(int8), ..self.manifest.clone() };
        Ok(Self { manifest, texts: Arc::clone(&self.texts), source: Source::Held(graphs) })
    }

    /// Where it is, if it is not part of the program.
    #[must_use]
    pub fn folder(&self) -> Option<&Path> {
        match &self.source {
            Source::Embedded | Source::Held(_) => None,
            Source::Folder(folder) => Some(folder),
        }
    }

    /// Reads the graphs and compares their checksums.
    pub(super) fn read(&self) -> Result<Graphs, Error> {
        let Manifest { file, int8, fp16, .. } = &self.manifest;
        let folder = match &self.source {
            Source::Held(graphs) => return Ok(graphs.clone()),
            Source::Folder(folder) => Some(Folder::open(folder)?),
            Source::Embedded => None,
        };
        let read = |file: &FileRef, embedded: &'static [u8]| {
            let Some(folder) = &folder else { return checked(Bytes::from_static(embedded), file) };
            checked(folder.read(&file.path, MAX_GRAPH)?.into(), file)
        };
        let (fp32, first) = read(file, EMBEDDED_MODEL)?;
        let int8 = int8.as_ref().map(|int8| read(int8, EMBEDDED_INT8)).transpose()?;
        // A program without what runs it leaves it out.
        let fp16 = fp16.as_ref().filter(|_| EMBEDDED_FP16.is_some() || !self.is_embedded());
        let fp16 = fp16.map(|fp16| read(fp16, EMBEDDED_FP16.unwrap_or_default())).transpose()?;
        let ((int8, second), (fp16, third)) = (int8.unzip(), fp16.unzip());
        Ok(Graphs { fp32, int8, fp16, sha256: std::iter::once(first).chain(second).chain(third).collect() })
    }
}

/// Whether `name` is the manifest's name, or its `name@version`.
pub(crate) fn matches_name(manifest: &Manifest, name: &str) -> bool {
    match name.split_once('@') {
        Some((name, version)) => manifest.name == name && manifest.version == version,
        None => manifest.name == name,
    }
}

/// Orders versions by their numbers where they are numbers: `2` before `10`, `1.9` before `1.10`.
pub(crate) fn compare_versions(a: &str, b: &str) -> Ordering {
    let (mut left, mut right) = (a.split(['.', '-', '_']), b.split(['.', '-', '_']));
    loop {
        let order = match (left.next(), right.next()) {
            (None, None) => return a.cmp(b),
            (None, Some(_)) => Ordering::Less,
            (Some(_), None) => Ordering::Greater,
            (Some(x), Some(y)) => match (x.parse::<u64>(), y.parse::<u64>()) {
                (Ok(x), Ok(y)) => x.cmp(&y),
                (Ok(_), Err(_)) => Ordering::Greater,
                (Err(_), Ok(_)) => Ordering::Less,
                (Err(_), Err(_)) => x.cmp(y),
            },
        };
        if order.is_ne() {
            return order;
        }
    }
}

/// The bytes and their SHA-256, which is the file's by the manifest.
fn checked(bytes: Bytes, file: &FileRef) -> Result<(Bytes, String), Error> {
    let actual = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    match &file.sha256 {
        Some(expected) if actual != *expected => {
            Err(Error::Checksum { file: file.path.clone(), expected: expected.clone(), actual })
        }
        _ => Ok((bytes, actual)),
    }
}

fn folders(parent: &Path) -> Result<Vec<PathBuf>, Error> {
    let failed = |error: std::io::Error| Error::Read { path: parent.to_owned(), reason: error.to_string() };
    let mut folders = Vec::new();
    for entry in fs::read_dir(parent).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_dir() && !file_name(&path).starts_with('.') {
            folders.push(path);
        }
    }
    folders.sort();
    Ok(folders)
}

/// Whether a folder has a manifest or a graph. Others that lie among the models, such as how one was trained, are none
/// of the repository's business.
fn looks_like_a_model(folder: &Path) -> bool {
    let is_part = |path: PathBuf| path.ends_with("manifest.toml") || path.extension().is_some_and(|end| end == "onnx");
    // A folder that can't be listed is opened, which says why not.
    fs::read_dir(folder).map_or(true, |entries| entries.flatten().any(|entry| is_part(entry.path())))
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    fn manifest(name: &str, version: &str, sha256: &str) -> String {
        format!(
            "name = '{name}'\nversion = '{version}'\nlicence = 'MIT'\n[file]\n{sha256}\n[input]\nsize = [64, 64]\n\
             [output]\ndecoder = 'yolov8'\n[classes]\nnames = ['x']\n"
        )
    }

    fn put(root: &Path, name: &str, version: &str, manifest: &str) {
        let folder = root.join(name).join(version);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("manifest.toml"), manifest).unwrap();
        fs::write(folder.join("model.onnx"), b"graph").unwrap();
    }

    fn ids(repository: &Repository) -> Vec<String> {
        repository.models().iter().map(|model| model.manifest.id()).collect()
    }

    /// The embedded model's id.
    fn default() -> String {
        let id = ModelSpec::embedded().unwrap().manifest.id();
        assert!(id.starts_with("ppe-nano@"), "{id}");
        id
    }

    #[test]
    fn without_a_folder_there_is_the_embedded_model() {
        let repository = Repository::scan(None).unwrap();
        assert_eq!(ids(&repository), [default()]);
        assert_eq!(repository.refused(), []);
        let spec = repository.find("ppe-nano").unwrap();
        assert!(spec.is_embedded());
        let graphs = spec.read().unwrap();
        assert!(graphs.int8.is_some(), "checksums agree");
        assert_eq!(graphs.fp16.is_some(), cfg!(feature = "cuda"));
        assert_eq!(graphs.sha256.len(), 2 + usize::from(cfg!(feature = "cuda")));
    }

    #[test]
    fn versions_are_sorted_by_number_and_the_newest_is_found_by_name() {
        let root = tempfile::tempdir().unwrap();
        for version in ["10", "2", "1.9"] {
            put(root.path(), "b", version, &manifest("b", version, ""));
        }
        put(root.path(), "a", "1", &manifest("a", "1", ""));
        let repository = Repository::scan(Some(root.path())).unwrap();
        assert_eq!(ids(&repository), ["a@1", "b@1.9", "b@2", "b@10", &default()]);
        assert_eq!(repository.find("b").unwrap().manifest.version, "10");
        assert_eq!(repository.find("b@2").unwrap().manifest.version, "2");
        assert_eq!(repository.find("b@3").unwrap_err(), Error::UnknownModel { name: "b@3".to_owned() });
    }

    #[test]
    fn a_bad_model_is_refused_with_its_reason_and_the_others_are_taken() {
        let root = tempfile::tempdir().unwrap();
        put(root.path(), "good", "1", &manifest("good", "1", ""));
        put(root.path(), "typo", "1", &manifest("typo", "1", "").replace("size", "sice"));
        put(root.path(), "moved", "1", &manifest("other", "1", ""));
        put(root.path(), "changed", "1", &manifest("changed", "1", &format!("sha256 = '{}'", "0".repeat(64))));
        put(root.path(), "gone", "1", &manifest("gone", "1", ""));
        fs::remove_file(root.path().join("gone/1/model.onnx")).unwrap();
        fs::create_dir_all(root.path().join("bare/1")).unwrap();
        fs::write(root.path().join("bare/1/model.onnx"), b"graph").unwrap();
        // Not a model at all.
        fs::create_dir_all(root.path().join("train/code")).unwrap();
        fs::write(root.path().join("train/code/main.py"), b"print()").unwrap();
        let repository = Repository::scan(Some(root.path())).unwrap();
        assert_eq!(ids(&repository), ["good@1", &default()]);
        let refused = repository.refused();
        assert_eq!(
            refused.iter().map(|r| r.id.as_str()).collect::<Vec<_>>(),
            ["bare@1", "changed@1", "gone@1", "moved@1", "typo@1"]
        );
        assert!(
            matches!(&refused[1].error, Error::Checksum { actual, .. } if actual.starts_with("eef93e1d")),
            "{refused:?}"
        );
        assert!(matches!(&refused[0].error, Error::Read { path, .. } if path.ends_with("manifest.toml")));
        assert!(matches!(&refused[2].error, Error::Read { path, .. } if path.ends_with("model.onnx")));
        assert!(refused[3].error.to_string().contains("`name`: is \"other\", but its folder is called \"moved\""));
        assert!(refused[4].error.to_string().contains("`input.sice`: unknown key"));
        assert_eq!(repository.find("typo").unwrap_err(), refused[4].error);
    }

    #[test]
    fn a_model_in_the_folder_hides_the_embedded_one_of_its_version() {
        let root = tempfile::tempdir().unwrap();
        let version = ModelSpec::embedded().unwrap().manifest.version;
        put(root.path(), "ppe-nano", &version, &manifest("ppe-nano", &version, ""));
        let repository = Repository::scan(Some(root.path())).unwrap();
        assert_eq!(ids(&repository), [default()]);
        assert!(!repository.models()[0].is_embedded());
        assert!(Repository::scan(Some(&root.path().join("nowhere"))).is_err());
    }
}

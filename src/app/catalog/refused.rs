use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::config::models::RoutesFile;
use crate::infer::{Error, Manifest, ModelSpec};
use crate::state;

/// Raised whenever the file's layout changes.
const FORMAT: u32 = 1;
/// The file's name, beside that of kept routes.
const NAME: &str = "refused-models.json";
/// Versions that are remembered; beyond, the ones that were noted first are forgotten.
const MAX_VERSIONS: usize = 64;
/// Bytes of the file at most: more than so many versions take.
const MAX_BYTES: u64 = 1 << 20;
/// Characters of a reason that are kept.
const MAX_REASON: usize = 1_000;

/// Versions that made way for the ones before, in a file that the next start reads. Each is known by what is in its files:
/// with other files it is another one.
#[derive(Debug)]
pub(super) struct Refusals {
    path: Option<PathBuf>,
    /// The newest last.
    versions: Mutex<Vec<Version>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Version {
    /// `NAME@VERSION`.
    model: String,
    /// BLAKE3 of manifest and graphs.
    content: String,
    reason: String,
}

#[derive(Serialize, Deserialize)]
struct Layout {
    format: u32,
    versions: Vec<Version>,
}

impl Refusals {
    /// Reads the file, which lies beside that of kept routes. One that can't be read is put aside, with a warning.
    pub(super) fn open(routes: &RoutesFile) -> Self {
        let path = routes.path().map(|path| path.with_file_name(NAME));
        let versions = path.as_deref().map(|path| {
            read(path).unwrap_or_else(|error| {
                let (file, aside) = (path.display(), state::put_aside(path));
                tracing::warn!(%file, %error, ?aside, "which models made way for others cannot be read");
                Vec::new()
            })
        });
        Self { path, versions: Mutex::new(versions.unwrap_or_default()) }
    }

    /// Why a version made way for the one before, if these very files did.
    pub(super) fn find(&self, spec: &ModelSpec) -> Option<String> {
        let model = spec.manifest.id();
        // Files are hashed where there is something to compare them with.
        if !self.lock().iter().any(|version| version.model == model) {
            return None;
        }
        // What can't be read is refused where it is opened.
        let content = content_of(spec).ok()?;
        let versions = self.lock();
        let found = versions.iter().find(|version| version.model == model && version.content == content);
        found.map(|version| version.reason.clone())
    }

    /// Notes that a version made way. `graphs` is [`ModelSpec::content`] of what was opened.
    pub(super) fn note(&self, manifest: &Manifest, graphs: Option<&str>, reason: &str) {
        let (model, content) = (manifest.id(), content(manifest, graphs));
        let reason = reason.chars().take(MAX_REASON).collect();
        let mut versions = self.lock();
        versions.retain(|version| version.model != model);
        versions.push(Version { model, content, reason });
        let beyond = versions.len().saturating_sub(MAX_VERSIONS);
        versions.drain(..beyond);
        self.save(&versions);
    }

    /// Gives a version another chance: somebody asked for it.
    pub(super) fn forget(&self, (name, version): &(String, String)) {
        let model = format!("{name}@{version}");
        let mut versions = self.lock();
        let before = versions.len();
        versions.retain(|version| version.model != model);
        if versions.len() < before {
            self.save(&versions);
        }
    }

    /// Under the lock, so that the last one to change is the last one to write.
    fn save(&self, versions: &[Version]) {
        let Some(path) = &self.path else { return };
        if let Err(error) = state::write(path, &Layout { format: FORMAT, versions: versions.to_vec() }) {
            let file = path.display();
            tracing::error!(%file, %error, "which models made way for others can't be kept; the next start tries them again");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Version>> {
        self.versions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(path: &Path) -> std::io::Result<Vec<Version>> {
    let Some(Layout { format, mut versions }) = state::read(path, MAX_BYTES)? else { return Ok(Vec::new()) };
    if format != FORMAT {
        return Err(std::io::Error::other(format!("its format is {format}, and {FORMAT} is known")));
    }
    let beyond = versions.len().saturating_sub(MAX_VERSIONS);
    versions.drain(..beyond);
    Ok(versions)
}

fn content_of(spec: &ModelSpec) -> Result<String, Error> {
    Ok(content(&spec.manifest, spec.content()?.as_deref()))
}

fn content(manifest: &Manifest, graphs: Option<&str>) -> String {
    blake3::hash(format!("{graphs:?} {manifest:?}").as_bytes()).to_hex().to_string()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn id(manifest: &Manifest) -> (String, String) {
        (manifest.name.clone(), manifest.version.clone())
    }

    #[test]
    fn a_version_stays_refused_until_its_files_change_or_somebody_asks_for_it() {
        let root = tempfile::tempdir().unwrap();
        let beside = RoutesFile::At(root.path().join("state/routes.json"));
        let spec = ModelSpec::embedded().unwrap();
        let graphs = spec.content().unwrap();
        let refusals = Refusals::open(&beside);
        assert_eq!(refusals.find(&spec), None);
        refusals.note(&spec.manifest, graphs.as_deref(), "it is slow");
        assert_eq!(Refusals::open(&beside).find(&spec).as_deref(), Some("it is slow"));
        // Other graphs, or another manifest.
        refusals.note(&spec.manifest, Some("other"), "it is slow");
        assert_eq!(Refusals::open(&beside).find(&spec), None);
        let mut manifest = spec.manifest.clone();
        manifest.batching.max_batch += 1;
        refusals.note(&manifest, graphs.as_deref(), "it is slow");
        assert_eq!(Refusals::open(&beside).find(&spec), None);

        refusals.note(&spec.manifest, graphs.as_deref(), "it is slow");
        refusals.forget(&id(&spec.manifest));
        assert_eq!((refusals.find(&spec), Refusals::open(&beside).find(&spec)), (None, None));
        // Without a file it is known for as long as the process lives.
        let off = Refusals::open(&RoutesFile::Off);
        off.note(&spec.manifest, graphs.as_deref(), "it is slow");
        assert!(off.find(&spec).is_some() && Refusals::open(&RoutesFile::Off).find(&spec).is_none());
    }

    #[test]
    fn the_file_is_bounded_and_one_that_cannot_be_read_is_put_aside() {
        let root = tempfile::tempdir().unwrap();
        let beside = RoutesFile::At(root.path().join("routes.json"));
        let path = root.path().join(NAME);
        let refusals = Refusals::open(&beside);
        let mut manifest = ModelSpec::embedded().unwrap().manifest;
        for number in 0..MAX_VERSIONS + 3 {
            manifest.version = number.to_string();
            refusals.note(&manifest, None, &"w".repeat(2 * MAX_REASON));
        }
        let versions = read(&path).unwrap();
        let first = format!("{}@3", manifest.name);
        assert_eq!((versions.len(), &versions[0].model), (MAX_VERSIONS, &first));
        for bad in ["{", "{\"format\":2,\"versions\":[]}"] {
            std::fs::write(&path, bad).unwrap();
            assert!(Refusals::open(&beside).lock().is_empty());
            assert_eq!(std::fs::read_to_string(path.with_extension("bad")).unwrap(), bad);
        }
    }
}

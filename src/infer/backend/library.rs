use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ort::environment::Environment;

use crate::calibration::cache_folder;
use crate::infer::error::Error;
use crate::infer::repository::compare_versions;

/// The ONNX Runtime library of this process; a library once loaded stays.
#[derive(Debug, Clone)]
pub struct Library {
    path: PathBuf,
    environment: Environment,
}

static LOADED: Mutex<Option<Library>> = Mutex::new(None);

impl Library {
    /// Loads the library, or gives the one that is loaded already.
    ///
    /// # Errors
    /// [`Error::LibraryMissing`], [`Error::LibraryUnusable`].
    pub fn load() -> Result<Self, Error> {
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(library) = &*loaded {
            return Ok(library.clone());
        }
        let path = Self::find()?;
        let unusable = |error: String| Error::LibraryUnusable { path: path.clone(), reason: error };
        let builder = ort::init_from(&path).map_err(|error| unusable(error.to_string()))?;
        let environment = builder.with_name("saccade").with_telemetry(false).build();
        let environment = environment.map_err(|error| unusable(error.to_string()))?;
        let library = Self { path, environment };
        *loaded = Some(library.clone());
        Ok(library)
    }

    /// Where the library is: `ORT_DYLIB_PATH`; else the newest of
    /// `${XDG_CACHE_HOME:-~/.cache}/saccade/onnxruntime*/libonnxruntime.so*`; else beside the program.
    ///
    /// # Errors
    /// [`Error::LibraryMissing`] with the places looked at.
    pub fn find() -> Result<PathBuf, Error> {
        let beside = env::current_exe().ok().and_then(|program| program.parent().map(Path::to_owned));
        find_in(path_in("ORT_DYLIB_PATH"), cache_folder(), beside)
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What ONNX Runtime says of its build: version, commit, flags.
    #[must_use]
    pub fn build_info(&self) -> &'static str {
        ort::info()
    }

    /// Whether the OpenVINO provider lies beside the library; if not, why.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub fn openvino(&self) -> Result<(), Error> {
        let provider = self.path.with_file_name("libonnxruntime_providers_openvino.so");
        if provider.is_file() {
            return Ok(());
        }
        let reason = format!("{} is not there", provider.display());
        Err(Error::Unavailable { what: "OpenVINO".to_owned(), reason })
    }

    /// What sessions of it are made in: there is one a process.
    #[must_use]
    pub const fn environment(&self) -> &Environment {
        &self.environment
    }
}

fn path_in(variable: &str) -> Option<PathBuf> {
    env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from)
}

fn find_in(set: Option<PathBuf>, cache: Option<PathBuf>, beside: Option<PathBuf>) -> Result<PathBuf, Error> {
    if let Some(path) = set {
        if path.is_file() {
            return Ok(path);
        }
        return Err(Error::LibraryMissing { searched: vec![format!("{} (ORT_DYLIB_PATH)", path.display())] });
    }
    let mut folders = cache.as_deref().map(cached).unwrap_or_default();
    folders.extend(beside.clone());
    folders.iter().find_map(|folder| newest_library(folder)).ok_or_else(|| {
        let cache = cache.map(|cache| cache.join("onnxruntime*/libonnxruntime.so*"));
        let beside = beside.map(|folder| folder.join("libonnxruntime.so*"));
        let places = [cache, beside].into_iter().flatten();
        Error::LibraryMissing { searched: places.map(|place| place.display().to_string()).collect() }
    })
}

/// The `onnxruntime*` folders, newest version first.
fn cached(cache: &Path) -> Vec<PathBuf> {
    let mut folders = entries(cache, "onnxruntime");
    folders.sort_by(|a, b| compare_versions(&version(b), &version(a)));
    folders
}

fn newest_library(folder: &Path) -> Option<PathBuf> {
    let files = entries(folder, "libonnxruntime.so").into_iter().filter(|path| path.is_file());
    files.max_by(|a, b| compare_versions(&version(a), &version(b)))
}

/// The file name from its first digit on.
fn version(path: &Path) -> String {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    name.find(|c: char| c.is_ascii_digit()).map(|start| name[start..].to_owned()).unwrap_or_default()
}

fn entries(folder: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let named = |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix));
    entries.filter(named).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    fn touch(path: &Path) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, b"").unwrap();
    }

    #[test]
    fn the_newest_cached_version_wins_over_the_one_beside_the_program() {
        let folder = tempfile::tempdir().unwrap();
        let (cache, beside) = (folder.path().join("cache"), folder.path().join("bin"));
        touch(&cache.join("onnxruntime-openvino-1.9.2/libonnxruntime.so.1.9.2"));
        let newest = cache.join("onnxruntime-openvino-1.24.1/libonnxruntime.so.1.24.1");
        touch(&newest);
        touch(&cache.join("onnxruntime-openvino-1.24.1/libonnxruntime_providers_openvino.so"));
        touch(&beside.join("libonnxruntime.so"));
        fs::create_dir_all(cache.join("onnxruntime-1.99.0")).unwrap();
        assert_eq!(find_in(None, Some(cache.clone()), Some(beside.clone())), Ok(newest));
        fs::remove_dir_all(&cache).unwrap();
        assert_eq!(find_in(None, Some(cache), Some(beside.clone())), Ok(beside.join("libonnxruntime.so")));
    }

    #[test]
    fn a_missing_library_says_where_it_was_sought_and_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let error = find_in(None, Some(folder.path().join("saccade")), None).unwrap_err();
        assert!(matches!(&error, Error::LibraryMissing { searched } if searched.len() == 1), "{error:?}");
        let text = error.to_string();
        assert!(text.contains("onnxruntime*/libonnxruntime.so*") && text.contains("make setup"), "{text}");
        let set = folder.path().join("nowhere.so");
        let error = find_in(Some(set), None, Some(folder.path().to_owned())).unwrap_err();
        assert!(error.to_string().contains("ORT_DYLIB_PATH"), "{error}");
    }
}

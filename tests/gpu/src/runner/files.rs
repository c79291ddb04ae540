//! What the runner works on.

use std::path::{Path, PathBuf};

use saccade::decode::Limits;
use saccade::decode::file::Reader;
use saccade::infer::{ModelSpec, Repository};
use saccade::media::{ColorInfo, FramePool, I420};
use std::sync::Arc;

use super::Stop;

/// A folder with `clips`, `photos` and `models`.
#[derive(Debug, Clone)]
pub struct Files(pub PathBuf);

/// A picture to run models on.
#[derive(Debug, Clone)]
pub struct Shot {
    pub name: String,
    pub picture: Arc<I420>,
    pub color: ColorInfo,
}

impl Files {
    pub fn clips(&self) -> PathBuf {
        self.0.join("clips")
    }

    /// The models of the folder, and the embedded one.
    ///
    /// # Errors
    /// [`Stop::Failed`].
    pub fn models(&self) -> Result<Vec<ModelSpec>, Stop> {
        let folder = self.0.join("models");
        let repository = Repository::scan(folder.is_dir().then_some(&*folder)).map_err(Stop::failed)?;
        match repository.refused().first() {
            Some(refused) => Err(Stop::Failed(format!("{}: {}", refused.id, refused.error))),
            None => Ok(repository.models().to_vec()),
        }
    }

    /// Photos of the folder, by name; none where there are none.
    ///
    /// # Errors
    /// [`Stop::Failed`] where one can't be read.
    pub fn photos(&self) -> Result<Vec<Shot>, Stop> {
        let Ok(entries) = std::fs::read_dir(self.0.join("photos")) else { return Ok(Vec::new()) };
        let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        files.sort();
        files.iter().filter(|path| path.extension().is_some_and(|it| it == "jpg")).map(|path| photo(path)).collect()
    }
}

fn photo(path: &Path) -> Result<Shot, Stop> {
    let failed = |reason: String| Stop::Failed(format!("{}: {reason}", path.display()));
    let mut reader = Reader::open(path, Limits::default()).map_err(|error| failed(error.to_string()))?;
    let read = reader.next().ok_or_else(|| failed("no picture".to_owned()))?;
    let read = read.map_err(|error| failed(error.to_string()))?;
    let name = path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Ok(Shot { name, picture: read.picture, color: read.color })
}

/// The pool that pictures of one part come from.
pub fn pool() -> Arc<FramePool> {
    Arc::new(FramePool::new(8))
}

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::backend::{Library, Opener, Request, Selection};
use super::error::Error;
use super::instance::Open;
use super::manifest::{BackendChoice, Manifest, Precision};
use super::model::Model;
use super::repository::{ModelSpec, compare_versions, matches_name};
use super::runner::Runner;

/// How models are run, whatever their manifests say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Threads inside one run of a model. More make a single run faster on an idle machine and slower on a busy one;
    /// instances use many cores better.
    pub intra_threads: usize,
    /// Precision instead of the manifests'.
    pub precision: Option<Precision>,
    /// Backend instead of the manifests'.
    pub backend: Option<BackendChoice>,
}

impl Default for Options {
    fn default() -> Self {
        Self { intra_threads: 1, precision: None, backend: None }
    }
}

/// All loaded models and the library that runs them.
#[derive(Debug)]
pub struct Engine {
    library: Library,
    options: Options,
    /// By name, then version.
    models: Mutex<Vec<Arc<Model>>>,
}

impl Engine {
    /// Loads the ONNX Runtime library.
    ///
    /// # Errors
    /// [`Error::LibraryMissing`], [`Error::LibraryUnusable`].
    pub fn new(options: Options) -> Result<Self, Error> {
        Ok(Self { library: Library::load()?, options, models: Mutex::default() })
    }

    /// The library in use.
    #[must_use]
    pub const fn library(&self) -> &Library {
        &self.library
    }

    /// Loads a model and warms it up; this takes seconds where several ways to run it are compared. A model of the
    /// same name and version that was loaded before is replaced; its sessions keep it until they end.
    ///
    /// # Errors
    /// Those of reading the files, [`Error::UnreadableModel`], [`Error::WrongInput`], [`Error::WrongOutput`],
    /// [`Error::Unavailable`], [`Error::Run`]. The models loaded before stay as they are.
    pub fn load(&self, spec: &ModelSpec) -> Result<Arc<Model>, Error> {
        let manifest = Arc::new(spec.manifest.clone());
        let request = Request {
            precision: self.options.precision.unwrap_or(manifest.run.precision),
            backend: self.options.backend.unwrap_or(manifest.run.backend),
        };
        let threads = self.options.intra_threads.max(1);
        let opener = Opener::new(self.library.clone(), Arc::clone(&manifest), spec.read()?, threads)?;
        let (runner, selection) = opener.select(request)?;
        let mut runners = vec![runner];
        for _ in 1..manifest.run.instances {
            runners.push(opener.open(&selection)?);
        }
        let model = Arc::new(start(manifest, selection, opener, runners)?);
        let Selection { provider, precision, measured, others } = model.selection();
        let id = model.id();
        tracing::debug!(model = id, ?others, "other ways to run the model");
        tracing::info!(model = id, %provider, %precision, ?measured, "model loaded");
        let mut models = self.lock();
        models.retain(|other| other.id() != id);
        models.push(Arc::clone(&model));
        models.sort_by(|a, b| {
            let (a, b) = (a.manifest(), b.manifest());
            a.name.cmp(&b.name).then_with(|| compare_versions(&a.version, &b.version))
        });
        Ok(model)
    }

    /// All loaded models by name, then version.
    #[must_use]
    pub fn models(&self) -> Vec<Arc<Model>> {
        self.lock().clone()
    }

    /// The loaded model `name@version`, or the newest loaded version of `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Arc<Model>> {
        self.lock().iter().rfind(|model| matches_name(model.manifest(), name)).cloned()
    }

    /// Takes a model out of the list; its sessions keep it until they end.
    pub fn unload(&self, name: &str) -> Option<Arc<Model>> {
        let mut models = self.lock();
        let at = models.iter().rposition(|model| matches_name(model.manifest(), name))?;
        Some(models.remove(at))
    }

    /// Ends all models' threads, and waits for them.
    pub fn shutdown(&self) {
        let models = std::mem::take(&mut *self.lock());
        models.iter().for_each(|model| model.shutdown());
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Model>>> {
        self.models.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn start(manifest: Arc<Manifest>, selection: Selection, opener: Opener, runners: Vec<Runner>) -> Result<Model, Error> {
    let again = selection.clone();
    let open: Arc<Open> = Arc::new(move || opener.open(&again));
    Model::start(manifest, selection, &open, runners)
}

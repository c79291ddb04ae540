use std::collections::BTreeSet;
use std::num::NonZero;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

#[cfg(feature = "cuda")]
use super::backend::Recorded;
use super::backend::{CpuFeatures, Library, Opener, Request, Selection, TensorRt, open_plainly};
use super::check::Checker;
use super::error::Error;
use super::found::{Found, Key};
use super::improver::{Improvement, Improver};
use super::instance::Open;
use super::manifest::{BackendChoice, Manifest, Precision};
use super::model::Model;
use super::plan::{Outline, Plan};
use super::quantizer::Quantizer;
use super::remote;
use super::repository::{Graphs, ModelSpec, compare_versions, matches_name};
use super::routes::{Put, RouteError, Routes};
use super::runner::Runner;
use super::tensors::{self, Tensors};
use crate::calibration::Calibration;
#[cfg(feature = "cuda")]
use crate::media::I420;
use crate::route::Route;

/// How models are run, whatever their manifests say.
#[derive(Debug, Clone)]
pub struct Options {
    /// Threads inside one run of a model. More make a single run faster on an idle machine and slower on a busy one;
    /// instances use many cores better.
    pub intra_threads: usize,
    /// Precision instead of the manifests'.
    pub precision: Option<Precision>,
    /// Backend instead of the manifests'.
    pub backend: Option<BackendChoice>,
    /// Instances instead of the manifests'.
    pub instances: Option<u32>,
    /// Whether measurements are kept from one start to the next; default off.
    pub calibration: Calibration,
    /// The GPU that models may run on, or why there is none.
    pub cuda: Result<Cuda, String>,
    /// When engines of TensorRT are built; default never.
    pub engines: Engines,
    /// What tries models before they are opened here; default nothing.
    pub checker: Option<Checker>,
    /// What a frame costs outside its model: decoding, drawing, encoding, transport. The cores are shared with that,
    /// where nobody says how many instances there are to be; default 6 ms.
    pub around_model: Duration,
}

/// When engines of TensorRT, which take minutes, are built. Those that were built before are used in any case.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Engines {
    /// Never.
    #[default]
    Kept,
    /// While models are loaded.
    First,
    /// While models work already in another way.
    Meanwhile,
}

/// A GPU that models may run on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cuda {
    /// What it is, as far as measurements depend on it.
    pub name: String,
    /// TensorRT there, or why there is none.
    pub tensorrt: Result<TensorRt, String>,
    /// Where it is open: models then find pictures there and leave only boxes for the host. Otherwise tensors go to and fro.
    #[cfg(feature = "cuda")]
    pub gpu: Option<super::device::Gpu>,
}

impl Cuda {
    /// Whether models find pictures there.
    #[must_use]
    pub const fn is_in_place(&self) -> bool {
        #[cfg(feature = "cuda")]
        return self.gpu.is_some();
        #[cfg(not(feature = "cuda"))]
        false
    }

    /// The same for one model, whose failures do not change how others run there.
    pub(super) fn for_a_model(&self) -> Self {
        Self {
            name: self.name.clone(),
            tensorrt: self.tensorrt.clone(),
            #[cfg(feature = "cuda")]
            gpu: self.gpu.as_ref().map(super::device::Gpu::for_a_model),
        }
    }
}

/// A model that is open.
struct Prepared {
    opener: Opener,
    runner: Runner,
    selection: Selection,
    request: Request,
    key: Key,
    /// There is nothing that was left for later.
    is_final: bool,
    /// Nothing was left out of the measurement for want of time.
    complete: bool,
}

/// Share of the kept time below which a model is measured again, if others kept the processors busy then.
const MUCH_FASTER: f64 = 0.7;
/// Runs that tell.
const TRIES: u32 = 3;

/// Instances of a model whose manifest names no number, at most: each has memory of its own.
const MAX_INSTANCES: u32 = 16;

impl Default for Options {
    fn default() -> Self {
        Self {
            intra_threads: 1,
            precision: None,
            backend: None,
            instances: None,
            calibration: Calibration::Off,
            cuda: Err("not looked for".to_owned()),
            engines: Engines::Kept,
            checker: None,
            around_model: Duration::from_millis(6),
        }
    }
}

/// All loaded models, the routes over them, and the library that runs them.
#[derive(Debug)]
pub struct Engine {
    library: Library,
    options: Options,
    /// By name, then version.
    models: Mutex<Vec<Arc<Model>>>,
    routes: Routes,
    /// Raised whenever other models are in the list.
    changes: watch::Sender<u64>,
    /// Models and what they name as smaller ones, of which a log line has said that they do not go together.
    told: Mutex<BTreeSet<(String, String)>>,
    improver: Improver,
}

impl Engine {
    /// Loads the ONNX Runtime library.
    ///
    /// # Errors
    /// [`Error::LibraryMissing`], [`Error::LibraryUnusable`].
    pub fn new(options: Options) -> Result<Self, Error> {
        let library = Library::load()?;
        let (routes, improver) = (Routes::default(), Improver::default());
        let changes = watch::Sender::new(0);
        Ok(Self { library, options, models: Mutex::default(), routes, changes, told: Mutex::default(), improver })
    }

    /// The library in use.
    #[must_use]
    pub const fn library(&self) -> &Library {
        &self.library
    }

    /// Loads a model, warms it up, and puts it into the list: [`Self::open`] and [`Self::publish`].
    ///
    /// # Errors
    /// Those of [`Self::open`].
    pub fn load(&self, spec: &ModelSpec) -> Result<Arc<Model>, Error> {
        let model = self.open(spec)?;
        drop(self.publish(&model));
        Ok(model)
    }

    /// Loads a model and warms it up, without anybody getting it yet; this takes seconds where several ways to run it are
    /// compared.
    ///
    /// # Errors
    /// Those of reading the files, [`Error::UnreadableModel`], [`Error::WrongInput`], [`Error::WrongOutput`],
    /// [`Error::Unavailable`], [`Error::Run`]. The models loaded before stay as they are.
    pub fn open(&self, spec: &ModelSpec) -> Result<Arc<Model>, Error> {
        if spec.manifest.remote.is_some() {
            return self.open_remote(spec);
        }
        let Prepared { opener, runner, selection, request, key, is_final, complete } = self.prepare(spec)?;
        let is_improved = is_final || self.options.engines != Engines::Meanwhile || !opener.can_improve(request);
        let opener = Arc::new(opener);
        let mut runners = vec![runner];
        if self.pinned(&spec.manifest).is_some() {
            for _ in 1..selection.instances {
                runners.push(opener.open(&selection)?);
            }
        }
        let model = Arc::new(start(spec, selection, Arc::clone(&opener), runners)?);
        model.set_tensors(self.tensors(spec, opener.file(), model.instances()));
        model.set_content(&key.files);
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        // Who says how many instances there are to be wants no more.
        if self.pinned(&spec.manifest).is_none() && !model.selection().provider.is_device() {
            model.help(cores.min(MAX_INSTANCES as usize).saturating_sub(model.instances() as usize))?;
        }
        let Selection { provider, precision, buckets, instances, origin, others, .. } = &*model.selection();
        let id = model.id();
        tracing::debug!(model = id, ?others, "other ways to run the model");
        tracing::info!(model = id, %provider, %precision, ?buckets, instances, origin = origin.name(), "model loaded");
        if !is_improved {
            let (model, calibration) = (Arc::downgrade(&model), self.options.calibration.clone());
            let instances = self.pinned(&spec.manifest).unwrap_or(1);
            self.improver.add(Improvement { model, opener, request, instances, complete, calibration, key });
        }
        Ok(model)
    }

    /// A model that other servers run.
    fn open_remote(&self, spec: &ModelSpec) -> Result<Arc<Model>, Error> {
        let manifest = Arc::new(spec.manifest.clone());
        let opened = remote::open(Arc::clone(&manifest), spec.folder(), self.pinned(&manifest))?;
        let model = Arc::new(Model::start(manifest, opened.selection, opened.open, opened.runners)?);
        model.set_remote(opened.remote);
        let Selection { buckets, instances, measured, .. } = &*model.selection();
        tracing::info!(model = model.id(), ?buckets, instances, ?measured, "model loaded, which other servers run");
        Ok(model)
    }

    /// Puts an open model into the list. Gives the one of the same name and version that it replaces there. Sessions that
    /// have that one, or an older version under the bare name, are told by [`Self::changes`].
    pub fn publish(&self, model: &Arc<Model>) -> Option<Arc<Model>> {
        let id = model.id();
        let mut models = self.lock();
        // Another manifest is worth another word.
        self.told.lock().unwrap_or_else(PoisonError::into_inner).retain(|(one, other)| *one != id && *other != id);
        let at = models.iter().position(|other| other.id() == id);
        let replaced = at.map(|at| models.remove(at));
        models.push(Arc::clone(model));
        models.sort_by(|a, b| {
            let (a, b) = (a.manifest(), b.manifest());
            a.name.cmp(&b.name).then_with(|| compare_versions(&a.version, &b.version))
        });
        drop(models);
        self.changes.send_modify(|number| *number += 1);
        replaced
    }

    /// Tells when other models are in the list: whoever has a plan asks for it anew then, by [`Self::renew`].
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Begins with what was left for later, since it would have disturbed what was measured: all models that were to be there
    /// from the start are loaded. For models that are loaded afterwards it is begun with at once.
    pub fn all_loaded(&self) {
        self.improver.begin();
    }

    /// What runs a model's file on tensors: these bytes, whatever becomes of the file.
    fn tensors(&self, spec: &ModelSpec, file: Bytes, instances: u32) -> Tensors {
        let (library, threads, cuda) =
            (self.library.clone(), self.options.intra_threads.max(1), self.options.cuda.is_ok());
        let (name, version) = (spec.manifest.name.clone(), spec.manifest.version.clone());
        let max_batch = spec.manifest.batching.max_batch;
        let open = move || open_plainly(&library, &file, threads, cuda).map_err(|error| error.to_string());
        Tensors::new(tensors::Settings { name, version, max_batch, threads: instances, open: Box::new(open) })
    }

    /// How a model would be run, without keeping it.
    ///
    /// # Errors
    /// Those of [`Self::load`].
    pub fn look(&self, spec: &ModelSpec) -> Result<Selection, Error> {
        match &spec.manifest.remote {
            None => self.prepare(spec).map(|prepared| prepared.selection),
            Some(_) => {
                let manifest = Arc::new(spec.manifest.clone());
                let pinned = self.pinned(&manifest);
                remote::open(manifest, spec.folder(), pinned).map(|opened| opened.selection)
            }
        }
    }

    /// Runs a model on empty pictures in the first way that is allowed, without measuring others or keeping it, and says how
    /// long the shortest run took.
    ///
    /// # Errors
    /// Those of [`Self::load`].
    pub fn try_out(&self, spec: &ModelSpec) -> Result<Duration, Error> {
        let (manifest, threads) = (Arc::new(spec.manifest.clone()), self.options.intra_threads.max(1));
        let (request, cuda) = (self.request(&manifest), self.options.cuda.clone());
        Opener::new(self.library.clone(), spec, manifest, spec.read()?, threads, cuda)?.try_first(request)
    }

    /// Opens a model in all the ways in which it may be run without a GPU, and runs each on an empty picture. For a process
    /// that may crash.
    ///
    /// # Errors
    /// Those of [`Self::load`].
    pub(super) fn try_all(&self, spec: &ModelSpec) -> Result<(), Error> {
        let (manifest, threads) = (Arc::new(spec.manifest.clone()), self.options.intra_threads.max(1));
        let (request, cuda) = (self.request(&manifest), self.options.cuda.clone());
        Opener::new(self.library.clone(), spec, manifest, spec.read()?, threads, cuda)?.try_all(request)
    }

    /// Runs pictures in which the model finds something on the GPU, first as they come and then recorded, and compares what is
    /// found.
    ///
    /// # Errors
    /// Those of [`Self::load`]; [`Error::Recording`] where runs can't be recorded, or find something else then.
    #[cfg(feature = "cuda")]
    pub fn try_recorded(&self, spec: &ModelSpec, pictures: &[Arc<I420>]) -> Result<Recorded, Error> {
        let (manifest, threads) = (Arc::new(spec.manifest.clone()), self.options.intra_threads.max(1));
        let (request, cuda) = (self.request(&manifest), self.options.cuda.clone());
        Opener::new(self.library.clone(), spec, manifest, spec.read()?, threads, cuda)?.try_recorded(request, pictures)
    }

    /// Begins with the int8 variant of a model.
    ///
    /// # Errors
    /// Those of [`Self::load`]; [`Error::NotQuantized`].
    pub fn quantizer(&self, spec: &ModelSpec) -> Result<Quantizer, Error> {
        Quantizer::new(&self.library, spec, self.options.intra_threads.max(1))
    }

    /// What the operator or else the manifest wants.
    fn request(&self, manifest: &Manifest) -> Request {
        Request {
            precision: self.options.precision.or(manifest.run.precision).unwrap_or(Precision::Fp32),
            backend: self.options.backend.unwrap_or(manifest.run.backend),
        }
    }

    /// What the operator or else the manifest says of a model's instances.
    fn pinned(&self, manifest: &Manifest) -> Option<u32> {
        self.options.instances.or(manifest.run.instances)
    }

    /// Opens a model in the way that was fastest when that was measured, now or at an earlier start.
    fn prepare(&self, spec: &ModelSpec) -> Result<Prepared, Error> {
        let manifest = Arc::new(spec.manifest.clone());
        let request = self.request(&manifest);
        let (threads, graphs) = (self.options.intra_threads.max(1), spec.read()?);
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        let key = Key {
            model: manifest.id(),
            files: graphs.sha256.clone(),
            machine: CpuFeatures::machine(),
            library: format!(
                "{}, openvino: {}, cuda: {:?}",
                self.library.build_info(),
                self.library.openvino().is_ok(),
                self.options.cuda.as_ref().ok().map(|cuda| {
                    (&cuda.name, cuda.is_in_place(), cuda.tensorrt.as_ref().ok().map(|tensorrt| &tensorrt.name))
                })
            ),
            settings: format!(
                "{request:?}, {threads} threads, {:?}, {:?}, {:?}, {:?}",
                manifest.input.size, manifest.accuracy, manifest.batching, manifest.run.device_memory_mb
            ),
        };
        self.check(spec, &graphs, &key)?;
        let opener =
            Opener::new(self.library.clone(), spec, Arc::clone(&manifest), graphs, threads, self.options.cuda.clone())?;
        let calibration = &self.options.calibration;
        let kept = calibration.get::<Found>(&key).filter(Found::makes_sense).and_then(|found| {
            let resumed = opener.resume(request, &found);
            let useless = |error: &Error| tracing::debug!(model = key.model, %error, "the calibration is of no use");
            let (mut runner, selection) = resumed.inspect_err(useless).ok()?;
            let is_outdated = selection.disturbance.processors().is_some() && is_faster(&mut runner, &selection);
            (!is_outdated).then_some((runner, selection, found.is_final, true))
        });
        let (runner, mut selection, is_final, complete) = if let Some(kept) = kept {
            kept
        } else {
            let stop = (self.options.engines == Engines::First).then(|| self.improver.stop());
            let (runner, selection, complete) = opener.select(request, stop.as_ref())?;
            let is_final = self.options.engines == Engines::First;
            // What was cut short is not to hold for every start to come.
            if complete {
                calibration.put(&key, &Found::new(&selection, is_final));
            }
            (runner, selection, is_final, complete)
        };
        // A device works off one batch after the other, however many threads hand them over.
        let is_device = selection.provider.is_device();
        let fed = || if is_device { 1 } else { fed_by(cores, selection.measured, self.options.around_model) };
        selection.instances = self.pinned(&manifest).unwrap_or_else(fed);
        Ok(Prepared { opener, runner, selection, request, key, is_final, complete })
    }

    /// Has a model tried by a process of its own, unless it is part of the program, or came through with the same files on
    /// this machine before.
    fn check(&self, spec: &ModelSpec, graphs: &Graphs, key: &Key) -> Result<(), Error> {
        let Some(checker) = self.options.checker.as_ref().filter(|_| !ModelSpec::is_ours(graphs)) else {
            return Ok(());
        };
        graphs.inspect(&spec.manifest)?;
        let passed = ("checked", spec.texts(), key);
        if self.options.calibration.get::<bool>(&passed) == Some(true) {
            return Ok(());
        }
        checker.check(spec, graphs)?;
        self.options.calibration.put(&passed, &true);
        Ok(())
    }

    /// All loaded models by name, then version.
    #[must_use]
    pub fn models(&self) -> Vec<Arc<Model>> {
        self.lock().clone()
    }

    /// Lets go of what is kept for speed alone and not in use; it is made again when it is needed. Says how many sessions of
    /// models that were.
    pub fn let_go(&self) -> usize {
        self.models().iter().filter_map(|model| Some(model.tensors()?.let_go())).sum()
    }

    /// The loaded model `name@version`, or the newest loaded version of `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Arc<Model>> {
        self.lock().iter().rfind(|model| matches_name(model.manifest(), name)).cloned()
    }

    /// The routes. They are added by [`Self::put_route`].
    #[must_use]
    pub const fn routes(&self) -> &Routes {
        &self.routes
    }

    /// Adds a route over loaded models, or replaces the one of this name.
    ///
    /// # Errors
    /// [`RouteError`]; the routes then stay as they are.
    pub fn put_route(&self, name: &str, route: Route) -> Result<Put, RouteError> {
        self.routes.put(name, route, |name| self.get(name).map(|model| model.manifest().task))
    }

    /// Adds a route of an earlier start, whose models may not be loaded; one that is there wins.
    ///
    /// # Errors
    /// [`RouteError`]; the routes then stay as they are.
    pub fn restore_route(&self, name: &str, route: Route) -> Result<(), RouteError> {
        self.routes.restore(name, route, |name| self.get(name).is_some())
    }

    /// The models that the session `key` gets for the name of a route or of a model; the same ones for the same key, as
    /// long as the route stays as it is. A model that is loaded after a route of its name is reached as `name@version`.
    ///
    /// # Errors
    /// [`Error::UnknownModel`], also for an ensemble one of whose models was unloaded, and for a split without any;
    /// [`Error::Unavailable`] for an ensemble one of whose models finds no boxes by now.
    pub fn resolve(&self, name: &str, key: &str) -> Result<Plan, Error> {
        self.plan(self.routes.get(name).as_ref(), name, key)
    }

    /// What the session `key`, which got `plan` for `name`, gets by the models that are in the list now. A route counts as
    /// it was when the session got it.
    ///
    /// # Errors
    /// Those of [`Self::resolve`]; the session is to keep what it has.
    pub fn renew(&self, plan: &Plan, name: &str, key: &str) -> Result<Plan, Error> {
        self.plan(plan.route.as_ref(), name, key)
    }

    fn plan(&self, route: Option<&Arc<Route>>, name: &str, key: &str) -> Result<Plan, Error> {
        let mut plan = match route {
            Some(route) => Plan::of_route(route, name, key, |model| self.find(model)),
            None => self.find(name).map(Plan::of_model),
        }?;
        // Members of an ensemble wait for each other, so that none is any use by itself.
        if plan.fusion.is_none() {
            for member in &mut plan.members {
                member.smaller = self.smaller(&member.model);
            }
        }
        Ok(plan)
    }

    /// What takes over from a model under load, if its manifest names something that can.
    fn smaller(&self, model: &Model) -> Option<Arc<Model>> {
        let name = model.manifest().run.smaller.as_ref()?;
        let Some(smaller) = self.get(name) else {
            tracing::debug!(model = model.id(), smaller = name, "the smaller model is not loaded");
            return None;
        };
        let Err(reason) = takes_over(smaller.manifest(), model.manifest()) else { return Some(smaller) };
        // Not again for each session.
        let pair = (model.id(), smaller.id());
        if self.told.lock().unwrap_or_else(PoisonError::into_inner).insert(pair) {
            tracing::warn!(model = model.id(), smaller = smaller.id(), reason, "the smaller model is of no use");
        }
        None
    }

    /// What the name of a route or of a model promises to whoever asks for it.
    ///
    /// # Errors
    /// Those of [`Self::resolve`].
    pub fn outline(&self, name: &str) -> Result<Outline, Error> {
        match self.routes.get(name) {
            Some(route) => Outline::of_route(&route, |model| self.find(model)),
            None => self.find(name).map(|model| Outline::of_model(&model)),
        }
    }

    /// Takes a model out of the list; sessions that have nothing in its place keep it until they end. Splits that name it
    /// give their sessions the others from then on, and ensembles have no answer.
    pub fn unload(&self, name: &str) -> Option<Arc<Model>> {
        let mut models = self.lock();
        let at = models.iter().rposition(|model| matches_name(model.manifest(), name))?;
        let model = models.remove(at);
        drop(models);
        self.changes.send_modify(|number| *number += 1);
        Some(model)
    }

    /// Ends the process that tries a model, and each that would.
    pub fn stop_checks(&self) {
        if let Some(checker) = &self.options.checker {
            checker.stop.stop();
        }
    }

    /// Ends all models' threads, and waits for them.
    pub fn shutdown(&self) {
        self.stop_checks();
        self.improver.close();
        let models = std::mem::take(&mut *self.lock());
        models.iter().for_each(|model| model.shutdown());
    }

    fn find(&self, name: &str) -> Result<Arc<Model>, Error> {
        self.get(name).ok_or_else(|| Error::UnknownModel { name: name.to_owned() })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Model>>> {
        self.models.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a model can take over from a larger one; otherwise why not.
fn takes_over(smaller: &Manifest, larger: &Manifest) -> Result<(), &'static str> {
    let pixels = |manifest: &Manifest| manifest.input.size.map(u64::from).iter().product::<u64>();
    if smaller.task != larger.task {
        return Err("it has another task");
    }
    if smaller.classes != larger.classes {
        return Err("it has other classes");
    }
    if pixels(smaller) >= pixels(larger) {
        return Err("its input is not smaller");
    }
    Ok(())
}

/// Whether a model that was measured earlier is much faster now.
fn is_faster(runner: &mut Runner, selection: &Selection) -> bool {
    runner.warm_up(TRIES).is_ok_and(|time| time < selection.measured.mul_f64(MUCH_FASTER))
}

/// Instances that `cores` keep busy while they also do everything else for their frames: the share of a frame's time
/// that its model takes.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "numbers of cores, and clamped"
)]
fn fed_by(cores: usize, inference: Duration, around: Duration) -> u32 {
    let share = inference.div_duration_f64((inference + around).max(Duration::from_nanos(1)));
    ((cores as f64 * share).round() as u32).clamp(1, MAX_INSTANCES)
}

fn start(spec: &ModelSpec, selection: Selection, opener: Arc<Opener>, runners: Vec<Runner>) -> Result<Model, Error> {
    let again = selection.clone();
    let open: Arc<Open> = Arc::new(move || opener.open(&again));
    Model::start(Arc::new(spec.manifest.clone()), selection, open, runners)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::infer::manifest::Input;

    #[test]
    fn only_a_model_of_the_same_classes_with_a_smaller_input_takes_over() {
        let larger = ModelSpec::embedded().unwrap().manifest;
        let [width, height] = larger.input.size;
        let sized = |size| Manifest { input: Input { size, ..larger.input.clone() }, ..larger.clone() };
        assert_eq!(takes_over(&sized([width / 2, height / 2]), &larger), Ok(()));
        assert_eq!(takes_over(&sized([width, height - 8]), &larger), Ok(()));
        assert_eq!(takes_over(&larger, &larger), Err("its input is not smaller"));
        assert_eq!(takes_over(&sized([width, height + 8]), &larger), Err("its input is not smaller"));
        let mut other = sized([width / 2, height / 2]);
        other.classes.pop();
        assert_eq!(takes_over(&other, &larger), Err("it has other classes"));
    }

    #[test]
    fn slow_models_get_more_of_the_cores() {
        let ms = Duration::from_millis;
        let fed_by = |cores, milliseconds| fed_by(cores, ms(milliseconds), ms(6));
        assert_eq!((fed_by(1, 100), fed_by(2, 6), fed_by(2, 30), fed_by(16, 6)), (1, 1, 2, 8));
        assert_eq!((fed_by(16, 0), fed_by(256, 1_000)), (1, MAX_INSTANCES));
    }
}

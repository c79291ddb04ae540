//! The models while the server runs: which are there, loaded and refused, and what becomes of sessions when that changes.
//!
//! Requests, and what the folder's watch notices, become jobs that one thread does, one at a time: a model is read once,
//! tried by another process, opened and warmed up, and then put into the engine's list, which tells sessions. Another thread
//! keeps house: it compares new versions with those before, lets go of what nobody needs, and looks at the folder.

mod again;
mod folder;
mod house;
mod loading;
mod refused;
mod rollback;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use metrics::gauge;
use saccade_signaling::{ErrorCode, ModelState, ModelView};
use tokio::sync::oneshot;

use self::again::Again;
use self::folder::{Id, Stamp};
use self::refused::Refusals;
use self::rollback::Trial;
use crate::config::models::Load;
use crate::config::{self, Config};
use crate::infer::{Engine, Manifest, Model, ModelSpec};
use crate::session::Refusal;
use crate::{clock, http, models};

/// Jobs that wait. More are refused, or, where nobody asked, come again with the next look at the folder.
const QUEUE: usize = 32;
/// When a refused job may be tried again.
const RETRY: Duration = Duration::from_secs(5);
/// How long a request waits for its model, which is less than requests may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often somebody keeps house.
const TICK: Duration = Duration::from_millis(100);

/// The models as the API has them, and the threads that work on them.
pub(super) struct Catalog {
    stock: Arc<Stock>,
    jobs: SyncSender<Job>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// What is known of the models.
pub(super) struct Stock {
    engine: Arc<Engine>,
    config: config::Models,
    /// What the configuration names: models, and perhaps routes.
    named: Vec<String>,
    /// Versions that made way for the ones before.
    refusals: Refusals,
    shelf: Mutex<Shelf>,
    is_stopped: Mutex<bool>,
    stop: Condvar,
}

#[derive(Default)]
struct Shelf {
    entries: BTreeMap<Id, Entry>,
    trials: Vec<Trial>,
    /// Replaced by newer versions, and loaded until no session needs them.
    superseded: Vec<Arc<Model>>,
    /// In the engine's list no more. They end when no session has them, on a thread that may wait for that.
    leaving: Vec<Arc<Model>>,
}

/// A version of a model.
struct Entry {
    manifest: Option<Manifest>,
    condition: Condition,
    /// Of the files that were last tried.
    stamp: Option<Stamp>,
    /// When the other servers that are to run it are asked again.
    again: Option<Again>,
}

#[derive(Debug, Clone, PartialEq)]
enum Condition {
    Unloaded,
    Loading,
    /// Files are missing, or are not those that the manifest means; they may be on their way.
    Incomplete {
        since: Instant,
        reason: String,
    },
    /// Perhaps with something to be said.
    Ready(Option<String>),
    Refused(String),
}

/// What the loading thread is to do.
enum Job {
    /// Somebody asked for a model by name.
    Load(String, Reply),
    Unload(String, Reply),
    /// Its files are new, or others.
    Changed(Id),
    /// The servers that are to run it may be there by now.
    Again(Id),
    /// Its folder is gone.
    Gone(Id),
    Stop,
}

type Reply = oneshot::Sender<Result<ModelView, Refusal>>;

impl Stock {
    /// Loads what the configuration wants of the folder, and the embedded model; `kept` are models that routes name which
    /// are added later. What can't be used is left out with its reason. May take minutes.
    ///
    /// # Errors
    /// [`crate::infer::Error::Read`] if the folder can't be listed.
    pub(super) fn load_all(
        engine: Arc<Engine>,
        config: &Config,
        kept: &[String],
    ) -> Result<Arc<Self>, crate::infer::Error> {
        // Looked at first: what changes while it is read is read again.
        let stamps = folder::versions(&config.models.dir).unwrap_or_default();
        let repository = models::repository(config)?;
        let named = models::named(config).map(str::to_owned).collect();
        let stock = Arc::new(Self {
            engine,
            config: config.models.clone(),
            named,
            refusals: Refusals::open(&config.models.routes_file),
            shelf: Mutex::default(),
            is_stopped: Mutex::new(false),
            stop: Condvar::new(),
        });
        for refused in repository.refused() {
            let (name, version) = refused.id.split_once('@').unwrap_or((&refused.id, ""));
            let id = (name.to_owned(), version.to_owned());
            stock.refuse(&id, None, stamps.get(&id).cloned(), None, &refused.error);
        }
        // The newest first: where it can't be used, the one before is the newest.
        let (mut names, mut worse) = (BTreeSet::new(), Vec::new());
        for spec in repository.models().iter().rev() {
            let id = id_of(&spec.manifest);
            // Who names this very version means it.
            let is_named = || stock.named.iter().chain(kept).any(|named| means(named, &id, false));
            match stock.refusals.find(spec) {
                Some(reason) if !is_named() => worse.push((spec, reason)),
                _ => stock.load_first(spec, stamps.get(&id).cloned(), kept, &mut names),
            }
        }
        // What made way for another version is better than none; of several, the one that came first.
        for (spec, reason) in worse.into_iter().rev() {
            let id = id_of(&spec.manifest);
            let stamp = stamps.get(&id).cloned();
            if names.contains(&id.0) {
                tracing::warn!(
                    model = spec.manifest.id(),
                    reason,
                    "a version stays refused, since its files are the same"
                );
                let (manifest, condition) = (Some(spec.manifest.clone()), Condition::Refused(reason));
                stock.shelf().entries.insert(id, Entry { manifest, condition, stamp, again: None });
            } else {
                tracing::warn!(
                    model = spec.manifest.id(),
                    reason,
                    "a version that was refused is loaded for want of another"
                );
                stock.load_first(spec, stamp, kept, &mut names);
            }
        }
        stock.show();
        Ok(stock)
    }

    /// Loads a version at the start, if it is wanted. `names` are those of models of which a version was loaded.
    fn load_first(&self, spec: &ModelSpec, stamp: Option<Stamp>, kept: &[String], names: &mut BTreeSet<String>) {
        let (id, manifest) = (id_of(&spec.manifest), spec.manifest.clone());
        let is_newest = !names.contains(&id.0);
        let is_kept = kept.iter().any(|named| means(named, &id, is_newest));
        let condition = if is_kept || self.wants(&id, is_newest) {
            match self.engine.load(spec) {
                Ok(_) => {
                    loading::count_loads("ready");
                    names.insert(id.0.clone());
                    Condition::Ready(None)
                }
                Err(error) => return self.refuse(&id, Some(manifest), stamp, None, &error),
            }
        } else {
            Condition::Unloaded
        };
        self.shelf().entries.insert(id, Entry { manifest: Some(manifest), condition, stamp, again: None });
    }

    /// Whether a version is loaded by itself. `is_newest`: of those of its model that can be used.
    fn wants(&self, id: &Id, is_newest: bool) -> bool {
        let is_named = || {
            let routes = self.engine.routes().list();
            let of_routes = routes.iter().flat_map(|(_, route)| route.models().chain(route.shadow()));
            self.named.iter().map(String::as_str).chain(of_routes).any(|named| means(named, id, is_newest))
        };
        match self.config.load {
            Load::All => true,
            Load::Newest => is_newest || is_named(),
            Load::Named => is_named(),
        }
    }

    /// Shows in the metrics how many models are in which state.
    fn show(&self) {
        let views = self.views("");
        for (state, name) in [
            (ModelState::Ready, "ready"),
            (ModelState::Loading, "loading"),
            (ModelState::Unloaded, "unloaded"),
            (ModelState::Refused, "refused"),
        ] {
            let number = views.iter().filter(|view| view.state == state).count();
            gauge!("saccade_models", "state" => name).set(u32::try_from(number).unwrap_or(u32::MAX));
        }
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn folder_of(&self, (name, version): &Id) -> PathBuf {
        self.config.dir.join(name).join(version)
    }

    /// Waits for the end, [`TICK`] at most; false: it is there.
    fn goes_on(&self) -> bool {
        let stopped = self.is_stopped.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.stop.wait_timeout_while(stopped, TICK, |stopped| !*stopped);
        !*waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn is_over(&self) -> bool {
        *self.is_stopped.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Catalog {
    /// Starts the threads.
    ///
    /// # Errors
    /// The system's, where it gives none.
    pub(super) fn start(stock: Arc<Stock>) -> std::io::Result<Self> {
        let (jobs, waiting) = sync_channel(QUEUE);
        let loader = Arc::clone(&stock);
        let loader = thread::Builder::new().name("models".to_owned()).spawn(move || loader.work(&waiting))?;
        let (keeper, queue) = (Arc::clone(&stock), jobs.clone());
        let keeper = thread::Builder::new().name("models-house".to_owned()).spawn(move || keeper.keep_house(&queue))?;
        Ok(Self { stock, jobs, threads: Mutex::new(vec![loader, keeper]) })
    }

    /// Ends the threads, and waits for that: what is being opened is opened, and not used.
    pub(super) fn stop(&self) {
        *self.stock.is_stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.stock.stop.notify_all();
        self.stock.engine.stop_checks();
        // A full queue is looked through by a thread that sees that it is over.
        let _ = self.jobs.try_send(Job::Stop);
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a thread that works on models panicked");
            }
        }
        self.stock.shelf().leaving.clear();
    }

    async fn ask(&self, name: &str, job: impl FnOnce(String, Reply) -> Job) -> Result<ModelView, Refusal> {
        let (reply, answer) = oneshot::channel();
        match self.jobs.try_send(job(name.to_owned(), reply)) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                let message = format!("{QUEUE} models wait to be loaded or unloaded; try again later.");
                return Err(Refusal::new(ErrorCode::Capacity, message).retry_after(RETRY));
            }
            Err(TrySendError::Disconnected(_)) => return Err(ended()),
        }
        match tokio::time::timeout_at((clock::now() + PATIENCE).into(), answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) if self.stock.is_over() => Err(ended()),
            Ok(Err(_)) => {
                let message = "The server failed at this model; report it with the server's log.";
                Err(Refusal::new(ErrorCode::Internal, message))
            }
            Err(_) => self.stock.pending(name),
        }
    }
}

impl Drop for Catalog {
    fn drop(&mut self) {
        self.stop();
    }
}

#[async_trait]
impl http::Models for Catalog {
    fn list(&self) -> Vec<ModelView> {
        self.stock.views(&self.stock.config.default)
    }

    async fn load(&self, name: &str) -> Result<ModelView, Refusal> {
        self.ask(name, Job::Load).await
    }

    async fn unload(&self, name: &str) -> Result<ModelView, Refusal> {
        self.ask(name, Job::Unload).await
    }
}

fn ended() -> Refusal {
    Refusal::new(ErrorCode::Draining, "The server is shutting down.")
}

fn missing(name: &str) -> Refusal {
    let name: String = name.chars().take(64).collect();
    Refusal::new(ErrorCode::NotFound, format!("There is no model {name}; see GET /v1/models?all=true."))
}

/// Whether this version is the one that a name, with or without a version, stands for.
fn means(named: &str, (name, version): &Id, is_newest: bool) -> bool {
    match named.split_once('@') {
        Some((other, wanted)) => other == name && wanted == version,
        None => named == name && is_newest,
    }
}

fn id_of(manifest: &Manifest) -> Id {
    (manifest.name.clone(), manifest.version.clone())
}

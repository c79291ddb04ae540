use std::fmt;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::backend::Selection;
use super::batcher::{Costs, Key, Priority};
use super::error::Error;
use super::instance::{self, Open};
use super::manifest::Manifest;
use super::prepared::Prepared;
use super::runner::Runner;
use super::shared::{Call, Inbox, Job, Reply, Shared};
use super::tensors::Tensors;
use super::{Detected, Figures, Outcome, Params, Whole};
use crate::clock;
use crate::frame::Frame;
use crate::kserve::client::Remote;
use crate::media::{Class, ColorInfo, I420};

/// A loaded model, shared by all sessions that use it. Dropping the last handle ends its threads.
pub struct Model {
    manifest: Arc<Manifest>,
    selection: Mutex<Arc<Selection>>,
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    tensors: OnceLock<Tensors>,
    remote: OnceLock<Arc<Remote>>,
    content: OnceLock<Box<str>>,
}

/// One session's place at a model: a mailbox of one. Dropping it detaches the session; a callback that is under way
/// then still ends, and none comes after it.
pub struct Slot {
    key: Key,
    inbox: Arc<Inbox>,
    shared: Arc<Shared>,
}

impl Model {
    /// Starts an owner thread for each of the selection's instances, the first ones with `runners`; the others open
    /// theirs while these work. `open` also replaces one after a fault.
    pub(super) fn start(
        manifest: Arc<Manifest>,
        selection: Selection,
        open: Arc<Open>,
        runners: Vec<Runner>,
    ) -> Result<Self, Error> {
        let id = manifest.id();
        let costs = Costs::new(&selection.buckets);
        let shared = Arc::new(Shared::new(id.clone(), costs, &manifest.batching, open));
        let instances = selection.instances.max(1) as usize;
        let selection = Mutex::new(Arc::new(selection));
        let (threads, tensors, remote, content) = (Mutex::default(), OnceLock::new(), OnceLock::new(), OnceLock::new());
        let model = Self { manifest, selection, shared, threads, tensors, remote, content };
        let mut runners = runners.into_iter();
        for n in 0..instances {
            let (shared, way, runner) = (Arc::clone(&model.shared), model.shared.way(), runners.next());
            let thread = thread::Builder::new().name(format!("infer-{n}-{id}"));
            let thread = thread.spawn(move || match runner.map_or_else(&*way.open, Ok) {
                Ok(runner) => instance::own(&shared, n, way, runner),
                // The others do its work.
                Err(error) => tracing::warn!(model = shared.id(), instance = n, %error, "an instance cannot be opened"),
            });
            let thread = thread.map_err(|error| Error::Thread { reason: error.to_string() })?;
            model.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        }
        Ok(model)
    }

    /// Starts so many threads that run still pictures while all instances are at work. Each opens the model only then.
    pub(super) fn help(&self, threads: usize) -> Result<(), Error> {
        let (id, instances) = (self.id(), self.instances() as usize);
        for n in instances..instances + threads {
            let shared = Arc::clone(&self.shared);
            let thread =
                thread::Builder::new().name(format!("infer-{n}-{id}")).spawn(move || instance::help(&shared, n));
            let thread = thread.map_err(|error| Error::Thread { reason: error.to_string() })?;
            self.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        }
        Ok(())
    }

    /// `name@version`.
    #[must_use]
    pub fn id(&self) -> String {
        self.manifest.id()
    }

    /// Its manifest: name, version, input, licence and so on.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Its classes by id.
    #[must_use]
    pub fn classes(&self) -> &[Class] {
        &self.manifest.classes
    }

    /// The class of this name.
    #[must_use]
    pub fn class(&self, name: &str) -> Option<&Class> {
        self.manifest.classes.iter().find(|class| &*class.name == name)
    }

    /// What a session gets that states nothing else.
    #[must_use]
    pub fn default_params(&self) -> Params {
        self.manifest.defaults.into()
    }

    /// On what and in which precision it runs, and what else was considered.
    #[must_use]
    pub fn selection(&self) -> Arc<Selection> {
        Arc::clone(&self.selection.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Runs it in another way from the next batches on, in as many instances as there are `runners`, of which there are not
    /// more than before. `open` replaces one after a fault. False: the model takes no more work.
    pub(super) fn change(&self, selection: Selection, open: Arc<Open>, runners: Vec<Runner>) -> bool {
        let costs = Costs::new(&selection.buckets);
        let mut current = self.selection.lock().unwrap_or_else(PoisonError::into_inner);
        let instances = u32::try_from(runners.len()).unwrap_or(u32::MAX);
        let changed = self.shared.change(costs, open, runners);
        if changed {
            *current = Arc::new(Selection { instances, ..selection });
        }
        changed
    }

    /// What runs its file on tensors, beside it.
    #[must_use]
    pub fn tensors(&self) -> Option<&Tensors> {
        self.tensors.get()
    }

    /// Gives it what runs its file on tensors, once.
    pub(super) fn set_tensors(&self, tensors: Tensors) {
        let _ = self.tensors.set(tensors);
    }

    /// Why it takes no work; none: it does.
    #[must_use]
    pub fn unready(&self) -> Option<String> {
        if !self.shared.is_ready() {
            return Some("it failed repeatedly".to_owned());
        }
        self.remote.get()?.unavailable()
    }

    /// Whether it takes work: not after repeated failures, nor after it was shut down, nor while no server that runs it
    /// answers.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.unready().is_none()
    }

    /// The same, whether servers that run it answer or not: what can be said of the model itself.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.shared.is_ready()
    }

    /// The servers that run it, if others do.
    #[must_use]
    pub fn remote(&self) -> Option<&Arc<Remote>> {
        self.remote.get()
    }

    /// Says which servers run it, once.
    pub(super) fn set_remote(&self, remote: Arc<Remote>) {
        let _ = self.remote.set(remote);
    }

    /// What tells its graphs from others: the SHA-256 of each. Of what other servers run nobody knows.
    #[must_use]
    pub fn content(&self) -> Option<&str> {
        self.content.get().map(|content| &**content)
    }

    /// Says of which graphs it was opened, once.
    pub(super) fn set_content(&self, sha256: &[String]) {
        let _ = self.content.set(sha256.join(" ").into());
    }

    /// How it has done since it was loaded.
    #[must_use]
    pub fn figures(&self) -> Figures {
        self.shared.record.figures()
    }

    /// Whether a session has a slot.
    #[must_use]
    pub fn is_used(&self) -> bool {
        self.shared.has_slots()
    }

    /// Instances that work side by side.
    #[must_use]
    pub fn instances(&self) -> u32 {
        self.selection().instances.max(1)
    }

    /// The running estimate of how long one frame takes, from preprocessing to detections.
    #[must_use]
    pub fn estimate(&self) -> Duration {
        self.shared.estimate()
    }

    /// Gives a session a slot; `priority` is its share of the model when there is not enough for all. `deliver` is
    /// called on the model's thread with what became of each frame that the model took: it must not block.
    pub fn attach(&self, priority: Priority, deliver: impl FnMut(Outcome) + Send + 'static) -> Slot {
        let (key, inbox) = self.shared.attach(priority, Box::new(deliver));
        Slot { key, inbox, shared: Arc::clone(&self.shared) }
    }

    /// Runs the model on one picture and waits for it; for pictures and files, not for live frames. It has no
    /// deadline; among live frames it is due after one second, and under overload all pictures together get half of
    /// what a slot of low priority gets, yet one a second.
    ///
    /// # Errors
    /// [`Error::Busy`] if as many wait as the manifest's `batching.max_queue` allows, [`Error::Closed`], [`Error::NotReady`], [`Error::Run`],
    /// [`Error::Panicked`].
    pub fn detect(&self, picture: &Arc<I420>, color: ColorInfo, params: &Arc<Params>) -> Result<Detected, Error> {
        let (reply, answer) = sync_channel(1);
        self.call(picture, color, None, params, None, Reply::Thread(reply))?;
        answer.recv().unwrap_or(Err(Error::Closed))
    }

    /// The same without blocking. `whole` is the picture that this one was made smaller of. What cannot be done by the
    /// deadline is not begun, and neither is what nobody waits for any more: dropping the future withdraws the picture.
    ///
    /// # Errors
    /// Those of [`Self::detect`], at once or from the future, and [`Error::Late`].
    pub fn infer(
        &self,
        picture: &Arc<I420>,
        color: ColorInfo,
        whole: Option<Whole>,
        params: &Arc<Params>,
        deadline: Instant,
    ) -> Result<impl Future<Output = Result<Detected, Error>> + Send + use<>, Error> {
        let (reply, answer) = oneshot::channel();
        self.call(picture, color, whole, params, Some(deadline), Reply::Task(reply))?;
        Ok(async move { answer.await.unwrap_or(Err(Error::Closed)) })
    }

    fn call(
        &self,
        picture: &Arc<I420>,
        color: ColorInfo,
        whole: Option<Whole>,
        params: &Arc<Params>,
        deadline: Option<Instant>,
        reply: Reply,
    ) -> Result<(), Error> {
        let (picture, params, queued) = (Arc::clone(picture).into(), Arc::clone(params), clock::now());
        self.shared.call(Call { picture, color, whole, params, deadline, queued, reply })
    }

    /// Owner threads that have not ended.
    #[cfg(test)]
    pub(super) fn threads_at_work(&self) -> usize {
        let threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        threads.iter().filter(|thread| !thread.is_finished()).count()
    }

    /// Pictures of [`Self::detect`] that wait.
    #[cfg(test)]
    pub(super) fn waiting_pictures(&self) -> usize {
        self.shared.waiting_pictures()
    }

    /// Whether its batcher knows of something that waits.
    #[cfg(test)]
    pub(super) fn has_waiting(&self) -> bool {
        self.shared.has_waiting()
    }

    /// Ends the model's threads: the batch in work is finished, those that wait come back as
    /// [`Outcome::Failed`] with [`Error::Closed`].
    pub fn shutdown(&self) {
        self.shared.close();
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            // A callback may drop the last handle, on the very thread that is to end.
            if thread.thread().id() != thread::current().id() && thread.join().is_err() {
                tracing::error!(model = self.id(), "a model's thread panicked");
            }
        }
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        self.shutdown();
    }
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Model").field("id", &self.id()).field("selection", &self.selection()).finish_non_exhaustive()
    }
}

impl Slot {
    /// Hands a frame to the model. What comes back will not be inferred, so the caller counts it: the frame that
    /// this one superseded, or this one itself once the model is shut down.
    #[must_use = "the returned frame is dropped and has to be counted"]
    pub fn submit(&self, frame: Frame, params: Arc<Params>) -> Option<Frame> {
        self.submit_prepared(frame, params, None)
    }

    /// The same with a tensor that several models share, if this one takes it.
    #[must_use = "the returned frame is dropped and has to be counted"]
    pub fn submit_prepared(&self, frame: Frame, params: Arc<Params>, prepared: Option<Arc<Prepared>>) -> Option<Frame> {
        self.shared.submit(self.key, &self.inbox, Job { frame, params, prepared })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.shared.detach(self.key);
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").field("key", &self.key).finish_non_exhaustive()
    }
}

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use metrics::counter;
use saccade_signaling::{ErrorCode, ModelView};

use super::again::Again;
use super::folder::{self, Id, Stamp};
use super::rollback::Trial;
use super::{Condition, Entry, Job, Stock, ended, id_of, missing};
use crate::clock;
use crate::config::models::Load;
use crate::infer::{Error, Manifest, Mistake, Model, ModelSpec, compare_versions, matches_name};
use crate::session::Refusal;

impl Stock {
    /// Does one job after the other.
    pub(super) fn work(&self, waiting: &Receiver<Job>) {
        while let Ok(job) = waiting.recv() {
            if self.is_over() {
                return;
            }
            if matches!(job, Job::Stop) {
                return;
            }
            // One model's fault is not to be the end of all changes.
            if catch_unwind(AssertUnwindSafe(|| self.handle(job))).is_err() {
                tracing::error!("working on a model panicked");
            }
            self.show();
        }
    }

    fn handle(&self, job: Job) {
        // Who asked may have gone; what was asked for is done all the same.
        match job {
            Job::Load(name, reply) => drop(reply.send(self.load_named(&name))),
            Job::Unload(name, reply) => drop(reply.send(self.unload_named(&name))),
            Job::Changed(id) => self.load_changed(&id),
            // What is wrong is noted there.
            Job::Again(id) => drop(self.load(&id)),
            Job::Gone(id) => self.let_go(&id),
            Job::Stop => {}
        }
    }

    fn load_named(&self, name: &str) -> Result<ModelView, Refusal> {
        let id = self.find(name).ok_or_else(|| missing(name))?;
        // Before it is compared again.
        self.refusals.forget(&id);
        self.load(&id).map_err(|error| {
            let message = format!("{}@{} cannot be used: {error}.", id.0, id.1);
            Refusal::new(ErrorCode::ModelFailed, message)
        })?;
        self.view(&id).ok_or_else(ended)
    }

    /// A version in the folder, loaded or embedded: the one named, or the newest.
    fn find(&self, name: &str) -> Option<Id> {
        let mut all: Vec<Id> = folder::versions(&self.config.dir).unwrap_or_default().into_keys().collect();
        all.extend(self.engine.models().iter().map(|model| id_of(model.manifest())));
        all.extend(ModelSpec::embedded().ok().map(|spec| id_of(&spec.manifest)));
        let (name, version) = name.split_once('@').map_or((name, None), |(name, version)| (name, Some(version)));
        let fitting =
            all.into_iter().filter(|(other, it)| other == name && version.is_none_or(|version| it == version));
        fitting.max_by(|a, b| compare_versions(&a.1, &b.1))
    }

    /// Loads a version as its files are now, unless it is loaded from these.
    fn load(&self, id: &Id) -> Result<(), Error> {
        let folder = self.folder_of(id);
        let stamp = folder::stamp(&folder);
        let name = format!("{}@{}", id.0, id.1);
        let is_loaded = self.engine.get(&name).is_some();
        let is_from_these = self.shelf().entries.get(id).is_some_and(|entry| {
            matches!(entry.condition, Condition::Ready(_)) && (stamp.is_none() || entry.stamp == stamp)
        });
        if is_loaded && is_from_these {
            return Ok(());
        }
        let (before, again) = self.begin(id, stamp.as_ref());
        let spec = match &stamp {
            Some(_) => ModelSpec::open(&folder),
            None => ModelSpec::embedded(),
        };
        let manifest = spec.as_ref().ok().map(|spec| spec.manifest.clone());
        let opened = spec.and_then(|spec| {
            self.check_task(&spec.manifest)?;
            self.engine.open(&spec)
        });
        match opened {
            Ok(_) if self.is_over() => Err(Error::Closed),
            Ok(model) => {
                self.put_in_place(&model);
                count_loads("ready");
                let entry = Entry { manifest, condition: Condition::Ready(None), stamp, again: None };
                self.shelf().entries.insert(id.clone(), entry);
                Ok(())
            }
            Err(error) => {
                self.refuse(id, manifest.or(before), stamp, again, &error);
                Err(error)
            }
        }
    }

    /// Sessions that would move to a version have options, and routes, for what the one before does.
    fn check_task(&self, new: &Manifest) -> Result<(), Error> {
        let loaded = [self.engine.get(&new.id()), self.engine.get(&new.name)];
        loaded.into_iter().flatten().try_for_each(|loaded| replaces(loaded.manifest(), new))
    }

    /// Says that a version is being loaded, and gives what was known of it: its manifest, and when its servers were asked,
    /// if its files are still the same.
    fn begin(&self, id: &Id, stamp: Option<&Stamp>) -> (Option<Manifest>, Option<Again>) {
        let mut shelf = self.shelf();
        let nothing = Entry { manifest: None, condition: Condition::Loading, stamp: None, again: None };
        let entry = shelf.entries.entry(id.clone()).or_insert(nothing);
        entry.condition = Condition::Loading;
        let again = entry.again.take().filter(|_| entry.stamp.as_ref() == stamp);
        let known = (entry.manifest.clone(), again);
        drop(shelf);
        self.show();
        known
    }

    /// Puts a warm model into the list. Whatever it takes the place of goes on until sessions have moved, and is kept for
    /// as long as the two are compared.
    fn put_in_place(&self, model: &Arc<Model>) {
        let active = self.engine.get(&model.manifest().name);
        let replaced = self.engine.publish(model);
        let is_replaced = replaced.is_some();
        let takes_over = self.engine.get(&model.manifest().name).is_some_and(|now| Arc::ptr_eq(&now, model));
        let Some(old) = replaced.or(active.filter(|_| takes_over)) else { return };
        tracing::info!(model = model.id(), before = old.id(), "sessions move to another version of their model");
        counter!("saccade_model_swaps_total").increment(1);
        let mut shelf = self.shelf();
        // One at a time: what was on trial is what the next one is compared with.
        let name = &model.manifest().name;
        shelf.trials.retain(|trial| trial.new.manifest().name != *name);
        if let Some(rollback) = &self.config.rollback {
            let (before, ends) = (old.figures(), clock::now() + rollback.window);
            shelf.trials.push(Trial { new: Arc::clone(model), old: Arc::clone(&old), before, ends });
        }
        if is_replaced {
            shelf.leaving.push(old);
        } else if self.config.load != Load::All {
            shelf.superseded.push(old);
        }
    }

    /// Notes why a version can't be used. What was loaded before goes on. If other servers are away that are to run it, they
    /// are asked `again`, and that they are away is said once.
    pub(super) fn refuse(
        &self,
        id: &Id,
        manifest: Option<Manifest>,
        stamp: Option<Stamp>,
        again: Option<Again>,
        error: &Error,
    ) {
        let model = format!("{}@{}", id.0, id.1);
        let is_away = matches!(error, Error::Remote { .. });
        if is_away && again.is_some() {
            tracing::debug!(model, %error, "the servers of a model are still away");
        } else if is_away {
            tracing::error!(model, %error, "a model was refused; its servers are asked again now and then");
        } else {
            tracing::error!(model, %error, "a model was refused");
        }
        count_loads("refused");
        counter!("saccade_model_refusals_total", "reason" => label(error)).increment(1);
        let again = is_away.then(|| Again::after(clock::now(), again));
        let entry = Entry { manifest, condition: Condition::Refused(error.to_string()), stamp, again };
        self.shelf().entries.insert(id.clone(), entry);
    }

    /// Loads a version whose files have changed.
    fn load_changed(&self, id: &Id) {
        let folder = self.folder_of(id);
        // It may have gone, or changed again, since it was noticed.
        let Some(stamp) = folder::stamp(&folder) else { return };
        let opened = ModelSpec::open(&folder);
        if let Err(error @ (Error::Read { .. } | Error::Checksum { .. })) = opened {
            let mut shelf = self.shelf();
            let manifest = shelf.entries.remove(id).and_then(|entry| entry.manifest);
            let (since, reason) = (clock::now(), error.to_string());
            tracing::debug!(model = format!("{}@{}", id.0, id.1), reason, "a model's files are not complete yet");
            let condition = Condition::Incomplete { since, reason };
            shelf.entries.insert(id.clone(), Entry { manifest, condition, stamp: Some(stamp), again: None });
            return;
        }
        if let Some((spec, reason)) =
            opened.ok().and_then(|spec| self.refusals.find(&spec).map(|reason| (spec, reason)))
        {
            // Only their times have changed.
            let (manifest, condition) = (Some(spec.manifest), Condition::Refused(reason));
            self.shelf().entries.insert(id.clone(), Entry { manifest, condition, stamp: Some(stamp), again: None });
            return;
        }
        // What is wrong is noted there.
        let _ = self.load(id);
    }

    /// A version's folder is gone: nobody gets it any more, unless something has nothing else.
    fn let_go(&self, id: &Id) {
        let name = format!("{}@{}", id.0, id.1);
        if self.engine.get(&name).is_some() {
            if let Some(user) = self.needs(|model| matches_name(model.manifest(), &name)) {
                tracing::warn!(model = name, user, "a model's folder is gone, and the model stays, since it is needed");
                let mut shelf = self.shelf();
                if let Some(entry) = shelf.entries.get_mut(id) {
                    let said = format!("its folder is gone; it stays, since {user} needs it");
                    (entry.condition, entry.stamp) = (Condition::Ready(Some(said)), None);
                }
                return;
            }
            self.take_out(&name);
        }
        tracing::info!(model = name, "a model's folder is gone");
        self.shelf().entries.remove(id);
    }

    fn unload_named(&self, name: &str) -> Result<ModelView, Refusal> {
        let mut going: Vec<_> = self.engine.models();
        going.retain(|model| matches_name(model.manifest(), name));
        let newest = going.last().map(|model| id_of(model.manifest())).ok_or_else(|| missing(name))?;
        if let Some(user) = self.needs(|model| matches_name(model.manifest(), name)) {
            let message =
                format!("{name} is needed by {user}, and nothing else that is loaded does for it; change that first.");
            return Err(Refusal::new(ErrorCode::Conflict, message));
        }
        for model in going {
            let id = id_of(model.manifest());
            self.take_out(&model.id());
            if let Some(entry) = self.shelf().entries.get_mut(&id) {
                entry.condition = Condition::Unloaded;
            }
            tracing::info!(model = model.id(), "a model was unloaded");
        }
        self.view(&newest).ok_or_else(|| missing(name))
    }

    /// Takes a model out of the list; it ends when the last session has let go of it.
    pub(super) fn take_out(&self, name: &str) {
        let Some(model) = self.engine.unload(name) else { return };
        let mut shelf = self.shelf();
        shelf.trials.retain(|trial| !Arc::ptr_eq(&trial.new, &model) && !Arc::ptr_eq(&trial.old, &model));
        shelf.superseded.retain(|other| !Arc::ptr_eq(other, &model));
        shelf.leaving.push(model);
    }

    /// What would have no model any more without those that are `going`: sessions that name none, a route, a camera.
    pub(super) fn needs(&self, going: impl Fn(&Model) -> bool) -> Option<String> {
        let mut staying = self.engine.models();
        staying.retain(|model| !going(model));
        let stays = |name: &str| staying.iter().any(|model| matches_name(model.manifest(), name));
        let was = |name: &str| self.engine.get(name).is_some();
        let goes = |name: &str| was(name) && !stays(name);
        for (name, route) in self.engine.routes().list() {
            if route.models().any(goes) {
                return Some(format!("the route {name}"));
            }
        }
        // What is a route by now needs no model of its own.
        let is_model = |name: &&String| self.engine.routes().get(name).is_none();
        let default = &self.config.default;
        if Some(default).filter(is_model).is_some_and(|name| goes(name)) {
            return Some("sessions that name no model (models.default)".to_owned());
        }
        let named = self.named.iter().filter(is_model).find(|name| goes(name));
        named.map(|name| format!("the configuration, which names {name}"))
    }
}

/// Whether a version may take the place that one that is loaded has, if it would.
fn replaces(loaded: &Manifest, new: &Manifest) -> Result<(), Error> {
    let is_older = compare_versions(&new.version, &loaded.version).is_lt();
    if is_older || new.task == loaded.task {
        return Ok(());
    }
    let problem = format!(
        "is {}, and that of {}, whose place it would take, is {}; give it another name, or unload that one first",
        new.task.name(),
        loaded.id(),
        loaded.task.name()
    );
    Err(Error::Manifest { mistakes: vec![Mistake { key: "task".to_owned(), problem }] })
}

pub(super) fn count_loads(outcome: &'static str) {
    counter!("saccade_model_loads_total", "outcome" => outcome).increment(1);
}

/// A reason's name in the metrics.
const fn label(error: &Error) -> &'static str {
    match error {
        Error::Read { .. } => "files",
        Error::Manifest { .. } => "manifest",
        Error::Checksum { .. } => "checksum",
        Error::Unfit { .. } => "external_data",
        Error::Check { .. } => "check",
        Error::UnreadableModel { .. } => "graph",
        Error::WrongInput { .. } | Error::WrongOutput { .. } => "shape",
        Error::Unavailable { .. } => "unavailable",
        _ => "run",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::media::Task;

    #[test]
    fn a_version_of_another_task_takes_no_place() {
        let loaded = Manifest { version: "2".to_owned(), ..ModelSpec::embedded().unwrap().manifest };
        let new = |version: &str, task| Manifest { version: version.to_owned(), task, ..loaded.clone() };
        assert_eq!(replaces(&loaded, &new("3", Task::Detect)), Ok(()));
        assert_eq!(replaces(&loaded, &new("1", Task::Segment)), Ok(()), "nobody moves to it");
        for version in ["2", "3"] {
            let refused = replaces(&loaded, &new(version, Task::Segment)).unwrap_err().to_string();
            assert!(refused.contains("`task`: is segment") && refused.contains("@2"), "{refused}");
        }
    }
}

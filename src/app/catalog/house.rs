use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Instant;

use metrics::counter;

use super::folder::{self, Id, Messages, Settling, Stamp};
use super::loading::count_loads;
use super::rollback::{Worse, compare};
use super::{Condition, Entry, Job, Stock, id_of};
use crate::clock;
use crate::config::models::Watch;
use crate::infer::{Model, ModelSpec, compare_versions};

/// How many times as long as a change has to settle files may be incomplete before that is a mistake.
const INCOMPLETE: u32 = 10;

impl Stock {
    /// Looks at everything again and again, until the end.
    pub(super) fn keep_house(&self, jobs: &SyncSender<Job>) {
        let mut watcher = Watcher::new(self);
        while self.goes_on() {
            self.judge_trials();
            self.let_superseded_go();
            self.end_left();
            self.give_up_incomplete();
            self.ask_again(jobs);
            watcher.look(self, jobs);
        }
    }

    /// Compares new versions with those before.
    fn judge_trials(&self) {
        let Some(allowed) = &self.config.rollback else { return };
        let now = clock::now();
        let mut worse = Vec::new();
        self.shelf().trials.retain(|trial| {
            let is_worse = compare(allowed, trial.before, trial.new.figures(), trial.new.is_sound());
            if let Some(why) = is_worse {
                worse.push((Arc::clone(&trial.new), Arc::clone(&trial.old), why));
            }
            is_worse.is_none() && now < trial.ends
        });
        for (new, old, why) in worse {
            self.roll_back(&new, &old, why);
        }
    }

    /// Has the version before take a new one's place again.
    fn roll_back(&self, new: &Arc<Model>, old: &Arc<Model>, why: Worse) {
        let id = id_of(new.manifest());
        // The old one first, so that sessions have somewhere to go; where both have one version, that is all.
        let is_listed = self.engine.get(&old.id()).is_some_and(|listed| Arc::ptr_eq(&listed, old));
        let replaced = if is_listed { None } else { self.engine.publish(old) };
        if new.id() != old.id() {
            self.engine.unload(&new.id());
        }
        counter!("saccade_model_rollbacks_total", "reason" => why.label()).increment(1);
        count_loads("rolled_back");
        tracing::error!(model = new.id(), before = old.id(), %why, "the version before takes over again");
        let reason = format!("{} took over again: {why}", old.id());
        self.refusals.note(new.manifest(), new.content(), &reason);
        let mut shelf = self.shelf();
        if let Some(entry) = shelf.entries.get_mut(&id) {
            entry.condition = Condition::Refused(reason);
        }
        shelf.superseded.retain(|other| !Arc::ptr_eq(other, old));
        shelf.leaving.retain(|other| !Arc::ptr_eq(other, old));
        shelf.leaving.push(Arc::clone(new));
        shelf.leaving.extend(replaced.filter(|replaced| !Arc::ptr_eq(replaced, new)));
        drop(shelf);
        self.show();
    }

    /// Unloads versions that others have replaced, once nobody needs them.
    fn let_superseded_go(&self) {
        let shelf = self.shelf();
        let is_tried = |model: &Arc<Model>| shelf.trials.iter().any(|trial| Arc::ptr_eq(&trial.old, model));
        let idle: Vec<_> =
            shelf.superseded.iter().filter(|model| !is_tried(model) && !model.is_used()).cloned().collect();
        drop(shelf);
        for model in idle {
            let is_newest = self.engine.get(&model.manifest().name).is_some_and(|newest| Arc::ptr_eq(&newest, &model));
            if is_newest || self.needs(|other| other.id() == model.id()).is_some() {
                continue;
            }
            self.take_out(&model.id());
            if let Some(entry) = self.shelf().entries.get_mut(&id_of(model.manifest())) {
                entry.condition = Condition::Unloaded;
            }
            tracing::info!(model = model.id(), "nobody needs the old version any more");
            self.show();
        }
    }

    /// Ends models that are in no list, and that no session has any more.
    fn end_left(&self) {
        let mut shelf = self.shelf();
        let tried: Vec<_> = shelf.trials.iter().map(|trial| Arc::as_ptr(&trial.old)).collect();
        let (ended, left) = std::mem::take(&mut shelf.leaving)
            .into_iter()
            .partition::<Vec<_>, _>(|model| Arc::strong_count(model) == 1 && !tried.contains(&Arc::as_ptr(model)));
        shelf.leaving = left;
        drop(shelf);
        // Their threads are waited for here.
        drop(ended);
    }

    /// Has models tried again whose servers were away.
    fn ask_again(&self, jobs: &SyncSender<Job>) {
        let now = clock::now();
        for (id, entry) in &mut self.shelf().entries {
            if let (Condition::Refused(_), Some(again)) = (&entry.condition, &mut entry.again)
                && again.is_due(now)
                && jobs.try_send(Job::Again(id.clone())).is_ok()
            {
                again.begin();
            }
        }
    }

    /// Refuses what has been incomplete for too long.
    fn give_up_incomplete(&self) {
        let limit = self.config.settle * INCOMPLETE;
        let now = clock::now();
        let mut given_up = Vec::new();
        for (id, entry) in &mut self.shelf().entries {
            if let Condition::Incomplete { since, reason } = &entry.condition
                && now.saturating_duration_since(*since) >= limit
            {
                given_up.push((format!("{}@{}", id.0, id.1), reason.clone()));
                entry.condition = Condition::Refused(reason.clone());
            }
        }
        for (model, reason) in given_up {
            tracing::error!(model, reason, "a model was refused");
            count_loads("refused");
            counter!("saccade_model_refusals_total", "reason" => "files").increment(1);
            self.show();
        }
    }
}

/// Notices what changes in the folder.
struct Watcher {
    messages: Option<Messages>,
    settling: Settling,
    /// When it is looked at next.
    due: Option<Instant>,
    /// The folder can't be listed, which was said.
    is_lost: bool,
}

impl Watcher {
    fn new(stock: &Stock) -> Self {
        let is_off = stock.config.watch == Watch::Off;
        let messages = (stock.config.watch == Watch::Auto).then(Messages::open).and_then(|opened| {
            opened
                .inspect_err(|error| tracing::warn!(%error, "the folder of models is only looked at now and then"))
                .ok()
        });
        let due = (!is_off).then(clock::now);
        Self { messages, settling: Settling::default(), due, is_lost: false }
    }

    fn look(&mut self, stock: &Stock, jobs: &SyncSender<Job>) {
        let Some(due) = self.due else { return };
        let now = clock::now();
        if self.messages.as_ref().is_some_and(Messages::heard) {
            // All that comes together is looked at together.
            self.due = Some(due.min(now + stock.config.settle / 4));
        }
        if now < due {
            return;
        }
        let root = &stock.config.dir;
        if let Some(messages) = &self.messages
            && let Err(error) = messages.listen(root)
        {
            tracing::debug!(%error, "the kernel tells nothing of the folder of models");
        }
        let is_settling = match folder::versions(root) {
            Ok(found) => {
                self.is_lost = false;
                self.compare(stock, jobs, now, &found)
            }
            // Models that are loaded go on without their files.
            Err(error) => {
                if !std::mem::replace(&mut self.is_lost, true) && root.exists() {
                    tracing::warn!(folder = %root.display(), %error, "the folder of models cannot be looked at");
                }
                false
            }
        };
        let next = if is_settling { stock.config.settle.min(stock.config.poll) } else { stock.config.poll };
        self.due = Some(now + next);
    }

    /// Has what changed loaded, once it stays as it is. Says whether it is worth looking again soon.
    fn compare(&mut self, stock: &Stock, jobs: &SyncSender<Job>, now: Instant, found: &BTreeMap<Id, Stamp>) -> bool {
        let settle = stock.config.settle;
        let mut is_settling = false;
        for (id, stamp) in found {
            let known = stock.shelf().entries.get(id).map(|entry| (entry.stamp.clone(), entry.condition.clone()));
            let is_busy = matches!(known, Some((_, Condition::Loading)));
            if is_busy || known.is_some_and(|(known, _)| known.as_ref() == Some(stamp)) {
                self.settling.forget(id);
            } else if self.settling.look(now, id, Some(stamp), settle) {
                self.settling.forget(id);
                if stock.wants(id, stock.is_newest(id, found))
                    || stock.engine.get(&format!("{}@{}", id.0, id.1)).is_some()
                {
                    is_settling |= jobs.try_send(Job::Changed(id.clone())).is_err();
                } else {
                    stock.note_unwanted(id, stamp);
                }
            } else {
                is_settling = true;
            }
        }
        let mut gone: Vec<Id> = {
            let shelf = stock.shelf();
            // What has no files, such as the embedded model, can't lose them.
            let with_files = shelf.entries.iter().filter(|(_, entry)| entry.stamp.is_some());
            with_files.map(|(id, _)| id).filter(|id| !found.contains_key(*id)).cloned().collect()
        };
        // A disk that fails for a moment loses no model.
        gone.retain(|id| folder::is_gone(&stock.folder_of(id)));
        for id in gone {
            if self.settling.look(now, &id, None, settle) {
                self.settling.forget(&id);
                is_settling |= jobs.try_send(Job::Gone(id)).is_err();
            } else {
                is_settling = true;
            }
        }
        is_settling
    }
}

impl Stock {
    /// Whether a version is the newest of its model, of those that can be used.
    fn is_newest(&self, (name, version): &Id, found: &BTreeMap<Id, Stamp>) -> bool {
        let shelf = self.shelf();
        let is_usable = |id: &Id| {
            let refused = shelf.entries.get(id).map(|entry| &entry.condition);
            id.1 == *version || !matches!(refused, Some(Condition::Refused(_)))
        };
        let versions = found.keys().filter(|id| id.0 == *name && is_usable(id)).map(|id| &id.1);
        versions.max_by(|a, b| compare_versions(a, b)) == Some(version)
    }

    /// A version that nobody wants is there.
    fn note_unwanted(&self, id: &Id, stamp: &Stamp) {
        let manifest = ModelSpec::open(&self.folder_of(id)).ok().map(|spec| spec.manifest);
        let entry = Entry { manifest, condition: Condition::Unloaded, stamp: Some(stamp.clone()), again: None };
        self.shelf().entries.insert(id.clone(), entry);
        self.show();
    }
}

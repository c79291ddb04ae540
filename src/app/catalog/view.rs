use std::sync::Arc;

use saccade_signaling::{ModelState, ModelView};

use super::folder::Id;
use super::{Condition, Entry, Stock, missing};
use crate::infer::{Manifest, Model, compare_versions};
use crate::session::Refusal;

impl Stock {
    /// All models, by name, then version; `default` is what sessions get that name none.
    pub(super) fn views(&self, default: &str) -> Vec<ModelView> {
        let loaded = self.engine.models();
        let default = self.engine.get(default).map(|model| model.id());
        let shelf = self.shelf();
        let mut views: Vec<_> =
            loaded.iter().map(|model| ready(model, default.as_ref(), shelf.entries.get(&id(model)))).collect();
        let others = shelf.entries.iter().filter(|(other, _)| !loaded.iter().any(|model| id(model) == **other));
        views.extend(others.map(|(id, entry)| waiting(id, entry)));
        drop(shelf);
        views.sort_by(|a, b| a.name.cmp(&b.name).then_with(|| compare_versions(&a.version, &b.version)));
        views
    }

    /// What can be said of a model after a while.
    pub(super) fn pending(&self, name: &str) -> Result<ModelView, Refusal> {
        let (name, version) = name.split_once('@').map_or((name, None), |(name, version)| (name, Some(version)));
        let all = self.views(&self.config.default);
        let mut found = all.into_iter().filter(|view| view.name == name && version.is_none_or(|it| view.version == it));
        let newest = found.by_ref().last().ok_or_else(|| missing(name))?;
        // It waits for its turn, or is under way.
        Ok(ModelView { state: ModelState::Loading, ..newest })
    }

    /// One model.
    pub(super) fn view(&self, (name, version): &Id) -> Option<ModelView> {
        let all = self.views(&self.config.default);
        all.into_iter().find(|view| view.name == *name && view.version == *version)
    }
}

fn id(model: &Model) -> Id {
    (model.manifest().name.clone(), model.manifest().version.clone())
}

fn ready(model: &Arc<Model>, default: Option<&String>, entry: Option<&Entry>) -> ModelView {
    let selection = model.selection();
    let reason = match entry.map(|entry| &entry.condition) {
        Some(Condition::Ready(said)) => said.clone(),
        // Its files changed, and the model that is loaded goes on.
        Some(Condition::Refused(reason) | Condition::Incomplete { reason, .. }) => Some(reason.clone()),
        _ => None,
    };
    ModelView {
        backend: selection.provider.to_string(),
        precision: selection.precision.to_string(),
        default: default == Some(&model.id()),
        state: ModelState::Ready,
        reason,
        ..described(model.manifest())
    }
}

fn waiting((name, version): &Id, entry: &Entry) -> ModelView {
    let unknown = || ModelView {
        name: name.clone(),
        version: version.clone(),
        task: String::new(),
        licence: String::new(),
        input: [0, 0],
        classes: Vec::new(),
        score_threshold: 0.0,
        backend: String::new(),
        precision: String::new(),
        default: false,
        state: ModelState::Unloaded,
        reason: None,
    };
    let (state, reason) = match &entry.condition {
        Condition::Loading => (ModelState::Loading, None),
        Condition::Incomplete { reason, .. } => (ModelState::Loading, Some(reason.clone())),
        Condition::Refused(reason) => (ModelState::Refused, Some(reason.clone())),
        // One that the engine has let go in this moment.
        Condition::Unloaded | Condition::Ready(_) => (ModelState::Unloaded, None),
    };
    ModelView { state, reason, ..entry.manifest.as_ref().map_or_else(unknown, described) }
}

fn described(manifest: &Manifest) -> ModelView {
    ModelView {
        name: manifest.name.clone(),
        version: manifest.version.clone(),
        task: manifest.task.name().to_owned(),
        licence: manifest.licence.clone(),
        input: manifest.input.size,
        classes: manifest.classes.iter().map(|class| class.name.to_string()).collect(),
        score_threshold: manifest.defaults.score_threshold,
        backend: String::new(),
        precision: String::new(),
        default: false,
        state: ModelState::Unloaded,
        reason: None,
    }
}

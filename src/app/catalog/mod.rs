use std::sync::Arc;

use async_trait::async_trait;
use saccade_signaling::{ErrorCode, ModelState, ModelView};

use crate::http;
use crate::infer::{Engine, Model};
use crate::session::Refusal;

/// The models as the API has them.
pub(super) struct Catalog {
    pub(super) engine: Arc<Engine>,
    /// What sessions get that name no model: a model or a route.
    pub(super) default: String,
}

#[async_trait]
impl http::Models for Catalog {
    fn list(&self) -> Vec<ModelView> {
        let default = self.engine.get(&self.default).map(|model| model.id());
        let view = |model: &Arc<Model>| view(model, default.as_ref() == Some(&model.id()));
        self.engine.models().iter().map(view).collect()
    }

    async fn load(&self, name: &str) -> Result<ModelView, Refusal> {
        Err(missing(name))
    }

    async fn unload(&self, name: &str) -> Result<ModelView, Refusal> {
        Err(missing(name))
    }
}

fn missing(name: &str) -> Refusal {
    let name: String = name.chars().take(64).collect();
    Refusal::new(ErrorCode::NotFound, format!("There is no model {name}; see GET /v1/models?all=true."))
}

fn view(model: &Model, default: bool) -> ModelView {
    let (manifest, selection) = (model.manifest(), model.selection());
    ModelView {
        name: manifest.name.clone(),
        version: manifest.version.clone(),
        task: manifest.task.name().to_owned(),
        licence: manifest.licence.clone(),
        input: manifest.input.size,
        classes: model.classes().iter().map(|class| class.name.to_string()).collect(),
        score_threshold: manifest.defaults.score_threshold,
        backend: selection.provider.to_string(),
        precision: selection.precision.to_string(),
        default,
        state: ModelState::Ready,
        reason: None,
    }
}

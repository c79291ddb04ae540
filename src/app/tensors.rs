use std::sync::Arc;

use async_trait::async_trait;
use saccade_signaling::{ErrorCode, ModelState, ModelView};

use crate::clock;
use crate::http;
use crate::infer::{Engine, Model, Tensors};
use crate::kserve::client::{self, Remote};
use crate::kserve::{Entry, Error, Metadata, Models, Named, Request, Response, Statistics};
use crate::session::{Refusal, Registry, Work};
use crate::traces::Trail;

/// The engine's models as the inference protocol has them.
pub(super) struct TensorModels {
    pub(super) engine: Arc<Engine>,
    pub(super) registry: Arc<Registry>,
    /// Loads and unloads them.
    pub(super) catalog: Arc<dyn http::Models>,
}

impl TensorModels {
    fn find(&self, named: Named<'_>) -> Result<Arc<Model>, Error> {
        self.engine.get(&named.id()).ok_or_else(|| named.unknown())
    }

    /// A model that takes work.
    fn ready(&self, named: Named<'_>) -> Result<Arc<Model>, Error> {
        let model = self.find(named)?;
        match model.unready() {
            None => Ok(model),
            Some(reason) => Err(Error::NotReady { model: model.id(), reason }),
        }
    }
}

/// All models that are loaded have it.
fn tensors(model: &Model) -> Result<&Tensors, Error> {
    let reason = || "it is about to be loaded".to_owned();
    model.tensors().ok_or_else(|| Error::NotReady { model: model.id(), reason: reason() })
}

/// What a model of other servers is, by the name that it has here.
fn described(model: &Model, remote: &Remote) -> Result<Arc<Metadata>, Error> {
    let reason = || "its servers have not said what it is".to_owned();
    let metadata = remote.metadata().ok_or_else(|| Error::NotReady { model: model.id(), reason: reason() })?;
    let (name, version) = (model.manifest().name.clone(), model.manifest().version.clone());
    Ok(Arc::new(Metadata { name, version, ..(**metadata).clone() }))
}

/// Has other servers run their model.
async fn forward(model: &Model, remote: &Remote, request: Request) -> Result<Response, Error> {
    described(model, remote)?.check(&request)?;
    let id = request.id.clone();
    let deadline = request.timeout.map(|timeout| clock::now() + timeout);
    let response = remote.infer(request, deadline).await.map_err(|error| match error {
        client::Error::Late => Error::Late,
        client::Error::Unreachable { reason } => Error::NotReady { model: model.id(), reason },
        other => Error::Failed { model: model.id(), reason: other.to_string() },
    })?;
    let (model, version) = (model.manifest().name.clone(), model.manifest().version.clone());
    Ok(Response { model, version, id, outputs: response.outputs })
}

#[async_trait]
impl Models for TensorModels {
    fn is_ready(&self) -> bool {
        !self.registry.is_draining() && self.engine.models().iter().all(|model| model.is_ready())
    }

    fn spare(&self) -> Result<(), Error> {
        self.registry.spare(Work::Tensors).map_err(|_| Error::NoMemory)
    }

    fn is_model_ready(&self, model: Named<'_>) -> Result<bool, Error> {
        Ok(self.find(model)?.is_ready())
    }

    fn index(&self) -> Vec<Entry> {
        let entry = |view: ModelView| {
            let unready = self.engine.get(&format!("{}@{}", view.name, view.version)).and_then(|model| model.unready());
            let ready = view.state == ModelState::Ready && unready.is_none();
            Entry { name: view.name, version: view.version, ready, reason: unready.or(view.reason).unwrap_or_default() }
        };
        self.catalog.list().into_iter().map(entry).collect()
    }

    async fn metadata(&self, model: Named<'_>) -> Result<Arc<Metadata>, Error> {
        let found = self.ready(model)?;
        let metadata = match found.remote() {
            Some(remote) => described(&found, remote)?,
            None => tensors(&found)?.metadata().await?,
        };
        let versions = self.engine.models().into_iter().map(|other| other.manifest().clone());
        let versions = versions.filter(|other| other.name == metadata.name).map(|other| other.version).collect();
        Ok(Arc::new(Metadata { versions, ..(*metadata).clone() }))
    }

    async fn infer(&self, model: Named<'_>, request: Request, trail: &Trail) -> Result<Response, Error> {
        let found = self.ready(model)?;
        if self.registry.is_draining() {
            let reason = "the server is shutting down; send it to another, or later".to_owned();
            return Err(Error::NotReady { model: found.id(), reason });
        }
        match found.remote() {
            Some(remote) => {
                let begin = clock::now();
                let answer = forward(&found, remote, request).await;
                trail.part("remote", begin, clock::now());
                answer
            }
            None => tensors(&found)?.infer(request, trail).await,
        }
    }

    fn statistics(&self, model: Option<Named<'_>>) -> Result<Vec<Statistics>, Error> {
        let models = match model {
            Some(model) => vec![self.find(model)?],
            None => self.engine.models(),
        };
        Ok(models.iter().filter_map(|model| Some(model.tensors()?.statistics())).collect())
    }

    async fn load(&self, name: &str) -> Result<(), Error> {
        let view = self.catalog.load(name).await.map_err(|refusal| refused(name, &refusal))?;
        let reason = || "it is being loaded, which takes longer than a request may".to_owned();
        if view.state == ModelState::Ready {
            Ok(())
        } else {
            Err(Error::NotReady { model: name.to_owned(), reason: reason() })
        }
    }

    async fn unload(&self, name: &str) -> Result<(), Error> {
        self.catalog.unload(name).await.map(drop).map_err(|refusal| refused(name, &refusal))
    }
}

fn refused(name: &str, refusal: &Refusal) -> Error {
    let model = name.to_owned();
    let reason = refusal.message.trim_end_matches('.').to_owned();
    match refusal.code {
        ErrorCode::NotFound => Error::UnknownModel { model },
        ErrorCode::Conflict => Error::Conflict { problem: reason },
        ErrorCode::Capacity => Error::Busy,
        _ => Error::Failed { model, reason },
    }
}

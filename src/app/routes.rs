use std::sync::Arc;

use saccade_signaling::{EnsembleRoute, ErrorCode, RouteFusion, RoutePut, RouteShare, RouteView, SplitRoute};

use super::kept::Kept;
use crate::config::Config;
use crate::http;
use crate::infer::{Engine, Put, RouteError};
use crate::route::{Fusion, Route, Share};
use crate::session::Refusal;

/// The engine's routes as the API has them.
pub(super) struct Routes {
    pub(super) engine: Arc<Engine>,
    /// What sessions get that name no model: a model or a route.
    pub(super) default: String,
    /// Those that were put over HTTP.
    pub(super) kept: Kept,
}

impl http::Routes for Routes {
    fn list(&self) -> Vec<RouteView> {
        let view = |(name, route): (String, Arc<Route>)| RouteView {
            default: name == self.default,
            classes: self.classes(&name),
            name,
            route: to_wire(&route),
        };
        self.engine.routes().list().into_iter().map(view).collect()
    }

    fn get(&self, name: &str) -> Option<RoutePut> {
        self.engine.routes().get(name).map(|route| to_wire(&route))
    }

    fn put(&self, name: &str, route: RoutePut) -> Result<(RoutePut, bool), Refusal> {
        let route = from_wire(route);
        let wire = to_wire(&route);
        let put = self.engine.put_route(name, route).map_err(|error| refusal(&error))?;
        self.kept.note(name, Some(wire.clone()));
        tracing::info!(route = name, is_new = put == Put::New, "a route was put");
        Ok((wire, put == Put::New))
    }

    fn remove(&self, name: &str) -> Result<(), Refusal> {
        if name == self.default && self.engine.routes().get(name).is_some() {
            let message = "Sessions that name no model get this route (`models.default`); replace it instead.";
            return Err(Refusal::new(ErrorCode::Conflict, message));
        }
        if self.engine.routes().remove(name).is_none() {
            return Err(Refusal::new(ErrorCode::NotFound, "There is no such route; see GET /v1/routes."));
        }
        self.kept.note(name, None);
        tracing::info!(route = name, "a route was removed");
        Ok(())
    }
}

/// Adds the routes that were put before the last start, but for names that are taken by now. Their models need not be
/// loaded: until they are, nobody gets the route.
pub(super) fn restore(engine: &Engine, kept: &Kept) {
    for (name, route) in kept.routes() {
        match engine.restore_route(&name, from_wire(route)) {
            Ok(()) => tracing::info!(route = name, "a kept route is back"),
            Err(error) => tracing::warn!(route = name, %error, "a kept route is left out"),
        }
    }
}

/// The models that kept routes name, but for routes that the configuration has others for.
pub(super) fn models_of(kept: &Kept, config: &Config) -> Vec<String> {
    let mut models = Vec::new();
    for (name, route) in kept.routes() {
        if !config.routes.contains_key(&name) {
            let route = from_wire(route);
            models.extend(route.models().chain(route.shadow()).map(str::to_owned));
        }
    }
    models
}

impl Routes {
    /// None while a model of the route is not loaded.
    fn classes(&self, route: &str) -> Vec<String> {
        let outline = self.engine.outline(route);
        outline.map(|outline| outline.classes.iter().map(|class| class.name.to_string()).collect()).unwrap_or_default()
    }
}

fn refusal(error: &RouteError) -> Refusal {
    let code = match error {
        RouteError::Name | RouteError::Mistakes { .. } | RouteError::Tasks { .. } => ErrorCode::BadRequest,
        RouteError::UnknownModels { .. } => ErrorCode::UnknownModel,
        RouteError::NameTaken { .. } | RouteError::Configured { .. } | RouteError::TooMany => ErrorCode::Conflict,
    };
    let mut message = error.to_string();
    if let Some(first) = message.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    Refusal::new(code, message + ".")
}

pub(super) fn from_wire(route: RoutePut) -> Route {
    match route {
        RoutePut::Split(SplitRoute { split, shadow }) => {
            let share = |RouteShare { model, weight }| Share { model, weight };
            Route::Split { shares: split.into_iter().map(share).collect(), shadow }
        }
        RoutePut::Ensemble(EnsembleRoute { ensemble, fusion: RouteFusion::Wbf }) => {
            Route::Ensemble { models: ensemble, fusion: Fusion::Wbf }
        }
    }
}

fn to_wire(route: &Route) -> RoutePut {
    match route {
        Route::Split { shares, shadow } => {
            let share = |share: &Share| RouteShare { model: share.model.clone(), weight: share.weight };
            RoutePut::Split(SplitRoute { split: shares.iter().map(share).collect(), shadow: shadow.clone() })
        }
        Route::Ensemble { models, fusion: Fusion::Wbf } => {
            RoutePut::Ensemble(EnsembleRoute { ensemble: models.clone(), fusion: RouteFusion::Wbf })
        }
    }
}

//! Sessions follow the models that they asked for: when another version is loaded, those that named none move to it
//! between two frames.

use metrics::counter;
use saccade_signaling::{ErrorCode, OptionsPatch};

use super::Models;
use super::owner::Owner;
use crate::infer::Plan;
use crate::session::Refusal;
use crate::session::options::{self, ModelFacts};

/// A plan that options are to fit.
struct Renewed<'a> {
    name: &'a str,
    plan: &'a Plan,
}

impl options::Models for Renewed<'_> {
    fn facts(&self, _name: &str) -> Option<ModelFacts> {
        let defaults = self.plan.first().model.default_params();
        Some(ModelFacts {
            name: self.name.to_owned(),
            task: Some(self.plan.first().model.manifest().task),
            classes: self.plan.classes.iter().map(|class| class.name.to_string()).collect(),
            score_threshold: defaults.score_threshold,
            iou_threshold: defaults.iou_threshold,
            max_detections: u32::try_from(defaults.max_detections).unwrap_or(u32::MAX),
        })
    }

    fn names(&self) -> Vec<String> {
        vec![self.name.to_owned()]
    }
}

impl Owner {
    /// Other models are loaded than before: the session moves to what it would get by now for the name that it has. Its
    /// options stay as they are, thresholds included. Where they name classes that are not there any more it stays where it
    /// is, and the peer is told so; the next version may have them again.
    pub(super) fn follow_models(&mut self) {
        let (options, current) = (self.shown.options.load_full(), self.stages.plan());
        let id = self.shown.id.as_str();
        // Of what is gone without a successor, the session keeps what it has.
        let Ok(plan) = self.deps.engine.renew(&current, &options.model, id) else { return };
        if plan.is_same(&current) {
            return;
        }
        let model = plan.first().model.id();
        let fits = options::apply(&Renewed { name: &options.model, plan: &plan }, &options, &OptionsPatch::default());
        if let Err(misfit) = fits {
            counter!("saccade_session_model_moves_total", "outcome" => "kept").increment(1);
            let kept = current.first().model.id();
            tracing::warn!(model, kept, "the session's options do not fit the new version of its model");
            let message =
                format!("The session stays with {kept}, since its options do not fit {model}: {}", misfit.message);
            self.signal(Refusal::new(ErrorCode::BadOptions, message).to_message(false));
            return;
        }
        let models = Models { deps: &self.deps, claims: &self.claims };
        self.stages.move_to(models.applied((*options).clone(), plan));
        counter!("saccade_session_model_moves_total", "outcome" => "moved").increment(1);
        tracing::info!(model, "the session moves to another version of its model");
    }
}

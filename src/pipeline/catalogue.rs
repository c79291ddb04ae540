use crate::infer::{self, Engine};
use crate::session::options::{self, ModelFacts};
use crate::session::{Claims, Refusal};

/// What options need to know of the models and routes, as far as somebody may use them.
#[derive(Clone, Copy)]
pub(super) struct Catalogue<'a> {
    pub(super) engine: &'a Engine,
    /// What is used where none is named.
    pub(super) default: &'a str,
    pub(super) claims: &'a Claims,
}

impl Catalogue<'_> {
    /// Passes if this model may be used, if one is named at all.
    pub(super) fn check(&self, model: Option<&String>) -> Result<(), Refusal> {
        match model {
            Some(model) if !self.claims.may_use(model) => Err(Refusal::may_not_use(model)),
            _ => Ok(()),
        }
    }
}

impl options::Models for Catalogue<'_> {
    fn facts(&self, name: &str) -> Option<ModelFacts> {
        let infer::Outline { classes, defaults } = self.engine.outline(name).ok()?;
        Some(ModelFacts {
            name: name.to_owned(),
            classes: classes.iter().map(|class| class.name.to_string()).collect(),
            score_threshold: defaults.score_threshold,
            iou_threshold: defaults.iou_threshold,
            max_detections: u32::try_from(defaults.max_detections).unwrap_or(u32::MAX),
        })
    }

    fn names(&self) -> Vec<String> {
        let models = self.engine.models().into_iter().map(|model| model.manifest().name.clone());
        let routes = self.engine.routes().list().into_iter().map(|(name, _)| name);
        let mut names = Vec::new();
        for name in [self.default.to_owned()].into_iter().chain(models).chain(routes) {
            if !names.contains(&name) && self.claims.may_use(&name) {
                names.push(name);
            }
        }
        // A version is no name of its own, but it may be all that is allowed.
        if names.is_empty() { self.claims.models.clone() } else { names }
    }
}

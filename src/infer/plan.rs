use std::sync::Arc;
use std::time::Duration;

use super::fusion;
use super::model::Model;
use super::{Error, Params};
use crate::media::{Class, Detection, Overall, Task};
use crate::route::{self, Fusion, Route, Share};

/// The models that one session's frames go through. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Models that answer, in the route's order: one, or several where there is a `fusion`. Never empty.
    pub members: Vec<Member>,
    /// A model that runs on the same frames and is only compared with the answer: see [`fusion::agreement`].
    pub shadow: Option<Arc<Model>>,
    /// Classes by id, as the answer names them: those of all the route's models.
    pub classes: Arc<[Class]>,
    /// How what several members find becomes one list.
    pub fusion: Option<Fusion>,
    /// The route that the models are of, as it was then; none: of a model's own name.
    pub(super) route: Option<Arc<Route>>,
}

/// One model of a plan.
#[derive(Debug, Clone)]
pub struct Member {
    /// The model.
    pub model: Arc<Model>,
    /// By the model's own class ids: the classes as the plan has them. Names are the same, ids may not be.
    pub classes: Arc<[Class]>,
    /// A model of the same classes with a smaller input, which takes over under load.
    pub smaller: Option<Arc<Model>>,
}

/// What a name that sessions may ask for promises them, whichever model they get.
#[derive(Debug, Clone)]
pub struct Outline {
    /// What they do, all of them.
    pub task: Task,
    /// Classes by id: those of all the models, by name, in the models' order.
    pub classes: Arc<[Class]>,
    /// What a session gets that states nothing else: the defaults of the model that is named first.
    pub defaults: Params,
}

impl Outline {
    pub(super) fn of_model(model: &Model) -> Self {
        let (task, classes) = (model.manifest().task, model.classes().into());
        Self { task, classes, defaults: model.default_params() }
    }

    /// `find` gives the loaded models.
    pub(super) fn of_route(route: &Route, find: impl Fn(&str) -> Result<Arc<Model>, Error>) -> Result<Self, Error> {
        let models = usable(route, route.models().map(find).collect())?;
        check_tasks(route, &models)?;
        let first = models.first().ok_or_else(|| Error::UnknownModel { name: String::new() })?;
        let (classes, _) = unite(models.iter().map(|model| model.classes()));
        Ok(Self { task: first.manifest().task, classes, defaults: first.default_params() })
    }
}

impl Plan {
    /// A model by itself.
    pub(super) fn of_model(model: Arc<Model>) -> Self {
        let classes: Arc<[Class]> = model.classes().into();
        let members = vec![Member { model, classes: Arc::clone(&classes), smaller: None }];
        Self { members, shadow: None, classes, fusion: None, route: None }
    }

    /// What the session `key` gets of a route; `find` gives the loaded models. All members of an ensemble have to be
    /// there, and one of those that sessions are split among; without the shadow a session does as well.
    pub(super) fn of_route(
        route: &Arc<Route>,
        name: &str,
        key: &str,
        find: impl Fn(&str) -> Result<Arc<Model>, Error>,
    ) -> Result<Self, Error> {
        let found: Vec<_> = route.models().map(&find).collect();
        let loaded: Vec<bool> = found.iter().map(Result::is_ok).collect();
        let models = usable(route, found)?;
        check_tasks(route, &models)?;
        let (classes, mappings) = unite(models.iter().map(|model| model.classes()));
        let member = |(model, classes)| Member { model, classes, smaller: None };
        let mut members: Vec<Member> = models.into_iter().zip(mappings).map(member).collect();
        let fusion = match &**route {
            Route::Split { shares, .. } => {
                let drawn = draw_loaded(shares, &loaded, name, key);
                let drawn = drawn.ok_or_else(|| Error::UnknownModel { name: name.to_owned() })?;
                members = vec![members.swap_remove(drawn)];
                None
            }
            Route::Ensemble { fusion, .. } => Some(*fusion),
        };
        let shadow = route.shadow().and_then(|shadow| {
            find(shadow).inspect_err(|error| tracing::warn!(route = name, %error, "a route's shadow is missing")).ok()
        });
        // What is compared with itself tells nothing.
        let shadow = shadow.filter(|shadow| !members.iter().any(|member| Arc::ptr_eq(&member.model, shadow)));
        Ok(Self { members, shadow, classes, fusion, route: Some(Arc::clone(route)) })
    }

    /// Whether all models that frames may go through find them on a device.
    #[must_use]
    pub fn is_in_place(&self) -> bool {
        let smaller = self.members.iter().filter_map(|member| member.smaller.as_deref());
        self.models().chain(smaller).all(|model| model.selection().in_place)
    }

    /// All models that frames go through.
    pub fn models(&self) -> impl Iterator<Item = &Model> {
        self.members.iter().map(|member| &*member.model).chain(self.shadow.as_deref())
    }

    /// The running estimate of how long one frame takes: the slowest member's, since they work side by side.
    #[must_use]
    pub fn estimate(&self) -> Duration {
        self.members.iter().map(|member| member.model.estimate()).max().unwrap_or_default()
    }

    /// Frames that can be in work side by side.
    #[must_use]
    pub fn instances(&self) -> u32 {
        self.members.iter().map(|member| member.model.instances()).min().unwrap_or(1)
    }

    /// Whether frames go through the same models as by another plan, and what these find means the same.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let Self { members, shadow, classes, fusion, route: _ } = self;
        let at = |model: &Option<Arc<Model>>| model.as_ref().map(Arc::as_ptr);
        let same = |(one, other): (&Member, &Member)| {
            Arc::ptr_eq(&one.model, &other.model)
                && one.classes == other.classes
                && at(&one.smaller) == at(&other.smaller)
        };
        members.len() == other.members.len()
            && members.iter().zip(&other.members).all(same)
            && at(shadow) == at(&other.shadow)
            && *classes == other.classes
            && *fusion == other.fusion
    }

    /// Whether an object that this plan's models name is of the same class, by its id, where another's find it.
    #[must_use]
    pub fn agrees_on_classes(&self, other: &Self) -> bool {
        let known = |class: &Class| other.classes.iter().find(|known| known.name == class.name);
        self.classes.iter().all(|class| known(class).is_none_or(|known| known.id == class.id))
    }

    /// What the plan's `params` ask of the shadow, if there is one: its own ids stand for the classes of the same names.
    #[must_use]
    pub fn shadow_params(&self, params: &Params) -> Option<Params> {
        let model = self.shadow.as_ref()?;
        let wanted = params.classes.as_ref().map(|wanted| {
            let names: Vec<_> = self.classes.iter().filter(|class| wanted.contains(&class.id)).collect();
            let known = model.classes().iter().filter(|class| names.iter().any(|name| name.name == class.name));
            known.map(|class| class.id).collect()
        });
        Some(Params { classes: wanted, ..params.clone() })
    }

    /// The member that is named first: the only one, unless there is a [`fusion`](Self::fusion).
    #[must_use]
    pub fn first(&self) -> &Member {
        &self.members[0]
    }

    /// What the members found in one frame, best score first, as one list. `found` has an entry a member, in their
    /// order, after [`Member::rename`]; a member that has no answer counts neither for nor against what others found.
    /// Thresholds of `params` apply to what comes out; its class ids are the plan's.
    #[must_use]
    pub fn fuse(&self, found: &[Option<&[Detection]>], params: &Params) -> Vec<Detection> {
        let knowing = |class: u32| {
            let answered = self.members.iter().zip(found).filter(|(_, found)| found.is_some());
            answered.filter(|(member, _)| member.classes.iter().any(|known| known.id == class)).count()
        };
        let lists: Vec<&[Detection]> = found.iter().copied().flatten().collect();
        let mut fused = fusion::fuse(&lists, knowing, fusion::IOU_THRESHOLD);
        fused.retain(|detection| {
            let wanted = params.classes.as_ref().is_none_or(|classes| classes.contains(&detection.class.id));
            wanted && detection.score >= params.score_threshold
        });
        fused.truncate(params.max_detections);
        fused
    }
}

impl Member {
    /// Names the classes of what this member's model found as the plan does.
    pub fn rename(&self, detections: &mut [Detection]) {
        for detection in detections {
            if let Some(class) = self.classes.get(detection.class.id as usize) {
                detection.class = class.clone();
            }
        }
    }

    /// The same for what the model says of the whole frame.
    pub fn rename_overall(&self, overall: Option<&mut Arc<Overall>>) {
        let is_same = || (0..).zip(self.classes.iter()).all(|(id, class)| class.id == id);
        if let Some(overall) = overall.filter(|_| !is_same()) {
            Arc::make_mut(overall).rename(|class| self.classes.get(class.id as usize).cloned());
        }
    }

    /// What the plan's `params` ask of this member's model: its own ids stand for the same classes. Where it knows none
    /// of those asked for, it is asked for none.
    #[must_use]
    pub fn params(&self, params: &Params) -> Params {
        let own = |wanted: &Vec<u32>| {
            let known = (0..).zip(self.classes.iter()).filter(|(_, class)| wanted.contains(&class.id));
            known.map(|(own, _)| own).collect()
        };
        Params { classes: params.classes.as_ref().map(own), ..params.clone() }
    }
}

/// The models of a route that count, of those that were looked for: of a split, those that are there; of an ensemble, all
/// or none.
fn usable<M>(route: &Route, found: Vec<Result<M, Error>>) -> Result<Vec<M>, Error> {
    let is_enough = matches!(route, Route::Split { .. }) && found.iter().any(Result::is_ok);
    found.into_iter().filter(|model| !is_enough || model.is_ok()).collect()
}

/// A model may have been loaded after its route was put: only boxes can be fused.
fn check_tasks(route: &Route, models: &[Arc<Model>]) -> Result<(), Error> {
    let Route::Ensemble { .. } = route else { return Ok(()) };
    match models.iter().find(|model| model.manifest().task != Task::Detect) {
        Some(model) => Err(Error::Unavailable {
            what: "the ensemble".to_owned(),
            reason: format!("{} is of the task {}, which can't be fused", model.id(), model.manifest().task.name()),
        }),
        None => Ok(()),
    }
}

/// Index, among the models that are loaded, of the one that a session gets. Sessions whose share has no model are drawn
/// again among the others; all others keep theirs.
fn draw_loaded(shares: &[Share], loaded: &[bool], route: &str, key: &str) -> Option<usize> {
    let drawn = route::draw(shares, route, key)?;
    let is_loaded = |at: usize| loaded.get(at).is_some_and(|loaded| *loaded);
    if is_loaded(drawn) {
        return Some((0..drawn).filter(|at| is_loaded(*at)).count());
    }
    let there = shares.iter().zip(loaded).filter(|(_, loaded)| **loaded);
    let there: Vec<Share> = there.map(|(share, _)| share.clone()).collect();
    // By another key: by the same one, all of them would come to one place.
    route::draw(&there, route, &format!("{key} again"))
}

/// All classes by name, in the order in which the lists bring them, with ids of their own; and for each list its classes
/// with those ids.
fn unite<'a>(lists: impl Iterator<Item = &'a [Class]>) -> (Arc<[Class]>, Vec<Arc<[Class]>>) {
    let mut all: Vec<Class> = Vec::new();
    let mappings = lists.map(|list| {
        let classes = list.iter().map(|class| {
            if let Some(known) = all.iter().find(|known| known.name == class.name) {
                return known.clone();
            }
            let id = u32::try_from(all.len()).unwrap_or(u32::MAX);
            let new = Class { id, name: Arc::clone(&class.name) };
            all.push(new.clone());
            new
        });
        classes.collect()
    });
    let mappings = mappings.collect();
    (all.into(), mappings)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    fn classes(names: &[&str]) -> Vec<Class> {
        (0..).zip(names).map(|(id, &name)| Class { id, name: name.into() }).collect()
    }

    fn shares(weights: &[u32]) -> Vec<Share> {
        let share = |(number, &weight): (usize, &u32)| Share { model: format!("m@{number}"), weight };
        weights.iter().enumerate().map(share).collect()
    }

    fn ids(classes: &[Class]) -> Vec<(u32, &str)> {
        classes.iter().map(|class| (class.id, &*class.name)).collect()
    }

    #[test]
    fn a_split_does_without_a_model_that_is_gone_and_an_ensemble_does_not() {
        let gone = || Err(Error::UnknownModel { name: "m@1".into() });
        let split = Route::Split { shares: shares(&[1, 1, 1]), shadow: None };
        assert_eq!(usable(&split, vec![Ok(0), gone(), Ok(2)]), Ok(vec![0, 2]));
        assert!(usable(&split, vec![gone(), gone()]).is_err());
        let ensemble = Route::Ensemble { models: vec!["m@0".into(), "m@1".into()], fusion: Fusion::Wbf };
        assert!(usable(&ensemble, vec![Ok(0), gone()]).is_err());
        assert_eq!(usable(&ensemble, vec![Ok(0), Ok(1)]), Ok(vec![0, 1]));
    }

    #[test]
    fn only_sessions_of_a_model_that_is_gone_move_to_the_others() {
        let shares = shares(&[1, 2, 1]);
        let mut moved = [0, 0];
        for number in 0..400 {
            let key = number.to_string();
            let before = route::draw(&shares, "r", &key).unwrap();
            assert_eq!(draw_loaded(&shares, &[true; 3], "r", &key), Some(before));
            // The last one has another place among those that are left.
            let now = draw_loaded(&shares, &[true, false, true], "r", &key).unwrap();
            match before {
                0 => assert_eq!(now, 0),
                2 => assert_eq!(now, 1),
                _ => moved[now] += 1,
            }
        }
        assert!(moved.iter().all(|sessions| *sessions > 50), "{moved:?}");
        assert_eq!(draw_loaded(&shares, &[false; 3], "r", "k"), None);
    }

    #[test]
    fn a_share_without_weight_gets_no_sessions_of_one_that_is_gone() {
        let shares = shares(&[1, 0]);
        assert_eq!(draw_loaded(&shares, &[true, true], "r", "k"), Some(0));
        assert_eq!(draw_loaded(&shares, &[false, true], "r", "k"), None);
    }

    #[test]
    fn classes_are_united_by_name_in_the_order_of_the_models() {
        let lists = [classes(&["head", "helmet"]), classes(&["face", "head"]), classes(&[])];
        let (all, mappings) = unite(lists.iter().map(Vec::as_slice));
        assert_eq!(ids(&all), [(0, "head"), (1, "helmet"), (2, "face")]);
        assert_eq!(ids(&mappings[0]), [(0, "head"), (1, "helmet")]);
        assert_eq!(ids(&mappings[1]), [(2, "face"), (0, "head")]);
        assert_eq!(ids(&mappings[2]), []);
        assert_eq!(ids(&unite(lists[1..2].iter().map(Vec::as_slice)).0), [(0, "face"), (1, "head")]);
    }
}

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::media::Task;
use crate::route::{self, Mistake, Route};

/// Routes that there may be.
pub const MAX_ROUTES: usize = 256;

/// All routes by name; shared by those who change them and those who ask for them. They live as long as the process.
#[derive(Debug, Default)]
pub struct Routes {
    by_name: Mutex<BTreeMap<String, Arc<Route>>>,
}

/// What putting a route did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// There was none of this name.
    New,
    /// The one before is gone; sessions that it gave a model keep it until they name another.
    Replaced,
}

/// Why a route was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// Nothing can have this name.
    #[error("no route can have this name; legal are {}", route::LEGAL_NAME)]
    Name,
    /// It contradicts itself, whatever models are loaded.
    #[error("{}", mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Mistakes {
        /// All of them.
        mistakes: Vec<Mistake>,
    },
    /// A model has this name.
    #[error("a loaded model has the name `{name}`; choose another for the route")]
    NameTaken {
        /// The name.
        name: String,
    },
    /// It names models that are not loaded.
    #[error("no loaded model is called {}", models.iter().map(|model| format!("`{model}`")).collect::<Vec<_>>().join(", "))]
    UnknownModels {
        /// All of them.
        models: Vec<String>,
    },
    /// Its models do not do the same, or what they do can be neither fused nor compared.
    #[error("the models {}: {reason}", models.iter().map(|model| format!("`{model}`")).collect::<Vec<_>>().join(", "))]
    Tasks {
        /// Those that do not fit.
        models: Vec<String>,
        /// What is the matter, and what to do.
        reason: &'static str,
    },
    /// There are [`MAX_ROUTES`] already.
    #[error("there are {MAX_ROUTES} routes already; remove one first")]
    TooMany,
}

impl Routes {
    /// Adds a route, or replaces the one of this name. `task` tells the task of the model of a name, with or without its
    /// version, if there is one.
    ///
    /// # Errors
    /// [`RouteError`]; the routes then stay as they are.
    pub fn put(&self, name: &str, route: Route, task: impl Fn(&str) -> Option<Task>) -> Result<Put, RouteError> {
        if !route::is_name(name) {
            return Err(RouteError::Name);
        }
        let mistakes = route.mistakes();
        if !mistakes.is_empty() {
            return Err(RouteError::Mistakes { mistakes });
        }
        if task(name).is_some() {
            return Err(RouteError::NameTaken { name: name.to_owned() });
        }
        let named = route.models().chain(route.shadow());
        let unknown: Vec<String> = named.filter(|model| task(model).is_none()).map(str::to_owned).collect();
        if !unknown.is_empty() {
            return Err(RouteError::UnknownModels { models: unknown });
        }
        check_tasks(&route, task)?;
        let mut routes = self.lock();
        if routes.len() >= MAX_ROUTES && !routes.contains_key(name) {
            return Err(RouteError::TooMany);
        }
        let before = routes.insert(name.to_owned(), Arc::new(route));
        Ok(if before.is_some() { Put::Replaced } else { Put::New })
    }

    /// Takes a route out; sessions that it gave a model keep it until they name another.
    pub fn remove(&self, name: &str) -> Option<Arc<Route>> {
        self.lock().remove(name)
    }

    /// The route of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Arc<Route>> {
        self.lock().get(name).cloned()
    }

    /// All of them by name.
    #[must_use]
    pub fn list(&self) -> Vec<(String, Arc<Route>)> {
        self.lock().iter().map(|(name, route)| (name.clone(), Arc::clone(route))).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Route>>> {
        self.by_name.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sessions of a route get results of one kind, only boxes can be fused, and a shadow's boxes are compared with the answer's.
fn check_tasks(route: &Route, task: impl Fn(&str) -> Option<Task>) -> Result<(), RouteError> {
    let refuse = |models: Vec<&str>, reason| {
        if models.is_empty() {
            return Ok(());
        }
        Err(RouteError::Tasks { models: models.into_iter().map(str::to_owned).collect(), reason })
    };
    if let Route::Ensemble { .. } = route {
        let others = route.models().filter(|model| task(model) != Some(Task::Detect)).collect();
        refuse(others, "only models of the task detect can be fused; leave these out")?;
    }
    let first = route.models().next().and_then(&task);
    let others = route.models().filter(|model| task(model) != first).collect();
    refuse(others, "all models of a route need the same task; make a route for each task")?;
    let compared = route.models().chain(route.shadow()).filter(|_| route.shadow().is_some());
    let others = compared.filter(|model| !task(model).is_some_and(Task::has_boxes)).collect();
    refuse(others, "a shadow is compared by its boxes, and these find none; leave the shadow out")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;
    use crate::route::{Fusion, Share};

    fn task(name: &str) -> Option<Task> {
        let tasks = [("digits", Task::Classify), ("streets", Task::Segment), ("faces", Task::Pose)];
        let detector = ["a", "a@1", "a@2", "b", "b@1"].contains(&name).then_some(Task::Detect);
        detector.or_else(|| tasks.iter().find(|(other, _)| *other == name).map(|(_, task)| *task))
    }

    fn ensemble(models: &[&str]) -> Route {
        Route::Ensemble { models: models.iter().map(|&model| model.into()).collect(), fusion: Fusion::Wbf }
    }

    fn put(routes: &Routes, name: &str, route: Route) -> Result<Put, RouteError> {
        routes.put(name, route, task)
    }

    #[test]
    fn routes_are_put_replaced_listed_and_removed() {
        let routes = Routes::default();
        assert_eq!(put(&routes, "both", ensemble(&["a", "b"])), Ok(Put::New));
        assert_eq!(put(&routes, "again", ensemble(&["a@1", "a@2"])), Ok(Put::New));
        assert_eq!(put(&routes, "both", ensemble(&["b", "a"])), Ok(Put::Replaced));
        assert_eq!(*routes.get("both").unwrap(), ensemble(&["b", "a"]));
        assert_eq!(routes.list().into_iter().map(|(name, _)| name).collect::<Vec<_>>(), ["again", "both"]);
        assert_eq!(routes.remove("both").as_deref(), Some(&ensemble(&["b", "a"])));
        assert_eq!((routes.remove("both"), routes.get("both")), (None, None));
    }

    #[test]
    fn what_is_wrong_changes_nothing() {
        let routes = Routes::default();
        put(&routes, "r", ensemble(&["a", "b"])).unwrap();
        for name in ["", "../r", "R", "a@1", ".r", &"r".repeat(65)] {
            assert_eq!(put(&routes, name, ensemble(&["a", "b"])), Err(RouteError::Name), "{name}");
        }
        assert!(matches!(put(&routes, "r", ensemble(&["a"])), Err(RouteError::Mistakes { .. })));
        assert_eq!(put(&routes, "b", ensemble(&["a", "b"])), Err(RouteError::NameTaken { name: "b".into() }));
        let shares = vec![Share { model: "c".into(), weight: 1 }, Share { model: "a".into(), weight: 1 }];
        let error = put(&routes, "r", Route::Split { shares, shadow: Some("r".into()) }).unwrap_err();
        assert_eq!(error.to_string(), "no loaded model is called `c`, `r`", "a route is no model");
        assert_eq!(*routes.get("r").unwrap(), ensemble(&["a", "b"]));
    }

    #[test]
    fn models_of_a_route_do_the_same_and_what_is_compared_has_boxes() {
        let routes = Routes::default();
        let share = |model: &str| Share { model: model.into(), weight: 1 };
        let split = |models: &[&str], shadow: Option<&str>| Route::Split {
            shares: models.iter().copied().map(share).collect(),
            shadow: shadow.map(str::to_owned),
        };
        for (route, models, part) in [
            (ensemble(&["a", "digits"]), vec!["digits"], "can be fused"),
            (ensemble(&["faces", "streets"]), vec!["faces", "streets"], "can be fused"),
            (split(&["a", "digits", "b"], None), vec!["digits"], "the same task"),
            (split(&["digits"], Some("digits")), vec!["digits", "digits"], "leave the shadow out"),
            (split(&["a"], Some("streets")), vec!["streets"], "leave the shadow out"),
        ] {
            let error = put(&routes, "r", route).unwrap_err();
            assert!(error.to_string().contains(part), "{error}");
            assert!(matches!(error, RouteError::Tasks { models: found, .. } if found == models));
        }
        assert_eq!(put(&routes, "r", split(&["streets"], None)), Ok(Put::New));
        assert_eq!(put(&routes, "r", split(&["faces"], Some("a"))), Ok(Put::Replaced));
    }

    #[test]
    fn there_is_a_bound() {
        let routes = Routes::default();
        for number in 0..MAX_ROUTES {
            put(&routes, &format!("r{number}"), ensemble(&["a", "b"])).unwrap();
        }
        assert_eq!(put(&routes, "more", ensemble(&["a", "b"])), Err(RouteError::TooMany));
        assert_eq!(put(&routes, "r0", ensemble(&["b", "a"])), Ok(Put::Replaced));
    }
}

//! Routes: names that sessions ask for like models, and that stand for several of them.
//!
//! A leaf: the value types of a route and the rules that each route keeps by itself. Which models are loaded is known
//! to `infer`.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::RangeInclusive;

use sha2::{Digest, Sha256};

/// Shares that a split may have.
pub const SHARES: RangeInclusive<usize> = 1..=16;
/// Legal weights of a share.
pub const WEIGHT: RangeInclusive<u32> = 0..=1000;
/// Models that an ensemble may have.
pub const MEMBERS: RangeInclusive<usize> = 2..=4;
/// What a name has to be, in words.
pub const LEGAL_NAME: &str = "up to 64 of a-z, 0-9, `-`, `_`, `.`, no dot first";

/// What names a model, in words.
pub const LEGAL_MODEL: &str = "a model as NAME or NAME@VERSION";

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// Each session gets one of the models.
    Split {
        /// The models and how many sessions each gets.
        shares: Vec<Share>,
        /// A model that runs beside the session's own and is only compared with it.
        shadow: Option<String>,
    },
    /// Each frame goes through all of the models, and what they find becomes one list.
    Ensemble {
        /// The models, as `NAME` or `NAME@VERSION`.
        models: Vec<String>,
        /// How.
        fusion: Fusion,
    },
}

/// One model of a split.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// The model, as `NAME` or `NAME@VERSION`.
    pub model: String,
    /// Its part of the sessions, out of the sum of all weights. With 0 it gets none.
    pub weight: u32,
}

/// How detections of several models become one list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Fusion {
    /// Weighted boxes fusion.
    #[default]
    Wbf,
}

/// Something that a route may not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Where, such as `split[2].weight`.
    pub key: String,
    /// The value there.
    pub value: String,
    /// What would be legal.
    pub legal: String,
}

impl Route {
    /// Everything that is wrong with it, whatever models are loaded.
    #[must_use]
    pub fn mistakes(&self) -> Vec<Mistake> {
        let mut mistakes = Vec::new();
        match self {
            Self::Split { shares, shadow } => {
                count("split", shares.len(), &SHARES, &mut mistakes);
                for (index, share) in shares.iter().enumerate() {
                    if !WEIGHT.contains(&share.weight) {
                        let legal = format!("must be a whole number from {} to {}", WEIGHT.start(), WEIGHT.end());
                        mistakes.push(Mistake::new(format!("split[{index}].weight"), share.weight, legal));
                    }
                }
                if !shares.is_empty() && shares.iter().all(|share| share.weight == 0) {
                    mistakes.push(Mistake::new("split", "weights of 0", "must have a weight above 0".to_owned()));
                }
                let key = |index| format!("split[{index}].model");
                names(key, shares.iter().map(|share| share.model.as_str()), &mut mistakes);
                names(|_| "shadow".to_owned(), shadow.as_deref().into_iter(), &mut mistakes);
            }
            Self::Ensemble { models, fusion: Fusion::Wbf } => {
                count("ensemble", models.len(), &MEMBERS, &mut mistakes);
                let key = |index| format!("ensemble[{index}]");
                names(key, models.iter().map(String::as_str), &mut mistakes);
            }
        }
        mistakes
    }

    /// The models that answer sessions, in the order in which the route names them.
    pub fn models(&self) -> impl Iterator<Item = &str> {
        let (shares, models): (&[Share], &[String]) = match self {
            Self::Split { shares, .. } => (shares, &[]),
            Self::Ensemble { models, .. } => (&[], models),
        };
        shares.iter().map(|share| share.model.as_str()).chain(models.iter().map(String::as_str))
    }

    /// The model that is only compared, if any.
    #[must_use]
    pub fn shadow(&self) -> Option<&str> {
        match self {
            Self::Split { shadow, .. } => shadow.as_deref(),
            Self::Ensemble { .. } => None,
        }
    }
}

impl Fusion {
    /// As it is written in configuration and requests.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Wbf => "wbf",
        }
    }
}

impl Mistake {
    fn new(key: impl Into<String>, value: impl fmt::Display, legal: String) -> Self {
        Self { key: key.into(), value: value.to_string(), legal }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` = {}: {}", self.key, self.value, self.legal)
    }
}

/// Index of the share that a session gets: always the same one for the same route, key and shares, and one that falls to each in
/// proportion to its weight. A weight that changes moves only the sessions whose share it takes or gives. `None` where
/// no weight is above 0.
#[must_use]
pub fn draw(shares: &[Share], route: &str, key: &str) -> Option<usize> {
    let total: u64 = shares.iter().map(|share| u64::from(share.weight)).sum();
    // No name has a zero byte, so that no two pairs are hashed alike.
    let hash = Sha256::new().chain_update(route).chain_update([0]).chain_update(key).finalize();
    let point = hash.iter().take(8).fold(0u64, |number, byte| number << 8 | u64::from(*byte));
    // The point's place on a line as long as the sum of the weights.
    let mut place = u64::try_from((u128::from(point) * u128::from(total)) >> 64).unwrap_or(u64::MAX);
    shares.iter().position(|share| {
        let weight = u64::from(share.weight);
        let falls_here = place < weight;
        place = place.saturating_sub(weight);
        falls_here
    })
}

/// Whether it can name a model or a route: see [`LEGAL_NAME`].
#[must_use]
pub fn is_name(text: &str) -> bool {
    let legal = |one: char| one.is_ascii_lowercase() || one.is_ascii_digit() || matches!(one, '-' | '_' | '.');
    !text.is_empty() && text.len() <= 64 && text.chars().all(legal) && !text.starts_with('.')
}

/// Whether a model can be asked for like this: by its name, with or without its version.
#[must_use]
pub fn is_model(text: &str) -> bool {
    text.split_once('@').map_or_else(|| is_name(text), |(name, version)| is_name(name) && is_name(version))
}

fn count(key: &str, count: usize, range: &RangeInclusive<usize>, mistakes: &mut Vec<Mistake>) {
    if !range.contains(&count) {
        let legal = format!("must name {} to {} models", range.start(), range.end());
        mistakes.push(Mistake::new(key, format!("{count} models"), legal));
    }
}

fn names<'a>(key: impl Fn(usize) -> String, models: impl Iterator<Item = &'a str>, mistakes: &mut Vec<Mistake>) {
    let mut seen = BTreeSet::new();
    for (index, model) in models.enumerate() {
        let wrong = if !is_model(model) {
            format!("must be {LEGAL_MODEL}, each {LEGAL_NAME}")
        } else if !seen.insert(model) {
            "must not be named twice".to_owned()
        } else {
            continue;
        };
        let shown: String = model.chars().take(64).collect();
        mistakes.push(Mistake::new(key(index), format!("{shown:?}"), wrong));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shares(weights: &[u32]) -> Vec<Share> {
        let share = |(index, weight): (usize, &u32)| Share { model: format!("m@{index}"), weight: *weight };
        weights.iter().enumerate().map(share).collect()
    }

    fn drawn(shares: &[Share], key: usize) -> &str {
        &shares[draw(shares, "route", &format!("session-{key}")).unwrap()].model
    }

    #[test]
    fn sessions_are_drawn_in_proportion_and_always_alike() {
        let shares = shares(&[60, 0, 30, 10]);
        let mut counts = [0usize; 4];
        for key in 0..10_000 {
            let model = drawn(&shares, key);
            assert_eq!(model, drawn(&shares, key));
            counts[model[2..].parse::<usize>().unwrap()] += 1;
        }
        for (count, expected) in counts.into_iter().zip([6_000usize, 0, 3_000, 1_000]) {
            assert!(count.abs_diff(expected) < 200, "{counts:?}");
        }
        assert_eq!(counts[1], 0);
    }

    /// The draw is part of what operators rely on: it may not change from one build to the next. The place of this key
    /// was computed with `sha256sum`.
    #[test]
    fn a_draw_stays_what_it_was() {
        // sha256("route\0session-0") begins with c84f9ffaf654ed8f, which is 0.78 of 2^64.
        let sixteen = shares(&[1; 16]);
        assert_eq!(drawn(&sixteen, 0), "m@12");
    }

    #[test]
    fn another_weight_moves_only_the_sessions_it_has_to() {
        let (before, after) = (shares(&[90, 10]), shares(&[80, 20]));
        let moved = (0..10_000).filter(|key| drawn(&before, *key) != drawn(&after, *key)).collect::<Vec<_>>();
        assert!(moved.len().abs_diff(1_000) < 150, "{}", moved.len());
        assert!(moved.iter().all(|key| drawn(&after, *key) == "m@1"), "none moves the other way");
        let doubled = shares(&[180, 20]);
        assert!((0..1_000).all(|key| drawn(&before, key) == drawn(&doubled, key)), "weights are relative");
    }

    #[test]
    fn routes_are_drawn_from_independently() {
        let half = shares(&[1, 1]);
        let alike = (0..10_000).filter(|key| {
            let key = key.to_string();
            draw(&half, "a", &key) == draw(&half, "b", &key)
        });
        assert!(alike.count().abs_diff(5_000) < 250);
        assert_eq!(draw(&shares(&[0, 0]), "a", "key"), None);
        assert_eq!(draw(&[], "a", "key"), None);
    }

    #[test]
    fn each_mistake_names_its_key_its_value_and_what_is_legal() {
        let split = |shares: Vec<Share>, shadow: Option<&str>| Route::Split { shares, shadow: shadow.map(Into::into) };
        let ensemble = |models: &[&str]| Route::Ensemble {
            models: models.iter().map(|&model| model.into()).collect(),
            fusion: Fusion::Wbf,
        };
        let named = |model: &str| vec![Share { model: model.into(), weight: 1 }];
        for (route, expected) in [
            (split(shares(&[]), None), "`split` = 0 models: must name 1 to 16 models"),
            (split(shares(&[1; 17]), None), "`split` = 17 models: must name 1 to 16 models"),
            (split(shares(&[1, 1001]), None), "`split[1].weight` = 1001: must be a whole number from 0 to 1000"),
            (split(shares(&[0, 0]), None), "`split` = weights of 0: must have a weight above 0"),
            (split(named("../x"), None), "`split[0].model` = \"../x\": must be a model as NAME or NAME@VERSION"),
            (split(named("a@"), None), "`split[0].model` = \"a@\": must be a model"),
            (split(named("a@1@2"), None), "`split[0].model` = \"a@1@2\": must be a model"),
            (split([named("a"), named("a")].concat(), None), "`split[1].model` = \"a\": must not be named twice"),
            (split(named("a"), Some("")), "`shadow` = \"\": must be a model"),
            (ensemble(&["a"]), "`ensemble` = 1 models: must name 2 to 4 models"),
            (ensemble(&["a", "b", "c", "d", "e"]), "`ensemble` = 5 models: must name 2 to 4 models"),
            (ensemble(&["a", "b", "a"]), "`ensemble[2]` = \"a\": must not be named twice"),
        ] {
            let mistakes: Vec<String> = route.mistakes().iter().map(ToString::to_string).collect();
            assert!(mistakes.len() == 1 && mistakes[0].starts_with(expected), "{expected} is not {mistakes:?}");
        }
        let many = split(vec![Share { model: "A".into(), weight: 5_000 }; 2], Some("B"));
        assert_eq!(many.mistakes().len(), 5, "{:?}", many.mistakes());
        assert_eq!(split(shares(&[0, 1000]), Some("m@0")).mistakes(), []);
        assert_eq!(ensemble(&["a", "a@2"]).mistakes(), []);
    }

    proptest! {
        #[test]
        fn whoever_is_drawn_has_a_weight(weights in prop::collection::vec(0u32..=1000, 1..16), key in ".*") {
            let shares = shares(&weights);
            match draw(&shares, "route", &key) {
                Some(index) => prop_assert!(shares[index].weight > 0),
                None => prop_assert!(weights.iter().all(|weight| *weight == 0)),
            }
        }
    }
}

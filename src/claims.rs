//! What a bearer of a token or of an API key may do.
//!
//! A leaf: the claims themselves. `token` writes them, `config` reads those of API keys, `http` checks them, `session`
//! carries them to whoever owns a session.

use std::time::Instant;

use serde::{Deserialize, Deserializer, Serialize};

/// Names of all claims, as they are written.
pub const NAMES: [&str; 9] = [
    "sub",
    "session",
    "can_publish",
    "can_view",
    "can_configure",
    "can_manage_models",
    "models",
    "max_sessions",
    "priority",
];

/// What a bearer may do. A permission that is missing is not given; a bound that is missing does not bind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Whom they were made for. Bearers without it pass for one another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sub: Option<String>,
    /// The one session that they are for, if they are for one: any other is not there for its bearer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// Send video, and end the sessions that this subject opened.
    #[serde(default)]
    pub can_publish: bool,
    /// See sessions and their results.
    #[serde(default)]
    pub can_view: bool,
    /// Change options while a session runs, and end sessions of others.
    #[serde(default)]
    pub can_configure: bool,
    /// Load, unload and route models.
    #[serde(default)]
    pub can_manage_models: bool,
    /// Models and routes that may be used, as `NAME` or `NAME@VERSION`; if there are none, all of them.
    #[serde(default, deserialize_with = "or_none", skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<String>,
    /// Sessions that the subject may have at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_sessions: Option<u32>,
    /// How much of a model's time the bearer's sessions get when there is not enough for all.
    #[serde(default, skip_serializing_if = "Priority::is_normal")]
    pub priority: Priority,
    /// When they end; `None`: never.
    #[serde(skip)]
    pub expires: Option<Instant>,
}

/// How much of a model's time a session gets when there is not enough for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// A quarter of what others get.
    Low,
    /// What everybody gets who states nothing.
    #[default]
    Normal,
    /// Four times as much as others get.
    High,
}

impl Priority {
    fn is_normal(&self) -> bool {
        *self == Self::Normal
    }
}

impl Claims {
    /// What everybody may do where there is no authentication.
    #[must_use]
    pub fn everything() -> Self {
        Self { can_publish: true, can_view: true, can_configure: true, can_manage_models: true, ..Self::default() }
    }

    /// Whether the bearer may use this model or route, `NAME` or `NAME@VERSION`.
    #[must_use]
    pub fn may_use(&self, model: &str) -> bool {
        let name = model.split_once('@').map_or(model, |(name, _)| name);
        self.models.is_empty() || self.models.iter().any(|allowed| allowed == model || allowed == name)
    }

    /// Whether the session of this id is there for the bearer.
    #[must_use]
    pub fn may_know(&self, session: &str) -> bool {
        self.session.as_ref().is_none_or(|bound| bound == session)
    }

    /// Whether the bearer may end a session of this publisher.
    #[must_use]
    pub fn may_end(&self, publisher: Option<&str>) -> bool {
        self.can_configure || (self.can_publish && self.sub.as_deref() == publisher)
    }

    /// Whether they have ended.
    #[must_use]
    pub fn have_expired(&self, now: Instant) -> bool {
        self.expires.is_some_and(|expires| now >= expires)
    }
}

/// `null` says the same as nothing.
fn or_none<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_names_are_those_of_the_fields() {
        let full = Claims {
            sub: Some("a".into()),
            session: Some("b".into()),
            models: vec!["c".into()],
            max_sessions: Some(1),
            priority: Priority::High,
            ..Claims::everything()
        };
        let value = serde_json::to_value(&full).unwrap();
        let mut names: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
        let mut expected = NAMES;
        names.sort_unstable();
        expected.sort_unstable();
        assert_eq!(names, expected);
        assert_eq!(serde_json::from_value::<Claims>(value).unwrap(), full);
    }

    #[test]
    fn models_are_named_with_or_without_their_version() {
        let of = |models: serde_json::Value| serde_json::from_value::<Claims>(json!({"models": models})).unwrap();
        for nothing in [json!(null), json!([])] {
            assert!(of(nothing).may_use("anything"));
        }
        let claims = of(json!(["ppe", "yolo@2"]));
        for (model, may) in [("ppe", true), ("ppe@7", true), ("yolo@2", true), ("yolo", false), ("yolo@3", false)] {
            assert_eq!(claims.may_use(model), may, "{model}");
        }
        assert!(serde_json::from_value::<Claims>(json!({"models": "ppe"})).is_err());
    }

    #[test]
    fn a_publisher_ends_its_own_sessions_only() {
        let camera = Claims { sub: Some("a".into()), can_publish: true, ..Claims::default() };
        assert!(camera.may_end(Some("a")) && !camera.may_end(Some("b")) && !camera.may_end(None));
        assert!(Claims { can_configure: true, ..Claims::default() }.may_end(Some("b")));
        assert!(Claims::everything().may_end(None));
    }
}

//! Who may do what: JSON Web Tokens (RFC 7519) signed with a shared secret (HS256).

use std::fmt;

use axum::http::{HeaderMap, header};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use saccade_signaling::ErrorCode;
use serde::{Deserialize, Serialize};

use super::{Context, Problem};
use crate::session::Priority;

/// Seconds by which the clocks of the issuer and of this machine may differ.
const LEEWAY_S: u64 = 10;
/// Shortest secret that HS256 should have, in bytes (RFC 7518 section 3.2).
pub const MIN_SECRET_BYTES: usize = 32;

/// How tokens are checked.
#[derive(Clone)]
pub struct Settings {
    /// The shared secret.
    pub secret: Vec<u8>,
    /// `iss` that a token must have, if any.
    pub issuer: Option<String>,
    /// `aud` that a token must have, if any.
    pub audience: Option<String>,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("issuer", &self.issuer)
            .field("audience", &self.audience)
            .finish_non_exhaustive()
    }
}

/// The authentication settings cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// An empty secret lets everybody in.
    #[error("the secret for tokens is empty")]
    EmptySecret,
}

/// What a token allows. A claim that is missing allows nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Whom it was made for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sub: Option<String>,
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
    /// How much of a model's time the bearer's sessions get when there is not enough for all.
    #[serde(default)]
    pub priority: Priority,
}

impl Claims {
    /// What everybody may do where there is no authentication.
    #[must_use]
    pub const fn everything() -> Self {
        Self {
            sub: None,
            can_publish: true,
            can_view: true,
            can_configure: true,
            can_manage_models: true,
            priority: Priority::Normal,
        }
    }

    /// Passes if `allowed`, and else says which claim is missing.
    pub(super) fn require(allowed: bool, claim: &str) -> Result<(), Problem> {
        if allowed {
            return Ok(());
        }
        Err(Problem::new(ErrorCode::Forbidden, format!("The token lacks `{claim}`; ask for one that has it.")))
    }

    /// Whether the bearer may end a viewer that this subject opened.
    pub(super) fn may_end_viewer(&self, subject: Option<&str>) -> bool {
        self.can_configure || (self.can_view && self.sub.as_deref() == subject)
    }

    /// Whether the bearer may end a session of this publisher.
    pub(super) fn may_end(&self, publisher: Option<&str>) -> bool {
        self.can_configure || (self.can_publish && self.sub.as_deref() == publisher)
    }
}

/// Checks tokens.
pub struct Verifier {
    key: DecodingKey,
    validation: Validation,
}

impl Verifier {
    /// A verifier.
    ///
    /// # Errors
    ///
    /// [`Error::EmptySecret`].
    pub fn new(settings: &Settings) -> Result<Self, Error> {
        if settings.secret.is_empty() {
            return Err(Error::EmptySecret);
        }
        if settings.secret.len() < MIN_SECRET_BYTES {
            tracing::warn!(bytes = settings.secret.len(), "the secret for tokens is short; use 32 bytes or more");
        }
        let mut validation = Validation::new(Algorithm::HS256);
        validation.leeway = LEEWAY_S;
        validation.validate_nbf = true;
        // The library checks these claims only where they are present, unless they are also required.
        validation.validate_aud = settings.audience.is_some();
        let mut required = vec!["exp"];
        if let Some(issuer) = &settings.issuer {
            validation.set_issuer(&[issuer]);
            required.push("iss");
        }
        if let Some(audience) = &settings.audience {
            validation.set_audience(&[audience]);
            required.push("aud");
        }
        validation.set_required_spec_claims(&required);
        Ok(Self { key: DecodingKey::from_secret(&settings.secret), validation })
    }

    /// What the token allows; `None` when it is not valid. Why not is for the log alone.
    #[must_use]
    pub fn verify(&self, token: &str) -> Option<Claims> {
        match jsonwebtoken::decode::<Claims>(token, &self.key, &self.validation) {
            Ok(token) => Some(token.claims),
            Err(error) => {
                tracing::debug!(%error, "a token was refused");
                None
            }
        }
    }
}

impl Context {
    /// What this request's `Authorization` header allows; `None` where there is no header and one is needed.
    pub(super) fn header_claims(&self, headers: &HeaderMap) -> Result<Option<Claims>, Problem> {
        let Some(verifier) = &self.verifier else { return Ok(Some(Claims::everything())) };
        let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
        let token = value.to_str().ok().and_then(|value| value.split_once(' '));
        let token = token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, token)| token.trim());
        match token.and_then(|token| verifier.verify(token)) {
            Some(claims) => Ok(Some(claims)),
            None => Err(unauthorized()),
        }
    }

    /// What this request's token allows.
    pub(super) fn claims(&self, headers: &HeaderMap) -> Result<Claims, Problem> {
        self.header_claims(headers)?.ok_or_else(unauthorized)
    }
}

fn unauthorized() -> Problem {
    Problem::new(ErrorCode::Unauthorized, "Send `Authorization: Bearer` with a valid token.")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
pub(super) mod tests {
    use jsonwebtoken::{EncodingKey, Header};
    use serde_json::{Value, json};

    use super::*;

    pub(crate) const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

    pub(crate) fn settings() -> Settings {
        Settings { secret: SECRET.to_vec(), issuer: None, audience: None }
    }

    pub(crate) fn in_seconds(seconds: i64) -> i64 {
        let now = crate::clock::wall().duration_since(std::time::UNIX_EPOCH).unwrap();
        i64::try_from(now.as_secs()).unwrap() + seconds
    }

    pub(crate) fn token(algorithm: Algorithm, secret: &[u8], claims: &Value) -> String {
        jsonwebtoken::encode(&Header::new(algorithm), claims, &EncodingKey::from_secret(secret)).unwrap()
    }

    fn check(settings: &Settings, claims: &Value) -> Option<Claims> {
        Verifier::new(settings).unwrap().verify(&token(Algorithm::HS256, SECRET, claims))
    }

    #[test]
    fn claims_default_to_false() {
        let claims = check(&settings(), &json!({"exp": in_seconds(60), "sub": "cam", "can_publish": true})).unwrap();
        assert_eq!(claims, Claims { sub: Some("cam".into()), can_publish: true, ..Claims::default() });
    }

    #[test]
    fn a_token_expires_and_must_say_when() {
        assert_eq!(check(&settings(), &json!({"can_view": true})), None);
        assert_eq!(check(&settings(), &json!({"exp": in_seconds(-60)})), None);
        assert_eq!(check(&settings(), &json!({"exp": in_seconds(60), "nbf": in_seconds(30)})), None);
    }

    #[test]
    fn issuer_and_audience_are_needed_where_they_are_configured() {
        let strict = Settings { issuer: Some("us".into()), audience: Some("saccade".into()), ..settings() };
        let exp = in_seconds(60);
        assert!(check(&strict, &json!({"exp": exp, "iss": "us", "aud": "saccade"})).is_some());
        assert!(check(&strict, &json!({"exp": exp, "iss": "us"})).is_none());
        assert!(check(&strict, &json!({"exp": exp, "aud": "saccade"})).is_none());
        assert!(check(&strict, &json!({"exp": exp, "iss": "them", "aud": "saccade"})).is_none());
        assert!(check(&settings(), &json!({"exp": exp, "aud": "anything"})).is_some());
    }

    #[test]
    fn other_secrets_and_algorithms_are_refused() {
        let verifier = Verifier::new(&settings()).unwrap();
        let claims = json!({"exp": in_seconds(60)});
        assert!(verifier.verify(&token(Algorithm::HS256, b"another secret of thirty-two bytes", &claims)).is_none());
        assert!(verifier.verify(&token(Algorithm::HS512, SECRET, &claims)).is_none());
        let unsigned =
            format!("eyJhbGciOiJub25lIn0.{}.", token(Algorithm::HS256, SECRET, &claims).split('.').nth(1).unwrap());
        assert!(verifier.verify(&unsigned).is_none());
        assert!(verifier.verify("nonsense").is_none());
        assert_eq!(Verifier::new(&Settings { secret: Vec::new(), ..settings() }).err(), Some(Error::EmptySecret));
    }

    #[test]
    fn a_publisher_ends_its_own_sessions_only() {
        let camera = Claims { sub: Some("a".into()), can_publish: true, ..Claims::default() };
        assert!(camera.may_end(Some("a")) && !camera.may_end(Some("b")) && !camera.may_end(None));
        assert!(Claims { can_configure: true, ..Claims::default() }.may_end(Some("b")));
        assert!(Claims::everything().may_end(None));
    }
}

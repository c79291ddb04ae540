//! Tokens: JWTs (RFC 7519) signed with HS256, made by `saccade token` and checked by the server.
//!
//! Pure: the time comes in as an argument. Every permission is false unless the token says true, and a token without
//! an end is none.

use std::collections::HashSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Deserializer, Serialize};

use crate::config::Auth;

/// How far the clocks of the one who signs and of the server may be apart.
pub const LEEWAY: Duration = Duration::from_secs(30);

/// What a token says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Whom it speaks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sub: Option<String>,
    /// Who made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iss: Option<String>,
    /// For whom it was made.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "one_or_many")]
    pub aud: Vec<String>,
    /// When it was made, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iat: Option<u64>,
    /// From when it counts, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nbf: Option<u64>,
    /// When it ends, in seconds since 1970.
    pub exp: u64,
    /// The one session that it is for; absent: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// Whether its bearer may open sessions.
    #[serde(default)]
    pub can_publish: bool,
    /// Whether its bearer may watch sessions and their results.
    #[serde(default)]
    pub can_view: bool,
    /// Whether its bearer may change the options of sessions.
    #[serde(default)]
    pub can_configure: bool,
    /// Whether its bearer may load and unload models.
    #[serde(default)]
    pub can_manage_models: bool,
}

/// Why a token was not made or not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Its form, algorithm or signature is wrong, or a claim is missing or of the wrong type.
    #[error("the token is malformed or signed with another key")]
    Invalid,
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
    /// Its time has not come.
    #[error("the token is not valid yet")]
    TooEarly,
    /// It was made for another server.
    #[error("the token is for another audience")]
    Audience,
    /// It was made by someone else.
    #[error("the token is from another issuer")]
    Issuer,
    /// It could not be signed.
    #[error("the token could not be signed")]
    Signing,
}

impl Claims {
    /// Claims that end `ttl` after `now`, with what `[auth]` asks for and no permission.
    #[must_use]
    pub fn new(auth: &Auth, now: SystemTime, ttl: Duration) -> Self {
        let now = seconds(now);
        Self {
            iss: auth.issuer.clone(),
            aud: auth.audience.clone().into_iter().collect(),
            iat: Some(now),
            exp: now.saturating_add(ttl.as_secs()),
            ..Self::default()
        }
    }

    /// Signs the claims.
    ///
    /// # Errors
    /// [`Error::Signing`].
    pub fn sign(&self, auth: &Auth) -> Result<String, Error> {
        let key = EncodingKey::from_secret(auth.secret.expose().as_bytes());
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), self, &key).map_err(|_| Error::Signing)
    }

    /// Checks a token and gives its claims.
    ///
    /// # Errors
    /// [`Error`] says what is wrong with it.
    pub fn check(token: &str, auth: &Auth, now: SystemTime) -> Result<Self, Error> {
        // Only the signature and the presence of `exp` are left to the library: it would ask for the time itself.
        let mut validation = Validation::new(Algorithm::HS256);
        validation.validate_exp = false;
        validation.validate_aud = false;
        validation.required_spec_claims = HashSet::from(["exp".to_owned()]);
        let key = DecodingKey::from_secret(auth.secret.expose().as_bytes());
        let claims = jsonwebtoken::decode::<Self>(token, &key, &validation).map_err(|_| Error::Invalid)?.claims;
        let now = seconds(now);
        if claims.exp.saturating_add(LEEWAY.as_secs()) <= now {
            return Err(Error::Expired);
        }
        if claims.nbf.is_some_and(|from| from > now.saturating_add(LEEWAY.as_secs())) {
            return Err(Error::TooEarly);
        }
        if auth.audience.as_ref().is_some_and(|audience| !claims.aud.contains(audience)) {
            return Err(Error::Audience);
        }
        if auth.issuer.is_some() && claims.iss != auth.issuer {
            return Err(Error::Issuer);
        }
        Ok(claims)
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// `aud` is one text or a list of them (RFC 7519 section 4.1.3).
fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
    }
    Ok(match OneOrMany::deserialize(deserializer)? {
        OneOrMany::One(one) => vec![one],
        OneOrMany::Many(many) => many,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;
    use crate::config::{Config, Sources};

    const NOW: Duration = Duration::from_secs(1_800_000_000);
    const HOUR: Duration = Duration::from_secs(3600);

    fn now() -> SystemTime {
        UNIX_EPOCH + NOW
    }

    fn auth(secret: &str, issuer: &str, audience: &str) -> Auth {
        let mut sources = Sources::default();
        for (key, value) in [("auth.secret", secret), ("auth.issuer", issuer), ("auth.audience", audience)] {
            if !value.is_empty() {
                sources.flag(key, "--set", value);
            }
        }
        Config::load(&sources).unwrap().auth.unwrap()
    }

    fn plain() -> Auth {
        auth("0123456789abcdef0123456789abcdef", "", "")
    }

    fn signed(claims: &serde_json::Value, algorithm: Algorithm) -> String {
        let key = EncodingKey::from_secret(plain().secret.expose().as_bytes());
        jsonwebtoken::encode(&Header::new(algorithm), claims, &key).unwrap()
    }

    #[test]
    fn what_is_signed_is_read_back_and_permissions_default_to_none() {
        let mut claims = Claims::new(&plain(), now(), HOUR);
        assert_eq!(claims.exp, NOW.as_secs() + 3600);
        assert!(!(claims.can_publish || claims.can_view || claims.can_configure || claims.can_manage_models));
        claims.can_view = true;
        claims.session = Some("s1".to_owned());
        let token = claims.sign(&plain()).unwrap();
        assert_eq!(Claims::check(&token, &plain(), now()), Ok(claims));
    }

    #[test]
    fn a_token_counts_until_its_end_and_a_little_longer() {
        let token = Claims::new(&plain(), now(), HOUR).sign(&plain()).unwrap();
        let at = |late: Duration| Claims::check(&token, &plain(), now() + HOUR + late).map(|_| ());
        assert_eq!(at(LEEWAY - Duration::from_secs(1)), Ok(()));
        assert_eq!(at(LEEWAY), Err(Error::Expired));

        let nbf = |nbf| signed(&serde_json::json!({"exp": NOW.as_secs() + 3600, "nbf": nbf}), Algorithm::HS256);
        let check = |token: String| Claims::check(&token, &plain(), now()).map(|_| ());
        assert_eq!(check(nbf(NOW.as_secs() + 30)), Ok(()));
        assert_eq!(check(nbf(NOW.as_secs() + 31)), Err(Error::TooEarly));
    }

    #[test]
    fn another_key_algorithm_or_form_is_refused() {
        let token = Claims::new(&plain(), now(), HOUR).sign(&plain()).unwrap();
        let other = auth("another secret of thirty-two bytes!", "", "");
        let exp = serde_json::json!({"exp": NOW.as_secs() + 3600});
        let (head, _) = token.rsplit_once('.').unwrap();
        for (token, auth) in [
            (token.as_str(), &other),
            (&signed(&exp, Algorithm::HS512), &plain()),
            (&signed(&serde_json::json!({"sub": "no end"}), Algorithm::HS256), &plain()),
            (&signed(&serde_json::json!({"exp": "never"}), Algorithm::HS256), &plain()),
            // {"alg":"none"}
            ("eyJhbGciOiJub25lIn0.eyJleHAiOjE4MDAwMDM2MDB9.", &plain()),
            (&format!("{head}."), &plain()),
            ("", &plain()),
        ] {
            assert_eq!(Claims::check(token, auth, now()), Err(Error::Invalid), "{token}");
        }
    }

    #[test]
    fn audience_and_issuer_are_checked_where_they_are_configured() {
        let secret = plain().secret.expose().to_owned();
        let strict = auth(&secret, "login", "saccade");
        let made = Claims::new(&strict, now(), HOUR);
        assert_eq!((made.iss.as_deref(), made.aud.as_slice()), (Some("login"), ["saccade".to_owned()].as_slice()));

        let exp = NOW.as_secs() + 3600;
        for (claims, outcome) in [
            (serde_json::json!({"exp": exp, "iss": "login", "aud": "saccade"}), Ok(())),
            (serde_json::json!({"exp": exp, "iss": "login", "aud": ["a", "saccade"]}), Ok(())),
            (serde_json::json!({"exp": exp, "iss": "login", "aud": "other"}), Err(Error::Audience)),
            (serde_json::json!({"exp": exp, "iss": "login"}), Err(Error::Audience)),
            (serde_json::json!({"exp": exp, "iss": "other", "aud": "saccade"}), Err(Error::Issuer)),
            (serde_json::json!({"exp": exp, "aud": "saccade"}), Err(Error::Issuer)),
        ] {
            let token = signed(&claims, Algorithm::HS256);
            assert_eq!(Claims::check(&token, &strict, now()).map(|_| ()), outcome, "{claims}");
        }
    }
}

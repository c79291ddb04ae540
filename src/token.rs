//! Tokens: JWTs (RFC 7519) signed with HS256, as `saccade token` makes them. `http::auth` checks them.
//!
//! Pure: the time comes in as an argument. Every permission is false unless it is given, and every token ends.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;

use crate::config::Auth;

/// What a token says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Claims {
    /// Whom it speaks for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sub: Option<String>,
    /// Who made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iss: Option<String>,
    /// For whom it was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aud: Option<String>,
    /// When it was made, in seconds since 1970.
    pub iat: u64,
    /// When it ends, in seconds since 1970.
    pub exp: u64,
    /// Whether its bearer may open sessions and steer them.
    pub can_publish: bool,
    /// Whether its bearer may watch sessions and their results.
    pub can_view: bool,
    /// Whether its bearer may change and end sessions of others.
    pub can_configure: bool,
    /// Whether its bearer may load and unload models.
    pub can_manage_models: bool,
    /// `low`, `normal` or `high`: how much of a model's time its bearer's sessions get when there is not enough for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<String>,
}

/// The token could not be signed.
#[derive(Debug, thiserror::Error)]
#[error("the token could not be signed: {0}")]
pub struct Error(#[from] jsonwebtoken::errors::Error);

impl Claims {
    /// Claims that end `ttl` after `now`, with what `[auth]` asks for and no permission.
    #[must_use]
    pub fn new(auth: &Auth, now: SystemTime, ttl: Duration) -> Self {
        let iat = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Self {
            iss: auth.issuer.clone(),
            aud: auth.audience.clone(),
            iat,
            exp: iat.saturating_add(ttl.as_secs()),
            ..Self::default()
        }
    }

    /// Signs the claims.
    ///
    /// # Errors
    /// [`Error`], which the library gives for no key of bytes.
    pub fn sign(&self, auth: &Auth) -> Result<String, Error> {
        let key = EncodingKey::from_secret(auth.secret.expose().as_bytes());
        Ok(jsonwebtoken::encode(&Header::new(Algorithm::HS256), self, &key)?)
    }
}

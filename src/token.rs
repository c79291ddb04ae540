//! Tokens: JWTs (RFC 7519) signed with HS256, as `saccade token` makes them, and API keys. `http::auth` checks both.
//!
//! Pure but for the random bytes of an API key: the time comes in as an argument. Every permission is false unless it is
//! given, and every token ends.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::claims::Claims;
use crate::config::Auth;
use crate::secret::Secret;

/// What a token says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Token {
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
    /// What its bearer may do.
    #[serde(flatten)]
    pub claims: Claims,
}

/// The token could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The library gives it for no key of bytes.
    #[error("the token could not be signed: {0}")]
    Signing(#[from] jsonwebtoken::errors::Error),
    /// The system gave no random bytes.
    #[error("there are no random bytes: {0}")]
    Random(#[from] getrandom::Error),
}

impl Token {
    /// A token that ends `ttl` after `now`, with what `[auth]` asks for.
    #[must_use]
    pub fn new(auth: &Auth, claims: Claims, now: SystemTime, ttl: Duration) -> Self {
        let iat = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let exp = iat.saturating_add(ttl.as_secs());
        Self { iss: auth.issuer.clone(), aud: auth.audience.clone(), iat, exp, claims }
    }

    /// Signs the token.
    ///
    /// # Errors
    /// [`Error::Signing`].
    pub fn sign(&self, secret: &Secret) -> Result<String, Error> {
        let key = EncodingKey::from_secret(secret.expose().as_bytes());
        Ok(jsonwebtoken::encode(&Header::new(Algorithm::HS256), self, &key)?)
    }
}

/// A new API key: 256 random bits. Whoever has it passes for its name, so that servers know its hash alone.
///
/// # Errors
/// [`Error::Random`].
pub fn api_key() -> Result<String, Error> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    Ok(format!("sk_{}", hexadecimal(&bytes)))
}

/// What `sha256` in `[[auth.api_keys]]` is for a key.
#[must_use]
pub fn hash(api_key: &str) -> String {
    hexadecimal(&Sha256::digest(api_key.as_bytes()))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a text does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

//! Who asks, and what they may do: JSON Web Tokens (RFC 7519) signed with a shared secret (HS256) or by an issuer whose
//! public keys are in a file (RS256, ES256, EdDSA), and API keys.

mod keys;

use std::fmt;
use std::future::pending;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Uri, header};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use saccade_signaling::ErrorCode;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::time::sleep_until;

use super::address::ClientAddress;
use super::{Context, Problem};
use crate::clock;
use crate::reload::Reloaded;
use crate::session::Handle;

pub use self::keys::Keys;
pub use crate::claims::Claims;

/// Shortest secret, in bytes: a key for HS256 has at least the size of the hash (RFC 7518 section 3.2).
pub const MIN_SECRET_BYTES: usize = 32;
/// What every API key begins with, and no token.
pub const API_KEY_PREFIX: &str = "sk_";
/// Parameter of a query that carries a token where a header cannot (RFC 6750 section 2.3).
const QUERY_TOKEN: &str = "access_token";

/// How tokens are checked.
#[derive(Clone)]
pub struct Settings {
    /// The shared secret, if tokens may be signed with one.
    pub secret: Option<Vec<u8>>,
    /// Public keys of issuers, if there are some.
    pub keys: Option<Arc<Reloaded<Keys>>>,
    /// `iss` that a token must have, if any.
    pub issuer: Option<String>,
    /// `aud` that a token must have, if any.
    pub audience: Option<String>,
    /// By how much the clocks of the issuer and of this machine may differ.
    pub leeway: Duration,
    /// Keys that count like tokens that do not end.
    pub api_keys: Vec<ApiKey>,
}

/// An API key, known by its hash alone.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// SHA-256 of the whole key.
    pub hash: [u8; 32],
    /// What its bearer may do.
    pub claims: Claims,
}

impl Default for Settings {
    /// Nothing that anybody could sign with.
    fn default() -> Self {
        Self {
            secret: None,
            keys: None,
            issuer: None,
            audience: None,
            leeway: Duration::from_secs(10),
            api_keys: Vec::new(),
        }
    }
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
    /// A secret that can be guessed lets everybody in.
    #[error("auth.secret: it has {bytes} bytes; it needs {MIN_SECRET_BYTES} or more")]
    ShortSecret {
        /// Bytes that it has.
        bytes: usize,
    },
    /// The file with public keys cannot be read.
    #[error("auth.jwks_file: {} cannot be read: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: String,
    },
    /// The file has no public keys that can be used.
    #[error("auth.jwks_file: {}: {problem}", path.display())]
    BadKeys {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },
}

impl Claims {
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
}

/// Checks tokens and API keys.
pub struct Verifier {
    secret: Option<DecodingKey>,
    keys: Option<Arc<Reloaded<Keys>>>,
    api_keys: Vec<ApiKey>,
    validation: Validation,
}

impl Verifier {
    /// A verifier.
    ///
    /// # Errors
    ///
    /// [`Error::ShortSecret`].
    pub fn new(settings: &Settings) -> Result<Self, Error> {
        if let Some(bytes) = settings.secret.as_ref().map(Vec::len).filter(|bytes| *bytes < MIN_SECRET_BYTES) {
            return Err(Error::ShortSecret { bytes });
        }
        let mut validation = Validation::new(Algorithm::HS256);
        validation.leeway = settings.leeway.as_secs();
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
        Ok(Self {
            secret: settings.secret.as_deref().map(DecodingKey::from_secret),
            keys: settings.keys.clone(),
            api_keys: settings.api_keys.clone(),
            validation,
        })
    }

    /// What the token or API key allows; `None` when it is not valid. Why not is for the log alone.
    #[must_use]
    pub fn verify(&self, token: &str) -> Option<Claims> {
        if token.starts_with(API_KEY_PREFIX) {
            return self.api_key(token);
        }
        match self.token(token) {
            Ok(claims) => Some(claims),
            Err(error) => {
                tracing::debug!(%error, "a token was refused");
                None
            }
        }
    }

    /// Each key has its one algorithm, so that a header's `alg` can but agree with it: neither an unsigned token nor one
    /// that was signed with a public key as if it were a secret finds a key that takes it.
    fn token(&self, token: &str) -> Result<Claims, Refused> {
        let header = jsonwebtoken::decode_header(token)?;
        if header.crit.is_some() {
            return Err(Refused::Extensions);
        }
        let keys = self.keys.as_ref().map(|keys| keys.get());
        let (key, algorithm) = if header.alg == Algorithm::HS256 {
            (self.secret.as_ref().ok_or(Refused::NoKey)?, Algorithm::HS256)
        } else {
            let found = keys.as_ref().and_then(|keys| keys.find(&header)).ok_or(Refused::NoKey)?;
            (&found.key, found.algorithm)
        };
        let validation = Validation { algorithms: vec![algorithm], ..self.validation.clone() };
        let Payload { exp, mut claims } = jsonwebtoken::decode(token, key, &validation)?.claims;
        claims.expires = self.end(exp);
        // The library counts whole seconds, and lets the last one begin.
        if claims.have_expired(clock::now()) { Err(Refused::Ended) } else { Ok(claims) }
    }

    /// When a token that says `exp` ends; `None` where that is beyond all clocks.
    fn end(&self, exp: f64) -> Option<Instant> {
        let wall = clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default();
        let leeway = Duration::from_secs(self.validation.leeway);
        let end = Duration::try_from_secs_f64(exp.max(0.0)).ok()?.checked_add(leeway)?;
        clock::now().checked_add(end.saturating_sub(wall))
    }

    /// Looks at every key, so that the time it takes tells nothing.
    fn api_key(&self, key: &str) -> Option<Claims> {
        let hash: [u8; 32] = Sha256::digest(key.as_bytes()).into();
        let mut found = None;
        for known in &self.api_keys {
            if bool::from(known.hash.ct_eq(&hash)) {
                found = Some(&known.claims);
            }
        }
        found.cloned()
    }
}

#[derive(Deserialize)]
struct Payload {
    exp: f64,
    #[serde(flatten)]
    claims: Claims,
}

/// Why a token is not valid.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("no key for its algorithm and `kid`")]
    NoKey,
    #[error("its header has `crit`")]
    Extensions,
    #[error("it has ended")]
    Ended,
    #[error(transparent)]
    Invalid(#[from] jsonwebtoken::errors::Error),
}

/// Who asks. As an argument of a handler it refuses whoever has no valid token, so it stands before the others.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    /// What the token allows.
    pub(super) claims: Claims,
    /// Where the request came from; `None` where it came over no socket.
    pub(super) address: Option<IpAddr>,
}

impl FromRequestParts<Arc<Context>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, context: &Arc<Context>) -> Result<Self, Problem> {
        Ok(Self { claims: context.claims(&parts.headers)?, address: ClientAddress::of(&parts.extensions) })
    }
}

impl Context {
    /// What this request's `Authorization` header allows; `None` where there is no header and one is needed.
    pub(super) fn header_claims(&self, headers: &HeaderMap) -> Result<Option<Claims>, Problem> {
        let Some(verifier) = &self.verifier else { return Ok(Some(Claims::everything())) };
        if !headers.contains_key(header::AUTHORIZATION) {
            return Ok(None);
        }
        match bearer(headers).and_then(|token| verifier.verify(token)) {
            Some(claims) => Ok(Some(claims)),
            None => Err(unauthorized()),
        }
    }

    /// What this request's token allows.
    pub(super) fn claims(&self, headers: &HeaderMap) -> Result<Claims, Problem> {
        self.header_claims(headers)?.ok_or_else(unauthorized)
    }

    /// The same for a stream of events: a browser's `EventSource` sends no headers, so that its token may be in the
    /// query. Nowhere else is it looked for there, since queries are kept in histories and logs.
    pub(super) fn stream_claims(&self, headers: &HeaderMap, uri: &Uri) -> Result<Claims, Problem> {
        match (self.header_claims(headers)?, &self.verifier, query_token(uri)) {
            (Some(claims), ..) => Ok(claims),
            // An API key does not end, and has no place in histories and logs.
            (None, Some(verifier), Some(token)) if !token.starts_with(API_KEY_PREFIX) => {
                verifier.verify(token).ok_or_else(unauthorized)
            }
            _ => Err(unauthorized()),
        }
    }

    /// The session of this id, unless the token is for another one.
    pub(super) fn session(&self, claims: &Claims, id: &str) -> Result<Handle, Problem> {
        let found = claims.may_know(id).then(|| self.registry.get(id)).flatten();
        found.ok_or_else(Problem::no_such_session)
    }
}

/// The token of an `authorization` header (RFC 6750 section 2.1).
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

/// Waits until claims end; never, if they do not.
pub(super) async fn expiry(expires: Option<Instant>) {
    match expires {
        Some(expires) => sleep_until(expires.into()).await,
        None => pending().await,
    }
}

/// A token needs no escapes in a query.
fn query_token(uri: &Uri) -> Option<&str> {
    let mut pairs = uri.query()?.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find_map(|(name, value)| (name == QUERY_TOKEN).then_some(value))
}

fn unauthorized() -> Problem {
    Problem::new(ErrorCode::Unauthorized, "Send `Authorization: Bearer` with a valid token.")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
pub(super) mod tests;

use std::path::{Path, PathBuf};

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Header};
use serde::Deserialize;
use serde_json::Value;

use super::Error;
use crate::reload::Reloaded;

/// Shortest modulus of RSA, in characters of base64: 2,048 bits (RFC 7518 section 3.3).
const MIN_MODULUS_CHARS: usize = 2048_usize.div_ceil(6);

/// Public keys that tokens may be signed with: what is of use in a JSON Web Key Set (RFC 7517).
#[derive(Debug)]
pub struct Keys(Vec<Key>);

/// A key and the one algorithm that it checks, whatever a token says.
#[derive(Debug)]
pub(super) struct Key {
    id: Option<String>,
    pub(super) algorithm: Algorithm,
    pub(super) key: DecodingKey,
}

impl Keys {
    /// The keys of a file, read again when it changes.
    ///
    /// # Errors
    /// [`Error::Unreadable`] and [`Error::BadKeys`].
    pub fn watch(path: PathBuf) -> Result<Reloaded<Self>, Error> {
        Reloaded::new(vec![path.clone()], move || Self::read(&path))
    }

    fn read(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| Error::Unreadable { path: path.to_owned(), error: error.to_string() })?;
        Self::parse(&text).map_err(|problem| Error::BadKeys { path: path.to_owned(), problem })
    }

    /// Keys for other purposes, and those of other algorithms than RS256, ES256 and EdDSA, are passed over: publishers
    /// list them beside the others.
    fn parse(text: &str) -> Result<Self, &'static str> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }
        let set: Set = serde_json::from_str(text).map_err(|_| "it is no JSON Web Key Set: {\"keys\": […]}")?;
        let listed = set.keys.len();
        let keys: Vec<Key> = set.keys.into_iter().filter_map(Key::new).collect();
        if keys.is_empty() {
            return Err("it has no public key for RS256 (2048 bits or more), ES256 or EdDSA (Ed25519)");
        }
        let is_double = |(at, key): (usize, &Key)| keys[..at].iter().any(|other| other.id == key.id);
        if keys.iter().enumerate().any(is_double) {
            return Err("two of its keys have the same `kid`, or none; each needs its own");
        }
        tracing::debug!(listed, used = keys.len(), "public keys for tokens");
        Ok(Self(keys))
    }

    /// The key that a token's header names. A header that names none means the only key there is.
    pub(super) fn find(&self, header: &Header) -> Option<&Key> {
        match (&header.kid, self.0.as_slice()) {
            (None, [only]) => Some(only),
            (None, _) => None,
            (Some(id), keys) => keys.iter().find(|key| key.id.as_ref() == Some(id)),
        }
    }
}

impl Key {
    fn new(value: Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(value).ok()?;
        let (algorithm, names) = match &jwk.algorithm {
            AlgorithmParameters::RSA(rsa) if rsa.n.trim_end_matches('=').len() >= MIN_MODULUS_CHARS => {
                (Algorithm::RS256, KeyAlgorithm::RS256)
            }
            AlgorithmParameters::EllipticCurve(curve) if curve.curve == EllipticCurve::P256 => {
                (Algorithm::ES256, KeyAlgorithm::ES256)
            }
            AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => {
                (Algorithm::EdDSA, KeyAlgorithm::EdDSA)
            }
            // A shared secret is no public key: a token signed with what everybody may read would pass.
            _ => return None,
        };
        let signs = jwk.common.public_key_use.as_ref().is_none_or(|usage| *usage == PublicKeyUse::Signature);
        if !signs || jwk.common.key_algorithm.as_ref().is_some_and(|name| *name != names) {
            return None;
        }
        let key = DecodingKey::from_jwk(&jwk).ok()?;
        Some(Self { id: jwk.common.key_id, algorithm, key })
    }
}

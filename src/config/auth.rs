use std::path::PathBuf;
use std::time::Duration;

use figment::value::{Dict, Value};

use super::reader::{Given, Reader};
use super::{Secret, secret};
use crate::claims::{self, Claims};

/// Shortest secret: a key for HS256 has at least the size of the hash (RFC 7518 section 3.2).
const MIN_SECRET_BYTES: usize = 32;

/// `[auth]`: who may use the server. At least one of `secret`, `jwks_file` and `api_keys` is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auth {
    /// The key that signs tokens with HS256, from `secret` or `secret_file`; at least 32 bytes.
    pub secret: Option<Secret>,
    /// File with the public keys of issuers (a JSON Web Key Set, RFC 7517), read again when it changes.
    pub jwks_file: Option<PathBuf>,
    /// What `iss` must be; anything by default.
    pub issuer: Option<String>,
    /// What `aud` must name; anything by default.
    pub audience: Option<String>,
    /// By how much the clocks of issuers and of this machine may differ; default 10 s. Tokens count longer by it.
    pub leeway: Duration,
    /// Keys for the HTTP API, none by default.
    pub api_keys: Vec<ApiKey>,
}

/// A key that counts like a token that does not end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// SHA-256 of the whole key.
    pub hash: [u8; 32],
    /// What its bearer may do; its subject is the key's name, unless another is given.
    pub claims: Claims,
}

impl Auth {
    pub(super) fn read(from: &mut Reader) -> Option<Self> {
        let short = format!("a text of at least {MIN_SECRET_BYTES} bytes");
        let names = ("auth.secret", "auth.secret_file");
        let secret = secret::read(from, names, &short, |secret| secret.len() >= MIN_SECRET_BYTES);
        let jwks_file = from.optional("auth.jwks_file", "a file's name", |raw| raw.filled().map(PathBuf::from));
        let word = "a text that is not empty";
        let issuer = from.traced("auth.issuer", word, false, |raw| raw.filled());
        let audience = from.traced("auth.audience", word, false, |raw| raw.filled());
        let leeway = Duration::from_secs(from.number("auth.leeway_s", 10, 0..=300, " (seconds)"));
        let api_keys = ApiKey::read_all(from);

        let is_elsewhere = secret.is_err() || jwks_file.is_some();
        let secret = secret.ok().flatten();
        if secret.is_none() && !is_elsewhere {
            for (_, given) in [&issuer, &audience].into_iter().flatten() {
                from.mistake(given, "needs auth.secret, auth.secret_file or auth.jwks_file beside it");
            }
        }
        if secret.is_none() && jwks_file.is_none() && api_keys.is_empty() {
            return None;
        }
        let [issuer, audience] = [issuer, audience].map(|word| word.map(|(word, _)| word));
        Some(Self { secret, jwks_file, issuer, audience, leeway, api_keys })
    }
}

impl ApiKey {
    fn read_all(from: &mut Reader) -> Vec<Self> {
        let tables = from.traced(
            "auth.api_keys",
            "a list of tables with name, sha256 and claims (JSON in the environment)",
            true,
            |raw| raw.tables(),
        );
        let Some((tables, given)) = tables else { return Vec::new() };
        let mut keys: Vec<Self> = Vec::new();
        for (index, table) in tables.into_iter().enumerate() {
            match Self::parse(table) {
                Ok(key) if keys.iter().any(|other| other.hash == key.hash) => {
                    wrong(from, &given, index, "its sha256 is that of another key, too");
                }
                Ok(key) => keys.push(key),
                Err(legal) => wrong(from, &given, index, &legal),
            }
        }
        keys
    }

    fn parse(mut table: Dict) -> Result<Self, String> {
        let mut text = |key: &str| match table.remove(key) {
            Some(Value::String(_, text)) if !text.trim().is_empty() => Ok(text),
            _ => Err(format!("{key} must be a text that is not empty")),
        };
        let (name, hash) = (text("name")?, text("sha256")?);
        let hash =
            bytes(&hash).ok_or("sha256 must be the 64 hexadecimal digits that `saccade token --api-key` prints")?;
        if let Some(key) = table.keys().find(|key| !claims::NAMES.contains(&key.as_str())) {
            return Err(format!("unknown key {key}; there are name, sha256, {}", claims::NAMES.join(", ")));
        }
        let claims = Value::from(table).deserialize::<Claims>().map_err(|error| format!("its claims: {error}"))?;
        Ok(Self { hash, claims: Claims { sub: claims.sub.or(Some(name)), ..claims } })
    }
}

fn wrong(from: &mut Reader, given: &Given, index: usize, legal: &str) {
    from.mistake(given, format!("number {}: {legal}", index + 1));
}

/// 32 bytes from hexadecimal digits.
fn bytes(digits: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if digits.len() != 64 || !digits.is_ascii() {
        return None;
    }
    for (byte, at) in bytes.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(digits.get(at..at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

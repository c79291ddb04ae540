use std::path::PathBuf;

use super::Secret;
use super::reader::Reader;

/// Shortest secret: a key for HS256 has at least the size of the hash (RFC 7518 section 3.2).
const MIN_SECRET_BYTES: usize = 32;

/// `[auth]`: tokens are JWTs signed with HS256.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Auth {
    /// The key that signs tokens, from `secret` or `secret_file`; at least 32 bytes.
    pub secret: Secret,
    /// What `iss` must be; anything by default.
    pub issuer: Option<String>,
    /// What `aud` must name; anything by default.
    pub audience: Option<String>,
}

impl Auth {
    pub(super) fn read(from: &mut Reader) -> Option<Self> {
        let short = format!("a text of at least {MIN_SECRET_BYTES} bytes");
        let long_enough = |secret: &String| secret.len() >= MIN_SECRET_BYTES;
        let inline = from.traced("auth.secret", &short, true, |raw| raw.string().filter(long_enough));
        let file = from.traced("auth.secret_file", "a file's name", false, |raw| raw.filled().map(PathBuf::from));
        from.unbuilt("auth.jwks_file", |raw| raw.is_nothing());
        let word = "a text that is not empty";
        let issuer = from.traced("auth.issuer", word, false, |raw| raw.filled());
        let audience = from.traced("auth.audience", word, false, |raw| raw.filled());

        let secret = match (inline, file) {
            (Some(_), Some((_, given))) => {
                from.mistake(&given, "must be left out where auth.secret is given");
                None
            }
            (Some((secret, _)), None) => Some(secret),
            (None, Some((path, given))) => match std::fs::read_to_string(&path) {
                Ok(text) if long_enough(&text.trim().to_owned()) => Some(text.trim().to_owned()),
                Ok(_) => {
                    from.mistake(&given, format!("must name a file with {short}"));
                    None
                }
                Err(error) => {
                    from.mistake(&given, format!("must name a file that can be read: {error}"));
                    None
                }
            },
            (None, None) => {
                for (_, given) in [&issuer, &audience].into_iter().flatten() {
                    from.mistake(given, "needs auth.secret or auth.secret_file beside it");
                }
                None
            }
        };
        Some(Self {
            secret: Secret::new(secret?),
            issuer: issuer.map(|(issuer, _)| issuer),
            audience: audience.map(|(audience, _)| audience),
        })
    }
}

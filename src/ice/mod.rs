//! STUN and TURN servers: how they are named, and what a client needs to use one.
//!
//! A leaf: values only. It sends nothing, and knows no wire types.

mod url;

use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::{digest, hmac};

pub use url::{BadUrl, Scheme, Transport, Url};

use crate::secret::Secret;

/// Longest subject that stands in a user name as it is. TURN takes 508 bytes (RFC 8489 section 14.3).
const MAX_SUBJECT: usize = 128;

/// A STUN or TURN server, by all its URLs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// At least one.
    pub urls: Vec<Url>,
    /// How clients prove to a TURN server that they may use it.
    pub access: Access,
}

/// What a TURN server asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// Nothing: it is a STUN server.
    Open,
    /// The same user name and password of everybody (RFC 8489 section 9.2).
    Fixed {
        /// User name.
        username: String,
        /// Password.
        credential: Secret,
    },
    /// A user name that says when it ends, and its signature (draft-uberti-behave-turn-rest-00, `use-auth-secret` of
    /// coturn).
    Signed {
        /// Shared with the TURN server.
        secret: Secret,
        /// How long credentials are good for.
        ttl: Duration,
    },
}

/// What one client shows to a TURN server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// User name.
    pub username: String,
    /// Password.
    pub credential: Secret,
}

impl Server {
    /// Credentials for one client. With a shared secret they end a while after `now` and name the subject, so that the TURN
    /// server can hold each to its share; whoever has no name gets one by chance.
    #[must_use]
    pub fn credentials(&self, now: SystemTime, subject: Option<&str>) -> Option<Credentials> {
        match &self.access {
            Access::Open => None,
            Access::Fixed { username, credential } => {
                Some(Credentials { username: username.clone(), credential: credential.clone() })
            }
            Access::Signed { secret, ttl } => {
                let expiry = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default() + *ttl;
                let username = format!("{}:{}", expiry.as_secs(), subject.map_or_else(by_chance, name));
                let credential = sign(secret, &username);
                Some(Credentials { username, credential })
            }
        }
    }
}

/// `base64(HMAC-SHA1(secret, username))` (draft-uberti-behave-turn-rest-00 section 2.2).
fn sign(secret: &Secret, username: &str) -> Secret {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.expose().as_bytes());
    Secret::new(STANDARD.encode(hmac::sign(&key, username.as_bytes())))
}

fn by_chance() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

/// A subject as user names hold it: as it is where every server takes it so, else its hash, which is as much its own.
fn name(subject: &str) -> String {
    let is_plain = subject.bytes().all(|byte| byte.is_ascii_graphic());
    if is_plain && (1..=MAX_SUBJECT).contains(&subject.len()) {
        return subject.to_owned();
    }
    let hash = digest::digest(&digest::SHA256, subject.as_bytes());
    hash.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn signed(secret: &str, ttl: u64) -> Server {
        let access = Access::Signed { secret: Secret::new(secret.to_owned()), ttl: Duration::from_secs(ttl) };
        Server { urls: vec!["turn:turn.example".parse().unwrap()], access }
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn the_password_is_the_signature_of_a_user_name_that_ends() {
        // printf 1700003600:alice | openssl dgst -sha1 -hmac north -binary | base64
        let made = signed("north", 3600).credentials(at(1_700_000_000), Some("alice")).unwrap();
        assert_eq!(made.username, "1700003600:alice");
        assert_eq!(made.credential.expose(), "wjwSXO2ch1B6VaLTLMy2Avn5O9o=");
        // RFC 2202 section 3, test case 2.
        assert_eq!(
            sign(&Secret::new("Jefe".into()), "what do ya want for nothing?").expose(),
            "7/zfauXrL6LSdBbV8YTfnCWafHk="
        );
    }

    #[test]
    fn whoever_has_no_name_gets_another_each_time() {
        let server = signed("north", 60);
        let [one, other] = [(); 2].map(|()| server.credentials(at(0), None).unwrap());
        assert!(one.username.starts_with("60:") && one.username.len() == 35, "{one:?}");
        assert_ne!(one.username, other.username);
        assert_ne!(one.credential, other.credential);
    }

    #[test]
    fn a_subject_that_not_every_server_takes_is_hashed_and_stays_one_subject() {
        let server = signed("north", 60);
        let username = |subject: &str| server.credentials(at(0), Some(subject)).unwrap().username;
        assert_eq!(username("https://id.example/a:b"), "60:https://id.example/a:b");
        for odd in ["", "Zoë", "a b", "line\nbreak", &"x".repeat(129)] {
            let made = username(odd);
            assert!(made.len() == 35 && made[3..].bytes().all(|byte| byte.is_ascii_hexdigit()), "{odd:?}: {made}");
            assert_eq!(made, username(odd));
        }
        assert_ne!(username("Zoë"), username("Noë"));
    }

    #[test]
    fn nothing_that_is_secret_shows() {
        let server = signed("north", 60);
        let shown = format!("{server:?} {:?}", server.credentials(at(0), Some("alice")));
        assert!(!shown.contains("north") && !shown.contains('='), "{shown}");
        let fixed = Access::Fixed { username: "me".into(), credential: Secret::new("south".into()) };
        assert!(!format!("{fixed:?}").contains("south"));
    }
}

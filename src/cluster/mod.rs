//! Several servers behind one address: which of them has a session, and how one proves to another that it forwards a
//! client's request.
//!
//! What enters: sessions as they begin and end, ids that somebody asks for, requests to be signed and to be checked. What
//! leaves: entries in Redis, each with a lease, and answers. [`Directory::run`] is a task of its own; everything else runs
//! where it is called, waits for Redis within a limit, and goes on without it: nothing here may hold a session up.

mod directory;
mod link;
mod proof;

use std::fmt;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::clock;
use crate::secret::Secret;

pub use directory::{Directory, Found, Owner};
pub use proof::{HEADER, Proven, REFUSED, Refused, Request, WINDOW};

/// Shortest secret: a key for HMAC-SHA256 has at least the size of the hash (RFC 2104 section 3).
pub const MIN_SECRET_BYTES: usize = 32;
/// Secrets that count at a time: two while they change.
const MAX_SECRETS: usize = 4;

/// What a server needs to be one of several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Redis or what speaks its protocol: `redis://`, `rediss://` for TLS, or `redis+unix:///SOCKET`.
    pub redis_url: Secret,
    /// What this server is called among the others; see [`is_name`].
    pub name: String,
    /// Where the others reach it; see [`is_url`].
    pub advertise: String,
    /// What all servers know and nobody else does; see [`is_secret`].
    pub secret: Secret,
    /// How long an entry counts after it was written or renewed.
    pub lease: Duration,
    /// What all keys begin with.
    pub key_prefix: String,
}

/// One of several servers.
pub struct Cluster {
    name: String,
    directory: Directory,
    key: proof::Key,
    seen: Mutex<proof::Seen>,
}

impl Cluster {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// A sentence, without the URL, when that is none of Redis.
    pub fn new(settings: &Settings) -> Result<Self, String> {
        let key = proof::Key::new(settings.secret.expose());
        let me = Owner { name: settings.name.clone(), url: settings.advertise.clone() };
        Ok(Self {
            name: settings.name.clone(),
            directory: Directory::new(&settings.redis_url, me, settings.lease, &settings.key_prefix, key.clone())?,
            key,
            seen: Mutex::new(proof::Seen::new(clock::now())),
        })
    }

    /// Who has which session.
    #[must_use]
    pub const fn directory(&self) -> &Directory {
        &self.directory
    }

    /// The value of [`HEADER`] for a request that is forwarded to `owner`.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn sign(
        &self,
        owner: &Owner,
        request: &Request<'_>,
        client: Option<IpAddr>,
    ) -> Result<String, getrandom::Error> {
        let mut nonce = [0; 16];
        getrandom::fill(&mut nonce)?;
        Ok(self.key.sign((&self.name, &owner.name), request, client, clock::wall(), nonce))
    }

    /// Whether a request with this value of [`HEADER`] was forwarded here by one of the servers, just now and for the first
    /// time.
    ///
    /// # Errors
    /// Why it is not to be believed.
    pub fn admit(&self, header: &str, request: &Request<'_>) -> Result<Proven, Refused> {
        let (proven, nonce) = self.key.check(header, &self.name, request, clock::wall())?;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.take(clock::now(), nonce)?;
        Ok(proven)
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Cluster").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Whether a server may be called that: 1 to 253 letters, digits, `.`, `_` and `-`, as host names are.
#[must_use]
pub fn is_name(text: &str) -> bool {
    let is_one = |one: u8| one.is_ascii_alphanumeric() || b"._-".contains(&one);
    (1..=253).contains(&text.len()) && text.bytes().all(is_one)
}

/// Whether these are secrets, one a line: the first signs, the others are good as well, so that servers that change theirs
/// one after another understand each other.
#[must_use]
pub fn is_secret(text: &str) -> bool {
    (1..=MAX_SECRETS).contains(&proof::lines(text).count())
        && proof::lines(text).all(|secret| secret.len() >= MIN_SECRET_BYTES)
}

/// Whether a session may be called that. Others are not looked for: no server has them.
#[must_use]
pub fn is_session(text: &str) -> bool {
    text.len() <= 64 && is_name(text)
}

/// Whether it says where a server's listener is: `http://HOST:PORT` and nothing more.
#[must_use]
pub fn is_url(text: &str) -> bool {
    let Some((host, port)) = text.strip_prefix("http://").and_then(|rest| rest.rsplit_once(':')) else { return false };
    let address = || host.strip_prefix('[')?.strip_suffix(']')?.parse::<std::net::Ipv6Addr>().ok();
    (is_name(host) || address().is_some()) && port.parse::<u16>().is_ok_and(|port| port != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_a_host_and_a_port() {
        for good in ["http://saccade-0.saccade-peers:9190", "http://10.0.0.1:1", "http://[fd00::1]:9190"] {
            assert!(is_url(good), "{good}");
        }
        let bad =
            ["", "saccade-0:9190", "https://a:9190", "http://a", "http://a:0", "http://a:9190/", "http://u@a:9190"];
        for bad in bad.into_iter().chain(["http://:9190", "http://a b:9190", "http://fd00::1:9190", "http://a:99999"]) {
            assert!(!is_url(bad), "{bad}");
        }
    }

    #[test]
    fn every_secret_is_long_enough() {
        let secret = "s".repeat(MIN_SECRET_BYTES);
        for good in [secret.clone(), format!("{secret}\n\n{secret}\n"), [&*secret; MAX_SECRETS].join("\n")] {
            assert!(is_secret(&good), "{good}");
        }
        for bad in [String::new(), "\n".into(), format!("{secret}\nshort"), [&*secret; MAX_SECRETS + 1].join("\n")] {
            assert!(!is_secret(&bad), "{bad}");
        }
    }

    #[test]
    fn what_would_mean_something_in_redis_or_in_a_header_is_no_session() {
        assert!(is_session("4527c3f643e744a5aaa0a1ac4e1e1f89") && is_session("front-door.2"));
        for bad in ["", "a b", "a\r\nDEL", "a:b", "ä", &"a".repeat(65)] {
            assert!(!is_session(bad), "{bad}");
        }
    }
}

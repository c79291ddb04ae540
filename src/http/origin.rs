//! Which pages may use the server, and by which names it may be called.

use axum::http::{HeaderValue, Uri};

use super::Settings;

/// Scheme, host and port of a page (RFC 6454), lower case, the port filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Origin {
    scheme: String,
    host: String,
    port: u16,
}

impl Origin {
    fn parse(text: &str) -> Option<Self> {
        let uri: Uri = text.parse().ok()?;
        let scheme = uri.scheme_str()?.to_ascii_lowercase();
        let port = uri.port_u16().or_else(|| default_port(&scheme))?;
        Some(Self { scheme, host: uri.host()?.to_ascii_lowercase(), port })
    }
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Policy {
    any: bool,
    listed: Vec<Origin>,
    loopback_only: bool,
}

impl Policy {
    pub(super) fn new(settings: &Settings) -> Self {
        let any = settings.allowed_origins.iter().any(|origin| origin == "*");
        let texts = settings.allowed_origins.iter().chain(&settings.public_url);
        let listed = texts.filter_map(|text| Origin::parse(text)).collect();
        Self { any, listed, loopback_only: settings.loopback_only }
    }

    /// Whether the origin is one of the configured ones.
    pub(super) fn is_listed(&self, origin: &HeaderValue) -> bool {
        self.any || parse_header(origin).is_some_and(|origin| self.listed.contains(&origin))
    }

    /// Whether a page of this origin may use the server: it is configured, or it is the server's own.
    pub(super) fn allows(&self, origin: &HeaderValue, host: Option<&HeaderValue>) -> bool {
        self.is_listed(origin) || parse_header(origin).is_some_and(|origin| is_same(&origin, host))
    }

    /// Whether the server may be called by this `Host`.
    pub(super) fn allows_host(&self, host: Option<&HeaderValue>) -> bool {
        if !self.loopback_only {
            return true;
        }
        let Some(uri) = host.and_then(parse_host) else { return false };
        let Some(name) = uri.host().map(str::to_ascii_lowercase) else { return false };
        let address = name.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
        name == "localhost"
            || name.ends_with(".localhost")
            || address.is_ok_and(|address| address.is_loopback())
            || self.listed.iter().any(|origin| origin.host == name)
    }
}

/// A browser says scheme, host and port, and nothing else (RFC 6454 section 6.2).
fn parse_header(origin: &HeaderValue) -> Option<Origin> {
    let text = origin.to_str().ok()?;
    let (_, authority) = text.split_once("://")?;
    if authority.contains(['/', '?', '#', '@']) { None } else { Origin::parse(text) }
}

fn parse_host(host: &HeaderValue) -> Option<Uri> {
    host.to_str().ok()?.parse().ok()
}

fn is_same(origin: &Origin, host: Option<&HeaderValue>) -> bool {
    let Some(host) = host.and_then(parse_host) else { return false };
    let port = host.port_u16().or_else(|| default_port(&origin.scheme));
    host.host().is_some_and(|name| name.eq_ignore_ascii_case(&origin.host)) && port == Some(origin.port)
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    fn policy(allowed: &[&str], public_url: Option<&str>) -> Policy {
        Policy::new(&Settings {
            allowed_origins: allowed.iter().map(|&origin| origin.into()).collect(),
            public_url: public_url.map(Into::into),
            loopback_only: true,
            ..Settings::default()
        })
    }

    fn allows(policy: &Policy, origin: &str, host: &str) -> bool {
        let host = HeaderValue::from_str(host).unwrap();
        policy.allows(&HeaderValue::from_str(origin).unwrap(), Some(&host))
    }

    #[test]
    fn the_own_origin_is_allowed_and_others_when_listed() {
        let own = policy(&[], None);
        assert!(allows(&own, "http://127.0.0.1:8080", "127.0.0.1:8080"));
        assert!(allows(&own, "https://Eye.example", "eye.example"));
        assert!(allows(&own, "http://[::1]:8080", "[::1]:8080"));
        assert!(!allows(&own, "http://127.0.0.1:8081", "127.0.0.1:8080"));
        assert!(!allows(&own, "https://evil.example", "127.0.0.1:8080"));
        for odd in [
            "null",
            "",
            "file://",
            "http://",
            "127.0.0.1:8080",
            "http://evil@127.0.0.1:8080",
            "http://127.0.0.1:8080/",
            "http://127.0.0.1:8080, http://evil.example",
            "http://127.0.0.1:8080.evil.example",
            "ftp://127.0.0.1:8080x",
        ] {
            assert!(!allows(&own, odd, "127.0.0.1:8080"), "{odd}");
        }
        let listed = policy(&["https://shop.example"], Some("https://eye.example/"));
        assert!(allows(&listed, "https://shop.example", "10.0.0.1:8080"));
        assert!(allows(&listed, "https://eye.example:443", "10.0.0.1:8080"));
        assert!(!allows(&listed, "http://shop.example", "10.0.0.1:8080"));
        assert!(allows(&policy(&["*"], None), "null", "x"));
    }

    #[test]
    fn a_loopback_server_answers_to_loopback_names() {
        let policy = policy(&[], Some("https://eye.example"));
        let by = |host: &str| policy.allows_host(Some(&HeaderValue::from_str(host).unwrap()));
        for good in ["localhost:8080", "127.0.0.1", "127.9.9.9:1", "[::1]:8080", "a.localhost", "EYE.example"] {
            assert!(by(good), "{good}");
        }
        for bad in ["evil.example:8080", "10.0.0.1", "localhost.evil.example", "127.0.0.1.evil.example", " "] {
            assert!(!by(bad), "{bad}");
        }
        assert!(!policy.allows_host(None));
    }
}

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// Longest name of a host (RFC 1035 section 2.3.4).
const MAX_HOST: usize = 253;

/// A URL of a STUN server (RFC 7064) or of a TURN server (RFC 7065).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    text: String,
    scheme: Scheme,
    host: String,
    port: Option<u16>,
    transport: Option<Transport>,
}

/// What a server is, and whether one talks to it over TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Tells addresses.
    Stun,
    /// The same over TLS.
    Stuns,
    /// Relays.
    Turn,
    /// The same over TLS.
    Turns,
}

/// `?transport=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Datagrams.
    Udp,
    /// A connection.
    Tcp,
}

/// What is wrong with a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadUrl {
    /// Another scheme, or none.
    #[error("it must begin with stun:, stuns:, turn: or turns:")]
    Scheme,
    /// As in `http://`.
    #[error("there is no // after the scheme")]
    Slashes,
    /// No host name, IPv4 address or IPv6 address in brackets.
    #[error("after the scheme comes a host name, an IPv4 address, or an IPv6 address in brackets")]
    Host,
    /// Nothing that a port can be.
    #[error("a port is a number from 1 to 65535")]
    Port,
    /// A query where there is none.
    #[error("stun: and stuns: take no query; ?transport= is for turn: and turns:")]
    Query,
    /// Another query.
    #[error("the only query is ?transport=udp or ?transport=tcp")]
    Transport,
}

impl Url {
    /// What it is.
    #[must_use]
    pub const fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Host name or address; an IPv6 address without its brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, by default 3478, and 5349 over TLS (RFC 7064 section 3.2, RFC 7065 section 3.2).
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(if self.scheme.is_secure() { 5349 } else { 3478 })
    }

    /// How one talks to the server; where the URL does not say it, as browsers do: datagrams, and a connection for TLS.
    #[must_use]
    pub fn transport(&self) -> Transport {
        self.transport.unwrap_or(if self.scheme.is_secure() { Transport::Tcp } else { Transport::Udp })
    }

    /// The URL as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl Scheme {
    const ALL: [(&'static str, Self); 4] =
        [("stun", Self::Stun), ("stuns", Self::Stuns), ("turn", Self::Turn), ("turns", Self::Turns)];

    /// Whether the server relays, and asks for credentials.
    #[must_use]
    pub const fn relays(self) -> bool {
        matches!(self, Self::Turn | Self::Turns)
    }

    /// Whether one talks to it over TLS.
    #[must_use]
    pub const fn is_secure(self) -> bool {
        matches!(self, Self::Stuns | Self::Turns)
    }
}

impl FromStr for Url {
    type Err = BadUrl;

    /// The grammar of RFC 7064 section 3.1 and RFC 7065 section 3.1, with no other transport than those of RFC 8656.
    fn from_str(text: &str) -> Result<Self, BadUrl> {
        let (word, rest) = text.split_once(':').ok_or(BadUrl::Scheme)?;
        let known = Scheme::ALL.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(word));
        let scheme = known.ok_or(BadUrl::Scheme)?.1;
        if rest.starts_with("//") {
            return Err(BadUrl::Slashes);
        }
        let (place, query) = rest.split_once('?').map_or((rest, None), |(place, query)| (place, Some(query)));
        let transport = match query {
            None => None,
            Some(_) if !scheme.relays() => return Err(BadUrl::Query),
            Some(query) if query.eq_ignore_ascii_case("transport=udp") => Some(Transport::Udp),
            Some(query) if query.eq_ignore_ascii_case("transport=tcp") => Some(Transport::Tcp),
            Some(_) => return Err(BadUrl::Transport),
        };
        let (host, port) = match place.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or(BadUrl::Host)?;
                host.parse::<Ipv6Addr>().map_err(|_| BadUrl::Host)?;
                match port {
                    "" => (host, None),
                    port => (host, Some(port.strip_prefix(':').ok_or(BadUrl::Host)?)),
                }
            }
            None => place.split_once(':').map_or((place, None), |(host, port)| (host, Some(port))),
        };
        let is_host = host.parse::<IpAddr>().is_ok() || is_name(host);
        if !is_host {
            return Err(BadUrl::Host);
        }
        let is_number = |port: &&str| port.bytes().all(|byte| byte.is_ascii_digit());
        let port = port.map(|port| {
            Some(port).filter(is_number).and_then(|port| port.parse().ok()).filter(|port| *port > 0).ok_or(BadUrl::Port)
        });
        Ok(Self { text: text.to_owned(), scheme, host: host.to_owned(), port: port.transpose()?, transport })
    }
}

/// Labels of letters, digits, hyphens and underscores (RFC 1123 section 2.1, and what people do).
fn is_name(host: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    // A name whose last label is a number would be an address, and that was not one.
    let is_number = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
    let labels = host.strip_suffix('.').unwrap_or(host);
    host.len() <= MAX_HOST && labels.split('.').all(is_label) && !labels.rsplit('.').next().is_some_and(is_number)
}

impl fmt::Display for Url {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn what_the_standards_write_is_read() {
        use Scheme::{Stun, Stuns, Turn, Turns};
        use Transport::{Tcp, Udp};
        for (text, scheme, host, port, transport) in [
            ("stun:example.org", Stun, "example.org", 3478, Udp),
            ("stuns:example.org", Stuns, "example.org", 5349, Tcp),
            ("stun:example.org:8000", Stun, "example.org", 8000, Udp),
            ("turn:example.org", Turn, "example.org", 3478, Udp),
            ("turns:example.org", Turns, "example.org", 5349, Tcp),
            ("turn:example.org:8000?transport=tcp", Turn, "example.org", 8000, Tcp),
            ("turns:example.org?transport=udp", Turns, "example.org", 5349, Udp),
            ("TURN:192.0.2.1?TRANSPORT=UDP", Turn, "192.0.2.1", 3478, Udp),
            ("turn:[2001:db8::1]:3479", Turn, "2001:db8::1", 3479, Udp),
            ("stun:[::1]", Stun, "::1", 3478, Udp),
            ("stun:localhost", Stun, "localhost", 3478, Udp),
            ("stun:turn_1.example.", Stun, "turn_1.example.", 3478, Udp),
        ] {
            let url: Url = text.parse().unwrap();
            assert_eq!(
                (url.scheme(), url.host(), url.port(), url.transport()),
                (scheme, host, port, transport),
                "{text}"
            );
            assert_eq!(url.to_string(), text);
        }
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (text, wrong) in [
            ("", BadUrl::Scheme),
            ("example.org", BadUrl::Scheme),
            ("http://example.org", BadUrl::Scheme),
            ("turn://example.org", BadUrl::Slashes),
            ("turn:", BadUrl::Host),
            ("turn::3478", BadUrl::Host),
            ("turn:me@example.org", BadUrl::Host),
            ("turn:example.org/path", BadUrl::Host),
            ("turn:exa mple.org", BadUrl::Host),
            ("turn:-example.org", BadUrl::Host),
            ("turn:example..org", BadUrl::Host),
            ("turn:192.0.2.256", BadUrl::Host),
            ("turn:[192.0.2.1]", BadUrl::Host),
            ("turn:[::1", BadUrl::Host),
            ("turn:[::1]3478", BadUrl::Host),
            ("turn:2001:db8::1", BadUrl::Host),
            ("turn:example.org:", BadUrl::Port),
            ("turn:example.org:0", BadUrl::Port),
            ("turn:example.org:+80", BadUrl::Port),
            ("turn:example.org:65536", BadUrl::Port),
            ("stun:example.org?transport=udp", BadUrl::Query),
            ("turn:example.org?transport=sctp", BadUrl::Transport),
            ("turn:example.org?", BadUrl::Transport),
            ("turn:example.org?transport=tcp&ttl=5", BadUrl::Transport),
        ] {
            assert_eq!(text.parse::<Url>(), Err(wrong), "{text}");
        }
    }
}

//! Where a request came from, with proxies in between: the right-most hop that is no trusted proxy (RFC 7239 section 8.1).

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use axum::http::header::{self, HeaderName};
use axum::http::{Extensions, HeaderMap};
use ipnet::IpNet;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The address that a request counts as; beside it as an extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ClientAddress(pub(super) IpAddr);

impl ClientAddress {
    pub(super) fn of(extensions: &Extensions) -> Option<IpAddr> {
        extensions.get::<Self>().map(|address| address.0)
    }
}

/// Proxies whose word counts.
#[derive(Debug, Clone, Default)]
pub(super) struct Proxies(pub(super) Vec<IpNet>);

impl Proxies {
    pub(super) fn contain(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address.to_canonical()))
    }

    /// Who asks, when `peer` is at the other end of the connection.
    pub(super) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let peer = peer.to_canonical();
        if !self.contain(peer) {
            return peer;
        }
        let old = hops(headers, &X_FORWARDED_FOR, Some);
        let new = hops(headers, &header::FORWARDED, forwarded_for);
        match (old.is_empty(), new.is_empty()) {
            (false, true) => self.last_stranger(peer, &old),
            (true, false) => self.last_stranger(peer, &new),
            (true, true) => peer,
            // A proxy writes one of them and hands on the other as the client made it up. Where they differ nobody knows
            // which is which, and the request counts as the proxy's own.
            (false, false) => {
                let [old, new] = [old, new].map(|hops| self.last_stranger(peer, &hops));
                if old == new { old } else { peer }
            }
        }
    }

    /// Each proxy has added the address that it was asked from on the right; what stands left of a stranger is only the
    /// stranger's word.
    fn last_stranger(&self, peer: IpAddr, hops: &[Option<IpAddr>]) -> IpAddr {
        let mut last = peer;
        for hop in hops.iter().rev() {
            // An address that is hidden or broken: the proxy that says so is the last one known.
            let Some(hop) = hop else { break };
            last = *hop;
            if !self.contain(last) {
                break;
            }
        }
        last
    }
}

/// The addresses in all headers of a name, from left to right; `None` where there is none in its place.
fn hops<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
    node: impl Fn(&'a str) -> Option<&'a str>,
) -> Vec<Option<IpAddr>> {
    let values = headers.get_all(name).into_iter().map(|value| value.to_str().unwrap_or_default());
    values.flat_map(|value| split(value, ',')).map(|hop| parse(node(hop.trim())?)).collect()
}

/// The parts between separators that are not in quotes (RFC 9110 section 5.6.4).
fn split(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |character| {
        let was_escaped = std::mem::take(&mut escaped);
        match character {
            '"' if !was_escaped => quoted = !quoted,
            '\\' if quoted && !was_escaped => escaped = true,
            _ => {}
        }
        character == separator && !quoted
    })
}

/// The node of `for=` in one element of `Forwarded` (RFC 7239 section 4).
fn forwarded_for(element: &str) -> Option<&str> {
    split(element, ';').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.trim().eq_ignore_ascii_case("for").then(|| value.trim().trim_matches('"'))
    })
}

/// An address, with or without brackets and port.
fn parse(node: &str) -> Option<IpAddr> {
    let bare = || node.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    let with_port = || node.parse::<SocketAddr>().ok().map(|address| address.ip());
    node.parse::<IpAddr>().ok().or_else(bare).or_else(with_port).map(|address| address.to_canonical())
}

/// What counts as one address: of IPv6 the network, as everybody has a whole one (RFC 6177).
pub(super) fn counted(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use axum::http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn client(peer: &str, headers: &[(&'static str, &str)]) -> String {
        let proxies = Proxies(["10.0.0.0/8", "fd00::/8", "192.0.2.1/32"].map(|net| net.parse().unwrap()).to_vec());
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        proxies.client(peer.parse().unwrap(), &map).to_string()
    }

    #[test]
    fn a_stranger_is_not_believed() {
        assert_eq!(client("203.0.113.9", &[("x-forwarded-for", "10.0.0.1, 198.51.100.7")]), "203.0.113.9");
        assert_eq!(client("203.0.113.9", &[("forwarded", "for=198.51.100.7")]), "203.0.113.9");
    }

    #[test]
    fn the_right_most_stranger_counts() {
        let forwarded = |value: &str| client("10.0.0.1", &[("x-forwarded-for", value)]);
        assert_eq!(forwarded("198.51.100.7"), "198.51.100.7");
        assert_eq!(forwarded("1.1.1.1, 198.51.100.7, 10.2.3.4"), "198.51.100.7");
        assert_eq!(forwarded("1.1.1.1, 192.0.2.1, 10.2.3.4"), "1.1.1.1");
        assert_eq!(forwarded("10.9.9.9, 10.2.3.4"), "10.9.9.9");
        assert_eq!(forwarded("198.51.100.7:4711"), "198.51.100.7");
        assert_eq!(forwarded("[2001:db8::1]:80"), "2001:db8::1");
        assert_eq!(forwarded("::ffff:198.51.100.7"), "198.51.100.7");
        let lines = [("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "198.51.100.7")];
        assert_eq!(client("::ffff:10.0.0.1", &lines), "198.51.100.7");
    }

    #[test]
    fn what_is_hidden_or_broken_is_the_proxy_that_says_so() {
        for value in ["", "unknown", "1.1.1.1, unknown", "1.1.1.1,", "1.1.1.1, \u{e9}", "999.1.1.1"] {
            assert_eq!(client("10.0.0.1", &[("x-forwarded-for", value)]), "10.0.0.1", "{value}");
        }
        assert_eq!(client("10.0.0.1", &[("x-forwarded-for", "1.1.1.1, unknown, 10.2.3.4")]), "10.2.3.4");
    }

    #[test]
    fn forwarded_is_read_where_it_stands_alone_or_agrees() {
        let value = "for=1.1.1.1, For=\"[2001:db8::1]:80\";proto=https, by=10.0.0.1;for=10.2.3.4";
        assert_eq!(client("10.0.0.1", &[("forwarded", value)]), "2001:db8::1");
        assert_eq!(client("10.0.0.1", &[("forwarded", "for=_hidden")]), "10.0.0.1");
        let tricked = r#"host="a;for=9.9.9.9, for=8.8.8.8, \"";for=198.51.100.7"#;
        assert_eq!(client("10.0.0.1", &[("forwarded", tricked)]), "198.51.100.7");
        let both = |new: &str| client("10.0.0.1", &[("x-forwarded-for", "198.51.100.7"), ("forwarded", new)]);
        assert_eq!(both("for=198.51.100.7"), "198.51.100.7");
        assert_eq!(both("for=8.8.8.8"), "10.0.0.1", "a client added the one that its proxy does not write");
    }

    #[test]
    fn everybody_has_a_whole_network_of_ipv6() {
        for (address, expected) in
            [("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"), ("::ffff:1.2.3.4", "1.2.3.4"), ("1.2.3.4", "1.2.3.4")]
        {
            assert_eq!(counted(address.parse().unwrap()).to_string(), expected);
        }
    }

    proptest! {
        /// Whatever the headers are, a stranger is who it is, and a proxy gives an address.
        #[test]
        fn any_header_gives_an_address(old in prop::collection::vec(0..=255u8, 0..60), new in "(for=[0-9a-f:.\"\\[\\]]{0,20}[,; ]{0,2}){0,4}") {
            let proxies = Proxies(vec!["10.0.0.0/8".parse().unwrap()]);
            let mut headers = HeaderMap::new();
            for (name, value) in [(X_FORWARDED_FOR, HeaderValue::from_bytes(&old)), (header::FORWARDED, new.parse())] {
                if let Ok(value) = value {
                    headers.append(name, value);
                }
            }
            let stranger: IpAddr = "192.0.2.1".parse().unwrap();
            prop_assert_eq!(proxies.client(stranger, &headers), stranger);
            proxies.client("10.0.0.1".parse().unwrap(), &headers);
        }
    }
}

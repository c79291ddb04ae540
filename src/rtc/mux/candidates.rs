use std::net::{IpAddr, UdpSocket};

use rtc::shared::ifaces::ifaces;

use super::Listen;

/// Type preference of host candidates over UDP (RFC 8445 section 5.1.2.2).
const UDP_PREFERENCE: u32 = 126;
/// The same over TCP: less than over UDP, and more than over a relay (RFC 6544 section 4.2).
const TCP_PREFERENCE: u32 = 90;
/// Direction preference of a passive host candidate (RFC 6544 section 4.2).
const PASSIVE: u32 = 4;

/// Addresses that the other side may reach this machine at, the best first.
///
/// Advertised ones take the place of those of their family; loopback stays, since nobody outside can mean it.
pub(super) fn addresses(listen: &Listen) -> Vec<IpAddr> {
    let mut found: Vec<IpAddr> = Vec::new();
    let mut add = |ip: IpAddr| {
        if !found.contains(&ip) {
            found.push(ip);
        }
    };
    let mut wildcards: Vec<bool> =
        listen.addresses.iter().filter(|ip| ip.is_unspecified()).map(IpAddr::is_ipv4).collect();
    if wildcards.contains(&false) {
        wildcards.insert(0, true);
    }
    for ip in listen.addresses.iter().filter(|ip| !ip.is_unspecified()) {
        add(*ip);
    }
    for ipv4 in wildcards {
        outward(ipv4).into_iter().for_each(&mut add);
        interfaces(ipv4).into_iter().for_each(&mut add);
    }
    // Whoever sits at the machine itself comes last; a stable sort keeps the order otherwise.
    found.sort_by_key(IpAddr::is_loopback);
    let any = |ipv4| listen.addresses.iter().any(|ip| ip.is_ipv4() == ipv4);
    let on_all = listen.addresses.contains(&std::net::Ipv6Addr::UNSPECIFIED.into());
    advertised(&found, [any(true) || on_all, any(false)], &listen.advertise)
}

/// `listens`: on IPv4, and on IPv6.
fn advertised(local: &[IpAddr], listens: [bool; 2], advertise: &[IpAddr]) -> Vec<IpAddr> {
    let replaced = |ip: &IpAddr| !ip.is_loopback() && advertise.iter().any(|other| other.is_ipv4() == ip.is_ipv4());
    let named = advertise.iter().filter(|ip| listens[usize::from(ip.is_ipv6())]).copied();
    named.chain(local.iter().filter(|ip| !replaced(ip)).copied()).collect()
}

/// The address that this machine reaches others from: that of its default route. Nothing is sent.
fn outward(ipv4: bool) -> Option<IpAddr> {
    let (from, to) = if ipv4 { ("0.0.0.0:0", "192.0.2.1:9") } else { ("[::]:0", "[2001:db8::1]:9") };
    let socket = UdpSocket::bind(from).ok()?;
    socket.connect(to).ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|ip| is_usable(*ip) && !ip.is_loopback())
}

fn interfaces(ipv4: bool) -> Vec<IpAddr> {
    let all = ifaces().unwrap_or_else(|error| {
        tracing::warn!(%error, "network interfaces cannot be listed; media.advertise names addresses instead");
        Vec::new()
    });
    let addresses = all.into_iter().filter_map(|interface| interface.addr).map(|address| address.ip());
    addresses.filter(|ip| ip.is_ipv4() == ipv4 && is_usable(*ip)).collect()
}

/// Link-local addresses mean nothing without the interface they belong to.
const fn is_usable(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !ip.is_link_local() && !ip.is_unspecified(),
        IpAddr::V6(ip) => !ip.is_unicast_link_local() && !ip.is_unspecified(),
    }
}

/// Candidate attributes (RFC 8839 section 5.1, RFC 6544 section 4.5) without `a=`: UDP for all addresses, then TCP.
pub(super) fn lines(addresses: &[IpAddr], port: u16) -> Vec<String> {
    let priority = |kind: u32, local: u32| (kind << 24) + (local << 8) + 255;
    let numbered = || addresses.iter().zip(0u32..);
    let udp = numbered().map(|(ip, n)| {
        let priority = priority(UDP_PREFERENCE, 65_535 - n);
        format!("candidate:{} 1 udp {priority} {ip} {port} typ host", n + 1)
    });
    let tcp = numbered().map(|(ip, n)| {
        let priority = priority(TCP_PREFERENCE, (PASSIVE << 13) + (8_191 - n));
        format!("candidate:{} 1 tcp {priority} {ip} {port} typ host tcptype passive", n + 1001)
    });
    udp.chain(tcp).collect()
}

/// Puts candidates into the first media section of a description that is not declined, in the place of all that the
/// stack has named there.
pub(in super::super) fn insert(sdp: &str, candidates: &[String]) -> String {
    let is_candidate = |line: &&str| line.starts_with("a=candidate:") || line.starts_with("a=end-of-candidates");
    let lines: Vec<&str> = sdp.lines().filter(|line| !is_candidate(line)).collect();
    let is_section = |line: &str| line.starts_with("m=");
    let declined = |line: &str| line.split(' ').nth(1) == Some("0");
    let first = lines.iter().position(|line| is_section(line) && !declined(line));
    let end =
        first.map(|at| lines[at + 1..].iter().position(|line| is_section(line)).map_or(lines.len(), |n| at + 1 + n));
    let mut out = String::with_capacity(sdp.len() + 100 * candidates.len());
    let mut push = |line: &str| {
        out.push_str(line);
        out.push_str("\r\n");
    };
    for at in 0..=lines.len() {
        if end == Some(at) {
            for candidate in candidates {
                push(&format!("a={candidate}"));
            }
            push("a=end-of-candidates");
        }
        if let Some(line) = lines.get(at) {
            push(line);
        }
    }
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn advertised_addresses_take_the_place_of_their_family() {
        let local = ips(&["10.0.0.5", "fd00::5", "127.0.0.1"]);
        assert_eq!(advertised(&local, [true; 2], &[]), local);
        let two = ips(&["203.0.113.7", "203.0.113.8"]);
        assert_eq!(advertised(&local, [true; 2], &two), ips(&["203.0.113.7", "203.0.113.8", "fd00::5", "127.0.0.1"]));
        let both = ips(&["203.0.113.7", "2001:db8::7"]);
        assert_eq!(advertised(&local, [true; 2], &both), ips(&["203.0.113.7", "2001:db8::7", "127.0.0.1"]));
        let only_ipv4 = advertised(&ips(&["127.0.0.1"]), [true, false], &both);
        assert_eq!(only_ipv4, ips(&["203.0.113.7", "127.0.0.1"]), "nothing listens on IPv6");
    }

    #[test]
    fn a_wildcard_means_every_interface_and_a_named_address_itself() {
        let listen = |address: &str| Listen { addresses: ips(&[address]), port: 0, advertise: Vec::new() };
        let all = addresses(&listen("0.0.0.0"));
        assert_eq!(all.last(), Some(&ips(&["127.0.0.1"])[0]));
        assert!(all.iter().all(|ip| ip.is_ipv4() && is_usable(*ip)), "{all:?}");
        assert_eq!(addresses(&listen("127.0.0.1")), ips(&["127.0.0.1"]));
    }

    #[test]
    fn udp_comes_first_and_priorities_fall() {
        let lines = lines(&ips(&["203.0.113.7", "2001:db8::7"]), 8189);
        assert_eq!(lines[0], "candidate:1 1 udp 2130706431 203.0.113.7 8189 typ host");
        assert_eq!(lines[3], "candidate:1002 1 tcp 1520434943 2001:db8::7 8189 typ host tcptype passive");
        let priorities: Vec<u32> = lines.iter().map(|line| line.split(' ').nth(3).unwrap().parse().unwrap()).collect();
        assert!(priorities.windows(2).all(|pair| pair[0] > pair[1]), "{priorities:?}");
    }

    #[test]
    fn candidates_go_into_the_first_section_that_is_not_declined() {
        let sdp = "v=0\r\nm=audio 0 X 0\r\nm=video 9 X 96\r\na=candidate:1 1 udp 1 127.0.0.1 5 typ host\r\na=mid:1\r\n\
                   m=application 9 X\r\na=mid:2\r\n";
        let line = "candidate:1 1 udp 2 10.0.0.5 8189 typ host".to_owned();
        assert_eq!(
            insert(sdp, &[line]),
            "v=0\r\nm=audio 0 X 0\r\nm=video 9 X 96\r\na=mid:1\r\na=candidate:1 1 udp 2 10.0.0.5 8189 typ host\r\n\
             a=end-of-candidates\r\nm=application 9 X\r\na=mid:2\r\n"
        );
    }

    #[test]
    fn the_way_out_is_an_address_of_this_machine() {
        if let Some(ip) = outward(true) {
            assert!(interfaces(true).contains(&ip));
        }
    }
}

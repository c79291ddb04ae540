use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Check, is_reachable};
use crate::config::Config;

const NAME: &str = "addresses";

/// The addresses that clients are offered for media.
pub(super) fn usable(config: &Config) -> Check {
    let show = |addresses: &[IpAddr]| addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ");
    if !config.media.advertise.is_empty() {
        return Check::ok(NAME, format!("advertised: {}", show(&config.media.advertise)));
    }
    let addresses = local_of(config);
    let reachable: Vec<_> = addresses.iter().copied().filter(|address| is_reachable(*address)).collect();
    if reachable.is_empty() {
        let advice = "only clients on this machine can connect: bring up a network, or set media.advertise";
        let found = if addresses.is_empty() { "none".to_owned() } else { show(&addresses) };
        return Check::warn(NAME, found, advice);
    }
    Check::ok(NAME, show(&reachable))
}

/// This machine's addresses that media is taken on and that others may reach; only if there are none, its own.
pub(super) fn listened(config: &Config) -> Vec<IpAddr> {
    let all = local_of(config);
    let reachable: Vec<_> = all.iter().copied().filter(|address| is_reachable(*address)).collect();
    if reachable.is_empty() { all.into_iter().filter(IpAddr::is_loopback).collect() } else { reachable }
}

fn local_of(config: &Config) -> Vec<IpAddr> {
    let listen = config.media.listen;
    if listen.is_unspecified() {
        local().into_iter().filter(|address| listen.is_ipv6() || address.is_ipv4()).collect()
    } else {
        vec![listen]
    }
}

/// This machine's addresses, as Linux lists them.
fn local() -> BTreeSet<IpAddr> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let mut addresses: BTreeSet<IpAddr> =
        parse_fib_trie(&read("/proc/net/fib_trie")).into_iter().map(IpAddr::V4).collect();
    addresses.extend(parse_if_inet6(&read("/proc/net/if_inet6")).into_iter().map(IpAddr::V6));
    addresses
}

/// Addresses of `/proc/net/fib_trie`: each stands in the line before its `/32 host LOCAL`.
fn parse_fib_trie(text: &str) -> Vec<Ipv4Addr> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let pairs = lines.windows(2).filter(|pair| pair[1] == "/32 host LOCAL");
    pairs.filter_map(|pair| pair[0].strip_prefix("|-- ")?.parse().ok()).collect()
}

/// Addresses of `/proc/net/if_inet6`: 32 hexadecimal digits at the start of each line.
fn parse_if_inet6(text: &str) -> Vec<Ipv6Addr> {
    let addresses = text.lines().filter_map(|line| line.split_whitespace().next()).filter(|hex| hex.len() == 32);
    addresses.filter_map(|hex| u128::from_str_radix(hex, 16).ok()).map(Ipv6Addr::from_bits).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::config::Sources;
    use crate::doctor::Status;

    #[test]
    fn local_addresses_are_read_and_networks_are_not() {
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n\
                    |-- 172.17.0.0\n        /16 link UNICAST\n     |-- 172.17.0.2\n        /32 host LOCAL\n\
                    |-- 172.17.255.255\n        /32 link BROADCAST\n     |-- 127.0.0.1\n        /32 host LOCAL\n";
        assert_eq!(parse_fib_trie(trie), [Ipv4Addr::new(172, 17, 0, 2), Ipv4Addr::LOCALHOST]);
        let inet6 = "00000000000000000000000000000001 01 80 10 80       lo\n\
                     20010db8000000000000000000000001 02 40 00 00     eth0\n";
        assert_eq!(parse_if_inet6(inet6), [Ipv6Addr::LOCALHOST, "2001:db8::1".parse().unwrap()]);
        assert!(local().contains(&IpAddr::V4(Ipv4Addr::LOCALHOST)));
    }

    #[test]
    fn advertised_addresses_count_and_loopback_alone_is_warned_of() {
        let check = |key: &str, value: &str| {
            let mut sources = Sources::default();
            sources.flag(key, "--set", value);
            usable(&Config::load(&sources).unwrap())
        };
        assert_eq!(check("media.advertise", "192.0.2.7").found, "advertised: 192.0.2.7");
        assert_eq!(check("media.listen", "127.0.0.1").status, Status::Warn);
        assert_eq!(check("media.listen", "192.0.2.7").status, Status::Ok);
    }
}

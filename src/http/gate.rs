//! How much one address may ask for: requests, new connections, and connections at a time.
//!
//! Each address has its own allowances, for as long as it is heard of; there is room for so many addresses, and those
//! beyond share one place. Nothing about an address is written anywhere.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::address::{Proxies, counted};
use crate::session::{Allowance, Rate};

/// Addresses that are known at a time, about 150 bytes each.
const MAX_ADDRESSES: usize = 65_536;
/// How long an address is known after it was heard last.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);

/// What one address may do. A rate that is missing does not bind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quota {
    /// Requests (`rate.requests_per_s`, `rate.request_burst`).
    pub requests: Option<Rate>,
    /// Connections that are opened (`rate.connections_per_s`, `rate.connection_burst`).
    pub connections: Option<Rate>,
    /// Connections at a time (`limits.connections_per_address`).
    pub open: Option<u32>,
    /// Whether this machine's own addresses are held to it, too.
    pub loopback: bool,
}

/// See the [module](self).
#[derive(Debug)]
pub struct Gate {
    quota: Quota,
    proxies: Proxies,
    visitors: Mutex<Visitors>,
}

#[derive(Debug, Default)]
struct Visitors {
    known: HashMap<IpAddr, Visitor>,
    swept: Option<Instant>,
}

#[derive(Debug)]
struct Visitor {
    requests: Option<Allowance>,
    connections: Option<Allowance>,
    open: u32,
    heard: Instant,
}

/// There are too many connections at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooMany;

/// A connection that is let in.
#[derive(Debug, Default)]
pub(super) struct Entry {
    /// Its place, where its address is held to anything.
    pub(super) place: Option<Place>,
    /// They come too fast, and another may come after this time.
    pub(super) wait: Option<Duration>,
}

/// The place of one connection among those of its address.
#[derive(Debug)]
pub(super) struct Place {
    gate: Arc<Gate>,
    address: IpAddr,
}

impl Gate {
    /// A gate with nobody in front of it. Connections of `proxies` are those of many, and are not held to anything.
    #[must_use]
    pub fn new(quota: Quota, proxies: Vec<IpNet>) -> Self {
        Self { quota, proxies: Proxies(proxies), visitors: Mutex::default() }
    }

    /// Who asks, when `peer` is at the other end of the connection.
    pub(super) const fn proxies(&self) -> &Proxies {
        &self.proxies
    }

    /// Lets a connection in, or says why not. One that comes too often has a place, too, as long as it is served to be
    /// told so.
    pub(super) fn connect(self: &Arc<Self>, now: Instant, peer: IpAddr) -> Result<Entry, TooMany> {
        let bound = self.quota.connections.is_some() || self.quota.open.is_some();
        if !bound || self.is_exempt(peer) || self.proxies.contain(peer) {
            return Ok(Entry::default());
        }
        let mut visitors = self.lock();
        let (address, visitor) = visitors.visitor(now, peer, &self.quota);
        if self.quota.open.is_some_and(|most| visitor.open >= most) {
            return Err(TooMany);
        }
        let wait = visitor.connections.as_mut().and_then(|allowance| (!allowance.take(now)).then(|| allowance.wait()));
        visitor.open += 1;
        Ok(Entry { place: Some(Place { gate: Arc::clone(self), address }), wait })
    }

    /// Lets a request in, or says when the next one may come.
    pub(super) fn request(&self, now: Instant, client: IpAddr) -> Result<(), Duration> {
        // A proxy on this machine is nobody whom loopback stands for: it asks for others.
        if self.quota.requests.is_none() || (self.is_exempt(client) && !self.proxies.contain(client)) {
            return Ok(());
        }
        let mut visitors = self.lock();
        let (_, visitor) = visitors.visitor(now, client, &self.quota);
        if let Some(allowance) = &mut visitor.requests
            && !allowance.take(now)
        {
            return Err(allowance.wait());
        }
        Ok(())
    }

    fn is_exempt(&self, address: IpAddr) -> bool {
        !self.quota.loopback && address.to_canonical().is_loopback()
    }

    fn lock(&self) -> MutexGuard<'_, Visitors> {
        self.visitors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Visitors {
    fn visitor(&mut self, now: Instant, address: IpAddr, quota: &Quota) -> (IpAddr, &mut Visitor) {
        let mut address = counted(address);
        if self.known.len() >= MAX_ADDRESSES && !self.known.contains_key(&address) {
            self.sweep(now);
            if self.known.len() >= MAX_ADDRESSES {
                address = IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED);
            }
        }
        let visitor = self.known.entry(address).or_insert_with(|| Visitor {
            requests: quota.requests.map(|rate| Allowance::new(now, rate)),
            connections: quota.connections.map(|rate| Allowance::new(now, rate)),
            open: 0,
            heard: now,
        });
        visitor.heard = now;
        (address, visitor)
    }

    /// Forgets who was not heard of for long; looks through all of them once a second at most.
    fn sweep(&mut self, now: Instant) {
        if self.swept.is_some_and(|swept| now < swept + Duration::from_secs(1)) {
            return;
        }
        self.swept = Some(now);
        self.known.retain(|_, visitor| visitor.open > 0 || now < visitor.heard + FORGOTTEN_AFTER);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(visitor) = self.gate.lock().known.get_mut(&self.address) {
            visitor.open = visitor.open.saturating_sub(1);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    fn gate(quota: Quota) -> Arc<Gate> {
        Arc::new(Gate::new(quota, vec!["10.0.0.0/8".parse().unwrap()]))
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    const SLOW: Option<Rate> = Some(Rate { per_second: 2, burst: 1 });

    #[test]
    fn each_address_has_its_own_rate_and_is_told_when_to_come_again() {
        let (gate, now) = (gate(Quota { requests: SLOW, ..Quota::default() }), crate::clock::now());
        assert_eq!(gate.request(now, ip("192.0.2.1")), Ok(()));
        assert_eq!(gate.request(now, ip("192.0.2.1")), Err(Duration::from_millis(500)));
        assert_eq!(gate.request(now, ip("192.0.2.2")), Ok(()));
        assert_eq!(gate.request(now + Duration::from_millis(500), ip("192.0.2.1")), Ok(()));
        assert_eq!(gate.request(now, ip("2001:db8::1")), Ok(()));
        assert!(gate.request(now, ip("2001:db8::2")).is_err(), "the same network");
    }

    #[test]
    fn this_machine_is_free_unless_it_is_named() {
        for loopback in [false, true] {
            let (gate, now) = (gate(Quota { requests: SLOW, loopback, ..Quota::default() }), crate::clock::now());
            gate.request(now, ip("127.0.0.1")).unwrap();
            assert_eq!(gate.request(now, ip("::ffff:127.0.0.1")).is_err(), loopback);
        }
    }

    #[test]
    fn connections_are_bound_in_rate_and_in_number_but_not_those_of_proxies() {
        let (now, address) = (crate::clock::now(), ip("192.0.2.1"));
        let few = gate(Quota { open: Some(2), ..Quota::default() });
        let _first = few.connect(now, address).unwrap();
        let second = few.connect(now, address).unwrap();
        assert_eq!(few.connect(now, address).err(), Some(TooMany));
        drop(second);
        assert!(few.connect(now, address).is_ok());
        for _ in 0..9 {
            std::mem::forget(few.connect(now, ip("10.1.1.1")).unwrap());
        }
        let slow = gate(Quota { connections: SLOW, ..Quota::default() });
        let entries = [(); 2].map(|()| slow.connect(now, address).unwrap());
        assert_eq!(entries.each_ref().map(|entry| entry.wait), [None, Some(Duration::from_millis(500))]);
        assert!(entries[1].place.is_some(), "it counts for as long as it is told so");
    }

    #[test]
    fn a_crowd_takes_bounded_room_and_is_forgotten() {
        let (gate, now) = (gate(Quota { requests: SLOW, ..Quota::default() }), crate::clock::now());
        let addresses = (0..70_000_u32).map(|number| IpAddr::from((0x0b00_0000 + number).to_be_bytes()));
        let crowd = addresses.filter(|&address| gate.request(now, address).is_ok()).count();
        // The last ones share a place.
        assert_eq!(crowd, MAX_ADDRESSES + 1);
        assert_eq!(gate.lock().known.len(), MAX_ADDRESSES + 1);
        assert!(gate.request(now + Duration::from_millis(499), ip("192.0.2.1")).is_err());
        gate.request(now + FORGOTTEN_AFTER, ip("192.0.2.1")).unwrap();
        assert_eq!(gate.lock().known.len(), 2);
    }
}

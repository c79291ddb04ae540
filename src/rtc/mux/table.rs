//! Whom a datagram is for, and whether it is let through. Pure: bytes and addresses enter, sessions' inboxes fill.
//!
//! A check of connectivity names its session by user fragment and proves with the session's password that it may;
//! from then on everything from its address is the session's. Nothing else gets in, nothing is answered, and whatever
//! is not authentic leaves no trace but a count.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;

use super::flow::{Flow, Link, Linked};
use super::stun::{self, Class, TransactionId};

/// Longest datagram that is taken: what the stack has room for.
pub(super) const MAX_DATAGRAM: usize = 2000;
/// Sessions that may share an address. One is usual; whoever is able to send from another's address can claim it for a
/// session of his own, and must not get the other's datagrams alone by that.
const SHARING: usize = 8;

/// Why a datagram was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dropped {
    /// Nobody has vouched for its source.
    UnknownSource,
    /// It names a session, but was not made with its password.
    Unauthentic,
    /// It was recorded elsewhere and sent again.
    Replayed,
    /// It is neither STUN nor anything else of use.
    Malformed,
    /// The session has no place for more.
    Full,
    /// Its address is that of too many sessions.
    Shared,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Table(RwLock<Sessions>);

#[derive(Debug, Default)]
struct Sessions {
    by_ufrag: HashMap<Arc<str>, Arc<Flow>>,
    by_source: HashMap<SocketAddr, Vec<Arc<Flow>>>,
    by_transaction: HashMap<TransactionId, (SocketAddr, Arc<Flow>)>,
}

impl Table {
    /// Makes a session reachable with these credentials, and believes answers made with the other side's password.
    pub(super) fn register(&self, flow: &Arc<Flow>, ufrag: &str, password: &str, remote_password: &str) {
        let ufrag: Arc<str> = ufrag.into();
        flow.add_remote(remote_password);
        let mut sessions = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if flow.is_gone.load(Ordering::Relaxed) {
            return;
        }
        let outdated = flow.add_local(Arc::clone(&ufrag), password);
        if let Some(outdated) = outdated {
            sessions.by_ufrag.remove(&outdated);
        }
        sessions.by_ufrag.insert(ufrag, Arc::clone(flow));
    }

    /// Whether nobody is reachable.
    pub(super) fn is_empty(&self) -> bool {
        self.read(|sessions| sessions.by_ufrag.is_empty())
    }

    /// Forgets a session.
    pub(super) fn remove(&self, flow: &Arc<Flow>) {
        let mut sessions = self.0.write().unwrap_or_else(PoisonError::into_inner);
        flow.is_gone.store(true, Ordering::Relaxed);
        for ufrag in flow.ufrags() {
            sessions.by_ufrag.remove(&ufrag);
        }
        for transaction in flow.asked() {
            sessions.by_transaction.remove(&transaction);
        }
        for address in flow.addresses() {
            sessions.leave(address, flow);
        }
        flow.clear();
    }

    /// Remembers that a session asks `to` for an answer.
    pub(super) fn ask(&self, flow: &Arc<Flow>, transaction: TransactionId, to: SocketAddr) {
        let mut sessions = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if flow.is_gone.load(Ordering::Relaxed) {
            return;
        }
        if let Some(forgotten) = flow.ask(transaction) {
            sessions.by_transaction.remove(&forgotten);
        }
        sessions.by_transaction.insert(transaction, (to, Arc::clone(flow)));
    }

    /// Takes a datagram that came over UDP.
    pub(super) fn handle_udp(&self, datagram: &[u8], from: SocketAddr, link: Link) -> Result<(), Dropped> {
        if !(1..=MAX_DATAGRAM).contains(&datagram.len()) {
            return Err(Dropped::Malformed);
        }
        if stun::is_stun(datagram)
            && let Some(flow) = self.vouched(datagram, from, link, None)?
        {
            return deliver(&flow, from, datagram);
        }
        let sessions = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let flows = sessions.by_source.get(&from).ok_or(Dropped::UnknownSource)?;
        let mut delivered = Ok(());
        for flow in flows {
            delivered = delivered.and(deliver(flow, from, datagram));
        }
        delivered
    }

    /// Takes a datagram that came over a connection, which is of the session that its first check names.
    pub(super) fn handle_tcp(
        &self,
        datagram: &[u8],
        from: SocketAddr,
        link: Link,
        session: &mut Option<Arc<Flow>>,
    ) -> Result<(), Dropped> {
        if !(1..=MAX_DATAGRAM).contains(&datagram.len()) {
            return Err(Dropped::Malformed);
        }
        if stun::is_stun(datagram)
            && let Some(flow) = self.vouched(datagram, from, link, session.as_ref())?
        {
            *session = Some(flow);
        }
        deliver(session.as_ref().ok_or(Dropped::UnknownSource)?, from, datagram)
    }

    /// The session whose other side has made this message, its source believed from now on; none where the message
    /// says nothing about that, so that its source has to be believed already.
    fn vouched(
        &self,
        datagram: &[u8],
        from: SocketAddr,
        link: Link,
        bound: Option<&Arc<Flow>>,
    ) -> Result<Option<Arc<Flow>>, Dropped> {
        let message = stun::parse(datagram).ok_or(Dropped::Malformed)?;
        let flow = match message.class {
            Class::Indication => return Ok(None),
            Class::Request => {
                let ufrag = message.ufrag.filter(|_| message.is_check).ok_or(Dropped::Malformed)?;
                let flow = self.read(|sessions| sessions.by_ufrag.get(ufrag).cloned()).ok_or(Dropped::UnknownSource)?;
                if !flow.trusts_check(&message, ufrag) {
                    return Err(Dropped::Unauthentic);
                }
                if !flow.first_or_again(message.transaction, from, &link) {
                    return Err(Dropped::Replayed);
                }
                flow
            }
            Class::Success | Class::Error => {
                let asked = self.read(|sessions| sessions.by_transaction.get(&message.transaction).cloned());
                let (_, flow) = asked.filter(|(to, _)| *to == from).ok_or(Dropped::UnknownSource)?;
                if !flow.trusts_answer(&message) {
                    return Err(Dropped::Unauthentic);
                }
                flow
            }
        };
        if bound.is_some_and(|bound| !Arc::ptr_eq(bound, &flow)) {
            return Err(Dropped::UnknownSource);
        }
        if message.class != Class::Error {
            self.believe(&flow, from, link, message.nominates)?;
        }
        Ok(Some(flow))
    }

    fn believe(&self, flow: &Arc<Flow>, from: SocketAddr, link: Link, chosen: bool) -> Result<(), Dropped> {
        let shared = matches!(link, Link::Udp { .. });
        // One lock over both sides, so that what one of them knows of the other is true.
        let mut sessions = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if flow.is_gone.load(Ordering::Relaxed) {
            return Err(Dropped::UnknownSource);
        }
        match flow.link(from, link, chosen) {
            Linked::Before => return Ok(()),
            Linked::Refused => return Err(Dropped::UnknownSource),
            Linked::Now(displaced) => displaced.into_iter().for_each(|displaced| sessions.leave(displaced, flow)),
        }
        if shared {
            let flows = sessions.by_source.entry(from).or_default();
            if flows.len() == SHARING {
                flow.unlink(from);
                return Err(Dropped::Shared);
            }
            flows.push(Arc::clone(flow));
        }
        Ok(())
    }

    fn read<T>(&self, find: impl FnOnce(&Sessions) -> T) -> T {
        find(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Entries of each kind: what is left after all sessions have gone is a leak.
    pub(super) fn sizes(&self) -> [usize; 3] {
        self.read(|sessions| [sessions.by_ufrag.len(), sessions.by_source.len(), sessions.by_transaction.len()])
    }
}

impl Sessions {
    fn leave(&mut self, address: SocketAddr, flow: &Arc<Flow>) {
        if let Some(flows) = self.by_source.get_mut(&address) {
            flows.retain(|other| !Arc::ptr_eq(other, flow));
            if flows.is_empty() {
                self.by_source.remove(&address);
            }
        }
    }
}

fn deliver(flow: &Flow, from: SocketAddr, datagram: &[u8]) -> Result<(), Dropped> {
    if flow.push(from, Bytes::copy_from_slice(datagram)) { Ok(()) } else { Err(Dropped::Full) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::task::{Context, Poll, Waker};

    use proptest::prelude::*;
    use tokio::sync::mpsc;

    use super::super::flow::{INBOX, MAX_SOURCES, MAX_TRANSACTIONS};
    use super::super::stun::testing::{CONTROLLING, PRIORITY, check, message};
    use super::*;

    const UDP: Link = Link::Udp { socket: 0, local: None };

    fn address(last: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], last))
    }

    /// A table with a session of user fragment `a`, and one of `b`.
    fn table() -> (Table, Arc<Flow>, Arc<Flow>) {
        let (table, first, second) = (Table::default(), Arc::new(Flow::new()), Arc::new(Flow::new()));
        table.register(&first, "a", "password of a", "remote of a");
        table.register(&second, "b", "password of b", "remote of b");
        (table, first, second)
    }

    /// What waits for a session.
    fn received(flow: &Flow) -> Vec<(SocketAddr, Bytes)> {
        let mut cx = Context::from_waker(Waker::noop());
        let mut all = Vec::new();
        for ipv4 in [true, false] {
            while let Poll::Ready(next) = flow.poll_pop(&mut cx, ipv4) {
                all.push(next);
            }
        }
        all
    }

    fn answer(kind: u16, transaction: u8, password: &str) -> Vec<u8> {
        message(kind, [transaction; 12], &[], Some(password))
    }

    #[test]
    fn a_check_opens_the_way_for_its_address_and_its_session_alone() {
        let (table, a, b) = table();
        assert_eq!(table.handle_udp(b"\x16dtls", address(1), UDP), Err(Dropped::UnknownSource));
        assert_eq!(table.handle_udp(&check("a", "password of a", 1), address(1), UDP), Ok(()));
        assert_eq!(table.handle_udp(b"\x16dtls", address(1), UDP), Ok(()));
        assert_eq!(table.handle_udp(b"\x16dtls", address(2), UDP), Err(Dropped::UnknownSource));
        let got: Vec<_> = received(&a).into_iter().map(|(from, bytes)| (from, bytes.len())).collect();
        assert_eq!(got, [(address(1), check("a", "password of a", 1).len()), (address(1), 5)]);
        assert!(received(&b).is_empty());
    }

    #[test]
    fn a_check_with_a_wrong_password_opens_nothing_and_leaves_nothing() {
        let (table, a, b) = table();
        let before = table.sizes();
        for number in 0..200 {
            let forged = check("a", "password of b", number);
            assert_eq!(table.handle_udp(&forged, address(number.into()), UDP), Err(Dropped::Unauthentic));
            let nobody = check("c", "password of a", number);
            assert_eq!(table.handle_udp(&nobody, address(number.into()), UDP), Err(Dropped::UnknownSource));
        }
        assert_eq!(table.sizes(), before);
        assert!(received(&a).is_empty() && received(&b).is_empty());
        assert!(a.addresses().is_empty());
    }

    #[test]
    fn a_recorded_check_opens_nothing_elsewhere() {
        let (table, a, _) = table();
        let recorded = check("a", "password of a", 1);
        assert_eq!(table.handle_udp(&recorded, address(1), UDP), Ok(()));
        assert_eq!(table.handle_udp(&recorded, address(2), UDP), Err(Dropped::Replayed));
        assert_eq!(table.handle_udp(&recorded, address(1), UDP), Ok(()), "a retransmission is none");
        assert_eq!(a.addresses(), [address(1)]);
    }

    #[test]
    fn an_answer_counts_only_from_whom_it_was_asked_of_and_with_their_password() {
        let (table, a, _) = table();
        table.ask(&a, [9; 12], address(1));
        assert_eq!(table.handle_udp(&answer(0x0101, 9, "remote of a"), address(2), UDP), Err(Dropped::UnknownSource));
        assert_eq!(table.handle_udp(&answer(0x0101, 9, "remote of b"), address(1), UDP), Err(Dropped::Unauthentic));
        assert_eq!(table.handle_udp(&answer(0x0101, 8, "remote of a"), address(1), UDP), Err(Dropped::UnknownSource));
        assert_eq!(table.handle_udp(&answer(0x0111, 9, "remote of a"), address(1), UDP), Ok(()));
        assert_eq!(
            table.handle_udp(b"\x16", address(1), UDP),
            Err(Dropped::UnknownSource),
            "an error vouches for none"
        );
        assert_eq!(table.handle_udp(&answer(0x0101, 9, "remote of a"), address(1), UDP), Ok(()));
        assert_eq!(table.handle_udp(b"\x16", address(1), UDP), Ok(()));
    }

    #[test]
    fn whoever_claims_anothers_address_does_not_get_its_datagrams_alone() {
        let (table, a, b) = table();
        table.handle_udp(&check("a", "password of a", 1), address(1), UDP).unwrap();
        table.handle_udp(&check("b", "password of b", 2), address(1), UDP).unwrap();
        received(&a);
        received(&b);
        table.handle_udp(b"\x80rtp", address(1), UDP).unwrap();
        assert_eq!((received(&a).len(), received(&b).len()), (1, 1));
        table.remove(&b);
        table.handle_udp(b"\x80rtp", address(1), UDP).unwrap();
        assert_eq!(received(&a).len(), 1);
    }

    #[test]
    fn an_address_of_too_many_sessions_is_told_and_has_room_again_later() {
        let table = Table::default();
        let flows: Vec<_> = (0..=SHARING).map(|_| Arc::new(Flow::new())).collect();
        for (number, flow) in flows.iter().enumerate() {
            table.register(flow, &format!("u{number}"), "password", "remote");
        }
        let claim = |number: usize, transaction: u8| {
            table.handle_udp(&check(&format!("u{number}"), "password", transaction), address(1), UDP)
        };
        let fates: Vec<_> = (0..=SHARING).map(|number| claim(number, u8::try_from(number).unwrap())).collect();
        assert_eq!(fates.iter().filter(|fate| fate.is_ok()).count(), SHARING);
        assert_eq!(fates[SHARING], Err(Dropped::Shared));
        table.remove(&flows[0]);
        assert_eq!(claim(SHARING, 100), Ok(()));
        received(&flows[SHARING]);
        table.handle_udp(b"\x80rtp", address(1), UDP).unwrap();
        assert_eq!(received(&flows[SHARING]).len(), 1);
    }

    #[test]
    fn a_check_is_answered_where_it_came_and_media_goes_where_it_was_chosen_to() {
        let (table, a, _) = table();
        let at = |last: u8| Link::Udp { socket: 0, local: Some([10, 0, 0, last].into()) };
        let local = |link: Option<Link>| match link {
            Some(Link::Udp { local: Some(std::net::IpAddr::V4(ip)), .. }) => ip.octets()[3],
            other => unreachable!("{other:?}"),
        };
        table.handle_udp(&check("a", "password of a", 1), address(1), at(1)).unwrap();
        table.handle_udp(&check("a", "password of a", 2), address(1), at(2)).unwrap();
        assert_eq!((local(a.link_of_check([1; 12])), local(a.link_of_check([2; 12]))), (1, 2));
        assert_eq!(local(a.link_to(address(1))), 1);
        let nominating = [(6, &b"a:x"[..]), PRIORITY, CONTROLLING, (0x0025, &[])];
        let nominating = message(1, [3; 12], &nominating, Some("password of a"));
        table.handle_udp(&nominating, address(1), at(2)).unwrap();
        assert_eq!(local(a.link_to(address(1))), 2);
    }

    #[test]
    fn an_ice_restart_keeps_the_credentials_before_until_the_next() {
        let (table, a, _) = table();
        table.register(&a, "a2", "second", "remote of a");
        for (ufrag, password, number) in [("a", "password of a", 1), ("a2", "second", 2)] {
            assert_eq!(table.handle_udp(&check(ufrag, password, number), address(1), UDP), Ok(()));
        }
        table.register(&a, "a3", "third", "remote of a");
        assert_eq!(table.handle_udp(&check("a", "password of a", 3), address(1), UDP), Err(Dropped::UnknownSource));
        assert_eq!(table.handle_udp(&check("a3", "third", 4), address(1), UDP), Ok(()));
    }

    #[test]
    fn what_a_session_remembers_is_bounded_and_goes_with_it() {
        let (table, a, b) = table();
        let many = u16::try_from(MAX_SOURCES + MAX_TRANSACTIONS + 10).unwrap();
        for number in 0..many {
            let [high, low] = number.to_be_bytes();
            let transaction = [high, low, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            let check = message(1, transaction, &[(6, b"a:x"), PRIORITY, CONTROLLING], Some("password of a"));
            table.handle_udp(&check, address(number), UDP).unwrap();
            received(&a);
            table.ask(&a, transaction, address(number));
        }
        assert_eq!(a.addresses().len(), MAX_SOURCES);
        assert_eq!(table.sizes(), [2, MAX_SOURCES, MAX_TRANSACTIONS]);
        assert_eq!(table.handle_udp(b"\x80", address(many - 1), UDP), Ok(()), "the newest stays");
        assert_eq!(table.handle_udp(b"\x80", address(0), UDP), Err(Dropped::UnknownSource));
        table.remove(&a);
        table.remove(&b);
        assert_eq!(table.sizes(), [0, 0, 0]);
        // What was under way meanwhile leaves nothing behind either.
        table.ask(&a, [9; 12], address(1));
        assert_eq!(table.believe(&a, address(1), UDP, true), Err(Dropped::UnknownSource));
        table.register(&a, "late", "password of a", "remote of a");
        assert_eq!((table.sizes(), a.addresses().len()), ([0, 0, 0], 0));
    }

    #[test]
    fn a_session_that_does_not_read_loses_the_newest() {
        let (table, a, _) = table();
        table.handle_udp(&check("a", "password of a", 1), address(1), UDP).unwrap();
        let fates: Vec<_> = (0..INBOX).map(|_| table.handle_udp(b"\x80", address(1), UDP)).collect();
        assert_eq!(fates.iter().filter(|fate| **fate == Err(Dropped::Full)).count(), 1);
        assert_eq!(received(&a).len(), INBOX);
    }

    #[test]
    fn a_connection_belongs_to_the_session_that_its_first_check_names() {
        let (table, a, _) = table();
        let (connection, _queue) = mpsc::channel(1);
        let (link, mut session) = (Link::Tcp(connection.clone()), None);
        let mut take = |datagram: &[u8]| table.handle_tcp(datagram, address(1), link.clone(), &mut session);
        assert_eq!(take(b"\x16dtls"), Err(Dropped::UnknownSource));
        assert_eq!(take(&check("a", "password of a", 1)), Ok(()));
        assert_eq!(take(b"\x16dtls"), Ok(()));
        assert_eq!(take(&check("b", "password of b", 2)), Err(Dropped::UnknownSource));
        // What comes over UDP from an address of the same number is somebody else.
        assert_eq!(table.handle_udp(b"\x16", address(1), UDP), Err(Dropped::UnknownSource));
        assert_eq!(table.handle_udp(&check("a", "password of a", 3), address(1), UDP), Err(Dropped::UnknownSource));
        assert!(matches!(a.link_to(address(1)), Some(Link::Tcp(_))));
        a.hang_up(address(1), &connection);
        assert!(a.link_to(address(1)).is_none());
    }

    proptest! {
        #[test]
        fn nothing_gets_in_without_the_password(
            datagrams in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..120), 0u16..8, any::<bool>()), 0..60),
        ) {
            let (table, a, b) = table();
            for (bytes, from, as_check) in datagrams {
                let bytes = if as_check { check("a", &String::from_utf8_lossy(&bytes), 1) } else { bytes };
                prop_assert!(table.handle_udp(&bytes, address(from), UDP).is_err());
            }
            prop_assert!(received(&a).is_empty() && received(&b).is_empty());
            prop_assert_eq!(table.sizes(), [2, 0, 0]);
        }
    }
}

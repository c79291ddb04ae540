//! What the other side names as its candidates, before the stack hears of it.

/// Candidates of a peer that are taken at most.
const MAX_REMOTE_CANDIDATES: usize = 256;

/// Candidates that the other side names, of one generation of ICE; all are kept, paired and checked by the stack.
#[derive(Debug, Default)]
pub(super) struct RemoteCandidates {
    ufrag: String,
    count: usize,
}

impl RemoteCandidates {
    /// Counts anew where an offer restarts ICE.
    fn begin(&mut self, offer: &str) {
        let ufrag = offer.lines().find_map(|line| line.strip_prefix("a=ice-ufrag:")).unwrap_or_default().trim();
        if self.ufrag != ufrag {
            *self = Self { ufrag: ufrag.to_owned(), count: 0 };
        }
    }

    /// The offer without candidates that are of no use, or too many.
    pub(super) fn filter(&mut self, offer: &str) -> String {
        self.begin(offer);
        let mut keeps = |line: &&str| {
            let Some(line) = line.strip_prefix("a=").filter(|line| line.starts_with("candidate:")) else { return true };
            is_of_use(line) && self.take()
        };
        offer.split_inclusive('\n').filter(|line| keeps(line)).collect()
    }

    /// Takes one more, if there is room.
    pub(super) const fn take(&mut self) -> bool {
        self.count += 1;
        self.count <= MAX_REMOTE_CANDIDATES
    }
}

/// Whether the stack can do anything with a candidate: not with names of multicast DNS, by which browsers hide host
/// addresses, and not with TCP, since this side takes connections and makes none to wherever somebody says.
pub(super) fn is_of_use(candidate: &str) -> bool {
    // Between the same spaces as the stack sees, or something else would be looked at than is taken.
    let mut words = candidate.split_whitespace().skip(2);
    let is_tcp = words.next().is_some_and(|transport| !transport.eq_ignore_ascii_case("udp"));
    !is_tcp && words.nth(1).is_none_or(|address| !address.to_ascii_lowercase().ends_with(".local"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_multicast_dns_and_tcp_are_of_no_use() {
        assert!(!is_of_use("candidate:1 1 udp 1 8e2f.local 9 typ host"));
        assert!(!is_of_use("candidate:1 1 udp 1 8E2F.Local 9 typ host"));
        for space in ['\u{a0}', '\u{2003}', '\u{85}'] {
            let hidden = format!("candidate:1{space}1 tcp 1 169.254.169.254 80 typ host tcptype passive");
            assert!(!is_of_use(&hidden), "{hidden}");
        }
        assert!(!is_of_use("candidate:1 1 TCP 1 169.254.169.254 80 typ host tcptype passive"));
        assert!(is_of_use("candidate:1 1 UDP 1 10.0.0.1 9 typ host"));
        assert!(is_of_use(""), "the end of candidates");
    }

    #[test]
    fn candidates_are_counted_until_ice_restarts() {
        let mut named = RemoteCandidates::default();
        named.begin("a=ice-ufrag:one\r\n");
        assert_eq!((0..300).filter(|_| named.take()).count(), MAX_REMOTE_CANDIDATES);
        named.begin("a=ice-ufrag:one\r\n");
        assert!(!named.take());
        named.begin("a=ice-ufrag:two\r\n");
        assert!(named.take());
    }

    #[test]
    fn an_offer_keeps_what_is_of_use() {
        let offer = "a=ice-ufrag:one\r\na=candidate:1 1 tcp 1 10.0.0.1 9 typ host tcptype active\r\n\
                     a=candidate:2 1 udp 1 10.0.0.1 9 typ host\r\na=end-of-candidates\r\n";
        let kept = RemoteCandidates::default().filter(offer);
        assert_eq!(kept, "a=ice-ufrag:one\r\na=candidate:2 1 udp 1 10.0.0.1 9 typ host\r\na=end-of-candidates\r\n");
    }
}

use std::collections::HashSet;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ring::{digest, hmac};

use super::{Owner, is_name};

/// The header that proves that a server forwards a request.
pub const HEADER: &str = "saccade-forwarded";
/// The header of an answer to a request that was not believed; its value is the reason.
pub const REFUSED: &str = "saccade-refused";
/// By how much the clocks of two servers may differ, the way of the request included.
pub const WINDOW: Duration = Duration::from_secs(30);
/// Proofs that are remembered for each generation of [`Seen`], about 50 bytes each.
const MAX_SEEN: usize = 200_000;

type Nonce = [u8; 16];

/// What of a request is proven. All of it is as it goes over the wire.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// `GET`.
    pub method: &'a str,
    /// Path and query.
    pub target: &'a str,
    /// `Host`, as the client wrote it; empty where there is none.
    pub host: &'a [u8],
    /// `Authorization`; empty where there is none.
    pub authorization: &'a [u8],
    /// All of it.
    pub body: &'a [u8],
}

/// What a proof says beside that the request is genuine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    /// The server that forwards the request.
    pub from: String,
    /// The client that asked it, if that came over a socket.
    pub client: Option<IpAddr>,
}

/// Why a request is not believed to be another server's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is no proof, or none that can be read.
    #[error("it has no proof of another server")]
    Missing,
    /// It was not made with this cluster's secret, or for another request.
    #[error("its proof is of another secret or of another request; cluster.secret has to be the same on all servers")]
    Forged,
    /// It is for a server of another name.
    #[error("its proof is for another server; cluster.advertise of that one leads here")]
    Misdirected,
    /// It was made long ago, or will be.
    #[error("its proof is not of this time; the clocks of the servers differ by more than 30 s")]
    Late,
    /// It was seen before.
    #[error("its proof was used before")]
    Replayed,
    /// More came than are remembered.
    #[error("too many requests are forwarded at a time")]
    Full,
}

impl Refused {
    /// For metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Forged => "forged",
            Self::Misdirected => "misdirected",
            Self::Late => "late",
            Self::Replayed => "replayed",
            Self::Full => "full",
        }
    }
}

/// The secrets, to sign and to check with (HMAC-SHA256, RFC 2104).
#[derive(Clone)]
pub(super) struct Key {
    first: hmac::Key,
    others: Vec<hmac::Key>,
}

/// What the header holds.
struct Claim<'a> {
    from: &'a str,
    to: &'a str,
    time: u64,
    nonce: &'a str,
    client: &'a str,
}

impl Key {
    /// Of secrets, one a line: the first signs, and what any of them has signed is good.
    pub(super) fn new(secrets: &str) -> Self {
        let mut keys = lines(secrets).map(|secret| hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()));
        let first = keys.next().unwrap_or_else(|| hmac::Key::new(hmac::HMAC_SHA256, &[]));
        Self { first, others: keys.collect() }
    }

    /// What says that a server of this cluster wrote that the owner has what `key` names.
    pub(super) fn seal(&self, key: &str, owner: &Owner) -> String {
        hex(hmac::sign(&self.first, &entry(key, owner)).as_ref())
    }

    /// Whether it says so. In constant time.
    pub(super) fn is_sealed(&self, key: &str, owner: &Owner, seal: &str) -> bool {
        bytes(seal).is_some_and(|tag: [u8; 32]| self.verify(&entry(key, owner), &tag))
    }

    /// In constant time for each secret.
    fn verify(&self, text: &[u8], tag: &[u8]) -> bool {
        std::iter::once(&self.first).chain(&self.others).any(|key| hmac::verify(key, text, tag).is_ok())
    }

    pub(super) fn sign(
        &self,
        (from, to): (&str, &str),
        request: &Request<'_>,
        client: Option<IpAddr>,
        now: SystemTime,
        nonce: Nonce,
    ) -> String {
        let (time, nonce) = (millis(now), hex(&nonce));
        let client = client.map_or_else(|| "-".to_owned(), |client| client.to_string());
        let claim = Claim { from, to, time, nonce: &nonce, client: &client };
        let tag = hmac::sign(&self.first, &claim.text(request));
        format!("from={from};to={to};time={time};nonce={nonce};client={client};mac={}", hex(tag.as_ref()))
    }

    pub(super) fn check(
        &self,
        header: &str,
        me: &str,
        request: &Request<'_>,
        now: SystemTime,
    ) -> Result<(Proven, Nonce), Refused> {
        let (claim, tag) = Claim::parse(header).ok_or(Refused::Missing)?;
        if !self.verify(&claim.text(request), &tag) {
            return Err(Refused::Forged);
        }
        if claim.to != me {
            return Err(Refused::Misdirected);
        }
        if millis(now).abs_diff(claim.time) > u64::try_from(WINDOW.as_millis()).unwrap_or(u64::MAX) {
            return Err(Refused::Late);
        }
        let nonce = bytes(claim.nonce).ok_or(Refused::Missing)?;
        let client = match claim.client {
            "-" => None,
            client => Some(client.parse().map_err(|_| Refused::Missing)?),
        };
        Ok((Proven { from: claim.from.to_owned(), client }, nonce))
    }
}

impl<'a> Claim<'a> {
    /// Also gives the tag. The order is fixed, so that there is one way to write each.
    fn parse(header: &'a str) -> Option<(Self, [u8; 32])> {
        let mut parts = header.split(';');
        let mut next = |name: &str| parts.next()?.strip_prefix(name)?.strip_prefix('=');
        let (from, to) = (next("from")?, next("to")?);
        let time = next("time")?.parse().ok()?;
        let (nonce, client) = (next("nonce")?, next("client")?);
        let tag = bytes(next("mac")?)?;
        let is_whole = parts.next().is_none() && is_name(from) && is_name(to);
        is_whole.then_some((Self { from, to, time, nonce, client }, tag))
    }

    /// What is signed: no part can hold the end of a line.
    fn text(&self, request: &Request<'_>) -> Vec<u8> {
        let Self { from, to, time, nonce, client } = self;
        let mut text = format!("saccade-forwarded 1\n{from}\n{to}\n{time}\n{nonce}\n{client}\n").into_bytes();
        let body = hex(digest::digest(&digest::SHA256, request.body).as_ref());
        let Request { method, target, host, authorization, body: _ } = request;
        for part in [method.as_bytes(), target.as_bytes(), host, authorization, body.as_bytes()] {
            text.extend_from_slice(part);
            text.push(b'\n');
        }
        text
    }
}

/// Proofs that were seen, each for at least as long as it counts: twice the [`WINDOW`], since one may be of the future.
pub(super) struct Seen {
    new: HashSet<Nonce>,
    old: HashSet<Nonce>,
    turned: Instant,
}

impl Seen {
    pub(super) fn new(now: Instant) -> Self {
        Self { new: HashSet::new(), old: HashSet::new(), turned: now }
    }

    /// Remembers a proof, unless it was seen.
    pub(super) fn take(&mut self, now: Instant, nonce: Nonce) -> Result<(), Refused> {
        if now >= self.turned + 2 * WINDOW {
            // Those of the last generation are over if there was none since.
            let is_next = now < self.turned + 4 * WINDOW;
            self.old = if is_next { std::mem::take(&mut self.new) } else { HashSet::new() };
            self.new.clear();
            self.turned = now;
        }
        if self.old.contains(&nonce) || self.new.contains(&nonce) {
            return Err(Refused::Replayed);
        }
        if self.new.len() >= MAX_SEEN {
            return Err(Refused::Full);
        }
        self.new.insert(nonce);
        Ok(())
    }
}

/// Secrets of a text, one a line.
pub(super) fn lines(secrets: &str) -> impl Iterator<Item = &str> {
    secrets.lines().map(str::trim).filter(|secret| !secret.is_empty())
}

/// What an entry's seal covers: no name of a key or of an owner holds the end of a line.
fn entry(key: &str, Owner { name, url }: &Owner) -> Vec<u8> {
    format!("saccade-owner 1\n{key}\n{name}\n{url}\n").into_bytes()
}

fn millis(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // A string takes whatever is written.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn bytes<const N: usize>(digits: &str) -> Option<[u8; N]> {
    if digits.len() != 2 * N || !digits.bytes().all(|one| one.is_ascii_digit() || (b'a'..=b'f').contains(&one)) {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, at) in bytes.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(digits.get(at..at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock;

    const REQUEST: Request<'static> = Request {
        method: "PATCH",
        target: "/v1/sessions/a?x=1",
        host: b"vision.example",
        authorization: b"Bearer t",
        body: b"a=candidate",
    };
    const NOW: Duration = Duration::from_secs(1_800_000_000);

    fn at(time: Duration) -> SystemTime {
        UNIX_EPOCH + time
    }

    fn signed() -> (Key, String) {
        let key = Key::new(&"7".repeat(32));
        let header = key.sign(("a", "b"), &REQUEST, Some([192, 0, 2, 1].into()), at(NOW), [1; 16]);
        (key, header)
    }

    fn refusal(key: &Key, header: &str, me: &str, request: &Request<'_>, now: Duration) -> Refused {
        key.check(header, me, request, at(now)).expect_err("a refusal")
    }

    #[test]
    fn a_proof_says_who_asks_and_counts_for_half_a_minute() {
        let (key, header) = signed();
        let proven = Proven { from: "a".into(), client: Some([192, 0, 2, 1].into()) };
        for now in [NOW - WINDOW, NOW, NOW + WINDOW] {
            assert_eq!(key.check(&header, "b", &REQUEST, at(now)), Ok((proven.clone(), [1; 16])));
        }
        let just = Duration::from_millis(1);
        for now in [NOW - WINDOW - just, NOW + WINDOW + just, Duration::ZERO] {
            assert_eq!(refusal(&key, &header, "b", &REQUEST, now), Refused::Late);
        }
        assert_eq!(refusal(&key, &header, "c", &REQUEST, NOW), Refused::Misdirected);
        assert_eq!(refusal(&Key::new(&"8".repeat(32)), &header, "b", &REQUEST, NOW), Refused::Forged);
        assert_eq!(refusal(&key, "", "b", &REQUEST, NOW), Refused::Missing);
    }

    #[test]
    fn secrets_change_one_server_after_another() {
        let [old, new] = ["7".repeat(32), "8".repeat(32)];
        // Each step on some servers while others are at the one before.
        let steps =
            [old.clone(), format!("{old}\n{new}\n"), format!("{new}\r\n\n {old}\n"), new].map(|it| Key::new(&it));
        let owner = Owner { name: "a".into(), url: "http://a:1".into() };
        for both in steps.windows(2) {
            for (signs, checks) in [(&both[0], &both[1]), (&both[1], &both[0])] {
                let header = signs.sign(("a", "b"), &REQUEST, None, at(NOW), [1; 16]);
                assert!(checks.check(&header, "b", &REQUEST, at(NOW)).is_ok());
                assert!(checks.is_sealed("session:x", &owner, &signs.seal("session:x", &owner)));
            }
        }
        let header = steps[0].sign(("a", "b"), &REQUEST, None, at(NOW), [1; 16]);
        assert_eq!(refusal(&steps[3], &header, "b", &REQUEST, NOW), Refused::Forged);
    }

    #[test]
    fn a_seal_is_of_one_session_and_one_owner() {
        let (key, _) = signed();
        let owner = Owner { name: "a".into(), url: "http://a:1".into() };
        let seal = key.seal("session:x", &owner);
        assert!(key.is_sealed("session:x", &owner, &seal));
        assert!(!key.is_sealed("session:y", &owner, &seal));
        assert!(!key.is_sealed("session:x", &Owner { url: "http://evil:1".into(), ..owner.clone() }, &seal));
        assert!(!key.is_sealed("session:x", &Owner { name: "b".into(), ..owner.clone() }, &seal));
        for bad in ["", "00", &"0".repeat(64), &seal.to_uppercase()] {
            assert!(!key.is_sealed("session:x", &owner, bad), "{bad}");
        }
    }

    #[test]
    fn a_proof_is_of_one_request() {
        let (key, header) = signed();
        for other in [
            Request { method: "DELETE", ..REQUEST },
            Request { target: "/v1/sessions/b?x=1", ..REQUEST },
            Request { host: b"else.example", ..REQUEST },
            Request { authorization: b"", ..REQUEST },
            Request { body: b"a=candidates", ..REQUEST },
            // What moves over a line's end is another text, too.
            Request { host: b"vision.example\nBearer", authorization: b" t", ..REQUEST },
        ] {
            assert_eq!(refusal(&key, &header, "b", &other, NOW), Refused::Forged, "{other:?}");
        }
        for (what, other) in [("192.0.2.1", "192.0.2.2"), ("from=a", "from=c"), ("time=1", "time=2"), ("to=b", "to=c")]
        {
            let changed = header.replacen(what, other, 1);
            assert_ne!(changed, header);
            assert_eq!(refusal(&key, &changed, "b", &REQUEST, NOW), Refused::Forged, "{changed}");
        }
    }

    #[test]
    fn a_proof_counts_once_for_as_long_as_it_could_count() {
        let begin = clock::now();
        let mut seen = Seen::new(begin);
        assert_eq!(seen.take(begin, [1; 16]), Ok(()));
        for after in [0, 30, 59, 60, 61, 119] {
            assert_eq!(seen.take(begin + Duration::from_secs(after), [1; 16]), Err(Refused::Replayed), "{after}");
        }
        assert_eq!(seen.take(begin + Duration::from_secs(119), [2; 16]), Ok(()));
        assert_eq!(seen.take(begin + Duration::from_secs(120), [2; 16]), Err(Refused::Replayed));
        // An hour later there is nothing left of it.
        assert_eq!(seen.take(begin + Duration::from_secs(3600), [2; 16]), Ok(()));
        assert_eq!(seen.new.len() + seen.old.len(), 1);
    }

    #[test]
    fn a_flood_of_proofs_takes_bounded_room() {
        let now = clock::now();
        let mut seen = Seen::new(now);
        let nonces = (0..MAX_SEEN as u128).map(u128::to_be_bytes);
        assert_eq!(nonces.filter(|&nonce| seen.take(now, nonce).is_ok()).count(), MAX_SEEN);
        assert_eq!(seen.take(now, [255; 16]), Err(Refused::Full));
    }

    proptest! {
        /// Nothing but what was signed is taken, whatever the header is, and however it is changed.
        #[test]
        fn any_header_is_refused(text in ".{0,200}", at_byte in 0..200usize, byte in 0x20..0x7fu8) {
            let (key, header) = signed();
            prop_assert!(key.check(&text, "b", &REQUEST, at(NOW)).is_err());
            let mut changed = header.clone().into_bytes();
            let at_byte = at_byte % changed.len();
            changed[at_byte] = byte;
            let changed = String::from_utf8(changed).expect("ASCII");
            prop_assert_eq!(key.check(&changed, "b", &REQUEST, at(NOW)).is_ok(), changed == header);
        }
    }
}

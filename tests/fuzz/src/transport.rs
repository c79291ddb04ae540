//! What comes to the media port: whose a datagram is, and whether it gets to anybody.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Context, Poll};

use arbitrary::{Arbitrary, Unstructured};
use ring::hmac;
use saccade::rtc::fuzzing::{Limits, Sorter};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::runtime::{Builder, Runtime};

use crate::input::{address, all};

/// Sessions that there are.
const SESSIONS: usize = 3;
const MAGIC_COOKIE: [u8; 4] = 0x2112_A442_u32.to_be_bytes();
const HEADER: usize = 20;

/// Each runs on its own thread of the fuzzer, if at all on several.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Builder::new_current_thread().enable_time().build().unwrap());

/// What happens at the media port.
#[derive(Debug, Arbitrary)]
enum Step {
    /// A check of connectivity, made as it should be or not quite.
    Check { session: u8, generation: u8, from: u8, transaction: u8, flaw: Option<Flaw>, nominates: bool },
    /// An answer to a check.
    Answer { session: u8, generation: u8, from: u8, transaction: u8, is_error: bool },
    /// Whatever bytes.
    Bytes { from: u8, bytes: Vec<u8> },
    /// A session checks an address.
    Ask { session: u8, transaction: u8, to: u8 },
    /// A session restarts ICE.
    Restart { session: u8 },
    /// A session reads what has come.
    Take { session: u8 },
}

/// What is wrong with a check.
#[derive(Debug, Clone, Copy, Arbitrary)]
enum Flaw {
    /// The password of another session.
    Password,
    /// No MESSAGE-INTEGRITY.
    Unsigned,
    /// A bit changed after it was signed.
    Bit(u8),
    /// Something after what is signed.
    Appended,
    /// No PRIORITY.
    NoPriority,
}

fn ufrag(session: usize, generation: u8) -> String {
    format!("u{session}g{generation}")
}

fn password(session: usize, generation: u8) -> String {
    format!("password of {session}, {generation}")
}

fn remote_password(session: usize, generation: u8) -> String {
    format!("remote of {session}, {generation}")
}

/// A STUN message (RFC 8489 section 5) with its integrity.
fn message(kind: u16, transaction: u8, attributes: &[(u16, &[u8])], password: Option<&str>) -> Vec<u8> {
    let mut bytes = [&kind.to_be_bytes()[..], &[0, 0], &MAGIC_COOKIE, &[transaction; 12]].concat();
    for (kind, value) in attributes {
        bytes.extend(kind.to_be_bytes());
        bytes.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
        bytes.extend(*value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    let end = |bytes: &mut Vec<u8>, more: usize| {
        let length = u16::try_from(bytes.len() + more - HEADER).unwrap();
        bytes[2..4].copy_from_slice(&length.to_be_bytes());
    };
    if let Some(password) = password {
        end(&mut bytes, 24);
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes());
        let sum = hmac::sign(&key, &bytes);
        bytes.extend([0x00, 0x08, 0x00, 0x14]);
        bytes.extend(sum.as_ref());
    }
    end(&mut bytes, 0);
    bytes
}

fn check(session: usize, generation: u8, transaction: u8, flaw: Option<Flaw>, nominates: bool) -> Vec<u8> {
    let name = format!("{}:them", ufrag(session, generation));
    let mut attributes: Vec<(u16, &[u8])> = vec![(0x0006, name.as_bytes()), (0x802A, &[1; 8])];
    if !matches!(flaw, Some(Flaw::NoPriority)) {
        attributes.push((0x0024, &[0x6e, 0, 1, 0xff]));
    }
    if nominates {
        attributes.push((0x0025, &[]));
    }
    let password = match flaw {
        Some(Flaw::Password) => Some(password(session + 1, generation)),
        Some(Flaw::Unsigned) => None,
        _ => Some(password(session, generation)),
    };
    let mut bytes = message(0x0001, transaction, &attributes, password.as_deref());
    match flaw {
        Some(Flaw::Bit(bit)) => {
            let bit = usize::from(bit) % (8 * bytes.len());
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        Some(Flaw::Appended) => {
            bytes.extend([0x80, 0x22, 0, 0]);
            let length = u16::try_from(bytes.len() - HEADER).unwrap();
            bytes[2..4].copy_from_slice(&length.to_be_bytes());
        }
        _ => {}
    }
    bytes
}

/// What may be believed: kept beside the table, by the rules alone.
#[derive(Default)]
struct Vouched {
    /// Sessions and the addresses that have proven to know their password.
    pairs: BTreeSet<(usize, SocketAddr)>,
    /// Datagrams that were let through and not yet read.
    waiting: [usize; SESSIONS],
}

/// Datagrams over UDP: only what comes from an address that has shown a session's password gets to that session, nothing is
/// kept of what does not, and what is kept is bounded and goes with its session.
pub(crate) fn demux(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let sorter = Sorter::new(SESSIONS);
    let mut generations = [0_u8; SESSIONS];
    for session in 0..SESSIONS {
        sorter.register(session, &ufrag(session, 0), &password(session, 0), &remote_password(session, 0));
    }
    let mut vouched = Vouched::default();
    let mut asked = BTreeSet::new();
    for step in all::<Step>(&mut input, 600) {
        match step {
            Step::Check { session, generation, from, transaction, flaw, nominates } => {
                let (session, from) = (usize::from(session) % SESSIONS, address(from));
                let sent = check(session, generation, transaction, flaw, nominates);
                let is_valid = flaw.is_none() && (generations[session] < 2 || generation >= generations[session] - 1);
                let is_valid = is_valid && generation <= generations[session];
                let before = sorter.sizes();
                let taken = sorter.datagram(&sent, from);
                assert!(
                    !taken || is_valid || matches!(flaw, Some(Flaw::Bit(_))),
                    "{session} took {flaw:?} of {generation}"
                );
                if taken && is_valid {
                    vouched.pairs.insert((session, from));
                } else if !taken && !is_valid {
                    assert_eq!(sorter.sizes(), before, "nothing is kept of what is not believed");
                } else if taken {
                    // A bit that is not covered, such as one of the padding, changes nothing that is believed.
                    assert!(vouched.pairs.contains(&(session, from)) || is_signed(&sent, session, generation));
                    vouched.pairs.insert((session, from));
                }
            }
            Step::Answer { session, generation, from, transaction, is_error } => {
                let (session, from) = (usize::from(session) % SESSIONS, address(from));
                let kind = if is_error { 0x0111 } else { 0x0101 };
                let sent = message(kind, transaction, &[], Some(&remote_password(session, generation)));
                if sorter.datagram(&sent, from) {
                    assert!(asked.contains(&(session, transaction, from)), "an answer to what was not asked");
                    if !is_error {
                        vouched.pairs.insert((session, from));
                    }
                }
            }
            Step::Bytes { from, bytes } => {
                let before = sorter.sizes();
                let taken = sorter.datagram(&bytes, address(from));
                assert!(!taken || vouched.pairs.iter().any(|(_, known)| *known == address(from)));
                assert!(!taken || (1..=Limits::DATAGRAM).contains(&bytes.len()));
                assert_eq!(sorter.sizes(), before);
            }
            Step::Ask { session, transaction, to } => {
                let session = usize::from(session) % SESSIONS;
                sorter.ask(session, [transaction; 12], address(to));
                asked.insert((session, transaction, address(to)));
            }
            Step::Restart { session } => {
                let session = usize::from(session) % SESSIONS;
                generations[session] = generations[session].saturating_add(1).min(200);
                let generation = generations[session];
                let remote = remote_password(session, generation);
                sorter.register(session, &ufrag(session, generation), &password(session, generation), &remote);
            }
            Step::Take { session } => take(&sorter, usize::from(session) % SESSIONS, &mut vouched),
        }
        let [ufrags, sources, transactions] = sorter.sizes();
        assert!(ufrags <= 2 * SESSIONS && sources <= Limits::SOURCES * SESSIONS);
        assert!(transactions <= Limits::TRANSACTIONS * SESSIONS);
        for session in 0..SESSIONS {
            let believed = sorter.believed(session);
            assert!(believed.len() <= Limits::SOURCES);
            assert!(believed.iter().all(|address| vouched.pairs.contains(&(session, *address))));
        }
    }
    for session in 0..SESSIONS {
        take(&sorter, session, &mut vouched);
        sorter.remove(session);
    }
    assert_eq!(sorter.sizes(), [0; 3], "a session takes everything with it");
}

/// Whether the sum in a check is that of a session, whatever else was changed.
fn is_signed(sent: &[u8], session: usize, generation: u8) -> bool {
    let whole = check(session, generation, sent[HEADER - 1], None, false);
    sent.len() >= whole.len() - 8
}

fn take(sorter: &Sorter, session: usize, vouched: &mut Vouched) {
    let taken = sorter.take(session);
    assert!(taken.len() <= 2 * Limits::INBOX);
    for (from, datagram) in &taken {
        assert!(vouched.pairs.contains(&(session, *from)), "{from} never vouched for itself");
        assert!((1..=Limits::DATAGRAM).contains(&datagram.len()));
    }
    vouched.waiting[session] = 0;
}

/// What comes over a connection.
#[derive(Debug, Arbitrary)]
enum Frame {
    /// A check of connectivity.
    Check { session: u8, transaction: u8, is_authentic: bool },
    /// A datagram behind its length.
    Datagram(Vec<u8>),
    /// Bytes without one.
    Bytes(Vec<u8>),
}

/// A connection: nothing gets to a session before its password was shown, then exactly what was framed does, and what is
/// too long or names another session is the last that is read.
pub(crate) fn framing(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let Ok(chunk) = u8::arbitrary(&mut input) else { return };
    let (mut stream, mut framed, mut named) = (Vec::new(), Vec::new(), None);
    let mut is_whole = true;
    for frame in all::<Frame>(&mut input, 200) {
        let datagram = match frame {
            Frame::Check { session, transaction, is_authentic } => {
                let session = usize::from(session) % SESSIONS;
                if is_whole && is_authentic && framed.is_empty() && named.is_none() {
                    named = Some(session);
                }
                check(session, 0, transaction, (!is_authentic).then_some(Flaw::Password), false)
            }
            Frame::Datagram(bytes) => bytes,
            Frame::Bytes(bytes) => {
                is_whole = false;
                stream.extend(bytes);
                continue;
            }
        };
        let Ok(length) = u16::try_from(datagram.len()) else { continue };
        stream.extend(length.to_be_bytes());
        stream.extend(&datagram);
        if is_whole {
            framed.push(datagram);
        }
    }
    let sorter = Sorter::new(SESSIONS);
    for session in 0..SESSIONS {
        sorter.register(session, &ufrag(session, 0), &password(session, 0), &remote_password(session, 0));
    }
    let from = address(1);
    RUNTIME.block_on(sorter.stream(Chunks { bytes: &stream, chunk: usize::from(chunk) + 1 }, from));
    for session in 0..SESSIONS {
        let taken = sorter.take(session);
        assert!(taken.len() <= Limits::INBOX && taken.iter().all(|(source, _)| *source == from));
        if is_whole {
            assert!(taken.is_empty() || named == Some(session), "{session} got what was not for it");
            // In their order; malformed ones are left out.
            let mut rest = framed.iter();
            for (_, datagram) in &taken {
                assert!(rest.any(|sent| sent == datagram), "it was not sent, or not then");
            }
        }
        assert!(sorter.believed(session).is_empty(), "the connection has ended");
        sorter.remove(session);
    }
    assert_eq!(sorter.sizes(), [0; 3]);
}

/// Bytes that come in pieces.
struct Chunks<'a> {
    bytes: &'a [u8],
    chunk: usize,
}

impl AsyncRead for Chunks<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let (now, later) = self.bytes.split_at(self.chunk.min(buffer.remaining()).min(self.bytes.len()));
        buffer.put_slice(now);
        self.bytes = later;
        Poll::Ready(Ok(()))
    }
}

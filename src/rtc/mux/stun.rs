//! As much of STUN (RFC 8489) as it takes to tell whom a datagram is for and whether to believe it: nothing is copied,
//! and nothing is kept.

use ring::hmac;

/// Bytes of the header (RFC 8489 section 5).
const HEADER: usize = 20;
/// What bytes 4 to 8 of every message are (RFC 8489 section 5).
const MAGIC_COOKIE: [u8; 4] = 0x2112_A442_u32.to_be_bytes();
/// Bytes of a MESSAGE-INTEGRITY attribute's value: an HMAC-SHA1.
const INTEGRITY: usize = 20;
/// Attributes that may follow it.
const FINGERPRINT: u16 = 0x8028;
const INTEGRITY_SHA256: u16 = 0x001C;
/// Bytes of an attribute's type and length.
const ATTRIBUTE_HEADER: usize = 4;
/// Longest message that is looked at; STUN keeps to 1,280 bytes over UDP (RFC 8489 section 6.1).
const MAX_SIGNED: usize = 1280;
/// Longest user fragment (RFC 8839 section 5.4).
pub(super) const MAX_UFRAG: usize = 256;

/// What tells a request from all others, and its answer from all others.
pub(super) type TransactionId = [u8; 12];

/// What a Binding message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Request,
    Indication,
    Success,
    Error,
}

/// A well-formed Binding message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Message<'a> {
    pub(super) class: Class,
    pub(super) transaction: TransactionId,
    /// The user fragment of whom it is for (RFC 8445 section 7.2.2: the first half of USERNAME).
    pub(super) ufrag: Option<&'a str>,
    /// Whether it has what each connectivity check has: PRIORITY, and one of the roles (RFC 8445 section 7.1).
    pub(super) is_check: bool,
    /// Whether it chooses the path (USE-CANDIDATE, RFC 8445 section 7.1.1).
    pub(super) nominates: bool,
    bytes: &'a [u8],
    /// Where the attribute MESSAGE-INTEGRITY begins.
    integrity: Option<usize>,
}

/// Whether a datagram is meant as STUN (RFC 7983 section 7).
pub(super) fn is_stun(datagram: &[u8]) -> bool {
    datagram.first().is_some_and(|first| *first <= 3)
}

/// Reads a Binding message; `None` for what is malformed or something else.
pub(super) fn parse(bytes: &[u8]) -> Option<Message<'_>> {
    let (header, attributes) = bytes.split_at_checked(HEADER)?;
    let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if header[4..8] != MAGIC_COOKIE || length != attributes.len() || !length.is_multiple_of(4) {
        return None;
    }
    let class = match [header[0], header[1]] {
        [0x00, 0x01] => Class::Request,
        [0x00, 0x11] => Class::Indication,
        [0x01, 0x01] => Class::Success,
        [0x01, 0x11] => Class::Error,
        _ => return None,
    };
    let mut message = Message {
        class,
        transaction: header[8..].try_into().ok()?,
        ufrag: None,
        is_check: false,
        nominates: false,
        bytes,
        integrity: None,
    };
    let (mut priority, mut role, mut at) = (false, false, HEADER);
    while at < bytes.len() {
        let kind = u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]);
        let length = usize::from(u16::from_be_bytes([*bytes.get(at + 2)?, *bytes.get(at + 3)?]));
        let value = bytes.get(at + ATTRIBUTE_HEADER..at + ATTRIBUTE_HEADER + length)?;
        if message.integrity.is_some() {
            // Nothing else may follow, and the stack would act on what is not covered (RFC 8489 section 14.5).
            if !matches!(kind, FINGERPRINT | INTEGRITY_SHA256) {
                return None;
            }
        } else {
            match kind {
                0x0006 if message.ufrag.is_none() && length <= 2 * MAX_UFRAG + 1 => {
                    let name = std::str::from_utf8(value).ok()?;
                    message.ufrag = Some(name.split_once(':').map_or(name, |(local, _)| local));
                }
                0x0008 if length == INTEGRITY => message.integrity = Some(at),
                0x0024 => priority |= length == 4,
                0x0025 => message.nominates = true,
                0x8029 | 0x802A => role |= length == 8,
                _ => {}
            }
        }
        at += ATTRIBUTE_HEADER + length.next_multiple_of(4);
    }
    message.is_check = priority && role;
    (at == bytes.len()).then_some(message)
}

impl Message<'_> {
    /// Whether whoever made it knows the password (RFC 8489 section 14.5). Takes the same time for every wrong one.
    pub(super) fn is_authentic(&self, key: &hmac::Key) -> bool {
        let Some(at) = self.integrity else { return false };
        let Ok(covered) = u16::try_from(at + ATTRIBUTE_HEADER + INTEGRITY - HEADER) else { return false };
        // The sum was made when the message ended with it.
        let mut signed = [0; MAX_SIGNED];
        let Some(signed) = signed.get_mut(..at) else { return false };
        signed.copy_from_slice(&self.bytes[..at]);
        signed[2..4].copy_from_slice(&covered.to_be_bytes());
        let sum = &self.bytes[at + ATTRIBUTE_HEADER..at + ATTRIBUTE_HEADER + INTEGRITY];
        hmac::verify(key, signed, sum).is_ok()
    }
}

/// The key that a password of ICE is.
pub(super) fn key(password: &str) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes())
}

/// Makes messages, as clients do.
#[cfg(test)]
pub(super) mod testing {
    use super::*;

    pub(crate) const PRIORITY: (u16, &[u8]) = (0x0024, &[0x6e, 0, 1, 0xff]);
    pub(crate) const CONTROLLING: (u16, &[u8]) = (0x802A, &[1; 8]);

    /// A message with these attributes and, where there is a password, its integrity.
    pub(crate) fn message(
        kind: u16,
        transaction: TransactionId,
        attributes: &[(u16, &[u8])],
        password: Option<&str>,
    ) -> Vec<u8> {
        let mut bytes = [&kind.to_be_bytes()[..], &[0, 0], &MAGIC_COOKIE, &transaction].concat();
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
            end(&mut bytes, ATTRIBUTE_HEADER + INTEGRITY);
            let sum = hmac::sign(&key(password), &bytes);
            bytes.extend([0x00, 0x08, 0x00, 0x14]);
            bytes.extend(sum.as_ref());
        }
        end(&mut bytes, 0);
        bytes
    }

    /// A connectivity check.
    pub(crate) fn check(ufrag: &str, password: &str, transaction: u8) -> Vec<u8> {
        let name = format!("{ufrag}:them");
        message(0x0001, [transaction; 12], &[(0x0006, name.as_bytes()), PRIORITY, CONTROLLING], Some(password))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::testing::{CONTROLLING, PRIORITY, check, message};
    use super::*;

    /// The sample request of RFC 5769 section 2.1.
    const SAMPLE: &[u8] = b"\x00\x01\x00\x58\x21\x12\xa4\x42\xb7\xe7\xa7\x01\xbc\x34\xd6\x86\xfa\x87\xdf\xae\
        \x80\x22\x00\x10STUN test client\x00\x24\x00\x04\x6e\x00\x01\xff\
        \x80\x29\x00\x08\x93\x2f\xf9\xb1\x51\x26\x3b\x36\x00\x06\x00\x09evtj:h6vY\x20\x20\x20\
        \x00\x08\x00\x14\x9a\xea\xa7\x0c\xbf\xd8\xcb\x56\x78\x1e\xf2\xb5\xb2\xd3\xf2\x49\xc1\xb5\x71\xa2\
        \x80\x28\x00\x04\xe5\x7a\x3b\xcf";

    #[test]
    fn the_sample_of_the_rfc_is_read_and_authentic() {
        let read = parse(SAMPLE).unwrap();
        assert_eq!((read.class, read.ufrag, read.is_check), (Class::Request, Some("evtj"), true));
        assert!(read.is_authentic(&key("VOkJxbRl1RmTxUk/WvJxBt")));
        assert!(!read.is_authentic(&key("VOkJxbRl1RmTxUk/WvJxBu")));
    }

    #[test]
    fn any_change_before_the_integrity_is_seen() {
        let good = check("us", "password", 7);
        assert!(parse(&good).unwrap().is_authentic(&key("password")));
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(!parse(&bad).is_some_and(|read| read.is_authentic(&key("password"))), "byte {at}");
        }
    }

    #[test]
    fn nothing_may_be_added_behind_the_integrity_but_a_fingerprint() {
        let with = |more: &[u8]| {
            let mut late = message(0x0001, [1; 12], &[PRIORITY, CONTROLLING], Some("password"));
            late.extend(more);
            let length = u16::try_from(late.len() - HEADER).unwrap();
            late[2..4].copy_from_slice(&length.to_be_bytes());
            late
        };
        assert!(parse(&with(b"\x80\x28\x00\x04abcd")).unwrap().is_authentic(&key("password")));
        for more in [&b"\x00\x06\x00\x04us:x"[..], b"\x00\x25\x00\x00", b"\x80\x29\x00\x08\0\0\0\0\0\0\0\0"] {
            assert!(parse(&with(more)).is_none(), "{more:?}");
        }
    }

    #[test]
    fn a_message_without_integrity_is_nobodys() {
        let bare = message(0x0001, [1; 12], &[(0x0006, b"us:them"), PRIORITY, CONTROLLING], None);
        assert!(!parse(&bare).unwrap().is_authentic(&key("")));
    }

    #[test]
    fn only_checks_are_checks() {
        for attributes in [&[][..], &[PRIORITY], &[CONTROLLING]] {
            let message = message(0x0001, [1; 12], attributes, Some("password"));
            assert!(!parse(&message).unwrap().is_check, "{attributes:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Some(read) = parse(&bytes) {
                prop_assert!(!read.is_authentic(&key("password")));
            }
        }

        #[test]
        fn any_damage_to_a_message_is_survived(at in 0usize..100, to: u8, cut in 0usize..100) {
            let mut bytes = SAMPLE.to_vec();
            bytes[at] = to;
            bytes.truncate(bytes.len() - cut);
            if let Some(read) = parse(&bytes) {
                prop_assert!(read.bytes.len() == bytes.len());
                read.is_authentic(&key("password"));
            }
        }
    }
}

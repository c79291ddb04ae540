//! What several targets make of their bytes.

use std::net::SocketAddr;

use arbitrary::{Arbitrary, Unstructured};

/// As many values as the bytes hold, `most` at most.
pub(crate) fn all<'a, T: Arbitrary<'a>>(input: &mut Unstructured<'a>, most: usize) -> Vec<T> {
    let mut values = Vec::new();
    while values.len() < most && !input.is_empty() {
        match T::arbitrary(input) {
            Ok(value) => values.push(value),
            Err(_) => break,
        }
    }
    values
}

/// One of 256 addresses, most of IPv4.
pub(crate) fn address(number: u8) -> SocketAddr {
    if number >= 240 {
        SocketAddr::from((std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number.into()), 9))
    } else {
        SocketAddr::from(([192, 0, 2, 1], 1000 + u16::from(number)))
    }
}

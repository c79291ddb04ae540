//! What packets take this machine: the part of transport that a loopback can show.

use std::io;
use std::net::UdpSocket;
use std::time::Duration;

use ring::aead::{AES_128_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use crate::clock;

/// Bytes of a packet of video.
const SIZE: usize = 1_200;
/// Packets of a frame, which are sent before one is read.
const FRAME: u32 = 8;
const FRAMES: u32 = 250;
/// The least of so many counts, since others may keep the processor's caches busy.
const TURNS: u32 = 5;
const TIMEOUT: Duration = Duration::from_secs(5);

/// Time of a processor, in milliseconds, for one packet that is encrypted and sent and one that is received and decrypted, by
/// two sockets of this machine.
///
/// # Errors
/// Of the sockets.
pub(super) fn cost() -> io::Result<f64> {
    let (one, other) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
    one.connect(other.local_addr()?)?;
    other.connect(one.local_addr()?)?;
    other.set_read_timeout(Some(TIMEOUT))?;
    let failed = |_| io::Error::other("a packet cannot be encrypted");
    let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &[7; 16]).map_err(failed)?);
    // Nothing of it is secret, and nothing leaves this machine: one key and one nonce do.
    let nonce = || Nonce::assume_unique_for_key([0; NONCE_LEN]);
    let mut packet = Vec::with_capacity(SIZE + AES_128_GCM.tag_len());
    let mut received = [0; SIZE + 64];
    let mut least = Duration::MAX;
    for _ in 0..TURNS {
        let before = clock::processor_time();
        for _ in 0..FRAMES {
            for _ in 0..FRAME {
                packet.clear();
                packet.resize(SIZE, 0x55);
                key.seal_in_place_append_tag(nonce(), Aad::empty(), &mut packet).map_err(failed)?;
                one.send(&packet)?;
            }
            for _ in 0..FRAME {
                let bytes = other.recv(&mut received)?;
                let received = received.get_mut(..bytes).unwrap_or_default();
                key.open_in_place(nonce(), Aad::empty(), received).map_err(failed)?;
            }
        }
        least = least.min(clock::processor_time().saturating_sub(before));
    }
    Ok(least.as_secs_f64() * 1e3 / f64::from(FRAMES * FRAME))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    #[test]
    fn a_packet_takes_microseconds() {
        let ms = super::cost().unwrap();
        assert!(ms > 1e-4 && ms < 1.0, "{ms}");
    }
}

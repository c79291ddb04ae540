use bytes::{Bytes, BytesMut};

/// Size of a chunk: tens of packets, or several access units.
const CHUNK: usize = 64 << 10;
/// A chunk that has grown beyond this for one string is not kept for smaller ones.
const MAX_KEPT: usize = 8 * CHUNK;

/// Memory for byte strings that are made one after the other, so that a steady stream of them allocates little.
///
/// Strings lie side by side in chunks. A full chunk is used again if all of its strings are gone; otherwise they keep it
/// alive, and another one is begun.
#[derive(Debug, Default)]
pub struct Chunks(BytesMut);

impl Chunks {
    /// Begins a string, which is expected to have `len` bytes and may get any number.
    pub fn begin(&mut self, len: usize) -> &mut BytesMut {
        self.0.clear();
        if self.0.capacity() < len {
            self.0.reserve(len.max(CHUNK));
        }
        if self.0.capacity() > MAX_KEPT && len <= CHUNK {
            self.0 = BytesMut::with_capacity(CHUNK);
        }
        &mut self.0
    }

    /// The string in progress.
    pub const fn current(&mut self) -> &mut BytesMut {
        &mut self.0
    }

    /// Ends the string in progress; the next one begins behind it.
    pub fn finish(&mut self) -> Bytes {
        self.0.split().freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn string(chunks: &mut Chunks, byte: u8, len: usize) -> Bytes {
        chunks.begin(len).resize(len, byte);
        chunks.finish()
    }

    #[test]
    fn strings_stay_as_they_were_written() {
        let mut chunks = Chunks::default();
        let lens = [1, 0, 30_000, 40_000, CHUNK, 3 * CHUNK, 9 * CHUNK, 5];
        let held: Vec<Bytes> = (0..).zip(lens).map(|(byte, len)| string(&mut chunks, byte, len)).collect();
        for ((byte, len), held) in (0_u8..).zip(lens).zip(held) {
            assert!(held.len() == len && held.iter().all(|found| *found == byte), "{byte}");
        }
    }

    #[test]
    fn what_was_not_ended_is_discarded() {
        let mut chunks = Chunks::default();
        chunks.begin(3).extend_from_slice(&[1, 2, 3]);
        assert_eq!(string(&mut chunks, 4, 1), [4][..]);
    }

    #[test]
    fn a_chunk_whose_strings_are_gone_is_used_again() {
        let mut chunks = Chunks::default();
        let len = CHUNK / 2;
        let first = string(&mut chunks, 1, len).as_ptr();
        assert_eq!(string(&mut chunks, 2, len).as_ptr(), first.wrapping_add(len));
        let held = string(&mut chunks, 3, len);
        assert_eq!(held.as_ptr(), first);
        let _second = string(&mut chunks, 4, len);
        assert_ne!(string(&mut chunks, 5, len).as_ptr(), first);
        assert!(held.iter().all(|byte| *byte == 3));
    }

    #[test]
    fn a_large_string_leaves_no_large_chunk_behind() {
        let mut chunks = Chunks::default();
        drop(string(&mut chunks, 1, 4 << 20));
        for _ in 0..2 {
            drop(string(&mut chunks, 2, 1_000));
            assert!(chunks.current().capacity() <= CHUNK);
        }
    }
}

//! How many parts a request has, counted before any memory is taken for them: an empty tensor is two bytes of a message and
//! hundreds in memory.

use bytes::Buf as _;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder};

use crate::kserve::MAX_TENSORS;

/// Fields of `ModelInferRequest`.
const INPUTS: u64 = 5;
const OUTPUTS: u64 = 6;
const RAW: u64 = 7;
/// A field of an input.
const CONTENTS: u64 = 5;
/// A field of contents.
const STRINGS: u64 = 8;
/// Strings that a message has one by one. Others come as raw contents.
const MAX_STRINGS: usize = 256 * 1024;

/// A codec of requests with tensors that refuses those with more parts than any may have.
#[derive(Debug, Default)]
pub(super) struct Counted<C>(C);

impl<C: Codec> Codec for Counted<C> {
    type Encode = C::Encode;
    type Decode = C::Decode;
    type Encoder = C::Encoder;
    type Decoder = Counted<C::Decoder>;

    fn encoder(&mut self) -> Self::Encoder {
        self.0.encoder()
    }

    fn decoder(&mut self) -> Self::Decoder {
        Counted(self.0.decoder())
    }
}

impl<D: Decoder<Error = Status>> Decoder for Counted<D> {
    type Item = D::Item;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<Self::Item>, Self::Error> {
        // A message is in one piece.
        if buf.chunk().len() == buf.remaining() {
            check(buf.chunk()).map_err(Status::invalid_argument)?;
        }
        self.0.decode(buf)
    }

    fn buffer_settings(&self) -> BufferSettings {
        self.0.buffer_settings()
    }
}

/// Whether a `ModelInferRequest` has no more parts than it may.
fn check(message: &[u8]) -> Result<(), String> {
    let (mut inputs, mut outputs, mut raw, mut strings) = (0, 0, 0, 0);
    fields(message, |field, value| {
        let count = match field {
            INPUTS => &mut inputs,
            OUTPUTS => &mut outputs,
            RAW => &mut raw,
            _ => return Ok(()),
        };
        *count += 1;
        if *count > MAX_TENSORS {
            return Err(format!("it names more than {MAX_TENSORS} inputs or outputs"));
        }
        if field != INPUTS {
            return Ok(());
        }
        fields(value, |field, value| {
            if field != CONTENTS {
                return Ok(());
            }
            fields(value, |field, _| {
                strings += usize::from(field == STRINGS);
                if strings > MAX_STRINGS {
                    return Err(format!(
                        "it has more than {MAX_STRINGS} strings one by one; send them as raw contents"
                    ));
                }
                Ok(())
            })
        })
    })
}

/// Calls `each` with the number of every field of a message, and with its bytes where it has a length.
fn fields(mut bytes: &[u8], mut each: impl FnMut(u64, &[u8]) -> Result<(), String>) -> Result<(), String> {
    let broken = || "the request is not understood: it ends amid a field, or has one of an unknown kind".to_owned();
    while !bytes.is_empty() {
        let key = varint(&mut bytes).ok_or_else(broken)?;
        let length = match key & 7 {
            0 => {
                varint(&mut bytes).ok_or_else(broken)?;
                None
            }
            1 => Some(8),
            2 => Some(varint(&mut bytes).and_then(|length| usize::try_from(length).ok()).ok_or_else(broken)?),
            5 => Some(4),
            _ => return Err(broken()),
        };
        let (value, rest) = bytes.split_at_checked(length.unwrap_or(0)).ok_or_else(broken)?;
        bytes = rest;
        each(key >> 3, value)?;
    }
    Ok(())
}

/// Takes a number of variable length.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use bytes::Bytes;
    use prost::Message as _;

    use super::*;
    use crate::kserve::proto as p;

    fn tensor(contents: p::Contents) -> p::InferTensor {
        let (name, datatype) = ("x".to_owned(), "FP32".to_owned());
        p::InferTensor { name, datatype, shape: vec![1, 300], contents: Some(contents), ..Default::default() }
    }

    #[test]
    fn a_request_with_few_parts_passes() {
        let contents = p::Contents {
            floats: vec![1.0, 2.0],
            int64s: vec![-1],
            bytes: vec![Bytes::from_static(b"a"); 1000],
            ..Default::default()
        };
        let inputs = vec![tensor(contents); MAX_TENSORS];
        let raw = vec![Bytes::from_static(&[0xff; 300]); MAX_TENSORS];
        let message = p::ModelInferRequest { model_name: "a".to_owned(), inputs, raw, ..Default::default() };
        assert_eq!(check(&message.encode_to_vec()), Ok(()));
        assert_eq!(check(&[]), Ok(()));
        // Fields that are not known, of every kind with an end of its own.
        assert_eq!(check(&[0x78, 0x01, 0x79, 0, 0, 0, 0, 0, 0, 0, 0, 0x7d, 0, 0, 0, 0, 0x7a, 1, 0]), Ok(()));
    }

    #[test]
    fn many_parts_are_refused_before_they_are_read() {
        for field in [INPUTS, OUTPUTS, RAW] {
            let key = u8::try_from((field << 3) | 2).unwrap();
            assert_eq!(check(&[key, 0].repeat(MAX_TENSORS)), Ok(()));
            assert!(check(&[key, 0].repeat(2000)).unwrap_err().contains("more than 64"));
        }
        let contents = p::Contents { bytes: vec![Bytes::new(); MAX_STRINGS], ..Default::default() };
        let mut message = p::ModelInferRequest { inputs: vec![tensor(contents)], ..Default::default() };
        assert_eq!(check(&message.encode_to_vec()), Ok(()));
        message.inputs.push(tensor(p::Contents { bytes: vec![Bytes::new()], ..Default::default() }));
        assert!(check(&message.encode_to_vec()).unwrap_err().contains("strings"));
    }

    #[test]
    fn what_ends_amid_a_field_is_refused() {
        for broken in [&[0x2a_u8][..], &[0x2a, 5, 0], &[0x80; 11], &[0x2d, 0, 0], &[0x08], &[0x0b], &[0x2a, 2, 0x0a, 9]]
        {
            assert!(check(broken).unwrap_err().contains("not understood"), "{broken:?}");
        }
    }
}

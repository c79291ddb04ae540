//! What of an ONNX file is looked at before ONNX Runtime is: whether it names other files. Such a file would have ONNX
//! Runtime open whatever path a stranger wrote into it.
//!
//! Reads Protocol Buffers' wire format (protobuf.dev/programming-guides/encoding) as far as the messages of
//! `onnx.proto3` can hold tensors and nodes. It allocates nothing, and visits each byte once for each message around it.

/// Messages inside of each other at most; graphs hold attributes that hold graphs.
const DEPTH: usize = 64;
/// Bytes of a name that a refusal repeats.
const NAME_SHOWN: usize = 64;

/// Why a file is not handed to ONNX Runtime.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// It is no model in ONNX's format: cut short, or something else.
    #[error("it is cut short, or no ONNX file")]
    Malformed,
    /// More messages inside of each other than any model needs.
    #[error("its graphs lie more than {DEPTH} deep inside of each other")]
    TooDeep,
    /// A tensor's values are in another file.
    #[error(
        "the values of tensor `{tensor}` are in another file; save the model with its values inside \
         (onnx.save_model with save_as_external_data=False)"
    )]
    External {
        /// Its name, shortened.
        tensor: String,
    },
    /// A node stands for what a compiler left in another file.
    #[error("a node `EPContext` names another file; use the model that it was compiled from")]
    Compiled,
}

/// Messages of `onnx.proto3` that matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Message {
    Model,
    Graph,
    Node,
    Attribute,
    Tensor,
    SparseTensor,
    Function,
    Training,
}

impl Message {
    /// The message in a field, if it matters.
    const fn inside(self, field: u64) -> Option<Self> {
        Some(match (self, field) {
            (Self::Model, 7) | (Self::Attribute, 6 | 11) | (Self::Training, 1 | 2) => Self::Graph,
            (Self::Model, 20) => Self::Training,
            (Self::Model, 25) => Self::Function,
            (Self::Graph, 1) | (Self::Function, 7) => Self::Node,
            (Self::Graph, 5) | (Self::Attribute, 5 | 10) | (Self::SparseTensor, 1 | 2) => Self::Tensor,
            (Self::Graph, 15) | (Self::Attribute, 22 | 23) => Self::SparseTensor,
            (Self::Node, 5) | (Self::Function, 11) => Self::Attribute,
            _ => return None,
        })
    }
}

/// One field of a message.
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Fixed,
}

/// `TensorProto.name`, `.external_data`, `.data_location`; `NodeProto.op_type`.
const NAME: u64 = 8;
const EXTERNAL_DATA: u64 = 13;
const DATA_LOCATION: u64 = 14;
const OP_TYPE: u64 = 4;

/// Looks through a file.
///
/// # Errors
/// [`Unfit`].
pub fn inspect(file: &[u8]) -> Result<(), Unfit> {
    if file.is_empty() {
        return Err(Unfit::Malformed);
    }
    walk(file, Message::Model, 0)
}

fn walk(mut rest: &[u8], message: Message, depth: usize) -> Result<(), Unfit> {
    if depth > DEPTH {
        return Err(Unfit::TooDeep);
    }
    let (mut name, mut is_external): (&[u8], bool) = (&[], false);
    while !rest.is_empty() {
        let (number, field) = next(&mut rest).ok_or(Unfit::Malformed)?;
        match (message, number, &field) {
            (Message::Tensor, NAME, Field::Bytes(bytes)) => name = bytes,
            (Message::Tensor, DATA_LOCATION, Field::Number(0)) => {}
            (Message::Tensor, DATA_LOCATION | EXTERNAL_DATA, _) => is_external = true,
            (Message::Node, OP_TYPE, Field::Bytes(b"EPContext")) => return Err(Unfit::Compiled),
            _ => {}
        }
        if let (Field::Bytes(bytes), Some(inside)) = (field, message.inside(number)) {
            walk(bytes, inside, depth + 1)?;
        }
    }
    if is_external {
        let tensor = String::from_utf8_lossy(name).chars().take(NAME_SHOWN).collect();
        return Err(Unfit::External { tensor });
    }
    Ok(())
}

/// The next field and its number; none where what is left is none. Groups, which are long out of use, are none.
fn next<'a>(rest: &mut &'a [u8]) -> Option<(u64, Field<'a>)> {
    let tag = varint(rest)?;
    let number = tag >> 3;
    let field = match tag & 7 {
        0 => Field::Number(varint(rest)?),
        1 => fixed(rest, 8)?,
        2 => {
            let length = usize::try_from(varint(rest)?).ok()?;
            Field::Bytes(take(rest, length)?)
        }
        5 => fixed(rest, 4)?,
        _ => return None,
    };
    (number != 0).then_some((number, field))
}

fn fixed<'a>(rest: &mut &'a [u8], length: usize) -> Option<Field<'a>> {
    take(rest, length).map(|_| Field::Fixed)
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(taken)
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, left) = rest.split_first()?;
        *rest = left;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn number(mut value: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        while value > 0x7f {
            bytes.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
            value >>= 7;
        }
        bytes.push(u8::try_from(value).unwrap());
        bytes
    }

    fn field(at: u64, content: &[u8]) -> Vec<u8> {
        [number(at << 3 | 2), number(content.len() as u64), content.to_vec()].concat()
    }

    fn flag(at: u64, value: u64) -> Vec<u8> {
        [number(at << 3), number(value)].concat()
    }

    /// A message inside others, from the model on.
    fn within(path: &[u64], content: &[u8]) -> Vec<u8> {
        path.iter().rev().fold(content.to_vec(), |inner, at| field(*at, &inner))
    }

    fn external() -> Vec<u8> {
        let entry = [field(1, b"location"), field(2, b"/etc/passwd")].concat();
        [field(NAME, b"weights"), field(EXTERNAL_DATA, &entry), flag(DATA_LOCATION, 1)].concat()
    }

    #[test]
    fn models_that_hold_all_their_values_pass() {
        for file in [
            "ppe-nano/2/model.onnx",
            "ppe-nano/2/model.int8.onnx",
            "ppe-nano/2/model.fp16.onnx",
            "scene-blobs/1/model.onnx",
        ] {
            let file = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/models/").to_owned() + file).unwrap();
            assert_eq!(inspect(&file), Ok(()));
            assert_eq!(inspect(&file[..file.len() - 1]), Err(Unfit::Malformed), "cut short");
        }
    }

    #[test]
    fn values_in_another_file_are_found_wherever_a_tensor_can_be() {
        let places: &[&[u64]] = &[
            &[7, 5],
            &[7, 15, 1],
            &[7, 15, 2],
            &[7, 1, 5, 5],
            &[7, 1, 5, 10],
            &[7, 1, 5, 22, 1],
            &[7, 1, 5, 23, 2],
            &[7, 1, 5, 6, 5],
            &[7, 1, 5, 11, 1, 5, 6, 5],
            &[25, 7, 5, 5],
            &[25, 11, 5],
            &[20, 1, 5],
            &[20, 2, 1, 5, 6, 5],
        ];
        for place in places {
            let refused = Err(Unfit::External { tensor: "weights".to_owned() });
            assert_eq!(inspect(&within(place, &external())), refused, "{place:?}");
            let inline = [field(NAME, b"weights"), flag(DATA_LOCATION, 0)].concat();
            assert_eq!(inspect(&within(place, &inline)), Ok(()), "{place:?}");
        }
        // Either of the two is enough, and so is one in a form that other readers may take for it.
        for tensor in [flag(DATA_LOCATION, 1), field(EXTERNAL_DATA, b""), field(DATA_LOCATION, &[1])] {
            assert!(matches!(inspect(&within(&[7, 5], &tensor)), Err(Unfit::External { .. })));
        }
    }

    #[test]
    fn what_compilers_left_elsewhere_is_refused() {
        assert_eq!(inspect(&within(&[7, 1, 4], b"EPContext")), Err(Unfit::Compiled));
        assert_eq!(inspect(&within(&[7, 1, 4], b"Conv")), Ok(()));
    }

    #[test]
    fn what_is_no_model_is_refused() {
        for bytes in [&b""[..], b"not a model", &[0x0b], &[0x80; 11], &[0x3a, 0xff, 0xff, 0xff, 0xff, 0x0f], &[0, 0]] {
            assert_eq!(inspect(bytes), Err(Unfit::Malformed), "{bytes:?}");
        }
        let mut nested = field(1, b"");
        for _ in 0..DEPTH {
            nested = within(&[1, 5, 6], &nested);
        }
        assert_eq!(inspect(&field(7, &nested)), Err(Unfit::TooDeep));
    }
}

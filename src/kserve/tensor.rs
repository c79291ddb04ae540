use std::fmt;

use bytes::Bytes;

use super::error::Error;

/// Axes of a tensor at most.
pub const MAX_RANK: usize = 8;

/// What a tensor's elements are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DataType {
    /// One byte, 0 or 1.
    Bool,
    /// Unsigned, 8 bits.
    Uint8,
    /// Unsigned, 16 bits.
    Uint16,
    /// Unsigned, 32 bits.
    Uint32,
    /// Unsigned, 64 bits.
    Uint64,
    /// Signed, 8 bits.
    Int8,
    /// Signed, 16 bits.
    Int16,
    /// Signed, 32 bits.
    Int32,
    /// Signed, 64 bits.
    Int64,
    /// IEEE 754 half precision.
    Fp16,
    /// IEEE 754 single precision.
    Fp32,
    /// IEEE 754 double precision.
    Fp64,
    /// Strings of bytes, each after its length as 32 bits.
    Bytes,
    /// bfloat16.
    Bf16,
}

impl DataType {
    /// All of them, each with its name in the protocol and its number in a model's configuration.
    const ALL: [(Self, &'static str, i32); 14] = [
        (Self::Bool, "BOOL", 1),
        (Self::Uint8, "UINT8", 2),
        (Self::Uint16, "UINT16", 3),
        (Self::Uint32, "UINT32", 4),
        (Self::Uint64, "UINT64", 5),
        (Self::Int8, "INT8", 6),
        (Self::Int16, "INT16", 7),
        (Self::Int32, "INT32", 8),
        (Self::Int64, "INT64", 9),
        (Self::Fp16, "FP16", 10),
        (Self::Fp32, "FP32", 11),
        (Self::Fp64, "FP64", 12),
        (Self::Bytes, "BYTES", 13),
        (Self::Bf16, "BF16", 14),
    ];

    /// The type of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known, _)| *known == name).map(|(this, ..)| *this)
    }

    fn entry(self) -> (Self, &'static str, i32) {
        // All variants are in the table, as a test shows.
        Self::ALL.into_iter().find(|(this, ..)| *this == self).unwrap_or(Self::ALL[0])
    }

    /// Name in the protocol.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.entry().1
    }

    /// Name in a model's configuration, where strings of bytes are called otherwise.
    #[must_use]
    pub fn config_name(self) -> String {
        format!("TYPE_{}", if self == Self::Bytes { "STRING" } else { self.name() })
    }

    /// Number in a model's configuration over gRPC.
    #[must_use]
    pub fn config_number(self) -> i32 {
        self.entry().2
    }

    /// Bytes of an element; none: they differ.
    #[must_use]
    pub const fn size(self) -> Option<usize> {
        match self {
            Self::Bool | Self::Uint8 | Self::Int8 => Some(1),
            Self::Uint16 | Self::Int16 | Self::Fp16 | Self::Bf16 => Some(2),
            Self::Uint32 | Self::Int32 | Self::Fp32 => Some(4),
            Self::Uint64 | Self::Int64 | Self::Fp64 => Some(8),
            Self::Bytes => None,
        }
    }
}

impl fmt::Display for DataType {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// A tensor's values, with its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// What its elements are.
    pub datatype: DataType,
    /// Its sides, none of them negative; [`MAX_RANK`] of them at most.
    pub shape: Vec<i64>,
    /// Its elements in row-major order, little-endian; as many as the shape says.
    pub data: Bytes,
}

impl Tensor {
    /// A tensor whose data are as many as its shape says.
    ///
    /// # Errors
    /// [`Error::BadTensor`].
    pub fn new(name: String, datatype: DataType, shape: Vec<i64>, data: Bytes) -> Result<Self, Error> {
        let elements = elements(&name, &shape)?;
        let wrong = |problem: String| Error::BadTensor { name: name.clone(), problem };
        if let Some(size) = datatype.size() {
            let expected = elements.checked_mul(size).ok_or_else(|| wrong("it has too many elements".to_owned()))?;
            if data.len() != expected {
                let found = data.len();
                return Err(wrong(format!(
                    "{datatype} of shape {} has {expected} bytes, and {found} were sent",
                    Shape(&shape)
                )));
            }
            if datatype == DataType::Bool && data.iter().any(|byte| *byte > 1) {
                return Err(wrong("BOOL has bytes of 0 and 1 only".to_owned()));
            }
        } else {
            let found = strings(&data).try_fold(0, |count: usize, item| item.map(|_| count + 1));
            match found {
                Some(found) if found == elements => {}
                Some(found) => {
                    return Err(wrong(format!("its shape has {elements} elements, and {found} were sent")));
                }
                None => return Err(wrong("each element of BYTES comes after its length as four bytes".to_owned())),
            }
        }
        Ok(Self { name, datatype, shape, data })
    }

    /// Number of its elements.
    #[must_use]
    pub fn elements(&self) -> usize {
        self.shape.iter().map(|side| usize::try_from(*side).unwrap_or(0)).product()
    }
}

/// The elements that a shape says, without allocating any.
///
/// # Errors
/// [`Error::BadTensor`] for negative sides, too many of them, and more elements than there are addresses.
pub fn elements(name: &str, shape: &[i64]) -> Result<usize, Error> {
    let wrong = |problem: String| Error::BadTensor { name: name.to_owned(), problem };
    if shape.len() > MAX_RANK {
        return Err(wrong(format!("it has {} axes, and {MAX_RANK} is the most", shape.len())));
    }
    let sides = shape.iter().map(|side| usize::try_from(*side));
    let sides = sides.collect::<Result<Vec<_>, _>>();
    let sides = sides.map_err(|_| wrong(format!("shape {} has a negative side", Shape(shape))))?;
    let product = sides.iter().try_fold(1usize, |product, side| product.checked_mul(*side));
    // A side of 0 makes nothing of whatever stands beside it, and must not hide that this is too much.
    let sound = sides.iter().filter(|side| **side > 0).try_fold(1usize, |product, side| product.checked_mul(*side));
    product
        .zip(sound)
        .map(|(product, _)| product)
        .ok_or_else(|| wrong(format!("shape {} has too many elements", Shape(shape))))
}

/// The elements of [`DataType::Bytes`]; `None` where a length does not hold.
pub fn strings(data: &[u8]) -> impl Iterator<Item = Option<&[u8]>> {
    let mut rest = Some(data);
    std::iter::from_fn(move || {
        let left = rest.filter(|left| !left.is_empty())?;
        let item = left.split_first_chunk::<4>().and_then(|(length, left)| {
            left.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX))
        });
        rest = item.map(|(_, left)| left);
        Some(item.map(|(item, _)| item))
    })
}

/// Adds an element of [`DataType::Bytes`]; false: it is too long to say how long it is.
#[must_use]
pub fn push_string(data: &mut Vec<u8>, item: &[u8]) -> bool {
    let Ok(length) = u32::try_from(item.len()) else { return false };
    data.extend_from_slice(&length.to_le_bytes());
    data.extend_from_slice(item);
    true
}

/// A shape as people read it: `[1, 3, 416, 416]`, with −1 for a side that is free.
pub struct Shape<'a>(pub &'a [i64]);

impl fmt::Display for Shape<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_list().entries(self.0).finish()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tensor(datatype: DataType, shape: &[i64], data: &[u8]) -> Result<Tensor, Error> {
        Tensor::new("x".to_owned(), datatype, shape.to_vec(), Bytes::copy_from_slice(data))
    }

    #[test]
    fn every_type_is_in_the_table_once() {
        for (datatype, name, number) in DataType::ALL {
            assert_eq!(DataType::named(name), Some(datatype));
            assert_eq!((datatype.name(), datatype.config_number()), (name, number));
        }
        assert_eq!(DataType::named("fp32"), None);
        assert_eq!(DataType::Bytes.config_name(), "TYPE_STRING");
        assert_eq!(DataType::Fp32.config_name(), "TYPE_FP32");
    }

    #[test]
    fn data_are_as_many_as_the_shape_says() {
        assert!(tensor(DataType::Fp32, &[2, 1], &[0; 8]).is_ok());
        assert!(tensor(DataType::Fp32, &[0, 5], &[]).is_ok());
        assert!(tensor(DataType::Fp32, &[], &[0; 4]).is_ok(), "a scalar");
        for (shape, bytes) in
            [(&[2][..], 7), (&[-1], 4), (&[i64::MAX, 0, i64::MAX], 0), (&[i64::MAX, 8], 0), (&[1; 9], 4)]
        {
            assert!(tensor(DataType::Fp32, shape, &vec![0; bytes]).is_err(), "{shape:?}");
        }
        let error = tensor(DataType::Fp16, &[3], &[0; 4]).unwrap_err().to_string();
        assert!(error.contains("FP16 of shape [3] has 6 bytes, and 4 were sent"), "{error}");
        assert!(tensor(DataType::Bool, &[2], &[0, 1]).is_ok() && tensor(DataType::Bool, &[1], &[2]).is_err());
    }

    #[test]
    fn strings_are_as_long_as_they_say() {
        let mut data = Vec::new();
        assert!(push_string(&mut data, b"ab") && push_string(&mut data, b""));
        assert_eq!(data, b"\x02\0\0\0ab\0\0\0\0");
        assert!(tensor(DataType::Bytes, &[2], &data).is_ok());
        assert!(tensor(DataType::Bytes, &[1], &data).is_err());
        for broken in [&data[..3], &data[..5], b"\xff\xff\xff\xffab"] {
            assert!(tensor(DataType::Bytes, &[1], broken).is_err(), "{broken:?}");
        }
    }

    proptest! {
        #[test]
        fn strings_come_back(items in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..20), 0..10)) {
            let mut data = Vec::new();
            items.iter().for_each(|item| assert!(push_string(&mut data, item)));
            let back: Option<Vec<_>> = strings(&data).map(|item| item.map(<[u8]>::to_vec)).collect();
            prop_assert_eq!(back, Some(items));
        }

        #[test]
        fn no_shape_makes_it_fail(shape in proptest::collection::vec(any::<i64>(), 0..10), data in proptest::collection::vec(any::<u8>(), 0..64)) {
            for (datatype, ..) in DataType::ALL {
                if let Ok(tensor) = tensor(datatype, &shape, &data) {
                    prop_assert_eq!(datatype.size().map(|size| tensor.elements() * size).unwrap_or(data.len()), data.len());
                }
            }
        }
    }
}

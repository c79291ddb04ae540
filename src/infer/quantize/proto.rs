//! The parts of ONNX's protobuf messages that are read and written here; the numbers are those of `onnx.proto` (IR
//! version 3 and later). What is passed on unread is kept as the bytes it came in, so that nothing is lost.

use prost::Message;

/// Element types of a [`Tensor`].
pub(super) mod element {
    pub(in super::super) const FLOAT: i32 = 1;
    pub(in super::super) const UINT8: i32 = 2;
    pub(in super::super) const INT8: i32 = 3;
    pub(in super::super) const INT32: i32 = 6;
    pub(in super::super) const INT64: i32 = 7;
}

/// Type of an [`Attribute`] that is one integer.
const INT: i32 = 2;

/// `ModelProto`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Model {
    #[prost(int64, optional, tag = "1")]
    pub(super) ir_version: Option<i64>,
    #[prost(message, repeated, tag = "8")]
    pub(super) opset_import: Vec<Opset>,
    #[prost(string, optional, tag = "2")]
    pub(super) producer_name: Option<String>,
    #[prost(string, optional, tag = "3")]
    pub(super) producer_version: Option<String>,
    #[prost(string, optional, tag = "4")]
    pub(super) domain: Option<String>,
    #[prost(int64, optional, tag = "5")]
    pub(super) model_version: Option<i64>,
    #[prost(string, optional, tag = "6")]
    pub(super) doc_string: Option<String>,
    #[prost(message, optional, tag = "7")]
    pub(super) graph: Option<Graph>,
    #[prost(bytes = "vec", repeated, tag = "14")]
    pub(super) metadata_props: Vec<Vec<u8>>,
    #[prost(bytes = "vec", repeated, tag = "20")]
    pub(super) training_info: Vec<Vec<u8>>,
    #[prost(bytes = "vec", repeated, tag = "25")]
    pub(super) functions: Vec<Vec<u8>>,
    #[prost(bytes = "vec", repeated, tag = "26")]
    pub(super) configuration: Vec<Vec<u8>>,
}

/// `OperatorSetIdProto`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Opset {
    #[prost(string, optional, tag = "1")]
    pub(super) domain: Option<String>,
    #[prost(int64, optional, tag = "2")]
    pub(super) version: Option<i64>,
}

/// `GraphProto`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Graph {
    #[prost(message, repeated, tag = "1")]
    pub(super) node: Vec<Node>,
    #[prost(string, optional, tag = "2")]
    pub(super) name: Option<String>,
    #[prost(message, repeated, tag = "5")]
    pub(super) initializer: Vec<Tensor>,
    #[prost(bytes = "vec", repeated, tag = "15")]
    pub(super) sparse_initializer: Vec<Vec<u8>>,
    #[prost(string, optional, tag = "10")]
    pub(super) doc_string: Option<String>,
    #[prost(message, repeated, tag = "11")]
    pub(super) input: Vec<ValueInfo>,
    #[prost(message, repeated, tag = "12")]
    pub(super) output: Vec<ValueInfo>,
    #[prost(message, repeated, tag = "13")]
    pub(super) value_info: Vec<ValueInfo>,
    #[prost(bytes = "vec", repeated, tag = "14")]
    pub(super) quantization_annotation: Vec<Vec<u8>>,
    #[prost(bytes = "vec", repeated, tag = "16")]
    pub(super) metadata_props: Vec<Vec<u8>>,
}

/// `NodeProto`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Node {
    #[prost(string, repeated, tag = "1")]
    pub(super) input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub(super) output: Vec<String>,
    #[prost(string, optional, tag = "3")]
    pub(super) name: Option<String>,
    #[prost(string, optional, tag = "4")]
    pub(super) op_type: Option<String>,
    #[prost(string, optional, tag = "7")]
    pub(super) domain: Option<String>,
    #[prost(string, optional, tag = "8")]
    pub(super) overload: Option<String>,
    #[prost(message, repeated, tag = "5")]
    pub(super) attribute: Vec<Attribute>,
    #[prost(string, optional, tag = "6")]
    pub(super) doc_string: Option<String>,
    #[prost(bytes = "vec", repeated, tag = "9")]
    pub(super) metadata_props: Vec<Vec<u8>>,
    #[prost(bytes = "vec", repeated, tag = "10")]
    pub(super) device_configurations: Vec<Vec<u8>>,
}

/// `AttributeProto`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Attribute {
    #[prost(string, optional, tag = "1")]
    pub(super) name: Option<String>,
    #[prost(string, optional, tag = "21")]
    pub(super) ref_attr_name: Option<String>,
    #[prost(string, optional, tag = "13")]
    pub(super) doc_string: Option<String>,
    #[prost(int32, optional, tag = "20")]
    pub(super) r#type: Option<i32>,
    #[prost(float, optional, tag = "2")]
    pub(super) f: Option<f32>,
    #[prost(int64, optional, tag = "3")]
    pub(super) i: Option<i64>,
    #[prost(bytes = "vec", optional, tag = "4")]
    pub(super) s: Option<Vec<u8>>,
    #[prost(message, optional, tag = "5")]
    pub(super) t: Option<Tensor>,
    /// A graph within the graph: of `If`, `Loop`, `Scan`.
    #[prost(bytes = "vec", optional, tag = "6")]
    pub(super) g: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "22")]
    pub(super) sparse_tensor: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "14")]
    pub(super) tp: Option<Vec<u8>>,
    #[prost(float, repeated, packed = "false", tag = "7")]
    pub(super) floats: Vec<f32>,
    #[prost(int64, repeated, packed = "false", tag = "8")]
    pub(super) ints: Vec<i64>,
    #[prost(bytes = "vec", repeated, tag = "9")]
    pub(super) strings: Vec<Vec<u8>>,
    #[prost(bytes = "vec", repeated, tag = "10")]
    pub(super) tensors: Vec<Vec<u8>>,
    #[prost(bytes = "vec", repeated, tag = "11")]
    pub(super) graphs: Vec<Vec<u8>>,
    #[prost(bytes = "vec", repeated, tag = "23")]
    pub(super) sparse_tensors: Vec<Vec<u8>>,
    #[prost(bytes = "vec", repeated, tag = "15")]
    pub(super) type_protos: Vec<Vec<u8>>,
}

/// `TensorProto`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Tensor {
    #[prost(int64, repeated, packed = "false", tag = "1")]
    pub(super) dims: Vec<i64>,
    /// One of [`element`].
    #[prost(int32, optional, tag = "2")]
    pub(super) data_type: Option<i32>,
    #[prost(bytes = "vec", optional, tag = "3")]
    pub(super) segment: Option<Vec<u8>>,
    #[prost(float, repeated, tag = "4")]
    pub(super) float_data: Vec<f32>,
    #[prost(int32, repeated, tag = "5")]
    pub(super) int32_data: Vec<i32>,
    #[prost(bytes = "vec", repeated, tag = "6")]
    pub(super) string_data: Vec<Vec<u8>>,
    #[prost(int64, repeated, tag = "7")]
    pub(super) int64_data: Vec<i64>,
    #[prost(string, optional, tag = "8")]
    pub(super) name: Option<String>,
    #[prost(string, optional, tag = "12")]
    pub(super) doc_string: Option<String>,
    /// Little-endian.
    #[prost(bytes = "vec", optional, tag = "9")]
    pub(super) raw_data: Option<Vec<u8>>,
    #[prost(bytes = "vec", repeated, tag = "13")]
    pub(super) external_data: Vec<Vec<u8>>,
    #[prost(int32, optional, tag = "14")]
    pub(super) data_location: Option<i32>,
    #[prost(double, repeated, tag = "10")]
    pub(super) double_data: Vec<f64>,
    #[prost(uint64, repeated, tag = "11")]
    pub(super) uint64_data: Vec<u64>,
    #[prost(bytes = "vec", repeated, tag = "16")]
    pub(super) metadata_props: Vec<Vec<u8>>,
}

/// `ValueInfoProto`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct ValueInfo {
    #[prost(string, optional, tag = "1")]
    pub(super) name: Option<String>,
    #[prost(message, optional, tag = "2")]
    pub(super) r#type: Option<Type>,
    #[prost(string, optional, tag = "3")]
    pub(super) doc_string: Option<String>,
    #[prost(bytes = "vec", repeated, tag = "4")]
    pub(super) metadata_props: Vec<Vec<u8>>,
}

/// `TypeProto`, of which only tensors are read.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Type {
    #[prost(message, optional, tag = "1")]
    pub(super) tensor_type: Option<TensorType>,
    #[prost(bytes = "vec", optional, tag = "4")]
    pub(super) sequence_type: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "5")]
    pub(super) map_type: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "9")]
    pub(super) optional_type: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "8")]
    pub(super) sparse_tensor_type: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "7")]
    pub(super) opaque_type: Option<Vec<u8>>,
    #[prost(string, optional, tag = "6")]
    pub(super) denotation: Option<String>,
}

/// `TypeProto.Tensor`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct TensorType {
    #[prost(int32, optional, tag = "1")]
    pub(super) elem_type: Option<i32>,
    #[prost(bytes = "vec", optional, tag = "2")]
    pub(super) shape: Option<Vec<u8>>,
}

impl Opset {
    /// Whether it is ONNX's own.
    pub(super) fn is_standard(&self) -> bool {
        matches!(self.domain.as_deref(), None | Some("" | "ai.onnx"))
    }
}

impl Node {
    /// A node of ONNX's own operators, with one output that gives it its name, too.
    pub(super) fn new(op_type: &str, input: Vec<String>, output: &str, attribute: Vec<Attribute>) -> Self {
        Self {
            input,
            output: vec![output.to_owned()],
            name: Some(output.to_owned()),
            op_type: Some(op_type.to_owned()),
            attribute,
            ..Self::default()
        }
    }

    /// The operator, if it is one of ONNX's own.
    pub(super) fn op(&self) -> &str {
        match self.domain.as_deref() {
            None | Some("" | "ai.onnx") => self.op_type.as_deref().unwrap_or_default(),
            Some(_) => "",
        }
    }

    pub(super) fn attribute(&self, name: &str) -> Option<&Attribute> {
        self.attribute.iter().find(|attribute| attribute.name.as_deref() == Some(name))
    }

    /// Whether it holds graphs, which may read any tensor of this one.
    pub(super) fn holds_graphs(&self) -> bool {
        self.attribute.iter().any(|attribute| attribute.g.is_some() || !attribute.graphs.is_empty())
    }
}

impl Attribute {
    pub(super) fn int(name: &str, value: i64) -> Self {
        Self { name: Some(name.to_owned()), r#type: Some(INT), i: Some(value), ..Self::default() }
    }
}

impl Tensor {
    pub(super) fn floats(name: &str, dims: Vec<i64>, values: &[f32]) -> Self {
        Self::raw(name, dims, element::FLOAT, values.iter().flat_map(|value| value.to_le_bytes()).collect())
    }

    pub(super) fn ints32(name: &str, dims: Vec<i64>, values: &[i32]) -> Self {
        Self::raw(name, dims, element::INT32, values.iter().flat_map(|value| value.to_le_bytes()).collect())
    }

    pub(super) fn ints64(name: &str, values: &[i64]) -> Self {
        let dims = vec![i64::try_from(values.len()).unwrap_or(i64::MAX)];
        Self::raw(name, dims, element::INT64, values.iter().flat_map(|value| value.to_le_bytes()).collect())
    }

    pub(super) fn raw(name: &str, dims: Vec<i64>, data_type: i32, data: Vec<u8>) -> Self {
        Self { name: Some(name.to_owned()), dims, data_type: Some(data_type), raw_data: Some(data), ..Self::default() }
    }

    /// Its values, if it holds as many 32-bit floats as its shape says.
    pub(super) fn values(&self) -> Option<Vec<f32>> {
        if self.data_type != Some(element::FLOAT) || self.data_location.is_some_and(|location| location != 0) {
            return None;
        }
        let len = self.dims.iter().try_fold(1usize, |len, side| len.checked_mul(usize::try_from(*side).ok()?))?;
        let values: Vec<f32> = match &self.raw_data {
            Some(raw) if raw.len().is_multiple_of(4) => {
                raw.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
            }
            Some(_) => return None,
            None => self.float_data.clone(),
        };
        (values.len() == len).then_some(values)
    }
}

impl ValueInfo {
    /// A tensor of this element type, whatever its shape.
    pub(super) fn tensor(name: &str, elem_type: i32) -> Self {
        let tensor_type = Some(TensorType { elem_type: Some(elem_type), shape: None });
        Self { name: Some(name.to_owned()), r#type: Some(Type { tensor_type, ..Type::default() }), ..Self::default() }
    }
}

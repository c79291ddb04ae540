//! Requests and answers over HTTP: JSON, with tensors in it or as bytes after it (the binary tensor data extension).

mod body;
mod bounded;
mod failure;
mod routes;
mod views;

use std::fmt;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use half::{bf16, f16};
use serde::de::{self, DeserializeSeed, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::error::Error;
use super::tensor::{DataType, Tensor, elements, push_string, strings};
use super::{MAX_RANK, MAX_TENSORS, Request, Response};

pub use routes::Service;
pub(crate) use routes::{describe, failures, table};

use self::bounded::{Few, Parameters, Text};

/// Header that says how many bytes of a body are JSON; what follows are tensors.
pub const HEADER_LENGTH: &str = "inference-header-content-length";

/// A request as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// In the protocol's terms.
    Request(Request, Wanted),
    /// Nothing but the bytes of the only input, whose shape is the model's.
    Raw(Bytes),
}

/// Which outputs are to be sent as bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Wanted {
    /// All of which nothing else is said.
    pub binary: bool,
    /// Outputs of which something else is said.
    pub except: Vec<String>,
}

impl Wanted {
    fn is_binary(&self, name: &str) -> bool {
        self.binary != self.except.iter().any(|other| other == name)
    }
}

#[derive(Deserialize)]
struct Json<'a> {
    #[serde(default)]
    id: Option<Text>,
    #[serde(borrow)]
    inputs: Few<JsonInput<'a>, MAX_TENSORS>,
    #[serde(default)]
    outputs: Option<Few<JsonOutput, MAX_TENSORS>>,
    #[serde(default)]
    parameters: Option<Parameters>,
}

#[derive(Deserialize)]
struct JsonInput<'a> {
    name: Text,
    shape: Few<i64, MAX_RANK>,
    datatype: Text,
    #[serde(default)]
    parameters: Option<Parameters>,
    #[serde(default, borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct JsonOutput {
    name: Text,
    #[serde(default)]
    parameters: Option<Parameters>,
}

/// Reads a request. `header` is what [`HEADER_LENGTH`] says, if it is there; `limit` are the bytes of its tensors at most.
/// Bytes of tensors are not copied. For large bodies this takes a while.
///
/// # Errors
/// [`Error::Malformed`], [`Error::BadTensor`], [`Error::TooLarge`], [`Error::Unsupported`].
pub fn read(body: &Bytes, header: Option<usize>, limit: usize) -> Result<Body, Error> {
    if header == Some(0) {
        return Ok(Body::Raw(body.clone()));
    }
    let at = header.unwrap_or(body.len());
    if at > body.len() {
        let found = body.len();
        return Err(Error::malformed(format!("`{HEADER_LENGTH}` says {at} bytes, and the body has {found}")));
    }
    require_object(&body[..at])?;
    let json: Json<'_> =
        serde_json::from_slice(&body[..at]).map_err(|error| Error::malformed(format!("the JSON: {error}")))?;
    let mut binary = body.slice(at..);
    let asked = json.outputs.map(|it| it.0).unwrap_or_default();
    let mut left = limit;
    let mut inputs = Vec::with_capacity(json.inputs.0.len());
    for input in json.inputs.0 {
        let tensor = input.read(&mut binary, left)?;
        left = left.checked_sub(tensor.data.len()).ok_or_else(|| too_large(limit))?;
        inputs.push(tensor);
    }
    if !binary.is_empty() {
        let found = binary.len();
        return Err(Error::malformed(format!("{found} bytes follow that belong to no tensor")));
    }
    let parameters = json.parameters.unwrap_or_default().0;
    refuse(&parameters, "the request")?;
    let by_default = flag(&parameters, "binary_data_output")?.unwrap_or(false);
    let (mut outputs, mut wanted) = (Vec::new(), Wanted { binary: by_default, except: Vec::new() });
    for JsonOutput { name: Text(name), parameters } in asked {
        let parameters = parameters.unwrap_or_default().0;
        refuse(&parameters, &name)?;
        if flag(&parameters, "binary_data")?.is_some_and(|binary| binary != by_default) {
            wanted.except.push(name.clone());
        }
        outputs.push(name);
    }
    let timeout = timeout(&parameters)?;
    Ok(Body::Request(Request { id: json.id.unwrap_or_default().0, inputs, outputs, timeout }, wanted))
}

/// Passes if a text begins as an object does: a list would be read as an object's values, too.
fn require_object(text: &[u8]) -> Result<(), Error> {
    match text.trim_ascii_start().first() {
        Some(b'{') => Ok(()),
        _ => Err(Error::malformed("the JSON: it is no object")),
    }
}

impl JsonInput<'_> {
    fn read(self, binary: &mut Bytes, limit: usize) -> Result<Tensor, Error> {
        let Self { name: Text(name), shape: Few(shape), datatype: Text(datatype), parameters, data } = self;
        let wrong = |problem: String| Error::BadTensor { name: name.clone(), problem };
        let datatype = DataType::named(&datatype).ok_or_else(|| wrong(format!("there is no type {datatype:?}")))?;
        let parameters = parameters.unwrap_or_default().0;
        refuse(&parameters, &name)?;
        let size = match parameters.get("binary_data_size") {
            None => None,
            Some(size) => {
                let size = size.as_u64().and_then(|size| usize::try_from(size).ok());
                Some(size.ok_or_else(|| wrong("`binary_data_size` is no number of bytes".to_owned()))?)
            }
        };
        let data = match (data, size) {
            (Some(_), Some(_)) => return Err(wrong("it has `data` and `binary_data_size`; one is needed".to_owned())),
            (None, None) => return Err(wrong("it has neither `data` nor `binary_data_size`".to_owned())),
            (None, Some(size)) if size > binary.len() => {
                let found = binary.len();
                return Err(wrong(format!("`binary_data_size` is {size}, and {found} bytes are left")));
            }
            (None, Some(size)) => binary.split_to(size),
            (Some(data), None) => {
                let count = elements(&name, &shape)?;
                // What JSON needs at least for an element is a digit and a comma.
                let fits = count.checked_mul(datatype.size().unwrap_or(4)).is_some_and(|bytes| bytes <= limit);
                if !fits {
                    return Err(too_large(limit));
                }
                let mut read = Elements { datatype, count, left: count, limit, bytes: Vec::new() };
                let mut json = serde_json::Deserializer::from_str(data.get());
                Nested(&mut read).deserialize(&mut json).map_err(|error| wrong(format!("`data`: {error}")))?;
                if read.left > 0 {
                    let found = count - read.left;
                    return Err(wrong(format!("its shape has {count} elements, and `data` has {found}")));
                }
                Bytes::from(read.bytes)
            }
        };
        Tensor::new(name, datatype, shape, data)
    }
}

fn too_large(limit: usize) -> Error {
    Error::TooLarge { what: "the request's tensors together", limit }
}

fn flag(parameters: &Map<String, Value>, name: &str) -> Result<Option<bool>, Error> {
    match parameters.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(value)) => Ok(Some(*value)),
        Some(other) => Err(Error::malformed(format!("parameter `{name}` is {other}, and has to be true or false"))),
    }
}

/// Triton's parameter, in microseconds.
fn timeout(parameters: &Map<String, Value>) -> Result<Option<Duration>, Error> {
    let Some(timeout) = parameters.get("timeout") else { return Ok(None) };
    let micros = timeout.as_u64();
    let micros =
        micros.ok_or_else(|| Error::malformed(format!("parameter `timeout` is {timeout}, not microseconds")))?;
    Ok((micros > 0).then(|| Duration::from_micros(micros)))
}

/// Parameters that would change what an answer means are not passed over.
fn refuse(parameters: &Map<String, Value>, of: &str) -> Result<(), Error> {
    let known = |name: &&String| super::changes_meaning(name);
    match parameters.keys().find(known) {
        None => Ok(()),
        Some(name) => Err(Error::Unsupported { what: format!("parameter `{name}` (of {of})") }),
    }
}

/// Where the elements of a tensor go, whatever arrays they are nested in.
struct Elements {
    datatype: DataType,
    count: usize,
    left: usize,
    limit: usize,
    bytes: Vec<u8>,
}

impl Elements {
    fn take<E: de::Error>(&mut self) -> Result<(), E> {
        let (count, left) = (self.count, self.left.checked_sub(1));
        self.left =
            left.ok_or_else(|| E::custom(format_args!("there are more than the {count} that the shape has")))?;
        Ok(())
    }

    fn wrong<E: de::Error>(&self, found: impl fmt::Display) -> E {
        E::custom(format_args!("{found} is no {}", self.datatype))
    }

    fn integer<E: de::Error>(&mut self, value: i128) -> Result<(), E> {
        self.take()?;
        let bytes = &mut self.bytes;
        macro_rules! put {
            ($type:ty) => {
                <$type>::try_from(value).ok().map(|value| bytes.put_slice(&value.to_le_bytes()))
            };
        }
        let put = match self.datatype {
            DataType::Bool => u8::try_from(value).ok().filter(|value| *value <= 1).map(|value| bytes.put_u8(value)),
            DataType::Uint8 => put!(u8),
            DataType::Uint16 => put!(u16),
            DataType::Uint32 => put!(u32),
            DataType::Uint64 => put!(u64),
            DataType::Int8 => put!(i8),
            DataType::Int16 => put!(i16),
            DataType::Int32 => put!(i32),
            DataType::Int64 => put!(i64),
            #[expect(clippy::cast_precision_loss, reason = "the nearest float is what is meant")]
            DataType::Fp16 | DataType::Fp32 | DataType::Fp64 | DataType::Bf16 => return self.put_float(value as f64),
            DataType::Bytes => None,
        };
        put.ok_or_else(|| self.wrong(value))
    }

    fn put_float<E: de::Error>(&mut self, value: f64) -> Result<(), E> {
        #[expect(clippy::cast_possible_truncation, reason = "the nearest float is what is meant")]
        let single = value as f32;
        let infinite = match self.datatype {
            DataType::Fp64 => {
                self.bytes.put_f64_le(value);
                false
            }
            DataType::Fp16 => {
                let half = f16::from_f64(value);
                self.bytes.put_slice(&half.to_le_bytes());
                half.is_infinite()
            }
            DataType::Bf16 => {
                let half = bf16::from_f64(value);
                self.bytes.put_slice(&half.to_le_bytes());
                half.is_infinite()
            }
            DataType::Fp32 => {
                self.bytes.put_f32_le(single);
                single.is_infinite()
            }
            _ => return Err(self.wrong(value)),
        };
        if infinite { Err(self.wrong(value)) } else { Ok(()) }
    }
}

/// Reads a value, or arrays of them, into where they go.
struct Nested<'e>(&'e mut Elements);

impl<'de> DeserializeSeed<'de> for Nested<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Nested<'_> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} or an array of them", self.0.datatype)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<(), E> {
        if self.0.datatype != DataType::Bool {
            return Err(self.0.wrong(value));
        }
        self.0.integer(value.into())
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<(), E> {
        self.0.integer(value.into())
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<(), E> {
        self.0.integer(value.into())
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<(), E> {
        self.0.take()?;
        self.0.put_float(value)
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<(), E> {
        let Elements { datatype: DataType::Bytes, bytes, limit, .. } = &mut *self.0 else {
            return Err(self.0.wrong("a string"));
        };
        if bytes.len().saturating_add(value.len()).saturating_add(4) > *limit || !push_string(bytes, value.as_bytes()) {
            return Err(E::custom("there are more bytes than are taken (`limits.tensor_bytes`)"));
        }
        self.0.take()
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(Nested(&mut *self.0))?.is_some() {}
        Ok(())
    }
}

/// Writes an answer: its body, and how many bytes of it are JSON where others follow.
///
/// # Errors
/// [`Error::Unsupported`] for values that JSON does not have.
pub fn write(response: &Response, wanted: &Wanted) -> Result<(Bytes, Option<usize>), Error> {
    let mut binary = Vec::new();
    let outputs = response.outputs.iter().map(|tensor| {
        if wanted.is_binary(&tensor.name) {
            binary.push(&tensor.data);
            return Ok(Written { tensor, as_bytes: true });
        }
        if has_no_json(tensor) {
            let what = format!(
                "output `{}` in JSON, which has no NaN, infinity or bytes beyond UTF-8; ask for it with \
                 `binary_data`: that",
                tensor.name
            );
            return Err(Error::Unsupported { what });
        }
        Ok(Written { tensor, as_bytes: false })
    });
    let outputs = outputs.collect::<Result<Vec<_>, _>>()?;
    let head = Head { response, outputs };
    let mut body = BytesMut::new().writer();
    serde_json::to_writer(&mut body, &head).map_err(|error| Error::malformed(error.to_string()))?;
    let mut body = body.into_inner();
    if binary.is_empty() {
        return Ok((body.freeze(), None));
    }
    let length = body.len();
    body.reserve(binary.iter().map(|data| data.len()).sum());
    binary.into_iter().for_each(|data| body.extend_from_slice(data));
    Ok((body.freeze(), Some(length)))
}

fn has_no_json(tensor: &Tensor) -> bool {
    let data = &tensor.data;
    match tensor.datatype {
        DataType::Fp32 => data.as_chunks().0.iter().any(|value| !f32::from_le_bytes(*value).is_finite()),
        DataType::Fp64 => data.as_chunks().0.iter().any(|value| !f64::from_le_bytes(*value).is_finite()),
        DataType::Fp16 => data.as_chunks().0.iter().any(|value| !f16::from_le_bytes(*value).is_finite()),
        DataType::Bf16 => data.as_chunks().0.iter().any(|value| !bf16::from_le_bytes(*value).is_finite()),
        DataType::Bytes => strings(data).any(|item| item.is_none_or(|item| std::str::from_utf8(item).is_err())),
        _ => false,
    }
}

struct Head<'a> {
    response: &'a Response,
    outputs: Vec<Written<'a>>,
}

impl Serialize for Head<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        map.serialize_entry("model_name", &self.response.model)?;
        map.serialize_entry("model_version", &self.response.version)?;
        if !self.response.id.is_empty() {
            map.serialize_entry("id", &self.response.id)?;
        }
        map.serialize_entry("outputs", &self.outputs)?;
        map.end()
    }
}

struct Written<'a> {
    tensor: &'a Tensor,
    as_bytes: bool,
}

impl Serialize for Written<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        map.serialize_entry("name", &self.tensor.name)?;
        map.serialize_entry("datatype", self.tensor.datatype.name())?;
        map.serialize_entry("shape", &self.tensor.shape)?;
        if self.as_bytes {
            map.serialize_entry("parameters", &json!({ "binary_data_size": self.tensor.data.len() }))?;
        } else {
            map.serialize_entry("data", &Values(self.tensor))?;
        }
        map.end()
    }
}

struct Values<'a>(&'a Tensor);

impl Serialize for Values<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut seq = to.serialize_seq(Some(self.0.elements()))?;
        let data = &self.0.data;
        macro_rules! all {
            ($type:ty) => {
                for value in data.as_chunks().0 {
                    seq.serialize_element(&<$type>::from_le_bytes(*value))?;
                }
            };
        }
        match self.0.datatype {
            DataType::Bool => {
                for byte in data {
                    seq.serialize_element(&(*byte != 0))?;
                }
            }
            DataType::Uint8 => all!(u8),
            DataType::Uint16 => all!(u16),
            DataType::Uint32 => all!(u32),
            DataType::Uint64 => all!(u64),
            DataType::Int8 => all!(i8),
            DataType::Int16 => all!(i16),
            DataType::Int32 => all!(i32),
            DataType::Int64 => all!(i64),
            DataType::Fp32 => all!(f32),
            DataType::Fp64 => all!(f64),
            DataType::Fp16 => {
                for value in data.as_chunks().0 {
                    seq.serialize_element(&f16::from_le_bytes(*value).to_f32())?;
                }
            }
            DataType::Bf16 => {
                for value in data.as_chunks().0 {
                    seq.serialize_element(&bf16::from_le_bytes(*value).to_f32())?;
                }
            }
            DataType::Bytes => {
                for item in strings(data) {
                    seq.serialize_element(&String::from_utf8_lossy(item.unwrap_or_default()))?;
                }
            }
        }
        seq.end()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: usize = 1 << 20;

    fn parse(json: &str) -> Result<(Request, Wanted), String> {
        match read(&Bytes::copy_from_slice(json.as_bytes()), None, LIMIT) {
            Ok(Body::Request(request, wanted)) => Ok((request, wanted)),
            Ok(Body::Raw(_)) => panic!("there was JSON"),
            Err(error) => Err(error.to_string()),
        }
    }

    fn input(datatype: &str, shape: &str, data: &str) -> Result<Tensor, String> {
        let json = format!(r#"{{"inputs":[{{"data":{data},"name":"x","datatype":"{datatype}","shape":{shape}}}]}}"#);
        parse(&json).map(|(mut request, _)| request.inputs.remove(0))
    }

    fn bytes(datatype: &str, shape: &str, data: &str) -> Vec<u8> {
        input(datatype, shape, data).unwrap().data.to_vec()
    }

    #[test]
    fn every_type_has_its_numbers() {
        assert_eq!(bytes("FP32", "[2]", "[1, -2.5]"), [1.0f32.to_le_bytes(), (-2.5f32).to_le_bytes()].concat());
        assert_eq!(bytes("FP64", "[1,1]", "[[0.1]]"), 0.1f64.to_le_bytes());
        assert_eq!(bytes("FP16", "[1]", "[0.5]"), f16::from_f32(0.5).to_le_bytes());
        assert_eq!(bytes("BF16", "[1]", "[3]"), bf16::from_f32(3.0).to_le_bytes());
        assert_eq!(
            bytes("INT64", "[2]", "[-9223372036854775808, 7]"),
            [i64::MIN.to_le_bytes(), 7i64.to_le_bytes()].concat()
        );
        assert_eq!(bytes("UINT64", "[1]", "[18446744073709551615]"), u64::MAX.to_le_bytes());
        assert_eq!(bytes("INT8", "[2,1]", "[[-128],[127]]"), [0x80, 0x7f]);
        assert_eq!(bytes("UINT16", "[1]", "[65535]"), [0xff, 0xff]);
        assert_eq!(bytes("BOOL", "[3]", "[true, false, 1]"), [1, 0, 1]);
        assert_eq!(bytes("BYTES", "[2]", r#"["ab", "\u00e9"]"#), b"\x02\0\0\0ab\x02\0\0\0\xc3\xa9");
        assert_eq!(bytes("FP32", "[]", "7"), 7.0f32.to_le_bytes(), "a scalar");
        assert!(bytes("FP32", "[0]", "[]").is_empty());
    }

    #[test]
    fn numbers_that_do_not_fit_are_refused() {
        for (datatype, data) in [
            ("UINT8", "[256]"),
            ("UINT8", "[-1]"),
            ("INT8", "[1.5]"),
            ("INT32", "[2147483648]"),
            ("UINT64", "[-1]"),
            ("BOOL", "[2]"),
            ("FP16", "[70000]"),
            ("FP32", "[1e39]"),
            ("FP32", "[true]"),
            ("FP32", "[null]"),
            ("FP32", "[{}]"),
            ("BYTES", "[1]"),
            ("FP32", "[1, 2]"),
            ("FP32", "[]"),
        ] {
            let error = input(datatype, "[1]", data).unwrap_err();
            assert!(error.contains("`data`"), "{datatype} {data}: {error}");
        }
        let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(input("FP32", "[1]", &deep).is_err());
        assert!(input("FP32", "[1000000]", "[1]").unwrap_err().contains("limits.tensor_bytes"));
        assert!(input("FP32", "[-1]", "[1]").unwrap_err().contains("negative"));
    }

    #[test]
    fn bytes_are_shared_out_in_the_order_of_the_inputs() {
        let tensor = |name: &str, size: usize| {
            format!(
                r#"{{"name":"{name}","shape":[{size}],"datatype":"UINT8","parameters":{{"binary_data_size":{size}}}}}"#
            )
        };
        let read_with = |json: &str, rest: &[u8], header: usize| {
            read(&Bytes::from([json.as_bytes(), rest].concat()), Some(header), 4).map_err(|error| error.to_string())
        };
        let json = format!(r#"{{"inputs":[{},{}]}}"#, tensor("x", 1), tensor("y", 2));
        let Ok(Body::Request(request, _)) = read_with(&json, b"abc", json.len()) else { panic!("it is right") };
        assert_eq!((&request.inputs[0].data[..], &request.inputs[1].data[..]), (&b"a"[..], &b"bc"[..]));
        for (rest, header, says) in [
            (&b"ab"[..], json.len(), "`binary_data_size` is 2, and 1 bytes are left"),
            (b"abcd", json.len(), "1 bytes follow that belong to no tensor"),
            (b"abc", json.len() + 9, "the body has"),
            (b"abc", json.len() - 1, "the JSON"),
        ] {
            let error = read_with(&json, rest, header).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
        let json = format!(r#"{{"inputs":[{},{}]}}"#, tensor("x", 3), tensor("y", 2));
        assert!(read_with(&json, b"abcde", json.len()).unwrap_err().contains("more than 4 bytes"));
        assert_eq!(read_with("abcd", b"", 0), Ok(Body::Raw(Bytes::from_static(b"abcd"))));
    }

    #[test]
    fn parameters_say_how_the_answer_is_written_and_those_that_would_change_it_are_refused() {
        let with = |outputs: &str, parameters: &str| {
            parse(&format!(r#"{{"inputs":[],"outputs":{outputs},"parameters":{parameters}}}"#))
        };
        let (request, wanted) = with(
            r#"[{"name":"a"},{"name":"b","parameters":{"binary_data":false}}]"#,
            r#"{"binary_data_output":true,"timeout":2500,"priority":1}"#,
        )
        .unwrap();
        assert_eq!(request.outputs, ["a", "b"]);
        assert_eq!(request.timeout, Some(Duration::from_micros(2500)));
        assert!(wanted.is_binary("a") && !wanted.is_binary("b"));
        let (_, wanted) = with(r#"[{"name":"a","parameters":{"binary_data":true}},{"name":"b"}]"#, "{}").unwrap();
        assert!(wanted.is_binary("a") && !wanted.is_binary("b"));
        for parameters in [
            r#"{"sequence_id":7}"#,
            r#"{"timeout":-1}"#,
            r#"{"binary_data_output":"yes"}"#,
            r#"{"shared_memory_region":"x"}"#,
        ] {
            assert!(with("[]", parameters).is_err(), "{parameters}");
        }
        assert!(with(r#"[{"name":"a","parameters":{"classification":3}}]"#, "{}").is_err());
        let many = format!("[{}]", vec![r#"{"name":"a"}"#; MAX_TENSORS + 1].join(","));
        assert!(with(&many, "{}").is_err());
    }

    #[test]
    fn what_json_cannot_say_is_asked_for_as_bytes() {
        let nan = Tensor::new("y".to_owned(), DataType::Fp32, vec![1], Bytes::from(f32::NAN.to_le_bytes().to_vec()));
        let response = Response { outputs: vec![nan.unwrap()], ..Response::default() };
        let error = write(&response, &Wanted::default()).unwrap_err().to_string();
        assert!(error.contains("binary_data"), "{error}");
        assert!(write(&response, &Wanted { binary: true, except: Vec::new() }).is_ok());
    }

    fn tensors() -> impl Strategy<Value = Vec<Tensor>> {
        let one =
            (0..14usize, proptest::collection::vec(0..4i64, 0..4), any::<u64>()).prop_map(|(kind, shape, seed)| {
                let names = [
                    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32",
                    "FP64", "BYTES", "BF16",
                ];
                let datatype = DataType::named(names[kind]).unwrap();
                let count = elements("x", &shape).unwrap();
                let noise = (0..count * 8).map(|at| {
                    let mixed = (seed ^ (at as u64)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                    // No exponent of all ones.
                    u8::try_from(mixed >> 56).unwrap() & 0x3b
                });
                let noise: Vec<u8> = noise.collect();
                let data = match datatype.size() {
                    Some(_) if datatype == DataType::Bool => noise.iter().take(count).map(|byte| byte & 1).collect(),
                    Some(size) => noise[..count * size].to_vec(),
                    None => {
                        let mut data = Vec::new();
                        noise.chunks(8).for_each(|item| assert!(push_string(&mut data, item)));
                        data
                    }
                };
                Tensor::new("x".to_owned(), datatype, shape, Bytes::from(data)).unwrap()
            });
        proptest::collection::vec(one, 0..4)
    }

    proptest! {
        #[test]
        fn tensors_come_back_as_json_and_as_bytes(tensors in tensors(), binary in any::<bool>()) {
            let response = Response { outputs: tensors.clone(), ..Response::default() };
            let (body, head) = write(&response, &Wanted { binary, except: Vec::new() }).unwrap();
            let at = head.unwrap_or(body.len());
            let json: Value = serde_json::from_slice(&body[..at]).unwrap();
            let mut again = json!({ "inputs": json["outputs"] }).to_string().into_bytes();
            let length = again.len();
            again.extend_from_slice(&body[at..]);
            let Ok(Body::Request(back, _)) = read(&Bytes::from(again), Some(length), LIMIT) else { panic!("{json}") };
            prop_assert_eq!(back.inputs, tensors);
        }

        #[test]
        fn nothing_that_comes_makes_it_fail(body in proptest::collection::vec(any::<u8>(), 0..200), header in proptest::option::of(0usize..300)) {
            let _ = read(&Bytes::from(body), header, 1000);
        }
    }
}

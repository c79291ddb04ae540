//! What JSON says beside tensors, refused while it is read where there is more of it than any request needs: an element of
//! an array is two bytes of a body, and many more in memory.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Number, Value};

/// Bytes of a name, or of a parameter's text.
const MAX_TEXT: usize = 1024;
/// Parameters in one place.
const MAX_PARAMETERS: usize = 64;

/// An array with so many elements at most.
#[derive(Debug)]
pub(super) struct Few<T, const MOST: usize>(pub(super) Vec<T>);

impl<'de, T: Deserialize<'de>, const MOST: usize> Deserialize<'de> for Few<T, MOST> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Elements<T, const MOST: usize>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for Elements<T, MOST> {
            type Value = Few<T, MOST>;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(out, "an array of {MOST} elements at most")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Self::Value, A::Error> {
                let mut elements = Vec::new();
                while elements.len() < MOST {
                    let Some(element) = from.next_element()? else { return Ok(Few(elements)) };
                    elements.push(element);
                }
                match from.next_element::<IgnoredAny>()? {
                    None => Ok(Few(elements)),
                    Some(_) => Err(A::Error::custom(format_args!("an array has more than {MOST} elements"))),
                }
            }
        }

        from.deserialize_seq(Elements(PhantomData))
    }
}

/// A text of [`MAX_TEXT`] bytes at most.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Text(pub(super) String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Bounded;

        impl Visitor<'_> for Bounded {
            type Value = Text;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(out, "a text of {MAX_TEXT} bytes at most")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Text, E> {
                bounded(text).map(Text)
            }
        }

        from.deserialize_str(Bounded)
    }
}

/// Parameters, whose values are texts, numbers and booleans.
#[derive(Debug, Default)]
pub(super) struct Parameters(pub(super) Map<String, Value>);

impl<'de> Deserialize<'de> for Parameters {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = Parameters;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("an object of parameters")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Parameters, A::Error> {
                let mut all = Map::new();
                while let Some(Text(name)) = from.next_key()? {
                    if all.len() >= MAX_PARAMETERS {
                        return Err(A::Error::custom(format_args!("there are more than {MAX_PARAMETERS} parameters")));
                    }
                    let Scalar(value) = from.next_value()?;
                    all.insert(name, value);
                }
                Ok(Parameters(all))
            }
        }

        from.deserialize_map(Entries)
    }
}

struct Scalar(Value);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Any;

        impl Visitor<'_> for Any {
            type Value = Scalar;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a text, a number or a boolean")
            }

            fn visit_unit<E>(self) -> Result<Scalar, E> {
                Ok(Scalar(Value::Null))
            }

            fn visit_bool<E>(self, value: bool) -> Result<Scalar, E> {
                Ok(Scalar(value.into()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Scalar, E> {
                Ok(Scalar(value.into()))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Scalar, E> {
                Ok(Scalar(value.into()))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Scalar, E> {
                Ok(Scalar(Number::from_f64(value).map_or(Value::Null, Value::Number)))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Scalar, E> {
                Ok(Scalar(bounded(text)?.into()))
            }
        }

        from.deserialize_any(Any)
    }
}

fn bounded<E: Error>(text: &str) -> Result<String, E> {
    if text.len() > MAX_TEXT {
        return Err(E::custom(format_args!("a text has more than {MAX_TEXT} bytes")));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    fn problem<'a, T: Deserialize<'a>>(json: &'a str) -> String {
        serde_json::from_str::<T>(json).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn arrays_and_texts_have_bounds() {
        assert_eq!(serde_json::from_str::<Few<i64, 3>>("[1,2,3]").unwrap().0, [1, 2, 3]);
        assert!(problem::<Few<i64, 3>>("[1,2,3,4]").contains("more than 3"));
        assert!(problem::<Few<i64, 3>>("[1,2,3,4,").contains("more than 3"), "the rest is not read");
        let text = |bytes: usize| format!("\"{}\"", "a".repeat(bytes));
        assert_eq!(problem::<Text>(&text(MAX_TEXT)), "");
        assert!(problem::<Text>(&text(MAX_TEXT + 1)).contains("more than 1024"));
        assert_eq!(serde_json::from_str::<Text>(r#""a\"b""#).unwrap(), Text("a\"b".to_owned()));
    }

    #[test]
    fn parameters_are_few_and_flat() {
        let read = serde_json::from_str::<Parameters>(r#"{"a":1,"b":-2,"c":0.5,"d":"e","f":true,"g":null}"#).unwrap();
        assert_eq!(Value::Object(read.0), serde_json::json!({"a":1,"b":-2,"c":0.5,"d":"e","f":true,"g":null}));
        for nested in [r#"{"a":[1]}"#, r#"{"a":{"b":1}}"#] {
            assert!(problem::<Parameters>(nested).contains("a text, a number or a boolean"), "{nested}");
        }
        let many = |count: usize| {
            let all: Vec<String> = (0..count).map(|n| format!("\"{n}\":1")).collect();
            format!("{{{}}}", all.join(","))
        };
        assert_eq!(problem::<Parameters>(&many(MAX_PARAMETERS)), "");
        assert!(problem::<Parameters>(&many(MAX_PARAMETERS + 1)).contains("more than 64"));
        let long = format!("{{\"a\":\"{}\"}}", "b".repeat(MAX_TEXT + 1));
        assert!(problem::<Parameters>(&long).contains("more than 1024"));
    }
}

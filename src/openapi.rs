//! What modules with routes describe them with (OpenAPI 3.1).
//!
//! A handler says by `#[utoipa::path]` what it takes and answers, and is registered together with that, so that there is
//! neither without the other. Schemas are those that `schemars` makes of the types that are sent: [`schemas!`] gives
//! `utoipa` names to refer to them by, and [`failures!`] names the errors that handlers share.

use std::collections::BTreeMap;

use schemars::generate::{SchemaGenerator, SchemaSettings};
use schemars::transform::RecursiveTransform;
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value, json};

/// Where schemas are in a description.
const PLACE: &str = "#/components/schemas/";

/// Schemas of types, by their names, for `components/schemas` of a description.
#[derive(Debug)]
pub struct Schemas {
    taken: Named,
    given: Named,
}

/// Schemas, and which of them `schemars` calls otherwise than they are to be called: by what their messages are tagged with.
#[derive(Debug)]
struct Named {
    generator: SchemaGenerator,
    names: BTreeMap<String, &'static str>,
}

impl Default for Schemas {
    fn default() -> Self {
        let named = |settings: SchemaSettings| {
            let settings = settings.with_transform(RecursiveTransform(tidy));
            let settings = settings.with(|settings| settings.definitions_path = "/components/schemas".into());
            Named { generator: settings.into_generator(), names: BTreeMap::new() }
        };
        let settings = SchemaSettings::draft2020_12();
        Self { taken: named(settings.clone().for_deserialize()), given: named(settings.for_serialize()) }
    }
}

impl Schemas {
    /// Adds a type that clients send, and those that it is made of.
    pub fn take<T: JsonSchema>(&mut self, name: &'static str) {
        self.taken.add::<T>(name);
    }

    /// Adds a type that the server sends, and those that it is made of.
    pub fn give<T: JsonSchema>(&mut self, name: &'static str) {
        self.given.add::<T>(name);
    }

    /// All of them. What goes both ways is as clients may send it, with less that has to be there.
    #[must_use]
    pub fn into_definitions(self) -> Map<String, Value> {
        let mut definitions = self.given.into_definitions();
        definitions.extend(self.taken.into_definitions());
        definitions
    }
}

impl Named {
    fn add<T: JsonSchema>(&mut self, name: &'static str) {
        let reference = self.generator.subschema_for::<T>();
        let called = reference.get("$ref").and_then(Value::as_str).and_then(|reference| reference.strip_prefix(PLACE));
        self.names.extend(called.map(|called| (called.to_owned(), name)));
    }

    fn into_definitions(mut self) -> Map<String, Value> {
        let definitions = self.generator.take_definitions(true);
        let named = definitions.into_iter().map(|(called, mut schema)| {
            self.rename(&mut schema);
            (self.names.get(&called).map_or(called, |name| (*name).to_owned()), schema)
        });
        named.collect()
    }

    fn rename(&self, value: &mut Value) {
        match value {
            Value::Object(fields) => {
                if let Some(Value::String(reference)) = fields.get_mut("$ref")
                    && let Some(name) = reference.strip_prefix(PLACE).and_then(|called| self.names.get(called))
                {
                    *reference = format!("{PLACE}{name}");
                }
                fields.values_mut().for_each(|value| self.rename(value));
            }
            Value::Array(items) => items.iter_mut().for_each(|value| self.rename(value)),
            _ => {}
        }
    }
}

/// An error that handlers share, as `components/responses` has it. `kinds` are pairs of a media type and a schema's name.
#[must_use]
pub fn failure(status: u16, text: &str, kinds: &[(&str, &str)]) -> Value {
    let content: Map<String, Value> = kinds
        .iter()
        .map(|(kind, schema)| ((*kind).to_owned(), json!({ "schema": { "$ref": format!("{PLACE}{schema}") } })))
        .collect();
    let header =
        |name: &str, text: &str, kind: &str| json!({ name: { "description": text, "schema": { "type": kind } } });
    let headers = match status {
        401 => header("WWW-Authenticate", "`Bearer`", "string"),
        409 | 429 | 503 => header("Retry-After", "Seconds after which to try again, where that is known.", "integer"),
        426 => header("Upgrade", "`websocket`", "string"),
        _ => json!({}),
    };
    json!({ "description": text, "headers": headers, "content": content })
}

/// Writes links of documentation as code.
fn tidy(schema: &mut Schema) {
    if let Some(Value::String(text)) = schema.get_mut("description") {
        *text = text.replace("[`crate::", "`").replace("[`", "`").replace("`]", "`");
    }
}

/// Names of types for `#[utoipa::path]`: what stands there under a type's name refers to its schema. `takes` are the types
/// that clients send, `gives` those that the server sends; `describe` adds the schemas of all of them.
macro_rules! schemas {
    (from $from:ident takes { $($take:ident),* $(,)? } gives { $($give:ident),* $(,)? }) => {
        $($crate::openapi::schemas!(@name $take);)*
        $($crate::openapi::schemas!(@name $give);)*

        /// Adds the schemas of all these types.
        pub(crate) fn describe(schemas: &mut $crate::openapi::Schemas) {
            $(schemas.take::<$from::$take>(stringify!($take));)*
            $(schemas.give::<$from::$give>(stringify!($give));)*
        }
    };
    (@name $name:ident) => {
        /// Stands for the type of this name.
        #[allow(dead_code, reason = "some are referred to from other schemas alone")]
        pub(crate) enum $name {}

        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
                utoipa::openapi::Ref::from_schema_name(stringify!($name)).into()
            }
        }

        impl utoipa::ToSchema for $name {
            fn name() -> std::borrow::Cow<'static, str> {
                std::borrow::Cow::Borrowed(stringify!($name))
            }
        }
    };
}
pub(crate) use schemas;

/// Errors that handlers share, each a name for `responses(…)`; `failures` gives them for `components/responses`.
macro_rules! failures {
    ($($name:ident = $status:literal, $kinds:expr, $text:literal;)+) => {
        $(
            #[doc = $text]
            #[allow(dead_code, reason = "some are added to all operations, by name")]
            pub(crate) enum $name {}

            impl utoipa::IntoResponses for $name {
                fn responses()
                -> std::collections::BTreeMap<String, utoipa::openapi::RefOr<utoipa::openapi::Response>> {
                    let shared = utoipa::openapi::Ref::from_response_name(stringify!($name));
                    [(stringify!($status).to_owned(), shared.into())].into()
                }
            }
        )+

        /// All of them, by name.
        pub(crate) fn failures() -> impl Iterator<Item = (String, serde_json::Value)> {
            let all = [$((stringify!($name), $crate::openapi::failure($status, $text, $kinds))),+];
            all.into_iter().map(|(name, response)| (name.to_owned(), response))
        }
    };
}
pub(crate) use failures;

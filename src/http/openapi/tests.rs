//! The description is whole, says of each route what there is, and is the committed one.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use saccade_signaling::OptionsPatch;
use utoipa::IntoParams;

use super::*;

fn operations(document: &Value) -> impl Iterator<Item = (&str, &str, &Value)> {
    let items = document["paths"].as_object().unwrap().iter();
    items.flat_map(|(path, item)| {
        item.as_object().unwrap().iter().map(move |(method, operation)| (path.as_str(), method.as_str(), operation))
    })
}

/// Calls with everything in a document, and where it is.
fn visit(value: &Value, at: &str, see: &mut impl FnMut(&str, &Value)) {
    see(at, value);
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| visit(value, &format!("{at}/{name}"), see)),
        Value::Array(items) => items.iter().enumerate().for_each(|(n, item)| visit(item, &format!("{at}/{n}"), see)),
        _ => {}
    }
}

#[test]
fn the_committed_description_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json");
    let document = document();
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, serde_json::to_string_pretty(&document).unwrap() + "\n").unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    let committed: Value = serde_json::from_str(&committed).unwrap_or_default();
    assert!(committed == document, "docs/openapi.json is stale: UPDATE_SCHEMA=1 cargo test the_committed_description");
}

#[test]
fn every_reference_leads_somewhere_and_every_schema_is_used() {
    let document = document();
    let mut references = BTreeSet::new();
    visit(&document, "", &mut |at, value| {
        if let Some(to) = value.get("$ref").and_then(Value::as_str) {
            assert!(document.pointer(to.strip_prefix('#').unwrap()).is_some(), "{at} refers to {to}");
            references.insert(to.to_owned());
        }
    });
    for part in ["schemas", "responses"] {
        for name in document["components"][part].as_object().unwrap().keys() {
            assert!(references.contains(&format!("#/components/{part}/{name}")), "nothing refers to {name}");
        }
    }
}

#[test]
fn every_operation_is_told_of_in_full() {
    let document = document();
    let tags: Vec<_> = document["tags"].as_array().unwrap().iter().map(|tag| &tag["name"]).collect();
    let mut ids = BTreeSet::new();
    for (path, method, operation) in operations(&document) {
        let name = format!("{method} {path}");
        assert!(ids.insert(operation["operationId"].as_str().unwrap()), "{name}: its id is another one's, too");
        assert!(!operation["summary"].as_str().unwrap().ends_with('.'), "{name}: a summary is no sentence");
        assert!(operation["description"].as_str().unwrap().contains("token"), "{name}");
        assert!(operation["security"].is_array(), "{name}: say what its token needs, or `security(())`");
        assert!(operation["tags"].as_array().unwrap().iter().all(|tag| tags.contains(&tag)), "{name}");
        let responses = operation["responses"].as_object().unwrap();
        assert!(responses.keys().any(|status| ["1", "2"].contains(&&status[..1])), "{name}");
        let parameters = operation["parameters"].as_array().map(Vec::as_slice).unwrap_or_default();
        let in_path = parameters.iter().filter(|parameter| parameter["in"] == "path");
        let described: BTreeSet<_> = in_path.map(|parameter| parameter["name"].as_str().unwrap()).collect();
        let there: BTreeSet<_> = path.split('{').skip(1).map(|rest| rest.split('}').next().unwrap()).collect();
        assert_eq!(described, there, "{name}");
        for parameter in parameters {
            assert!(parameter["description"].is_string(), "{name}: {}", parameter["name"]);
        }
    }
}

#[test]
fn options_in_queries_are_those_of_sessions() {
    let names = |parameters: Vec<utoipa::openapi::path::Parameter>| -> BTreeSet<String> {
        parameters.into_iter().map(|parameter| parameter.name).collect()
    };
    let schema = schemars::schema_for!(OptionsPatch).to_value();
    let mut options: BTreeSet<String> = schema["properties"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(names(parameters::SessionOptions::into_params(|| None)), options);
    options.retain(|name| !["return", "track", "zones", "lines", "rules"].contains(&name.as_str()));
    options.extend(["annotate", "cache_tag", "key"].map(str::to_owned));
    assert_eq!(names(parameters::PictureOptions::into_params(|| None)), options);
}

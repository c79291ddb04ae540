//! The protocol page, `README.md`, says what the types say: every message with every field, every code, and examples that
//! are read as what they show.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use saccade_signaling::{
    ClientMessage, ErrorCode, Event, MAX_LINES, MAX_MESSAGE_BYTES, MAX_NAME_CHARS, MAX_PENDING_CANDIDATES,
    MAX_POLYGON_POINTS, MAX_RULES, MAX_SDP_BYTES, MAX_ZONES, OptionsPatch, ServerMessage, SessionResult, close_code,
};
use schemars::JsonSchema;
use serde_json::Value;

const PAGE: &str = include_str!("../README.md");

#[test]
fn every_message_is_there_with_every_field_and_no_other() {
    for (title, schema) in [
        ("Client to server", variants::<ClientMessage>("type")),
        ("Server to client", variants::<ServerMessage>("type")),
    ] {
        let told: BTreeMap<String, BTreeSet<String>> =
            parts(section(title), "\n### ").skip(1).map(|part| (code(part).unwrap(), rows(part))).collect();
        assert_eq!(told, schema, "{title}");
    }
}

#[test]
fn which_fields_may_be_left_out_is_told() {
    let may_be_absent = |schema: &Value| -> BTreeSet<String> {
        let required = schema["required"].as_array().cloned().unwrap_or_default();
        let all = schema["properties"].as_object().unwrap().keys().cloned();
        all.filter(|name| !required.contains(&Value::from(name.as_str()))).collect()
    };
    for (title, schema) in [
        ("Client to server", schemars::schema_for!(ClientMessage).to_value()),
        ("Server to client", schemars::schema_for!(ServerMessage).to_value()),
    ] {
        for branch in schema["oneOf"].as_array().unwrap() {
            let name = branch["properties"]["type"]["const"].as_str().unwrap();
            let part = parts(section(title), "\n### ").find(|part| code(part).as_deref() == Some(name)).unwrap();
            let optional = table(part).filter(|cells| cells[1].ends_with('?')).map(|cells| code(&cells[0]).unwrap());
            let told: BTreeSet<String> = optional.collect();
            // What may be null is told as such.
            let nullable =
                table(part).filter(|cells| cells[1].ends_with("or null")).map(|cells| code(&cells[0]).unwrap());
            let expected: BTreeSet<String> = may_be_absent(branch);
            let nullable: BTreeSet<String> = nullable.collect();
            assert_eq!(told, expected.difference(&nullable).cloned().collect(), "{name}");
        }
    }
}

#[test]
fn every_option_and_every_field_of_a_result_is_there() {
    let fields = |schema: Value| -> BTreeSet<String> {
        schema["properties"].as_object().unwrap().keys().filter(|name| *name != "type").cloned().collect()
    };
    assert_eq!(rows(section("Options")), fields(schemars::schema_for!(OptionsPatch).to_value()));
    let results = parts(section("Data channels"), "\n### ").find(|part| part.starts_with("Results")).unwrap();
    assert_eq!(rows(results), fields(schemars::schema_for!(SessionResult).to_value()));
}

#[test]
fn every_event_is_there_with_every_field() {
    let events = parts(section("Data channels"), "\n### ").find(|part| part.starts_with("Events")).unwrap();
    let told: BTreeMap<String, BTreeSet<String>> =
        table(events).map(|cells| (code(&cells[0]).unwrap(), codes(&cells[1]))).collect();
    assert_eq!(told, variants::<Event>("type"));
}

#[test]
fn every_error_code_and_every_close_code_is_there_and_no_other() {
    let errors: BTreeSet<String> = ErrorCode::ALL.iter().map(|code| code.as_str().to_owned()).collect();
    assert_eq!(rows(section("Errors")), errors);
    let closes: BTreeSet<u16> = table(section("Close codes")).map(|cells| cells[0].parse().unwrap()).collect();
    assert_eq!(closes, close_code::ALL.iter().copied().collect());
    // Codes in brackets are codes that close sockets.
    let named = section("Errors").split("fatal (").skip(1).filter_map(|rest| rest.split(')').next());
    for code in named.filter(|code| code.chars().all(|one| one.is_ascii_digit())) {
        assert!(closes.contains(&code.parse().unwrap()), "{code}");
    }
}

#[test]
fn limits_are_those_of_the_code() {
    let limits = section("Limits and waits");
    let thousands = |number: usize| format!("{},{:03}", number / 1000, number % 1000);
    for text in [
        format!("| a message | {} bytes |", thousands(MAX_MESSAGE_BYTES)),
        format!("| a session description | {} bytes", thousands(MAX_SDP_BYTES)),
        format!("| {MAX_PENDING_CANDIDATES}; "),
    ] {
        assert!(limits.contains(&text), "{text}");
    }
    let options = section("Options");
    for text in [
        format!("| `zones` | {MAX_ZONES} at most"),
        format!("| `lines` | {MAX_LINES} at most"),
        format!("| `rules` | {MAX_RULES} at most"),
        format!("(1..{MAX_NAME_CHARS} characters)"),
        format!("(3..{MAX_POLYGON_POINTS} corners)"),
    ] {
        assert!(options.contains(&text), "{text}");
    }
}

#[test]
fn examples_are_the_golden_files_or_read_as_messages() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden");
    let mut shown = BTreeSet::new();
    for block in PAGE.split("\n```json").skip(1) {
        let (name, rest) = block.split_once('\n').unwrap();
        let text = rest.split("\n```").next().unwrap();
        let value: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
        match name.trim() {
            "" => {
                let message: ServerMessage =
                    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
                assert_eq!(serde_json::from_str::<Value>(&serde_json::to_string(&message).unwrap()).unwrap(), value);
            }
            name => {
                let file = fs::read_to_string(golden.join(format!("{name}.json")));
                let file = file.unwrap_or_else(|error| panic!("golden/{name}.json: {error}"));
                assert_eq!(value, serde_json::from_str::<Value>(&file).unwrap(), "{name}");
            }
        }
        shown.extend(value["type"].as_str().map(str::to_owned));
    }
    let all: BTreeSet<String> =
        variants::<ClientMessage>("type").into_keys().chain(variants::<ServerMessage>("type").into_keys()).collect();
    assert!(shown.is_superset(&all), "no example of {:?}", all.difference(&shown).collect::<Vec<_>>());
}

#[test]
fn links_lead_somewhere() {
    let anchors: BTreeSet<String> =
        PAGE.lines().filter(|line| line.starts_with('#')).map(|line| anchor(line.trim_start_matches('#'))).collect();
    for link in PAGE.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
        match link.strip_prefix('#') {
            Some(link) => assert!(anchors.contains(link), "#{link} is not in {anchors:?}"),
            None => assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(link).exists(), "{link}"),
        }
    }
}

/// As GitHub makes them of headings.
fn anchor(heading: &str) -> String {
    let kept = heading
        .trim()
        .to_lowercase()
        .chars()
        .filter(|one| one.is_alphanumeric() || " -_".contains(*one))
        .collect::<String>();
    kept.replace(' ', "-")
}

fn parts<'a>(text: &'a str, at: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(at)
}

fn section(title: &str) -> &'static str {
    let found = PAGE.split("\n## ").find(|section| section.lines().next() == Some(title));
    found.unwrap_or_else(|| panic!("there is no section {title}"))
}

/// The cells of tables' rows, without their heads.
fn table(text: &str) -> impl Iterator<Item = Vec<String>> {
    let rows =
        text.lines().filter(|line| line.starts_with("| `") || line.starts_with("| 1") || line.starts_with("| 4"));
    rows.map(|line| line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect())
}

/// What stands first in each row, in quotes of code.
fn rows(text: &str) -> BTreeSet<String> {
    table(text).filter_map(|cells| code(&cells[0])).collect()
}

fn code(text: &str) -> Option<String> {
    text.lines().next()?.split('`').nth(1).map(str::to_owned)
}

fn codes(text: &str) -> BTreeSet<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The tags of a tagged enum, and the names of the fields beside them.
fn variants<T: JsonSchema>(tag: &str) -> BTreeMap<String, BTreeSet<String>> {
    let schema = schemars::schema_for!(T).to_value();
    let branches = schema["oneOf"].as_array().expect("a tagged enum").clone();
    let fields = |branch: &Value| -> BTreeSet<String> {
        branch["properties"].as_object().unwrap().keys().filter(|name| *name != tag).cloned().collect()
    };
    branches
        .iter()
        .map(|branch| (branch["properties"][tag]["const"].as_str().unwrap().to_owned(), fields(branch)))
        .collect()
}

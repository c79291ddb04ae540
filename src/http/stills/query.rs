//! The query of a request with pictures: options by the names that sessions have for them.

use saccade_signaling::{ErrorCode, OptionsPatch};
use serde_json::{Map, Value};
use url::form_urlencoded;

use super::Annotate;
use crate::session::{Refusal, options};

/// Options that mean nothing for a single picture.
const OF_SESSIONS: [&str; 5] = ["return", "track", "zones", "lines", "rules"];
/// Options whose values are texts.
const TEXTS: [&str; 2] = ["model", "format"];
/// Parameters of a query at most.
const MAX_PARAMETERS: usize = 64;
/// Characters of a key at most.
const MAX_KEY: usize = 128;

/// What a query says.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Query {
    pub(super) patch: OptionsPatch,
    pub(super) annotate: Option<Annotate>,
    pub(super) key: Option<String>,
}

impl Query {
    /// Reads a query. `classes` may be named one by one, between commas, or both; so may what of the `overlay` is drawn.
    ///
    /// # Errors
    /// [`Refusal`] with `bad_options`, naming everything that is wrong with names and types.
    pub(super) fn read(query: &str) -> Result<Self, Refusal> {
        let (mut keys, mut annotate, mut key, mut problems) = (Map::new(), None, None, Vec::new());
        for (at, (name, value)) in form_urlencoded::parse(query.as_bytes()).enumerate() {
            if at == MAX_PARAMETERS {
                problems.push(format!("the query has more than {MAX_PARAMETERS} parameters"));
                break;
            }
            let name = &*name;
            let is_list = matches!(name, "classes" | "overlay");
            if !is_list && (keys.contains_key(name) || (name == "annotate" && annotate.is_some())) {
                problems.push(format!("`{name}` is there twice"));
                continue;
            }
            match name {
                "annotate" => match &*value {
                    "jpeg" | "jpg" => annotate = Some(Annotate::Jpeg),
                    "png" => annotate = Some(Annotate::Png),
                    _ => problems.push("`annotate` may be `jpeg` or `png`".to_owned()),
                },
                "key" if value.is_empty() || value.chars().count() > MAX_KEY => {
                    problems.push(format!("`key` may have 1 to {MAX_KEY} characters"));
                }
                "key" => key = Some(value.into_owned()),
                name if OF_SESSIONS.contains(&name) => {
                    problems.push(format!("`{name}` means nothing for a single picture"));
                }
                "classes" => {
                    let list = keys.entry("classes").or_insert_with(|| Value::Array(Vec::new()));
                    if let Value::Array(list) = list {
                        list.extend(named(&value).map(Value::from));
                    }
                }
                "overlay" => {
                    let drawn = keys.entry("overlay").or_insert_with(nothing_drawn);
                    for part in named(&value) {
                        match drawn.get_mut(part).filter(|_| part != "zones") {
                            Some(part) => *part = Value::Bool(true),
                            None if part == "none" => {}
                            None => problems.push("`overlay` may name `boxes`, `labels`, `timing`, or `none`".to_owned()),
                        }
                    }
                }
                name => {
                    // What is no number stays a text, which is refused with the option's type.
                    let number = serde_json::from_str::<Value>(&value).ok().filter(Value::is_number);
                    let text = || Value::from(&*value);
                    let value = if TEXTS.contains(&name) { text() } else { number.unwrap_or_else(text) };
                    keys.insert(name.to_owned(), value);
                }
            }
        }
        let patch = options::parse(Value::Object(keys));
        if problems.is_empty() {
            return Ok(Self { patch: patch?, annotate, key });
        }
        if let Err(refusal) = patch {
            problems.push(refusal.message.trim_end_matches('.').to_owned());
        }
        Err(Refusal::new(ErrorCode::BadOptions, problems.join("; ") + "."))
    }
}

fn named(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|name| !name.is_empty())
}

/// Whoever names what is drawn leaves out the rest.
fn nothing_drawn() -> Value {
    let parts = ["boxes", "labels", "timing", "zones"];
    Value::Object(parts.into_iter().map(|part| (part.to_owned(), Value::Bool(false))).collect())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use saccade_signaling::{OverlayPatch, ResultFormat};

    use super::*;

    #[test]
    fn options_are_read_by_the_names_that_sessions_have_for_them() {
        let query = "model=ppe-nano&score_threshold=0.25&iou_threshold=1&max_detections=7&budget_ms=90&format=coco\
                     &classes=hard%20hat,head&classes=vest&overlay=labels,timing&annotate=png&key=7";
        let Query { patch, annotate, key } = Query::read(query).unwrap();
        let overlay = OverlayPatch { boxes: Some(false), labels: Some(true), timing: Some(true), zones: Some(false) };
        let expected = OptionsPatch {
            model: Some("ppe-nano".into()),
            score_threshold: Some(0.25),
            iou_threshold: Some(1.0),
            max_detections: Some(7),
            budget_ms: Some(90),
            format: Some(ResultFormat::Coco),
            classes: Some(vec!["hard hat".into(), "head".into(), "vest".into()]),
            overlay: Some(overlay),
            ..OptionsPatch::default()
        };
        assert_eq!((patch, annotate, key.as_deref()), (expected, Some(Annotate::Png), Some("7")));
        let empty = Query::read("").unwrap();
        assert_eq!(empty, Query { patch: OptionsPatch::default(), annotate: None, key: None });
        // A model may have a name like a number.
        assert_eq!(Query::read("model=7").unwrap().patch.model.as_deref(), Some("7"));
        assert_eq!(Query::read("overlay=none").unwrap().patch.overlay.unwrap().boxes, Some(false));
    }

    #[test]
    fn everything_that_is_wrong_is_named() {
        let refusal = Query::read("colour=red&track=true&budget_ms=soon&annotate=gif&model=a&model=b").unwrap_err();
        assert_eq!(refusal.code, ErrorCode::BadOptions);
        for part in ["`colour` is not an option", "`track` means", "`budget_ms`", "`annotate` may", "`model` is there twice"] {
            assert!(refusal.message.contains(part), "{part} is not in {}", refusal.message);
        }
        assert!(Query::read("overlay=zones").is_err() && Query::read("key=").is_err());
        assert!(Query::read(&"a=1&".repeat(1_000)).unwrap_err().message.len() < 10_000);
    }
}

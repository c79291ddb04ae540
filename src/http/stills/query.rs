//! The query of a request with pictures: options as WHIP has them, and what only pictures have.

use saccade_signaling::{ErrorCode, OptionsPatch};
use url::form_urlencoded;

use super::super::{Problem, whip};
use super::Annotate;

/// Options that mean nothing for a single picture.
const OF_SESSIONS: [&str; 5] = ["return", "track", "zones", "lines", "rules"];
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
    /// Reads a query: `annotate`, `key`, and the options of sessions that mean something for a picture.
    ///
    /// # Errors
    /// [`Problem`] with `bad_options`, naming everything that is wrong with names and types.
    pub(super) fn read(query: &str) -> Result<Self, Problem> {
        let (mut options, mut annotate, mut key, mut problems) = (Vec::new(), None, None, Vec::new());
        for (at, (name, value)) in form_urlencoded::parse(query.as_bytes()).enumerate() {
            if at == MAX_PARAMETERS {
                problems.push(format!("the query has more than {MAX_PARAMETERS} parameters"));
                break;
            }
            match &*name {
                "annotate" if annotate.is_some() => problems.push("`annotate` is there twice".to_owned()),
                "annotate" => match &*value {
                    "jpeg" => annotate = Some(Annotate::Jpeg),
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
                _ => options.push((name.into_owned(), value.into_owned())),
            }
        }
        let patch = whip::from_query(options);
        if problems.is_empty() {
            return Ok(Self { patch: patch?, annotate, key });
        }
        if let Err(problem) = patch {
            problems.push(problem.detail.trim_end_matches('.').to_owned());
        }
        Err(Problem::new(ErrorCode::BadOptions, problems.join("; ") + "."))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use saccade_signaling::ResultFormat;

    use super::*;

    #[test]
    fn options_are_read_by_the_names_that_sessions_have_for_them() {
        let query = "model=7&score_threshold=0.25&max_detections=7&budget_ms=90&format=coco&classes=hard%20hat,head\
                     &overlay=%7B%22timing%22:true%7D&annotate=png&key=7";
        let Query { patch, annotate, key } = Query::read(query).unwrap();
        assert_eq!((patch.model.as_deref(), patch.format), (Some("7"), Some(ResultFormat::Coco)));
        assert_eq!((patch.score_threshold, patch.max_detections, patch.budget_ms), (Some(0.25), Some(7), Some(90)));
        assert_eq!(patch.classes.unwrap(), ["hard hat", "head"]);
        assert_eq!(patch.overlay.unwrap().timing, Some(true));
        assert_eq!((annotate, key.as_deref()), (Some(Annotate::Png), Some("7")));
        let empty = Query::read("").unwrap();
        assert_eq!(empty, Query { patch: OptionsPatch::default(), annotate: None, key: None });
    }

    #[test]
    fn everything_that_is_wrong_is_named() {
        let problem = Query::read("colour=red&track=true&budget_ms=soon&annotate=gif").unwrap_err();
        assert_eq!(problem.code, ErrorCode::BadOptions);
        for part in ["`colour` is not an option", "`track` means", "`budget_ms`", "`annotate` may"] {
            assert!(problem.detail.contains(part), "{part} is not in {}", problem.detail);
        }
        for bad in ["key=", "model=a&model=b", "annotate=png&annotate=png"] {
            assert!(Query::read(bad).is_err(), "{bad}");
        }
        assert!(Query::read(&"a=1&".repeat(1_000)).unwrap_err().detail.len() < 10_000);
    }
}

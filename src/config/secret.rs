use std::path::PathBuf;

use super::Secret;
use super::reader::{Raw, Reader};

/// A secret was given, and cannot be used; why not is among the mistakes.
#[derive(Debug)]
pub(super) struct Unusable;

/// A secret, or the file that holds it, where one of both is given. Space around it in a file is dropped.
pub(super) fn read(
    from: &mut Reader,
    (inline, file): (&'static str, &'static str),
    legal: &str,
    is_legal: impl Fn(&str) -> bool,
) -> Result<Option<Secret>, Unusable> {
    let mut is_given = false;
    let value = from.traced(inline, legal, true, |raw: &Raw| {
        is_given = true;
        raw.string().filter(|text| is_legal(text))
    });
    let file = from.traced(file, "a file's name", false, |raw| {
        is_given = true;
        raw.filled().map(PathBuf::from)
    });
    let (path, given) = match (value, file) {
        (Some(_), Some((_, given))) => {
            from.mistake(&given, format!("must be left out where {inline} is given"));
            return Err(Unusable);
        }
        (Some((secret, _)), None) => return Ok(Some(Secret::new(secret))),
        (None, Some(file)) => file,
        (None, None) if is_given => return Err(Unusable),
        (None, None) => return Ok(None),
    };
    match std::fs::read_to_string(&path) {
        Ok(text) if is_legal(text.trim()) => Ok(Some(Secret::new(text.trim().to_owned()))),
        Ok(_) => {
            from.mistake(&given, format!("must name a file with {legal}"));
            Err(Unusable)
        }
        Err(error) => {
            from.mistake(&given, format!("must name a file that can be read: {error}"));
            Err(Unusable)
        }
    }
}

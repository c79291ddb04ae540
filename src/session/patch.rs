/// A change of ICE, as `PATCH` of WHIP and WHEP resources carries it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patch {
    /// Which ICE session is to be changed.
    pub if_match: IfMatch,
    /// A [`Fragment`](super::fragment::Fragment) as text.
    pub fragment: String,
}

/// What a [`Patch`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Patched {
    /// Its candidates were taken.
    Trickled,
    /// ICE was restarted.
    Restarted {
        /// The fragment that tells of this side.
        fragment: String,
        /// The new ICE session.
        tag: String,
    },
}

/// Which entity a request is meant for (`If-Match`, RFC 9110 section 13.1.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IfMatch {
    /// Whatever there is.
    Any,
    /// One of these, without their quotes.
    Tags(Vec<String>),
}

impl IfMatch {
    /// Reads a header's value. A weak tag matches nothing, and neither does what is no tag. `"*"` in quotes, as the
    /// figures of RFC 9725 have it, is no tag that is ever given: it counts as `*`.
    #[must_use]
    pub fn parse(value: &str) -> Self {
        let mut tags = Vec::new();
        for part in value.split(',').map(str::trim) {
            if matches!(part, "*" | "\"*\"") {
                return Self::Any;
            }
            let tag = part.strip_prefix('"').and_then(|part| part.strip_suffix('"'));
            tags.extend(tag.map(str::to_owned));
        }
        Self::Tags(tags)
    }

    /// Whether an entity with this tag is meant.
    #[must_use]
    pub fn holds(&self, tag: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Tags(tags) => tags.iter().any(|one| one == tag),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strong_tags_match_and_the_star_matches_all() {
        for any in ["*", " * ", "\"*\""] {
            assert_eq!(IfMatch::parse(any), IfMatch::Any, "{any}");
        }
        for good in ["\"ab/+\"", "\"x\", \"ab/+\"", "\"x\",\"ab/+\",\"y\""] {
            assert!(IfMatch::parse(good).holds("ab/+"), "{good}");
        }
        for bad in ["", "ab/+", "W/\"ab/+\"", "\"ab/+", "\"AB/+\"", "\"\""] {
            assert!(!IfMatch::parse(bad).holds("ab/+"), "{bad}");
        }
    }
}

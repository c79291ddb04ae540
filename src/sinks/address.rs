use sha2::{Digest as _, Sha256};

/// Hexadecimal digits that tell apart what is written alike.
const DIGITS: usize = 8;

/// A name as one level of a topic or one token of a subject: ASCII letters, digits, `_` and `-` stay, everything else is
/// `_`. Where that changes the name, digits of its SHA-256 follow, so that two names are never one.
pub(super) fn level(name: &str) -> String {
    let is_plain = |one: char| one.is_ascii_alphanumeric() || one == '_' || one == '-';
    let mut level: String = name.chars().map(|one| if is_plain(one) { one } else { '_' }).collect();
    if level != name || level.is_empty() {
        let digest = Sha256::digest(name.as_bytes());
        level.push('_');
        level.extend(digest.iter().flat_map(|byte| [byte >> 4, byte & 15]).take(DIGITS).map(digit));
    }
    level
}

fn digit(value: u8) -> char {
    char::from_digit(value.into(), 16).unwrap_or('0')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_plain_and_unlike_each_other() {
        assert_eq!(level("entrance-2_b"), "entrance-2_b");
        let levels = ["a b", "a_b", "a.b", "a/b", "a+b", "ä", ""].map(level);
        for level in &levels {
            assert!(level.chars().all(|one| one.is_ascii_alphanumeric() || one == '_' || one == '-'), "{level}");
        }
        assert_eq!(levels.iter().collect::<std::collections::BTreeSet<_>>().len(), levels.len());
        // `printf 'a b' | sha256sum`
        assert_eq!(levels[0], "a_b_c8687a08");
    }
}

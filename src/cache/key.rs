use std::fmt;

/// What an entry is found by: a BLAKE3 hash of everything that its value depends on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key([u8; Key::BYTES]);

impl Key {
    /// Bytes of a key.
    pub const BYTES: usize = 32;

    /// The key of these parts in this order. Each counts with its length, so that no two lists of parts run together.
    #[must_use]
    pub fn of(parts: &[&[u8]]) -> Self {
        let mut hasher = blake3::Hasher::new();
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        Self(hasher.finalize().into())
    }

    /// The key with these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }

    /// The key that [`Display`](fmt::Display) wrote: 64 lower-case hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_digit = |one: &u8| one.is_ascii_digit() || (b'a'..=b'f').contains(one);
        if text.len() != 2 * Self::BYTES || !text.as_bytes().iter().all(is_digit) {
            return None;
        }
        blake3::Hash::from_hex(text).ok().map(|hash| Self(hash.into()))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&blake3::Hash::from(self.0).to_hex())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Key({self})")
    }
}

/// A word that entries are found by when they are to be forgotten.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(Box<str>);

impl Tag {
    /// Characters of a word at most.
    pub const MAX_LEN: usize = 64;

    /// A tag that a client chose: 1 to [`Self::MAX_LEN`] of letters, digits, `.`, `_`, `-` and `:`.
    #[must_use]
    pub fn chosen(word: &str) -> Option<Self> {
        let is_fine = !word.is_empty() && word.len() <= Self::MAX_LEN;
        let is_word = is_fine && word.bytes().all(|one| one.is_ascii_alphanumeric() || b"._-:".contains(&one));
        is_word.then(|| Self(format!("t/{word}").into()))
    }

    /// The tag of everything that a model had a part in: `name`, or `name@version` for that version alone. Longer names
    /// than entries can hold are told apart by their hash.
    #[must_use]
    pub fn model(name: &str) -> Self {
        if name.len() <= 2 * Self::MAX_LEN {
            return Self(format!("m/{name}").into());
        }
        Self(format!("m#{}", blake3::hash(name.as_bytes()).to_hex()).into())
    }

    /// As tiers write it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The tag that [`Self::as_str`] gave; `None` for what is none.
    pub(super) fn read(text: &str) -> Option<Self> {
        let is_sound = text.len() > 2 && (text.starts_with("t/") || text.starts_with("m/") || text.starts_with("m#"));
        (is_sound && text.len() <= 2 * Self::MAX_LEN + 2).then(|| Self(text.into()))
    }

    /// A name of constant length for where a tag's characters may not stand.
    pub(super) fn digest(&self) -> Key {
        Key::of(&[b"tag", self.0.as_bytes()])
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn keys_depend_on_every_part_and_on_where_each_ends() {
        let keys = [
            Key::of(&[b"ab", b"c"]),
            Key::of(&[b"a", b"bc"]),
            Key::of(&[b"abc"]),
            Key::of(&[b"abc", b""]),
            Key::of(&[]),
        ];
        let distinct: std::collections::BTreeSet<_> = keys.iter().collect();
        assert_eq!(distinct.len(), keys.len());
        assert_eq!(Key::of(&[b"ab", b"c"]), keys[0]);
    }

    #[test]
    fn a_key_is_read_back_from_its_own_digits_only() {
        let key = Key::of(&[b"picture"]);
        let text = key.to_string();
        assert_eq!(Key::parse(&text), Some(key));
        for wrong in [&text[1..], &text.to_uppercase(), &format!("{text}0"), "", &"g".repeat(64), &"é".repeat(32)] {
            assert_eq!(Key::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn tags_of_clients_are_bounded_words_and_never_those_of_models() {
        for word in ["a", "camera-1.front_door:day", &"x".repeat(64)] {
            let tag = Tag::chosen(word).unwrap();
            assert_eq!(Tag::read(tag.as_str()), Some(tag.clone()));
            assert_ne!(tag, Tag::model(word));
        }
        for wrong in ["", " ", "a b", "a/b", "ä", "a\n", &"x".repeat(65)] {
            assert_eq!(Tag::chosen(wrong), None, "{wrong:?}");
        }
        let long = Tag::model(&"n".repeat(300));
        assert_eq!(Tag::read(long.as_str()), Some(long.clone()));
        assert_ne!(long, Tag::model(&"n".repeat(301)));
        for wrong in ["", "t/", "x/abc", &format!("t/{}", "x".repeat(200))] {
            assert_eq!(Tag::read(wrong), None, "{wrong:?}");
        }
    }
}

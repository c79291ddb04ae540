use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use super::{Key, Tag};

/// First bytes of an entry in a tier: what it is and which version of this layout.
const MAGIC: [u8; 4] = *b"SCE\x01";
/// Bytes of the hash that ends an entry.
const HASH: usize = 16;
/// Tags of one entry at most; [`Entry::new`] keeps the first ones.
pub const MAX_TAGS: usize = 32;
/// Characters of a media type at most.
const MAX_MEDIA_TYPE: usize = 100;
/// By how much the clocks of processes that share a tier may differ.
const CLOCK_LEEWAY: Duration = Duration::from_secs(60);
/// Bytes that an entry takes in memory beside its value, its tags and its media type: what points to it and what the
/// cache itself keeps of it.
const OVERHEAD: usize = 256;

/// One answer as the cache keeps it.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    value: Bytes,
    media_type: Box<str>,
    etag: Etag,
    created: SystemTime,
    ttl: Duration,
    tags: Box<[Tag]>,
}

/// A strong validator (RFC 9110 section 8.8.3): the same for the same bytes of the same type.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Etag([u8; HASH]);

/// What was read from a tier and is no entry for its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// It ends too soon, or goes on.
    #[error("its length is wrong")]
    Length,
    /// It is something else, or of a version that this one does not read.
    #[error("it is no entry of this version")]
    Version,
    /// It belongs to another key.
    #[error("it is another key's")]
    Key,
    /// Its bytes are not those that were written.
    #[error("its bytes have changed")]
    Hash,
    /// One of its fields cannot be.
    #[error("a field of it cannot be")]
    Field,
}

/// How old an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Age {
    /// Within its time to live.
    Fresh,
    /// Past it by less than is allowed: good enough until there is a new one.
    Stale,
    /// Not to be used any more.
    Expired,
}

impl Entry {
    /// An entry that was begun to be computed at `created` and counts for `ttl` from then.
    #[must_use]
    pub fn new(value: Bytes, media_type: &str, tags: &[Tag], created: SystemTime, ttl: Duration) -> Self {
        let media_type = media_type.get(..media_type.len().min(MAX_MEDIA_TYPE)).unwrap_or_default();
        let etag = Etag::of(media_type, &value);
        let mut tags = tags.to_vec();
        tags.sort();
        tags.dedup();
        tags.truncate(MAX_TAGS);
        // As far as it is written: an entry is the same before and after.
        let created = UNIX_EPOCH + Duration::from_micros(micros(created));
        let ttl = whole_millis(ttl).min(Duration::from_millis(u32::MAX.into()));
        Self { value, media_type: media_type.into(), etag, created, ttl, tags: tags.into() }
    }

    /// The answer itself.
    #[must_use]
    pub const fn value(&self) -> &Bytes {
        &self.value
    }

    /// What the answer is, as `Content-Type` says it.
    #[must_use]
    pub fn media_type(&self) -> &str {
        &self.media_type
    }

    /// Its strong validator.
    #[must_use]
    pub const fn etag(&self) -> Etag {
        self.etag
    }

    /// When it began to be computed.
    #[must_use]
    pub const fn created(&self) -> SystemTime {
        self.created
    }

    /// How long it counts from then.
    #[must_use]
    pub const fn ttl(&self) -> Duration {
        self.ttl
    }

    /// What it is forgotten by.
    #[must_use]
    pub const fn tags(&self) -> &[Tag] {
        &self.tags
    }

    /// Time since it began to be computed.
    #[must_use]
    pub fn elapsed(&self, now: SystemTime) -> Duration {
        now.duration_since(self.created).unwrap_or_default()
    }

    /// How old it is, where it counts for `ttl` at most and may be used for `stale` beyond its own.
    #[must_use]
    pub fn age(&self, now: SystemTime, ttl: Duration, stale: Duration) -> Age {
        let (elapsed, ttl) = (self.elapsed(now), self.ttl.min(ttl));
        match elapsed.checked_sub(ttl) {
            None => Age::Fresh,
            Some(over) if over < stale => Age::Stale,
            Some(_) => Age::Expired,
        }
    }

    /// Bytes that it takes in memory, about.
    #[must_use]
    pub fn weight(&self) -> usize {
        let tags: usize = self.tags.iter().map(|tag| size_of::<Tag>() + tag.as_str().len()).sum();
        OVERHEAD + self.value.len() + self.media_type.len() + tags
    }

    /// As tiers outside the process keep it. All numbers are little-endian:
    /// magic and version (4), key (32), created in µs since 1970 (8), time to live in ms (4), number of tags (1) and each
    /// with its length before it (1), length of the media type (1) and it, length of the value (4) and it, and the first
    /// 16 bytes of a BLAKE3 hash of all that.
    #[must_use]
    pub fn encode(&self, key: &Key) -> Bytes {
        let mut out = Vec::with_capacity(self.weight());
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(key.as_bytes());
        out.extend_from_slice(&micros(self.created).to_le_bytes());
        out.extend_from_slice(&u32::try_from(millis(self.ttl)).unwrap_or(u32::MAX).to_le_bytes());
        out.push(self.tags.len().try_into().unwrap_or(u8::MAX));
        for tag in &self.tags {
            short(&mut out, tag.as_str());
        }
        short(&mut out, &self.media_type);
        out.extend_from_slice(&u32::try_from(self.value.len()).unwrap_or(u32::MAX).to_le_bytes());
        out.extend_from_slice(&self.value);
        let hash = blake3::hash(&out);
        out.extend_from_slice(&hash.as_bytes()[..HASH]);
        out.into()
    }

    /// Reads what [`Self::encode`] wrote for this key.
    ///
    /// # Errors
    /// [`Wrong`], whatever the bytes are.
    pub fn decode(key: &Key, bytes: &Bytes, now: SystemTime) -> Result<Self, Wrong> {
        let (head, rest) = bytes.split_at_checked(MAGIC.len() + Key::BYTES).ok_or(Wrong::Length)?;
        let (magic, owner) = head.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(Wrong::Version);
        }
        if owner != key.as_bytes() {
            return Err(Wrong::Key);
        }
        let hashed = bytes.len().checked_sub(HASH).ok_or(Wrong::Length)?;
        if blake3::hash(&bytes[..hashed]).as_bytes()[..HASH] != bytes[hashed..] {
            return Err(Wrong::Hash);
        }
        let mut from = Fields(rest.get(..rest.len() - HASH).ok_or(Wrong::Length)?);
        let created = UNIX_EPOCH
            .checked_add(Duration::from_micros(u64::from_le_bytes(from.array()?)))
            .filter(|created| *created <= now + CLOCK_LEEWAY)
            .ok_or(Wrong::Field)?;
        let ttl = Duration::from_millis(u32::from_le_bytes(from.array()?).into());
        let [count] = from.array()?;
        if usize::from(count) > MAX_TAGS {
            return Err(Wrong::Field);
        }
        let tags: Result<Box<[Tag]>, Wrong> =
            (0..count).map(|_| Tag::read(from.short()?).ok_or(Wrong::Field)).collect();
        let (tags, media_type) = (tags?, from.short()?);
        if media_type.len() > MAX_MEDIA_TYPE {
            return Err(Wrong::Field);
        }
        let length = usize::try_from(u32::from_le_bytes(from.array()?)).map_err(|_| Wrong::Length)?;
        if from.0.len() != length {
            return Err(Wrong::Length);
        }
        let value = bytes.slice_ref(from.0);
        Ok(Self { etag: Etag::of(media_type, &value), value, media_type: media_type.into(), created, ttl, tags })
    }

    /// Bytes at most of an entry whose value has `value` of them, as [`Self::encode`] writes it.
    #[must_use]
    pub const fn max_encoded(value: usize) -> usize {
        const FIXED: usize = MAGIC.len() + Key::BYTES + 8 + 4 + 1 + 1 + 4 + HASH;
        FIXED + MAX_TAGS * 256 + MAX_MEDIA_TYPE + value
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Entry")
            .field("bytes", &self.value.len())
            .field("media_type", &self.media_type)
            .field("created", &self.created)
            .field("ttl", &self.ttl)
            .field("tags", &self.tags)
            .finish_non_exhaustive()
    }
}

impl Etag {
    fn of(media_type: &str, value: &[u8]) -> Self {
        let mut etag = [0; HASH];
        etag.copy_from_slice(&Key::of(&[b"etag", media_type.as_bytes(), value]).as_bytes()[..HASH]);
        Self(etag)
    }

    /// Of several answers in a row; of one it is its own.
    #[must_use]
    pub fn of_all(all: &[Self]) -> Self {
        if let [only] = all {
            return *only;
        }
        Self::of("list", all.iter().map(|etag| etag.0).collect::<Vec<_>>().as_flattened())
    }

    /// Whether a field `If-None-Match` (RFC 9110 section 13.1.2) names it: `*`, or a list with it in, weak or not.
    #[must_use]
    pub fn is_named_by(&self, field: &str) -> bool {
        let own = self.to_string();
        let tags = field.split(',').map(|tag| tag.trim_matches([' ', '\t']));
        field.trim() == "*" || tags.map(|tag| tag.strip_prefix("W/").unwrap_or(tag)).any(|tag| tag == own)
    }
}

/// Quoted, as a header says it.
impl fmt::Display for Etag {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("\"")?;
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))?;
        out.write_str("\"")
    }
}

impl fmt::Debug for Etag {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

/// What is left to read.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Wrong> {
        let (first, rest) = self.0.split_first_chunk().ok_or(Wrong::Length)?;
        self.0 = rest;
        Ok(*first)
    }

    fn short(&mut self) -> Result<&'a str, Wrong> {
        let [length] = self.array()?;
        let (text, rest) = self.0.split_at_checked(length.into()).ok_or(Wrong::Length)?;
        self.0 = rest;
        str::from_utf8(text).map_err(|_| Wrong::Field)
    }
}

/// Text of less than 256 bytes.
fn short(out: &mut Vec<u8>, text: &str) {
    let length = u8::try_from(text.len()).unwrap_or(0);
    out.push(length);
    out.extend_from_slice(&text.as_bytes()[..length.into()]);
}

/// Since 1970.
fn micros(time: SystemTime) -> u64 {
    u64::try_from(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_micros()).unwrap_or(u64::MAX)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn whole_millis(duration: Duration) -> Duration {
    Duration::from_millis(millis(duration))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TTL: Duration = Duration::from_secs(300);

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seconds)
    }

    fn key() -> Key {
        Key::of(&[b"key"])
    }

    fn entry(value: &'static [u8]) -> Entry {
        let tags = [Tag::model("ppe-nano@2"), Tag::chosen("door").unwrap()];
        Entry::new(Bytes::from_static(value), "application/json", &tags, at(0), TTL)
    }

    #[test]
    fn an_entry_ages() {
        let (entry, stale) = (entry(b"{}"), Duration::from_secs(60));
        let age = |seconds| entry.age(at(seconds), TTL, stale);
        assert_eq!([age(0), age(299), age(300), age(359)], [Age::Fresh, Age::Fresh, Age::Stale, Age::Stale]);
        assert_eq!(age(360), Age::Expired);
        assert_eq!(entry.age(at(300), TTL, Duration::ZERO), Age::Expired);
        // A shorter time of this process binds what another one wrote; a longer one does not.
        assert_eq!(entry.age(at(100), Duration::from_secs(100), stale), Age::Stale);
        assert_eq!(entry.age(at(300), 2 * TTL, stale), Age::Stale);
        assert_eq!(entry.age(UNIX_EPOCH, TTL, stale), Age::Fresh);
    }

    #[test]
    fn validators_follow_bytes_and_type_alone() {
        let one = entry(b"{}");
        let later = Entry::new(Bytes::from_static(b"{}"), "application/json", &[], at(9), TTL / 2);
        assert_eq!(one.etag(), later.etag());
        assert_ne!(one.etag(), entry(b"{ }").etag());
        assert_ne!(one.etag(), Entry::new(Bytes::from_static(b"{}"), "text/plain", &[], at(0), TTL).etag());
        let etag = one.etag().to_string();
        assert_eq!(etag.len(), 34);
        for field in [&etag, "*", &format!("W/{etag}"), &format!("\"a\", {etag} ,\"b\"")] {
            assert!(one.etag().is_named_by(field), "{field}");
        }
        for field in ["", "\"a\"", etag.trim_matches('"'), &etag.to_uppercase(), "W/*"] {
            assert!(!one.etag().is_named_by(field), "{field}");
        }
    }

    #[test]
    fn what_is_no_entry_of_this_key_is_told_apart() {
        let bytes = entry(b"answer").encode(&key());
        let wrong = |bytes: Vec<u8>| Entry::decode(&key(), &bytes.into(), at(1)).unwrap_err();
        assert_eq!(Entry::decode(&Key::of(&[b"other"]), &bytes, at(1)), Err(Wrong::Key));
        assert_eq!(wrong(Vec::new()), Wrong::Length);
        assert_eq!(wrong(b"SCE\x02".iter().copied().chain([0; 80]).collect()), Wrong::Version);
        let whole = bytes.to_vec();
        assert_eq!(wrong([&whole[..], b"more"].concat()), Wrong::Hash);
        let mut early = whole;
        early.truncate(40);
        assert_eq!(wrong(early), Wrong::Hash);
        // Of tomorrow.
        assert_eq!(Entry::decode(&key(), &bytes, at(0) - Duration::from_secs(61)), Err(Wrong::Field));
    }

    /// Bytes with a hash that fits.
    fn sealed(mut bytes: Vec<u8>) -> Bytes {
        let hash = blake3::hash(&bytes);
        bytes.extend_from_slice(&hash.as_bytes()[..HASH]);
        bytes.into()
    }

    proptest! {
        #[test]
        fn an_entry_comes_back_as_it_was(
            value in proptest::collection::vec(any::<u8>(), 0..500),
            tags in proptest::collection::vec("[a-z0-9._:-]{1,64}", 0..40),
            ttl in 0_u64..10_000_000,
        ) {
            let tags: Vec<Tag> = tags.iter().map(|word| Tag::chosen(word).unwrap()).collect();
            let ttl = Duration::from_micros(ttl);
            let entry = Entry::new(value.clone().into(), "image/jpeg", &tags, at(5) + Duration::from_nanos(17), ttl);
            prop_assert!(entry.tags().len() <= MAX_TAGS);
            let bytes = entry.encode(&key());
            prop_assert!(bytes.len() <= Entry::max_encoded(value.len()));
            prop_assert_eq!(Entry::decode(&key(), &bytes, at(5)), Ok(entry));
        }

        #[test]
        fn a_changed_byte_is_noticed(at_byte in any::<prop::sample::Index>(), flip in 1_u8..) {
            let mut bytes = entry(b"answer").encode(&key()).to_vec();
            let index = at_byte.index(bytes.len());
            bytes[index] ^= flip;
            prop_assert!(Entry::decode(&key(), &bytes.into(), at(1)).is_err());
        }

        #[test]
        fn no_bytes_panic_even_where_their_hash_fits(tail in proptest::collection::vec(any::<u8>(), 0..200)) {
            let head = [&MAGIC[..], key().as_bytes()].concat();
            let _ = Entry::decode(&key(), &tail.clone().into(), at(1));
            if let Ok(entry) = Entry::decode(&key(), &sealed([head, tail].concat()), at(1)) {
                prop_assert!(entry.value().len() <= 200);
            }
        }
    }
}

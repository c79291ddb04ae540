use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use super::{Entry, Tag};

/// Tags remembered at most; beyond, everything that was computed before counts as forgotten.
const MAX_TAGS: usize = 4096;

/// Since when entries of a tag no longer count. So what a slow or broken tier still holds, or what was being computed
/// meanwhile, is not taken for an answer.
#[derive(Debug, Default)]
pub(super) struct Revoked {
    any: AtomicBool,
    state: RwLock<State>,
}

#[derive(Debug, Default)]
struct State {
    tags: HashMap<Tag, SystemTime>,
    /// All that was computed until then.
    all: Option<SystemTime>,
}

impl Revoked {
    /// From now on, entries with this tag that began to be computed until `now` do not count. `lifetime` is how long any
    /// entry may be kept: what was said longer ago is forgotten.
    pub(super) fn revoke(&self, tag: &Tag, now: SystemTime, lifetime: Duration) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.tags.retain(|_, since| now.duration_since(*since).is_ok_and(|ago| ago <= lifetime));
        if state.tags.len() >= MAX_TAGS {
            state.tags.clear();
            state.all = Some(now);
        }
        let since = state.tags.entry(tag.clone()).or_insert(now);
        *since = now.max(*since);
        self.any.store(true, Ordering::Release);
    }

    /// Whether an entry does not count.
    #[must_use]
    pub(super) fn covers(&self, entry: &Entry) -> bool {
        if !self.any.load(Ordering::Acquire) {
            return false;
        }
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let since = entry.tags().iter().filter_map(|tag| state.tags.get(tag)).copied();
        since.chain(state.all).any(|since| entry.created() <= since)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::time::UNIX_EPOCH;

    use bytes::Bytes;

    use super::*;

    const LIFETIME: Duration = Duration::from_secs(100);

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn entry(word: &str, created: u64) -> Entry {
        Entry::new(Bytes::new(), "", &[Tag::chosen(word).unwrap()], at(created), LIFETIME)
    }

    #[test]
    fn what_was_begun_before_does_not_count_and_what_was_begun_after_does() {
        let revoked = Revoked::default();
        assert!(!revoked.covers(&entry("a", 1)));
        revoked.revoke(&Tag::chosen("a").unwrap(), at(5), LIFETIME);
        assert!(revoked.covers(&entry("a", 4)) && revoked.covers(&entry("a", 5)));
        assert!(!revoked.covers(&entry("a", 6)) && !revoked.covers(&entry("b", 4)));
    }

    #[test]
    fn more_tags_than_are_remembered_take_everything_with_them() {
        let revoked = Revoked::default();
        for number in 0..=MAX_TAGS {
            revoked.revoke(&Tag::chosen(&number.to_string()).unwrap(), at(5), LIFETIME);
        }
        assert!(revoked.covers(&entry("0", 5)) && revoked.covers(&entry("other", 5)));
        assert!(!revoked.covers(&entry("0", 6)));
        assert!(revoked.state.read().unwrap().tags.len() <= MAX_TAGS);
    }

    #[test]
    fn what_nothing_can_be_of_any_more_is_forgotten() {
        let revoked = Revoked::default();
        revoked.revoke(&Tag::chosen("a").unwrap(), at(5), LIFETIME);
        revoked.revoke(&Tag::chosen("b").unwrap(), at(106), LIFETIME);
        assert_eq!(revoked.state.read().unwrap().tags.len(), 1);
    }
}

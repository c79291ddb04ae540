use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ::redis::{cmd, pipe};
use metrics::counter;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, sleep_until, timeout};

use super::link::{Link, Unavailable};
use super::proof::Key;
use super::{is_name, is_session, is_url};
use crate::clock;
use crate::secret::Secret;
use crate::telemetry::EverySecond;

/// Entries that are written or removed in one go.
const BATCH: usize = 500;
/// Ends that wait to be told; further ones are left to their leases.
const MAX_ENDED: usize = 10_000;
/// When leases are tried again that could not be renewed.
const RETRY: Duration = Duration::from_secs(1);
/// What a server that stops may take to remove its entries.
const LAST_LIMIT: Duration = Duration::from_secs(1);
/// A client may come to another server sooner than its session's entry is written: how long that is waited for.
const NEWS: Duration = Duration::from_millis(50);
/// Bytes of an entry that are read; ours have fewer.
const MAX_ENTRY: usize = 1024;
/// Entries that nobody of this cluster wrote.
static FORGED: EverySecond = EverySecond::new();
/// Removes an entry if it is still ours: another server may have a camera of the same name.
const REMOVE: &str = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0";

/// A server that has sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// What it is called.
    pub name: String,
    /// Where it listens for the others: `http://HOST:PORT`.
    pub url: String,
}

impl Owner {
    /// Host and port.
    #[must_use]
    pub fn authority(&self) -> &str {
        self.url.strip_prefix("http://").unwrap_or(&self.url)
    }
}

/// Who has a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Another server, as far as its lease says.
    Elsewhere(Owner),
    /// No other server.
    Nowhere,
}

/// The registry of sessions in Redis: `PREFIXsession:ID` holds the owner, for as long as the lease. Whoever can write to
/// Redis cannot make up an owner, who would be sent clients' tokens: each entry has a seal.
pub struct Directory {
    link: Link,
    me: Owner,
    key: Key,
    lease: Duration,
    prefix: String,
    state: Mutex<State>,
    changed: Notify,
}

/// An entry.
#[derive(Serialize, Deserialize)]
struct Entry<'a> {
    name: &'a str,
    url: &'a str,
    /// Of the secret, for this key and this owner.
    seal: &'a str,
}

/// What is to be told to Redis.
#[derive(Debug, Default)]
struct State {
    ours: BTreeSet<String>,
    /// Those of ours that were never written.
    began: Vec<String>,
    ended: Vec<String>,
}

impl Directory {
    pub(super) fn new(url: &Secret, me: Owner, lease: Duration, prefix: &str, key: Key) -> Result<Self, String> {
        Ok(Self {
            link: Link::new(url)?,
            me,
            key,
            lease,
            prefix: format!("{prefix}session:"),
            state: Mutex::default(),
            changed: Notify::new(),
        })
    }

    /// A session of this server has begun. Waits for nothing.
    pub fn began(&self, id: &str) {
        let mut state = self.lock();
        if state.ours.insert(id.to_owned()) {
            // A camera that begins anew has its name again: what is to be removed would be the new entry.
            state.ended.retain(|other| other != id);
            state.began.push(id.to_owned());
        }
        drop(state);
        self.changed.notify_one();
    }

    /// It is over. Waits for nothing.
    pub fn ended(&self, id: &str) {
        let mut state = self.lock();
        if !state.ours.remove(id) {
            return;
        }
        state.began.retain(|other| other != id);
        if state.ended.len() < MAX_ENDED {
            state.ended.push(id.to_owned());
        } else {
            left_to_leases(1);
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Writes what begins, removes what ends and renews the leases until the server stops; then removes what is left.
    pub async fn run(&self, mut stopped: watch::Receiver<bool>) {
        let mut due = clock::now() + self.lease / 3;
        loop {
            tokio::select! {
                () = ended(&mut stopped) => break,
                () = self.changed.notified() => {
                    if self.write_changes().await.is_err() {
                        due = due.min(clock::now() + RETRY);
                    }
                }
                () = sleep_until(due.into()) => due = self.renew_all().await,
            }
        }
        let State { ours, ended, .. } = std::mem::take(&mut *self.lock());
        let left: Vec<_> = ours.into_iter().chain(ended).collect();
        timeout(LAST_LIMIT, self.remove(&left)).await.ok();
    }

    /// Who has this session; as good as the last lease.
    ///
    /// # Errors
    /// Nobody knows: the registry does not answer.
    pub async fn find(&self, id: &str) -> Result<Found, Unavailable> {
        if !is_session(id) {
            return Ok(Found::Nowhere);
        }
        let found = match self.read(id).await? {
            Some(found) => Some(found),
            None => {
                sleep(NEWS).await;
                self.read(id).await?
            }
        };
        // An entry of ours whose session is not here is of this server before its last start.
        Ok(found.filter(|owner| *owner != self.me).map_or(Found::Nowhere, Found::Elsewhere))
    }

    async fn read(&self, id: &str) -> Result<Option<Owner>, Unavailable> {
        let key = self.key(id);
        let read = |mut to| async move {
            cmd("GETRANGE").arg(key).arg(0).arg(MAX_ENTRY).query_async::<Vec<u8>>(&mut to).await
        };
        let entry = self.link.ask("find", read).await?;
        if entry.is_empty() {
            return Ok(None);
        }
        if let Some(owner) = self.believed(id, &entry) {
            return Ok(Some(owner));
        }
        count("find", "forged", 1);
        if let Some(suppressed) = FORGED.pass(clock::now()) {
            tracing::warn!(
                suppressed,
                "an entry of the registry of sessions is of no server that has this one's cluster.secret"
            );
        }
        Err(Unavailable)
    }

    /// The owner that an entry names, if one of the servers wrote it for this session.
    fn believed(&self, id: &str, entry: &[u8]) -> Option<Owner> {
        let entry: Entry<'_> = serde_json::from_slice(entry).ok()?;
        let owner = Owner { name: entry.name.to_owned(), url: entry.url.to_owned() };
        let is_owner = is_name(&owner.name) && is_url(&owner.url);
        (is_owner && self.key.is_sealed(&self.key(id), &owner, entry.seal)).then_some(owner)
    }

    /// What an entry of ours holds; it is always the same.
    fn value(&self, key: &str) -> String {
        let entry = Entry { name: &self.me.name, url: &self.me.url, seal: &self.key.seal(key, &self.me) };
        // Texts are always JSON.
        serde_json::to_string(&entry).unwrap_or_default()
    }

    async fn write_changes(&self) -> Result<(), Unavailable> {
        let (began, ended) = {
            let mut state = self.lock();
            (std::mem::take(&mut state.began), std::mem::take(&mut state.ended))
        };
        let written = self.write("write", &began).await;
        let told = match written {
            Ok(()) => self.remove(&ended).await,
            failed => failed,
        };
        if told.is_err() {
            left_to_leases(ended.len());
        }
        told
    }

    /// Says when the next time is.
    async fn renew_all(&self) -> Instant {
        let ours: Vec<_> = self.lock().ours.iter().cloned().collect();
        if self.write("renew", &ours).await.is_ok() {
            return clock::now() + self.lease / 3;
        }
        counter!("saccade_cluster_renewals_missed_total").increment(ours.len() as u64);
        clock::now() + RETRY
    }

    async fn write(&self, operation: &'static str, ids: &[String]) -> Result<(), Unavailable> {
        let lease = u64::try_from(self.lease.as_millis()).unwrap_or(u64::MAX);
        for ids in ids.chunks(BATCH) {
            let mut steps = pipe();
            for id in ids {
                let key = self.key(id);
                let value = self.value(&key);
                steps.cmd("SET").arg(key).arg(value).arg("PX").arg(lease).ignore();
            }
            self.link.ask(operation, |mut to| async move { steps.exec_async(&mut to).await }).await?;
        }
        Ok(())
    }

    async fn remove(&self, ids: &[String]) -> Result<(), Unavailable> {
        for ids in ids.chunks(BATCH) {
            let mut steps = pipe();
            for id in ids {
                let key = self.key(id);
                let value = self.value(&key);
                steps.cmd("EVAL").arg(REMOVE).arg(1).arg(key).arg(value).ignore();
            }
            self.link.ask("remove", |mut to| async move { steps.exec_async(&mut to).await }).await?;
        }
        Ok(())
    }

    fn key(&self, id: &str) -> String {
        format!("{}{id}", self.prefix)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Entries that are not removed; they end with their leases.
fn left_to_leases(entries: usize) {
    if entries > 0 {
        count("remove", "dropped", entries as u64);
    }
}

fn count(operation: &'static str, outcome: &'static str, times: u64) {
    counter!("saccade_cluster_registry_total", "operation" => operation, "outcome" => outcome).increment(times);
}

/// Whoever could still say stop is gone with the sender.
async fn ended(stopped: &mut watch::Receiver<bool>) {
    stopped.wait_for(|stop| *stop).await.ok();
}

impl fmt::Debug for Directory {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Directory").field("lease", &self.lease).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> Directory {
        let me = Owner { name: "a".into(), url: "http://127.0.0.1:9190".into() };
        // Nobody listens there.
        let url = Secret::new("redis+unix:///nonexistent/redis.sock".into());
        Directory::new(&url, me, Duration::from_secs(15), "test:", Key::new(&"k".repeat(32))).expect("a URL of Redis")
    }

    #[test]
    fn an_entry_is_believed_of_a_server_that_knows_the_secret() {
        let directory = directory();
        let entry = directory.value(&directory.key("x"));
        assert_eq!(directory.believed("x", entry.as_bytes()), Some(directory.me.clone()));
        assert_eq!(directory.believed("y", entry.as_bytes()), None, "it is of another session");
        let changed = entry.replace("127.0.0.1", "192.0.2.1");
        let (unsealed, _) = entry.split_once(",\"seal\"").expect("a seal");
        for bad in [changed.as_str(), &format!("{unsealed}}}"), "", "null", "[1]", &entry[..entry.len() - 1]] {
            assert_eq!(directory.believed("x", bad.as_bytes()), None, "{bad}");
        }
        assert!(entry.len() <= MAX_ENTRY / 2, "{entry}");
    }

    #[test]
    fn a_camera_that_begins_anew_keeps_its_entry() {
        let directory = directory();
        directory.began("camera");
        std::mem::take(&mut directory.lock().began);
        // Both are told before anybody has written.
        directory.ended("camera");
        directory.began("camera");
        let state = directory.lock();
        assert_eq!((state.began.as_slice(), state.ended.as_slice()), (&["camera".to_owned()][..], &[][..]));
    }

    #[test]
    fn a_session_is_told_of_once_and_not_at_all_if_it_was_short() {
        let directory = directory();
        for id in ["a", "b", "a", "c"] {
            directory.began(id);
        }
        for id in ["b", "b", "none"] {
            directory.ended(id);
        }
        let state = std::mem::take(&mut *directory.lock());
        assert_eq!(
            (state.began.as_slice(), state.ended.as_slice()),
            (&["a".into(), "c".into()][..], &["b".into()][..])
        );
        assert_eq!(state.ours, BTreeSet::from(["a".into(), "c".into()]));
    }

    #[test]
    fn ends_that_nobody_takes_are_bounded() {
        let directory = directory();
        for id in (0..MAX_ENDED + 10).map(|id| id.to_string()) {
            directory.began(&id);
            directory.ended(&id);
        }
        assert_eq!(directory.lock().ended.len(), MAX_ENDED);
    }

    #[tokio::test]
    async fn without_redis_nothing_is_known_and_leases_stay_to_be_written() {
        let directory = directory();
        directory.began("a");
        assert_eq!(directory.find("b").await, Err(Unavailable));
        assert_eq!(directory.find("not one").await, Ok(Found::Nowhere), "nobody is asked for what cannot be");
        assert_eq!(directory.write_changes().await, Err(Unavailable));
        let next = directory.renew_all().await;
        assert!(next <= clock::now() + RETRY);
        assert_eq!(directory.lock().ours, BTreeSet::from(["a".into()]));
        let (stop, stopped) = watch::channel(true);
        directory.run(stopped).await;
        drop(stop);
    }
}

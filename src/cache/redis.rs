use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, Client, IntoConnectionInfo, Pipeline, RedisError, cmd, pipe};
use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::tier::{Error, Tier, encode};
use super::{Entry, Key, Tag};
use crate::offload::{LARGE, offload};
use crate::secret::Secret;

/// How long a connection may take to be made. Who waits for it is bound by its own limit; the next one finds it made.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// Requests on one connection at a time.
const AT_ONCE: usize = 256;
/// Members of a tag that are forgotten in one go.
const SWEPT: usize = 500;
/// How long a tag has entries that are over: clocks of processes that share them may differ.
const SLACK: Duration = Duration::from_secs(60);

/// How to reach a server of Redis or of what speaks its protocol (Valkey, KeyDB).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `redis://[USER[:PASSWORD]@]HOST[:PORT][/DATABASE]`, `rediss://` for TLS, or `redis+unix:///SOCKET`.
    pub url: Secret,
    /// Password, in place of the one in the URL.
    pub password: Option<Secret>,
    /// What all keys begin with.
    pub prefix: String,
    /// Connections, each for many requests at a time.
    pub connections: usize,
    /// Bytes of a value at most, as [`super::Settings::max_entry_bytes`].
    pub max_entry_bytes: usize,
    /// How long an answer may take at most, whatever the guard's limits.
    pub response_limit: Duration,
}

/// The tier that several processes can share. An entry is a string that expires by itself; of each tag there is a set of
/// the keys that have it, sorted by when they end.
pub struct Redis {
    client: Client,
    config: AsyncConnectionConfig,
    slots: Vec<Arc<Mutex<Option<MultiplexedConnection>>>>,
    next: AtomicUsize,
    prefix: String,
    max_bytes: usize,
}

impl Redis {
    /// A tier that connects when it is first asked.
    ///
    /// # Errors
    /// A sentence, without the URL, when that is none of the protocol's.
    pub fn new(settings: &Settings) -> Result<Self, String> {
        super::tier::use_crypto();
        let wrong = |error: RedisError| error.category().to_owned();
        let mut info = settings.url.expose().into_connection_info().map_err(wrong)?;
        if let Some(password) = &settings.password {
            let login = info.redis_settings().clone().set_password(password.expose());
            info = info.set_redis_settings(login);
        }
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_LIMIT))
            .set_response_timeout(Some(settings.response_limit))
            .set_concurrency_limit(AT_ONCE);
        Ok(Self {
            client: Client::open(info).map_err(wrong)?,
            config,
            slots: (0..settings.connections.max(1)).map(|_| Arc::default()).collect(),
            next: AtomicUsize::new(0),
            prefix: settings.prefix.clone(),
            max_bytes: Entry::max_encoded(settings.max_entry_bytes),
        })
    }

    /// Does something over one of the connections. One that broke is made anew by the next who takes it.
    async fn with<T, F>(&self, work: impl FnOnce(MultiplexedConnection) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, RedisError>>,
    {
        let slot = &self.slots[self.next.fetch_add(1, Ordering::Relaxed) % self.slots.len()];
        let connection = self.connection(slot).await.map_err(|error| unavailable(&error))?;
        let done = work(connection).await;
        done.map_err(|error| {
            if error.is_unrecoverable_error() || error.is_io_error() {
                forget(slot);
            }
            unavailable(&error)
        })
    }

    /// The connection of a slot. Making one goes on if who asked gives up.
    async fn connection(
        &self,
        slot: &Arc<Mutex<Option<MultiplexedConnection>>>,
    ) -> Result<MultiplexedConnection, RedisError> {
        let held = Arc::clone(slot).lock_owned().await;
        if let Some(connection) = &*held {
            return Ok(connection.clone());
        }
        let (client, config) = (self.client.clone(), self.config.clone());
        let connecting = tokio::spawn(connect(client, config, held));
        connecting.await.unwrap_or_else(|_| Err((::redis::ErrorKind::Io, "connecting panicked").into()))
    }

    fn entry(&self, key: &Key) -> String {
        format!("{}e:{key}", self.prefix)
    }

    fn tagged(&self, tag: &Tag) -> String {
        format!("{}t:{}", self.prefix, tag.as_str())
    }
}

#[async_trait]
impl Tier for Redis {
    fn name(&self) -> &'static str {
        "redis"
    }

    async fn get(&self, key: &Key, now: SystemTime) -> Result<Option<Arc<Entry>>, Error> {
        // What somebody else put there may be of any size: a byte more than an entry can have tells.
        let name = self.entry(key);
        let get = |mut to: MultiplexedConnection| async move {
            cmd("GETRANGE").arg(name).arg(0).arg(self.max_bytes).query_async::<Bytes>(&mut to).await
        };
        let bytes = self.with(get).await?;
        if bytes.is_empty() {
            return Ok(None);
        }
        if bytes.len() > self.max_bytes {
            return Err(super::Wrong::Length.into());
        }
        let key = *key;
        let decoded = offload(bytes.len() > LARGE, move || Entry::decode(&key, &bytes, now)).await;
        Ok(Some(Arc::new(decoded?)))
    }

    async fn put(&self, key: &Key, entry: &Arc<Entry>, keep: Duration, now: SystemTime) -> Result<(), Error> {
        let now = now.duration_since(UNIX_EPOCH).map_or(0, millis);
        let (name, keep) = (self.entry(key), millis(keep).max(1));
        let mut steps: Pipeline = pipe();
        steps.cmd("SET").arg(&name).arg(&encode(key, entry).await[..]).arg("PX").arg(keep).ignore();
        for tag in entry.tags() {
            let set = self.tagged(tag);
            steps.cmd("ZADD").arg(&set).arg(now.saturating_add(keep)).arg(&name).ignore();
            // Those that are over would else be more and more while new ones come.
            steps.cmd("ZREMRANGEBYSCORE").arg(&set).arg("-inf").arg(now.saturating_sub(millis(SLACK))).ignore();
            // It lasts as long as the last of its entries does, and all of them last about as long.
            steps.cmd("PEXPIRE").arg(&set).arg(keep.saturating_mul(2)).ignore();
        }
        self.with(|mut to| async move { steps.exec_async(&mut to).await }).await
    }

    async fn remove(&self, key: &Key) -> Result<(), Error> {
        let name = self.entry(key);
        self.with(|mut to| async move { cmd("UNLINK").arg(name).exec_async(&mut to).await }).await
    }

    async fn remove_tagged(&self, tag: &Tag) -> Result<u64, Error> {
        let set = self.tagged(tag);
        self.with(|mut to| async move {
            let mut removed = 0;
            loop {
                let names: Vec<String> = cmd("ZRANGE").arg(&set).arg(0).arg(SWEPT - 1).query_async(&mut to).await?;
                if names.is_empty() {
                    return Ok(removed);
                }
                // Together, so that what breaks off leaves no entry that its tag does not know.
                let mut steps: Pipeline = pipe();
                steps.atomic().cmd("UNLINK").arg(&names).cmd("ZREM").arg(&set).arg(&names).ignore();
                let (unlinked,): (u64,) = steps.query_async(&mut to).await?;
                removed += unlinked;
            }
        })
        .await
    }

    fn give_up(&self) {
        self.slots.iter().for_each(forget);
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Redis").field("connections", &self.slots.len()).finish_non_exhaustive()
    }
}

async fn connect(
    client: Client,
    config: AsyncConnectionConfig,
    mut slot: OwnedMutexGuard<Option<MultiplexedConnection>>,
) -> Result<MultiplexedConnection, RedisError> {
    let connection = client.get_multiplexed_async_connection_with_config(&config).await?;
    *slot = Some(connection.clone());
    Ok(connection)
}

/// Has the next who takes it connect anew. One that is being made is left alone.
fn forget(slot: &Arc<Mutex<Option<MultiplexedConnection>>>) {
    if let Ok(mut slot) = slot.try_lock() {
        *slot = None;
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Without detail that could hold a password or an address.
fn unavailable(error: &RedisError) -> Error {
    Error::Unavailable(error.category().to_owned())
}

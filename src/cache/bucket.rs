use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use futures_util::{StreamExt, TryStreamExt};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::{ClientOptions, ObjectStore, ObjectStoreExt, RetryConfig};

use super::tier::{Error, Tier, encode};
use super::{Entry, Key, Tag, Wrong};
use crate::offload::{LARGE, offload};
use crate::secret::Secret;

/// Objects that are deleted in one go.
const SWEPT: usize = 500;

/// How to reach storage that speaks the protocol of Amazon S3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The bucket, which exists. A rule of its own should remove old objects: S3 has no time to live.
    pub bucket: String,
    /// URL of the service; Amazon's by default.
    pub endpoint: Option<String>,
    /// Region that requests are signed for.
    pub region: String,
    /// What all names begin with, without a slash at the end.
    pub prefix: String,
    /// Access key and its secret. Without them, those of the machine's role are asked for.
    pub credentials: Option<(String, Secret)>,
    /// Bytes of a value at most, as [`super::Settings::max_entry_bytes`].
    pub max_entry_bytes: usize,
    /// How long a request may take at most, whatever the guard's limits.
    pub request_limit: Duration,
}

/// The tier that outlasts machines. An entry is an object, and of each of its tags an empty one names it.
pub struct Bucket {
    store: AmazonS3,
    prefix: Path,
    max_bytes: usize,
}

impl Bucket {
    /// A tier that connects when it is first asked.
    ///
    /// # Errors
    /// A sentence when the settings cannot be used.
    pub fn new(settings: &Settings) -> Result<Self, String> {
        super::tier::use_crypto();
        let is_plain = settings.endpoint.as_ref().is_some_and(|url| url.starts_with("http://"));
        let client = ClientOptions::new()
            .with_timeout(settings.request_limit)
            .with_connect_timeout(settings.request_limit)
            .with_allow_http(is_plain);
        // The breaker and the next request are what tries again.
        let retry = RetryConfig { max_retries: 0, retry_timeout: settings.request_limit, ..RetryConfig::default() };
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(&settings.bucket)
            .with_region(&settings.region)
            .with_client_options(client)
            .with_retry(retry);
        if let Some(endpoint) = &settings.endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        if let Some((id, secret)) = &settings.credentials {
            builder = builder.with_access_key_id(id).with_secret_access_key(secret.expose());
        }
        let store = builder.build().map_err(|error| error.to_string())?;
        let prefix = Path::parse(&settings.prefix).map_err(|error| error.to_string())?;
        Ok(Self { store, prefix, max_bytes: Entry::max_encoded(settings.max_entry_bytes) })
    }

    /// Where an entry lies. Two digits before the rest spread names over what S3 keeps apart.
    fn entry(&self, key: &Key) -> Path {
        let name = key.to_string();
        self.prefix.clone().join("e").join(&name[..2]).join(name.as_str())
    }

    fn tagged(&self, tag: &Tag) -> Path {
        self.prefix.clone().join("t").join(tag.digest().to_string())
    }
}

#[async_trait]
impl Tier for Bucket {
    fn name(&self) -> &'static str {
        "s3"
    }

    async fn get(&self, key: &Key, now: SystemTime) -> Result<Option<Arc<Entry>>, Error> {
        let found = match self.store.get(&self.entry(key)).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(unavailable(&error)),
        };
        if found.meta.size > self.max_bytes as u64 {
            return Err(Wrong::Length.into());
        }
        // Read with a bound of its own: what the service says of the size is no promise.
        let mut bytes = Vec::with_capacity(usize::try_from(found.meta.size).unwrap_or_default());
        let mut chunks = found.into_stream();
        while let Some(chunk) = chunks.try_next().await.map_err(|error| unavailable(&error))? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > self.max_bytes {
                return Err(Wrong::Length.into());
            }
        }
        let key = *key;
        let decoded = offload(bytes.len() > LARGE, move || Entry::decode(&key, &bytes.into(), now)).await;
        Ok(Some(Arc::new(decoded?)))
    }

    async fn put(&self, key: &Key, entry: &Arc<Entry>, _keep: Duration, _now: SystemTime) -> Result<(), Error> {
        self.store.put(&self.entry(key), encode(key, entry).await.into()).await.map_err(|error| unavailable(&error))?;
        for tag in entry.tags() {
            let name = self.tagged(tag).join(key.to_string());
            self.store.put(&name, Vec::new().into()).await.map_err(|error| unavailable(&error))?;
        }
        Ok(())
    }

    async fn remove(&self, key: &Key) -> Result<(), Error> {
        match self.store.delete(&self.entry(key)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(unavailable(&error)),
        }
    }

    async fn remove_tagged(&self, tag: &Tag) -> Result<u64, Error> {
        let mut removed = 0;
        let folder = self.tagged(tag);
        let mut names = self.store.list(Some(&folder)).chunks(SWEPT);
        while let Some(found) = names.next().await {
            let markers: Vec<Path> = found
                .into_iter()
                .map(|meta| meta.map(|meta| meta.location))
                .collect::<Result<_, _>>()
                .map_err(|error| unavailable(&error))?;
            let keys = markers.iter().filter_map(|marker| Key::parse(marker.filename()?));
            let entries: Vec<Path> = keys.map(|key| self.entry(&key)).collect();
            removed += entries.len() as u64;
            // Entries before their markers: what breaks off in between can be tried again.
            for paths in [entries, markers] {
                let paths = futures_util::stream::iter(paths.into_iter().map(Ok)).boxed();
                let mut deleted = self.store.delete_stream(paths);
                while let Some(one) = deleted.next().await {
                    match one {
                        Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                        Err(error) => return Err(unavailable(&error)),
                    }
                }
            }
        }
        Ok(removed)
    }
}

impl fmt::Debug for Bucket {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Bucket").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

/// What went wrong, without addresses and what the service says.
fn unavailable(error: &object_store::Error) -> Error {
    use object_store::Error as Store;
    let what = match error {
        Store::PermissionDenied { .. } => "permission denied",
        Store::Unauthenticated { .. } => "the credentials are not accepted",
        Store::NotFound { .. } => "no such bucket",
        _ => "the storage cannot be reached or refuses",
    };
    Error::Unavailable(what.to_owned())
}

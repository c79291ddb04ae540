use std::path::PathBuf;
use std::time::Duration;

use super::reader::{Raw, Reader};
use super::{KIB, MIB, Secret, secret};
use crate::cache::{BucketSettings, Redis, RedisSettings};

/// Longest time to live: a day. What was measured longer ago is better asked again.
const MAX_TTL_S: u64 = 86_400;
/// Pictures of `cache.warm` at most.
const MAX_WARM: usize = 1000;

/// `[cache]`: results of still pictures that are given again for the same picture, model and options. Pictures are never
/// kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cache {
    /// Whether there is one; default true. Without, every picture is inferred.
    pub enabled: bool,
    /// Bytes of results in this process; default 64 MiB, about 50 000 results. More answers more from memory.
    pub max_bytes: u64,
    /// Bytes of one result that is kept; default 1 MiB. Larger ones, annotated pictures above all, are made each time.
    pub max_entry_bytes: usize,
    /// How long a result counts; default 300 s. More answers more without the model, which never changes what it says of the
    /// same picture: a new version of a model is another key.
    pub ttl: Duration,
    /// How long a result is given beyond that while it is computed anew; default 60 s.
    pub stale: Duration,
    /// Hits in the last fifth of a result's life after which it is computed anew before its end; default 3, 0: never. Fewer
    /// cost runs of the model that nobody waits for.
    pub refresh_hits: u32,
    /// Keys, those asked for most, whose results the next process reads from the tiers below at start; default 1024, 0: none.
    pub hot_keys: usize,
    /// Pictures whose results, by the default model and options, are computed at start; none by default.
    pub warm: Vec<PathBuf>,
    /// A tier shared by processes, none by default; and how long a request waits for it, default 20 ms.
    pub redis: Option<(RedisSettings, Duration)>,
    /// A tier in a folder of this machine, none by default.
    pub disk: Option<Disk>,
    /// A tier in a bucket, none by default; and how long a request waits for it, default 200 ms.
    pub s3: Option<(BucketSettings, Duration)>,
}

/// `cache.disk_*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// The folder, of this process alone.
    pub dir: PathBuf,
    /// Bytes of files in it; default 1 GiB.
    pub max_bytes: u64,
    /// How long a request waits for it; default 50 ms.
    pub timeout: Duration,
}

impl Cache {
    pub(super) fn read(from: &mut Reader) -> Self {
        let max_entry_bytes = from.number("cache.max_entry_bytes", MIB, KIB..=16 * MIB, " (bytes)");
        let max_entry_bytes = usize::try_from(max_entry_bytes).unwrap_or(usize::MAX);
        Self {
            enabled: from.flag("cache.enabled", true),
            max_bytes: from.number("cache.max_bytes", 64 * MIB, MIB..=1024 * 1024 * MIB, " (bytes)"),
            max_entry_bytes,
            ttl: seconds(from, "cache.ttl_s", 300, 1),
            stale: seconds(from, "cache.stale_s", 60, 0),
            refresh_hits: from.number("cache.refresh_hits", 3, 0..=1_000_000, " (0: never)"),
            hot_keys: from.number("cache.hot_keys", 1024_u64, 0..=65_536, " (0: none)").try_into().unwrap_or_default(),
            warm: from.read("cache.warm", Vec::new(), format!("a list of at most {MAX_WARM} files"), |raw| {
                raw.list(|path| (!path.trim().is_empty()).then(|| PathBuf::from(path)))
                    .filter(|it| it.len() <= MAX_WARM)
            }),
            redis: redis(from, max_entry_bytes),
            disk: disk(from),
            s3: s3(from, max_entry_bytes),
        }
    }
}

fn redis(from: &mut Reader, max_entry_bytes: usize) -> Option<(RedisSettings, Duration)> {
    let legal = "a URL such as \"redis://redis.example:6379/0\", rediss:// for TLS, or redis+unix:///run/redis.sock";
    let url = from.traced("cache.redis_url", legal, true, |raw| raw.string().map(Secret::new));
    let password = filled(from, ("cache.redis_password", "cache.redis_password_file"));
    let prefix = from.read("cache.redis_prefix", "saccade:".to_owned(), "a text of at most 64 characters", |raw| {
        raw.string().filter(|prefix| prefix.len() <= 64)
    });
    let connections: u64 = from.number("cache.redis_connections", 2, 1..=64, "");
    let timeout = from.millis("cache.redis_timeout_ms", 20, 1..=5000);
    let (url, given) = url.filter(|(url, _)| !url.expose().is_empty())?;
    let settings = RedisSettings {
        url,
        password,
        prefix,
        connections: connections.try_into().unwrap_or(1),
        max_entry_bytes,
        response_limit: Duration::from_secs(5),
    };
    if Redis::new(&settings).is_err() {
        from.mistake(&given, format!("must be {legal}"));
        return None;
    }
    Some((settings, timeout))
}

fn disk(from: &mut Reader) -> Option<Disk> {
    let dir = from.optional("cache.disk_dir", "a folder, of this process alone", |raw| raw.filled().map(PathBuf::from));
    let max_bytes = from.number("cache.disk_bytes", 1024 * MIB, MIB..=1024 * 1024 * MIB, " (bytes)");
    let timeout = from.millis("cache.disk_timeout_ms", 50, 1..=5000);
    Some(Disk { dir: dir?, max_bytes, timeout })
}

fn s3(from: &mut Reader, max_entry_bytes: usize) -> Option<(BucketSettings, Duration)> {
    let bucket =
        from.optional("cache.s3_bucket", "the name of a bucket: 3 to 63 letters, digits, '.' and '-'", |raw| {
            let is_name = |name: &String| {
                (3..=63).contains(&name.len())
                    && name.bytes().all(|one| one.is_ascii_alphanumeric() || b".-".contains(&one))
            };
            raw.string().filter(is_name)
        });
    let endpoint = from.optional("cache.s3_endpoint", "a URL such as \"https://s3.example\"", |raw| {
        raw.string().filter(|url| super::is_http(url))
    });
    let mut text = |key, default: &str, legal: &str| {
        from.read(key, default.to_owned(), legal, |raw: &Raw| raw.string().filter(|text| is_path(text)))
    };
    let region = text("cache.s3_region", "us-east-1", "the name of a region");
    let prefix = text("cache.s3_prefix", "saccade", "what names begin with: words with '/' between them");
    let id = from.traced("cache.s3_access_key_id", "a text that is not empty", true, Raw::filled);
    let secret = filled(from, ("cache.s3_secret_access_key", "cache.s3_secret_access_key_file"));
    let timeout = from.millis("cache.s3_timeout_ms", 200, 1..=10_000);
    let credentials = match (id, secret) {
        (Some((id, _)), Some(secret)) => Some((id, secret)),
        (Some((_, given)), None) => {
            from.mistake(&given, "needs cache.s3_secret_access_key or cache.s3_secret_access_key_file beside it");
            None
        }
        (None, _) => None,
    };
    let request_limit = Duration::from_secs(10);
    let settings =
        BucketSettings { bucket: bucket?, endpoint, region, prefix, credentials, max_entry_bytes, request_limit };
    Some((settings, timeout))
}

/// A secret of any length, or the file that holds it.
fn filled(from: &mut Reader, names: (&'static str, &'static str)) -> Option<Secret> {
    secret::read(from, names, "a text that is not empty", |text| !text.trim().is_empty()).ok().flatten()
}

fn seconds(from: &mut Reader, key: &'static str, default: u64, least: u64) -> Duration {
    Duration::from_secs(from.number(key, default, least..=MAX_TTL_S, " (seconds)"))
}

fn is_path(text: &str) -> bool {
    let is_word = |word: &str| {
        !word.is_empty() && word.bytes().all(|one| one.is_ascii_alphanumeric() || b"._-".contains(&one)) && word != ".."
    };
    text.len() <= 256 && text.split('/').all(is_word)
}

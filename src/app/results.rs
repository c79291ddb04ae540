//! The cache of results of still pictures, with the tiers that are configured.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use saccade_signaling::OptionsPatch;
use tokio::sync::watch;
use tokio::time::timeout_at;

use crate::cache::{Bucket, Cache, Disk, Guarded, Limits, Policy, Redis, Reuse, Settings, Tier};
use crate::claims::Claims;
use crate::clock;
use crate::config::{self, Config};
use crate::http::{Order, Picture, Stills};
use crate::session::Refusal;
use crate::traces::Trail;

/// How long writing an entry may take.
const PUT: Duration = Duration::from_secs(2);
/// How long forgetting all entries with a tag may take.
const SWEEP: Duration = Duration::from_secs(10);

/// How long writing what waits to be written may take at the end.
pub(super) const CLOSE_LIMIT: Duration = Duration::from_secs(2);

/// Starts the cache, if there is to be one. A tier that cannot be opened is left out: results are computed then.
pub(super) async fn start(config: &Config) -> Option<Cache<Refusal>> {
    let config = &config.cache;
    if !config.enabled {
        return None;
    }
    let settings = Settings {
        max_bytes: config.max_bytes,
        max_entry_bytes: config.max_entry_bytes,
        ttl: config.ttl,
        stale: config.stale,
        refresh_hits: config.refresh_hits,
        hot_keys: config.hot_keys,
        ..Settings::default()
    };
    let tiers = tiers(config).await;
    Some(Cache::start(settings, tiers))
}

async fn tiers(config: &config::Cache) -> Vec<Guarded> {
    let mut tiers = Vec::new();
    let mut add = |name: &str, get: Duration, tier: Result<Box<dyn Tier>, String>| match tier {
        Ok(tier) => {
            let limits = Limits { get, put: PUT.max(get), sweep: SWEEP };
            tiers.push(Guarded::new(tier, limits, Policy::default()));
            tracing::info!(tier = name, "results are kept");
        }
        Err(error) => tracing::error!(tier = name, error, "a tier of the cache is left out"),
    };
    if let Some((settings, timeout)) = &config.redis {
        add("redis", *timeout, Redis::new(settings).map(|tier| Box::new(tier) as _));
    }
    if let Some(config::Disk { dir, max_bytes, timeout }) = config.disk.clone() {
        let (max_entry_bytes, keep) = (config.max_entry_bytes, config.ttl + config.stale);
        let open = move || Disk::open(&dir, max_bytes, max_entry_bytes, keep, clock::wall());
        let opened = tokio::task::spawn_blocking(open).await.map_err(|panic| panic.to_string());
        let opened = opened.and_then(|opened| opened.map_err(|error| error.to_string()));
        add("disk", timeout, opened.map(|tier| Box::new(tier) as _));
    }
    if let Some((settings, timeout)) = &config.s3 {
        add("s3", *timeout, Bucket::new(settings).map(|tier| Box::new(tier) as _));
    }
    tiers
}

/// Has the results of pictures computed that will be asked for, one after the other.
pub(super) async fn warm(stills: Arc<dyn Stills>, pictures: Vec<PathBuf>, mut stopped: watch::Receiver<bool>) {
    let warmed = |outcome: &'static str| {
        counter!("saccade_cache_warmed_total", "source" => "files", "outcome" => outcome).increment(1);
    };
    for path in pictures {
        let file = path.display().to_string();
        let warmed_one = tokio::select! {
            done = warm_one(&*stills, path) => done,
            _ = stopped.wait_for(|stop| *stop) => return,
        };
        match warmed_one {
            Ok(()) => warmed("loaded"),
            Err(error) => {
                warmed("failed");
                tracing::warn!(file, error, "the result of a picture of cache.warm was not computed");
            }
        }
    }
}

async fn warm_one(stills: &dyn Stills, path: PathBuf) -> Result<(), String> {
    let read = tokio::task::spawn_blocking(move || std::fs::read(path)).await.map_err(|panic| panic.to_string())?;
    let bytes = read.map_err(|error| error.to_string())?.into();
    let options = stills.options(&OptionsPatch::default(), &Claims::everything()).map_err(|refusal| refusal.message)?;
    let deadline = clock::now() + Duration::from_millis(options.budget_ms.into());
    let order = Order { options, annotate: None, inline: false, key: None, reuse: Reuse::Any, tags: Vec::new() };
    let picture = Picture { bytes, place: 0, name: None, arrived: clock::now(), trail: Trail::off() };
    let done = timeout_at(deadline.into(), stills.detect(picture, Arc::new(order))).await;
    done.map_err(|_| "it took too long".to_owned())?.map_err(|refusal| refusal.message)?;
    Ok(())
}

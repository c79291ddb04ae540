use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout_at;

use super::{STOP_LIMIT, catalog, history, results, sinks, stills, traces};
use crate::cache::Cache;
use crate::clock;
use crate::infer::Engine;
use crate::pipeline::Workers;
use crate::session::Refusal;

/// What a server has running, each part from when it was started: so that all that there is can be stopped in order, also
/// where the next part does not start.
pub(super) struct Running {
    /// Tells `servers` to end.
    pub(super) stop: watch::Sender<bool>,
    pub(super) servers: JoinSet<()>,
    pub(super) engine: Option<Arc<Engine>>,
    pub(super) workers: Option<Arc<Workers>>,
    pub(super) sinks: Option<(Arc<sinks::Feed>, crate::sinks::Running)>,
    pub(super) catalog: Option<Arc<catalog::Catalog>>,
    pub(super) pictures: Option<stills::Pictures>,
    pub(super) results: Option<Cache<Refusal>>,
    pub(super) history: Option<history::Kept>,
    pub(super) traces: Option<crate::traces::Running>,
}

impl Running {
    /// Nothing yet.
    pub(super) fn new() -> Self {
        Self {
            stop: watch::Sender::new(false),
            servers: JoinSet::new(),
            engine: None,
            workers: None,
            sinks: None,
            catalog: None,
            pictures: None,
            results: None,
            history: None,
            traces: None,
        }
    }

    /// Hands on what sessions told last, until `last` at most, and stops everything, which takes a bounded time. Sessions are
    /// over.
    pub(super) async fn stop(mut self, last: Instant) {
        let fed = async {
            if let Some((feed, _)) = &self.sinks {
                feed.ended(last).await;
            }
        };
        let heard = async {
            if let Some(history) = &self.history {
                history.heard(last).await;
            }
        };
        tokio::join!(fed, heard);
        if let Some((_, sinks)) = self.sinks {
            sinks.close(last).await;
        }
        self.stop.send_replace(true);
        // Sockets that were told to close are waited for, too.
        let ended = async { while self.servers.join_next().await.is_some() {} };
        if timeout_at((clock::now() + STOP_LIMIT).into(), ended).await.is_err() {
            self.servers.shutdown().await;
        }
        // Of sessions and of requests there are no more.
        traces::close(self.traces, last).await;
        if let Some(history) = self.history {
            history.end().await;
        }
        if let Some(results) = self.results {
            results.close(clock::now() + results::CLOSE_LIMIT).await;
        }
        let (catalog, pictures, engine, workers) = (self.catalog, self.pictures, self.engine, self.workers);
        let joined = tokio::task::spawn_blocking(move || {
            catalog.iter().for_each(|catalog| catalog.stop());
            pictures.iter().for_each(stills::Pictures::stop);
            engine.iter().for_each(|engine| engine.shutdown());
            workers.iter().for_each(|workers| workers.stop());
        });
        if timeout_at((clock::now() + STOP_LIMIT).into(), joined).await.is_err() {
            tracing::warn!("threads did not end in time");
        }
    }
}

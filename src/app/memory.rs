//! What the server does about memory: where it is short, what is kept for speed alone is let go, and nothing new is begun.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::cache::Cache;
use crate::infer::Engine;
use crate::memory;
#[cfg(feature = "cuda")]
use crate::memory::Usage;
use crate::memory::{Kind, Level, Limits, Look, Source, Watch};
use crate::session::{Refusal, Registry};

/// How often it is looked.
const EVERY: Duration = Duration::from_secs(1);

/// What the last look found, for whoever asks whether the server is ready.
#[derive(Clone, Default)]
pub(super) struct Said(Arc<Mutex<Option<Look>>>);

impl Said {
    /// # Errors
    /// What operators should know, in a sentence.
    pub(super) fn check(&self) -> Result<(), String> {
        let look = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Look { level, kind }) = look else { return Ok(()) };
        let whose = match kind {
            Kind::Host => "the host's memory",
            Kind::Device => "the memory of a GPU",
        };
        match level {
            Level::Enough => Ok(()),
            Level::Scarce => Err(format!("{whose} becomes scarce")),
            Level::Short => Err(format!("{whose} is short: caches are emptied, and nothing new is begun")),
        }
    }

    fn say(&self, look: Look) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(look);
    }
}

/// Bytes in use, and of all, of the fullest device.
#[cfg(feature = "cuda")]
type Fullest = crate::device::watch::Fullest;
#[cfg(not(feature = "cuda"))]
type Fullest = std::convert::Infallible;

/// The watch over the host and, where there are any, over devices.
pub(super) fn watch(limits: Limits, host: Box<dyn Source>, fullest: Option<Fullest>) -> Watch {
    let mut sources = vec![(Kind::Host, host)];
    #[cfg(feature = "cuda")]
    if let Some(fullest) = fullest {
        let read = move || fullest.get().map(|(used, limit)| Usage { used, limit });
        sources.push((Kind::Device, Box::new(read)));
    }
    #[cfg(not(feature = "cuda"))]
    let _ = fullest;
    Watch::new(limits, sources)
}

/// What there is to let go.
pub(super) struct Kept {
    pub(super) results: Option<Cache<Refusal>>,
    pub(super) engine: Arc<Engine>,
}

impl Kept {
    /// Lets go of all of it. `is_new`: it was not done a second ago.
    async fn let_go(&self, is_new: bool) {
        let entries = match &self.results {
            Some(results) => results.empty_memory().await,
            None => 0,
        };
        let sessions = self.engine.let_go();
        if is_new || entries > 0 || sessions > 0 {
            tracing::debug!(entries, sessions, "what was kept for speed is let go");
            // Nothing depends on how it ends.
            let _ = tokio::task::spawn_blocking(memory::give_back).await;
        }
    }
}

/// Looks once a second, on a thread that may wait for the kernel, and does what is to be done, until the server stops.
pub(super) async fn look_after(
    mut watch: Watch,
    said: Said,
    registry: Arc<Registry>,
    kept: Kept,
    mut stopped: watch::Receiver<bool>,
) {
    let mut was_short = false;
    let mut timer = interval(EVERY);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = timer.tick() => {}
            _ = stopped.wait_for(|stop| *stop) => return,
        }
        let looked = tokio::task::spawn_blocking(move || {
            let look = watch.look();
            (watch, look)
        });
        let look = match looked.await {
            Ok((back, look)) => {
                watch = back;
                look
            }
            Err(panic) => {
                tracing::error!(%panic, "looking at memory panicked; it is watched no more");
                registry.set_short_of_memory(false);
                return;
            }
        };
        said.say(look);
        let is_short = look.level == Level::Short;
        registry.set_short_of_memory(is_short);
        // Again each time: what comes in meanwhile is kept, too.
        if is_short {
            kept.let_go(!was_short).await;
        }
        was_short = is_short;
    }
}

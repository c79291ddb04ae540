use std::sync::Arc;
use std::thread;

use crate::config::Config;
use crate::http;
use crate::infer::Engine;
use crate::pipeline::{StillLimits, Stills};
use crate::session::Registry;
use crate::stills::{self, Decoders};

/// Pictures of the largest legal size that may be in memory at a time, decoded or about to be.
const LARGEST_AT_A_TIME: u64 = 4;
/// The same as they come, in bytes.
const RECEIVED_AT_A_TIME: usize = 16;
/// Pictures that may wait for a thread, for each thread: about a second of small ones.
const WAITING: usize = 64;

/// What still pictures need.
pub(super) struct Pictures {
    decoders: Arc<Decoders>,
    stills: Arc<Stills>,
}

/// Starts the threads for pictures.
///
/// # Errors
/// The operating system's, when a thread cannot be started.
pub(super) fn start(config: &Config, engine: &Arc<Engine>, registry: &Arc<Registry>) -> std::io::Result<Pictures> {
    let cores = || thread::available_parallelism().map_or(1, usize::from);
    let threads = config.threads.stills.unwrap_or_else(cores);
    let pixels = config.limits.image_pixels * LARGEST_AT_A_TIME;
    let decoders = Arc::new(Decoders::start(stills::Config { threads, queue: threads * WAITING, pixels })?);
    let stills = Stills::new(
        Arc::clone(engine),
        Arc::clone(&decoders),
        Arc::clone(registry),
        config.models.default.clone(),
        StillLimits { pixels: config.limits.image_pixels },
    );
    Ok(Pictures { decoders, stills: Arc::new(stills) })
}

/// What the endpoint checks itself.
pub(super) fn bounds(config: &Config) -> http::Bounds {
    let picture_bytes = config.limits.image_bytes;
    http::Bounds {
        picture_bytes,
        pictures: config.limits.images,
        received_bytes: picture_bytes * RECEIVED_AT_A_TIME,
        ..http::Bounds::default()
    }
}

impl Pictures {
    /// For the endpoint.
    pub(super) fn view(&self) -> Arc<dyn http::Stills> {
        Arc::clone(&self.stills) as _
    }

    /// Ends the threads.
    pub(super) fn stop(&self) {
        self.decoders.stop();
    }
}

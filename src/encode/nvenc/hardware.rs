use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::device::{Device, PinnedPool};

use super::api::Api;
use super::session::Session;
use super::{Capability, Error};

/// How much of a GPU encoding may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Encoders at a time (64). Each takes memory for a picture to encode and those it refers to. Drivers for consumers'
    /// GPUs allow fewer, and say so when one more is opened.
    pub sessions: usize,
    /// Bytes of host memory through which pictures go to the GPU and come back from it (64 MiB).
    pub host_bytes: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { sessions: 64, host_bytes: 64 << 20 }
    }
}

/// A GPU's encoders, which all sessions share.
pub struct Hardware {
    gpu: Arc<Device>,
    api: Api,
    bounds: Bounds,
    /// What was found out.
    capability: Mutex<Option<Option<Capability>>>,
    open: Arc<AtomicUsize>,
    made: AtomicU64,
    refused: AtomicU64,
    host: Arc<PinnedPool>,
}

impl Hardware {
    /// The encoders of a GPU.
    #[must_use]
    pub fn new(gpu: &Arc<Device>, api: Api, bounds: Bounds) -> Arc<Self> {
        Arc::new(Self {
            gpu: Arc::clone(gpu),
            api,
            bounds,
            capability: Mutex::default(),
            open: Arc::default(),
            made: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            host: PinnedPool::new(gpu, bounds.host_bytes),
        })
    }

    /// The GPU.
    #[must_use]
    pub const fn device(&self) -> &Arc<Device> {
        &self.gpu
    }

    /// Host memory through which pictures go to the GPU and come back.
    #[must_use]
    pub const fn host(&self) -> &Arc<PinnedPool> {
        &self.host
    }

    /// Encoders that there are now.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    /// Encoders that were made, and how often there was no room for one.
    #[must_use]
    pub fn made_and_refused(&self) -> (u64, u64) {
        (self.made.load(Ordering::Relaxed), self.refused.load(Ordering::Relaxed))
    }

    /// What the GPU encodes as H.264. It is asked once, by an encoder that is opened for it.
    ///
    /// # Errors
    /// [`Error::NoEncoder`] when it encodes none; [`Error::Full`] when all of its encoders are in use, so that it can't be
    /// asked; any other when it does not answer.
    pub fn capability(&self) -> Result<Capability, Error> {
        let mut known = self.capability.lock().unwrap_or_else(PoisonError::into_inner);
        let capability = match *known {
            Some(capability) => capability,
            None => {
                let asked = match self.session() {
                    Ok(session) => Capability::ask(&session)?,
                    Err(Error::NoEncoder) => None,
                    Err(error) => return Err(error),
                };
                *known.insert(asked)
            }
        };
        capability.ok_or(Error::NoEncoder)
    }

    /// A session with the encoder, if there is room for one.
    pub(super) fn session(&self) -> Result<Session, Error> {
        let opened = self.place().ok_or(Error::Full).and_then(|place| Session::open(&self.gpu, self.api, place));
        match &opened {
            Ok(_) => self.made.fetch_add(1, Ordering::Relaxed),
            Err(Error::Full) => self.refused.fetch_add(1, Ordering::Relaxed),
            Err(_) => 0,
        };
        opened
    }

    fn place(&self) -> Option<Place> {
        let taken = |open: usize| (open < self.bounds.sessions).then_some(open + 1);
        self.open.fetch_update(Ordering::AcqRel, Ordering::Acquire, taken).ok()?;
        Some(Place(Arc::clone(&self.open)))
    }
}

impl fmt::Debug for Hardware {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hardware").field("gpu", &self.gpu).field("open", &self.open()).finish_non_exhaustive()
    }
}

/// One session's place among those that there may be.
#[derive(Debug)]
pub(super) struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

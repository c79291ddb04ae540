use std::fmt;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::{self, JoinHandle};

use super::backend::{self, Opener, Request};
use super::found::{Found, Key};
use super::instance::Open;
use super::model::Model;
use crate::calibration::Calibration;
use crate::child::Stop;

/// Models that wait for their turn.
const QUEUE: usize = 64;

/// Makes ready what takes minutes, one after the other, while the models work already.
#[derive(Default)]
pub(super) struct Improver {
    stop: Stop,
    working: Mutex<Option<Working>>,
}

struct Working {
    queue: SyncSender<Improvement>,
    thread: JoinHandle<()>,
}

/// A model that may be run in a better way.
pub(super) struct Improvement {
    pub(super) model: Weak<Model>,
    pub(super) opener: Arc<Opener>,
    pub(super) request: Request,
    /// Where the result is kept, and under which key.
    pub(super) calibration: Calibration,
    pub(super) key: Key,
}

impl Improver {
    /// What ends the processes that build.
    pub(super) fn stop(&self) -> Stop {
        self.stop.clone()
    }

    /// Has a model improved when its turn comes.
    pub(super) fn add(&self, improvement: Improvement) {
        let model = improvement.key.model.clone();
        let mut working = self.working.lock().unwrap_or_else(PoisonError::into_inner);
        if working.is_none() && !self.stop.is_stopped() {
            let ((queue, waiting), stop) = (sync_channel(QUEUE), self.stop());
            let thread = thread::Builder::new().name("improver".to_owned()).spawn(move || work(&waiting, &stop));
            match thread {
                Ok(thread) => *working = Some(Working { queue, thread }),
                Err(error) => tracing::warn!(model, %error, "nobody can look for a faster way to run the model"),
            }
        }
        if let Some(working) = &*working
            && working.queue.try_send(improvement).is_err()
        {
            tracing::warn!(model, "too many models wait for a faster way to be run; this one stays as it is");
        }
    }

    /// Ends it, and waits for that: processes are killed, and what is being opened is opened.
    pub(super) fn close(&self) {
        self.stop.stop();
        let working = self.working.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Working { queue, thread }) = working {
            drop(queue);
            if thread.join().is_err() {
                tracing::error!("the thread that looks for faster ways to run models panicked");
            }
        }
    }
}

impl Drop for Improver {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for Improver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Improver").finish_non_exhaustive()
    }
}

fn work(waiting: &Receiver<Improvement>, stop: &Stop) {
    backend::yield_to_codecs();
    while let Ok(improvement) = waiting.recv() {
        if stop.is_stopped() {
            return;
        }
        improve(improvement, stop);
    }
}

/// Nobody keeps a model for the sake of a better way to run it: it may be unloaded in the meantime.
fn improve(improvement: Improvement, stop: &Stop) {
    let Improvement { model, opener, request, calibration, key } = improvement;
    let Some(current) = model.upgrade().map(|model| model.selection()) else { return };
    let id = &key.model;
    tracing::info!(model = id, "a faster way to run the model is made ready; this may take minutes");
    let improved = opener.improve(request, &current);
    if stop.is_stopped() {
        return;
    }
    let (runner, selection, complete) = match improved {
        Ok(improved) => improved,
        Err(error) => {
            tracing::warn!(model = id, %error, "there is no faster way to run the model");
            return;
        }
    };
    tracing::debug!(model = id, others = ?selection.others, "other ways to run the model");
    if complete {
        calibration.put(&key, &Found::new(&selection, true));
    }
    let Some(runner) = runner else {
        tracing::info!(model = id, provider = %selection.provider, "the model stays as it is, which is the fastest");
        return;
    };
    let again = selection.clone();
    let open: Arc<Open> = Arc::new(move || opener.open(&again));
    let (provider, precision, buckets) = (selection.provider, selection.precision, selection.buckets.clone());
    let changed = model.upgrade().is_some_and(|model| model.change(selection, open, runner));
    if changed {
        tracing::info!(model = id, %provider, %precision, ?buckets, "the model is run in a faster way from now on");
    }
}

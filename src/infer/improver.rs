use std::fmt;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, JoinHandle};

use super::backend::{self, Opener, Request, Selection};
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
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    has_begun: bool,
    /// Until then.
    early: Vec<Improvement>,
    working: Option<Working>,
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
    /// That are to run it then.
    pub(super) instances: u32,
    /// Nothing was left out for want of time when it was measured as it is run in the meantime.
    pub(super) complete: bool,
    /// Where the result is kept, and under which key.
    pub(super) calibration: Calibration,
    pub(super) key: Key,
}

impl Improver {
    /// What ends the processes that build.
    pub(super) fn stop(&self) -> Stop {
        self.stop.clone()
    }

    /// Has those improved that came so far, and each that comes from now on.
    pub(super) fn begin(&self) {
        let mut state = self.lock();
        state.has_begun = true;
        let early = std::mem::take(&mut state.early);
        early.into_iter().for_each(|improvement| self.queue(&mut state, improvement));
    }

    /// Has a model improved when its turn comes.
    pub(super) fn add(&self, improvement: Improvement) {
        let mut state = self.lock();
        if state.has_begun {
            self.queue(&mut state, improvement);
        } else if state.early.len() < QUEUE {
            state.early.push(improvement);
        } else {
            too_many(&improvement.key.model);
        }
    }

    fn queue(&self, state: &mut State, improvement: Improvement) {
        let model = improvement.key.model.clone();
        if state.working.is_none() && !self.stop.is_stopped() {
            let ((queue, waiting), stop) = (sync_channel(QUEUE), self.stop());
            let thread = thread::Builder::new().name("improver".to_owned()).spawn(move || work(&waiting, &stop));
            match thread {
                Ok(thread) => state.working = Some(Working { queue, thread }),
                Err(error) => tracing::warn!(model, %error, "nobody can look for a faster way to run the model"),
            }
        }
        if let Some(working) = &state.working
            && working.queue.try_send(improvement).is_err()
        {
            too_many(&model);
        }
    }

    /// Ends it, and waits for that: processes are killed, and what is being opened is opened.
    pub(super) fn close(&self) {
        self.stop.stop();
        let (working, early) = {
            let mut state = self.lock();
            (state.working.take(), std::mem::take(&mut state.early))
        };
        drop(early);
        if let Some(Working { queue, thread }) = working {
            drop(queue);
            if thread.join().is_err() {
                tracing::error!("the thread that looks for faster ways to run models panicked");
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn too_many(model: &str) {
    tracing::warn!(model, "too many models wait for a faster way to be run; this one stays as it is");
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
    let Improvement { model, opener, request, instances, complete: was_complete, calibration, key } = improvement;
    let Some(current) = model.upgrade().map(|model| model.selection()) else { return };
    let id = &key.model;
    tracing::info!(model = id, "a faster way to run the model is made ready; this may take minutes");
    let improved = opener.improve(request, &current, stop).and_then(|(runner, selection, complete)| {
        // All of them are there before any is used.
        let mut runners: Vec<_> = runner.into_iter().collect();
        while !runners.is_empty() && runners.len() < instances as usize {
            runners.push(opener.open(&selection)?);
        }
        Ok((runners, selection, complete))
    });
    if stop.is_stopped() {
        return;
    }
    let (runners, selection, complete) = match improved {
        Ok(improved) => improved,
        Err(error) => {
            tracing::warn!(model = id, %error, "there is no faster way to run the model");
            return;
        }
    };
    let others = &selection.others;
    if complete {
        tracing::debug!(model = id, ?others, "other ways to run the model");
    } else {
        tracing::warn!(model = id, ?others, "not every way to run the model could be tried");
    }
    let keep = |selection: &Selection| calibration.put(&key, &Found::new(selection, true));
    let (provider, precision, buckets) = (selection.provider, selection.precision, selection.buckets.clone());
    if runners.is_empty() {
        // What was left out for want of time is not to hold for every start to come.
        if complete && was_complete {
            keep(&selection);
        }
        tracing::info!(model = id, %provider, %precision, "the model stays as it is");
        return;
    }
    let (again, found) = (selection.clone(), selection.clone());
    let open: Arc<Open> = Arc::new(move || opener.open(&again));
    if model.upgrade().is_some_and(|model| model.change(selection, open, runners)) {
        if complete {
            keep(&found);
        }
        tracing::info!(model = id, %provider, %precision, ?buckets, "the model is run in a faster way from now on");
    }
}

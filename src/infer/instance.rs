use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use super::backend;
use super::batcher::Key;
use super::error::Error;
use super::runner::{Item, Runner};
use super::shared::{Shared, Taken, Task, Way};
use super::{Detected, Findings, Inferred, Outcome, Timing};
use crate::clock;

/// How long what runs pictures beside the instances keeps its runner when none come.
const PATIENCE: Duration = Duration::from_secs(30);

/// Makes an instance's runner, warmed up.
pub(super) type Open = dyn Fn() -> Result<Runner, Error> + Send + Sync;

/// Makes a runner ready for this thread, which is to run it, before it takes work. One that can't be made ready because of
/// what it would have recorded is replaced by another.
///
/// # Errors
/// Those of opening a runner and of running it; [`Error::Panicked`].
pub(super) fn settled(runner: Runner, open: &Open) -> Result<Runner, Error> {
    let settle = |mut runner: Runner| runner.settle().map(|()| runner);
    let settled = || match settle(runner) {
        Err(Error::Recording { .. }) => settle(open()?),
        settled => settled,
    };
    catch_unwind(AssertUnwindSafe(settled)).unwrap_or(Err(Error::Panicked))
}

/// The life of an owner thread: it owns one instance until the model is closed. `runner` is of this way.
pub(super) fn own(shared: &Shared, number: usize, way: Way, runner: Runner) {
    backend::yield_to_codecs();
    let mut instance =
        Instance { shared, number, helps: false, way, runner: None, found: Vec::new(), done: Vec::new() };
    instance.begin(runner);
    shared.add_instance();
    let mut batch = Vec::new();
    while let Some(task) = shared.next(number, instance.way.number, &mut batch) {
        match task {
            Task::Change(way, runner) => instance.change(way, runner),
            Task::Leave => return,
            Task::Run { bucket } => instance.run(bucket, &mut batch),
            Task::Late(inbox, frame) => inbox.deliver(shared.id(), Outcome::Late(frame)),
            Task::Expired(call) => call.reply.send(Err(Error::Late)),
            Task::Refuse(error) => {
                batch.drain(..).for_each(|taken| instance.answer(taken, 1, Err(error.clone())));
                instance.done.clear();
            }
        }
    }
}

/// The life of a thread that runs still pictures while all instances are at work, with what processors have left. It has a
/// runner only while such pictures come.
pub(super) fn help(shared: &Shared, number: usize) {
    backend::yield_to_all();
    let mut batch = Vec::new();
    while shared.await_overflow() {
        let way = shared.way();
        let of = way.number;
        let opened = catch_unwind(AssertUnwindSafe(&*way.open)).unwrap_or(Err(Error::Panicked));
        let runner = match opened {
            Ok(runner) => runner,
            // The instances do its work.
            Err(error) => {
                tracing::warn!(model = shared.id(), %error, "still pictures have no instance of their own");
                return;
            }
        };
        let mut instance =
            Instance { shared, number, helps: true, way, runner: None, found: Vec::new(), done: Vec::new() };
        instance.begin(runner);
        while let Some(task) = shared.next_overflow(of, PATIENCE, &mut batch) {
            match task {
                Task::Run { bucket } => instance.run(bucket, &mut batch),
                Task::Expired(call) => call.reply.send(Err(Error::Late)),
                // It is not given any other.
                Task::Late(..) | Task::Refuse(_) | Task::Change(..) | Task::Leave => return,
            }
        }
    }
}

struct Instance<'a> {
    shared: &'a Shared,
    number: usize,
    /// It runs with what processors have left, so that its times say nothing of the model.
    helps: bool,
    way: Way,
    /// None after a fault that a new one could not be opened after.
    runner: Option<Runner>,
    /// Of the batch in work; kept, so that none allocates.
    found: Vec<Findings>,
    done: Vec<(Key, bool)>,
}

impl Instance<'_> {
    fn run(&mut self, bucket: usize, batch: &mut Vec<Taken>) {
        let (metrics, size) = (&self.shared.metrics, batch.len());
        for taken in &*batch {
            let (Taken::Frame { queue, .. } | Taken::Call(_, queue)) = taken;
            metrics.queue_wait.record(queue.as_secs_f64());
        }
        #[expect(clippy::cast_precision_loss, reason = "a batch")]
        metrics.batch_size.record(size as f64);
        self.done.clear();
        let ran = match self.infer(bucket, &batch.iter().map(Taken::item)) {
            Ok(timing) => {
                let mut found = std::mem::take(&mut self.found);
                for (taken, Findings { detections, overall }) in batch.drain(..).zip(found.drain(..)) {
                    self.answer(taken, size, Ok(Detected { detections, overall, timing, batch_size: size }));
                }
                self.found = found;
                Some((bucket, timing.service()))
            }
            Err(error) if size > 1 && !matches!(error, Error::Recording { .. } | Error::Remote { .. }) => {
                self.run_one_by_one(bucket, batch, &error);
                None
            }
            // The model is not to blame.
            Err(error @ (Error::NoRoom { .. } | Error::Remote { .. })) => {
                batch.drain(..).for_each(|taken| self.answer(taken, size, Err(error.clone())));
                None
            }
            Err(error) => {
                self.restart(Some(&error));
                batch.drain(..).for_each(|taken| self.answer(taken, size, Err(error.clone())));
                None
            }
        };
        self.shared.release(self.number, self.way.number, ran, &self.done);
    }

    /// After a batch has failed: a frame that fails alone is not to fail the others.
    fn run_one_by_one(&mut self, bucket: usize, batch: &mut Vec<Taken>, error: &Error) {
        let no_room = matches!(error, Error::NoRoom { .. });
        if no_room {
            // It may be for one frame alone, and comes again and again while the GPU is full.
            tracing::debug!(model = self.shared.id(), size = batch.len(), %error, "a batch failed; its frames run one by one");
        } else {
            tracing::warn!(model = self.shared.id(), size = batch.len(), %error, "a batch failed; its frames run one by one");
        }
        if *error == Error::Panicked {
            // What a panic left half done is not run again. It counts against the model only where it can be said of a
            // frame, or of none.
            self.restart(None);
        }
        let mut failed = false;
        for taken in batch.drain(..) {
            let found = self.infer(1, &std::iter::once(taken.item()));
            if let Err(error) = &found
                && !matches!(error, Error::NoRoom { .. })
            {
                failed = true;
                self.restart(Some(error));
            }
            let Findings { detections, overall } = self.found.pop().unwrap_or_default();
            self.answer(taken, 1, found.map(|timing| Detected { detections, overall, timing, batch_size: 1 }));
        }
        if !failed && !no_room {
            // It was not for one of the frames, so the next such batch would fail, too.
            self.shared.give_up(self.way.number, bucket);
            self.shared.note_fault(error);
        }
    }

    /// Tells a frame's session or a picture's sender what became of it.
    fn answer(&mut self, taken: Taken, batch_size: usize, found: Result<Detected, Error>) {
        match &found {
            Ok(_) if self.helps => self.shared.record.count(),
            found => self.shared.record.note(found.as_ref().map(|detected| detected.timing.service())),
        }
        match taken {
            Taken::Call(call, queue) => {
                call.reply.send(found.map(|found| Detected { timing: Timing { queue, ..found.timing }, ..found }));
            }
            Taken::Frame { key, inbox, job, queue } => {
                self.done.push((key, found.is_ok()));
                let frame = job.frame;
                let outcome = match found {
                    Ok(Detected { detections, overall, timing, .. }) => {
                        let timing = Timing { queue, ..timing };
                        let met = clock::now() <= frame.deadline;
                        Outcome::Done(Inferred { frame, detections, overall, timing, batch_size, met })
                    }
                    Err(error) => Outcome::Failed(frame, error),
                };
                inbox.deliver(self.shared.id(), outcome);
            }
        }
    }

    fn infer<'i>(&mut self, bucket: usize, items: &(impl Iterator<Item = Item<'i>> + Clone)) -> Result<Timing, Error> {
        let Self { runner, found, shared, .. } = self;
        let runner = runner.as_mut().ok_or(Error::NotReady)?;
        let metrics = &shared.metrics;
        metrics.in_flight.increment(1.0);
        let ran = catch_unwind(AssertUnwindSafe(|| runner.run(bucket, items, found)));
        metrics.in_flight.decrement(1.0);
        let timing = ran.unwrap_or(Err(Error::Panicked))?;
        metrics.inference.record(timing.inference.as_secs_f64());
        Ok(timing)
    }

    /// Replaces the runner after a failed run. With an error, that counts as a fault of the model, too.
    fn restart(&mut self, error: Option<&Error>) {
        if self.runner.take().is_none() {
            return;
        }
        if let Some(error) = error {
            self.shared.note_fault(error);
        }
        self.open();
        if self.runner.is_some() {
            self.shared.metrics.restarts.increment(1);
        }
    }

    /// Runs everything another way.
    fn change(&mut self, way: Way, ready: Runner) {
        (self.way, self.runner) = (way, None);
        self.begin(ready);
    }

    /// Has this runner, or what can be had in its place.
    fn begin(&mut self, ready: Runner) {
        match settled(ready, &*self.way.open) {
            Ok(runner) => self.runner = Some(runner),
            Err(error) => self.shared.note_fault(&error),
        }
        self.open();
    }

    /// Opens a runner if there is none, until that succeeds or the model takes no more work.
    fn open(&mut self) {
        while self.runner.is_none() && self.shared.is_ready() {
            let opened = catch_unwind(AssertUnwindSafe(&*self.way.open)).unwrap_or(Err(Error::Panicked));
            match opened.and_then(|runner| settled(runner, &*self.way.open)) {
                Ok(runner) => self.runner = Some(runner),
                Err(error) => self.shared.note_fault(&error),
            }
        }
    }
}

#[cfg(test)]
#[path = "instance_tests.rs"]
mod tests;

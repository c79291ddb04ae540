//! A session moves to other models without losing a frame: those that the models before have are answered by these, and
//! the first one that the new ones get waits for that, so that results keep their order.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::crew::Crew;
use super::{Applied, Place, Shared, Stages, join};
use crate::clock;
use crate::degrade::Sample;
use crate::frame::Frame;
use crate::pipeline::stats::Stats;

/// The models that a session moves away from.
pub(super) struct Retiring {
    /// They still answer for the frames that they have.
    _crew: Crew,
    /// What the tracker knows is of other classes than the new models find.
    forgets: bool,
}

impl Stages {
    /// Has frames go through other models from the next one on, under the same name: what is tracked stays, unless the
    /// classes have other numbers.
    pub(in crate::pipeline) fn move_to(&self, applied: Applied) {
        let shared = &self.shared;
        let mut guard = shared.place();
        let before = shared.applied.load_full();
        let forgets = !before.plan.agrees_on_classes(&applied.plan);
        let takers = shared.takers();
        shared.footing.store(join(&shared.ladders, &applied, takers));
        shared.demand.set_needs(applied.needs(takers));
        if let Some(place) = guard.as_mut() {
            let Place { crew, retiring, held, .. } = std::mem::replace(place, self.take_place(&applied));
            // Of several moves at once only the first models have frames, and the last ones get the next.
            let forgets = forgets || retiring.as_ref().is_some_and(|retiring| retiring.forgets);
            place.retiring = Some(match retiring {
                Some(retiring) => Retiring { forgets, ..retiring },
                None => Retiring { _crew: crew, forgets },
            });
            place.held = held;
        }
        let stranded = shared.stranded().take();
        shared.applied.store(Arc::new(applied));
        if let Some(place) = guard.as_mut() {
            if let Some(frame) = stranded {
                shared.pending.add(frame.id);
                shared.hold(place, frame);
            }
            shared.is_moving.store(true, Ordering::Release);
        }
        drop(guard);
        self.decode.wake();
    }
}

impl Shared {
    /// Ends a move once the models before have answered, and hands the frame that waited for it to the new ones.
    pub(super) fn finish_move(&self) {
        let mut guard = self.place();
        let Some(place) = guard.as_mut() else { return };
        self.look_whether_moved(place);
    }

    /// Whether the session's frames may go to the models in force: the ones before have none left.
    pub(super) fn look_whether_moved(&self, place: &mut Place) -> bool {
        if !self.pending.is_all(place.held.as_ref().map(|frame| frame.id)) {
            return false;
        }
        if let Some(retiring) = place.retiring.take()
            && retiring.forgets
        {
            self.tracking().restart(self.applied.load().options.track);
        }
        self.is_moving.store(false, Ordering::Release);
        if let Some(frame) = place.held.take() {
            let id = frame.id;
            if let Some(refused) = place.crew.submit(frame, &place.orders) {
                self.pending.remove(id);
                self.metrics.model_failed.increment(1);
                refused.picture.recycle(&self.pool);
            }
        }
        true
    }

    /// Keeps a frame until the models before have answered; a newer one takes its place.
    pub(super) fn hold(&self, place: &mut Place, frame: Frame) {
        if place.held.as_ref().is_some_and(|held| held.id > frame.id) {
            self.pending.remove(frame.id);
            self.superseded(&frame);
            frame.picture.recycle(&self.pool);
            return;
        }
        if let Some(replaced) = place.held.replace(frame) {
            self.pending.remove(replaced.id);
            self.superseded(&replaced);
            replaced.picture.recycle(&self.pool);
        }
    }

    fn superseded(&self, frame: &Frame) {
        tracing::trace!(session_id = self.session_id, frame_id = frame.id, "superseded while models change");
        Stats::count(&self.stats.superseded);
        self.metrics.superseded.increment(1);
        self.footing.load().tell(clock::now(), Sample::Superseded);
    }
}

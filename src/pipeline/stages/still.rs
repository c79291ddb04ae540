use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use metrics::{Counter, Histogram, counter, histogram};

use crate::clock;
use crate::frame::{Frame, Picture};
use crate::infer::{Inferred, Timing, fusion};
use crate::media::I420;
use crate::stillness::{Gate, Settings, Signature, Verdict};

/// Frames on their way through the model whose signatures are remembered: one waits and one is being run, at most.
const UNDER_WAY: usize = 4;

/// Gives the last answer of the model again while the scene stands still, where the session is to do that and its frames
/// are in the host's memory.
pub(super) struct Still(Option<Keeper>);

struct Keeper {
    state: Mutex<State>,
    /// Takes the place of the picture of the answer that is kept.
    nothing: Picture,
    reused: Counter,
    checked: Counter,
    changed: Counter,
    aged: Counter,
    agreement: Histogram,
}

struct State {
    gate: Gate,
    under_way: VecDeque<UnderWay>,
    /// The model's answer to the frame that the gate compares with.
    last: Option<Inferred>,
}

struct UnderWay {
    frame_id: u64,
    signature: Signature,
    at: Instant,
    is_check: bool,
}

impl Still {
    pub(super) fn new(settings: Option<Settings>) -> Self {
        Self(settings.map(|settings| {
            let frames = |outcome| counter!("saccade_still_gate_frames_total", "outcome" => outcome);
            Keeper {
                state: Mutex::new(State { gate: Gate::new(settings), under_way: VecDeque::new(), last: None }),
                nothing: Picture::Host(Arc::new(I420::new(2, 2))),
                reused: frames("reused"),
                checked: frames("checked"),
                changed: frames("changed"),
                aged: frames("aged"),
                agreement: histogram!("saccade_still_gate_agreement_ratio"),
            }
        }))
    }

    /// The last answer for this frame, if the scene stands still; otherwise the frame, which is to go to the model. `idle`
    /// says that no frame before it is there.
    #[cfg_attr(
        feature = "cuda",
        expect(clippy::result_large_err, reason = "a frame goes one way or the other, and is in no box")
    )]
    pub(super) fn answer(&self, frame: Frame, idle: bool) -> Result<Inferred, Frame> {
        let Some(Keeper { state, reused, checked, changed, aged, .. }) = &self.0 else { return Err(frame) };
        #[cfg_attr(not(feature = "cuda"), expect(irrefutable_let_patterns, reason = "there are GPUs elsewhere"))]
        let Picture::Host(picture) = &frame.picture else { return Err(frame) };
        let signature = Signature::of(picture.planes()[0], picture.width(), picture.height());
        let mut state = lock(state);
        let verdict = if state.last.is_some() { state.gate.judge(&signature, frame.arrival) } else { Verdict::Changed };
        match verdict {
            Verdict::Changed => changed.increment(1),
            Verdict::Aged => aged.increment(1),
            Verdict::Check => checked.increment(1),
            // What was found in the frame before is not known yet.
            Verdict::Same if !idle => {}
            Verdict::Same => {
                if let Some(last) = &state.last {
                    reused.increment(1);
                    let queue = clock::now().saturating_duration_since(frame.decoded_at);
                    let timing = Timing { queue, ..Timing::default() };
                    return Ok(Inferred { frame, timing, batch_size: 0, met: true, ..last.clone() });
                }
            }
        }
        if state.under_way.len() == UNDER_WAY {
            state.under_way.pop_front();
        }
        let (frame_id, at) = (frame.id, frame.arrival);
        state.under_way.push_back(UnderWay { frame_id, signature, at, is_check: verdict == Verdict::Check });
        Err(frame)
    }

    /// The model answered; objects have no ids yet.
    pub(super) fn answered(&self, inferred: &mut Inferred) {
        let Some(Keeper { state, nothing, agreement, .. }) = &self.0 else { return };
        let mut state = lock(state);
        let frame_id = inferred.frame.id;
        state.under_way.retain(|frame| frame.frame_id >= frame_id);
        let Some(seen) = state.under_way.pop_front_if(|frame| frame.frame_id == frame_id) else { return };
        // What is told of a whole frame has no boxes to compare.
        if seen.is_check
            && inferred.overall.is_none()
            && let Some(last) = &state.last
        {
            agreement.record(f64::from(fusion::agreement(&last.detections, &inferred.detections)));
        }
        state.gate.see(seen.signature, seen.at);
        // Without its picture, which others take memory for.
        let picture = std::mem::replace(&mut inferred.frame.picture, nothing.clone());
        state.last = Some(inferred.clone());
        inferred.frame.picture = picture;
    }

    /// Other models or options are in force.
    pub(super) fn forget(&self) {
        let Some(keeper) = &self.0 else { return };
        let mut state = lock(&keeper.state);
        state.gate.forget();
        state.under_way.clear();
        state.last = None;
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

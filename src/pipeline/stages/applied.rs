use std::sync::Arc;
use std::time::Duration;

use saccade_signaling::{Options, ReturnMode};

use super::Orders;
use crate::degrade::Can;
use crate::infer;
use crate::pipeline::load::Needs;

/// Options as the stages use them.
#[derive(Debug)]
pub(in crate::pipeline) struct Applied {
    /// All options, as told to the client.
    pub(in crate::pipeline) options: Options,
    /// The models that frames go through.
    pub(in crate::pipeline) plan: infer::Plan,
    /// What they are asked.
    pub(in crate::pipeline) orders: Arc<Orders>,
    /// Name and version of the model that answers; of several, that of their route.
    pub(in crate::pipeline) model_id: Arc<str>,
    /// How much of its time the session gets when there is not enough for all.
    pub(in crate::pipeline) priority: infer::Priority,
}

/// Who takes the video of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::pipeline) struct Takers {
    /// Its publisher, unless its options say that none goes back.
    pub(in crate::pipeline) publisher: bool,
    /// How many others.
    pub(in crate::pipeline) viewers: usize,
}

impl Applied {
    /// What the session wants done with its frames.
    pub(in crate::pipeline) fn needs(&self, takers: Takers) -> Needs {
        Needs {
            models: self.plan.members.iter().map(|member| Arc::downgrade(&member.model)).collect(),
            can: self.can(takers),
        }
    }

    pub(super) fn can(&self, takers: Takers) -> Can {
        let (track, video) = (self.options.track, self.gives_video(takers));
        let predicted = video && self.options.return_mode == ReturnMode::Predicted;
        Can { skip_inference: track, fill_in: track && !predicted, return_less: video }
    }

    /// What a model takes for a frame while nothing else runs: that of the slowest member, since they work side by side.
    pub(super) fn least(&self) -> Duration {
        self.plan.members.iter().map(|member| member.model.selection().measured).max().unwrap_or_default()
    }

    /// Whether frames go out at once, ahead of their results.
    pub(super) fn is_predicted(&self, takers: Takers) -> bool {
        self.gives_video(takers) && self.options.return_mode == ReturnMode::Predicted
    }

    /// Whether frames go out together with their results.
    pub(super) fn waits_for_results(&self, takers: Takers) -> bool {
        self.gives_video(takers) && self.options.return_mode != ReturnMode::Predicted
    }

    /// Whether frames are encoded.
    pub(super) fn gives_video(&self, takers: Takers) -> bool {
        takers.viewers > 0 || self.goes_back(takers.publisher)
    }

    /// Whether what is encoded goes to the publisher, where that takes video.
    pub(super) fn goes_back(&self, publisher: bool) -> bool {
        publisher && self.options.return_mode != ReturnMode::Results
    }
}

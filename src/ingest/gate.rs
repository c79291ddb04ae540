use std::time::{Duration, Instant};

/// Lets nothing but a keyframe through while it is closed, and says when to ask the sender for one.
#[derive(Debug)]
pub(super) struct Gate {
    closed: bool,
    interval: Duration,
    due: Option<Instant>,
    last_request: Option<Instant>,
}

impl Gate {
    /// A closed gate that asks for nothing yet.
    pub(super) const fn new(interval: Duration) -> Self {
        Self { closed: true, interval, due: None, last_request: None }
    }

    /// Whether a unit may pass; a keyframe opens the gate.
    pub(super) fn admit(&mut self, keyframe: bool) -> bool {
        if keyframe {
            (self.closed, self.due) = (false, None);
        }
        !self.closed
    }

    /// Closes the gate, to ask for a keyframe as soon as the interval since the last request allows.
    pub(super) fn close(&mut self, now: Instant) {
        self.closed = true;
        self.due = Some(self.last_request.map_or(now, |last| now.max(last + self.interval)));
    }

    /// The first packet is there: a keyframe is expected without asking, for a while.
    pub(super) fn start(&mut self, now: Instant) {
        if self.closed && self.due.is_none() {
            self.due = Some(now + self.interval);
        }
    }

    /// A keyframe is on its way in: no request before the interval from now is over.
    pub(super) fn postpone(&mut self, now: Instant) {
        if self.closed {
            self.due = Some(now + self.interval);
        }
    }

    pub(super) const fn deadline(&self) -> Option<Instant> {
        self.due
    }

    /// Whether to ask now.
    pub(super) fn poll(&mut self, now: Instant) -> bool {
        let ask = self.due.is_some_and(|due| due <= now);
        if ask {
            self.last_request = Some(now);
            self.due = Some(now + self.interval);
        }
        ask
    }
}

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Kind, Message};

/// Bytes of messages that wait at most, however few they are.
const MAX_BYTES: usize = 32 * 1024 * 1024;

/// Messages that wait for one sink. When it is full, the oldest result goes; where there is none, the oldest event, or, if
/// it is a result that comes, that one.
#[derive(Debug)]
pub(super) struct Backlog {
    capacity: usize,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    events: VecDeque<(u64, Message)>,
    results: VecDeque<(u64, Message)>,
    next: u64,
    bytes: usize,
}

/// A message with its place in the order.
#[derive(Debug, Clone)]
pub(super) struct Numbered {
    number: u64,
    pub(super) message: Message,
}

impl Numbered {
    /// Its place.
    pub(super) const fn number(&self) -> u64 {
        self.number
    }
}

impl Backlog {
    pub(super) fn new(capacity: usize) -> Self {
        Self { capacity, waiting: Mutex::default() }
    }

    /// Adds a message; says how many were dropped for it, that one included if it was.
    pub(super) fn push(&self, message: Message) -> u64 {
        let mut waiting = self.lock();
        let mut dropped = 0;
        while waiting.len() >= self.capacity || waiting.bytes + message.body.len() > MAX_BYTES {
            let is_result = message.kind == Kind::Result;
            let oldest = waiting.results.pop_front();
            let oldest = oldest.or_else(|| if is_result { None } else { waiting.events.pop_front() });
            dropped += 1;
            let Some((_, oldest)) = oldest else { return dropped };
            waiting.bytes -= oldest.body.len();
        }
        let number = waiting.next;
        waiting.next += 1;
        waiting.bytes += message.body.len();
        waiting.of(message.kind).push_back((number, message));
        dropped
    }

    /// Takes the oldest message.
    pub(super) fn pop(&self) -> Option<Numbered> {
        let mut waiting = self.lock();
        let number = |queue: &VecDeque<(u64, Message)>| queue.front().map_or(u64::MAX, |(number, _)| *number);
        let of_event = number(&waiting.events) < number(&waiting.results);
        let queue = if of_event { &mut waiting.events } else { &mut waiting.results };
        let (number, message) = queue.pop_front()?;
        waiting.bytes -= message.body.len();
        Some(Numbered { number, message })
    }

    /// Puts back what was taken, in its old place. It may be more than fits.
    pub(super) fn put_back(&self, taken: impl DoubleEndedIterator<Item = Numbered>) {
        let mut waiting = self.lock();
        for Numbered { number, message } in taken.rev() {
            waiting.bytes += message.body.len();
            waiting.of(message.kind).push_front((number, message));
        }
    }

    pub(super) fn len(&self) -> usize {
        self.lock().len()
    }

    pub(super) const fn capacity(&self) -> usize {
        self.capacity
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn len(&self) -> usize {
        self.events.len() + self.results.len()
    }

    fn of(&mut self, kind: Kind) -> &mut VecDeque<(u64, Message)> {
        match kind {
            Kind::Event => &mut self.events,
            Kind::Result => &mut self.results,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::Source;
    use super::*;

    fn message(id: &str, body: &str) -> Message {
        Message {
            id: id.into(),
            at: crate::clock::now(),
            kind: if id.starts_with('r') { Kind::Result } else { Kind::Event },
            name: "any".into(),
            source: Arc::new(Source { name: "a".into(), is_camera: true }),
            body: body.into(),
        }
    }

    fn drain(backlog: &Backlog) -> Vec<String> {
        std::iter::from_fn(|| backlog.pop()).map(|taken| taken.message.id.to_string()).collect()
    }

    #[test]
    fn the_order_is_kept_and_results_make_room_for_events() {
        let backlog = Backlog::new(4);
        let push = |id: &str| backlog.push(message(id, ""));
        assert_eq!(["r1", "e1", "r2", "e2"].map(push), [0; 4]);
        assert_eq!((push("r3"), push("e3"), push("e4")), (1, 1, 1));
        assert_eq!(backlog.len(), 4);
        assert_eq!(drain(&backlog), ["e1", "e2", "e3", "e4"]);
        assert_eq!(["e1", "e2", "e3", "e4", "e5"].map(push), [0, 0, 0, 0, 1]);
        assert_eq!(push("r9"), 1, "a result pushes no event out");
        assert_eq!(drain(&backlog), ["e2", "e3", "e4", "e5"]);
    }

    #[test]
    fn what_is_put_back_comes_first_and_in_its_order() {
        let backlog = Backlog::new(3);
        for id in ["e1", "r1", "e2"] {
            backlog.push(message(id, ""));
        }
        let taken: Vec<_> = (0..2).filter_map(|_| backlog.pop()).collect();
        assert_eq!(backlog.push(message("e3", "")), 0);
        backlog.put_back(taken.into_iter());
        assert_eq!((backlog.len(), drain(&backlog)), (4, ["e1", "r1", "e2", "e3"].map(str::to_owned).to_vec()));
    }

    #[test]
    fn bytes_have_a_bound_too() {
        let (backlog, large) = (Backlog::new(100), "x".repeat(MAX_BYTES / 2));
        assert_eq!(["e1", "e2", "e3"].map(|id| backlog.push(message(id, &large))), [0, 0, 1]);
        assert_eq!(backlog.push(message("e4", &"x".repeat(MAX_BYTES + 1))), 3, "what never fits goes itself");
        assert_eq!(backlog.push(message("e5", "")), 0);
        assert_eq!(drain(&backlog), ["e5"]);
    }
}

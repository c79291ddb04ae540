use std::collections::HashMap;
use std::collections::hash_map::Entry as Place;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::watch;

use super::{Entry, Key};

/// What is being computed, so that nobody computes the same at the same time. It holds one place for each key that
/// somebody computes.
pub(super) struct Flights<E>(Arc<Mutex<HashMap<Key, watch::Receiver<State<E>>>>>);

/// How a computation goes.
#[derive(Clone)]
enum State<E> {
    Running,
    Landed(Result<Arc<Entry>, E>),
}

/// What to do about a key.
pub(super) enum Seat<E> {
    /// Compute it: nobody else does.
    Pilot(Pilot<E>),
    /// Wait for who computes it.
    Passenger(Passenger<E>),
}

/// Has to compute, and say how it went. Dropped before it did, one of those who wait takes its place.
pub(super) struct Pilot<E> {
    flights: Flights<E>,
    key: Key,
    state: watch::Sender<State<E>>,
}

/// Waits for a computation of somebody else.
pub(super) struct Passenger<E>(watch::Receiver<State<E>>);

/// What became of a computation that one waited for.
pub(super) enum Landing<E> {
    /// It ended.
    Done(Result<Arc<Entry>, E>),
    /// Who computed went away, or failed in a way that says nothing about the others: ask for a seat again.
    Deserted,
    /// It did not end in time.
    Late,
}

impl<E: Clone> Flights<E> {
    /// Takes part in the computation of a key.
    pub(super) fn board(&self, key: &Key) -> Seat<E> {
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match flights.entry(*key) {
            Place::Occupied(place) => Seat::Passenger(Passenger(place.get().clone())),
            Place::Vacant(place) => {
                let (state, receiver) = watch::channel(State::Running);
                place.insert(receiver);
                Seat::Pilot(Pilot { flights: self.clone(), key: *key, state })
            }
        }
    }

    /// Computations that are under way.
    #[must_use]
    pub(super) fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl<E> Clone for Flights<E> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<E> Default for Flights<E> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<E> Pilot<E> {
    /// Tells those who wait how it ended.
    pub(super) fn land(self, outcome: Result<Arc<Entry>, E>) {
        self.state.send_replace(State::Landed(outcome));
    }
}

impl<E> Drop for Pilot<E> {
    fn drop(&mut self) {
        // Before those who wait wake up and want a seat: the sender is dropped after this.
        self.flights.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

impl<E: Clone> Passenger<E> {
    /// Waits for the end, until the deadline at the latest.
    pub(super) async fn wait(mut self, deadline: Instant) -> Landing<E> {
        let landed = self.0.wait_for(|state| matches!(state, State::Landed(_)));
        match tokio::time::timeout_at(deadline.into(), landed).await {
            Err(_) => Landing::Late,
            Ok(Err(_)) => Landing::Deserted,
            Ok(Ok(state)) => match &*state {
                State::Landed(outcome) => Landing::Done(outcome.clone()),
                State::Running => Landing::Deserted,
            },
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests {
    use std::time::{Duration, SystemTime};

    use bytes::Bytes;

    use super::*;
    use crate::clock;

    fn key() -> Key {
        Key::of(&[b"one"])
    }

    fn entry() -> Arc<Entry> {
        let made = SystemTime::UNIX_EPOCH;
        Arc::new(Entry::new(Bytes::from_static(b"1"), "text/plain", &[], made, Duration::from_secs(1)))
    }

    fn pilot(flights: &Flights<u8>) -> Pilot<u8> {
        let Seat::Pilot(pilot) = flights.board(&key()) else { panic!("somebody computes it already") };
        pilot
    }

    fn passenger(flights: &Flights<u8>) -> Passenger<u8> {
        let Seat::Passenger(passenger) = flights.board(&key()) else { panic!("nobody computes it") };
        passenger
    }

    fn soon() -> Instant {
        clock::now() + Duration::from_secs(10)
    }

    #[tokio::test]
    async fn those_who_wait_get_what_was_computed_even_if_they_look_late() {
        for outcome in [Ok(entry()), Err(7)] {
            let flights = Flights::default();
            let (leader, early, late) = (pilot(&flights), passenger(&flights), passenger(&flights));
            let waiting = tokio::spawn(early.wait(soon()));
            leader.land(outcome.clone());
            assert_eq!(flights.len(), 0);
            for landing in [waiting.await.unwrap(), late.wait(soon()).await] {
                let Landing::Done(found) = landing else { panic!("no outcome") };
                assert_eq!(found, outcome);
            }
        }
    }

    #[tokio::test]
    async fn one_of_those_who_wait_takes_the_place_of_who_goes_away() {
        let flights = Flights::default();
        let (leader, waiting) = (pilot(&flights), [(); 3].map(|()| passenger(&flights)));
        drop(leader);
        let mut leaders = 0;
        let mut seats = Vec::new();
        for passenger in waiting {
            assert!(matches!(passenger.wait(soon()).await, Landing::Deserted));
            let seat = flights.board(&key());
            leaders += usize::from(matches!(seat, Seat::Pilot(_)));
            seats.push(seat);
        }
        assert_eq!((leaders, flights.len()), (1, 1));
        drop(seats);
        assert_eq!(flights.len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_beyond_the_deadline() {
        let flights = Flights::<u8>::default();
        let (_leader, waiting) = (pilot(&flights), passenger(&flights));
        let deadline = crate::clock::timers() + Duration::from_millis(50);
        assert!(matches!(waiting.wait(deadline.into()).await, Landing::Late));
        assert_eq!(crate::clock::timers(), deadline);
    }
}

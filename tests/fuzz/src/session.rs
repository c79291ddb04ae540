//! A session's life, whatever happens to it.

use std::time::Duration;

use arbitrary::{Arbitrary, Unstructured};
use saccade::clock;
use saccade::session::EndReason;
use saccade::session::machine::{Machine, Output, Phase, SignalingEvent, Timeouts, TransportEvent};
use saccade_signaling::ServerMessage;

use crate::input::all;

#[derive(Debug, Arbitrary)]
enum Step {
    Offer,
    Transport(u8),
    Signaling(u8),
    Token(Option<u8>),
    Drain(u8),
    Close(u8),
    /// Milliseconds pass, up to a minute or so.
    Wait(u16),
    /// The next deadline comes.
    Due,
}

const TRANSPORT: [TransportEvent; 7] = [
    TransportEvent::IceConnected,
    TransportEvent::Connected,
    TransportEvent::Disconnected,
    TransportEvent::Failed,
    TransportEvent::PacketReceived,
    TransportEvent::FrameDecoded,
    TransportEvent::Closed,
];
const SIGNALING: [SignalingEvent; 4] =
    [SignalingEvent::Attached, SignalingEvent::Lost, SignalingEvent::Bye, SignalingEvent::Full];

/// What the machine has said so far.
#[derive(Default)]
struct Said {
    closed: u32,
    close: u32,
    abandon: u32,
}

impl Said {
    fn hear(&mut self, machine: &mut Machine) {
        while let Some(output) = machine.poll_output() {
            match output {
                Output::Send(ServerMessage::Closed { .. }) => self.closed += 1,
                Output::Send(ServerMessage::Error { fatal, .. }) => assert!(fatal && self.closed == 0),
                Output::Send(message) => panic!("{message:?}"),
                Output::Close { .. } => self.close += 1,
                Output::Abandon => {
                    assert_eq!(self.close, 1, "what was not closed cannot be let go");
                    self.abandon += 1;
                }
            }
        }
        let is_ending = matches!(machine.phase(), Phase::Closing { .. } | Phase::Closed { .. });
        assert_eq!((self.closed, self.close), (u32::from(is_ending), u32::from(is_ending)), "{:?}", machine.phase());
        assert!(self.abandon <= 1);
        assert_eq!(machine.poll_timeout().is_none(), matches!(machine.phase(), Phase::Closed { .. }));
    }
}

/// Every phase but the last has a deadline, the end is told once, and time alone brings every session to its end.
pub(crate) fn life(data: &[u8]) {
    let mut input = Unstructured::new(data);
    let longest = bool::arbitrary(&mut input).unwrap_or_default().then_some(Duration::from_secs(90));
    let timeouts = Timeouts { max_duration: longest, ..Timeouts::default() };
    let mut now = clock::now();
    let (mut machine, mut said) = (Machine::new(now, timeouts), Said::default());
    for step in all::<Step>(&mut input, 300) {
        let before = machine.phase();
        match step {
            Step::Offer => machine.handle_offer(now),
            Step::Transport(event) => machine.handle_transport(now, TRANSPORT[usize::from(event) % TRANSPORT.len()]),
            Step::Signaling(event) => machine.handle_signaling(now, SIGNALING[usize::from(event) % SIGNALING.len()]),
            Step::Token(end) => machine.handle_token(end.map(|seconds| now + Duration::from_secs(seconds.into()))),
            Step::Drain(seconds) => machine.handle_drain(now, now + Duration::from_secs(seconds.into())),
            Step::Close(reason) => machine.close(now, EndReason::ALL[usize::from(reason) % EndReason::ALL.len()]),
            Step::Wait(ms) => now += Duration::from_millis(ms.into()),
            Step::Due => now = machine.poll_timeout().map_or(now, |due| now.max(due)),
        }
        if matches!(step, Step::Wait(_) | Step::Due) {
            machine.handle_timeout(now);
            assert!(machine.poll_timeout().is_none_or(|due| due > now), "a deadline that has passed is over");
        }
        match (before, machine.phase()) {
            (Phase::Closed { reason: before }, phase) => assert_eq!(phase, Phase::Closed { reason: before }),
            (Phase::Closing { reason: before, .. }, Phase::Closing { reason, .. } | Phase::Closed { reason }) => {
                assert_eq!(before, reason, "the first reason is the one");
            }
            (Phase::Closing { .. }, phase) => panic!("{phase:?} after it was closed"),
            _ => {}
        }
        said.hear(&mut machine);
    }
    // Nothing happens any more: its deadlines bring it to the end, one after the other.
    for _ in 0..4 {
        let Some(due) = machine.poll_timeout() else { break };
        now = now.max(due);
        machine.handle_timeout(now);
        said.hear(&mut machine);
    }
    assert!(matches!(machine.phase(), Phase::Closed { .. }), "stuck in {:?}", machine.phase());
}

//! The state machine of one session's life. It is pure: it is told the time and what happened, and says what to do.
//!
//! After each `handle_*`, call [`Machine::poll_output`] until it gives nothing, then wait until
//! [`Machine::poll_timeout`] or the next event. Every phase but [`Phase::Closed`] and [`Phase::Camera`] has a deadline: in
//! [`Phase::Live`] it moves on with each packet, anywhere else it is fixed when the phase begins.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use saccade_signaling::ServerMessage;

use super::EndReason;

/// How long each wait of a session may last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// From the offer to the answer; default 15 s.
    pub offer: Duration,
    /// From the answer to a selected candidate pair (`session.ice_timeout_ms`); default 10 s.
    pub ice: Duration,
    /// From there to the end of the DTLS handshake; default 10 s.
    pub dtls: Duration,
    /// From there to the first decoded frame; default 15 s.
    pub first_frame: Duration,
    /// From a packet to the next (`session.idle_timeout_ms`); default 30 s.
    pub idle: Duration,
    /// From the loss of the socket, or of the network path, to its return (`session.resume_ms`); default 10 s.
    pub resume: Duration,
    /// From the order to close to the transport's end; default 5 s.
    pub close: Duration,
    /// From the offer to the end of a session (`session.max_duration_s`); default none.
    pub max_duration: Option<Duration>,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            offer: Duration::from_secs(15),
            ice: Duration::from_secs(10),
            dtls: Duration::from_secs(10),
            first_frame: Duration::from_secs(15),
            idle: Duration::from_secs(30),
            resume: Duration::from_secs(10),
            close: Duration::from_secs(5),
            max_duration: None,
        }
    }
}

/// Where a session is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The offer came; its answer is being made.
    Offer {
        /// When the answer is due.
        deadline: Instant,
    },
    /// The answer went out; connectivity checks run.
    Ice {
        /// When a candidate pair has to be selected.
        deadline: Instant,
    },
    /// A pair is selected; the DTLS handshake runs.
    Dtls {
        /// When the handshake has to be done.
        deadline: Instant,
    },
    /// Connected; no frame was decoded yet.
    FirstFrame {
        /// When the first frame is due.
        deadline: Instant,
        /// Whether any packet came.
        packets: bool,
    },
    /// Frames come.
    Live {
        /// When the next packet is due.
        deadline: Instant,
    },
    /// The video comes from a camera that the server itself connects to, again and again: whoever does that has the
    /// deadlines.
    Camera {
        /// Whether it is connected now.
        connected: bool,
    },
    /// The transport is being closed.
    Closing {
        /// Why.
        reason: EndReason,
        /// When it is given up.
        deadline: Instant,
    },
    /// Nothing is left.
    Closed {
        /// Why.
        reason: EndReason,
    },
}

impl Phase {
    /// Name of the phase, for logs.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Offer { .. } => "offer",
            Self::Ice { .. } => "ice",
            Self::Dtls { .. } => "dtls",
            Self::FirstFrame { .. } => "first_frame",
            Self::Live { .. } => "live",
            Self::Camera { .. } => "camera",
            Self::Closing { .. } => "closing",
            Self::Closed { .. } => "closed",
        }
    }

    /// The coarse `state` of [`SessionView`](saccade_signaling::SessionView).
    #[must_use]
    pub const fn state(&self) -> &'static str {
        match self {
            Self::Offer { .. } | Self::Ice { .. } | Self::Dtls { .. } | Self::Camera { connected: false } => {
                "connecting"
            }
            Self::FirstFrame { .. } | Self::Live { .. } | Self::Camera { connected: true } => "connected",
            Self::Closing { .. } | Self::Closed { .. } => "closing",
        }
    }

    const fn is_ending(&self) -> bool {
        matches!(self, Self::Closing { .. } | Self::Closed { .. })
    }
}

/// What the transport or the decoder reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransportEvent {
    /// A candidate pair is selected.
    IceConnected,
    /// The DTLS handshake is done; media may flow.
    Connected,
    /// The path is interrupted and may come back by itself.
    Disconnected,
    /// The path, or the handshake, failed. A live session may still restart ICE.
    Failed,
    /// An RTP packet came.
    PacketReceived,
    /// A frame was decoded.
    FrameDecoded,
    /// The transport has closed, ordered or not.
    Closed,
}

/// What happens to the signaling socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignalingEvent {
    /// A socket serves the session from now on.
    Attached,
    /// It was lost.
    Lost,
    /// The client said goodbye.
    Bye,
    /// The socket's queue is full.
    Full,
}

/// What to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Give this to the socket, if there is one.
    Send(ServerMessage),
    /// Close the transport, and report [`TransportEvent::Closed`] when that is done. Comes once.
    Close {
        /// Why.
        reason: EndReason,
    },
    /// The transport did not close in time: let go of it. Comes once at most, after [`Output::Close`].
    Abandon,
}

/// See the [module](self).
#[derive(Debug)]
pub struct Machine {
    timeouts: Timeouts,
    phase: Phase,
    /// When a lost socket must have been replaced.
    socket_deadline: Option<Instant>,
    /// When a lost path must have been restored.
    path_deadline: Option<Instant>,
    /// When the session ends whatever happens: its longest duration, or the end of a drain.
    end: Option<(Instant, EndReason)>,
    /// When the publisher's token ends.
    expiry: Option<Instant>,
    /// Whether the server drains: nobody can take over a session any more.
    draining: bool,
    outputs: VecDeque<Output>,
}

impl Machine {
    /// A session whose first offer came at `now`. A session without a socket (opened over HTTP) needs no event for it.
    #[must_use]
    pub fn new(now: Instant, timeouts: Timeouts) -> Self {
        Self {
            timeouts,
            phase: Phase::Offer { deadline: now + timeouts.offer },
            socket_deadline: None,
            path_deadline: None,
            end: timeouts.max_duration.map(|longest| (now + longest, EndReason::MaxDuration)),
            expiry: None,
            draining: false,
            outputs: VecDeque::new(),
        }
    }

    /// A session whose video comes from a camera. It goes on until it is closed or the server drains.
    #[must_use]
    pub fn of_camera(now: Instant, timeouts: Timeouts) -> Self {
        let machine = Self::new(now, Timeouts { max_duration: None, ..timeouts });
        Self { phase: Phase::Camera { connected: false }, ..machine }
    }

    /// Whether it was made so.
    #[must_use]
    pub const fn is_of_camera(&self) -> bool {
        matches!(self.phase, Phase::Camera { .. })
    }

    /// Where the session is.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// An offer was answered: the first one starts the connectivity checks, a later one renegotiates or restarts ICE,
    /// which gives a broken path the time to come back.
    pub fn handle_offer(&mut self, now: Instant) {
        match self.phase {
            Phase::Offer { .. } => self.phase = Phase::Ice { deadline: now + self.timeouts.ice },
            Phase::FirstFrame { .. } | Phase::Live { .. } if self.path_deadline.is_some() => {
                self.path_deadline = Some(now + self.timeouts.ice);
            }
            _ => {}
        }
    }

    /// Takes what the transport or the decoder reports.
    pub fn handle_transport(&mut self, now: Instant, event: TransportEvent) {
        if let Phase::Closing { reason, .. } = self.phase {
            if event == TransportEvent::Closed {
                self.phase = Phase::Closed { reason };
            }
            return;
        }
        if let Phase::Camera { connected } = &mut self.phase {
            match event {
                TransportEvent::Connected => *connected = true,
                TransportEvent::Disconnected => *connected = false,
                TransportEvent::Closed => self.close(now, EndReason::PeerClosed),
                _ => {}
            }
            return;
        }
        match event {
            TransportEvent::IceConnected => {
                self.path_deadline = None;
                if let Phase::Offer { .. } | Phase::Ice { .. } = self.phase {
                    self.phase = Phase::Dtls { deadline: now + self.timeouts.dtls };
                }
            }
            TransportEvent::Connected => {
                self.path_deadline = None;
                if let Phase::Offer { .. } | Phase::Ice { .. } | Phase::Dtls { .. } = self.phase {
                    self.phase = Phase::FirstFrame { deadline: now + self.timeouts.first_frame, packets: false };
                }
            }
            // Packets that are missing while the path is interrupted count as idle time.
            TransportEvent::Disconnected => {}
            TransportEvent::Failed => match self.phase {
                Phase::Offer { .. } | Phase::Ice { .. } => self.close(now, EndReason::IceTimeout),
                Phase::Dtls { .. } => self.close(now, EndReason::DtlsFailed),
                Phase::FirstFrame { .. } | Phase::Live { .. } => {
                    self.path_deadline.get_or_insert(now + self.timeouts.resume);
                }
                Phase::Camera { .. } | Phase::Closing { .. } | Phase::Closed { .. } => {}
            },
            TransportEvent::PacketReceived => match &mut self.phase {
                Phase::FirstFrame { packets, .. } => {
                    *packets = true;
                    self.path_deadline = None;
                }
                Phase::Live { deadline } => {
                    *deadline = now + self.timeouts.idle;
                    self.path_deadline = None;
                }
                _ => {}
            },
            TransportEvent::FrameDecoded => {
                if let Phase::FirstFrame { .. } = self.phase {
                    self.phase = Phase::Live { deadline: now + self.timeouts.idle };
                }
            }
            TransportEvent::Closed => {
                self.close(now, EndReason::PeerClosed);
                if let Phase::Closing { reason, .. } = self.phase {
                    self.phase = Phase::Closed { reason };
                }
            }
        }
    }

    /// Takes what happens to the socket.
    pub fn handle_signaling(&mut self, now: Instant, event: SignalingEvent) {
        match event {
            SignalingEvent::Attached => self.socket_deadline = None,
            SignalingEvent::Lost if self.draining => self.close(now, EndReason::Draining),
            SignalingEvent::Lost => {
                self.socket_deadline.get_or_insert(now + self.timeouts.resume);
            }
            SignalingEvent::Bye => self.close(now, EndReason::Bye),
            SignalingEvent::Full => self.close(now, EndReason::SocketFull),
        }
    }

    /// The publisher has shown a token that ends at `expiry`, if it does: the session goes on until then at most.
    pub const fn handle_token(&mut self, expiry: Option<Instant>) {
        self.expiry = expiry;
    }

    /// The server drains: the session goes on until `deadline` at most, and ends at once if its socket is lost, since
    /// no other can take it over, or if nobody but the server could end it. The socket tells the peer.
    pub fn handle_drain(&mut self, now: Instant, deadline: Instant) {
        self.draining = true;
        if self.socket_deadline.is_some() || matches!(self.phase, Phase::Camera { .. }) {
            return self.close(now, EndReason::Draining);
        }
        if self.end.is_none_or(|(end, _)| deadline < end) {
            self.end = Some((deadline, EndReason::Draining));
        }
    }

    /// Ends the session, unless it is ending already.
    pub fn close(&mut self, now: Instant, reason: EndReason) {
        if self.phase.is_ending() {
            return;
        }
        self.phase = Phase::Closing { reason, deadline: now + self.timeouts.close };
        if let Some((code, message)) = reason.error() {
            let error = ServerMessage::Error { code, message: message.to_owned(), fatal: true, retry_after_ms: None };
            self.outputs.push_back(Output::Send(error));
        }
        self.outputs.push_back(Output::Send(ServerMessage::Closed { reason: reason.as_str().to_owned() }));
        self.outputs.push_back(Output::Close { reason });
    }

    /// Acts on every deadline that has passed. Calling it early does nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        match self.phase {
            Phase::Closed { .. } => {}
            Phase::Closing { reason, deadline } => {
                if now >= deadline {
                    self.phase = Phase::Closed { reason };
                    self.outputs.push_back(Output::Abandon);
                }
            }
            _ => {
                let due = self.deadlines().filter(|&(deadline, _)| now >= deadline).min_by_key(|&(at, _)| at);
                if let Some((_, reason)) = due {
                    self.close(now, reason);
                }
            }
        }
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to call [`Machine::handle_timeout`] next; `None` only when the session is over or of a camera.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.phase {
            Phase::Closed { .. } => None,
            Phase::Closing { deadline, .. } => Some(deadline),
            _ => self.deadlines().map(|(deadline, _)| deadline).min(),
        }
    }

    /// Deadlines of a session that is not ending, each with the reason for which it then ends.
    fn deadlines(&self) -> impl Iterator<Item = (Instant, EndReason)> {
        let phase = match self.phase {
            Phase::Offer { deadline } => Some((deadline, EndReason::OfferTimeout)),
            Phase::Ice { deadline } => Some((deadline, EndReason::IceTimeout)),
            Phase::Dtls { deadline } => Some((deadline, EndReason::DtlsFailed)),
            Phase::FirstFrame { deadline, packets: false } => Some((deadline, EndReason::NoMedia)),
            Phase::FirstFrame { deadline, packets: true } => Some((deadline, EndReason::DecodeFailed)),
            Phase::Live { deadline } => Some((deadline, EndReason::Idle)),
            Phase::Camera { .. } | Phase::Closing { .. } | Phase::Closed { .. } => None,
        };
        let socket = self.socket_deadline.map(|deadline| (deadline, EndReason::SocketLost));
        let path = self.path_deadline.map(|deadline| (deadline, EndReason::ConnectionLost));
        let token = self.expiry.map(|expiry| (expiry, EndReason::TokenExpired));
        [phase, socket, path, self.end, token].into_iter().flatten()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use proptest::prelude::*;
    use saccade_signaling::ErrorCode;

    use super::TransportEvent::{Closed, Connected, Disconnected, Failed, FrameDecoded, IceConnected, PacketReceived};
    use super::*;

    /// A machine and a clock that only tests move.
    struct Life {
        machine: Machine,
        now: Instant,
    }

    impl Life {
        fn begin(timeouts: Timeouts) -> Self {
            let now = crate::clock::now();
            Self { machine: Machine::new(now, timeouts), now }
        }

        fn through(events: &[TransportEvent]) -> Self {
            let mut life = Self::begin(Timeouts::default());
            life.machine.handle_offer(life.now);
            for &event in events {
                life.transport(event);
            }
            life
        }

        fn live() -> Self {
            Self::through(&[IceConnected, Connected, PacketReceived, FrameDecoded])
        }

        fn transport(&mut self, event: TransportEvent) {
            self.machine.handle_transport(self.now, event);
        }

        fn signaling(&mut self, event: SignalingEvent) {
            self.machine.handle_signaling(self.now, event);
        }

        fn wait(&mut self, seconds: u64) {
            self.now += Duration::from_secs(seconds);
            self.machine.handle_timeout(self.now);
        }

        /// Nothing happens a millisecond before the machine's deadline, which lies `seconds` ahead; then it ends.
        #[track_caller]
        fn ends_after(&mut self, seconds: u64, expected: EndReason) {
            let deadline = self.machine.poll_timeout().unwrap();
            assert_eq!(deadline - self.now, Duration::from_secs(seconds));
            let before = self.machine.phase();
            self.machine.handle_timeout(deadline - Duration::from_millis(1));
            assert_eq!(self.machine.phase(), before);
            self.now = deadline;
            self.machine.handle_timeout(deadline);
            self.is_closing(expected);
        }

        #[track_caller]
        fn is_closing(&mut self, expected: EndReason) {
            assert!(matches!(self.machine.phase(), Phase::Closing { reason, .. } if reason == expected));
            let outputs = self.outputs();
            if let Some((code, _)) = expected.error() {
                let Output::Send(ServerMessage::Error { code: sent, fatal: true, .. }) = &outputs[0] else {
                    panic!("no error in {outputs:?}");
                };
                assert_eq!(*sent, code);
            }
            let closed = ServerMessage::Closed { reason: expected.as_str().to_owned() };
            let end = [Output::Send(closed), Output::Close { reason: expected }];
            assert!(outputs.ends_with(&end), "{outputs:?}");
            assert_eq!(outputs.len(), 2 + usize::from(expected.error().is_some()));
        }

        fn outputs(&mut self) -> Vec<Output> {
            std::iter::from_fn(|| self.machine.poll_output()).collect()
        }
    }

    #[test]
    fn each_phase_has_its_deadline() {
        Life::begin(Timeouts::default()).ends_after(15, EndReason::OfferTimeout);
        Life::through(&[]).ends_after(10, EndReason::IceTimeout);
        Life::through(&[IceConnected]).ends_after(10, EndReason::DtlsFailed);
        Life::through(&[IceConnected, Connected]).ends_after(15, EndReason::NoMedia);
        Life::through(&[IceConnected, Connected, PacketReceived]).ends_after(15, EndReason::DecodeFailed);
        Life::live().ends_after(30, EndReason::Idle);
    }

    #[test]
    fn packets_keep_a_live_session_and_do_not_delay_the_first_frame() {
        let mut life = Life::live();
        for _ in 0..10 {
            life.wait(29);
            life.transport(PacketReceived);
        }
        assert_eq!(life.machine.phase().name(), "live");
        life.ends_after(30, EndReason::Idle);

        let mut life = Life::through(&[IceConnected, Connected]);
        life.wait(14);
        life.transport(PacketReceived);
        life.ends_after(1, EndReason::DecodeFailed);
    }

    #[test]
    fn a_stranger_that_repeats_offers_gains_no_time() {
        let mut life = Life::through(&[]);
        for _ in 0..9 {
            life.wait(1);
            life.machine.handle_offer(life.now);
        }
        life.ends_after(1, EndReason::IceTimeout);
    }

    #[test]
    fn a_lost_socket_leaves_media_on_until_the_resume_time_is_over() {
        let mut life = Life::live();
        life.signaling(SignalingEvent::Lost);
        life.wait(9);
        life.transport(PacketReceived);
        life.signaling(SignalingEvent::Attached);
        life.wait(20);
        assert_eq!(life.machine.phase().name(), "live");
        life.transport(PacketReceived);
        life.signaling(SignalingEvent::Lost);
        life.signaling(SignalingEvent::Lost);
        life.ends_after(10, EndReason::SocketLost);
    }

    #[test]
    fn a_failed_path_may_come_back() {
        let mut life = Life::live();
        life.transport(Disconnected);
        life.transport(Failed);
        life.wait(9);
        life.machine.handle_offer(life.now);
        life.wait(9);
        life.transport(IceConnected);
        life.transport(PacketReceived);
        life.ends_after(30, EndReason::Idle);

        let mut life = Life::live();
        life.transport(Failed);
        life.wait(2);
        life.transport(Failed);
        life.ends_after(8, EndReason::ConnectionLost);
    }

    #[test]
    fn failures_before_media_end_the_session_with_their_code() {
        let mut life = Life::through(&[]);
        life.transport(Failed);
        life.is_closing(EndReason::IceTimeout);
        assert_eq!(EndReason::IceTimeout.error().unwrap().0, ErrorCode::IceTimeout);
        let mut life = Life::through(&[IceConnected]);
        life.transport(Failed);
        life.is_closing(EndReason::DtlsFailed);
    }

    #[test]
    fn goodbye_is_no_error_and_the_transport_has_five_seconds() {
        let mut life = Life::live();
        life.signaling(SignalingEvent::Bye);
        life.is_closing(EndReason::Bye);
        life.wait(4);
        assert_eq!(life.outputs(), []);
        life.wait(1);
        assert_eq!(life.outputs(), [Output::Abandon]);
        assert_eq!(life.machine.phase(), Phase::Closed { reason: EndReason::Bye });
        assert_eq!(life.machine.poll_timeout(), None);
    }

    #[test]
    fn the_transport_that_closes_by_itself_ends_the_session() {
        let mut life = Life::live();
        life.transport(Closed);
        assert_eq!(life.machine.phase(), Phase::Closed { reason: EndReason::PeerClosed });
        let closed = ServerMessage::Closed { reason: "peer_closed".into() };
        assert_eq!(life.outputs(), [Output::Send(closed), Output::Close { reason: EndReason::PeerClosed }]);
    }

    #[test]
    fn only_the_first_reason_to_close_counts() {
        let mut life = Life::live();
        life.machine.close(life.now, EndReason::ModelFailed);
        life.is_closing(EndReason::ModelFailed);
        life.machine.close(life.now, EndReason::Deleted);
        life.signaling(SignalingEvent::Full);
        assert_eq!(life.outputs(), []);
        life.transport(Closed);
        assert_eq!(life.machine.phase(), Phase::Closed { reason: EndReason::ModelFailed });
    }

    #[test]
    fn a_session_ends_at_its_longest_duration_or_with_the_drain() {
        let timeouts = Timeouts { max_duration: Some(Duration::from_secs(20)), ..Timeouts::default() };
        let mut life = Life::begin(timeouts);
        life.machine.handle_offer(life.now);
        for event in [IceConnected, Connected, FrameDecoded] {
            life.transport(event);
        }
        life.machine.handle_drain(life.now, life.now + Duration::from_secs(25));
        life.ends_after(20, EndReason::MaxDuration);

        let mut life = Life::live();
        life.machine.handle_drain(life.now, life.now + Duration::from_secs(25));
        life.ends_after(25, EndReason::Draining);
    }

    #[test]
    fn a_session_ends_with_its_token_unless_another_came_before() {
        let mut life = Life::live();
        let seconds = |life: &Life, seconds| Some(life.now + Duration::from_secs(seconds));
        life.machine.handle_token(seconds(&life, 10));
        life.wait(9);
        assert_eq!(life.machine.phase().name(), "live");
        life.machine.handle_token(seconds(&life, 5));
        life.wait(4);
        life.ends_after(1, EndReason::TokenExpired);

        let mut life = Life::live();
        life.machine.handle_token(seconds(&life, 10));
        life.machine.handle_token(None);
        life.ends_after(30, EndReason::Idle);
    }

    #[test]
    fn while_the_server_drains_a_lost_socket_ends_the_session_at_once() {
        let drain = Duration::from_secs(25);
        let mut life = Life::live();
        life.machine.handle_drain(life.now, life.now + drain);
        life.signaling(SignalingEvent::Lost);
        life.is_closing(EndReason::Draining);

        let mut life = Life::live();
        life.signaling(SignalingEvent::Lost);
        life.machine.handle_drain(life.now, life.now + drain);
        life.is_closing(EndReason::Draining);

        let mut life = Life::live();
        life.signaling(SignalingEvent::Lost);
        life.signaling(SignalingEvent::Attached);
        life.machine.handle_drain(life.now, life.now + drain);
        life.ends_after(25, EndReason::Draining);
    }

    fn any_step() -> impl Strategy<Value = u8> {
        0..14u8
    }

    proptest! {
        /// Whatever happens in whatever order: a session that has not ended has a deadline, it is ordered to close once
        /// and says so once, and when nothing happens any more it ends.
        #[test]
        fn every_life_ends(steps in prop::collection::vec((any_step(), 0..12_000u64), 0..60), longest in any::<bool>()) {
            let max_duration = longest.then(|| Duration::from_secs(60));
            let mut life = Life::begin(Timeouts { max_duration, ..Timeouts::default() });
            let mut outputs = Vec::new();
            for (step, wait) in steps {
                life.now += Duration::from_millis(wait);
                let now = life.now;
                match step {
                    0 => life.machine.handle_offer(now),
                    1 => life.transport(IceConnected),
                    2 => life.transport(Connected),
                    3 => life.transport(Disconnected),
                    4 => life.transport(Failed),
                    5 | 6 => life.transport(PacketReceived),
                    7 | 8 => life.transport(FrameDecoded),
                    9 => life.signaling(SignalingEvent::Attached),
                    10 => life.signaling(SignalingEvent::Lost),
                    11 => life.machine.handle_drain(now, now + Duration::from_secs(30)),
                    12 if wait < 1_000 => life.transport(Closed),
                    13 if wait < 1_000 => life.signaling(SignalingEvent::Bye),
                    _ => life.machine.handle_timeout(now),
                }
                outputs.extend(life.outputs());
                let over = matches!(life.machine.phase(), Phase::Closed { .. });
                prop_assert_eq!(life.machine.poll_timeout().is_none(), over);
            }
            let mut rounds = 0;
            while let Some(deadline) = life.machine.poll_timeout() {
                life.now = life.now.max(deadline);
                life.machine.handle_timeout(life.now);
                outputs.extend(life.outputs());
                rounds += 1;
                prop_assert!(rounds <= 2);
            }
            prop_assert!(matches!(life.machine.phase(), Phase::Closed { .. }), "not closed");
            let position = outputs.iter().position(|output| matches!(output, Output::Close { .. }));
            let position = position.expect("an order to close");
            let said = outputs.iter().filter(|o| matches!(o, Output::Send(ServerMessage::Closed { .. }))).count();
            prop_assert_eq!(said, 1);
            prop_assert!(outputs[position + 1..].iter().all(|output| *output == Output::Abandon));
            prop_assert!(outputs.len() - position <= 2);
        }
    }

    #[test]
    fn a_cameras_session_waits_for_as_long_as_it_takes_and_ends_with_the_server() {
        let now = crate::clock::now();
        let timeouts = Timeouts { max_duration: Some(Duration::from_secs(1)), ..Timeouts::default() };
        let mut life = Life { machine: Machine::of_camera(now, timeouts), now };
        for (event, state) in [(PacketReceived, "connecting"), (Connected, "connected"), (Disconnected, "connecting")] {
            life.transport(event);
            life.wait(100_000);
            assert_eq!((life.machine.phase().state(), life.machine.poll_timeout()), (state, None));
        }
        assert_eq!(life.machine.poll_output(), None);
        life.machine.handle_drain(life.now, life.now + Duration::from_secs(30));
        assert_eq!(
            life.machine.phase(),
            Phase::Closing { reason: EndReason::Draining, deadline: life.now + Duration::from_secs(5) }
        );
    }
}

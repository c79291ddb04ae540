use std::sync::Arc;
use std::time::{Duration, Instant};

use metrics::{Counter, Histogram, counter, histogram};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc};

use super::Packets;
use super::backlog::Backlog;
use crate::clock;
use crate::pipeline::ice::Ice;
use crate::pipeline::setup::{self, Passed, Setup};
use crate::pipeline::stages::Stages;
use crate::rtc::{Error as RtcError, Event, OutgoingPacket, Peer};
use crate::session::machine::TransportEvent;
use crate::session::{EndReason, Patched, SessionId, ViewerCommand, Viewing};

/// Longest time that the transport may take to accept all packets of one frame.
const SEND_LIMIT: Duration = Duration::from_secs(1);
/// How soon a viewer that fell behind may ask for the keyframe it goes on with: everyone pays for that, so one on a path that
/// is too narrow must not ask again and again. It takes what others ask for.
const RECOVERY: Duration = Duration::from_secs(2);
/// How often it is looked whether the other side has closed.
const TICK: Duration = Duration::from_millis(500);

/// The one task that owns a viewer.
pub(super) struct Attendant {
    stages: Arc<Stages>,
    peer: Arc<dyn Peer>,
    ice: Ice,
    life: Viewing,
    inputs: Inputs,
    sequence: u16,
    backlog: Backlog,
    /// Nothing can be shown before a keyframe: at first, and after each frame that was left out.
    waits_for_keyframe: bool,
    /// When it may ask for one.
    may_ask: Instant,
    next_tick: Instant,
    metrics: Metrics,
    /// Until the first frame is sent, if it is traced.
    setup: Option<Box<Setup>>,
}

/// The queues that end here.
pub(super) struct Inputs {
    pub(super) frames: broadcast::Receiver<Arc<Packets>>,
    pub(super) commands: mpsc::Receiver<ViewerCommand>,
    pub(super) events: mpsc::Receiver<Event>,
}

impl Attendant {
    pub(super) fn new(
        stages: Arc<Stages>,
        peer: Arc<dyn Peer>,
        ice: Ice,
        life: Viewing,
        backlog: Backlog,
        inputs: Inputs,
        setup: Option<Box<Setup>>,
    ) -> Self {
        let now = clock::now();
        Self {
            stages,
            peer,
            ice,
            life,
            inputs,
            // A random one to begin with (RFC 3550 section 5.1).
            sequence: u16::from_le_bytes([SessionId::random().as_str().as_bytes()[0], 0x10]),
            backlog,
            waits_for_keyframe: true,
            may_ask: now,
            next_tick: now + TICK,
            metrics: Metrics::new(),
            setup,
        }
    }

    /// Serves the viewer until it leaves, is lost, or the session ends; says why. The caller closes the peer, and drops
    /// the queues last.
    pub(super) async fn run(mut self) -> (EndReason, Inputs) {
        let reason = loop {
            if let Some(reason) = self.life.ended() {
                break reason;
            }
            let deadline = self.life.poll_timeout().map_or(self.next_tick, |deadline| deadline.min(self.next_tick));
            tokio::select! {
                command = self.inputs.commands.recv() => match command {
                    Some(ViewerCommand::Patch { patch, reply }) => {
                        let patched = self.ice.patch(self.peer.as_ref(), &patch).await;
                        if matches!(patched, Ok(Patched::Restarted { .. })) {
                            self.life.handle_restart(clock::now());
                        }
                        let _ = reply.send(patched);
                    }
                    Some(ViewerCommand::Close) => break EndReason::Deleted,
                    None => break EndReason::Internal,
                },
                Some(event) = self.inputs.events.recv() => self.handle_event(&event),
                frame = self.inputs.frames.recv() => match frame {
                    Ok(packets) => self.handle_frame(&packets).await,
                    Err(RecvError::Lagged(frames)) => {
                        self.fall_behind(frames);
                    }
                    Err(RecvError::Closed) => break EndReason::SessionEnded,
                },
                () = tokio::time::sleep_until(deadline.into()) => self.handle_timeout().await,
            }
        };
        (reason, self.inputs)
    }

    fn handle_event(&mut self, event: &Event) {
        let event = match event {
            Event::IceConnected => TransportEvent::IceConnected,
            Event::Connected => TransportEvent::Connected,
            Event::Disconnected => TransportEvent::Disconnected,
            Event::Failed => TransportEvent::Failed,
            Event::Closed => TransportEvent::Closed,
            Event::KeyframeRequested => return self.ask_for_keyframe(clock::now()),
            _ => return,
        };
        match event {
            TransportEvent::IceConnected => setup::passed(&mut self.setup, Passed::IceConnected),
            TransportEvent::Connected => setup::passed(&mut self.setup, Passed::Connected),
            _ => {}
        }
        self.life.handle_transport(clock::now(), event);
    }

    /// Everyone gets the keyframe, and pays for it, so that one viewer gets its way once in a while only.
    fn ask_for_keyframe(&mut self, now: Instant) {
        if now >= self.may_ask {
            self.may_ask = now + RECOVERY;
            self.stages.request_keyframe(now);
        }
    }

    async fn handle_frame(&mut self, packets: &Packets) {
        if !self.life.is_live() {
            self.waits_for_keyframe = true;
            return;
        }
        let (now, bandwidth) = (clock::now(), self.peer.bandwidth());
        if self.waits_for_keyframe && !packets.keyframe {
            // All viewers get each keyframe, so that one is asked for only when it would be taken.
            if now >= self.may_ask && self.backlog.is_clear(now, bandwidth) {
                self.stages.request_keyframe(now);
            }
            return;
        }
        if !self.backlog.takes(now, packets.bytes(), bandwidth) {
            return self.fall_behind(1);
        }
        self.waits_for_keyframe = false;
        match tokio::time::timeout(SEND_LIMIT, self.send(packets)).await.unwrap_or(Err(RtcError::TimedOut)) {
            Ok(()) => {
                self.metrics.sent.increment(1);
                setup::passed(&mut self.setup, Passed::Frame);
            }
            Err(error) => {
                tracing::debug!(%error, "a viewer's frame was not sent");
                self.metrics.unsent.increment(1);
                self.waits_for_keyframe = true;
            }
        }
    }

    /// So many frames are left out, and all that follow until a keyframe comes.
    fn fall_behind(&mut self, frames: u64) {
        self.metrics.behind.increment(frames);
        self.waits_for_keyframe = true;
        self.may_ask = clock::now() + RECOVERY;
    }

    async fn send(&mut self, packets: &Packets) -> Result<(), RtcError> {
        for (index, payload) in packets.payloads.iter().enumerate() {
            let packet = OutgoingPacket {
                sequence: self.sequence,
                time: packets.time,
                marker: payload.marker,
                color: (payload.marker && packets.keyframe).then_some(packets.color),
                payload: payload.data.clone(),
            };
            self.sequence = self.sequence.wrapping_add(1);
            self.peer.send_packet(packet).await?;
            if index == 0 {
                self.metrics.latency.record(clock::now().saturating_duration_since(packets.arrival));
            }
        }
        Ok(())
    }

    async fn handle_timeout(&mut self) {
        let now = clock::now();
        self.life.handle_timeout(now);
        if now < self.next_tick {
            return;
        }
        self.next_tick = now + TICK;
        let closed = self.life.is_live()
            && tokio::time::timeout(SEND_LIMIT, self.peer.remote_closed()).await.unwrap_or_default();
        if closed {
            self.life.handle_transport(now, TransportEvent::Closed);
        }
    }
}

struct Metrics {
    sent: Counter,
    behind: Counter,
    unsent: Counter,
    latency: Histogram,
}

impl Metrics {
    fn new() -> Self {
        let dropped =
            |reason: &'static str| counter!("saccade_frames_dropped_total", "stage" => "viewers", "reason" => reason);
        Self {
            sent: counter!("saccade_frames_total", "stage" => "viewers", "outcome" => "done"),
            behind: dropped("slow_viewer"),
            unsent: dropped("send_failed"),
            latency: histogram!("saccade_frame_latency_seconds", "path" => "viewer"),
        }
    }
}

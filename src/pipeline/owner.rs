use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use metrics::{Counter, Histogram, counter, histogram};
use saccade_signaling as wire;
use saccade_signaling::{ClientMessage, ErrorCode, Options, OptionsPatch, ServerMessage, SessionView};
use tokio::sync::{broadcast, mpsc, watch};

use super::ice::{Ice, from_wire, to_wire};
use super::losses::Losses;
use super::path::{self, PathMetrics};
use super::setup::{self, Passed, Setup};
use super::stages::{Output, Stages};
use super::stats::Stats;
use super::viewers::{Audience, Packets};
use super::{Deps, Models, refusal};
use crate::clock;
use crate::egress::packetize::{Packetizer, Payload};
use crate::encode::RateControl;
use crate::ingest::{self, Ingest};
use crate::media::{EncodedFrame, RtpPacket};
use crate::rtc::{Answer as PeerAnswer, Candidate, Channel, Error as RtcError, Event, OutgoingPacket, Peer};
use crate::session::machine::{self, Machine, SignalingEvent, TransportEvent};
use crate::session::{Allowance, Answer, Claims, Command, Drain, EndReason, Patched, Refusal, SessionId, proto};

/// RTP payload bytes of a packet: fits a path MTU of 1,280 with SRTP, header extensions, UDP and IPv6.
pub(super) const PACKET_PAYLOAD: usize = 1188;
/// Packets taken from the transport in one go.
const PACKET_BURST: usize = 64;
/// Frames a second that the bitrate of returned video is planned for.
pub(super) const NOMINAL_FPS: f64 = 30.0;
/// How often the encoder is told what the path carries, at most: sooner than the next frame. There is no timer for it,
/// since nothing is encoded without a packet that came.
const LOOK: Duration = Duration::from_millis(20);
/// How often what has no event of its own is looked at.
const TICK: Duration = Duration::from_millis(500);
/// How long the client has to open the results channel before the server does.
const RESULTS_CHANNEL_WAIT: Duration = Duration::from_secs(1);
/// Events kept until the client opens their channel.
const PENDING_EVENTS: usize = 64;
/// Longest time that the transport may take to accept a message, a candidate, or all packets of one frame.
const SEND_LIMIT: Duration = Duration::from_secs(1);
/// Longest time that a further offer may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// Candidates that may follow one offer; each is remembered and tried.
const MAX_REMOTE_CANDIDATES: u32 = 256;

/// What the API shows of a session, kept current by its owner.
pub(super) struct Shown {
    /// Id of the session.
    pub(super) id: SessionId,
    /// Whether the video comes from a camera, whose name the id is then.
    pub(super) is_of_camera: bool,
    /// When the offer came.
    pub(super) started: Instant,
    /// Codec of the video.
    pub(super) codec: &'static str,
    /// Options in force.
    pub(super) options: ArcSwap<Options>,
    /// `connecting`, `connected` or `closing`.
    pub(super) state: Mutex<&'static str>,
    /// Counters and times.
    pub(super) stats: Arc<Stats>,
    /// The path to the peer, looked at every [`TICK`].
    pub(super) path: path::Seen,
}

impl Shown {
    /// A snapshot for the API.
    pub(super) fn view(&self) -> SessionView {
        SessionView {
            session_id: self.id.as_str().to_owned(),
            state: (*self.state.lock().unwrap_or_else(PoisonError::into_inner)).to_owned(),
            camera: self.is_of_camera.then(|| self.id.as_str().to_owned()),
            codec: Some(self.codec.to_owned()),
            resolution: self.stats.resolution(),
            age_s: clock::now().duration_since(self.started).as_secs_f64(),
            options: Options::clone(&self.options.load()),
            counters: self.stats.counters(),
            stages: self.stats.stages(),
            viewers: u32::try_from(self.stats.viewers.load(Ordering::Relaxed)).unwrap_or(u32::MAX),
            transport: self.path.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(path::view),
        }
    }
}

/// The one task that owns a session: its peer, its state machine, its packets.
pub(super) struct Owner {
    pub(super) deps: Arc<Deps>,
    pub(super) shown: Arc<Shown>,
    pub(super) peer: Arc<dyn Peer>,
    pub(super) ice: Ice,
    pub(super) stages: Arc<Stages>,
    pub(super) audience: Arc<Audience>,
    pub(super) machine: Machine,
    pub(super) ingest: Ingest,
    pub(super) packetizer: Packetizer,
    pub(super) rate: RateControl,
    pub(super) signals: Option<mpsc::Sender<ServerMessage>>,
    /// Whether the peer speaks of data channels at all.
    pub(super) has_channels: bool,
    /// Whether it is yet to open that of results.
    pub(super) awaits_results_channel: bool,
    pub(super) mid: String,
    pub(super) link: Link,
    /// Who else hears of events.
    pub(super) witnesses: broadcast::Sender<Arc<str>>,
    /// What the publisher's token allows, the last one if there were several.
    pub(super) claims: Claims,
    pub(super) control_allowance: Allowance,
    pub(super) metrics: Metrics,
    pub(super) losses: Losses,
    pub(super) path: PathMetrics,
    /// The trace of its set-up, until that is over.
    pub(super) setup: Option<Box<Setup>>,
}

/// The queues that end at the owner.
pub(super) struct Inputs {
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) events: mpsc::Receiver<Event>,
    pub(super) packets: mpsc::Receiver<RtpPacket>,
    pub(super) outputs: mpsc::Receiver<Output>,
    pub(super) drain: watch::Receiver<Option<Drain>>,
    pub(super) models: watch::Receiver<u64>,
}

/// What the owner remembers of the way out.
pub(super) struct Link {
    sequence: u16,
    next_tick: Instant,
    next_look: Instant,
    connected_at: Option<Instant>,
    results_open: bool,
    events_open: bool,
    /// Events that wait for their channel; the oldest goes when there are too many.
    events: VecDeque<Arc<str>>,
    candidates_ended: bool,
    /// Candidates that the peer has sent since its last offer.
    remote_candidates: u32,
    /// Size of the frames that the peer was last told of.
    resolution: Option<[u32; 2]>,
}

impl Link {
    /// Starts at a random sequence number (RFC 3550 section 5.1).
    pub(super) fn new(now: Instant) -> Self {
        Self {
            sequence: u16::from_le_bytes([SessionId::random().as_str().as_bytes()[0], 0x10]),
            next_tick: now + TICK,
            next_look: now,
            connected_at: None,
            results_open: false,
            events_open: false,
            events: VecDeque::new(),
            candidates_ended: false,
            remote_candidates: 0,
            resolution: None,
        }
    }
}

impl Owner {
    /// Runs the session to its end and says why it ended. The caller closes the peer and the stages, and drops the
    /// queues last: whoever waits for the end of the session watches its commands.
    pub(super) async fn run(mut self, mut inputs: Inputs) -> (EndReason, Inputs) {
        let mut burst = Vec::with_capacity(PACKET_BURST);
        if let Some(drain) = *inputs.drain.borrow_and_update() {
            self.machine.handle_drain(clock::now(), drain.deadline);
        }
        if let Some(reason) = self.pump_machine() {
            return (reason, inputs);
        }
        loop {
            let deadline = [self.machine.poll_timeout(), self.ingest.poll_timeout(), Some(self.link.next_tick)];
            let deadline = deadline.into_iter().flatten().min().unwrap_or(self.link.next_tick);
            tokio::select! {
                command = inputs.commands.recv() => match command {
                    Some(command) => self.handle_command(command).await,
                    None => self.machine.close(clock::now(), EndReason::Internal),
                },
                Some(event) = inputs.events.recv() => self.handle_event(event).await,
                received = inputs.packets.recv_many(&mut burst, PACKET_BURST), if !inputs.packets.is_closed() => {
                    if received > 0 {
                        self.handle_packets(&mut burst);
                    }
                }
                Some(output) = inputs.outputs.recv() => self.handle_output(output).await,
                Ok(()) = inputs.drain.changed() => {
                    if let Some(drain) = *inputs.drain.borrow_and_update() {
                        self.machine.handle_drain(clock::now(), drain.deadline);
                    }
                }
                Ok(()) = inputs.models.changed() => self.follow_models(),
                () = tokio::time::sleep_until(deadline.into()) => self.handle_timeout(clock::now()).await,
            }
            self.follow_path(clock::now());
            self.pump_ingest().await;
            if let Some(reason) = self.pump_machine() {
                self.losses.report(&self.ingest.stats(), self.peer.packets_dropped());
                return (reason, inputs);
            }
        }
    }

    async fn handle_command(&mut self, command: Command) {
        let now = clock::now();
        match command {
            Command::Offer { sdp, options, reply } => {
                let _ = reply.send(self.renegotiate(now, &sdp, options).await);
            }
            Command::Candidate(candidate) => {
                if let Err(refusal) = self.take_candidate(candidate.map(from_wire)).await {
                    self.signal(refusal.to_message(false));
                }
            }
            Command::Patch { patch, reply } => {
                let patched = self.ice.patch(self.peer.as_ref(), &patch).await;
                if matches!(patched, Ok(Patched::Restarted { .. })) {
                    self.machine.handle_offer(clock::now());
                    self.link.candidates_ended = false;
                }
                let _ = reply.send(patched);
            }
            Command::Configure { patch, reply } => {
                let _ = reply.send(self.configure(&patch));
            }
            Command::Attach { signals } => {
                self.signals = Some(signals);
                self.machine.handle_signaling(now, SignalingEvent::Attached);
            }
            Command::Detach => {
                if self.signals.as_ref().is_none_or(mpsc::Sender::is_closed) {
                    self.signals = None;
                    self.machine.handle_signaling(now, SignalingEvent::Lost);
                }
            }
            Command::Authorize { claims } => {
                self.machine.handle_token(claims.expires);
                self.claims = claims;
            }
            Command::Close { reason } => self.machine.close(now, reason),
        }
    }

    async fn take_candidate(&mut self, candidate: Option<Candidate>) -> Result<(), Refusal> {
        self.link.remote_candidates += 1;
        let too_many = self.link.remote_candidates > MAX_REMOTE_CANDIDATES;
        let taken = async {
            if too_many { Err(RtcError::TooManyCandidates) } else { self.peer.add_candidate(candidate).await }
        };
        within(SEND_LIMIT, taken).await.map_err(|error| {
            tracing::debug!(%error, "a remote candidate was not taken");
            if matches!(error, RtcError::TooManyCandidates) {
                self.metrics.candidates_refused.increment(1);
                let message = format!("An offer may be followed by {MAX_REMOTE_CANDIDATES} candidates.");
                return Refusal::new(ErrorCode::TooLarge, message);
            }
            let message = "The candidate cannot be parsed; send RTCIceCandidate.toJSON() as it is.";
            Refusal::new(ErrorCode::BadRequest, message)
        })
    }

    async fn renegotiate(&mut self, now: Instant, sdp: &str, options: Option<OptionsPatch>) -> Result<Answer, Refusal> {
        self.machine.handle_offer(now);
        if let Some(patch) = options {
            self.configure(&patch)?;
        }
        self.link.candidates_ended = false;
        self.link.remote_candidates = 0;
        let answer = within(ANSWER_LIMIT, self.peer.renegotiate(sdp)).await;
        let PeerAnswer { sdp: answer, .. } = answer.map_err(|error| refusal(&error))?;
        self.ice = Ice::new(sdp.to_owned(), &answer);
        Ok(Answer { sdp: answer, options: Options::clone(&self.shown.options.load()) })
    }

    fn configure(&mut self, patch: &OptionsPatch) -> Result<Options, Refusal> {
        let models = Models { deps: &self.deps, claims: &self.claims };
        models.check(patch)?;
        let options = crate::session::options::apply(&models, &self.shown.options.load(), patch)?;
        let kept = (options.model == self.shown.options.load().model).then(|| self.stages.plan());
        self.stages.apply(models.apply(options.clone(), &self.shown.id, kept)?);
        self.shown.options.store(Arc::new(options.clone()));
        Ok(options)
    }

    async fn handle_event(&mut self, event: Event) {
        let now = clock::now();
        match event {
            Event::Candidate(candidate) => self.send_candidate(candidate),
            Event::IceConnected => {
                setup::passed(&mut self.setup, Passed::IceConnected);
                self.machine.handle_transport(now, TransportEvent::IceConnected);
            }
            Event::Connected => {
                setup::passed(&mut self.setup, Passed::Connected);
                if self.link.connected_at.replace(now).is_none() {
                    let (mid, codec) = (self.mid.clone(), self.shown.codec.to_owned());
                    self.send_event(&wire::Event::TrackStarted { mid, codec }).await;
                }
                self.machine.handle_transport(now, TransportEvent::Connected);
            }
            Event::Disconnected => self.machine.handle_transport(now, TransportEvent::Disconnected),
            Event::Failed => self.machine.handle_transport(now, TransportEvent::Failed),
            Event::Closed => self.machine.handle_transport(now, TransportEvent::Closed),
            Event::KeyframeRequested => {
                Stats::count(&self.shown.stats.keyframe_requests_in);
                self.stages.request_keyframe(now);
            }
            Event::ChannelOpen(Channel::Results) => self.link.results_open = true,
            Event::ChannelOpen(Channel::Events) => {
                self.link.events_open = true;
                self.flush_events().await;
            }
            Event::ChannelOpen(Channel::Control) => {}
            Event::Message { channel: Channel::Control, text } => self.handle_control(&text).await,
            Event::Message { .. } | Event::TrackEnded => {}
        }
    }

    async fn handle_control(&mut self, text: &str) {
        let reply = match self.obey(text) {
            Ok(options) => ServerMessage::Configured { options },
            Err(refusal) => refusal.to_message(false),
        };
        if let Ok(json) = serde_json::to_string(&reply)
            && let Err(error) = within(SEND_LIMIT, self.peer.send_text(Channel::Control, &json)).await
        {
            tracing::debug!(%error, "a reply on the control channel was lost");
        }
    }

    fn obey(&mut self, text: &str) -> Result<Options, Refusal> {
        if !self.control_allowance.take(clock::now()) {
            self.metrics.control_refused.increment(1);
            return Err(Refusal::new(ErrorCode::RateLimited, "Too many messages; send fewer."));
        }
        if text.len() > wire::MAX_MESSAGE_BYTES {
            let message = format!("A message may have {} bytes.", wire::MAX_MESSAGE_BYTES);
            return Err(Refusal::new(ErrorCode::TooLarge, message));
        }
        match proto::parse(text).map_err(|bad| bad.refusal)? {
            ClientMessage::Configure { options } if self.claims.can_configure => self.configure(&options),
            ClientMessage::Configure { .. } => Err(Refusal::may_not_configure()),
            _ => Err(Refusal::new(
                ErrorCode::BadRequest,
                "The control channel takes only `configure`; send the rest on the socket.",
            )),
        }
    }

    fn send_candidate(&mut self, candidate: Option<Candidate>) {
        let ended = std::mem::replace(&mut self.link.candidates_ended, candidate.is_none());
        if ended && candidate.is_none() {
            return;
        }
        self.signal(ServerMessage::Candidate { candidate: candidate.map(to_wire) });
    }

    /// Sends to the socket, if there is one; a socket that does not read ends the session.
    pub(super) fn signal(&mut self, message: ServerMessage) {
        let Some(signals) = &self.signals else { return };
        match signals.try_send(message) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => {
                self.signals = None;
                self.machine.handle_signaling(clock::now(), SignalingEvent::Full);
            }
            Err(mpsc::error::TrySendError::Closed(_)) => self.signals = None,
        }
    }

    fn handle_packets(&mut self, burst: &mut Vec<RtpPacket>) {
        let now = clock::now();
        setup::passed(&mut self.setup, Passed::Packet);
        self.machine.handle_transport(now, TransportEvent::PacketReceived);
        self.shown.stats.packets_in.fetch_add(burst.len() as u64, Ordering::Relaxed);
        for packet in burst.drain(..) {
            self.ingest.handle_packet(now, packet);
        }
    }

    async fn pump_ingest(&mut self) {
        while let Some(output) = self.ingest.poll_output() {
            match output {
                ingest::Output::AccessUnit(unit) => {
                    Stats::count(&self.shown.stats.access_units);
                    self.metrics.assembled.increment(1);
                    self.metrics.reorder.record(unit.reorder_wait);
                    if self.stages.push(unit).is_err() {
                        // Never drop one compressed picture and go on: start again at a keyframe.
                        let dropped = self.stages.skip_waiting() as u64 + 1;
                        self.metrics.decoder_behind.increment(dropped);
                        self.ingest.request_keyframe(clock::now());
                    }
                }
                ingest::Output::RequestKeyframe => match within(SEND_LIMIT, self.peer.request_keyframe()).await {
                    Ok(()) => drop(Stats::count(&self.shown.stats.keyframe_requests_out)),
                    Err(error) => tracing::debug!(%error, "a keyframe request was not sent"),
                },
            }
        }
    }

    async fn handle_output(&mut self, output: Output) {
        let now = clock::now();
        match output {
            Output::Decoded => {
                setup::passed(&mut self.setup, Passed::Frame);
                self.machine.handle_transport(now, TransportEvent::FrameDecoded);
                let resolution = self.shown.stats.resolution();
                if std::mem::replace(&mut self.link.resolution, resolution) != resolution
                    && let Some([width, height]) = resolution
                {
                    if let Some(bitrate) = self.rate.handle_format(width, height, NOMINAL_FPS) {
                        self.stages.set_bitrate(bitrate);
                    }
                    self.send_event(&wire::Event::ResolutionChanged { width, height }).await;
                }
            }
            Output::NeedKeyframe => self.look_after_decoder(now),
            Output::Result(json) => {
                setup::passed(&mut self.setup, Passed::Result);
                self.send_result(&json).await;
            }
            Output::Encoded { unit, worked } => self.send_frame(unit, worked).await,
            Output::Events => self.send_events().await,
            Output::Failed => self.look_for_failure(now),
        }
    }

    fn look_after_decoder(&mut self, now: Instant) {
        if self.stages.take_keyframe_need() {
            self.ingest.handle_decode_error(now);
        }
    }

    fn look_for_failure(&mut self, now: Instant) {
        if let Some(reason) = self.stages.failed() {
            self.machine.close(now, reason);
        }
    }

    async fn send_result(&mut self, json: &str) {
        if !self.link.results_open {
            return;
        }
        match within(SEND_LIMIT, self.peer.send_text(Channel::Results, json)).await {
            Ok(()) => self.metrics.results_sent.increment(1),
            Err(RtcError::ChannelFull) => self.metrics.results_full.increment(1),
            Err(error) => {
                tracing::debug!(%error, "the results channel is gone");
                self.link.results_open = false;
            }
        }
    }

    async fn send_events(&mut self) {
        while let Some(event) = self.stages.next_event() {
            self.send_event(&event).await;
        }
    }

    async fn send_event(&mut self, event: &wire::Event) {
        let Ok(json) = serde_json::to_string(event) else { return };
        let json: Arc<str> = json.into();
        // Nobody may be listening.
        let _ = self.witnesses.send(Arc::clone(&json));
        if !self.has_channels {
            return;
        }
        if self.link.events.len() == PENDING_EVENTS {
            self.link.events.pop_front();
            self.metrics.events_dropped.increment(1);
        }
        self.link.events.push_back(json);
        self.flush_events().await;
    }

    async fn flush_events(&mut self) {
        while self.link.events_open
            && let Some(json) = self.link.events.pop_front()
        {
            if let Err(error) = within(SEND_LIMIT, self.peer.send_text(Channel::Events, &json)).await {
                tracing::debug!(%error, "an event was lost");
                self.metrics.events_dropped.increment(1);
            }
        }
    }

    /// `worked`: how long the frame was decoded, drawn on and encoded.
    async fn send_frame(&mut self, unit: EncodedFrame, worked: Duration) {
        let begin = clock::now();
        let payloads: Vec<Payload> = self.packetizer.packetize(&unit.data, unit.keyframe).collect();
        self.rate.handle_encoded(clock::now(), unit.data.len());
        let EncodedFrame { time, keyframe, color, arrival, .. } = unit;
        if !self.audience.is_empty() {
            self.audience.publish(Packets { time, keyframe, color, arrival, payloads: payloads.clone() });
        }
        if !self.stages.gives_back() {
            self.stages.traced().sent(time, begin, Some(clock::now().duration_since(arrival)));
            return;
        }
        let mut first = None;
        let sending = async {
            for (index, Payload { data, marker }) in payloads.into_iter().enumerate() {
                let color = (marker && keyframe).then_some(color);
                let packet = OutgoingPacket { sequence: self.link.sequence, time, marker, color, payload: data };
                self.link.sequence = self.link.sequence.wrapping_add(1);
                self.peer.send_packet(packet).await?;
                if index == 0 {
                    let latency = clock::now().duration_since(arrival);
                    first = Some(latency);
                    self.metrics.video_latency.record(latency);
                    self.shown.stats.record_video(latency, worked);
                }
            }
            Ok::<_, RtcError>(())
        };
        let sent = within(SEND_LIMIT, sending).await;
        self.stages.traced().sent(time, begin, first);
        match sent {
            Ok(()) => {
                Stats::count(&self.shown.stats.returned);
                self.metrics.returned.increment(1);
            }
            Err(error) => {
                tracing::debug!(%error, "a frame was not sent");
                self.metrics.unsent.increment(1);
                self.stages.force_keyframe();
            }
        }
    }

    async fn handle_timeout(&mut self, now: Instant) {
        self.machine.handle_timeout(now);
        self.ingest.handle_timeout(now);
        if now < self.link.next_tick {
            return;
        }
        self.link.next_tick = now + TICK;
        self.losses.report(&self.ingest.stats(), self.peer.packets_dropped());
        self.look_after_decoder(now);
        self.look_for_failure(now);
        self.send_events().await;
        if self.link.connected_at.is_some() && self.remote_closed().await {
            self.machine.handle_transport(now, TransportEvent::Closed);
            return;
        }
        self.look_at_path(now).await;
        let waited = self.link.connected_at.is_some_and(|at| now >= at + RESULTS_CHANNEL_WAIT);
        if waited && self.awaits_results_channel && !self.link.results_open {
            self.awaits_results_channel = false;
            if let Err(error) = within(SEND_LIMIT, self.peer.open_channel(Channel::Results)).await {
                tracing::debug!(%error, "the results channel was not opened");
            }
        }
    }

    /// Has the encoder keep to what the path carries. The publisher's own path decides, unless it takes none of the video.
    fn follow_path(&mut self, now: Instant) {
        if now < self.link.next_look {
            return;
        }
        self.link.next_look = now + LOOK;
        let estimate = if self.stages.gives_back() { self.peer.bandwidth() } else { self.audience.bandwidth(now) };
        let bitrate = match estimate {
            Some(bps) => self.rate.handle_estimate(bps.into()),
            None => self.rate.forget_estimate(),
        };
        if let Some(bitrate) = bitrate {
            self.stages.set_bitrate(bitrate);
        }
        self.stages.set_economy(self.rate.economy(now));
    }

    /// Keeps what the API and the metrics show of the path; a transport that is busy is asked again at the next tick.
    async fn look_at_path(&mut self, now: Instant) {
        if self.link.connected_at.is_some()
            && let Ok(Some(stats)) = tokio::time::timeout(path::LOOK_LIMIT, self.peer.stats(now)).await
        {
            self.path.report(&stats);
            *self.shown.path.lock().unwrap_or_else(PoisonError::into_inner) = Some(stats);
        }
    }

    async fn remote_closed(&self) -> bool {
        let closed = async { Ok(self.peer.remote_closed().await) };
        within(SEND_LIMIT, closed).await.unwrap_or(false)
    }

    fn pump_machine(&mut self) -> Option<EndReason> {
        let mut end = None;
        while let Some(output) = self.machine.poll_output() {
            match output {
                machine::Output::Send(message) => self.signal(message),
                machine::Output::Close { reason } => end = Some(reason),
                machine::Output::Abandon => {}
            }
        }
        *self.shown.state.lock().unwrap_or_else(PoisonError::into_inner) = self.machine.phase().state();
        end
    }
}

/// Metric handles of a session's owner.
pub(super) struct Metrics {
    assembled: Counter,
    returned: Counter,
    results_sent: Counter,
    decoder_behind: Counter,
    results_full: Counter,
    unsent: Counter,
    events_dropped: Counter,
    control_refused: Counter,
    candidates_refused: Counter,
    reorder: Histogram,
    video_latency: Histogram,
}

impl Metrics {
    /// Registers the handles.
    pub(super) fn new() -> Self {
        let done = |stage: &'static str| counter!("saccade_frames_total", "stage" => stage, "outcome" => "done");
        let dropped = |stage: &'static str, reason: &'static str| counter!("saccade_frames_dropped_total", "stage" => stage, "reason" => reason);
        Self {
            assembled: done("ingest"),
            returned: done("egress"),
            results_sent: done("results"),
            decoder_behind: dropped("decode", "queue_full"),
            results_full: dropped("results", "channel_full"),
            unsent: dropped("egress", "send_failed"),
            events_dropped: dropped("events", "queue_full"),
            control_refused: counter!("saccade_messages_refused_total", "channel" => "control", "reason" => "rate_limited"),
            candidates_refused: counter!("saccade_messages_refused_total", "channel" => "socket", "reason" => "too_many_candidates"),
            reorder: histogram!("saccade_stage_duration_seconds", "stage" => "reorder"),
            video_latency: histogram!("saccade_frame_latency_seconds", "path" => "video"),
        }
    }
}

/// The transport's outcome, or [`RtcError::TimedOut`]: a transport that hangs must not hold up the session's own
/// deadlines.
async fn within<T>(limit: Duration, work: impl Future<Output = Result<T, RtcError>>) -> Result<T, RtcError> {
    tokio::time::timeout(limit, work).await.unwrap_or(Err(RtcError::TimedOut))
}

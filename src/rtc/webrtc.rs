//! [`Transport`] on the `webrtc` crate.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use ::webrtc::data_channel::{DataChannel, DataChannelEvent};
use ::webrtc::media_stream::track_local::static_rtp::TrackLocalStaticRTP;
use ::webrtc::media_stream::track_local::{TrackLocal, TrackLocalEvent};
use ::webrtc::media_stream::track_remote::{TrackRemote, TrackRemoteEvent};
use ::webrtc::peer_connection::{
    MediaEngine, PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler, RTCIceCandidateInit,
    RTCIceConnectionState, RTCIceGatheringState, RTCPeerConnectionState, RTCSessionDescription, Registry,
    SettingEngineBuilder, register_default_interceptors,
};
use ::webrtc::rtp_transceiver::RtpSender;
use async_trait::async_trait;
use bytes::Bytes;
use rtc::data_channel::RTCDataChannelInit;
use rtc::ice::mdns::MulticastDnsMode;
use rtc::interceptor::{NackGeneratorBuilder, PacerBuilder, Slot};
use rtc::media_stream::MediaStreamTrack;
use rtc::peer_connection::configuration::interceptor_registry::{CongestionFeedback, configure_congestion_control};
use rtc::peer_connection::configuration::media_engine::{MIME_TYPE_H264, MIME_TYPE_VP8, MIME_TYPE_VP9};
use rtc::peer_connection::transport::{RTCDtlsRole, RTCDtlsTransportState};
use rtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc::rtp_transceiver::RTCRtpTransceiverDirection;
use rtc::rtp_transceiver::rtp_sender::{
    RTCPFeedback, RTCRtpCodec, RTCRtpCodecParameters, RTCRtpCodingParameters, RTCRtpEncodingParameters,
    RTCRtpHeaderExtensionCapability, RtpCodecKind,
};
use rtc::statistics::StatsSelector;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::feedback::{
    DeliverKeyframeRequests, LimitRetransmission, PACING_FACTOR, Path, PublishedEstimate, asks_for_keyframe,
};
use super::mux::{self, Listen, Membership, Mux};
use super::remote::{RemoteCandidates, is_of_use};
use super::reports::{Reported, Reports};
use super::{
    Accepted, Answer, Candidate, Channel, EVENT_QUEUE, Error, Event, OutgoingPacket, PACKET_QUEUE, Peer, PeerConfig,
    Role, Stats, Transport, color_space, declined, offer,
};
use crate::clock;
use crate::media::{Codec, MediaTime, Rotation, RtpPacket};

/// Header extension with the sender's orientation (3GPP TS 26.114, section 7.4.5).
const ORIENTATION_URI: &str = "urn:3gpp:video-orientation";
/// Largest id in the one-byte form of header extensions (RFC 8285, section 4.2), the only one that is sent.
const MAX_ONE_BYTE_ID: u8 = 14;
/// Bits a second that the estimate never falls below.
const MIN_BANDWIDTH: u32 = 100_000;

/// How often missing packets are asked for again. The reorder buffer waits 120 ms, so that a packet gets several tries.
const NACK_INTERVAL: Duration = Duration::from_millis(20);
/// Bits that leave at once: a keyframe of ordinary size. With a smaller burst the pacer would stretch each frame.
const PACER_BURST_BITS: f64 = 800_000.0;

/// Opens peers on the `webrtc` crate, all on one port.
pub struct WebRtc(Arc<Mux>);

impl WebRtc {
    /// Binds the sockets that all peers share, on the present Tokio runtime. They stay until it is dropped.
    ///
    /// # Errors
    /// Whatever keeps an address from being bound, with that address.
    pub fn bind(listen: Listen) -> Result<Self, (SocketAddr, io::Error)> {
        Mux::bind(listen).map(|mux| Self(Arc::new(mux)))
    }

    /// The port that media is taken on, over UDP and TCP.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.0.port()
    }

    /// Whether anybody is let in now: peers that are not closed.
    #[must_use]
    pub fn has_peers(&self) -> bool {
        self.0.has_members()
    }
}

#[async_trait]
impl Transport for WebRtc {
    async fn accept(&self, offer: &str, config: PeerConfig) -> Result<Accepted, Error> {
        let inspected = offer::inspect(offer, config.role, None)?;
        let (event_tx, events) = mpsc::channel(EVENT_QUEUE);
        let (packet_tx, packets) = mpsc::channel(PACKET_QUEUE);
        let shared = Arc::new(Shared {
            codec: inspected.codec,
            events: event_tx,
            packets: packet_tx,
            packets_dropped: AtomicU64::new(0),
            orientation_id: AtomicU32::new(0),
            color_space_id: AtomicU32::new(0),
            remote: OnceLock::new(),
            channels: Mutex::default(),
            tasks: Mutex::new(JoinSet::new()),
            gathered: watch::Sender::new(false),
        });
        let membership = self.0.join();
        let stack = build(&inspected, &config, &shared, &membership, self.0.virtual_addresses());
        let Built { connection, path, reported } = Box::pin(stack).await?;
        let peer = WebRtcPeer {
            connection,
            track: local_track(&inspected),
            sender: tokio::sync::Mutex::new(None),
            payload_type: AtomicU32::new(u32::from(inspected.payload_type)),
            role: config.role,
            returns_video: inspected.returns_video,
            mid: inspected.mid.clone(),
            offered: Mutex::default(),
            path,
            start_bandwidth: config.start_bandwidth,
            reported,
            membership,
            mux: Arc::clone(&self.0),
            remote_candidates: Mutex::default(),
            shared,
        };
        match peer.answer(offer, &inspected).await {
            Ok(answer) => Ok(Accepted { peer: Arc::new(peer), answer, events, packets }),
            Err(error) => {
                peer.close().await;
                Err(error)
            }
        }
    }
}

struct WebRtcPeer {
    connection: Arc<dyn PeerConnection>,
    track: Arc<TrackLocalStaticRTP>,
    sender: tokio::sync::Mutex<Option<Arc<dyn RtpSender>>>,
    payload_type: AtomicU32,
    role: Role,
    returns_video: bool,
    /// Tag of the session's video.
    mid: String,
    /// The last offer, and what became of its media sections.
    offered: Mutex<(String, offer::Sections)>,
    path: Arc<Path>,
    /// Bits a second assumed of it before anything is measured.
    start_bandwidth: u32,
    reported: Arc<Mutex<Reported>>,
    membership: Membership,
    mux: Arc<Mux>,
    remote_candidates: Mutex<RemoteCandidates>,
    shared: Arc<Shared>,
}

impl WebRtcPeer {
    async fn answer(&self, offer: &str, inspected: &offer::Inspected) -> Result<Answer, Error> {
        let mut sender = self.sender.lock().await;
        if sender.is_none() && self.returns_video {
            let track: Arc<dyn TrackLocal> = self.track.clone();
            *sender = Some(self.connection.add_track(track).await.map_err(stack)?);
            self.forward_keyframe_requests();
        }
        let reduced = self.named().filter(&declined::reduce(offer, &inspected.sections));
        let description = RTCSessionDescription::offer(reduced.clone()).map_err(|_| offer::Rejected::BadSdp)?;
        self.connection.set_remote_description(description).await.map_err(|error| {
            tracing::debug!(%error, "the stack refused an offer");
            Error::from(offer::Rejected::BadSdp)
        })?;
        if matches!(self.role, Role::Viewer(_)) {
            self.send_only().await?;
        }
        let answer = self.connection.create_answer(None).await.map_err(stack)?;
        let sdp = answer.sdp.clone();
        *self.offered.lock().unwrap_or_else(PoisonError::into_inner) = (offer.to_owned(), inspected.sections.clone());
        self.shared.gathered.send_replace(false);
        self.membership.admit(&sdp, &reduced);
        self.connection.set_local_description(answer).await.map_err(stack)?;
        let ids = [(&self.shared.orientation_id, ORIENTATION_URI), (&self.shared.color_space_id, color_space::URI)];
        for (id, uri) in ids {
            id.store(u32::from(extension_id(&sdp, uri).unwrap_or(0)), Ordering::Relaxed);
        }
        if let Some(sender) = sender.as_ref() {
            let parameters = sender.get_parameters().await.map_err(stack)?;
            let mime = mime_type(inspected.codec);
            let negotiated =
                parameters.rtp_parameters.codecs.iter().find(|c| c.rtp_codec.mime_type.eq_ignore_ascii_case(mime));
            if let Some(negotiated) = negotiated {
                self.payload_type.store(u32::from(negotiated.payload_type), Ordering::Relaxed);
            }
        }
        Ok(Answer {
            sdp: self.whole(&sdp),
            codec: inspected.codec,
            returns_video: self.returns_video,
            data_channels: inspected.data_channels,
            mid: inspected.mid.clone(),
        })
    }

    /// Takes nothing where the other side would send, too.
    async fn send_only(&self) -> Result<(), Error> {
        for transceiver in self.connection.get_transceivers().await {
            if transceiver.mid().await.map_err(stack)?.as_deref() == Some(&self.mid) {
                transceiver.set_direction(RTCRtpTransceiverDirection::Sendonly).await.map_err(stack)?;
            }
        }
        Ok(())
    }

    fn named(&self) -> MutexGuard<'_, RemoteCandidates> {
        self.remote_candidates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The stack's answer as the other side gets it.
    fn whole(&self, answer: &str) -> String {
        let offered = self.offered.lock().unwrap_or_else(PoisonError::into_inner);
        let (offer, sections) = &*offered;
        declined::restore(&mux::insert_candidates(answer, &self.mux.candidates()), offer, sections)
    }

    fn forward_keyframe_requests(&self) {
        let (track, shared) = (Arc::clone(&self.track), Arc::clone(&self.shared));
        self.shared.spawn(async move {
            while let Some(event) = track.poll().await {
                if let TrackLocalEvent::OnRtcpPacket(packets) = event
                    && asks_for_keyframe(&packets)
                {
                    shared.emit(Event::KeyframeRequested);
                }
            }
        });
    }
}

#[async_trait]
impl Peer for WebRtcPeer {
    async fn renegotiate(&self, offer: &str) -> Result<Answer, Error> {
        let inspected = offer::inspect(offer, self.role, Some(&self.mid))?;
        if inspected.codec != self.shared.codec {
            return Err(offer::Rejected::NoCommonCodec.into());
        }
        self.answer(offer, &inspected).await
    }

    async fn complete_answer(&self) -> Result<String, Error> {
        let mut gathered = self.shared.gathered.subscribe();
        gathered.wait_for(|done| *done).await.map_err(|_| closed())?;
        let description = self.connection.local_description().await.ok_or_else(closed)?;
        Ok(self.whole(&description.sdp))
    }

    async fn add_candidate(&self, candidate: Option<Candidate>) -> Result<(), Error> {
        let candidate = candidate.unwrap_or_default();
        if !is_of_use(&candidate.candidate) {
            return Ok(());
        }
        if !candidate.candidate.is_empty() && !self.named().take() {
            return Err(Error::TooManyCandidates);
        }
        self.connection
            .add_ice_candidate(RTCIceCandidateInit {
                candidate: candidate.candidate,
                sdp_mid: candidate.sdp_mid,
                sdp_mline_index: candidate.sdp_m_line_index,
                username_fragment: candidate.username_fragment,
                ..Default::default()
            })
            .await
            .map_err(|_| Error::Candidate)
    }

    async fn send_packet(&self, packet: OutgoingPacket) -> Result<(), Error> {
        let payload_type = self.payload_type.load(Ordering::Relaxed);
        let mut header = rtc::rtp::Header {
            version: 2,
            marker: packet.marker,
            payload_type: u8::try_from(payload_type).unwrap_or_default(),
            sequence_number: packet.sequence,
            timestamp: packet.time.0,
            ssrc: LOCAL_SSRC,
            ..Default::default()
        };
        let color_space_id = negotiated(&self.shared.color_space_id).filter(|id| *id <= MAX_ONE_BYTE_ID);
        if let (Some(id), Some(color)) = (color_space_id, packet.color) {
            let announcement = Bytes::copy_from_slice(&color_space::write(color));
            header.set_extension(id, announcement).map_err(stack)?;
        }
        let bytes = packet.payload.len() + RTP_HEADER;
        self.track.write_rtp(rtc::rtp::Packet { header, payload: packet.payload }).await.map_err(stack)?;
        let mut flight = self.path.flight();
        flight.handle_sent(clock::now(), packet.sequence, bytes);
        if packet.marker {
            // Colours are announced in keyframes.
            flight.handle_end_of_frame(packet.color.is_some());
        }
        Ok(())
    }

    async fn request_keyframe(&self) -> Result<(), Error> {
        let Some(remote) = self.shared.remote.get() else { return Ok(()) };
        let request =
            PictureLossIndication { sender_ssrc: LOCAL_SSRC, media_ssrc: remote.ssrc.load(Ordering::Relaxed) };
        remote.track.write_rtcp(vec![Box::new(request)]).await.map_err(stack)
    }

    async fn send_text(&self, channel: Channel, text: &str) -> Result<(), Error> {
        let open = self.shared.channel(channel).ok_or(Error::NoChannel)?;
        // SCTP fills whatever buffers there are before it slows down: results would wait for seconds, and so would the
        // video behind them.
        if channel == Channel::Results
            && let Some(most) = self.path.results_under_way()
            && open.outstanding_bytes().await.map_err(stack)? >= most
        {
            return Err(Error::ChannelFull);
        }
        open.try_send_text(text).await.map_err(|error| match error {
            rtc::shared::error::Error::ErrSendBufferFull => Error::ChannelFull,
            _ => Error::NoChannel,
        })
    }

    async fn open_channel(&self, channel: Channel) -> Result<(), Error> {
        let options = RTCDataChannelInit {
            ordered: channel != Channel::Results,
            max_retransmits: (channel == Channel::Results).then_some(0),
            ..Default::default()
        };
        let opened = self.connection.create_data_channel(channel.label(), Some(options)).await.map_err(stack)?;
        self.shared.serve_channel(channel, opened);
        Ok(())
    }

    async fn remote_closed(&self) -> bool {
        let mut transport = None;
        for receiver in self.connection.get_receivers().await {
            transport = transport.or(receiver.transport().await.ok().flatten());
        }
        if let (None, Some(sender)) = (&transport, self.sender.lock().await.as_ref()) {
            transport = sender.transport().await.ok().flatten();
        }
        match transport {
            Some(transport) => matches!(transport.state().await, Ok(RTCDtlsTransportState::Closed)),
            None => false,
        }
    }

    fn bandwidth(&self) -> Option<u32> {
        self.path.bandwidth()
    }

    fn has_room(&self, now: Instant) -> bool {
        self.path.flight().has_room(now)
    }

    async fn stats(&self, now: Instant) -> Option<Stats> {
        let report = self.connection.get_stats(now, StatsSelector::None).await;
        let reported = *self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        let bandwidth = self.bandwidth().unwrap_or(self.start_bandwidth);
        Stats::read(&report, &reported, bandwidth, self.returns_video, self.membership.sends_over_tcp())
    }

    fn packets_dropped(&self) -> u64 {
        self.shared.packets_dropped.load(Ordering::Relaxed)
    }

    async fn close(&self) {
        if let Err(error) = self.connection.close().await {
            tracing::warn!(%error, "a peer connection did not close cleanly");
        }
        self.membership.leave();
        self.shared.channels.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let mut tasks = std::mem::take(&mut *self.shared.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        tasks.shutdown().await;
    }
}

/// Bytes of an RTP packet beside its payload: the header (RFC 3550 section 5.1) and one extension.
const RTP_HEADER: usize = 20;
/// SSRC of the returned video; one stream a connection, so it need not differ between connections.
const LOCAL_SSRC: u32 = 0x5ACC_ADE1;

/// What the stack's callbacks and the peer's tasks have in common.
struct Shared {
    codec: Codec,
    events: mpsc::Sender<Event>,
    packets: mpsc::Sender<RtpPacket>,
    packets_dropped: AtomicU64,
    orientation_id: AtomicU32,
    color_space_id: AtomicU32,
    remote: OnceLock<Remote>,
    channels: Mutex<Vec<(Channel, Arc<dyn DataChannel>)>>,
    tasks: Mutex<JoinSet<()>>,
    gathered: watch::Sender<bool>,
}

struct Remote {
    track: Arc<dyn TrackRemote>,
    ssrc: AtomicU32,
}

impl Shared {
    /// Tells the session; one that does not listen has ended, or hangs and is ended by its own deadline.
    fn emit(&self, event: Event) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.events.try_send(event) {
            tracing::debug!("a session does not take its events");
        }
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    fn channel(&self, wanted: Channel) -> Option<Arc<dyn DataChannel>> {
        let channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        channels.iter().find(|(channel, _)| *channel == wanted).map(|(_, open)| Arc::clone(open))
    }

    fn serve_channel(self: &Arc<Self>, channel: Channel, opened: Arc<dyn DataChannel>) {
        let shared = Arc::clone(self);
        self.spawn(async move {
            while let Some(event) = opened.poll().await {
                match event {
                    DataChannelEvent::OnOpen => {
                        let mut channels = shared.channels.lock().unwrap_or_else(PoisonError::into_inner);
                        channels.retain(|(other, _)| *other != channel);
                        channels.push((channel, Arc::clone(&opened)));
                        drop(channels);
                        shared.emit(Event::ChannelOpen(channel));
                    }
                    // Clients have nothing to say on the others.
                    DataChannelEvent::OnMessage(message) if message.is_string && channel == Channel::Control => {
                        if let Ok(text) = String::from_utf8(message.data.to_vec()) {
                            shared.emit(Event::Message { channel, text });
                        }
                    }
                    DataChannelEvent::OnClose => break,
                    _ => {}
                }
            }
            let mut channels = shared.channels.lock().unwrap_or_else(PoisonError::into_inner);
            channels.retain(|(_, other)| !Arc::ptr_eq(other, &opened));
        });
    }

    async fn read_track(self: Arc<Self>, track: Arc<dyn TrackRemote>) {
        let mut main_ssrc = None;
        while let Some(event) = track.poll().await {
            match event {
                TrackRemoteEvent::OnRtpPacket(packet) => {
                    let header = &packet.header;
                    if *main_ssrc.get_or_insert(header.ssrc) != header.ssrc {
                        continue;
                    }
                    if let Some(remote) = self.remote.get() {
                        remote.ssrc.store(header.ssrc, Ordering::Relaxed);
                    }
                    let extension = |id| negotiated(id).and_then(|id| header.get_extension(id));
                    let orientation = extension(&self.orientation_id);
                    let packet = RtpPacket {
                        sequence: header.sequence_number,
                        time: MediaTime(header.timestamp),
                        marker: header.marker,
                        rotation: orientation.and_then(|bytes| bytes.first().copied()).map(Rotation::from_cvo),
                        color: extension(&self.color_space_id).and_then(|bytes| color_space::parse(&bytes)),
                        arrival: clock::now(),
                        payload: packet.payload,
                    };
                    if self.packets.try_send(packet).is_err() {
                        self.packets_dropped.fetch_add(1, Ordering::Relaxed);
                    }
                }
                TrackRemoteEvent::OnEnded => break,
                _ => {}
            }
        }
        self.emit(Event::TrackEnded);
    }
}

/// The stack's callbacks. They run on its driver and must not wait.
struct Handler(Arc<Shared>);

#[async_trait]
impl PeerConnectionEventHandler for Handler {
    async fn on_ice_gathering_state_change(&self, state: RTCIceGatheringState) {
        if state == RTCIceGatheringState::Complete {
            self.0.gathered.send_replace(true);
            self.0.emit(Event::Candidate(None));
        }
    }

    async fn on_ice_connection_state_change(&self, state: RTCIceConnectionState) {
        if matches!(state, RTCIceConnectionState::Connected | RTCIceConnectionState::Completed) {
            self.0.emit(Event::IceConnected);
        }
    }

    async fn on_connection_state_change(&self, state: RTCPeerConnectionState) {
        match state {
            RTCPeerConnectionState::Connected => self.0.emit(Event::Connected),
            RTCPeerConnectionState::Disconnected => self.0.emit(Event::Disconnected),
            RTCPeerConnectionState::Failed => self.0.emit(Event::Failed),
            RTCPeerConnectionState::Closed => self.0.emit(Event::Closed),
            _ => {}
        }
    }

    async fn on_data_channel(&self, opened: Arc<dyn DataChannel>) {
        if let Some(channel) = opened.label().await.ok().as_deref().and_then(Channel::from_label) {
            self.0.serve_channel(channel, opened);
        }
    }

    async fn on_track(&self, track: Arc<dyn TrackRemote>) {
        if track.kind().await != RtpCodecKind::Video {
            return;
        }
        let ssrc = track.ssrcs().await.first().copied().unwrap_or_default();
        let remote = Remote { track: Arc::clone(&track), ssrc: AtomicU32::new(ssrc) };
        if self.0.remote.set(remote).is_ok() {
            self.0.spawn(Arc::clone(&self.0).read_track(track));
        }
    }
}

/// A connection, and what its interceptors publish.
struct Built {
    connection: Arc<dyn PeerConnection>,
    path: Arc<Path>,
    reported: Arc<Mutex<Reported>>,
}

async fn build(
    inspected: &offer::Inspected,
    config: &PeerConfig,
    shared: &Arc<Shared>,
    membership: &Membership,
    addresses: Vec<SocketAddr>,
) -> Result<Built, Error> {
    let mut media = MediaEngine::default();
    let codec = RTCRtpCodecParameters { rtp_codec: rtp_codec(inspected), payload_type: inspected.payload_type };
    media.register_codec(codec, RtpCodecKind::Video).map_err(stack)?;
    for uri in [ORIENTATION_URI, color_space::URI] {
        let extension = RTCRtpHeaderExtensionCapability { uri: uri.to_owned() };
        media.register_header_extension(extension, RtpCodecKind::Video, None).map_err(stack)?;
    }
    let (estimator, path) =
        PublishedEstimate::new(config.start_bandwidth, MIN_BANDWIDTH.min(config.max_bandwidth), config.max_bandwidth);
    // Only reports change this rate: where none ever comes, packets must not wait for what the stack takes for a rate.
    let unmeasured = f64::from(config.max_bandwidth) * PACING_FACTOR;
    let pacer = PacerBuilder::new().with_target_bitrate(unmeasured).with_burst_bits(PACER_BURST_BITS);
    let limit = LimitRetransmission::new(Arc::clone(&path), LOCAL_SSRC);
    let (reports, reported) = Reports::new(LOCAL_SSRC);
    let registry = configure_congestion_control(Registry::new(), estimator, CongestionFeedback::Twcc, &mut media)
        .map_err(stack)?;
    let registry = register_default_interceptors(registry, &mut media)
        .map_err(stack)?
        .with(Slot::NackGenerator, NackGeneratorBuilder::new().with_interval(NACK_INTERVAL).build())
        .with(Slot::Pacer, pacer.build())
        .with(LimitRetransmission::slot(), limit)
        .with(Reports::slot(), reports)
        .with(DeliverKeyframeRequests::slot(), DeliverKeyframeRequests::default());
    // Without multicast DNS: names that hide addresses need not be looked up, since whoever has them makes checks, too.
    // The stack itself takes the client's role whatever the offer says (RFC 8842 section 5.3).
    let role = match inspected.is_dtls_client {
        Some(true) => RTCDtlsRole::Server,
        Some(false) => RTCDtlsRole::Client,
        None => RTCDtlsRole::Unspecified,
    };
    let settings = SettingEngineBuilder::new()
        .with_answering_dtls_role(role)
        .with_include_loopback_candidate(true)
        .with_multicast_dns_mode(MulticastDnsMode::Disabled)
        .with_lite(config.ice_lite)
        .build();
    let builder = PeerConnectionBuilder::new()
        .with_media_engine(media)
        .with_interceptor_registry(registry)
        .with_setting_engine(settings)
        .with_handler(Arc::new(Handler(Arc::clone(shared))))
        .with_runtime(membership.runtime())
        .with_udp_addrs(addresses)
        .with_data_channel_send_buffer_limit(config.channel_buffer);
    let connection = Box::pin(builder.build()).await.map_err(stack)?;
    Ok(Built { connection: Arc::new(connection), path, reported })
}

fn local_track(inspected: &offer::Inspected) -> Arc<TrackLocalStaticRTP> {
    let encoding = RTCRtpEncodingParameters {
        rtp_coding_parameters: RTCRtpCodingParameters { ssrc: Some(LOCAL_SSRC), ..Default::default() },
        codec: rtp_codec(inspected),
        ..Default::default()
    };
    Arc::new(TrackLocalStaticRTP::new(MediaStreamTrack::new(
        "saccade".into(),
        "annotated".into(),
        "annotated".into(),
        RtpCodecKind::Video,
        vec![encoding],
    )))
}

fn rtp_codec(inspected: &offer::Inspected) -> RTCRtpCodec {
    let feedback = |typ: &str, parameter: &str| RTCPFeedback { typ: typ.to_owned(), parameter: parameter.to_owned() };
    RTCRtpCodec {
        mime_type: mime_type(inspected.codec).to_owned(),
        clock_rate: MediaTime::CLOCK_RATE,
        channels: 0,
        sdp_fmtp_line: inspected.fmtp.clone(),
        rtcp_feedback: vec![feedback("ccm", "fir"), feedback("nack", ""), feedback("nack", "pli")],
    }
}

const fn mime_type(codec: Codec) -> &'static str {
    match codec {
        Codec::H264 => MIME_TYPE_H264,
        Codec::Vp8 => MIME_TYPE_VP8,
        Codec::Vp9 => MIME_TYPE_VP9,
    }
}

/// Id that an answer gives to a header extension (RFC 8285 section 5).
fn extension_id(sdp: &str, uri: &str) -> Option<u8> {
    sdp.lines().find_map(|line| {
        let (id, rest) = line.strip_prefix("a=extmap:")?.split_once(' ')?;
        (rest.split(' ').next() == Some(uri)).then(|| id.split('/').next()?.parse().ok())?
    })
}

/// The id of a header extension, unless it is 0 for one that was not negotiated.
fn negotiated(id: &AtomicU32) -> Option<u8> {
    u8::try_from(id.load(Ordering::Relaxed)).ok().filter(|id| *id != 0)
}

fn stack(error: impl std::fmt::Display) -> Error {
    Error::Stack(error.to_string())
}

fn closed() -> Error {
    Error::Stack("the peer is closed".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extension_ids_are_read_from_the_answer() {
        let sdp = "v=0\r\na=extmap:3/recvonly urn:3gpp:video-orientation\r\na=extmap:4 urn:x\r\n";
        assert_eq!(extension_id(sdp, ORIENTATION_URI), Some(3));
        assert_eq!(extension_id(sdp, "urn:y"), None);
    }
}

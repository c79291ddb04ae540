//! A WebRTC client over the `saccade.v1` WebSocket: publishes pre-encoded video, collects results and returned frames.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use rtc::data_channel::RTCDataChannelInit;
use rtc::media_stream::MediaStreamTrack;
use rtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc::rtp_transceiver::rtp_sender::{
    RTCPFeedback, RTCRtpCodec, RTCRtpCodecParameters, RTCRtpCodingParameters, RTCRtpEncodingParameters,
    RTCRtpHeaderExtensionCapability, RtpCodecKind,
};
use saccade::media::{Codec, MediaTime, RtpPacket};
use saccade_signaling::{
    ClientMessage, IceCandidate, Options, OptionsPatch, SUBPROTOCOL, ServerMessage, SessionResult,
};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use webrtc::data_channel::{DataChannel, DataChannelEvent};
use webrtc::media_stream::track_local::TrackLocal;
use webrtc::media_stream::track_local::static_rtp::TrackLocalStaticRTP;
use webrtc::media_stream::track_remote::{TrackRemote, TrackRemoteEvent};
use webrtc::peer_connection::{
    MediaEngine, PeerConnection, PeerConnectionBuilder, PeerConnectionEventHandler, RTCIceCandidateInit,
    RTCIceGatheringState, RTCPeerConnectionState, RTCSessionDescription, Registry, SettingEngineBuilder,
    register_default_interceptors,
};
use webrtc::rtp_transceiver::RtpSender;

/// Longest wait for anything in a test.
pub const LIMIT: Duration = Duration::from_secs(20);

const COLOR_SPACE_URI: &str = "http://www.webrtc.org/experiments/rtp-hdrext/color-space";
const SSRC: u32 = 0xC11E_0001;

/// The signaling socket.
pub struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Socket {
    pub async fn connect(server: SocketAddr) -> Self {
        let mut request = format!("ws://{server}/v1/signal").into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", SUBPROTOCOL.parse().unwrap());
        let (socket, _) = tokio_tungstenite::connect_async(request).await.unwrap();
        Self(socket)
    }

    pub async fn send(&mut self, message: &ClientMessage) {
        self.send_raw(Message::text(serde_json::to_string(message).unwrap())).await;
    }

    /// Offers a session with these options, or to resume the one of this id.
    pub async fn offer(&mut self, sdp: String, options: Option<OptionsPatch>, session_id: Option<String>) {
        self.send(&ClientMessage::Offer { sdp, options, session_id, traceparent: None, tracestate: None }).await;
    }

    pub async fn send_raw(&mut self, message: Message) {
        self.0.send(message).await.unwrap();
    }

    /// The next frame of any kind but ping and pong; `None` when the socket has ended.
    pub async fn next_raw(&mut self) -> Option<Message> {
        loop {
            match timeout(LIMIT, self.0.next()).await.expect("a message in time") {
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(message)) => return Some(message),
                Some(Err(_)) | None => return None,
            }
        }
    }

    /// Answers the server's pings, and drops what it says, until the future is dropped.
    pub async fn stay(&mut self) -> Infallible {
        while let Some(Ok(_)) = self.0.next().await {}
        pending().await
    }

    /// The next message of the protocol.
    pub async fn next(&mut self) -> ServerMessage {
        match self.next_raw().await {
            Some(Message::Text(text)) => serde_json::from_str(&text).unwrap(),
            other => panic!("expected a message, got {other:?}"),
        }
    }

    /// The first message that `wanted` takes; others are skipped.
    pub async fn find<T>(&mut self, mut wanted: impl FnMut(ServerMessage) -> Option<T>) -> T {
        loop {
            if let Some(found) = wanted(self.next().await) {
                return found;
            }
        }
    }

    /// The code with which the server closes the socket; messages before it are skipped.
    pub async fn close_code(&mut self) -> u16 {
        loop {
            match self.next_raw().await {
                Some(Message::Close(Some(frame))) => return frame.code.into(),
                Some(Message::Close(None)) => return 1005,
                Some(_) => {}
                None => return 1006,
            }
        }
    }
}

/// The WebRTC side of a client.
pub struct Peer {
    pub connection: Arc<dyn PeerConnection>,
    pub results: mpsc::Receiver<SessionResult>,
    pub packets: mpsc::Receiver<RtpPacket>,
    pub events: mpsc::Receiver<saccade_signaling::Event>,
    control: Arc<dyn DataChannel>,
    pub control_replies: mpsc::Receiver<ServerMessage>,
    control_open: watch::Receiver<bool>,
    /// Header extension to put into the last packet of every frame.
    pub color_space: Option<[u8; 4]>,
    /// The same of each returned packet that ends a frame, with the frame's time.
    pub returned_color_spaces: Arc<std::sync::Mutex<HashMap<u32, Option<bytes::Bytes>>>>,
    color_space_id: u8,
    track: Arc<TrackLocalStaticRTP>,
    sender: Arc<dyn RtpSender>,
    state: watch::Receiver<RTCPeerConnectionState>,
    gathered: watch::Receiver<bool>,
    remote: Arc<std::sync::OnceLock<Arc<dyn TrackRemote>>>,
    payload_type: u8,
    sequence: u16,
}

struct Handler {
    state: watch::Sender<RTCPeerConnectionState>,
    gathered: watch::Sender<bool>,
    packets: mpsc::Sender<RtpPacket>,
    remote: Arc<std::sync::OnceLock<Arc<dyn TrackRemote>>>,
    color_spaces: Arc<std::sync::Mutex<HashMap<u32, Option<bytes::Bytes>>>>,
}

#[async_trait::async_trait]
impl PeerConnectionEventHandler for Handler {
    async fn on_connection_state_change(&self, state: RTCPeerConnectionState) {
        self.state.send_replace(state);
    }

    async fn on_ice_gathering_state_change(&self, state: RTCIceGatheringState) {
        if state == RTCIceGatheringState::Complete {
            self.gathered.send_replace(true);
        }
    }

    async fn on_track(&self, track: Arc<dyn TrackRemote>) {
        let (packets, color_spaces) = (self.packets.clone(), Arc::clone(&self.color_spaces));
        let _ = self.remote.set(Arc::clone(&track));
        tokio::spawn(async move {
            while let Some(event) = track.poll().await {
                if let TrackRemoteEvent::OnRtpPacket(packet) = event {
                    let header = &packet.header;
                    let color_space = header.extensions.iter().find(|extension| extension.payload.len() == 4);
                    if header.marker || color_space.is_some() {
                        let color_space = color_space.map(|extension| extension.payload.clone());
                        color_spaces.lock().unwrap().insert(header.timestamp, color_space);
                    }
                    let packet = RtpPacket {
                        sequence: packet.header.sequence_number,
                        time: MediaTime(packet.header.timestamp),
                        marker: packet.header.marker,
                        rotation: None,
                        color: None,
                        arrival: saccade::clock::now(),
                        payload: packet.payload,
                    };
                    let _ = packets.try_send(packet);
                }
            }
        });
    }
}

impl Peer {
    pub async fn new(codec: Codec) -> Self {
        let (state_tx, state) = watch::channel(RTCPeerConnectionState::New);
        let (gathered_tx, gathered) = watch::channel(false);
        let (packet_tx, packets) = mpsc::channel(4096);
        let (remote, returned_color_spaces) = (Arc::default(), Arc::default());
        let handler = Handler {
            state: state_tx,
            gathered: gathered_tx,
            packets: packet_tx,
            remote: Arc::clone(&remote),
            color_spaces: Arc::clone(&returned_color_spaces),
        };
        let mut media = MediaEngine::default();
        let codec_parameters = RTCRtpCodecParameters { rtp_codec: rtp_codec(codec), payload_type: 109 };
        media.register_codec(codec_parameters, RtpCodecKind::Video).unwrap();
        let color_space = RTCRtpHeaderExtensionCapability { uri: COLOR_SPACE_URI.to_owned() };
        media.register_header_extension(color_space, RtpCodecKind::Video, None).unwrap();
        let registry = register_default_interceptors(Registry::new(), &mut media).unwrap();
        let connection = PeerConnectionBuilder::new()
            .with_media_engine(media)
            .with_interceptor_registry(registry)
            .with_setting_engine(SettingEngineBuilder::new().with_include_loopback_candidate(true).build())
            .with_handler(Arc::new(handler))
            .with_udp_addrs(vec!["127.0.0.1:0".to_owned()])
            .build()
            .await
            .unwrap();
        let connection: Arc<dyn PeerConnection> = Arc::new(connection);
        let track = Arc::new(TrackLocalStaticRTP::new(MediaStreamTrack::new(
            "camera".into(),
            "video".into(),
            "camera".into(),
            RtpCodecKind::Video,
            vec![RTCRtpEncodingParameters {
                rtp_coding_parameters: RTCRtpCodingParameters { ssrc: Some(SSRC), ..Default::default() },
                codec: rtp_codec(codec),
                ..Default::default()
            }],
        )));
        let local: Arc<dyn TrackLocal> = track.clone();
        let sender = connection.add_track(local).await.unwrap();
        let unreliable = RTCDataChannelInit { ordered: false, max_retransmits: Some(0), ..Default::default() };
        let results_channel = connection.create_data_channel("results", Some(unreliable)).await.unwrap();
        let reliable = RTCDataChannelInit { ordered: true, ..Default::default() };
        let events = connection.create_data_channel("events", Some(reliable)).await.unwrap();
        let control = connection
            .create_data_channel("control", Some(RTCDataChannelInit { ordered: true, ..Default::default() }))
            .await
            .unwrap();
        let (control_replies, control_open) = read_json(Arc::clone(&control));
        Self {
            connection,
            results: read_json(results_channel).0,
            packets,
            events: read_json(events).0,
            control_replies,
            control_open,
            control,
            color_space: None,
            returned_color_spaces,
            color_space_id: 0,
            track,
            sender,
            state,
            gathered,
            remote,
            payload_type: 109,
            sequence: 1,
        }
    }

    /// An offer without candidates, as trickling clients send it; the server learns our address from our checks, so
    /// that none of its own comes before we know its answer.
    pub async fn offer(&mut self) -> String {
        let sdp = self.complete_offer().await;
        sdp.split_inclusive("\r\n").filter(|line| !line.starts_with("a=candidate:")).collect()
    }

    /// An offer with every candidate in it.
    pub async fn complete_offer(&mut self) -> String {
        let offer = self.connection.create_offer(None).await.unwrap();
        self.connection.set_local_description(offer).await.unwrap();
        timeout(LIMIT, self.gathered.wait_for(|done| *done)).await.expect("candidates in time").unwrap();
        self.connection.local_description().await.unwrap().sdp
    }

    pub async fn answer(&mut self, sdp: String) {
        let line = sdp.lines().find(|line| line.ends_with(COLOR_SPACE_URI)).expect("colours can be announced");
        let id = line.strip_prefix("a=extmap:").and_then(|line| line.split([' ', '/']).next());
        self.color_space_id = id.and_then(|id| id.parse().ok()).expect("the extension's id");
        let answer = RTCSessionDescription::answer(sdp).unwrap();
        self.connection.set_remote_description(answer).await.unwrap();
        let parameters = self.sender.get_parameters().await.unwrap();
        self.payload_type = parameters.rtp_parameters.codecs[0].payload_type;
    }

    pub async fn candidate(&self, candidate: IceCandidate) {
        let init = RTCIceCandidateInit {
            candidate: candidate.candidate,
            sdp_mid: candidate.sdp_mid,
            sdp_mline_index: candidate.sdp_m_line_index,
            username_fragment: candidate.username_fragment,
            ..Default::default()
        };
        self.connection.add_ice_candidate(init).await.unwrap();
    }

    pub async fn connected(&mut self) {
        timeout(LIMIT, self.state.wait_for(|state| *state == RTCPeerConnectionState::Connected))
            .await
            .expect("a connection in time")
            .unwrap();
    }

    /// Sends one access unit as the payloads of its packets.
    pub async fn send(&mut self, time: MediaTime, payloads: impl IntoIterator<Item = (bytes::Bytes, bool)>) {
        assert!(self.try_send(time, payloads).await, "the connection has ended");
    }

    /// The same; whether the connection took them all.
    pub async fn try_send(
        &mut self,
        time: MediaTime,
        payloads: impl IntoIterator<Item = (bytes::Bytes, bool)>,
    ) -> bool {
        for (payload, marker) in payloads {
            let mut header = rtc::rtp::Header {
                version: 2,
                marker,
                payload_type: self.payload_type,
                sequence_number: self.sequence,
                timestamp: time.0,
                ssrc: SSRC,
                ..Default::default()
            };
            self.sequence = self.sequence.wrapping_add(1);
            if let Some(color_space) = self.color_space.filter(|_| marker) {
                header.set_extension(self.color_space_id, color_space.to_vec().into()).unwrap();
            }
            if self.track.write_rtp(rtc::rtp::Packet { header, payload }).await.is_err() {
                return false;
            }
        }
        true
    }

    /// Loses packets on the way: their sequence numbers are used up and nobody can repeat them.
    pub const fn lose(&mut self, packets: u16) {
        self.sequence = self.sequence.wrapping_add(packets);
    }

    /// Sends on the control channel, when it is open.
    pub async fn order(&mut self, text: &str) {
        timeout(LIMIT, self.control_open.wait_for(|open| *open)).await.expect("an open channel in time").unwrap();
        self.control.send_text(text).await.unwrap();
    }

    pub async fn request_keyframe(&self, media_ssrc: u32) {
        let request = PictureLossIndication { sender_ssrc: SSRC, media_ssrc };
        self.remote.get().expect("a returned track").write_rtcp(vec![Box::new(request)]).await.unwrap();
    }

    pub async fn returned_ssrc(&self) -> u32 {
        *self.remote.get().expect("a returned track").ssrcs().await.first().unwrap()
    }

    pub async fn close(self) {
        self.connection.close().await.unwrap();
    }
}

/// Connects over the WebSocket and waits until media may flow.
pub async fn connect(server: SocketAddr, codec: Codec, options: OptionsPatch) -> (Socket, Peer, String, Options) {
    join(Socket::connect(server).await, codec, options).await
}

/// The same over a socket that is to be welcomed next.
pub async fn join(socket: Socket, codec: Codec, options: OptionsPatch) -> (Socket, Peer, String, Options) {
    join_by(socket, codec, options, |answer| without_feedback(&answer)).await
}

/// An answer without transport-wide congestion control: on a machine whose processors are busy, packets seem to wait on
/// their way, and less would come back.
fn without_feedback(answer: &str) -> String {
    let is_feedback = |line: &&str| line.contains("transport-wide-cc") || line.contains("transport-cc");
    answer.split_inclusive("\r\n").filter(|line| !is_feedback(line)).collect()
}

/// The same by way of what `change` makes of the server's answer.
pub async fn join_by(
    mut socket: Socket,
    codec: Codec,
    options: OptionsPatch,
    change: impl FnOnce(String) -> String,
) -> (Socket, Peer, String, Options) {
    assert!(matches!(socket.next().await, ServerMessage::Welcome { protocol: 1, .. }));
    let mut peer = Peer::new(codec).await;
    let sdp = peer.offer().await;
    socket.offer(sdp, Some(options), None).await;
    let (sdp, session_id, options) = socket
        .find(|message| match message {
            ServerMessage::Answer { sdp, session_id, options } => Some((sdp, session_id, options)),
            ServerMessage::Error { code, message, .. } => panic!("{code}: {message}"),
            _ => None,
        })
        .await;
    peer.answer(change(sdp)).await;
    loop {
        match socket.next().await {
            ServerMessage::Candidate { candidate: Some(candidate) } if !candidate.candidate.is_empty() => {
                peer.candidate(candidate).await;
            }
            ServerMessage::Candidate { .. } => break,
            _ => {}
        }
    }
    peer.connected().await;
    (socket, peer, session_id, options)
}

/// The channel's messages, and whether it has opened.
fn read_json<T: serde::de::DeserializeOwned + Send + 'static>(
    channel: Arc<dyn DataChannel>,
) -> (mpsc::Receiver<T>, watch::Receiver<bool>) {
    let (tx, rx) = mpsc::channel(4096);
    let (opened, open) = watch::channel(false);
    tokio::spawn(async move {
        while let Some(event) = channel.poll().await {
            match event {
                DataChannelEvent::OnOpen => drop(opened.send_replace(true)),
                DataChannelEvent::OnMessage(message) => {
                    let value = serde_json::from_slice(&message.data).expect("JSON of the contract");
                    let _ = tx.try_send(value);
                }
                _ => {}
            }
        }
    });
    (rx, open)
}

fn rtp_codec(codec: Codec) -> RTCRtpCodec {
    let feedback = |typ: &str, parameter: &str| RTCPFeedback { typ: typ.to_owned(), parameter: parameter.to_owned() };
    let (mime_type, sdp_fmtp_line) = match codec {
        Codec::H264 => ("video/H264", "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f"),
        Codec::Vp8 => ("video/VP8", ""),
        Codec::Vp9 => ("video/VP9", "profile-id=0"),
    };
    RTCRtpCodec {
        mime_type: mime_type.to_owned(),
        clock_rate: 90_000,
        channels: 0,
        sdp_fmtp_line: sdp_fmtp_line.to_owned(),
        rtcp_feedback: vec![feedback("nack", ""), feedback("nack", "pli")],
    }
}

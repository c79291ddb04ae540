//! One WebRTC peer: a socket, and the stack that speaks through it.

mod history;

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket as StdSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use str0m::change::{SdpAnswer, SdpPendingOffer};
use str0m::channel::{ChannelConfig, ChannelId, Reliability};
use str0m::media::{Direction, Frequency, KeyframeRequestKind, MediaKind, MediaTime, Mid, Pt};
use str0m::net::{Protocol, Receive};
use str0m::rtp::RawPacket;
use str0m::rtp::rtcp::Rtcp;
use str0m::{Candidate, Event, IceConnectionState, Input, Output, Rtc};
use tokio::net::UdpSocket;
use tokio::time::sleep_until;

use self::history::History;
use crate::clip::Codec;

/// Label of the data channel on which results come.
const RESULTS: &str = "results";
/// Largest datagram that is received, in bytes.
const DATAGRAM: usize = 2_048;
/// Datagrams taken one after the other before anything else gets its turn.
const AT_ONCE: usize = 64;
/// What is missing of returned video is waited for so long before what came after it is shown: enough for a packet to be
/// asked for twice. The stack's own 2 s are more than any player takes that shows live video; GStreamer's `webrtcbin` waits
/// for 200 ms, browsers show the next keyframe at once.
const PATIENCE: Duration = Duration::from_millis(400);

/// What a peer has to say.
#[derive(Debug)]
pub(crate) enum Happening {
    /// Media can be sent.
    Connected,
    /// The other side is gone.
    Lost,
    /// A keyframe is asked for.
    KeyframeWanted,
    /// A message of the `results` channel.
    Result(Vec<u8>),
    /// A whole access unit came back.
    Returned {
        /// Its RTP timestamp.
        time: u32,
        /// When its last packet came.
        at: Instant,
        /// Whether nothing is missing before it.
        whole: bool,
        /// The unit itself.
        unit: Arc<[u8]>,
    },
}

/// Why there is no peer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PeerError {
    #[error("no UDP socket: {0}")]
    Socket(#[from] io::Error),
    #[error("the answer is not SDP: {0}")]
    NotSdp(String),
    #[error("the answer does not fit the offer: {0}")]
    Unfit(#[from] str0m::RtcError),
    #[error("the answer takes no {0} video")]
    NoVideo(Codec),
}

pub(crate) struct Peer {
    rtc: Rtc,
    socket: UdpSocket,
    local: SocketAddr,
    wakeup: Instant,
    happened: VecDeque<Happening>,
    pending: Option<SdpPendingOffer>,
    video: Mid,
    payload_type: Option<Pt>,
    codec: Codec,
    results: Option<ChannelId>,
    buffer: Box<[u8]>,
    /// Where RTX was not negotiated, the stack sends nothing again.
    history: Option<History>,
    /// Where the last datagram went.
    remote: Option<SocketAddr>,
    /// Packets that were asked for again.
    pub(crate) nacked: u64,
    /// Datagrams that the socket had no room for.
    pub(crate) unsent: u64,
}

impl Peer {
    /// A peer and its offer for a server at `server`, with video in both directions or only towards the server.
    pub(crate) fn offer(server: IpAddr, codec: Codec, returned: bool) -> Result<(Self, String), PeerError> {
        let socket = StdSocket::bind((address_towards(server), 0))?;
        socket.set_nonblocking(true)?;
        let socket = UdpSocket::from_std(socket)?;
        let local = socket.local_addr()?;
        let now = Instant::now();
        let config = Rtc::builder().clear_codecs().enable_h264(codec == Codec::H264).enable_vp8(codec == Codec::Vp8);
        let config = config.set_reordering_timeout_video(Some(PATIENCE));
        // To hear which packets are asked for again.
        let mut rtc = config.enable_raw_packets(true).build(now);
        rtc.add_local_candidate(Candidate::host(local, "udp").map_err(str0m::RtcError::from)?);
        let mut change = rtc.sdp_api();
        let direction = if returned { Direction::SendRecv } else { Direction::SendOnly };
        let video = change.add_media(MediaKind::Video, direction, None, None, None);
        change.add_channel_with_config(ChannelConfig {
            label: RESULTS.to_owned(),
            ordered: false,
            reliability: Reliability::MaxRetransmits { retransmits: 0 },
            negotiated: None,
            protocol: String::new(),
        });
        let Some((offer, pending)) = change.apply() else { return Err(PeerError::NoVideo(codec)) };
        let peer = Self {
            rtc,
            socket,
            local,
            wakeup: now,
            happened: VecDeque::new(),
            pending: Some(pending),
            video,
            payload_type: None,
            codec,
            results: None,
            buffer: vec![0; DATAGRAM].into(),
            history: None,
            remote: None,
            nacked: 0,
            unsent: 0,
        };
        Ok((peer, offer.to_sdp_string()))
    }

    /// Takes the server's answer.
    pub(crate) fn answer(&mut self, sdp: &str) -> Result<(), PeerError> {
        let answer = SdpAnswer::from_sdp_string(sdp).map_err(|error| PeerError::NotSdp(error.to_string()))?;
        if let Some(pending) = self.pending.take() {
            self.rtc.sdp_api().accept_answer(pending, answer)?;
        }
        self.drain()?;
        let writer = self.rtc.writer(self.video).ok_or(PeerError::NoVideo(self.codec))?;
        let params = writer.payload_params().next().ok_or(PeerError::NoVideo(self.codec))?;
        self.payload_type = Some(params.pt());
        self.history = params.resend().is_none().then(History::default);
        Ok(())
    }

    /// Takes another of the server's addresses; one that is not understood, such as a name, is left out.
    pub(crate) fn add_candidate(&mut self, candidate: &str) -> Result<(), PeerError> {
        if let Ok(candidate) = Candidate::from_sdp_string(candidate) {
            self.rtc.add_remote_candidate(candidate);
            self.drain()?;
        }
        Ok(())
    }

    /// Sends a frame, and says when its last packet left.
    pub(crate) fn send(&mut self, time: u64, data: &Bytes) -> Result<Instant, PeerError> {
        if let (Some(writer), Some(payload_type)) = (self.rtc.writer(self.video), self.payload_type) {
            let time = MediaTime::new(time, Frequency::NINETY_KHZ);
            writer.write(payload_type, Instant::now(), time, data.as_ref())?;
            // The stack cuts what was written into packets when time passes.
            self.rtc.handle_input(Input::Timeout(Instant::now()))?;
        }
        self.drain()?;
        Ok(Instant::now())
    }

    /// Asks for a keyframe of what comes back, if the other side answers such requests.
    pub(crate) fn request_keyframe(&mut self) {
        if let Some(mut writer) = self.rtc.writer(self.video) {
            let _ = writer.request_keyframe(None, KeyframeRequestKind::Pli);
        }
    }

    /// What happens next. Dropping the future loses nothing.
    pub(crate) async fn next(&mut self) -> Result<Happening, PeerError> {
        loop {
            if let Some(happening) = self.happened.pop_front() {
                return Ok(happening);
            }
            if !self.rtc.is_alive() {
                return Ok(Happening::Lost);
            }
            tokio::select! {
                readable = self.socket.readable() => { readable?; self.receive()?; }
                () = sleep_until(self.wakeup.into()) => {
                    self.rtc.handle_input(Input::Timeout(Instant::now()))?;
                    self.drain()?;
                }
            }
        }
    }

    /// Says goodbye, as far as the transport can.
    pub(crate) fn close(mut self) {
        if self.rtc.close().is_ok() {
            // Whether it arrives or not, this side is done.
            let _ = self.drain();
        }
    }

    fn receive(&mut self) -> Result<(), PeerError> {
        for _ in 0..AT_ONCE {
            let (length, source) = match self.socket.try_recv_from(&mut self.buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                // An ICMP message about an earlier datagram: the stack has its own deadlines.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
                Err(error) => return Err(error.into()),
            };
            // What is no STUN, DTLS, RTP or RTCP is none of ours.
            let Ok(contents) = self.buffer[..length].try_into() else { continue };
            let received = Receive { proto: Protocol::Udp, source, destination: self.local, contents };
            self.rtc.handle_input(Input::Receive(Instant::now(), received))?;
            self.drain()?;
        }
        Ok(())
    }

    /// Everything that the stack wants sent or told, until it waits.
    fn drain(&mut self) -> Result<(), PeerError> {
        loop {
            match self.rtc.poll_output()? {
                Output::Timeout(at) => {
                    self.wakeup = at;
                    return Ok(());
                }
                Output::Transmit(transmit) => {
                    if let Some(history) = &mut self.history {
                        history.keep(&transmit.contents);
                    }
                    self.remote = Some(transmit.destination);
                    self.unsent +=
                        u64::from(self.socket.try_send_to(&transmit.contents, transmit.destination).is_err());
                }
                Output::Event(Event::RawPacket(packet)) => self.send_again(&packet),
                Output::Event(event) => self.take(event),
            }
        }
    }

    /// Sends what a report asks for again.
    fn send_again(&mut self, packet: &RawPacket) {
        let (RawPacket::RtcpRx(Rtcp::Nack(nack)), Some(remote)) = (packet, self.remote) else { return };
        self.nacked += nack.reports.iter().map(|entry| 1 + u64::from(entry.blp.count_ones())).sum::<u64>();
        let missing = nack.reports.iter().filter_map(|entry| Some(self.history.as_ref()?.find(*entry)));
        for datagram in missing.flatten() {
            self.unsent += u64::from(self.socket.try_send_to(datagram, remote).is_err());
        }
    }

    fn take(&mut self, event: Event) {
        let happening = match event {
            Event::Connected => Happening::Connected,
            Event::IceConnectionStateChange(IceConnectionState::Disconnected) | Event::Closed => Happening::Lost,
            Event::KeyframeRequest(_) => Happening::KeyframeWanted,
            Event::ChannelOpen(id, label) if label == RESULTS => {
                self.results = Some(id);
                return;
            }
            Event::ChannelData(data) if Some(data.id) == self.results => Happening::Result(data.data),
            #[expect(clippy::cast_possible_truncation, reason = "what came in the packet's 32 bits")]
            Event::MediaData(media) => {
                let (time, whole) = (media.time.numer() as u32, media.contiguous);
                Happening::Returned { time, at: Instant::now(), whole, unit: media.data }
            }
            _ => return,
        };
        self.happened.push_back(happening);
    }
}

/// The address of this machine from which it reaches another; for itself one that others could reach, too, if it has
/// one: some servers give no candidates on the loopback interface.
fn address_towards(server: IpAddr) -> IpAddr {
    // A documentation address (RFC 5737): nothing is sent, only the route is looked up.
    let far = if server.is_loopback() { IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)) } else { server };
    let any: IpAddr = if far.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { std::net::Ipv6Addr::UNSPECIFIED.into() };
    let route = || {
        let socket = StdSocket::bind((any, 0))?;
        socket.connect((far, 9))?;
        socket.local_addr()
    };
    route().map_or(server, |address: SocketAddr| address.ip())
}

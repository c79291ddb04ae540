//! WebRTC transport: one [`Peer`] a session, behind a trait, so that the stack below can be exchanged.
//!
//! Session descriptions and candidates enter as text; decrypted RTP packets, keyframe requests, data-channel messages
//! and changes of state leave through bounded channels; packets and messages to send enter through the trait. All of
//! it runs on Tokio and nothing here blocks. It knows nothing of codecs' bitstreams, of models or of wire messages.
//!
//! Every peer must be closed with an awaited [`Peer::close`]: the stack below keeps sockets and tasks of a peer that
//! is merely dropped.

mod color_space;
mod congestion;
mod declined;
mod feedback;
#[doc(hidden)]
pub mod fuzzing;
mod mux;
mod offer;
mod remote;
mod reports;
mod stats;
mod webrtc;

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::mpsc;

use crate::media::{AnnouncedColor, Codec, MediaTime, RtpPacket};

pub use self::mux::Listen;
pub use self::offer::{Inspected, Rejected};
pub use self::stats::{CandidateKind, Stats, Stream};
pub use self::webrtc::WebRtc;

/// Events that wait for the session at most; further ones are lost.
pub const EVENT_QUEUE: usize = 64;
/// Packets that wait for the session at most; further ones are dropped and counted.
pub const PACKET_QUEUE: usize = 256;

/// Opens peers.
#[async_trait]
pub trait Transport: Send + Sync {
    /// Makes a peer for an offer, binds its sockets and answers.
    ///
    /// # Errors
    /// [`Error::Rejected`] when the offer cannot be served, [`Error::Stack`] when the stack fails.
    async fn accept(&self, offer: &str, config: PeerConfig) -> Result<Accepted, Error>;
}

/// One remote endpoint.
#[async_trait]
pub trait Peer: Send + Sync {
    /// Answers a further offer: a renegotiation or an ICE restart.
    ///
    /// # Errors
    /// As [`Transport::accept`].
    async fn renegotiate(&self, offer: &str) -> Result<Answer, Error>;

    /// The answer with every local candidate in it, once gathering is over.
    ///
    /// # Errors
    /// [`Error::Stack`] when the peer is closed.
    async fn complete_answer(&self) -> Result<String, Error>;

    /// Takes a remote candidate; `None` ends them. Names that only mDNS resolves are ignored.
    ///
    /// # Errors
    /// [`Error::Candidate`] when it cannot be parsed.
    async fn add_candidate(&self, candidate: Option<Candidate>) -> Result<(), Error>;

    /// Sends one RTP packet of the returned video.
    ///
    /// # Errors
    /// [`Error::Stack`] when the peer is closed or video was not negotiated.
    async fn send_packet(&self, packet: OutgoingPacket) -> Result<(), Error>;

    /// Asks the sender for a keyframe (PLI, RFC 4585 section 6.3.1).
    ///
    /// # Errors
    /// [`Error::Stack`] when the peer is closed.
    async fn request_keyframe(&self) -> Result<(), Error>;

    /// Sends a message on an open data channel.
    ///
    /// # Errors
    /// [`Error::NoChannel`] when it is not open, [`Error::ChannelFull`] when too many bytes wait.
    async fn send_text(&self, channel: Channel, text: &str) -> Result<(), Error>;

    /// Opens a data channel from this side.
    ///
    /// # Errors
    /// [`Error::Stack`] when the peer is closed.
    async fn open_channel(&self, channel: Channel) -> Result<(), Error>;

    /// Whether the other side has closed the secure connection (close_notify, RFC 5246 section 7.2.1), which the stack
    /// reports by no event.
    async fn remote_closed(&self) -> bool;

    /// Bits a second that the path to the peer is thought to carry; nothing before its receiver reports on packets.
    fn bandwidth(&self) -> Option<u32>;

    /// Whether another frame may be sent without making those under way late.
    fn has_room(&self, now: Instant) -> bool;

    /// What is known of the path to the peer; `None` before ICE has selected one.
    async fn stats(&self, now: Instant) -> Option<Stats>;

    /// Packets that were dropped because the session did not take them in time.
    fn packets_dropped(&self) -> u64;

    /// Ends everything that belongs to this peer: sockets, tasks, channels. May be called more than once.
    async fn close(&self);
}

/// A peer as it comes out of [`Transport::accept`].
pub struct Accepted {
    /// The peer.
    pub peer: Arc<dyn Peer>,
    /// What to send back.
    pub answer: Answer,
    /// Changes of state, messages, feedback.
    pub events: mpsc::Receiver<Event>,
    /// Packets of the received video.
    pub packets: mpsc::Receiver<RtpPacket>,
}

/// Answer to an offer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Session description of type `answer`; candidates may still follow.
    pub sdp: String,
    /// Codec of the video, both ways.
    pub codec: Codec,
    /// Whether the peer takes video back.
    pub returns_video: bool,
    /// Whether data channels can be opened.
    pub data_channels: bool,
    /// Identification tag of the video's media section.
    pub mid: String,
}

/// What a peer does with video.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It sends video, and may take some back.
    Publisher,
    /// It sends none, and takes video of this codec.
    Viewer(Codec),
}

/// How a peer is set up.
#[derive(Debug, Clone)]
pub struct PeerConfig {
    /// What it is for.
    pub role: Role,
    /// Whether to be an ICE-lite agent (RFC 8445 section 2.5).
    pub ice_lite: bool,
    /// Bytes that may wait on one data channel.
    pub channel_buffer: usize,
    /// Bits a second assumed before anything is measured.
    pub start_bandwidth: u32,
    /// Bits a second never exceeded.
    pub max_bandwidth: u32,
}

/// What a peer reports.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// A local candidate to send to the other side, `None` after the last.
    Candidate(Option<Candidate>),
    /// Connectivity checks succeeded.
    IceConnected,
    /// The DTLS handshake is done; media and data may flow.
    Connected,
    /// Nothing has come from the peer for a while; it may come back.
    Disconnected,
    /// Connectivity is lost for good, or the handshake failed.
    Failed,
    /// The peer ended the connection.
    Closed,
    /// The receiver asks for a keyframe of the returned video (PLI or FIR).
    KeyframeRequested,
    /// A data channel may be used.
    ChannelOpen(Channel),
    /// A text message came.
    Message {
        /// On which channel.
        channel: Channel,
        /// The text.
        text: String,
    },
    /// The received video track has ended.
    TrackEnded,
}

/// Data channels of the contract, by label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Channel {
    /// One message a processed frame, unordered and not retransmitted.
    Results,
    /// Track, zone and line events, reliable.
    Events,
    /// Options, both ways.
    Control,
}

impl Channel {
    /// The label of the channel.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Results => "results",
            Self::Events => "events",
            Self::Control => "control",
        }
    }

    fn from_label(label: &str) -> Option<Self> {
        [Self::Results, Self::Events, Self::Control].into_iter().find(|channel| channel.label() == label)
    }
}

/// An ICE candidate, in the fields of the browser's object.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Candidate {
    /// Candidate attribute without `a=`.
    pub candidate: String,
    /// Media section it belongs to, by tag.
    pub sdp_mid: Option<String>,
    /// Media section it belongs to, by index.
    pub sdp_m_line_index: Option<u16>,
    /// ICE user fragment.
    pub username_fragment: Option<String>,
}

/// One RTP packet to send.
#[derive(Debug, Clone)]
pub struct OutgoingPacket {
    /// Sequence number.
    pub sequence: u16,
    /// RTP timestamp.
    pub time: MediaTime,
    /// Marker bit.
    pub marker: bool,
    /// Colours to announce, if the peer takes announcements: in the last packet of a keyframe.
    pub color: Option<AnnouncedColor>,
    /// Payload.
    pub payload: Bytes,
}

/// Why the transport could not do it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The offer cannot be served.
    #[error(transparent)]
    Rejected(#[from] Rejected),
    /// The candidate cannot be parsed.
    #[error("the candidate cannot be parsed")]
    Candidate,
    /// More candidates were named than are taken.
    #[error("there are too many candidates: 256 are taken until ICE restarts")]
    TooManyCandidates,
    /// The video comes from a source that negotiates nothing.
    #[error("the video of this session is not negotiated")]
    NotNegotiated,
    /// The data channel is not open.
    #[error("the data channel is not open")]
    NoChannel,
    /// Too many bytes wait on the data channel.
    #[error("too many bytes wait on the data channel")]
    ChannelFull,
    /// The stack below did not answer in time.
    #[error("the WebRTC stack did not answer in time")]
    TimedOut,
    /// The stack below failed.
    #[error("the WebRTC stack failed: {0}")]
    Stack(String),
}

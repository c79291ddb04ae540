use std::time::Duration;

use rtc::peer_connection::transport::RTCIceCandidateType;
use rtc::statistics::report::{RTCStatsReport, RTCStatsReportEntry};

use super::reports::{Reception, Reported};

/// What is known of the path to a peer.
#[derive(Debug, Clone, PartialEq)]
pub struct Stats {
    /// Last round trip: of a connectivity check, or of RTCP reports where no check was answered.
    pub round_trip: Option<Duration>,
    /// How the address of this side was found.
    pub local_candidate: CandidateKind,
    /// How the address of the other side was found.
    pub remote_candidate: CandidateKind,
    /// `udp` or `tcp`.
    pub protocol: &'static str,
    /// Bytes received, of every protocol above UDP or TCP.
    pub bytes_in: u64,
    /// Bytes sent, of every protocol above UDP or TCP.
    pub bytes_out: u64,
    /// Bits a second that the path to the peer is thought to carry.
    pub bandwidth: u32,
    /// Video from the peer.
    pub inbound: Stream,
    /// Video to the peer, where it takes any.
    pub outbound: Option<Stream>,
}

/// One direction of video.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Stream {
    /// RTP packets received or sent.
    pub packets: u64,
    /// RTP packets lost, as the receiver last reported.
    pub lost: Option<u64>,
    /// Share of packets lost in the interval of that report, 0..1.
    pub loss_ratio: Option<f64>,
    /// Variation of arrival times in that report (RFC 3550 section 6.4.1).
    pub jitter: Option<Duration>,
    /// NACK messages (RFC 4585 section 6.2.1) that the receiver sent.
    pub nacks: u64,
}

/// How a candidate was found (RFC 8445 section 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CandidateKind {
    /// An address of the machine itself.
    Host,
    /// An address that a STUN server saw.
    ServerReflexive,
    /// An address that the other side's checks came from.
    PeerReflexive,
    /// An address of a TURN server.
    Relayed,
}

impl CandidateKind {
    /// Its name in candidates (RFC 8839 section 5.1).
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::ServerReflexive => "srflx",
            Self::PeerReflexive => "prflx",
            Self::Relayed => "relay",
        }
    }

    /// The stack lists only the candidates that it was told of, so that one which it does not list came from a check.
    const fn of(listed: Option<RTCIceCandidateType>) -> Self {
        match listed {
            Some(RTCIceCandidateType::Host) => Self::Host,
            Some(RTCIceCandidateType::Srflx) => Self::ServerReflexive,
            Some(RTCIceCandidateType::Relay) => Self::Relayed,
            _ => Self::PeerReflexive,
        }
    }
}

impl Stats {
    /// Puts together what the stack counts and what RTCP reports tell; `None` while no pair of candidates is selected.
    /// Of the stack's fields only those are read that it fills, and fills right.
    pub(super) fn read(
        report: &RTCStatsReport,
        reported: &Reported,
        bandwidth: u32,
        returns_video: bool,
        over_tcp: bool,
    ) -> Option<Self> {
        let transport = report.transport()?;
        let RTCStatsReportEntry::IceCandidatePair(pair) = report.get(&transport.selected_candidate_pair_id)? else {
            return None;
        };
        let local = match report.get(&format!("RTCLocalIceCandidate_{}", pair.local_candidate_id)) {
            Some(RTCStatsReportEntry::LocalCandidate(candidate)) => Some(candidate),
            _ => None,
        };
        let remote = match report.get(&format!("RTCRemoteIceCandidate_{}", pair.remote_candidate_id)) {
            Some(RTCStatsReportEntry::RemoteCandidate(candidate)) => Some(candidate),
            _ => None,
        };
        let checked = Some(pair.current_round_trip_time).filter(|seconds| *seconds > 0.0);
        let (mut inbound, mut outbound) = (Stream::reported(reported.ours), Stream::reported(reported.theirs));
        for stream in report.inbound_rtp_streams() {
            inbound.packets += stream.received_rtp_stream_stats.packets_received;
            inbound.nacks += u64::from(stream.nack_count);
        }
        for stream in report.outbound_rtp_streams() {
            outbound.packets += stream.sent_rtp_stream_stats.packets_sent;
            outbound.nacks += u64::from(stream.nack_count);
        }
        Some(Self {
            round_trip: checked.and_then(|s| Duration::try_from_secs_f64(s).ok()).or(reported.round_trip),
            local_candidate: CandidateKind::of(local.map(|candidate| candidate.candidate_type)),
            remote_candidate: CandidateKind::of(remote.map(|candidate| candidate.candidate_type)),
            protocol: if over_tcp { "tcp" } else { "udp" },
            bytes_in: transport.bytes_received,
            bytes_out: transport.bytes_sent,
            bandwidth,
            inbound,
            outbound: returns_video.then_some(outbound),
        })
    }
}

impl Stream {
    fn reported(reception: Option<Reception>) -> Self {
        Self {
            lost: reception.map(|report| report.lost),
            loss_ratio: reception.map(|report| report.loss_ratio),
            jitter: reception.map(|report| report.jitter),
            ..Self::default()
        }
    }
}

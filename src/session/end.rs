use std::fmt;

use saccade_signaling::{ErrorCode, close_code};

/// Why a session ended: the `reason` of the `closed` message and the metric label `end_reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EndReason {
    /// The client said `bye`.
    Bye,
    /// Somebody deleted the session over HTTP.
    Deleted,
    /// The peer closed its connection.
    PeerClosed,
    /// The signaling socket was lost and no other one took the session over in time.
    SocketLost,
    /// The peer did not take its signaling messages.
    SocketFull,
    /// No answer could be made in time.
    OfferTimeout,
    /// No connectivity check succeeded in time.
    IceTimeout,
    /// The DTLS handshake failed or took too long.
    DtlsFailed,
    /// The network path broke and was not restored in time.
    ConnectionLost,
    /// The peer connected and sent no video.
    NoMedia,
    /// The peer stopped sending.
    Idle,
    /// The session reached its longest duration.
    MaxDuration,
    /// The publisher's token ended, and no other came in time.
    TokenExpired,
    /// The server is shutting down.
    Draining,
    /// The video cannot be decoded.
    DecodeFailed,
    /// The model cannot run.
    ModelFailed,
    /// The session that a viewer watched has ended.
    SessionEnded,
    /// A fault of the server.
    Internal,
}

impl EndReason {
    /// Every reason.
    pub const ALL: &'static [Self] = &[
        Self::Bye,
        Self::Deleted,
        Self::PeerClosed,
        Self::SocketLost,
        Self::SocketFull,
        Self::OfferTimeout,
        Self::IceTimeout,
        Self::DtlsFailed,
        Self::ConnectionLost,
        Self::NoMedia,
        Self::Idle,
        Self::MaxDuration,
        Self::TokenExpired,
        Self::Draining,
        Self::DecodeFailed,
        Self::ModelFailed,
        Self::SessionEnded,
        Self::Internal,
    ];

    /// The reason as it is written on the wire and in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bye => "bye",
            Self::Deleted => "deleted",
            Self::PeerClosed => "peer_closed",
            Self::SocketLost => "socket_lost",
            Self::SocketFull => "socket_full",
            Self::OfferTimeout => "offer_timeout",
            Self::IceTimeout => "ice_timeout",
            Self::DtlsFailed => "dtls_failed",
            Self::ConnectionLost => "connection_lost",
            Self::NoMedia => "no_media",
            Self::Idle => "idle",
            Self::MaxDuration => "max_duration",
            Self::TokenExpired => "token_expired",
            Self::Draining => "draining",
            Self::DecodeFailed => "decode_failed",
            Self::ModelFailed => "model_failed",
            Self::SessionEnded => "session_ended",
            Self::Internal => "internal",
        }
    }

    /// The `error` that precedes `closed`, with a sentence that says what to do, where the end is a failure.
    #[must_use]
    pub const fn error(self) -> Option<(ErrorCode, &'static str)> {
        match self {
            Self::OfferTimeout => Some((ErrorCode::Internal, "The offer took too long to answer; try again.")),
            Self::IceTimeout => Some((
                ErrorCode::IceTimeout,
                "No network path was found; check that UDP to the server's media port is open, or use a TURN server.",
            )),
            Self::DtlsFailed => Some((ErrorCode::DtlsFailed, "The secure handshake failed; connect again.")),
            Self::ConnectionLost => Some((
                ErrorCode::IceTimeout,
                "The network path broke; restart ICE within the resume time, or reconnect.",
            )),
            Self::TokenExpired => Some((
                ErrorCode::Unauthorized,
                "The token has ended; connect again with a new one, and send `auth` with the next before it ends.",
            )),
            Self::NoMedia => Some((ErrorCode::NoVideo, "No video came; check that the camera track is live.")),
            Self::DecodeFailed => {
                Some((ErrorCode::DecodeFailed, "The video could not be decoded; try another codec or a smaller size."))
            }
            Self::ModelFailed => Some((ErrorCode::ModelFailed, "The model failed; choose another or try later.")),
            Self::Internal => Some((ErrorCode::Internal, "The server failed; connect again.")),
            _ => None,
        }
    }

    /// Code that closes the signaling socket after a session ended so (RFC 6455 section 7.4).
    #[must_use]
    pub const fn close_code(self) -> u16 {
        match self {
            Self::Draining => close_code::DRAINING,
            Self::SocketFull => close_code::POLICY,
            Self::TokenExpired => close_code::UNAUTHENTICATED,
            _ => close_code::BYE,
        }
    }
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_protocol_page_lists_every_reason_with_the_error_that_precedes_it() {
        let page = include_str!("../../signaling/README.md");
        let section = page.split("\n## ").find(|section| section.starts_with("Ends of a session")).unwrap_or_default();
        let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
        let rows: BTreeSet<(&str, &str)> = rows.collect();
        let names: BTreeSet<&str> = rows.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, EndReason::ALL.iter().map(|reason| reason.as_str()).collect());
        for reason in EndReason::ALL {
            let told = rows.iter().find(|(name, _)| *name == reason.as_str()).map_or("", |(_, told)| told);
            let error = told.split_once("`error` `").and_then(|(_, rest)| rest.split('`').next());
            assert_eq!(error, reason.error().map(|(code, _)| code.as_str()), "{reason}");
        }
    }
}

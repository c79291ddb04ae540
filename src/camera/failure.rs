/// Why a camera gives no video. What is shown says what to do, and holds no address and no secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// No connection could be made.
    #[error("The camera cannot be reached; check that it is on, its address and its port.")]
    Unreachable,
    /// It took too long to answer.
    #[error("The camera did not answer in time; check its address and the network, or raise `timeout_ms`.")]
    TimedOut,
    /// It wants a user name and a password, and others than were given.
    #[error(
        "The camera refuses the user name or the password; correct `username` and `password_file` or `password_env`."
    )]
    Unauthorized,
    /// It knows the user, who may not see this.
    #[error("The camera does not let this user see its video; give the user that right, or name another.")]
    Forbidden,
    /// There is nothing under the path.
    #[error("The camera has no video under this path; correct the path of `url`.")]
    NotFound,
    /// It does not send over this transport.
    #[error("The camera does not send over this transport; set `transport` to the other one.")]
    TransportRefused,
    /// It answered with another status.
    #[error("The camera refused with RTSP status {status}; see its own log, and whether others watch it already.")]
    Refused {
        /// RFC 2326 section 7.1.1.
        status: u16,
    },
    /// What it describes has no video.
    #[error("The camera describes no video; name the path of a video stream in `url`.")]
    NoVideo,
    /// Its video has a codec that is not taken.
    #[error("The camera sends {codec}; set it to H.264, or name the path of an H.264 stream in `url`.")]
    Codec {
        /// Which.
        codec: String,
    },
    /// It broke the rules of RTSP or RTP.
    #[error(
        "What the camera says cannot be understood; check that `url` names an RTSP camera, or try the other transport."
    )]
    Malformed,
    /// It ended the connection.
    #[error("The camera ended the connection; it may have restarted.")]
    Ended,
    /// It is connected and sends nothing.
    #[error("The camera stopped sending; check it and the network, or raise `timeout_ms`.")]
    Stalled,
    /// It sends and nothing can be decoded.
    #[error("No picture comes out of what the camera sends; set it to H.264 with a keyframe every few seconds.")]
    NoPicture,
    /// What takes its packets does not.
    #[error("The server does not keep up with the camera; lower its resolution or bitrate.")]
    NotTaken,
    /// What takes its packets has ended.
    #[error("{message}")]
    Session {
        /// A stable word.
        code: &'static str,
        /// What to do.
        message: String,
    },
}

impl Failure {
    /// A stable word, for the API and as a label of metrics.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::TimedOut => "timed_out",
            Self::Unauthorized => "unauthorized",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::TransportRefused => "transport_refused",
            Self::Refused { .. } => "refused",
            Self::NoVideo => "no_video",
            Self::Codec { .. } => "no_common_codec",
            Self::Malformed => "malformed",
            Self::Ended => "ended",
            Self::Stalled => "stalled",
            Self::NoPicture => "decode_failed",
            Self::NotTaken => "not_taken",
            Self::Session { code, .. } => code,
        }
    }

    /// What a status of RTSP stands for.
    pub(super) const fn of_status(status: u16) -> Self {
        match status {
            401 => Self::Unauthorized,
            403 => Self::Forbidden,
            404 | 454 => Self::NotFound,
            461 => Self::TransportRefused,
            _ => Self::Refused { status },
        }
    }
}

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Options, OptionsPatch, options};

/// What a client sends on the signaling WebSocket; `configure` is also taken on the `control` data channel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum ClientMessage {
    /// Starts a session; on a socket that has one, renegotiates or restarts ICE; with the `session_id` of a live
    /// session on a new socket, resumes it.
    Offer {
        /// Session description of type `offer`, at most [`crate::MAX_SDP_BYTES`].
        sdp: String,
        /// Options of the session; what is absent keeps its default.
        #[serde(default, deserialize_with = "options::optional_object", skip_serializing_if = "Option::is_none")]
        options: Option<OptionsPatch>,
        /// The session to resume.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        session_id: Option<String>,
        /// The span that the offer is made in, as the header of that name (W3C Trace Context), which browsers cannot send
        /// when they open a socket; what cannot be read is ignored.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        traceparent: Option<String>,
        /// What vendors of tracing add to it, likewise.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tracestate: Option<String>,
    },
    /// One trickled candidate; `null` or an empty candidate string ends them.
    Candidate {
        /// The browser's `RTCIceCandidate.toJSON()`.
        candidate: Option<IceCandidate>,
    },
    /// Changes options while the session runs.
    Configure {
        /// Only the keys to change.
        #[serde(deserialize_with = "options::object")]
        options: OptionsPatch,
    },
    /// Ends the session.
    Bye,
    /// Authenticates, where no `Authorization` header was possible; later, takes the place of the token before, which ends
    /// the session otherwise. There is no answer to that but an `error`.
    Auth {
        /// A JWT of the same `sub` as the one before, or an API key.
        token: String,
    },
}

/// What the server sends on the signaling WebSocket.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ServerMessage {
    /// The first message.
    Welcome {
        /// [`crate::PROTOCOL_VERSION`].
        protocol: u32,
        /// Name and version of the server, such as `saccade/0.1.0`.
        server: String,
        /// Servers to give to `RTCPeerConnection`.
        ice_servers: Vec<IceServer>,
        /// Models that `options.model` may name; the first is the default.
        models: Vec<String>,
        /// What the server will refuse to exceed.
        limits: Limits,
    },
    /// Answer to an offer.
    Answer {
        /// Session description of type `answer`.
        sdp: String,
        /// Id of the session, for the HTTP API and for resuming.
        session_id: String,
        /// All options now in force.
        options: Options,
    },
    /// One of the server's candidates; `null` ends them.
    Candidate {
        /// What `addIceCandidate` takes.
        candidate: Option<IceCandidate>,
    },
    /// Answer to `configure`.
    Configured {
        /// All options now in force.
        options: Options,
    },
    /// Something was refused or failed.
    Error {
        /// Stable code.
        code: ErrorCode,
        /// A sentence that says what to do.
        message: String,
        /// Whether the session (or, before one, the socket) ends with this.
        fatal: bool,
        /// When to try again, in milliseconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after_ms: Option<u64>,
    },
    /// The server is shutting down.
    Draining {
        /// When to connect again, in milliseconds.
        reconnect_after_ms: u64,
    },
    /// The session ended.
    Closed {
        /// Why, as in the metric label `end_reason`.
        reason: String,
    },
}

/// `RTCIceCandidateInit`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IceCandidate {
    /// Candidate attribute (RFC 8839 section 5.1), without `a=`; empty ends the candidates.
    pub candidate: String,
    /// Identification tag of the media section.
    #[serde(default)]
    pub sdp_mid: Option<String>,
    /// Index of the media section, from 0.
    #[serde(default)]
    pub sdp_m_line_index: Option<u16>,
    /// ICE user fragment that the candidate belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username_fragment: Option<String>,
}

/// `RTCIceServer`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct IceServer {
    /// `stun:` and `turn:` URLs.
    pub urls: Vec<String>,
    /// TURN user name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// TURN password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
}

/// Limits announced to clients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Limits {
    /// Widest frame taken, in pixels.
    pub width: u32,
    /// Highest frame taken, in pixels.
    pub height: u32,
    /// Frames a second that are processed at most.
    pub fps: u32,
    /// Largest signaling message, in bytes.
    pub message_bytes: usize,
    /// Largest SDP, in bytes.
    pub sdp_bytes: usize,
}

/// Close codes of the signaling WebSocket (RFC 6455 section 7.4, and our own from 4000).
pub mod close_code {
    /// The client said `bye`, or its session ended for a reason that has no code.
    pub const BYE: u16 = 1000;
    /// The server drains.
    pub const DRAINING: u16 = 1001;
    /// A binary frame came.
    pub const BINARY: u16 = 1003;
    /// The text was not JSON of this protocol.
    pub const BAD_JSON: u16 = 1007;
    /// The client broke a rule of the protocol.
    pub const POLICY: u16 = 1008;
    /// A message was over [`crate::MAX_MESSAGE_BYTES`].
    pub const TOO_LARGE: u16 = 1009;
    /// A fault of the server.
    pub const INTERNAL: u16 = 1011;
    /// The server is full; try later.
    pub const TRY_LATER: u16 = 1013;
    /// No valid token came in time.
    pub const UNAUTHENTICATED: u16 = 4401;
    /// The token does not allow this.
    pub const FORBIDDEN: u16 = 4403;
    /// Too many messages.
    pub const RATE_LIMITED: u16 = 4429;

    /// Every code.
    pub const ALL: &[u16] = &[
        BYE,
        DRAINING,
        BINARY,
        BAD_JSON,
        POLICY,
        TOO_LARGE,
        INTERNAL,
        TRY_LATER,
        UNAUTHENTICATED,
        FORBIDDEN,
        RATE_LIMITED,
    ];
}

macro_rules! error_codes {
    ($($(#[$doc:meta])* $variant:ident = $text:literal),+ $(,)?) => {
        /// Stable error codes, the same on the socket, on the data channel and in `application/problem+json`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum ErrorCode {
            $($(#[$doc])* $variant,)+
        }

        impl ErrorCode {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The code as it is written on the wire.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }
    };
}

error_codes! {
    /// The message or request is not of this protocol.
    BadRequest = "bad_request",
    /// The session description cannot be used.
    BadSdp = "bad_sdp",
    /// The offer has no video codec that the server speaks.
    NoCommonCodec = "no_common_codec",
    /// The offer sends no video.
    NoVideo = "no_video",
    /// No model or route has this name.
    UnknownModel = "unknown_model",
    /// An option is unknown, out of range or not built yet.
    BadOptions = "bad_options",
    /// No valid token.
    Unauthorized = "unauthorized",
    /// The token does not allow this.
    Forbidden = "forbidden",
    /// The server is full.
    Capacity = "capacity",
    /// Too many requests.
    RateLimited = "rate_limited",
    /// No connectivity check succeeded in time.
    IceTimeout = "ice_timeout",
    /// The DTLS handshake failed or took too long.
    DtlsFailed = "dtls_failed",
    /// The video cannot be decoded.
    DecodeFailed = "decode_failed",
    /// The model cannot run.
    ModelFailed = "model_failed",
    /// There is no such thing.
    NotFound = "not_found",
    /// The request is at odds with the state of the resource.
    Conflict = "conflict",
    /// A precondition header does not hold.
    PreconditionFailed = "precondition_failed",
    /// A precondition header is missing.
    PreconditionRequired = "precondition_required",
    /// The body or message is over the limit.
    TooLarge = "too_large",
    /// The media type is not taken here.
    UnsupportedType = "unsupported_type",
    /// The server is shutting down.
    Draining = "draining",
    /// A fault of the server.
    Internal = "internal",
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text names no [`ErrorCode`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownErrorCode;

impl fmt::Display for UnknownErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("unknown error code")
    }
}

impl std::error::Error for UnknownErrorCode {}

impl FromStr for ErrorCode {
    type Err = UnknownErrorCode;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.iter().copied().find(|code| code.as_str() == text).ok_or(UnknownErrorCode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_code_is_the_same_in_serde_and_as_str() {
        for &code in ErrorCode::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
            assert_eq!(code.as_str().parse(), Ok(code));
        }
    }

    #[test]
    fn unknown_fields_of_a_client_are_mistakes() {
        let bad = r#"{"type":"offer","sdp":"v=0","opts":{}}"#;
        assert!(serde_json::from_str::<ClientMessage>(bad).is_err());
    }

    #[test]
    fn a_null_candidate_ends_candidates() {
        let end: ClientMessage = serde_json::from_str(r#"{"type":"candidate","candidate":null}"#).unwrap();
        assert_eq!(end, ClientMessage::Candidate { candidate: None });
    }
}

//! Wire types of Saccade: what clients and server say to each other, and nothing else. No I/O happens here.
//!
//! - [`ClientMessage`] and [`ServerMessage`] travel over the `saccade.v1` WebSocket and, in part, over the `control`
//!   data channel.
//! - [`SessionResult`] is the message of the `results` data channel and of the Server-Sent Events stream.
//! - [`ImageResult`] and [`ImageError`] are what `POST /v1/detect` answers for each picture.
//! - [`Event`] is a message of the `events` data channel.
//! - [`OfferRequest`], [`OfferResponse`], [`SessionView`], [`CameraView`], [`ModelView`], [`RoutePut`], [`RouteView`],
//!   [`EventPage`], [`StatsView`], [`AdviceView`], [`CacheForgotten`] and [`Problem`] are bodies of the HTTP API.
//! - [`Status`] is the message of the `/v1/status` socket.
//!
//! Field names are snake_case, except in the browser's own objects ([`IceCandidate`], [`IceServer`]), which pass
//! through verbatim. Unknown fields are mistakes in what a client sends and are tolerated in what the server sends, so
//! that a newer server can talk to an older client.

mod advice;
mod api;
mod history;
mod image;
mod messages;
mod options;
mod result;
mod sinks;
mod status;
mod zones;

pub use advice::{AdviceFinding, AdviceSeverity, AdviceView};
pub use api::{
    CacheForgotten, CameraReason, CameraView, EnsembleRoute, InboundVideo, ModelState, ModelView, OfferRequest,
    OfferResponse, OutboundVideo, Problem, RouteFusion, RoutePut, RouteShare, RouteView, SessionCounters, SessionView,
    SplitRoute, StageTiming, TransportView,
};
pub use history::{EventPage, EventRecord, Latency, LineStats, StatsPoint, StatsView, ZoneStats};
pub use image::{ImageError, ImageResult};
pub use messages::{
    ClientMessage, ErrorCode, IceCandidate, IceServer, Limits, ServerMessage, UnknownErrorCode, close_code,
};
pub use options::{Masks, Options, OptionsPatch, Overlay, OverlayPatch, ResultFormat, ReturnMode};
pub use result::{Detection, Dropped, Event, Label, Rle, Segment, SessionResult, Tensor, Timing};
pub use sinks::{Notice, SinkData, SinkFailure, SinkMessage, SinkView};
pub use status::{ModelStatus, SessionStatus, Status};
pub use zones::{
    Anchor, Direction, Line, MAX_LINES, MAX_NAME_CHARS, MAX_POLYGON_POINTS, MAX_RULES, MAX_ZONES, Point, Rule, Zone,
};

/// Subprotocol name of the WebSocket signaling endpoint.
pub const SUBPROTOCOL: &str = "saccade.v1";
/// Version announced in [`ServerMessage::Welcome`].
pub const PROTOCOL_VERSION: u32 = 1;
/// Largest signaling message, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 64 * 1024;
/// Largest SDP, in bytes.
pub const MAX_SDP_BYTES: usize = 64 * 1024;
/// ICE candidates kept for an offer that has not come yet.
pub const MAX_PENDING_CANDIDATES: usize = 32;

//! Sessions whose video comes from cameras of the configuration: each camera has one, under its own name, which lives on
//! while the connection to the camera comes and goes.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use saccade_signaling::{ErrorCode, OptionsPatch};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::setup::{Setup, Whose};
use super::stages::{Applied, Takers};
use super::{Deps, Models, Opening, Sessions, serve};
use crate::camera::{Camera, Failure, Sink};
use crate::clock;
use crate::media::{Codec, RtpPacket};
use crate::rtc::{
    Accepted, Answer, Candidate, Channel, EVENT_QUEUE, Error, Event, OutgoingPacket, PACKET_QUEUE, Peer, Stats,
};
use crate::session::options;
use crate::session::{Claims, EndReason, Handle, Machine, OpenRequest, Refusal, SessionId};

impl Sessions {
    /// Passes if a camera's session may have these options.
    ///
    /// # Errors
    /// [`Refusal`] with `unknown_model` or `bad_options`, naming all problems.
    pub fn check_camera(&self, options: &OptionsPatch) -> Result<(), Refusal> {
        apply(&self.0, &SessionId::from(""), options).map(drop)
    }

    /// Keeps a session of this camera open until the server drains. One that ends is begun anew: at once where somebody
    /// deleted it, and after the camera's wait where it failed.
    pub async fn run_camera(&self, camera: &Arc<Camera>, options: &OptionsPatch) {
        loop {
            let ended = AssertUnwindSafe(run(&self.0, camera, options)).catch_unwind().await.unwrap_or_else(|_| {
                tracing::error!(camera = %camera.name(), "opening a camera's session panicked");
                Err(failed())
            });
            let failure = match ended {
                Ok(EndReason::Draining) => return,
                Ok(EndReason::Deleted) => {
                    camera.reset();
                    continue;
                }
                Ok(reason) => {
                    let message = reason.error().map_or("The session ended.", |(_, message)| message);
                    Failure::Session { code: reason.as_str(), message: message.to_owned() }
                }
                Err(refusal) if refusal.code == ErrorCode::Draining => return,
                Err(refusal) => Failure::Session { code: refusal.code.as_str(), message: refusal.message },
            };
            let mut draining = self.0.registry.draining();
            tokio::select! {
                () = camera.wait(failure) => {}
                _ = draining.wait_for(Option::is_some) => return,
            }
        }
    }
}

/// Runs one session to its end.
async fn run(deps: &Arc<Deps>, camera: &Arc<Camera>, options: &OptionsPatch) -> Result<EndReason, Refusal> {
    let permit = deps.registry.admit_camera()?;
    let machine = Machine::of_camera(clock::now(), deps.settings.timeouts);
    let id = SessionId::from(&**camera.name());
    let applied = apply(deps, &id, options)?;
    // Others are refused for want of room, not what the configuration wants to run.
    let demand = deps.load.enter(applied.needs(TAKERS));
    let (event_queue, events) = mpsc::channel(EVENT_QUEUE);
    let (packet_queue, packets) = mpsc::channel(PACKET_QUEUE);
    let answer = Answer {
        sdp: String::new(),
        codec: Codec::H264,
        returns_video: TAKERS.publisher,
        data_channels: false,
        mid: "0".to_owned(),
    };
    let peer = Arc::new(Remote);
    let accepted = Accepted { peer, answer, events, packets };
    let request = OpenRequest {
        sdp: String::new(),
        options: options.clone(),
        trickle: true,
        signals: None,
        claims: Claims::default(),
        address: None,
        caller: None,
    };
    let setup = Setup::begin(&deps.settings.tracer, Whose::Session, None);
    let (reply, opened) = oneshot::channel();
    let serving =
        Box::pin(serve(deps, Opening { id, permit, request, setup, reply }, machine, applied, demand, accepted));
    let feed = |handle| Feed { handle, events: event_queue, packets: packet_queue };
    let ended = pull_while(serving, camera, opened, feed).await;
    camera.released().await;
    ended
}

type Opened = oneshot::Receiver<Result<(Handle, crate::session::Answer), Refusal>>;

/// Has the camera's video pulled from when the session is open until it is over.
async fn pull_while(
    mut serving: impl Future<Output = Option<EndReason>> + Unpin,
    camera: &Arc<Camera>,
    mut opened: Opened,
    feed: impl FnOnce(Handle) -> Feed,
) -> Result<EndReason, Refusal> {
    let mut over = None;
    let reply = tokio::select! {
        reply = &mut opened => reply.ok(),
        reason = &mut serving => {
            over = Some(reason);
            None
        }
    };
    // A session that does not begin is over as soon as that is told.
    let (handle, _) = reply.or_else(|| opened.try_recv().ok()).unwrap_or_else(|| Err(failed()))?;
    if let Some(reason) = over {
        return reason.ok_or_else(failed);
    }
    // A task of its own, so that a panic in it ends this session only. It ends when the set is dropped.
    let mut pulling = JoinSet::new();
    let (puller, feed) = (Arc::clone(camera), feed(handle.clone()));
    pulling.spawn(async move { puller.pull(&feed).await });
    let reason = tokio::select! {
        reason = &mut serving => reason,
        ended = pulling.join_next() => {
            if let Some(Err(error)) = ended {
                tracing::error!(camera = %camera.name(), %error, "pulling a camera's video panicked");
            }
            handle.close(EndReason::Internal).await;
            serving.await
        }
    };
    pulling.shutdown().await;
    reason.ok_or_else(failed)
}

fn failed() -> Refusal {
    Refusal::new(ErrorCode::Internal, "The server failed to begin the session; see its log.")
}

/// Nobody takes a camera's video but viewers.
const TAKERS: Takers = Takers { publisher: false, viewers: 0 };

fn apply(deps: &Arc<Deps>, id: &SessionId, options: &OptionsPatch) -> Result<Applied, Refusal> {
    let models = Models { deps, claims: &Claims::default() };
    models.apply(options::open(&models, deps.settings.budget_ms, options)?, id, None)
}

/// Where a camera's packets go.
struct Feed {
    handle: Handle,
    events: mpsc::Sender<Event>,
    packets: mpsc::Sender<RtpPacket>,
}

#[async_trait]
impl Sink for Feed {
    fn connected(&self, connected: bool) {
        let event = if connected { Event::Connected } else { Event::Disconnected };
        if self.events.try_send(event).is_err() {
            tracing::debug!("a session was not told of its camera");
        }
    }

    async fn packet(&self, packet: RtpPacket) {
        // Where the session is over, so is this, in a moment.
        let _ = self.packets.send(packet).await;
    }

    fn decoded(&self) -> u64 {
        self.handle.view().counters.decoded
    }
}

/// A camera in a peer's place: it takes nothing, and negotiates nothing.
struct Remote;

#[async_trait]
impl Peer for Remote {
    async fn renegotiate(&self, _: &str) -> Result<Answer, Error> {
        Err(Error::NotNegotiated)
    }

    async fn complete_answer(&self) -> Result<String, Error> {
        Err(Error::NotNegotiated)
    }

    async fn add_candidate(&self, _: Option<Candidate>) -> Result<(), Error> {
        Err(Error::NotNegotiated)
    }

    async fn send_packet(&self, _: OutgoingPacket) -> Result<(), Error> {
        Err(Error::NotNegotiated)
    }

    /// RTSP has no way to ask.
    async fn request_keyframe(&self) -> Result<(), Error> {
        Err(Error::NotNegotiated)
    }

    async fn send_text(&self, _: Channel, _: &str) -> Result<(), Error> {
        Err(Error::NoChannel)
    }

    async fn open_channel(&self, _: Channel) -> Result<(), Error> {
        Err(Error::NotNegotiated)
    }

    async fn remote_closed(&self) -> bool {
        false
    }

    fn bandwidth(&self) -> Option<u32> {
        None
    }

    /// Nothing is under way to it.
    fn has_room(&self, _: Instant) -> bool {
        true
    }

    async fn stats(&self, _: Instant) -> Option<Stats> {
        None
    }

    fn packets_dropped(&self) -> u64 {
        0
    }

    async fn close(&self) {}
}

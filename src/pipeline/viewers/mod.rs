//! Who watches a session's video: it is encoded once, and each viewer has a task that sends the packets on to a peer of
//! its own.

mod attendant;
mod backlog;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use metrics::gauge;
use saccade_signaling::ErrorCode;
use tokio::sync::{broadcast, oneshot};
use tokio::task::JoinSet;

use self::attendant::Attendant;
use self::backlog::Backlog;
use super::START_BITRATE;
use super::ice::Ice;
use super::setup::{self, Passed, Setup, Whose};
use super::stages::Stages;
use super::{Deps, complete_answer};
use crate::clock;
use crate::egress::packetize::Payload;
use crate::media::{AnnouncedColor, Codec, MediaTime};
use crate::rtc::{Accepted, Peer, Role};
use crate::session::{Audience as Watched, EndReason, Permit, Refusal, SessionId, Viewer, Viewing, WatchRequest};
use crate::traces::Context;

/// Frames that wait for a viewer at most: half a second. One that falls behind farther goes on at the next keyframe.
const FRAME_QUEUE: usize = 16;
/// When to ask again for video that is not there yet.
const RETRY_AFTER: Duration = Duration::from_secs(2);
/// What the end of a session may wait for its viewers' peers to close.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// The packets of one encoded frame.
#[derive(Debug)]
pub(super) struct Packets {
    pub(super) time: MediaTime,
    pub(super) keyframe: bool,
    pub(super) color: AnnouncedColor,
    /// When the last packet of the frame it was made from came in.
    pub(super) arrival: Instant,
    pub(super) payloads: Vec<Payload>,
}

impl Packets {
    fn bytes(&self) -> usize {
        self.payloads.iter().map(|payload| payload.data.len()).sum()
    }
}

/// Everyone who watches one session.
pub(super) struct Audience {
    deps: Arc<Deps>,
    stages: Arc<Stages>,
    codec: Codec,
    session_id: SessionId,
    /// Of the session's set-up, where that was traced.
    origin: Option<Context>,
    seats: Mutex<Seats>,
    tasks: Mutex<JoinSet<()>>,
    myself: Weak<Self>,
}

/// A receiver that has not reported for so long never does.
const UNMEASURED: Duration = Duration::from_secs(3);

struct Seats {
    /// Where frames come from; none when the session is over.
    frames: Option<broadcast::Sender<Arc<Packets>>>,
    taken: Vec<Seat>,
}

struct Seat {
    viewer: Viewer,
    since: Instant,
    peer: Arc<dyn Peer>,
}

impl Audience {
    /// Of a session whose video is encoded with this codec.
    pub(super) fn new(
        deps: Arc<Deps>,
        stages: Arc<Stages>,
        codec: Codec,
        session_id: SessionId,
        origin: Option<Context>,
    ) -> Arc<Self> {
        let seats = Seats { frames: Some(broadcast::Sender::new(FRAME_QUEUE)), taken: Vec::new() };
        Arc::new_cyclic(|myself| Self {
            deps,
            stages,
            codec,
            session_id,
            origin,
            seats: Mutex::new(seats),
            tasks: Mutex::default(),
            myself: Weak::clone(myself),
        })
    }

    /// Whether nobody watches.
    pub(super) fn is_empty(&self) -> bool {
        self.lock().taken.is_empty()
    }

    /// Hands a frame to all, without waiting for any.
    pub(super) fn publish(&self, packets: Packets) {
        if let Some(frames) = &self.lock().frames {
            // Nobody may be watching.
            let _ = frames.send(Arc::new(packets));
        }
    }

    /// Bits a second that the best of the paths to viewers carries, if one is measured: the others leave frames out. One
    /// that is not measured, and not merely new, counts as wide as is assumed of any.
    pub(super) fn bandwidth(&self, now: Instant) -> Option<u32> {
        let seats = self.lock();
        let measured = seats.taken.iter().filter_map(|seat| seat.peer.bandwidth()).max()?;
        let assumed = |seat: &Seat| seat.peer.bandwidth().is_none() && now >= seat.since + UNMEASURED;
        Some(if seats.taken.iter().any(assumed) { measured.max(START_BITRATE) } else { measured })
    }

    /// Ends every viewer, and lets no other in. Returns when their peers are closed.
    pub(super) async fn close(&self) {
        drop(self.lock().frames.take());
        let mut tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        let all = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(CLOSE_LIMIT, all).await.is_err() {
            tracing::warn!(session_id = %self.session_id, "viewers did not end in time");
            // They go on closing by themselves: a peer must not be dropped half-way.
            tasks.detach_all();
        }
    }

    /// A place for a viewer, if there is something to see.
    fn admit(&self, request: &WatchRequest) -> Result<Permit, Refusal> {
        if !self.stages.has_frames() {
            let message = "The session has no video yet; try again when its publisher sends.";
            return Err(Refusal::new(ErrorCode::Conflict, message).retry_after(RETRY_AFTER));
        }
        self.deps.registry.admit_viewer(&request.claims, request.address)
    }

    /// Opens a viewer, serves it to its end and clears up after it, however it ends.
    async fn serve(
        self: Arc<Self>,
        permit: Permit,
        request: WatchRequest,
        mut setup: Option<Box<Setup>>,
        reply: Reply,
    ) {
        let due = clock::now() + self.deps.settings.timeouts.offer;
        let mut config = self.deps.peer_config(Role::Viewer(self.codec));
        // The video is what it is: its path counts as wide enough until it is known not to be.
        config.start_bandwidth = config.start_bandwidth.max(self.stages.bitrate()).min(config.max_bandwidth);
        let accepted = match super::accept(&self.deps, &request.sdp, config, due.into()).await {
            Ok(accepted) => accepted,
            Err(refused) => {
                setup::refused(&mut setup, &refused.refusal);
                drop(setup);
                // Whoever asked may have gone, here and below.
                let _ = reply.send(Err(refused.refusal.clone()));
                return refused.clear().await;
            }
        };
        setup::passed(&mut setup, Passed::Answered);
        let peer = Arc::clone(&accepted.peer);
        let inputs = match self.seat(request, accepted, setup, due.into()).await {
            Ok((attendant, viewer, answer)) => self.attend(attendant, viewer, answer, reply).await,
            Err(refusal) => {
                let _ = reply.send(Err(refusal));
                None
            }
        };
        peer.close().await;
        drop(permit);
        // Last: whoever waits for the viewer's end watches its commands.
        drop(inputs);
    }

    /// Finds a new viewer its place.
    async fn seat(
        &self,
        request: WatchRequest,
        accepted: Accepted,
        mut setup: Option<Box<Setup>>,
        due: tokio::time::Instant,
    ) -> Result<(Attendant, Viewer, String), Refusal> {
        let Accepted { peer, events, .. } = accepted;
        let refused = |refusal: &Refusal| setup::refused(&mut setup, refusal);
        let answer = complete_answer(peer.as_ref(), due).await.inspect_err(refused)?;
        setup::passed(&mut setup, Passed::Gathered);
        let (viewer, commands) = Viewer::new(request.claims.sub.as_deref().map(Into::into));
        if let Some(setup) = &mut setup {
            setup.of_viewer(viewer.id());
        }
        let frames = {
            let mut seats = self.lock();
            let refused = |refusal: &Refusal| setup::refused(&mut setup, refusal);
            let frames = seats.frames.as_ref().ok_or_else(over).inspect_err(refused)?.subscribe();
            seats.taken.push(Seat { viewer: viewer.clone(), since: clock::now(), peer: Arc::clone(&peer) });
            self.stages.set_viewers(seats.taken.len());
            frames
        };
        let attendant = Attendant::new(
            Arc::clone(&self.stages),
            Arc::clone(&peer),
            Ice::new(request.sdp, &answer),
            Viewing::new(clock::now(), self.deps.settings.timeouts, request.claims.expires),
            Backlog::new(clock::now()),
            attendant::Inputs { frames, commands, events },
            setup,
        );
        Ok((attendant, viewer, answer))
    }

    /// Has the viewer served; gives the queues that ended there.
    async fn attend(
        &self,
        attendant: Attendant,
        viewer: Viewer,
        answer: String,
        reply: Reply,
    ) -> Option<attendant::Inputs> {
        let id = viewer.id().clone();
        let watching = gauge!("saccade_viewers_active");
        watching.increment(1.0);
        let (session_id, viewer_id) = (&self.session_id, &id);
        let (reason, inputs) = if reply.send(Ok((viewer, answer))).is_ok() {
            tracing::info!(%session_id, %viewer_id, "viewer joined");
            // A task of its own, so that a panic in it reaches what follows.
            match tokio::spawn(attendant.run()).await {
                Ok((reason, inputs)) => (reason, Some(inputs)),
                Err(error) => {
                    tracing::error!(%session_id, %viewer_id, %error, "a viewer's task panicked");
                    (EndReason::Internal, None)
                }
            }
        } else {
            (EndReason::PeerClosed, None)
        };
        {
            let mut seats = self.lock();
            seats.taken.retain(|seat| *seat.viewer.id() != id);
            self.stages.set_viewers(seats.taken.len());
        }
        watching.decrement(1.0);
        metrics::counter!("saccade_viewers_total", "end_reason" => reason.as_str()).increment(1);
        tracing::info!(%session_id, %viewer_id, %reason, "viewer left");
        inputs
    }

    fn lock(&self) -> MutexGuard<'_, Seats> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Reply = oneshot::Sender<Result<(Viewer, String), Refusal>>;

#[async_trait]
impl Watched for Audience {
    async fn join(&self, request: WatchRequest) -> Result<(Viewer, String), Refusal> {
        let mut setup = Setup::begin(&self.deps.settings.tracer, Whose::Viewer, request.caller.as_ref());
        if let Some(setup) = &mut setup {
            setup.of(&self.session_id);
            setup.with_codec(self.codec.name());
            setup.link(self.origin.clone());
        }
        let permit = self.admit(&request).inspect_err(|refusal| setup::refused(&mut setup, refusal))?;
        setup::passed(&mut setup, Passed::Admitted);
        let myself = self.myself.upgrade().ok_or_else(over)?;
        let (reply, joined) = oneshot::channel();
        {
            let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
            while tasks.try_join_next().is_some() {}
            // A task of its own: a client that goes away meanwhile must not cancel the work half-way.
            tasks.spawn(myself.serve(permit, request, setup, reply));
        }
        joined.await.unwrap_or_else(|_| Err(Refusal::new(ErrorCode::Internal, "The server failed; try again.")))
    }

    fn viewer(&self, id: &str) -> Option<Viewer> {
        self.lock().taken.iter().find(|seat| seat.viewer.id().as_str() == id).map(|seat| seat.viewer.clone())
    }
}

fn over() -> Refusal {
    Refusal::new(ErrorCode::NotFound, "The session has ended.")
}

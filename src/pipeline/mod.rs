//! Wires the stages of one session together, and runs it.
//!
//! An offer enters by [`Sessions`]; what leaves goes over the session's own peer and socket. Each session has one
//! owner task on Tokio, which holds the peer, the state machine, the reorder buffer and the packetizer, and three
//! places on OS threads: one lane for decoding, one for drawing and encoding, and a slot at its model. This is the one
//! place besides `app` that knows several stages; it decides nothing that a stage can decide itself.

mod cached;
mod cameras;
mod catalogue;
mod following;
mod gpu;
mod ice;
mod ladders;
mod load;
mod losses;
mod owner;
#[cfg(feature = "cuda")]
mod painting;
mod path;
mod setup;
mod spare;
mod stages;
mod stats;
mod stills;
mod trial;
mod viewers;
mod watching;
mod workers;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use saccade_signaling::{ErrorCode, Options, OptionsPatch};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::JoinHandle;
use tracing::Instrument;

pub use self::cached::Cached;
pub use self::gpu::Gpu;
#[cfg(feature = "cuda")]
pub use self::gpu::{Libraries, Unusable};
pub use self::stills::{StillLimits, Stills};
pub use self::trial::Codecs;
pub use self::workers::{Lane, Step, Workers};

use self::catalogue::Catalogue;
use self::ice::Ice;
use self::ladders::Ladders;
use self::load::{Demand, Load};
use self::losses::Losses;
use self::owner::{Inputs, Link, Metrics, Owner, Shown};
use self::path::PathMetrics;
use self::setup::{Passed, Setup, Whose};
use self::stages::{Applied, Stages, Takers, Traced};
use self::stats::Stats;
use self::viewers::Audience;
use crate::egress::packetize::Packetizer;
use crate::encode::{RateControl, rate};
use crate::infer;
use crate::ingest::{self, Ingest};
use crate::rtc::{self, Accepted, Peer, PeerConfig, Rejected, Role, Transport};
use crate::session::machine::{Machine, Timeouts};
use crate::session::options::{self, ModelFacts};
use crate::session::{
    Allowance, Answer, Claims, EVENTS_CAPACITY, EndReason, Handle, OpenRequest, Opener, Permit, Priority, Publisher,
    RESULTS_CAPACITY, Rate, Refusal, Registry, SessionId,
};
use crate::traces::Tracer;
use crate::tracker::Tracker;
use crate::{clock, decode, stillness};

/// Outputs of the stages that wait for the owner at most: a second of results and frames at 30 a second.
const OUTPUT_QUEUE: usize = 64;
/// Bits a second assumed of a path before anything is measured.
const START_BITRATE: u32 = 1_500_000;
/// Longest wait for the server's own candidates, where the answer has to hold them all.
const GATHERING_LIMIT: Duration = Duration::from_secs(5);

/// How sessions are run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Deadlines of each phase.
    pub timeouts: Timeouts,
    /// Model or route of sessions that name none.
    pub default_model: String,
    /// Latency budget of sessions that state none, in milliseconds.
    pub budget_ms: u32,
    /// Largest frame taken.
    pub limits: decode::Limits,
    /// Frames a second that are processed at most.
    pub max_fps: f64,
    /// Bits a second of video taken from a peer at most, in the long run.
    pub max_received_bps: u64,
    /// Whether to be an ICE-lite agent.
    pub ice_lite: bool,
    /// Bytes that may wait on one data channel.
    pub channel_buffer: usize,
    /// Bits a second of returned video at most.
    pub max_bitrate: u32,
    /// Messages that a peer may send on its control channel.
    pub control_rate: Rate,
    /// Whether sessions give something up when the machine cannot do everything in time.
    pub degradation: bool,
    /// Whether sessions are refused when there is no room for what they need.
    pub measured_admission: bool,
    /// When a session's scene counts as still, if answers are given again then.
    pub still: Option<stillness::Settings>,
    /// What the codecs were measured to take.
    pub codecs: Codecs,
    /// Bits a second that the network carries each way, if that is known.
    pub network_bps: Option<u64>,
    /// Traces set-ups and some of the frames.
    pub tracer: Tracer,
}

/// What every session needs.
struct Deps {
    transport: Arc<dyn Transport>,
    workers: Arc<Workers>,
    engine: Arc<infer::Engine>,
    registry: Arc<Registry>,
    settings: Settings,
    gpu: Option<Arc<Gpu>>,
    ladders: Arc<Ladders>,
    load: Arc<Load>,
}

/// Opens sessions and runs them.
pub struct Sessions(Arc<Deps>);

impl Sessions {
    /// Looks at how busy the machine is, and shows in the metrics how much of it the sessions need; to be called every
    /// second or so.
    pub fn look_at_load(&self) {
        self.0.load.spare().look();
        self.0.load.show();
    }

    /// Sessions on this transport, these codec threads, these models, and this GPU if there is one.
    #[must_use]
    pub fn new(
        transport: Arc<dyn Transport>,
        workers: Arc<Workers>,
        engine: Arc<infer::Engine>,
        registry: Arc<Registry>,
        settings: Settings,
        gpu: Option<Arc<Gpu>>,
    ) -> Self {
        let ladders = Arc::new(if settings.degradation { Ladders::default() } else { Ladders::off() });
        let load = Arc::new(Load::new(&settings.codecs, settings.network_bps));
        Self(Arc::new(Deps { transport, workers, engine, registry, settings, gpu, ladders, load }))
    }
}

#[async_trait]
impl Opener for Sessions {
    async fn open(&self, request: OpenRequest) -> Result<(Handle, Answer), Refusal> {
        let mut setup = Setup::begin(&self.0.settings.tracer, Whose::Session, request.caller.as_ref());
        let permit = self.0.registry.admit(&request.claims, request.address);
        let permit = permit.inspect_err(|refusal| setup::refused(&mut setup, refusal))?;
        let deps = Arc::clone(&self.0);
        let (reply, opened) = oneshot::channel();
        // A task of its own: a client that goes away while its offer is answered must not cancel the work half-way,
        // since the transport's peer has to be closed.
        tokio::spawn(run(deps, permit, request, setup, reply));
        opened.await.unwrap_or_else(|_| Err(Refusal::new(ErrorCode::Internal, "The server failed; connect again.")))
    }
}

/// A session that is to begin.
struct Opening {
    id: SessionId,
    permit: Permit,
    request: OpenRequest,
    setup: Option<Box<Setup>>,
    reply: Reply,
}

type Reply = oneshot::Sender<Result<(Handle, Answer), Refusal>>;

/// Opens a session, runs it to its end and clears up after it, however it ends.
async fn run(deps: Arc<Deps>, permit: Permit, request: OpenRequest, mut setup: Option<Box<Setup>>, reply: Reply) {
    let mut machine = Machine::new(clock::now(), deps.settings.timeouts);
    machine.handle_token(request.claims.expires);
    let id = SessionId::random();
    let models = Models { deps: &deps, claims: &request.claims };
    let applied = models.check(&request.options);
    let applied = applied.and_then(|()| options::open(&models, deps.settings.budget_ms, &request.options));
    // Whoever asked may have gone, here and wherever else the reply is not taken.
    let applied = match applied.and_then(|options| models.apply(options, &id, None)) {
        Ok(applied) => applied,
        Err(refusal) => {
            setup::refused(&mut setup, &refusal);
            return drop(reply.send(Err(refusal)));
        }
    };
    // Whether video goes back is known only when the offer was read.
    let needs = applied.needs(Takers { publisher: true, viewers: 0 });
    let demand = if deps.settings.measured_admission {
        match deps.load.admit(needs, deps.ladders.height(&applied.model_id)) {
            Some(demand) => demand,
            None => {
                let refusal = deps.registry.refuse_overload();
                setup::refused(&mut setup, &refusal);
                return drop(reply.send(Err(refusal)));
            }
        }
    } else {
        deps.load.enter(needs)
    };
    setup::passed(&mut setup, Passed::Admitted);
    let accepted = match accept(&deps, &request.sdp, deps.peer_config(Role::Publisher), due(&machine)).await {
        Ok(accepted) => accepted,
        Err(refused) => {
            setup::refused(&mut setup, &refused.refusal);
            drop(reply.send(Err(refused.refusal.clone())));
            // The place stays taken until nothing is left of it.
            return refused.clear().await;
        }
    };
    setup::passed(&mut setup, Passed::Answered);
    let peer = Arc::clone(&accepted.peer);
    serve(&deps, Opening { id, permit, request, setup, reply }, machine, applied, demand, accepted).await;
    // Again, for the ways on which the session did not begin.
    peer.close().await;
}

/// An offer that was not answered.
struct NotAccepted {
    refusal: Refusal,
    /// What may still come out of it.
    late: Option<JoinHandle<Result<Accepted, rtc::Error>>>,
}

impl NotAccepted {
    /// Closes what it has opened after all.
    async fn clear(self) {
        if let Some(late) = self.late
            && let Ok(Ok(accepted)) = late.await
        {
            accepted.peer.close().await;
        }
    }
}

/// Makes a peer for an offer. That is never cancelled half-way, since what it has opened by then has to be closed.
async fn accept(
    deps: &Deps,
    sdp: &str,
    config: PeerConfig,
    due: tokio::time::Instant,
) -> Result<Accepted, NotAccepted> {
    let (transport, sdp) = (Arc::clone(&deps.transport), sdp.to_owned());
    let mut accepting = tokio::spawn(async move { transport.accept(&sdp, config).await });
    let refused = |refusal| Err(NotAccepted { refusal, late: None });
    match tokio::time::timeout_at(due, &mut accepting).await {
        Ok(Ok(Ok(accepted))) => Ok(accepted),
        Ok(Ok(Err(error))) => refused(refusal(&error)),
        Ok(Err(panic)) => {
            tracing::error!(%panic, "answering an offer panicked");
            refused(failed(EndReason::Internal))
        }
        Err(_) => {
            tracing::warn!("an offer took too long to answer");
            Err(NotAccepted { refusal: failed(EndReason::OfferTimeout), late: Some(accepting) })
        }
    }
}

/// Runs a session to its end, and says why it ended, unless it did not begin.
async fn serve(
    deps: &Arc<Deps>,
    opening: Opening,
    machine: Machine,
    applied: Applied,
    demand: Arc<Demand>,
    accepted: Accepted,
) -> Option<EndReason> {
    let Opening { id, permit, request, setup, reply } = opening;
    let begun = match begin(deps, &id, (request, setup), machine, applied, demand, accepted).await {
        Ok(begun) => begun,
        Err(refusal) => {
            let _ = reply.send(Err(refusal));
            return None;
        }
    };
    let Begun { owner, inputs, handle, answer } = begun;
    let (stages, peer, codec) = (Arc::clone(&owner.stages), Arc::clone(&owner.peer), owner.shown.codec);
    let audience = Arc::clone(&owner.audience);
    permit.register(handle.clone());
    let span = tracing::info_span!("session", session_id = %id);
    let (reason, inputs) = if reply.send(Ok((handle, answer))).is_ok() {
        tracing::info!(parent: &span, codec, "session opened");
        // A task of its own, so that a panic in it ends this session only and still reaches what follows.
        match tokio::spawn(owner.run(inputs).instrument(span.clone())).await {
            Ok((reason, inputs)) => (reason, Some(inputs)),
            Err(error) => {
                tracing::error!(parent: &span, %error, "a session's owner panicked");
                (EndReason::Internal, None)
            }
        }
    } else {
        (EndReason::PeerClosed, None)
    };
    audience.close().await;
    stages.close();
    // Before the place is free again, and before a shutdown takes the session for ended.
    peer.close().await;
    deps.registry.remove(&id, reason);
    drop(inputs);
    tracing::info!(parent: &span, reason = %reason, "session ended");
    Some(reason)
}

/// A session that is ready to run.
struct Begun {
    owner: Owner,
    inputs: Inputs,
    handle: Handle,
    answer: Answer,
}

/// Starts the stages of a session and puts together what runs it.
async fn begin(
    deps: &Arc<Deps>,
    id: &SessionId,
    (request, mut setup): (OpenRequest, Option<Box<Setup>>),
    mut machine: Machine,
    applied: Applied,
    demand: Arc<Demand>,
    accepted: Accepted,
) -> Result<Begun, Refusal> {
    let Accepted { answer: accepted_answer, peer, events, packets } = accepted;
    let started = clock::now();
    let stats = Arc::new(Stats::default());
    let options = applied.options.clone();
    let (output_tx, outputs) = mpsc::channel(OUTPUT_QUEUE);
    let listeners = broadcast::Sender::new(RESULTS_CAPACITY);
    let witnesses = broadcast::Sender::new(EVENTS_CAPACITY);
    let bounds =
        rate::Config { max_bps: deps.settings.max_bitrate, assumed_bps: START_BITRATE, ..rate::Config::default() };
    let rate = RateControl::new(bounds, 640, 480, owner::NOMINAL_FPS);
    let config = stages::Config {
        session_id: id.as_str().to_owned(),
        codec: accepted_answer.codec,
        returns_video: accepted_answer.returns_video,
        limits: deps.settings.limits,
        gpu: deps.gpu.clone(),
        max_fps: deps.settings.max_fps,
        still: deps.settings.still,
        bitrate: rate.bitrate(),
        peer: Arc::clone(&peer),
        outputs: output_tx,
        listeners: listeners.clone(),
        stats: Arc::clone(&stats),
        ladders: Arc::clone(&deps.ladders),
        load: Arc::clone(&deps.load),
        demand,
        traced: Traced::new(
            deps.settings.tracer.clone(),
            id.as_str().to_owned(),
            accepted_answer.codec.name(),
            setup.as_ref().map(|setup| setup.context()),
        ),
    };
    if let Some(setup) = &mut setup {
        setup.of(id);
        setup.with(accepted_answer.codec.name(), &applied.model_id);
    }
    // Only now it is known whether the peer takes video back.
    config.demand.set_needs(applied.needs(Takers { publisher: config.returns_video, viewers: 0 }));
    let stages = Stages::start(&deps.workers, config, applied).map_err(|error| {
        tracing::error!(%error, "a session's stages did not start");
        Refusal::new(ErrorCode::Internal, "The server cannot decode this codec.")
    })?;
    let publisher = if machine.is_of_camera() { Publisher::Camera } else { Publisher::of(&request.claims) };
    let shown = Arc::new(Shown {
        id: id.clone(),
        is_of_camera: publisher == Publisher::Camera,
        started,
        codec: accepted_answer.codec.name(),
        options: ArcSwap::from_pointee(options.clone()),
        state: Mutex::new("connecting"),
        stats,
        path: Mutex::default(),
    });
    let view = Arc::clone(&shown);
    let stages = Arc::new(stages);
    let audience = Audience::new(
        Arc::clone(deps),
        Arc::clone(&stages),
        accepted_answer.codec,
        id.clone(),
        setup.as_ref().map(|setup| setup.context()),
    );
    let (handle, commands) = Handle::new(
        id.clone(),
        listeners,
        witnesses.clone(),
        move || view.view(),
        publisher,
        Arc::clone(&audience) as _,
    );
    setup::passed(&mut setup, Passed::Started);
    let sdp = if request.trickle {
        accepted_answer.sdp
    } else {
        let answer = complete_answer(peer.as_ref(), due(&machine)).await.inspect_err(|_| stages.close())?;
        setup::passed(&mut setup, Passed::Gathered);
        answer
    };
    machine.handle_offer(clock::now());
    let owner = Owner {
        deps: Arc::clone(deps),
        shown,
        peer,
        ice: Ice::new(request.sdp, &sdp),
        stages,
        audience,
        machine,
        ingest: Ingest::new(
            accepted_answer.codec,
            ingest::Config { max_bps: deps.settings.max_received_bps, ..ingest::Config::default() },
        ),
        packetizer: Packetizer::new(accepted_answer.codec, owner::PACKET_PAYLOAD),
        rate,
        signals: request.signals,
        has_channels: accepted_answer.data_channels,
        awaits_results_channel: accepted_answer.data_channels,
        mid: accepted_answer.mid,
        link: Link::new(started),
        witnesses,
        claims: request.claims,
        control_allowance: Allowance::new(started, deps.settings.control_rate),
        metrics: Metrics::new(),
        losses: Losses::new(),
        path: PathMetrics::new(),
        setup,
    };
    let (drain, mut models) = (deps.registry.draining(), deps.engine.changes());
    // There may have been changes since the session was given its own.
    models.mark_changed();
    let inputs = Inputs { commands, events, packets, outputs, drain, models };
    Ok(Begun { owner, inputs, handle, answer: Answer { sdp, options } })
}

/// When the answer to the offer is due.
fn due(machine: &Machine) -> tokio::time::Instant {
    machine.poll_timeout().unwrap_or_else(clock::now).into()
}

/// The refusal of an offer whose session could not begin.
fn failed(reason: EndReason) -> Refusal {
    let (code, message) = reason.error().unwrap_or((ErrorCode::Internal, "The server failed; connect again."));
    Refusal::new(code, message)
}

async fn complete_answer(peer: &dyn Peer, due: tokio::time::Instant) -> Result<String, Refusal> {
    let limit = due.min((clock::now() + GATHERING_LIMIT).into());
    match tokio::time::timeout_at(limit, peer.complete_answer()).await {
        Ok(answer) => answer.map_err(|error| refusal(&error)),
        Err(_) => Err(Refusal::new(ErrorCode::Internal, "The server found no address to offer; try again.")),
    }
}

impl Deps {
    fn peer_config(&self, role: Role) -> PeerConfig {
        PeerConfig {
            role,
            ice_lite: self.settings.ice_lite,
            channel_buffer: self.settings.channel_buffer,
            start_bandwidth: START_BITRATE.min(self.settings.max_bitrate),
            max_bandwidth: self.settings.max_bitrate,
        }
    }
}

/// What session options need to know of the models, as far as a publisher may use them.
struct Models<'a> {
    deps: &'a Deps,
    claims: &'a Claims,
}

impl Models<'_> {
    fn catalogue(&self) -> Catalogue<'_> {
        Catalogue { engine: &self.deps.engine, default: &self.deps.settings.default_model, claims: self.claims }
    }

    /// Passes if the publisher may use the model that the options name, if they name one.
    fn check(&self, patch: &OptionsPatch) -> Result<(), Refusal> {
        self.catalogue().check(patch.model.as_ref())
    }

    /// Options as the stages use them. `key` says which of a split's models a session gets; `kept` is what a session had
    /// under the name, for when the name is gone.
    fn apply(&self, options: Options, key: &SessionId, kept: Option<infer::Plan>) -> Result<Applied, Refusal> {
        let plan = self.deps.engine.resolve(&options.model, key.as_str()).ok().or(kept);
        let plan = plan.ok_or_else(|| {
            Refusal::new(
                ErrorCode::UnknownModel,
                format!("There is no model {}; see GET /v1/models and GET /v1/routes.", options.model),
            )
        })?;
        Ok(self.applied(options, plan))
    }

    /// Options as the stages use them with these models.
    fn applied(&self, options: Options, plan: infer::Plan) -> Applied {
        let ids = |names: &Vec<String>| {
            let wanted = plan.classes.iter().filter(|class| names.iter().any(|name| **name == *class.name));
            wanted.map(|class| class.id).collect()
        };
        let lowest =
            if options.track { Tracker::low_threshold(options.score_threshold) } else { options.score_threshold };
        let params = infer::Params {
            score_threshold: lowest,
            iou_threshold: options.iou_threshold,
            max_detections: options.max_detections as usize,
            classes: options.classes.as_ref().map(ids),
        };
        let orders = Arc::new(stages::Orders::new(&plan, params));
        let model_id = match plan.members.as_slice() {
            [only] => only.model.id().into(),
            _ => options.model.as_str().into(),
        };
        let priority = match self.claims.priority {
            Priority::Low => infer::Priority::Low,
            Priority::Normal => infer::Priority::Normal,
            Priority::High => infer::Priority::High,
        };
        Applied { options, plan, orders, model_id, priority }
    }
}

impl options::Models for Models<'_> {
    fn facts(&self, name: &str) -> Option<ModelFacts> {
        self.catalogue().facts(name)
    }

    fn names(&self) -> Vec<String> {
        self.catalogue().names()
    }
}

/// What the client is told when the transport refuses.
fn refusal(error: &rtc::Error) -> Refusal {
    let code = match error {
        rtc::Error::Rejected(Rejected::BadSdp | Rejected::NotBundled | Rejected::TooMany) => ErrorCode::BadSdp,
        rtc::Error::Rejected(Rejected::NoVideo | Rejected::TakesNoVideo) => ErrorCode::NoVideo,
        rtc::Error::Rejected(Rejected::NoCommonCodec | Rejected::OtherCodec(_)) => ErrorCode::NoCommonCodec,
        _ => {
            tracing::error!(%error, "the transport failed");
            return Refusal::new(ErrorCode::Internal, "The server failed to answer the offer; try again.");
        }
    };
    ice::said(code, error)
}

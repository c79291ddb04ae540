//! Builds everything from a validated configuration, and takes it down again in order.
//!
//! Start: the listeners and the media port are bound first, so that a taken address ends the start before anything costs time; then
//! the operators' listener answers; then models load and warm up; then clients are let in. Shutdown: `/readyz` fails
//! and nothing new is admitted; cameras are let go of at once, other sessions may end by themselves within the grace; then
//! sinks get what is left, then listeners, models and codec threads stop, in this order.

pub(crate) mod advice;
mod cameras;
mod catalog;
mod cluster;
mod devices;
mod gauges;
mod history;
mod kept;
mod memory;
mod results;
mod routes;
mod running;
mod secured;
mod sinks;
mod stills;
mod tensors;
mod traces;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use saccade_signaling::Limits;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::calibration::Calibration;
use crate::cli::Exit;
use crate::clock;
use crate::config::{AdmissionMode, Config};
use crate::decode;
#[cfg(feature = "cuda")]
use crate::device;
#[cfg(feature = "cuda")]
use crate::hardware::Piece;
use crate::hardware::Table;
use crate::http;
use crate::infer;
use crate::kserve;
use crate::memory::{Host, Source};
use crate::models;
use crate::pipeline::{self, Gpu, Sessions, Workers};
use crate::route::Route;
use crate::rtc::{self, WebRtc};
use crate::session::machine::Timeouts;
use crate::session::{Drain, Rate, Registry, Shares};
use crate::telemetry;
use crate::traces::Tracer;
use crate::tuning::Tuning;
use running::Running;
use secured::Secured;

pub use devices::Devices;

/// When clients of a server that shuts down should connect again, to whatever answers then.
const RECONNECT_AFTER: Duration = Duration::from_secs(1);
/// What stopping may take beyond the grace: closing peers, sending the last messages, joining threads.
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// What sinks may take to get the last messages where sessions took the whole grace.
const SINKS_LIMIT: Duration = Duration::from_secs(1);
/// How often it is looked at how busy the machine is.
const LOAD_PERIOD: Duration = Duration::from_secs(1);
/// Bits a second of returned video at most, in each session.
const MAX_BITRATE: u32 = 6_000_000;

/// A running server.
pub struct App {
    http_address: SocketAddr,
    is_secure: bool,
    ops_address: SocketAddr,
    grpc_address: Option<SocketAddr>,
    media_port: u16,
    registry: Arc<Registry>,
    workers: Arc<Workers>,
    running: Running,
    grace: Duration,
    /// Records how the devices are for as long as it is there.
    #[cfg(feature = "cuda")]
    _gauges: Option<device::watch::Watch>,
}

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be bound.
    #[error("{key}: cannot listen on {address}: {source}; choose another address or stop what uses it")]
    Listen {
        /// Key of the configuration.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// Models cannot run here.
    #[error(transparent)]
    Inference(#[from] infer::Error),
    /// The default model or routes of the configuration cannot be used with the models that were loaded.
    #[error(transparent)]
    Names(#[from] models::WrongNames),
    /// Cameras of the configuration cannot be used with the models that were loaded.
    #[error("{}", wrong.iter().map(|(name, error)| format!("cameras: {name}: {error}")).collect::<Vec<_>>().join("\n"))]
    Cameras {
        /// Each with its name and the reason.
        wrong: Vec<(String, String)>,
    },
    /// A sink cannot be used as it is configured.
    #[error(transparent)]
    Sinks(#[from] crate::sinks::Unusable),
    /// The authentication settings cannot be used.
    #[error(transparent)]
    Auth(#[from] http::auth::Error),
    /// Certificate or key cannot be used.
    #[error(transparent)]
    Tls(#[from] http::tls::Error),
    /// Hardware that the configuration insists on is missing.
    #[error("{}", missing.iter().map(|(key, reason)| format!("{key} = \"on\": {reason}")).collect::<Vec<_>>().join("\n"))]
    Hardware {
        /// Key of each stage, with the reason.
        missing: Vec<(&'static str, String)>,
    },
    /// Traces cannot be sent as the configuration says.
    #[error("telemetry.otlp_endpoint: {0}")]
    Traces(String),
    /// The system gave no threads.
    #[error("threads did not start: {0}")]
    Threads(std::io::Error),
    /// The program that checks models is not found.
    #[error("the program that checks models is not found: {0}; models.check = \"off\" does without")]
    Program(std::io::Error),
    /// The host has no name that can be this server's among others.
    #[error("cluster.name: the host's name cannot be used; set one")]
    Name,
    /// The registry of sessions cannot be used as it is configured.
    #[error("cluster.redis_url: {0}")]
    Cluster(String),
    /// A fault of the program.
    #[error("loading models panicked: {0}")]
    Panicked(String),
}

impl StartError {
    /// The exit code that tells this to whoever started the process.
    #[must_use]
    pub const fn exit(&self) -> Exit {
        match self {
            Self::Listen { .. } | Self::Inference(_) | Self::Hardware { .. } | Self::Threads(_) | Self::Program(_) => {
                Exit::Unavailable
            }
            Self::Names(_)
            | Self::Cameras { .. }
            | Self::Sinks(_)
            | Self::Auth(_)
            | Self::Tls(_)
            | Self::Traces(_)
            | Self::Name
            | Self::Cluster(_) => Exit::Configuration,
            Self::Panicked(_) => Exit::Internal,
        }
    }
}

impl App {
    /// Starts the server. Returns when it admits sessions.
    ///
    /// # Errors
    /// [`StartError`], with everything that was started stopped again.
    pub async fn start(
        config: &Config,
        tuning: &Tuning,
        devices: Devices,
        metrics: telemetry::metrics::Handle,
    ) -> Result<Self, StartError> {
        Self::start_watching(config, tuning, devices, metrics, Box::new(Host::default())).await
    }

    /// [`App::start`], with `host` to tell how much of the host's memory is in use.
    ///
    /// # Errors
    /// [`StartError`], with everything that was started stopped again.
    pub async fn start_watching(
        config: &Config,
        tuning: &Tuning,
        devices: Devices,
        metrics: telemetry::metrics::Handle,
        host: Box<dyn Source>,
    ) -> Result<Self, StartError> {
        let mut running = Running::new();
        match Self::build(config, tuning, devices, metrics, host, &mut running).await {
            Ok(build) => Ok(build(running)),
            Err(error) => {
                running.stop(clock::now() + SINKS_LIMIT).await;
                Err(error)
            }
        }
    }

    /// Starts everything, part by part. What is there when a part does not start is in `running`.
    async fn build(
        config: &Config,
        tuning: &Tuning,
        devices: Devices,
        metrics: telemetry::metrics::Handle,
        host: Box<dyn Source>,
        running: &mut Running,
    ) -> Result<impl FnOnce(Running) -> Self + use<>, StartError> {
        // Clients of libraries ask for it; that there is one already is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let secured = Secured::read(config)?;
        let (tracer, tracing) = traces::start(config).map_err(StartError::Traces)?;
        running.traces = tracing;
        let Devices { table, gpu } = devices;
        devices::insist(config.hw, &table)?;
        #[cfg(feature = "cuda")]
        let gauges = watch_devices(&table);
        let (http_listener, http_address) = bind("http.listen", config.http.listen).await?;
        let (ops_listener, ops_address) = bind("ops.listen", config.ops.listen).await?;
        let grpc = match config.grpc.listen {
            Some(listen) => Some(bind("grpc.listen", listen).await?),
            None => None,
        };
        let joined = cluster::join(config).await?;
        let transport = transport(config)?;
        let media_port = transport.port();
        let registry = Arc::new(Registry::shared(shares(config)));
        let engine_cell: Arc<OnceLock<Arc<infer::Engine>>> = Arc::default();
        let stopped = running.stop.subscribe();
        let servers = &mut running.servers;
        let queues = gauges::queues(metrics.clone());
        let (adviser, rendered, said) = (advice::Adviser::new(), metrics.clone(), memory::Said::default());
        let ops = ops(&registry, &engine_cell, table.clone(), metrics.clone(), said.clone());
        let ops = http::Ops { profiles: config.ops.profiles, ..ops };
        servers.spawn(http::listen(ops_listener, http::ops_router(ops), http::Door::default(), stopped.clone()));
        servers.spawn(every(telemetry::metrics::UPKEEP, stopped.clone(), move || metrics.upkeep()));

        let (engine, stock, kept) = load(config, tuning, table, gpu.clone()).await?;
        running.engine = Some(Arc::clone(&engine));
        let _ = engine_cell.set(Arc::clone(&engine));
        let workers = Arc::new(Workers::start(tuning.codec_threads).map_err(StartError::Threads)?);
        running.workers = Some(Arc::clone(&workers));
        let sessions = Sessions::new(
            Arc::new(transport),
            Arc::clone(&workers),
            Arc::clone(&engine),
            Arc::clone(&registry),
            pipeline::Settings { tracer: tracer.clone(), ..session_settings(config, tuning) },
            gpu,
        );
        let sessions = Arc::new(sessions);
        let cameras = cameras::Cameras::new(config, &sessions, &registry)?;
        let (outlets, sending) = crate::sinks::Sinks::start(config.sinks.clone())?;
        let feed = sinks::Feed::new(Arc::clone(&outlets));
        running.sinks = Some((Arc::clone(&feed), sending));
        if !outlets.is_empty() {
            registry.tell(Arc::clone(&feed) as _);
            for (name, changes) in cameras.changes() {
                let (telling, mut stopped) = (feed.camera(name, changes), stopped.clone());
                servers.spawn(async move {
                    tokio::select! {
                        () = telling => {}
                        _ = stopped.wait_for(|stop| *stop) => {}
                    }
                });
            }
        }
        let loaded = Arc::clone(&sessions);
        servers.spawn(every(LOAD_PERIOD, stopped.clone(), move || loaded.look_at_load()));
        let default = config.models.default.clone();
        let catalog = Arc::new(catalog::Catalog::start(stock).map_err(StartError::Threads)?);
        running.catalog = Some(Arc::clone(&catalog));
        let routes = routes::Routes { engine: Arc::clone(&engine), default, kept };
        let pictures = stills::start(config, &engine, &registry).map_err(StartError::Threads)?;
        let pictures = running.pictures.insert(pictures);
        let results = results::start(config).await;
        running.results.clone_from(&results);
        #[cfg(feature = "cuda")]
        let fullest = gauges.as_ref().map(device::watch::Watch::fullest);
        #[cfg(not(feature = "cuda"))]
        let fullest = None;
        let watch = memory::watch(config.memory.limits(), host, fullest);
        let (at, kept) =
            (Arc::clone(&registry), memory::Kept { results: results.clone(), engine: Arc::clone(&engine) });
        servers.spawn(memory::look_after(watch, said, at, kept, stopped.clone()));
        servers.spawn(Arc::clone(&adviser).watch(rendered, Arc::clone(&engine), stopped.clone()));
        let detect = pictures.view(&engine, results.as_ref());
        let history = &*running.history.insert(history::Kept::start(config));
        let settings = http::Settings {
            history: history.reader(),
            queues,
            tracer,
            advice: Arc::new(move || adviser.view()),
            cluster: joined.as_ref().map(|(cluster, _)| Arc::clone(cluster)),
            ..http_settings(config, http_address, &secured)
        };
        let gate = Some(Arc::clone(&settings.gate));
        let door = http::Door { tls: secured.tls.clone(), gate, protocol: http::Protocol::Any };
        let is_secure = settings.is_secure;
        let tensors: Arc<dyn kserve::Models> = Arc::new(tensors::TensorModels {
            engine: Arc::clone(&engine),
            registry: Arc::clone(&registry),
            catalog: Arc::clone(&catalog) as _,
        });
        let grpc_address = grpc.as_ref().map(|(_, address)| *address);
        if let Some((listener, _)) = grpc {
            let door = http::Door { protocol: http::Protocol::Http2, ..door.clone() };
            let router = http::grpc_router(&settings, Arc::clone(&tensors))?;
            servers.spawn(http::listen(listener, router, door, stopped.clone()));
        }
        let services = http::Services {
            registry: Arc::clone(&registry),
            opener: Arc::clone(&sessions) as _,
            models: Arc::clone(&catalog) as _,
            routes: Arc::new(routes),
            cameras: cameras.view(),
            stills: Arc::clone(&detect),
            tensors,
            sinks: Arc::new(sinks::View(outlets)),
        };
        let http::Routers { public, peers } = http::routers(settings, services)?;
        if let Some((cluster, listener)) = joined {
            servers.spawn(cluster::tell(&cluster, &registry, stopped.clone()));
            servers.spawn(http::listen(listener, peers, http::Door::default(), stopped.clone()));
        }
        if results.is_some() {
            servers.spawn(results::warm(detect, config.cache.warm.clone(), stopped.clone()));
        }
        history.record(&registry);
        cameras.run(servers, &sessions);
        servers.spawn(secured.watch(stopped.clone()));
        servers.spawn(http::listen(http_listener, public, door, stopped));
        let grace = config.shutdown.grace;
        Ok(move |running| Self {
            http_address,
            is_secure,
            ops_address,
            grpc_address,
            media_port,
            registry,
            workers,
            running,
            grace,
            #[cfg(feature = "cuda")]
            _gauges: gauges,
        })
    }

    /// Address of the page, signaling and the API.
    #[must_use]
    pub const fn http_address(&self) -> SocketAddr {
        self.http_address
    }

    /// Whether that is to be reached by HTTPS.
    #[must_use]
    pub const fn is_secure(&self) -> bool {
        self.is_secure
    }

    /// Address of health and metrics.
    #[must_use]
    pub const fn ops_address(&self) -> SocketAddr {
        self.ops_address
    }

    /// Address of the inference protocol over gRPC, if it is offered.
    #[must_use]
    pub const fn grpc_address(&self) -> Option<SocketAddr> {
        self.grpc_address
    }

    /// Port of media, over UDP and TCP.
    #[must_use]
    pub const fn media_port(&self) -> u16 {
        self.media_port
    }

    /// The sessions that run now.
    #[must_use]
    pub const fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// Places taken on codec threads: two a session.
    #[must_use]
    pub fn lanes(&self) -> usize {
        self.workers.lanes()
    }

    /// Lets sessions end by themselves within the grace, ends the rest, and stops everything.
    pub async fn shut_down(self) {
        let deadline = clock::now() + self.grace;
        self.registry.drain(Drain { deadline, reconnect_after: RECONNECT_AFTER });
        if !self.registry.wait_empty(deadline + STOP_LIMIT).await {
            tracing::warn!(sessions = self.registry.len(), "sessions did not end in time");
        }
        // What is still to be told is told within the grace, or within the least time that makes sense.
        let last = deadline.max(clock::now() + SINKS_LIMIT);
        self.running.stop(last).await;
    }
}

/// Binds an address, and says which: port 0 is any free one.
async fn bind(key: &'static str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    let refused = |source| StartError::Listen { key, address, source };
    let listener = TcpListener::bind(address).await.map_err(refused)?;
    let address = listener.local_addr().map_err(refused)?;
    tracing::info!(key, %address, "listening");
    Ok((listener, address))
}

/// Binds the media port.
fn transport(config: &Config) -> Result<WebRtc, StartError> {
    let listen = rtc::Listen {
        addresses: vec![config.media.listen],
        port: config.media.port,
        advertise: config.media.advertise.clone(),
    };
    let transport =
        WebRtc::bind(listen).map_err(|(address, source)| StartError::Listen { key: "media.port", address, source })?;
    tracing::info!(key = "media.port", address = %SocketAddr::new(config.media.listen, transport.port()), "listening");
    Ok(transport)
}

/// Does something again and again until the server stops.
async fn every(period: Duration, mut stopped: watch::Receiver<bool>, work: impl Fn() + Send) {
    let mut timer = tokio::time::interval(period);
    loop {
        tokio::select! {
            _ = timer.tick() => work(),
            _ = stopped.wait_for(|stop| *stop) => return,
        }
    }
}

/// Where there is a device, its metrics; without them everything else goes on.
#[cfg(feature = "cuda")]
fn watch_devices(hardware: &Table) -> Option<device::watch::Watch> {
    hardware.works(Piece::Device).ok()?;
    let watch = device::watch::Watch::start(device::watch::Library::open);
    watch.inspect_err(|error| tracing::warn!(%error, "the devices have no metrics")).ok()
}

fn ops(
    registry: &Arc<Registry>,
    engine: &Arc<OnceLock<Arc<infer::Engine>>>,
    hardware: Table,
    metrics: telemetry::metrics::Handle,
    said: memory::Said,
) -> http::Ops {
    let (registry, engine) = (Arc::clone(registry), Arc::clone(engine));
    let models: http::Check = Arc::new(move || match engine.get() {
        None => Err("models are being loaded".to_owned()),
        Some(engine) => match engine.models().iter().find_map(|model| Some((model.id(), model.unready()?))) {
            Some((model, reason)) => Err(format!("model {model}: {reason}")),
            None => Ok(()),
        },
    });
    let draining: http::Check =
        Arc::new(move || if registry.is_draining() { Err("the server is shutting down".to_owned()) } else { Ok(()) });
    http::Ops {
        checks: vec![("models", models), ("draining", draining)],
        warnings: vec![("memory", Arc::new(move || said.check()))],
        hardware,
        metrics: Arc::new(move || metrics.render()),
        profiles: false,
    }
}

/// The routes that were put over HTTP, which the next start has again.
///
/// # Errors
/// A sentence, where their file can't be read.
pub fn kept_routes(config: &Config) -> Result<BTreeMap<String, Route>, String> {
    let Some(path) = config.models.routes_file.path() else { return Ok(BTreeMap::new()) };
    let kept = kept::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(kept.unwrap_or_default().into_iter().map(|(name, route)| (name, routes::from_wire(route))).collect())
}

/// Checks what can be checked of a configuration by reading the files that it names, without starting anything.
///
/// # Errors
/// [`StartError::Auth`] and [`StartError::Tls`].
pub fn check(config: &Config) -> Result<(), StartError> {
    Secured::read(config).map(drop)
}

const fn shares(config: &Config) -> Shares {
    let all = match config.admission.mode {
        AdmissionMode::Off => None,
        _ => Some(config.admission.max_sessions as usize),
    };
    Shares { all, subject: config.limits.sessions_per_subject, address: config.limits.sessions_per_address }
}

fn session_settings(config: &Config, tuning: &Tuning) -> pipeline::Settings {
    pipeline::Settings {
        timeouts: Timeouts {
            ice: config.session.ice_timeout,
            idle: config.session.idle_timeout,
            resume: config.session.resume,
            max_duration: config.session.max_duration,
            ..Timeouts::default()
        },
        default_model: config.models.default.clone(),
        budget_ms: u32::try_from(config.session.budget.as_millis()).unwrap_or(u32::MAX),
        limits: decode::Limits { max_width: config.limits.width, max_height: config.limits.height },
        max_fps: f64::from(config.limits.fps),
        max_received_bps: u64::from(config.limits.bitrate_kbps) * 1_000,
        ice_lite: config.media.ice_lite,
        channel_buffer: config.limits.channel_buffer_bytes,
        max_bitrate: MAX_BITRATE,
        control_rate: message_rate(config),
        degradation: config.degradation.auto,
        measured_admission: config.admission.mode == AdmissionMode::Measured,
        still: config.session.still,
        codecs: tuning.codecs.clone(),
        network_bps: tuning.network_bps,
        tracer: Tracer::off(),
    }
}

const fn message_rate(config: &Config) -> Rate {
    Rate { per_second: config.rate.messages_per_s, burst: config.rate.message_burst }
}

fn quota(config: &Config) -> http::Quota {
    let rate = |per_second: Option<u32>, burst| per_second.map(|per_second| Rate { per_second, burst });
    http::Quota {
        requests: rate(config.rate.requests_per_s, config.rate.request_burst),
        connections: rate(config.rate.connections_per_s, config.rate.connection_burst),
        open: config.limits.connections_per_address,
        loopback: config.rate.loopback,
    }
}

fn http_settings(config: &Config, address: SocketAddr, secured: &Secured) -> http::Settings {
    http::Settings {
        public_url: config.http.public_url.clone(),
        allowed_origins: config.http.allowed_origins.clone(),
        loopback_only: address.ip().is_loopback() && config.auth.is_none(),
        ice_servers: config.ice_servers.clone(),
        limits: Limits {
            width: config.limits.width,
            height: config.limits.height,
            fps: config.limits.fps,
            message_bytes: config.limits.message_bytes,
            sdp_bytes: config.limits.sdp_bytes,
        },
        auth: secured.auth.clone(),
        gate: Arc::new(http::Gate::new(quota(config), config.http.trusted_proxies.clone())),
        is_secure: secured.tls.is_some(),
        rate: message_rate(config),
        tensor_bytes: config.limits.tensor_bytes,
        stills: stills::bounds(config),
        ..http::Settings::default()
    }
}

/// The address to show to people: a wildcard is no address to open.
#[must_use]
pub fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(std::net::Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Loads the models that the configuration and kept routes want, and adds the routes. A model that cannot be used is left
/// out with its reason; those of the configured routes and the default have to be there. The default may be a kept route.
async fn load(
    config: &Config,
    tuning: &Tuning,
    hardware: Table,
    gpu: Option<Arc<Gpu>>,
) -> Result<(Arc<infer::Engine>, Arc<catalog::Stock>, kept::Kept), StartError> {
    let (config, around_model) = (config.clone(), tuning.codecs.around_model());
    let loading = tokio::task::spawn_blocking(move || {
        let calibration = Calibration::standard(config.models.calibration);
        let cuda = models::cuda(&hardware, gpu.as_deref());
        let (engines, checker) = (infer::Engines::Meanwhile, models::checker(&config).map_err(StartError::Program)?);
        let options = infer::Options { around_model, engines, checker, ..models::options(&config, calibration, cuda) };
        let engine = Arc::new(infer::Engine::new(options)?);
        let kept = kept::Kept::open(&config.models.routes_file);
        let stock = catalog::Stock::load_all(Arc::clone(&engine), &config, &routes::models_of(&kept, &config));
        let stock = stock.inspect_err(|_| engine.shutdown())?;
        engine.all_loaded();
        let task = |name: &str| engine.get(name).map(|model| model.manifest().task);
        if let Err(error) = models::name(&config, engine.routes(), task, || routes::restore(&engine, &kept)) {
            engine.shutdown();
            return Err(error.into());
        }
        Ok((engine, stock, kept))
    });
    loading.await.unwrap_or_else(|panic| Err(StartError::Panicked(panic.to_string())))
}

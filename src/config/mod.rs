//! Configuration: defaults < `saccade.toml` < environment (`SACCADE_<SECTION>__<KEY>`) < flags.
//!
//! [`Sources`] go in, a valid [`Config`] or all [`Mistakes`] at once come out. Runs once at start-up on the main
//! thread, before a port is bound or a device is touched. It opens no file but the configuration and those of secrets.

mod auth;
mod cache;
mod cameras;
mod cluster;
mod grpc;
mod ice;
mod layers;
mod memory;
mod mistakes;
pub mod models;
mod reader;
mod routes;
mod secret;
mod sinks;
mod store;
mod tables;
mod telemetry;
mod types;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

pub use auth::{ApiKey, Auth};
pub use cache::{Cache, Disk};
pub use cameras::Camera;
pub use cluster::Cluster;
pub use grpc::Grpc;
pub use layers::{DEFAULT_FILE, File, Flag, Sources};
pub use memory::Memory;
pub use mistakes::{Mistake, Mistakes};
pub use models::Models;
pub use store::{Place as StorePlace, Store};
pub use telemetry::{Telemetry, Traces};
pub use types::{AdmissionMode, Hardware};

use ipnet::IpNet;

use crate::ice::Server as IceServer;
use crate::route::Route;
use crate::secret::Secret;
use crate::stillness;
use reader::{Raw, Reader};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// A whole, valid configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The public HTTP listener: page, signaling, API.
    pub http: Http,
    /// The operators' HTTP listener.
    pub ops: Ops,
    /// The inference protocol over gRPC.
    pub grpc: Grpc,
    /// The media port.
    pub media: Media,
    /// STUN and TURN servers that clients are told of, none by default. Each costs clients time to gather candidates.
    pub ice_servers: Vec<IceServer>,
    /// Where models are.
    pub models: Models,
    /// Names that stand for several models, none by default. An ensemble costs the time of all its models for each frame, a
    /// shadow that of one more.
    pub routes: BTreeMap<String, Route>,
    /// Cameras whose video the server pulls by itself, none by default. Each is a session that is never closed.
    pub cameras: Vec<Camera>,
    /// Where events and results go, nowhere by default. Each costs a queue, and a connection while it takes something.
    pub sinks: Vec<crate::sinks::Config>,
    /// Use of special hardware.
    pub hw: Hw,
    /// How many sessions there may be.
    pub admission: Admission,
    /// When memory is scarce, and when it is short.
    pub memory: Memory,
    /// What sessions give up under load.
    pub degradation: Degradation,
    /// How many threads there are.
    pub threads: Threads,
    /// What a peer may not exceed.
    pub limits: Limits,
    /// How often a peer may ask.
    pub rate: Rate,
    /// What each session begins with.
    pub session: Session,
    /// Results of still pictures that are given again.
    pub cache: Cache,
    /// Where history is kept.
    pub store: Store,
    /// The other servers, if this is one of several; by default it is alone.
    pub cluster: Option<Cluster>,
    /// How the process ends.
    pub shutdown: Shutdown,
    /// What the process says about itself.
    pub telemetry: Telemetry,
    /// How clients prove who they are; absent by default: nobody is asked, and only loopback is served.
    pub auth: Option<Auth>,
}

/// `[http]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http {
    /// Address and port; default `127.0.0.1:8080`, port 0 takes any free one. Beyond loopback, others reach the
    /// server, so that `[auth]` or `--insecure` is asked for.
    pub listen: SocketAddr,
    /// URL under which clients reach the server, without a slash at the end; default: made from the request.
    pub public_url: Option<String>,
    /// Origins whose pages may call the API, or `*`; default: only the server's own. Each one more can spend the
    /// server's time from its visitors' browsers.
    pub allowed_origins: Vec<String>,
    /// Proxies whose `X-Forwarded-For` or `Forwarded` tells who asks, none by default. Whoever sits at one of these
    /// addresses can pass for anybody.
    pub trusted_proxies: Vec<IpNet>,
    /// Certificate chain and private key in PEM, read again when they change; by default none: HTTP is not secured.
    pub tls: Option<TlsFiles>,
}

/// `http.tls_cert` and `http.tls_key`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, and those between it and its root.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// `[ops]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ops {
    /// Address and port of health and metrics; default `127.0.0.1:9180`. It asks nobody for a token: keep it off
    /// public networks.
    pub listen: SocketAddr,
    /// Whether it also takes profiles of the process; default false. A profile interrupts each thread a hundred times for
    /// each second that it works, and from the first one on tables of symbols stay in memory: some hundred megabytes.
    pub profiles: bool,
}

/// `[media]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Media {
    /// Local address for media; default `0.0.0.0`: all of them.
    pub listen: IpAddr,
    /// The one UDP port that all sessions are to share; default 8189. It is not built yet and has no effect: each
    /// session takes a free UDP port of its own.
    pub port: u16,
    /// Addresses to offer to clients instead of the local ones, such as the public address of a NAT; none by default.
    pub advertise: Vec<IpAddr>,
    /// Whether the server only answers connectivity checks (RFC 8445 section 2.5); default false. True saves a few
    /// packets a session and needs a server that clients can reach directly.
    pub ice_lite: bool,
}

/// `[hw]`: hardware for each stage, by default used where it works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hw {
    /// Decoders.
    pub decode: Hardware,
    /// Encoders.
    pub encode: Hardware,
    /// Devices for models; off leaves the plain CPU.
    pub infer: Hardware,
}

impl Hw {
    /// Whether any stage may use it.
    #[must_use]
    pub fn is_wanted(self) -> bool {
        [self.decode, self.encode, self.infer].into_iter().any(|stage| stage != Hardware::Off)
    }
}

/// `[admission]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admission {
    /// How it is decided; default `measured`.
    pub mode: AdmissionMode,
    /// Sessions at once at most, unless the mode is `off`; default 32. Each costs up to 40 MiB and its share of the
    /// CPU: with too many, every session answers fewer frames.
    pub max_sessions: u32,
    /// Megabits a second that the network carries each way, looked at where the mode is `measured`; default (`auto`): the
    /// speed of the fastest interface that is up, where the kernel knows it. Sessions are refused when they would need
    /// more than 85 % of it.
    pub bandwidth_mbps: Option<u32>,
}

/// `[limits]`: what a peer may not exceed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Largest SDP, in bytes; default 64 KiB. More costs parsing time before anyone is known.
    pub sdp_bytes: usize,
    /// Largest signaling message, in bytes; default 64 KiB. More costs memory for each socket.
    pub message_bytes: usize,
    /// Widest frame, in pixels; default 1920. Memory and time grow with width × height.
    pub width: u32,
    /// Highest frame, in pixels; default 1920, so that phones may stand upright.
    pub height: u32,
    /// Frames a second that are processed; default 60. More costs CPU in every stage.
    pub fps: u32,
    /// Thousands of bits a second of video that are taken from one peer in the long run; default 50 000. What is beyond is
    /// dropped packet by packet, which costs keyframes. More costs time in every stage.
    pub bitrate_kbps: u32,
    /// Bytes that may wait in a data channel, default 1 MiB; beyond, the oldest results are dropped. More costs
    /// memory for each slow client, and gives it older results.
    pub channel_buffer_bytes: usize,
    /// Bytes of the tensors of one request of the inference protocol, default 64 MiB. More costs memory: four such
    /// requests, each with its answer, may be in memory at a time over HTTP, and sixteen over gRPC.
    pub tensor_bytes: usize,
    /// Bytes of a still picture; default 16 MiB. Sixteen times as many are held in memory at a time, of all requests
    /// together.
    pub image_bytes: usize,
    /// Pixels of a still picture, read from its header before anything is decoded; default 16 million. Four times as many
    /// are held in memory at a time, with up to eight bytes each.
    pub image_pixels: u64,
    /// Still pictures in one request; default 16. More let one request hold its connection longer.
    pub images: u32,
    /// Sessions at a time of all tokens with one `sub`; default none. A token's claim `max_sessions` may bind it closer.
    pub sessions_per_subject: Option<usize>,
    /// Sessions at a time from one address (of IPv6, from one /64 network); default none. Many people may share one.
    pub sessions_per_address: Option<usize>,
    /// Connections at a time from one address, other than this machine's and trusted proxies'; default 1024. With fewer,
    /// one address takes less of what there is for all; with too few, offices behind one address are shut out.
    pub connections_per_address: Option<u32>,
}

/// `[rate]`. Rates of addresses do not bind this machine's own, unless [`loopback`](Self::loopback) says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Signaling messages a second on one socket in the long run, default 20; a client that sends more is closed with
    /// 4429. More lets one client spend more CPU.
    pub messages_per_s: u32,
    /// Signaling messages that may come at once, default 100: an offer and its candidates do. More costs the same.
    pub message_burst: u32,
    /// HTTP requests a second from one address in the long run, default 100; beyond, they are answered with 429. More lets
    /// one address spend more CPU.
    pub requests_per_s: Option<u32>,
    /// HTTP requests that may come at once from one address, default 400. More costs the same.
    pub request_burst: u32,
    /// Connections a second from one address in the long run, default 50, trusted proxies excepted; beyond, what comes on
    /// them is answered with 429, and over TLS they are closed. More lets one address spend more CPU, of handshakes above
    /// all.
    pub connections_per_s: Option<u32>,
    /// Connections that may come at once from one address, default 200. More costs the same.
    pub connection_burst: u32,
    /// Whether this machine's own addresses are held to rates and numbers of connections; default false.
    pub loopback: bool,
}

/// `[session]`: what each session begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    /// Latency budget, last packet in to first packet out, of sessions that name none; default 200 ms. More lets
    /// frames wait longer for the model before they are dropped.
    pub budget: Duration,
    /// How long a session lives on without its socket, waiting to be resumed; default 10 s. More holds its memory
    /// and its place longer.
    pub resume: Duration,
    /// How long ICE may take; default 10 s. More holds a place for peers that cannot connect.
    pub ice_timeout: Duration,
    /// How long no media may come; default 30 s. More holds a place for peers that are gone.
    pub idle_timeout: Duration,
    /// How long a session may last; unlimited by default.
    pub max_duration: Option<Duration>,
    /// When a scene counts as still, so that the last result is given again instead of asking the model; by default that is
    /// never done. It saves runs of models where cameras see nothing move, and misses what is smaller than a
    /// thirty-second of the picture's width.
    pub still: Option<stillness::Settings>,
}

/// `[degradation]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Degradation {
    /// Whether sessions give something up when the machine cannot do everything in time; default `auto`. `off` leaves
    /// it to chance which frames are answered.
    pub auto: bool,
}

/// `[threads]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Threads {
    /// For decoding, drawing and encoding; default (`auto`): as many as were measured to do the most together. More than
    /// cores cost switches between them, fewer leave cores to other programs.
    pub codec: Option<usize>,
    /// For sockets, HTTP and timers; default (`auto`): the share of the cores that transport was measured to need. Idle
    /// ones cost a wake-up for each packet, too few make packets wait.
    pub network: Option<usize>,
    /// For decoding still pictures; default (`auto`): one a core. They step back behind those of live video; fewer leave
    /// more to models.
    pub stills: Option<usize>,
}

/// `[shutdown]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shutdown {
    /// How long sessions may take to end after SIGTERM; default 30 s. More delays the exit.
    pub grace: Duration,
}

impl Config {
    /// Merges the sources and checks everything.
    ///
    /// # Errors
    /// All mistakes at once.
    pub fn load(sources: &Sources) -> Result<Self, Mistakes> {
        let (config, _, mistakes) = read(sources);
        if mistakes.is_empty() { Ok(config) } else { Err(mistakes) }
    }
}

impl Default for Config {
    /// What no source at all gives.
    fn default() -> Self {
        read(&Sources::default()).0
    }
}

/// Reads every key; what is wrong keeps its default beside its mistake. Also gives the names of all keys.
fn read(sources: &Sources) -> (Config, Vec<&'static str>, Mistakes) {
    let mut reader = Reader::new(sources);
    let from = &mut reader;
    let auth = Auth::read(from);
    let config = Config {
        http: Http::read(from, auth.is_some() || sources.insecure),
        grpc: Grpc::read(from, auth.is_some() || sources.insecure),
        ops: Ops {
            listen: socket(from, "ops.listen", SocketAddr::from((Ipv4Addr::LOCALHOST, 9180))),
            profiles: from.flag("ops.profiles", false),
        },
        media: Media::read(from),
        ice_servers: ice::read(from),
        models: Models::read(from),
        routes: routes::read(from),
        cameras: Camera::read_all(from, &sources.environment),
        sinks: sinks::read_all(from, &sources.environment),
        hw: Hw {
            decode: hardware(from, "hw.decode"),
            encode: hardware(from, "hw.encode"),
            infer: hardware(from, "hw.infer"),
        },
        admission: Admission::read(from),
        memory: Memory::read(from),
        degradation: Degradation::read(from),
        threads: Threads {
            codec: from.number_or_auto("threads.codec", 1..=1024, ""),
            network: from.number_or_auto("threads.network", 1..=1024, ""),
            stills: from.number_or_auto("threads.stills", 1..=1024, ""),
        },
        limits: Limits::read(from),
        rate: Rate::read(from),
        session: Session::read(from),
        cache: Cache::read(from),
        store: Store::read(from),
        cluster: Cluster::read(from),
        shutdown: Shutdown { grace: from.millis("shutdown.grace_ms", 30_000, 0..=3_600_000) },
        telemetry: Telemetry::read(from),
        auth,
    };
    let (keys, mistakes) = reader.finish();
    (config, keys, mistakes)
}

impl Http {
    fn read(from: &mut Reader, anyone: bool) -> Self {
        let default = SocketAddr::from((Ipv4Addr::LOCALHOST, 8080));
        let listen = from.traced("http.listen", SOCKET, false, parse_socket).map_or(default, |(listen, given)| {
            if !listen.ip().is_loopback() && !anyone {
                from.mistake(
                    &given,
                    "must be a loopback address while there is no authentication: set auth.secret, \
                     auth.secret_file, auth.jwks_file or auth.api_keys, or give --insecure to serve anyone",
                );
            }
            listen
        });
        Self {
            listen,
            public_url: from.optional(
                "http.public_url",
                "a URL such as \"https://vision.example\", without a slash at the end",
                |raw| raw.string().filter(|url| is_http(url) && !url.ends_with('/')),
            ),
            allowed_origins: from.read(
                "http.allowed_origins",
                Vec::new(),
                "a list of origins such as \"https://app.example\", or [\"*\"]",
                |raw| raw.list(|origin| (origin == "*" || is_origin(origin)).then(|| origin.to_owned())),
            ),
            trusted_proxies: from.read(
                "http.trusted_proxies",
                Vec::new(),
                "a list of addresses or networks, such as \"10.0.0.0/8\"",
                |raw| raw.list(network),
            ),
            tls: TlsFiles::read(from),
        }
    }
}

impl TlsFiles {
    fn read(from: &mut Reader) -> Option<Self> {
        let path = |raw: &Raw| raw.filled().map(PathBuf::from);
        let certificate = from.traced("http.tls_cert", "a file's name", false, path);
        let key = from.traced("http.tls_key", "a file's name", false, path);
        match (certificate, key) {
            (Some((certificate, _)), Some((key, _))) => Some(Self { certificate, key }),
            (None, None) => None,
            (Some((_, given)), None) => {
                from.mistake(&given, "needs http.tls_key beside it");
                None
            }
            (None, Some((_, given))) => {
                from.mistake(&given, "needs http.tls_cert beside it");
                None
            }
        }
    }
}

impl Media {
    fn read(from: &mut Reader) -> Self {
        Self {
            listen: from.read(
                "media.listen",
                IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                "an IP address, such as \"0.0.0.0\"",
                |raw| raw.string()?.parse().ok(),
            ),
            port: from.number("media.port", 8189, 0..=u16::MAX, ""),
            advertise: from.read("media.advertise", Vec::new(), "a list of IP addresses", |raw| {
                raw.list(|address| address.parse::<IpAddr>().ok().filter(|address| !address.is_unspecified()))
            }),
            ice_lite: from.flag("media.ice_lite", false),
        }
    }
}

impl Admission {
    fn read(from: &mut Reader) -> Self {
        let modes =
            [("measured", AdmissionMode::Measured), ("fixed", AdmissionMode::Fixed), ("off", AdmissionMode::Off)];
        Self {
            mode: from.choice("admission.mode", AdmissionMode::Measured, &modes),
            max_sessions: from.number("admission.max_sessions", 32, 1..=100_000, ""),
            bandwidth_mbps: from.number_or_auto("admission.bandwidth_mbps", 1..=1_000_000, " (megabits a second)"),
        }
    }
}

impl Degradation {
    fn read(from: &mut Reader) -> Self {
        Self { auto: from.choice("degradation.mode", true, &[("auto", true), ("off", false)]) }
    }
}

impl Limits {
    fn read(from: &mut Reader) -> Self {
        let bytes = |from: &mut Reader, key, default: u64, range: std::ops::RangeInclusive<u64>| {
            usize::try_from(from.number(key, default, range, " (bytes)")).unwrap_or(usize::MAX)
        };
        Self {
            sdp_bytes: bytes(from, "limits.sdp_bytes", 64 * KIB, 4 * KIB..=64 * KIB),
            message_bytes: bytes(from, "limits.message_bytes", 64 * KIB, 4 * KIB..=64 * KIB),
            width: from.number("limits.width", 1920, 16..=8192, " (pixels)"),
            height: from.number("limits.height", 1920, 16..=8192, " (pixels)"),
            fps: from.number("limits.fps", 60, 1..=240, " (frames a second)"),
            bitrate_kbps: from.number("limits.bitrate_kbps", 50_000, 100..=1_000_000, " (kilobits a second)"),
            channel_buffer_bytes: bytes(from, "limits.channel_buffer_bytes", MIB, 16 * KIB..=64 * MIB),
            tensor_bytes: bytes(from, "limits.tensor_bytes", 64 * MIB, MIB..=1024 * MIB),
            image_bytes: bytes(from, "limits.image_bytes", 16 * MIB, 64 * KIB..=64 * MIB),
            image_pixels: from.number("limits.image_pixels", 16_000_000, 65_536..=64_000_000, " (pixels)"),
            images: from.number("limits.images", 16, 1..=256, " (pictures)"),
            sessions_per_subject: unless_zero(from.number("limits.sessions_per_subject", 0, 0..=100_000, " (0: any)")),
            sessions_per_address: unless_zero(from.number("limits.sessions_per_address", 0, 0..=100_000, " (0: any)")),
            connections_per_address: unless_zero(from.number(
                "limits.connections_per_address",
                1024,
                0..=100_000,
                " (0: any)",
            )),
        }
    }
}

impl Rate {
    fn read(from: &mut Reader) -> Self {
        let per_second = " (a second; 0: any)";
        Self {
            messages_per_s: from.number("rate.messages_per_s", 20, 1..=10_000, ""),
            message_burst: from.number("rate.message_burst", 100, 1..=10_000, ""),
            requests_per_s: unless_zero(from.number("rate.requests_per_s", 100, 0..=100_000, per_second)),
            request_burst: from.number("rate.request_burst", 400, 1..=100_000, ""),
            connections_per_s: unless_zero(from.number("rate.connections_per_s", 50, 0..=100_000, per_second)),
            connection_burst: from.number("rate.connection_burst", 200, 1..=100_000, ""),
            loopback: from.flag("rate.loopback", false),
        }
    }
}

impl Session {
    fn read(from: &mut Reader) -> Self {
        Self {
            budget: from.millis("session.budget_ms", 200, 10..=5000),
            resume: from.millis("session.resume_ms", 10_000, 0..=600_000),
            ice_timeout: from.millis("session.ice_timeout_ms", 10_000, 1000..=120_000),
            idle_timeout: from.millis("session.idle_timeout_ms", 30_000, 1000..=3_600_000),
            max_duration: from
                .optional("session.max_duration_s", "a whole number from 1 to 31536000 (seconds)", |raw| {
                    raw.number().filter(|seconds| (1..=31_536_000).contains(seconds))
                })
                .map(Duration::from_secs),
            still: still(from),
        }
    }
}

fn still(from: &mut Reader) -> Option<stillness::Settings> {
    let is_on = from.flag("session.still_gate", false);
    let settings = stillness::Settings {
        threshold: from.number("session.still_threshold", 2, 1..=64, " (levels of 256)"),
        max_reuse: from.millis("session.still_reuse_ms", 1000, 50..=60_000),
        check_every: from.number("session.still_check_every", 30, 2..=100_000, " (frames)"),
    };
    is_on.then_some(settings)
}

/// Zero stands for no bound.
fn unless_zero<N: PartialEq + From<u8>>(number: N) -> Option<N> {
    (number != N::from(0)).then_some(number)
}

/// An address is a network of one.
fn network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

const SOCKET: &str = "an IP address and a port, such as \"127.0.0.1:8080\"";

fn socket(from: &mut Reader, key: &'static str, default: SocketAddr) -> SocketAddr {
    from.read(key, default, SOCKET, parse_socket)
}

fn parse_socket(raw: &Raw) -> Option<SocketAddr> {
    raw.string()?.trim().parse().ok()
}

fn hardware(from: &mut Reader, key: &'static str) -> Hardware {
    let legal = "\"auto\", \"on\" or \"off\"";
    from.read(key, Hardware::Auto, legal, |raw| match raw.string()?.as_str() {
        "auto" => Some(Hardware::Auto),
        "off" => Some(Hardware::Off),
        "on" => Some(Hardware::On),
        _ => None,
    })
}

fn is_http(url: &str) -> bool {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/') && !rest.contains(char::is_whitespace))
}

/// Scheme, host and port only (RFC 6454 section 6.2).
fn is_origin(origin: &str) -> bool {
    is_http(origin) && origin.matches('/').count() == 2 && !origin.contains(['?', '#', '@'])
}

fn is_model(name: &str) -> bool {
    let word = |word: &str| {
        !word.is_empty()
            && !word.starts_with('.')
            && word.chars().all(|one| one.is_ascii_alphanumeric() || "._-".contains(one))
    };
    name.split_once('@').map_or_else(|| word(name), |(name, version)| word(name) && word(version))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests;

//! Pulls video from network cameras over RTSP (RFC 2326).
//!
//! What enters: what the configuration says of a camera, and the RTP packets that it sends. What leaves: the same packets
//! as one stream, however often the connection is made anew, and a [`Status`] for people. [`Camera::pull`] runs on Tokio
//! wherever its owner runs it, and stops when it is dropped; nothing here blocks, and every wait has a deadline. It knows
//! nothing of sessions, and nothing of the video but how parameter sets are packed.

mod backoff;
mod connection;
mod failure;
mod relay;
mod status;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use metrics::{Counter, Gauge, counter, gauge};
use retina::client::SessionGroup;
use tokio::sync::broadcast;
use url::Url;

use self::backoff::Backoff;
use self::connection::Connection;
pub use self::failure::Failure;
use self::relay::Relay;
pub use self::status::{State, Status};
use crate::clock;
use crate::media::RtpPacket;

/// A connection that lasted so long was a good one: after it, the first wait is the shortest again.
const GOOD: Duration = Duration::from_secs(10);
/// How long a camera that refuses the password is left alone, unless the longest wait is longer: many lock a user out who
/// tries again and again.
const DENIED: Duration = Duration::from_secs(300);
/// How long packets may come without a picture. Some cameras send a keyframe every 20 seconds, and none on request.
const NO_PICTURE: Duration = Duration::from_secs(60);
/// How often it is looked whether pictures come.
const LOOK: Duration = Duration::from_secs(1);
/// Changes kept for each listener; a slower one loses the oldest.
const CHANGES: usize = 16;
/// How long the end of a connection may take to tell the camera.
const TEARDOWN_LIMIT: Duration = Duration::from_secs(1);

/// One camera, as the configuration has it.
#[derive(Clone)]
pub struct Config {
    /// Its name, unlike any other camera's: it goes into paths, logs and metrics.
    pub name: Arc<str>,
    /// Where it is, without user name and password.
    pub url: Url,
    /// User name and password, if it asks for them.
    pub credentials: Option<Credentials>,
    /// How packets come.
    pub transport: Transport,
    /// How long it may take to answer, and how long it may send nothing then.
    pub timeout: Duration,
    /// The shortest wait before another try.
    pub shortest_wait: Duration,
    /// The longest one.
    pub longest_wait: Duration,
}

/// Who asks a camera for its video. Neither shows in logs.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// User name.
    pub username: String,
    /// Password.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Credentials(hidden)")
    }
}

/// How a camera's packets come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Transport {
    /// Through the connection over which it was asked for them: none are lost.
    #[default]
    Tcp,
    /// As datagrams, to ports of their own: those that are lost or overtaken are missing.
    Udp,
}

/// Where packets go.
#[async_trait]
pub trait Sink: Send + Sync {
    /// Packets come from now on (`true`), or none do any more (`false`).
    fn connected(&self, connected: bool);
    /// Takes a packet; where it cannot yet, it waits, and the camera with it.
    async fn packet(&self, packet: RtpPacket);
    /// How many frames were decoded so far: if it stays the same, there is something wrong with the packets.
    fn decoded(&self) -> u64;
}

/// One camera and what is known of it. It is kept while connections and whatever takes their packets come and go.
pub struct Camera {
    config: Config,
    known: Mutex<Known>,
    /// Connections whose end the camera may not know of yet.
    ended: Arc<SessionGroup>,
    changes: broadcast::Sender<Change>,
    metrics: Metrics,
}

/// Whether a camera sends, and if not, why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// It sends.
    Live,
    /// It does not, for this reason. Further failures for the same reason are not told.
    Lost(Failure),
}

struct Known {
    state: State,
    /// What was told last.
    told: Option<Change>,
    connects: u64,
    failures: u64,
    backoff: Backoff,
}

impl fmt::Debug for Camera {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Camera").field("name", &self.config.name).finish_non_exhaustive()
    }
}

impl Camera {
    /// A camera that nobody has asked for anything yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let known = Known {
            state: State::Connecting { since: clock::now() },
            told: None,
            connects: 0,
            failures: 0,
            backoff: Backoff::new(config.shortest_wait, config.longest_wait),
        };
        let metrics = Metrics::new(&config.name);
        let changes = broadcast::Sender::new(CHANGES);
        Self { config, known: Mutex::new(known), ended: Arc::default(), changes, metrics }
    }

    /// What changes from now on.
    #[must_use]
    pub fn changes(&self) -> broadcast::Receiver<Change> {
        self.changes.subscribe()
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.config.name
    }

    /// What it is doing.
    #[must_use]
    pub fn status(&self) -> Status {
        let known = self.lock();
        Status { state: known.state.clone(), connects: known.connects, failures: known.failures }
    }

    /// Connects again and again, and hands on what comes. Never ends by itself: drop it, and then await
    /// [`Camera::released`].
    pub async fn pull(&self, sink: &dyn Sink) {
        let mut relay = Relay::default();
        loop {
            self.enter(State::Connecting { since: clock::now() });
            let failure = match Connection::open(&self.config, &self.ended).await {
                Ok(connection) => self.watch(connection, &mut relay, sink).await,
                Err(failure) => failure,
            };
            // So that a camera that serves one at a time has a place again.
            self.released().await;
            self.wait(failure).await;
        }
    }

    /// Hands on packets until something is wrong.
    async fn watch(&self, mut connection: Connection, relay: &mut Relay, sink: &dyn Sink) -> Failure {
        let up = Up::new(self, sink);
        relay.begin(connection.parameters());
        let (mut pictures, mut seen) = (sink.decoded(), clock::now());
        let mut look = seen + LOOK;
        loop {
            let packet = match connection.packet(self.config.timeout).await {
                Ok(packet) => packet,
                Err(failure) => return failure,
            };
            let now = clock::now();
            for packet in relay.take(packet, now) {
                // Whoever takes packets is stuck, or gone: then this is about to be dropped.
                if tokio::time::timeout(self.config.timeout, sink.packet(packet)).await.is_err() {
                    return Failure::NotTaken;
                }
            }
            if now < look {
                continue;
            }
            look = now + LOOK;
            let decoded = sink.decoded();
            if std::mem::replace(&mut pictures, decoded) != decoded {
                seen = now;
                up.settle(now);
            } else if now >= seen + NO_PICTURE {
                return Failure::NoPicture;
            }
        }
    }

    /// Tells why there is no video, and waits until it is time to try again.
    pub async fn wait(&self, failure: Failure) {
        let wait = {
            let mut known = self.lock();
            known.failures += 1;
            let denied = matches!(failure, Failure::Unauthorized | Failure::Forbidden);
            let wait = known.backoff.wait(chance());
            let wait = if denied { self.config.longest_wait.max(DENIED) } else { wait };
            let since = clock::now();
            known.state = State::Waiting { since, until: since + wait, reason: failure.clone() };
            self.tell(&mut known, Change::Lost(failure.clone()));
            wait
        };
        counter!("saccade_camera_failures_total", "camera" => self.config.name.to_string(), "reason" => failure.code())
            .increment(1);
        tracing::warn!(camera = %self.config.name, reason = failure.code(), wait_s = wait.as_secs_f64(), "no video: {failure}");
        tokio::time::sleep(wait).await;
    }

    /// Lets the waits begin with the shortest again.
    pub fn reset(&self) {
        self.lock().backoff.reset();
    }

    /// Waits until the camera knows of every connection that it has ended, for a moment at most.
    pub async fn released(&self) {
        match tokio::time::timeout(TEARDOWN_LIMIT, self.ended.await_teardown()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "a camera was not told of the end"),
            Err(_) => tracing::debug!("a camera does not answer that it knows of the end"),
        }
    }

    fn enter(&self, state: State) {
        self.lock().state = state;
    }

    fn tell(&self, known: &mut Known, change: Change) {
        let is_same = match (&known.told, &change) {
            (Some(Change::Lost(before)), Change::Lost(now)) => before.code() == now.code(),
            (before, now) => before.as_ref() == Some(now),
        };
        if !is_same {
            known.told = Some(change.clone());
            // Nobody may be listening.
            let _ = self.changes.send(change);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that is up, until it is dropped.
struct Up<'a> {
    camera: &'a Camera,
    sink: &'a dyn Sink,
    since: Instant,
}

impl<'a> Up<'a> {
    fn new(camera: &'a Camera, sink: &'a dyn Sink) -> Self {
        let since = clock::now();
        {
            let mut known = camera.lock();
            known.connects += 1;
            known.state = State::Live { since };
            camera.tell(&mut known, Change::Live);
        }
        camera.metrics.connects.increment(1);
        camera.metrics.up.set(1.0);
        tracing::info!(camera = %camera.config.name, "connected");
        sink.connected(true);
        Self { camera, sink, since }
    }

    /// Pictures come: after a while, the waits begin anew.
    fn settle(&self, now: Instant) {
        if now >= self.since + GOOD {
            self.camera.lock().backoff.reset();
        }
    }
}

impl Drop for Up<'_> {
    fn drop(&mut self) {
        self.camera.metrics.up.set(0.0);
        self.camera.enter(State::Connecting { since: clock::now() });
        self.sink.connected(false);
    }
}

/// Metric handles of one camera. Names of cameras are configuration, so there are as many labels as cameras.
struct Metrics {
    up: Gauge,
    connects: Counter,
}

impl Metrics {
    fn new(name: &str) -> Self {
        let up = gauge!("saccade_camera_up", "camera" => name.to_owned());
        up.set(0.0);
        Self { up, connects: counter!("saccade_camera_connects_total", "camera" => name.to_owned()) }
    }
}

/// A random number, 0..1; a half where the system gives none.
fn chance() -> f64 {
    let number = getrandom::u32().unwrap_or(u32::MAX / 2);
    f64::from(number) / f64::from(u32::MAX)
}

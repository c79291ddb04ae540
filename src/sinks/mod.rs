//! Events and results for others: webhooks, MQTT brokers, NATS servers.
//!
//! What enters: [`Message`]s, whose JSON is made already, and [`Change`]s of what is true now. What leaves: requests and
//! publications, and what becomes of each message as a metric and in [`Status`]. Each sink has a task of its own on Tokio
//! that takes messages out of a queue of its own; [`Sinks::publish`] puts them in, on whatever thread calls it.
//!
//! It must not slow whoever publishes: nothing of [`Sinks::publish`] and [`Sinks::tell`] waits for a sink, and what a queue
//! has no room for is dropped and counted, results before events. It must not wait without a deadline, hold more than its
//! bounds, or show an address or a secret. It knows nothing of sessions and pipelines, and reads no JSON but answers.

mod address;
mod backlog;
mod backoff;
mod client;
mod dead_letters;
mod failure;
mod filter;
mod message;
mod mqtt;
mod nats;
mod outlet;
mod signature;
mod stream;
mod tls;
mod webhook;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rustls::ClientConfig;
use tokio::sync::watch;
use tokio::task::JoinSet;

pub use self::dead_letters::DeadLetters;
pub use self::failure::Failure;
pub use self::filter::Filter;
pub use self::message::{Change, Kind, Message, Source};
pub use self::mqtt::Mqtt;
pub use self::nats::{Nats, NatsLogin};
use self::outlet::{Outcome, Outlet};
pub use self::outlet::{State, Status};
pub use self::signature::Key;
pub use self::tls::trust;
pub use self::webhook::Webhook;

/// When a sink that failed is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// The shortest wait, which doubles with each failure.
    pub shortest: Duration,
    /// The longest one.
    pub longest: Duration,
    /// How often one message is tried (of webhooks; brokers are tried until the message is too old).
    pub max_attempts: u32,
}

/// What is the same for all kinds of sinks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its name, unlike any other sink's: it goes into logs, metrics and the API.
    pub name: Arc<str>,
    /// Which messages it takes.
    pub filter: Filter,
    /// Messages that may wait.
    pub queue: usize,
    /// How long a message may wait.
    pub max_age: Duration,
    /// Where messages go that it did not take; by default nowhere.
    pub dead_letters: Option<DeadLetters>,
}

/// One sink.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// What is the same for all kinds.
    pub target: Target,
    /// Certificates of whom it trusts, in PEM; by default those of the system.
    pub ca_file: Option<PathBuf>,
    /// What is its own.
    pub way: Way,
}

/// How messages get to a sink.
#[derive(Debug, Clone, PartialEq)]
pub enum Way {
    /// As requests over HTTP.
    Webhook(Webhook),
    /// Through an MQTT broker.
    Mqtt(Mqtt),
    /// Through a NATS server.
    Nats(Nats),
}

impl Way {
    /// `webhook`, `mqtt` or `nats`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Webhook(_) => "webhook",
            Self::Mqtt(_) => "mqtt",
            Self::Nats(_) => "nats",
        }
    }
}

/// All sinks of the configuration.
pub struct Sinks {
    sinks: Vec<Sink>,
    close: watch::Sender<bool>,
}

struct Sink {
    kind: &'static str,
    outlet: Arc<Outlet>,
    kept: Option<Arc<mqtt::Kept>>,
}

/// A sink cannot be used as it is configured.
#[derive(Debug, thiserror::Error)]
#[error("sinks: {name}: {reason}")]
pub struct Unusable {
    /// Its name.
    pub name: Arc<str>,
    /// A sentence.
    pub reason: String,
}

/// The tasks of all sinks. Await [`Running::close`].
pub struct Running {
    tasks: JoinSet<()>,
    sinks: Arc<Sinks>,
}

impl Sinks {
    /// Starts a task for each sink; they connect when there is something to send, or, where the server's state is kept
    /// there, at once.
    ///
    /// # Errors
    /// [`Unusable`] for the first that cannot be used: its file of certificates cannot be read.
    pub fn start(configs: Vec<Config>) -> Result<(Arc<Self>, Running), Unusable> {
        let (close, closing) = watch::channel(false);
        let (mut sinks, mut tasks) = (Vec::new(), JoinSet::new());
        for Config { target, ca_file, way } in configs {
            let name = Arc::clone(&target.name);
            let unusable = |reason| Unusable { name: Arc::clone(&name), reason };
            let tls = trust(ca_file.as_deref()).map_err(|error| unusable(format!("ca_file: {error}")))?;
            let (kind, outlet) = (way.name(), Arc::new(Outlet::new(target, closing.clone())));
            let kept = match &way {
                Way::Mqtt(mqtt) => Some(Arc::new(mqtt::Kept::new(mqtt))),
                Way::Webhook(_) | Way::Nats(_) => None,
            };
            run(&mut tasks, way, tls, Arc::clone(&outlet), kept.clone()).map_err(unusable)?;
            sinks.push(Sink { kind, outlet, kept });
        }
        let sinks = Arc::new(Self { sinks, close });
        Ok((Arc::clone(&sinks), Running { tasks, sinks }))
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sinks.is_empty()
    }

    /// Whether any sink ever takes messages of this kind from this source.
    #[must_use]
    pub fn ever_want(&self, source: &Source, kind: Kind) -> bool {
        self.sinks.iter().any(|sink| sink.outlet.ever_wants(source, kind))
    }

    /// Whether any sink keeps the state of this source.
    #[must_use]
    pub fn keep_state(&self, source: &Source) -> bool {
        self.sinks.iter().any(|sink| sink.kept.is_some() && sink.outlet.target.filter.takes_source(source))
    }

    /// Whether any sink takes a message of this kind and name now, so that it is worth making.
    #[must_use]
    pub fn want(&self, source: &Source, kind: Kind, name: &str, now: Instant) -> bool {
        self.sinks.iter().any(|sink| sink.outlet.wants(source, kind, name, now))
    }

    /// Hands a message to every sink that takes it. Never waits.
    pub fn publish(&self, message: &Message) {
        for sink in &self.sinks {
            sink.outlet.push(message);
        }
    }

    /// Tells every sink that keeps state what has changed. Never waits.
    pub fn tell(&self, source: &Source, change: &Change) {
        for sink in &self.sinks {
            if *change == Change::Ended {
                sink.outlet.forget(source);
            }
            if let Some(kept) = &sink.kept
                && sink.outlet.target.filter.takes_source(source)
            {
                kept.apply(source, change);
            }
        }
    }

    /// All sinks, in the order of the configuration.
    #[must_use]
    pub fn list(&self) -> Vec<Status> {
        self.sinks.iter().map(|sink| sink.outlet.status(sink.kind)).collect()
    }
}

impl Running {
    /// Has the sinks send what they have, until `deadline`; what is left is given up. A sink that fails meanwhile is not
    /// tried again.
    pub async fn close(mut self, deadline: Instant) {
        self.sinks.close.send_replace(true);
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout_at(deadline.into(), ended).await.is_err() {
            tracing::warn!("sinks did not take everything in time");
        }
        self.tasks.shutdown().await;
        for sink in &self.sinks.sinks {
            sink.outlet.give_up_all(Outcome::Shutdown).await;
        }
    }
}

fn run(
    tasks: &mut JoinSet<()>,
    way: Way,
    tls: ClientConfig,
    outlet: Arc<Outlet>,
    kept: Option<Arc<mqtt::Kept>>,
) -> Result<(), String> {
    match (way, kept) {
        (Way::Webhook(webhook), _) => {
            let mut client = webhook.client(tls)?;
            tasks.spawn(async move { webhook.run(&mut client, &outlet).await });
        }
        (Way::Nats(nats), _) => {
            tasks.spawn(async move { nats.run(&tls, &outlet).await });
        }
        (Way::Mqtt(mqtt), Some(kept)) => {
            let tls = Arc::new(tls);
            tasks.spawn(async move { mqtt.run(&tls, &outlet, &kept).await });
        }
        (Way::Mqtt(_), None) => return Err("has no state to keep".to_owned()),
    }
    Ok(())
}

/// A time as RFC 3339 has it, in UTC, with milliseconds: `2026-01-31T09:30:00.000Z`.
#[must_use]
pub fn rfc3339(time: SystemTime) -> String {
    let time = time::OffsetDateTime::from(time);
    let (year, month, day) = time.to_calendar_date();
    let (hour, minute, second, millisecond) = time.to_hms_milli();
    let month = u8::from(month);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millisecond:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_for_everybody() {
        let at = |millis| rfc3339(SystemTime::UNIX_EPOCH + Duration::from_millis(millis));
        assert_eq!(at(0), "1970-01-01T00:00:00.000Z");
        // `date -u -d @1772281845 +%FT%TZ`
        assert_eq!(at(1_772_281_845_007), "2026-02-28T12:30:45.007Z");
    }
}

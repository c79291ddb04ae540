//! Models that other servers run: Saccade, Triton, or whatever speaks the protocol over gRPC.
//!
//! Each [`Remote`] is one model at one or several endpoints. A request goes to the one with the fewest under way, and
//! again to another one if nobody was there, as long as its deadline and the [budget](budget) allow that: running a model
//! changes nothing, so that it may be asked twice. Endpoints that fail are left alone until a probe of their health
//! succeeds. Sockets are the business of a runtime of its own with one thread; requests are waited for where they are
//! made, which is no thread of that runtime.

mod breaker;
mod budget;
mod endpoint;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use metrics::counter;
use tokio::runtime::{Builder, Runtime};
use tokio::time::{sleep, timeout};

use self::breaker::Failure;
use self::budget::Budget;
use self::endpoint::{Endpoint, Trouble};
use super::{Metadata, Request, Response};
use crate::clock;
use crate::secret::Secret;

/// How often it is looked at whether an endpoint is to be probed.
const LOOK_PERIOD: Duration = Duration::from_millis(100);
/// How long a probe, or a question about a model, may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// How often endpoints are probed that answer.
const PROBE_PERIOD: Duration = Duration::from_secs(5);
/// Time that has to be left for a request to be sent again.
const WORTHWHILE: Duration = Duration::from_millis(5);
/// Endpoints of one model at most.
pub const MAX_ENDPOINTS: usize = 16;

/// Where a model runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `http://HOST:PORT` or `https://HOST:PORT` of each endpoint's gRPC.
    pub urls: Vec<String>,
    /// The model's name there.
    pub model: String,
    /// Its version there; none: the newest.
    pub version: Option<String>,
    /// How long a request may take, whatever time is left.
    pub timeout: Duration,
    /// Certificates, in PEM, that those of the endpoints are signed with; none: the system's.
    pub certificates: Option<String>,
    /// What is sent as `authorization: Bearer`.
    pub token: Option<Secret>,
    /// Bytes of an answer's tensors at most.
    pub limit: usize,
}

/// Why another server did not run a model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The settings cannot be used.
    #[error("{problem}")]
    Settings {
        /// What is wrong with them.
        problem: String,
    },
    /// No endpoint answers.
    #[error("no endpoint of the model answers: {reason}")]
    Unreachable {
        /// What the last one said, without its address.
        reason: String,
    },
    /// There was no answer in time.
    #[error("there was no answer in time")]
    Late,
    /// An endpoint refused the request.
    #[error("the endpoint refused: {reason}")]
    Refused {
        /// What it said.
        reason: String,
    },
}

/// A model at other servers. Dropped, it is probed no more.
#[derive(Debug)]
pub struct Remote {
    endpoints: Vec<Endpoint>,
    budget: Budget,
    timeout: Duration,
    /// Where the search for an endpoint begins.
    turn: AtomicUsize,
    metadata: OnceLock<Arc<Metadata>>,
}

impl Remote {
    /// Makes ready to ask; connections are made when they are needed.
    ///
    /// # Errors
    /// [`Error::Settings`].
    pub fn new(settings: &Settings) -> Result<Arc<Self>, Error> {
        let runtime = runtime()?;
        let _inside = runtime.enter();
        let endpoints = settings.urls.iter().map(|url| Endpoint::new(url, settings)).collect::<Result<Vec<_>, _>>()?;
        if endpoints.is_empty() {
            return Err(Error::Settings { problem: "there is no endpoint".to_owned() });
        }
        let (budget, turn) = (Budget::full(), AtomicUsize::new(0));
        let (timeout, metadata) = (settings.timeout, OnceLock::new());
        let remote = Arc::new(Self { endpoints, budget, timeout, turn, metadata });
        runtime.spawn(probe(Arc::downgrade(&remote)));
        Ok(remote)
    }

    /// What the model takes and gives, by the first endpoint that says it. They are asked again and again for so long.
    ///
    /// # Errors
    /// [`Error`] of the last endpoint.
    pub fn describe(&self, patience: Duration) -> Result<Arc<Metadata>, Error> {
        runtime()?.block_on(async {
            let give_up = clock::now() + patience;
            loop {
                let mut last = Error::Late;
                for endpoint in &self.endpoints {
                    match timeout(PROBE_TIMEOUT, endpoint.describe()).await {
                        Ok(Ok(metadata)) => {
                            endpoint.succeed();
                            return Ok(Arc::clone(self.metadata.get_or_init(|| Arc::new(metadata))));
                        }
                        Ok(Err(trouble)) => last = trouble.into(),
                        Err(_) => last = Error::Late,
                    }
                }
                if clock::now() >= give_up {
                    return Err(last);
                }
                sleep(LOOK_PERIOD).await;
            }
        })
    }

    /// What [`Self::describe`] found.
    #[must_use]
    pub fn metadata(&self) -> Option<&Arc<Metadata>> {
        self.metadata.get()
    }

    /// Has the model run and waits for that, until `deadline` or as long as the settings allow.
    ///
    /// # Errors
    /// [`Error`].
    pub fn run(&self, request: Request, deadline: Option<Instant>) -> Result<Response, Error> {
        runtime()?.block_on(self.infer(request, deadline))
    }

    /// The same for whoever does not block.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn infer(&self, mut request: Request, deadline: Option<Instant>) -> Result<Response, Error> {
        let due = deadline.into_iter().chain([clock::now() + self.timeout]).min();
        let due = due.unwrap_or_else(clock::now);
        self.budget.earn();
        let mut tried = Vec::with_capacity(2);
        let mut last = None;
        loop {
            let left = due.saturating_duration_since(clock::now());
            if left.is_zero() {
                return Err(last.unwrap_or(Error::Late));
            }
            let Some(at) = self.choose(&tried) else {
                let reason = || self.unavailable().unwrap_or_else(|| "none is left".to_owned());
                return Err(last.unwrap_or_else(|| Error::Unreachable { reason: reason() }));
            };
            tried.push(at);
            request.timeout = Some(left);
            let endpoint = &self.endpoints[at];
            let under_way = endpoint.under_way();
            let asked = timeout(left, endpoint.infer(request.clone())).await;
            drop(under_way);
            match asked {
                Ok(Ok(response)) => {
                    endpoint.succeed();
                    record("done");
                    return Ok(response);
                }
                Ok(Err(Trouble::Gone(reason))) => {
                    endpoint.fail(Failure::Gone, &reason);
                    last = Some(Error::Unreachable { reason });
                }
                Ok(Err(Trouble::Late)) | Err(_) => {
                    endpoint.fail(Failure::Late, "there was no answer in time");
                    record("late");
                    return Err(Error::Late);
                }
                Ok(Err(trouble @ Trouble::Refused(_))) => {
                    record("refused");
                    return Err(trouble.into());
                }
            }
            let left = due.saturating_duration_since(clock::now());
            if left < WORTHWHILE || self.choose(&tried).is_none() || !self.budget.spend() {
                record("unreachable");
                return Err(last.unwrap_or(Error::Late));
            }
            counter!("saccade_remote_retries_total").increment(1);
        }
    }

    /// Why the model cannot be asked; none: it can.
    #[must_use]
    pub fn unavailable(&self) -> Option<String> {
        let mut reasons = Vec::new();
        for endpoint in &self.endpoints {
            match endpoint.trouble() {
                None => return None,
                Some(reason) if !reasons.contains(&reason) => reasons.push(reason),
                Some(_) => {}
            }
        }
        Some(format!("none of its endpoints answers: {}", reasons.join("; ")))
    }

    /// The endpoint with the fewest requests under way of those that answer, but for these.
    fn choose(&self, tried: &[usize]) -> Option<usize> {
        let (count, turn) = (self.endpoints.len(), self.turn.fetch_add(1, Ordering::Relaxed));
        let order = (0..count).map(|n| (turn.wrapping_add(n)) % count);
        let open = order.filter(|at| !tried.contains(at) && self.endpoints[*at].trouble().is_none());
        open.min_by_key(|at| self.endpoints[*at].load())
    }

    async fn probe_once(&self, all: bool) {
        let due = self.endpoints.iter().filter(|endpoint| all || endpoint.is_due());
        let probes = due.map(|endpoint| async move {
            match timeout(PROBE_TIMEOUT, endpoint.probe()).await {
                Ok(Ok(())) => endpoint.succeed(),
                Ok(Err(trouble)) => endpoint.fail_probe(&Error::from(trouble).to_string()),
                Err(_) => endpoint.fail_probe("there was no answer in time"),
            }
        });
        futures_util::future::join_all(probes).await;
    }
}

/// Probes until nobody needs it any more.
async fn probe(remote: Weak<Remote>) {
    let mut everybody = clock::now();
    loop {
        let Some(remote) = remote.upgrade() else { return };
        let now = clock::now();
        let all = now >= everybody;
        if all {
            everybody = now + PROBE_PERIOD;
        }
        remote.probe_once(all).await;
        drop(remote);
        sleep(LOOK_PERIOD).await;
    }
}

fn record(outcome: &'static str) {
    counter!("saccade_remote_requests_total", "outcome" => outcome).increment(1);
}

/// The runtime of all remote models of the process.
fn runtime() -> Result<&'static Runtime, Error> {
    static RUNTIME: OnceLock<Result<Runtime, String>> = OnceLock::new();
    let made = RUNTIME.get_or_init(|| {
        let runtime = Builder::new_multi_thread().worker_threads(1).thread_name("remote-models").enable_all().build();
        runtime.map_err(|error| error.to_string())
    });
    made.as_ref().map_err(|error| Error::Settings { problem: format!("there is no thread for it: {error}") })
}

impl From<Trouble> for Error {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Gone(reason) => Self::Unreachable { reason },
            Trouble::Late => Self::Late,
            Trouble::Refused(reason) => Self::Refused { reason },
        }
    }
}

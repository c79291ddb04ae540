use std::time::{Duration, Instant};

use metrics::{Counter, Histogram, counter, histogram};
use prost::Message;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Client, StatusCode};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, sleep_until, timeout, timeout_at};

use super::proto::{self, Clocks, KeyValue};
use super::{Span, Value};
use crate::clock;
use crate::secret::Secret;
use crate::telemetry::EverySecond;

/// Spans of one request at most.
const BATCH: usize = 512;
/// How long spans wait for others to be sent with.
const GATHERING: Duration = Duration::from_millis(500);
/// Longest time that one request may take.
const REQUEST_LIMIT: Duration = Duration::from_secs(5);
/// Longest time that it is tried to hand one batch on, before it is dropped.
const BATCH_LIMIT: Duration = Duration::from_secs(10);
/// Wait before the second try, twice as long before each one after that.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// Bytes of an answer that are read.
const MAX_ANSWER: u64 = 64 * 1024;

static FAILED: EverySecond = EverySecond::new();

/// Where spans go.
#[derive(Debug, Clone)]
pub struct Collector {
    /// URL that takes `POST` of OTLP/HTTP in protobuf, such as `http://127.0.0.1:4318/v1/traces`.
    pub url: String,
    /// Headers of each request, such as `authorization`.
    pub headers: Vec<(String, Secret)>,
    /// Which of several servers this one is.
    pub instance: String,
}

/// The task that exports.
#[derive(Debug)]
pub struct Running {
    closing: watch::Sender<Option<Instant>>,
    task: JoinHandle<()>,
}

impl Running {
    /// Takes no more spans, hands on those that wait, and ends by `last` at the latest.
    pub async fn close(mut self, last: Instant) {
        self.closing.send_replace(Some(last));
        if timeout_at(last.into(), &mut self.task).await.is_err() {
            self.task.abort();
            let _ = (&mut self.task).await;
        }
    }
}

pub(super) fn start(collector: Collector, spans: mpsc::Receiver<Vec<Span>>) -> Result<Running, String> {
    let Collector { url, headers, instance } = collector;
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let name = HeaderName::try_from(name.as_str()).map_err(|_| format!("{name:?} is no name of a header"))?;
        let mut value =
            HeaderValue::try_from(value.expose()).map_err(|_| format!("{name} has no value for a header"))?;
        value.set_sensitive(true);
        map.append(name, value);
    }
    map.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
    let client = Client::builder()
        .default_headers(map)
        .user_agent(concat!("saccade/", env!("CARGO_PKG_VERSION")))
        .timeout(REQUEST_LIMIT)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()
        .map_err(|error| error.without_url().to_string())?;
    let (closing, closed) = watch::channel(None);
    let exporter = Exporter { client, url, resource: resource(instance), closing: closed, counters: Counters::new() };
    Ok(Running { closing, task: tokio::spawn(exporter.run(spans)) })
}

/// Which server the spans are of (OpenTelemetry's semantic conventions of services).
fn resource(instance: String) -> proto::Resource {
    let attributes = vec![
        KeyValue::new("service.name", "saccade".into()),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION").into()),
        KeyValue::new("service.instance.id", Value::from(instance)),
    ];
    proto::Resource { attributes }
}

struct Counters {
    exported: Counter,
    rejected: Counter,
    failed: Counter,
    took: Histogram,
}

impl Counters {
    fn new() -> Self {
        let spans = |outcome: &'static str| counter!("saccade_trace_spans_total", "outcome" => outcome);
        Self {
            exported: spans("exported"),
            rejected: spans("rejected"),
            failed: spans("failed"),
            took: histogram!("saccade_trace_export_seconds"),
        }
    }
}

/// Waits until no more spans are to be taken; by when the last ones have to be out.
async fn last_call(closing: &mut watch::Receiver<Option<Instant>>) -> Option<Instant> {
    closing.wait_for(Option::is_some).await.ok().and_then(|last| *last)
}

struct Exporter {
    client: Client,
    url: String,
    resource: proto::Resource,
    closing: watch::Receiver<Option<Instant>>,
    counters: Counters,
}

/// Why the collector did not take a batch.
enum Refused {
    /// Another try may do, perhaps after this time.
    ForNow(String, Option<Duration>),
    /// It never will.
    ForGood(String),
}

impl Exporter {
    async fn run(self, mut queue: mpsc::Receiver<Vec<Span>>) {
        loop {
            let mut closing = self.closing.clone();
            let first = tokio::select! {
                first = queue.recv() => first,
                _ = last_call(&mut closing) => None,
            };
            let first = match first {
                Some(first) => Some(first),
                // No more come, and those that are there do.
                None => {
                    queue.close();
                    queue.recv().await
                }
            };
            let Some(mut batch) = first else { return };
            let more = async {
                while batch.len() < BATCH
                    && let Some(spans) = queue.recv().await
                {
                    batch.extend(spans);
                }
            };
            tokio::select! {
                () = more => {}
                () = sleep(GATHERING) => {}
                _ = last_call(&mut closing) => {}
            }
            while batch.len() < BATCH
                && let Ok(spans) = queue.try_recv()
            {
                batch.extend(spans);
            }
            self.deliver(batch).await;
        }
    }

    /// Hands a batch on, or drops and counts it.
    async fn deliver(&self, batch: Vec<Span>) {
        let spans = batch.len() as u64;
        let body = self.encode(batch);
        let mut closing = self.closing.clone();
        let over = async {
            match last_call(&mut closing).await {
                Some(last) => sleep_until(last.into()).await,
                None => std::future::pending().await,
            }
        };
        let mut reason = "the collector did not answer".to_owned();
        let delivered = tokio::select! {
            delivered = timeout(BATCH_LIMIT, self.insist(&body, &mut reason)) => delivered.ok().flatten(),
            () = over => None,
        };
        if let Some(rejected) = delivered {
            let rejected = rejected.min(spans);
            self.counters.exported.increment(spans - rejected);
            self.counters.rejected.increment(rejected);
            return;
        }
        self.counters.failed.increment(spans);
        if let Some(suppressed) = FAILED.pass(clock::now()) {
            tracing::warn!(spans, reason, suppressed, "spans were not exported");
        }
    }

    fn encode(&self, batch: Vec<Span>) -> bytes::Bytes {
        let clocks = Clocks { monotonic: clock::now(), wall: clock::wall() };
        let spans = batch.into_iter().map(|span| proto::Span::new(span, &clocks)).collect();
        let scope = proto::Scope { name: "saccade".to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() };
        let scope_spans = vec![proto::ScopeSpans { scope: Some(scope), spans }];
        let resource_spans = vec![proto::ResourceSpans { resource: Some(self.resource.clone()), scope_spans }];
        proto::ExportTraceServiceRequest { resource_spans }.encode_to_vec().into()
    }

    /// Tries until the collector takes a batch, and says how many spans of it were rejected; nothing if it never will take it.
    async fn insist(&self, body: &bytes::Bytes, reason: &mut String) -> Option<u64> {
        let mut wait = FIRST_WAIT;
        loop {
            let begin = clock::now();
            let answer = self.post(body.clone()).await;
            self.counters.took.record(clock::now().duration_since(begin));
            match answer {
                Ok(rejected) => return Some(rejected),
                Err(Refused::ForGood(why)) => {
                    *reason = why;
                    return None;
                }
                Err(Refused::ForNow(why, after)) => {
                    *reason = why;
                    // A collector that says "at once" is not asked at once, again and again.
                    sleep(after.unwrap_or(wait).max(wait)).await;
                    wait *= 2;
                }
            }
        }
    }

    /// One request (OTLP specification, "OTLP/HTTP response").
    async fn post(&self, body: bytes::Bytes) -> Result<u64, Refused> {
        let lost = |error: reqwest::Error| {
            let kind = if error.is_connect() {
                "the collector cannot be reached"
            } else if error.is_timeout() {
                "the collector did not answer in time"
            } else {
                "the collector closed the connection"
            };
            Refused::ForNow(kind.to_owned(), None)
        };
        let answer = self.client.post(&self.url).body(body).send().await.map_err(lost)?;
        let status = answer.status();
        if status.is_success() {
            if answer.content_length().is_none_or(|length| length > MAX_ANSWER) {
                return Ok(0);
            }
            let body = answer.bytes().await.map_err(lost)?;
            let told = proto::ExportTraceServiceResponse::decode(body).unwrap_or_default().partial_success;
            return Ok(told.map_or(0, |told| u64::try_from(told.rejected_spans).unwrap_or(0)));
        }
        let why = format!("the collector answered {status}");
        let later = [
            StatusCode::TOO_MANY_REQUESTS,
            StatusCode::BAD_GATEWAY,
            StatusCode::SERVICE_UNAVAILABLE,
            StatusCode::GATEWAY_TIMEOUT,
        ];
        if !later.contains(&status) {
            return Err(Refused::ForGood(why));
        }
        let after = answer.headers().get(RETRY_AFTER).and_then(|after| after.to_str().ok()?.trim().parse().ok());
        Err(Refused::ForNow(why, after.map(Duration::from_secs)))
    }
}

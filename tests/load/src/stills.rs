//! Load of still pictures: requests of one picture each, over connections that stay open.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value;
use ureq::Agent;

use crate::measure::{Latencies, Percentiles};
use crate::process::Usage;
use crate::signal::{new_agent, percent};

/// Longest wait for an answer.
const ANSWER: Duration = Duration::from_secs(30);
/// Bytes of an answer at most.
const MAX_ANSWER: u64 = 64 << 20;
/// Requests at a time at most: each has a thread.
pub const MAX_CONCURRENCY: u32 = 256;
/// How often it is looked whether to stop, and at the server's process.
const LOOK: Duration = Duration::from_millis(100);

/// A picture to send.
#[derive(Debug, Clone)]
pub struct Still {
    /// As it is sent.
    pub bytes: Vec<u8>,
    /// Its media type.
    pub content_type: &'static str,
}

/// What is sent, where to, and how much of it.
#[derive(Debug, Clone)]
pub struct StillLoad {
    /// Where to: `http://…/v1/detect`.
    pub url: String,
    /// Sent as `Authorization: Bearer`, where the server wants one.
    pub token: Option<String>,
    /// Parameters of the query.
    pub parameters: Vec<(String, String)>,
    /// Sent in turn; not empty.
    pub pictures: Vec<Still>,
    /// Whether no two requests have the same bytes: JPEGs get a comment with a number.
    pub distinct: bool,
    /// Requests a second, answered or not; none: as many as are answered.
    pub rate: Option<f64>,
    /// Requests at a time.
    pub concurrency: u32,
    /// How long.
    pub duration: Duration,
    /// Process of the server, to be looked at.
    pub server_pid: Option<u32>,
}

/// A run in figures. Keys are stable.
#[derive(Debug, Clone, Serialize)]
pub struct StillReport {
    /// Where to.
    pub url: String,
    /// Different pictures.
    pub pictures: usize,
    /// Whether no two requests had the same bytes.
    pub distinct: bool,
    /// Requests a second that were meant to be.
    pub rate: Option<f64>,
    /// Requests at a time.
    pub concurrency: u32,
    /// Seconds.
    pub duration_s: f64,
    /// Requests that were begun.
    pub requests: u64,
    /// Those that were answered with results.
    pub answered: u64,
    /// The same a second.
    pub answered_per_s: f64,
    /// Those that the server refused, by code.
    pub refused: BTreeMap<String, u64>,
    /// Those that have no answer, or none that is understood.
    pub failed: u64,
    /// Why, of one of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// Answers that a cache had (`X-Cache: HIT`).
    pub cached: u64,
    /// What was found in all pictures together.
    pub detections: u64,
    /// From when a request was due to its answer's last byte: where a rate is given, waiting for a free connection counts.
    pub latency_ms: Option<Percentiles>,
    /// The server's time on processors for each answer.
    pub server_cpu_ms_per_picture: Option<f64>,
    /// The same by the kind of thread.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub server_threads_cpu_ms_per_picture: BTreeMap<String, f64>,
    /// The server's resident memory at its largest.
    pub server_rss_bytes: Option<u64>,
    /// Each second.
    pub timeline: Vec<StillSecond>,
}

/// One second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
#[expect(missing_docs, reason = "as in the whole report")]
pub struct StillSecond {
    pub second: usize,
    pub answered: u32,
    pub refused: u32,
    pub latency_p95_ms: Option<f64>,
}

/// How far a run is.
#[derive(Debug, Clone, Copy)]
pub struct StillStatus {
    /// Since its beginning.
    pub elapsed: Duration,
    /// Requests answered with results.
    pub answered: u64,
    /// Requests that were not.
    pub others: u64,
}

#[derive(Default)]
struct Tally {
    answered: u64,
    refused: BTreeMap<String, u64>,
    failed: u64,
    failure: Option<String>,
    cached: u64,
    detections: u64,
    latencies: Latencies,
    seconds: Vec<(u32, u32, Latencies)>,
}

impl Tally {
    fn second(&mut self, at: Duration) -> &mut (u32, u32, Latencies) {
        let second = usize::try_from(at.as_secs()).unwrap_or(usize::MAX).min(self.seconds.len() + 3_600);
        if self.seconds.len() <= second {
            self.seconds.resize_with(second + 1, Default::default);
        }
        &mut self.seconds[second]
    }
}

/// What came back.
enum Answer {
    Told { detections: u64, cached: bool },
    Refused { code: String },
    Failed { reason: String },
}

/// Puts the load on the server. `watch` is called now and then; true in `stop` ends the run early.
pub fn stills(load: &StillLoad, stop: &AtomicBool, watch: &mut dyn FnMut(StillStatus)) -> StillReport {
    let tally = Mutex::new(Tally::default());
    let (next, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let url = url(load);
    let before = load.server_pid.and_then(Usage::of);
    let mut after = before.clone();
    let mut resident = before.as_ref().map(|usage| usage.resident);
    let begin = Instant::now();
    thread::scope(|scope| {
        for _ in 0..load.concurrency.clamp(1, MAX_CONCURRENCY) {
            scope.spawn(|| send_all(load, &url, begin, &next, &over, &tally));
        }
        while begin.elapsed() < load.duration && !stop.load(Ordering::Acquire) {
            thread::sleep(LOOK.min(load.duration.saturating_sub(begin.elapsed())));
            if let Some(usage) = load.server_pid.and_then(Usage::of) {
                resident = resident.max(Some(usage.resident));
                after = Some(usage);
            }
            let told = lock(&tally);
            let others = told.failed + told.refused.values().sum::<u64>();
            let (elapsed, answered) = (begin.elapsed(), told.answered);
            drop(told);
            watch(StillStatus { elapsed, answered, others });
        }
        over.store(true, Ordering::Release);
    });
    let tally = tally.into_inner().unwrap_or_else(PoisonError::into_inner);
    report(load, tally, begin.elapsed(), next.into_inner(), before.zip(after).as_ref(), resident)
}

fn send_all(load: &StillLoad, url: &str, begin: Instant, next: &AtomicU64, over: &AtomicBool, tally: &Mutex<Tally>) {
    let agent = new_agent(ANSWER);
    let mut bytes = Vec::new();
    while !over.load(Ordering::Acquire) {
        let number = next.fetch_add(1, Ordering::Relaxed);
        #[expect(clippy::cast_precision_loss, reason = "a number of requests")]
        let due = load.rate.map_or_else(Instant::now, |rate| begin + Duration::from_secs_f64(number as f64 / rate));
        while Instant::now() < due {
            if over.load(Ordering::Acquire) {
                next.fetch_sub(1, Ordering::Relaxed);
                return;
            }
            thread::sleep(LOOK.min(due.saturating_duration_since(Instant::now())));
        }
        let at = usize::try_from(number).unwrap_or_default() % load.pictures.len();
        let picture = &load.pictures[at];
        write(picture, load.distinct.then_some(number), &mut bytes);
        let answer = send(&agent, load, url, picture.content_type, &bytes);
        let took = due.elapsed();
        let mut tally = lock(tally);
        match answer {
            Answer::Told { detections, cached } => {
                tally.answered += 1;
                tally.cached += u64::from(cached);
                tally.detections += detections;
                tally.latencies.record(took);
                let (answered, _, latencies) = tally.second(begin.elapsed());
                *answered += 1;
                latencies.record(took);
            }
            Answer::Refused { code } => {
                *tally.refused.entry(code).or_default() += 1;
                tally.second(begin.elapsed()).1 += 1;
            }
            Answer::Failed { reason } => {
                tally.failed += 1;
                tally.failure.get_or_insert(reason);
            }
        }
    }
}

/// The picture's bytes, told from others by a comment behind the first marker of a JPEG (ITU-T T.81, B.2.4.5).
fn write(picture: &Still, number: Option<u64>, bytes: &mut Vec<u8>) {
    bytes.clear();
    match number.filter(|_| picture.bytes.starts_with(&[0xff, 0xd8])) {
        Some(number) => {
            bytes.extend_from_slice(&picture.bytes[..2]);
            bytes.extend_from_slice(&[0xff, 0xfe, 0, 10]);
            bytes.extend_from_slice(&number.to_be_bytes());
            bytes.extend_from_slice(&picture.bytes[2..]);
        }
        None => bytes.extend_from_slice(&picture.bytes),
    }
}

fn send(agent: &Agent, load: &StillLoad, url: &str, kind: &str, bytes: &[u8]) -> Answer {
    let failed = |error: ureq::Error| Answer::Failed { reason: error.to_string() };
    let mut request = agent.post(url).header("content-type", kind);
    if let Some(token) = &load.token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let response = match request.send(bytes) {
        Ok(response) => response,
        Err(error) => return failed(error),
    };
    let (parts, mut body) = response.into_parts();
    let text = match body.with_config().limit(MAX_ANSWER).read_to_vec() {
        Ok(text) => text,
        Err(error) => return failed(error),
    };
    let value: Value = serde_json::from_slice(&text).unwrap_or_default();
    if !parts.status.is_success() {
        let code = value["code"].as_str().map_or_else(|| parts.status.as_u16().to_string(), str::to_owned);
        return Answer::Refused { code };
    }
    let cached = parts.headers.get("x-cache").is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"hit"));
    match value["detections"].as_array() {
        Some(detections) => Answer::Told { detections: detections.len() as u64, cached },
        None => Answer::Failed { reason: "the answer has no `detections`".to_owned() },
    }
}

fn url(load: &StillLoad) -> String {
    let mut url = load.url.clone();
    for (name, value) in &load.parameters {
        url.push(if url.contains('?') { '&' } else { '?' });
        url.push_str(&format!("{name}={}", percent(value)));
    }
    url
}

#[expect(clippy::cast_precision_loss, reason = "numbers of requests")]
fn report(
    load: &StillLoad,
    tally: Tally,
    took: Duration,
    requests: u64,
    usage: Option<&(Usage, Usage)>,
    resident: Option<u64>,
) -> StillReport {
    let each = |time: Duration| hundredths(time.as_secs_f64() * 1_000.0 / tally.answered.max(1) as f64);
    let cpu = usage.map(|(before, after)| each(after.cpu.saturating_sub(before.cpu)));
    let mut threads: BTreeMap<String, Duration> = BTreeMap::new();
    if let Some((before, after)) = usage {
        for (id, thread) in &after.threads {
            let began = before.threads.get(id).map(|thread| thread.cpu).unwrap_or_default();
            *threads.entry(thread.name.clone()).or_default() += thread.cpu.saturating_sub(began);
        }
    }
    let timeline = tally.seconds.iter().enumerate().map(|(second, (answered, refused, latencies))| StillSecond {
        second,
        answered: *answered,
        refused: *refused,
        latency_p95_ms: latencies.percentiles().map(|percentiles| percentiles.p95),
    });
    StillReport {
        url: load.url.clone(),
        pictures: load.pictures.len(),
        distinct: load.distinct,
        rate: load.rate,
        concurrency: load.concurrency,
        duration_s: hundredths(took.as_secs_f64()),
        requests,
        answered: tally.answered,
        answered_per_s: hundredths(tally.answered as f64 / took.as_secs_f64().max(1e-9)),
        failed: tally.failed,
        failure: tally.failure.clone(),
        cached: tally.cached,
        detections: tally.detections,
        latency_ms: tally.latencies.percentiles(),
        server_cpu_ms_per_picture: cpu.filter(|_| tally.answered > 0),
        server_threads_cpu_ms_per_picture: threads.into_iter().map(|(name, time)| (name, each(time))).collect(),
        server_rss_bytes: resident,
        timeline: timeline.collect(),
        refused: tally.refused,
    }
}

/// The same for people.
#[must_use]
pub fn still_table(report: &StillReport) -> String {
    let mut lines = vec![
        ("pictures", format!("{} different, {} at a time", report.pictures, report.concurrency)),
        ("requests", format!("{} in {:.1} s", report.requests, report.duration_s)),
        ("answered", format!("{} ({:.1}/s), {} from a cache", report.answered, report.answered_per_s, report.cached)),
    ];
    for (code, count) in &report.refused {
        lines.push(("refused", format!("{count} {code}")));
    }
    if report.failed > 0 {
        lines.push(("failed", format!("{}: {}", report.failed, report.failure.as_deref().unwrap_or_default())));
    }
    if let Some(Percentiles { p50, p90, p95, p99, max }) = report.latency_ms {
        lines.push(("latency in ms", format!("p50 {p50:.1}, p90 {p90:.1}, p95 {p95:.1}, p99 {p99:.1}, max {max:.1}")));
    }
    if let Some(cpu) = report.server_cpu_ms_per_picture {
        lines.push(("server's processors", format!("{cpu:.2} ms a picture")));
    }
    for (name, cpu) in &report.server_threads_cpu_ms_per_picture {
        lines.push(("", format!("{cpu:.2} {name}")));
    }
    lines.into_iter().map(|(label, value)| format!("{label:<22}{value}\n")).collect()
}

fn hundredths(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

fn lock(tally: &Mutex<Tally>) -> MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::TcpListener;

    use super::*;

    /// Answers every second request with two detections, and refuses the others; counts different bodies.
    fn server(listener: &TcpListener, bodies: &Mutex<Vec<Vec<u8>>>) {
        let (mut stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        loop {
            let (mut len, mut line) = (0, String::new());
            loop {
                line.clear();
                if reader.read_line(&mut line).unwrap_or_default() == 0 {
                    return;
                }
                let line = line.trim().to_ascii_lowercase();
                if let Some(value) = line.strip_prefix("content-length:") {
                    len = value.trim().parse().unwrap();
                }
                if line.is_empty() {
                    break;
                }
            }
            let mut body = vec![0; len];
            reader.read_exact(&mut body).unwrap();
            let mut bodies = bodies.lock().unwrap();
            bodies.push(body);
            let (status, text) = if bodies.len() % 2 == 1 {
                ("200 OK\r\nx-cache: HIT", r#"{"detections":[1,2]}"#)
            } else {
                ("503 Busy", r#"{"code":"capacity"}"#)
            };
            // As one, so that nothing of it waits for an acknowledgement.
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{text}", text.len());
            stream.write_all(answer.as_bytes()).unwrap();
        }
    }

    #[test]
    fn answers_are_counted_by_what_they_are() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v1/detect", listener.local_addr().unwrap());
        let bodies = Mutex::new(Vec::new());
        let load = StillLoad {
            url,
            token: None,
            parameters: vec![("model".into(), "a b".into())],
            pictures: vec![Still { bytes: vec![0xff, 0xd8, 0xff, 0xd9], content_type: "image/jpeg" }],
            distinct: true,
            rate: Some(100.0),
            concurrency: 1,
            duration: Duration::from_millis(500),
            server_pid: Some(std::process::id()),
        };
        let report = thread::scope(|scope| {
            scope.spawn(|| server(&listener, &bodies));
            stills(&load, &AtomicBool::new(false), &mut |_| {})
        });
        let mut bodies = bodies.into_inner().unwrap();
        assert_eq!(report.requests, bodies.len() as u64);
        assert!((20..=51).contains(&bodies.len()), "{}", bodies.len());
        assert_eq!(report.answered, report.requests.div_ceil(2));
        assert_eq!((report.detections, report.cached), (2 * report.answered, report.answered));
        assert_eq!(report.refused["capacity"], report.requests / 2);
        assert_eq!((report.failed, report.failure), (0, None));
        assert!(report.latency_ms.is_some() && report.server_rss_bytes.is_some());
        let requests = bodies.len();
        bodies.sort();
        bodies.dedup();
        assert_eq!(bodies.len(), requests, "no two have the same bytes");
    }
}

//! `GET /v1/status`: a socket that tells once a second what runs, for a page that people watch.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use metrics::counter;
use saccade_signaling::{
    ClientMessage, ErrorCode, Latency, ModelState, ModelStatus, SessionCounters, SessionStatus, SessionView, Status,
    close_code,
};
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, broadcast};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::auth::{Claims, expiry};
use super::openapi::UpgradeRequired;
use super::{Context, Problem};
use crate::clock;
use crate::history::instant;
use crate::session::{Allowance, Handle, Refusal, proto};

/// How often it tells.
const PERIOD: Duration = Duration::from_secs(1);
/// Sockets of this kind at a time.
pub(super) const MAX_SOCKETS: usize = 64;
/// Sessions that are told of; of more, the number alone.
const MAX_SESSIONS: usize = 256;
/// A message of a client may have so many bytes: a token.
const MESSAGE_BYTES: usize = 16 * 1024;
/// How long a client may take to answer a close frame.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// What the process knows of its queues: their names, and how many items wait in each.
pub type Queues = Arc<dyn Fn() -> BTreeMap<String, u64> + Send + Sync>;

/// Watch what runs
///
/// A WebSocket that tells once a second of sessions, models and queues. The token is in the header, or in an `auth` message
/// within 5 s, and a further `auth` renews it.
#[utoipa::path(
    get, path = "/v1/status", operation_id = "watch_status", tag = "server", security((), ("token" = ["can_view"])),
    responses((status = 101, description = "The socket is open."), UpgradeRequired),
    extensions(("x-websocket" = json!({
        "from_client": { "$ref": "#/components/schemas/ClientMessage" },
        "from_server": { "$ref": "#/components/schemas/Status" },
    })))
)]
pub(super) async fn upgrade(
    State(context): State<Arc<Context>>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    match prepare(&context, &headers, upgrade) {
        Ok((upgrade, claims, place)) => {
            upgrade.on_upgrade(async move |socket| serve(context, socket, claims, place).await)
        }
        Err(problem) => problem.into_response(),
    }
}

type Prepared = (WebSocketUpgrade, Option<Claims>, OwnedSemaphorePermit);

fn prepare(
    context: &Context,
    headers: &HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Prepared, Problem> {
    let claims = context.header_claims(headers)?;
    if let Some(claims) = &claims {
        Claims::require(claims.can_view, "can_view")?;
    }
    let upgrade = upgrade.map_err(|rejection| {
        let detail = format!("This is a WebSocket endpoint: {}.", rejection.body_text());
        Problem::new(ErrorCode::BadRequest, detail).with_status(StatusCode::UPGRADE_REQUIRED)
    })?;
    let place = Arc::clone(&context.watchers).try_acquire_owned().map_err(|_| {
        let refusal = Refusal::new(ErrorCode::Capacity, "Too many sockets are open; try again later.");
        Problem::from(refusal.retry_after(Duration::from_secs(5)))
    })?;
    Ok((upgrade.max_message_size(MESSAGE_BYTES).max_frame_size(MESSAGE_BYTES), claims, place))
}

async fn serve(context: Arc<Context>, mut socket: WebSocket, claims: Option<Claims>, place: OwnedSemaphorePermit) {
    let end = match claims {
        Some(claims) => tell(&context, &mut socket, claims).await,
        None => match timeout(context.settings.auth_timeout, token(&mut socket)).await.ok().flatten() {
            Some(token) => match context.verifier.as_ref().and_then(|verifier| verifier.verify(&token)) {
                Some(claims) if claims.can_view => tell(&context, &mut socket, claims).await,
                Some(_) => Some((close_code::FORBIDDEN, "the token lacks can_view")),
                None => Some((close_code::UNAUTHENTICATED, "the token is not valid")),
            },
            None => Some((close_code::UNAUTHENTICATED, "send `auth` with a valid token first")),
        },
    };
    if let Some((code, reason)) = end {
        let _ = timeout(CLOSE_TIMEOUT, async {
            let _ = socket.send(Message::Close(Some(CloseFrame { code, reason: reason.into() }))).await;
            while let Some(Ok(message)) = socket.recv().await {
                if matches!(message, Message::Close(_)) {
                    break;
                }
            }
        })
        .await;
    }
    drop(place);
}

/// The token of the first message.
async fn token(socket: &mut WebSocket) -> Option<String> {
    loop {
        match socket.recv().await {
            Some(Ok(Message::Text(text))) => match proto::parse(&text) {
                Ok(ClientMessage::Auth { token }) => return Some(token),
                _ => return None,
            },
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            _ => return None,
        }
    }
}

/// Tells until something ends it: a code and a reason to close with, or `None` where nobody listens any more.
async fn tell(context: &Context, socket: &mut WebSocket, mut claims: Claims) -> Option<(u16, &'static str)> {
    let mut timer = interval(PERIOD);
    timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut drain = context.registry.draining();
    if drain.borrow().is_some() {
        drain.mark_changed();
    }
    let mut allowance = Allowance::new(clock::now(), context.settings.rate);
    let mut watch = Watch::new(clock::now());
    loop {
        tokio::select! {
            biased;
            () = expiry(claims.expires) => return Some((close_code::UNAUTHENTICATED, "the token has ended")),
            Ok(()) = drain.changed() => return Some((close_code::DRAINING, "draining")),
            message = socket.recv() => {
                if !allowance.take(clock::now()) {
                    let labels = [("channel", "status"), ("reason", "rate_limited")];
                    counter!("saccade_messages_refused_total", &labels).increment(1);
                    return Some((close_code::RATE_LIMITED, "too many messages"));
                }
                match message {
                    Some(Ok(Message::Text(text))) => match (proto::parse(&text), &context.verifier) {
                        (Ok(ClientMessage::Auth { .. }), None) => {}
                        // A further token takes the place of the one before.
                        (Ok(ClientMessage::Auth { token }), Some(verifier)) => match verifier.verify(&token) {
                            Some(other) if other.can_view && other.sub == claims.sub => claims = other,
                            _ => return Some((close_code::FORBIDDEN, "the token is not one for this socket")),
                        },
                        _ => return Some((close_code::POLICY, "nothing but `auth` is taken here")),
                    },
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    Some(Ok(Message::Binary(_))) => return Some((close_code::BINARY, "messages are text")),
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                }
            }
            _ = timer.tick() => {
                let status = watch.look(context, &claims);
                let text = serde_json::to_string(&status).unwrap_or_default();
                match timeout(context.settings.send_timeout, socket.send(Message::Text(text.into()))).await {
                    Ok(Ok(())) => {}
                    _ => return None,
                }
            }
        }
    }
}

/// What one socket has told before, from which rates are reckoned.
struct Watch {
    looked: Instant,
    processor: Duration,
    sessions: HashMap<String, Watched>,
}

struct Watched {
    results: broadcast::Receiver<Arc<str>>,
    counters: SessionCounters,
    /// What the last result said.
    degraded: Vec<String>,
    model: Option<String>,
}

/// What is read of a result.
#[derive(Deserialize)]
struct Heard {
    model: String,
    met: bool,
    timing_ms: Total,
    #[serde(default)]
    degraded: Vec<String>,
}

#[derive(Deserialize)]
struct Total {
    total: f64,
}

impl Watch {
    fn new(now: Instant) -> Self {
        Self { looked: now, processor: clock::processor_time(), sessions: HashMap::new() }
    }

    fn look(&mut self, context: &Context, claims: &Claims) -> Status {
        let now = clock::now();
        let passed = now.saturating_duration_since(self.looked).as_secs_f64().max(0.001);
        let processor = clock::processor_time();
        let cpu = processor.saturating_sub(self.processor).as_secs_f64() / passed;
        (self.looked, self.processor) = (now, processor);
        let mut handles = context.registry.list();
        handles.retain(|handle| claims.may_know(handle.id().as_str()));
        let total = handles.len() as u64;
        handles.truncate(MAX_SESSIONS);
        let there: HashSet<&str> = handles.iter().map(|handle| handle.id().as_str()).collect();
        self.sessions.retain(|id, _| there.contains(id.as_str()));
        let sessions: Vec<SessionStatus> = handles.iter().map(|handle| self.session(handle, passed)).collect();
        let models =
            context.models.list().into_iter().filter(|model| model.state == ModelState::Ready).filter_map(|model| {
                let id = format!("{}@{}", model.name, model.version);
                claims.may_use(&id).then(|| {
                    let of = sessions.iter().filter(|session| session.model.as_deref() == Some(&id));
                    let (count, rate) =
                        of.fold((0, 0.0), |(count, rate), session| (count + 1, rate + session.results_per_s));
                    ModelStatus {
                        model: id,
                        precision: model.precision,
                        backend: model.backend,
                        sessions: count,
                        results_per_s: tenth(rate),
                    }
                })
            });
        Status {
            time_ms: instant::millis(clock::wall()),
            server: concat!("saccade/", env!("CARGO_PKG_VERSION")).to_owned(),
            cpu: (cpu * 100.0).round() / 100.0,
            // What belongs to others is not for a token of one session.
            queues: if claims.session.is_some() { BTreeMap::new() } else { (context.settings.queues)() },
            models: models.collect(),
            sessions_total: total,
            sessions,
        }
    }

    fn session(&mut self, handle: &Handle, passed: f64) -> SessionStatus {
        let view = handle.view();
        let watched = self.sessions.entry(view.session_id.clone()).or_insert_with(|| Watched {
            results: handle.results(),
            counters: view.counters,
            degraded: Vec::new(),
            model: None,
        });
        let before = std::mem::replace(&mut watched.counters, view.counters);
        let mut latencies = Vec::new();
        let (mut met, mut heard) = (0_u32, 0_u32);
        loop {
            match watched.results.try_recv() {
                Ok(text) => {
                    let Ok(result) = serde_json::from_str::<Heard>(&text) else { continue };
                    latencies.push(result.timing_ms.total);
                    heard += 1;
                    met += u32::from(result.met);
                    (watched.degraded, watched.model) = (result.degraded, Some(result.model));
                }
                Err(broadcast::error::TryRecvError::Lagged(_)) => {}
                Err(_) => break,
            }
        }
        latencies.sort_unstable_by(f64::total_cmp);
        let per_s = |of: fn(&SessionCounters) -> u64| rate(of(&before), of(&view.counters), passed);
        let dropped = |counters: &SessionCounters| counters.dropped.superseded + counters.dropped.late;
        SessionStatus {
            frames_per_s: per_s(|counters| counters.decoded),
            results_per_s: per_s(|counters| counters.results),
            returned_per_s: per_s(|counters| counters.returned),
            dropped_per_s: rate(dropped(&before), dropped(&view.counters), passed),
            latency_ms: Latency { p50: quantile(&latencies, 0.5), p95: quantile(&latencies, 0.95) },
            met: (heard > 0).then(|| tenth(f64::from(met) / f64::from(heard) * 100.0)),
            degraded: watched.degraded.clone(),
            model: watched.model.clone(),
            ..shown(view)
        }
    }
}

fn shown(view: SessionView) -> SessionStatus {
    SessionStatus {
        session_id: view.session_id,
        camera: view.camera,
        state: view.state,
        age_s: tenth(view.age_s),
        codec: view.codec,
        resolution: view.resolution,
        viewers: view.viewers,
        ..SessionStatus::default()
    }
}

fn rate(before: u64, now: u64, passed: f64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a count of a second")]
    let grown = now.saturating_sub(before) as f64;
    tenth(grown / passed)
}

fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "few")]
    let rank = ((sorted.len() as f64 * share).ceil() as usize).max(1) - 1;
    sorted.get(rank).copied().map(tenth)
}

fn tenth(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn rates_and_quantiles_are_for_people() {
        assert!((rate(10, 40, 1.02) - 29.4).abs() < 1e-9);
        assert!(rate(40, 10, 1.0).abs() < 1e-9, "a counter that began anew is no rate");
        let sorted: Vec<f64> = (1..=20).map(f64::from).collect();
        assert_eq!((quantile(&sorted, 0.5), quantile(&sorted, 0.95)), (Some(10.0), Some(19.0)));
        assert_eq!((quantile(&[], 0.5), quantile(&[7.04], 0.95)), (None, Some(7.0)));
    }
}

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use metrics::counter;
use saccade_signaling::{CameraReason, Event, Notice, Options, SinkFailure, SinkView};
use serde::Serialize;
use tokio::sync::{broadcast, oneshot};
use tokio::task::JoinSet;

use crate::camera::Change as CameraChange;
use crate::clock;
use crate::http;
use crate::session::{EndReason, Handle, SessionId, Witness};
use crate::sinks::{Change, Kind, Message, Sinks, Source, rfc3339};

/// Version of the shape of messages.
const VERSION: u32 = 1;
/// How often it is looked whether a session watches other zones, lines and rules than before.
const LOOK: Duration = Duration::from_secs(1);

/// Hands what sessions and cameras tell to the sinks: a task reads each session's events and results, as listeners of the
/// API do, so that no session waits for it.
pub(super) struct Feed {
    sinks: Arc<Sinks>,
    ends: Mutex<HashMap<SessionId, oneshot::Sender<EndReason>>>,
    readers: Mutex<JoinSet<()>>,
}

impl Feed {
    pub(super) fn new(sinks: Arc<Sinks>) -> Arc<Self> {
        Arc::new(Self { sinks, ends: Mutex::default(), readers: Mutex::default() })
    }

    /// What becomes of a camera, for as long as the future is polled.
    pub(super) fn camera(
        &self,
        name: &str,
        mut changes: broadcast::Receiver<CameraChange>,
    ) -> impl Future<Output = ()> + use<> {
        let teller = Teller::new(&self.sinks, name, true);
        teller.sinks.tell(&teller.source, &Change::Camera { live: false });
        async move {
            loop {
                match changes.recv().await {
                    Ok(change) => teller.camera(&change),
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return,
                }
            }
        }
    }

    /// Waits until everything that sessions have told is with the sinks; sessions must be over.
    pub(super) async fn ended(&self, deadline: Instant) {
        let mut readers = std::mem::take(&mut *lock(&self.readers));
        let all = async { while readers.join_next().await.is_some() {} };
        let _ = tokio::time::timeout_at(deadline.into(), all).await;
        readers.shutdown().await;
    }
}

impl Witness for Feed {
    fn began(&self, handle: &Handle) {
        let teller = Teller::new(&self.sinks, handle.id().as_str(), handle.is_of_camera());
        if !teller.is_heard() {
            return;
        }
        let (end, ended) = oneshot::channel();
        lock(&self.ends).insert(handle.id().clone(), end);
        let reader = Reader {
            events: handle.events(),
            results: teller.sinks.ever_want(&teller.source, Kind::Result).then(|| handle.results()),
            handle: handle.clone(),
            watched: None,
            teller,
        };
        let mut readers = lock(&self.readers);
        while readers.try_join_next().is_some() {}
        readers.spawn(reader.run(ended));
    }

    fn ended(&self, id: &SessionId, reason: EndReason) {
        if let Some(end) = lock(&self.ends).remove(id) {
            // A reader that is gone has told what it could.
            let _ = end.send(reason);
        }
    }
}

/// Makes messages of what one source tells.
struct Teller {
    sinks: Arc<Sinks>,
    source: Arc<Source>,
}

impl Teller {
    fn new(sinks: &Arc<Sinks>, name: &str, is_camera: bool) -> Self {
        Self { sinks: Arc::clone(sinks), source: Arc::new(Source { name: name.into(), is_camera }) }
    }

    /// Whether any sink wants anything of this source.
    fn is_heard(&self) -> bool {
        let any = |kind| self.sinks.ever_want(&self.source, kind);
        any(Kind::Event) || any(Kind::Result) || self.sinks.keep_state(&self.source)
    }

    fn publish(&self, kind: Kind, name: &str, data: &str) -> Arc<str> {
        let (at, time): (_, Arc<str>) = (clock::now(), rfc3339(clock::wall()).into());
        if self.sinks.want(&self.source, kind, name, at) {
            let id = format!("msg_{}", uuid::Uuid::new_v4().simple());
            let body = envelope(&id, name, &time, &self.source, data).into();
            let source = Arc::clone(&self.source);
            self.sinks.publish(&Message { id: id.into(), at, kind, name: name.into(), source, body });
        }
        time
    }

    fn notice(&self, name: &str, notice: &Notice) {
        // All its keys are texts, and its numbers are finite.
        if let Ok(data) = serde_json::to_string(notice) {
            self.publish(Kind::Event, name, &data);
        }
    }

    fn camera(&self, change: &CameraChange) {
        let (live, state, reason) = match change {
            CameraChange::Live => (true, "live", None),
            CameraChange::Lost(failure) => {
                let reason = CameraReason { code: failure.code().to_owned(), message: failure.to_string() };
                (false, "waiting", Some(reason))
            }
        };
        self.sinks.tell(&self.source, &Change::Camera { live });
        self.notice("camera_changed", &Notice::CameraChanged { state: state.to_owned(), reason });
    }

    fn event(&self, text: &str) {
        let Ok(event) = serde_json::from_str::<Event>(text) else { return };
        let name = name(&event);
        let time = self.publish(Kind::Event, name, text);
        if let Some(change) = change(event, time) {
            self.sinks.tell(&self.source, &change);
        }
    }

    fn result(&self, text: &str) {
        // Most are too many: nothing is made of those.
        if self.sinks.want(&self.source, Kind::Result, "result", clock::now()) {
            self.publish(Kind::Result, "result", text);
        }
    }
}

/// Reads one session from its beginning to its end.
struct Reader {
    teller: Teller,
    handle: Handle,
    events: broadcast::Receiver<Arc<str>>,
    results: Option<broadcast::Receiver<Arc<str>>>,
    /// What the session watched when it was looked at last.
    watched: Option<Change>,
}

impl Reader {
    async fn run(mut self, mut ended: oneshot::Receiver<EndReason>) {
        let started = clock::now();
        let view = self.handle.view();
        let notice = Notice::SessionStarted { codec: view.codec, model: view.options.model.clone() };
        self.teller.notice("session_started", &notice);
        self.look(&view.options);
        let keeps_state = self.teller.sinks.keep_state(&self.teller.source);
        let mut look = tokio::time::interval(LOOK);
        let reason = loop {
            tokio::select! {
                event = self.events.recv() => self.event(event),
                result = next(&mut self.results) => self.result(result),
                _ = look.tick(), if keeps_state => {
                    let options = self.handle.view().options;
                    self.look(&options);
                }
                reason = &mut ended => break reason.unwrap_or(EndReason::Internal),
            }
        };
        while let Ok(event) = self.events.try_recv() {
            self.event(Ok(event));
        }
        let duration_s = clock::now().duration_since(started).as_secs_f64();
        let notice = Notice::SessionEnded { reason: reason.as_str().to_owned(), duration_s };
        self.teller.notice("session_ended", &notice);
        self.teller.sinks.tell(&self.teller.source, &Change::Ended);
    }

    fn event(&self, event: Result<Arc<str>, broadcast::error::RecvError>) {
        match event {
            Ok(text) => self.teller.event(&text),
            Err(error) => lost("events", &error),
        }
    }

    fn result(&self, result: Result<Arc<str>, broadcast::error::RecvError>) {
        match result {
            Ok(text) => self.teller.result(&text),
            Err(error) => lost("results", &error),
        }
    }

    fn look(&mut self, options: &Options) {
        let watches = Change::Watches {
            zones: options.zones.iter().map(|zone| zone.name.as_str().into()).collect(),
            lines: options.lines.iter().map(|line| line.name.as_str().into()).collect(),
            rules: options.rules.iter().map(|rule| rule.name.as_str().into()).collect(),
        };
        if self.watched.as_ref() != Some(&watches) {
            self.teller.sinks.tell(&self.teller.source, &watches);
            self.watched = Some(watches);
        }
    }
}

/// The next result; never where none are wanted.
async fn next(results: &mut Option<broadcast::Receiver<Arc<str>>>) -> Result<Arc<str>, broadcast::error::RecvError> {
    match results {
        Some(results) => results.recv().await,
        None => std::future::pending().await,
    }
}

fn lost(stage: &'static str, error: &broadcast::error::RecvError) {
    if let broadcast::error::RecvError::Lagged(texts) = error {
        counter!("saccade_frames_dropped_total", "stage" => stage, "reason" => "slow_reader").increment(*texts);
    }
}

/// The keys and their order are those of [`saccade_signaling::SinkMessage`]; `data` is JSON as it was made for others.
fn envelope(id: &str, kind: &str, timestamp: &str, source: &Source, data: &str) -> String {
    #[derive(Serialize)]
    struct Head<'a> {
        version: u32,
        id: &'a str,
        r#type: &'a str,
        timestamp: &'a str,
        session_id: &'a str,
        camera: Option<&'a str>,
    }
    let (session_id, camera) = (&*source.name, source.is_camera.then_some(&*source.name));
    let head = Head { version: VERSION, id, r#type: kind, timestamp, session_id, camera };
    // It has texts and a number only.
    let mut text = serde_json::to_string(&head).unwrap_or_default();
    text.pop();
    text.push_str(",\"data\":");
    text.push_str(data);
    text.push('}');
    text
}

const fn name(event: &Event) -> &'static str {
    match event {
        Event::TrackStarted { .. } => "track_started",
        Event::ResolutionChanged { .. } => "resolution_changed",
        Event::ZoneEntered { .. } => "zone_entered",
        Event::ZoneLeft { .. } => "zone_left",
        Event::ZoneDwelled { .. } => "zone_dwelled",
        Event::LineCrossed { .. } => "line_crossed",
        Event::AlertStarted { .. } => "alert_started",
        Event::AlertEnded { .. } => "alert_ended",
    }
}

/// What an event, told at `time`, changes in what is true.
fn change(event: Event, time: Arc<str>) -> Option<Change> {
    Some(match event {
        Event::ZoneEntered { zone, count, .. } | Event::ZoneLeft { zone, count, .. } => {
            Change::Zone { zone: zone.into(), count }
        }
        Event::LineCrossed { line, left_to_right, right_to_left, .. } => {
            Change::Line { line: line.into(), left_to_right, right_to_left }
        }
        Event::AlertStarted { rule, zone, object_id, .. } => {
            Change::Alert { rule: rule.into(), zone: zone.into(), object_id, started: true, time }
        }
        Event::AlertEnded { rule, zone, object_id, .. } => {
            Change::Alert { rule: rule.into(), zone: zone.into(), object_id, started: false, time }
        }
        Event::TrackStarted { .. } | Event::ResolutionChanged { .. } | Event::ZoneDwelled { .. } => return None,
    })
}

/// The sinks as the API shows them.
pub(super) struct View(pub(super) Arc<Sinks>);

impl http::Sinks for View {
    fn list(&self) -> Vec<SinkView> {
        let now = clock::now();
        let view = |status: crate::sinks::Status| SinkView {
            name: status.name.to_string(),
            kind: status.kind.to_owned(),
            state: status.state.name().to_owned(),
            queued: status.queued as u64,
            capacity: status.capacity as u64,
            delivered: status.delivered,
            lost: status.lost,
            last_failure: status.failure.map(|(failure, at)| SinkFailure {
                code: failure.code().to_owned(),
                message: failure.to_string(),
                age_s: now.saturating_duration_since(at).as_secs_f64(),
            }),
        };
        self.0.list().into_iter().map(view).collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use saccade_signaling::SinkMessage;
    use serde_json::Value;

    use super::*;

    #[test]
    fn envelopes_are_the_golden_ones() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("signaling/golden");
        let mut checked = 0;
        for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if !entry.file_name().unwrap().to_str().unwrap().starts_with("sink_message") {
                continue;
            }
            let golden: Value = serde_json::from_str(&std::fs::read_to_string(&entry).unwrap()).unwrap();
            let text = |key: &str| golden[key].as_str().unwrap();
            let source = Source { name: text("session_id").into(), is_camera: golden["camera"].is_string() };
            let made = envelope(text("id"), text("type"), text("timestamp"), &source, &golden["data"].to_string());
            assert_eq!(serde_json::from_str::<Value>(&made).unwrap(), golden);
            let read: SinkMessage = serde_json::from_str(&made).unwrap();
            if let saccade_signaling::SinkData::Event(event) = &read.data {
                assert_eq!(name(event), read.kind);
            }
            checked += 1;
        }
        assert_eq!(checked, 6);
    }
}

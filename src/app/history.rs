//! History of this server's sessions: where it is kept, and how sessions' results and events come to it.
//!
//! A task looks after each session, and reads what any listener gets: whatever becomes of history, no session waits for
//! it.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::Value;
use tokio::sync::{broadcast, watch};
use tokio::task::JoinSet;
use tokio::time::interval;

use crate::clock;
use crate::config::{Config, StorePlace};
use crate::history::{Facts, History, Reader, Recorder, Settings, Source, Target};
use crate::session::{EndReason, Handle, Registry, SessionId, Witness};
use crate::state;

/// How often a session looks at the time: a minute ends this late at most.
const TICK: Duration = Duration::from_secs(5);

/// The history of a server, where it is kept.
pub(super) struct Kept {
    history: Option<(History, Arc<Listeners>)>,
}

impl Kept {
    /// Starts what the configuration says.
    pub(super) fn start(config: &Config) -> Self {
        let start = |settings| {
            let history = History::start(settings);
            let listeners = Listeners::new(history.recorder().clone());
            (history, listeners)
        };
        Self { history: settings(config).map(start) }
    }

    /// What is kept, for those who ask.
    pub(super) fn reader(&self) -> Option<Reader> {
        self.history.as_ref().map(|(history, _)| history.reader().clone())
    }

    /// Records all sessions that begin from now on.
    pub(super) fn record(&self, registry: &Registry) {
        if let Some((_, listeners)) = &self.history {
            registry.tell(Arc::clone(listeners) as _);
        }
    }

    /// Waits until everything that sessions have told is on its way to the store; sessions that are not over are not heard
    /// any more.
    pub(super) async fn heard(&self, deadline: Instant) {
        if let Some((_, listeners)) = &self.history {
            listeners.end(deadline).await;
        }
    }

    /// Writes what waits, and ends.
    pub(super) async fn end(self) {
        if let Some((history, _)) = self.history {
            history.end().await;
        }
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Kept").finish_non_exhaustive()
    }
}

fn settings(config: &Config) -> Option<Settings> {
    let store = &config.store;
    let target = match &store.place {
        StorePlace::Off => return None,
        StorePlace::At(target) => target.clone(),
        StorePlace::Auto => match state::folder() {
            Some(folder) => Target::Sqlite(folder.join("history.db")),
            None => {
                tracing::warn!("no history is kept, since neither XDG_STATE_HOME nor HOME is set; set store.url");
                return None;
            }
        },
    };
    let beside = match &target {
        Target::Sqlite(path) => {
            let mut name = path.clone().into_os_string();
            name.push("-spool");
            Some(PathBuf::from(name))
        }
        Target::Postgres { .. } => state::folder().map(|folder| folder.join("spool")),
    };
    let spool = store.spool_dir.clone().or(beside);
    Some(Settings { target, retention: store.retention, spool, spool_bytes: store.spool_bytes })
}

/// One task for each session.
struct Listeners {
    recorder: Recorder,
    /// Whether nothing more is to be waited for.
    over: watch::Sender<bool>,
    tasks: Mutex<JoinSet<()>>,
}

impl Listeners {
    fn new(recorder: Recorder) -> Arc<Self> {
        Arc::new(Self { recorder, over: watch::Sender::new(false), tasks: Mutex::default() })
    }

    /// Has all of them read what is there, and end.
    async fn end(&self, deadline: Instant) {
        self.over.send_replace(true);
        let mut tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        let all = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout_at(deadline.into(), all).await.is_err() {
            tracing::warn!(sessions = tasks.len(), "what sessions told last was not recorded in time");
        }
        tasks.shutdown().await;
    }
}

impl Witness for Listeners {
    fn began(&self, handle: &Handle) {
        let id = handle.id().to_string();
        let source = Source { camera: handle.is_of_camera().then(|| id.clone()), session: id };
        // Here, so that what is told before the task has its turn is heard, too.
        let (results, events) = (handle.results(), handle.events());
        let session = self.recorder.session(source);
        let listener = record(handle.clone(), session, results, events, self.over.subscribe());
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(listener);
    }

    fn ended(&self, _: &SessionId, _: EndReason) {}
}

async fn record(
    handle: Handle,
    mut session: crate::history::Session,
    mut results: broadcast::Receiver<Arc<str>>,
    mut events: broadcast::Receiver<Arc<str>>,
    mut stopped: watch::Receiver<bool>,
) {
    let mut timer = interval(TICK);
    let over = async {
        tokio::select! {
            () = handle.closed() => {}
            _ = stopped.wait_for(|stop| *stop) => {}
        }
    };
    tokio::pin!(over);
    let mut is_over = false;
    loop {
        tokio::select! {
            // What was told before the end is told before it here, too.
            biased;
            event = events.recv() => match event {
                Ok(json) => session.event(clock::wall(), &json),
                Err(broadcast::error::RecvError::Lagged(lost)) => {
                    metrics::counter!("saccade_history_dropped_total", "reason" => "slow_tap").increment(lost);
                }
                Err(broadcast::error::RecvError::Closed) => return,
            },
            result = results.recv() => match result {
                Ok(json) => {
                    if let Some(facts) = facts(&json) {
                        session.result(clock::wall(), &facts);
                    }
                }
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return,
            },
            () = &mut over, if !is_over => is_over = true,
            _ = timer.tick(), if !is_over => session.tick(clock::wall()),
            // The handle's own senders keep the channels open: what is there has been read, and no more comes.
            () = std::future::ready(()), if is_over => return,
        }
    }
}

/// What is read of a result, in whichever format the session wants it.
#[derive(Deserialize)]
struct Heard {
    frame_id: u64,
    model: String,
    met: bool,
    timing_ms: Total,
    dropped: saccade_signaling::Dropped,
    detections: Value,
}

#[derive(Deserialize)]
struct Total {
    total: f64,
}

/// The facts of a result. A format that tells no class has detections without one: they are counted by the id. What a
/// model says of a whole frame is counted in no format: its classes are as many as there is room for, whatever is seen.
fn facts(json: &str) -> Option<Facts> {
    let heard: Heard = serde_json::from_str(json).ok()?;
    let found = match &heard.detections {
        // Segments have boxes, too, where COCO takes them.
        Value::Array(list) => {
            let found = list.iter().filter(|one| one.get("segmentation").is_none());
            found.map(|one| detection(one, "class", "object_id")).collect()
        }
        Value::Object(object) => match object.get("predictions").and_then(Value::as_array) {
            Some(list) => {
                let found = list.iter().filter(|one| one.get("x").is_some());
                found.map(|one| detection(one, "class", "tracker_id")).collect()
            }
            None if object.contains_key("xyxy") && !object.contains_key("mask") => columns(object),
            None => Vec::new(),
        },
        _ => Vec::new(),
    };
    let dropped = heard.dropped;
    Some(Facts {
        frame_id: heard.frame_id,
        model: heard.model,
        detections: found,
        total_ms: heard.timing_ms.total,
        met: heard.met,
        dropped: vec![("superseded", dropped.superseded), ("late", dropped.late), ("skipped", dropped.skipped)],
    })
}

fn detection(one: &Value, class: &str, object: &str) -> (String, Option<u64>) {
    let name = one.get(class).and_then(Value::as_str).map(str::to_owned);
    let name = name.or_else(|| one.get("category_id").map(|id| format!("class {id}")));
    (name.unwrap_or_default(), one.get(object).and_then(Value::as_u64))
}

/// Detections as columns.
fn columns(object: &serde_json::Map<String, Value>) -> Vec<(String, Option<u64>)> {
    let column = |name: &str| {
        let found = object.get(name).or_else(|| object.get("data").and_then(|data| data.get(name)));
        found.and_then(Value::as_array).cloned().unwrap_or_default()
    };
    let objects = column("tracker_id");
    let names = column("class_name").into_iter().enumerate();
    names
        .map(|(at, name)| (name.as_str().unwrap_or_default().to_owned(), objects.get(at).and_then(Value::as_u64)))
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::claims::Claims;
    use crate::history::Events;
    use crate::session::{Nobody, Publisher};

    /// All events, once the store is open.
    async fn opened(history: &History) -> Vec<crate::history::Event> {
        let all = async {
            loop {
                if let Ok(events) = history.reader().events(&Events::default(), 100).await {
                    return events;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), all).await.unwrap()
    }

    #[tokio::test]
    async fn what_sessions_told_last_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let target = Target::Sqlite(folder.path().join("history.db"));
        let settings = Settings { target, retention: Duration::from_secs(3_600), spool: None, spool_bytes: 0 };
        // Without a spool, what comes before the store is open is kept by nobody.
        let history = History::start(settings.clone());
        opened(&history).await;
        let (listeners, registry) = (Listeners::new(history.recorder().clone()), Arc::new(Registry::new(None)));
        registry.tell(Arc::clone(&listeners) as _);
        let open = |id: &str| {
            let (results, events) = (broadcast::Sender::new(8), broadcast::Sender::new(8));
            let (audience, nobody) = (Arc::new(Nobody), Publisher::Peer(None));
            let view = || unreachable!("nobody asks");
            let (handle, owner) = Handle::new(id.into(), results, events.clone(), view, nobody, audience);
            registry.admit(&Claims::everything(), None).unwrap().register(handle);
            (events, owner)
        };
        // One ends, and one does not; no task had its turn yet.
        let [(of_ended, owner), (of_other, _owner)] = ["ended", "other"].map(open);
        for (events, count) in [(&of_ended, 3), (&of_other, 2)] {
            for number in 0..count {
                let event = r#"{"type":"track_started","version":1,"#;
                let object = format!(r#""object_id":{number},"class":"head","class_id":1,"frame_id":1,"time_in":1}}"#);
                events.send(format!("{event}{object}").into()).unwrap();
            }
        }
        drop(owner);
        registry.remove(&"ended".into(), EndReason::Bye);
        listeners.end(clock::now() + Duration::from_secs(10)).await;
        history.end().await;

        let history = History::start(settings);
        let events = opened(&history).await;
        let of = |session: &str| events.iter().filter(|event| event.session == session).count();
        assert_eq!((of("ended"), of("other")), (3, 2), "{events:?}");
        history.end().await;
    }

    #[test]
    fn a_result_is_understood_in_every_format() {
        let head = r#"{"type":"result","frame_id":5,"model":"m@1","met":true,"timing_ms":{"total":12.5},"dropped":{"superseded":1,"late":2,"skipped":3},"detections":"#;
        for (detections, expected) in [
            (
                r#"[{"class":"head","object_id":7},{"class":"helmet","object_id":null}]"#,
                vec![("head", Some(7)), ("helmet", None)],
            ),
            (r#"[{"category_id":3}]"#, vec![("class 3", None)]),
            (r#"{"image":{},"predictions":[{"x":1.5,"class":"head","tracker_id":7}]}"#, vec![("head", Some(7))]),
            (r#"{"xyxy":[],"class_id":[0],"tracker_id":[9],"data":{"class_name":["head"]}}"#, vec![("head", Some(9))]),
            // Of whole frames.
            (r#"[],"classes":[{"class":"seven"}]"#, vec![]),
            (r#"[],"segments":[{"class":"road","box":[]}]"#, vec![]),
            (r#"{"image":{},"predictions":[{"class":"seven"}],"top":"seven"}"#, vec![]),
            (r#"{"class_id":[7],"data":{"class_name":["seven"]}}"#, vec![]),
            (r#"[{"category_id":3,"bbox":[],"segmentation":null}]"#, vec![]),
            (r#"{"xyxy":[],"class_id":[3],"mask":[null],"data":{"class_name":["road"]}}"#, vec![]),
        ] {
            let facts = facts(&format!("{head}{detections}}}")).unwrap();
            let found: Vec<_> = facts.detections.iter().map(|(name, id)| (name.as_str(), *id)).collect();
            assert_eq!(found, expected, "{detections}");
            assert_eq!((facts.frame_id, facts.dropped[1]), (5, ("late", 2)));
        }
        assert!(facts("{}").is_none());
    }
}

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::super::{Change, Source};
use super::layout::Layout;

/// Topics at most, so that a broker full of strangers' does not fill memory.
const MAX_TOPICS: usize = 65_536;

/// What the broker is to keep: one retained message a topic, of which only the newest matters. However long the broker is
/// away, it holds no more than what is true now, and which of the topics that the broker has are to go.
#[derive(Debug)]
pub(super) struct Board {
    layout: Layout,
    sources: BTreeMap<(bool, Arc<str>), Shown>,
    topics: BTreeMap<String, Topic>,
    dirty: BTreeSet<String>,
}

#[derive(Debug)]
struct Topic {
    /// Empty: it is to go.
    payload: String,
    /// Whether the broker may have it.
    sent: bool,
}

/// What is known of a source.
#[derive(Debug, Default)]
struct Shown {
    live: bool,
    in_session: bool,
    zones: BTreeMap<Arc<str>, u32>,
    lines: BTreeMap<Arc<str>, [u64; 2]>,
    /// Alerts that are on, by rule: whom they are about.
    rules: BTreeMap<Arc<str>, BTreeSet<Option<u64>>>,
    last_alert: Option<Value>,
}

impl Board {
    pub(super) const fn new(layout: Layout) -> Self {
        Self { layout, sources: BTreeMap::new(), topics: BTreeMap::new(), dirty: BTreeSet::new() }
    }

    pub(super) const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Takes in what has changed. A camera stays when its session ends; another session goes with all its topics.
    pub(super) fn apply(&mut self, source: &Source, change: &Change) {
        let key = (source.is_camera, Arc::clone(&source.name));
        if *change == Change::Ended && !source.is_camera {
            self.sources.remove(&key);
        } else {
            self.sources.entry(key).or_default().apply(change);
        }
        self.render(source);
    }

    /// A topic whose message the broker is to get now, and the message; an empty one removes it.
    pub(super) fn next(&mut self) -> Option<(String, String)> {
        while let Some(name) = self.dirty.pop_first() {
            if let Some(topic) = self.topics.get_mut(&name) {
                topic.sent = true;
                return Some((name, topic.payload.clone()));
            }
        }
        None
    }

    /// The broker has taken the last message of this topic.
    pub(super) fn taken(&mut self, name: &str) {
        if self.topics.get(name).is_some_and(|topic| topic.payload.is_empty()) && !self.dirty.contains(name) {
            self.topics.remove(name);
        }
    }

    /// Another connection: the broker may have forgotten everything, or not got the last.
    pub(super) fn all_again(&mut self) {
        self.dirty.extend(self.topics.keys().cloned());
    }

    /// Home Assistant has started: it wants to hear of all entities.
    pub(super) fn entities_again(&mut self) {
        let names = self.topics.keys().filter(|name| self.layout.is_discovery(name));
        self.dirty.extend(names.cloned());
    }

    /// The broker has a message of this topic, which may be left over from another time.
    pub(super) fn found(&mut self, name: &str, payload: &[u8]) {
        let is_known = self.topics.contains_key(name);
        if !is_known && !payload.is_empty() && self.topics.len() < MAX_TOPICS && self.layout.is_own(name, payload) {
            self.topics.insert(name.to_owned(), Topic { payload: String::new(), sent: true });
            self.dirty.insert(name.to_owned());
        }
    }

    pub(super) fn is_settled(&self) -> bool {
        self.dirty.is_empty()
    }

    /// Brings the topics of a source up to date.
    fn render(&mut self, source: &Source) {
        let shown = self.sources.get(&(source.is_camera, Arc::clone(&source.name)));
        let wanted = shown.map(|shown| shown.topics(source, &self.layout)).unwrap_or_default();
        let base = self.layout.base(source) + "/";
        // Entities name their camera's topics.
        let quoted = format!("\"{base}connectivity\"");
        let own = |name: &String, topic: &Topic| {
            name.starts_with(&base) || (self.layout.is_discovery(name) && topic.payload.contains(&quoted))
        };
        let gone: Vec<_> = self
            .topics
            .iter()
            .filter(|(name, topic)| own(name, topic) && !wanted.contains_key(*name))
            .map(|(name, _)| name.clone())
            .collect();
        for name in gone {
            self.set(name, String::new());
        }
        for (name, payload) in wanted {
            self.set(name, payload);
        }
    }

    fn set(&mut self, name: String, payload: String) {
        let is_full = self.topics.len() >= MAX_TOPICS;
        match self.topics.get_mut(&name) {
            Some(topic) if topic.payload == payload => return,
            // What the broker never had needs no removal.
            Some(topic) if payload.is_empty() && !topic.sent => {
                self.topics.remove(&name);
                self.dirty.remove(&name);
                return;
            }
            Some(topic) => topic.payload = payload,
            None if is_full => return,
            None => {
                self.topics.insert(name.clone(), Topic { payload, sent: false });
            }
        }
        self.dirty.insert(name);
    }
}

impl Shown {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Watches { zones, lines, rules } => {
                self.in_session = true;
                keep(&mut self.zones, zones);
                keep(&mut self.lines, lines);
                keep(&mut self.rules, rules);
            }
            Change::Zone { zone, count } => {
                // Who leaves a zone that is no longer watched is told of, too.
                if let Some(shown) = self.zones.get_mut(zone) {
                    *shown = *count;
                }
            }
            Change::Line { line, left_to_right, right_to_left } => {
                if let Some(shown) = self.lines.get_mut(line) {
                    *shown = [*left_to_right, *right_to_left];
                }
            }
            Change::Alert { rule, zone, object_id, started, time } => {
                let Some(about) = self.rules.get_mut(rule) else { return };
                if *started {
                    about.insert(*object_id);
                    self.last_alert = Some(json!({
                        "rule": &**rule, "zone": &**zone, "object_id": object_id, "time": &**time,
                    }));
                } else {
                    about.remove(object_id);
                }
            }
            Change::Camera { live } => self.live = *live,
            Change::Ended => {
                self.in_session = false;
                self.zones.values_mut().for_each(|count| *count = 0);
                self.lines.values_mut().for_each(|counts| *counts = [0; 2]);
                self.rules.values_mut().for_each(BTreeSet::clear);
            }
        }
    }

    fn topics(&self, source: &Source, layout: &Layout) -> BTreeMap<String, String> {
        let base = layout.base(source);
        let is_alert = self.rules.values().any(|about| !about.is_empty());
        let named = |name: &Arc<str>, value: Value| (name.to_string(), value);
        let zones: Map<_, _> = self.zones.iter().map(|(name, count)| named(name, json!({"count": count}))).collect();
        let lines = self.lines.iter().map(|(name, [left_to_right, right_to_left])| {
            named(name, json!({"left_to_right": left_to_right, "right_to_left": right_to_left}))
        });
        let rules = self.rules.iter().map(|(name, about)| {
            named(name, json!({"alert": !about.is_empty(), "objects": about.iter().flatten().count()}))
        });
        let mut state = json!({
            "in_session": self.in_session, "zones": zones, "lines": lines.collect::<Map<_, _>>(),
            "rules": rules.collect::<Map<_, _>>(), "alert": is_alert, "last_alert": self.last_alert,
        });
        let mut topics = BTreeMap::new();
        let switch = |on: bool| String::from(if on { "ON" } else { "OFF" });
        if source.is_camera {
            state["live"] = self.live.into();
            topics.insert(format!("{base}/connectivity"), switch(self.live));
            let names: Vec<_> = self.zones.keys().map(|name| &**name).collect();
            topics.extend(layout.entities(source, &names));
        }
        topics.insert(format!("{base}/state"), state.to_string());
        topics.insert(format!("{base}/alert"), switch(is_alert));
        topics.extend(self.zones.iter().map(|(zone, count)| (layout.zone(source, zone), count.to_string())));
        topics
    }
}

/// Those of these names, with what is known of them.
fn keep<T: Default>(known: &mut BTreeMap<Arc<str>, T>, names: &[Arc<str>]) {
    known.retain(|name, _| names.contains(name));
    for name in names {
        known.entry(Arc::clone(name)).or_default();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn board(home_assistant: bool) -> Board {
        let home_assistant = home_assistant.then(|| "homeassistant".to_owned());
        Board::new(Layout { prefix: "site/saccade".to_owned(), home_assistant })
    }

    fn source(name: &str, is_camera: bool) -> Source {
        Source { name: name.into(), is_camera }
    }

    fn watches(zones: &[&str]) -> Change {
        let names = |names: &[&str]| names.iter().map(|name| Arc::from(*name)).collect();
        Change::Watches { zones: names(zones), lines: names(&["door"]), rules: names(&["crowd"]) }
    }

    fn alert(object_id: Option<u64>, started: bool) -> Change {
        let (rule, zone, time) = ("crowd".into(), "gate 1".into(), "2026-01-01T00:00:00.000Z".into());
        Change::Alert { rule, zone, object_id, started, time }
    }

    /// Everything that is to be sent, as if the broker took it.
    fn sent(board: &mut Board) -> BTreeMap<String, String> {
        let sent: BTreeMap<_, _> = std::iter::from_fn(|| board.next()).collect();
        sent.keys().for_each(|name| board.taken(name));
        sent
    }

    #[test]
    fn a_camera_keeps_its_topics_and_only_what_changed_is_sent() {
        let (mut board, camera) = (board(false), source("yard", true));
        board.apply(&camera, &Change::Camera { live: false });
        board.apply(&camera, &watches(&["gate 1"]));
        board.apply(&camera, &Change::Camera { live: true });
        let base = "site/saccade/cameras/yard";
        let zone = format!("{base}/zones/gate_1_{}/count", &super::super::super::address::level("gate 1")[7..]);
        let first = sent(&mut board);
        let names: Vec<_> = first.keys().map(String::as_str).collect();
        let [alert_topic, connectivity, state] = ["alert", "connectivity", "state"].map(|end| format!("{base}/{end}"));
        assert_eq!(names, [&*alert_topic, &*connectivity, &*state, &*zone]);
        assert_eq!((&*first[&alert_topic], &*first[&connectivity], &*first[&zone]), ("OFF", "ON", "0"));

        for count in [1, 2, 3] {
            board.apply(&camera, &Change::Zone { zone: "gate 1".into(), count });
        }
        board.apply(&camera, &Change::Zone { zone: "none".into(), count: 9 });
        let second = sent(&mut board);
        assert_eq!((second.len(), &*second[&zone]), (2, "3"), "{second:?}");
        let shown: Value = serde_json::from_str(&second[&state]).unwrap();
        assert_eq!((&shown["zones"]["gate 1"]["count"], &shown["live"]), (&json!(3), &json!(true)));

        for change in [alert(Some(7), true), alert(Some(8), true), alert(Some(7), false)] {
            board.apply(&camera, &change);
        }
        assert_eq!(sent(&mut board)[&alert_topic], "ON");
        board.apply(&camera, &Change::Ended);
        let ended = sent(&mut board);
        assert_eq!((&*ended[&alert_topic], &*ended[&zone]), ("OFF", "0"));
        let shown: Value = serde_json::from_str(&ended[&state]).unwrap();
        assert_eq!((&shown["last_alert"]["object_id"], &shown["in_session"]), (&json!(8), &json!(false)));
        // A zone that is gone goes there, too.
        board.apply(&camera, &watches(&[]));
        assert_eq!(sent(&mut board)[&zone], "");
        assert!(board.is_settled() && !board.topics.contains_key(&zone));
        board.all_again();
        assert_eq!(sent(&mut board).len(), 3);
    }

    #[test]
    fn another_session_goes_with_its_topics_and_leaves_nothing_behind() {
        let (mut board, session) = (board(true), source("0a1b", false));
        board.apply(&session, &watches(&["gate"]));
        assert_eq!(sent(&mut board).len(), 3, "no entities");
        board.apply(&session, &Change::Ended);
        let gone = sent(&mut board);
        assert!(gone.len() == 3 && gone.values().all(String::is_empty), "{gone:?}");
        assert!(board.topics.is_empty() && board.sources.is_empty());
        // While the broker is away, sessions that come and go leave nothing either.
        for number in 0..10 {
            let session = source(&number.to_string(), false);
            board.apply(&session, &watches(&["gate"]));
            board.apply(&session, &Change::Ended);
        }
        assert!(board.topics.is_empty() && board.is_settled());
        // What it may have got before it went away has to go.
        board.apply(&session, &watches(&["gate"]));
        while board.next().is_some() {}
        board.apply(&session, &Change::Ended);
        board.all_again();
        assert_eq!(sent(&mut board).len(), 3);
    }

    #[test]
    fn home_assistant_is_told_of_each_entity_once_and_again_when_it_starts() {
        let (mut board, camera) = (board(true), source("yard.2", true));
        board.apply(&camera, &watches(&["gate", "gate 2"]));
        let told = sent(&mut board);
        let entities: Vec<(&String, Value)> = told
            .iter()
            .filter(|(name, _)| board.layout.is_discovery(name))
            .map(|(name, config)| (name, serde_json::from_str(config).unwrap()))
            .collect();
        assert_eq!(entities.len(), 4);
        let ids: BTreeSet<_> = entities.iter().map(|(_, entity)| entity["unique_id"].as_str().unwrap()).collect();
        assert_eq!(ids.len(), 4);
        for (name, entity) in &entities {
            let levels: Vec<_> = name.split('/').collect();
            assert_eq!((levels.len(), levels[0], levels[4]), (5, "homeassistant", "config"));
            let is_plain = |one: char| one.is_ascii_alphanumeric() || one == '_' || one == '-';
            assert!(levels[2..4].iter().all(|level| level.chars().all(is_plain)), "{name}");
            assert!(told.contains_key(entity["state_topic"].as_str().unwrap()), "{entity}");
            assert_eq!(entity["device"]["identifiers"], entities[0].1["device"]["identifiers"]);
            assert_eq!(entity["availability"][0]["topic"], "site/saccade/status");
        }
        board.entities_again();
        assert_eq!(sent(&mut board).len(), 4);
        board.apply(&camera, &watches(&["gate"]));
        let changed = sent(&mut board);
        let gone: Vec<_> = changed.iter().filter(|(_, payload)| payload.is_empty()).map(|(name, _)| name).collect();
        assert_eq!(gone.len(), 2, "the count and the entity: {changed:?}");
    }

    #[test]
    fn what_another_time_left_is_removed_and_what_is_of_others_stays() {
        let (mut board, camera) = (board(true), source("yard", true));
        board.apply(&camera, &watches(&[]));
        sent(&mut board);
        let own = r#"{"availability":[{"topic":"site/saccade/status"}]}"#;
        let others = r#"{"availability":[{"topic":"site/saccade_2/status"}]}"#;
        for (name, payload) in [
            ("site/saccade/cameras/old/state", "{}"),
            ("site/saccade/cameras/yard/state", "{}"),
            ("site/saccade_2/cameras/old/state", "{}"),
            ("homeassistant/sensor/x/y/config", own),
            ("homeassistant/sensor/x/z/config", others),
            ("homeassistant/sensor/x/bad/config", "bad"),
            ("site/saccade/cameras/gone/state", ""),
        ] {
            board.found(name, payload.as_bytes());
        }
        let removed = sent(&mut board);
        assert!(removed.values().all(String::is_empty));
        let names: Vec<_> = removed.keys().collect();
        assert_eq!(names, ["homeassistant/sensor/x/y/config", "site/saccade/cameras/old/state"]);
    }
}

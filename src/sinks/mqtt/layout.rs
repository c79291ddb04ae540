use serde_json::{Value, json};

use super::super::address::level;
use super::super::{Kind, Message, Source};

/// Names of topics, and what Home Assistant is told of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    /// What all topics begin with.
    pub(super) prefix: String,
    /// What topics of Home Assistant's discovery begin with, where it is to be told.
    pub(super) home_assistant: Option<String>,
}

impl Layout {
    /// Whether the server is there: `online` or `offline`.
    pub(super) fn status(&self) -> String {
        format!("{}/status", self.prefix)
    }

    /// Where a message goes.
    pub(super) fn message(&self, message: &Message) -> String {
        format!("{}/{}", self.base(&message.source), message.kind.plural())
    }

    /// Where all of a source goes.
    pub(super) fn base(&self, source: &Source) -> String {
        format!("{}/{}/{}", self.prefix, source.kind(), source.name)
    }

    pub(super) fn zone(&self, source: &Source, zone: &str) -> String {
        format!("{}/zones/{}/count", self.base(source), level(zone))
    }

    /// Patterns of all topics with retained messages of ours, and of those that may be.
    pub(super) fn retained(&self) -> Vec<String> {
        let own = ["state", "alert", "connectivity", "zones/+/count"].map(|end| format!("{}/+/+/{end}", self.prefix));
        let discovery = self.home_assistant.as_ref().map(|prefix| format!("{prefix}/+/+/+/config"));
        own.into_iter().chain(discovery).collect()
    }

    /// Where Home Assistant says that it has started.
    pub(super) fn birth(&self) -> Option<String> {
        self.home_assistant.as_ref().map(|prefix| format!("{prefix}/status"))
    }

    /// Whether a topic is one of Home Assistant's discovery.
    pub(super) fn is_discovery(&self, topic: &str) -> bool {
        let rest = self.home_assistant.as_ref().and_then(|prefix| topic.strip_prefix(prefix.as_str()));
        rest.is_some_and(|rest| rest.starts_with('/') && rest.ends_with("/config"))
    }

    /// Whether a retained message at one of [`Layout::retained`] is this server's: of a description of an entity, whether
    /// it names this server's status.
    pub(super) fn is_own(&self, topic: &str, payload: &[u8]) -> bool {
        if !self.is_discovery(topic) {
            return topic.strip_prefix(self.prefix.as_str()).is_some_and(|rest| rest.starts_with('/'));
        }
        let Ok(entity) = serde_json::from_slice::<Value>(payload) else { return false };
        let status = self.status();
        let available = entity["availability"].as_array();
        available.is_some_and(|topics| topics.iter().any(|one| one["topic"] == status.as_str()))
    }

    /// A camera's entities, each with its topic:
    /// <https://www.home-assistant.io/integrations/mqtt/#mqtt-discovery>.
    pub(super) fn entities(&self, camera: &Source, zones: &[&str]) -> Vec<(String, String)> {
        let Some(prefix) = &self.home_assistant else { return Vec::new() };
        let (node, base) = (format!("{}_{}", level(&self.prefix), level(&camera.name)), self.base(camera));
        let connectivity = format!("{base}/connectivity");
        let version = env!("CARGO_PKG_VERSION");
        let online = json!({"topic": self.status()});
        let connected = json!({"topic": connectivity, "payload_available": "ON", "payload_not_available": "OFF"});
        let entity = |component: &str, id: &str, more: Value| {
            let mut config = json!({
                "unique_id": format!("{node}_{id}"),
                "device": {
                    "identifiers": [node], "name": &*camera.name, "manufacturer": "Saccade", "model": "Camera",
                    "sw_version": version,
                },
                "origin": {"name": "Saccade", "sw_version": version},
                "availability": [online, connected],
                "availability_mode": "all",
            });
            if let (Some(config), Value::Object(more)) = (config.as_object_mut(), more) {
                config.extend(more);
            }
            (format!("{prefix}/{component}/{node}/{id}/config"), config.to_string())
        };
        let mut entities = vec![
            entity(
                "binary_sensor",
                "connectivity",
                json!({
                    "name": "Connectivity", "state_topic": connectivity, "device_class": "connectivity",
                    "entity_category": "diagnostic", "availability": [online],
                }),
            ),
            entity(
                "binary_sensor",
                "alert",
                json!({
                    "name": "Alert", "state_topic": format!("{base}/alert"), "device_class": "safety",
                    "json_attributes_topic": format!("{base}/state"),
                }),
            ),
        ];
        entities.extend(zones.iter().map(|zone| {
            let state = self.zone(camera, zone);
            let more = json!({
                "name": format!("{zone} occupancy"), "state_topic": state, "state_class": "measurement",
                "unit_of_measurement": "objects",
            });
            entity("sensor", &format!("zone_{}", level(zone)), more)
        }));
        entities
    }
}

/// How surely a message has to arrive: a result that is lost is followed by the next.
pub(super) const fn is_sure(kind: Kind, qos: u8) -> bool {
    matches!(kind, Kind::Event) && qos > 0
}

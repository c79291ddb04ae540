use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Zones that a session may have.
pub const MAX_ZONES: usize = 16;
/// Lines that a session may have.
pub const MAX_LINES: usize = 16;
/// Rules that a session may have.
pub const MAX_RULES: usize = 16;
/// Corners that a zone may have.
pub const MAX_POLYGON_POINTS: usize = 32;
/// Characters that the name of a zone, line or rule may have.
pub const MAX_NAME_CHARS: usize = 64;

/// A point in fractions of the upright frame: `[x, y]`, each 0..1, y downwards.
pub type Point = [f32; 2];

/// Which point of an object's box stands for the object.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Anchor {
    /// The middle of the box.
    #[default]
    Center,
    /// The middle of its lower edge: where a person or a vehicle stands.
    Bottom,
}

/// A named polygon that is watched.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Zone {
    /// Name, unique among the session's zones, 1 to [`MAX_NAME_CHARS`] characters.
    #[schemars(length(min = 1, max = MAX_NAME_CHARS))]
    pub name: String,
    /// Corners in order, 3 to [`MAX_POLYGON_POINTS`]; the sides do not cross.
    #[schemars(length(min = 3, max = MAX_POLYGON_POINTS))]
    pub polygon: Vec<Point>,
    /// Which point of a box has to be inside.
    #[serde(default)]
    pub anchor: Anchor,
    /// Seconds, 0..86400, after which an object that stayed inside is reported once ([`crate::Event::ZoneDwelled`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 86400.0))]
    pub dwell_s: Option<f64>,
}

/// A named line on which crossings are counted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// Name, unique among the session's lines, 1 to [`MAX_NAME_CHARS`] characters.
    #[schemars(length(min = 1, max = MAX_NAME_CHARS))]
    pub name: String,
    /// The two ends, apart; who looks from the first to the second has the line's left on the left hand.
    pub points: [Point; 2],
    /// Which point of a box has to cross.
    #[serde(default)]
    pub anchor: Anchor,
}

/// What raises an alert. Without `more_than` each object that stays in the zone too long raises one of its own; with
/// it, too many objects in the zone for too long raise one together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Name, unique among the session's rules, 1 to [`MAX_NAME_CHARS`] characters.
    #[schemars(length(min = 1, max = MAX_NAME_CHARS))]
    pub name: String,
    /// Name of the zone.
    pub zone: String,
    /// Names of the classes that count; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<Vec<String>>,
    /// Seconds, 0..86400, for which it has to last before the alert.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 86400.0))]
    pub longer_than_s: f64,
    /// Number of objects that is still fine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub more_than: Option<u32>,
}

/// Which way a line was crossed, as seen in the picture by who looks from the line's first point to its second: where
/// the line goes up, from bottom to top, its left is the picture's left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// From the left hand to the right hand.
    LeftToRight,
    /// From the right hand to the left hand.
    RightToLeft,
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn what_is_left_out_has_its_default() {
        let zone: Zone = serde_json::from_str(r#"{"name":"gate","polygon":[]}"#).unwrap();
        assert_eq!((zone.anchor, zone.dwell_s), (Anchor::Center, None));
        let line: Line = serde_json::from_str(r#"{"name":"door","points":[[0,0],[1,1]]}"#).unwrap();
        assert_eq!(serde_json::to_value(line).unwrap()["anchor"], "center");
        let rule: Rule = serde_json::from_str(r#"{"name":"empty","zone":"gate"}"#).unwrap();
        assert_eq!((rule.longer_than_s, rule.more_than, &rule.classes), (0.0, None, &None));
        let written: Value = serde_json::to_value(rule).unwrap();
        assert_eq!(written, json!({"name": "empty", "zone": "gate", "longer_than_s": 0.0}));
    }
}

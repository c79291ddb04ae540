use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::{Line, Rule, Zone};

/// Which video comes back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReturnMode {
    /// A returned frame waits for its own result.
    #[default]
    Exact,
    /// Video returns at once; the last result's boxes are carried to its time.
    Predicted,
    /// No video returns.
    Results,
}

/// Shape of the detections in each result.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ResultFormat {
    /// Our own: corners, class, score and object id.
    #[default]
    Saccade,
    /// COCO result objects: `bbox` is x, y, width, height.
    Coco,
    /// Roboflow's inference response: centre and size.
    Roboflow,
    /// Columns that `supervision.Detections` takes.
    Supervision,
}

/// What results tell of the segments that a model finds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Masks {
    /// Their outlines, as polygons in pixels of the frame.
    #[default]
    Outlines,
    /// Each of their pixels, in the run lengths of COCO, at the resolution of the model.
    Rle,
    /// Neither: classes, shares and boxes alone.
    None,
}

/// What is drawn on returned video.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Overlay {
    /// What was found, where it is: outlines of detections, their keypoints, tinted segments.
    pub boxes: bool,
    /// What it is: class, score and object id beside each box; classes of the whole frame in a corner.
    pub labels: bool,
    /// A strip with the times of the stages.
    pub timing: bool,
    /// Zones and lines of the session.
    pub zones: bool,
}

impl Default for Overlay {
    fn default() -> Self {
        Self { boxes: true, labels: true, timing: false, zones: false }
    }
}

/// Changes to [`Overlay`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OverlayPatch {
    /// See [`Overlay::boxes`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boxes: Option<bool>,
    /// See [`Overlay::labels`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<bool>,
    /// See [`Overlay::timing`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timing: Option<bool>,
    /// See [`Overlay::zones`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zones: Option<bool>,
}

/// All options of a session, as now in force.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Options {
    /// Model or route name.
    pub model: String,
    /// Which video comes back.
    #[serde(rename = "return")]
    pub return_mode: ReturnMode,
    /// Latency budget in milliseconds, last packet in to first packet out.
    pub budget_ms: u32,
    /// Lowest score that is reported, 0..1.
    pub score_threshold: f32,
    /// Overlap above which the weaker of two boxes of one class goes, 0..1.
    pub iou_threshold: f32,
    /// Detections reported for a frame at most.
    pub max_detections: u32,
    /// Class names that are reported; absent: all.
    pub classes: Option<Vec<String>>,
    /// Whether objects are followed from frame to frame.
    pub track: bool,
    /// What is drawn.
    pub overlay: Overlay,
    /// Shape of the results.
    pub format: ResultFormat,
    /// What is told of segments.
    #[serde(default)]
    pub masks: Masks,
    /// Watched areas, at most [`crate::MAX_ZONES`]; they, lines and rules need [`Options::track`].
    pub zones: Vec<Zone>,
    /// Counting lines, at most [`crate::MAX_LINES`].
    pub lines: Vec<Line>,
    /// What raises an alert, at most [`crate::MAX_RULES`].
    pub rules: Vec<Rule>,
}

/// Options as a client gives them: each key may be absent, an unknown one is a mistake.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OptionsPatch {
    /// See [`Options::model`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// See [`Options::return_mode`].
    #[serde(default, rename = "return", skip_serializing_if = "Option::is_none")]
    pub return_mode: Option<ReturnMode>,
    /// See [`Options::budget_ms`]; 10 to 5000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 5000))]
    pub budget_ms: Option<u32>,
    /// See [`Options::score_threshold`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub score_threshold: Option<f32>,
    /// See [`Options::iou_threshold`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub iou_threshold: Option<f32>,
    /// See [`Options::max_detections`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_detections: Option<u32>,
    /// See [`Options::classes`]; an empty list reports all again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<Vec<String>>,
    /// See [`Options::track`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub track: Option<bool>,
    /// See [`Options::overlay`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlay: Option<OverlayPatch>,
    /// See [`Options::format`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<ResultFormat>,
    /// See [`Options::masks`]; for models that segment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub masks: Option<Masks>,
    /// See [`Options::zones`]; this list, like the next two, replaces the whole one before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = crate::MAX_ZONES))]
    pub zones: Option<Vec<Zone>>,
    /// See [`Options::lines`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = crate::MAX_LINES))]
    pub lines: Option<Vec<Line>>,
    /// See [`Options::rules`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = crate::MAX_RULES))]
    pub rules: Option<Vec<Rule>>,
}

/// Reads a patch from a JSON object; what serde derives would take a list, too.
pub(crate) fn object<'de, D: Deserializer<'de>>(deserializer: D) -> Result<OptionsPatch, D::Error> {
    let keys = Map::deserialize(deserializer)?;
    OptionsPatch::deserialize(Value::Object(keys)).map_err(D::Error::custom)
}

/// The same where the patch may be absent or `null`.
pub(crate) fn optional_object<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<OptionsPatch>, D::Error> {
    let keys = Option::<Map<String, Value>>::deserialize(deserializer)?;
    keys.map(|keys| OptionsPatch::deserialize(Value::Object(keys)).map_err(D::Error::custom)).transpose()
}

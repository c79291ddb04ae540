//! One processed frame → one JSON text, in the format that the session asked for.
//!
//! Every format has the same envelope ([`SessionResult`](saccade_signaling::SessionResult)); only the value of
//! `detections` differs:
//!
//! - `saccade`: a list of [`Detection`](saccade_signaling::Detection)s. What is said of the whole frame has keys of its own:
//!   `classes`, `segments` with `mask_box`, or `tensors`.
//! - `coco`: a list of COCO result objects, `bbox` as left, top, width, height, `image_id` the frame's id, `keypoints` as
//!   x, y and 2 for each. Segments are results of its stuff task: `segmentation` is a mask of the frame's size.
//! - `roboflow`: what `supervision.Detections.from_inference` takes: `image` and `predictions`, these with `keypoints` where
//!   there are some; for classes of the whole frame its answer of a classifier.
//! - `supervision`: the columns of `supervision.Detections`, of which `mask` is for `supervision.rle_to_mask` with the
//!   frame's size and `data.keypoints` has x, y and score for each; for classes of the whole frame those of
//!   `supervision.Classifications`. Make arrays of them.
//!
//! What a task has no place for in a format is refused before ([`crate::session`]).

use std::time::Duration;

use saccade_signaling::{Dropped, Masks, ResultFormat, Timing};
use serde::ser::{Serialize, SerializeMap, SerializeSeq, SerializeStruct, Serializer};

use super::whole;
use crate::media::{Detection, MediaTime, Overall};

/// Version of the shape.
const VERSION: u32 = 1;

/// Time that one frame spent in each stage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timings {
    /// Waiting in the reorder buffer, from the frame's last packet.
    pub reorder: Duration,
    /// Decoding, its queue included.
    pub decode: Duration,
    /// Waiting for the model.
    pub queue: Duration,
    /// Making the model's tensor.
    pub preprocess: Duration,
    /// Running the model.
    pub inference: Duration,
    /// Turning tensors into boxes.
    pub postprocess: Duration,
    /// Drawing.
    pub annotate: Duration,
    /// Encoding; the last known when the result leaves before its frame is encoded.
    pub encode: Duration,
    /// From the frame's last packet to this result, `encode` included.
    pub total: Duration,
}

/// All that a result tells of a frame.
#[derive(Debug, Clone, Copy)]
pub struct Processed<'a> {
    /// Id of the session.
    pub session_id: &'a str,
    /// Number of the frame among those decoded in the session, from 0.
    pub frame_id: u64,
    /// RTP timestamp of the frame as received.
    pub time_in: MediaTime,
    /// RTP timestamp of the returned frame, if this one is returned.
    pub time_out: Option<MediaTime>,
    /// Capture time in milliseconds since 1970, where the sender tells it.
    pub capture_time_ms: Option<f64>,
    /// Width of the upright frame, in pixels.
    pub width: u32,
    /// Height of the upright frame, in pixels.
    pub height: u32,
    /// Name and version of the model, such as `ppe-nano@1`.
    pub model: &'a str,
    /// What was found, best score first.
    pub detections: &'a [Detection],
    /// What is said of the whole frame.
    pub overall: Option<&'a Overall>,
    /// What is told of its segments.
    pub masks: Masks,
    /// Where the time went.
    pub timings: Timings,
    /// The session's latency budget in milliseconds.
    pub budget_ms: u32,
    /// Whether this frame kept the budget.
    pub met: bool,
    /// Frames that ran through the model together with this one.
    pub batch_size: u32,
    /// Frames dropped since the session began.
    pub dropped: Dropped,
    /// Steps of the degradation ladder in force.
    pub degraded: &'a [&'a str],
}

impl Processed<'_> {
    /// Writes the text of the result over what `text` holds, and gives it back. Coordinates are rounded to 0.01 pixel,
    /// scores to 0.0001, times to 0.001 ms.
    #[expect(clippy::expect_used, reason = "all keys are strings, and numbers that JSON lacks are written as null")]
    pub fn write_json<'t>(&self, format: ResultFormat, text: &'t mut Vec<u8>) -> &'t str {
        text.clear();
        serde_json::to_writer(&mut *text, &Envelope { frame: self, format }).expect("a result can be written");
        str::from_utf8(text).expect("JSON is UTF-8")
    }
}

impl From<Timings> for Timing {
    fn from(timings: Timings) -> Self {
        Self {
            reorder: milliseconds(timings.reorder),
            decode: milliseconds(timings.decode),
            queue: milliseconds(timings.queue),
            preprocess: milliseconds(timings.preprocess),
            inference: milliseconds(timings.inference),
            postprocess: milliseconds(timings.postprocess),
            annotate: milliseconds(timings.annotate),
            encode: milliseconds(timings.encode),
            total: milliseconds(timings.total),
        }
    }
}

/// Whole microseconds as milliseconds.
fn milliseconds(duration: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "exact up to 285 years")]
    let microseconds = duration.as_micros() as f64;
    microseconds / 1_000.0
}

/// `value` in steps of 1/`steps`, as an `f64` that prints short.
pub(super) fn rounded(value: f32, steps: f64) -> f64 {
    (f64::from(value) * steps).round() / steps
}

pub(super) fn pixels(value: f32) -> f64 {
    rounded(value, 100.0)
}

fn score(detection: &Detection) -> f64 {
    rounded(detection.score, 10_000.0)
}

/// Corners, rounded.
fn corners(detection: &Detection) -> [f64; 4] {
    detection.bbox.map(pixels)
}

/// Left, top, width and height: of the box as it is, rounded at the end.
fn left_top_size(detection: &Detection) -> [f64; 4] {
    let [x1, y1, x2, y2] = detection.bbox;
    [x1, y1, x2 - x1, y2 - y1].map(pixels)
}

/// Centre, width and height: of the box as it is, rounded at the end, the centre twice as finely, since it may lie
/// between two pixels.
fn centre_size(detection: &Detection) -> [f64; 4] {
    let [x1, y1, x2, y2] = detection.bbox;
    [rounded(f32::midpoint(x1, x2), 1_000.0), rounded(f32::midpoint(y1, y2), 1_000.0), pixels(x2 - x1), pixels(y2 - y1)]
}

/// The whole message. Its keys and their order are those of [`saccade_signaling::SessionResult`].
struct Envelope<'a> {
    frame: &'a Processed<'a>,
    format: ResultFormat,
}

impl Serialize for Envelope<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let frame = self.frame;
        let mut out = serializer.serialize_struct("result", 17)?;
        out.serialize_field("type", "result")?;
        out.serialize_field("version", &VERSION)?;
        out.serialize_field("session_id", frame.session_id)?;
        out.serialize_field("frame_id", &frame.frame_id)?;
        out.serialize_field("rtp_timestamp_in", &frame.time_in.0)?;
        out.serialize_field("rtp_timestamp_out", &frame.time_out.map(|time| time.0))?;
        out.serialize_field("capture_time_ms", &frame.capture_time_ms)?;
        out.serialize_field("width", &frame.width)?;
        out.serialize_field("height", &frame.height)?;
        out.serialize_field("model", frame.model)?;
        match (frame.overall, self.format) {
            (Some(overall), format) => whole::write(overall, frame, format, &mut out)?,
            (None, ResultFormat::Saccade) => out.serialize_field("detections", &each(frame, |_, d| Ours(d)))?,
            (None, ResultFormat::Coco) => {
                out.serialize_field("detections", &each(frame, |_, d| Coco(frame.frame_id, d)))?;
            }
            (None, ResultFormat::Roboflow) => out.serialize_field("detections", &Roboflow(frame))?,
            (None, ResultFormat::Supervision) => out.serialize_field("detections", &Columns(frame))?,
        }
        out.serialize_field("timing_ms", &Timing::from(frame.timings))?;
        out.serialize_field("budget_ms", &frame.budget_ms)?;
        out.serialize_field("met", &frame.met)?;
        out.serialize_field("batch_size", &frame.batch_size)?;
        out.serialize_field("dropped", &frame.dropped)?;
        out.serialize_field("degraded", frame.degraded)?;
        out.end()
    }
}

/// A list with one entry for each detection, made while it is written.
struct Each<'a, F>(&'a [Detection], F);

fn each<'a, T, F>(frame: &'a Processed<'_>, entry: F) -> Each<'a, F>
where
    F: Fn(usize, &'a Detection) -> T,
{
    Each(frame.detections, entry)
}

impl<'a, T: Serialize, F: Fn(usize, &'a Detection) -> T> Serialize for Each<'a, F> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.0.len()))?;
        for (index, detection) in self.0.iter().enumerate() {
            list.serialize_element(&(self.1)(index, detection))?;
        }
        list.end()
    }
}

/// The keys of [`saccade_signaling::Detection`].
struct Ours<'a>(&'a Detection);

impl Serialize for Ours<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let keypoints = !self.0.keypoints.is_empty();
        let mut out = serializer.serialize_struct("detection", 5 + usize::from(keypoints))?;
        out.serialize_field("box", &corners(self.0))?;
        out.serialize_field("class_id", &self.0.class.id)?;
        out.serialize_field("class", &*self.0.class.name)?;
        out.serialize_field("score", &score(self.0))?;
        out.serialize_field("object_id", &self.0.object_id)?;
        if keypoints {
            out.serialize_field("keypoints", &Points(self.0))?;
        }
        out.end()
    }
}

/// A COCO result object of a frame: <https://cocodataset.org/#format-results>.
struct Coco<'a>(u64, &'a Detection);

impl Serialize for Coco<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let keypoints = &self.1.keypoints;
        let mut out = serializer.serialize_struct("result", 4 + usize::from(!keypoints.is_empty()))?;
        out.serialize_field("image_id", &self.0)?;
        out.serialize_field("category_id", &self.1.class.id)?;
        out.serialize_field("bbox", &left_top_size(self.1))?;
        out.serialize_field("score", &score(self.1))?;
        if !keypoints.is_empty() {
            // Flat, each with COCO's mark for a visible point.
            let flat = keypoints.iter().flat_map(|point| [pixels(point.at[0]), pixels(point.at[1]), 2.0]);
            out.serialize_field("keypoints", &flat.collect::<Vec<_>>())?;
        }
        out.end()
    }
}

/// Roboflow's object detection response.
struct Roboflow<'a>(&'a Processed<'a>);

impl Serialize for Roboflow<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let frame = self.0;
        let mut out = serializer.serialize_struct("response", 2)?;
        out.serialize_field("image", &Size(frame.width, frame.height))?;
        out.serialize_field("predictions", &each(frame, |index, d| Prediction(frame.frame_id, index, d)))?;
        out.end()
    }
}

pub(super) struct Size(pub(super) u32, pub(super) u32);

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_struct("size", 2)?;
        out.serialize_field("width", &self.0)?;
        out.serialize_field("height", &self.1)?;
        out.end()
    }
}

/// A prediction of Roboflow's response. `detection_id` is unique in the session: the frame's id and the index in it.
struct Prediction<'a>(u64, usize, &'a Detection);

impl Serialize for Prediction<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(frame_id, index, detection) = *self;
        let [x, y, width, height] = centre_size(detection);
        let mut out = serializer.serialize_map(None)?;
        out.serialize_entry("x", &x)?;
        out.serialize_entry("y", &y)?;
        out.serialize_entry("width", &width)?;
        out.serialize_entry("height", &height)?;
        out.serialize_entry("confidence", &score(detection))?;
        out.serialize_entry("class", &*detection.class.name)?;
        out.serialize_entry("class_id", &detection.class.id)?;
        out.serialize_entry("detection_id", &format_args!("{frame_id}-{index}"))?;
        if let Some(object_id) = detection.object_id {
            out.serialize_entry("tracker_id", &object_id)?;
        }
        if !detection.keypoints.is_empty() {
            let named = detection.keypoints.iter().enumerate().map(|(index, point)| NamedPoint {
                x: pixels(point.at[0]),
                y: pixels(point.at[1]),
                confidence: rounded(point.score, 10_000.0),
                class_id: index,
                class: index.to_string(),
            });
            out.serialize_entry("keypoints", &named.collect::<Vec<_>>())?;
        }
        out.end()
    }
}

/// A keypoint of Roboflow's response; its class is its number.
#[derive(serde::Serialize)]
struct NamedPoint {
    x: f64,
    y: f64,
    confidence: f64,
    class_id: usize,
    class: String,
}

/// A detection's keypoints as x, y and score.
struct Points<'a>(&'a Detection);

impl Serialize for Points<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let points = self.0.keypoints.iter();
        serializer
            .collect_seq(points.map(|point| [pixels(point.at[0]), pixels(point.at[1]), rounded(point.score, 10_000.0)]))
    }
}

/// Columns of `supervision.Detections`.
struct Columns<'a>(&'a Processed<'a>);

impl Serialize for Columns<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let frame = self.0;
        let tracked = frame.detections.iter().any(|detection| detection.object_id.is_some());
        let mut out = serializer.serialize_struct("columns", 5)?;
        out.serialize_field("xyxy", &each(frame, |_, d| corners(d)))?;
        out.serialize_field("confidence", &each(frame, |_, d| score(d)))?;
        out.serialize_field("class_id", &each(frame, |_, d| d.class.id))?;
        // A column is whole or not there; −1 is supervision's own mark for what no tracker knows yet.
        let ids = each(frame, |_, d| d.object_id.map_or(-1, |id| i64::try_from(id).unwrap_or(-1)));
        out.serialize_field("tracker_id", &tracked.then_some(ids))?;
        out.serialize_field("data", &Data(frame))?;
        out.end()
    }
}

struct Data<'a>(&'a Processed<'a>);

impl Serialize for Data<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // A column is whole or not there.
        let detections = self.0.detections;
        let points = detections.first().map_or(0, |first| first.keypoints.len());
        let keypoints = points > 0 && detections.iter().all(|one| one.keypoints.len() == points);
        let mut out = serializer.serialize_struct("data", 1 + usize::from(keypoints))?;
        out.serialize_field("class_name", &each(self.0, |_, d| Name(d)))?;
        if keypoints {
            out.serialize_field("keypoints", &each(self.0, |_, d| Points(d)))?;
        }
        out.end()
    }
}

struct Name<'a>(&'a Detection);

impl Serialize for Name<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.class.name)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use saccade_signaling::SessionResult;
    use serde_json::Value;

    use super::*;
    use crate::media::Class;

    fn detection(bbox: [f32; 4], id: u32, name: &str, score: f32, object_id: Option<u64>) -> Detection {
        Detection { bbox, class: Class { id, name: name.into() }, score, object_id, keypoints: Vec::new() }
    }

    fn timings() -> Timings {
        let micros = Duration::from_micros;
        Timings {
            reorder: micros(400),
            decode: micros(1_200),
            queue: micros(800),
            preprocess: micros(500),
            inference: Duration::from_nanos(5_200_999),
            postprocess: micros(100),
            annotate: micros(300),
            encode: micros(2_900),
            total: micros(11_400),
        }
    }

    /// Three frames: one with tracked and untracked objects, one with untracked ones, one with nothing. The names try
    /// the escapes of JSON.
    fn frames(format: ResultFormat) -> String {
        let tracked = [
            detection([10.0, 20.5, 110.25, 220.0], 1, "helmet", 0.91, Some(7)),
            detection([0.0, 0.0, 1_279.999, 719.997], 0, "head", 0.333_33, None),
        ];
        let untracked =
            [detection([33.333_332, 66.666_664, 99.999_99, 133.333_33], 2, "\"hi-vis\" \\ vest é", 1.0, None)];
        let frame = Processed {
            session_id: "5e551d",
            frame_id: 1_234,
            time_in: MediaTime(3_735_928_559),
            time_out: Some(MediaTime(7)),
            capture_time_ms: None,
            width: 1_280,
            height: 720,
            model: "ppe-nano@1",
            detections: &tracked,
            overall: None,
            masks: Masks::default(),
            timings: timings(),
            budget_ms: 200,
            met: true,
            batch_size: 3,
            dropped: Dropped { superseded: 4, late: 0, skipped: 0 },
            degraded: &[],
        };
        let second = Processed {
            frame_id: 1_235,
            time_out: None,
            capture_time_ms: Some(1_763_690_000_000.5),
            detections: &untracked,
            met: false,
            degraded: &["skip_inference"],
            ..frame
        };
        let third = Processed { frame_id: 1_236, detections: &[], ..frame };
        let mut text = Vec::new();
        [frame, second, third].iter().map(|frame| frame.write_json(format, &mut text).to_owned() + "\n").collect()
    }

    #[test]
    fn each_format_is_as_its_golden_file() {
        for (format, golden) in [
            (ResultFormat::Saccade, include_str!("../../tests/data/results/saccade.jsonl")),
            (ResultFormat::Coco, include_str!("../../tests/data/results/coco.jsonl")),
            (ResultFormat::Roboflow, include_str!("../../tests/data/results/roboflow.jsonl")),
            (ResultFormat::Supervision, include_str!("../../tests/data/results/supervision.jsonl")),
        ] {
            assert_eq!(frames(format), golden, "{format:?}");
        }
    }

    #[test]
    fn our_own_format_is_the_wire_type() {
        for line in frames(ResultFormat::Saccade).lines() {
            let result: SessionResult = serde_json::from_str(line).unwrap();
            let again: Value = serde_json::to_value(&result).unwrap();
            let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
            let line: Value = serde_json::from_str(line).unwrap();
            assert_eq!(keys(&again), keys(&line));
            assert_eq!(result.timing_ms, Timing::from(timings()));
        }
    }

    #[test]
    fn the_formats_differ_in_their_detections_alone() {
        let without = |format| {
            let lines = frames(format);
            let mut values: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            values.iter_mut().for_each(|value| drop(value.as_object_mut().unwrap().remove("detections").unwrap()));
            values
        };
        for format in [ResultFormat::Coco, ResultFormat::Roboflow, ResultFormat::Supervision] {
            assert_eq!(without(format), without(ResultFormat::Saccade));
        }
    }

    #[test]
    fn numbers_that_json_lacks_do_not_break_the_text() {
        let broken = [detection([f32::NAN, f32::INFINITY, 0.0, 0.0], 0, "head", f32::NAN, None)];
        let frame = Processed {
            session_id: "",
            frame_id: 0,
            time_in: MediaTime(0),
            time_out: None,
            capture_time_ms: Some(f64::NAN),
            width: 1,
            height: 1,
            model: "",
            detections: &broken,
            overall: None,
            masks: Masks::default(),
            timings: Timings::default(),
            budget_ms: 1,
            met: true,
            batch_size: 1,
            dropped: Dropped::default(),
            degraded: &[],
        };
        for format in [ResultFormat::Saccade, ResultFormat::Coco, ResultFormat::Roboflow, ResultFormat::Supervision] {
            serde_json::from_str::<Value>(frame.write_json(format, &mut Vec::new())).unwrap();
        }
    }
}

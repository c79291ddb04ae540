//! What a model says of a whole frame, in each format that has a place for it: see [`super::results`].

use saccade_signaling::{Masks, ResultFormat};
use serde::Serialize;
use serde::ser::SerializeStruct;

use super::results::{Processed, Size, pixels, rounded};
use super::{outlines, rle};
use crate::media::{Label, Mask, Overall, Segment, Tensor};

/// Writes the fields in which results differ by their format.
pub(super) fn write<S: SerializeStruct>(
    overall: &Overall,
    frame: &Processed<'_>,
    format: ResultFormat,
    out: &mut S,
) -> Result<(), S::Error> {
    // Our own format has keys of its own for it.
    let none: [u8; 0] = [];
    match (overall, format) {
        (Overall::Labels(labels), ResultFormat::Roboflow) => out.serialize_field("detections", &answer(labels, frame)),
        (Overall::Labels(labels), ResultFormat::Supervision) => out.serialize_field("detections", &columns(labels)),
        (Overall::Labels(labels), _) => {
            out.serialize_field("detections", &none)?;
            out.serialize_field("classes", &labels.iter().map(Class::from).collect::<Vec<_>>())
        }
        (Overall::Mask(mask), ResultFormat::Coco) => out.serialize_field("detections", &stuff(mask, frame)),
        (Overall::Mask(mask), ResultFormat::Supervision) => {
            out.serialize_field("detections", &mask_columns(mask, frame))
        }
        (Overall::Mask(mask), _) => {
            out.serialize_field("detections", &none)?;
            out.serialize_field("segments", &segments(mask, frame))?;
            if frame.masks == Masks::Rle {
                out.serialize_field("mask_box", &mask.corners().map(pixels))?;
            }
            Ok(())
        }
        (Overall::Tensors(tensors), _) => {
            out.serialize_field("detections", &none)?;
            out.serialize_field("tensors", &tensors.iter().map(Values::from).collect::<Vec<_>>())
        }
    }
}

/// The keys of [`saccade_signaling::Label`].
#[derive(Serialize)]
struct Class<'a> {
    class_id: u32,
    class: &'a str,
    score: f64,
}

impl<'a> From<&'a Label> for Class<'a> {
    fn from(label: &'a Label) -> Self {
        Self { class_id: label.class.id, class: &label.class.name, score: rounded(label.score, 10_000.0) }
    }
}

/// Roboflow's answer of a classifier.
#[derive(Serialize)]
struct Answer<'a> {
    image: Size,
    predictions: Vec<Prediction<'a>>,
    top: &'a str,
    confidence: f64,
}

#[derive(Serialize)]
struct Prediction<'a> {
    class: &'a str,
    class_id: u32,
    confidence: f64,
}

fn answer<'a>(labels: &'a [Label], frame: &Processed<'_>) -> Answer<'a> {
    let prediction = |label: &'a Label| {
        let Class { class_id, class, score } = label.into();
        Prediction { class, class_id, confidence: score }
    };
    let (top, confidence) = labels.first().map(|label| (&*label.class.name, label.score)).unwrap_or_default();
    Answer {
        image: Size(frame.width, frame.height),
        predictions: labels.iter().map(prediction).collect(),
        top,
        confidence: rounded(confidence, 10_000.0),
    }
}

/// Columns of `supervision.Classifications`.
#[derive(Serialize)]
struct ClassColumns<'a> {
    class_id: Vec<u32>,
    confidence: Vec<f64>,
    data: Names<'a>,
}

#[derive(Serialize)]
struct Names<'a> {
    class_name: Vec<&'a str>,
}

fn columns(labels: &[Label]) -> ClassColumns<'_> {
    ClassColumns {
        class_id: labels.iter().map(|label| label.class.id).collect(),
        confidence: labels.iter().map(|label| rounded(label.score, 10_000.0)).collect(),
        data: Names { class_name: labels.iter().map(|label| &*label.class.name).collect() },
    }
}

/// The keys of [`saccade_signaling::Segment`].
#[derive(Serialize)]
struct Found<'a> {
    class_id: u32,
    class: &'a str,
    area_ratio: f64,
    #[serde(rename = "box")]
    bbox: [f64; 4],
    #[serde(skip_serializing_if = "Option::is_none")]
    polygons: Option<Vec<Vec<[f64; 2]>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rle: Option<Runs>,
    #[serde(skip_serializing_if = "Option::is_none")]
    left_out: Option<u32>,
}

/// The keys of [`saccade_signaling::Rle`].
#[derive(Serialize)]
struct Runs {
    /// Height and width.
    size: [u32; 2],
    counts: String,
}

fn segments<'a>(mask: &'a Mask, frame: &Processed<'_>) -> Vec<Found<'a>> {
    let found = |segment: &'a Segment| Found {
        class_id: segment.class.id,
        class: &segment.class.name,
        area_ratio: rounded(segment.area_ratio, 10_000.0),
        bbox: segment.bbox.map(pixels),
        polygons: None,
        rle: None,
        left_out: None,
    };
    let mut all: Vec<_> = mask.segments().iter().map(found).collect();
    match frame.masks {
        Masks::Outlines => {
            // Tenths of a pixel are finer than any mask.
            let point = |point: [f32; 2]| point.map(|side| rounded(side, 10.0));
            let size = [frame.width as f32, frame.height as f32];
            for (found, outlines) in all.iter_mut().zip(outlines::outlines(mask, size)) {
                let rings = outlines.rings.into_iter().map(|ring| ring.into_iter().map(point).collect());
                found.polygons = Some(rings.collect());
                found.left_out = Some(outlines.left_out).filter(|left_out| *left_out > 0);
            }
        }
        Masks::Rle => {
            let [width, height] = mask.size();
            let (columns, rows): (Vec<_>, Vec<_>) = ((0..width).collect(), (0..height).collect());
            for (found, counts) in all.iter_mut().zip(runs(mask, &columns, &rows)) {
                found.left_out = counts.is_none().then_some(1);
                found.rle = counts.map(|counts| Runs { size: [height, width], counts });
            }
        }
        Masks::None => {}
    }
    all
}

/// The run lengths of each segment, those of the largest ones as far as there is room for them in a message.
fn runs(mask: &Mask, columns: &[u32], rows: &[u32]) -> Vec<Option<String>> {
    let mut room = rle::MAX_TEXT;
    let fitting = |text: String| {
        let fits = text.len() <= room;
        room -= if fits { text.len() } else { 0 };
        fits.then_some(text)
    };
    rle::encode(mask, columns, rows).into_iter().map(fitting).collect()
}

/// Run lengths at the size of the frame.
fn frame_runs(mask: &Mask, frame: &Processed<'_>) -> Vec<Option<Runs>> {
    let columns: Vec<_> = mask.places(0, frame.width).collect();
    let rows: Vec<_> = mask.places(1, frame.height).collect();
    let size = [frame.height, frame.width];
    let runs = runs(mask, &columns, &rows);
    runs.into_iter().map(|counts| counts.map(|counts| Runs { size, counts })).collect()
}

/// A result of COCO's stuff task, with the box of it.
#[derive(Serialize)]
struct Stuff {
    image_id: u64,
    category_id: u32,
    bbox: [f64; 4],
    /// None where there was no room for it.
    segmentation: Option<Runs>,
}

fn stuff(mask: &Mask, frame: &Processed<'_>) -> Vec<Stuff> {
    let found = |(segment, segmentation): (&Segment, Option<Runs>)| {
        let [x1, y1, x2, y2] = segment.bbox;
        let bbox = [x1, y1, x2 - x1, y2 - y1].map(pixels);
        Stuff { image_id: frame.frame_id, category_id: segment.class.id, bbox, segmentation }
    };
    mask.segments().iter().zip(frame_runs(mask, frame)).map(found).collect()
}

/// Columns of `supervision.Detections`.
#[derive(Serialize)]
struct MaskColumns<'a> {
    xyxy: Vec<[f64; 4]>,
    /// There is no score.
    confidence: Option<Vec<f64>>,
    class_id: Vec<u32>,
    tracker_id: Option<Vec<i64>>,
    mask: Vec<Option<String>>,
    data: Names<'a>,
}

fn mask_columns<'a>(mask: &'a Mask, frame: &Processed<'_>) -> MaskColumns<'a> {
    let segments = mask.segments();
    MaskColumns {
        xyxy: segments.iter().map(|segment| segment.bbox.map(pixels)).collect(),
        confidence: None,
        class_id: segments.iter().map(|segment| segment.class.id).collect(),
        tracker_id: None,
        mask: frame_runs(mask, frame).into_iter().map(|runs| runs.map(|runs| runs.counts)).collect(),
        data: Names { class_name: segments.iter().map(|segment| &*segment.class.name).collect() },
    }
}

/// The keys of [`saccade_signaling::Tensor`].
#[derive(Serialize)]
struct Values<'a> {
    name: &'a str,
    shape: &'a [i64],
    /// What is no number is written as null.
    data: Option<&'a [f32]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    left_out: Option<u64>,
}

impl<'a> From<&'a Tensor> for Values<'a> {
    fn from(Tensor { name, shape, data }: &'a Tensor) -> Self {
        let values = shape.iter().map(|side| side.unsigned_abs()).product();
        Self { name, shape, data: data.as_deref(), left_out: data.is_none().then_some(values) }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use saccade_signaling::{Dropped, SessionResult};
    use serde_json::{Value, json};

    use super::*;
    use crate::egress::results::Timings;
    use crate::media::{self, Detection, Keypoint, MediaTime};

    fn class(id: u32) -> media::Class {
        media::Class { id, name: format!("c{id}").into() }
    }

    fn written(overall: Option<&Overall>, detections: &[Detection], format: ResultFormat, masks: Masks) -> Value {
        let frame = Processed {
            session_id: "s",
            frame_id: 7,
            time_in: MediaTime(1),
            time_out: None,
            capture_time_ms: None,
            width: 40,
            height: 20,
            model: "m@1",
            detections,
            overall,
            masks,
            timings: Timings::default(),
            budget_ms: 200,
            met: true,
            batch_size: 1,
            dropped: Dropped::default(),
            degraded: &[],
        };
        serde_json::from_str(frame.write_json(format, &mut Vec::new())).unwrap()
    }

    /// Our own format, which is that of the wire types.
    fn ours(overall: &Overall, masks: Masks) -> (Value, SessionResult) {
        let value = written(Some(overall), &[], ResultFormat::Saccade, masks);
        let result: SessionResult = serde_json::from_value(value.clone()).unwrap();
        let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(&serde_json::to_value(&result).unwrap()), keys(&value));
        assert_eq!(result.detections, []);
        (value, result)
    }

    fn labels() -> Overall {
        let label = |(id, score)| Label { class: class(id), score };
        Overall::Labels([(3, 0.75), (1, 0.123_46)].map(label).to_vec())
    }

    /// Four by two pixels on a frame of forty by twenty.
    fn mask() -> Overall {
        let (map, frame) = (vec![2, 2, 255, 5, 2, 2, 255, 255], [40.0, 20.0]);
        let named = |index: u8| Some(class(index.into()));
        Overall::Mask(Mask::new([4, 2], map, [0.0, 0.0, 40.0, 20.0], frame, named))
    }

    #[test]
    fn classes_of_the_whole_frame_have_their_places() {
        let (value, result) = ours(&labels(), Masks::Outlines);
        let classes =
            json!([{"class_id": 3, "class": "c3", "score": 0.75}, {"class_id": 1, "class": "c1", "score": 0.1235}]);
        assert_eq!((&value["classes"], result.classes.unwrap().len()), (&classes, 2));
        let roboflow = written(Some(&labels()), &[], ResultFormat::Roboflow, Masks::Outlines);
        assert_eq!(
            (&roboflow["detections"]["top"], &roboflow["detections"]["confidence"]),
            (&json!("c3"), &json!(0.75))
        );
        assert_eq!(
            roboflow["detections"]["predictions"][1],
            json!({"class": "c1", "class_id": 1, "confidence": 0.1235})
        );
        let columns = written(Some(&labels()), &[], ResultFormat::Supervision, Masks::Outlines);
        assert_eq!(columns["detections"]["class_id"], json!([3, 1]));
    }

    #[test]
    fn segments_have_outlines_or_run_lengths_or_neither() {
        let (value, _) = ours(&mask(), Masks::Outlines);
        assert_eq!(value["segments"][0]["area_ratio"], json!(0.5));
        assert_eq!(value["segments"][1]["box"], json!([30.0, 0.0, 40.0, 10.0]));
        let diamond = json!([[[35.0, 0.0], [40.0, 5.0], [35.0, 10.0], [30.0, 5.0]]]);
        assert_eq!(value["segments"][1]["polygons"], diamond);
        assert!(value["segments"][0].get("rle").is_none() && value.get("mask_box").is_none());
        let (value, _) = ours(&mask(), Masks::Rle);
        assert_eq!(value["segments"][0]["rle"], json!({"size": [2, 4], "counts": "044"}));
        assert_eq!(value["segments"][1]["rle"], json!({"size": [2, 4], "counts": "611"}));
        assert_eq!(value["mask_box"], json!([0.0, 0.0, 40.0, 20.0]));
        let (value, _) = ours(&mask(), Masks::None);
        assert_eq!(value["segments"][0].as_object().unwrap().len(), 4);
    }

    #[test]
    fn coco_and_supervision_have_masks_of_the_frames_size() {
        let coco = written(Some(&mask()), &[], ResultFormat::Coco, Masks::Outlines);
        let first = &coco["detections"][0];
        assert_eq!((&first["image_id"], &first["category_id"]), (&json!(7), &json!(2)));
        assert_eq!(first["segmentation"]["size"], json!([20, 40]));
        assert_eq!(first["bbox"], json!([0.0, 0.0, 20.0, 20.0]));
        let columns = written(Some(&mask()), &[], ResultFormat::Supervision, Masks::Outlines);
        assert_eq!(columns["detections"]["mask"][0], first["segmentation"]["counts"]);
        assert_eq!(columns["detections"]["xyxy"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn run_lengths_beyond_the_room_are_left_out_and_told() {
        // Noise in both classes: hardly a run is longer than a pixel.
        let noise: Vec<u8> = (0..400 * 400u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 20 & 1) as u8).collect();
        let named = |index: u8| Some(class(index.into()));
        let mask = Overall::Mask(Mask::new([400, 400], noise, [0.0, 0.0, 40.0, 20.0], [40.0, 20.0], named));
        let (value, result) = ours(&mask, Masks::Rle);
        assert!(result.segments.unwrap().iter().all(|one| one.rle.is_none() && one.left_out == Some(1)));
        assert!(value.to_string().len() < 1_000);
        let (value, result) = ours(&mask, Masks::Outlines);
        assert!(value.to_string().len() < 60_000, "{}", value.to_string().len());
        assert!(result.segments.unwrap().iter().any(|one| one.left_out.is_some_and(|left_out| left_out > 1_000)));
    }

    #[test]
    fn tensors_are_as_they_are() {
        let tensor = |name: &str, shape: &[i64], data: Option<&[f32]>| Tensor {
            name: name.into(),
            shape: shape.to_vec(),
            data: data.map(<[f32]>::to_vec),
        };
        let all = [tensor("a", &[1, 3], Some(&[0.1, -2.0, f32::NAN])), tensor("b", &[1, 100, 100], None)];
        let (value, result) = ours(&Overall::Tensors(all.to_vec()), Masks::Outlines);
        assert_eq!(value["tensors"][0], json!({"name": "a", "shape": [1, 3], "data": [0.1, -2.0, null]}));
        assert_eq!(value["tensors"][1], json!({"name": "b", "shape": [1, 100, 100], "data": null, "left_out": 10_000}));
        assert_eq!(result.tensors.unwrap()[0].data, Some(vec![Some(0.1), Some(-2.0), None]));
    }

    #[test]
    fn keypoints_go_with_their_detections() {
        let keypoints = vec![Keypoint { at: [1.234, 2.0], score: 0.5 }, Keypoint { at: [3.0, 4.0], score: 0.5 }];
        let (bbox, object_id) = ([0.0, 0.0, 9.0, 9.0], Some(4));
        let with = Detection { bbox, class: class(0), score: 0.5, object_id, keypoints };
        let without = Detection { keypoints: Vec::new(), ..with.clone() };
        let all = [with, without];
        let write =
            |detections: &[Detection], format| written(None, detections, format, Masks::Outlines)["detections"].clone();
        let ours = write(&all, ResultFormat::Saccade);
        assert_eq!(ours[0]["keypoints"], json!([[1.23, 2.0, 0.5], [3.0, 4.0, 0.5]]));
        assert!(ours[1].get("keypoints").is_none());
        let coco = write(&all, ResultFormat::Coco);
        assert_eq!(coco[0]["keypoints"], json!([1.23, 2.0, 2.0, 3.0, 4.0, 2.0]));
        let roboflow = write(&all, ResultFormat::Roboflow);
        assert_eq!(roboflow["predictions"][0]["keypoints"][1]["x"], json!(3.0));
        assert!(write(&all, ResultFormat::Supervision)["data"].get("keypoints").is_none(), "a column is whole");
        let columns = write(&all[..1], ResultFormat::Supervision);
        assert_eq!(columns["data"]["keypoints"][0][0], json!([1.23, 2.0, 0.5]));
    }
}

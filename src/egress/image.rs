//! What is told of a still picture: the wire type [`saccade_signaling::ImageResult`], written without a copy of it.

use saccade_signaling::{ResultFormat, Timing};
use serde::ser::{Serialize, SerializeStruct, Serializer};

use super::results::{self, Processed, VERSION};

/// A picture and what was found in it. Of `processed`, what belongs to sessions is not told.
#[derive(Debug, Clone, Copy)]
pub struct Image<'a> {
    /// Its name in the request.
    pub name: Option<&'a str>,
    /// What was found, where the time went, and so on; `frame_id` is the picture's place in its request.
    pub processed: Processed<'a>,
    /// The picture with that drawn on it, as a `data:` URL.
    pub annotated: Option<&'a str>,
}

impl Image<'_> {
    /// The text of the result, rounded as those of sessions are.
    #[must_use]
    #[expect(clippy::expect_used, reason = "all keys are strings, and numbers that JSON lacks are written as null")]
    pub fn to_json(&self, format: ResultFormat) -> Vec<u8> {
        serde_json::to_vec(&Envelope { image: self, format }).expect("a result can be written")
    }
}

/// The whole object. Its keys and their order are those of [`saccade_signaling::ImageResult`].
struct Envelope<'a> {
    image: &'a Image<'a>,
    format: ResultFormat,
}

impl Serialize for Envelope<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Image { name, processed: frame, annotated } = self.image;
        let mut out = serializer.serialize_struct("result", 13 + usize::from(annotated.is_some()))?;
        out.serialize_field("type", "result")?;
        out.serialize_field("version", &VERSION)?;
        out.serialize_field("image", &frame.frame_id)?;
        out.serialize_field("name", name)?;
        out.serialize_field("width", &frame.width)?;
        out.serialize_field("height", &frame.height)?;
        out.serialize_field("model", frame.model)?;
        results::found(frame, self.format, &mut out)?;
        out.serialize_field("timing_ms", &Timing::from(frame.timings))?;
        out.serialize_field("budget_ms", &frame.budget_ms)?;
        out.serialize_field("met", &frame.met)?;
        out.serialize_field("batch_size", &frame.batch_size)?;
        if let Some(annotated) = annotated {
            out.serialize_field("annotated", annotated)?;
        }
        out.end()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use saccade_signaling::{Dropped, ImageResult, Masks};
    use serde_json::Value;

    use super::*;
    use crate::egress::results::Timings;
    use crate::media::{Class, Detection, MediaTime};

    #[test]
    fn our_own_format_is_the_wire_type_and_the_others_differ_in_their_detections_alone() {
        let class = Class { id: 1, name: "helmet".into() };
        let found =
            [Detection { bbox: [1.0, 2.0, 30.5, 40.25], class, score: 0.5, object_id: None, keypoints: Vec::new() }];
        let processed = Processed {
            session_id: "",
            frame_id: 3,
            time_in: MediaTime(0),
            time_out: None,
            capture_time_ms: None,
            width: 640,
            height: 480,
            model: "ppe-nano@1",
            detections: &found,
            overall: None,
            masks: Masks::Outlines,
            timings: Timings::default(),
            budget_ms: 5_000,
            met: true,
            batch_size: 2,
            dropped: Dropped::default(),
            degraded: &[],
        };
        for (name, annotated) in [(None, None), (Some("a \"b\".png"), Some("data:image/png;base64,AA=="))] {
            let image = Image { name, processed, annotated };
            let text = image.to_json(ResultFormat::Saccade);
            let read: ImageResult = serde_json::from_slice(&text).unwrap();
            assert_eq!(serde_json::to_string(&read).unwrap().as_bytes(), text, "keys, their order, and values");
            assert_eq!((read.image, read.name.as_deref(), read.annotated.as_deref()), (3, name, annotated));
            let without = |format| {
                let mut value: Value = serde_json::from_slice(&image.to_json(format)).unwrap();
                assert!(value.as_object_mut().unwrap().remove("detections").is_some());
                value
            };
            for format in [ResultFormat::Coco, ResultFormat::Roboflow, ResultFormat::Supervision] {
                assert_eq!(without(format), without(ResultFormat::Saccade));
            }
        }
    }
}

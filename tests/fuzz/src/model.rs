//! Models: what their manifests say, and what they put out.

use arbitrary::{Arbitrary, Unstructured};
use saccade::infer::manifest::Output;
use saccade::infer::{Error, Findings, Letterbox, Manifest, Outlet, Params, Postprocessor, View};
use saccade::media::{Class, Overall, Task};

/// Output of a model, and how the frame was.
#[derive(Debug, Arbitrary)]
struct Run<'a> {
    decoder: u8,
    width: u16,
    height: u16,
    score_threshold: u8,
    iou_threshold: u8,
    max_detections: u16,
    classes: Option<Vec<u8>>,
    /// What is wrong with the shapes, if anything.
    flaw: u8,
    resize: u8,
    /// Single-precision numbers, again and again until there are enough.
    numbers: &'a [u8],
}

const DECODERS: [&str; 9] = [
    "decoder = \"yolov8\"",
    "decoder = \"yolox\"\nstrides = [8, 16]",
    "decoder = \"ssd-boxes\"",
    "decoder = \"yunet\"\nstrides = [8, 16]",
    "decoder = \"fastestdet\"",
    "decoder = \"softmax\"\ntop_k = 2",
    "decoder = \"argmax\"\nlayout = \"nhwc\"",
    "decoder = \"argmax\"\nbackground = \"none\"",
    "decoder = \"raw\"",
];

fn written(decoder: &str, resize: u8) -> String {
    let classes = if decoder.contains("yunet") { "\"face\"" } else { "\"head\", \"helmet\"" };
    let classes = if decoder.contains("raw") { String::new() } else { format!("[classes]\nnames = [{classes}]\n") };
    let resize = ["letterbox-center", "letterbox-top-left", "stretch"][usize::from(resize) % 3];
    format!(
        "name = \"m\"\nversion = \"1\"\nlicence = \"MIT\"\n[input]\nsize = [48, 32]\nresize = \"{resize}\"\n[output]\n\
         {decoder}\n{classes}"
    )
}

/// Outputs as the decoder of a manifest wants them, the free sides of a few.
fn outlets(manifest: &Manifest) -> Vec<Outlet> {
    let classes = i64::try_from(manifest.classes.len()).unwrap();
    let cells = |stride: u32| {
        let [width, height] = manifest.input.size;
        i64::from(width.div_ceil(stride)) * i64::from(height.div_ceil(stride))
    };
    let outlet = |name: &str, shape: &[i64]| Outlet { name: name.to_owned(), shape: shape.to_vec() };
    match &manifest.output {
        Output::Yolov8 { .. } => vec![outlet("out", &[1, 4 + classes, 40])],
        Output::Yolox { strides, .. } => {
            vec![outlet("out", &[1, strides.iter().map(|stride| cells(*stride)).sum(), 5 + classes])]
        }
        Output::SsdBoxes { scores, boxes, background } => {
            vec![outlet(scores, &[1, 40, classes + i64::from(*background)]), outlet(boxes, &[1, 40, 4])]
        }
        Output::FastestDet { .. } => vec![outlet("out", &[1, 5 + classes, 2, 3])],
        Output::Softmax { .. } => vec![outlet("out", &[1, classes, 1, 1])],
        Output::Argmax { background: true, .. } => vec![outlet("out", &[1, 5, 7, 1 + classes])],
        Output::Argmax { .. } => vec![outlet("out", &[1, 4, 6])],
        Output::Raw { .. } => vec![outlet("a", &[1, 3, 2]), outlet("b", &[1, 5])],
        Output::Yunet { strides, .. } => strides
            .iter()
            .flat_map(|stride| {
                [("cls", 1), ("obj", 1), ("bbox", 4)]
                    .map(|(name, values)| outlet(&format!("{name}_{stride}"), &[1, cells(*stride), values]))
            })
            .collect(),
    }
}

/// Whatever numbers a model puts out, what is found is finite, inside the frame, sure enough, of a class that there is,
/// sorted, and no more than was asked for.
pub(crate) fn postprocess(data: &[u8]) {
    let Ok(run) = Run::arbitrary_take_rest(Unstructured::new(data)) else { return };
    let text = written(DECODERS[usize::from(run.decoder) % DECODERS.len()], run.resize);
    let manifest = Manifest::parse(&text, |_| Ok(String::new())).unwrap();
    let outlets = outlets(&manifest);
    let mut postprocessor = Postprocessor::bind(manifest.clone().into(), &outlets).unwrap();
    let numbers: Vec<f32> =
        run.numbers.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect();
    let mut numbers = numbers.iter().copied().chain([0.5]).cycle();
    let mut tensors: Vec<(Vec<i64>, Vec<f32>)> = outlets
        .iter()
        .map(|Outlet { shape, .. }| {
            let length = usize::try_from(shape.iter().product::<i64>()).unwrap();
            (shape.clone(), numbers.by_ref().take(length).collect())
        })
        .collect();
    let flawed = |tensors: &mut Vec<(Vec<i64>, Vec<f32>)>| match run.flaw {
        0 => tensors.clear(),
        1 => tensors[0].1.clear(),
        2 => tensors[0].0.clear(),
        3 => tensors[0].0[1] = i64::MAX,
        4 => tensors[0].0[1] = -1,
        5 => tensors[0].0.push(1),
        _ => {}
    };
    flawed(&mut tensors);
    let views: Vec<View<'_>> = tensors.iter().map(|(shape, data)| View { shape, data }).collect();
    let (width, height) = (u32::from(run.width).max(1), u32::from(run.height).max(1));
    let params = Params {
        score_threshold: f32::from(run.score_threshold) / 255.0,
        iou_threshold: f32::from(run.iou_threshold) / 255.0,
        max_detections: usize::from(run.max_detections % 1000) + 1,
        classes: run.classes.map(|classes| classes.into_iter().map(u32::from).collect()),
    };
    let letterbox = Letterbox::new(&manifest.input, width, height);
    let Findings { detections: found, overall } = match postprocessor.findings(&views, &letterbox, &params) {
        Ok(found) => found,
        Err(error) => {
            assert!(run.flaw <= 5, "{error}");
            assert!(matches!(error, Error::WrongOutput { .. } | Error::Run { .. }), "{error}");
            return;
        }
    };
    assert_eq!(overall.is_some(), !manifest.task.has_boxes());
    assert!(overall.is_none() || found.is_empty());
    let is_wanted = |class: &Class| {
        assert_eq!(manifest.classes.get(class.id as usize), Some(class));
        params.classes.as_ref().is_none_or(|wanted| wanted.contains(&class.id))
    };
    match overall.as_deref() {
        None => {}
        Some(Overall::Labels(labels)) => {
            assert!(labels.len() <= params.max_detections && labels.is_sorted_by(|a, b| a.score >= b.score));
            assert!(labels.iter().all(|label| (params.score_threshold..=1.0).contains(&label.score)));
            assert!(labels.iter().all(|label| is_wanted(&label.class)));
        }
        Some(Overall::Mask(mask)) => {
            let shares = mask.segments().iter().map(|segment| segment.area_ratio);
            assert!(mask.segments().len() <= params.max_detections && shares.sum::<f32>() <= 1.0 + 1e-4);
            assert!(mask.segments().iter().all(|segment| is_wanted(&segment.class)));
        }
        Some(Overall::Tensors(tensors)) => assert!(tensors.len() == 2 && tensors.iter().all(|one| one.data.is_some())),
    }
    assert!(found.len() <= params.max_detections);
    assert!(found.is_sorted_by(|a, b| a.score >= b.score));
    #[expect(clippy::cast_precision_loss, reason = "16 bits")]
    let (right, bottom) = (width as f32, height as f32);
    for detection in found {
        let [x1, y1, x2, y2] = detection.bbox;
        assert!(0.0 <= x1 && x1 < x2 && x2 <= right && 0.0 <= y1 && y1 < y2 && y2 <= bottom, "{detection:?}");
        assert!((params.score_threshold..=1.0).contains(&detection.score), "{detection:?}");
        assert_eq!(manifest.classes.get(detection.class.id as usize), Some(&detection.class));
        assert!(params.classes.as_ref().is_none_or(|wanted| wanted.contains(&detection.class.id)), "{detection:?}");
    }
}

/// A manifest, and behind a zero byte the file that it may name: it is in range, or its mistakes are named.
pub(crate) fn manifest(data: &[u8]) {
    let (text, file) =
        data.iter().position(|byte| *byte == 0).map_or((data, &[][..]), |at| (&data[..at], &data[at + 1..]));
    let Ok(text) = std::str::from_utf8(text) else { return };
    let file = String::from_utf8_lossy(file).into_owned();
    match Manifest::parse(text, |name| {
        assert!(!name.contains(['/', '\\']) && !name.starts_with('.'), "{name} is not beside the manifest");
        Ok(file)
    }) {
        Ok(manifest) => {
            assert!(manifest.id().contains('@') && !manifest.id().contains(['/', '\\', '\0']));
            assert!(manifest.input.size.iter().all(|side| (8..=4096).contains(side)));
            assert!(manifest.input.mean.iter().chain(&manifest.input.scale).all(|value| value.is_finite()));
            assert!((0.0..=1.0).contains(&manifest.defaults.score_threshold));
            assert!((0.0..=1.0).contains(&manifest.defaults.iou_threshold));
            assert!((1..=1000).contains(&manifest.defaults.max_detections));
            assert!(manifest.classes.iter().all(|class| !class.name.is_empty()));
            assert!(manifest.classes.iter().enumerate().all(|(at, class)| class.id as usize == at));
            for path in [Some(&manifest.file), manifest.int8.as_ref(), manifest.fp16.as_ref()].into_iter().flatten() {
                assert!(!path.path.contains(['/', '\\']) && !matches!(&path.path[..], "." | ".."), "{}", path.path);
            }
            // No model has these outputs, and the decoder says so.
            let strange = [Outlet { name: "out".to_owned(), shape: vec![1, 3, 5, 7, 9] }];
            assert!(manifest.task == Task::Raw || Postprocessor::bind(manifest.into(), &strange).is_err());
        }
        Err(Error::Manifest { mistakes }) => assert!(!mistakes.is_empty()),
        Err(error) => panic!("{error}"),
    }
}

//! Detections in fp32 against the golden ones of `tests/data/reference/reference.py`, whose head says what is
//! compared.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, iter};

use ffmpeg_next as ffmpeg;
use saccade::infer::manifest::{BackendChoice, Precision};
use saccade::infer::{Engine, Model, ModelSpec, Options, Params};
use saccade::media::{ColorInfo, ColorMatrix, ColorRange, Detection, I420};
use serde::Deserialize;

use crate::assets::asset;

const MAX_PIXELS_OFF: f32 = 1.0;
const MAX_SCORE_OFF: f32 = 0.01;

#[derive(Deserialize)]
struct Golden {
    thresholds: Thresholds,
    photos: Vec<Photo>,
}

#[derive(Deserialize)]
struct Thresholds {
    score: f32,
    iou: f32,
    margin: f32,
}

#[derive(Deserialize)]
struct Photo {
    photo: String,
    width: u32,
    height: u32,
    detections: Vec<Expected>,
}

#[derive(Deserialize)]
struct Expected {
    #[serde(rename = "box")]
    bbox: [f32; 4],
    class: String,
    score: f32,
    #[serde(default)]
    keypoints: Vec<[f32; 2]>,
}

#[test]
fn yolox_nano_finds_what_the_reference_finds() {
    compare_shared("yolox-nano", "models/yolox_nano_416.onnx", BackendChoice::Cpu);
}

#[test]
fn ultraface_finds_what_the_reference_finds() {
    compare_shared("ultraface", "models/ultraface_RFB_320.onnx", BackendChoice::Cpu);
}

#[test]
fn yunet_finds_what_the_reference_finds() {
    compare_shared("yunet", "models/yunet_n_320_320.onnx", BackendChoice::Cpu);
}

#[test]
fn yunet_finds_the_points_of_faces_that_the_reference_finds() {
    compare_shared("yunet-points", "models/yunet_n_320_320.onnx", BackendChoice::Cpu);
}

#[test]
fn fastestdet_finds_what_the_reference_finds() {
    compare_shared("fastestdet", "models/fastestdet_352.onnx", BackendChoice::Cpu);
}

#[test]
fn a_graph_with_free_sides_finds_the_same() {
    compare_shared("yunet", "models/yunet_n_dynamic.onnx", BackendChoice::Cpu);
}

#[test]
fn openvino_in_fp32_finds_the_same() {
    compare_shared("yolox-nano", "models/yolox_nano_416.onnx", BackendChoice::OpenVino);
}

#[test]
fn the_embedded_model_finds_what_the_reference_finds() {
    compare("ppe-nano", &ModelSpec::embedded().unwrap(), options(BackendChoice::Cpu));
}

fn compare_shared(name: &str, graph: &str, backend: BackendChoice) {
    compare_shared_by(name, graph, options(backend));
}

/// Compares what a model of the shared assets finds, run so.
pub fn compare_shared_by(name: &str, graph: &str, options: Options) {
    let Some(graph) = asset(name, graph) else { return };
    let folder = tempfile::tempdir().unwrap();
    let spec = model_folder(folder.path(), name, &graph);
    compare(name, &spec, options);
}

fn options(backend: BackendChoice) -> Options {
    Options { precision: Some(Precision::Fp32), backend: Some(backend), ..Options::default() }
}

/// A model folder with the committed manifest and a shared graph. The manifest's checksum is of the usual graph, so it
/// is left out for another one.
pub fn model_folder(root: &Path, name: &str, graph: &Path) -> ModelSpec {
    let from = PathBuf::from(format!("{}/tests/data/models/{name}/1", env!("CARGO_MANIFEST_DIR")));
    let folder = root.join(name).join("1");
    fs::create_dir_all(&folder).unwrap();
    fs::copy(graph, folder.join("model.onnx")).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        let text = fs::read_to_string(file.path()).unwrap();
        let usual = !graph.ends_with("yunet_n_dynamic.onnx");
        let lines = text.lines().filter(|line| usual || !line.starts_with("sha256"));
        fs::write(folder.join(file.file_name()), lines.collect::<Vec<_>>().join("\n")).unwrap();
    }
    ModelSpec::open(&folder).unwrap()
}

pub fn compare(name: &str, spec: &ModelSpec, options: Options) {
    let golden = format!("{}/tests/data/golden/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let golden: Golden = serde_json::from_str(&fs::read_to_string(golden).unwrap()).unwrap();
    if asset(name, &golden.photos[0].photo).is_none() {
        return;
    }
    let backend = options.backend;
    let engine = Engine::new(options).unwrap();
    let model = engine.load(spec).unwrap();
    if backend == Some(BackendChoice::OpenVino) && engine.library().openvino().is_err() {
        println!("skipped {name}: this ONNX Runtime has no OpenVINO");
        return;
    }
    assert_eq!(Some(model.selection().provider.name()), backend.map(BackendChoice::name), "{:?}", model.selection());
    let params = model.default_params();
    assert_eq!((params.score_threshold, params.iou_threshold), (golden.thresholds.score, golden.thresholds.iou));
    let mut problems = Vec::new();
    let (mut matched, mut worst) = (0, (0f32, 0f32));
    for photo in &golden.photos {
        let path = asset(name, &photo.photo).unwrap();
        for problem in compare_photo(&model, &golden.thresholds, photo, &path, &mut matched, &mut worst) {
            problems.push(format!("{}: {problem}", photo.photo));
        }
    }
    println!("{name}: {matched} boxes, at most {} px and {} of score off", worst.0, worst.1);
    assert!(problems.is_empty(), "{name}: {} problems, {matched} fine:\n{}", problems.len(), problems.join("\n"));
    assert!(matched >= 20, "{name}: only {matched} boxes were compared");
    engine.shutdown();
}

fn compare_photo(
    model: &Model,
    thresholds: &Thresholds,
    photo: &Photo,
    path: &Path,
    matched: &mut usize,
    worst: &mut (f32, f32),
) -> Vec<String> {
    let picture = Arc::new(read_jpeg(path));
    assert_eq!((picture.width(), picture.height()), (photo.width, photo.height));
    // Below the threshold too: a box whose score is within the tolerance of it may be on one side only.
    let params = Params { score_threshold: thresholds.score - thresholds.margin, ..model.default_params() };
    let color = ColorInfo { matrix: ColorMatrix::Bt601, range: ColorRange::Full };
    let found = model.detect(&picture, color, &Arc::new(params)).unwrap().detections;
    assert!(found.windows(2).all(|pair| pair[0].score >= pair[1].score), "best score first");
    let certain = |score: f32| score >= thresholds.score + MAX_SCORE_OFF;
    let mut left = found;
    let mut problems = Vec::new();
    for expected in &photo.detections {
        let same =
            |found: &Detection| *found.class.name == *expected.class && pixels_off(found, expected) <= MAX_PIXELS_OFF;
        let near = left.iter().position(|found| same(found) && (found.score - expected.score).abs() <= MAX_SCORE_OFF);
        if let Some(near) = near {
            let found = left.remove(near);
            *worst = (worst.0.max(pixels_off(&found, expected)), worst.1.max((found.score - expected.score).abs()));
            *matched += 1;
        } else if certain(expected.score) {
            let closest = left.iter().map(|found| (pixels_off(found, expected), found.score - expected.score));
            let closest = closest.min_by(|a, b| a.0.total_cmp(&b.0));
            problems.push(format!(
                "missing {} {:.4} {:?}; closest off by {closest:?}",
                expected.class, expected.score, expected.bbox
            ));
        }
    }
    let extra = left.iter().filter(|found| certain(found.score));
    problems.extend(extra.map(|found| format!("extra {} {:.4} {:?}", found.class.name, found.score, found.bbox)));
    problems
}

fn pixels_off(found: &Detection, expected: &Expected) -> f32 {
    let sides = iter::zip(found.bbox, expected.bbox).map(|(a, b)| (a - b).abs());
    let points = found.keypoints.iter().map(|point| point.at).zip(&expected.keypoints);
    let points = points.flat_map(|(a, b)| [a[0] - b[0], a[1] - b[1]]).map(f32::abs);
    if found.keypoints.len() != expected.keypoints.len() {
        return f32::INFINITY;
    }
    sides.chain(points).fold(0.0, f32::max)
}

/// The 4:2:0 planes of a JPEG. Full chroma is averaged over 2×2 samples, an odd last row or column counting twice.
pub fn read_jpeg(path: &Path) -> I420 {
    let codec = ffmpeg::decoder::find(ffmpeg::codec::Id::MJPEG).unwrap();
    let mut decoder = ffmpeg::codec::Context::new_with_codec(codec).decoder().video().unwrap();
    decoder.send_packet(&ffmpeg::Packet::copy(&fs::read(path).unwrap())).unwrap();
    decoder.send_eof().unwrap();
    let mut frame = ffmpeg::frame::Video::empty();
    decoder.receive_frame(&mut frame).unwrap();
    let (width, height) = (frame.width() as usize, frame.height() as usize);
    let mut picture = I420::new(frame.width(), frame.height());
    let (chroma_width, _) = picture.chroma_size();
    for (n, target) in picture.planes_mut().into_iter().enumerate() {
        let source = |column: usize, row: usize| u32::from(frame.data(n)[row * frame.stride(n) + column]);
        let columns = if n == 0 { width } else { chroma_width };
        for (at, code) in target.iter_mut().enumerate() {
            let (column, row) = (at % columns, at / columns);
            let value = match (n, frame.format()) {
                (0, _) | (_, ffmpeg::format::Pixel::YUVJ420P) => source(column, row),
                (_, ffmpeg::format::Pixel::YUVJ444P) => {
                    let (right, below) = ((2 * column + 1).min(width - 1), (2 * row + 1).min(height - 1));
                    let (left, top) = (2 * column, 2 * row);
                    (source(left, top) + source(right, top) + source(left, below) + source(right, below) + 2) / 4
                }
                (_, ffmpeg::format::Pixel::GRAY8) => 128,
                (_, other) => panic!("{}: {other:?}", path.display()),
            };
            *code = u8::try_from(value).unwrap();
        }
    }
    picture
}

//! `POST /v1/detect` on a whole server: pictures of every kind in, results and annotated pictures out.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::future::join_all;
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Client, Response};
use saccade::encode::picture::{self, Format};
use saccade::scene::Scene;
use saccade::stills::{Header, decode, encode_jpeg};
use saccade_signaling::{Detection, ImageError, ImageResult, Problem, SessionResult};
use serde_json::Value;

use crate::assets::asset;
use crate::program::run;
use crate::publisher::iou;
use crate::server::Server;

/// The picture of the scene: many people are in it.
const NUMBER: u64 = 60;

fn scene() -> Scene {
    Scene::new(640, 480, 30, 1)
}

/// The scene as a picture of this format.
fn drawn(format: Format) -> Vec<u8> {
    let scene = scene();
    picture::encode(&scene.frame(NUMBER), scene.color(), format).unwrap()
}

async fn post(server: &Server, query: &str, kind: &str, bytes: Vec<u8>) -> Response {
    Client::new()
        .post(server.url(&format!("/v1/detect{query}")))
        .header(CONTENT_TYPE, kind)
        .body(bytes)
        .send()
        .await
        .unwrap()
}

async fn result(response: Response) -> ImageResult {
    let status = response.status();
    let text = response.text().await.unwrap();
    assert_eq!(status, 200, "{text}");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

async fn problem(response: Response) -> Problem {
    assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
    let status = response.status().as_u16();
    let problem: Problem = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap();
    assert_eq!(problem.status, status);
    problem
}

fn form(parts: &[(&str, &[u8])]) -> (String, Vec<u8>) {
    let mut body = Vec::new();
    for (name, bytes) in parts {
        let head = format!("--edge\r\nContent-Disposition: form-data; name=\"image\"; filename=\"{name}\"\r\n\r\n");
        body.extend([head.as_bytes(), bytes, b"\r\n"].concat());
    }
    body.extend(b"--edge--\r\n");
    ("multipart/form-data; boundary=edge".to_owned(), body)
}

/// Every head that shows well is found, and nothing is found where no head is.
#[track_caller]
fn heads_are_found(found: &[Detection], upright: impl Fn([f32; 4]) -> [f32; 4]) {
    let truth = scene().truth(NUMBER);
    let plain: Vec<_> = truth.iter().filter(|head| head.visible > 0.6).collect();
    assert!(plain.len() > 2);
    for head in plain {
        let bbox = upright(head.bbox);
        let same = found.iter().filter(|one| one.class_id == head.class_id);
        let best = same.map(|one| iou(bbox, one.bbox)).fold(0.0, f32::max);
        assert!(best > 0.7, "{head:?} at {bbox:?} was found with {best}: {found:?}");
    }
    assert!(found.len() <= truth.len() + 2, "{truth:?} {found:?}");
}

/// Each box of one list whose score is no narrow case has its like of the same class in the other. Decoders differ in how
/// they make chroma smaller, and small boxes feel it.
#[track_caller]
fn has_all(one: &[Detection], other: &[Detection], lowest: f32) {
    for a in one.iter().filter(|a| a.score > lowest) {
        let mut same = other.iter().filter(|b| b.class_id == a.class_id && (a.score - b.score).abs() < 0.1);
        assert!(same.any(|b| iou(a.bbox, b.bbox) > 0.8), "{a:?} has no like in {other:?}");
    }
}

/// The same both ways.
#[track_caller]
fn are_same(one: &[Detection], other: &[Detection], lowest: f32) {
    has_all(one, other, lowest);
    has_all(other, one, lowest);
}

/// The first photos of the shared data set.
fn photos(test: &str, count: usize) -> Option<Vec<PathBuf>> {
    let folder = asset(test, "datasets/coco_permissive/images")?;
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.truncate(count);
    Some(files)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_of_every_format_is_answered_with_what_is_in_it() {
    let server = Server::start(&[]).await;
    let jpeg = drawn(Format::Jpeg);
    let header = Header::read(&jpeg).unwrap();
    let webp = {
        let picture = decode(&jpeg, &header, None).unwrap().picture;
        let ([luma, cb, cr], [stride, half, _]) = (picture.planes(), picture.strides());
        let pixel = |at: usize| {
            let chroma = at / stride / 2 * half + at % stride / 2;
            saccade::stills::COLOR.to_rgb([luma[at], cb[chroma], cr[chroma]])
        };
        let rgb: Vec<u8> = (0..luma.len()).flat_map(pixel).collect();
        let mut bytes = Vec::new();
        let encoder = image_webp::WebPEncoder::new(&mut bytes);
        encoder.encode(&rgb, 640, 480, image_webp::ColorType::Rgb8).unwrap();
        bytes
    };
    for (kind, bytes) in [("image/jpeg", jpeg), ("image/png", drawn(Format::Png)), ("image/jpeg", webp)] {
        let told = result(post(&server, "", kind, bytes).await).await;
        assert_eq!((told.image, told.name, told.width, told.height), (0, None, 640, 480));
        assert!(told.model.starts_with("scene-blobs@") && told.met && told.batch_size == 1 && told.budget_ms == 5_000);
        assert!(told.timing_ms.decode > 0.0 && told.timing_ms.inference > 0.0);
        assert!(told.timing_ms.total >= told.timing_ms.inference + told.timing_ms.decode);
        heads_are_found(&told.detections, |bbox| bbox);
    }
    server.app.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn photos_have_the_boxes_that_the_program_finds_in_the_same_files() {
    const TEST: &str = "photos_have_the_boxes_that_the_program_finds_in_the_same_files";
    let (Some(photos), Some(graph)) = (photos(TEST, 16), asset(TEST, "models/yolox_nano_416.onnx")) else { return };
    // Of a model that runs in one way only.
    let folder = tempfile::tempdir().unwrap();
    let (models, place) = (folder.path().to_str().unwrap(), folder.path().join("yolox-nano/1"));
    std::fs::create_dir_all(&place).unwrap();
    for file in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/models/yolox-nano/1")).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), place.join(file.file_name())).unwrap();
    }
    std::fs::copy(graph, place.join("model.onnx")).unwrap();
    let server = Server::start(&[("models.dir", models), ("models.default", "yolox-nano")]).await;
    let mut program = crate::program::saccade("detect");
    program.args(["--models-dir", models, "--model", "yolox-nano", "--score-threshold", "0.3"]);
    let (exit, lines, log) = run(program.args(&photos));
    assert_eq!(exit, 0, "{log}");
    let mut found = 0;
    for (photo, line) in photos.iter().zip(lines.lines()) {
        let expected: SessionResult = serde_json::from_str(line).unwrap();
        let bytes = std::fs::read(photo).unwrap();
        let told = result(post(&server, "?score_threshold=0.3", "image/jpeg", bytes).await).await;
        assert_eq!((told.width, told.height), (expected.width, expected.height));
        are_same(&told.detections, &expected.detections, 0.45);
        found += told.detections.iter().filter(|one| one.score > 0.45).count();
    }
    assert!(found > 16, "there is something in these photos: {found}");
    server.app.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures_much_larger_than_the_input_are_told_as_large_as_they_are() {
    let server = Server::start(&[]).await;
    let (small, color) = (scene().frame(NUMBER), scene().color());
    // Four times as wide and high: every sample sixteen times.
    let mut large = saccade::media::I420::new(2_560, 1_920);
    let strides = small.strides();
    for ((from, stride), to) in small.planes().into_iter().zip(strides).zip(large.planes_mut()) {
        for (y, row) in to.chunks_exact_mut(4 * stride).enumerate() {
            row.iter_mut().enumerate().for_each(|(x, sample)| *sample = from[y / 4 * stride + x / 4]);
        }
    }
    let jpeg = picture::encode(&large, color, Format::Jpeg).unwrap();
    let told = result(post(&server, "", "image/jpeg", jpeg.clone()).await).await;
    assert_eq!((told.width, told.height), (2_560, 1_920));
    heads_are_found(&told.detections, |bbox| bbox.map(|side| 4.0 * side));
    // The whole picture is decoded where it is to be returned, and has the same in it.
    let whole = post(&server, "?annotate=jpeg", "image/jpeg", jpeg.clone()).await;
    let header = Header::read(&whole.bytes().await.unwrap()).unwrap();
    assert_eq!((header.width, header.height), (2_560, 1_920));
    let (kind, body) = form(&[("a.jpg", &jpeg)]);
    let whole: Vec<ImageResult> = post(&server, "?annotate=jpeg", &kind, body).await.json().await.unwrap();
    are_same(&whole[0].detections, &told.detections, 0.5);
    server.app.shut_down().await;
}

/// EXIF that says how a JPEG is to be turned, behind its first two bytes.
fn with_orientation(jpeg: &[u8], value: u8) -> Vec<u8> {
    let mut exif = b"\xff\xe1\x00\x22Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
    exif.extend([value, 0, 0, 0, 0, 0, 0]);
    [&jpeg[..2], &exif, &jpeg[2..]].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures_stand_upright_whatever_way_they_are_stored() {
    let server = Server::start(&[]).await;
    let (frame, color) = (scene().frame(NUMBER), scene().color());
    // Where the upright picture's sample comes from is stored, by the definition of each value.
    let (width, height) = (640_usize, 480_usize);
    for value in 1..=8_u8 {
        let [w, h] = if value > 4 { [height, width] } else { [width, height] };
        let mut stored = saccade::media::I420::new(w as u32, h as u32);
        let strides = stored.strides();
        let planes = stored.planes_mut().into_iter().zip(strides).zip(frame.planes().into_iter().zip(frame.strides()));
        for ((to, stride), (from, from_stride)) in planes {
            let rows = from.len() / from_stride;
            for (at, sample) in to.iter_mut().enumerate() {
                let (x, y) = (at % stride, at / stride);
                let (right, bottom) = (from_stride - 1, rows - 1);
                let (column, row) = match value {
                    1 => (x, y),
                    2 => (right - x, y),
                    3 => (right - x, bottom - y),
                    4 => (x, bottom - y),
                    5 => (y, x),
                    6 => (right - y, x),
                    7 => (right - y, bottom - x),
                    _ => (y, bottom - x),
                };
                *sample = from[row * from_stride + column];
            }
        }
        let jpeg = with_orientation(&picture::encode(&stored, color, Format::Jpeg).unwrap(), value);
        let told = result(post(&server, "", "image/jpeg", jpeg).await).await;
        assert_eq!((told.width, told.height), (640, 480), "value {value}");
        heads_are_found(&told.detections, |bbox| bbox);
    }
    server.app.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn annotated_pictures_come_back_drawn_on() {
    let server = Server::start(&[]).await;
    let png = drawn(Format::Png);
    let before = decode(&png, &Header::read(&png).unwrap(), None).unwrap().picture;
    let told = result(post(&server, "", "image/png", png.clone()).await).await;
    for (format, kind) in [("jpeg", "image/jpeg"), ("png", "image/png")] {
        let response =
            post(&server, &format!("?annotate={format}&overlay=%7B%22labels%22:false%7D"), "image/png", png.clone())
                .await;
        assert_eq!(response.headers()[CONTENT_TYPE], kind);
        let bytes = response.bytes().await.unwrap();
        let header = Header::read(&bytes).unwrap();
        let after = decode(&bytes, &header, None).unwrap().picture;
        assert_eq!((after.width(), after.height()), (640, 480));
        let changed = |[x, y]: [f32; 2]| {
            let rows = (y as usize).saturating_sub(3)..(y as usize + 4).min(480);
            let at = |row: usize| row * 640 + x as usize;
            rows.map(|row| before.planes()[0][at(row)].abs_diff(after.planes()[0][at(row)])).max().unwrap() > 12
        };
        let tops = told.detections.iter().map(|one| [f32::midpoint(one.bbox[0], one.bbox[2]), one.bbox[1]]);
        let drawn = tops.filter(|top| changed(*top)).count();
        assert!(drawn * 10 >= told.detections.len() * 9, "{drawn} of {}", told.detections.len());
        // A corner in which nothing is.
        let off: u64 = (0..40)
            .flat_map(|y| (0..40).map(move |x| y * 640 + x))
            .map(|at: usize| u64::from(before.planes()[0][at].abs_diff(after.planes()[0][at])))
            .sum();
        assert!(off < 1_600 * 4, "{off}");
    }
    server.app.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn options_change_what_is_told() {
    let server = Server::start(&[]).await;
    let png = drawn(Format::Png);
    let all = result(post(&server, "", "image/png", png.clone()).await).await;
    let first = all.detections[0].class.clone();
    let told = result(post(&server, "?max_detections=1", "image/png", png.clone()).await).await;
    assert_eq!(told.detections, all.detections[..1]);
    let told =
        result(post(&server, &format!("?classes={first}&score_threshold=0.5"), "image/png", png.clone()).await).await;
    assert!(!told.detections.is_empty() && told.detections.iter().all(|one| one.class == first && one.score >= 0.5));
    let text = post(&server, "?format=coco", "image/png", png.clone()).await.text().await.unwrap();
    let told: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(told["detections"][0]["bbox"].as_array().unwrap().len(), 4);
    let refused = problem(post(&server, "?classes=unicorn&budget_ms=1", "image/png", png.clone()).await).await;
    assert!(refused.status == 422 && refused.detail.contains("`classes`") && refused.detail.contains("`budget_ms`"));
    let refused = problem(post(&server, "?model=none", "image/png", png).await).await;
    assert_eq!((refused.status, refused.code.as_str()), (422, "unknown_model"));
    server.app.shut_down().await;
}

/// Kilobytes that the process holds.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// A PNG whose header says that it is of this size, and which inflates to zeros without end.
fn bomb(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 4_000, 4_000);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.set_compression(png::Compression::High);
    encoder.write_header().unwrap().write_image_data(&vec![0; 16_000_000]).unwrap();
    bytes[16..20].copy_from_slice(&width.to_be_bytes());
    bytes[20..24].copy_from_slice(&height.to_be_bytes());
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn image_bombs_are_refused_at_once_and_take_no_memory() {
    let server = Server::start(&[]).await;
    let jpeg = |width: u16, height: u16| {
        let small = drawn(Format::Jpeg);
        let at = small.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
        let mut bytes = small;
        bytes[at + 5..at + 7].copy_from_slice(&height.to_be_bytes());
        bytes[at + 7..at + 9].copy_from_slice(&width.to_be_bytes());
        bytes
    };
    let mut webp = b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0".to_vec();
    webp.extend([0xff, 0xff, 0, 0xff, 0xff, 0]);
    let bombs = [
        (bomb(60_000, 60_000), 413, "too_large"),
        (jpeg(65_000, 65_000), 413, "too_large"),
        (webp, 413, "too_large"),
        (bomb(4_001, 4_000), 413, "too_large"),
        (bomb(0, 4_000), 422, "decode_failed"),
    ];
    // What the first request needs is not theirs.
    result(post(&server, "", "image/png", drawn(Format::Png)).await).await;
    let before = resident();
    for (bytes, status, code) in bombs {
        let begin = saccade::clock::now();
        let refused = problem(post(&server, "", "image/png", bytes).await).await;
        let took = begin.elapsed();
        assert_eq!((refused.status, refused.code.as_str()), (status, code));
        assert!(took < Duration::from_millis(200), "{took:?}");
    }
    let grown = resident() - before;
    assert!(grown < 64 * 1024, "{grown} kB");
    server.app.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_damaged_is_refused_by_what_it_is_and_not_by_what_it_is_called() {
    let server = Server::start(&[("limits.image_bytes", "65536")]).await;
    let frame = scene().frame(NUMBER);
    let jpeg = encode_jpeg(&frame, 40).unwrap();
    assert!(jpeg.len() < 65_536);
    for (bytes, status, code) in [
        (b"no picture at all".to_vec(), 415, "unsupported_type"),
        (Vec::new(), 415, "unsupported_type"),
        (b"GIF89a\x01\0\x01\0\0\0\0".to_vec(), 415, "unsupported_type"),
        (jpeg[..jpeg.len() / 2].to_vec(), 422, "decode_failed"),
        (jpeg[..100].to_vec(), 422, "decode_failed"),
        (drawn(Format::Png)[..10_000].to_vec(), 422, "decode_failed"),
        (vec![0; 65_537], 413, "too_large"),
    ] {
        let refused = problem(post(&server, "", "image/png", bytes).await).await;
        assert_eq!((refused.status, refused.code.as_str()), (status, code), "{}", refused.detail);
    }
    let text = post(&server, "", "text/html", jpeg.clone()).await;
    assert_eq!(problem(text).await.status, 415);
    assert_eq!(result(post(&server, "", "image/webp", jpeg).await).await.width, 640);
    server.app.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_pictures_are_told_in_order_or_each_as_it_is_done() {
    let server = Server::start(&[]).await;
    let (png, jpeg) = (drawn(Format::Png), drawn(Format::Jpeg));
    let parts: [(&str, &[u8]); 4] = [("a.png", &png), ("b.txt", b"a note"), ("c.jpg", &jpeg), ("d.jpg", &jpeg[..500])];
    let (kind, body) = form(&parts);
    let told: Vec<Value> = post(&server, "", &kind, body.clone()).await.json().await.unwrap();
    assert_eq!(told.len(), 4);
    for (at, (name, code)) in
        [("a.png", None), ("b.txt", Some("unsupported_type")), ("c.jpg", None), ("d.jpg", Some("decode_failed"))]
            .into_iter()
            .enumerate()
    {
        assert_eq!((told[at]["image"].as_u64(), told[at]["name"].as_str()), (Some(at as u64), Some(name)));
        match code {
            Some(code) => {
                assert_eq!(serde_json::from_value::<ImageError>(told[at].clone()).unwrap().code.as_str(), code)
            }
            None => {
                heads_are_found(&serde_json::from_value::<ImageResult>(told[at].clone()).unwrap().detections, |bbox| {
                    bbox
                })
            }
        }
    }
    let request = Client::new().post(server.url("/v1/detect?annotate=jpeg")).header(CONTENT_TYPE, &kind);
    let response = request.header(ACCEPT, "text/event-stream").body(body).send().await.unwrap();
    assert_eq!(response.headers()[CONTENT_TYPE], "text/event-stream");
    let text = response.text().await.unwrap();
    let events: Vec<Value> = text
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|json| serde_json::from_str(json).unwrap())
        .collect();
    let mut places: Vec<_> = events.iter().map(|event| event["image"].as_u64().unwrap()).collect();
    assert_eq!(places.len(), 4);
    assert!(
        events[3].get("detections").is_some(),
        "what is no picture is told before what has to be looked at: {places:?}"
    );
    places.sort_unstable();
    assert_eq!(places, [0, 1, 2, 3]);
    let annotated = events.iter().filter_map(|event| event["annotated"].as_str());
    assert_eq!(annotated.filter(|url| url.starts_with("data:image/jpeg;base64,/9j/")).count(), 2);
    server.app.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_event_comes_while_the_form_is_still_being_sent() {
    let server = Server::start(&[]).await;
    let png = drawn(Format::Png);
    let (kind, body) = form(&[("a.png", &png), ("b.png", &png)]);
    let (address, half) = (server.http, body.len() / 2 + 300);
    let event = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let head = format!(
            "POST /v1/detect HTTP/1.1\r\nHost: {address}\r\nAccept: text/event-stream\r\nContent-Type: {kind}\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(&body[..half]).unwrap();
        let (mut text, mut buffer) = (String::new(), [0; 4_096]);
        while !text.contains("\"image\":0") {
            let read = stream.read(&mut buffer).unwrap();
            assert!(read > 0, "{text}");
            text.push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
        stream.write_all(&body[half..]).unwrap();
        stream.read_to_string(&mut text).unwrap();
        text
    });
    let text = event.await.unwrap();
    assert!(text.contains("\"image\":1"), "{text}");
    server.app.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_in_time_or_finds_no_place_is_refused_and_the_rest_answered() {
    // The same picture is worked on once only where answers are kept.
    let server = Server::start(&[("threads.stills", "1"), ("cache.enabled", "false")]).await;
    let png = drawn(Format::Png);
    // Far more at once than one thread decodes in ten milliseconds.
    let requests = (0..40).map(|_| post(&server, "?budget_ms=10", "image/png", png.clone()));
    let responses = join_all(requests).await;
    let (mut answered, mut late) = (0, 0);
    for response in responses {
        if response.status() == 200 {
            let told = result(response).await;
            answered += 1;
            assert!(!told.detections.is_empty());
            continue;
        }
        assert_eq!(response.headers()[RETRY_AFTER], "1");
        let refused = problem(response).await;
        assert_eq!((refused.status, refused.code.as_str()), (503, "capacity"));
        assert!(refused.detail.contains("`budget_ms` of 10"), "{}", refused.detail);
        late += 1;
    }
    assert!(late > 0, "{answered} answered");
    // Nothing is left over from them.
    assert!(result(post(&server, "", "image/png", png).await).await.met);
    server.app.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_compressed_as_asked() {
    let server = Server::start(&[]).await;
    let png = drawn(Format::Png);
    for encoding in ["gzip", "br", "zstd"] {
        let request = Client::new().post(server.url("/v1/detect")).header(CONTENT_TYPE, "image/png");
        let response = request.header(ACCEPT_ENCODING, encoding).body(png.clone()).send().await.unwrap();
        assert_eq!(response.headers()[CONTENT_ENCODING], encoding);
        let bytes = response.bytes().await.unwrap();
        assert_ne!(bytes[0], b'{');
    }
    server.app.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_split_pictures_by_their_key_and_fuse_what_several_models_find() {
    let server = Server::start(&[]).await;
    let client = Client::new();
    let put = async |name: &str, route: Value| {
        let response = client.put(server.url(&format!("/v1/routes/{name}"))).json(&route).send().await.unwrap();
        assert!(response.status().is_success(), "{}", response.text().await.unwrap());
    };
    put("both", serde_json::json!({"ensemble": ["scene-blobs", "ppe-nano"], "fusion": "wbf"})).await;
    let shares = serde_json::json!([{"model": "scene-blobs", "weight": 1}, {"model": "ppe-nano", "weight": 1}]);
    put("half", serde_json::json!({"split": shares, "shadow": "ppe-nano-small"})).await;
    let png = drawn(Format::Png);
    let told = result(post(&server, "?model=both&score_threshold=0.1", "image/png", png.clone()).await).await;
    assert_eq!(told.model, "both");
    assert!(!told.detections.is_empty());
    let mut models = std::collections::BTreeSet::new();
    for key in 0..16 {
        let query = format!("?model=half&key={key}");
        let first = result(post(&server, &query, "image/png", png.clone()).await).await.model;
        assert_eq!(result(post(&server, &query, "image/png", png.clone()).await).await.model, first);
        models.insert(first);
    }
    assert_eq!(models.len(), 2, "{models:?}");
    server.app.shut_down().await;
}

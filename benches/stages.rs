//! What one frame of 640×480 costs in each stage but the model's run: `cargo bench`, or `cargo bench -- encode` for one.
//! Decoding and encoding are the share of FFmpeg, x264 and what they call.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "benches")]
#![allow(clippy::cast_precision_loss, reason = "benches")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use saccade::annotate::{Annotator, Overlay};
use saccade::clock;
use saccade::decode::{self, Decoder as _};
use saccade::draw::Recording;
use saccade::egress::packetize::{Packetizer, Payload};
use saccade::egress::results::{Processed, Timings};
use saccade::encode::{self, Encoder as _};
use saccade::infer::preprocess::Preprocessor;
use saccade::infer::{Letterbox, Manifest, Outlet, Params, Postprocessor, Repository, View};
use saccade::ingest::{self, Ingest};
use saccade::media::{
    AnnouncedColor, Class, Codec, ColorInfo, Detection, EncodedFrame, FramePool, I420, MediaTime, Rotation, RtpPacket,
};
use saccade::scene::Scene;
use saccade::tracker::{self, Tracker};
use saccade_signaling::{Dropped, Masks, ResultFormat};

const SIZE: (u32, u32) = (640, 480);
const FPS: u32 = 30;
const CODEC: Codec = Codec::H264;
const BITRATE: u32 = 1_500_000;
/// Of the embedded model at its 320×320 pixels.
const ANCHORS: usize = 2_100;

/// One second of the drawn scene.
fn pictures() -> Vec<I420> {
    let scene = Scene::new(SIZE.0, SIZE.1, FPS, 7);
    (0..FPS).map(|number| scene.frame(number.into())).collect()
}

fn time(number: u32) -> MediaTime {
    MediaTime(number.wrapping_mul(MediaTime::CLOCK_RATE / FPS))
}

fn encoder() -> encode::software::Software {
    encode::software::Software::new(CODEC, encode::software::Config { bitrate_bps: BITRATE, fps: FPS.into() }).unwrap()
}

/// The same second as access units, the first a keyframe.
fn units() -> Vec<EncodedFrame> {
    let mut encoder = encoder();
    let unit = |(number, picture): (u32, I420)| {
        let encoded = encoder.encode(&picture, ColorInfo::default(), time(number), false).unwrap().unwrap();
        EncodedFrame {
            codec: CODEC,
            data: encoded.data,
            time: time(number),
            keyframe: encoded.keyframe,
            rotation: Rotation::None,
            color: AnnouncedColor::default(),
            arrival: clock::now(),
            reorder_wait: Duration::ZERO,
        }
    };
    (0..).zip(pictures()).map(unit).collect()
}

fn manifest() -> Manifest {
    Repository::scan(None).unwrap().find("ppe-nano").unwrap().manifest.clone()
}

fn params(manifest: &Manifest) -> Params {
    let defaults = manifest.defaults;
    Params {
        score_threshold: defaults.score_threshold,
        iou_threshold: defaults.iou_threshold,
        max_detections: defaults.max_detections,
        classes: None,
    }
}

/// Outputs of the embedded model's shape with this many boxes, in groups of ten that overlap.
struct Outputs {
    shape: [i64; 3],
    values: Vec<f32>,
    postprocessor: Postprocessor,
    letterbox: Letterbox,
    params: Params,
}

impl Outputs {
    fn new(boxes: usize) -> Self {
        let manifest = manifest();
        let rows = 4 + manifest.classes.len();
        let mut values = vec![0.0; rows * ANCHORS];
        for number in 0..boxes {
            let (group, member) = ((number / 10) as f32, (number % 10) as f32);
            let (x, y) = (20.0 + 29.0 * (group % 10.0) + 0.2 * member, 60.0 + 33.0 * (group / 10.0).floor());
            for (row, value) in [x, y, 20.0, 20.0, 0.9 - 0.01 * member].into_iter().enumerate() {
                values[row * ANCHORS + number * (ANCHORS / boxes)] = value;
            }
        }
        let shape = [1, rows, ANCHORS].map(|side| i64::try_from(side).unwrap());
        let outlet = Outlet { name: "output".to_owned(), shape: shape.into() };
        let (letterbox, params) = (Letterbox::new(&manifest.input, SIZE.0, SIZE.1), params(&manifest));
        let postprocessor = Postprocessor::bind(Arc::new(manifest), &[outlet]).unwrap();
        Self { shape, values, postprocessor, letterbox, params }
    }

    fn detections(&mut self) -> Vec<Detection> {
        let view = View { shape: &self.shape, data: &self.values };
        self.postprocessor.detections(&[view], &self.letterbox, &self.params).unwrap()
    }
}

fn ingest(bench: &mut Criterion) {
    let (units, arrival) = (units(), clock::now());
    let mut packetizer = Packetizer::new(CODEC, Packetizer::MAX_PAYLOAD);
    let payloads: Vec<Vec<Payload>> =
        units.iter().map(|unit| packetizer.packetize(&unit.data, unit.keyframe).collect()).collect();
    let mut ingest = Ingest::new(CODEC, ingest::Config::default());
    let (mut number, mut sequence) = (0, 0_u16);
    let mut packets = || {
        let payloads = &payloads[number as usize % payloads.len()];
        let time = time(number);
        number += 1;
        let packet = |Payload { data, marker }: &Payload| {
            sequence = sequence.wrapping_add(1);
            let (marker, payload) = (*marker, data.clone());
            RtpPacket { sequence, time, marker, rotation: None, color: None, payload, arrival }
        };
        payloads.iter().map(packet).collect::<Vec<_>>()
    };
    let mut assemble = |packets: Vec<RtpPacket>| {
        packets.into_iter().for_each(|packet| ingest.handle_packet(arrival, packet));
        ingest.poll_output().expect("every frame is whole")
    };
    bench.bench_function("ingest", |bench| bench.iter_batched(&mut packets, &mut assemble, BatchSize::SmallInput));
}

fn decode(bench: &mut Criterion) {
    let pool = Arc::new(FramePool::new(4));
    let mut decoder = decode::software::Software::new(CODEC, decode::Limits::default(), Arc::clone(&pool)).unwrap();
    let units = units();
    let mut units = units.iter().cycle();
    bench.bench_function("decode", |bench| {
        bench.iter(|| pool.give(decoder.decode(units.next().unwrap()).unwrap().unwrap().picture));
    });
}

fn preprocess(bench: &mut Criterion) {
    let (input, picture) = (manifest().input, pictures().remove(0));
    let mut tensor = vec![0.0; input.item_len()];
    for mut preprocessor in [Preprocessor::new(input.clone()), Preprocessor::scalar(input)] {
        bench.bench_function(&format!("preprocess {}", preprocessor.instructions()), |bench| {
            bench.iter(|| preprocessor.fill(black_box(&picture), ColorInfo::default(), &mut tensor));
        });
    }
}

fn postprocess(bench: &mut Criterion) {
    for boxes in [100, 700] {
        let mut outputs = Outputs::new(boxes);
        assert_eq!(outputs.detections().len(), boxes / 10);
        let name = format!("postprocess {boxes} boxes of {} objects", boxes / 10);
        bench.bench_function(&name, |bench| bench.iter(|| outputs.detections()));
    }
}

/// One result and the two frames that follow it without one, of objects that walk to and fro.
fn track(bench: &mut Criterion) {
    let class = Class { id: 0, name: "head".into() };
    let objects = |number: u32| {
        let object = |index: u32| {
            let walked = ((number + 7 * index) % 120).abs_diff(60) as f32;
            let (x, y) = (120.0 * (index % 5) as f32 + walked, 20.0 + 115.0 * (index / 5) as f32);
            Detection {
                bbox: [x, y, x + 30.0, y + 34.0],
                class: class.clone(),
                score: 0.8,
                object_id: None,
                keypoints: Vec::new(),
            }
        };
        (0..20).map(object).collect::<Vec<_>>()
    };
    let (mut tracker, mut shown, mut number) = (Tracker::new(tracker::Config::default()), Vec::new(), 0);
    let mut next = || {
        number += 3;
        (number, objects(number))
    };
    let mut follow = |(number, mut found): (u32, Vec<Detection>)| {
        tracker.update(time(number), SIZE.into(), 0.5, &mut found);
        [1, 2].into_iter().for_each(|ahead| tracker.predict(time(number + ahead), SIZE.into(), &mut shown));
        assert_eq!(shown.len(), 20);
        found
    };
    bench.bench_function("track 20 objects", |bench| {
        bench.iter_batched(&mut next, &mut follow, BatchSize::SmallInput);
    });
}

fn annotate(bench: &mut Criterion) {
    let (mut picture, detections) = (pictures().remove(0), Outputs::new(100).detections());
    let overlay = Overlay { detections: &detections, ..Overlay::default() };
    let mut annotator = Annotator::new();
    bench.bench_function("annotate 10 objects", |bench| {
        bench.iter(|| annotator.draw(&mut picture, ColorInfo::default(), &overlay));
    });

    let (mut picture, detections) = (Scene::new(1280, 720, FPS, 7).frame(0), crowd());
    let overlay = Overlay { detections: &detections, ..Overlay::default() };
    bench.bench_function("annotate 50 objects in 1280x720", |bench| {
        bench.iter(|| annotator.draw(&mut picture, ColorInfo::default(), &overlay));
    });

    // The same for a picture on a device: what to paint, and that as it is copied there.
    let mut recording = Recording::default();
    bench.bench_function("record 50 objects in 1280x720", |bench| {
        bench.iter(|| {
            recording.begin(1280, 720);
            annotator.draw(&mut recording, ColorInfo::default(), &overlay);
        });
    });
    #[cfg(feature = "cuda")]
    {
        let mut parts = saccade::device::kernels::overlay::Parts::default();
        bench.bench_function("divide 50 objects in 1280x720", |bench| {
            bench.iter(|| {
                parts.begin();
                parts.next(&recording).map(|part| part.words().len())
            });
        });
    }
}

/// Fifty objects of many sizes all over a picture of 1280×720.
fn crowd() -> Vec<Detection> {
    let object = |number: u8| {
        let (column, row) = (f32::from(number % 10), f32::from(number / 10));
        let (x, y, side) = (10.0 + 124.3 * column, 30.0 + 137.1 * row, 30.0 + 2.3 * f32::from(number));
        let class =
            Class { id: u32::from(number % 3), name: ["head", "helmet", "vest"][usize::from(number % 3)].into() };
        let object_id = Some(u64::from(number) + 1);
        Detection {
            bbox: [x, y, x + side, y + 1.3 * side],
            class,
            score: 0.91 - 0.01 * f32::from(number),
            object_id,
            keypoints: Vec::new(),
        }
    };
    (0..50).map(object).collect()
}

fn encode(bench: &mut Criterion) {
    let (mut encoder, pictures) = (encoder(), pictures());
    let mut pictures = (0..).zip(pictures.iter().cycle());
    bench.bench_function("encode", |bench| {
        bench.iter(|| {
            let (number, picture) = pictures.next().unwrap();
            encoder.encode(picture, ColorInfo::default(), time(number), false).unwrap()
        });
    });
}

fn packetize(bench: &mut Criterion) {
    let (mut packetizer, units) = (Packetizer::new(CODEC, Packetizer::MAX_PAYLOAD), units());
    let mut units = units.iter().cycle();
    bench.bench_function("packetize", |bench| {
        bench.iter(|| {
            let unit = units.next().unwrap();
            packetizer.packetize(&unit.data, unit.keyframe).map(|payload| payload.data.len()).sum::<usize>()
        });
    });
}

fn serialise(bench: &mut Criterion) {
    let (detections, mut text) = (Outputs::new(100).detections(), Vec::new());
    let processed = Processed {
        session_id: "5e551d",
        frame_id: 1_234,
        time_in: time(1),
        time_out: Some(time(1)),
        capture_time_ms: None,
        width: SIZE.0,
        height: SIZE.1,
        model: "ppe-nano@2",
        detections: &detections,
        overall: None,
        masks: Masks::default(),
        timings: Timings { total: Duration::from_micros(12_345), ..Timings::default() },
        budget_ms: 200,
        met: true,
        batch_size: 1,
        dropped: Dropped::default(),
        degraded: &[],
    };
    bench.bench_function("result 10 objects", |bench| {
        bench.iter(|| Arc::<str>::from(black_box(&processed).write_json(ResultFormat::Saccade, &mut text)));
    });
}

fn config() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(50)
}

criterion_group! {
    name = stages;
    config = config();
    targets = ingest, decode, preprocess, postprocess, track, annotate, encode, packetize, serialise
}
criterion_main!(stages);

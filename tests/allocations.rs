//! How often each stage allocates for a frame once it is warm; `cargo test --test allocations -- --nocapture` shows it.
//! A binary of its own, since it counts in the allocator. What FFmpeg and ONNX Runtime allocate in C is not counted.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, reason = "tests")]
#![allow(clippy::cast_precision_loss, reason = "tests")]
#![allow(unsafe_code, reason = "an allocator")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use bytes::Bytes;
use saccade::annotate::{Annotator, Overlay};
use saccade::clock;
use saccade::decode::{self, Decoder as _};
#[cfg(feature = "cuda")]
use saccade::device::kernels::overlay::Parts;
#[cfg(feature = "cuda")]
use saccade::draw::Recording;
use saccade::egress::packetize::{Packetizer, Payload};
use saccade::egress::results::{Processed, Timings};
use saccade::encode::{self, Encoder as _};
use saccade::frame::Frame;
use saccade::infer::manifest::{BackendChoice, Precision};
use saccade::infer::preprocess::Preprocessor;
use saccade::infer::{
    Engine, Inferred, Letterbox, Manifest, Model, Options, Outcome, Outlet, Postprocessor, Repository, Slot, View,
};
use saccade::ingest::{self, Ingest};
use saccade::media::{Codec, FramePool, MediaTime, RtpPacket};
use saccade::scene::Scene;
use saccade_signaling::{Dropped, Masks, ResultFormat};

const SIZE: (u32, u32) = (640, 480);
const FPS: u32 = 30;
const WARM_UP: usize = 30;
const FRAMES: usize = 60;
/// Packets that the transport keeps, in case they are asked for again.
const KEPT_PACKETS: usize = 256;
const BITRATE: u32 = 1_500_000;
/// Anchors of the outputs that are decoded, and how many of them are detections.
const ANCHORS: usize = 2_100;
const FOUND: usize = 12;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Counting;

thread_local! {
    static ON_THIS_THREAD: Cell<Count> = const { Cell::new(Count { allocations: 0, bytes: 0 }) };
}

#[derive(Clone, Copy, Default)]
struct Count {
    allocations: usize,
    bytes: usize,
}

impl Counting {
    fn note(bytes: usize) {
        let Count { allocations, bytes: before } = ON_THIS_THREAD.get();
        ON_THIS_THREAD.set(Count { allocations: allocations + 1, bytes: before + bytes });
    }
}

// SAFETY: all is left to the system's allocator; the count needs no memory of its own.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::note(layout.size());
        // SAFETY: the caller's promise is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Self::note(layout.size());
        // SAFETY: the caller's promise is the same.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        Self::note(size);
        // SAFETY: the caller's promise is the same.
        unsafe { System.realloc(at, layout, size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is the same.
        unsafe { System.dealloc(at, layout) }
    }
}

impl Count {
    fn since(before: Self) -> Self {
        let now = ON_THIS_THREAD.get();
        Self { allocations: now.allocations - before.allocations, bytes: now.bytes - before.bytes }
    }
}

/// What one stage allocated.
struct Tally {
    stage: &'static str,
    /// Allocations that every frame may cost.
    each: usize,
    /// Allocations beyond that, of all measured frames together.
    spare: usize,
    frames: usize,
    sum: Count,
    most: usize,
}

impl Tally {
    fn new(stage: &'static str, each: usize, spare: usize) -> Self {
        Self { stage, each, spare, frames: 0, sum: Count::default(), most: 0 }
    }

    fn run<T>(&mut self, stage: impl FnOnce() -> T) -> T {
        let before = ON_THIS_THREAD.get();
        let done = stage();
        self.add(Count::since(before));
        done
    }

    fn add(&mut self, count: Count) {
        self.frames += 1;
        if self.frames > WARM_UP {
            self.sum.allocations += count.allocations;
            self.sum.bytes += count.bytes;
            self.most = self.most.max(count.allocations);
        }
    }

    fn keeps_to_its_allowance(&self) -> bool {
        assert_eq!(self.frames, WARM_UP + FRAMES, "{}", self.stage);
        self.sum.allocations <= self.each * FRAMES + self.spare
    }

    fn row(&self) -> String {
        let Self { stage, each, spare, sum: Count { allocations, bytes }, most, .. } = self;
        let mean = |sum: usize| sum as f64 / FRAMES as f64;
        format!("{stage:<13}{:>6.2}{most:>6}{:>9.0}{each:>7} a frame and {spare}", mean(*allocations), mean(*bytes))
    }
}

/// The stages, in the order of a frame's way, and what forces the allocations of each.
struct Stages {
    /// None: units are made in chunks that are used again, and nothing is lost or out of order here.
    ingest: Tally,
    /// None: pictures come from the pool, together with their reference counts.
    decode: Tally,
    /// None: tables and rows belong to the size of the picture.
    preprocess: Tally,
    /// One: the detections, which leave.
    postprocess: Tally,
    /// All that the model's thread does. Two for ort's handles of the output and of its allocator, and the detections.
    model: Tally,
    /// None but for letters that were never drawn before at their place between two pixels.
    annotate: Tally,
    /// Drawing for a device, up to the words that are copied there. None but for such letters, and for lists that grow.
    #[cfg(feature = "cuda")]
    record: Tally,
    /// One: the text, which the data channel and all listeners share.
    result: Tally,
    /// None: the transport has taken the unit before the next one is made.
    encode: Tally,
    /// Two for each 64 KiB, a chunk and its reference count, since the transport keeps packets: some 6 chunks here.
    packetize: Tally,
}

impl Stages {
    fn new() -> Self {
        Self {
            ingest: Tally::new("ingest", 0, 0),
            decode: Tally::new("decode", 0, 0),
            preprocess: Tally::new("preprocess", 0, 0),
            postprocess: Tally::new("postprocess", 1, 0),
            model: Tally::new("model", 3, 0),
            annotate: Tally::new("annotate", 0, 12),
            #[cfg(feature = "cuda")]
            record: Tally::new("record", 0, 12),
            result: Tally::new("result", 1, 0),
            encode: Tally::new("encode", 0, 0),
            packetize: Tally::new("packetize", 0, 16),
        }
    }

    fn all(&self) -> Vec<&Tally> {
        vec![
            &self.ingest,
            &self.decode,
            &self.preprocess,
            &self.postprocess,
            &self.model,
            &self.annotate,
            #[cfg(feature = "cuda")]
            &self.record,
            &self.result,
            &self.encode,
            &self.packetize,
        ]
    }

    fn assert(&self, codec: Codec) {
        let rows: Vec<_> = self.all().into_iter().map(Tally::row).collect();
        let table =
            format!("{:<13}{:>6}{:>6}{:>9}   allowed\n{}", codec.name(), "mean", "most", "bytes", rows.join("\n"));
        println!("{table}");
        let beyond: Vec<_> = self.all().into_iter().filter(|stage| !stage.keeps_to_its_allowance()).collect();
        let beyond: Vec<_> = beyond.iter().map(|stage| stage.stage).collect();
        assert!(beyond.is_empty(), "beyond what is allowed: {beyond:?}\n{table}");
    }
}

fn encoder(codec: Codec) -> encode::software::Software {
    let config = encode::software::Config { bitrate_bps: BITRATE, fps: FPS.into() };
    encode::software::Software::new(codec, config).unwrap()
}

/// The frames of the drawn scene as packets, with a keyframe each second.
fn received(codec: Codec) -> Vec<Vec<RtpPacket>> {
    let scene = Scene::new(SIZE.0, SIZE.1, FPS, 7);
    let (mut encoder, mut packetizer) = (encoder(codec), Packetizer::new(codec, Packetizer::MAX_PAYLOAD));
    let mut sequence = 0;
    let mut packets = |number: u32| {
        let time = MediaTime(number * MediaTime::CLOCK_RATE / FPS);
        let encoded = encoder.encode(&scene.frame(number.into()), scene.color(), time, number.is_multiple_of(FPS));
        let encoded = encoded.unwrap().unwrap();
        let packet = |Payload { data, marker }| {
            sequence += 1;
            let (payload, arrival) = (Bytes::copy_from_slice(&data), clock::now());
            RtpPacket { sequence, time, marker, rotation: None, color: None, payload, arrival }
        };
        packetizer.packetize(&encoded.data, encoded.keyframe).map(packet).collect()
    };
    (0..u32::try_from(WARM_UP + FRAMES).unwrap()).map(&mut packets).collect()
}

/// A place at the model; what comes out has what the model's thread allocated since the frame before.
fn attach(model: &Model) -> (Slot, Receiver<(Inferred, Count)>) {
    let (sender, found) = sync_channel(1);
    let mut before = Count::default();
    let slot = model.attach(saccade::infer::Priority::Normal, move |outcome| {
        let count = Count::since(before);
        let Outcome::Done(inferred) = outcome else { panic!("{outcome:?}") };
        sender.send((inferred, count)).unwrap();
        before = ON_THIS_THREAD.get();
    });
    (slot, found)
}

/// A postprocessor, and what a model of this manifest may put out.
fn outputs(manifest: &Manifest) -> (Postprocessor, [i64; 3], Vec<f32>) {
    let rows = 4 + manifest.classes.len();
    let shape = [1, rows, ANCHORS].map(|side| i64::try_from(side).unwrap());
    let outlet = Outlet { name: "output".to_owned(), shape: shape.into() };
    let mut values = vec![0.0; rows * ANCHORS];
    for number in 0..FOUND {
        let anchor = number * ANCHORS / FOUND;
        for (row, value) in [20.0 * (number + 2) as f32, 160.0, 10.0, 10.0, 0.9].into_iter().enumerate() {
            values[row * ANCHORS + anchor] = value;
        }
    }
    (Postprocessor::bind(Arc::new(manifest.clone()), &[outlet]).unwrap(), shape, values)
}

/// Takes the scene through all stages as a session does, one frame after the other.
fn measure(codec: Codec) -> Stages {
    let options = Options {
        precision: Some(Precision::Fp32),
        backend: Some(BackendChoice::Cpu),
        // Allocations are counted on one thread.
        instances: Some(1),
        ..Options::default()
    };
    let (engine, repository) = (Engine::new(options).unwrap(), Repository::scan(None).unwrap());
    let model = engine.load(repository.find("ppe-nano").unwrap()).unwrap();
    let ((slot, found), model_id, params) = (attach(&model), model.id(), Arc::new(model.default_params()));
    let pool = Arc::new(FramePool::new(4));
    let mut ingest = Ingest::new(codec, ingest::Config::default());
    let mut decoder = decode::software::Software::new(codec, decode::Limits::default(), Arc::clone(&pool)).unwrap();
    let input = model.manifest().input.clone();
    let (letterbox, mut tensor) = (Letterbox::new(&input, SIZE.0, SIZE.1), vec![0.0; input.item_len()]);
    let mut preprocessor = Preprocessor::new(input);
    let (mut postprocessor, shape, values) = outputs(model.manifest());
    let (mut annotator, mut encoder) = (Annotator::new(), encoder(codec));
    let mut packetizer = Packetizer::new(codec, Packetizer::MAX_PAYLOAD);
    let (mut text, mut sent) = (Vec::new(), VecDeque::with_capacity(2 * KEPT_PACKETS));
    #[cfg(feature = "cuda")]
    let (mut recorder, mut recording, mut parts) = (Annotator::new(), Recording::default(), Parts::default());

    let mut stages = Stages::new();
    for (id, packets) in (0..).zip(received(codec)) {
        let unit = stages.ingest.run(|| {
            packets.into_iter().for_each(|packet| ingest.handle_packet(packet.arrival, packet));
            ingest.poll_output()
        });
        let Some(ingest::Output::AccessUnit(unit)) = unit else { panic!("no unit: {unit:?}") };
        let decoded = stages.decode.run(|| decoder.decode(&unit)).unwrap().unwrap();
        let (color, time, arrival, decoded_at) = (decoded.color, unit.time, unit.arrival, clock::now());
        drop(unit);
        stages.preprocess.run(|| preprocessor.fill(&decoded.picture, color, &mut tensor));
        let view = View { shape: &shape, data: &values };
        let synthetic = stages.postprocess.run(|| postprocessor.detections(&[view], &letterbox, &params));
        assert_eq!(synthetic.unwrap().len(), FOUND);
        let frame = Frame {
            id,
            picture: decoded.picture.into(),
            color,
            time,
            arrival,
            deadline: decoded_at + Duration::from_secs(60),
            reorder_wait: Duration::ZERO,
            decode_time: Duration::ZERO,
            worked: Duration::ZERO,
            decoded_at,
        };
        assert!(slot.submit(frame, Arc::clone(&params)).is_none());
        let (mut inferred, count) = found.recv_timeout(Duration::from_secs(10)).unwrap();
        stages.model.add(count);
        assert!(!inferred.detections.is_empty());
        let lines = ["latency 12 ms of 200 ms", "decode 1.2  queue 3.4  model 5.6"];
        let overlay = Overlay { detections: &inferred.detections, timing: &lines, ..Overlay::default() };
        #[cfg(feature = "cuda")]
        stages.record.run(|| {
            recording.begin(SIZE.0, SIZE.1);
            recorder.draw(&mut recording, color, &overlay);
            parts.begin();
            assert!(parts.next(&recording).is_some_and(|part| part.words().len() > 1_000));
            assert!(parts.next(&recording).is_none());
        });
        let (width, height) = (inferred.frame.picture.width(), inferred.frame.picture.height());
        stages.annotate.run(|| {
            let picture = inferred.frame.picture.bring(&pool).unwrap();
            annotator.draw(Arc::make_mut(picture), color, &overlay);
        });
        let result = stages.result.run(|| {
            let processed = Processed {
                session_id: "5e551d",
                frame_id: id,
                time_in: time,
                time_out: Some(time),
                capture_time_ms: None,
                width,
                height,
                model: &model_id,
                detections: &inferred.detections,
                overall: None,
                masks: Masks::default(),
                timings: Timings::default(),
                budget_ms: 200,
                met: inferred.met,
                batch_size: 1,
                dropped: Dropped::default(),
                degraded: &[],
            };
            Arc::<str>::from(processed.write_json(ResultFormat::Saccade, &mut text))
        });
        assert!(result.contains("\"detections\":[{"));
        let picture = inferred.frame.picture.host(&pool).unwrap();
        let encoded = stages.encode.run(|| encoder.encode(&picture, color, time, false));
        drop(picture);
        let encoded = encoded.unwrap().unwrap();
        sent.truncate(KEPT_PACKETS);
        let payloads = stages.packetize.run(|| packetizer.packetize(&encoded.data, encoded.keyframe));
        payloads.for_each(|payload| sent.push_front(payload.data));
        inferred.frame.picture.recycle(&pool);
    }
    stages
}

#[test]
fn warm_stages_allocate_what_leaves_and_what_libraries_force_for_h264() {
    measure(Codec::H264).assert(Codec::H264);
}

#[test]
fn warm_stages_allocate_what_leaves_and_what_libraries_force_for_vp8() {
    measure(Codec::Vp8).assert(Codec::Vp8);
}

#[test]
fn warm_stages_allocate_what_leaves_and_what_libraries_force_for_vp9() {
    measure(Codec::Vp9).assert(Codec::Vp9);
}

//! `saccade bench stages`: what one frame costs in each stage, with nothing around them. It is the limit that a server
//! can come close to.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use saccade_load::{Clip, Encoding, Latencies, Usage};
use serde_json::json;

use super::{footage, plan};
use crate::annotate::{Annotator, Overlay};
use crate::capacity::Costs;
use crate::cli::{BenchStages, Exit};
use crate::clock;
use crate::commands::offline::{self, Way, sentence};
use crate::config::Config;
use crate::decode::{self, Decoder as _};
use crate::encode::{self, Encoder as _};
use crate::infer::Model;
use crate::infer::manifest::Precision;
use crate::media::{AnnouncedColor, Codec, EncodedFrame, FramePool, MediaTime, Rotation};

/// Frames that are taken before anything is measured.
const WARM_UP: u32 = 30;
/// In the order of a frame's way.
const STAGES: [&str; 6] = ["decode", "preprocess", "inference", "postprocess", "annotate", "encode"];

pub(super) fn run(args: &BenchStages, stop: &AtomicBool) -> Result<Exit, (Exit, String)> {
    let found = find(args, stop)?;
    if args.json {
        say!("{:#}", found.to_json());
    } else {
        say!("{found}");
    }
    Ok(if found.frames > 0 && !stop.load(Ordering::Acquire) { Exit::Clean } else { Exit::Internal })
}

/// Measures what these arguments say.
pub(in crate::commands) fn find(args: &BenchStages, stop: &AtomicBool) -> Result<Stages, (Exit, String)> {
    let config = Config::load(&args.sources(std::env::vars_os()));
    let config = config.map_err(|mistakes| (Exit::Configuration, mistakes.to_string()))?;
    offline::init_logs(&args.settings, &config);
    let repository =
        crate::models::repository(&config).map_err(|error| (offline::exit_of(&error), sentence(&error)))?;
    let failed = |error: crate::infer::Error| (offline::exit_of(&error), sentence(&error));
    let spec = repository.find(&config.models.default).map_err(failed)?;
    let way = Way { precision: args.precision.map(Precision::from), ..Way::default() };
    let engine = offline::engine(&config, 1, way).map_err(failed)?;
    let model = engine.load(spec).map_err(failed)?;
    let clip = clip(args).map_err(|message| (Exit::Configuration, message))?;
    measure(args, &model, &clip, stop).map_err(|message| (Exit::Internal, message))
}

fn clip(args: &BenchStages) -> Result<Clip, String> {
    let footage = footage::open(&args.clip, args.size, args.fps)?;
    let size = args.size.unwrap_or((footage.size.0 & !1, footage.size.1 & !1));
    let bitrate_bps = args.bitrate.map_or_else(|| plan::bitrate(size, args.fps), |kilobits| kilobits * 1_000);
    let encoding = Encoding { codec: args.codec, fps: args.fps, bitrate_bps, size };
    Clip::make(footage, encoding, plan::cache().as_deref()).map_err(|error| error.to_string())
}

/// What the stages cost.
pub(in crate::commands) struct Stages {
    /// Which one, and how it was run.
    pub(in crate::commands) model: String,
    setting: String,
    frames: u64,
    on_gpu: bool,
    times: BTreeMap<&'static str, Latencies>,
    /// From a packet's frame to its returned one.
    total: Latencies,
    /// Time on processors for each frame, all threads, in milliseconds.
    cpu_ms: Option<f64>,
}

fn measure(args: &BenchStages, model: &Arc<Model>, clip: &Clip, stop: &AtomicBool) -> Result<Stages, String> {
    let codec = match clip.encoding.codec {
        saccade_load::Codec::H264 => Codec::H264,
        saccade_load::Codec::Vp8 => Codec::Vp8,
    };
    let pool = Arc::new(FramePool::new(4));
    let mut decoder = decode::software::Software::new(codec, decode::Limits::default(), Arc::clone(&pool))
        .map_err(|error| sentence(&error))?;
    let config = encode::software::Config { bitrate_bps: clip.encoding.bitrate_bps, fps: args.fps.into() };
    let mut encoder = encode::software::Software::new(codec, config).map_err(|error| sentence(&error))?;
    let (mut annotator, params) = (Annotator::new(), Arc::new(model.default_params()));
    let selection = model.selection();
    let (width, height) = clip.encoding.size;
    let mut stages = Stages {
        model: format!("{}, {} in {}", model.id(), selection.provider, selection.precision),
        setting: format!("{codec} {width}x{height} at {}/s", args.fps),
        frames: 0,
        on_gpu: selection.provider.is_device(),
        times: STAGES.into_iter().map(|stage| (stage, Latencies::default())).collect(),
        total: Latencies::default(),
        cpu_ms: None,
    };
    let mut before = None;
    for number in 0..WARM_UP + args.frames {
        if stop.load(Ordering::Acquire) {
            break;
        }
        if number == WARM_UP {
            before = Usage::of(std::process::id());
        }
        let frame = &clip.frames[number as usize % clip.frames.len()];
        let start = clock::now();
        let unit = EncodedFrame {
            codec,
            data: frame.data.clone(),
            time: MediaTime::default().after(Duration::from_secs(1) * number / args.fps),
            keyframe: frame.keyframe,
            rotation: Rotation::None,
            color: AnnouncedColor::default(),
            arrival: start,
            reorder_wait: Duration::ZERO,
        };
        let Some(decoded) = decoder.decode(&unit).map_err(|error| sentence(&error))? else { continue };
        let decoded_at = clock::now();
        let mut picture = decoded.picture;
        let found = model.detect(&picture, decoded.color, &params).map_err(|error| sentence(&error))?;
        let detected_at = clock::now();
        let overlay = Overlay { detections: &found.detections, ..Overlay::default() };
        annotator.draw(Arc::make_mut(&mut picture), decoded.color, &overlay);
        let drawn_at = clock::now();
        encoder.encode(&picture, decoded.color, unit.time, false).map_err(|error| sentence(&error))?;
        let end = clock::now();
        pool.give(picture);
        if number < WARM_UP {
            continue;
        }
        let timing = found.timing;
        for (stage, time) in STAGES.into_iter().zip([
            decoded_at - start,
            timing.preprocess,
            timing.inference,
            timing.postprocess,
            drawn_at - detected_at,
            end - drawn_at,
        ]) {
            stages.times.entry(stage).or_default().record(time);
        }
        stages.total.record(end - start);
        stages.frames += 1;
    }
    let after = Usage::of(std::process::id());
    #[expect(clippy::cast_precision_loss, reason = "a hundred thousand at most")]
    let frames = stages.frames as f64;
    stages.cpu_ms = before
        .zip(after)
        .filter(|_| frames > 0.0)
        .map(|(before, after)| (after.cpu.saturating_sub(before.cpu)).as_secs_f64() * 1e3 / frames);
    Ok(stages)
}

impl Stages {
    /// What a frame takes in each stage, and a packet each way (milliseconds of a processor); none if there was no frame.
    pub(in crate::commands) fn costs(&self, packet: f64) -> Option<Costs> {
        let mean = |stage: &str| self.times.get(stage).and_then(Latencies::mean);
        // What stages waited for a processor that others kept busy is no cost; what several processors worked at once is.
        let worked = self.cpu_ms.zip(self.total.mean()).map_or(1.0, |(cpu, all)| cpu / all.max(1e-3));
        let alone = worked.min(1.0);
        let cost = |stage| mean(stage).map(|time| time * alone);
        // Of the stages, models alone have threads of their own.
        let beyond = self.total.mean().map_or(0.0, |all| all * (worked - 1.0).max(0.0));
        Some(Costs {
            decode: cost("decode")?,
            preprocess: cost("preprocess")?,
            inference: if self.on_gpu { mean("inference")? } else { cost("inference")? + beyond },
            postprocess: cost("postprocess")?,
            annotate: cost("annotate")?,
            encode: cost("encode")?,
            packet,
            on_gpu: self.on_gpu,
        })
    }

    fn to_json(&self) -> serde_json::Value {
        let stages: serde_json::Map<_, _> =
            self.times.iter().map(|(stage, times)| ((*stage).to_owned(), json!(times.percentiles()))).collect();
        json!({
            "model": self.model,
            "setting": self.setting,
            "frames": self.frames,
            "stages_ms": stages,
            "total_ms": self.total.percentiles(),
            "cpu_ms_per_frame": self.cpu_ms,
        })
    }
}

impl fmt::Display for Stages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}; {}, {} frames", self.model, self.setting, self.frames)?;
        writeln!(f, "{:<14}{:>9}{:>9}{:>9}{:>9}{:>9}", "milliseconds", "p50", "p90", "p95", "p99", "max")?;
        let all = STAGES.iter().filter_map(|stage| Some((*stage, self.times.get(stage)?)));
        for (name, times) in all.chain([("all", &self.total)]) {
            let Some(p) = times.percentiles() else { continue };
            writeln!(f, "{name:<14}{:>9.2}{:>9.2}{:>9.2}{:>9.2}{:>9.2}", p.p50, p.p90, p.p95, p.p99, p.max)?;
        }
        match self.cpu_ms {
            Some(cpu) => write!(f, "{cpu:.2} ms of processor a frame"),
            None => Ok(()),
        }
    }
}

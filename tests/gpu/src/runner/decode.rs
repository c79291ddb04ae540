//! Decoding on the GPU against FFmpeg's decoders, and how many streams it decodes.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use ffmpeg_next::error::EAGAIN;
use ffmpeg_next::format::Pixel;
use ffmpeg_next::{Packet, codec, frame};
use saccade::clock;
use saccade::decode::nvdec::{Codec, Hardware, Nvdec, Takeover};
use saccade::decode::software::Software;
use saccade::decode::{Decoder as _, Limits};
use saccade::media::{self, AnnouncedColor, EncodedFrame, FramePool, I420, MediaTime, Rotation};
use saccade_load::Latencies;

use super::clips::{Clip, Unit};
use super::files::pool;
use super::gpu::Machine;
use super::numbers::Numbers;
use super::usage::Watch;
use super::{Report, Stop};

/// Units of a clip that are compared.
const COMPARED: usize = 90;
/// Pictures a second of one stream.
const FPS: f64 = 30.0;
/// Streams at a time, one after the other until more of them are no faster.
const STREAMS: [usize; 9] = [1, 2, 4, 8, 16, 32, 64, 100, 150];
/// Gain below which more streams are not tried.
const GAIN: f64 = 1.03;
/// Share of the time in which decoders that are saturated are busy at least.
const SATURATED: f64 = 0.95;

/// What decodes.
#[derive(Debug, Clone)]
pub enum By {
    Gpu(Arc<Hardware>),
    /// FFmpeg as sessions use it.
    Software,
}

impl By {
    /// The GPU's decoders.
    ///
    /// # Errors
    /// [`Stop::Failed`], where NVIDIA's decoder is missing.
    pub fn machine(machine: &Machine) -> Result<Self, Stop> {
        machine.decoders().map(Self::Gpu).map_err(Stop::Failed)
    }

    /// A decoder of one stream.
    fn open(&self, clip: &Clip) -> Result<One, String> {
        match self {
            Self::Gpu(hardware) => {
                let nvdec = Nvdec::new(hardware, clip.codec, LIMITS).map_err(|error| error.to_string())?;
                Ok(One::Gpu(Box::new(nvdec), Arc::clone(hardware), FramePool::new(2)))
            }
            Self::Software => {
                let codec = clip.negotiated().ok_or("sessions have none")?;
                if !clip.is_in_order() {
                    return Err("sessions show no pictures in another order".to_owned());
                }
                let opened = Software::new(codec, LIMITS, pool()).map_err(|error| error.to_string())?;
                Ok(One::Software(Box::new(opened), codec))
            }
        }
    }

    /// What sessions decode such a stream with.
    fn open_session(&self, clip: &Clip) -> Result<One, String> {
        match self {
            Self::Gpu(hardware) => {
                let codec = clip.negotiated().ok_or("sessions have none")?;
                let takeover = Takeover::new(hardware, codec, LIMITS, pool()).map_err(|error| error.to_string())?;
                Ok(One::Session(Box::new(takeover), codec))
            }
            Self::Software => self.open(clip),
        }
    }
}

const LIMITS: Limits = Limits { max_width: 4096, max_height: 4096 };

/// A decoder of one stream.
enum One {
    Gpu(Box<Nvdec>, Arc<Hardware>, FramePool),
    Session(Box<Takeover>, media::Codec),
    Software(Box<Software>, media::Codec),
}

impl One {
    /// What a unit shows, on the host.
    fn decode(&mut self, unit: &Unit) -> Result<Option<Arc<I420>>, String> {
        match self {
            Self::Gpu(nvdec, hardware, pool) => {
                let decoded = nvdec.decode(&unit.data, unit.keyframe, AnnouncedColor::default(), Rotation::None);
                let Some(frame) = decoded.map_err(|error| error.to_string())? else { return Ok(None) };
                let brought = frame.download(pool, hardware.host(), nvdec.stream());
                brought.map(|decoded| Some(decoded.picture)).map_err(|error| error.to_string())
            }
            Self::Session(takeover, codec) => {
                let decoded = takeover.decode(&unit_of(*codec, unit));
                decoded.map(|it| it.map(|it| it.picture)).map_err(|error| error.to_string())
            }
            Self::Software(software, codec) => {
                let decoded = software.decode(&unit_of(*codec, unit));
                decoded.map(|it| it.map(|it| it.picture)).map_err(|error| error.to_string())
            }
        }
    }

    /// The same, the picture staying where it is. Says whether there was one.
    fn pass(&mut self, unit: &Unit) -> Result<bool, String> {
        match self {
            Self::Gpu(nvdec, ..) => {
                let decoded = nvdec.decode(&unit.data, unit.keyframe, AnnouncedColor::default(), Rotation::None);
                decoded.map(|it| it.is_some()).map_err(|error| error.to_string())
            }
            _ => self.decode(unit).map(|it| it.is_some()),
        }
    }
}

fn unit_of(codec: media::Codec, unit: &Unit) -> EncodedFrame {
    EncodedFrame {
        codec,
        data: unit.data.clone(),
        time: MediaTime((unit.time as u32).wrapping_mul(3_000)),
        keyframe: unit.keyframe,
        rotation: Rotation::None,
        color: AnnouncedColor::default(),
        arrival: clock::now(),
        reorder_wait: Duration::ZERO,
    }
}

/// Compares all clips, tries changes of size and damage, and measures how much each codec gives.
///
/// # Errors
/// [`Stop`] where nothing can be decoded at all.
pub fn run(report: &Report, by: &By, clips: &[Clip], seconds: f64, most: usize) -> Result<(), Stop> {
    for codec in [Codec::H264, Codec::Hevc, Codec::Vp8, Codec::Vp9] {
        let own: Vec<_> = clips.iter().filter(|clip| clip.codec == codec).collect();
        let Some(first) = own.first() else { continue };
        if let Err(reason) = by.open(first) {
            report.unavailable(codec.name(), reason);
            continue;
        }
        for clip in &own {
            match by.open(clip) {
                Ok(_) => report.judge(clip.name.clone(), compare(by, &clip.first(COMPARED))),
                Err(reason) => report.unavailable(clip.name.clone(), reason),
            }
        }
        let live: Vec<_> = own.iter().filter(|clip| clip.is_in_order()).copied().collect();
        if let (Some(large), Some(small)) =
            (live.iter().max_by_key(|clip| clip.size), live.iter().min_by_key(|clip| clip.size))
        {
            let (large, small) = (large.first(20), small.first(20));
            let sizes = |[a, b]: [u32; 2], [c, d]: [u32; 2]| format!("{codec}, from {a}x{b} to {c}x{d} and back");
            report.judge(sizes(large.size, small.size), compare(by, &large.then([&small, &large])));
            report.judge(sizes(small.size, large.size), compare(by, &small.then([&large, &small])));
        }
        // Damage is told by what comes after the next keyframe.
        let keyframes = |clip: &&&Clip| clip.units.iter().filter(|unit| unit.keyframe).count();
        if let Some(clip) = live.iter().filter(|clip| keyframes(clip) > 1).max_by_key(|clip| clip.units.len()) {
            match by.open_session(clip) {
                Ok(_) => damage(report, by, clip),
                Err(reason) => report.unavailable(format!("{codec}, damaged"), reason),
            }
        }
        if let Some(clip) = live.iter().filter(|clip| clip.size == [1280, 720]).max_by_key(|clip| clip.units.len()) {
            saturate(report, by, clip, seconds, most);
        }
    }
    Ok(())
}

/// The pictures of a clip by their time, as FFmpeg decodes them.
///
/// # Errors
/// What FFmpeg says.
pub fn reference(clip: &Clip) -> Result<HashMap<u64, I420>, String> {
    saccade::decode::init();
    let id = match clip.codec {
        Codec::H264 => codec::Id::H264,
        Codec::Hevc => codec::Id::HEVC,
        Codec::Vp8 => codec::Id::VP8,
        Codec::Vp9 => codec::Id::VP9,
        Codec::Av1 => codec::Id::AV1,
    };
    let failed = |error: ffmpeg_next::Error| format!("FFmpeg: {error}");
    let found = ffmpeg_next::decoder::find(id).ok_or("FFmpeg has no decoder")?;
    let opened = codec::Context::new_with_codec(found).decoder().open_as(found).map_err(failed)?;
    let mut decoder = opened.video().map_err(failed)?;
    let (mut pictures, mut frame) = (HashMap::new(), frame::Video::empty());
    let mut take = |decoder: &mut ffmpeg_next::decoder::Video| {
        loop {
            match decoder.receive_frame(&mut frame) {
                Ok(()) => {
                    let time = frame.timestamp().and_then(|time| u64::try_from(time).ok()).unwrap_or(u64::MAX);
                    pictures.insert(time, planes(&frame)?);
                }
                Err(ffmpeg_next::Error::Other { errno: EAGAIN } | ffmpeg_next::Error::Eof) => return Ok(()),
                Err(error) => return Err(failed(error)),
            }
        }
    };
    for unit in &clip.units {
        let mut packet = Packet::copy(&unit.data);
        packet.set_pts(i64::try_from(unit.time).ok());
        decoder.send_packet(&packet).map_err(failed)?;
        take(&mut decoder)?;
    }
    decoder.send_eof().map_err(failed)?;
    take(&mut decoder)?;
    Ok(pictures)
}

fn planes(frame: &frame::Video) -> Result<I420, String> {
    if !matches!(frame.format(), Pixel::YUV420P | Pixel::YUVJ420P) {
        return Err(format!("FFmpeg gives {:?}", frame.format()));
    }
    let mut picture = I420::new(frame.width(), frame.height());
    let strides = picture.strides();
    for (n, plane) in picture.planes_mut().into_iter().enumerate() {
        for (to, from) in plane.chunks_exact_mut(strides[n]).zip(frame.data(n).chunks(frame.stride(n))) {
            to.copy_from_slice(&from[..strides[n]]);
        }
    }
    Ok(picture)
}

/// Each unit's picture comes out of the call that took it, and is FFmpeg's, bit for bit.
fn compare(by: &By, clip: &Clip) -> Result<String, String> {
    let (expected, mut decoder) = (reference(clip)?, by.open(clip)?);
    let (mut same, mut problems) = (0, Vec::new());
    for (number, unit) in clip.units.iter().enumerate() {
        let problem = match (decoder.decode(unit), expected.get(&unit.time)) {
            (Ok(Some(found)), Some(expected)) if *found == *expected => {
                same += 1;
                continue;
            }
            (Ok(Some(found)), Some(expected)) => difference(&found, expected),
            (Ok(Some(_)), None) => "a picture that FFmpeg does not show".to_owned(),
            (Ok(None), Some(_)) => "no picture from its own call".to_owned(),
            (Ok(None), None) => continue,
            (Err(error), _) => error,
        };
        problems.push(format!("unit {number}: {problem}"));
    }
    match problems.first() {
        None if same == 0 => Err("no picture".to_owned()),
        None => Ok(format!("{same} pictures bit by bit, each at once")),
        Some(first) => Err(format!("{} of {} units, {first}", problems.len(), clip.units.len())),
    }
}

fn difference(found: &I420, expected: &I420) -> String {
    let size = |picture: &I420| format!("{}x{}", picture.width(), picture.height());
    if size(found) != size(expected) {
        return format!("{} instead of {}", size(found), size(expected));
    }
    let planes = found.planes().into_iter().zip(expected.planes());
    let off = planes.map(|(found, expected)| {
        let off = found.iter().zip(expected).map(|(a, b)| a.abs_diff(*b));
        format!("{} samples by {} at most", off.clone().filter(|off| *off > 0).count(), off.max().unwrap_or(0))
    });
    format!("Y, Cb, Cr differ in {}", off.collect::<Vec<_>>().join(", "))
}

/// A unit between keyframes is damaged: what is shown until the next keyframe is counted, and from there on everything has
/// to be right again. What is no bitstream at all has to be noticed.
fn damage(report: &Report, by: &By, clip: &Clip) {
    let Some(next) = clip.units.iter().skip(1).position(|unit| unit.keyframe).map(|at| at + 1) else { return };
    let clip = clip.first(next + 10);
    let (at, mut numbers) = (next / 2, Numbers::new(7));
    let good = clip.units[at].data.clone();
    let half = good.len() / 2;
    let garbage: Vec<u8> = (0..good.len().max(32)).map(|_| numbers.next() as u8).collect();
    let zeros = [&good[..half], &vec![0; good.len() - half][..]].concat();
    let kinds = [("cut in half", good[..half.max(1)].to_vec()), ("half zeros", zeros), ("noise", garbage)];
    for (kind, bytes) in kinds {
        let mut broken = clip.clone();
        broken.units[at].data = bytes.into();
        let what = format!("{}, a unit {kind}", clip.codec);
        report.judge(what, recover(by, &clip, &broken, [at, next], kind == "noise"));
    }
}

fn recover(by: &By, clip: &Clip, broken: &Clip, [at, next]: [usize; 2], notice: bool) -> Result<String, String> {
    let (expected, mut decoder) = (reference(clip)?, by.open_session(clip)?);
    let (mut told, mut wrong, mut worst) = (None, 0, 0);
    // FFmpeg 5's H.264 decoder gives a keyframe that follows a concealed picture with some samples a little off.
    let allowed = if matches!(by, By::Software) { 8 } else { 0 };
    for (number, unit) in broken.units.iter().enumerate() {
        let decoded = decoder.decode(unit);
        let own = expected.get(&unit.time);
        let right = match (&decoded, own) {
            (Ok(Some(found)), Some(own)) if number >= next => {
                let off = most_off(found, own);
                worst = worst.max(off.unwrap_or(u8::MAX));
                off.is_some_and(|off| off <= allowed)
            }
            (Ok(Some(found)), Some(own)) => **found == *own,
            _ => false,
        };
        match decoded {
            _ if number < at || number >= next => {
                if !right {
                    let how = match decoded {
                        Ok(Some(found)) => whose(&found, &expected, unit.time),
                        Ok(None) => "no picture".to_owned(),
                        Err(error) => error,
                    };
                    let place = if number < at { "before the damage" } else { "from the keyframe on" };
                    return Err(format!("unit {number}, {place}: {how}"));
                }
            }
            Err(_) => {
                told.get_or_insert(number - at);
            }
            Ok(Some(_)) if !right => wrong += 1,
            Ok(_) => {}
        }
    }
    if let One::Session(takeover, _) = &decoder
        && !takeover.on_gpu()
    {
        return Err("software took the stream over".to_owned());
    }
    let asked = match told {
        Some(units) => format!("a keyframe is asked for {units} units later"),
        None if notice => return Err(format!("nobody noticed, and {wrong} wrong pictures were shown")),
        None => "no keyframe is asked for".to_owned(),
    };
    let after = if worst == 0 { "right ones".to_owned() } else { format!("those off by {worst} at most") };
    Ok(format!("{asked}, {wrong} other pictures are shown until it comes, and {after} from then on"))
}

/// How far a sample is off at most; nothing for pictures of different sizes.
fn most_off(found: &I420, expected: &I420) -> Option<u8> {
    if (found.width(), found.height()) != (expected.width(), expected.height()) {
        return None;
    }
    let planes = found.planes().into_iter().zip(expected.planes());
    planes.flat_map(|(found, expected)| found.iter().zip(expected)).map(|(a, b)| a.abs_diff(*b)).max()
}

/// Says of a picture that is not the one of its unit which one it is.
fn whose(found: &I420, expected: &HashMap<u64, I420>, time: u64) -> String {
    let other = expected.iter().filter(|(_, picture)| *picture == found).map(|(time, _)| *time).min();
    match (other, expected.get(&time)) {
        (Some(other), _) => format!("the picture of unit {other} instead of that of {time}"),
        (None, Some(expected)) => difference(found, expected),
        (None, None) => "a picture that FFmpeg does not show".to_owned(),
    }
}

/// Decodes as many streams as help, as fast as it goes.
fn saturate(report: &Report, by: &By, clip: &Clip, seconds: f64, most: usize) {
    let mut best = (0.0, None);
    let mut any = false;
    for streams in STREAMS.into_iter().filter(|streams| *streams <= most) {
        let what = format!("{} 720p, {streams} at a time", clip.codec);
        match throughput(by, clip, streams, seconds) {
            Ok((rate, times, usage, busy)) => {
                let times = times
                    .percentiles()
                    .map_or(String::new(), |times| format!(", {:.2} ms a picture, p95 {:.2}", times.p50, times.p95));
                report.row(what, format!("{rate:.0} pictures/s{times}; {usage}"));
                if rate < best.0 * GAIN {
                    break;
                }
                (best, any) = ((rate, busy), true);
            }
            Err(error) => {
                report.wrong(what, error);
                break;
            }
        }
    }
    if any {
        let (rate, busy) = best;
        let how = match busy {
            Some(busy) if busy >= SATURATED => format!("saturated, the decoders {:.0} % busy", 100.0 * busy),
            Some(busy) => format!("not saturated, the decoders {:.0} % busy", 100.0 * busy),
            None => "how busy the decoders are is not told".to_owned(),
        };
        report.row(format!("{} 720p30 streams at best", clip.codec), format!("{:.0}; {how}", (rate / FPS).floor()));
    }
}

/// Pictures a second, how long each took, what was busy, and the decoders' share of that.
type Throughput = (f64, Latencies, String, Option<f64>);

/// What `streams` threads decode.
fn throughput(by: &By, clip: &Clip, streams: usize, seconds: f64) -> Result<Throughput, String> {
    let (go, over, count) = (Barrier::new(streams + 1), AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let work = || {
            let opened = by.open(clip).and_then(|mut decoder| {
                // The first picture makes the decoder.
                decoder.pass(&clip.units[0]).map(|_| decoder)
            });
            go.wait();
            let (mut decoder, mut times) = (opened?, Latencies::default());
            let mut units = clip.units.iter().skip(1).chain(clip.units.iter().cycle());
            while let Some(unit) = units.next().filter(|_| !over.load(Ordering::Relaxed)) {
                let start = clock::now();
                if decoder.pass(unit)? {
                    count.fetch_add(1, Ordering::Relaxed);
                }
                times.record(clock::now().duration_since(start));
            }
            Ok::<_, String>(times)
        };
        let threads: Vec<_> = (0..streams).map(|_| scope.spawn(work)).collect();
        go.wait();
        let (watch, start) = (Watch::start(), clock::now());
        let end = start + Duration::from_secs_f64(seconds);
        while clock::now() < end && threads.iter().any(|thread| !thread.is_finished()) {
            std::thread::park_timeout(end.saturating_duration_since(clock::now()).min(Duration::from_millis(50)));
        }
        let (decoded, took) = (count.load(Ordering::Relaxed), clock::now().duration_since(start));
        let (usage, busy) = watch.finish_with_decoder();
        over.store(true, Ordering::Relaxed);
        let mut times = Latencies::default();
        for thread in threads {
            times.merge(&thread.join().unwrap_or_else(|_| Err("a thread panicked".to_owned()))?);
        }
        Ok((decoded as f64 / took.as_secs_f64(), times, usage, busy))
    })
}

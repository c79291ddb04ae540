use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::annotate::{self, Annotator};
use crate::calibration::{Disturbance, Watch};
use crate::clock;
use crate::decode::{self, Decoder as _};
use crate::encode::{self, Encoder as _};
use crate::media::{AnnouncedColor, Codec, ColorInfo, EncodedFrame, FramePool, I420, MediaTime, Rotation};
use crate::scene::Scene;

/// What sending and receiving one frame takes: packets, encryption, timers (`saccade bench`, 640x480 both ways).
pub(super) const TRANSPORT: Duration = Duration::from_micros(1_200);
/// The video of the trial.
const WIDTH: u32 = 640;
const HEIGHT: u32 = 480;
const FPS: u32 = 30;
const BITRATE: u32 = 1_500_000;
/// Frames that are not counted: codecs still set themselves up.
const WARM_UP: usize = 3;
/// Frames that are.
const FRAMES: usize = 8;
/// More threads have to do more by this factor, or fewer are enough.
const WORTHWHILE: f64 = 1.05;
/// Threads that are tried at most, each with codecs of its own. A machine with more cores gets as many threads as cores.
const MAX_TRIED: usize = 16;

/// What decoding, drawing and encoding take on this machine, and on how many threads they do the most.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Codecs {
    /// Time to decode a megapixel on one thread, in microseconds.
    decode_us: u64,
    /// Time to draw on and encode a megapixel on one thread, in microseconds.
    encode_us: u64,
    /// Threads beyond which nothing is gained.
    threads: usize,
    /// Numbers of threads that were tried, and the frames that all of them did in a second.
    tried: Vec<(usize, u64)>,
    disturbance: Disturbance,
}

/// Times of one thread's frames.
#[derive(Debug, Clone, Copy)]
struct Times {
    /// The median frame's.
    decode: Duration,
    encode: Duration,
    all: Duration,
}

impl Codecs {
    /// Encodes and decodes a few frames of the sample scene on one thread, on half of the cores and on all of them; takes
    /// half a second or so. With `threads`, no other number is tried.
    ///
    /// # Errors
    /// The codec's, and the operating system's when a thread cannot be started, in words.
    pub fn measure(cores: usize, threads: Option<usize>) -> Result<Self, String> {
        let watch = Watch::start();
        let scene = Scene::new(WIDTH, HEIGHT, FPS, 1);
        let pictures: Vec<_> = (0..WARM_UP + FRAMES).map(|number| scene.frame(number as u64)).collect();
        let (mut tried, mut alone, mut best) = (Vec::new(), None, (1, 0.0));
        for count in counts(cores, threads) {
            let times = run_all(count, &pictures, scene.color())?;
            alone = alone.or_else(|| times.first().copied());
            let per_s: f64 = times.iter().map(|times| FRAMES as f64 / times.all.as_secs_f64()).sum();
            if per_s > best.1 * WORTHWHILE {
                best = (count, per_s);
            }
            tried.push((count, per_s.round() as u64));
        }
        let threads = threads.unwrap_or(if cores > MAX_TRIED { cores } else { best.0 });
        let Some(Times { decode, encode, .. }) = alone else { return Err("nothing was tried".to_owned()) };
        let micros = |time: Duration| per_megapixel(WIDTH * HEIGHT, time).as_micros().max(1) as u64;
        let (decode_us, encode_us) = (micros(decode), micros(encode));
        Ok(Self { decode_us, encode_us, threads, tried, disturbance: watch.stop() })
    }

    /// What is taken where nothing can be measured: a slow machine.
    #[must_use]
    pub const fn unknown(cores: usize) -> Self {
        let disturbance = Disturbance::of(0);
        Self { decode_us: 10_000, encode_us: 20_000, threads: cores, tried: Vec::new(), disturbance }
    }

    /// Time to decode a megapixel on one thread.
    #[must_use]
    pub const fn decode(&self) -> Duration {
        Duration::from_micros(self.decode_us)
    }

    /// Time to draw on and encode a megapixel on one thread.
    #[must_use]
    pub const fn encode(&self) -> Duration {
        Duration::from_micros(self.encode_us)
    }

    /// Megapixels a second that one thread decodes.
    #[must_use]
    pub fn decode_rate(&self) -> f64 {
        1.0 / self.decode().as_secs_f64()
    }

    /// Megapixels a second that one thread draws on and encodes.
    #[must_use]
    pub fn encode_rate(&self) -> f64 {
        1.0 / self.encode().as_secs_f64()
    }

    /// Threads beyond which nothing is gained.
    #[must_use]
    pub const fn threads(&self) -> usize {
        self.threads
    }

    /// Numbers of threads that were tried, and the frames of 640x480 that all of them did in a second.
    #[must_use]
    pub fn tried(&self) -> &[(usize, u64)] {
        &self.tried
    }

    /// How busy others kept the machine in the meantime.
    #[must_use]
    pub const fn disturbance(&self) -> Disturbance {
        self.disturbance
    }

    /// What a frame of 640x480 takes outside its model: transport, decoding, drawing, encoding.
    #[must_use]
    pub fn around_model(&self) -> Duration {
        let megapixels = f64::from(WIDTH * HEIGHT) / 1e6;
        TRANSPORT + (self.decode() + self.encode()).mul_f64(megapixels)
    }

    /// Threads that sockets and timers keep busy while `cores` do everything for as many frames as they can, without a
    /// model: workers that nothing keeps busy cost a wake-up for each packet.
    #[must_use]
    pub fn network_threads(&self, cores: usize) -> usize {
        let share = TRANSPORT.div_duration_f64(self.around_model());
        ((cores as f64 * share).ceil() as usize).clamp(1, cores.max(1))
    }
}

/// One, half of the cores and all of them, none twice; one alone where the number is known.
fn counts(cores: usize, threads: Option<usize>) -> Vec<usize> {
    let most = cores.clamp(1, MAX_TRIED);
    let mut counts = vec![1];
    if threads.is_none() {
        counts.extend([most.div_ceil(2), most]);
    }
    counts.dedup();
    counts
}

/// The times of each of so many threads that work at once.
fn run_all(count: usize, pictures: &[I420], color: ColorInfo) -> Result<Vec<Times>, String> {
    let barrier = Barrier::new(count);
    thread::scope(|scope| {
        let start = |_| {
            thread::Builder::new()
                .spawn_scoped(scope, || run(pictures, color, &barrier))
                .map_err(|error| error.to_string())
        };
        let threads: Vec<_> = (0..count).map(start).collect();
        threads.into_iter().map(|thread| thread?.join().map_err(|_| "a codec panicked".to_owned())?).collect()
    })
}

/// Draws on, encodes and decodes these pictures.
fn run(pictures: &[I420], color: ColorInfo, barrier: &Barrier) -> Result<Times, String> {
    let config = encode::software::Config { bitrate_bps: BITRATE, fps: f64::from(FPS) };
    let encoder = encode::software::Software::new(Codec::H264, config).map_err(|error| error.to_string());
    let pool = Arc::new(FramePool::new(1));
    let decoder = decode::software::Software::new(Codec::H264, decode::Limits::default(), pool);
    // Whoever fails waits first, or the others would for ever.
    barrier.wait();
    let (mut encoder, mut decoder) = (encoder?, decoder.map_err(|error| error.to_string())?);
    let (mut annotator, overlay) = (Annotator::new(), annotate::Overlay::default());
    let (mut decode, mut encode, mut start) = (Vec::new(), Vec::new(), clock::now());
    for (number, picture) in pictures.iter().enumerate() {
        if number == WARM_UP {
            (decode, encode, start) = (Vec::new(), Vec::new(), clock::now());
        }
        let mut picture = picture.clone();
        let drawn = clock::now();
        annotator.draw(&mut picture, color, &overlay);
        let time = MediaTime::default().after(Duration::from_secs(number as u64) / FPS);
        let encoded = encoder.encode(&picture, color, time, false).map_err(|error| error.to_string())?;
        let encoded = encoded.ok_or("the encoder gave no frame")?;
        let arrival = clock::now();
        let unit = EncodedFrame {
            codec: Codec::H264,
            data: encoded.data,
            time,
            keyframe: encoded.keyframe,
            rotation: Rotation::None,
            color: AnnouncedColor::default(),
            arrival,
            reorder_wait: Duration::ZERO,
        };
        decoder.decode(&unit).map_err(|error| error.to_string())?;
        encode.push(arrival - drawn);
        decode.push(clock::now() - arrival);
    }
    let all = clock::now() - start;
    Ok(Times { decode: median(decode), encode: median(encode), all })
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// What a megapixel takes where so many pixels took this long.
pub(super) fn per_megapixel(pixels: u32, took: Duration) -> Duration {
    took.mul_f64(1e6 / f64::from(pixels.max(1)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_trial_finds_out_what_codecs_take() {
        let codecs = Codecs::measure(2, None).unwrap();
        assert!(codecs.decode() > Duration::ZERO && codecs.encode() > codecs.decode() / 10, "{codecs:?}");
        assert_eq!(codecs.tried().iter().map(|tried| tried.0).collect::<Vec<_>>(), [1, 2]);
        assert!(codecs.tried().iter().all(|tried| tried.1 > 0), "{codecs:?}");
        assert!([1, 2].contains(&codecs.threads()));
        let pinned = Codecs::measure(2, Some(7)).unwrap();
        assert_eq!((pinned.threads(), pinned.tried().len()), (7, 1));
    }

    #[test]
    fn one_half_and_all_of_the_cores_are_tried_once() {
        assert_eq!(counts(1, None), [1]);
        assert_eq!(counts(2, None), [1, 2]);
        assert_eq!(counts(8, None), [1, 4, 8]);
        assert_eq!(counts(100, None), [1, MAX_TRIED / 2, MAX_TRIED]);
        assert_eq!(counts(8, Some(3)), [1]);
    }

    #[test]
    fn the_network_gets_its_share_of_the_cores() {
        let codecs = |decode_us, encode_us| Codecs { decode_us, encode_us, ..Codecs::unknown(2) };
        // 1.2 of 6.1 ms.
        let slow = codecs(3_000, 13_000);
        assert_eq!((slow.network_threads(1), slow.network_threads(2), slow.network_threads(16)), (1, 1, 4));
        // 1.2 of 1.2 ms.
        assert_eq!(codecs(1, 1).network_threads(8), 8);
    }
}

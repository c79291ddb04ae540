//! Encodes the drawn scene, and decodes what comes back.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use saccade::decode::{self, Decoder};
use saccade::egress::packetize::Packetizer;
use saccade::encode::{self, Encoder};
use saccade::ingest::{self, Ingest};
use saccade::media::{Codec, ColorInfo, FramePool, I420, MediaTime, RtpPacket};
use saccade::scene::Scene;

pub const WIDTH: u32 = 640;
pub const HEIGHT: u32 = 480;
pub const FPS: u32 = 30;

/// Turns the scene's frames into packets.
pub struct Publisher {
    pub scene: Scene,
    encoder: encode::software::Software,
    packetizer: Packetizer,
    first: MediaTime,
    pub next: u64,
    /// What is sent instead of the scene, again and again.
    pub still: Option<(I420, ColorInfo)>,
}

impl Publisher {
    pub fn new(codec: Codec) -> Self {
        Self::with_bitrate(codec, 4_000_000)
    }

    pub fn with_bitrate(codec: Codec, bitrate_bps: u32) -> Self {
        let config = encode::software::Config { bitrate_bps, fps: FPS.into() };
        Self {
            scene: Scene::new(WIDTH, HEIGHT, FPS, 1),
            encoder: encode::software::Software::new(codec, config).unwrap(),
            packetizer: Packetizer::new(codec, 1188),
            // Wraps around within the first second.
            first: MediaTime(u32::MAX - 45_000),
            next: 0,
            still: None,
        }
    }

    pub fn time(&self, number: u64) -> MediaTime {
        self.first.after(Duration::from_secs(1) * u32::try_from(number).unwrap() / FPS)
    }

    /// Number of the frame that has this time.
    pub fn number(&self, time: u32) -> u64 {
        let ticks = u64::from(time.wrapping_sub(self.first.0));
        (ticks * u64::from(FPS) + 45_000) / 90_000
    }

    /// The packets of the next frame. A keyframe comes every second.
    pub fn next(&mut self) -> (MediaTime, Vec<(Bytes, bool)>) {
        let (number, time) = (self.next, self.time(self.next));
        self.next += 1;
        let keyframe = number.is_multiple_of(u64::from(FPS));
        let encoded = match &self.still {
            Some((picture, color)) => self.encoder.encode(picture, *color, time, keyframe),
            None => self.encoder.encode(&self.scene.frame(number), self.scene.color(), time, keyframe),
        };
        let encoded = encoded.unwrap().expect("a unit");
        let payloads = self.packetizer.packetize(&encoded.data, encoded.keyframe);
        (time, payloads.map(|payload| (payload.data, payload.marker)).collect())
    }
}

/// Decodes returned video.
pub struct Viewer {
    ingest: Ingest,
    decoder: decode::software::Software,
    pub keyframes: u64,
}

impl Viewer {
    pub fn new(codec: Codec) -> Self {
        let pool = Arc::new(FramePool::new(2));
        Self {
            ingest: Ingest::new(codec, ingest::Config::default()),
            decoder: decode::software::Software::new(codec, decode::Limits::default(), pool).unwrap(),
            keyframes: 0,
        }
    }

    /// The pictures that a packet completes.
    pub fn take(&mut self, packet: RtpPacket) -> Vec<(MediaTime, Arc<I420>, ColorInfo)> {
        let mut pictures = Vec::new();
        self.ingest.handle_packet(saccade::clock::now(), packet);
        while let Some(output) = self.ingest.poll_output() {
            if let ingest::Output::AccessUnit(unit) = output {
                self.keyframes += u64::from(unit.keyframe);
                if let Some(decoded) = self.decoder.decode(&unit).unwrap() {
                    pictures.push((unit.time, decoded.picture, decoded.color));
                }
            }
        }
        pictures
    }
}

/// Overlap of two boxes, 0..1.
pub fn iou(a: [f32; 4], b: [f32; 4]) -> f32 {
    let width = (a[2].min(b[2]) - a[0].max(b[0])).max(0.0);
    let height = (a[3].min(b[3]) - a[1].max(b[1])).max(0.0);
    let area = |r: [f32; 4]| (r[2] - r[0]) * (r[3] - r[1]);
    let both = width * height;
    both / (area(a) + area(b) - both)
}

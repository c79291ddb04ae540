//! Renders one loop of the drawn sample scene.
//!
//! ```text
//! cargo run --release --example render_scene -- --out web/public/scene
//! cargo run --release --example render_scene -- --y4m scene.y4m
//! ```
//!
//! `--out DIR` writes what the web page plays: `scene.mp4` (H.264) and `scene.json`, its truth:
//! `{"fps", "width", "height", "frames", "classes": ["head", "helmet"], "truth": [[[x1, y1, x2, y2, class_id, person_id],
//! …], …]}`, one list for each frame, boxes in pixels. `--y4m FILE` writes the raw pictures, which Chromium's fake capture
//! device plays (`--use-file-for-fake-video-capture`).

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::Parser;
use ffmpeg_next as ffmpeg;
use saccade::annotate::{Annotator, Overlay};
use saccade::media::{Class, Detection, I420};
use saccade::scene::Scene;

/// Renders one loop of the drawn sample scene.
#[derive(Debug, Parser)]
struct Arguments {
    /// Folder for scene.mp4 and scene.json.
    #[arg(long, value_name = "DIR", required_unless_present = "y4m")]
    out: Option<PathBuf>,
    /// File for the raw pictures.
    #[arg(long, value_name = "FILE")]
    y4m: Option<PathBuf>,
    /// Pixels across.
    #[arg(long, default_value_t = 640, value_parser = clap::value_parser!(u32).range(16..=3840))]
    width: u32,
    /// Pixels from top to bottom.
    #[arg(long, default_value_t = 480, value_parser = clap::value_parser!(u32).range(16..=3840))]
    height: u32,
    /// Frames a second.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=120))]
    fps: u32,
    /// Picks clothes, helmets and places.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Draws the true boxes on the pictures.
    #[arg(long)]
    boxes: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let scene = Scene::new(arguments.width, arguments.height, arguments.fps, arguments.seed);
    if let Some(folder) = &arguments.out {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        write_mp4(&folder.join("scene.mp4"), &scene, &arguments)?;
        fs::write(folder.join("scene.json"), truth(&scene, &arguments))?;
    }
    if let Some(file) = &arguments.y4m {
        write_y4m(file, &scene, &arguments).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

/// The loop's pictures in order.
fn pictures<'a>(scene: &'a Scene, arguments: &'a Arguments) -> impl Iterator<Item = I420> + 'a {
    let mut annotator = Annotator::new();
    (0..scene.loop_frames()).map(move |number| {
        let mut picture = scene.frame(number);
        if arguments.boxes {
            let detection = |head: saccade::scene::Head| Detection {
                bbox: head.bbox,
                class: Class { id: head.class_id, name: Scene::CLASSES[head.class_id as usize].into() },
                score: 1.0,
                object_id: Some(head.person_id.into()),
                keypoints: Vec::new(),
            };
            let detections: Vec<_> = scene.truth(number).into_iter().map(detection).collect();
            let overlay = Overlay { detections: &detections, ..Overlay::default() };
            annotator.draw(&mut picture, scene.color(), &overlay);
        }
        picture
    })
}

fn truth(scene: &Scene, arguments: &Arguments) -> String {
    let tenth = |value: f32| (f64::from(value) * 10.0).round() / 10.0;
    let frames: Vec<_> = (0..scene.loop_frames())
        .map(|number| {
            let heads = scene.truth(number).into_iter().map(|head| {
                let [x1, y1, x2, y2] = head.bbox.map(tenth);
                serde_json::json!([x1, y1, x2, y2, head.class_id, head.person_id])
            });
            heads.collect::<Vec<_>>()
        })
        .collect();
    let document = serde_json::json!({
        "fps": arguments.fps,
        "width": arguments.width,
        "height": arguments.height,
        "frames": frames.len(),
        "classes": Scene::CLASSES,
        "truth": frames,
    });
    document.to_string()
}

fn write_mp4(path: &Path, scene: &Scene, arguments: &Arguments) -> Result<()> {
    ffmpeg::init()?;
    ffmpeg::log::set_level(ffmpeg::log::Level::Error);
    let codec = ffmpeg::encoder::find_by_name("libx264").context("this FFmpeg has no libx264")?;
    let mut file = ffmpeg::format::output(path).with_context(|| format!("cannot write {}", path.display()))?;
    let mut encoder = ffmpeg::codec::Context::new_with_codec(codec).encoder().video()?;
    encoder.set_width(arguments.width);
    encoder.set_height(arguments.height);
    encoder.set_format(ffmpeg::format::Pixel::YUV420P);
    encoder.set_frame_rate(Some((arguments.fps as i32, 1)));
    encoder.set_time_base((1, arguments.fps as i32));
    encoder.set_colorspace(ffmpeg::color::Space::SMPTE170M);
    encoder.set_color_range(ffmpeg::color::Range::MPEG);
    if file.format().flags().contains(ffmpeg::format::Flags::GLOBAL_HEADER) {
        encoder.set_flags(ffmpeg::codec::Flags::GLOBAL_HEADER);
    }
    let mut options = ffmpeg::Dictionary::new();
    options.set("preset", "slower");
    options.set("profile", "main");
    options.set("crf", "23");
    options.set("x264-params", "keyint=90:bframes=0:ref=4:colorprim=smpte170m:transfer=smpte170m");
    let mut encoder = encoder.open_with(options)?;
    file.add_stream(codec)?.set_parameters(&encoder);
    let mut muxing = ffmpeg::Dictionary::new();
    muxing.set("movflags", "faststart");
    let _ = file.write_header_with(muxing)?;
    let encoder_base = ffmpeg::Rational::new(1, arguments.fps as i32);
    let file_base = file.stream(0).context("the file has no stream")?.time_base();
    let mut packet = ffmpeg::Packet::empty();
    let mut drain = |encoder: &mut ffmpeg::encoder::video::Encoder| -> Result<()> {
        while encoder.receive_packet(&mut packet).is_ok() {
            packet.set_stream(0);
            packet.set_duration(1);
            packet.rescale_ts(encoder_base, file_base);
            packet.write_interleaved(&mut file)?;
        }
        Ok(())
    };
    for (number, picture) in (0..).zip(pictures(scene, arguments)) {
        let mut frame = ffmpeg::frame::Video::new(ffmpeg::format::Pixel::YUV420P, arguments.width, arguments.height);
        for (plane, (samples, stride)) in picture.planes().into_iter().zip(picture.strides()).enumerate() {
            let target = frame.stride(plane);
            for (to, from) in frame.data_mut(plane).chunks_mut(target).zip(samples.chunks(stride)) {
                to[..stride].copy_from_slice(from);
            }
        }
        frame.set_pts(Some(number));
        encoder.send_frame(&frame)?;
        drain(&mut encoder)?;
    }
    encoder.send_eof()?;
    drain(&mut encoder)?;
    file.write_trailer()?;
    Ok(())
}

fn write_y4m(path: &Path, scene: &Scene, arguments: &Arguments) -> Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    let Arguments { width, height, fps, .. } = arguments;
    writeln!(file, "YUV4MPEG2 W{width} H{height} F{fps}:1 Ip A1:1 C420jpeg")?;
    for picture in pictures(scene, arguments) {
        file.write_all(b"FRAME\n")?;
        for plane in picture.planes() {
            file.write_all(plane)?;
        }
    }
    Ok(file.flush()?)
}

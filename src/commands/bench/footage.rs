//! What `saccade bench` sends: the drawn scene, whose truth is known, or a video file.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::time::UNIX_EPOCH;

use saccade_load::{Footage, MAX_FRAMES, Object, Picture};

use crate::commands::offline::{LIMITS, sentence};
use crate::decode::file::Reader;
use crate::media::I420;
use crate::scene::Scene;

/// Name of the drawn scene.
pub(super) const SCENE: &str = "scene";
/// Seed of the scene that is sent.
const SEED: u64 = 1;
/// Of a head that shows less than this the model need not know.
const CLEAR: f32 = 0.7;
/// Nor of one that is smaller, in pixels.
const LARGE: f32 = 12.0;

/// The named clip's pictures, and the classes of its truth.
pub(super) fn open(clip: &str, size: Option<(u32, u32)>, fps: u32) -> Result<Footage, String> {
    if clip == SCENE { Ok(scene(size.unwrap_or((640, 480)), fps)) } else { file(Path::new(clip)) }
}

/// Names of the classes in the truth of the clip, by index.
pub(super) fn classes(clip: &str) -> Vec<String> {
    if clip == SCENE { Scene::CLASSES.map(str::to_owned).to_vec() } else { Vec::new() }
}

fn scene((width, height): (u32, u32), fps: u32) -> Footage {
    let scene = Scene::new(width, height, fps, SEED);
    let frames = scene.loop_frames().min(MAX_FRAMES as u64);
    let object = |head: crate::scene::Head| {
        let [x1, y1, x2, y2] = head.bbox;
        let optional = head.visible < CLEAR || (x2 - x1).min(y2 - y1) < LARGE;
        Object { bbox: head.bbox, class_id: head.class_id, optional }
    };
    let truth = (0..frames).map(|number| scene.truth(number).into_iter().map(object).collect()).collect();
    Footage {
        identity: format!("scene {SEED} {:016x}", fingerprint(&scene)),
        size: (width, height),
        pictures: Box::new((0..frames).map(move |number| Ok(picture(&scene.frame(number))))),
        truth,
    }
}

/// Differs when the scene is drawn differently: one picture with people in it speaks for all.
fn fingerprint(scene: &Scene) -> u64 {
    let mut hasher = DefaultHasher::new();
    scene.frame(60).planes().hash(&mut hasher);
    hasher.finish()
}

fn file(path: &Path) -> Result<Footage, String> {
    let failed = |reason: String| format!("{}: {reason}; give a video file, or scene", path.display());
    let mut reader = Reader::open(path, LIMITS).map_err(|error| failed(sentence(&error)))?;
    let size = (reader.info().width, reader.info().height);
    let metadata = fs::metadata(path).map_err(|error| failed(error.to_string()))?;
    let changed = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    let place = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let pictures = std::iter::from_fn(move || {
        reader.next().map(|found| found.map(|found| picture(&found.picture)).map_err(|error| sentence(&error)))
    });
    Ok(Footage {
        identity: format!("{} {} {}", place.display(), metadata.len(), changed.as_nanos()),
        size,
        pictures: Box::new(pictures),
        truth: Vec::new(),
    })
}

fn picture(picture: &I420) -> Picture {
    let [y, u, v] = picture.planes().map(<[u8]>::to_vec);
    Picture { width: picture.width(), height: picture.height(), y, u, v }
}

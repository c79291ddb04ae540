//! The drawn sample scene: a building site that people cross, some in hard hats and some bare-headed, with the true box
//! of every head.
//!
//! A leaf: a size, a frame rate and a seed come in, pictures and truth leave, on the caller's thread. The same arguments
//! give the same pictures. It must not read the time or any file.
//!
//! # Colours
//!
//! Pictures are limited-range BT.601, the default [`ColorInfo`]. Heads (skin and hair) and helmets are the only things
//! with a Cr code above 149; helmets alone among them have a Cb code below 60. The test model `models/scene-blobs`
//! relies on it: one of its blobs is one head, and whether any of the blob is helmet tells the class. So the box of a
//! helmet is that of helmet and face together.

mod backdrop;
mod figure;
mod sketch;

use std::f32::consts::TAU;
use std::time::Duration;

use crate::draw::Raster;
use crate::media::{ColorInfo, I420};

use figure::{Clothes, Figure, Pose};
use sketch::{Part, Sketch};

/// The scene at one size and frame rate.
#[derive(Debug)]
pub struct Scene {
    fps: u32,
    /// All that stands still behind the first person.
    backdrop: I420,
    people: Vec<Person>,
    /// Design units across; the height is always [`sketch::HEIGHT`].
    breadth: f32,
}

/// The true place of one head in one frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Head {
    /// Corners `[x1, y1, x2, y2]` in pixels of the part that shows.
    pub bbox: [f32; 4],
    /// 0: bare head, 1: head in a helmet; indices of [`Scene::CLASSES`].
    pub class_id: u32,
    /// Who it is, the same in all frames.
    pub person_id: u32,
    /// Area of `bbox` over that of the whole head's box, [`Scene::MIN_VISIBLE`]..1.
    pub visible: f32,
}

impl Scene {
    /// Class names by `class_id`.
    pub const CLASSES: [&str; 2] = ["head", "helmet"];

    /// After this time the animation begins again, without a seam.
    pub const LOOP: Duration = Duration::from_secs(12);

    /// Heads of which less shows, behind something or outside the frame, are not in the truth.
    pub const MIN_VISIBLE: f32 = 0.4;

    /// A scene of `width × height` pixels at `fps` frames a second, all at least 1. The seed picks clothes, helmets and
    /// places; with any seed there are people of both classes.
    #[must_use]
    pub fn new(width: u32, height: u32, fps: u32, seed: u64) -> Self {
        let breadth = sketch::HEIGHT * width as f32 / height as f32;
        Self { fps: fps.max(1), backdrop: backdrop::still(width, height), people: people(seed), breadth }
    }

    /// Frames until the animation begins again.
    #[must_use]
    pub fn loop_frames(&self) -> u64 {
        Self::LOOP.as_secs() * u64::from(self.fps)
    }

    /// The meaning of the pictures' codes.
    #[must_use]
    pub fn color(&self) -> ColorInfo {
        ColorInfo::default()
    }

    /// The picture of frame `number`.
    #[must_use]
    pub fn frame(&self, number: u64) -> I420 {
        let mut picture = self.backdrop.clone();
        self.sketch(number).paint(&mut picture, &mut Raster::default(), self.color());
        picture
    }

    /// The heads that show in frame `number`, nearest last.
    #[must_use]
    pub fn truth(&self, number: u64) -> Vec<Head> {
        let (width, height) = (self.backdrop.width(), self.backdrop.height());
        let visible = self.sketch(number).visible_heads((width as usize, height as usize), &mut Raster::default());
        let head = |found: sketch::VisibleHead| Head {
            bbox: found.bbox,
            class_id: u32::from(self.people[found.person].clothes.helmet),
            person_id: u32::try_from(found.person).unwrap_or(u32::MAX),
            visible: found.share,
        };
        visible.into_iter().filter(|found| found.share >= Self::MIN_VISIBLE).map(head).collect()
    }

    /// All that moves, and what stands in front of it, in the order of painting.
    fn sketch(&self, number: u64) -> Sketch {
        let loop_frames = self.loop_frames();
        let time = (number % loop_frames) as f32 / loop_frames as f32;
        let mut sketch = Sketch::new(self.backdrop.height());
        backdrop::crane_load(&mut sketch, self.breadth, time);
        let mut lane = Lane::Floor;
        for (index, person) in self.people.iter().enumerate() {
            sketch.part = Part::Other;
            if person.lane != lane {
                lane = person.lane;
                match lane {
                    Lane::Floor | Lane::Far => {}
                    Lane::Middle => backdrop::cabin(&mut sketch, self.breadth),
                    Lane::Near => backdrop::booth(&mut sketch, self.breadth),
                }
            }
            let pose = person.pose(self.breadth, time);
            figure::shadow(&mut sketch, pose);
            Figure { clothes: &person.clothes, pose, person: index }.draw(&mut sketch);
        }
        sketch.part = Part::Other;
        backdrop::foreground(&mut sketch, self.breadth);
        sketch
    }
}

/// How deep in the picture someone walks. Heads of different lanes never touch: near ones are lower.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Lane {
    /// On the building.
    Floor,
    Far,
    Middle,
    Near,
}

#[derive(Debug)]
struct Person {
    lane: Lane,
    /// Part of the loop by which this person is ahead.
    phase: f32,
    clothes: Clothes,
}

impl Person {
    fn pose(&self, breadth: f32, time: f32) -> Pose {
        // Height, feet, direction, crossings a loop.
        let (height, feet, facing, crossings) = match self.lane {
            Lane::Floor => {
                let place = breadth * backdrop::WORKER_AT;
                let swing = TAU * (6.0 * time + self.phase);
                return Pose { at: [place, backdrop::WORKER_FLOOR], height: 90.0, facing: -1.0, step: None, swing };
            }
            Lane::Far => (104.0, 264.0, 1.0, 1.0),
            Lane::Middle => (144.0, 354.0, -1.0, 1.0),
            Lane::Near => (200.0, 474.0, 1.0, 2.0),
        };
        let way = breadth + 0.8 * height;
        let walked = (time * crossings + self.phase).fract();
        let x = if facing > 0.0 { walked * way } else { (1.0 - walked) * way } - 0.4 * height;
        // A whole number of strides a loop, so that the legs too are where they began.
        let strides = (way * crossings / (figure::STRIDE * height)).round();
        let step = TAU * (strides * time + self.phase * 7.0);
        Pose { at: [x, feet + 2.0 * (TAU * (walked + self.phase)).sin()], height, facing, step: Some(step), swing: 0.0 }
    }
}

/// The cast, farthest first.
fn people(seed: u64) -> Vec<Person> {
    let mut random = Random(seed);
    let places = [
        (Lane::Floor, 0.0, Some(true)),
        (Lane::Far, 0.02, None),
        (Lane::Far, 0.36, Some(false)),
        (Lane::Far, 0.69, Some(true)),
        (Lane::Middle, 0.22, Some(true)),
        (Lane::Middle, 0.71, Some(false)),
        (Lane::Near, 0.10, Some(false)),
        (Lane::Near, 0.62, Some(true)),
    ];
    let swap = random.below(2) == 1;
    let mut cast: Vec<_> = places
        .into_iter()
        .map(|(lane, phase, helmet)| {
            let helmet = helmet.map_or_else(|| random.below(2) == 1, |on| on != (swap && lane != Lane::Floor));
            let phase = phase + random.below(100) as f32 * 0.0008;
            Person { lane, phase, clothes: Clothes::pick(helmet, |count| random.below(count)) }
        })
        .collect();
    cast.sort_by_key(|person| person.lane);
    cast
}

/// Small numbers from a seed (SplitMix64).
struct Random(u64);

impl Random {
    /// A number below `count`.
    #[expect(clippy::cast_possible_truncation, reason = "the remainder of a small number")]
    fn below(&mut self, count: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) % count as u64) as usize
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    /// Chroma samples with a colour that only heads have.
    fn warm(picture: &I420) -> Vec<(f32, f32)> {
        let (wide, _) = picture.chroma_size();
        let samples = picture.planes()[2].iter().enumerate();
        samples
            .filter(|&(_, &cr)| cr > 149)
            .map(|(at, _)| ((at % wide) as f32 * 2.0, (at / wide) as f32 * 2.0))
            .collect()
    }

    fn everyone(scene: &Scene, number: u64) -> Vec<sketch::VisibleHead> {
        let size = (scene.backdrop.width() as usize, scene.backdrop.height() as usize);
        scene.sketch(number).visible_heads(size, &mut Raster::default())
    }

    #[test]
    fn the_loop_has_no_seam() {
        let scene = Scene::new(320, 240, 30, 1);
        let end = scene.loop_frames();
        assert_eq!(end, 360);
        assert_eq!(scene.frame(0), scene.frame(end));
        assert_eq!(scene.truth(5), scene.truth(end + 5));
        let change = |a: u64, b: u64| -> u64 {
            let (a, b) = (scene.frame(a), scene.frame(b));
            a.planes()[0].iter().zip(b.planes()[0]).map(|(a, b)| u64::from(a.abs_diff(*b))).sum()
        };
        let (seam, usual) = (change(end - 1, end), change(100, 101));
        assert!(seam > 0 && seam < 2 * usual, "{seam} {usual}");
    }

    #[test]
    fn the_same_arguments_give_the_same_pictures() {
        let [one, again, other] = [7, 7, 8].map(|seed| Scene::new(160, 120, 10, seed));
        assert_eq!(one.frame(33), again.frame(33));
        assert_ne!(one.frame(33), other.frame(33));
    }

    #[test]
    fn only_heads_have_the_colour_of_heads() {
        for (width, height, seed) in [(640, 480, 1), (320, 240, 2), (1280, 720, 3), (360, 640, 4), (641, 479, 5)] {
            let scene = Scene::new(width, height, 30, seed);
            for number in (0..360).step_by(40) {
                let heads = everyone(&scene, number);
                for (x, y) in warm(&scene.frame(number)) {
                    let inside = |[x0, y0, x1, y1]: [f32; 4]| x + 2.0 > x0 && x < x1 && y + 2.0 > y0 && y < y1;
                    assert!(heads.iter().any(|head| inside(head.bbox)), "{width}x{height} {number}: {x}, {y}");
                }
            }
        }
    }

    #[test]
    fn boxes_end_where_the_colour_of_heads_ends() {
        let scene = Scene::new(640, 480, 30, 1);
        for number in (0..360).step_by(12) {
            let warm = warm(&scene.frame(number));
            for head in scene.truth(number) {
                let [x0, y0, x1, y1] = head.bbox;
                let of_head = warm.iter().filter(|(x, y)| x + 2.0 > x0 && *x < x1 && y + 2.0 > y0 && *y < y1);
                let start = [f32::INFINITY, f32::INFINITY, 0.0, 0.0];
                let found =
                    of_head.fold(start, |[l, t, r, b], &(x, y)| [l.min(x), t.min(y), r.max(x + 2.0), b.max(y + 2.0)]);
                let off = found.iter().zip(head.bbox).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(off <= 3.0, "frame {number}: {head:?} {found:?}");
            }
        }
    }

    #[test]
    fn heads_never_touch() {
        for seed in 0..5 {
            let scene = Scene::new(640, 480, 6, seed);
            for number in 0..scene.loop_frames() {
                let heads = everyone(&scene, number);
                for (index, a) in heads.iter().enumerate() {
                    for b in &heads[..index] {
                        let apart = (a.bbox[0] - b.bbox[2]).max(b.bbox[0] - a.bbox[2]);
                        let apart = apart.max(a.bbox[1] - b.bbox[3]).max(b.bbox[1] - a.bbox[3]);
                        assert!(apart >= 10.0, "seed {seed}, frame {number}: {a:?} {b:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn everyone_comes_by_and_hidden_heads_are_left_out() {
        for seed in 0..3 {
            let scene = Scene::new(640, 480, 6, seed);
            let all: Vec<_> = (0..scene.loop_frames()).flat_map(|number| scene.truth(number)).collect();
            for class_id in [0, 1] {
                assert!(all.iter().any(|head| head.class_id == class_id), "seed {seed}");
            }
            for person in 0..scene.people.len() {
                assert!(all.iter().any(|head| head.person_id as usize == person), "seed {seed}: {person}");
            }
            assert!(all.iter().all(|head| head.visible >= Scene::MIN_VISIBLE && head.visible <= 1.0));
            let (mut hidden, mut outside) = (0, 0);
            for number in 0..scene.loop_frames() {
                for head in everyone(&scene, number).iter().filter(|head| head.share < Scene::MIN_VISIBLE) {
                    assert!(!scene.truth(number).iter().any(|listed| listed.person_id as usize == head.person));
                    let at_side = head.bbox[0] <= 0.0 || head.bbox[2] >= 640.0;
                    *(if at_side { &mut outside } else { &mut hidden }) += 1;
                }
            }
            assert!(hidden > 0 && outside > 0, "seed {seed}: {hidden} {outside}");
        }
    }

    #[test]
    fn boxes_lie_in_the_picture() {
        let scene = Scene::new(333, 251, 30, 9);
        for head in (0..360).flat_map(|number| scene.truth(number)) {
            let [x0, y0, x1, y1] = head.bbox;
            assert!(x0 >= 0.0 && y0 >= 0.0 && x0 < x1 && y0 < y1 && x1 <= 333.0 && y1 <= 251.0, "{head:?}");
        }
    }
}

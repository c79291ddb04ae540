//! Which detection is which object from frame to frame, and where objects are between two results.
//!
//! What a model found in one frame comes in, in the order of the frames; the same detections with an `object_id` leave,
//! and on request the places of all objects at another time. Pure: it runs on the caller's thread, knows the time from
//! the frames' RTP clock alone and must not read another. One tracker a session.
//!
//! Association is that of ByteTrack (Zhang et al. 2022, "ByteTrack: Multi-Object Tracking by Associating Every Detection
//! Box"): sure detections first, then unsure ones for the objects left over. What differs: motion is in seconds, so that
//! behaviour doesn't depend on how often the model runs; and the cost of a pair is its negative log-likelihood under the
//! predicted motion instead of a lack of overlap, since at five results a second small things that move don't overlap.

mod associate;
mod kalman;
#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::media::{Class, Detection, Keypoint, MediaTime, overlap};

use associate::Associator;
use kalman::{Measured, Motion, Noise};

/// Of the scores under a session's threshold, this share is of use: see [`Tracker::low_threshold`].
const LOW_SHARE: f32 = 0.3;
/// Scores below this are noise. ByteTrack's value.
const LOWEST_SCORE: f32 = 0.1;

/// What an interruption counts of the time that it lasts: enough for what moved on to have moved on.
const INTERRUPTED: Duration = Duration::from_secs(1);

/// Detections that are looked at in one update, surest first; the others get no id.
const MAX_DETECTIONS: usize = 512;
/// A time up to this much before the last update is that of a late result; one farther back begins a new stream.
const LATE: Duration = Duration::from_secs(1);
/// The highest cost of a pair: below it, the detection is rather that object than a new one or a false alarm. In the units
/// of twice a negative log-likelihood, for lengths in sizes.
const MAX_COST: f64 = 15.0;
/// The same for an object that was not in sight: rather than come back where it should be, it stays away.
const MAX_COST_LOST: f64 = 7.0;
/// The same for an unsure detection, which rather is nothing.
const MAX_COST_UNSURE: f64 = 6.0;
/// The overlap from which an object may be found as one of another class.
const SAME_PLACE: f64 = 0.3;
/// Results in a row after which an object is of the class that the model says.
const CLASS_CHANGE: u32 = 3;
/// Largest ratio of sizes within a pair.
const MAX_SIZE_RATIO: f64 = 2.5;
/// An object with at most this many sightings that is not found where another one is was that one.
const HARDLY_SEEN: u32 = 3;

/// How objects are followed. A size is the square root of the area of the object's box.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// How long an object that isn't found is remembered; 3 s. More bridges longer occlusions, and takes more strangers for
    /// the one who left.
    pub lost: Duration,
    /// How long the video may be interrupted, as while its sender changes networks, so that objects in sight before are
    /// looked for after it; 15 s. A step longer than `lost` is an interruption: nobody could see where they went meanwhile,
    /// and they are expected near where they were. More takes more strangers for those who were there.
    pub interruption: Duration,
    /// How long an object that isn't found is shown by [`Tracker::predict`]; 300 ms. More bridges more misses, and leaves
    /// boxes longer where nothing is any more.
    pub coast: Duration,
    /// How far beyond the last update, and beyond an object's last sure detection, [`Tracker::predict`] shows objects;
    /// 1 s. More shows boxes through longer stalls of the model, farther off.
    pub horizon: Duration,
    /// How long an object that was found only once is remembered; 500 ms. More makes objects of false alarms that recur.
    pub doubtful: Duration,
    /// Error (standard deviation) of the centres of the model's boxes, in sizes; 0.06. More makes boxes steadier and later.
    pub centre_error: f64,
    /// Error of the width and height of the model's boxes, in sizes; 0.1. The same.
    pub extent_error: f64,
    /// Speed (standard deviation) that an object may have when it first appears, in sizes a second; 3. More finds faster
    /// objects again, and mixes up more of those that have just appeared.
    pub speed: f64,
    /// How much the speed of an object changes in one second (standard deviation), in sizes a second; 1.5. More follows
    /// turns faster, and makes predicted boxes less steady.
    pub agility: f64,
    /// How fast width and height may change when an object first appears (standard deviation), in sizes a second; 0.5.
    pub growth: f64,
    /// How much that changes in one second (standard deviation), in sizes a second; 0.3.
    pub growth_agility: f64,
    /// The farthest that a detection may be from where its object should be, in sizes; 2. More allows for sharper turns
    /// and lower rates, and takes more strangers for known objects.
    pub reach: f64,
    /// Objects that are followed at once, at least 1; 256. Beyond it the one not seen for longest makes room, and when all
    /// are in sight new ones get no id. The time of an update grows with it, at worst with its square.
    pub max_objects: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            lost: Duration::from_secs(3),
            interruption: Duration::from_secs(15),
            coast: Duration::from_millis(300),
            horizon: Duration::from_secs(1),
            doubtful: Duration::from_millis(500),
            centre_error: 0.06,
            extent_error: 0.1,
            speed: 3.0,
            agility: 1.5,
            growth: 0.5,
            growth_agility: 0.3,
            reach: 2.0,
            max_objects: 256,
        }
    }
}

/// Follows the objects of one video. Ids count up from 1 and are never given twice.
///
/// # Classes
///
/// A detection continues an object of its own class. Only when there is none for it, and an object of another class that
/// has no detection lies where it does (overlap of 0.3 or more), it is that object: models mistake the class for a frame.
/// Detections keep the class that the model gave them; the object takes it over after three such results in a row.
#[derive(Debug, Clone)]
pub struct Tracker {
    config: Config,
    noise: Noise,
    objects: Vec<Object>,
    /// Of the last update: its time, and width and height of its picture.
    last: Option<(MediaTime, [u32; 2])>,
    next_id: u64,
    /// Of the detections at hand: centre and size, and which of them are looked at.
    measured: Vec<Measured>,
    order: Vec<usize>,
    considered: Vec<bool>,
    associator: Associator,
}

/// One thing that is followed.
#[derive(Debug, Clone)]
struct Object {
    id: u64,
    class: Class,
    /// Results in a row that said another class.
    contradicted: u32,
    /// Of the last sure detection.
    score: f32,
    /// Of the last sure detection, too; 0..1 is from one side of its box to the other.
    points: Vec<Keypoint>,
    /// At the time of the last update.
    motion: Motion,
    /// Seconds from the last detection, and from the last sure one, to the last update.
    unseen: f64,
    unsure: f64,
    /// Sure detections.
    sightings: u32,
}

impl Object {
    /// Whether it was found more than once: a false alarm seldom is.
    fn is_confirmed(&self) -> bool {
        self.sightings > 1
    }

    /// Where its points are when its box is there: they move and grow with it.
    fn points_in(&self, [x1, y1, x2, y2]: [f64; 4]) -> Vec<Keypoint> {
        #[expect(clippy::cast_possible_truncation, reason = "points have the precision of pixels")]
        let place = |from: f64, to: f64, part: f32| (from + (to - from) * f64::from(part)) as f32;
        let moved = |point: &Keypoint| {
            let [x, y] = point.at;
            Keypoint { at: [place(x1, x2, x), place(y1, y2, y)], score: point.score }
        };
        self.points.iter().map(moved).collect()
    }
}

/// How a time lies to that of the last update.
enum Step {
    /// Seconds after it, 0 included.
    Forward(f64),
    /// Seconds before it, as a negative number.
    Late(f64),
    /// It has nothing to do with it.
    Restart,
}

impl Tracker {
    /// A tracker that knows no object.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let noise = Noise {
            centre: config.centre_error,
            extent: config.extent_error,
            speed: config.speed,
            growth: config.growth,
            agility: config.agility,
            growth_agility: config.growth_agility,
        };
        Self {
            config,
            noise,
            objects: Vec::new(),
            last: None,
            next_id: 1,
            measured: Vec::new(),
            order: Vec::new(),
            considered: Vec::new(),
            associator: Associator::default(),
        }
    }

    /// The lowest score that is of use to the tracker when `score_threshold` is what is reported: ask the model for
    /// detections from here on.
    #[must_use]
    pub fn low_threshold(score_threshold: f32) -> f32 {
        (LOW_SHARE * score_threshold).max(LOWEST_SCORE).min(score_threshold)
    }

    /// Forgets all objects; ids go on.
    pub fn reset(&mut self) {
        self.objects.clear();
        self.last = None;
    }

    /// Takes what the model found in the frame of `time`, whose upright picture has `size` (width, height) in pixels.
    ///
    /// Detections under `score_threshold` only help to keep objects, and are removed; so are those whose box is not
    /// finite or has nothing in the picture. The others keep their order and get an `object_id`, from the first one on;
    /// none only if there are more than [`Config::max_objects`] in sight, more than 512 at once, or if they are
    /// late. A picture without pixels is as none.
    ///
    /// A time before the last update's, by one second at most, is that of a late result: its detections get the ids of
    /// known objects, and change nothing. A time farther back begins a new stream, with no objects. A picture of another
    /// size is taken for the same view at another scale.
    pub fn update(&mut self, time: MediaTime, size: [u32; 2], score_threshold: f32, detections: &mut Vec<Detection>) {
        if size.contains(&0) {
            detections.clear();
            return;
        }
        let low = Self::low_threshold(score_threshold);
        detections.retain(|found| found.score >= low && clip(found.bbox, size).is_some());
        detections.iter_mut().for_each(|found| found.object_id = None);
        self.measure(size, detections);
        match self.step(time) {
            Step::Forward(seconds) => {
                let seconds = self.counted(seconds);
                self.rescale(size);
                self.advance(seconds);
                self.associate(seconds, score_threshold, detections);
                self.correct(score_threshold, detections);
                self.begin(score_threshold, detections);
                self.forget(size);
                self.last = Some((time, size));
            }
            Step::Late(seconds) => {
                let (last, motions): (_, Vec<_>) =
                    (self.last, self.objects.iter().map(|object| object.motion).collect());
                self.rescale(size);
                self.objects.iter_mut().for_each(|object| object.motion.advance(seconds, &self.noise));
                self.associate(0.0, score_threshold, detections);
                for (found, object) in detections.iter_mut().zip(self.associator.object_of()) {
                    found.object_id = object.map(|index| self.objects[index].id);
                }
                // Nothing was learnt from it.
                self.last = last;
                self.objects.iter_mut().zip(motions).for_each(|(object, motion)| object.motion = motion);
            }
            Step::Restart => {
                self.objects.clear();
                self.associator.begin(0, detections.len());
                self.begin(score_threshold, detections);
                self.last = Some((time, size));
            }
        }
        detections.retain(|found| found.score >= score_threshold);
    }

    /// Where the objects are at `time`, which may lie after the last update or a little before it: boxes in pixels of a
    /// picture of `size` (width, height) and clipped to it, each with its object's id, class and last sure score, best score
    /// first. Keypoints are those of the last sure detection, moved with the box and made larger or smaller as it was.
    /// Cleared and written into `out`.
    ///
    /// Objects that the last update found are shown for [`Config::horizon`] from then on. Those that it didn't find are
    /// shown while their last detection is no older than [`Config::coast`], if they were found more than once. With
    /// unsure detections alone an object is shown for [`Config::horizon`] after the last sure one. Nothing is shown for a
    /// time more than [`Config::horizon`] before the last update.
    pub fn predict(&self, time: MediaTime, size: [u32; 2], out: &mut Vec<Detection>) {
        out.clear();
        let Some((last, before)) = self.last else { return };
        let by = [0, 1].map(|side| f64::from(size[side]) / f64::from(before[side]));
        let seconds = seconds_between(last, time);
        let (coast, horizon) = (self.config.coast.as_secs_f64(), self.config.horizon.as_secs_f64());
        if seconds.abs() > horizon {
            return;
        }
        for object in &self.objects {
            let coasts = object.is_confirmed() && object.unseen + seconds <= coast;
            if (object.unseen > 0.0 && !coasts) || object.unsure + seconds > horizon {
                continue;
            }
            let [x1, y1, x2, y2] = corners(object.motion.after(seconds));
            let corners = [x1 * by[0], y1 * by[1], x2 * by[0], y2 * by[1]];
            #[expect(clippy::cast_possible_truncation, reason = "detections have the precision of pixels")]
            let Some(bbox) = clip(corners.map(|corner| corner as f32), size) else { continue };
            out.push(Detection {
                bbox,
                class: object.class.clone(),
                score: object.score,
                object_id: Some(object.id),
                keypoints: object.points_in(corners),
            });
        }
        out.sort_unstable_by(|a, b| b.score.total_cmp(&a.score).then(a.object_id.cmp(&b.object_id)));
    }

    fn step(&self, time: MediaTime) -> Step {
        let Some((last, _)) = self.last else { return Step::Restart };
        let seconds = seconds_between(last, time);
        if seconds >= 0.0 {
            Step::Forward(seconds)
        } else if seconds >= -LATE.as_secs_f64() {
            Step::Late(seconds)
        } else {
            Step::Restart
        }
    }

    /// What a step counts: all of it, unless the video was interrupted and went on.
    fn counted(&self, seconds: f64) -> f64 {
        let [lost, longest] = [self.config.lost, self.config.interruption].map(|limit| limit.as_secs_f64());
        if seconds > lost && seconds <= longest { INTERRUPTED.as_secs_f64().min(lost) } else { seconds }
    }

    /// Notes centre and size of what shows of the detections, and which are looked at.
    fn measure(&mut self, size: [u32; 2], detections: &[Detection]) {
        self.measured.clear();
        self.measured.extend(detections.iter().map(|found| {
            let [x1, y1, x2, y2] = clip(found.bbox, size).unwrap_or(found.bbox).map(f64::from);
            [f64::midpoint(x1, x2), f64::midpoint(y1, y2), x2 - x1, y2 - y1]
        }));
        self.considered.clear();
        self.considered.resize(detections.len(), detections.len() <= MAX_DETECTIONS);
        if detections.len() > MAX_DETECTIONS {
            self.order.clear();
            self.order.extend(0..detections.len());
            self.order.sort_unstable_by(|&a, &b| detections[b].score.total_cmp(&detections[a].score).then(a.cmp(&b)));
            self.order[..MAX_DETECTIONS].iter().for_each(|&index| self.considered[index] = true);
        }
    }

    fn rescale(&mut self, size: [u32; 2]) {
        let Some((_, before)) = &mut self.last else { return };
        if *before != size {
            let by = [0, 1].map(|side| f64::from(size[side]) / f64::from(before[side]));
            self.objects.iter_mut().for_each(|object| object.motion.rescale(by));
            *before = size;
        }
    }

    fn advance(&mut self, seconds: f64) {
        let [lost, coast] = [self.config.lost, self.config.coast].map(|limit| limit.as_secs_f64());
        for object in &mut self.objects {
            if object.unseen > 0.0 && object.unseen + seconds > coast {
                object.motion.cruise();
            }
            object.unseen += seconds;
            object.unsure += seconds;
        }
        self.objects.retain(|object| object.unseen <= lost);
        self.objects.iter_mut().for_each(|object| object.motion.advance(seconds, &self.noise));
    }

    /// Pairs detections with objects, whose motion is at the detections' time, `seconds` after the last update.
    fn associate(&mut self, seconds: f64, score_threshold: f32, detections: &[Detection]) {
        let Self { associator, objects, measured, noise, config, considered, .. } = self;
        let is_sure = |found: usize| considered[found] && detections[found].score >= score_threshold;
        let is_unsure = |found: usize| considered[found] && detections[found].score < score_threshold;
        let same_class = |object: usize, found: usize| objects[object].class == detections[found].class;
        let coast = config.coast.as_secs_f64();
        let in_sight = |object: usize| objects[object].unseen - seconds <= coast;
        let near = |object: usize, found: usize| is_near(&objects[object].motion, &measured[found], config.reach);
        let gain = |object: usize, found: usize, most: f64| {
            let distance = objects[object].motion.distance(measured[found], noise);
            most - distance.squared - distance.room
        };
        associator.begin(objects.len(), detections.len());
        associator.pair(
            |_| true,
            is_sure,
            |object, found| {
                let most = if in_sight(object) { MAX_COST } else { MAX_COST_LOST };
                if near(object, found) && same_class(object, found) { gain(object, found, most) } else { 0.0 }
            },
        );
        associator.pair(in_sight, is_sure, |object, found| {
            let [there, here] = [objects[object].motion.after(0.0), measured[found]].map(corners);
            let same_place = near(object, found) && overlap(there, here) >= SAME_PLACE;
            if same_place { gain(object, found, MAX_COST) } else { 0.0 }
        });
        associator.pair(
            |object| objects[object].is_confirmed() && in_sight(object),
            is_unsure,
            |object, found| {
                let fits = near(object, found) && same_class(object, found);
                if fits { gain(object, found, MAX_COST_UNSURE) } else { 0.0 }
            },
        );
    }

    /// Brings the objects that were found to where they were found.
    fn correct(&mut self, score_threshold: f32, detections: &mut [Detection]) {
        let mut found_ones = 0;
        for (index, found) in detections.iter_mut().enumerate() {
            let Some(object) = self.associator.object_of()[index] else { continue };
            let object = &mut self.objects[object];
            found_ones += 1;
            found.object_id = Some(object.id);
            object.motion.correct(self.measured[index], object.unseen, &self.noise);
            object.unseen = 0.0;
            if found.score >= score_threshold {
                object.unsure = 0.0;
                object.score = found.score;
                object.points.clear();
                object.points.extend(within(self.measured[index], &found.keypoints));
                object.sightings = object.sightings.saturating_add(1);
            }
            object.contradicted = if object.class == found.class { 0 } else { object.contradicted + 1 };
            if object.contradicted >= CLASS_CHANGE {
                object.class = found.class.clone();
                object.contradicted = 0;
            }
        }
        if found_ones < self.objects.len() {
            self.objects
                .iter_mut()
                .filter(|object| object.unseen > 0.0)
                .for_each(|object| object.motion.stop_growing());
        }
    }

    /// Makes objects of the sure detections that are none of those known.
    fn begin(&mut self, score_threshold: f32, detections: &mut [Detection]) {
        for (index, found) in detections.iter_mut().enumerate() {
            let is_known = self.associator.object_of()[index].is_some();
            if is_known || !self.considered[index] || found.score < score_threshold || !self.has_room() {
                continue;
            }
            found.object_id = Some(self.next_id);
            self.objects.push(Object {
                id: self.next_id,
                class: found.class.clone(),
                contradicted: 0,
                score: found.score,
                points: within(self.measured[index], &found.keypoints).collect(),
                motion: Motion::new(self.measured[index], &self.noise),
                unseen: 0.0,
                unsure: 0.0,
                sightings: 1,
            });
            self.next_id += 1;
        }
    }

    /// Makes room for one more object, if need be in place of the one that wasn't seen for longest.
    fn has_room(&mut self) -> bool {
        if self.objects.len() < self.config.max_objects.max(1) {
            return true;
        }
        let unseen = |index: &usize| self.objects[*index].unseen;
        let longest = (0..self.objects.len()).max_by(|a, b| unseen(a).total_cmp(&unseen(b)));
        let Some(longest) = longest.filter(|index| unseen(index) > 0.0) else { return false };
        self.objects.swap_remove(longest);
        true
    }

    /// Drops objects that were not found and are not to be waited for: those found only once, those that went out of the
    /// picture, and those hardly ever found that lie where another one is, which the model took that one for.
    fn forget(&mut self, [width, height]: [u32; 2]) {
        let doubtful = self.config.doubtful.as_secs_f64();
        for index in (0..self.objects.len()).rev() {
            let Object { unseen, sightings, ref motion, .. } = self.objects[index];
            if unseen <= 0.0 {
                continue;
            }
            let [x, y, ..] = motion.after(0.0);
            let inside = (0.0..=f64::from(width)).contains(&x) && (0.0..=f64::from(height)).contains(&y);
            let there = corners(motion.after(0.0));
            let hides =
                |other: &Object| other.unseen <= 0.0 && overlap(there, corners(other.motion.after(0.0))) >= SAME_PLACE;
            if !inside
                || (sightings <= 1 && unseen > doubtful)
                || (sightings <= HARDLY_SEEN && self.objects.iter().any(hides))
            {
                self.objects.swap_remove(index);
            }
        }
    }
}

/// Whether a detection can be an object at all: a cheap test before the exact one.
fn is_near(motion: &Motion, measured: &Measured, reach: f64) -> bool {
    let [x, y, width, height] = motion.after(0.0);
    let (area, other) = (width * height, measured[2] * measured[3]);
    let (off_x, off_y) = (measured[0] - x, measured[1] - y);
    let far = off_x * off_x + off_y * off_y > reach * reach * area.max(other);
    !far && area.max(other) <= MAX_SIZE_RATIO * MAX_SIZE_RATIO * area.min(other)
}

/// Points in parts of this box.
fn within(measured: Measured, points: &[Keypoint]) -> impl Iterator<Item = Keypoint> {
    let [x1, y1, ..] = corners(measured);
    let [.., width, height] = measured;
    #[expect(clippy::cast_possible_truncation, reason = "points have the precision of pixels")]
    let part = |at: f32, from: f64, length: f64| ((f64::from(at) - from) / length) as f32;
    points.iter().map(move |point| {
        let [x, y] = point.at;
        Keypoint { at: [part(x, x1, width), part(y, y1, height)], score: point.score }
    })
}

/// The corners `[x1, y1, x2, y2]` of a box.
fn corners([x, y, width, height]: Measured) -> [f64; 4] {
    [x - width / 2.0, y - height / 2.0, x + width / 2.0, y + height / 2.0]
}

/// Seconds from one time to another, negative if that is the earlier one.
fn seconds_between(from: MediaTime, to: MediaTime) -> f64 {
    if to.is_newer_than(from) { to.since(from).as_secs_f64() } else { -from.since(to).as_secs_f64() }
}

/// The part of a box that lies in a picture of this size; none if the box is not finite or nothing of it does.
fn clip([x1, y1, x2, y2]: [f32; 4], [width, height]: [u32; 2]) -> Option<[f32; 4]> {
    let within = |from: f32, to: f32, side: u32| {
        let side = side as f32;
        (from.is_finite() && to.is_finite()).then(|| (from.clamp(0.0, side), to.clamp(0.0, side)))
    };
    let ((x1, x2), (y1, y2)) = (within(x1, x2, width)?, within(y1, y2, height)?);
    (x1 < x2 && y1 < y2).then_some([x1, y1, x2, y2])
}

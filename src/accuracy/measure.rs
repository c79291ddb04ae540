use std::iter::Sum;

use super::{Found, Object, Picture, Sizes};
use crate::media::{self, area, common_area};

/// Detections of one class in one picture that count; the surest ones if there are more.
const MAX_FOUND: usize = 100;
/// IoU thresholds 0.50, 0.55 … 0.95.
const THRESHOLDS: usize = 10;
/// Recalls 0.00, 0.01 … 1.00 at which precision is read.
const RECALLS: usize = 101;

/// Average precision and recall of each class, for each range of sizes.
#[derive(Debug, Clone, PartialEq)]
pub struct Measures {
    /// By class, then by range of sizes.
    cells: Vec<Vec<Cell>>,
}

/// Figures of one class and one range of sizes.
#[derive(Debug, Clone, PartialEq)]
struct Cell {
    /// Objects that should be found.
    objects: usize,
    /// By IoU threshold: average precision and highest recall; none without objects.
    at: Option<[(f64, f64); THRESHOLDS]>,
}

/// Detections of one class from some score on, against its objects, at IoU 0.5.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Objects that should be found; crowds are left out.
    pub objects: usize,
    /// Objects that were found.
    pub hits: usize,
    /// Detections that are no object, or one that was found already.
    pub false_alarms: usize,
}

impl Measures {
    /// Compares detections with the truth. Classes are `0..classes`; what has another class is left out.
    #[must_use]
    pub fn new(pictures: &[Picture], classes: usize, sizes: &[Sizes]) -> Self {
        let of_class = |class| {
            let sorted: Vec<_> = pictures.iter().map(|picture| Sorted::new(picture, class, 0.0)).collect();
            sizes.iter().map(|sizes| Cell::new(&sorted, sizes)).collect()
        };
        Self { cells: (0..classes).map(of_class).collect() }
    }

    /// Objects in a range of sizes, of one class or of all.
    #[must_use]
    pub fn objects(&self, class: Option<usize>, sizes: usize) -> usize {
        self.cells(class, sizes).map(|cell| cell.objects).sum()
    }

    /// Average precision at IoU 0.50, of one class or the mean over classes; `sizes` is the index of the range. None
    /// without objects.
    #[must_use]
    pub fn ap50(&self, class: Option<usize>, sizes: usize) -> Option<f64> {
        self.mean(class, sizes, |at| at[0].0)
    }

    /// Average precision at IoU 0.75.
    #[must_use]
    pub fn ap75(&self, class: Option<usize>, sizes: usize) -> Option<f64> {
        self.mean(class, sizes, |at| at[5].0)
    }

    /// Average precision, mean over IoU 0.50 to 0.95.
    #[must_use]
    pub fn ap(&self, class: Option<usize>, sizes: usize) -> Option<f64> {
        self.mean(class, sizes, |at| at.iter().map(|(precision, _)| precision).sum::<f64>() / THRESHOLDS as f64)
    }

    /// Recall with at most 100 detections a picture and class, mean over IoU 0.50 to 0.95.
    #[must_use]
    pub fn recall(&self, class: Option<usize>, sizes: usize) -> Option<f64> {
        self.mean(class, sizes, |at| at.iter().map(|(_, recall)| recall).sum::<f64>() / THRESHOLDS as f64)
    }

    fn cells(&self, class: Option<usize>, sizes: usize) -> impl Iterator<Item = &Cell> {
        let wanted = move |index: usize| class.is_none_or(|class| class == index);
        self.cells
            .iter()
            .enumerate()
            .filter(move |(index, _)| wanted(*index))
            .filter_map(move |(_, row)| row.get(sizes))
    }

    /// Mean over the classes that have objects.
    fn mean(
        &self,
        class: Option<usize>,
        sizes: usize,
        figure: impl Fn(&[(f64, f64); THRESHOLDS]) -> f64,
    ) -> Option<f64> {
        let figures: Vec<_> = self.cells(class, sizes).filter_map(|cell| cell.at.as_ref()).map(figure).collect();
        (!figures.is_empty()).then(|| figures.iter().sum::<f64>() / figures.len() as f64)
    }
}

impl Counts {
    /// Counts by class what detections of at least `score` hit and miss.
    #[must_use]
    pub fn at(pictures: &[Picture], classes: usize, score: f64) -> Vec<Self> {
        let of_class = |class| {
            let mut counts = Self::default();
            for picture in pictures {
                let sorted = Sorted::new(picture, class, score);
                let matched = sorted.matches(&Sizes::COCO[0], threshold(0));
                counts.objects += sorted.objects.iter().filter(|object| !object.crowd).count();
                for outcome in matched {
                    match outcome {
                        Outcome::Hit => counts.hits += 1,
                        Outcome::False => counts.false_alarms += 1,
                        Outcome::Ignored => {}
                    }
                }
            }
            counts
        };
        (0..classes).map(of_class).collect()
    }

    /// Share of the detections that are right; none without detections.
    #[must_use]
    pub fn precision(&self) -> Option<f64> {
        let found = self.hits + self.false_alarms;
        (found > 0).then(|| self.hits as f64 / found as f64)
    }

    /// Share of the objects that were found; none without objects.
    #[must_use]
    pub fn recall(&self) -> Option<f64> {
        (self.objects > 0).then(|| self.hits as f64 / self.objects as f64)
    }

    /// Harmonic mean of precision and recall.
    #[must_use]
    pub fn f1(&self) -> Option<f64> {
        let all = 2 * self.hits + self.false_alarms + self.objects - self.hits;
        (all > 0).then(|| 2.0 * self.hits as f64 / all as f64)
    }
}

impl Sum for Counts {
    fn sum<I: Iterator<Item = Self>>(counts: I) -> Self {
        counts.fold(Self::default(), |all, one| Self {
            objects: all.objects + one.objects,
            hits: all.hits + one.hits,
            false_alarms: all.false_alarms + one.false_alarms,
        })
    }
}

impl Cell {
    fn new(pictures: &[Sorted<'_>], sizes: &Sizes) -> Self {
        let holds = |picture: &Sorted<'_>, object: &Object| !object.crowd && sizes.hold(object.area, picture.scale);
        let count = |picture: &Sorted<'_>| picture.objects.iter().filter(|object| holds(picture, object)).count();
        let objects = pictures.iter().map(count).sum();
        let at = |step| {
            let mut outcomes = Vec::new();
            for picture in pictures {
                let matched = picture.matches(sizes, threshold(step));
                outcomes.extend(picture.found.iter().map(|found| found.score).zip(matched));
            }
            precision_and_recall(outcomes, objects)
        };
        Self { objects, at: (objects > 0).then(|| std::array::from_fn(at)) }
    }
}

/// The `step`-th IoU threshold, made as numpy's `linspace(0.5, 0.95, 10)` makes it.
fn threshold(step: usize) -> f64 {
    if step + 1 == THRESHOLDS { 0.95 } else { 0.5 + step as f64 * ((0.95 - 0.5) / (THRESHOLDS - 1) as f64) }
}

/// What a detection turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Hit,
    False,
    /// Neither: it lies in a crowd, or is of a size that is not asked for.
    Ignored,
}

/// One class in one picture.
struct Sorted<'a> {
    objects: Vec<&'a Object>,
    /// Surest first.
    found: Vec<&'a Found>,
    /// IoU of each detection with each object.
    overlaps: Vec<Vec<f64>>,
    scale: f64,
}

impl<'a> Sorted<'a> {
    fn new(picture: &'a Picture, class: usize, score: f64) -> Self {
        let objects: Vec<_> = picture.objects.iter().filter(|object| object.class == class).collect();
        let sure = |found: &&Found| found.class == class && found.score >= score;
        let mut found: Vec<_> = picture.found.iter().filter(sure).collect();
        found.sort_by(|a, b| b.score.total_cmp(&a.score));
        found.truncate(MAX_FOUND);
        let row = |found: &&Found| objects.iter().map(|object| overlap(found, object)).collect();
        let overlaps = found.iter().map(row).collect();
        Self { objects, found, overlaps, scale: picture.scale }
    }

    /// Gives each detection, the surest first, the free object that it overlaps most; objects that are not asked for
    /// only when there is no other. A crowd takes any number.
    fn matches(&self, sizes: &Sizes, threshold: f64) -> Vec<Outcome> {
        let ignored: Vec<_> =
            self.objects.iter().map(|object| object.crowd || !sizes.hold(object.area, self.scale)).collect();
        let mut order: Vec<_> = (0..self.objects.len()).collect();
        order.sort_by_key(|object| ignored[*object]);
        let mut taken = vec![false; self.objects.len()];
        let mut outcome = |(found, overlaps): (&&Found, &Vec<f64>)| {
            let (mut best, mut most) = (None, threshold.min(1.0 - 1e-10));
            for &object in &order {
                if taken[object] && !self.objects[object].crowd {
                    continue;
                }
                if best.is_some_and(|best: usize| !ignored[best]) && ignored[object] {
                    break;
                }
                if overlaps[object] >= most {
                    (best, most) = (Some(object), overlaps[object]);
                }
            }
            match best {
                Some(object) => {
                    taken[object] = true;
                    if ignored[object] { Outcome::Ignored } else { Outcome::Hit }
                }
                None if sizes.hold(area(found.bbox), self.scale) => Outcome::False,
                None => Outcome::Ignored,
            }
        };
        self.found.iter().zip(&self.overlaps).map(&mut outcome).collect()
    }
}

/// Intersection over union; with a crowd, the share of the detection that lies in it.
fn overlap(found: &Found, object: &Object) -> f64 {
    if !object.crowd {
        return media::overlap(found.bbox, object.bbox);
    }
    let whole = area(found.bbox);
    if whole > 0.0 { common_area(found.bbox, object.bbox) / whole } else { 0.0 }
}

/// Precision, made falling and read at 101 recalls, and the highest recall.
fn precision_and_recall(mut outcomes: Vec<(f64, Outcome)>, objects: usize) -> (f64, f64) {
    outcomes.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    let (mut hits, mut counted) = (0usize, 0usize);
    // Recall and precision behind each detection.
    let mut curve: Vec<(f64, f64)> = Vec::with_capacity(outcomes.len());
    for (_, outcome) in outcomes {
        counted += usize::from(outcome != Outcome::Ignored);
        hits += usize::from(outcome == Outcome::Hit);
        let precision = hits as f64 / counted.max(1) as f64;
        curve.push((hits as f64 / objects as f64, precision));
    }
    for n in (1..curve.len()).rev() {
        curve[n - 1].1 = curve[n - 1].1.max(curve[n].1);
    }
    let at = |step: usize| {
        let wanted = if step + 1 == RECALLS { 1.0 } else { step as f64 * 0.01 };
        let first = curve.partition_point(|(recall, _)| *recall < wanted);
        curve.get(first).map_or(0.0, |(_, precision)| *precision)
    };
    let precision = (0..RECALLS).map(at).sum::<f64>() / RECALLS as f64;
    (precision, curve.last().map_or(0.0, |(recall, _)| *recall))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    fn object(x: f64, class: usize) -> Object {
        Object { bbox: [x, 0.0, x + 10.0, 10.0], class, area: 100.0, crowd: false }
    }

    fn found(x: f64, class: usize, score: f64) -> Found {
        Found { bbox: [x, 0.0, x + 10.0, 10.0], class, score }
    }

    fn picture(objects: Vec<Object>, found: Vec<Found>) -> Picture {
        Picture { objects, found, scale: 1.0 }
    }

    #[test]
    fn what_is_found_exactly_has_an_average_precision_of_one() {
        let pictures = [picture(vec![object(0.0, 0), object(50.0, 1)], vec![found(0.0, 0, 0.9), found(50.0, 1, 0.2)])];
        let measures = Measures::new(&pictures, 3, &Sizes::COCO);
        for class in [None, Some(0), Some(1)] {
            assert_eq!((measures.ap(class, 0), measures.recall(class, 0)), (Some(1.0), Some(1.0)));
        }
        assert_eq!((measures.ap(Some(2), 0), measures.ap(None, 3)), (None, None), "no such objects, no figure");
        assert_eq!(measures.objects(None, 1), 2);
    }

    #[test]
    fn a_surer_false_alarm_costs_precision_at_every_recall_and_a_weaker_one_nothing() {
        let with = |score| {
            let pictures = [picture(vec![object(0.0, 0)], vec![found(0.0, 0, 0.5), found(80.0, 0, score)])];
            Measures::new(&pictures, 1, &Sizes::COCO).ap50(None, 0).unwrap()
        };
        assert_eq!((with(0.9), with(0.1)), (0.5, 1.0));
    }

    #[test]
    fn an_object_found_twice_is_one_hit_and_one_false_alarm() {
        let pictures = [picture(vec![object(0.0, 0), object(30.0, 0)], vec![found(0.0, 0, 0.9), found(1.0, 0, 0.8)])];
        let counts = Counts::at(&pictures, 1, 0.5)[0];
        assert_eq!(counts, Counts { objects: 2, hits: 1, false_alarms: 1 });
        assert_eq!((counts.precision(), counts.recall(), counts.f1()), (Some(0.5), Some(0.5), Some(0.5)));
        assert_eq!(Counts::at(&pictures, 1, 0.85)[0].false_alarms, 0, "weaker ones are not counted");
        assert_eq!(Counts::at(&pictures, 1, 0.95)[0].precision(), None);
    }

    #[test]
    fn detections_in_a_crowd_are_neither_right_nor_wrong() {
        let crowd = Object { bbox: [0.0, 0.0, 100.0, 100.0], class: 0, area: 1e4, crowd: true };
        let pictures = [picture(vec![crowd], vec![found(5.0, 0, 0.9), found(40.0, 0, 0.8)])];
        assert_eq!(Counts::at(&pictures, 1, 0.5)[0], Counts::default());
        assert_eq!(Measures::new(&pictures, 1, &Sizes::COCO).ap(None, 0), None);
    }

    #[test]
    fn sizes_at_the_input_follow_the_scale_of_the_picture() {
        let mut near = picture(vec![object(0.0, 0)], vec![found(0.0, 0, 0.9)]);
        near.scale = 3.0;
        let far = picture(vec![object(0.0, 0)], vec![]);
        let measures = Measures::new(&[near, far], 1, &Sizes::at_input(24.0));
        assert_eq!((measures.ap(None, 0), measures.ap(None, 1)), (Some(0.0), Some(1.0)));
    }
}

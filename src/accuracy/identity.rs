use std::collections::HashMap;

use crate::assignment::Solver;
use crate::media::overlap;

/// An object in one frame of a video, true or found, and which one it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sighting {
    /// Who it is: the same in all frames, and once in a frame at most.
    pub id: u64,
    /// Corners `[x1, y1, x2, y2]` in pixels.
    pub bbox: [f64; 4],
}

/// Compares objects found in a video with the true ones, frame by frame, and counts what [`Identity`] is made of.
///
/// Classes are not looked at: compare one class at a time, or all as one. Memory grows with the number of ids and
/// of pairs of them that ever overlapped, not with the length of the video; [`Identities::identity`] takes more for as
/// long as it runs.
#[derive(Debug, Clone)]
pub struct Identities {
    least_overlap: f64,
    truths: Index,
    finds: Index,
    /// Frames in which a true object and a found one overlapped enough, by their numbers.
    together: HashMap<(usize, usize), u64>,
    /// By number of the true object: the found one that it was last matched with.
    last: Vec<Option<usize>>,
    counts: Identity,
    gains: Vec<f64>,
    solver: Solver,
}

/// How well objects keep their identity: the counts behind IDF1 (Ristani et al. 2016, "Performance Measures and a Data
/// Set for Multi-Target, Multi-Camera Tracking") and behind MOTA (Bernardin and Stiefelhagen 2008, "Evaluating Multiple
/// Object Tracking Performance: The CLEAR MOT Metrics").
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Identity {
    /// True boxes, over all frames.
    pub objects: u64,
    /// Found boxes, over all frames.
    pub found: u64,
    /// Found boxes at an object's place under the id that stands for it: over the whole video, each found id stands for
    /// one object at most and each object has one at most, so that this count is the highest possible.
    pub same: u64,
    /// True boxes matched with a found one, whatever its id.
    pub hits: u64,
    /// Times that an object was matched under another id than the last time.
    pub switches: u64,
}

impl Default for Identities {
    fn default() -> Self {
        Self::new(0.5)
    }
}

impl Identities {
    /// Boxes are at the same place from an intersection over union of `least_overlap` on; 0.5 is usual.
    #[must_use]
    pub fn new(least_overlap: f64) -> Self {
        Self {
            least_overlap,
            truths: Index::default(),
            finds: Index::default(),
            together: HashMap::new(),
            last: Vec::new(),
            counts: Identity::default(),
            gains: Vec::new(),
            solver: Solver::default(),
        }
    }

    /// Takes the next frame in.
    pub fn add(&mut self, truth: &[Sighting], found: &[Sighting]) {
        self.counts.objects += truth.len() as u64;
        self.counts.found += found.len() as u64;
        let truths: Vec<_> = truth.iter().map(|object| self.truths.number(object.id)).collect();
        let finds: Vec<_> = found.iter().map(|one| self.finds.number(one.id)).collect();
        self.last.resize(self.truths.0.len(), None);
        self.gains.clear();
        for (object, &truth) in truth.iter().zip(&truths) {
            for (one, &find) in found.iter().zip(&finds) {
                let overlap = overlap(object.bbox, one.bbox);
                let near = overlap >= self.least_overlap && overlap > 0.0;
                if near {
                    *self.together.entry((truth, find)).or_default() += 1;
                }
                // A pair of the frames before goes on while it can, whatever else is near (CLEAR MOT).
                let goes_on = if self.last[truth] == Some(find) { found.len() as f64 + 1.0 } else { 0.0 };
                self.gains.push(if near { goes_on + overlap } else { 0.0 });
            }
        }
        for (&truth, mate) in truths.iter().zip(self.solver.solve(found.len(), &self.gains)) {
            let Some(find) = mate.map(|column| finds[column]) else { continue };
            self.counts.hits += 1;
            self.counts.switches += u64::from(self.last[truth].is_some_and(|last| last != find));
            self.last[truth] = Some(find);
        }
    }

    /// The figures of all frames up to now. It lays out a table of all true ids by all found ones, eight bytes a pair:
    /// a thousand of each take 8 MB.
    #[must_use]
    pub fn identity(&self) -> Identity {
        let (rows, columns) = (self.truths.0.len(), self.finds.0.len());
        let mut gains = vec![0.0; rows * columns];
        for (&(truth, find), &frames) in &self.together {
            gains[truth * columns + find] = frames as f64;
        }
        let mut solver = Solver::default();
        let pairs = solver.solve(columns, &gains).iter().enumerate();
        let frames = pairs.filter_map(|(truth, find)| self.together.get(&(truth, (*find)?)));
        Identity { same: frames.sum(), ..self.counts }
    }
}

impl Identity {
    /// IDF1: harmonic mean of [`Identity::precision`] and [`Identity::recall`]; none without any box.
    #[must_use]
    pub fn f1(&self) -> Option<f64> {
        share(2 * self.same, self.objects + self.found)
    }

    /// IDP: share of the found boxes that are at their object's place; none without a found box.
    #[must_use]
    pub fn precision(&self) -> Option<f64> {
        share(self.same, self.found)
    }

    /// IDR: share of the true boxes that are found under the object's id; none without a true box.
    #[must_use]
    pub fn recall(&self) -> Option<f64> {
        share(self.same, self.objects)
    }

    /// MOTA: 1 less misses, false alarms and switches for each true box; may be negative, and none without a true box.
    #[must_use]
    pub fn mota(&self) -> Option<f64> {
        let errors = (self.objects - self.hits) + (self.found - self.hits) + self.switches;
        share(errors, self.objects).map(|errors| 1.0 - errors)
    }
}

/// Consecutive numbers for ids, in the order in which they come.
#[derive(Debug, Clone, Default)]
struct Index(HashMap<u64, usize>);

impl Index {
    fn number(&mut self, id: u64) -> usize {
        let next = self.0.len();
        *self.0.entry(id).or_insert(next)
    }
}

fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A box of 10×10 pixels.
    fn at(id: u64, x: f64) -> Sighting {
        Sighting { id, bbox: [x, 0.0, x + 10.0, 10.0] }
    }

    fn identity(frames: &[(&[Sighting], &[Sighting])]) -> Identity {
        let mut identities = Identities::default();
        frames.iter().for_each(|(truth, found)| identities.add(truth, found));
        identities.identity()
    }

    fn near(figure: Option<f64>, wanted: f64) -> bool {
        figure.is_some_and(|figure| (figure - wanted).abs() < 1e-12)
    }

    #[test]
    fn what_is_followed_exactly_has_ones() {
        let frame: (&[_], &[_]) = (&[at(1, 0.0), at(2, 50.0)], &[at(7, 51.0), at(9, 1.0)]);
        let exact = identity(&[frame; 4]);
        assert_eq!(exact, Identity { objects: 8, found: 8, same: 8, hits: 8, switches: 0 });
        assert_eq!(
            (exact.f1(), exact.precision(), exact.recall(), exact.mota()),
            (Some(1.0), Some(1.0), Some(1.0), Some(1.0))
        );
    }

    #[test]
    fn an_id_that_breaks_off_counts_as_its_longer_part() {
        // Found as 7 for six frames and as 8 for four: 7 stands for the object.
        let truth = [at(1, 0.0)];
        let (seven, eight) = ([at(7, 0.0)], [at(8, 0.0)]);
        let mut frames: Vec<(&[_], &[_])> = vec![(&truth, &seven); 6];
        frames.extend([(&truth[..], &eight[..]); 4]);
        let broken = identity(&frames);
        assert_eq!(broken, Identity { objects: 10, found: 10, same: 6, hits: 10, switches: 1 });
        assert!(near(broken.f1(), 0.6) && near(broken.mota(), 0.9), "{broken:?}");
    }

    #[test]
    fn ids_that_are_exchanged_cost_both_objects() {
        // Three frames right, then two with exchanged ids.
        let truth = [at(1, 0.0), at(2, 50.0)];
        let (right, exchanged) = ([at(7, 0.0), at(8, 50.0)], [at(8, 0.0), at(7, 50.0)]);
        let mut frames: Vec<(&[_], &[_])> = vec![(&truth, &right); 3];
        frames.extend([(&truth[..], &exchanged[..]); 2]);
        let crossed = identity(&frames);
        assert_eq!(crossed, Identity { objects: 10, found: 10, same: 6, hits: 10, switches: 2 });
        assert!(near(crossed.precision(), 0.6) && near(crossed.mota(), 0.8), "{crossed:?}");
    }

    #[test]
    fn the_pairs_over_the_whole_video_are_the_best_ones_together() {
        // Truth 1: six frames as 7, five as 8. Truth 2: five as 7. 1 with 8 and 2 with 7 is 10; 1 with 7 alone would be 6.
        let (one, two) = ([at(1, 0.0)], [at(2, 0.0)]);
        let (seven, eight) = ([at(7, 0.0)], [at(8, 0.0)]);
        let mut frames: Vec<(&[_], &[_])> = vec![(&one, &seven); 6];
        frames.extend([(&one[..], &eight[..]); 5]);
        frames.extend([(&two[..], &seven[..]); 5]);
        assert_eq!(identity(&frames).same, 10);
    }

    #[test]
    fn misses_and_false_alarms_are_told_apart() {
        // Four frames: two found, one missed, one with a false alarm beside it; and one box that is too far off.
        let (truth, found) = ([at(1, 0.0)], [at(7, 0.0)]);
        let frames: [(&[_], &[_]); 5] = [
            (&truth, &found),
            (&truth, &found),
            (&truth, &[]),
            (&truth, &[at(7, 0.0), at(8, 90.0)]),
            (&truth, &[at(7, 4.0)]),
        ];
        let figures = identity(&frames);
        assert_eq!(figures, Identity { objects: 5, found: 5, same: 3, hits: 3, switches: 0 });
        assert!(near(figures.f1(), 0.6) && near(figures.recall(), 0.6) && near(figures.mota(), 0.2), "{figures:?}");
        assert_eq!((identity(&[]).f1(), identity(&[(&[], &found)]).mota()), (None, None));
    }

    #[test]
    fn a_pair_goes_on_although_another_is_nearer() {
        let truth = [at(1, 0.0)];
        let frames: [(&[_], &[_]); 2] = [(&truth, &[at(7, 0.0)]), (&truth, &[at(7, 3.0), at(8, 0.0)])];
        assert_eq!(identity(&frames).switches, 0);
        assert_eq!(identity(&frames).same, 2);
    }

    #[test]
    fn coming_back_under_another_id_is_a_switch_even_after_a_gap() {
        let truth = [at(1, 0.0)];
        let frames: [(&[_], &[_]); 3] = [(&truth, &[at(7, 0.0)]), (&truth, &[]), (&truth, &[at(8, 0.0)])];
        assert_eq!(identity(&frames).switches, 1);
    }
}

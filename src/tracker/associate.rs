//! Which detection is which object: the best pairs, once over.

use crate::assignment::Solver;

/// Pairs objects with detections; keeps its memory from one call to the next.
#[derive(Debug, Clone, Default)]
pub(super) struct Associator {
    /// Objects and detections that are not in a pair yet, by index.
    objects: Vec<usize>,
    detections: Vec<usize>,
    gains: Vec<f64>,
    solver: Solver,
    /// By detection: the object it is.
    object_of: Vec<Option<usize>>,
    /// By object: whether it has a detection.
    has_one: Vec<bool>,
}

impl Associator {
    /// Begins anew with this many objects and detections.
    pub(super) fn begin(&mut self, objects: usize, detections: usize) {
        self.has_one.clear();
        self.has_one.resize(objects, false);
        self.object_of.clear();
        self.object_of.resize(detections, None);
    }

    /// The object of each detection, none where it is not known.
    pub(super) fn object_of(&self) -> &[Option<usize>] {
        &self.object_of
    }

    /// Pairs those that are left of the named objects and detections so that the sum of what the pairs gain is the
    /// greatest; a gain that is not above zero makes no pair.
    pub(super) fn pair(
        &mut self,
        objects: impl Fn(usize) -> bool,
        detections: impl Fn(usize) -> bool,
        gain: impl Fn(usize, usize) -> f64,
    ) {
        let (has_one, object_of) = (&self.has_one, &self.object_of);
        self.objects.clear();
        self.objects.extend((0..has_one.len()).filter(|&index| !has_one[index] && objects(index)));
        self.detections.clear();
        self.detections.extend((0..object_of.len()).filter(|&index| object_of[index].is_none() && detections(index)));
        self.gains.clear();
        for &object in &self.objects {
            self.gains.extend(self.detections.iter().map(|&detection| gain(object, detection)));
        }
        let mates = self.solver.solve(self.detections.len(), &self.gains);
        for (&object, mate) in self.objects.iter().zip(mates) {
            if let Some(column) = *mate {
                self.has_one[object] = true;
                self.object_of[self.detections[column]] = Some(object);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_round_takes_what_earlier_ones_left() {
        let mut associator = Associator::default();
        associator.begin(3, 3);
        associator.pair(|object| object < 2, |_| true, |object, detection| if object == detection { 1.0 } else { 0.0 });
        assert_eq!(associator.object_of(), [Some(0), Some(1), None]);
        associator.pair(|_| true, |_| true, |_, _| 1.0);
        assert_eq!(associator.object_of(), [Some(0), Some(1), Some(2)]);
        associator.begin(1, 0);
        associator.pair(|_| true, |_| true, |_, _| 1.0);
        assert_eq!(associator.object_of(), []);
    }
}

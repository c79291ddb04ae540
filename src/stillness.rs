//! Whether a scene stands still, so that what was found in its last frame holds for the next one.
//!
//! A leaf, and pure: pictures and times go in, verdicts come out. A [`Signature`] is the mean luma of blocks; a frame whose
//! blocks all look as they did in the last frame that a model saw is taken for the same. What is smaller than a block and
//! moves within it, and what is as bright as what it hides, goes unnoticed: so that no result is used for long, and now and
//! then one is computed anyway, to be compared.

use std::time::{Duration, Instant};

/// Blocks across.
const COLUMNS: usize = 32;
/// Blocks down.
const ROWS: usize = 18;
/// Parts of a level that a block's mean is kept in.
const PARTS: u32 = 16;
/// A scene that moved counts as still again below this share of the threshold.
const SETTLED: f32 = 0.75;

/// When a scene counts as still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Levels of luma (of 256) by which the mean of any block may differ. A camera's noise is below 1; more lets slower
    /// changes pass.
    pub threshold: u8,
    /// How long one result may be used. More saves more and notices later what the signature does not see.
    pub max_reuse: Duration,
    /// Of so many frames that look the same, one is computed anyway and compared.
    pub check_every: u32,
}

/// The mean luma of the blocks of a picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    size: [u32; 2],
    means: Box<[u16]>,
}

/// What to do with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Have the model look at it: there is nothing to compare it with, or it differs.
    Changed,
    /// The same, since the last result is too old to be used.
    Aged,
    /// The same, to see whether the last result would have done.
    Check,
    /// Use the last result.
    Same,
}

/// Decides for the frames of one session, in their order.
#[derive(Debug)]
pub struct Gate {
    settings: Settings,
    seen: Option<(Signature, Instant)>,
    is_still: bool,
    same: u32,
}

impl Signature {
    /// Of a luma plane of `width` × `height` samples, row by row. Every second row counts.
    #[must_use]
    pub fn of(luma: &[u8], width: u32, height: u32) -> Self {
        let (columns, rows) = (width as usize, height as usize);
        let mut means = vec![0; COLUMNS * ROWS].into_boxed_slice();
        if columns == 0 || luma.len() < columns * rows {
            return Self { size: [width, height], means };
        }
        let edge = |block: usize, blocks: usize, samples: usize| block * samples / blocks;
        for (row, of_row) in means.chunks_exact_mut(COLUMNS).enumerate() {
            let lines = edge(row, ROWS, rows)..edge(row + 1, ROWS, rows).max(edge(row, ROWS, rows) + 1).min(rows);
            let mut sums = [0_u32; COLUMNS];
            let mut counted = 0;
            for line in lines.step_by(2) {
                let line = &luma[line * columns..][..columns];
                counted += 1;
                for (column, sum) in sums.iter_mut().enumerate() {
                    let block = &line[edge(column, COLUMNS, columns)..edge(column + 1, COLUMNS, columns)];
                    *sum += block.iter().map(|sample| u32::from(*sample)).sum::<u32>();
                }
            }
            for (column, (mean, sum)) in of_row.iter_mut().zip(sums).enumerate() {
                let across = edge(column + 1, COLUMNS, columns) - edge(column, COLUMNS, columns);
                let samples = u32::try_from(across).unwrap_or(0) * counted;
                *mean = u16::try_from((sum * PARTS).checked_div(samples).unwrap_or(0)).unwrap_or(u16::MAX);
            }
        }
        Self { size: [width, height], means }
    }

    /// Levels by which the block that differs most does; nothing for pictures of different sizes.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Option<f32> {
        let most = self.means.iter().zip(&other.means).map(|(a, b)| a.abs_diff(*b)).max()?;
        #[expect(clippy::cast_precision_loss, reason = "16")]
        let parts = PARTS as f32;
        (self.size == other.size).then(|| f32::from(most) / parts)
    }
}

impl Gate {
    /// The first frame is never the same.
    #[must_use]
    pub const fn new(settings: Settings) -> Self {
        Self { settings, seen: None, is_still: false, same: 0 }
    }

    /// What to do with a frame.
    pub fn judge(&mut self, signature: &Signature, now: Instant) -> Verdict {
        let Settings { threshold, max_reuse, check_every } = self.settings;
        let threshold = f32::from(threshold);
        let limit = if self.is_still { threshold } else { threshold * SETTLED };
        let difference = self.seen.as_ref().and_then(|(seen, at)| Some((seen.difference(signature)?, *at)));
        let Some((_, at)) = difference.filter(|(difference, _)| *difference < limit) else {
            self.is_still = false;
            return Verdict::Changed;
        };
        self.is_still = true;
        if now.saturating_duration_since(at) >= max_reuse {
            return Verdict::Aged;
        }
        self.same = self.same.wrapping_add(1);
        if self.same.is_multiple_of(check_every.max(1)) { Verdict::Check } else { Verdict::Same }
    }

    /// The model looked at a frame, which came at `at`: what follows is compared with it.
    pub fn see(&mut self, signature: Signature, at: Instant) {
        self.seen = Some((signature, at));
    }

    /// Nothing is known of the scene any more: the model, or what is asked of it, changed.
    pub fn forget(&mut self) {
        self.seen = None;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock;

    const SIZE: [u32; 2] = [640, 480];
    const SETTINGS: Settings = Settings { threshold: 2, max_reuse: Duration::from_millis(1000), check_every: 10 };

    /// A scene of two tones with a square of this size at this place, and a pattern of noise.
    fn picture(square: u32, x: u32, y: u32, noise: u32) -> Signature {
        let [width, height] = SIZE;
        let luma: Vec<u8> = (0..width * height)
            .map(|at| {
                let (column, row) = (at % width, at / width);
                let is_square = (x..x + square).contains(&column) && (y..y + square).contains(&row);
                let tone = if is_square {
                    200
                } else if row < height / 2 {
                    120
                } else {
                    90
                };
                // Between -4 and 4, without a pattern that blocks would see.
                let grain = (at.wrapping_mul(2_654_435_761).wrapping_add(noise.wrapping_mul(0x9E37_79B9)) >> 16) % 9;
                tone + u8::try_from(grain).unwrap() - 4
            })
            .collect();
        Signature::of(&luma, width, height)
    }

    /// A frame that the model looks at where the gate says so.
    fn judge(gate: &mut Gate, signature: Signature, now: Instant) -> Verdict {
        let verdict = gate.judge(&signature, now);
        if verdict != Verdict::Same {
            gate.see(signature, now);
        }
        verdict
    }

    #[test]
    fn means_are_those_of_the_blocks_and_any_size_will_do() {
        let flat = Signature::of(&vec![77; 640 * 480], 640, 480);
        assert!(flat.means.iter().all(|mean| *mean == 77 * 16));
        let half: Vec<u8> = (0..640 * 480).map(|at| if at % 640 < 320 { 10 } else { 250 }).collect();
        let half = Signature::of(&half, 640, 480);
        assert_eq!((half.means[0], half.means[15], half.means[16], half.means[31]), (160, 160, 4000, 4000));
        assert_eq!(flat.difference(&half), Some(173.0));
        for (width, height) in [(1, 1), (31, 17), (33, 19), (16, 1080), (1921, 3), (0, 0)] {
            let signature = Signature::of(&vec![9; (width * height) as usize], width, height);
            assert_eq!(signature.difference(&signature), Some(0.0));
            assert_eq!(signature.difference(&flat), None);
        }
        assert!(Signature::of(&[1, 2, 3], 640, 480).means.iter().all(|mean| *mean == 0), "a plane that is too short");
    }

    #[test]
    fn noise_is_still_and_a_small_thing_that_moves_is_not() {
        let first = picture(24, 100, 100, 1);
        for noise in 2..30 {
            let difference = first.difference(&picture(24, 100, 100, noise)).unwrap();
            assert!(difference < 1.0, "{difference}");
        }
        // A square of 24 of 640 columns by a few samples, anywhere.
        for (x, y) in [(106, 100), (100, 106), (94, 94)] {
            let difference = first.difference(&picture(24, x, y, 1)).unwrap();
            assert!(difference > 4.0, "{x} {y}: {difference}");
        }
    }

    #[test]
    fn results_are_used_for_a_while_and_some_are_checked() {
        let (mut gate, start) = (Gate::new(SETTINGS), clock::now());
        let mut verdicts = Vec::new();
        for frame in 0..61 {
            let at = start + Duration::from_millis(33 * u64::from(frame));
            verdicts.push(judge(&mut gate, picture(24, 100, 100, frame), at));
        }
        assert_eq!(verdicts[0], Verdict::Changed);
        assert_eq!(&verdicts[1..10], &[Verdict::Same; 9]);
        assert_eq!(verdicts[10], Verdict::Check);
        let asked = verdicts.iter().filter(|verdict| **verdict != Verdict::Same).count();
        assert_eq!(asked, 7, "the first, and each tenth: {verdicts:?}");

        // Without checks, age alone.
        let mut gate = Gate::new(Settings { check_every: 1000, ..SETTINGS });
        let mut aged = |frame: u64| {
            let at = start + Duration::from_millis(33 * frame);
            judge(&mut gate, picture(24, 100, 100, 1), at) == Verdict::Aged
        };
        assert_eq!((0..61).filter(|frame| aged(*frame)).collect::<Vec<_>>(), [31]);
    }

    #[test]
    fn a_scene_that_moves_is_looked_at_and_so_is_one_of_another_size_or_model() {
        let (mut gate, start) = (Gate::new(SETTINGS), clock::now());
        for frame in 0..30 {
            assert_eq!(judge(&mut gate, picture(24, 100 + 4 * frame, 100, 1), start), Verdict::Changed, "{frame}");
        }
        assert_eq!(judge(&mut gate, picture(24, 216, 100, 1), start), Verdict::Same);
        assert_eq!(judge(&mut gate, Signature::of(&[9; 4], 2, 2), start), Verdict::Changed);
        assert_eq!(judge(&mut gate, Signature::of(&[9; 4], 2, 2), start), Verdict::Same);
        gate.forget();
        assert_eq!(judge(&mut gate, Signature::of(&[9; 4], 2, 2), start), Verdict::Changed);
    }

    #[test]
    fn a_scene_that_moved_settles_below_the_threshold_only() {
        let flat = |level| Signature::of(&[level; 64 * 36], 64, 36);
        // Threshold 2: a difference of 1.5 keeps a still scene still, and does not make one that moves still.
        let near = |level: u8| {
            let mut luma = [level; 64 * 36];
            luma.iter_mut().enumerate().filter(|(at, _)| at % 2 == 1).for_each(|(_, sample)| *sample += 1);
            luma.iter_mut().for_each(|sample| *sample += 1);
            Signature::of(&luma, 64, 36)
        };
        let difference = flat(100).difference(&near(100)).unwrap();
        assert!((difference - 1.5).abs() < 0.01, "{difference}");
        let (mut gate, now) = (Gate::new(SETTINGS), clock::now());
        assert_eq!(judge(&mut gate, flat(100), now), Verdict::Changed);
        assert_eq!(judge(&mut gate, near(100), now), Verdict::Changed);
        assert_eq!(judge(&mut gate, near(100), now), Verdict::Same);
        assert_eq!(judge(&mut gate, flat(100), now), Verdict::Same);
    }

    proptest! {
        /// However frames come, no result is used for longer than it may, nor where the picture differs from its own.
        #[test]
        fn a_result_is_never_used_for_too_long(steps in proptest::collection::vec((0_u64..400, 0_u8..6), 1..200)) {
            let (mut gate, mut now) = (Gate::new(SETTINGS), clock::now());
            let mut inferred: Option<(Signature, Instant)> = None;
            for (wait, level) in steps {
                now += Duration::from_millis(wait);
                let signature = Signature::of(&[level; 64 * 36], 64, 36);
                if judge(&mut gate, signature.clone(), now) == Verdict::Same {
                    let (of, at) = inferred.as_ref().unwrap();
                    prop_assert!(now.duration_since(*at) < SETTINGS.max_reuse);
                    prop_assert!(of.difference(&signature).unwrap() < f32::from(SETTINGS.threshold));
                } else {
                    inferred = Some((signature, now));
                }
            }
        }
    }
}

use std::f32::consts::{FRAC_PI_2, PI};
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Raster, path};

/// Kinds of round corners known at once.
const MAX_CORNERS: usize = 16;

/// Coverage masks that are painted again and again, such as letters: how much of each pixel is covered, 0..255, row by
/// row, one mask after the other.
///
/// Whoever paints elsewhere keeps a copy of it there, and brings that up to date by what it lacks: see [`Atlas::since`].
#[derive(Debug)]
pub struct Atlas {
    coverage: Vec<u8>,
    generation: u64,
    /// By radius and thickness.
    corners: Vec<((i32, i32), [Mask; 4])>,
}

/// A mask in an [`Atlas`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mask {
    width: u16,
    height: u16,
    start: u32,
}

impl Mask {
    /// A mask without pixels.
    pub const EMPTY: Self = Self { width: 0, height: 0, start: 0 };

    /// Columns and rows.
    #[must_use]
    pub const fn size(self) -> [u16; 2] {
        [self.width, self.height]
    }

    /// Where it begins in [`Atlas::coverage`].
    #[must_use]
    pub const fn start(self) -> u32 {
        self.start
    }

    const fn len(self) -> usize {
        self.width as usize * self.height as usize
    }
}

/// How far an [`Atlas`] has come. The default one is before any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Revision {
    generation: u64,
    len: usize,
}

impl Default for Atlas {
    fn default() -> Self {
        Self { coverage: Vec::new(), generation: next_generation(), corners: Vec::new() }
    }
}

impl Atlas {
    /// Bytes that stay from one picture to the next at most. One picture may add to them what it needs.
    pub const KEPT: usize = 2 << 20;

    /// Begins a picture: with more than [`Atlas::KEPT`] bytes it starts afresh, and the masks so far are void.
    pub fn begin(&mut self) {
        if self.coverage.len() > Self::KEPT {
            *self = Self { coverage: std::mem::take(&mut self.coverage), ..Self::default() };
            self.coverage.clear();
        }
    }

    /// Another number whenever it started afresh, and in each atlas of the process.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// How far it has come.
    #[must_use]
    pub const fn revision(&self) -> Revision {
        Revision { generation: self.generation, len: self.coverage.len() }
    }

    /// What a copy lacks that had come as far as `seen`: the bytes from the returned place on.
    #[must_use]
    pub fn since(&self, seen: Revision) -> (usize, &[u8]) {
        let start = if seen.generation == self.generation { seen.len.min(self.coverage.len()) } else { 0 };
        (start, &self.coverage[start..])
    }

    /// All masks.
    #[must_use]
    pub fn coverage(&self) -> &[u8] {
        &self.coverage
    }

    /// Keeps a mask of this width and height, which `paint` writes; it gets zeros. One for which 4 GiB have no room has no
    /// pixels.
    pub fn add(&mut self, [width, height]: [u16; 2], paint: impl FnOnce(&mut [u8])) -> Mask {
        let Ok(start) = u32::try_from(self.coverage.len()) else { return Mask::EMPTY };
        let mask = Mask { width, height, start };
        self.coverage.resize(start as usize + mask.len(), 0);
        paint(&mut self.coverage[start as usize..]);
        mask
    }

    /// The mask's pixels; none if it is void and nothing is where it was.
    pub(super) fn pixels(&self, mask: Mask) -> &[u8] {
        self.coverage.get(mask.start as usize..).and_then(|rest| rest.get(..mask.len())).unwrap_or_default()
    }

    /// Masks of `radius × radius` pixels for the round corners of a frame as thick as `thickness`: lower right, lower
    /// left, upper left, upper right. `None` without a radius.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of 0..1")]
    pub(super) fn corners(&mut self, raster: &mut Raster, radius: i32, thickness: i32) -> Option<[Mask; 4]> {
        let side = u16::try_from(radius).ok().filter(|&side| side > 0)?;
        if let Some((_, masks)) = self.corners.iter().find(|(kind, _)| *kind == (radius, thickness)) {
            return Some(*masks);
        }
        let (outer, inner, size) = (radius as f32, (radius - thickness) as f32, usize::from(side));
        let centers = [[0.0, 0.0], [outer, 0.0], [outer, outer], [0.0, outer]];
        let turns = [0.0, FRAC_PI_2, PI, PI + FRAC_PI_2];
        let masks = [0, 1, 2, 3].map(|corner| {
            let (center, turn) = (centers[corner], turns[corner]);
            let mut outline = path::arc(center, [outer; 2], turn, turn + FRAC_PI_2);
            outline.extend(path::arc(center, [inner; 2], turn + FRAC_PI_2, turn));
            self.add([side, side], |mask| {
                raster.cover(&outline, 1.0, (size, size), |x, y, coverage| {
                    for (sample, &share) in mask[y * size + x..].iter_mut().zip(coverage) {
                        *sample = (share * 255.0 + 0.5) as u8;
                    }
                });
            })
        });
        if self.corners.len() >= MAX_CORNERS {
            self.corners.remove(0);
        }
        self.corners.push(((radius, thickness), masks));
        Some(masks)
    }
}

fn next_generation() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed) + 1
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    /// A copy elsewhere.
    #[derive(Default)]
    struct Mirror {
        bytes: Vec<u8>,
        seen: Revision,
    }

    impl Mirror {
        /// How many bytes were copied.
        fn follow(&mut self, atlas: &Atlas) -> usize {
            let (start, news) = atlas.since(self.seen);
            self.bytes.truncate(start);
            self.bytes.extend(news);
            self.seen = atlas.revision();
            assert!(self.bytes == atlas.coverage());
            news.len()
        }
    }

    #[test]
    fn a_copy_follows_by_what_it_lacks() {
        let (mut atlas, mut mirror) = (Atlas::default(), Mirror::default());
        assert_eq!(mirror.follow(&atlas), 0);
        let first = atlas.add([3, 2], |mask| mask.fill(7));
        assert_eq!(mirror.follow(&atlas), 6);
        assert_eq!(mirror.follow(&atlas), 0);
        let second = atlas.add([5, 1], |mask| mask[4] = 9);
        assert_eq!(mirror.follow(&atlas), 5);
        assert_eq!((atlas.pixels(first), atlas.pixels(second)), (&[7; 6][..], &[0, 0, 0, 0, 9][..]));
        // Another one's copy lacks everything, even if that had the same length.
        let mut other = Atlas::default();
        other.add([11, 1], |mask| mask.fill(1));
        assert_eq!(mirror.follow(&other), 11);
    }

    #[test]
    fn it_starts_afresh_between_pictures_alone_and_only_when_it_is_full() {
        let (mut atlas, mut mirror) = (Atlas::default(), Mirror::default());
        let kind = (5, 2);
        let corners = atlas.corners(&mut Raster::default(), kind.0, kind.1).unwrap();
        let first = atlas.generation();
        atlas.add([1024, 2047], |_| ());
        atlas.begin();
        assert_eq!((atlas.generation(), atlas.pixels(corners[0]).len()), (first, 25));
        let last = atlas.add([1024, 1], |mask| mask.fill(3));
        assert_eq!((atlas.generation(), atlas.pixels(last)), (first, &[3; 1024][..]));
        mirror.follow(&atlas);
        atlas.begin();
        assert_ne!(atlas.generation(), first);
        assert_eq!((atlas.coverage(), atlas.pixels(last)), (&[][..], &[][..]));
        assert_eq!(atlas.corners(&mut Raster::default(), kind.0, kind.1).unwrap()[3].start(), 75);
        assert_eq!(mirror.follow(&atlas), 100);
    }

    #[test]
    fn corners_are_made_once() {
        let (mut atlas, mut raster) = (Atlas::default(), Raster::default());
        assert!(atlas.corners(&mut raster, 0, 0).is_none() && atlas.corners(&mut raster, -3, 1).is_none());
        let masks = atlas.corners(&mut raster, 8, 3).unwrap();
        let revision = atlas.revision();
        assert_eq!(atlas.corners(&mut raster, 8, 3), Some(masks));
        assert_eq!(atlas.revision(), revision);
        // The lower right corner of a frame three pixels thick: its centre is free, its edge is covered.
        let pixels = atlas.pixels(masks[0]);
        assert_eq!((pixels[0], pixels[6], pixels[63]), (0, 255, 0));
    }
}

//! How pictures are turned and mirrored until they stand upright. Pure.

/// Side of the square that is copied at a time where columns become rows, so that both pictures' rows stay in the cache.
const TILE: usize = 32;

/// What makes a stored picture upright (EXIF 2.32 section 4.6.4, values 1 to 8).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Orientation {
    /// Nothing.
    #[default]
    Upright,
    /// Left and right change places.
    Mirrored,
    /// Half a turn.
    Half,
    /// Top and bottom change places.
    Flipped,
    /// Rows become columns.
    Transposed,
    /// A quarter turn clockwise.
    Clockwise90,
    /// Rows become columns, and then half a turn.
    Transversed,
    /// A quarter turn counter-clockwise.
    Clockwise270,
}

impl Orientation {
    /// All of them, in the order of EXIF's values from 1 on.
    pub const ALL: [Self; 8] = [
        Self::Upright,
        Self::Mirrored,
        Self::Half,
        Self::Flipped,
        Self::Transposed,
        Self::Clockwise90,
        Self::Transversed,
        Self::Clockwise270,
    ];

    /// What EXIF's value stands for; none if it stands for nothing.
    #[must_use]
    pub fn from_exif(value: u32) -> Option<Self> {
        let index = usize::try_from(value).ok()?.checked_sub(1)?;
        Self::ALL.get(index).copied()
    }

    /// Width and height of a picture of this stored size when it is upright.
    #[must_use]
    pub const fn apply(self, width: u32, height: u32) -> [u32; 2] {
        if self.swaps() { [height, width] } else { [width, height] }
    }

    /// Whether rows become columns.
    #[must_use]
    pub const fn swaps(self) -> bool {
        matches!(self, Self::Transposed | Self::Clockwise90 | Self::Transversed | Self::Clockwise270)
    }

    /// Writes a plane of `width` × `height` samples, whose rows are `stride` apart, upright to `to`, whose rows follow
    /// each other.
    pub(super) fn copy(self, from: &[u8], stride: usize, [width, height]: [usize; 2], to: &mut [u8]) {
        let row = |y: usize| &from[y * stride..][..width];
        match self {
            Self::Upright | Self::Flipped => {
                for (y, to) in to.chunks_exact_mut(width).take(height).enumerate() {
                    to.copy_from_slice(row(if self == Self::Flipped { height - 1 - y } else { y }));
                }
            }
            Self::Mirrored | Self::Half => {
                for (y, to) in to.chunks_exact_mut(width).take(height).enumerate() {
                    let from = row(if self == Self::Half { height - 1 - y } else { y });
                    to.iter_mut().zip(from.iter().rev()).for_each(|(to, from)| *to = *from);
                }
            }
            _ => {
                for top in (0..height).step_by(TILE) {
                    for left in (0..width).step_by(TILE) {
                        for y in top..(top + TILE).min(height) {
                            let column = match self {
                                Self::Transposed | Self::Clockwise270 => y,
                                _ => height - 1 - y,
                            };
                            for (x, sample) in row(y).iter().enumerate().take(left + TILE).skip(left) {
                                let line = match self {
                                    Self::Transposed | Self::Clockwise90 => x,
                                    _ => width - 1 - x,
                                };
                                to[line * height + column] = *sample;
                            }
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `a b c` over `d e f`, with a row end of its own.
    const STORED: &[u8] = b"abc-def-";

    fn upright(orientation: Orientation) -> String {
        let mut to = vec![0; 6];
        orientation.copy(STORED, 4, [3, 2], &mut to);
        let [width, _] = orientation.apply(3, 2);
        to.chunks(width as usize).map(|row| String::from_utf8_lossy(row).into_owned()).collect::<Vec<_>>().join("/")
    }

    #[test]
    fn each_value_of_exif_moves_each_sample_to_its_place() {
        let expected = ["abc/def", "cba/fed", "fed/cba", "def/abc", "ad/be/cf", "da/eb/fc", "fc/eb/da", "cf/be/ad"];
        for (value, expected) in (1..).zip(expected) {
            assert_eq!(Orientation::from_exif(value).map(upright).as_deref(), Some(expected), "value {value}");
        }
        assert_eq!((Orientation::from_exif(0), Orientation::from_exif(9)), (None, None));
    }

    #[test]
    fn planes_larger_than_a_tile_are_whole() {
        let (width, height) = (67, 41);
        let from: Vec<u8> = (0..width * height).map(|at| u8::try_from(at % 251).unwrap_or(0)).collect();
        for (one, other) in [
            (Orientation::Transposed, Orientation::Transposed),
            (Orientation::Clockwise90, Orientation::Clockwise270),
            (Orientation::Transversed, Orientation::Transversed),
            (Orientation::Half, Orientation::Half),
        ] {
            let (mut there, mut back) = (vec![0; from.len()], vec![0; from.len()]);
            one.copy(&from, width, [width, height], &mut there);
            let [w, h] = if one.swaps() { [height, width] } else { [width, height] };
            other.copy(&there, w, [w, h], &mut back);
            assert_eq!(back, from, "{one:?}");
        }
    }
}

//! How a box moves: a Kalman filter for its centre and size, in seconds.

/// A box as the filter sees it: centre x, centre y, width and height in pixels.
pub(super) type Measured = [f64; 4];

/// Indices of the centre and of the size in [`Measured`].
const CENTRE: [usize; 2] = [0, 1];
const EXTENT: [usize; 2] = [2, 3];

/// The most that width or height adds to a square distance.
const MOST_OF_EXTENT: f64 = 6.0;
/// Time constant of the mean speed, in seconds.
const CRUISE: f64 = 1.0;
/// The smallest width and height, in pixels.
const LEAST_EXTENT: f64 = 1.0;

/// How sure measurements and the model of motion are. Lengths are in sizes: the square root of the box's area.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Noise {
    /// Standard deviation of a measured centre, in sizes.
    pub(super) centre: f64,
    /// Standard deviation of a measured width or height, in sizes.
    pub(super) extent: f64,
    /// Standard deviation of the speed of an object that has just been found, in sizes a second.
    pub(super) speed: f64,
    /// The same for width and height.
    pub(super) growth: f64,
    /// Standard deviation of what a speed changes by in a second, in sizes a second.
    pub(super) agility: f64,
    /// The same for width and height.
    pub(super) growth_agility: f64,
}

/// Where a box is, how it moves, and how sure that is.
///
/// Centre and size each move at a constant speed but for white-noise acceleration: the nearly-constant-velocity model in
/// continuous time (Bar-Shalom, Li and Kirubarajan 2001, "Estimation with Applications to Tracking and Navigation",
/// section 6.2.2). Its noise is integrated over the time that passed, so that many short steps come to the same as one
/// long one, and in proportion to the box's size, so that near and far objects are treated alike. No coordinate tells
/// anything about another, so there are four filters of two states each.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Motion {
    axes: [Axis; 4],
    /// Mean speed of the centre, over the last second or so, and the seconds that it is known for.
    cruise: [f64; 2],
    known: f64,
}

/// How far a measurement is from where a box should be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Distance {
    /// Square of the Mahalanobis distance over the four coordinates, width and height up to a most each: they change at
    /// once where something comes out from behind something else.
    pub(super) squared: f64,
    /// Natural logarithm of the determinant of the centre's covariance in square sizes: how much room there is for it.
    pub(super) room: f64,
}

impl Motion {
    /// A box that was just found, at rest as far as is known.
    pub(super) fn new(measured: Measured, noise: &Noise) -> Self {
        let size = size(measured[2], measured[3]);
        let axis = |index: usize| {
            let (error, speed) = if index < 2 { (noise.centre, noise.speed) } else { (noise.extent, noise.growth) };
            Axis {
                value: measured[index],
                speed: 0.0,
                variance: (error * size).powi(2),
                covariance: 0.0,
                speed_variance: (speed * size).powi(2),
            }
        };
        Self { axes: std::array::from_fn(axis), cruise: [0.0; 2], known: 0.0 }
    }

    /// The box after a time in seconds, which may be negative: centre, width and height.
    pub(super) fn after(&self, seconds: f64) -> Measured {
        let at = |index: usize| self.axes[index].value + self.axes[index].speed * seconds;
        [at(0), at(1), at(2).max(LEAST_EXTENT), at(3).max(LEAST_EXTENT)]
    }

    /// Moves on by a time in seconds.
    pub(super) fn advance(&mut self, seconds: f64, noise: &Noise) {
        let size = self.size();
        for index in CENTRE {
            self.axes[index].advance(seconds, (noise.agility * size).powi(2));
        }
        for index in EXTENT {
            self.axes[index].advance(seconds, (noise.growth_agility * size).powi(2));
            self.axes[index].value = self.axes[index].value.max(LEAST_EXTENT);
        }
    }

    /// Takes a measurement in, `seconds` after the last one.
    pub(super) fn correct(&mut self, measured: Measured, seconds: f64, noise: &Noise) {
        let errors = self.errors(measured, noise);
        for (index, axis) in self.axes.iter_mut().enumerate() {
            axis.correct(measured[index], errors[index]);
        }
        for index in EXTENT {
            self.axes[index].value = self.axes[index].value.max(LEAST_EXTENT);
        }
        self.known += seconds;
        if self.known > 0.0 {
            let weight = (1.0 - (-seconds / CRUISE).exp()).max(seconds / self.known);
            for index in CENTRE {
                self.cruise[index] += weight * (self.axes[index].speed - self.cruise[index]);
            }
        }
    }

    /// How far a measurement is from here.
    pub(super) fn distance(&self, measured: Measured, noise: &Noise) -> Distance {
        let errors = self.errors(measured, noise);
        let spread = |index: usize| self.axes[index].variance + errors[index];
        let squared = |index: usize| (measured[index] - self.axes[index].value).powi(2) / spread(index);
        let extent = |index: usize| squared(index).min(MOST_OF_EXTENT);
        let area = self.size().powi(2);
        let squared = squared(0) + squared(1) + extent(2) + extent(3);
        Distance { squared, room: CENTRE.into_iter().map(|index| (spread(index) / area).ln()).sum() }
    }

    /// Goes on at the mean speed of the last second: where an object disappears, what could be seen of it last may have
    /// moved otherwise than it does.
    pub(super) fn cruise(&mut self) {
        for index in CENTRE {
            self.axes[index].speed = self.cruise[index];
        }
    }

    /// Forgets how width and height change: of an object that is not seen they are not known.
    pub(super) fn stop_growing(&mut self) {
        for index in EXTENT {
            self.axes[index].speed = 0.0;
        }
    }

    /// Brings the box to a picture whose sides are these times longer.
    pub(super) fn rescale(&mut self, [horizontal, vertical]: [f64; 2]) {
        for (axis, by) in self.axes.iter_mut().zip([horizontal, vertical, horizontal, vertical]) {
            axis.rescale(by);
        }
        self.cruise = [self.cruise[0] * horizontal, self.cruise[1] * vertical];
    }

    /// Square root of the area, in pixels.
    pub(super) fn size(&self) -> f64 {
        size(self.axes[2].value, self.axes[3].value)
    }

    /// Variances of a measurement.
    ///
    /// The more a side's length differs from what was expected, the less its centre says: where one end has come to be
    /// hidden, behind something or by the edge of the picture, the centre of what shows moves by half of what is hidden,
    /// and the object doesn't.
    fn errors(&self, measured: Measured, noise: &Noise) -> [f64; 4] {
        let size = self.size();
        let centre = |index: usize| {
            let change = measured[index + 2] - self.axes[index + 2].value;
            (noise.centre * size).powi(2) + (change / 2.0).powi(2)
        };
        let extent = (noise.extent * size).powi(2);
        [centre(0), centre(1), extent, extent]
    }
}

fn size(width: f64, height: f64) -> f64 {
    (width.max(LEAST_EXTENT) * height.max(LEAST_EXTENT)).sqrt()
}

/// One coordinate and its speed, in pixels and seconds, with their covariance.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Axis {
    value: f64,
    speed: f64,
    variance: f64,
    covariance: f64,
    speed_variance: f64,
}

impl Axis {
    /// Moves on by a time in seconds; `density` is the power spectral density of the acceleration, in px²/s³. Into the
    /// past, doubt grows as it does into the future.
    fn advance(&mut self, seconds: f64, density: f64) {
        let (t, forth) = (seconds, seconds.abs());
        self.value += self.speed * t;
        self.variance += t * (2.0 * self.covariance + t * self.speed_variance) + density * forth.powi(3) / 3.0;
        self.covariance += t * self.speed_variance + t.signum() * density * t * t / 2.0;
        self.speed_variance += density * forth;
    }

    fn correct(&mut self, measured: f64, error: f64) {
        let spread = self.variance + error;
        let (gain, speed_gain) = (self.variance / spread, self.covariance / spread);
        let off = measured - self.value;
        self.value += gain * off;
        self.speed += speed_gain * off;
        self.speed_variance -= speed_gain * self.covariance;
        self.variance *= 1.0 - gain;
        self.covariance *= 1.0 - gain;
    }

    fn rescale(&mut self, by: f64) {
        self.value *= by;
        self.speed *= by;
        self.variance *= by * by;
        self.covariance *= by * by;
        self.speed_variance *= by * by;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOISE: Noise =
        Noise { centre: 0.05, extent: 0.05, speed: 3.0, growth: 0.5, agility: 2.0, growth_agility: 0.5 };

    fn near(a: &Axis, b: &Axis) -> bool {
        let pairs = [
            (a.value, b.value),
            (a.speed, b.speed),
            (a.variance, b.variance),
            (a.covariance, b.covariance),
            (a.speed_variance, b.speed_variance),
        ];
        pairs.iter().all(|(a, b)| (a - b).abs() <= 1e-9 * a.abs().max(1.0))
    }

    #[test]
    fn many_short_steps_come_to_one_long_one() {
        let mut once = Motion::new([100.0, 80.0, 20.0, 40.0], &NOISE);
        once.axes[0].speed = 50.0;
        let mut often = once;
        once.advance(0.6, &NOISE);
        (0..18).for_each(|_| often.advance(0.6 / 18.0, &NOISE));
        assert!(once.axes.iter().zip(&often.axes).all(|(a, b)| near(a, b)), "{once:?} {often:?}");
        assert!((once.after(0.0)[0] - 130.0).abs() < 1e-9);
        assert!((once.after(-0.6)[0] - 100.0).abs() < 1e-9);
    }

    #[test]
    fn a_steady_speed_is_learnt_whatever_the_rate() {
        for rate in [5.0, 10.0, 30.0] {
            let at = |t: f64| [100.0 + 60.0 * t, 80.0 - 20.0 * t, 20.0, 40.0];
            let mut motion = Motion::new(at(0.0), &NOISE);
            let steps = (1..).map(|step| f64::from(step) / rate).take_while(|time| *time <= 2.0);
            for time in steps {
                motion.advance(1.0 / rate, &NOISE);
                motion.correct(at(time), 1.0 / rate, &NOISE);
            }
            let [x, y, width, height] = motion.after(0.2);
            let [true_x, true_y, ..] = at(2.2);
            assert!((x - true_x).abs() < 0.5 && (y - true_y).abs() < 0.5, "{rate}: {x} {y}");
            assert!((width - 20.0).abs() < 0.5 && (height - 40.0).abs() < 0.5, "{rate}: {width} {height}");
        }
    }

    #[test]
    fn a_box_that_is_being_hidden_keeps_its_speed() {
        let mut motion = Motion::new([100.0, 80.0, 30.0, 30.0], &NOISE);
        for step in 1..=20 {
            motion.advance(0.1, &NOISE);
            motion.correct([100.0 + 6.0 * f64::from(step), 80.0, 30.0, 30.0], 0.1, &NOISE);
        }
        // Its right edge goes behind something at 235: what shows becomes narrower, and its centre slower.
        for step in 21..=23 {
            motion.advance(0.1, &NOISE);
            let (left, right) = (85.0 + 6.0 * f64::from(step), 235.0);
            motion.correct([f64::midpoint(left, right), 80.0, right - left, 30.0], 0.1, &NOISE);
        }
        motion.cruise();
        assert!(motion.axes[0].speed > 48.0, "{motion:?}");
    }

    #[test]
    fn the_scale_of_the_picture_makes_no_difference() {
        let (mut small, mut large) =
            (Motion::new([30.0, 40.0, 8.0, 16.0], &NOISE), Motion::new([60.0, 80.0, 16.0, 32.0], &NOISE));
        for (motion, by) in [(&mut small, 1.0), (&mut large, 2.0)] {
            motion.advance(0.1, &NOISE);
            motion.correct([32.0 * by, 40.0 * by, 8.5 * by, 16.0 * by], 0.1, &NOISE);
        }
        small.rescale([2.0, 2.0]);
        assert!(small.axes.iter().zip(&large.axes).all(|(a, b)| near(a, b)), "{small:?} {large:?}");
    }

    #[test]
    fn doubt_grows_both_ways() {
        let now = Motion::new([30.0, 40.0, 8.0, 16.0], &NOISE);
        for seconds in [0.3, -0.3] {
            let mut then = now;
            then.advance(seconds, &NOISE);
            let room = |motion: &Motion| motion.distance([30.0, 40.0, 8.0, 16.0], &NOISE).room;
            assert!(room(&then) > room(&now) + 1.0);
        }
    }
}

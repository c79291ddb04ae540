//! People: how they look and how they walk, seen from the side.

use std::f32::consts::PI;

use super::sketch::{Part, Sketch};
use crate::draw::{Point, path};

/// Length of a stride (two steps) in body heights.
pub(crate) const STRIDE: f32 = 0.66;

const HELMET: [u8; 3] = [255, 205, 0];
const HELMET_SHADE: [u8; 3] = [234, 178, 0];
const HELMET_LIGHT: [u8; 3] = [255, 217, 40];
const VEST: [u8; 3] = [176, 222, 62];
const REFLECTOR: [u8; 3] = [236, 241, 240];
const GLOVE: [u8; 3] = [86, 94, 106];
const SHOE: [u8; 3] = [44, 48, 58];
const EYE: [u8; 3] = [38, 34, 48];

/// Jackets and trousers; nothing warm, which would look like a head to the test model.
const JACKETS: [[u8; 3]; 7] =
    [[60, 92, 150], [64, 132, 134], [98, 110, 132], [96, 146, 104], [150, 162, 180], [112, 108, 172], [44, 62, 92]];
const TROUSERS: [[u8; 3]; 4] = [[52, 62, 86], [76, 84, 98], [66, 88, 118], [90, 98, 88]];

/// Lightness of skin and of hair; both have the same hue, see [`skin`].
const SKIN: [u8; 4] = [180, 164, 136, 112];
const HAIR: [u8; 3] = [64, 78, 92];

/// What someone wears and looks like.
#[derive(Debug)]
pub(crate) struct Clothes {
    pub(crate) helmet: bool,
    vest: bool,
    skin: u8,
    hair: u8,
    jacket: [u8; 3],
    trousers: [u8; 3],
}

impl Clothes {
    /// Picks with `below(count)`, a number less than `count`.
    pub(crate) fn pick(helmet: bool, mut below: impl FnMut(usize) -> usize) -> Self {
        Self {
            helmet,
            vest: helmet && below(4) > 0,
            skin: SKIN[below(SKIN.len())],
            hair: HAIR[below(HAIR.len())],
            jacket: JACKETS[below(JACKETS.len())],
            trousers: TROUSERS[below(TROUSERS.len())],
        }
    }
}

/// Where and how someone stands at one moment, in design units.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pose {
    /// Middle of the body on the ground.
    pub(crate) at: Point,
    /// From the ground to the top of a bare head.
    pub(crate) height: f32,
    /// 1 to the right, -1 to the left.
    pub(crate) facing: f32,
    /// Angle in the stride; `None` for someone who stands and works.
    pub(crate) step: Option<f32>,
    /// Angle in the swing of working arms.
    pub(crate) swing: f32,
}

/// One person at one moment.
#[derive(Debug)]
pub(crate) struct Figure<'a> {
    pub(crate) clothes: &'a Clothes,
    pub(crate) pose: Pose,
    /// Number of the person, for the truth.
    pub(crate) person: usize,
}

/// The shade at someone's feet.
pub(crate) fn shadow(sketch: &mut Sketch, pose: Pose) {
    let [x, y] = pose.at;
    let h = pose.height;
    sketch.shade(path::ellipse([x + 0.16 * h, y], [0.34 * h, 0.035 * h]), [40, 52, 72], 0.16);
    sketch.shade(path::ellipse([x + 0.04 * h, y], [0.19 * h, 0.026 * h]), [40, 52, 72], 0.24);
}

impl Figure<'_> {
    /// Draws the person, the far arm and leg first. Measures are hundredths of the body height, forward and up.
    pub(crate) fn draw(&self, sketch: &mut Sketch) {
        let Clothes { jacket, trousers, .. } = *self.clothes;
        let stride = self.pose.step.unwrap_or(0.9);
        let spread = if self.pose.step.is_some() { 1.0 } else { 0.35 };
        let legs = [leg(stride + PI, spread), leg(stride, spread)];
        // The lower foot stands on the ground: the hip rises and falls.
        let hip = 2.4 + legs.iter().map(|[_, ankle]| ankle[1]).fold(0.0, f32::max);
        let shoulder = [1.0, hip + 27.0];
        let arms = self.arms(stride);
        self.arm(sketch, shoulder, arms[0], darker(jacket));
        self.leg(sketch, hip, legs[0], darker(trousers));
        self.leg(sketch, hip, legs[1], trousers);
        self.torso(sketch, hip);
        self.head(sketch, hip + 44.5);
        sketch.part = Part::Other;
        self.arm(sketch, shoulder, arms[1], jacket);
    }

    /// From measures to design units.
    fn at(&self, [forward, up]: Point) -> Point {
        let unit = self.pose.height / 100.0;
        [self.pose.at[0] + self.pose.facing * forward * unit, self.pose.at[1] - up * unit]
    }

    fn all(&self, outline: Vec<Point>) -> Vec<Point> {
        outline.into_iter().map(|point| self.at(point)).collect()
    }

    fn limb(&self, sketch: &mut Sketch, from: Point, to: Point, radii: [f32; 2], rgb: [u8; 3]) {
        sketch.polygon(self.all(path::limb(from, to, radii)), rgb);
    }

    fn leg(&self, sketch: &mut Sketch, hip: f32, [knee, ankle]: [Point; 2], rgb: [u8; 3]) {
        let below = |[forward, down]: Point| [forward, hip - down];
        let (knee, ankle) = (below(knee), below(ankle));
        let toes = [ankle[0] + 5.4, (ankle[1] - 0.6).max(1.4)];
        self.limb(sketch, [ankle[0] - 0.6, ankle[1] - 0.4], toes, [2.2, 1.5], SHOE);
        self.limb(sketch, [0.0, hip], knee, [5.6, 4.3], rgb);
        self.limb(sketch, knee, ankle, [4.2, 2.9], rgb);
    }

    /// Angles of upper arm and forearm of both arms from hanging down, forward positive.
    fn arms(&self, stride: f32) -> [[f32; 2]; 2] {
        if self.pose.step.is_none() {
            let lift = 1.15 + 0.45 * self.pose.swing.sin();
            return [[lift, lift + 0.9], [lift - 0.35, lift + 0.5]];
        }
        [0.0, PI].map(|shift| {
            let swing = 0.52 * (stride + shift).sin();
            [swing, swing + 0.36 + 0.2 * (stride + shift).sin().max(0.0)]
        })
    }

    fn arm(&self, sketch: &mut Sketch, shoulder: Point, [upper, fore]: [f32; 2], rgb: [u8; 3]) {
        let reach = |[x, y]: Point, length: f32, angle: f32| [x + length * angle.sin(), y - length * angle.cos()];
        let elbow = reach(shoulder, 13.5, upper);
        let wrist = reach(elbow, 11.5, fore);
        self.limb(sketch, wrist, reach(wrist, 2.6, fore), [2.6, 2.4], GLOVE);
        self.limb(sketch, shoulder, elbow, [4.1, 3.4], rgb);
        self.limb(sketch, elbow, wrist, [3.3, 2.7], rgb);
    }

    fn torso(&self, sketch: &mut Sketch, hip: f32) {
        let Clothes { jacket, vest, .. } = *self.clothes;
        self.limb(sketch, [0.6, hip + 29.0], [1.2, hip + 33.0], [3.4, 3.2], darker(jacket));
        self.limb(sketch, [0.2, hip + 1.5], [0.8, hip + 23.5], [7.2, 8.6], jacket);
        if vest {
            self.limb(sketch, [0.2, hip + 3.5], [0.8, hip + 23.3], [7.4, 8.8], VEST);
            for up in [6.0, 14.0] {
                let wide = 7.3 + up * 0.065;
                let band =
                    [[-wide, hip + up], [wide + 0.4, hip + up], [wide + 0.6, hip + up + 3.0], [-wide, hip + up + 3.0]];
                sketch.polygon(self.all(band.to_vec()), REFLECTOR);
            }
        } else {
            let hem = [[-7.0, hip + 1.0], [7.4, hip + 1.0], [7.2, hip - 1.6], [-6.8, hip - 1.6]];
            sketch.polygon(self.all(hem.to_vec()), darker(jacket));
        }
    }

    fn head(&self, sketch: &mut Sketch, up: f32) {
        let Clothes { helmet, skin: tone, hair, .. } = *self.clothes;
        sketch.part = Part::Head(self.person);
        let center = [1.6, up];
        let face = skin(tone);
        self.limb(sketch, [12.0, up - 1.6], [13.4, up - 2.4], [1.7, 1.6], face);
        sketch.polygon(self.all(path::ellipse(center, [11.6, 13.2])), face);
        self.hair(sketch, center, skin(hair));
        sketch.polygon(self.all(path::ellipse([-0.6, up - 1.2], [2.1, 2.9])), skin(tone.saturating_sub(22)));
        sketch.polygon(self.all(path::ellipse([8.3, up + 0.6], [0.95, 1.7])), EYE);
        if helmet {
            let brow = up + 3.2;
            let dome = path::arc([1.2, brow], [12.9, 13.4], 0.0, PI);
            sketch.polygon(self.all(dome), HELMET);
            let shine = path::arc([3.2, brow + 2.0], [7.4, 8.6], 0.25 * PI, 0.52 * PI);
            let inner = path::arc([3.2, brow + 2.0], [5.4, 6.6], 0.52 * PI, 0.25 * PI);
            sketch.polygon(self.all(shine.into_iter().chain(inner).collect()), HELMET_LIGHT);
            self.limb(sketch, [-11.4, brow + 0.2], [15.6, brow - 0.6], [1.5, 1.3], HELMET_SHADE);
        }
    }

    /// Hair over the crown and down the back of the head, its hairline from the temple to the nape.
    fn hair(&self, sketch: &mut Sketch, [x, y]: Point, rgb: [u8; 3]) {
        let mut outline = path::arc([x - 0.2, y + 0.2], [12.0, 13.6], 0.2 * PI, 1.18 * PI);
        outline.extend([[x - 5.6, y - 4.6], [x - 3.6, y + 2.6], [x + 3.4, y + 4.4], [x + 6.4, y + 7.4]]);
        sketch.polygon(self.all(outline), rgb);
    }
}

/// Knee and ankle of a leg, forward and down from the hip, at an angle in the stride.
fn leg(stride: f32, spread: f32) -> [Point; 2] {
    const BONE: f32 = 20.6;
    let thigh = spread * (0.06 + 0.46 * stride.sin());
    let bend = spread * (0.12 + 0.85 * (stride + 0.35).cos().max(0.0).powf(1.4));
    let knee = [BONE * thigh.sin(), BONE * thigh.cos()];
    let shin = thigh - bend;
    [knee, [knee[0] + BONE * shin.sin(), knee[1] + BONE * shin.cos()]]
}

/// Skin and hair differ in lightness alone: the same Cb and Cr codes (95 and 170 in full range), which only heads have.
fn skin(luma: u8) -> [u8; 3] {
    [luma.saturating_add(59), luma.saturating_sub(19), luma.saturating_sub(58)]
}

fn darker(rgb: [u8; 3]) -> [u8; 3] {
    rgb.map(|value| value - value / 4)
}

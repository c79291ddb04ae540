//! What detections are worth against the truth: COCO's measures, and precision and recall at one score; and how well
//! objects keep their identity in a video: IDF1, switches and MOTA.
//!
//! A leaf: pictures with their true objects and the detections come in, figures leave, on the caller's thread. It imports
//! `assignment` only, and must not read pictures or run models. The figures of pictures are those of pycocotools' `COCOeval` for boxes
//! (<https://cocodataset.org/#detection-eval>), to rounding.

pub mod dataset;

mod identity;
mod measure;

pub use identity::{Identities, Identity, Sighting};
pub use measure::{Counts, Measures};

/// An object that is truly in a picture.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Object {
    /// Corners `[x1, y1, x2, y2]` in pixels of the picture.
    pub bbox: [f64; 4],
    /// Index of its class.
    pub class: usize,
    /// Area in square pixels as the data set states it: of the outline where there is one, else of the box.
    pub area: f64,
    /// A group whose members are not told apart: it is neither missed, nor are detections in it false.
    pub crowd: bool,
}

/// A detection.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Found {
    /// Corners `[x1, y1, x2, y2]` in pixels of the picture.
    pub bbox: [f64; 4],
    /// Index of its class.
    pub class: usize,
    /// How sure the model is, 0..1.
    pub score: f64,
}

/// One picture: what is in it, and what was found in it.
#[derive(Debug, Clone, PartialEq)]
pub struct Picture {
    /// The truth.
    pub objects: Vec<Object>,
    /// Detections in any order; of equal scores the first counts as surer.
    pub found: Vec<Found>,
    /// Pixels of the model's input for one pixel of the picture.
    pub scale: f64,
}

/// Which objects a figure is about, by their area; both ends belong to it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sizes {
    /// Name in tables and JSON.
    pub name: &'static str,
    /// Smallest area in square pixels.
    pub min: f64,
    /// Largest area in square pixels.
    pub max: f64,
    /// Pixels of what.
    pub of: Pixels,
}

/// What areas are counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pixels {
    /// Pixels of the picture, as COCO does it.
    Picture,
    /// Pixels of the model's input: how much of an object the model gets to see.
    Input,
}

/// More than any picture has.
const BOUNDLESS: f64 = 1e10;

impl Sizes {
    /// COCO's four: all, small (up to 32²), medium, large (from 96²).
    pub const COCO: [Self; 4] = [
        Self { name: "all", min: 0.0, max: BOUNDLESS, of: Pixels::Picture },
        Self { name: "small", min: 0.0, max: 32.0 * 32.0, of: Pixels::Picture },
        Self { name: "medium", min: 32.0 * 32.0, max: 96.0 * 96.0, of: Pixels::Picture },
        Self { name: "large", min: 96.0 * 96.0, max: BOUNDLESS, of: Pixels::Picture },
    ];

    /// Objects whose area at the model's input is under `side²`, and the others.
    #[must_use]
    pub const fn at_input(side: f64) -> [Self; 2] {
        let edge = side * side;
        [
            Self { name: "under", min: 0.0, max: edge, of: Pixels::Input },
            Self { name: "from", min: edge, max: BOUNDLESS, of: Pixels::Input },
        ]
    }

    fn hold(&self, area: f64, scale: f64) -> bool {
        let area = match self.of {
            Pixels::Picture => area,
            Pixels::Input => area * scale * scale,
        };
        (self.min..=self.max).contains(&area)
    }
}

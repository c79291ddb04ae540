use super::{Class, Mask};

/// What a model says of a whole frame, rather than of single objects in it.
#[derive(Debug, Clone, PartialEq)]
pub enum Overall {
    /// Classes of the frame, best score first.
    Labels(Vec<Label>),
    /// The class of each pixel.
    Mask(Mask),
    /// The model's outputs as they are, in its order.
    Tensors(Vec<Tensor>),
}

/// A class of a whole frame.
#[derive(Debug, Clone, PartialEq)]
pub struct Label {
    /// Which one.
    pub class: Class,
    /// How sure the model is, 0..1.
    pub score: f32,
}

/// An output of a model for one frame.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// Its name.
    pub name: std::sync::Arc<str>,
    /// Its shape, the batch first: 1.
    pub shape: Vec<i64>,
    /// Its values; none where the output is larger than a message may be.
    pub data: Option<Vec<f32>>,
}

impl Overall {
    /// Has its classes be those that `named` gives for them, where it gives one.
    pub fn rename(&mut self, named: impl Fn(&Class) -> Option<Class>) {
        let rename = |class: &mut Class| {
            if let Some(named) = named(class) {
                *class = named;
            }
        };
        match self {
            Self::Labels(labels) => labels.iter_mut().for_each(|label| rename(&mut label.class)),
            Self::Mask(mask) => mask.segments_mut().iter_mut().for_each(|segment| rename(&mut segment.class)),
            Self::Tensors(_) => {}
        }
    }
}

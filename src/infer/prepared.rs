use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::letterbox::Letterbox;
use super::manifest::Input;
use super::model::Model;
use super::preprocess::Preprocessor;
use crate::media::{ColorInfo, I420};

/// Models whose inputs are alike, and the memory of the tensors that they share.
#[derive(Debug, Clone)]
pub struct Twins {
    input: Arc<Input>,
    spare: Arc<Spare>,
}

/// The input tensor of one picture, made by the first of the models that comes to it and copied by the others.
pub struct Prepared {
    input: Arc<Input>,
    spare: Arc<Spare>,
    made: OnceLock<(Vec<f32>, Letterbox)>,
}

/// Tensors for reuse: as many as can be in work for one session.
#[derive(Debug, Default)]
struct Spare(Mutex<Vec<Vec<f32>>>);

impl Spare {
    const KEPT: usize = 2;
}

impl Twins {
    /// Where at least two of the models take the same input, that input; of several such the first.
    #[must_use]
    pub fn among(models: &[&Model]) -> Option<Self> {
        let inputs: Vec<&Input> = models.iter().map(|model| &model.manifest().input).collect();
        let mut firsts = inputs.iter().enumerate();
        let (_, input) = firsts.find(|(at, input)| inputs[at + 1..].iter().any(|other| input.is_like(other)))?;
        Some(Self { input: Arc::new((*input).clone()), spare: Arc::default() })
    }

    /// The tensor of a new picture, not made yet.
    #[must_use]
    pub fn prepare(&self) -> Arc<Prepared> {
        Arc::new(Prepared { input: Arc::clone(&self.input), spare: Arc::clone(&self.spare), made: OnceLock::new() })
    }
}

impl Prepared {
    /// Whether it is what a model with this input takes.
    pub(super) fn suits(&self, input: &Input) -> bool {
        self.input.is_like(input)
    }

    /// Writes the picture's tensor to `place`, one item of the input. Whoever comes while another makes it waits for
    /// that: a fraction of a millisecond.
    pub(super) fn fill(
        &self,
        preprocessor: &mut Preprocessor,
        picture: &I420,
        color: ColorInfo,
        place: &mut [f32],
    ) -> Letterbox {
        let (tensor, letterbox) = self.made.get_or_init(|| {
            let mut tensor = self.spare.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
            tensor.resize(self.input.item_len(), 0.0);
            let letterbox = preprocessor.fill(picture, color, &mut tensor);
            (tensor, letterbox)
        });
        place.copy_from_slice(tensor);
        *letterbox
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        if let Some((tensor, _)) = self.made.take() {
            let mut spare = self.spare.0.lock().unwrap_or_else(PoisonError::into_inner);
            if spare.len() < Spare::KEPT {
                spare.push(tensor);
            }
        }
    }
}

impl fmt::Debug for Prepared {
    /// Without its thousands of numbers.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepared").field("size", &self.input.size).field("made", &self.made.get().is_some()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::infer::manifest::{Channels, Layout, Resize};

    fn input() -> Input {
        Input {
            tensor: None,
            layout: Layout::Nchw,
            color: Channels::Rgb,
            size: [16, 8],
            resize: Resize::Stretch,
            pad: 114.0,
            mean: [0.0; 3],
            scale: [1.0; 3],
        }
    }

    #[test]
    fn the_first_makes_the_tensor_and_the_others_copy_it() {
        let twins = Twins { input: Arc::new(input()), spare: Arc::default() };
        let (mut preprocessor, mut picture) = (Preprocessor::new(input()), I420::new(16, 8));
        picture.planes_mut()[0].fill(90);
        let prepared = twins.prepare();
        let mut tensors = [vec![0.0; 384], vec![1.0; 384]];
        prepared.fill(&mut preprocessor, &picture, ColorInfo::default(), &mut tensors[0]);
        // Who comes second does not look at the picture.
        let other = I420::new(16, 8);
        prepared.fill(&mut preprocessor, &other, ColorInfo::default(), &mut tensors[1]);
        let mut alone = vec![0.0; 384];
        preprocessor.fill(&picture, ColorInfo::default(), &mut alone);
        assert_eq!((&tensors[0], &tensors[1]), (&alone, &alone));
        drop(prepared);
        assert_eq!(twins.spare.0.lock().map(|spare| spare.len()).ok(), Some(1));
        assert!(twins.prepare().suits(&Input { tensor: Some("x".to_owned()), ..input() }));
        assert!(!twins.prepare().suits(&Input { pad: 0.0, ..input() }));
    }
}

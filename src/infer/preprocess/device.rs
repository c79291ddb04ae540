//! The same on a device: what the host computes for the kernel [`Tensor`], which gives the very bits of the
//! [`Preprocessor`](super::Preprocessor).

use super::{Axes, ChromaAxis, LumaAxis, Mix, Preprocessor, mixes, padding};
use crate::device::kernels::{self, Nv12, Order, Picture, Precision, Tensor};
use crate::infer::Letterbox;
use crate::infer::manifest::{Channels, Input, Layout, Resize};
use crate::media::{ColorInfo, I420};

/// What pictures of one size have in common on their way into one model's input.
#[derive(Debug)]
pub struct Tables {
    input: Input,
    size: (u32, u32),
    letterbox: Letterbox,
    words: Vec<u32>,
}

impl Tables {
    /// For pictures of `width` × `height`, each at least 1.
    #[must_use]
    pub fn new(input: &Input, width: u32, height: u32) -> Self {
        let size = (width, height);
        let letterbox = Letterbox::new(input, width, height);
        let axes = Axes::new(&letterbox, size);
        let words = axes.luma.iter().zip(&axes.chroma).flat_map(|(luma, chroma)| words(luma, chroma)).collect();
        Self { input: input.clone(), size, letterbox, words }
    }

    /// Width and height of the pictures.
    #[must_use]
    pub const fn size(&self) -> (u32, u32) {
        self.size
    }

    /// Where they lie in the input.
    #[must_use]
    pub const fn letterbox(&self) -> Letterbox {
        self.letterbox
    }

    /// What has to lie in the device's memory at the address that [`Tables::kernel`] gets for it.
    #[must_use]
    pub fn words(&self) -> &[u32] {
        &self.words
    }

    /// The kernel that writes `picture` to `values`, the address of one item of the input. `tables` is the address of
    /// [`Tables::words`].
    ///
    /// # Panics
    /// If the picture has another size.
    #[must_use]
    pub fn kernel(&self, picture: Nv12, color: ColorInfo, tables: u64, values: u64, precision: Precision) -> Tensor {
        assert_eq!((picture.width, picture.height), self.size, "tables for pictures of this size");
        let ([left, top, columns, rows], [width, height]) = (self.letterbox.content(), self.input.size);
        Tensor {
            picture,
            tables,
            values,
            width,
            height,
            left,
            top,
            columns,
            rows,
            channels: if self.input.color.count() == 1 { 1 } else { 3 },
            order: match self.input.layout {
                Layout::Nchw => Order::Planar,
                Layout::Nhwc => Order::Interleaved,
            },
            precision,
            mixes: mixes(&self.input, color).map(Into::into),
            pad: padding(&self.input),
        }
    }
}

/// A small computation whose result is known, which shows that a device's arithmetic is the host's: a picture of odd sides
/// becomes a tensor.
#[derive(Debug)]
pub struct SelfTest {
    picture: I420,
    source: Picture,
    tables: Tables,
}

impl SelfTest {
    /// Always the same one.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it is no state but work")]
    pub fn new() -> Self {
        let (mean, scale) = ([123.675, 116.28, 103.53], [1.0 / 58.395, 1.0 / 57.12, 1.0 / 57.375]);
        let (size, resize) = ([64, 48], Resize::LetterboxCenter);
        let input =
            Input { tensor: None, layout: Layout::Nchw, color: Channels::Rgb, size, resize, pad: 114.0, mean, scale };
        let mut picture = I420::new(75, 51);
        for (plane, factor) in picture.planes_mut().into_iter().zip([73u8, 151, 29]) {
            let mut code = factor;
            for sample in plane {
                code = code.wrapping_mul(factor).wrapping_add(factor);
                *sample = code;
            }
        }
        let (source, tables) = (Picture::interleave(&picture, 96, 0xaa), Tables::new(&input, 75, 51));
        Self { picture, source, tables }
    }

    /// What has to lie in the device's memory at the address that [`SelfTest::kernel`] gets first.
    #[must_use]
    pub fn source(&self) -> &[u8] {
        self.source.data()
    }

    /// What has to lie at the second address.
    #[must_use]
    pub fn words(&self) -> &[u32] {
        self.tables.words()
    }

    /// What has to run; the third address is that of as many words as [`SelfTest::expected`] gives.
    #[must_use]
    pub fn kernel(&self, source: u64, words: u64, values: u64) -> Tensor {
        self.tables.kernel(self.source.at(source), ColorInfo::default(), words, values, Precision::Single)
    }

    /// What is then at the third address: the bits of the numbers that the host computes.
    #[must_use]
    pub fn expected(&self) -> Vec<u32> {
        let mut tensor = vec![0.0; self.tables.input.item_len()];
        Preprocessor::scalar(self.tables.input.clone()).fill(&self.picture, ColorInfo::default(), &mut tensor);
        tensor.into_iter().map(f32::to_bits).collect()
    }
}

impl From<Mix> for kernels::Mix {
    fn from(Mix { y, cb, cr, base, scale, offset }: Mix) -> Self {
        Self { y, cb, cr, base, scale, offset }
    }
}

/// One axis as the kernel reads it.
fn words<'a>(luma: &'a LumaAxis, chroma: &'a ChromaAxis) -> impl Iterator<Item = u32> + 'a {
    let bits = |values: &'a [f32]| values.iter().map(|value| value.to_bits());
    let luma = luma.index.iter().copied().chain(bits(&luma.weight));
    luma.chain(chroma.index.iter().copied()).chain(chroma.weights.iter().flat_map(move |weights| bits(weights)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::device::kernels::emulator::Memory;
    use crate::device::kernels::tests::{Uploaded, noise, run};
    use crate::device::kernels::to_half;
    use crate::infer::preprocess::tests::{colors, input, inputs};

    /// What the kernel writes, bit for bit, with a word before and after the item that has to stay as it is.
    fn on_device(input: &Input, picture: &I420, color: ColorInfo, precision: Precision, more: [u32; 2]) -> Vec<u8> {
        let (uploaded, tables) =
            (Uploaded::new(picture, more, 0xd7), Tables::new(input, picture.width(), picture.height()));
        let words = Memory::of_words(tables.words());
        let tensor = Memory::new(&vec![0xee; input.item_len() * precision.bytes() + 4]);
        run(&tables.kernel(uploaded.nv12, color, words.address(), tensor.address() + 4, precision));
        let written = tensor.bytes();
        assert_eq!(written[..4], [0xee; 4]);
        written[4..].to_vec()
    }

    /// The twin's bits.
    fn on_cpu(input: &Input, picture: &I420, color: ColorInfo, precision: Precision) -> Vec<u8> {
        let mut tensor = vec![f32::NAN; input.item_len()];
        Preprocessor::scalar(input.clone()).fill(picture, color, &mut tensor);
        match precision {
            Precision::Single => tensor.iter().flat_map(|value| value.to_bits().to_ne_bytes()).collect(),
            Precision::Half => tensor.iter().flat_map(|value| to_half(*value).to_ne_bytes()).collect(),
        }
    }

    fn precisions() -> impl Strategy<Value = Precision> {
        prop::sample::select(vec![Precision::Single, Precision::Half])
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(192))]

        #[test]
        fn the_kernel_gives_the_bits_of_the_preprocessor(
            input in inputs(), color in colors(), precision in precisions(), width in 1u32..90, height in 1u32..90,
            more in (0u32..9, 0u32..9), seed in any::<u32>(),
        ) {
            let picture = noise(width, height, seed);
            let written = on_device(&input, &picture, color, precision, more.into());
            prop_assert!(written == on_cpu(&input, &picture, color, precision), "{input:?} {color:?} {precision:?}");
        }

        #[test]
        fn any_mean_scale_and_padding_will_do(
            mean in prop::array::uniform3(-1e6f32..1e6), scale in prop::array::uniform3(-1e3f32..1e3),
            tiny in prop::bool::ANY, pad in 0f32..255.0, input in inputs(), precision in precisions(), seed in any::<u32>(),
        ) {
            // With the smaller scale, numbers of half precision have fewer digits.
            let input = Input { mean, scale: scale.map(|scale| if tiny { scale * 1e-14 } else { scale }), pad, ..input };
            let (picture, color) = (noise(19, 11, seed), ColorInfo::default());
            let written = on_device(&input, &picture, color, precision, [0, 3]);
            prop_assert!(written == on_cpu(&input, &picture, color, precision), "{input:?} {precision:?}");
        }
    }

    #[test]
    #[should_panic(expected = "tables for pictures of this size")]
    fn tables_are_not_used_for_another_size() {
        let input = input([16, 16], Layout::Nchw, Channels::Rgb, Resize::Stretch);
        let picture = Nv12 { width: 8, height: 9, ..Nv12::default() };
        let _ = Tables::new(&input, 8, 8).kernel(picture, ColorInfo::default(), 0, 0, Precision::Single);
    }

    #[test]
    fn the_self_test_passes_and_notices_a_wrong_byte() {
        let test = SelfTest::new();
        let expected = test.expected();
        let result = |source: &[u8]| {
            let (source, words) = (Memory::new(source), Memory::of_words(test.words()));
            let values = Memory::of_words(&vec![!0; expected.len()]);
            run(&test.kernel(source.address(), words.address(), values.address()));
            values.words()
        };
        assert!(result(test.source()) == expected);
        let mut wrong = test.source().to_vec();
        wrong[5 * 96 + 7] ^= 1;
        assert!(result(&wrong) != expected);
    }
}

//! Models on a GPU: pictures, tensors and results stay there, and what the host gets is boxes.
#![expect(unsafe_code, reason = "launches kernels")]

use super::Params;
use super::decoder::device::{self, Head};
use super::preprocess::device::SelfTest;
use crate::device::kernels::{Launch as _, Launcher, Layout, Precision, Unfit};
use crate::device::{Buffer, Error};

/// Has a GPU do small computations whose results are known.
///
/// # Errors
/// Any [`Unfit`].
pub fn self_test(on: &Launcher<'_>) -> Result<(), Unfit> {
    tensor_test(on)?;
    device::SelfTest::all().iter().try_for_each(|test| detections_test(test, on))
}

fn tensor_test(on: &Launcher<'_>) -> Result<(), Unfit> {
    let test = SelfTest::new();
    let (gpu, stream, expected) = (on.stream().device(), on.stream(), test.expected());
    let mut source = Buffer::new(gpu, test.source().len())?;
    source.upload(test.source(), stream)?;
    let mut words = Buffer::new(gpu, size_of_val(test.words()))?;
    words.upload_words(test.words(), stream)?;
    let values = Buffer::new(gpu, size_of_val(&*expected))?;
    // SAFETY: all three have the lengths that the kernel needs, and nobody else has them.
    unsafe { on.launch(&test.kernel(source.address(), words.address(), values.address())) }?;
    let mut found = vec![0; expected.len()];
    values.download_words(&mut found, stream)?;
    if found == expected { Ok(()) } else { Err(Unfit::Wrong("filling a tensor")) }
}

fn detections_test(test: &device::SelfTest, on: &Launcher<'_>) -> Result<(), Unfit> {
    let stream = on.stream();
    let values = test.output();
    let mut output = Buffer::new(stream.device(), values.len())?;
    output.upload(&values, stream)?;
    let mut boxes = Boxes::new(*test.head(), test.layout(), on)?;
    for (item, params) in test.params().iter().enumerate() {
        boxes.want(item, params);
    }
    // SAFETY: the output has the shape that the layout is for, and nobody else has it.
    unsafe { boxes.find(output.address(), test.precision(), on) }?;
    let words = boxes.download(on)?;
    if test.is_expected(&words) { Ok(()) } else { Err(Unfit::Wrong(test.name())) }
}

/// What it takes to decode one output of a model on a GPU.
#[derive(Debug)]
pub struct Boxes {
    head: Head,
    layout: Layout,
    /// What is wanted of each item, as it is uploaded.
    wanted: Vec<u32>,
    wishes: Buffer,
    work: Buffer,
    results: Buffer,
}

impl Boxes {
    /// For an output of `head` that the layout is for.
    ///
    /// # Errors
    /// Any [`Error`] of the driver.
    pub fn new(head: Head, layout: Layout, on: &Launcher<'_>) -> Result<Self, Error> {
        let gpu = on.stream().device();
        let wanted = vec![0; layout.wishes_len()];
        let (wishes, work) = (Buffer::new(gpu, size_of_val(&*wanted))?, Buffer::new(gpu, layout.work_len())?);
        let results = Buffer::new(gpu, layout.results_len() * size_of::<u32>())?;
        Ok(Self { head, layout, wanted, wishes, work, results })
    }

    /// Says what is wanted of an item from now on.
    ///
    /// # Panics
    /// If there is no such item.
    pub fn want(&mut self, item: usize, params: &Params) {
        params.write(&self.layout, item, &mut self.wanted);
    }

    /// Finds the boxes in the output at this address.
    ///
    /// # Safety
    /// That is memory of the GPU with an output of the shape that the layout is for, which nobody writes before the stream is
    /// done with it.
    ///
    /// # Errors
    /// Any [`Error`] of the driver.
    pub unsafe fn find(&mut self, output: u64, precision: Precision, on: &Launcher<'_>) -> Result<(), Error> {
        self.wishes.upload_words(&self.wanted, on.stream())?;
        let batch = self.layout.batch(self.wishes.address(), self.work.address(), self.results.address());
        // SAFETY: the memory has the lengths that the layout says and is this one's alone; the output is the caller's.
        unsafe { self.head.launch(batch, output, precision, on) }
    }

    /// What was found, for [`Layout::read`]; waits for it.
    ///
    /// # Errors
    /// Any [`Error`] of the driver.
    pub fn download(&self, on: &Launcher<'_>) -> Result<Vec<u32>, Error> {
        let mut words = vec![0; self.layout.results_len()];
        self.results.download_words(&mut words, on.stream())?;
        Ok(words)
    }
}

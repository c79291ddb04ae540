//! Models on a GPU: pictures, tensors and results stay there, and what the host gets is boxes.
#![expect(unsafe_code, reason = "launches kernels")]

use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use super::Params;
use super::decoder::device::{self, Head};
use super::preprocess::device::SelfTest;
use crate::device::kernels::{self, Launch as _, Launcher, Layout, Precision, Program, Unfit};
use crate::device::{Buffer, Device, Error, Pinned, PinnedPool, SurfacePool};

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
    let host = PinnedPool::new(stream.device(), 1 << 20);
    let mut boxes = Boxes::new(*test.head(), test.layout(), &host, stream.device())?;
    for (item, params) in test.params().iter().enumerate() {
        boxes.want(item, params);
    }
    // SAFETY: the output has the shape that the layout is for, and nobody else has it; the stream is waited for.
    unsafe { boxes.find(output.address(), test.precision(), on) }?;
    stream.wait()?;
    if test.is_expected(boxes.found.words()) { Ok(()) } else { Err(Unfit::Wrong(test.name())) }
}

/// Where ONNX Runtime has the tensors of models that run in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tensors {
    /// In the GPU's memory, its CUDA provider running the model.
    Device,
    /// In the host's memory, of which the GPU can use every address, the processors running the model.
    Host,
}

/// What keeps runs of ONNX Runtime that are recorded, as CUDA graphs, from being spoilt: sessions come, go, and record by
/// turns.
///
/// While a stream is recorded nobody may wait for the whole GPU, on whatever thread and in whatever mode (CUDA's programming
/// guide, on prohibited operations). Making the CUDA provider of a session does (`cudaDeviceSynchronize` in the constructor
/// of `CUDAExecutionProvider`), and so does giving back what its threads had (`cublasDestroy`).
#[derive(Debug, Default)]
pub(super) struct Turns {
    is_taken: Mutex<bool>,
    given_back: Condvar,
}

impl Turns {
    /// Longest time for which a turn is waited for: that of opening a large model.
    const LIMIT: Duration = Duration::from_secs(60);

    /// Waits for a turn. When others take too long, it is as if it were had: what can go wrong is a recording.
    pub(super) fn take(self: &Arc<Self>) -> Turn {
        let is_taken = self.is_taken.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.given_back.wait_timeout_while(is_taken, Self::LIMIT, |is_taken| *is_taken);
        let (mut is_taken, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() {
            tracing::warn!(limit = ?Self::LIMIT, "a session on a GPU takes long to come or go; another does not wait for it");
            return Turn { of: None };
        }
        *is_taken = true;
        Turn { of: Some(Arc::clone(self)) }
    }
}

/// Nobody else has it while this lives.
#[derive(Debug)]
pub(super) struct Turn {
    of: Option<Arc<Turns>>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(turns) = self.of.take() {
            *turns.is_taken.lock().unwrap_or_else(PoisonError::into_inner) = false;
            turns.given_back.notify_one();
        }
    }
}

/// Whether the runs of a model are recorded.
#[derive(Debug, Default)]
pub(super) struct Recording {
    is_wanted: bool,
    refused: OnceLock<String>,
}

impl Recording {
    pub(super) fn is_on(&self) -> bool {
        self.is_wanted && self.refused.get().is_none()
    }

    /// Why they are not, though that was wanted.
    pub(super) fn refused(&self) -> Option<&str> {
        self.refused.get().map(String::as_str)
    }

    /// None is from now on.
    pub(super) fn give_up(&self, model: &str, reason: &str) {
        if self.is_wanted && self.refused.set(reason.to_owned()).is_ok() {
            tracing::warn!(model, reason, "a model's runs can't be recorded on the GPU; each is handed over anew");
        }
    }
}

/// A GPU in whose memory models find their pictures and leave what they found. Clones share it.
#[derive(Debug, Clone)]
pub struct Gpu {
    pub(super) program: Arc<Program>,
    pub(super) tensors: Tensors,
    /// For pictures that come from the host.
    pub(super) surfaces: Arc<SurfacePool>,
    pub(super) host: Arc<PinnedPool>,
    pub(super) turns: Arc<Turns>,
    pub(super) recording: Arc<Recording>,
}

impl Gpu {
    /// Bytes of the GPU's memory for pictures that come from the host.
    const SURFACES: usize = 512 << 20;
    /// Bytes of the host's memory for what goes there and comes back.
    const HOST: usize = 256 << 20;

    /// A GPU on which the kernels are loaded. Each run of a model is handed over anew.
    #[must_use]
    pub fn new(program: Arc<Program>, tensors: Tensors) -> Self {
        let gpu = program.device();
        let (surfaces, host) = (SurfacePool::new(gpu, Self::SURFACES), PinnedPool::new(gpu, Self::HOST));
        Self { program, tensors, surfaces, host, turns: Arc::default(), recording: Arc::default() }
    }

    /// The same, but ONNX Runtime records a model's runs, as far as it can, and the GPU repeats what was recorded.
    #[must_use]
    pub fn recording(self) -> Self {
        Self { recording: Arc::new(Recording { is_wanted: true, refused: OnceLock::new() }), ..self }
    }

    /// The same for one model: that its runs can't be recorded says nothing of others.
    pub(super) fn for_a_model(&self) -> Self {
        let recording = Recording { is_wanted: self.recording.is_wanted, refused: OnceLock::new() };
        Self { recording: Arc::new(recording), ..self.clone() }
    }
}

impl PartialEq for Gpu {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.program, &other.program) && self.tensors == other.tensors
    }
}

impl Eq for Gpu {}

/// What it takes to decode one output of a model on a GPU. It is not to be dropped, and what was found not to be read,
/// before the stream is done with it.
#[derive(Debug)]
pub(super) struct Boxes {
    head: Head,
    layout: Layout,
    wanted: Pinned,
    found: Pinned,
    wishes: Buffer,
    work: Buffer,
    results: Buffer,
}

impl Boxes {
    /// For an output of `head` that the layout is for.
    ///
    /// # Errors
    /// Any [`Error`] of the driver.
    pub(super) fn new(head: Head, layout: Layout, host: &Arc<PinnedPool>, gpu: &Arc<Device>) -> Result<Self, Error> {
        let (wishes_len, results_len) = (4 * layout.wishes_len(), 4 * layout.results_len());
        let (wanted, found) = (host.take(wishes_len)?, host.take(results_len)?);
        let (wishes, work) = (Buffer::new(gpu, wishes_len)?, Buffer::new(gpu, layout.work_len())?);
        Ok(Self { head, layout, wanted, found, wishes, work, results: Buffer::new(gpu, results_len)? })
    }

    /// Says what is wanted of an item from now on.
    ///
    /// # Panics
    /// If there is no such item.
    pub(super) fn want(&mut self, item: usize, params: &Params) {
        params.write(&self.layout, item, self.wanted.words_mut());
    }

    /// Has the stream find the boxes in the output at this address.
    ///
    /// # Safety
    /// That is memory of the GPU with an output of the shape that the layout is for, which nobody writes before the stream is
    /// done with it. Until then this is not used otherwise, unless the GPU is lost.
    ///
    /// # Errors
    /// Any [`Error`] of the driver.
    pub(super) unsafe fn find(&mut self, output: u64, precision: Precision, on: &Launcher<'_>) -> Result<(), Error> {
        let Self { head, layout, wanted, found, wishes, work, results } = self;
        let batch = layout.batch(wishes.address(), work.address(), results.address());
        // SAFETY: the memory has the lengths that the layout says and is this one's alone; the output and the time are the
        // caller's.
        unsafe {
            wanted.send(wishes.address(), on.stream())?;
            head.launch(batch, output, precision, on)?;
            found.fetch(results.address(), on.stream())
        }
    }

    /// What was found in an item.
    ///
    /// # Panics
    /// If there is no such item.
    pub(super) fn read(&self, item: usize) -> impl ExactSizeIterator<Item = kernels::Candidate> + use<'_> {
        self.layout.read(item, self.found.words())
    }
}

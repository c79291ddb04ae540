//! The GPU, opened as the server opens it.
#![allow(unsafe_code, reason = "launches kernels")]

use std::sync::Arc;

use saccade::decode::nvdec;
use saccade::device::kernels::{Batch, Kernel, Launch as _, Launcher, Precision, Program};
use saccade::device::{Buffer, Device};
use saccade::infer::Head;
use saccade::pipeline::Libraries;

use super::Stop;
use super::comparisons::Place;

/// A GPU with the kernels on it.
#[derive(Debug, Clone)]
pub struct Machine {
    pub libraries: Libraries,
    pub device: Arc<Device>,
    pub program: Arc<Program>,
}

impl Machine {
    /// The first GPU of this machine.
    ///
    /// # Errors
    /// [`Stop::NoGpu`] where there is none, [`Stop::Failed`] where its driver does not take the kernels.
    pub fn open() -> Result<Self, Stop> {
        Self::of(Libraries::open().map_err(|missing| Stop::NoGpu(missing.to_string()))?)
    }

    /// The first GPU of this driver.
    ///
    /// # Errors
    /// As [`Machine::open`].
    pub fn of(libraries: Libraries) -> Result<Self, Stop> {
        let device = Device::open(libraries.driver, 0).map_err(|missing| Stop::NoGpu(missing.to_string()))?;
        let program = Program::load(&device).map_err(|error| Stop::Failed(format!("the kernels: {error}")))?;
        Ok(Self { libraries, device, program: Arc::new(program) })
    }

    /// Its decoders.
    ///
    /// # Errors
    /// Why there are none.
    pub fn decoders(&self) -> Result<Arc<nvdec::Hardware>, String> {
        let api = match self.libraries.decoder {
            Some(api) => api,
            // Opened once more for the reason.
            None => nvdec::Api::open().map_err(|missing| missing.to_string())?,
        };
        Ok(nvdec::Hardware::with_kernels(&self.program, api, nvdec::Bounds::default()))
    }
}

/// Bytes before and behind each piece of memory that no kernel may touch.
const GUARD: usize = 256;
const UNTOUCHED: u8 = 0xa5;

/// Kernels run on the GPU.
pub struct OnGpu<'a>(pub Launcher<'a>);

/// Memory of the GPU between guards.
pub struct Guarded {
    buffer: Buffer,
    len: usize,
}

impl Place for OnGpu<'_> {
    type Memory = Guarded;

    fn put(&self, bytes: &[u8]) -> Result<Guarded, String> {
        let (stream, guard) = (self.0.stream(), [UNTOUCHED; GUARD]);
        let mut buffer = Buffer::new(stream.device(), bytes.len() + 2 * GUARD).map_err(|error| error.to_string())?;
        buffer.upload(&[&guard, bytes, &guard].concat(), stream).map_err(|error| error.to_string())?;
        Ok(Guarded { buffer, len: bytes.len() })
    }

    fn address(memory: &Guarded) -> u64 {
        memory.buffer.address() + GUARD as u64
    }

    fn bytes(&self, memory: &Guarded) -> Result<Vec<u8>, String> {
        let mut all = vec![0; memory.buffer.len()];
        memory.buffer.download(&mut all, self.0.stream()).map_err(|error| error.to_string())?;
        let behind = all.split_off(GUARD + memory.len);
        let found = all.split_off(GUARD);
        if all.iter().chain(&behind).any(|byte| *byte != UNTOUCHED) {
            return Err("it wrote beside its memory".to_owned());
        }
        Ok(found)
    }

    fn launch<K: Kernel>(&self, kernel: &K) -> Result<(), String> {
        // SAFETY: the comparisons put memory of the lengths that their kernels need, and read it back before it goes.
        unsafe { self.0.launch(kernel) }.map_err(|error| error.to_string())
    }

    fn find(&self, head: &Head, batch: Batch, output: u64, precision: Precision) -> Result<(), String> {
        // SAFETY: as above, by the head's layout.
        unsafe { head.launch(batch, output, precision, &self.0) }.map_err(|error| error.to_string())
    }
}

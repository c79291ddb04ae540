#![expect(unsafe_code, reason = "calls the CUDA driver")]

use std::ffi::c_void;
use std::sync::Arc;
use std::{fmt, ptr};

use cudarc::driver::sys::{CUfunction, CUmodule};

use super::{ENTRIES, Entry, Geometry, Kernel, MODULES};
use crate::device::{Device, Error, Stream};

/// Runs kernels, one after the other.
pub trait Launch {
    /// What goes wrong.
    type Error;

    /// Has a kernel run after those before. One that has nothing to do is not run.
    ///
    /// # Safety
    /// The addresses in `kernel` are those of the device's memory as far as the kernel reads and writes it. That stays until
    /// the kernel is done, and nobody else uses it until then in a way that does not go with the kernel's.
    ///
    /// # Errors
    /// Those of starting it; what goes wrong in the kernel itself is told later.
    unsafe fn launch<K: Kernel>(&self, kernel: &K) -> Result<(), Self::Error>;
}

/// All kernels, translated for one GPU and ready to be launched there.
pub struct Program {
    gpu: Arc<Device>,
    modules: Vec<CUmodule>,
    functions: Vec<(Entry, CUfunction)>,
}

// SAFETY: the driver's functions take modules and functions on any thread.
unsafe impl Send for Program {}
// SAFETY: as above.
unsafe impl Sync for Program {}

impl Program {
    /// Has the driver translate the kernels, which takes it a moment, or find them among what it translated before.
    ///
    /// # Errors
    /// Any [`Error`] of the driver: among them that it is too old for the PTX, or does not know the GPU.
    pub fn load(gpu: &Arc<Device>) -> Result<Self, Error> {
        let mut program = Self { gpu: Arc::clone(gpu), modules: Vec::new(), functions: Vec::new() };
        let _current = gpu.enter()?;
        let driver = gpu.driver();
        for module in MODULES {
            let mut loaded = ptr::null_mut();
            // SAFETY: the text ends with a zero, and the pointer outlives the call; the context is current.
            let status = unsafe { (driver.load_module)(&raw mut loaded, module.ptx.as_ptr().cast()) };
            gpu.check("cuModuleLoadData", status)?;
            program.modules.push(loaded);
            for entry in ENTRIES.into_iter().filter(|entry| entry.module == module) {
                let (mut function, name) = (ptr::null_mut(), name(entry.name));
                // SAFETY: the module is loaded, the name ends with a zero, and the pointer outlives the call.
                let status = unsafe { (driver.module_function)(&raw mut function, loaded, name.as_ptr().cast()) };
                gpu.check("cuModuleGetFunction", status)?;
                program.functions.push((entry, function));
            }
        }
        Ok(program)
    }

    /// The GPU it is on.
    #[must_use]
    pub const fn device(&self) -> &Arc<Device> {
        &self.gpu
    }

    /// Runs kernels on this stream, in its order.
    #[must_use]
    pub const fn on<'a>(&'a self, stream: &'a Stream) -> Launcher<'a> {
        Launcher { program: self, stream }
    }
}

/// Has a stream run kernels.
#[derive(Debug, Clone, Copy)]
pub struct Launcher<'a> {
    program: &'a Program,
    stream: &'a Stream,
}

impl Launcher<'_> {
    /// The stream.
    #[must_use]
    pub const fn stream(&self) -> &Stream {
        self.stream
    }
}

/// The driver finishes what a stream was given before it frees memory, so that memory which nobody else uses may go as soon
/// as the kernel is launched.
impl Launch for Launcher<'_> {
    type Error = Error;

    unsafe fn launch<K: Kernel>(&self, kernel: &K) -> Result<(), Error> {
        let Geometry { grid: [grid_x, grid_y, grid_z], block: [block_x, block_y, block_z] } = kernel.geometry();
        if grid_x == 0 || grid_y == 0 || grid_z == 0 {
            return Ok(());
        }
        let Program { gpu, functions, .. } = self.program;
        let found = functions.iter().find(|(entry, _)| entry.name == K::ENTRY.name);
        let function = found.map_or(ptr::null_mut(), |(_, function)| *function);
        let mut arguments = [ptr::from_ref(kernel).cast_mut().cast::<c_void>()];
        let _current = gpu.enter()?;
        // SAFETY: the kernel takes one argument of this type, which the driver copies before it returns; the caller
        // answers for the addresses in it.
        let status = unsafe {
            (gpu.driver().launch_kernel)(
                function,
                grid_x,
                grid_y,
                grid_z,
                block_x,
                block_y,
                block_z,
                0,
                self.stream.raw(),
                arguments.as_mut_ptr(),
                ptr::null_mut(),
            )
        };
        gpu.check("cuLaunchKernel", status)
    }
}

/// A name as C has it.
fn name(name: &str) -> Vec<u8> {
    [name.as_bytes(), &[0]].concat()
}

impl Drop for Program {
    fn drop(&mut self) {
        for module in self.modules.drain(..) {
            // SAFETY: nobody else has the handle; the driver waits for kernels of it that run.
            self.gpu.give_back("cuModuleUnload", |driver| unsafe { (driver.unload_module)(module) });
        }
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Program({} kernels)", self.functions.len())
    }
}

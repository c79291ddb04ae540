//! What is computed on the device, each kernel with a twin in Rust that gives the same bits.
//!
//! The sources are the `.cu` files beside this one. They are shipped as PTX, NVIDIA's portable assembly, which the driver
//! translates for the device that it finds; `make kernels` writes it anew, and a test compares it with the sources. A
//! kernel has one argument, a structure whose layout is that of the [`Kernel`] of the same name here. Addresses in it are
//! the device's.

mod detections;
mod frames;
mod half;
pub mod overlay;
mod picture;
mod program;
mod self_test;
mod surfaces;

use std::ffi::CStr;

pub use detections::{
    Batch, Begin, Candidate, Keep, Layout, Level, MAX_CANDIDATES, MAX_LEVELS, Overlap, Rank, Wish, Yolov8, Yolox,
};
pub use frames::{Halve, Mix, Nv12, Order, Planes, Precision, Tensor, Turn};
pub use half::{from_half, to_half};
pub use picture::Picture;
pub use program::{Launch, Launcher, Program};
pub use self_test::{SelfTest, Unfit};

/// PTX of several kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Module {
    /// The name of its source, without the extension.
    pub name: &'static str,
    /// The text, as `cuModuleLoadData` takes it.
    pub ptx: &'static CStr,
}

/// A kernel's one argument, which says how often it runs.
///
/// Only the structures here implement it: their layout is the one that the kernel reads.
pub trait Kernel: Copy + private::Sealed {
    /// The kernel's name in its module.
    const ENTRY: Entry;

    /// Blocks and threads that do all of the work.
    fn geometry(&self) -> Geometry;
}

/// A kernel as the driver finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: &'static str,
    /// Where it is.
    pub module: Module,
    /// Bytes of its argument.
    pub argument: usize,
}

/// How often a kernel runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Blocks along x, y and z.
    pub grid: [u32; 3],
    /// Threads of a block along x, y and z.
    pub block: [u32; 3],
}

impl Geometry {
    /// Blocks of `block` threads over `threads` of them.
    const fn over(threads: [u32; 3], block: [u32; 3]) -> Self {
        let [x, y, z] = threads;
        Self { grid: [x.div_ceil(block[0]), y.div_ceil(block[1]), z.div_ceil(block[2])], block }
    }
}

/// Kernels on pictures.
pub const FRAMES: Module = Module { name: "frames", ptx: text(concat!(include_str!("frames.ptx"), "\0")) };
/// Kernels from a model's output to detections.
pub const DETECTIONS: Module = Module { name: "detections", ptx: text(concat!(include_str!("detections.ptx"), "\0")) };
/// The kernel that paints overlays.
pub const OVERLAY: Module = Module { name: "overlay", ptx: text(concat!(include_str!("overlay.ptx"), "\0")) };
/// All modules.
pub const MODULES: [Module; 3] = [FRAMES, DETECTIONS, OVERLAY];
/// All kernels.
pub const ENTRIES: [Entry; 11] = [
    Tensor::ENTRY,
    Halve::ENTRY,
    Turn::ENTRY,
    Planes::ENTRY,
    Begin::ENTRY,
    Yolov8::ENTRY,
    Yolox::ENTRY,
    Rank::ENTRY,
    Overlap::ENTRY,
    Keep::ENTRY,
    overlay::Paint::ENTRY,
];

#[expect(clippy::panic, reason = "when it is compiled")]
const fn text(ptx: &'static str) -> &'static CStr {
    match CStr::from_bytes_with_nul(ptx.as_bytes()) {
        Ok(text) => text,
        Err(_) => panic!("a zero byte inside PTX"),
    }
}

mod private {
    /// Keeps structures of other layouts from being handed to kernels.
    pub trait Sealed {}
}

#[cfg(test)]
pub(crate) mod emulator;

#[cfg(test)]
pub(crate) mod tests;

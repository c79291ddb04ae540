use super::private::Sealed;
use super::{Entry, FRAMES, Geometry, Kernel};
use crate::media::Rotation;

/// A picture in NV12 on the device, of 8 bits a sample: a plane of luma, and one of Cb and Cr by turns. Chroma has half
/// the sides of luma, rounded up.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Nv12 {
    /// Address of the first sample of luma.
    pub luma: u64,
    /// Address of the first sample of Cb.
    pub chroma: u64,
    /// Bytes from a row of luma to the next.
    pub luma_pitch: u32,
    /// Bytes from a row of chroma to the next.
    pub chroma_pitch: u32,
    /// Width in samples of luma, at least 1.
    pub width: u32,
    /// Height in samples of luma, at least 1.
    pub height: u32,
}

impl Nv12 {
    /// Pairs of chroma in a row, and rows of them.
    #[must_use]
    pub const fn chroma_size(&self) -> [u32; 2] {
        [self.width.div_ceil(2), self.height.div_ceil(2)]
    }
}

/// The kind of numbers in a tensor.
#[repr(u32)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Precision {
    /// IEEE 754 binary32.
    #[default]
    Single = 0,
    /// IEEE 754 binary16.
    Half = 1,
}

impl Precision {
    /// Bytes of a number.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::Single => 4,
            Self::Half => 2,
        }
    }
}

/// The order of a tensor's axes.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// `[C, H, W]`.
    Planar = 0,
    /// `[H, W, C]`.
    Interleaved = 1,
}

/// One channel of a model's input as a function of the codes of luma, Cb and Cr:
/// `clamp(luma · y + cb · cb + cr · cr + base, 0, 255) · scale + offset`, one operation after the other.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[expect(missing_docs, reason = "the formula names them")]
pub struct Mix {
    pub y: f32,
    pub cb: f32,
    pub cr: f32,
    pub base: f32,
    pub scale: f32,
    pub offset: f32,
}

/// Kernel: a picture into one item of a model's input tensor, with the padding around it. The bits are those of the
/// preprocessor on the CPU, rounded to the nearest number of half precision if that is wanted, of two equally near ones to
/// the even one.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tensor {
    /// The picture.
    pub picture: Nv12,
    /// Address of where each position samples the picture, in words of 4 bytes: for each of `columns` the index of a
    /// sample of luma, then for each the share of the sample after it, for each the index of a sample of chroma, and for
    /// each its weight, that of the sample after it, and that of the one after that; then the same for each of `rows`.
    pub tables: u64,
    /// Address of the item's first number.
    pub values: u64,
    /// Width of the tensor.
    pub width: u32,
    /// Height of the tensor.
    pub height: u32,
    /// Columns of the tensor left of the picture.
    pub left: u32,
    /// Rows of the tensor above the picture.
    pub top: u32,
    /// Columns that the picture covers.
    pub columns: u32,
    /// Rows that the picture covers.
    pub rows: u32,
    /// 3, or 1 for luma alone.
    pub channels: u32,
    /// Order of the axes.
    pub order: Order,
    /// Kind of the numbers.
    pub precision: Precision,
    /// Each channel's formula.
    pub mixes: [Mix; 3],
    /// Each channel's value around the picture.
    pub pad: [f32; 3],
}

impl Sealed for Tensor {}
impl Kernel for Tensor {
    const ENTRY: Entry = Entry { name: "nv12_to_tensor", module: FRAMES, argument: size_of::<Self>() };

    fn geometry(&self) -> Geometry {
        Geometry::over([self.width, self.height, 1], BLOCK)
    }
}

/// Kernel: a picture at half its width and height, with the bits of [`I420::halve_into`](crate::media::I420::halve_into)
/// on each plane. The smaller one's size is [`I420::half_size`](crate::media::I420::half_size) of the larger one's.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Halve {
    /// What is read.
    pub from: Nv12,
    /// What is written.
    pub to: Nv12,
}

impl Sealed for Halve {}
impl Kernel for Halve {
    const ENTRY: Entry = Entry { name: "nv12_halve", module: FRAMES, argument: size_of::<Self>() };

    fn geometry(&self) -> Geometry {
        let [columns, rows] = self.to.chroma_size();
        Geometry::over([columns, rows, 1], BLOCK)
    }
}

/// Kernel: a picture turned, as [`Rotation`] has it. The other one's sides are those that [`Rotation::apply`] gives.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    from: Nv12,
    to: Nv12,
    /// Quarter turns clockwise, 1..3.
    quarters: u32,
}

impl Turn {
    /// Reads `from` and writes `to`. `None`: there is nothing to turn.
    #[must_use]
    pub const fn new(from: Nv12, to: Nv12, rotation: Rotation) -> Option<Self> {
        let quarters = match rotation {
            Rotation::None => return None,
            Rotation::Clockwise90 => 1,
            Rotation::Half => 2,
            Rotation::Clockwise270 => 3,
        };
        Some(Self { from, to, quarters })
    }
}

impl Sealed for Turn {}
impl Kernel for Turn {
    const ENTRY: Entry = Entry { name: "nv12_turn", module: FRAMES, argument: size_of::<Self>() };

    fn geometry(&self) -> Geometry {
        let [columns, rows] = self.to.chroma_size();
        Geometry::over([columns, rows, 1], BLOCK)
    }
}

/// Kernel: a picture as the planes Y, Cb, Cr without padding, which is what [`I420`](crate::media::I420) holds.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Planes {
    /// What is read.
    pub from: Nv12,
    /// Address of [`I420::byte_len`](crate::media::I420::byte_len) bytes that are written.
    pub to: u64,
}

impl Sealed for Planes {}
impl Kernel for Planes {
    const ENTRY: Entry = Entry { name: "nv12_to_planes", module: FRAMES, argument: size_of::<Self>() };

    fn geometry(&self) -> Geometry {
        let [columns, rows] = self.from.chroma_size();
        Geometry::over([columns, rows, 1], BLOCK)
    }
}

/// Threads of a block: a warp along a row, so that neighbours read what lies together.
const BLOCK: [u32; 3] = [32, 8, 1];

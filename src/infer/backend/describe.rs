use bytes::Bytes;
use ort::value::{Outlet as OrtOutlet, Tensor, TensorElementType};

use super::Library;
use super::onnx;
use crate::infer::error::Error;

/// What can be told of a graph without a manifest.
#[derive(Debug, Clone, PartialEq)]
pub struct Description {
    /// What goes in.
    pub inputs: Vec<Port>,
    /// What comes out.
    pub outputs: Vec<Port>,
}

/// An input or output of a graph.
#[derive(Debug, Clone, PartialEq)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Kind of its numbers, such as `f32` or `i64`.
    pub kind: String,
    /// Its shape; −1 stands for a side that is free.
    pub shape: Vec<i64>,
    /// Of an output what came out in a trial, if it is of numbers that are read here.
    pub seen: Option<Seen>,
}

/// An output of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its values.
    pub data: Vec<f32>,
}

impl Description {
    /// Reads a graph.
    ///
    /// # Errors
    /// [`Error::UnreadableModel`].
    pub fn read(library: &Library, file: &str, bytes: &Bytes) -> Result<Self, Error> {
        let unreadable =
            |error: ort::Error| Error::UnreadableModel { file: file.to_owned(), reason: error.to_string() };
        let session = onnx::builder(library, 1).map_err(unreadable)?.commit_from_memory(bytes).map_err(unreadable)?;
        let port = |outlet: &OrtOutlet| Port {
            name: outlet.name().to_owned(),
            kind: outlet.dtype().tensor_type().map_or("no tensor", kind).to_owned(),
            shape: outlet.dtype().tensor_shape().map(|shape| shape.to_vec()).unwrap_or_default(),
            seen: None,
        };
        let ports = |outlets: &[OrtOutlet]| outlets.iter().map(port).collect();
        Ok(Self { inputs: ports(session.inputs()), outputs: ports(session.outputs()) })
    }

    /// Runs the graph, which has to have one input of floats, on noise of 0..1 and notes what comes out.
    ///
    /// # Errors
    /// [`Error::UnreadableModel`], [`Error::Run`].
    pub fn try_out(&mut self, library: &Library, file: &str, bytes: &Bytes, shape: [usize; 4]) -> Result<(), Error> {
        let unreadable =
            |error: ort::Error| Error::UnreadableModel { file: file.to_owned(), reason: error.to_string() };
        let failed = |error: ort::Error| Error::Run { reason: error.to_string() };
        let mut session =
            onnx::builder(library, 1).map_err(unreadable)?.commit_from_memory(bytes).map_err(unreadable)?;
        let len = shape.iter().product();
        // Without a pattern: a linear congruential generator's (Press et al., Numerical Recipes, section 7.1).
        let noise =
            std::iter::successors(Some(1u32), |state| Some(state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223)));
        #[expect(clippy::cast_precision_loss, reason = "24 bits fit")]
        let values: Vec<f32> = noise.take(len).map(|state| (state >> 8) as f32 / 16_777_216.0).collect();
        let input = Tensor::from_array((shape, values)).map_err(failed)?;
        let outputs = session.run(ort::inputs![&input]).map_err(failed)?;
        for port in &mut self.outputs {
            let Some(value) = outputs.get(&port.name) else { continue };
            let floats = || value.try_extract_tensor::<f32>().ok().map(|(_, data)| data.to_vec());
            let shape = value.shape().iter().map(|side| usize::try_from(*side).unwrap_or(0)).collect();
            port.seen = onnx::widened(value).or_else(floats).map(|data| Seen { shape, data });
        }
        Ok(())
    }
}

/// Name of a kind of numbers.
fn kind(ty: TensorElementType) -> &'static str {
    match ty {
        TensorElementType::Float32 => "f32",
        TensorElementType::Float16 => "f16",
        TensorElementType::Float64 => "f64",
        TensorElementType::Bfloat16 => "bf16",
        TensorElementType::Uint8 => "u8",
        TensorElementType::Int8 => "i8",
        TensorElementType::Int32 => "i32",
        TensorElementType::Int64 => "i64",
        TensorElementType::Bool => "bool",
        TensorElementType::String => "text",
        _ => "another kind",
    }
}

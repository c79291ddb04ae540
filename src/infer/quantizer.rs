use ort::session::Session;
use ort::session::builder::GraphOptimizationLevel;
use ort::value::TensorRef;

use super::backend::{Graph, Library, onnx_builder};
use super::error::Error;
use super::manifest::Precision;
use super::preprocess::Preprocessor;
use super::quantize::{Breadth, Draft};
use super::repository::ModelSpec;
use crate::media::{ColorInfo, I420};

/// Makes the int8 variant of a model's graph from what it computes on pictures like those that it is for.
pub struct Quantizer {
    draft: Draft,
    session: Session,
    input: String,
    shape: [usize; 4],
    tensor: Vec<f32>,
    preprocessor: Preprocessor,
}

impl Quantizer {
    /// For the fp32 graph of a model. Runs take this many threads.
    pub(super) fn new(library: &Library, spec: &ModelSpec, threads: usize) -> Result<Self, Error> {
        let (manifest, graphs) = (&spec.manifest, spec.read()?);
        let file = &manifest.file.path;
        let unreadable = |error: ort::Error| Error::UnreadableModel { file: file.clone(), reason: error.to_string() };
        Graph::read(library, manifest, file, &graphs.fp32, Precision::Fp32)?;
        let draft = Draft::new(&simplified(library, &graphs.fp32).map_err(unreadable)?)?;
        let session =
            onnx_builder(library, threads).and_then(|mut builder| builder.commit_from_memory(&draft.observing()));
        let session = session.map_err(unreadable)?;
        let only = || session.inputs().first().map(|input| input.name().to_owned());
        let input = manifest.input.tensor.clone().or_else(only).unwrap_or_default();
        let shape = manifest.input.shape(1);
        let tensor = vec![0.0; manifest.input.item_len()];
        Ok(Self { draft, session, input, shape, tensor, preprocessor: Preprocessor::new(manifest.input.clone()) })
    }

    /// Looks at what the model computes on a picture.
    ///
    /// # Errors
    /// [`Error::Run`].
    pub fn observe(&mut self, picture: &I420, color: ColorInfo) -> Result<(), Error> {
        let failed = |error: ort::Error| Error::Run { reason: error.to_string() };
        self.preprocessor.fill(picture, color, &mut self.tensor);
        let tensor = TensorRef::from_array_view((self.shape, &*self.tensor)).map_err(failed)?;
        let outputs = self.session.run(ort::inputs![self.input.as_str() => tensor]).map_err(failed)?;
        self.draft.observe(|name| {
            let (_, values) = outputs.get(name)?.try_extract_tensor::<f32>().ok()?;
            values.first().copied()
        });
        Ok(())
    }

    /// How much of the graph can be computed in int8, from the fastest to the most careful, each with its number of nodes.
    pub fn breadths(&self) -> impl Iterator<Item = (Breadth, usize)> {
        self.draft.breadths()
    }

    /// The graph in int8, as a file.
    ///
    /// # Errors
    /// [`Error::NotQuantized`]: not a single picture was looked at, or all gave numbers that are none.
    pub fn graph(&self, breadth: Breadth) -> Result<Vec<u8>, Error> {
        Ok(self.draft.quantized(breadth)?)
    }
}

/// The graph after what ONNX Runtime does to any: constants folded, normalisation made part of convolutions.
fn simplified(library: &Library, graph: &[u8]) -> ort::Result<Vec<u8>> {
    let failed = |error: std::io::Error| ort::Error::new(error.to_string());
    let folder = tempfile::tempdir().map_err(failed)?;
    let path = folder.path().join("model.onnx");
    let builder = onnx_builder(library, 1)?.with_optimization_level(GraphOptimizationLevel::Level1)?;
    builder.with_optimized_model_path(&path)?.commit_from_memory(graph)?;
    std::fs::read(&path).map_err(failed)
}

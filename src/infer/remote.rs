//! Models that other servers run, as if they ran here: pictures are made into tensors here, and the outputs are read here.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{BufMut, BytesMut};

use super::backend::{Backend, Bucket, Provider, Selection};
use super::decoder::{Decoder, MAX_OUTPUTS, Outlet, View, shape_text};
use super::error::Error;
use super::folder::Folder;
use super::instance::Open;
use super::manifest::{Manifest, Precision};
use super::runner::Runner;
use crate::calibration::{Origin, Watch};
use crate::kserve::client::{self, Settings};
use crate::kserve::{DataType, Metadata, Request, Tensor};
use crate::secret::Secret;

/// How long endpoints may take to say what a model is when it is loaded: one that starts together with this server is not
/// there at once.
const PATIENCE: Duration = Duration::from_secs(10);
/// Requests under way at a time, where the manifest names no number.
const INSTANCES: u32 = 4;
/// Bytes of an answer's tensors at most.
const MAX_ANSWER: usize = 64 * 1024 * 1024;
/// Bytes of a file with certificates at most.
const MAX_CERTIFICATES: u64 = 1024 * 1024;
/// Frames a second that a larger batch has to gain, as a factor.
const GAIN: f64 = 1.1;

/// A model at other servers, ready to run.
pub(super) struct Opened {
    pub(super) remote: Arc<client::Remote>,
    pub(super) selection: Selection,
    pub(super) runners: Vec<Runner>,
    /// Makes another runner.
    pub(super) open: Arc<Open>,
}

/// What all instances of a model share.
struct Shared {
    manifest: Arc<Manifest>,
    remote: Arc<client::Remote>,
    decoder: Decoder,
    /// Name of the input.
    input: String,
}

/// Asks what the model is, compares that with the manifest, and measures which batches pay.
///
/// # Errors
/// [`Error::Remote`] if nobody answers, [`Error::WrongInput`], [`Error::WrongOutput`], [`Error::Read`] for the
/// certificates, which are in the model's `folder`.
pub(super) fn open(manifest: Arc<Manifest>, folder: Option<&Path>, pinned: Option<u32>) -> Result<Opened, Error> {
    let watch = Watch::start();
    let remote = client::Remote::new(&settings(&manifest, folder)?).map_err(|error| failed(&error))?;
    let found = remote.describe(PATIENCE).map_err(|error| failed(&error))?;
    let (input, takes_batches) = input(&manifest, &found)?;
    let floats = found.outputs.iter().filter(|outlet| outlet.datatype == DataType::Fp32);
    let outlets: Vec<_> = floats.map(|it| Outlet { name: it.name.clone(), shape: it.shape.clone() }).collect();
    let decoder = Decoder::bind(&manifest, &outlets)?;
    let shared = Arc::new(Shared { manifest, remote: Arc::clone(&remote), decoder, input });
    let mut runner = shared.runner(&[]);
    let measured = runner.warm_up(shared.manifest.warmup)?;
    let (mut buckets, mut others) = (vec![(1, measured)], Vec::new());
    let sizes = shared.manifest.batching.buckets().into_iter().skip(1).filter(|_| takes_batches);
    for size in sizes.map(|size| size as usize) {
        runner.add_bucket(size, shared.bucket(size));
        let time = runner.time(size, 2);
        let (last, best) = buckets.last().copied().unwrap_or((1, measured));
        #[expect(clippy::cast_precision_loss, reason = "a batch")]
        let gains = time.as_ref().is_ok_and(|time| {
            best.as_secs_f64() / last as f64 >= time.as_secs_f64() / size as f64 * GAIN
                && time.saturating_sub(measured) <= shared.manifest.batching.max_delay
        });
        match time {
            Ok(time) if gains => buckets.push((size, time)),
            Ok(time) => others.push(format!("batches of {size}: {time:.1?}, which does not pay")),
            Err(error) => others.push(format!("batches of {size}: {error}")),
        }
        if !gains {
            runner.drop_bucket(size);
            break;
        }
    }
    let instances = pinned.unwrap_or(INSTANCES).max(1);
    let sizes: Vec<usize> = buckets.iter().skip(1).map(|(size, _)| *size).collect();
    let mut runners = vec![runner];
    runners.extend((1..instances).map(|_| shared.runner(&sizes)));
    let selection = Selection {
        provider: Provider::Remote,
        precision: Precision::Fp32,
        measured,
        buckets,
        instances,
        in_place: false,
        origin: Origin::Measured,
        disturbance: watch.stop(),
        others,
    };
    let open: Arc<Open> = Arc::new(move || Ok(shared.runner(&sizes)));
    Ok(Opened { remote, selection, runners, open })
}

impl Shared {
    fn runner(&self, sizes: &[usize]) -> Runner {
        let mut runner = Runner::new(Arc::clone(&self.manifest), self.bucket(1), self.decoder.clone());
        for size in sizes {
            runner.add_bucket(*size, self.bucket(*size));
        }
        runner
    }

    fn bucket(&self, batch: usize) -> Bucket {
        let shape = self.manifest.input.shape(batch).map(|side| i64::try_from(side).unwrap_or(i64::MAX));
        Bucket::Host(Box::new(RemoteBackend {
            remote: Arc::clone(&self.remote),
            input: self.input.clone(),
            shape: shape.to_vec(),
            values: vec![0.0; batch * self.manifest.input.item_len()],
            outputs: self.decoder.outputs().map(str::to_owned).collect(),
            found: Vec::new(),
            due: None,
        }))
    }
}

/// Sends the input tensor elsewhere.
struct RemoteBackend {
    remote: Arc<client::Remote>,
    input: String,
    shape: Vec<i64>,
    values: Vec<f32>,
    outputs: Vec<String>,
    /// Kept, so that an output's memory is used again.
    found: Vec<Vec<f32>>,
    due: Option<Instant>,
}

impl Backend for RemoteBackend {
    fn input(&mut self) -> &mut [f32] {
        &mut self.values
    }

    fn due(&mut self, due: Option<Instant>) {
        self.due = due;
    }

    fn run(&mut self, read: &mut dyn FnMut(&[View<'_>]) -> Result<(), Error>) -> Result<(), Error> {
        let mut data = BytesMut::with_capacity(self.values.len() * size_of::<f32>());
        self.values.iter().for_each(|value| data.put_f32_le(*value));
        let tensor = Tensor {
            name: self.input.clone(),
            datatype: DataType::Fp32,
            shape: self.shape.clone(),
            data: data.freeze(),
        };
        let request = Request { inputs: vec![tensor], outputs: self.outputs.clone(), ..Request::default() };
        let response = self.remote.run(request, self.due.take()).map_err(|error| failed(&error))?;
        self.found.resize_with(self.outputs.len(), Vec::new);
        let mut shapes: [&[i64]; MAX_OUTPUTS] = [&[]; MAX_OUTPUTS];
        for (at, name) in self.outputs.iter().enumerate() {
            let wrong = |problem: String| Error::Remote { reason: format!("its output `{name}` {problem}") };
            let tensor = response.outputs.iter().find(|tensor| tensor.name == *name);
            let tensor = tensor.ok_or_else(|| wrong("is missing".to_owned()))?;
            if tensor.datatype != DataType::Fp32 || tensor.shape.first() != self.shape.first() {
                return Err(wrong(format!("is {} {}", tensor.datatype, shape_text(&tensor.shape))));
            }
            self.found[at].clear();
            self.found[at].extend(tensor.data.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)));
            shapes[at] = &tensor.shape;
        }
        let mut views = [View::default(); MAX_OUTPUTS];
        for ((view, data), shape) in views.iter_mut().zip(&self.found).zip(shapes) {
            *view = View { shape, data };
        }
        read(&views[..self.outputs.len()])
    }
}

fn settings(manifest: &Manifest, folder: Option<&Path>) -> Result<Settings, Error> {
    let missing = || Error::Remote { reason: "the manifest has no [remote]".to_owned() };
    let remote = manifest.remote.as_ref().ok_or_else(missing)?;
    let token = match &remote.token_env {
        Some(name) => {
            let unset = |_| Error::Remote { reason: format!("`remote.token_env`: {name} is not set") };
            Some(std::env::var(name).map_err(unset)?)
        }
        None => None,
    };
    let certificates = match (&remote.ca_file, folder) {
        (Some(file), Some(folder)) => Some(Folder::open(folder)?.read_text(file, MAX_CERTIFICATES)?),
        (Some(file), None) => return Err(Error::Read { path: file.into(), reason: "there is no folder".to_owned() }),
        (None, _) => None,
    };
    Ok(Settings {
        urls: remote.urls.clone(),
        model: remote.model.clone().unwrap_or_else(|| manifest.name.clone()),
        version: remote.version.clone(),
        timeout: remote.timeout,
        certificates,
        token: token.map(|token| Secret::new(token.trim().to_owned())),
        limit: MAX_ANSWER,
    })
}

/// The name of the input, and whether it takes batches, if it is what the manifest says.
fn input(manifest: &Manifest, found: &Metadata) -> Result<(String, bool), Error> {
    let wanted = manifest.input.shape(1).map(|side| i64::try_from(side).unwrap_or(i64::MAX));
    let expected = format!("FP32 {}", shape_text(&wanted));
    let wrong = |tensor: &str, found: String| Error::WrongInput {
        tensor: tensor.to_owned(),
        expected: expected.clone(),
        found,
    };
    let names = || found.inputs.iter().map(|it| format!("`{}`", it.name)).collect::<Vec<_>>().join(", ");
    let input = match (&manifest.input.tensor, &*found.inputs) {
        (Some(name), inputs) => inputs.iter().find(|it| it.name == *name).ok_or_else(|| wrong(name, names()))?,
        (None, [input]) => input,
        (None, _) => return Err(wrong("(the only one)", names())),
    };
    let fits = input.shape.len() == wanted.len()
        && input.shape.iter().zip(wanted).all(|(found, wanted)| *found < 0 || *found == wanted);
    if input.datatype != DataType::Fp32 || !fits {
        return Err(wrong(&input.name, format!("{} {}", input.datatype, shape_text(&input.shape))));
    }
    Ok((input.name.clone(), input.shape.first().is_some_and(|side| *side < 0)))
}

fn failed(error: &client::Error) -> Error {
    Error::Remote { reason: error.to_string() }
}

//! A model's file itself, run on tensors as they come and in the precision that the file has, whatever live video does.
//!
//! Beside the model's own instances there are owner threads of this kind, started when there is work for one and ended
//! when there was none for a while, each with a session of its own. They step back behind those of live video. Requests
//! wait in a queue with a bound and a deadline each; those that a graph can take together are run together.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use half::{bf16, f16};
use ort::session::{Session, SessionInputValue};
use ort::value::{
    DynValue, Outlet as OrtOutlet, PrimitiveTensorElementType, Tensor as OrtTensor, TensorElementType, ValueType,
};
use tokio::sync::oneshot;
use tokio::time::timeout_at;

use crate::clock;
use crate::kserve::{
    BatchStatistics, DataType, Error, Metadata, Outlet, PLATFORM, Request, Response, Spent, Statistics, Tensor,
    elements, push_string, strings,
};
use crate::traces::Trail;

/// Requests that may wait for a model.
const MAX_QUEUE: usize = 64;
/// How long a request may take, whatever it asks for.
const MAX_TIMEOUT: Duration = Duration::from_secs(25);
/// How long a session is kept that nobody uses.
const IDLE: Duration = Duration::from_secs(60);
/// How far the threads step back, -20..19: behind those of live video, which step back behind codecs.
const NICE: i32 = 10;
/// Rows that a graph is tried on to see whether it takes batches, and bytes of its inputs at most.
const TRIED_ROWS: [i64; 2] = [2, 3];
const MAX_TRIED: usize = 64 * 1024 * 1024;

/// Opens the model's file.
pub(super) type Open = dyn Fn() -> Result<Session, String> + Send + Sync;

/// What a model's file is run with.
pub(super) struct Settings {
    pub(super) name: String,
    pub(super) version: String,
    /// Items of a run at most, where the graph takes any number.
    pub(super) max_batch: u32,
    /// Threads at most, each with a session.
    pub(super) threads: u32,
    pub(super) open: Box<Open>,
}

/// See the [module](self). Dropped, it ends its threads: the requests in work are finished, those that wait are refused.
pub struct Tensors {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

struct Shared {
    settings: Settings,
    state: Mutex<State>,
    wake: Condvar,
    /// Known from the first session on.
    metadata: OnceLock<Arc<Metadata>>,
    statistics: Mutex<Statistics>,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    /// Threads that wait for a job.
    idle: usize,
    /// Threads that there are.
    threads: usize,
    /// Idle threads that are to end at once.
    dismissed: usize,
    closed: bool,
}

enum Job {
    /// Have a session.
    Open(oneshot::Sender<Result<(), Error>>),
    Run(Run),
}

struct Run {
    request: Request,
    /// Of the request, where the graph takes batches.
    items: Option<i64>,
    arrived: Instant,
    deadline: Instant,
    trail: Trail,
    reply: oneshot::Sender<Result<Response, Error>>,
}

/// Where the time of a run went.
#[derive(Debug, Clone, Copy, Default)]
struct Took {
    input: Duration,
    infer: Duration,
    output: Duration,
}

impl Tensors {
    /// Opens nothing yet.
    pub(super) fn new(settings: Settings) -> Self {
        let (name, version) = (settings.name.clone(), settings.version.clone());
        let statistics = Mutex::new(Statistics { name, version, ..Statistics::default() });
        let shared =
            Shared { settings, state: Mutex::default(), wake: Condvar::new(), metadata: OnceLock::new(), statistics };
        Self { shared: Arc::new(shared), threads: Mutex::default() }
    }

    /// What the graph takes and gives. Reads the file if nobody did before.
    ///
    /// # Errors
    /// [`Error::Failed`], [`Error::Busy`], [`Error::NotReady`], [`Error::Late`].
    pub async fn metadata(&self) -> Result<Arc<Metadata>, Error> {
        if let Some(known) = self.shared.metadata.get() {
            return Ok(Arc::clone(known));
        }
        let (reply, opened) = oneshot::channel();
        self.submit(Job::Open(reply))?;
        let deadline = clock::now() + MAX_TIMEOUT;
        timeout_at(deadline.into(), opened).await.map_err(|_| Error::Late)?.map_err(|_| self.closed())??;
        self.shared.metadata.get().map(Arc::clone).ok_or_else(|| self.closed())
    }

    /// Runs the graph, and tells `trail` what that takes.
    ///
    /// # Errors
    /// [`Error`] says why not.
    pub async fn infer(&self, request: Request, trail: &Trail) -> Result<Response, Error> {
        let arrived = clock::now();
        let deadline = arrived + request.timeout.unwrap_or(MAX_TIMEOUT).min(MAX_TIMEOUT);
        let metadata = timeout_at(deadline.into(), self.metadata()).await.map_err(|_| Error::Late)??;
        let items = metadata.check(&request)?;
        let (reply, answer) = oneshot::channel();
        self.submit(Job::Run(Run { request, items, arrived, deadline, trail: trail.clone(), reply }))?;
        let result = timeout_at(deadline.into(), answer).await;
        let result = result.unwrap_or(Ok(Err(Error::Late))).unwrap_or_else(|_| Err(self.closed()));
        let mut statistics = self.shared.statistics();
        let outcome = if result.is_ok() { &mut statistics.success } else { &mut statistics.fail };
        outcome.add(1, clock::now().saturating_duration_since(arrived));
        result
    }

    /// Has the threads that wait for work end, each with its session, before their time; says how many those are. The next
    /// request opens one anew.
    pub fn let_go(&self) -> usize {
        let mut state = self.shared.lock();
        // What waits already needs them.
        state.dismissed = state.idle.saturating_sub(state.jobs.len());
        let dismissed = state.dismissed;
        drop(state);
        self.shared.wake.notify_all();
        dismissed
    }

    /// What it did until now.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        self.shared.statistics().clone()
    }

    fn closed(&self) -> Error {
        Error::NotReady { model: self.shared.id(), reason: "it was unloaded".to_owned() }
    }

    fn submit(&self, job: Job) -> Result<(), Error> {
        let mut state = self.shared.lock();
        if state.closed {
            return Err(self.closed());
        }
        state.forget(clock::now());
        if state.jobs.len() >= MAX_QUEUE {
            return Err(Error::Busy);
        }
        state.jobs.push_back(job);
        if state.idle.saturating_sub(state.dismissed) < state.jobs.len()
            && state.threads < self.shared.settings.threads.max(1) as usize
        {
            let shared = Arc::clone(&self.shared);
            let builder = thread::Builder::new().name(format!("tensors-{}", shared.id()));
            match builder.spawn(move || own(&shared)) {
                Ok(thread) => {
                    state.threads += 1;
                    let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
                    threads.retain(|thread| !thread.is_finished());
                    threads.push(thread);
                }
                Err(error) if state.threads == 0 => {
                    state.jobs.pop_back();
                    return Err(Error::Failed { model: self.shared.id(), reason: format!("no thread: {error}") });
                }
                Err(_) => {}
            }
        }
        drop(state);
        self.shared.wake.notify_one();
        Ok(())
    }
}

impl Drop for Tensors {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.closed = true;
        state.jobs.clear();
        drop(state);
        self.shared.wake.notify_all();
        for thread in std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner)) {
            if thread.thread().id() != thread::current().id() && thread.join().is_err() {
                tracing::error!(model = self.shared.id(), "a thread for tensors panicked");
            }
        }
    }
}

impl Shared {
    fn id(&self) -> String {
        format!("{}@{}", self.settings.name, self.settings.version)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn statistics(&self) -> MutexGuard<'_, Statistics> {
        self.statistics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is to be run next, together; none: the thread is to end, and counts no more.
    fn next(&self) -> Option<Vec<Run>> {
        let mut state = self.lock();
        let give_up = clock::now() + IDLE;
        loop {
            if let Some(batch) = state.take(clock::now(), self.metadata.get().map_or(0, |it| it.max_batch)) {
                return Some(batch);
            }
            let left = give_up.saturating_duration_since(clock::now());
            let is_dismissed = state.dismissed > 0;
            state.dismissed = state.dismissed.saturating_sub(1);
            if state.closed || left.is_zero() || is_dismissed {
                state.threads -= 1;
                return None;
            }
            state.idle += 1;
            let (back, _) = self.wake.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
            state = back;
            state.idle -= 1;
        }
    }

    /// There is no session: nothing that waits can be run, and the thread counts no more.
    fn refuse_all(&self, error: &Error) {
        let mut state = self.lock();
        state.threads -= 1;
        let jobs = std::mem::take(&mut state.jobs);
        drop(state);
        for job in jobs {
            match job {
                Job::Open(reply) => drop(reply.send(Err(error.clone()))),
                Job::Run(run) => drop(run.reply.send(Err(error.clone()))),
            }
        }
    }

    fn describe(&self, session: &mut Session) -> Result<Metadata, String> {
        let inputs = session.inputs().iter().map(outlet).collect::<Result<Vec<_>, _>>()?;
        let outputs = session.outputs().iter().map(outlet).collect::<Result<Vec<_>, _>>()?;
        let is_batch = |outlet: &Outlet| outlet.shape.first() == Some(&-1) && outlet.datatype != DataType::Bytes;
        let may_take_batches = inputs.iter().chain(&outputs).all(is_batch) && !inputs.is_empty();
        // To be asked once.
        let takes_batches = may_take_batches
            && match self.metadata.get() {
                Some(known) => known.max_batch > 0,
                None => is_one_side(session) || TRIED_ROWS.iter().all(|rows| keeps_rows(session, &inputs, *rows)),
            };
        Ok(Metadata {
            name: self.settings.name.clone(),
            version: self.settings.version.clone(),
            versions: vec![self.settings.version.clone()],
            platform: PLATFORM.to_owned(),
            inputs,
            outputs,
            max_batch: if takes_batches { self.settings.max_batch } else { 0 },
            instances: self.settings.threads,
        })
    }
}

impl State {
    /// Lets go of what nobody waits for any more, and of what is too late.
    fn forget(&mut self, now: Instant) {
        for job in std::mem::take(&mut self.jobs) {
            match job {
                Job::Open(reply) if reply.is_closed() => {}
                Job::Run(run) if run.deadline <= now || run.reply.is_closed() => {
                    let _ = run.reply.send(Err(Error::Late));
                }
                job => self.jobs.push_back(job),
            }
        }
    }

    /// The first that may still be answered, and those after it that go together with it, with `max_batch` items at most.
    fn take(&mut self, now: Instant, max_batch: u32) -> Option<Vec<Run>> {
        let mut batch: Vec<Run> = Vec::new();
        let mut items = 0;
        while let Some(job) = self.jobs.pop_front() {
            let run = match job {
                Job::Open(reply) => {
                    // Whoever asks has a session already.
                    let _ = reply.send(Ok(()));
                    continue;
                }
                Job::Run(run) if run.deadline <= now || run.reply.is_closed() => {
                    let _ = run.reply.send(Err(Error::Late));
                    continue;
                }
                Job::Run(run) => run,
            };
            let size = run.items.unwrap_or(0);
            let fits = batch
                .first()
                .is_none_or(|first| size > 0 && items + size <= i64::from(max_batch) && first.goes_with(&run));
            if !fits {
                self.jobs.push_front(Job::Run(run));
                break;
            }
            items += size;
            let is_alone = size == 0;
            batch.push(run);
            if is_alone {
                break;
            }
        }
        (!batch.is_empty()).then_some(batch)
    }
}

impl Run {
    /// Whether all sides but the first are the same.
    fn goes_with(&self, other: &Self) -> bool {
        self.items.is_some()
            && self.request.inputs.len() == other.request.inputs.len()
            && self.request.inputs.iter().all(|tensor| {
                let same = other.request.inputs.iter().find(|it| it.name == tensor.name);
                same.is_some_and(|it| it.shape.get(1..) == tensor.shape.get(1..))
            })
    }
}

impl Run {
    /// Where its time went: it waited until `begin`, and what it took then is that of all `items` that were run together.
    fn tell_parts(&self, begin: Instant, took: Took, items: u64) {
        self.trail.part("queue", self.arrived, begin);
        let mut at = begin;
        for (name, took) in [("preprocess", took.input), ("inference", took.infer), ("postprocess", took.output)] {
            self.trail.part_with(name, at, at + took, || vec![("saccade.batch_size", items.into())]);
            at += took;
        }
    }
}

/// The life of a thread.
fn own(shared: &Shared) {
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::debug!(%error, "a thread for tensors keeps its priority");
    }
    loop {
        let opened = catch_unwind(AssertUnwindSafe(|| {
            let mut session = (shared.settings.open)()?;
            let metadata = shared.describe(&mut session)?;
            Ok::<_, String>((session, metadata))
        }));
        let opened = opened.unwrap_or_else(|_| Err("it could not be opened".to_owned()));
        let mut session = match opened {
            Ok((session, metadata)) => {
                shared.metadata.get_or_init(|| Arc::new(metadata));
                session
            }
            Err(reason) => {
                tracing::warn!(model = shared.id(), reason, "a model's file cannot be run on tensors");
                shared.refuse_all(&Error::Failed { model: shared.id(), reason });
                return;
            }
        };
        tracing::debug!(model = shared.id(), "a session for tensors is open");
        loop {
            let Some(batch) = shared.next() else {
                tracing::debug!(model = shared.id(), "a session for tensors is closed");
                return;
            };
            if catch_unwind(AssertUnwindSafe(|| run(shared, &mut session, batch))).is_err() {
                tracing::error!(model = shared.id(), "a run of tensors panicked; its session is opened anew");
                break;
            }
        }
    }
}

/// Runs a batch and answers it.
fn run(shared: &Shared, session: &mut Session, batch: Vec<Run>) {
    let begin = clock::now();
    let Some(metadata) = shared.metadata.get() else { return };
    let failed = |reason: String| Error::Failed { model: shared.id(), reason };
    let result = infer(session, metadata, &batch).map_err(failed);
    let mut statistics = shared.statistics();
    let items = batch.iter().map(|run| run.items.unwrap_or(1)).sum::<i64>();
    let items = u64::try_from(items).unwrap_or(0);
    let wall = clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default();
    statistics.last_inference_ms = u64::try_from(wall.as_millis()).unwrap_or(u64::MAX);
    statistics.executions += 1;
    let all = match result {
        Ok((all, took)) => {
            let requests = u64::try_from(batch.len()).unwrap_or(1);
            statistics.inferences += items;
            for run in &batch {
                statistics.queue.add(1, begin.saturating_duration_since(run.arrived));
                run.tell_parts(begin, took, items);
            }
            let Statistics { compute_input, compute_infer, compute_output, batches, .. } = &mut *statistics;
            note(took, requests, [compute_input, compute_infer, compute_output]);
            let at = batches.iter().position(|it| it.size == items).unwrap_or_else(|| {
                batches.push(BatchStatistics { size: items, ..BatchStatistics::default() });
                batches.len() - 1
            });
            let BatchStatistics { compute_input, compute_infer, compute_output, .. } = &mut batches[at];
            note(took, 1, [compute_input, compute_infer, compute_output]);
            all
        }
        Err(error) => {
            drop(statistics);
            for run in batch {
                let _ = run.reply.send(Err(error.clone()));
            }
            return;
        }
    };
    drop(statistics);
    for (Run { request, reply, .. }, mut outputs) in batch.into_iter().zip(all) {
        if !request.outputs.is_empty() {
            let find = |name: &String| outputs.iter().find(|tensor| tensor.name == *name).cloned();
            outputs = request.outputs.iter().filter_map(find).collect();
        }
        let (model, version) = (metadata.name.clone(), metadata.version.clone());
        // Whoever asked may have gone.
        let _ = reply.send(Ok(Response { model, version, id: request.id, outputs }));
    }
}

fn note(took: Took, count: u64, [input, infer, output]: [&mut Spent; 3]) {
    input.add(count, took.input);
    infer.add(count, took.infer);
    output.add(count, took.output);
}

/// The outputs of each member of a batch.
fn infer(session: &mut Session, metadata: &Metadata, batch: &[Run]) -> Result<(Vec<Vec<Tensor>>, Took), String> {
    let text = |error: ort::Error| error.to_string();
    let begin = clock::now();
    let mut inputs: Vec<(Cow<'_, str>, SessionInputValue<'_>)> = Vec::with_capacity(metadata.inputs.len());
    for outlet in &metadata.inputs {
        let of = |run: &Run| run.request.inputs.iter().find(|tensor| tensor.name == outlet.name).cloned();
        let members: Vec<Tensor> = batch.iter().filter_map(of).collect();
        let Some(first) = members.first() else { return Err(format!("there is no input `{}`", outlet.name)) };
        let mut shape = first.shape.clone();
        let data = if members.len() == 1 {
            first.data.clone()
        } else {
            shape[0] = members.iter().map(|tensor| tensor.shape[0]).sum();
            let mut data = BytesMut::with_capacity(members.iter().map(|tensor| tensor.data.len()).sum());
            members.iter().for_each(|tensor| data.extend_from_slice(&tensor.data));
            data.freeze()
        };
        inputs.push((outlet.name.as_str().into(), value(outlet.datatype, shape, &data).map_err(text)?.into()));
    }
    let ready = clock::now();
    let outputs = session.run(inputs).map_err(text)?;
    let ran = clock::now();
    let total: i64 = batch.iter().map(|run| run.items.unwrap_or(1)).sum();
    let mut all: Vec<Vec<Tensor>> = batch.iter().map(|_| Vec::with_capacity(metadata.outputs.len())).collect();
    for outlet in &metadata.outputs {
        let wanted = |run: &Run| run.request.outputs.is_empty() || run.request.outputs.contains(&outlet.name);
        if !batch.iter().any(wanted) {
            continue;
        }
        let output = outputs.get(&outlet.name).ok_or_else(|| format!("it gave no output `{}`", outlet.name))?;
        let (shape, data) = contents(outlet.datatype, output).map_err(text)?;
        if batch.len() > 1 && shape.first() != Some(&total) {
            return Err(format!("output `{}` has shape {shape:?} for a batch of {total}", outlet.name));
        }
        let mut rest = data.clone();
        for (run, found) in batch.iter().zip(&mut all) {
            let (mut shape, data) = (
                shape.clone(),
                if batch.len() == 1 {
                    data.clone()
                } else {
                    let items = run.items.unwrap_or(1);
                    let share =
                        usize::try_from(items).unwrap_or(0) * (data.len() / usize::try_from(total).unwrap_or(1).max(1));
                    rest.split_to(share.min(rest.len()))
                },
            );
            if batch.len() > 1 {
                shape[0] = run.items.unwrap_or(1);
            }
            let tensor = Tensor::new(outlet.name.clone(), outlet.datatype, shape, data);
            found.push(tensor.map_err(|error| error.to_string())?);
        }
    }
    let took = Took { input: ready - begin, infer: ran - ready, output: clock::now() - ran };
    Ok((all, took))
}

/// Whether the first side of all inputs and outputs has one and the same name.
fn is_one_side(session: &Session) -> bool {
    let name = |outlet: &OrtOutlet| match outlet.dtype() {
        ValueType::Tensor { dimension_symbols, .. } => dimension_symbols.first().cloned().unwrap_or_default(),
        _ => String::default(),
    };
    let mut names = session.inputs().iter().chain(session.outputs()).map(name);
    names.next().is_some_and(|first| !first.is_empty() && names.all(|other| other == first))
}

/// Whether a run on so many rows of nothing but zeros gives as many rows of each output: names that exporters give free
/// sides say nothing when they differ. Where other sides are free too, nobody knows.
fn keeps_rows(session: &mut Session, inputs: &[Outlet], rows: i64) -> bool {
    let mut left = MAX_TRIED;
    let zeros = inputs.iter().map(|outlet| {
        let shape: Vec<i64> = [rows].into_iter().chain(outlet.shape.iter().skip(1).copied()).collect();
        let bytes = elements(&outlet.name, &shape).ok()?.checked_mul(outlet.datatype.size()?)?;
        left = left.checked_sub(bytes)?;
        let data = Bytes::from(vec![0; bytes]);
        let value: SessionInputValue<'_> = value(outlet.datatype, shape, &data).ok()?.into();
        Some((Cow::<'_, str>::from(outlet.name.clone()), value))
    });
    let Some(zeros) = zeros.collect::<Option<Vec<_>>>() else { return false };
    match session.run(zeros) {
        Ok(found) => {
            found.iter().all(|(_, output)| output.dtype().tensor_shape().is_some_and(|it| it.first() == Some(&rows)))
        }
        Err(error) => {
            tracing::debug!(%error, rows, "a graph with a free first side takes no batches");
            false
        }
    }
}

/// A tensor of ONNX Runtime.
fn value(datatype: DataType, shape: Vec<i64>, data: &Bytes) -> ort::Result<DynValue> {
    macro_rules! numbers {
        ($type:ty) => {{
            let values: Vec<$type> = data.as_chunks().0.iter().map(|bytes| <$type>::from_le_bytes(*bytes)).collect();
            OrtTensor::from_array((shape, values))?.into_dyn()
        }};
    }
    Ok(match datatype {
        DataType::Bool => {
            let values: Vec<bool> = data.iter().map(|byte| *byte != 0).collect();
            OrtTensor::from_array((shape, values))?.into_dyn()
        }
        DataType::Uint8 => numbers!(u8),
        DataType::Uint16 => numbers!(u16),
        DataType::Uint32 => numbers!(u32),
        DataType::Uint64 => numbers!(u64),
        DataType::Int8 => numbers!(i8),
        DataType::Int16 => numbers!(i16),
        DataType::Int32 => numbers!(i32),
        DataType::Int64 => numbers!(i64),
        DataType::Fp16 => numbers!(f16),
        DataType::Fp32 => numbers!(f32),
        DataType::Fp64 => numbers!(f64),
        DataType::Bf16 => numbers!(bf16),
        DataType::Bytes => {
            let text = |item: Option<&[u8]>| String::from_utf8(item.unwrap_or_default().to_vec());
            let values = strings(data).map(text).collect::<Result<Vec<String>, _>>();
            let values = values.map_err(|error| ort::Error::new(format!("strings of models are UTF-8: {error}")))?;
            OrtTensor::from_string_array((shape, &*values))?.into_dyn()
        }
    })
}

/// Shape and bytes of a tensor of ONNX Runtime.
fn contents(datatype: DataType, value: &DynValue) -> ort::Result<(Vec<i64>, Bytes)> {
    fn numbers<T: PrimitiveTensorElementType + Copy, const N: usize>(
        value: &DynValue,
        bytes: impl Fn(T) -> [u8; N],
    ) -> ort::Result<(Vec<i64>, Bytes)> {
        let (shape, values) = value.try_extract_tensor::<T>()?;
        let mut out = Vec::with_capacity(values.len() * N);
        values.iter().for_each(|value| out.extend_from_slice(&bytes(*value)));
        Ok((shape.to_vec(), Bytes::from(out)))
    }
    match datatype {
        DataType::Bool => numbers(value, |it: bool| [u8::from(it)]),
        DataType::Uint8 => numbers(value, u8::to_le_bytes),
        DataType::Uint16 => numbers(value, u16::to_le_bytes),
        DataType::Uint32 => numbers(value, u32::to_le_bytes),
        DataType::Uint64 => numbers(value, u64::to_le_bytes),
        DataType::Int8 => numbers(value, i8::to_le_bytes),
        DataType::Int16 => numbers(value, i16::to_le_bytes),
        DataType::Int32 => numbers(value, i32::to_le_bytes),
        DataType::Int64 => numbers(value, i64::to_le_bytes),
        DataType::Fp16 => numbers(value, f16::to_le_bytes),
        DataType::Fp32 => numbers(value, f32::to_le_bytes),
        DataType::Fp64 => numbers(value, f64::to_le_bytes),
        DataType::Bf16 => numbers(value, bf16::to_le_bytes),
        DataType::Bytes => {
            let (shape, values) = value.try_extract_strings()?;
            let mut out = Vec::new();
            if !values.iter().all(|item| push_string(&mut out, item.as_bytes())) {
                return Err(ort::Error::new("a string has more than 4 GiB"));
            }
            Ok((shape.to_vec(), Bytes::from(out)))
        }
    }
}

fn outlet(outlet: &OrtOutlet) -> Result<Outlet, String> {
    let name = outlet.name().to_owned();
    let unknown = || format!("`{name}` is of a type that the protocol has no name for: {}", outlet.dtype());
    let datatype = match outlet.dtype().tensor_type().ok_or_else(unknown)? {
        TensorElementType::Bool => DataType::Bool,
        TensorElementType::Uint8 => DataType::Uint8,
        TensorElementType::Uint16 => DataType::Uint16,
        TensorElementType::Uint32 => DataType::Uint32,
        TensorElementType::Uint64 => DataType::Uint64,
        TensorElementType::Int8 => DataType::Int8,
        TensorElementType::Int16 => DataType::Int16,
        TensorElementType::Int32 => DataType::Int32,
        TensorElementType::Int64 => DataType::Int64,
        TensorElementType::Float16 => DataType::Fp16,
        TensorElementType::Float32 => DataType::Fp32,
        TensorElementType::Float64 => DataType::Fp64,
        TensorElementType::Bfloat16 => DataType::Bf16,
        TensorElementType::String => DataType::Bytes,
        _ => return Err(unknown()),
    };
    let shape = outlet.dtype().tensor_shape().map(|shape| shape.to_vec()).unwrap_or_default();
    Ok(Outlet { name: outlet.name().to_owned(), datatype, shape })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_waits_for_is_let_go() {
        let now = clock::now();
        let run = |deadline: Instant| {
            let (reply, answer) = oneshot::channel();
            (
                Job::Run(Run {
                    request: Request::default(),
                    items: None,
                    arrived: now,
                    deadline,
                    trail: Trail::off(),
                    reply,
                }),
                answer,
            )
        };
        let later = now + Duration::from_secs(1);
        let (awaited, _answer) = run(later);
        let (late, mut told) = run(now);
        let (left, gone) = run(later);
        drop(gone);
        let mut state = State::default();
        state.jobs.extend([awaited, late, left]);
        state.forget(now);
        assert_eq!(state.jobs.len(), 1);
        assert_eq!(told.try_recv().unwrap(), Err(Error::Late));
    }

    /// A field of bytes of a protocol buffer, shorter than 128.
    fn field(number: u8, value: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, u8::try_from(value.len()).unwrap()], value].concat()
    }

    /// A graph from `x` to `y`, floats with sides of these names and two more, by one node.
    fn graph(node: &[u8], input: &str, output: &str) -> Vec<u8> {
        let value = |name: &[u8], side: &str| {
            let side = if side.is_empty() { Vec::new() } else { field(2, side.as_bytes()) };
            let shape = [field(1, &side), field(1, &[0x08, 2])].concat();
            [field(1, name), field(2, &field(1, &[&[0x08, 1][..], &field(2, &shape)].concat()))].concat()
        };
        let graph = [field(1, node), field(2, b"g"), field(11, &value(b"x", input)), field(12, &value(b"y", output))];
        [&[0x08, 8][..], &field(7, &graph.concat()), &field(8, &[0x10, 13])].concat()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_session_that_nobody_uses_is_let_go_and_opened_anew() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        let library = crate::infer::backend::Library::load().unwrap();
        let node = [field(1, b"x"), field(2, b"y"), field(4, b"Relu")].concat();
        let (file, opened) = (Bytes::from(graph(&node, "n", "n")), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&opened);
        let open = move || {
            count.fetch_add(1, Ordering::Relaxed);
            crate::infer::backend::open_plainly(&library, &file, 1, false).map_err(|error| error.to_string())
        };
        let (name, version) = ("g".to_owned(), "1".to_owned());
        let tensors = Tensors::new(Settings { name, version, max_batch: 8, threads: 1, open: Box::new(open) });
        let until = async |what: &str, holds: &dyn Fn(&State) -> bool| {
            let asked = async {
                while !holds(&tensors.shared.lock()) {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(Duration::from_secs(20), asked).await.unwrap_or_else(|_| panic!("{what}"));
        };
        let run = async || {
            let data = Bytes::from([1.0f32, -1.0].map(f32::to_le_bytes).concat());
            let input = Tensor::new("x".to_owned(), DataType::Fp32, vec![1, 2], data).unwrap();
            let request = Request { inputs: vec![input], ..Request::default() };
            tensors.infer(request, &Trail::off()).await.unwrap()
        };
        assert_eq!(tensors.let_go(), 0, "there is none yet");
        run().await;
        until("the thread waits", &|state| state.idle == 1).await;
        assert_eq!(tensors.let_go(), 1);
        until("the thread ends", &|state| state.threads == 0).await;
        run().await;
        run().await;
        assert_eq!(opened.load(Ordering::Relaxed), 2);
    }

    /// How many items a request may have.
    async fn max_batch(file: Vec<u8>) -> u32 {
        let library = crate::infer::backend::Library::load().unwrap();
        let file = Bytes::from(file);
        let open =
            move || crate::infer::backend::open_plainly(&library, &file, 1, false).map_err(|error| error.to_string());
        let (name, version) = ("g".to_owned(), "1".to_owned());
        let tensors = Tensors::new(Settings { name, version, max_batch: 8, threads: 1, open: Box::new(open) });
        tensors.metadata().await.unwrap().max_batch
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn batches_are_for_graphs_that_keep_their_rows() {
        let relu = [field(1, b"x"), field(2, b"y"), field(4, b"Relu")].concat();
        // `axis` is 0, an INT.
        let axis = field(5, &[&field(1, b"axis")[..], &[0x18, 0, 0xa0, 0x01, 2]].concat());
        let twice = [field(1, b"x"), field(1, b"x"), field(2, b"y"), field(4, b"Concat"), axis].concat();
        for (input, output) in [("n", "n"), ("n", "m"), ("", "")] {
            assert_eq!(max_batch(graph(&relu, input, output)).await, 8, "{input:?} {output:?}");
        }
        for (input, output) in [("n", "m"), ("", ""), ("n", "")] {
            assert_eq!(max_batch(graph(&twice, input, output)).await, 0, "{input:?} {output:?}");
        }
    }
}

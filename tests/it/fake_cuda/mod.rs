//! A GPU that is none: tables of the CUDA driver, of NVDEC and of NVENC whose functions work on memory of the host, and notice what a
//! driver would not forgive. When a [`Fake`] is dropped, the test fails if anything was misused, or not given back.
//!
//! Several may live at a time, in one process and on any threads: every handle tells which fake it is of. Only opening a
//! GPU has to happen on the thread that made the fake.
#![allow(unsafe_code, reason = "functions that are called as C, with pointers")]
#![allow(dead_code, reason = "tests of other parts use other functions of it")]

mod driver;
mod memory;
mod nvdec;
mod nvenc;
mod source;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;

use saccade::decode::nvdec::Api;
use saccade::device::driver::Driver;
use saccade::device::{Device, Status, Stream};

pub use memory::{Memory, Progress};
pub use nvdec::Caps;
pub use nvenc::Chip;
pub use source::{Found, Picture, Sequence, Source};

use memory::Streams;
use nvdec::Nvdec;
use nvenc::Nvenc;

/// Handles of a fake have its number in the bits from this one on.
const SHIFT: u32 = 40;

static FAKES: LazyLock<Mutex<HashMap<u64, Arc<Mutex<State>>>>> = LazyLock::new(Mutex::default);
static NEXT: AtomicU64 = AtomicU64::new(1);

thread_local! {
    /// Which fake this thread's GPUs are opened of.
    static HERE: Cell<u64> = const { Cell::new(0) };
    /// Contexts that are current on this thread, the last one really.
    static CONTEXTS: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
    /// The mode in which this thread is beside others that record.
    static MODE: Cell<u32> = const { Cell::new(0) };
}

/// One fake GPU with its driver.
pub struct Fake {
    id: u64,
    state: Arc<Mutex<State>>,
}

/// What a fake knows.
pub struct State {
    id: u64,
    next: u64,
    /// Contexts that were retained and not released.
    retained: u32,
    /// Calls by the name of the driver's function.
    calls: HashMap<&'static str, usize>,
    /// What calls will return: after how many more, and what.
    failures: HashMap<&'static str, Vec<(usize, Status)>>,
    lost: Option<Status>,
    version: i32,
    devices: i32,
    memory: Memory,
    streams: Streams,
    /// By handle, their text.
    modules: HashMap<u64, String>,
    functions: HashMap<u64, String>,
    /// Names of threads and of kernels that they launched, in order.
    launches: Vec<(String, String)>,
    nvdec: Nvdec,
    nvenc: Nvenc,
    /// Planes that were copied to the host.
    planes_brought: usize,
    violations: Vec<String>,
}

impl Fake {
    /// A GPU that works, whose streams do nothing before somebody waits for them.
    pub fn new() -> Self {
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let state = State {
            id,
            next: 1,
            retained: 0,
            calls: HashMap::new(),
            failures: HashMap::new(),
            lost: None,
            version: 12_040,
            devices: 1,
            memory: Memory::new(),
            streams: Streams::default(),
            modules: HashMap::new(),
            functions: HashMap::new(),
            launches: Vec::new(),
            nvdec: Nvdec::default(),
            nvenc: Nvenc::default(),
            planes_brought: 0,
            violations: Vec::new(),
        };
        let state = Arc::new(Mutex::new(state));
        lock(&FAKES).insert(id, Arc::clone(&state));
        HERE.set(id);
        Self { id, state }
    }

    pub fn driver(&self) -> Driver {
        driver::table()
    }

    pub fn api(&self) -> Api {
        nvdec::table()
    }

    /// The GPU, opened as the server opens it.
    pub fn gpu(&self) -> Arc<Device> {
        HERE.set(self.id);
        Device::open(self.driver(), 0).expect("the fake GPU opens")
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// The next call of this function returns `status` and does nothing. A status that stays makes the GPU lost.
    pub fn fail(&self, call: &'static str, status: Status) {
        self.fail_after(0, call, status);
    }

    /// [`Fake::fail`], after `calls` more that succeed.
    pub fn fail_after(&self, calls: usize, call: &'static str, status: Status) {
        let mut state = self.state();
        assert!(driver::NAMES.contains(&call) || nvdec::NAMES.contains(&call), "no function {call}");
        state.failures.entry(call).or_default().push((calls, status));
    }

    /// How often this function was called.
    pub fn calls(&self, call: &str) -> usize {
        let known = [driver::NAMES, nvdec::NAMES, nvenc::NAMES].iter().any(|names| names.contains(&call));
        assert!(known, "no function {call}");
        self.state().calls.get(call).copied().unwrap_or(0)
    }

    /// The version of CUDA that the driver says it is made for, such as 12040 for 12.4.
    pub fn set_version(&self, version: i32) {
        self.state().version = version;
    }

    /// GPUs that the driver finds.
    pub fn set_devices(&self, count: i32) {
        self.state().devices = count;
    }

    /// The GPU can use the host's memory by its addresses, from now on.
    pub fn share_host(&self) {
        self.state().memory.shares_host = true;
    }

    /// Bytes of memory that the GPU has.
    pub fn set_memory(&self, bytes: usize) {
        self.state().memory.capacity = bytes;
    }

    /// Bytes of the GPU's memory in use.
    pub fn memory_in_use(&self) -> usize {
        self.state().memory.used()
    }

    /// When streams work.
    pub fn set_progress(&self, progress: Progress) {
        self.state().streams.progress = progress;
    }

    /// From now on the stream's work is recorded, not done, as a library leaves it that fails while it records. One that is
    /// spoilt takes no more work.
    pub fn record(&self, stream: &Stream, spoilt: bool) {
        self.state().begin_recording(stream.raw() as u64, spoilt);
    }

    /// Does all work that was given to streams and waits for nothing that was not.
    pub fn finish(&self) {
        self.state().run();
    }

    /// Names of the kernels that were launched since this was asked last, in order. They run as C++ on the host.
    pub fn take_launches(&self) -> Vec<String> {
        self.take_launches_of("")
    }

    /// The same of threads whose names begin so; those of others are forgotten.
    pub fn take_launches_of(&self, thread: &str) -> Vec<String> {
        let launches = std::mem::take(&mut self.state().launches);
        launches.into_iter().filter(|(of, _)| of.starts_with(thread)).map(|(_, kernel)| kernel).collect()
    }

    /// Pictures of luma and chroma that were copied to the host.
    pub fn pictures_brought(&self) -> usize {
        self.state().planes_brought / 2
    }

    /// Reads memory of the GPU, as a kernel does.
    pub fn read(&self, address: u64, bytes: &mut [u8]) {
        let mut state = self.state();
        match state.memory.slice(address, bytes.len()) {
            Ok(from) => bytes.copy_from_slice(from),
            Err(problem) => panic!("{problem}"),
        }
    }

    /// Writes memory of the GPU, as a kernel does.
    pub fn write(&self, address: u64, bytes: &[u8]) {
        let mut state = self.state();
        match state.memory.slice(address, bytes.len()) {
            Ok(to) => to.copy_from_slice(bytes),
            Err(problem) => panic!("{problem}"),
        }
    }

    /// What NVDEC says of a codec (the number of `cudaVideoCodec`).
    pub fn set_caps(&self, codec: u32, caps: Caps) {
        self.state().nvdec.caps.insert(codec, caps);
    }

    /// Most decoders at a time; beyond, there is no memory for one.
    pub fn set_max_decoders(&self, decoders: usize) {
        self.state().nvdec.max_decoders = decoders;
    }

    /// Decoders that are open.
    pub fn decoders(&self) -> usize {
        self.state().nvdec.decoders.len()
    }

    /// What parsers find in units, from now on for each parser that is made. Without it, they decode in software.
    pub fn set_source(&self, source: impl Fn(u32) -> Box<dyn Source> + Send + Sync + 'static) {
        self.state().nvdec.source = Some(Arc::new(source));
    }

    /// The status of the next picture that is decoded: a `cuvidDecodeStatus`.
    pub fn set_next_status(&self, status: u32) {
        self.state().nvdec.next_status = Some(status);
    }

    /// Forgets what was misused so far, and says what it was.
    pub fn take_violations(&self) -> Vec<String> {
        std::mem::take(&mut self.state().violations)
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        lock(&FAKES).remove(&self.id);
        if thread::panicking() {
            return;
        }
        let state = self.state();
        let mut wrong = state.violations.clone();
        // What there is of a lost GPU can't be given back, but parsers and the context.
        if state.lost.is_none() {
            wrong.extend(state.memory.left());
            wrong.extend(state.streams.left());
            wrong.extend(state.modules.keys().map(|module| format!("module {module:#x} is left")));
            wrong.extend(state.nvdec.decoders.keys().map(|decoder| format!("decoder {decoder:#x} is left")));
            wrong.extend(state.nvenc.encoders.keys().map(|encoder| format!("encoder {encoder:#x} is left")));
        }
        wrong.extend(state.nvdec.parsers.keys().map(|parser| format!("parser {parser:#x} is left")));
        if state.retained > 0 {
            wrong.push("the context is still retained".to_owned());
        }
        drop(state);
        assert!(wrong.is_empty(), "the GPU was misused:\n  {}", wrong.join("\n  "));
    }
}

impl State {
    fn handle(&mut self) -> u64 {
        self.next += 1;
        self.id << SHIFT | self.next << 4
    }

    fn wrong(&mut self, what: impl Into<String>) -> Status {
        self.violations.push(what.into());
        Status::INVALID_VALUE
    }
}

/// A table's values are plain; a test that panicked while it held one does not spoil it for the others.
fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The fake that a handle, an address or a number of a device is of.
fn find(id: u64) -> Option<Arc<Mutex<State>>> {
    lock(&FAKES).get(&id).cloned()
}

/// A call of the fake `id`: counts it, and does it unless it is to fail.
fn call_on(id: u64, name: &'static str, act: impl FnOnce(&mut State) -> Status) -> Status {
    let Some(fake) = find(id) else { return Status::INVALID_HANDLE };
    let mut state = lock(&fake);
    if let Some(status) = begin(&mut state, name) {
        return status;
    }
    act(&mut state)
}

/// Counts a call. The status that it returns at once, if it does.
fn begin(state: &mut State, name: &'static str) -> Option<Status> {
    *state.calls.entry(name).or_default() += 1;
    if state.lost.is_some() {
        return state.lost;
    }
    let failures = state.failures.get_mut(name)?;
    let due = failures.iter().position(|(after, _)| *after == 0);
    for (after, _) in failures.iter_mut() {
        *after = after.saturating_sub(1);
    }
    let (_, status) = failures.remove(due?);
    if status.is_sticky() {
        state.lost = Some(status);
    }
    Some(status)
}

/// A call that needs a current context.
fn call(name: &'static str, act: impl FnOnce(&mut State) -> Status) -> Status {
    match CONTEXTS.with_borrow(|contexts| contexts.last().copied()) {
        Some(id) => call_on(id, name, act),
        None => {
            if let Some(fake) = find(HERE.get()) {
                lock(&fake).wrong(format!("{name} was called without a current context"));
            }
            Status::INVALID_CONTEXT
        }
    }
}

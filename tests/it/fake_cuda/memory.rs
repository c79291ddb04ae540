//! Memory, streams and events.

use std::collections::{HashMap, VecDeque};

use cudarc::driver::sys::{CUDA_MEMCPY2D, CUmemorytype};

use super::*;
use crate::kernels::emulator::Emulator;

/// What new memory is filled with.
const UNWRITTEN: u8 = 0xcd;
/// What lies behind page-locked memory.
const CANARY: [u8; 64] = [0xa5; 64];

/// When the work of streams is done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Progress {
    /// As soon as it is given.
    AtOnce,
    /// When somebody asks for an event or waits for a stream.
    #[default]
    WhenAsked,
    /// Only when the test says so, see [`Fake::finish`].
    Held,
}

/// Memory of the GPU and of the host. The GPU's has addresses that this process can use, too, so that kernels which are
/// compiled for the host find it.
pub struct Memory {
    /// Where the GPU's memory is taken from: addresses of which none is used twice.
    space: *mut u8,
    taken: usize,
    /// By address, how long they are.
    blocks: BTreeMap<u64, usize>,
    /// Page-locked memory by its address: its length, and the memory with the canary.
    locked: BTreeMap<usize, (usize, Box<[u8]>)>,
    pub capacity: usize,
    /// Whether the GPU can use the host's memory by its addresses.
    pub shares_host: bool,
}

// SAFETY: the mapping belongs to no thread.
unsafe impl Send for Memory {}

/// Addresses that a GPU's memory may have while it lives.
const SPACE: usize = 1 << 36;
const PAGE: usize = 4_096;

impl Memory {
    pub fn new() -> Self {
        let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a new mapping, which nobody can use yet.
        let space = unsafe { libc::mmap(std::ptr::null_mut(), SPACE, libc::PROT_NONE, kind, -1, 0) };
        assert_ne!(space, libc::MAP_FAILED, "addresses for a GPU's memory");
        let (blocks, locked) = (BTreeMap::new(), BTreeMap::new());
        Self { space: space.cast(), taken: 0, blocks, locked, capacity: 1 << 30, shares_host: false }
    }

    pub fn used(&self) -> usize {
        self.blocks.values().sum()
    }

    /// None: there is no room. What lies behind the block is closed, after the rest of its last page.
    pub fn allocate(&mut self, len: usize) -> Option<u64> {
        if len > self.capacity.saturating_sub(self.used()) {
            return None;
        }
        let whole = len.next_multiple_of(PAGE);
        assert!(self.taken + whole + PAGE <= SPACE, "the GPU's addresses are used up");
        // SAFETY: a part of the mapping that nobody used before.
        let start = unsafe {
            let start = self.space.add(self.taken);
            assert_eq!(libc::mprotect(start.cast(), whole, libc::PROT_READ | libc::PROT_WRITE), 0);
            start.write_bytes(UNWRITTEN, len);
            start.add(len).write_bytes(CANARY[0], whole - len);
            start
        };
        self.taken += whole + PAGE;
        self.blocks.insert(start as u64, len);
        Some(start as u64)
    }

    pub fn free(&mut self, address: u64) -> Result<(), String> {
        let Some(len) = self.blocks.remove(&address) else {
            return Err(format!("{address:#x} is freed, and is no memory"));
        };
        let (start, whole) = (address as *mut u8, len.next_multiple_of(PAGE));
        // SAFETY: a block, which is open to its last page's end, and which nobody is to use from now on.
        let rest = unsafe { std::slice::from_raw_parts(start.add(len), whole - len) };
        let kept = rest.iter().all(|byte| *byte == CANARY[0]);
        // SAFETY: as above.
        unsafe {
            libc::madvise(start.cast(), whole, libc::MADV_DONTNEED);
            assert_eq!(libc::mprotect(start.cast(), whole, libc::PROT_NONE), 0);
        }
        if kept { Ok(()) } else { Err(format!("something wrote behind {len} bytes at {address:#x}")) }
    }

    /// Memory of the GPU, if it is all there.
    pub fn slice(&mut self, address: u64, len: usize) -> Result<&mut [u8], String> {
        if self.shares_host && !(self.space as u64..self.space as u64 + SPACE as u64).contains(&address) {
            // SAFETY: whoever gave the work keeps that memory until it is done.
            return Ok(unsafe { std::slice::from_raw_parts_mut(address as *mut u8, len) });
        }
        let missing = format!("{len} bytes at {address:#x} are no memory, or none any more");
        let Some((start, size)) = self.blocks.range(..=address).next_back() else { return Err(missing) };
        let from = (address - start) as usize;
        if from >= *size {
            return Err(missing);
        }
        if len > size - from {
            return Err(format!("{len} bytes at {from} of {size} bytes reach beyond"));
        }
        // SAFETY: a part of a block.
        Ok(unsafe { std::slice::from_raw_parts_mut(address as *mut u8, len) })
    }

    pub fn lock(&mut self, len: usize) -> *mut u8 {
        let mut memory: Box<[u8]> = [vec![UNWRITTEN; len], CANARY.to_vec()].concat().into();
        let start = memory.as_mut_ptr();
        self.locked.insert(start as usize, (len, memory));
        start
    }

    pub fn unlock(&mut self, start: usize) -> Result<(), String> {
        let (len, memory) = self.locked.remove(&start).ok_or("page-locked memory is freed that is not there")?;
        if memory[len..] == CANARY { Ok(()) } else { Err("something wrote behind page-locked memory".to_owned()) }
    }

    /// Page-locked memory is as long as it has to be; of other memory of the host nothing is known.
    fn host(&self, start: usize, len: usize) -> Result<(), String> {
        match self.locked.range(..=start).next_back() {
            Some((base, (size, _))) if start < base + size + CANARY.len() && start + len > base + size => {
                Err(format!("{len} bytes at {} of {size} bytes of page-locked memory reach beyond", start - base))
            }
            _ => Ok(()),
        }
    }

    pub fn left(&self) -> Vec<String> {
        let device = self.blocks.iter().map(|(at, len)| format!("{len} bytes at {at:#x} are left"));
        let host = self.locked.values().map(|(len, _)| format!("{len} bytes of page-locked memory are left"));
        device.chain(host).collect()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: what was mapped.
        unsafe { libc::munmap(self.space.cast(), SPACE) };
    }
}

#[derive(Default)]
pub struct Streams {
    streams: HashMap<u64, VecDeque<Work>>,
    /// How often each event was recorded, and the last of these that was reached.
    events: HashMap<u64, (u64, u64)>,
    pub progress: Progress,
    /// Streams whose work is recorded, not done, each with whether the recording was spoilt, and with the events in it.
    recordings: HashMap<u64, (bool, Vec<u64>)>,
    /// Graphs that recordings left.
    graphs: Vec<u64>,
}

/// What another unit of the GPU than its processors does, when its stream comes to it.
pub type Job = Box<dyn FnOnce(&mut Memory) + Send>;

pub enum Work {
    Copy2d(CUDA_MEMCPY2D),
    ToDevice { to: u64, from: usize, len: usize },
    ToHost { to: usize, from: u64, len: usize },
    Fill { to: u64, byte: u8, len: usize },
    Write { to: u64, bytes: Vec<u8> },
    Do(Job),
    Run { kernel: String, grid: [u32; 3], block: [u32; 3], argument: Vec<u64> },
    Reach { event: u64, record: u64 },
    Wait { event: u64, record: u64 },
}

// SAFETY: pointers in it are addresses, whose use the tests order.
unsafe impl Send for Work {}

impl Streams {
    pub fn left(&self) -> Vec<String> {
        let streams = self.streams.keys().map(|stream| format!("stream {stream:#x} is left"));
        let events = self.events.keys().map(|event| format!("event {event:#x} is left"));
        let graphs = self.graphs.iter().map(|graph| format!("graph {graph:#x} is left"));
        streams.chain(events).chain(graphs).collect()
    }
}

impl State {
    pub fn create_stream(&mut self) -> u64 {
        let stream = self.handle();
        self.streams.streams.insert(stream, VecDeque::new());
        stream
    }

    pub fn destroy_stream(&mut self, stream: u64) -> Status {
        // A driver finishes what was given.
        self.run();
        match self.streams.streams.remove(&stream) {
            Some(_) => Status::SUCCESS,
            None => self.wrong("a stream is destroyed that is not there"),
        }
    }

    /// From now on the stream's work is recorded, as if whoever runs on it had begun to.
    pub fn begin_recording(&mut self, stream: u64, spoilt: bool) {
        self.streams.recordings.insert(stream, (spoilt, Vec::new()));
    }

    /// A `CUstreamCaptureStatus`.
    pub fn recording(&self, stream: u64) -> u32 {
        self.streams.recordings.get(&stream).map_or(0, |(spoilt, _)| if *spoilt { 2 } else { 1 })
    }

    pub fn end_recording(&mut self, stream: u64) -> Result<u64, Status> {
        match self.streams.recordings.remove(&stream) {
            Some((true, _)) => Err(Status::RECORDING_SPOILT),
            Some((false, _)) => {
                let graph = self.handle();
                self.streams.graphs.push(graph);
                Ok(graph)
            }
            None => Err(self.wrong("a recording is ended that was not begun")),
        }
    }

    pub fn destroy_graph(&mut self, graph: u64) -> Status {
        match self.streams.graphs.iter().position(|known| *known == graph) {
            Some(at) => {
                self.streams.graphs.remove(at);
                Status::SUCCESS
            }
            None => self.wrong("a graph is destroyed that is not there"),
        }
    }

    pub fn create_event(&mut self) -> u64 {
        let event = self.handle();
        self.streams.events.insert(event, (0, 0));
        event
    }

    pub fn destroy_event(&mut self, event: u64) -> Status {
        match self.streams.events.remove(&event) {
            Some(_) => Status::SUCCESS,
            None => self.wrong("an event is destroyed that is not there"),
        }
    }

    pub fn give(&mut self, stream: u64, work: Work) -> Status {
        if let Some((spoilt, events)) = self.streams.recordings.get_mut(&stream) {
            if let Work::Reach { event, .. } = &work {
                events.push(*event);
            }
            return if *spoilt { Status::RECORDING_SPOILT } else { Status::SUCCESS };
        }
        match self.streams.streams.get_mut(&stream) {
            Some(queue) => queue.push_back(work),
            None => return self.wrong("work is given to a stream that is not there"),
        }
        if self.streams.progress == Progress::AtOnce {
            self.run();
        }
        Status::SUCCESS
    }

    pub fn record(&mut self, event: u64, stream: u64) -> Status {
        let Some((recorded, _)) = self.streams.events.get_mut(&event) else {
            return self.wrong("an event is recorded that is not there");
        };
        *recorded += 1;
        let record = *recorded;
        self.give(stream, Work::Reach { event, record })
    }

    pub fn wait(&mut self, stream: u64, event: u64) -> Status {
        let Some((record, _)) = self.streams.events.get(&event).copied() else {
            return self.wrong("an event is waited for that is not there");
        };
        self.give(stream, Work::Wait { event, record })
    }

    pub fn query(&mut self, event: u64) -> Status {
        if self.streams.recordings.values().any(|(_, events)| events.contains(&event)) {
            return Status::RECORDED_EVENT;
        }
        if self.streams.progress == Progress::WhenAsked {
            self.run();
        }
        match self.streams.events.get(&event) {
            Some((recorded, reached)) if reached < recorded => Status::NOT_READY,
            Some(_) => Status::SUCCESS,
            None => self.wrong("an event is asked for that is not there"),
        }
    }

    /// Does the work of all streams, as far as none waits for what is not done.
    pub fn run(&mut self) {
        let mut streams: Vec<u64> = self.streams.streams.keys().copied().collect();
        streams.sort_unstable();
        let mut moved = true;
        while std::mem::take(&mut moved) {
            for stream in &streams {
                while let Some(work) = self.next_of(*stream) {
                    moved = true;
                    if let Err(problem) = self.work(work) {
                        self.wrong(problem);
                    }
                }
            }
        }
    }

    /// Whether streams have work that is not done.
    pub fn is_busy(&self) -> bool {
        self.streams.streams.values().any(|queue| !queue.is_empty())
    }

    fn next_of(&mut self, stream: u64) -> Option<Work> {
        let queue = self.streams.streams.get_mut(&stream)?;
        if let Work::Wait { event, record } = queue.front()? {
            // An event that was destroyed after it was waited for counts as reached.
            if self.streams.events.get(event).is_some_and(|(_, reached)| reached < record) {
                return None;
            }
        }
        queue.pop_front()
    }

    fn work(&mut self, work: Work) -> Result<(), String> {
        match work {
            Work::Copy2d(copy) => self.copy_2d(&copy),
            Work::ToDevice { to, from, len } => {
                self.memory.host(from, len)?;
                let to = self.memory.slice(to, len)?;
                // SAFETY: whoever gave the work keeps that memory until it is done.
                to.copy_from_slice(unsafe { std::slice::from_raw_parts(from as *const u8, len) });
                Ok(())
            }
            Work::ToHost { to, from, len } => {
                self.memory.host(to, len)?;
                let from = self.memory.slice(from, len)?;
                // SAFETY: as above.
                unsafe { std::slice::from_raw_parts_mut(to as *mut u8, len) }.copy_from_slice(from);
                Ok(())
            }
            Work::Fill { to, byte, len } => {
                self.memory.slice(to, len)?.fill(byte);
                Ok(())
            }
            Work::Write { to, bytes } => {
                self.memory.slice(to, bytes.len())?.copy_from_slice(&bytes);
                Ok(())
            }
            Work::Do(job) => {
                job(&mut self.memory);
                Ok(())
            }
            Work::Run { kernel, grid, block, argument } => {
                // SAFETY: the argument is what the kernel takes, and its addresses are of the GPU's memory; others end the
                // process.
                let ran = unsafe { Emulator::get().launch(&kernel, grid, block, argument.as_ptr().cast()) };
                if ran { Ok(()) } else { Err(format!("there is no kernel {kernel}")) }
            }
            Work::Reach { event, record } => {
                if let Some((_, reached)) = self.streams.events.get_mut(&event) {
                    *reached = record.max(*reached);
                }
                Ok(())
            }
            Work::Wait { .. } => Ok(()),
        }
    }

    fn copy_2d(&mut self, copy: &CUDA_MEMCPY2D) -> Result<(), String> {
        let width = copy.WidthInBytes;
        self.planes_brought += usize::from(copy.dstMemoryType == CUmemorytype::CU_MEMORYTYPE_HOST);
        for (pitch, x) in [(copy.srcPitch, copy.srcXInBytes), (copy.dstPitch, copy.dstXInBytes)] {
            if pitch < x + width {
                return Err(format!("a row of {width} bytes at {x} does not fit into a pitch of {pitch}"));
            }
        }
        for row in 0..copy.Height {
            let from = (copy.srcY + row) * copy.srcPitch + copy.srcXInBytes;
            let to = (copy.dstY + row) * copy.dstPitch + copy.dstXInBytes;
            let bytes = match copy.srcMemoryType {
                CUmemorytype::CU_MEMORYTYPE_DEVICE => self.memory.slice(copy.srcDevice + from as u64, width)?.to_vec(),
                _ => {
                    self.memory.host(copy.srcHost as usize + from, width)?;
                    // SAFETY: whoever gave the work keeps that memory until it is done.
                    unsafe { std::slice::from_raw_parts(copy.srcHost.cast::<u8>().add(from), width) }.to_vec()
                }
            };
            if copy.dstMemoryType == CUmemorytype::CU_MEMORYTYPE_DEVICE {
                self.memory.slice(copy.dstDevice + to as u64, width)?.copy_from_slice(&bytes);
            } else {
                self.memory.host(copy.dstHost as usize + to, width)?;
                // SAFETY: as above.
                unsafe { std::slice::from_raw_parts_mut(copy.dstHost.cast::<u8>().add(to), width) }
                    .copy_from_slice(&bytes);
            }
        }
        Ok(())
    }
}

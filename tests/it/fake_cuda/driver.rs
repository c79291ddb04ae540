//! The CUDA driver's functions.

use std::ffi::{CStr, c_char, c_int, c_uchar, c_uint, c_void};

use cudarc::driver::sys::{
    CUDA_MEMCPY2D, CUcontext, CUdevice, CUdeviceptr, CUevent, CUfunction, CUgraph, CUmodule, CUstream,
};

use super::memory::Work;
use super::*;
use crate::kernels::emulator::Emulator;

/// Names of all functions, as calls are counted by them.
pub const NAMES: &[&str] = &[
    "cuInit",
    "cuDriverGetVersion",
    "cuDeviceGetCount",
    "cuDeviceGet",
    "cuDeviceGetName",
    "cuDeviceGetAttribute",
    "cuDeviceTotalMem",
    "cuDevicePrimaryCtxRetain",
    "cuDevicePrimaryCtxRelease",
    "cuCtxPushCurrent",
    "cuMemGetInfo",
    "cuMemAlloc",
    "cuMemAllocPitch",
    "cuMemFree",
    "cuMemAllocHost",
    "cuMemFreeHost",
    "cuMemcpy2DAsync",
    "cuMemcpyHtoDAsync",
    "cuMemcpyDtoHAsync",
    "cuMemsetD8Async",
    "cuStreamCreate",
    "cuStreamDestroy",
    "cuStreamSynchronize",
    "cuStreamWaitEvent",
    "cuThreadExchangeStreamCaptureMode",
    "cuStreamIsCapturing",
    "cuStreamEndCapture",
    "cuGraphDestroy",
    "cuEventCreate",
    "cuEventRecord",
    "cuEventQuery",
    "cuEventSynchronize",
    "cuEventDestroy",
    "cuModuleLoadData",
    "cuModuleGetFunction",
    "cuModuleUnload",
    "cuLaunchKernel",
];

/// `CUDA_ERROR_NOT_FOUND`.
const NOT_FOUND: Status = Status(500);

pub fn table() -> Driver {
    Driver {
        init,
        version,
        error_name,
        device_count,
        device,
        device_name,
        device_attribute,
        device_memory,
        retain_context,
        release_context,
        set_context,
        push_context,
        pop_context,
        memory_info,
        allocate,
        allocate_pitched,
        free,
        allocate_host,
        free_host,
        copy_2d,
        copy_to_device,
        copy_to_host,
        fill,
        create_stream,
        create_stream_with_priority,
        destroy_stream,
        synchronize_stream,
        stream_wait_event,
        exchange_recording_mode,
        is_recording,
        end_recording,
        destroy_graph,
        create_event,
        record_event,
        query_event,
        synchronize_event,
        destroy_event,
        load_module,
        module_function,
        unload_module,
        launch_kernel,
    }
}

unsafe extern "C" fn init(_flags: c_uint) -> Status {
    call_on(HERE.get(), "cuInit", |_| Status::SUCCESS)
}

unsafe extern "C" fn version(version: *mut c_int) -> Status {
    call_on(HERE.get(), "cuDriverGetVersion", |state| {
        unsafe { *version = state.version };
        Status::SUCCESS
    })
}

unsafe extern "C" fn error_name(status: Status, name: *mut *const c_char) -> Status {
    let found: &CStr = match status.0 {
        0 => c"CUDA_SUCCESS",
        1 => c"CUDA_ERROR_INVALID_VALUE",
        2 => c"CUDA_ERROR_OUT_OF_MEMORY",
        100 => c"CUDA_ERROR_NO_DEVICE",
        201 => c"CUDA_ERROR_INVALID_CONTEXT",
        222 => c"CUDA_ERROR_UNSUPPORTED_PTX_VERSION",
        214 => c"CUDA_ERROR_ECC_UNCORRECTABLE",
        400 => c"CUDA_ERROR_INVALID_HANDLE",
        700 => c"CUDA_ERROR_ILLEGAL_ADDRESS",
        719 => c"CUDA_ERROR_LAUNCH_FAILED",
        801 => c"CUDA_ERROR_NOT_SUPPORTED",
        901 => c"CUDA_ERROR_STREAM_CAPTURE_INVALIDATED",
        907 => c"CUDA_ERROR_CAPTURED_EVENT",
        999 => c"CUDA_ERROR_UNKNOWN",
        _ => {
            unsafe { *name = std::ptr::null() };
            return Status::INVALID_VALUE;
        }
    };
    unsafe { *name = found.as_ptr() };
    Status::SUCCESS
}

unsafe extern "C" fn device_count(count: *mut c_int) -> Status {
    call_on(HERE.get(), "cuDeviceGetCount", |state| {
        unsafe { *count = state.devices };
        Status::SUCCESS
    })
}

unsafe extern "C" fn device(device: *mut CUdevice, ordinal: c_int) -> Status {
    call_on(HERE.get(), "cuDeviceGet", |state| {
        if ordinal >= state.devices {
            return state.wrong(format!("there is no GPU {ordinal}"));
        }
        unsafe { *device = state.id as c_int };
        Status::SUCCESS
    })
}

unsafe extern "C" fn device_name(name: *mut c_char, len: c_int, device: CUdevice) -> Status {
    call_on(device as u64, "cuDeviceGetName", |_| {
        let fake = b"Fake GPU\0";
        assert!(len as usize >= fake.len());
        unsafe { std::ptr::copy_nonoverlapping(fake.as_ptr().cast(), name, fake.len()) };
        Status::SUCCESS
    })
}

unsafe extern "C" fn device_attribute(value: *mut c_int, attribute: c_uint, device: CUdevice) -> Status {
    call_on(device as u64, "cuDeviceGetAttribute", |_| {
        // Compute capability 9.0; nothing else is known.
        let known = match attribute {
            75 => 9,
            76 => 0,
            _ => return Status::INVALID_VALUE,
        };
        unsafe { *value = known };
        Status::SUCCESS
    })
}

unsafe extern "C" fn device_memory(bytes: *mut usize, device: CUdevice) -> Status {
    call_on(device as u64, "cuDeviceTotalMem", |state| {
        unsafe { *bytes = state.memory.capacity };
        Status::SUCCESS
    })
}

unsafe extern "C" fn retain_context(context: *mut CUcontext, device: CUdevice) -> Status {
    call_on(device as u64, "cuDevicePrimaryCtxRetain", |state| {
        state.retained += 1;
        unsafe { *context = state.id as CUcontext };
        Status::SUCCESS
    })
}

unsafe extern "C" fn release_context(device: CUdevice) -> Status {
    let Some(fake) = find(device as u64) else { return Status::INVALID_HANDLE };
    let mut state = lock(&fake);
    *state.calls.entry("cuDevicePrimaryCtxRelease").or_default() += 1;
    match state.retained {
        0 => state.wrong("a context is released that is not retained"),
        _ => {
            state.retained -= 1;
            state.lost.unwrap_or(Status::SUCCESS)
        }
    }
}

unsafe extern "C" fn set_context(context: CUcontext) -> Status {
    CONTEXTS.with_borrow_mut(|contexts| {
        contexts.pop();
        if !context.is_null() {
            contexts.push(context as u64);
        }
    });
    Status::SUCCESS
}

unsafe extern "C" fn push_context(context: CUcontext) -> Status {
    call_on(context as u64, "cuCtxPushCurrent", |state| {
        if state.retained == 0 {
            return state.wrong("a context is used that is not retained");
        }
        CONTEXTS.with_borrow_mut(|contexts| contexts.push(state.id));
        Status::SUCCESS
    })
}

unsafe extern "C" fn pop_context(context: *mut CUcontext) -> Status {
    match CONTEXTS.with_borrow_mut(Vec::pop) {
        Some(popped) => {
            unsafe { *context = popped as CUcontext };
            Status::SUCCESS
        }
        None => Status::INVALID_CONTEXT,
    }
}

unsafe extern "C" fn memory_info(free: *mut usize, total: *mut usize) -> Status {
    call("cuMemGetInfo", |state| {
        let capacity = state.memory.capacity;
        unsafe { (*free, *total) = (capacity.saturating_sub(state.memory.used()), capacity) };
        Status::SUCCESS
    })
}

unsafe extern "C" fn allocate(address: *mut CUdeviceptr, len: usize) -> Status {
    call("cuMemAlloc", |state| match state.memory.allocate(len) {
        _ if len == 0 => state.wrong("no bytes are allocated"),
        Some(found) => {
            unsafe { *address = found };
            Status::SUCCESS
        }
        None => Status::OUT_OF_MEMORY,
    })
}

unsafe extern "C" fn allocate_pitched(
    address: *mut CUdeviceptr,
    pitch: *mut usize,
    row: usize,
    rows: usize,
    element: c_uint,
) -> Status {
    call("cuMemAllocPitch", |state| {
        if !matches!(element, 4 | 8 | 16) || row == 0 || rows == 0 {
            return state.wrong("a pitched allocation of a size that there is none of");
        }
        let wide = row.next_multiple_of(512);
        match state.memory.allocate(wide * rows) {
            Some(found) => {
                unsafe { (*address, *pitch) = (found, wide) };
                Status::SUCCESS
            }
            None => Status::OUT_OF_MEMORY,
        }
    })
}

unsafe extern "C" fn free(address: CUdeviceptr) -> Status {
    call("cuMemFree", |state| {
        // A driver waits for what uses the memory.
        state.run();
        match state.memory.free(address) {
            Ok(()) => Status::SUCCESS,
            Err(problem) => state.wrong(problem),
        }
    })
}

unsafe extern "C" fn allocate_host(start: *mut *mut c_void, len: usize) -> Status {
    call("cuMemAllocHost", |state| {
        unsafe { *start = state.memory.lock(len).cast() };
        Status::SUCCESS
    })
}

unsafe extern "C" fn free_host(start: *mut c_void) -> Status {
    call("cuMemFreeHost", |state| {
        state.run();
        match state.memory.unlock(start as usize) {
            Ok(()) => Status::SUCCESS,
            Err(problem) => state.wrong(problem),
        }
    })
}

unsafe extern "C" fn copy_2d(copy: *const CUDA_MEMCPY2D, stream: CUstream) -> Status {
    call("cuMemcpy2DAsync", |state| state.give(stream as u64, Work::Copy2d(unsafe { *copy })))
}

unsafe extern "C" fn copy_to_device(to: CUdeviceptr, from: *const c_void, len: usize, stream: CUstream) -> Status {
    let from = from as usize;
    call("cuMemcpyHtoDAsync", |state| state.give(stream as u64, Work::ToDevice { to, from, len }))
}

unsafe extern "C" fn copy_to_host(to: *mut c_void, from: CUdeviceptr, len: usize, stream: CUstream) -> Status {
    let to = to as usize;
    call("cuMemcpyDtoHAsync", |state| state.give(stream as u64, Work::ToHost { to, from, len }))
}

unsafe extern "C" fn fill(to: CUdeviceptr, byte: c_uchar, len: usize, stream: CUstream) -> Status {
    call("cuMemsetD8Async", |state| state.give(stream as u64, Work::Fill { to, byte, len }))
}

unsafe extern "C" fn create_stream(stream: *mut CUstream, flags: c_uint) -> Status {
    unsafe { create_stream_with_priority(stream, flags, 0) }
}

unsafe extern "C" fn create_stream_with_priority(stream: *mut CUstream, _flags: c_uint, _priority: c_int) -> Status {
    call("cuStreamCreate", |state| {
        unsafe { *stream = state.create_stream() as CUstream };
        Status::SUCCESS
    })
}

unsafe extern "C" fn destroy_stream(stream: CUstream) -> Status {
    call("cuStreamDestroy", |state| state.destroy_stream(stream as u64))
}

unsafe extern "C" fn synchronize_stream(_stream: CUstream) -> Status {
    call("cuStreamSynchronize", |state| {
        state.run();
        Status::SUCCESS
    })
}

unsafe extern "C" fn stream_wait_event(stream: CUstream, event: CUevent, _flags: c_uint) -> Status {
    call("cuStreamWaitEvent", |state| state.wait(stream as u64, event as u64))
}

unsafe extern "C" fn exchange_recording_mode(mode: *mut c_uint) -> Status {
    call("cuThreadExchangeStreamCaptureMode", |state| {
        let before = MODE.replace(unsafe { *mode });
        if MODE.get() != 1 {
            return state.wrong("a thread's mode is not the one in which others may record");
        }
        unsafe { *mode = before };
        Status::SUCCESS
    })
}

unsafe extern "C" fn is_recording(stream: CUstream, found: *mut c_uint) -> Status {
    call("cuStreamIsCapturing", |state| {
        unsafe { *found = state.recording(stream as u64) };
        Status::SUCCESS
    })
}

unsafe extern "C" fn end_recording(stream: CUstream, graph: *mut CUgraph) -> Status {
    call("cuStreamEndCapture", |state| match state.end_recording(stream as u64) {
        Ok(recorded) => {
            unsafe { *graph = recorded as CUgraph };
            Status::SUCCESS
        }
        Err(status) => status,
    })
}

unsafe extern "C" fn destroy_graph(graph: CUgraph) -> Status {
    call("cuGraphDestroy", |state| state.destroy_graph(graph as u64))
}

unsafe extern "C" fn create_event(event: *mut CUevent, _flags: c_uint) -> Status {
    call("cuEventCreate", |state| {
        unsafe { *event = state.create_event() as CUevent };
        Status::SUCCESS
    })
}

unsafe extern "C" fn record_event(event: CUevent, stream: CUstream) -> Status {
    call("cuEventRecord", |state| state.record(event as u64, stream as u64))
}

unsafe extern "C" fn query_event(event: CUevent) -> Status {
    call("cuEventQuery", |state| state.query(event as u64))
}

unsafe extern "C" fn synchronize_event(event: CUevent) -> Status {
    call("cuEventSynchronize", |state| {
        state.run();
        state.query(event as u64)
    })
}

unsafe extern "C" fn destroy_event(event: CUevent) -> Status {
    call("cuEventDestroy", |state| state.destroy_event(event as u64))
}

unsafe extern "C" fn load_module(module: *mut CUmodule, image: *const c_void) -> Status {
    call("cuModuleLoadData", |state| {
        if image.is_null() {
            return state.wrong("no module is loaded");
        }
        let Ok(text) = unsafe { CStr::from_ptr(image.cast()) }.to_str() else {
            return state.wrong("a module is no text");
        };
        let handle = state.handle();
        state.modules.insert(handle, text.to_owned());
        unsafe { *module = handle as CUmodule };
        Status::SUCCESS
    })
}

unsafe extern "C" fn module_function(function: *mut CUfunction, module: CUmodule, name: *const c_char) -> Status {
    call("cuModuleGetFunction", |state| {
        let Some(text) = state.modules.get(&(module as u64)) else {
            return state.wrong("a module is used that is not there");
        };
        let Ok(name) = unsafe { CStr::from_ptr(name) }.to_str() else { return NOT_FOUND };
        if !text.contains(&format!(".visible .entry {name}(")) {
            return NOT_FOUND;
        }
        let handle = state.handle();
        state.functions.insert(handle, name.to_owned());
        unsafe { *function = handle as CUfunction };
        Status::SUCCESS
    })
}

unsafe extern "C" fn unload_module(module: CUmodule) -> Status {
    call("cuModuleUnload", |state| match state.modules.remove(&(module as u64)) {
        Some(_) => Status::SUCCESS,
        None => state.wrong("a module is unloaded twice"),
    })
}

#[allow(clippy::too_many_arguments, reason = "the driver's function has as many")]
unsafe extern "C" fn launch_kernel(
    function: CUfunction,
    grid_x: c_uint,
    grid_y: c_uint,
    grid_z: c_uint,
    block_x: c_uint,
    block_y: c_uint,
    block_z: c_uint,
    _shared: c_uint,
    stream: CUstream,
    arguments: *mut *mut c_void,
    _extra: *mut *mut c_void,
) -> Status {
    let status = call("cuLaunchKernel", |state| {
        let (grid, block) = ([grid_x, grid_y, grid_z], [block_x, block_y, block_z]);
        if grid.contains(&0) || block.contains(&0) || block.iter().product::<u32>() > 1_024 {
            return state.wrong("a kernel is launched with a grid or block of no such size");
        }
        let Some(name) = state.functions.get(&(function as u64)).cloned() else {
            return state.wrong("a kernel is launched that is not there");
        };
        let Some((_, size)) = Emulator::get().kernels().find(|(kernel, _)| *kernel == name) else {
            return state.wrong(format!("there is no kernel {name}"));
        };
        let mut argument = vec![0; size.div_ceil(8)];
        unsafe { std::ptr::copy_nonoverlapping((*arguments).cast(), argument.as_mut_ptr().cast::<u8>(), size) };
        let thread = thread::current().name().unwrap_or_default().to_owned();
        state.launches.push((thread, name.clone()));
        state.give(stream as u64, Work::Run { kernel: name, grid, block, argument })
    });
    if status == Status::RECORDING_SPOILT {
        // Whoever recorded it has left it so.
        return call("cuStreamIsCapturing", |state| {
            state.begin_recording(stream as u64, true);
            status
        });
    }
    status
}

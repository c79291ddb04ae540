//! What the modules of GPUs promise, on a GPU that is none.
#![allow(unsafe_code, reason = "copies between addresses of a GPU")]

use std::sync::Arc;
use std::time::Duration;

use saccade::device::driver::{Missing, Version};
use saccade::device::{Buffer, Device, Error, Event, Loss, PinnedPool, PitchedNv12, Status, Stream, SurfacePool};
use saccade::media::I420;

use crate::fake_cuda::{Fake, Progress};

/// A picture with a different code in each place.
fn picture(width: u32, height: u32, seed: usize) -> I420 {
    let mut picture = I420::new(width, height);
    for (plane, codes) in picture.planes_mut().into_iter().enumerate() {
        for (at, code) in codes.iter_mut().enumerate() {
            *code = ((at * 7 + plane * 50 + seed * 31) % 251) as u8;
        }
    }
    picture
}

fn download(surface: &PitchedNv12, host: &Arc<PinnedPool>, stream: &Stream) -> I420 {
    let mut found = I420::new(surface.width(), surface.height());
    surface.download(&mut found, host, stream).unwrap();
    found
}

#[test]
fn what_is_missing_is_named() {
    let fake = Fake::new();
    let open = |index| Device::open(fake.driver(), index).map(drop);
    fake.set_version(11_080);
    let (found, needed) = (Version { major: 11, minor: 8 }, Version { major: 12, minor: 0 });
    assert_eq!(open(0), Err(Missing::TooOld { found, needed }));
    fake.set_version(13_000);
    assert_eq!(open(1), Err(Missing::Index { index: 1, count: 1 }));
    fake.set_devices(0);
    assert_eq!(open(0), Err(Missing::Device));
    fake.set_devices(1);
    fake.fail("cuInit", Status::NO_DEVICE);
    assert_eq!(open(0), Err(Missing::Device));
    fake.fail("cuDevicePrimaryCtxRetain", Status::OUT_OF_MEMORY);
    let error = open(0).unwrap_err().to_string();
    assert_eq!(error, "NVIDIA's driver does not start: cuDevicePrimaryCtxRetain returned CUDA_ERROR_OUT_OF_MEMORY (2)");
    let gpu = Device::open(fake.driver(), 0).unwrap();
    assert_eq!((gpu.name(), gpu.index(), gpu.version()), ("Fake GPU", 0, Version { major: 13, minor: 0 }));
    assert_eq!((gpu.attribute(75), gpu.free_memory()), (Ok(9), Ok(1 << 30)));
}

#[test]
fn an_error_that_stays_loses_the_gpu_for_good() {
    let fake = Fake::new();
    let gpu = fake.gpu();
    let kept = Buffer::new(&gpu, 100).unwrap();
    assert_eq!(gpu.loss(), None);
    fake.fail("cuMemAlloc", Status::ILLEGAL_ADDRESS);
    let error = Buffer::new(&gpu, 100).unwrap_err();
    assert!(matches!(error, Error::Lost(Loss::Failed(failure)) if failure.call == "cuMemAlloc"), "{error}");
    assert!(error.to_string().contains("CUDA_ERROR_ILLEGAL_ADDRESS"), "{error}");

    let before = fake.calls("cuMemAlloc") + fake.calls("cuCtxPushCurrent") + fake.calls("cuStreamCreate");
    assert_eq!(Buffer::new(&gpu, 100).unwrap_err(), error);
    assert_eq!(Stream::new(&gpu).unwrap_err(), error);
    assert_eq!(gpu.enter().unwrap_err(), error);
    let after = fake.calls("cuMemAlloc") + fake.calls("cuCtxPushCurrent") + fake.calls("cuStreamCreate");
    assert_eq!(after, before, "the driver is not called any more");
    drop(kept);
    assert_eq!(fake.calls("cuMemFree"), 0, "nothing is given back of a lost GPU");
}

#[test]
fn an_error_that_passes_does_not() {
    let fake = Fake::new();
    let gpu = fake.gpu();
    fake.fail("cuMemAlloc", Status::OUT_OF_MEMORY);
    assert_eq!(Buffer::new(&gpu, 100).unwrap_err(), Error::OutOfMemory);
    fake.fail("cuEventCreate", Status::UNKNOWN);
    assert!(matches!(Event::new(&gpu).unwrap_err(), Error::Failed(failure) if failure.status == Status::UNKNOWN));
    assert!(Buffer::new(&gpu, 100).is_ok() && gpu.loss().is_none());
}

#[test]
fn a_gpu_that_does_not_get_done_is_lost() {
    let fake = Fake::new();
    let gpu = fake.gpu();
    let (stream, event) = (Stream::new(&gpu).unwrap(), Event::new(&gpu).unwrap());
    assert_eq!(event.is_done(), Ok(true), "nothing was recorded");
    fake.set_progress(Progress::Held);
    event.record(&stream).unwrap();
    assert_eq!(event.is_done(), Ok(false));
    let patience = Duration::from_millis(20);
    assert_eq!(event.wait(patience), Err(Error::Lost(Loss::Hung(patience))));
    assert_eq!(gpu.loss(), Some(Loss::Hung(patience)));
    assert_eq!(event.is_done(), Err(Error::Lost(Loss::Hung(patience))));
    // What is lost was not given back; now the fake knows why.
    fake.fail("cuInit", Status::LAUNCH_FAILED);
    assert!(Device::open(fake.driver(), 0).is_err());
}

#[test]
fn an_error_in_work_comes_out_where_it_is_waited_for() {
    let fake = Fake::new();
    let gpu = fake.gpu();
    let stream = Stream::new(&gpu).unwrap();
    fake.fail("cuEventQuery", Status::ECC_UNCORRECTABLE);
    assert!(stream.wait().unwrap_err().is_lost());
}

#[test]
fn memory_goes_up_and_comes_down() {
    let fake = Fake::new();
    let gpu = fake.gpu();
    let stream = Stream::new(&gpu).unwrap();
    let mut buffer = Buffer::new(&gpu, 1_000).unwrap();
    buffer.fill(7, &stream).unwrap();
    let bytes: Vec<u8> = (0..=255).collect();
    buffer.upload(&bytes, &stream).unwrap();
    let mut found = [0; 300];
    buffer.download(&mut found, &stream).unwrap();
    assert_eq!((&found[..256], &found[256..]), (&bytes[..], &[7; 44][..]));
    assert_eq!(buffer.upload(&[0; 1_001], &stream), Err(Error::Bounds));
    assert_eq!(buffer.download(&mut [0; 1_001], &stream), Err(Error::Bounds));
}

#[test]
fn pictures_of_any_size_survive_the_way_there_and_back() {
    let fake = Fake::new();
    let gpu = fake.gpu();
    let (stream, host) = (Stream::new(&gpu).unwrap(), PinnedPool::new(&gpu, 1 << 24));
    for (width, height) in [(1, 1), (2, 1), (1, 2), (37, 41), (640, 480), (641, 479), (512, 3)] {
        let sent = picture(width, height, 1);
        let mut surface = PitchedNv12::new(&gpu, width, height).unwrap();
        assert!(surface.chroma() >= surface.luma() + u64::from(height) * surface.pitch() as u64);
        surface.upload(&sent, &host, &stream).unwrap();
        assert!(download(&surface, &host, &stream) == sent, "{width}x{height}");
        let mut copy = PitchedNv12::new(&gpu, width, height).unwrap();
        let planes = [surface.luma(), surface.chroma()];
        // SAFETY: the other surface outlives the copy, for which the download waits.
        unsafe { copy.copy_from_device(planes, surface.pitch(), [0, 0], &stream) }.unwrap();
        assert!(download(&copy, &host, &stream) == sent, "{width}x{height} on the GPU");
        assert_eq!(surface.upload(&picture(width + 1, height, 1), &host, &stream), Err(Error::Bounds));
    }
    for (width, height) in [(0, 1), (1, 0), (16_385, 1)] {
        assert!(matches!(PitchedNv12::new(&gpu, width, height), Err(Error::Size(_))), "{width}x{height}");
    }
}

#[test]
fn surfaces_are_bounded_for_each_and_for_all() {
    let fake = Fake::new();
    let gpu = fake.gpu();
    let bytes = PitchedNv12::new(&gpu, 64, 48).unwrap().bytes();
    let pool = SurfacePool::new(&gpu, 3 * bytes);
    let (first, second) = (pool.share(2), pool.share(2));
    let held = [first.take(64, 48).unwrap(), first.take(64, 48).unwrap()];
    assert_eq!(first.take(64, 48).unwrap_err(), Error::Exhausted("surfaces of a session"));
    let third = second.take(64, 48).unwrap();
    assert_eq!(second.take(64, 48).unwrap_err(), Error::Exhausted("surfaces of a GPU"));
    assert_eq!((pool.refused(), pool.bytes(), first.used(), second.used()), (2, 3 * bytes, 2, 1));

    let address = third.luma();
    drop(third);
    let made = fake.calls("cuMemAllocPitch");
    let again = second.take(64, 48).unwrap();
    assert_eq!((again.luma(), fake.calls("cuMemAllocPitch")), (address, made), "it is used again");
    drop((again, held));
    assert_eq!((first.used(), second.used(), pool.bytes()), (0, 0, 3 * bytes));

    // Another size takes the place of what nobody uses.
    let larger = second.take(128, 96).unwrap();
    assert!(pool.bytes() <= 3 * bytes && (larger.width(), larger.height()) == (128, 96));
    pool.shrink();
    assert_eq!(pool.bytes(), larger.bytes());
}

#[test]
fn surfaces_that_wait_make_room_when_the_gpus_memory_is_full() {
    let fake = Fake::new();
    let gpu = fake.gpu();
    let pool = SurfacePool::new(&gpu, 1 << 30);
    let share = pool.share(8);
    drop((share.take(64, 48).unwrap(), share.take(64, 48).unwrap()));
    fake.set_memory(fake.memory_in_use());
    let other = share.take(32, 32).unwrap();
    fake.set_memory(fake.memory_in_use());
    assert_eq!(share.take(640, 480).unwrap_err(), Error::OutOfMemory);
    assert_eq!((share.used(), pool.bytes()), (1, other.bytes()));
}

#[test]
fn a_surface_is_not_written_before_its_readers_are_done() {
    let fake = Fake::new();
    let gpu = fake.gpu();
    // The fake does the work of this stream first, if it may.
    let writer = Stream::new(&gpu).unwrap();
    let reader = Stream::new(&gpu).unwrap();
    let host = PinnedPool::new(&gpu, 1 << 20);
    let (old, new) = (picture(64, 48, 1), picture(64, 48, 2));
    let mut source = PitchedNv12::new(&gpu, 64, 48).unwrap();
    source.upload(&new, &host, &writer).unwrap();
    let pool = SurfacePool::new(&gpu, 1 << 20);
    let share = pool.share(1);
    let mut surface = share.take(64, 48).unwrap();
    surface.upload(&old, &host, &writer).unwrap();
    let mut read = PitchedNv12::new(&gpu, 64, 48).unwrap();

    fake.set_progress(Progress::Held);
    // SAFETY: the surface's memory stays with the pool.
    unsafe { read.copy_from_device([surface.luma(), surface.chroma()], surface.pitch(), [0, 0], &reader) }.unwrap();
    surface.read_by(&reader).unwrap();
    let address = surface.luma();
    drop(surface);
    let mut surface = share.take(64, 48).unwrap();
    assert_eq!(surface.luma(), address);
    // SAFETY: the source outlives the copy.
    unsafe { surface.copy_from_device([source.luma(), source.chroma()], source.pitch(), [0, 0], &writer) }.unwrap();
    fake.set_progress(Progress::WhenAsked);
    assert!(download(&read, &host, &reader) == old, "the reader saw what was there when it began");
    assert!(download(&surface, &host, &writer) == new);
}

#[test]
fn a_surface_is_not_written_before_its_last_writer_is_done() {
    let fake = Fake::new();
    let gpu = fake.gpu();
    // The fake does the work of this stream first, if it may.
    let (second, first) = (Stream::new(&gpu).unwrap(), Stream::new(&gpu).unwrap());
    let host = PinnedPool::new(&gpu, 1 << 20);
    let pictures = [picture(64, 48, 1), picture(64, 48, 2)];
    let sources = pictures.each_ref().map(|picture| {
        let mut source = PitchedNv12::new(&gpu, 64, 48).unwrap();
        source.upload(picture, &host, &first).unwrap();
        source
    });
    let pool = SurfacePool::new(&gpu, 1 << 20);
    let share = pool.share(1);
    fake.set_progress(Progress::Held);
    let mut addresses = Vec::new();
    for (source, stream) in sources.iter().zip([&first, &second]) {
        let mut surface = share.take(64, 48).unwrap();
        addresses.push(surface.luma());
        // SAFETY: the sources outlive the copies.
        unsafe { surface.copy_from_device([source.luma(), source.chroma()], source.pitch(), [0, 0], stream) }.unwrap();
    }
    assert_eq!(addresses[0], addresses[1]);
    fake.set_progress(Progress::WhenAsked);
    let surface = share.take(64, 48).unwrap();
    assert!(download(&surface, &host, &first) == pictures[1], "who wrote last is seen");
}

#[test]
fn host_memory_is_bounded_and_used_again() {
    let fake = Fake::new();
    let gpu = fake.gpu();
    let pool = PinnedPool::new(&gpu, 3 << 16);
    let first = pool.take(100).unwrap();
    let second = pool.take((1 << 16) + 1).unwrap();
    assert_eq!((first.len(), second.len(), pool.bytes()), (100, (1 << 16) + 1, 3 << 16));
    assert!(matches!(pool.take(1), Err(Error::Exhausted(_))));
    assert_eq!(pool.refused(), 1);
    let address = second.as_ptr();
    drop(second);
    let mut again = pool.take(70_000).unwrap();
    assert_eq!((again.as_ptr(), fake.calls("cuMemAllocHost")), (address, 2));
    again.fill(9);
    drop((first, again));
    // What waits is given up for what does not fit beside it.
    let whole = pool.take(3 << 16).unwrap();
    assert_eq!((whole.len(), pool.bytes(), fake.calls("cuMemFreeHost")), (3 << 16, 3 << 16, 2));
}

#[test]
fn contexts_are_current_one_in_the_other_and_on_each_thread() {
    let fake = Fake::new();
    let gpu = fake.gpu();
    {
        let _outer = gpu.enter().unwrap();
        let _inner = gpu.enter().unwrap();
        let _buffer = Buffer::new(&gpu, 10).unwrap();
    }
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..20 {
                    let stream = Stream::new(&gpu).unwrap();
                    let mut buffer = Buffer::new(&gpu, 10).unwrap();
                    buffer.upload(&[1; 10], &stream).unwrap();
                }
            });
        }
    });
}

#[test]
fn each_thread_gets_out_of_the_way_of_recordings_once() {
    let fake = Fake::new();
    let gpu = fake.gpu();
    let modes = || fake.calls("cuThreadExchangeStreamCaptureMode");
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                assert!(gpu.enter().is_ok());
                // Another call of the same thread.
                drop(Buffer::new(&gpu, 10).unwrap());
            });
        }
    });
    assert_eq!(modes(), 3);
    // What fails is tried again, and keeps no context.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            fake.fail("cuThreadExchangeStreamCaptureMode", Status::UNKNOWN);
            assert!(matches!(gpu.enter(), Err(Error::Failed(failure)) if failure.status == Status::UNKNOWN));
            assert!(gpu.free_memory().is_ok() && gpu.free_memory().is_ok());
        });
    });
    assert_eq!(modes(), 5);
}

#[test]
fn a_recording_that_was_left_open_is_ended_before_the_stream_is_used_again() {
    let fake = Fake::new();
    let gpu = fake.gpu();
    let stream = Stream::new(&gpu).unwrap();
    assert_eq!(stream.end_recording(), Ok(false));
    for spoilt in [false, true] {
        fake.record(&stream, spoilt);
        assert_eq!(stream.end_recording(), Ok(true));
        let mut buffer = Buffer::new(&gpu, 10).unwrap();
        buffer.upload(&[7; 10], &stream).unwrap();
        stream.wait().unwrap();
    }
    assert_eq!(fake.calls("cuGraphDestroy"), 1, "one of them left a graph");
    // The reason why it has to be ended: nothing can be waited for in it.
    let event = Event::new(&gpu).unwrap();
    fake.record(&stream, false);
    event.record(&stream).unwrap();
    assert!(matches!(event.is_done(), Err(Error::Failed(failure)) if failure.status == Status::RECORDED_EVENT));
    assert_eq!(stream.end_recording(), Ok(true));
}

#[test]
fn misuse_of_the_fake_is_noticed() {
    let fake = Fake::new();
    let gpu = fake.gpu();
    let stream = Stream::new(&gpu).unwrap();
    let freed = PitchedNv12::new(&gpu, 64, 48).unwrap();
    let planes = [freed.luma(), freed.chroma()];
    let mut to = PitchedNv12::new(&gpu, 64, 48).unwrap();
    drop(freed);
    // SAFETY: a fake's memory is none.
    unsafe { to.copy_from_device(planes, 512, [0, 0], &stream) }.unwrap();
    stream.wait().unwrap();
    assert_eq!(fake.take_violations().len(), 2, "both planes were freed before they were read");
    // SAFETY: a fake's memory is none.
    unsafe { to.copy_from_device([to.luma(), to.luma() + 512], 512, [0, 47], &stream) }.unwrap();
    stream.wait().unwrap();
    assert!(fake.take_violations().iter().any(|what| what.contains("reach beyond") || what.contains("no memory")));
    let status = unsafe { (fake.driver().free)(to.luma()) };
    assert_eq!(status, Status::INVALID_CONTEXT, "no context is current");
    assert_eq!(fake.take_violations().len(), 1);
}

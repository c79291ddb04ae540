//! Still pictures at a model: those that wait without blocking a thread.

use super::*;
use crate::infer::Whole;

#[test]
fn pictures_that_are_late_or_withdrawn_are_not_run() {
    let bench = Bench::new(Duration::from_millis(1));
    let slot = bench.slot("busy");
    assert_eq!(bench.submit(&slot, 0, LONG), None);
    bench.running();
    let picture = Arc::new(I420::new(16, 8));
    let infer = |time: Duration| {
        let deadline = crate::clock::now() + time;
        bench.model.infer(&picture, ColorInfo::default(), None, &bench.params, deadline)
    };
    let (late, gone, last) = (infer(Duration::ZERO).unwrap(), infer(LONG).unwrap(), infer(LONG).unwrap());
    drop(gone);
    (0..2).for_each(|_| bench.step(Step::Find));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert_eq!(runtime.block_on(late), Err(Error::Late));
    let found = runtime.block_on(last).unwrap();
    assert_eq!((found.detections.len(), found.batch_size), (1, 1));
    assert_eq!(bench.running(), 1, "of three pictures one was run");
    assert!(!bench.model.has_waiting());
    assert_eq!(bench.done(), ("busy", 0));
}

#[test]
fn pictures_that_no_instance_is_idle_for_are_run_beside_the_instances() {
    let bench = Bench::new(Duration::from_millis(1));
    bench.model.help(1).unwrap();
    let slots = ["busy", "waits"].map(|name| bench.slot(name));
    assert_eq!(bench.submit(&slots[0], 0, LONG), None);
    assert_eq!(bench.running(), 1);
    assert_eq!(bench.opened.load(Ordering::SeqCst), 1, "none is opened before it is needed");
    assert_eq!(bench.submit(&slots[1], 1, LONG), None);
    let picture = Arc::new(I420::new(16, 8));
    let deadline = crate::clock::now() + LONG;
    let answer = bench.model.infer(&picture, ColorInfo::default(), None, &bench.params, deadline).unwrap();
    assert_eq!(bench.running(), 1, "while the instance has not ended");
    assert_eq!(bench.opened.load(Ordering::SeqCst), 2);
    assert!(bench.model.has_waiting(), "the frame waits for the instance");
    (0..3).for_each(|_| bench.step(Step::Find));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert_eq!(runtime.block_on(answer).unwrap().detections.len(), 1);
    assert_eq!([bench.done(), bench.done()], [("busy", 0), ("waits", 1)]);
    bench.model.shutdown();
    assert_eq!(bench.model.figures().done, 3);
    assert_eq!(bench.model.threads_at_work(), 0);
}

#[test]
fn pictures_of_no_use_make_way_where_no_more_may_wait() {
    let bench = Bench::new(Duration::from_millis(1));
    let slot = bench.slot("busy");
    assert_eq!(bench.submit(&slot, 0, LONG), None);
    bench.running();
    let picture = Arc::new(I420::new(16, 8));
    let infer = || {
        let deadline = crate::clock::now() + LONG;
        bench.model.infer(&picture, ColorInfo::default(), None, &bench.params, deadline)
    };
    let mut waiting: Vec<_> = (0..32).map(|_| infer().unwrap()).collect();
    assert_eq!(infer().err(), Some(Error::Busy));
    drop(waiting.remove(7));
    let last = infer().unwrap();
    assert_eq!(infer().err(), Some(Error::Busy));
    drop(waiting);
    (0..2).for_each(|_| bench.step(Step::Find));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert!(runtime.block_on(last).is_ok());
    assert_eq!(bench.running(), 1);
}

#[test]
fn what_is_found_in_a_smaller_picture_is_told_in_pixels_of_the_whole() {
    let bench = Bench::new(Duration::from_millis(1));
    (0..2).for_each(|_| bench.step(Step::Find));
    let picture = Arc::new(I420::new(16, 8));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let find = |whole| {
        let deadline = crate::clock::now() + LONG;
        let found = bench.model.infer(&picture, ColorInfo::default(), whole, &bench.params, deadline).unwrap();
        runtime.block_on(found).unwrap().detections[0].bbox
    };
    let smaller = find(None);
    let whole = find(Some(Whole { width: 61, height: 32, shrunk: 4 }));
    assert_eq!(whole, smaller.map(|side| 4.0 * side));
}

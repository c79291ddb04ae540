#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[path = "picture_tests.rs"]
mod pictures;

use super::*;
use crate::calibration::{Disturbance, Origin};
use crate::frame::Frame;
use crate::infer::Params;
use crate::infer::backend::Bucket;
use crate::infer::backend::{Backend, Provider, Selection};
use crate::infer::batcher::Priority;
use crate::infer::decoder::{Decoder, Outlet, View};
use crate::infer::manifest::{Manifest, Precision};
use crate::infer::model::{Model, Slot};
use crate::media::{ColorInfo, I420, MediaTime};

const PATIENCE: Duration = Duration::from_secs(20);

const MANIFEST: &str = r#"
name = "fake"
version = "1"
licence = "MIT"
[input]
size = [16, 8]
scale = [1.0, 1.0, 1.0]
[output]
decoder = "yolov8"
[classes]
names = ["a", "b"]
"#;

/// What the fake graph does on its next run.
enum Step {
    Find,
    Fail,
    /// As on a device that repeats what it recorded.
    Spoil,
    Panic,
}

/// A graph that finds one box a picture, and that waits for the test's word before each run.
struct Fake {
    batch: usize,
    tensor: Vec<f32>,
    /// Gets the number of pictures of each run.
    started: SyncSender<usize>,
    steps: Arc<Mutex<Receiver<Step>>>,
    warm: bool,
}

impl Backend for Fake {
    fn input(&mut self) -> &mut [f32] {
        &mut self.tensor
    }

    fn run(&mut self, read: &mut dyn FnMut(&[View<'_>]) -> Result<(), Error>) -> Result<(), Error> {
        if self.warm {
            self.started.send(self.batch).unwrap();
            let step = self.steps.lock().unwrap().recv_timeout(PATIENCE).unwrap();
            match step {
                Step::Find => {}
                Step::Fail => return Err(Error::Run { reason: "told to".to_owned() }),
                Step::Spoil => return Err(Error::Recording { reason: "told to".to_owned() }),
                Step::Panic => std::panic::resume_unwind(Box::new("told to")),
            }
        }
        self.warm = true;
        let data = [8.0, 4.0, 4.0, 2.0, 0.0, 0.9].repeat(self.batch);
        read(&[View { shape: &[i64::try_from(self.batch).unwrap(), 6, 1], data: &data }])
    }
}

/// A model on the fake graph and what drives it.
struct Bench {
    model: Arc<Model>,
    started: Receiver<usize>,
    steps: SyncSender<Step>,
    opened: Arc<AtomicUsize>,
    /// Opens runners of these batch sizes.
    opening: Box<dyn Fn(Vec<usize>) -> Arc<Open>>,
    outcomes: Receiver<(&'static str, Outcome)>,
    report: SyncSender<(&'static str, Outcome)>,
    params: Arc<Params>,
}

impl Bench {
    fn new(measured: Duration) -> Self {
        Self::with(vec![(1, measured)])
    }

    /// A model that runs these batches, in these times by its calibration.
    fn with(buckets: Vec<(usize, Duration)>) -> Self {
        Self::several(buckets, 1)
    }

    /// The same with several instances.
    fn several(buckets: Vec<(usize, Duration)>, instances: u32) -> Self {
        let manifest = Arc::new(Manifest::parse(MANIFEST, |_| unreachable!()).unwrap());
        let outlets = [Outlet { name: "out".to_owned(), shape: vec![-1, 6, -1] }];
        let decoder = Decoder::bind(&manifest, &outlets).unwrap();
        let (started_tx, started) = sync_channel(64);
        let (steps, steps_rx) = sync_channel(64);
        let steps_rx = Arc::new(Mutex::new(steps_rx));
        let opened = Arc::new(AtomicUsize::new(0));
        let (count, of) = (Arc::clone(&opened), Arc::clone(&manifest));
        let opening = move |sizes: Vec<usize>| -> Arc<Open> {
            let (count, of, decoder) = (Arc::clone(&count), Arc::clone(&of), decoder.clone());
            let (started_tx, steps_rx) = (started_tx.clone(), Arc::clone(&steps_rx));
            Arc::new(move || {
                count.fetch_add(1, Ordering::SeqCst);
                let fake = |batch| {
                    let tensor = vec![0.0; batch * of.input.item_len()];
                    let (started, steps) = (started_tx.clone(), Arc::clone(&steps_rx));
                    Bucket::Host(Box::new(Fake { batch, tensor, started, steps, warm: false }))
                };
                let mut runner = Runner::new(Arc::clone(&of), fake(1), decoder.clone());
                sizes[1..].iter().for_each(|size| runner.add_bucket(*size, fake(*size)));
                sizes.iter().try_for_each(|size| runner.time(*size, 1).map(drop))?;
                Ok(runner)
            })
        };
        let open = opening(sizes(&buckets));
        let runner = open().unwrap();
        let selection = Selection { instances, ..selection(buckets) };
        let params = Arc::new(Params::from(manifest.defaults));
        let model = Arc::new(Model::start(manifest, selection, open, vec![runner]).unwrap());
        let (report, outcomes) = sync_channel(64);
        Self { model, started, steps, opened, opening: Box::new(opening), outcomes, report, params }
    }

    /// Has the model run these batches from now on.
    fn change(&self, buckets: Vec<(usize, Duration)>) -> bool {
        self.change_to(buckets, self.model.instances())
    }

    /// The same in so many instances.
    fn change_to(&self, buckets: Vec<(usize, Duration)>, instances: u32) -> bool {
        let open = (self.opening)(sizes(&buckets));
        let runners = (0..instances).map(|_| open().unwrap()).collect();
        self.model.change(selection(buckets), open, runners)
    }

    fn slot(&self, name: &'static str) -> Slot {
        let report = self.report.clone();
        self.model.attach(Priority::Normal, move |outcome| report.send((name, outcome)).unwrap())
    }

    fn submit(&self, slot: &Slot, id: u64, budget: Duration) -> Option<u64> {
        slot.submit(frame(id, budget), Arc::clone(&self.params)).map(|frame| frame.id)
    }

    /// Waits until the graph runs, and says on how many pictures; it then waits for [`Self::step`].
    fn running(&self) -> usize {
        self.started.recv_timeout(PATIENCE).unwrap()
    }

    fn step(&self, step: Step) {
        self.steps.send(step).unwrap();
    }

    fn outcome(&self) -> (&'static str, Outcome) {
        self.outcomes.recv_timeout(PATIENCE).unwrap()
    }

    fn done(&self) -> (&'static str, u64) {
        match self.outcome() {
            (name, Outcome::Done(inferred)) => (name, inferred.frame.id),
            (name, Outcome::Late(frame)) => panic!("{name}: frame {} was late", frame.id),
            (name, Outcome::Failed(frame, error)) => panic!("{name}: frame {} failed: {error}", frame.id),
        }
    }
}

fn sizes(buckets: &[(usize, Duration)]) -> Vec<usize> {
    buckets.iter().map(|(size, _)| *size).collect()
}

fn selection(buckets: Vec<(usize, Duration)>) -> Selection {
    Selection {
        provider: Provider::Cpu,
        precision: Precision::Fp32,
        measured: buckets[0].1,
        buckets,
        instances: 1,
        in_place: false,
        origin: Origin::Measured,
        disturbance: Disturbance::default(),
        others: vec![],
    }
}

fn frame(id: u64, budget: Duration) -> Frame {
    let now = clock::now();
    Frame {
        id,
        picture: Arc::new(I420::new(32, 32)).into(),
        color: ColorInfo::default(),
        time: MediaTime(0),
        arrival: now,
        deadline: now + budget,
        reorder_wait: Duration::ZERO,
        decode_time: Duration::ZERO,
        worked: Duration::ZERO,
        decoded_at: now,
    }
}

const LONG: Duration = Duration::from_secs(60);

#[test]
fn a_frame_comes_back_with_its_detections_in_source_pixels() {
    let bench = Bench::new(Duration::from_millis(1));
    let slot = bench.slot("a");
    assert_eq!(bench.submit(&slot, 7, LONG), None);
    bench.running();
    bench.step(Step::Find);
    let (_, Outcome::Done(inferred)) = bench.outcome() else { panic!() };
    assert_eq!((inferred.frame.id, inferred.batch_size, inferred.met), (7, 1, true));
    // 32×32 into 16×8: a quarter of the size, four columns to the left of the picture.
    let [detection] = &inferred.detections[..] else { panic!("{:?}", inferred.detections) };
    assert_eq!(detection.bbox, [8.0, 12.0, 24.0, 20.0]);
    assert_eq!((detection.class.id, &*detection.class.name, detection.score), (1, "b", 0.9));
}

#[test]
fn the_newest_frame_of_a_slot_replaces_the_waiting_one() {
    let bench = Bench::new(Duration::from_millis(1));
    let slot = bench.slot("a");
    assert_eq!(bench.submit(&slot, 0, LONG), None);
    bench.running();
    assert_eq!(bench.submit(&slot, 1, LONG), None);
    assert_eq!(bench.submit(&slot, 2, LONG), Some(1));
    bench.step(Step::Find);
    bench.step(Step::Find);
    assert_eq!((bench.done(), bench.done()), (("a", 0), ("a", 2)));
}

#[test]
fn of_several_sessions_the_most_urgent_goes_first() {
    let bench = Bench::new(Duration::from_millis(1));
    let (a, b, c) = (bench.slot("a"), bench.slot("b"), bench.slot("c"));
    assert_eq!(bench.submit(&a, 0, LONG), None);
    bench.running();
    assert_eq!(bench.submit(&a, 1, LONG * 3), None);
    assert_eq!(bench.submit(&b, 2, LONG), None);
    assert_eq!(bench.submit(&c, 3, LONG * 2), None);
    (0..4).for_each(|_| bench.step(Step::Find));
    let order = [bench.done(), bench.done(), bench.done(), bench.done()];
    assert_eq!(order, [("a", 0), ("b", 2), ("c", 3), ("a", 1)]);
}

#[test]
fn a_frame_that_cannot_make_it_comes_back_unrun() {
    let bench = Bench::new(Duration::from_secs(5));
    let slot = bench.slot("a");
    assert_eq!(bench.submit(&slot, 0, Duration::from_secs(1)), None);
    let (_, Outcome::Late(late)) = bench.outcome() else { panic!() };
    assert_eq!(late.id, 0);
    assert!(bench.started.try_recv().is_err(), "the graph was not run");
    assert_eq!(bench.submit(&slot, 1, LONG), None);
    bench.running();
    bench.step(Step::Find);
    assert_eq!(bench.done(), ("a", 1));
}

#[test]
fn a_panic_fails_its_frame_restarts_the_instance_and_spares_the_other_sessions() {
    let bench = Bench::new(Duration::from_millis(1));
    let (a, b) = (bench.slot("a"), bench.slot("b"));
    assert_eq!(bench.submit(&a, 0, LONG), None);
    bench.running();
    assert_eq!(bench.submit(&b, 1, LONG), None);
    bench.step(Step::Panic);
    bench.step(Step::Find);
    assert!(matches!(bench.outcome(), ("a", Outcome::Failed(Frame { id: 0, .. }, Error::Panicked))));
    assert_eq!(bench.done(), ("b", 1));
    assert_eq!(bench.opened.load(Ordering::SeqCst), 2);
    assert!(bench.model.is_ready());
}

#[test]
fn repeated_faults_make_the_model_unready_and_every_frame_still_comes_back() {
    let bench = Bench::new(Duration::from_millis(1));
    let slot = bench.slot("a");
    for (id, step) in (0..).zip([Step::Panic, Step::Fail, Step::Panic]) {
        assert!(bench.model.is_ready());
        assert_eq!(bench.submit(&slot, id, LONG), None);
        bench.running();
        bench.step(step);
        assert!(matches!(bench.outcome(), (_, Outcome::Failed(..))));
    }
    assert!(!bench.model.is_ready());
    assert_eq!(bench.submit(&slot, 9, LONG), None);
    assert!(matches!(bench.outcome(), (_, Outcome::Failed(Frame { id: 9, .. }, Error::NotReady))));
    let answer = bench.model.detect(&Arc::new(I420::new(8, 8)), ColorInfo::default(), &bench.params);
    assert_eq!(answer, Err(Error::NotReady));
}

#[test]
fn what_waits_for_a_model_that_becomes_unready_is_refused_and_forgotten() {
    let bench = Bench::new(Duration::from_millis(1));
    let (busy, other) = (bench.slot("busy"), bench.slot("other"));
    for id in 0..2 {
        assert_eq!(bench.submit(&busy, id, LONG), None);
        bench.running();
        bench.step(Step::Fail);
        assert!(matches!(bench.outcome(), ("busy", Outcome::Failed(..))));
    }
    assert_eq!(bench.submit(&busy, 2, LONG), None);
    bench.running();
    assert_eq!(bench.submit(&other, 3, LONG), None);
    let picture = Arc::new(I420::new(16, 8));
    let detect = || bench.model.detect(&picture, ColorInfo::default(), &bench.params);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(detect);
        while bench.model.waiting_pictures() == 0 {
            std::thread::yield_now();
        }
        bench.step(Step::Fail);
        assert_eq!(waiting.join().unwrap(), Err(Error::NotReady));
    });
    assert!(matches!(bench.outcome(), ("busy", Outcome::Failed(Frame { id: 2, .. }, _))));
    assert!(matches!(bench.outcome(), ("other", Outcome::Failed(Frame { id: 3, .. }, Error::NotReady))));
    assert!(!bench.model.has_waiting());
    // Refused at once: nobody has to be woken for it.
    assert_eq!(detect(), Err(Error::NotReady));
    assert!(!bench.model.has_waiting());
}

#[test]
fn a_panicking_callback_ends_its_own_session_only() {
    let bench = Bench::new(Duration::from_millis(1));
    let bad = bench.model.attach(Priority::Normal, |_| std::panic::resume_unwind(Box::new("told to")));
    let good = bench.slot("good");
    assert_eq!(bench.submit(&bad, 0, LONG), None);
    bench.running();
    assert_eq!(bench.submit(&good, 1, LONG), None);
    bench.step(Step::Find);
    bench.step(Step::Find);
    assert_eq!(bench.done(), ("good", 1));
    assert_eq!(bench.submit(&bad, 2, LONG), Some(2));
    assert_eq!(bench.opened.load(Ordering::SeqCst), 1);
}

#[test]
fn a_dropped_slot_gets_nothing_more() {
    let bench = Bench::new(Duration::from_millis(1));
    let (a, b) = (bench.slot("a"), bench.slot("b"));
    assert_eq!(bench.submit(&a, 0, LONG), None);
    bench.running();
    assert_eq!(bench.submit(&a, 1, LONG), None);
    assert_eq!(bench.submit(&b, 2, LONG * 2), None);
    drop(a);
    bench.step(Step::Find);
    bench.step(Step::Find);
    assert_eq!(bench.done(), ("b", 2));
}

#[test]
fn pictures_and_live_frames_share_the_instance() {
    let bench = Bench::new(Duration::from_millis(1));
    bench.step(Step::Find);
    let found = bench.model.detect(&Arc::new(I420::new(16, 8)), ColorInfo::default(), &bench.params).unwrap();
    assert_eq!(found.detections[0].bbox, [6.0, 3.0, 10.0, 5.0]);
    let none = Params { classes: Some(vec![0]), ..(*bench.params).clone() };
    bench.step(Step::Find);
    let found = bench.model.detect(&Arc::new(I420::new(16, 8)), ColorInfo::default(), &Arc::new(none)).unwrap();
    assert_eq!(found.detections, []);
}

/// Larger batches take next to nothing more. All take longer than that here, so that the first runs of a single frame
/// only make batches look better.
const PAYING: [(usize, Duration); 3] =
    [(1, Duration::from_nanos(1000)), (2, Duration::from_nanos(1001)), (4, Duration::from_nanos(1002))];

/// Three slots whose frames wait while that of another runs.
fn three_waiting(bench: &Bench) -> Vec<Slot> {
    let slots = ["busy", "a", "b", "c"].map(|name| bench.slot(name));
    assert_eq!(bench.submit(&slots[0], 0, LONG), None);
    assert_eq!(bench.running(), 1, "an idle instance waits for no company");
    for (id, slot) in (1..).zip(&slots[1..]) {
        assert_eq!(bench.submit(slot, id, LONG), None);
    }
    bench.step(Step::Find);
    assert_eq!(bench.done(), ("busy", 0));
    slots.into()
}

#[test]
fn frames_that_wait_run_together_in_the_bucket_that_pays() {
    let bench = Bench::with(PAYING.into());
    let _slots = three_waiting(&bench);
    assert_eq!(bench.running(), 4, "three in a bucket of four");
    bench.step(Step::Find);
    for (name, id) in [("a", 1), ("b", 2), ("c", 3)] {
        let (to, Outcome::Done(inferred)) = bench.outcome() else { panic!() };
        assert_eq!((to, inferred.frame.id, inferred.batch_size), (name, id, 3));
        assert_eq!(inferred.detections[0].bbox, [8.0, 12.0, 24.0, 20.0]);
    }
}

#[test]
fn a_frame_that_fails_does_not_fail_the_others_of_its_batch() {
    // A frame that fails ends the runner that it failed in; so does a panic of the batch.
    for (bad, opened) in [(Step::Fail, 2), (Step::Panic, 3)] {
        let bench = Bench::with(PAYING.into());
        let _slots = three_waiting(&bench);
        let bad_alone = if matches!(bad, Step::Fail) { Step::Fail } else { Step::Panic };
        assert_eq!(bench.running(), 4);
        bench.step(bad);
        for step in [Step::Find, bad_alone, Step::Find] {
            assert_eq!(bench.running(), 1);
            bench.step(step);
        }
        assert_eq!(bench.done(), ("a", 1));
        assert!(matches!(bench.outcome(), ("b", Outcome::Failed(Frame { id: 2, .. }, _))));
        assert_eq!(bench.done(), ("c", 3));
        assert_eq!(bench.opened.load(Ordering::SeqCst), opened);
        assert!(bench.model.is_ready());
    }
}

#[test]
fn a_batch_that_fails_though_its_frames_do_not_is_not_tried_again() {
    let bench = Bench::with(PAYING.into());
    let slots = three_waiting(&bench);
    assert_eq!(bench.running(), 4);
    bench.step(Step::Fail);
    (0..3).for_each(|_| bench.step(Step::Find));
    assert_eq!([bench.done(), bench.done(), bench.done()], [("a", 1), ("b", 2), ("c", 3)]);
    assert_eq!([bench.running(), bench.running(), bench.running()], [1; 3]);
    drop(slots);
    let _slots = three_waiting(&bench);
    assert_eq!(bench.running(), 2, "the next smaller one is left");
    bench.step(Step::Find);
    bench.step(Step::Find);
    assert_eq!([bench.done(), bench.done(), bench.done()], [("a", 1), ("b", 2), ("c", 3)]);
}

#[test]
fn a_recorded_batch_that_fails_is_its_instance_s_fault_and_not_its_size_s() {
    let bench = Bench::with(PAYING.into());
    let slots = three_waiting(&bench);
    assert_eq!(bench.running(), 4);
    bench.step(Step::Spoil);
    for name in ["a", "b", "c"] {
        let (to, Outcome::Failed(_, error)) = bench.outcome() else { panic!() };
        assert_eq!((to, error), (name, Error::Recording { reason: "told to".to_owned() }));
    }
    assert_eq!(bench.opened.load(Ordering::SeqCst), 2);
    assert!(bench.model.is_ready());
    drop(slots);
    let _slots = three_waiting(&bench);
    assert_eq!(bench.running(), 4, "by a runner of its own, it may do better");
    bench.step(Step::Find);
    assert_eq!([bench.done(), bench.done(), bench.done()], [("a", 1), ("b", 2), ("c", 3)]);
}

#[test]
fn pictures_wait_up_to_the_manifest_s_number_and_run_together_with_frames() {
    let bench = Bench::with(PAYING.into());
    let slots = ["busy", "a"].map(|name| bench.slot(name));
    assert_eq!(bench.submit(&slots[0], 0, LONG), None);
    bench.running();
    assert_eq!(bench.submit(&slots[1], 1, LONG), None);
    let picture = Arc::new(I420::new(16, 8));
    let detect = || bench.model.detect(&picture, ColorInfo::default(), &bench.params);
    std::thread::scope(|scope| {
        let waiting = [(); 32].map(|()| scope.spawn(detect));
        // The last of them can't come in before the others have: more are refused from then on.
        while bench.model.waiting_pictures() < 32 {
            std::thread::yield_now();
        }
        assert_eq!(detect(), Err(Error::Busy));
        // More than are needed, however many run together.
        (0..34).for_each(|_| bench.step(Step::Find));
        for answer in waiting {
            assert_eq!(answer.join().unwrap().unwrap().detections.len(), 1);
        }
    });
    assert_eq!(bench.done(), ("busy", 0));
    assert!(matches!(bench.outcome(), ("a", Outcome::Done(_))));
}

#[test]
fn shutdown_finishes_the_frame_in_work_and_gives_back_the_rest() {
    let bench = Bench::new(Duration::from_millis(1));
    let (a, b) = (bench.slot("a"), bench.slot("b"));
    assert_eq!(bench.submit(&a, 0, LONG), None);
    bench.running();
    assert_eq!(bench.submit(&b, 1, LONG), None);
    let model = Arc::clone(&bench.model);
    let closing = std::thread::spawn(move || model.shutdown());
    while bench.model.is_ready() {
        std::thread::yield_now();
    }
    assert_eq!(bench.submit(&b, 2, LONG), Some(2), "a closed model takes nothing");
    bench.step(Step::Find);
    assert_eq!(bench.done(), ("a", 0));
    assert!(matches!(bench.outcome(), ("b", Outcome::Failed(Frame { id: 1, .. }, Error::Closed))));
    closing.join().unwrap();
    let answer = bench.model.detect(&Arc::new(I420::new(8, 8)), ColorInfo::default(), &bench.params);
    assert_eq!(answer, Err(Error::Closed));
}

#[test]
fn a_callback_may_drop_the_last_handle_of_its_model() {
    let bench = Bench::new(Duration::from_millis(1));
    let Bench { model, started, steps, params, .. } = bench;
    let held = Arc::new(Mutex::new(None));
    let (to_drop, (ended, end)) = (Arc::clone(&held), sync_channel(1));
    let slot = model.attach(Priority::Normal, move |_| {
        drop(to_drop.lock().unwrap().take());
        ended.send(()).unwrap();
    });
    assert!(slot.submit(frame(0, LONG), params).is_none());
    started.recv_timeout(PATIENCE).unwrap();
    *held.lock().unwrap() = Some(model);
    steps.send(Step::Find).unwrap();
    end.recv_timeout(PATIENCE).unwrap();
}

#[test]
fn a_model_changes_between_batches_and_nothing_that_waits_is_lost() {
    let bench = Bench::new(Duration::from_millis(1));
    let slots = ["busy", "a", "b", "c"].map(|name| bench.slot(name));
    assert_eq!(bench.submit(&slots[0], 0, LONG), None);
    assert_eq!(bench.running(), 1);
    for (id, slot) in (1..).zip(&slots[1..]) {
        assert_eq!(bench.submit(slot, id, LONG), None);
    }
    assert!(bench.change(PAYING.into()));
    assert_eq!(bench.model.selection().buckets, PAYING);
    bench.step(Step::Find);
    assert_eq!(bench.done(), ("busy", 0), "what runs ends as it began");
    assert_eq!(bench.running(), 4, "the other way has batches");
    assert_eq!(bench.model.estimate(), PAYING[0].1, "what the way before took says nothing of this one");
    bench.step(Step::Find);
    assert_eq!([bench.done(), bench.done(), bench.done()], [("a", 1), ("b", 2), ("c", 3)]);
    assert_eq!(bench.opened.load(Ordering::SeqCst), 2, "the one that was ready is used");
}

#[test]
fn what_fails_after_a_change_is_opened_the_new_way() {
    let bench = Bench::new(Duration::from_millis(1));
    let slot = bench.slot("a");
    for (id, step) in (0..).zip([Step::Fail, Step::Fail]) {
        assert_eq!(bench.submit(&slot, id, LONG), None);
        bench.running();
        bench.step(step);
        assert!(matches!(bench.outcome(), (_, Outcome::Failed(..))));
    }
    assert!(bench.change(PAYING.into()));
    assert_eq!(bench.submit(&slot, 2, LONG), None);
    bench.running();
    bench.step(Step::Fail);
    assert!(matches!(bench.outcome(), (_, Outcome::Failed(..))));
    assert!(bench.model.is_ready(), "faults of the way before do not count");
    drop(slot);
    let _slots = three_waiting(&bench);
    assert_eq!(bench.running(), 4);
    bench.step(Step::Find);
    assert_eq!([bench.done(), bench.done(), bench.done()], [("a", 1), ("b", 2), ("c", 3)]);
}

#[test]
fn each_instance_changes_and_those_that_are_too_many_end() {
    let bench = Bench::several(vec![(1, Duration::from_millis(1))], 2);
    let slots = ["a", "b"].map(|name| bench.slot(name));
    let both = || {
        for (id, slot) in (0..).zip(&slots) {
            assert_eq!(bench.submit(slot, id, LONG), None);
        }
        assert_eq!([bench.running(), bench.running()], [1, 1], "both work at the same time");
        (0..2).for_each(|_| bench.step(Step::Find));
        let mut done = [bench.done(), bench.done()];
        done.sort_unstable();
        assert_eq!(done, [("a", 0), ("b", 1)]);
    };
    both();
    assert_eq!(bench.opened.load(Ordering::SeqCst), 2);
    assert!(bench.change(vec![(1, Duration::from_millis(1))]));
    both();
    assert_eq!(bench.opened.load(Ordering::SeqCst), 4);
    assert_eq!(bench.model.instances(), 2);

    assert!(bench.change_to(vec![(1, Duration::from_millis(1))], 1));
    for (id, slot) in (0..).zip(&slots) {
        assert_eq!(bench.submit(slot, id, LONG), None);
    }
    assert_eq!(bench.running(), 1);
    // The other instance would have begun by the time that it is known to have ended.
    while bench.model.threads_at_work() > 1 {
        std::thread::yield_now();
    }
    assert!(bench.started.try_recv().is_err(), "nobody works beside it");
    (0..2).for_each(|_| bench.step(Step::Find));
    let mut done = [bench.done(), bench.done()];
    done.sort_unstable();
    assert_eq!((done, bench.model.instances()), ([("a", 0), ("b", 1)], 1));
}

#[test]
fn a_model_that_takes_no_more_work_does_not_change() {
    let bench = Bench::new(Duration::from_millis(1));
    bench.model.shutdown();
    assert!(!bench.change(PAYING.into()));
    assert_eq!(bench.model.selection().buckets.len(), 1);
}

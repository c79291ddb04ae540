#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::*;
use crate::infer::backend::{Backend, Provider, Selection};
use crate::infer::decoder::{Decoder, Outlet, View};
use crate::infer::manifest::{Manifest, Precision};
use crate::infer::model::{Model, Slot};
use crate::media::MediaTime;

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
    Panic,
}

/// A graph that finds one box, and that waits for the test's word before each run.
struct Fake {
    tensor: Vec<f32>,
    started: SyncSender<()>,
    steps: Arc<Mutex<Receiver<Step>>>,
    warm: bool,
}

impl Backend for Fake {
    fn input(&mut self) -> &mut [f32] {
        &mut self.tensor
    }

    fn run(&mut self, read: &mut dyn FnMut(&[View<'_>]) -> Result<(), Error>) -> Result<(), Error> {
        if self.warm {
            self.started.send(()).unwrap();
            let step = self.steps.lock().unwrap().recv_timeout(PATIENCE).unwrap();
            match step {
                Step::Find => {}
                Step::Fail => return Err(Error::Run { reason: "told to".to_owned() }),
                Step::Panic => std::panic::resume_unwind(Box::new("told to")),
            }
        }
        self.warm = true;
        read(&[View { shape: &[1, 6, 1], data: &[8.0, 4.0, 4.0, 2.0, 0.0, 0.9] }])
    }
}

/// A model on the fake graph and what drives it.
struct Bench {
    model: Arc<Model>,
    started: Receiver<()>,
    steps: SyncSender<Step>,
    opened: Arc<AtomicUsize>,
    outcomes: Receiver<(&'static str, Outcome)>,
    report: SyncSender<(&'static str, Outcome)>,
    params: Arc<Params>,
}

impl Bench {
    fn new(measured: Duration) -> Self {
        let manifest = Arc::new(Manifest::parse(MANIFEST, |_| unreachable!()).unwrap());
        let outlets = [Outlet { name: "out".to_owned(), shape: vec![-1, 6, -1] }];
        let decoder = Decoder::bind(&manifest, &outlets).unwrap();
        let (started_tx, started) = sync_channel(64);
        let (steps, steps_rx) = sync_channel(64);
        let steps_rx = Arc::new(Mutex::new(steps_rx));
        let opened = Arc::new(AtomicUsize::new(0));
        let (count, of) = (Arc::clone(&opened), Arc::clone(&manifest));
        let open = move || {
            count.fetch_add(1, Ordering::SeqCst);
            let tensor = vec![0.0; of.input.item_len()];
            let fake = Fake { tensor, started: started_tx.clone(), steps: Arc::clone(&steps_rx), warm: false };
            let mut runner = Runner::new(Arc::clone(&of), Box::new(fake), decoder.clone());
            runner.warm_up(1)?;
            Ok(runner)
        };
        let selection = Selection { provider: Provider::Cpu, precision: Precision::Fp32, measured, others: vec![] };
        let runner = open().unwrap();
        let open: Arc<Open> = Arc::new(open);
        let params = Arc::new(Params::from(manifest.defaults));
        let model = Arc::new(Model::start(manifest, selection, &open, vec![runner], 1).unwrap());
        let (report, outcomes) = sync_channel(64);
        Self { model, started, steps, opened, outcomes, report, params }
    }

    fn slot(&self, name: &'static str) -> Slot {
        let report = self.report.clone();
        self.model.attach(move |outcome| report.send((name, outcome)).unwrap())
    }

    fn submit(&self, slot: &Slot, id: u64, budget: Duration) -> Option<u64> {
        slot.submit(frame(id, budget), Arc::clone(&self.params)).map(|frame| frame.id)
    }

    /// Waits until the graph runs; it then waits for [`Self::step`].
    fn running(&self) {
        self.started.recv_timeout(PATIENCE).unwrap();
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

fn frame(id: u64, budget: Duration) -> Frame {
    let now = clock::now();
    Frame {
        id,
        picture: Arc::new(I420::new(32, 32)),
        color: ColorInfo::default(),
        time: MediaTime(0),
        arrival: now,
        deadline: now + budget,
        reorder_wait: Duration::ZERO,
        decode_time: Duration::ZERO,
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
fn a_panicking_callback_ends_its_own_session_only() {
    let bench = Bench::new(Duration::from_millis(1));
    let bad = bench.model.attach(|_| std::panic::resume_unwind(Box::new("told to")));
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
    let slot = model.attach(move |_| {
        drop(to_drop.lock().unwrap().take());
        ended.send(()).unwrap();
    });
    assert!(slot.submit(frame(0, LONG), params).is_none());
    started.recv_timeout(PATIENCE).unwrap();
    *held.lock().unwrap() = Some(model);
    steps.send(Step::Find).unwrap();
    end.recv_timeout(PATIENCE).unwrap();
}

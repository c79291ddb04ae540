//! A model, its instances and many sources of frames on a simulated clock: what each source gets, and rules that hold
//! at every choice.
#![allow(clippy::cast_precision_loss, reason = "tests")]

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use proptest::prelude::*;

use super::*;
use crate::clock;

const MS: Duration = Duration::from_millis(1);

/// A camera, and how its session wants it served.
#[derive(Debug, Clone)]
struct Source {
    period: Duration,
    /// Frames come up to this much later than their turn.
    jitter: Duration,
    budget: Duration,
    priority: Priority,
    /// When it joins, and when it pauses and goes on.
    from: Duration,
    pause: Option<(Duration, Duration)>,
}

impl Source {
    fn new(fps: u32, budget: u32) -> Self {
        Self {
            period: Duration::from_secs(1) / fps,
            jitter: Duration::ZERO,
            budget: budget * MS,
            priority: Priority::Normal,
            from: Duration::ZERO,
            pause: None,
        }
    }
}

/// What a source got.
#[derive(Debug, Clone, Default)]
struct Got {
    results: u64,
    /// Of these, after their deadline.
    missed: u64,
    late: u64,
    superseded: u64,
    /// Longest time without a result.
    longest: Duration,
    last: Duration,
    /// When the first frame since the last result was lost while none was in work.
    unserved: Option<Duration>,
    /// When results came.
    times: Vec<Duration>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Frame(usize),
    Call,
    Idle(usize),
}

struct Frame {
    at: Instant,
    deadline: Instant,
}

struct World {
    start: Instant,
    /// Sizes and their true times.
    buckets: Vec<(usize, Duration)>,
    /// Runs take up to this share longer.
    noise: f64,
    sources: Vec<Source>,
    /// A picture comes each time.
    calls: Option<Duration>,
    batcher: Batcher,
    idle: Vec<bool>,
    running: Vec<Vec<(Member, Option<Frame>)>>,
    ran: Vec<(usize, Duration)>,
    waiting: Vec<Option<Frame>>,
    in_flight: Vec<bool>,
    got: Vec<Got>,
    calls_done: Vec<Duration>,
    calls_waiting: VecDeque<Instant>,
    call_wait: Duration,
    batches: Vec<usize>,
    /// When a frame was last lost.
    lost: Option<Instant>,
    random: u64,
}

impl World {
    fn new(buckets: &[(usize, u32)], instances: usize, sources: Vec<Source>) -> Self {
        let buckets: Vec<_> = buckets.iter().map(|(size, time)| (*size, *time * MS)).collect();
        let start = clock::now();
        let mut batcher = Batcher::new(Costs::new(&buckets), Duration::from_secs(1));
        (0..instances).for_each(|_| batcher.add_instance());
        for (key, source) in sources.iter().enumerate() {
            if source.from.is_zero() {
                batcher.join(key, source.priority);
            }
        }
        Self {
            start,
            buckets,
            noise: 0.0,
            calls: None,
            batcher,
            idle: vec![true; instances],
            running: (0..instances).map(|_| Vec::new()).collect(),
            ran: vec![(0, Duration::ZERO); instances],
            waiting: sources.iter().map(|_| None).collect(),
            in_flight: vec![false; sources.len()],
            got: vec![Got::default(); sources.len()],
            calls_done: Vec::new(),
            calls_waiting: VecDeque::new(),
            call_wait: Duration::ZERO,
            batches: Vec::new(),
            lost: None,
            random: 0x9e37_79b9_7f4a_7c15,
            sources,
        }
    }

    /// 0..1.
    fn random(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as f64 / (1u64 << 53) as f64
    }

    fn run(mut self, length: Duration) -> Self {
        let mut events = BinaryHeap::new();
        for (key, source) in self.sources.clone().into_iter().enumerate() {
            let phase = source.period.mul_f64(self.random());
            let mut turn = source.from + phase;
            while turn < length {
                if source.pause.is_none_or(|(from, to)| turn < from || turn >= to) {
                    let at = turn + source.jitter.mul_f64(self.random());
                    events.push(Reverse((at, Event::Frame(key))));
                }
                turn += source.period;
            }
        }
        if let Some(period) = self.calls {
            let mut at = Duration::ZERO;
            while at < length {
                events.push(Reverse((at, Event::Call)));
                at += period;
            }
        }
        while let Some(Reverse((at, event))) = events.pop() {
            if at > length {
                break;
            }
            let now = self.start + at;
            match event {
                Event::Frame(key) => self.frame(now, key),
                Event::Call => {
                    self.batcher.call(now);
                    self.calls_waiting.push_back(now);
                }
                Event::Idle(instance) => self.ended(now, instance),
            }
            for instance in 0..self.idle.len() {
                if self.idle[instance]
                    && let Some(until) = self.choose(now, instance)
                {
                    events.push(Reverse((until - self.start, Event::Idle(instance))));
                }
            }
        }
        for got in &mut self.got {
            got.longest = got.longest.max(length.saturating_sub(got.last));
        }
        self
    }

    fn frame(&mut self, now: Instant, key: usize) {
        let source = &self.sources[key];
        if self.batcher.position(key).is_err() {
            self.batcher.join(key, source.priority);
            self.got[key].last = now - self.start;
        }
        let frame = Frame { at: now, deadline: now + source.budget };
        self.batcher.submit(now, key, frame.deadline);
        if self.waiting[key].replace(frame).is_some() {
            self.got[key].superseded += 1;
            self.lost = Some(now);
            if !self.in_flight[key] {
                self.got[key].unserved.get_or_insert(now - self.start);
            }
        }
    }

    fn choose(&mut self, now: Instant, instance: usize) -> Option<Instant> {
        loop {
            match self.batcher.next(now, instance)? {
                Choice::Late(key) => {
                    let frame = self.waiting[key].take().expect("a late frame waits");
                    assert!(now + self.batcher.costs().single() > frame.deadline, "it could have made it");
                    assert!(!self.was_starving(key, &frame), "starving, and given back");
                    self.got[key].late += 1;
                    self.got[key].unserved.get_or_insert(now - self.start);
                    self.lost = Some(now);
                }
                Choice::Run { bucket } => return Some(self.start_run(now, instance, bucket)),
            }
        }
    }

    fn start_run(&mut self, now: Instant, instance: usize, bucket: usize) -> Instant {
        let members = self.batcher.members().to_vec();
        let estimate = self.batcher.costs().of(bucket);
        assert!(!members.is_empty() && members.len() <= bucket, "{members:?} in {bucket}");
        self.check_order(now, &members);
        self.idle[instance] = false;
        for member in &members {
            let Member::Slot(key) = *member else {
                let since = self.calls_waiting.pop_front().expect("a picture waits");
                self.call_wait = self.call_wait.max(now - since);
                self.running[instance].push((*member, None));
                continue;
            };
            assert!(!std::mem::replace(&mut self.in_flight[key], true), "two frames of a slot at once");
            let frame = self.waiting[key].take().expect("it waits");
            assert!(
                self.was_starving(key, &frame) || now + estimate <= frame.deadline,
                "a member is late by the batch's own estimate"
            );
            self.running[instance].push((*member, Some(frame)));
        }
        self.batches.push(members.len());
        let time = self.buckets.iter().find(|(size, _)| *size == bucket).expect("a bucket").1;
        let took = time.mul_f64(1.0 + self.noise * self.random());
        self.ran[instance] = (bucket, took);
        now + took
    }

    /// Whether a slot was starving when this frame of it came.
    fn was_starving(&self, key: usize, frame: &Frame) -> bool {
        self.got[key].unserved.is_some_and(|since| frame.at - self.start >= since + STARVATION)
    }

    /// The earliest deadlines go first where all that wait can be done one by one and nothing was lost of late.
    fn check_order(&self, now: Instant, members: &[Member]) {
        let waiting = self.waiting.iter().enumerate().filter(|(key, _)| !self.in_flight[*key]);
        let mut order: Vec<_> = waiting
            .filter_map(|(key, frame)| Some((frame.as_ref()?.deadline, Member::Slot(key))))
            .chain(self.calls_waiting.iter().map(|since| (*since + CALL_PATIENCE, Member::Call)))
            .collect();
        order.sort();
        let single = self.batcher.costs().single();
        let feasible = (1..).zip(&order).all(|(nth, (deadline, _))| now + single * nth <= *deadline);
        if feasible && self.lost.is_none_or(|lost| now > lost + OVERLOAD) {
            let first: Vec<_> = order.iter().take(members.len()).map(|(_, member)| *member).collect();
            assert_eq!(first, members, "of {order:?}");
        }
    }

    fn ended(&mut self, now: Instant, instance: usize) {
        self.idle[instance] = true;
        self.batcher.finish_run(instance, Some(self.ran[instance]));
        for (member, frame) in std::mem::take(&mut self.running[instance]) {
            let Member::Slot(key) = member else {
                self.calls_done.push(now - self.start);
                continue;
            };
            self.batcher.finish_frame(now, key, true);
            self.in_flight[key] = false;
            let (got, at) = (&mut self.got[key], now - self.start);
            let frame = frame.expect("a slot's");
            assert!(frame.at <= now, "results follow frames");
            got.results += 1;
            got.missed += u64::from(now > frame.deadline);
            got.longest = got.longest.max(at - got.last);
            (got.last, got.unserved) = (at, None);
            got.times.push(at);
        }
    }

    fn results(&self) -> Vec<f64> {
        self.got.iter().map(|got| got.results as f64).collect()
    }
}

/// Jain's index of fairness: 1 when all are equal, 1/n when one has all.
fn jain(shares: &[f64]) -> f64 {
    let (sum, squares) = shares.iter().fold((0.0, 0.0), |(sum, squares), x| (sum + x, squares + x * x));
    sum * sum / (shares.len() as f64 * squares)
}

const SECONDS: u32 = 20;
const LENGTH: Duration = Duration::from_secs(SECONDS as u64);

#[test]
fn with_enough_for_all_every_frame_is_in_time() {
    for (buckets, instances) in [(&[(1, 10)][..], 1), (&[(1, 20)], 2), (&[(1, 10), (2, 16), (4, 25)], 1)] {
        let mut sources: Vec<_> = [(30, 200), (15, 100), (5, 60), (10, 300)].map(|(f, b)| Source::new(f, b)).into();
        sources.iter_mut().for_each(|source| source.jitter = 5 * MS);
        let mut world = World::new(buckets, instances, sources);
        world.noise = 0.1;
        let world = world.run(LENGTH);
        for (got, fps) in world.got.iter().zip([30, 15, 5, 10]) {
            assert!(got.results + 1 >= u64::from(fps * SECONDS), "{got:?}");
            assert_eq!((got.missed, got.late, got.superseded), (0, 0, 0), "{got:?}");
        }
    }
}

#[test]
fn under_overload_all_get_the_same_whatever_their_rates_and_budgets() {
    for (buckets, instances) in [(&[(1, 10)][..], 1), (&[(1, 20)], 2), (&[(1, 10), (2, 15), (4, 22), (8, 40)], 1)] {
        let per_second = buckets.iter().map(|(size, time)| *size as f64 * 1e3 / f64::from(*time)).fold(0.0, f64::max);
        let capacity = per_second * instances as f64;
        let count = |fps: f64| (4.0 * capacity / fps).ceil() as usize;
        let equal: Vec<_> = (0..count(30.0)).map(|_| Source::new(30, 200)).collect();
        let mixed: Vec<_> = (0..count(30.0))
            .map(|nth| {
                let mut source = Source::new([15, 30, 25, 50][nth % 4], [80, 150, 200, 400, 1000][nth % 5]);
                source.jitter = 10 * MS;
                source
            })
            .collect();
        for sources in [equal, mixed] {
            let mut world = World::new(buckets, instances, sources);
            world.noise = 0.1;
            let world = world.run(LENGTH);
            let results = world.results();
            let (index, sum) = (jain(&results), results.iter().sum::<f64>());
            let got = world.got.iter().map(|got| (got.results, got.missed, got.late)).collect::<Vec<_>>();
            assert!(index >= 0.95, "{index} of {got:?}");
            let missed: u64 = world.got.iter().map(|got| got.missed).sum();
            println!(
                "{buckets:?} x {instances}, {} slots: Jain {index:.4}, {:.3} of capacity, {:.4} missed, mean batch {:.2}",
                got.len(),
                sum / f64::from(SECONDS) / capacity,
                missed as f64 / sum,
                sum / world.batches.len() as f64
            );
            assert!(sum >= 0.85 * f64::from(SECONDS) * capacity, "{sum} of {capacity} a second");
            assert!((missed as f64) < 0.05 * sum, "{missed} of {sum}");
            assert!(world.got.iter().all(|got| got.longest < 2 * STARVATION), "{got:?}");
        }
    }
}

#[test]
fn shares_follow_weights() {
    for (low, high, ratio) in [
        (Priority::Low, Priority::Normal, 4.0),
        (Priority::Normal, Priority::High, 4.0),
        (Priority::Low, Priority::High, 16.0),
    ] {
        let sources = (0..8).map(|nth| {
            let priority = if nth % 2 == 0 { low } else { high };
            Source { priority, ..Source::new(60, 200) }
        });
        let mut world = World::new(&[(1, 10)], 1, sources.collect());
        world.noise = 0.2;
        let world = world.run(LENGTH);
        let results = world.results();
        for pair in results.chunks(2) {
            let found = pair[1] / pair[0];
            assert!((found / ratio - 1.0).abs() < 0.15, "{found} instead of {ratio}: {results:?}");
        }
        println!("{low:?} and {high:?}: {results:?}");
    }
}

#[test]
fn with_mixed_weights_and_far_too_much_to_do_nobody_starves() {
    // Turns alone would give a low one a result in thirteen seconds.
    let sources = (0..60).map(|nth| {
        let priority = if nth < 10 { Priority::Low } else { Priority::High };
        Source { priority, ..Source::new(30, 200) }
    });
    let world = World::new(&[(1, 16)], 1, sources.collect()).run(LENGTH);
    let longest = world.got.iter().map(|got| got.longest).collect::<Vec<_>>();
    println!("{longest:?}");
    assert!(longest.iter().all(|longest| *longest < 3 * STARVATION), "{longest:?}");
}

#[test]
fn a_slot_that_joins_or_comes_back_does_not_take_what_it_missed() {
    let mut sources: Vec<_> = (0..12).map(|_| Source::new(30, 200)).collect();
    sources[10].from = Duration::from_secs(10);
    sources[11].pause = Some((Duration::from_secs(1), Duration::from_secs(10)));
    let world = World::new(&[(1, 10)], 1, sources).run(LENGTH);
    let between = |key: usize, from: u64, to: u64| {
        let range = Duration::from_secs(from)..Duration::from_secs(to);
        world.got[key].times.iter().filter(|time| range.contains(*time)).count()
    };
    for key in [10, 11] {
        // A twelfth of a hundred results a second.
        let (first, all) = (between(key, 10, 11), between(key, 10, 20));
        assert!((7..=11).contains(&first) && (78..=88).contains(&all), "{key}: {first} {all}");
    }
    assert!(between(0, 10, 11) >= 6);
}

#[test]
fn what_a_slot_got_while_there_was_enough_for_all_is_not_held_against_it_later() {
    const MINUTE: Duration = Duration::from_secs(60);
    // Two slots whose frames all run, two at a time; then six more than the model can serve.
    let mut sources = vec![Source::new(30, 300); 8];
    sources[1].priority = Priority::High;
    sources[2..].iter_mut().for_each(|source| source.from = MINUTE);
    for calls in [None, Some(500 * MS)] {
        let mut world = World::new(&[(1, 40), (2, 50)], 1, sources.clone());
        world.calls = calls;
        let world = world.run(MINUTE + LENGTH);
        let between = |key: usize, from: Duration, to: Duration| {
            world.got[key].times.iter().filter(|time| (from..to).contains(*time)).count()
        };
        assert!(between(0, Duration::ZERO, MINUTE) > 59 * 18, "{:?}", world.batches);
        let shares: Vec<_> = (0..8).map(|key| between(key, MINUTE, MINUTE + LENGTH / 4)).collect();
        println!("{shares:?}");
        // The one in the first five seconds as much as those that are new.
        assert!(shares[0] + 3 >= shares[2], "{shares:?}");
        assert!(jain(&[0, 2, 3, 4, 5, 6, 7].map(|key| shares[key] as f64)) > 0.97, "{shares:?}");
    }
}

#[test]
fn what_runs_along_with_others_keeps_its_weight() {
    // The two of high priority are in every batch, since each has one frame at a time; the rest fill it up.
    let sources = (0..14).map(|nth| {
        let priority = [Priority::Low, Priority::Normal, Priority::High][if nth < 4 {
            0
        } else if nth < 12 {
            1
        } else {
            2
        }];
        Source { priority, ..Source::new(60, 200) }
    });
    let world = World::new(&[(1, 20), (4, 40)], 1, sources.collect()).run(3 * LENGTH);
    let results = world.results();
    println!("{results:?}");
    for (low, normal) in (0..4).zip(4..8) {
        let found = results[normal] / results[low];
        assert!((found / 4.0 - 1.0).abs() < 0.2, "{found} instead of 4: {results:?}");
    }
    assert!(jain(&results[4..12]) > 0.99, "{results:?}");
}

#[test]
fn pictures_wait_behind_live_video_and_are_not_forgotten() {
    for slots in [2, 60] {
        let mut world = World::new(&[(1, 10)], 1, (0..slots).map(|_| Source::new(30, 200)).collect());
        world.calls = Some(100 * MS);
        let world = world.run(LENGTH);
        let done = world.calls_done.len();
        let live: f64 = world.results().iter().sum();
        println!("{slots} slots: {done} pictures, {live} frames");
        if slots == 2 {
            assert!(done >= 199 && live >= 1190.0, "{done} {live}");
        } else {
            // One a second, whatever else there is to do.
            assert!((19..30).contains(&done), "{done}");
            assert!(jain(&world.results()) > 0.99);
        }
    }
}

#[test]
fn a_model_slower_than_every_budget_still_answers_once_a_second() {
    let world = World::new(&[(1, 300)], 1, vec![Source::new(30, 100), Source::new(10, 50)]).run(LENGTH);
    for got in &world.got {
        assert!(got.longest <= STARVATION + 700 * MS && got.results >= 11, "{got:?}");
        assert_eq!(got.results, got.missed);
    }
}

#[test]
fn frames_that_come_seldom_are_in_time_like_others() {
    // Twice as many as can be served: each gets every other frame of its own.
    for (fps, slots) in [(1, 100), (2, 50), (5, 20)] {
        let world = World::new(&[(1, 20)], 1, vec![Source::new(fps, 200); slots]).run(3 * LENGTH);
        let (results, missed) = world.got.iter().fold((0, 0), |(r, m), got| (r + got.results, m + got.missed));
        println!("{fps} fps: {results} results, {missed} late, Jain {}", jain(&world.results()));
        assert!(results > 2_700 && missed * 50 < results, "{fps} fps: {results} results, {missed} late");
        assert!(jain(&world.results()) > 0.95, "{:?}", world.results());
    }
    // Enough for all: none is late, however seldom they come.
    let world = World::new(&[(1, 20)], 1, vec![Source::new(1, 200); 10]).run(LENGTH);
    assert!(world.got.iter().all(|got| (got.missed, got.late, got.superseded) == (0, 0, 0)), "{:?}", world.got);
}

#[test]
fn batches_grow_with_what_waits_and_only_where_they_pay() {
    let mean = |buckets: &[(usize, u32)], slots: usize| {
        let world = World::new(buckets, 1, (0..slots).map(|_| Source::new(30, 300)).collect()).run(LENGTH);
        world.batches.iter().sum::<usize>() as f64 / world.batches.len() as f64
    };
    let gpu = [(1, 4), (2, 5), (4, 7), (8, 11), (16, 19)];
    let (few, many) = (mean(&gpu, 2), mean(&gpu, 40));
    assert!(few < 1.5 && many > 12.0, "{few} {many}");
    assert_eq!(mean(&[(1, 10), (2, 20), (4, 40)], 20), 1.0, "no gain, no batches");
}

#[test]
fn a_tight_budget_keeps_its_batch_small() {
    // Alone a frame takes 10 ms, with others it takes 60: those with 40 ms must not wait for that.
    let mut sources: Vec<_> = (0..12).map(|_| Source::new(25, 500)).collect();
    sources.extend((0..4).map(|_| Source::new(10, 40)));
    let world = World::new(&[(1, 10), (8, 60)], 1, sources).run(LENGTH);
    assert!(
        world.got.iter().all(|got| got.missed == 0),
        "{:?}",
        world.got.iter().map(|g| g.missed).collect::<Vec<_>>()
    );
}

fn source() -> impl Strategy<Value = Source> {
    let priority = prop::sample::select(vec![Priority::Low, Priority::Normal, Priority::High]);
    (5u32..60, 30u32..600, 0u32..40, 0u64..3000, priority).prop_map(|(fps, budget, jitter, from, priority)| Source {
        jitter: jitter * MS,
        from: if from < 1500 { Duration::ZERO } else { Duration::from_millis(from) },
        priority,
        ..Source::new(fps, budget)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The rules that [`World`] asserts at every choice, and that nobody starves, whatever comes.
    #[test]
    fn the_rules_hold_whatever_comes(
        sources in prop::collection::vec(source(), 1..24), instances in 1usize..4, single in 2u32..60,
        growth in prop::collection::vec(0.4f64..1.1, 0..4), noise in 0f64..0.5, calls in prop::option::of(20u32..500),
    ) {
        let times = growth.iter().scan((1, f64::from(single)), |(size, time), growth| {
            (*size, *time) = (*size * 2, *time * 2.0 * growth);
            Some((*size, time.ceil() as u32))
        });
        let buckets: Vec<_> = std::iter::once((1, single)).chain(times).collect();
        let starving = sources.len() as u32;
        let mut world = World::new(&buckets, instances, sources);
        world.noise = noise;
        world.calls = calls.map(|period| period * MS);
        let world = world.run(Duration::from_secs(6));
        // Each waits for its turn among those that starve like it, three others before each.
        let round = single * MS * 2 * starving * RESCUE_EVERY * 2;
        for got in &world.got {
            prop_assert!(got.longest <= 2 * STARVATION + round, "{got:?}");
        }
    }
}

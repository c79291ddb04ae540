use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::UNIX_EPOCH;

use async_trait::async_trait;
use futures_util::FutureExt;
use proptest::prelude::*;
use tokio::sync::oneshot;

use super::*;

const TTL: Duration = Duration::from_secs(300);
const STALE: Duration = Duration::from_secs(60);
const LIMITS: Limits =
    Limits { get: Duration::from_millis(20), put: Duration::from_secs(1), sweep: Duration::from_secs(5) };

/// A clock that tests set.
#[derive(Clone, Default)]
struct Clock(Arc<AtomicU64>);

impl Clock {
    fn pass(&self, seconds: u64) {
        self.0.fetch_add(seconds, Ordering::SeqCst);
    }

    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_700_000_000 + self.0.load(Ordering::SeqCst))
    }

    fn wall(&self) -> Wall {
        let clock = self.clone();
        Arc::new(move || clock.now())
    }
}

/// How a tier behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    Fine,
    Fails,
    Hangs,
    Lies,
}

/// A tier outside of the process, in the process.
struct Shelf {
    name: &'static str,
    entries: Mutex<HashMap<Key, (Bytes, Vec<Tag>)>>,
    mode: Mutex<Mode>,
    calls: AtomicU32,
}

impl Shelf {
    fn new(name: &'static str) -> Arc<Self> {
        Arc::new(Self { name, entries: Mutex::default(), mode: Mutex::new(Mode::Fine), calls: AtomicU32::new(0) })
    }

    fn set(&self, mode: Mode) {
        *self.mode.lock().unwrap() = mode;
    }

    fn has(&self, key: &Key) -> bool {
        self.entries.lock().unwrap().contains_key(key)
    }

    fn calls(&self) -> u32 {
        self.calls.load(Ordering::SeqCst)
    }

    async fn behave(&self) -> Result<(), TierError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let mode = *self.mode.lock().unwrap();
        match mode {
            Mode::Fails => Err(TierError::Unavailable("it is broken".to_owned())),
            Mode::Hangs => std::future::pending().await,
            Mode::Fine | Mode::Lies => Ok(()),
        }
    }
}

struct OnShelf(Arc<Shelf>);

#[async_trait]
impl Tier for OnShelf {
    fn name(&self) -> &'static str {
        self.0.name
    }

    async fn get(&self, key: &Key, now: SystemTime) -> Result<Option<Arc<Entry>>, TierError> {
        self.0.behave().await?;
        if *self.0.mode.lock().unwrap() == Mode::Lies {
            return Ok(Some(Arc::new(Entry::decode(key, &Bytes::from_static(b"nonsense"), now)?)));
        }
        let found = self.0.entries.lock().unwrap().get(key).map(|(bytes, _)| bytes.clone());
        Ok(found.map(|bytes| Entry::decode(key, &bytes, now).map(Arc::new)).transpose()?)
    }

    async fn put(&self, key: &Key, entry: &Arc<Entry>, _: Duration, _: SystemTime) -> Result<(), TierError> {
        self.0.behave().await?;
        self.0.entries.lock().unwrap().insert(*key, (entry.encode(key), entry.tags().to_vec()));
        Ok(())
    }

    async fn remove(&self, key: &Key) -> Result<(), TierError> {
        self.0.entries.lock().unwrap().remove(key);
        Ok(())
    }

    async fn remove_tagged(&self, tag: &Tag) -> Result<u64, TierError> {
        self.0.behave().await?;
        let mut entries = self.0.entries.lock().unwrap();
        let before = entries.len();
        entries.retain(|_, (_, tags)| !tags.contains(tag));
        Ok((before - entries.len()) as u64)
    }
}

/// A cache, its clock and how often something was computed for it.
struct Bench {
    cache: Cache<&'static str>,
    clock: Clock,
    computed: Arc<AtomicU32>,
}

impl Bench {
    fn new(shelves: &[&Arc<Shelf>]) -> Self {
        Self::at(Clock::default(), shelves)
    }

    fn at(clock: Clock, shelves: &[&Arc<Shelf>]) -> Self {
        let settings = Settings { ttl: TTL, stale: STALE, wall: clock.wall(), ..Settings::default() };
        let guard = |shelf: &&Arc<Shelf>| Guarded::new(Box::new(OnShelf(Arc::clone(shelf))), LIMITS, Policy::default());
        let cache = Cache::start(settings, shelves.iter().map(guard).collect());
        Self { cache, clock, computed: Arc::default() }
    }

    /// Computes the number of the computation.
    fn compute(&self) -> Compute<&'static str> {
        let computed = Arc::clone(&self.computed);
        Box::new(move |_| {
            async move {
                let number = computed.fetch_add(1, Ordering::SeqCst) + 1;
                Ok(answer(&number.to_string()))
            }
            .boxed()
        })
    }

    async fn get(&self, key: &str) -> (String, Outcome) {
        self.ask(key, Reuse::Any).await
    }

    async fn ask(&self, key: &str, reuse: Reuse) -> (String, Outcome) {
        let answer = self.cache.get_or_compute(ask(key, reuse), self.compute()).await.unwrap();
        (text(&answer.entry), answer.outcome)
    }

    /// Waits for computations behind requests' backs.
    async fn settle(&self) {
        while self.cache.in_flight() > 0 {
            tokio::task::yield_now().await;
        }
    }

    async fn close(&self) {
        self.cache.close(clock::now() + Duration::from_secs(10)).await;
    }

    fn computed(&self) -> u32 {
        self.computed.load(Ordering::SeqCst)
    }
}

fn key(name: &str) -> Key {
    Key::of(&[name.as_bytes()])
}

fn tag(word: &str) -> Tag {
    Tag::chosen(word).unwrap()
}

fn ask(name: &str, reuse: Reuse) -> Ask {
    Ask { key: key(name), reuse, deadline: clock::now() + Duration::from_secs(10) }
}

fn answer(value: &str) -> Computed {
    let value = Bytes::copy_from_slice(value.as_bytes());
    Computed { value, media_type: "text/plain", tags: vec![tag("all")], keep: true }
}

fn text(entry: &Entry) -> String {
    String::from_utf8(entry.value().to_vec()).unwrap()
}

fn of(number: u32) -> String {
    number.to_string()
}

#[tokio::test]
async fn an_answer_is_given_again_until_its_time_is_over() {
    let bench = Bench::new(&[]);
    assert_eq!(bench.get("a").await, (of(1), Outcome::Miss));
    assert_eq!(bench.get("a").await, (of(1), Outcome::Hit("memory")));
    assert_eq!(bench.get("b").await, (of(2), Outcome::Miss));
    bench.clock.pass(200);
    assert_eq!(bench.get("a").await, (of(1), Outcome::Hit("memory")));
    bench.clock.pass(160);
    assert_eq!(bench.get("a").await, (of(3), Outcome::Miss));
}

#[tokio::test]
async fn a_stale_answer_is_given_at_once_and_computed_anew_behind_it() {
    let bench = Bench::new(&[]);
    bench.get("a").await;
    bench.clock.pass(301);
    // Both at the same time: one computation.
    assert_eq!(bench.get("a").await, (of(1), Outcome::Stale("memory")));
    assert_eq!(bench.get("a").await, (of(1), Outcome::Stale("memory")));
    bench.settle().await;
    assert_eq!(bench.get("a").await, (of(2), Outcome::Hit("memory")));
    assert_eq!(bench.computed(), 2);
}

#[tokio::test]
async fn what_is_asked_for_often_is_computed_before_its_time_is_over() {
    let bench = Bench::new(&[]);
    bench.get("hot").await;
    bench.get("cold").await;
    for _ in 0..5 {
        bench.get("hot").await;
    }
    bench.clock.pass(241);
    bench.get("cold").await;
    for _ in 0..2 {
        bench.get("hot").await;
        bench.settle().await;
    }
    assert_eq!(bench.computed(), 2, "hits before the last part of a life do not count");
    assert_eq!(bench.get("hot").await, (of(1), Outcome::Hit("memory")));
    bench.settle().await;
    bench.clock.pass(100);
    assert_eq!(bench.get("hot").await, (of(3), Outcome::Hit("memory")));
    assert_eq!(bench.get("cold").await.1, Outcome::Stale("memory"));
}

/// A computation that a test lets begin and end.
fn held(
    begun: Arc<AtomicU32>,
    release: oneshot::Receiver<Result<Computed, Failure<&'static str>>>,
) -> Compute<&'static str> {
    Box::new(move |_| {
        async move {
            begun.fetch_add(1, Ordering::SeqCst);
            release.await.unwrap()
        }
        .boxed()
    })
}

#[tokio::test]
async fn the_same_is_computed_once_for_all_who_ask_meanwhile() {
    let bench = Bench::new(&[]);
    let (begun, (release, held_back)) = (Arc::default(), oneshot::channel());
    let first = tokio::spawn({
        let (cache, compute) = (bench.cache.clone(), held(Arc::clone(&begun), held_back));
        async move { cache.get_or_compute(ask("a", Reuse::Any), compute).await }
    });
    while begun.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    let others: Vec<_> = (0..50)
        .map(|_| {
            let (cache, compute) = (bench.cache.clone(), bench.compute());
            tokio::spawn(async move { cache.get_or_compute(ask("a", Reuse::Any), compute).await })
        })
        .collect();
    assert_eq!(bench.get("b").await, (of(1), Outcome::Miss), "another key does not wait");
    release.send(Ok(answer("once"))).unwrap();
    assert_eq!(first.await.unwrap().unwrap().outcome, Outcome::Miss);
    for other in others {
        let other = other.await.unwrap().unwrap();
        assert_eq!((text(&other.entry).as_str(), other.outcome), ("once", Outcome::Joined));
    }
    assert_eq!(bench.computed(), 1, "that of the other key");
}

#[tokio::test]
async fn one_of_those_who_wait_takes_over_from_who_goes_away() {
    let bench = Bench::new(&[]);
    let (begun, (_release, held_back)) = (Arc::default(), oneshot::channel());
    let first = tokio::spawn({
        let (cache, compute) = (bench.cache.clone(), held(Arc::clone(&begun), held_back));
        async move { cache.get_or_compute(ask("a", Reuse::Any), compute).await }
    });
    while begun.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    let others: Vec<_> = (0..10)
        .map(|_| {
            let (cache, compute) = (bench.cache.clone(), bench.compute());
            tokio::spawn(async move { cache.get_or_compute(ask("a", Reuse::Any), compute).await })
        })
        .collect();
    tokio::task::yield_now().await;
    first.abort();
    for other in others {
        assert_eq!(text(&other.await.unwrap().unwrap().entry), of(1));
    }
    assert_eq!((bench.computed(), bench.cache.in_flight()), (1, 0));
}

#[tokio::test]
async fn a_failure_is_shared_only_if_it_would_be_the_same_for_all() {
    for shared in [true, false] {
        let bench = Bench::new(&[]);
        let (begun, (release, held_back)) = (Arc::default(), oneshot::channel());
        let (cache, compute) = (bench.cache.clone(), held(Arc::clone(&begun), held_back));
        let first = tokio::spawn(async move { cache.get_or_compute(ask("a", Reuse::Any), compute).await });
        while begun.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        let (cache, compute) = (bench.cache.clone(), bench.compute());
        let second = tokio::spawn(async move { cache.get_or_compute(ask("a", Reuse::Any), compute).await });
        tokio::task::yield_now().await;
        release.send(Err(Failure { error: "no picture", shared })).unwrap();
        assert_eq!(first.await.unwrap().unwrap_err(), Error::Failed("no picture"));
        match second.await.unwrap() {
            Err(error) => assert_eq!((error, shared), (Error::Failed("no picture"), true)),
            Ok(answer) => assert_eq!((answer.outcome, shared), (Outcome::Miss, false)),
        }
        // Nothing of it is kept.
        assert_eq!(bench.get("a").await.1 == Outcome::Miss, shared);
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_another_ones_computation_beyond_the_deadline() {
    let bench = Bench::new(&[]);
    let (_release, held_back) = oneshot::channel();
    let (cache, compute) = (bench.cache.clone(), held(Arc::default(), held_back));
    let _first = tokio::spawn(async move { cache.get_or_compute(ask("a", Reuse::Any), compute).await });
    tokio::task::yield_now().await;
    let deadline = crate::clock::timers() + Duration::from_millis(200);
    let late = Ask { deadline: deadline.into(), ..ask("a", Reuse::Any) };
    assert_eq!(bench.cache.get_or_compute(late, bench.compute()).await.unwrap_err(), Error::Late);
    assert_eq!(bench.computed(), 0);
}

#[tokio::test]
async fn what_a_client_does_not_want_reused_or_kept_is_neither() {
    let bench = Bench::new(&[]);
    assert_eq!(bench.ask("a", Reuse::Nothing).await, (of(1), Outcome::Bypassed));
    assert_eq!(bench.get("a").await, (of(2), Outcome::Miss));
    assert_eq!(bench.ask("a", Reuse::Nothing).await, (of(3), Outcome::Bypassed));
    assert_eq!(bench.get("a").await, (of(2), Outcome::Hit("memory")));
    assert_eq!(bench.ask("a", Reuse::Renew).await, (of(4), Outcome::Miss));
    assert_eq!(bench.get("a").await, (of(4), Outcome::Hit("memory")));
    bench.clock.pass(10);
    assert_eq!(bench.ask("a", Reuse::Younger(Duration::from_secs(11))).await, (of(4), Outcome::Hit("memory")));
    assert_eq!(bench.ask("a", Reuse::Younger(Duration::from_secs(10))).await, (of(5), Outcome::Miss));
}

#[tokio::test]
async fn what_is_too_large_or_not_to_be_kept_is_given_but_not_kept() {
    let bench = Bench::new(&[]);
    for computed in [
        Computed { keep: false, ..answer("1") },
        Computed { value: Bytes::from(vec![0; (1 << 20) + 1]), ..answer("2") },
    ] {
        let compute: Compute<_> = Box::new(move |_| async move { Ok(computed) }.boxed());
        let answer = bench.cache.get_or_compute(ask("a", Reuse::Any), compute).await.unwrap();
        assert_eq!(answer.outcome, Outcome::Miss);
    }
    assert_eq!(bench.get("a").await, (of(1), Outcome::Miss));
}

#[tokio::test]
async fn what_a_lower_tier_has_goes_up_into_those_before_it() {
    let (near, far) = (Shelf::new("near"), Shelf::new("far"));
    let before = Bench::new(&[&near, &far]);
    before.get("a").await;
    before.close().await;
    assert!(near.has(&key("a")) && far.has(&key("a")));

    near.entries.lock().unwrap().clear();
    let after = Bench::at(before.clock.clone(), &[&near, &far]);
    after.clock.pass(100);
    assert_eq!(after.get("a").await, (of(1), Outcome::Hit("far")));
    assert_eq!(after.get("a").await, (of(1), Outcome::Hit("memory")));
    after.close().await;
    assert!(near.has(&key("a")));
    assert_eq!(after.computed(), 0);

    // It does not get younger on its way.
    after.clock.pass(201);
    let last = Bench::at(before.clock.clone(), &[&near]);
    assert_eq!(last.get("a").await, (of(1), Outcome::Stale("near")));
    last.clock.pass(60);
    last.settle().await;
    let end = Bench::at(before.clock.clone(), &[&far]);
    assert_eq!(end.get("a").await.1, Outcome::Miss);
}

#[tokio::test(start_paused = true)]
async fn a_tier_that_fails_hangs_or_lies_fails_no_request_and_is_left_alone() {
    for mode in [Mode::Fails, Mode::Hangs, Mode::Lies] {
        let shelf = Shelf::new("bad");
        let bench = Bench::new(&[&shelf]);
        tokio::task::yield_now().await;
        shelf.set(mode);
        let begun = crate::clock::timers();
        for number in 0..100 {
            assert_eq!(bench.get(&of(number)).await.1, Outcome::Miss);
        }
        let waited = begun.elapsed();
        match mode {
            // Lies are answers: each is looked at.
            Mode::Lies => assert!(shelf.calls() >= 100),
            _ => assert!(shelf.calls() <= 20, "{mode:?}: {} calls", shelf.calls()),
        }
        assert!(waited <= 5 * LIMITS.get + Duration::from_millis(20), "{mode:?}: {waited:?}");
        // Every answer is in memory.
        assert_eq!(bench.get("99").await.1, Outcome::Hit("memory"));
    }
}

#[tokio::test]
async fn what_is_forgotten_is_not_given_again_from_any_tier() {
    for mode in [Mode::Fine, Mode::Fails] {
        let shelf = Shelf::new("shelf");
        let bench = Bench::new(&[&shelf]);
        bench.get("a").await;
        while !shelf.has(&key("a")) {
            tokio::task::yield_now().await;
        }
        shelf.set(mode);
        bench.clock.pass(1);
        let forgotten = bench.cache.forget(&tag("all")).await;
        match mode {
            Mode::Fine => {
                assert_eq!((forgotten.removed, forgotten.failed), (vec![("memory", 1), ("shelf", 1)], vec![]))
            }
            _ => assert_eq!((forgotten.removed, forgotten.failed), (vec![("memory", 1)], vec!["shelf"])),
        }
        shelf.set(Mode::Fine);
        bench.clock.pass(1);
        assert_eq!(shelf.has(&key("a")), mode == Mode::Fails);
        assert_eq!(bench.get("a").await, (of(2), Outcome::Miss));
        assert_eq!(bench.get("a").await, (of(2), Outcome::Hit("memory")));
    }
}

#[tokio::test]
async fn what_is_forgotten_while_it_is_computed_is_not_kept() {
    let shelf = Shelf::new("shelf");
    let bench = Bench::new(&[&shelf]);
    let (begun, (release, held_back)) = (Arc::default(), oneshot::channel());
    let (cache, compute) = (bench.cache.clone(), held(Arc::clone(&begun), held_back));
    let first = tokio::spawn(async move { cache.get_or_compute(ask("a", Reuse::Any), compute).await });
    while begun.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    bench.clock.pass(1);
    bench.cache.forget(&tag("all")).await;
    bench.cache.forget(&tag("other")).await;
    bench.clock.pass(1);
    release.send(Ok(answer("old"))).unwrap();
    assert_eq!(text(&first.await.unwrap().unwrap().entry), "old");
    assert_eq!(bench.get("a").await, (of(1), Outcome::Miss));
    bench.close().await;
    assert_eq!(shelf.entries.lock().unwrap().len(), 1, "the second answer alone");
}

#[tokio::test]
async fn the_next_process_begins_with_what_this_one_was_asked_for_most() {
    let shelf = Shelf::new("shelf");
    let before = Bench::new(&[&shelf]);
    for _ in 0..3 {
        before.get("hot").await;
    }
    before.get("cold").await;
    before.close().await;

    let after = Bench::at(before.clock.clone(), &[&shelf]);
    while after.cache.0.memory.size().unwrap().entries == 0 {
        after.cache.0.memory.upkeep().await;
        tokio::task::yield_now().await;
    }
    assert_eq!(after.get("hot").await, (of(1), Outcome::Hit("memory")));
    assert_eq!(after.get("cold").await, (of(2), Outcome::Hit("shelf")));
}

#[tokio::test]
async fn memory_is_bounded_by_bytes() {
    let clock = Clock::default();
    let settings = Settings { max_bytes: 100_000, wall: clock.wall(), ..Settings::default() };
    let cache: Cache<&str> = Cache::start(settings, Vec::new());
    for number in 0..1000 {
        let compute: Compute<_> = Box::new(|_| async { Ok(answer(&"x".repeat(1000))) }.boxed());
        cache.get_or_compute(ask(&of(number), Reuse::Any), compute).await.unwrap();
    }
    let (name, size) = cache.sizes().await[0];
    assert!(name == "memory" && size.bytes <= 100_000 && size.entries > 50, "{size:?}");
}

/// A tenth of what `cargo bench --bench results` replays: requests for 10 000 pictures, the n-th of which comes with a
/// probability of 1 / n, in a tenth of the default size.
#[tokio::test]
async fn most_of_what_comes_often_is_there() {
    let settings = Settings { max_bytes: (64 << 20) / 10, ..Settings::default() };
    let cache: Cache<()> = Cache::start(settings, Vec::new());
    let mut sum = 0.0;
    let sums: Vec<f64> = (1..=10_000)
        .map(|rank| {
            sum += 1.0 / f64::from(rank);
            sum
        })
        .collect();
    let (mut state, mut hits) = (42_u64, 0);
    for request in 0..200_000 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let drawn = f64::from((state >> 33) as u32) / f64::from(1_u32 << 31) * sum;
        let picture = sums.partition_point(|sum| *sum < drawn);
        let compute: Compute<()> = Box::new(|_| async { Ok(answer(&"x".repeat(1000))) }.boxed());
        let found = cache.get_or_compute(ask(&picture.to_string(), Reuse::Any), compute).await.unwrap();
        hits += u32::from(request >= 100_000 && found.outcome == Outcome::Hit("memory"));
    }
    let (_, size) = cache.sizes().await[0];
    assert!(size.entries < 6000, "{size:?}");
    assert!(hits >= 85_000, "{hits} of 100000");
}

/// What happens to a cache.
#[derive(Debug, Clone)]
enum Step {
    Get(u8),
    Renew(u8),
    Forget,
    Pass(u64),
    Near(Mode),
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let mode = prop_oneof![Just(Mode::Fine), Just(Mode::Fails), Just(Mode::Lies)];
    let step = prop_oneof![
        6 => (0_u8..4).prop_map(Step::Get),
        1 => (0_u8..4).prop_map(Step::Renew),
        1 => Just(Step::Forget),
        3 => (1_u64..150).prop_map(Step::Pass),
        1 => mode.prop_map(Step::Near),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever happens to tiers and time: an answer is one that was computed for this key, neither expired nor begun
    /// before it was forgotten, and one that says it is fresh is.
    #[test]
    fn an_answer_is_always_one_that_counts(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (near, far) = (Shelf::new("near"), Shelf::new("far"));
            let mut bench = Bench::new(&[&near, &far]);
            // By the text of each answer: its key and when it began.
            let made: Arc<Mutex<HashMap<String, (u8, SystemTime)>>> = Arc::default();
            let mut forgotten = UNIX_EPOCH;
            let mut number = 0;
            for step in steps {
                match step {
                    Step::Get(name) | Step::Renew(name) => {
                        number += 1;
                        let (text_, clock, made_) = (of(number), bench.clock.clone(), Arc::clone(&made));
                        let compute: Compute<_> = Box::new(move |_| async move {
                            made_.lock().unwrap().insert(text_.clone(), (name, clock.now()));
                            Ok(answer(&text_))
                        }.boxed());
                        let is_renewal = matches!(step, Step::Renew(_));
                        let reuse = if is_renewal { Reuse::Renew } else { Reuse::Any };
                        let found = bench.cache.get_or_compute(ask(&of(name.into()), reuse), compute).await.unwrap();
                        let (of_key, begun) = made.lock().unwrap()[&text(&found.entry)];
                        let age = bench.clock.now().duration_since(begun).unwrap();
                        assert_eq!(of_key, name);
                        assert!(begun > forgotten);
                        assert!(age < TTL + STALE);
                        match found.outcome {
                            Outcome::Hit(_) => assert!(age < TTL),
                            Outcome::Stale(_) => assert!(age >= TTL),
                            Outcome::Miss => assert_eq!(age, Duration::ZERO),
                            other => panic!("{other:?}"),
                        }
                        assert!(!is_renewal || found.outcome == Outcome::Miss);
                        bench.settle().await;
                    }
                    Step::Forget => {
                        // So that what was made in this second is told from what is made in the next.
                        far.set(Mode::Fine);
                        near.set(Mode::Fine);
                        bench.cache.forget(&tag("all")).await;
                        forgotten = bench.clock.now();
                        bench.clock.pass(1);
                    }
                    Step::Pass(seconds) => bench.clock.pass(seconds),
                    Step::Near(mode) => near.set(mode),
                    Step::Restart => {
                        bench.close().await;
                        if *near.mode.lock().unwrap() != Mode::Fine {
                            // What it could not forget or replace while it was broken is lost with it.
                            near.entries.lock().unwrap().clear();
                        }
                        bench = Bench::at(bench.clock.clone(), &[&near, &far]);
                    }
                }
            }
            bench.close().await;
        });
    }
}

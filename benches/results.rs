//! The cache of results: how long a hit takes, and how many there are where some pictures come often and most seldom.
#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark")]

use std::time::Duration;

use bytes::Bytes;
use criterion::{Criterion, criterion_group, criterion_main};
use futures_util::FutureExt;
use saccade::cache::{Ask, Cache, Compute, Computed, Key, Outcome, Reuse, Settings, Tag};
use saccade::clock;

/// Different pictures.
const PICTURES: usize = 100_000;
/// Bytes of a result: six objects.
const RESULT: usize = 1_000;
/// Requests before those that count, and those that count.
const REQUESTS: [usize; 2] = [1_000_000, 1_000_000];

/// Draws pictures with probabilities of 1 / rank^skew.
struct Zipf {
    sums: Vec<f64>,
    state: u64,
}

impl Zipf {
    #[allow(clippy::cast_precision_loss, reason = "small")]
    fn new(skew: f64) -> Self {
        let mut sum = 0.0;
        let sums = (1..=PICTURES).map(|rank| {
            sum += (rank as f64).powf(-skew);
            sum
        });
        Self { sums: sums.collect(), state: 42 }
    }

    #[allow(clippy::cast_precision_loss, reason = "53 bits")]
    fn next(&mut self) -> usize {
        // SplitMix64.
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let drawn = ((bits ^ (bits >> 31)) >> 11) as f64 / (1_u64 << 53) as f64 * self.sums[PICTURES - 1];
        self.sums.partition_point(|sum| *sum < drawn)
    }
}

fn compute() -> Compute<()> {
    Box::new(|_| {
        let tags = vec![Tag::model("ppe-nano"), Tag::model("ppe-nano@2")];
        let value = Bytes::from(vec![b'x'; RESULT]);
        async move { Ok(Computed { value, media_type: "application/json", tags, keep: true }) }.boxed()
    })
}

async fn get(cache: &Cache<()>, picture: usize) -> Outcome {
    let key = Key::of(&[&picture.to_le_bytes()]);
    let ask = Ask { key, reuse: Reuse::Any, deadline: clock::now() + Duration::from_secs(10) };
    cache.get_or_compute(ask, compute()).await.unwrap().outcome
}

#[allow(clippy::cast_precision_loss, reason = "small")]
fn replay(runtime: &tokio::runtime::Runtime) {
    for skew in [0.9, 1.0, 1.1] {
        let rate = runtime.block_on(async {
            let cache = Cache::start(Settings::default(), Vec::new());
            let mut pictures = Zipf::new(skew);
            let mut hits = 0;
            for (requests, counts) in REQUESTS.into_iter().zip([false, true]) {
                for _ in 0..requests {
                    let outcome = get(&cache, pictures.next()).await;
                    hits += usize::from(counts && outcome == Outcome::Hit("memory"));
                }
            }
            let (_, size) = cache.sizes().await[0];
            println!("{} entries in {} MiB", size.entries, size.bytes >> 20);
            hits as f64 / REQUESTS[1] as f64
        });
        println!("Zipf {skew} over {PICTURES} pictures, results of {RESULT} bytes, 64 MiB: {:.1} % hits", 100.0 * rate);
        if skew >= 1.0 {
            assert!(rate >= 0.85, "{rate}");
        }
    }
}

fn results(bench: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    replay(&runtime);
    let cache = runtime.block_on(async {
        let cache = Cache::start(Settings::default(), Vec::new());
        get(&cache, 1).await;
        cache
    });
    bench.bench_function("result from memory", |bench| {
        bench.iter(|| assert_eq!(runtime.block_on(get(&cache, 1)), Outcome::Hit("memory")));
    });
    let picture = vec![7; 100_000];
    bench.bench_function("key of a picture of 100 kB", |bench| bench.iter(|| Key::of(&[b"picture", &picture])));
}

fn config() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(50)
}

criterion_group! {
    name = benches;
    config = config();
    targets = results
}
criterion_main!(benches);

//! The tier of results in a Redis of the tests' own: what it keeps, and that nobody is harmed when it hangs or dies.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use saccade::cache::{
    Answer, Ask, Cache, Compute, Computed, Guarded, Key, Limits, Outcome, Policy, Redis, RedisSettings, Reuse,
    Settings, Tier, TierError,
};
use saccade::clock;
use saccade::secret::Secret;
use tempfile::TempDir;

use super::{KEEP, entry, key, tag};

const LIMITS: Limits =
    Limits { get: Duration::from_millis(100), put: Duration::from_secs(5), sweep: Duration::from_secs(5) };
pub const PASSWORD: &str = "0penSesame-not-in-logs";

/// A server on a socket of its own, which ends with it.
pub struct Server {
    child: Child,
    folder: TempDir,
}

impl Server {
    /// Starts one, unless there is none on this machine.
    pub async fn start(test: &str) -> Option<Self> {
        if !is_installed() {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "{test}: there is no redis-server");
            eprintln!("skipped {test}: there is no redis-server");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let child = spawn(folder.path());
        let server = Self { child, folder };
        server.answers().await;
        Some(server)
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("redis+unix://{}", socket(self.folder.path()).display())
    }

    pub fn settings(&self) -> RedisSettings {
        RedisSettings {
            url: Secret::new(self.url()),
            password: Some(Secret::new(PASSWORD.to_owned())),
            prefix: "saccade:".to_owned(),
            connections: 2,
            max_entry_bytes: 1 << 20,
            response_limit: Duration::from_secs(5),
        }
    }

    pub fn tier(&self) -> Redis {
        Redis::new(&self.settings()).unwrap()
    }

    /// Ends it at once.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again, empty.
    pub async fn restart(&mut self) {
        let _ = std::fs::remove_file(socket(self.folder.path()));
        self.child = spawn(self.folder.path());
        self.answers().await;
    }

    /// Has it hang (`STOP`) or go on (`CONT`).
    pub fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", signal, &id]).status().unwrap().success());
    }

    async fn answers(&self) {
        let deadline = clock::now() + Duration::from_secs(20);
        let key = Key::of(&[b"is anybody there"]);
        while self.tier().get(&key, clock::wall()).await.is_err() {
            assert!(clock::now() < deadline, "redis-server does not answer");
            tokio::task::yield_now().await;
        }
    }

    /// Waits until it holds so many entries.
    pub async fn until_holds(&self, entries: usize) {
        let deadline = clock::now() + Duration::from_secs(20);
        while self.ask(&["KEYS", "saccade:e:*"]).lines().filter(|line| !line.is_empty()).count() < entries {
            assert!(clock::now() < deadline, "it never holds {entries} entries");
            tokio::task::yield_now().await;
        }
    }

    /// What the server itself says to a command.
    fn ask(&self, words: &[&str]) -> String {
        let said = Command::new("redis-cli")
            .arg("-s")
            .arg(socket(self.folder.path()))
            .args(["--no-auth-warning", "-a", PASSWORD])
            .args(words)
            .output()
            .unwrap();
        String::from_utf8(said.stdout).unwrap().trim().to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn is_installed() -> bool {
    let ask = |program| Command::new(program).arg("--version").stdout(Stdio::null()).status();
    ask("redis-server").is_ok() && ask("redis-cli").is_ok()
}

fn socket(folder: &Path) -> PathBuf {
    folder.join("redis.sock")
}

fn spawn(folder: &Path) -> Child {
    Command::new("redis-server")
        .args(["--port", "0", "--save", "", "--appendonly", "no", "--requirepass", PASSWORD, "--unixsocket"])
        .arg(socket(folder))
        .arg("--dir")
        .arg(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test]
async fn redis_keeps_entries_and_forgets_them_by_tag_and_time() {
    let Some(server) = Server::start("redis_keeps_entries").await else { return };
    let (tier, now) = (server.tier(), clock::wall());
    assert_eq!(tier.get(&key("a"), now).await.unwrap(), None);
    for (name, tags) in [("a", &["x"][..]), ("b", &["x", "y"]), ("c", &["y"]), ("d", &[])] {
        tier.put(&key(name), &entry(name, tags, now), KEEP, now).await.unwrap();
    }
    for name in ["a", "b", "c", "d"] {
        let found = tier.get(&key(name), now).await.unwrap().unwrap();
        assert_eq!((found.value().as_ref(), found.media_type()), (name.as_bytes(), "text/plain"));
    }
    // They end by themselves.
    let left: i64 = server.ask(&["PTTL", &format!("saccade:e:{}", key("a"))]).parse().unwrap();
    assert!((1..=360_000).contains(&left), "{left}");
    let left: i64 = server.ask(&["PTTL", "saccade:t:t/x"]).parse().unwrap();
    assert!((1..=720_000).contains(&left), "{left}");

    assert_eq!(tier.remove_tagged(&tag("x")).await.unwrap(), 2);
    assert_eq!(tier.remove_tagged(&tag("x")).await.unwrap(), 0);
    for (name, is_there) in [("a", false), ("b", false), ("c", true), ("d", true)] {
        assert_eq!(tier.get(&key(name), now).await.unwrap().is_some(), is_there, "{name}");
    }
    tier.remove(&key("d")).await.unwrap();
    assert_eq!(tier.get(&key("d"), now).await.unwrap(), None);
    // What is over leaves its tag when something new of it comes.
    tier.put(&key("old"), &entry("old", &["growing"], now), KEEP, now - 2 * KEEP).await.unwrap();
    tier.put(&key("new"), &entry("new", &["growing"], now), KEEP, now).await.unwrap();
    assert_eq!(server.ask(&["ZRANGE", "saccade:t:t/growing", "0", "-1"]), format!("saccade:e:{}", key("new")));
    // More of one tag than are removed in one go.
    for number in 0..1200 {
        tier.put(&key(&number.to_string()), &entry("many", &["many"], now), KEEP, now).await.unwrap();
    }
    assert_eq!(tier.remove_tagged(&tag("many")).await.unwrap(), 1200);
}

#[tokio::test]
async fn what_others_put_into_redis_is_no_entry_and_is_removed() {
    let Some(server) = Server::start("what_others_put_into_redis").await else { return };
    let now = clock::wall();
    let guarded = Guarded::new(Box::new(server.tier()), LIMITS, Policy::default());
    let (mine, other) = (format!("saccade:e:{}", key("a")), format!("saccade:e:{}", key("b")));
    server.tier().put(&key("b"), &entry("b", &[], now), KEEP, now).await.unwrap();
    let huge = "9".repeat(9);
    for command in
        [&["SET", &mine, "nonsense"][..], &["COPY", &other, &mine, "REPLACE"], &["SETRANGE", &mine, "5000000", &huge]]
    {
        server.ask(command);
        assert_eq!(server.ask(&["EXISTS", &mine]), "1", "{command:?}");
        assert!(matches!(guarded.get(&key("a"), now).await, Err(TierError::Wrong(_))), "{command:?}");
        assert_eq!(server.ask(&["EXISTS", &mine]), "0", "{command:?}");
    }
    assert_eq!(guarded.get(&key("a"), now).await.unwrap(), None);
}

#[tokio::test]
async fn a_wrong_password_is_an_error_that_does_not_show_it() {
    let Some(server) = Server::start("a_wrong_password").await else { return };
    let wrong = RedisSettings { password: Some(Secret::new("wr0ng-Password".to_owned())), ..server.settings() };
    let error = Redis::new(&wrong).unwrap().get(&key("a"), clock::wall()).await.unwrap_err();
    assert!(matches!(error, TierError::Unavailable(_)));
    assert!(!error.to_string().contains("wr0ng") && !format!("{wrong:?}").contains("wr0ng"), "{error}");
    let url = RedisSettings { url: Secret::new("http://secret@example".to_owned()), ..wrong };
    assert!(!Redis::new(&url).unwrap_err().contains("secret"));
}

/// A cache over the server, whose answers are numbers of computations.
struct Bench {
    cache: Cache<&'static str>,
    computed: Arc<AtomicU32>,
}

impl Bench {
    fn new(server: &Server, policy: Policy) -> Self {
        // One entry of memory at the most, so that nearly all is asked of Redis.
        let settings = Settings { max_bytes: 1, ..Settings::default() };
        let tiers = vec![Guarded::new(Box::new(server.tier()), LIMITS, policy)];
        Self { cache: Cache::start(settings, tiers), computed: Arc::default() }
    }

    async fn get(&self, name: &str) -> Answer {
        let ask = Ask { key: key(name), reuse: Reuse::Any, deadline: clock::now() + Duration::from_secs(20) };
        let computed = Arc::clone(&self.computed);
        let compute: Compute<&str> = Box::new(move |_| {
            async move {
                let value = (computed.fetch_add(1, Ordering::SeqCst) + 1).to_string().into();
                Ok(Computed { value, media_type: "text/plain", tags: Vec::new(), keep: true })
            }
            .boxed()
        });
        self.cache.get_or_compute(ask, compute).await.unwrap()
    }

    /// Asks again until Redis gives the answer: it is written behind the request's back.
    async fn until_hit(&self, name: &str) {
        let deadline = clock::now() + Duration::from_secs(20);
        while self.get(name).await.outcome != Outcome::Hit("redis") {
            assert!(clock::now() < deadline, "Redis never has {name}");
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn no_request_fails_when_redis_is_killed_and_it_is_used_again_when_it_is_back() {
    let Some(mut server) = Server::start("no_request_fails_when_redis_is_killed").await else { return };
    let pause = Duration::from_millis(10);
    let bench = Bench::new(&server, Policy { pause, longest: pause, ..Policy::default() });
    bench.until_hit("a").await;
    server.kill();
    for number in 0..50 {
        assert_eq!(bench.get(&format!("killed {number}")).await.outcome, Outcome::Miss);
    }
    server.restart().await;
    bench.until_hit("b").await;
}

#[tokio::test]
async fn a_redis_that_hangs_costs_its_limit_a_few_times_and_is_then_left_alone() {
    let Some(server) = Server::start("a_redis_that_hangs").await else { return };
    let pause = Duration::from_secs(600);
    let bench = Bench::new(&server, Policy { failures: 3, pause, longest: pause, trial: pause });
    bench.until_hit("a").await;
    server.signal("STOP");
    let begun = clock::now();
    let mut slowest = Duration::ZERO;
    for number in 0..50 {
        let asked = clock::now();
        assert_eq!(bench.get(&format!("hanging {number}")).await.outcome, Outcome::Miss);
        slowest = slowest.max(clock::now() - asked);
    }
    let (all, slack) = (clock::now() - begun, Duration::from_millis(400));
    server.signal("CONT");
    assert!(slowest < LIMITS.get + slack, "a request waited for {slowest:?}");
    assert!(all < 3 * LIMITS.get + slack, "all of them waited for {all:?}");
    assert!(all >= 3 * LIMITS.get, "it was not asked: {all:?}");
}

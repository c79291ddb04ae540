//! History in real stores: SQLite, and a PostgreSQL of the test's own.

use std::collections::BTreeSet;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use saccade::history::{
    Cursor, Event, Events, Facts, Group, History, MINUTE_MS, Order, Record, Settings, Source, Stats, Target, instant,
};
use saccade::secret::Secret;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};
use tempfile::TempDir;
use tokio::time::{Instant, interval, timeout};

const DAY: Duration = Duration::from_secs(86_400);
const LIMIT: Duration = Duration::from_secs(60);

/// A store of the test's own, with the folder of its spool.
struct Place {
    folder: TempDir,
    postgres: Option<Postgres>,
}

impl Place {
    fn sqlite() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), postgres: None }
    }

    fn postgres() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), postgres: Some(Postgres::start()) }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("history.db")
    }

    fn settings(&self) -> Settings {
        let target = match &self.postgres {
            Some(postgres) => postgres.target(),
            None => Target::parse(&format!("sqlite://{}", self.file().display()), None).unwrap(),
        };
        Settings { target, retention: 90 * DAY, spool: Some(self.folder.path().join("spool")), spool_bytes: 8 << 20 }
    }

    fn start(&self) -> History {
        History::start(self.settings())
    }

    fn spool_files(&self) -> usize {
        let files = std::fs::read_dir(self.folder.path().join("spool")).unwrap();
        files.filter(|file| file.as_ref().unwrap().file_name().to_str().unwrap().ends_with(".jsonl")).count()
    }
}

/// A cluster in a temporary folder that speaks over a Unix socket alone. It is another user's where the tests run as
/// root, as which PostgreSQL does not run.
struct Postgres {
    folder: TempDir,
    server: Option<Child>,
}

const PASSWORD: &str = "correct horse";

impl Postgres {
    fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("saccade-pg").tempdir_in("/tmp").unwrap();
        std::fs::write(folder.path().join("password"), PASSWORD).unwrap();
        let mut made = Self { folder, server: None };
        if is_root() {
            let chown = Command::new("chown").args(["-R", "nobody"]).arg(made.folder.path()).status().unwrap();
            assert!(chown.success());
        }
        let initdb = made
            .command("initdb")
            .args(["--username=tester", "--auth=scram-sha-256", "--no-sync", "--no-instructions", "--encoding=UTF8"])
            .arg(format!("--pwfile={}/password", made.folder.path().display()))
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        assert!(initdb.status.success(), "{}", String::from_utf8_lossy(&initdb.stderr));
        made.run();
        made
    }

    fn run(&mut self) {
        let socket = self.folder.path().display().to_string();
        let server =
            self.command("postgres").args(["-c", "listen_addresses=", "-c", "fsync=off", "-k", &socket]).spawn();
        self.server = Some(server.unwrap());
    }

    /// Ends it at once, as a crash would.
    fn kill(&mut self) {
        let Some(mut server) = self.server.take() else { return };
        // SIGQUIT has its processes end without a word; a mere SIGKILL would leave them behind.
        let quit = Command::new("kill").args(["-QUIT", &server.id().to_string()]).status().unwrap();
        assert!(quit.success());
        server.wait().unwrap();
    }

    fn target(&self) -> Target {
        let socket = self.folder.path().display().to_string().replace('/', "%2F");
        let url = format!("postgres://tester@{socket}/postgres");
        Target::parse(&url, Some(Secret::new(PASSWORD.to_owned()))).unwrap()
    }

    /// What a statement says, with the cluster's own client.
    fn ask(&self, statement: &str) -> String {
        let answer = self
            .command("psql")
            .env_remove("PGDATA")
            .env("PGPASSWORD", PASSWORD)
            .args(["-h", self.folder.path().to_str().unwrap(), "-U", "tester", "-tA", "-c", statement, "postgres"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
        String::from_utf8(answer.stdout).unwrap().trim().to_owned()
    }

    fn command(&self, program: &str) -> Command {
        let folders = std::fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL is missing: run `make setup-test`");
        let newest = folders.map(|folder| folder.unwrap().path()).max().unwrap();
        let mut command = Command::new(newest.join("bin").join(program));
        command.env("PGDATA", self.folder.path().join("data")).current_dir(self.folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if is_root() {
            let id = Command::new("id").args(["-u", "nobody"]).output().unwrap();
            let id = String::from_utf8(id.stdout).unwrap().trim().parse().unwrap();
            command.uid(id).gid(id);
        }
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill();
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn source(session: &str) -> Source {
    Source { session: session.to_owned(), camera: Some("gate".to_owned()) }
}

/// An event of a session at this moment.
fn event(session: &str, time_ms: i64, number: i64) -> Record {
    let (kind, zone) = if number % 2 == 0 { ("zone_entered", "door") } else { ("zone_left", "yard") };
    let class = if number % 3 == 0 { "head" } else { "helmet" };
    let json = format!(r#"{{"type":"{kind}","zone":"{zone}","class":"{class}","object_id":{number},"count":1}}"#);
    Record::Event(Event::new(&source(session), time_ms, &json).unwrap())
}

fn numbers(events: &[Event]) -> Vec<i64> {
    events.iter().map(|event| event.object_id.unwrap()).collect()
}

/// Asks until the answer is the right one.
async fn eventually<T, F: Future<Output = T>>(what: &str, mut ask: impl FnMut() -> F, right: impl Fn(&T) -> bool) -> T {
    let until = Instant::now() + LIMIT;
    let mut timer = interval(Duration::from_millis(20));
    loop {
        let answer = ask().await;
        if right(&answer) {
            return answer;
        }
        assert!(Instant::now() < until, "{what} did not come about in time");
        timer.tick().await;
    }
}

/// All events, oldest first.
async fn all(history: &History) -> Vec<Event> {
    let query = Events { order: Order::Ascending, ..Events::default() };
    history.reader().events(&query, 100_000).await.unwrap_or_default()
}

async fn have(history: &History, count: usize) -> Vec<Event> {
    eventually("the events", || all(history), |events| events.len() >= count).await
}

fn now_ms() -> i64 {
    instant::millis(saccade::clock::wall())
}

async fn filters_and_cursors(place: Place) {
    let history = place.start();
    let now = now_ms();
    for number in 0..60 {
        // Several in one moment.
        history.recorder().record(event(["a", "b"][usize::from(number >= 30)], now + number / 5, number));
    }
    assert_eq!(numbers(&have(&history, 60).await), (0..60).collect::<Vec<_>>());

    let ask = async |query: Events| numbers(&history.reader().events(&query, 1000).await.unwrap());
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(ask(Events::default()).await, (0..60).rev().collect::<Vec<_>>());
    assert_eq!(ask(Events { session: some("b"), ..Events::default() }).await, (30..60).rev().collect::<Vec<_>>());
    assert_eq!(
        ask(Events { from_ms: Some(now + 2), to_ms: Some(now + 3), ..Events::default() }).await,
        [14, 13, 12, 11, 10]
    );
    let heads = Events { kind: some("zone_entered"), class: some("head"), session: some("a"), ..Events::default() };
    assert_eq!(ask(heads).await, [24, 18, 12, 6, 0]);
    assert_eq!(ask(Events { zone: some("yard"), to_ms: Some(now + 1), ..Events::default() }).await, [3, 1]);
    assert_eq!(ask(Events { camera: some("gate"), rule: some("none"), ..Events::default() }).await, Vec::<i64>::new());

    // Pages of seven, with newer and older events coming in between.
    for order in [Order::Descending, Order::Ascending] {
        let before = all(&history).await.len();
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let query = Events { order, after, session: some("a"), ..Events::default() };
            let page = history.reader().events(&query, 7).await.unwrap();
            let Some(last) = page.last() else { break };
            after = Cursor::decode(&Cursor::behind(last, order).encode(), order);
            assert!(after.is_some());
            seen.extend(numbers(&page));
            let others = i64::try_from(seen.len()).unwrap() + 1000;
            let (newer, older) = (event("c", now + 100_000, others), event("a", now - 100_000, 2 * others + 5000));
            let late = if order == Order::Ascending { older } else { event("a", now + 100_000, others) };
            history.recorder().record(newer);
            history.recorder().record(late);
        }
        let expected: Vec<i64> = if order == Order::Ascending { (0..30).collect() } else { (0..30).rev().collect() };
        let old: Vec<i64> = seen.iter().copied().filter(|number| *number < 1000).collect();
        assert_eq!(old, expected, "{order:?}: each once, and none left out");
        have(&history, before + 10).await;
    }
    history.end().await;
}

async fn minutes_are_summed(place: Place) {
    let history = place.start();
    let begin = now_ms() / MINUTE_MS * MINUTE_MS - 60 * MINUTE_MS;
    let wall = |millis: i64| std::time::UNIX_EPOCH + Duration::from_millis(millis.unsigned_abs());
    for (session, model) in [("a", "ppe@1"), ("b", "ppe@2")] {
        let mut recorder = history.recorder().session(source(session));
        for frame in 0..300_u64 {
            let at = wall(begin + i64::try_from(frame).unwrap() * 1000);
            let facts = Facts {
                frame_id: frame,
                model: model.to_owned(),
                detections: vec![("head".to_owned(), Some(frame % 10))],
                total_ms: 20.0,
                met: frame % 4 != 0,
                dropped: vec![("late", frame / 10)],
            };
            recorder.result(at, &facts);
        }
        recorder.event(wall(begin), r#"{"type":"alert_started","rule":"r","zone":"z"}"#);
    }
    let stats = Stats { from_ms: begin, to_ms: begin + 10 * MINUTE_MS, step_ms: 5 * MINUTE_MS, ..Stats::default() };
    let ask = |stats: Stats| {
        let reader = history.reader().clone();
        async move { reader.stats(&stats).await.unwrap_or_default() }
    };
    let points = eventually(
        "the minutes",
        || ask(stats.clone()),
        |points| points.first().is_some_and(|it| it.counts.alerts == 2),
    )
    .await;
    assert_eq!(points.iter().map(|point| point.time_ms).collect::<BTreeSet<_>>().len(), points.len());
    let total = |points: &[saccade::history::Point], what: fn(&saccade::history::Counts) -> u64| -> u64 {
        points.iter().map(|point| what(&point.counts)).sum()
    };
    assert_eq!(total(&points, |counts| counts.results), 600);
    assert_eq!(total(&points, |counts| counts.frames), 600);
    assert_eq!(total(&points, |counts| counts.met), 450);
    assert_eq!(total(&points, |counts| counts.dropped["late"]), 58);
    assert_eq!(total(&points, |counts| counts.detections["head"]), 600);
    let p95 = points[0].counts.latencies.quantile(0.95).unwrap();
    assert!((p95 / 20.0 - 1.0).abs() < 0.1, "{p95}");

    let by_model = ask(Stats { step_ms: 60 * MINUTE_MS, group: Group::Model, ..stats.clone() }).await;
    let groups: BTreeSet<_> = by_model.iter().map(|point| point.group.clone().unwrap()).collect();
    assert_eq!(groups, BTreeSet::from(["ppe@1".to_owned(), "ppe@2".to_owned()]));
    for (model, results) in [("ppe", 600), ("ppe@2", 300), ("pp", 0), ("ppe@", 0)] {
        let found = ask(Stats { model: Some(model.to_owned()), ..stats.clone() }).await;
        assert_eq!(total(&found, |counts| counts.results), results, "{model}");
    }
    history.end().await;
}

async fn old_records_go(place: Place) {
    let history = place.start();
    let now = now_ms();
    let day_ms = i64::try_from(DAY.as_millis()).unwrap();
    for day in 0..10 {
        history.recorder().record(event("a", now - day * day_ms, day));
    }
    have(&history, 10).await;
    history.end().await;
    let history = History::start(Settings { retention: 3 * DAY + DAY / 2, ..place.settings() });
    // What PostgreSQL has in partitions of a day stays until the whole day is too old.
    let kept = eventually("the end of old events", || all(&history), |events| (1..=5).contains(&events.len())).await;
    let kept = numbers(&kept);
    assert!(kept == [3, 2, 1, 0] || (place.postgres.is_some() && kept == [4, 3, 2, 1, 0]), "{kept:?}");
    history.end().await;
}

/// What was put aside comes in order and once, also when the process ended meanwhile, and when the end of catching up
/// was never written down.
async fn restart_with_a_spool(place: &Place, down: impl AsyncFn(), up: impl AsyncFn()) {
    let now = now_ms();
    let history = place.start();
    history.recorder().record(event("a", now, 0));
    have(&history, 1).await;
    down().await;
    for number in 1..700 {
        history.recorder().record(event("a", now + number, number));
    }
    history.end().await;
    assert!(place.spool_files() > 0);
    // A process that ends after the store has a file's records and before the file is gone leaves it behind.
    let spool = place.folder.path().join("spool");
    std::fs::copy(spool.join("0000000000000000.jsonl"), place.folder.path().join("copy")).unwrap();
    up().await;
    let history = place.start();
    assert_eq!(numbers(&have(&history, 700).await), (0..700).collect::<Vec<_>>());
    eventually("an empty spool", async || place.spool_files(), |files| *files == 0).await;
    history.end().await;
    std::fs::copy(place.folder.path().join("copy"), spool.join("0000000000000000.jsonl")).unwrap();
    let history = place.start();
    eventually("an empty spool", async || place.spool_files(), |files| *files == 0).await;
    assert_eq!(all(&history).await.len(), 700);
    history.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_answers_filters_and_cursors() {
    filters_and_cursors(Place::sqlite()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_answers_filters_and_cursors() {
    filters_and_cursors(Place::postgres()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_sums_minutes() {
    minutes_are_summed(Place::sqlite()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_sums_minutes() {
    minutes_are_summed(Place::postgres()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sqlite_forgets_what_is_too_old() {
    old_records_go(Place::sqlite()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_forgets_what_is_too_old() {
    let place = Place::postgres();
    let socket = place.postgres.as_ref().unwrap().folder.path().to_owned();
    old_records_go(place).await;
    assert!(!socket.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_locked_sqlite_file_loses_nothing() {
    let place = Place::sqlite();
    let history = place.start();
    let now = now_ms();
    history.recorder().record(event("a", now, 0));
    have(&history, 1).await;
    let mut other = SqliteConnectOptions::new().filename(place.file()).connect().await.unwrap();
    sqlx::query("BEGIN EXCLUSIVE").execute(&mut other).await.unwrap();
    for number in 1..500 {
        history.recorder().record(event("a", now + number, number));
    }
    eventually("a spool", async || place.spool_files(), |files| *files > 0).await;
    for number in 500..1000 {
        history.recorder().record(event("a", now + number, number));
    }
    assert_eq!(all(&history).await.len(), 1, "others may read meanwhile");
    sqlx::query("ROLLBACK").execute(&mut other).await.unwrap();
    assert_eq!(numbers(&have(&history, 1000).await), (0..1000).collect::<Vec<_>>());
    eventually("an empty spool", async || place.spool_files(), |files| *files == 0).await;
    other.close().await.unwrap();
    history.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_that_crashes_loses_and_doubles_nothing() {
    let mut place = Place::postgres();
    let history = place.start();
    let now = now_ms();
    let record = |numbers: std::ops::Range<i64>| {
        for number in numbers {
            history.recorder().record(event("a", now + number, number));
        }
    };
    record(0..100);
    have(&history, 100).await;
    place.postgres.as_mut().unwrap().kill();
    record(100..3000);
    eventually("a spool", async || place.spool_files(), |files| *files > 0).await;
    record(3000..4000);
    place.postgres.as_mut().unwrap().run();
    record(4000..5000);
    assert_eq!(numbers(&have(&history, 5000).await), (0..5000).collect::<Vec<_>>());
    let postgres = place.postgres.as_ref().unwrap();
    assert_eq!(postgres.ask("SELECT count(*) FROM saccade_events"), "5000");
    assert_eq!(
        postgres
            .ask("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'saccade' AND state LIKE 'idle in%'"),
        "0"
    );
    history.end().await;
    assert_eq!(place.spool_files(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spool_outlives_the_process_with_sqlite() {
    let place = Place::sqlite();
    let other = tokio::sync::Mutex::new(None);
    let file = place.file();
    let down = async || {
        let mut connection = SqliteConnectOptions::new().filename(&file).connect().await.unwrap();
        sqlx::query("BEGIN EXCLUSIVE").execute(&mut connection).await.unwrap();
        *other.lock().await = Some(connection);
    };
    let up = async || {
        let connection = other.lock().await.take().unwrap();
        connection.close().await.unwrap();
    };
    restart_with_a_spool(&place, down, up).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spool_outlives_the_process_with_postgres() {
    let mut place = Place::postgres();
    let postgres = tokio::sync::Mutex::new(place.postgres.take().unwrap());
    place.postgres = Some(Postgres { folder: tempfile::tempdir().unwrap(), server: None });
    // The cluster is the test's, the settings are the place's.
    std::mem::swap(&mut place.postgres.as_mut().unwrap().folder, &mut postgres.lock().await.folder);
    let folder = place.postgres.as_ref().unwrap().folder.path().to_owned();
    let down = async || postgres.lock().await.kill();
    let up = async || {
        let mut server = postgres.lock().await;
        let socket = folder.display().to_string();
        let data = folder.join("data");
        let mut command = server.command("postgres");
        command.env("PGDATA", data).current_dir(&folder);
        server.server =
            Some(command.args(["-c", "listen_addresses=", "-c", "fsync=off", "-k", &socket]).spawn().unwrap());
    };
    restart_with_a_spool(&place, down, up).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_never_there_holds_nobody_up() {
    let place = Place::sqlite();
    std::fs::write(place.folder.path().join("file"), "").unwrap();
    let target = Target::Sqlite(place.folder.path().join("file/history.db"));
    let history = History::start(Settings { target, spool_bytes: 64 * 1024, ..place.settings() });
    for number in 0..5000 {
        history.recorder().record(event("a", now_ms(), number));
    }
    eventually("a spool", async || place.spool_files(), |files| *files > 0).await;
    assert!(history.reader().events(&Events::default(), 1).await.is_err());
    timeout(LIMIT, history.end()).await.unwrap();
    let bytes: u64 =
        std::fs::read_dir(place.folder.path().join("spool")).unwrap().map(|file| size(&file.unwrap().path())).sum();
    assert!(bytes > 32 * 1024 && bytes <= 64 * 1024, "{bytes}");
}

fn size(path: &Path) -> u64 {
    std::fs::metadata(path).unwrap().len()
}

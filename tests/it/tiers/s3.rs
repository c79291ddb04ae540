//! The tier of results in a bucket of moto, which speaks Amazon's protocol.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use object_store::ObjectStoreExt;
use object_store::aws::AmazonS3Builder;
use object_store::path::Path;
use saccade::cache::{Bucket, BucketSettings, Tier, TierError};
use saccade::clock;
use saccade::secret::Secret;

use super::{KEEP, entry, key, tag};

const SECRET: &str = "s3cret-not-in-logs";

struct Moto {
    child: Child,
    url: String,
}

impl Moto {
    /// Starts one on a free port with a bucket `results`, unless there is none on this machine.
    async fn start(test: &str) -> Option<Self> {
        let program = program();
        if !program.exists() {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "{test}: there is no {}", program.display());
            eprintln!("skipped {test}: there is no {}", program.display());
            return None;
        }
        let mut child = Command::new(program)
            .args(["--host", "127.0.0.1", "--port", "0"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
        let url = said.by_ref().find_map(|line| Some(line.unwrap().split_once("Running on ")?.1.trim().to_owned()));
        // What it says of requests must not fill the pipe.
        std::thread::spawn(move || said.for_each(drop));
        let moto = Self { child, url: url.expect("moto ended") };
        let _ = rustls::crypto::ring::default_provider().install_default();
        let made = reqwest::Client::new().put(format!("{}/results", moto.url)).send().await.unwrap();
        assert!(made.status().is_success(), "{made:?}");
        Some(moto)
    }

    fn settings(&self) -> BucketSettings {
        BucketSettings {
            bucket: "results".to_owned(),
            endpoint: Some(self.url.clone()),
            region: "us-east-1".to_owned(),
            prefix: "saccade".to_owned(),
            credentials: Some(("AKID".to_owned(), Secret::new(SECRET.to_owned()))),
            max_entry_bytes: 1 << 20,
            request_limit: Duration::from_secs(20),
        }
    }

    /// Names of all objects, as the service lists them.
    async fn list(&self) -> String {
        reqwest::get(format!("{}/results?list-type=2", self.url)).await.unwrap().text().await.unwrap()
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// In the environment that scripts/setup.sh makes for tests.
fn program() -> PathBuf {
    let home = |name| std::env::var_os(name).map(PathBuf::from);
    let cache = home("XDG_CACHE_HOME").or_else(|| Some(home("HOME")?.join(".cache"))).unwrap_or_default();
    cache.join("saccade/test-venv/bin/moto_server")
}

#[tokio::test]
async fn a_bucket_keeps_entries_and_forgets_them_by_tag() {
    let Some(moto) = Moto::start("a_bucket_keeps_entries").await else { return };
    let (tier, now) = (Bucket::new(&moto.settings()).unwrap(), clock::wall());
    assert_eq!(tier.get(&key("a"), now).await.unwrap(), None);
    for (name, tags) in [("a", &["x"][..]), ("b", &["x", "y"]), ("c", &["y"])] {
        tier.put(&key(name), &entry(name, tags, now), KEEP, now).await.unwrap();
    }
    // Another process.
    let tier = Bucket::new(&moto.settings()).unwrap();
    for name in ["a", "b", "c"] {
        assert_eq!(tier.get(&key(name), now).await.unwrap().unwrap().value(), name.as_bytes());
    }
    assert_eq!(tier.remove_tagged(&tag("x")).await.unwrap(), 2);
    assert_eq!(tier.remove_tagged(&tag("x")).await.unwrap(), 0);
    for (name, is_there) in [("a", false), ("b", false), ("c", true)] {
        assert_eq!(tier.get(&key(name), now).await.unwrap().is_some(), is_there, "{name}");
    }
    tier.remove(&key("c")).await.unwrap();
    tier.remove(&key("c")).await.unwrap();
    assert_eq!(tier.get(&key("c"), now).await.unwrap(), None);
    let left = moto.list().await;
    assert!(!left.contains("saccade/e/") && left.contains("saccade/t/"), "{left}");
}

#[tokio::test]
async fn what_others_put_into_a_bucket_is_no_entry() {
    let Some(moto) = Moto::start("what_others_put_into_a_bucket").await else { return };
    let (tier, now) = (Bucket::new(&moto.settings()).unwrap(), clock::wall());
    let others = AmazonS3Builder::new()
        .with_bucket_name("results")
        .with_endpoint(&moto.url)
        .with_allow_http(true)
        .with_access_key_id("AKID")
        .with_secret_access_key(SECRET)
        .build()
        .unwrap();
    let name = key("a").to_string();
    let path = Path::from(format!("saccade/e/{}/{name}", &name[..2]));
    for body in [b"nonsense".to_vec(), vec![0; 3 << 20]] {
        others.put(&path, body.into()).await.unwrap();
        assert!(matches!(tier.get(&key("a"), now).await, Err(TierError::Wrong(_))));
    }
}

#[tokio::test]
async fn storage_that_cannot_be_used_is_an_error_without_secrets() {
    let Some(moto) = Moto::start("storage_that_cannot_be_used").await else { return };
    let now = clock::wall();
    let elsewhere = BucketSettings { bucket: "nowhere".to_owned(), ..moto.settings() };
    let tier = Bucket::new(&elsewhere).unwrap();
    let error = tier.put(&key("a"), &entry("a", &[], now), KEEP, now).await.unwrap_err();
    assert!(matches!(error, TierError::Unavailable(_)), "{error}");
    let settings = moto.settings();
    assert!(!format!("{settings:?}").contains(SECRET));
    let tier = Bucket::new(&settings).unwrap();
    drop(moto);
    let error = tier.get(&key("a"), now).await.unwrap_err();
    assert!(matches!(error, TierError::Unavailable(_)) && !error.to_string().contains(SECRET), "{error}");
}

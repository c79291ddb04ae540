use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::reader::Reader;
use super::{SOCKET, Secret, parse_socket, secret};
use crate::cluster::{self, MIN_SECRET_BYTES};

/// `[cluster]`: this server is one of several, and requests for a session reach the one that has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// Where it is known which server has which session: `redis://`, `rediss://` for TLS, or `redis+unix:///SOCKET`.
    pub redis_url: Secret,
    /// What this server is called among the others; default: the host's name. No two have the same.
    pub name: Option<String>,
    /// Listener for what other servers forward, never a public one; default `127.0.0.1:9190`.
    pub listen: SocketAddr,
    /// URL by which other servers reach that listener.
    pub advertise: String,
    /// What all servers know and nobody else does, from `secret` or `secret_file`; at least 32 bytes. Of several, one a line,
    /// the first signs and all of them are good: so it is changed one server after another.
    pub secret: Secret,
    /// How long an entry counts after it was written or renewed, which happens three times as often; default 15 s. Longer
    /// ones outlast a server that died, shorter ones ask more of Redis and bear less of its being away.
    pub lease: Duration,
    /// What keys in Redis begin with; default `saccade:`.
    pub key_prefix: String,
}

impl Cluster {
    /// `None` where `cluster.redis_url` is not given: the server is alone.
    pub(super) fn read(from: &mut Reader) -> Option<Self> {
        let legal =
            "a URL such as \"redis://redis.example:6379/0\", rediss:// for TLS, or redis+unix:///run/redis.sock";
        let url = from.traced("cluster.redis_url", legal, true, |raw| raw.string().map(Secret::new));
        let name = from.optional(
            "cluster.name",
            "1 to 253 letters, digits, '.', '_' and '-', unlike any other server's",
            |raw| raw.string().filter(|name| cluster::is_name(name)),
        );
        let default = SocketAddr::from((Ipv4Addr::LOCALHOST, 9190));
        let listen = from.read("cluster.listen", default, SOCKET, parse_socket);
        let advertise = from.optional(
            "cluster.advertise",
            "a URL of a host and a port, such as \"http://saccade-0.saccade-peers:9190\"",
            |raw| raw.string().filter(|url| cluster::is_url(url)),
        );
        let long =
            format!("a text of at least {MIN_SECRET_BYTES} bytes; while it changes, up to four of them, one a line");
        let secret = secret::read(from, ("cluster.secret", "cluster.secret_file"), &long, cluster::is_secret);
        let lease = from.millis("cluster.lease_ms", 15_000, 1000..=30_000);
        let prefix = "a text of at most 64 characters";
        let key_prefix = from.read("cluster.key_prefix", "saccade:".to_owned(), prefix, |raw| {
            raw.string().filter(|prefix| prefix.len() <= 64)
        });
        let (redis_url, given) = url.filter(|(url, _)| !url.expose().is_empty())?;
        let settings = cluster::Settings {
            redis_url: redis_url.clone(),
            name: "name".to_owned(),
            advertise: "http://host:1".to_owned(),
            secret: Secret::new(String::new()),
            lease,
            key_prefix: key_prefix.clone(),
        };
        if cluster::Cluster::new(&settings).is_err() {
            from.mistake(&given, format!("must be {legal}"));
        }
        if advertise.is_none() {
            from.mistake(
                &given,
                "needs cluster.advertise beside it: the URL by which other servers reach cluster.listen",
            );
        }
        if matches!(secret, Ok(None)) {
            from.mistake(&given, "needs cluster.secret or cluster.secret_file beside it, the same on all servers");
        }
        Some(Self { redis_url, name, listen, advertise: advertise?, secret: secret.ok()??, lease, key_prefix })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::Cluster;
    use crate::config::{Config, File, Sources};

    const URL: (&str, &str) = ("redis_url", "redis://:hunter2@redis.example/1");
    const ADVERTISE: (&str, &str) = ("advertise", "http://saccade-0.peers:9190");
    const SECRET: (&str, &str) = ("secret", "0123456789abcdef0123456789abcdef");

    fn load(settings: &[(&str, &str)]) -> Result<Option<Cluster>, String> {
        let mut sources = Sources { file: File::None, ..Sources::default() };
        for (key, value) in settings {
            sources.flag(&format!("cluster.{key}"), "--set", *value);
        }
        Config::load(&sources).map(|config| config.cluster).map_err(|mistakes| mistakes.to_string())
    }

    #[test]
    fn it_is_one_of_several_where_redis_is_named() {
        assert_eq!(load(&[]), Ok(None));
        assert_eq!(load(&[("redis_url", ""), ADVERTISE]), Ok(None));
        let cluster = load(&[URL, ADVERTISE, SECRET]).unwrap().unwrap();
        assert_eq!((cluster.listen.to_string().as_str(), cluster.lease.as_secs()), ("127.0.0.1:9190", 15));
        assert_eq!((cluster.name, cluster.key_prefix.as_str()), (None, "saccade:"));
        let shown = format!("{:?}", load(&[URL, ADVERTISE, SECRET]));
        assert!(!shown.contains("hunter2") && !shown.contains("0123456789"), "{shown}");
    }

    #[test]
    fn every_mistake_is_told_at_once() {
        let said = load(&[URL]).unwrap_err();
        assert!(
            said.contains("cluster.advertise beside it") && said.contains("cluster.secret_file beside it"),
            "{said}"
        );
        let wrong = [
            ("redis_url", "http://hunter2"),
            ("name", "a b"),
            ("listen", "9190"),
            ("advertise", "https://a:1"),
            ("secret", "hunter2"),
            ("lease_ms", "30001"),
        ];
        let said = load(&wrong).unwrap_err();
        for (key, _) in wrong {
            assert!(said.contains(&format!("cluster.{key}")), "{key}: {said}");
        }
        assert!(!said.contains("hunter2"), "{said}");
        let [short, long] = ["hunter2".to_owned(), "s".repeat(32)];
        for (secret, is_good) in [(format!("{long}\n{long}x\n"), true), (format!("{long}\n{short}"), false)] {
            let said = load(&[URL, ADVERTISE, ("secret", &secret)]);
            assert_eq!(said.is_ok(), is_good, "{said:?}");
            // What is wrong is told once.
            assert!(said.is_ok() || !said.unwrap_err().contains("beside it"));
        }
        let both = load(&[URL, ADVERTISE, SECRET, ("secret_file", "/nonexistent")]).unwrap_err();
        assert!(both.contains("must be left out"), "{both}");
    }
}

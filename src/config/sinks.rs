use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use figment::value::Value;
use url::Url;

use super::reader::Reader;
use super::tables::{self, List, Table};
use crate::secret::Secret;
use crate::sinks::{Config, DeadLetters, Filter, Key, Mqtt, Nats, NatsLogin, Retry, Target, Way, Webhook, trust};

/// What every table may have, in the order of the documentation.
const KEYS: [&str; 21] = [
    "name",
    "type",
    "url",
    "send",
    "cameras",
    "sessions",
    "events",
    "min_interval_ms",
    "queue",
    "max_age_s",
    "timeout_ms",
    "retry_min_ms",
    "retry_max_ms",
    "dead_letter",
    "dead_letter_bytes",
    "ca_file",
    "username",
    "password_file",
    "password_env",
    "token_file",
    "token_env",
];
/// What only one kind may have.
const WEBHOOK_KEYS: [&str; 4] = ["secret_file", "secret_env", "batch", "max_attempts"];
const MQTT_KEYS: [&str; 4] = ["topic_prefix", "client_id", "qos", "home_assistant"];
const NATS_KEYS: [&str; 6] =
    ["subject_prefix", "jetstream", "nkey_file", "nkey_env", "credentials_file", "credentials_env"];
/// Names of events that `events` may have.
const EVENTS: [&str; 11] = [
    "track_started",
    "resolution_changed",
    "zone_entered",
    "zone_left",
    "zone_dwelled",
    "line_crossed",
    "alert_started",
    "alert_ended",
    "session_started",
    "session_ended",
    "camera_changed",
];
/// What there are.
const LIST: List = List {
    key: "sinks",
    legal: "a list of tables with name, type, url and more (JSON in the environment)",
    one: "sink",
    most: 64,
};
/// Legal waits before another try, in milliseconds.
const RETRY_MS: RangeInclusive<u64> = 10..=3_600_000;
/// Bytes of the dead letters by default.
const DEAD_LETTER_BYTES: u64 = 16 * 1024 * 1024;

/// `[[sinks]]`: where events and results go.
pub(super) fn read_all(from: &mut Reader, environment: &[(String, String)]) -> Vec<Config> {
    let mut letters = BTreeSet::new();
    tables::read_all(from, environment, &LIST, |table, name| {
        let sink = Sink(table).read(name);
        if sink.target.dead_letters.as_ref().is_some_and(|file| !letters.insert(file.path.clone())) {
            table.mistake("dead_letter must be unlike that of every other sink");
        }
        sink
    })
}

/// One sink's table.
struct Sink<'a, 'b>(&'a mut Table<'b>);

impl Sink<'_, '_> {
    fn read(&mut self, name: String) -> Config {
        let filter = self.filter();
        let target = Target {
            name: name.into(),
            filter,
            queue: usize::try_from(self.0.number("queue", 1024, &(1..=100_000), "messages")).unwrap_or(usize::MAX),
            max_age: Duration::from_secs(self.0.number("max_age_s", 86_400, &(1..=604_800), "seconds")),
            dead_letters: self.dead_letters(),
        };
        let ca_file = self.0.text("ca_file").map(PathBuf::from);
        if let Some(path) = &ca_file
            && let Err(error) = trust(Some(path))
        {
            self.0.wrong("ca_file", format!("the name of a file with certificates in PEM: {error}"));
        }
        let millis = Duration::from_millis;
        let timeout = millis(self.0.number("timeout_ms", 10_000, &(100..=120_000), "milliseconds"));
        let [shortest, longest] = self.0.waits(&RETRY_MS).map(millis);
        let retry = Retry { shortest, longest, max_attempts: u32::MAX };
        let login = self.0.login();
        let token = self.0.secret("token");
        if login.is_some() && token.is_some() {
            self.0.mistake("token_file and token_env must be left out where username is given".to_owned());
        }
        let (way, own) = match self.0.text("type").as_deref() {
            Some("mqtt") => (Way::Mqtt(self.mqtt(login, timeout, retry)), &MQTT_KEYS[..]),
            Some("nats") => (Way::Nats(self.nats(login, token.clone(), timeout, retry)), &NATS_KEYS[..]),
            kind => {
                if kind != Some("webhook") {
                    self.0.wrong("type", "\"webhook\", \"mqtt\" or \"nats\"");
                }
                (Way::Webhook(self.webhook(login, token.clone(), timeout, retry)), &WEBHOOK_KEYS[..])
            }
        };
        if matches!(way, Way::Mqtt(_)) && token.is_some() {
            self.0.mistake("token_file and token_env are not for mqtt; use username and password_file".to_owned());
        }
        let keys = KEYS.iter().chain(own).copied().collect::<Vec<_>>().join(", ");
        self.0.unknown(&format!("of type {} there are {keys}", way.name()));
        Config { target, ca_file, way }
    }

    fn filter(&mut self) -> Filter {
        let send = self.0.list("send", &["events", "results"]).unwrap_or_else(|| vec!["events".to_owned()]);
        if send.is_empty() {
            self.0.wrong("send", "one of \"events\" and \"results\", or both");
        }
        let has = |word: &str| send.iter().any(|one| one == word);
        Filter {
            events: has("events"),
            results: has("results"),
            cameras: self.0.list("cameras", &[]).map(BTreeSet::from_iter),
            sessions: self.0.flag("sessions", true),
            names: self.0.list("events", &EVENTS).map(BTreeSet::from_iter),
            min_interval: Duration::from_millis(self.0.number(
                "min_interval_ms",
                1_000,
                &(0..=3_600_000),
                "milliseconds",
            )),
        }
    }

    fn dead_letters(&mut self) -> Option<DeadLetters> {
        let path = self.0.text("dead_letter").map(PathBuf::from);
        let max_bytes = self.0.number("dead_letter_bytes", DEAD_LETTER_BYTES, &(4096..=1 << 40), "bytes");
        let path = path?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if !folder.is_dir() || path.is_dir() {
            self.0.wrong("dead_letter", "the name of a file in a folder that exists");
        }
        Some(DeadLetters { path, max_bytes })
    }

    fn webhook(
        &mut self,
        login: Option<(String, Secret)>,
        token: Option<Secret>,
        timeout: Duration,
        retry: Retry,
    ) -> Webhook {
        let url = Secret::new(self.url(["http", "https"], "https://events.example/saccade").to_string());
        let key = self.0.secret("secret").and_then(|text| {
            let key = Key::parse(text.expose());
            if key.is_none() {
                let how =
                    "whsec_ and the base64 of 24 to 64 bytes, as `echo whsec_$(openssl rand -base64 32)` makes it";
                self.0.mistake(format!("secret_file or secret_env must hold {how}"));
            }
            key
        });
        let batch = usize::try_from(self.0.number("batch", 1, &(1..=1000), "messages")).unwrap_or(1);
        let attempts = self.0.number("max_attempts", 20, &(1..=1000), "tries");
        let retry = Retry { max_attempts: u32::try_from(attempts).unwrap_or(u32::MAX), ..retry };
        Webhook { url, key, token, login, batch, timeout, retry }
    }

    fn mqtt(&mut self, login: Option<(String, Secret)>, timeout: Duration, retry: Retry) -> Mqtt {
        let url = self.url(["mqtt", "mqtts"], "mqtt://broker.example");
        let prefix = self.0.text("topic_prefix").unwrap_or_else(|| "saccade".to_owned());
        if !is_topic(&prefix) {
            self.0.wrong("topic_prefix", "levels of letters, digits, '.', '_' and '-' with '/' between them");
        }
        let client_id = self.0.text("client_id").unwrap_or_else(|| format!("saccade-{}", &random()[..12]));
        if client_id.len() > 64 || client_id.chars().any(char::is_control) {
            self.0.wrong("client_id", "up to 64 characters");
        }
        let qos = u8::try_from(self.0.number("qos", 1, &(0..=1), "1 for events that must arrive")).unwrap_or(1);
        let home_assistant = match self.0.take("home_assistant") {
            None | Some(Value::Bool(_, false)) => None,
            Some(Value::Bool(_, true)) => Some("homeassistant".to_owned()),
            Some(Value::String(_, prefix)) if is_topic(&prefix) => Some(prefix),
            Some(_) => {
                self.0.wrong("home_assistant", "true, false, or what its discovery topics begin with");
                None
            }
        };
        Mqtt { url, login, client_id, prefix, qos, home_assistant, timeout, retry }
    }

    fn nats(
        &mut self,
        login: Option<(String, Secret)>,
        token: Option<Secret>,
        timeout: Duration,
        retry: Retry,
    ) -> Nats {
        let url = Secret::new(self.url(["nats", "tls"], "nats://nats.example").to_string());
        let (nkey, credentials) = (self.0.secret("nkey"), self.0.secret("credentials"));
        let given = [login.is_some(), token.is_some(), nkey.is_some(), credentials.is_some()];
        if given.iter().filter(|given| **given).count() > 1 && !(login.is_some() && token.is_some()) {
            self.0.mistake("username, token, nkey and credentials exclude each other".to_owned());
        }
        let login = match (login, token, nkey, credentials) {
            (Some((name, password)), ..) => NatsLogin::User(name, password),
            (_, Some(token), ..) => NatsLogin::Token(token),
            (_, _, Some(seed), _) => NatsLogin::Nkey(Secret::new(seed.expose().trim().to_owned())),
            (_, _, _, Some(text)) => NatsLogin::Credentials(text),
            _ => NatsLogin::None,
        };
        let prefix = self.0.text("subject_prefix").unwrap_or_else(|| "saccade".to_owned());
        let is_token = |token: &str| {
            !token.is_empty() && token.chars().all(|one| one.is_ascii_alphanumeric() || "_-".contains(one))
        };
        if !prefix.split('.').all(is_token) {
            self.0.wrong("subject_prefix", "tokens of letters, digits, '_' and '-' with '.' between them");
        }
        let jetstream = self.0.flag("jetstream", false);
        Nats { url, login, prefix, jetstream, timeout, retry }
    }

    /// What cannot be read stands for nowhere.
    #[expect(clippy::expect_used, reason = "a constant")]
    fn url(&mut self, schemes: [&str; 2], example: &str) -> Url {
        let url = self.0.text("url").and_then(|text| Url::parse(&text).ok());
        match url {
            Some(url) if !url.username().is_empty() || url.password().is_some() => {
                self.0.mistake(
                    "url must hold no user name and no password: give them as username, and password_file or password_env"
                        .to_owned(),
                );
            }
            Some(url) if schemes.contains(&url.scheme()) && url.host().is_some() => return url,
            _ => self.0.wrong("url", format!("a URL of {}:// or {}://, such as \"{example}\"", schemes[0], schemes[1])),
        }
        Url::parse("http://localhost").expect("it is a URL")
    }
}

/// Safe as the beginning of a topic.
fn is_topic(prefix: &str) -> bool {
    let is_level =
        |level: &str| !level.is_empty() && level.chars().all(|one| one.is_ascii_alphanumeric() || "._-".contains(one));
    prefix.len() <= 256 && prefix.split('/').all(is_level)
}

fn random() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;
    use crate::config::{self, File, Sources};

    fn sources(toml: &str) -> Sources {
        let environment = vec![("BROKER_PASSWORD".to_owned(), "hunter2".to_owned())];
        Sources { file: File::Text("test.toml".to_owned(), toml.to_owned()), environment, ..Sources::default() }
    }

    #[test]
    fn sinks_are_tables_in_a_file_and_json_in_the_environment() {
        let folder = tempfile::tempdir().unwrap();
        let secret = folder.path().join("secret");
        std::fs::write(&secret, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
        let letters = folder.path().join("letters");
        let toml = format!(
            "[[sinks]]\nname = \"hooks\"\ntype = \"webhook\"\nurl = \"https://u.example/x?k=hidden\"\nsecret_file = {secret:?}\n\
             send = [\"events\", \"results\"]\ncameras = [\"yard\"]\nsessions = false\nevents = [\"alert_started\"]\n\
             min_interval_ms = 250\nqueue = 9\nmax_age_s = 60\nmax_attempts = 3\nbatch = 10\ntimeout_ms = 500\n\
             retry_min_ms = 100\nretry_max_ms = 800\ndead_letter = {letters:?}\ndead_letter_bytes = 4096\n\
             [[sinks]]\nname = \"house\"\ntype = \"mqtt\"\nurl = \"mqtts://b.example:8884\"\nusername = \"u\"\n\
             password_env = \"BROKER_PASSWORD\"\nhome_assistant = true\ntopic_prefix = \"site/1\"\nqos = 0\nclient_id = \"c\"\n\
             [[sinks]]\nname = \"bus\"\ntype = \"nats\"\nurl = \"nats://n.example\"\njetstream = true\n"
        );
        let config = config::Config::load(&sources(&toml)).unwrap_or_else(|mistakes| panic!("{mistakes}"));
        let [hooks, house, bus] = config.sinks.as_slice() else { panic!("{:?}", config.sinks) };
        let names = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect());
        let expected = Filter {
            events: true,
            results: true,
            cameras: names(&["yard"]),
            sessions: false,
            names: names(&["alert_started"]),
            min_interval: Duration::from_millis(250),
        };
        let target = &hooks.target;
        assert_eq!((&*target.name, &target.filter, target.queue), ("hooks", &expected, 9));
        assert_eq!(
            (target.max_age, &target.dead_letters),
            (Duration::from_secs(60), &Some(DeadLetters { path: letters, max_bytes: 4096 }))
        );
        let Way::Webhook(webhook) = &hooks.way else { panic!("{hooks:?}") };
        let retry =
            Retry { shortest: Duration::from_millis(100), longest: Duration::from_millis(800), max_attempts: 3 };
        assert_eq!((webhook.retry, webhook.batch, webhook.key.is_some()), (retry, 10, true));
        let Way::Mqtt(mqtt) = &house.way else { panic!("{house:?}") };
        assert_eq!(
            (mqtt.prefix.as_str(), mqtt.qos, mqtt.home_assistant.as_deref()),
            ("site/1", 0, Some("homeassistant"))
        );
        assert_eq!(mqtt.login, Some(("u".to_owned(), Secret::new("hunter2".to_owned()))));
        assert_eq!(house.target.filter, Filter::default());
        let Way::Nats(nats) = &bus.way else { panic!("{bus:?}") };
        assert_eq!((nats.jetstream, nats.prefix.as_str(), &nats.login), (true, "saccade", &NatsLogin::None));
        let shown = format!("{:?}", config.sinks);
        assert!(!shown.contains("hunter2") && !shown.contains("hidden\"") && !shown.contains("k=hidden"), "{shown}");

        let mut others = sources("");
        let json = r#"[{"name": "a", "type": "nats", "url": "tls://n.example:4223"}]"#;
        others.environment.push(("SACCADE_SINKS".to_owned(), json.to_owned()));
        assert_eq!(config::Config::load(&others).unwrap().sinks.len(), 1);
    }

    #[test]
    fn all_mistakes_of_all_sinks_come_at_once_and_tell_no_secret() {
        let toml = concat!(
            "[[sinks]]\nname = \"a\"\ntype = \"webhook\"\nurl = \"https://u:hunter2@h/\"\nsecret = \"hunter2\"\nqos = 1\n",
            "send = []\nevents = [\"zone_opened\"]\ndead_letter = \"/none/letters\"\n",
            "[[sinks]]\nname = \"a\"\ntype = \"mqtt\"\nurl = \"http://h\"\nqos = 2\ntopic_prefix = \"a/#\"\nhome_assistant = 3\n",
            "username = \"u\"\ntoken_env = \"BROKER_PASSWORD\"\n",
            "[[sinks]]\nname = \"../c\"\ntype = \"nats\"\nurl = \"nats://h\"\nsubject_prefix = \"a.*\"\njetstream = 1\n",
            "nkey_env = \"BROKER_PASSWORD\"\ntoken_env = \"BROKER_PASSWORD\"\nsend = [\"video\"]\nqueue = 0\n",
            "[[sinks]]\nname = \"d\"\ntype = \"webhook\"\nurl = \"http://h\"\nsecret_env = \"BROKER_PASSWORD\"\n",
            "ca_file = \"/none\"\nretry_min_ms = 200\nretry_max_ms = 100\npassword_env = \"NOWHERE\"\n",
            "[[sinks]]\nname = \"e\"\ntype = \"smtp\"\n",
        );
        let shown = config::Config::load(&sources(toml)).unwrap_err().to_string();
        for expected in [
            "number 1: url must hold no user name and no password",
            "number 1: secret must not be in the configuration: put it into a file that secret_file names",
            "number 1: unknown key qos; of type webhook there are name, type, url",
            "number 1: send must be one of",
            "number 1: events must be a list of texts, each one of track_started",
            "number 1: dead_letter must be the name of a file in a folder that exists",
            "number 2: name must be unlike that of every other sink",
            "number 2: url must be a URL of mqtt:// or mqtts://",
            "number 2: qos must be a whole number from 0 to 1",
            "number 2: topic_prefix must be levels",
            "number 2: home_assistant must be true, false",
            "number 2: username needs password_file or password_env beside it",
            "number 2: token_file and token_env are not for mqtt",
            "number 3: name must be up to 64 letters",
            "number 3: subject_prefix must be tokens",
            "number 3: jetstream must be true or false",
            "number 3: username, token, nkey and credentials exclude each other",
            "number 3: send must be a list of texts, each one of events, results",
            "number 3: queue must be a whole number from 1 to 100000 (messages)",
            "number 4: secret_file or secret_env must hold whsec_",
            "number 4: ca_file must be the name of a file with certificates",
            "number 4: retry_max_ms must be at least retry_min_ms",
            "number 4: password_env must be the name of an environment variable that is set",
            "number 5: type must be \"webhook\", \"mqtt\" or \"nats\"",
            "number 5: url must be a URL of http:// or https://",
        ] {
            assert!(shown.contains(expected), "{expected:?} is not in:\n{shown}");
        }
        assert!(!shown.contains("hunter2") && shown.contains("sinks = (hidden) (from test.toml)"), "{shown}");
    }
}

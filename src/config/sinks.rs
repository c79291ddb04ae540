use std::collections::BTreeSet;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use figment::value::{Dict, Value};
use url::Url;

use super::reader::Reader;
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
/// Longest name of a sink, in bytes.
const MAX_NAME: usize = 64;
/// Most sinks.
const MAX_SINKS: usize = 64;
/// Legal waits before another try, in milliseconds.
const RETRY_MS: RangeInclusive<u64> = 10..=3_600_000;
/// Bytes of the dead letters by default.
const DEAD_LETTER_BYTES: u64 = 16 * 1024 * 1024;

/// `[[sinks]]`: where events and results go.
pub(super) fn read_all(from: &mut Reader, environment: &[(String, String)]) -> Vec<Config> {
    let tables =
        from.traced("sinks", "a list of tables with name, type, url and more (JSON in the environment)", true, |raw| {
            if raw.is_nothing() { Some(Vec::new()) } else { raw.tables() }
        });
    let Some((tables, given)) = tables else { return Vec::new() };
    if tables.len() > MAX_SINKS {
        from.mistake(&given, format!("must be at most {MAX_SINKS}"));
    }
    let (mut sinks, mut names, mut letters) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
    for (index, table) in tables.into_iter().enumerate() {
        let mut table = Table { table, environment, mistakes: Vec::new() };
        let sink = table.read();
        if !names.insert(Arc::clone(&sink.target.name)) {
            table.mistakes.push("name must be unlike that of every other sink".to_owned());
        }
        if sink.target.dead_letters.as_ref().is_some_and(|file| !letters.insert(file.path.clone())) {
            table.mistakes.push("dead_letter must be unlike that of every other sink".to_owned());
        }
        for mistake in table.mistakes {
            from.mistake(&given, format!("number {}: {mistake}", index + 1));
        }
        sinks.push(sink);
    }
    sinks
}

/// One sink's table, while it is read: what is wrong keeps a default beside its mistake.
struct Table<'a> {
    table: Dict,
    environment: &'a [(String, String)],
    mistakes: Vec<String>,
}

impl Table<'_> {
    fn read(&mut self) -> Config {
        let name = self.text("name").unwrap_or_default();
        if !is_name(&name) {
            self.wrong("name", format!("up to {MAX_NAME} letters, digits, '.', '_' and '-', the first no '.'"));
        }
        let filter = self.filter();
        let target = Target {
            name: name.into(),
            filter,
            queue: usize::try_from(self.number("queue", 1024, &(1..=100_000), "messages")).unwrap_or(usize::MAX),
            max_age: Duration::from_secs(self.number("max_age_s", 86_400, &(1..=604_800), "seconds")),
            dead_letters: self.dead_letters(),
        };
        let ca_file = self.text("ca_file").map(PathBuf::from);
        if let Some(path) = &ca_file
            && let Err(error) = trust(Some(path))
        {
            self.wrong("ca_file", format!("the name of a file with certificates in PEM: {error}"));
        }
        let millis = Duration::from_millis;
        let timeout = millis(self.number("timeout_ms", 10_000, &(100..=120_000), "milliseconds"));
        let shortest = self.number("retry_min_ms", 1_000, &RETRY_MS, "milliseconds");
        let longest = self.number("retry_max_ms", 60_000.max(shortest), &RETRY_MS, "milliseconds");
        if shortest > longest {
            self.wrong("retry_max_ms", "at least retry_min_ms");
        }
        let retry = Retry { shortest: millis(shortest), longest: millis(longest), max_attempts: u32::MAX };
        let login = self.login();
        let token = self.secret("token");
        if login.is_some() && token.is_some() {
            self.mistakes.push("token_file and token_env must be left out where username is given".to_owned());
        }
        let (way, own) = match self.text("type").as_deref() {
            Some("mqtt") => (Way::Mqtt(self.mqtt(login, timeout, retry)), &MQTT_KEYS[..]),
            Some("nats") => (Way::Nats(self.nats(login, token.clone(), timeout, retry)), &NATS_KEYS[..]),
            kind => {
                if kind != Some("webhook") {
                    self.wrong("type", "\"webhook\", \"mqtt\" or \"nats\"");
                }
                (Way::Webhook(self.webhook(login, token.clone(), timeout, retry)), &WEBHOOK_KEYS[..])
            }
        };
        if matches!(way, Way::Mqtt(_)) && token.is_some() {
            self.mistakes.push("token_file and token_env are not for mqtt; use username and password_file".to_owned());
        }
        for key in std::mem::take(&mut self.table).into_keys() {
            let keys = KEYS.iter().chain(own).copied().collect::<Vec<_>>().join(", ");
            self.mistakes.push(format!("unknown key {key}; of type {} there are {keys}", way.name()));
        }
        Config { target, ca_file, way }
    }

    fn filter(&mut self) -> Filter {
        let send = self.list("send", &["events", "results"]).unwrap_or_else(|| vec!["events".to_owned()]);
        if send.is_empty() {
            self.wrong("send", "one of \"events\" and \"results\", or both");
        }
        let has = |word: &str| send.iter().any(|one| one == word);
        Filter {
            events: has("events"),
            results: has("results"),
            cameras: self.list("cameras", &[]).map(BTreeSet::from_iter),
            sessions: self.flag("sessions", true),
            names: self.list("events", &EVENTS).map(BTreeSet::from_iter),
            min_interval: Duration::from_millis(self.number(
                "min_interval_ms",
                1_000,
                &(0..=3_600_000),
                "milliseconds",
            )),
        }
    }

    fn dead_letters(&mut self) -> Option<DeadLetters> {
        let path = self.text("dead_letter").map(PathBuf::from);
        let max_bytes = self.number("dead_letter_bytes", DEAD_LETTER_BYTES, &(4096..=1 << 40), "bytes");
        let path = path?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if !folder.is_dir() || path.is_dir() {
            self.wrong("dead_letter", "the name of a file in a folder that exists");
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
        let key = self.secret("secret").and_then(|text| {
            let key = Key::parse(text.expose());
            if key.is_none() {
                let how =
                    "whsec_ and the base64 of 24 to 64 bytes, as `echo whsec_$(openssl rand -base64 32)` makes it";
                self.mistakes.push(format!("secret_file or secret_env must hold {how}"));
            }
            key
        });
        let batch = usize::try_from(self.number("batch", 1, &(1..=1000), "messages")).unwrap_or(1);
        let attempts = self.number("max_attempts", 20, &(1..=1000), "tries");
        let retry = Retry { max_attempts: u32::try_from(attempts).unwrap_or(u32::MAX), ..retry };
        Webhook { url, key, token, login, batch, timeout, retry }
    }

    fn mqtt(&mut self, login: Option<(String, Secret)>, timeout: Duration, retry: Retry) -> Mqtt {
        let url = self.url(["mqtt", "mqtts"], "mqtt://broker.example");
        let prefix = self.text("topic_prefix").unwrap_or_else(|| "saccade".to_owned());
        if !is_topic(&prefix) {
            self.wrong("topic_prefix", "levels of letters, digits, '.', '_' and '-' with '/' between them");
        }
        let client_id = self.text("client_id").unwrap_or_else(|| format!("saccade-{}", &random()[..12]));
        if client_id.len() > 64 || client_id.chars().any(char::is_control) {
            self.wrong("client_id", "up to 64 characters");
        }
        let qos = u8::try_from(self.number("qos", 1, &(0..=1), "1 for events that must arrive")).unwrap_or(1);
        let home_assistant = match self.table.remove("home_assistant") {
            None | Some(Value::Bool(_, false)) => None,
            Some(Value::Bool(_, true)) => Some("homeassistant".to_owned()),
            Some(Value::String(_, prefix)) if is_topic(&prefix) => Some(prefix),
            Some(_) => {
                self.wrong("home_assistant", "true, false, or what its discovery topics begin with");
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
        let (nkey, credentials) = (self.secret("nkey"), self.secret("credentials"));
        let given = [login.is_some(), token.is_some(), nkey.is_some(), credentials.is_some()];
        if given.iter().filter(|given| **given).count() > 1 && !(login.is_some() && token.is_some()) {
            self.mistakes.push("username, token, nkey and credentials exclude each other".to_owned());
        }
        let login = match (login, token, nkey, credentials) {
            (Some((name, password)), ..) => NatsLogin::User(name, password),
            (_, Some(token), ..) => NatsLogin::Token(token),
            (_, _, Some(seed), _) => NatsLogin::Nkey(Secret::new(seed.expose().trim().to_owned())),
            (_, _, _, Some(text)) => NatsLogin::Credentials(text),
            _ => NatsLogin::None,
        };
        let prefix = self.text("subject_prefix").unwrap_or_else(|| "saccade".to_owned());
        let is_token = |token: &str| {
            !token.is_empty() && token.chars().all(|one| one.is_ascii_alphanumeric() || "_-".contains(one))
        };
        if !prefix.split('.').all(is_token) {
            self.wrong("subject_prefix", "tokens of letters, digits, '_' and '-' with '.' between them");
        }
        let jetstream = self.flag("jetstream", false);
        Nats { url, login, prefix, jetstream, timeout, retry }
    }

    /// What cannot be read stands for nowhere.
    #[expect(clippy::expect_used, reason = "a constant")]
    fn url(&mut self, schemes: [&str; 2], example: &str) -> Url {
        let url = self.text("url").and_then(|text| Url::parse(&text).ok());
        match url {
            Some(url) if !url.username().is_empty() || url.password().is_some() => {
                self.mistakes.push(
                    "url must hold no user name and no password: give them as username, and password_file or password_env"
                        .to_owned(),
                );
            }
            Some(url) if schemes.contains(&url.scheme()) && url.host().is_some() => return url,
            _ => self.wrong("url", format!("a URL of {}:// or {}://, such as \"{example}\"", schemes[0], schemes[1])),
        }
        Url::parse("http://localhost").expect("it is a URL")
    }

    fn login(&mut self) -> Option<(String, Secret)> {
        let (username, password) = (self.text("username"), self.secret("password"));
        match (username, password) {
            (Some(username), Some(password)) => Some((username, password)),
            (Some(_), None) => {
                self.mistakes.push("username needs password_file or password_env beside it".to_owned());
                None
            }
            (None, Some(_)) => {
                self.mistakes.push("a password needs username beside it".to_owned());
                None
            }
            (None, None) => None,
        }
    }

    /// What the file `KEY_file` or the environment variable `KEY_env` holds.
    fn secret(&mut self, key: &str) -> Option<Secret> {
        let [in_file, in_environment] = [format!("{key}_file"), format!("{key}_env")];
        if self.table.remove(key).is_some() {
            self.mistakes.push(format!(
                "{key} must not be in the configuration: put it into a file that {in_file} names, or into an environment \
                 variable that {in_environment} names"
            ));
        }
        let text = match (self.text(&in_file), self.text(&in_environment)) {
            (Some(_), Some(_)) => {
                self.mistakes.push(format!("{in_environment} must be left out where {in_file} is given"));
                return None;
            }
            (Some(file), None) => match std::fs::read_to_string(Path::new(&file)) {
                Ok(text) => text.trim_end_matches(['\r', '\n']).to_owned(),
                Err(error) => {
                    self.wrong(&in_file, format!("the name of a file that can be read: {error}"));
                    return None;
                }
            },
            (None, Some(variable)) => {
                let value = self.environment.iter().find(|(name, _)| *name == variable).map(|(_, value)| value.clone());
                let Some(value) = value else {
                    self.wrong(&in_environment, "the name of an environment variable that is set");
                    return None;
                };
                value
            }
            (None, None) => return None,
        };
        if text.is_empty() {
            self.mistakes.push(format!("what {in_file} or {in_environment} names must not be empty"));
        }
        Some(Secret::new(text))
    }

    fn text(&mut self, key: &str) -> Option<String> {
        match self.table.remove(key)? {
            Value::String(_, text) if !text.trim().is_empty() => Some(text),
            _ => {
                self.wrong(key, "a text that is not empty");
                None
            }
        }
    }

    fn flag(&mut self, key: &str, default: bool) -> bool {
        match self.table.remove(key) {
            None => default,
            Some(Value::Bool(_, flag)) => flag,
            Some(_) => {
                self.wrong(key, "true or false");
                default
            }
        }
    }

    /// A list of texts, of these if there are any.
    fn list(&mut self, key: &str, legal: &[&str]) -> Option<Vec<String>> {
        let items = match self.table.remove(key)? {
            Value::Array(_, items) => items.into_iter().map(Value::into_string).collect::<Option<Vec<_>>>(),
            _ => None,
        };
        let items = items.filter(|items| legal.is_empty() || items.iter().all(|item| legal.contains(&&**item)));
        if items.is_none() {
            let of = if legal.is_empty() { String::new() } else { format!(", each one of {}", legal.join(", ")) };
            self.wrong(key, format!("a list of texts{of}"));
        }
        items
    }

    fn number(&mut self, key: &str, default: u64, range: &RangeInclusive<u64>, unit: &str) -> u64 {
        let Some(value) = self.table.remove(key) else { return default };
        // TOML's numbers are signed, JSON's are not unless they have to be.
        let number = value
            .to_i128()
            .and_then(|number| u64::try_from(number).ok())
            .or_else(|| value.to_u128().and_then(|number| u64::try_from(number).ok()));
        number.filter(|number| range.contains(number)).unwrap_or_else(|| {
            self.wrong(key, format!("a whole number from {} to {} ({unit})", range.start(), range.end()));
            default
        })
    }

    fn wrong(&mut self, key: &str, legal: impl Display) {
        self.mistakes.push(format!("{key} must be {legal}"));
    }
}

/// Safe as a label.
fn is_name(name: &str) -> bool {
    (1..=MAX_NAME).contains(&name.len())
        && !name.starts_with('.')
        && name.chars().all(|one| one.is_ascii_alphanumeric() || "._-".contains(one))
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

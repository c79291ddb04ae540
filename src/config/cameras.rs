use std::ops::RangeInclusive;
use std::time::Duration;

use figment::value::{Dict, Value};
use url::Url;

use super::is_model;
use super::reader::Reader;
use super::tables::{self, List, Table};
use crate::secret::Secret;
use crate::session::options;

/// What a table may have, in the order of the documentation.
const KEYS: [&str; 11] = [
    "name",
    "url",
    "username",
    "password_file",
    "password_env",
    "transport",
    "model",
    "options",
    "timeout_ms",
    "retry_min_ms",
    "retry_max_ms",
];
/// What there are.
const LIST: List = List {
    key: "cameras",
    legal: "a list of tables with name, url and more (JSON in the environment)",
    one: "camera",
    most: 1024,
};
/// Legal waits before another try, in milliseconds.
const RETRY_MS: RangeInclusive<u64> = 100..=3_600_000;

/// `[[cameras]]`: a camera whose video the server pulls by itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Camera {
    /// Its name, which is the id of its session, too: up to 64 letters, digits, `.`, `_` and `-`, unlike any other's.
    pub name: String,
    /// Where it is, `rtsp://HOST[:PORT]/PATH`. It is hidden, since some cameras want their password in the path.
    pub url: Secret,
    /// User name and password, by default none.
    pub credentials: Option<(String, Secret)>,
    /// Whether packets come as datagrams, which some networks lose, instead of over the connection; default false.
    pub is_over_udp: bool,
    /// Options of its session, with its model among them, as JSON; by default no video is returned until somebody watches.
    pub options: serde_json::Value,
    /// How long it may take to answer, and how long it may send nothing then; default 10 s. With more, a camera that
    /// hangs is noticed later.
    pub timeout: Duration,
    /// The shortest wait before another try; default 1 s. It doubles with each.
    pub shortest_wait: Duration,
    /// The longest one; default 60 s. More spares cameras that are away, and finds them later when they are back.
    pub longest_wait: Duration,
}

impl Camera {
    pub(super) fn read_all(from: &mut Reader, environment: &[(String, String)]) -> Vec<Self> {
        tables::read_all(from, environment, &LIST, Self::read)
    }

    fn read(table: &mut Table, name: String) -> Self {
        let url = url(table);
        let credentials = table.login();
        let is_over_udp = match table.text("transport").as_deref() {
            None | Some("tcp") => false,
            Some("udp") => true,
            Some(_) => {
                table.wrong("transport", "\"tcp\" or \"udp\"");
                false
            }
        };
        let options = session_options(table);
        let timeout = Duration::from_millis(table.number("timeout_ms", 10_000, &(1_000..=600_000), "milliseconds"));
        let [shortest_wait, longest_wait] = table.waits(&RETRY_MS).map(Duration::from_millis);
        table.unknown(&format!("there are {}", KEYS.join(", ")));
        Self { name, url, credentials, is_over_udp, options, timeout, shortest_wait, longest_wait }
    }
}

fn url(table: &mut Table) -> Secret {
    let text = table.text("url").unwrap_or_default();
    match Url::parse(&text) {
        Ok(url) if url.scheme() == "rtsps" => {
            table.mistake(
                "url must begin with rtsp://: RTSP over TLS is not built in; reach the camera over a VPN or a TLS \
                 tunnel of its network instead",
            );
        }
        Ok(url) if !url.username().is_empty() || url.password().is_some() => {
            table.mistake(
                "url must hold no user name and no password: give them as username, and password_file or password_env",
            );
        }
        Ok(url) if url.scheme() == "rtsp" && url.host().is_some() => {}
        _ => table.wrong("url", "such as \"rtsp://192.0.2.10/stream\""),
    }
    Secret::new(text)
}

/// The options of the session, with the model among them.
fn session_options(table: &mut Table) -> serde_json::Value {
    let model = table.text("model");
    let mut options = match table.take("options") {
        None => Dict::new(),
        Some(Value::Dict(_, options)) => options,
        Some(_) => {
            table.wrong("options", "a table");
            Dict::new()
        }
    };
    if let Some(model) = model {
        if !is_model(&model) {
            table.wrong("model", "a model as NAME or NAME@VERSION, or a route");
        }
        if options.insert("model".to_owned(), Value::from(model)).is_some() {
            table.mistake("options.model must be left out where model is given".to_owned());
        }
    }
    options.entry("return".to_owned()).or_insert_with(|| Value::from("results"));
    // What was read from TOML or JSON is JSON.
    let options = serde_json::to_value(Value::from(options)).unwrap_or_default();
    if let Err(refusal) = options::check(options.clone()) {
        table.mistake(format!("options: {}", refusal.message));
    }
    options
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::{Config, File, Sources};

    fn sources(toml: &str) -> Sources {
        let environment = vec![("ENTRANCE_PASSWORD".to_owned(), "hunter2".to_owned())];
        Sources { file: File::Text("test.toml".to_owned(), toml.to_owned()), environment, ..Sources::default() }
    }

    #[test]
    fn cameras_are_tables_in_a_file_and_json_in_the_environment() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        std::fs::write(&path, " a b \r\n").unwrap();
        let toml = format!(
            "[[cameras]]\nname = \"entrance\"\nurl = \"rtsp://192.0.2.10/s?x=1\"\nusername = \"u\"\n\
             password_env = \"ENTRANCE_PASSWORD\"\ntransport = \"udp\"\nmodel = \"ppe-nano\"\ntimeout_ms = 1000\n\
             retry_min_ms = 200\nretry_max_ms = 300\noptions = {{ budget_ms = 100, return = \"exact\" }}\n\
             [[cameras]]\nname = \"yard-2\"\nurl = \"rtsp://[2001:db8::1]:8554/\"\nusername = \"u\"\n\
             password_file = {path:?}\n"
        );
        let cameras = Config::load(&sources(&toml)).unwrap().cameras;
        let millis = Duration::from_millis;
        let expected = Camera {
            name: "entrance".to_owned(),
            url: Secret::new("rtsp://192.0.2.10/s?x=1".to_owned()),
            credentials: Some(("u".to_owned(), Secret::new("hunter2".to_owned()))),
            is_over_udp: true,
            options: json!({"model": "ppe-nano", "budget_ms": 100, "return": "exact"}),
            timeout: millis(1000),
            shortest_wait: millis(200),
            longest_wait: millis(300),
        };
        assert_eq!(cameras[0], expected);
        assert_eq!(cameras[1].credentials.as_ref().unwrap().1.expose(), " a b ");
        assert_eq!((cameras[1].is_over_udp, &cameras[1].options), (false, &json!({"return": "results"})));
        assert_eq!((cameras[1].shortest_wait, cameras[1].longest_wait), (millis(1000), millis(60_000)));
        let shown = format!("{cameras:?}");
        assert!(!shown.contains("hunter2") && !shown.contains("192.0.2.10"), "{shown}");

        let mut others = sources(&toml);
        let json = r#"[{"name": "only", "url": "rtsp://c", "timeout_ms": 5000, "options": {"budget_ms": 50}}]"#;
        others.environment.push(("SACCADE_CAMERAS".to_owned(), json.to_owned()));
        let cameras = Config::load(&others).unwrap().cameras;
        assert_eq!((cameras.len(), cameras[0].name.as_str(), cameras[0].timeout), (1, "only", millis(5000)));
        others.environment.push(("SACCADE_CAMERAS".to_owned(), String::new()));
        assert_eq!(Config::load(&others).unwrap().cameras, []);
    }

    #[test]
    fn all_mistakes_of_all_cameras_come_at_once_and_tell_no_secret() {
        let toml = concat!(
            "[[cameras]]\nname = \"a\"\nurl = \"rtsp://u:hunter2@c/s\"\npassword = \"hunter2\"\n",
            "[[cameras]]\nname = \"a\"\nurl = \"rtsps://c/s\"\nusername = \"u\"\ntransport = \"tls\"\n",
            "[[cameras]]\nname = \"../x\"\nurl = \"http://c/s\"\npassword_env = \"NOWHERE\"\ntimeout_ms = 5\ncolour = 1\n",
            "[[cameras]]\nname = \"d\"\nurl = \"rtsp://c\"\nusername = \"u\"\npassword_file = \"/none\"\nmodel = \"m\"\n",
            "retry_min_ms = 2000\nretry_max_ms = 1000\noptions = { model = \"n\", budget_ms = 5, boxes = true }\n",
            "[[cameras]]\noptions = 5\nmodel = \"a b\"\nusername = \"u\"\npassword_env = \"A\"\npassword_file = \"/b\"\n",
        );
        let shown = Config::load(&sources(toml)).unwrap_err().to_string();
        for expected in [
            "number 1: url must hold no user name and no password: give them as username, and password_file",
            "number 1: password must not be in the configuration: put it into a file",
            "number 2: name must be unlike that of every other camera",
            "number 2: url must begin with rtsp://: RTSP over TLS is not built in",
            "number 2: username needs password_file or password_env beside it",
            "number 2: transport must be \"tcp\" or \"udp\"",
            "number 3: name must be up to 64 letters",
            "number 3: url must be such as \"rtsp://192.0.2.10/stream\"",
            "number 3: password_env must be the name of an environment variable that is set",
            "number 3: a password needs username beside it",
            "number 3: timeout_ms must be a whole number from 1000 to 600000 (milliseconds)",
            "number 3: unknown key colour; there are name, url, username",
            "number 4: password_file must be the name of a file that can be read",
            "number 4: retry_max_ms must be at least retry_min_ms",
            "number 4: options.model must be left out where model is given",
            "number 4: options: `boxes` is not an option",
            "number 5: name must be up to 64 letters",
            "number 5: url must be such as",
            "number 5: password_env must be left out where password_file is given",
            "number 5: options must be a table",
            "number 5: model must be a model as NAME",
        ] {
            assert!(shown.contains(expected), "{expected:?} is not in:\n{shown}");
        }
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(shown.contains("cameras = (hidden) (from test.toml)"), "{shown}");
        let shown = Config::load(&sources("cameras = [\"rtsp://u:hunter2@c\"]\n")).unwrap_err().to_string();
        assert!(shown.contains("a list of tables") && !shown.contains("hunter2"), "{shown}");
    }
}

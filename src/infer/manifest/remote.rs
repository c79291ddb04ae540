use std::time::Duration;

use super::table::Table;
use crate::kserve::client::MAX_ENDPOINTS;
use crate::route;

/// What the names of variables that have tokens begin with: a manifest names none but those that were set for this.
const TOKEN_ENV: &str = "MODEL_TOKEN_";

/// Where a model runs that other servers run (`[remote]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// `http://HOST:PORT` or `https://HOST:PORT` of each endpoint's gRPC.
    pub urls: Vec<String>,
    /// The model's name there; none: the same.
    pub model: Option<String>,
    /// Its version there; none: the newest.
    pub version: Option<String>,
    /// How long a request may take at most; default 1 s. A frame's deadline may end it sooner.
    pub timeout: Duration,
    /// PEM file beside the manifest with the certificates that those of the endpoints are signed with; none: the system's.
    pub ca_file: Option<String>,
    /// Variable of the environment that has the token for the endpoints.
    pub token_env: Option<String>,
}

impl Remote {
    pub(super) fn read(mut table: Table<'_>) -> Option<Self> {
        if !table.has("urls") {
            table.mistake("urls", "is missing: a list of the endpoints' gRPC, such as [\"http://10.0.0.7:8081\"]");
        }
        let urls = table.strings("urls");
        if urls.as_ref().is_some_and(|urls| urls.is_empty() || urls.len() > MAX_ENDPOINTS) {
            table.mistake("urls", format!("1 to {MAX_ENDPOINTS} of them are needed"));
        }
        for url in urls.iter().flatten().filter(|url| !is_endpoint(url)) {
            table.mistake("urls", format!("\"{url}\" is not legal: http://HOST:PORT or https://HOST:PORT is needed"));
        }
        let model = table.string("model");
        let version = table.string("version");
        for (key, name) in [("model", &model), ("version", &version)] {
            if let Some(name) = name.as_ref().filter(|name| !route::is_name(name)) {
                table.mistake(key, format!("\"{name}\" is not legal: {}", route::LEGAL_NAME));
            }
        }
        table.choice("protocol", &[("grpc", ())]);
        let timeout = Duration::from_millis(table.integer("timeout_ms", 1..=25_000).unwrap_or(1000).into());
        let ca_file = table.string("ca_file");
        if let Some(file) = ca_file.as_ref().filter(|file| file.contains(['/', '\\']) || file.starts_with('.')) {
            let problem = format!("\"{file}\" is not legal: the name of a file beside the manifest is needed");
            table.mistake("ca_file", problem);
        }
        let token_env = table.string("token_env");
        if let Some(name) = &token_env {
            if !name.starts_with(TOKEN_ENV) {
                let problem =
                    format!("\"{name}\" is not legal: a variable whose name begins with {TOKEN_ENV} is needed");
                table.mistake("token_env", problem);
            }
            for url in urls.iter().flatten().filter(|url| is_in_the_open(url)) {
                table.mistake(
                    "urls",
                    format!("\"{url}\" would be sent the token in the open: https is needed for that"),
                );
            }
        }
        table.finish();
        Some(Self { urls: urls?, model, version, timeout, ca_file, token_env })
    }
}

/// Scheme, host and port.
fn is_endpoint(url: &str) -> bool {
    let Ok(parsed) = url::Url::parse(url) else { return false };
    let bare = matches!(parsed.path(), "" | "/") && parsed.query().is_none() && parsed.fragment().is_none();
    let named = parsed.username().is_empty() && parsed.password().is_none();
    matches!(parsed.scheme(), "http" | "https") && parsed.host_str().is_some() && bare && named
}

/// Whether others may read what is sent to an endpoint.
fn is_in_the_open(url: &str) -> bool {
    let Ok(parsed) = url::Url::parse(url) else { return false };
    let is_here = match parsed.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    parsed.scheme() == "http" && !is_here
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;
    use crate::infer::manifest::{BackendChoice, Manifest};

    const START: &str = "name = 'a'\nversion = '1'\nlicence = 'MIT'\n[input]\nsize = [64, 32]\n[output]\n\
                         decoder = 'yunet'\n[classes]\nnames = ['face']\n";

    fn parse(rest: &str) -> Result<Manifest, String> {
        Manifest::parse(&format!("{START}{rest}"), |_| unreachable!()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_model_may_run_elsewhere() {
        let manifest = parse(
            "[run]\nbackend = 'kserve'\n[remote]\nurls = ['https://a:1', 'http://[::1]:2']\nmodel = 'b'\n\
             version = '2'\nprotocol = 'grpc'\ntimeout_ms = 250\nca_file = 'ca.pem'\n\
             token_env = 'MODEL_TOKEN_X'\n",
        )
        .unwrap();
        assert_eq!(manifest.run.backend, BackendChoice::KServe);
        let remote = manifest.remote.unwrap();
        assert_eq!(remote.urls, ["https://a:1", "http://[::1]:2"]);
        assert_eq!((remote.model.as_deref(), remote.version.as_deref()), (Some("b"), Some("2")));
        assert_eq!((remote.timeout, remote.token_env.as_deref()), (Duration::from_millis(250), Some("MODEL_TOKEN_X")));
        assert_eq!(remote.ca_file.as_deref(), Some("ca.pem"));
        assert_eq!(parse("").unwrap().remote, None);
    }

    #[test]
    fn mistakes_name_their_keys() {
        let remote = |rest: &str| parse(&format!("[run]\nbackend = 'kserve'\n[remote]\n{rest}\n")).unwrap_err();
        for (rest, says) in [
            ("", "`remote.urls`: is missing"),
            ("urls = []", "`remote.urls`"),
            ("urls = ['a:1']", "http://HOST:PORT"),
            ("urls = ['http://u:p@a:1']", "http://HOST:PORT"),
            ("urls = ['http://a:1/v2']", "http://HOST:PORT"),
            ("urls = ['http://a:1']\nprotocol = 'ftp'", "`remote.protocol`"),
            ("urls = ['http://a:1']\ntimeout_ms = 0", "`remote.timeout_ms`"),
            ("urls = ['http://a:1']\nmodel = '../x'", "`remote.model`"),
            ("urls = ['https://a:1']\ntoken_env = 'HOME'", "begins with MODEL_TOKEN_"),
            ("urls = ['https://a:1', 'http://a:1']\ntoken_env = 'MODEL_TOKEN_A'", "in the open"),
            ("urls = ['https://a:1']\ntoken_file = '/etc/passwd'", "`remote.token_file`: unknown key"),
            ("urls = ['https://a:1']\nca_file = '/etc/passwd'", "`remote.ca_file`"),
            ("urls = ['https://a:1']\nca_file = '..'", "`remote.ca_file`"),
            ("urls = ['http://a:1']\ntoken = 'A'", "`remote.token`: unknown key"),
        ] {
            let found = remote(rest);
            assert!(found.contains(says), "{rest}: {found}");
        }
        assert!(parse("[run]\nbackend = 'kserve'\n").unwrap_err().contains("[remote]"));
        assert!(parse("[remote]\nurls = ['http://a:1']\n").unwrap_err().contains("run.backend"));
    }
}

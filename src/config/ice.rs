use figment::value::{Dict, Value};

use super::Secret;
use super::reader::Reader;

/// A STUN or TURN server that clients are told of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IceServer {
    /// `stun:`, `stuns:`, `turn:` or `turns:` URLs (RFC 7064, RFC 7065).
    pub urls: Vec<String>,
    /// TURN user name.
    pub username: Option<String>,
    /// TURN password.
    pub credential: Option<Secret>,
}

impl IceServer {
    pub(super) fn read_all(from: &mut Reader) -> Vec<Self> {
        let tables = from.traced(
            "ice_servers",
            "a list of tables with urls, username and credential (JSON in the environment)",
            true,
            |raw| raw.tables(),
        );
        let Some((tables, given)) = tables else { return Vec::new() };
        let mut servers = Vec::new();
        for (index, table) in tables.into_iter().enumerate() {
            match Self::parse(table) {
                Ok(server) => servers.push(server),
                Err(legal) => from.mistake(&given, format!("number {}: {legal}", index + 1)),
            }
        }
        servers
    }

    fn parse(mut table: Dict) -> Result<Self, String> {
        let urls = match table.remove("urls") {
            Some(Value::String(_, url)) => vec![url],
            Some(Value::Array(_, urls)) => urls.into_iter().filter_map(Value::into_string).collect(),
            _ => Vec::new(),
        };
        let scheme = |schemes: &[&str], url: &String| schemes.iter().any(|scheme| url.starts_with(scheme));
        if urls.is_empty() || !urls.iter().all(|url| scheme(&["stun:", "stuns:", "turn:", "turns:"], url)) {
            return Err("urls must be one or more of stun:HOST, stuns:HOST, turn:HOST, turns:HOST".to_owned());
        }
        let mut text = |key: &str| match table.remove(key) {
            None => Ok(None),
            Some(Value::String(_, text)) => Ok(Some(text)),
            Some(_) => Err(format!("{key} must be a text")),
        };
        let (username, credential) = (text("username")?, text("credential")?.map(Secret::new));
        if urls.iter().any(|url| scheme(&["turn:", "turns:"], url)) && (username.is_none() || credential.is_none()) {
            return Err("a TURN server needs username and credential".to_owned());
        }
        match table.keys().next() {
            Some(key) => Err(format!("unknown key {key}; there are urls, username, credential")),
            None => Ok(Self { urls, username, credential }),
        }
    }
}

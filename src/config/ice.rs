use std::time::Duration;

use figment::value::{Dict, Value};

use super::Secret;
use super::reader::Reader;
use crate::ice::{Access, Server, Url};

/// Seconds that credentials made from a shared secret are good for.
const DEFAULT_TTL_S: u64 = 3600;
/// Bounds of `ttl_s`: connecting takes a while, and what is handed out cannot be taken back.
const TTL_S: std::ops::RangeInclusive<u64> = 60..=86_400;
/// What a table may have.
const KEYS: [&str; 6] = ["urls", "username", "credential", "secret", "secret_file", "ttl_s"];

/// `ice_servers`: STUN and TURN servers that clients are told of.
pub(super) fn read(from: &mut Reader) -> Vec<Server> {
    let tables = from.traced(
        "ice_servers",
        "a list of tables with urls, and for TURN username and credential, secret or secret_file (JSON in the environment)",
        true,
        |raw| raw.tables(),
    );
    let Some((tables, given)) = tables else { return Vec::new() };
    let mut servers = Vec::new();
    for (index, table) in tables.into_iter().enumerate() {
        let mut wrong = Vec::new();
        let server = parse(table, &mut wrong);
        servers.extend(server.filter(|_| wrong.is_empty()));
        for legal in wrong {
            from.mistake(&given, format!("number {}: {legal}", index + 1));
        }
    }
    servers
}

/// Everything wrong in one table goes to `wrong`.
fn parse(mut table: Dict, wrong: &mut Vec<String>) -> Option<Server> {
    let urls = urls(table.remove("urls"), wrong);
    let mut text = |key: &str| match table.remove(key) {
        None => None,
        Some(Value::String(_, text)) if !text.trim().is_empty() => Some(text),
        Some(_) => {
            wrong.push(format!("{key} must be a text that is not empty"));
            None
        }
    };
    let (username, credential) = (text("username"), text("credential").map(Secret::new));
    let (secret, file) = (text("secret"), text("secret_file"));
    let ttl = table.remove("ttl_s");
    if let Some(key) = table.keys().find(|key| !KEYS.contains(&key.as_str())) {
        wrong.push(format!("unknown key {key}; there are {}", KEYS.join(", ")));
    }
    let (is_fixed, is_signed) = (username.is_some() || credential.is_some(), secret.is_some() || file.is_some());
    if is_fixed && is_signed {
        wrong.push("leave out either username and credential, or secret and secret_file".to_owned());
    }
    if secret.is_some() && file.is_some() {
        wrong.push("leave out either secret or secret_file".to_owned());
    }
    if ttl.is_some() && !is_signed {
        wrong.push("ttl_s is for credentials that are made from secret or secret_file".to_owned());
    }
    let ttl = ttl.map_or(Some(DEFAULT_TTL_S), |ttl| {
        // Numbers of a file are signed, those of JSON are not.
        let seconds = ttl.to_u128().or_else(|| ttl.to_i128()?.try_into().ok());
        let seconds = seconds.and_then(|ttl| u64::try_from(ttl).ok()).filter(|ttl| TTL_S.contains(ttl));
        if seconds.is_none() {
            wrong.push(format!("ttl_s must be a whole number from {} to {} (seconds)", TTL_S.start(), TTL_S.end()));
        }
        seconds
    });
    if is_signed && urls.iter().any(|url| !url.scheme().relays()) {
        wrong
            .push("a shared secret is for TURN servers: list stun: and stuns: URLs in a table of their own".to_owned());
    }
    // Read last, so that the other mistakes do not depend on it.
    let secret = secret.or_else(|| read_secret(&file?, wrong)).map(Secret::new);
    let access = match (secret, username, credential) {
        (Some(secret), ..) => Access::Signed { secret, ttl: Duration::from_secs(ttl?) },
        (None, Some(username), Some(credential)) => Access::Fixed { username, credential },
        (None, username, credential) => {
            if username.is_some() != credential.is_some() {
                wrong.push("username and credential go together".to_owned());
            } else if !is_signed && urls.iter().any(|url| url.scheme().relays()) {
                wrong.push("a TURN server needs username and credential, secret, or secret_file".to_owned());
            }
            Access::Open
        }
    };
    Some(Server { urls, access })
}

fn urls(value: Option<Value>, wrong: &mut Vec<String>) -> Vec<Url> {
    let texts: Option<Vec<String>> = match value {
        Some(Value::String(_, url)) => Some(vec![url]),
        Some(Value::Array(_, urls)) => urls.into_iter().map(Value::into_string).collect(),
        _ => None,
    };
    let Some(texts) = texts.filter(|texts| !texts.is_empty()) else {
        wrong.push("urls must be one or more of stun:HOST, stuns:HOST, turn:HOST, turns:HOST".to_owned());
        return Vec::new();
    };
    let mut urls = Vec::new();
    for text in texts {
        match text.parse() {
            Ok(url) => urls.push(url),
            Err(error) => {
                // What stands before an @ may be a password.
                let shown = text.rsplit_once('@').map_or_else(|| text.clone(), |(_, host)| format!("…@{host}"));
                wrong.push(format!("urls must be such as turn:turn.example:3478, and {shown:?} is not: {error}"));
            }
        }
    }
    urls
}

fn read_secret(path: &str, wrong: &mut Vec<String>) -> Option<String> {
    match std::fs::read_to_string(path) {
        Ok(text) if !text.trim().is_empty() => Some(text.trim().to_owned()),
        Ok(_) => {
            wrong.push(format!("secret_file {path:?} is empty"));
            None
        }
        Err(error) => {
            wrong.push(format!("secret_file {path:?} cannot be read: {error}"));
            None
        }
    }
}

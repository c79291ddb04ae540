use std::path::PathBuf;
use std::time::Duration;

use super::reader::Reader;
use super::{KIB, MIB, Secret};
use crate::history::Target;

/// `[store]`: where history is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// The store; default a file of SQLite in the user's state folder.
    pub place: Place,
    /// How long history is kept; default 90 days. More costs disk: about 300 bytes an event, and about as many for each
    /// session and minute.
    pub retention: Duration,
    /// Folder for what the store has yet to take; default beside the file of SQLite, or in the user's state folder.
    pub spool_dir: Option<PathBuf>,
    /// Bytes that the spool may have; default 64 MiB. When it is full, the oldest is dropped; more outlasts longer
    /// outages of the store.
    pub spool_bytes: u64,
}

/// `store.url`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// `auto`: `saccade/history.db` in the user's state folder.
    Auto,
    /// `off`: nothing is kept.
    Off,
    /// A file or a database.
    At(Target),
}

impl Store {
    pub(super) fn read(from: &mut Reader) -> Self {
        let inline = from.traced("store.password", "a text that is not empty", true, |raw| raw.filled());
        let file = from.traced("store.password_file", "a file's name", false, |raw| raw.filled().map(PathBuf::from));
        let password = match (inline, file) {
            (Some(_), Some((_, given))) => {
                from.mistake(&given, "must be left out where store.password is given");
                None
            }
            (Some((password, given)), None) => Some((password, given)),
            (None, Some((path, given))) => match std::fs::read_to_string(&path) {
                Ok(text) if !text.trim().is_empty() => Some((text.trim().to_owned(), given)),
                Ok(_) => {
                    from.mistake(&given, "must name a file that is not empty");
                    None
                }
                Err(error) => {
                    from.mistake(&given, format!("must name a file that can be read: {error}"));
                    None
                }
            },
            (None, None) => None,
        };
        let url = from.traced("store.url", "\"auto\", \"off\" or a URL", true, |raw| raw.string());
        let place = match url {
            None => Place::Auto,
            Some((url, given)) => match url.trim() {
                "auto" => Place::Auto,
                "off" | "" => Place::Off,
                url => match Target::parse(url, password.as_ref().map(|(password, _)| Secret::new(password.clone()))) {
                    Ok(target) => Place::At(target),
                    Err(legal) => {
                        from.mistake(&given, format!("must be \"auto\", \"off\" or a URL: {legal}"));
                        Place::Off
                    }
                },
            },
        };
        if let Some((_, given)) = &password
            && !matches!(place, Place::At(Target::Postgres { .. }))
        {
            from.mistake(given, "needs a store.url of PostgreSQL beside it");
        }
        Self {
            place,
            retention: Duration::from_secs(86_400 * from.number("store.retention_days", 90, 1..=36_500, " (days)")),
            spool_dir: from.optional("store.spool_dir", "a folder's name", |raw| raw.filled().map(PathBuf::from)),
            spool_bytes: from.number("store.spool_bytes", 64 * MIB, 64 * KIB..=1024 * 1024 * MIB, " (bytes)"),
        }
    }
}

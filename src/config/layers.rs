use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use figment::providers::{Format, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::{Mistake, Mistakes};

/// Prefix of the environment variables that set keys.
const ENV_PREFIX: &str = "SACCADE_";
/// File that is read where no other is named.
pub const DEFAULT_FILE: &str = "saccade.toml";
/// Top-level keys that are no section, so that their environment variable has no `__`.
const TOP_LEVEL: [&str; 3] = ["ice_servers", "cameras", "sinks"];

/// Where configuration comes from, weakest first: defaults, file, environment, flags.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The configuration file.
    pub file: File,
    /// Environment variables, name and value; other than `SACCADE_…` are passed over.
    pub environment: Vec<(String, String)>,
    /// Flags of the command line, in order.
    pub flags: Vec<Flag>,
    /// Allows listening for HTTP on a non-loopback address without authentication.
    pub insecure: bool,
}

/// Which configuration file is read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum File {
    /// None.
    #[default]
    None,
    /// This one if it exists.
    IfThere(PathBuf),
    /// This one; its absence is a mistake.
    Named(PathBuf),
    /// This text, under a name that mistakes show.
    Text(String, String),
}

/// A key that a flag sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flag {
    /// Key with its section, such as `http.listen`.
    pub key: String,
    /// The flag as people type it, such as `--listen`.
    pub name: String,
    /// Its value.
    pub value: String,
}

impl Sources {
    /// The sources of a process: `file` if named, else [`DEFAULT_FILE`] if it is there, and the environment.
    #[must_use]
    pub fn of_process(file: Option<PathBuf>, variables: impl Iterator<Item = (OsString, OsString)>) -> Self {
        let lossy = |text: OsString| text.to_string_lossy().into_owned();
        Self {
            file: file.map_or_else(|| File::IfThere(PathBuf::from(DEFAULT_FILE)), File::Named),
            environment: variables.map(|(name, value)| (lossy(name), lossy(value))).collect(),
            ..Self::default()
        }
    }

    /// Adds a flag.
    pub fn flag(&mut self, key: &str, name: &str, value: impl Into<String>) {
        self.flags.push(Flag { key: key.to_owned(), name: name.to_owned(), value: value.into() });
    }
}

/// Merges all sources; what cannot be read at all becomes a mistake and the other sources still count.
pub(super) fn merge(sources: &Sources, mistakes: &mut Mistakes) -> Figment {
    let mut figment = Figment::new();
    match read_file(&sources.file) {
        Ok(Some(layer)) => figment = figment.merge(layer),
        Ok(None) => {}
        Err(mistake) => mistakes.push(mistake),
    }
    for (name, value) in &sources.environment {
        if let Some(key) = key_of_variable(name) {
            figment = figment.merge(Layer::text(name, &key, value));
        }
    }
    for Flag { key, name, value } in &sources.flags {
        figment = figment.merge(Layer::text(name, key, value));
    }
    figment
}

/// `SACCADE_HTTP__PUBLIC_URL` → `http.public_url`. A variable that names neither a section nor a top-level key is
/// somebody else's.
fn key_of_variable(name: &str) -> Option<String> {
    let key = name.strip_prefix(ENV_PREFIX)?.to_ascii_lowercase();
    match key.split_once("__") {
        Some((section, key)) => Some(format!("{section}.{key}")),
        None => TOP_LEVEL.contains(&key.as_str()).then_some(key),
    }
}

fn read_file(file: &File) -> Result<Option<Layer>, Mistake> {
    let read = |path: &Path| {
        std::fs::read_to_string(path).map_err(|error| (error.kind(), Mistake::of_file(path, &error.to_string())))
    };
    let (name, text) = match file {
        File::None => return Ok(None),
        File::Text(name, text) => (name.clone(), text.clone()),
        File::Named(path) => (path.display().to_string(), read(path).map_err(|(_, mistake)| mistake)?),
        File::IfThere(path) => match read(path) {
            Ok(text) => (path.display().to_string(), text),
            Err((io::ErrorKind::NotFound, _)) => return Ok(None),
            Err((_, mistake)) => return Err(mistake),
        },
    };
    match Toml::string(&text).data() {
        Ok(mut profiles) => Ok(Some(Layer {
            origin: name,
            kind: Kind::File,
            dict: profiles.remove(&Profile::Default).unwrap_or_default(),
        })),
        Err(error) => Err(Mistake::of_file(Path::new(&name), &without_source(&error.to_string()))),
    }
}

/// What the parser says in one line, without the excerpts of the file that it shows, for there may be a secret in them. They
/// are lines that begin with a bar, behind the number of the line at most.
fn without_source(said: &str) -> String {
    let excerpt = |line: &&str| line.trim_start_matches(|it: char| it.is_ascii_digit() || it == ' ').starts_with('|');
    let told: Vec<&str> =
        said.lines().filter(|line| !excerpt(line)).map(str::trim).filter(|it| !it.is_empty()).collect();
    told.join(": ")
}

/// What kind of source a value came from decides how it is read: text is parsed as the key's type wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    Text,
}

const TEXT: &str = "text";

/// Whether values with this metadata are unparsed text.
pub(super) fn is_text(metadata: &Metadata) -> bool {
    metadata.source.as_ref().and_then(|source| source.custom()) == Some(TEXT)
}

struct Layer {
    origin: String,
    kind: Kind,
    dict: Dict,
}

impl Layer {
    fn text(origin: &str, key: &str, value: &str) -> Self {
        let mut dict = Dict::new();
        match key.split_once('.') {
            Some((section, key)) => {
                dict.insert(section.to_owned(), Value::from(Dict::from([(key.to_owned(), Value::from(value))])));
            }
            None => {
                dict.insert(key.to_owned(), Value::from(value));
            }
        }
        Self { origin: origin.to_owned(), kind: Kind::Text, dict }
    }
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        let metadata = Metadata::named(self.origin.clone());
        match self.kind {
            Kind::File => metadata,
            Kind::Text => metadata.source(TEXT.to_owned()),
        }
    }

    fn data(&self) -> figment::Result<Map<Profile, Dict>> {
        Ok(Profile::Default.collect(self.dict.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_name_keys() {
        for (variable, key) in [
            ("SACCADE_HTTP__PUBLIC_URL", Some("http.public_url")),
            ("SACCADE_ICE_SERVERS", Some("ice_servers")),
            ("SACCADE_TEST_ASSETS", None),
            ("HTTP__LISTEN", None),
        ] {
            assert_eq!(key_of_variable(variable).as_deref(), key, "{variable}");
        }
    }
}

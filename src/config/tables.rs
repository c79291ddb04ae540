//! Lists of tables, such as `[[cameras]]`: each table is read key by key, and everything that is wrong with all of them is
//! told at once.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::Path;

use figment::value::{Dict, Value};

use super::reader::Reader;
use crate::secret::Secret;

/// Longest name, in bytes.
const MAX_NAME: usize = 64;

/// What a list is called in messages, and how long it may be.
pub(super) struct List {
    /// Its key.
    pub(super) key: &'static str,
    /// What is legal, in words.
    pub(super) legal: &'static str,
    /// One of its tables.
    pub(super) one: &'static str,
    pub(super) most: usize,
}

/// Reads a list. Of each table `name` is read first, which is to be unlike all others; `read` reads the rest, and what it
/// leaves in the table is unknown.
pub(super) fn read_all<T>(
    from: &mut Reader,
    environment: &[(String, String)],
    list: &List,
    mut read: impl FnMut(&mut Table, String) -> T,
) -> Vec<T> {
    let tables =
        from.traced(list.key, list.legal, true, |raw| if raw.is_nothing() { Some(Vec::new()) } else { raw.tables() });
    let Some((tables, given)) = tables else { return Vec::new() };
    if tables.len() > list.most {
        from.mistake(&given, format!("must be at most {}", list.most));
    }
    let (mut all, mut names) = (Vec::new(), BTreeSet::new());
    for (index, table) in tables.into_iter().enumerate() {
        let mut table = Table { table, environment, mistakes: Vec::new() };
        let name = table.name();
        let is_other = names.insert(name.clone());
        all.push(read(&mut table, name));
        if !is_other {
            table.mistake(format!("name must be unlike that of every other {}", list.one));
        }
        for mistake in table.mistakes {
            from.mistake(&given, format!("number {}: {mistake}", index + 1));
        }
    }
    all
}

/// One table, while it is read: what is wrong keeps a default beside its mistake.
pub(super) struct Table<'a> {
    table: Dict,
    environment: &'a [(String, String)],
    mistakes: Vec<String>,
}

impl Table<'_> {
    /// Safe in a path and as a label.
    fn name(&mut self) -> String {
        let name = self.text("name").unwrap_or_default();
        let is_name = (1..=MAX_NAME).contains(&name.len())
            && !name.starts_with('.')
            && name.chars().all(|one| one.is_ascii_alphanumeric() || "._-".contains(one));
        if !is_name {
            self.wrong("name", format!("up to {MAX_NAME} letters, digits, '.', '_' and '-', the first no '.'"));
        }
        name
    }

    /// The value of a key, whatever it is.
    pub(super) fn take(&mut self, key: &str) -> Option<Value> {
        self.table.remove(key)
    }

    pub(super) fn text(&mut self, key: &str) -> Option<String> {
        match self.table.remove(key)? {
            Value::String(_, text) if !text.trim().is_empty() => Some(text),
            _ => {
                self.wrong(key, "a text that is not empty");
                None
            }
        }
    }

    pub(super) fn flag(&mut self, key: &str, default: bool) -> bool {
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
    pub(super) fn list(&mut self, key: &str, legal: &[&str]) -> Option<Vec<String>> {
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

    pub(super) fn number(&mut self, key: &str, default: u64, range: &RangeInclusive<u64>, unit: &str) -> u64 {
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

    /// The shortest and the longest wait before another try, in milliseconds.
    pub(super) fn waits(&mut self, legal: &RangeInclusive<u64>) -> [u64; 2] {
        let shortest = self.number("retry_min_ms", 1_000, legal, "milliseconds");
        let longest = self.number("retry_max_ms", 60_000.max(shortest), legal, "milliseconds");
        if shortest > longest {
            self.wrong("retry_max_ms", "at least retry_min_ms");
        }
        [shortest, longest]
    }

    /// `username`, and the password beside it.
    pub(super) fn login(&mut self) -> Option<(String, Secret)> {
        let places = ["password_file", "password_env"].map(|key| self.table.contains_key(key));
        let (username, password) = (self.text("username"), self.secret("password"));
        match (username, password) {
            (Some(username), Some(password)) => return Some((username, password)),
            (Some(_), None) if places == [false; 2] => {
                self.mistake("username needs password_file or password_env beside it");
            }
            (None, _) if places != [false; 2] => self.mistake("a password needs username beside it"),
            _ => {}
        }
        None
    }

    /// What the file `KEY_file` or the environment variable `KEY_env` holds, without the end of its line.
    pub(super) fn secret(&mut self, key: &str) -> Option<Secret> {
        let [in_file, in_environment] = [format!("{key}_file"), format!("{key}_env")];
        if self.table.remove(key).is_some() {
            self.mistake(format!(
                "{key} must not be in the configuration: put it into a file that {in_file} names, or into an environment \
                 variable that {in_environment} names"
            ));
        }
        let text = match (self.text(&in_file), self.text(&in_environment)) {
            (Some(_), Some(_)) => {
                self.mistake(format!("{in_environment} must be left out where {in_file} is given"));
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
            self.mistake(format!("what {in_file} or {in_environment} names must not be empty"));
        }
        Some(Secret::new(text))
    }

    /// What nobody has read; `of` is what there is instead.
    pub(super) fn unknown(&mut self, of: &str) {
        for key in std::mem::take(&mut self.table).into_keys() {
            self.mistake(format!("unknown key {key}; {of}"));
        }
    }

    pub(super) fn mistake(&mut self, mistake: impl Into<String>) {
        self.mistakes.push(mistake.into());
    }

    pub(super) fn wrong(&mut self, key: &str, legal: impl Display) {
        self.mistake(format!("{key} must be {legal}"));
    }
}

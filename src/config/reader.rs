use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use figment::Figment;
use figment::value::{Dict, Empty, Value};

use super::layers::{self, Sources};
use super::{Mistake, Mistakes};

/// Reads typed values out of the merged sources and collects every mistake on the way.
pub(super) struct Reader {
    figment: Figment,
    rest: Dict,
    keys: Vec<&'static str>,
    mistakes: Mistakes,
}

/// A value as some source gave it.
#[derive(Clone)]
pub(super) struct Raw {
    value: Value,
    /// Whether it is text to be parsed as the key's type wants it.
    text: bool,
}

/// Where a value came from, for mistakes found after it was read.
#[derive(Clone)]
pub(super) struct Given {
    key: String,
    value: String,
    origin: Option<String>,
}

impl Reader {
    pub(super) fn new(sources: &Sources) -> Self {
        let mut mistakes = Mistakes::default();
        let figment = layers::merge(sources, &mut mistakes);
        let rest = figment.find_value("").ok().and_then(Value::into_dict).unwrap_or_default();
        Self { figment, rest, keys: Vec::new(), mistakes }
    }

    /// Reads a key; absent or wrong, it keeps its default.
    pub(super) fn read<T>(
        &mut self,
        key: &'static str,
        default: T,
        legal: impl Display,
        parse: impl FnOnce(&Raw) -> Option<T>,
    ) -> T {
        self.optional(key, legal, parse).unwrap_or(default)
    }

    /// Reads a key that has no default.
    pub(super) fn optional<T>(
        &mut self,
        key: &'static str,
        legal: impl Display,
        parse: impl FnOnce(&Raw) -> Option<T>,
    ) -> Option<T> {
        self.keys.push(key);
        let raw = self.take(key)?;
        let parsed = parse(&raw);
        if parsed.is_none() {
            let given = self.given(key, &raw, false);
            self.mistake(&given, format!("must be {legal}"));
        }
        parsed
    }

    /// Reads a key together with where it came from.
    pub(super) fn traced<T>(
        &mut self,
        key: &'static str,
        legal: impl Display,
        hidden: bool,
        parse: impl FnOnce(&Raw) -> Option<T>,
    ) -> Option<(T, Given)> {
        self.keys.push(key);
        let raw = self.take(key)?;
        let given = self.given(key, &raw, hidden);
        let Some(parsed) = parse(&raw) else {
            self.mistake(&given, format!("must be {legal}"));
            return None;
        };
        Some((parsed, given))
    }

    /// A whole number.
    pub(super) fn number<N>(&mut self, key: &'static str, default: N, range: RangeInclusive<N>, unit: &str) -> N
    where
        N: TryFrom<u64> + PartialOrd + Display,
    {
        let legal = format!("a whole number from {} to {}{unit}", range.start(), range.end());
        self.read(key, default, legal, |raw| N::try_from(raw.number()?).ok().filter(|number| range.contains(number)))
    }

    /// A whole number, or `"auto"`, the default, which is none.
    pub(super) fn number_or_auto<N>(&mut self, key: &'static str, range: RangeInclusive<N>, unit: &str) -> Option<N>
    where
        N: TryFrom<u64> + PartialOrd + Display,
    {
        let legal = format!("\"auto\" or a whole number from {} to {}{unit}", range.start(), range.end());
        self.read(key, None, legal, |raw| {
            if raw.string().as_deref() == Some("auto") {
                return Some(None);
            }
            N::try_from(raw.number()?).ok().filter(|number| range.contains(number)).map(Some)
        })
    }

    /// A key that ends in `_ms`.
    pub(super) fn millis(&mut self, key: &'static str, default: u64, range: RangeInclusive<u64>) -> Duration {
        Duration::from_millis(self.number(key, default, range, " (milliseconds)"))
    }

    /// `true` or `false`.
    pub(super) fn flag(&mut self, key: &'static str, default: bool) -> bool {
        self.read(key, default, "true or false", Raw::boolean)
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&mut self, key: &'static str, default: T, choices: &[(&str, T)]) -> T {
        let words: Vec<_> = choices.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        self.read(key, default, words.join(" or "), |raw| {
            let text = raw.string()?;
            choices.iter().find(|(word, _)| *word == text).map(|(_, choice)| *choice)
        })
    }

    /// Takes a section whose keys are names of people's own choice. `keys` are listed as those of its tables.
    pub(super) fn named(&mut self, section: &'static str, keys: &[&'static str]) -> Vec<(String, Raw)> {
        self.keys.extend(keys);
        match self.rest.remove(section) {
            Some(Value::Dict(_, dict)) => dict.into_iter().map(|(name, value)| (name, self.raw(value))).collect(),
            Some(value) => {
                self.unknown(section, &value);
                Vec::new()
            }
            None => Vec::new(),
        }
    }

    /// Adds a mistake about a value that was read.
    pub(super) fn mistake(&mut self, given: &Given, legal: impl Display) {
        self.mistakes.push(Mistake {
            key: given.key.clone(),
            value: Some(given.value.clone()),
            origin: given.origin.clone(),
            legal: legal.to_string(),
        });
    }

    /// What is left over is unknown. Gives back all keys that were asked for.
    pub(super) fn finish(mut self) -> (Vec<&'static str>, Mistakes) {
        for (key, value) in std::mem::take(&mut self.rest) {
            match value {
                Value::Dict(_, dict) if self.is_section(&key) => {
                    for (name, value) in dict {
                        self.unknown(&format!("{key}.{name}"), &value);
                    }
                }
                value => self.unknown(&key, &value),
            }
        }
        (self.keys, self.mistakes)
    }

    fn is_section(&self, section: &str) -> bool {
        self.keys.iter().any(|key| key.split_once('.').is_some_and(|(of, _)| of == section))
    }

    fn unknown(&mut self, key: &str, value: &Value) {
        let section = key.split_once('.').map(|(section, _)| section);
        let legal = match section {
            _ if self.is_section(key) => format!("is a section: [{key}]"),
            Some(section) if self.is_section(section) => {
                let names = self.keys.iter().filter_map(|key| key.split_once('.'));
                let names: Vec<_> = names.filter(|(of, _)| *of == section).map(|(_, name)| name).collect();
                format!("unknown key; [{section}] has {}", names.join(", "))
            }
            _ => {
                let mut sections: BTreeMap<&str, ()> = BTreeMap::new();
                self.keys.iter().for_each(|key| {
                    sections.insert(key.split_once('.').map_or(*key, |(section, _)| section), ());
                });
                format!("unknown key; there are {}", sections.into_keys().collect::<Vec<_>>().join(", "))
            }
        };
        let origin = self.origin(value);
        self.mistakes.push(Mistake { key: key.to_owned(), value: None, origin, legal });
    }

    fn take(&mut self, key: &str) -> Option<Raw> {
        let value = match key.split_once('.') {
            None => self.rest.remove(key)?,
            Some((section, name)) => match self.rest.get_mut(section)? {
                Value::Dict(_, dict) => dict.remove(name)?,
                _ => return None,
            },
        };
        Some(self.raw(value))
    }

    fn raw(&self, value: Value) -> Raw {
        let text = self.figment.get_metadata(value.tag()).is_some_and(layers::is_text);
        Raw { value, text }
    }

    /// Where a value came from.
    pub(super) fn given(&self, key: &str, raw: &Raw, hidden: bool) -> Given {
        let value = if hidden { "(hidden)".to_owned() } else { raw.show() };
        Given { key: key.to_owned(), value, origin: self.origin(&raw.value) }
    }

    fn origin(&self, value: &Value) -> Option<String> {
        // An array or a table carries no tag of its own source, its items do.
        let mut innermost = value;
        while let Some(item) = match innermost {
            Value::Array(_, items) => items.first(),
            Value::Dict(_, dict) => dict.values().next(),
            _ => None,
        } {
            innermost = item;
        }
        self.figment.get_metadata(innermost.tag()).map(|metadata| metadata.name.clone().into_owned())
    }
}

impl Given {
    /// The same place with a part of the value.
    pub(super) fn showing(self, value: String) -> Self {
        Self { value, ..self }
    }
}

impl Raw {
    /// The text; a character counts as one.
    pub(super) fn string(&self) -> Option<String> {
        match &self.value {
            Value::String(_, text) => Some(text.clone()),
            Value::Char(_, one) => Some(one.to_string()),
            _ => None,
        }
    }

    /// Text that is not empty.
    pub(super) fn filled(&self) -> Option<String> {
        self.string().filter(|text| !text.trim().is_empty())
    }

    pub(super) fn number(&self) -> Option<u64> {
        if self.text {
            return self.string()?.trim().parse().ok();
        }
        match &self.value {
            Value::Num(..) => self.value.to_i128().and_then(|number| u64::try_from(number).ok()),
            _ => None,
        }
    }

    /// A number with or without a fraction.
    pub(super) fn float(&self) -> Option<f64> {
        if self.text {
            return self.string()?.trim().parse().ok();
        }
        match &self.value {
            Value::Num(_, number) => number.to_f64().or_else(|| self.number().map(|number| number as f64)),
            _ => None,
        }
    }

    pub(super) fn boolean(&self) -> Option<bool> {
        if self.text {
            return self.string()?.trim().parse().ok();
        }
        match self.value {
            Value::Bool(_, value) => Some(value),
            _ => None,
        }
    }

    /// An array; as text: items between commas.
    pub(super) fn strings(&self) -> Option<Vec<String>> {
        if self.text {
            let text = self.string()?;
            return Some(text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect());
        }
        self.value.as_array()?.iter().map(|item| item.as_str().map(str::to_owned)).collect()
    }

    /// An array whose items all parse.
    pub(super) fn list<T>(&self, parse: impl Fn(&str) -> Option<T>) -> Option<Vec<T>> {
        self.strings()?.iter().map(|item| parse(item)).collect()
    }

    /// An array of tables; as text: JSON.
    pub(super) fn tables(&self) -> Option<Vec<Dict>> {
        self.structure()?.into_array()?.into_iter().map(Value::into_dict).collect()
    }

    /// A table; as text: JSON.
    pub(super) fn table(&self) -> Option<Dict> {
        self.structure()?.into_dict()
    }

    fn structure(&self) -> Option<Value> {
        if !self.text {
            return Some(self.value.clone());
        }
        let json: serde_json::Value = serde_json::from_str(&self.string()?).ok()?;
        Value::serialize(json).ok()
    }

    /// Whether it says nothing: an empty text or list.
    pub(super) fn is_nothing(&self) -> bool {
        match &self.value {
            Value::String(_, text) => text.is_empty(),
            Value::Array(_, items) => items.is_empty(),
            Value::Empty(..) => true,
            _ => false,
        }
    }

    fn show(&self) -> String {
        show(&self.value)
    }
}

/// A value as people write it.
pub(super) fn show(value: &Value) -> String {
    match value {
        Value::String(_, text) => format!("{text:?}"),
        Value::Char(_, one) => format!("\"{one}\""),
        Value::Bool(_, value) => value.to_string(),
        Value::Num(_, number) => match (number.to_i128(), number.to_u128(), number.to_f64()) {
            (Some(number), ..) => number.to_string(),
            (_, Some(number), _) => number.to_string(),
            (.., Some(number)) => number.to_string(),
            _ => "a number".to_owned(),
        },
        Value::Empty(_, Empty::None | Empty::Unit) => "nothing".to_owned(),
        Value::Array(_, items) => format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(", ")),
        Value::Dict(_, dict) => {
            let items = dict.iter().map(|(key, value)| format!("{key} = {}", show(value)));
            format!("{{{}}}", items.collect::<Vec<_>>().join(", "))
        }
    }
}

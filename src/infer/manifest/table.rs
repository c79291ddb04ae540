use std::cell::RefCell;
use std::fmt::Display;
use std::ops::RangeInclusive;

use toml::Value;

use crate::infer::error::Mistake;

/// Mistakes found so far, shared by all tables of one manifest.
#[derive(Debug, Default)]
pub(super) struct Mistakes(RefCell<Vec<Mistake>>);

impl Mistakes {
    pub(super) fn add(&self, key: impl Into<String>, problem: impl Into<String>) {
        self.0.borrow_mut().push(Mistake { key: key.into(), problem: problem.into() });
    }

    pub(super) fn into_inner(self) -> Vec<Mistake> {
        self.0.into_inner()
    }
}

/// One table of a manifest: values are taken out key by key, and whatever is left in the end is unknown.
///
/// A getter returns `None` both for an absent key and for a bad value; the latter is noted as a mistake.
#[derive(Debug)]
pub(super) struct Table<'m> {
    path: String,
    left: toml::Table,
    asked: Vec<&'static str>,
    mistakes: &'m Mistakes,
}

impl<'m> Table<'m> {
    pub(super) fn root(table: toml::Table, mistakes: &'m Mistakes) -> Self {
        Self { path: String::new(), left: table, asked: Vec::new(), mistakes }
    }

    fn key(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    pub(super) fn mistake(&self, key: &str, problem: impl Into<String>) {
        self.mistakes.add(self.key(key), problem);
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.left.contains_key(key)
    }

    fn take(&mut self, key: &'static str) -> Option<Value> {
        self.asked.push(key);
        self.left.remove(key)
    }

    fn wrong<T>(&self, key: &str, found: &Value, legal: impl Display) -> Option<T> {
        self.mistake(key, format!("{found} is not legal: {legal}"));
        None
    }

    /// The sub-table; an empty one when it is absent.
    pub(super) fn table(&mut self, key: &'static str) -> Self {
        self.optional_table(key).unwrap_or_else(|| self.child(key, toml::Table::new()))
    }

    pub(super) fn optional_table(&mut self, key: &'static str) -> Option<Self> {
        match self.take(key)? {
            Value::Table(table) => Some(self.child(key, table)),
            other => self.wrong(key, &other, "a table is needed"),
        }
    }

    fn child(&self, key: &str, table: toml::Table) -> Self {
        Self { path: self.key(key), left: table, asked: Vec::new(), mistakes: self.mistakes }
    }

    pub(super) fn string(&mut self, key: &'static str) -> Option<String> {
        match self.take(key)? {
            Value::String(text) if !text.is_empty() => Some(text),
            other => self.wrong(key, &other, "a string that is not empty is needed"),
        }
    }

    pub(super) fn required_string(&mut self, key: &'static str) -> Option<String> {
        let missing = !self.has(key);
        let value = self.string(key);
        if missing {
            self.mistake(key, "is missing: a string is needed");
        }
        value
    }

    /// A string that stands for one of `choices`.
    pub(super) fn choice<T: Copy>(&mut self, key: &'static str, choices: &[(&'static str, T)]) -> Option<T> {
        let value = self.take(key)?;
        let found = value.as_str().and_then(|text| choices.iter().find(|(name, _)| *name == text));
        if let Some((_, choice)) = found {
            return Some(*choice);
        }
        self.wrong(key, &value, format!("one of {}", names(choices)))
    }

    pub(super) fn integer(&mut self, key: &'static str, range: RangeInclusive<u32>) -> Option<u32> {
        let value = self.take(key)?;
        integer_in(&value, &range).or_else(|| self.wrong(key, &value, integer_range(&range)))
    }

    pub(super) fn integers(
        &mut self,
        key: &'static str,
        count: RangeInclusive<usize>,
        range: RangeInclusive<u32>,
    ) -> Option<Vec<u32>> {
        let value = self.take(key)?;
        let items = value.as_array().filter(|items| count.contains(&items.len()));
        let numbers = items.and_then(|items| items.iter().map(|item| integer_in(item, &range)).collect());
        numbers.or_else(|| {
            self.wrong(key, &value, format!("a list of {}, each {}", count_of(&count), integer_range(&range)))
        })
    }

    pub(super) fn float(&mut self, key: &'static str, range: RangeInclusive<f32>) -> Option<f32> {
        let value = self.take(key)?;
        float_in(&value, &range).or_else(|| self.wrong(key, &value, float_range(&range)))
    }

    pub(super) fn floats(&mut self, key: &'static str, count: usize, range: RangeInclusive<f32>) -> Option<Vec<f32>> {
        let value = self.take(key)?;
        let items = value.as_array().filter(|items| items.len() == count);
        let numbers = items.and_then(|items| items.iter().map(|item| float_in(item, &range)).collect());
        numbers.or_else(|| {
            self.wrong(key, &value, format!("a list of {} (one for each channel), each {}", count, float_range(&range)))
        })
    }

    pub(super) fn strings(&mut self, key: &'static str) -> Option<Vec<String>> {
        let value = self.take(key)?;
        let items = value.as_array().filter(|items| !items.is_empty());
        let texts = items.and_then(|items| items.iter().map(|item| item.as_str().map(str::to_owned)).collect());
        texts.or_else(|| self.wrong(key, &value, "a list of strings that is not empty is needed"))
    }

    /// Notes every key that nobody asked for.
    pub(super) fn finish(self) {
        for key in self.left.keys() {
            self.mistake(key, format!("unknown key; known here: {}", self.asked.join(", ")));
        }
    }
}

pub(super) fn names<T>(choices: &[(&'static str, T)]) -> String {
    choices.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

fn integer_in(value: &Value, range: &RangeInclusive<u32>) -> Option<u32> {
    value.as_integer().and_then(|number| u32::try_from(number).ok()).filter(|number| range.contains(number))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "manifests need no more precision")]
fn float_in(value: &Value, range: &RangeInclusive<f32>) -> Option<f32> {
    let number = value.as_float().or_else(|| value.as_integer().map(|number| number as f64))?;
    Some(number as f32).filter(|number| range.contains(number))
}

fn integer_range(range: &RangeInclusive<u32>) -> String {
    format!("a whole number from {} to {}", range.start(), range.end())
}

fn float_range(range: &RangeInclusive<f32>) -> String {
    format!("a number from {} to {}", range.start(), range.end())
}

fn count_of(count: &RangeInclusive<usize>) -> String {
    if count.start() == count.end() {
        count.start().to_string()
    } else {
        format!("{} to {}", count.start(), count.end())
    }
}

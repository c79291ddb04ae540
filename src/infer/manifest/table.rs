use std::cell::RefCell;
use std::fmt::Display;
use std::ops::RangeInclusive;

use toml::Value;

use crate::infer::error::Mistake;

/// Mistakes found so far, shared by all tables of one file.
#[derive(Debug, Default)]
pub(crate) struct Mistakes(RefCell<Vec<Mistake>>);

impl Mistakes {
    pub(crate) fn add(&self, key: impl Into<String>, problem: impl Into<String>) {
        self.0.borrow_mut().push(Mistake { key: key.into(), problem: problem.into() });
    }

    pub(crate) fn into_inner(self) -> Vec<Mistake> {
        self.0.into_inner()
    }
}

/// One table of a manifest or registry: values are taken out key by key, and whatever is left in the end is unknown.
///
/// A getter returns `None` both for an absent key and for a bad value; the latter is noted as a mistake.
#[derive(Debug)]
pub(crate) struct Table<'m> {
    path: String,
    left: toml::Table,
    asked: Vec<&'static str>,
    mistakes: &'m Mistakes,
}

impl<'m> Table<'m> {
    /// The whole file; text that is no TOML is a mistake with its line.
    pub(crate) fn parse(text: &str, mistakes: &'m Mistakes) -> Option<Self> {
        match text.parse() {
            Ok(table) => Some(Self { path: String::new(), left: table, asked: Vec::new(), mistakes }),
            Err(error) => {
                mistakes.add("(toml)", one_line(&error, text));
                None
            }
        }
    }

    /// Where it is in the file: dotted keys; nothing for the whole file.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    fn key(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    pub(crate) fn mistake(&self, key: &str, problem: impl Into<String>) {
        self.mistakes.add(self.key(key), problem);
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.left.contains_key(key)
    }

    /// Whatever the key has.
    pub(crate) fn take(&mut self, key: &'static str) -> Option<Value> {
        self.asked.push(key);
        self.left.remove(key)
    }

    pub(crate) fn wrong<T>(&self, key: &str, found: &Value, legal: impl Display) -> Option<T> {
        self.mistake(key, format!("{found} is not legal: {legal}"));
        None
    }

    /// The sub-table; an empty one when it is absent.
    pub(crate) fn table(&mut self, key: &'static str) -> Self {
        self.optional_table(key).unwrap_or_else(|| self.child(key, toml::Table::new()))
    }

    pub(crate) fn optional_table(&mut self, key: &'static str) -> Option<Self> {
        match self.take(key)? {
            Value::Table(table) => Some(self.child(key, table)),
            other => self.wrong(key, &other, "a table is needed"),
        }
    }

    /// The tables of a list of tables, each with its number in its path.
    pub(crate) fn tables(&mut self, key: &'static str) -> Vec<Self> {
        match self.take(key) {
            None => Vec::new(),
            Some(Value::Array(items)) if items.iter().all(Value::is_table) => {
                let tables = items.into_iter().filter_map(|item| item.try_into::<toml::Table>().ok());
                (0..).zip(tables).map(|(index, table)| self.child(&format!("{key}[{index}]"), table)).collect()
            }
            Some(other) => {
                self.mistake(key, format!("{other} is not legal: a list of tables is needed"));
                Vec::new()
            }
        }
    }

    fn child(&self, key: &str, table: toml::Table) -> Self {
        Self { path: self.key(key), left: table, asked: Vec::new(), mistakes: self.mistakes }
    }

    pub(crate) fn string(&mut self, key: &'static str) -> Option<String> {
        match self.take(key)? {
            Value::String(text) if !text.is_empty() => Some(text),
            other => self.wrong(key, &other, "a string that is not empty is needed"),
        }
    }

    pub(crate) fn required_string(&mut self, key: &'static str) -> Option<String> {
        let missing = !self.has(key);
        let value = self.string(key);
        if missing {
            self.mistake(key, "is missing: a string is needed");
        }
        value
    }

    /// A string that stands for one of `choices`.
    pub(crate) fn choice<T: Copy>(&mut self, key: &'static str, choices: &[(&'static str, T)]) -> Option<T> {
        let value = self.take(key)?;
        let found = value.as_str().and_then(|text| choices.iter().find(|(name, _)| *name == text));
        if let Some((_, choice)) = found {
            return Some(*choice);
        }
        self.wrong(key, &value, format!("one of {}", names(choices)))
    }

    pub(crate) fn integer(&mut self, key: &'static str, range: RangeInclusive<u32>) -> Option<u32> {
        let value = self.take(key)?;
        integer_in(&value, &range).or_else(|| self.wrong(key, &value, integer_range(&range)))
    }

    pub(crate) fn integers(
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

    pub(crate) fn float(&mut self, key: &'static str, range: RangeInclusive<f32>) -> Option<f32> {
        let value = self.take(key)?;
        float_in(&value, &range).or_else(|| self.wrong(key, &value, float_range(&range)))
    }

    pub(crate) fn floats(&mut self, key: &'static str, count: usize, range: RangeInclusive<f32>) -> Option<Vec<f32>> {
        let value = self.take(key)?;
        let items = value.as_array().filter(|items| items.len() == count);
        let numbers = items.and_then(|items| items.iter().map(|item| float_in(item, &range)).collect());
        numbers.or_else(|| {
            self.wrong(key, &value, format!("a list of {} (one for each channel), each {}", count, float_range(&range)))
        })
    }

    pub(crate) fn strings(&mut self, key: &'static str) -> Option<Vec<String>> {
        let value = self.take(key)?;
        let items = value.as_array().filter(|items| !items.is_empty());
        let texts = items.and_then(|items| items.iter().map(|item| item.as_str().map(str::to_owned)).collect());
        texts.or_else(|| self.wrong(key, &value, "a list of strings that is not empty is needed"))
    }

    /// Notes every key that nobody asked for.
    pub(crate) fn finish(self) {
        for key in self.left.keys() {
            self.mistake(key, format!("unknown key; known here: {}", self.asked.join(", ")));
        }
    }
}

fn one_line(error: &toml::de::Error, text: &str) -> String {
    let line = error.span().map_or(0, |span| text.get(..span.start).unwrap_or(text).matches('\n').count() + 1);
    format!("line {line}: {}", error.message().replace('\n', " "))
}

pub(crate) fn names<T>(choices: &[(&'static str, T)]) -> String {
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

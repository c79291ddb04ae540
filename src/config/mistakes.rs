use std::fmt;
use std::path::Path;

/// Something wrong in the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The key with its section, or the file's name where no key can be told.
    pub key: String,
    /// The value as given; secrets are hidden.
    pub value: Option<String>,
    /// Where the value came from: a file's name, an environment variable or a flag.
    pub origin: Option<String>,
    /// What would be legal.
    pub legal: String,
}

impl Mistake {
    pub(super) fn of_file(path: &Path, reason: &str) -> Self {
        Self { key: path.display().to_string(), value: None, origin: None, legal: reason.to_owned() }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.key)?;
        if let Some(value) = &self.value {
            write!(out, " = {value}")?;
        }
        if let Some(origin) = &self.origin {
            write!(out, " (from {origin})")?;
        }
        write!(out, ": {}", self.legal)
    }
}

/// Everything wrong in the configuration at once; never empty when returned as an error.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mistakes(Vec<Mistake>);

impl Mistakes {
    /// All of them; unknown keys come last.
    #[must_use]
    pub fn all(&self) -> &[Mistake] {
        &self.0
    }

    pub(super) fn push(&mut self, mistake: Mistake) {
        self.0.push(mistake);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.len();
        write!(out, "{count} {} in the configuration:", if count == 1 { "mistake" } else { "mistakes" })?;
        self.0.iter().try_for_each(|mistake| write!(out, "\n  {mistake}"))
    }
}

impl std::error::Error for Mistakes {}

use std::fmt;

/// A secret: its value never shows in logs or mistakes.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub(super) fn new(value: String) -> Self {
        Self(value)
    }

    /// The value itself, for signing and checking only.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Secret(hidden)")
    }
}

/// Whether a stage uses special hardware.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Hardware {
    /// Used where it is there and works, software otherwise.
    #[default]
    Auto,
    /// Never used.
    Off,
}

/// How sessions are admitted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AdmissionMode {
    /// By what the machine is measured to bear, and never more than `max_sessions`.
    #[default]
    Measured,
    /// Up to `max_sessions`.
    Fixed,
    /// All of them.
    Off,
}

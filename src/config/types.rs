/// Whether a stage uses special hardware.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Hardware {
    /// Used where it is there and works, software otherwise.
    #[default]
    Auto,
    /// Never used.
    Off,
    /// Insisted on: where it is missing, the server does not start.
    On,
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

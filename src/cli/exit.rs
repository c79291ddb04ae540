use std::process::{ExitCode, Termination};

/// How the process ends (BSD `sysexits`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: everything asked for was done.
    Clean,
    /// 64: the configuration or the arguments are wrong.
    Configuration,
    /// 69: a needed device or library is missing, an address is taken, or a server that was asked is not ready.
    Unavailable,
    /// 70: a fault of the program.
    Internal,
}

impl Exit {
    /// The code itself.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Clean => 0,
            Self::Configuration => 64,
            Self::Unavailable => 69,
            Self::Internal => 70,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

impl Termination for Exit {
    fn report(self) -> ExitCode {
        self.into()
    }
}
